//! AES, carry-less multiplication and SHA: SSE and VEX forms.
//!
//! FIPS 197 and FIPS 180-4; how the instructions cut the algorithms: Intel SDM vol. 2, and vol. 1,
//! 12.13.

use iced_x86::{EncodingKind, Instruction, Mnemonic};
use trivium_cpu::model::Vendor;
use trivium_host_fpu::{SseResult, V128};

use super::avx::{self, from_singles, singles};
use super::sse_form::{
    Compute, Loose, Part, Place, Whole, Xmm, computations, exact, immediate_computations, load,
    sse_ready, sse_reg,
};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};

/// Multiplication by x in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn times_x(a: u8) -> u8 {
    a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 }
}

/// Multiplication in that field.
const fn times(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = times_x(a);
        b >>= 1;
    }
    product
}

/// The S-box: the inverse in the field, and an affine transformation. FIPS 197, 5.1.1.
const S_BOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        // The 254th power is the inverse, and zero of zero.
        let (mut inverse, mut power) = (1, 0);
        while power < 254 {
            inverse = times(inverse, n as u8);
            power += 1;
        }
        let i = if n == 0 { 0 } else { inverse };
        let rotated = i.rotate_left(1) ^ i.rotate_left(2) ^ i.rotate_left(3) ^ i.rotate_left(4);
        table[n] = i ^ rotated ^ 0x63;
        n += 1;
    }
    table
};

const INVERSE_S_BOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        table[S_BOX[n] as usize] = n as u8;
        n += 1;
    }
    table
};

type Block = [u8; 16];

fn block(v: V128) -> Block {
    (u128::from(v[0]) | u128::from(v[1]) << 64).to_le_bytes()
}

fn vector(block: Block) -> V128 {
    let v = u128::from_le_bytes(block);
    [v as u64, (v >> 64) as u64]
}

fn xor(a: V128, b: V128) -> V128 {
    [a[0] ^ b[0], a[1] ^ b[1]]
}

/// Row r moves r places to the left, and each byte goes through the S-box.
fn substitute(state: V128) -> Block {
    let from = block(state);
    std::array::from_fn(|n| S_BOX[usize::from(from[(n + 4 * (n % 4)) % 16])])
}

/// The inverse of [`substitute`].
fn inverse_substitute(state: V128) -> Block {
    let from = block(state);
    std::array::from_fn(|n| INVERSE_S_BOX[usize::from(from[(n + 16 - 4 * (n % 4)) % 16])])
}

/// Multiplies each column by a polynomial, given by its coefficients.
fn mix(state: Block, by: [u8; 4]) -> V128 {
    vector(std::array::from_fn(|n| {
        let (column, row) = (n / 4 * 4, n % 4);
        (0..4).fold(0, |sum, k| sum ^ times(state[column + k], by[(k + 4 - row) % 4]))
    }))
}

const MIX: [u8; 4] = [2, 3, 1, 1];
const INVERSE_MIX: [u8; 4] = [14, 11, 13, 9];

fn substitute_word(word: u32) -> u32 {
    u32::from_le_bytes(word.to_le_bytes().map(|byte| S_BOX[usize::from(byte)]))
}

/// AESKEYGENASSIST.
fn key_assist(src: V128, round: u8) -> V128 {
    let [_, x1, _, x3] = singles(src);
    let pair = |x: u32| {
        let word = substitute_word(x);
        [word, word.rotate_right(8) ^ u32::from(round)]
    };
    let ([a, b], [c, d]) = (pair(x1), pair(x3));
    from_singles([a, b, c, d])
}

/// The product of polynomials over GF(2).
fn carry_less(a: u64, b: u64) -> V128 {
    let product = (0..64).filter(|n| b >> n & 1 != 0).fold(0, |p, n| p ^ u128::from(a) << n);
    [product as u64, (product >> 64) as u64]
}

