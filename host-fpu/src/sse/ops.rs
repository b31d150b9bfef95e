//! The SSE to SSE3 floating-point instructions as marker types, one table row each.

use super::format::Format;
use super::unmasked::{Kind, Lanes};
use super::{HOST_MXCSR, SseOp, SseResult, masked_control};
use crate::simd::{to_m128i, to_v128};
use crate::{Mxcsr, V128};

/// Executes `$code` with MXCSR loaded, either from [`HOST_MXCSR`] or with a guest's control bits,
/// and gives the flags that it raised.
///
/// MXCSR goes through the red zone rather than a local, whose address would escape: a function
/// with an escaped local cannot end in a tail call, which the interpreter's handlers need to.
macro_rules! with_mxcsr {
    (default, [$($code:expr),*], $($operands:tt)*) => {{
        let flags: u32;
        // SAFETY: every exception is masked, so the instruction cannot fault. MXCSR's control
        // bits are the host's; its flags may change as `preserves_flags` is not given. Without
        // `nostack` the red zone may be written.
        unsafe {
            core::arch::asm!(
                "ldmxcsr dword ptr [rip + {host}]",
                $($code,)*
                "stmxcsr dword ptr [rsp - 8]",
                "mov {flags:e}, dword ptr [rsp - 8]",
                host = sym HOST_MXCSR,
                flags = out(reg) flags,
                $($operands)*
            );
        }
        flags & Mxcsr::FLAGS
    }};
    ($mxcsr:ident, [$($code:expr),*], $($operands:tt)*) => {{
        let mut flags: u32 = masked_control($mxcsr);
        // SAFETY: the control value has every exception masked and no reserved bit set, so
        // neither LDMXCSR nor the instruction can fault. MXCSR's control bits are the host's
        // again at the end. Without `nostack` the red zone may be written.
        unsafe {
            core::arch::asm!(
                "mov dword ptr [rsp - 8], {flags:e}",
                "ldmxcsr dword ptr [rsp - 8]",
                $($code,)*
                "stmxcsr dword ptr [rsp - 8]",
                "mov {flags:e}, dword ptr [rsp - 8]",
                "ldmxcsr dword ptr [rip + {host}]",
                host = sym HOST_MXCSR,
                flags = inout(reg) flags,
                $($operands)*
            );
        }
        flags & Mxcsr::FLAGS
    }};
}
pub(super) use with_mxcsr;

/// Implements the trait from a macro that is given which MXCSR to load and what follows.
macro_rules! impl_sse_op {
    ([$($generics:tt)*] $name:ty, $body:ident, $lanes:expr, $($code:tt)*) => {
        impl<$($generics)*> SseOp for $name {
            const LANES: Option<Lanes> = $lanes;

            #[inline(always)]
            fn execute_default(dst: V128, src: V128) -> SseResult {
                $body!(default, dst, src, $($code)*)
            }

            #[inline(always)]
            fn execute(mxcsr: u32, dst: V128, src: V128) -> SseResult {
                $body!(mxcsr, dst, src, $($code)*)
            }
        }
    };
}

/// Destination and source are XMM registers.
macro_rules! vector_body {
    ($mxcsr:ident, $dst:ident, $src:ident, $mnemonic:expr $(, imm $imm:ident)?) => {{
        let mut d = to_m128i($dst);
        let flags = with_mxcsr!(
            $mxcsr,
            [concat!($mnemonic, " {d}, {s}" $(, ", {", stringify!($imm), "}")?)],
            d = inout(xmm_reg) d,
            s = in(xmm_reg) to_m128i($src),
            $($imm = const $imm & 7,)?
        );
        SseResult { value: to_v128(d), flags }
    }};
}

/// The destination is an XMM register, the source a general one.
macro_rules! from_general_body {
    ($mxcsr:ident, $dst:ident, $src:ident, $mnemonic:expr, $modifier:expr) => {{
        let mut d = to_m128i($dst);
        let flags = with_mxcsr!(
            $mxcsr,
            [concat!($mnemonic, " {d}, {s", $modifier, "}")],
            d = inout(xmm_reg) d,
            s = in(reg) $src[0],
        );
        SseResult { value: to_v128(d), flags }
    }};
}

/// The destination is a general register, returned zero-extended.
macro_rules! to_general_body {
    ($mxcsr:ident, $dst:ident, $src:ident, $mnemonic:expr, $modifier:expr) => {{
        let _ = $dst;
        let d: u64;
        let flags = with_mxcsr!(
            $mxcsr,
            [concat!($mnemonic, " {d", $modifier, "}, {s}")],
            d = out(reg) d,
            s = in(xmm_reg) to_m128i($src),
        );
        SseResult { value: [d, 0], flags }
    }};
}

