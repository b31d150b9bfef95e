//! Small guests on this host's KVM.

use trivium_cpu::state::{Activity, Injected};
use trivium_memory::GuestPhysAddr;

use super::transfer;
use super::user::UserEnd;
use crate::Behaviour;
use crate::testing::{CODE, Listener, kvm, long_mode, loop_then_syscall, memory, skip};

/// What programs alone need.
const PROGRAMS: &[Behaviour] = &[Behaviour::UserFaults];

#[test]
fn user_level_code_runs_up_to_its_syscall() {
    let memory = memory(64);
    let Some(mut vcpu) = kvm(&memory, PROGRAMS) else { return };
    let code = loop_then_syscall(1000);
    let state = long_mode(&memory, 3, &code);
    let bus = Listener::default();
    vcpu.forget_attention();
    for _ in 0..3 {
        let exit = vcpu.run_user(&state, &bus).unwrap().unwrap();
        assert_ne!(exit.reason, UserEnd::Attention);
        assert_eq!(exit.state.general.rip, CODE + code.len() as u64 - 2, "SYSCALL is the guest's");
        assert_eq!(exit.state.segments, state.segments);
        assert_eq!(exit.state.control, state.control);
        assert_eq!(exit.state.msrs, state.msrs);
    }
}

#[test]
fn an_exception_ends_user_level_code_before_its_instruction() {
    let memory = memory(64);
    let Some(mut vcpu) = kvm(&memory, PROGRAMS) else { return };
    // Each with its registers as they were: MOV EAX, 7; then a load from where nothing is mapped,
    // UD2, a division by zero, INT3, INT 80h, HLT, CLI, and INT1.
    let faults: [&[u8]; 8] = [
        &[0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0x70],
        &[0x0f, 0x0b],
        &[0xf7, 0xf1],
        &[0xcc],
        &[0xcd, 0x80],
        &[0xf4],
        &[0xfa],
        &[0xf1],
    ];
    vcpu.forget_attention();
    for fault in faults {
        let code = [&[0xb8, 7, 0, 0, 0], fault].concat();
        let state = long_mode(&memory, 3, &code);
        let exit = vcpu.run_user(&state, &Listener::default()).unwrap().unwrap();
        assert_eq!(exit.state.general.rip, CODE + 5, "{fault:x?}");
        assert_eq!(exit.state.general.regs[0], 7, "{fault:x?}");
        assert_eq!(exit.state.general.regs[4], state.general.regs[4], "{fault:x?}");
    }
}

#[test]
fn page_tables_that_others_have_changed_are_seen() {
    let memory = memory(64);
    let Some(mut vcpu) = kvm(&memory, PROGRAMS) else { return };
    // MOV RAX, [200000h]; UD2
    let code = [0x48, 0x8b, 0x04, 0x25, 0, 0, 0x20, 0, 0x0f, 0x0b];
    let state = long_mode(&memory, 3, &code);
    let bus = Listener::default();
    vcpu.forget_attention();
    for page in [1_u64, 2, 3, 4] {
        memory.write(GuestPhysAddr(page << 21), &page.to_le_bytes()).unwrap();
    }
    for page in [1_u64, 2, 3, 4, 2, 1] {
        let entry = page << 21 | 0x87;
        memory.write(GuestPhysAddr(0x4008), &entry.to_le_bytes()).unwrap();
        let exit = vcpu.run_user(&state, &bus).unwrap().unwrap();
        assert_eq!(exit.state.general.regs[0], page);
    }
}

#[test]
fn what_user_level_code_writes_is_dirty() {
    let memory = memory(64);
    let Some(mut vcpu) = kvm(&memory, PROGRAMS) else { return };
    // MOV [300008h], RAX; UD2
    let code = [0x48, 0x89, 0x04, 0x25, 8, 0, 0x30, 0, 0x0f, 0x0b];
    let state = long_mode(&memory, 3, &code);
    vcpu.forget_attention();
    let mut reader = memory.code().add_reader();
    for _ in 0..3 {
        let _ = memory.dirty().take();
        memory.code().mark(0x30_0000, 1);
        vcpu.run_user(&state, &Listener::default()).unwrap().unwrap();
        vcpu.collect_dirty().unwrap();
        assert!(memory.dirty().is_dirty(0x300));
        assert!(!memory.dirty().is_dirty(0x301));
        let written = memory.code().take_written(&mut reader);
        assert_eq!(written, trivium_memory::Written::Pages(vec![0x300]));
    }
}

#[test]
fn every_behaviour_is_probed_within_its_time() {
    let begin = std::time::Instant::now();
    let report = match crate::Report::of_host() {
        Ok(report) => report,
        Err(why) => {
            skip::<()>(&why.to_string());
            return;
        }
    };
    assert!(begin.elapsed().as_secs() < 3 * crate::BEHAVIOURS.len() as u64);
    for info in crate::BEHAVIOURS {
        let finding = report.finding(info.behaviour).expect("a finding");
        println!("{}: {}", info.name, finding.seen);
        assert!(!finding.seen.is_empty());
    }
}

/// Intel SDM vol. 2, HLT: an enabled interrupt resumes execution. Were it both halted and in the
/// middle of an event, whoever loads that would wait for an interrupt that has been acknowledged.
#[test]
fn an_event_that_waits_for_its_delivery_has_ended_hlt() {
    let injected = Some(Injected { vector: 0x20, error_code: None, software_length: None });
    assert_eq!(transfer::activity(true, None), Activity::Halted);
    assert_eq!(transfer::activity(true, injected), Activity::Running);
    assert_eq!(transfer::activity(false, injected), Activity::Running);
}
