//! Writes cpio archives of the "new ASCII" form, which Linux takes as an initial RAM file system.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.

use std::io::{self, Write};

/// File type bits of a mode, as in stat(2).
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Writes entries with owner root and time 0, so that equal contents give equal archives.
pub struct Archive<W> {
    out: W,
    inode: u32,
}

/// What a header says, but for the inode number and the length of the data.
struct Header<'a> {
    name: &'a str,
    mode: u32,
    links: u32,
    device: (u32, u32),
}

impl<W: Write> Archive<W> {
    /// An empty archive that is written to `out`.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// A folder.
    pub fn folder(&mut self, name: &str, permissions: u32) -> io::Result<()> {
        let mode = S_IFDIR | permissions;
        self.entry(&Header { name, mode, links: 2, device: (0, 0) }, &[])
    }

    /// A regular file.
    pub fn file(&mut self, name: &str, permissions: u32, data: &[u8]) -> io::Result<()> {
        let mode = S_IFREG | permissions;
        self.entry(&Header { name, mode, links: 1, device: (0, 0) }, data)
    }

    /// A symbolic link.
    pub fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        let mode = S_IFLNK | 0o777;
        self.entry(&Header { name, mode, links: 1, device: (0, 0) }, target.as_bytes())
    }

    /// A character device with its major and minor number.
    pub fn device(&mut self, name: &str, permissions: u32, device: (u32, u32)) -> io::Result<()> {
        let mode = S_IFCHR | permissions;
        self.entry(&Header { name, mode, links: 1, device }, &[])
    }

    /// Ends the archive and gives back what it was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        let trailer = Header { name: "TRAILER!!!", mode: 0, links: 1, device: (0, 0) };
        self.record(&trailer, 0, &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, header: &Header<'_>, data: &[u8]) -> io::Result<()> {
        self.inode += 1;
        self.record(header, self.inode, data)
    }

    fn record(&mut self, header: &Header<'_>, inode: u32, data: &[u8]) -> io::Result<()> {
        let too_large = |_| io::Error::other("file too large for a cpio archive");
        let size = u32::try_from(data.len()).map_err(too_large)?;
        let name_size = u32::try_from(header.name.len() + 1).map_err(too_large)?;
        let (major, minor) = header.device;
        // ino mode uid gid nlink mtime filesize maj min rmaj rmin namesize chksum
        let fields =
            [inode, header.mode, 0, 0, header.links, 0, size, 0, 0, major, minor, name_size, 0];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08X}")?;
        }
        self.out.write_all(header.name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(6 + 8 * fields.len() + header.name.len() + 1)?;
        self.out.write_all(data)?;
        self.pad(data.len())
    }

    /// Header and data end on a multiple of four bytes.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_110_bytes_of_magic_and_hexadecimal_fields() {
        let mut archive = Archive::new(Vec::new());
        archive.file("init", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        let text = std::str::from_utf8(&bytes[..110]).unwrap();
        assert_eq!(&text[..6], "070701");
        assert_eq!(&text[14..22], "000081ED", "c_mode");
        assert_eq!(&text[54..62], "00000005", "c_filesize");
        assert_eq!(&text[94..102], "00000005", "c_namesize, with its NUL");
    }

    #[test]
    fn name_and_data_are_padded_to_four_bytes() {
        let mut archive = Archive::new(Vec::new());
        archive.file("init", 0o755, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        // 110 + "init\0" = 115, padded to 116; 5 bytes of data, padded to 8.
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
    }

    #[test]
    fn an_archive_ends_with_the_trailer() {
        let bytes = Archive::new(Vec::new()).finish().unwrap();
        assert_eq!(&bytes[110..121], b"TRAILER!!!\0");
        assert_eq!(bytes.len(), 124);
    }

    #[test]
    fn a_device_has_its_numbers_in_rmaj_and_rmin() {
        let mut archive = Archive::new(Vec::new());
        archive.device("dev/console", 0o600, (5, 1)).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(&bytes[78..94], b"0000000500000001");
    }
}
