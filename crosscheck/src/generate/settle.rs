//! Makes the state fit an instruction: what it implies and what would otherwise almost always
//! fault or do nothing.

use iced_x86::{Mnemonic, OpCodeOperandKind as Kind};
use trivium_cpu::bits::rflags;

use super::address::{self, Access, Place};
use super::draft::{Draft, RSP};
use super::form::Form;
use super::operands::Chosen;
use super::segments::{self, DS, ES, LOADABLE, SS, entry};
use super::state;
use super::values::{self, Element};
use crate::case::Width;
use crate::layout::{CODE, DATA, STACK, selector};

/// Numbers of general registers.
pub(super) const RAX: u8 = 0;
pub(super) const RCX: u8 = 1;
pub(super) const RDX: u8 = 2;
pub(super) const RBX: u8 = 3;
pub(super) const RBP: u8 = 5;
pub(super) const RSI: u8 = 6;
pub(super) const RDI: u8 = 7;

/// An offset in the code segment of this selector where INT3 lies, as a rule.
pub(super) fn code_offset(draft: &mut Draft, selector: u16) -> u64 {
    let entry = draft.ldt.get(usize::from(selector >> 3)).copied().flatten();
    let base = entry.filter(|_| selector & 4 != 0).map_or(0, |e| u64::from(e.base));
    let offset = code_address(draft).wrapping_sub(base);
    match draft.width {
        Width::Bits64 => offset,
        _ => offset & 0xffff_ffff,
    }
}

/// The linear address of INT3, as a rule.
fn code_address(draft: &mut Draft) -> u64 {
    let rng = &mut draft.rng;
    match rng.below(20) {
        0 => values::integer(rng, 64),
        1 => rng.pick(&[CODE.end() - 1, CODE.end(), DATA.start, 0]),
        _ => CODE.start + 0x1000 + rng.below(0xff0),
    }
}

/// Before operands are chosen: what registers that the instruction implies must hold.
pub(super) fn before(draft: &mut Draft, form: &Form) {
    use Mnemonic as M;
    match form.mnemonic {
        M::Xsave
        | M::Xsave64
        | M::Xsavec
        | M::Xsavec64
        | M::Xsaveopt
        | M::Xsaveopt64
        | M::Xrstor
        | M::Xrstor64 => {
            // Only the components that every CPU with AVX has.
            let mask = draft.rng.below(8);
            let mask = if draft.rng.percent(40) { 7 } else { mask };
            draft.pin(RAX, mask);
            draft.pin(RDX, 0);
        }
        M::Pcmpestri
        | M::Pcmpestrm
        | M::Vpcmpestri
        | M::Vpcmpestrm
        | M::Pcmpestri64
        | M::Pcmpestrm64
        | M::Vpcmpestri64
        | M::Vpcmpestrm64 => {
            for register in [RAX, RDX] {
                if draft.rng.percent(70) {
                    let length = draft.rng.between(-18, 18) as u64;
                    draft.pin(register, length);
                }
            }
        }
        M::Div | M::Idiv => {
            let high = draft.rng.below(4);
            if high != 0 && form.operand_size != 0 {
                let sign = draft.state.regs[0] >> (form.operand_size - 1) & 1;
                let small = draft.rng.below(4);
                draft.pin(RDX, if high == 1 { sign.wrapping_neg() } else { small });
            } else if high != 0 {
                let quotient = draft.rng.below(0x4000);
                draft.pin_low(RAX, 16, quotient);
            }
        }
        M::Clzero => drop(address::point(draft, RAX, DS, draft.width.bits(), CLZERO)),
        M::Monitor => drop(address::point(draft, RAX, DS, draft.width.bits(), Access::int(8))),
        M::Rdpkru | M::Wrpkru => draft.pin(RCX, 0),
        M::Leave | M::Enter => frame_pointer(draft),
        _ => {}
    }
    if counts_by_rcx(form) {
        let count = match draft.rng.below(8) {
            0..=5 => draft.rng.below(4),
            6 => draft.rng.below(40),
            _ => values::integer(&mut draft.rng, 16),
        };
        draft.pin(RCX, count);
        draft.limit = 200_000;
    } else if form.operands.contains(&Kind::cl) && draft.rng.percent(60) {
        let count = draft.rng.below(72);
        draft.pin_low(RCX, 8, count);
    }
}

