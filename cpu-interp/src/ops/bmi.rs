//! BMI1 and BMI2: VEX-encoded instructions on general registers. Intel SDM vol. 1, 5.1.16; AMD APM
//! vol. 3.

use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::rflags::{AF, CF, PF, ZF};

use crate::block::{Block, BlockCache};
use crate::cpu::{Cpu, Mode};
use crate::decode::{Context, Selection};
use crate::flags::Flags;
use crate::mem::{Addressing, Int};
use crate::op::{Handler, Op};
use crate::{load, next, pick_address};

const RDX: u8 = 2;

/// An instruction with two sources: `a` is the one in a register or memory, `b` the other.
pub trait Binary {
    /// The result, which need not be cut to the width; both sources are.
    fn apply<T: Int>(flags: &mut Flags, a: u64, b: u64) -> u64;
}

/// Bits of a width.
fn width<T: Int>() -> u64 {
    u64::from(T::SIGN) + 1
}

/// The low `count` bits.
fn low_bits(count: u64) -> u64 {
    if count >= 64 { !0 } else { (1 << count) - 1 }
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident $t:ident |$flags:ident, $a:ident, $b:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Binary for $name {
            #[inline(always)]
            fn apply<$t: Int>($flags: &mut Flags, $a: u64, $b: u64) -> u64 {
                $body
            }
        }
    )*};
}

// Flags that the manuals leave undefined are as AMD's Zen processors have them: PF follows the
// result, AF is clear but for BEXTR, SF clear after BEXTR.
binary! {
    /// ANDN.
    Andn T |flags, a, b| {
        let result = a & !b;
        flags.set_logic(T::SIGN, result);
        result
    };
    /// BEXTR.
    Bextr T |flags, a, b| {
        let (start, length) = (b & 0xff, b >> 8 & 0xff);
        let shifted = if start >= 64 { 0 } else { a >> start };
        let result = shifted & low_bits(length);
        let zf = if result == 0 { ZF } else { 0 };
        let pf = if (result as u8).count_ones() & 1 == 0 { PF } else { 0 };
        flags.set_explicit(AF | zf | pf);
        result
    };
    /// BLSI.
    Blsi T |flags, a, _b| {
        let result = a & a.wrapping_neg();
        flags.set_result(T::SIGN, result, if a != 0 { CF } else { 0 });
        result
    };
    /// BLSMSK.
    Blsmsk T |flags, a, _b| {
        let result = (a ^ a.wrapping_sub(1)) & T::MASK;
        flags.set_result(T::SIGN, result, if a == 0 { CF } else { 0 });
        result
    };
    /// BLSR.
    Blsr T |flags, a, _b| {
        let result = a & a.wrapping_sub(1);
        flags.set_result(T::SIGN, result, if a == 0 { CF } else { 0 });
        result
    };
    /// BZHI.
    Bzhi T |flags, a, b| {
        let index = b & 0xff;
        let result = a & low_bits(index);
        flags.set_result(T::SIGN, result, if index >= width::<T>() { CF } else { 0 });
        result
    };
    /// PDEP.
    Pdep T |_flags, a, b| deposit(b, a);
    /// PEXT.
    Pext T |_flags, a, b| extract(b, a);
    /// SARX.
    Sarx T |_flags, a, b| {
        let up = 63 - T::SIGN;
        ((a << up) as i64 >> up >> (b & u64::from(T::SIGN))) as u64
    };
    /// SHLX.
    Shlx T |_flags, a, b| a << (b & u64::from(T::SIGN));
    /// SHRX.
    Shrx T |_flags, a, b| a >> (b & u64::from(T::SIGN));
}

/// The low bits of `value`, put where `mask` has bits.
fn deposit(mut value: u64, mut mask: u64) -> u64 {
    let mut result = 0;
    while mask != 0 {
        let bit = mask & mask.wrapping_neg();
        if value & 1 != 0 {
            result |= bit;
        }
        value >>= 1;
        mask ^= bit;
    }
    result
}

/// The bits of `value` where `mask` has bits, put together at the low end.
fn extract(value: u64, mut mask: u64) -> u64 {
    let (mut result, mut at) = (0, 1_u64);
    while mask != 0 {
        let bit = mask & mask.wrapping_neg();
        if value & bit != 0 {
            result |= at;
        }
        at <<= 1;
        mask ^= bit;
    }
    result
}

/// `aux` of the operation is the number of the other source.
fn binary_reg<T: Int, O: Binary>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let (a, b) = (T::get(cpu, op.src, 0), T::get(cpu, op.aux, 0));
    let result = O::apply::<T>(&mut cpu.flags, a, b);
    T::set(cpu, op.dst, 0, result);
    next!(cpu, rest, block, links)
}

