//! Finds the instruction of a case on which two engines part: one by one, from the same state.

use iced_x86::{Mnemonic, OpKind, Register};
use trivium_cpu::bits::rflags;

use crate::allow::first_instruction;
use crate::case::{Case, Kind, Patch};
use crate::compare::compare;
use crate::duel::{Duel, Round, Verdict};
use crate::engine::EngineError;
use crate::hot::vague::is_vague;
use crate::layout::{self, selector};
use crate::outcome::{Change, Stop};

/// More instructions than any case has that ends.
const STEPS: usize = 20_000;

/// How many are stepped over after one that differs in what it may: what comes later is another
/// case's.
const STEPS_AFTER: usize = 200;

/// Where two engines part.
pub(super) enum Walk {
    /// On one instruction, from this state.
    Instruction(Box<Case>),
    /// Nowhere, but some instruction differs in what it may, or cannot be compared.
    Undefined,
    /// Nowhere: they part only when the case is run as a whole.
    Whole,
}

/// Steps through a case. The second engine says how each instruction goes on.
pub(super) fn first_divergent(duel: &mut Duel, case: &Case) -> Result<Walk, EngineError> {
    let mut undefined = false;
    let mut left = STEPS;
    let mut at = first_step(case);
    while left > 0 {
        left -= 1;
        let shadow = casts_shadow(&at);
        let step = if shadow { without_trap(&at) } else { at.clone() };
        let Verdict::Run(round) = duel.run_one(&step)? else { return Ok(Walk::Undefined) };
        if !round.fields.is_empty() {
            let plain = without_trap(&at);
            let apart = !duel.differences(&plain)?.is_empty();
            return Ok(Walk::Instruction(Box::new(if apart { plain } else { at })));
        }
        let mut vague = differs(&round);
        if duel.steps_otherwise() && !shadow {
            let plain = without_trap(&at);
            if let Verdict::Run(round) = duel.run_one(&plain)?
                && ends_behind(&plain, &round)
            {
                if !round.fields.is_empty() {
                    return Ok(Walk::Instruction(Box::new(plain)));
                }
                vague |= differs(&round);
            }
        }
        // What is undefined may also depend on what was before, which may be left out then.
        vague |= duel.steps_otherwise() && is_vague(&first_instruction(&at));
        if vague && !undefined {
            undefined = true;
            left = left.min(STEPS_AFTER);
        }
        match next_step(&at, &round, shadow) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(if undefined { Walk::Undefined } else { Walk::Whole })
}

/// Whether engines differ at all, be it in what they may.
fn differs(round: &Round) -> bool {
    let [one, other] = &round.outcomes;
    !compare(one, other, &Default::default(), false).is_empty()
}

/// Whether both engines have run one instruction and then the INT3 behind it.
fn ends_behind(plain: &Case, round: &Round) -> bool {
    let behind = plain.state.rip.wrapping_add(plain.code.len() as u64 + 1);
    let is_done = |stop: &Stop| matches!(stop, Stop::Exception { vector: 3, .. });
    round.outcomes.iter().all(|o| is_done(&o.stop) && o.state.rip == behind)
}

/// The first instruction of a case, alone.
fn first_step(case: &Case) -> Case {
    let mut step = case.clone();
    step.state.rflags |= rflags::TF;
    step.memory.push(Patch { address: case.code_at, bytes: case.code.clone() });
    fetch(&mut step);
    step
}

/// The same instruction, ended by an INT3 behind it.
fn without_trap(step: &Case) -> Case {
    let mut plain = step.clone();
    plain.state.rflags &= !rflags::TF;
    let behind = step.code_at + step.code.len() as u64;
    let room = layout::region_of(step.code_at).map_or(0, |r| r.end().saturating_sub(behind));
    if room > 0 {
        plain.memory.push(Patch { address: behind, bytes: vec![0xcc; room.min(15) as usize] });
    }
    plain
}

/// Whether the first instruction of a case holds the trap of single steps off until after the next
/// one, so that INT3 must end it. SDM vol. 2, MOV, POP.
fn casts_shadow(case: &Case) -> bool {
    let instruction = first_instruction(case);
    matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Pop)
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register() == Register::SS
}

/// The case of the instruction after one that was stepped over, by INT3 if that casts a shadow;
/// `None` if the step ended the case.
fn next_step(step: &Case, round: &Round, shadow: bool) -> Option<Case> {
    let outcome = &round.outcomes[1];
    let (vector, beyond) = if shadow { (3, 1) } else { (1, 0) };
    match outcome.stop {
        Stop::Exception { vector: ended, .. } if ended == vector => {}
        _ => return None,
    }
    let mut next = step.clone();
    next.state = outcome.state.clone();
    next.state.rip = next.state.rip.wrapping_sub(beyond);
    next.state.rflags |= rflags::TF;
    let changed = |c: &Change| Patch { address: c.address, bytes: c.bytes.clone() };
    next.memory.push(Patch { address: step.code_at, bytes: step.code.clone() });
    next.memory.extend(outcome.changes.iter().map(changed));
    next.code_at = code_base(&next)?.wrapping_add(next.state.rip);
    fetch(&mut next);
    layout::region_of(next.code_at).is_some().then_some(next)
}

/// The base of the code segment of a case.
fn code_base(case: &Case) -> Option<u64> {
    match case.state.selectors[1] {
        selector::CODE32 | selector::CODE64 => Some(0),
        local if local & 4 != 0 => {
            let entry = case.ldt.get(usize::from(local >> 3)).copied().flatten()?;
            Some(u64::from(entry.base))
        }
        _ => None,
    }
}

/// Makes the instruction at a case's RIP its code.
fn fetch(case: &mut Case) {
    case.kind = Kind::Manual;
    case.limit = 2;
    let region = layout::region_of(case.code_at);
    let end = region.map_or(case.code_at, |r| r.end());
    let len = end.saturating_sub(case.code_at).min(15);
    case.code = (case.code_at..case.code_at + len).map(|at| byte_at(case, at)).collect();
    let exact = first_instruction(case).len();
    case.code.truncate(exact.max(1));
}

/// The byte of memory at an address when the case begins, its code left aside.
fn byte_at(case: &Case, address: u64) -> u8 {
    let patched = case.memory.iter().rev().find_map(|p| {
        let offset = usize::try_from(address.checked_sub(p.address)?).ok()?;
        p.bytes.get(offset).copied()
    });
    patched.unwrap_or_else(|| match layout::region_of(address).map(|r| r.fill) {
        Some(layout::Fill::Pattern) => layout::pattern(address),
        _ => 0xcc,
    })
}
