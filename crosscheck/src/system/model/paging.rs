//! Paging. Intel SDM vol. 3A, chapter 4.

/// Whose manual is followed where they differ.
pub use trivium_cpu::model::Vendor;

/// What a processor has of paging (CPUID).
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// Whose it is.
    pub vendor: Vendor,
    /// MAXPHYADDR.
    pub max_physical: u32,
    /// 4 MiB pages above 4 GiB.
    pub pse36: bool,
    /// 1 GiB pages.
    pub page1gb: bool,
}

/// The registers that say how an address is translated, and who asks.
#[derive(Debug, Clone, Copy)]
pub struct Registers {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// RFLAGS.AC.
    pub ac: bool,
    /// The current privilege level.
    pub cpl: u8,
    /// The PDPTE registers of PAE paging.
    pub pdpte: [u64; 4],
}

/// What is asked for. 4.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A data read.
    Read,
    /// A data write, or a read that a write follows.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// An access, in one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The linear address.
    pub linear: u64,
    /// What is asked for.
    pub kind: Kind,
    /// An access that the processor makes of itself, to a descriptor for example.
    pub implicit: bool,
}

/// A flag to be set in a paging-structure entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// The entry's physical address.
    pub entry: u64,
    /// The bit: accessed (5) or dirty (6).
    pub bit: u32,
}

/// A translation that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translation {
    /// The physical address.
    pub physical: u64,
    /// The flags that are then set. 4.8.
    pub flags: Vec<Flag>,
}

/// A page fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageFault {
    /// The error code.
    pub code: u32,
    /// Flags that may be set nevertheless: the accessed flags of entries that were used.
    pub flags: Vec<Flag>,
}

const CR0_WP: u32 = 16;
const CR0_PG: u32 = 31;
const CR4_PSE: u32 = 4;
const CR4_PAE: u32 = 5;
const CR4_LA57: u32 = 12;
const CR4_SMEP: u32 = 20;
const CR4_SMAP: u32 = 21;
const EFER_LMA: u32 = 10;
const EFER_NXE: u32 = 11;

const P: u32 = 0;
const RW: u32 = 1;
const US: u32 = 2;
const ACCESSED: u32 = 5;
const DIRTY: u32 = 6;
const PS: u32 = 7;
const XD: u32 = 63;

/// The error code of #PF. Figure 4-12.
const CODE_P: u32 = 1 << 0;
const CODE_WR: u32 = 1 << 1;
const CODE_US: u32 = 1 << 2;
const CODE_RSVD: u32 = 1 << 3;
const CODE_ID: u32 = 1 << 4;

/// The paging modes. Table 4-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// CR0.PG = 0.
    None,
    /// CR0.PG = 1, CR4.PAE = 0.
    Bits32,
    /// CR0.PG = 1, CR4.PAE = 1, EFER.LMA = 0.
    Pae,
    /// CR0.PG = 1, CR4.PAE = 1, EFER.LMA = 1, CR4.LA57 = 0.
    Level4,
    /// The same with CR4.LA57 = 1.
    Level5,
}

/// A paging structure: which bits of the linear address select its entry, and what the entry is.
#[derive(Debug)]
pub struct Structure {
    /// The entry's name.
    pub name: &'static str,
    /// The lowest bit of the linear address that selects an entry; a page that the entry maps has
    /// as many bits.
    pub shift: u32,
    /// How many bits select it.
    pub width: u32,
    /// When an entry maps a page.
    page: MapsPage,
    /// Which bits must be zero, and when.
    reserved: &'static [Reserved],
}

/// When an entry maps a page. Tables 4-4 to 4-20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MapsPage {
    Always,
    Never,
    /// If PS is set.
    Ps,
    /// If PS and CR4.PSE are set.
    PsIfPse,
}

/// Bits `low` to `high` are reserved in the case of `when`.
#[derive(Debug)]
struct Reserved {
    when: When,
    low: Bound,
    high: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// The entry maps a page.
    Page,
    /// IA32_EFER.NXE = 0.
    NoNxe,
    /// There are no 1 GiB pages.
    No1Gb,
    /// AMD processors.
    Amd,
}

/// A bit's number.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Bit(u32),
    /// MAXPHYADDR.
    M,
    /// In a PDE that maps 4 MiB, the first bit past the address: M - 19 for M the lesser of 40 and
    /// MAXPHYADDR, or 13 without PSE-36. 4.3.
    PastPse36,
}
use Bound::{Bit, M, PastPse36};

const fn reserved(when: When, low: Bound, high: Bound) -> Reserved {
    Reserved { when, low, high }
}

