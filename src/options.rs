//! The command line: what may be said, and what is wrong with what was said.

mod block;
mod crosscheck;
mod explain;
mod firmware;
mod isa;
mod jit;
mod kvm;
mod memory;
mod rtc;
mod serial;
mod switch;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use trivium_cpu::model::CpuModel;

pub use block::{Address, BlockOptions};
pub use crosscheck::{CrosscheckOptions, EngineOption, Guest, KindOption};
pub use explain::{ExplainOptions, TraceExitsOption};
pub use firmware::FirmwareOptions;
pub use isa::{FwCfgContent, FwCfgOption, IsaOptions};
pub use jit::JitOptions;
pub use kvm::KvmOption;
pub use memory::MemoryOption;
pub use rtc::{LostTicksOption, RtcBase, RtcClock, RtcOption};
pub use serial::SerialPortOption;
pub use switch::{SwitchEveryOption, SwitchOptions};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// An x86 PC in software.
///
/// Start with `trivium demo`. A Linux kernel needs no disk and no firmware:
///
///   trivium run --memory 512M --kernel vmlinuz --initrd initrd.img --append "console=ttyS0"
#[derive(Debug, Parser)]
#[command(name = "trivium", version, styles = STYLES, verbatim_doc_comment)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Log more: -v says what the machine is made of, -vv what the guest does wrong.
    /// RUST_LOG chooses by module.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a machine.
    ///
    /// Exit status: 0 when the guest powers off; (v << 1) | 1 when it writes v to isa-debug-exit;
    /// 2 when the command line or a file is wrong; 3 when it triple-faults and --no-reboot is set.
    Run(Box<RunOptions>),
    /// Run the demonstration guest that is part of this program: from the reset vector to long
    /// mode, step by step, and a little work.
    Demo(DemoOptions),
    /// Hold CPUs against each other, and against the processor of this host.
    ///
    /// Makes cases of user-level code from a seed, runs each on two engines and compares all that
    /// the code can see: registers, flags, memory, and how it ended. What the manuals leave
    /// undefined may differ, nothing else. Each divergence is made small and shown.
    ///
    /// With `run` and its options after those of its own, it holds whole machines against each
    /// other: `trivium crosscheck --cpus interp,jit run --kernel vmlinuz`.
    ///
    /// Exit status: 0 without divergences, 1 with some, 2 when the command line or a file is wrong.
    Crosscheck(Box<CrosscheckOptions>),
    /// Explain what `run` has written down of itself, or what becomes of a block of code.
    ///
    /// Traces of exits: how often each CPU left the guest's code, why, where, and what it cost; several
    /// traces side by side. With --block or --bytes: the block as the guest has it, as the interpreter
    /// does, what the JIT knows of it, and the host's code that it makes of it.
    Explain(Box<ExplainOptions>),
    /// Say what each kind of CPU can do on this host, found by trying.
    Cpus,
    /// List the CPU models and their features.
    Models,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    Man {
        /// Where to.
        #[arg(default_value = ".", value_name = "DIR")]
        directory: PathBuf,
    },
}

/// What `demo` takes.
#[derive(Debug, Args)]
pub struct DemoOptions {
    /// The CPU that executes the guest.
    #[arg(long, value_enum, default_value_t = Accel::Interp)]
    pub accel: Accel,
    /// Virtual time; see `trivium run --help`.
    #[arg(long, default_value = "real", value_name = "CLOCK")]
    pub clock: ClockOption,
}

