//! Tells what a file is that is no kernel.

use crate::bytes::bytes_at;
use crate::{LoadError, Subject};

/// What to give instead, in general.
pub(crate) const GIVE_A_KERNEL: &str = "give a Linux bzImage, an ELF kernel or a Multiboot kernel";
const UNPACK: &str = "unpack it first";

/// Magic numbers of kernels for other architectures: offset, bytes, name.
const OTHER_KERNELS: &[(usize, &[u8], &str)] = &[
    (0x38, b"ARM\x64", "ARM64"),
    (0x38, b"RSC\x05", "RISC-V"),
    (0x24, &[0x18, 0x28, 0x6f, 0x01], "ARM"),
    (0x38, &[0xcd, 0x23, 0x82, 0x81], "LoongArch"),
];

/// Magic numbers of other files: offset, bytes, what the file is, what to do.
const OTHER_FILES: &[(usize, &[u8], &str, &str)] = &[
    (0, &[0x1f, 0x8b], "compressed with gzip", UNPACK),
    (0, b"\xfd7zXZ\0", "compressed with xz", UNPACK),
    (0, &[0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd", UNPACK),
    (0, b"BZh", "compressed with bzip2", UNPACK),
    (0, &[0x02, 0x21, 0x4c, 0x18], "compressed with lz4", UNPACK),
    (0, &[0x04, 0x22, 0x4d, 0x18], "compressed with lz4", UNPACK),
    (0, b"0707", "a cpio archive", "give it as the initial RAM disk, with a kernel"),
    (0, &[0x27, 0x05, 0x19, 0x56], "an image for U-Boot", GIVE_A_KERNEL),
    (0, &[0xd0, 0x0d, 0xfe, 0xed], "a device tree or an image for U-Boot", GIVE_A_KERNEL),
    (0, b"QFI\xfb", "a qcow2 disk image", GIVE_A_KERNEL),
    (0x8001, b"CD001", "a CD image", "give the kernel that is on it"),
    (0, b"!<arch>\n", "an archive or a Debian package", "give the kernel that is in it"),
    (0, b"MZ", "a program for EFI or DOS", GIVE_A_KERNEL),
    (0x1fe, &[0x55, 0xaa], "a boot sector or disk image", "give the kernel that is on it"),
];

/// Up to here a bzImage has no complete header.
const LINUX_HEADER_END: usize = 0x264;

/// Why the image cannot be loaded.
pub(crate) fn not_a_kernel(image: &[u8]) -> LoadError {
    let has = |offset: usize, magic: &[u8]| {
        image.get(offset..offset + magic.len()).is_some_and(|bytes| bytes == magic)
    };
    if let Some((.., name)) = OTHER_KERNELS.iter().find(|(offset, magic, _)| has(*offset, magic)) {
        return LoadError::WrongArchitecture { found: (*name).into() };
    }
    if bytes_at(image, 0) == Some(*b"MZ") && image.len() < LINUX_HEADER_END {
        return LoadError::Truncated {
            subject: Subject::Kernel,
            what: "kernel",
            have: image.len() as u64,
            needed: LINUX_HEADER_END as u64,
        };
    }
    let known = OTHER_FILES.iter().find(|(offset, magic, ..)| has(*offset, magic));
    let (found, remedy) = match known {
        Some((_, _, found, remedy)) => (*found, *remedy),
        None if is_text(image) => ("a text file", GIVE_A_KERNEL),
        None if image.iter().all(|&byte| byte == 0) => ("all zeroes", GIVE_A_KERNEL),
        None => ("no kernel of a known form", GIVE_A_KERNEL),
    };
    LoadError::NotAKernel { found, remedy }
}

/// Whether the start of the file is text.
pub(crate) fn is_text(image: &[u8]) -> bool {
    const LOOK_AT: usize = 512;
    image.iter().take(LOOK_AT).all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}
