//! The Differentiated System Description Table: the devices of board `pc` in AML.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Field,
    FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, If, LessThan, Memory32Fixed,
    Method, Name, OpRegion, OpRegionSpace, Or, Package, PackageBuilder, Path, ResourceTemplate,
    Return, Scope, Store, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::resources::{Blob, INTERRUPT_OFFSET, IrqNoFlags, SharedInterrupts, io};
use super::tables::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use super::{AcpiConfig, bytes, isa, pc};

/// Revision 2: integers have 64 bits.
const REVISION: u8 = 2;

/// The whole table.
pub(super) fn dsdt(config: &AcpiConfig<'_>) -> Vec<u8> {
    let mut sdt = Sdt::new(*b"DSDT", 36, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut devices = processors(config);
    devices.extend(pci_root(config).0);
    for (index, name) in LINKS.iter().enumerate() {
        devices.extend(link(index, name).0);
    }
    devices.extend(sci_link().0);
    if config.hpet {
        devices.extend(hpet().0);
    }
    for part in
        [interrupt_mode(), soft_off(), blob(&Scope::new("\\_SB_".into(), vec![&Blob(devices)]))]
    {
        sdt.append_slice(&part.0);
    }
    bytes(&sdt)
}

pub(super) fn blob(aml: &dyn Aml) -> Blob {
    Blob(bytes(aml))
}

/// A name and its value.
pub(super) fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(path), value)
}

/// `_HID` of a Plug and Play ID.
pub(super) fn hid(id: &str) -> Name {
    name("_HID", &EISAName::new(id))
}

/// `_CRS` of fixed resources.
pub(super) fn crs(resources: Vec<&dyn Aml>) -> Name {
    name("_CRS", &ResourceTemplate::new(resources))
}

/// `PICF` and `_PIC`, by which the system says that it uses the IOAPIC (5.8.1).
fn interrupt_mode() -> Blob {
    let mut aml = bytes(&name("PICF", &ZERO));
    let store = Store::new(&Path::new("PICF"), &Arg(0)).into_blob();
    aml.extend(bytes(&Method::new("\\_PIC".into(), 1, false, vec![&store])));
    Blob(aml)
}

/// `_S5`: what to write to SLP_TYP for soft-off (7.4.2).
fn soft_off() -> Blob {
    let typ = pc::S5_SLP_TYP;
    blob(&name("\\_S5_", &Package::new(vec![&typ, &typ, &ZERO, &ZERO])))
}

/// A device per processor, C000 and so on; `_UID` matches the MADT.
fn processors(config: &AcpiConfig<'_>) -> Vec<u8> {
    let device = |uid: u32| {
        let (hid, uid_name) = (name("_HID", &"ACPI0007"), name("_UID", &uid));
        bytes(&Device::new(Path::new(&format!("C{uid:03X}")), vec![&hid, &uid_name]))
    };
    (0..config.apic_ids.len() as u32).take(0x1000).flat_map(device).collect()
}

/// The PCI bus behind the i440FX, with the PIIX3 on it.
fn pci_root(config: &AcpiConfig<'_>) -> Blob {
    let windows = crs(vec![
        &AddressSpace::new_bus_number(0_u16, 0xff),
        &io(0xcf8, 8),
        &AddressSpace::new_io(0_u16, 0xcf7, None),
        &AddressSpace::new_io(0xd00_u16, 0xffff, None),
        &memory_window(0xa_0000, 0xb_ffff),
        &memory_window(pc::PCI_WINDOW_START, pc::PCI_WINDOW_LAST),
    ]);
    blob(&Device::new(
        "PCI0".into(),
        vec![
            &hid("PNP0A03"),
            &name("_UID", &ZERO),
            &name("_BBN", &ZERO),
            &windows,
            &name("PRTP", &routing(link_entry)),
            &name("PRTA", &routing(gsi_entry)),
            &routing_method(),
            &isa_bridge(config),
        ],
    ))
}

fn memory_window(first: u32, last: u32) -> AddressSpace<u32> {
    AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None)
}

/// `_PRT`: the routing for the IOAPIC or for the 8259A (6.2.13).
fn routing_method() -> Blob {
    let picf = Path::new("PICF");
    let for_apic = Return::new(&Path::new("PRTA")).into_blob();
    let for_pic = Return::new(&Path::new("PRTP")).into_blob();
    let choice = If::new(&picf, vec![&for_apic]).into_blob();
    let otherwise = Else::new(vec![&for_pic]).into_blob();
    blob(&Method::new("_PRT".into(), 0, false, vec![&choice, &otherwise]))
}

