//! The x87 and vector state as XSAVE lays it out in memory, in the standard format.
//!
//! Intel SDM vol. 1, 13.4; the places of what lies behind the first 576 bytes are CPUID's to tell.

use std::arch::x86_64::__cpuid_count;

use trivium_cpu::model::Vendor;
use trivium_cpu::state::{X87, X87Register};

use super::features::{host_vendor, mxcsr_mask};
use crate::state::UserState;

/// Components of the state, by their bits in XCR0 and XSTATE_BV.
mod component {
    pub const X87: u64 = 1;
    pub const SSE: u64 = 1 << 1;
    pub const AVX: u64 = 1 << 2;
    pub const OPMASK: u64 = 1 << 5;
    pub const ZMM_HIGH: u64 = 1 << 6;
    pub const ZMM_UPPER: u64 = 1 << 7;
    pub const AVX512: u64 = OPMASK | ZMM_HIGH | ZMM_UPPER;
}

/// Offsets in the legacy area. Intel SDM vol. 1, table 10-2.
mod legacy {
    pub const FCW: usize = 0;
    pub const FSW: usize = 2;
    pub const FTW: usize = 4;
    pub const FOP: usize = 6;
    pub const FIP: usize = 8;
    pub const FDP: usize = 16;
    pub const MXCSR: usize = 24;
    pub const MXCSR_MASK: usize = 28;
    pub const ST: usize = 32;
    pub const XMM: usize = 160;
    /// What Linux keeps in bytes that the processor leaves to it: `_fpx_sw_bytes`.
    pub const SOFTWARE: usize = 464;
    pub const XSTATE_BV: usize = 512;
    /// Header included.
    pub const SIZE: usize = 576;
}

/// An unmasked exception is pending.
const STATUS_ES: u16 = 1 << 7;

/// Marks of a frame that has an extended state: at the software's bytes, and behind the image.
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

/// What of the state there is, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Xsave {
    components: u64,
    offsets: [usize; 8],
    /// Bytes of the image.
    pub size: usize,
    /// Bits of MXCSR that may be set.
    pub mxcsr_mask: u32,
    /// FIP, FDP and FOP are saved only while an exception is pending.
    pub pointers_pending_only: bool,
}

impl Xsave {
    /// Of this processor under this system, `xcr0` being what the system has switched on.
    pub(super) fn new(xcr0: u64) -> Self {
        use component::{AVX, AVX512, SSE, X87};
        let mut components = X87 | SSE;
        if xcr0 & AVX != 0 {
            components |= AVX;
            if xcr0 & AVX512 == AVX512 {
                components |= AVX512;
            }
        }
        let (mut offsets, mut size) = ([0; 8], legacy::SIZE);
        for n in (2..8).filter(|n| components & 1 << n != 0) {
            let place = __cpuid_count(0xd, n);
            offsets[n as usize] = place.ebx as usize;
            size = size.max(place.ebx as usize + place.eax as usize);
        }
        Self {
            components,
            offsets,
            size: size.next_multiple_of(8),
            mxcsr_mask: mxcsr_mask(),
            pointers_pending_only: host_vendor() == Vendor::Amd,
        }
    }

    pub(super) fn has_avx512(&self) -> bool {
        self.components & component::AVX512 != 0
    }

    pub(super) fn has_avx(&self) -> bool {
        self.components & component::AVX != 0
    }

    /// Bytes that the image takes in a signal frame.
    pub(super) fn frame_size(&self) -> usize {
        self.size + 4
    }

    /// Writes the image of a state into `image`, which is of [`frame_size`](Self::frame_size)
    /// bytes, all zero.
    pub(super) fn put(&self, state: &UserState, image: &mut [u8]) {
        put_x87(&state.x87, image);
        put(image, legacy::MXCSR, &state.mxcsr.to_le_bytes());
        put(image, legacy::MXCSR_MASK, &self.mxcsr_mask.to_le_bytes());
        let mut present = component::X87 | component::SSE;
        for part in self.parts() {
            let words = &state.zmm[part.register][part.words.clone()];
            if words.iter().any(|&w| w != 0) {
                present |= part.component;
                put_words(image, part.at, words);
            }
        }
        if self.has_avx512() && state.opmask.iter().any(|&k| k != 0) {
            present |= component::OPMASK;
            put_words(image, self.offsets[5], &state.opmask);
        }
        put(image, legacy::XSTATE_BV, &present.to_le_bytes());
        let sizes = [self.frame_size() as u32, self.size as u32];
        put(image, legacy::SOFTWARE, &MAGIC1.to_le_bytes());
        put(image, legacy::SOFTWARE + 4, &sizes[0].to_le_bytes());
        put(image, legacy::SOFTWARE + 8, &self.components.to_le_bytes());
        put(image, legacy::SOFTWARE + 16, &sizes[1].to_le_bytes());
        put(image, self.size, &MAGIC2.to_le_bytes());
    }

    /// Reads an image. A component that XSTATE_BV leaves out is in its initial state.
    pub(super) fn get(&self, image: &[u8], state: &mut UserState) {
        let present = word(image, legacy::XSTATE_BV);
        let initial = UserState::default();
        state.x87 = if present & component::X87 != 0 { get_x87(image) } else { initial.x87 };
        if self.pointers_pending_only && state.x87.status & STATUS_ES == 0 {
            // AMD64 APM vol. 2, 11.4.4: some processors leave what was there before.
            (state.x87.last_ip, state.x87.last_dp, state.x87.last_opcode) = (0, 0, 0);
        }
        state.mxcsr = word(image, legacy::MXCSR) as u32;
        for part in self.parts().filter(|p| present & p.component != 0) {
            let words = &mut state.zmm[part.register][part.words];
            for (to, at) in words.iter_mut().zip((part.at..).step_by(8)) {
                *to = word(image, at);
            }
        }
        if self.has_avx512() && present & component::OPMASK != 0 {
            for (to, at) in state.opmask.iter_mut().zip((self.offsets[5]..).step_by(8)) {
                *to = word(image, at);
            }
        }
    }

