//! Random states, and runs from them on an interpreter with and without translation.

use trivium_cpu::CpuState;
use trivium_cpu::state::{X87, X87Register};

use crate::testing::{CODE, DATA, DATA_SIZE, HLT, TestMachine, state};

/// Runs of a case.
const RUNS: u32 = 16;
const MXCSR_MASKS: u32 = 0x1f80;

/// xorshift64*.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.any() >> 32) % n
    }

    pub(crate) fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }
}

/// What follows a case, so that there is enough to be worth entering: MOV BL, BL and HLT.
const END: &[u8] = &[0x88, 0xdb, 0x88, 0xdb, 0x88, 0xdb, 0x88, 0xdb, HLT];

/// Code to be run.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// The register that memory operands have as their base.
    pub(crate) base: Option<usize>,
    /// It is 64-bit code.
    pub(crate) long: bool,
}

/// Doubles and singles of all kinds, small integers, anything.
pub(crate) fn lane(rng: &mut Rng) -> u64 {
    const DOUBLES: [f64; 8] = [0.0, 1.0, -1.5, 1e308, 5e-324, f64::INFINITY, f64::NAN, 2.5e9];
    const SINGLES: [f32; 8] = [-0.0, 1.0, 3.25, 1e38, 1e-45, f32::NEG_INFINITY, f32::NAN, 7e9];
    match rng.below(6) {
        0 => DOUBLES[rng.below(8) as usize].to_bits(),
        1 => {
            let [a, b] = [0; 2].map(|_| u64::from(SINGLES[rng.below(8) as usize].to_bits()));
            a << 32 | b
        }
        2 => rng.below(20) << 32 | rng.below(300),
        3 => (rng.any() as f64 / (1 << rng.below(60)) as f64).to_bits(),
        // A signalling NaN.
        4 if rng.percent(30) => 0x7ff0_0000_7f80_0001 | rng.any() & 0x8000_0000_8000_0000,
        _ => rng.any(),
    }
}

/// Where a memory operand is: mostly well within a page and aligned.
pub(crate) fn address(rng: &mut Rng) -> u64 {
    let offset = rng.below(DATA_SIZE as u64 - 64);
    DATA + match rng.below(10) {
        0..7 => offset & !31,
        7 => offset & !15,
        8 => offset,
        // Around the end of the first page.
        _ => 0x1000 - 40 + rng.below(48),
    }
}

pub(crate) fn random_state(long: bool, base: Option<usize>, rng: &mut Rng) -> CpuState {
    let mut state = state(long);
    state.general.rip = CODE;
    for (n, reg) in state.general.regs.iter_mut().enumerate().filter(|(n, _)| *n != 4) {
        *reg = if rng.percent(50) { rng.below(300) } else { rng.any() };
        if !long {
            *reg = if n < 8 { *reg & 0xffff_ffff } else { 0 };
        }
    }
    if let Some(base) = base {
        state.general.regs[base] = address(rng);
    }
    state.general.rflags = 2 | rng.any() & 0x8d5;
    for part in state.vector.regs.iter_mut().flatten() {
        *part = lane(rng);
    }
    let control = if rng.percent(50) { 0 } else { rng.any() as u32 & 0xe07f };
    let unmasked = if rng.percent(10) { rng.any() as u32 & MXCSR_MASKS } else { 0 };
    state.vector.mxcsr = control | MXCSR_MASKS & !unmasked;
    state.x87 = random_x87(long, rng);
    state
}

/// A register of the x87 unit with what may be in it, and its tag.
fn x87_register(rng: &mut Rng) -> (X87Register, u16) {
    let sign = (rng.any() as u16) & 0x8000;
    let integer_bit = 1 << 63;
    let (sign_exponent, mantissa, tag) = match rng.below(8) {
        0 => (sign, 0, 1),
        1 => (sign | 0x7fff, integer_bit, 2),
        2 => (sign | 0x7fff, integer_bit | rng.any(), 2),
        3 => (sign | 0x3fff, integer_bit, 0),
        // Denormal, or an MMX register.
        4 => (sign, rng.any() >> 1 | 1, 2),
        5 => (sign | (rng.any() as u16 & 0x7fff).clamp(1, 0x7ffe), rng.any() | integer_bit, 0),
        _ => (sign | (0x3fe0 + rng.below(80) as u16), rng.any() | integer_bit, 0),
    };
    match rng.percent(25) {
        true => (X87Register { mantissa, sign_exponent }, 3),
        false => (X87Register { mantissa, sign_exponent }, tag),
    }
}

