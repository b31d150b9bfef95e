//! The JIT as the command line knows it: its options, and what `--jit-stats` shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use trivium_machine::{JitOptions, Statistics};

use crate::options;

/// Where statistics go to standard error.
const STANDARD: &str = "-";

/// The statistics that a run is to show.
#[derive(Debug, Clone)]
pub struct Shown {
    statistics: Arc<Statistics>,
    path: PathBuf,
}

/// The choices of a run, and what it is to show of them.
#[must_use]
pub fn choices(options: &options::JitOptions) -> (JitOptions, Option<Shown>) {
    let shown = options.jit_stats.as_ref().map(|path| {
        let statistics = Arc::<Statistics>::default();
        Shown { statistics, path: path.clone() }
    });
    let choices = JitOptions {
        statistics: shown.as_ref().map(|shown| shown.statistics.clone()),
        dump: options.jit_dump.clone(),
        perf_map: options.jit_perf_map,
        memory: options.jit_memory,
        host: options.jit_host.unwrap_or_default(),
        ..JitOptions::default()
    };
    (choices, shown)
}

impl Shown {
    /// All there is, as text.
    #[must_use]
    pub fn text(&self) -> String {
        self.statistics.report().to_string()
    }

    /// Shows it where that is wanted.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn show(&self) -> anyhow::Result<()> {
        if self.path == Path::new(STANDARD) {
            eprint!("{}", self.text());
            return Ok(());
        }
        let is_data = self.path.extension().is_some_and(|extension| extension == "json");
        let text = match is_data {
            true => serde_json::to_string_pretty(&self.statistics.report())? + "\n",
            false => self.text(),
        };
        let failed = || format!("--jit-stats {}: cannot be written", self.path.display());
        std::fs::write(&self.path, text).with_context(failed)
    }
}
