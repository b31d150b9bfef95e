//! VEX compares: floating point by 32 predicates, tests, and strings.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::bits::rflags::{CF, ZF};
use trivium_host_fpu::{Mxcsr, SseOp, SseResult, V128, sse as fp};

use super::form::{V256, general, get, load_vector, put, ready, three};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{GeneralFn, Op, Stop};
use crate::ops::sse_form::{Compute, Double, Single, Whole};
use crate::ops::sse_strings;

/// What SSE's eight predicates are to the 32 of AVX. Intel SDM vol. 2, CMPPD, table 3-1.
struct Predicate {
    /// Which of the eight.
    base: u8,
    /// The operands change places.
    swap: bool,
    /// What is done with the result.
    then: Then,
    /// A quiet NaN raises the invalid exception.
    signals: bool,
}

enum Then {
    Nothing,
    OrUnordered,
    AndOrdered,
    False,
    True,
}

impl Predicate {
    fn of(imm: u8) -> Self {
        let (base, swap, then, signals) = match imm & 15 {
            n @ 0..=7 => (n, false, Then::Nothing, matches!(n, 1 | 2 | 5 | 6)),
            8 => (0, false, Then::OrUnordered, false),
            // Not greater than or equal, not greater.
            9 => (6, true, Then::Nothing, true),
            10 => (5, true, Then::Nothing, true),
            11 => (3, false, Then::False, false),
            12 => (4, false, Then::AndOrdered, false),
            13 => (2, true, Then::Nothing, true),
            14 => (1, true, Then::Nothing, true),
            _ => (3, false, Then::True, false),
        };
        Self { base, swap, then, signals: signals ^ (imm & 16 != 0) }
    }
}

/// One of the eight compares.
macro_rules! eight {
    ($base:expr, $op:ident, $mxcsr:ident, $a:ident, $b:ident) => {
        match $base {
            0 => fp::$op::<0>::apply($mxcsr, $a, $b),
            1 => fp::$op::<1>::apply($mxcsr, $a, $b),
            2 => fp::$op::<2>::apply($mxcsr, $a, $b),
            3 => fp::$op::<3>::apply($mxcsr, $a, $b),
            4 => fp::$op::<4>::apply($mxcsr, $a, $b),
            5 => fp::$op::<5>::apply($mxcsr, $a, $b),
            6 => fp::$op::<6>::apply($mxcsr, $a, $b),
            _ => fp::$op::<7>::apply($mxcsr, $a, $b),
        }
    };
}

