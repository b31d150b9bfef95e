//! Multiboot2 kernels.

use super::Machine;
use super::images::{Segment, elf, set};
use crate::smbios::{SmbiosConfig, SmbiosCpu, SmbiosSettings};
use crate::{EntryMode, Kernel, LoadError, Module};

/// A tag of a header: type, flags, fields.
type Tag = (u16, u16, Vec<u32>);

/// A header with its checksum; the end tag is added.
pub(super) fn header(architecture: u32, tags: &[Tag]) -> Vec<u8> {
    let mut body: Vec<u8> = Vec::new();
    for (kind, flags, fields) in tags.iter().chain([&(0, 0, vec![])]) {
        body.extend(kind.to_le_bytes());
        body.extend(flags.to_le_bytes());
        body.extend((8 + 4 * fields.len() as u32).to_le_bytes());
        body.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let length = 16 + body.len() as u32;
    let magic = 0xe852_50d6_u32;
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(architecture).wrapping_sub(length);
    let mut bytes: Vec<u8> =
        [magic, architecture, length, checksum].into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.extend(body);
    bytes
}

pub(super) fn elf_kernel(is_64: bool, tags: &[Tag]) -> Vec<u8> {
    let mut data = header(0, tags);
    // The segment starts right after the headers: the Multiboot2 header must lie on a multiple of 8.
    let before = if is_64 { 64 + 56 } else { 52 + 32 };
    data.splice(0..0, vec![0; (8 - before % 8) % 8]);
    let segment =
        Segment { physical: 0x10_0000, virtual_address: 0x10_0000, data, memory_size: 0x2000 };
    elf(is_64, 0x10_0010, &[segment], None)
}

/// The tags of the boot information: type and content.
fn tags(machine: &Machine, info: u64) -> Vec<(u32, Vec<u8>)> {
    let total = u64::from(machine.u32(info));
    let (mut at, end) = (info + 8, info + total);
    let mut all = Vec::new();
    while at < end {
        let (kind, size) = (machine.u32(at), u64::from(machine.u32(at + 4)));
        all.push((kind, (at + 8..at + size).map(|at| machine.read::<1>(at)[0]).collect()));
        at += size.next_multiple_of(8);
    }
    assert_eq!((at, all.last()), (end, Some(&(0, vec![]))));
    all
}

fn fields(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|field| u32::from_le_bytes(field.try_into().unwrap())).collect()
}

fn only(all: &[(u32, Vec<u8>)], kind: u32) -> &[u8] {
    let found: Vec<_> = all.iter().filter(|(of, _)| *of == kind).collect();
    assert_eq!(found.len(), 1, "tags of type {kind}");
    &found[0].1
}

#[test]
fn an_elf_kernel_gets_the_boot_information() {
    for is_64 in [false, true] {
        let machine = Machine::new(64);
        let settings = SmbiosSettings::default();
        let cpu = SmbiosCpu { vendor: "v", name: "n", id: 0, long_mode: true };
        let smbios = SmbiosConfig {
            product: "PC",
            version: "1.0",
            processors: 1,
            cpu,
            pci: true,
            acpi: true,
            settings: &settings,
        };
        crate::smbios::build(&machine.memory, &machine.layout, &smbios).unwrap();
        let image = elf_kernel(is_64, &[(1, 0, vec![1, 3, 6, 8]), (6, 0, vec![])]);
        let modules = [Module { data: b"module", command_line: "one two" }];
        let kernel = Kernel {
            image: &image,
            name: "/boot/kernel",
            initrd: Some(b"disk"),
            modules: &modules,
            command_line: "quiet",
        };
        let state = machine.load(&kernel).unwrap();
        assert_eq!((state.mode, state.rip), (EntryMode::Protected32, 0x10_0010));
        assert_eq!(state.rax, 0x36d7_6289);
        assert!(state.rbx.is_multiple_of(8));
        let all = tags(&machine, state.rbx);
        assert_eq!(only(&all, 1), b"kernel quiet\0");
        assert_eq!(only(&all, 2), b"Trivium\0");
        let kib = (machine.layout.loadable().end as u32 - 0x10_0000) / 1024;
        assert_eq!(fields(only(&all, 4)), [639, kib]);
        let placed: Vec<_> = all.iter().filter(|(kind, _)| *kind == 3).collect();
        assert_eq!(placed.len(), 2);
        assert_eq!(fields(&placed[0].1[..8]), [0x10_2000, 0x10_2004], "on the next page");
        assert_eq!(fields(&placed[1].1[..8]), [0x10_3000, 0x10_3006]);
        assert_eq!(machine.read(0x10_3000), *b"module");
        assert_eq!(&placed[1].1[8..], b"one two\0");

        let map = only(&all, 6);
        assert_eq!(fields(&map[..8]), [24, 0]);
        let ranges: Vec<_> = map[8..].chunks_exact(24).map(fields).collect();
        assert_eq!(ranges.len(), machine.layout.e820().len());
        assert_eq!(ranges[0], [0, 0, 0x9_fc00, 0, 1, 0]);

        assert_eq!(only(&all, 14).len(), 20);
        assert_eq!(only(&all, 15).len(), 36);
        assert_eq!(only(&all, 13)[..10], [3, 0, 0, 0, 0, 0, 0, 0, 0, 0x18]);
        assert!(!all.iter().any(|(kind, _)| *kind == 21), "no load base unless relocatable");
    }
}

