//! The translator: from blocks of the interpreter to code of the host, and how such code is chained
//! and given up.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use trivium_interp::Cpu;
use trivium_interp::block::{Block, BlockCache, Dropped, Reach};
use trivium_interp::cpu::Mode;
use trivium_interp::native::NATIVE_SITES;
use trivium_interp::op::{Handler, Op};
use trivium_interp::run::{Translated, Translator};

use crate::analyse::{End, Guest, instructions};
use crate::code::{CodeError, CodeMemory, Region};
use crate::emit::{Assembler, Emitted, Emitter, Finished, Site, Spare, TAGS, is_flat, layout};
use crate::enter::{self, MAX_OP, Ways, tag};
use crate::known::Known;
use crate::observe::Observer;
use crate::options::JitOptions;
use crate::planted::{self, Bug};
use crate::simd::Needs;
use crate::simd_state::Routines;
use crate::spans::{self, Facts};
use crate::superblock::Superblock;
use crate::x87::Notes;

/// How often the memory of several accesses may not be found before a block is translated anew, with
/// each access by itself.
const SPAN_MISSES: u32 = 4000;

/// A block's code.
pub(crate) struct Code {
    /// Where it begins.
    pub(crate) start: u64,
    /// Its guard, and the copies of that in superblocks.
    pub(crate) guards: Vec<u64>,
    /// The RIP that it is for.
    rip: u64,
    /// The jumps at its end, and at its ends in superblocks.
    pub(crate) links: Vec<Link>,
    /// The jumps of others that lead here, and the ways out that they led to.
    pub(crate) incoming: Vec<(u64, u64)>,
    /// Where its operations may be entered.
    pub(crate) entries: Vec<(u8, u64)>,
    /// The first blocks of superblocks that it is part of.
    pub(crate) parts_of: Vec<u32>,
    /// The superblock that it is the first of.
    pub(crate) superblock: Option<Superblock>,
}

/// A jump at a block's end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) slot: u8,
    /// Where its operand is, and the way out that it leads to at first.
    pub(crate) operand: u64,
    pub(crate) stub: u64,
    /// The block that it leads to, and whether it does in any case.
    pub(crate) to: Option<(u32, bool)>,
}

impl Code {
    /// Where those jump to who know that the guard would find nothing.
    fn entry(&self) -> u64 {
        self.superblock.as_ref().map_or(self.start, Superblock::start)
    }

    /// Whether any of it is in a region.
    fn is_in(&self, region: &Region) -> bool {
        region.has(self.start)
    }

    /// Whether it is the first of a superblock that is in a region.
    fn is_superblock_in(&self, region: &Region) -> bool {
        self.superblock.as_ref().is_some_and(|superblock| superblock.is_in(region))
    }
}

/// What is known of the block that is translated; room that need not be asked for again.
#[derive(Default)]
struct Lists {
    guests: Vec<Guest>,
    facts: Vec<Facts>,
    starts: Vec<Start>,
}

/// The translator of one CPU.
pub struct Jit {
    pub(crate) memory: CodeMemory,
    enter: u64,
    pub(crate) ways: Ways,
    pub(crate) simd: Routines,
    /// By the blocks' numbers.
    blocks: Vec<Option<Code>>,
    pub(crate) known: Known,
    pub(crate) room: spans::Room,
    lists: Lists,
    /// RIPs of blocks whose spans were mostly on two pages.
    pub(crate) apart: HashSet<u64>,
    pub(crate) observer: Observer,
    /// Numbers for accesses that remember translations, of supervisors and of users.
    pub(crate) free_sites: [Vec<u16>; 2],
    /// Addresses of instructions that mostly find another translation than last time.
    pub(crate) scattered: HashSet<u64>,
    /// The present translation has found no room in one region already.
    moved_on: bool,
    /// For the next emitter.
    spare: Spare,
    /// Blocks whose code was given up, and whose operations still lead there.
    evicted: Vec<u32>,
    /// First blocks of superblocks that were given up as one of their blocks was translated anew.
    cooled: Vec<u32>,
    /// Who wants to know how many superblocks are made.
    pub(crate) superblocks: Option<Arc<AtomicU64>>,
}

