//! What `--jit-stats` shows: as text, and as data.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;
use trivium_interp::counts::Counts;

use super::statistics::Work;
use crate::enter::EXIT_NAMES;

/// How many instructions and blocks the text shows.
const SHOWN: usize = 20;
/// The same of the data.
const LISTED: usize = 200;

/// A run, in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was translated.
    pub translated: TranslatedReport,
    /// What of it was translated once more, together.
    pub superblocks: SuperblocksReport,
    /// What was given up of it.
    pub dropped: DroppedReport,
    /// Who did the guest's instructions.
    pub instructions: InstructionsReport,
    /// How often translated code was entered.
    pub entered: u64,
    /// Guest instructions that it did each time.
    pub instructions_per_entry: f64,
    /// Why it was left, most frequent first.
    pub exits: Vec<ExitReport>,
    /// Loads and stores that translated code and handlers could not do.
    pub memory: MemoryReport,
    /// What the interpreter was called for.
    pub helpers: HelpersReport,
    /// Instructions of blocks worth translating that the interpreter did, most frequent first.
    pub interpreted: Vec<InterpretedReport>,
    /// Where the guest spends its time, by samples.
    pub top_blocks: Vec<BlockReport>,
}

/// What was translated.
#[derive(Debug, Clone, Serialize)]
pub struct TranslatedReport {
    /// Blocks.
    pub blocks: u64,
    /// Blocks among them at addresses where others had been: their code had changed or is of another
    /// process, or they were given up, or translated in another way.
    pub again: u64,
    /// Blocks that could not be: the interpreter's.
    pub refused: u64,
    /// Guest instructions.
    pub instructions: u64,
    /// Their bytes.
    pub guest_bytes: u64,
    /// Bytes of host code that is often run.
    pub hot_bytes: u64,
    /// Bytes of host code that is seldom run.
    pub cold_bytes: u64,
    /// Bytes of both for a byte of the guest's.
    pub bytes_per_guest_byte: f64,
    /// The same of the code that is often run.
    pub hot_bytes_per_guest_byte: f64,
    /// Time that it took.
    pub nanoseconds: u64,
    /// The same for each guest instruction.
    pub ns_per_instruction: f64,
}

/// Blocks that follow each other and were translated together.
#[derive(Debug, Clone, Serialize)]
pub struct SuperblocksReport {
    /// How many there were.
    pub count: u64,
    /// Guest instructions in them; those of loops several times.
    pub instructions: u64,
    /// Bytes of host code that is often run.
    pub hot_bytes: u64,
    /// Bytes of host code that is seldom run.
    pub cold_bytes: u64,
    /// Time that it took.
    pub nanoseconds: u64,
    /// The same for each guest instruction.
    pub ns_per_instruction: f64,
}

/// What was given up.
#[derive(Debug, Clone, Serialize)]
pub struct DroppedReport {
    /// Blocks, because their code changed or they were translated anew.
    pub blocks: u64,
    /// How often all were, because memory for them was full or the state was loaded.
    pub all: u64,
    /// Regions of code memory, to make room.
    pub regions: u64,
    /// Blocks that were in these.
    pub evicted: u64,
}

/// Who did the guest's instructions.
#[derive(Debug, Clone, Serialize)]
pub struct InstructionsReport {
    /// All.
    pub all: u64,
    /// Translated code.
    pub translated: u64,
    /// The interpreter.
    pub interpreted: u64,
    /// What part of all translated code did.
    pub translated_percent: f64,
}

/// How often translated code was left for a reason.
#[derive(Debug, Clone, Serialize)]
pub struct ExitReport {
    /// The reason.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// Loads and stores that needed help.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryReport {
    /// By a page walk, which filled a TLB entry.
    pub tlb_misses: u64,
    /// Otherwise: across pages, to code, to what is watched, and those that raised exceptions.
    pub lent: u64,
    /// Those of device registers.
    pub device: u64,
}

/// What the interpreter was called for.
#[derive(Debug, Clone, Serialize)]
pub struct HelpersReport {
    /// Operations that it did for translated code.
    pub operations: u64,
    /// System instructions.
    pub system: u64,
    /// Exceptions and interrupts that it delivered.
    pub events: u64,
}

/// An instruction that the interpreter did.
#[derive(Debug, Clone, Serialize)]
pub struct InterpretedReport {
    /// Its mnemonic.
    pub mnemonic: String,
    /// Why it was not translated, or not executed where it was.
    pub why: String,
    /// How often it was executed.
    pub executed: u64,
    /// In how many places it was met while translating.
    pub places: u64,
}

