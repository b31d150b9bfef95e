//! What SIMD instructions are put together from: where operands are, what is computed, and the
//! handlers that join these.
//!
//! Each instruction has a general function, which does all of it with all checks. Handlers are
//! short cuts for the usual case; where that is not given, they leave the instruction to the
//! general function, again as their last act.

use std::marker::PhantomData;

use iced_x86::Instruction;
use trivium_cpu::bits::{cr0, cr4};
use trivium_cpu::{Exception, Vector};
use trivium_host_fpu::simd::{MmxOp, SimdImmOp, SimdOp};
use trivium_host_fpu::{Mxcsr, SseOp, SseResult, V128};

use crate::block::{Block, BlockCache};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Addressing, Rights, Scalar};
use crate::op::{Handler, Op, Stop, StopReason};
use crate::{load_at, next, store_at};

/// A kind of register.
pub trait Place {
    /// An MMX register: the instruction turns the x87 unit over to MMX.
    const MMX: bool = false;
    /// The instruction needs CR4.OSFXSR.
    const SSE: bool = false;
    /// The value, zero-extended.
    fn get(cpu: &Cpu, number: u8) -> V128;
    /// Writes the value, of which the register holds the low part.
    fn put(cpu: &mut Cpu, number: u8, value: V128);
}

/// An XMM register. Writes leave the upper half of the YMM register as it is.
pub struct Xmm;
/// An MMX register.
pub struct Mm;
/// A general register; written whole, as values are zero-extended.
pub struct Gpr;
/// As destination of compares: reads an XMM register, writes the arithmetic flags.
pub struct Status;

impl Place for Xmm {
    const SSE: bool = true;
    #[inline(always)]
    fn get(cpu: &Cpu, number: u8) -> V128 {
        let [low, high, _, _] = cpu.vector.regs[usize::from(number & 15)];
        [low, high]
    }
    #[inline(always)]
    fn put(cpu: &mut Cpu, number: u8, value: V128) {
        let [low, high, _, _] = &mut cpu.vector.regs[usize::from(number & 15)];
        [*low, *high] = value;
    }
}

impl Place for Mm {
    const MMX: bool = true;
    #[inline(always)]
    fn get(cpu: &Cpu, number: u8) -> V128 {
        [cpu.x87.regs[usize::from(number & 7)].mantissa, 0]
    }
    /// The bits above the MMX register are set. Intel SDM vol. 1, 9.5.1.
    #[inline(always)]
    fn put(cpu: &mut Cpu, number: u8, value: V128) {
        let reg = &mut cpu.x87.regs[usize::from(number & 7)];
        reg.mantissa = value[0];
        reg.sign_exponent = 0xffff;
    }
}

impl Place for Gpr {
    #[inline(always)]
    fn get(cpu: &Cpu, number: u8) -> V128 {
        [cpu.regs[usize::from(number)], 0]
    }
    #[inline(always)]
    fn put(cpu: &mut Cpu, number: u8, value: V128) {
        cpu.regs[usize::from(number)] = value[0];
    }
}

impl Place for Status {
    const SSE: bool = true;
    #[inline(always)]
    fn get(cpu: &Cpu, number: u8) -> V128 {
        Xmm::get(cpu, number)
    }
    #[inline(always)]
    fn put(cpu: &mut Cpu, _: u8, value: V128) {
        cpu.flags.set_explicit(value[0]);
    }
}

/// When memory operands must be aligned.
#[derive(Clone, Copy, PartialEq)]
pub enum Aligned {
    /// Never.
    Never,
    /// Unless MXCSR.MM is set: then their alignment is checked as that of others. AMD APM vol. 1,
    /// 4.3.2, and vol. 2, 11.5.10.
    Usually,
    /// Always.
    Always,
}

/// MXCSR: misaligned exception mask.
const MM: u32 = 1 << 17;

