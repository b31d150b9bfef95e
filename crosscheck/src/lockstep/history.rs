//! How two machines came to where they are: what is translated, and when, depends on all of it.

use trivium_chipset::VmTime;
use trivium_machine::Frozen;

use super::pair::{Pages, Pair};
use super::{Input, LockstepError};

/// The most pages that a file is to have.
const MOST_PAGES: usize = 4096;

/// From the beginning to the last point of comparison.
#[derive(Default)]
pub(super) struct History {
    /// The state at the beginning, and all pages of it that are not empty.
    start: Option<(Frozen, Pages)>,
    /// What came from outside, and the moment up to which they ran then.
    steps: Vec<(Vec<Input>, VmTime)>,
}

impl History {
    pub(super) fn new(frozen: Frozen, pages: Pages) -> Self {
        Self { start: Some((frozen, pages)), steps: Vec::new() }
    }

    /// They ran up to a moment, with this from outside.
    pub(super) fn note(&mut self, inputs: Vec<Input>, moment: VmTime) {
        self.steps.push((inputs, moment));
    }

    pub(super) fn start(&self) -> Option<(Frozen, Pages)> {
        self.start.clone()
    }

    /// The last moment up to which they ran.
    pub(super) fn last(&self) -> Option<VmTime> {
        self.steps.last().map(|&(_, moment)| moment)
    }

    /// The moments of all points of comparison but the last; nothing if something came from outside.
    fn moments(&self) -> Option<Vec<VmTime>> {
        let alone = self.steps.iter().all(|(inputs, _)| inputs.is_empty());
        let (_, before) = self.steps.split_last()?;
        alone.then(|| before.iter().map(|&(_, moment)| moment).collect())
    }
}

impl Pair {
    /// Runs both machines from the beginning to the last point at which they agreed, as they came
    /// there: with all that was translated on the way. Whether they agree there again.
    pub(super) fn replay(&mut self) -> Result<bool, LockstepError> {
        self.begin_again()?;
        let steps = self.history.steps.clone();
        let Some((last, before)) = steps.split_last() else { return Ok(false) };
        for (inputs, moment) in before {
            self.give(inputs);
            self.go_on(false)?;
            let mut ends = self.run_until(*moment)?;
            let mut what = self.differences(&ends)?;
            if what.is_empty() && self.is_vague() {
                what = self.settle(&mut ends)?;
            }
            if !what.is_empty() {
                return Ok(false);
            }
        }
        self.give(&last.0);
        self.go_on(false)?;
        Ok(true)
    }

    /// The moments at which they were compared before the last, if a file can have all that is needed
    /// to come there again.
    pub(super) fn short_history(&self) -> Option<Vec<VmTime>> {
        let (_, pages) = self.history.start.as_ref()?;
        self.history.moments().filter(|_| pages.len() <= MOST_PAGES)
    }

    fn give(&self, inputs: &[Input]) {
        for input in inputs {
            self.sides.iter().for_each(|side| input.give(&side.machine.handle()));
        }
    }
}
