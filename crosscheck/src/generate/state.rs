//! The state that cases begin with.

use trivium_cpu::bits::rflags;
use trivium_cpu::model::{Feature, FeatureSet};
use trivium_cpu::state::X87;

use super::draft::{Draft, RSP};
use super::random::Rng;
use super::segments::{self, CS, DS, ES, FS, GS, LOADABLE, SS, entry};
use super::values::{self, Element, VECTOR_ELEMENTS};
use crate::case::Width;
use crate::layout::{CODE, DATA, HIGH, OPEN_CODE, STACK, selector};
use crate::state::UserState;

/// The arithmetic flags.
const ARITHMETIC: u64 = rflags::CF | rflags::PF | rflags::AF | rflags::ZF | rflags::SF | rflags::OF;
/// Exceptions of x87 and SSE: the flags in status words, the masks in the x87 control word.
const EXCEPTIONS: u16 = 0x3f;
/// Error summary and busy of the x87 status word.
const ES_AND_B: u16 = 0x8080;
/// The exception masks of MXCSR.
const MXCSR_MASKS: u32 = 0x1f80;
/// DAZ and MM (misaligned operands) of MXCSR.
const MXCSR_DAZ: u32 = 1 << 6;
const MXCSR_MM: u32 = 1 << 17;

/// Any state but for the segments and the stack.
pub(super) fn any(rng: &mut Rng, width: Width, features: FeatureSet) -> UserState {
    let mut state = UserState::default();
    let (count, bits) = if width == Width::Bits64 { (16, 64) } else { (8, 32) };
    for register in &mut state.regs[..count] {
        *register = values::integer(rng, bits);
    }
    state.rflags = flags(rng);
    if features.has(Feature::Fpu) {
        state.x87 = x87(rng);
    }
    if features.has(Feature::Sse) {
        state.mxcsr = mxcsr(rng, features);
        vectors(rng, features, &mut state);
    }
    state
}

/// RFLAGS of user code.
pub(super) fn flags(rng: &mut Rng) -> u64 {
    let mut flags = rng.any() & ARITHMETIC | rflags::IF | 2;
    for (percent, flag) in
        [(10, rflags::TF), (12, rflags::DF), (5, rflags::AC), (5, rflags::NT), (10, rflags::ID)]
    {
        if rng.percent(percent) {
            flags |= flag;
        }
    }
    flags
}

/// The x87 unit; one of them in six has an exception pending or may get one.
fn x87(rng: &mut Rng) -> X87 {
    let mut x87 = X87 { tags: 0, ..X87::default() };
    for (n, register) in x87.regs.iter_mut().enumerate() {
        *register = values::extended(rng);
        if rng.percent(20) {
            // As MMX leaves them.
            register.sign_exponent = 0xffff;
            register.mantissa = values::quad(rng, Element::Int(2));
        }
        let tag = if rng.percent(15) { 3 } else { values::tag(*register) };
        x87.tags |= tag << (2 * n);
    }
    let masks = if rng.percent(83) { EXCEPTIONS } else { rng.any() as u16 & EXCEPTIONS };
    // Precision, where 1 is reserved, rounding, and the infinity control that means nothing.
    let precision = rng.weighted(&[(12, 3), (3, 2), (3, 0), (1, 1)]);
    let rounding = if rng.percent(60) { 0 } else { rng.below(4) as u16 };
    x87.control = masks | 0x40 | precision << 8 | rounding << 10 | (rng.below(2) as u16) << 12;
    // C0 to C3, TOP, stack fault.
    x87.status = rng.any() as u16 & 0x7f40;
    if rng.percent(70) {
        let raised = rng.any() as u16 & EXCEPTIONS;
        // A pending exception ends most cases before they begin.
        x87.status |= if rng.percent(80) { raised & masks } else { raised };
    }
    if x87.status & !masks & EXCEPTIONS != 0 {
        x87.status |= ES_AND_B;
    }
    x87
}

fn mxcsr(rng: &mut Rng, features: FeatureSet) -> u32 {
    let mut mxcsr = rng.any() as u32 & u32::from(EXCEPTIONS) | MXCSR_MASKS;
    if rng.percent(15) {
        mxcsr &= rng.any() as u32 | !MXCSR_MASKS;
    }
    if rng.percent(50) {
        mxcsr &= !u32::from(EXCEPTIONS);
    }
    // Rounding, and flushing to zero.
    mxcsr |= if rng.percent(60) { 0 } else { rng.below(8) as u32 } << 13;
    if features.has(Feature::Sse2) && rng.percent(15) {
        mxcsr |= MXCSR_DAZ;
    }
    if features.has(Feature::Misalignsse) && rng.percent(8) {
        mxcsr |= MXCSR_MM;
    }
    mxcsr
}

