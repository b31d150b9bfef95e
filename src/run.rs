//! Running a machine: from options to a configuration, to a run, to an exit status.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use trivium_cpu::model::{CpuModel, Feature};
use trivium_devices::lost_ticks::LostTicks;
use trivium_machine::exits::ExitTraceConfig;
use trivium_machine::{
    Accel, Board, ClockMode, KernelConfig, Machine, MachineConfig, MachineHandle, MemoryConfig,
    MemoryOptions, ModuleConfig, RunEnd, SwitchConfig, SwitchEvery, TraceCategories, TraceConfig,
    best_accel,
};

use crate::console::{self, Consoles, RawTerminal, Wish};
use crate::input::Input;
use crate::jit::{self, Shown};
use crate::options::{
    self, ClockOption, DemoOptions, FwCfgContent, FwCfgOption, IsaOptions, LostTicksOption,
    MemoryOption, RtcBase, RtcClock, RtcOption, RunOptions, SerialOption, SerialPortOption,
    SwitchEveryOption, SwitchOptions, TraceOption,
};
use crate::output::{Ending, Writers};
use crate::report;

/// Exit status after a triple fault.
const SHUTDOWN: u8 = 3;

/// 2026-01-01: where the real-time clock starts under icount unless told, so that runs are equal.
const ICOUNT_RTC: u64 = 1_767_225_600;

/// RAM of the demonstration guest.
const DEMO_MEMORY: u64 = 64 << 20;

/// From this size on, in bytes, it is shown how far preallocation is.
const SHOWN_PREALLOC: u64 = 1 << 30;

/// Runs a machine.
///
/// # Errors
/// The options or the files they name cannot be used.
pub fn run(options: RunOptions) -> anyhow::Result<u8> {
    let mut writers = Writers::default();
    let (config, ends) = configure(&options, Purpose::Alone, &mut writers)?;
    start(config, ends, writers, Some(&options))
}

/// What a machine is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is run.
    Alone,
    /// It is run beside another, so under a clock that is the same for both.
    Beside,
    /// It is the other, which nobody hears.
    Silent,
    /// The same, and a state is put into it, so no files are needed.
    Bare,
}

/// The machine that options make.
///
/// # Errors
/// The files they name cannot be used.
pub(crate) fn configure(
    options: &RunOptions,
    purpose: Purpose,
    writers: &mut Writers,
) -> anyhow::Result<(MachineConfig, Ends)> {
    let heard = matches!(purpose, Purpose::Alone | Purpose::Beside);
    let end = |option: &SerialOption| if heard { option.clone() } else { SerialOption::Null };
    let time = match purpose {
        Purpose::Alone => options.clock,
        _ => ClockOption::Icount { sleep: false },
    };
    let mut config = MachineConfig::new(options.cpu, options.memory.size);
    config.memory = memory(options.memory);
    config.board = board(options.machine);
    config.cpus = options.smp;
    config.accel = accel(options.accel, options.clock);
    config.switch = switch(config.accel, options.clock, &options.switch);
    let (choices, shown) = jit::choices(&options.jit);
    config.jit = choices;
    if config.accel == Accel::Jit && config.model.name == "max" {
        // What the host lacks, the interpreter would do.
        for feature in config.jit.host.missing().filter_map(Feature::from_name) {
            config.model.features.disable(feature);
        }
    }
    let kvm = options.kvm.unwrap_or_default();
    (config.kvm.level, config.kvm.irqchip) = (kvm.level, kvm.irqchip);
    config.clock = clock(time);
    set_rtc(&mut config, time, options.rtc.unwrap_or_default())?;
    config.no_reboot = options.no_reboot;
    config.debug_exit_port = options.debug_exit;
    match purpose {
        Purpose::Bare => config.bare = true,
        _ => load(&mut config, options)?,
    }
    if heard {
        config.trace = trace(options)?;
        config.exit_trace = trace_exits(options)?;
    }
    if let Some(option) = &options.isa.parallel {
        config.parallel = Some(Box::new(writers.open("--parallel", &end(option))?.0));
    }
    if let Some(option) = &options.debugcon {
        config.debug_console = Some(Box::new(writers.open("--debugcon", &end(option))?.0));
    }
    let mut serial = match options.serial.is_empty() {
        true => vec![SerialOption::Stdio.into()],
        false => options.serial.clone(),
    };
    for port in &mut serial {
        port.end = end(&port.end);
    }
    let mut ends = connect(&mut config, &serial, writers)?;
    ends.shown = shown;
    Ok((config, ends))
}

