//! One 8259A as its data sheet (Intel order number 231468) describes it, with the edge/level control
//! register (ELCR) that the 82371SB puts in the place of ICW1's LTIM bit.

use bitflags::bitflags;
use trivium_chipset::guest_log;

bitflags! {
    /// ICW1, written to A0 = 0 with bit 4 set.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Icw1: u8 {
        /// ICW4 needed.
        const IC4 = 1 << 0;
        /// Single: no cascade, no ICW3.
        const SNGL = 1 << 1;
        /// What tells ICW1 from OCW2 and OCW3.
        const INIT = 1 << 4;
    }

    /// ICW4. The buffered-mode bits have no effect on a PC's wiring and are ignored.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Icw4: u8 {
        /// µPM: 8086 mode, not MCS-80.
        const UPM = 1 << 0;
        /// Automatic end of interrupt.
        const AEOI = 1 << 1;
        /// Special fully nested mode.
        const SFNM = 1 << 4;
    }

    /// OCW3, written to A0 = 0 with bits 4 and 3 equal to 01.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Ocw3: u8 {
        /// With RR: read ISR, not IRR.
        const RIS = 1 << 0;
        /// Read register command.
        const RR = 1 << 1;
        /// Poll command.
        const P = 1 << 2;
        /// What tells OCW3 from OCW2.
        const OCW3 = 1 << 3;
        /// With ESMM: special mask mode.
        const SMM = 1 << 5;
        /// Enable special mask mode.
        const ESMM = 1 << 6;
    }
}

/// The level of the default (spurious) interrupt: "DEFAULT IR7".
const DEFAULT_LEVEL: u8 = 7;
/// The lowest priority after initialization: fully nested mode, IR0 first.
const FULLY_NESTED: u8 = 7;

/// ICW3 of a slave: its number.
const SLAVE_ID: u8 = 7;

/// Which write to A0 = 1 comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// Nothing yet: an ICW1 must come first.
    Icw1,
    Icw2,
    Icw3,
    Icw4,
    /// Initialized: OCW1.
    Ocw1,
}

/// One 8259A.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chip {
    /// The IR pins.
    pub(super) lines: u8,
    /// The edge sense latches: pins that rose and were not yet acknowledged.
    pub(super) edges: u8,
    /// ELCR: pins that are level-triggered.
    pub(super) elcr: u8,
    /// In-service register.
    pub(super) isr: u8,
    /// Interrupt mask register.
    pub(super) imr: u8,
    pub(super) expect: Expect,
    /// ICW1 said SNGL.
    pub(super) single: bool,
    /// ICW1 said IC4.
    pub(super) icw4_needed: bool,
    /// ICW2, T7 to T3: the vector of IR0.
    pub(super) vector_base: u8,
    /// ICW3: on the master the pins with slaves, on the slave its number.
    pub(super) icw3: u8,
    pub(super) icw4: Icw4,
    /// The level of the lowest priority; the next one has the highest.
    pub(super) lowest: u8,
    pub(super) rotate_on_aeoi: bool,
    pub(super) special_mask: bool,
    /// A0 = 0 reads ISR, not IRR.
    pub(super) read_isr: bool,
    /// The next read is a poll.
    pub(super) poll: bool,
}

impl Chip {
    /// A chip that awaits ICW1.
    pub(super) fn new() -> Self {
        Self {
            lines: 0,
            edges: 0,
            elcr: 0,
            isr: 0,
            imr: 0,
            expect: Expect::Icw1,
            single: false,
            icw4_needed: false,
            vector_base: 0,
            icw3: 0,
            icw4: Icw4::empty(),
            lowest: FULLY_NESTED,
            rotate_on_aeoi: false,
            special_mask: false,
            read_isr: false,
            poll: false,
        }
    }

    /// Forgets everything but the levels of the pins, which others drive.
    pub(super) fn reset(&mut self) {
        *self = Self { lines: self.lines, ..Self::new() };
    }

    /// The interrupt request register. In both trigger modes a request lasts only while its pin is
    /// high ("IR triggering timing requirements").
    pub(super) fn irr(&self) -> u8 {
        self.lines & (self.edges | self.elcr)
    }

    /// Drives pin `ir` (0 to 7).
    pub(super) fn set_line(&mut self, ir: u8, high: bool) {
        let bit = bit(ir);
        if !high {
            self.lines &= !bit;
            self.edges &= !bit;
        } else if self.lines & bit == 0 {
            self.lines |= bit;
            self.edges |= bit;
        }
    }

    /// The highest-priority level among the set bits, if there are any.
    fn first(&self, bits: u8) -> Option<u8> {
        let top = (self.lowest + 1) & 7;
        let rotated = bits.rotate_right(top.into());
        (rotated != 0).then(|| (level(rotated) + top) & 7)
    }

    /// How many levels come before `ir` in priority.
    fn rank(&self, ir: u8) -> u8 {
        ir.wrapping_sub(self.lowest + 1) & 7
    }

    /// The request that INT announces, if any: the highest unmasked one, if no interrupt in service
    /// holds it back.
    pub(super) fn pending(&self) -> Option<u8> {
        if self.expect != Expect::Ocw1 {
            return None;
        }
        let request = self.first(self.irr() & !self.imr)?;
        // In special mask mode a masked interrupt in service holds nothing back.
        let holding = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let Some(in_service) = self.first(holding) else { return Some(request) };
        let free = self.rank(request) < self.rank(in_service);
        // Special fully nested mode: a slave is not locked out by its own interrupt in service.
        let nested = request == in_service && self.is_slave_pin(request) && self.is_sfnm();
        (free || nested).then_some(request)
    }

