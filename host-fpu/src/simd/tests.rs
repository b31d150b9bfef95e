//! SIMD without flags, against the same instructions of the host on many operands.

use super::*;
use core::arch::asm;

/// Operands with lanes at the edges of every width, and pseudo-random ones (xorshift).
fn patterns() -> Vec<V128> {
    let mut all = vec![
        [0, 0],
        [u64::MAX, u64::MAX],
        [0x8000_8000_8000_8000, 0x7fff_7fff_7fff_7fff],
        [0x8080_8080_7f7f_7f7f, 0x0001_ffff_8001_7ffe],
        [0x8000_0000_7fff_ffff, 0x8000_0000_0000_0000],
        [3, 9],
        [15, 0],
        [16, 1],
        [63, 0],
        [64, 0],
    ];
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    all.extend((0..24).map(|_| [next(), next()]));
    all
}

/// Checks `$ours` against an instruction on XMM registers `{d}` and `{s}`.
macro_rules! check_xmm {
    ($code:expr, |$d:ident, $s:ident| $ours:expr) => {
        for $d in patterns() {
            for $s in patterns() {
                let mut value = to_m128i($d);
                // SAFETY: the host has the instruction, which changes its destination only.
                unsafe {
                    asm!($code, d = inout(xmm_reg) value, s = in(xmm_reg) to_m128i($s),
                        options(pure, nomem, nostack, preserves_flags));
                }
                assert_eq!($ours, to_v128(value), "{} {:x?} {:x?}", $code, $d, $s);
            }
        }
    };
}

/// Checks `$ours` against an instruction on MMX registers 0 and 1.
macro_rules! check_mmx {
    ($code:expr, |$d:ident, $s:ident| $ours:expr) => {
        for [$d, _] in patterns() {
            for [$s, _] in patterns() {
                let mut value: u64 = $d;
                // SAFETY: the host has the instruction, and EMMS leaves the x87 stack empty.
                unsafe {
                    asm!("movq mm0, {d}", "movq mm1, {s}", $code, "movq {d}, mm0", "emms",
                        d = inout(reg) value, s = in(reg) $s,
                        out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                        out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                        out("mm0") _, out("mm1") _, out("eax") _, options(nostack));
                }
                assert_eq!($ours, value, "{} mmx {:x} {:x}", $code, $d, $s);
            }
        }
    };
}

/// A test of instructions that a feature brings, by type and mnemonic, in one or both forms.
macro_rules! simd_test {
    ($test:ident, $feature:tt, $check:ident: $($name:ident $mnemonic:literal,)*) => {
        #[test]
        fn $test() {
            if !std::arch::is_x86_feature_detected!($feature) {
                println!("SKIP: the host lacks {}", $feature);
                return;
            }
            $($check!($name $mnemonic);)*
        }
    };
}
macro_rules! xmm {
    ($name:ident $m:literal) => {
        check_xmm!(concat!($m, " {d}, {s}"), |d, s| $name::apply(d, s))
    };
}
macro_rules! both {
    ($name:ident $m:literal) => {
        xmm!($name $m);
        check_mmx!(concat!($m, " mm0, mm1"), |d, s| $name::apply_mmx(d, s))
    };
}

simd_test! { sse2_lanes_in_both_forms, "sse2", both:
    Paddb "paddb", Paddw "paddw", Paddd "paddd", Paddq "paddq", Paddsb "paddsb", Paddsw "paddsw",
    Paddusb "paddusb", Paddusw "paddusw", Psubb "psubb", Psubw "psubw", Psubd "psubd",
    Psubq "psubq", Psubsb "psubsb", Psubsw "psubsw", Psubusb "psubusb", Psubusw "psubusw",
    Pmullw "pmullw", Pmulhw "pmulhw", Pmulhuw "pmulhuw", Pmuludq "pmuludq", Pmaddwd "pmaddwd",
    Pavgb "pavgb", Pavgw "pavgw", Psadbw "psadbw", Pminub "pminub", Pmaxub "pmaxub",
    Pminsw "pminsw", Pmaxsw "pmaxsw", Pcmpeqb "pcmpeqb", Pcmpeqw "pcmpeqw", Pcmpeqd "pcmpeqd",
    Pcmpgtb "pcmpgtb", Pcmpgtw "pcmpgtw", Pcmpgtd "pcmpgtd", Pand "pand", Pandn "pandn",
    Por "por", Pxor "pxor", Psllw "psllw", Pslld "pslld", Psllq "psllq", Psrlw "psrlw",
    Psrld "psrld", Psrlq "psrlq", Psraw "psraw", Psrad "psrad", Packsswb "packsswb",
    Packssdw "packssdw", Packuswb "packuswb", Punpcklbw "punpcklbw", Punpcklwd "punpcklwd",
    Punpckldq "punpckldq", Punpckhbw "punpckhbw", Punpckhwd "punpckhwd", Punpckhdq "punpckhdq",
}

