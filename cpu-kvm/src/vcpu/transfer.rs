//! The whole state into the kernel and out of it.

use trivium_cpu::bits::rflags;
use trivium_cpu::model::{Feature, Vendor};
use trivium_cpu::msr::{MSRS, MsrKind};
use trivium_cpu::state::{Activity, CS, CpuState, Injected};
use trivium_cpu::{CpuBus, msr};
use trivium_memory::GuestPhysAddr;

use super::{KvmVcpu, Offered};
use crate::error::{KvmError, call};
use crate::host::KEPT_MSRS;
use crate::state::{
    EventRoom, from_debug, from_events, from_regs, from_sregs, from_xcrs, from_xsave, is_pae,
    is_v86, paging_mode, to_debug, to_events, to_regs, to_sregs, to_xcrs, to_xsave,
};

const MSR_TSC: u32 = 0x10;
/// IA32_SMBASE, which only the host may access.
const MSR_SMBASE: u32 = 0x9e;

/// What a processor does that the kernel calls halted or not: an event that it is given ends HLT,
/// though the kernel says so only when it next runs.
pub(super) fn activity(halted: bool, injected: Option<Injected>) -> Activity {
    if halted && injected.is_none() { Activity::Halted } else { Activity::Running }
}

impl KvmVcpu {
    /// Replaces the whole state. What the kernel takes without an error and does not keep is found:
    /// there are KVMs that drop CR0.PG and RFLAGS.VM in silence.
    pub(super) fn put_state(&mut self, state: &CpuState) -> Result<(), KvmError> {
        let events = to_events(state, self.event_room()).map_err(KvmError::State)?;
        // RSM takes the state from SMRAM, where KVM has put it in AMD64's layout, or the 32-bit one.
        let intel64 = self.model.vendor == Vendor::Intel && self.model.has(Feature::Lm);
        if state.events.smm && intel64 {
            return Err(KvmError::State("system-management mode with Intel 64's save area"));
        }
        self.incomplete = false;
        self.offered = None;
        self.fields_known = false;
        self.tsc_due = true;
        self.user_msrs = None;
        // The kernel's local APIC has its own, which go another way.
        let (apic_base, cr8) = match self.has_kernel_lapic() {
            true => {
                let sregs = self.io.sregs().map_err(call("KVM_GET_SREGS"))?;
                (sregs.apic_base, sregs.cr8 as u8)
            }
            false => (self.apic_base, 0),
        };
        let io = &mut *self.io;
        let sregs = to_sregs(state, apic_base, cr8);
        io.set_sregs(&sregs).map_err(call("KVM_SET_SREGS"))?;
        io.set_xcrs(&to_xcrs(state.control.xcr0)).map_err(call("KVM_SET_XCRS"))?;
        io.set_xsave(&to_xsave(state, self.layout)).map_err(call("KVM_SET_XSAVE"))?;
        io.set_regs(&to_regs(&state.general)).map_err(call("KVM_SET_REGS"))?;
        io.set_debug_regs(&to_debug(&state.debug)).map_err(call("KVM_SET_DEBUGREGS"))?;
        self.put_msrs(state)?;
        self.io.set_events(&events).map_err(call("KVM_SET_VCPU_EVENTS"))?;
        if self.has_kernel_lapic() {
            let halted = state.events.activity == Activity::Halted;
            self.io.set_halted(halted).map_err(call("KVM_SET_MP_STATE"))?;
        }
        self.state = *state;
        self.check_modes(state)
    }

    /// An interrupt that the kernel was given and has not begun to deliver: the guest is where it was,
    /// and could take an interrupt if none waited.
    fn still_offered(&mut self, state: &CpuState) -> Option<Injected> {
        let Offered { vector, place } = self.offered?;
        let fields = self.io.run_fields();
        let same = place == (state.general.rip, state.general.regs[4]);
        let waits = same && fields.interrupts_enabled && !fields.ready_for_interrupt;
        waits.then_some(Injected { vector, error_code: None, software_length: None })
    }

    fn event_room(&self) -> EventRoom {
        EventRoom { payload: self.caps.exception_payload, smm: self.caps.smm }
    }

    fn check_modes(&mut self, state: &CpuState) -> Result<(), KvmError> {
        if is_v86(state) {
            let flags = self.io.regs().map_err(call("KVM_GET_REGS"))?.rflags;
            if flags & rflags::VM == 0 {
                return Err(KvmError::State("this KVM has no virtual-8086 mode"));
            }
        }
        let mut kept = *state;
        let sregs = self.io.sregs().map_err(call("KVM_GET_SREGS"))?;
        from_sregs(&mut kept, &sregs);
        if paging_mode(&kept) != paging_mode(state) {
            return Err(KvmError::State("this KVM does not have this mode of paging"));
        }
        Ok(())
    }

