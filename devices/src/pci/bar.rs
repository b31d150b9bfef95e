//! Base address registers: what addresses a function decodes, and who is told when that changes.
//! PCI Local Bus Specification 2.1, section 6.2.5.

use std::sync::Arc;

use super::config_space::{ConfigSpace, Register, command, reg};

/// Bit 0 of a base address register: the range is one of ports.
const IO_SPACE: u32 = 1 << 0;
/// Bits 2 and 1 of a base address register: the address has 64 bits.
const TYPE_64: u32 = 0b10 << 1;
/// Bit 3 of a base address register: reads have no side effects.
const PREFETCHABLE: u32 = 1 << 3;
/// A PC's ports end here.
const PORTS: u64 = 0x1_0000;
/// No processor reaches memory beyond.
const MEMORY: u64 = 1 << 52;

/// Ports or memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSpace {
    /// I/O ports.
    Io,
    /// Memory.
    Memory,
}

/// Addresses that a function decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Ports or memory.
    pub space: AddressSpace,
    /// The first address.
    pub base: u64,
    /// How many there are.
    pub size: u64,
    /// The offset that the function's [`trivium_chipset::Mmio`] sees at the first address: it tells
    /// several windows of one function apart. Ports are told by their numbers.
    pub offset: u64,
}

impl Window {
    /// Whether an address of its space is in the window, and how far from its start.
    #[must_use]
    pub fn locate(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.base).filter(|within| *within < self.size)
    }
}

/// What a base address register holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Io,
    Memory { wide: bool, prefetchable: bool },
}

/// A base address register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    register: u8,
    kind: Kind,
    /// Bytes or ports; a power of two.
    size: u64,
    /// The register and the bit that turn decoding on.
    enable: (u8, u8),
    /// Address bits beyond this are zero.
    mask: u64,
    offset: u64,
}

impl Bar {
    /// A range of ports at the register's address, decoded while the command register's I/O space
    /// bit is set. `size` is a power of two from 4 to 256.
    #[must_use]
    pub const fn io(register: u8, size: u32) -> Self {
        let enable = (reg::COMMAND, command::IO_SPACE);
        Self {
            register,
            kind: Kind::Io,
            size: size as u64,
            enable,
            mask: u32::MAX as u64,
            offset: 0,
        }
    }

    /// A range of memory below 4 GiB, decoded while the command register's memory space bit is set.
    /// `size` is a power of two from 16 on.
    #[must_use]
    pub const fn memory32(register: u8, size: u32, prefetchable: bool) -> Self {
        Self::memory(register, size as u64, Kind::Memory { wide: false, prefetchable })
    }

    /// A range of memory anywhere: the register and the next one.
    #[must_use]
    pub const fn memory64(register: u8, size: u64, prefetchable: bool) -> Self {
        Self::memory(register, size, Kind::Memory { wide: true, prefetchable })
    }

    const fn memory(register: u8, size: u64, kind: Kind) -> Self {
        let enable = (reg::COMMAND, command::MEMORY_SPACE);
        Self { register, kind, size, enable, mask: u64::MAX, offset: 0 }
    }

    /// The same, turned on by these bits of another register: chip sets have such ranges.
    #[must_use]
    pub const fn enabled_by(self, register: u8, bits: u8) -> Self {
        Self { enable: (register, bits), ..self }
    }

    /// The same with 16 address bits only: ports of chip sets.
    #[must_use]
    pub const fn with_16_bits(self) -> Self {
        Self { mask: 0xffff, ..self }
    }

    /// The same, and the function's memory accesses there begin at this offset; see [`Window`].
    #[must_use]
    pub const fn at_offset(self, offset: u64) -> Self {
        Self { offset, ..self }
    }

    const fn type_bits(&self) -> u32 {
        match self.kind {
            Kind::Io => IO_SPACE,
            Kind::Memory { wide, prefetchable } => {
                (if wide { TYPE_64 } else { 0 }) | (if prefetchable { PREFETCHABLE } else { 0 })
            }
        }
    }

