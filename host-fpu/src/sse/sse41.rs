//! SSE4.1 floating point, which the host must have: rounding and dot products.

use super::ops::{AddPd, AddPs, MulPd, MulPs};
use super::{HOST_MXCSR, SseOp, SseResult, masked_control};
use crate::simd::{to_m128i, to_v128};
use crate::sse::ops::with_mxcsr;
use crate::{Mxcsr, V128};

/// Proof that the host has SSE4.1.
#[derive(Clone, Copy, Debug)]
pub struct Sse41(());

/// Bit 2 of the rounding instructions' immediate: round as MXCSR.RC says.
const IMM_USE_MXCSR: u8 = 1 << 2;
/// Bit 3 of the rounding instructions' immediate: do not report the precision exception.
const IMM_NO_PRECISION: u8 = 1 << 3;

/// Defines the rounding instructions. They always round by MXCSR, which is loaded with the
/// immediate's mode where that has one, so one instruction serves all immediates.
macro_rules! round_ops {
    ($($name:ident $mnemonic:literal;)*) => {
        impl Sse41 {$(
            #[doc = concat!("`", $mnemonic, "` with an immediate byte whose high nibble is ignored")]
            pub fn $name(self, mxcsr: Mxcsr, dst: V128, src: V128, imm: u8) -> SseResult {
                let mut d = to_m128i(dst);
                let mxcsr = rounded_by(mxcsr, imm);
                let flags = with_mxcsr!(
                    mxcsr,
                    [concat!($mnemonic, " {d}, {s}, 4")],
                    d = inout(xmm_reg) d,
                    s = in(xmm_reg) to_m128i(src),
                );
                let hidden = if imm & IMM_NO_PRECISION != 0 { Mxcsr::PE } else { 0 };
                SseResult { value: to_v128(d), flags: flags & !hidden }
            }
        )*}
    };
}

round_ops! { roundps "roundps"; roundpd "roundpd"; roundss "roundss"; roundsd "roundsd"; }

impl Sse41 {
    /// The proof, if the host has SSE4.1.
    pub fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("sse4.1").then_some(Sse41(()))
    }
}

/// MXCSR with the rounding mode that the immediate selects.
fn rounded_by(mxcsr: Mxcsr, imm: u8) -> u32 {
    if imm & IMM_USE_MXCSR != 0 {
        mxcsr.0
    } else {
        (mxcsr.0 & !Mxcsr::RC) | (u32::from(imm & 3) << Mxcsr::RC_SHIFT)
    }
}

/// Runs one step of a dot product unless an earlier one raised an unmasked exception, which ends
/// it (SDM vol. 2, DPPS: unmasked exceptions of multiplications come before the additions).
fn step<Op: SseOp>(mxcsr: Mxcsr, before: SseResult, dst: V128, src: V128) -> SseResult {
    if mxcsr.raise(before.flags).1 {
        return before;
    }
    let result = Op::apply(mxcsr, dst, src);
    SseResult { flags: before.flags | result.flags, ..result }
}

/// Selects by the mask's bits, from bit 0 up, the singles of a vector; the others become +0.
fn select_singles(v: V128, mask: u8) -> V128 {
    let single = |bit: u8, part: u64| if mask & (1 << bit) != 0 { part } else { 0 };
    let (low, high) = (u64::from(u32::MAX), u64::from(u32::MAX) << 32);
    [single(0, v[0] & low) | single(1, v[0] & high), single(2, v[1] & low) | single(3, v[1] & high)]
}

const NOTHING: SseResult = SseResult { value: [0, 0], flags: 0 };

/// `dpps`, as the steps that its pseudo-code names: products, two sums, the sum of these.
pub fn dpps(mxcsr: Mxcsr, dst: V128, src: V128, imm: u8) -> SseResult {
    let (a, b) = (select_singles(dst, imm >> 4), select_singles(src, imm >> 4));
    let products = step::<MulPs>(mxcsr, NOTHING, a, b);
    // +0 * -0 never arises: both sides are +0 where the mask is clear.
    let [p01, p23] = products.value;
    let evens = p01 & u64::from(u32::MAX) | p23 << 32;
    let odds = p01 >> 32 | p23 & !u64::from(u32::MAX);
    let pairs = step::<AddPs>(mxcsr, products, [evens, 0], [odds, 0]);
    let sum = step::<AddPs>(
        mxcsr,
        pairs,
        [pairs.value[0] & u64::from(u32::MAX), 0],
        [pairs.value[0] >> 32, 0],
    );
    let s = sum.value[0] & u64::from(u32::MAX);
    SseResult { value: select_singles([s | s << 32; 2], imm), ..sum }
}

/// `dppd`, as the steps that its pseudo-code names.
pub fn dppd(mxcsr: Mxcsr, dst: V128, src: V128, imm: u8) -> SseResult {
    let select = |v: V128, mask: u8| {
        [if mask & 1 != 0 { v[0] } else { 0 }, if mask & 2 != 0 { v[1] } else { 0 }]
    };
    let products = step::<MulPd>(mxcsr, NOTHING, select(dst, imm >> 4), select(src, imm >> 4));
    let sum = step::<AddPd>(mxcsr, products, [products.value[0], 0], [products.value[1], 0]);
    SseResult { value: select([sum.value[0]; 2], imm), ..sum }
}
