//! Traces: what the guest does with devices and interrupts, line by line.

use std::fmt::Arguments;
use std::io::Write;
use std::sync::Mutex;

use crate::config::{TraceCategories, TraceConfig};
use crate::control::lock;

/// A machine's trace, perhaps of nothing.
#[derive(Default)]
pub(crate) struct Trace {
    categories: TraceCategories,
    sink: Option<Mutex<Box<dyn Write + Send>>>,
}

impl Trace {
    pub(crate) fn new(config: Option<TraceConfig>) -> Self {
        config.map_or_else(Self::default, |TraceConfig { categories, sink }| Self {
            categories,
            sink: Some(Mutex::new(sink)),
        })
    }

    /// Whether a category is wanted: to be asked before the line is made.
    #[inline]
    pub(crate) fn wants(&self, category: TraceCategories) -> bool {
        self.categories.intersects(category)
    }

    /// Writes a line. A sink that fails loses it: the guest must not notice.
    #[cold]
    pub(crate) fn line(&self, text: Arguments<'_>) {
        if let Some(sink) = &self.sink {
            let _ = writeln!(lock(sink), "{text}");
        }
    }

    /// Writes out what the sink still holds.
    pub(crate) fn flush(&self) {
        if let Some(sink) = &self.sink {
            let _ = lock(sink).flush();
        }
    }
}
