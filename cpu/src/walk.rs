//! The page walker: from linear to guest-physical addresses, with every check of the architecture.
//!
//! Intel SDM vol. 3A, chapter 4. Whether an address is canonical is the caller's to check first
//! (see [`is_canonical`]): such a failure is #GP or #SS, not #PF, and depends on the instruction.

#[cfg(test)]
mod tests;
mod view;

use trivium_memory::{Backing, GuestMemory};

use crate::Exception;
use crate::bits::{cr0, cr4, efer, pf};
use crate::state::Control;

pub use view::MemoryView;

/// Bits of paging-structure entries. Intel SDM vol. 3A, tables 4-5 to 4-20.
mod entry {
    /// Present.
    pub const P: u64 = 1 << 0;
    /// Writable.
    pub const RW: u64 = 1 << 1;
    /// Accessible to user mode.
    pub const US: u64 = 1 << 2;
    /// Accessed.
    pub const A: u64 = 1 << 5;
    /// Dirty.
    pub const D: u64 = 1 << 6;
    /// Maps a page (where it could also refer to a table).
    pub const PS: u64 = 1 << 7;
    /// Global.
    pub const G: u64 = 1 << 8;
    /// Execute-disable.
    pub const XD: u64 = 1 << 63;
    /// The highest address any format can hold: bits 12 to 51.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    /// The protection key's first bit; four bits wide.
    pub const KEY_SHIFT: u32 = 59;
}

/// How linear addresses are translated. Intel SDM vol. 3A, 4.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PagingMode {
    /// CR0.PG is clear.
    #[default]
    None,
    /// 32-bit paging.
    Legacy32,
    /// PAE paging.
    Pae,
    /// 4-level paging.
    Level4,
    /// 5-level paging.
    Level5,
}

/// What the walker needs of the control registers, in the form it needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paging {
    /// The paging mode.
    pub mode: PagingMode,
    /// CR3.
    pub cr3: u64,
    /// The page-directory-pointer registers of PAE paging.
    pub pdptr: [u64; 4],
    /// CR4.PSE: 4 MiB pages in 32-bit paging.
    pub pse: bool,
    /// EFER.NXE, in those modes that have execute-disable.
    pub nxe: bool,
    /// CR0.WP.
    pub wp: bool,
    /// CR4.SMEP.
    pub smep: bool,
    /// CR4.SMAP.
    pub smap: bool,
    /// CR4.PKE, in those modes that have protection keys.
    pub pke: bool,
    /// CR4.PGE.
    pub pge: bool,
    /// PKRU.
    pub pkru: u32,
    /// MAXPHYADDR.
    pub max_phys_bits: u8,
    /// Bits that must be zero in an entry of level 1 to 5 that refers to a table.
    reserved_table: [u64; 6],
    /// Bits that must be zero in an entry of level 1 to 3 that maps a page.
    reserved_page: [u64; 4],
}

/// Bits `low` to `high`, both included.
const fn bits(low: u32, high: u32) -> u64 {
    (!0 >> (63 - high)) & (!0 << low)
}

/// Bits 12 up to MAXPHYADDR.
const fn address_mask(max_phys_bits: u8) -> u64 {
    let width = if max_phys_bits > 52 { 52 } else { max_phys_bits as u32 };
    entry::ADDRESS & ((1 << width) - 1)
}

impl Paging {
    /// Reads the control registers of a CPU with 1 GiB pages.
    #[must_use]
    pub fn from_state(control: &Control, max_phys_bits: u8) -> Self {
        let (cr4, lma) = (control.cr4, control.efer & efer::LMA != 0);
        let pae = cr4 & cr4::PAE != 0;
        let mode = match (control.cr0 & cr0::PG != 0, pae, lma, cr4 & cr4::LA57 != 0) {
            (false, ..) => PagingMode::None,
            (true, false, ..) => PagingMode::Legacy32,
            (true, true, false, _) => PagingMode::Pae,
            (true, true, true, false) => PagingMode::Level4,
            (true, true, true, true) => PagingMode::Level5,
        };
        let paging = Self {
            mode,
            cr3: control.cr3,
            pdptr: control.pdptr,
            pse: cr4 & cr4::PSE != 0,
            nxe: pae && control.efer & efer::NXE != 0,
            wp: control.cr0 & cr0::WP != 0,
            smep: cr4 & cr4::SMEP != 0,
            smap: cr4 & cr4::SMAP != 0,
            pke: lma && cr4 & cr4::PKE != 0,
            pge: cr4 & cr4::PGE != 0,
            pkru: control.pkru,
            max_phys_bits,
            ..Self::default()
        };
        paging.with_reserved_bits()
    }

