//! A file that runs one divergence again, alone.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::case::{Case, CaseId};
use crate::layout::{self, LDT_ENTRIES};
use crate::minimise::Minimised;
use crate::outcome::Outcome;

/// The version that this program writes, and the only one it reads.
const VERSION: u32 = 1;

/// A divergence as it was found: what to run, and what the engines made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repro {
    /// Version of the format.
    pub version: u32,
    /// What it is about, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The engines' names.
    pub engines: [String; 2],
    /// The case that it was found by, before it was made small.
    pub found_by: CaseId,
    /// The case.
    pub case: Case,
    /// What each engine made of it, if it was found and not written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<[Outcome; 2]>,
}

/// Why a file is not a reproducer.
#[derive(Debug, Error)]
pub enum ReproError {
    /// It is not JSON of this form.
    #[error("it is not a reproducer: {0}")]
    Format(#[from] serde_json::Error),
    /// It is one of another version.
    #[error("it is a reproducer of version {0}, this program reads version {VERSION}")]
    Version(u32),
    /// Its case cannot be.
    #[error("its case is not one: {0}")]
    Case(&'static str),
}

impl Repro {
    /// A divergence that was made small.
    #[must_use]
    pub fn new(engines: [&str; 2], found_by: CaseId, small: Minimised) -> Self {
        let engines = engines.map(str::to_owned);
        let outcomes = Some(small.round.outcomes);
        let note = String::new();
        Self { version: VERSION, note, engines, found_by, case: small.case, outcomes }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// It is not a reproducer.
    pub fn parse(text: &str) -> Result<Self, ReproError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(text)?;
        if version != VERSION {
            return Err(ReproError::Version(version));
        }
        let repro: Self = serde_json::from_str(text)?;
        check(&repro.case).map_err(ReproError::Case)?;
        Ok(repro)
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never in practice: all of it can be written as JSON.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

/// Whether engines can take a case: its bytes lie in regions, its state is one of user code.
fn check(case: &Case) -> Result<(), &'static str> {
    let inside = |address: u64, len: usize| {
        len == 0
            || layout::region_of(address)
                .is_some_and(|r| address.checked_add(len as u64).is_some_and(|end| end <= r.end()))
    };
    let code = layout::region_of(case.code_at).is_some_and(|r| r.execute);
    let need = [
        (
            code && inside(case.code_at, case.code.len()),
            "its code lies outside of the code regions",
        ),
        (case.patches().all(|(a, b)| inside(a, b.len())), "its memory lies outside of the regions"),
        (case.ldt.len() <= LDT_ENTRIES, "its local descriptor table has more than 16 entries"),
        (case.state.rflags & !0x25_4dd5 == 0x202, "its RFLAGS are not those of user code"),
        (case.state.mxcsr & !0x2_ffff == 0, "its MXCSR has bits that do not exist"),
        (case.state.selectors[1] & 3 == 3, "its CS is not of privilege level 3"),
        (case.limit <= 1_000_000, "its limit is above 1,000,000 instructions"),
    ];
    need.iter().find(|(good, _)| !good).map_or(Ok(()), |(_, what)| Err(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Kind, Patch, Width};
    use crate::layout::{CODE, DATA};
    use crate::state::UserState;

    fn repro() -> Repro {
        let mut case = Case {
            id: CaseId { seed: 1, index: 2 },
            kind: Kind::Manual,
            width: Width::Bits64,
            code_at: CODE.start,
            code: vec![0x90],
            state: UserState::default(),
            memory: vec![Patch { address: DATA.start, bytes: vec![1, 2, 3] }],
            ldt: Vec::new(),
            limit: 10,
        };
        case.state.zmm[0] = [1, 0, 3, 0, 0, 0, 0, 0];
        case.state.zmm[31] = [u64::MAX; 8];
        let engines = ["interp".to_owned(), "host".to_owned()];
        let found_by = case.id;
        Repro { version: VERSION, note: String::new(), engines, found_by, case, outcomes: None }
    }

    #[test]
    fn a_file_is_read_back() {
        let text = repro().to_text().unwrap();
        assert_eq!(Repro::parse(&text).unwrap(), repro());
    }

    #[test]
    fn what_engines_cannot_take_is_refused() {
        let refused = |change: fn(&mut Repro)| {
            let mut bad = repro();
            change(&mut bad);
            Repro::parse(&bad.to_text().unwrap()).unwrap_err().to_string()
        };
        assert!(refused(|r| r.version = 9).contains("version 9"));
        assert!(refused(|r| r.case.code_at = DATA.start).contains("code lies outside"));
        assert!(refused(|r| r.case.memory[0].address = 0).contains("memory lies outside"));
        assert!(refused(|r| r.case.memory[0].address = !0).contains("memory lies outside"));
        assert!(refused(|r| r.case.state.rflags |= 0x3000).contains("RFLAGS"));
        assert!(refused(|r| r.case.ldt = vec![None; 17]).contains("16 entries"));
        assert!(Repro::parse("[]").is_err() && Repro::parse("").is_err());
    }
}