    /// The parts of vector registers that there are.
    fn parts(&self) -> impl Iterator<Item = Part> {
        use component::{AVX, SSE, ZMM_HIGH, ZMM_UPPER};
        let [_, _, avx, _, _, _, high, upper] = self.offsets;
        let components = self.components;
        let low = (0..16).flat_map(move |n| {
            [
                Part { component: SSE, register: n, words: 0..2, at: legacy::XMM + 16 * n },
                Part { component: AVX, register: n, words: 2..4, at: avx + 16 * n },
                Part { component: ZMM_HIGH, register: n, words: 4..8, at: high + 32 * n },
            ]
        });
        let rest = (0..16).map(move |n| Part {
            component: ZMM_UPPER,
            register: 16 + n,
            words: 0..8,
            at: upper + 64 * n,
        });
        low.chain(rest).filter(move |p| components & p.component != 0)
    }
}

/// Where some words of a vector register are.
struct Part {
    component: u64,
    register: usize,
    words: std::ops::Range<usize>,
    at: usize,
}

/// The image has ST0 to ST7, and a bit for each physical register that is not empty.
fn put_x87(x87: &X87, image: &mut [u8]) {
    put(image, legacy::FCW, &x87.control.to_le_bytes());
    put(image, legacy::FSW, &x87.status.to_le_bytes());
    let full = (0..8).filter(|n| x87.tags >> (2 * n) & 3 != 3).fold(0, |bits, n| bits | 1u8 << n);
    put(image, legacy::FTW, &[full]);
    put(image, legacy::FOP, &x87.last_opcode.to_le_bytes());
    put(image, legacy::FIP, &x87.last_ip.to_le_bytes());
    put(image, legacy::FDP, &x87.last_dp.to_le_bytes());
    for n in 0..8 {
        let register = x87.regs[physical(x87.status, n)];
        put(image, legacy::ST + 16 * n, &register.mantissa.to_le_bytes());
        put(image, legacy::ST + 16 * n + 8, &register.sign_exponent.to_le_bytes());
    }
}

fn get_x87(image: &[u8]) -> X87 {
    let status = word(image, legacy::FSW) as u16;
    let mut x87 = X87 {
        control: word(image, legacy::FCW) as u16,
        status,
        last_opcode: word(image, legacy::FOP) as u16 & 0x7ff,
        last_ip: word(image, legacy::FIP),
        last_dp: word(image, legacy::FDP),
        ..X87::default()
    };
    for n in 0..8 {
        x87.regs[physical(status, n)] = X87Register {
            mantissa: word(image, legacy::ST + 16 * n),
            sign_exponent: word(image, legacy::ST + 16 * n + 8) as u16,
        };
    }
    let full = word(image, legacy::FTW) as u8;
    let tag = |n: usize| if full & 1 << n != 0 { tag_of(x87.regs[n]) } else { 3 };
    x87.tags = (0..8).fold(0, |tags, n| tags | tag(n) << (2 * n));
    x87
}

/// The physical register that is ST(n).
fn physical(status: u16, n: usize) -> usize {
    (usize::from(status >> 11) + n) & 7
}

/// The tag of a register that is not empty. Intel SDM vol. 1, 8.1.7.
fn tag_of(register: X87Register) -> u16 {
    let (exponent, mantissa) = (register.sign_exponent & 0x7fff, register.mantissa);
    match (exponent, mantissa) {
        (0, 0) => 1,
        (1..0x7fff, _) if mantissa >> 63 != 0 => 0,
        _ => 2,
    }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put_words(image: &mut [u8], at: usize, words: &[u64]) {
    for (to, word) in image[at..].chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}

/// Eight bytes; zero where there are none.
fn word(image: &[u8], at: usize) -> u64 {
    image.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_read_back() {
        let mut state = UserState::default();
        for (n, zmm) in (1..).zip(state.zmm.iter_mut()) {
            *zmm = std::array::from_fn(|k| n * 0x0101_0101 + k as u64);
        }
        state.opmask = [9, 8, 7, 6, 5, 4, 3, 2];
        state.mxcsr = 0x1fbf;
        state.x87.status = 0x2800;
        // By the manual: 1.0 is valid, zero is zero, and a denormal is special.
        state.x87.regs[5] = X87Register { mantissa: 1 << 63, sign_exponent: 0x3fff };
        state.x87.regs[7] = X87Register { mantissa: 1, sign_exponent: 0 };
        state.x87.tags = 0b10_01_00_11_11_11_11_11;
        (state.x87.last_ip, state.x87.last_dp) = (0x1234_5678_9abc, 0x5678);
        state.x87.last_opcode = 0x123;
        let xsave = Xsave {
            components: 0xe7,
            offsets: [0, 0, 576, 0, 0, 832, 896, 1408],
            size: 2432,
            mxcsr_mask: 0xffff,
            pointers_pending_only: false,
        };
        let mut image = vec![0; xsave.frame_size()];
        xsave.put(&state, &mut image);
        let mut read = UserState::default();
        xsave.get(&image, &mut read);
        assert_eq!(read, state);
        image[legacy::XSTATE_BV] = 2;
        xsave.get(&image, &mut read);
        assert_eq!(read.x87, UserState::default().x87);
    }
}
