//! `trivium explain --block`: finds a block's code, and shows what becomes of it.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use object::{Object, ObjectSegment};
use trivium_machine::{Code, explain};

use crate::options::{Address, BlockOptions};

/// The address of bytes that come without one.
const USUAL: u64 = 0x1000;
/// Where firmware ends, and where its last part does again.
const HIGH_END: u64 = 1 << 32;
const LOW_END: u64 = 1 << 20;
/// The size of that part, at most.
const LOW_SIZE: u64 = 128 << 10;

/// Shows the block.
///
/// # Errors
/// There is no code, or the host does not let it be translated.
pub fn show(options: &BlockOptions, files: &[impl AsRef<Path>]) -> Result<u8> {
    let rip = options.block.map_or(USUAL, |Address(address)| address);
    let (bytes, own) = match (&options.bytes, files) {
        (Some(bytes), _) => (bytes.0.clone(), None),
        (None, [file]) => code(file.as_ref(), rip, options.base)?,
        (None, _) => bail!("--block: name one file that has the code, or use --bytes"),
    };
    let given = options.bits.as_deref().and_then(|bits| bits.parse().ok());
    let bits = given.or(own).unwrap_or(64);
    let code = Code { bytes: &bytes, rip, bits, user: options.user };
    let text = explain(&code, &options.cpu).map_err(|error| anyhow!("--block {rip:x}: {error}"))?;
    // A reader that has seen enough is no mistake.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// The bytes of a file from an address on, and the width of its code if it says so.
fn code(file: &Path, rip: u64, base: Option<Address>) -> Result<(Vec<u8>, Option<u32>)> {
    let name = file.display();
    let bytes = std::fs::read(file).with_context(|| format!("{name}: cannot be read"))?;
    if let (None, Ok(elf)) = (base, object::File::parse(&*bytes)) {
        let bits = if elf.is_64() { 64 } else { 32 };
        let held = elf.segments().find_map(|segment| {
            let at = rip.checked_sub(segment.address())?;
            segment.data().ok()?.get(usize::try_from(at).ok()?..).filter(|rest| !rest.is_empty())
        });
        let held = held.ok_or_else(|| anyhow!("{name}: has nothing at {rip:x}; see objdump -h"))?;
        return Ok((held.to_vec(), Some(bits)));
    }
    let at = place(bytes.len() as u64, rip, base).and_then(|at| bytes.get(at as usize..));
    let Some(rest) = at.filter(|rest| !rest.is_empty()) else {
        bail!("{name}: has nothing at {rip:x}; use --base to say where its first byte is");
    };
    Ok((rest.to_vec(), None))
}

/// How far into a file of so many bytes an address is.
fn place(len: u64, rip: u64, base: Option<Address>) -> Option<u64> {
    if let Some(Address(base)) = base {
        return rip.checked_sub(base);
    }
    let before = |end: u64, size: u64| {
        (end - size.min(end)..end).contains(&rip).then(|| len - (end - rip).min(len))
    };
    before(HIGH_END, len).or_else(|| before(LOW_END, len.min(LOW_SIZE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_ends_at_4_gib_and_below_1_mib() {
        let len = 256 << 10;
        assert_eq!(place(len, 0xffff_fff0, None), Some(len - 16));
        assert_eq!(place(len, 0xffff0, None), Some(len - 16));
        assert_eq!(place(len, 0xe0000, None), Some(len / 2));
        assert_eq!(place(len, 0xd0000, None), None);
        assert_eq!(place(len, 0x7c10, Some(Address(0x7c00))), Some(16));
        assert_eq!(place(len, 0x7b00, Some(Address(0x7c00))), None);
    }
}
