//! fw_cfg against its documentation.

use proptest::prelude::*;
use trivium_chipset::DmaError;
use trivium_chipset::dma::PlainMemory;

use super::*;
use crate::test_support::{Fixture, check, port_steps};

const ERROR: u32 = 1;
const READ: u32 = 2;
const SKIP: u32 = 4;
const SELECT: u32 = 8;
const WRITE: u32 = 16;
/// Where tests put the DMA structure, and data.
const DESCRIPTOR: u64 = 0x100;
const BUFFER: u64 = 0x200;

fn items() -> FwCfgItems {
    let mut items = FwCfgItems::new();
    items.set(key::NB_CPUS, vec![4, 0]);
    items.set(key::IRQ0_OVERRIDE, vec![1, 0, 0, 0]);
    items.add_file("opt/test/a", b"hello".to_vec()).unwrap();
    items.add_writable_file(vmcoreinfo::FILE, VmCoreInfo::unwritten()).unwrap();
    items
}

struct Guest {
    device: FwCfg,
    memory: Arc<PlainMemory>,
}

impl Guest {
    fn new() -> Self {
        let memory = Arc::new(PlainMemory::new(0x1000));
        Self { device: FwCfg::new(items(), memory.clone()), memory }
    }

    fn select(&mut self, key: u16) {
        self.device.write(0x510, AccessWidth::Word, key.into()).unwrap();
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut read = || self.device.read(0x511, AccessWidth::Byte).unwrap() as u8;
        (0..count).map(|_| read()).collect()
    }

    fn item(&mut self, key: u16, count: usize) -> Vec<u8> {
        self.select(key);
        self.bytes(count)
    }

    /// Runs an operation; gives what its control field is afterwards.
    fn dma(&mut self, control: u32, length: u32, address: u64) -> u32 {
        let mut descriptor = control.to_be_bytes().to_vec();
        descriptor.extend(length.to_be_bytes());
        descriptor.extend(address.to_be_bytes());
        self.memory.write(DESCRIPTOR, &descriptor).unwrap();
        self.start(DESCRIPTOR);
        let mut control = [0; 4];
        self.memory.read(DESCRIPTOR, &mut control).unwrap();
        u32::from_be_bytes(control)
    }

    fn start(&mut self, at: u64) {
        let low = (at as u32).swap_bytes();
        self.device.write(0x518, AccessWidth::Dword, low).unwrap();
    }

    fn buffer(&self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read(BUFFER, &mut data).unwrap();
        data
    }

    fn key_of(&self, name: &str) -> u16 {
        self.device.items.key_of(name).unwrap()
    }
}

fn selecting(key: u16) -> u32 {
    u32::from(key) << 16 | SELECT
}

#[test]
fn the_signature_and_the_features_can_be_read() {
    let mut guest = Guest::new();
    assert_eq!(guest.item(0, 4), *b"QEMU");
    assert_eq!(guest.item(1, 4), [3, 0, 0, 0]);
}

#[test]
fn each_read_moves_the_offset_and_selecting_sets_it_to_zero() {
    let mut guest = Guest::new();
    assert_eq!(guest.item(0, 2), *b"QE");
    assert_eq!(guest.bytes(2), *b"MU");
    assert_eq!(guest.item(0, 1), *b"Q");
}

#[test]
fn reads_after_the_end_and_of_unknown_items_give_zero() {
    let mut guest = Guest::new();
    assert_eq!(guest.item(key::NB_CPUS, 4), [4, 0, 0, 0]);
    assert_eq!(guest.item(0x3fff, 2), [0, 0]);
}

#[test]
fn bit_14_of_the_selector_changes_nothing_and_bit_15_is_the_architectures() {
    let mut guest = Guest::new();
    assert_eq!(guest.item(0x4000, 4), *b"QEMU");
    assert_eq!(guest.item(key::IRQ0_OVERRIDE, 4), [1, 0, 0, 0]);
    assert_eq!(guest.item(0x8000, 1), [0]);
}

#[test]
fn writes_of_the_data_register_are_ignored() {
    let mut guest = Guest::new();
    let key = guest.key_of(vmcoreinfo::FILE);
    guest.select(0x4000 | key);
    guest.device.write(0x511, AccessWidth::Byte, 0x55).unwrap();
    assert_eq!(guest.bytes(1), [1], "nor do they move the offset");
}