/// What `run` takes.
#[derive(Debug, Args)]
pub struct RunOptions {
    /// The CPU that executes the guest. kvm:jit and kvm:interp: another CPU does what this host's KVM
    /// cannot. `trivium cpus` says what each can do here.
    #[arg(long, value_enum, default_value_t = Accel::Interp)]
    pub accel: Accel,
    #[command(flatten)]
    pub switch: SwitchOptions,
    /// The board: pc (i440FX and PIIX3/PIIX4), or isapc (the chips of an AT alone: no PCI, no ACPI).
    #[arg(long, value_enum, default_value_t = Board::Pc)]
    pub machine: Board,
    /// The CPU model, and features to add to it or take from it: `MODEL[,+FEATURE][,-FEATURE]`.
    /// `trivium models` lists both.
    #[arg(long, default_value = "max", value_parser = parse_cpu, value_name = "MODEL")]
    pub cpu: CpuModel,
    /// Size of RAM: bytes, or with K, M, G (powers of 1024), and how the host backs it:
    /// SIZE[,prealloc][,hugepages][,share][,reserved=SIZE]. prealloc takes all of it from the host at
    /// the start; hugepages makes it of huge pages; share lets other processes map it; reserved
    /// keeps the top of the RAM below 4 GiB from the guest.
    #[arg(short, long, default_value = "128M", value_name = "SIZE[,...]")]
    pub memory: MemoryOption,
    /// Number of processors; this version has one.
    #[arg(long, default_value_t = 1, value_parser = parse_smp, value_name = "N")]
    pub smp: u32,
    /// Where the screen goes; this version has no screen.
    #[arg(long, value_enum, default_value_t = Display::None)]
    pub display: Display,
    /// Where a serial port goes: stdio, file:PATH, pty, null, unix:PATH, tcp:PORT, tcp:HOST:PORT
    /// (these three wait for a program to connect; with ,connect they connect to one) or fifo:PATH
    /// (PATH.in and PATH.out). The first is COM1, the next COM2, up to four. Several on the terminal
    /// take turns: Ctrl-A c, or Ctrl-A 1 to 4. Without any, COM1 is on the terminal.
    /// With ,baud=on at the end, characters take the time of the port's baud rate.
    #[arg(long, value_name = "WHERE")]
    pub serial: Vec<SerialPortOption>,
    /// Firmware image, ending at 4 GiB and below 1 MiB. It starts instead of the kernel, and finds
    /// --kernel, --initrd and --append in fw_cfg.
    #[arg(long, value_name = "FILE")]
    pub bios: Option<PathBuf>,
    /// Kernel to boot without firmware: Linux bzImage or vmlinux, PVH ELF, Multiboot 1 and 2.
    #[arg(long, value_name = "FILE", required_unless_present = "bios")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk; for a Multiboot kernel its first module, or `FILE[ ARGUMENTS],FILE...` for
    /// several (,, is a comma).
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Multiboot module and its command line: `FILE[ ARGUMENTS]`. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub module: Vec<String>,
    /// The kernel's command line.
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub append: String,
    /// What the guest is told of its machine.
    #[command(flatten)]
    pub firmware: FirmwareOptions,
    #[command(flatten)]
    pub isa: IsaOptions,
    #[command(flatten)]
    pub jit: JitOptions,
    /// KVM's part in --accel kvm:jit and kvm:interp: level=all (all that it can run), level=user
    /// (64-bit code at CPL 3), level=auto (by what it is found to do well; see `trivium cpus`). With
    /// --accel kvm, irqchip=on: the kernel's own interrupt chips and timer; irqchip=split: its local
    /// APICs alone; irqchip=off: none.
    #[arg(long, value_name = "level=LEVEL,irqchip=WHICH")]
    pub kvm: Option<KvmOption>,
    /// Virtual time: real (the host's), icount (one nanosecond an instruction: every run is the
    /// same), or icount,sleep=off (the same, and idle time is skipped).
    #[arg(long, default_value = "real", value_name = "CLOCK", verbatim_doc_comment)]
    pub clock: ClockOption,
    /// The real-time clock, `base=WHEN[,clock=WHAT][,lost-ticks=POLICY]`. WHEN is utc or localtime
    /// (the host's time), a date such as 2026-11-21 or 2026-11-21T12:00:00, or seconds since 1970;
    /// under icount it is 2026-01-01 unless given. WHAT the clock follows: host (the host's clock,
    /// over stops of the machine), or vm (virtual time; always so under icount). POLICY for periodic
    /// interrupts that the host was too late for: delay, catchup or discard.
    #[arg(long, value_name = "RTC", verbatim_doc_comment)]
    pub rtc: Option<RtcOption>,
    /// End with the guest's reset or triple fault, instead of starting it again.
    #[arg(long)]
    pub no_reboot: bool,
    /// Add isa-debug-exit at this port: a write of v there ends the run with status (v << 1) | 1.
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "0x501",
          value_parser = parse_port)]
    pub debug_exit: Option<u16>,
    /// Where port E9h (the debug console) goes: stdio, file:PATH or null.
    #[arg(long, value_name = "WHERE")]
    pub debugcon: Option<SerialOption>,
    /// Write a trace of these: int (interrupt lines, interrupts and exceptions), io (ports), mmio (device
    /// registers), cpu (state at each exit).
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',', requires = "trace_file")]
    pub trace: Vec<TraceOption>,
    /// The file that the trace goes to.
    #[arg(long, value_name = "FILE")]
    pub trace_file: Option<PathBuf>,
    /// Write down each time that the CPU leaves the guest's code, why, where, and what it costs; for
    /// `trivium explain`. With ,inner also what CPUs in software do by themselves: misses in the TLB,
    /// exceptions, privileged instructions.
    #[arg(long, value_name = "FILE[,inner]")]
    pub trace_exits: Option<TraceExitsOption>,
    /// Options from a file, `name = value` by the names that they have here; what the command line
    /// says wins.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write all options that this run uses to a file for --config; - is standard output.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub print_config: Option<PathBuf>,
    /// Print a hash of the machine's final state, memory included, to standard error.
    #[arg(long)]
    pub print_state_hash: bool,
}

