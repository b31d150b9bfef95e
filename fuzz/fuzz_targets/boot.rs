//! Any bytes as a kernel and the files that are read with one.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trivium_machine::testing::hostile::boot(bytes));
