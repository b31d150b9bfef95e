//! Any code, and any changes to it and to its page tables, on the JIT and on the interpreter: both
//! must do the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trivium_crosscheck::hot::check(bytes));
