//! What a machine is made of, as its user says it, and what can be wrong with that.

use std::io::Write;
use std::sync::Arc;

use bitflags::bitflags;
use thiserror::Error;
use trivium_cpu::CpuModel;
use trivium_devices::fw_cfg::ItemError;
use trivium_devices::lost_ticks::LostTicks;
use trivium_devices::parallel::ParallelBackend;
use trivium_devices::ports::DebugConsoleBackend;
use trivium_devices::uart16550::SerialBackend;
use trivium_firmware::layout::{HIGH_RAM_START, LOW_RAM_LIMIT, MIN_RAM};
use trivium_firmware::smbios::SmbiosSettings;
use trivium_interp::BlockLimits;
use trivium_jit::JitOptions;
use trivium_kvm::{Irqchip, Level as KvmLevel, Sample};
use trivium_memory::MemoryOptions;

use crate::switch::SwitchConfig;

/// The serial ports that a PC has places for.
pub const SERIAL_PORTS: usize = 4;
/// The most processors that a machine can have.
pub const MAX_CPUS: usize = 1;
/// The largest firmware image, in bytes: what the address space keeps for it below 4 GiB.
pub const MAX_FIRMWARE: usize = 16 << 20;

const MIB: u64 = 1 << 20;

/// Which kind of CPU runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// The interpreter.
    #[default]
    Interp,
    /// The JIT.
    Jit,
    /// KVM.
    Kvm,
    /// KVM, and the JIT where KVM cannot go on.
    KvmJit,
    /// KVM, and the interpreter where KVM cannot go on.
    KvmInterp,
}

/// What is chosen of KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvmOptions {
    /// What KVM runs where another CPU stands behind it; found by probes unless said.
    pub level: Option<KvmLevel>,
    /// Which interrupt chips are the kernel's.
    pub irqchip: Irqchip,
    /// To hold KVM against another CPU: [`Accel::Kvm`] runs such instructions of 64-bit user-level code,
    /// and the interpreter the rest. Machines with other CPUs are of the model that this takes.
    pub counted: Option<Sample>,
}

impl Accel {
    /// Whether it takes this host's KVM.
    #[must_use]
    pub fn uses_kvm(self) -> bool {
        matches!(self, Self::Kvm | Self::KvmJit | Self::KvmInterp)
    }

    /// The kinds that every host has, and that do exactly the same.
    pub const INTERCHANGEABLE: &[Self] = &[Self::Interp, Self::Jit];
}

/// What virtual time follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockMode {
    /// The host's time, as long as the machine runs.
    #[default]
    Real,
    /// The guest's instructions, a nanosecond each: a run can be repeated to the bit.
    Icount {
        /// Whether the host waits while the guest is idle; if not, virtual time jumps to the
        /// guest's next deadline.
        sleep: bool,
    },
}

/// What the machine is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Board {
    /// i440FX and PIIX3 with the PIIX4's power management, I/O APIC and HPET; ACPI.
    #[default]
    Pc,
    /// The chips of an AT alone: no PCI, no I/O APIC, no HPET, no ACPI.
    IsaPc,
}

/// A kernel to boot without firmware, or for the firmware to find in fw_cfg.
#[derive(Debug, Clone, Default)]
pub struct KernelConfig {
    /// The kernel file's content.
    pub image: Vec<u8>,
    /// The kernel file's name, the first word of a Multiboot kernel's command line.
    pub name: String,
    /// The content of the initial RAM disk.
    pub initrd: Option<Vec<u8>>,
    /// The kernel's command line.
    pub command_line: String,
    /// Modules for Multiboot and PVH kernels.
    pub modules: Vec<ModuleConfig>,
}

/// A file that a Multiboot or PVH kernel is given.
#[derive(Debug, Clone, Default)]
pub struct ModuleConfig {
    /// The file's content.
    pub data: Vec<u8>,
    /// What the kernel is told with it: by custom the file's name and then its arguments.
    pub command_line: String,
}