/// What CLZERO writes.
const CLZERO: Access = Access { size: 64, element: Element::Int(8) };

/// Whether RCX says how often.
fn counts_by_rcx(form: &Form) -> bool {
    use Mnemonic as M;
    let loops =
        matches!(form.mnemonic, M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz);
    loops || form.is_string()
}

fn frame_pointer(draft: &mut Draft) {
    if draft.rng.percent(85) {
        let linear = STACK.start + 0x800 + draft.rng.below(0x100) * 8;
        let offset = linear.wrapping_sub(draft.base(SS));
        let bits = draft.stack_bits();
        draft.pin_low(RBP, bits, offset);
    }
}

/// After operands are chosen.
pub(super) fn after(draft: &mut Draft, form: &Form, chosen: &Chosen) {
    implied(draft, form, chosen);
    stack(draft, form);
    system(draft, form, chosen);
    values_of(draft, form, chosen);
}

/// Points registers to operands that they imply.
fn implied(draft: &mut Draft, form: &Form, chosen: &Chosen) {
    let Some(manner) = chosen.manner else { return };
    let segment = manner.segment.unwrap_or(DS);
    let access = Access::of(form.memory);
    for kind in &form.operands {
        match kind {
            Kind::seg_rSI => drop(address::point(draft, RSI, segment, manner.bits, access)),
            Kind::es_rDI => drop(address::point(draft, RDI, ES, manner.bits, access)),
            Kind::seg_rDI => drop(address::point(draft, RDI, segment, manner.bits, access)),
            Kind::seg_rBX_al => {
                let (offset, place) = address::offset(draft, segment, manner.bits, access);
                let al = draft.state.regs[0] & 0xff;
                draft.pin_low(RBX, manner.bits, offset.wrapping_sub(al));
                address::fill(draft, place, access);
            }
            _ => {}
        }
    }
}

/// What lies on the stack.
fn stack(draft: &mut Draft, form: &Form) {
    use Mnemonic as M;
    if !form.stack {
        return;
    }
    let size = match form.operand_size {
        0 => draft.width.bits(),
        size => size,
    } / 8;
    let cs = draft.state.selectors[segments::CS];
    let mut words = Vec::new();
    match form.mnemonic {
        M::Ret => words.push(code_offset(draft, cs)),
        M::Retf => far_frame(draft, &mut words, false),
        M::Iret | M::Iretd | M::Iretq => far_frame(draft, &mut words, true),
        M::Popf | M::Popfd | M::Popfq => {
            let flags = state::flags(&mut draft.rng) ^ draft.rng.below(1 << 22);
            words.push(if draft.rng.percent(90) { flags & !rflags::TF } else { flags });
        }
        M::Pop if pops_segment(form) => {
            let selector = draft.any_selector();
            words.push(u64::from(selector) | draft.rng.any() << 16);
        }
        _ => words.extend((0..4).map(|_| values::integer(&mut draft.rng, 64))),
    }
    let bits = draft.stack_bits();
    let mut offset = draft.state.regs[usize::from(RSP)] & u64::MAX >> (64 - bits);
    for word in words {
        let linear = draft.linear(SS, offset);
        draft.put_value(linear, word, size as usize);
        offset = offset.wrapping_add(u64::from(size)) & u64::MAX >> (64 - bits);
    }
}

fn pops_segment(form: &Form) -> bool {
    let segments = [Kind::es, Kind::ss, Kind::ds, Kind::fs, Kind::gs];
    form.operands.iter().any(|kind| segments.contains(kind))
}

/// What RETF and IRET return to: code of this level, of this width as a rule.
fn far_frame(draft: &mut Draft, words: &mut Vec<u64>, flags: bool) {
    let same = draft.rng.percent(50);
    let cs = match same {
        true => draft.state.selectors[segments::CS],
        false => draft.any_selector(),
    };
    words.push(code_offset(draft, cs));
    words.push(u64::from(cs));
    if flags {
        let flags = state::flags(&mut draft.rng);
        words.push(if draft.rng.percent(80) { flags & !rflags::TF } else { flags });
    }
    words.push(STACK.start + 0x1000);
    let ss = if same || draft.rng.percent(50) {
        draft.state.selectors[SS]
    } else {
        draft.any_selector()
    };
    words.push(u64::from(ss));
}

