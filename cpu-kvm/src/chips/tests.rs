//! States of the chips through the kernel's structures, and through the kernel's chips.

use trivium_cpu::CpuError;

use super::*;
use crate::testing::{irqchip, memory};

/// Chips in use: inputs that are up, requests, interrupts in service, timers that run.
fn in_use() -> ChipState {
    let master = PicRegisters {
        lines: 0b0001_0001,
        irr: 0b0001_0000,
        imr: 0b1000_1000,
        isr: 0b0000_0001,
        vector_base: 0x20,
        lowest: 7,
        read_isr: true,
        icw4_needed: true,
        ..PicRegisters::default()
    };
    let slave = PicRegisters {
        lines: 0b0000_1000,
        irr: 0b0000_1000,
        imr: 0xff,
        elcr: 0b0000_1100,
        vector_base: 0x28,
        lowest: 3,
        special_mask: true,
        ..master
    };
    let mut ioapic = IoApicRegisters { select: 0x12, id: 1, ..Default::default() };
    ioapic.entries = [1 << 16; 24];
    ioapic.entries[4] = 0x41;
    // Level-triggered, served, and still up.
    ioapic.entries[16] = 0xc031;
    ioapic.asserted = 1 << 4 | 1 << 16;
    let counter = |control, count, elapsed, gate| PitCounter {
        control,
        count,
        elapsed,
        gate,
        ..PitCounter::default()
    };
    let mut page = [0; 64];
    let registers = [
        (0x03, 0x0105_0014),
        (0x08, 0x10),
        (0x0d, 0x0100_0000),
        (0x0e, 0xffff_ffff),
        (0x0f, 0x1ff),
        (0x11, 1 << 17),
        (0x19, 1 << 17),
        (0x22, 1 << 1),
        (0x32, 0x2_0055),
        (0x33, 0x1_0000),
        (0x34, 0x1_0000),
        (0x35, 0x700),
        (0x36, 0x400),
        (0x37, 0x1_0000),
        (0x38, 2_000_000_000),
        (0x39, 1_900_000_000),
        (0x3e, 0b1011),
    ];
    for (register, value) in registers {
        page[register] = value;
    }
    ChipState {
        lapic: LapicRegisters { base: 0xfee0_0900, page, tsc_deadline: 0 },
        board: Some(BoardChips {
            pic: [master, slave],
            ioapic,
            pit: [
                counter(0x34, 0x4a9, Some(100), true),
                counter(0x34, 18, Some(3), true),
                counter(0x30, 0, None, false),
            ],
            hpet_legacy: false,
        }),
    }
}

#[test]
fn the_kernels_structures_keep_all_of_the_chips() {
    let state = in_use();
    let chips = state.board.clone().unwrap();
    let [master, slave] = convert::to_pics(&chips.pic, true);
    assert_eq!(convert::from_pics([&master, &slave], 0x0811), chips.pic);
    let ioapic = convert::from_ioapic(&convert::to_ioapic(&chips.ioapic), 1 << 4 | 1 << 16);
    assert_eq!(ioapic, chips.ioapic);
    let lapic = convert::from_lapic(&convert::to_lapic(&state.lapic), state.lapic.base, 0);
    assert_eq!(lapic, state.lapic);
    let now = 5_000_000_000;
    let mut pit = convert::from_pit(&convert::to_pit(&chips.pit, now), now);
    for (seen, expected) in pit.iter_mut().zip(chips.pit) {
        // Nanoseconds are coarser than pulses.
        assert!(seen.elapsed.unwrap_or(0).abs_diff(expected.elapsed.unwrap_or(0)) <= 1);
        seen.elapsed = expected.elapsed;
        assert_eq!(*seen, expected);
    }
}

#[test]
fn bytes_of_two_that_are_under_way_stay_so() {
    let counter = PitCounter {
        control: 0x34,
        count: 0x1234,
        elapsed: Some(0),
        gate: true,
        first_byte: Some(0x99),
        read_msb: true,
        latched_count: Some(0x1200),
        latched_status: Some(0x34),
    };
    let counters = [counter, PitCounter { latched_count: None, ..counter }, counter];
    assert_eq!(convert::from_pit(&convert::to_pit(&counters, 9), 9), counters);
}

/// What the kernel keeps of a local APIC: the version is its own, time passes, and PPR follows.
fn comparable(mut lapic: LapicRegisters) -> LapicRegisters {
    (lapic.page[0x03], lapic.page[0x0a], lapic.page[0x39]) = (0, 0, 0);
    lapic
}

#[test]
fn a_state_goes_into_the_kernels_chips_and_out_of_them() {
    let memory = memory(16);
    let Some(vcpu) = irqchip(&memory, Irqchip::On) else { return };
    let chips = vcpu.chips().unwrap();
    let state = in_use();
    for _ in 0..3 {
        chips.put(&state).unwrap();
        let seen = chips.take(0x0811, 1 << 4 | 1 << 16).unwrap();
        assert_eq!(comparable(seen.lapic), comparable(state.lapic));
        assert!(seen.lapic.page[0x39].abs_diff(1_900_000_000) < 100_000_000, "the count goes on");
        let (seen, expected) = (seen.board.unwrap(), state.board.clone().unwrap());
        assert_eq!(seen.pic, expected.pic);
        assert_eq!(seen.ioapic, expected.ioapic);
        assert_eq!(
            seen.pit.map(|c| (c.control, c.count)),
            expected.pit.map(|c| (c.control, c.count))
        );
    }
}