// 4.3: 32-bit paging.
const PDE_32: Structure = Structure {
    name: "PDE",
    shift: 22,
    width: 10,
    page: MapsPage::PsIfPse,
    reserved: &[reserved(When::Page, PastPse36, Bit(21))],
};
const PTE_32: Structure =
    Structure { name: "PTE", shift: 12, width: 10, page: MapsPage::Always, reserved: &[] };

// 4.4.2: PAE paging. Bits 62 to MAXPHYADDR are reserved in both structures.
const PDE_PAE: Structure = Structure {
    name: "PDE",
    shift: 21,
    width: 9,
    page: MapsPage::Ps,
    reserved: &[
        reserved(When::Always, M, Bit(62)),
        reserved(When::NoNxe, Bit(63), Bit(63)),
        reserved(When::Page, Bit(13), Bit(20)),
    ],
};
const PTE_PAE: Structure = Structure {
    name: "PTE",
    shift: 12,
    width: 9,
    page: MapsPage::Always,
    reserved: &[reserved(When::Always, M, Bit(62)), reserved(When::NoNxe, Bit(63), Bit(63))],
};

// 4.5.4: 4-level and 5-level paging. AMD APM vol. 2, 5.3.3, "4-Kbyte PML4E, Long Mode": bits 8 and
// 7 of entries above the page-directory-pointer table must be zero; Intel reserves bit 7 alone.
const TOP_RESERVED: &[Reserved] = &[
    reserved(When::Always, M, Bit(51)),
    reserved(When::NoNxe, Bit(63), Bit(63)),
    reserved(When::Always, Bit(7), Bit(7)),
    reserved(When::Amd, Bit(8), Bit(8)),
];
const PML5E: Structure =
    Structure { name: "PML5E", shift: 48, width: 9, page: MapsPage::Never, reserved: TOP_RESERVED };
const PML4E: Structure =
    Structure { name: "PML4E", shift: 39, width: 9, page: MapsPage::Never, reserved: TOP_RESERVED };
const PDPTE: Structure = Structure {
    name: "PDPTE",
    shift: 30,
    width: 9,
    page: MapsPage::Ps,
    reserved: &[
        reserved(When::Always, M, Bit(51)),
        reserved(When::NoNxe, Bit(63), Bit(63)),
        reserved(When::Page, Bit(13), Bit(29)),
        reserved(When::No1Gb, Bit(7), Bit(7)),
    ],
};
const PDE: Structure = Structure {
    name: "PDE",
    shift: 21,
    width: 9,
    page: MapsPage::Ps,
    reserved: &[
        reserved(When::Always, M, Bit(51)),
        reserved(When::NoNxe, Bit(63), Bit(63)),
        reserved(When::Page, Bit(13), Bit(20)),
    ],
};
const PTE: Structure = Structure {
    name: "PTE",
    shift: 12,
    width: 9,
    page: MapsPage::Always,
    reserved: &[reserved(When::Always, M, Bit(51)), reserved(When::NoNxe, Bit(63), Bit(63))],
};

/// The PDPTE registers. 4.4.1: bits 1 and 2, 5 to 8, and from MAXPHYADDR on are reserved.
const PDPTE_PAE: Structure = Structure {
    name: "PDPTE",
    shift: 30,
    width: 2,
    page: MapsPage::Never,
    reserved: &[
        reserved(When::Always, Bit(1), Bit(2)),
        reserved(When::Always, Bit(5), Bit(8)),
        reserved(When::Always, M, Bit(63)),
    ],
};

impl Mode {
    /// The structures that a walk reads from memory, the first is found through CR3, or in PAE
    /// paging a PDPTE register.
    #[must_use]
    pub fn structures(self) -> &'static [Structure] {
        match self {
            Self::None => &[],
            Self::Bits32 => &[PDE_32, PTE_32],
            Self::Pae => &[PDE_PAE, PTE_PAE],
            Self::Level4 => &[PML4E, PDPTE, PDE, PTE],
            Self::Level5 => &[PML5E, PML4E, PDPTE, PDE, PTE],
        }
    }

    /// Bytes of an entry.
    #[must_use]
    pub fn entry_size(self) -> u64 {
        if self == Self::Bits32 { 4 } else { 8 }
    }
}

fn bit(value: u64, number: u32) -> bool {
    value >> number & 1 != 0
}

/// Bits `low` to `high`, none if `low` is above `high`.
fn bits(low: u32, high: u32) -> u64 {
    (low..=high).fold(0, |mask, n| mask | 1 << n)
}

