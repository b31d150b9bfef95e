//! The code of one block.
//!
//! Guest flags live in the host's while translated code runs, so glue changes none: it computes with
//! LEA and BMI2 and tests with JRCXZ. Whatever may fail is done before an instruction changes
//! anything; the way out is then to the interpreter's operation for it. Between instructions every
//! guest register is in its home, so that the code can be entered at any of them.
//!
//! A block begins with two checks. The guard looks whether addresses still mean what they did when
//! the block was last found to be the one at its RIP; jumps within a page need not take it. Then its
//! instructions are taken from the quantum.

mod branch;
mod copy;
pub(crate) mod memory;
mod stack;
mod string;

use std::mem::offset_of;

use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use iced_x86::{ConditionCode, Encoder, Instruction, Mnemonic, OpAccess};
use trivium_interp::Cpu;
use trivium_interp::cpu::Mode;
use trivium_interp::native::Native;

use crate::crossing::Crossing;
use crate::enter::Exit;
use crate::planted::{self, Bug};
use crate::regs::at;
use crate::select;
use crate::simd::{self, AtHand};
use crate::simd_state::Routines;
use crate::spans::{Facts, Member, Span};
use crate::x87::Notes;

/// Where code is put together.
pub(crate) type Assembler = VecAssembler<X64Relocation>;

const RIP: i32 = at(offset_of!(Cpu, rip));
/// Of [`Native::tags`], less the offset into it.
pub(crate) const TAGS: i32 = at(offset_of!(Cpu, native)) + offset_of!(Native, tags) as i32;

/// Bytes of the check of the quantum.
const CHECK: usize = 20;

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

/// How an access finds its memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// By the TLB.
    Alone,
    /// The same, for all of a span of which this access has the part at an offset.
    First { number: u8, span: Span, offset: i32 },
    /// As the first access of the span of this number did.
    Again(u8),
}

impl Way {
    /// How far before the access's own address the one is that is looked for.
    pub(crate) fn back(self) -> i32 {
        match self {
            Self::First { offset, .. } => offset,
            _ => 0,
        }
    }
}

/// A place that a block's end jumps from, and the way out that it leads to at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    /// Of the relative operand, from the start of the often-run code.
    pub(crate) operand: usize,
    /// Of the way out, from the start of the seldom-run code.
    pub(crate) stub: usize,
}

/// Where in a block's code things are.
pub(crate) mod layout {
    /// In the guard: the displacement of what it looks at.
    pub(crate) const PLACE: u64 = 3;
    /// In the guard: what it wants there, negated.
    pub(crate) const VALUE: u64 = 9;
    /// In the code that is often run: where the instructions begin, which were taken from the
    /// quantum.
    pub(crate) const BODY: u64 = super::CHECK as u64;
}

/// A finished block.
pub(crate) struct Finished {
    /// What is often run; it begins where those jump to who know that the guard would find nothing.
    pub(crate) hot: Vec<u8>,
    /// The rest, which begins with the guard.
    pub(crate) cold: Vec<u8>,
    pub(crate) sites: [Option<Site>; 2],
}

/// A way out that is emitted after the code.
struct Stub {
    label: DynamicLabel,
    exit: Exit,
    /// RIP is to be this.
    rip: Option<u64>,
    /// These are given back to the quantum.
    unspent: i32,
}

/// What emits one block.
pub(crate) struct Emitter {
    pub(crate) asm: Assembler,
    encoder: Encoder,
    pub(crate) mode: Mode,
    pub(crate) block: u32,
    /// Where the often-run code will be, and the other.
    addresses: (u64, u64),
    /// Where the other begins in what is emitted, once it does.
    cold_start: Option<usize>,
    /// The relative operands that lead from one to the other.
    parted: Vec<usize>,
    /// Of the routine that leaves translated code.
    leave: u64,
    /// Those for vector registers.
    pub(crate) routines: Routines,
    pub(crate) simd: AtHand,
    pub(crate) loads: Vec<simd::Load>,
    pub(crate) crossings: Vec<Crossing>,
    /// The one that the store being emitted belongs to.
    crossing_store: Option<usize>,
    pub(crate) notes: Notes,
    /// The block's spans, and which of them have their place in `Native::spans`.
    spans: Vec<Span>,
    known_spans: u16,
    /// What the present instruction's operands are for, and the part in a span that it has.
    accesses: [OpAccess; 4],
    member: Option<Member>,
    stubs: Vec<Stub>,
    links: [Option<(usize, DynamicLabel)>; 2],
}

