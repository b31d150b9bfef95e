//! What others may see of the JIT's work: counts, listings, a map for perf. Nothing of it is in
//! translated code; without an observer nothing is noted.

mod dump;
mod explain;
mod listing;
mod perf;
mod report;
mod statistics;
#[cfg(test)]
mod tests;
mod why;

use std::sync::Arc;
use std::time::Instant;

use iced_x86::{Instruction, Mnemonic};
use trivium_interp::Cpu;
use trivium_interp::block::{Block, BlockCache, Dropped};
use trivium_interp::next;
use trivium_interp::op::Op;

use crate::analyse::instructions;
use crate::code::CodeError;
use crate::emit::Finished;
use crate::host::Host;
use crate::options::JitOptions;
use dump::Dump;
use listing::{Listing, Step};
use perf::PerfMap;
use statistics::{Note, OpNote};
use why::Why;

pub use explain::{Code, ExplainError, explain};
pub use report::Report;
pub use statistics::Statistics;

/// Who looks on.
pub(crate) struct Observer(Option<Box<Observers>>);

struct Observers {
    statistics: Option<Arc<Statistics>>,
    dump: Option<Dump>,
    perf: Option<PerfMap>,
    /// Of the present block.
    steps: Vec<Step>,
    began: Instant,
    host: Host,
}

impl Observer {
    /// Those that are wanted.
    pub(crate) fn new(options: &JitOptions) -> Result<Self, CodeError> {
        if options.statistics.is_none() && options.dump.is_none() && !options.perf_map {
            return Ok(Self(None));
        }
        let statistics = options.statistics.clone();
        if let Some(statistics) = &statistics {
            // Another translator may have counted before.
            statistics.forget_all();
        }
        let dump = options.dump.as_deref().map(Dump::new).transpose();
        let dump = dump.map_err(CodeError::Dump)?;
        let perf = options.perf_map.then(PerfMap::new).transpose().map_err(CodeError::PerfMap)?;
        let (steps, began, host) = (Vec::new(), Instant::now(), options.host);
        Ok(Self(Some(Box::new(Observers { statistics, dump, perf, steps, began, host }))))
    }

    /// One that collects listings.
    pub(crate) fn collecting() -> Self {
        let (steps, began, host) = (Vec::new(), Instant::now(), Host::default());
        let dump = Some(Dump::collecting());
        Self(Some(Box::new(Observers { statistics: None, dump, perf: None, steps, began, host })))
    }

    /// What was collected, if there was anything.
    pub(crate) fn collected(&mut self) -> Option<String> {
        self.0.as_mut()?.dump.as_mut()?.collected()
    }

    /// Routines lie at an address.
    pub(crate) fn routines(&mut self, at: u64, len: usize) {
        if let Some(perf) = self.0.as_mut().and_then(|o| o.perf.as_mut()) {
            perf.name(at, len, "trivium-jit-routines");
        }
    }

    /// A translation begins.
    pub(crate) fn begin(&mut self) {
        if let Some(observers) = &mut self.0 {
            observers.steps.clear();
            observers.began = Instant::now();
        }
    }

    /// The code of an instruction begins at an offset; the interpreter has it if `left`.
    pub(crate) fn step(
        &mut self,
        cpu: &Cpu,
        block: &Block,
        (instruction, op): (&Instruction, u8),
        offset: usize,
        left: bool,
    ) {
        if let Some(observers) = &mut self.0 {
            let why = left.then(|| Why::of(cpu, instruction, block.mode, observers.host));
            observers.steps.push(Step { instruction: *instruction, op, offset, why });
        }
    }

    /// A block is translated: its code is at these addresses, and these operations lead there.
    pub(crate) fn translated(
        &mut self,
        block: &Block,
        finished: &Finished,
        (hot, cold): (u64, u64),
        entries: &[(u8, Op)],
    ) {
        let Some(observers) = &mut self.0 else { return };
        if let Some(statistics) = &observers.statistics {
            let time = observers.began.elapsed();
            let mut work = statistics.work();
            work.time += time;
            drop(work);
            statistics.forget(block.target.index);
            note(statistics, block, &observers.steps, finished, entries);
        }
        let (hot, cold) = ((hot, finished.hot()), (cold, finished.cold()));
        if let Some(perf) = &mut observers.perf {
            perf.block(block, "", (hot.0, hot.1.len()), (cold.0, cold.1.len()));
        }
        if let Some(dump) = &mut observers.dump {
            dump.write(&Listing { block, what: "block", steps: &observers.steps, hot, cold });
        }
    }

