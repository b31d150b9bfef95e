//! The code of one block.
//!
//! Guest flags live in the host's while translated code runs, so glue changes none: it computes with
//! LEA and BMI2 and tests with JRCXZ. Whatever may fail is done before an instruction changes
//! anything; the way out is then to the interpreter's operation for it.

use std::mem::offset_of;

use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use iced_x86::{
    Code, ConditionCode, Encoder, Instruction, InstructionInfoFactory, MemoryOperand, Mnemonic,
    OpAccess, OpKind, Register,
};
use trivium_interp::Cpu;
use trivium_interp::cpu::{Mode, Native, SEG_BASE};
use trivium_interp::tlb::{Entry, Tlb};

use crate::enter::Exit;
use crate::regs::{Home, RSP_HOME, at, home, is_high, like, number_of, slot, wide};
use crate::select;
use crate::simd::{self, AtHand};
use crate::simd_state::{ALIGNED, Routines};
use crate::x87::Notes;

/// Where code is put together.
pub(crate) type Assembler = VecAssembler<X64Relocation>;

const QUANTUM: i32 = at(offset_of!(Cpu, quantum));
const TLB: i32 = at(offset_of!(Cpu, tlb));
const RIP: i32 = at(offset_of!(Cpu, rip));
const INDEX_MASK: i32 = at(offset_of!(Cpu, native)) + offset_of!(Native, index_mask) as i32;
const READ: i32 = offset_of!(Tlb, read) as i32;
const WRITE: i32 = offset_of!(Tlb, write) as i32;
const ADDEND: i32 = offset_of!(Entry, addend) as i32;
const _: () = assert!(size_of::<Entry>() == 16 && offset_of!(Tlb, read) == 0);

/// The scratch registers that are free beside a memory operand at [R8 + R9], and with R8 and R9 if
/// there is none.
const BESIDE_MEMORY: [u8; 2] = [10, 11];
const WITHOUT_MEMORY: [u8; 4] = [8, 9, 10, 11];

/// CALL rel32 and JMP rel32.
pub(crate) const CALL: u8 = 0xe8;
const JMP: u8 = 0xe9;

/// What became of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Emitted {
    /// It is in the code; the block goes on.
    Done,
    /// It is in the code, and left the block.
    Ended,
    /// It is not: the interpreter is to do it.
    Not,
}

/// A place that a block's end jumps from, and the way out that it leads to at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    /// Of the relative operand, from the code's start.
    pub(crate) operand: usize,
    /// Of the way out.
    pub(crate) stub: usize,
}

/// A finished block.
pub(crate) struct Finished {
    pub(crate) code: Vec<u8>,
    /// Where it is entered with its instructions taken from the quantum; at 0 they are not yet.
    pub(crate) entry: usize,
    pub(crate) sites: [Option<Site>; 2],
}

/// A way out that is emitted after the code.
struct Stub {
    label: DynamicLabel,
    exit: Exit,
    /// RCX is in R10.
    rcx_aside: bool,
    /// RIP is to be this.
    rip: Option<u64>,
}

/// What emits one block.
pub(crate) struct Emitter<'a> {
    pub(crate) asm: Assembler,
    encoder: Encoder,
    info: &'a mut InstructionInfoFactory,
    pub(crate) mode: Mode,
    pub(crate) block: u32,
    /// Where the code will be.
    address: u64,
    /// Of the routine that leaves translated code.
    leave: u64,
    /// Those for vector registers.
    pub(crate) routines: Routines,
    pub(crate) simd: AtHand,
    pub(crate) loads: Vec<simd::Load>,
    pub(crate) notes: Notes,
    stubs: Vec<Stub>,
    links: [Option<(usize, DynamicLabel)>; 2],
    entry: usize,
}

impl<'a> Emitter<'a> {
    /// Begins a block of `count` instructions, whose code will be at `address`.
    pub(crate) fn new(
        address: u64,
        (leave, routines): (u64, Routines),
        info: &'a mut InstructionInfoFactory,
        (block, mode, count): (u32, Mode, u8),
    ) -> Self {
        let mut emitter = Self {
            asm: Assembler::new(address as usize),
            encoder: Encoder::new(64),
            info,
            mode,
            block,
            address,
            leave,
            routines,
            simd: AtHand::default(),
            loads: Vec::new(),
            notes: Notes::default(),
            stubs: Vec::new(),
            links: [None; 2],
            entry: 0,
        };
        emitter.take_from_quantum(count.into());
        emitter.entry = emitter.asm.offset().0;
        emitter
    }

