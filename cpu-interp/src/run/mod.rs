//! The outer loop: finds blocks, runs their operations, serves what handlers leave to it, and
//! delivers exceptions and interrupts.

mod device;
#[cfg(test)]
mod device_tests;
mod events;
mod exits;
mod fetch;
mod miss;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use trivium_cpu::bits::{debug, debugctl, rflags};
use trivium_cpu::state::Activity;
use trivium_cpu::{Budget, Capabilities, CpuBus, CpuError, CpuState, Exception, Exit, Kick, Vcpu};
use trivium_memory::GuestMemory;

use crate::block::{Block, BlockCache, Dropped, NO_LINK, Reach};
use crate::block_limits::{BlockLimits, NO_CUT};
use crate::counts::SharedCounts;
use crate::cpu::{Cpu, Miss, Topology, shadow};
use crate::mem::Place;
use crate::native::QUANTUM as QUANTUM_MOST;
use crate::op::{Op, Stop, StopReason};
use miss::Loans;

/// Instructions between two looks at what others want of the CPU.
const QUANTUM: u64 = 1000;

/// The same where there is a translator. Builds for debugging need the stack for it.
const QUANTUM_TRANSLATED: u64 = if cfg!(debug_assertions) { 4000 } else { 32_000 };

/// How often a block is interpreted before it is translated, if there is a translator.
pub const WARM: u32 = 50;

/// Makes something faster of blocks that are entered often.
pub trait Translator: Send {
    /// Translates a block whose operations are these; anew if it has been.
    fn translate(&mut self, cpu: &mut Cpu, block: &Block, ops: &[Op]) -> Translated;

    /// A block is run so often that it, and those that mostly follow it, are worth translating
    /// together.
    fn extend(&mut self, cpu: &mut Cpu, cache: &BlockCache, block: u32);

    /// One block has been found to follow another, by its link `slot`.
    fn chain(&mut self, cpu: &Cpu, link: (u32, u8), to: u32, reach: Reach);

    /// A block has been found to be the one at a RIP.
    fn reached(&mut self, cpu: &mut Cpu, rip: u64, block: u32, reach: Reach);

    /// Gives the blocks that it has, since the last call, ceased to have together with others: they
    /// may be worth it again.
    fn take_cooled(&mut self) -> Vec<u32>;

    /// Gives the blocks that it has given up by itself since the last call: their operations are to be
    /// what was decoded again.
    fn take_evicted(&mut self) -> Vec<u32>;

    /// These blocks are no more.
    fn forget(&mut self, cpu: &mut Cpu, dropped: Dropped);
}

/// What a [`Translator`] has made of a block.
pub enum Translated {
    /// Operations that are to be in the place of those of these numbers from now on. The one of
    /// number 0, if it is among them, stands for the whole block.
    Ops(Vec<(u8, Op)>),
    /// Nothing: it is better interpreted.
    Not,
}

/// A virtual CPU that interprets.
pub struct Interpreter {
    pub(crate) cpu: Box<Cpu>,
    cache: BlockCache,
    /// What [`Interpreter::fill_tlb`] has found where the TLB cannot lead.
    found: Option<(Miss, Place)>,
    /// Instructions between two looks at what others want of the CPU.
    quantum: u64,
    translator: Option<Box<dyn Translator>>,
    /// How often a block is interpreted before it is translated.
    warm: u32,
    limits: Arc<BlockLimits>,
    /// The change of them that holds.
    limits_seen: u64,
    /// Instructions to where translated code is to be left, and whether it was.
    to_cut: u64,
    is_cut: bool,
}

/// One call of `run`.
struct Session<'a> {
    bus: &'a dyn CpuBus,
    /// Instructions that may still be run.
    left: u64,
    /// Instructions run that the platform does not know of.
    unreported: u64,
    /// Exits are told of.
    traced: bool,
    /// Instructions to where translated code is to be left.
    to_cut: u64,
}

impl Session<'_> {
    /// `count` instructions have been run.
    fn retire(&mut self, count: u64) {
        self.left = self.left.saturating_sub(count);
        self.to_cut = self.to_cut.saturating_sub(count);
        self.unreported += count;
    }

    /// The platform, up to date.
    fn bus(&mut self) -> &dyn CpuBus {
        if self.unreported > 0 {
            self.bus.retire(std::mem::take(&mut self.unreported));
        }
        self.bus
    }
}

/// A place in a block.
struct Position {
    block: u32,
    op: usize,
    /// How many of the block's instructions have been accounted for.
    done: u8,
}

