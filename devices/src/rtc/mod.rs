//! The MC146818 real-time clock with 128 bytes of CMOS memory at 70h and 71h.

mod calendar;
mod cmos;
mod follow;
mod registers;
mod save_restore;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use trivium_chipset::{
    AccessWidth, BusError, BusResult, Clock, Device, IrqLine, PortIo, Timed, VmTime,
};

pub use self::cmos::{BootDevice, CmosMemory, FloppyDrive};
pub use self::follow::HostTime;
use self::follow::{Follower, LOOK};
use self::registers::{RegisterA, RegisterB, RegisterC, Registers, VRT, address};
use crate::access::{byte_only, low_byte};
use crate::lost_ticks::{LostTicks, TickQueue};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnixSeconds(pub u64);

/// The real-time clock.
pub struct Rtc {
    registers: Registers,
    /// The address that port 70h chose, 0 to 127.
    index: u8,
    nmi_masked: bool,
    /// What is added to the ticks of the chip's time to give those of the divider chain, 0 to 32,767.
    phase: u64,
    /// The tick of the chip's time up to which the registers are right.
    synced: u64,
    /// Periodic interrupts that came too late.
    queue: TickQueue,
    follower: Follower,
    clock: Arc<dyn Clock>,
    irq: IrqLine,
}

impl Rtc {
    /// The clock's ports.
    pub const PORTS: [u16; 8] = [INDEX, DATA, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77];

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
        let mut rtc = Self {
            registers,
            index: 0,
            nmi_masked: false,
            phase: 0,
            synced: 0,
            queue: TickQueue::new(LostTicks::default()),
            follower: Follower::none(),
            clock,
            irq,
        };
        rtc.count(rtc.clock.now());
        rtc
    }

    /// The same clock with another policy for periodic interrupts that the host was too late for.
    #[must_use]
    pub fn with_lost_ticks(mut self, policy: LostTicks) -> Self {
        self.queue = TickQueue::new(policy);
        self
    }

    /// The same clock, which from now on goes on with the host's while the machine stands.
    #[must_use]
    pub fn following(mut self, host: Arc<dyn HostTime>) -> Self {
        self.follower = Follower::new(host, self.clock.now());
        self
    }

    /// The devices that firmware is to try to boot from, in this order, as QEMU's firmware reads
    /// it; and whether it is to look for a boot signature on floppy disks.
    pub fn set_boot_order(&mut self, order: [Option<BootDevice>; 3], check_floppy: bool) {
        cmos::set_boot_order(&mut self.registers, order, check_floppy);
    }

    /// The floppy drives that are there: the first and the second.
    pub fn set_floppies(&mut self, drives: [Option<FloppyDrive>; 2]) {
        cmos::set_floppies(&mut self.registers, drives);
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
        let tick = self.follower.time(now).ticks(HERTZ);
        if tick <= self.synced {
            return;
        }
        let (before, after) = (self.divider(self.synced), self.divider(tick));
        self.synced = tick;
        if !self.is_running() {
            return;
        }
        if let Some(period) = self.period() {
            self.tick(after / period - before / period, period, now);
        }
        let seconds = after / HERTZ - before / HERTZ;
        if seconds > 0 && !self.is_set() {
            self.registers.update(seconds);
        }
    }

    /// So many periodic interrupts are due, of which at most one can be delivered.
    fn tick(&mut self, count: u64, period: u64, now: VmTime) {
        if count == 0 {
            return;
        }
        if self.registers.b().contains(RegisterB::PIE) {
            let pending = self.registers.c().contains(RegisterC::PF);
            let missed = if pending { count } else { count - 1 };
            self.queue.miss(missed, VmTime::from_ticks(period, HERTZ).as_nanos(), now);
        }
        self.registers.raise(RegisterC::PF);
    }

    /// The divider chain's count at tick `tick` of the chip's time.
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
        let (was_running, period) = (self.is_running(), self.period());
        self.registers.set(address::A, (value - RegisterA::UIP).bits());
        if self.period() != period {
            self.queue.clear();
        }
        if self.is_running() && !was_running {
            self.phase = (HERTZ + FIRST_UPDATE_TICKS - self.synced % HERTZ) % HERTZ;
        }
    }

    fn write_b(&mut self, mut value: RegisterB) {
        if value.contains(RegisterB::SET) {
            // "The SET bit going high clears the UIE bit."
            value.remove(RegisterB::UIE);
        }
        self.registers.set(address::B, value.bits());
        if !value.contains(RegisterB::PIE) {
            self.queue.clear();
        }
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
            .map(|seconds| {
                self.registers.seconds_to_daylight_saving().unwrap_or(seconds).min(seconds)
            })
            .map(|seconds| second.saturating_add((seconds - 1) * HERTZ));
        [periodic, update, alarm].into_iter().flatten().min()
    }
}

/// The port that a register is known by: its aliases are those of the 82371SB ("ISA-compatible
/// registers").
fn undecoded(port: u16) -> u16 {
    if port & !7 == INDEX { INDEX | port & 1 } else { port }
}

impl PortIo for Rtc {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        match undecoded(port) {
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
        match undecoded(port) {
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
        let mut next = self.follower.virtual_time(VmTime::from_ticks(tick, HERTZ));
        if self.follower.follows() {
            let synced = self.follower.virtual_time(VmTime::from_ticks(self.synced, HERTZ));
            next = next.min(synced.saturating_add(LOOK));
        }
        Some(self.queue.deadline().map_or(next, |owed| owed.min(next)))
    }

    fn fire(&mut self, now: VmTime) {
        self.count(now);
        if !self.registers.c().contains(RegisterC::IRQF) && self.queue.take(now) {
            self.registers.raise(RegisterC::PF);
        }
        self.drive();
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
        self.queue.clear();
        self.nmi_masked = false;
        self.drive();
    }
}
