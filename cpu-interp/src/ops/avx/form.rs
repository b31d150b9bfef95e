//! What VEX instructions are put together from: where operands are, and the functions that join
//! these with what SSE instructions compute.

use iced_x86::{Instruction, OpKind};
use trivium_cpu::bits::{cr0, cr4};
use trivium_cpu::{Exception, Vector};
use trivium_host_fpu::{Mxcsr, V128};

use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Rights, Scalar};
use crate::op::{GeneralFn, Op, Stop};
use crate::ops::sse_form::{Aligned, Compute, Part, Place, raise_float};

/// A YMM register, or an XMM register with zeroes above it: the low half first.
pub type V256 = [V128; 2];

/// XCR0's bits for SSE and AVX, which must both be set.
const SSE_AND_AVX: u64 = 6;

/// #UD if the operating system does not save YMM registers, #NM if it wants to be asked. Intel SDM
/// vol. 1, 14.3, and vol. 2A, 2.4.
///
/// # Errors
/// These.
pub fn ready(cpu: &mut Cpu) -> Result<(), Stop> {
    let known = cpu.control.cr4 & cr4::OSXSAVE != 0
        && cpu.control.xcr0 & SSE_AND_AVX == SSE_AND_AVX
        && cpu.protected()
        && !cpu.v86();
    if !known {
        return Err(cpu.raise(Exception::ud()));
    }
    if cpu.control.cr0 & cr0::TS != 0 {
        return Err(cpu.raise(Exception::plain(Vector::NM)));
    }
    Ok(())
}

/// A vector register.
pub fn get(cpu: &Cpu, number: u8) -> V256 {
    let [a, b, c, d] = cpu.vector.regs[usize::from(number & 15)];
    [[a, b], [c, d]]
}

/// Writes a vector register, all of it.
pub fn put(cpu: &mut Cpu, number: u8, [[a, b], [c, d]]: V256) {
    cpu.vector.regs[usize::from(number & 15)] = [a, b, c, d];
}

/// Whether operand 0 has 256 bits.
pub fn is_wide(op: &Op) -> bool {
    op.size == 32
}

/// The alignment that alignment checks want, of operands of 256 bits too: so it is on Zen 4.
const CHECKED: u64 = 16;

/// Loads 16 or 32 bytes, at any address.
///
/// # Errors
/// As [`Cpu::load_linear`].
pub fn load_vector(cpu: &mut Cpu, op: &Op, bytes: u64) -> Result<V256, Stop> {
    let offset = cpu.offset(op);
    let linear = cpu.linear(op.seg, offset, bytes, false)?;
    cpu.check_alignment(linear, CHECKED)?;
    let low = cpu.load_linear(linear, Rights::Unaligned)?;
    let high = match bytes {
        32 => cpu.load_linear(linear.wrapping_add(16), Rights::Unaligned)?,
        _ => [0; 2],
    };
    Ok([low, high])
}

/// Stores 16 or 32 bytes, at any address.
///
/// # Errors
/// As [`Cpu::store_linear`].
pub fn store_vector(cpu: &mut Cpu, op: &Op, value: V256, bytes: u64) -> Result<(), Stop> {
    let offset = cpu.offset(op);
    let linear = cpu.linear(op.seg, offset, bytes, true)?;
    cpu.check_alignment(linear, CHECKED)?;
    if bytes == 32 {
        cpu.probe(linear, bytes, true, Rights::Unaligned)?;
        cpu.store_linear(linear.wrapping_add(16), value[1], Rights::Unaligned)?;
    }
    cpu.store_linear(linear, value[0], Rights::Unaligned)
}

/// #GP(0) unless the memory operand is aligned to its size.
///
/// # Errors
/// It.
pub fn require_alignment(cpu: &mut Cpu, op: &Op, bytes: u64) -> Result<(), Stop> {
    let place = cpu.regs[usize::from(op.seg_base())].wrapping_add(cpu.offset(op));
    if place & (bytes - 1) != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    Ok(())
}

/// Loads a part of a vector.
///
/// # Errors
/// As [`Cpu::load_linear`].
pub fn load_part<P: Part>(cpu: &mut Cpu, op: &Op) -> Result<V128, Stop> {
    let offset = cpu.offset(op);
    let bytes = size_of::<P::Value>() as u64;
    let linear = cpu.linear(op.seg, offset, bytes, false)?;
    cpu.load_linear::<P::Value>(linear, Rights::Program).map(P::widen)
}