    /// The address bits that software can set.
    const fn address_bits(&self) -> u64 {
        !(self.size - 1) & self.mask
    }

    /// The double words of the register.
    #[must_use]
    pub const fn registers(&self) -> [Option<Register>; 2] {
        let bits = self.address_bits();
        let low = Register::dword(self.register, self.type_bits(), bits as u32);
        let high = match self.kind {
            Kind::Memory { wide: true, .. } => {
                Some(Register::dword(self.register + 4, 0, (bits >> 32) as u32))
            }
            _ => None,
        };
        [Some(low), high]
    }

    /// What is decoded now. Nothing if it is turned off, or where the address is none that a
    /// processor reaches.
    #[must_use]
    pub fn window(&self, config: &ConfigSpace) -> Option<Window> {
        let (register, bits) = self.enable;
        if config.byte(register) & bits == 0 {
            return None;
        }
        let low = u64::from(config.dword(self.register));
        let (space, high, end) = match self.kind {
            Kind::Io => (AddressSpace::Io, 0, PORTS),
            Kind::Memory { wide: false, .. } => (AddressSpace::Memory, 0, 1 << 32),
            Kind::Memory { wide: true, .. } => {
                let high = u64::from(config.dword(self.register.wrapping_add(4)));
                (AddressSpace::Memory, high << 32, MEMORY)
            }
        };
        let base = (high | low) & self.address_bits();
        let fits = base.checked_add(self.size).is_some_and(|after| after <= end);
        fits.then_some(Window { space, base, size: self.size, offset: self.offset })
    }
}

/// The board's address decoders. Called with the function locked.
pub trait WindowSink: Send + Sync {
    /// The function now decodes window `number` there, or nowhere.
    fn window_moved(&self, number: usize, window: Option<Window>);
}

/// The base address registers of a function, and what of them its board knows.
pub struct Bars {
    bars: &'static [Bar],
    known: Vec<Option<Window>>,
    sink: Option<Arc<dyn WindowSink>>,
}

impl Bars {
    /// Registers that decode nothing yet; `sink`, if any, hears of all changes.
    #[must_use]
    pub fn new(bars: &'static [Bar], sink: Option<Arc<dyn WindowSink>>) -> Self {
        Self { bars, known: vec![None; bars.len()], sink }
    }

    /// Configuration space has been written, reset or restored.
    pub fn update(&mut self, config: &ConfigSpace) {
        for (number, (bar, known)) in self.bars.iter().zip(&mut self.known).enumerate() {
            let window = bar.window(config);
            if std::mem::replace(known, window) != window
                && let Some(sink) = &self.sink
            {
                sink.window_moved(number, window);
            }
        }
    }

    /// The window of register `number`, if it is decoded.
    #[must_use]
    pub fn window(&self, number: usize) -> Option<Window> {
        self.known.get(number).copied().flatten()
    }

