//! The I/O APIC: 24 interrupt inputs, each with an entry that says which local APICs it reaches.
//! 82093AA data sheet (order number 290566); the EOI register of version 20h is that of the ICH.

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{
    BusError, BusResult, Device, Mmio, MsiMessage, MsiSink, SaveRestore, Section, StateError,
};

use super::message::{DeliveryMode, encode_msi};

/// Interrupt inputs.
pub const IOAPIC_PINS: u8 = 24;
const PINS: usize = IOAPIC_PINS as usize;

/// IOREGSEL: the index of the register that IOWIN shows.
const IOREGSEL: u64 = 0x00;
/// IOWIN: the register that is selected.
const IOWIN: u64 = 0x10;
/// EOIR: a vector written here is at its end, as if by a local APIC.
const EOIR: u64 = 0x40;

/// Indices of registers.
mod index {
    pub const IOAPICID: u8 = 0x00;
    pub const IOAPICVER: u8 = 0x01;
    pub const IOAPICARB: u8 = 0x02;
    pub const IOREDTBL: u8 = 0x10;
}

/// IOAPICVER: version 20h, and the number of the last entry.
const VERSION_REGISTER: u32 = 0x20 | (IOAPIC_PINS as u32 - 1) << 16;

bitflags! {
    /// An entry of the redirection table. Delivery status always reads zero: messages leave at
    /// once.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Entry: u64 {
        const VECTOR = 0xff;
        const DELIVERY_MODE = 7 << 8;
        const LOGICAL = 1 << 11;
        /// Input polarity. Without effect: lines carry assertion, not voltage.
        const ACTIVE_LOW = 1 << 13;
        const REMOTE_IRR = 1 << 14;
        const LEVEL = 1 << 15;
        const MASKED = 1 << 16;
        const DESTINATION = 0xff << 56;
    }
}

impl Entry {
    const RESET: Self = Self::MASKED;

    fn vector(self) -> u8 {
        (self & Self::VECTOR).bits() as u8
    }

    fn destination(self) -> u8 {
        (self.bits() >> 56) as u8
    }

    /// The entry after a write of half of it by software.
    fn written(self, high: bool, value: u32) -> Self {
        let (shift, read_only) = if high { (32, 0) } else { (0, Self::REMOTE_IRR.bits()) };
        let half = 0xffff_ffff << shift & !read_only;
        let bits = self.bits() & !half | u64::from(value) << shift & half;
        let mut new = Self::from_bits_truncate(bits);
        if !new.contains(Self::LEVEL) {
            new.remove(Self::REMOTE_IRR);
        }
        new
    }
}

/// The I/O APIC, at FEC00000h on the board `pc`.
pub struct IoApic {
    select: u8,
    id: u8,
    entries: [Entry; PINS],
    /// Inputs that are asserted, one bit each.
    asserted: u32,
    messages: Arc<dyn MsiSink>,
}

impl IoApic {
    /// An I/O APIC after reset that sends its messages to `messages`. The sink is called with the
    /// I/O APIC locked, and must not call back.
    #[must_use]
    pub fn new(messages: Arc<dyn MsiSink>) -> Self {
        Self { select: 0, id: 0, entries: [Entry::RESET; PINS], asserted: 0, messages }
    }

    /// Input `pin` (0 to 23) is asserted or not; what its polarity is on the wire is the board's
    /// business. Repeating the present state changes nothing.
    pub fn set_pin(&mut self, pin: u8, asserted: bool) {
        if pin >= IOAPIC_PINS {
            return;
        }
        let bit = 1 << pin;
        let rises = asserted && self.asserted & bit == 0;
        self.asserted = if asserted { self.asserted | bit } else { self.asserted & !bit };
        if rises {
            self.serve(pin, true);
        }
    }

