//! The way into translated code and back.

use std::mem::offset_of;

use dynasmrt::{DynasmApi, dynasm};
use trivium_cpu::bits::rflags;
use trivium_interp::Cpu;
use trivium_interp::block::{Block, BlockCache, Reach, follow};
use trivium_interp::cpu::Native;
use trivium_interp::op::{Op, StopReason};

use crate::emit::Assembler;
use crate::regs::{BIAS, Home, RSP_HOME, at, home, slot};
use crate::{simd_state, x87_state};

/// Why translated code came back, with the block's number and the operation's packed in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The interpreter is to go on with this operation.
    Resume { block: u32, op: u8 },
    /// The block is done; by this link it is followed by the one at RIP.
    Follow { block: u32, slot: u8 },
    /// The block was not begun, as the quantum is used up.
    Exhausted { block: u32 },
}

/// The operation number that says [`Exit::Exhausted`]; blocks have fewer.
const EXHAUSTED: u8 = 0x7f;
/// Those that say [`Exit::Follow`].
const FOLLOW: u8 = 0x7d;
/// Bits of the operation's number.
const OP_BITS: u32 = 7;

impl Exit {
    /// The 32 bits; nothing if the block's number is too great.
    pub(crate) fn pack(self) -> Option<u32> {
        let (block, op) = match self {
            Self::Resume { block, op } => (block, op),
            Self::Follow { block, slot } => (block, FOLLOW + slot),
            Self::Exhausted { block } => (block, EXHAUSTED),
        };
        (block >> (32 - OP_BITS) == 0).then_some(block << OP_BITS | u32::from(op))
    }

    fn unpack(bits: u32) -> Self {
        let block = bits >> OP_BITS;
        match (bits & ((1 << OP_BITS) - 1)) as u8 {
            EXHAUSTED => Self::Exhausted { block },
            op if op >= FOLLOW => Self::Follow { block, slot: op - FOLLOW },
            op => Self::Resume { block, op },
        }
    }
}

/// The operations of a block that translated code can come back to.
pub(crate) const MAX_OP: usize = FOLLOW as usize - 1;

const FLAGS: i32 = at(offset_of!(Cpu, native)) + offset_of!(Native, flags) as i32;

/// Emits the routine that [`enter`] calls: from Rust's registers to the guest's.
pub(crate) fn emit_enter(asm: &mut Assembler) {
    dynasm!(asm
        ; .arch x64
        ; push rbx
        ; push rbp
        ; push r12
        ; push r13
        ; push r14
        ; push r15
        ; sub rsp, 8
        ; lea r14, [rdi + BIAS]
        ; mov r8, rsi
        ; mov rax, [r14 + FLAGS]
        // OF is set if AL is 1, the others come from AH.
        ; add al, 127
        ; sahf
    );
    for number in 0..16 {
        if let Home::Host(host) = home(number) {
            dynasm!(asm ; .arch x64 ; mov Rq(host), [r14 + slot(number)]);
        }
    }
    dynasm!(asm ; .arch x64 ; jmp r8);
}

/// Emits the routine that translated code jumps to with a packed [`Exit`] in R8.
pub(crate) fn emit_leave(asm: &mut Assembler) {
    for number in 0..16 {
        if let Home::Host(host) = home(number) {
            dynasm!(asm ; .arch x64 ; mov [r14 + slot(number)], Rq(host));
        }
    }
    dynasm!(asm
        ; .arch x64
        ; lahf
        ; seto al
        ; mov [r14 + FLAGS], rax
    );
    simd_state::emit_save(asm);
    x87_state::emit_save(asm);
    dynasm!(asm
        ; .arch x64
        ; mov rax, r8
        ; add rsp, 8
        ; pop r15
        ; pop r14
        ; pop r13
        ; pop r12
        ; pop rbp
        ; pop rbx
        ; ret
    );
    const { assert!(RSP_HOME == 15) };
}

/// The flags that LAHF tells of, in the places that RFLAGS and AH have them.
const IN_AH: u64 = rflags::SF | rflags::ZF | rflags::AF | rflags::PF | rflags::CF;

fn to_native(flags: u64) -> u64 {
    (flags & IN_AH) << 8 | u64::from(flags & rflags::OF != 0)
}

fn from_native(bits: u64) -> u64 {
    bits >> 8 & IN_AH | (bits & 1) * rflags::OF
}

/// Runs translated code: the first operation of a translated block. `imm` is the code's address,
/// `disp` that of the routine of [`emit_enter`].
pub(crate) fn enter(cpu: &mut Cpu, op: &Op, _: &[Op], _: &Block, links: &BlockCache) {
    cpu.native.flags = to_native(cpu.flags.get());
    let exit = call(cpu, op);
    x87_state::take_back(cpu);
    match Exit::unpack(exit) {
        Exit::Resume { block, op } => resume(cpu, block, op, links),
        Exit::Follow { block, slot } => {
            restore_flags(cpu);
            let Some(block) = links.block(block) else { return };
            if let Some((next, Reach::Page)) = links.following(cpu, block, slot)
                && links.ops(next).first().is_some_and(is_enter)
            {
                // They could be chained.
                cpu.stop_link = slot;
                return cpu.stop_at(StopReason::Unlinked, 0, block);
            }
            follow(cpu, cpu.rip, slot, block, links)
        }
        Exit::Exhausted { block } => {
            restore_flags(cpu);
            let Some(block) = links.block(block) else { return };
            cpu.rip = block.rip;
            cpu.stop_at(StopReason::Quantum, 0, block);
        }
    }
}

fn restore_flags(cpu: &mut Cpu) {
    cpu.flags.set_explicit(from_native(cpu.native.flags));
}

fn resume(cpu: &mut Cpu, block: u32, op: u8, links: &BlockCache) {
    restore_flags(cpu);
    let Some(block) = links.block(block) else { return };
    let ops = links.ops(block.target).get(usize::from(op)..).unwrap_or_default();
    if let Some((op, rest)) = ops.split_first() {
        (op.run)(cpu, op, rest, block, links)
    }
}

/// Whether an operation is [`enter`].
pub(crate) fn is_enter(op: &Op) -> bool {
    op.run as usize == enter as trivium_interp::op::Handler as usize
}

fn call(cpu: &mut Cpu, op: &Op) -> u32 {
    type Routine = unsafe extern "sysv64" fn(*mut Cpu, u64) -> u64;
    // SAFETY: operations with this handler are made by `Jit` alone, which gives them the addresses
    // of its own routine and of code that it has translated and that the block still stands for:
    // blocks are dropped with their code, and code is dropped with all blocks. The routine keeps
    // the registers that it must keep, and the code changes nothing but the state and, through the
    // TLB, guest memory.
    let exit = unsafe {
        let routine: Routine = std::mem::transmute(op.disp as usize);
        routine(cpu, op.imm)
    };
    exit as u32
}
