//! The instructions of privilege cases, and their bytes.
//!
//! Selectors are in AX; memory operands are where RDI points; results go to RCX.

use super::model::protection::{Check, DS, ES, FS, SS};
use super::model::transfer::FarPointer;

/// An instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// MOV of AX to a segment register.
    MoveToSegment {
        /// Which.
        register: usize,
        /// What is in AX.
        selector: u16,
    },
    /// POP of a segment register.
    PopSegment {
        /// Which.
        register: usize,
        /// What is on the stack.
        selector: u16,
    },
    /// LES, LDS, LSS, LFS or LGS, of a pointer with 32 bits of offset.
    LoadPointer {
        /// Which.
        register: usize,
        /// What is in memory.
        pointer: FarPointer,
    },
    /// LAR, LSL, VERR or VERW.
    Check {
        /// Which.
        check: Check,
        /// What is in AX.
        selector: u16,
    },
    /// LLDT of AX.
    LoadLdt {
        /// What is in AX.
        selector: u16,
    },
    /// LTR of AX.
    LoadTask {
        /// What is in AX.
        selector: u16,
    },
    /// Far JMP.
    Jump {
        /// To where.
        to: FarPointer,
        /// The pointer is in memory, not in the instruction.
        memory: bool,
    },
    /// Far CALL.
    Call {
        /// To where.
        to: FarPointer,
        /// The pointer is in memory, not in the instruction.
        memory: bool,
    },
    /// Far RET.
    FarReturn {
        /// The operand size: 2, 4 or 8.
        size: u64,
        /// How many bytes of parameters it releases.
        release: u16,
    },
    /// IRET.
    InterruptReturn {
        /// The operand size: 2, 4 or 8.
        size: u64,
    },
    /// INT n.
    Interrupt {
        /// n.
        vector: u8,
    },
}

/// The operand-size prefix, in code whose operands are of four bytes.
fn prefix(size: u64) -> &'static [u8] {
    match size {
        2 => &[0x66],
        8 => &[0x48],
        _ => &[],
    }
}

/// POP of a segment register, where there is one.
fn pop(register: usize) -> &'static [u8] {
    match register {
        ES => &[0x07],
        SS => &[0x17],
        DS => &[0x1f],
        FS => &[0x0f, 0xa1],
        _ => &[0x0f, 0xa9],
    }
}

/// LES to LGS.
fn load_pointer(register: usize) -> &'static [u8] {
    match register {
        ES => &[0xc4],
        DS => &[0xc5],
        SS => &[0x0f, 0xb2],
        FS => &[0x0f, 0xb4],
        _ => &[0x0f, 0xb5],
    }
}

/// ModR/M: memory at RDI, with this number as register or extension of the opcode.
fn at_rdi(number: u8) -> u8 {
    number << 3 | 7
}

fn far(to: &FarPointer, memory: bool, direct: u8, extension: u8) -> Vec<u8> {
    let mut bytes = prefix(to.size).to_vec();
    if memory {
        bytes.extend([0xff, at_rdi(extension)]);
    } else {
        bytes.push(direct);
        bytes.extend_from_slice(&far_bytes(to));
    }
    bytes
}

/// A far pointer in memory.
#[must_use]
pub fn far_bytes(pointer: &FarPointer) -> Vec<u8> {
    let mut bytes = pointer.offset.to_le_bytes()[..pointer.size as usize].to_vec();
    bytes.extend(pointer.selector.to_le_bytes());
    bytes
}

/// The bytes of an instruction.
#[must_use]
pub fn encode(instruction: &Instruction) -> Vec<u8> {
    match *instruction {
        Instruction::MoveToSegment { register, .. } => vec![0x8e, 0xc0 | (register as u8) << 3],
        Instruction::PopSegment { register, .. } => pop(register).to_vec(),
        Instruction::LoadPointer { register, .. } => {
            [load_pointer(register), &[at_rdi(1)]].concat()
        }
        Instruction::Check { check, .. } => match check {
            Check::Lar => vec![0x0f, 0x02, 0xc8],
            Check::Lsl => vec![0x0f, 0x03, 0xc8],
            Check::Verr => vec![0x0f, 0x00, 0xe0],
            Check::Verw => vec![0x0f, 0x00, 0xe8],
        },
        Instruction::LoadLdt { .. } => vec![0x0f, 0x00, 0xd0],
        Instruction::LoadTask { .. } => vec![0x0f, 0x00, 0xd8],
        Instruction::Jump { to, memory } => far(&to, memory, 0xea, 5),
        Instruction::Call { to, memory } => far(&to, memory, 0x9a, 3),
        Instruction::FarReturn { size, release: 0 } => [prefix(size), &[0xcb]].concat(),
        Instruction::FarReturn { size, release } => {
            [prefix(size), &[0xca], &release.to_le_bytes()].concat()
        }
        Instruction::InterruptReturn { size } => [prefix(size), &[0xcf]].concat(),
        Instruction::Interrupt { vector } => vec![0xcd, vector],
    }
}
