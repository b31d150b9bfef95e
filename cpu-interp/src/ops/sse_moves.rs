//! SSE to SSE3 moves between XMM registers, general registers and memory.

use iced_x86::{Code, Instruction, Mnemonic};
use trivium_host_fpu::{SseResult, V128, simd};

use super::sse_form::{
    Compute, Double, Gpr, High, Loose, Mm, Part, Single, Strict, Whole, Xmm, computations,
    enter_mmx, exact, has_mmx, mmx_ready, plain, sse, sse_ready, sse_reg, sse_store,
};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::op::{Op, Stop};

const LOW: u64 = 0xffff_ffff;

/// The single of a quadword at bit `at`, twice.
#[inline(always)]
fn twice(x: u64, at: u32) -> u64 {
    let single = x >> at & LOW;
    single << 32 | single
}

computations! {
    /// The source.
    Move |_dst, src| src;
    /// The source's low single, zero elsewhere.
    LowSingle |_dst, src| [src[0] & LOW, 0];
    /// The source's low quadword, zero elsewhere.
    LowDouble |_dst, src| [src[0], 0];
    /// The low single is replaced.
    PutSingle |dst, src| [dst[0] & !LOW | src[0] & LOW, dst[1]];
    /// The low quadword is replaced.
    PutLow |dst, src| [src[0], dst[1]];
    /// The high quadword is replaced.
    PutHigh |dst, src| [dst[0], src[1]];
    /// MOVLHPS.
    LowToHigh |dst, src| [dst[0], src[0]];
    /// MOVHLPS.
    HighToLow |dst, src| [src[1], dst[1]];
    /// MOVDDUP.
    Movddup |_dst, src| [src[0], src[0]];
    /// MOVSLDUP.
    Movsldup |_dst, src| [twice(src[0], 0), twice(src[1], 0)];
    /// MOVSHDUP.
    Movshdup |_dst, src| [twice(src[0], 32), twice(src[1], 32)];
    /// PMOVMSKB.
    Pmovmskb |_dst, src| [simd::pmovmskb(src).into(), 0];
    /// MOVMSKPS.
    Movmskps |_dst, src| [simd::movmskps(src).into(), 0];
    /// MOVMSKPD.
    Movmskpd |_dst, src| [simd::movmskpd(src).into(), 0];
}

/// Whether the memory operand is the destination.
fn stores(i: &Instruction) -> bool {
    i.op_kind(0) == iced_x86::OpKind::Memory
}

/// A move of a whole register.
fn vector<P: Part>(i: &Instruction, context: &Context) -> Selection {
    if stores(i) { sse_store::<P, Xmm>(i, context) } else { sse::<P, Xmm, Xmm, Move>(i, context) }
}

/// A move that zeroes the rest of the register if it loads from memory, and on registers does `C`.
fn scalar<P: Part, C: Compute>(i: &Instruction, context: &Context) -> Selection {
    if stores(i) {
        sse_store::<P, Xmm>(i, context)
    } else if i.op_kind(1) == iced_x86::OpKind::Memory {
        sse::<P, Xmm, Xmm, Move>(i, context)
    } else {
        sse_reg::<P, Xmm, Xmm, C>(i, context)
    }
}

/// A move of a half register to or from memory.
fn half<P: Part, C: Compute>(i: &Instruction, context: &Context) -> Selection {
    if stores(i) { sse_store::<P, Xmm>(i, context) } else { sse::<P, Xmm, Xmm, C>(i, context) }
}

/// A move from an XMM register to a general register or memory.
fn to_general<P: Part, C: Compute>(i: &Instruction, context: &Context) -> Selection {
    if stores(i) { sse_store::<P, Xmm>(i, context) } else { sse_reg::<P, Gpr, Xmm, C>(i, context) }
}

/// MASKMOVDQU and MASKMOVQ: stores the bytes whose mask is negative, at (E)DI or RDI.
pub(super) fn masked_store(
    cpu: &mut Cpu,
    op: &Op,
    (value, mask): (V128, V128),
    size: u64,
) -> Result<(), Stop> {
    // A mask of zero may fault or not; on AMD's processors it does.
    let chosen = simd::pmovmskb(mask);
    let offset = cpu.regs[7] & address_mask(op.asize);
    let linear = cpu.linear(op.seg, offset, size, true)?;
    cpu.check_alignment(linear, 8)?;
    cpu.probe(linear, size, true, Rights::Unaligned)?;
    let bytes = value.map(u64::to_le_bytes);
    for (n, &byte) in (0_u64..size).zip(bytes.as_flattened()) {
        if chosen >> n & 1 != 0 {
            cpu.store_linear(linear.wrapping_add(n), byte, Rights::Program)?;
        }
    }
    Ok(())
}