impl Emitter {
    /// Begins a block of `count` instructions, whose code will be at these addresses.
    pub(crate) fn new(
        addresses: (u64, u64),
        (leave, routines): (u64, Routines),
        (block, mode, count): (u32, Mode, u8),
        spans: Vec<Span>,
    ) -> Self {
        let mut emitter = Self {
            asm: Assembler::new(addresses.0 as usize),
            encoder: Encoder::new(64),
            mode,
            block,
            addresses,
            cold_start: None,
            parted: Vec::new(),
            leave,
            routines,
            simd: AtHand::default(),
            loads: Vec::new(),
            crossings: Vec::new(),
            crossing_store: None,
            notes: Notes::default(),
            spans,
            known_spans: 0,
            accesses: [OpAccess::None; 4],
            member: None,
            stubs: Vec::new(),
            links: [None; 2],
        };
        emitter.take_from_quantum(count.into());
        emitter
    }

    fn take_from_quantum(&mut self, count: i32) {
        let count = count + i32::from(planted::has(Bug::WrongCount));
        let label = self.asm.new_dynamic_label();
        let exit = Exit::Exhausted { block: self.block };
        self.stubs.push(Stub { label, exit, rip: None, unspent: count });
        dynasm!(self.asm
            ; .arch x64
            ; lea r11, [r11 - count]
            // Less than 4096, so nothing is left of it unless it is negative.
            ; shrx rcx, r11, r14
            ; jrcxz >enough
        );
        self.jump_out(label);
        dynasm!(self.asm ; .arch x64 ; enough: ; nop);
        debug_assert_eq!(self.asm.offset().0, CHECK);
    }

    pub(crate) fn stub(&mut self, exit: Exit, rip: Option<u64>) -> DynamicLabel {
        let label = self.asm.new_dynamic_label();
        self.stubs.push(Stub { label, exit, rip, unspent: 0 });
        label
    }

    /// Where the next instruction's code will begin.
    pub(crate) fn offset(&self) -> usize {
        self.asm.offset().0
    }

    /// Leaves an operation to the interpreter.
    pub(crate) fn leave_to_interpreter(&mut self, op: u8) {
        self.note_x87(None);
        self.notes.segment = false;
        let out = self.stub(Exit::Resume { block: self.block, op }, None);
        self.jump_out(out);
        self.simd = AtHand::default();
        self.known_spans = 0;
    }

    /// Whether what comes next may be entered from outside: no span is taken for known.
    pub(crate) fn is_enterable(&self) -> bool {
        self.known_spans == 0
    }

    /// The jump just emitted is the one of a link.
    fn note_link(&mut self, slot: u8, out: DynamicLabel) {
        if let Some(link) = self.links.get_mut(usize::from(slot)) {
            *link = Some((self.asm.offset().0 - 4, out));
        }
    }

    /// Emits an instruction, of which this is known and which belongs to operation `op`.
    pub(crate) fn instruction(&mut self, i: &Instruction, facts: Facts, op: u8) -> Emitted {
        (self.accesses, self.member) = (facts.accesses, facts.span);
        self.note_x87(Some(i));
        match i.mnemonic() {
            Mnemonic::Push => self.push(i, op),
            Mnemonic::Pop => self.pop(i, op),
            Mnemonic::Leave => self.leave_frame(i, op),
            Mnemonic::Call => self.call(i, op),
            Mnemonic::Ret => self.ret(i, op),
            Mnemonic::Lea => self.lea(i),
            Mnemonic::Jmp => self.jmp(i, op),
            _ if i.is_string_instruction() => self.string(i, op),
            _ if i.condition_code() != ConditionCode::None && i.is_jcc_short_or_near() => {
                self.jcc(i)
            }
            _ if select::is_copied(i) && select::host_has(i) => self.copy(i, op),
            _ => self.vector_or_x87(i, op),
        }
    }

