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

mod bits;
mod branch;
mod copy;
mod cut;
mod encode;
pub(crate) mod memory;
mod segmented;
mod segments;
mod stack;
mod string;
mod system;

use std::mem::offset_of;

use dynasmrt::x64::X64Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use iced_x86::{ConditionCode, Encoder, Instruction, Mnemonic, OpAccess, OpKind};
use trivium_interp::Cpu;
use trivium_interp::block::NO_LINK;
use trivium_interp::cpu::Mode;
use trivium_interp::native::Native;

use crate::crossing::Crossing;
use crate::enter::{Exit, Ways};
use crate::host::Host;
use crate::planted::{self, Bug};
use crate::regs::{Homes, Lodger, at, slot};
use crate::select;
use crate::simd::{self, AtHand};
use crate::simd_state::Routines;
use crate::spans::{Facts, Member, SPANS, Span, is_write as writes};
use crate::x87::Notes;
use memory::{Fill, Sites};
pub(crate) use segmented::is_flat;

/// Where code is put together.
pub(crate) type Assembler = VecAssembler<X64Relocation>;

const RIP: i32 = at(offset_of!(Cpu, rip));
/// Of [`Native::tags`], less the offset into it.
pub(crate) const TAGS: i32 = at(offset_of!(Cpu, native)) + offset_of!(Native, tags) as i32;

/// CALL rel32 and JMP rel32.
pub(crate) const CALL: u8 = 0xe8;
const JMP: u8 = 0xe9;
/// JRCXZ rel8, and the size of a JMP that it may lead over.
const JRCXZ: u8 = 0xe3;
const JMP_SHORT: u8 = 0xeb;
const JMP_SIZE: u8 = 5;

/// Bytes that there is room for at once, enough for most blocks.
const ROOM: usize = 1024;

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
    /// The block, and which of its links it is.
    pub(crate) block: u32,
    pub(crate) slot: u8,
    /// Address of the relative operand.
    pub(crate) operand: u64,
    /// Address of the way out.
    pub(crate) stub: u64,
}

/// A link whose jump was emitted.
struct LinkJump {
    block: u32,
    slot: u8,
    /// Address of its operand.
    operand: u64,
    out: DynamicLabel,
}

/// How the code of several blocks goes on behind one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// With the block that follows by this link.
    Link(u8),
    /// With the one at this RIP, which the block is to return to.
    Return(u64),
}

/// Where in a block's code things are.
pub(crate) mod layout {
    /// In the guard: the displacement of what it looks at.
    pub(crate) const PLACE: u64 = 3;
    /// In the guard: what it wants there, negated.
    pub(crate) const VALUE: u64 = 9;
    /// Bytes of the guard before what it does if it finds nothing else.
    pub(crate) const GUARD: usize = 17;
    /// In the guard: the operand of its jump to the code that is often run.
    pub(crate) const GUARD_JUMP: u64 = 29;
    /// In the code that is often run: where the instructions begin, which were taken from the
    /// quantum.
    pub(crate) fn body(host: super::Host) -> u64 {
        host.check_size() as u64
    }
}

/// A finished block.
pub(crate) struct Finished {
    code: Vec<u8>,
    /// Bytes of it that are often run.
    hot: usize,
    pub(crate) sites: Vec<Site>,
    /// Guards of other blocks among it: whose, and where from the start of the often-run code.
    pub(crate) guards: Vec<(u32, usize)>,
    /// The accesses that remember translations.
    pub(crate) accesses: Option<Sites>,
    /// Instructions that it takes from the quantum.
    pub(crate) count: i32,
}

/// Whether what is emitted for an instruction says itself when R9 changes.
fn keeps_r9(i: &Instruction) -> bool {
    match i.mnemonic() {
        Mnemonic::Push | Mnemonic::Pop if i.op0_kind() == OpKind::Register => {
            i.op0_register().is_gpr()
        }
        Mnemonic::Push => i.op0_kind() != OpKind::Memory,
        Mnemonic::Lea | Mnemonic::Leave => true,
        Mnemonic::Call => i.is_call_near(),
        _ if i.is_jcc_short_or_near() => true,
        _ => select::is_copied(i),
    }
}

