//! One counter of an 8254 as its data sheet (Intel order number 231164) describes it, in all six
//! modes. It is moved on by any number of clock pulses in constant time.

use bitflags::bitflags;

bitflags! {
    /// The low six bits of a control word, which are also those of a status byte.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Control: u8 {
        /// Counts in four decimal digits.
        const BCD = 1 << 0;
        /// M0, M1 and M2: the mode.
        const MODE = 7 << 1;
        /// RW0: the least significant byte is read and written.
        const LSB = 1 << 4;
        /// RW1: the most significant byte is read and written.
        const MSB = 1 << 5;
    }
}

/// Status byte: the OUT pin.
const STATUS_OUTPUT: u8 = 1 << 7;
/// Status byte: the count last written has not reached the counting element.
const STATUS_NULL_COUNT: u8 = 1 << 6;

/// The counting modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Mode 0.
    InterruptOnTerminalCount,
    /// Mode 1.
    RetriggerableOneShot,
    /// Mode 2.
    RateGenerator,
    /// Mode 3.
    SquareWave,
    /// Mode 4.
    SoftwareStrobe,
    /// Mode 5.
    HardwareStrobe,
}

use Mode::{
    HardwareStrobe, InterruptOnTerminalCount, RateGenerator, RetriggerableOneShot, SoftwareStrobe,
    SquareWave,
};

impl Control {
    /// M2 is a don't-care bit in modes 2 and 3.
    pub(super) fn mode(self) -> Mode {
        match (self & Self::MODE).bits() >> 1 {
            0 => InterruptOnTerminalCount,
            1 => RetriggerableOneShot,
            2 | 6 => RateGenerator,
            3 | 7 => SquareWave,
            4 => SoftwareStrobe,
            _ => HardwareStrobe,
        }
    }

    /// The numbers that the counting element can hold: 65,536 or 10,000.
    pub(super) fn modulus(self) -> u32 {
        if self.contains(Self::BCD) { 10_000 } else { 0x1_0000 }
    }
}

/// What the counting element (CE) does at the next clock pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It stands: no count was written since the control word.
    Idle,
    /// It stands: modes 1 and 5 have their count and await a trigger.
    Armed,
    /// It takes the count register.
    Load,
    /// It counts, as far as GATE lets it.
    Counting,
}

/// What OUT did while time passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Edges {
    pub(super) rose: bool,
    pub(super) fell: bool,
}

/// One counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) control: Control,
    pub(super) phase: Phase,
    /// The count register: 1 to the modulus.
    pub(super) count: u32,
    /// The first byte of a count in two bytes.
    pub(super) first_byte: Option<u8>,
    /// The next read of two gives the most significant byte.
    pub(super) read_msb: bool,
    /// The output latch.
    pub(super) latched_count: Option<u16>,
    pub(super) latched_status: Option<u8>,
    /// The count register holds what CE has not taken yet.
    pub(super) null_count: bool,
    /// The counting element. In mode 3 the pulses left in this half of the wave, else the count: 0
    /// to the modulus.
    pub(super) ce: u32,
    /// Mode 3: the count that this half of the wave was loaded from.
    pub(super) wave: u32,
    /// Modes 4 and 5: the strobe is still to come.
    pub(super) armed: bool,
    pub(super) gate: bool,
    pub(super) out: bool,
}

impl Channel {
    /// A counter at power-on: the data sheet leaves it undefined, it stands with OUT high.
    pub(super) fn new(gate: bool) -> Self {
        Self {
            control: Control::LSB | Control::MSB,
            phase: Phase::Idle,
            count: 0x1_0000,
            first_byte: None,
            read_msb: false,
            latched_count: None,
            latched_status: None,
            null_count: true,
            ce: 0,
            wave: 2,
            armed: false,
            gate,
            out: true,
        }
    }

    /// A control word for this counter: "all control logic is immediately reset and OUT goes to a
    /// known initial state".
    pub(super) fn program(&mut self, control: Control) {
        let out = control.mode() != InterruptOnTerminalCount;
        let modulus = control.modulus();
        let (ce, count) = (self.ce.min(modulus), self.count.min(modulus));
        *self = Self { control, out, ce, count, ..Self::new(self.gate) };
        if control.mode() == SquareWave {
            // Here CE is a number of pulses; what reads showed before is lost, as nothing counts.
            self.load_wave(true);
        }
    }

