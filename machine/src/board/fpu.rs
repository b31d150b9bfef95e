//! The board's part in x87 errors: FERR# raises IRQ 13, and a write to port F0h takes it back.
//! 82371SB data sheet (order number 290550), 2.5.4, "Coprocessor Error Register".

use trivium_chipset::{
    AccessWidth, BusError, BusResult, Device, IrqLine, PortIo, SaveRestore, Section, StateError,
};

/// Clears the error latch; F1h resets the coprocessor, which has been one with the CPU since the
/// 80486, and clears the latch as well.
pub(crate) const CLEAR_BUSY: u16 = 0xf0;
/// Ports of the latch.
pub(crate) const PORTS: u16 = 2;

/// The latch between FERR# and IRQ 13.
pub(crate) struct FpuErrorLatch {
    ferr: bool,
    latched: bool,
    irq: IrqLine,
}

impl FpuErrorLatch {
    pub(crate) fn new(irq: IrqLine) -> Self {
        Self { ferr: false, latched: false, irq }
    }

    /// FERR# is asserted or not; its beginning sets the latch.
    pub(crate) fn set_ferr(&mut self, asserted: bool) {
        let rises = asserted && !self.ferr;
        self.ferr = asserted;
        if rises {
            self.set(true);
        }
    }

    fn set(&mut self, latched: bool) {
        if self.latched != latched {
            self.latched = latched;
            self.irq.set(latched);
        }
    }
}

impl PortIo for FpuErrorLatch {
    fn read(&mut self, _: u16, _: AccessWidth) -> BusResult<u32> {
        Err(BusError::NoRegister)
    }

    fn write(&mut self, _: u16, width: AccessWidth, _: u32) -> BusResult<()> {
        if width != AccessWidth::Byte {
            return Err(BusError::Width);
        }
        self.set(false);
        Ok(())
    }
}

impl Device for FpuErrorLatch {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn reset(&mut self) {
        self.ferr = false;
        self.set(false);
    }
}

impl SaveRestore for FpuErrorLatch {
    fn save(&self) -> Section {
        save_restore::save(self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        save_restore::restore(self, section)
    }
}

mod save_restore {
    use super::{FpuErrorLatch, Section, StateError};

    const VERSION: u32 = 1;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Saved {
        ferr: bool,
        latched: bool,
    }

    pub fn save(latch: &FpuErrorLatch) -> Section {
        let &FpuErrorLatch { ferr, latched, irq: _ } = latch;
        Section::encode(VERSION, &Saved { ferr, latched })
    }

    pub fn restore(latch: &mut FpuErrorLatch, section: &Section) -> Result<(), StateError> {
        let Saved { ferr, latched } = section.decode(VERSION)?;
        (latch.ferr, latch.latched) = (ferr, latched);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use trivium_chipset::IrqSink;

    #[derive(Default)]
    struct Wire(AtomicBool);
    impl IrqSink for Wire {
        fn set_level(&self, _: u32, _: u32, high: bool) {
            self.0.store(high, Ordering::Relaxed);
        }
    }

    #[test]
    fn ferr_raises_irq13_until_port_f0h_is_written() {
        let wire = Arc::<Wire>::default();
        let mut latch = FpuErrorLatch::new(IrqLine::new(wire.clone(), 13, 0));
        let high = || wire.0.load(Ordering::Relaxed);
        latch.set_ferr(true);
        assert!(high());
        latch.write(CLEAR_BUSY, AccessWidth::Byte, 0).unwrap();
        assert!(!high());
        latch.set_ferr(true);
        assert!(!high(), "the same error");
        latch.set_ferr(false);
        latch.set_ferr(true);
        assert!(high());
    }
}