fn binary_mem<A: Addressing, T: Int, O: Binary>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let a: u64 = load!(A, T, cpu, op, rest, block).into();
    let b = T::get(cpu, op.aux, 0);
    let result = O::apply::<T>(&mut cpu.flags, a, b);
    T::set(cpu, op.dst, 0, result);
    next!(cpu, rest, block, links)
}

/// RORX.
fn rorx<T: Int>(a: u64, count: u64) -> u64 {
    let count = count & u64::from(T::SIGN);
    if count == 0 { a } else { a >> count | a << (width::<T>() - count) }
}

fn rorx_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let result = rorx::<T>(T::get(cpu, op.src, 0), op.imm);
    T::set(cpu, op.dst, 0, result);
    next!(cpu, rest, block, links)
}

fn rorx_mem<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let a: u64 = load!(A, T, cpu, op, rest, block).into();
    let result = rorx::<T>(a, op.imm);
    T::set(cpu, op.dst, 0, result);
    next!(cpu, rest, block, links)
}

/// MULX: the upper half to `dst`, the lower to `src`; if these are one, it has the upper half.
#[inline(always)]
fn mulx<T: Int>(cpu: &mut Cpu, op: &Op, a: u64) {
    let product = u128::from(a) * u128::from(T::get(cpu, RDX, 0));
    T::set(cpu, op.src, 0, product as u64);
    T::set(cpu, op.dst, 0, (product >> width::<T>()) as u64);
}

fn mulx_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let a = T::get(cpu, op.aux2, 0);
    mulx::<T>(cpu, op, a);
    next!(cpu, rest, block, links)
}

fn mulx_mem<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let a: u64 = load!(A, T, cpu, op, rest, block).into();
    mulx::<T>(cpu, op, a);
    next!(cpu, rest, block, links)
}

/// The operands, the source in a register or memory as `src`, the other as `aux`.
fn operands(i: &Instruction, context: &Context) -> Op {
    let mut op = context.op(i);
    // BLSI and its like have their destination in VEX.vvvv; PDEP, PEXT and ANDN their first source.
    let last_is_rm = i.op_count() == 3
        && matches!(i.mnemonic(), Mnemonic::Andn | Mnemonic::Pdep | Mnemonic::Pext);
    if last_is_rm {
        (op.src, op.aux) = (op.aux2, op.src);
    } else {
        op.aux = op.aux2;
    }
    op
}

/// Selects the instance of a handler for 32 or 64 bits.
macro_rules! select_width {
    ($op:expr, $context:expr, $reg:ident, $mem:ident $(, $g:tt)*) => {{
        let op: Op = $op;
        let kind = $context.address_kind(&op);
        match (op.has_mem(), op.size) {
            (false, 4) => Selection::register(op, $reg::<u32 $(, $g)*> as Handler),
            (false, _) => Selection::register(op, $reg::<u64 $(, $g)*> as Handler),
            (true, 4) => Selection::memory(op, pick_address!(kind, $mem, u32 $(, $g)*)),
            (true, _) => Selection::memory(op, pick_address!(kind, $mem, u64 $(, $g)*)),
        }
    }};
}

fn binary<O: Binary>(i: &Instruction, context: &Context) -> Selection {
    select_width!(operands(i, context), context, binary_reg, binary_mem, O)
}

/// Chooses handlers for the instructions of this group. In real and virtual-8086 mode there is no
/// VEX prefix (Intel SDM vol. 2A, 2.8).
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    if i.code().encoding() != EncodingKind::VEX || i.op_kind(0) != OpKind::Register {
        return None;
    }
    let select = match i.mnemonic() {
        M::Andn => binary::<Andn>,
        M::Bextr => binary::<Bextr>,
        M::Blsi => binary::<Blsi>,
        M::Blsmsk => binary::<Blsmsk>,
        M::Blsr => binary::<Blsr>,
        M::Bzhi => binary::<Bzhi>,
        M::Pdep => binary::<Pdep>,
        M::Pext => binary::<Pext>,
        M::Sarx => binary::<Sarx>,
        M::Shlx => binary::<Shlx>,
        M::Shrx => binary::<Shrx>,
        M::Rorx => |i: &Instruction, context: &Context| {
            select_width!(context.op(i), context, rorx_reg, rorx_mem)
        },
        M::Mulx => |i: &Instruction, context: &Context| {
            select_width!(context.op(i), context, mulx_reg, mulx_mem)
        },
        _ => return None,
    };
    if !context.mode.has(Mode::PROTECTED) {
        return Some(crate::ops::control::undefined());
    }
    Some(select(i, context))
}

#[cfg(test)]
#[path = "bmi_tests.rs"]
mod tests;
