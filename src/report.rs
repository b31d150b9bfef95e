//! What is said when a machine cannot be made, and when a guest has brought its processor down.

use std::fmt::Write;

use trivium_cpu::CpuState;
use trivium_firmware::Subject;
use trivium_machine::{CodeError, ConfigError, MachineError};

use crate::options::RunOptions;

/// A machine that cannot be made, with the option to change.
#[must_use]
pub fn refusal(error: &MachineError, options: Option<&RunOptions>) -> anyhow::Error {
    let at = match error {
        MachineError::Config(error) => config_option(error).to_string(),
        MachineError::Load(error) => load_option(error.subject(), options),
        MachineError::Memory(_) => "--memory".into(),
        MachineError::Kvm(_) => "--accel kvm".into(),
        MachineError::Code(error @ CodeError::Dump(_)) => {
            return anyhow::anyhow!("--jit-dump: {error}; use a folder that can be written to");
        }
        MachineError::Code(error @ CodeError::PerfMap(_)) => {
            return anyhow::anyhow!("--jit-perf-map: {error}");
        }
        MachineError::Code(error) => {
            return anyhow::anyhow!("--accel jit: {error}; use --accel interp");
        }
        _ => return anyhow::anyhow!("{error}"),
    };
    anyhow::anyhow!("{at}: {error}")
}

fn config_option(error: &ConfigError) -> &'static str {
    use ConfigError as E;
    match error {
        E::MemoryTooSmall { .. }
        | E::MemoryBeyondHost { .. }
        | E::MemoryBeyondCpu { .. }
        | E::ReservedTooLarge { .. } => "--memory",
        E::NoCpus | E::TooManyCpus { .. } => "--smp",
        E::NoSwitchCpus => "--switch-cpus",
        E::SwitchTooOften => "--switch-every",
        E::NothingToBoot => "--kernel",
        E::FirmwareAndModules => "--module",
        E::FirmwareEmpty | E::FirmwareTooLarge { .. } => "--bios",
        E::PortsTaken { .. } => "--debug-exit",
        E::KvmCountsNot => "--accel",
        E::IrqchipIsKvms { .. } | E::IrqchipHasIoApic => "--kvm",
        E::FwCfg { .. } => "--fw-cfg",
    }
}

fn load_option(subject: Subject, options: Option<&RunOptions>) -> String {
    let path = |option: &str, path: Option<&std::path::PathBuf>| match path {
        Some(path) => format!("{option} {}", path.display()),
        None => option.into(),
    };
    match subject {
        Subject::Kernel => path("--kernel", options.and_then(|o| o.kernel.as_ref())),
        Subject::Initrd => path("--initrd", options.and_then(|o| o.initrd.as_ref())),
        Subject::Module(n) => match options.and_then(|o| crate::run::modules(o).get(n).cloned()) {
            Some((option, text)) => format!("{option} {text}"),
            None => "--module".into(),
        },
        Subject::CommandLine => "--append".into(),
        Subject::Ram => "--memory".into(),
        Subject::Processors => "--smp".into(),
        Subject::Smbios => "--smbios".into(),
        Subject::AcpiTable(n) => {
            let file = options.and_then(|o| o.firmware.acpi_table.get(n));
            path("--acpi-table", file)
        }
    }
}

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];

/// A triple fault: the processor's state and the code where it happened.
#[must_use]
pub fn shutdown(cpu: usize, state: &CpuState, code: &[u8]) -> String {
    let mut text = format!("trivium: CPU {cpu} has shut down after a triple fault\n");
    // Writing to a string cannot fail.
    let _ = write_state(&mut text, state);
    let bytes: Vec<String> = code.iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = writeln!(text, "code at rip: {}", bytes.join(" "));
    text
}

fn write_state(out: &mut String, state: &CpuState) -> std::fmt::Result {
    let general = &state.general;
    for (row, names) in general.regs.chunks(4).zip(NAMES.chunks(4)) {
        for (value, name) in row.iter().zip(names) {
            write!(out, "{name:>4} {value:016x}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, " rip {:016x} rflags {:08x}", general.rip, general.rflags)?;
    for (segment, name) in state.segments.regs.iter().zip(SEGMENTS) {
        let (selector, base) = (segment.selector, segment.base);
        let (limit, attributes) = (segment.limit, segment.attributes.0);
        writeln!(
            out,
            "  {name} {selector:04x} base {base:016x} limit {limit:08x} {attributes:04x}"
        )?;
    }
    let control = &state.control;
    writeln!(
        out,
        " cr0 {:08x} cr2 {:016x} cr3 {:016x} cr4 {:08x} efer {:04x}",
        control.cr0, control.cr2, control.cr3, control.cr4, control.efer
    )?;
    let (gdtr, idtr) = (&state.segments.gdtr, &state.segments.idtr);
    writeln!(
        out,
        "gdtr {:016x} limit {:04x}  idtr {:016x} limit {:04x}",
        gdtr.base, gdtr.limit, idtr.base, idtr.limit
    )
}