impl Finished {
    /// What is often run; it begins where those jump to who know that the guard would find nothing.
    pub(crate) fn hot(&self) -> &[u8] {
        &self.code[..self.hot]
    }

    /// The rest, which begins with the guard.
    pub(crate) fn cold(&self) -> &[u8] {
        &self.code[self.hot..]
    }
}

/// A way out that is emitted after the code.
struct Stub {
    label: DynamicLabel,
    exit: Exit,
    /// RIP is to be this.
    rip: Option<u64>,
    /// These are given back to the quantum.
    unspent: i32,
    /// Guest registers are in other homes than mostly.
    moved: bool,
    /// The link that it is the jump of, which leads elsewhere when what follows is known.
    link: Option<u8>,
    /// The code that it leads to, if it does not leave.
    to: Option<u64>,
    /// What a block takes from the quantum, and the code that it leads to if there is so much.
    first: Option<(i32, u64)>,
}

/// The single block's code that stands behind that of several.
#[derive(Debug, Default)]
pub(crate) struct Single {
    /// Where its operations may be entered.
    pub(crate) entries: Vec<(u8, u64)>,
}

/// What an emitter leaves to the next: mostly room that need not be asked for again.
#[derive(Default)]
pub(crate) struct Spare {
    tools: Option<(Box<Assembler>, Box<Encoder>)>,
    parted: Vec<usize>,
    outs: Vec<(usize, DynamicLabel)>,
    targets: Vec<usize>,
    stubs: Vec<Stub>,
    links: Vec<LinkJump>,
    fills: Vec<Fill>,
    places: Vec<usize>,
}

/// What emits one block.
pub(crate) struct Emitter {
    pub(crate) asm: Box<Assembler>,
    encoder: Box<Encoder>,
    pub(crate) mode: Mode,
    /// The code segment's limit.
    pub(crate) limit: u32,
    /// Bytes of the present instruction's stack slot, or of its branch, in code that is not flat.
    slot: i32,
    pub(crate) block: u32,
    /// Where the often-run code will be, and the other.
    addresses: (u64, u64),
    /// Where the other begins in what is emitted, once it does.
    cold_start: Option<usize>,
    /// The relative operands that lead from one to the other.
    parted: Vec<usize>,
    /// Those of [`Self::jump_out`], which are still to be filled in, and where they lead.
    outs: Vec<(usize, DynamicLabel)>,
    targets: Vec<usize>,
    ways: Ways,
    /// Those for vector registers.
    pub(crate) routines: Routines,
    pub(crate) simd: AtHand,
    pub(crate) loads: Vec<simd::Load>,
    pub(crate) crossings: Vec<Crossing>,
    /// The one that the store being emitted belongs to.
    crossing_store: Option<usize>,
    /// What is to be added to R8 for the address of the operand that was copied last.
    pub(crate) operand_offset: i32,
    pub(crate) notes: Notes,
    /// The block's spans, and which of them have their place in `Native::spans`.
    spans: Vec<Span>,
    known_spans: u16,
    /// Those of them that are far from both ends of all addresses of 32 bits.
    far_spans: u16,
    /// The span whose translation R9 is, if it is one.
    held: Option<u8>,
    /// What the present instruction's operands are for, and the part in a span that it has.
    accesses: [OpAccess; 4],
    member: Option<Member>,
    stubs: Vec<Stub>,
    links: Vec<LinkJump>,
    guards: Vec<(u32, usize)>,
    /// Instructions that were taken from the quantum and belong to blocks behind the present one.
    later: i32,
    /// Where guest registers are.
    pub(crate) homes: Homes,
    /// Those that are elsewhere than mostly in some of the code.
    lodgers: Vec<Lodger>,
    /// How it goes on behind the present block, if that is not the last.
    ahead: Option<Ahead>,
    single: Single,
    /// RIP of the present instruction, and whether it is the last of its block.
    ip: u64,
    pub(crate) is_last: bool,
    /// Supervisors have allowed themselves users' pages.
    user_pages: bool,
    /// Where the spans' translations are kept.
    span_places: [i32; SPANS],
    pub(crate) sites: Option<Sites>,
    fills: Vec<Fill>,
    /// Where the ways out are, by their number.
    places: Vec<usize>,
    /// The first of several blocks; what all of them take from the quantum; what it takes, and its
    /// code, if there is not so much; and where they begin again.
    first: u32,
    count: i32,
    first_alone: Option<(i32, u64)>,
    again: Option<DynamicLabel>,
}

