//! The boards: `pc` has i440FX, PIIX3 and the PIIX4's power management, as the PCs of 1997; `isapc`
//! has the chips of an AT alone.
//!
//! Locks are taken in this order, and so cannot block one another: the PCI bus, its functions and
//! all other devices (never two, but for the PCI bus and two of its functions, and the real-time
//! clock and the power management function); the DMA controllers; the interrupt router; the 8259As;
//! the I/O APIC; a local APIC (never two). What a local APIC asks of others is done once it is
//! unlocked. Locks not named here are held for no call to anything else.

use std::sync::{Arc, Mutex};

use trivium_chipset::{Clock, Device, IrqLine, VmTime};
use trivium_devices::apic::{IoApic, LapicConfig, LocalApic};
use trivium_devices::hpet::{HPET_SIZE, Hpet, HpetWiring};
use trivium_devices::i8042::I8042;
use trivium_devices::pic::Pic;
use trivium_devices::pit::Pit;
use trivium_devices::ports::{DebugConsole, DebugConsoleBackend, DebugExit, Port92, PostPort};
use trivium_devices::rtc::{CmosMemory, Rtc};
use trivium_devices::sys::{A20Gate, A20Sink, A20Source};
use trivium_devices::uart16550::Uart16550;
use trivium_firmware::acpi::pc as addresses;
use trivium_memory::GuestMemory;

use super::bus::Unclaimed;
use super::fpu::{self, FpuErrorLatch};
use super::isa::IsaParts;
use super::pci::{PciBus, RtcWake};
use super::ports::PortMap;
use super::windows::{SlotWindows, Windows};
use crate::apics::{IntrWires, LocalApics};
use crate::config::{Board, ConfigError, SERIAL_PORTS};
use crate::control::{Control, lock};
use crate::doorbells::Doorbells;
use crate::kernel_chips::ChipSeat;
use crate::layout::ArenaLayout;
use crate::router::{IrqRouter, input, source};
use crate::rtc::RtcParts;
use crate::serial::{SerialInput, SerialPort, SharedBackend};
use crate::time::MachineClock;
use crate::timers::Timers;
use crate::trace::Trace;

/// What the I/O APIC's address decoder takes.
const IOAPIC_SIZE: u64 = 0x1000;
/// The first port of the 8259As' edge/level control registers, which came with EISA.
const FIRST_EISA_PORT: u16 = 0x400;

/// What boards are built from, and what outlives them.
pub(crate) struct BoardParts {
    pub(crate) board: Board,
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) layout: ArenaLayout,
    pub(crate) clock: Arc<MachineClock>,
    pub(crate) control: Arc<Control>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) rtc: RtcParts,
    pub(crate) apics: Vec<LapicConfig>,
    pub(crate) serial: [Option<SharedBackend>; SERIAL_PORTS],
    pub(crate) serial_baud: [bool; SERIAL_PORTS],
    pub(crate) serial_input: Arc<[Arc<SerialInput>; SERIAL_PORTS]>,
    pub(crate) debug_console: Option<SharedConsole>,
    pub(crate) debug_exit_port: Option<u16>,
    pub(crate) isa: IsaParts,
    /// Where the kernel's interrupt chips are, if they are to be used.
    pub(crate) seat: Arc<ChipSeat>,
    /// What is rung by writes of the guest's.
    pub(crate) bells: Arc<Doorbells>,
}

/// A debug console that outlives its port.
#[derive(Clone)]
pub(crate) struct SharedConsole(Arc<Mutex<Box<dyn DebugConsoleBackend>>>);

impl SharedConsole {
    pub(crate) fn new(backend: Box<dyn DebugConsoleBackend>) -> Self {
        Self(Arc::new(Mutex::new(backend)))
    }
}

impl DebugConsoleBackend for SharedConsole {
    fn write(&mut self, byte: u8) {
        lock(&self.0).write(byte);
    }
}

/// A device on the board, and the name of its saved state.
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) device: Arc<Mutex<dyn Device>>,
}

/// Where a device's registers are in memory.
pub(crate) struct Window {
    pub(crate) base: u64,
    pub(crate) size: u64,
    pub(crate) slot: usize,
}

/// The wires to A20M#.
pub(crate) struct A20Wires {
    gate: A20Gate,
    memory: Arc<GuestMemory>,
    control: Arc<Control>,
}

impl A20Sink for A20Wires {
    fn set_a20(&self, source: A20Source, open: bool) {
        let open = self.gate.set(source, open);
        if self.memory.a20() != open {
            self.memory.set_a20(open);
            for processor in self.control.processors() {
                processor.attend();
            }
        }
    }
}

