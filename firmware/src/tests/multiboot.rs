//! Multiboot 1 kernels.

use super::Machine;
use super::images::{Segment, elf, multiboot_header, with_sections};
use crate::{EntryMode, Kernel, LoadError, Module};

fn elf_kernel(flags: u32) -> Vec<u8> {
    let data = multiboot_header(flags, [0; 5]);
    let segment =
        Segment { physical: 0x10_0000, virtual_address: 0x10_0000, data, memory_size: 0x2000 };
    elf(false, 0x10_0010, &[segment], None)
}

#[test]
fn an_elf_kernel_gets_the_multiboot_information() {
    let machine = Machine::new(64);
    let image = elf_kernel(3);
    let modules = [Module { data: b"module", command_line: "vmlinuz root=/dev/ram" }];
    let kernel = Kernel {
        image: &image,
        name: "/boot/xen kernel",
        modules: &modules,
        command_line: "com1=115200",
        ..Default::default()
    };
    let state = machine.load(&kernel).unwrap();
    assert_eq!((state.mode, state.rip), (EntryMode::Protected32, 0x10_0010));
    assert_eq!(state.rax, 0x2bad_b002);
    let info = state.rbx;
    let field = |offset| u64::from(machine.u32(info + offset));
    assert_eq!(field(0), 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 8 | 1 << 9);
    assert_eq!(machine.read(field(60)), [8, 0, 0xfc, 1, 0, 0x64], "configuration table");
    assert_eq!(field(4), 639, "mem_lower in KiB");
    assert_eq!(field(8), (machine.layout.loadable().end - 0x10_0000) / 1024, "mem_upper in KiB");
    assert_eq!(machine.string(field(16)), "xen_kernel com1=115200");
    assert_eq!(machine.string(field(64)), "Trivium");

    assert_eq!(field(20), 1, "mods_count");
    let module = |offset| u64::from(machine.u32(field(24) + offset));
    assert_eq!(module(0), 0x10_2000, "on the page after the kernel");
    assert_eq!(module(4), module(0) + 6);
    assert_eq!(machine.read(module(0)), *b"module");
    assert_eq!(machine.string(module(8)), "vmlinuz root=/dev/ram");

    let mut at = field(48);
    let mut ranges = Vec::new();
    while at < field(48) + field(44) {
        ranges.push((machine.u64(at + 4), machine.u64(at + 12), machine.u32(at + 20)));
        at += u64::from(machine.u32(at)) + 4;
    }
    let expected: Vec<_> =
        machine.layout.e820().iter().map(|r| (r.start, r.size, r.kind as u32)).collect();
    assert_eq!(ranges, expected);
}

#[test]
fn elf_sections_are_told_with_their_addresses_in_memory() {
    let machine = Machine::new(64);
    let image = with_sections(elf_kernel(0));
    let kernel = Kernel { image: &image, initrd: Some(b"disk"), ..Default::default() };
    let info = machine.load(&kernel).unwrap().rbx;
    let field = |offset| machine.u32(info + offset);
    assert_eq!(field(0) & (1 << 4 | 1 << 5), 1 << 5, "ELF and not a.out");
    assert_eq!([field(28), field(32), field(40)], [2, 40, 1], "number, size, names");
    let names = u64::from(machine.u32(u64::from(field(36)) + 40 + 12));
    assert_eq!(machine.read(names), *b"\0.shstrtab\0");
    assert!(names >= 0x10_2000, "behind the kernel");
    let module = u64::from(machine.u32(field(24).into()));
    assert!(module >= names + 11 && module.is_multiple_of(0x1000));
}

#[test]
fn addresses_in_the_header_need_no_elf() {
    let machine = Machine::new(64);
    // The header is 8 bytes into the text, which starts 4 bytes into the file.
    let addresses = [0x20_0008, 0x20_0000, 0x20_0040, 0x20_1000, 0x20_0030];
    let mut image = b"skipBEFORE!!".to_vec();
    image.extend(multiboot_header(1 << 16, addresses));
    image.resize(4 + 0x40, 0x90);
    let state = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap();
    assert_eq!(state.rip, 0x20_0030);
    assert_eq!(machine.read(0x20_0000), *b"BEFORE!!");
    assert_eq!(machine.read(0x20_003f), [0x90, 0]);

    image.truncate(0x30);
    let error = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap_err();
    assert!(matches!(error, LoadError::Truncated { needed: 0x44, .. }), "{error}");
}

#[test]
fn a_load_end_of_0_means_the_end_of_the_file() {
    let machine = Machine::new(64);
    let mut image = multiboot_header(1 << 16, [0x20_0000, 0x20_0000, 0, 0, 0x20_0020]);
    image.resize(0x100, 0x90);
    machine.load(&Kernel { image: &image, ..Default::default() }).unwrap();
    assert_eq!(machine.read(0x20_00ff), [0x90, 0]);
}

#[test]
fn flags_of_the_lower_half_must_be_understood() {
    let machine = Machine::new(64);
    let load = |flags| machine.load(&Kernel { image: &elf_kernel(flags), ..Default::default() });
    assert!(matches!(load(1 << 3), Err(LoadError::Unsupported { .. })));
    assert!(load(1 << 20).is_ok());
}
