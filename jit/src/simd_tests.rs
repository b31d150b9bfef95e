//! Every instruction on vector registers that is copied, against the interpreter: all opcodes that
//! there are, with random operands, and from random states.

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, Instruction, OpKind, Register};
use trivium_interp::cpu::Mode;
use trivium_interp::decode::offered;

use crate::host::Host;
use crate::simd::needs;
use crate::testing::{CODE, RAM, TestMachine, model};
use crate::testing_random::{Case, Rng, SPACE, compare};

/// Variants of registers and immediates of an opcode, each with a register and with memory.
const VARIANTS: usize = 2;

/// Runs of instructions, and instructions in one.
const RUNS: u64 = 200;
const LENGTH: usize = 8;

/// Whether an instruction is to have a memory operand, and by which register.
#[derive(Clone, Copy, PartialEq)]
enum Memory {
    None,
    Anywhere,
    At(u8),
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
fn case(opcode: Opcode, memory: Memory, long: bool, rng: &mut Rng) -> Option<(Code, Case)> {
    let count = if long { 16 } else { 8 };
    let [reg, mut rm, third] = [0; 3].map(|_| rng.below(count) as u8);
    match memory {
        Memory::At(base) => rm = base,
        // RSP is the stack's.
        Memory::Anywhere if rm == 4 => rm = 5,
        _ => {}
    }
    let memory = memory != Memory::None;
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
            && !(0..instruction.op_count()).any(|n| names_fixed(&instruction, n))
            && needs(&instruction, mode).is_some()
            && Host::default().has_all_of(&instruction);
        if good {
            bytes.truncate(instruction.len());
            let base = memory.then_some(usize::from(rm));
            let name = instruction.to_string();
            return Some((instruction.code(), Case { name, bytes, base, long }));
        }
    }
    None
}

/// Whether an operand is a register that must stay as it is: RSP, or RSI, which runs of
/// instructions have their memory by.
fn names_fixed(i: &Instruction, n: u32) -> bool {
    let fixed = [Register::RSP, Register::RSI];
    i.op_kind(n) == OpKind::Register && fixed.contains(&i.op_register(n).full_register())
}

/// Runs of instructions of all kinds, some of which leave translated code in the middle.
fn compare_runs(long: bool) {
    let mut rng = Rng(0x1234_5678_9abc_def1);
    let mut machines = [TestMachine::interpreter(), TestMachine::jit()];
    let all: Vec<Opcode> = opcodes().collect();
    for n in 0..RUNS {
        let (mut bytes, mut count) = (Vec::new(), 0);
        while count < LENGTH {
            let opcode = all[rng.below(all.len() as u64) as usize];
            let memory = if rng.percent(50) { Memory::At(6) } else { Memory::None };
            let Some((_, case)) = case(opcode, memory, long, &mut rng) else { continue };
            bytes.extend(case.bytes);
            count += 1;
        }
        let case = Case { name: format!("run {n}"), bytes, base: Some(6), long };
        compare(&case, CODE + SPACE * n, &mut machines, &mut rng);
    }
}

fn compare_all(long: bool) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let mut machines = [TestMachine::interpreter(), TestMachine::jit()];
    let mut at = CODE;
    for opcode in opcodes() {
        for memory in [Memory::None, Memory::Anywhere] {
            for _ in 0..VARIANTS {
                let Some((code, case)) = case(opcode, memory, long, &mut rng) else { break };
                compare(&case, at, &mut machines, &mut rng);
                codes.insert(format!("{code:?}"));
                at += SPACE;
                assert!(at < RAM - 0x1000, "out of room for code");
            }
        }
    }
    codes
}

#[test]
fn all_that_is_copied_does_what_the_interpreter_does_in_64_bit_code() {
    let codes = compare_all(true);
    assert!(codes.len() > 900, "{}", codes.len());
}

#[test]
fn all_that_is_copied_does_what_the_interpreter_does_in_32_bit_code() {
    let codes = compare_all(false);
    assert!(codes.len() > 800, "{}", codes.len());
}

#[test]
fn runs_of_what_is_copied_do_what_the_interpreter_does() {
    compare_runs(true);
    compare_runs(false);
}
