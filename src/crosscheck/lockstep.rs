//! `trivium crosscheck --cpus interp,jit run ...`: two machines in lockstep.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use crossbeam_channel::{Receiver, Sender, unbounded};
use trivium_chipset::NANOS_PER_SECOND;
use trivium_crosscheck::lockstep::{
    self, Difference, Found, Input, LockstepFile, Pair, Progress, Side, Verdict,
};
use trivium_devices::uart16550::SerialBackend;
use trivium_machine::kvm::Sample;
use trivium_machine::{Accel, KvmOptions, Machine, MachineConfig, STACK_SIZE};

use super::{DIVERGENCES, INTERRUPTED, named, stop_on_signal};
use crate::console::{self, Consoles, RawTerminal, Wish};
use crate::options::{Command, CrosscheckOptions, EngineOption, Options, RunOptions};
use crate::output::Writers;
use crate::report;
use crate::run::{self, Ends, Purpose};

/// A machine's configuration, with what its CPU is called.
type Named = (String, MachineConfig);

/// Runs the command line's machine twice; gives the exit status.
///
/// # Errors
/// The options or the files they name cannot be used.
pub fn run(options: &CrosscheckOptions, guest: &RunOptions) -> Result<u8> {
    let mut writers = Writers::default();
    let (first, ends) = run::configure(guest, Purpose::Beside, &mut writers)?;
    let (second, _) = run::configure(guest, Purpose::Silent, &mut writers)?;
    let firmware = first.firmware.clone();
    let silence = Arc::new(AtomicBool::new(false));
    let first = muted(first, &silence);
    let [one, other] = [options.cpus[0], options.cpus[1]];
    let sample = sample(options);
    let configs = [named_config(one, first, sample)?, named_config(other, second, sample)?];
    let names = configs.each_ref().map(|(name, _)| name.clone());
    let (typed, stop, terminal) = (listen(ends), stop_on_signal()?, RawTerminal::enter());
    let start = Instant::now();
    let outcome = on_large_stack(move || {
        let mut pair = Pair::new(sides(configs, guest)?)?;
        let mut consoles = typed;
        let verdict = lockstep::run(&mut pair, options.sync, |_| match consoles.take(&stop) {
            Some(inputs) => lockstep::Wish::GoOn(inputs),
            None => lockstep::Wish::Stop,
        })?;
        silence.store(true, Ordering::Relaxed);
        conclude(&mut pair, verdict)
    });
    drop(terminal);
    writers.finish();
    let took = start.elapsed();
    let names = [&*names[0], &*names[1]];
    Ok(match outcome? {
        Conclusion::Agreed(progress) => {
            println!("{} agree to the end: {}", names.join(" and "), told(progress, took));
            0
        }
        Conclusion::Stopped(progress) => {
            println!("{} agree so far: {}", names.join(" and "), told(progress, took));
            INTERRUPTED
        }
        Conclusion::Diverged(found, difference, locating) => {
            print!("{}", lockstep::render(&found, names));
            let seen = seconds(difference.until.as_nanos());
            println!("seen at {seen:.3} s, located in {:.1} s", locating.as_secs_f64());
            let path = keep(options, &found, names, firmware.as_deref())?;
            println!("--repro {} runs it again", path.display());
            DIVERGENCES
        }
    })
}

/// What came of it.
enum Conclusion {
    Agreed(Progress),
    Stopped(Progress),
    Diverged(Box<Found>, Difference, Duration),
}

fn conclude(pair: &mut Pair, verdict: Verdict) -> Result<Conclusion> {
    Ok(match verdict {
        Verdict::Agreed(_, progress) => Conclusion::Agreed(progress),
        Verdict::Stopped(progress) => Conclusion::Stopped(progress),
        Verdict::Diverged(difference) => {
            let start = Instant::now();
            let found = lockstep::locate(pair, difference.clone())?;
            Conclusion::Diverged(Box::new(found), difference, start.elapsed())
        }
    })
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / NANOS_PER_SECOND as f64
}

