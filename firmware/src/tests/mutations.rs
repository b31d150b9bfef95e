//! Whatever is changed in an image, loading it gives a state or an error, and soon.

use proptest::prelude::*;

use super::images::{
    BzImage, Segment, bzimage, cpio, elf, multiboot_header, pvh_note, set, with_sections,
};
use super::{Machine, multiboot2};
use crate::{Kernel, Module};

fn images() -> Vec<Vec<u8>> {
    let segment = Segment {
        physical: 0x10_0000,
        virtual_address: 0x8010_0000,
        data: vec![0x90; 256],
        memory_size: 0x2000,
    };
    let multiboot = Segment { data: multiboot_header(3, [0; 5]), ..segment.clone() };
    let mut flat = multiboot_header(1 << 16, [0x20_0000, 0x20_0000, 0, 0, 0x20_0020]);
    flat.resize(0x100, 0x90);
    let addresses = (2, 0, vec![0x20_0000, 0x20_0000, 0, 0]);
    let mut multiboot2_flat = multiboot2::header(0, &[addresses, (3, 0, vec![0x20_0040])]);
    multiboot2_flat.resize(0x100, 0x90);
    let small = BzImage { pref_address: 0x20_0000, init_size: 0x10_0000, ..Default::default() };
    vec![
        bzimage(&BzImage { xloadflags: 1, ..small.clone() }),
        bzimage(&BzImage { version: 0x0206, ..small }),
        elf(true, 0x10_0000, &[segment.clone(), segment.clone()], None),
        elf(false, 0x10_0000, std::slice::from_ref(&segment), Some(&pvh_note(0x10_0000))),
        elf(true, 0x10_0000, &[segment], Some(&pvh_note(0x8010_0000))),
        elf(false, 0x10_0000, &[multiboot], None),
        flat,
        multiboot2::elf_kernel(false, &multiboot2_tags()),
        multiboot2::elf_kernel(true, &multiboot2_tags()),
        with_sections(multiboot2::elf_kernel(true, &[])),
        multiboot2_flat,
    ]
}

fn multiboot2_tags() -> Vec<(u16, u16, Vec<u32>)> {
    vec![(1, 0, vec![1, 6]), (10, 0, vec![0, u32::MAX, 0x1000, 2]), (3, 0, vec![0x10_0010])]
}

/// Values that fields go wrong with.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<[u8; 1]>().prop_map(|b| b.to_vec()),
        any::<[u8; 4]>().prop_map(|b| b.to_vec()),
        Just(vec![0; 4]),
        Just(vec![0xff; 4]),
        Just(vec![0xff; 8]),
        Just(vec![0, 0, 0, 0x80]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_changed_image_is_loaded_or_refused(
        which in 0..11_usize,
        changes in prop::collection::vec((0..0x300_usize, value()), 1..6),
        keep in prop_oneof![4 => Just(usize::MAX), 1 => 0..0x1800_usize],
    ) {
        let mut image = images().swap_remove(which);
        let len = image.len();
        for (offset, bytes) in changes {
            set(&mut image, offset % len, &bytes);
        }
        image.truncate(keep);
        let archive = cpio(&[("TRAILER!!!", b"")]);
        let modules = [Module { data: b"module", command_line: "module" }];
        for modules in [&[][..], &modules] {
            let kernel = Kernel {
                image: &image,
                initrd: Some(&archive),
                modules,
                command_line: "quiet",
                ..Default::default()
            };
            if let Err(error) = Machine::new(8).load(&kernel) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }

    #[test]
    fn noise_is_refused(image in prop::collection::vec(any::<u8>(), 0..2048)) {
        let kernel = Kernel { image: &image, ..Default::default() };
        prop_assert!(Machine::new(8).load(&kernel).is_err());
    }
}
