//! The board without a processor: what answers where, and how interrupts travel.

mod pci_bus;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trivium_chipset::{AccessWidth, Clock, VmTime};
use trivium_cpu::{CpuBus, MsrFault, ResetKind};
use trivium_devices::apic::{ApicGeneration, LapicConfig};
use trivium_devices::i8042::{Key, MouseButtons};
use trivium_memory::{Backing, GuestPhysAddr};

use super::pc::{BoardParts, PcBoard};
use super::{IsaParts, VcpuBus};
use crate::config::{Board, ClockMode, ConfigError};
use crate::control::Request;
use crate::control::tests::{CountingKick, control};
use crate::handle::Message;
use crate::layout::ArenaLayout;
use crate::rtc::RtcParts;
use crate::time::{APIC_HZ, MachineClock, TSC_HZ};

struct Bench {
    parts: BoardParts,
    board: PcBoard,
    kick: Arc<CountingKick>,
}

fn parts() -> (BoardParts, Arc<CountingKick>) {
    let (control, kick) = control(true);
    let layout = ArenaLayout::new(4 << 20, 64 << 10);
    let apic = LapicConfig {
        present: true,
        id: 0,
        bootstrap: true,
        timer_hz: APIC_HZ,
        tsc_hz: TSC_HZ,
        physical_bits: 40,
        x2apic: true,
        tsc_deadline: true,
        generation: ApicGeneration::Xapic,
    };
    let parts = BoardParts {
        board: Board::Pc,
        memory: Arc::new(layout.allocate(Some(&[0x90; 64 << 10]), 1, Default::default()).unwrap()),
        layout,
        clock: Arc::new(MachineClock::new(ClockMode::Icount { sleep: false })),
        control,
        trace: Arc::default(),
        rtc: RtcParts::default(),
        apics: vec![apic],
        serial: [const { None }; 4],
        serial_baud: [false; 4],
        serial_input: Arc::default(),
        debug_console: None,
        debug_exit_port: Some(0x501),
        isa: IsaParts::default(),
        seat: Arc::default(),
        bells: Arc::default(),
    };
    (parts, kick)
}

fn bench() -> Bench {
    bench_on(Board::Pc)
}

fn bench_on(board: Board) -> Bench {
    let (parts, kick) = parts();
    let parts = BoardParts { board, ..parts };
    let board = PcBoard::new(&parts).unwrap();
    Bench { parts, board, kick }
}

impl Bench {
    fn bus(&self) -> VcpuBus<'_> {
        VcpuBus { board: &self.board, cpu: 0 }
    }

    fn outb(&self, port: u16, value: u8) {
        self.bus().pio_write(port, 1, value.into());
    }

    fn config(&self, device: u32, function: u32, offset: u32) {
        self.bus().pio_write(0xcf8, 4, 1 << 31 | device << 11 | function << 8 | offset);
    }

    /// The 8259As with vectors from 20h on and nothing masked.
    fn set_up_pic(&self) {
        for (port, value) in
            [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0xa0, 0x11), (0xa1, 0x28)]
        {
            self.outb(port, value);
        }
        for (port, value) in [(0xa1, 2), (0xa1, 1), (0x21, 0), (0xa1, 0)] {
            self.outb(port, value);
        }
    }
}

#[test]
fn an_isa_board_has_the_chips_of_an_at_alone() {
    let bench = bench_on(Board::IsaPc);
    bench.config(0, 0, 0);
    assert_eq!(bench.bus().pio_read(0xcfc, 4), 0xffff_ffff, "no PCI");
    for port in [0xcf9, 0xb2, 0x4d0] {
        assert_eq!(bench.bus().pio_read(port, 1), 0xff, "{port:x}");
    }
    for address in [0xfec0_0000, 0xfed0_0000] {
        let mut data = [0; 4];
        bench.bus().mmio_read(address, &mut data);
        assert_eq!(data, [0xff; 4], "{address:x}");
    }
    let backing = |gpa| bench.parts.memory.lookup(GuestPhysAddr(gpa));
    assert_eq!(backing(0xf_fff0), Backing::Rom((4 << 20) + 0xfff0));
    bench.set_up_pic();
    bench.board.router.line(4, 1).set(true);
    bench.board.apics.with(0, |apic| apic.set_virtual_wire());
    assert_eq!(bench.bus().acknowledge_interrupt(), Some(0x24));
    bench.board.reset();
}

