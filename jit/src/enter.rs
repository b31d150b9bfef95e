//! The way into translated code and back.

use std::mem::offset_of;

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use trivium_cpu::bits::rflags;
use trivium_interp::Cpu;
use trivium_interp::block::{Block, BlockCache, NO_LINK, Reach, exhausted, follow};
use trivium_interp::cpu::{Mode, TLB_ADDRESS, TLB_MASK};
use trivium_interp::native::{NATIVE_SAMPLES, Native};
use trivium_interp::op::{Op, StopReason};
use trivium_interp::tlb::INDEX_MASK;

use crate::emit::Assembler;
use crate::host::Host;
use crate::planted::{self, Bug};
use crate::regs::{BIAS, Home, at, home, slot};
use crate::simd::Needs;
use crate::simd_state::Routines;
use crate::{simd_state, x87_state};

/// Why translated code came back, with the block's number and the operation's packed in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The interpreter is to do this operation.
    Resume { block: u32, op: u8 },
    /// The same; it leads where `Native::target` says, and no code is known there.
    Jump { block: u32, op: u8 },
    /// A return, which is done, led to RIP 0.
    Stray,
    /// As `Resume`; the memory of several accesses was looked for.
    Span { block: u32, op: u8 },
    /// The block is done; by this link it is followed by the one at RIP.
    Follow { block: u32, slot: u8 },
    /// The block was not begun, as the quantum is used up.
    Exhausted { block: u32 },
    /// The block was not begun, as it may not be the one at its RIP any more.
    Stale { block: u32 },
}

/// Bits of the operation's number, and of what kind of exit it is.
const OP_BITS: u32 = 7;
const KIND_BITS: u32 = 3;

impl Exit {
    /// The 32 bits; nothing if the block's number is too great.
    pub(crate) fn pack(self) -> Option<u32> {
        let (kind, block, op) = match self {
            Self::Resume { block, op } => (0, block, op),
            Self::Jump { block, op } => (1, block, op),
            Self::Follow { block, slot } => (2, block, slot),
            Self::Exhausted { block } => (3, block, 0),
            Self::Stale { block } => (4, block, 0),
            Self::Span { block, op } => (5, block, op),
            Self::Stray => (STRAY as u32 >> OP_BITS, 0, 0),
        };
        let fits = block >> (32 - OP_BITS - KIND_BITS) == 0 && usize::from(op) <= MAX_OP;
        fits.then_some((block << KIND_BITS | kind) << OP_BITS | u32::from(op))
    }

    fn unpack(bits: u32) -> Self {
        let block = bits >> (OP_BITS + KIND_BITS);
        let op = (bits & ((1 << OP_BITS) - 1)) as u8;
        match bits >> OP_BITS & ((1 << KIND_BITS) - 1) {
            0 => Self::Resume { block, op },
            1 => Self::Jump { block, op },
            2 => Self::Follow { block, slot: op },
            3 => Self::Exhausted { block },
            4 => Self::Stale { block },
            5 => Self::Span { block, op },
            _ => Self::Stray,
        }
    }
}

/// What kinds of exits are for, by the numbers that they are packed with. The first is told apart by
/// its operation.
pub(crate) const EXIT_NAMES: [&str; 8] = [
    "the interpreter",
    "an indirect branch to an unknown place",
    "a branch that is not linked",
    "the quantum",
    "addresses that may have changed their meaning",
    "a span of memory that is not in one page of the TLB",
    "a return to 0",
    "a branch to a block that is not translated, or not yet",
];

/// The place there of [`Exit::Follow`] to what is not translated.
const TO_COLD: usize = 7;

/// The operations of a block that translated code can come back to.
pub(crate) const MAX_OP: usize = (1 << OP_BITS) - 1;

/// [`Exit::Stray`], packed.
const STRAY: i32 = 6 << OP_BITS;

const RIP: i32 = at(offset_of!(Cpu, rip));
const FLAGS: i32 = at(offset_of!(Cpu, native)) + offset_of!(Native, flags) as i32;
const STACK: i32 = at(offset_of!(Cpu, native)) + offset_of!(Native, stack) as i32;
const QUANTUM: i32 = at(offset_of!(Cpu, quantum));
const MOST: i32 = native(offset_of!(Native, quantum));
const RESERVE: i32 = native(offset_of!(Native, reserve));
const WANTED: i32 = native(offset_of!(Native, wanted));
const WRITTEN: i32 = native(offset_of!(Native, written));
const SEEN: i32 = native(offset_of!(Native, seen));
const SAMPLED: i32 = native(offset_of!(Native, sampled));
const SAMPLES: i32 = native(offset_of!(Native, samples));

const fn native(offset: usize) -> i32 {
    at(offset_of!(Cpu, native) + offset)
}

