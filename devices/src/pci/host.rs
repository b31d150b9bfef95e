//! Configuration mechanisms #1 (ports CF8h and CFCh to CFFh) and #2 (CF8h, CFAh and C000h to
//! CFFFh), and the functions of bus 0.
//! PCI Local Bus Specification 2.1, sections 3.7.4.1 and 3.7.4.2; 82441FX data sheet, section 3.1.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitflags::bitflags;
use thiserror::Error;
use trivium_chipset::{
    AccessWidth, BusError, BusResult, Device, PortIo, SaveRestore, Section, StateError,
};

use super::bar::{AddressSpace, Window, WindowSink};
use crate::access::low_byte;

/// CONFADD, the configuration address register; only 32-bit accesses reach it.
const CONFADD: u16 = 0xcf8;
/// CONFDATA, the window to the double word that CONFADD names.
const CONFDATA: u16 = 0xcfc;

/// CSE, the configuration space enable register of mechanism #2; only 8-bit accesses reach it.
const CSE: u16 = 0xcf8;
/// The forward register of mechanism #2: the bus.
const FORWARD: u16 = 0xcfa;
/// The ports of mechanism #2: 256 for each of 16 devices.
const WINDOW: u16 = 0xc000;
const WINDOW_SIZE: u16 = 0x1000;

bitflags! {
    /// CSE. Special cycles reach nobody here.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Cse: u8 {
        /// Not zero: the ports of mechanism #2 are decoded.
        const KEY = 0xf << 4;
        const FUNCTION = 7 << 1;
        /// Writes make special cycles.
        const SCE = 1 << 0;
    }
}

bitflags! {
    /// The configuration address register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct ConfAdd: u32 {
        /// CONFDATA accesses are configuration cycles.
        const ENABLE = 1 << 31;
        const BUS = 0xff << 16;
        const DEVICE = 0x1f << 11;
        const FUNCTION = 7 << 8;
        const REGISTER = 0x3f << 2;
    }
}

impl ConfAdd {
    fn field(self, field: Self) -> u8 {
        // Every field is at most eight bits wide, so that nothing is cut off.
        ((self.bits() & field.bits()) >> field.bits().trailing_zeros()) as u8
    }

    fn function(self) -> Bdf {
        Bdf {
            bus: self.field(Self::BUS),
            device: self.field(Self::DEVICE),
            function: self.field(Self::FUNCTION),
        }
    }

    fn offset(self) -> u8 {
        (self.bits() & Self::REGISTER.bits()) as u8
    }
}

/// Where a function is: bus, device (0 to 31) and function (0 to 7) number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl Bdf {
    /// A function of bus 0.
    #[must_use]
    pub const fn new(device: u8, function: u8) -> Self {
        Self { bus: 0, device, function }
    }

    fn slot(self) -> Option<usize> {
        let there = self.bus == 0 && self.device < 32 && self.function < 8;
        there.then(|| usize::from(self.device) * 8 + usize::from(self.function))
    }
}

impl std::fmt::Display for Bdf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Why a function could not be put on the bus.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PciError {
    /// The place does not exist.
    #[error("PCI function {0} is not on bus 0")]
    NoSuchSlot(Bdf),
    /// The place is taken.
    #[error("PCI function {0} is there already")]
    Occupied(Bdf),
}

/// A function as the bus holds it; the board keeps another handle for its other buses.
pub type SharedFunction = Arc<Mutex<dyn Device>>;

/// The host side of the bus: the configuration ports, and who answers. Saves only its own
/// register; the functions are devices of their own.
pub struct PciHost {
    address: ConfAdd,
    cse: Cse,
    forward: u8,
    functions: [Option<SharedFunction>; 256],
    windows: Option<Arc<dyn WindowSink>>,
    on_master_abort: Option<Box<dyn Fn() + Send>>,
}

