//! From a span in which two machines came to differ to the instruction that did it.

use trivium_chipset::VmTime;
use trivium_cpu::bits::rflags;

use super::cut::From;
use super::file::Found;
use super::pair::{Pair, Undo};
use super::{Difference, LockstepError, flags, report, shrink};

/// How far before the end of the span single steps begin, in instructions.
const BACK: u64 = 512;
/// The most instructions that are looked at together.
const MOST_TOGETHER: u64 = 128;
/// Instructions after the span in which a difference may show as well.
const SLACK: u64 = 128;
/// The most instructions that a block can be given.
const MOST_IN_BLOCK: u32 = 64;
/// How often a block is interpreted before it is translated, usually.
const WARM: u32 = trivium_machine::WARM;

/// How blocks are made while a span is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blocks {
    /// Instructions in one at most.
    pub(super) most: u32,
    /// How often one is interpreted before it is translated.
    pub(super) warm: u32,
    /// After how many instructions what is being run is translated with what follows it; 0 as usual.
    pub(super) quantum: u32,
    /// Which machine's translated code can be cut, if any; and whether the other one has the flags as
    /// they are after each instruction, not only where somebody may look at them.
    pub(super) cuts: Option<(usize, bool)>,
}

pub(super) const USUAL: Blocks = Blocks { most: MOST_IN_BLOCK, warm: WARM, quantum: 0, cuts: None };
/// They are translated before they are first run.
const AT_ONCE: Blocks = Blocks { warm: 0, ..USUAL };
/// And sooner or later with what follows them.
const SOON: Blocks = Blocks { quantum: 8, ..AT_ONCE };
const LATER: Blocks = Blocks { quantum: 300, ..AT_ONCE };

/// Ways of making blocks anew that may show again what has shown once.
const WAYS: [Blocks; 4] = [AT_ONCE, SOON, LATER, USUAL];

impl Pair {
    /// Says how blocks are made from the next [`Pair::roll_back`] on, which drops those that are
    /// there.
    pub(super) fn set_blocks(&self, blocks: Blocks) {
        self.present_blocks.set(blocks);
        for (number, side) in self.sides.iter().enumerate() {
            let is_cut = blocks.cuts.is_some_and(|(cut, _)| cut == number);
            let most = match blocks.cuts {
                Some((_, true)) if !is_cut => 1,
                _ => blocks.most,
            };
            side.blocks.allow_cuts(is_cut);
            side.blocks.set(most, blocks.warm, blocks.quantum);
        }
    }

    /// In what they differ when they run from where they agreed up to a moment.
    pub(super) fn probe(&mut self, moment: VmTime) -> Result<Vec<String>, LockstepError> {
        self.roll_back()?;
        let ends = self.run_until(moment)?;
        self.differences(&ends)
    }

    /// The same with blocks that are made anew, as whoever reads the file has them.
    pub(super) fn probe_anew(&mut self, moment: VmTime) -> Result<Vec<String>, LockstepError> {
        self.set_blocks(self.present_blocks.get());
        self.probe(moment)
    }

    /// The state to come back to is that of a later moment.
    fn commit_at(&mut self, moment: VmTime) -> Result<Undo, LockstepError> {
        self.roll_back()?;
        self.run_until(moment)?;
        self.commit()
    }
}

fn before(moment: VmTime, instructions: u64) -> VmTime {
    VmTime::from_nanos(moment.as_nanos().saturating_sub(instructions))
}

/// Locates what made two machines differ since [`super::run`] last found that they agreed.
///
/// # Errors
/// See [`LockstepError`].
pub fn locate(pair: &mut Pair, difference: Difference) -> Result<Found, LockstepError> {
    let Difference { until, what: differences } = difference;
    let seen = until;
    if !reproduce(pair, until)? {
        // It depends on what was before: translations, the TLB.
        return from_the_start(pair, until, differences);
    }
    let (agreed, until) = bisect(pair, until)?;
    let from = before(until, BACK).max(pair.agreed());
    let undo = pair.commit_at(from.min(agreed))?;
    let mut small = single(pair, until)?;
    if small.is_none() {
        small = together(pair, until)?;
    }
    if small.is_none() {
        pair.undo(undo);
        small = after_others(pair, until)?;
    }
    if small.is_none() && pair.go_back_further() {
        small = after_others(pair, until)?;
    }
    if let Some((until, _)) = small
        && pair.probe_anew(until)?.is_empty()
    {
        small = None;
    }
    let Some((small, blocks)) = small else {
        let differences = pair.probe(until)?;
        return from_the_start(pair, seen, differences);
    };
    let differences = shrink::shrink(pair, small)?;
    let about = (small, From::Snapshot);
    if small.nanos_since(pair.agreed()) > 1
        && let Some((cut, differences)) = pair.cut(blocks, about.1, small)?
    {
        return report::found(pair, about, blocks, differences, Some(cut));
    }
    pair.set_blocks(blocks);
    report::found(pair, about, blocks, differences, None)
}

/// Runs both machines from the beginning, again and again: what was translated before they last agreed
/// may be needed. If they do not come to differ then, `differences` is all that there is to say.
fn from_the_start(
    pair: &mut Pair,
    until: VmTime,
    differences: Vec<String>,
) -> Result<Found, LockstepError> {
    let about = (until, From::Start);
    if let Some((cut, differences)) = pair.cut(USUAL, about.1, until)? {
        return report::found(pair, about, USUAL, differences, Some(cut));
    }
    report::found(pair, about, USUAL, differences, None)
}