impl Jit {
    /// A translator with nothing translated.
    ///
    /// # Errors
    /// The host gives no memory that may be executed.
    pub fn new() -> Result<Self, CodeError> {
        Self::with_options(&JitOptions::default())
    }

    /// [`Self::new`] with choices.
    ///
    /// # Errors
    /// As [`Self::new`]; or what it is to write cannot be written.
    pub fn with_options(options: &JitOptions) -> Result<Self, CodeError> {
        let mut memory = CodeMemory::new(options.memory, options.perf_map)?;
        let mut routine = |emit: &dyn Fn(&mut Assembler)| {
            let address = memory.next();
            let mut asm = Assembler::new(address as usize);
            emit(&mut asm);
            let code = asm.finalize().unwrap_or_default();
            options.host.check(&code);
            let fits = memory.put(&code);
            debug_assert!(fits);
            address
        };
        let simd = Routines::emit(options.host, &mut routine);
        let enter = routine(&|asm| enter::emit_enter(asm, simd));
        let (leave, refill) =
            (routine(&|asm| enter::emit_leave(asm, options.host)), routine(&enter::emit_refill));
        let ways = Ways { leave, refill };
        memory.keep();
        let mut observer = Observer::new(options)?;
        observer.routines(simd.load_sse, memory.used());
        Ok(Self {
            memory,
            enter,
            ways,
            simd,
            blocks: Vec::new(),
            known: Known::default(),
            room: spans::Room::default(),
            lists: Lists::default(),
            apart: HashSet::new(),
            observer,
            free_sites: all_sites(),
            scattered: HashSet::new(),
            moved_on: false,
            spare: Spare::default(),
            evicted: Vec::new(),
            cooled: Vec::new(),
            superblocks: options.superblocks.clone(),
        })
    }

    pub(crate) fn code(&mut self, block: u32) -> Option<&mut Code> {
        self.blocks.get_mut(block as usize)?.as_mut()
    }

    /// Emits a block; nothing if nothing of it is translated. [`Lists::starts`] has where its
    /// operations begin.
    fn emit(
        &mut self,
        cpu: &Cpu,
        block: &Block,
        ops: &[Op],
        lists: &mut Lists,
    ) -> Option<Finished> {
        let Lists { guests, facts, starts } = lists;
        let end = instructions(cpu, block, ops, guests);
        let about = (block.target.index, block.mode, block.target.count.into());
        self.known.of(cpu.model.features, self.simd.host);
        let list = guests.iter().map(|guest| &guest.instruction);
        let word = if block.mode.has(Mode::LONG) { 8 } else { 4 };
        let spans = spans::find(list, word, spans::LIMIT, &mut self.known, (facts, &mut self.room));
        let is_apart = self.apart.contains(&block.rip) || !is_flat(block.mode, block.key.limit);
        let spans = if is_apart { Vec::new() } else { spans };
        let routines = (self.ways, self.simd);
        let spare = std::mem::take(&mut self.spare);
        let mut emitter = Emitter::new(spare, self.memory.next_two(), routines, about, spans);
        emitter.limit = block.key.limit;
        emitter.notes = Notes::new(&cpu.model);
        starts.clear();
        let mut emitted = Emitted::Done;
        let mut last = 0;
        for (number, (guest, facts)) in guests.iter().zip(facts).enumerate() {
            emitter.is_last = number + 1 == guests.len();
            let (offset, needs) = (emitter.offset(), emitter.simd.needs());
            let enterable = emitter.is_enterable();
            emitted = emit_one(&mut emitter, cpu, guest, *facts, ops);
            let is_first = std::mem::replace(&mut last, guest.op) != guest.op;
            let left = emitted == Emitted::Not;
            self.observer.step(cpu, block, (&guest.instruction, guest.op), offset, left);
            if left {
                emitter.leave_to_interpreter(guest.op);
            }
            if is_first || left {
                starts.push(Start { op: guest.op, offset, needs, enterable, left });
            }
            if emitted == Emitted::Ended {
                break;
            }
        }
        match (emitted, end, guests.last()) {
            (Emitted::Done | Emitted::Not, End::GoOn(rip), _) => emitter.go_on(1, rip),
            // One that the interpreter wants to look up after.
            (Emitted::Done, End::Instruction, Some(last)) => {
                emitter.go_on_after(&last.instruction);
            }
            _ => {}
        }
        let finished = match starts.iter().all(|start| start.left) {
            true => None,
            false => emitter.finish(),
        };
        // What is left of it in the other cases is not what the next wants.
        if finished.is_some() {
            self.spare = emitter.into_spare();
        }
        finished
    }

