//! The tables of the MultiProcessor Specification, version 1.4: processors, buses, the I/O APIC and
//! how interrupts are wired, for systems that do not use ACPI.

use trivium_memory::GuestMemory;

use crate::acpi::pc;
use crate::layout::bios;
use crate::place::Placer;
use crate::{LoadError, MemoryLayout};

/// What the tables are made of.
#[derive(Debug, Clone, Copy)]
pub struct MpConfig<'a> {
    /// The APIC IDs of the processors, the boot processor first. Those above 254 cannot be told.
    pub apic_ids: &'a [u32],
    /// EAX of CPUID leaf 1: family, model and stepping.
    pub cpu_signature: u32,
    /// EDX of CPUID leaf 1.
    pub cpu_features: u32,
}

/// `spec_rev` of version 1.4.
const SPEC_REVISION: u8 = 4;
const OEM_ID: &[u8; 8] = b"TRIVIUM ";
const PRODUCT_ID: &[u8; 12] = b"PC          ";
/// The highest APIC ID of a processor; 255 means all.
const LAST_APIC_ID: u32 = 254;
/// Versions that the chips' version registers show.
const LOCAL_APIC_VERSION: u8 = 0x14;
const IO_APIC_VERSION: u8 = 0x20;

/// Entry types (table 4-3).
mod entry {
    pub const PROCESSOR: u8 = 0;
    pub const BUS: u8 = 1;
    pub const IO_APIC: u8 = 2;
    pub const IO_INTERRUPT: u8 = 3;
    pub const LOCAL_INTERRUPT: u8 = 4;
}

/// CPU flags (table 4-4): usable, and the one that boots.
const CPU_ENABLED: u8 = 1 << 0;
const CPU_BOOT: u8 = 1 << 1;
/// The I/O APIC is usable (table 4-7).
const IO_APIC_ENABLED: u8 = 1 << 0;

/// The buses' numbers.
const PCI_BUS: u8 = 0;
const ISA_BUS: u8 = 1;

/// Kinds of interrupts (table 4-11).
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;

/// Polarity and trigger mode (table 4-10).
const CONFORMS_TO_BUS: u16 = 0b00_00;
const ACTIVE_HIGH_EDGE: u16 = 0b01_01;
const ACTIVE_HIGH_LEVEL: u16 = 0b11_01;
const ACTIVE_LOW_LEVEL: u16 = 0b11_11;

/// A local interrupt goes to all local APICs.
const ALL_LOCAL_APICS: u8 = 0xff;

/// The ISA interrupt of the second 8259A, which no device has.
const CASCADE: u8 = 2;

/// The floating pointer structure (4.1), for a table below 4 GiB.
fn floating_pointer(table: u32) -> Vec<u8> {
    const PARAGRAPHS: u8 = 1;
    let mut bytes = b"_MP_".to_vec();
    bytes.extend(table.to_le_bytes());
    bytes.extend([PARAGRAPHS, SPEC_REVISION, 0]);
    // Feature bytes: there is a table, and no IMCR, for the boot processor's local APIC passes the
    // 8259As' interrupts on (virtual wire mode).
    bytes.extend([0; 5]);
    set_checksum(&mut bytes, 10);
    bytes
}

fn set_checksum(bytes: &mut [u8], at: usize) {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = sum);
}

/// The entries of a configuration table.
#[derive(Default)]
struct Entries {
    bytes: Vec<u8>,
    count: u16,
}