    fn take_from_quantum(&mut self, count: i32) {
        let out = self.stub(Exit::Exhausted { block: self.block }, true, None);
        dynasm!(self.asm
            ; .arch x64
            ; mov r8, [r14 + QUANTUM]
            ; mov r10, rcx
            ; lea r8, [r8 - count]
            // Less than 4096, so nothing is left of it unless it is negative.
            ; shrx rcx, r8, r14
            ; jrcxz >enough
            ; jmp =>out
            ; enough:
            ; mov [r14 + QUANTUM], r8
            ; mov rcx, r10
        );
    }

    pub(crate) fn stub(&mut self, exit: Exit, rcx_aside: bool, rip: Option<u64>) -> DynamicLabel {
        let label = self.asm.new_dynamic_label();
        self.stubs.push(Stub { label, exit, rcx_aside, rip });
        label
    }

    /// Leaves the rest of the block, from this operation on, to the interpreter.
    pub(crate) fn leave_to_interpreter(&mut self, op: u8) {
        self.note_x87(None);
        let out = self.stub(Exit::Resume { block: self.block, op }, false, None);
        dynasm!(self.asm ; .arch x64 ; jmp =>out);
    }

    /// Goes on to the block at `rip`, by a link.
    pub(crate) fn go_on(&mut self, slot: u8, rip: u64) {
        self.note_x87(None);
        let out = self.stub(Exit::Follow { block: self.block, slot }, false, Some(rip));
        dynasm!(self.asm ; .arch x64 ; jmp =>out);
        self.note_link(slot, out);
    }

    /// The jump just emitted is the one of a link.
    fn note_link(&mut self, slot: u8, out: DynamicLabel) {
        if let Some(link) = self.links.get_mut(usize::from(slot)) {
            *link = Some((self.asm.offset().0 - 4, out));
        }
    }

    /// Emits an instruction, which belongs to operation `op`.
    pub(crate) fn instruction(&mut self, i: &Instruction, op: u8) -> Emitted {
        self.note_x87(Some(i));
        match i.mnemonic() {
            Mnemonic::Push => self.push(i, op),
            Mnemonic::Pop => self.pop(i, op),
            Mnemonic::Leave => self.leave_frame(i, op),
            Mnemonic::Call => self.call(i, op),
            Mnemonic::Lea => self.lea(i),
            Mnemonic::Jmp => self.jmp(i),
            _ if i.condition_code() != ConditionCode::None && i.is_jcc_short_or_near() => {
                self.jcc(i)
            }
            _ if select::is_copied(i) && select::host_has(i) => self.copy(i, op),
            _ => self.vector_or_x87(i, op),
        }
    }

    /// Whether a memory operand is one that is reached by its linear address alone.
    pub(crate) fn is_plain(&self, i: &Instruction, write: bool) -> bool {
        let size_fits = match i.memory_base() {
            Register::None => true,
            base => base.size() >= 4,
        };
        let index_fits = match i.memory_index() {
            Register::None => true,
            index => index.size() >= 4 && index.size() <= 8,
        };
        let segment = match i.memory_segment() {
            Register::FS | Register::GS => self.mode.has(Mode::LONG),
            Register::CS => self.mode.has(Mode::LONG) || !write,
            _ => true,
        };
        let sized = i.memory_base() != Register::None || i.memory_index() != Register::None;
        // An address that is a number alone does not say its size.
        let absolute = sized || i.memory_displ_size() != 2;
        size_fits && index_fits && segment && absolute
    }

