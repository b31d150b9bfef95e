//! Any bytes as code, in every mode, on the interpreter.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trivium_crosscheck::anything::interpreter(bytes));