/// Selectors, far pointers, targets of indirect branches, images of state.
fn system(draft: &mut Draft, form: &Form, chosen: &Chosen) {
    use Mnemonic as M;
    let offset_size = (form.operand_size / 8).max(2) as usize;
    match form.mnemonic {
        M::Mov if form.operands.first() == Some(&Kind::seg_reg) => any_selector(draft, chosen),
        M::Lar | M::Lsl | M::Verr | M::Verw | M::Lldt | M::Ltr => any_selector(draft, chosen),
        M::Lds | M::Les | M::Lss | M::Lfs | M::Lgs => far_pointer(draft, form, chosen, offset_size),
        M::Jmp | M::Call if form.memory_is_far() => far_pointer(draft, form, chosen, offset_size),
        M::Jmp | M::Call => near_target(draft, chosen, offset_size),
        M::Wrfsbase | M::Wrgsbase if draft.rng.percent(60) => {
            let base = DATA.start + draft.rng.below(0x1000);
            give(draft, chosen, base, 8);
        }
        M::Ldmxcsr | M::Vldmxcsr if draft.rng.percent(85) => {
            let mxcsr = draft.rng.any() & 0xffbf | 0x1f80 & draft.rng.any();
            give(draft, chosen, mxcsr, 4);
        }
        M::Fldcw if draft.rng.percent(60) => {
            let control = 0x37f | draft.rng.any() & 0xf00;
            give(draft, chosen, control, 2);
        }
        M::Fldenv | M::Frstor if draft.rng.percent(60) => give(draft, chosen, 0x37f, 2),
        M::Fxrstor | M::Fxrstor64 => fxrstor_image(draft, chosen),
        M::Xrstor | M::Xrstor64 => xrstor_image(draft, chosen),
        _ => {}
    }
}

/// Gives the operand that is a register or memory a value, unless it must keep one.
fn give(draft: &mut Draft, chosen: &Chosen, value: u64, size: usize) {
    match (chosen.place, chosen.rm) {
        (Some(place), _) => draft.put_value(place.linear, value, size),
        (None, Some(register)) if !draft.is_pinned(register) => {
            draft.pin_low(register, size as u32 * 8, value);
        }
        _ => {}
    }
}

fn any_selector(draft: &mut Draft, chosen: &Chosen) {
    let selector = draft.any_selector();
    give(draft, chosen, u64::from(selector), 2);
}

fn far_pointer(draft: &mut Draft, form: &Form, chosen: &Chosen, size: usize) {
    let Some(place) = chosen.place else { return };
    let selector = if draft.rng.percent(40) { draft.any_selector() } else { fitting(draft, form) };
    let offset = code_offset(draft, selector);
    draft.put_value(place.linear, offset, size);
    draft.put_value(place.linear.wrapping_add(size as u64), u64::from(selector), 2);
    if size == 8 && draft.rng.percent(50) {
        // AMD's CPUs know no far pointers with offsets of 64 bits.
        draft.put_value(place.linear.wrapping_add(4), u64::from(selector), 2);
    }
}

/// A selector that the instruction can load.
pub(super) fn fitting(draft: &mut Draft, form: &Form) -> u16 {
    let entries: &[u16] = match form.mnemonic {
        Mnemonic::Lss => &[entry::DATA16, entry::STACK16, entry::STACK32, entry::PAGES],
        Mnemonic::Jmp | Mnemonic::Call => &[entry::CODE16, entry::CODE32, entry::EXECUTE_ONLY],
        _ => &LOADABLE,
    };
    let code = matches!(form.mnemonic, Mnemonic::Jmp | Mnemonic::Call);
    let flat = if code { [selector::CODE32, selector::CODE64] } else { [selector::DATA; 2] };
    if draft.has_ldt() && draft.rng.percent(60) {
        selector::local(draft.rng.pick(entries))
    } else {
        draft.rng.pick(&flat)
    }
}