computations! {
    /// AESENC.
    Aesenc |state, key| xor(mix(substitute(state), MIX), key);
    /// AESENCLAST.
    Aesenclast |state, key| xor(vector(substitute(state)), key);
    /// AESDEC.
    Aesdec |state, key| xor(mix(inverse_substitute(state), INVERSE_MIX), key);
    /// AESDECLAST.
    Aesdeclast |state, key| xor(vector(inverse_substitute(state)), key);
    /// AESIMC.
    Aesimc |_dst, src| mix(block(src), INVERSE_MIX);
    /// SHA1NEXTE.
    Sha1nexte |dst, src| {
        let [a, b, c, d] = singles(src);
        from_singles([a, b, c, d.wrapping_add(singles(dst)[3].rotate_left(30))])
    };
    /// SHA1MSG1.
    Sha1msg1 |dst, src| {
        let ([w3, w2, w1, w0], [_, _, w5, w4]) = (singles(dst), singles(src));
        from_singles([w5 ^ w3, w4 ^ w2, w3 ^ w1, w2 ^ w0])
    };
    /// SHA1MSG2.
    Sha1msg2 |dst, src| {
        let ([d0, d1, d2, d3], [w15, w14, w13, _]) = (singles(dst), singles(src));
        let w16 = (d3 ^ w13).rotate_left(1);
        let (w17, w18) = ((d2 ^ w14).rotate_left(1), (d1 ^ w15).rotate_left(1));
        from_singles([(d0 ^ w16).rotate_left(1), w18, w17, w16])
    };
    /// SHA256MSG1.
    Sha256msg1 |dst, src| {
        let ([w0, w1, w2, w3], [w4, ..]) = (singles(dst), singles(src));
        let sum = |a: u32, b: u32| a.wrapping_add(small_sigma(b, 7, 18, 3));
        from_singles([sum(w0, w1), sum(w1, w2), sum(w2, w3), sum(w3, w4)])
    };
    /// SHA256MSG2.
    Sha256msg2 |dst, src| {
        let ([d0, d1, d2, d3], [_, _, w14, w15]) = (singles(dst), singles(src));
        let sum = |a: u32, b: u32| a.wrapping_add(small_sigma(b, 17, 19, 10));
        let (w16, w17) = (sum(d0, w14), sum(d1, w15));
        from_singles([w16, w17, sum(d2, w16), sum(d3, w17)])
    };
}

immediate_computations! {
    /// AESKEYGENASSIST.
    Aeskeygenassist |_dst, src, imm| key_assist(src, imm);
    /// PCLMULQDQ.
    Pclmulqdq |dst, src, imm| {
        carry_less(dst[usize::from(imm & 1)], src[usize::from(imm >> 4 & 1)])
    };
    /// SHA1RNDS4.
    Sha1rnds4 |dst, src, imm| sha1_rounds(singles(dst), singles(src), imm & 3);
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ !x & z
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ x & z ^ y & z
}

fn parity(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

/// A function of three words.
type Function = fn(u32, u32, u32) -> u32;

/// FIPS 180-4, 4.1.1 and 4.2.1, by the number of the group of 20 rounds.
const SHA1: [(Function, u32); 4] =
    [(choose, 0x5a82_7999), (parity, 0x6ed9_eba1), (majority, 0x8f1b_bcdc), (parity, 0xca62_c1d6)];

fn sha1_rounds([d, c, b, a]: [u32; 4], words: [u32; 4], group: u8) -> V128 {
    let (f, k) = SHA1[usize::from(group)];
    // E is in the first word already.
    let (mut a, mut b, mut c, mut d, mut e) = (a, b, c, d, 0_u32);
    for word in words.into_iter().rev() {
        let sum = [a.rotate_left(5), word, e, k].into_iter().fold(f(b, c, d), u32::wrapping_add);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, sum);
    }
    from_singles([d, c, b, a])
}

/// FIPS 180-4, (4.6) and (4.7).
fn small_sigma(x: u32, r1: u32, r2: u32, shift: u32) -> u32 {
    x.rotate_right(r1) ^ x.rotate_right(r2) ^ x >> shift
}

/// FIPS 180-4, (4.4) and (4.5).
fn big_sigma(x: u32, [r1, r2, r3]: [u32; 3]) -> u32 {
    x.rotate_right(r1) ^ x.rotate_right(r2) ^ x.rotate_right(r3)
}

/// SHA256RNDS2: the words with their constants are in XMM0.
fn sha256_rounds<P: Part>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    sse_ready(cpu)?;
    let src = if op.has_mem() { load::<P>(cpu, op)? } else { Xmm::get(cpu, op.src) };
    let [mut f, mut e, mut b, mut a] = singles(src);
    let [mut h, mut g, mut d, mut c] = singles(Xmm::get(cpu, op.dst));
    let [first, second, ..] = singles(Xmm::get(cpu, 0));
    for word in [first, second] {
        let t1 = [choose(e, f, g), big_sigma(e, [6, 11, 25]), word]
            .into_iter()
            .fold(h, u32::wrapping_add);
        let t2 = majority(a, b, c).wrapping_add(big_sigma(a, [2, 13, 22]));
        (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
        (d, c, b, a) = (c, b, a, t1.wrapping_add(t2));
    }
    Xmm::put(cpu, op.dst, from_singles([f, e, b, a]));
    Ok(())
}

