//! What a program of a paging case does, step by step, and the bytes that do it.
//!
//! Each step is one instruction, before which its address registers are loaded: RSI with where it
//! reads from, RDI with where else it accesses memory, RSP for the stack. Its data register is the
//! one with the step's number: RAX, RCX, RDX, RBX.

/// At most so many steps in a program: as many as there are data registers.
pub const MOST_STEPS: usize = 4;

/// What an instruction does with what it reads and writes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modify {
    /// ADD.
    Add,
    /// XCHG.
    Exchange,
    /// CMPXCHG, which writes whether it finds the two equal or not.
    CompareExchange,
}

/// A step. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// MOV from memory; of 16 bytes, MOVUPS.
    Load {
        /// 1, 2, 4, 8 or 16.
        size: u64,
        /// Where.
        at: u64,
    },
    /// MOV to memory; of 16 bytes, MOVUPS.
    Store {
        /// 1, 2, 4, 8 or 16.
        size: u64,
        /// Where.
        at: u64,
    },
    /// Reads and writes.
    Modify {
        /// What.
        how: Modify,
        /// With LOCK.
        lock: bool,
        /// 1, 2, 4 or 8.
        size: u64,
        /// Where.
        at: u64,
    },
    /// PUSH of the data register: eight bytes in 64-bit code, else four.
    Push {
        /// What the stack pointer is before.
        at: u64,
    },
    /// POP into the data register.
    Pop {
        /// What the stack pointer is before.
        at: u64,
    },
    /// MOVS.
    Copy {
        /// 1, 2, 4 or 8.
        size: u64,
        /// Where it reads.
        from: u64,
        /// Where it writes.
        to: u64,
    },
    /// CLFLUSH.
    Flush {
        /// Where.
        at: u64,
    },
    /// MOV to ES of a selector of the local descriptor table; the descriptor is good.
    LoadSegment {
        /// The selector.
        selector: u16,
    },
    /// LAR of a selector of the local descriptor table; the descriptor is good.
    AccessRights {
        /// The selector.
        selector: u16,
    },
    /// MOV to CR3.
    LoadCr3 {
        /// The value.
        value: u64,
    },
    /// A jump to [`program_to_jump_to`]. It is the last step.
    Execute {
        /// Where.
        at: u64,
    },
}

/// The descriptor that steps with a selector want, marked accessed: an expand-down data segment of
/// all addresses but 0. Its limit has no bits 16 to 19, which LAR need not give.
pub const DESCRIPTOR: u64 = 0x0040_f700_0000_0000;

/// INT3.
pub const INT3: u8 = 0xcc;

/// The opcode of MOV of a constant to EBP.
pub const MOV: u8 = 0xbd;

/// Five bytes that put this into EBP, and INT3.
#[must_use]
pub fn program_to_jump_to(value: u32) -> [u8; 6] {
    let [a, b, c, d] = value.to_le_bytes();
    [MOV, a, b, c, d, INT3]
}

/// The bytes of a program.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// All of it; INT3 is the last.
    pub bytes: Vec<u8>,
    /// Where each step's instruction begins.
    pub offsets: Vec<u64>,
}

/// Numbers of the address registers.
const RSP: u8 = 4;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// The bytes of a program in 64-bit code or 32-bit code.
#[must_use]
pub fn encode(steps: &[Step], long: bool) -> Program {
    let mut program = Program::default();
    for (register, step) in (0..).zip(steps) {
        for (address, value) in addresses(step, register) {
            set(&mut program.bytes, address, value, long);
        }
        program.offsets.push(program.bytes.len() as u64);
        program.bytes.extend(instruction(step, register));
    }
    program.bytes.push(INT3);
    program
}

/// The registers that a step needs, by number, and what they must hold.
fn addresses(step: &Step, register: u8) -> Vec<(u8, u64)> {
    match *step {
        Step::Load { at, .. } => vec![(RSI, at)],
        Step::Store { at, .. }
        | Step::Modify { at, .. }
        | Step::Flush { at }
        | Step::Execute { at } => vec![(RDI, at)],
        Step::Push { at } | Step::Pop { at } => vec![(RSP, at)],
        Step::Copy { from, to, .. } => vec![(RSI, from), (RDI, to)],
        Step::LoadSegment { selector } | Step::AccessRights { selector } => {
            vec![(RDI, u64::from(selector))]
        }
        Step::LoadCr3 { value } => vec![(register, value)],
    }
}

/// MOV of a constant to a register.
fn set(bytes: &mut Vec<u8>, register: u8, value: u64, long: bool) {
    if long {
        bytes.push(0x48);
    }
    bytes.push(0xb8 + register);
    let size = if long { 8 } else { 4 };
    bytes.extend_from_slice(&value.to_le_bytes()[..size]);
}

fn instruction(step: &Step, register: u8) -> Vec<u8> {
    let from = register << 3 | RSI;
    let to = register << 3 | RDI;
    match *step {
        Step::Load { size: 16, .. } => vec![0x0f, 0x10, from],
        Step::Store { size: 16, .. } => vec![0x0f, 0x11, to],
        Step::Load { size, .. } => sized(size, &[0x8a], &[from]),
        Step::Store { size, .. } => sized(size, &[0x88], &[to]),
        Step::Modify { how, lock, size, .. } => {
            let opcode: &[u8] = match how {
                Modify::Add => &[0x00],
                Modify::Exchange => &[0x86],
                Modify::CompareExchange => &[0x0f, 0xb0],
            };
            let lock: &[u8] = if lock { &[0xf0] } else { &[] };
            [lock, &sized(size, opcode, &[to])].concat()
        }
        Step::Push { .. } => vec![0x50 + register],
        Step::Pop { .. } => vec![0x58 + register],
        Step::Copy { size, .. } => sized(size, &[0xa4], &[]),
        Step::Flush { .. } => vec![0x0f, 0xae, 7 << 3 | RDI],
        Step::LoadSegment { .. } => vec![0x8e, 0xc0 | RDI],
        Step::AccessRights { .. } => vec![0x0f, 0x02, 0xc0 | register << 3 | RDI],
        Step::LoadCr3 { .. } => vec![0x0f, 0x22, 0xd8 | register],
        Step::Execute { .. } => vec![0xff, 0xe0 | RDI],
    }
}

/// An instruction whose opcode is even for bytes and odd for larger operands.
fn sized(size: u64, opcode: &[u8], rest: &[u8]) -> Vec<u8> {
    let prefix: &[u8] = match size {
        2 => &[0x66],
        8 => &[0x48],
        _ => &[],
    };
    let mut bytes = [prefix, opcode].concat();
    if let Some(last) = bytes.last_mut() {
        *last |= u8::from(size > 1);
    }
    bytes.extend_from_slice(rest);
    bytes
}
