//! Instructions of general registers that are copied, with their registers and their memory operand
//! replaced.

use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, Mnemonic, OpAccess, OpKind, Register};

use super::memory::At;
use super::{Emitted, Emitter};
use crate::planted::{self, Bug};
use crate::regs::{Home, Homes, RCX, RCX_HOME, is_high, like, near, number_of, wide};
use crate::select;
use crate::spans::is_write as writes;
use crate::{simd, x87};

/// The registers that are free beside a memory operand at [R8 + R9], at [R8], and without one; less
/// RCX where it holds a shift count.
const BESIDE_SUM: &[u8] = &[1];
const BESIDE_R8: &[u8] = &[9, 1];
const WITHOUT_MEMORY: &[u8] = &[8, 9, 1];

impl Emitter {
    /// Copies an instruction with its registers and its memory operand replaced.
    pub(crate) fn copy(&mut self, i: &Instruction, op: u8) -> Emitted {
        let mut host = *i;
        host.set_code(select::in_long_mode(i.code()));
        let memory = kinds(i).iter().position(|kind| *kind == OpKind::Memory);
        let memory = memory.map(|n| n as u32);
        let accesses = self.accesses;
        let write = memory.is_some_and(|n| writes(accesses[n as usize]));
        if memory.is_some() && !self.has_way(i, write) {
            return Emitted::Not;
        }
        let count = count_operand(i);
        let sum = match self.is_plan_empty(i, count) {
            true => Some(Plan::default()),
            false => Plan::new(&self.homes, i, &accesses, BESIDE_SUM, memory.is_some(), count),
        };
        let (plan, folded) = match (memory, sum) {
            (None, Some(plan)) if plan.is_empty() => (Some(plan), false),
            (Some(_), Some(plan)) => (Some(plan), false),
            (Some(_), None) => (Plan::new(&self.homes, i, &accesses, BESIDE_R8, true, count), true),
            (None, _) => {
                (Plan::new(&self.homes, i, &accesses, WITHOUT_MEMORY, false, count), false)
            }
        };
        let Some(plan) = plan else {
            return match memory {
                Some(n) => self.copy_high_byte(i, n, op),
                None => Emitted::Not,
            };
        };
        if let Some(n) = memory {
            let (size, alignment) = (i.memory_size().size(), simd::alignment(i));
            let way = self.way(alignment);
            // Those of the x87 unit note where they were.
            let at = self.direct(i).filter(|_| !x87::is_copied(i, &self.notes));
            let at = at.filter(|&at| self.reach_directly(at, way, (size, alignment), write, op));
            let at = at.unwrap_or_else(|| self.operand(i, way, (size, alignment), write, op));
            self.operand_offset = if planted::has(Bug::OperandBySpan) { 0 } else { at.plus };
            if folded {
                self.sum_with_r9(at);
            }
            name_memory(&mut host, n, (!folded).then_some(at));
        }
        if plan.moved().any(|moved| moved.scratch == 9) {
            self.held = None;
        }
        for moved in plan.moved().filter(|moved| moved.load) {
            match self.homes.of(moved.guest) {
                Home::Host(home) => dynasm!(self.asm ; .arch x64 ; mov Rq(moved.scratch), Rq(home)),
                Home::Memory => {
                    dynasm!(self.asm ; .arch x64 ; mov Rq(moved.scratch), [BYTE r14 + near(moved.guest)]);
                }
            }
        }
        if count.is_some() || takes_rcx(i) {
            dynasm!(self.asm ; .arch x64 ; mov rcx, Rq(RCX_HOME));
        }
        for n in general(i) {
            let register = i.op_register(n);
            if is_high(register) && planted::has(Bug::HighByteMixedUp) {
                host.set_op_register(n, like(register, number_of(register) & 3));
            } else if !is_high(register) && count != Some(n) {
                host.set_op_register(
                    n,
                    like(register, plan.host_of(&self.homes, number_of(register))),
                );
            }
        }
        if !self.raw(&host) {
            // Nothing was stored, and what was loaded is scratch.
            return Emitted::Not;
        }
        if let Some(number) = self.crossing_store.take() {
            self.crossed(number, Some(host));
        }
        if gives_index(i) {
            dynasm!(self.asm ; .arch x64 ; mov Rq(RCX_HOME), rcx);
        }
        for moved in plan.moved().filter(|moved| moved.store) {
            match self.homes.of(moved.guest) {
                Home::Host(home) => dynasm!(self.asm ; .arch x64 ; mov Rq(home), Rq(moved.scratch)),
                Home::Memory if planted::has(Bug::NoZeroExtension) && is_narrow(i) => {
                    dynasm!(self.asm ; .arch x64 ; mov [BYTE r14 + near(moved.guest)], Rd(moved.scratch));
                }
                Home::Memory => {
                    dynasm!(self.asm ; .arch x64 ; mov [BYTE r14 + near(moved.guest)], Rq(moved.scratch));
                }
            }
        }
        Emitted::Done
    }

