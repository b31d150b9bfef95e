//! What runs cases.

use thiserror::Error;

use crate::case::Case;
use crate::outcome::Outcome;

/// Why an engine cannot go on, or cannot begin. A case that kills it is no error: its outcome is
/// [`Stop::Lost`](crate::Stop::Lost).
#[derive(Debug, Error)]
pub enum EngineError {
    /// This host cannot run the engine.
    #[error("Engine '{engine}' cannot run here: {reason}")]
    Unavailable {
        /// Which.
        engine: &'static str,
        /// Why not.
        reason: String,
    },
    /// A call of the host's failed.
    #[error("Engine '{engine}' failed: {source}")]
    Host {
        /// Which.
        engine: &'static str,
        /// How.
        source: std::io::Error,
    },
}

/// Something that runs cases.
pub trait Engine: Send {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Why it cannot run this case, in a few words; `None` if it can.
    fn refuses(&self, case: &Case) -> Option<&'static str>;

    /// Whether cases can have a local descriptor table, with 16-bit segments too.
    fn has_ldt(&self) -> bool {
        true
    }

    /// Whether it runs single steps by other means than all else, so that they say little about it.
    fn steps_otherwise(&self) -> bool {
        false
    }

    /// Whether it has the state of AVX-512.
    fn has_avx512(&self) -> bool;

    /// How many cases since the last call it has translated as code that runs hot: by superblocks.
    fn take_hot(&mut self) -> u64 {
        0
    }

    /// Runs cases, each from the start. Gives one outcome for each, in their order.
    ///
    /// # Errors
    /// The engine cannot go on.
    fn run(&mut self, cases: &[Case]) -> Result<Vec<Outcome>, EngineError>;
}