/// A processor whose registers hold this.
#[derive(Debug, Clone, Copy)]
pub struct Processor {
    /// What it has.
    pub features: Features,
    /// What its registers hold.
    pub registers: Registers,
}

impl Processor {
    /// Table 4-1.
    #[must_use]
    pub fn mode(&self) -> Mode {
        let Registers { cr0, cr4, efer, .. } = self.registers;
        match (bit(cr0, CR0_PG), bit(cr4, CR4_PAE), bit(efer, EFER_LMA), bit(cr4, CR4_LA57)) {
            (false, ..) => Mode::None,
            (true, false, ..) => Mode::Bits32,
            (true, true, false, _) => Mode::Pae,
            (true, true, true, false) => Mode::Level4,
            (true, true, true, true) => Mode::Level5,
        }
    }

    /// Whether IA32_EFER.NXE counts: 32-bit paging has no execute-disable.
    fn nxe(&self) -> bool {
        self.mode() != Mode::Bits32 && bit(self.registers.efer, EFER_NXE)
    }

    /// 4.4.1: loads the PDPTE registers, as MOV to CR3 does. `None` is #GP(0).
    #[must_use]
    pub fn load_pdptes(&self, cr3: u64, memory: impl Fn(u64, u64) -> u64) -> Option<[u64; 4]> {
        let table = cr3 & bits(5, 31);
        let entries = [0, 1, 2, 3].map(|index| memory(table + 8 * index, 8));
        let good = |&e: &u64| !bit(e, P) || e & self.reserved(&PDPTE_PAE, e) == 0;
        entries.iter().all(good).then_some(entries)
    }

    /// Vol. 2B, MOV to control registers: whether CR3 can hold this value in 64-bit mode.
    #[must_use]
    pub fn cr3_is_good(&self, value: u64, pcide: bool) -> bool {
        // With PCIDs, bit 63 of the operand says whether translations are kept.
        let high = if pcide { 62 } else { 63 };
        value & bits(self.features.max_physical, high) == 0
    }

    /// Whether an address is canonical. Vol. 1, 3.3.7.1.
    #[must_use]
    pub fn is_canonical(&self, linear: u64) -> bool {
        let highest = match self.mode() {
            Mode::Level5 => 56,
            Mode::Level4 => 47,
            _ => return true,
        };
        let upper = linear & bits(highest, 63);
        upper == 0 || upper == bits(highest, 63)
    }

    /// The bits of an entry that must be zero.
    #[must_use]
    pub fn reserved(&self, structure: &Structure, entry: u64) -> u64 {
        let Features { vendor, max_physical, pse36, page1gb } = self.features;
        let number = |bound| match bound {
            Bit(n) => n,
            M => max_physical,
            PastPse36 if pse36 => max_physical.min(40) - 19,
            PastPse36 => 13,
        };
        let applies = |when| match when {
            When::Always => true,
            When::Page => self.maps_page(structure, entry),
            When::NoNxe => !self.nxe(),
            When::No1Gb => !page1gb,
            When::Amd => vendor == Vendor::Amd,
        };
        let rules = structure.reserved.iter().filter(|r| applies(r.when));
        rules.fold(0, |mask, r| mask | bits(number(r.low), number(r.high)))
    }

    /// Whether an entry maps a page, and does not refer to a further structure.
    #[must_use]
    pub fn maps_page(&self, structure: &Structure, entry: u64) -> bool {
        match structure.page {
            MapsPage::Always => true,
            MapsPage::Never => false,
            MapsPage::Ps => bit(entry, PS),
            MapsPage::PsIfPse => bit(entry, PS) && bit(self.registers.cr4, CR4_PSE),
        }
    }

    /// The page that an entry maps. Tables 4-4 to 4-20; 4.3 for the odd one.
    fn page(&self, structure: &Structure, entry: u64) -> u64 {
        if structure.shift == 22 {
            return entry & bits(22, 31) | (entry & bits(13, 20)) << 19;
        }
        entry & bits(structure.shift, 51)
    }

