//! What the processor is about to do: `kvm_vcpu_events`.

use kvm_bindings::{
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_PAYLOAD, KVM_VCPUEVENT_VALID_SHADOW,
    KVM_VCPUEVENT_VALID_SMM, KVM_X86_SHADOW_INT_MOV_SS, KVM_X86_SHADOW_INT_STI, kvm_vcpu_events,
};
use trivium_cpu::Vector;
use trivium_cpu::bits::debug;
use trivium_cpu::state::{CpuState, Events, Injected};

/// The lowest vector that is no exception's.
const FIRST_INTERRUPT: u8 = 32;

/// What a kernel's `kvm_vcpu_events` has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventRoom {
    /// Bits of DR6 for a #DB that waits.
    pub(crate) payload: bool,
    /// System-management mode.
    pub(crate) smm: bool,
}

/// # Errors
/// KVM has no place for an event.
pub(crate) fn to_events(
    state: &CpuState,
    room: EventRoom,
) -> Result<kvm_vcpu_events, &'static str> {
    let payload = room.payload;
    let Events {
        activity: _,
        interrupt_shadow,
        debug_shadow,
        pending_debug,
        smi_pending,
        nmi_masked,
        nmi_pending,
        smm,
        injected,
    } = state.events;
    if (smm || smi_pending) && !room.smm {
        return Err("system-management mode");
    }
    let mut events = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        ..Default::default()
    };
    if payload {
        events.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
    }
    if room.smm {
        events.flags |= KVM_VCPUEVENT_VALID_SMM;
        (events.smi.smm, events.smi.pending) = (smm.into(), smi_pending.into());
    }
    if interrupt_shadow {
        let kind = if debug_shadow { KVM_X86_SHADOW_INT_MOV_SS } else { KVM_X86_SHADOW_INT_STI };
        events.interrupt.shadow = kind as u8;
    }
    events.nmi.masked = nmi_masked.into();
    events.nmi.pending = nmi_pending.into();
    if let Some(injected) = injected {
        put_injected(&mut events, &injected)?;
    }
    if pending_debug != 0 {
        if injected.is_some() || debug_shadow || !payload {
            return Err("a debug exception that waits");
        }
        events.exception.nr = Vector::DB as u8;
        events.exception.pending = 1;
        events.exception_has_payload = 1;
        events.exception_payload = pending_debug;
    }
    Ok(events)
}

fn put_injected(events: &mut kvm_vcpu_events, injected: &Injected) -> Result<(), &'static str> {
    let Injected { vector, error_code, software_length } = *injected;
    if software_length.is_some() {
        return Err("a software interrupt in the middle of its delivery");
    }
    if vector == Vector::NMI as u8 {
        events.nmi.injected = 1;
    } else if vector >= FIRST_INTERRUPT {
        events.interrupt.injected = 1;
        events.interrupt.nr = vector;
    } else {
        events.exception.injected = 1;
        events.exception.nr = vector;
        events.exception.has_error_code = error_code.is_some().into();
        events.exception.error_code = error_code.unwrap_or(0);
    }
    Ok(())
}

/// The activity is not the kernel's to say, and stays.
pub(crate) fn from_events(state: &mut CpuState, events: &kvm_vcpu_events, room: EventRoom) {
    let shadow = u32::from(events.interrupt.shadow);
    let exception = &events.exception;
    let is_debug = exception.pending != 0 && exception.nr == Vector::DB as u8;
    if exception.pending != 0
        && exception.nr == Vector::PF as u8
        && events.exception_has_payload != 0
    {
        state.control.cr2 = events.exception_payload;
    }
    let injected = if is_debug && events.exception_has_payload != 0 {
        None
    } else if exception.injected != 0 || exception.pending != 0 {
        let code = (exception.has_error_code != 0).then_some(exception.error_code);
        Some(Injected { vector: exception.nr, error_code: code, software_length: None })
    } else if events.nmi.injected != 0 {
        Some(Injected { vector: Vector::NMI as u8, error_code: None, software_length: None })
    } else if events.interrupt.injected != 0 {
        Some(Injected { vector: events.interrupt.nr, error_code: None, software_length: None })
    } else {
        None
    };
    state.events = Events {
        activity: state.events.activity,
        interrupt_shadow: shadow & (KVM_X86_SHADOW_INT_MOV_SS | KVM_X86_SHADOW_INT_STI) != 0,
        debug_shadow: shadow & KVM_X86_SHADOW_INT_MOV_SS != 0,
        pending_debug: if is_debug && injected.is_none() {
            events.exception_payload & (debug::DR6_B | debug::DR6_BS | debug::DR6_BT)
        } else {
            0
        },
        smi_pending: if room.smm { events.smi.pending != 0 } else { state.events.smi_pending },
        nmi_masked: events.nmi.masked != 0,
        nmi_pending: events.nmi.pending != 0,
        smm: room.smm && events.smi.smm != 0,
        injected,
    };
}
