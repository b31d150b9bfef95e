//! Two engines and what they may differ in.

use std::borrow::Cow;

use trivium_cpu::bits::rflags;
use trivium_cpu::model::{CpuModel, FeatureSet, Vendor};

use crate::allow::{Allowance, beyond, first_instruction};
use crate::case::{Case, Kind, Width};
use crate::compare::{Field, compare};
use crate::engine::{Engine, EngineError};
use crate::layout::selector;
use crate::outcome::{Outcome, Stop};

/// Two engines, the first of which is the one that is doubted.
pub struct Duel {
    engines: [Box<dyn Engine>; 2],
    vendor: Vendor,
    features: FeatureSet,
    strict: bool,
    wide: bool,
}

/// Number of CS.
const CS: usize = 1;
/// Numbers of RAX and RSP.
const RAX: usize = 0;
const RSP: usize = 4;

/// Exception summary, in the x87 status word.
const ES: u16 = 1 << 7;

/// What came of a case on both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// The outcomes.
    pub outcomes: [Outcome; 2],
    /// In what they differ and may not.
    pub fields: Vec<Field>,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// An engine cannot run it, for this reason.
    Refused(&'static str),
    /// They agree, or differ in what they may; or not.
    Run(Box<Round>),
}

impl Duel {
    /// Two engines that both are a CPU of this model. Nothing may differ, not even what the
    /// manuals leave undefined, if `strict`.
    #[must_use]
    pub fn new(engines: [Box<dyn Engine>; 2], model: &CpuModel, strict: bool) -> Self {
        let wide = engines.iter().all(|e| e.has_avx512());
        Self { engines, vendor: model.vendor, features: model.features, strict, wide }
    }

    /// The names of the engines.
    #[must_use]
    pub fn names(&self) -> [&'static str; 2] {
        self.engines.each_ref().map(|e| e.name())
    }

    /// Whether cases can have a local descriptor table.
    #[must_use]
    pub fn has_ldt(&self) -> bool {
        self.engines.iter().all(|e| e.has_ldt())
    }

    /// Whether single steps do not show what an engine makes of an instruction.
    #[must_use]
    pub fn steps_otherwise(&self) -> bool {
        self.engines.iter().any(|e| e.steps_otherwise())
    }

    /// How many cases since the last call an engine has translated as code that runs hot.
    pub fn take_hot(&mut self) -> u64 {
        self.engines.iter_mut().map(|e| e.take_hot()).max().unwrap_or_default()
    }

