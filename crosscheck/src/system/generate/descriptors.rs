//! Descriptors and selectors, most of them of use.

use crate::generate::random::Rng;
use crate::system::layout;
use crate::system::model::descriptor::system;

const S: u16 = 1 << 4;
const P: u16 = 1 << 7;
const L: u16 = 1 << 13;
const D: u16 = 1 << 14;
const G: u16 = 1 << 15;

/// The first index of the global descriptor table that cases fill, and how many they do.
pub(super) const FREE: u16 = 0x10;
pub(super) const COUNT: u16 = 0x20;
/// Entries of the local descriptor table.
pub(super) const LOCAL: u16 = 16;

/// What a case's descriptors are for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// IA-32e mode.
    pub lma: bool,
    /// The privilege level of the code that will use them.
    pub cpl: u8,
}

/// A privilege level: often the current one.
pub(super) fn level(rng: &mut Rng, setting: Setting) -> u8 {
    if rng.percent(50) { setting.cpl } else { rng.below(4) as u8 }
}

/// A selector: mostly of a descriptor that the case has made.
pub(super) fn selector(rng: &mut Rng, setting: Setting) -> u16 {
    let rpl = u16::from(level(rng, setting));
    let even = |rng: &mut Rng, count: u16| {
        let index = rng.below(count.into()) as u16;
        // In IA-32e mode, system descriptors take two entries.
        if setting.lma { index & !1 } else { index }
    };
    match rng.below(20) {
        0 => rpl,
        1 => rng.any() as u16,
        2..6 => {
            let known = [layout::code32, layout::data, layout::code64];
            let level = level(rng, setting);
            rng.pick(&known)(level) & !3 | rpl
        }
        6..14 => (FREE + even(rng, COUNT)) << 3 | rpl,
        _ => even(rng, LOCAL) << 3 | 4 | rpl,
    }
}

/// A descriptor, and the upper half that it has in IA-32e mode if it is of the system.
pub(super) fn descriptor(rng: &mut Rng, setting: Setting) -> (u64, u64) {
    let present = if rng.percent(92) { P } else { 0 };
    let dpl = u16::from(level(rng, setting)) << 5;
    match rng.below(20) {
        0..6 => (data(rng, present | dpl), 0),
        6..13 => (code(rng, present | dpl, setting.lma), 0),
        13..17 => call_gate(rng, present | dpl, setting),
        17 => (layout::descriptor(0, 0xf_ffff, rng.any() as u16 & 0xf0ff), 0),
        _ => {
            let kinds = [system::TSS, system::LDT, system::BUSY_TSS, system::TSS16, system::LDT];
            let kind = if rng.percent(80) { rng.pick(&kinds) } else { rng.below(16) as u8 };
            let limit = 0x67 + rng.below(0x100);
            let upper = if rng.percent(20) { 0xffff_8000 } else { 0 };
            (layout::descriptor(layout::TSS, limit, u16::from(kind) | present | dpl), upper)
        }
    }
}

fn limit(rng: &mut Rng) -> u64 {
    if rng.percent(80) { 0xf_ffff } else { rng.any() & 0xf_ffff }
}

fn data(rng: &mut Rng, flags: u16) -> u64 {
    let mut kind = rng.bits(1, 50) as u16 | rng.bits(2, 85) as u16;
    let base = if rng.percent(85) { 0 } else { rng.any() & 0xffff_ffff };
    let mut limit = limit(rng);
    if rng.percent(8) {
        // Expand-down: all above a low limit.
        kind |= 4;
        limit &= 0xff;
    }
    let size = rng.bits(D.into(), 85) as u16 | rng.bits(G.into(), 85) as u16;
    layout::descriptor(base, limit, flags | S | kind | size)
}

fn code(rng: &mut Rng, flags: u16, lma: bool) -> u64 {
    let kind = 8 | rng.bits(1, 50) as u16 | rng.bits(2, 70) as u16 | rng.bits(4, 30) as u16;
    let sizes = if lma { [L, L, L, L, D, D, D | L, 0] } else { [D, D, D, D, D, D, D | L, 0] };
    let size = rng.pick(&sizes) | rng.bits(G.into(), 85) as u16;
    layout::descriptor(0, limit(rng), flags | S | kind | size)
}

/// A gate of a type that leads to a selector.
pub(super) fn gate(rng: &mut Rng, kind: u8, flags: u16, setting: Setting) -> (u64, u64) {
    let selector = u64::from(selector(rng, setting));
    let offset = if rng.percent(90) { rng.any() & 0xfff } else { rng.any() & 0xffff_ffff };
    let low = offset & 0xffff
        | selector << 16
        | u64::from(u16::from(kind) | flags & 0xe0) << 40
        | (offset >> 16) << 48;
    let upper = if rng.percent(95) { 0 } else { rng.any() & 0xffff_ffff };
    (low, upper)
}

fn call_gate(rng: &mut Rng, flags: u16, setting: Setting) -> (u64, u64) {
    let kinds = [system::CALL_GATE, system::CALL_GATE, system::CALL_GATE16, system::TASK_GATE];
    let kind = rng.pick(&kinds);
    let (low, upper) = gate(rng, kind, flags, setting);
    let parameters = if rng.percent(50) { 0 } else { rng.below(32) };
    (low | parameters << 32, upper)
}
