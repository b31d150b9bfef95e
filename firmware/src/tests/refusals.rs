//! Files that are no kernels: each is refused with one line that says why and what would do.

use super::Machine;
use super::images::{BzImage, Segment, bzimage, elf, set};
use crate::{Kernel, LoadError, Subject};

fn refusal(image: &[u8]) -> LoadError {
    let error = Machine::new(64).load(&Kernel { image, ..Default::default() }).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 160 && text.contains("; "), "{text}");
    error
}

fn with(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = vec![1; 1024];
    set(&mut image, offset, bytes);
    image
}

#[test]
fn other_files_are_named() {
    for (image, says) in [
        (vec![], "empty"),
        (b"#!/bin/sh\necho hello\n".to_vec(), "text file"),
        (with(0, &[0x1f, 0x8b, 8]), "gzip"),
        (with(0, b"070701"), "cpio"),
        (with(0x1fe, &[0x55, 0xaa]), "boot sector"),
        (vec![0; 100], "zeroes"),
        (with(0, b"MZ"), "EFI"),
        (vec![0xcc; 100], "known form"),
    ] {
        let text = refusal(&image).to_string();
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn kernels_of_other_architectures_are_named() {
    let segment =
        Segment { physical: 0x10_0000, virtual_address: 0, data: vec![1], memory_size: 1 };
    let mut arm_elf = elf(true, 0x10_0000, &[segment], None);
    set(&mut arm_elf, 18, &183_u16.to_le_bytes());
    let mut big_endian = arm_elf.clone();
    set(&mut big_endian, 5, &[2]);
    set(&mut big_endian, 18, &21_u16.to_be_bytes());
    for (image, says) in [
        (with(0x38, b"ARM\x64"), "ARM64"),
        (with(0x24, &0x016f_2818_u32.to_le_bytes()), "ARM"),
        (arm_elf, "ARM64"),
        (big_endian, "64-bit PowerPC"),
    ] {
        let error = refusal(&image);
        assert!(
            matches!(&error, LoadError::WrongArchitecture { found } if found == says),
            "{error}"
        );
    }
}

#[test]
fn truncated_kernels_say_how_long_they_should_be() {
    let image = bzimage(&BzImage::default());
    let truncated = refusal(&image[..image.len() - 16]);
    assert!(
        matches!(truncated, LoadError::Truncated { needed, .. } if needed == image.len() as u64)
    );
    for len in 0x20a..image.len() - 15 {
        assert!(matches!(refusal(&image[..len]), LoadError::Truncated { .. }), "{len:#x}");
    }
    let segment =
        Segment { physical: 0x10_0000, virtual_address: 0, data: vec![1; 64], memory_size: 64 };
    let image = elf(true, 0x10_0000, &[segment], None);
    for len in 4..image.len() {
        assert!(matches!(refusal(&image[..len]), LoadError::Truncated { .. }), "{len:#x}");
    }
}

#[test]
fn corrupt_headers_are_refused() {
    for (offset, bytes) in [
        (0x1f4, &[0; 4][..]),   // syssize
        (0x24c, &[0xff; 4]),    // payload_length
        (0x230, &[3, 0, 0, 0]), // kernel_alignment
        (0x258, &[0xff; 8]),    // pref_address
    ] {
        let mut image = bzimage(&BzImage::default());
        set(&mut image, offset, bytes);
        assert!(matches!(refusal(&image), LoadError::Corrupt { .. }), "{offset:#x}");
    }
    let zimage = bzimage(&BzImage { loadflags: 0, ..Default::default() });
    assert!(matches!(refusal(&zimage), LoadError::Unsupported { .. }));
    let old = bzimage(&BzImage { version: 0x0201, ..Default::default() });
    assert!(matches!(refusal(&old), LoadError::Unsupported { .. }));
}

#[test]
fn an_initrd_that_is_none_is_refused() {
    let image = bzimage(&BzImage::default());
    for initrd in [&b""[..], b"text"] {
        let kernel = Kernel { image: &image, initrd: Some(initrd), ..Default::default() };
        let error = Machine::new(64).load(&kernel).unwrap_err();
        assert_eq!(error.subject(), Subject::Initrd);
    }
}
