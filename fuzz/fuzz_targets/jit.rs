//! Any code, and any changes to it and to its page tables, on the JIT and on the interpreter: both
//! must do the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match bytes.split_first() {
    // Loops, which superblocks are made of.
    Some((0x80.., rest)) => trivium_crosscheck::hot::check_loops(rest),
    _ => trivium_crosscheck::hot::check(bytes),
});
