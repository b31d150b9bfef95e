//! `--rtc`: what the real-time clock shows first, what it follows, and what becomes of ticks that the
//! host was too late for.

use std::str::FromStr;

use clap::ValueEnum;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// What `--rtc` says; what it leaves open depends on `--clock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RtcOption {
    /// What the clock shows when the machine starts.
    pub base: Option<RtcBase>,
    /// What the clock follows.
    pub clock: Option<RtcClock>,
    /// What becomes of lost ticks.
    pub lost_ticks: LostTicksOption,
}

/// What the clock shows when the machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtcBase {
    /// The host's time, as UTC.
    Utc,
    /// The host's time in its own zone.
    LocalTime,
    /// This, in seconds since 1970-01-01 00:00:00.
    Seconds(u64),
}

/// What the clock follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RtcClock {
    /// Virtual time.
    Vm,
    /// The host's clock, over stops of the machine.
    Host,
}

/// What becomes of lost ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LostTicksOption {
    /// They come later, at the normal rate.
    #[default]
    Delay,
    /// They come faster until none is missing.
    Catchup,
    /// They are dropped.
    Discard,
}

impl FromStr for RtcOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut option = Self::default();
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("base", value)) => option.base = Some(value.parse()?),
                Some(("clock", value)) => option.clock = Some(choose(part, value)?),
                Some(("lost-ticks", value)) => option.lost_ticks = choose(part, value)?,
                Some((name, _)) => {
                    return Err(format!("there is no '{name}'; use base=, clock= or lost-ticks="));
                }
                None => option.base = Some(part.parse()?),
            }
        }
        Ok(option)
    }
}

/// One of the values of an enumeration.
fn choose<T: ValueEnum>(part: &str, value: &str) -> Result<T, String> {
    T::from_str(value, false).map_err(|_| {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
        format!("'{part}' is not known; use {}", names.join(", "))
    })
}

impl FromStr for RtcBase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "utc" => return Ok(Self::Utc),
            "localtime" => return Ok(Self::LocalTime),
            _ => {}
        }
        if let Ok(seconds) = text.parse() {
            return Ok(Self::Seconds(seconds));
        }
        let date = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(DateTime::from));
        let seconds = date.ok().and_then(|date| seconds(date.to_zoned(TimeZone::UTC).ok()?));
        seconds.map(Self::Seconds).ok_or_else(|| {
            "use utc, localtime, a date such as 2026-11-21 or 2026-11-21T12:00:00, or seconds \
             since 1970"
                .into()
        })
    }
}

impl RtcBase {
    /// What the clock shows: seconds since 1970-01-01 00:00:00 of its own zone.
    #[must_use]
    pub fn seconds(self) -> u64 {
        match self {
            Self::Utc => Timestamp::now().as_second().try_into().unwrap_or(0),
            Self::LocalTime => wall_seconds(&Zoned::now()),
            Self::Seconds(seconds) => seconds,
        }
    }
}

fn seconds(moment: Zoned) -> Option<u64> {
    moment.timestamp().as_second().try_into().ok()
}

/// What a clock on the wall shows, as seconds since its 1970-01-01 00:00:00.
fn wall_seconds(moment: &Zoned) -> u64 {
    let shown = moment.timestamp().as_second() + i64::from(moment.offset().seconds());
    shown.try_into().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21 12:00:00 UTC, by `date -u -d`.
    const NOON: u64 = 1_795_262_400;

    fn base(text: &str) -> Option<RtcBase> {
        text.parse::<RtcOption>().expect("it is good").base
    }

    #[test]
    fn dates_are_those_of_qemu() {
        assert_eq!(base("base=2026-11-21T12:00:00"), Some(RtcBase::Seconds(NOON)));
        assert_eq!(base("base=2026-11-21"), Some(RtcBase::Seconds(NOON - 12 * 3600)));
        assert_eq!(base("base=utc"), Some(RtcBase::Utc));
        assert_eq!(base("localtime"), Some(RtcBase::LocalTime));
        assert_eq!(base("1795262400"), Some(RtcBase::Seconds(NOON)));
        assert_eq!(base("clock=vm"), None);
    }

    #[test]
    fn parts_come_in_any_order() {
        let option = "lost-ticks=catchup,base=2026-11-21,clock=host".parse();
        let expected = RtcOption {
            base: Some(RtcBase::Seconds(NOON - 12 * 3600)),
            clock: Some(RtcClock::Host),
            lost_ticks: LostTicksOption::Catchup,
        };
        assert_eq!(option, Ok(expected));
    }

    #[test]
    fn mistakes_are_told_with_what_would_be_right() {
        for (wrong, remedy) in [
            ("base=tomorrow", "2026-11-21T12:00:00"),
            ("base=2026-13-01", "use utc"),
            ("base=1969-12-31", "use utc"),
            ("clock=rt", "vm, host"),
            ("lost-ticks=slew", "delay, catchup, discard"),
            ("driftfix=slew", "lost-ticks="),
            ("", "use utc"),
        ] {
            let message = wrong.parse::<RtcOption>().expect_err("this is a mistake");
            assert!(message.contains(remedy), "{wrong}: {message}");
        }
    }

    #[test]
    fn local_time_is_what_the_clock_on_the_wall_shows() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let noon = Timestamp::from_second(NOON as i64).expect("it is one").to_zoned(zone);
        assert_eq!(wall_seconds(&noon), NOON + 2 * 3600);
    }
}