impl Emitter {
    /// Begins a block of `count` instructions, whose code will be at these addresses.
    pub(crate) fn new(
        spare: Spare,
        addresses: (u64, u64),
        (ways, routines): (Ways, Routines),
        (block, mode, count): (u32, Mode, i32),
        spans: Vec<Span>,
    ) -> Self {
        let new = || (Box::new(Assembler::new(0)), Box::new(Encoder::new(64)));
        let mut tools = spare.tools.unwrap_or_else(new);
        tools.0.reserve_ops(ROOM);
        let Spare { parted, outs, targets, stubs, links, fills, places, .. } = spare;
        let mut emitter = Self {
            asm: tools.0,
            encoder: tools.1,
            mode,
            limit: u32::MAX,
            slot: 0,
            block,
            addresses,
            cold_start: None,
            parted,
            outs,
            targets,
            ways,
            routines,
            simd: AtHand::default(),
            loads: Vec::new(),
            crossings: Vec::new(),
            crossing_store: None,
            operand_offset: 0,
            notes: Notes::default(),
            spans,
            known_spans: 0,
            far_spans: 0,
            held: None,
            accesses: [OpAccess::None; 4],
            member: None,
            stubs,
            links,
            guards: Vec::new(),
            later: 0,
            homes: Homes::default(),
            lodgers: Vec::new(),
            ahead: None,
            single: Single::default(),
            ip: 0,
            is_last: false,
            user_pages: false,
            span_places: [0; SPANS],
            sites: None,
            fills,
            places,
            first: block,
            count,
            first_alone: None,
            again: None,
        };
        emitter.take_from_quantum(count);
        emitter
    }

    /// The code is of several blocks. With less left than all of them take, the first is run by
    /// itself: it takes `count`, and its code, with that taken, is at `body`.
    pub(crate) fn begin_superblock(&mut self, count: i32, body: u64, homes: Homes) {
        self.first_alone = Some((count, body));
        if let Some(stub) = self.stubs.first_mut() {
            stub.first = self.first_alone;
        }
        self.lodgers = homes.moved().to_vec();
        self.homes = homes;
        self.move_out();
        let again = self.asm.new_dynamic_label();
        dynasm!(self.asm ; .arch x64 ; =>again);
        self.again = Some(again);
    }

    /// Begins one of several blocks. There are `later` instructions behind it.
    pub(crate) fn begin(&mut self, block: u32, later: i32, ahead: Option<Ahead>, single: Single) {
        (self.block, self.later, self.ahead, self.single) = (block, later, ahead, single);
    }

    /// Goes over to the next of several blocks, by a link whose way may become void.
    pub(crate) fn pass_on(&mut self, next: u32, rip: u64, is_sure: bool) {
        self.note_x87(None);
        self.notes.segment = false;
        if is_sure || planted::has(Bug::NoGuardsWithin) {
            return;
        }
        let slot = match self.ahead {
            Some(Ahead::Link(slot)) => slot,
            _ => NO_LINK,
        };
        let out = self.stub(Exit::Follow { block: self.block, slot }, Some(rip));
        self.guards.push((next, self.offset()));
        self.emit_guard(out);
    }

    /// Begins again.
    pub(crate) fn close(&mut self) {
        self.note_x87(None);
        let Some(again) = self.again else { return };
        let out = self.stub(Exit::Exhausted { block: self.first }, None);
        let count = self.count;
        if let Some(stub) = self.stubs.last_mut() {
            (stub.unspent, stub.first) = (count, self.first_alone);
        }
        dynasm!(self.asm
            ; .arch x64
            ; lea r11, [r11 - count]
        );
        self.routines.host.is_exhausted(&mut self.asm);
        self.unless_zero(out);
        dynasm!(self.asm ; .arch x64 ; jmp =>again);
    }

