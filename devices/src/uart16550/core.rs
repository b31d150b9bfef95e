//! The registers of a 16550A, as the PC16550D data sheet describes them, with nothing around them.

use std::collections::VecDeque;

use super::registers::{Fcr, IIR_FIFOS, IIR_NONE, Ier, Interrupt, Lcr, Lsr, Mcr, Msr};

/// Characters in each FIFO.
pub(super) const FIFO_SIZE: usize = 16;
/// The receiver's trigger levels (FCR bits 7 and 6).
const TRIGGER_LEVELS: [usize; 4] = [1, 4, 8, 14];

/// A received character with what was wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) byte: u8,
    /// PE, FE and BI.
    pub(super) errors: Lsr,
}

/// What a register access asks of the world outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// None.
    Quiet,
    /// This character is in THR. It leaves at once, after which [`Core::transmitted`] is to be
    /// called, or it goes to [`Core::queue`].
    Transmit(u8),
    /// The line goes into the break condition, or out of it.
    Break(bool),
}

/// The transmitter of a port that takes the time of its baud rate; empty in one that does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Transmitter {
    /// The transmitter's FIFO; without FIFOs it holds one character, THR.
    pub(super) waiting: VecDeque<u8>,
    /// TSR, the shift register.
    pub(super) shifting: Option<u8>,
    /// Two characters were in the FIFO at the same time since THRE was last set.
    pub(super) pair: bool,
}

/// What became of THR when TSR took a character from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loaded {
    /// There is more in the FIFO.
    More,
    /// It is empty, and its interrupt has come.
    Empty,
    /// It is empty, but "the transmitter FIFO empty indications will be delayed 1 character time
    /// minus the last stop bit time": [`Core::thr_is_empty`] is to be called then.
    EmptyLater,
}

/// The registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Core {
    /// The receiver's FIFO; without FIFOs it holds one character, RBR.
    pub(super) receiver: VecDeque<Received>,
    pub(super) ier: Ier,
    pub(super) fcr: Fcr,
    pub(super) lcr: Lcr,
    pub(super) mcr: Mcr,
    /// OE, and the errors of the character on top, until LSR is read.
    pub(super) errors: Lsr,
    /// The deltas that MSR has gathered.
    pub(super) deltas: Msr,
    /// The modem's lines, as they come from outside.
    pub(super) lines: Msr,
    pub(super) scratch: u8,
    /// DLL and DLM.
    pub(super) divisor: u16,
    /// THR became empty, and IIR has not yet told.
    pub(super) thr_empty: bool,
    /// The character timeout has come.
    pub(super) timeout: bool,
    pub(super) transmitter: Transmitter,
}

impl Core {
    /// A port after MR (master reset), with a terminal at the other end: CTS, DSR and DCD are on.
    pub(super) fn new() -> Self {
        Self {
            receiver: VecDeque::with_capacity(FIFO_SIZE),
            ier: Ier::empty(),
            fcr: Fcr::empty(),
            lcr: Lcr::empty(),
            mcr: Mcr::empty(),
            errors: Lsr::empty(),
            deltas: Msr::empty(),
            lines: Msr::CTS | Msr::DSR | Msr::DCD,
            scratch: 0,
            // 9,600 baud; the data sheet leaves it undefined.
            divisor: 12,
            thr_empty: false,
            timeout: false,
            transmitter: Transmitter::default(),
        }
    }

    /// MR: the data sheet's table of reset states leaves divisor and scratch register alone.
    pub(super) fn reset(&mut self) {
        *self =
            Self { lines: self.lines, scratch: self.scratch, divisor: self.divisor, ..Self::new() };
    }

    /// Reads register `offset` (0 to 7).
    pub(super) fn read(&mut self, offset: u8) -> u8 {
        let [dll, dlm] = self.divisor.to_le_bytes();
        match offset {
            0 if self.is_dlab() => dll,
            0 => self.read_rbr(),
            1 if self.is_dlab() => dlm,
            1 => self.ier.bits(),
            2 => self.read_iir(),
            3 => self.lcr.bits(),
            4 => self.mcr.bits(),
            5 => self.read_lsr(),
            6 => self.read_msr(),
            _ => self.scratch,
        }
    }

