//! Host memory that is mapped twice: once to be written, once to be executed. No page is both, and
//! none that was not to be executed becomes so, which hosts may forbid.

use std::ffi::c_void;
use std::io::{Error, Result};
use std::ptr::{NonNull, null_mut};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, mremap, munmap,
};

/// A mapping, which is taken away when it is dropped.
pub(crate) struct Mapping {
    address: NonNull<c_void>,
    len: usize,
}

// SAFETY: it is memory of the process, of no thread in particular.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(address: *mut c_void, len: usize) -> Result<Self> {
        let address = NonNull::new(address).ok_or_else(|| Error::other("an address of 0"))?;
        Ok(Self { address, len })
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> u64 {
        self.address.as_ptr().addr() as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: whoever has an address within does not use it after this.
        let _ = unsafe { munmap(self.address.as_ptr(), self.len) };
    }
}

/// Memory that is mapped twice.
pub(crate) struct Twice {
    write: Mapping,
    execute: Mapping,
}

impl Twice {
    /// So many bytes, of zeroes.
    pub(crate) fn new(len: usize) -> Result<Self> {
        match Self::of_file(len) {
            // Kernels before 3.17 have none, and newer ones may have it switched off.
            Err(error) => Self::anonymous(len).map_err(|_| error),
            done => done,
        }
    }

    /// The same of a file without a name.
    fn of_file(len: usize) -> Result<Self> {
        let file = memfd_create("trivium-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, len as u64)?;
        let map = |protection| {
            // SAFETY: the kernel chooses the place.
            let at = unsafe { mmap(null_mut(), len, protection, MapFlags::SHARED, &file, 0) }?;
            Mapping::new(at, len)
        };
        let write = map(ProtFlags::READ | ProtFlags::WRITE)?;
        let execute = map(ProtFlags::READ | ProtFlags::EXEC)?;
        Ok(Self { write, execute })
    }

    /// The same of no file: perf looks into its maps only for such memory.
    pub(crate) fn anonymous(len: usize) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::EXEC;
        // SAFETY: the kernel chooses the place.
        let at = unsafe { mmap_anonymous(null_mut(), len, protection, MapFlags::SHARED) }?;
        let execute = Mapping::new(at, len)?;
        // SAFETY: an old length of 0 makes a second mapping of shared memory and leaves the first;
        // see mremap(2).
        let at = unsafe { mremap(at, 0, len, MremapFlags::MAYMOVE) }?;
        let write = Mapping::new(at, len)?;
        let protection = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: nobody has its address yet.
        unsafe { mprotect(at, len, protection) }?;
        Ok(Self { write, execute })
    }

    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.write.len
    }

    /// The address of the first byte, to be executed.
    pub(crate) fn execute(&self) -> u64 {
        self.execute.address()
    }

    /// The bytes, to be written.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let Mapping { address, len } = self.write;
        // SAFETY: the mapping has so many bytes, which others only execute: translated code, while
        // nobody has this slice.
        unsafe { std::slice::from_raw_parts_mut(address.as_ptr().cast(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RET, preceded by MOV EAX, 1234h.
    const CODE: &[u8] = &[0xb8, 0x34, 0x12, 0, 0, 0xc3];

    #[test]
    fn what_is_written_is_executed() {
        for mut memory in [Twice::of_file(8192).unwrap(), Twice::anonymous(8192).unwrap()] {
            memory.bytes()[4096..4096 + CODE.len()].copy_from_slice(CODE);
            assert_eq!(memory.len(), 8192);
            // SAFETY: the code is a function of this kind.
            let run: extern "C" fn() -> u32 =
                unsafe { std::mem::transmute(memory.execute() as usize + 4096) };
            assert_eq!(run(), 0x1234);
        }
    }

    #[test]
    fn no_mapping_is_to_be_written_and_executed() {
        let memories = [Twice::of_file(8192).unwrap(), Twice::anonymous(8192).unwrap()];
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        for memory in &memories {
            let rights = |mapping: &Mapping| {
                let start = format!("{:x}-", mapping.address());
                let line = maps.lines().find(|line| line.starts_with(&start)).unwrap();
                line.split(' ').nth(1).unwrap().to_owned()
            };
            assert_eq!(
                (rights(&memory.write), rights(&memory.execute)),
                ("rw-s".into(), "r-xs".into())
            );
        }
    }
}