#[test]
fn the_selector_is_written_only_and_as_a_word() {
    let mut guest = Guest::new();
    guest.select(key::NB_CPUS);
    assert_eq!(guest.device.read(0x510, AccessWidth::Word), Err(BusError::NoRegister));
    assert_eq!(guest.device.write(0x510, AccessWidth::Byte, 0), Err(BusError::NoRegister));
    assert_eq!(guest.bytes(1), [4]);
}

#[test]
fn the_directory_is_big_endian_with_64_bytes_for_each_file() {
    let mut guest = Guest::new();
    let directory = guest.item(0x19, 4 + 2 * 64);
    assert_eq!(directory[..4], [0, 0, 0, 2]);
    assert_eq!(directory[4..12], [0, 0, 0, 5, 0, 0x20, 0, 0]);
    assert_eq!(directory[12..23], *b"opt/test/a\0");
    assert_eq!(directory[68..76], [0, 0, 0, 16, 0, 0x21, 0, 0]);
    assert_eq!(directory[76..91], *b"etc/vmcoreinfo\0");
    assert_eq!(guest.item(0x20, 5), *b"hello");
}

#[test]
fn names_have_1_to_55_characters_and_differ() {
    let mut items = items();
    for name in ["", "a b", "\u{e4}", &"x".repeat(56)] {
        assert_eq!(items.add_file(name, Vec::new()), Err(ItemError::Name), "{name}");
    }
    assert_eq!(items.add_file("opt/test/a", Vec::new()), Err(ItemError::Taken));
    assert_eq!(items.add_file(&"x".repeat(55), Vec::new()), Ok(0x22));
}

#[test]
fn the_dma_address_register_reads_as_qemu_cfg() {
    let mut guest = Guest::new();
    assert_eq!(guest.device.read(0x514, AccessWidth::Dword), Ok(0x554d_4551));
    assert_eq!(guest.device.read(0x518, AccessWidth::Dword), Ok(0x4746_4320));
    assert_eq!(guest.device.read(0x51b, AccessWidth::Byte), Ok(0x47));
    assert_eq!(guest.device.read(0x51a, AccessWidth::Dword), Err(BusError::Width));
}

#[test]
fn dma_selects_reads_and_clears_the_control_field() {
    let mut guest = Guest::new();
    let key = guest.key_of("opt/test/a");
    assert_eq!(guest.dma(selecting(key) | READ, 3, BUFFER), 0);
    assert_eq!(guest.buffer(4), *b"hel\0");
    assert_eq!(guest.dma(READ, 2, BUFFER), 0);
    assert_eq!(guest.buffer(3), *b"lol", "from the offset on");
}

#[test]
fn dma_reads_zeros_after_the_end() {
    let mut guest = Guest::new();
    guest.memory.write(BUFFER, &[9; 8]).unwrap();
    let key = guest.key_of("opt/test/a");
    assert_eq!(guest.dma(selecting(key) | READ, 7, BUFFER), 0);
    assert_eq!(guest.buffer(8), *b"hello\0\0\x09");
}

#[test]
fn dma_skips() {
    let mut guest = Guest::new();
    let key = guest.key_of("opt/test/a");
    assert_eq!(guest.dma(selecting(key) | SKIP, 4, 0), 0);
    assert_eq!(guest.bytes(1), *b"o");
    assert_eq!(guest.dma(SKIP, u32::MAX, 0), 0);
    assert_eq!(guest.bytes(1), [0]);
}

#[test]
fn select_alone_moves_nothing() {
    let mut guest = Guest::new();
    assert_eq!(guest.dma(selecting(0), 2, BUFFER), 0);
    assert_eq!(guest.bytes(4), *b"QEMU");
}

#[test]
fn read_goes_before_write_and_write_before_skip() {
    let mut guest = Guest::new();
    let key = guest.key_of(vmcoreinfo::FILE);
    assert_eq!(guest.dma(selecting(key) | READ | WRITE | SKIP, 2, BUFFER), 0);
    assert_eq!(guest.buffer(2), [1, 0]);
    guest.memory.write(BUFFER, &[7, 0]).unwrap();
    assert_eq!(guest.dma(WRITE | SKIP, 2, BUFFER), 0);
    assert_eq!(guest.item(key, 4), [1, 0, 7, 0]);
}

