//! Any bytes as what a guest does to a whole board.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| trivium_machine::testing::hostile::board(bytes));