/// The result is ZF, PF and CF.
macro_rules! compare_body {
    ($mxcsr:ident, $dst:ident, $src:ident, $mnemonic:expr) => {{
        let (zf, pf, cf): (u8, u8, u8);
        let flags = with_mxcsr!(
            $mxcsr,
            [concat!($mnemonic, " {d}, {s}"), "setz {zf}", "setp {pf}", "setc {cf}"],
            d = in(xmm_reg) to_m128i($dst),
            s = in(xmm_reg) to_m128i($src),
            zf = out(reg_byte) zf,
            pf = out(reg_byte) pf,
            cf = out(reg_byte) cf,
        );
        let eflags = u64::from(zf) << 6 | u64::from(pf) << 2 | u64::from(cf);
        SseResult { value: [eflags, 0], flags }
    }};
}

/// Defines marker types for rows of type, mnemonic and what else the body takes.
macro_rules! sse_ops {
    ($body:ident; $($name:ident $mnemonic:literal $($modifier:literal)?;)*) => {$(
        #[doc = concat!("`", $mnemonic, "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl_sse_op!([] $name, $body, None, $mnemonic $(, $modifier)?);
    )*};
}

/// The same for instructions that can overflow or underflow. Rows also say which instruction does
/// the same to one lane, what their sources' lanes are, and what becomes of exponents.
macro_rules! rounding_ops {
    ($($name:ident $mnemonic:literal $scalar:ident $format:ident $count:literal $kind:ident;)*) => {$(
        #[doc = concat!("`", $mnemonic, "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl_sse_op!(
            [] $name,
            vector_body,
            Some(Lanes {
                scalar: <$scalar as SseOp>::execute,
                format: Format::$format,
                count: $count,
                kind: Kind::$kind,
            }),
            $mnemonic
        );
    )*};
}

rounding_ops! {
    AddPs "addps" AddSs Single 4 Sum; AddPd "addpd" AddSd Double 2 Sum;
    AddSs "addss" AddSs Single 1 Sum; AddSd "addsd" AddSd Double 1 Sum;
    SubPs "subps" SubSs Single 4 Sum; SubPd "subpd" SubSd Double 2 Sum;
    SubSs "subss" SubSs Single 1 Sum; SubSd "subsd" SubSd Double 1 Sum;
    MulPs "mulps" MulSs Single 4 Product; MulPd "mulpd" MulSd Double 2 Product;
    MulSs "mulss" MulSs Single 1 Product; MulSd "mulsd" MulSd Double 1 Product;
    DivPs "divps" DivSs Single 4 Product; DivPd "divpd" DivSd Double 2 Product;
    DivSs "divss" DivSs Single 1 Product; DivSd "divsd" DivSd Double 1 Product;
    CvtPd2Ps "cvtpd2ps" CvtSd2Ss Double 2 Conversion;
    CvtSd2Ss "cvtsd2ss" CvtSd2Ss Double 1 Conversion;
}

sse_ops! { vector_body;
    MinPs "minps"; MinPd "minpd"; MinSs "minss"; MinSd "minsd";
    MaxPs "maxps"; MaxPd "maxpd"; MaxSs "maxss"; MaxSd "maxsd";
    SqrtPs "sqrtps"; SqrtPd "sqrtpd"; SqrtSs "sqrtss"; SqrtSd "sqrtsd";
    CvtPs2Pd "cvtps2pd"; CvtSs2Sd "cvtss2sd";
    CvtDq2Ps "cvtdq2ps"; CvtPs2Dq "cvtps2dq"; CvttPs2Dq "cvttps2dq";
    CvtDq2Pd "cvtdq2pd"; CvtPd2Dq "cvtpd2dq"; CvttPd2Dq "cvttpd2dq";
}

sse_ops! { from_general_body;
    CvtSi2Ss32 "cvtsi2ss" ":e"; CvtSi2Ss64 "cvtsi2ss" ":r";
    CvtSi2Sd32 "cvtsi2sd" ":e"; CvtSi2Sd64 "cvtsi2sd" ":r";
}

sse_ops! { to_general_body;
    CvtSs2Si32 "cvtss2si" ":e"; CvtSs2Si64 "cvtss2si" ":r";
    CvtSd2Si32 "cvtsd2si" ":e"; CvtSd2Si64 "cvtsd2si" ":r";
    CvttSs2Si32 "cvttss2si" ":e"; CvttSs2Si64 "cvttss2si" ":r";
    CvttSd2Si32 "cvttsd2si" ":e"; CvttSd2Si64 "cvttsd2si" ":r";
}

sse_ops! { compare_body;
    ComiSs "comiss"; ComiSd "comisd"; UcomiSs "ucomiss"; UcomiSd "ucomisd";
}

/// Defines the compare instructions, whose predicate is a parameter of the type.
macro_rules! cmp_ops {
    ($($name:ident $mnemonic:literal;)*) => {$(
        #[doc = concat!("`", $mnemonic, "` with the predicate `P` (its low three bits): 0 EQ, \
                        1 LT, 2 LE, 3 UNORD, 4 NEQ, 5 NLT, 6 NLE, 7 ORD")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name<const P: u8>;
        impl_sse_op!([const P: u8] $name<P>, vector_body, None, $mnemonic, imm P);
    )*};
}