/// Whether the machines differ again, with blocks made in some way.
fn reproduce(pair: &mut Pair, until: VmTime) -> Result<bool, LockstepError> {
    if !pair.probe(until)?.is_empty() {
        return Ok(true);
    }
    for blocks in WAYS.into_iter().rev() {
        pair.set_blocks(blocks);
        if !pair.probe(until)?.is_empty() {
            return Ok(true);
        }
    }
    pair.set_blocks(USUAL);
    Ok(false)
}

/// Two moments, as close to each other as may be, at which they agree and differ.
fn bisect(pair: &mut Pair, until: VmTime) -> Result<(VmTime, VmTime), LockstepError> {
    let (mut agreed, mut differ) = (pair.agreed(), until);
    while differ.nanos_since(agreed) > 1 {
        let middle = agreed.saturating_add(differ.nanos_since(agreed) / 2);
        if pair.probe(middle)?.is_empty() {
            agreed = middle;
        } else {
            differ = middle;
        }
    }
    Ok((agreed, differ))
}

/// Runs instruction by instruction, each a block that is translated by itself; commits to the state
/// before the one that makes them differ.
fn single(pair: &mut Pair, until: VmTime) -> Result<Option<(VmTime, Blocks)>, LockstepError> {
    let blocks = Blocks { most: 1, ..AT_ONCE };
    pair.set_blocks(blocks);
    pair.roll_back()?;
    let mut now = pair.agreed();
    let mut found = None;
    while now < until && found.is_none() {
        let before = pair.first_cpu()?;
        let code = pair.sides[0].machine.code_at_rip(&before);
        let vague = pair.vague_flags();
        now = now.saturating_add(1);
        let ends = pair.run_until(now)?;
        pair.tolerated = flags::undefined_after(&before, &code, &pair.first_cpu()?, vague);
        if !pair.differences(&ends)?.is_empty() {
            found = Some(pair.tolerated);
        }
        pair.tolerated = rflags::STATUS;
    }
    let Some(tolerated) = found else {
        pair.set_blocks(USUAL);
        return Ok(None);
    };
    let undo = pair.commit_at(before(now, 1))?;
    pair.tolerated = tolerated;
    if pair.probe(now)?.is_empty() {
        pair.tolerated = rflags::STATUS;
        pair.undo(undo);
        pair.set_blocks(USUAL);
        return Ok(None);
    }
    Ok(Some((now, blocks)))
}

/// Finds the fewest instructions before `until` that make them differ when they are one block;
/// commits to the state before them.
fn together(pair: &mut Pair, until: VmTime) -> Result<Option<(VmTime, Blocks)>, LockstepError> {
    let most = until.nanos_since(pair.agreed()).min(MOST_TOGETHER);
    for count in 2..=most {
        let blocks = Blocks { most: (count as u32).min(MOST_IN_BLOCK), ..AT_ONCE };
        if let Some(undo) = commit_if_differing(pair, before(until, count), blocks, until)? {
            pair.undo(undo);
        } else {
            return Ok(Some(cut(pair, until, blocks)?));
        }
    }
    pair.set_blocks(USUAL);
    Ok(None)
}

/// Leaves out the instructions at the end of a block without which they differ too.
fn cut(pair: &mut Pair, until: VmTime, blocks: Blocks) -> Result<(VmTime, Blocks), LockstepError> {
    for most in 1..blocks.most {
        let (blocks, until) =
            (Blocks { most, ..blocks }, pair.agreed().saturating_add(most.into()));
        pair.set_blocks(blocks);
        if !pair.probe(until)?.is_empty() {
            return Ok((until, blocks));
        }
    }
    pair.set_blocks(blocks);
    Ok((until, blocks))
}

/// Finds how many instructions before `until` are enough to make them differ when blocks are made
/// anew from there on; commits to the state before them.
fn after_others(pair: &mut Pair, until: VmTime) -> Result<Option<(VmTime, Blocks)>, LockstepError> {
    let all = until.nanos_since(pair.agreed());
    let fewer = std::iter::successors(Some(2_u64), |count| count.checked_mul(2));
    for count in fewer.take_while(|&count| count < all).chain([all]) {
        for blocks in WAYS {
            // What counts wrongly shows in the blocks after it.
            for later in [until, until.saturating_add(SLACK)] {
                if let Some(undo) = commit_if_differing(pair, before(until, count), blocks, later)?
                {
                    pair.undo(undo);
                    continue;
                }
                let until = first_difference(pair, later)?;
                return Ok(Some((until, blocks)));
            }
        }
    }
    pair.set_blocks(USUAL);
    Ok(None)
}

/// The first moment at which they differ, as far as that can be told: they may agree again for a
/// while.
fn first_difference(pair: &mut Pair, until: VmTime) -> Result<VmTime, LockstepError> {
    let (_, found) = bisect(pair, until)?;
    Ok(if pair.probe_anew(found)?.is_empty() { until } else { found })
}

/// Commits to the state at a moment; if they do not differ at `until` with such blocks from there on,
/// gives back what undoes that.
fn commit_if_differing(
    pair: &mut Pair,
    moment: VmTime,
    blocks: Blocks,
    until: VmTime,
) -> Result<Option<Undo>, LockstepError> {
    pair.set_blocks(USUAL);
    let undo = pair.commit_at(moment)?;
    pair.set_blocks(blocks);
    let differ = !pair.probe(until)?.is_empty();
    Ok((!differ).then_some(undo))
}