    fn take_from_quantum(&mut self, count: i32) {
        let count = count + i32::from(planted::has(Bug::WrongCount));
        let label = self.asm.new_dynamic_label();
        let exit = Exit::Exhausted { block: self.block };
        let moved = false;
        let stub = Stub {
            label,
            exit,
            rip: None,
            unspent: count,
            moved,
            link: None,
            to: None,
            first: None,
        };
        self.stubs.push(stub);
        dynasm!(self.asm
            ; .arch x64
            ; lea r11, [r11 - count]
        );
        self.routines.host.is_exhausted(&mut self.asm);
        self.unless_zero(label);
        dynasm!(self.asm ; .arch x64 ; nop);
        debug_assert_eq!(self.asm.offset().0, self.routines.host.check_size());
    }

    pub(crate) fn stub(&mut self, exit: Exit, rip: Option<u64>) -> DynamicLabel {
        let label = self.asm.new_dynamic_label();
        let (unspent, moved) = (self.later, !self.homes.moved().is_empty());
        let stub = Stub { label, exit, rip, unspent, moved, link: None, to: None, first: None };
        self.stubs.push(stub);
        label
    }

    /// A way out for an operation whose span was not found: to where it looks for its own memory,
    /// if there is such a place.
    pub(crate) fn span_stub(&mut self, op: u8) -> DynamicLabel {
        let label = self.stub(Exit::Span { block: self.block, op }, None);
        let entry = self.single.entries.iter().find(|(number, _)| *number == op);
        if let (Some((_, address)), Some(stub)) = (entry, self.stubs.last_mut()) {
            stub.to = Some(*address);
        }
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
        self.held = None;
    }

    /// Whether what comes next may be entered from outside: no span is taken for known.
    pub(crate) fn is_enterable(&self) -> bool {
        self.known_spans == 0
    }

    /// The jump just emitted is the one of a link.
    fn note_link(&mut self, slot: u8, out: DynamicLabel) {
        match self.stubs.iter_mut().find(|stub| stub.label == out) {
            // What is done on the way out is to be done on the way to another block too.
            Some(stub) if stub.unspent != 0 || stub.moved => stub.link = Some(slot),
            _ => {
                let operand = self.place(self.asm.offset().0 - 4);
                self.links.push(LinkJump { block: self.block, slot, operand, out });
            }
        }
    }

    /// Brings guest registers to where they mostly are.
    pub(crate) fn bring_home(&mut self) {
        for Lodger { guest, host, owner } in self.lodgers.clone() {
            dynasm!(self.asm
                ; .arch x64
                ; mov [r14 + slot(guest)], Rq(host)
                ; mov Rq(host), [r14 + slot(owner)]
            );
        }
    }

    /// The same, for all that comes.
    pub(crate) fn stay_home(&mut self) {
        if !self.homes.moved().is_empty() {
            self.bring_home();
            self.homes = Homes::default();
        }
    }

    /// Brings guest registers to where they are to be.
    fn move_out(&mut self) {
        for Lodger { guest, host, owner } in self.lodgers.clone() {
            dynasm!(self.asm
                ; .arch x64
                ; mov [r14 + slot(owner)], Rq(host)
                ; mov Rq(host), [r14 + slot(guest)]
            );
        }
    }

    /// Emits an instruction, of which this is known and which belongs to operation `op`.
    pub(crate) fn instruction(&mut self, i: &Instruction, facts: Facts, op: u8) -> Emitted {
        (self.accesses, self.member, self.ip) = (facts.accesses, facts.span, i.ip());
        if !self.is_flat() {
            let fits = i.ip().saturating_add(i.len() as u64 - 1) <= u64::from(self.limit);
            if !fits || self.is_for_flat_code(i) {
                return Emitted::Not;
            }
            self.slot = segmented::slot(i);
        }
        self.note_x87(Some(i));
        let keeps = facts.copied || keeps_r9(i);
        self.held = self.held.filter(|_| keeps);
        let emitted = match facts.copied {
            true => self.copy(i, op),
            false => self.by_kind(i, op),
        };
        self.held = self.held.filter(|_| keeps);
        emitted
    }

