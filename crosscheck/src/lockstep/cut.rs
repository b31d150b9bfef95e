//! To the instruction that goes wrong in code that is translated with what follows it.
//!
//! Such code is as it is only when it is run as a whole: with less to run, others' is. So it is
//! translated with a way out before each of its instructions, is given as much to run as ever, and is
//! left after so many instructions; the other machine runs as far, and both are compared.

use serde::{Deserialize, Serialize};
use trivium_chipset::VmTime;
use trivium_cpu::bits::rflags;
use trivium_machine::Machine;

use super::locate::Blocks;
use super::pair::Pair;
use super::{LockstepError, flags};

/// From where both machines run up to a moment at which they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// From the state in which they agreed last.
    Snapshot,
    /// From the very beginning.
    Start,
}

/// After how many instructions since they last agreed they still agree, and after how many no more;
/// there is no place between in translated code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The one.
    pub agree: u64,
    /// The other.
    pub differ: u64,
    /// Which of the two machines is cut.
    pub side: usize,
}

/// No cut at all.
const NOWHERE: u64 = u64::MAX - 1;
/// So many instructions before the one that is found, flags are looked at that may have made it go wrong.
const FLAGS_BEFORE: u64 = 128;

/// A machine, and from where both run.
type At = (From, usize);

/// Bits of RFLAGS that may differ, after so many instructions and one more each.
#[derive(Default)]
pub(super) struct Masks {
    from: u64,
    masks: Vec<u64>,
}

impl Masks {
    pub(super) fn one(instructions: u64, mask: u64) -> Self {
        Self { from: instructions, masks: vec![mask] }
    }

    fn after(&self, instructions: u64) -> u64 {
        let at = instructions.checked_sub(self.from).and_then(|at| self.masks.get(at as usize));
        at.copied().unwrap_or(rflags::STATUS)
    }
}

impl Pair {
    /// Finds the instruction, with blocks that can be cut and are else like these. Nothing if the
    /// machines do not differ then.
    pub(super) fn cut(
        &mut self,
        blocks: Blocks,
        from: From,
        until: VmTime,
    ) -> Result<Option<(Cut, Vec<String>)>, LockstepError> {
        let mut masks = Masks::default();
        self.set_blocks(Blocks { cuts: Some((1, false)), ..blocks });
        self.probe_cut((from, 1), 0, until, &masks)?;
        let at = (from, usize::from(self.sides[1].blocks.was_cut()));
        self.set_blocks(Blocks { cuts: Some((at.1, false)), ..blocks });
        if self.probe_cut(at, NOWHERE, until, &masks)?.1.is_empty() {
            return Ok(None);
        }
        let all = until.nanos_since(self.agreed());
        let mut cut = Cut { agree: 0, differ: all, side: at.1 };
        if !self.narrow(at, &mut cut, until, &masks)? {
            return Ok(None);
        }
        let first = cut.agree.saturating_sub(FLAGS_BEFORE);
        masks = self.masks(first, cut.differ)?;
        cut.agree = first;
        self.set_blocks(Blocks { cuts: Some((at.1, true)), ..blocks });
        if !self.narrow(at, &mut cut, until, &masks)? {
            return Ok(None);
        }
        // It must come out the same once more.
        let before = self.probe_cut(at, cut.agree, until, &masks)?.1;
        let after = self.probe_cut(at, cut.differ, until, &masks)?.1;
        let is_sure = before.is_empty() && !after.is_empty();
        self.tolerated = masks.after(cut.differ);
        Ok(is_sure.then_some((cut, after)))
    }

    /// Brings the places at which they agree and differ as close to each other as may be. Whether that
    /// could be done.
    fn narrow(
        &mut self,
        at: At,
        cut: &mut Cut,
        until: VmTime,
        masks: &Masks,
    ) -> Result<bool, LockstepError> {
        // When it is cut after `most`, they differ.
        let mut most = cut.differ;
        while most.saturating_sub(cut.agree) > 1 {
            let middle = cut.agree + (most - cut.agree) / 2;
            let (count, what) = self.probe_cut(at, middle, until, masks)?;
            if what.is_empty() {
                cut.agree = count.max(middle);
            } else {
                (cut.differ, most) = (count, middle);
            }
        }
        Ok(cut.agree < most)
    }

    /// Which flags the instructions leave undefined, as the first machine runs them.
    fn masks(&mut self, from: u64, to: u64) -> Result<Masks, LockstepError> {
        let start = self.agreed();
        self.roll_back()?;
        let mut masks = Masks { from, masks: vec![rflags::STATUS] };
        let mut mask = rflags::STATUS;
        for count in from..to {
            let run_to = |moment| move |machine: &mut Machine| machine.run_here(moment);
            self.sides[0].run(run_to(start.saturating_add(count)))?;
            let before = self.first_cpu()?;
            let code = self.sides[0].machine.code_at_rip(&before);
            self.sides[0].run(run_to(start.saturating_add(count + 1)))?;
            mask = flags::undefined_after(&before, &code, &self.first_cpu()?, mask);
            masks.masks.push(mask);
        }
        Ok(masks)
    }

    /// Runs the machine of a number up to a cut, and the other one as far: after how many
    /// instructions that is, and in what they differ.
    pub(super) fn probe_cut(
        &mut self,
        (from, side): At,
        instructions: u64,
        until: VmTime,
        masks: &Masks,
    ) -> Result<(u64, Vec<String>), LockstepError> {
        match from {
            From::Snapshot => {
                self.set_blocks(self.present_blocks.get());
                self.roll_back()?;
            }
            From::Start if !self.replay()? => return Ok((0, Vec::new())),
            From::Start => {}
        }
        let (mut ends, side) = ([None, None], side.min(1));
        ends[side] = self.run_to_cut(side, instructions, until)?;
        let now = self.sides[side].machine.now();
        let other = 1 - side;
        ends[other] = self.sides[other].run(|machine| machine.run_here(now))?;
        let count = now.nanos_since(self.agreed());
        self.tolerated = masks.after(count);
        let what = self.differences(&ends)?;
        self.tolerated = rflags::STATUS;
        Ok((count, what))
    }
}
