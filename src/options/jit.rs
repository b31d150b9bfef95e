//! Options of the JIT.

use std::path::PathBuf;

use clap::Args;

/// What `run` takes for the JIT. With other CPUs these do nothing.
#[derive(Debug, Args)]
pub struct JitOptions {
    /// At the end, and by Ctrl-A s, say what the JIT has done: what was translated at what cost,
    /// why translated code was left, which instructions the interpreter did, where the guest spent
    /// its time. To standard error, or to a file: as JSON if its name ends in .json.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
          default_missing_value = "-")]
    pub jit_stats: Option<PathBuf>,
    /// Write the guest's code and the host's side by side to a folder, with what became of each
    /// instruction: a file for each page, which grows. A boot of Linux makes some hundred MiB.
    #[arg(long, value_name = "DIR")]
    pub jit_dump: Option<PathBuf>,
    /// Tell perf where translated code is, in /tmp/perf-PID.map: `perf report` then shows blocks by
    /// the guest's addresses.
    #[arg(long)]
    pub jit_perf_map: bool,
}