/// Emits the routine that [`enter`] calls: from Rust's registers to the guest's.
pub(crate) fn emit_enter(asm: &mut Assembler, routines: Routines) {
    dynasm!(asm
        ; .arch x64
        ; push rbx
        ; push rbp
        ; push r12
        ; push r13
        ; push r14
        ; push r15
        ; lea r14, [rdi + BIAS]
        ; mov [r14 + STACK], rsp
        // A return that comes here and not from a call, to the RIP that it is then taken to have.
        ; push BYTE 0
        ; lea rcx, [>stray]
        ; push rcx
        ; mov r8, rsi
        ; mov r11, [r14 + QUANTUM]
    );
    simd_state::emit_load_needed(asm, routines);
    dynasm!(asm
        ; .arch x64
        ; mov rax, [r14 + FLAGS]
    );
    if planted::has(Bug::NoOverflow) {
        dynasm!(asm ; .arch x64 ; mov al, 0);
    }
    dynasm!(asm
        ; .arch x64
        // OF is set if AL is 1, the others come from AH.
        ; add al, 127
        ; sahf
    );
    for number in 0..16 {
        if let Home::Host(host) = home(number) {
            dynasm!(asm ; .arch x64 ; mov Rq(host), [r14 + slot(number)]);
        }
    }
    dynasm!(asm
        ; .arch x64
        ; jmp r8
        ; stray:
        ; mov QWORD [r14 + RIP], 0
        ; mov ecx, STRAY
    );
    emit_leave(asm, routines.host);
}

/// Where code goes when it is at its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ways {
    /// Of the routine of [`emit_leave`].
    pub(crate) leave: u64,
    /// Of that of [`emit_refill`].
    pub(crate) refill: u64,
}

/// Emits the routine that takes more for the quantum, as `Cpu::refill` does: unless somebody wants
/// something, there is too little, or too often blocks were noted already. ECX has the packed exit,
/// for the note; it is 0 afterwards if there is more. R8 and R9 are overwritten.
pub(crate) fn emit_refill(asm: &mut Assembler) {
    dynasm!(asm
        ; .arch x64
        ; mov r8d, ecx
        ; mov ecx, [r14 + SAMPLED]
        ; lea rcx, [rcx - NATIVE_SAMPLES as i32]
        ; jrcxz >no
        ; mov r9, [r14 + WANTED]
        ; movzx ecx, BYTE [r9]
        ; jrcxz >unwanted
        ; no:
        ; mov ecx, 1
        ; ret
        ; unwanted:
        ; mov r9, [r14 + WRITTEN]
        ; mov r9, [r9]
        ; not r9
        ; mov rcx, [r14 + SEEN]
        ; lea rcx, [rcx + r9 + 1]
        ; jrcxz >unwritten
        ; jmp <no
        ; unwritten:
        // What the quantum lacks of the most that it may be.
        ; mov r9, r11
        ; not r9
        ; mov rcx, [r14 + MOST]
        ; lea r9, [rcx + r9 + 1]
        ; not r9
        ; mov rcx, [r14 + RESERVE]
        ; lea r9, [rcx + r9 + 1]
        // Its highest byte, which only what is less than 0 has.
        ; mov rcx, r9
        ; bswap rcx
        ; movzx ecx, cl
        ; jrcxz >enough
        ; jmp <no
        ; enough:
        ; mov [r14 + RESERVE], r9
        ; mov r11, [r14 + MOST]
        ; mov ecx, [r14 + SAMPLED]
        ; mov [r14 + rcx * 4 + SAMPLES], r8d
        ; lea ecx, [rcx + 1]
        ; mov [r14 + SAMPLED], ecx
        ; mov ecx, 0
        ; ret
    );
}

/// Emits the routine that translated code jumps to with a packed [`Exit`] in ECX.
pub(crate) fn emit_leave(asm: &mut Assembler, host: Host) {
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
        ; mov [r14 + QUANTUM], r11
    );
    simd_state::emit_save(asm, host);
    x87_state::emit_save(asm);
    dynasm!(asm
        ; .arch x64
        ; mov eax, ecx
        ; mov rsp, [r14 + STACK]
        ; pop r15
        ; pop r14
        ; pop r13
        ; pop r12
        ; pop rbp
        ; pop rbx
        ; ret
    );
}

/// The flags that LAHF tells of, in the places that RFLAGS and AH have them.
const IN_AH: u64 = rflags::SF | rflags::ZF | rflags::AF | rflags::PF | rflags::CF;

fn to_native(flags: u64) -> u64 {
    (flags & IN_AH) << 8 | u64::from(flags & rflags::OF != 0)
}

fn from_native(bits: u64) -> u64 {
    bits >> 8 & IN_AH | (bits & 1) * rflags::OF
}

