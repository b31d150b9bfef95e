//! The registers of the MC146818 and its memory, as its data sheet describes them: time, alarm, and
//! what an update cycle does to them.

use bitflags::bitflags;

use super::calendar::{Date, unix_weekday, weekday_plus};

/// Addresses of the time, the alarm and the registers.
pub(super) mod address {
    pub(in super::super) const SECONDS: u8 = 0x00;
    pub(in super::super) const SECONDS_ALARM: u8 = 0x01;
    pub(in super::super) const MINUTES: u8 = 0x02;
    pub(in super::super) const MINUTES_ALARM: u8 = 0x03;
    pub(in super::super) const HOURS: u8 = 0x04;
    pub(in super::super) const HOURS_ALARM: u8 = 0x05;
    pub(in super::super) const DAY_OF_WEEK: u8 = 0x06;
    pub(in super::super) const DATE: u8 = 0x07;
    pub(in super::super) const MONTH: u8 = 0x08;
    pub(in super::super) const YEAR: u8 = 0x09;
    pub(in super::super) const A: u8 = 0x0a;
    pub(in super::super) const B: u8 = 0x0b;
    pub(in super::super) const C: u8 = 0x0c;
    pub(in super::super) const D: u8 = 0x0d;
    /// Not the chip's: where PC firmware keeps the century (ACPI's FADT names it).
    pub(in super::super) const CENTURY: u8 = 0x32;
}

bitflags! {
    /// Register A.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct RegisterA: u8 {
        /// RS3 to RS0: the periodic rate.
        const RS = 0x0f;
        /// DV2 to DV0: the time base.
        const DV = 0x70;
        /// Update in progress; read only.
        const UIP = 1 << 7;
        /// DV: a 32,768 Hz time base.
        const DV_32K = 0x20;
    }

    /// Register B.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct RegisterB: u8 {
        /// Daylight savings enable.
        const DSE = 1 << 0;
        /// 24-hour mode.
        const HOURS_24 = 1 << 1;
        /// Data mode: binary, not BCD.
        const DM = 1 << 2;
        /// Square-wave enable: the pin is not connected on a PC.
        const SQWE = 1 << 3;
        /// Update-ended interrupt enable.
        const UIE = 1 << 4;
        /// Alarm interrupt enable.
        const AIE = 1 << 5;
        /// Periodic interrupt enable.
        const PIE = 1 << 6;
        /// Updates are inhibited.
        const SET = 1 << 7;
    }

    /// Register C. Its flags lie where register B has their enables.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct RegisterC: u8 {
        /// Update-ended interrupt flag.
        const UF = 1 << 4;
        /// Alarm interrupt flag.
        const AF = 1 << 5;
        /// Periodic interrupt flag.
        const PF = 1 << 6;
        /// Interrupt request flag.
        const IRQF = 1 << 7;
    }
}

/// Register D: valid RAM and time, the battery is good.
pub(super) const VRT: u8 = 1 << 7;

/// The hours' PM bit in 12-hour mode.
const PM: u8 = 1 << 7;
/// Alarm bytes from C0h on match anything.
const DONT_CARE: u8 = 0xc0;

const SECONDS_PER_DAY: u64 = 86_400;
/// When daylight saving begins and ends, as a second of the day.
const TWO_O_CLOCK: u64 = 7_200;
const SUNDAY: u64 = 1;
const APRIL: u64 = 4;
const OCTOBER: u64 = 10;

/// The chip's 128 bytes, of which registers C and D are kept as they read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) bytes: [u8; Self::SIZE],
    /// Daylight saving has ended today: 1:59:59 was reached once.
    pub(super) fell_back: bool,
}

impl Registers {
    pub(super) const SIZE: usize = 128;

