//! From the models' registers to the kernel's structures and back. `arch/x86/include/uapi/asm/kvm.h`
//! has them; what their fields mean is in the kernel's chips.

#![allow(unsafe_code)]

use kvm_bindings::{
    kvm_ioapic_state, kvm_irqchip, kvm_lapic_state, kvm_pic_state, kvm_pit_channel_state,
    kvm_pit_state2,
};
use trivium_devices::apic::{IoApicRegisters, LapicRegisters};
use trivium_devices::pic::PicRegisters;
use trivium_devices::pit::{Pit, PitCounter};

/// The inputs of master and slave that may be level-triggered.
const ELCR_MASKS: [u8; 2] = [0xf8, 0xde];
const IOAPIC_BASE: u64 = 0xfec0_0000;
const LAPIC_ID: usize = 2;
const EXTENDED: u64 = 1 << 10;

/// A counter that awaits its control word.
const NO_MODE: u8 = 0xff;
/// States of reading and writing two bytes: the first comes next, or the second.
const FIRST: u8 = 3;
const SECOND: u8 = 4;

pub(super) fn to_pics(pics: &[PicRegisters; 2], hpet_legacy: bool) -> [kvm_irqchip; 2] {
    let [master, slave] = pics;
    // The kernel's timer sends pulses: its line is low between two of them.
    let own = if hpet_legacy { 0 } else { 1 };
    [(master, own, ELCR_MASKS[0]), (slave, 0, ELCR_MASKS[1])].map(|(pic, own, elcr_mask)| {
        let mut chip = kvm_irqchip::default();
        chip.chip.pic = to_pic(pic, own, elcr_mask);
        chip
    })
}

fn to_pic(pic: &PicRegisters, own: u8, elcr_mask: u8) -> kvm_pic_state {
    kvm_pic_state {
        last_irr: pic.lines & !own,
        irr: pic.irr,
        imr: pic.imr,
        isr: pic.isr,
        priority_add: (pic.lowest + 1) & 7,
        irq_base: pic.vector_base,
        read_reg_select: pic.read_isr.into(),
        poll: pic.poll.into(),
        special_mask: pic.special_mask.into(),
        init_state: pic.expects.saturating_sub(1),
        auto_eoi: pic.auto_eoi.into(),
        rotate_on_auto_eoi: pic.rotate_on_auto_eoi.into(),
        special_fully_nested_mode: pic.fully_nested.into(),
        init4: pic.icw4_needed.into(),
        elcr: pic.elcr,
        elcr_mask,
    }
}

pub(super) fn from_pics(chips: [&kvm_irqchip; 2], lines: u16) -> [PicRegisters; 2] {
    let [master_lines, slave_lines] = lines.to_le_bytes();
    // SAFETY: the kernel has filled the part for these chips; all parts are plain numbers.
    let [master, slave] = chips.map(|chip| unsafe { chip.chip.pic });
    [from_pic(&master, master_lines), from_pic(&slave, slave_lines)]
}

fn from_pic(pic: &kvm_pic_state, lines: u8) -> PicRegisters {
    PicRegisters {
        lines,
        irr: pic.irr,
        imr: pic.imr,
        isr: pic.isr,
        elcr: pic.elcr,
        vector_base: pic.irq_base,
        lowest: pic.priority_add.wrapping_sub(1) & 7,
        expects: if pic.init_state == 0 { 0 } else { (pic.init_state + 1) & 7 },
        // The kernel does not tell; no guest has interrupts come as exceptions.
        untouched: pic.init_state == 0 && pic.irq_base == 0,
        icw4_needed: pic.init4 != 0,
        auto_eoi: pic.auto_eoi != 0,
        rotate_on_auto_eoi: pic.rotate_on_auto_eoi != 0,
        special_mask: pic.special_mask != 0,
        fully_nested: pic.special_fully_nested_mode != 0,
        read_isr: pic.read_reg_select != 0,
        poll: pic.poll != 0,
    }
}

/// What an edge has brought was sent; a level that is still there is sent again unless its Remote IRR
/// says that it was.
pub(super) fn to_ioapic(ioapic: &IoApicRegisters) -> kvm_irqchip {
    let mut state = kvm_ioapic_state {
        base_address: IOAPIC_BASE,
        ioregsel: ioapic.select.into(),
        id: ioapic.id.into(),
        irr: ioapic.asserted & ioapic.level_triggered(),
        ..Default::default()
    };
    for (to, bits) in state.redirtbl.iter_mut().zip(ioapic.entries) {
        to.bits = bits;
    }
    let mut chip = kvm_irqchip::default();
    chip.chip.ioapic = state;
    chip
}

