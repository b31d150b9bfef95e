//! The kernel's own interrupt chips, with or without the machine's beside them: what they are in goes
//! over from the machine's models and back, lines and messages reach them while the guest runs.

#![allow(unsafe_code)]

mod convert;
#[cfg(test)]
mod tests;

use std::ffi::c_ulong;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC,
    KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_FLAGS_HPET_LEGACY,
    KVM_PIT_SPEAKER_DUMMY, KvmIrqRouting, kvm_enable_cap, kvm_irq_routing_entry, kvm_irqchip,
    kvm_lapic_state, kvm_msi, kvm_msr_entry, kvm_pit_config,
};
use kvm_ioctls::VmFd;
use trivium_chipset::MsiMessage;
use trivium_devices::apic::{IOAPIC_PINS, IoApicRegisters, LapicRegisters};
use trivium_devices::pic::PicRegisters;
use trivium_devices::pit::PitCounter;

use crate::doorbell::EventFd;
use crate::error::{KvmError, call};

/// Which interrupt chips are the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Irqchip {
    /// None.
    #[default]
    Off,
    /// The local APICs.
    Split,
    /// The local APICs, the I/O APIC, the 8259As, and the 8254.
    On,
}

/// Where the machine's interrupt inputs are in the kernel's numbering: the timer's is 0, for the
/// 8259As and for pin 2 of the I/O APIC as the kernel's 8254 wants it, other pins of the I/O APIC are
/// themselves, and other inputs of the 8259As come here.
const PIC_GSI: u32 = 24;
/// Inputs of both for events, of which the kernel lets each have one number.
const BOTH_GSI: u32 = 40;
const TIMER_GSI: u32 = 0;
const TIMER_PIN: u8 = 2;
/// The cascade, which is no input.
const CASCADE: u8 = 2;

const MSR_APIC_BASE: u32 = 0x1b;
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// `_IOR(KVMIO, 0x8e, struct kvm_lapic_state)`.
const KVM_GET_LAPIC: c_ulong = 2 << 30 | 1024 << 16 | 0xae << 8 | 0x8e;
/// `_IOW(KVMIO, 0x8f, struct kvm_lapic_state)`.
const KVM_SET_LAPIC: c_ulong = 1 << 30 | 1024 << 16 | 0xae << 8 | 0x8f;
/// `_IOWR(KVMIO, 0x88, struct kvm_msrs)`.
const KVM_GET_MSRS: c_ulong = 3 << 30 | 8 << 16 | 0xae << 8 | 0x88;
/// `_IOW(KVMIO, 0x89, struct kvm_msrs)`.
const KVM_SET_MSRS: c_ulong = 1 << 30 | 8 << 16 | 0xae << 8 | 0x89;

/// What the chips are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChipState {
    /// The processor's local APIC.
    pub lapic: LapicRegisters,
    /// The others, if they are the kernel's.
    pub board: Option<BoardChips>,
}

/// The chips that all processors share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardChips {
    /// Master and slave.
    pub pic: [PicRegisters; 2],
    /// The I/O APIC.
    pub ioapic: IoApicRegisters,
    /// The timer's counters.
    pub pit: [PitCounter; 3],
    /// The HPET stands in the timer's place.
    pub hpet_legacy: bool,
}

/// The chips of one virtual machine of the kernel's, reached from any thread.
pub struct KernelChips {
    kind: Irqchip,
    vm: Arc<VmFd>,
    vcpu: File,
    /// Which calls fail.
    #[cfg(test)]
    pub(crate) plan: std::sync::OnceLock<Arc<crate::faulty::Plan>>,
}

/// One MSR as KVM_GET_MSRS and KVM_SET_MSRS have it.
#[repr(C)]
struct OneMsr {
    count: u32,
    padding: u32,
    entry: kvm_msr_entry,
}

/// Makes the kernel's chips of a machine that has no processor yet.
pub(crate) fn create(vm: &VmFd, kind: Irqchip) -> Result<(), KvmError> {
    match kind {
        Irqchip::Off => Ok(()),
        Irqchip::Split => {
            let args = [IOAPIC_PINS.into(), 0, 0, 0];
            let cap = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, args, ..Default::default() };
            vm.enable_cap(&cap).map_err(|_| KvmError::Irqchip("split"))
        }
        Irqchip::On => {
            vm.create_irq_chip().map_err(|_| KvmError::Irqchip("on"))?;
            let config = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
            vm.create_pit2(config).map_err(|_| KvmError::Irqchip("on"))?;
            set_routing(vm, &board_routes()).map_err(call("KVM_SET_GSI_ROUTING"))
        }
    }
}