impl Entries {
    fn add(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend(*part));
        self.count = self.count.saturating_add(1);
    }

    fn processor(&mut self, id: u8, boot: bool, config: &MpConfig<'_>) {
        let flags = CPU_ENABLED | if boot { CPU_BOOT } else { 0 };
        self.add(&[
            &[entry::PROCESSOR, id, LOCAL_APIC_VERSION, flags],
            &config.cpu_signature.to_le_bytes(),
            &config.cpu_features.to_le_bytes(),
            &[0; 8],
        ]);
    }

    fn bus(&mut self, number: u8, name: &[u8; 6]) {
        self.add(&[&[entry::BUS, number], name]);
    }

    fn io_apic(&mut self) {
        self.add(&[
            &[entry::IO_APIC, pc::IOAPIC_ID, IO_APIC_VERSION, IO_APIC_ENABLED],
            &pc::IOAPIC_BASE.to_le_bytes(),
        ]);
    }

    /// An interrupt of a bus that comes to a pin of the I/O APIC (4.3.4).
    fn io_interrupt(&mut self, kind: u8, flags: u16, bus: u8, irq: u8, pin: u8) {
        let flags = flags.to_le_bytes();
        self.add(&[&[entry::IO_INTERRUPT, kind], &flags, &[bus, irq, pc::IOAPIC_ID, pin]]);
    }

    /// An interrupt that comes to a pin of the local APICs (4.3.5).
    fn local_interrupt(&mut self, kind: u8, pin: u8) {
        let flags = CONFORMS_TO_BUS.to_le_bytes();
        self.add(&[&[entry::LOCAL_INTERRUPT, kind], &flags, &[ISA_BUS, 0, ALL_LOCAL_APICS, pin]]);
    }

    fn isa_interrupts(&mut self) {
        for irq in (0..16_u8).filter(|irq| *irq != CASCADE) {
            let pin = if irq == 0 { pc::PIT_GSI as u8 } else { irq };
            let flags = match irq {
                pc::SCI_IRQ => ACTIVE_HIGH_LEVEL,
                _ => ACTIVE_HIGH_EDGE,
            };
            self.io_interrupt(INT, flags, ISA_BUS, irq, pin);
        }
    }

    /// The pins of all PCI slots (appendix D.3).
    fn pci_interrupts(&mut self) {
        for slot in 1..pc::PCI_SLOTS {
            for pin in 0..4 {
                let (input, flags) = match (slot, pin) {
                    pc::SCI_PIN => (u32::from(pc::SCI_IRQ), ACTIVE_HIGH_LEVEL),
                    _ => {
                        let pirq = usize::from(pc::pirq(slot, pin));
                        (pc::PIRQ_GSI.get(pirq).copied().unwrap_or(0), ACTIVE_LOW_LEVEL)
                    }
                };
                self.io_interrupt(INT, flags, PCI_BUS, slot << 2 | pin, input as u8);
            }
        }
    }
}

/// The configuration table (4.2, 4.3).
fn table(config: &MpConfig<'_>) -> Vec<u8> {
    const LINT0: u8 = 0;
    const LINT1: u8 = 1;
    const HEADER: u16 = 44;
    let mut entries = Entries::default();
    let told = config.apic_ids.iter().filter(|id| **id <= LAST_APIC_ID);
    for (index, id) in told.enumerate() {
        entries.processor(*id as u8, index == 0, config);
    }
    entries.bus(PCI_BUS, b"PCI   ");
    entries.bus(ISA_BUS, b"ISA   ");
    entries.io_apic();
    entries.isa_interrupts();
    entries.pci_interrupts();
    entries.local_interrupt(EXT_INT, LINT0);
    entries.local_interrupt(NMI, LINT1);

    let mut bytes = b"PCMP".to_vec();
    bytes.extend((HEADER + entries.bytes.len() as u16).to_le_bytes());
    bytes.extend([SPEC_REVISION, 0]);
    bytes.extend(OEM_ID);
    bytes.extend(PRODUCT_ID);
    bytes.extend([0; 6]); // no OEM table
    bytes.extend(entries.count.to_le_bytes());
    bytes.extend(pc::LAPIC_BASE.to_le_bytes());
    bytes.extend([0; 4]); // no extended entries
    bytes.extend(entries.bytes);
    set_checksum(&mut bytes, 7);
    bytes
}