fn maskmovdqu(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    use super::sse_form::Place;
    sse_ready(cpu)?;
    masked_store(cpu, op, (Xmm::get(cpu, op.src), Xmm::get(cpu, op.aux2)), 16)
}

fn maskmovq(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    use super::sse_form::Place;
    mmx_ready(cpu)?;
    // A fault finds the registers in use already, unlike that of any other MMX instruction.
    enter_mmx(cpu);
    masked_store(cpu, op, (Mm::get(cpu, op.src), Mm::get(cpu, op.aux2)), 8)
}

/// The operand of MASKMOVDQU is not encoded: its address size follows from its kind.
fn with_string_address(i: &Instruction, context: &Context, f: crate::op::GeneralFn) -> Selection {
    use iced_x86::OpKind;
    let mut op = context.op(i);
    op.asize = match i.op_kind(0) {
        OpKind::MemorySegDI => 2,
        OpKind::MemorySegEDI => 4,
        _ => 8,
    };
    Selection::general(op, f)
}

/// MOVD, MOVQ and the like, which have forms between all kinds of registers.
fn select_by_code(i: &Instruction, context: &Context) -> Option<Selection> {
    use Code as C;
    Some(match i.code() {
        C::Movsd_xmm_xmmm64 | C::Movsd_xmmm64_xmm => scalar::<Double, PutLow>(i, context),
        C::Movd_xmm_rm32 => sse::<Single, Xmm, Gpr, LowSingle>(i, context),
        C::Movq_xmm_rm64 => sse::<Double, Xmm, Gpr, LowDouble>(i, context),
        C::Movd_rm32_xmm => to_general::<Single, LowSingle>(i, context),
        C::Movq_rm64_xmm => to_general::<Double, LowDouble>(i, context),
        C::Movq_xmm_xmmm64 | C::Movq_xmmm64_xmm => scalar::<Double, LowDouble>(i, context),
        C::Movnti_m32_r32 => sse_store::<Single, Gpr>(i, context),
        C::Movnti_m64_r64 => sse_store::<Double, Gpr>(i, context),
        C::Movq2dq_xmm_mm => plain::<Double, Xmm, Mm, Move>(i, context),
        C::Movdq2q_mm_xmm => plain::<Double, Mm, Xmm, Move>(i, context),
        C::Maskmovdqu_rDI_xmm_xmm => with_string_address(i, context, maskmovdqu),
        C::Maskmovq_rDI_mm_mm => with_string_address(i, context, maskmovq),
        _ => return None,
    })
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Movaps | M::Movapd | M::Movdqa | M::Movntps | M::Movntpd | M::Movntdq | M::Movntdqa => {
            vector::<Strict>(i, context)
        }
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => vector::<Loose>(i, context),
        M::Movss => scalar::<Single, PutSingle>(i, context),
        M::Movlps | M::Movlpd => half::<Double, PutLow>(i, context),
        M::Movhps | M::Movhpd => half::<High, PutHigh>(i, context),
        M::Movlhps => sse_reg::<Double, Xmm, Xmm, LowToHigh>(i, context),
        M::Movhlps => sse_reg::<Double, Xmm, Xmm, HighToLow>(i, context),
        M::Movddup => sse::<Double, Xmm, Xmm, Movddup>(i, context),
        M::Movsldup => sse::<Whole, Xmm, Xmm, Movsldup>(i, context),
        M::Movshdup => sse::<Whole, Xmm, Xmm, Movshdup>(i, context),
        M::Pmovmskb if has_mmx(i) => plain::<Double, Gpr, Mm, Pmovmskb>(i, context),
        M::Pmovmskb => sse_reg::<Whole, Gpr, Xmm, Pmovmskb>(i, context),
        M::Movmskps => sse_reg::<Whole, Gpr, Xmm, Movmskps>(i, context),
        M::Movmskpd => sse_reg::<Whole, Gpr, Xmm, Movmskpd>(i, context),
        _ => return select_by_code(i, context),
    })
}