    /// The window that a port is in, and the port's offset there.
    #[must_use]
    pub fn locate_port(&self, port: u16) -> Option<(usize, u16)> {
        self.known.iter().enumerate().find_map(|(number, window)| {
            let window = window.filter(|window| window.space == AddressSpace::Io)?;
            let offset = window.locate(port.into())?;
            Some((number, u16::try_from(offset).ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::pci::config_space::Identity;
    use proptest::prelude::*;

    const IDENTITY: Identity = Identity {
        vendor: 0x1234,
        device: 0x5678,
        revision: 0,
        class: 0xff_00_00,
        header_type: 0,
        interrupt_pin: 1,
    };
    const BARS: &[Bar] = &[
        Bar::io(0x10, 32),
        Bar::memory32(0x14, 0x1000, false),
        Bar::memory64(0x18, 1 << 33, true).at_offset(1 << 40),
    ];
    const REGISTERS: &[Register] = &[Register::word(reg::COMMAND, 0, 0x0107), Register::status(0)];

    fn function() -> (ConfigSpace, Bars) {
        (ConfigSpace::new(&IDENTITY, REGISTERS).with_bars(BARS), Bars::new(BARS, None))
    }

    fn put(config: &mut ConfigSpace, offset: u8, value: u32) {
        config.write(offset, value, u32::MAX);
    }

    #[test]
    fn all_ones_written_read_back_as_size_and_type() {
        let (mut config, _) = function();
        for offset in [0x10, 0x14, 0x18, 0x1c, 0x20] {
            put(&mut config, offset, u32::MAX);
        }
        assert_eq!(config.dword(0x10), 0xffff_ffe1, "32 ports");
        assert_eq!(config.dword(0x14), 0xffff_f000, "4 KiB of memory");
        assert_eq!(config.dword(0x18), 0x0000_000c, "prefetchable, 64 bits");
        assert_eq!(config.dword(0x1c), 0xffff_fffe, "8 GiB");
        assert_eq!(config.dword(0x20), 0, "not implemented: hardwired to zero");
    }

    #[test]
    fn a_function_decodes_only_what_its_command_register_enables() {
        let (mut config, mut bars) = function();
        put(&mut config, 0x10, 0xc000);
        put(&mut config, 0x14, 0xe000_0000);
        bars.update(&config);
        assert_eq!((bars.window(0), bars.window(1)), (None, None));
        put(&mut config, 4, 1);
        bars.update(&config);
        assert_eq!(bars.locate_port(0xc01f), Some((0, 0x1f)));
        assert_eq!(bars.locate_port(0xc020), None);
        assert_eq!(bars.window(1), None);
        put(&mut config, 4, 2);
        bars.update(&config);
        assert_eq!(bars.locate_port(0xc000), None);
        let window = bars.window(1).unwrap();
        assert_eq!((window.base, window.size), (0xe000_0000, 0x1000));
    }

    #[test]
    fn a_64_bit_register_has_its_upper_half_in_the_next_one() {
        let (mut config, mut bars) = function();
        put(&mut config, 0x1c, 0x10);
        put(&mut config, 4, 2);
        bars.update(&config);
        let window = bars.window(2).unwrap();
        assert_eq!((window.base, window.size, window.offset), (0x10 << 32, 1 << 33, 1 << 40));
        put(&mut config, 0x1c, 0xffff_ffff);
        bars.update(&config);
        assert_eq!(bars.window(2), None, "beyond what processors reach");
    }

    #[test]
    fn ports_beyond_64_kib_are_not_reached() {
        let (mut config, mut bars) = function();
        put(&mut config, 0x10, 0x1_0000);
        put(&mut config, 4, 1);
        bars.update(&config);
        assert_eq!(bars.window(0), None);
    }

    #[derive(Default)]
    struct Heard(Mutex<Vec<(usize, Option<u64>)>>);

    impl WindowSink for Heard {
        fn window_moved(&self, number: usize, window: Option<Window>) {
            self.0.lock().unwrap().push((number, window.map(|window| window.base)));
        }
    }

    #[test]
    fn the_board_hears_of_each_move_once() {
        let heard = Arc::<Heard>::default();
        let (mut config, _) = function();
        let mut bars = Bars::new(BARS, Some(heard.clone()));
        put(&mut config, 4, 1);
        for base in [0x1000, 0x1000, 0x2000] {
            put(&mut config, 0x10, base);
            bars.update(&config);
        }
        put(&mut config, 4, 0);
        bars.update(&config);
        let told = heard.0.lock().unwrap().clone();
        assert_eq!(told, [(0, Some(0x1000)), (0, Some(0x2000)), (0, None)]);
    }

    proptest! {
        #[test]
        fn windows_are_aligned_to_their_size_and_end_within_their_space(
            writes in proptest::collection::vec((4..0x28u8, any::<u32>(), any::<u32>()), 1..40),
        ) {
            let (mut config, mut bars) = function();
            for (offset, value, mask) in writes {
                config.write(offset & !3, value, mask);
                bars.update(&config);
                for window in (0..BARS.len()).filter_map(|number| bars.window(number)) {
                    prop_assert!(window.base.is_multiple_of(window.size));
                    let end = if window.space == AddressSpace::Io { PORTS } else { MEMORY };
                    prop_assert!(window.base + window.size <= end);
                }
            }
        }
    }
}