    /// The entries that a walk reads, as (address, entry), and where it ends.
    fn walk(&self, linear: u64, memory: impl Fn(u64, u64) -> u64) -> Walk {
        let mode = self.mode();
        let mut table = match mode {
            Mode::Pae => {
                let pdpte = self.registers.pdpte[(linear >> 30 & 3) as usize];
                if !bit(pdpte, P) {
                    return Walk { entries: Vec::new(), end: End::NotPresent };
                }
                pdpte & bits(12, 51)
            }
            Mode::Bits32 => self.registers.cr3 & bits(12, 31),
            _ => self.registers.cr3 & bits(12, 51),
        };
        let mut entries = Vec::new();
        for structure in mode.structures() {
            let index = linear >> structure.shift & bits(0, structure.width - 1);
            let address = table + index * mode.entry_size();
            let entry = memory(address, mode.entry_size());
            if !bit(entry, P) {
                return Walk { entries, end: End::NotPresent };
            }
            if entry & self.reserved(structure, entry) != 0 {
                return Walk { entries, end: End::Reserved };
            }
            entries.push((address, entry));
            if self.maps_page(structure, entry) {
                let offset = linear & bits(0, structure.shift - 1);
                let end = End::Page(self.page(structure, entry) + offset);
                return Walk { entries, end };
            }
            table = entry & bits(12, 51);
        }
        unreachable!("the last structure's entries map pages")
    }

    /// Where an address leads, whatever the rights.
    #[must_use]
    pub fn locate(&self, linear: u64, memory: impl Fn(u64, u64) -> u64) -> Option<u64> {
        match self.walk(linear, memory).end {
            End::Page(physical) => Some(physical),
            End::NotPresent | End::Reserved => None,
        }
    }

    /// Translates an address. `memory` gives the entry at a physical address, of so many bytes.
    ///
    /// # Errors
    /// The page fault.
    pub fn translate(
        &self,
        access: Access,
        memory: impl Fn(u64, u64) -> u64,
    ) -> Result<Translation, PageFault> {
        if self.mode() == Mode::None {
            return Ok(Translation { physical: access.linear, flags: Vec::new() });
        }
        let Walk { entries, end } = self.walk(access.linear, memory);
        let used = entries.iter().map(|&(entry, _)| Flag { entry, bit: ACCESSED });
        let mut flags: Vec<_> = used.collect();
        let fault = |code: u32| code | self.code(access);
        let physical = match end {
            End::NotPresent => return Err(PageFault { code: fault(0), flags }),
            End::Reserved => return Err(PageFault { code: fault(CODE_P | CODE_RSVD), flags }),
            End::Page(_) if !self.allowed(access, &entries) => {
                return Err(PageFault { code: fault(CODE_P), flags });
            }
            End::Page(physical) => physical,
        };
        if access.kind == Kind::Write {
            flags.extend(entries.last().map(|&(entry, _)| Flag { entry, bit: DIRTY }));
        }
        Ok(Translation { physical, flags })
    }

    /// Whether it is a user-mode access. 4.6.
    fn is_user(&self, access: Access) -> bool {
        self.registers.cpl == 3 && !access.implicit
    }

    /// 4.6.1: whether the access rights of the entries, taken together, allow an access.
    fn allowed(&self, access: Access, entries: &[(u64, u64)]) -> bool {
        let Registers { cr0, cr4, ac, .. } = self.registers;
        let all = |number| entries.iter().all(|&(_, entry)| bit(entry, number));
        let any = |number| entries.iter().any(|&(_, entry)| bit(entry, number));
        let (user_page, writable) = (all(US), all(RW));
        let supervisor_writes = writable || !bit(cr0, CR0_WP);
        let executable = !self.nxe() || !any(XD);
        // Data at a user-mode address, for the supervisor.
        let smap = bit(cr4, CR4_SMAP) && (!ac || access.implicit);
        match (self.is_user(access), access.kind, user_page) {
            (false, Kind::Read, false) => true,
            (false, Kind::Read, true) => !smap,
            (false, Kind::Write, false) => supervisor_writes,
            (false, Kind::Write, true) => supervisor_writes && !smap,
            (false, Kind::Fetch, false) => executable,
            (false, Kind::Fetch, true) => !bit(cr4, CR4_SMEP) && executable,
            (true, _, false) => false,
            (true, Kind::Read, true) => true,
            (true, Kind::Write, true) => writable,
            (true, Kind::Fetch, true) => executable,
        }
    }

    /// The bits of the error code that tell of the access. 4.7.
    fn code(&self, access: Access) -> u32 {
        let fetch = access.kind == Kind::Fetch;
        let told = self.nxe() || bit(self.registers.cr4, CR4_SMEP);
        let write = if access.kind == Kind::Write { CODE_WR } else { 0 };
        let user = if self.is_user(access) { CODE_US } else { 0 };
        write | user | if fetch && told { CODE_ID } else { 0 }
    }
}

/// What a walk found.
struct Walk {
    /// The entries used for the translation: address and value.
    entries: Vec<(u64, u64)>,
    end: End,
}

/// Where a walk ended.
enum End {
    /// At a page: the physical address.
    Page(u64),
    NotPresent,
    Reserved,
}

#[cfg(test)]
mod tests;
