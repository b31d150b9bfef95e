//! The native engine where there is none: its cases are x86 code, entered by Linux's means.

use trivium_cpu::model::{FeatureSet, Vendor};

use crate::case::Case;
use crate::engine::{Engine, EngineError};
use crate::outcome::Outcome;

/// Runs cases on this processor: not here.
pub enum HostEngine {}

impl HostEngine {
    /// Never makes one.
    ///
    /// # Errors
    /// Always: this host cannot run the engine.
    pub fn new() -> Result<Self, EngineError> {
        let reason = "it needs Linux on an x86-64 processor".to_owned();
        Err(EngineError::Unavailable { engine: "host", reason })
    }

    /// The process that cases run in.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        match *self {}
    }
}

impl Engine for HostEngine {
    fn name(&self) -> &'static str {
        match *self {}
    }

    fn refuses(&self, _: &Case) -> Option<&'static str> {
        match *self {}
    }

    fn has_avx512(&self) -> bool {
        match *self {}
    }

    fn run(&mut self, _: &[Case]) -> Result<Vec<Outcome>, EngineError> {
        match *self {}
    }
}

/// The features of this processor: none of x86's.
#[must_use]
pub fn host_features() -> FeatureSet {
    FeatureSet::EMPTY
}

/// Who made this processor, among those who make x86's.
#[must_use]
pub fn host_vendor() -> Vendor {
    Vendor::Intel
}