    /// The same for a CPU without 1 GiB pages (`pdpe1gb`).
    #[must_use]
    pub fn without_gigabyte_pages(mut self) -> Self {
        if matches!(self.mode, PagingMode::Level4 | PagingMode::Level5) {
            self.reserved_page[3] |= entry::PS;
        }
        self
    }

    /// The same for a CPU of AMD's: bit 8, which Intel's ignore, must be zero in entries above the
    /// page-directory-pointer table. AMD APM vol. 2, 5.3.3, "4-Kbyte PML4E, Long Mode".
    #[must_use]
    pub fn of_amd(mut self) -> Self {
        if matches!(self.mode, PagingMode::Level4 | PagingMode::Level5) {
            self.reserved_table[4] |= entry::G;
            self.reserved_table[5] |= entry::G;
        }
        self
    }

    /// Fills in the reserved bits. Intel SDM vol. 3A, 4.4.2 (PAE) and 4.5.4 (4- and 5-level).
    fn with_reserved_bits(mut self) -> Self {
        let mut always = entry::ADDRESS & !address_mask(self.max_phys_bits);
        if !self.nxe {
            always |= entry::XD;
        }
        if self.mode == PagingMode::Pae {
            always |= bits(52, 62);
        }
        let ps = entry::PS;
        self.reserved_table = [0, 0, always, always, always | ps, always | ps];
        self.reserved_page = [0, always, always | bits(13, 20), always | bits(13, 29)];
        self
    }

    /// The error code that says what kind of access `access` is. Intel SDM vol. 3A, figure 4-12.
    fn access_code(&self, access: Access) -> u32 {
        let mut code = 0;
        if access.write {
            code |= pf::W;
        }
        if access.user {
            code |= pf::U;
        }
        if access.fetch && (self.smep || self.nxe) {
            code |= pf::I;
        }
        code
    }
}

/// An access to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// It writes (reading and writing included).
    pub write: bool,
    /// It fetches instructions.
    pub fetch: bool,
    /// It is made at CPL 3, and is not an implicit supervisor access (to a descriptor table, say).
    pub user: bool,
    /// EFLAGS.AC is set, and it is an explicit access: SMAP does not apply.
    pub ac: bool,
}

/// Where a linear address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The guest-physical address of the linear address itself.
    pub gpa: u64,
    /// The size of the page in bytes; with paging off, 4 KiB.
    pub page_size: u64,
    /// The same access as a write would succeed, and would not need to set the dirty flag.
    pub writable: bool,
    /// User mode may access the page.
    pub user: bool,
    /// The same access as an instruction fetch would succeed.
    pub executable: bool,
    /// The translation outlives a change of CR3.
    pub global: bool,
    /// The dirty flag is set.
    pub dirty: bool,
}

/// Whether an address is canonical: with 57 bits if CR4.LA57 is set, else with 48.
/// Intel SDM vol. 1, 3.3.7.1.
#[inline]
#[must_use]
pub const fn is_canonical(linear: u64, level5: bool) -> bool {
    let unused = if level5 { 64 - 57 } else { 64 - 48 };
    ((linear << unused) as i64 >> unused) as u64 == linear
}

/// Translates a canonical address, and sets accessed and dirty flags if the access succeeds.
///
/// # Errors
/// The page fault that the access raises.
pub fn walk(
    paging: &Paging,
    memory: &GuestMemory,
    linear: u64,
    access: Access,
) -> Result<Translation, Exception> {
    walk_in(paging, memory, &MemoryView::new(memory), linear, access)
}

