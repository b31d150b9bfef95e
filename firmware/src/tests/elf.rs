//! ELF kernels: vmlinux and PVH.

use super::Machine;
use super::images::{Segment, elf, pvh_note};
use crate::layout::MIB;
use crate::{EntryMode, Kernel, LoadError, Module};

fn segment() -> Segment {
    Segment {
        physical: 0x100_0000,
        virtual_address: 0x8100_0000,
        data: b"code of a kernel".to_vec(),
        memory_size: 0x3000,
    }
}

#[test]
fn a_64_bit_vmlinux_is_entered_in_long_mode_with_boot_params() {
    let machine = Machine::new(64);
    // What was in memory before, such as an earlier boot, is not in the kernel's bss.
    let bss = 0x100_0000 + 16;
    machine.memory.write(trivium_memory::GuestPhysAddr(bss), &[7; 0x2000]).unwrap();
    let image = elf(true, 0x100_0004, &[segment()], None);
    let kernel = Kernel { image: &image, command_line: "quiet", ..Default::default() };
    let state = machine.load(&kernel).unwrap();
    assert!(matches!(state.mode, EntryMode::Long { .. }));
    assert_eq!(state.rip, 0x100_0004);
    assert_eq!(machine.read(0x100_0000), *b"code of a kernel");
    assert_eq!(machine.read::<0x2000>(bss), [0; 0x2000]);
    assert_eq!(machine.read::<4>(state.rsi + 0x202), *b"HdrS");
    assert_eq!(machine.string(machine.u32(state.rsi + 0x228).into()), "quiet");
}

#[test]
fn a_32_bit_vmlinux_is_entered_in_protected_mode() {
    let machine = Machine::new(64);
    let image = elf(false, 0x100_0000, &[segment()], None);
    let state = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap();
    assert_eq!(state.mode, EntryMode::Protected32);
    assert_eq!(machine.read::<4>(state.rsi + 0x202), *b"HdrS");
}

#[test]
fn a_virtual_entry_point_is_translated() {
    let machine = Machine::new(64);
    let image = elf(true, 0x8100_0008, &[segment()], None);
    let state = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap();
    assert_eq!(state.rip, 0x100_0008);
    let image = elf(true, 0x4000_0000, &[segment()], None);
    let error = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap_err();
    assert!(matches!(error, LoadError::Corrupt { .. }), "{error}");
}

#[test]
fn a_pvh_note_is_entered_in_protected_mode_with_start_info() {
    let machine = Machine::new(64);
    for is_64 in [false, true] {
        let image = elf(is_64, 0x100_0000, &[segment()], Some(&pvh_note(0x100_0abc)));
        let modules = [Module { data: b"second", command_line: "two" }];
        let kernel = Kernel {
            image: &image,
            initrd: Some(b"first"),
            modules: &modules,
            command_line: "quiet",
            ..Default::default()
        };
        let state = machine.load(&kernel).unwrap();
        assert_eq!((state.mode, state.rip), (EntryMode::Protected32, 0x100_0abc));
        let info = state.rbx;
        assert_eq!(machine.u32(info), 0x336e_c578, "magic");
        assert_eq!(machine.u32(info + 4), 1, "version");
        assert_eq!(machine.u32(info + 12), 2, "nr_modules");
        assert_eq!(machine.string(machine.u64(info + 24)), "quiet");
        assert_eq!(machine.u64(info + 32), 0x9_fc10, "rsdp_paddr");
        let list = machine.u64(info + 16);
        assert_eq!(machine.read(machine.u64(list)), *b"first");
        assert_eq!(machine.u64(list + 8), 5);
        assert_eq!(machine.read(machine.u64(list + 32)), *b"second");
        assert_eq!(machine.string(machine.u64(list + 32 + 16)), "two");
        let map = machine.u64(info + 40);
        assert_eq!(machine.u32(info + 48), machine.layout.e820().len() as u32);
        assert_eq!([machine.u64(map), machine.u64(map + 8)], [0, 0x9_fc00]);
        assert_eq!(machine.u32(map + 16), 1);
    }
}

#[test]
fn segments_must_lie_in_free_ram() {
    let machine = Machine::new(64);
    for physical in [0, 0x7000, 0x9_f000, 0xf_0000, 0xfff0_0000] {
        let image = elf(true, physical, &[Segment { physical, ..segment() }], None);
        let error = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap_err();
        assert!(matches!(error, LoadError::NoRamThere { .. }), "{physical:#x}: {error}");
    }
    let physical = 64 * MIB as u32;
    let image = elf(true, physical, &[Segment { physical, ..segment() }], None);
    let error = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap_err();
    assert!(matches!(error, LoadError::RamTooSmall { needed_mib: 65, .. }), "{error}");
}
