//! The command line of `trivium crosscheck`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use trivium_cpu::model::CpuModel;
use trivium_crosscheck::lockstep::Sync;
use trivium_machine::kvm::Sample;

use super::{RunOptions, parse_cpu};

/// What `crosscheck` takes.
#[derive(Debug, Args)]
pub struct CrosscheckOptions {
    /// The two engines: interp (the interpreter), jit (the JIT, which translates at once), host (the
    /// processor of this host), manual (a model of paging and privilege, written from the manuals'
    /// tables: system-level cases), kvm (with run: this host's KVM, which runs 64-bit code at CPL 3).
    #[arg(long, default_value = "interp,host", value_delimiter = ',', value_name = "A,B")]
    pub cpus: Vec<EngineOption>,
    /// How many cases, in all shards together.
    #[arg(long, default_value_t = 100_000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=1 << 48))]
    pub cases: u64,
    /// What the cases are made from: a number, or today (the date as YYYYMMDD).
    #[arg(long, default_value = "1", value_name = "N", value_parser = parse_seed)]
    pub seed: u64,
    /// How many threads; one a processor unless given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// Run the I-th of N equal parts of the cases.
    #[arg(long, default_value = "1/1", value_name = "I/N", value_parser = parse_shard)]
    pub shard: (u64, u64),
    /// The CPU model whose instructions are run; those that this host lacks are left out where it
    /// is an engine.
    #[arg(long, default_value = "max", value_parser = parse_cpu, value_name = "MODEL")]
    pub cpu: CpuModel,
    /// What kinds of cases; all unless given.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,...")]
    pub kinds: Vec<KindOption>,
    /// Width of the code: 16, 32 or 64 bits; all unless given.
    #[arg(long, value_delimiter = ',', value_name = "BITS,...", value_parser = ["16", "32", "64"])]
    pub widths: Vec<String>,
    /// Only encodings whose name has one of these in it, as iced-x86 names them: ADD, VPSHUFB_YMM;
    /// or is wholly one, with * for anything: 'F*'. Sequences of them with --kinds sequence.
    #[arg(long, value_name = "TEXT,...")]
    pub only: Option<String>,
    /// Run each case so often on jit: first it is interpreted, then translated, then translated as
    /// what runs often is. Each run must do as the first.
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub hot: u32,
    /// Let nothing differ, not even what the manuals leave undefined.
    #[arg(long)]
    pub strict: bool,
    /// Write a line of JSON for each thousand cases to this file.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Go on where --log ends.
    #[arg(long, requires = "log")]
    pub resume: bool,
    /// Where files go that run a divergence again.
    #[arg(long, default_value = "crosscheck-findings", value_name = "DIR")]
    pub findings: PathBuf,
    /// Write a table of the encodings that were reached to this file.
    #[arg(long, value_name = "FILE")]
    pub coverage: Option<PathBuf>,
    /// With `run`: when the two machines are compared: block (after each basic block of the guest),
    /// exit (whenever the first CPU comes back), or a number of instructions, with K or M.
    #[arg(long, default_value = "1M", value_parser = parse_sync, value_name = "WHEN")]
    pub sync: Sync,
    /// With `run` and kvm: of every B instructions KVM runs the first A, where they are 64-bit code at
    /// CPL 3; 1/1 for all of them.
    #[arg(long, default_value = "200/20000", value_parser = parse_sample, value_name = "A/B")]
    pub kvm_sample: Sample,
    /// Run the divergence in this file again, and nothing else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["corpus", "log", "coverage"])]
    pub repro: Option<PathBuf>,
    /// Run all files of this folder, each a case as --findings has them, and nothing else.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["log", "coverage"])]
    pub corpus: Option<PathBuf>,
    /// What the two run, if it is not cases.
    #[command(subcommand)]
    pub guest: Option<Guest>,
}

/// What two CPUs run in lockstep.
#[derive(Debug, Subcommand)]
pub enum Guest {
    /// Run a whole machine twice, with a CPU of --cpus each, and compare the two as they go: all
    /// registers, devices and memory (--sync says when).
    ///
    /// Virtual time is icount,sleep=off, and --accel is left out. What is typed goes to both. A
    /// divergence is brought down to the instruction and to the memory that it needs, shown, and
    /// written to a file of --findings for --repro.
    ///
    /// Exit status: 0 if they agree to the end, 1 if not, 130 if it was ended before.
    Run(Box<RunOptions>),
}

