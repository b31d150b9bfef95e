//! `trivium crosscheck`: campaigns, and single divergences run again.

mod lockstep;
mod system;

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, IsTerminal, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use trivium_cpu::model::{CpuModel, Feature, FeatureSet};
use trivium_crosscheck::campaign::{self, Coverage, Finding, Plan, Summary};
use trivium_crosscheck::duel::{Duel, Verdict};
use trivium_crosscheck::engine::Engine;
use trivium_crosscheck::generate::{self, Generator};
use trivium_crosscheck::host::{self, HostEngine};
use trivium_crosscheck::repro::Repro;
use trivium_crosscheck::vcpu::VcpuEngine;
use trivium_crosscheck::{Kind, Width, report};

use crate::options::{CrosscheckOptions, EngineOption, Guest, KindOption};

/// There were divergences.
const DIVERGENCES: u8 = 1;
/// Ended by Ctrl-C, as shells say it.
const INTERRUPTED: u8 = 130;

/// Runs the command. Gives the exit status.
///
/// # Errors
/// The command line, a file or this host cannot be used.
pub fn crosscheck(options: &CrosscheckOptions) -> Result<u8> {
    if options.cpus.len() != 2 {
        bail!("--cpus: two engines are held against each other, {} named", options.cpus.len());
    }
    if let Some(Guest::Run(guest)) = &options.guest {
        return lockstep::run(options, guest);
    }
    if let Some(path) = &options.repro {
        let text = fs::read_to_string(path).with_context(|| named("--repro", path))?;
        if let Some(status) = lockstep::again(path, &text)? {
            return Ok(status);
        }
    }
    if options.cpus.contains(&EngineOption::Manual) {
        return system::crosscheck(options);
    }
    let model = model(options);
    if let Some(path) = &options.repro {
        return again(options, &model, std::slice::from_ref(path));
    }
    if let Some(folder) = &options.corpus {
        let found = fs::read_dir(folder).with_context(|| named("--corpus", folder))?;
        let mut files: Vec<_> = found.filter_map(|e| e.ok().map(|e| e.path())).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == "json"));
        files.sort();
        if files.is_empty() {
            bail!("--corpus {}: there are no .json files", folder.display());
        }
        return again(options, &model, &files);
    }
    run_campaign(options, &model)
}

fn named(option: &str, path: &Path) -> String {
    format!("{option} {}", path.display())
}

/// What shows in what other features' instructions do: the host cannot do without.
const SHOWN: &[Feature] = &[Feature::Xsaveerptr, Feature::NullSelClrBase, Feature::Misalignsse];

/// The model as both engines can be it: where this host is one, with its vendor and no feature
/// that it lacks.
fn model(options: &CrosscheckOptions) -> CpuModel {
    let mut model = options.cpu;
    if options.cpus.contains(&EngineOption::Host) {
        let host = host::host_features();
        let shown = FeatureSet::of(SHOWN).intersection(host);
        model.features = model.features.intersection(host).union(shown);
        model.vendor = host::host_vendor();
    }
    model
}

fn duel(options: &CrosscheckOptions, model: &CpuModel) -> Result<Duel> {
    let make = |kind| -> Result<Box<dyn Engine>> {
        Ok(match kind {
            EngineOption::Interp => Box::new(VcpuEngine::interpreter(*model)?),
            EngineOption::Jit if options.hot > 1 => Box::new(VcpuEngine::hot(*model, options.hot)?),
            EngineOption::Jit => Box::new(VcpuEngine::jit(*model)?),
            EngineOption::Host => Box::new(HostEngine::new()?),
            EngineOption::Manual => bail!("--cpus: 'manual' knows system-level cases only"),
            EngineOption::Kvm => bail!(
                "--cpus: 'kvm' runs machines, as in 'crosscheck --cpus interp,kvm run ...'; cases run on 'host'"
            ),
        })
    };
    let [first, second] = [make(options.cpus[0])?, make(options.cpus[1])?];
    Ok(Duel::new([first, second], model, options.strict))
}

