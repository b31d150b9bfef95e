//! What is counted and listed of code that is known.

use std::sync::Arc;

use super::{Report, Statistics};
use crate::JitOptions;
use crate::testing::{CODE, DATA, TestMachine, state};

/// A loop of 1000: adds, loads, and has one instruction that is never translated; then HLT.
const LOOP: &[u8] = &[
    0xbf, 0x00, 0xa0, 0x00, 0x00, // mov edi, DATA
    0xbe, 0xe8, 0x03, 0x00, 0x00, // mov esi, 1000
    // 10:
    0x01, 0xf3, // add ebx, esi
    0x03, 0x1f, // add ebx, [rdi]
    0x0f, 0x01, 0xe0, // smsw eax
    0xff, 0xc9, // dec ecx
    0x89, 0xda, // mov edx, ebx
    0x89, 0xd5, // mov ebp, edx
    0x31, 0xed, // xor ebp, ebp
    0xff, 0xce, // dec esi
    0x75, 0xed, // jnz 10
    0xf4, // hlt
];
const ROUNDS: u64 = 1000;
/// Instructions: two before, nine in each round, HLT.
const ALL: u64 = 2 + 9 * ROUNDS + 1;

fn run(options: &JitOptions) -> TestMachine {
    let mut machine = TestMachine::jit_with(options);
    assert_eq!(DATA, 0xa000);
    machine.put(CODE, LOOP);
    let mut start = state(true);
    start.general.rip = CODE;
    machine.run(&start);
    machine
}

fn report() -> Report {
    let statistics = Arc::<Statistics>::default();
    let options = JitOptions { statistics: Some(statistics.clone()), ..JitOptions::default() };
    run(&options);
    statistics.report()
}

#[test]
fn every_instruction_is_counted_as_translated_or_as_interpreted() {
    let report = report();
    assert_eq!(report.instructions.all, ALL);
    let smsw = report.interpreted.iter().find(|i| i.mnemonic == "smsw");
    let smsw = smsw.expect("it is not translated");
    assert_eq!(smsw.why.as_str(), "system");
    // Where the quantum ends within a block, the interpreter begins it.
    assert!((ROUNDS - 10..=ROUNDS).contains(&smsw.executed), "{}", smsw.executed);
    // Nothing else is the interpreter's, but for a few on the way.
    let interpreted = report.instructions.interpreted;
    assert!((ROUNDS..ROUNDS + 50).contains(&interpreted), "{interpreted}");
    assert_eq!(report.instructions.translated + interpreted, ALL);
}

#[test]
fn what_code_became_is_measured() {
    let report = report();
    let translated = &report.translated;
    assert!(translated.blocks >= 2, "{}", translated.blocks);
    assert!(translated.hot_bytes > translated.guest_bytes);
    assert!(translated.nanoseconds > 0);
    assert_eq!(report.dropped.all, 0);
    assert_eq!(report.memory.tlb_misses, 1);
    let text = report.to_string();
    assert!(text.contains("smsw         system"), "{text}");
}

#[test]
fn time_is_found_where_it_is_spent() {
    let report = report();
    let top = report.top_blocks.first().expect("there were some samples");
    assert_eq!(top.rip, format!("{:x}", CODE + 10));
    assert_eq!((top.bits, top.user, top.instructions), (64, false, 9));
    assert!(top.percent > 99.0);
}

#[test]
fn listings_say_what_became_of_each_instruction() {
    let folder = std::env::temp_dir().join(format!("trivium-listing-{}", std::process::id()));
    run(&JitOptions { dump: Some(folder.clone()), ..JitOptions::default() });
    let text = std::fs::read_to_string(folder.join("0000000000100000.txt")).unwrap_or_default();
    std::fs::remove_dir_all(&folder).expect("it was made");
    let line = |of: &str| text.lines().find(|line| line.contains(of)).unwrap_or_default();
    assert!(line("10000a  add ebx, esi").contains("copied"), "{text}");
    assert!(line("10000c  add ebx, [rdi]").contains("of glue"), "{text}");
    assert!(line("10000e  smsw eax").contains("interpreter: system"), "{text}");
    assert!(text.contains("100000: 64-bit kernel code at 100000 in memory"), "{text}");
}

#[test]
fn perf_finds_the_guests_addresses() {
    run(&JitOptions { perf_map: true, ..JitOptions::default() });
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let text = std::fs::read_to_string(&path).expect("it was written");
    std::fs::remove_file(&path).expect("it is there");
    let line = text.lines().find(|line| line.ends_with(" guest-kernel:10000a")).unwrap_or_default();
    let mut words = line.split(' ').map(|word| u64::from_str_radix(word, 16));
    assert!(words.next().is_some_and(|at| at.is_ok_and(|at| at > 0x1000)), "{text}");
    assert!(words.next().is_some_and(|len| len.is_ok_and(|len| len > 9)), "{text}");
}