/// Reads the files that a machine begins with.
fn load(config: &mut MachineConfig, options: &RunOptions) -> anyhow::Result<()> {
    config.firmware = options.bios.as_deref().map(|path| read("--bios", path)).transpose()?;
    config.kernel = kernel(options)?;
    config.smbios = options.firmware.smbios();
    let tables = options.firmware.acpi_table.iter().map(|path| read("--acpi-table", path));
    config.acpi_tables = tables.collect::<Result<_, _>>()?;
    config.fw_cfg = fw_cfg(&options.isa)?;
    Ok(())
}

/// Runs the demonstration guest.
///
/// # Errors
/// The host cannot give what it needs.
pub fn demo(options: &DemoOptions) -> anyhow::Result<u8> {
    let mut writers = Writers::default();
    let mut config = MachineConfig::new(CpuModel::by_name("max")?, DEMO_MEMORY);
    config.accel = accel(options.accel, options.clock);
    config.clock = clock(options.clock);
    set_rtc(&mut config, options.clock, RtcOption::default())?;
    config.no_reboot = true;
    config.firmware = Some(trivium_test_roms::DEMO.to_vec());
    let ends = connect(&mut config, &[SerialOption::Stdio.into()], &mut writers)?;
    start(config, ends, writers, None)
}

fn board(option: options::Board) -> Board {
    match option {
        options::Board::Pc => Board::Pc,
        options::Board::Isapc => Board::IsaPc,
    }
}

fn memory(option: MemoryOption) -> MemoryConfig {
    let MemoryOption { size, prealloc, hugepages, share, reserved } = option;
    let host = MemoryOptions { share, huge_pages: hugepages };
    let shown = prealloc && size >= SHOWN_PREALLOC;
    let progress = shown.then(|| {
        let bar = ProgressBar::new(size).with_message("memory");
        let style = ProgressStyle::with_template("{msg} {bar:40} {bytes}/{total_bytes}");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let bar = bar.with_finish(ProgressFinish::AndClear);
        Box::new(move |done: u64| bar.set_position(done.min(size))) as Box<dyn FnMut(u64) + Send>
    });
    MemoryConfig { reserved, prealloc, host, progress }
}

fn accel(option: options::Accel, clock: ClockOption) -> Accel {
    match option {
        options::Accel::Interp => Accel::Interp,
        options::Accel::Jit => Accel::Jit,
        options::Accel::Kvm => Accel::Kvm,
        options::Accel::KvmJit => Accel::KvmJit,
        options::Accel::KvmInterp => Accel::KvmInterp,
        options::Accel::Auto => {
            let (best, why) = best_accel();
            // Instructions are counted by our own CPUs alone.
            let accel = match (clock, best) {
                (ClockOption::Icount { .. }, Accel::KvmJit) => Accel::Jit,
                _ => best,
            };
            ::log::info!("--accel auto is {}: {why}", crate::cpus::name(accel));
            accel
        }
    }
}

fn switch(first: Accel, clock: ClockOption, option: &SwitchOptions) -> Option<SwitchConfig> {
    let every = match option.switch_every {
        None if option.switch_cpus.is_empty() => return None,
        None => SwitchEvery::Request,
        Some(SwitchEveryOption::Time(time)) => {
            SwitchEvery::Nanos(time.as_nanos().try_into().unwrap_or(u64::MAX))
        }
        Some(SwitchEveryOption::Instructions { least, most, seed }) => {
            SwitchEvery::Instructions { range: least..=most, seed }
        }
    };
    let cpus = match option.switch_cpus.is_empty() {
        true => SwitchConfig::on_request(first).cpus,
        false => option.switch_cpus.iter().map(|&cpu| accel(cpu, clock)).collect(),
    };
    Some(SwitchConfig { cpus, every })
}

fn clock(option: ClockOption) -> ClockMode {
    match option {
        ClockOption::Real => ClockMode::Real,
        ClockOption::Icount { sleep } => ClockMode::Icount { sleep },
    }
}

fn set_rtc(
    config: &mut MachineConfig,
    clock: ClockOption,
    option: RtcOption,
) -> anyhow::Result<()> {
    let (base, follows) = match clock {
        ClockOption::Real => (RtcBase::Utc, RtcClock::Host),
        ClockOption::Icount { .. } => (RtcBase::Seconds(ICOUNT_RTC), RtcClock::Vm),
    };
    let is_icount = clock != ClockOption::Real;
    if is_icount && option.clock == Some(RtcClock::Host) {
        bail!("--rtc clock=host: under --clock icount all clocks follow the guest; use clock=vm");
    }
    config.rtc_base = option.base.unwrap_or(base).seconds();
    config.rtc_follows_host = option.clock.unwrap_or(follows) == RtcClock::Host;
    config.lost_ticks = match option.lost_ticks {
        LostTicksOption::Delay => LostTicks::Delay,
        LostTicksOption::Catchup => LostTicks::Catchup,
        LostTicksOption::Discard => LostTicks::Discard,
    };
    Ok(())
}