impl Interpreter {
    /// A CPU after RESET#. `scratch` is the arena offset of a page that nobody else uses.
    #[must_use]
    pub fn new(
        memory: Arc<GuestMemory>,
        model: Arc<trivium_cpu::model::CpuModel>,
        topology: Topology,
        scratch: usize,
    ) -> Self {
        let cpu = Box::new(Cpu::new(memory, model, topology, scratch));
        let (cache, translator) = (BlockCache::new(), None);
        let limits = Arc::<BlockLimits>::default();
        let limits_seen = limits.changes();
        let (found, quantum) = (None, QUANTUM);
        let (to_cut, is_cut, warm) = (NO_CUT, false, WARM);
        Self { cpu, cache, found, quantum, translator, warm, limits, limits_seen, to_cut, is_cut }
    }

    /// Gives it a translator, before it has run anything.
    #[must_use]
    pub fn with_translator(self, translator: Box<dyn Translator>) -> Self {
        Self { translator: Some(translator), quantum: QUANTUM_TRANSLATED, ..self }
    }

    /// Lets blocks be translated after they were interpreted `warm` times, not [`WARM`]: at 0 all
    /// that can be is translated before it is run.
    #[must_use]
    pub fn with_warm(self, warm: u32) -> Self {
        Self { warm, ..self }
    }

    /// Lets it count what it does.
    #[must_use]
    pub fn with_counts(mut self, counts: SharedCounts) -> Self {
        self.cpu.native.counts = Some(counts);
        self
    }

    /// Lets what is translated be looked at after each `quantum` instructions at most, 1 to 4000, and
    /// what was being run `hot` times by then be translated with what mostly follows it.
    #[must_use]
    pub fn with_hot(mut self, quantum: u32, hot: u32) -> Self {
        self.cpu.native.quantum = i64::from(quantum).clamp(1, QUANTUM_MOST);
        self.cpu.native.hot = hot.max(1);
        self
    }

    /// Lets others say how large its blocks become.
    #[must_use]
    pub fn with_limits(self, limits: Arc<BlockLimits>) -> Self {
        Self { limits_seen: limits.changes(), limits, ..self }
    }

    /// Follows [`BlockLimits`] if they have changed.
    fn follow_limits(&mut self) {
        let changes = self.limits.changes();
        if std::mem::replace(&mut self.limits_seen, changes) != changes {
            self.warm = self.limits.warm();
            (self.cpu.native.quantum, self.cpu.native.hot) = self.limits.hot();
            (self.cpu.native.cuts, self.cpu.native.chance) = (self.limits.cuts(), 0);
            self.cpu.native.found_hot.clear();
            self.drop_all_blocks();
        }
    }

    fn go(&mut self, session: &mut Session<'_>) -> Exit {
        self.cpu.look = true;
        loop {
            let cpu = &mut *self.cpu;
            if cpu.view.refresh(&cpu.memory) {
                cpu.flush_tlb(false);
            }
            if self.cpu.pending_debug != 0 {
                self.debug_trap(session);
            }
            if self.cpu.look | self.cpu.attention.take()
                && let Some(exit) = self.look_traced(session)
            {
                return exit;
            }
            if session.left == 0 || std::mem::take(&mut self.is_cut) {
                return Exit::Budget;
            }
            // What was delivered may have been pushed onto the code that comes next.
            if self.cpu.code_is_written() {
                self.drop_written_code();
            }
            if std::mem::take(&mut self.cpu.drop_blocks) && self.translator.is_some() {
                self.drop_all_blocks();
            }
            if self.cpu.pending_debug == 0 || self.cpu.shadow != 0 {
                self.advance(session);
            }
        }
    }

    /// Runs some instructions, or one if something is to be done before or after it.
    fn advance(&mut self, session: &mut Session<'_>) {
        let cpu = &mut self.cpu;
        let alone = cpu.system_flags & rflags::TF != 0 || cpu.shadow != 0 || one_by_one();
        if alone || cpu.watches_code(cpu.rip) {
            return self.step(session);
        }
        if cpu.virtual_interrupt_waits() {
            cpu.exception = Exception::gp(0);
            return self.raise(session);
        }
        // What it holds off is not there; an instruction that is completed clears it, and the image
        // that a fault pushes has it set in any case.
        cpu.system_flags &= !rflags::RF;
        match self.current_block(false) {
            Ok(block) => self.run_block(block, session),
            Err(Stop) => self.raise(session),
        }
    }