simd_test! { sse2_and_approximations, "sse2", xmm:
    Punpcklqdq "punpcklqdq", Punpckhqdq "punpckhqdq", Punpckldq "unpcklps",
    Punpckhdq "unpckhps", Punpcklqdq "unpcklpd", Punpckhqdq "unpckhpd",
    RcpPs "rcpps", RcpSs "rcpss", RsqrtPs "rsqrtps", RsqrtSs "rsqrtss",
}

simd_test! { ssse3_in_both_forms, "ssse3", both:
    Pabsb "pabsb", Pabsw "pabsw", Pabsd "pabsd", Psignb "psignb", Psignw "psignw",
    Psignd "psignd", Phaddw "phaddw", Phaddd "phaddd", Phaddsw "phaddsw", Phsubw "phsubw",
    Phsubd "phsubd", Phsubsw "phsubsw", Pmulhrsw "pmulhrsw", Pmaddubsw "pmaddubsw",
    Pshufb "pshufb",
}

simd_test! { sse41, "sse4.1", xmm:
    Pmulld "pmulld", Pmuldq "pmuldq", Pminsb "pminsb", Pmaxsb "pmaxsb", Pminuw "pminuw",
    Pmaxuw "pmaxuw", Pminsd "pminsd", Pmaxsd "pmaxsd", Pminud "pminud", Pmaxud "pmaxud",
    Pcmpeqq "pcmpeqq", Packusdw "packusdw", Phminposuw "phminposuw", Pmovsxbw "pmovsxbw",
    Pmovsxbd "pmovsxbd", Pmovsxbq "pmovsxbq", Pmovsxwd "pmovsxwd", Pmovsxwq "pmovsxwq",
    Pmovsxdq "pmovsxdq", Pmovzxbw "pmovzxbw", Pmovzxbd "pmovzxbd", Pmovzxbq "pmovzxbq",
    Pmovzxwd "pmovzxwd", Pmovzxwq "pmovzxwq", Pmovzxdq "pmovzxdq",
}

simd_test! { sse42, "sse4.2", xmm: Pcmpgtq "pcmpgtq", }

#[test]
fn pshufb_without_the_hosts_help() {
    let all = from_index(|i| i as u8);
    let reversed = from_index(|i| 15 - i as u8);
    assert_eq!(ssse3::shuffle_bytes(all, reversed), reversed);
    assert_eq!(ssse3::shuffle_bytes(all, [0x8080_8080_8080_8080, 0x1f]), [0, 0x0f]);
}

fn from_index(f: impl Fn(usize) -> u8) -> V128 {
    lanes::from_bytes(core::array::from_fn(f))
}

/// Checks an instruction with each of the immediates.
macro_rules! with_imm {
    ($check:ident, $code:literal, [$($imm:literal)*], |$d:ident, $s:ident, $i:ident| $ours:expr) => {$(
        $check!(concat!($code, ", ", $imm), |$d, $s| { let $i: u8 = $imm; let _ = &$s; $ours });
    )*};
}

