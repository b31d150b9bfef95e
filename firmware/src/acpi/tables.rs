//! The ACPI tables other than the DSDT.

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::sdt::Sdt;

use super::{AcpiConfig, pc};

/// OEM ID of the tables.
pub(super) const OEM_ID: [u8; 6] = *b"TRIVUM";
/// OEM table ID of the tables.
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"TRIVPC  ";
/// OEM revision of the tables.
pub(super) const OEM_REVISION: u32 = 1;

/// Size of the header that all tables but RSDP and FACS have.
const HEADER_SIZE: u32 = 36;

/// A table of the header and `body`.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Sdt {
    let mut sdt = Sdt::new(*signature, HEADER_SIZE, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    sdt.append_slice(body);
    sdt
}

/// The Root System Description Pointer, revision 2 (5.2.5.3).
pub(super) fn rsdp(rsdt: u32, xsdt: u32) -> Vec<u8> {
    const REVISION: u8 = 2;
    const SIZE: u32 = 36;
    let checksum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, b| sum.wrapping_sub(*b));
    let with_checksum = |sum: u8| {
        let mut bytes = b"RSD PTR ".to_vec();
        bytes.push(sum);
        bytes.extend(OEM_ID);
        bytes.push(REVISION);
        bytes.extend(rsdt.to_le_bytes());
        bytes
    };
    // The first checksum covers what revision 0 has, the second all.
    let mut bytes = with_checksum(checksum(&with_checksum(0)));
    bytes.extend(SIZE.to_le_bytes());
    bytes.extend(u64::from(xsdt).to_le_bytes());
    bytes.extend([checksum(&bytes), 0, 0, 0]);
    bytes
}

/// The Root System Description Table (5.2.7).
pub(super) fn rsdt(pointers: &[u32]) -> Sdt {
    let body: Vec<u8> = pointers.iter().flat_map(|p| p.to_le_bytes()).collect();
    table(b"RSDT", 1, &body)
}

/// The Extended System Description Table (5.2.8).
pub(super) fn xsdt(pointers: &[u32]) -> Sdt {
    let body: Vec<u8> = pointers.iter().flat_map(|&p| u64::from(p).to_le_bytes()).collect();
    table(b"XSDT", 1, &body)
}

/// IAPC_BOOT_ARCH of the FADT (5.2.9.3).
mod boot_arch {
    pub const LEGACY_DEVICES: u16 = 1 << 0;
    pub const I8042: u16 = 1 << 1;
    pub const VGA_NOT_PRESENT: u16 = 1 << 2;
}

/// Latencies above these say that there is no C2 and no C3 (5.2.9).
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

/// A block of I/O ports.
fn ports(base: u16, bytes: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bytes * 8, 0, access, base.into())
}