    /// Runs one instruction, for those before or after which something is to be done.
    fn step(&mut self, session: &mut Session<'_>) {
        let cpu = &mut self.cpu;
        let shadow = std::mem::take(&mut cpu.shadow);
        let resumes = cpu.system_flags & rflags::RF != 0 || shadow & shadow::MOV_SS != 0;
        let hits = if resumes { 0 } else { cpu.code_breakpoints(cpu.rip) };
        if hits != 0 {
            return self.debug_fault(hits, session);
        }
        cpu.system_flags &= !rflags::RF;
        cpu.shadowed = shadow;
        cpu.single_step = cpu.system_flags & rflags::TF != 0;
        let on_branches = cpu.msrs.debugctl & debugctl::BTF != 0;
        let (left, rip) = (session.left, cpu.rip);
        let next = match self.current_block(true) {
            Ok(block) => {
                let next = self.rip_after(block);
                self.run_once(block, session);
                next
            }
            Err(Stop) => {
                self.raise(session);
                None
            }
        };
        let cpu = &mut self.cpu;
        cpu.shadowed = 0;
        cpu.look |= shadow != 0;
        let completed = session.left != left;
        // Between the iterations of a REP, RF is set.
        let branched =
            next != Some(cpu.rip) && (cpu.rip != rip || cpu.system_flags & rflags::RF == 0);
        if completed && cpu.single_step && (branched || !on_branches) {
            cpu.pending_debug |= debug::DR6_BS;
        }
    }

    /// RIP after the only instruction of a block.
    fn rip_after(&self, block: u32) -> Option<u64> {
        let block = self.cache.block(block)?;
        let op = self.cache.ops(block.target).first()?;
        Some(self.cpu.rip_after(block, op))
    }

    /// Runs the block of a single instruction, and no further.
    fn run_once(&mut self, block: u32, session: &mut Session<'_>) {
        let left = std::mem::replace(&mut session.left, 1);
        #[cfg(feature = "planted-bugs")]
        let before = crate::planted::before(&self.cpu, self.cache.block(block));
        self.run_block(block, session);
        #[cfg(feature = "planted-bugs")]
        crate::planted::after(&mut self.cpu, before);
        let used = 1 - session.left.min(1);
        session.left = left - used;
    }

    /// Runs a block and those after it until something else is to be done.
    fn run_block(&mut self, index: u32, session: &mut Session<'_>) {
        let mut start = Position { block: index, op: 0, done: 0 };
        while let Some(position) = self.run_slice(&start, session) {
            match self.serve_traced(&position, session) {
                Served::Resume => start = position,
                Served::Next(next) => start = next,
                Served::Other => return,
            }
        }
    }

    /// Runs operations. Gives where they came back if the operation there is to be served.
    fn run_slice(&mut self, start: &Position, session: &mut Session<'_>) -> Option<Position> {
        let Self { cpu, cache, quantum, .. } = self;
        let block = cache.block(start.block)?;
        let ops = cache.ops(block.target).get(start.op..)?;
        let decoded = cache.decoded_ops(block).get(start.op..)?;
        let before = block.before.get(start.op..)?;
        let base = start.done;
        let wanted = u64::from(block.target.count - base);
        let slice = session.left.min(*quantum);
        let (given, retires) = if wanted <= session.left {
            (ops, wanted)
        } else {
            // The budget ends within the block: take the operations that are within it.
            let end = u64::from(base) + session.left;
            let fits = before.iter().skip(1).take_while(|&&n| u64::from(n) <= end).count();
            let retires = before.get(fits).map_or(wanted, |n| u64::from(n - base));
            (decoded.get(..fits)?, retires)
        };
        let whole = given.len() == ops.len();
        // What stands for a whole block cannot do a part of it.
        let skip = usize::from(!whole && start.op == 0 && block.has_entry);
        let Some((mut op, rest)) = given.get(skip..).and_then(<[Op]>::split_first) else {
            // Not even the first: it is fused of two, or there are some that do nothing before it.
            let off = if start.op == 0 && base == 0 { 0 } else { ops.first()?.off };
            cpu.rip = block.rip.wrapping_add(off as u64) & cpu.ip_mask;
            self.run_one_alone(session);
            return None;
        };
        if start.op != 0 {
            // It was left to the interpreter.
            op = decoded.first()?;
        }
        let first = (slice as i64).min(cpu.native.first_quantum());
        cpu.native.reserve = slice as i64 - first;
        cpu.native.cut = slice as i64 - i64::try_from(session.to_cut).unwrap_or(i64::MAX);
        cpu.native.seen = cpu.code_reader.seen();
        cpu.quantum = first - retires as i64;
        cpu.stop = StopReason::Cut;
        cpu.leave = false;
        (op.run)(cpu, op, rest, block, cache);
        let retired = (slice as i64 - cpu.quantum - cpu.native.reserve) as u64;
        let end = start.op + given.len();
        self.came_back(start.block, end, whole, retired, session)
    }