/// The board with all its chips.
pub(crate) struct PcBoard {
    pub(crate) clock: Arc<MachineClock>,
    pub(crate) control: Arc<Control>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) ports: PortMap,
    pub(crate) windows: Vec<Window>,
    /// Those of PCI functions.
    pub(crate) moving: Arc<Windows>,
    pub(crate) unclaimed: Unclaimed,
    /// By slot; the local APICs' come after the slots'.
    pub(crate) timers: Timers,
    pub(crate) apics: Arc<LocalApics>,
    pub(crate) router: Arc<IrqRouter>,
    pub(crate) pic: Arc<Mutex<Pic>>,
    pub(crate) ioapic: Option<Arc<Mutex<IoApic>>>,
    pub(crate) pit: Arc<Mutex<Pit>>,
    pub(crate) seat: Arc<ChipSeat>,
    pub(crate) bells: Arc<Doorbells>,
    pub(crate) pci: Option<PciBus>,
    pub(crate) serial: [Option<Arc<Mutex<SerialPort>>>; SERIAL_PORTS],
    pub(crate) keyboard: Arc<Mutex<I8042>>,
    pub(crate) fpu: Arc<Mutex<FpuErrorLatch>>,
    pub(crate) port92: Arc<Mutex<Port92>>,
    pub(crate) a20: Arc<A20Wires>,
}

/// A device to be put on a board.
pub(super) fn share<D: Device>(device: D) -> Arc<Mutex<D>> {
    Arc::new(Mutex::new(device))
}