    /// The counter latch command. Ignored while a count is latched.
    pub(super) fn latch_count(&mut self) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.reading());
        }
    }

    /// The status part of a read-back command. Ignored while a status is latched.
    pub(super) fn latch_status(&mut self) {
        let output = if self.out { STATUS_OUTPUT } else { 0 };
        let null = if self.null_count { STATUS_NULL_COUNT } else { 0 };
        self.latched_status.get_or_insert(output | null | self.control.bits());
    }

    /// Reads the counter: a latched status first, then a latched count, then the count itself.
    pub(super) fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [lsb, msb] = self.latched_count.unwrap_or_else(|| self.reading()).to_le_bytes();
        let two = self.control.contains(Control::LSB | Control::MSB);
        let use_msb = if two { self.read_msb } else { self.control.contains(Control::MSB) };
        if two {
            self.read_msb = !self.read_msb;
        }
        if !two || use_msb {
            self.latched_count = None;
        }
        if use_msb { msb } else { lsb }
    }

    /// Writes a byte of a count.
    pub(super) fn write(&mut self, byte: u8) {
        let two = self.control.contains(Control::LSB | Control::MSB);
        match self.first_byte.take() {
            Some(lsb) => self.set_count(u16::from_le_bytes([lsb, byte])),
            None if two => {
                self.first_byte = Some(byte);
                if self.control.mode() == InterruptOnTerminalCount {
                    // "Writing the first byte disables counting. OUT is set low immediately."
                    self.phase = Phase::Idle;
                    self.out = false;
                }
            }
            None if self.control.contains(Control::MSB) => {
                self.set_count(u16::from_le_bytes([0, byte]));
            }
            None => self.set_count(byte.into()),
        }
    }

    /// A complete count was written: when CE takes it depends on the mode.
    fn set_count(&mut self, raw: u16) {
        let count = if self.control.contains(Control::BCD) { from_bcd(raw) } else { raw.into() };
        let modulus = self.control.modulus();
        self.count = if count == 0 { modulus } else { count.min(modulus) };
        self.null_count = true;
        match self.control.mode() {
            InterruptOnTerminalCount => {
                self.out = false;
                self.phase = Phase::Load;
            }
            SoftwareStrobe => self.phase = Phase::Load,
            RateGenerator | SquareWave if self.phase == Phase::Idle => self.phase = Phase::Load,
            RetriggerableOneShot | HardwareStrobe if self.phase == Phase::Idle => {
                self.phase = Phase::Armed;
            }
            // The current cycle ends first; modes 1 and 5 wait for a trigger.
            RateGenerator | SquareWave | RetriggerableOneShot | HardwareStrobe => {}
        }
    }

    /// What a read of the count shows, in binary or BCD.
    fn reading(&self) -> u16 {
        let count = match self.control.mode() {
            SquareWave => self.wave_reading(),
            _ => self.ce,
        } % self.control.modulus();
        if self.control.contains(Control::BCD) { to_bcd(count) } else { low_word(count) }
    }

    /// Mode 3 counts by two. From an odd count, one less is loaded, and the high half is one pulse
    /// longer.
    fn wave_reading(&self) -> u32 {
        let odd_high = self.wave % 2 == 1 && self.out;
        self.ce.saturating_sub(odd_high.into()) * 2
    }

    /// The count register as it was written: 0 for the modulus.
    pub(super) fn raw_count(&self) -> u16 {
        let count = self.count % self.control.modulus();
        if self.control.contains(Control::BCD) { to_bcd(count) } else { low_word(count) }
    }

    /// Clock pulses since the counting element took the count register, in the modes that repeat
    /// since it last did.
    pub(super) fn elapsed(&self) -> u64 {
        let done = match self.control.mode() {
            SquareWave if self.out => self.half(true).saturating_sub(self.ce),
            SquareWave => self.half(true) + self.half(false).saturating_sub(self.ce),
            RateGenerator => self.count.saturating_sub(self.ce),
            // These count on through zero.
            _ if self.out && self.control.mode() != SoftwareStrobe => {
                self.count + (self.control.modulus() - self.ce) % self.control.modulus()
            }
            _ if self.ce > self.count => self.count + self.control.modulus() - self.ce,
            _ => self.count - self.ce,
        };
        done.into()
    }

    /// Drives the GATE pin.
    pub(super) fn set_gate(&mut self, gate: bool) {
        let (rises, falls) = (gate && !self.gate, !gate && self.gate);
        self.gate = gate;
        match self.control.mode() {
            // "After writing the control word and initial count, the counter is armed."
            RetriggerableOneShot | HardwareStrobe | RateGenerator | SquareWave
                if rises && self.phase != Phase::Idle =>
            {
                self.phase = Phase::Load;
            }
            // "If GATE goes low while OUT is low, OUT is set high immediately."
            RateGenerator if falls => self.out = true,
            SquareWave if falls && !self.out => {
                // CE stands, and must read as before: see `wave_reading`.
                self.ce += self.wave % 2;
                self.out = true;
            }
            _ => {}
        }
    }

    /// Whether GATE lets CE count.
    fn counts(&self) -> bool {
        self.phase == Phase::Counting
            && (self.gate || matches!(self.control.mode(), RetriggerableOneShot | HardwareStrobe))
    }

    /// Lets `pulses` clock pulses pass.
    pub(super) fn advance(&mut self, mut pulses: u64) -> Edges {
        let mut edges = Edges::default();
        if pulses > 0 && self.phase == Phase::Load {
            self.load(&mut edges);
            pulses -= 1;
        }
        if pulses == 0 {
            return edges;
        }
        if self.ends_strobe() {
            // The one low pulse of modes 4 and 5 ends whether or not GATE lets CE count.
            self.set_out(true, &mut edges);
        }
        if self.counts() {
            self.count_down(pulses, &mut edges);
        }
        edges
    }

    /// Modes 4 and 5: OUT is low, and goes high at the next pulse.
    fn ends_strobe(&self) -> bool {
        !self.out && matches!(self.control.mode(), SoftwareStrobe | HardwareStrobe)
    }

    /// The pulse at which CE takes the count register.
    fn load(&mut self, edges: &mut Edges) {
        self.phase = Phase::Counting;
        self.null_count = false;
        self.ce = self.count;
        match self.control.mode() {
            InterruptOnTerminalCount => {}
            RetriggerableOneShot => self.set_out(false, edges),
            RateGenerator => self.set_out(self.gate_high_or(self.count != 1), edges),
            SquareWave => {
                self.set_out(true, edges);
                self.load_wave(true);
            }
            SoftwareStrobe | HardwareStrobe => {
                self.set_out(true, edges);
                self.armed = true;
            }
        }
    }

    /// Modes 2 and 3: without GATE, OUT is high.
    fn gate_high_or(&self, out: bool) -> bool {
        out || !self.gate
    }

    fn count_down(&mut self, pulses: u64, edges: &mut Edges) {
        match self.control.mode() {
            InterruptOnTerminalCount | RetriggerableOneShot => {
                if self.decrement(pulses) {
                    self.set_out(true, edges);
                }
            }
            RateGenerator => self.advance_rate(pulses, edges),
            SquareWave => self.advance_wave(pulses, edges),
            SoftwareStrobe | HardwareStrobe => self.advance_strobe(pulses, edges),
        }
    }

    /// Counts down through zero and around; says whether the terminal count was reached.
    fn decrement(&mut self, pulses: u64) -> bool {
        let modulus = u64::from(self.control.modulus());
        let ce = u64::from(self.ce);
        let reached = ce > 0 && pulses >= ce;
        let left =
            if pulses <= ce { ce - pulses } else { (modulus - (pulses - ce) % modulus) % modulus };
        self.ce = low_dword(left);
        reached
    }

    /// Mode 2: from the count to 1, where OUT is low.
    fn advance_rate(&mut self, pulses: u64, edges: &mut Edges) {
        let ce = u64::from(self.ce.max(1));
        if pulses < ce {
            self.ce = low_dword(ce - pulses);
        } else {
            let past = (pulses - ce) % u64::from(self.count);
            self.ce = self.count - low_dword(past);
            self.null_count = false;
            // OUT was low for at least one pulse, and rose. A count of 1 is illegal: OUT stays low.
            self.set_out(false, edges);
            if self.count > 1 {
                self.set_out(true, edges);
            }
        }
        self.set_out(self.ce != 1, edges);
    }

    /// Mode 3: two halves, of which the high one has the odd pulse.
    fn advance_wave(&mut self, pulses: u64, edges: &mut Edges) {
        let ce = u64::from(self.ce.max(1));
        if pulses < ce {
            self.ce = low_dword(ce - pulses);
            return;
        }
        let mut past = pulses - ce;
        let period = u64::from(self.half(true)) + u64::from(self.half(false));
        self.toggle(edges);
        if past >= period {
            past %= period;
            self.toggle(edges);
            self.toggle(edges);
        }
        if past >= self.half(self.out).into() {
            past -= u64::from(self.half(self.out));
            self.toggle(edges);
        }
        self.null_count = false;
        self.load_wave(self.out);
        self.ce -= low_dword(past);
    }

    fn toggle(&mut self, edges: &mut Edges) {
        self.set_out(!self.out, edges);
    }

    fn load_wave(&mut self, high: bool) {
        self.wave = self.count;
        self.ce = self.half(high);
    }

    /// The length of a half of mode 3's wave, in pulses. A count of 1 is illegal; its low half has
    /// one pulse here.
    fn half(&self, high: bool) -> u32 {
        (if high { self.count.div_ceil(2) } else { self.count / 2 }).max(1)
    }

    /// Modes 4 and 5: OUT is low for one pulse when the count expires.
    fn advance_strobe(&mut self, pulses: u64, edges: &mut Edges) {
        let ce = u64::from(self.ce);
        let reached = self.decrement(pulses);
        if reached && std::mem::take(&mut self.armed) {
            self.set_out(false, edges);
            self.set_out(pulses > ce, edges);
        }
    }

    /// How often OUT rises within the next `pulses`, and every how many pulses it does, in the
    /// modes that repeat.
    pub(super) fn rises_within(&self, pulses: u64) -> Option<(u64, u64)> {
        if !self.counts() {
            return None;
        }
        let ce = u64::from(self.ce);
        let (period, first) = match self.control.mode() {
            RateGenerator if self.count > 1 => (self.count.into(), ce),
            SquareWave => {
                let low = u64::from(self.half(false));
                (low + u64::from(self.half(true)), if self.out { ce + low } else { ce })
            }
            _ => return None,
        };
        let rises = pulses.checked_sub(first).map_or(0, |past| 1 + past / period);
        Some((rises, period))
    }

    /// How many pulses there are until OUT changes, if it does. Mode 2's low pulse is passed over:
    /// its rise is what counts.
    pub(super) fn pulses_to_edge(&self) -> Option<u64> {
        let mode = self.control.mode();
        if self.phase == Phase::Load {
            return self.pulses_after_load().map(|pulses| pulses + 1);
        }
        if self.ends_strobe() {
            return Some(1);
        }
        if !self.counts() {
            return None;
        }
        let ce = u64::from(self.ce);
        let runs = match mode {
            InterruptOnTerminalCount | RetriggerableOneShot => !self.out && ce > 0,
            RateGenerator => self.count > 1 || self.ce > 1,
            SquareWave => true,
            SoftwareStrobe | HardwareStrobe => self.armed && ce > 0,
        };
        runs.then_some(ce.max(1))
    }

    fn pulses_after_load(&self) -> Option<u64> {
        let count = u64::from(self.count);
        let now = Some(0);
        match self.control.mode() {
            InterruptOnTerminalCount => self.gate.then_some(count),
            RetriggerableOneShot if self.out => now,
            RetriggerableOneShot => Some(count),
            RateGenerator | SquareWave | SoftwareStrobe | HardwareStrobe if !self.out => now,
            RateGenerator => (self.gate && count > 1).then_some(count),
            SquareWave => self.gate.then_some(self.half(true).into()),
            SoftwareStrobe => self.gate.then_some(count),
            HardwareStrobe => Some(count),
        }
    }

    fn set_out(&mut self, out: bool, edges: &mut Edges) {
        edges.rose |= out && !self.out;
        edges.fell |= !out && self.out;
        self.out = out;
    }
}

/// The value of four BCD digits; digits past 9 count as they weigh.
fn from_bcd(raw: u16) -> u32 {
    [12, 8, 4, 0].iter().fold(0, |value, shift| value * 10 + u32::from(raw >> shift & 0xf))
}

/// Four BCD digits of a value below 10,000.
fn to_bcd(value: u32) -> u16 {
    let digit = |weight: u32| value / weight % 10;
    low_word(digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1))
}

/// The low 16 bits.
fn low_word(value: u32) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// The low 32 bits.
fn low_dword(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
