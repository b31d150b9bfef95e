//! CMPXCHG8B and CMPXCHG16B, whose registers are not among their operands, against the interpreter:
//! where memory is what is expected, and where it is not.

use crate::testing::{CODE, TestMachine};
use crate::testing_random::{Case, Rng, SPACE, compare};

/// RSI, by which memory is reached.
const BASE: usize = 6;
/// MOV EAX, [rSI]; MOV EDX, [rSI + 4].
const EXPECT_8: &[u8] = &[0x8b, 0x06, 0x8b, 0x56, 0x04];
/// MOV RAX, [RSI]; MOV RDX, [RSI + 8].
const EXPECT_16: &[u8] = &[0x48, 0x8b, 0x06, 0x48, 0x8b, 0x56, 0x08];
/// CMPXCHG8B [rSI] and CMPXCHG16B [RSI].
const EXCHANGE_8: &[u8] = &[0x0f, 0xc7, 0x0e];
const EXCHANGE_16: &[u8] = &[0x48, 0x0f, 0xc7, 0x0e];
const LOCK: &[u8] = &[0xf0];

fn compare_all(long: bool, kinds: &[(&[u8], &[u8])]) {
    let mut rng = Rng(0x0123_4567_89ab_cdef);
    let mut machines = [TestMachine::interpreter(), TestMachine::jit()];
    let mut at = CODE;
    for &(expect, exchange) in kinds {
        for before in [expect, &[]] {
            for prefix in [LOCK, &[]] {
                let bytes = [before, prefix, exchange].concat();
                let case = Case { name: format!("{bytes:x?}"), bytes, base: Some(BASE), long };
                compare(&case, at, &mut machines, &mut rng);
                at += SPACE;
            }
        }
    }
}

#[test]
fn an_exchange_takes_place_only_if_memory_is_what_is_expected() {
    compare_all(true, &[(EXPECT_8, EXCHANGE_8), (EXPECT_16, EXCHANGE_16)]);
    compare_all(false, &[(EXPECT_8, EXCHANGE_8)]);
}
