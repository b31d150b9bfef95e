//! The state in which the first processor enters the kernel, and the tables in low memory that
//! the state needs: GDT and page tables.

use trivium_memory::{GuestMemory, GuestPhysAddr};

use crate::LoadError;

/// The code segment's selector (`__BOOT_CS` of the Linux/x86 boot protocol).
pub const BOOT_CS: u16 = 0x10;
/// The selector of the data segments (`__BOOT_DS` of the Linux/x86 boot protocol).
pub const BOOT_DS: u16 = 0x18;
/// The task register's selector: a busy TSS at 0 (asked for by the PVH start protocol).
pub const BOOT_TR: u16 = 0x20;

/// Where what the loader makes lies below 1 MiB. Kernels take what they need from there first
/// and then use the memory for themselves.
pub mod low {
    use std::ops::Range;

    /// The GDT, five descriptors.
    pub const GDT: u64 = 0x500;
    /// `hvm_start_info` with its lists, or the Multiboot information.
    pub const START_INFO: Range<u64> = 0x1000..0x7000;
    /// Linux's `boot_params` (the zero page).
    pub const BOOT_PARAMS: u64 = 0x7000;
    /// Top of a small stack for the first instructions of the kernel, growing down.
    pub const STACK_TOP: u64 = 0x9000;
    /// The root of the page tables (PML4), followed by a PDPT and four page directories.
    pub const PML4: u64 = 0x9000;
    /// The kernel's command line.
    pub const COMMAND_LINE: Range<u64> = 0x1_0000..0x2_0000;
    /// All of it: no part of a kernel may be loaded below its end.
    pub const END: u64 = 0x2_0000;
}

/// Descriptors of the GDT by index (Intel SDM vol. 3A 3.4.5): base 0, limit 4 GiB, ring 0,
/// present and accessed.
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
/// A busy 32-bit TSS at 0 with limit 67h; in long mode the same type is the 64-bit TSS.
const TSS: u64 = 0x0000_8b00_0000_0067;

/// The number of descriptors in the GDT. In long mode the TSS descriptor has two halves.
const GDT_ENTRIES: usize = 6;

/// How the processor runs when the kernel is entered. Interrupts are off in either case, A20 is
/// open, and CR0.CD and CR0.NW are clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryMode {
    /// 64-bit mode: CR0.PE, PG and ET, CR4.PAE, EFER.LME and LMA set.
    Long {
        /// The root of the page tables, for CR3: the first 4 GiB are mapped to themselves.
        cr3: GuestPhysAddr,
    },
    /// 32-bit protected mode without paging: of CR0 only PE and ET set.
    Protected32,
}

/// The state in which the first processor enters the kernel. General registers not named are 0,
/// RFLAGS is 2, DS, ES, SS, FS and GS have [`BOOT_DS`], the IDT's limit is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootState {
    /// How the processor runs.
    pub mode: EntryMode,
    /// The first instruction.
    pub rip: u64,
    /// RSI: for Linux, the address of `boot_params`.
    pub rsi: u64,
    /// RBX: the address of what Multiboot and PVH kernels are told.
    pub rbx: u64,
    /// RAX: the magic number of Multiboot loaders.
    pub rax: u64,
    /// RSP.
    pub rsp: u64,
    /// Base for GDTR.
    pub gdt_base: GuestPhysAddr,
    /// Limit for GDTR: the last byte's offset.
    pub gdt_limit: u16,
    /// The descriptors in the GDT, for the hidden parts of the segment registers: index 2 is CS,
    /// 3 the data segments, 4 TR (in long mode, with its upper half 0 in 5).
    pub gdt: [u64; GDT_ENTRIES],
}

impl BootState {
    /// Enters 64-bit code: writes the GDT and page tables.
    pub(crate) fn long(memory: &GuestMemory, rip: u64) -> Result<Self, LoadError> {
        write_page_tables(memory)?;
        Self::new(memory, EntryMode::Long { cr3: GuestPhysAddr(low::PML4) }, CODE_64, rip)
    }

    /// Enters 32-bit code: writes the GDT.
    pub(crate) fn protected32(memory: &GuestMemory, rip: u64) -> Result<Self, LoadError> {
        Self::new(memory, EntryMode::Protected32, CODE_32, rip)
    }

    fn new(memory: &GuestMemory, mode: EntryMode, code: u64, rip: u64) -> Result<Self, LoadError> {
        let gdt = [0, 0, code, DATA, TSS, 0];
        let bytes: Vec<u8> = gdt.iter().flat_map(|d| d.to_le_bytes()).collect();
        memory.write(GuestPhysAddr(low::GDT), &bytes)?;
        Ok(Self {
            mode,
            rip,
            rsi: 0,
            rbx: 0,
            rax: 0,
            rsp: low::STACK_TOP,
            gdt_base: GuestPhysAddr(low::GDT),
            gdt_limit: (GDT_ENTRIES * 8 - 1) as u16,
            gdt,
        })
    }
}

/// Page table entry bits (Intel SDM vol. 3A 4.5).
const PTE_PRESENT: u64 = 1 << 0;
const PTE_WRITE: u64 = 1 << 1;
const PDE_PAGE_SIZE: u64 = 1 << 7;

/// Maps the first 4 GiB to themselves with pages of 2 MiB.
fn write_page_tables(memory: &GuestMemory) -> Result<(), LoadError> {
    const PAGE: u64 = 0x1000;
    const DIRECTORIES: u64 = 4;
    let pdpt = low::PML4 + PAGE;
    let directories = pdpt + PAGE;
    let table = PTE_PRESENT | PTE_WRITE;
    write_table(memory, low::PML4, std::iter::once(pdpt | table))?;
    write_table(memory, pdpt, (0..DIRECTORIES).map(|i| (directories + i * PAGE) | table))?;
    for i in 0..DIRECTORIES {
        let pages = (0..512).map(|n| ((i << 30) + (n << 21)) | table | PDE_PAGE_SIZE);
        write_table(memory, directories + i * PAGE, pages)?;
    }
    Ok(())
}

/// Writes one page of page table entries, the rest of it 0.
fn write_table(
    memory: &GuestMemory,
    at: u64,
    entries: impl Iterator<Item = u64>,
) -> Result<(), LoadError> {
    let mut page: Vec<u8> = entries.take(512).flat_map(u64::to_le_bytes).collect();
    page.resize(0x1000, 0);
    memory.write(GuestPhysAddr(at), &page)?;
    Ok(())
}