/// The parts of vector registers that the CPU has, all of one kind as a rule.
fn vectors(rng: &mut Rng, features: FeatureSet, state: &mut UserState) {
    let parts = if features.has(Feature::Avx) { 4 } else { 2 };
    let element = rng.weighted(&VECTOR_ELEMENTS);
    let mixed = rng.percent(20);
    let (low, high) = state.zmm[..16].split_at_mut(8);
    for register in low.iter_mut() {
        let element = if mixed { rng.weighted(&VECTOR_ELEMENTS) } else { element };
        for part in &mut register[..parts] {
            *part = values::quad(rng, element);
        }
    }
    // The upper half has the same values in other places: making them is most of the work.
    for (n, register) in high.iter_mut().enumerate() {
        *register = low[(n * 5 + 3) % 8];
        register[..parts].rotate_left(1);
    }
}

/// Chooses segments that can be loaded, as a rule those that reach everything.
pub(super) fn choose_segments(draft: &mut Draft) {
    let open = draft.rng.percent(6);
    draft.code_at = if open { OPEN_CODE.start } else { CODE.start };
    let local = selector::local;
    let all = |selector| [selector; 6];
    let mut selectors = match draft.width {
        Width::Bits64 => {
            let mut selectors = all(if draft.rng.percent(80) { selector::DATA } else { 0 });
            (selectors[FS], selectors[GS]) = (0, 0);
            selectors[SS] = selector::DATA;
            selectors[CS] = selector::CODE64;
            selectors
        }
        Width::Bits32 => {
            let mut selectors = all(selector::DATA);
            let narrow = draft.has_ldt() && !open && draft.rng.percent(15);
            selectors[CS] = if narrow { local(entry::CODE32) } else { selector::CODE32 };
            selectors
        }
        Width::Bits16 => {
            let mut selectors = all(local(entry::DATA16));
            selectors[CS] = local(if open { entry::OPEN_CODE16 } else { entry::CODE16 });
            selectors[SS] = local(entry::STACK16);
            selectors
        }
    };
    vary_segments(draft, &mut selectors);
    draft.state.selectors = selectors;
    choose_bases(draft);
}

/// Replaces some selectors by more interesting ones.
fn vary_segments(draft: &mut Draft, selectors: &mut [u16; 6]) {
    let often = if draft.width == Width::Bits64 { 3 } else { 12 };
    for segment in [ES, DS, FS, GS] {
        if !draft.rng.percent(often) {
            continue;
        }
        selectors[segment] = match draft.rng.below(8) {
            0 => 0,
            1 => draft.rng.pick(&[selector::CODE32, selector::CODE64, selector::DATA]),
            _ if draft.has_ldt() => selector::local(draft.rng.pick(&LOADABLE)),
            _ => selector::DATA,
        };
    }
    let stacks = [entry::STACK16, entry::STACK32, entry::STACK32, entry::EXPAND_DOWN32];
    if draft.has_ldt() && draft.rng.percent(often) {
        selectors[SS] = selector::local(draft.rng.pick(&stacks));
    }
    if selectors.contains(&selector::local(entry::OWN)) {
        let own = segments::own(&mut draft.rng);
        if let Some(entry) = draft.ldt.get_mut(usize::from(entry::OWN)) {
            *entry = Some(own);
        }
    }
}

/// The bases of FS and GS: those of their descriptors but in 64-bit code.
fn choose_bases(draft: &mut Draft) {
    let mut bases = [FS, GS].map(|s| draft.local(s).map_or(0, |e| u64::from(e.base)));
    if draft.width == Width::Bits64 {
        for base in &mut bases {
            *base = match draft.rng.below(8) {
                0..=3 => 0,
                4 => DATA.start + draft.rng.below(0x1000),
                5 => HIGH.start + draft.rng.below(0x100),
                6 => draft.rng.below(0x1_0000).wrapping_neg(),
                _ => draft.rng.any() >> 17,
            };
        }
    }
    [draft.state.fs_base, draft.state.gs_base] = bases;
}

/// Points RSP into the stack, near an edge of it now and then.
pub(super) fn choose_stack(draft: &mut Draft) {
    let middle = STACK.start + 0x1000;
    let linear = match draft.rng.below(20) {
        0..=13 => middle + (draft.rng.below(64) << 4),
        14..=15 => middle + draft.rng.below(1024),
        16 => STACK.start + draft.rng.below(40),
        17 => STACK.end() - draft.rng.below(40),
        18 => middle + draft.rng.below(16) - 8,
        _ => DATA.end() + draft.rng.below(32) - 16,
    };
    let offset = linear.wrapping_sub(draft.base(SS));
    let bits = draft.stack_bits();
    draft.pin_low(RSP, bits, offset);
    draft.pinned &= !(1 << RSP);
}