    /// A 24-hour BCD clock with a 32,768 Hz time base that shows `unix_seconds` since 1970.
    pub(super) fn new(unix_seconds: u64) -> Self {
        let mut registers = Self { bytes: [0; Self::SIZE], fell_back: false };
        registers.set(address::A, 0x26);
        registers.set(address::B, RegisterB::HOURS_24.bits());
        registers.set(address::D, VRT);
        let days = unix_seconds / SECONDS_PER_DAY;
        registers.set_second_of_day(unix_seconds % SECONDS_PER_DAY);
        registers.set_date(Date::from_unix_days(days));
        registers.set_number(address::DAY_OF_WEEK, unix_weekday(days));
        registers
    }

    /// The byte at `address`, of which bit 7 counts for nothing.
    pub(super) fn get(&self, address: u8) -> u8 {
        self.bytes.get(usize::from(address & 0x7f)).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, address: u8, value: u8) {
        if let Some(byte) = self.bytes.get_mut(usize::from(address & 0x7f)) {
            *byte = value;
        }
    }

    pub(super) fn a(&self) -> RegisterA {
        RegisterA::from_bits_retain(self.get(address::A))
    }

    pub(super) fn b(&self) -> RegisterB {
        RegisterB::from_bits_retain(self.get(address::B))
    }

    pub(super) fn c(&self) -> RegisterC {
        RegisterC::from_bits_truncate(self.get(address::C))
    }

    /// Sets flags of register C, and IRQF as they and register B want it.
    pub(super) fn raise(&mut self, flags: RegisterC) {
        let mut c = self.c() | flags;
        c.set(RegisterC::IRQF, c.bits() & self.enables() != 0);
        self.set(address::C, c.bits());
    }

    /// The interrupt enables of register B, at the places of their flags.
    fn enables(&self) -> u8 {
        (self.b() & (RegisterB::UIE | RegisterB::AIE | RegisterB::PIE)).bits()
    }

    /// `count` update cycles, one a second.
    pub(super) fn update(&mut self, count: u64) {
        let mut alarm = false;
        let mut left = count;
        while let Some(seconds) = self.seconds_to_daylight_saving().filter(|to| *to <= left) {
            alarm |= self.advance(seconds - 1);
            alarm |= self.advance_from_two();
            left -= seconds;
        }
        alarm |= self.advance(left);
        self.raise(if alarm { RegisterC::UF | RegisterC::AF } else { RegisterC::UF });
    }

    /// Lets `count` seconds pass; says whether the alarm went off in one of them.
    fn advance(&mut self, count: u64) -> bool {
        let alarm = self.seconds_to_alarm().is_some_and(|seconds| seconds <= count);
        let total = self.second_of_day() + count;
        if count > 0 {
            self.set_second_of_day(total % SECONDS_PER_DAY);
        }
        let days = total / SECONDS_PER_DAY;
        if days > 0 && count > 0 {
            self.fell_back = false;
            self.set_date(self.date().plus_days(days));
            let weekday = self.number(address::DAY_OF_WEEK);
            self.set_number(address::DAY_OF_WEEK, weekday_plus(weekday, days));
        }
        alarm
    }

    /// The second after 1:59:59 with DSE set: "On the last Sunday in April the time increments from
    /// 1:59:59 AM to 3:00:00 AM. On the last Sunday in October when the time first reaches 1:59:59
    /// AM it changes to 1:00:00 AM."
    fn advance_from_two(&mut self) -> bool {
        let Date { month, day, .. } = self.date();
        let is_sunday = self.number(address::DAY_OF_WEEK) == SUNDAY;
        let hour = match month {
            APRIL if is_sunday && day + 7 > 30 => 3,
            OCTOBER if is_sunday && day + 7 > 31 && !self.fell_back => 1,
            _ => return self.advance(1),
        };
        self.fell_back = hour == 1;
        self.set_second_of_day(hour * 3600);
        self.alarm_matches_hour(hour)
            && self.alarm_matches(address::MINUTES_ALARM, self.encode(0))
            && self.alarm_matches(address::SECONDS_ALARM, self.encode(0))
    }