    /// A local APIC has ended the level-triggered interrupt of `vector` (the EOI message).
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for pin in 0..IOAPIC_PINS {
            let Some(entry) = self.entries.get_mut(usize::from(pin)) else { return };
            if entry.contains(Entry::LEVEL | Entry::REMOTE_IRR) && entry.vector() == vector {
                entry.remove(Entry::REMOTE_IRR);
                self.serve(pin, false);
            }
        }
    }

    /// Sends the message of an input that needs it: on its rise, or as long as a level is asserted
    /// and not yet accepted. What happens at a masked input is not held pending.
    fn serve(&mut self, pin: u8, rises: bool) {
        let asserted = self.asserted >> pin & 1 != 0;
        let Some(entry) = self.entries.get_mut(usize::from(pin)) else { return };
        let level = entry.contains(Entry::LEVEL);
        let wants = if level { asserted && !entry.contains(Entry::REMOTE_IRR) } else { rises };
        if !wants || entry.contains(Entry::MASKED) {
            return;
        }
        let mode = (*entry & Entry::DELIVERY_MODE).bits() >> 8;
        let Some(delivery) = DeliveryMode::from_bits(mode as u32) else { return };
        // Only fixed and lowest-priority interrupts have an end that would clear Remote IRR; the
        // others are edges, whatever the trigger mode says.
        let level = level && matches!(delivery, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
        if level {
            entry.insert(Entry::REMOTE_IRR);
        } else if !rises {
            return;
        }
        let entry = *entry;
        let logical = entry.contains(Entry::LOGICAL);
        let message = encode_msi(entry.destination(), logical, delivery, entry.vector(), level);
        self.messages.deliver(message);
    }

    /// The register that IOREGSEL selects; reserved ones read zero.
    fn read_register(&self) -> u32 {
        match self.select {
            index::IOAPICID | index::IOAPICARB => u32::from(self.id) << 24,
            index::IOAPICVER => VERSION_REGISTER,
            _ => match self.selected_entry() {
                Some((pin, true)) => (self.entry(pin).bits() >> 32) as u32,
                Some((pin, false)) => self.entry(pin).bits() as u32,
                None => 0,
            },
        }
    }

    fn write_register(&mut self, value: u32) {
        if self.select == index::IOAPICID {
            self.id = (value >> 24 & 0x0f) as u8;
        }
        let Some((pin, high)) = self.selected_entry() else { return };
        let written = self.entry(pin).written(high, value);
        if let Some(entry) = self.entries.get_mut(usize::from(pin)) {
            *entry = written;
        }
        if !high {
            self.serve(pin, false);
        }
    }

    /// The entry that IOREGSEL selects, and whether its high half.
    fn selected_entry(&self) -> Option<(u8, bool)> {
        let half = self.select.checked_sub(index::IOREDTBL)?;
        (half < IOAPIC_PINS * 2).then_some((half / 2, half % 2 != 0))
    }

    fn entry(&self, pin: u8) -> Entry {
        self.entries.get(usize::from(pin)).copied().unwrap_or(Entry::RESET)
    }
}

impl Mmio for IoApic {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> BusResult<()> {
        let register = match offset {
            IOREGSEL => self.select.into(),
            IOWIN => self.read_register(),
            EOIR => 0u32,
            _ => return Err(BusError::NoRegister),
        };
        let bytes = register.to_le_bytes();
        data.copy_from_slice(bytes.get(..data.len()).ok_or(BusError::Width)?);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> BusResult<()> {
        match (offset, data) {
            (IOREGSEL, [select] | [select, _] | [select, _, _, _]) => self.select = *select,
            (IOWIN, &[a, b, c, d]) => self.write_register(u32::from_le_bytes([a, b, c, d])),
            (EOIR, [vector] | [vector, _, _, _]) => self.end_of_interrupt(*vector),
            (IOREGSEL | IOWIN | EOIR, _) => return Err(BusError::Width),
            _ => return Err(BusError::NoRegister),
        }
        Ok(())
    }
}

impl Device for IoApic {
    fn mmio(&mut self) -> Option<&mut dyn Mmio> {
        Some(self)
    }