    /// Computes the effective address into R8, or its low half there.
    fn effective_address(&mut self, i: &Instruction) {
        let displacement = i.memory_displacement64();
        let (base, index) = (i.memory_base(), i.memory_index());
        if i.is_ip_rel_memory_operand() {
            return self.constant(8, i.ip_rel_memory_address());
        }
        let is_wide = base.size().max(index.size()) == 8
            || base == Register::None && index == Register::None && i.memory_displ_size() == 8;
        if base == Register::None && index == Register::None {
            return self.constant(8, displacement);
        }
        let base = (base != Register::None).then(|| self.in_register(base, 8));
        let index = (index != Register::None).then(|| self.in_register(index, 9));
        let none = Register::None;
        let displacement = i64::from(displacement as i32);
        let memory = MemoryOperand::new(
            base.map_or(none, wide),
            index.map_or(none, wide),
            i.memory_index_scale(),
            displacement,
            u32::from(displacement != 0),
            false,
            none,
        );
        let (code, to) = match is_wide {
            true => (Code::Lea_r64_m, Register::R8),
            false => (Code::Lea_r32_m, Register::R8D),
        };
        if let Ok(lea) = Instruction::with2(code, to, memory) {
            self.raw(&lea);
        }
    }

    /// The linear address of the memory operand, in R8.
    pub(crate) fn linear_address(&mut self, i: &Instruction) {
        self.effective_address(i);
        let number = match i.memory_segment() {
            Register::FS => 4,
            Register::GS => 5,
            _ => return,
        };
        dynasm!(self.asm
            ; .arch x64
            ; mov r9, [r14 + slot(SEG_BASE + number)]
            ; lea r8, [r8 + r9]
        );
    }

    /// Puts a number into a register.
    fn constant(&mut self, register: u8, value: u64) {
        if value >> 32 == 0 {
            dynasm!(self.asm ; .arch x64 ; mov Rd(register), value as i32);
        } else {
            dynasm!(self.asm ; .arch x64 ; mov Rq(register), QWORD value as i64);
        }
    }

    /// The number of the host's register that holds a guest's; `scratch` if it had to be loaded.
    fn in_register(&mut self, guest: Register, scratch: u8) -> u8 {
        let number = number_of(guest);
        match home(number) {
            Home::Host(host) => host,
            Home::Memory => {
                dynasm!(self.asm ; .arch x64 ; mov Rq(scratch), [r14 + slot(number)]);
                scratch
            }
        }
    }

    /// Finds the linear address in R8 in the TLB: the operand is then at [R8 + R9]. RCX passes
    /// through R10; R11 is overwritten.
    pub(crate) fn probe(&mut self, size: usize, write: bool, op: u8) {
        self.probe_aligned(size, 1, write, op);
    }

    /// The same, of an operand whose address must be a multiple of `alignment`, unless that is 1.
    fn probe_aligned(&mut self, size: usize, alignment: usize, write: bool, op: u8) {
        let out = self.stub(Exit::Resume { block: self.block, op }, true, None);
        let entries = if write { WRITE } else { READ };
        let last = size as i32 - 1;
        dynasm!(self.asm
            ; .arch x64
            ; pext r9, r8, [r14 + INDEX_MASK]
            ; mov r11, [r14 + TLB]
            ; lea r9, [r9 + r9]
            ; mov r10, rcx
            ; lea r11, [r11 + r9 * 8 + entries]
            ; mov r9, [r11]
        );
        match alignment {
            // The offset is turned to the top, where it stays out of the number of the page.
            16 | 32 => dynasm!(self.asm
                ; .arch x64
                ; rorx rcx, r8, 12
                ; lea rcx, [rcx + r9]
                ; pext rcx, rcx, [r14 + ALIGNED + 8 * (alignment as i32 / 16 - 1)]
            ),
            _ => dynasm!(self.asm
                ; .arch x64
                ; lea rcx, [r8 + last]
                ; shrx rcx, rcx, r14
                ; lea rcx, [rcx + r9]
            ),
        }
        dynasm!(self.asm
            ; .arch x64
            ; jrcxz >hit
            ; jmp =>out
            ; hit:
            ; mov r9, [r11 + ADDEND]
            ; mov rcx, r10
        );
    }

    /// Appends an instruction that is in the host's terms.
    fn raw(&mut self, i: &Instruction) -> bool {
        let rip = self.asm.offset().0 as u64;
        if self.encoder.encode(i, rip).is_err() {
            return false;
        }
        let bytes = self.encoder.take_buffer();
        self.asm.extend(&bytes);
        self.encoder.set_buffer({
            let mut bytes = bytes;
            bytes.clear();
            bytes
        });
        true
    }

