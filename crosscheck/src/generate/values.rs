//! Values worth trying: boundary integers, every class of floating-point number.

use iced_x86::MemorySize;
use trivium_cpu::state::X87Register;

use super::random::Rng;

/// What the bytes of an operand mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// Integers of so many bytes: 1, 2, 4 or 8.
    Int(u8),
    F16,
    F32,
    F64,
    F80,
    /// Packed BCD of ten bytes.
    Bcd,
}

impl Element {
    /// Bytes of one.
    pub const fn size(self) -> usize {
        match self {
            Self::Int(size) => size as usize,
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::F80 | Self::Bcd => 10,
        }
    }

    /// What an operand in memory consists of.
    pub fn of(size: MemorySize) -> Self {
        use MemorySize as M;
        match size.element_type() {
            M::Float16 | M::BFloat16 => Self::F16,
            M::Float32 => Self::F32,
            M::Float64 => Self::F64,
            M::Float80 => Self::F80,
            M::Bcd => Self::Bcd,
            element => match element.size() {
                1 => Self::Int(1),
                2 => Self::Int(2),
                4 => Self::Int(4),
                _ => Self::Int(8),
            },
        }
    }
}

/// What vector registers are filled with.
pub(super) const VECTOR_ELEMENTS: [(u32, Element); 6] = [
    (2, Element::Int(1)),
    (2, Element::Int(2)),
    (2, Element::Int(4)),
    (2, Element::Int(8)),
    (5, Element::F32),
    (5, Element::F64),
];

/// An integer of so many bits.
pub(super) fn integer(rng: &mut Rng, bits: u32) -> u64 {
    let mask = u64::MAX >> (64 - bits);
    let value = match rng.below(20) {
        0..=4 => rng.any(),
        5..=8 => rng.pick(&[0, 1, u64::MAX, 2, u64::MAX - 1]),
        // The boundaries of signed and unsigned integers of every size up to this one.
        9..=13 => {
            let size = rng.pick(&[bits, bits, 8, 16, 32]).min(bits);
            let near = rng.below(3).wrapping_sub(1);
            (1u64 << (size - 1)).wrapping_add(near) | rng.pick(&[0, 0, u64::MAX << (size - 1)])
        }
        14..=15 => rng.below(256),
        16 => (1u64 << rng.below(64)).wrapping_sub(rng.below(2)),
        17 => rng.pick(&[0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa, 0x0123_4567_89ab_cdef]),
        _ => rng.any() >> rng.below(64),
    };
    value & mask
}

/// A binary floating-point format: bits of the fraction and of the exponent.
#[derive(Clone, Copy)]
struct Format {
    fraction: u32,
    exponent: u32,
}

/// Half, single and double precision. IEEE 754, 3.6.
const HALF: Format = Format { fraction: 10, exponent: 5 };
const SINGLE: Format = Format { fraction: 23, exponent: 8 };
const DOUBLE: Format = Format { fraction: 52, exponent: 11 };

impl Format {
    /// A number of any class, of either sign.
    fn value(self, rng: &mut Rng) -> u64 {
        let fraction_mask = (1 << self.fraction) - 1;
        let top = (1 << self.exponent) - 1;
        let bias = top >> 1;
        let quiet = 1 << (self.fraction - 1);
        let fraction = fraction_of(rng, self.fraction);
        let (exponent, fraction) = match rng.below(24) {
            0..=1 => (0, 0),
            2..=3 => (0, rng.pick(&[1, fraction_mask, fraction.max(1)])),
            4 => (1, rng.pick(&[0, 1, fraction])),
            5 => (top - 1, rng.pick(&[fraction_mask, 0, fraction])),
            6 => (top, 0),
            7 => (top, quiet | rng.pick(&[0, 1, fraction])),
            8 => (top, rng.pick(&[1, quiet - 1, (fraction & (quiet - 1)).max(1)])),
            // Near the limits of integers, where conversions overflow or round.
            9..=10 => {
                let power = rng.pick(&[7, 8, 15, 16, 30, 31, 32, 62, 63, 64]).min(bias);
                (bias + power - rng.below(2), rng.pick(&[0, 1, fraction_mask, fraction]))
            }
            11..=12 => (bias + rng.below(3) - 1, 0),
            // Halves and quarters, which rounding must decide.
            13..=14 => {
                let power = rng.below(8);
                let grain = u64::from(self.fraction).saturating_sub(power + 2);
                (bias + power, fraction >> grain << grain & fraction_mask)
            }
            15..=20 => (bias + rng.below(16) - 8, fraction),
            _ => (rng.below(top), fraction),
        };
        let sign = rng.below(2) << (self.fraction + self.exponent);
        sign | (exponent & top) << self.fraction | fraction & fraction_mask
    }
}

