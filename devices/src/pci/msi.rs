//! The MSI capability: interrupts as writes of a message. PCI Local Bus Specification 2.2, section
//! 6.8; per-vector masking as in revision 3.0, 6.8.1.

use trivium_chipset::{MsiMessage, MsiSink};

use super::config_space::{ConfigSpace, Register};

/// Capability ID of MSI.
const CAPABILITY_ID: u8 = 0x05;
/// Message control, 16 bits.
const CONTROL: u8 = 2;
/// Message address, lower half.
const ADDRESS: u8 = 4;

mod control {
    /// Interrupts are messages, and no INTx.
    pub const ENABLE: u16 = 1 << 0;
    /// Log2 of how many vectors the function could use.
    pub const CAPABLE_SHIFT: u32 = 1;
    /// Log2 of how many it may use.
    pub const ENABLED: u16 = 7 << 4;
    pub const ENABLED_SHIFT: u32 = 4;
    /// The message address has 64 bits.
    pub const WIDE: u16 = 1 << 7;
    /// Each vector can be masked.
    pub const MASKABLE: u16 = 1 << 8;
}

/// Where a function has its MSI capability, and what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiCapability {
    /// Offset in configuration space, a multiple of 4.
    pub offset: u8,
    /// The message address has 64 bits.
    pub wide: bool,
    /// Log2 of how many vectors the function can use: 0 to 5.
    pub vectors_log2: u8,
    /// Each vector can be masked.
    pub maskable: bool,
}

impl MsiCapability {
    const fn data(&self) -> u8 {
        self.offset + if self.wide { 0x0c } else { 0x08 }
    }

    const fn mask(&self) -> u8 {
        self.data() + 4
    }

    const fn pending(&self) -> u8 {
        self.data() + 8
    }

    /// The bits of the mask and pending registers that have a vector.
    const fn vectors(&self) -> u32 {
        let count = 1u32 << (self.vectors_log2 & 7);
        if count >= 32 { u32::MAX } else { (1 << count) - 1 }
    }

    /// Adds the capability to a function's list.
    pub fn add_to(&self, config: &mut ConfigSpace) {
        let mut fixed = u16::from(self.vectors_log2) << control::CAPABLE_SHIFT;
        fixed |= if self.wide { control::WIDE } else { 0 };
        fixed |= if self.maskable { control::MASKABLE } else { 0 };
        let writable = control::ENABLE | control::ENABLED;
        let mut registers = vec![
            Register::word(self.offset + CONTROL, fixed, writable),
            Register::dword(self.offset + ADDRESS, 0, !3),
            Register::word(self.data(), 0, 0xffff),
        ];
        if self.wide {
            registers.push(Register::dword(self.offset + ADDRESS + 4, 0, u32::MAX));
        }
        if self.maskable {
            registers.push(Register::dword(self.mask(), 0, self.vectors()));
            registers.push(Register::dword(self.pending(), 0, 0).changing(self.vectors()));
        }
        config.add_capability(CAPABILITY_ID, self.offset, &registers);
    }

    fn control(&self, config: &ConfigSpace) -> u16 {
        u16::from_le_bytes([
            config.byte(self.offset + CONTROL),
            config.byte(self.offset + CONTROL + 1),
        ])
    }

    /// Whether software wants messages; INTx is then silent.
    #[must_use]
    pub fn enabled(&self, config: &ConfigSpace) -> bool {
        self.control(config) & control::ENABLE != 0
    }

    /// The message of a vector; vectors beyond those allotted share the first ones.
    fn message(&self, config: &ConfigSpace, vector: u8) -> MsiMessage {
        let allotted = (self.control(config) & control::ENABLED) >> control::ENABLED_SHIFT;
        let mask = (1u16 << u32::from(allotted).min(u32::from(self.vectors_log2))) - 1;
        let data = config.dword(self.data()) as u16;
        let low = u64::from(config.dword(self.offset + ADDRESS));
        let high = if self.wide { config.dword(self.offset + ADDRESS + 4) } else { 0 };
        MsiMessage {
            address: u64::from(high) << 32 | low,
            data: (data & !mask | u16::from(vector) & mask).into(),
        }
    }

