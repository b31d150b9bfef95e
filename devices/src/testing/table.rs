//! The devices that any byte string is a program for. A new device is a line in [`TARGETS`] and a
//! function that makes it.

use std::sync::{Arc, Mutex};

use super::lapic::{BENCH_MMIO, LapicBench};
use super::outside::Outside;
use super::program::{Space, run};
use super::smbus::{self, SmbusBench};
use super::{Fixture, IrqLog};
use crate::acpi_pm::{PmTimerWidth, PmWiring};
use crate::apic::IoApic;
use crate::dma::Dma;
use crate::fw_cfg::{FwCfg, FwCfgItems};
use crate::hpet::{Hpet, HpetWiring};
use crate::i8042::{I8042, Key, MouseButtons};
use crate::lost_ticks::LostTicks;
use crate::parallel::ParallelPort;
use crate::pci::{Bdf, I440fx, PciHost, Piix3, Piix4Pm};
use crate::pic::Pic;
use crate::pit::Pit;
use crate::ports::{DebugConsole, DebugExit, Port92, PostPort};
use crate::pvpanic::PvPanic;
use crate::rtc::{CmosMemory, Rtc, UnixSeconds};
use crate::smbus::{SmbusBus, SmbusHost, spd_eeproms};
use crate::uart16550::{ModemLines, Uart16550};
use crate::vmcoreinfo::{self, VmCoreInfo};
use trivium_chipset::{ManualClock, PciConfig};

/// A device that byte strings are run on.
#[derive(Clone, Copy)]
pub struct Target {
    /// The device's name.
    pub name: &'static str,
    /// Runs a byte string as a program; panics if the device does what none must do.
    pub run: fn(&[u8]),
}

/// All devices.
pub const TARGETS: &[Target] = &[
    Target { name: "pic", run: |bytes| run(&Space::ports(&Pic::PORTS), pic, bytes) },
    Target { name: "pit", run: |bytes| run(&Space::ports(&Pit::PORTS), pit, bytes) },
    Target { name: "rtc", run: |bytes| run(&Space::ports(&Rtc::PORTS), rtc, bytes) },
    Target { name: "i8042", run: |bytes| run(&Space::ports(&I8042::PORTS), i8042, bytes) },
    Target { name: "uart16550", run: |bytes| run(&Space::ports(&UART_PORTS), uart16550, bytes) },
    Target { name: "lapic", run: |bytes| run(&Space::mmio(&BENCH_MMIO), lapic, bytes) },
    Target { name: "ioapic", run: |bytes| run(&Space::mmio(&IOAPIC), ioapic, bytes) },
    Target { name: "hpet", run: |bytes| run(&Space::mmio(&HPET), hpet, bytes) },
    Target { name: "i440fx", run: |bytes| run(&Space::pci(&[]), i440fx, bytes) },
    Target { name: "piix3", run: |bytes| run(&Space::pci(&[0xcf9]), piix3, bytes) },
    Target { name: "piix4-pm", run: |bytes| run(&Space::pci(&PM_PORTS), piix4_pm, bytes) },
    Target { name: "pci-host", run: |bytes| run(&Space::ports(&PCI_PORTS), pci_host, bytes) },
    Target { name: "port92", run: |bytes| run(&Space::ports(&[Port92::PORT]), port92, bytes) },
    Target { name: "post", run: |bytes| run(&Space::ports(&[PostPort::PORT]), post, bytes) },
    Target { name: "debug-console", run: |bytes| run(&Space::ports(&[0xe9]), console, bytes) },
    Target { name: "debug-exit", run: |bytes| run(&Space::ports(&EXIT_PORTS), exit, bytes) },
    Target { name: "dma", run: |bytes| run(&Space::ports(&DMA_PORTS), dma, bytes) },
    Target { name: "parallel", run: |bytes| run(&Space::ports(&LPT_PORTS), parallel, bytes) },
    Target { name: "fw-cfg", run: |bytes| run(&Space::ports(&FW_CFG_PORTS), fw_cfg, bytes) },
    Target { name: "smbus", run: |bytes| run(&Space::ports(&smbus::PORTS), smbus, bytes) },
    Target { name: "pvpanic", run: |bytes| run(&Space::ports(&[PvPanic::PORT]), pvpanic, bytes) },
];

