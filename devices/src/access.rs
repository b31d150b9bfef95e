//! What the devices share: the rule for 8-bit registers.

use trivium_chipset::{AccessWidth, BusError, BusResult};

/// Refuses accesses wider than the 8 bits of an ISA register; the bus then splits them.
pub(crate) fn byte_only(width: AccessWidth) -> BusResult<()> {
    match width {
        AccessWidth::Byte => Ok(()),
        AccessWidth::Word | AccessWidth::Dword => Err(BusError::Width),
    }
}

/// The low byte of a value from the bus.
pub(crate) fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}