    /// Copies an instruction with its registers and its memory operand replaced.
    pub(crate) fn copy(&mut self, i: &Instruction, op: u8) -> Emitted {
        let mut host = *i;
        host.set_code(select::in_long_mode(i.code()));
        let memory = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory);
        let accesses: [OpAccess; 4] = {
            let info = self.info.info(i);
            std::array::from_fn(|n| info.op_access(n as u32))
        };
        let write = memory.is_some_and(|n| writes(accesses[n as usize]));
        if memory.is_some() && !self.is_plain(i, write) {
            return Emitted::Not;
        }
        let Some(plan) = self.plan(i, memory.is_some(), &accesses) else { return Emitted::Not };
        if let Some(n) = memory {
            self.linear_address(i);
            self.probe_aligned(i.memory_size().size(), simd::alignment(i), write, op);
            host.set_op_kind(n, OpKind::Memory);
            host.set_memory_base(Register::R8);
            host.set_memory_index(Register::R9);
            host.set_memory_index_scale(1);
            host.set_memory_displacement64(0);
            host.set_memory_displ_size(0);
            host.set_segment_prefix(Register::None);
        }
        for moved in plan.moved() {
            if moved.load {
                dynasm!(self.asm ; .arch x64 ; mov Rq(moved.scratch), [r14 + slot(moved.guest)]);
            }
        }
        for n in general(i) {
            let register = i.op_register(n);
            if !is_high(register) {
                host.set_op_register(n, like(register, plan.host_of(number_of(register))));
            }
        }
        if !self.raw(&host) {
            // Nothing was stored, and what was loaded is scratch.
            return Emitted::Not;
        }
        for moved in plan.moved() {
            if moved.store {
                dynasm!(self.asm ; .arch x64 ; mov [r14 + slot(moved.guest)], Rq(moved.scratch));
            }
        }
        Emitted::Done
    }

    /// Which registers an instruction's operands are to have; nothing if they cannot be had.
    fn plan(&self, i: &Instruction, memory: bool, accesses: &[OpAccess; 4]) -> Option<Plan> {
        let mut plan = Plan::default();
        let free: &[u8] = if memory { &BESIDE_MEMORY } else { &WITHOUT_MEMORY };
        let mut has_high = false;
        for n in general(i) {
            let register = i.op_register(n);
            has_high |= is_high(register);
            let guest = number_of(register);
            if is_high(register) || home(guest) != Home::Memory {
                continue;
            }
            let access = *accesses.get(n as usize)?;
            let load = reads(access) || register.size() < 4;
            plan.take(guest, load, writes(access), free)?;
        }
        // AH and its like cannot be named beside registers that need a REX prefix.
        let needs_rex = memory
            || general(i).any(|n| {
                let register = i.op_register(n);
                !is_high(register)
                    && (plan.host_of(number_of(register)) >= 8
                        || register.size() == 8
                        || register.size() == 1 && number_of(register) >= 4)
            });
        (!has_high || !needs_rex).then_some(plan)
    }

    fn lea(&mut self, i: &Instruction) -> Emitted {
        let to = i.op0_register();
        if to.size() < 4 || !self.is_plain(i, false) && i.memory_base().size() < 4 {
            return Emitted::Not;
        }
        if i.memory_displ_size() == 2 {
            return Emitted::Not;
        }
        self.effective_address(i);
        let number = number_of(to);
        match (home(number), to.size()) {
            (Home::Host(host), 8) => dynasm!(self.asm ; .arch x64 ; mov Rq(host), r8),
            (Home::Host(host), _) => dynasm!(self.asm ; .arch x64 ; mov Rd(host), r8d),
            (Home::Memory, 8) => dynasm!(self.asm ; .arch x64 ; mov [r14 + slot(number)], r8),
            (Home::Memory, _) => {
                dynasm!(self.asm ; .arch x64 ; mov r8d, r8d ; mov [r14 + slot(number)], r8);
            }
        }
        Emitted::Done
    }

    /// Bytes of the mode's usual stack slot.
    fn word(&self) -> i32 {
        if self.mode.has(Mode::LONG) { 8 } else { 4 }
    }

    /// Puts RSP plus something into R8, as wide as the stack pointer.
    fn stack_address(&mut self, plus: i32) {
        match self.word() {
            8 => dynasm!(self.asm ; .arch x64 ; lea r8, [Rq(RSP_HOME) + plus]),
            _ => dynasm!(self.asm ; .arch x64 ; lea r8d, [Rq(RSP_HOME) + plus]),
        }
    }

    /// Moves the stack pointer.
    fn move_stack(&mut self, by: i32) {
        match self.word() {
            8 => dynasm!(self.asm ; .arch x64 ; lea Rq(RSP_HOME), [Rq(RSP_HOME) + by]),
            _ => dynasm!(self.asm ; .arch x64 ; lea Rd(RSP_HOME), [Rq(RSP_HOME) + by]),
        }
    }

    fn push(&mut self, i: &Instruction, op: u8) -> Emitted {
        let word = self.word();
        let value = match i.op0_kind() {
            OpKind::Register if i.op0_register().is_gpr() => {
                if i.op0_register().size() as i32 != word {
                    return Emitted::Not;
                }
                None
            }
            OpKind::Immediate8to64 | OpKind::Immediate32to64 if word == 8 => Some(i.immediate(0)),
            OpKind::Immediate8to32 | OpKind::Immediate32 if word == 4 => Some(i.immediate(0)),
            _ => return Emitted::Not,
        };
        self.stack_address(-word);
        self.probe(word as usize, true, op);
        let from = match value {
            Some(value) => {
                self.constant(10, value);
                10
            }
            None => self.in_register(i.op0_register(), 10),
        };
        match word {
            8 => dynasm!(self.asm ; .arch x64 ; mov [r8 + r9], Rq(from)),
            _ => dynasm!(self.asm ; .arch x64 ; mov [r8 + r9], Rd(from)),
        }
        self.move_stack(-word);
        Emitted::Done
    }

    fn pop(&mut self, i: &Instruction, op: u8) -> Emitted {
        let word = self.word();
        let to = i.op0_register();
        let fits = i.op0_kind() == OpKind::Register && to.is_gpr() && to.size() as i32 == word;
        if !fits || number_of(to) == 4 {
            return Emitted::Not;
        }
        self.stack_address(0);
        self.probe(word as usize, false, op);
        let number = number_of(to);
        let into = match home(number) {
            Home::Host(host) => host,
            Home::Memory => 10,
        };
        match word {
            8 => dynasm!(self.asm ; .arch x64 ; mov Rq(into), [r8 + r9]),
            _ => dynasm!(self.asm ; .arch x64 ; mov Rd(into), [r8 + r9]),
        }
        if home(number) == Home::Memory {
            dynasm!(self.asm ; .arch x64 ; mov [r14 + slot(number)], Rq(into));
        }
        self.move_stack(word);
        Emitted::Done
    }

    fn leave_frame(&mut self, i: &Instruction, op: u8) -> Emitted {
        match (i.code(), self.word()) {
            (Code::Leaveq, 8) => dynasm!(self.asm ; .arch x64 ; mov r8, rbp),
            (Code::Leaved, 4) => dynasm!(self.asm ; .arch x64 ; mov r8d, ebp),
            _ => return Emitted::Not,
        }
        self.probe(self.word() as usize, false, op);
        match self.word() {
            8 => dynasm!(self.asm
                ; .arch x64
                ; lea Rq(RSP_HOME), [rbp + 8]
                ; mov rbp, [r8 + r9]
            ),
            _ => dynasm!(self.asm
                ; .arch x64
                ; lea Rd(RSP_HOME), [rbp + 4]
                ; mov ebp, [r8 + r9]
            ),
        }
        Emitted::Done
    }

    /// The target of a direct near branch of the mode's usual size, if it can be one.
    fn target(&self, i: &Instruction) -> Option<u64> {
        let (kind, canonical) = match self.word() {
            8 => (OpKind::NearBranch64, true),
            _ => (OpKind::NearBranch32, false),
        };
        let target = i.near_branch_target();
        let good = !canonical || target.wrapping_add(1 << 47) >> 48 == 0;
        (i.op0_kind() == kind && good).then_some(target)
    }

    fn jmp(&mut self, i: &Instruction) -> Emitted {
        let Some(target) = self.target(i) else { return Emitted::Not };
        self.go_on(0, target);
        Emitted::Ended
    }

    fn call(&mut self, i: &Instruction, op: u8) -> Emitted {
        let Some(target) = self.target(i) else { return Emitted::Not };
        let word = self.word();
        self.stack_address(-word);
        self.probe(word as usize, true, op);
        self.constant(10, i.next_ip());
        match word {
            8 => dynasm!(self.asm ; .arch x64 ; mov [r8 + r9], r10),
            _ => dynasm!(self.asm ; .arch x64 ; mov [r8 + r9], r10d),
        }
        self.move_stack(-word);
        self.go_on(0, target);
        Emitted::Ended
    }

    fn jcc(&mut self, i: &Instruction) -> Emitted {
        let Some(target) = self.target(i) else { return Emitted::Not };
        let out = self.stub(Exit::Follow { block: self.block, slot: 0 }, false, Some(target));
        macro_rules! jump {
            ($($condition:ident $name:ident),*) => {
                match i.condition_code() {
                    $(ConditionCode::$condition => dynasm!(self.asm ; .arch x64 ; $name =>out),)*
                    ConditionCode::None => return Emitted::Not,
                }
            };
        }
        jump!(o jo, no jno, b jb, ae jae, e je, ne jne, be jbe, a ja, s js, ns jns, p jp, np jnp,
              l jl, ge jge, le jle, g jg);
        self.note_link(0, out);
        let next = i.next_ip();
        let next = if self.mode.has(Mode::LONG) { next } else { next & 0xffff_ffff };
        self.go_on(1, next);
        Emitted::Ended
    }

    /// Goes to a routine.
    pub(crate) fn go_to(&mut self, opcode: u8, routine: u64) {
        let next = self.address + self.asm.offset().0 as u64 + 5;
        self.asm.push(opcode);
        self.asm.push_i32(routine.wrapping_sub(next) as i32);
    }

    /// Emits the ways out and gives the code; nothing if a number is out of range.
    pub(crate) fn finish(mut self) -> Option<Finished> {
        self.emit_loads();
        let mut places = Vec::with_capacity(self.stubs.len());
        for stub in std::mem::take(&mut self.stubs) {
            places.push((stub.label, self.asm.offset().0));
            let packed = stub.exit.pack()?;
            dynasm!(self.asm ; .arch x64 ; =>stub.label);
            if stub.rcx_aside {
                dynasm!(self.asm ; .arch x64 ; mov rcx, r10);
            }
            if let Some(rip) = stub.rip {
                self.constant(8, rip);
                dynasm!(self.asm ; .arch x64 ; mov [r14 + RIP], r8);
            }
            dynasm!(self.asm ; .arch x64 ; mov r8d, packed as i32);
            self.go_to(JMP, self.leave);
        }
        let sites = self.links.map(|link| {
            let (operand, label) = link?;
            let (_, stub) = places.iter().find(|(at, _)| *at == label)?;
            Some(Site { operand, stub: *stub })
        });
        let code = self.asm.finalize().ok()?;
        Some(Finished { code, entry: self.entry, sites })
    }
}

