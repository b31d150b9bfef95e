//! How a running machine changes its CPU.

use std::time::Duration;

use clap::Args;

use super::Accel;

/// What makes a machine change its CPU.
#[derive(Debug, Clone, Args)]
pub struct SwitchOptions {
    /// Change the CPU while the guest runs: after a span of virtual time (100ms, 2s, 500us), after
    /// so many instructions (5000-insns), or after a number of them between two, by chance
    /// (1000..10000-insns, or with ,seed=N other numbers). Under --clock icount always at the same
    /// instructions. SIGUSR1 changes it too, with or without this option.
    #[arg(long, value_name = "SPAN")]
    pub switch_every: Option<SwitchEveryOption>,
    /// The CPUs that take turns; the first begins, whatever --accel says. Without this --accel
    /// begins and the others follow.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "A,B,...")]
    pub switch_cpus: Vec<Accel>,
}

/// When the CPU is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchEveryOption {
    /// After so much virtual time.
    Time(Duration),
    /// After from so many to so many instructions, by chance.
    Instructions {
        /// The fewest.
        least: u64,
        /// The most.
        most: u64,
        /// What chance depends on.
        seed: u64,
    },
}

const USE: &str = "use 100ms, 5000-insns or 1000..10000-insns";

/// Units of time, longest name first.
const UNITS: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let nanos = number.parse::<u64>().ok()?.checked_mul(*unit)?;
    (nanos > 0).then(|| Duration::from_nanos(nanos))
}

fn parse_instructions(text: &str) -> Option<SwitchEveryOption> {
    let (text, seed) = match text.split_once(",seed=") {
        Some((text, seed)) => (text, seed.parse().ok()?),
        None => (text, 1),
    };
    let number = text.strip_suffix("-insns")?;
    let (least, most) = number.split_once("..").unwrap_or((number, number));
    let (least, most) = (least.parse().ok()?, most.parse().ok()?);
    (0 < least && least <= most).then_some(SwitchEveryOption::Instructions { least, most, seed })
}

impl std::str::FromStr for SwitchEveryOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = parse_time(text).map(Self::Time);
        time.or_else(|| parse_instructions(text)).ok_or_else(|| USE.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_time_or_instructions() {
        let time = |nanos| Ok(SwitchEveryOption::Time(Duration::from_nanos(nanos)));
        assert_eq!("100ms".parse(), time(100_000_000));
        assert_eq!("2s".parse(), time(2_000_000_000));
        assert_eq!("5us".parse(), time(5_000));
        assert_eq!("7ns".parse(), time(7));
        let instructions =
            |least, most, seed| Ok(SwitchEveryOption::Instructions { least, most, seed });
        assert_eq!("5000-insns".parse(), instructions(5000, 5000, 1));
        assert_eq!("1000..10000-insns,seed=9".parse(), instructions(1000, 10_000, 9));
        for wrong in ["", "5", "0ms", "0-insns", "9..3-insns", "s", "1..2", "99999999999999999s"] {
            assert_eq!(wrong.parse::<SwitchEveryOption>(), Err(USE.to_owned()), "{wrong}");
        }
    }
}