/// The board while devices are put on it.
pub(super) struct Builder<'a> {
    pub(super) parts: &'a BoardParts,
    slots: Vec<Slot>,
    ports: PortMap,
    windows: Vec<Window>,
    moving: Arc<Windows>,
    /// The real-time clock's interrupt, on its way through the power management function.
    pub(super) rtc_wake: Arc<RtcWake>,
    pub(super) apics: Arc<LocalApics>,
    pub(super) router: Arc<IrqRouter>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Builder<'_> {
    pub(super) fn add<D: Device + 'static>(
        &mut self,
        name: &'static str,
        device: &Arc<Mutex<D>>,
    ) -> usize {
        self.slots.push(Slot { name, device: device.clone() });
        self.slots.len() - 1
    }

    /// Adds a device that answers at these ports, given as first port and count.
    pub(super) fn add_ports<D: Device + 'static>(
        &mut self,
        name: &'static str,
        device: &Arc<Mutex<D>>,
        ports: &[(u16, u16)],
    ) -> Result<usize, ConfigError> {
        let slot = self.add(name, device);
        for &(first, count) in ports {
            self.ports.claim(first, count, slot).map_err(|owner| ConfigError::PortsTaken {
                port: first,
                last: u32::from(first) + u32::from(count) - 1,
                owner: self.slots.get(owner).map_or("another device", |slot| slot.name),
            })?;
        }
        Ok(slot)
    }

    /// The same for single ports.
    pub(super) fn add_at<D: Device + 'static>(
        &mut self,
        name: &'static str,
        device: &Arc<Mutex<D>>,
        ports: &[u16],
    ) -> Result<usize, ConfigError> {
        let ports: Vec<_> = ports.iter().map(|port| (*port, 1)).collect();
        self.add_ports(name, device, &ports)
    }

    /// The far end of the windows of the device that is added next.
    pub(super) fn next_windows(&self) -> Arc<SlotWindows> {
        self.moving.of_slot(self.slots.len())
    }

    fn add_window(&mut self, base: u32, size: u64, slot: usize) {
        self.windows.push(Window { base: base.into(), size, slot });
    }

    pub(super) fn line(&self, input: u32, source: u32) -> IrqLine {
        self.router.line(input, source)
    }

    fn interrupt_controllers(
        &mut self,
        pic: &Arc<Mutex<Pic>>,
        ioapic: Option<&Arc<Mutex<IoApic>>>,
    ) -> Result<(), ConfigError> {
        let isa: Vec<_> = Pic::PORTS.into_iter().filter(|port| *port < FIRST_EISA_PORT).collect();
        let Some(ioapic) = ioapic else {
            self.add_at("pic", pic, &isa)?;
            return Ok(());
        };
        self.add_at("pic", pic, &Pic::PORTS)?;
        let slot = self.add("ioapic", ioapic);
        self.add_window(addresses::IOAPIC_BASE, IOAPIC_SIZE, slot);
        Ok(())
    }

    fn isa_timers(&mut self) -> Result<Arc<Mutex<Pit>>, ConfigError> {
        let times = self.parts.rtc;
        let pit = Pit::new(self.clock.clone(), self.line(input::PIT, source::ONLY))
            .with_lost_ticks(times.lost_ticks);
        let pit = share(pit);
        self.add_at("pit", &pit, &Pit::PORTS)?;
        let low = self.parts.layout.low_ram();
        let sizes = CmosMemory {
            below_4g: self.parts.layout.usable_low_ram(),
            above_4g: self.parts.layout.ram_size() - low,
        };
        let irq = IrqLine::new(self.rtc_wake.clone(), 0, 0);
        let rtc = Rtc::new(self.clock.clone(), irq, times.base, sizes);
        self.add_at("rtc", &share(times.finish(rtc)), &Rtc::PORTS)?;
        Ok(pit)
    }

    fn serial_port(
        &mut self,
        number: usize,
    ) -> Result<Option<Arc<Mutex<SerialPort>>>, ConfigError> {
        const NAMES: [&str; SERIAL_PORTS] = ["com1", "com2", "com3", "com4"];
        let backend = self.parts.serial.get(number).and_then(Option::as_ref);
        let (Some(backend), Some(input), Some(name), Some((port, irq))) = (
            backend,
            self.parts.serial_input.get(number),
            NAMES.get(number),
            addresses::COM_PORTS.get(number),
        ) else {
            return Ok(None);
        };
        let line = self.line((*irq).into(), source::COM1 + number as u32);
        let mut uart = Uart16550::new(self.clock.clone(), line, Box::new(backend.clone()));
        if self.parts.serial_baud.get(number) == Some(&true) {
            uart = uart.with_baud_timing();
        }
        let device = share(SerialPort::new(uart, input.clone()));
        self.add_ports(name, &device, &[(*port, Uart16550::PORTS)])?;
        Ok(Some(device))
    }

    fn hpet(&mut self) {
        let routes = (20..24u8)
            .zip(input::GSI20..)
            .map(|(pin, input)| (pin, self.line(input, source::HPET)))
            .collect();
        let wiring = HpetWiring {
            clock: self.clock.clone(),
            routes,
            legacy: input::HPET_LEGACY.map(|input| self.line(input, source::HPET)),
            legacy_select: self.line(input::HPET_LEGACY_SELECT, source::HPET),
        };
        let slot = self.add("hpet", &share(Hpet::new(wiring)));
        self.add_window(addresses::HPET_BASE, HPET_SIZE, slot);
    }

    fn debug_ports(&mut self) -> Result<(), ConfigError> {
        self.add_at("post", &share(PostPort::new()), &[PostPort::PORT])?;
        if let Some(backend) = &self.parts.debug_console {
            let console = DebugConsole::new(Box::new(backend.clone()));
            self.add_at("debug-console", &share(console), &[DebugConsole::PORT])?;
        }
        if let Some(base) = self.parts.debug_exit_port {
            let exit = share(DebugExit::new(base, self.parts.control.clone()));
            if base.checked_add(DebugExit::PORTS - 1).is_none() {
                let last = u32::from(base) + u32::from(DebugExit::PORTS) - 1;
                let owner = "nothing beyond 0xffff";
                return Err(ConfigError::PortsTaken { port: base, last, owner });
            }
            self.add_ports("debug-exit", &exit, &[(base, DebugExit::PORTS)])?;
        }
        Ok(())
    }
}