/// Kinds of CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// The interpreter.
    Interp,
    /// The JIT: translates what runs often into code of the host.
    Jit,
    /// This host's KVM.
    Kvm,
    /// KVM, and the JIT where KVM cannot go on.
    #[value(name = "kvm:jit")]
    KvmJit,
    /// KVM, and the interpreter where KVM cannot go on.
    #[value(name = "kvm:interp")]
    KvmInterp,
    /// The best of them on this host, found by trying; `trivium cpus` says which.
    Auto,
}

/// Boards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Board {
    /// i440FX with PIIX3 and PIIX4.
    Pc,
    /// The chips of an AT alone.
    Isapc,
}

/// Screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Display {
    /// No screen.
    None,
}

/// What a trace holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TraceOption {
    /// Interrupt lines, interrupts and exceptions.
    Int,
    /// Ports.
    Io,
    /// Device registers in memory.
    Mmio,
    /// CPU state at each exit.
    Cpu,
}

/// Virtual time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockOption {
    /// The host's.
    Real,
    /// By retired instructions.
    Icount {
        /// Whether idle time passes as on the host.
        sleep: bool,
    },
}

impl std::str::FromStr for ClockOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "real" => Ok(Self::Real),
            "icount" | "icount,sleep=on" => Ok(Self::Icount { sleep: true }),
            "icount,sleep=off" => Ok(Self::Icount { sleep: false }),
            _ => Err("use real, icount or icount,sleep=off".into()),
        }
    }
}

/// Where characters go to and come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SerialOption {
    /// The terminal.
    Stdio,
    /// Written to a file.
    File(PathBuf),
    /// A pseudo-terminal, whose name is printed.
    Pty,
    /// The named pipes PATH.in and PATH.out.
    Fifo(PathBuf),
    /// A socket.
    Socket(SocketOption),
    /// Nowhere.
    Null,
}

impl std::str::FromStr for SerialOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "pty" => Ok(Self::Pty),
            None if text == "null" => Ok(Self::Null),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("fifo", path)) if !path.is_empty() => Ok(Self::Fifo(path.into())),
            Some(("unix", rest)) => SocketOption::unix(rest).map(Self::Socket),
            Some(("tcp", rest)) => SocketOption::tcp(rest).map(Self::Socket),
            _ => Err("use stdio, file:PATH, pty, null, unix:PATH, tcp:PORT or fifo:PATH".into()),
        }
    }
}

/// A socket that a line is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOption {
    /// Where it is.
    pub address: SocketAddress,
    /// Whether to connect to a program that waits there, instead of waiting for one.
    pub connect: bool,
}

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketAddress {
    /// In the file system.
    Unix(PathBuf),
    /// A host, as name or number, and a port.
    Tcp(String, u16),
}

impl SocketOption {
    /// Takes `,connect` off.
    fn split(text: &str) -> (&str, bool) {
        match text.strip_suffix(",connect") {
            Some(rest) => (rest, true),
            None => (text, false),
        }
    }

    fn unix(text: &str) -> Result<Self, String> {
        let (path, connect) = Self::split(text);
        if path.is_empty() {
            return Err("use unix:PATH or unix:PATH,connect".into());
        }
        Ok(Self { address: SocketAddress::Unix(path.into()), connect })
    }