    /// Writes register `offset` (0 to 7).
    pub(super) fn write(&mut self, offset: u8, value: u8) -> Effect {
        let [dll, dlm] = self.divisor.to_le_bytes();
        match offset {
            0 if self.is_dlab() => self.divisor = u16::from_le_bytes([value, dlm]),
            0 => return self.write_thr(value),
            1 if self.is_dlab() => self.divisor = u16::from_le_bytes([dll, value]),
            1 => self.write_ier(Ier::from_bits_truncate(value)),
            2 => self.write_fcr(Fcr::from_bits_truncate(value)),
            3 => return self.write_lcr(Lcr::from_bits_retain(value)),
            4 => self.write_mcr(Mcr::from_bits_truncate(value)),
            // LSR and MSR: "intended for read operations only"; factory tests are left out.
            5 | 6 => {}
            _ => self.scratch = value,
        }
        Effect::Quiet
    }

    fn is_dlab(&self) -> bool {
        self.lcr.contains(Lcr::DLAB)
    }

    pub(super) fn is_fifo(&self) -> bool {
        self.fcr.contains(Fcr::ENABLE)
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.mcr.contains(Mcr::LOOP)
    }

    /// How many characters the receiver holds.
    fn capacity(&self) -> usize {
        if self.is_fifo() { FIFO_SIZE } else { 1 }
    }

    /// How many more characters the receiver takes without an overrun.
    pub(super) fn room(&self) -> usize {
        self.capacity().saturating_sub(self.receiver.len())
    }

    /// A character arrives. Into a full FIFO it is lost; without FIFOs it replaces the one in RBR.
    pub(super) fn receive(&mut self, received: Received) {
        if self.room() == 0 {
            self.errors |= Lsr::OE;
            if self.is_fifo() {
                return;
            }
            self.receiver.clear();
        }
        self.receiver.push_back(received);
        self.timeout = false;
        if self.receiver.len() == 1 {
            self.reveal();
        }
    }

    /// The errors of the character that came to the top show in LSR.
    fn reveal(&mut self) {
        if let Some(top) = self.receiver.front_mut() {
            self.errors |= std::mem::replace(&mut top.errors, Lsr::empty());
        }
    }

    fn read_rbr(&mut self) -> u8 {
        self.timeout = false;
        let Some(received) = self.receiver.pop_front() else { return 0 };
        self.reveal();
        received.byte
    }

    fn write_thr(&mut self, byte: u8) -> Effect {
        self.thr_empty = false;
        Effect::Transmit(byte)
    }

    /// The bits that a character has on the line: WLS.
    pub(super) fn word_mask(&self) -> u8 {
        0xff >> (3 - (self.lcr & Lcr::WLS).bits())
    }

    /// Puts a character into the transmitter's FIFO, where one too many is lost, or into THR, where
    /// it replaces one that has not left.
    pub(super) fn queue(&mut self, byte: u8) {
        let mask = self.word_mask();
        let waiting = &mut self.transmitter.waiting;
        if !self.fcr.contains(Fcr::ENABLE) {
            waiting.clear();
        }
        if waiting.len() < FIFO_SIZE {
            waiting.push_back(byte & mask);
        }
        self.transmitter.pair |= waiting.len() > 1;
    }

    /// TSR takes the next character, if it is free and there is one.
    pub(super) fn load_shift_register(&mut self) -> Option<Loaded> {
        if self.transmitter.shifting.is_some() {
            return None;
        }
        let byte = self.transmitter.waiting.pop_front()?;
        self.transmitter.shifting = Some(byte);
        if !self.transmitter.waiting.is_empty() {
            return Some(Loaded::More);
        }
        let pair = std::mem::take(&mut self.transmitter.pair);
        if self.is_fifo() && !pair {
            return Some(Loaded::EmptyLater);
        }
        self.thr_empty = true;
        Some(Loaded::Empty)
    }