/// A routing table with `entry` for each slot, pin and PIRQ.
fn routing(entry: impl Fn(u32, u8, u8) -> Blob) -> PackageBuilder {
    let mut table = PackageBuilder::new();
    for slot in 1..pc::PCI_SLOTS {
        for pin in 0..4 {
            // All functions of the slot.
            let address = u32::from(slot) << 16 | 0xffff;
            let row = match (slot, pin) {
                pc::SCI_PIN => linked(address, pin, "\\_SB_.LNKS"),
                _ => entry(address, pin, pc::pirq(slot, pin)),
            };
            table.add_element(&row);
        }
    }
    table
}

fn linked(address: u32, pin: u8, link: &str) -> Blob {
    blob(&Package::new(vec![&address, &pin, &Path::new(link), &ZERO]))
}

/// A pin that goes to a link device: which interrupt that is, the system chooses.
fn link_entry(address: u32, pin: u8, pirq: u8) -> Blob {
    let link = LINKS.get(usize::from(pirq)).copied().unwrap_or_default();
    linked(address, pin, &format!("\\_SB_.{link}"))
}

/// A pin that goes to a fixed pin of the IOAPIC.
fn gsi_entry(address: u32, pin: u8, pirq: u8) -> Blob {
    let gsi = pc::PIRQ_GSI.get(usize::from(pirq)).copied().unwrap_or_default();
    blob(&Package::new(vec![&address, &pin, &ZERO, &gsi]))
}

/// The link devices of PIRQA# to PIRQD#, and the PIIX3's registers behind them.
const LINKS: [&str; 4] = ["LNKA", "LNKB", "LNKC", "LNKD"];
const ROUTE_REGISTERS: [[u8; 4]; 4] = [*b"PRQA", *b"PRQB", *b"PRQC", *b"PRQD"];
/// Offset of PIRQRCA in the PIIX3's configuration space.
const PIRQRC: u8 = 0x60;
/// IRQROUTEN, active low: set, the PIRQ is not routed.
const NOT_ROUTED: u8 = 0x80;
/// Interrupts that PIRQs may be routed to: those that ISA devices do not use.
const LINK_CHOICES: [u32; 3] = [5, 10, 11];
/// `_STA`: present, enabled, shown, working; without "enabled" for a link not routed.
const STA_ENABLED: u8 = 0x0b;
const STA_DISABLED: u8 = 0x09;

/// The device of a PIRQ (6.2.11): it reads and writes its route control register.
fn link(index: usize, device: &str) -> Blob {
    let register_name = ROUTE_REGISTERS.get(index).copied().unwrap_or_default();
    let register_name = String::from_utf8_lossy(&register_name).into_owned();
    let register = Path::new(&format!("\\_SB_.PCI0.ISA_.{register_name}"));
    let interrupts = |choices| SharedInterrupts { active_low: true, choices };

    let not_routed = And::new(&ZERO, &register, &NOT_ROUTED).into_blob();
    let sta_disabled = If::new(&not_routed, vec![&Return::new(&STA_DISABLED)]).into_blob();
    let sta = Method::new("_STA".into(), 0, false, vec![&sta_disabled, &Return::new(&STA_ENABLED)])
        .into_blob();

    let disable = Or::new(&register, &register, &NOT_ROUTED).into_blob();
    let dis = Method::new("_DIS".into(), 0, false, vec![&disable]).into_blob();

    let buffer = Path::new("RBUF");
    let interrupt = Path::new("INTN");
    let template = name("RBUF", &ResourceTemplate::new(vec![&interrupts(&[0])])).into_blob();
    let in_buffer = CreateDWordField::new(&interrupt, &buffer, &INTERRUPT_OFFSET).into_blob();
    let fetch = Store::new(&interrupt, &register).into_blob();
    let if_routed = If::new(&LessThan::new(&register, &NOT_ROUTED), vec![&fetch]).into_blob();
    let crs =
        Method::new("_CRS".into(), 0, true, vec![&in_buffer, &if_routed, &Return::new(&buffer)])
            .into_blob();

    let in_argument = CreateDWordField::new(&interrupt, &Arg(0), &INTERRUPT_OFFSET).into_blob();
    let set = Store::new(&register, &interrupt).into_blob();
    let srs = Method::new("_SRS".into(), 1, true, vec![&in_argument, &set]).into_blob();

    let possible = ResourceTemplate::new(vec![&interrupts(&LINK_CHOICES)]).into_blob();
    blob(&Device::new(
        Path::new(device),
        vec![
            &hid("PNP0C0F"),
            &name("_UID", &(index as u32 + 1)),
            &name("_PRS", &possible),
            &template,
            &sta,
            &dis,
            &crs,
            &srs,
        ],
    ))
}