#[test]
fn nobody_drives_the_bus_to_all_ones() {
    let bench = bench();
    assert_eq!(bench.bus().pio_read(0x1234, 1), 0xff);
    assert_eq!(bench.bus().pio_read(0x1234, 2), 0xffff);
    assert_eq!(bench.bus().pio_read(0xfff0, 4), 0xffff_ffff);
    // Addresses wrap to the first DMA controller's, which are zero.
    assert_eq!(bench.bus().pio_read(0xffff, 4), 0xff);
    let mut data = [0; 8];
    bench.bus().mmio_read(0xa_0000, &mut data);
    assert_eq!(data, [0xff; 8]);
    bench.bus().mmio_write(0xd000_0000, &data);
}

#[test]
fn wide_accesses_to_byte_ports_are_split() {
    let bench = bench();
    // CMOS byte 50h := ABh, by one OUT of a word to address and data port.
    bench.bus().pio_write(0x70, 2, 0xab50);
    assert_eq!(bench.bus().pio_read(0x71, 1), 0xab);
    // 71h is the RTC's, 72h nobody's.
    assert_eq!(bench.bus().pio_read(0x71, 2), 0xffab);
    // 6Eh and 6Fh are nobody's, 70h cannot be read.
    assert_eq!(bench.bus().pio_read(0x6e, 4), 0xabff_ffff);
    assert_eq!(bench.bus().pio_read(0x91, 2), 0x00ff, "92h is port 92h");
}

#[test]
fn pci_functions_are_found_and_the_reset_port_lies_among_the_bus_ports() {
    let bench = bench();
    for (device, function, id) in [(0, 0, 0x1237_8086), (1, 0, 0x7000_8086), (1, 3, 0x7113_8086)] {
        bench.config(device, function, 0);
        assert_eq!(bench.bus().pio_read(0xcfc, 4), id);
    }
    assert_eq!(bench.board.control.take_request(), None);
    bench.outb(0xcf9, 2);
    bench.outb(0xcf9, 6);
    assert_eq!(bench.board.control.take_request(), Some(Request::Reset));
}

#[test]
fn power_management_answers_where_firmware_puts_it_and_switches_off() {
    let bench = bench();
    assert_eq!(bench.bus().pio_read(0x604, 2), 0xffff);
    bench.board.set_up();
    assert_eq!(bench.bus().pio_read(0x604, 2), 0);
    bench.parts.clock.retire(1_000_000_000);
    assert_eq!(bench.bus().pio_read(0x608, 4), 3_579_545, "the PM timer after a second");
    bench.bus().pio_write(0x604, 2, 1 << 13);
    assert_eq!(bench.board.control.take_request(), Some(Request::PowerOff));
}

#[test]
fn debug_exit_ends_the_run_and_its_ports_must_be_free() {
    let bench = bench();
    bench.bus().pio_write(0x501, 1, 0x10);
    assert_eq!(bench.board.control.take_request(), Some(Request::Exit(0x21)));
    let (mut parts, _) = parts();
    parts.debug_exit_port = Some(0x60);
    let taken = PcBoard::new(&parts).err();
    assert_eq!(taken, Some(ConfigError::PortsTaken { port: 0x60, last: 0x63, owner: "i8042" }));
    parts.debug_exit_port = Some(0xfffe);
    assert!(PcBoard::new(&parts).is_err());
}

