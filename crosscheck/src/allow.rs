//! What two CPUs may differ in: what the manuals leave undefined, and nothing else.
//!
//! [`RULES`] is the table. A rule speaks of one instruction; what a program of several may differ
//! in follows from looking at each of them, see [`crate::minimise`].

mod beyond;
mod rules;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use trivium_cpu::bits::rflags;
use trivium_cpu::model::Vendor;

use crate::case::Case;
use crate::outcome::Outcome;
pub use beyond::{BEYOND, beyond};
pub use rules::RULES;

/// What the manuals leave undefined of some instructions' results.
pub struct Rule {
    /// Of which.
    pub mnemonics: &'static [Mnemonic],
    /// Under which condition.
    pub when: When,
    /// What it is.
    pub what: What,
    /// By whose manual.
    pub vendors: &'static [Vendor],
    /// Where it says so.
    pub source: &'static str,
}

/// When a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// For a count, masked as the instruction masks it, that is not zero.
    CountNotZero,
    /// For a count that is neither zero nor one.
    CountAboveOne,
    /// For a count of at least the operand's size.
    CountAtLeastSize,
    /// For a count above the operand's size.
    CountAboveSize,
    /// When it has set ZF.
    Zero,
}

/// What may differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// These bits of RFLAGS.
    Flags(u64),
    /// The first operand, be it a register or memory.
    Destination,
    /// These bits of the x87 status word.
    X87Status(u16),
    /// The last instruction and operand that the x87 unit tells of.
    X87Pointers,
    /// Which of several faults it raises, when it raises one in either case.
    WhichFault,
    /// Memory and general registers that it has written before it faults, when it does.
    PartialResults,
    /// The single-precision lanes of the first operand, by this power of two relative to them.
    Approximate(i32),
}

/// RSP among the general registers.
const RSP: u16 = 1 << 4;

/// All that may differ after a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// Bits of RFLAGS.
    pub flags: u64,
    /// General registers, a bit for each.
    pub registers: u16,
    /// x87 registers, a bit for each, counted from the top of the stack.
    pub x87_registers: u8,
    /// Bits of the x87 status word.
    pub x87_status: u16,
    /// The x87 unit's pointers and opcode.
    pub x87_pointers: bool,
    /// Which fault is raised.
    pub which_fault: bool,
    /// Bits of MXCSR.
    pub mxcsr: u32,
    /// Memory.
    pub memory: bool,
    /// Vector registers whose single-precision lanes may differ, a bit for each.
    pub approximate: u32,
    /// By this power of two, relative to their values.
    pub tolerance: i32,
}

impl Allowance {
    /// What may differ after a case of one instruction on CPUs of this vendor; `outcome` is that of
    /// either.
    #[must_use]
    pub fn of(case: &Case, outcome: &Outcome, vendor: Vendor) -> Self {
        let instruction = first_instruction(case);
        let mut allowance = Self::default();
        let mnemonic = instruction.mnemonic();
        let rules = RULES.iter().filter(|r| r.mnemonics.contains(&mnemonic));
        for rule in rules.filter(|r| r.vendors.contains(&vendor)) {
            if rule.when.holds(&instruction, case, outcome) {
                allowance.add(rule.what, &instruction, outcome);
            }
        }
        allowance
    }

    fn add(&mut self, what: What, instruction: &Instruction, outcome: &Outcome) {
        match what {
            What::Flags(flags) => self.flags |= flags,
            What::X87Status(bits) => self.x87_status |= bits,
            What::X87Pointers => self.x87_pointers = true,
            What::WhichFault => self.which_fault = true,
            What::PartialResults if outcome.stop.is_fault() => {
                self.memory = true;
                self.registers |= !RSP;
            }
            What::PartialResults => {}
            What::Destination if instruction.op0_kind() == OpKind::Memory => self.memory = true,
            What::Destination => {
                let full = instruction.op0_register().full_register();
                if full.is_gpr64() {
                    self.registers |= 1 << full.number();
                }
            }
            What::Approximate(tolerance) => {
                self.approximate |= 1 << (instruction.op0_register().number() & 31);
                self.tolerance = tolerance;
            }
        }
    }

    /// Whether two vectors are near enough, if vector register `n` may differ at all.
    #[must_use]
    pub fn approximately(&self, n: usize, first: &[u64], second: &[u64]) -> bool {
        let near = |a: u32, b: u32| {
            let (a, b) = (f64::from(f32::from_bits(a)), f64::from(f32::from_bits(b)));
            (a - b).abs() <= a.abs().max(b.abs()) * f64::from(self.tolerance).exp2()
        };
        let halves = |v: u64| [v as u32, (v >> 32) as u32];
        let pairs = first.iter().zip(second).flat_map(|(a, b)| {
            let (a, b) = (halves(*a), halves(*b));
            [(a[0], b[0]), (a[1], b[1])]
        });
        self.approximate >> n & 1 != 0 && { pairs }.all(|(a, b)| a == b || near(a, b))
    }
}