const UART_PORTS: [u16; 8] = [0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff];
/// IOREGSEL, IOWIN, the EOI register and what is beside them.
const IOAPIC: [u64; 6] = [0, 0x10, 0x10, 0x40, 0x12, 0x20];
const HPET: [u64; 15] = [
    0x000, 0x004, 0x010, 0x010, 0x020, 0x0f0, 0x0f4, 0x100, 0x104, 0x108, 0x10c, 0x120, 0x128,
    0x140, 0x148,
];
const PCI_PORTS: [u16; 9] = [0xcf8, 0xcfa, 0xcfb, 0xcfc, 0xcfd, 0xcfe, 0xcff, 0xc000, 0xc104];
const PM_PORTS: [u16; 23] = [
    0x600, 0x602, 0x603, 0x604, 0x605, 0x608, 0x60c, 0x60e, 0x618, 0x620, 0x628, 0x63f, 0xb2, 0xb3,
    0x700, 0x702, 0x703, 0x704, 0x705, 0x706, 0x707, 0x708, 0x70a,
];
const EXIT_PORTS: [u16; 4] = [0x501, 0x502, 0x503, 0x504];
/// All of the first chip, what is different on the second, and page registers.
const DMA_PORTS: [u16; 27] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
    0x81, 0x83, 0x8b, 0xc4, 0xc6, 0xd0, 0xd2, 0xd4, 0xd6, 0xda, 0xde,
];
const LPT_PORTS: [u16; 3] = [0x378, 0x379, 0x37a];
const FW_CFG_PORTS: [u16; 6] = [0x510, 0x511, 0x514, 0x518, 0x518, 0x51b];

fn pic() -> Fixture<Pic> {
    Fixture::new(|_, irqs| Pic::new(irqs.line(0))).with_poke(|pic, what| match what {
        0xc0.. => {
            pic.acknowledge();
        }
        _ => pic.set_irq(what & 0x1f, what & 0x20 != 0),
    })
}

fn pit() -> Fixture<Pit> {
    Fixture::new(|clock, irqs| {
        Pit::new(clock.clone(), irqs.line(0)).with_lost_ticks(LostTicks::Catchup)
    })
}

fn rtc() -> Fixture<Rtc> {
    const SIZES: CmosMemory = CmosMemory { below_4g: 3 << 30, above_4g: 5 << 30 };
    let base = UnixSeconds(1_704_067_198);
    Fixture::new(move |clock, irqs| {
        Rtc::new(clock.clone(), irqs.line(8), base, SIZES).with_lost_ticks(LostTicks::Catchup)
    })
}

fn i8042() -> Fixture<I8042> {
    Fixture::new(|clock, irqs| {
        let (keyboard, mouse) = (irqs.line(1), irqs.line(12));
        I8042::new(clock.clone(), keyboard, mouse, Outside::new(), Outside::new())
    })
    .with_poke(poke_i8042)
}

/// Keys are pressed and released, or the mouse is moved.
pub(crate) fn poke_i8042(i8042: &mut I8042, what: u8) {
    match what {
        0..=0xdf => {
            if let Some(key) = Key::ALL.get(usize::from(what & 0x7f)) {
                i8042.key_event(*key, what < 0x80);
            }
        }
        _ => {
            let way = (i32::from(what) - 0xf0) * 40;
            i8042.mouse_event(way, -way, way, MouseButtons::from_bits_truncate(what));
        }
    }
}

fn uart16550() -> Fixture<Uart16550> {
    Fixture::new(|clock, irqs| Uart16550::new(clock.clone(), irqs.line(4), Box::new(Outside)))
        .with_poke(|uart, what| match what {
            0xff => uart.receive_break(),
            0xf0..=0xfe => uart.set_modem_lines(ModemLines::from_bits_truncate(what << 4)),
            _ => {
                let bytes: Vec<u8> = (0..what % 20).collect();
                let taken = uart.receive(&bytes);
                assert!(taken <= bytes.len());
            }
        })
}

fn lapic() -> Fixture<LapicBench> {
    Fixture::new(|clock, _| LapicBench::new(clock)).with_poke(LapicBench::poke)
}

fn ioapic() -> Fixture<IoApic> {
    Fixture::new(|_, _| IoApic::new(Outside::new())).with_poke(|ioapic, what| match what {
        0x80.. => ioapic.end_of_interrupt(what),
        _ => ioapic.set_pin(what & 31, what & 32 != 0),
    })
}

