//! Devices behind the ISA bridge that are not in every PC, or whose resources are not plain: DMA
//! controllers, parallel port, fw_cfg and pvpanic.

use acpi_tables::aml::{
    Arg, Device, Field, FieldAccessType, FieldEntry, FieldLockRule, FieldUpdateRule, Method,
    OpRegion, OpRegionSpace, Path, Return, Store,
};

use super::dsdt::{blob, crs, hid, name};
use super::resources::{Blob, Dma, IrqNoFlags, io};
use super::{AcpiConfig, pc};

/// `_STA`: present, enabled and working, but not shown to users.
const STA_HIDDEN: u8 = 0x0b;
/// The channel by which the DMA controllers are cascaded.
const CASCADE: u8 = 4;

/// The devices.
pub(super) fn devices(config: &AcpiConfig<'_>) -> Blob {
    let mut devices = dma_controllers().0;
    if config.parallel {
        devices.extend(parallel_port().0);
    }
    devices.extend(fw_cfg().0);
    devices.extend(pvpanic().0);
    Blob(devices)
}

fn dma_controllers() -> Blob {
    blob(&Device::new(
        "DMAC".into(),
        vec![
            &hid("PNP0200"),
            &crs(vec![&io(0x00, 0x10), &io(0x81, 0x0f), &io(0xc0, 0x20), &Dma(CASCADE)]),
        ],
    ))
}

/// A standard parallel port, without EPP and ECP.
fn parallel_port() -> Blob {
    let (port, irq) = pc::PARALLEL;
    blob(&Device::new(
        "LPT1".into(),
        vec![&hid("PNP0400"), &crs(vec![&io(port, 3), &IrqNoFlags(irq)])],
    ))
}

/// fw_cfg, by the name that QEMU documents.
fn fw_cfg() -> Blob {
    let (port, ports) = pc::FW_CFG;
    blob(&Device::new(
        "FWCF".into(),
        vec![&name("_HID", &"QEMU0002"), &name("_STA", &STA_HIDDEN), &crs(vec![&io(port, ports)])],
    ))
}

/// pvpanic, by the names that QEMU documents: `RDPT` tells the events that it knows, `WRPT` tells
/// it of one.
fn pvpanic() -> Blob {
    let region = OpRegion::new("PEST".into(), OpRegionSpace::SystemIO, &pc::PVPANIC, &1_u8);
    let field = Field::new(
        "PEST".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::Preserve,
        vec![FieldEntry::Named(*b"PEPT", 8)],
    );
    let port = Path::new("PEPT");
    blob(&Device::new(
        "PEVT".into(),
        vec![
            &name("_HID", &"QEMU0001"),
            &name("_STA", &STA_HIDDEN),
            &crs(vec![&io(pc::PVPANIC, 1)]),
            &region,
            &field,
            &Method::new("RDPT".into(), 0, false, vec![&Return::new(&port)]),
            &Method::new("WRPT".into(), 1, false, vec![&Store::new(&port, &Arg(0))]),
        ],
    ))
}
