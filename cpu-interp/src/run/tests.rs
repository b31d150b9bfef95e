//! What the outer loop promises: exact budgets, precise faults, code that changes under it, accesses
//! that are not plain RAM, and handlers that take no stack.

use trivium_cpu::state::Activity;
use trivium_cpu::{Exit, Vector};

use crate::testing::{CODE, DATA, DEVICE, STACK, TABLES, TestMachine};

/// A loop with a call, stack accesses, memory operands, fused branches, and bytes that do nothing:
/// mov ecx, 200; top: call f; nop; add [DATA], ecx; dec ecx; cmp ecx, 0; jne top; hlt;
/// f: push rax; mov rax, [DATA]; nop; pop rax; ret.
fn busy_loop() -> Vec<u8> {
    let data = (DATA as u32).to_le_bytes();
    let mut code = vec![0xb9, 200, 0, 0, 0];
    code.extend([0xe8, 0x10, 0, 0, 0, 0x90, 0x01, 0x0c, 0x25]);
    code.extend(data);
    code.extend([0xff, 0xc9, 0x83, 0xf9, 0x00, 0x75, 0xec, 0xf4]);
    assert_eq!(code.len(), 26);
    code.extend([0x50, 0x48, 0x8b, 0x04, 0x25]);
    code.extend(data);
    code.extend([0x90, 0x58, 0xc3]);
    code
}

/// mov, 200 rounds of (call, push, mov, nop, pop, ret, nop, add, dec, cmp, jne), hlt.
const BUSY_COUNT: u64 = 1 + 200 * 11 + 1;

#[test]
fn budgets_are_kept_to_the_instruction_and_change_nothing() {
    let mut whole = TestMachine::long(&busy_loop());
    // The call's displacement counts from its end: 5 + 5 + 16 = 26.
    assert_eq!(whole.run(u64::MAX), Exit::Halted);
    assert_eq!(*whole.bus.retired.lock().unwrap(), BUSY_COUNT);
    assert_eq!(whole.get_u32(DATA), 200 * 201 / 2);
    for chunk in [1, 2, 3, 7, 100] {
        let mut machine = TestMachine::long(&busy_loop());
        let mut retired = 0;
        loop {
            let exit = machine.run(chunk);
            let now = *machine.bus.retired.lock().unwrap();
            if exit == Exit::Halted {
                break;
            }
            assert_eq!((exit, now - retired), (Exit::Budget, chunk));
            retired = now;
        }
        assert_eq!(*machine.bus.retired.lock().unwrap(), BUSY_COUNT, "chunks of {chunk}");
        assert!(machine.state() == whole.state(), "chunks of {chunk}");
    }
}

