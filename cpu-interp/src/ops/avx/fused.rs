//! FMA: the instructions that multiply and add with one rounding.
//!
//! Intel SDM vol. 2, VFMADD132PS and the like. The digits say which operands are multiplied, and
//! which is added.

use iced_x86::{Instruction, Mnemonic};
use trivium_host_fpu::sse::{self as fp, FusedOp};
use trivium_host_fpu::{Mxcsr, V128};

use super::form::{V256, general, get, is_wide, last_source, put, ready};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{GeneralFn, Op, Stop};
use crate::ops::sse_form::{Double, Part, Single, Whole, raise_float};

/// The forms, by the digits of their names.
const F132: u8 = 0;
const F213: u8 = 1;
const F231: u8 = 2;

/// How a result goes into the destination.
trait Lanes: Part {
    /// The low half of the destination.
    fn merge(dst: V128, result: V128) -> V128;
}

impl Lanes for Whole {
    fn merge(_: V128, result: V128) -> V128 {
        result
    }
}

impl Lanes for Single {
    fn merge(dst: V128, result: V128) -> V128 {
        const LOW: u64 = u32::MAX as u64;
        [dst[0] & !LOW | result[0] & LOW, dst[1]]
    }
}

impl Lanes for Double {
    fn merge(dst: V128, result: V128) -> V128 {
        [result[0], dst[1]]
    }
}

fn fused<const FORM: u8, P: Lanes, O: FusedOp>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let third = last_source::<P>(cpu, op, op.aux2)?;
    let (first, second) = (get(cpu, op.dst), get(cpu, op.src));
    let (x, y, z): (V256, V256, V256) = match FORM {
        F132 => (first, third, second),
        F213 => (second, first, third),
        _ => (second, third, first),
    };
    let mxcsr = Mxcsr(cpu.vector.mxcsr);
    let low = O::apply(mxcsr, x[0], y[0], z[0]);
    let (mut flags, mut value) = (low.flags, [P::merge(first[0], low.value), [0; 2]]);
    if is_wide(op) {
        let high = O::apply(mxcsr, x[1], y[1], z[1]);
        flags |= high.flags;
        value[1] = high.value;
    }
    raise_float(cpu, flags)?;
    put(cpu, op.dst, value);
    Ok(())
}

/// The three forms of each instruction, what is computed, and what memory holds.
macro_rules! table {
    ($i:ident: $($f132:ident $f213:ident $f231:ident $op:ident $part:ident;)*) => {
        match $i.mnemonic() {
            $(
                Mnemonic::$f132 => fused::<F132, $part, fp::$op>,
                Mnemonic::$f213 => fused::<F213, $part, fp::$op>,
                Mnemonic::$f231 => fused::<F231, $part, fp::$op>,
            )*
            _ => return None,
        }
    };
}

/// Chooses functions for the instructions of this group.
#[rustfmt::skip]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    let function: GeneralFn = table! { i:
        Vfmadd132ps Vfmadd213ps Vfmadd231ps FmaddPs Whole;
        Vfmadd132pd Vfmadd213pd Vfmadd231pd FmaddPd Whole;
        Vfmadd132ss Vfmadd213ss Vfmadd231ss FmaddSs Single;
        Vfmadd132sd Vfmadd213sd Vfmadd231sd FmaddSd Double;
        Vfmsub132ps Vfmsub213ps Vfmsub231ps FmsubPs Whole;
        Vfmsub132pd Vfmsub213pd Vfmsub231pd FmsubPd Whole;
        Vfmsub132ss Vfmsub213ss Vfmsub231ss FmsubSs Single;
        Vfmsub132sd Vfmsub213sd Vfmsub231sd FmsubSd Double;
        Vfnmadd132ps Vfnmadd213ps Vfnmadd231ps FnmaddPs Whole;
        Vfnmadd132pd Vfnmadd213pd Vfnmadd231pd FnmaddPd Whole;
        Vfnmadd132ss Vfnmadd213ss Vfnmadd231ss FnmaddSs Single;
        Vfnmadd132sd Vfnmadd213sd Vfnmadd231sd FnmaddSd Double;
        Vfnmsub132ps Vfnmsub213ps Vfnmsub231ps FnmsubPs Whole;
        Vfnmsub132pd Vfnmsub213pd Vfnmsub231pd FnmsubPd Whole;
        Vfnmsub132ss Vfnmsub213ss Vfnmsub231ss FnmsubSs Single;
        Vfnmsub132sd Vfnmsub213sd Vfnmsub231sd FnmsubSd Double;
        Vfmaddsub132ps Vfmaddsub213ps Vfmaddsub231ps FmaddsubPs Whole;
        Vfmaddsub132pd Vfmaddsub213pd Vfmaddsub231pd FmaddsubPd Whole;
        Vfmsubadd132ps Vfmsubadd213ps Vfmsubadd231ps FmsubaddPs Whole;
        Vfmsubadd132pd Vfmsubadd213pd Vfmsubadd231pd FmsubaddPd Whole;
    };
    Some(general(i, context, function))
}