    /// Runs the instruction at RIP, which is all that the budget has room for.
    fn run_one_alone(&mut self, session: &mut Session<'_>) {
        match self.current_block(true) {
            Ok(block) => self.run_once(block, session),
            Err(Stop) => self.raise(session),
        }
    }

    /// Accounts for a run of operations that came back; `retired` counts all that it was given.
    fn came_back(
        &mut self,
        first: u32,
        given_end: usize,
        whole: bool,
        retired: u64,
        session: &mut Session<'_>,
    ) -> Option<Position> {
        let Self { cpu, cache, .. } = self;
        let block = cache.block(cpu.stop_block)?;
        let cut_short = !whole && cpu.stop_block == first;
        let ops = cache.ops(block.target);
        let end = if cut_short { given_end } else { ops.len() };
        let op_index = end.saturating_sub(cpu.stop_rest + 1);
        let op = ops.get(op_index)?;
        let given = if cut_short {
            block.before.get(end).map_or(block.target.count, |&n| n)
        } else {
            block.target.count
        };
        let before = block.before.get(op_index).copied().unwrap_or_default();
        let not_done = u64::from(given.saturating_sub(before));
        match cpu.stop {
            StopReason::Quantum => session.retire(retired),
            StopReason::Unlinked => {
                session.retire(retired);
                self.link_next();
            }
            StopReason::Hot => {
                session.retire(retired);
                let index = cpu.stop_block;
                self.extend(index);
            }
            StopReason::Cut => {
                session.retire(retired);
                // What does nothing has no operation, but was counted: go on after it.
                let next = ops.get(end).map_or(op.off, |next| next.off);
                cpu.rip = block.rip.wrapping_add(next as u64) & cpu.ip_mask;
            }
            StopReason::Done => {
                session.retire(retired - not_done + 1);
                cpu.rip = cpu.next_rip;
                self.flush_device_stores(session);
            }
            StopReason::Again => {
                session.retire(retired - not_done);
                cpu.rip = block.rip.wrapping_add(op.off as u64) & cpu.ip_mask;
                cpu.system_flags |= rflags::RF;
                self.flush_device_stores(session);
            }
            StopReason::AtCut => {
                session.retire(retired - not_done);
                cpu.rip = block.rip.wrapping_add(op.off as u64) & cpu.ip_mask;
                session.to_cut = NO_CUT;
                self.is_cut = true;
                self.limits.note_cut();
            }
            StopReason::Warm => {
                session.retire(retired - not_done);
                cpu.rip = block.rip;
                let index = block.target.index;
                self.translate(index);
            }
            StopReason::Miss
            | StopReason::Jump
            | StopReason::Anew
            | StopReason::System
            | StopReason::Exception
            | StopReason::MmioRead => {
                session.retire(retired - not_done);
                cpu.rip = block.rip.wrapping_add(op.off as u64) & cpu.ip_mask;
                return Some(Position { block: block.target.index, op: op_index, done: before });
            }
        }
        None
    }

    /// Looks the next block up and links the last one to it.
    fn link_next(&mut self) {
        let (from, slot, rip) = (self.cpu.stop_block, self.cpu.stop_link, self.cpu.rip);
        let single = self.cache.block(from).is_some_and(|b| b.mode.has(crate::cpu::Mode::SINGLE));
        let is_linked = slot != NO_LINK;
        if single || self.cpu.watches_code(rip) || !is_linked && self.translator.is_none() {
            return;
        }
        let before = self.cache.drops();
        // An exception is raised when the loop gets there, with everything accounted for.
        let Ok((to, reach)) = self.find_block(false) else { return };
        let Self { cpu, cache, translator, .. } = self;
        if before != cache.drops() {
            return;
        }
        let reach = if is_linked { cache.link(cpu, from, slot, to, reach) } else { Some(reach) };
        match (translator, reach) {
            (Some(translator), Some(reach)) if is_linked => {
                translator.chain(cpu, (from, slot), to, reach);
            }
            (Some(translator), Some(reach)) => translator.reached(cpu, rip, to, reach),
            _ => {}
        }
    }