#[test]
fn the_local_apic_alone_goes_over_in_split_mode() {
    let memory = memory(16);
    let Some(vcpu) = irqchip(&memory, Irqchip::Split) else { return };
    let chips = vcpu.chips().unwrap();
    let state = ChipState { board: None, ..in_use() };
    chips.put(&state).unwrap();
    let message = MsiMessage { address: 0xfee0_0000, data: 0x4061 };
    chips.set_routes(&[None, Some(message)]).unwrap();
    chips.send(message).unwrap();
    let seen = chips.take(0, 0).unwrap();
    assert_eq!(seen.lapic.page[0x23], 1 << 1, "the message's vector waits");
    let mut lapic = seen.lapic;
    lapic.page[0x23] = 0;
    assert_eq!(comparable(lapic), comparable(state.lapic));
}

/// A guest in real mode that waits for its timer: the interrupt comes without anybody's help.
#[test]
fn the_kernels_timer_wakes_a_halted_guest() {
    use crate::guest::{self, Listener};
    use trivium_cpu::Vcpu;
    use trivium_memory::GuestPhysAddr;
    let memory = memory(16);
    let Some(mut vcpu) = irqchip(&memory, Irqchip::On) else { return };
    let chips = vcpu.chips().unwrap();
    let mut state = in_use();
    let board = state.board.as_mut().unwrap();
    board.pic[0] = PicRegisters { imr: 0xfe, vector_base: 0x20, lowest: 7, ..Default::default() };
    board.pic[1] = PicRegisters { imr: 0xff, vector_base: 0x28, lowest: 7, ..Default::default() };
    board.ioapic = IoApicRegisters { entries: [1 << 16; 24], ..Default::default() };
    state.lapic.page[0x11] = 0;
    state.lapic.page[0x19] = 0;
    state.lapic.page[0x22] = 0;
    state.lapic.page[0x08] = 0;
    state.lapic.page[0x32] = 0x1_0000;
    // STI; HLT; CLI; then MOV AX, A000h; MOV DS, AX; MOV DWORD [0], EBX
    let code = [0xfb, 0xf4, 0xfa, 0xb8, 0, 0xa0, 0x8e, 0xd8, 0x66, 0x89, 0x1e, 0, 0];
    // The handler of 20h: MOV EBX, 77h; IRET
    memory.write(GuestPhysAddr(0x7100), &[0x66, 0xbb, 0x77, 0, 0, 0, 0xcf]).unwrap();
    memory.write(GuestPhysAddr(0x80), &[0, 0x71, 0, 0]).unwrap();
    vcpu.load(&guest::real_mode(&memory, &code)).unwrap();
    chips.put(&state).unwrap();
    let bus = Listener::default();
    bus.kicks(vcpu.kicker());
    let exit = vcpu.enter(&bus).unwrap();
    assert_eq!(bus.reported(), Some(0x77), "{exit:?}");
    let taken = chips.take(1, 0).unwrap();
    assert_eq!(taken.board.unwrap().pic[0].isr, 1, "no EOI was written");
}

/// All calls to the kernel's chips, as a machine makes them: they are given a state, inputs change,
/// messages are sent, and the state is taken back.
fn all_calls(chips: &KernelChips, state: &ChipState) -> Result<ChipState, KvmError> {
    chips.put(state)?;
    chips.send(MsiMessage { address: 0xfee0_0000, data: 0x4061 })?;
    let ioapic_lines = match &state.board {
        Some(_) => {
            chips.set_hpet_legacy(true)?;
            chips.set_hpet_legacy(false)?;
            chips.set_pic_line(4, true)?;
            chips.set_ioapic_line(16, true)?;
            chips.raise_by(&EventFd::new(0).map_err(call("eventfd"))?, 5)?;
            1 << 16
        }
        None => {
            chips.set_routes(&[None, Some(MsiMessage { address: 0xfee0_0000, data: 0x4061 })])?;
            0
        }
    };
    chips.take(0x0811, ioapic_lines)
}

/// Each call fails once: a line names it, and when it no longer fails the chips take a state and give it
/// back as ever.
#[test]
fn each_call_that_fails_is_named_and_the_chips_go_on() {
    use crate::faulty::Plan;
    use std::collections::BTreeSet;
    use std::sync::atomic::Ordering::Relaxed;
    const EIO: i32 = 5;
    let both =
        [(Irqchip::On, in_use(), 11), (Irqchip::Split, ChipState { board: None, ..in_use() }, 6)];
    for (kind, state, different) in both {
        let memory = memory(16);
        let Some(vcpu) = irqchip(&memory, kind) else { return };
        let chips = vcpu.chips().unwrap();
        let plan = chips.plan.get_or_init(|| Plan::new(u32::MAX, 0, EIO, None)).clone();
        let mut names = BTreeSet::new();
        for left in 0.. {
            plan.left.store(left, Relaxed);
            plan.failures.store(1, Relaxed);
            let made = all_calls(&chips, &state);
            let struck = plan.failures.swap(0, Relaxed) == 0;
            plan.left.store(u32::MAX, Relaxed);
            let line = match made {
                Ok(_) if !struck => break,
                Ok(_) => panic!("{kind:?}: call {left} failed and nobody says so"),
                Err(error) => CpuError::from(error).to_string(),
            };
            assert!(line.contains("KVM_") && line.contains("os error 5"), "{left}: {line}");
            assert!(!line.contains('\n'), "{line}");
            names.insert(line);
            chips.put(&state).unwrap();
            let seen = chips.take(0x0811, 1 << 4 | 1 << 16).unwrap();
            assert_eq!(comparable(seen.lapic), comparable(state.lapic), "{left}");
            let parts = |state: &ChipState| state.board.clone().map(|b| (b.pic, b.ioapic));
            assert_eq!(parts(&seen), parts(&state), "{left}");
        }
        assert!(names.len() >= different, "{kind:?}: {names:#?}");
    }
}