bitflags! {
    /// What a trace tells of.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct TraceCategories: u8 {
        /// Accesses to I/O ports.
        const IO = 1 << 0;
        /// Accesses to memory that is not RAM.
        const MMIO = 1 << 1;
        /// Interrupt lines, messages, and what processors acknowledge.
        const INT = 1 << 2;
        /// Why processors stop running, and where they are then.
        const CPU = 1 << 3;
    }
}

/// A trace and where it goes.
pub struct TraceConfig {
    /// What it tells of.
    pub categories: TraceCategories,
    /// Where its lines go.
    pub sink: Box<dyn Write + Send>,
}

/// How a machine has its RAM.
#[derive(Default)]
pub struct MemoryConfig {
    /// Bytes at the top of low RAM that the guest is told to leave alone.
    pub reserved: u64,
    /// The host gives all of it before the guest starts.
    pub prealloc: bool,
    /// How the host backs it.
    pub host: MemoryOptions,
    /// Is told of the bytes that the host has given so far.
    pub progress: Option<Box<dyn FnMut(u64) + Send>>,
}

/// A machine, as its user wants it.
pub struct MachineConfig {
    /// What it is built on.
    pub board: Board,
    /// RAM in bytes; rounded down to whole pages.
    pub memory_size: u64,
    /// How it has that RAM.
    pub memory: MemoryConfig,
    /// Number of processors.
    pub cpus: u32,
    /// Which kind of CPU runs the guest.
    pub accel: Accel,
    /// What is chosen of the JIT, if it is to run the guest.
    pub jit: JitOptions,
    /// What is chosen of KVM.
    pub kvm: KvmOptions,
    /// The CPUs that take turns in running it, instead of one of kind `accel`.
    pub switch: Option<SwitchConfig>,
    /// How large blocks of code become in its CPUs.
    pub blocks: Arc<BlockLimits>,
    /// What the processors tell of themselves.
    pub model: CpuModel,
    /// What virtual time follows.
    pub clock: ClockMode,
    /// What the real-time clock shows when the machine first starts: seconds since 1970-01-01
    /// 00:00:00, in the zone that the clock is to show.
    pub rtc_base: u64,
    /// Whether the real-time clock goes on with the host's clock while the machine stands; else it
    /// follows virtual time.
    pub rtc_follows_host: bool,
    /// What becomes of the time for which the host did not let the machine run, and of periodic
    /// interrupts that it was too late for.
    pub lost_ticks: LostTicks,
    /// A firmware image, which ends at 4 GiB and has its last 128 KiB also below 1 MiB.
    pub firmware: Option<Vec<u8>>,
    /// A kernel: booted without firmware; if there is firmware, it finds it in fw_cfg.
    pub kernel: Option<KernelConfig>,
    /// What SMBIOS tells a kernel that is booted without firmware, other than the machine's own
    /// values.
    pub smbios: SmbiosSettings,
    /// ACPI tables for such a kernel besides the machine's own: whole tables with their headers.
    pub acpi_tables: Vec<Vec<u8>>,
    /// The far ends of COM1 to COM4; those without one are not there.
    pub serial: [Option<Box<dyn SerialBackend>>; SERIAL_PORTS],
    /// The printer at the parallel port; without it there is no such port.
    pub parallel: Option<Box<dyn ParallelBackend>>,
    /// Items of fw_cfg besides the machine's own: names, which by custom start with `opt/`, and
    /// contents.
    pub fw_cfg: Vec<(String, Vec<u8>)>,
    /// Which of COM1 to COM4 have lines with a baud rate: characters take their time on them.
    pub serial_baud: [bool; SERIAL_PORTS],
    /// Where the bytes written to port E9h go; without it there is no such port.
    pub debug_console: Option<Box<dyn DebugConsoleBackend>>,
    /// The first of the four ports of `isa-debug-exit`, if it is there.
    pub debug_exit_port: Option<u16>,
    /// Nothing is booted: a state will be put into the machine.
    pub bare: bool,
    /// A reset or a triple fault ends the run.
    pub no_reboot: bool,
    /// A trace, if one is wanted.
    pub trace: Option<TraceConfig>,
    /// A trace of exits, if one is wanted.
    pub exit_trace: Option<crate::exits::ExitTraceConfig>,
}