    fn by_kind(&mut self, i: &Instruction, op: u8) -> Emitted {
        match i.mnemonic() {
            Mnemonic::Push => self.push(i, op),
            Mnemonic::Pop => self.pop(i, op),
            Mnemonic::Leave => self.leave_frame(i, op),
            Mnemonic::Call => self.call(i, op),
            Mnemonic::Ret => self.ret(i, op),
            Mnemonic::Lea => self.lea(i),
            Mnemonic::Jmp => self.jmp(i, op),
            _ if i.is_loop() || i.is_loopcc() || i.is_jcx_short() => self.counted(i),
            mnemonic if system::is_one(mnemonic) => self.system(i, op),
            _ if i.is_string_instruction() && self.routines.host.bmi2() => self.string(i, op),
            _ if i.condition_code() != ConditionCode::None && i.is_jcc_short_or_near() => {
                self.jcc(i)
            }
            _ if select::is_bit_string(i) && self.routines.host.bmi2() => self.bit_string(i, op),
            Mnemonic::Mov if i.op1_register().is_segment_register() => self.read_segment(i),
            Mnemonic::Mov if i.op0_register().is_segment_register() => self.load_segment(i, op),
            _ => self.vector_or_x87(i, op),
        }
    }

    /// Appends an instruction that is in the host's terms.
    pub(crate) fn raw(&mut self, i: &Instruction) -> bool {
        if let Some(code) = encode::by_shape(&mut self.encoder, i) {
            self.asm.extend(code.bytes());
            return true;
        }
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

    /// Goes elsewhere, to code that is seldom run, unless RCX is zero. What labels would say here is
    /// known: there are many of these.
    pub(crate) fn unless_zero(&mut self, out: DynamicLabel) {
        self.asm.extend(&[JRCXZ, JMP_SIZE]);
        self.jump_out(out);
    }

    /// Jumps to where the code is that is seldom run.
    pub(crate) fn jump_out(&mut self, label: DynamicLabel) {
        self.asm.push(JMP);
        self.asm.push_i32(0);
        self.outs.push((self.asm.offset().0 - 4, label));
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

    /// What the next emitter may use.
    pub(crate) fn into_spare(self) -> Spare {
        let Self { asm, encoder, mut parted, mut outs, mut targets, .. } = self;
        let Self { mut stubs, mut links, mut fills, mut places, .. } = self;
        parted.clear();
        outs.clear();
        targets.clear();
        stubs.clear();
        links.clear();
        fills.clear();
        places.clear();
        Spare { tools: Some((asm, encoder)), parted, outs, targets, stubs, links, fills, places }
    }

    /// Emits the ways out and gives the code; nothing if a number is out of range. It is used up then.
    pub(crate) fn finish(&mut self) -> Option<Finished> {
        let start = self.offset();
        self.cold_start = Some(start);
        self.guard();
        self.emit_loads();
        self.emit_fills();
        self.emit_crossings();
        let mut sites = Vec::with_capacity(2);
        let stubs = std::mem::take(&mut self.stubs);
        for stub in &stubs {
            self.places.push(self.asm.offset().0);
            let packed = stub.exit.pack()?;
            dynasm!(self.asm ; .arch x64 ; =>stub.label);
            if stub.moved && !planted::has(Bug::NotBroughtHome) {
                self.bring_home();
            }
            if stub.unspent != 0 && !planted::has(Bug::NoRefund) {
                dynasm!(self.asm ; .arch x64 ; lea r11, [r11 + stub.unspent]);
            }
            if let (Some(slot), Exit::Follow { block, .. }) = (stub.link, stub.exit) {
                dynasm!(self.asm ; .arch x64 ; jmp DWORD 0);
                let at = self.place(self.offset());
                sites.push(Site { block, slot, operand: at - 4, stub: at });
            }
            let is_usual = stub.link.is_none() && stub.first.is_none() && stub.to.is_none();
            if let Some(rip) = stub.rip.filter(|_| is_usual) {
                self.leave_to(rip, packed);
                continue;
            }
            if let Some(rip) = stub.rip {
                self.constant(8, rip);
                dynasm!(self.asm ; .arch x64 ; mov [r14 + RIP], r8);
            }
            if matches!(stub.exit, Exit::Exhausted { .. }) {
                dynasm!(self.asm ; .arch x64 ; mov ecx, packed as i32);
                self.go_to(CALL, self.ways.refill);
                // Over the next, or over the one behind it.
                self.asm.extend(&[JRCXZ, 2, JMP_SHORT, JMP_SIZE]);
                self.go_to(JMP, self.addresses.0);
            }
            if let Some((count, body)) = stub.first {
                dynasm!(self.asm
                    ; .arch x64
                    ; lea r11, [r11 - count]
                );
                self.routines.host.is_exhausted(&mut self.asm);
                dynasm!(self.asm
                    ; .arch x64
                    ; jrcxz >enough
                    ; lea r11, [r11 + count]
                    ; jmp >exhausted
                    ; enough:
                );
                self.go_to(JMP, body);
                dynasm!(self.asm ; .arch x64 ; exhausted:);
            }
            if let Some(to) = stub.to {
                self.go_to(JMP, to);
                continue;
            }
            dynasm!(self.asm ; .arch x64 ; mov ecx, packed as i32);
            self.go_to(JMP, self.ways.leave);
        }
        let site = |link: &LinkJump| {
            let &LinkJump { block, slot, operand, out } = link;
            let number = stubs.iter().position(|stub| stub.label == out)?;
            let stub = self.place(*self.places.get(number)?);
            Some(Site { block, slot, operand, stub })
        };
        sites.extend(self.links.iter().filter_map(site));
        self.stubs = stubs;
        for &(_, label) in &self.outs {
            self.targets.push(self.asm.labels().resolve_dynamic(label).ok()?.0);
        }
        let mut code = self.asm.take().ok()?;
        for (&(at, _), target) in self.outs.iter().zip(&self.targets) {
            let operand = code.get_mut(at..)?.first_chunk_mut()?;
            *operand = (target.wrapping_sub(at + 4) as u32).to_le_bytes();
        }
        self.routines.host.check(&code);
        // The parts come to lie further apart than they are now.
        let (hot, cold) = self.addresses;
        let moved = cold.wrapping_sub(hot + start as u64) as u32;
        for &at in self.parted.iter().chain(self.outs.iter().map(|(at, _)| at)) {
            let operand = code.get_mut(at..)?.first_chunk_mut()?;
            let by = if at < start { moved } else { moved.wrapping_neg() };
            *operand = u32::from_le_bytes(*operand).wrapping_add(by).to_le_bytes();
        }
        Some(Finished {
            code,
            hot: start,
            sites,
            guards: std::mem::take(&mut self.guards),
            accesses: self.sites.take(),
            count: self.count,
        })
    }

    /// Leaves for the interpreter, with a RIP. There are many of these, so it is put together at once.
    fn leave_to(&mut self, rip: u64, packed: u32) {
        let mut code = encode::Out::new();
        // MOV R8, rip; MOV [R14 + RIP], R8; MOV ECX, packed; JMP leave.
        if rip >> 32 == 0 {
            code.number(0xb841, 2);
            code.number(rip, 4);
        } else if rip as i32 as u64 == rip {
            code.number(0xc0_c749, 3);
            code.number(rip, 4);
        } else {
            code.number(0xb849, 2);
            code.number(rip, 8);
        }
        code.number(0x86_894d | u64::from(RIP as u32) << 24, 7);
        code.number(0xb9 | u64::from(packed) << 8, 5);
        let next = self.place(self.asm.offset().0 + code.bytes().len() + 5);
        code.number(u64::from(JMP) | u64::from(self.ways.leave.wrapping_sub(next) as u32) << 8, 5);
        self.asm.extend(code.bytes());
    }

    /// Emits the guard, at the beginning of the seldom-run code.
    fn guard(&mut self) {
        let out = self.stub(Exit::Stale { block: self.block }, None);
        let start = self.offset();
        self.emit_guard(out);
        self.go_to(JMP, self.addresses.0);
        debug_assert_eq!(self.offset() - start, layout::GUARD_JUMP as usize + 4);
    }

    /// Goes elsewhere if what a block depends on is not as it was.
    fn emit_guard(&mut self, out: DynamicLabel) {
        self.held = None;
        dynasm!(self.asm
            ; .arch x64
            // The displacement and the number are filled in when the block is reached.
            ; mov rcx, [r14 + TAGS]
            ; mov r9, QWORD 0
            ; lea rcx, [rcx + r9]
        );
        match self.cold_start {
            Some(_) => {
                self.asm.extend(&[JRCXZ, JMP_SIZE]);
                dynasm!(self.asm ; .arch x64 ; jmp =>out);
            }
            None => self.unless_zero(out),
        }
    }
}