/// [`walk`] with the caller's copy of the memory map, which it keeps up to date.
///
/// # Errors
/// As [`walk`].
pub fn walk_in(
    paging: &Paging,
    memory: &GuestMemory,
    view: &MemoryView,
    linear: u64,
    access: Access,
) -> Result<Translation, Exception> {
    if paging.mode == PagingMode::None {
        return Ok(identity(linear));
    }
    let path = Path::find(paging, memory, view, linear, access, |_| ())?;
    path.check(paging, linear, access)?;
    if path.has_flags(access) {
        return Ok(path.translation(paging, linear, access));
    }
    loop {
        if let Some(translation) = walk_and_set_flags(paging, memory, view, linear, access)? {
            return Ok(translation);
        }
        // Another processor has changed an entry meanwhile.
    }
}

/// The walk once more, to set the flags that it found missing. Nothing if an entry changed.
#[cold]
fn walk_and_set_flags(
    paging: &Paging,
    memory: &GuestMemory,
    view: &MemoryView,
    linear: u64,
    access: Access,
) -> Result<Option<Translation>, Exception> {
    let (mut slots, mut used) = ([Slot::EMPTY; 5], 0);
    let mut path = Path::find(paging, memory, view, linear, access, |slot| {
        if let Some(place) = slots.get_mut(used) {
            *place = slot;
            used += 1;
        }
    })?;
    path.check(paging, linear, access)?;
    let Some((leaf, tables)) = slots.get(..used).and_then(<[Slot]>::split_last) else {
        return Ok(None);
    };
    let flags = if access.write { entry::A | entry::D } else { entry::A };
    let wide = paging.mode != PagingMode::Legacy32;
    if !tables.iter().all(|slot| slot.set(memory, entry::A, wide)) || !leaf.set(memory, flags, wide)
    {
        return Ok(None);
    }
    path.leaf |= flags;
    Ok(Some(path.translation(paging, linear, access)))
}

/// [`walk`] without a trace: no flag is set. For debuggers.
///
/// # Errors
/// As [`walk`].
pub fn probe(
    paging: &Paging,
    memory: &GuestMemory,
    linear: u64,
    access: Access,
) -> Result<Translation, Exception> {
    if paging.mode == PagingMode::None {
        return Ok(identity(linear));
    }
    let view = MemoryView::new(memory);
    let path = Path::find(paging, memory, &view, linear, access, |_| ())?;
    path.check(paging, linear, access)?;
    Ok(path.translation(paging, linear, access))
}

/// Reads and checks the four page-directory-pointer entries, as MOV to CR3 does under PAE paging,
/// and MOV to CR0 or CR4 where it changes what they depend on. Intel SDM vol. 3A, 4.4.1.
///
/// # Errors
/// #GP(0): a present entry has reserved bits set.
pub fn load_pdptrs(
    memory: &GuestMemory,
    cr3: u64,
    max_phys_bits: u8,
) -> Result<[u64; 4], Exception> {
    let reserved = !(address_mask(max_phys_bits) | bits(9, 11) | bits(3, 4) | entry::P);
    let view = MemoryView::new(memory);
    let mut pdptr = [0; 4];
    for (value, at) in pdptr.iter_mut().zip((cr3 & 0xffff_ffe0..).step_by(8)) {
        *value = Slot::read_u64(memory, &view, at).value;
        if *value & entry::P != 0 && *value & reserved != 0 {
            return Err(Exception::gp(0));
        }
    }
    Ok(pdptr)
}

/// The translation while paging is off.
fn identity(linear: u64) -> Translation {
    Translation {
        gpa: linear & 0xffff_ffff,
        page_size: 4096,
        writable: true,
        user: true,
        executable: true,
        global: false,
        dirty: true,
    }
}

/// An entry as it was read, and where from.
#[derive(Clone, Copy)]
struct Slot {
    /// Offset in the arena; `None` if flags cannot be set there.
    ram: Option<usize>,
    value: u64,
}

impl Slot {
    const EMPTY: Self = Self { ram: None, value: 0 };

    #[inline]
    fn read_u64(memory: &GuestMemory, view: &MemoryView, gpa: u64) -> Self {
        match view.lookup(gpa) {
            Backing::Ram(offset) => Self { ram: Some(offset), value: memory.ram().load(offset) },
            Backing::Rom(offset) => Self { ram: None, value: memory.ram().load(offset) },
            // Neither RAM nor ROM answers: open bus.
            Backing::Mmio { .. } | Backing::Nothing => Self { ram: None, value: !0 },
        }
    }