fn near_target(draft: &mut Draft, chosen: &Chosen, size: usize) {
    let cs = draft.state.selectors[segments::CS];
    let target = code_offset(draft, cs);
    give(draft, chosen, target, size);
}

/// MXCSR in the image of FXRSTOR, and where XRSTOR has it too.
const IMAGE_MXCSR: u64 = 24;

fn fxrstor_image(draft: &mut Draft, chosen: &Chosen) {
    let Some(Place { linear }) = chosen.place else { return };
    if draft.rng.percent(60) {
        draft.put_value(linear, 0x37f, 2);
    }
    if draft.rng.percent(90) {
        let mxcsr = 0x1f80 | draft.rng.any() & 0xe03f;
        draft.put_value(linear.wrapping_add(IMAGE_MXCSR), mxcsr, 4);
    }
}

/// The header of XRSTOR's image: XSTATE_BV, XCOMP_BV, and what must be zero.
/// Intel SDM vol. 1, 13.4.2.
fn xrstor_image(draft: &mut Draft, chosen: &Chosen) {
    let Some(Place { linear }) = chosen.place else { return };
    fxrstor_image(draft, chosen);
    let header = linear.wrapping_add(512);
    let mut words = [0; 8];
    words[0] = draft.rng.below(8);
    match draft.rng.below(16) {
        // The compacted form.
        0..=4 => words[1] = 1 << 63 | words[0] | draft.rng.below(8),
        // Components that do not exist, and what is reserved.
        5 => words[0] |= rare(draft),
        6 => words[1] = rare(draft),
        7 => words[draft.rng.below(6) as usize + 2] = values::integer(&mut draft.rng, 64),
        _ => {}
    }
    for (at, word) in (header..).step_by(8).zip(words) {
        draft.put_value(at, word, 8);
    }
}

/// A bit of a component that no CPU has that user code runs on.
fn rare(draft: &mut Draft) -> u64 {
    1 << draft.rng.pick(&[20, 40, 61, 62, 63])
}

/// Values that decide what the instruction does.
fn values_of(draft: &mut Draft, form: &Form, chosen: &Chosen) {
    use Mnemonic as M;
    match form.mnemonic {
        M::Bt | M::Bts | M::Btr | M::Btc => bit_offset(draft, chosen),
        M::Cmpxchg if draft.rng.percent(50) => {
            // So that they are equal.
            let size = (form.memory.size() as u32).clamp(1, 8);
            let rax = draft.state.regs[0];
            match (chosen.place, chosen.rm) {
                (Some(place), _) => draft.put_value(place.linear, rax, size as usize),
                (None, Some(register)) if !draft.is_pinned(register) => {
                    draft.pin_low(register, size * 8, rax);
                }
                _ => {}
            }
        }
        M::Bound => bounds(draft, form, chosen),
        M::Cmpxchg8b | M::Cmpxchg16b if draft.rng.percent(50) => {
            let size = form.memory.size() / 2;
            let (rax, rdx) = (draft.state.regs[0], draft.state.regs[2]);
            if let Some(Place { linear }) = chosen.place {
                draft.put_value(linear, rax, size);
                draft.put_value(linear.wrapping_add(size as u64), rdx, size);
            }
        }
        _ => {}
    }
}

/// Bounds around the index, or near it.
fn bounds(draft: &mut Draft, form: &Form, chosen: &Chosen) {
    let (Some(Place { linear }), Some(register)) = (chosen.place, chosen.reg) else { return };
    let size = form.operand_size as usize / 8;
    let index = draft.state.regs[usize::from(register)];
    for n in [0, size] {
        let near = draft.rng.between(-2, 2) as u64;
        let apart = if n == 0 { 2 } else { 4 };
        let bound = index.wrapping_add(near).wrapping_add(apart).wrapping_sub(3);
        draft.put_value(linear.wrapping_add(n as u64), bound, size);
    }
}

/// The bit offset in a register reaches far beyond the operand; mostly not so far.
fn bit_offset(draft: &mut Draft, chosen: &Chosen) {
    if let (Some(_), Some(register)) = (chosen.place, chosen.reg)
        && !draft.is_pinned(register)
        && draft.rng.percent(80)
    {
        let offset = draft.rng.between(-600, 600) as u64;
        draft.pin(register, offset);
    }
}
