//! What a processor sees of the board.

use std::fmt::Arguments;

use trivium_chipset::{AccessWidth, Clock};
use trivium_cpu::{CpuBus, MsrFault, ResetKind};
use trivium_devices::apic::LapicAction;
use trivium_firmware::acpi::pc as addresses;
use trivium_kvm::doorbell::Place;

use super::pc::PcBoard;
use crate::config::TraceCategories;
use crate::control::lock;
use crate::doorbells::value_of;

/// IA32_APIC_BASE.
const MSR_APIC_BASE: u32 = 0x1b;
/// IA32_TSC_DEADLINE.
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// The registers of x2APIC mode.
const MSR_X2APIC: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// Offsets of the local APIC's registers that set its timer: SVR, the timer's LVT entry, initial
/// count and divide configuration.
const TIMER_REGISTERS: [u64; 4] = [0xf0, 0x320, 0x380, 0x3e0];

/// Whether a write to a platform MSR may set the local APIC's timer.
fn sets_timer(msr: u32) -> bool {
    match msr.checked_sub(*MSR_X2APIC.start()) {
        Some(register) => TIMER_REGISTERS.contains(&(u64::from(register) << 4)),
        None => true,
    }
}

fn width_of(bytes: u8) -> AccessWidth {
    match bytes {
        1 => AccessWidth::Byte,
        2 => AccessWidth::Word,
        _ => AccessWidth::Dword,
    }
}

/// The board as processor `cpu` sees it.
pub(crate) struct VcpuBus<'a> {
    pub(crate) board: &'a PcBoard,
    pub(crate) cpu: usize,
}

impl VcpuBus<'_> {
    /// Does what a local APIC asks of the rest of the board.
    fn carry_out(&self, action: Option<LapicAction>) {
        match action {
            None => {}
            Some(LapicAction::Eoi(vector)) => {
                if let Some(ioapic) = &self.board.ioapic {
                    lock(ioapic).end_of_interrupt(vector);
                }
            }
            Some(LapicAction::Ipi(message)) => {
                self.board.apics.deliver_message(&message, Some(self.cpu));
            }
        }
    }

    fn apic_read(&self, offset: u64, data: &mut [u8]) {
        let result = self.board.apics.with(self.cpu, |apic| apic.mmio_read(offset, data));
        if !matches!(result, Some(Ok(()))) {
            data.fill(0xff);
        }
    }

    fn apic_write(&self, offset: u64, data: &[u8]) {
        let result = self.board.apics.with(self.cpu, |apic| apic.mmio_write(offset, data));
        if let Some(Ok(action)) = result {
            self.carry_out(action);
        }
        if TIMER_REGISTERS.contains(&offset) {
            self.board.refresh_apic_timer(self.cpu);
        }
    }

    #[cold]
    fn trace_data(&self, what: &str, gpa: u64, data: &[u8]) {
        let value = data.iter().rev().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        self.trace(format_args!("mmio: {} {what} {gpa:x} {value}", self.board.clock.now()));
    }

    #[cold]
    fn trace_delivery(&self, vector: u8, error_code: Option<u32>, rip: u64) {
        let now = self.board.clock.now();
        let error = error_code.map_or(String::new(), |code| format!(" error {code:x}"));
        self.trace(format_args!(
            "int: {now} cpu {} vector {vector:02x}{error} at {rip:x}",
            self.cpu
        ));
    }

    #[cold]
    fn trace(&self, text: Arguments<'_>) {
        self.board.trace.line(text);
    }

    /// The vector of the interrupt that the processor takes.
    fn acknowledge(&self) -> Option<u8> {
        if self.board.seat.split().is_some() {
            return Some(lock(&self.board.pic).acknowledge());
        }
        let apics = &self.board.apics;
        let (external, vector) = apics.with(self.cpu, |apic| {
            if apic.extint_pending() {
                apic.acknowledge_extint();
                (true, None)
            } else {
                (false, apic.highest_pending().map(|_| apic.acknowledge()))
            }
        })?;
        if external { Some(lock(&self.board.pic).acknowledge()) } else { vector }
    }
}

