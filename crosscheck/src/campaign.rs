//! Runs many cases on many threads, and gathers what they say.
//!
//! The cases are numbered; a thousand of them are a chunk, the unit that a thread takes, that a
//! log line tells of, and that a campaign is resumed by.

mod coverage;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use serde::{Deserialize, Serialize};

use crate::allow::first_instruction;
use crate::case::{Case, Kind};
use crate::duel::{Duel, Round, Verdict};
use crate::engine::EngineError;
use crate::minimise::{Minimised, minimise};
use crate::repro::Repro;

pub use coverage::Coverage;
pub use log::{LogError, read_log, write_header, write_line};

/// Cases of a chunk.
pub const CHUNK: u64 = 1000;

/// Cases of a chunk that are run together: what comes of them stays in the processor's caches.
const BATCH: usize = 125;

/// How many divergences of the same look are made small and kept; the others are counted.
const EXAMPLES: u64 = 3;

/// Which cases a campaign runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Seed of all cases.
    pub seed: u64,
    /// How many there are in all shards together.
    pub cases: u64,
    /// Which of how many parts to run, from 1.
    pub shard: (u64, u64),
}

/// What came of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Chunk {
    /// Its number.
    pub chunk: u64,
    /// Cases that were run.
    pub cases: u64,
    /// Those of them that were translated as code that runs hot.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hot: u64,
    /// Cases that were not, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, u64>,
    /// Divergences by what they look like, with how many there were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub divergences: BTreeMap<String, u64>,
    /// Divergences, made small.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // So serde wants it.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A divergence, made small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it looks like: divergences of one look are one group.
    pub group: String,
    /// How to run it again.
    pub repro: Repro,
}

/// What came of a campaign so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Cases that were run.
    pub cases: u64,
    /// Those of them that were translated as code that runs hot.
    pub hot: u64,
    /// Cases that were not, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// How many divergences there were in each group.
    pub groups: BTreeMap<String, u64>,
    /// One divergence of each group, made small.
    pub examples: BTreeMap<String, Finding>,
    /// Chunks that are done.
    pub done: BTreeSet<u64>,
}

impl Plan {
    /// The numbers of the chunks to run.
    pub fn chunks(&self) -> impl Iterator<Item = u64> + use<> {
        let (shard, shards) = self.shard;
        (0..self.cases.div_ceil(CHUNK)).filter(move |chunk| chunk % shards.max(1) + 1 == shard)
    }

    /// The numbers of a chunk's cases.
    #[must_use]
    pub fn cases_of(&self, chunk: u64) -> std::ops::Range<u64> {
        let start = chunk * CHUNK;
        start..self.cases.min(start + CHUNK)
    }

    /// How many cases the shard has.
    #[must_use]
    pub fn shard_cases(&self) -> u64 {
        self.chunks().map(|chunk| self.cases_of(chunk)).map(|r| r.end - r.start).sum()
    }
}

impl Summary {
    /// Adds what came of a chunk.
    pub fn add(&mut self, chunk: &Chunk) {
        self.cases += chunk.cases;
        self.hot += chunk.hot;
        for (reason, count) in &chunk.skipped {
            *self.skipped.entry(reason.clone()).or_default() += count;
        }
        for (group, count) in &chunk.divergences {
            *self.groups.entry(group.clone()).or_default() += count;
        }
        for finding in &chunk.findings {
            self.examples.entry(finding.group.clone()).or_insert_with(|| finding.clone());
        }
        self.done.insert(chunk.chunk);
    }

    /// How many divergences there were.
    #[must_use]
    pub fn divergences(&self) -> u64 {
        self.groups.values().sum()
    }
}

/// What the threads of a campaign share.
struct Shared<'a, S> {
    plan: &'a Plan,
    source: &'a S,
    stop: &'a AtomicBool,
    /// Place of the next chunk in `todo`.
    next: AtomicU64,
    todo: Vec<u64>,
    /// How many divergences of each look have been made small.
    seen: Mutex<BTreeMap<String, u64>>,
    coverage: &'a Coverage,
}

