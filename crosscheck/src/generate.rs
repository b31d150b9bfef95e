//! Makes cases: every one comes from a seed and an index alone.
//!
//! Cases of one instruction go through iced's table of all encodings again and again, so that the
//! beginning of any campaign covers all of them: with any operands and state, memory wherever it
//! can lie, and prefixes where they do not belong. The others are random bytes, sequences, code
//! that modifies itself, and repeated string instructions that run into a fault.

mod address;
mod bytes;
mod draft;
mod encoding;
pub(crate) mod exclusions;
mod form;
mod modifying;
mod names;
mod noise;
mod operands;
mod parts;
pub(crate) mod random;
mod repeat;
mod rounds;
mod segments;
mod sequence;
mod settle;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod values;

use iced_x86::Code;
use thiserror::Error;
use trivium_cpu::model::{Feature, FeatureSet};

use crate::case::{Case, CaseId, Kind, Width};
use draft::Draft;
use form::Form;
use names::Names;
use random::{Rng, hash};
use table::Table;

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How many cases of each kind, in relation to each other; their sum is at most 1000.
    pub kinds: Vec<(Kind, u32)>,
    /// How many cases of each width, in relation to each other.
    pub widths: Vec<(Width, u32)>,
    /// Only encodings with such a name (as iced's `Code` has it) or mnemonic, whatever the
    /// case of letters, and sequences of these. Texts between commas, of which a name has one; `*`
    /// stands for anything and makes it the whole name. There are no other kinds of cases then.
    pub only: Option<String>,
    /// Whether cases may use a local descriptor table; without one there is no 16-bit code.
    pub ldt: bool,
    /// Encodings that the CPU lacks too: each should be #UD, unless the other CPU has it.
    pub lacking: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            kinds: vec![
                (Kind::Encoding, 14),
                (Kind::Bytes, 2),
                (Kind::Sequence, 2),
                (Kind::Modifying, 1),
                (Kind::Repeat, 1),
            ],
            widths: vec![(Width::Bits64, 14), (Width::Bits32, 4), (Width::Bits16, 2)],
            only: None,
            ldt: true,
            lacking: false,
        }
    }
}

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Nothing has this name.
    #[error("No encoding's name contains '{0}'; names are like those of 'add_r32_rm32'")]
    Nothing(String),
    /// No kind or no width has a weight.
    #[error("No cases are left; choose at least one kind and one width that the CPU has")]
    Empty,
}

/// Makes cases.
pub struct Generator {
    seed: u64,
    features: FeatureSet,
    plan: Plan,
    table: Table,
    /// Encodings to go through: places in the table.
    chosen: Vec<usize>,
    codes: Vec<Code>,
    /// The kinds of so many cases, after which they come again.
    schedule: Vec<Kind>,
    /// A number that has no divisor in common with the number of encodings.
    stride: u64,
}

impl Generator {
    /// A generator of cases for a CPU with these features.
    ///
    /// # Errors
    /// The plan leaves nothing.
    pub fn new(seed: u64, features: FeatureSet, plan: Plan) -> Result<Self, PlanError> {
        let mut plan = plan;
        plan.widths.retain(|&(width, weight)| {
            let long = width != Width::Bits64 || features.has(Feature::Lm);
            let short = width != Width::Bits16 || plan.ldt;
            weight > 0 && long && short
        });
        let wide = plan.widths.iter().any(|&(width, _)| width != Width::Bits16);
        plan.kinds.retain(|&(kind, weight)| match kind {
            Kind::Manual => false,
            Kind::Modifying => weight > 0 && wide,
            _ => weight > 0,
        });
        let mut table = Table::new(features, plan.lacking);
        let wanted = plan.only.as_deref().map(Names::new);
        let named = |form: &Form| wanted.as_ref().is_none_or(|w| w.include(form));
        let possible = |form: &Form| plan.widths.iter().any(|&(w, _)| table::testable(form, w));
        let fits = |&n: &usize| named(&table.forms[n]) && possible(&table.forms[n]);
        let chosen: Vec<usize> = (0..table.forms.len()).filter(fits).collect();
        if wanted.is_some() {
            table.keep_calm(named);
            let made_of_names = |kind| matches!(kind, Kind::Encoding | Kind::Sequence | Kind::Loop);
            plan.kinds.retain(|&(kind, _)| made_of_names(kind));
        }
        let schedule = schedule(&plan.kinds);
        if chosen.is_empty() {
            return Err(plan.only.map_or(PlanError::Empty, PlanError::Nothing));
        }
        if schedule.is_empty() {
            return Err(PlanError::Empty);
        }
        let codes = chosen.iter().map(|&n| table.forms[n].code).collect();
        let stride = stride(hash(seed, 1), chosen.len() as u64);
        Ok(Self { seed, features, plan, table, chosen, codes, schedule, stride })
    }