impl CpuBus for VcpuBus<'_> {
    fn delivering(&self, vector: u8, error_code: Option<u32>, rip: u64) {
        if self.board.trace.wants(TraceCategories::INT) {
            self.trace_delivery(vector, error_code, rip);
        }
    }

    fn set_tsc_offset(&self, offset: u64) {
        self.board.apics.with(self.cpu, |apic| apic.set_tsc_offset(offset));
        self.board.refresh_apic_timer(self.cpu);
    }

    fn random(&self) -> u64 {
        self.board.clock.random()
    }

    #[inline]
    fn retire(&self, instructions: u64) {
        self.board.clock.retire(instructions);
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        match self.board.apics.page_offset(self.cpu, gpa) {
            Some(offset) => self.apic_read(offset, data),
            None => self.board.mmio_read(gpa, data),
        }
        if self.board.trace.wants(TraceCategories::MMIO) {
            self.trace_data("read", gpa, data);
        }
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        if self.board.trace.wants(TraceCategories::MMIO) {
            self.trace_data("write", gpa, data);
        }
        match self.board.apics.page_offset(self.cpu, gpa) {
            Some(offset) => self.apic_write(offset, data),
            None if self.board.bells.ring(Place::Memory(gpa), data.len(), value_of(data)) => {}
            None => {
                self.board.mmio_write(gpa, data);
                if gpa & !0xfff == u64::from(addresses::IOAPIC_BASE) {
                    self.board.seat.routes_changed();
                }
            }
        }
    }

    fn pio_read(&self, port: u16, width: u8) -> u32 {
        self.board.pio_read(port, width_of(width))
    }

    fn pio_write(&self, port: u16, width: u8, value: u32) {
        if !self.board.bells.ring(Place::Port(port), width.into(), value.into()) {
            self.board.pio_write(port, width_of(width), value);
        }
    }

    fn msr_read(&self, msr: u32) -> Option<Result<u64, MsrFault>> {
        if msr != MSR_APIC_BASE && msr != MSR_TSC_DEADLINE && !MSR_X2APIC.contains(&msr) {
            return None;
        }
        let result = self.board.apics.with(self.cpu, |apic| apic.read_msr(msr));
        result.map(|result| result.map_err(|_| MsrFault))
    }

    fn msr_write(&self, msr: u32, value: u64) -> Option<Result<(), MsrFault>> {
        if msr != MSR_APIC_BASE && msr != MSR_TSC_DEADLINE && !MSR_X2APIC.contains(&msr) {
            return None;
        }
        let result = self.board.apics.with(self.cpu, |apic| apic.write_msr(msr, value))?;
        Some(match result {
            Ok(action) => {
                self.carry_out(action);
                if sets_timer(msr) {
                    self.board.refresh_apic_timer(self.cpu);
                }
                Ok(())
            }
            Err(_) => Err(MsrFault),
        })
    }

    fn cr8(&self) -> u8 {
        self.board.apics.with(self.cpu, |apic| apic.cr8()).unwrap_or(0)
    }

    fn set_cr8(&self, priority: u8) {
        self.board.apics.with(self.cpu, |apic| apic.set_cr8(priority));
    }

    #[inline]
    fn tsc(&self) -> u64 {
        self.board.clock.tsc()
    }

    #[inline]
    fn interrupt_pending(&self) -> bool {
        self.board.apics.interrupt_waits(self.cpu)
    }

    fn acknowledge_interrupt(&self) -> Option<u8> {
        let vector = self.acknowledge();
        if self.interrupt_pending() {
            // Another waits that may interrupt this one's handler.
            self.board.control.attend(self.cpu);
        }
        if let Some(vector) = vector
            && self.board.trace.wants(TraceCategories::INT)
        {
            let now = self.board.clock.now();
            self.trace(format_args!("int: {now} cpu {} takes {vector:02x}", self.cpu));
        }
        vector
    }

    fn take_nmi(&self) -> bool {
        self.board.apics.nmi_waits(self.cpu)
            && self.board.apics.with(self.cpu, |apic| apic.take_nmi()) == Some(true)
    }

    fn take_smi(&self) -> bool {
        self.board.apics.smi_waits(self.cpu)
            && self.board.apics.with(self.cpu, |apic| apic.take_smi()) == Some(true)
    }

    fn take_reset(&self) -> Option<ResetKind> {
        if self.board.control.take_init(self.cpu) {
            return Some(ResetKind::Init);
        }
        if !self.board.apics.reset_waits(self.cpu) {
            return None;
        }
        self.board.apics.with(self.cpu, |apic| match apic.take_init() {
            true => Some(ResetKind::Init),
            false => apic.take_startup().map(ResetKind::Sipi),
        })?
    }

    fn set_ferr(&self, high: bool) {
        lock(&self.board.fpu).set_ferr(high);
    }
}
