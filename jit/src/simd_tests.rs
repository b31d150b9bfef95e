//! Every instruction on vector registers that is copied, against the interpreter: all opcodes that
//! there are, with random operands, and from random states.

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, Instruction, OpKind, Register};
use trivium_cpu::CpuState;
use trivium_interp::cpu::Mode;
use trivium_interp::decode::offered;
use trivium_interp::run::WARM;

use crate::simd::{Needs, host_has, needs};
use crate::testing::{CODE, DATA, DATA_SIZE, RAM, TestMachine, model, state};

/// Runs of a block before it is translated, and those with it translated.
const COLD: u32 = WARM + 1;
const HOT: u32 = 24;
/// Variants of registers and immediates of an opcode, each with a register and with memory.
const VARIANTS: usize = 2;
const HLT: u8 = 0xf4;
const MXCSR_MASKS: u32 = 0x1f80;

/// xorshift64*.
struct Rng(u64);

impl Rng {
    fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.any() >> 32) % n
    }

    fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }
}

/// A case: the bytes, and the base register of the memory operand.
struct Case {
    bytes: Vec<u8>,
    instruction: Instruction,
    base: Option<usize>,
}

/// An opcode: what comes before ModR/M. REX and VEX are filled in with register bits.
#[derive(Clone, Copy)]
struct Opcode {
    vex: bool,
    /// None, 66, F3, F2.
    prefix: u8,
    /// 0F, 0F 38, 0F 3A.
    map: u8,
    wide: bool,
    long: bool,
    opcode: u8,
}

fn opcodes() -> impl Iterator<Item = Opcode> {
    (0..2 * 4 * 3 * 4 * 256_u32).map(|n| Opcode {
        opcode: n as u8,
        wide: n >> 8 & 1 != 0,
        long: n >> 9 & 1 != 0,
        prefix: (n >> 10 & 3) as u8,
        vex: n >> 12 & 1 != 0,
        map: (n >> 13) as u8 + 1,
    })
}