impl PciHost {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self {
            address: ConfAdd::empty(),
            cse: Cse::empty(),
            forward: 0,
            functions: [const { None }; 256],
            windows: None,
            on_master_abort: None,
        }
    }

    /// `sink` hears, as of window 0, whether the ports of mechanism #2 are decoded.
    pub fn set_window_sink(&mut self, sink: Arc<dyn WindowSink>) {
        self.windows = Some(sink);
    }

    /// `note` is called when nobody answers a configuration cycle, with no function locked.
    pub fn set_master_abort_sink(&mut self, note: impl Fn() + Send + 'static) {
        self.on_master_abort = Some(Box::new(note));
    }

    fn report_window(&self) {
        let window = Window {
            space: AddressSpace::Io,
            base: WINDOW.into(),
            size: WINDOW_SIZE.into(),
            offset: 0,
        };
        if let Some(sink) = &self.windows {
            sink.window_moved(0, self.cse.intersects(Cse::KEY).then_some(window));
        }
    }

    fn set_cse(&mut self, cse: Cse) {
        self.cse = cse;
        self.report_window();
    }

    fn master_abort(&self) {
        if let Some(note) = &self.on_master_abort {
            note();
        }
    }

    /// Puts a function on the bus.
    ///
    /// # Errors
    /// The place does not exist or is taken.
    pub fn attach(&mut self, place: Bdf, function: SharedFunction) -> Result<(), PciError> {
        let slot = place.slot().and_then(|slot| self.functions.get_mut(slot));
        let slot = slot.ok_or(PciError::NoSuchSlot(place))?;
        if slot.is_some() {
            return Err(PciError::Occupied(place));
        }
        *slot = Some(function);
        Ok(())
    }

    /// Reads the double word at `offset` of a function, as a configuration cycle does: all ones
    /// where there is no function.
    #[must_use]
    pub fn config_read(&self, place: Bdf, offset: u8) -> u32 {
        let Some(mut device) = self.function(place) else {
            self.master_abort();
            return u32::MAX;
        };
        device.pci().map_or(u32::MAX, |config| config.read(offset & !3))
    }

    /// Writes the bytes that `mask` selects of the double word at `offset` of a function; lost
    /// where there is none.
    pub fn config_write(&self, place: Bdf, offset: u8, value: u32, mask: u32) {
        let Some(mut device) = self.function(place) else { return self.master_abort() };
        if let Some(config) = device.pci() {
            config.write(offset & !3, value & mask, mask);
        }
    }

    fn function(&self, place: Bdf) -> Option<MutexGuard<'_, dyn Device + 'static>> {
        let function = self.functions.get(place.slot()?)?.as_ref()?;
        // A panic elsewhere leaves the registers as they were; they are still the function's.
        Some(function.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a CONFDATA access reaches: the function, the double word, and the bit within it.
    fn data_target(&self, port: u16, width: AccessWidth) -> BusResult<(Bdf, u8, u32)> {
        if port & !(WINDOW_SIZE - 1) == WINDOW {
            return self.window_target(port, width);
        }
        let byte = port.checked_sub(CONFDATA).filter(|byte| *byte < 4);
        let byte = byte.ok_or(BusError::NoRegister)?;
        if byte + width.bytes() > 4 {
            return Err(BusError::Width);
        }
        if !self.address.contains(ConfAdd::ENABLE) {
            return Err(BusError::NoRegister);
        }
        Ok((self.address.function(), self.address.offset(), u32::from(byte) * 8))
    }
}

/// Configuration mechanism #2.
impl PciHost {
    /// What an access to the ports C000h to CFFFh reaches.
    fn window_target(&self, port: u16, width: AccessWidth) -> BusResult<(Bdf, u8, u32)> {
        let byte = port & 3;
        if byte + width.bytes() > 4 {
            return Err(BusError::Width);
        }
        if !self.cse.intersects(Cse::KEY) || self.cse.contains(Cse::SCE) {
            return Err(BusError::NoRegister);
        }
        let function = (self.cse & Cse::FUNCTION).bits() >> 1;
        let device = (port >> 8 & 0xf) as u8;
        let place = Bdf { bus: self.forward, device, function };
        Ok((place, (port & 0xfc) as u8, u32::from(byte) * 8))
    }
}

impl Default for PciHost {
    fn default() -> Self {
        Self::new()
    }
}

impl PortIo for PciHost {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        if port == CONFADD && width == AccessWidth::Dword {
            return Ok(self.address.bits());
        }
        match (port, width) {
            (CSE, AccessWidth::Byte) => return Ok(self.cse.bits().into()),
            (FORWARD, AccessWidth::Byte) => return Ok(self.forward.into()),
            _ => {}
        }
        let (place, offset, shift) = self.data_target(port, width)?;
        Ok(self.config_read(place, offset) >> shift & width.mask())
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        if port == CONFADD && width == AccessWidth::Dword {
            self.address = ConfAdd::from_bits_truncate(value);
            return Ok(());
        }
        match (port, width) {
            (CSE, AccessWidth::Byte) => {
                self.set_cse(Cse::from_bits_truncate(low_byte(value)));
                return Ok(());
            }
            (FORWARD, AccessWidth::Byte) => {
                self.forward = low_byte(value);
                return Ok(());
            }
            _ => {}
        }
        let (place, offset, shift) = self.data_target(port, width)?;
        let mask = width.mask() << shift;
        self.config_write(place, offset, value << shift & mask, mask);
        Ok(())
    }
}

impl Device for PciHost {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn reset(&mut self) {
        self.address = ConfAdd::empty();
        self.forward = 0;
        self.set_cse(Cse::empty());
    }
}

impl SaveRestore for PciHost {
    fn save(&self) -> Section {
        save_restore::save(self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        save_restore::restore(self, section)
    }
}

mod save_restore {
    use super::{ConfAdd, Cse, PciHost, Section, StateError};

    const VERSION: u32 = 2;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Saved {
        address: u32,
        cse: u8,
        forward: u8,
    }

    pub fn save(host: &PciHost) -> Section {
        let PciHost { address, cse, forward, functions: _, windows: _, on_master_abort: _ } = host;
        let saved = Saved { address: address.bits(), cse: cse.bits(), forward: *forward };
        Section::encode(VERSION, &saved)
    }

    pub fn restore(host: &mut PciHost, section: &Section) -> Result<(), StateError> {
        let Saved { address, cse, forward } = section.decode(VERSION)?;
        host.address =
            ConfAdd::from_bits(address).ok_or(StateError::Impossible("Reserved CONFADD bits"))?;
        host.forward = forward;
        host.set_cse(Cse::from_bits_retain(cse));
        Ok(())
    }
}
