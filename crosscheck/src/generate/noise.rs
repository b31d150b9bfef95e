//! Prefixes where they do not belong, and bits of REX and VEX the other way.

use super::draft::Draft;
use super::operands::shuffle;
use super::parts::{Late, Parts};
use super::segments::OVERRIDES;
use crate::case::Width;

/// Legacy prefixes but for the segments'.
const PREFIXES: [u8; 5] = [0x66, 0x67, 0xf0, 0xf2, 0xf3];

/// Adds noise of one kind or another.
pub(super) fn add(draft: &mut Draft, parts: &mut Parts) {
    match draft.rng.below(10) {
        0..=3 => prefix(draft, parts),
        4 => {
            for _ in 0..2 + draft.rng.below(4) {
                prefix(draft, parts);
            }
        }
        5 => too_long(draft, parts),
        6..=7 if parts.vex.is_some() => flip_vex(draft, parts),
        6..=7 => flip_rex(draft, parts),
        8 => stray_rex(draft, parts),
        _ => flip_fields(draft, parts),
    }
}

/// A prefix anywhere among the others.
fn prefix(draft: &mut Draft, parts: &mut Parts) {
    let prefix =
        if draft.rng.percent(75) { draft.rng.pick(&PREFIXES) } else { draft.rng.pick(&OVERRIDES) };
    parts.prefixes.push(prefix);
    shuffle(draft, &mut parts.prefixes);
}

/// So many prefixes that the instruction has about as many bytes as it may, or more.
fn too_long(draft: &mut Draft, parts: &mut Parts) {
    let goal = 13 + draft.rng.below(5) as usize;
    let prefix = draft.rng.pick(&[0x66, 0x67, 0x2e, 0x3e, 0x26, 0x36]);
    while parts.bytes().len() < goal {
        parts.prefixes.push(prefix);
    }
}

fn flip_vex(draft: &mut Draft, parts: &mut Parts) {
    let long = draft.width == Width::Bits64;
    let Some(vex) = &mut parts.vex else { return };
    match draft.rng.below(if long { 8 } else { 5 }) {
        0 => vex.w ^= 1,
        1 => vex.l ^= 1,
        2 => vex.vvvv = draft.rng.below(if long { 16 } else { 8 }) as u8,
        3 => vex.pp = draft.rng.below(4) as u8,
        4 => vex.map = draft.rng.pick(&[0, 1, 2, 3, 4, 31]),
        5 => vex.r ^= 1,
        6 => vex.x ^= 1,
        _ => vex.b ^= 1,
    }
    vex.short &= vex.w == 0;
}

fn flip_rex(draft: &mut Draft, parts: &mut Parts) {
    if draft.width == Width::Bits64 {
        let rex = parts.rex.unwrap_or(0x40);
        parts.rex = Some(rex ^ 1 << draft.rng.below(4));
    } else {
        prefix(draft, parts);
    }
}

/// A REX prefix that another prefix follows counts for nothing.
fn stray_rex(draft: &mut Draft, parts: &mut Parts) {
    if draft.width == Width::Bits64 {
        let rex = 0x40 | draft.rng.below(16) as u8;
        let at = draft.rng.below(parts.prefixes.len() as u64 + 1) as usize;
        parts.prefixes.insert(at, rex);
    } else {
        prefix(draft, parts);
    }
}

/// Another opcode in a group, or registers where memory belongs.
fn flip_fields(draft: &mut Draft, parts: &mut Parts) {
    let Some(modrm) = &mut parts.modrm else { return prefix(draft, parts) };
    if draft.rng.percent(50) {
        *modrm ^= 8 << draft.rng.below(3);
    } else if parts.sib.is_none() && parts.displacement.get().is_empty() {
        *modrm |= 0xc0;
        parts.late = match parts.late {
            Late::Displacement(_) => Late::No,
            late => late,
        };
    }
}