    #[inline]
    fn read_u32(memory: &GuestMemory, view: &MemoryView, gpa: u64) -> Self {
        let (ram, value) = match view.lookup(gpa) {
            Backing::Ram(offset) => (Some(offset), memory.ram().load(offset)),
            Backing::Rom(offset) => (None, memory.ram().load(offset)),
            Backing::Mmio { .. } | Backing::Nothing => (None, u32::MAX),
        };
        Self { ram, value: u64::from(value) }
    }

    /// Sets flags in the entry with a locked access; false if it is not what was read any more.
    fn set(&self, memory: &GuestMemory, flags: u64, wide: bool) -> bool {
        let Some(offset) = self.ram else { return true };
        let new = self.value | flags;
        if new == self.value {
            return true;
        }
        let ram = memory.ram();
        let unchanged = if wide {
            ram.compare_exchange_u64(offset, self.value, new) == self.value
        } else {
            let old = self.value as u32;
            ram.compare_exchange_u32(offset, old, new as u32) == old
        };
        if unchanged {
            let bytes = if wide { 8 } else { 4 };
            memory.dirty().mark(offset, bytes);
            memory.code().note_write(offset, bytes);
        }
        unchanged
    }
}

/// What the entries that a walk went through say together.
struct Path {
    /// Their conjunction: R/W, U/S and A count only if set in each.
    all: u64,
    /// Their disjunction: XD counts if set in any.
    any: u64,
    /// The one that maps the page.
    leaf: u64,
    /// Guest-physical address of the page.
    base: u64,
    page_size: u64,
}

impl Path {
    /// Walks the tables, and shows `visit` each entry.
    #[inline(always)]
    fn find(
        paging: &Paging,
        memory: &GuestMemory,
        view: &MemoryView,
        linear: u64,
        access: Access,
        visit: impl FnMut(Slot),
    ) -> Result<Self, Exception> {
        let read = |gpa| Slot::read_u64(memory, view, gpa);
        let address = address_mask(paging.max_phys_bits);
        let found = match paging.mode {
            PagingMode::Level4 => {
                Self::find_wide::<4>(paging, paging.cr3 & address, linear, read, visit)
            }
            PagingMode::Level5 => {
                Self::find_wide::<5>(paging, paging.cr3 & address, linear, read, visit)
            }
            PagingMode::Pae => match paging.pdptr[(linear >> 30 & 3) as usize] {
                pdpte if pdpte & entry::P == 0 => Err(0),
                pdpte => Self::find_wide::<2>(paging, pdpte & address, linear, read, visit),
            },
            PagingMode::Legacy32 | PagingMode::None => {
                let read = |gpa| Slot::read_u32(memory, view, gpa);
                Self::find_32(paging, linear, read, visit)
            }
        };
        found.map_err(|code| fault(paging, code, linear, access))
    }

    /// Walks tables of eight-byte entries down from level `TOP`. Fails with the bits of the error
    /// code that do not come from the access.
    #[inline(always)]
    fn find_wide<const TOP: usize>(
        paging: &Paging,
        mut table: u64,
        linear: u64,
        read: impl Fn(u64) -> Slot,
        mut visit: impl FnMut(Slot),
    ) -> Result<Self, u32> {
        let (mut all, mut any) = (!0, 0);
        for level in (1..=TOP).rev() {
            let shift = 3 + 9 * level as u32;
            let slot = read(table | (linear >> shift & 0x1ff) << 3);
            visit(slot);
            let leaf = slot.value;
            if leaf & entry::P == 0 {
                return Err(0);
            }
            all &= leaf;
            any |= leaf;
            let maps_page = level == 1 || (leaf & entry::PS != 0 && level <= 3);
            let reserved = match maps_page {
                true => paging.reserved_page[level & 3],
                false => paging.reserved_table[level],
            };
            if leaf & reserved != 0 {
                return Err(pf::P | pf::RSVD);
            }
            table = leaf & entry::ADDRESS;
            if maps_page {
                let page_size = 1 << shift;
                return Ok(Self { all, any, leaf, base: table & !(page_size - 1), page_size });
            }
        }
        // Level 1 always maps a page.
        Err(0)
    }