    /// Puts a block's code in place.
    fn put(
        &mut self,
        cpu: &mut Cpu,
        block: &Block,
        ops: &[Op],
        (finished, starts): (Finished, &[Start]),
    ) -> Translated {
        let (start, guard) = self.memory.next_two();
        if !self.memory.put_two(finished.hot(), finished.cold()) {
            return self.translate_elsewhere(cpu, block, ops);
        }
        let link = |site: &Site| Link {
            slot: site.slot,
            operand: site.operand,
            stub: site.stub,
            to: None,
        };
        let links = finished.sites.iter().map(link).collect();
        let index = block.target.index as usize;
        if self.blocks.len() <= index {
            self.blocks.resize_with(index + 1, || None);
        }
        self.blocks[index] = Some(Code {
            start,
            guards: vec![guard],
            rip: block.rip,
            links,
            incoming: Vec::new(),
            entries: starts
                .iter()
                .filter(|at| at.enterable && !at.left)
                .map(|at| (at.op, start + at.offset as u64))
                .collect(),
            parts_of: Vec::new(),
            superblock: None,
        });
        let places = (start, layout::body(self.simd.host));
        let entries = entries(starts, places, self.enter, ops);
        self.observer.translated(block, &finished, (start, guard), &entries);
        if entries.first().is_some_and(|(number, _)| *number == 0) {
            block.cold.set(SPAN_MISSES);
        }
        Translated::Ops(entries)
    }

    /// Translates a block for which the present region has no room.
    fn translate_elsewhere(&mut self, cpu: &mut Cpu, block: &Block, ops: &[Op]) -> Translated {
        if std::mem::replace(&mut self.moved_on, true) {
            // It is longer than a whole region.
            return self.refused(cpu, block, ops);
        }
        self.make_room(cpu);
        let translated = self.translate(cpu, block, ops);
        self.moved_on = false;
        translated
    }

    /// Goes on with another region, and gives up the code that it has.
    pub(crate) fn make_room(&mut self, cpu: &mut Cpu) {
        let region = self.memory.next_region();
        let which = |is_there: &dyn Fn(&Code) -> bool| {
            let all = self.blocks.iter().enumerate();
            let there = all.filter(|(_, code)| code.as_ref().is_some_and(is_there));
            there.map(|(number, _)| number as u32).collect::<Vec<u32>>()
        };
        let there = which(&|code| code.is_in(&region));
        for first in which(&|code| code.is_superblock_in(&region)) {
            self.give_up(first);
        }
        for &block in &there {
            self.release(cpu, block);
        }
        // Jumps that were there are no more, though others' lists may have them.
        for code in self.blocks.iter_mut().flatten() {
            code.incoming.retain(|(operand, _)| !region.has(*operand));
        }
        self.observer.evicted(&there);
        self.evicted.extend(there);
    }

    /// A block is left to the interpreter.
    fn refused(&mut self, cpu: &Cpu, block: &Block, ops: &[Op]) -> Translated {
        if block.decoded != block.target.start {
            // Operations of it may still lead to what it was before.
            self.evicted.push(block.target.index);
        }
        match self.observer.refused(cpu, block, ops) {
            Some(op) => Translated::Ops(vec![(0, op)]),
            None => Translated::Not,
        }
    }