/// What ways of a reach hold for at present.
pub(crate) fn tag(cpu: &Cpu, reach: Reach) -> u64 {
    cpu.tag(cpu.generations.mappings(reach))
}

/// Runs translated code, from the beginning of an operation on. `imm` is the code's address, `disp`
/// that of the routine of [`emit_enter`], `aux` what the code takes for loaded, by [`Needs::bits`].
pub(crate) fn enter(cpu: &mut Cpu, op: &Op, rest: &[Op], begun: &Block, links: &BlockCache) {
    if op.aux != 0 && !simd_state::can_load(cpu, Needs::from_bits(op.aux)) {
        let number = begun_at(begun, rest);
        cpu.native.count(|counts| counts.resume(begun.target.index, number));
        return resume(cpu, begun, number, links);
    }
    cpu.native.flags = to_native(cpu.flags.get());
    for reach in [Reach::Global, Reach::Any] {
        cpu.native.tags[reach as usize] = tag(cpu, reach);
    }
    let tlb = (&raw const *cpu.tlb).addr();
    cpu.regs[usize::from(TLB_ADDRESS)] = tlb as u64;
    let lost = cpu.tlb.take_lost() && !planted::has(Bug::KeptTranslations);
    cpu.native.sites.keep(usize::from(cpu.mode.has(Mode::USER)), tlb, lost);
    cpu.regs[usize::from(TLB_MASK)] = INDEX_MASK;
    let quantum = cpu.quantum + cpu.native.reserve;
    let bits = call(cpu, op);
    let exit = Exit::unpack(bits);
    if cpu.native.counts.is_some() {
        count(cpu, (begun, begun_at(begun, rest)), quantum, bits, links);
    }
    note_samples(cpu, links);
    x87_state::take_back(cpu);
    cpu.flags.set_explicit(from_native(cpu.native.flags));
    let (Exit::Resume { block, .. }
    | Exit::Span { block, .. }
    | Exit::Jump { block, .. }
    | Exit::Follow { block, .. }
    | Exit::Exhausted { block }
    | Exit::Stale { block }) = exit
    else {
        return unlinked(cpu, NO_LINK, begun);
    };
    let Some(block) = links.block(block) else { return };
    match exit {
        Exit::Resume { op, .. } if is_cut(cpu, block, op) => {
            cpu.stop_at(StopReason::AtCut, rest_of(block, op), block);
        }
        Exit::Resume { op, .. } => resume(cpu, block, op, links),
        Exit::Span { op, .. } => {
            let cold = block.cold.get();
            block.cold.set(cold.wrapping_sub(1));
            if cold == 0 {
                return cpu.stop_at(StopReason::Anew, rest_of(block, op), block);
            }
            resume(cpu, block, op, links)
        }
        Exit::Jump { op, .. } => {
            let target = links.jump(cpu, cpu.native.target);
            if target.is_some_and(|target| links.ops(target).first().is_some_and(is_enter)) {
                return cpu.stop_at(StopReason::Jump, rest_of(block, op), block);
            }
            resume(cpu, block, op, links)
        }
        Exit::Follow { slot: NO_LINK, .. } => unlinked(cpu, NO_LINK, block),
        Exit::Follow { slot, .. } => {
            if let Some((next, _)) = links.following(cpu, block, slot)
                && links.ops(next).first().is_some_and(is_enter)
            {
                // They could be chained.
                return unlinked(cpu, slot, block);
            }
            follow(cpu, cpu.rip, slot, block, links)
        }
        Exit::Exhausted { .. } => {
            let found = cpu.native.found_hot.pop().and_then(|hot| links.block(hot));
            match heat(cpu, block).then_some(block).or(found) {
                Some(hot) => {
                    cpu.rip = block.rip;
                    cpu.stop_at(StopReason::Hot, 0, hot);
                }
                None => exhausted(cpu, block, links),
            }
        }
        Exit::Stale { .. } | Exit::Stray => {
            cpu.rip = block.rip;
            unlinked(cpu, NO_LINK, block);
        }
    }
}

/// Whether translated code is to be left before an operation that it has come to.
fn is_cut(cpu: &Cpu, block: &Block, op: u8) -> bool {
    let before = block.before.get(usize::from(op)).copied().unwrap_or_default();
    let rest = block.target.count.saturating_sub(before);
    cpu.native.cuts && cpu.quantum + cpu.native.reserve + i64::from(rest) <= cpu.native.cut
}