/// The largest file that is read as a kernel, module or firmware image, in bytes.
const MAX_FILE: u64 = 4 << 30;

fn read(option: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("{option} {}: cannot be read", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let kind = file.metadata().with_context(failed)?;
    if kind.is_dir() {
        bail!("{option} {}: is a folder; give a file", path.display());
    }
    let mut bytes = Vec::new();
    file.by_ref().take(MAX_FILE).read_to_end(&mut bytes).with_context(failed)?;
    if bytes.is_empty() {
        bail!("{option} {}: is empty; give the file's complete content", path.display());
    }
    Ok(bytes)
}

fn kernel(options: &RunOptions) -> anyhow::Result<Option<KernelConfig>> {
    let Some(path) = &options.kernel else { return Ok(None) };
    let initrd = options.initrd.as_deref().filter(|_| initrd_modules(options).is_empty());
    let initrd = initrd.map(|path| read("--initrd", &unescaped(path))).transpose()?;
    let modules = modules(options).into_iter().map(|(option, text)| module(option, &text));
    let modules = modules.collect::<Result<_, _>>()?;
    Ok(Some(KernelConfig {
        image: read("--kernel", path)?,
        name: path.display().to_string(),
        initrd,
        command_line: options.append.clone(),
        modules,
    }))
}

/// All modules, with the options that name them.
pub(crate) fn modules(options: &RunOptions) -> Vec<(&'static str, String)> {
    let first = initrd_modules(options).into_iter().map(|text| ("--initrd", text));
    first.chain(options.module.iter().map(|text| ("--module", text.clone()))).collect()
}

/// The modules that `--initrd` names; none if it names a single file.
fn initrd_modules(options: &RunOptions) -> Vec<String> {
    let text = options.initrd.as_deref().and_then(Path::to_str).unwrap_or_default();
    let parts = at_commas(text);
    if parts.len() > 1 { parts } else { Vec::new() }
}

/// The name of the only file that `--initrd` names.
fn unescaped(path: &Path) -> PathBuf {
    path.to_str().map_or_else(|| path.into(), |text| at_commas(text).concat().into())
}

/// The parts of a text between commas; two commas are one that separates nothing.
fn at_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match parts.last_mut() {
            Some(part) if c != ',' || rest.next_if_eq(&',').is_some() => part.push(c),
            _ => parts.push(String::new()),
        }
    }
    parts
}

fn module(option: &str, text: &str) -> anyhow::Result<ModuleConfig> {
    let path = text.split_whitespace().next().unwrap_or_default();
    let data = read(option, Path::new(path))?;
    Ok(ModuleConfig { data, command_line: text.into() })
}

fn fw_cfg(options: &IsaOptions) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let item = |option: &FwCfgOption| {
        let bytes = match &option.content {
            FwCfgContent::File(path) => std::fs::read(path)
                .with_context(|| format!("--fw-cfg {}: cannot be read", path.display()))?,
            FwCfgContent::Text(text) => text.clone().into_bytes(),
        };
        Ok((option.name.clone(), bytes))
    };
    options.fw_cfg.iter().map(item).collect()
}

fn trace_exits(options: &RunOptions) -> anyhow::Result<Option<ExitTraceConfig>> {
    let Some(option) = &options.trace_exits else { return Ok(None) };
    let file = File::create(&option.file)
        .with_context(|| format!("--trace-exits {}: cannot be written", option.file.display()))?;
    let accel = options.accel.to_possible_value();
    let cpu = accel.map_or_else(String::new, |value| value.get_name().to_owned());
    Ok(Some(ExitTraceConfig { cpu, inner: option.inner, sink: Box::new(file) }))
}

fn trace(options: &RunOptions) -> anyhow::Result<Option<TraceConfig>> {
    let Some(path) = &options.trace_file else { return Ok(None) };
    let file = File::create(path)
        .with_context(|| format!("--trace-file {}: cannot be written", path.display()))?;
    let categories = options.trace.iter().map(|option| match option {
        TraceOption::Int => TraceCategories::INT,
        TraceOption::Io => TraceCategories::IO,
        TraceOption::Mmio => TraceCategories::MMIO,
        TraceOption::Cpu => TraceCategories::CPU,
    });
    let sink = Box::new(std::io::BufWriter::new(file));
    Ok(Some(TraceConfig { categories: categories.collect(), sink }))
}