    /// Runs cases on both engines.
    ///
    /// # Errors
    /// An engine cannot go on.
    pub fn run(&mut self, cases: &[Case]) -> Result<Vec<Verdict>, EngineError> {
        let refused: Vec<_> = cases.iter().map(|case| self.refuses(case)).collect();
        let asked = cases.iter().zip(&refused).filter(|(_, r)| r.is_none());
        let cases: Cow<'_, [Case]> = match refused.iter().all(Option::is_none) {
            true => Cow::Borrowed(cases),
            false => asked.map(|(case, _)| case.clone()).collect(),
        };
        let [first, second] = &mut self.engines;
        let outcomes = first.run(&cases)?.into_iter().zip(second.run(&cases)?);
        let mut rounds = cases.iter().zip(outcomes);
        let mut verdicts = Vec::new();
        for reason in refused {
            let round = if reason.is_none() { rounds.next() } else { None };
            verdicts.push(match (reason, round) {
                (Some(reason), _) => Verdict::Refused(reason),
                (None, Some((_, (one, other)))) if is_lost(&one) || is_lost(&other) => {
                    Verdict::Refused("the case took the process that ran it with it")
                }
                (None, Some((_, (one, other)))) if is_endless(&one) || is_endless(&other) => {
                    Verdict::Refused("it does not end within its limit")
                }
                (None, Some((case, (one, other)))) => self.judge(case, [one, other]),
                (None, None) => Verdict::Refused("no outcome"),
            });
        }
        Ok(verdicts)
    }

    /// Runs one case.
    ///
    /// # Errors
    /// An engine cannot go on.
    pub fn run_one(&mut self, case: &Case) -> Result<Verdict, EngineError> {
        let verdicts = self.run(std::slice::from_ref(case))?;
        Ok(verdicts.into_iter().next().unwrap_or(Verdict::Refused("no outcome")))
    }

    /// The fields in which the engines differ on a case; none if they cannot run it.
    ///
    /// # Errors
    /// An engine cannot go on.
    pub fn differences(&mut self, case: &Case) -> Result<Vec<Field>, EngineError> {
        Ok(match self.run_one(case)? {
            Verdict::Run(round) => round.fields,
            Verdict::Refused(_) => Vec::new(),
        })
    }

    fn refuses(&self, case: &Case) -> Option<&'static str> {
        self.engines.iter().find_map(|e| e.refuses(case))
    }

    fn judge(&self, case: &Case, mut outcomes: [Outcome; 2]) -> Verdict {
        for outcome in outcomes.iter_mut().filter(|o| o.stop == Stop::Syscall) {
            // INT 80h is a system call of 32 bits, and Linux cuts its number to them.
            outcome.state.regs[RAX] &= 0xffff_ffff;
        }
        let narrow = |o: &Outcome| o.state.selectors[CS] != selector::CODE64;
        if case.width != Width::Bits64 || outcomes.iter().any(narrow) {
            // Outside 64-bit code the upper halves of registers are undefined (SDM vol. 1, 3.4.1.1);
            // of the stack pointer's, kernels make something of their own (Linux, "espfix").
            outcomes.iter_mut().for_each(|o| o.state.regs[RSP] &= 0xffff_ffff);
        }
        let [one, other] = &outcomes;
        let single = is_single(case, &outcomes);
        let mut allow = match single && !self.strict {
            true => Allowance::of(case, one, self.vendor),
            false => Allowance::default(),
        };
        // AMD's FXSAVE and XSAVE save the pointers and the opcode only while an exception waits
        // (AMD64 APM vol. 2, 11.4.4), so a program cannot be told of them before.
        let waiting = outcomes.iter().any(|o| o.state.x87.status & ES != 0);
        allow.x87_pointers |= self.vendor == Vendor::Amd && !waiting;
        let fields = compare(one, other, &allow, self.wide);
        match beyond(case, self.features) {
            Some(what) if single && !fields.is_empty() => Verdict::Refused(what),
            _ if !fields.is_empty() && is_int1(case, &outcomes) => {
                Verdict::Refused("ends at INT1 with TF, which hosts report differently")
            }
            _ => Verdict::Run(Box::new(Round { outcomes, fields })),
        }
    }
}

/// Whether a case ends by #DB at INT1 on one engine and behind it on the other, with TF set: then
/// what the host reports may be either trap. See [`crate::host`].
fn is_int1(case: &Case, outcomes: &[Outcome; 2]) -> bool {
    const INT1: u8 = 0xf1;
    let [one, other] = outcomes;
    let traps = |o: &Outcome| {
        matches!(o.stop, Stop::Exception { vector: 1, .. }) && o.state.rflags & rflags::TF != 0
    };
    let place = other.state.rip.wrapping_sub(case.state.rip).wrapping_add(case.code_at);
    let changed = other.changes.iter().map(|c| (c.address, c.bytes.as_slice()));
    let holds = |(at, bytes): (u64, &[u8])| {
        let offset = place.checked_sub(at).and_then(|n| usize::try_from(n).ok());
        offset.and_then(|n| bytes.get(n)) == Some(&INT1)
    };
    traps(one)
        && traps(other)
        && one.state.rip == other.state.rip.wrapping_add(1)
        && changed.chain(case.patches()).any(holds)
}

/// Engines that count give up by another measure than those that look at the clock.
fn is_endless(outcome: &Outcome) -> bool {
    outcome.stop == Stop::Endless
}

fn is_lost(outcome: &Outcome) -> bool {
    matches!(outcome.stop, Stop::Lost(_))
}

/// Whether a case has run no more than one instruction. That it ended behind its first one says so
/// too, since a case that is done stops there.
fn is_single(case: &Case, outcomes: &[Outcome; 2]) -> bool {
    if case.state.rflags & rflags::TF != 0 || case.kind == Kind::Encoding {
        return true;
    }
    let instruction = first_instruction(case);
    if instruction.is_invalid() {
        // An engine that went on took it for one of a length that is not known.
        return outcomes.iter().any(|o| o.stop.is_fault() && o.state.rip == case.state.rip);
    }
    let end = case.state.rip.wrapping_add(instruction.len() as u64);
    outcomes.iter().all(|o| match o.stop {
        // #BP tells of the instruction after INT3.
        Stop::Exception { vector: 3, .. } => o.state.rip == end.wrapping_add(1),
        _ => o.state.rip == case.state.rip,
    })
}