/// The link of the power management function: SCI, which cannot be moved.
fn sci_link() -> Blob {
    let sci = [u32::from(pc::SCI_IRQ)];
    let interrupt = SharedInterrupts { active_low: false, choices: &sci };
    let resources = ResourceTemplate::new(vec![&interrupt]).into_blob();
    blob(&Device::new(
        "LNKS".into(),
        vec![
            &hid("PNP0C0F"),
            &name("_UID", &(LINKS.len() as u32 + 1)),
            &name("_PRS", &resources),
            &name("_CRS", &resources),
            &Method::new("_SRS".into(), 1, false, vec![]),
            &Method::new("_DIS".into(), 0, false, vec![]),
            &name("_STA", &STA_ENABLED),
        ],
    ))
}

/// The PIIX3 and the devices behind it.
fn isa_bridge(config: &AcpiConfig<'_>) -> Blob {
    let registers = OpRegion::new("PIRQ".into(), OpRegionSpace::PCIConfig, &PIRQRC, &4_u8);
    let fields = Field::new(
        "PIRQ".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        ROUTE_REGISTERS.map(|register| FieldEntry::Named(register, 8)).to_vec(),
    );
    let mut children = bytes(&name("_ADR", &0x0001_0000_u32));
    children.extend(bytes(&registers));
    children.extend(bytes(&fields));
    for device in LEGACY_DEVICES {
        children.extend(legacy_device(device).0);
    }
    if config.mouse {
        children.extend(legacy_device(&MOUSE).0);
    }
    for (index, (port, irq)) in pc::COM_PORTS.into_iter().enumerate() {
        if config.com_ports.get(index) == Some(&true) {
            children.extend(com_port(index as u32 + 1, port, irq).0);
        }
    }
    children.extend(isa::devices(config).0);
    children.extend(motherboard().0);
    blob(&Device::new("ISA_".into(), vec![&Blob(children)]))
}

/// A device that every PC has: name, Plug and Play ID, ports with sizes, interrupt.
struct LegacyDevice {
    name: &'static str,
    id: &'static str,
    ports: &'static [(u16, u8)],
    irq: Option<u8>,
}

const LEGACY_DEVICES: &[LegacyDevice] = &[
    LegacyDevice {
        name: "PIC_",
        id: "PNP0000",
        ports: &[(0x20, 2), (0xa0, 2), (0x4d0, 2)],
        irq: Some(2),
    },
    LegacyDevice { name: "PIT_", id: "PNP0100", ports: &[(0x40, 4)], irq: Some(0) },
    LegacyDevice { name: "RTC_", id: "PNP0B00", ports: &[(0x70, 2)], irq: Some(8) },
    LegacyDevice { name: "KBD_", id: "PNP0303", ports: &[(0x60, 1), (0x64, 1)], irq: Some(1) },
    LegacyDevice { name: "FPU_", id: "PNP0C04", ports: &[(0xf0, 1)], irq: Some(13) },
    LegacyDevice { name: "SPKR", id: "PNP0800", ports: &[(0x61, 1)], irq: None },
];

const MOUSE: LegacyDevice = LegacyDevice { name: "MOU_", id: "PNP0F13", ports: &[], irq: Some(12) };

fn legacy_device(device: &LegacyDevice) -> Blob {
    let mut resources = Vec::new();
    for &(base, size) in device.ports {
        resources.extend(bytes(&io(base, size)));
    }
    if let Some(irq) = device.irq {
        resources.extend(bytes(&IrqNoFlags(irq)));
    }
    let resources = crs(vec![&Blob(resources)]);
    blob(&Device::new(Path::new(device.name), vec![&hid(device.id), &resources]))
}

fn com_port(number: u32, port: u16, irq: u8) -> Blob {
    blob(&Device::new(
        Path::new(&format!("COM{number}")),
        vec![&hid("PNP0501"), &name("_UID", &number), &crs(vec![&io(port, 8), &IrqNoFlags(irq)])],
    ))
}

/// What the board itself takes up, so that nothing is put there.
fn motherboard() -> Blob {
    blob(&Device::new(
        "MBRD".into(),
        vec![
            &hid("PNP0C02"),
            &crs(vec![
                &io(0x80, 1),
                &io(0x92, 1),
                &io(pc::SMI_CMD, 2),
                &io(pc::PM_BASE, pc::PM_SIZE as u8),
                &io(pc::SMBUS_BASE, pc::SMBUS_SIZE as u8),
                &Memory32Fixed::new(true, pc::IOAPIC_BASE, 0x1000),
                &Memory32Fixed::new(true, pc::LAPIC_BASE, 0x1000),
            ]),
        ],
    ))
}

fn hpet() -> Blob {
    blob(&Device::new(
        "HPET".into(),
        vec![
            &hid("PNP0103"),
            &name("_UID", &ZERO),
            &crs(vec![&Memory32Fixed::new(true, pc::HPET_BASE, 0x400)]),
        ],
    ))
}

/// AML objects borrow their parts; a blob does not.
trait IntoBlob: Aml + Sized {
    fn into_blob(self) -> Blob {
        blob(&self)
    }
}

impl<T: Aml + Sized> IntoBlob for T {}