/// Stores a part of a vector.
///
/// # Errors
/// As [`Cpu::store_linear`].
pub fn store_part<P: Part>(cpu: &mut Cpu, op: &Op, value: V128) -> Result<(), Stop>
where
    P::Value: Scalar,
{
    let offset = cpu.offset(op);
    let bytes = size_of::<P::Value>() as u64;
    let linear = cpu.linear(op.seg, offset, bytes, true)?;
    cpu.store_linear(linear, P::narrow(value), Rights::Program)
}

/// The last source: `register`, or the memory operand, which holds `P`.
///
/// # Errors
/// As [`Cpu::load_linear`].
pub fn last_source<P: Part>(cpu: &mut Cpu, op: &Op, register: u8) -> Result<V256, Stop> {
    if !op.has_mem() {
        return Ok(get(cpu, register));
    }
    if size_of::<P::Value>() == 16 && P::ALIGNED != Aligned::Never {
        load_vector(cpu, op, if is_wide(op) { 32 } else { 16 })
    } else {
        load_part::<P>(cpu, op).map(|low| [low, [0; 2]])
    }
}

/// Computes each half, and raises what that raises.
fn compute<C: Compute>(cpu: &mut Cpu, op: &Op, a: V256, b: V256) -> Result<V256, Stop> {
    let mxcsr = Mxcsr(cpu.vector.mxcsr);
    let low = C::full(mxcsr, op, a[0], b[0]);
    let (mut flags, mut value) = (low.flags, [low.value, [0; 2]]);
    if is_wide(op) {
        let high = C::full(mxcsr, op, a[1], b[1]);
        flags |= high.flags;
        value[1] = high.value;
    }
    if C::FLOAT {
        raise_float(cpu, flags)?;
    }
    Ok(value)
}

/// Destination, first source, second source or memory; `P` is what memory holds.
pub fn three<P: Part, C: Compute>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let b = last_source::<P>(cpu, op, op.aux2)?;
    let value = compute::<C>(cpu, op, get(cpu, op.src), b)?;
    put(cpu, op.dst, value);
    Ok(())
}

/// Destination, source or memory.
pub fn two<P: Part, C: Compute>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let b = last_source::<P>(cpu, op, op.src)?;
    let value = compute::<C>(cpu, op, b, b)?;
    put(cpu, op.dst, value);
    Ok(())
}

/// Destination, first source, and a general register or memory.
pub fn from_general<P: Part, C: Compute>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let b = match op.has_mem() {
        true => load_part::<P>(cpu, op)?,
        false => [cpu.regs[usize::from(op.aux2)], 0],
    };
    let a = get(cpu, op.src);
    let result = C::full(Mxcsr(cpu.vector.mxcsr), op, a[0], b);
    if C::FLOAT {
        raise_float(cpu, result.flags)?;
    }
    put(cpu, op.dst, [result.value, [0; 2]]);
    Ok(())
}

/// A general register, and a vector register or memory.
pub fn to_general<P: Part, D: Place, C: Compute>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let b = match op.has_mem() {
        true => load_part::<P>(cpu, op)?,
        false => get(cpu, op.src)[0],
    };
    let result = C::full(Mxcsr(cpu.vector.mxcsr), op, D::get(cpu, op.dst), b);
    if C::FLOAT {
        raise_float(cpu, result.flags)?;
    }
    D::put(cpu, op.dst, result.value);
    Ok(())
}

/// A lane of a vector register goes to a general register or memory.
pub fn extract<P: Part, C: Compute>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let lane = C::quick(op, [0; 2], get(cpu, op.src)[0]).value;
    if op.has_mem() {
        return store_part::<P>(cpu, op, lane);
    }
    cpu.regs[usize::from(op.dst)] = lane[0];
    Ok(())
}

/// Selects a function for an instruction.
pub fn general(i: &Instruction, context: &Context, function: GeneralFn) -> Selection {
    Selection::general(operands(i, context), function)
}

/// The operands. Where a fourth is a register, it goes to `aux`, and the third stays in `aux2`.
fn operands(i: &Instruction, context: &Context) -> Op {
    let mut op = context.op(i);
    if i.op_count() == 4 && i.op_kind(3) == OpKind::Register {
        op.aux = i.op_register(3).number() as u8;
        if i.op_kind(2) == OpKind::Register {
            op.aux2 = i.op_register(2).number() as u8;
        }
    }
    op
}