impl MachineConfig {
    /// A machine with one processor of this model and so much RAM, and nothing to boot yet.
    #[must_use]
    pub fn new(model: CpuModel, memory_size: u64) -> Self {
        Self {
            board: Board::default(),
            memory_size,
            memory: MemoryConfig::default(),
            cpus: 1,
            accel: Accel::default(),
            jit: JitOptions::default(),
            kvm: KvmOptions::default(),
            switch: None,
            blocks: Arc::default(),
            model,
            clock: ClockMode::default(),
            rtc_base: 0,
            rtc_follows_host: false,
            lost_ticks: LostTicks::default(),
            firmware: None,
            kernel: None,
            smbios: SmbiosSettings::default(),
            acpi_tables: Vec::new(),
            serial: [const { None }; SERIAL_PORTS],
            parallel: None,
            fw_cfg: Vec::new(),
            serial_baud: [false; SERIAL_PORTS],
            debug_console: None,
            debug_exit_port: None,
            bare: false,
            no_reboot: false,
            trace: None,
            exit_trace: None,
        }
    }

    /// The kinds of CPU that are wanted.
    pub(crate) fn accels(&self) -> Vec<Accel> {
        self.switch.as_ref().map_or_else(|| vec![self.accel], |switch| switch.cpus.clone())
    }

    /// Says whether a machine can be made of this.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_memory(host_memory())?;
        self.check_boot()?;
        let is_counted =
            |accel: &Accel| *accel == Accel::Kvm && self.kvm.counted.is_some() || !accel.uses_kvm();
        if self.clock != ClockMode::Real && !self.accels().iter().all(is_counted) {
            return Err(ConfigError::KvmCountsNot);
        }
        self.switch.as_ref().map_or(Ok(()), SwitchConfig::check)?;
        self.check_irqchip()?;
        match self.cpus {
            0 => Err(ConfigError::NoCpus),
            n if n as usize > MAX_CPUS => Err(ConfigError::TooManyCpus { asked: n }),
            _ => Ok(()),
        }
    }

    fn check_memory(&self, host: Option<u64>) -> Result<(), ConfigError> {
        let size = self.memory_size;
        if size < MIN_RAM {
            return Err(ConfigError::MemoryTooSmall { size });
        }
        if let Some(host) = host.filter(|&host| size > host) {
            return Err(ConfigError::MemoryBeyondHost { mib: size / MIB, host_mib: host / MIB });
        }
        let reachable = 1u64 << self.model.phys_bits.clamp(32, 52);
        let high_end = size.saturating_sub(LOW_RAM_LIMIT).saturating_add(HIGH_RAM_START);
        if size > LOW_RAM_LIMIT && high_end > reachable {
            return Err(ConfigError::MemoryBeyondCpu {
                mib: size / MIB,
                bits: self.model.phys_bits,
            });
        }
        let (reserved, low) = (self.memory.reserved, size.min(LOW_RAM_LIMIT));
        if low.saturating_sub(reserved) < MIN_RAM {
            return Err(ConfigError::ReservedTooLarge { mib: reserved / MIB, low_mib: low / MIB });
        }
        Ok(())
    }

    fn check_irqchip(&self) -> Result<(), ConfigError> {
        let name = match self.kvm.irqchip {
            Irqchip::Off => return Ok(()),
            Irqchip::Split => "split",
            Irqchip::On => "on",
        };
        if self.accels() != [Accel::Kvm] || self.kvm.counted.is_some() {
            return Err(ConfigError::IrqchipIsKvms { name });
        }
        if self.board != Board::Pc && self.kvm.irqchip == Irqchip::On {
            return Err(ConfigError::IrqchipHasIoApic);
        }
        Ok(())
    }

    fn check_boot(&self) -> Result<(), ConfigError> {
        match (&self.firmware, &self.kernel) {
            (None, None) if !self.bare => Err(ConfigError::NothingToBoot),
            (Some(image), _) if image.is_empty() => Err(ConfigError::FirmwareEmpty),
            (Some(_), Some(kernel)) if !kernel.modules.is_empty() => {
                Err(ConfigError::FirmwareAndModules)
            }
            (Some(image), _) if image.len() > MAX_FIRMWARE => {
                Err(ConfigError::FirmwareTooLarge { mib: image.len() as u64 / MIB })
            }
            _ => Ok(()),
        }
    }
}