#[test]
fn shuffles_and_immediate_shifts() {
    with_imm!(check_xmm, "pshufd {d}, {s}", [0x1b 0xe4 0x72], |d, s, i| Pshufd::apply_imm(d, s, i));
    with_imm!(check_xmm, "pshuflw {d}, {s}", [0x1b 0x72], |d, s, i| Pshuflw::apply_imm(d, s, i));
    with_imm!(check_xmm, "pshufhw {d}, {s}", [0x1b 0x72], |d, s, i| Pshufhw::apply_imm(d, s, i));
    with_imm!(check_xmm, "shufps {d}, {s}", [0x1b 0x72], |d, s, i| Shufps::apply_imm(d, s, i));
    with_imm!(check_xmm, "shufpd {d}, {s}", [0 1 2 3], |d, s, i| Shufpd::apply_imm(d, s, i));
    with_imm!(check_mmx, "pshufw mm0, mm1", [0x1b 0x72], |_d, s, i| pshufw(s, i));
    with_imm!(check_xmm, "pslldq {d} /* {s} */", [0 5 15 16 255], |d, s, i| pslldq(d, i));
    with_imm!(check_xmm, "psrldq {d} /* {s} */", [0 5 15 16 255], |d, s, i| psrldq(d, i));
    with_imm!(check_xmm, "psraw {d} /* {s} */", [0 7 15 16 255], |d, s, i| shift_imm::<Psraw>(d, i));
    with_imm!(check_xmm, "psllq {d} /* {s} */", [0 7 63 64], |d, s, i| shift_imm::<Psllq>(d, i));
}

#[test]
fn lane_inserts_in_both_forms() {
    with_imm!(check_mmx, "movd eax, mm1\n pinsrw mm0, eax", [0 3 6], |d, s, i| {
        pinsrw_mmx(d, s as u16, i)
    });
    let v = [0x7777_6666_5555_4444, 0x3333_2222_1111_0000];
    assert_eq!(pinsrw(v, 0xabcd, 12)[1], 0x3333_2222_1111_abcd);
    assert_eq!(pextrw(v, 3 + 8), 0x7777);
    assert_eq!(pextrw_mmx(v[0], 5), 0x5555);
    assert_eq!(pinsrd(v, 0x1234_5678, 3)[1], 0x1234_5678_1111_0000);
    assert_eq!(pextrb(v, 15), 0x33);
    assert_eq!(pextrq(v, 1), v[1]);
}

#[test]
fn masks_are_sign_bits() {
    let v = [0x8000_0000_0000_0080, 0x0080_0000_8000_0000];
    assert_eq!(pmovmskb(v), 0b0100_1000_1000_0001);
    assert_eq!(movmskps(v), 0b0110);
    assert_eq!(movmskpd(v), 0b01);
    assert_eq!(ptest([1, 0], [2, 0]), 1 << 6);
    assert_eq!(ptest([3, 0], [2, 0]), 1);
    assert_eq!(ptest([1, 0], [3, 0]), 0);
}

#[test]
fn ssse3_and_sse41_with_immediates() {
    if !std::arch::is_x86_feature_detected!("sse4.1") {
        println!("SKIP: the host lacks SSE4.1");
        return;
    }
    with_imm!(check_xmm, "palignr {d}, {s}", [0 5 16 21 31 32 255], |d, s, i| {
        Palignr::apply_imm(d, s, i)
    });
    with_imm!(check_mmx, "palignr mm0, mm1", [0 3 8 12 15 16 255], |d, s, i| palignr_mmx(d, s, i));
    with_imm!(check_xmm, "pblendw {d}, {s}", [0x5a 0xc3], |d, s, i| Pblendw::apply_imm(d, s, i));
    with_imm!(check_xmm, "blendps {d}, {s}", [5 10], |d, s, i| Blendps::apply_imm(d, s, i));
    with_imm!(check_xmm, "blendpd {d}, {s}", [1 2], |d, s, i| Blendpd::apply_imm(d, s, i));
    with_imm!(check_xmm, "mpsadbw {d}, {s}", [0 3 5 6], |d, s, i| Mpsadbw::apply_imm(d, s, i));
    with_imm!(check_xmm, "insertps {d}, {s}", [0x40 0x91 0xf8], |d, s, i| {
        Insertps::apply_imm(d, s, i)
    });
}

#[test]
fn blends_follow_the_masks_signs() {
    let (a, b) = ([1, 2], [u64::MAX, u64::MAX]);
    let mask = [0x8000_0000_0000_0080, 0x7fff_ffff_ffff_ffff];
    assert_eq!(pblendvb(a, b, mask), [0xff00_0000_0000_00ff, 0x00ff_ffff_ffff_ffff]);
    assert_eq!(blendvps(a, b, mask), [0xffff_ffff_0000_0001, 0x0000_0000_ffff_ffff]);
    assert_eq!(blendvpd(a, b, mask), [u64::MAX, 2]);
}