/// Bits of a fraction: any, or few ones at either end.
fn fraction_of(rng: &mut Rng, bits: u32) -> u64 {
    let any = rng.any() & ((1 << bits) - 1);
    match rng.below(4) {
        0 => any >> rng.below(u64::from(bits)),
        1 => any << rng.below(u64::from(bits)) & ((1 << bits) - 1),
        _ => any,
    }
}

/// The bit of an 80-bit number's mantissa that counts ones.
const INTEGER_BIT: u64 = 1 << 63;
/// The bit that makes a NaN quiet.
const QUIET_BIT: u64 = 1 << 62;
/// The largest exponent of an 80-bit number, and its bias.
const TOP_80: u16 = 0x7fff;
const BIAS_80: u16 = 0x3fff;

/// An 80-bit number of any class, those included that no processor since the 287 supports.
/// Intel SDM vol. 1, table 8-3.
pub(super) fn extended(rng: &mut Rng) -> X87Register {
    let fraction = fraction_of(rng, 63);
    let bias = u64::from(BIAS_80);
    let (exponent, mantissa) = match rng.below(28) {
        0..=2 => (0, 0),
        // Denormal, then pseudo-denormal.
        3 => (0, rng.pick(&[1, INTEGER_BIT - 1, fraction.max(1)])),
        4 => (0, INTEGER_BIT | fraction),
        // Unnormal.
        5 => (1 + rng.below(0x7ffe), fraction),
        // Infinity, then pseudo-infinity.
        6 => (u64::from(TOP_80), INTEGER_BIT),
        7 => (u64::from(TOP_80), 0),
        // Quiet NaN, signalling NaN, pseudo-NaN.
        8 => (u64::from(TOP_80), INTEGER_BIT | QUIET_BIT | rng.pick(&[0, 1, fraction])),
        9 => (u64::from(TOP_80), INTEGER_BIT | (fraction & (QUIET_BIT - 1)).max(1)),
        10 => (u64::from(TOP_80), fraction.max(1)),
        // Near the limits of the format and of the narrower ones.
        11 => {
            let near = rng.pick(&[1, 0x7ffe, bias - 1022, bias + 1023, bias - 126, bias + 127]);
            (near + rng.below(3) - 1, INTEGER_BIT | fraction)
        }
        12 => (bias - 1022 - rng.below(60), INTEGER_BIT | fraction),
        // Near the limits of integers.
        13..=14 => {
            let power = rng.pick(&[15, 31, 63, 14, 30, 62, 59]);
            let mantissa = rng.pick(&[0, 1, INTEGER_BIT - 1, fraction]);
            (bias + power - rng.below(2), INTEGER_BIT | mantissa)
        }
        15..=17 => (bias + rng.below(3) - 1, INTEGER_BIT),
        // Halves and quarters.
        18..=19 => {
            let power = rng.below(8);
            (bias + power, INTEGER_BIT | fraction >> (61 - power) << (61 - power))
        }
        20..=25 => (bias + rng.below(40) - 20, INTEGER_BIT | fraction),
        _ => (1 + rng.below(0x7ffe), INTEGER_BIT | fraction),
    };
    let sign = (rng.below(2) as u16) << 15;
    X87Register { mantissa, sign_exponent: sign | exponent as u16 & TOP_80 }
}