    /// The inputs keep their levels: those are the devices' doing.
    fn reset(&mut self) {
        self.select = 0;
        self.id = 0;
        self.entries = [Entry::RESET; PINS];
    }
}

/// The registers as plain numbers, for another implementation of the chip that takes over or gives
/// back: the host's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IoApicRegisters {
    /// IOREGSEL.
    pub select: u8,
    /// The ID, 0 to 15.
    pub id: u8,
    /// The redirection table.
    pub entries: [u64; PINS],
    /// The inputs that are asserted, one bit each.
    pub asserted: u32,
}

impl IoApicRegisters {
    /// The inputs whose entries are level-triggered, one bit each.
    #[must_use]
    pub fn level_triggered(&self) -> u32 {
        let entries = (0..).zip(self.entries);
        entries
            .fold(0, |pins, (pin, entry)| pins | u32::from(entry & Entry::LEVEL.bits() != 0) << pin)
    }
}

impl IoApic {
    /// All registers.
    #[must_use]
    pub fn registers(&self) -> IoApicRegisters {
        let &Self { select, id, entries, asserted, messages: _ } = self;
        IoApicRegisters { select, id, entries: entries.map(|entry| entry.bits()), asserted }
    }

    /// Takes over from another implementation, which has sent what was to be sent.
    pub fn set_registers(&mut self, registers: &IoApicRegisters) {
        self.select = registers.select;
        self.id = registers.id & 0x0f;
        self.entries = registers.entries.map(Entry::from_bits_truncate);
        self.asserted = registers.asserted & ((1 << PINS) - 1);
    }

    /// The message of each input that is not masked.
    #[must_use]
    pub fn routes(&self) -> [Option<MsiMessage>; PINS] {
        self.entries.map(|entry| {
            let mode = (entry & Entry::DELIVERY_MODE).bits() >> 8;
            let delivery = DeliveryMode::from_bits(mode as u32)?;
            let logical = entry.contains(Entry::LOGICAL);
            let level = entry.contains(Entry::LEVEL);
            let message = encode_msi(entry.destination(), logical, delivery, entry.vector(), level);
            (!entry.contains(Entry::MASKED)).then_some(message)
        })
    }
}

impl SaveRestore for IoApic {
    fn save(&self) -> Section {
        save_restore::save(self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        save_restore::restore(self, section)
    }
}

mod save_restore {
    use std::sync::Arc;

    use super::{Entry, IoApic, PINS, Section, StateError};

    const VERSION: u32 = 1;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Saved {
        select: u8,
        id: u8,
        entries: [u64; PINS],
        asserted: u32,
    }

    pub fn save(ioapic: &IoApic) -> Section {
        let &IoApic { select, id, entries, asserted, messages: _ } = ioapic;
        Section::encode(
            VERSION,
            &Saved { select, id, entries: entries.map(|e| e.bits()), asserted },
        )
    }

