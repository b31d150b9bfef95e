//! The PIIX3's PCI-to-ISA bridge: PIRQ routing, and the reset control register at CF9h.
//! 82371SB data sheet (order number 290550), sections 2.2 and 2.5.

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{
    AccessWidth, BusError, BusResult, Device, PciConfig, PortIo, SaveRestore, Section, StateError,
};

use super::config_space::{ConfigSpace, Identity, Register, reg};
use crate::power::{PowerSink, ResetKind};

/// PIRQRCA to PIRQRCD, PIRQ route control.
const PIRQRC: u8 = 0x60;
/// Interrupt routing enable, active low: set, the PIRQ is not routed.
const IRQROUTEN: u8 = 1 << 7;
/// The ISA interrupts that a PIRQ may be routed to.
const ROUTABLE: u16 = 0b1101_1110_1111_1000;
/// The port of RC, the reset control register.
const RC: u16 = 0xcf9;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x7000,
    revision: 0,
    class: 0x06_01_00,
    header_type: 0x80,
    interrupt_pin: 0,
};

/// Registers beyond the identity, in the order of the data sheet's table 1.
const REGISTERS: &[Register] = &[
    Register::word(reg::COMMAND, 0x0007, 0x0008),
    Register::status(0x0200),
    Register::byte(0x4c, 0x4d, 0xff),     // IORT
    Register::word(0x4e, 0x0003, 0x07ff), // XBCS
    Register::byte(PIRQRC, 0x80, 0x8f),
    Register::byte(PIRQRC + 1, 0x80, 0x8f),
    Register::byte(PIRQRC + 2, 0x80, 0x8f),
    Register::byte(PIRQRC + 3, 0x80, 0x8f),
    Register::byte(0x69, 0x02, 0xfe),                        // TOM
    Register::word(0x6a, 0x0000, 0x8080),                    // MSTAT
    Register::byte(0x70, 0x80, 0xef),                        // MBIRQ0
    Register::byte(0x76, 0x0c, 0x8f),                        // MBDMA0
    Register::byte(0x77, 0x0c, 0x8f),                        // MBDMA1
    Register::word(0x78, 0x0002, 0xffff),                    // PCSC
    Register::byte(0x80, 0x00, 0x7f),                        // APICBASE
    Register::byte(0x82, 0x00, 0x0f),                        // DLC
    Register::byte(0xa0, 0x08, 0x1f),                        // SMICNTL
    Register::word(0xa2, 0x0000, 0x01ff),                    // SMIEN
    Register::dword(0xa4, 0x0000_0000, 0xe000_fffb),         // SEE
    Register::byte(0xa8, 0x0f, 0xff),                        // FTMR
    Register::word(0xaa, 0x0000, 0).cleared_by_ones(0x01ff), // SMIREQ
    Register::byte(0xac, 0x00, 0xff),                        // CTLTMR
    Register::byte(0xae, 0x00, 0xff),                        // CTHTMR
];

bitflags! {
    /// RC, the reset control register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct ResetControl: u8 {
        /// RCPU: its rise starts the reset.
        const RCPU = 1 << 2;
        /// SRST: the reset is a hard one.
        const SRST = 1 << 1;
    }
}

/// Told where PIRQA# to PIRQD# go. Called with the bridge locked.
pub trait PirqObserver: Send + Sync {
    /// PIRQ `pirq` (0 for PIRQA# to 3) now goes to ISA interrupt `irq`, or to none.
    fn pirq_routed(&self, pirq: u8, irq: Option<u8>);
}

/// The ISA bridge, function 00:01.0 on the board `pc`.
pub struct Piix3 {
    config: ConfigSpace,
    reset_control: ResetControl,
    power: Arc<dyn PowerSink>,
    observer: Option<Arc<dyn PirqObserver>>,
}

impl Piix3 {
    /// A bridge after reset; `observer`, if any, hears of writes, of resets and of restores.
    #[must_use]
    pub fn new(power: Arc<dyn PowerSink>, observer: Option<Arc<dyn PirqObserver>>) -> Self {
        Self {
            config: ConfigSpace::new(&IDENTITY, REGISTERS),
            reset_control: ResetControl::empty(),
            power,
            observer,
        }
    }

    /// The ISA interrupt that PIRQ `pirq` (0 for PIRQA# to 3) is routed to, if any.
    #[must_use]
    pub fn pirq_route(&self, pirq: u8) -> Option<u8> {
        let control = self.config.byte(PIRQRC + pirq.min(3));
        let irq = control & 0x0f;
        let routed = pirq < 4 && control & IRQROUTEN == 0 && ROUTABLE >> irq & 1 != 0;
        routed.then_some(irq)
    }

    fn report_routes(&self) {
        let Some(observer) = &self.observer else { return };
        for pirq in 0..4 {
            observer.pirq_routed(pirq, self.pirq_route(pirq));
        }
    }

    fn write_reset_control(&mut self, value: u8) {
        let new = ResetControl::from_bits_truncate(value);
        let rises =
            new.contains(ResetControl::RCPU) && !self.reset_control.contains(ResetControl::RCPU);
        self.reset_control = new;
        if rises {
            let hard = new.contains(ResetControl::SRST);
            self.power.reset(if hard { ResetKind::Hard } else { ResetKind::Soft });
        }
    }
}

impl PciConfig for Piix3 {
    fn read(&mut self, offset: u8) -> u32 {
        self.config.dword(offset)
    }

    fn write(&mut self, offset: u8, value: u32, mask: u32) {
        self.config.write(offset, value, mask);
        if offset & !3 == PIRQRC {
            self.report_routes();
        }
    }
}

impl PortIo for Piix3 {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        match (port, width) {
            (RC, AccessWidth::Byte) => Ok(self.reset_control.bits().into()),
            (RC, _) => Err(BusError::Width),
            _ => Err(BusError::NoRegister),
        }
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        match (port, width) {
            (RC, AccessWidth::Byte) => {
                self.write_reset_control(value as u8);
                Ok(())
            }
            (RC, _) => Err(BusError::Width),
            _ => Err(BusError::NoRegister),
        }
    }
}

impl Device for Piix3 {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn pci(&mut self) -> Option<&mut dyn PciConfig> {
        Some(self)
    }

    fn reset(&mut self) {
        self.config = ConfigSpace::new(&IDENTITY, REGISTERS);
        self.reset_control = ResetControl::empty();
        self.report_routes();
    }
}

impl SaveRestore for Piix3 {
    fn save(&self) -> Section {
        save_restore::save(self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        save_restore::restore(self, section)
    }
}

mod save_restore {
    use super::{Piix3, ResetControl, Section, StateError};

    const VERSION: u32 = 1;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Saved {
        config: Vec<u8>,
        reset_control: u8,
    }

    pub fn save(bridge: &Piix3) -> Section {
        let Piix3 { config, reset_control, power: _, observer: _ } = bridge;
        let saved = Saved { config: config.to_saved(), reset_control: reset_control.bits() };
        Section::encode(VERSION, &saved)
    }

    pub fn restore(bridge: &mut Piix3, section: &Section) -> Result<(), StateError> {
        let Saved { config, reset_control } = section.decode(VERSION)?;
        let config = bridge.config.check_saved(&config)?;
        let reset_control = ResetControl::from_bits(reset_control)
            .ok_or(StateError::Impossible("Reserved reset control bits"))?;
        bridge.config.set_saved(config);
        bridge.reset_control = reset_control;
        bridge.report_routes();
        Ok(())
    }
}