fn parse_sync(text: &str) -> Result<Sync, String> {
    let number = || -> Option<u64> {
        let (digits, unit) = match text.strip_suffix(['K', 'k', 'M', 'm']) {
            Some(digits) if text.ends_with(['K', 'k']) => (digits, 1_000),
            Some(digits) => (digits, 1_000_000),
            None => (text, 1),
        };
        digits.parse::<u64>().ok()?.checked_mul(unit).filter(|&count| count > 0)
    };
    match text {
        "block" => Ok(Sync::Block),
        "exit" => Ok(Sync::Exit),
        _ => number()
            .map(Sync::Every)
            .ok_or_else(|| "use block, exit, or a number such as 1M".into()),
    }
}

fn parse_sample(text: &str) -> Result<Sample, String> {
    let parts = text.split_once('/').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match parts {
        Some((first, every)) if first > 0 && first <= every => Ok(Sample { first, every }),
        Some(_) => Err("the first of them are 1 to B".to_owned()),
        None => Err("use A/B, such as 200/20000".to_owned()),
    }
}

/// Engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineOption {
    /// The interpreter.
    Interp,
    /// The JIT, whose code is translated before it is first run.
    Jit,
    /// The processor of this host.
    Host,
    /// The reference model of paging and privilege.
    Manual,
    /// This host's KVM, with `run` only.
    Kvm,
}

/// Kinds of cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindOption {
    /// One instruction, from the table of all encodings.
    Encoding,
    /// Random bytes.
    Bytes,
    /// Two to 32 instructions.
    Sequence,
    /// Two to 32 instructions that a loop repeats; only where it is asked for.
    Loop,
    /// Code that modifies itself.
    Modifying,
    /// Repeated string instructions that end half-way.
    Repeat,
}

fn parse_seed(text: &str) -> Result<u64, String> {
    if text == "today" {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        return Ok(date(now.map_or(0, |d| d.as_secs() / 86_400)));
    }
    text.parse().map_err(|_| "use a number, or today".to_owned())
}

/// The date as YYYYMMDD, from days since 1970: years of 365.2425 days, counted from March on.
fn date(days: u64) -> u64 {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year, if month < 10 { month + 3 } else { month - 9 });
    (year + u64::from(month <= 2)) * 10_000 + month * 100 + day
}

fn parse_shard(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((i, n)) if (1..=n).contains(&i) => Ok((i, n)),
        Some((_, n)) if n > 0 => Err(format!("the part is 1 to {n}")),
        _ => Err("use I/N, such as 3/16".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_since_1970_become_dates() {
        // The proleptic Gregorian calendar, with a leap day and the turn of a century.
        let known =
            [(0, 19_700_101), (11_016, 20_000_229), (11_017, 20_000_301), (20_778, 20_261_121)];
        for (days, expected) in known {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn machines_are_compared_at_blocks_exits_or_counts() {
        assert_eq!(parse_sync("block"), Ok(Sync::Block));
        assert_eq!(parse_sync("exit"), Ok(Sync::Exit));
        assert_eq!(parse_sync("7"), Ok(Sync::Every(7)));
        assert_eq!(parse_sync("20K"), Ok(Sync::Every(20_000)));
        assert_eq!(parse_sync("3M"), Ok(Sync::Every(3_000_000)));
        for wrong in ["", "0", "M", "1G", "blocks", "99999999999999M"] {
            assert!(parse_sync(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn samples_are_the_first_of_some() {
        assert_eq!(parse_sample("200/20000"), Ok(Sample { first: 200, every: 20_000 }));
        assert_eq!(parse_sample("1/1"), Ok(Sample { first: 1, every: 1 }));
        for wrong in ["", "1", "0/4", "5/4", "1/0", "a/b", "-1/2"] {
            assert!(parse_sample(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shards_are_one_of_some() {
        assert_eq!(parse_shard("3/16"), Ok((3, 16)));
        for wrong in ["0/4", "5/4", "1/0", "1", "a/b", "-1/2"] {
            assert!(parse_shard(wrong).is_err(), "{wrong}");
        }
    }
}
