//! A platform with nothing in it: no devices, no interrupts, no time.

use trivium_cpu::{CpuBus, MsrFault, ResetKind};

/// The empty platform. Reads give all ones, as of a bus that nobody drives.
pub struct NullBus;

impl CpuBus for NullBus {
    fn retire(&self, _: u64) {}
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _: u64, _: &[u8]) {}
    fn pio_read(&self, _: u16, _: u8) -> u32 {
        !0
    }
    fn pio_write(&self, _: u16, _: u8, _: u32) {}
    fn msr_read(&self, _: u32) -> Option<Result<u64, MsrFault>> {
        None
    }
    fn msr_write(&self, _: u32, _: u64) -> Option<Result<(), MsrFault>> {
        None
    }
    fn cr8(&self) -> u8 {
        0
    }
    fn set_cr8(&self, _: u8) {}
    fn tsc(&self) -> u64 {
        0
    }
    fn set_tsc_offset(&self, _: u64) {}
    fn random(&self) -> u64 {
        0
    }
    fn interrupt_pending(&self) -> bool {
        false
    }
    fn acknowledge_interrupt(&self) -> Option<u8> {
        None
    }
    fn take_nmi(&self) -> bool {
        false
    }
    fn take_reset(&self) -> Option<ResetKind> {
        None
    }
    fn delivering(&self, _: u8, _: Option<u32>, _: u64) {}
    fn set_ferr(&self, _: bool) {}
}
