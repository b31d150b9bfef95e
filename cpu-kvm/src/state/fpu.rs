//! x87, SSE, AVX and PKRU: the image that XSAVE writes in its standard form, as `kvm_xsave` has it.
//!
//! Intel SDM vol. 1, 13.4.

use std::arch::x86_64::__cpuid_count;

use kvm_bindings::kvm_xsave;
use trivium_cpu::state::{CpuState, Vector, X87, X87Register};

const X87_BIT: u64 = 1 << 0;
const SSE_BIT: u64 = 1 << 1;
const AVX_BIT: u64 = 1 << 2;
const PKRU_BIT: u64 = 1 << 9;

const FCW: usize = 0;
const FSW: usize = 2;
const TAGS: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FDP: usize = 16;
const MXCSR: usize = 24;
const ST: usize = 32;
const XMM: usize = 160;
const XSTATE_BV: usize = 512;
const AVX: usize = 576;
const IMAGE: usize = 4096;

const TOP_SHIFT: u16 = 11;
const EMPTY: u16 = 3;

/// Where this host's processor puts what has no fixed place, and which parts KVM keeps for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct XsaveLayout {
    avx: bool,
    pkru: Option<usize>,
}

impl XsaveLayout {
    /// This host's; `avx` and `pkru` say what the guest's model has.
    pub(crate) fn of_host(avx: bool, pkru: bool) -> Self {
        let place = __cpuid_count(13, 9);
        let offset = place.ebx as usize;
        let there = pkru && place.eax == 4 && offset >= AVX && offset + 4 <= IMAGE;
        Self { avx, pkru: there.then_some(offset) }
    }
}

/// The image as bytes.
struct Image([u8; IMAGE]);

impl Image {
    fn of(xsave: &kvm_xsave) -> Self {
        let mut bytes = [0; IMAGE];
        for (to, word) in bytes.chunks_exact_mut(4).zip(xsave.region) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        Self(bytes)
    }

    fn to_xsave(&self) -> kvm_xsave {
        let mut xsave = kvm_xsave::default();
        for (word, from) in xsave.region.iter_mut().zip(self.0.chunks_exact(4)) {
            *word = u32::from_le_bytes([from[0], from[1], from[2], from[3]]);
        }
        xsave
    }

    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&bytes);
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.get(at))
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.get(at))
    }
}

pub(crate) fn to_xsave(state: &CpuState, layout: XsaveLayout) -> kvm_xsave {
    let mut image = Image([0; IMAGE]);
    put_x87(&mut image, &state.x87);
    image.put(MXCSR, state.vector.mxcsr.to_le_bytes());
    // MXCSR_MASK: what KVM ignores, but a reader of the image may not.
    image.put(MXCSR + 4, 0x2_ffff_u32.to_le_bytes());
    for (n, reg) in state.vector.regs.iter().enumerate() {
        for (part, value) in reg.iter().enumerate() {
            let base = if part < 2 { XMM + 16 * n } else { AVX + 16 * n };
            image.put(base + 8 * (part & 1), value.to_le_bytes());
        }
    }
    let mut present = X87_BIT | SSE_BIT;
    if layout.avx {
        present |= AVX_BIT;
    }
    if let Some(at) = layout.pkru {
        present |= PKRU_BIT;
        image.put(at, state.control.pkru.to_le_bytes());
    }
    image.put(XSTATE_BV, present.to_le_bytes());
    image.to_xsave()
}

fn put_x87(image: &mut Image, x87: &X87) {
    let X87 { regs, control, status, tags, last_opcode, last_ip, last_cs: _, last_dp, last_ds: _ } =
        x87;
    image.put(FCW, control.to_le_bytes());
    image.put(FSW, status.to_le_bytes());
    let abridged: u8 = (0..8).map(|n| u8::from(tags >> (2 * n) & 3 != EMPTY) << n).sum();
    image.put(TAGS, [abridged]);
    image.put(FOP, last_opcode.to_le_bytes());
    image.put(FIP, last_ip.to_le_bytes());
    image.put(FDP, last_dp.to_le_bytes());
    for n in 0..8 {
        let reg = &regs[physical(*status, n)];
        image.put(ST + 16 * n, reg.mantissa.to_le_bytes());
        image.put(ST + 16 * n + 8, reg.sign_exponent.to_le_bytes());
    }
}

