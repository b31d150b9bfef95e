//! Makes a divergence small: the one instruction where one is enough, and the state that matters.

mod reduce;
mod walk;

use crate::allow::first_instruction;
use crate::case::Case;
use crate::duel::{Duel, Round, Verdict};
use crate::engine::EngineError;

/// A divergence, made small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minimised {
    /// The case that shows it.
    pub case: Case,
    /// What the engines make of it.
    pub round: Round,
    /// Whether one instruction is enough.
    pub single: bool,
}

/// Makes a divergence small. `None` if each instruction of the case differs only in what it may:
/// then the case as a whole differs because of that.
///
/// # Errors
/// An engine cannot go on.
pub fn minimise(duel: &mut Duel, case: &Case) -> Result<Option<Minimised>, EngineError> {
    let found = match walk::first_divergent(duel, case)? {
        walk::Walk::Instruction(one) => Some((*one, true)),
        walk::Walk::Undefined => None,
        walk::Walk::Whole => Some((case.clone(), false)),
    };
    let Some((start, single)) = found else { return Ok(None) };
    let case = reduce::reduce(duel, start, single)?;
    // What comes of fetching the next instruction needs more than the step over one.
    let single = single || first_instruction(&case).len() == case.code.len();
    Ok(match duel.run_one(&case)? {
        Verdict::Run(round) => Some(Minimised { case, round: *round, single }),
        Verdict::Refused(_) => None,
    })
}