fn hpet() -> Fixture<Hpet> {
    Fixture::new(|clock, irqs| {
        Hpet::new(HpetWiring {
            clock: clock.clone(),
            routes: (20..24).map(|input| (input, irqs.line(input.into()))).collect(),
            legacy: [irqs.line(100), irqs.line(101)],
            legacy_select: irqs.line(102),
        })
    })
}

fn i440fx() -> Fixture<I440fx> {
    Fixture::new(|_, _| I440fx::new(Some(Outside::new())))
}

fn piix3() -> Fixture<Piix3> {
    Fixture::new(|_, _| Piix3::new(Outside::new(), Some(Outside::new())))
}

fn new_piix4_pm(clock: &Arc<ManualClock>, irqs: &Arc<IrqLog>) -> Piix4Pm {
    let wiring = PmWiring {
        clock: clock.clone(),
        sci: irqs.line(9),
        power: Outside::new(),
        smi: Outside::new(),
    };
    let mut bus = SmbusBus::default();
    for (address, eeprom) in spd_eeproms(128) {
        bus.attach(address, eeprom);
    }
    let smbus = SmbusHost::new(clock.clone(), irqs.line(10), Outside::new(), bus);
    Piix4Pm::new(PmTimerWidth::Bits24, wiring, smbus, Some(Outside::new()))
}

/// With its ports from 600h on, and the SMBus's from 700h on.
fn piix4_pm() -> Fixture<Piix4Pm> {
    let mut fixture = Fixture::new(new_piix4_pm).with_poke(|pm, event| match event {
        0..16 => pm.pm().raise_gpe(event),
        _ => pm.pm().press_power_button(),
    });
    fixture.device.write(0x40, 0x600, 0xffff);
    fixture.device.write(0x80, 1, 0xff);
    fixture.device.write(0x90, 0x700, 0xffff);
    fixture.device.write(0x04, 1, 0xff);
    fixture.device.write(0xd0, 0x09 << 16, 0xff_0000);
    fixture
}

/// With the functions of the board `pc`, which keep their state when the bus is made anew.
fn pci_host() -> Fixture<PciHost> {
    let host_bridge = Arc::new(Mutex::new(I440fx::new(Some(Outside::new()))));
    let isa_bridge = Arc::new(Mutex::new(Piix3::new(Outside::new(), None)));
    let power = new_piix4_pm(&ManualClock::new(), &IrqLog::new());
    let power = Arc::new(Mutex::new(power));
    Fixture::new(move |_, _| {
        let mut host = PciHost::new();
        let attached = host.attach(Bdf::new(0, 0), host_bridge.clone());
        let attached = attached.and(host.attach(Bdf::new(1, 0), isa_bridge.clone()));
        let attached = attached.and(host.attach(Bdf::new(1, 3), power.clone()));
        attached.expect("the places are free");
        host
    })
}

fn port92() -> Fixture<Port92> {
    Fixture::new(|_, _| Port92::new(Outside::new(), Outside::new()))
}

fn post() -> Fixture<PostPort> {
    Fixture::new(|_, _| PostPort::new())
}

fn console() -> Fixture<DebugConsole> {
    Fixture::new(|_, _| DebugConsole::new(Box::new(Outside)))
}

fn exit() -> Fixture<DebugExit> {
    Fixture::new(|_, _| DebugExit::new(0x501, Outside::new()))
}

fn dma() -> Fixture<Dma> {
    Fixture::new(|_, _| Dma::new(Outside::new())).with_poke(Dma::poke)
}

fn parallel() -> Fixture<ParallelPort> {
    Fixture::new(|_, irqs| ParallelPort::new(0x378, irqs.line(7), Box::new(Outside)))
}

fn fw_cfg() -> Fixture<FwCfg> {
    Fixture::new(|_, _| {
        let mut items = FwCfgItems::new();
        let added = items.add_writable_file(vmcoreinfo::FILE, VmCoreInfo::unwritten());
        added.expect("the name is free");
        FwCfg::new(items, Outside::new())
    })
}

fn pvpanic() -> Fixture<PvPanic> {
    Fixture::new(|_, _| PvPanic::new(Outside::new()))
}

fn smbus() -> Fixture<SmbusBench> {
    let mut fixture = Fixture::new(|clock, irqs| SmbusBench::new(clock, irqs.line(9)))
        .with_poke(SmbusBench::configure);
    fixture.device.configure(smbus::ENABLED);
    fixture
}
