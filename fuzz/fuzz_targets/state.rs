//! Any bytes as a saved state, and as changes to one.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trivium_machine::testing::hostile::state(bytes));
