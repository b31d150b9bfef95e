//! The saved state of the 16550A.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError, VmTime};

use super::Uart16550;
use super::core::{Core, FIFO_SIZE, Received, Transmitter};
use super::registers::{Fcr, Ier, Lcr, Lsr, Mcr, Msr};

const VERSION: u32 = 2;

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
    waiting: Vec<u8>,
    shifting: Option<u8>,
    pair: bool,
    shifted_at: VmTime,
    thr_empty_at: Option<VmTime>,
    receives_at: VmTime,
    line: bool,
}

const RESERVED: StateError = StateError::Impossible("reserved bits of a 16550A");

impl SaveRestore for Uart16550 {
    fn save(&self) -> Section {
        let Self {
            core,
            timeout_at,
            paced: _,
            shifted_at,
            thr_empty_at,
            receives_at,
            line,
            clock: _,
            irq: _,
            backend: _,
        } = self;
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
            transmitter: Transmitter { waiting, shifting, pair },
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
            waiting: waiting.iter().copied().collect(),
            shifting: *shifting,
            pair: *pair,
            shifted_at: *shifted_at,
            thr_empty_at: *thr_empty_at,
            receives_at: *receives_at,
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
            waiting,
            shifting,
            pair,
            shifted_at,
            thr_empty_at,
            receives_at,
            line,
        } = section.decode(VERSION)?;
        if receiver.len() > FIFO_SIZE || waiting.len() > FIFO_SIZE {
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
            transmitter: Transmitter { waiting: waiting.into(), shifting, pair },
        };
        self.timeout_at = timeout_at;
        self.shifted_at = shifted_at;
        self.thr_empty_at = thr_empty_at;
        self.receives_at = receives_at;
        self.line = line;
        Ok(())
    }
}
