//! The machine as a whole: how it is put together and started.

use std::cell::RefCell;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use trivium_chipset::{Clock, VmTime};
use trivium_cpu::{CpuModel, Feature, Vcpu};
use trivium_devices::apic::{ApicGeneration, LapicConfig};
use trivium_interp::Topology;
use trivium_kvm::doorbell::{Doorbell, EventFd};
use trivium_kvm::{Irqchip, KvmError};
use trivium_memory::GuestMemory;

use crate::board::{BoardParts, IsaParts, PcBoard, SharedConsole};
use crate::boot::BootSource;
use crate::config::{ClockMode, MachineConfig, MemoryConfig};
use crate::control::{Control, Processor};
use crate::cpus::{self, VcpuParts};
use crate::doorbells::{Doorbells, InterruptEvent};
use crate::error::MachineError;
use crate::exits::ExitTrace;
use crate::handle::{MachineHandle, Message};
use crate::kernel_chips::ChipSeat;
use crate::layout::ArenaLayout;
use crate::router::source;
use crate::rtc::RtcParts;
use crate::serial::SharedBackend;
use crate::switch::{SwitchConfig, SwitchEvery, Turns};
use crate::time::{APIC_HZ, MachineClock, TSC_HZ};
use crate::trace::Trace;

/// A machine. It stands until [`Machine::run`].
pub struct Machine {
    pub(crate) parts: BoardParts,
    pub(crate) board: PcBoard,
    pub(crate) vcpus: Vec<Box<dyn Vcpu>>,
    pub(crate) boot: BootSource,
    pub(crate) clock_mode: ClockMode,
    pub(crate) no_reboot: bool,
    pub(crate) handle: MachineHandle,
    pub(crate) messages: Receiver<Message>,
    pub(crate) exit_trace: Option<ExitTrace>,
    /// When processors change their CPUs, if that follows virtual time.
    pub(crate) turns: Option<Turns>,
}

fn lapic_config(id: u32, model: &CpuModel) -> LapicConfig {
    LapicConfig {
        present: model.has(Feature::Apic),
        id,
        bootstrap: id == 0,
        timer_hz: APIC_HZ,
        tsc_hz: TSC_HZ,
        physical_bits: model.phys_bits,
        x2apic: model.has(Feature::X2apic),
        tsc_deadline: model.has(Feature::TscDeadline),
        generation: ApicGeneration::of(model.family, model.model),
    }
}

impl Machine {
    /// Puts a machine together and loads what it is to boot.
    ///
    /// # Errors
    /// The configuration is not one of a machine, its kernel cannot be loaded, or the host refuses
    /// the memory.
    pub fn new(config: MachineConfig) -> Result<Self, MachineError> {
        let on_request = match config.kvm.irqchip {
            Irqchip::Off => SwitchConfig::on_request(config.accel),
            // No other CPU reaches the kernel's interrupt chips.
            _ => SwitchConfig { cpus: vec![config.accel], every: SwitchEvery::Request },
        };
        let switch = config.switch.clone().unwrap_or(on_request);
        let kicks = RefCell::<Vec<_>>::default();
        let mut machine = Self::with_vcpus(config, |parts| {
            let switcher = cpus::new_switcher(&switch, parts)?;
            kicks.borrow_mut().push(switcher.kicks());
            Ok(Box::new(switcher))
        })?;
        machine.handle.set_switches(kicks.into_inner());
        machine.turns = switch.nanos().map(Turns::new);
        Ok(machine)
    }