    /// Blocks that follow each other are translated together; this is the first of them.
    pub(crate) fn superblock(&mut self, first: &Block, finished: &Finished, at: (u64, u64)) {
        let Some(observers) = &mut self.0 else { return };
        let steps = &observers.steps;
        if let Some(statistics) = &observers.statistics {
            let time = observers.began.elapsed();
            let mut work = statistics.work();
            work.superblocks += 1;
            work.superblock_instructions += steps.len() as u64;
            work.superblock_hot_bytes += finished.hot().len() as u64;
            work.superblock_cold_bytes += finished.cold().len() as u64;
            work.superblock_time += time;
        }
        let (hot, cold) = ((at.0, finished.hot()), (at.1, finished.cold()));
        if let Some(perf) = &mut observers.perf {
            perf.block(first, " superblock", (hot.0, hot.1.len()), (cold.0, cold.1.len()));
        }
        if let Some(dump) = &mut observers.dump {
            dump.write(&Listing { block: first, what: "superblock", steps, hot, cold });
        }
    }

    /// A block is not translated. Gives what its first operation is to be, if it is to count.
    pub(crate) fn refused(&mut self, cpu: &Cpu, block: &Block, ops: &[Op]) -> Option<Op> {
        let observers = self.0.as_mut()?;
        let statistics = observers.statistics.as_ref()?;
        statistics.forget(block.target.index);
        let mut list = vec![OpNote::NONE; ops.len()];
        let mut guests = Vec::new();
        instructions(cpu, block, ops, &mut guests);
        for guest in guests {
            let why = Why::of(cpu, &guest.instruction, block.mode, observers.host);
            if let Some(note) = list.get_mut(usize::from(guest.op))
                && note.mnemonic == Mnemonic::INVALID
            {
                let mnemonic = guest.instruction.mnemonic();
                *note = OpNote { mnemonic, why: Some(why), enters: false };
            }
        }
        let mut work = statistics.work();
        work.refused += 1;
        let place = (block.rip, block.mode.0);
        work.note(block.target.index, Note { place, ops: list, refused: true });
        Some(Op { run: counted, ..*ops.first()? })
    }

    /// The code of these blocks was given up to make room.
    pub(crate) fn evicted(&mut self, blocks: &[u32]) {
        let Some(statistics) = self.0.as_ref().and_then(|o| o.statistics.as_ref()) else { return };
        let mut work = statistics.work();
        work.regions += u64::from(!blocks.is_empty());
        work.evicted += blocks.len() as u64;
        drop(work);
        blocks.iter().for_each(|&block| statistics.forget(block));
    }

    /// Blocks are no more.
    pub(crate) fn forgotten(&mut self, dropped: &Dropped) {
        let Some(statistics) = self.0.as_ref().and_then(|o| o.statistics.as_ref()) else { return };
        match dropped {
            Dropped::None => {}
            Dropped::Some(list) => {
                statistics.work().dropped += list.len() as u64;
                list.iter().for_each(|&block| statistics.forget(block));
            }
            Dropped::All => {
                statistics.work().all_dropped += 1;
                statistics.forget_all();
            }
        }
    }
}

/// Counts a translated block.
fn note(
    statistics: &Statistics,
    block: &Block,
    steps: &[Step],
    finished: &Finished,
    entries: &[(u8, Op)],
) {
    let mut ops = vec![OpNote::NONE; usize::from(block.target.len)];
    for step in steps {
        if let Some(note) = ops.get_mut(usize::from(step.op)) {
            if note.mnemonic == Mnemonic::INVALID {
                note.mnemonic = step.instruction.mnemonic();
            }
            note.why = note.why.or(step.why);
        }
    }
    for (op, _) in entries {
        if let Some(note) = ops.get_mut(usize::from(*op)) {
            note.enters = true;
        }
    }
    let guest_bytes: usize = steps.iter().map(|step| step.instruction.len()).sum();
    let (hot, cold) = (finished.hot().len() as u64, finished.cold().len() as u64);
    let place = (block.rip, block.mode.0);
    let mut work = statistics.work();
    work.blocks += 1;
    work.instructions += u64::from(block.target.count);
    work.guest_bytes += guest_bytes as u64;
    work.hot_bytes += hot;
    work.cold_bytes += cold;
    let known = work.places.entry(place).or_default();
    known.translations += 1;
    known.instructions = block.target.count.into();
    known.guest_bytes = guest_bytes as u64;
    known.host_bytes = hot + cold;
    let again = known.translations > 1;
    work.again += u64::from(again);
    work.note(block.target.index, Note { place, ops, refused: false });
}

/// The first operation of a block that is not translated, where that is counted.
fn counted(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    count_refused(cpu, block);
    next!(cpu, rest, block, links)
}

#[inline(never)]
fn count_refused(cpu: &Cpu, block: &Block) {
    cpu.native.count(|counts| counts.resume(block.target.index, 0));
}
