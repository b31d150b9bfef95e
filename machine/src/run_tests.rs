//! Running machines whose processor is a function.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use trivium_chipset::VmTime;
use trivium_cpu::{Budget, Capabilities, CpuBus, CpuError, CpuModel, CpuState, Exit, Kick, Vcpu};

use crate::config::{ClockMode, MachineConfig};
use crate::control::lock;
use crate::machine::Machine;
use crate::run::RunEnd;
use crate::testing::{self, Console, Step};

type Body = Box<dyn FnMut(&dyn CpuBus, Budget) -> Exit + Send>;

#[derive(Default)]
struct Flag(AtomicBool);

impl Kick for Flag {
    fn kick(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn attend(&self) {}
}

struct FakeVcpu {
    body: Body,
    kicked: Arc<Flag>,
    state: CpuState,
    loads: Arc<AtomicU32>,
}

impl Vcpu for FakeVcpu {
    fn run(&mut self, bus: &dyn CpuBus, budget: Budget) -> Result<Exit, CpuError> {
        if self.kicked.0.swap(false, Ordering::AcqRel) {
            return Ok(Exit::Kicked);
        }
        Ok((self.body)(bus, budget))
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.kicked.clone()
    }

    fn save(&mut self) -> Result<CpuState, CpuError> {
        Ok(self.state)
    }

    fn load(&mut self, state: &CpuState) -> Result<(), CpuError> {
        self.state = *state;
        self.loads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { exact_budget: true }
    }
}

const ICOUNT: ClockMode = ClockMode::Icount { sleep: false };

/// A machine whose processor does what `body` says; also how often a state was loaded into it.
fn machine(
    clock: ClockMode,
    no_reboot: bool,
    body: impl FnMut(&dyn CpuBus, Budget) -> Exit + Send + 'static,
) -> (Machine, Arc<AtomicU32>) {
    machine_of(MachineConfig { no_reboot, ..config(clock) }, body)
}

fn config(clock: ClockMode) -> MachineConfig {
    let mut config = MachineConfig::new(CpuModel::by_name("qemu64").unwrap(), 2 << 20);
    config.firmware = Some(vec![0xf4; 4096]);
    config.clock = clock;
    config.debug_exit_port = Some(0x501);
    config
}

fn machine_of(
    config: MachineConfig,
    body: impl FnMut(&dyn CpuBus, Budget) -> Exit + Send + 'static,
) -> (Machine, Arc<AtomicU32>) {
    let loads = Arc::<AtomicU32>::default();
    let body = Mutex::new(Some(Box::new(body) as Body));
    let machine = Machine::with_vcpus(config, |_| {
        Ok(Box::new(FakeVcpu {
            body: lock(&body).take().unwrap(),
            kicked: Arc::default(),
            state: CpuState::default(),
            loads: loads.clone(),
        }))
    });
    (machine.unwrap(), loads)
}

/// Starts the local APIC's timer, periodic, with vector 30h.
fn start_timer(bus: &dyn CpuBus, nanos: u64) {
    for (offset, value) in
        [(0xf0, 0x1ff), (0x320, 1 << 17 | 0x30), (0x3e0, 0xb), (0x380, nanos as u32)]
    {
        bus.mmio_write(0xfee0_0000 + offset, &value.to_le_bytes());
    }
}

/// Takes an interrupt and ends it.
fn take_interrupt(bus: &dyn CpuBus) -> Option<u8> {
    let vector = bus.interrupt_pending().then(|| bus.acknowledge_interrupt()).flatten();
    bus.mmio_write(0xfee0_00b0, &[0; 4]);
    vector
}

#[test]
fn a_guest_ends_the_run_in_its_own_way() {
    let exit = |bus: &dyn CpuBus, _: Budget| {
        bus.pio_write(0x501, 1, 1);
        Exit::Kicked
    };
    for clock in [ClockMode::Real, ICOUNT, ClockMode::Icount { sleep: true }] {
        assert_eq!(machine(clock, true, exit).0.run().unwrap(), RunEnd::DebugExit(3));
    }
    let reset = |bus: &dyn CpuBus, _: Budget| {
        bus.pio_write(0xcf9, 1, 6);
        Exit::Kicked
    };
    assert_eq!(machine(ClockMode::Real, true, reset).0.run().unwrap(), RunEnd::Reset);
}

#[test]
fn a_reset_starts_the_machine_anew_unless_it_ends_the_run() {
    for (clock, exit) in [(ClockMode::Real, Exit::Shutdown), (ICOUNT, Exit::Kicked)] {
        let mut runs = 0;
        let body = move |bus: &dyn CpuBus, _: Budget| {
            runs += 1;
            if runs == 3 {
                bus.pio_write(0x501, 1, 0);
            } else if exit == Exit::Kicked {
                bus.pio_write(0xcf9, 1, 6);
            }
            exit
        };
        let (mut machine, loads) = machine(clock, false, body);
        assert_eq!(machine.run().unwrap(), RunEnd::DebugExit(1));
        assert_eq!(loads.load(Ordering::Relaxed), 3);
    }
}

#[test]
fn a_triple_fault_shows_state_and_code() {
    let (mut machine, _) = machine(ClockMode::Real, true, |_, _| Exit::Shutdown);
    let RunEnd::Shutdown { cpu: 0, state, code } = machine.run().unwrap() else {
        panic!("not shut down");
    };
    assert_eq!(state.general.rip, 0xfff0);
    assert_eq!(code, [0xf4; 16]);
}

#[test]
fn stop_ends_a_halted_machine_from_another_thread_and_one_that_does_not_run_yet() {
    for clock in [ClockMode::Real, ICOUNT, ClockMode::Icount { sleep: true }] {
        let (mut machine, _) = machine(clock, true, |_, _| Exit::Halted);
        let handle = machine.handle();
        handle.stop();
        assert_eq!(machine.run().unwrap(), RunEnd::Stopped);
        let limit = Duration::from_millis(20);
        let (end, timed_out) = testing::run_limited(&mut machine, limit).unwrap();
        assert_eq!((end, timed_out), (RunEnd::Stopped, true));
    }
}

#[test]
fn under_icount_interrupts_come_exactly_when_they_are_due() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = times.clone();
    let mut started = false;
    let body = move |bus: &dyn CpuBus, budget: Budget| {
        if !started {
            started = true;
            start_timer(bus, 1000);
            return Exit::Kicked;
        }
        if take_interrupt(bus) == Some(0x30) {
            let mut times = lock(&seen);
            times.push(bus.tsc());
            if times.len() == 6 {
                bus.pio_write(0x501, 1, 0);
            }
            if times.len() % 2 == 0 {
                return Exit::Halted;
            }
        }
        bus.retire(budget.instructions);
        Exit::Budget
    };
    assert_eq!(machine(ICOUNT, true, body).0.run().unwrap(), RunEnd::DebugExit(1));
    assert_eq!(*lock(&times), [1000, 2000, 3000, 4000, 5000, 6000]);
}

