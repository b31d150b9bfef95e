//! Code memory that is too small for what is run: it is filled again and again.

use std::sync::Arc;

use crate::testing::{CODE, TestMachine, state};
use crate::{JitOptions, Statistics};

/// Bytes of code memory: each of its regions holds some dozen blocks.
const SIZE: usize = 64 << 10;
const BLOCKS: i32 = 300;
const ROUNDS: u8 = 6;

/// Blocks that add, and go on to the next in either of two ways; all of them some times.
fn program() -> Vec<u8> {
    // mov ecx, ROUNDS
    let mut code = vec![0xb9, ROUNDS, 0, 0, 0];
    let start = code.len() as i32;
    for n in 0..BLOCKS {
        code.push(0x05); // add eax, number
        code.extend((n * 0x1234_5678_i64 as i32 | 1).to_le_bytes());
        code.extend([0xa8, 0x04, 0x75, 0x00]); // test al, 4; jnz next
    }
    code.extend([0xff, 0xc9, 0x0f, 0x85]); // dec ecx; jnz start
    let end = code.len() as i32 + 4;
    code.extend((start - end).to_le_bytes());
    code.push(0xf4); // hlt
    code
}

#[test]
fn blocks_that_were_given_up_are_translated_again() {
    let statistics = Arc::<Statistics>::default();
    let options =
        JitOptions { statistics: Some(statistics.clone()), memory: SIZE, ..JitOptions::default() };
    let mut machines = [TestMachine::interpreter(), TestMachine::jit_with(&options)];
    for long in [true, false] {
        let mut start = state(long);
        start.general.rip = CODE;
        let ends = machines.each_mut().map(|machine| {
            machine.put(CODE, &program());
            machine.run(&start)
        });
        assert_eq!(ends[0].general, ends[1].general);
    }
    let report = statistics.report();
    assert!(report.dropped.regions > 20, "{}", report.dropped.regions);
    assert!(report.dropped.evicted > 1000, "{}", report.dropped.evicted);
    assert_eq!(report.dropped.all, 0);
    assert!(report.translated.again > 1000, "{}", report.translated.again);
}
