//! The MC146818 real-time clock with 128 bytes of CMOS memory at 70h and 71h.

mod calendar;
mod cmos;
mod registers;
mod save_restore;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use trivium_chipset::{
    AccessWidth, BusError, BusResult, Clock, Device, IrqLine, PortIo, Timed, VmTime,
};

pub use self::cmos::CmosMemory;
use self::registers::{RegisterA, RegisterB, RegisterC, Registers, VRT, address};
use crate::access::{byte_only, low_byte, warn_once};

/// The address register; bit 7 masks NMI. Write-only.
const INDEX: u16 = 0x70;
/// The byte at that address.
const DATA: u16 = 0x71;
/// Port 70h: NMI is masked.
const NMI_DISABLE: u8 = 1 << 7;

/// The time base, in ticks a second.
const HERTZ: u64 = 32_768;
/// How long before the end of an update cycle UIP rises: 244 µs ahead of the cycle, which takes
/// 1,984 µs (data sheet, "Update cycle").
const UIP_TICKS: u64 = 8 + 65;
/// "When the divider is changed from reset to an operating time base, the first update cycle is
/// one-half second later."
const FIRST_UPDATE_TICKS: u64 = HERTZ / 2;

/// Seconds since 1970-01-01 00:00:00, in the time zone that the clock is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixSeconds(pub u64);

/// The real-time clock.
pub struct Rtc {
    registers: Registers,
    /// The address that port 70h chose, 0 to 127.
    index: u8,
    nmi_masked: bool,
    /// What is added to virtual time's ticks to give those of the divider chain, 0 to 32,767.
    phase: u64,
    /// The tick of virtual time up to which the registers are right.
    synced: u64,
    clock: Arc<dyn Clock>,
    irq: IrqLine,
}

impl Rtc {
    /// The clock's ports.
    pub const PORTS: [u16; 2] = [INDEX, DATA];