#[test]
fn under_real_time_a_halted_processor_is_woken_by_its_timer() {
    let mut started = false;
    let mut ticks = 0;
    let body = move |bus: &dyn CpuBus, _: Budget| {
        if !started {
            started = true;
            start_timer(bus, 2_000_000);
        }
        if take_interrupt(bus) == Some(0x30) {
            ticks += 1;
            if ticks == 5 {
                bus.pio_write(0x501, 1, 0);
            }
        }
        Exit::Halted
    };
    let start = Instant::now();
    let (mut machine, _) = machine(ClockMode::Real, true, body);
    assert_eq!(machine.run().unwrap(), RunEnd::DebugExit(1));
    assert!(start.elapsed() >= Duration::from_millis(10));
    assert!(machine.now() >= VmTime::from_nanos(10_000_000));
}

#[test]
fn sleep_lets_the_host_wait_while_the_guest_is_idle() {
    let mut started = false;
    let body = move |bus: &dyn CpuBus, _: Budget| {
        if !started {
            started = true;
            start_timer(bus, 5_000_000);
        }
        if take_interrupt(bus).is_some() {
            bus.pio_write(0x501, 1, 0);
        }
        Exit::Halted
    };
    let start = Instant::now();
    let (mut machine, _) = machine(ClockMode::Icount { sleep: true }, true, body);
    assert_eq!(machine.run().unwrap(), RunEnd::DebugExit(1));
    assert!(start.elapsed() >= Duration::from_millis(5));
    assert_eq!(machine.now(), VmTime::from_nanos(5_000_000));
}

#[test]
fn a_run_can_be_limited_in_virtual_time() {
    let body = |bus: &dyn CpuBus, budget: Budget| {
        bus.retire(budget.instructions);
        Exit::Budget
    };
    let (mut machine, _) = machine(ICOUNT, true, body);
    for nanos in [1, 1000, 123_456] {
        let moment = VmTime::from_nanos(nanos);
        assert_eq!(machine.run_until(moment).unwrap(), None);
        assert_eq!(machine.now(), moment);
    }
}

