//! Calls that fail, at every place: a line that names the call, or the other CPU goes on; the guest is
//! never lost, and nothing hangs.

use std::sync::Arc;

use trivium_cpu::{Budget, CpuError, CpuState, Exit, Vcpu};
use trivium_interp::{Interpreter, Topology};
use trivium_memory::GuestMemory;

use crate::faulty::{Faulty, Idle, Plan};
use crate::guest::{self, Listener, PLACE};
use crate::host::HostCaps;
use crate::ioctls::{HostExit, Ioctls};
use crate::testing::{host, max};
use crate::{KvmVcpu, Level, Relay};

const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const CAPS: HostCaps = HostCaps {
    msr_exits: true,
    exception_payload: true,
    slots: 32,
    read_only: true,
    tsc_control: true,
    irqchip: crate::Irqchip::Off,
    smm: false,
};

fn vcpu<T: Ioctls + 'static>(
    inner: T,
    memory: &Arc<GuestMemory>,
    plan: &Arc<Plan>,
) -> Result<KvmVcpu, CpuError> {
    let io = Faulty { inner, plan: plan.clone() };
    Ok(KvmVcpu::with_ioctls(Box::new(io), CAPS, memory.clone(), max(), PLACE)?)
}

fn interpreter(memory: &Arc<GuestMemory>) -> Box<dyn Vcpu> {
    let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: 1_000_000_000, apic_hz: 1_000_000_000 };
    let scratch = memory.scratch(0, 1).unwrap();
    Box::new(Interpreter::new(memory.clone(), max(), topology, scratch))
}

/// All that a machine does with a processor.
fn life<T: Ioctls + 'static>(inner: T, plan: &Arc<Plan>) -> Result<(Exit, CpuState), CpuError> {
    let memory = guest::memory(16).unwrap();
    let mut vcpu = vcpu(inner, &memory, plan)?;
    // MOV AX, 1234h; HLT
    vcpu.load(&guest::real_mode(&memory, &[0xb8, 0x34, 0x12, 0xf4]))?;
    let exit = vcpu.run(&Listener::default(), Budget::UNLIMITED)?;
    Ok((exit, vcpu.save()?))
}

#[test]
fn every_call_that_fails_is_named_in_one_line() {
    let mut failed = 0;
    for left in 0..200 {
        let plan = Plan::new(left, 1, EIO, None);
        match life(Idle::default(), &plan) {
            Ok((exit, _)) => assert_eq!(exit, Exit::Halted),
            Err(error) => {
                failed += 1;
                let line = error.to_string();
                assert!(!line.contains('\n'), "{line}");
                assert!(line.contains("KVM_"), "{left}: {line}");
                assert!(line.contains("os error 5"), "{left}: {line}");
            }
        }
    }
    assert!(failed > 30, "{failed} places were met");
}

#[test]
fn the_same_on_this_hosts_kvm() {
    for left in 0..80 {
        let Some(host) = host() else { return };
        let plan = Plan::new(left, 1, EIO, None);
        match life(host, &plan) {
            Ok((exit, state)) => {
                assert_eq!(exit, Exit::Halted);
                assert_eq!(state.general.regs[0], 0x1234, "{left}");
            }
            Err(error) => assert!(error.to_string().contains("KVM_"), "{error}"),
        }
    }
}

/// The exits that no guest here asks for.
fn exits() -> Vec<HostExit> {
    vec![
        HostExit::InternalError { suberror: 1, bytes: vec![0x90] },
        HostExit::InternalError { suberror: 3, bytes: Vec::new() },
        HostExit::FailEntry(0x8000_0021),
        HostExit::Unknown(0x77),
        HostExit::Other(99),
    ]
}

#[test]
fn what_kvm_cannot_do_is_said_with_its_place() {
    for exit in exits() {
        let plan = Plan::new(0, 0, EIO, Some(exit));
        let line = cannot(&plan).to_string();
        assert!(line.contains("0000:7000") && line.contains("--accel kvm:jit"), "{line}");
    }
}

/// The error of a run whose first KVM_RUN gives what a plan says.
fn cannot(plan: &Arc<Plan>) -> CpuError {
    use std::sync::atomic::Ordering::Relaxed;
    let memory = guest::memory(16).unwrap();
    let mut vcpu = vcpu(Idle::default(), &memory, plan).unwrap();
    vcpu.load(&guest::real_mode(&memory, &[0xf4])).unwrap();
    let bus = Listener::default();
    vcpu.slots.refresh(&mut *vcpu.io).unwrap();
    vcpu.set_tsc_if_due(&bus).unwrap();
    plan.failures.store(1, Relaxed);
    vcpu.run(&bus, Budget::UNLIMITED).unwrap_err()
}