/// Runs the chunks of a plan that `summary` does not have, on a thread for each duel, and adds to
/// it. Ends early, with all that is done, when `stop` is set. `on_chunk` sees each as it comes.
///
/// # Errors
/// An engine cannot go on.
pub fn run<S: Fn(u64) -> Case + Sync>(
    plan: &Plan,
    duels: Vec<Duel>,
    source: &S,
    stop: &AtomicBool,
    coverage: &Coverage,
    summary: &mut Summary,
    on_chunk: &mut dyn FnMut(&Chunk, &Summary),
) -> Result<(), EngineError> {
    let todo = plan.chunks().filter(|chunk| !summary.done.contains(chunk)).collect();
    let shared = Shared {
        plan,
        source,
        stop,
        next: AtomicU64::new(0),
        todo,
        seen: Mutex::default(),
        coverage,
    };
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for duel in duels {
            let (shared, send) = (&shared, send.clone());
            scope.spawn(move || work(shared, duel, &send));
        }
        drop(send);
        for result in receive {
            match result {
                Ok(chunk) => {
                    summary.add(&chunk);
                    on_chunk(&chunk, summary);
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    })
}

fn work<S: Fn(u64) -> Case + Sync>(
    shared: &Shared<'_, S>,
    mut duel: Duel,
    send: &mpsc::Sender<Result<Chunk, EngineError>>,
) {
    while !shared.stop.load(Ordering::Relaxed) {
        let place = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(&chunk) = shared.todo.get(place as usize) else { return };
        let result = run_chunk(shared, &mut duel, chunk);
        let failed = result.is_err();
        if send.send(result).is_err() || failed {
            return;
        }
    }
}

fn run_chunk<S: Fn(u64) -> Case + Sync>(
    shared: &Shared<'_, S>,
    duel: &mut Duel,
    number: u64,
) -> Result<Chunk, EngineError> {
    let mut chunk = Chunk { chunk: number, ..Chunk::default() };
    let numbers: Vec<u64> = shared.plan.cases_of(number).collect();
    for numbers in numbers.chunks(BATCH) {
        let cases: Vec<Case> = numbers.iter().copied().map(shared.source).collect();
        run_batch(shared, duel, &cases, &mut chunk)?;
    }
    Ok(chunk)
}

fn run_batch<S>(
    shared: &Shared<'_, S>,
    duel: &mut Duel,
    cases: &[Case],
    chunk: &mut Chunk,
) -> Result<(), EngineError> {
    let verdicts = duel.run(cases)?;
    chunk.hot += duel.take_hot();
    for (case, verdict) in cases.iter().zip(verdicts) {
        match verdict {
            Verdict::Refused(reason) => {
                *chunk.skipped.entry(reason.to_owned()).or_default() += 1;
            }
            Verdict::Run(round) => {
                chunk.cases += 1;
                shared.coverage.note(case, &round);
                if !round.fields.is_empty() {
                    diverged(shared, duel, case, &round, chunk)?;
                    duel.take_hot();
                }
            }
        }
    }
    Ok(())
}

/// What differs only because of what a single instruction of it may differ in.
const UNDEFINED: &str = "depends on what is undefined";

/// What differed once and then no more.
const FLEETING: &str = "not seen again when run alone";

fn diverged<S>(
    shared: &Shared<'_, S>,
    duel: &mut Duel,
    case: &Case,
    round: &Round,
    chunk: &mut Chunk,
) -> Result<(), EngineError> {
    if matches!(case.kind, Kind::Encoding | Kind::Repeat) {
        // Cases of one instruction look like what they are, so only the first few are made small.
        let look = look(case, round);
        let mut seen = shared.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = seen.entry(look.clone()).or_default();
        *count += 1;
        if *count > EXAMPLES {
            *chunk.divergences.entry(look).or_default() += 1;
            return Ok(());
        }
    }
    match minimise(duel, case)? {
        None => {
            chunk.cases -= 1;
            *chunk.skipped.entry(UNDEFINED.to_owned()).or_default() += 1;
        }
        Some(small) if small.round.fields.is_empty() => {
            *chunk.divergences.entry(FLEETING.to_owned()).or_default() += 1;
            chunk.findings.push(Finding {
                group: FLEETING.to_owned(),
                repro: Repro::new(
                    duel.names(),
                    case.id,
                    Minimised { case: case.clone(), round: round.clone(), single: false },
                ),
            });
        }
        Some(small) => {
            let group = look(&small.case, &small.round);
            *chunk.divergences.entry(group.clone()).or_default() += 1;
            let known = chunk.findings.iter().any(|f| f.group == group);
            if !known {
                let repro = Repro::new(duel.names(), case.id, small);
                chunk.findings.push(Finding { group, repro });
            }
        }
    }
    Ok(())
}

/// What a divergence looks like: the instruction, how the engines stopped, and the fields.
fn look(case: &Case, round: &Round) -> String {
    let code = format!("{:?}", first_instruction(case).code()).to_ascii_uppercase();
    let mut kinds: Vec<_> = round.fields.iter().map(crate::compare::Field::kind).collect();
    kinds.dedup();
    format!("{code} {}-bit: {}", case.width.bits(), kinds.join(" "))
}
