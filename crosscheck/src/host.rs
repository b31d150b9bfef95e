//! The engine that is this processor: cases run natively, in a process that can do nothing else.
//!
//! The child is a page of machine code without any library. It has the regions of cases
//! mapped and nothing else but the memory that it shares with this process; it has no files; a
//! seccomp filter lets only that page make system calls, and only five. A batch of cases is written
//! to the shared memory, the child enters each through `rt_sigreturn`, which loads all state, and
//! the signal that ends it brings all state back: the kernel puts vector, error code and CR2 beside
//! it. A case that takes the child with it costs a new child.
//!
//! # What differs from the processor alone
//!
//! - An exception's return to user code clears the privilege level of null selectors.
//! - A page fault above the addresses of programs is always one of a page that is not present:
//!   Linux does not say.
//! - INT 80h loses the upper half of RAX.
//! - Where the processor is a virtual one, INT1 may tell of itself instead of the next instruction;
//!   if it does, that is undone.
//! - AMD's processors tell FIP, FDP and FOP only while an exception is pending; else they are zero.
//! - Linux emulates SGDT, SIDT, SLDT, STR and SMSW where UMIP is on.

mod arena;
mod blob;
mod check;
mod child;
mod decode;
mod elf;
mod encode;
mod features;
mod record;
mod setup;
#[cfg(test)]
mod tests;
mod xsave;

use std::io;

use trivium_cpu::model::Vendor;

use crate::case::{Case, LdtEntry};
use crate::engine::{Engine, EngineError};
use crate::outcome::{Outcome, Stop};
use check::Grants;
use child::{End, Server};
use decode::Decoder;
use encode::Encoder;
use xsave::Xsave;

pub use features::{host_features, host_vendor};

/// Its name.
const NAME: &str = "host";
/// Cases in a batch, at most.
const BATCH: usize = 256;
/// How often the child must end with a case before that is the case's doing.
const DEATHS: u32 = 3;
/// How often to try to start a child.
const STARTS: u32 = 3;

/// Runs cases on this processor.
pub struct HostEngine {
    server: Server,
    encoder: Encoder,
    decoder: Decoder,
    grants: Grants,
    vendor: Vendor,
    /// Room for records.
    records: Vec<u8>,
    /// Cases that are still to be run one by one, for among them is one that ends the child.
    apart: usize,
}

impl HostEngine {
    /// Starts the process that cases run in.
    ///
    /// # Errors
    /// This host cannot run the engine, with the reason.
    pub fn new() -> Result<Self, EngineError> {
        Self::start().map_err(|reason| EngineError::Unavailable { engine: NAME, reason })
    }

    fn start() -> Result<Self, String> {
        let Some(xcr0) = features::xcr0() else {
            return Err("the processor has no XSAVE, or the kernel does not enable it".to_owned());
        };
        if !features::has_fsgsbase().map_err(|e| format!("/proc/self/auxv: {e}"))? {
            return Err("the kernel does not let programs use RDFSBASE (Linux 5.9 does)".to_owned());
        }
        let xsave = Xsave::new(xcr0);
        let server = Server::new(xsave.size).map_err(|e| format!("no shared memory: {e}"))?;
        let mut engine = Self {
            server,
            encoder: Encoder::new(xsave),
            decoder: Decoder::new(xsave),
            grants: Grants { ldt: false, ldt16: false, bits32: true },
            vendor: host_vendor(),
            records: Vec::new(),
            apart: 0,
        };
        engine.restart().map_err(|e| e.to_string())?;
        engine.probe().map_err(|e| e.to_string())?;
        Ok(engine)
    }