/// A part of a vector, as it is in memory.
pub trait Part {
    /// What is loaded and stored.
    type Value: Scalar;
    /// Whether the address must be a multiple of 16.
    const ALIGNED: Aligned = Aligned::Never;
    /// How many bytes of a segment are looked at.
    const CHECKED: usize = match Self::ALIGNED {
        Aligned::Never => size_of::<Self::Value>(),
        Aligned::Usually | Aligned::Always => 16,
    };
    /// A vector with this part, zero elsewhere.
    fn widen(value: Self::Value) -> V128;
    /// This part of a vector.
    fn narrow(vector: V128) -> Self::Value;
}

macro_rules! part {
    ($(#[$doc:meta])* $name:ident: $t:ty, $aligned:ident,
     |$value:ident| $widen:expr, |$vector:ident| $narrow:expr) => {
        $(#[$doc])*
        pub struct $name;
        impl Part for $name {
            type Value = $t;
            const ALIGNED: Aligned = Aligned::$aligned;
            #[inline(always)]
            fn widen($value: $t) -> V128 {
                $widen
            }
            #[inline(always)]
            fn narrow($vector: V128) -> $t {
                $narrow
            }
        }
    };
}
part!(/** The lowest byte. */ Byte: u8, Never, |x| [x.into(), 0], |v| v[0] as u8);
part!(/** The lowest word. */ Half: u16, Never, |x| [x.into(), 0], |v| v[0] as u16);
part!(/** The lowest doubleword or single. */ Single: u32, Never, |x| [x.into(), 0], |v| v[0] as u32);
part!(/** The low quadword or double. */ Double: u64, Never, |x| [x, 0], |v| v[0]);
part!(/** The high quadword or double. */ High: u64, Never, |x| [0, x], |v| v[1]);
part!(/** All, aligned unless MXCSR.MM is set. */ Whole: [u64; 2], Usually, |x| x, |v| v);
part!(/** The low half of what is aligned as a whole. */ LowHalf: u64, Usually, |x| [x, 0], |v| v[0]);
part!(/** All, aligned, of a move. */ Strict: [u64; 2], Always, |x| x, |v| v);
part!(/** All, at any address. */ Loose: [u64; 2], Never, |x| x, |v| v);

/// What an instruction computes.
pub trait Compute {
    /// It obeys MXCSR.
    const FLOAT: bool = false;
    /// The result under the control bits that MXCSR has after reset.
    fn quick(op: &Op, dst: V128, src: V128) -> SseResult;
    /// The result in general.
    #[inline(always)]
    fn full(_mxcsr: Mxcsr, op: &Op, dst: V128, src: V128) -> SseResult {
        Self::quick(op, dst, src)
    }
}

/// A result without floating-point flags.
#[inline(always)]
#[must_use]
pub fn exact(value: V128) -> SseResult {
    SseResult { value, flags: 0 }
}

/// A vector instruction without flags.
pub struct Simd<O>(PhantomData<O>);
/// One with an immediate.
pub struct SimdImm<O>(PhantomData<O>);
/// A shift by an immediate.
pub struct Shift<O>(PhantomData<O>);
/// An MMX instruction.
pub struct Mmx<O>(PhantomData<O>);
/// An MMX shift by an immediate.
pub struct MmxShift<O>(PhantomData<O>);
/// A floating-point instruction.
pub struct Float<O>(PhantomData<O>);

impl<O: SimdOp> Compute for Simd<O> {
    #[inline(always)]
    fn quick(_: &Op, dst: V128, src: V128) -> SseResult {
        exact(O::apply(dst, src))
    }
}

impl<O: SimdImmOp> Compute for SimdImm<O> {
    #[inline(always)]
    fn quick(op: &Op, dst: V128, src: V128) -> SseResult {
        exact(O::apply_imm(dst, src, op.imm as u8))
    }
}

impl<O: SimdOp> Compute for Shift<O> {
    #[inline(always)]
    fn quick(op: &Op, dst: V128, _: V128) -> SseResult {
        exact(O::apply(dst, [op.imm & 0xff, 0]))
    }
}

impl<O: MmxOp> Compute for Mmx<O> {
    #[inline(always)]
    fn quick(_: &Op, dst: V128, src: V128) -> SseResult {
        exact([O::apply_mmx(dst[0], src[0]), 0])
    }
}

impl<O: MmxOp> Compute for MmxShift<O> {
    #[inline(always)]
    fn quick(op: &Op, dst: V128, _: V128) -> SseResult {
        exact([O::apply_mmx(dst[0], op.imm & 0xff), 0])
    }
}

impl<O: SseOp> Compute for Float<O> {
    const FLOAT: bool = true;
    #[inline(always)]
    fn quick(_: &Op, dst: V128, src: V128) -> SseResult {
        O::execute_default(dst, src)
    }
    #[inline(always)]
    fn full(mxcsr: Mxcsr, _: &Op, dst: V128, src: V128) -> SseResult {
        O::apply(mxcsr, dst, src)
    }
}

/// Defines computations: name, and the result of destination and source.
macro_rules! computations {
    ($($(#[$doc:meta])* $name:ident |$dst:ident, $src:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Compute for $name {
            #[inline(always)]
            fn quick(_: &Op, $dst: V128, $src: V128) -> SseResult {
                exact($body)
            }
        }
    )*};
}
pub(super) use computations;

/// Defines computations with an immediate.
macro_rules! immediate_computations {
    ($($(#[$doc:meta])* $name:ident |$dst:ident, $src:ident, $imm:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Compute for $name {
            #[inline(always)]
            fn quick(op: &Op, $dst: V128, $src: V128) -> SseResult {
                let $imm = op.imm as u8;
                exact($body)
            }
        }
    )*};
}
pub(super) use immediate_computations;

/// Whether a handler may go its short way.
#[inline(always)]
fn usual<C: Compute>(cpu: &Cpu) -> bool {
    !cpu.sse_blocked && (!C::FLOAT || Mxcsr(cpu.vector.mxcsr).is_default())
}

/// [`crate::op::general`], kept out of the handlers.
#[cold]
#[inline(never)]
fn unusual(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    crate::op::general(cpu, op, rest, block, links);
}

fn reg<D: Place, S: Place, C: Compute>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    if !usual::<C>(cpu) {
        return unusual(cpu, op, rest, block, links);
    }
    let result = C::quick(op, D::get(cpu, op.dst), S::get(cpu, op.src));
    if C::FLOAT {
        cpu.vector.mxcsr |= result.flags;
    }
    D::put(cpu, op.dst, result.value);
    next!(cpu, rest, block, links)
}

fn mem<A: Addressing, P: Part, D: Place, C: Compute>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    if !usual::<C>(cpu) {
        return unusual(cpu, op, rest, block, links);
    }
    let Ok(linear) = A::linear(cpu, op, P::CHECKED, false) else {
        return cpu.stop_at(StopReason::Exception, rest.len(), block);
    };
    if P::ALIGNED != Aligned::Never && linear & 15 != 0 {
        return unusual(cpu, op, rest, block, links);
    }
    let src = P::widen(load_at!(P::Value, linear, cpu, op.seg, rest, block));
    let result = C::quick(op, D::get(cpu, op.dst), src);
    if C::FLOAT {
        cpu.vector.mxcsr |= result.flags;
    }
    D::put(cpu, op.dst, result.value);
    next!(cpu, rest, block, links)
}

