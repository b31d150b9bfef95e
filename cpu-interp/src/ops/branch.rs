//! Near branches: JMP, Jcc, CALL, RET, LOOP, JrCXZ.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

use trivium_cpu::bits::cr4;
use trivium_cpu::model::Quirk;
use trivium_cpu::walk::is_canonical;

use crate::block::{Block, BlockCache, follow, follow_indirect};
use crate::cpu::{Cpu, Mode, RSP};
use crate::decode::{AddressKind, Context, Fuse, Selection};
use crate::mem::{Addressing, Int, address_mask};
use crate::op::{Handler, Op, Stop, general_end};
use crate::ops::mov::condition_number;
use crate::{load, load_at, pick_address, pick_condition, store_at};

/// Whether an address is canonical where page tables have four levels. For the fast forms: those
/// that are not are left to the general ones.
#[inline(always)]
fn plainly_canonical(rip: u64) -> bool {
    rip.wrapping_add(1 << 47) >> 48 == 0
}

/// RIP of the instruction after this one.
#[inline(always)]
fn next_rip(cpu: &Cpu, op: &Op, block: &Block) -> u64 {
    block.rip.wrapping_add(op.off as u64).wrapping_add(u64::from(op.len)) & cpu.ip_mask
}

fn jmp(cpu: &mut Cpu, op: &Op, _: &[Op], block: &Block, links: &BlockCache) {
    follow(cpu, op.imm, 0, block, links)
}

fn jcc<const C: u8>(cpu: &mut Cpu, op: &Op, _: &[Op], block: &Block, links: &BlockCache) {
    if cpu.flags.test::<C>() {
        follow(cpu, op.imm, 0, block, links)
    } else {
        follow(cpu, next_rip(cpu, op, block), 1, block, links)
    }
}

fn jmp_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let target = T::get(cpu, op.dst, 0);
    if T::BYTES == 8 && !plainly_canonical(target) {
        return general_end(cpu, op, rest, block, links);
    }
    follow_indirect(cpu, target, block, links)
}

fn jmp_mem<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let target: u64 = load!(A, T, cpu, op, rest, block).into();
    if T::BYTES == 8 && !plainly_canonical(target) {
        return general_end(cpu, op, rest, block, links);
    }
    follow_indirect(cpu, target, block, links)
}

/// Where a stack access of a flat stack of `T`-sized slots is.
#[inline(always)]
pub(super) fn below<T: Int>(cpu: &Cpu) -> u64 {
    cpu.regs[usize::from(RSP)].wrapping_sub(T::BYTES as u64) & T::MASK
}

/// For accesses to the stack: the number of SS.
pub(super) const SS: u8 = trivium_cpu::state::SS as u8;

fn call<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let sp = below::<T>(cpu);
    let back = next_rip(cpu, op, block);
    store_at!(T, sp, T::of(back), cpu, SS, rest, block);
    cpu.regs[usize::from(RSP)] = sp;
    follow(cpu, op.imm, 0, block, links)
}

fn call_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let target = T::get(cpu, op.dst, 0);
    if T::BYTES == 8 && !plainly_canonical(target) {
        return general_end(cpu, op, rest, block, links);
    }
    let sp = below::<T>(cpu);
    let back = next_rip(cpu, op, block);
    store_at!(T, sp, T::of(back), cpu, SS, rest, block);
    cpu.regs[usize::from(RSP)] = sp;
    follow_indirect(cpu, target, block, links)
}

fn call_mem<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let target: u64 = load!(A, T, cpu, op, rest, block).into();
    if T::BYTES == 8 && !plainly_canonical(target) {
        return general_end(cpu, op, rest, block, links);
    }
    let sp = below::<T>(cpu);
    let back = next_rip(cpu, op, block);
    store_at!(T, sp, T::of(back), cpu, SS, rest, block);
    cpu.regs[usize::from(RSP)] = sp;
    follow_indirect(cpu, target, block, links)
}

fn ret<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let sp = cpu.regs[usize::from(RSP)] & T::MASK;
    let target: u64 = load_at!(T, sp, cpu, SS, rest, block).into();
    if T::BYTES == 8 && !plainly_canonical(target) {
        return general_end(cpu, op, rest, block, links);
    }
    let freed = (T::BYTES as u64).wrapping_add(op.imm);
    cpu.regs[usize::from(RSP)] = sp.wrapping_add(freed) & T::MASK;
    follow_indirect(cpu, target, block, links)
}

