//! Tests of the loaders with images made here, field by field as the boot protocols have them.

mod acpi;
mod elf;
pub(crate) mod images;
mod linux;
mod multiboot;
mod multiboot2;
mod mutations;
mod refusals;

use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, Region, RegionKind};

use crate::layout::MIB;
use crate::{BootState, EntryMode, Kernel, LoadError, MemoryLayout, load};

/// A machine's memory.
pub(crate) struct Machine {
    pub(crate) memory: GuestMemory,
    pub(crate) layout: MemoryLayout,
}

impl Machine {
    pub(crate) fn new(mib: u64) -> Self {
        let layout = MemoryLayout::new(mib * MIB).unwrap();
        let memory = GuestMemory::new(mib * MIB, 0).unwrap();
        let low = layout.low_ram_end();
        let high = layout.high_ram();
        memory.set_map(FlatMap::new(&[
            Region::new(0, low, RegionKind::Ram { offset: 0 }),
            Region::new(
                high.start,
                high.end - high.start,
                RegionKind::Ram { offset: low as usize },
            ),
            Region::new(0xa_0000, 0x2_0000, RegionKind::Mmio { id: 0 }),
        ]));
        Self { memory, layout }
    }

    fn load(&self, kernel: &Kernel<'_>) -> Result<BootState, LoadError> {
        load(&self.memory, &self.layout, kernel, Some(GuestPhysAddr(0x9_fc10)))
    }

    pub(crate) fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read(GuestPhysAddr(at), &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.read(at))
    }

    pub(crate) fn u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.read(at))
    }

    /// The C string at an address.
    pub(crate) fn string(&self, at: u64) -> String {
        let bytes: Vec<u8> =
            (at..).map(|at| self.read::<1>(at)[0]).take_while(|&byte| byte != 0).collect();
        String::from_utf8(bytes).unwrap()
    }
}

#[test]
fn long_mode_starts_with_the_first_4_gib_mapped_to_themselves() {
    let machine = Machine::new(64);
    let image = images::bzimage(&images::BzImage { xloadflags: 1, ..Default::default() });
    let state = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap();
    let EntryMode::Long { cr3 } = state.mode else { panic!("{state:?}") };
    for address in [0, 0x20_0000, 0x1234_5678, 0xffff_f000_u64] {
        let pml4e = machine.u64(cr3.0);
        let pdpte = machine.u64((pml4e & !0xfff) + (address >> 30) * 8);
        let pde = machine.u64((pdpte & !0xfff) + ((address >> 21) & 511) * 8);
        assert!([pml4e, pdpte, pde].iter().all(|entry| entry & 3 == 3), "present, writable");
        assert_eq!(pde & 0x80, 0x80, "a page of 2 MiB");
        assert_eq!((pde & !0x1f_ffff) + (address & 0x1f_ffff), address);
    }
    assert_eq!(machine.u64(cr3.0 + 8), 0);
}

#[test]
fn segments_are_flat_at_the_boot_protocols_selectors() {
    let machine = Machine::new(64);
    for (xloadflags, long_bit) in [(0, false), (1, true)] {
        let image = images::bzimage(&images::BzImage { xloadflags, ..Default::default() });
        let state = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap();
        let code = machine.u64(state.gdt_base.0 + 0x10);
        let data = machine.u64(state.gdt_base.0 + 0x18);
        assert_eq!([code, data], [state.gdt[2], state.gdt[3]]);
        for descriptor in [code, data] {
            assert_eq!(descriptor & 0xff00_00ff_ffff_0000, 0, "base 0");
            assert_eq!(descriptor & 0x000f_0000_0000_ffff, 0x000f_0000_0000_ffff, "4 GiB");
            assert_eq!(descriptor >> 55 & 1, 1, "limit in pages");
            assert_eq!(descriptor >> 44 & 0xf, 9, "present, ring 0, code or data");
        }
        assert_eq!(code >> 53 & 1 == 1, long_bit, "L");
        assert_eq!(code >> 54 & 1 == 1, !long_bit, "D");
        assert_eq!(usize::from(state.gdt_limit) + 1, size_of_val(&state.gdt));
    }
}