fn to_mem<A: Addressing, P: Part, S: Place>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    if S::SSE && cpu.sse_blocked {
        return unusual(cpu, op, rest, block, links);
    }
    let Ok(linear) = A::linear(cpu, op, P::CHECKED, true) else {
        return cpu.stop_at(StopReason::Exception, rest.len(), block);
    };
    if P::ALIGNED != Aligned::Never && linear & 15 != 0 {
        return unusual(cpu, op, rest, block, links);
    }
    let value = P::narrow(S::get(cpu, op.src));
    store_at!(P::Value, linear, value, cpu, op.seg, rest, block);
    next!(cpu, rest, block, links)
}

/// All of an instruction whose memory operand, if it has one, is its source.
fn whole<P: Part, D: Place, S: Place, C: Compute>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready::<D, S>(cpu)?;
    let src = if op.has_mem() { load::<P>(cpu, op)? } else { S::get(cpu, op.src) };
    let result = C::full(Mxcsr(cpu.vector.mxcsr), op, D::get(cpu, op.dst), src);
    // Even if #XM follows: the x87 unit has been turned over by then.
    if D::MMX || S::MMX {
        enter_mmx(cpu);
    }
    if C::FLOAT {
        raise_float(cpu, result.flags)?;
    }
    D::put(cpu, op.dst, result.value);
    Ok(())
}