pub(super) fn from_ioapic(chip: &kvm_irqchip, asserted: u32) -> IoApicRegisters {
    // SAFETY: the kernel has filled the part for this chip; all parts are plain numbers.
    let state = unsafe { chip.chip.ioapic };
    // SAFETY: as above.
    let entries = state.redirtbl.map(|entry| unsafe { entry.bits });
    IoApicRegisters { select: state.ioregsel as u8, id: state.id as u8, entries, asserted }
}

/// Registers at every 16 bytes. The ID is in the highest byte in both modes, unless another format is
/// asked for (KVM_CAP_X2APIC_API), which nobody does.
pub(super) fn to_lapic(registers: &LapicRegisters) -> kvm_lapic_state {
    let mut page = registers.page;
    if registers.base & EXTENDED != 0 {
        page[LAPIC_ID] <<= 24;
    }
    let mut lapic = kvm_lapic_state::default();
    for (slot, value) in lapic.regs.chunks_exact_mut(16).zip(page) {
        for (to, from) in slot.iter_mut().zip(value.to_le_bytes()) {
            *to = from as i8;
        }
    }
    lapic
}

pub(super) fn from_lapic(lapic: &kvm_lapic_state, base: u64, tsc_deadline: u64) -> LapicRegisters {
    let mut page = [0; 64];
    for (value, slot) in page.iter_mut().zip(lapic.regs.chunks_exact(16)) {
        *value = u32::from_le_bytes([slot[0], slot[1], slot[2], slot[3]].map(|byte| byte as u8));
    }
    if base & EXTENDED != 0 {
        page[LAPIC_ID] >>= 24;
    }
    LapicRegisters { base, page, tsc_deadline }
}

pub(super) fn to_pit(counters: &[PitCounter; 3], now: i64) -> kvm_pit_state2 {
    kvm_pit_state2 {
        channels: counters.each_ref().map(|counter| to_channel(counter, now)),
        ..Default::default()
    }
}

fn to_channel(counter: &PitCounter, now: i64) -> kvm_pit_channel_state {
    let rw_mode = counter.control >> 4 & 3;
    let second = |second| if rw_mode == FIRST && second { SECOND } else { rw_mode };
    let mode = match (counter.elapsed, counter.control & 0xf) {
        (None, 0) => NO_MODE,
        (_, control) if control & 4 != 0 => control >> 1 & 3,
        (_, control) => control >> 1 & 7,
    };
    kvm_pit_channel_state {
        count: if counter.count == 0 { 0x1_0000 } else { counter.count.into() },
        latched_count: counter.latched_count.unwrap_or(0),
        count_latched: counter.latched_count.map_or(0, |_| second(counter.read_msb)),
        status_latched: counter.latched_status.is_some().into(),
        status: counter.latched_status.unwrap_or(0),
        read_state: second(counter.read_msb && counter.latched_count.is_none()),
        write_state: second(counter.first_byte.is_some()),
        write_latch: counter.first_byte.unwrap_or(0),
        rw_mode,
        mode,
        bcd: counter.control & 1,
        gate: counter.gate.into(),
        count_load_time: now.saturating_sub(nanos(counter.elapsed.unwrap_or(0))),
    }
}

pub(super) fn from_pit(pit: &kvm_pit_state2, now: i64) -> [PitCounter; 3] {
    pit.channels.each_ref().map(|channel| from_channel(channel, now))
}

fn from_channel(channel: &kvm_pit_channel_state, now: i64) -> PitCounter {
    let untouched = channel.mode == NO_MODE;
    let rw = if channel.rw_mode & 3 == 0 { FIRST } else { channel.rw_mode & 3 };
    let mode = if untouched { 0 } else { channel.mode & 7 };
    let since = now.saturating_sub(channel.count_load_time);
    let read_msb = match channel.count_latched {
        0 => channel.read_state == SECOND,
        state => state == SECOND,
    };
    PitCounter {
        control: rw << 4 | mode << 1 | channel.bcd & 1,
        count: (channel.count & 0xffff) as u16,
        elapsed: (!untouched).then(|| pulses(since)),
        gate: channel.gate != 0,
        first_byte: (channel.write_state == SECOND).then_some(channel.write_latch),
        read_msb,
        latched_count: (channel.count_latched != 0).then_some(channel.latched_count),
        latched_status: (channel.status_latched != 0).then_some(channel.status),
    }
}

/// The time of clock pulses, in nanoseconds.
fn nanos(pulses: u64) -> i64 {
    let nanos = u128::from(pulses) * 1_000_000_000 / u128::from(Pit::HERTZ);
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

/// The clock pulses in some nanoseconds.
fn pulses(nanos: i64) -> u64 {
    let nanos = u128::from(nanos.max(0).unsigned_abs());
    u64::try_from(nanos * u128::from(Pit::HERTZ) / 1_000_000_000).unwrap_or(u64::MAX)
}
