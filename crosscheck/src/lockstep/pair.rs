//! Two machines, and the last state in which they agreed.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, FlowControl};
use trivium_chipset::VmTime;
use trivium_cpu::CpuState;
use trivium_cpu::bits::{efer, rflags};
use trivium_cpu::state::{CS, SegmentAttributes};
use trivium_machine::{BlockLimits, Frozen, Machine, MachineError, MachineState, RunEnd};

use super::history::History;
use super::locate::{Blocks, USUAL};
use super::{LockstepError, Sync, tables};

const PAGE: usize = trivium_memory::PAGE_SIZE as usize;

/// The longest way from one exit of a CPU to the next, in nanoseconds.
const LONGEST: u64 = 100_000_000;
/// Instructions within which it is seen whether something comes of flags that differ.
const SETTLED: u32 = 256;
/// More differences than anyone reads.
const MOST_SHOWN: usize = 40;

/// One of two machines.
pub struct Side {
    /// What its CPU is called.
    pub name: String,
    /// The machine.
    pub machine: Machine,
    /// What its CPU was made with as [`trivium_machine::MachineConfig::blocks`].
    pub blocks: Arc<BlockLimits>,
    /// Called with true before it runs and with false after that: for tests, which break one of the
    /// two.
    pub around: Option<Box<dyn FnMut(bool)>>,
}

impl Side {
    pub(super) fn run(
        &mut self,
        run: impl FnOnce(&mut Machine) -> Result<Option<RunEnd>, MachineError>,
    ) -> Result<Option<RunEnd>, LockstepError> {
        if let Some(around) = &mut self.around {
            around(true);
        }
        let end = run(&mut self.machine);
        if let Some(around) = &mut self.around {
            around(false);
        }
        Ok(end?)
    }

    fn page(&self, page: usize, bytes: &mut [u8; PAGE]) {
        self.machine.memory().ram().read_slice(page * PAGE, bytes);
    }

    /// The pages that hold page tables of these processors.
    fn tables(&self, cpus: &[CpuState]) -> BTreeSet<usize> {
        let pages = self.machine.ram_size() as usize / PAGE;
        let read = |page, bytes: &mut [u8; PAGE]| {
            let is_there = page < pages;
            if is_there {
                self.page(page, bytes);
            }
            is_there
        };
        cpus.iter().flat_map(|cpu| tables::pages(cpu, read)).collect()
    }
}

/// How the runs of two machines ended, if they did.
pub type Ends = [Option<RunEnd>; 2];

/// Two machines, and the last state in which they agreed.
pub struct Pair {
    /// The machines.
    pub sides: [Side; 2],
    /// The state in which they agreed, but for RAM.
    frozen: Frozen,
    /// RAM in that state.
    ram: Vec<u8>,
    /// The pages that have been written since.
    touched: BTreeSet<usize>,
    /// The bits of RFLAGS that may differ.
    pub(super) tolerated: u64,
    /// What differed when they were last compared, and may.
    vague: Vague,
    /// How blocks are made.
    pub(super) present_blocks: Cell<Blocks>,
    /// What leads back to the state before the last in which they agreed, if nothing has come from
    /// outside since.
    earlier: Option<Undo>,
    /// How they came here.
    pub(super) history: History,
}

/// Pages of RAM by number, and what is in them.
pub(super) type Pages = Vec<(usize, Box<[u8; PAGE]>)>;

/// What brings an earlier agreed state back.
pub(super) struct Undo {
    frozen: Frozen,
    pages: Pages,
}

impl Pair {
    /// Two machines of the same configuration that have run as far as each other.
    ///
    /// # Errors
    /// A CPU's host interface failed.
    pub fn new(mut sides: [Side; 2]) -> Result<Self, LockstepError> {
        let frozen = sides[0].machine.freeze()?;
        let size = sides[0].machine.ram_size() as usize;
        let ram = vec![0; size];
        let (touched, vague) = (BTreeSet::new(), Vague::default());
        let (tolerated, present_blocks) = (rflags::STATUS, Cell::new(USUAL));
        let (earlier, history) = (None, History::default());
        Ok(Self { sides, frozen, ram, touched, tolerated, vague, present_blocks, earlier, history })
    }

    /// The first machine's time.
    #[must_use]
    pub fn now(&self) -> VmTime {
        self.sides[0].machine.now()
    }

    /// The moment at which they last agreed.
    pub(super) fn agreed(&self) -> VmTime {
        self.frozen.now
    }

    /// The first processor as it was when they last agreed.
    pub(super) fn agreed_cpu(&self) -> CpuState {
        self.frozen.cpus.first().copied().unwrap_or_default()
    }