    /// With DSE set: in how many seconds (1 to 86,400) it will be 2 o'clock, or would be.
    pub(super) fn seconds_to_daylight_saving(&self) -> Option<u64> {
        let passed = (self.second_of_day() + SECONDS_PER_DAY - TWO_O_CLOCK) % SECONDS_PER_DAY;
        self.b().contains(RegisterB::DSE).then_some(SECONDS_PER_DAY - passed)
    }

    /// In how many seconds (1 to 86,400) the alarm goes off, if ever.
    pub(super) fn seconds_to_alarm(&self) -> Option<u64> {
        use address::{MINUTES_ALARM, SECONDS_ALARM};
        let second = |value| self.alarm_matches(SECONDS_ALARM, self.encode(value));
        let minute = |value| self.alarm_matches(MINUTES_ALARM, self.encode(value));
        let hour = |value| self.alarm_matches_hour(value);
        if !((0..60).any(second) && (0..60).any(minute) && (0..24).any(hour)) {
            return None;
        }
        let now = self.second_of_day();
        let mut after = 1;
        while after <= SECONDS_PER_DAY {
            let then = (now + after) % SECONDS_PER_DAY;
            after += if !hour(then / 3600) {
                3600 - then % 3600
            } else if !minute(then / 60 % 60) {
                60 - then % 60
            } else if !second(then % 60) {
                1
            } else {
                return Some(after);
            };
        }
        None
    }

    fn alarm_matches(&self, alarm: u8, time: u8) -> bool {
        let alarm = self.get(alarm);
        alarm >= DONT_CARE || alarm == time
    }

    fn alarm_matches_hour(&self, hour: u64) -> bool {
        self.alarm_matches(address::HOURS_ALARM, self.encode_hour(hour))
    }

    fn second_of_day(&self) -> u64 {
        self.hour() * 3600 + self.number(address::MINUTES) * 60 + self.number(address::SECONDS)
    }

    fn set_second_of_day(&mut self, second: u64) {
        self.set_number(address::SECONDS, second % 60);
        self.set_number(address::MINUTES, second / 60 % 60);
        self.set(address::HOURS, self.encode_hour(second / 3600));
    }

    fn hour(&self) -> u64 {
        let raw = self.get(address::HOURS);
        if self.b().contains(RegisterB::HOURS_24) {
            return self.decode(raw);
        }
        self.decode(raw & !PM) % 12 + if raw & PM != 0 { 12 } else { 0 }
    }

    fn encode_hour(&self, hour: u64) -> u8 {
        if self.b().contains(RegisterB::HOURS_24) {
            return self.encode(hour);
        }
        let of_half = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(of_half) | if hour >= 12 { PM } else { 0 }
    }

    fn date(&self) -> Date {
        Date {
            year: self.number(address::CENTURY) * 100 + self.number(address::YEAR),
            month: self.number(address::MONTH),
            day: self.number(address::DATE),
        }
    }

    fn set_date(&mut self, date: Date) {
        self.set_number(address::CENTURY, date.year / 100 % 100);
        self.set_number(address::YEAR, date.year % 100);
        self.set_number(address::MONTH, date.month);
        self.set_number(address::DATE, date.day);
    }

    fn number(&self, address: u8) -> u64 {
        self.decode(self.get(address))
    }

    fn set_number(&mut self, address: u8, value: u64) {
        self.set(address, self.encode(value));
    }

    /// A byte of the time in the data mode. BCD digits past 9 count as they weigh.
    fn decode(&self, raw: u8) -> u64 {
        let value = if self.is_binary() { raw } else { (raw >> 4) * 10 + (raw & 0xf) };
        value.into()
    }

    /// A number below 100 in the data mode.
    fn encode(&self, value: u64) -> u8 {
        let value = u8::try_from(value % 100).unwrap_or(0);
        if self.is_binary() { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn is_binary(&self) -> bool {
        self.b().contains(RegisterB::DM)
    }
}