    /// Lets translated code know of the block that a jump leads to.
    fn know_jump(&mut self) {
        let Self { cpu, cache, translator, .. } = self;
        let rip = cpu.native.target;
        if let (Some(translator), Some((to, reach))) = (translator, cache.jump_and_reach(cpu, rip))
        {
            translator.reached(cpu, rip, to, reach);
        }
    }

    /// Lets a block be translated.
    fn translate(&mut self, index: u32) {
        let Self { cpu, cache, translator, .. } = self;
        let (Some(translator), Some(block)) = (translator, cache.block(index)) else { return };
        block.cold.set(u32::MAX);
        let translated = translator.translate(cpu, block, cache.decoded_ops(block));
        for cooled in translator.take_cooled() {
            cache.block(cooled).inspect(|block| block.heat.set(0));
        }
        for evicted in translator.take_evicted() {
            cache.restore_ops(evicted, self.warm);
        }
        let fits = match translated {
            Translated::Ops(ops) => cache.replace_ops(index, &ops),
            Translated::Not => true,
        };
        if !fits {
            self.make_room();
        }
    }

    /// Lets a block and those that mostly follow it be translated together.
    fn extend(&mut self, index: u32) {
        let Self { cpu, cache, translator, .. } = self;
        if let Some(translator) = translator {
            translator.extend(cpu, cache, index);
            for evicted in translator.take_evicted() {
                cache.restore_ops(evicted, self.warm);
            }
        }
    }

    /// Does for an operation what it could not do itself.
    fn serve(&mut self, position: &Position, session: &mut Session<'_>) -> Served {
        if self.cpu.stop == StopReason::Miss {
            if let Some(served) = self.access_device(position, session) {
                return served;
            }
            if self.fill_tlb() {
                return Served::Resume;
            }
        }
        match self.cpu.stop {
            StopReason::Jump => {
                self.know_jump();
                return Served::Resume;
            }
            StopReason::Anew => {
                self.translate(position.block);
                return Served::Resume;
            }
            _ => {}
        }
        self.cpu.mmio.forget();
        if self.cpu.stop == StopReason::System && self.call_at_once(position, session) {
            return Served::Other;
        }
        self.serve_with(position, &mut Loans::default(), session)
    }

    /// Calls a system function, which mostly needs no more help than that. Says whether all is done;
    /// else the stop reason says what it wants.
    fn call_at_once(&mut self, position: &Position, session: &mut Session<'_>) -> bool {
        let start = self.cpu.rip;
        self.cpu.native.count(|counts| counts.system += 1);
        let done = self.call_system(position, session).is_ok();
        if done {
            self.flush_device_stores(session);
            session.retire(1);
        } else {
            self.cpu.rip = start;
        }
        done
    }

    /// The same with what it was lent already.
    fn serve_with(
        &mut self,
        position: &Position,
        loans: &mut Loans,
        session: &mut Session<'_>,
    ) -> Served {
        let done = self.finish(position, loans, session);
        self.settle(loans, done == Finish::Completed, session);
        match done {
            Finish::Completed => session.retire(1),
            // What interrupts a REP between its iterations sees RF set.
            Finish::Again => self.cpu.system_flags |= rflags::RF,
            Finish::Exception => self.raise(session),
        }
        Served::Other
    }

    /// Runs one operation to its end, with all the help that it needs.
    fn finish(
        &mut self,
        position: &Position,
        loans: &mut Loans,
        session: &mut Session<'_>,
    ) -> Finish {
        let start = self.cpu.rip;
        loop {
            let helped = match self.cpu.stop {
                StopReason::Miss => self.lend(loans, session),
                StopReason::MmioRead => self.provide(session),
                StopReason::System => match self.call_system(position, session) {
                    Ok(()) => return Finish::Completed,
                    Err(Stop) if self.cpu.stop == StopReason::MmioRead => self.provide(session),
                    Err(Stop) => return self.failed(start),
                },
                _ => return self.failed(start),
            };
            if helped.is_err() {
                return self.failed(start);
            }
            if self.run_alone(position) {
                return Finish::Completed;
            }
            self.cpu.rip = start;
        }
    }