fn aes(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let select = match i.mnemonic() {
        M::Aesenc => sse_reg::<Whole, Xmm, Xmm, Aesenc>,
        M::Aesenclast => sse_reg::<Whole, Xmm, Xmm, Aesenclast>,
        M::Aesdec => sse_reg::<Whole, Xmm, Xmm, Aesdec>,
        M::Aesdeclast => sse_reg::<Whole, Xmm, Xmm, Aesdeclast>,
        M::Aesimc => sse_reg::<Whole, Xmm, Xmm, Aesimc>,
        M::Aeskeygenassist => sse_reg::<Whole, Xmm, Xmm, Aeskeygenassist>,
        M::Pclmulqdq => sse_reg::<Whole, Xmm, Xmm, Pclmulqdq>,
        _ => return None,
    };
    Some(select(i, context))
}

fn sha<P: Part>(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let select = match i.mnemonic() {
        M::Sha1nexte => sse_reg::<P, Xmm, Xmm, Sha1nexte>,
        M::Sha1msg1 => sse_reg::<P, Xmm, Xmm, Sha1msg1>,
        M::Sha1msg2 => sse_reg::<P, Xmm, Xmm, Sha1msg2>,
        M::Sha1rnds4 => sse_reg::<P, Xmm, Xmm, Sha1rnds4>,
        M::Sha256msg1 => sse_reg::<P, Xmm, Xmm, Sha256msg1>,
        M::Sha256msg2 => sse_reg::<P, Xmm, Xmm, Sha256msg2>,
        M::Sha256rnds2 => return Some(Selection::general(context.op(i), sha256_rounds::<P>)),
        _ => return None,
    };
    Some(select(i, context))
}

fn legacy(i: &Instruction, context: &Context) -> Option<Selection> {
    // The manuals ask for aligned operands; AMD's processors take others too.
    let sha = match context.vendor {
        Vendor::Intel => sha::<Whole>,
        Vendor::Amd => sha::<Loose>,
    };
    aes(i, context).or_else(|| sha(i, context))
}

fn vex(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let function: crate::op::GeneralFn = match i.mnemonic() {
        M::Vaesenc => avx::three::<Whole, Aesenc>,
        M::Vaesenclast => avx::three::<Whole, Aesenclast>,
        M::Vaesdec => avx::three::<Whole, Aesdec>,
        M::Vaesdeclast => avx::three::<Whole, Aesdeclast>,
        M::Vaesimc => avx::two::<Whole, Aesimc>,
        M::Vaeskeygenassist => avx::two::<Whole, Aeskeygenassist>,
        M::Vpclmulqdq => avx::three::<Whole, Pclmulqdq>,
        _ => return None,
    };
    Some(Selection::general(context.op(i), function))
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    match i.code().encoding() {
        EncodingKind::VEX => vex(i, context),
        EncodingKind::Legacy => legacy(i, context),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as a standard prints them, first byte lowest.
    fn bytes(hex: &str) -> V128 {
        let all = u128::from_str_radix(hex, 16).unwrap().swap_bytes();
        [all as u64, (all >> 64) as u64]
    }

    #[test]
    fn the_s_box_is_that_of_fips_197() {
        // FIPS 197, figure 7.
        for (at, value) in [(0x00, 0x63), (0x01, 0x7c), (0x53, 0xed), (0x9a, 0xb8), (0xff, 0x16)] {
            assert_eq!(S_BOX[at], value);
            assert_eq!(usize::from(INVERSE_S_BOX[usize::from(value)]), at);
        }
    }

    #[test]
    fn a_round_is_that_of_fips_197_appendix_b() {
        let start = bytes("193de3bea0f4e22b9ac68d2ae9f84808");
        let key = bytes("a0fafe1788542cb123a339392a6c7605");
        let next = bytes("a49c7ff2689f352b6b5bea43026a5049");
        assert_eq!(xor(mix(substitute(start), MIX), key), next);
        let last = bytes("eb40f21e592e38848ba113e71bc342d2");
        let key = bytes("d014f9a8c9ee2589e13f0cc8b6630ca6");
        let cipher = bytes("3925841d02dc09fbdc118597196a0b32");
        assert_eq!(xor(vector(substitute(last)), key), cipher);
    }

    #[test]
    fn decryption_undoes_a_round() {
        let state = bytes("193de3bea0f4e22b9ac68d2ae9f84808");
        let mixed = mix(substitute(state), MIX);
        assert_eq!(vector(inverse_substitute(mix(block(mixed), INVERSE_MIX))), state);
    }

    #[test]
    fn carry_less_products_do_not_carry() {
        assert_eq!(carry_less(3, 3), [5, 0]);
        assert_eq!(carry_less(1 << 63, 2), [0, 1]);
    }
}
