//! Where log messages go: standard error, at the level of -v or RUST_LOG.

/// Starts logging.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
}