#[test]
fn a_timers_tick_goes_through_8259a_and_lint0_to_the_processor() {
    let bench = bench();
    let bus = bench.bus();
    bench.set_up_pic();
    bus.mmio_write(0xfee0_00f0, &0x1ff_u32.to_le_bytes());
    bus.mmio_write(0xfee0_0350, &0x700_u32.to_le_bytes());
    // Counter 0, mode 2, 1193 pulses: a millisecond.
    for (port, value) in [(0x43, 0x34), (0x40, 0xa9), (0x40, 0x04)] {
        bench.outb(port, value);
    }
    // Mode 2 sets OUT when it is chosen, which is an edge.
    assert_eq!(bus.acknowledge_interrupt(), Some(0x20));
    bench.outb(0x20, 0x20);
    let due = bench.board.timers.refresh().unwrap();
    let millisecond = VmTime::from_nanos(1_000_000);
    assert!(due > VmTime::ZERO && due < VmTime::from_nanos(1_010_000), "{due}");
    bench.parts.clock.set(millisecond);
    assert!(!bus.interrupt_pending());
    bench.parts.clock.set(due);
    let attends = bench.kick.attends.load(Ordering::Relaxed);
    bench.board.fire_due(due);
    assert!(bus.interrupt_pending());
    assert!(bench.kick.attends.load(Ordering::Relaxed) > attends);
    assert_eq!(bus.acknowledge_interrupt(), Some(0x20));
    assert!(!bus.interrupt_pending());
    assert!(bench.board.timers.refresh().unwrap() > due);
}

/// Writes an entry of the I/O APIC's redirection table.
fn redirect(bus: &VcpuBus<'_>, pin: u32, low: u32) {
    bus.mmio_write(0xfec0_0000, &(0x10 + pin * 2).to_le_bytes());
    bus.mmio_write(0xfec0_0010, &low.to_le_bytes());
}

#[test]
fn a_level_comes_again_after_its_end_while_it_lasts() {
    let bench = bench();
    let bus = bench.bus();
    assert_eq!(bus.msr_write(0x1b, 0xfee0_0d00), Some(Ok(())), "x2APIC mode");
    assert_eq!(bus.msr_write(0x80f, 0x1ff), Some(Ok(())));
    redirect(&bus, 16, 0x8041);
    let line = bench.board.router.line(16, 0);
    line.set(true);
    assert_eq!(bus.acknowledge_interrupt(), Some(0x41));
    assert!(!bus.interrupt_pending());
    assert_eq!(bus.msr_write(0x80b, 0), Some(Ok(())));
    assert!(bus.interrupt_pending());
    line.set(false);
    assert_eq!(bus.acknowledge_interrupt(), Some(0x41));
    bus.msr_write(0x80b, 0);
    assert!(!bus.interrupt_pending());
    assert_eq!(bus.acknowledge_interrupt(), None);
}

#[test]
fn an_edge_at_an_edge_triggered_pin_is_one_interrupt_and_tpr_holds_it_back() {
    let bench = bench();
    let bus = bench.bus();
    bus.mmio_write(0xfee0_00f0, &0x1ff_u32.to_le_bytes());
    redirect(&bus, 20, 0x0041);
    bus.set_cr8(4);
    bench.board.router.line(20, 0).edge();
    assert!(!bus.interrupt_pending());
    assert_eq!(bus.cr8(), 4);
    bus.set_cr8(3);
    assert_eq!(bus.acknowledge_interrupt(), Some(0x41));
    let mut isr = [0; 4];
    bus.mmio_read(0xfee0_0120, &mut isr);
    assert_eq!(u32::from_le_bytes(isr), 1 << 1);
}

#[test]
fn the_apic_timer_has_its_deadline_in_the_table() {
    let bench = bench();
    let bus = bench.bus();
    bus.msr_write(0x1b, 0xfee0_0d00);
    for (msr, value) in [(0x80f, 0x1ff), (0x832, 0x30), (0x83e, 0xb), (0x838, 5000)] {
        assert_eq!(bus.msr_write(msr, value), Some(Ok(())), "{msr:x}");
    }
    let due = VmTime::from_nanos(5000);
    assert_eq!(bench.board.timers.refresh(), Some(due));
    bench.parts.clock.set(due);
    bench.board.fire_due(due);
    assert_eq!(bus.acknowledge_interrupt(), Some(0x30));
    assert_eq!(bench.board.timers.refresh(), None);
    // TSC deadline.
    bus.msr_write(0x832, 2 << 17 | 0x31);
    bus.msr_write(0x6e0, 7000);
    assert_eq!(bench.board.timers.refresh(), Some(VmTime::from_nanos(7000)));
}