#[test]
fn writes_of_read_only_items_and_beyond_the_end_are_errors_and_change_nothing() {
    let mut guest = Guest::new();
    let (fixed, writable) = (guest.key_of("opt/test/a"), guest.key_of(vmcoreinfo::FILE));
    guest.memory.write(BUFFER, &[9; 32]).unwrap();
    for (key, length) in [(fixed, 1), (writable, 17), (writable, u32::MAX), (0x3fff, 1)] {
        assert_eq!(guest.dma(selecting(key) | WRITE, length, BUFFER), ERROR, "{key:x} {length}");
    }
    assert_eq!(guest.item(fixed, 5), *b"hello");
    assert_eq!(guest.item(writable, 3), [1, 0, 0]);
}

#[test]
fn addresses_without_ram_are_errors() {
    let mut guest = Guest::new();
    let writable = guest.key_of(vmcoreinfo::FILE);
    for address in [0xfff, 0x1000, u64::MAX, u64::MAX - 1] {
        assert_eq!(guest.dma(selecting(0) | READ, 4, address), ERROR, "{address:x}");
        assert_eq!(guest.dma(selecting(0x3fff) | READ, 4, address), ERROR, "{address:x}");
        assert_eq!(guest.dma(selecting(writable) | WRITE, 4, address), ERROR, "{address:x}");
    }
    assert_eq!(guest.item(writable, 1), [1]);
}

#[test]
fn hostile_lengths_and_structures_end() {
    let mut guest = Guest::new();
    assert_eq!(guest.dma(selecting(0) | READ, u32::MAX, 0), ERROR);
    guest.start(0xff8);
    guest.start(0xffff_fff8);
    // The structure may be the target itself.
    assert_eq!(guest.dma(selecting(0) | READ, 16, DESCRIPTOR), 0);
}

#[test]
fn the_address_is_zero_after_an_operation() {
    let mut guest = Guest::new();
    guest.device.write(0x514, AccessWidth::Dword, 1u32.swap_bytes()).unwrap();
    guest.start(DESCRIPTOR); // At 1_0000_0100h there is nothing.
    assert_eq!(guest.dma(selecting(0) | READ, 4, BUFFER), 0);
    assert_eq!(guest.buffer(4), *b"QEMU");
}

#[test]
fn vmcoreinfo_counts_when_all_of_it_was_written_and_until_reset() {
    let mut guest = Guest::new();
    let key = guest.key_of(vmcoreinfo::FILE);
    let item = [1, 0, 1, 0, 0x40, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0];
    guest.memory.write(BUFFER, &item).unwrap();
    assert_eq!(guest.dma(selecting(key) | WRITE, 12, BUFFER), 0);
    assert_eq!(guest.device.vmcoreinfo(), None);
    assert_eq!(guest.dma(selecting(key) | WRITE, 16, BUFFER), 0);
    let info = VmCoreInfo { address: 0x1000, size: 0x40 };
    assert_eq!(guest.device.vmcoreinfo(), Some(info));
    assert_eq!(guest.device.file(vmcoreinfo::FILE), Some(&item[..]));
    guest.device.reset();
    assert_eq!(guest.device.vmcoreinfo(), None);
    assert_eq!(guest.item(key, 3), [1, 0, 0]);
}

#[test]
fn a_state_with_other_items_is_refused() {
    let mut other = FwCfg::new(FwCfgItems::new(), Arc::new(PlainMemory::new(0)));
    use trivium_chipset::{SaveRestore, StateError};
    let refused = other.restore(&Guest::new().device.save());
    assert!(matches!(refused, Err(StateError::Impossible(_))));
}

/// Memory in which each address holds an operation that may do anything, and nothing changes.
struct Hostile;

impl DmaMemory for Hostile {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        if address % 16 == 15 {
            return Err(DmaError { address, len: data.len() });
        }
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = match at {
                1 => (address >> 4) as u8 & 0x3f,
                3 => (address >> 8) as u8,
                7 => (address >> 12) as u8 & 0x1f,
                15 => address as u8,
                _ => 0,
            };
        }
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        if address < 0x1_0000 { Ok(()) } else { Err(DmaError { address, len: data.len() }) }
    }
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(
        steps in port_steps(&[0x510, 0x511, 0x512, 0x514, 0x516, 0x518, 0x51b, 0x51c]),
    ) {
        check(|| Fixture::new(|_, _| FwCfg::new(items(), Arc::new(Hostile))), &steps);
    }
}
