//! What may be chosen of the JIT.

use std::path::PathBuf;
use std::sync::Arc;

use crate::observe::Statistics;

/// The choices.
#[derive(Debug, Clone, Default)]
pub struct JitOptions {
    /// Counts what is translated, and what is not.
    pub statistics: Option<Arc<Statistics>>,
    /// Writes what is translated, and what it has become, to files in this folder.
    pub dump: Option<PathBuf>,
    /// Tells perf where translated code is: `/tmp/perf-PID.map`.
    pub perf_map: bool,
}