    /// The process that cases run in; `None` if it has ended and no other was needed yet.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.server.process()
    }

    fn restart(&mut self) -> io::Result<()> {
        self.encoder.forget_child();
        let mut started = self.server.start();
        for _ in 1..STARTS {
            if started.is_ok() {
                break;
            }
            started = self.server.start();
        }
        started
    }

    /// Finds out what the kernel grants.
    fn probe(&mut self) -> io::Result<()> {
        let entry = LdtEntry {
            base: 0,
            limit: 0xfff,
            pages: false,
            code: false,
            open: true,
            expand_down: false,
            big: true,
            present: true,
        };
        for big in [true, false] {
            let case = Case { ldt: vec![Some(LdtEntry { big, ..entry })], ..probe_case() };
            self.server.take_ldt_error();
            self.outcomes(std::slice::from_ref(&case), &mut Vec::new())?;
            let granted = self.server.take_ldt_error() == 0;
            *if big { &mut self.grants.ldt } else { &mut self.grants.ldt16 } = granted;
        }
        let mut found = Vec::new();
        self.outcomes(&[Case { code: vec![0xf1], ..probe_case() }], &mut found)?;
        let itself = |o: &Outcome| o.state.rip == probe_case().state.rip;
        self.decoder.int1_tells_of_itself = found.first().is_some_and(itself);
        self.restart()
    }

    /// Runs a batch from the beginning of `cases`. Gives the reason if the child ended, while it
    /// ran the one behind the last whose outcome there is.
    fn outcomes(&mut self, cases: &[Case], found: &mut Vec<Outcome>) -> io::Result<Option<String>> {
        if self.server.process().is_none() {
            self.restart()?;
        }
        self.encoder.clear();
        let first_tag = self.encoder.tag;
        let most = if self.apart > 0 { 1 } else { BATCH };
        self.apart = self.apart.saturating_sub(1);
        let added = cases.iter().take(most).take_while(|case| self.encoder.add(case)).count();
        let end = self.server.serve(&self.encoder.bytes, added)?;
        let finished = self.server.outcomes(&mut self.records).min(added);
        let mut records = self.records.as_slice();
        for (case, tag) in cases[..finished].iter().zip(first_tag..) {
            match (self.decoder.take(case, tag, records), &end) {
                (Ok((outcome, rest)), _) => {
                    found.push(outcome);
                    records = rest;
                }
                (Err(_), End::Died(_)) => break,
                (Err(_), End::Done) => {
                    self.server.end();
                    return Ok(Some("it wrote over the engine's own memory".to_owned()));
                }
            }
        }
        Ok(match end {
            End::Done if finished == 0 => {
                self.server.end();
                Some("it left nothing".to_owned())
            }
            End::Done => None,
            End::Died(how) => Some(how),
        })
    }

    fn run_all(&mut self, cases: &[Case]) -> io::Result<Vec<Outcome>> {
        let mut found = Vec::with_capacity(cases.len());
        // The case that the child ended with last, and how often.
        let mut suspect = (usize::MAX, 0);
        while found.len() < cases.len() {
            let rest = &cases[found.len()..];
            let good = rest.iter().take_while(|case| self.refuses(case).is_none()).count();
            if good == 0 {
                let reason = self.refuses(&rest[0]).unwrap_or_default();
                found.push(lost(&rest[0], reason.to_owned()));
                continue;
            }
            if let Some(how) = self.outcomes(&rest[..good], &mut found)? {
                // What it wrote may have been the outcomes of cases before it.
                self.apart = BATCH;
                let at = found.len();
                suspect = if suspect.0 == at { (at, suspect.1 + 1) } else { (at, 1) };
                if suspect.1 >= DEATHS {
                    found.push(lost(&cases[at], how));
                }
            }
        }
        Ok(found)
    }
}

fn lost(case: &Case, why: String) -> Outcome {
    Outcome { stop: Stop::Lost(why), state: case.state.clone(), changes: Vec::new() }
}

/// A case of nothing but its end.
fn probe_case() -> Case {
    use crate::case::{CaseId, Kind, Width};
    use crate::layout::CODE;
    Case {
        id: CaseId::default(),
        kind: Kind::Manual,
        width: Width::Bits64,
        code_at: CODE.start,
        code: Vec::new(),
        state: Default::default(),
        memory: Vec::new(),
        ldt: Vec::new(),
        limit: 1,
    }
}

impl Engine for HostEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn refuses(&self, case: &Case) -> Option<&'static str> {
        check::refuses(case, self.grants, &self.encoder.xsave, self.vendor)
    }

    fn has_ldt(&self) -> bool {
        self.grants.ldt && self.grants.ldt16
    }

    fn has_avx512(&self) -> bool {
        self.encoder.xsave.has_avx512()
    }

    fn run(&mut self, cases: &[Case]) -> Result<Vec<Outcome>, EngineError> {
        self.run_all(cases).map_err(|source| EngineError::Host { engine: NAME, source })
    }
}