/// From the machine's inputs to the chips' pins.
fn board_routes() -> Vec<kvm_irq_routing_entry> {
    let to_pic = |gsi, irq: u8| match irq {
        0..8 => to_chip(gsi, KVM_IRQCHIP_PIC_MASTER, irq),
        _ => to_chip(gsi, KVM_IRQCHIP_PIC_SLAVE, irq - 8),
    };
    let mut routes = vec![to_pic(TIMER_GSI, 0), to_chip(TIMER_GSI, KVM_IRQCHIP_IOAPIC, TIMER_PIN)];
    let pins = (1..IOAPIC_PINS).filter(|pin| *pin != TIMER_PIN);
    routes.extend(pins.map(|pin| to_chip(pin.into(), KVM_IRQCHIP_IOAPIC, pin)));
    let inputs = (1..16).filter(|irq| *irq != CASCADE);
    for irq in inputs {
        let both = BOTH_GSI + u32::from(irq);
        routes.push(to_pic(PIC_GSI + u32::from(irq), irq));
        routes.extend([to_pic(both, irq), to_chip(both, KVM_IRQCHIP_IOAPIC, irq)]);
    }
    routes
}

fn to_chip(gsi: u32, chip: u32, pin: u8) -> kvm_irq_routing_entry {
    let mut entry =
        kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip.irqchip = chip;
    entry.u.irqchip.pin = pin.into();
    entry
}

fn to_message(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = message.address as u32;
    entry.u.msi.address_hi = (message.address >> 32) as u32;
    entry.u.msi.data = message.data;
    entry
}

fn set_routing(vm: &VmFd, entries: &[kvm_irq_routing_entry]) -> io::Result<()> {
    let routing = KvmIrqRouting::from_entries(entries).map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(vm.set_gsi_routing(&routing)?)
}

impl KernelChips {
    pub(crate) fn new(kind: Irqchip, vm: Arc<VmFd>, vcpu: RawFd) -> io::Result<Self> {
        // SAFETY: the file is a processor's, which its owner keeps open during the call.
        let vcpu = unsafe { BorrowedFd::borrow_raw(vcpu) }.try_clone_to_owned()?;
        Ok(Self {
            kind,
            vm,
            vcpu: vcpu.into(),
            #[cfg(test)]
            plan: Default::default(),
        })
    }

    /// Makes a call of this name, or lets it fail if a test wants that.
    fn call<T, E: Into<io::Error>>(
        &self,
        name: &'static str,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, KvmError> {
        #[cfg(test)]
        if let Some(plan) = self.plan.get() {
            plan.check().map_err(call(name))?;
        }
        make().map_err(|error| call(name)(error.into()))
    }

    /// One on the processor's file that wants a structure.
    fn call_vcpu<T>(
        &self,
        name: &'static str,
        request: c_ulong,
        structure: *mut T,
    ) -> Result<libc::c_int, KvmError> {
        self.call(name, || {
            // SAFETY: the file is a processor's, and callers give the structure that the kernel reads
            // or fills for this request.
            let done = unsafe { libc::ioctl(self.vcpu.as_raw_fd(), request, structure) };
            if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
        })
    }

    /// Which chips are the kernel's.
    #[must_use]
    pub fn kind(&self) -> Irqchip {
        self.kind
    }

    /// Whether the kernel has all chips, not the local APICs alone.
    #[must_use]
    pub fn has_board_chips(&self) -> bool {
        self.kind == Irqchip::On
    }

    /// Input `irq` of the 8259As is at this level. The timer's goes to the I/O APIC too.
    ///
    /// # Errors
    /// The call fails.
    pub fn set_pic_line(&self, irq: u8, high: bool) -> Result<(), KvmError> {
        match irq {
            CASCADE => Ok(()),
            0 => self.set_line(TIMER_GSI, high),
            _ => self.set_line(PIC_GSI + u32::from(irq), high),
        }
    }