    /// The function has an interrupt of this vector: its message is sent, or if it is masked, it
    /// pends. Without MSI nothing happens.
    pub fn raise(&self, config: &mut ConfigSpace, vector: u8, sink: &dyn MsiSink) {
        if !self.enabled(config) {
            return;
        }
        let bit = 1u32.checked_shl(vector.into()).unwrap_or(0) & self.vectors();
        if self.maskable && config.dword(self.mask()) & bit != 0 {
            config.set_dword(self.pending(), config.dword(self.pending()) | bit);
        } else if bit != 0 {
            sink.deliver(self.message(config, vector));
        }
    }

    /// Configuration space has been written: sends what pends and is no longer masked.
    pub fn written(&self, config: &mut ConfigSpace, sink: &dyn MsiSink) {
        if !self.maskable || !self.enabled(config) {
            return;
        }
        let pending = config.dword(self.pending());
        let free = pending & !config.dword(self.mask());
        config.set_dword(self.pending(), pending & !free);
        for vector in (0..32u8).filter(|vector| free >> vector & 1 != 0) {
            sink.deliver(self.message(config, vector));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::pci::config_space::{Identity, reg};

    const IDENTITY: Identity = Identity {
        vendor: 0x1234,
        device: 0x5678,
        revision: 0,
        class: 0xff_00_00,
        header_type: 0,
        interrupt_pin: 1,
    };
    const MSI: MsiCapability =
        MsiCapability { offset: 0x50, wide: true, vectors_log2: 2, maskable: true };

    #[derive(Default)]
    struct Sent(Mutex<Vec<MsiMessage>>);

    impl Sent {
        fn take(&self) -> Vec<MsiMessage> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    impl MsiSink for Sent {
        fn deliver(&self, message: MsiMessage) {
            self.0.lock().unwrap().push(message);
        }
    }

    fn config() -> ConfigSpace {
        let mut config = ConfigSpace::new(&IDENTITY, &[Register::status(0)]);
        config.add_capability(0x09, 0x40, &[]);
        MSI.add_to(&mut config);
        config
    }

    fn enable(config: &mut ConfigSpace, vectors_log2: u32) {
        config.write(0x54, 0xfee0_1000, u32::MAX);
        config.write(0x58, 1, u32::MAX);
        config.write(0x5c, 0x4047, u32::MAX);
        config.write(0x50, (vectors_log2 << 4 | 1) << 16, 0xffff_0000);
    }

    #[test]
    fn capabilities_are_a_list_that_begins_at_34h() {
        let config = config();
        assert_eq!(config.dword(reg::COMMAND) >> 20 & 1, 1, "status: there is a list");
        assert_eq!(config.byte(0x34), 0x40);
        assert_eq!((config.byte(0x40), config.byte(0x41)), (0x09, 0x50));
        assert_eq!((config.byte(0x50), config.byte(0x51)), (0x05, 0));
    }

    #[test]
    fn message_control_tells_what_the_function_can_do() {
        let mut config = config();
        assert_eq!(config.dword(0x50) >> 16, 0x0184, "4 vectors, 64 bits, maskable");
        config.write(0x50, 0xffff_0000, 0xffff_0000);
        assert_eq!(config.dword(0x50) >> 16, 0x01f5);
    }

    #[test]
    fn a_vector_replaces_the_low_bits_of_the_data_that_are_allotted() {
        let (mut config, sent) = (config(), Sent::default());
        MSI.raise(&mut config, 1, &sent);
        assert_eq!(sent.take(), [], "not enabled");
        enable(&mut config, 2);
        MSI.raise(&mut config, 1, &sent);
        enable(&mut config, 1);
        MSI.raise(&mut config, 2, &sent);
        let address = 0x1_fee0_1000;
        let expected = [0x4045, 0x4046].map(|data| MsiMessage { address, data });
        assert_eq!(sent.take(), expected);
    }

    #[test]
    fn a_masked_vector_pends_until_it_is_unmasked() {
        let (mut config, sent) = (config(), Sent::default());
        enable(&mut config, 2);
        config.write(0x60, 1 << 3, u32::MAX);
        MSI.raise(&mut config, 3, &sent);
        MSI.written(&mut config, &sent);
        assert_eq!((sent.take().len(), config.dword(0x64)), (0, 1 << 3));
        config.write(0x60, 0, u32::MAX);
        MSI.written(&mut config, &sent);
        assert_eq!((sent.take().len(), config.dword(0x64)), (1, 0));
        MSI.raise(&mut config, 200, &sent);
        assert_eq!(sent.take(), [], "no such vector");
    }
}