/// The host's ends of serial ports that something can be typed into.
#[derive(Default)]
pub(crate) struct Ends {
    /// The ports that the terminal is connected to.
    pub(crate) terminal: Vec<usize>,
    pub(crate) inputs: Vec<(usize, Input)>,
    /// What is told of the JIT at the end.
    shown: Option<Shown>,
}

fn connect(
    config: &mut MachineConfig,
    serial: &[SerialPortOption],
    writers: &mut Writers,
) -> anyhow::Result<Ends> {
    let mut ends = Ends::default();
    if serial.len() > config.serial.len() {
        bail!("--serial: a PC has four serial ports; give at most four");
    }
    for (port, option) in serial.iter().enumerate() {
        let name = format!("--serial (COM{})", port + 1);
        let (output, input) = writers.open(&name, &option.end)?;
        config.serial[port] = Some(Box::new(output));
        config.serial_baud[port] = option.baud;
        if option.end == SerialOption::Stdio {
            ends.terminal.push(port);
        }
        ends.inputs.extend(input.map(|input| (port, input)));
    }
    Ok(ends)
}

fn start(
    config: MachineConfig,
    ends: Ends,
    writers: Writers,
    options: Option<&RunOptions>,
) -> anyhow::Result<u8> {
    let mut machine = Machine::new(config).map_err(|error| report::refusal(&error, options))?;
    let shown = ends.shown;
    let handle = machine.handle();
    let signalled = Arc::new(AtomicU8::new(0));
    let ending = writers.ending();
    watch_signals(handle.clone(), ending.clone(), signalled.clone())?;
    let terminal = (!ends.terminal.is_empty()).then(|| {
        let handle = handle.clone();
        let raw = RawTerminal::enter();
        let mut consoles = Consoles::new(ends.terminal);
        let shown = shown.clone();
        std::thread::spawn(move || {
            console::read_keys(|wish| {
                if wish == Wish::Quit {
                    ending.tell();
                }
                if wish == Wish::Statistics {
                    let text = shown.as_ref().map(Shown::text);
                    console::tell(text.as_deref().unwrap_or("Only with --jit-stats"));
                }
                grant(&handle, &mut consoles, wish);
            })
        });
        raw
    });
    for (port, input) in ends.inputs {
        let handle = handle.clone();
        std::thread::spawn(move || input.serve(&mut |bytes| handle.serial_input(port, bytes)));
    }
    let end = machine.run();
    let wanted = options.is_some_and(|options| options.print_state_hash);
    let hash = wanted.then(|| machine.state_hash());
    drop(machine);
    writers.finish();
    drop(terminal);
    if let Some(hash) = hash {
        eprintln!("state {}", hash?);
    }
    if let Some(shown) = shown {
        shown.show()?;
    }
    let status = status(&end?);
    Ok(match signalled.load(Ordering::Acquire) {
        0 => status,
        signal => 128 + signal,
    })
}

fn grant(handle: &MachineHandle, consoles: &mut Consoles, wish: Wish) {
    if let Some(text) = consoles.change(&wish) {
        console::tell(&text);
    }
    match wish {
        Wish::Input(bytes) => {
            handle.serial_input(consoles.focus(), &bytes);
        }
        Wish::Break => handle.send_break(consoles.focus()),
        Wish::Quit => handle.stop(),
        Wish::Help | Wish::Statistics | Wish::Next | Wish::Choose(_) => {}
    }
}

/// The machine ends in good order when the process is asked to, and changes its CPU at SIGUSR1.
fn watch_signals(
    handle: MachineHandle,
    ending: Ending,
    signalled: Arc<AtomicU8>,
) -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])
        .context("Cannot watch for signals")?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                handle.switch_cpu();
                continue;
            }
            signalled.store(signal as u8, Ordering::Release);
            ending.tell();
            handle.stop();
        }
    });
    Ok(())
}

/// The exit status that a run's end stands for.
fn status(end: &RunEnd) -> u8 {
    match end {
        RunEnd::PowerOff | RunEnd::Reset | RunEnd::Stopped => 0,
        RunEnd::DebugExit(status) => *status as u8,
        RunEnd::Shutdown { cpu, state, code } => {
            eprint!("{}", report::shutdown(*cpu, state, code));
            SHUTDOWN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::at_commas;

    #[test]
    fn modules_are_separated_by_commas_of_which_two_are_one_in_a_name() {
        assert_eq!(at_commas("a"), ["a"]);
        assert_eq!(at_commas("a,b c=1,d"), ["a", "b c=1", "d"]);
        assert_eq!(at_commas("a,,b,c,,,d"), ["a,b", "c,", "d"]);
        assert_eq!(at_commas(""), [""]);
    }
}