    /// Lets nobody come to a block's code any more.
    fn release(&mut self, cpu: &mut Cpu, block: u32) {
        if !planted::has(Bug::KeptSuperblock) {
            self.give_up_superblocks(block);
        }
        let code = self.blocks.get_mut(block as usize).and_then(Option::take);
        let Some(code) = code else { return };
        if let Some(&guard) = code.guards.first() {
            cpu.native.jumps.remove(code.rip, guard);
        }
        if planted::has(Bug::StaleJumps) {
            return;
        }
        for (operand, stub) in code.incoming {
            self.memory.jump_to(operand, stub);
        }
        code.links.iter().for_each(|link| self.unlink(link));
    }

    /// Makes a jump of a block lead to another; by its guard, unless it `is_sure` to be the right one.
    pub(crate) fn join(&mut self, from: u32, operand: u64, to: u32, is_sure: bool) {
        let Some(target) = self.code(to) else { return };
        let address = if is_sure { Some(target.entry()) } else { target.guards.first().copied() };
        let Some(address) = address else { return };
        let link = self.code(from).and_then(|code| {
            let mut links = code.links.iter_mut();
            let link = links.find(|link| link.operand == operand)?;
            let before = *link;
            link.to = Some((to, is_sure));
            Some(before)
        });
        let Some(before) = link else { return };
        self.unlink(&before);
        let is_known = planted::has(Bug::NumberTaken) && before.to.is_some_and(|(of, _)| of == to);
        if let Some(target) = self.code(to).filter(|_| !is_known) {
            target.incoming.push((operand, before.stub));
        }
        self.memory.jump_to(operand, address);
    }

    /// The block that follows one by a link, if that is known, and whether it does in any case.
    pub(crate) fn following(&mut self, block: u32, slot: u8) -> Option<(u32, bool)> {
        let code = self.code(block)?;
        let link = *code.links.iter().find(|link| link.slot == slot && link.to.is_some())?;
        let (to, is_sure) = link.to?;
        // It may have been dropped since.
        let joined = self.code(to)?.incoming.iter().any(|(operand, _)| *operand == link.operand);
        joined.then_some((to, is_sure))
    }

    /// A jump is no more: the block that it leads to need not know of it.
    pub(crate) fn unlink(&mut self, link: &Link) {
        if let Some(code) = link.to.and_then(|(to, _)| self.code(to)) {
            code.incoming.retain(|(operand, _)| *operand != link.operand);
        }
    }

    /// Makes a block's guards look for what it depends on now.
    fn renew(&mut self, cpu: &Cpu, block: u32, reach: Reach) {
        let place = TAGS + 8 * reach as i32;
        let wanted = 0_u64.wrapping_sub(tag(cpu, reach));
        let Some(code) = self.blocks.get(block as usize).and_then(Option::as_ref) else { return };
        for guard in &code.guards {
            self.memory.write(guard + layout::PLACE, &place.to_le_bytes());
            self.memory.write(guard + layout::VALUE, &wanted.to_le_bytes());
        }
    }
}

/// All numbers for accesses, of supervisors and of users, the least at the end.
fn all_sites() -> [Vec<u16>; 2] {
    let half = NATIVE_SITES as u16 / 2;
    [(0..half).rev().collect(), (half..2 * half).rev().collect()]
}

/// Emits an instruction, if the guest's processor has it.
pub(crate) fn emit_one(
    emitter: &mut Emitter,
    cpu: &Cpu,
    guest: &Guest,
    facts: Facts,
    ops: &[Op],
) -> Emitted {
    if !facts.offered {
        return Emitted::Not;
    }
    if let Some(rest) = guest.rest.filter(|_| cpu.native.cuts) {
        emitter.cut_before(guest.op, rest.into());
    }
    emitter.notes.opcode = ops.get(usize::from(guest.op)).map_or(0, |op| op.imm as u16);
    emitter.instruction(&guest.instruction, facts, guest.op)
}