    /// Input `pin` of the I/O APIC is at this level. The timer's comes from the 8259As' input 0.
    ///
    /// # Errors
    /// The call fails.
    pub fn set_ioapic_line(&self, pin: u8, high: bool) -> Result<(), KvmError> {
        match pin {
            0 | TIMER_PIN => Ok(()),
            _ => self.set_line(pin.into(), high),
        }
    }

    /// From now on each rise of an event's counter raises input `irq`, as an edge (KVM_IRQFD).
    ///
    /// # Errors
    /// The call fails.
    pub fn raise_by(&self, event: &EventFd, irq: u8) -> Result<(), KvmError> {
        let gsi = if irq == 0 { TIMER_GSI } else { BOTH_GSI + u32::from(irq) };
        self.call("KVM_IRQFD", || self.vm.register_irqfd(event, gsi))
    }

    fn set_line(&self, gsi: u32, high: bool) -> Result<(), KvmError> {
        self.call("KVM_IRQ_LINE", || self.vm.set_irq_line(gsi, high))
    }

    /// Sends a message-signalled interrupt.
    ///
    /// # Errors
    /// The call fails.
    pub fn send(&self, message: MsiMessage) -> Result<(), KvmError> {
        let msi = kvm_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        };
        self.call("KVM_SIGNAL_MSI", || self.vm.signal_msi(msi)).map(drop)
    }

    /// Tells a kernel that has the local APICs alone what the I/O APIC's pins send, so that it tells of
    /// the ends of level-triggered interrupts.
    ///
    /// # Errors
    /// The call fails.
    pub fn set_routes(&self, pins: &[Option<MsiMessage>]) -> Result<(), KvmError> {
        let routes: Vec<_> =
            (0..).zip(pins).filter_map(|(pin, m)| Some(to_message(pin, (*m)?))).collect();
        self.call("KVM_SET_GSI_ROUTING", || set_routing(&self.vm, &routes))
    }

    /// The HPET stands in the timer's place, or no longer.
    ///
    /// # Errors
    /// A call fails.
    pub fn set_hpet_legacy(&self, legacy: bool) -> Result<(), KvmError> {
        let mut pit = self.call("KVM_GET_PIT2", || self.vm.get_pit2())?;
        pit.flags = pit.flags & !KVM_PIT_FLAGS_HPET_LEGACY
            | if legacy { KVM_PIT_FLAGS_HPET_LEGACY } else { 0 };
        self.call("KVM_SET_PIT2", || self.vm.set_pit2(&pit))
    }

    /// Makes the chips be in a state, with their inputs as it says. The processor does not run.
    ///
    /// # Errors
    /// A call fails.
    pub fn put(&self, state: &ChipState) -> Result<(), KvmError> {
        self.set_msr(MSR_APIC_BASE, state.lapic.base)?;
        if let Some(chips) = &state.board {
            self.put_lines(chips)?;
        }
        self.put_lapic(&state.lapic)?;
        if let Some(chips) = &state.board {
            self.put_board(chips)?;
        }
        Ok(())
    }

    /// The inputs' levels are not part of the chips' state, and to set one is to raise it: so while
    /// nothing can come of it.
    fn put_lines(&self, chips: &BoardChips) -> Result<(), KvmError> {
        let masked = IoApicRegisters { entries: [1 << 16; 24], ..Default::default() };
        self.set_chip(KVM_IRQCHIP_IOAPIC, &convert::to_ioapic(&masked))?;
        let lines = u16::from_le_bytes([chips.pic[0].lines, chips.pic[1].lines]);
        for irq in 0..16 {
            // The kernel's timer drives its line itself.
            let high = lines >> irq & 1 != 0 && (irq != 0 || chips.hpet_legacy);
            self.set_pic_line(irq, high)?;
        }
        for pin in 0..IOAPIC_PINS {
            self.set_ioapic_line(pin, chips.ioapic.asserted >> pin & 1 != 0)?;
        }
        Ok(())
    }

    fn put_board(&self, chips: &BoardChips) -> Result<(), KvmError> {
        let [master, slave] = convert::to_pics(&chips.pic, chips.hpet_legacy);
        // What the slave wants comes to the master at once.
        self.set_chip(KVM_IRQCHIP_PIC_SLAVE, &slave)?;
        self.set_chip(KVM_IRQCHIP_PIC_MASTER, &master)?;
        self.set_chip(KVM_IRQCHIP_IOAPIC, &convert::to_ioapic(&chips.ioapic))?;
        let mut pit = convert::to_pit(&chips.pit, monotonic_ns());
        if chips.hpet_legacy {
            pit.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
        }
        self.call("KVM_SET_PIT2", || self.vm.set_pit2(&pit))
    }

    /// The state of the chips, whose inputs have these levels. The processor does not run.
    ///
    /// # Errors
    /// A call fails.
    pub fn take(&self, pic_lines: u16, ioapic_lines: u32) -> Result<ChipState, KvmError> {
        let board = match self.has_board_chips() {
            true => Some(self.take_board(pic_lines, ioapic_lines)?),
            false => None,
        };
        Ok(ChipState { lapic: self.take_lapic()?, board })
    }

    fn take_board(&self, pic_lines: u16, ioapic_lines: u32) -> Result<BoardChips, KvmError> {
        let chips = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE].map(|id| self.chip(id));
        let [master, slave] = chips;
        let pit = self.call("KVM_GET_PIT2", || self.vm.get_pit2())?;
        let ioapic = self.chip(KVM_IRQCHIP_IOAPIC)?;
        Ok(BoardChips {
            pic: convert::from_pics([&master?, &slave?], pic_lines),
            ioapic: convert::from_ioapic(&ioapic, ioapic_lines),
            pit: convert::from_pit(&pit, monotonic_ns()),
            hpet_legacy: pit.flags & KVM_PIT_FLAGS_HPET_LEGACY != 0,
        })
    }

    fn chip(&self, chip_id: u32) -> Result<kvm_irqchip, KvmError> {
        let mut chip = kvm_irqchip { chip_id, ..Default::default() };
        self.call("KVM_GET_IRQCHIP", || self.vm.get_irqchip(&mut chip))?;
        Ok(chip)
    }

    fn set_chip(&self, chip_id: u32, chip: &kvm_irqchip) -> Result<(), KvmError> {
        let chip = kvm_irqchip { chip_id, ..*chip };
        self.call("KVM_SET_IRQCHIP", || self.vm.set_irqchip(&chip))
    }

    fn put_lapic(&self, registers: &LapicRegisters) -> Result<(), KvmError> {
        let mut lapic = convert::to_lapic(registers);
        self.call_vcpu("KVM_SET_LAPIC", KVM_SET_LAPIC, &raw mut lapic)?;
        match registers.tsc_deadline {
            0 => Ok(()),
            deadline => self.set_msr(MSR_TSC_DEADLINE, deadline),
        }
    }

    fn take_lapic(&self) -> Result<LapicRegisters, KvmError> {
        let mut lapic = kvm_lapic_state::default();
        self.call_vcpu("KVM_GET_LAPIC", KVM_GET_LAPIC, &raw mut lapic)?;
        let base = self.msr(MSR_APIC_BASE)?.unwrap_or(0);
        let deadline = self.msr(MSR_TSC_DEADLINE)?.unwrap_or(0);
        Ok(convert::from_lapic(&lapic, base, deadline))
    }

    fn msr(&self, index: u32) -> Result<Option<u64>, KvmError> {
        let mut one = one_msr(index, 0);
        let read = self.call_vcpu("KVM_GET_MSRS", KVM_GET_MSRS, &raw mut one)?;
        Ok((read == 1).then_some(one.entry.data))
    }

    fn set_msr(&self, index: u32, value: u64) -> Result<(), KvmError> {
        let mut one = one_msr(index, value);
        let done = self.call_vcpu("KVM_SET_MSRS", KVM_SET_MSRS, &raw mut one)?;
        if done != 1 {
            log::info!("KVM refuses MSR {index:#x} with {value:#x} for its local APIC");
        }
        Ok(())
    }
}

fn one_msr(index: u32, data: u64) -> OneMsr {
    OneMsr { count: 1, padding: 0, entry: kvm_msr_entry { index, data, ..Default::default() } }
}

/// The clock that the kernel's timer counts by, in nanoseconds.
fn monotonic_ns() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock is there on every Linux, and the kernel fills the structure.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}