fn all_of(values: [V128; 2], f: fn(u64, u64) -> u64) -> V128 {
    let [a, b] = values;
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// Defines a compare: its type, the SSE compare, and the bits of the result that it decides.
macro_rules! compares {
    ($($(#[$doc:meta])* $name:ident $op:ident $mask:expr;)*) => {$(
        $(#[$doc])*
        struct $name;
        impl Compute for $name {
            const FLOAT: bool = true;
            fn quick(op: &Op, dst: V128, src: V128) -> SseResult {
                Self::full(Mxcsr::RESET, op, dst, src)
            }
            fn full(mxcsr: Mxcsr, op: &Op, dst: V128, src: V128) -> SseResult {
                let predicate = Predicate::of(op.imm as u8);
                let (a, b) = if predicate.swap { (src, dst) } else { (dst, src) };
                let result = eight!(predicate.base, $op, mxcsr, a, b).value;
                let unordered = fp::$op::<3>::apply(mxcsr, dst, src);
                let value = match predicate.then {
                    Then::Nothing => result,
                    Then::OrUnordered => all_of([result, unordered.value], |a, b| a | b),
                    Then::AndOrdered => all_of([result, unordered.value], |a, b| a & !b),
                    Then::False => [0; 2],
                    Then::True => [!0; 2],
                };
                let flags = match predicate.signals {
                    true => fp::$op::<1>::apply(mxcsr, dst, src).flags,
                    false => unordered.flags,
                };
                // A scalar compare keeps the rest of the first source.
                let mask: V128 = $mask;
                let value = [0, 1].map(|n| value[n] & mask[n] | dst[n] & !mask[n]);
                SseResult { value, flags }
            }
        }
    )*};
}

compares! {
    /// VCMPPS.
    Cmpps CmpPs [!0; 2];
    /// VCMPPD.
    Cmppd CmpPd [!0; 2];
    /// VCMPSS.
    Cmpss CmpSs [0xffff_ffff, 0];
    /// VCMPSD.
    Cmpsd CmpSd [!0, 0];
}

/// Both operands of a test; `aux` says whether they have 256 bits.
fn tested(cpu: &mut Cpu, op: &Op) -> Result<(V256, V256), Stop> {
    ready(cpu)?;
    let wide = op.aux != 0;
    let b = match op.has_mem() {
        true => load_vector(cpu, op, if wide { 32 } else { 16 })?,
        false => get(cpu, op.src),
    };
    let a = get(cpu, op.dst);
    Ok(if wide { (a, b) } else { ([a[0], [0; 2]], [b[0], [0; 2]]) })
}

/// ZF if `b` and `a` have nothing in common in the bits of `mask`, CF if `b` has nothing beside `a`.
fn test<const MASK: u64>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let (a, b) = tested(cpu, op)?;
    let none = |f: fn(u64, u64) -> u64| {
        let mut pairs = a.as_flattened().iter().zip(b.as_flattened());
        pairs.all(|(&a, &b)| f(a, b) & MASK == 0)
    };
    let zf = if none(|a, b| a & b) { ZF } else { 0 };
    let cf = if none(|a, b| !a & b) { CF } else { 0 };
    cpu.flags.set_explicit(zf | cf);
    Ok(())
}

const SINGLE_SIGNS: u64 = 0x8000_0000_8000_0000;
const DOUBLE_SIGN: u64 = 1 << 63;

/// Chooses functions for the instructions of this group.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let function: GeneralFn = match i.mnemonic() {
        M::Vcmpps => three::<Whole, Cmpps>,
        M::Vcmppd => three::<Whole, Cmppd>,
        M::Vcmpss => three::<Single, Cmpss>,
        M::Vcmpsd => three::<Double, Cmpsd>,
        M::Vptest => test::<{ !0 }>,
        M::Vtestps => test::<SINGLE_SIGNS>,
        M::Vtestpd => test::<DOUBLE_SIGN>,
        M::Vpcmpistri => |cpu, op| strings(cpu, op, |cpu, op| sse_strings::index(cpu, op, None)),
        M::Vpcmpistrm => |cpu, op| mask(cpu, op, None),
        M::Vpcmpestri => {
            |cpu, op| strings(cpu, op, |cpu, op| sse_strings::index(cpu, op, Some(false)))
        }
        M::Vpcmpestri64 => {
            |cpu, op| strings(cpu, op, |cpu, op| sse_strings::index(cpu, op, Some(true)))
        }
        M::Vpcmpestrm => |cpu, op| mask(cpu, op, Some(false)),
        M::Vpcmpestrm64 => |cpu, op| mask(cpu, op, Some(true)),
        _ => return None,
    };
    let mut selection = general(i, context, function);
    if matches!(i.mnemonic(), M::Vptest | M::Vtestps | M::Vtestpd) {
        selection.op.aux = u8::from(i.op_register(0).is_ymm());
    }
    Some(selection)
}

fn strings(cpu: &mut Cpu, op: &Op, sse: GeneralFn) -> Result<(), Stop> {
    ready(cpu)?;
    sse(cpu, op)
}

/// The mask goes to XMM0; above it are zeroes.
fn mask(cpu: &mut Cpu, op: &Op, explicit: Option<bool>) -> Result<(), Stop> {
    ready(cpu)?;
    sse_strings::mask(cpu, op, explicit)?;
    let [low, _] = get(cpu, 0);
    put(cpu, 0, [low, [0; 2]]);
    Ok(())
}
