//! Interrupt lines and messages. A device holds a line, never an interrupt number: where the line
//! goes, and with whom it is shared, is the board's business.

use std::sync::Arc;

/// The far end of interrupt lines: the board's router. Shared lines are a logical OR over their
/// sources, which the sink keeps (and saves).
pub trait IrqSink: Send + Sync {
    /// `source` drives input `pin` to `high`. Repeating the present level changes nothing.
    fn set_level(&self, pin: u32, source: u32, high: bool);
}

/// One wire from a device to the board's interrupt router.
#[derive(Clone)]
pub struct IrqLine {
    sink: Arc<dyn IrqSink>,
    pin: u32,
    source: u32,
}

impl IrqLine {
    /// A wire from `source` (unique per wire) to input `pin` of `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn IrqSink>, pin: u32, source: u32) -> Self {
        Self { sink, pin, source }
    }

    /// A wire that ends nowhere.
    #[must_use]
    pub fn unconnected() -> Self {
        struct Nowhere;
        impl IrqSink for Nowhere {
            fn set_level(&self, _: u32, _: u32, _: bool) {}
        }
        Self::new(Arc::new(Nowhere), 0, 0)
    }

    /// Drives the line.
    pub fn set(&self, high: bool) {
        self.sink.set_level(self.pin, self.source, high);
    }

    /// Makes a rising edge and leaves the line high: an 8259A takes back a request whose line falls
    /// before it is acknowledged (8259A data sheet, "interrupt request register").
    pub fn edge(&self) {
        self.set(false);
        self.set(true);
    }
}

impl std::fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IrqLine").field("pin", &self.pin).field("source", &self.source).finish()
    }
}

/// A message-signalled interrupt: a 32-bit write of `data` to `address` in the range of the local
/// APICs (FEEx_xxxxh). Intel SDM vol. 3A, 11.11.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Destination, redirection hint, destination mode.
    pub address: u64,
    /// Vector, delivery mode, level, trigger mode.
    pub data: u32,
}

/// Where interrupt messages go: the local APICs.
pub trait MsiSink: Send + Sync {
    /// Delivers a message; one that names nobody is lost.
    fn deliver(&self, message: MsiMessage);
}
