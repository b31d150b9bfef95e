//! `trivium crosscheck --cpus interp,manual`: random cases of paging and privilege, held against the
//! reference model.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use indicatif::ProgressBar;
use trivium_crosscheck::EngineError;
use trivium_crosscheck::system::{Report, run_interpreter};

use super::{DIVERGENCES, INTERRUPTED, jobs, progress, stop_on_signal};
use crate::options::{CrosscheckOptions, EngineOption};

/// Runs the cases of the command line and prints what came of them; gives the exit status.
pub fn crosscheck(options: &CrosscheckOptions) -> Result<u8> {
    if !options.cpus.contains(&EngineOption::Interp) {
        bail!("--cpus: 'manual' is held against a CPU, such as interp,manual");
    }
    let user_level = [
        ("--kinds", !options.kinds.is_empty()),
        ("--widths", !options.widths.is_empty()),
        ("--only", options.only.is_some()),
        ("--strict", options.strict),
        ("--log", options.log.is_some()),
        ("--coverage", options.coverage.is_some()),
        ("--repro", options.repro.is_some()),
        ("--corpus", options.corpus.is_some()),
    ];
    if let Some((name, _)) = user_level.iter().find(|(_, given)| *given) {
        bail!("{name}: is for user-level cases; 'manual' has cases of the system level");
    }
    let cases = part(0..options.cases, options.shard);
    let (start, bar, stop) = (Instant::now(), progress(cases.end - cases.start), stop_on_signal()?);
    let report = run(options, &cases, &bar, &stop);
    bar.finish_and_clear();
    let report = report?;
    let rate = report.cases() as f64 / start.elapsed().as_secs_f64();
    println!("{report}, {rate:.0} cases/s");
    Ok(match report.diverged {
        0 if report.cases() == cases.end - cases.start => 0,
        0 => INTERRUPTED,
        _ => DIVERGENCES,
    })
}

/// The I-th of N equal parts.
fn part(cases: Range<u64>, (number, parts): (u64, u64)) -> Range<u64> {
    let count = u128::from(cases.end - cases.start);
    let edge = |n: u64| cases.start + (count * u128::from(n) / u128::from(parts)) as u64;
    edge(number - 1)..edge(number)
}

fn run(
    options: &CrosscheckOptions,
    cases: &Range<u64>,
    bar: &ProgressBar,
    stop: &AtomicBool,
) -> Result<Report> {
    let jobs = jobs(options, cases.end - cases.start);
    let go_on = || {
        bar.inc(1);
        !stop.load(Ordering::Relaxed)
    };
    let one = |number| run_interpreter(options.seed, part(cases.clone(), (number, jobs)), &go_on);
    let reports: Vec<Result<Report, EngineError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=jobs).map(|number| scope.spawn(move || one(number))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.filter_map(Result::ok).collect()
    });
    if reports.len() as u64 != jobs {
        return Err(anyhow!("a thread that ran cases has ended"));
    }
    let mut whole = Report { seed: options.seed, ..Report::default() };
    for report in reports {
        whole.merge(report?);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_all_of_it() {
        assert_eq!(part(0..10, (1, 3)), 0..3);
        assert_eq!(part(0..10, (2, 3)), 3..6);
        assert_eq!(part(0..10, (3, 3)), 6..10);
        assert_eq!(part(5..6, (1, 1)), 5..6);
    }
}