/// A block.
#[derive(Debug, Clone, Serialize)]
pub struct BlockReport {
    /// Where it begins, in hexadecimal.
    pub rip: String,
    /// Width of its code: 16, 32 or 64.
    pub bits: u32,
    /// Of user code, at privilege level 3.
    pub user: bool,
    /// How often the processor was found there.
    pub samples: u64,
    /// What part of all samples that is.
    pub percent: f64,
    /// Guest instructions; 0 if it is not translated.
    pub instructions: u64,
    /// Their bytes.
    pub guest_bytes: u64,
    /// Bytes of the host's code for it.
    pub host_bytes: u64,
    /// How often it was translated.
    pub translations: u64,
    /// How often the interpreter had to do something of it.
    pub exits: u64,
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Report {
    pub(super) fn new(counts: &Counts, work: &Work) -> Self {
        let host_bytes = work.hot_bytes + work.cold_bytes;
        let nanoseconds = work.time.as_nanos() as u64;
        let translated = counts.translated.min(counts.retired);
        Self {
            translated: TranslatedReport {
                blocks: work.blocks,
                again: work.again,
                refused: work.refused,
                instructions: work.instructions,
                guest_bytes: work.guest_bytes,
                hot_bytes: work.hot_bytes,
                cold_bytes: work.cold_bytes,
                bytes_per_guest_byte: ratio(host_bytes, work.guest_bytes),
                hot_bytes_per_guest_byte: ratio(work.hot_bytes, work.guest_bytes),
                nanoseconds,
                ns_per_instruction: ratio(nanoseconds, work.instructions),
            },
            superblocks: superblocks(work),
            dropped: DroppedReport {
                blocks: work.dropped,
                all: work.all_dropped,
                regions: work.regions,
                evicted: work.evicted,
            },
            instructions: InstructionsReport {
                all: counts.retired,
                translated,
                interpreted: counts.retired - translated,
                translated_percent: 100.0 * ratio(translated, counts.retired),
            },
            entered: counts.entered,
            instructions_per_entry: ratio(translated, counts.entered),
            exits: exits(counts, work),
            memory: MemoryReport {
                tlb_misses: counts.tlb_fills,
                lent: counts.lent,
                device: counts.device,
            },
            helpers: HelpersReport {
                operations: work.interpreted.values().map(|i| i.executed).sum(),
                system: counts.system,
                events: counts.delivered,
            },
            interpreted: interpreted(work),
            top_blocks: top_blocks(counts, work),
        }
    }
}

fn superblocks(work: &Work) -> SuperblocksReport {
    let nanoseconds = work.superblock_time.as_nanos() as u64;
    SuperblocksReport {
        count: work.superblocks,
        instructions: work.superblock_instructions,
        hot_bytes: work.superblock_hot_bytes,
        cold_bytes: work.superblock_cold_bytes,
        nanoseconds,
        ns_per_instruction: ratio(nanoseconds, work.superblock_instructions),
    }
}

fn exits(counts: &Counts, work: &Work) -> Vec<ExitReport> {
    let named = EXIT_NAMES.iter().zip(counts.exits).skip(1);
    let mut list: Vec<_> = named
        .map(|(&reason, count)| (reason, count))
        .chain([
            ("an instruction that is not translated", work.exits_untranslated),
            ("memory or registers not at hand", work.exits_memory),
        ])
        .filter(|(_, count)| *count != 0)
        .map(|(reason, count)| ExitReport { reason: reason.into(), count })
        .collect();
    list.sort_by_key(|exit| std::cmp::Reverse(exit.count));
    list
}

fn interpreted(work: &Work) -> Vec<InterpretedReport> {
    let mut list: Vec<_> = work.interpreted.iter().collect();
    list.sort_by_key(|(name, what)| (std::cmp::Reverse(what.executed), **name));
    list.truncate(LISTED);
    let report = |(&(mnemonic, why), what): (
        &(iced_x86::Mnemonic, super::why::Why),
        &super::statistics::Interpreted,
    )| InterpretedReport {
        mnemonic: format!("{mnemonic:?}").to_lowercase(),
        why: why.text().into(),
        executed: what.executed,
        places: what.places,
    };
    list.into_iter().map(report).collect()
}

fn top_blocks(counts: &Counts, work: &Work) -> Vec<BlockReport> {
    use trivium_interp::cpu::Mode;
    let all: u64 = counts.samples.values().sum();
    let mut list: Vec<_> = counts.samples.iter().collect();
    list.sort_by_key(|(place, samples)| (std::cmp::Reverse(**samples), **place));
    list.truncate(LISTED);
    list.into_iter()
        .map(|(&place, &samples)| {
            let known = work.places.get(&place).copied().unwrap_or_default();
            let mode = Mode(place.1);
            BlockReport {
                rip: format!("{:x}", place.0),
                bits: mode.bitness(),
                user: mode.has(Mode::USER),
                samples,
                percent: 100.0 * ratio(samples, all),
                instructions: known.instructions,
                guest_bytes: known.guest_bytes,
                host_bytes: known.host_bytes,
                translations: known.translations,
                exits: known.exits,
            }
        })
        .collect()
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.summary(f)?;
        writeln!(f, "\nTranslated code was left because of")?;
        for exit in &self.exits {
            writeln!(f, "{:>14}  {}", exit.count, exit.reason)?;
        }
        writeln!(f, "\nDone by the interpreter, in blocks worth translating")?;
        writeln!(f, "{:>14}  {:>8}  instruction, and why", "times", "places")?;
        for i in self.interpreted.iter().take(SHOWN) {
            writeln!(f, "{:>14}  {:>8}  {:<12} {}", i.executed, i.places, i.mnemonic, i.why)?;
        }
        writeln!(f, "\nBlocks in which most time was spent")?;
        let header = ["samples", "of all", "instr.", "bytes", "host's", "exits"];
        write!(f, "  {:<21}", "rip")?;
        header.iter().try_for_each(|name| write!(f, "{name:>9}"))?;
        writeln!(f)?;
        self.top_blocks.iter().take(SHOWN).try_for_each(|block| write_block(f, block))
    }
}