const PREFIXES: [&[u8]; 4] = [&[], &[0x66], &[0xf3], &[0xf2]];
const ESCAPES: [&[u8]; 3] = [&[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];

impl Opcode {
    /// The bytes with register numbers of four bits: `reg`, `rm` or the base, `vvvv`.
    fn encode(self, [reg, rm, third]: [u8; 3], memory: bool, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (r, b) = (reg >> 3, rm >> 3);
        if self.vex {
            bytes.extend([0xc4, (r ^ 1) << 7 | 0x40 | (b ^ 1) << 5 | self.map]);
            let l = u8::from(self.long) << 2;
            bytes.push(u8::from(self.wide) << 7 | (third ^ 15) << 3 | l | self.prefix);
        } else {
            bytes.extend(PREFIXES[usize::from(self.prefix)]);
            let rex = u8::from(self.wide) << 3 | r << 2 | b;
            if rex != 0 {
                bytes.push(0x40 | rex);
            }
            bytes.extend(ESCAPES[usize::from(self.map - 1)]);
        }
        bytes.push(self.opcode);
        match memory {
            // [base + disp8], always with a SIB byte.
            true => bytes.extend([0x44 | (reg & 7) << 3, 0x20 | rm & 7, 0]),
            false => bytes.push(0xc0 | (reg & 7) << 3 | rm & 7),
        }
        // Immediates, if there are any.
        bytes.extend(rng.any().to_le_bytes());
        bytes
    }
}

/// The case of an opcode with random operands, if it is one that is copied.
fn case(opcode: Opcode, memory: bool, long: bool, rng: &mut Rng) -> Option<Case> {
    let count = if long { 16 } else { 8 };
    let [reg, mut rm, third] = [0; 3].map(|_| rng.below(count) as u8);
    // RSP is the stack's.
    if memory && rm == 4 {
        rm = 5;
    }
    // Without a first source VVVV is all ones.
    let numbers = |third| [reg, rm, third];
    let (bitness, mode) = if long { (64, Mode::LONG) } else { (32, Mode::CODE32) };
    let mode = Mode(mode | Mode::FLAT | Mode::PROTECTED);
    for third in [third, 0] {
        let mut bytes = opcode.encode(numbers(third), memory, rng);
        let model = model();
        let options = offered::options(model.vendor, model.features);
        let instruction = Decoder::with_ip(bitness, &bytes, CODE, options).decode();
        let good = !instruction.is_invalid()
            && offered::has(model.features, instruction.code())
            && memory
                == (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory)
            && !(0..instruction.op_count()).any(|n| names_rsp(&instruction, n))
            && needs(&instruction, mode).is_some()
            && host_has(&instruction);
        if good {
            bytes.truncate(instruction.len());
            bytes.push(HLT);
            let base = memory.then_some(usize::from(rm));
            return Some(Case { bytes, instruction, base });
        }
    }
    None
}

fn names_rsp(i: &Instruction, n: u32) -> bool {
    i.op_kind(n) == OpKind::Register && i.op_register(n).full_register() == Register::RSP
}

/// Doubles and singles of all kinds, small integers, anything.
fn lane(rng: &mut Rng) -> u64 {
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
fn address(rng: &mut Rng) -> u64 {
    let offset = rng.below(DATA_SIZE as u64 - 64);
    DATA + match rng.below(10) {
        0..7 => offset & !31,
        7 => offset & !15,
        8 => offset,
        // Around the end of the first page.
        _ => 0x1000 - 40 + rng.below(48),
    }
}

fn random_state(long: bool, base: Option<usize>, rng: &mut Rng) -> CpuState {
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
    state
}

/// Runs a case on both until it is translated, and some more.
fn compare(case: &Case, at: u64, long: bool, machines: &mut [TestMachine; 2], rng: &mut Rng) {
    let [interpreter, jit] = machines;
    interpreter.put(at, &case.bytes);
    jit.put(at, &case.bytes);
    let before = jit.translated();
    for run in 0..COLD + HOT {
        let mut state = random_state(long, case.base, rng);
        // What is not compared need not be random.
        state.general.rip = at;
        if run < COLD {
            state.vector.mxcsr = MXCSR_MASKS;
        }
        let data: Vec<u8> = match run < COLD {
            true => Vec::new(),
            false => (0..DATA_SIZE / 8).flat_map(|_| lane(rng).to_le_bytes()).collect(),
        };
        let [expected, found] = [&mut *interpreter, &mut *jit].map(|machine| {
            machine.put(DATA, &data);
            let after = machine.run(&state);
            let mut memory = vec![0; data.len()];
            machine.get(DATA, &mut memory);
            (after, memory)
        });
        let name = format!("{} {:02x?} run {run}", case.instruction, case.bytes);
        assert_eq!(expected.0, found.0, "{name} from {state:x?}");
        assert!(expected.1 == found.1, "{name}: memory, from {state:x?}");
    }
    assert!(jit.translated() > before, "{}: not translated", case.instruction);
}

fn compare_all(long: bool) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let mut machines = [TestMachine::interpreter(), TestMachine::jit()];
    let mut at = CODE;
    for opcode in opcodes() {
        for memory in [false, true] {
            for _ in 0..VARIANTS {
                let Some(case) = case(opcode, memory, long, &mut rng) else { break };
                if needs(&case.instruction, Mode(Mode::LONG)) == Some(Needs::Nothing) {
                    break;
                }
                compare(&case, at, long, &mut machines, &mut rng);
                codes.insert(format!("{:?}", case.instruction.code()));
                at += 32;
                assert!(at < RAM - 0x1000, "out of room for code");
            }
        }
    }
    codes
}

#[test]
fn all_that_is_copied_does_what_the_interpreter_does_in_64_bit_code() {
    let codes = compare_all(true);
    println!("{}", codes.len());
    assert!(codes.contains(&format!("{:?}", Code::Addsd_xmm_xmmm64)));
}

#[test]
fn all_that_is_copied_does_what_the_interpreter_does_in_32_bit_code() {
    let codes = compare_all(false);
    println!("{}", codes.len());
    assert!(codes.contains(&format!("{:?}", Code::Addsd_xmm_xmmm64)));
}