    /// Whether all general registers of an instruction are the host's, and none of them is AH or its like.
    fn is_plan_empty(&self, i: &Instruction, count: Option<u32>) -> bool {
        general(i).filter(|&n| count != Some(n)).all(|n| {
            let register = i.op_register(n);
            !is_high(register) && self.homes.of(number_of(register)) != Home::Memory
        })
    }

    /// Copies an instruction of memory and AH or its like, which cannot be named beside [R8 + R9]: the
    /// byte passes through CL.
    fn copy_high_byte(&mut self, i: &Instruction, n: u32, op: u8) -> Emitted {
        use Mnemonic as M;
        let plain = matches!(
            i.mnemonic(),
            M::Mov | M::Add | M::Or | M::Adc | M::Sbb | M::And | M::Sub | M::Xor | M::Cmp | M::Test
        );
        let other = 1 - n.min(1);
        let register = i.op_register(other);
        let two = i.op_count() == 2 && i.op_kind(other) == OpKind::Register;
        if !plain || !two || !is_high(register) {
            return Emitted::Not;
        }
        let number = number_of(register) & 3;
        let Home::Host(home) = self.homes.of(number) else { return Emitted::Not };
        let into = other == 0 && writes(self.accesses[0]);
        if into && home != number || !self.routines.host.bmi2() {
            return Emitted::Not;
        }
        let write = writes(self.accesses[n as usize]);
        let way = self.way(1);
        let At { plus, .. } = self.operand(i, way, (1, 1), write, op);
        let mut host = *i;
        host.set_code(select::in_long_mode(i.code()));
        if other == 0 {
            // It is computed with what is in memory, which then is a register's.
            dynasm!(self.asm ; .arch x64 ; movzx ecx, BYTE [r8 + r9 + plus]);
            host.set_op_kind(n, OpKind::Register);
            host.set_op_register(n, Register::CL);
            if home != number {
                return Emitted::Not;
            }
        } else {
            dynasm!(self.asm ; .arch x64 ; rorx ecx, Rd(home), 8);
            host.set_op_register(other, Register::CL);
            name_memory(&mut host, n, Some(At::sum(8, plus)));
        }
        if self.raw(&host) { Emitted::Done } else { Emitted::Not }
    }
}

impl Emitter {
    /// Puts the sum of an address and R9 into R8.
    fn sum_with_r9(&mut self, At { base, scale, plus }: At) {
        match scale {
            1 => dynasm!(self.asm ; .arch x64 ; lea r8, [Rq(base) + r9 + plus]),
            2 => dynasm!(self.asm ; .arch x64 ; lea r8, [r9 + Rq(base) * 2 + plus]),
            4 => dynasm!(self.asm ; .arch x64 ; lea r8, [r9 + Rq(base) * 4 + plus]),
            _ => dynasm!(self.asm ; .arch x64 ; lea r8, [r9 + Rq(base) * 8 + plus]),
        }
    }
}

/// Makes the operand of a number the memory at the sum of an address and R9, or at [R8].
pub(super) fn name_memory(host: &mut Instruction, n: u32, sum: Option<At>) {
    host.set_op_kind(n, OpKind::Memory);
    let (base, index, scale) = match sum {
        None => (Register::R8, Register::None, 1),
        Some(At { base, scale: 1, .. }) => (wide(base), Register::R9, 1),
        Some(At { base, scale, .. }) => (Register::R9, wide(base), scale),
    };
    host.set_memory_base(base);
    host.set_memory_index(index);
    host.set_memory_index_scale(scale.into());
    let plus = sum.map_or(0, |at| at.plus);
    host.set_memory_displacement64(i64::from(plus) as u64);
    let displ_size = if plus == 0 {
        0
    } else if i8::try_from(plus).is_ok() {
        1
    } else {
        8
    };
    host.set_memory_displ_size(displ_size);
    host.set_segment_prefix(Register::None);
}

/// Whether it takes RCX, whatever its operands are.
fn takes_rcx(i: &Instruction) -> bool {
    matches!(i.mnemonic(), Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b)
}