/// Runs files again, each a single case.
fn again(
    options: &CrosscheckOptions,
    model: &CpuModel,
    files: &[std::path::PathBuf],
) -> Result<u8> {
    let option = if options.repro.is_some() { "--repro" } else { "--corpus" };
    let mut duel = duel(options, model)?;
    let (mut divergences, mut skipped) = (0, 0);
    let colour = std::io::stdout().is_terminal();
    for path in files {
        let text = fs::read_to_string(path).with_context(|| named(option, path))?;
        let repro = Repro::parse(&text).map_err(|e| anyhow!("{}: {e}", named(option, path)))?;
        let repro = Repro { engines: duel.names().map(str::to_owned), ..repro };
        match duel.run_one(&repro.case)? {
            Verdict::Refused(reason) => {
                println!("{}: skipped: {reason}", path.display());
                skipped += 1;
            }
            Verdict::Run(round) if round.fields.is_empty() && options.corpus.is_some() => {}
            Verdict::Run(round) => {
                let differs = !round.fields.is_empty();
                divergences += usize::from(differs);
                println!("{}: {}", path.display(), if differs { "diverges" } else { "agrees" });
                print!("{}", report::render(&repro, &round.outcomes, &round.fields, colour));
            }
        }
    }
    println!("{} cases, {divergences} divergences, {skipped} skipped", files.len());
    Ok(if divergences > 0 { DIVERGENCES } else { 0 })
}

fn run_campaign(options: &CrosscheckOptions, model: &CpuModel) -> Result<u8> {
    let plan = Plan { seed: options.seed, cases: options.cases, shard: options.shard };
    let jobs = jobs(options, plan.chunks().count() as u64);
    let duels = (0..jobs).map(|_| duel(options, model)).collect::<Result<Vec<_>, _>>()?;
    let ldt = duels.iter().all(Duel::has_ldt);
    if !ldt {
        eprintln!(
            "trivium: this kernel grants no 16-bit code and only flat segments: no such cases"
        );
    }
    let generator = generator(options, model, ldt)?;
    let mut summary = Summary::default();
    let mut log = open_log(options, &plan, &mut summary)?;
    let stop = stop_on_signal()?;
    let bar = progress(plan.shard_cases());
    let coverage = Coverage::default();
    let (start, before) = (Instant::now(), summary.cases);
    let mut shown = Shown::default();
    let mut failed = None;
    let done = campaign::run(
        &plan,
        duels,
        &|index| generator.case(index),
        &stop,
        &coverage,
        &mut summary,
        &mut |chunk, summary| {
            bar.set_position(summary.cases + summary.skipped.values().sum::<u64>());
            bar.set_message(format!("{} divergences", summary.divergences()));
            let written = log.as_mut().map_or(Ok(()), |log| campaign::write_line(log, chunk));
            let kept = written.map_err(anyhow::Error::from);
            let kept = kept.and_then(|()| shown.show(&chunk.findings, options, &bar));
            if let Err(error) = kept {
                failed.get_or_insert(error);
                stop.store(true, Ordering::Relaxed);
            }
        },
    );
    bar.finish_and_clear();
    done?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(path) = &options.coverage {
        let table = coverage.table(generator.encodings(), generator.excluded());
        fs::write(path, table).with_context(|| named("--coverage", path))?;
    }
    print_summary(options, &summary, summary.cases - before, start.elapsed());
    let all = plan.chunks().all(|chunk| summary.done.contains(&chunk));
    Ok(match (summary.divergences(), all) {
        (0, true) => 0,
        (0, false) => INTERRUPTED,
        _ => DIVERGENCES,
    })
}

/// Set when the user wants no more.
fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// How many threads, for so many pieces of work.
fn jobs(options: &CrosscheckOptions, pieces: u64) -> u64 {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    u64::from(options.jobs.unwrap_or(threads)).min(pieces.max(1))
}

fn generator(options: &CrosscheckOptions, model: &CpuModel, ldt: bool) -> Result<Generator> {
    let mut plan = generate::Plan { ldt, ..generate::Plan::default() };
    if options.kinds.is_empty() && options.only.is_some() {
        plan.kinds = vec![(Kind::Encoding, 1)];
    }
    if !options.kinds.is_empty() {
        let kind = |kind: &KindOption| match kind {
            KindOption::Encoding => Kind::Encoding,
            KindOption::Bytes => Kind::Bytes,
            KindOption::Sequence => Kind::Sequence,
            KindOption::Loop => Kind::Loop,
            KindOption::Modifying => Kind::Modifying,
            KindOption::Repeat => Kind::Repeat,
        };
        plan.kinds = options.kinds.iter().map(|k| (kind(k), 1)).collect();
    }
    if !options.widths.is_empty() {
        let width = |bits: &String| match bits.as_str() {
            "16" => Width::Bits16,
            "32" => Width::Bits32,
            _ => Width::Bits64,
        };
        plan.widths = options.widths.iter().map(|w| (width(w), 1)).collect();
    }
    plan.only.clone_from(&options.only);
    let option = if plan.only.is_some() { "--only" } else { "--kinds" };
    Generator::new(options.seed, model.features, plan).map_err(|e| anyhow!("{option}: {e}"))
}