    /// The first machine's first processor.
    pub(super) fn first_cpu(&mut self) -> Result<CpuState, LockstepError> {
        Ok(self.sides[0].machine.freeze()?.cpus.first().copied().unwrap_or_default())
    }

    pub(super) fn pages(&self) -> usize {
        self.ram.len() / PAGE
    }

    fn agreed_page(&self, page: usize) -> &[u8] {
        self.ram.get(page * PAGE..(page + 1) * PAGE).unwrap_or_default()
    }

    /// Whether a page had anything but zeroes in it when they last agreed.
    pub(super) fn has_content(&self, page: usize) -> bool {
        self.agreed_page(page).iter().any(|&byte| byte != 0)
    }

    /// Compares everything, as both machines begin.
    pub(super) fn begin(&mut self) -> Result<(), LockstepError> {
        self.touched = (0..self.pages()).collect();
        let differences = self.differences(&[None, None])?;
        if let Some(first) = differences.first() {
            return Err(LockstepError::Start(first.clone()));
        }
        let frozen = self.sides[0].machine.freeze()?;
        let mut pages = Vec::new();
        let mut bytes = Box::new([0; PAGE]);
        for page in 0..self.pages() {
            self.sides[0].page(page, &mut bytes);
            if bytes.iter().any(|&byte| byte != 0) {
                pages.push((page, bytes.clone()));
            }
        }
        self.history = History::new(frozen, pages);
        Ok(())
    }

    /// Brings both machines back to where they began.
    pub(super) fn begin_again(&mut self) -> Result<(), LockstepError> {
        let Some((frozen, pages)) = self.history.start() else { return Ok(()) };
        let filled: Vec<usize> = (0..self.pages()).filter(|&page| self.has_content(page)).collect();
        self.take_out(&filled);
        self.put_back(pages);
        self.frozen = frozen;
        self.touched.extend(0..self.pages());
        self.set_blocks(self.present_blocks.get());
        self.roll_back()
    }

    /// Takes the pages that were written since the last call.
    fn note_written(&mut self) -> Result<(), LockstepError> {
        for side in &mut self.sides {
            self.touched.extend(side.machine.take_dirty()?);
        }
        Ok(())
    }

    /// The present state, in which both agree, is the one to come back to.
    pub(super) fn commit(&mut self) -> Result<Undo, LockstepError> {
        self.note_written()?;
        let [first, second] = &mut self.sides;
        let frozen = first.machine.freeze()?;
        // Whoever freezes has taken the input that it was given.
        second.machine.freeze()?;
        let mut pages = Vec::new();
        let mut bytes = [0; PAGE];
        for page in std::mem::take(&mut self.touched) {
            first.page(page, &mut bytes);
            let agreed = &mut self.ram[page * PAGE..(page + 1) * PAGE];
            if *agreed != bytes {
                let mut old = Box::new([0; PAGE]);
                old.copy_from_slice(agreed);
                pages.push((page, old));
                agreed.copy_from_slice(&bytes);
            }
        }
        Ok(Undo { frozen: std::mem::replace(&mut self.frozen, frozen), pages })
    }

    /// Goes on from the present state, in which both agree; `alone` says that nothing has come from
    /// outside since the last.
    pub(super) fn go_on(&mut self, alone: bool) -> Result<(), LockstepError> {
        let undo = self.commit()?;
        self.earlier = alone.then_some(undo);
        Ok(())
    }

    /// The state to come back to is the one before it, if there is one.
    pub(super) fn go_back_further(&mut self) -> bool {
        let earlier = self.earlier.take();
        let is_there = earlier.is_some();
        if let Some(earlier) = earlier {
            self.undo(earlier);
        }
        is_there
    }

    /// An earlier state is the one to come back to.
    pub(super) fn undo(&mut self, undo: Undo) {
        self.put_back(undo.pages);
        self.frozen = undo.frozen;
    }

    /// Brings both machines back to where they agreed.
    pub(super) fn roll_back(&mut self) -> Result<(), LockstepError> {
        self.note_written()?;
        self.vague = Vague::default();
        let touched = std::mem::take(&mut self.touched);
        let mut bytes = [0; PAGE];
        for side in &mut self.sides {
            for &page in &touched {
                side.page(page, &mut bytes);
                let agreed = &self.ram[page * PAGE..(page + 1) * PAGE];
                if bytes != *agreed {
                    side.machine.memory().write_arena(page * PAGE, agreed);
                }
            }
            side.machine.thaw(&self.frozen)?;
            // What was just put back.
            side.machine.take_dirty()?;
        }
        Ok(())
    }

