//! Resource descriptors that the AML library does not have (ACPI specification 6.4).

use acpi_tables::{Aml, AmlSink};

/// AML that has been put together already.
pub(super) struct Blob(pub(super) Vec<u8>);

impl Aml for Blob {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// IRQNoFlags: an ISA interrupt, by edge and not shared (6.4.2.1).
pub(super) struct IrqNoFlags(pub(super) u8);

impl Aml for IrqNoFlags {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const IRQ_DESCRIPTOR: u8 = 0x22;
        sink.byte(IRQ_DESCRIPTOR);
        sink.word(1_u16.checked_shl(self.0.into()).unwrap_or(0));
    }
}

/// DMA: an 8237A's channel, in compatibility timing (6.4.2.2).
pub(super) struct Dma(pub(super) u8);

impl Aml for Dma {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const DMA_DESCRIPTOR: u8 = 0x2a;
        const BUS_MASTER: u8 = 1 << 2;
        const TRANSFER_8_16: u8 = 1;
        sink.byte(DMA_DESCRIPTOR);
        sink.byte(1_u8.checked_shl(self.0.into()).unwrap_or(0));
        sink.byte(BUS_MASTER | TRANSFER_8_16);
    }
}

/// Interrupt: a list of interrupts to choose from, level-triggered and shared (6.4.3.6).
pub(super) struct SharedInterrupts<'a> {
    /// Active low, as PCI's are.
    pub(super) active_low: bool,
    /// The interrupts.
    pub(super) choices: &'a [u32],
}

/// Offset of the first interrupt in [`SharedInterrupts`].
pub(super) const INTERRUPT_OFFSET: u8 = 5;

impl Aml for SharedInterrupts<'_> {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        const EXTENDED_INTERRUPT_DESCRIPTOR: u8 = 0x89;
        const CONSUMER: u8 = 1 << 0;
        const ACTIVE_LOW: u8 = 1 << 2;
        const SHARED: u8 = 1 << 3;
        let polarity = if self.active_low { ACTIVE_LOW } else { 0 };
        sink.byte(EXTENDED_INTERRUPT_DESCRIPTOR);
        sink.word(2 + 4 * self.choices.len() as u16);
        sink.byte(CONSUMER | SHARED | polarity);
        sink.byte(self.choices.len() as u8);
        for &interrupt in self.choices {
            sink.dword(interrupt);
        }
    }
}

/// An I/O range decoded with 16 bits, at a fixed place.
pub(super) fn io(base: u16, size: u8) -> acpi_tables::aml::IO {
    acpi_tables::aml::IO::new(base, base, 1, size)
}
