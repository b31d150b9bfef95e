//! Every x87 instruction that is copied, against the interpreter: alone, and in runs.

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, Instruction};
use trivium_interp::decode::offered;

use crate::testing::{CODE, TestMachine, model};
use crate::testing_random::{Case, Rng, SPACE, compare};
use crate::x87::{Notes, is_copied};

/// RSI and ESI.
const BASE: u8 = 6;
/// Runs of instructions, and instructions in one.
const SEQUENCES: usize = 400;
const LENGTH: u64 = 8;

fn decode(bytes: &[u8], long: bool) -> Option<Instruction> {
    let model = model();
    let options = offered::options(model.vendor, model.features);
    let i = Decoder::with_ip(if long { 64 } else { 32 }, bytes, CODE, options).decode();
    (!i.is_invalid() && is_copied(&i, &Notes::new(&model))).then_some(i)
}

/// All encodings: with memory at [RSI + 16], and with registers.
fn encodings(long: bool) -> Vec<(Code, Vec<u8>)> {
    let memory = (0..64).map(|n| vec![0xd8 | n >> 3, 0x40 | (n & 7) << 3 | BASE, 16]);
    let registers = (0..512_u16).map(|n| vec![0xd8 | (n >> 6) as u8, 0xc0 | n as u8]);
    let all = memory.chain(registers).chain([vec![0x9b]]);
    all.filter_map(|bytes| Some((decode(&bytes, long)?.code(), bytes))).collect()
}

fn case(name: String, bytes: Vec<u8>, long: bool) -> Case {
    Case { name, bytes, base: Some(BASE.into()), long }
}

fn compare_all(long: bool) {
    let mut rng = Rng(0x2545_f491_4f6c_dd1d);
    let mut machines = [TestMachine::interpreter(), TestMachine::jit()];
    let mut at = CODE;
    let encodings = encodings(long);
    let codes: BTreeSet<_> = encodings.iter().map(|(code, _)| *code as usize).collect();
    assert!(codes.len() > 110, "{}", codes.len());
    for (code, bytes) in &encodings {
        compare(&case(format!("{code:?}"), bytes.clone(), long), at, &mut machines, &mut rng);
        at += SPACE;
    }
    for n in 0..SEQUENCES {
        let bytes = (0..LENGTH).flat_map(|_| {
            let (_, bytes) = &encodings[rng.below(encodings.len() as u64) as usize];
            bytes.clone()
        });
        let bytes = bytes.collect();
        compare(&case(format!("run {n}"), bytes, long), at, &mut machines, &mut rng);
        at += SPACE;
    }
}

#[test]
fn all_that_is_copied_does_what_the_interpreter_does_in_64_bit_code() {
    compare_all(true);
}

#[test]
fn all_that_is_copied_does_what_the_interpreter_does_in_32_bit_code() {
    compare_all(false);
}