    /// Begins an operation again, alone. Whether it is complete; RIP is then that of the next.
    fn run_alone(&mut self, position: &Position) -> bool {
        let Self { cpu, cache, .. } = self;
        let Some(block) = cache.block(position.block) else { return false };
        let Some(op) = cache.decoded_ops(block).get(position.op) else { return false };
        cpu.mmio.rewind();
        cpu.stop = StopReason::Cut;
        cpu.leave = false;
        (cpu.quantum, cpu.native.reserve) = (0, 0);
        (op.run)(cpu, op, &[], block, cache);
        match cpu.stop {
            StopReason::Cut => cpu.rip = cpu.rip_after(block, op),
            StopReason::Done => cpu.rip = cpu.next_rip,
            StopReason::Quantum | StopReason::Unlinked => {}
            _ => return false,
        }
        true
    }

    fn call_system(&mut self, position: &Position, session: &mut Session<'_>) -> Result<(), Stop> {
        let Self { cpu, cache, .. } = self;
        let block = cache.block(position.block).ok_or(Stop)?;
        let ops = cache.decoded_ops(block);
        let (Some(op), Some(system)) = (ops.get(position.op), block.system) else {
            return Err(cpu.raise(Exception::ud()));
        };
        cpu.next_rip = cpu.rip.wrapping_add(u64::from(op.len)) & cpu.ip_mask;
        cpu.mmio.rewind();
        cpu.stop = StopReason::System;
        let result = system(cpu, op, session.bus());
        if result.is_ok() {
            cpu.rip = cpu.next_rip;
        } else if cpu.stop == StopReason::System {
            cpu.stop = StopReason::Again;
        }
        result
    }

    fn failed(&mut self, start: u64) -> Finish {
        self.cpu.rip = start;
        if self.cpu.stop == StopReason::Again { Finish::Again } else { Finish::Exception }
    }

    /// Fetches the device register that a function asks for.
    fn provide(&mut self, session: &mut Session<'_>) -> Result<(), Stop> {
        let wanted = self.cpu.mmio.wanted;
        let mut bytes = [0; 16];
        session.bus().mmio_read(wanted.gpa, &mut bytes[..usize::from(wanted.size.min(16))]);
        self.cpu.mmio.provide(bytes);
        // A system function is called again by `finish`, others are run again.
        Ok(())
    }

    /// Hands the stores of an instruction to the devices.
    fn flush_device_stores(&mut self, session: &mut Session<'_>) {
        if !self.cpu.mmio.is_used() {
            return;
        }
        for (access, bytes) in self.cpu.mmio.stores() {
            let len = usize::from(access.size.min(16));
            session.bus().mmio_write(access.gpa, &bytes[..len]);
        }
        self.cpu.mmio.forget();
    }
}

/// Whether every instruction is to be run alone.
fn one_by_one() -> bool {
    #[cfg(feature = "planted-bugs")]
    return crate::planted::any();
    #[cfg(not(feature = "planted-bugs"))]
    false
}

/// What became of a position that was to be served.
enum Served {
    /// Go on there.
    Resume,
    /// It is done, and this is next.
    Next(Position),
    /// Look at RIP.
    Other,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    Completed,
    /// To be begun again after a look at what others want.
    Again,
    /// `Cpu::exception` is to be delivered.
    Exception,
}

impl Vcpu for Interpreter {
    fn run(&mut self, bus: &dyn CpuBus, budget: Budget) -> Result<Exit, CpuError> {
        let (left, traced) = (budget.instructions, bus.traces_exits());
        let to_cut = self.limits.take_cut().unwrap_or(self.to_cut);
        let mut session = Session { bus, left, unreported: 0, traced, to_cut };
        let exit = self.go(&mut session);
        session.bus();
        self.to_cut = session.to_cut;
        let retired = budget.instructions - session.left;
        self.cpu.native.count(|counts| counts.retired += retired);
        Ok(exit)
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.cpu.attention.clone()
    }

    fn save(&mut self) -> Result<CpuState, CpuError> {
        Ok(self.cpu.state())
    }

    fn load(&mut self, state: &CpuState) -> Result<(), CpuError> {
        #[cfg(feature = "planted-bugs")]
        let state = &crate::planted::load(state);
        self.follow_limits();
        self.cpu.put_state(state);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { exact_budget: true }
    }
}

impl Interpreter {
    /// Whether the CPU waits for something.
    fn waiting(&self) -> Option<Exit> {
        match self.cpu.activity {
            Activity::Running => None,
            Activity::Halted => Some(Exit::Halted),
            Activity::WaitForSipi => Some(Exit::WaitForSipi),
            Activity::Shutdown => Some(Exit::Shutdown),
        }
    }
}