/// Ten bytes of packed BCD, digits beyond nine seldom.
fn bcd(rng: &mut Rng) -> [u8; 10] {
    let wild = rng.percent(15);
    let keep = rng.below(19) as usize;
    let mut bytes = std::array::from_fn(|i| {
        let mut digit = |at: usize| match (wild, at <= keep) {
            (true, _) => rng.below(16) as u8,
            (false, true) => rng.below(10) as u8,
            (false, false) => 0,
        };
        digit(2 * i) | digit(2 * i + 1) << 4
    });
    bytes[9] = rng.pick(&[0, 0x80, 0, 0x80, 0x7f, 0xff]);
    bytes
}

/// Fills `bytes` with such values.
pub(super) fn fill(rng: &mut Rng, element: Element, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(element.size()) {
        let len = chunk.len();
        chunk.copy_from_slice(&one(rng, element)[..len]);
    }
}

/// The bytes of one value, lowest first.
fn one(rng: &mut Rng, element: Element) -> [u8; 10] {
    let value = match element {
        Element::Int(size) => integer(rng, u32::from(size) * 8),
        Element::F16 => HALF.value(rng),
        Element::F32 => SINGLE.value(rng),
        Element::F64 => DOUBLE.value(rng),
        Element::F80 => return image(extended(rng)),
        Element::Bcd => return bcd(rng),
    };
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// An 80-bit number as it lies in memory.
fn image(register: X87Register) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&register.mantissa.to_le_bytes());
    bytes[8..].copy_from_slice(&register.sign_exponent.to_le_bytes());
    bytes
}

/// A 64-bit part of a vector register.
pub(super) fn quad(rng: &mut Rng, element: Element) -> u64 {
    let mut bytes = [0; 8];
    fill(rng, element, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// The tag that FSTENV shows for a register that is not empty. Intel SDM vol. 1, 8.1.7.
pub(super) const fn tag(register: X87Register) -> u16 {
    match (register.sign_exponent & TOP_80, register.mantissa) {
        (0, 0) => 1,
        (0 | TOP_80, _) => 2,
        (_, mantissa) if mantissa & INTEGER_BIT == 0 => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::FpCategory;

    #[test]
    fn every_class_of_number_occurs() {
        let mut rng = Rng::new(0, 0);
        let mut seen = [0; 5];
        for _ in 0..2000 {
            let (a, b) = (SINGLE.value(&mut rng) as u32, DOUBLE.value(&mut rng));
            for class in [f32::from_bits(a).classify(), f64::from_bits(b).classify()] {
                seen[match class {
                    FpCategory::Nan => 0,
                    FpCategory::Infinite => 1,
                    FpCategory::Zero => 2,
                    FpCategory::Subnormal => 3,
                    FpCategory::Normal => 4,
                }] += 1;
            }
        }
        assert!(seen.iter().all(|&n| n > 50), "{seen:?}");
    }

    #[test]
    fn every_class_of_extended_number_occurs() {
        let mut rng = Rng::new(0, 0);
        let mut tags = [0; 3];
        let mut unsupported = 0;
        for _ in 0..4000 {
            let value = extended(&mut rng);
            tags[tag(value) as usize] += 1;
            let exponent = value.sign_exponent & TOP_80;
            unsupported += usize::from(exponent != 0 && value.mantissa & INTEGER_BIT == 0);
        }
        assert!(tags.iter().all(|&n| n > 200) && unsupported > 100, "{tags:?} {unsupported}");
    }

    #[test]
    fn integers_stay_within_their_bits() {
        let mut rng = Rng::new(0, 0);
        for bits in [8, 16, 32, 64] {
            assert!((0..1000).all(|_| integer(&mut rng, bits) <= u64::MAX >> (64 - bits)));
        }
    }
}
