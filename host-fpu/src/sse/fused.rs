//! FMA: `x * y + z` with one rounding, by the host's instructions where it has them, else in
//! integers.
//!
//! Intel SDM vol. 1, 14.5. Overflow and underflow that are unmasked are always seen to in integers,
//! as the host runs with all masked and says too little then.

use super::format::Format;
use super::ops::with_mxcsr;
use super::round::Number;
use super::{HOST_MXCSR, SseResult, masked_control};
use crate::simd::{to_m128i, to_v128};
use crate::{Mxcsr, V128};

/// Which fused instruction it is.
#[derive(Clone, Copy, Debug)]
pub struct Fused {
    /// What the lanes are.
    pub format: Format,
    /// How many there are.
    pub count: u32,
    /// The product's sign is changed.
    pub negate: bool,
    /// `z` is subtracted, in even and in odd lanes.
    pub subtract: [bool; 2],
}

/// An instruction of FMA.
pub trait FusedOp {
    /// Computes the lanes that the instruction is about; what the others are does not matter. A NaN
    /// of `x` goes before one of `y`, and this before one of `z`.
    fn apply(mxcsr: Mxcsr, x: V128, y: V128, z: V128) -> SseResult;
}

/// Defines the instructions.
macro_rules! fused_ops {
    ($($name:ident $mnemonic:literal $format:ident $count:literal $negate:literal $subtract:expr;)*) => {$(
        #[doc = concat!("`", $mnemonic, "`, as the other two forms")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl $name {
            const FUSED: Fused = Fused {
                format: Format::$format,
                count: $count,
                negate: $negate,
                subtract: $subtract,
            };
        }

        impl FusedOp for $name {
            fn apply(mxcsr: Mxcsr, x: V128, y: V128, z: V128) -> SseResult {
                let odd = mxcsr.unmasked() & (Mxcsr::OE | Mxcsr::UE) != 0;
                if odd || !std::arch::is_x86_feature_detected!("fma") {
                    return Self::FUSED.compute(mxcsr, x, y, z);
                }
                let (mut d, mxcsr) = (to_m128i(z), mxcsr.0);
                let flags = with_mxcsr!(
                    mxcsr,
                    [concat!($mnemonic, " {d}, {x}, {y}")],
                    d = inout(xmm_reg) d,
                    x = in(xmm_reg) to_m128i(x),
                    y = in(xmm_reg) to_m128i(y),
                );
                SseResult { value: to_v128(d), flags }
            }
        }

        #[cfg(test)]
        impl tests::Known for $name {
            const FUSED: Fused = $name::FUSED;
            const NAME: &str = $mnemonic;
        }
    )*};
}

const ADD: [bool; 2] = [false, false];
const SUB: [bool; 2] = [true, true];

#[rustfmt::skip]
fused_ops! {
    FmaddPs "vfmadd231ps" Single 4 false ADD; FmaddPd "vfmadd231pd" Double 2 false ADD;
    FmaddSs "vfmadd231ss" Single 1 false ADD; FmaddSd "vfmadd231sd" Double 1 false ADD;
    FmsubPs "vfmsub231ps" Single 4 false SUB; FmsubPd "vfmsub231pd" Double 2 false SUB;
    FmsubSs "vfmsub231ss" Single 1 false SUB; FmsubSd "vfmsub231sd" Double 1 false SUB;
    FnmaddPs "vfnmadd231ps" Single 4 true ADD; FnmaddPd "vfnmadd231pd" Double 2 true ADD;
    FnmaddSs "vfnmadd231ss" Single 1 true ADD; FnmaddSd "vfnmadd231sd" Double 1 true ADD;
    FnmsubPs "vfnmsub231ps" Single 4 true SUB; FnmsubPd "vfnmsub231pd" Double 2 true SUB;
    FnmsubSs "vfnmsub231ss" Single 1 true SUB; FnmsubSd "vfnmsub231sd" Double 1 true SUB;
    FmaddsubPs "vfmaddsub231ps" Single 4 false [true, false];
    FmaddsubPd "vfmaddsub231pd" Double 2 false [true, false];
    FmsubaddPs "vfmsubadd231ps" Single 4 false [false, true];
    FmsubaddPd "vfmsubadd231pd" Double 2 false [false, true];
}

impl Fused {
    /// The result in integers.
    fn compute(&self, mxcsr: Mxcsr, x: V128, y: V128, z: V128) -> SseResult {
        let mut result = SseResult { value: z, flags: 0 };
        for n in 0..self.count {
            let operands = [x, y, z].map(|v| self.format.lane(v, n));
            let (value, flags) = self.lane(mxcsr, operands, self.subtract[n as usize & 1]);
            self.format.put_lane(&mut result.value, n, value);
            result.flags |= flags;
        }
        result
    }

    fn lane(&self, mxcsr: Mxcsr, operands: [u64; 3], subtract: bool) -> (u64, u32) {
        let format = self.format;
        if let Some(nan) = operands.into_iter().find(|&v| format.is_nan(v)) {
            let signals = operands.into_iter().any(|v| format.signals(v));
            return (nan | format.quiet(), if signals { Mxcsr::IE } else { 0 });
        }
        let [(x, dx), (y, dy), (z, dz)] = operands.map(|v| format.operand(mxcsr, v));
        let x = if self.negate { x ^ format.sign() } else { x };
        let z = if subtract { z ^ format.sign() } else { z };
        let (value, flags) = self.infinite(x, y, z).unwrap_or_else(|| self.finite(mxcsr, x, y, z));
        // Invalid operations go before denormal operands.
        let denormal = if flags & Mxcsr::IE != 0 { 0 } else { dx | dy | dz };
        (value, flags | denormal)
    }

    /// The result if an operand is infinite (SDM vol. 1, table 14-17).
    fn infinite(&self, x: u64, y: u64, z: u64) -> Option<(u64, u32)> {
        let format = self.format;
        let infinity = format.special() << format as u32;
        let is_infinite = |v: u64| v & !format.sign() == infinity;
        let is_zero = |v: u64| v & !format.sign() == 0;
        let invalid = (format.sign() | infinity | format.quiet(), Mxcsr::IE);
        if is_infinite(x) || is_infinite(y) {
            let product = (x ^ y) & format.sign() | infinity;
            let is_invalid = is_zero(x) || is_zero(y) || is_infinite(z) && z != product;
            return Some(if is_invalid { invalid } else { (product, 0) });
        }
        is_infinite(z).then_some((z, 0))
    }

    fn finite(&self, mxcsr: Mxcsr, x: u64, y: u64, z: u64) -> (u64, u32) {
        let [x, y, z] = [x, y, z].map(|v| Number::of(self.format, v));
        let negative_zero = mxcsr.rounding() == Mxcsr::DOWN;
        x.times(y).plus(z, negative_zero).round(self.format, mxcsr)
    }
}

#[cfg(test)]
mod tests;