/// All of an instruction that stores a part of a register.
fn whole_to_mem<P: Part, S: Place>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready::<S, S>(cpu)?;
    store::<P>(cpu, op, S::get(cpu, op.src))?;
    if S::MMX {
        enter_mmx(cpu);
    }
    Ok(())
}

/// Loads the memory operand.
///
/// # Errors
/// #GP(0) if it is not aligned as it must be; as [`Cpu::load_operand`].
pub fn load<P: Part>(cpu: &mut Cpu, op: &Op) -> Result<V128, Stop> {
    let linear = aligned::<P>(cpu, op, false)?;
    cpu.load_linear(linear, Rights::Program).map(P::widen)
}

/// Stores a part of a vector to the memory operand.
///
/// # Errors
/// #GP(0) if it is not aligned as it must be; as [`Cpu::store_operand`].
pub fn store<P: Part>(cpu: &mut Cpu, op: &Op, value: V128) -> Result<(), Stop> {
    let linear = aligned::<P>(cpu, op, true)?;
    cpu.store_linear(linear, P::narrow(value), Rights::Program)
}

fn aligned<P: Part>(cpu: &mut Cpu, op: &Op, write: bool) -> Result<u64, Stop> {
    let offset = cpu.offset(op);
    // Real processors look at the alignment first, so an address that is not canonical either
    // raises #GP even through SS.
    let place = cpu.regs[usize::from(op.seg_base())].wrapping_add(offset);
    let must_be = match P::ALIGNED {
        Aligned::Never => false,
        Aligned::Usually => cpu.vector.mxcsr & MM == 0,
        Aligned::Always => true,
    };
    if must_be && place & 15 != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let linear = cpu.linear(op.seg, offset, P::CHECKED as u64, write)?;
    if P::ALIGNED == Aligned::Usually {
        cpu.check_alignment(linear, 16)?;
    }
    Ok(linear)
}

/// Whether the operating system allows the instruction. Intel SDM vol. 3A, tables 13-1 and 11-1.
fn ready<D: Place, S: Place>(cpu: &mut Cpu) -> Result<(), Stop> {
    if D::SSE || S::SSE {
        sse_ready(cpu)?;
    }
    if D::MMX || S::MMX {
        mmx_ready(cpu)?;
    }
    Ok(())
}

/// #UD if the operating system does not know of SSE, #NM if it wants to be asked.
///
/// # Errors
/// These.
pub fn sse_ready(cpu: &mut Cpu) -> Result<(), Stop> {
    if !cpu.sse_blocked {
        return Ok(());
    }
    let unknown = cpu.control.cr0 & cr0::EM != 0 || cpu.control.cr4 & cr4::OSFXSR == 0;
    Err(cpu.raise(if unknown { Exception::ud() } else { Exception::plain(Vector::NM) }))
}

