//! The child's executable file: an ELF header, two program headers, and the code, in one page.

use super::arena::CODE_AT;
use crate::layout::PAGE;

/// Where the code is in the file, and in the page.
pub(super) const CODE_OFFSET: u64 = 0x100;

/// The file.
///
/// # Panics
/// Never: the code is shorter than a page.
pub(super) fn executable(code: &[u8]) -> Vec<u8> {
    assert!(code.len() <= (PAGE - CODE_OFFSET) as usize);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let halves = |file: &mut Vec<u8>, values: &[u16]| {
        file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    };
    // ET_EXEC, EM_X86_64, EV_CURRENT; entry, program headers, section headers; flags.
    halves(&mut file, &[2, 62, 1, 0]);
    words(&mut file, &[CODE_AT + CODE_OFFSET, 64, 0]);
    halves(&mut file, &[0, 0, 64, 56, 2, 0, 0, 0]);
    // PT_LOAD, read and execute; offset, address, physical address, sizes, alignment.
    words(&mut file, &[1 | 5 << 32, 0, CODE_AT, CODE_AT, PAGE, PAGE, PAGE]);
    // PT_GNU_STACK, read and write.
    words(&mut file, &[0x6474_e551 | 6 << 32, 0, 0, 0, 0, 0, 16]);
    file.resize(CODE_OFFSET as usize, 0);
    file.extend(code);
    // What is not code is UD2.
    while file.len() < PAGE as usize {
        file.extend([0x0f, 0x0b]);
    }
    file.truncate(PAGE as usize);
    file
}

fn words(file: &mut Vec<u8>, values: &[u64]) {
    file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
}