    /// Each alone: a list ends in silence where the kernel refuses one.
    fn put_msrs(&mut self, state: &CpuState) -> Result<(), KvmError> {
        for (index, value) in kept_msrs(state, self.caps.msr_exits) {
            if msr::find(&self.model, index).is_err() {
                continue;
            }
            let taken = self.io.set_msr(index, value).map_err(call("KVM_SET_MSRS"))?;
            if !taken && self.refused.insert(index) {
                log::info!("KVM refuses MSR {index:#x} with {value:#x}: it stays ours");
            }
        }
        if self.caps.smm {
            let smbase = state.msrs.smbase;
            self.io.set_msr(MSR_SMBASE, smbase).map_err(call("KVM_SET_MSRS"))?;
        }
        Ok(())
    }

    /// The whole state. The kernel has completed all instructions.
    pub(super) fn take_state(&mut self) -> Result<CpuState, KvmError> {
        let mut state = self.state;
        let io = &mut *self.io;
        state.general = from_regs(&io.regs().map_err(call("KVM_GET_REGS"))?);
        from_sregs(&mut state, &io.sregs().map_err(call("KVM_GET_SREGS"))?);
        state.control.xcr0 = from_xcrs(&io.xcrs().map_err(call("KVM_GET_XCRS"))?);
        from_xsave(&mut state, &io.xsave().map_err(call("KVM_GET_XSAVE"))?, self.layout);
        state.debug = from_debug(&io.debug_regs().map_err(call("KVM_GET_DEBUGREGS"))?);
        let room = EventRoom { payload: self.caps.exception_payload, smm: self.caps.smm };
        from_events(&mut state, &io.events().map_err(call("KVM_GET_VCPU_EVENTS"))?, room);
        if state.events.injected.is_none() {
            state.events.injected = self.still_offered(&state);
        }
        self.take_msrs(&mut state)?;
        if self.has_kernel_lapic()
            && matches!(state.events.activity, Activity::Running | Activity::Halted)
        {
            let halted = self.io.is_halted().map_err(call("KVM_GET_MP_STATE"))?;
            state.events.activity = activity(halted, state.events.injected);
        }
        if is_pae(&state) {
            state.control.pdptr = self.pdptrs(state.control.cr3);
        }
        self.state = state;
        Ok(state)
    }

    fn take_msrs(&mut self, state: &mut CpuState) -> Result<(), KvmError> {
        for (index, _) in kept_msrs(state, self.caps.msr_exits) {
            if self.refused.contains(&index) || msr::find(&self.model, index).is_err() {
                continue;
            }
            let value = self.io.msr(index).map_err(call("KVM_GET_MSRS"))?;
            let place = storage(index).and_then(|(field, at)| field.get_mut(&mut state.msrs, at));
            if let (Some(place), Some(value)) = (place, value) {
                *place = value;
            }
        }
        if self.caps.smm
            && let Some(smbase) = self.io.msr(MSR_SMBASE).map_err(call("KVM_GET_MSRS"))?
        {
            state.msrs.smbase = smbase;
        }
        Ok(())
    }

    /// The page-directory pointers that PAE paging has loaded: the kernel does not tell of them, so
    /// as they are in memory.
    fn pdptrs(&self, cr3: u64) -> [u64; 4] {
        let mut bytes = [0; 32];
        let table = GuestPhysAddr(cr3 & 0xffff_ffe0);
        if self.slots.memory().read(table, &mut bytes).is_err() {
            return [0; 4];
        }
        std::array::from_fn(|i| {
            let at = 8 * i;
            bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
        })
    }

    /// Sets the kernel's time-stamp counter by virtual time.
    pub(super) fn set_tsc_if_due(&mut self, bus: &dyn CpuBus) -> Result<(), KvmError> {
        if std::mem::take(&mut self.tsc_due) {
            let now = msr::tsc(&self.state.msrs, bus.tsc());
            self.io.set_msr(MSR_TSC, now).map_err(call("KVM_SET_MSRS"))?;
        }
        Ok(())
    }

    /// CS:RIP for a message.
    pub(super) fn at(&mut self) -> String {
        match self.take_state() {
            Ok(state) => {
                let cs = state.segments.regs[CS].selector;
                format!("{cs:04x}:{:x}", state.general.rip)
            }
            Err(_) => "an unknown place".into(),
        }
    }
}

type Storage = (msr::Field, usize);

/// Where an MSR lives in [`trivium_cpu::state::Msrs`].
fn storage(index: u32) -> Option<Storage> {
    let info = MSRS.iter().find(|info| (info.first..info.first + info.count).contains(&index))?;
    match info.kind {
        MsrKind::Storage(field) => Some((field, info.index + (index - info.first) as usize)),
        _ => None,
    }
}

/// The MSRs that the kernel keeps, with their values: a few if all others come to us, else all.
fn kept_msrs(state: &CpuState, few: bool) -> Vec<(u32, u64)> {
    let all = MSRS.iter().flat_map(|info| info.first..info.first + info.count);
    let kept = |index: &u32| {
        !few || KEPT_MSRS.iter().any(|&(first, count)| (first..first + count).contains(index))
    };
    let value = |index| {
        let (field, at) = storage(index)?;
        Some((index, field.get(&state.msrs, at)?))
    };
    all.filter(kept).filter_map(value).collect()
}