    fn tcp(text: &str) -> Result<Self, String> {
        let (address, connect) = Self::split(text);
        let (host, port) = address.rsplit_once(':').unwrap_or(("127.0.0.1", address));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match port.parse() {
            Ok(port) if !host.is_empty() => {
                Ok(Self { address: SocketAddress::Tcp(host.into(), port), connect })
            }
            _ => Err("use tcp:PORT or tcp:HOST:PORT, with ,connect to connect".into()),
        }
    }
}

fn parse_cpu(text: &str) -> Result<CpuModel, String> {
    CpuModel::parse(text).map_err(|error| error.to_string())
}

fn parse_smp(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(1) => Ok(1),
        Ok(0) => Err("a machine needs a processor; use 1".into()),
        Ok(_) => Err("this version has one processor; use 1".into()),
        Err(_) => Err("not a number; use 1".into()),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map_err(|_| "not a port number; use one such as 0x501".into())
}

/// An error of the command line in one line: what clap says before it explains usage.
#[must_use]
pub fn one_line(rendered: &str) -> String {
    let told = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty());
    let mut line = told.collect::<Vec<_>>().join(" ");
    if let Some(rest) = line.strip_prefix("error: ") {
        line = rest.into();
    }
    if !line.contains("use ") && !line.contains("tip:") && !line.contains("possible values") {
        line.push_str("; see --help");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn complaint(arguments: &[&str]) -> String {
        let all = ["trivium"].iter().chain(arguments);
        let error = Options::try_parse_from(all).expect_err("this is a mistake");
        one_line(&error.render().to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn every_mistake_is_one_line_that_names_the_option_and_the_remedy() {
        let cases: &[(&[&str], &str, &str)] = &[
            (&["run", "--kernel", "k", "--memory", "0"], "--memory", "512M"),
            (&["run", "--kernel", "k", "--memory=-1"], "--memory", "512M"),
            (&["run", "--kernel", "k", "--memory", "lots"], "--memory", "512M"),
            (&["run", "--kernel", "k", "--memory", "3000001"], "--memory", "512M"),
            (&["run", "--kernel", "k", "--memory", "512M,fast"], "--memory", "prealloc"),
            (&["run", "--kernel", "k", "--smp", "2"], "--smp", "use 1"),
            (&["run", "--kernel", "k", "--smp", "0"], "--smp", "use 1"),
            (&["run", "--kernel", "k", "--cpu", "k7"], "--cpu", ""),
            (&["run", "--kernel", "k", "--cpu", "max,+magic"], "--cpu", "magic"),
            (&["run", "--kernel", "k", "--machine", "mac"], "--machine", "pc"),
            (&["run", "--kernel", "k", "--accel", "tcg"], "--accel", "interp"),
            (&["run", "--kernel", "k", "--clock", "wall"], "--clock", "icount"),
            (&["run", "--kernel", "k", "--rtc", "base=noon"], "--rtc", "localtime"),
            (&["run", "--kernel", "k", "--serial", "tape"], "--serial", "stdio"),
            (&["run", "--kernel", "k", "--trace", "io"], "--trace-file", ""),
            (&["run", "--kernel", "k", "--turbo"], "--turbo", ""),
            (&["run"], "--kernel", "--help"),
            (&["fly"], "fly", ""),
        ];
        for (arguments, named, remedy) in cases {
            let line = complaint(arguments);
            assert!(!line.contains('\n'), "{line}");
            assert!(line.contains(named), "{arguments:?}: {line}");
            assert!(line.contains(remedy), "{arguments:?}: {line}");
        }
    }

    #[test]
    fn sockets_are_local_unless_told_otherwise() {
        let tcp = |host: &str, port, connect| {
            Ok(SerialOption::Socket(SocketOption {
                address: SocketAddress::Tcp(host.into(), port),
                connect,
            }))
        };
        assert_eq!("tcp:4444".parse(), tcp("127.0.0.1", 4444, false));
        assert_eq!("tcp:0.0.0.0:4444".parse(), tcp("0.0.0.0", 4444, false));
        assert_eq!("tcp:[::1]:23,connect".parse(), tcp("::1", 23, true));
        for wrong in ["tcp:", "tcp::1", "tcp:host:", "tcp:70000", "unix:", "unix:,connect", "fifo:"]
        {
            assert!(wrong.parse::<SerialOption>().is_err(), "{wrong}");
        }
    }
}
