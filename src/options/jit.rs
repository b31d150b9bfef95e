//! Options of the JIT.

use std::path::PathBuf;

use clap::Args;
use trivium_machine::{JIT_MEMORY as MEMORY, JitHost};

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
    /// Memory of the host's for translated code, 1M to 1G. When it is full, what was translated first is
    /// given up.
    #[arg(long, default_value = "32M", value_parser = parse_size, value_name = "SIZE")]
    pub jit_memory: usize,
    /// Let translated code do without some of what the host's processor has, as on one that lacks it:
    /// no-bmi2,no-avx2. What else there is, it says if it is given another name.
    #[arg(long, value_name = "no-FEATURE,...")]
    pub jit_host: Option<JitHost>,
}

fn parse_size(text: &str) -> Result<usize, String> {
    let size = parse_size::Config::new().with_binary().parse_size(text);
    let size = size.map_err(|error| format!("{error}; use a size such as 32M"))?;
    match usize::try_from(size) {
        Ok(size) if MEMORY.contains(&size) => Ok(size),
        _ => Err("use a size from 1M to 1G".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_code_memory_has_limits() {
        assert_eq!(parse_size("1M"), Ok(1 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("32M"), Ok(trivium_machine::DEFAULT_JIT_MEMORY));
        for text in ["0", "1023K", "1025M", "-1", "much", "", "99999999999G"] {
            assert!(parse_size(text).is_err_and(|error| error.contains("use a size")), "{text}");
        }
    }
}