fn write_block(f: &mut Formatter<'_>, block: &BlockReport) -> fmt::Result {
    let BlockReport { rip, bits, samples, percent, instructions, guest_bytes, .. } = block;
    let who = if block.user { 'u' } else { 'k' };
    writeln!(
        f,
        "  {rip:>16} {bits}{who} {samples:>9} {percent:>7.1}% {instructions:>8} {guest_bytes:>8} {:>8} {:>8}",
        block.host_bytes, block.exits
    )
}

impl Report {
    fn summary(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let t = &self.translated;
        let line =
            |f: &mut Formatter<'_>, name: &str, text: String| writeln!(f, "{name:<14}{text}");
        writeln!(f, "What the JIT did")?;
        line(
            f,
            "translated",
            format!(
                "{} blocks ({} again) of {} instructions, {} bytes; {} blocks were not",
                t.blocks, t.again, t.instructions, t.guest_bytes, t.refused
            ),
        )?;
        line(
            f,
            "host code",
            format!(
                "{} bytes often run and {} seldom: {:.1} for each of the guest's, {:.1} of them often",
                t.hot_bytes, t.cold_bytes, t.bytes_per_guest_byte, t.hot_bytes_per_guest_byte
            ),
        )?;
        line(
            f,
            "time",
            format!(
                "{:.1} ms, {:.0} ns an instruction",
                t.nanoseconds as f64 / 1e6,
                t.ns_per_instruction
            ),
        )?;
        let s = &self.superblocks;
        line(
            f,
            "superblocks",
            format!(
                "{} of {} instructions, {} and {} bytes; {:.1} ms, {:.0} ns an instruction",
                s.count,
                s.instructions,
                s.hot_bytes,
                s.cold_bytes,
                s.nanoseconds as f64 / 1e6,
                s.ns_per_instruction
            ),
        )?;
        let d = &self.dropped;
        line(
            f,
            "given up",
            format!(
                "{} blocks; {} in {} regions to make room; all {} times",
                d.blocks, d.evicted, d.regions, d.all
            ),
        )?;
        let i = &self.instructions;
        line(
            f,
            "executed",
            format!(
                "{} instructions, {:.2} % of them translated; {} interpreted",
                i.all, i.translated_percent, i.interpreted
            ),
        )?;
        line(
            f,
            "entered",
            format!("{} times, {:.0} instructions each", self.entered, self.instructions_per_entry),
        )?;
        let m = &self.memory;
        line(
            f,
            "memory",
            format!(
                "{} TLB misses, {} accesses of other kinds, {} of device registers",
                m.tlb_misses, m.lent, m.device
            ),
        )?;
        let h = &self.helpers;
        line(
            f,
            "helpers",
            format!(
                "{} operations of translated blocks, {} system instructions, {} exceptions and interrupts",
                h.operations, h.system, h.events
            ),
        )
    }
}
