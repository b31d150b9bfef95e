//! What travels between APICs: interprocessor interrupts, the I/O APIC's interrupts and those that
//! PCI functions write to FEEx_xxxxh. Intel SDM vol. 3A, 11.6.1 and 11.11.

use trivium_chipset::MsiMessage;

/// The destination that means every local APIC, in physical and in logical mode; the 8-bit form
/// FFh is widened to it where it comes in.
pub const BROADCAST: u32 = u32::MAX;

/// Address bits 31 to 20 of interrupt messages.
const MSI_BASE: u64 = 0xfee0_0000;
/// Redirection hint: one processor of the destination takes the message.
const MSI_ADDRESS_RH: u64 = 1 << 3;
/// Destination mode: logical.
const MSI_ADDRESS_DM: u64 = 1 << 2;
/// Level: the line is asserted.
const MSI_DATA_ASSERT: u32 = 1 << 14;
/// Trigger mode: level.
const MSI_DATA_LEVEL: u32 = 1 << 15;

/// What a message asks for: bits 10 to 8 of ICR, of a redirection table entry, of MSI data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The interrupt of the vector, in every processor of the destination.
    Fixed,
    /// The same in only one of them, the one that does the least urgent work.
    LowestPriority,
    /// A system management interrupt.
    Smi,
    /// A non-maskable interrupt.
    Nmi,
    /// INIT: the processor resets and, unless it is the first, waits for a start-up message.
    Init,
    /// A processor that waits starts at the page that the vector names.
    StartUp,
    /// The interrupt whose vector the 8259A gives.
    ExtInt,
}

impl DeliveryMode {
    /// The mode of a three-bit field, which may be reserved (3).
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            7 => Self::ExtInt,
            _ => return None,
        })
    }

    /// The three-bit field.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::Fixed => 0,
            Self::LowestPriority => 1,
            Self::Smi => 2,
            Self::Nmi => 4,
            Self::Init => 5,
            Self::StartUp => 6,
            Self::ExtInt => 7,
        }
    }
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The local APIC with this ID, or all ([`BROADCAST`]).
    Physical(u32),
    /// The local APICs whose LDR (read by their DFR) matches, or all ([`BROADCAST`]).
    Logical(u32),
    /// Every local APIC.
    All,
    /// Every local APIC but the sender.
    Others,
}

/// A message on its way to the local APICs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Whom it is for.
    pub destination: Destination,
    /// What it asks for.
    pub delivery: DeliveryMode,
    /// The vector, or the start-up page.
    pub vector: u8,
    /// Level-triggered: its end is to be reported.
    pub level: bool,
    /// Only one of the matching APICs takes it (the redirection hint, or lowest priority).
    pub single: bool,
}

impl Message {
    /// Reads a write to FEEx_xxxxh. None if it says nothing: a reserved delivery mode, the
    /// de-assertion of a level, or an address elsewhere.
    #[must_use]
    pub fn from_msi(msi: MsiMessage) -> Option<Self> {
        if msi.address & !0xf_ffff != MSI_BASE {
            return None;
        }
        let delivery = DeliveryMode::from_bits(msi.data >> 8)?;
        let level = msi.data & MSI_DATA_LEVEL != 0;
        if level && msi.data & MSI_DATA_ASSERT == 0 {
            return None;
        }
        let id = (msi.address >> 12 & 0xff) as u8;
        let logical = msi.address & MSI_ADDRESS_DM != 0;
        let hint = msi.address & MSI_ADDRESS_RH != 0;
        Some(Self {
            destination: Self::destination8(id, logical),
            delivery,
            vector: msi.data as u8,
            level,
            single: hint || delivery == DeliveryMode::LowestPriority,
        })
    }

    /// A destination of the 8-bit form that xAPIC, I/O APIC and MSI use.
    #[must_use]
    pub fn destination8(id: u8, logical: bool) -> Destination {
        let id = if id == 0xff { BROADCAST } else { id.into() };
        if logical { Destination::Logical(id) } else { Destination::Physical(id) }
    }
}

/// The write to FEEx_xxxxh that carries an interrupt of the I/O APIC.
pub(super) fn encode_msi(
    id: u8,
    logical: bool,
    delivery: DeliveryMode,
    vector: u8,
    level: bool,
) -> MsiMessage {
    let single = delivery == DeliveryMode::LowestPriority;
    let address = MSI_BASE
        | u64::from(id) << 12
        | if single { MSI_ADDRESS_RH } else { 0 }
        | if logical { MSI_ADDRESS_DM } else { 0 };
    let trigger = if level { MSI_DATA_LEVEL } else { 0 };
    let data = u32::from(vector) | delivery.bits() << 8 | MSI_DATA_ASSERT | trigger;
    MsiMessage { address, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_msi_says_destination_mode_and_vector_as_the_sdm_lays_them_out() {
        let msi = MsiMessage { address: 0xfee0_3004, data: 0x4041 };
        let message = Message::from_msi(msi).unwrap();
        assert_eq!(message.destination, Destination::Logical(3));
        assert_eq!(message.delivery, DeliveryMode::Fixed);
        assert_eq!((message.vector, message.level, message.single), (0x41, false, false));
        let msi = MsiMessage { address: 0xfeef_f008, data: 0xc130 };
        let message = Message::from_msi(msi).unwrap();
        assert_eq!(message.destination, Destination::Physical(BROADCAST));
        assert_eq!(message.delivery, DeliveryMode::LowestPriority);
        assert!(message.level && message.single);
    }

    #[test]
    fn reserved_delivery_modes_and_deassertions_say_nothing() {
        for data in [0x0341, 0x8041] {
            assert_eq!(Message::from_msi(MsiMessage { address: 0xfee0_0000, data }), None);
        }
        assert_eq!(Message::from_msi(MsiMessage { address: 0xfed0_0000, data: 0x41 }), None);
    }

    #[test]
    fn encoded_interrupts_are_read_back() {
        let msi = encode_msi(5, true, DeliveryMode::LowestPriority, 0x91, true);
        assert_eq!(msi.address, 0xfee0_500c);
        assert_eq!(msi.data, 0xc191);
    }
}
