//! Any text as a file for `--repro` and as a campaign's log.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trivium_crosscheck::campaign::{Plan, read_log};
use trivium_crosscheck::repro::Repro;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Repro::parse(text);
    }
    let plan = Plan { seed: 1, cases: 1000, shard: (1, 1) };
    let _ = read_log(bytes, &plan, "");
});
