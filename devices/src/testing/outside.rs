//! All that devices are wired to besides clock and interrupts: it takes everything.

use std::sync::Arc;

use trivium_chipset::{DmaError, DmaMemory, MsiMessage, MsiSink};

use crate::parallel::ParallelBackend;
use crate::pci::{HostBridgeObserver, PamRegion, PirqObserver, Smram, Window, WindowSink};
use crate::ports::DebugConsoleBackend;
use crate::power::{PowerSink, ResetKind, SmiSink};
use crate::pvpanic::{GuestEventSink, GuestEvents};
use crate::sys::{A20Sink, A20Source, ExitSink};
use crate::uart16550::SerialBackend;

/// The rest of the machine and the host.
pub(super) struct Outside;

impl Outside {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self)
    }
}

impl A20Sink for Outside {
    fn set_a20(&self, _: A20Source, _: bool) {}
}

impl PowerSink for Outside {
    fn power_off(&self) {}
    fn reset(&self, _: ResetKind) {}
}

impl ExitSink for Outside {
    fn request_exit(&self, _: u32) {}
}

impl MsiSink for Outside {
    fn deliver(&self, _: MsiMessage) {}
}

impl SerialBackend for Outside {
    fn transmit(&mut self, _: u8) {}
}

impl DebugConsoleBackend for Outside {
    fn write(&mut self, _: u8) {}
}

impl HostBridgeObserver for Outside {
    fn pam_changed(&self, _: PamRegion) {}
    fn smram_changed(&self, _: Smram) {}
}

impl PirqObserver for Outside {
    fn pirq_routed(&self, _: u8, _: Option<u8>) {}
}

impl WindowSink for Outside {
    fn window_moved(&self, _: usize, _: Option<Window>) {}
}

impl SmiSink for Outside {
    fn assert_smi(&self) {}
}

impl ParallelBackend for Outside {
    fn print(&mut self, _: u8) {}
}

impl GuestEventSink for Outside {
    fn guest_events(&self, _: GuestEvents) {}
}

/// The first mebibyte reads as its addresses, and nothing written stays: a device that is made anew
/// finds the same.
impl DmaMemory for Outside {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.write(address, data)?;
        for (byte, at) in data.iter_mut().zip(address..) {
            *byte = (at ^ at >> 4 ^ at >> 8) as u8;
        }
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        let error = DmaError { address, len: data.len() };
        if address < 1 << 20 { Ok(()) } else { Err(error) }
    }
}
