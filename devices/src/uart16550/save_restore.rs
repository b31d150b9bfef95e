//! The saved state of the 16550A.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError, VmTime};

use super::Uart16550;
use super::core::{Core, FIFO_SIZE, Received};
use super::registers::{Fcr, Ier, Lcr, Lsr, Mcr, Msr};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    /// Characters with their errors, the oldest first.
    receiver: Vec<(u8, u8)>,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    errors: u8,
    deltas: u8,
    lines: u8,
    scratch: u8,
    divisor: u16,
    thr_empty: bool,
    timeout: bool,
    timeout_at: Option<VmTime>,
    line: bool,
}

const RESERVED: StateError = StateError::Impossible("reserved bits of a 16550A");

impl SaveRestore for Uart16550 {
    fn save(&self) -> Section {
        let Self { core, timeout_at, line, clock: _, irq: _, backend: _ } = self;
        let Core {
            receiver,
            ier,
            fcr,
            lcr,
            mcr,
            errors,
            deltas,
            lines,
            scratch,
            divisor,
            thr_empty,
            timeout,
        } = core;
        let saved = Saved {
            receiver: receiver
                .iter()
                .map(|&Received { byte, errors }| (byte, errors.bits()))
                .collect(),
            ier: ier.bits(),
            fcr: fcr.bits(),
            lcr: lcr.bits(),
            mcr: mcr.bits(),
            errors: errors.bits(),
            deltas: deltas.bits(),
            lines: lines.bits(),
            scratch: *scratch,
            divisor: *divisor,
            thr_empty: *thr_empty,
            timeout: *timeout,
            timeout_at: *timeout_at,
            line: *line,
        };
        Section::encode(VERSION, &saved)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let Saved {
            receiver,
            ier,
            fcr,
            lcr,
            mcr,
            errors,
            deltas,
            lines,
            scratch,
            divisor,
            thr_empty,
            timeout,
            timeout_at,
            line,
        } = section.decode(VERSION)?;
        if receiver.len() > FIFO_SIZE {
            return Err(StateError::Impossible("too many characters in a 16550A"));
        }
        let receiver = receiver
            .into_iter()
            .map(|(byte, errors)| Some(Received { byte, errors: Lsr::from_bits(errors)? }))
            .collect::<Option<_>>()
            .ok_or(RESERVED)?;
        self.core = Core {
            receiver,
            ier: Ier::from_bits(ier).ok_or(RESERVED)?,
            fcr: Fcr::from_bits(fcr).ok_or(RESERVED)?,
            lcr: Lcr::from_bits(lcr).ok_or(RESERVED)?,
            mcr: Mcr::from_bits(mcr).ok_or(RESERVED)?,
            errors: Lsr::from_bits(errors).ok_or(RESERVED)?,
            deltas: Msr::from_bits(deltas).ok_or(RESERVED)?,
            lines: Msr::from_bits(lines).ok_or(RESERVED)?,
            scratch,
            divisor,
            thr_empty,
            timeout,
        };
        self.timeout_at = timeout_at;
        self.line = line;
        Ok(())
    }
}
