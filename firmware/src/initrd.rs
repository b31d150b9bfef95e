//! Checks an initial RAM disk of Linux, which itself would go on without what it cannot unpack and
//! fail much later (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

use std::io::ErrorKind;

use flate2::bufread::GzDecoder;

use crate::bytes::bytes_at;
use crate::diagnose::is_text;
use crate::{LoadError, Subject};

/// Magic numbers of compressed archives other than gzip's, which only Linux looks into.
const COMPRESSED: &[&[u8]] = &[
    b"\xfd7zXZ\0",
    b"BZh",
    &[0x5d, 0, 0], // LZMA
    &[0x89, b'L', b'Z', b'O'],
    &[0x02, 0x21, 0x4c, 0x18], // LZ4, legacy frames
    &[0x28, 0xb5, 0x2f, 0xfd], // Zstandard
];
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Magic numbers of file systems that an initial RAM disk may be an image of, and where they lie
/// (init/do_mounts_rd.c of Linux).
const FILE_SYSTEMS: &[(usize, &[u8])] = &[
    (0x438, &[0x53, 0xef]), // ext2 and later
    (0x410, &[0x7f, 0x13]), // Minix, four kinds
    (0x410, &[0x8f, 0x13]),
    (0x410, &[0x68, 0x24]),
    (0x410, &[0x78, 0x24]),
    (0, b"-rom1fs-"),
    (0, &[0x45, 0x3d, 0xcd, 0x28]), // cramfs
    (0, b"hsqs"),                   // SquashFS
];

/// "New ASCII" cpio archives without and with checksums.
const CPIO: [[u8; 6]; 2] = [*b"070701", *b"070702"];

/// That Linux can make something of the file, and that the file is whole, as far as that is known
/// without unpacking it with every method that Linux has.
pub(crate) fn check(initrd: &[u8]) -> Result<(), LoadError> {
    if initrd.is_empty() {
        return Err(LoadError::EmptyModule(Subject::Initrd));
    }
    let is_at = |&(offset, magic): &(usize, &[u8])| {
        initrd.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    };
    // Archives follow on each other, with zeroes between them.
    let mut at = skip_zeroes(initrd, 0);
    while let Some(end) = cpio_entry(initrd, at)? {
        at = skip_zeroes(initrd, end);
    }
    let rest = initrd.get(at..).unwrap_or_default();
    if rest.starts_with(GZIP) {
        return check_gzip(rest);
    }
    let found_something = !rest.is_empty()
        && COMPRESSED.iter().any(|magic| rest.starts_with(magic))
        || cpio_entry(initrd, skip_zeroes(initrd, 0))?.is_some()
        || FILE_SYSTEMS.iter().any(is_at);
    if found_something {
        return Ok(());
    }
    let found = if rest.is_empty() {
        "all zeroes"
    } else if is_text(initrd) {
        "a text file"
    } else {
        "no archive and no file system that Linux takes"
    };
    Err(LoadError::NotAnInitrd { found })
}

/// Does `work` and checks the initial RAM disk meanwhile; what is wrong with `work` comes first.
pub(crate) fn check_during<T>(
    initrd: Option<&[u8]>,
    work: impl FnOnce() -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    let Some(initrd) = initrd else { return work() };
    std::thread::scope(|scope| {
        let checker = std::thread::Builder::new().spawn_scoped(scope, || check(initrd));
        let done = work()?;
        match checker.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(checked)) => checked?,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // The host has no thread to spare.
            Err(_) => check(initrd)?,
        }
        Ok(done)
    })
}

/// The offset of the next byte that is not zero.
fn skip_zeroes(initrd: &[u8], from: usize) -> usize {
    let rest = initrd.get(from..).unwrap_or_default();
    from.saturating_add(rest.iter().take_while(|&&byte| byte == 0).count())
}

