//! SSE4.2's string compares: PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM.
//! Intel SDM vol. 2A, 4.1, whose names for steps and results are used here.

use iced_x86::{Code, Instruction};
use trivium_cpu::bits::rflags;
use trivium_host_fpu::V128;

use super::sse_form::{Loose, Place, Xmm, load, sse_ready};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{GeneralFn, Op, Stop};

/// The immediate byte.
#[derive(Clone, Copy)]
struct Control(u8);

impl Control {
    fn words(self) -> bool {
        self.0 & 1 != 0
    }
    fn signed(self) -> bool {
        self.0 & 2 != 0
    }
    fn aggregation(self) -> u8 {
        self.0 >> 2 & 3
    }
    fn polarity(self) -> u8 {
        self.0 >> 4 & 3
    }
    /// The index is that of the most significant bit; the mask has a byte or word a character.
    fn bit6(self) -> bool {
        self.0 & 0x40 != 0
    }
    /// Characters in a vector.
    fn count(self) -> usize {
        if self.words() { 8 } else { 16 }
    }
}

/// An operand: its characters, and how many of them are valid.
struct Text {
    chars: [i32; 16],
    len: usize,
}

impl Text {
    fn new(v: V128, control: Control) -> Self {
        let mut chars = [0; 16];
        let width = 128 / control.count() as u32;
        let whole = u128::from(v[1]) << 64 | u128::from(v[0]);
        for (n, c) in (0..).zip(chars.iter_mut().take(control.count())) {
            let raw = whole >> (n * width);
            *c = match (control.words(), control.signed()) {
                (false, false) => i32::from(raw as u8),
                (false, true) => i32::from(raw as i8),
                (true, false) => i32::from(raw as u16),
                (true, true) => i32::from(raw as i16),
            };
        }
        Self { chars, len: control.count() }
    }

    /// Ends at the first null.
    fn implicit(self, control: Control) -> Self {
        let valid = self.chars.iter().take(control.count());
        let len = valid.take_while(|c| **c != 0).count();
        Self { len, ..self }
    }

    /// Has the length that a register says, whatever its sign.
    fn explicit(self, length: i64, control: Control) -> Self {
        let len = length.unsigned_abs().min(control.count() as u64) as usize;
        Self { len, ..self }
    }

    fn valid(&self) -> &[i32] {
        self.chars.get(..self.len).unwrap_or_default()
    }
}

/// Bit `j` of IntRes1: whether character `j` of the second operand fits the first.
fn fits(a: &Text, b: &Text, j: usize, control: Control) -> bool {
    let (Some(&c), valid) = (b.chars.get(j), j < b.len) else { return false };
    match control.aggregation() {
        0 => valid && a.valid().contains(&c),
        1 => valid && a.valid().chunks_exact(2).any(|range| (range[0]..=range[1]).contains(&c)),
        2 => match (j < a.len, valid) {
            (true, true) => a.chars.get(j) == Some(&c),
            (in_a, in_b) => in_a == in_b,
        },
        _ => {
            let rest = control.count() - j;
            a.valid().iter().take(rest).zip(j..).all(|(c, k)| b.valid().get(k) == Some(c))
        }
    }
}

/// IntRes2.
fn compare(a: &Text, b: &Text, control: Control) -> u32 {
    let bits = |condition: &dyn Fn(usize) -> bool| {
        (0..control.count()).map(|j| u32::from(condition(j)) << j).sum::<u32>()
    };
    let result = bits(&|j| fits(a, b, j, control));
    match control.polarity() {
        1 => result ^ bits(&|_| true),
        3 => result ^ bits(&|j| j < b.len),
        _ => result,
    }
}

/// What is compared, and how.
struct Compared {
    result: u32,
    control: Control,
}

fn compared(cpu: &mut Cpu, op: &Op, explicit: Option<bool>) -> Result<Compared, Stop> {
    sse_ready(cpu)?;
    let control = Control(op.imm as u8);
    let src = if op.has_mem() { load::<Loose>(cpu, op)? } else { Xmm::get(cpu, op.src) };
    let (a, b) = (Text::new(Xmm::get(cpu, op.dst), control), Text::new(src, control));
    let (a, b) = match explicit {
        None => (a.implicit(control), b.implicit(control)),
        Some(wide) => {
            let length = |r: u64| if wide { r as i64 } else { i64::from(r as i32) };
            let (rax, rdx) = (length(cpu.regs[0]), length(cpu.regs[2]));
            (a.explicit(rax, control), b.explicit(rdx, control))
        }
    };
    let result = compare(&a, &b, control);
    let flag = |condition: bool, flag: u64| if condition { flag } else { 0 };
    let flags = flag(result != 0, rflags::CF)
        | flag(b.len < control.count(), rflags::ZF)
        | flag(a.len < control.count(), rflags::SF)
        | flag(result & 1 != 0, rflags::OF);
    cpu.flags.set_explicit(flags);
    Ok(Compared { result, control })
}

/// The index of a bit goes to ECX.
pub(super) fn index(cpu: &mut Cpu, op: &Op, explicit: Option<bool>) -> Result<(), Stop> {
    let Compared { result, control } = compared(cpu, op, explicit)?;
    cpu.regs[1] = match (result, control.bit6()) {
        (0, _) => control.count() as u64,
        (_, false) => result.trailing_zeros().into(),
        (_, true) => result.ilog2().into(),
    };
    Ok(())
}

/// A mask goes to XMM0.
pub(super) fn mask(cpu: &mut Cpu, op: &Op, explicit: Option<bool>) -> Result<(), Stop> {
    let Compared { result, control } = compared(cpu, op, explicit)?;
    let mut value = u128::from(result);
    if control.bit6() {
        let width = 128 / control.count() as u32;
        let lane = u128::MAX >> (128 - width);
        let lanes = (0..control.count() as u32).filter(|n| result >> n & 1 != 0);
        value = lanes.map(|n| lane << (n * width)).sum();
    }
    Xmm::put(cpu, 0, [value as u64, (value >> 64) as u64]);
    Ok(())
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Code as C;
    let function: GeneralFn = match i.code() {
        C::Pcmpistri_xmm_xmmm128_imm8 => |cpu, op| index(cpu, op, None),
        C::Pcmpistrm_xmm_xmmm128_imm8 => |cpu, op| mask(cpu, op, None),
        C::Pcmpestri_xmm_xmmm128_imm8 => |cpu, op| index(cpu, op, Some(false)),
        C::Pcmpestri64_xmm_xmmm128_imm8 => |cpu, op| index(cpu, op, Some(true)),
        C::Pcmpestrm_xmm_xmmm128_imm8 => |cpu, op| mask(cpu, op, Some(false)),
        C::Pcmpestrm64_xmm_xmmm128_imm8 => |cpu, op| mask(cpu, op, Some(true)),
        _ => return None,
    };
    Some(Selection::general(context.op(i), function))
}