    /// Empties pages of the state to come back to. Gives what was in them.
    pub(super) fn take_out(&mut self, pages: &[usize]) -> Pages {
        let mut taken = Vec::new();
        for &page in pages {
            let mut old = Box::new([0; PAGE]);
            let agreed = &mut self.ram[page * PAGE..(page + 1) * PAGE];
            old.copy_from_slice(agreed);
            agreed.fill(0);
            taken.push((page, old));
            self.touched.insert(page);
        }
        taken
    }

    /// Puts back what pages of that state had in them.
    pub(super) fn put_back(&mut self, pages: Pages) {
        for (page, old) in pages {
            self.ram[page * PAGE..(page + 1) * PAGE].copy_from_slice(&old[..]);
            self.touched.insert(page);
        }
    }

    /// The whole state to come back to, which both machines are then in.
    pub(super) fn state(&mut self) -> Result<MachineState, LockstepError> {
        self.roll_back()?;
        Ok(self.sides[0].machine.save()?)
    }

    /// Runs one machine up to a moment, or until its translated code comes between two instructions
    /// after so many.
    pub(super) fn run_to_cut(
        &mut self,
        side: usize,
        instructions: u64,
        moment: VmTime,
    ) -> Result<Option<RunEnd>, LockstepError> {
        let Some(side) = self.sides.get_mut(side) else { return Ok(None) };
        side.blocks.cut_after(instructions);
        side.run(|machine| machine.run_to_cut(moment))
    }

    /// Runs both machines up to a moment.
    pub(super) fn run_until(&mut self, moment: VmTime) -> Result<Ends, LockstepError> {
        let mut ends = [None, None];
        for (side, end) in self.sides.iter_mut().zip(&mut ends) {
            *end = side.run(|machine| machine.run_here(moment))?;
        }
        Ok(ends)
    }

    /// Runs both machines to the next point of comparison.
    pub(super) fn advance(&mut self, sync: Sync) -> Result<Ends, LockstepError> {
        let now = self.now();
        match sync {
            Sync::Every(count) => self.run_until(now.saturating_add(count.max(1))),
            Sync::Block => {
                let count = self.block_length();
                self.run_until(now.saturating_add(count))
            }
            Sync::Exit => {
                let limit = now.saturating_add(LONGEST);
                let [first, second] = &mut self.sides;
                let end = first.run(|machine| machine.run_to_exit(limit))?;
                let now = first.machine.now();
                Ok([end, second.run(|machine| machine.run_here(now))?])
            }
        }
    }

    /// Instructions in the basic block that the guest is at; those that can be read at once.
    fn block_length(&self) -> u64 {
        let state = self.agreed_cpu();
        let code = self.sides[0].machine.code_at_rip(&state);
        let mut count = 0;
        for instruction in Decoder::new(bitness(&state), &code, DecoderOptions::NONE) {
            if instruction.is_invalid() {
                break;
            }
            count += 1;
            if instruction.flow_control() != FlowControl::Next {
                break;
            }
        }
        count.max(1)
    }

    /// In what the machines differ, a line each, but for what may.
    pub(super) fn differences(&mut self, ends: &Ends) -> Result<Vec<String>, LockstepError> {
        self.note_written()?;
        self.vague = Vague::default();
        let [first, second] = &mut self.sides;
        let (one, mut other) = (first.machine.freeze()?, second.machine.freeze()?);
        let mut all = Vec::new();
        if ends[0] != ends[1] {
            all.push(format!("end: {} and {}", name_of(&ends[0]), name_of(&ends[1])));
        }
        for (this, that) in one.cpus.iter().zip(&mut other.cpus) {
            self.vague.take_registers(this, that, self.tolerated);
        }
        if one != other {
            all.extend(one.differences(&other));
        }
        let (mut here, mut there) = ([0; PAGE], [0; PAGE]);
        let mut tables = None;
        for &page in &self.touched {
            first.page(page, &mut here);
            second.page(page, &mut there);
            if here != there {
                let tables = tables.get_or_insert_with(|| first.tables(&one.cpus));
                self.vague.take_page(&here, &mut there, tables.contains(&page));
            }
            if here != there && all.len() < MOST_SHOWN {
                all.push(in_page(page, &here, &there));
            }
        }
        Ok(all)
    }