    /// The encodings that cases of one instruction are made of.
    #[must_use]
    pub fn encodings(&self) -> &[Code] {
        &self.codes
    }

    /// The encodings that no case is made of, and why.
    #[must_use]
    pub fn excluded(&self) -> &[(Code, &'static str)] {
        &self.table.excluded
    }

    /// The case of this number.
    #[must_use]
    pub fn case(&self, index: u64) -> Case {
        let mut rng = Rng::new(self.seed, index);
        let period = self.schedule.len() as u64;
        let kind = self.schedule[(index % period) as usize];
        loop {
            // What cannot be tested is given up for another try.
            if let Some(case) = self.attempt(index, kind, rng.any()) {
                return case;
            }
        }
    }

    fn attempt(&self, index: u64, kind: Kind, seed: u64) -> Option<Case> {
        let id = CaseId { seed: self.seed, index };
        let mut rng = Rng::new(seed, index);
        let place = match kind {
            Kind::Repeat => rng.pick(&self.table.strings),
            _ => self.chosen[self.place(index, kind)],
        };
        let form = &self.table.forms[place];
        let fits = |width| match kind {
            Kind::Encoding | Kind::Repeat => table::testable(form, width),
            Kind::Modifying => width != Width::Bits16,
            _ => true,
        };
        let width = self.width(&mut rng, fits)?;
        let mut draft = Draft::new(rng, width, self.features, self.plan.ldt);
        let code = match kind {
            Kind::Bytes => bytes::code(&mut draft, &self.table)?,
            Kind::Sequence => sequence::code(&mut draft, &self.table)?,
            Kind::Loop => rounds::code(&mut draft, &self.table)?,
            Kind::Modifying => modifying::code(&mut draft, &self.table)?,
            Kind::Repeat => repeat::code(&mut draft, form, &self.table)?,
            _ => encoding::code(&mut draft, form, &self.table)?,
        };
        Some(draft.finish(id, kind, code))
    }

    /// Which of the chosen encodings a case is about. Each round goes through all of them, in an
    /// order of its own.
    fn place(&self, index: u64, kind: Kind) -> usize {
        let (period, count) = (self.schedule.len() as u64, self.chosen.len() as u64);
        let of_kind = |slots: &[Kind]| slots.iter().filter(|&&k| k == kind).count() as u64;
        let before = of_kind(&self.schedule[..(index % period) as usize]);
        let ordinal = index / period * of_kind(&self.schedule) + before;
        let (round, step) = (ordinal / count, ordinal % count);
        let start = hash(self.seed, round) % count;
        ((start + step * self.stride) % count) as usize
    }

    /// Any width of those that fit, if there is one.
    fn width(&self, rng: &mut Rng, fits: impl Fn(Width) -> bool) -> Option<Width> {
        let widths: Vec<(u32, Width)> =
            self.plan.widths.iter().filter(|&&(w, _)| fits(w)).map(|&(w, n)| (n, w)).collect();
        (!widths.is_empty()).then(|| rng.weighted(&widths))
    }
}

/// The kinds by their weights, well mixed.
fn schedule(kinds: &[(Kind, u32)]) -> Vec<Kind> {
    let total = u64::from(kinds.iter().map(|&(_, weight)| weight).sum::<u32>().min(1000));
    let mut owed = vec![0_i64; kinds.len()];
    let mut slots = Vec::new();
    for _ in 0..total {
        for (owed, &(_, weight)) in owed.iter_mut().zip(kinds) {
            *owed += i64::from(weight);
        }
        let Some(most) = (0..kinds.len()).max_by_key(|&n| (owed[n], n)) else { break };
        owed[most] -= total as i64;
        slots.push(kinds[most].0);
    }
    slots
}

/// A number below `count` that has no divisor in common with it.
fn stride(any: u64, count: u64) -> u64 {
    let mut candidate = any % count;
    while gcd(candidate, count) != 1 {
        candidate = (candidate + 1) % count;
    }
    candidate
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
