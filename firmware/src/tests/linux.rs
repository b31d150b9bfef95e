//! bzImages.

use super::Machine;
use super::images::{BzImage, bzimage, cpio};
use crate::layout::MIB;
use crate::{EntryMode, Kernel, LoadError, Subject};

/// The end of a cpio archive.
fn archive() -> Vec<u8> {
    cpio(&[("TRAILER!!!", b"")])
}

fn kernel(image: &[u8]) -> Kernel<'_> {
    Kernel { image, ..Default::default() }
}

#[test]
fn a_relocatable_kernel_is_loaded_at_pref_address() {
    let machine = Machine::new(64);
    let fields = BzImage::default();
    let state = machine.load(&kernel(&bzimage(&fields))).unwrap();
    assert_eq!(state.rip, 0x100_0000);
    assert_eq!(state.mode, EntryMode::Protected32);
    assert_eq!(machine.read::<16>(0x100_0000), fields.code[..16]);
    assert_eq!(machine.u32(state.rsi + 0x214), 0x100_0000, "code32_start");
}

#[test]
fn others_are_loaded_at_1_mib() {
    let machine = Machine::new(64);
    for fields in [
        BzImage { relocatable: 0, pref_address: 0x100_0000, ..Default::default() },
        BzImage { version: 0x0204, ..Default::default() },
    ] {
        assert_eq!(machine.load(&kernel(&bzimage(&fields))).unwrap().rip, MIB);
    }
}

#[test]
fn the_64_bit_entry_point_is_200h_after_the_start() {
    let machine = Machine::new(64);
    let image = bzimage(&BzImage { xloadflags: 1, ..Default::default() });
    let state = machine.load(&kernel(&image)).unwrap();
    assert_eq!(state.rip, 0x100_0200);
    assert!(matches!(state.mode, EntryMode::Long { .. }));
}

#[test]
fn boot_params_have_header_memory_map_rsdp_and_files() {
    let machine = Machine::new(5120);
    let image = bzimage(&BzImage::default());
    let line = "console=ttyS0 quiet";
    let archive = archive();
    let given = Kernel { initrd: Some(&archive), command_line: line, ..kernel(&image) };
    let params = machine.load(&given).unwrap().rsi;
    assert_eq!(machine.read::<4>(params + 0x202), *b"HdrS");
    assert_eq!(machine.read::<1>(params + 0x210), [0xff], "type_of_loader");
    assert_eq!(machine.u64(params + 0x70), 0x9_fc10, "acpi_rsdp_addr");
    assert_eq!(machine.string(machine.u32(params + 0x228).into()), line);
    let initrd = u64::from(machine.u32(params + 0x218));
    assert_eq!(machine.u32(params + 0x21c), archive.len() as u32);
    assert_eq!(machine.read(initrd), *b"070701");
    assert_eq!(initrd, 0x7fff_f000, "highest page below initrd_addr_max");

    let entries: Vec<(u64, u64, u32)> = (0..u64::from(machine.read::<1>(params + 0x1e8)[0]))
        .map(|n| params + 0x2d0 + n * 20)
        .map(|at| (machine.u64(at), machine.u64(at + 8), machine.u32(at + 16)))
        .collect();
    assert_eq!(entries[0], (0, 0x9_fc00, 1));
    assert_eq!(entries[1..3], [(0x9_fc00, 0x400, 2), (0xf_0000, 0x1_0000, 2)]);
    assert_eq!(entries.last(), Some(&(1 << 32, 2048 * MIB, 1)), "2 GiB above 4 GiB");
    // Nothing after the header, whose end is where the jump at 200h goes, is taken over.
    assert_eq!(machine.read::<0x24>(params + 0x26c), [0; 0x24]);
    // No screen: of screen_info, only ext_mem_k (at most 65535 KiB) is not zero.
    assert_eq!(machine.read::<4>(params), [0, 0, 0xff, 0xff]);
    assert_eq!(machine.read::<0x3c>(params + 4), [0; 0x3c]);
}

#[test]
fn the_initrd_lies_below_the_acpi_tables_and_above_the_kernel() {
    let machine = Machine::new(64);
    let image = bzimage(&BzImage::default());
    let state = machine.load(&Kernel { initrd: Some(&archive()), ..kernel(&image) }).unwrap();
    let at = u64::from(machine.u32(state.rsi + 0x218));
    assert_eq!(at, machine.layout.acpi_reclaim().start - 0x1000);

    let large = [archive(), vec![0; 40 << 20]].concat();
    let error = machine.load(&Kernel { initrd: Some(&large), ..kernel(&image) }).unwrap_err();
    let LoadError::RamTooSmall { needed_mib, .. } = error else { panic!("{error}") };
    let enough = Machine::new(needed_mib);
    assert!(enough.load(&Kernel { initrd: Some(&large), ..kernel(&image) }).is_ok());
}

#[test]
fn too_little_ram_for_init_size_says_how_much_is_needed() {
    let image = bzimage(&BzImage { init_size: 100 << 20, ..Default::default() });
    let error = Machine::new(64).load(&kernel(&image)).unwrap_err();
    assert_eq!(error.subject(), Subject::Ram);
    let LoadError::RamTooSmall { needed_mib, have_mib: 64, .. } = error else { panic!("{error}") };
    assert!(Machine::new(needed_mib).load(&kernel(&image)).is_ok());
    assert!(Machine::new(needed_mib - 1).load(&kernel(&image)).is_err());
}

#[test]
fn the_command_line_may_have_cmdline_size_bytes() {
    let machine = Machine::new(64);
    let image = bzimage(&BzImage { cmdline_size: 10, ..Default::default() });
    assert!(machine.load(&Kernel { command_line: "0123456789", ..kernel(&image) }).is_ok());
    let error = machine.load(&Kernel { command_line: "0123456789a", ..kernel(&image) });
    assert_eq!(error.unwrap_err().subject(), Subject::CommandLine);
    let error = machine.load(&Kernel { command_line: "a\0b", ..kernel(&image) });
    assert!(matches!(error, Err(LoadError::CommandLineNul)));
}

#[test]
fn a_last_paragraph_that_is_not_whole_is_no_truncation() {
    let code = vec![1; 0x1008];
    let image = bzimage(&BzImage { code, ..Default::default() });
    assert!(Machine::new(64).load(&kernel(&image)).is_ok());
}