/// The operands that are general registers.
fn general(i: &Instruction) -> impl Iterator<Item = u32> + use<> {
    let i = *i;
    (0..i.op_count())
        .filter(move |&n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_gpr())
}

fn reads(access: OpAccess) -> bool {
    !matches!(access, OpAccess::Write | OpAccess::None | OpAccess::NoMemAccess)
}

fn writes(access: OpAccess) -> bool {
    use OpAccess as A;
    matches!(access, A::Write | A::CondWrite | A::ReadWrite | A::ReadCondWrite)
}

/// A guest register that is in memory and passes through a scratch register.
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
    fn take(&mut self, guest: u8, load: bool, store: bool, free: &[u8]) -> Option<()> {
        if let Some(moved) = self.0.iter_mut().flatten().find(|moved| moved.guest == guest) {
            moved.load |= load;
            moved.store |= store;
            return Some(());
        }
        let place = self.0.iter().position(Option::is_none)?;
        let scratch = *free.get(place)?;
        self.0[place] = Some(Moved { guest, scratch, load, store });
        Some(())
    }

    fn moved(&self) -> impl Iterator<Item = &Moved> {
        self.0.iter().flatten()
    }

    fn host_of(&self, guest: u8) -> u8 {
        match (home(guest), self.moved().find(|moved| moved.guest == guest)) {
            (_, Some(moved)) => moved.scratch,
            (Home::Host(host), None) => host,
            (Home::Memory, None) => guest,
        }
    }
}