/// Whether its result is in ECX, whatever its operands are.
fn gives_index(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        i.mnemonic(),
        M::Pcmpestri
            | M::Pcmpestri64
            | M::Pcmpistri
            | M::Vpcmpestri
            | M::Vpcmpestri64
            | M::Vpcmpistri
    )
}

/// Whether its first operand is a register of 32 bits.
fn is_narrow(i: &Instruction) -> bool {
    i.op0_kind() == OpKind::Register && i.op0_register().is_gpr32()
}

fn kinds(i: &Instruction) -> [OpKind; 4] {
    [i.op0_kind(), i.op1_kind(), i.op2_kind(), i.op3_kind()]
}

/// The operands that are general registers.
fn general(i: &Instruction) -> impl Iterator<Item = u32> {
    let is_general = |n: &u32| i.op_kind(*n) == OpKind::Register && i.op_register(*n).is_gpr();
    (0..i.op_count()).filter(is_general)
}

/// The operand that is CL as a shift count.
fn count_operand(i: &Instruction) -> Option<u32> {
    use Mnemonic as M;
    let shifts = matches!(
        i.mnemonic(),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    );
    let last = i.op_count().checked_sub(1)?;
    (shifts && i.op_kind(last) == OpKind::Register).then_some(last)
}

fn reads(access: OpAccess) -> bool {
    !matches!(access, OpAccess::Write | OpAccess::None | OpAccess::NoMemAccess)
}

/// A guest register that passes through a scratch register.
#[derive(Debug, Clone, Copy)]
struct Moved {
    guest: u8,
    scratch: u8,
    load: bool,
    store: bool,
}

/// The registers that an instruction is given.
#[derive(Debug, Default)]
struct Plan([Option<Moved>; 4]);

impl Plan {
    /// Which registers an instruction's operands are to have; nothing if they cannot be had.
    fn new(
        homes: &Homes,
        i: &Instruction,
        accesses: &[OpAccess; 4],
        free: &[u8],
        memory: bool,
        count: Option<u32>,
    ) -> Option<Self> {
        let mut plan = Self::default();
        let free = if count.is_some() { free.split_last()?.1 } else { free };
        let registers = || general(i).filter(|&n| count != Some(n)).map(|n| (n, i.op_register(n)));
        let has_high = registers().any(|(_, register)| is_high(register));
        if has_high && registers().any(|(_, register)| register == Register::CH) {
            // Only RCX itself has a CH.
            if count.is_some() {
                return None;
            }
            plan.0[0] = Some(Moved { guest: RCX, scratch: RCX, load: true, store: true });
        }
        for (n, register) in registers() {
            let guest = number_of(register);
            let access = *accesses.get(n as usize)?;
            let load = reads(access) || register.size() < 4;
            match homes.of(guest) {
                _ if is_high(register) => {}
                // Its CL is to have a name beside AH and its like.
                Home::Host(RCX_HOME) if has_high && guest == RCX => {
                    plan.take(guest, load, writes(access), &[RCX])?
                }
                Home::Host(_) => {}
                Home::Memory => plan.take(guest, load, writes(access), free)?,
            }
        }
        // AH and its like cannot be named beside registers that need a REX prefix.
        let needs_rex = memory
            || registers().filter(|&(_, register)| !is_high(register)).any(|(_, register)| {
                let host = plan.host_of(homes, number_of(register));
                host >= 8 || register.size() == 8 || register.size() == 1 && host >= 4
            });
        (!has_high || !needs_rex).then_some(plan)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    fn take(&mut self, guest: u8, load: bool, store: bool, free: &[u8]) -> Option<()> {
        if let Some(moved) = self.0.iter_mut().flatten().find(|moved| moved.guest == guest) {
            moved.load |= load;
            moved.store |= store;
            return Some(());
        }
        let place = self.0.iter().position(Option::is_none)?;
        let is_free = |scratch: &&u8| !self.moved().any(|moved| moved.scratch == **scratch);
        let scratch = *free.iter().find(is_free)?;
        self.0[place] = Some(Moved { guest, scratch, load, store });
        Some(())
    }

    fn moved(&self) -> impl Iterator<Item = &Moved> {
        self.0.iter().flatten()
    }

    fn host_of(&self, homes: &Homes, guest: u8) -> u8 {
        match (homes.of(guest), self.moved().find(|moved| moved.guest == guest)) {
            (_, Some(moved)) => moved.scratch,
            (Home::Host(host), None) => host,
            (Home::Memory, None) => guest,
        }
    }
}
