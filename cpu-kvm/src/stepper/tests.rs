//! The host's processor beside the interpreter, over programs of a few instructions.

use std::sync::Arc;

use trivium_cpu::bits::rflags;
use trivium_cpu::{Budget, CpuState, Exit, Vcpu};
use trivium_interp::{BlockLimits, Interpreter, Topology};
use trivium_memory::{GuestMemory, GuestPhysAddr};

use super::{OWN, Sample, Stepper};
use crate::testing::{CODE, Listener, kvm, long_mode, max, memory};

/// XOR EAX, EAX; MOV ECX, 1000; ADD RAX, RCX; MOV [200000h], RAX; SUB RCX, 1; JNZ
const LOOP: &[u8] = &[
    0x31, 0xc0, 0xb9, 0xe8, 0x03, 0, 0, 0x48, 0x01, 0xc8, 0x48, 0x89, 0x04, 0x25, 0, 0, 0x20, 0,
    0x48, 0x83, 0xe9, 0x01, 0x75, 0xef,
];

fn interpreter(memory: &Arc<GuestMemory>) -> Interpreter {
    let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: 1_000_000_000, apic_hz: 1_000_000_000 };
    // Blocks of one instruction: in longer ones flags that the next instructions overwrite are left
    // out.
    let limits = BlockLimits::default();
    limits.set(1, 0, 0);
    Interpreter::new(memory.clone(), max(), topology, 0).with_limits(Arc::new(limits))
}

/// The state after so many instructions, of both, and what the host's processor has run.
fn both(code: &[u8], count: u64) -> Option<([CpuState; 2], [u64; 2], super::Steps)> {
    let memories = [memory(16), memory(16)];
    let kvm = kvm(&memories[1], &Stepper::NEEDED)?;
    let other = Box::new(interpreter(&memories[1]));
    let mut stepper = Stepper::new(kvm, other, memories[1].clone(), max().phys_bits, Sample::ALL);
    let mut alone = interpreter(&memories[0]);
    let bus = Listener::default();
    let mut states = [CpuState::default(); 2];
    let mut stored = [0; 2];
    let cpus: [&mut dyn Vcpu; 2] = [&mut alone, &mut stepper];
    for (n, cpu) in cpus.into_iter().enumerate() {
        cpu.load(&long_mode(&memories[n], 3, code)).unwrap();
        assert_eq!(cpu.run(&bus, Budget { instructions: count }).unwrap(), Exit::Budget);
        states[n] = cpu.save().unwrap();
        let mut bytes = [0; 8];
        memories[n].read(GuestPhysAddr(0x20_0000), &mut bytes).unwrap();
        stored[n] = u64::from_le_bytes(bytes);
    }
    Some((states, stored, stepper.steps().clone()))
}

#[test]
fn as_many_instructions_are_run_as_are_asked_for() {
    for count in [1, 2, 3, 5, 6, 7, 100, 4002] {
        let Some((states, stored, steps)) = both(LOOP, count) else { return };
        assert_eq!(states[0], states[1], "{count}");
        assert_eq!(stored[0], stored[1], "{count}");
        assert_eq!(steps.native, count, "{steps:?}");
    }
}

/// PUSHF in the middle is the other CPU's; RFLAGS.TF is never seen.
#[test]
fn what_is_kvms_own_is_run_by_the_other() {
    // XOR EAX, EAX; PUSHF; POP RAX; NOP; NOP
    let Some((states, _, steps)) = both(&[0x31, 0xc0, 0x9c, 0x58, 0x90, 0x90], 5) else { return };
    assert_eq!(states[0], states[1]);
    assert_eq!(states[1].general.regs[0] & rflags::TF, 0);
    assert_eq!(states[1].general.rip, CODE + 6);
    assert_eq!(steps.native, 4);
    let flags = OWN.iter().position(|own| own.what.starts_with("PUSHF")).unwrap();
    assert_eq!(steps.own[flags], 1);
}

/// A fault is delivered by the other CPU, after what was before it.
#[test]
fn exceptions_are_the_others() {
    // XOR EAX, EAX; NOP; MOV [RAX - 1], EAX: not canonical for the first time at 2^63.
    let code = [0x31, 0xc0, 0x48, 0xf7, 0xd0, 0x48, 0xc1, 0xe0, 0x3f, 0x89, 0x00, 0x90];
    let memories = [memory(16), memory(16)];
    let Some(kvm) = kvm(&memories[1], &Stepper::NEEDED) else { return };
    let other = Box::new(interpreter(&memories[1]));
    let mut stepper = Stepper::new(kvm, other, memories[1].clone(), max().phys_bits, Sample::ALL);
    stepper.load(&long_mode(&memories[1], 3, &code)).unwrap();
    let exit = stepper.run(&Listener::default(), Budget { instructions: 3 }).unwrap();
    assert_eq!(exit, Exit::Budget);
    assert_eq!(stepper.save().unwrap().general.rip, CODE + 9);
    // The handler's HLT.
    let exit = stepper.run(&Listener::default(), Budget { instructions: 9 }).unwrap();
    assert_ne!(exit, Exit::Budget);
    assert_eq!((stepper.steps().native, stepper.steps().faults), (3, 1));
}

#[test]
fn samples_go_by_time_alone() {
    let sample = Sample { first: 2, every: 10 };
    let all: Vec<_> = (0..12).map(|now| sample.at(now)).collect();
    assert_eq!(all[..4], [Ok(2), Ok(1), Err(8), Err(7)]);
    assert_eq!(all[9..], [Err(1), Ok(2), Ok(1)]);
    assert_eq!(Sample::ALL.at(7), Ok(u64::MAX));
}
