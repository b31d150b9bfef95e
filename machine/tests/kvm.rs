//! Machines whose processor is this host's KVM at times: it takes over from the other CPUs and gives
//! back, whatever the guest is in the middle of.
//!
//! What this host's KVM does not do is skipped with a line that says so; with `KVM_REQUIRE=hw` a skip
//! is a failure.

use std::time::Duration;

use trivium_chipset::VmTime;
use trivium_cpu::CpuModel;
use trivium_machine::kvm::{BEHAVIOURS, Behaviour, Irqchip, Level, Report};
use trivium_machine::testing::{self, Console, guest_file};
use trivium_machine::{
    Accel, ClockMode, KernelConfig, Machine, MachineConfig, RunEnd, SwitchConfig, SwitchEvery,
};

const LIMIT: Duration = Duration::from_secs(600);

/// Says why something is not done; a failure where all must be.
fn skip(why: &str) {
    assert!(!required(), "KVM_REQUIRE=hw: {why}");
    println!("SKIP: {why}");
}

fn required() -> bool {
    std::env::var_os("KVM_REQUIRE").is_some_and(|value| value == "hw")
}

/// What this host's KVM does, if there is one.
fn report() -> Option<&'static Report> {
    match Report::of_host() {
        Ok(report) => Some(report),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

fn config(accel: Accel, clock: ClockMode) -> MachineConfig {
    let mut config = MachineConfig::new(CpuModel::parse("max").unwrap(), 16 << 20);
    config.accel = accel;
    config.clock = clock;
    config.kvm.level = Some(Level::All);
    config.debug_exit_port = Some(0x501);
    config.no_reboot = true;
    config
}

/// The kinds of CPU that a state goes through.
const KINDS: [Accel; 5] = [Accel::Interp, Accel::Jit, Accel::Kvm, Accel::KvmJit, Accel::KvmInterp];

/// At random points of each self-test: what one CPU has loaded and saves is what was loaded, and so
/// with a second one that takes it from there, for every ordered pair.
#[test]
fn a_state_goes_through_every_ordered_pair_of_cpus_at_random_points() {
    if report().is_none() {
        return;
    }
    let end = VmTime::from_nanos(3_000_000);
    let (mut passed, mut refused) = (0, std::collections::BTreeMap::<String, u32>::new());
    for (seed, (name, image)) in (1..).zip(trivium_test_roms::SUITE) {
        let machine = |accel, clock| {
            let mut config = config(accel, clock);
            config.firmware = Some(image.to_vec());
            Machine::new(config).unwrap()
        };
        let mut source = machine(Accel::Interp, ClockMode::Icount { sleep: false });
        let mut cpus = KINDS.map(|kind| machine(kind, ClockMode::Real));
        for moment in testing::moments_of(seed, 2, end) {
            if source.run_until(moment).unwrap().is_some() {
                break;
            }
            let state = source.save().unwrap();
            // What comes out is what went in: so each goes on from any other.
            for (kind, machine) in KINDS.iter().zip(&mut cpus) {
                if let Err(error) = machine.restore(&state) {
                    *refused.entry(format!("{kind:?}: {error}")).or_default() += 1;
                    continue;
                }
                let seen = machine.save().unwrap();
                assert_eq!(seen.cpus, state.cpus, "{name} at {moment}, {kind:?}");
                assert_eq!(seen, state, "{name} at {moment}, {kind:?}");
                passed += 1;
            }
        }
    }
    println!("{passed} states were taken and given back");
    for (why, times) in refused {
        skip(&format!("{times} times {why}"));
    }
}

/// The reference guest's kernel, from its entry to power-off.
#[test]
fn debian_boots_while_jit_and_kvm_take_turns() {
    let Some(report) = report() else { return };
    if !report.is_good_for_programs() && !report.is_whole() {
        let lacking = BEHAVIOURS.iter().filter(|info| !report.has(info.behaviour));
        let names: Vec<_> = lacking.map(|info| info.name).collect();
        return skip(&format!("/dev/kvm lacks {}", names.join(", ")));
    }
    let (Some(image), Some(initrd)) =
        (guest_file("cloud", "vmlinuz"), guest_file("initrd", "initrd"))
    else {
        return;
    };
    let console = Console::default();
    let mut config = config(Accel::Jit, ClockMode::Real);
    config.memory_size = 512 << 20;
    config.kvm.level = None;
    config.kernel = Some(KernelConfig {
        image,
        initrd: Some(initrd),
        command_line: "console=ttyS0 panic=-1 quickexit".to_owned(),
        ..KernelConfig::default()
    });
    config.serial[0] = Some(console.backend());
    config.switch = Some(SwitchConfig {
        cpus: vec![Accel::Jit, Accel::KvmJit],
        every: SwitchEvery::Nanos(100_000_000),
    });
    let mut machine = Machine::new(config).unwrap();
    let (end, timed_out) = testing::run_limited(&mut machine, LIMIT).unwrap();
    assert!(!timed_out, "{}", console.text());
    assert_eq!(end, RunEnd::PowerOff, "{}", console.text());
    assert!(console.text().contains("=== GUEST UP"), "{}", console.text());
}

/// Ticks of the 8254 that the guest waits for, a millisecond each.
const TICKS: u16 = 1000;

/// A guest in real mode that counts the 8254's ticks in BX, halted between them, and ends the run.
fn ticking(ticks: u16) -> Vec<u8> {
    let [low, high] = ticks.to_le_bytes();
    const HANDLER: u8 = 0x80;
    let code = [
        // CLI; XOR AX, AX; MOV DS, AX; MOV SS, AX; MOV SP, 7000h
        &[0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x70][..],
        // IA32_APIC_BASE: the local APIC is not there, INTR comes to the processor
        &[0x66, 0xb9, 0x1b, 0, 0, 0, 0x0f, 0x32, 0x66, 0x25, 0xff, 0xf7, 0xff, 0xff, 0x0f, 0x30],
        // MOV WORD [80h], HANDLER; MOV WORD [82h], F000h
        &[0xc7, 0x06, 0x80, 0, HANDLER, 0, 0xc7, 0x06, 0x82, 0, 0x00, 0xf0],
        // MOV WORD [9Ch], IRET; MOV WORD [9Eh], F000h: an 8259A whose input went low before it was
        // acknowledged, as on a busy host, gives the vector of IRQ 7
        &[0xc7, 0x06, 0x9c, 0, HANDLER + 5, 0, 0xc7, 0x06, 0x9e, 0, 0x00, 0xf0],
        // Both 8259As: ICW1 to ICW4, and masks: IRQ 0 alone
        &[0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x20, 0xe6, 0x21, 0xb0, 4, 0xe6, 0x21, 0xb0, 1, 0xe6, 0x21],
        &[0xb0, 0x11, 0xe6, 0xa0, 0xb0, 0x28, 0xe6, 0xa1, 0xb0, 2, 0xe6, 0xa1, 0xb0, 1, 0xe6, 0xa1],
        &[0xb0, 0xfe, 0xe6, 0x21, 0xb0, 0xff, 0xe6, 0xa1],
        // Counter 0 in mode 2, every 1,193 pulses; XOR BX, BX
        &[0xb0, 0x34, 0xe6, 0x43, 0xb0, 0xa9, 0xe6, 0x40, 0xb0, 4, 0xe6, 0x40, 0x31, 0xdb],
        // STI; HLT; CMP BX, ticks; JB
        &[0xfb, 0xf4, 0x81, 0xfb, low, high, 0x72, 0xf8],
        // MOV DX, 501h; XOR AL, AL; OUT DX, AL; HLT
        &[0xba, 0x01, 0x05, 0x30, 0xc0, 0xee, 0xf4],
    ]
    .concat();
    assert!(code.len() < HANDLER.into());
    let mut rom = vec![0xf4; 0x1_0000];
    rom[..code.len()].copy_from_slice(&code);
    // INC BX; MOV AL, 20h; OUT 20h, AL; IRET
    rom[HANDLER.into()..][..6].copy_from_slice(&[0x43, 0xb0, 0x20, 0xe6, 0x20, 0xcf]);
    // JMP FAR F000:0000
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    rom
}

/// The machine of a kind with interrupt chips of the kernel's or none.
fn ticker(accel: Accel, irqchip: Irqchip) -> Option<Machine> {
    let mut config = config(accel, ClockMode::Real);
    config.firmware = Some(ticking(TICKS));
    config.kvm.irqchip = irqchip;
    match Machine::new(config) {
        Ok(machine) => Some(machine),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

fn has_real_mode() -> bool {
    match report() {
        Some(report) if report.has(Behaviour::RealMode) => true,
        Some(_) => {
            skip("/dev/kvm lacks RealMode");
            false
        }
        None => false,
    }
}

#[test]
fn a_guest_gets_its_timers_interrupts_from_the_chips_of_either_side() {
    if !has_real_mode() {
        return;
    }
    for irqchip in [Irqchip::Off, Irqchip::Split, Irqchip::On] {
        let Some(mut machine) = ticker(Accel::Kvm, irqchip) else { continue };
        let (end, timed_out) = testing::run_limited(&mut machine, Duration::from_secs(30)).unwrap();
        let state = machine.save().unwrap();
        assert!(!timed_out, "{irqchip:?}: {:?}", state.cpus[0].general);
        assert_eq!(end, RunEnd::DebugExit(1), "{irqchip:?}");
        assert_eq!(state.cpus[0].general.regs[3] & 0xffff, TICKS.into(), "{irqchip:?}");
        let millis = machine.now().as_nanos() / 1_000_000;
        assert!(millis >= u64::from(TICKS) * 9 / 10, "{irqchip:?}: {millis} ms");
    }
}

/// Saved in the middle with the kernel's chips, restored where there are none, and the other way
/// round: the ticks go on.
#[test]
fn a_machine_with_chips_of_the_kernels_leaves_kvm_and_comes_to_it() {
    if !has_real_mode() {
        return;
    }
    let kinds = [
        (Accel::Kvm, Irqchip::On),
        (Accel::Interp, Irqchip::Off),
        (Accel::Kvm, Irqchip::On),
        (Accel::Jit, Irqchip::Off),
        (Accel::Kvm, Irqchip::Split),
        (Accel::Kvm, Irqchip::Off),
        (Accel::Kvm, Irqchip::On),
    ];
    let machines: Option<Vec<_>> =
        kinds.iter().map(|&(accel, irqchip)| ticker(accel, irqchip)).collect();
    let Some(machines) = machines else { return };
    let (mut before, mut ticks) = (None, 0);
    let last = machines.len() - 1;
    for (n, mut machine) in machines.into_iter().enumerate() {
        if let Some(state) = before.take() {
            machine.restore(&state).unwrap();
        }
        let (accel, irqchip) = kinds[n];
        let seen = |machine: &mut Machine| machine.save().unwrap().cpus[0].general.regs[3] & 0xffff;
        if n < last {
            // A busy host may give the guest little of its time.
            for _ in 0..200 {
                let until = VmTime::from_nanos(machine.now().as_nanos() + 4_000_000);
                let end = machine.run_until(until).unwrap();
                assert_eq!(end, None, "{accel:?} {irqchip:?} as machine {n}, {ticks} ticks before");
                if seen(&mut machine) > ticks {
                    break;
                }
            }
        } else {
            let (end, timed_out) =
                testing::run_limited(&mut machine, Duration::from_secs(30)).unwrap();
            assert!(!timed_out && end == RunEnd::DebugExit(1), "{end:?}");
        }
        let state = machine.save().unwrap();
        let now = state.cpus[0].general.regs[3] & 0xffff;
        assert!(now > ticks, "{accel:?} {irqchip:?} had no tick after {ticks}");
        ticks = now;
        before = Some(state);
    }
    assert_eq!(ticks, TICKS.into());
}

/// A guest that writes to a doorbell in memory and to one at a port, and to others beside them, then
/// ends: whoever waits is told of the right ones, on KVM as on the other CPUs.
#[test]
fn doorbells_ring_on_every_cpu() {
    use trivium_machine::kvm::doorbell::{Doorbell, EventFd, Place, Value};
    // MOV AX, A000h; MOV DS, AX; MOV CX, 5; then five times: MOV AX, 7; MOV [10h], AX; MOV [12h], AX;
    // INC AX; MOV [10h], AX; OUT 84h, AL; OUT 85h, AL; LOOP; and the end
    let code = [
        &[0xb8, 0x00, 0xa0, 0x8e, 0xd8, 0xb9, 5, 0][..],
        &[0xb8, 7, 0, 0xa3, 0x10, 0, 0xa3, 0x12, 0, 0x40, 0xa3, 0x10, 0],
        &[0xe6, 0x84, 0xe6, 0x85, 0xe2, 0xed],
        &[0xba, 0x01, 0x05, 0x30, 0xc0, 0xee, 0xf4],
    ]
    .concat();
    let mut rom = vec![0xf4; 0x1_0000];
    rom[..code.len()].copy_from_slice(&code);
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    let kinds: &[Accel] = if has_real_mode() { &KINDS } else { &[Accel::Interp, Accel::Jit] };
    for &accel in kinds {
        let mut config = config(accel, ClockMode::Real);
        config.firmware = Some(rom.clone());
        let mut machine = Machine::new(config).unwrap();
        let bells = [(Place::Memory(0xa_0010), Some(Value::Word(7))), (Place::Port(0x84), None)];
        let events = bells.map(|(place, value)| {
            let ours = EventFd::new(0).unwrap();
            let event = ours.try_clone().unwrap();
            machine.add_doorbell(Doorbell { place, value, event }).unwrap();
            ours
        });
        let (end, timed_out) = testing::run_limited(&mut machine, Duration::from_secs(30)).unwrap();
        assert!(!timed_out && end == RunEnd::DebugExit(1), "{accel:?}: {end:?}");
        assert_eq!(events.map(|event| event.read().unwrap()), [5, 5], "{accel:?}");
    }
}

/// An event raises an interrupt that wakes the guest, through the kernel's chips and through ours.
#[test]
fn an_event_raises_an_interrupt() {
    if !has_real_mode() {
        return;
    }
    for irqchip in [Irqchip::Off, Irqchip::On] {
        let mut config = config(Accel::Kvm, ClockMode::Real);
        // The same guest without a timer's count: its ticks are events at IRQ 0's neighbour.
        let mut rom = ticking(100);
        let mask = rom.windows(4).position(|bytes| bytes == [0xb0, 0xfe, 0xe6, 0x21]).unwrap();
        rom[mask + 1] = !(1 << 5);
        let vector = rom.windows(4).position(|bytes| bytes == [0xc7, 0x06, 0x80, 0]).unwrap();
        rom[vector + 2] = 0x94;
        rom[vector + 8] = 0x96;
        config.firmware = Some(rom);
        config.kvm.irqchip = irqchip;
        let mut machine = match Machine::new(config) {
            Ok(machine) => machine,
            Err(error) => {
                skip(&error.to_string());
                continue;
            }
        };
        let event = machine.interrupt_event(5).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let end = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                    event.signal();
                }
            });
            let end = testing::run_limited(&mut machine, Duration::from_secs(30));
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            end
        });
        assert_eq!(end.unwrap(), (RunEnd::DebugExit(1), false), "{irqchip:?}");
    }
}