impl PcBoard {
    /// A board after power-up.
    ///
    /// # Errors
    /// Two devices want the same ports.
    pub(crate) fn new(parts: &BoardParts) -> Result<Self, ConfigError> {
        let BoardParts { memory, clock, control, trace, .. } = parts;
        let dyn_clock: Arc<dyn Clock> = clock.clone();
        let apics = parts.apics.iter().map(|config| LocalApic::new(*config, dyn_clock.clone()));
        let apics = Arc::new(LocalApics::new(apics.collect(), control.clone(), parts.seat.clone()));
        let is_pc = parts.board == Board::Pc;
        let ioapic = is_pc.then(|| share(IoApic::new(apics.clone())));
        let intr = Arc::new(IntrWires { apics: apics.clone(), ioapic: ioapic.clone() });
        let pic = share(Pic::new(IrqLine::new(intr, 0, 0)));
        let router = Arc::new(IrqRouter::new(
            pic.clone(),
            ioapic.clone(),
            trace.clone(),
            parts.seat.clone(),
        ));
        let a20 = Arc::new(A20Wires {
            gate: A20Gate::new(),
            memory: memory.clone(),
            control: control.clone(),
        });
        let mut builder = Builder {
            parts,
            slots: Vec::new(),
            ports: PortMap::new(),
            windows: Vec::new(),
            moving: Windows::new(),
            rtc_wake: RtcWake::new(router.line(input::RTC, source::ONLY)),
            apics: apics.clone(),
            router: router.clone(),
            clock: dyn_clock,
        };

        builder.interrupt_controllers(&pic, ioapic.as_ref())?;
        let pit = builder.isa_timers()?;
        parts.seat.connect(ioapic.clone());
        if is_pc {
            builder.hpet();
        }
        let keyboard = share(I8042::new(
            builder.clock.clone(),
            router.line(input::KEYBOARD, source::ONLY),
            router.line(input::MOUSE, source::ONLY),
            a20.clone(),
            control.clone(),
        ));
        builder.add_at("i8042", &keyboard, &I8042::PORTS)?;
        let port92 = share(Port92::new(a20.clone(), control.clone()));
        builder.add_at("port92", &port92, &[Port92::PORT])?;
        let fpu = share(FpuErrorLatch::new(router.line(input::FPU, source::ONLY)));
        builder.add_ports("fpu-error", &fpu, &[(fpu::CLEAR_BUSY, fpu::PORTS)])?;
        let mut serial = [const { None }; SERIAL_PORTS];
        for (number, port) in serial.iter_mut().enumerate() {
            *port = builder.serial_port(number)?;
        }

        let pci = match parts.board {
            Board::Pc => Some(builder.pci()?),
            Board::IsaPc => {
                memory.set_map(parts.layout.fixed_map());
                None
            }
        };
        builder.isa_devices()?;
        builder.debug_ports()?;

        let Builder { slots, ports, windows, moving, .. } = builder;
        let timers = Timers::new(slots.len() + apics.len(), control.clone());
        Ok(Self {
            clock: clock.clone(),
            control: control.clone(),
            trace: trace.clone(),
            slots,
            ports,
            windows,
            moving,
            unclaimed: Unclaimed::new(),
            timers,
            apics,
            router,
            pic,
            ioapic,
            pit,
            seat: parts.seat.clone(),
            bells: parts.bells.clone(),
            pci,
            serial,
            keyboard,
            fpu,
            port92,
            a20,
        })
    }

    /// RESET#: all chips return to their power-on state; memory keeps its content.
    pub(crate) fn reset(&self) {
        for slot in &self.slots {
            lock(&slot.device).reset();
        }
        for cpu in 0..self.apics.len() {
            self.apics.with(cpu, Device::reset);
            self.control.take_init(cpu);
        }
        self.restore_a20();
        self.refresh_timers();
    }

    /// Makes the A20 gate what the chips with wires to it want.
    pub(crate) fn restore_a20(&self) {
        let port92 = lock(&self.port92).wants_a20();
        let keyboard = lock(&self.keyboard).wants_a20();
        self.a20.set_a20(A20Source::Port92, port92);
        self.a20.set_a20(A20Source::KeyboardController, keyboard);
    }

    /// Asks all devices for their deadlines.
    pub(crate) fn refresh_timers(&self) {
        for (timer, slot) in self.slots.iter().enumerate() {
            let deadline = lock(&slot.device).timed().and_then(|timed| timed.deadline());
            self.timers.set(timer, deadline);
        }
        for cpu in 0..self.apics.len() {
            self.refresh_apic_timer(cpu);
        }
    }

    /// A local APIC's timer may have been set.
    pub(crate) fn refresh_apic_timer(&self, cpu: usize) {
        // While the APIC is locked: a deadline that another thread has set must not be undone.
        let timer = self.slots.len() + cpu;
        self.apics.with_deadline(cpu, |deadline| self.timers.set(timer, deadline));
    }

    /// Calls the devices whose deadlines have come, the earliest first; says whether there were any.
    pub(crate) fn fire_due(&self, now: VmTime) -> bool {
        let mut any = false;
        while let Some(timer) = self.timers.next_due(now) {
            match self.slots.get(timer) {
                Some(slot) => {
                    let mut device = lock(&slot.device);
                    let deadline = device.timed().and_then(|timed| {
                        if timed.deadline().is_some_and(|deadline| deadline <= now) {
                            timed.fire(now);
                        }
                        timed.deadline()
                    });
                    self.timers.set(timer, deadline);
                }
                None => {
                    let cpu = timer - self.slots.len();
                    self.apics.with(cpu, |apic| {
                        if let Some(timed) = apic.timed() {
                            timed.fire(now);
                        }
                    });
                    self.refresh_apic_timer(cpu);
                }
            }
            any = true;
        }
        any
    }
}