/// #UD if there is to be no x87 unit, #NM if the operating system wants to be asked, and what a
/// pending x87 exception raises.
///
/// # Errors
/// These.
pub fn mmx_ready(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.control.cr0 & cr0::EM != 0 {
        Err(cpu.raise(Exception::ud()))
    } else if cpu.x87_blocked {
        Err(cpu.raise(Exception::plain(Vector::NM)))
    } else {
        cpu.x87_check_pending()
    }
}

/// Bits of the x87 status word that hold TOP.
const TOP: u16 = 7 << 11;

/// Every MMX instruction sets TOP to 0 and all tags to valid. Intel SDM vol. 3A, table 12-2.
pub fn enter_mmx(cpu: &mut Cpu) {
    cpu.x87.status &= !TOP;
    cpu.x87.tags = 0;
}

/// Adds flags to MXCSR.
///
/// # Errors
/// #XM if one of them is unmasked, or #UD if the operating system does not know of it. The
/// instruction then changes nothing else.
pub fn raise_float(cpu: &mut Cpu, flags: u32) -> Result<(), Stop> {
    let (mxcsr, unmasked) = Mxcsr(cpu.vector.mxcsr).raise(flags);
    cpu.vector.mxcsr = mxcsr.0;
    if !unmasked {
        return Ok(());
    }
    let known = cpu.control.cr4 & cr4::OSXMMEXCPT != 0;
    Err(cpu.raise(if known { Exception::plain(Vector::XM) } else { Exception::ud() }))
}

/// The handler for the addressing at hand; operands in segments with checks are left to the
/// general function.
macro_rules! pick_flat {
    ($kind:expr, $f:ident $(, $g:tt)*) => {{
        use $crate::decode::AddressKind as K;
        use $crate::mem::{Flat32, Flat64, Simple64};
        let handler: Handler = match $kind {
            K::Simple64 => $f::<Simple64 $(, $g)*>,
            K::Flat64 => $f::<Flat64 $(, $g)*>,
            K::Flat32 => $f::<Flat32 $(, $g)*>,
            K::Segmented => crate::op::general,
        };
        handler
    }};
}

/// Selects handlers for an instruction on XMM and general registers, or with `P` as its source.
#[must_use]
pub fn sse<P: Part, D: Place, S: Place, C: Compute>(
    i: &Instruction,
    context: &Context,
) -> Selection {
    let mut op = context.op(i);
    op.general = whole::<P, D, S, C>;
    let run = if op.has_mem() {
        pick_flat!(context.address_kind(&op), mem, P, D, C)
    } else {
        reg::<D, S, C>
    };
    Selection::memory(op, run)
}

/// The same, with a handler of its own only for registers.
#[must_use]
pub fn sse_reg<P: Part, D: Place, S: Place, C: Compute>(
    i: &Instruction,
    context: &Context,
) -> Selection {
    let mut op = context.op(i);
    op.general = whole::<P, D, S, C>;
    let run: Handler = if op.has_mem() { crate::op::general } else { reg::<D, S, C> };
    Selection::memory(op, run)
}

/// Selects the general function for an instruction, on registers of any kind.
#[must_use]
pub fn plain<P: Part, D: Place, S: Place, C: Compute>(
    i: &Instruction,
    context: &Context,
) -> Selection {
    Selection::general(context.op(i), whole::<P, D, S, C>)
}

/// Selects handlers for the store of a part of an XMM or general register.
#[must_use]
pub fn sse_store<P: Part, S: Place>(i: &Instruction, context: &Context) -> Selection {
    let mut op = context.op(i);
    op.general = whole_to_mem::<P, S>;
    let run = pick_flat!(context.address_kind(&op), to_mem, P, S);
    Selection::memory(op, run)
}

/// Selects the general function for the store of a part of a register.
#[must_use]
pub fn plain_store<P: Part, S: Place>(i: &Instruction, context: &Context) -> Selection {
    Selection::general(context.op(i), whole_to_mem::<P, S>)
}

/// Whether an instruction has an MMX register as operand.
#[must_use]
pub fn has_mmx(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| i.op_register(n).is_mm())
}