/// The Fixed ACPI Description Table (5.2.9).
pub(super) fn fadt(config: &AcpiConfig<'_>, facs: u32, dsdt: u32) -> FADT {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::Desktop)
        .gpe_info(pc::GPE0.into(), 0, pc::GPE0_SIZE, 0, 0)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup);
    if config.pm_timer_32 {
        fadt = fadt.flag(Flags::TmrValExt);
    }
    fadt.firmware_ctrl = facs.into();
    fadt.x_firmware_ctrl = u64::from(facs).into();
    fadt.dsdt = dsdt.into();
    fadt.x_dsdt = u64::from(dsdt).into();
    fadt.sci_int = u16::from(pc::SCI_IRQ).into();
    fadt.smi_cmd = u32::from(pc::SMI_CMD).into();
    fadt.acpi_enable = pc::ACPI_ENABLE;
    fadt.acpi_disable = pc::ACPI_DISABLE;
    fadt.pm1a_evt_blk = u32::from(pc::PM1A_EVT).into();
    fadt.pm1a_cnt_blk = u32::from(pc::PM1A_CNT).into();
    fadt.pm_tmr_blk = u32::from(pc::PM_TMR).into();
    (fadt.pm1_evt_len, fadt.pm1_cnt_len, fadt.pm_tmr_len) = (4, 2, 4);
    fadt.x_pm1a_evt_blk = ports(pc::PM1A_EVT, 4, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = ports(pc::PM1A_CNT, 2, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = ports(pc::PM_TMR, 4, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = ports(pc::GPE0, pc::GPE0_SIZE, AccessSize::ByteAccess);
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = pc::RTC_CENTURY;
    let vga = if config.vga { 0 } else { boot_arch::VGA_NOT_PRESENT };
    fadt.iapc_boot_arch = (boot_arch::LEGACY_DEVICES | boot_arch::I8042 | vga).into();
    fadt.reset_reg = ports(pc::RESET_PORT, 1, AccessSize::ByteAccess);
    fadt.reset_value = pc::RESET_VALUE;
    fadt.finalize()
}

/// Interrupt controller structures of the MADT (5.2.12): type and length.
mod madt_type {
    pub const LOCAL_APIC: [u8; 2] = [0, 8];
    pub const IO_APIC: [u8; 2] = [1, 12];
    pub const INTERRUPT_SOURCE_OVERRIDE: [u8; 2] = [2, 10];
    pub const LOCAL_APIC_NMI: [u8; 2] = [4, 6];
    pub const LOCAL_X2APIC: [u8; 2] = [9, 16];
    pub const LOCAL_X2APIC_NMI: [u8; 2] = [10, 12];
}

/// MADT flags: there are two 8259A besides.
const PCAT_COMPAT: u32 = 1 << 0;
/// Local APIC flags: the processor can be used.
const ENABLED: u32 = 1 << 0;
/// MPS INTI flags (table 5.25): as the bus has it; or active high and level-triggered.
const CONFORMS_TO_BUS: u16 = 0;
const ACTIVE_HIGH_LEVEL: u16 = 0b11_01;
/// The APIC IDs from here on have x2APIC structures.
const FIRST_X2APIC_ID: u32 = 255;
/// The input of the local APICs that takes NMI.
const NMI_LINT: u8 = 1;

/// The Multiple APIC Description Table (5.2.12).
pub(super) fn madt(config: &AcpiConfig<'_>) -> Sdt {
    let mut body = Vec::new();
    body.extend(pc::LAPIC_BASE.to_le_bytes());
    body.extend(PCAT_COMPAT.to_le_bytes());
    for (uid, &id) in (0_u32..).zip(config.apic_ids) {
        push_processor(&mut body, uid, id);
    }
    body.extend(madt_type::IO_APIC);
    body.extend([pc::IOAPIC_ID, 0]);
    body.extend(pc::IOAPIC_BASE.to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    push_override(&mut body, 0, pc::PIT_GSI, CONFORMS_TO_BUS);
    push_override(&mut body, pc::SCI_IRQ, pc::SCI_IRQ.into(), ACTIVE_HIGH_LEVEL);
    body.extend(madt_type::LOCAL_APIC_NMI);
    body.extend([0xff, 0, 0, NMI_LINT]); // all processors
    if config.apic_ids.iter().any(|&id| id >= FIRST_X2APIC_ID) {
        body.extend(madt_type::LOCAL_X2APIC_NMI);
        body.extend([0, 0, 0xff, 0xff, 0xff, 0xff, NMI_LINT, 0, 0, 0]);
    }
    table(b"APIC", 5, &body)
}

fn push_processor(body: &mut Vec<u8>, uid: u32, id: u32) {
    match (u8::try_from(uid), u8::try_from(id)) {
        (Ok(uid), Ok(short_id)) if id < FIRST_X2APIC_ID => {
            body.extend(madt_type::LOCAL_APIC);
            body.extend([uid, short_id]);
            body.extend(ENABLED.to_le_bytes());
        }
        _ => {
            body.extend(madt_type::LOCAL_X2APIC);
            body.extend([0, 0]);
            for field in [id, ENABLED, uid] {
                body.extend(field.to_le_bytes());
            }
        }
    }
}

/// Says that ISA interrupt `irq` comes in at `gsi`.
fn push_override(body: &mut Vec<u8>, irq: u8, gsi: u32, flags: u16) {
    body.extend(madt_type::INTERRUPT_SOURCE_OVERRIDE);
    body.extend([0, irq]);
    body.extend(gsi.to_le_bytes());
    body.extend(flags.to_le_bytes());
}

/// The HPET description table (IA-PC HPET specification 1.0a, 3.2.4).
pub(super) fn hpet() -> Sdt {
    /// The least period in ticks at which no interrupt is lost.
    const MINIMUM_TICK: u16 = 100;
    /// System memory, 64 bits wide, any access.
    const ADDRESS: [u8; 4] = [0, 64, 0, 0];
    let mut body = pc::HPET_ID.to_le_bytes().to_vec();
    body.extend(ADDRESS);
    body.extend(u64::from(pc::HPET_BASE).to_le_bytes());
    body.push(0); // the first HPET
    body.extend(MINIMUM_TICK.to_le_bytes());
    body.push(0); // no page protection
    table(b"HPET", 1, &body)
}

/// The Windows ACPI Emulated Devices Table: the PM timer needs but one read.
pub(super) fn waet() -> Sdt {
    const ACPI_PM_TIMER_GOOD: u32 = 1 << 1;
    table(b"WAET", 1, &ACPI_PM_TIMER_GOOD.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acpi::bytes;

    const CONFIG: AcpiConfig<'_> = AcpiConfig {
        apic_ids: &[0, 1, 300],
        hpet: true,
        com_ports: [true; 4],
        parallel: true,
        mouse: false,
        pm_timer_32: false,
        vga: false,
        extra: &[],
    };

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, b| sum.wrapping_add(*b))
    }

    #[test]
    fn all_bytes_of_a_table_sum_to_0() {
        let rsdp = rsdp(0x1000, 0x2000);
        assert_eq!((rsdp.len(), sum(&rsdp[..20]), sum(&rsdp)), (36, 0, 0));
        for table in [rsdt(&[1, 2]), xsdt(&[1, 2]), madt(&CONFIG), hpet(), waet()] {
            let bytes = bytes(&table);
            assert_eq!(sum(&bytes), 0);
            assert_eq!(bytes[4..8], (bytes.len() as u32).to_le_bytes());
        }
        assert_eq!(sum(&bytes(&fadt(&CONFIG, 0x1000, 0x2000))), 0);
    }

    #[test]
    fn fields_of_the_fadt_lie_where_table_5_9_says() {
        let fadt = bytes(&fadt(&CONFIG, 0x1234, 0x5678));
        assert_eq!(fadt.len(), 276);
        let u32_at = |at: usize| crate::bytes::u32_at(&fadt, at).unwrap();
        assert_eq!([u32_at(36), u32_at(40)], [0x1234, 0x5678]);
        assert_eq!(fadt[46..48], [9, 0]);
        assert_eq!([u32_at(48), u32_at(56), u32_at(64), u32_at(76)], [0xb2, 0x600, 0x604, 0x608]);
        assert_eq!(fadt[52..54], [0xf1, 0xf0]);
        assert_eq!(fadt[116..129], [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6]);
        assert_eq!([u32_at(132), u32_at(140)], [0x1234, 0x5678]);
    }

    #[test]
    fn processors_with_large_apic_ids_have_x2apic_structures() {
        let madt = bytes(&madt(&CONFIG));
        let mut types = Vec::new();
        let mut at = 44;
        while at < madt.len() {
            types.push(madt[at]);
            at += usize::from(madt[at + 1]);
        }
        assert_eq!(at, madt.len());
        assert_eq!(types, [0, 0, 9, 1, 2, 2, 4, 10]);
    }
}
