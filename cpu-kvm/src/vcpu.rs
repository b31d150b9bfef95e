//! A virtual processor that the kernel runs.

mod exits;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod native_tests;
mod steps;
#[cfg(test)]
mod tests;
mod traced;
mod transfer;
mod user;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use trivium_cpu::bits::rflags;
use trivium_cpu::model::{CpuModel, Feature};
use trivium_cpu::state::{Activity, CpuState, Msrs};
use trivium_cpu::{Budget, Capabilities, CpuBus, CpuError, Exit, Kick, ResetKind, Vcpu};
use trivium_memory::GuestMemory;

use crate::chips::{Irqchip, KernelChips};
use crate::cpuid::{self, Place};
use crate::doorbell::Watcher;
use crate::error::{Cannot, KvmError, call};
use crate::host::{Host, HostCaps};
use crate::ioctls::{HostExit, Ioctls};
use crate::island::Island;
use crate::kick::Kicker;
use crate::slots::Slots;
use crate::state::XsaveLayout;

/// IA32_APIC_BASE of the bootstrap processor after RESET#, as the kernel wants it for CPUID.
const APIC_BASE: u64 = 0xfee0_0900;
/// How often KVM_RUN may ask to be called again before that counts as a failure.
const AGAIN_LIMIT: u32 = 10_000;

pub use user::{UserEnd, UserExit};

/// Why [`KvmVcpu::enter`] has come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmExit {
    /// As any CPU.
    Exit(Exit),
    /// KVM cannot go on; the state is as before what it cannot do.
    Cannot(Cannot),
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls of KVM_RUN.
    pub runs: u64,
    /// Exits for ports.
    pub io: u64,
    /// Exits for device registers in memory.
    pub mmio: u64,
    /// Exits for MSRs.
    pub msr: u64,
    /// HLT.
    pub halts: u64,
    /// Windows for interrupts.
    pub windows: u64,
    /// Interrupts injected.
    pub interrupts: u64,
}

/// A virtual CPU of the kernel's.
pub struct KvmVcpu {
    io: Box<dyn Ioctls>,
    caps: HostCaps,
    slots: Slots,
    kicker: Arc<Kicker>,
    model: Arc<CpuModel>,
    place: Place,
    layout: XsaveLayout,
    /// The state as it was loaded, with what the kernel does not keep as it is now: MSRs that are
    /// ours, what the CPU is doing, what no program can read.
    state: CpuState,
    apic_base: u64,
    /// An access of the guest's was served whose instruction the kernel has still to complete.
    incomplete: bool,
    /// `kvm_run` tells of the present state.
    fields_known: bool,
    /// The kernel's time-stamp counter is to be set.
    tsc_due: bool,
    /// MSRs that the kernel has refused, each named once.
    refused: BTreeSet<u32>,
    counts: Counts,
    /// For user-level code alone, once it was wanted.
    island: Option<Island>,
    /// MSRs and XCR0 of the last island, if KVM has them still.
    user_msrs: Option<(Msrs, u64)>,
    /// The guest's TSC runs at the machine's frequency.
    machine_tsc: bool,
    /// It was said that a program uses AVX-512.
    avx512_told: bool,
    /// A program has run here whose state nobody has taken.
    user_state: bool,
    /// The interrupt chips, where they are the kernel's.
    chips: Option<Arc<KernelChips>>,
    /// With the kernel's local APIC and an 8259A of ours: what was given to the kernel.
    offered: Option<Offered>,
    /// What watches writes of the guest's.
    watcher: Option<Watcher>,
    /// Is told of interrupts that have ended at the kernel's local APIC.
    ends: Option<Box<EndOfInterrupt>>,
}

/// An interrupt that the kernel may not have begun to deliver, of which it does not tell.
#[derive(Debug, Clone, Copy)]
struct Offered {
    vector: u8,
    /// RIP and RSP then.
    place: (u64, u64),
}

/// Is told of the vector of an interrupt that has ended.
pub type EndOfInterrupt = dyn Fn(u8) + Send;