/// What is wrong with a [`MachineConfig`], in a line that says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Too little RAM to boot anything.
    #[error("{size} bytes of memory are too few for a PC; give it 2 MiB or more")]
    MemoryTooSmall {
        /// What was asked for, in bytes.
        size: u64,
    },
    /// More RAM than the host has.
    #[error(
        "{mib} MiB of memory are more than this host has ({host_mib} MiB); give the machine less"
    )]
    MemoryBeyondHost {
        /// What was asked for, in MiB.
        mib: u64,
        /// What the host has, in MiB.
        host_mib: u64,
    },
    /// More RAM than the processor can address.
    #[error(
        "{mib} MiB of memory are more than the CPU model's {bits} address bits reach; give the machine less"
    )]
    MemoryBeyondCpu {
        /// What was asked for, in MiB.
        mib: u64,
        /// The model's width of physical addresses.
        bits: u8,
    },
    /// More RAM is reserved than the guest can do without.
    #[error(
        "{mib} MiB of reserved memory leave too little of the {low_mib} MiB below 4 GiB; reserve at most all but 2 MiB"
    )]
    ReservedTooLarge {
        /// What is reserved, in MiB.
        mib: u64,
        /// The RAM below 4 GiB, in MiB.
        low_mib: u64,
    },
    /// No processor.
    #[error("A machine needs a processor; give it 1")]
    NoCpus,
    /// More processors than there can be.
    #[error("{asked} processors are more than this version can run; give the machine 1")]
    TooManyCpus {
        /// What was asked for.
        asked: u32,
    },
    /// Virtual time is to follow instructions, which KVM does not count.
    #[error(
        "KVM counts no instructions; use --clock real with it, or --accel jit for --clock icount"
    )]
    KvmCountsNot,
    /// Other CPUs do not reach the kernel's interrupt chips.
    #[error(
        "irqchip={name} has interrupt chips that no other CPU reaches; use --accel kvm alone with it, or irqchip=off"
    )]
    IrqchipIsKvms {
        /// What was asked for.
        name: &'static str,
    },
    /// The kernel's chips are those of the board `pc`.
    #[error(
        "irqchip=on has an I/O APIC, which --machine isapc is without; use --machine pc with it, or irqchip=off"
    )]
    IrqchipHasIoApic,
    /// CPUs are to take turns, and there are none.
    #[error("There are no CPUs to take turns; name some, such as interp and jit")]
    NoSwitchCpus,
    /// CPUs are to take turns without ever running.
    #[error("CPUs cannot take turns after nothing; let each run for a while, such as 100ms")]
    SwitchTooOften,
    /// Neither firmware nor kernel.
    #[error("There is nothing to boot; give a kernel or a firmware image")]
    NothingToBoot,
    /// Both firmware and modules.
    #[error("Firmware is given a kernel without modules; give either modules or a firmware image")]
    FirmwareAndModules,
    /// The firmware image has no bytes.
    #[error("The firmware image is empty; give a ROM image")]
    FirmwareEmpty,
    /// The firmware image is too large.
    #[error("The firmware image of {mib} MiB is larger than 16 MiB; give a ROM image")]
    FirmwareTooLarge {
        /// Its size in MiB.
        mib: u64,
    },
    /// An item of fw_cfg cannot be added.
    #[error("The fw_cfg item {name:?} {source}; give another, such as opt/org.example/name")]
    FwCfg {
        /// The item's name.
        name: String,
        /// What is wrong with it.
        source: ItemError,
    },
    /// The debug exit's ports leave the I/O space or are another device's.
    #[error(
        "Ports {port:#x} to {last:#x} cannot be the debug exit's: {owner} has them; choose others, such as 0x501"
    )]
    PortsTaken {
        /// The first port.
        port: u16,
        /// The last port.
        last: u32,
        /// Who has them.
        owner: &'static str,
    },
}