#[test]
fn msrs_of_others_are_not_the_platforms() {
    let bench = bench();
    assert_eq!(bench.bus().msr_read(0x10), None);
    assert_eq!(bench.bus().msr_write(0xc000_0080, 0), None);
    assert_eq!(bench.bus().msr_read(0x802), Some(Err(MsrFault)), "xAPIC mode");
    assert_eq!(bench.bus().msr_read(0x1b), Some(Ok(0xfee0_0900)));
}

#[test]
fn init_and_startup_messages_reach_the_processor_in_this_order() {
    let bench = bench();
    let bus = bench.bus();
    // INIT, then start-up with page 9Ah, to itself by its ID.
    for icr in [0x0000_4500_u32, 0x0000_469a] {
        bus.mmio_write(0xfee0_0300, &icr.to_le_bytes());
    }
    assert_eq!(bus.take_reset(), Some(ResetKind::Init));
    assert_eq!(bus.take_reset(), Some(ResetKind::Sipi(0x9a)));
    assert_eq!(bus.take_reset(), None);
    // NMI.
    bus.mmio_write(0xfee0_0300, &0x0000_4400_u32.to_le_bytes());
    assert!(bus.take_nmi() && !bus.take_nmi());
    // SMI.
    bus.mmio_write(0xfee0_0300, &0x0000_4200_u32.to_le_bytes());
    assert!(bus.take_smi() && !bus.take_smi());
}

#[test]
fn ferr_is_irq_13() {
    let bench = bench();
    let bus = bench.bus();
    bench.set_up_pic();
    bus.mmio_write(0xfee0_00f0, &0x1ff_u32.to_le_bytes());
    bus.mmio_write(0xfee0_0350, &0x700_u32.to_le_bytes());
    bus.set_ferr(true);
    assert_eq!(bus.acknowledge_interrupt(), Some(0x2d));
    bench.outb(0xf0, 0);
}

#[test]
fn keys_and_the_mouse_reach_the_guest_and_a_held_key_repeats() {
    let bench = bench();
    bench.set_up_pic();
    let bus = bench.bus();
    bus.mmio_write(0xfee0_00f0, &0x1ff_u32.to_le_bytes());
    bus.mmio_write(0xfee0_0350, &0x700_u32.to_le_bytes());
    for (port, value) in [(0x64, 0x60), (0x60, 0x43), (0x64, 0xd4), (0x60, 0xf4)] {
        bench.outb(port, value);
    }
    let acknowledge = || (bus.acknowledge_interrupt(), bus.pio_read(0x60, 1));
    assert_eq!(acknowledge(), (Some(0x2c), 0xfa), "IRQ 12: the mouse is enabled");
    bench.outb(0xa0, 0x20);
    bench.outb(0x20, 0x20);
    bench.board.handle(Message::Key(Key::A, true));
    assert_eq!(acknowledge(), (Some(0x21), 0x1e), "IRQ 1");
    bench.outb(0x20, 0x20);
    let later = VmTime::from_nanos(501_000_000);
    assert!(bench.board.timers.earliest().is_some_and(|deadline| deadline <= later));
    bench.parts.clock.set(later);
    bench.board.fire_due(later);
    assert_eq!(acknowledge(), (Some(0x21), 0x1e), "typematic");
    bench.outb(0x20, 0x20);
    bench.board.handle(Message::Mouse(3, 0, 0, MouseButtons::LEFT));
    assert_eq!(acknowledge(), (Some(0x2c), 0x09), "IRQ 12");
}

#[test]
fn port_92h_and_the_8042_open_the_a20_gate() {
    let bench = bench();
    let memory = &bench.parts.memory;
    assert!(memory.a20());
    bench.outb(0x92, 2);
    // The 8042's output port: A20 off, no reset.
    bench.outb(0x64, 0xd1);
    bench.outb(0x60, 0xdd);
    assert!(memory.a20(), "port 92h still wants it");
    bench.outb(0x92, 0);
    assert!(!memory.a20());
    bench.board.reset();
    assert!(memory.a20());
}