#[test]
fn handlers_take_no_stack() {
    // Where the compiler does not make jumps of the handlers' calls, the quantum bounds the stack;
    // with a quantum of 10 million it would take hundreds of megabytes.
    if cfg!(debug_assertions) {
        return;
    }
    let run = || {
        let mut code = busy_loop();
        code[1..5].copy_from_slice(&500_000_u32.to_le_bytes());
        let mut machine = TestMachine::long(&code);
        machine.cpu.quantum = 10_000_000;
        assert_eq!(machine.run(u64::MAX), Exit::Halted);
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap();
    thread.join().unwrap();
}

#[test]
fn an_access_across_two_pages_reads_and_writes_both() {
    // mov rax, [DATA + ffch]; mov [DATA + 1ffah], rax; hlt
    let code =
        [0x48, 0x8b, 0x04, 0x25, 0xfc, 0xbf, 0, 0, 0x48, 0x89, 0x04, 0x25, 0xfa, 0xcf, 0, 0, 0xf4];
    let mut machine = TestMachine::long(&code);
    machine.put(DATA + 0xffc, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(machine.run(10), Exit::Halted);
    assert_eq!(machine.get::<8>(DATA + 0x1ffa), [1, 2, 3, 4, 5, 6, 7, 8]);
}

/// Lets a halted processor go on elsewhere.
fn restart(machine: &mut TestMachine, rip: u64) {
    machine.set(|state| {
        state.general.rip = rip;
        state.events.activity = Activity::Running;
    });
}

/// Maps the 2 MiB from 2 MiB on by 4 KiB pages, of which only the first is present.
fn with_a_last_page(code: &[u8]) -> TestMachine {
    let mut machine = TestMachine::long(code);
    machine.put_u64(TABLES + 0x2008, (TABLES + 0x3000) | 7);
    machine.put_u64(TABLES + 0x3000, (DATA + 0x1000) | 7);
    machine.put_u64(TABLES + 0x3008, 0);
    machine
}

#[test]
fn a_store_whose_second_page_faults_changes_nothing() {
    // mov [200ffch], rax; at the page's end
    let mut machine = with_a_last_page(&[0x48, 0x89, 0x04, 0x25, 0xfc, 0x0f, 0x20, 0]);
    machine.set(|state| state.general.regs[0] = !0);
    machine.raises(Vector::PF, Some(2));
    assert_eq!(machine.state().control.cr2, 0x20_1000);
    assert_eq!(machine.get_u32(DATA + 0x1ffc), 0);
}

#[test]
fn an_instruction_across_two_pages_runs_and_faults_on_the_second() {
    // The last page's last bytes: the first three of mov eax, 12345678h.
    let mut machine = with_a_last_page(&[]);
    machine.put(DATA + 0x1ffd, &[0xb8, 0x78, 0x56]);
    machine.set(|state| state.general.rip = 0x20_0ffd);
    machine.raises(Vector::PF, Some(0x10));
    assert_eq!(machine.state().control.cr2, 0x20_1000);

    let mut machine = with_a_last_page(&[]);
    machine.put(DATA + 0x1ffd, &[0xb8, 0x78, 0x56]);
    machine.put_u64(TABLES + 0x3008, (DATA + 0x3000) | 7);
    machine.put(DATA + 0x3000, &[0x34, 0x12, 0xf4]);
    machine.set(|state| state.general.rip = 0x20_0ffd);
    assert_eq!(machine.run(10), Exit::Halted);
    assert_eq!(machine.reg(0), 0x1234_5678);

    // The second page goes elsewhere: invlpg is all that the processor is told.
    machine.put(DATA + 0x4000, &[0x99, 0x99, 0xf4]);
    machine.put_u64(TABLES + 0x3008, (DATA + 0x4000) | 7);
    machine.put(CODE, &[0x0f, 0x01, 0x3c, 0x25, 0x00, 0x10, 0x20, 0x00, 0xf4]);
    restart(&mut machine, CODE);
    assert_eq!(machine.run(10), Exit::Halted);
    restart(&mut machine, 0x20_0ffd);
    assert_eq!(machine.run(10), Exit::Halted);
    assert_eq!(machine.reg(0), 0x9999_5678);
}

#[test]
fn code_that_changes_the_next_instruction_runs_the_changed_one() {
    // mov byte [CODE + 9], 42; mov al, 1 (whose immediate is at CODE + 9); hlt
    let at = (CODE + 9) as u32;
    let mut code = vec![0xc6, 0x04, 0x25];
    code.extend(at.to_le_bytes());
    code.extend([42, 0xb0, 1, 0xf4]);
    let mut machine = TestMachine::long(&code);
    assert_eq!(machine.run(10), Exit::Halted);
    assert_eq!(machine.reg(0) & 0xff, 42);
    // And again, decoded by now, with another value from a general function: REP STOSB.
    machine.put(CODE, &[0xb0, 7, 0xb1, 1, 0xf3, 0xaa, 0xb3, 1, 0xf4]);
    machine.set(|state| {
        state.general.regs[1] = 0;
        state.general.regs[7] = CODE + 7;
    });
    restart(&mut machine, CODE);
    assert_eq!(machine.run(10), Exit::Halted);
    assert_eq!(machine.reg(3) & 0xff, 7);
}

#[test]
fn code_changed_by_a_device_runs_changed() {
    // top: mov al, 1; hlt
    let mut machine = TestMachine::long(&[0xb0, 1, 0xf4]);
    assert_eq!(machine.run(10), Exit::Halted);
    machine.put(CODE + 1, &[9]);
    restart(&mut machine, CODE);
    assert_eq!(machine.run(10), Exit::Halted);
    assert_eq!(machine.reg(0) & 0xff, 9);
}

#[test]
fn device_registers_are_reached_by_every_kind_of_handler() {
    // Reads give their address' low byte. movzx eax, byte [DEVICE + 5]; add ecx, [DEVICE + 16];
    // mov [DEVICE + 8], ecx; or byte [DEVICE + 32], 15; push qword [DEVICE]; hlt
    let mut code = Vec::new();
    let device = |offset: u32| (DEVICE as u32 + offset).to_le_bytes();
    for (bytes, offset) in [
        (&[0x0f, 0xb6, 0x04, 0x25][..], 5),
        (&[0x03, 0x0c, 0x25], 16),
        (&[0x89, 0x0c, 0x25], 8),
        (&[0x80, 0x0c, 0x25], 32),
    ] {
        code.extend(bytes);
        code.extend(device(offset));
    }
    code.push(15);
    code.extend([0xff, 0x34, 0x25]);
    code.extend(device(0));
    code.push(0xf4);
    let mut machine = TestMachine::long(&code);
    assert_eq!(machine.run(20), Exit::Halted);
    assert_eq!(machine.reg(0), 5);
    assert_eq!(machine.reg(1), 0x1312_1110);
    assert_eq!(
        *machine.bus.mmio.lock().unwrap(),
        [(DEVICE + 8, vec![0x10, 0x11, 0x12, 0x13]), (DEVICE + 32, vec![0x2f]),]
    );
    assert_eq!(machine.get_u64(STACK - 8), 0x0706_0504_0302_0100);
}

#[test]
fn an_instruction_that_leaves_the_canonical_addresses_or_the_limit_raises_gp_and_not_pf() {
    // The first bytes of mov eax, 12345678h, the last below the hole between canonical addresses.
    let mut machine = with_a_last_page(&[]);
    machine.put(DATA + 0x1ffd, &[0xb8, 0x78, 0x56]);
    machine.put_u64(TABLES + 0x7f8, (TABLES + 0x4000) | 7);
    machine.put_u64(TABLES + 0x4ff8, (TABLES + 0x5000) | 7);
    machine.put_u64(TABLES + 0x5ff8, (TABLES + 0x6000) | 7);
    machine.put_u64(TABLES + 0x6ff8, (DATA + 0x1000) | 7);
    machine.set(|state| state.general.rip = 0x7fff_ffff_fffd);
    assert_eq!(machine.run_to_exception(), (Vector::GP as u8, 0));

    // A segment of code that ends with the page; what follows is not present.
    let mut machine = with_a_last_page(&[]);
    machine.put(DATA + 0x1ffd, &[0xb8, 0x78, 0x56]);
    machine.set(|state| {
        let cs = &mut state.segments.regs[trivium_cpu::state::CS];
        cs.attributes.0 = 0x409b;
        cs.limit = 0x20_0fff;
        state.general.rip = 0x20_0ffd;
    });
    assert_eq!(machine.run_to_exception(), (Vector::GP as u8, 0));
}

#[test]
fn two_accesses_of_an_instruction_may_have_the_same_place_in_the_tlb() {
    // push qword [DEVICE], across the pages 16 MiB further on, which are the first MiB again
    let mut code = vec![0xff, 0x34, 0x25];
    code.extend((DEVICE as u32).to_le_bytes());
    let mut machine = TestMachine::long(&code);
    machine.put_u64(TABLES + 0x2048, 0x87);
    machine.set(|state| state.general.regs[4] = DEVICE + 0x100_0004);
    assert_eq!(machine.run(1), Exit::Budget);
    assert_eq!(machine.get_u64(0xf_fffc), 0x0706_0504_0302_0100);
}

#[test]
fn open_bus_is_not_executed() {
    let mut machine = TestMachine::long(&[]);
    machine.set(|state| state.general.rip = DEVICE);
    assert_eq!(machine.run_to_handler(), Vector::UD as u8);
}
