//! What a run of accesses to devices promises: each is made once, in order, with everything before it
//! accounted for, and what it brings about comes before the next instruction.

use trivium_cpu::bits::rflags;
use trivium_cpu::state::Debug;
use trivium_cpu::{Exit, Vcpu, Vector};

use crate::testing::{CODE, DATA, DEVICE, TestMachine};

/// mov eax, [DEVICE]; mov [DEVICE + 8], eax; nop; movzx ecx, byte [DEVICE + 4];
/// mov dword [DEVICE + 0Ch], 55h; mov [DEVICE + 10h], ch; add [DEVICE + 20h], ecx; mov rdx, rax; hlt
const ACCESSES: &[u8] = &[
    0x8b, 0x04, 0x25, 0, 0, 0x30, 0, 0x89, 0x04, 0x25, 8, 0, 0x30, 0, 0x90, 0x0f, 0xb6, 0x0c, 0x25,
    4, 0, 0x30, 0, 0xc7, 0x04, 0x25, 0x0c, 0, 0x30, 0, 0x55, 0, 0, 0, 0x88, 0x2c, 0x25, 0x10, 0,
    0x30, 0, 0x01, 0x0c, 0x25, 0x20, 0, 0x30, 0, 0x48, 0x89, 0xc2, 0xf4,
];
const COUNT: u64 = 9;

fn written() -> Vec<(u64, Vec<u8>)> {
    vec![
        (DEVICE + 8, vec![0, 1, 2, 3]),
        (DEVICE + 0xc, vec![0x55, 0, 0, 0]),
        (DEVICE + 0x10, vec![0]),
        // 23222120h + 4
        (DEVICE + 0x20, vec![0x24, 0x21, 0x22, 0x23]),
    ]
}

#[test]
fn device_registers_are_accessed_once_and_in_order_whatever_the_budget() {
    for chunk in [u64::MAX, 1, 2, 3] {
        let mut machine = TestMachine::long(ACCESSES);
        // The second time, the pages are known.
        for round in 1..=2 {
            machine.set(|state| {
                state.general.rip = CODE;
                state.events.activity = trivium_cpu::state::Activity::Running;
            });
            while machine.run(chunk) == Exit::Budget {}
            let mut seen = machine.bus.mmio.lock().unwrap();
            assert_eq!(*seen, written(), "chunks of {chunk}");
            seen.clear();
            drop(seen);
            assert_eq!(*machine.bus.retired.lock().unwrap(), COUNT * round, "chunks of {chunk}");
            let state = machine.state();
            assert_eq!(state.general.regs[..3], [0x0302_0100, 4, 0x0302_0100]);
        }
    }
}

/// The RIP of the instruction that an interrupt, which a write to `at` brings, comes before.
fn interrupted(code: &[u8], at: u64) -> u64 {
    let mut machine = TestMachine::long(code);
    let kicker = machine.cpu.kicker();
    *machine.bus.interrupts_at.lock().unwrap() = Some((at, 0x40, kicker));
    machine.set(|state| state.general.rflags |= rflags::IF);
    assert_eq!(machine.run_to_handler(), 0x40);
    let rsp = machine.reg(4);
    machine.get_u64(rsp)
}

#[test]
fn an_interrupt_that_a_write_brings_comes_before_the_next_instruction() {
    assert_eq!(interrupted(ACCESSES, DEVICE + 8), CODE + 14, "before NOP");
    assert_eq!(interrupted(ACCESSES, DEVICE + 0xc), CODE + 34);
    assert_eq!(interrupted(ACCESSES, DEVICE + 0x10), CODE + 41);
    assert_eq!(interrupted(ACCESSES, DEVICE + 0x20), CODE + 48);
    // out 40h, al; mov ebx, eax; hlt
    assert_eq!(interrupted(&[0xe6, 0x40, 0x89, 0xc3, 0xf4], 0x40), CODE + 2);
}

#[test]
fn a_data_breakpoint_on_a_register_traps_behind_its_access() {
    let mut machine = TestMachine::long(ACCESSES);
    machine.set(|state| {
        let address = [DEVICE + 0xc, 0, 0, 0];
        // L0; on writes of four bytes
        state.debug = Debug { address, dr7: 0x000d_0401, ..state.debug };
    });
    assert_eq!(machine.run_to_handler(), Vector::DB as u8);
    let rsp = machine.reg(4);
    assert_eq!(machine.get_u64(rsp), CODE + 34);
    assert_eq!(machine.bus.mmio.lock().unwrap()[..], written()[..2]);
}

#[test]
fn a_single_step_traps_behind_each_access() {
    let mut machine = TestMachine::long(ACCESSES);
    machine.set(|state| state.general.rflags |= rflags::TF);
    assert_eq!(machine.run_to_handler(), Vector::DB as u8);
    let rsp = machine.reg(4);
    assert_eq!(machine.get_u64(rsp), CODE + 7);
    assert_eq!(machine.bus.mmio.lock().unwrap()[..], []);
}

#[test]
fn an_instruction_with_two_accesses_makes_both_once() {
    // push qword [DEVICE]; pop qword [DEVICE + 8]; hlt
    let code = [0xff, 0x34, 0x25, 0, 0, 0x30, 0, 0x8f, 0x04, 0x25, 8, 0, 0x30, 0, 0xf4];
    let mut machine = TestMachine::long(&code);
    // The stack is a device too: what is pushed is written there, and read anew.
    machine.set(|state| state.general.regs[4] = DEVICE + 0x100);
    assert_eq!(machine.run(10), Exit::Halted);
    let value = vec![0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];
    let pushed = vec![0, 1, 2, 3, 4, 5, 6, 7];
    let expected = [(DEVICE + 0xf8, pushed), (DEVICE + 8, value)];
    assert_eq!(machine.bus.mmio.lock().unwrap()[..], expected);
    assert_eq!(machine.get_u32(DATA), 0);
}