#[test]
fn rebuilt_devices_and_restored_machines_are_what_they_were() {
    let mut started = false;
    let body = move |bus: &dyn CpuBus, budget: Budget| {
        if !started {
            started = true;
            start_timer(bus, 1000);
            for (port, value) in [(0x43, 0x34), (0x40, 0x10), (0x40, 0), (0x92, 2), (0x70, 0x8f)] {
                bus.pio_write(port, 1, value);
            }
        }
        bus.retire(budget.instructions.min(300));
        Exit::Budget
    };
    let (mut machine, _) = machine(ICOUNT, true, body);
    machine.run_until(VmTime::from_nanos(4500)).unwrap();
    machine.memory().write(trivium_memory::GuestPhysAddr(0x5000), &[1, 2, 3]).unwrap();
    let (state, hash) = (machine.save().unwrap(), machine.state_hash().unwrap());
    machine.rebuild_devices().unwrap();
    assert_eq!(machine.state_hash().unwrap(), hash);
    assert_eq!(machine.save().unwrap(), state);
    machine.run_until(VmTime::from_nanos(9999)).unwrap();
    machine.memory().write(trivium_memory::GuestPhysAddr(0x8000), &[9]).unwrap();
    let later = machine.state_hash().unwrap();
    assert_ne!(later, hash);
    machine.restore(&state).unwrap();
    assert_eq!(machine.state_hash().unwrap(), hash);
    assert_eq!(machine.now(), VmTime::from_nanos(4500));
    machine.run_until(VmTime::from_nanos(9999)).unwrap();
    machine.memory().write(trivium_memory::GuestPhysAddr(0x8000), &[9]).unwrap();
    assert_eq!(machine.state_hash().unwrap(), later);
}

#[test]
fn a_state_of_another_machine_is_refused() {
    let (mut machine, _) = machine(ICOUNT, true, |_, _| Exit::Halted);
    let mut state = machine.save().unwrap();
    state.devices.push(("ne2000".to_owned(), state.devices[0].1.clone()));
    assert!(machine.restore(&state).unwrap_err().to_string().contains("no device 'ne2000'"));
    state.devices.pop();
    let first = state.devices.remove(0);
    assert!(machine.restore(&state).unwrap_err().to_string().contains(&first.0));
    state.devices.insert(0, first);
    let cpu = state.cpus.pop().unwrap();
    assert!(machine.restore(&state).unwrap_err().to_string().contains("0 processors"));
    state.cpus.push(cpu);
    let ram = std::mem::replace(&mut state.ram, trivium_memory::RamImage::new(3 << 20).unwrap());
    assert!(machine.restore(&state).unwrap_err().to_string().contains("3145728 bytes"));
    state.ram = ram;
    assert!(machine.restore(&state).is_ok());
}

#[test]
fn what_the_host_types_wakes_the_guest_and_reaches_it_in_order() {
    for clock in [ClockMode::Real, ICOUNT, ClockMode::Icount { sleep: true }] {
        let script = [Step::reply("login: ", "root of all\r"), Step::stop("all\r")];
        let console = Console::new(script);
        let mut config = config(clock);
        config.serial[0] = Some(console.backend());
        let mut greeted = false;
        let body = move |bus: &dyn CpuBus, _: Budget| {
            if !std::mem::replace(&mut greeted, true) {
                bus.pio_write(0x3fa, 1, 1);
                "login: ".bytes().for_each(|byte| bus.pio_write(0x3f8, 1, byte.into()));
            }
            while bus.pio_read(0x3fd, 1) & 1 != 0 {
                let byte = bus.pio_read(0x3f8, 1);
                bus.pio_write(0x3f8, 1, byte);
            }
            Exit::Halted
        };
        let (mut machine, _) = machine_of(config, body);
        console.connect(machine.handle());
        let end = testing::run_limited(&mut machine, Duration::from_secs(20)).unwrap();
        assert_eq!(end, (RunEnd::Stopped, false));
        assert_eq!(console.text(), "login: root of all\r");
    }
}

/// The time that this thread has had a processor of the host.
fn busy() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn timers_that_fire_every_nanosecond_do_not_keep_the_host_busy() {
    let mut started = false;
    let (mut machine, _) = machine(ClockMode::Real, false, move |bus, _| {
        if !std::mem::replace(&mut started, true) {
            start_timer(bus, 1);
        }
        Exit::Halted
    });
    // The thread that runs a machine serves its timers.
    let (limit, before) = (Duration::from_millis(400), busy());
    let (end, _) = testing::run_limited(&mut machine, limit).unwrap();
    assert_eq!(end, RunEnd::Stopped);
    let spent = busy() - before;
    assert!(spent < limit * 2 / 5, "{spent:?} of {limit:?}");
}

#[test]
fn a_guest_that_does_nothing_but_take_interrupts_can_be_stopped() {
    for clock in [ICOUNT, ClockMode::Icount { sleep: true }, ClockMode::Real] {
        let mut started = false;
        let (mut machine, _) = machine(clock, false, move |bus, budget| {
            if !std::mem::replace(&mut started, true) {
                start_timer(bus, 1);
            }
            bus.retire(budget.instructions.min(10));
            take_interrupt(bus);
            Exit::Budget
        });
        let limit = Duration::from_millis(100);
        let begun = Instant::now();
        let (end, late) = testing::run_limited(&mut machine, limit).unwrap();
        assert_eq!((end, late), (RunEnd::Stopped, true), "{clock:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{clock:?}");
    }
}
