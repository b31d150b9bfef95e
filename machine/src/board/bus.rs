//! Bus cycles: who answers, what happens when nobody does, and how wide ones are split.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use trivium_chipset::{AccessWidth, BusError, BusResult, Clock, Device, guest_log};

use super::pc::PcBoard;
use crate::config::TraceCategories;
use crate::control::lock;

/// Unclaimed accesses to memory that are told of in the log.
const MOST_LOGGED: u32 = 64;

/// Which unclaimed accesses were told of: what a guest can provoke must not fill logs.
pub(crate) struct Unclaimed {
    /// One bit per port.
    ports: Box<[AtomicU64]>,
    memory: AtomicU32,
}

impl Unclaimed {
    pub(crate) fn new() -> Self {
        let ports = (0..0x1_0000 / 64).map(|_| AtomicU64::new(0)).collect();
        Self { ports, memory: AtomicU32::new(0) }
    }

    /// Tells of a port the first time.
    #[cold]
    fn port(&self, port: u16, what: &str) {
        let bit = 1 << (port % 64);
        let Some(word) = self.ports.get(usize::from(port / 64)) else { return };
        if word.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            guest_log!(Debug, "Nobody answers a {what} of port {port:#x}");
        }
    }

    /// Tells of an address, the first few times.
    #[cold]
    fn memory(&self, gpa: u64, what: &str) {
        if self.memory.load(Ordering::Relaxed) < MOST_LOGGED {
            self.memory.fetch_add(1, Ordering::Relaxed);
            guest_log!(Debug, "Nobody answers a {what} of address {gpa:#x}");
        }
    }
}

/// Runs `access` for each part of an access to a device's registers: aligned ones of four bytes
/// at most, as the PCI bus has them.
fn dwords(gpa: u64, len: usize, mut access: impl FnMut(u64, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = gpa.wrapping_add(done as u64);
        let end = len.min(done + (4 - (at % 4) as usize));
        access(at, done..end);
        done = end;
    }
}

impl PcBoard {
    /// Does something with a device, and notes what it does to the device's deadline.
    fn with_device<R>(&self, slot: usize, f: impl FnOnce(&mut dyn Device) -> R) -> Option<R> {
        let mut device = lock(&self.slots.get(slot)?.device);
        let result = f(&mut *device);
        if let Some(timed) = device.timed() {
            self.timers.set(slot, timed.deadline());
        }
        Some(result)
    }

    fn port_slot(&self, port: u16) -> Option<usize> {
        self.ports.device(port).or_else(|| self.moving.port(port))
    }

    /// The device that answers an access. None but one of the later ports' may: the access is then
    /// split.
    fn pio_slot(&self, port: u16, width: AccessWidth) -> BusResult<usize> {
        let Some(slot) = self.port_slot(port) else {
            let mut rest = (1..width.bytes()).map(|byte| port.wrapping_add(byte));
            let split = rest.any(|port| self.port_slot(port).is_some());
            return Err(if split { BusError::Width } else { BusError::NoRegister });
        };
        Ok(slot)
    }

    /// Reads ports as a bus cycle of this width does.
    pub(crate) fn pio_read(&self, port: u16, width: AccessWidth) -> u32 {
        let value = match self.try_pio_read(port, width) {
            Ok(value) => value & width.mask(),
            Err(BusError::Width) if width != AccessWidth::Byte => {
                (0..width.bytes()).fold(0, |value, byte| {
                    let part = self.pio_read(port.wrapping_add(byte), AccessWidth::Byte);
                    value | part << (8 * byte)
                })
            }
            Err(_) => {
                self.unclaimed.port(port, "read");
                width.mask()
            }
        };
        if self.trace.wants(TraceCategories::IO) {
            self.trace_io(format_args!("read {port:04x} {:x} {value:x}", width.bytes()));
        }
        value
    }

    fn try_pio_read(&self, port: u16, width: AccessWidth) -> BusResult<u32> {
        let slot = self.pio_slot(port, width)?;
        let read = |device: &mut dyn Device| match device.pio() {
            Some(ports) => ports.read(port, width),
            None => Err(BusError::NoRegister),
        };
        self.with_device(slot, read).unwrap_or(Err(BusError::NoRegister))
    }