/// Heats the blocks that the quantum was used up at in translated code.
fn note_samples(cpu: &mut Cpu, links: &BlockCache) {
    let noted = std::mem::take(&mut cpu.native.sampled) as usize;
    if noted == 0 {
        return;
    }
    let samples = cpu.native.samples;
    for &bits in samples.iter().take(noted) {
        let Exit::Exhausted { block } = Exit::unpack(bits) else { continue };
        let Some(block) = links.block(block) else { continue };
        if heat(cpu, block) && cpu.native.found_hot.len() < NATIVE_SAMPLES {
            cpu.native.found_hot.push(block.target.index);
        }
        cpu.native.count(|counts| {
            *counts.samples.entry((block.rip, block.mode.0)).or_default() += 1;
        });
    }
}

/// Heats a block at which the quantum was used up. Whether it is hot enough now to look whether it is
/// to be translated with others: more and more seldom, as what could be done has been.
fn heat(cpu: &Cpu, block: &Block) -> bool {
    let heat = block.heat.get().wrapping_add(1);
    block.heat.set(heat);
    let hot = cpu.native.hot;
    heat.is_multiple_of(hot) && (heat / hot).is_power_of_two()
}

/// The number of the operation of a block that these come after.
fn begun_at(block: &Block, rest: &[Op]) -> u8 {
    usize::from(block.target.len).saturating_sub(rest.len() + 1) as u8
}

/// Counts a way into translated code and back: from an operation of a block, with so much of the
/// quantum and its reserve.
#[cold]
fn count(cpu: &Cpu, (begun, first): (&Block, u8), quantum: i64, bits: u32, links: &BlockCache) {
    // Instructions of a block are taken from the quantum when it is begun.
    let rest = |block: &Block, op: u8| {
        let before = block.before.get(usize::from(op)).copied().unwrap_or_default();
        i64::from(block.target.count.saturating_sub(before))
    };
    let kind = bits >> OP_BITS & ((1 << KIND_BITS) - 1);
    let mut done = quantum - cpu.quantum - cpu.native.reserve + rest(begun, first);
    cpu.native.count(|counts| {
        counts.entered += 1;
        let exit = Exit::unpack(bits);
        let is_cold = leads_to_cold(cpu, exit, links);
        counts.exits[if is_cold { TO_COLD } else { kind as usize }] += 1;
        match exit {
            Exit::Resume { block, op } | Exit::Span { block, op } | Exit::Jump { block, op } => {
                done -= links.block(block).map_or(0, |block| rest(block, op));
                if matches!(exit, Exit::Resume { .. }) {
                    counts.resume(block, op);
                }
            }
            Exit::Exhausted { block } => {
                if let Some(block) = links.block(block) {
                    *counts.samples.entry((block.rip, block.mode.0)).or_default() += 1;
                }
            }
            Exit::Follow { .. } | Exit::Stale { .. } | Exit::Stray => {}
        }
        counts.translated += done.max(0) as u64;
    });
}

/// Whether a block is followed by one that is known, but not translated.
fn leads_to_cold(cpu: &Cpu, exit: Exit, links: &BlockCache) -> bool {
    let Exit::Follow { block, slot } = exit else { return false };
    let next = links.block(block).and_then(|block| links.following(cpu, block, slot));
    next.is_some_and(|(next, _)| !links.ops(next).first().is_some_and(is_enter))
}

/// How many operations of a block come after one.
fn rest_of(block: &Block, op: u8) -> usize {
    usize::from(block.target.len).saturating_sub(usize::from(op) + 1)
}

fn unlinked(cpu: &mut Cpu, slot: u8, block: &Block) {
    cpu.stop_link = slot;
    cpu.stop_at(StopReason::Unlinked, 0, block);
}

/// Lets the interpreter do an operation, and go on with what comes after it.
fn resume(cpu: &mut Cpu, block: &Block, op: u8, links: &BlockCache) {
    let number = usize::from(op);
    let rest = links.ops(block.target).get(number + 1..).unwrap_or_default();
    if let Some(op) = links.decoded_ops(block).get(number) {
        (op.run)(cpu, op, rest, block, links)
    }
}

/// Whether an operation is [`enter`].
pub(crate) fn is_enter(op: &Op) -> bool {
    op.run as usize == enter as trivium_interp::op::Handler as usize
}

fn call(cpu: &mut Cpu, op: &Op) -> u32 {
    type Routine = unsafe extern "sysv64" fn(*mut Cpu, u64, u64) -> u64;
    // SAFETY: operations with this handler are made by `Jit` alone, which gives them the addresses
    // of its own routine and of code that it has translated and that the block still stands for:
    // blocks are dropped with their code; code that is given up without its block has the block's
    // decoded operations put back, and all jumps to it undone, before anything else is run. The
    // routine keeps the registers that it must keep, and the code changes nothing but the state and,
    // through translations that the TLB has or has lent to `Native::sites` since it lost any, guest
    // memory.
    let exit = unsafe {
        let routine: Routine = std::mem::transmute(op.disp as usize);
        routine(cpu, op.imm, op.aux.into())
    };
    exit as u32
}