#[test]
fn the_address_tags_need_no_elf() {
    let machine = Machine::new(64);
    let addresses = vec![0x20_0008, 0x20_0000, 0x20_0080, 0x20_1000];
    let mut image = b"BEFORE!!".to_vec();
    image.extend(header(0, &[(2, 0, addresses), (3, 0, vec![0x20_0040])]));
    image.resize(0x80, 0x90);
    let state = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap();
    assert_eq!(state.rip, 0x20_0040);
    assert_eq!(machine.read(0x20_0000), *b"BEFORE!!");
    assert_eq!(machine.read(0x20_007f), [0x90, 0]);

    let mut image = header(0, &[(2, 0, vec![0x20_0000, u32::MAX, 0, 0]), (3, 0, vec![0x20_0040])]);
    image.resize(0x80, 0x90);
    let state = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap();
    assert_eq!((state.rip, machine.read(0x20_007f)), (0x20_0040, [0x90, 0]));
}

#[test]
fn a_relocatable_kernel_goes_where_it_may_and_is_told() {
    let machine = Machine::new(64);
    let load = |fields: [u32; 4]| {
        let image = elf_kernel(false, &[(10, 0, fields.to_vec())]);
        let state = machine.load(&Kernel { image: &image, ..Default::default() })?;
        let base = self::fields(only(&tags(&machine, state.rbx), 21))[0];
        assert_eq!(state.rip, u64::from(base) + 0x10);
        assert_eq!(machine.read(base.into()), machine.read::<16>(0x10_0000));
        Ok::<_, LoadError>(base)
    };
    assert_eq!(load([0, u32::MAX, 0x1000, 0]).unwrap(), 0x10_0000, "where it is linked");
    assert_eq!(load([0x20_0001, u32::MAX, 0x1000, 0]).unwrap(), 0x20_1000);
    assert_eq!(load([0, u32::MAX, 0x1000, 1]).unwrap(), 0x10_0000, "the lowest address");
    let top = machine.layout.loadable().end as u32;
    assert_eq!(load([0, u32::MAX, 0x1000, 2]).unwrap(), top - 0x2000, "the highest address");
    assert_eq!(load([0, 0x3f_ffff, 0x10_0000, 2]).unwrap(), 0x30_0000);
    assert!(matches!(load([0x3c00_0000, u32::MAX, 1, 0]), Err(LoadError::RamTooSmall { .. })));
    assert!(matches!(load([2, 1, 1, 0]), Err(LoadError::Corrupt { .. })));
}

#[test]
fn what_is_required_and_unknown_is_refused() {
    let machine = Machine::new(64);
    let load = |tags: &[Tag]| {
        machine.load(&Kernel { image: &elf_kernel(true, tags), ..Default::default() })
    };
    for tag in [(77, 0, vec![]), (1, 0, vec![22]), (4, 0, vec![1])] {
        assert!(
            matches!(load(std::slice::from_ref(&tag)), Err(LoadError::Unsupported { .. })),
            "{tag:?}"
        );
        assert!(load(&[(tag.0, 1, tag.2)]).is_ok());
    }
    // Only loaders on EFI look at these; a framebuffer is a wish.
    for tag in [(7, 0, vec![]), (8, 0, vec![1, 0]), (9, 0, vec![1, 0]), (5, 0, vec![640, 480, 32])]
    {
        assert!(load(&[tag]).is_ok());
    }
}

#[test]
fn broken_headers_are_refused() {
    let machine = Machine::new(64);
    let mut image = elf_kernel(false, &[(3, 0, vec![0x10_0010, 0])]);
    let at = super::super::multiboot2::find_header(&image).unwrap().offset;
    for (offset, bytes) in [(16, [3, 0, 0, 0, 0, 0, 1, 0]), (16, [3, 0, 0, 0, 7, 0, 0, 0])] {
        set(&mut image, at + offset, &bytes);
        let error = machine.load(&Kernel { image: &image, ..Default::default() }).unwrap_err();
        assert!(matches!(error, LoadError::Corrupt { .. }), "{error}");
    }
    let mips = header(4, &[(2, 0, vec![0x20_0000, 0x20_0000, 0, 0])]);
    let error = machine.load(&Kernel { image: &mips, ..Default::default() }).unwrap_err();
    assert!(matches!(error, LoadError::WrongArchitecture { .. }), "{error}");
    let no_entry = header(0, &[(2, 0, vec![0x20_0000, 0x20_0000, 0, 0])]);
    let error = machine.load(&Kernel { image: &no_entry, ..Default::default() }).unwrap_err();
    assert!(matches!(error, LoadError::Corrupt { .. }), "{error}");
    let no_addresses = header(0, &[]);
    let error = machine.load(&Kernel { image: &no_addresses, ..Default::default() }).unwrap_err();
    assert!(matches!(error, LoadError::Corrupt { .. }), "{error}");
}
