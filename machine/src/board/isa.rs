//! Devices of the ISA bus beside the oldest: the DMA controllers, the parallel port, and those by
//! which a virtual machine talks with its guest: fw_cfg and pvpanic.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use trivium_devices::dma::Dma;
use trivium_devices::fw_cfg::{FwCfg, FwCfgItems, ItemError, key};
use trivium_devices::parallel::{ParallelBackend, ParallelPort};
use trivium_devices::pvpanic::{GuestEventSink, GuestEvents, PvPanic};
use trivium_devices::vmcoreinfo::{self, VmCoreInfo};
use trivium_firmware::acpi::pc as addresses;
use trivium_firmware::layout::HIGH_RAM_START;

use super::pc::{BoardParts, Builder, share};
use crate::config::{Board, ConfigError, KernelConfig};
use crate::control::lock;
use crate::dma::GuestDma;
use crate::router::{input, source};

/// The memory map as an item: entries of address (64 bits), length (64 bits) and type (32 bits).
const E820_FILE: &str = "etc/e820";
/// The type of an entry that is RAM (ACPI specification 6.5, 15.1).
const E820_RAM: u32 = 1;
/// The type of an entry that the guest must leave alone.
const E820_RESERVED: u32 = 2;
/// What the user's items are called.
const USER_PREFIX: &str = "opt/";
/// Events of a guest that are told of in the log.
const MOST_LOGGED: u32 = 16;

/// The part of the board's devices that outlives them.
#[derive(Default)]
pub(crate) struct IsaParts {
    printer: Option<SharedPrinter>,
    items: FwCfgItems,
}

/// A printer that outlives its port.
#[derive(Clone)]
struct SharedPrinter(Arc<Mutex<Box<dyn ParallelBackend>>>);

impl ParallelBackend for SharedPrinter {
    fn print(&mut self, byte: u8) {
        lock(&self.0).print(byte);
    }
}

impl IsaParts {
    /// Takes what the user gives.
    pub(crate) fn new(
        printer: Option<Box<dyn ParallelBackend>>,
        files: Vec<(String, Vec<u8>)>,
        kernel: Option<&Arc<KernelConfig>>,
    ) -> Result<Self, ConfigError> {
        let mut items = FwCfgItems::new();
        if let Some(kernel) = kernel {
            add_kernel(&mut items, kernel);
        }
        let _ = items.add_writable_file(vmcoreinfo::FILE, VmCoreInfo::unwritten());
        for (name, bytes) in files {
            if !name.starts_with(USER_PREFIX) {
                log::warn!("fw_cfg item {name:?}: names of users' items start with {USER_PREFIX}");
            }
            // The board's own names are taken, too.
            let added = match name == E820_FILE {
                true => Err(ItemError::Taken),
                false => items.add_file(&name, bytes),
            };
            added.map_err(|source| ConfigError::FwCfg { name, source })?;
        }
        let printer = printer.map(|printer| SharedPrinter(Arc::new(Mutex::new(printer))));
        Ok(Self { printer, items })
    }

    /// Whether there is a parallel port.
    pub(crate) fn has_printer(&self) -> bool {
        self.printer.is_some()
    }
}

/// A part of a kernel's files, which fw_cfg shares with who boots them.
struct KernelPart {
    kernel: Arc<KernelConfig>,
    /// In the initial RAM disk instead of the kernel.
    initrd: bool,
    range: Range<usize>,
}

impl AsRef<[u8]> for KernelPart {
    fn as_ref(&self) -> &[u8] {
        let file = match self.initrd {
            true => self.kernel.initrd.as_deref().unwrap_or_default(),
            false => &self.kernel.image,
        };
        file.get(self.range.clone()).unwrap_or_default()
    }
}

/// The size of a bzImage's real-mode part (Linux, `Documentation/arch/x86/boot.rst`); none for
/// other kernels.
fn setup_size(image: &[u8]) -> Option<usize> {
    const SETUP_SECTS: usize = 0x1f1;
    const MAGIC: usize = 0x202;
    (image.get(MAGIC..MAGIC + 4)? == b"HdrS").then_some(())?;
    let sectors = match image.get(SETUP_SECTS)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    Some((sectors + 1) * 512).filter(|size| *size <= image.len())
}

