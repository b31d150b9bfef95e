//! The SSE4.1 dot products, step by step from instructions that every host has.

use super::ops::{AddPd, AddPs, MulPd, MulPs};
use super::{SseOp, SseResult};
use crate::{Mxcsr, V128};

/// The state of a dot product of `N` vectors between its steps.
struct Steps<const N: usize> {
    mxcsr: Mxcsr,
    values: [V128; N],
    flags: u32,
}

impl<const N: usize> Steps<N> {
    /// Runs a step unless an earlier one raised an unmasked exception, which ends it (SDM vol. 2,
    /// DPPS: unmasked exceptions of multiplications come before the additions).
    fn step<Op: SseOp>(&mut self, operands: [(V128, V128); N]) {
        if self.mxcsr.unmasked() & self.flags != 0 {
            return;
        }
        let results = operands.map(|(dst, src)| Op::apply(self.mxcsr, dst, src));
        let flags = results.iter().fold(0, |flags, result| flags | result.flags);
        self.values = results.map(|result| result.value);
        self.flags = Mxcsr::after(self.flags, flags);
    }
}

/// Selects by the mask's bits, from bit 0 up, the singles of a vector; the others become +0.
fn select_singles(v: V128, mask: u8) -> V128 {
    let single = |bit: u8, part: u64| if mask & (1 << bit) != 0 { part } else { 0 };
    let (low, high) = (u64::from(u32::MAX), u64::from(u32::MAX) << 32);
    [single(0, v[0] & low) | single(1, v[0] & high), single(2, v[1] & low) | single(3, v[1] & high)]
}

/// `dpps`, as the steps that its pseudo-code names: products, two sums, the sum of these. `N` is 2
/// for the 256-bit form of AVX, whose halves take each step together.
pub fn dpps<const N: usize>(
    mxcsr: Mxcsr,
    dst: [V128; N],
    src: [V128; N],
    imm: u8,
) -> ([V128; N], u32) {
    const LOW: u64 = u32::MAX as u64;
    let select = |v: V128| select_singles(v, imm >> 4);
    let mut steps = Steps { mxcsr, values: dst, flags: 0 };
    steps.step::<MulPs>(std::array::from_fn(|n| (select(dst[n]), select(src[n]))));
    // +0 * -0 never arises: both sides are +0 where the mask is clear.
    steps.step::<AddPs>(steps.values.map(|[p01, p23]| {
        let evens = p01 & LOW | p23 << 32;
        let odds = p01 >> 32 | p23 & !LOW;
        ([evens, 0], [odds, 0])
    }));
    steps.step::<AddPs>(steps.values.map(|[sums, _]| ([sums & LOW, 0], [sums >> 32, 0])));
    let values = steps.values.map(|[sum, _]| select_singles([sum & LOW | sum << 32; 2], imm));
    (values, steps.flags)
}

/// `dppd`, as the steps that its pseudo-code names.
pub fn dppd(mxcsr: Mxcsr, dst: V128, src: V128, imm: u8) -> SseResult {
    let select = |v: V128, mask: u8| {
        [if mask & 1 != 0 { v[0] } else { 0 }, if mask & 2 != 0 { v[1] } else { 0 }]
    };
    let mut steps = Steps { mxcsr, values: [dst], flags: 0 };
    steps.step::<MulPd>([(select(dst, imm >> 4), select(src, imm >> 4))]);
    steps.step::<AddPd>(steps.values.map(|[low, high]| ([low, 0], [high, 0])));
    let [[sum, _]] = steps.values;
    SseResult { value: select([sum; 2], imm), flags: steps.flags }
}