impl KvmVcpu {
    /// A processor of this host's KVM after RESET#.
    ///
    /// # Errors
    /// See [`KvmError`].
    pub fn new(
        memory: Arc<GuestMemory>,
        model: Arc<CpuModel>,
        place: Place,
    ) -> Result<Self, KvmError> {
        Self::with_irqchip(memory, model, place, Irqchip::Off)
    }

    /// The same with interrupt chips of the kernel's.
    ///
    /// # Errors
    /// See [`KvmError`].
    pub fn with_irqchip(
        memory: Arc<GuestMemory>,
        model: Arc<CpuModel>,
        place: Place,
        irqchip: Irqchip,
    ) -> Result<Self, KvmError> {
        let host = Host::with_irqchip(place.apic_id, irqchip)?;
        let caps = host.caps();
        let chips = host.chips()?.map(Arc::new);
        let watcher = host.watcher();
        let (file, size) = host.file();
        let kicker = Kicker::new(file, size).map_err(call("Mapping a processor of KVM"))?;
        let mut vcpu = Self::with_ioctls(Box::new(host), caps, memory, model, place)?;
        vcpu.kicker = Arc::new(kicker);
        vcpu.chips = chips;
        vcpu.watcher = Some(watcher);
        Ok(vcpu)
    }

    /// The same over other calls.
    ///
    /// # Errors
    /// See [`KvmError`].
    pub fn with_ioctls(
        io: Box<dyn Ioctls>,
        caps: HostCaps,
        memory: Arc<GuestMemory>,
        model: Arc<CpuModel>,
        place: Place,
    ) -> Result<Self, KvmError> {
        let layout = XsaveLayout::of_host(model.has(Feature::Avx), model.has(Feature::Pku));
        let mut vcpu = Self {
            io,
            caps,
            slots: Slots::new(memory, caps.slots, caps.smm),
            kicker: Arc::new(Kicker::detached()),
            layout,
            state: CpuState::reset(&model),
            model,
            place,
            apic_base: APIC_BASE,
            incomplete: false,
            fields_known: false,
            tsc_due: true,
            refused: BTreeSet::new(),
            counts: Counts::default(),
            island: None,
            user_msrs: None,
            machine_tsc: false,
            avx512_told: false,
            user_state: false,
            chips: None,
            offered: None,
            watcher: None,
            ends: None,
        };
        let table = cpuid::table(&vcpu.model, &place)?;
        vcpu.io.set_cpuid(&table).map_err(call("KVM_SET_CPUID2"))?;
        vcpu.set_tsc_frequency();
        let state = vcpu.state;
        vcpu.put_state(&state)?;
        Ok(vcpu)
    }

    fn set_tsc_frequency(&mut self) {
        let khz = (self.place.tsc_hz / 1000) as u32;
        self.machine_tsc = true;
        let Err(error) = self.io.set_tsc_khz(khz) else { return };
        let host = self.io.tsc_khz().unwrap_or(0);
        self.machine_tsc = host == khz;
        if !self.machine_tsc {
            log::info!(
                "KVM keeps the host's time-stamp counter of {host} kHz instead of {khz} kHz ({error}): the guest's clock must not rely on it"
            );
        }
    }