/// Where the code of an operation begins.
#[derive(Debug, Clone, Copy)]
struct Start {
    op: u8,
    /// From the block's code.
    offset: usize,
    /// What is taken for loaded.
    needs: Needs,
    /// No memory is taken for found.
    enterable: bool,
    /// It is the interpreter's.
    left: bool,
}

/// The operations that lead into the code `at` an address, whose instructions begin after so many bytes:
/// the whole block's, and those that come after one that is
/// left to the interpreter or may have been.
fn entries(starts: &[Start], (at, body): (u64, u64), enter: u64, ops: &[Op]) -> Vec<(u8, Op)> {
    let leads = |from: &Op, address: u64, needs: Needs| {
        let (run, aux): (Handler, _) = (enter::enter, needs.bits());
        let op = Op { run, imm: address, disp: enter, aux, ..*from };
        debug_assert!(enter::is_enter(&op));
        op
    };
    let mut list = Vec::with_capacity(starts.len());
    // Of those in a row.
    let mut end = 0;
    for (number, start) in starts.iter().enumerate() {
        if number >= end {
            let left = |start: &Start| start.left;
            end = starts.iter().skip(number).position(left).map_or(starts.len(), |n| number + n);
        }
        let to_end = end == starts.len();
        if start.left || !start.enterable || end - number < WORTH_ENTERING && !to_end {
            continue;
        }
        let from = if number == 0 { 0 } else { start.op };
        let Some(op) = ops.get(usize::from(from)) else { continue };
        let offset = if number == 0 { body } else { start.offset as u64 };
        list.push((from, leads(op, at + offset, start.needs)));
    }
    list
}

/// As many operations in a row are worth the way into translated code and back.
const WORTH_ENTERING: usize = 4;

impl Translator for Jit {
    fn translate(&mut self, cpu: &mut Cpu, block: &Block, ops: &[Op]) -> Translated {
        if block.mode.has(Mode::SINGLE) || ops.len() > MAX_OP {
            return self.refused(cpu, block, ops);
        }
        self.observer.begin();
        if let Some(code) = self.code(block.target.index) {
            self.cooled = code.parts_of.clone();
            self.release(cpu, block.target.index);
            self.apart.insert(block.rip);
        }
        let mut lists = std::mem::take(&mut self.lists);
        let finished = self.emit(cpu, block, ops, &mut lists);
        let done = match finished {
            Some(finished) => self.put(cpu, block, ops, (finished, &lists.starts)),
            None => self.refused(cpu, block, ops),
        };
        self.lists = lists;
        done
    }

    fn extend(&mut self, cpu: &mut Cpu, cache: &BlockCache, block: u32) {
        self.make_superblock(cpu, cache, block);
    }

    fn chain(&mut self, cpu: &Cpu, (from, slot): (u32, u8), to: u32, reach: Reach) {
        let Some(code) = self.code(from) else { return };
        let of_slot = code.links.iter().filter(|link| link.slot == slot);
        let operands: Vec<u64> = of_slot.map(|link| link.operand).collect();
        for operand in operands {
            self.join(from, operand, to, reach == Reach::Page);
        }
        if reach != Reach::Page {
            self.renew(cpu, to, reach);
        }
    }

    fn reached(&mut self, cpu: &mut Cpu, rip: u64, block: u32, reach: Reach) {
        let Some(code) = self.code(block).and_then(|code| code.guards.first().copied()) else {
            return;
        };
        cpu.native.jumps.set(rip, code);
        self.renew(cpu, block, reach);
    }

    fn take_cooled(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.cooled)
    }

    fn take_evicted(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.evicted)
    }

    fn forget(&mut self, cpu: &mut Cpu, dropped: Dropped) {
        self.observer.forgotten(&dropped);
        match dropped {
            Dropped::None => {}
            Dropped::Some(list) => {
                list.into_iter().for_each(|block| self.release(cpu, block));
            }
            Dropped::All => {
                cpu.native.jumps.clear();
                self.blocks.clear();
                self.apart.clear();
                self.scattered.clear();
                self.free_sites = all_sites();
                self.evicted.clear();
                self.memory.clear();
            }
        }
    }
}