#[test]
fn the_host_bridge_turns_the_bios_area_into_ram() {
    let bench = bench();
    let lookup = || bench.parts.memory.lookup(GuestPhysAddr(0xf_0000));
    assert_eq!(lookup(), Backing::Rom(4 << 20));
    bench.config(0, 0, 0x58);
    bench.bus().pio_write(0xcfd, 1, 0x30);
    assert_eq!(lookup(), Backing::Ram(0xf_0000));
    bench.board.reset();
    assert_eq!(lookup(), Backing::Rom(4 << 20));
}

#[test]
fn reset_silences_timers_and_lines() {
    let bench = bench();
    bench.set_up_pic();
    bench.outb(0x43, 0x34);
    bench.outb(0x40, 0);
    bench.outb(0x40, 0);
    assert!(bench.board.timers.refresh().is_some());
    bench.board.reset();
    assert_eq!(bench.board.timers.refresh(), None);
    assert_eq!(bench.board.pio_read(0x21, AccessWidth::Byte), 0);
}

/// The thread that serves timers asks for the deadline after it has fired, while the processor may
/// already set the next: that one must not be lost.
#[test]
fn a_timer_set_while_the_last_one_fires_is_not_lost() {
    let (mut parts, _) = parts();
    parts.clock = Arc::new(MachineClock::new(ClockMode::Real));
    let board = PcBoard::new(&parts).unwrap();
    let done = AtomicBool::new(false);
    parts.clock.start();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                board.fire_due(parts.clock.now());
            }
        });
        let bus = VcpuBus { board: &board, cpu: 0 };
        let write = |register: u64, value: u32| {
            bus.mmio_write(0xfee0_0000 + register, &value.to_le_bytes());
        };
        write(0xf0, 0x1ff);
        write(0x320, 0x40);
        let mut lost = false;
        for _ in 0..300_000 {
            write(0x380, 100);
            let start = Instant::now();
            while !bus.interrupt_pending() && !lost {
                lost = start.elapsed() > Duration::from_secs(5);
            }
            let _ = bus.acknowledge_interrupt();
            write(0xb0, 0);
        }
        done.store(true, Ordering::Relaxed);
        assert!(!lost, "a timer has not fired");
    });
}

#[test]
fn fw_cfg_and_pvpanic_answer_where_acpi_says() {
    let bench = bench();
    let bus = bench.bus();
    assert_eq!(bus.pio_read(0x505, 1), 0b111);
    bus.pio_write(0x510, 2, 0);
    let signature: Vec<_> = (0..4).map(|_| bus.pio_read(0x511, 1) as u8).collect();
    assert_eq!(signature, *b"QEMU");
    // By DMA: select item 3, the size of RAM, and read it to 2000h.
    let ram = bench.parts.memory.ram();
    for (at, value) in [(0x1000, 0x0003_000a_u32), (0x1004, 8), (0x1008, 0), (0x100c, 0x2000)] {
        ram.store(at, value.to_be());
    }
    bus.pio_write(0x518, 4, 0x1000_u32.to_be());
    assert_eq!((ram.load::<u32>(0x1000), ram.load::<u64>(0x2000)), (0, 4 << 20));
    assert_eq!(bus.pio_read(0x378, 1), 0xff, "no printer, no port");
}

#[test]
fn the_dma_controllers_reach_ram_once_the_chips_are_set_up() {
    let bench = bench();
    let ram = bench.parts.memory.ram();
    ram.store(0x1_2000, u32::from_le_bytes(*b"DMA!"));
    bench.board.set_up();
    // Memory-to-memory, from page 1 to page 1, four bytes, by a software request.
    for (port, value) in [(0x87, 1), (0x83, 1), (0x0b, 0x88), (0x0b, 0x85)] {
        bench.outb(port, value);
    }
    for (port, value) in [(0x00, 0x2000_u16), (0x01, 3), (0x02, 0x3000), (0x03, 3)] {
        value.to_le_bytes().into_iter().for_each(|byte| bench.outb(port, byte));
    }
    bench.outb(0x08, 0x01);
    bench.outb(0x09, 0x04);
    assert_eq!(ram.load::<u32>(0x1_3000), u32::from_le_bytes(*b"DMA!"));
    assert_eq!(bench.bus().pio_read(0x08, 1), 0x02, "channel 1's terminal count");
}