    /// Whether a slave hangs on pin `ir` (masters only).
    pub(super) fn is_slave_pin(&self, ir: u8) -> bool {
        !self.single && self.icw3 & bit(ir) != 0
    }

    /// Whether this chip, as a slave, answers to `number` on the cascade lines.
    pub(super) fn is_addressed(&self, number: u8) -> bool {
        !self.single && self.icw3 & SLAVE_ID == number
    }

    fn is_sfnm(&self) -> bool {
        self.icw4.contains(Icw4::SFNM)
    }

    /// The INTA cycle: puts the pending request into service and gives its level. Without one it
    /// is the default IR7, which is not put into service.
    pub(super) fn acknowledge(&mut self) -> u8 {
        let Some(ir) = self.pending() else { return DEFAULT_LEVEL };
        self.edges &= !bit(ir);
        if !self.icw4.contains(Icw4::AEOI) {
            self.isr |= bit(ir);
        } else if self.rotate_on_aeoi {
            self.lowest = ir;
        }
        ir
    }

    /// The vector of level `ir` in 8086 mode.
    pub(super) fn vector(&self, ir: u8) -> u8 {
        self.vector_base | ir
    }

    /// A read with A0 = `a0`. Any read after a poll command is the poll.
    pub(super) fn read(&mut self, a0: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return match self.pending() {
                Some(_) => 0x80 | self.acknowledge(),
                None => 0,
            };
        }
        match (a0, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr(),
        }
    }

    /// A write with A0 = `a0`.
    pub(super) fn write(&mut self, a0: bool, value: u8) {
        if a0 {
            self.write_a1(value);
        } else if value & Icw1::INIT.bits() != 0 {
            self.write_icw1(Icw1::from_bits_truncate(value));
        } else if value & Ocw3::OCW3.bits() != 0 {
            self.write_ocw3(Ocw3::from_bits_truncate(value));
        } else {
            self.write_ocw2(value);
        }
    }

    /// "Initialization command word 1": clears the edge sense circuit and the mask, IR7 becomes the
    /// lowest priority, "the slave mode address is set to 7", special mask mode is off and reads
    /// give IRR. Without IC4, "all functions selected in ICW4 are set to zero".
    fn write_icw1(&mut self, icw1: Icw1) {
        *self = Self {
            lines: self.lines,
            elcr: self.elcr,
            expect: Expect::Icw2,
            single: icw1.contains(Icw1::SNGL),
            icw4_needed: icw1.contains(Icw1::IC4),
            icw3: SLAVE_ID,
            ..Self::new()
        };
    }

    fn write_a1(&mut self, value: u8) {
        self.expect = match self.expect {
            Expect::Icw1 | Expect::Ocw1 => {
                self.imr = value;
                self.expect
            }
            Expect::Icw2 => {
                self.vector_base = value & 0xf8;
                if self.single { self.after_icw3() } else { Expect::Icw3 }
            }
            Expect::Icw3 => {
                self.icw3 = value;
                self.after_icw3()
            }
            Expect::Icw4 => {
                self.icw4 = Icw4::from_bits_truncate(value);
                if !self.icw4.contains(Icw4::UPM) {
                    guest_log!(
                        Warn,
                        "8259A: MCS-80 mode is not implemented, vectors are as in 8086 mode"
                    );
                }
                Expect::Ocw1
            }
        };
    }

    fn after_icw3(&self) -> Expect {
        if self.icw4_needed { Expect::Icw4 } else { Expect::Ocw1 }
    }

    /// OCW2: R, SL and EOI in bits 7 to 5, a level in bits 2 to 0 (data sheet, figure 8).
    fn write_ocw2(&mut self, value: u8) {
        let named = value & 7;
        match value >> 5 {
            0b000 => self.rotate_on_aeoi = false,
            0b001 => self.end_of_interrupt(None, false),
            0b011 => self.end_of_interrupt(Some(named), false),
            0b100 => self.rotate_on_aeoi = true,
            0b101 => self.end_of_interrupt(None, true),
            0b110 => self.lowest = named,
            0b111 => self.end_of_interrupt(Some(named), true),
            _ => {} // 010: no operation
        }
    }

    /// Ends the named interrupt or, non-specifically, the highest one in service. In special mask
    /// mode the latter passes over masked ones.
    fn end_of_interrupt(&mut self, named: Option<u8>, rotate: bool) {
        let candidates = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let Some(ir) = named.or_else(|| self.first(candidates)) else { return };
        self.isr &= !bit(ir);
        if rotate {
            self.lowest = ir;
        }
    }

    fn write_ocw3(&mut self, ocw3: Ocw3) {
        if ocw3.contains(Ocw3::ESMM) {
            self.special_mask = ocw3.contains(Ocw3::SMM);
        }
        // "If P = 1 and RR = 1 the poll command takes precedence."
        self.poll = ocw3.contains(Ocw3::P);
        if !self.poll && ocw3.contains(Ocw3::RR) {
            self.read_isr = ocw3.contains(Ocw3::RIS);
        }
    }
}

/// The bit of level `ir`.
fn bit(ir: u8) -> u8 {
    1 << (ir & 7)
}

/// The lowest set bit of `bits`, which is not zero.
fn level(bits: u8) -> u8 {
    u8::try_from(bits.trailing_zeros()).unwrap_or(7)
}
