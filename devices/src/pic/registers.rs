//! The registers of both controllers as plain numbers, for another implementation of the chip that
//! takes over or gives back: the host's kernel.

use super::Pic;
use super::chip::{Chip, Expect, Icw4};

/// One 8259A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PicRegisters {
    /// The levels of the inputs.
    pub lines: u8,
    /// The interrupt request register.
    pub irr: u8,
    /// The interrupt mask register.
    pub imr: u8,
    /// The in-service register.
    pub isr: u8,
    /// Edge or level, by input.
    pub elcr: u8,
    /// ICW2: the vector of input 0.
    pub vector_base: u8,
    /// The input of the lowest priority.
    pub lowest: u8,
    /// The initialization command word that is expected next, 2 to 4; 0 for none.
    pub expects: u8,
    /// No ICW1 was ever written.
    pub untouched: bool,
    /// ICW1 has said that there will be an ICW4.
    pub icw4_needed: bool,
    /// ICW4: automatic end of interrupt.
    pub auto_eoi: bool,
    /// OCW2: rotate in automatic EOI mode.
    pub rotate_on_auto_eoi: bool,
    /// OCW3: special mask mode.
    pub special_mask: bool,
    /// ICW4: special fully nested mode.
    pub fully_nested: bool,
    /// OCW3: ISR is read, not IRR.
    pub read_isr: bool,
    /// OCW3: the next read is a poll.
    pub poll: bool,
}

impl PicRegisters {
    fn of(chip: &Chip) -> Self {
        let (expects, untouched) = match chip.expect {
            Expect::Icw1 => (0, true),
            Expect::Icw2 => (2, false),
            Expect::Icw3 => (3, false),
            Expect::Icw4 => (4, false),
            Expect::Ocw1 => (0, false),
        };
        Self {
            lines: chip.lines,
            irr: chip.irr(),
            imr: chip.imr,
            isr: chip.isr,
            elcr: chip.elcr,
            vector_base: chip.vector_base,
            lowest: chip.lowest,
            expects,
            untouched,
            icw4_needed: chip.icw4_needed,
            auto_eoi: chip.icw4.contains(Icw4::AEOI),
            rotate_on_auto_eoi: chip.rotate_on_aeoi,
            special_mask: chip.special_mask,
            fully_nested: chip.icw4.contains(Icw4::SFNM),
            read_isr: chip.read_isr,
            poll: chip.poll,
        }
    }

    /// `icw3` is as the wiring of a PC has it: the other implementation knows no other.
    fn chip(&self, icw3: u8) -> Chip {
        let mut icw4 = Icw4::UPM;
        icw4.set(Icw4::AEOI, self.auto_eoi);
        icw4.set(Icw4::SFNM, self.fully_nested);
        Chip {
            lines: self.lines,
            edges: self.irr & self.lines & !self.elcr,
            elcr: self.elcr,
            isr: self.isr,
            imr: self.imr,
            expect: match self.expects {
                2 => Expect::Icw2,
                3 => Expect::Icw3,
                4 => Expect::Icw4,
                _ if self.untouched => Expect::Icw1,
                _ => Expect::Ocw1,
            },
            single: false,
            icw4_needed: self.icw4_needed,
            vector_base: self.vector_base & 0xf8,
            icw3,
            icw4,
            lowest: self.lowest & 7,
            rotate_on_aeoi: self.rotate_on_auto_eoi,
            special_mask: self.special_mask,
            read_isr: self.read_isr,
            poll: self.poll,
        }
    }
}

impl Pic {
    /// Master and slave.
    #[must_use]
    pub fn registers(&self) -> [PicRegisters; 2] {
        [PicRegisters::of(&self.master), PicRegisters::of(&self.slave)]
    }

    /// Takes over from another implementation. A request whose input is low is none.
    pub fn set_registers(&mut self, [master, slave]: [PicRegisters; 2]) {
        self.master = master.chip(1 << super::CASCADE);
        self.slave = slave.chip(super::CASCADE);
        self.update();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivium_chipset::IrqLine;

    /// Writes bytes to ports.
    fn write(pic: &mut Pic, writes: &[(u16, u8)]) {
        for &(port, value) in writes {
            pic.write_port(port, value).unwrap();
        }
    }

    #[test]
    fn a_pair_in_use_goes_through_its_registers() {
        let mut pic = Pic::new(IrqLine::unconnected());
        // As a PC sets them up (82371SB): vectors 20h and 28h, cascade on IR2, 8086 mode.
        write(&mut pic, &[(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1)]);
        write(&mut pic, &[(0xa0, 0x11), (0xa1, 0x28), (0xa1, 2), (0xa1, 3), (0x4d1, 0x0e)]);
        write(&mut pic, &[(0x21, 0xa8), (0xa1, 0x40), (0x20, 0xc3), (0x20, 0x0b)]);
        pic.set_irq(0, true);
        pic.set_irq(1, true);
        pic.set_irq(9, true);
        assert_eq!(pic.acknowledge(), 0x20, "the lowest priority is IR3's: IR0 comes after IR4..7");
        let registers = pic.registers();
        assert_eq!((registers[0].isr, registers[0].irr & 3), (1, 2));
        assert_eq!((registers[1].irr, registers[1].elcr, registers[1].auto_eoi), (2, 0x0e, true));
        let mut other = Pic::new(IrqLine::unconnected());
        other.set_registers(registers);
        assert_eq!(other.registers(), registers);
        for pic in [&mut pic, &mut other] {
            write(pic, &[(0x20, 0x20)]);
            assert_eq!((pic.acknowledge(), pic.has_interrupt()), (0x21, false));
            write(pic, &[(0x20, 0x20)]);
            assert_eq!(pic.acknowledge(), 0x29);
        }
        assert_eq!(pic.registers(), other.registers());
    }

    #[test]
    fn a_pair_that_awaits_its_words_goes_on_awaiting_them() {
        let mut pic = Pic::new(IrqLine::unconnected());
        assert!(pic.registers()[0].untouched);
        write(&mut pic, &[(0x20, 0x11), (0x21, 0x20)]);
        let mut other = Pic::new(IrqLine::unconnected());
        other.set_registers(pic.registers());
        write(&mut other, &[(0x21, 4), (0x21, 1)]);
        other.set_irq(4, true);
        assert_eq!(other.acknowledge(), 0x24);
        assert!(!other.registers()[0].untouched && other.registers()[1].untouched);
    }
}