/// What else than the plan makes a campaign what it is.
fn describe(options: &CrosscheckOptions) -> String {
    let CrosscheckOptions { cpus, cpu, kinds, widths, only, strict, hot, .. } = options;
    let features = cpu.features;
    format!("{cpus:?} {} {features:?} {kinds:?} {widths:?} {only:?} {strict} {hot}", cpu.name)
}

/// Opens the log, and takes what it has of the campaign.
fn open_log(
    options: &CrosscheckOptions,
    plan: &Plan,
    summary: &mut Summary,
) -> Result<Option<File>> {
    let Some(path) = &options.log else { return Ok(None) };
    let name = || named("--log", path);
    if options.resume && path.exists() {
        let mut file = OpenOptions::new().read(true).write(true).open(path).with_context(name)?;
        let read = campaign::read_log(BufReader::new(&file), plan, &describe(options));
        let (chunks, size) = read.map_err(|e| anyhow!("{}: {e}", name()))?;
        for chunk in &chunks {
            summary.add(chunk);
        }
        file.set_len(size).with_context(name)?;
        file.seek(SeekFrom::End(0)).with_context(name)?;
        if size == 0 {
            campaign::write_header(&mut file, plan, &describe(options)).with_context(name)?;
        }
        return Ok(Some(file));
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                anyhow!("{}: it exists; add --resume to go on with it, or name another", name())
            }
            _ => anyhow!("{}: {e}", name()),
        })?;
    campaign::write_header(&mut file, plan, &describe(options)).with_context(name)?;
    Ok(Some(file))
}

fn progress(cases: u64) -> ProgressBar {
    let bar = ProgressBar::new(cases);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} {per_sec} {eta} {msg}")
    {
        bar.set_style(style);
    }
    bar
}

/// The divergences that were shown.
#[derive(Default)]
struct Shown {
    groups: Vec<String>,
}

/// More than anyone reads.
const MOST: usize = 100;

impl Shown {
    /// Shows divergences of looks that were not seen before, and writes their files.
    fn show(
        &mut self,
        findings: &[Finding],
        options: &CrosscheckOptions,
        bar: &ProgressBar,
    ) -> Result<()> {
        for finding in findings {
            if self.groups.contains(&finding.group) || self.groups.len() >= MOST {
                continue;
            }
            self.groups.push(finding.group.clone());
            let folder = &options.findings;
            fs::create_dir_all(folder).with_context(|| named("--findings", folder))?;
            let id = finding.repro.found_by;
            let path = folder.join(format!("{}-{}.json", id.seed, id.index));
            let text = finding.repro.to_text()?;
            fs::write(&path, text).with_context(|| named("--findings", folder))?;
            bar.suspend(|| show_finding(finding, &path));
        }
        Ok(())
    }
}

fn show_finding(finding: &Finding, path: &Path) {
    let repro = &finding.repro;
    println!("{}", finding.group);
    let id = repro.found_by;
    println!("  found by case {} of seed {}; --repro {}", id.index, id.seed, path.display());
    if let Some(outcomes) = &repro.outcomes {
        let colour = std::io::stdout().is_terminal();
        let [one, other] = outcomes;
        let all = trivium_crosscheck::compare::compare(one, other, &Default::default(), false);
        print!("{}", report::render(repro, outcomes, &all, colour));
    }
}

fn print_summary(options: &CrosscheckOptions, summary: &Summary, fresh: u64, took: Duration) {
    for (group, count) in &summary.groups {
        println!("{count:>8}  {group}");
    }
    let skipped: u64 = summary.skipped.values().sum();
    let reasons: Vec<_> = summary.skipped.iter().map(|(r, n)| format!("{n} {r}")).collect();
    let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
    let rate = fresh as f64 / took.as_secs_f64().max(1e-9);
    let hot = match summary.hot {
        0 => String::new(),
        hot => format!(", {hot} of them with superblocks"),
    };
    println!(
        "{} cases of seed {}{hot}, {} divergences in {} groups, {skipped} skipped{why}, {rate:.0} cases/s",
        summary.cases,
        options.seed,
        summary.divergences(),
        summary.groups.len(),
    );
}
