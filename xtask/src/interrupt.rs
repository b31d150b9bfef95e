//! Ctrl-C and SIGTERM as a flag, so that temporary folders are removed on the way out.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Replaces the default action of SIGINT and SIGTERM, which would leave temporary files behind.
pub fn install() -> Result<()> {
    let flag = REQUESTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag))
            .context("Cannot install a signal handler")?;
    }
    Ok(())
}

/// Whether the user asked to stop.
pub fn requested() -> bool {
    REQUESTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// An error once the user asked to stop.
pub fn check() -> Result<()> {
    if requested() {
        bail!("Interrupted");
    }
    Ok(())
}