cmp_ops! { CmpPs "cmpps"; CmpPd "cmppd"; CmpSs "cmpss"; CmpSd "cmpsd"; }

/// Defines instructions that others perform after the operands' parts are moved.
macro_rules! derived_ops {
    ($($(#[$doc:meta])* $name:ident = |$run:ident, $dst:ident, $src:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        impl SseOp for $name {
            #[inline(always)]
            fn execute_default($dst: V128, $src: V128) -> SseResult {
                macro_rules! $run {
                    ($op:ty, $d:expr, $s:expr) => { <$op>::execute_default($d, $s) };
                }
                $body
            }

            #[inline(always)]
            fn execute(mxcsr: u32, $dst: V128, $src: V128) -> SseResult {
                macro_rules! $run {
                    ($op:ty, $d:expr, $s:expr) => { <$op>::execute(mxcsr, $d, $s) };
                }
                $body
            }

            fn execute_unmasked(mxcsr: Mxcsr, $dst: V128, $src: V128) -> SseResult {
                macro_rules! $run {
                    ($op:ty, $d:expr, $s:expr) => { <$op>::execute_unmasked(mxcsr, $d, $s) };
                }
                $body
            }
        }
    )*};
}

const LOW_SINGLE: u64 = 0xffff_ffff;

/// The even singles of two vectors, those of `a` first.
#[inline(always)]
fn even_singles(a: V128, b: V128) -> V128 {
    [a, b].map(|v| v[0] & LOW_SINGLE | v[1] << 32)
}

/// The odd singles of two vectors, those of `a` first.
#[inline(always)]
fn odd_singles(a: V128, b: V128) -> V128 {
    [a, b].map(|v| v[0] >> 32 | v[1] & !LOW_SINGLE)
}

/// Joins the even singles of `even` with the odd singles of `odd`, and both's flags.
#[inline(always)]
fn interleave_singles(even: SseResult, odd: SseResult) -> SseResult {
    let join = |i: usize| even.value[i] & LOW_SINGLE | odd.value[i] & !LOW_SINGLE;
    SseResult { value: [join(0), join(1)], flags: even.flags | odd.flags }
}

// MMX operands are quadwords, so their conversions are the packed ones on vectors with a zero
// upper half: converting zero raises nothing. The SSE3 instructions are the SSE ones on regrouped
// operands, with 0 + 0 or 0 - 0 in unused places, and so need no SSE3 on the host.
derived_ops! {
    /// `cvtpi2ps`: two doublewords of `src` to the low two singles.
    CvtPi2Ps = |run, dst, src| {
        let r = run!(CvtDq2Ps, [0, 0], [src[0], 0]);
        SseResult { value: [r.value[0], dst[1]], flags: r.flags }
    };
    /// `cvtps2pi`: the low two singles to two doublewords in `value[0]`.
    CvtPs2Pi = |run, dst, src| run!(CvtPs2Dq, dst, [src[0], 0]);
    /// `cvttps2pi`: `cvtps2pi` with truncation.
    CvttPs2Pi = |run, dst, src| run!(CvttPs2Dq, dst, [src[0], 0]);
    /// `cvtpi2pd`: two doublewords of `src` to two doubles.
    CvtPi2Pd = |run, dst, src| run!(CvtDq2Pd, dst, src);
    /// `cvtpd2pi`: two doubles to two doublewords in `value[0]`.
    CvtPd2Pi = |run, dst, src| run!(CvtPd2Dq, dst, src);
    /// `cvttpd2pi`: `cvtpd2pi` with truncation.
    CvttPd2Pi = |run, dst, src| run!(CvttPd2Dq, dst, src);
    /// `haddps`
    HaddPs = |run, dst, src| run!(AddPs, even_singles(dst, src), odd_singles(dst, src));
    /// `hsubps`
    HsubPs = |run, dst, src| run!(SubPs, even_singles(dst, src), odd_singles(dst, src));
    /// `haddpd`
    HaddPd = |run, dst, src| run!(AddPd, [dst[0], src[0]], [dst[1], src[1]]);
    /// `hsubpd`
    HsubPd = |run, dst, src| run!(SubPd, [dst[0], src[0]], [dst[1], src[1]]);
    /// `addsubps`: subtracts the even singles, adds the odd ones.
    AddSubPs = |run, dst, src| interleave_singles(
        run!(SubPs, dst.map(|x| x & LOW_SINGLE), src.map(|x| x & LOW_SINGLE)),
        run!(AddPs, dst.map(|x| x & !LOW_SINGLE), src.map(|x| x & !LOW_SINGLE))
    );
    /// `addsubpd`: subtracts the low doubles, adds the high ones.
    AddSubPd = |run, dst, src| {
        let low = run!(SubPd, [dst[0], 0], [src[0], 0]);
        let high = run!(AddPd, [0, dst[1]], [0, src[1]]);
        SseResult { value: [low.value[0], high.value[1]], flags: low.flags | high.flags }
    };
}