fn random_x87(long: bool, rng: &mut Rng) -> X87 {
    let unmasked = if rng.percent(10) { rng.any() as u16 & 0x3f } else { 0 };
    let control = 0x7f & !unmasked | if rng.percent(60) { 0x300 } else { rng.any() as u16 & 0xf00 };
    let mut status = if rng.percent(50) { 0 } else { rng.any() as u16 & 0x477f };
    status |= (rng.below(8) as u16) << 11;
    if status & !control & 0x3f != 0 {
        status |= 0x8080;
    }
    let mut x87 = X87 { control, status, tags: 0, ..X87::default() };
    for (n, reg) in x87.regs.iter_mut().enumerate() {
        let (value, tag) = x87_register(rng);
        *reg = value;
        x87.tags |= tag << (2 * n);
    }
    let mask = if long { !0 } else { 0xffff_ffff };
    x87.last_opcode = rng.any() as u16 & 0x7ff;
    (x87.last_ip, x87.last_dp) = (rng.any() & mask, rng.any() & mask);
    (x87.last_cs, x87.last_ds) = (rng.any() as u16, rng.any() as u16);
    x87
}

/// Bytes from one case to the next, and those before its code.
pub(crate) const SPACE: u64 = 192;
const TOUCHING: u64 = 64;

/// Code that reads and writes the pages of data, so that translated code finds them, and goes on at
/// `target`, changing nothing.
fn touching(long: bool, target: u64) -> Vec<u8> {
    let mut code = vec![0x50]; // PUSH rAX.
    for page in 0..DATA_SIZE as u64 / 0x1000 {
        // MOV AL, [page]; MOV [page], AL.
        for opcode in [0x8a, 0x88] {
            code.push(opcode);
            code.extend(if long { &[0x04, 0x25][..] } else { &[0x05] });
            code.extend(((DATA + 0x1000 * page) as u32).to_le_bytes());
        }
    }
    // POP rAX; PUSH imm32; RET.
    code.extend([0x58, 0x68]);
    code.extend((target as u32).to_le_bytes());
    code.push(0xc3);
    code
}

/// The parts of two states that differ.
fn difference(expected: &CpuState, found: &CpuState) -> String {
    let parts = |state: &CpuState| {
        let vectors = state.vector.regs.iter().map(|r| format!("{r:x?}"));
        let registers = state.x87.regs.iter().map(|r| format!("{r:x?}"));
        let x87 = X87 { regs: Default::default(), ..state.x87 };
        let rest = [
            format!("mxcsr {:x}", state.vector.mxcsr),
            format!("{x87:x?}"),
            format!("{:x?}", state.general),
        ];
        vectors.chain(registers).chain(rest).collect::<Vec<_>>()
    };
    let pairs = parts(expected).into_iter().zip(parts(found));
    pairs.filter(|(a, b)| a != b).map(|(a, b)| format!("\n  {a}\n  not {b}")).collect()
}

/// Runs a case on both from random states.
pub(crate) fn compare(case: &Case, at: u64, machines: &mut [TestMachine; 2], rng: &mut Rng) {
    let [interpreter, jit] = machines;
    let code = at + TOUCHING;
    for machine in [&mut *interpreter, &mut *jit] {
        machine.put(at, &touching(case.long, code));
        machine.put(code, &[&case.bytes, END].concat());
    }
    let before = jit.translated();
    for run in 0..RUNS {
        let mut state = random_state(case.long, case.base, rng);
        state.general.rip = at;
        let data: Vec<u8> = (0..DATA_SIZE / 8).flat_map(|_| lane(rng).to_le_bytes()).collect();
        let [expected, found] = [&mut *interpreter, &mut *jit].map(|machine| {
            machine.put(DATA, &data);
            let after = machine.run(&state);
            let mut memory = vec![0; data.len()];
            machine.get(DATA, &mut memory);
            (after, memory)
        });
        let name = format!("{} {:02x?} run {run}", case.name, case.bytes);
        let differ = difference(&expected.0, &found.0);
        assert!(expected.0 == found.0, "{name}: {differ}\nfrom {:x?}", state.general);
        assert!(expected.1 == found.1, "{name}: memory, from {:x?}", state.general);
    }
    assert!(jit.translated() > before + 1, "{}: not translated", case.name);
}