/// All memory of the host, in bytes, if it says so.
fn host_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(memory_size: u64) -> MachineConfig {
        let model = CpuModel::by_name("qemu64").unwrap();
        let mut config = MachineConfig::new(model, memory_size);
        config.kernel = Some(KernelConfig::default());
        config
    }

    #[test]
    fn memory_must_fit_the_host_and_the_processor() {
        assert_eq!(config(MIN_RAM).check_memory(Some(1 << 30)), Ok(()));
        assert_eq!(
            config(4096).check_memory(None),
            Err(ConfigError::MemoryTooSmall { size: 4096 })
        );
        assert_eq!(
            config(2 << 30).check_memory(Some(1 << 30)),
            Err(ConfigError::MemoryBeyondHost { mib: 2048, host_mib: 1024 })
        );
        assert!(matches!(
            config(1 << 52).check_memory(None),
            Err(ConfigError::MemoryBeyondCpu { .. })
        ));
        assert!(config(u64::MAX).check_memory(None).is_err());
        let mut config = config(8 << 20);
        config.memory.reserved = 6 << 20;
        assert_eq!(config.check_memory(None), Ok(()));
        config.memory.reserved = 7 << 20;
        assert_eq!(
            config.check_memory(None),
            Err(ConfigError::ReservedTooLarge { mib: 7, low_mib: 8 })
        );
    }

    #[test]
    fn one_processor_works_now() {
        let with = |cpus| MachineConfig { cpus, ..config(MIN_RAM) };
        assert_eq!(with(1).check(), Ok(()));
        assert_eq!(with(0).check(), Err(ConfigError::NoCpus));
        assert_eq!(with(2).check(), Err(ConfigError::TooManyCpus { asked: 2 }));
    }

    #[test]
    fn interrupt_chips_of_the_kernels_are_for_kvm_alone() {
        let with = |accel, irqchip| {
            let mut config = config(MIN_RAM);
            (config.accel, config.kvm.irqchip) = (accel, irqchip);
            config
        };
        for irqchip in [Irqchip::On, Irqchip::Split] {
            assert_eq!(with(Accel::Kvm, irqchip).check(), Ok(()));
            for accel in [Accel::Interp, Accel::Jit, Accel::KvmJit, Accel::KvmInterp] {
                let line = with(accel, irqchip).check().unwrap_err().to_string();
                assert!(line.starts_with("irqchip=") && line.contains("--accel kvm"), "{line}");
            }
            let mut config = with(Accel::Kvm, irqchip);
            config.switch = Some(SwitchConfig::on_request(Accel::Kvm));
            assert!(config.check().is_err(), "CPUs may take turns");
        }
        let mut config = with(Accel::Kvm, Irqchip::On);
        config.board = Board::IsaPc;
        assert_eq!(config.check(), Err(ConfigError::IrqchipHasIoApic));
        config.kvm.irqchip = Irqchip::Split;
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn something_is_booted() {
        let mut config = config(MIN_RAM);
        config.firmware = Some(vec![0; 16]);
        assert_eq!(config.check(), Ok(()), "the firmware finds the kernel in fw_cfg");
        config.kernel.as_mut().unwrap().modules.push(ModuleConfig::default());
        assert_eq!(config.check(), Err(ConfigError::FirmwareAndModules));
        config.kernel = None;
        assert_eq!(config.check(), Ok(()));
        config.firmware = Some(Vec::new());
        assert_eq!(config.check(), Err(ConfigError::FirmwareEmpty));
        config.firmware = None;
        assert_eq!(config.check(), Err(ConfigError::NothingToBoot));
    }
}