#[test]
fn the_other_cpu_goes_on_where_kvm_run_fails() {
    use std::sync::atomic::Ordering::Relaxed;
    let failures = exits().into_iter().map(Some).chain([None]);
    for exit in failures {
        let memory = guest::memory(16).unwrap();
        let plan = Plan::new(0, 0, EIO, exit.clone());
        let kvm = vcpu(Idle::default(), &memory, &plan).unwrap();
        let bus = Listener::default();
        let mut relay = Relay::new(kvm, interpreter(&memory), Level::All);
        // MOV AX, 1234h; HLT: what stands in for the kernel halts without running anything.
        relay.load(&guest::real_mode(&memory, &[0xb8, 0x34, 0x12, 0xf4])).unwrap();
        relay.kvm_for_test().set_tsc_if_due(&bus).unwrap();
        plan.failures.store(1, Relaxed);
        assert_eq!(relay.run(&bus, Budget::UNLIMITED).unwrap(), Exit::Halted, "{exit:?}");
        let state = relay.save().unwrap();
        assert_eq!(state.general.regs[0], 0x1234, "{exit:?}");
        assert_eq!(state.general.rip, 0x7003, "the one instruction");
    }
}

#[test]
fn eintr_and_eagain_without_end_do_not_hang() {
    let plan = Plan::new(0, 0, EAGAIN, Some(HostExit::Again));
    plan.failures.store(0, std::sync::atomic::Ordering::Relaxed);
    let memory = guest::memory(16).unwrap();
    let mut vcpu = vcpu(Idle::default(), &memory, &plan).unwrap();
    vcpu.load(&guest::real_mode(&memory, &[0xf4])).unwrap();
    let bus = Listener::default();
    vcpu.slots.refresh(&mut *vcpu.io).unwrap();
    vcpu.set_tsc_if_due(&bus).unwrap();
    plan.failures.store(20_000, std::sync::atomic::Ordering::Relaxed);
    let exit = vcpu.enter(&bus).unwrap();
    assert!(format!("{exit:?}").contains("EAGAIN"), "{exit:?}");
    // A storm of signals ends when they do.
    let plan = Plan::new(0, 0, EAGAIN, Some(HostExit::Interrupted));
    let mut vcpu = self::vcpu(Idle::default(), &memory, &plan).unwrap();
    vcpu.load(&guest::real_mode(&memory, &[0xf4])).unwrap();
    vcpu.slots.refresh(&mut *vcpu.io).unwrap();
    vcpu.set_tsc_if_due(&bus).unwrap();
    plan.failures.store(100_000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(vcpu.run(&bus, Budget::UNLIMITED).unwrap(), Exit::Halted);
}

#[test]
fn too_many_pieces_of_memory_are_told() {
    let memory = guest::memory(16).unwrap();
    let plan = Plan::new(0, 0, EIO, None);
    let io = Faulty { inner: Idle::default(), plan };
    let caps = HostCaps { slots: 1, ..CAPS };
    let mut vcpu = KvmVcpu::with_ioctls(Box::new(io), caps, memory.clone(), max(), PLACE).unwrap();
    let line = vcpu.load(&CpuState::default()).unwrap_err().to_string();
    assert!(line.contains("2 pieces") && line.contains("--accel jit"), "{line}");
}

#[test]
fn a_guest_behind_a_failing_kvm_comes_to_its_end_on_the_other_cpu() {
    use std::sync::atomic::Ordering::Relaxed;
    let (mut ended, mut told) = (0, 0);
    for level in [Level::All, Level::User] {
        for left in 0..120 {
            let memory = guest::memory(16).unwrap();
            let plan = Plan::new(u32::MAX, 0, EIO, None);
            let Some(host) = host() else { return };
            let kvm = vcpu(host, &memory, &plan).unwrap();
            let mut relay = Relay::new(kvm, interpreter(&memory), level);
            // A loop that KVM may run, and SYSCALL to a handler that halts. Or real mode.
            let state = match level {
                Level::User => guest::long_mode(
                    &memory,
                    3,
                    &crate::testing::loop_then_syscall(400_000),
                    &[0xf4],
                ),
                Level::All => guest::real_mode(&memory, &[0xb8, 0x34, 0x12, 0xf4]),
            };
            plan.left.store(left, Relaxed);
            plan.failures.store(3, Relaxed);
            let bus = Listener::default();
            let run = relay.load(&state).and_then(|()| relay.run(&bus, Budget::UNLIMITED));
            match run {
                Ok(exit) => {
                    ended += 1;
                    plan.failures.store(0, Relaxed);
                    assert_eq!(exit, Exit::Halted, "{level:?} {left}");
                    let rcx = relay.save().unwrap().general.regs[1];
                    assert!(
                        level == Level::All || rcx == guest::CODE + 13,
                        "{level:?} {left}: {rcx:x}"
                    );
                }
                Err(error) => {
                    told += 1;
                    assert!(error.to_string().contains("KVM_"), "{error}");
                }
            }
        }
    }
    println!("{ended} guests came to their end, {told} were lost with a message");
    assert!(ended > told);
}