    /// [`Self::new`] with processors from elsewhere.
    pub(crate) fn with_vcpus(
        config: MachineConfig,
        new_vcpu: impl Fn(&VcpuParts<'_>) -> Result<Box<dyn Vcpu>, MachineError>,
    ) -> Result<Self, MachineError> {
        config.check()?;
        let rtc = RtcParts::of(&config);
        let firmware = config.firmware.as_deref();
        let layout = ArenaLayout::new(config.memory_size, firmware.map_or(0, <[u8]>::len));
        let accels = config.accels();
        let MemoryConfig { reserved, prealloc, host, progress } = config.memory;
        let layout = layout.with_reserved(reserved);
        let memory = Arc::new(layout.allocate(firmware, config.cpus, host)?);
        if prealloc {
            memory.preallocate(progress.unwrap_or_else(|| Box::new(|_| ())))?;
        }
        let model = Arc::new(cpus::model_for(&accels, config.kvm, config.model)?);
        let seat = Arc::<ChipSeat>::default();
        let bells = Arc::<Doorbells>::default();
        let mut vcpus = Vec::new();
        for cpu in 0..config.cpus {
            let topology =
                Topology { apic_id: cpu, cpus: config.cpus, tsc_hz: TSC_HZ, apic_hz: APIC_HZ };
            // The arena was made with a page for each.
            let scratch = memory.scratch(cpu, config.cpus).unwrap_or(0);
            let (memory, model, jit, blocks) = (&memory, &model, &config.jit, &config.blocks);
            let (kvm, seat, bells) = (config.kvm, &seat, &bells);
            let parts =
                VcpuParts { memory, model, topology, scratch, jit, kvm, blocks, seat, bells };
            vcpus.push(new_vcpu(&parts)?);
        }

        let processors = vcpus.iter().map(|vcpu| Processor::new(vcpu.kicker())).collect();
        let icount = config.clock != ClockMode::Real;
        let control = Arc::new(Control::new(processors, icount, firmware.is_none()));
        let serial_input = Arc::default();
        let (handle, messages) = MachineHandle::new(control.clone(), Arc::clone(&serial_input));
        let kernel = config.kernel.map(Arc::new);
        let isa = IsaParts::new(config.parallel, config.fw_cfg, kernel.as_ref())?;
        let boot = BootSource {
            parallel: isa.has_printer(),
            // Firmware finds it in fw_cfg.
            kernel: kernel.filter(|_| firmware.is_none()),
            reserved,
            smbios: config.smbios,
            acpi_tables: config.acpi_tables,
            board: config.board,
            com_ports: config.serial.each_ref().map(Option::is_some),
            apic_ids: (0..config.cpus).collect(),
            model: model.clone(),
        };
        let parts = BoardParts {
            board: config.board,
            memory,
            layout,
            clock: Arc::new(MachineClock::with_absence(config.clock, config.lost_ticks.into())),
            control,
            trace: Arc::new(Trace::new(config.trace)),
            rtc,
            apics: (0..config.cpus).map(|cpu| lapic_config(cpu, &model)).collect(),
            serial: config.serial.map(|backend| backend.map(SharedBackend::new)),
            serial_baud: config.serial_baud,
            serial_input,
            debug_console: config.debug_console.map(SharedConsole::new),
            debug_exit_port: config.debug_exit_port,
            isa,
            seat,
            bells,
        };
        let board = PcBoard::new(&parts)?;
        let no_reboot = config.no_reboot;
        let clock_mode = config.clock;
        let exit_trace = config.exit_trace.map(ExitTrace::new);
        let mut machine = Self {
            parts,
            board,
            vcpus,
            boot,
            clock_mode,
            no_reboot,
            handle,
            messages,
            exit_trace,
            turns: None,
        };
        machine.start()?;
        Ok(machine)
    }

    /// The handle by which other threads reach the machine.
    #[must_use]
    pub fn handle(&self) -> MachineHandle {
        self.handle.clone()
    }

    /// From now on a write of the guest's to the doorbell's place tells whoever waits for its event,
    /// and does nothing else. On KVM the guest does not stop for it.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn add_doorbell(&self, bell: Doorbell) -> Result<(), MachineError> {
        Ok(self.parts.bells.add(bell)?)
    }

    /// An edge-triggered interrupt at ISA input `irq` that any thread may raise; with the kernel's own
    /// interrupt chips without the guest stopping for it.
    ///
    /// # Errors
    /// The host has no event, or the kernel refuses it.
    pub fn interrupt_event(&self, irq: u8) -> Result<InterruptEvent, MachineError> {
        let event = EventFd::new(0).map_err(|source| KvmError::Call { call: "eventfd", source })?;
        let seat = self.parts.seat.clone();
        seat.raise_by(&event, irq)?;
        let line = self.board.router.line(irq.into(), source::EVENT);
        Ok(InterruptEvent { event, line, seat })
    }

    /// The present moment of virtual time.
    #[must_use]
    pub fn now(&self) -> VmTime {
        self.parts.clock.now()
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.parts.memory
    }

    /// Resets the machine: all chips and processors; memory keeps what the boot does not overwrite.
    ///
    /// # Errors
    /// What is booted cannot be loaded any more, or a processor fails.
    pub fn reset(&mut self) -> Result<(), MachineError> {
        self.board.reset();
        self.start()
    }

    /// Boots chips that have just been reset.
    fn start(&mut self) -> Result<(), MachineError> {
        if self.boot.kernel.is_some() {
            self.board.set_up();
        }
        let states = self.boot.load(&self.parts.memory, self.parts.layout.ram_size())?;
        for (vcpu, state) in self.vcpus.iter_mut().zip(&states) {
            vcpu.load(state)?;
        }
        self.board.refresh_timers();
        Ok(())
    }
}