    /// Where they differed in what may differ when they were last compared: goes on for a while,
    /// until it is seen whether something comes of it. Gives in what they differ then; if it is
    /// nothing, the second machine is made equal to the first.
    pub(super) fn settle(&mut self, ends: &mut Ends) -> Result<Vec<String>, LockstepError> {
        let mut steps = 0;
        while self.vague.flags != 0 && steps < SETTLED && *ends == [None, None] {
            let next = self.now().saturating_add(1);
            *ends = self.run_until(next)?;
            let what = self.differences(ends)?;
            if !what.is_empty() {
                return Ok(what);
            }
            steps += 1;
        }
        if self.vague != Vague::default() {
            self.make_equal()?;
        }
        Ok(Vec::new())
    }

    /// The second machine goes on from the first one's state.
    fn make_equal(&mut self) -> Result<(), LockstepError> {
        let (mut here, mut there) = ([0; PAGE], [0; PAGE]);
        let [first, second] = &mut self.sides;
        for &page in &self.touched {
            first.page(page, &mut here);
            second.page(page, &mut there);
            if here != there {
                second.machine.memory().write_arena(page * PAGE, &here);
            }
        }
        let state = first.machine.freeze()?;
        Ok(second.machine.thaw(&state)?)
    }

    /// The bits of RFLAGS in which they differed when they were last compared.
    pub(super) fn vague_flags(&self) -> u64 {
        self.vague.flags
    }

    /// Whether they differed at all in what may differ.
    pub(super) fn is_vague(&self) -> bool {
        self.vague != Vague::default()
    }
}

fn name_of(end: &Option<RunEnd>) -> String {
    match end {
        None => "goes on".to_owned(),
        Some(RunEnd::Shutdown { .. }) => "triple fault".to_owned(),
        Some(end) => format!("{end:?}"),
    }
}

/// The first place at which two pages differ.
fn in_page(page: usize, here: &[u8; PAGE], there: &[u8; PAGE]) -> String {
    let same = here.iter().zip(there).take_while(|(a, b)| a == b).count();
    // 8 bytes each, as a number.
    let number = |bytes: &[u8; PAGE]| {
        let mut all: Vec<_> = bytes.iter().skip(same & !7).take(8).copied().collect();
        all.reverse();
        all.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let at = page * PAGE + (same & !7);
    format!("ram.{at:#x}: {} and {}", number(here), number(there))
}

/// What differs and may: flags that the manuals leave undefined, their images where RFLAGS was
/// stored, and accessed flags of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Vague {
    /// Bits of RFLAGS.
    flags: u64,
    /// There are images.
    images: bool,
    /// There are pages that have been accessed early.
    accessed: bool,
}

/// Bits of RFLAGS that are not there, or always zero.
const NO_FLAGS: u64 = !0x3f_7fd7;

/// Whether two values are images of RFLAGS that differ in arithmetic flags alone.
fn are_images(this: u64, that: u64) -> bool {
    let is_image = |value: u64| value & NO_FLAGS == 0 && value & rflags::FIXED != 0;
    is_image(this) && is_image(that) && (this ^ that) & !rflags::STATUS == 0
}

impl Vague {
    /// Notes in what two processors may differ, and makes it equal.
    fn take_registers(&mut self, this: &CpuState, that: &mut CpuState, tolerated: u64) {
        let differing = (this.general.rflags ^ that.general.rflags) & rflags::STATUS;
        self.flags |= differing & tolerated;
        that.general.rflags ^= differing & tolerated;
        for (&this, that) in this.general.regs.iter().zip(&mut that.general.regs) {
            if this != *that && are_images(this, *that) {
                self.images = true;
                *that = this;
            }
        }
    }

    /// The same of two pages, which may be a table's.
    fn take_page(&mut self, this: &[u8; PAGE], that: &mut [u8; PAGE], is_table: bool) {
        for (this, that) in this.as_chunks::<4>().0.iter().zip(that.as_chunks_mut::<4>().0) {
            if this == that {
                continue;
            }
            let (one, other) = (u32::from_le_bytes(*this), u32::from_le_bytes(*that));
            let accessed = is_table && tables::differ_in_accessed(one, other);
            let images = are_images(one.into(), other.into());
            self.accessed |= accessed;
            self.images |= images;
            if accessed || images {
                *that = *this;
            }
        }
    }
}

/// Width of the code that a processor is in.
pub(super) fn bitness(state: &CpuState) -> u32 {
    let attributes = state.segments.regs[CS].attributes;
    let long = state.control.efer & efer::LMA != 0 && attributes.has(SegmentAttributes::L);
    match (long, attributes.has(SegmentAttributes::DB)) {
        (true, _) => 64,
        (_, true) => 32,
        _ => 16,
    }
}