    /// A clock that shows `start` at the machine's start and has `memory` in its CMOS bytes.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        irq: IrqLine,
        start: UnixSeconds,
        memory: CmosMemory,
    ) -> Self {
        let mut registers = Registers::new(start.0);
        memory.fill(&mut registers);
        let mut rtc =
            Self { registers, index: 0, nmi_masked: false, phase: 0, synced: 0, clock, irq };
        rtc.count(rtc.clock.now());
        rtc
    }

    /// The byte of CMOS memory at `index` (0 to 127), without side effects.
    #[must_use]
    pub fn cmos(&self, index: u8) -> u8 {
        self.registers.get(index)
    }

    /// Sets a byte of CMOS memory (0Eh to 7Fh) as firmware would, and makes the checksum right.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        if index > address::D && index & NMI_DISABLE == 0 {
            self.registers.set(index, value);
            cmos::set_checksum(&mut self.registers);
        }
    }

    /// Whether port 70h masks NMI.
    #[must_use]
    pub fn nmi_masked(&self) -> bool {
        self.nmi_masked
    }

    /// Brings the registers up to `now` and drives the interrupt.
    fn sync(&mut self, now: VmTime) {
        self.count(now);
        self.drive();
    }

    fn drive(&self) {
        self.irq.set(self.registers.c().contains(RegisterC::IRQF));
    }

    fn count(&mut self, now: VmTime) {
        let tick = now.ticks(HERTZ);
        if tick <= self.synced {
            return;
        }
        let (before, after) = (self.divider(self.synced), self.divider(tick));
        self.synced = tick;
        if !self.is_running() {
            return;
        }
        if self.period().is_some_and(|period| after / period > before / period) {
            self.registers.raise(RegisterC::PF);
        }
        let seconds = after / HERTZ - before / HERTZ;
        if seconds > 0 && !self.is_set() {
            self.registers.update(seconds);
        }
    }

    /// The divider chain's count at tick `tick` of virtual time.
    fn divider(&self, tick: u64) -> u64 {
        tick.saturating_add(self.phase)
    }

    /// Whether the divider chain has the crystal's frequency; its other settings hold it in reset or
    /// belong to crystals that a PC does not have.
    fn is_running(&self) -> bool {
        self.registers.a() & RegisterA::DV == RegisterA::DV_32K
    }

    fn is_set(&self) -> bool {
        self.registers.b().contains(RegisterB::SET)
    }

    /// The periodic interrupt's ticks (data sheet, table 5).
    fn period(&self) -> Option<u64> {
        match (self.registers.a() & RegisterA::RS).bits() {
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn is_updating(&self) -> bool {
        let to_update = HERTZ - self.divider(self.synced) % HERTZ;
        self.is_running() && !self.is_set() && to_update <= UIP_TICKS
    }

    fn read_data(&mut self) -> u8 {
        let value = self.registers.get(self.index);
        match self.index {
            address::A if self.is_updating() => value | RegisterA::UIP.bits(),
            address::C => {
                self.registers.set(address::C, 0);
                self.drive();
                value
            }
            _ => value,
        }
    }

    fn write_data(&mut self, value: u8) {
        match self.index {
            address::A => self.write_a(RegisterA::from_bits_retain(value)),
            address::B => self.write_b(RegisterB::from_bits_retain(value)),
            address::C | address::D => {}
            index => self.registers.set(index, value),
        }
    }

    fn write_a(&mut self, value: RegisterA) {
        let was_running = self.is_running();
        self.registers.set(address::A, (value - RegisterA::UIP).bits());
        if self.is_running() && !was_running {
            self.phase = (HERTZ + FIRST_UPDATE_TICKS - self.synced % HERTZ) % HERTZ;
        }
    }

    fn write_b(&mut self, mut value: RegisterB) {
        if value.contains(RegisterB::DSE) {
            warn_once!("RTC: daylight savings are not implemented");
        }
        if value.contains(RegisterB::SET) {
            // "The SET bit going high clears the UIE bit."
            value.remove(RegisterB::UIE);
        }
        self.registers.set(address::B, value.bits());
        self.registers.raise(RegisterC::empty());
        self.drive();
    }

    /// The next divider count at which an enabled interrupt comes.
    fn next_event(&self) -> Option<u64> {
        let b = self.registers.b();
        let now = self.divider(self.synced);
        let multiple = |of: u64| (now / of + 1).saturating_mul(of);
        let second = multiple(HERTZ);
        let periodic = self.period().filter(|_| b.contains(RegisterB::PIE)).map(multiple);
        let update = (b.contains(RegisterB::UIE) && !self.is_set()).then_some(second);
        let alarm = Some(())
            .filter(|()| b.contains(RegisterB::AIE) && !self.is_set())
            .and_then(|()| self.registers.seconds_to_alarm())
            .map(|seconds| second.saturating_add((seconds - 1) * HERTZ));
        [periodic, update, alarm].into_iter().flatten().min()
    }
}

impl PortIo for Rtc {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        match port {
            DATA => {
                self.sync(self.clock.now());
                Ok(self.read_data().into())
            }
            _ => Err(BusError::NoRegister),
        }
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        let value = low_byte(value);
        match port {
            INDEX => {
                self.index = value & !NMI_DISABLE;
                self.nmi_masked = value & NMI_DISABLE != 0;
            }
            DATA => {
                self.sync(self.clock.now());
                self.write_data(value);
            }
            _ => return Err(BusError::NoRegister),
        }
        Ok(())
    }
}

impl Timed for Rtc {
    /// The next enabled interrupt. None while one is requested: nothing more happens on the line
    /// until the guest reads register C.
    fn deadline(&self) -> Option<VmTime> {
        if !self.is_running() || self.registers.c().contains(RegisterC::IRQF) {
            return None;
        }
        let tick = self.next_event()?.saturating_sub(self.phase);
        Some(VmTime::from_ticks(tick, HERTZ))
    }

    fn fire(&mut self, now: VmTime) {
        self.sync(now);
    }
}

impl Device for Rtc {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn timed(&mut self) -> Option<&mut dyn Timed> {
        Some(self)
    }

    /// The chip's RESET# pin: interrupts off; the battery keeps the time and the memory.
    fn reset(&mut self) {
        self.count(self.clock.now());
        let off = RegisterB::PIE | RegisterB::AIE | RegisterB::UIE | RegisterB::SQWE;
        self.registers.set(address::B, (self.registers.b() - off).bits());
        self.registers.set(address::C, 0);
        self.nmi_masked = false;
        self.drive();
    }
}