    /// THRE's delayed interrupt comes, unless THR has been filled meanwhile.
    pub(super) fn thr_is_empty(&mut self) {
        self.thr_empty |= self.transmitter.waiting.is_empty();
    }

    /// THR's character is out: LSR never shows THR full, but the interrupt comes anew. In loopback
    /// the character has come in again.
    pub(super) fn transmitted(&mut self, byte: u8) {
        self.thr_empty = true;
        if self.is_loopback() {
            let byte = byte & self.word_mask();
            self.receive(Received { byte, errors: Lsr::empty() });
        }
    }

    /// Enabling the THR interrupt while THR is empty gives it immediately.
    fn write_ier(&mut self, ier: Ier) {
        if (ier - self.ier).contains(Ier::ETBEI) && self.transmitter.waiting.is_empty() {
            self.thr_empty = true;
        }
        self.ier = ier;
    }

    /// "Bit 0 must be a 1 when other FCR bits are written to or they will not be programmed", and
    /// changing it clears the FIFOs.
    fn write_fcr(&mut self, fcr: Fcr) {
        let toggled = (fcr ^ self.fcr).contains(Fcr::ENABLE);
        if toggled || fcr.contains(Fcr::ENABLE | Fcr::RCVR_RESET) {
            self.receiver.clear();
            self.timeout = false;
        }
        if (toggled || fcr.contains(Fcr::ENABLE | Fcr::XMIT_RESET))
            && !self.transmitter.waiting.is_empty()
        {
            self.transmitter.waiting.clear();
            self.thr_empty = true;
        }
        // "The first transmitter interrupt after changing FCR0 will be immediate."
        self.transmitter.pair |= toggled;
        self.fcr = if fcr.contains(Fcr::ENABLE) {
            fcr - (Fcr::RCVR_RESET | Fcr::XMIT_RESET)
        } else {
            Fcr::empty()
        };
    }

    /// "The break control bit acts only on SOUT and has no effect on the transmitter logic": in
    /// loopback, which connects TSR and holds SOUT, nothing comes in.
    fn write_lcr(&mut self, lcr: Lcr) -> Effect {
        let changed = (lcr ^ self.lcr).contains(Lcr::BREAK);
        self.lcr = lcr;
        if !changed || self.is_loopback() {
            return Effect::Quiet;
        }
        Effect::Break(lcr.contains(Lcr::BREAK))
    }

    /// "When break occurs only one zero character is loaded into the FIFO."
    pub(super) fn receive_break(&mut self) {
        self.receive(Received { byte: 0, errors: Lsr::BI });
    }

    fn write_mcr(&mut self, mcr: Mcr) {
        let before = self.modem_lines();
        self.mcr = mcr;
        self.note_deltas(before);
    }

    /// The modem's lines change outside; loopback disconnects them.
    pub(super) fn set_lines(&mut self, lines: Msr) {
        let before = self.modem_lines();
        self.lines = lines & Msr::LINES;
        self.note_deltas(before);
    }

    /// The lines that MSR shows: in loopback RTS, DTR, OUT1 and OUT2 as CTS, DSR, RI and DCD.
    fn modem_lines(&self) -> Msr {
        if !self.is_loopback() {
            return self.lines;
        }
        [(Mcr::RTS, Msr::CTS), (Mcr::DTR, Msr::DSR), (Mcr::OUT1, Msr::RI), (Mcr::OUT2, Msr::DCD)]
            .into_iter()
            .filter(|&(output, _)| self.mcr.contains(output))
            .fold(Msr::empty(), |lines, (_, input)| lines | input)
    }