    /// Walks the two levels of 32-bit paging. Intel SDM vol. 3A, 4.3. Fails as [`Self::find_wide`].
    fn find_32(
        paging: &Paging,
        linear: u64,
        read: impl Fn(u64) -> Slot,
        mut visit: impl FnMut(Slot),
    ) -> Result<Self, u32> {
        let slot = read(paging.cr3 & 0xffff_f000 | (linear >> 22 & 0x3ff) << 2);
        visit(slot);
        let pde = slot.value;
        if pde & entry::P == 0 {
            return Err(0);
        }
        if paging.pse && pde & entry::PS != 0 {
            // PSE-36: address bits 32 and up stand in bits 13 and up, as many as the CPU has.
            let high_bits = u32::from(paging.max_phys_bits.clamp(32, 40)) - 32;
            if pde & bits(13, 21) & (!0 << (13 + high_bits)) != 0 {
                return Err(pf::P | pf::RSVD);
            }
            let base = pde & 0xffc0_0000 | (pde & bits(13, 20)) << (32 - 13);
            return Ok(Self { all: pde, any: pde, leaf: pde, base, page_size: 4 << 20 });
        }
        let slot = read(pde & 0xffff_f000 | (linear >> 12 & 0x3ff) << 2);
        visit(slot);
        let pte = slot.value;
        if pte & entry::P == 0 {
            return Err(0);
        }
        let base = pte & 0xffff_f000;
        Ok(Self { all: pde & pte, any: pde | pte, leaf: pte, base, page_size: 4096 })
    }

    #[inline]
    fn check(&self, paging: &Paging, linear: u64, access: Access) -> Result<(), Exception> {
        let key_violation = self.violates_key(paging, access);
        if self.permits(paging, access) && !key_violation {
            return Ok(());
        }
        let pk = if key_violation { pf::PK } else { 0 };
        Err(fault(paging, pf::P | pk, linear, access))
    }

    /// Access rights without protection keys. Intel SDM vol. 3A, 4.6.1.
    #[inline]
    fn permits(&self, paging: &Paging, access: Access) -> bool {
        let user_page = self.all & entry::US != 0;
        let mode = if access.user {
            user_page
        } else if access.fetch {
            !(user_page && paging.smep)
        } else {
            !(user_page && paging.smap) || access.ac
        };
        let write = !access.write || self.all & entry::RW != 0 || !(access.user || paging.wp);
        let execute = !access.fetch || !paging.nxe || self.any & entry::XD == 0;
        mode && write && execute
    }

    /// Protection keys. Intel SDM vol. 3A, 4.6.2.
    #[inline]
    fn violates_key(&self, paging: &Paging, access: Access) -> bool {
        if !paging.pke || access.fetch || self.all & entry::US == 0 {
            return false;
        }
        let rights = paging.pkru >> ((self.leaf >> entry::KEY_SHIFT & 15) * 2);
        let (access_disable, write_disable) = (rights & 1 != 0, rights & 2 != 0);
        access_disable || (write_disable && access.write && (access.user || paging.wp))
    }

    /// Whether the accessed flags, and for a write the dirty flag, are set already.
    /// Intel SDM vol. 3A, 4.8.
    #[inline]
    fn has_flags(&self, access: Access) -> bool {
        self.all & entry::A != 0 && (!access.write || self.leaf & entry::D != 0)
    }

    #[inline]
    fn translation(&self, paging: &Paging, linear: u64, access: Access) -> Translation {
        let dirty = self.leaf & entry::D != 0;
        let as_write = Access { write: true, fetch: false, ..access };
        let as_fetch = Access { write: false, fetch: true, ..access };
        Translation {
            gpa: self.base | linear & (self.page_size - 1),
            page_size: self.page_size,
            writable: dirty
                && self.permits(paging, as_write)
                && !self.violates_key(paging, as_write),
            user: self.all & entry::US != 0,
            executable: self.permits(paging, as_fetch),
            global: paging.pge && self.leaf & entry::G != 0,
            dirty,
        }
    }
}

/// A page fault whose error code has `code` and what tells of the access.
#[cold]
fn fault(paging: &Paging, code: u32, linear: u64, access: Access) -> Exception {
    Exception::page_fault(code | paging.access_code(access), linear)
}