    /// Appends an instruction that is in the host's terms.
    pub(crate) fn raw(&mut self, i: &Instruction) -> bool {
        let rip = self.asm.offset().0 as u64;
        if self.encoder.encode(i, rip).is_err() {
            return false;
        }
        let mut bytes = self.encoder.take_buffer();
        self.asm.extend(&bytes);
        bytes.clear();
        self.encoder.set_buffer(bytes);
        true
    }

    /// Jumps to where the code is that is seldom run.
    pub(crate) fn jump_out(&mut self, label: DynamicLabel) {
        dynasm!(self.asm ; .arch x64 ; jmp =>label);
        self.note_parted();
    }

    /// The relative operand that was just emitted leads from one part of the code to the other.
    pub(crate) fn note_parted(&mut self) {
        self.parted.push(self.asm.offset().0 - 4);
    }

    /// Where in the end the code at an offset will be.
    fn place(&self, offset: usize) -> u64 {
        match self.cold_start {
            Some(start) => self.addresses.1 + (offset - start) as u64,
            None => self.addresses.0 + offset as u64,
        }
    }

    /// Goes to a routine.
    pub(crate) fn go_to(&mut self, opcode: u8, routine: u64) {
        let next = self.place(self.asm.offset().0 + 5);
        self.asm.push(opcode);
        self.asm.push_i32(routine.wrapping_sub(next) as i32);
    }

    /// Emits the ways out and gives the code; nothing if a number is out of range.
    pub(crate) fn finish(mut self) -> Option<Finished> {
        let start = self.offset();
        self.cold_start = Some(start);
        self.guard();
        self.emit_loads();
        self.emit_crossings();
        let mut places = Vec::with_capacity(self.stubs.len());
        for stub in std::mem::take(&mut self.stubs) {
            places.push((stub.label, self.asm.offset().0));
            let packed = stub.exit.pack()?;
            dynasm!(self.asm ; .arch x64 ; =>stub.label);
            if let Some(rip) = stub.rip {
                self.constant(8, rip);
                dynasm!(self.asm ; .arch x64 ; mov [r14 + RIP], r8);
            }
            if stub.unspent != 0 {
                dynasm!(self.asm ; .arch x64 ; lea r11, [r11 + stub.unspent]);
            }
            dynasm!(self.asm ; .arch x64 ; mov ecx, packed as i32);
            self.go_to(JMP, self.leave);
        }
        let sites = self.links.map(|link| {
            let (operand, label) = link?;
            let (_, stub) = places.iter().find(|(at, _)| *at == label)?;
            Some(Site { operand, stub: *stub - start })
        });
        let mut code = self.asm.finalize().ok()?;
        // The parts come to lie further apart than they are now.
        let (hot, cold) = self.addresses;
        let moved = cold.wrapping_sub(hot + start as u64) as u32;
        for at in self.parted {
            let operand = code.get_mut(at..)?.first_chunk_mut()?;
            let by = if at < start { moved } else { moved.wrapping_neg() };
            *operand = u32::from_le_bytes(*operand).wrapping_add(by).to_le_bytes();
        }
        let cold = code.split_off(start);
        Some(Finished { hot: code, cold, sites })
    }

    /// Emits the guard, at the beginning of the seldom-run code.
    fn guard(&mut self) {
        let out = self.stub(Exit::Stale { block: self.block }, None);
        dynasm!(self.asm
            ; .arch x64
            // The displacement and the number are filled in when the block is reached.
            ; mov rcx, [r14 + TAGS]
            ; mov r9, QWORD 0
            ; lea rcx, [rcx + r9]
            ; jrcxz >good
            ; jmp =>out
            ; good:
        );
        self.go_to(JMP, self.addresses.0);
    }
}