    fn note_deltas(&mut self, before: Msr) {
        let now = self.modem_lines();
        let changed = before ^ now;
        let ring_ended = (before - now) & Msr::RI;
        // Each delta lies four bits below its line.
        let deltas = changed & (Msr::CTS | Msr::DSR | Msr::DCD) | ring_ended;
        self.deltas |= Msr::from_bits_truncate(deltas.bits() >> 4);
    }

    fn read_msr(&mut self) -> u8 {
        let deltas = std::mem::replace(&mut self.deltas, Msr::empty());
        (self.modem_lines() | deltas).bits()
    }

    fn read_lsr(&mut self) -> u8 {
        let mut lsr = self.errors;
        let (thr, tsr) = (self.transmitter.waiting.is_empty(), self.transmitter.shifting.is_none());
        lsr.set(Lsr::THRE, thr);
        lsr.set(Lsr::TEMT, thr && tsr);
        lsr.set(Lsr::DR, !self.receiver.is_empty());
        lsr.set(Lsr::FIFO_ERROR, self.is_fifo() && self.has_fifo_error());
        self.errors = Lsr::empty();
        lsr.bits()
    }

    /// Whether a character of the FIFO, the one on top included, has an error.
    fn has_fifo_error(&self) -> bool {
        self.errors.intersects(Lsr::PE | Lsr::FE | Lsr::BI)
            || self.receiver.iter().any(|received| !received.errors.is_empty())
    }

    fn trigger_level(&self) -> usize {
        let level = usize::from((self.fcr & Fcr::TRIGGER).bits() >> 6);
        if self.is_fifo() { TRIGGER_LEVELS.get(level).copied().unwrap_or(1) } else { 1 }
    }

    /// The pending interrupt of the highest priority (data sheet, table IV).
    pub(super) fn interrupt(&self) -> Option<Interrupt> {
        let triggered = self.receiver.len() >= self.trigger_level();
        [
            (Ier::ELSI, self.errors.intersects(Lsr::ERRORS), Interrupt::ReceiverLineStatus),
            (Ier::ERBFI, triggered, Interrupt::ReceivedData),
            (Ier::ERBFI, self.timeout, Interrupt::CharacterTimeout),
            (Ier::ETBEI, self.thr_empty, Interrupt::ThrEmpty),
            (Ier::EDSSI, !self.deltas.is_empty(), Interrupt::ModemStatus),
        ]
        .into_iter()
        .find(|&(enable, pending, _)| pending && self.ier.contains(enable))
        .map(|(_, _, interrupt)| interrupt)
    }

    /// The INTR pin behind a PC's gate: OUT2 connects it, and loopback takes OUT2 off.
    pub(super) fn intr(&self) -> bool {
        let connected = self.mcr.contains(Mcr::OUT2) && !self.is_loopback();
        connected && self.interrupt().is_some()
    }

    fn read_iir(&mut self) -> u8 {
        let interrupt = self.interrupt();
        if interrupt == Some(Interrupt::ThrEmpty) {
            self.thr_empty = false;
        }
        let fifos = if self.is_fifo() { IIR_FIFOS } else { 0 };
        interrupt.map_or(IIR_NONE, |interrupt| interrupt as u8) | fifos
    }

    /// Whether the character timeout is running: characters lie in the FIFO below its trigger level.
    pub(super) fn awaits_timeout(&self) -> bool {
        self.is_fifo()
            && !self.timeout
            && !self.receiver.is_empty()
            && self.receiver.len() < self.trigger_level()
    }

    /// The bits of a character on the line, with start, parity and stop bits, doubled: stop bits
    /// may be one and a half.
    pub(super) fn half_bits_per_character(&self) -> u64 {
        let data = u64::from((self.lcr & Lcr::WLS).bits()) + 5;
        let parity = u64::from(self.lcr.contains(Lcr::PEN));
        let stop = match (self.lcr.contains(Lcr::STB), data) {
            (false, _) => 2,
            (true, 5) => 3,
            (true, _) => 4,
        };
        2 * (1 + data + parity) + stop
    }
}