    pub fn restore(ioapic: &mut IoApic, section: &Section) -> Result<(), StateError> {
        let Saved { select, id, entries, asserted } = section.decode(VERSION)?;
        let known = entries.iter().all(|bits| Entry::from_bits(*bits).is_some());
        if !known || id > 0x0f || asserted >> PINS != 0 {
            return Err(StateError::Impossible("Reserved I/O APIC bits"));
        }
        *ioapic = IoApic {
            select,
            id,
            entries: entries.map(Entry::from_bits_truncate),
            asserted,
            messages: Arc::clone(&ioapic.messages),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::test_support::{Fixture, check, mmio_steps};
    use proptest::prelude::*;

    #[derive(Default)]
    struct Messages(Mutex<Vec<MsiMessage>>);

    impl MsiSink for Messages {
        fn deliver(&self, message: MsiMessage) {
            self.0.lock().unwrap().push(message);
        }
    }

    struct Bench {
        ioapic: IoApic,
        messages: Arc<Messages>,
    }

    fn bench() -> Bench {
        let messages = Arc::<Messages>::default();
        Bench { ioapic: IoApic::new(messages.clone()), messages }
    }

    impl Bench {
        fn get(&mut self, index: u8) -> u32 {
            let mut data = [0; 4];
            Mmio::write(&mut self.ioapic, IOREGSEL, &[index, 0, 0, 0]).unwrap();
            Mmio::read(&mut self.ioapic, IOWIN, &mut data).unwrap();
            u32::from_le_bytes(data)
        }

        fn put(&mut self, index: u8, value: u32) {
            Mmio::write(&mut self.ioapic, IOREGSEL, &[index]).unwrap();
            Mmio::write(&mut self.ioapic, IOWIN, &value.to_le_bytes()).unwrap();
        }

        /// The messages sent since this was last asked, as (address, data).
        fn sent(&mut self) -> Vec<(u64, u32)> {
            let sent = std::mem::take(&mut *self.messages.0.lock().unwrap());
            sent.into_iter().map(|message| (message.address, message.data)).collect()
        }
    }

    #[test]
    fn registers_go_through_plain_numbers_without_a_message() {
        let mut bench = bench();
        bench.put(0x10 + 2 * 16, 0xa031);
        bench.put(0x10 + 2 * 4, 0x0041);
        bench.put(0, 0x0300_0000);
        bench.ioapic.set_pin(16, true);
        bench.ioapic.set_pin(4, true);
        assert_eq!(bench.sent().len(), 2);
        let registers = bench.ioapic.registers();
        assert_eq!((registers.id, registers.level_triggered()), (3, 1 << 16));
        assert_eq!((registers.asserted, registers.entries[16]), (1 << 16 | 1 << 4, 0xe031));
        let mut other = self::bench();
        other.ioapic.set_registers(&registers);
        assert_eq!(other.sent(), []);
        assert_eq!(other.ioapic.registers(), registers);
        other.ioapic.end_of_interrupt(0x31);
        assert_eq!(other.sent().len(), 1, "the level is still there");
        let routes = other.ioapic.routes();
        assert_eq!(routes[4].map(|message| message.data & 0xff), Some(0x41));
        assert_eq!(routes.iter().flatten().count(), 2);
    }

    #[test]
    fn registers_after_reset() {
        let mut bench = bench();
        assert_eq!(bench.get(0), 0);
        assert_eq!(bench.get(1), 0x0017_0020);
        for pin in 0..24 {
            assert_eq!(bench.get(0x10 + 2 * pin), 0x0001_0000, "masked");
            assert_eq!(bench.get(0x11 + 2 * pin), 0);
        }
        bench.put(0, 0xff00_0000);
        assert_eq!((bench.get(0), bench.get(2)), (0x0f00_0000, 0x0f00_0000));
    }

    #[test]
    fn an_edge_sends_one_message() {
        let mut bench = bench();
        bench.put(0x10 + 2 * 4 + 1, 0x0300_0000);
        bench.put(0x10 + 2 * 4, 0x0000_0831);
        bench.ioapic.set_pin(4, true);
        bench.ioapic.set_pin(4, true);
        assert_eq!(bench.sent(), [(0xfee0_3004, 0x4031)]);
        bench.ioapic.set_pin(4, false);
        bench.ioapic.set_pin(4, true);
        assert_eq!(bench.sent().len(), 1);
    }

    #[test]
    fn an_edge_at_a_masked_input_is_not_held_pending() {
        let mut bench = bench();
        bench.put(0x10, 0x0001_0031);
        bench.ioapic.set_pin(0, true);
        bench.put(0x10, 0x0000_0031);
        assert_eq!(bench.sent(), []);
    }

    #[test]
    fn a_level_is_sent_again_after_its_end_as_long_as_it_is_asserted() {
        let mut bench = bench();
        bench.put(0x10 + 2 * 16, 0x0000_8051);
        bench.ioapic.set_pin(16, true);
        assert_eq!(bench.sent(), [(0xfee0_0000, 0xc051)]);
        assert_eq!(bench.get(0x10 + 2 * 16), 0x0000_c051, "Remote IRR");
        bench.ioapic.set_pin(16, false);
        bench.ioapic.set_pin(16, true);
        assert_eq!(bench.sent(), [], "accepted and not at its end");
        bench.ioapic.end_of_interrupt(0x52);
        assert_eq!(bench.sent(), []);
        bench.ioapic.end_of_interrupt(0x51);
        assert_eq!(bench.sent().len(), 1);
        bench.ioapic.set_pin(16, false);
        Mmio::write(&mut bench.ioapic, EOIR, &[0x51, 0, 0, 0]).unwrap();
        assert_eq!(bench.sent(), []);
        assert_eq!(bench.get(0x10 + 2 * 16), 0x0000_8051);
    }

    #[test]
    fn unmasking_sends_a_level_that_is_asserted() {
        let mut bench = bench();
        bench.ioapic.set_pin(9, true);
        bench.put(0x10 + 2 * 9, 0x0000_8060);
        assert_eq!(bench.sent().len(), 1);
    }

    #[test]
    fn read_only_bits_are_not_written_and_edge_mode_clears_remote_irr() {
        let mut bench = bench();
        bench.put(0x10, 0xffff_ffff);
        assert_eq!(bench.get(0x10), 0x0001_afff);
        bench.put(0x10, 0x0000_8051);
        bench.ioapic.set_pin(0, true);
        bench.put(0x10, 0x0001_c051);
        assert_eq!(bench.get(0x10), 0x0001_c051);
        bench.put(0x10, 0x0001_0051);
        bench.put(0x10, 0x0001_8051);
        assert_eq!(bench.get(0x10), 0x0001_8051);
    }

    #[test]
    fn lowest_priority_carries_the_redirection_hint() {
        let mut bench = bench();
        bench.put(0x11, 0xff00_0000);
        bench.put(0x10, 0x0000_0931);
        bench.ioapic.set_pin(0, true);
        assert_eq!(bench.sent(), [(0xfeef_f00c, 0x4131)]);
    }

    #[test]
    fn every_delivery_mode_is_sent() {
        for (mode, sent) in
            [(0, true), (1, true), (2, true), (3, false), (4, true), (5, true), (7, true)]
        {
            let mut bench = bench();
            bench.put(0x10, 0x0000_8040 | mode << 8);
            bench.ioapic.set_pin(0, true);
            let level = if mode < 2 { 0xc000 } else { 0x4000 };
            let data: Vec<u32> = bench.sent().into_iter().map(|(_, data)| data).collect();
            let expected = if sent { vec![level | mode << 8 | 0x40] } else { Vec::new() };
            assert_eq!(data, expected, "mode {mode}");
            assert_eq!(bench.get(0x10) & 0x4000 != 0, mode < 2, "Remote IRR, mode {mode}");
        }
    }

    #[test]
    fn a_level_that_is_masked_while_it_is_served_comes_again_when_unmasked() {
        let mut bench = bench();
        bench.put(0x10, 0x0000_8051);
        bench.ioapic.set_pin(0, true);
        assert_eq!(bench.sent().len(), 1);
        bench.put(0x10, 0x0001_8051);
        bench.ioapic.end_of_interrupt(0x51);
        assert_eq!(bench.sent(), [], "masked");
        assert_eq!(bench.get(0x10), 0x0001_8051, "its end was seen");
        bench.put(0x10, 0x0000_8051);
        assert_eq!(bench.sent().len(), 1);
    }

    #[test]
    fn an_end_reaches_all_inputs_of_its_vector() {
        let mut bench = bench();
        for pin in [3, 7] {
            bench.put(0x10 + 2 * pin, 0x0000_8051);
            bench.ioapic.set_pin(pin, true);
        }
        assert_eq!(bench.sent().len(), 2);
        bench.ioapic.set_pin(3, false);
        bench.ioapic.end_of_interrupt(0x51);
        assert_eq!(bench.sent().len(), 1, "pin 7 is still asserted");
    }

    proptest! {
        #[test]
        fn hostile_accesses_and_restores_do_no_harm(
            steps in mmio_steps(&[IOREGSEL, IOWIN, IOWIN, EOIR, 0x20, 0x12]),
        ) {
            let fixture = || {
                Fixture::new(|_, _| IoApic::new(Arc::<Messages>::default()))
                    .with_poke(|ioapic, what| ioapic.set_pin(what & 31, what & 32 != 0))
            };
            check(fixture, &steps);
        }
    }
}