/// What the general forms of near branches do last.
fn go(cpu: &mut Cpu, target: u64, size: u8) -> Result<(), Stop> {
    cpu.next_rip = target & address_mask(size);
    Ok(())
}

/// Raises #GP(0) if a near branch goes outside the code segment, or to an address that is not
/// canonical: the branch itself is what faults. Intel SDM vol. 2, CALL, JMP, RET.
fn check_target(cpu: &mut Cpu, target: u64) -> Result<(), Stop> {
    let limit = u64::from(cpu.segments.regs[trivium_cpu::state::CS].limit);
    let good = match cpu.code64() {
        true => is_canonical(target, cpu.control.cr4 & cr4::LA57 != 0),
        false => target <= limit,
    };
    if good { Ok(()) } else { Err(cpu.raise(trivium_cpu::Exception::gp(0))) }
}

fn target(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop> {
    if op.has_mem() {
        cpu.load_sized(op.seg, cpu.offset(op), op.size)
    } else if op.aux == DIRECT {
        Ok(op.imm)
    } else {
        Ok(cpu.reg(op.dst, 0, op.size))
    }
}

/// For [`Op::aux`] of the general forms: the target is `imm`.
const DIRECT: u8 = 1;

fn general_jmp(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let target = target(cpu, op)? & address_mask(op.size);
    check_target(cpu, target)?;
    go(cpu, target, op.size)
}

/// Jcc with a target that must be checked; `aux` is the condition.
fn general_jcc(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if cpu.flags.test_number(op.aux) {
        check_target(cpu, op.imm)?;
        cpu.next_rip = op.imm;
    }
    Ok(())
}

fn general_call(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let target = target(cpu, op)? & address_mask(op.size);
    check_target(cpu, target)?;
    let back = cpu.next_rip;
    cpu.push(back, op.size)?;
    go(cpu, target, op.size)
}

fn general_ret(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let target = cpu.peek(0, op.size)?;
    check_target(cpu, target)?;
    cpu.drop_stack(u64::from(op.size) + op.imm);
    go(cpu, target, op.size)
}

/// LOOP, LOOPE, LOOPNE and JrCXZ; `aux` says which, `asize` what counts.
fn counted(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let count = cpu.reg(RCX, 0, op.asize);
    let left = count.wrapping_sub(1) & address_mask(op.asize);
    let taken = match op.aux {
        LOOP => left != 0,
        LOOPE => left != 0 && cpu.flags.zf(),
        LOOPNE => left != 0 && !cpu.flags.zf(),
        _ => count == 0,
    };
    if taken {
        check_target(cpu, op.imm)?;
        cpu.next_rip = op.imm;
    }
    if op.aux != JRCXZ {
        cpu.set_reg(RCX, 0, op.asize, left);
    }
    Ok(())
}

const RCX: u8 = 1;
const LOOP: u8 = 0;
const LOOPE: u8 = 1;
const LOOPNE: u8 = 2;
const JRCXZ: u8 = 3;

/// The address size that counts for LOOP and JrCXZ, in bytes.
fn counter_size(i: &Instruction) -> u8 {
    use Code::*;
    match i.code() {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX
        | Loopne_rel8_16_CX | Loopne_rel8_32_CX | Jcxz_rel8_16 | Jcxz_rel8_32 => 2,
        Loop_rel8_16_RCX | Loop_rel8_64_RCX | Loope_rel8_16_RCX | Loope_rel8_64_RCX
        | Loopne_rel8_16_RCX | Loopne_rel8_64_RCX | Jrcxz_rel8_16 | Jrcxz_rel8_64 => 8,
        _ => 4,
    }
}

/// The operand size of a near branch in bytes: that of RIP and of what a call pushes.
fn branch_size(i: &Instruction) -> u8 {
    match i.code() {
        Code::Retnw | Code::Retnw_imm16 => return 2,
        Code::Retnd | Code::Retnd_imm16 => return 4,
        Code::Retnq | Code::Retnq_imm16 => return 8,
        _ => {}
    }
    match i.op0_kind() {
        OpKind::NearBranch16 => 2,
        OpKind::NearBranch32 => 4,
        OpKind::NearBranch64 => 8,
        OpKind::Register => i.op0_register().size() as u8,
        _ => i.memory_size().size() as u8,
    }
}

/// Whether the fast forms serve: the stack is flat and its slots are as wide as the branch.
fn is_plain(context: &Context, size: u8) -> bool {
    let mode = context.mode;
    match size {
        8 => mode.has(Mode::LONG),
        4 => {
            !mode.has(Mode::LONG)
                && mode.has(Mode::FLAT)
                && mode.has(Mode::CODE32)
                && mode.has(Mode::STACK32)
        }
        _ => false,
    }
}

/// Whether the target of a direct branch is past the code segment's limit, or, in 64-bit code, may
/// not be canonical; with five levels of page tables, it may be nevertheless.
fn is_doubtful(i: &Instruction, context: &Context) -> bool {
    let target = i.near_branch_target();
    let good = match context.mode.has(Mode::LONG) {
        true => plainly_canonical(target),
        false => target <= context.limit,
    };
    !good
}

fn jump(i: &Instruction, context: &Context) -> Selection {
    let (mut op, plain) = prepared(i, context);
    op.general = general_jmp;
    let kind = context.address_kind(&op);
    let direct = op.aux == DIRECT;
    match (direct, op.has_mem(), op.size) {
        (true, _, _) if is_doubtful(i, context) => Selection::general_end(op, general_jmp),
        (true, _, _) => Selection::register(op, jmp).ending(),
        _ if !plain => Selection::general_end(op, general_jmp),
        (_, false, 8) => Selection::register(op, jmp_reg::<u64>).ending(),
        (_, false, _) => Selection::register(op, jmp_reg::<u32>).ending(),
        (_, true, 8) => Selection::memory(op, pick_wide(kind, Wide::Jmp)).ending(),
        (_, true, _) => Selection::memory(op, pick_narrow(kind, Wide::Jmp)).ending(),
    }
}

fn call_near(i: &Instruction, context: &Context) -> Selection {
    let (mut op, plain) = prepared(i, context);
    op.general = general_call;
    let kind = context.address_kind(&op);
    let direct = op.aux == DIRECT;
    let run: Handler = match (direct, op.has_mem(), op.size) {
        _ if !plain || direct && is_doubtful(i, context) => {
            return Selection::general_end(op, general_call);
        }
        (true, _, 8) => call::<u64>,
        (true, _, _) => call::<u32>,
        (_, false, 8) => call_reg::<u64>,
        (_, false, _) => call_reg::<u32>,
        (_, true, 8) => pick_wide(kind, Wide::Call),
        (_, true, _) => pick_narrow(kind, Wide::Call),
    };
    Selection::memory(op, run).ending()
}

/// Which of the handlers with a memory operand.
#[derive(Clone, Copy)]
enum Wide {
    Jmp,
    Call,
}

fn pick_wide(kind: AddressKind, which: Wide) -> Handler {
    match which {
        Wide::Jmp => pick_address!(kind, jmp_mem, u64),
        Wide::Call => pick_address!(kind, call_mem, u64),
    }
}

fn pick_narrow(kind: AddressKind, which: Wide) -> Handler {
    match which {
        Wide::Jmp => pick_address!(kind, jmp_mem, u32),
        Wide::Call => pick_address!(kind, call_mem, u32),
    }
}

/// The operation with its size, marked if direct; and whether the fast forms serve.
fn prepared(i: &Instruction, context: &Context) -> (Op, bool) {
    let mut op = context.op(i);
    op.size = branch_size(i);
    if matches!(i.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64) {
        op.aux = DIRECT;
    }
    (op, is_plain(context, op.size))
}

fn conditional(i: &Instruction, context: &Context, number: u8) -> Selection {
    let mut op = context.op(i);
    if is_doubtful(i, context) {
        op.aux = number;
        return Selection::general_end(op, general_jcc);
    }
    let run: Handler = pick_condition!(@all number, |C| jcc::<C>);
    Selection::register(op, run).ending().with_fuse(Fuse::Branch(number))
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let counting = |which: u8| {
        let mut op = context.op(i);
        op.aux = which;
        op.asize = counter_size(i);
        Selection::general_end(op, counted)
    };
    Some(match i.mnemonic() {
        M::Jmp if !i.is_jmp_far() && !i.is_jmp_far_indirect() => jump(i, context),
        M::Call if !i.is_call_far() && !i.is_call_far_indirect() => call_near(i, context),
        M::Ret => match prepared(i, context) {
            (mut op, true) if op.size == 8 => {
                op.general = general_ret;
                Selection::memory(op, ret::<u64>).ending()
            }
            (op, true) => Selection::memory(op, ret::<u32>).ending(),
            (op, false) => Selection::general_end(op, general_ret),
        },
        M::Loop => counting(LOOP),
        M::Loope | M::Loopne => {
            counting(match (context.vendor.has(Quirk::LoopByRepeatPrefix), i.mnemonic()) {
                // AMD's processors go by a repeat prefix if there is one, as for string instructions.
                (true, _) if i.has_repne_prefix() => LOOPNE,
                (true, _) if i.has_rep_prefix() => LOOPE,
                (_, M::Loope) => LOOPE,
                _ => LOOPNE,
            })
        }
        M::Jcxz | M::Jecxz | M::Jrcxz => counting(JRCXZ),
        _ if i.is_jcc_short_or_near() => conditional(i, context, condition_number(i)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use trivium_cpu::Vector;

    use crate::testing::{DATA, STACK, TABLES, TestMachine};

    /// The first address that is not canonical.
    const HOLE: u64 = 0x8000_0000_0000;

    #[test]
    fn near_branches_to_what_is_not_canonical_raise_gp_themselves_and_change_nothing() {
        let branches: [&[u8]; 7] = [
            &[0xff, 0xe0],                                            // jmp rax
            &[0xff, 0xd0],                                            // call rax
            &[0xff, 0x24, 0x25, DATA as u8, (DATA >> 8) as u8, 0, 0], // jmp [DATA]
            &[0xff, 0x14, 0x25, DATA as u8, (DATA >> 8) as u8, 0, 0], // call [DATA]
            &[0xc3],                                                  // ret
            &[0xc2, 0x08, 0x00],                                      // ret 8
            &[0x50, 0xc3],                                            // push rax; ret
        ];
        for code in branches {
            let mut machine = TestMachine::long(code);
            machine.put_u64(DATA, HOLE);
            machine.put_u64(STACK, HOLE);
            machine.put_u64(STACK - 8, 0x1234);
            machine.set(|state| state.general.regs[0] = HOLE);
            if code[0] == 0x50 {
                machine.run(1);
            }
            let rsp = machine.reg(4);
            machine.raises(Vector::GP, Some(0));
            // The frame holds the stack pointer as it was: error code, RIP, CS, RFLAGS, RSP.
            let frame = machine.reg(4);
            assert_eq!(machine.get_u64(frame + 32), rsp, "{code:x?}");
        }
    }

    #[test]
    fn direct_branches_into_the_hole_raise_gp_themselves() {
        // jmp, call, jc, each of 16 bytes ahead.
        let branches: [&[u8]; 3] = [&[0xeb, 0x10], &[0xe8, 0x10, 0, 0, 0], &[0x72, 0x10]];
        for code in branches {
            let mut machine = TestMachine::long(&[]);
            machine.put_u64(TABLES + 0x7f8, (TABLES + 0x4000) | 7);
            machine.put_u64(TABLES + 0x4ff8, (TABLES + 0x5000) | 7);
            machine.put_u64(TABLES + 0x5ff8, (TABLES + 0x6000) | 7);
            machine.put_u64(TABLES + 0x6ff8, DATA | 7);
            machine.put(DATA + 0xff8, code);
            machine.set(|state| {
                state.general.rip = HOLE - 8;
                state.general.rflags |= 1;
            });
            assert_eq!(machine.run_to_exception(), (Vector::GP as u8, 0));
            let frame = machine.reg(4);
            assert_eq!(machine.get_u64(frame + 8), HOLE - 8, "RIP, {code:x?}");
            assert_eq!(machine.get_u64(frame + 32), STACK, "RSP, {code:x?}");
        }
    }
}
