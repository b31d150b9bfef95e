//! What came of the cases.

use std::fmt;

/// What came of a case.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The CPU did as foretold.
    Agreed {
        /// The program ran to its end.
        ends_well: bool,
    },
    /// It did not.
    Diverged(Divergence),
    /// The model foretells nothing.
    Skipped,
}

/// A case in which a CPU and the model differ.
#[derive(Debug, Clone)]
pub struct Divergence {
    /// The case, line by line.
    pub case: Vec<String>,
    /// How the model says that it ends.
    pub expected: String,
    /// What the CPU did otherwise.
    pub differences: Vec<String>,
}

/// A divergence and where it comes from.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The kind of case.
    pub kind: &'static str,
    /// The case's number; with the seed it makes the case again.
    pub index: u64,
    /// The CPU model.
    pub model: String,
    /// What differs.
    pub divergence: Divergence,
}

/// What came of many cases.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Cases in which the program ran to its end as foretold.
    pub done: u64,
    /// Cases that an exception ended as foretold.
    pub faulted: u64,
    /// Cases of which the model foretells nothing.
    pub skipped: u64,
    /// Cases in which the two differ.
    pub diverged: u64,
    /// The first of them.
    pub findings: Vec<Finding>,
}

/// A report tells of so many divergences; the others are only counted.
const MOST_FINDINGS: usize = 100;

impl Report {
    /// Counts a case.
    pub fn add(&mut self, kind: &'static str, index: u64, model: &str, verdict: Verdict) {
        match verdict {
            Verdict::Agreed { ends_well: true } => self.done += 1,
            Verdict::Agreed { ends_well: false } => self.faulted += 1,
            Verdict::Skipped => self.skipped += 1,
            Verdict::Diverged(divergence) => {
                self.diverged += 1;
                if self.findings.len() < MOST_FINDINGS {
                    let model = model.to_owned();
                    self.findings.push(Finding { kind, index, model, divergence });
                }
            }
        }
    }

    /// Takes what came of other cases of the same seed.
    pub fn merge(&mut self, other: Self) {
        self.done += other.done;
        self.faulted += other.faulted;
        self.skipped += other.skipped;
        self.diverged += other.diverged;
        self.findings.extend(other.findings);
        self.findings.truncate(MOST_FINDINGS);
    }

    /// All cases.
    #[must_use]
    pub fn cases(&self) -> u64 {
        self.done + self.faulted + self.skipped + self.diverged
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, index, model, divergence } = self;
        writeln!(f, "{kind} case {index} on {model}:")?;
        for line in &divergence.case {
            writeln!(f, "    {line}")?;
        }
        writeln!(f, "  the manual: {}", divergence.expected)?;
        divergence.differences.iter().try_for_each(|line| writeln!(f, "  the CPU: {line}"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        write!(
            f,
            "{} cases of seed {}: {} ran to their end, {} faulted, {} skipped, {} divergences",
            self.cases(),
            self.seed,
            self.done,
            self.faulted,
            self.skipped,
            self.diverged,
        )
    }
}