/// Writes the tables into the BIOS's segment.
///
/// # Errors
/// RAM is not mapped there.
pub fn build(
    memory: &GuestMemory,
    layout: &MemoryLayout,
    config: &MpConfig<'_>,
) -> Result<(), LoadError> {
    let place = Placer { memory, layout };
    let table = table(config);
    if table.len() as u64 > bios::MP_TABLE.end - bios::MP_TABLE.start {
        return Err(LoadError::AcpiTooLarge);
    }
    place.write(bios::MP_TABLE.start, &table)?;
    place.write(bios::MP_FLOATING_POINTER, &floating_pointer(bios::MP_TABLE.start as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Machine;

    fn sum(machine: &Machine, at: u64, len: u64) -> u8 {
        (at..at + len).fold(0, |sum, at| sum.wrapping_add(machine.read::<1>(at)[0]))
    }

    /// All entries, found as a guest finds them.
    fn entries(apic_ids: &[u32]) -> Vec<Vec<u8>> {
        let machine = Machine::new(64);
        let config = MpConfig { apic_ids, cpu_signature: 0xf61, cpu_features: 0x201 };
        build(&machine.memory, &machine.layout, &config).unwrap();
        let pointer = (0xf_0000..0x10_0000)
            .step_by(16)
            .find(|&at| machine.read(at) == *b"_MP_")
            .expect("it is there");
        assert_eq!(machine.read(pointer + 8), [1, 4], "length in paragraphs, revision");
        assert_eq!(sum(&machine, pointer, 16), 0);
        let table = u64::from(machine.u32(pointer + 4));
        assert_eq!(machine.read(table), *b"PCMP");
        let length = u64::from(machine.u32(table + 4) & 0xffff);
        assert_eq!(sum(&machine, table, length), 0);
        assert_eq!(machine.u32(table + 36), 0xfee0_0000);
        let count = u16::from_le_bytes(machine.read(table + 34));
        let mut all: Vec<Vec<u8>> = Vec::new();
        let mut at = table + 44;
        for _ in 0..count {
            // Processors have 20 bytes, all others 8 (table 4-3).
            let size = if machine.read(at) == [0] { 20 } else { 8 };
            all.push((at..at + size).map(|at| machine.read::<1>(at)[0]).collect());
            at += size;
        }
        assert_eq!(at, table + length);
        assert!(all.is_sorted_by_key(|entry| entry[0]), "4.3: in ascending order of type");
        all
    }

    #[test]
    fn the_first_processor_boots_and_ids_above_254_are_left_out() {
        let all = entries(&[0, 1, 2, 255, 256]);
        let processors: Vec<_> = all.iter().filter(|entry| entry[0] == 0).collect();
        let told: Vec<_> = processors.iter().map(|entry| [entry[1], entry[3]]).collect();
        assert_eq!(told, [[0, 3], [1, 1], [2, 1]]);
        assert_eq!(processors[0][4..12], [0x61, 0x0f, 0, 0, 1, 2, 0, 0]);
    }

    #[test]
    fn interrupts_of_all_processors_fit() {
        let ids: Vec<u32> = (0..1000).collect();
        assert_eq!(entries(&ids).iter().filter(|entry| entry[0] == 0).count(), 255);
    }

    #[test]
    fn the_timer_comes_to_pin_2_and_pci_pins_by_level() {
        let all = entries(&[0]);
        let wired = |bus: u8, irq: u8| {
            let of: Vec<_> =
                all.iter().filter(|e| e[0] == 3 && e[4] == bus && e[5] == irq).collect();
            assert!(of.len() <= 1);
            of.first().map(|entry| (entry[2], entry[7]))
        };
        assert_eq!(wired(1, 0), Some((0b0101, 2)));
        assert_eq!(wired(1, 2), None, "the cascade");
        assert_eq!(wired(1, 4), Some((0b0101, 4)));
        assert_eq!(wired(1, 9), Some((0b1101, 9)), "SCI");
        assert_eq!(wired(0, 1 << 2), Some((0b1101, 9)), "INTA# of the PIIX4 is SCI");
        assert_eq!(wired(0, 1 << 2 | 3), Some((0b1111, 19)), "INTD# of slot 1 is PIRQD#");
        assert_eq!(wired(0, 2 << 2), Some((0b1111, 17)), "INTA# of slot 2 is PIRQB#");
    }

    #[test]
    fn local_interrupts_are_extint_and_nmi_of_all_local_apics() {
        let local: Vec<_> = entries(&[0]).into_iter().filter(|entry| entry[0] == 4).collect();
        let told: Vec<_> = local.iter().map(|entry| [entry[1], entry[6], entry[7]]).collect();
        assert_eq!(told, [[3, 0xff, 0], [1, 0xff, 1]]);
    }
}
