//! Takes away from a divergent case whatever it does not need.

use iced_x86::{Code, Decoder, DecoderOptions};
use trivium_cpu::bits::rflags;

use crate::case::Case;
use crate::compare::Field;
use crate::duel::Duel;
use crate::engine::EngineError;
use crate::state::UserState;

/// Something that a case may do without: `n` says which one of them. Gives whether there was such
/// a thing to take away.
type Simplify = fn(&mut Case, n: usize) -> bool;

/// What is tried, and how many there are at most.
const STEPS: &[(usize, Simplify)] = &[
    (8, drop_prefix),
    (32, |case, n| (n < case.memory.len()).then(|| case.memory.remove(n)).is_some()),
    (16, |case, n| case.ldt.get_mut(n).is_some_and(|entry| entry.take().is_some())),
    (1, |case, _| replace(&mut case.state.zmm, UserState::default().zmm)),
    (32, |case, n| replace(&mut case.state.zmm[n], [0; 8])),
    (8, |case, n| replace(&mut case.state.opmask[n], 0)),
    (1, |case, _| replace(&mut case.state.x87, UserState::default().x87)),
    (8, |case, n| replace(&mut case.state.x87.regs[n], Default::default())),
    (1, |case, _| replace(&mut case.state.x87.status, 0)),
    (1, |case, _| replace(&mut case.state.x87.control, 0x37f)),
    (1, |case, _| replace(&mut case.state.mxcsr, 0x1f80)),
    (1, |case, _| replace(&mut case.state.fs_base, 0)),
    (1, |case, _| replace(&mut case.state.gs_base, 0)),
    (6, |case, n| {
        n != 1 && replace(&mut case.state.selectors[n], UserState::default().selectors[n])
    }),
    (16, |case, n| replace(&mut case.state.regs[n], UserState::default().regs[n])),
    (22, drop_flag),
];

/// Takes away from a divergent case what it does not need to stay divergent in the same fields.
pub(super) fn reduce(duel: &mut Duel, start: Case, single: bool) -> Result<Case, EngineError> {
    let mut best = start;
    let wanted = kinds(&duel.differences(&best)?);
    let instructions: &[(usize, Simplify)] =
        if single { &[] } else { &[(32, drop_instruction), (256, drop_nop)] };
    for &(count, simplify) in instructions.iter().chain(STEPS) {
        // From the last on, so that taking one away leaves the numbers of the others.
        for n in (0..count).rev() {
            let mut simpler = best.clone();
            if simplify(&mut simpler, n) && kinds(&duel.differences(&simpler)?) == wanted {
                best = simpler;
            }
        }
    }
    Ok(best)
}

/// What kinds of fields differ: the same ones must, or it is another divergence.
fn kinds(fields: &[Field]) -> Vec<String> {
    let mut kinds: Vec<_> = fields.iter().map(|f| f.kind().to_owned()).collect();
    kinds.dedup();
    kinds
}

/// Puts `value` there, unless it is there.
fn replace<T: PartialEq>(place: &mut T, value: T) -> bool {
    let differs = *place != value;
    *place = value;
    differs
}

/// Clears a flag. IF and the fixed bit stay.
fn drop_flag(case: &mut Case, n: usize) -> bool {
    let flag = 1 << n;
    let keep = flag & (rflags::IF | rflags::FIXED) != 0;
    let cleared = case.state.rflags & !flag;
    !keep && replace(&mut case.state.rflags, cleared)
}

/// Takes away the byte at `n` if it is a prefix.
fn drop_prefix(case: &mut Case, n: usize) -> bool {
    let prefix = |b: &u8| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3 | 0x40..=0x4f);
    if case.code.len() < 2 || !case.code.iter().take(n + 1).all(prefix) {
        return false;
    }
    if n >= case.code.len() - 1 {
        return false;
    }
    case.code.remove(n);
    true
}

/// Puts NOPs in place of the instruction number `n`.
fn drop_instruction(case: &mut Case, n: usize) -> bool {
    let decoder =
        Decoder::with_ip(case.width.bits(), &case.code, case.state.rip, DecoderOptions::NONE);
    let Some(instruction) = decoder.into_iter().nth(n) else { return false };
    if matches!(instruction.code(), Code::Nopd | Code::INVALID) {
        return false;
    }
    let from = instruction.ip().wrapping_sub(case.state.rip) as usize;
    match case.code.get_mut(from..from + instruction.len()) {
        Some(bytes) => bytes.fill(0x90),
        None => return false,
    }
    true
}

/// Takes a NOP away, from the front or the end.
fn drop_nop(case: &mut Case, _: usize) -> bool {
    const NOP: u8 = 0x90;
    match *case.code {
        [NOP, _, ..] => {
            case.code.remove(0);
            case.code_at += 1;
            case.state.rip += 1;
            true
        }
        [_, .., NOP] => case.code.pop().is_some(),
        _ => false,
    }
}