/// The instruction that a case begins with, or the end of one if its bytes are none.
#[must_use]
pub fn first_instruction(case: &Case) -> Instruction {
    let (bits, bytes) = (case.width.bits(), bytes_of(case));
    Decoder::with_ip(bits, &bytes, case.state.rip, DecoderOptions::NONE).decode()
}

/// The longest instruction, in bytes.
const MAX_LEN: usize = 15;

/// The bytes that a case begins with. What follows the code in its region is INT3.
fn bytes_of(case: &Case) -> [u8; MAX_LEN] {
    let mut bytes = [0xcc; MAX_LEN];
    for (to, from) in bytes.iter_mut().zip(&case.code) {
        *to = *from;
    }
    bytes
}

impl When {
    fn holds(self, instruction: &Instruction, case: &Case, outcome: &Outcome) -> bool {
        let (count, size) = count_and_size(instruction, case);
        match self {
            Self::Always => true,
            Self::CountNotZero => count != 0,
            Self::CountAboveOne => count > 1,
            Self::CountAtLeastSize => count >= size,
            Self::CountAboveSize => count > size,
            Self::Zero => outcome.state.rflags & rflags::ZF != 0,
        }
    }
}

/// The count of a shift or rotation, masked, and the bits of its operand.
fn count_and_size(instruction: &Instruction, case: &Case) -> (u32, u32) {
    let size = match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size() as u32 * 8,
        _ => instruction.memory_size().size() as u32 * 8,
    };
    let last = instruction.op_count().saturating_sub(1);
    let count = match instruction.op_kind(last) {
        OpKind::Immediate8 => u32::from(instruction.immediate8()),
        OpKind::Register if instruction.op_register(last) == Register::CL => {
            (case.state.regs[1] & 0xff) as u32
        }
        _ => 0,
    };
    (count & if size == 64 { 63 } else { 31 }, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{CaseId, Kind, Width};
    use crate::layout::CODE;
    use crate::outcome::Stop;
    use crate::state::UserState;

    fn allowance(code: &[u8], cl: u64) -> Allowance {
        let mut case = Case {
            id: CaseId::default(),
            kind: Kind::Manual,
            width: Width::Bits64,
            code_at: CODE.start,
            code: code.to_vec(),
            state: UserState::default(),
            memory: Vec::new(),
            ldt: Vec::new(),
            limit: 1,
        };
        case.state.regs[1] = cl;
        let stop = Stop::Exception { vector: 3, error: 0, cr2: 0 };
        let outcome = Outcome { stop, state: case.state.clone(), changes: Vec::new() };
        Allowance::of(&case, &outcome, Vendor::Amd)
    }

    #[test]
    fn a_shift_by_cl_leaves_undefined_what_its_count_says() {
        let (cf, af, of) = (rflags::CF, rflags::AF, rflags::OF);
        let shl_bl_cl = [0xd2, 0xe3];
        assert_eq!(allowance(&shl_bl_cl, 0).flags, 0);
        assert_eq!(allowance(&shl_bl_cl, 0x20).flags, 0, "masked to five bits");
        assert_eq!(allowance(&shl_bl_cl, 1).flags, af);
        assert_eq!(allowance(&shl_bl_cl, 7).flags, af | of);
        assert_eq!(allowance(&shl_bl_cl, 8).flags, af | of | cf);
        assert_eq!(allowance(&[0xd2, 0xfb], 8).flags, af | of, "SAR");
    }

    #[test]
    fn what_is_defined_may_not_differ() {
        assert_eq!(allowance(&[0x01, 0xc0], 0), Allowance::default(), "ADD");
        assert_eq!(allowance(&[0x21, 0xc0], 0).flags, rflags::AF, "AND");
    }

    #[test]
    fn approximations_are_held_to_their_tolerance() {
        let rcpps_xmm2 = allowance(&[0x0f, 0x53, 0xd1], 0);
        let lanes = |x: f32| [u64::from(x.to_bits()), 0];
        assert!(rcpps_xmm2.approximately(2, &lanes(1.0), &lanes(1.0005)));
        assert!(!rcpps_xmm2.approximately(2, &lanes(1.0), &lanes(1.001)));
        assert!(!rcpps_xmm2.approximately(1, &lanes(1.0), &lanes(1.0001)));
    }

    #[test]
    fn every_rule_has_a_source_and_speaks_of_something() {
        for rule in RULES {
            assert!(rule.source.contains("vol. ") && !rule.vendors.is_empty());
            assert!(!rule.mnemonics.is_empty());
        }
    }
}
