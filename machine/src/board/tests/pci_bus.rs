//! What the PCI functions do to the board: ports that move, shadow RAM, SMRAM, SMI#.

use super::*;

/// PIIX4 power management at device 1, function 3.
const PM: (u32, u32) = (1, 3);

impl Bench {
    /// Writes a double word of configuration space.
    fn configure(&self, (device, function): (u32, u32), offset: u32, value: u32) {
        self.config(device, function, offset);
        self.bus().pio_write(0xcfc, 4, value);
    }

    fn inb(&self, port: u16) -> u32 {
        self.bus().pio_read(port, 1)
    }

    fn byte(&self, gpa: u64) -> u8 {
        let mut byte = [0];
        self.parts.memory.read(GuestPhysAddr(gpa), &mut byte).unwrap();
        byte[0]
    }
}

#[test]
fn ports_follow_base_address_registers_while_the_guest_runs() {
    let bench = bench();
    bench.configure(PM, 0x40, 0xb000);
    bench.configure(PM, 0x80, 1);
    assert_eq!(bench.bus().pio_read(0xb034, 4), 0x7fff_bfff, "GPOREG");
    bench.configure(PM, 0x40, 0xc040);
    assert_eq!(bench.bus().pio_read(0xb034, 4), u32::MAX);
    assert_eq!(bench.bus().pio_read(0xc074, 4), 0x7fff_bfff);
    bench.configure(PM, 0x80, 0);
    assert_eq!(bench.bus().pio_read(0xc074, 4), u32::MAX);
}

#[test]
fn a_fixed_device_comes_before_a_window_in_its_way() {
    let bench = bench();
    bench.configure(PM, 0x40, 0x40);
    bench.configure(PM, 0x80, 1);
    assert_eq!(bench.bus().pio_read(0x48, 4) >> 24, 0, "nobody else's: PMTMR, of 24 bits");
    bench.bus().pio_write(0x70, 2, 0xab50);
    assert_eq!(bench.inb(0x71), 0xab, "still the real-time clock's");
}

#[test]
fn configuration_mechanism_2_reaches_the_same_functions() {
    let bench = bench();
    assert_eq!(bench.bus().pio_read(0xc000, 4), u32::MAX);
    bench.outb(0xcf8, 0x80);
    assert_eq!(bench.bus().pio_read(0xc000, 4), 0x1237_8086);
    assert_eq!(bench.bus().pio_read(0xc100, 2), 0x8086);
    bench.outb(0xcf8, 0);
    assert_eq!(bench.bus().pio_read(0xc000, 4), u32::MAX);
}

#[test]
fn a_scan_of_the_bus_leaves_a_received_master_abort_in_the_bridges_status() {
    let bench = bench();
    bench.config(7, 0, 0);
    assert_eq!(bench.bus().pio_read(0xcfc, 4), u32::MAX);
    bench.config(0, 0, 4);
    assert_eq!(bench.bus().pio_read(0xcfe, 2) >> 13 & 1, 1);
}

#[test]
fn memory_modules_answer_on_the_smbus() {
    let (parts, kick) = parts();
    let layout = ArenaLayout::new(8 << 20, 64 << 10);
    let memory = Arc::new(layout.allocate(Some(&[0x90; 64 << 10]), 1, Default::default()).unwrap());
    let parts = BoardParts { layout, memory, ..parts };
    let bench = Bench { board: PcBoard::new(&parts).unwrap(), parts, kick };
    bench.board.set_up();
    for (port, value) in [(0x704, 0xa1), (0x703, 31), (0x702, 0x48)] {
        bench.outb(port, value);
    }
    assert_eq!(bench.inb(0x700), 1, "HOST_BUSY");
    let due = bench.board.timers.refresh().unwrap();
    bench.parts.clock.set(due);
    bench.board.fire_due(due);
    assert_eq!((bench.inb(0x700), bench.inb(0x705)), (2, 2), "8 MiB");
}

#[test]
fn all_four_states_of_a_pam_register_work() {
    let bench = bench();
    let bios = 0xf_0000_u64;
    let write = |value: u8| bench.bus().mmio_write(bios, &[value]);
    write(1);
    assert_eq!(bench.byte(bios), 0x90, "reads and writes go to PCI: the ROM");
    bench.configure((0, 0), 0x58, 0x2000);
    write(2);
    assert_eq!(bench.byte(bios), 0x90, "write-only: reads go to the ROM");
    bench.configure((0, 0), 0x58, 0x1000);
    assert_eq!(bench.byte(bios), 2, "read-only: what was written is in DRAM");
    write(3);
    assert_eq!(bench.byte(bios), 2);
    assert_eq!(bench.parts.memory.lookup(GuestPhysAddr(bios)), Backing::Rom(bios as usize));
    bench.configure((0, 0), 0x58, 0x3000);
    assert_eq!(bench.parts.memory.lookup(GuestPhysAddr(bios)), Backing::Ram(bios as usize));
}

#[test]
fn smram_is_open_while_d_open_is_set() {
    let bench = bench();
    let lookup = || bench.parts.memory.lookup(GuestPhysAddr(0xa_8000));
    bench.configure((0, 0), 0x70, 0x4a << 16);
    assert_eq!(lookup(), Backing::Ram(0xa_8000));
    bench.configure((0, 0), 0x70, 0x1a << 16);
    assert_eq!(lookup(), Backing::Mmio { id: 0 });
    bench.configure((0, 0), 0x70, 0x4a << 16);
    assert_eq!(lookup(), Backing::Mmio { id: 0 }, "locked");
    for slot in &bench.board.slots {
        slot.device.lock().unwrap().reset();
    }
    bench.configure((0, 0), 0x70, 0x4a << 16);
    assert_eq!(lookup(), Backing::Ram(0xa_8000));
}

#[test]
fn a_write_to_apmc_is_an_smi_to_the_processor_where_firmware_has_enabled_it() {
    let bench = bench();
    bench.board.set_up();
    bench.outb(0xb2, 0);
    assert!(!bench.bus().take_smi());
    bench.configure(PM, 0x58, 1 << 25);
    bench.bus().pio_write(0x628, 4, 1);
    bench.outb(0xb3, 0x12);
    bench.outb(0xb2, 0x34);
    assert!(bench.bus().take_smi() && !bench.bus().take_smi());
    assert_eq!((bench.inb(0xb2), bench.inb(0xb3)), (0x34, 0x12));
}

#[test]
fn the_real_time_clocks_interrupt_sets_rtc_sts() {
    let bench = bench();
    bench.board.set_up();
    // An alarm each second: alarm bytes that match anything, and AIE.
    for (register, value) in [(1, 0xc0), (3, 0xc0), (5, 0xc0), (0x0b, 0x22)] {
        bench.outb(0x70, register);
        bench.outb(0x71, value);
    }
    assert_eq!(bench.bus().pio_read(0x600, 2) >> 10 & 1, 0);
    let due = bench.board.timers.refresh().unwrap();
    bench.parts.clock.set(due);
    bench.board.fire_due(due);
    assert_eq!(bench.bus().pio_read(0x600, 2) >> 10 & 1, 1);
}