fn told(progress: Progress, took: Duration) -> String {
    let (guest, host) = (seconds(progress.now.as_nanos()), took.as_secs_f64());
    format!("{guest:.3} s of the guest's time, compared {} times, in {host:.1} s", progress.syncs)
}

/// What machines can have.
const MACHINES: &str = "a machine has interp, jit or kvm";

/// What KVM runs, if it is one of the two.
fn sample(options: &CrosscheckOptions) -> Option<Sample> {
    options.cpus.contains(&EngineOption::Kvm).then_some(options.kvm_sample)
}

/// The configuration of a machine with such a CPU; with what KVM runs if that is one of the two.
fn named_config(
    engine: EngineOption,
    config: MachineConfig,
    counted: Option<Sample>,
) -> Result<Named> {
    let (name, accel) = match engine {
        EngineOption::Interp => ("interp", Accel::Interp),
        EngineOption::Jit => ("jit", Accel::Jit),
        EngineOption::Kvm => ("kvm", Accel::Kvm),
        EngineOption::Host => bail!("--cpus: 'host' runs cases only; {MACHINES}"),
        EngineOption::Manual => bail!("--cpus: 'manual' runs cases only; {MACHINES}"),
    };
    let kvm = KvmOptions { counted, ..config.kvm };
    Ok((name.to_owned(), MachineConfig { accel, kvm, switch: None, ..config }))
}

fn sides(configs: [Named; 2], options: &RunOptions) -> Result<[Side; 2]> {
    let side = |(name, config): Named| -> Result<Side> {
        let blocks = config.blocks.clone();
        let refused = |error| report::refusal(&error, Some(options));
        let machine = Machine::new(config).map_err(refused)?;
        Ok(Side { name, machine, blocks, around: None })
    };
    let [first, second] = configs;
    Ok([side(first)?, side(second)?])
}

/// Runs something on a thread that CPUs can run on.
fn on_large_stack<T: Send>(body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("lockstep".into()).stack_size(STACK_SIZE);
        let thread = builder.spawn_scoped(scope, body).context("The host cannot start a thread")?;
        thread.join().unwrap_or_else(|_| Err(anyhow!("A thread has panicked; please report it")))
    })
}

/// A serial line that can be made silent: what is run again says nothing again.
struct Muted {
    line: Box<dyn SerialBackend>,
    silence: Arc<AtomicBool>,
}

impl SerialBackend for Muted {
    fn transmit(&mut self, byte: u8) {
        if !self.silence.load(Ordering::Relaxed) {
            self.line.transmit(byte);
        }
    }
}

fn muted(mut config: MachineConfig, silence: &Arc<AtomicBool>) -> MachineConfig {
    for port in &mut config.serial {
        let wrap = |line| Box::new(Muted { line, silence: silence.clone() });
        *port = port.take().map(|line| wrap(line) as Box<dyn SerialBackend>);
    }
    config
}

/// What comes in from outside.
enum Coming {
    Wish(Wish),
    Serial(usize, Vec<u8>),
}

/// What was typed and is to be given to both machines.
struct Typed {
    coming: Receiver<Coming>,
    consoles: Consoles,
    /// One character a time, so that none waits outside of the machines.
    waiting: std::collections::VecDeque<Input>,
}

/// Listens to everything that can be typed into serial ports.
fn listen(ends: Ends) -> Typed {
    let (sender, coming) = unbounded();
    let Ends { terminal, inputs, .. } = ends;
    if !terminal.is_empty() {
        let sender = sender.clone();
        std::thread::spawn(move || console::read_keys(|wish| send(&sender, Coming::Wish(wish))));
    }
    for (port, input) in inputs {
        let sender = sender.clone();
        std::thread::spawn(move || {
            input.serve(&mut |bytes| {
                send(&sender, Coming::Serial(port, bytes.to_vec()));
                bytes.len()
            });
        });
    }
    Typed { coming, consoles: Consoles::new(terminal), waiting: Default::default() }
}

fn send(to: &Sender<Coming>, what: Coming) {
    // Fails only at the end.
    let _ = to.send(what);
}