/// Adds what firmware that boots the kernel would want.
fn add_kernel(items: &mut FwCfgItems, kernel: &Arc<KernelConfig>) {
    let mut command_line = kernel.command_line.clone().into_bytes();
    command_line.push(0);
    items.set(key::CMDLINE_SIZE, (command_line.len() as u32).to_le_bytes().to_vec());
    items.set(key::CMDLINE_DATA, command_line);
    let mut add = |size_key, data_key, initrd, range: Range<usize>| {
        items.set(size_key, (range.len() as u32).to_le_bytes().to_vec());
        let part = KernelPart { kernel: kernel.clone(), initrd, range };
        items.share(data_key, Arc::new(part));
    };
    if let Some(initrd) = &kernel.initrd {
        add(key::INITRD_SIZE, key::INITRD_DATA, true, 0..initrd.len());
    }
    if let Some(setup) = setup_size(&kernel.image) {
        add(key::SETUP_SIZE, key::SETUP_DATA, false, 0..setup);
        add(key::KERNEL_SIZE, key::KERNEL_DATA, false, setup..kernel.image.len());
    }
}

/// Adds what the board is.
fn add_board(items: &mut FwCfgItems, parts: &BoardParts) {
    let layout = &parts.layout;
    let cpus = (parts.apics.len() as u16).to_le_bytes();
    items.set(key::RAM_SIZE, layout.ram_size().to_le_bytes().to_vec());
    items.set(key::NB_CPUS, cpus.to_vec());
    items.set(key::MAX_CPUS, cpus.to_vec());
    let io_apic = u32::from(parts.board == Board::Pc);
    items.set(key::IRQ0_OVERRIDE, io_apic.to_le_bytes().to_vec());
    let high = layout.ram_size() - layout.low_ram();
    let mut map = Vec::new();
    let usable = layout.usable_low_ram();
    let ranges = [
        (0, usable, E820_RAM),
        (usable, layout.low_ram() - usable, E820_RESERVED),
        (HIGH_RAM_START, high, E820_RAM),
    ];
    for (start, size, kind) in ranges {
        if size > 0 {
            map.extend(start.to_le_bytes());
            map.extend(size.to_le_bytes());
            map.extend(kind.to_le_bytes());
        }
    }
    // The name is free: users' items are refused it.
    let _ = items.add_file(E820_FILE, map);
}

/// Tells of a guest's events in the log.
#[derive(Default)]
struct EventLog(AtomicU32);

impl GuestEventSink for EventLog {
    fn guest_events(&self, events: GuestEvents) {
        if self.0.load(Ordering::Relaxed) >= MOST_LOGGED {
            return;
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        for (event, what) in [
            (GuestEvents::PANICKED, "The guest has panicked"),
            (GuestEvents::CRASH_LOADED, "The guest has panicked and starts its crash kernel"),
            (GuestEvents::SHUTDOWN, "The guest shuts down"),
        ] {
            if events.contains(event) {
                trivium_chipset::guest_log!(Warn, "{what}");
            }
        }
    }
}

impl Builder<'_> {
    /// All of them.
    pub(super) fn isa_devices(&mut self) -> Result<(), ConfigError> {
        let memory = Arc::new(GuestDma::new(self.parts.memory.clone()));
        self.add_ports("dma", &share(Dma::new(memory.clone())), &Dma::PORTS)?;
        let IsaParts { printer, items } = &self.parts.isa;
        if let Some(printer) = printer {
            let port = addresses::PARALLEL.0;
            let line = self.line(input::PARALLEL, source::ONLY);
            let device = ParallelPort::new(port, line, Box::new(printer.clone()));
            self.add_ports("parallel", &share(device), &[(port, ParallelPort::PORTS)])?;
        }
        let mut items = items.clone();
        add_board(&mut items, self.parts);
        let fw_cfg = share(FwCfg::new(items, memory));
        self.add_ports("fw-cfg", &fw_cfg, &[(FwCfg::BASE, FwCfg::PORTS)])?;
        let pvpanic = share(PvPanic::new(Arc::<EventLog>::default()));
        self.add_at("pvpanic", &pvpanic, &[PvPanic::PORT])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bzimage_is_cut_after_its_setup_sectors() {
        let mut image = vec![0; 4096];
        assert_eq!(setup_size(&image), None, "no bzImage");
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(setup_size(&image), Some(2560), "0 stands for 4");
        image[0x1f1] = 7;
        assert_eq!(setup_size(&image), Some(4096));
        image[0x1f1] = 8;
        assert_eq!(setup_size(&image), None, "cut short");
    }

    #[test]
    fn users_names_are_checked() {
        let with = |name: &str| {
            let files = vec![(name.to_owned(), vec![1])];
            IsaParts::new(None, files, None).err().map(|error| error.to_string())
        };
        assert_eq!(with("opt/a"), None);
        for bad in ["", "a b", E820_FILE, vmcoreinfo::FILE] {
            assert!(with(bad).is_some_and(|text| text.contains("opt/")), "{bad}");
        }
    }
}