    /// Writes ports as a bus cycle of this width does.
    pub(crate) fn pio_write(&self, port: u16, width: AccessWidth, value: u32) {
        if self.trace.wants(TraceCategories::IO) {
            self.trace_io(format_args!("write {port:04x} {:x} {value:x}", width.bytes()));
        }
        match self.try_pio_write(port, width, value & width.mask()) {
            Ok(()) => {}
            Err(BusError::Width) if width != AccessWidth::Byte => {
                for byte in 0..width.bytes() {
                    let part = value >> (8 * byte) & 0xff;
                    self.pio_write(port.wrapping_add(byte), AccessWidth::Byte, part);
                }
            }
            Err(_) => self.unclaimed.port(port, "write"),
        }
    }

    fn try_pio_write(&self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        let slot = self.pio_slot(port, width)?;
        let write = |device: &mut dyn Device| match device.pio() {
            Some(ports) => ports.write(port, width, value),
            None => Err(BusError::NoRegister),
        };
        self.with_device(slot, write).unwrap_or(Err(BusError::NoRegister))
    }

    #[cold]
    fn trace_io(&self, text: std::fmt::Arguments<'_>) {
        self.trace.line(format_args!("io: {} {text}", self.clock.now()));
    }

    /// Reads what is not RAM, ROM, or the processor's own local APIC.
    pub(crate) fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        match self.try_mmio_read(gpa, data) {
            Ok(()) => {}
            Err(BusError::Width) if data.len() > 4 => dwords(gpa, data.len(), |at, range| {
                if let Some(part) = data.get_mut(range) {
                    self.mmio_read(at, part);
                }
            }),
            Err(_) => {
                data.fill(0xff);
                self.unclaimed.memory(gpa, "read");
            }
        }
    }

    fn try_mmio_read(&self, gpa: u64, data: &mut [u8]) -> BusResult<()> {
        let (slot, offset) = self.mmio_slot(gpa).ok_or(BusError::NoRegister)?;
        let read = |device: &mut dyn Device| match device.mmio() {
            Some(registers) => registers.read(offset, data),
            None => Err(BusError::NoRegister),
        };
        self.with_device(slot, read).unwrap_or(Err(BusError::NoRegister))
    }

    /// Writes what is not RAM or the processor's own local APIC.
    pub(crate) fn mmio_write(&self, gpa: u64, data: &[u8]) {
        match self.try_mmio_write(gpa, data) {
            Ok(()) => {}
            Err(BusError::Width) if data.len() > 4 => dwords(gpa, data.len(), |at, range| {
                if let Some(part) = data.get(range) {
                    self.mmio_write(at, part);
                }
            }),
            Err(_) if self.write_behind_rom(gpa, data) => {}
            Err(_) => self.unclaimed.memory(gpa, "write"),
        }
    }

    fn write_behind_rom(&self, gpa: u64, data: &[u8]) -> bool {
        self.pci.as_ref().is_some_and(|pci| pci.mapper.write_behind_rom(gpa, data))
    }

    fn try_mmio_write(&self, gpa: u64, data: &[u8]) -> BusResult<()> {
        let (slot, offset) = self.mmio_slot(gpa).ok_or(BusError::NoRegister)?;
        let write = |device: &mut dyn Device| match device.mmio() {
            Some(registers) => registers.write(offset, data),
            None => Err(BusError::NoRegister),
        };
        self.with_device(slot, write).unwrap_or(Err(BusError::NoRegister))
    }

    /// The device whose registers are at an address, and the offset there.
    fn mmio_slot(&self, gpa: u64) -> Option<(usize, u64)> {
        let fixed = self.windows.iter().find_map(|window| {
            let offset = gpa.checked_sub(window.base)?;
            (offset < window.size).then_some((window.slot, offset))
        });
        fixed.or_else(|| self.moving.memory(gpa))
    }
}