/// The number of the register that is ST(n).
fn physical(status: u16, n: usize) -> usize {
    (usize::from(status >> TOP_SHIFT) + n) & 7
}

/// Puts what an image says into a state that is as it was loaded: what images leave out stays.
pub(crate) fn from_xsave(state: &mut CpuState, xsave: &kvm_xsave, layout: XsaveLayout) {
    let image = Image::of(xsave);
    let present = image.u64(XSTATE_BV);
    let x87 = if present & X87_BIT != 0 { get_x87(&image) } else { initial_x87() };
    state.x87 = keep_pointers(&state.x87, x87);
    let mut vector = Vector { mxcsr: u32::from_le_bytes(image.get(MXCSR)), ..Vector::default() };
    if present & (SSE_BIT | AVX_BIT) == 0 {
        // MXCSR belongs to both; where neither is there, it may be anything.
        vector.mxcsr = Vector::default().mxcsr;
    }
    for (n, reg) in vector.regs.iter_mut().enumerate() {
        if present & SSE_BIT != 0 {
            (reg[0], reg[1]) = (image.u64(XMM + 16 * n), image.u64(XMM + 16 * n + 8));
        }
        if present & AVX_BIT != 0 && layout.avx {
            (reg[2], reg[3]) = (image.u64(AVX + 16 * n), image.u64(AVX + 16 * n + 8));
        }
    }
    vector.mxcsr &= 0x2_ffff;
    state.vector = vector;
    if let Some(at) = layout.pkru {
        let there = present & PKRU_BIT != 0;
        state.control.pkru = if there { u32::from_le_bytes(image.get(at)) } else { 0 };
    }
}

/// The state of the x87 unit that stands for an absent part. Intel SDM vol. 1, 13.6.
fn initial_x87() -> X87 {
    X87 { control: 0x37f, tags: 0xffff, ..X87::default() }
}

fn get_x87(image: &Image) -> X87 {
    let status = image.u16(FSW);
    let mut regs = [X87Register::default(); 8];
    for n in 0..8 {
        let at = ST + 16 * n;
        regs[physical(status, n)] =
            X87Register { mantissa: image.u64(at), sign_exponent: image.u16(at + 8) };
    }
    let abridged = image.0[TAGS];
    let tags = (0..8).map(|n| {
        let tag = if abridged >> n & 1 == 0 { EMPTY } else { tag(&regs[n]) };
        tag << (2 * n)
    });
    X87 {
        regs,
        control: image.u16(FCW),
        status,
        tags: tags.sum(),
        last_opcode: image.u16(FOP) & 0x7ff,
        last_ip: image.u64(FIP),
        last_cs: 0,
        last_dp: image.u64(FDP),
        last_ds: 0,
    }
}

/// The tag of a register that is not empty. Intel SDM vol. 1, 8.1.7.
fn tag(reg: &X87Register) -> u16 {
    match (reg.sign_exponent & 0x7fff, reg.mantissa) {
        (0, 0) => 1,
        (1..0x7fff, mantissa) if mantissa >> 63 != 0 => 0,
        _ => 2,
    }
}

/// Images have no selectors, and AMD's processors write no pointers unless an exception waits: where
/// the rest is as it was, so are these.
fn keep_pointers(before: &X87, now: X87) -> X87 {
    let X87 { last_opcode, last_ip, last_cs, last_dp, last_ds, .. } = *before;
    let same_pointers = (last_ip, last_dp) == (now.last_ip, now.last_dp);
    let unwritten = (now.last_opcode, now.last_ip, now.last_dp) == (0, 0, 0);
    let with = X87 { last_opcode, last_ip, last_cs, last_dp, last_ds, ..now };
    // The tags of an unchanged register are what they were: a program may have loaded others.
    let same = (now.regs, now.control, now.status) == (before.regs, before.control, before.status);
    let with = if same && full_eq(before.tags, now.tags) {
        X87 { tags: before.tags, ..with }
    } else {
        with
    };
    match same && (same_pointers || unwritten) {
        true => with,
        false if same_pointers => X87 { last_cs, last_ds, ..now },
        false => now,
    }
}

/// Whether two tag words say the same of which registers are empty.
fn full_eq(a: u16, b: u16) -> bool {
    (0..8).all(|n| (a >> (2 * n) & 3 == EMPTY) == (b >> (2 * n) & 3 == EMPTY))
}