impl Typed {
    /// What is to be given now; nothing if it is the end.
    fn take(&mut self, stop: &AtomicBool) -> Option<Vec<Input>> {
        while let Ok(coming) = self.coming.try_recv() {
            match coming {
                Coming::Serial(port, bytes) => self.queue(port, &bytes),
                Coming::Wish(Wish::Quit) => return None,
                Coming::Wish(wish) => self.grant(&wish),
            }
        }
        (!stop.load(Ordering::Relaxed)).then(|| self.waiting.pop_front().into_iter().collect())
    }

    fn queue(&mut self, port: usize, bytes: &[u8]) {
        let one = |&byte| Input::Serial { port, bytes: vec![byte] };
        self.waiting.extend(bytes.iter().map(one));
    }

    fn grant(&mut self, wish: &Wish) {
        if let Some(text) = self.consoles.change(wish) {
            console::tell(&text);
        }
        match wish {
            Wish::Input(bytes) => self.queue(self.consoles.focus(), bytes),
            Wish::Break => self.waiting.push_back(Input::Break { port: self.consoles.focus() }),
            Wish::Quit | Wish::Help | Wish::Next | Wish::Choose(_) | Wish::Statistics => {}
        }
    }
}

/// Writes the file that runs a divergence again.
fn keep(
    options: &CrosscheckOptions,
    found: &Found,
    names: [&str; 2],
    firmware: Option<&[u8]>,
) -> Result<PathBuf> {
    let folder = &options.findings;
    fs::create_dir_all(folder).with_context(|| named("--findings", folder))?;
    let path = folder.join(format!("lockstep-{}.json", found.state.now.as_nanos()));
    let names = names.map(str::to_owned);
    let text = LockstepFile::new(found, names, words()?, firmware).to_text()?;
    fs::write(&path, text).with_context(|| named("--findings", folder))?;
    Ok(path)
}

/// The options of `run` on the command line, those of a file for --config included.
fn words() -> Result<Vec<String>> {
    let all = crate::config::arguments(std::env::args_os().collect())?;
    let words = all.iter().map(|word| word.to_string_lossy().into_owned());
    Ok(words.skip_while(|word| word != "run").skip(1).collect())
}

/// Runs a divergence again; gives the exit status. Nothing if the text is not that of one.
///
/// # Errors
/// The file is damaged, or this host cannot run it.
pub fn again(path: &Path, text: &str) -> Result<Option<u8>> {
    if !LockstepFile::is_one(text) {
        return Ok(None);
    }
    let refused = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", named("--repro", path));
    let file = LockstepFile::parse(text).map_err(|e| refused(&e))?;
    let state = file.state().map_err(|e| refused(&e))?;
    let words = ["trivium", "run"].into_iter().chain(file.options.iter().map(String::as_str));
    let parsed = Options::try_parse_from(words);
    let parsed = parsed.map_err(|e| refused(&crate::options::one_line(&e.render().to_string())))?;
    let Command::Run(guest) = parsed.command else { bail!("{}", refused(&"it runs no machine")) };
    // What was found may be anywhere.
    let counted = file.cpus.iter().any(|name| name == "kvm").then_some(Sample::ALL);
    let differences = on_large_stack(|| {
        let side = |name: &str| -> Result<Named> {
            let mut writers = Writers::default();
            let (mut config, _) = run::configure(&guest, Purpose::Bare, &mut writers)?;
            config.firmware = file.firmware()?;
            let engine = clap::ValueEnum::from_str(name, true);
            named_config(engine.map_err(|e: String| refused(&e))?, config, counted)
        };
        let [first, second] = &file.cpus;
        let sides = sides([side(first)?, side(second)?], &guest)?;
        Ok(file.run(&state, sides)?)
    })?;
    for line in &file.note {
        println!("  {line}");
    }
    let [first, second] = &file.cpus;
    if differences.is_empty() {
        println!("{first} and {second} agree");
        return Ok(Some(0));
    }
    println!("after {} instructions, {first} and {second}:", file.instructions);
    differences.iter().for_each(|line| println!("  {line}"));
    Ok(Some(DIVERGENCES))
}