/// The end of the entry of a cpio archive that is at `at`; `None` if there is no entry.
fn cpio_entry(initrd: &[u8], at: usize) -> Result<Option<usize>, LoadError> {
    const HEADER_SIZE: u64 = 110;
    const FILE_SIZE: usize = 54;
    const NAME_SIZE: usize = 94;
    if !bytes_at(initrd, at).is_some_and(|magic| CPIO.contains(&magic)) {
        return Ok(None);
    }
    let truncated = |needed| LoadError::Truncated {
        subject: Subject::Initrd,
        what: "initial RAM disk",
        have: initrd.len() as u64,
        needed,
    };
    let field = |offset: usize| {
        let digits: [u8; 8] = bytes_at(initrd, at.saturating_add(offset))
            .ok_or_else(|| truncated(at as u64 + HEADER_SIZE))?;
        let digits = std::str::from_utf8(&digits).unwrap_or_default();
        u64::from_str_radix(digits, 16).map_err(|_| LoadError::Corrupt {
            subject: Subject::Initrd,
            what: "initial RAM disk's cpio archive has an invalid header",
        })
    };
    let data = at as u64 + (HEADER_SIZE + field(NAME_SIZE)?).next_multiple_of(4);
    let end = data + field(FILE_SIZE)?;
    if end > initrd.len() as u64 {
        return Err(truncated(end));
    }
    // What the last entry's padding lacks does not matter.
    Ok(Some(usize::try_from(end.next_multiple_of(4)).unwrap_or(usize::MAX)))
}

/// That gzip data is whole: unpacks it to nowhere.
fn check_gzip(data: &[u8]) -> Result<(), LoadError> {
    let what = match std::io::copy(&mut GzDecoder::new(data), &mut std::io::sink()) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "initial RAM disk ends in the middle of its gzip data"
        }
        Err(_) => "initial RAM disk's gzip data is damaged",
    };
    Err(LoadError::Corrupt { subject: Subject::Initrd, what })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::tests::images::cpio;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn archives_follow_on_each_other() {
        let archive = cpio(&[("init", b"#!/bin/sh\n"), ("TRAILER!!!", b"")]);
        let zeroes = [0; 512];
        let packed = gzip(&archive);
        for parts in [
            vec![&archive[..]],
            vec![&packed],
            vec![&zeroes, &archive, &zeroes, &packed],
            vec![&packed, &archive],
            vec![&archive, b"\x28\xb5\x2f\xfd and so on"],
            vec![b"\xfd7zXZ\0 and so on"],
        ] {
            check(&parts.concat()).unwrap();
        }
    }

    #[test]
    fn file_systems_are_taken() {
        let mut ext2 = vec![0; 4096];
        ext2[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
        check(&ext2).unwrap();
        check(b"hsqs and so on").unwrap();
    }

    #[test]
    fn a_part_of_an_archive_is_refused() {
        let archive = cpio(&[("init", &[7; 1000]), ("TRAILER!!!", b"")]);
        // Where the first entry ends, an archive may end.
        for len in (6..1112).chain(1130..1240) {
            let error = check(&archive[..len]).unwrap_err();
            assert!(matches!(error, LoadError::Truncated { .. }), "{len}: {error}");
            assert_eq!(error.subject(), Subject::Initrd);
        }
        let packed = gzip(&archive);
        for len in 2..packed.len() {
            assert!(matches!(check(&packed[..len]), Err(LoadError::Corrupt { .. })), "{len}");
        }
        let mut damaged = packed.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(check(&damaged).is_err());
    }

    #[test]
    fn other_files_are_refused() {
        for (file, says) in [
            (&b"not an archive\n"[..], "text file"),
            (&[0; 64], "zeroes"),
            (&[0xcc; 64], "no archive"),
            (b"", "empty"),
        ] {
            let text = check(file).unwrap_err().to_string();
            assert!(text.contains(says) && !text.contains('\n'), "{text}");
        }
    }
}
