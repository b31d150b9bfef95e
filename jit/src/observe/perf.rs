//! A map for perf: where translated code is, by the guest's addresses. `perf report` reads it from
//! `/tmp/perf-PID.map`; each line has an address, a length and a name. Linux,
//! tools/perf/Documentation/jit-interface.txt.

use std::fs::File;
use std::io::{LineWriter, Write};

use trivium_interp::block::Block;
use trivium_interp::cpu::Mode;

/// The map, which grows.
pub(super) struct PerfMap {
    out: LineWriter<File>,
}

impl PerfMap {
    /// An empty map for this process.
    pub(super) fn new() -> std::io::Result<Self> {
        let file = File::create(format!("/tmp/perf-{}.map", std::process::id()))?;
        Ok(Self { out: LineWriter::new(file) })
    }

    /// Code has a name. What cannot be written is not there: perf then shows addresses.
    pub(super) fn name(&mut self, at: u64, len: usize, name: &str) {
        let _ = writeln!(self.out, "{at:x} {len:x} {name}");
    }

    /// A block's two parts have names.
    pub(super) fn block(
        &mut self,
        block: &Block,
        what: &str,
        hot: (u64, usize),
        cold: (u64, usize),
    ) {
        let who = if block.mode.has(Mode::USER) { "user" } else { "kernel" };
        let name = format!("guest-{who}:{:x}{what}", block.rip);
        self.name(hot.0, hot.1, &name);
        self.name(cold.0, cold.1, &format!("{name} (seldom run)"));
    }
}