    /// What CPUID was told to answer to a leaf.
    pub(crate) fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        cpuid::answer(&self.model, &self.place, leaf, subleaf)
    }

    /// Whether the guest's TSC runs at the machine's frequency.
    #[must_use]
    pub fn has_machine_tsc(&self) -> bool {
        self.machine_tsc
    }

    /// The interrupt chips, where they are the kernel's.
    #[must_use]
    pub fn chips(&self) -> Option<Arc<KernelChips>> {
        self.chips.clone()
    }

    /// What watches writes of the guest's; there is one.
    pub fn take_watcher(&mut self) -> Option<Watcher> {
        self.watcher.take()
    }

    /// Whoever has the I/O APIC wants to know of interrupts that end at the kernel's local APIC.
    pub fn on_end_of_interrupt(&mut self, ends: Box<EndOfInterrupt>) {
        self.ends = Some(ends);
    }

    /// The kernel has the local APIC: it delivers interrupts, knows the task priority and waits in
    /// HLT.
    fn has_kernel_lapic(&self) -> bool {
        self.caps.irqchip != Irqchip::Off
    }

    /// What is counted since the processor was made.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Others have written memory, page tables perhaps among it: KVM forgets what it knows of them.
    ///
    /// # Errors
    /// A call failed.
    pub fn memory_changed(&mut self) -> Result<(), KvmError> {
        self.slots.recreate(&mut *self.io)
    }

    /// Forgets that others have wanted something of this CPU: another one sees to it.
    pub fn forget_attention(&mut self) {
        self.kicker.take_kick();
        self.kicker.take_attention();
    }

    /// Whether others want something of this CPU.
    #[must_use]
    pub fn has_attention(&self) -> bool {
        self.kicker.has_attention()
    }

    /// Takes the guest over from another CPU.
    ///
    /// # Errors
    /// A call failed, or KVM cannot be in this state.
    pub fn take_over(&mut self, state: &CpuState) -> Result<(), KvmError> {
        self.memory_changed()?;
        self.put_state(state)
    }

    /// Tells the machine's memory of pages that the guest has written.
    ///
    /// # Errors
    /// A call failed.
    pub fn collect_dirty(&mut self) -> Result<(), KvmError> {
        self.slots.collect_dirty(&mut *self.io)
    }

    /// Runs the guest until something ends it.
    ///
    /// # Errors
    /// A call failed, other than KVM_RUN.
    pub fn enter(&mut self, bus: &dyn CpuBus) -> Result<KvmExit, KvmError> {
        let exit = self.run_loop(bus);
        // The state is only whole when the kernel has completed what was served.
        match (exit, self.complete(bus)) {
            (Ok(exit), Ok(None)) => Ok(exit),
            (Ok(_), Ok(Some(exit))) => Ok(exit),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn run_loop(&mut self, bus: &dyn CpuBus) -> Result<KvmExit, KvmError> {
        let mut again = 0;
        self.set_tsc_if_due(bus)?;
        loop {
            if let Some(exit) = self.look(bus)? {
                return Ok(exit);
            }
            self.slots.refresh(&mut *self.io)?;
            if !self.has_kernel_lapic() {
                self.io.set_cr8(bus.cr8());
            }
            if !self.kicker.enter() {
                continue;
            }
            self.incomplete = false;
            self.counts.runs += 1;
            let exit = self.io.run();
            self.kicker.leave();
            self.fields_known = true;
            match exit {
                Ok(HostExit::Again) => {
                    again += 1;
                    if again > AGAIN_LIMIT {
                        return Ok(KvmExit::Cannot(Cannot::Run("EAGAIN, again and again".into())));
                    }
                    std::thread::sleep(Duration::from_micros(1));
                }
                Ok(exit) => {
                    again = 0;
                    if exit != HostExit::Interrupted {
                        self.offered = None;
                    }
                    self.take_task_priority(bus);
                    if let Some(exit) = self.serve_traced(exit, bus)? {
                        return Ok(exit);
                    }
                }
                Err(error) => return Ok(KvmExit::Cannot(Cannot::Run(error.to_string()))),
            }
        }
    }

    fn take_task_priority(&mut self, bus: &dyn CpuBus) {
        let cr8 = self.io.run_fields().cr8;
        if !self.has_kernel_lapic() && cr8 != bus.cr8() {
            bus.set_cr8(cr8);
        }
    }

    /// Looks at what others want of the CPU.
    fn look(&mut self, bus: &dyn CpuBus) -> Result<Option<KvmExit>, KvmError> {
        self.kicker.take_attention();
        if self.kicker.take_kick() {
            return Ok(Some(KvmExit::Exit(Exit::Kicked)));
        }
        if self.caps.smm {
            if bus.take_smi() {
                self.io.smi().map_err(call("KVM_SMI"))?;
                if self.state.events.activity == Activity::Halted {
                    self.state.events.activity = Activity::Running;
                }
            }
        } else if bus.take_smi() {
            self.state.events.smi_pending = true;
            return Ok(Some(KvmExit::Cannot(Cannot::Smm)));
        }
        if let Some(kind) = bus.take_reset() {
            self.reset(kind, bus)?;
        }
        if matches!(self.state.events.activity, Activity::Running | Activity::Halted) {
            if bus.take_nmi() {
                self.io.nmi().map_err(call("KVM_NMI"))?;
                self.state.events.activity = Activity::Running;
            }
            if self.caps.irqchip != Irqchip::On {
                self.inject(bus)?;
            }
        }
        Ok(match self.state.events.activity {
            // The kernel waits.
            Activity::Halted if self.has_kernel_lapic() => None,
            Activity::Running => None,
            Activity::Halted => Some(KvmExit::Exit(Exit::Halted)),
            Activity::WaitForSipi => Some(KvmExit::Exit(Exit::WaitForSipi)),
            Activity::Shutdown => Some(KvmExit::Exit(Exit::Shutdown)),
        })
    }

    /// Injects an interrupt if one waits and may come, or asks to be told when it may.
    fn inject(&mut self, bus: &dyn CpuBus) -> Result<(), KvmError> {
        let waits = bus.interrupt_pending();
        let fields = self.io.run_fields();
        let halted = self.state.events.activity == Activity::Halted;
        // A halted processor has no shadow and no other event to deliver.
        let open = if halted && !self.has_kernel_lapic() {
            // Before it has run, the kernel tells nothing of the state that was put in.
            match self.fields_known {
                true => fields.interrupts_enabled,
                false => self.state.general.rflags & rflags::IF != 0,
            }
        } else {
            self.fields_known && !self.incomplete && fields.ready_for_interrupt
        };
        if waits
            && open
            && let Some(vector) = bus.acknowledge_interrupt()
        {
            self.counts.interrupts += 1;
            bus.delivering(vector, None, 0);
            if self.has_kernel_lapic() {
                let regs = self.io.regs().map_err(call("KVM_GET_REGS"))?;
                self.offered = Some(Offered { vector, place: (regs.rip, regs.rsp) });
            }
            self.io.interrupt(vector).map_err(call("KVM_INTERRUPT"))?;
            self.state.events.activity = Activity::Running;
            self.fields_known = false;
        }
        self.io.set_request_window(bus.interrupt_pending());
        Ok(())
    }

    /// INIT or a start-up IPI.
    fn reset(&mut self, kind: ResetKind, bus: &dyn CpuBus) -> Result<(), KvmError> {
        self.complete(bus)?;
        let mut state = self.take_state()?;
        match kind {
            ResetKind::Init => state = state.after_init(&self.model, self.place.apic_id == 0),
            ResetKind::Sipi(vector) if state.events.activity == Activity::WaitForSipi => {
                state.start_up(vector);
            }
            ResetKind::Sipi(_) => return Ok(()),
        }
        self.put_state(&state)?;
        self.set_tsc_if_due(bus)
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self, bus: &dyn CpuBus, budget: Budget) -> Result<Exit, CpuError> {
        if budget != Budget::UNLIMITED {
            return Err(KvmError::Budget.into());
        }
        let exit = self.enter(bus)?;
        self.collect_dirty()?;
        match exit {
            KvmExit::Exit(exit) => Ok(exit),
            KvmExit::Cannot(reason) => Err(KvmError::Cannot { place: self.at(), reason }.into()),
        }
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.kicker.clone()
    }

    fn save(&mut self) -> Result<CpuState, CpuError> {
        Ok(self.take_state()?)
    }

    fn load(&mut self, state: &CpuState) -> Result<(), CpuError> {
        Ok(self.take_over(state)?)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { exact_budget: false }
    }
}
