//! What may be chosen of the JIT.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::host::Host;
use crate::observe::Statistics;

/// The choices.
#[derive(Debug, Clone)]
pub struct JitOptions {
    /// Counts what is translated, and what is not.
    pub statistics: Option<Arc<Statistics>>,
    /// Writes what is translated, and what it has become, to files in this folder.
    pub dump: Option<PathBuf>,
    /// Tells perf where translated code is: `/tmp/perf-PID.map`.
    pub perf_map: bool,
    /// Counts the superblocks that are made.
    pub superblocks: Option<Arc<AtomicU64>>,
    /// Bytes of memory for translated code, within [`MEMORY`].
    pub memory: usize,
    /// What of the host's processor may be used.
    pub host: Host,
}

/// What may be chosen for the size of the memory for translated code, in bytes: a megabyte holds some
/// thousand blocks, and beyond a gibibyte jumps would not reach from one end to the other.
pub const MEMORY: RangeInclusive<usize> = 1 << 20..=1 << 30;

/// What it is unless chosen.
pub const DEFAULT_MEMORY: usize = 32 << 20;

impl Default for JitOptions {
    fn default() -> Self {
        let (statistics, dump, superblocks) = Default::default();
        let (memory, host) = (DEFAULT_MEMORY, Host::default());
        Self { statistics, dump, perf_map: false, superblocks, memory, host }
    }
}
