//! Which encodings a campaign has reached: executed, faulted, or never.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use iced_x86::Code;

use crate::allow::first_instruction;
use crate::case::{Case, Kind};
use crate::duel::Round;
use crate::outcome::Stop;

/// How often each encoding was run.
pub struct Coverage {
    /// For each [`Code`], cases in which it was done and cases in which it raised an exception.
    counts: Vec<[AtomicU64; 2]>,
}

impl Default for Coverage {
    fn default() -> Self {
        let counts = Code::values().map(|_| Default::default()).collect();
        Self { counts }
    }
}

impl Coverage {
    /// Counts a case's first instruction.
    pub fn note(&self, case: &Case, round: &Round) {
        if matches!(case.kind, Kind::Sequence | Kind::Loop) {
            return;
        }
        let instruction = first_instruction(case);
        let end = case.state.rip.wrapping_add(instruction.len() as u64);
        let stopped = &round.outcomes[1];
        let faulted = match stopped.stop {
            Stop::Exception { vector: 1 | 3 | 4, .. } | Stop::Syscall | Stop::Endless => false,
            // An instruction may be done and the next one be the one that faults.
            Stop::Exception { .. } => {
                stopped.state.rip == case.state.rip || stopped.state.rip != end
            }
            Stop::Shutdown | Stop::Lost(_) => true,
        };
        if let Some(counts) = self.counts.get(instruction.code() as usize) {
            counts[usize::from(faulted)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A table in Markdown of what was reached: a row for each mnemonic, each encoding that was never
    /// executed by name, and the encodings that no case is made of with the reason.
    #[must_use]
    pub fn table(&self, encodings: &[Code], excluded: &[(Code, &'static str)]) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_reached(&mut out, encodings);
        let _ = write_excluded(&mut out, excluded);
        out
    }

    fn write_reached(&self, out: &mut String, encodings: &[Code]) -> std::fmt::Result {
        let mut rows: BTreeMap<String, Vec<Code>> = BTreeMap::new();
        for &code in encodings {
            rows.entry(format!("{:?}", code.mnemonic())).or_default().push(code);
        }
        let executed = encodings.iter().filter(|&&code| self.of(code)[0] > 0).count();
        let faulted =
            encodings.iter().filter(|&&code| self.of(code)[0] == 0 && self.of(code)[1] > 0).count();
        let never = encodings.len() - executed - faulted;
        writeln!(
            out,
            "{} encodings: {executed} executed, {faulted} only faulted, {never} never reached.\n",
            encodings.len()
        )?;
        writeln!(out, "| instruction | encodings | executed | faulted | encodings not executed |")?;
        writeln!(out, "|---|--:|--:|--:|---|")?;
        for (mnemonic, codes) in rows {
            let sum = |n: usize| codes.iter().map(|&code| self.of(code)[n]).sum::<u64>();
            let not = codes.iter().filter(|&&code| self.of(code)[0] == 0);
            let not: Vec<_> = not.map(|code| format!("`{code:?}`")).collect();
            let (name, count) = (mnemonic.to_uppercase(), codes.len());
            writeln!(out, "| {name} | {count} | {} | {} | {} |", sum(0), sum(1), not.join(", "))?;
        }
        Ok(())
    }

    /// How often an encoding was done, and how often it raised an exception.
    #[must_use]
    pub fn of(&self, code: Code) -> [u64; 2] {
        let counts = self.counts.get(code as usize);
        counts.map_or([0; 2], |counts| counts.each_ref().map(|n| n.load(Ordering::Relaxed)))
    }
}

fn write_excluded(out: &mut String, excluded: &[(Code, &'static str)]) -> std::fmt::Result {
    let mut reasons: BTreeMap<&str, Vec<Code>> = BTreeMap::new();
    for &(code, reason) in excluded {
        reasons.entry(reason).or_default().push(code);
    }
    writeln!(out, "\n| no cases of what | encodings |")?;
    writeln!(out, "|---|--:|")?;
    for (reason, codes) in reasons {
        writeln!(out, "| {reason} | {} |", codes.len())?;
    }
    Ok(())
}
