//! How instructions reach memory.
//!
//! Handlers use [`load!`](crate::load), [`store!`](crate::store) and [`modify!`](crate::modify):
//! one lookup in the TLB, and on a miss they return to be begun again. General and system functions
//! use the methods of [`Cpu`] here, which walk page tables, cross pages and reach device registers.
//! Both check everything before they change anything.

use trivium_cpu::state::{SS, SegmentAttributes};
use trivium_cpu::walk::{self, PagingMode, is_canonical};
use trivium_cpu::{Exception, Vector};
use trivium_memory::{Backing, Word};

use crate::cpu::{Access, Cpu, Miss, Mode, Space};
use crate::op::{Op, Stop, StopReason};
use crate::tlb::Tlb;

/// An integer of an operand size.
pub trait Int: Word + Into<u64> + PartialEq {
    /// Number of the sign bit.
    const SIGN: u8;
    /// All bits of the width.
    const MASK: u64;
    /// Truncates.
    fn of(value: u64) -> Self;
    /// Writes a register as the architecture does: 32 bits zero the rest, 8 and 16 leave it.
    fn set(cpu: &mut Cpu, reg: u8, shift: u8, value: u64);
    /// Compares and exchanges, locked; gives what was there.
    fn compare_exchange(cpu: &Cpu, offset: usize, old: Self, new: Self) -> Self;

    /// Reads a register, zero-extended.
    #[inline(always)]
    fn get(cpu: &Cpu, reg: u8, shift: u8) -> u64 {
        if Self::BYTES == 1 {
            cpu.regs[usize::from(reg)] >> (shift & 63) & 0xff
        } else {
            cpu.regs[usize::from(reg)] & Self::MASK
        }
    }
}

macro_rules! int {
    ($t:ty, $exchange:ident, |$cpu:ident, $reg:ident, $shift:ident, $value:ident| $set:expr) => {
        impl Int for $t {
            const SIGN: u8 = (<$t>::BITS - 1) as u8;
            const MASK: u64 = <$t>::MAX as u64;
            #[inline(always)]
            fn of(value: u64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn set($cpu: &mut Cpu, $reg: u8, $shift: u8, $value: u64) {
                $set
            }
            #[inline(always)]
            fn compare_exchange(cpu: &Cpu, offset: usize, old: Self, new: Self) -> Self {
                cpu.ram.$exchange(offset, old, new)
            }
        }
    };
}
int!(u8, compare_exchange_u8, |cpu, reg, shift, value| {
    let reg = &mut cpu.regs[usize::from(reg)];
    let shift = shift & 63;
    *reg = *reg & !(0xff << shift) | (value & 0xff) << shift;
});
int!(u16, compare_exchange_u16, |cpu, reg, _shift, value| {
    let reg = &mut cpu.regs[usize::from(reg)];
    *reg = *reg & !0xffff | value & 0xffff;
});
int!(u32, compare_exchange_u32, |cpu, reg, _shift, value| {
    cpu.regs[usize::from(reg)] = value & 0xffff_ffff;
});
int!(u64, compare_exchange_u64, |cpu, reg, _shift, value| cpu.regs[usize::from(reg)] = value);

/// How a handler computes linear addresses; each handler with a memory operand exists once for each.
pub trait Addressing {
    /// The linear address of the memory operand.
    fn linear(cpu: &mut Cpu, op: &Op, size: usize, write: bool) -> Result<u64, Stop>;
    /// The effective address, for LEA.
    fn offset(cpu: &Cpu, op: &Op) -> u64;
}

/// 64-bit addresses of base and displacement in a segment without base.
pub struct Simple64;
/// 64-bit addresses of any form.
pub struct Flat64;
/// 32-bit addresses of any form in segments that span everything.
pub struct Flat32;
/// Everything else, with all checks of segmentation.
pub struct Segmented;

#[inline(always)]
fn sum(cpu: &Cpu, op: &Op) -> u64 {
    cpu.regs[usize::from(op.base)]
        .wrapping_add(cpu.regs[usize::from(op.index)] << (op.scale & 3))
        .wrapping_add(op.disp)
}

impl Addressing for Simple64 {
    #[inline(always)]
    fn linear(cpu: &mut Cpu, op: &Op, _: usize, _: bool) -> Result<u64, Stop> {
        Ok(Self::offset(cpu, op))
    }
    #[inline(always)]
    fn offset(cpu: &Cpu, op: &Op) -> u64 {
        cpu.regs[usize::from(op.base)].wrapping_add(op.disp)
    }
}

impl Addressing for Flat64 {
    #[inline(always)]
    fn linear(cpu: &mut Cpu, op: &Op, _: usize, _: bool) -> Result<u64, Stop> {
        Ok(sum(cpu, op).wrapping_add(cpu.regs[usize::from(op.seg_base())]))
    }
    #[inline(always)]
    fn offset(cpu: &Cpu, op: &Op) -> u64 {
        sum(cpu, op)
    }
}

impl Addressing for Flat32 {
    #[inline(always)]
    fn linear(cpu: &mut Cpu, op: &Op, _: usize, _: bool) -> Result<u64, Stop> {
        Ok(sum(cpu, op) & 0xffff_ffff)
    }
    #[inline(always)]
    fn offset(cpu: &Cpu, op: &Op) -> u64 {
        sum(cpu, op) & 0xffff_ffff
    }
}

impl Addressing for Segmented {
    #[inline(always)]
    fn linear(cpu: &mut Cpu, op: &Op, size: usize, write: bool) -> Result<u64, Stop> {
        let offset = cpu.offset(op);
        cpu.linear(op.seg, offset, size as u64, write)
    }
    #[inline(always)]
    fn offset(cpu: &Cpu, op: &Op) -> u64 {
        cpu.offset(op)
    }
}

/// In a handler: the value of the memory operand, or return.
#[macro_export]
#[doc(hidden)]
macro_rules! load {
    ($a:ty, $t:ty, $cpu:ident, $op:ident, $rest:ident, $block:ident) => {{
        let Ok(linear) = <$a>::linear($cpu, $op, size_of::<$t>(), false) else {
            return $cpu.stop_at($crate::op::StopReason::Exception, $rest.len(), $block);
        };
        $crate::load_at!($t, linear, $cpu, $op.seg, $rest, $block)
    }};
}

/// In a handler: the value at a linear address, or return.
#[macro_export]
#[doc(hidden)]
macro_rules! load_at {
    ($t:ty, $linear:expr, $cpu:ident, $seg:expr, $rest:ident, $block:ident) => {{
        let linear: u64 = $linear;
        match $cpu.tlb_read::<$t>(linear) {
            Some(value) => value,
            None => {
                let what = $crate::mem::READ | size_of::<$t>() as u32;
                return $cpu.missed(linear, what, $seg, $rest.len(), $block);
            }
        }
    }};
}

/// In a handler: stores to the memory operand, or return.
#[macro_export]
#[doc(hidden)]
macro_rules! store {
    ($a:ty, $t:ty, $value:expr, $cpu:ident, $op:ident, $rest:ident, $block:ident) => {{
        let Ok(linear) = <$a>::linear($cpu, $op, size_of::<$t>(), true) else {
            return $cpu.stop_at($crate::op::StopReason::Exception, $rest.len(), $block);
        };
        $crate::store_at!($t, linear, $value, $cpu, $op.seg, $rest, $block)
    }};
}

/// In a handler: stores at a linear address, or return.
#[macro_export]
#[doc(hidden)]
macro_rules! store_at {
    ($t:ty, $linear:expr, $value:expr, $cpu:ident, $seg:expr, $rest:ident, $block:ident) => {{
        let linear: u64 = $linear;
        match $cpu.tlb_write::<$t>(linear) {
            Some(offset) => $cpu.ram.store::<$t>(offset, $value),
            None => {
                let what = $crate::mem::WRITE | size_of::<$t>() as u32;
                return $cpu.missed(linear, what, $seg, $rest.len(), $block);
            }
        }
    }};
}

/// In a handler: the arena offset of a memory operand that is to be read and written, or return.
#[macro_export]
#[doc(hidden)]
macro_rules! modify {
    ($a:ty, $t:ty, $cpu:ident, $op:ident, $rest:ident, $block:ident) => {{
        let Ok(linear) = <$a>::linear($cpu, $op, size_of::<$t>(), true) else {
            return $cpu.stop_at($crate::op::StopReason::Exception, $rest.len(), $block);
        };
        match $cpu.tlb_write::<$t>(linear) {
            Some(offset) => offset,
            None => {
                let what = $crate::mem::MODIFY | size_of::<$t>() as u32;
                return $cpu.missed(linear, what, $op.seg, $rest.len(), $block);
            }
        }
    }};
}

/// For [`Cpu::missed`]: a load, plus the size in bytes.
pub const READ: u32 = 0;
/// A store.
pub const WRITE: u32 = 0x100;
/// Both.
pub const MODIFY: u32 = 0x200;

/// Device registers on their way between general functions, which do not know the platform, and
/// the outer loop, which does.
///
/// A function that loads from a device stops, is given the value, and is begun again; it finds
/// the value here. Its stores wait here until it is complete.
#[derive(Debug, Default)]
pub struct Mmio {
    /// Values loaded for the present instruction, in the order in which it asks for them.
    loaded: Vec<[u8; 16]>,
    /// How many of them it has used since it was begun again.
    used: usize,
    /// What it asks for.
    pub wanted: DeviceAccess,
    /// What it has stored.
    stores: Vec<(DeviceAccess, [u8; 16])>,
}

/// An access to a device register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceAccess {
    /// Guest-physical address.
    pub gpa: u64,
    /// Size in bytes, at most 16.
    pub size: u8,
}

impl Mmio {
    /// The instruction is begun again.
    pub fn rewind(&mut self) {
        self.used = 0;
        self.stores.clear();
    }

    /// The instruction is complete, or given up.
    #[inline]
    pub fn forget(&mut self) {
        if self.is_used() {
            self.loaded.clear();
            self.stores.clear();
        }
        self.used = 0;
    }

    /// The value that was wanted.
    pub fn provide(&mut self, value: [u8; 16]) {
        self.loaded.push(value);
    }

    /// Whether the present instruction has loaded or stored something.
    #[inline]
    #[must_use]
    pub fn is_used(&self) -> bool {
        !(self.loaded.is_empty() && self.stores.is_empty())
    }

    /// Takes the stores that wait.
    pub fn stores(&mut self) -> impl Iterator<Item = (DeviceAccess, [u8; 16])> + '_ {
        self.stores.drain(..)
    }
}

/// Under whose rights an access is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// The running program's.
    Program,
    /// The running program's, for accesses whose alignment is not checked.
    Unaligned,
    /// The processor's own, to descriptor tables and the like: supervisor, whatever CPL is.
    Processor,
}

/// What lies at a linear address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// RAM at this arena offset.
    Ram(usize),
    /// ROM at this arena offset, and its guest-physical address: writes go to the bus.
    Rom(usize, u64),
    /// A device, or nothing, at this guest-physical address.
    Device(u64),
}

impl Cpu {
    /// Records an access that the TLB could not serve; the handler returns and is begun again.
    /// `what` is [`READ`], [`WRITE`] or [`MODIFY`] plus the size.
    #[cold]
    #[inline(never)]
    pub fn missed(
        &mut self,
        linear: u64,
        what: u32,
        seg: u8,
        rest: usize,
        block: &crate::block::Block,
    ) {
        let kind = match what & !0xff {
            READ => Access::Read,
            WRITE => Access::Write,
            _ => Access::Modify,
        };
        self.miss = Miss { linear, size: what as u8, kind, seg };
        self.stop_at(StopReason::Miss, rest, block);
    }

    /// Loads through the TLB.
    #[inline(always)]
    #[must_use]
    pub fn tlb_read<T: Word>(&self, linear: u64) -> Option<T> {
        let entry = &self.tlb.read[Tlb::index(linear)];
        if entry.has(linear.wrapping_add(T::BYTES as u64 - 1)) {
            Some(self.ram.load_at(linear.wrapping_add(entry.addend)))
        } else {
            None
        }
    }

    /// The arena offset of a place that may be stored to, through the TLB.
    #[inline(always)]
    #[must_use]
    pub fn tlb_write<T: Word>(&self, linear: u64) -> Option<usize> {
        let entry = &self.tlb.write[Tlb::index(linear)];
        if entry.has(linear.wrapping_add(T::BYTES as u64 - 1)) {
            Some(self.ram.offset_of(linear.wrapping_add(entry.addend)))
        } else {
            None
        }
    }

    /// The effective address of the memory operand, cut to the address size.
    #[must_use]
    pub fn offset(&self, op: &Op) -> u64 {
        sum(self, op) & address_mask(op.asize)
    }

    /// The linear address of `size` bytes at `offset` of a segment, with the checks of
    /// segmentation or of canonical form. Intel SDM vol. 3A, 5.3 to 5.5; vol. 1, 3.3.7.1.
    ///
    /// # Errors
    /// #GP(0), or #SS(0) for the stack segment.
    #[inline(never)]
    pub fn linear(&mut self, seg: u8, offset: u64, size: u64, write: bool) -> Result<u64, Stop> {
        if self.mode.has(Mode::LONG) {
            let base = self.regs[usize::from(crate::cpu::SEG_BASE + seg)];
            let linear = offset.wrapping_add(base);
            let level5 = self.control.cr4 & trivium_cpu::bits::cr4::LA57 != 0;
            let last = linear.wrapping_add(size.saturating_sub(1));
            if is_canonical(linear, level5) && is_canonical(last, level5) {
                return Ok(linear);
            }
        } else if self.segment_allows(seg, offset, size, write) {
            let base = self.segments.regs[usize::from(seg)].base;
            return Ok(offset.wrapping_add(base) & 0xffff_ffff);
        }
        let vector = if usize::from(seg) == SS { Vector::SS } else { Vector::GP };
        Err(self.raise(Exception::with_code(vector, 0)))
    }

    fn segment_allows(&self, seg: u8, offset: u64, size: u64, write: bool) -> bool {
        use SegmentAttributes as A;
        let segment = &self.segments.regs[usize::from(seg)];
        let attributes = segment.attributes;
        if self.mode.has(Mode::PROTECTED) {
            let code = attributes.has(A::CODE);
            let writable = attributes.has(A::WRITABLE);
            let forbidden = if write { code || !writable } else { code && !writable };
            if !attributes.has(A::P) || forbidden {
                return false;
            }
        }
        let last = offset.saturating_add(size.saturating_sub(1));
        let limit = u64::from(segment.limit);
        if attributes.has(A::EXPAND_DOWN) && !attributes.has(A::CODE) {
            let top = if attributes.has(A::DB) { 0xffff_ffff } else { 0xffff };
            offset > limit && last <= top
        } else {
            last <= limit
        }
    }

    /// Raises #GP(0) or #SS(0) if an access of a handler is at an address that is not canonical, or
    /// goes on beyond the last byte that a segment can have: flat code, whose handlers look at no
    /// limit, gets here with those by the check for two pages.
    pub(crate) fn check_bounds(&mut self, linear: u64, size: u8, seg: u8) -> Result<(), Stop> {
        let good = if self.mode.has(Mode::LONG) {
            let level5 = self.control.cr4 & trivium_cpu::bits::cr4::LA57 != 0;
            let last = linear.wrapping_add(u64::from(size) - 1);
            is_canonical(linear, level5) && is_canonical(last, level5)
        } else {
            let base = self.segments.regs.get(usize::from(seg)).map_or(0, |s| s.base);
            let offset = linear.wrapping_sub(base) & 0xffff_ffff;
            offset + u64::from(size) <= 1 << 32
        };
        if good {
            return Ok(());
        }
        let vector = if usize::from(seg) == SS { Vector::SS } else { Vector::GP };
        Err(self.raise(Exception::with_code(vector, 0)))
    }

    fn walk(
        &mut self,
        linear: u64,
        write: bool,
        rights: Rights,
    ) -> Result<walk::Translation, Stop> {
        let program = rights != Rights::Processor;
        if !program {
            self.check_canonical_table(linear)?;
        }
        let access = walk::Access {
            write,
            fetch: false,
            user: program && self.cpl() == 3,
            ac: program && self.space == Space::SupervisorAc,
        };
        match walk::walk_in(&self.paging, &self.memory, &self.view, linear, access) {
            Ok(found) => Ok(found),
            Err(exception) => Err(self.raise(exception)),
        }
    }

    /// Raises #GP(0) if the address of the processor's own access, to a descriptor table for
    /// example, is not canonical; a program's addresses have been checked before.
    fn check_canonical_table(&mut self, linear: u64) -> Result<(), Stop> {
        let level5 = match self.paging.mode {
            PagingMode::Level4 => false,
            PagingMode::Level5 => true,
            PagingMode::None | PagingMode::Legacy32 | PagingMode::Pae => return Ok(()),
        };
        if is_canonical(linear, level5) { Ok(()) } else { Err(self.raise(Exception::gp(0))) }
    }

    /// Walks the page tables and enters the page into the TLB, as far as it may be there.
    pub(crate) fn translate(
        &mut self,
        linear: u64,
        write: bool,
        rights: Rights,
    ) -> Result<Place, Stop> {
        let space = if rights == Rights::Processor { Space::Supervisor } else { self.space };
        if let Some(gpa) = self.tlb_of(space).device(linear, write) {
            return Ok(Place::Device(gpa));
        }
        let found = self.walk(linear, write, rights)?;
        let ram = self.ram.base_address();
        let may_cache = self.may_cache(linear);
        match self.view.lookup(found.gpa) {
            Backing::Ram(offset) => {
                let may_write = write && !self.memory.code().has_code(offset);
                if may_write {
                    self.memory.dirty().mark(offset, 1);
                }
                if !may_cache {
                    return Ok(Place::Ram(offset));
                }
                let tlb = self.tlb_of(space);
                let host = ram.wrapping_add(offset as u64);
                tlb.fill(linear, host, false, found.global);
                if may_write {
                    tlb.fill(linear, host, true, found.global);
                }
                if found.page_size > 4096 {
                    tlb.note_large(linear, found.page_size);
                }
                Ok(Place::Ram(offset))
            }
            Backing::Rom(offset) if !may_cache => Ok(Place::Rom(offset, found.gpa)),
            Backing::Rom(offset) => {
                let host = ram.wrapping_add(offset as u64);
                self.tlb_of(space).fill(linear, host, false, found.global);
                Ok(Place::Rom(offset, found.gpa))
            }
            Backing::Mmio { .. } | Backing::Nothing => {
                let tlb = self.tlb_of(space);
                tlb.fill_device(linear, found.gpa, write, found.global);
                if found.page_size > 4096 {
                    tlb.note_large(linear, found.page_size);
                }
                Ok(Place::Device(found.gpa))
            }
        }
    }

    /// The TLB of a space.
    pub(crate) fn tlb_of(&mut self, space: Space) -> &mut Tlb {
        match &mut self.tlbs[space as usize] {
            Some(tlb) if space != self.space => tlb,
            _ => &mut self.tlb,
        }
    }

    /// Where an access goes, from the TLB if it is there.
    fn place(&mut self, linear: u64, write: bool, rights: Rights) -> Result<Place, Stop> {
        let space = if rights == Rights::Processor { Space::Supervisor } else { self.space };
        let tlb = self.tlb_of(space);
        let entries = if write { &tlb.write } else { &tlb.read };
        let entry = entries[Tlb::index(linear)];
        if entry.has(linear) {
            return Ok(Place::Ram(self.ram.offset_of(linear.wrapping_add(entry.addend))));
        }
        self.translate(linear, write, rights)
    }

    /// The guest-physical address that a linear one is translated to, for a load.
    ///
    /// # Errors
    /// #PF.
    pub(crate) fn physical(&mut self, linear: u64, rights: Rights) -> Result<u64, Stop> {
        self.walk(linear, false, rights).map(|found| found.gpa)
    }

    /// Loads from a linear address.
    ///
    /// # Errors
    /// #AC, #PF, or the value of a device is still to be fetched.
    pub fn load_linear<T: Scalar>(&mut self, linear: u64, rights: Rights) -> Result<T, Stop> {
        if rights != Rights::Processor {
            if let Some(value) = self.tlb_read::<T>(linear) {
                return Ok(value);
            }
            let align = if rights == Rights::Program { T::BYTES as u64 } else { 1 };
            self.examine(linear, T::BYTES as u64, align, false)?;
        }
        let in_page = 4096 - (linear & 0xfff) as usize;
        if T::BYTES <= in_page {
            let place = self.place(linear, false, rights)?;
            return self.load_place(place);
        }
        let next = self.wrap_linear(linear.wrapping_add(in_page as u64));
        let places = [self.place(linear, false, rights)?, self.place(next, false, rights)?];
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate().take(T::BYTES) {
            let (place, at) =
                if index < in_page { (places[0], index) } else { (places[1], index - in_page) };
            *byte = self.load_place(place.plus(at))?;
        }
        Ok(T::from_bytes(bytes))
    }

    /// Linear addresses have 32 bits outside 64-bit mode.
    fn wrap_linear(&self, linear: u64) -> u64 {
        if self.long_mode() { linear } else { linear & 0xffff_ffff }
    }

    fn load_place<T: Scalar>(&mut self, place: Place) -> Result<T, Stop> {
        match place {
            Place::Ram(offset) | Place::Rom(offset, _) => Ok(self.ram.load(offset)),
            Place::Device(gpa) => {
                let Some(bytes) = self.mmio.loaded.get(self.mmio.used) else {
                    self.mmio.wanted = DeviceAccess { gpa, size: T::BYTES as u8 };
                    self.stop = StopReason::MmioRead;
                    return Err(Stop);
                };
                self.mmio.used += 1;
                Ok(T::from_bytes(*bytes))
            }
        }
    }

    /// Stores to a linear address; both pages are checked before either is changed.
    ///
    /// # Errors
    /// #PF.
    pub fn store_linear<T: Scalar>(
        &mut self,
        linear: u64,
        value: T,
        rights: Rights,
    ) -> Result<(), Stop> {
        if rights != Rights::Processor {
            if let Some(offset) = self.tlb_write::<T>(linear) {
                self.ram.store(offset, value);
                return Ok(());
            }
            let align = if rights == Rights::Program { T::BYTES as u64 } else { 1 };
            self.examine(linear, T::BYTES as u64, align, true)?;
        }
        let in_page = 4096 - (linear & 0xfff) as usize;
        let first = self.place(linear, true, rights)?;
        if T::BYTES <= in_page {
            self.store_place(first, value);
            return Ok(());
        }
        let next = self.wrap_linear(linear.wrapping_add(in_page as u64));
        let second = self.place(next, true, rights)?;
        let bytes = value.to_bytes();
        for (index, byte) in bytes.iter().enumerate().take(T::BYTES) {
            let place =
                if index < in_page { first.plus(index) } else { second.plus(index - in_page) };
            self.store_place(place, *byte);
        }
        Ok(())
    }

    pub(crate) fn store_place<T: Scalar>(&mut self, place: Place, value: T) {
        match place {
            Place::Ram(offset) => {
                self.ram.store(offset, value);
                self.memory.dirty().mark(offset, T::BYTES);
                self.note_code_write(offset, T::BYTES);
            }
            Place::Rom(_, gpa) | Place::Device(gpa) => {
                let access = DeviceAccess { gpa, size: T::BYTES as u8 };
                self.mmio.stores.push((access, value.to_bytes()));
                self.leave = true;
            }
        }
    }

    /// If a store hit decoded code, the code is to be decoded anew before the next instruction.
    pub(crate) fn note_code_write(&mut self, offset: usize, len: usize) {
        if self.memory.code().has_code(offset) {
            self.memory.code().note_write(offset, len);
            if self.code_is_written() {
                self.leave = true;
            }
        }
    }

    /// Checks that a range can be accessed throughout, as an instruction must that accesses it in
    /// several pieces.
    ///
    /// # Errors
    /// #AC, #PF.
    pub fn probe(
        &mut self,
        linear: u64,
        len: u64,
        write: bool,
        rights: Rights,
    ) -> Result<(), Stop> {
        // Pieces of other sizes are parts of operands that are aligned otherwise, or not at all.
        if rights == Rights::Program && len <= 16 && len.is_power_of_two() {
            self.check_alignment(linear, len)?;
        }
        self.place(linear, write, rights)?;
        let last = linear.wrapping_add(len.saturating_sub(1));
        if last & !0xfff != linear & !0xfff {
            // A fault is reported at the first byte that cannot be accessed.
            self.place(self.wrap_linear(last & !0xfff), write, rights)?;
        }
        Ok(())
    }

    /// Loads from `offset` of a segment.
    ///
    /// # Errors
    /// #GP, #SS, #PF, or the value of a device is still to be fetched.
    pub fn load_seg<T: Scalar>(&mut self, seg: u8, offset: u64) -> Result<T, Stop> {
        let linear = self.linear(seg, offset, T::BYTES as u64, false)?;
        self.load_linear(linear, Rights::Program)
    }

    /// Stores to `offset` of a segment.
    ///
    /// # Errors
    /// #GP, #SS, #PF.
    pub fn store_seg<T: Scalar>(&mut self, seg: u8, offset: u64, value: T) -> Result<(), Stop> {
        let linear = self.linear(seg, offset, T::BYTES as u64, true)?;
        self.store_linear(linear, value, Rights::Program)
    }

    /// Loads the memory operand.
    ///
    /// # Errors
    /// As [`Self::load_seg`].
    pub fn load_operand<T: Scalar>(&mut self, op: &Op) -> Result<T, Stop> {
        self.load_seg(op.seg, self.offset(op))
    }

    /// Stores to the memory operand.
    ///
    /// # Errors
    /// As [`Self::store_seg`].
    pub fn store_operand<T: Scalar>(&mut self, op: &Op, value: T) -> Result<(), Stop> {
        self.store_seg(op.seg, self.offset(op), value)
    }

    /// Loads `size` bytes (1, 2, 4 or 8) from `offset` of a segment, zero-extended.
    ///
    /// # Errors
    /// As [`Self::load_seg`].
    pub fn load_sized(&mut self, seg: u8, offset: u64, size: u8) -> Result<u64, Stop> {
        Ok(match size {
            1 => self.load_seg::<u8>(seg, offset)?.into(),
            2 => self.load_seg::<u16>(seg, offset)?.into(),
            4 => self.load_seg::<u32>(seg, offset)?.into(),
            _ => self.load_seg::<u64>(seg, offset)?,
        })
    }

    /// Stores `size` bytes (1, 2, 4 or 8) to `offset` of a segment.
    ///
    /// # Errors
    /// As [`Self::store_seg`].
    pub fn store_sized(&mut self, seg: u8, offset: u64, size: u8, value: u64) -> Result<(), Stop> {
        match size {
            1 => self.store_seg(seg, offset, value as u8),
            2 => self.store_seg(seg, offset, value as u16),
            4 => self.store_seg(seg, offset, value as u32),
            _ => self.store_seg(seg, offset, value),
        }
    }

    /// Reads a general register of `size` bytes, zero-extended; `shift` as in [`Op::dst_shift`].
    #[must_use]
    pub fn reg(&self, reg: u8, shift: u8, size: u8) -> u64 {
        match size {
            1 => u8::get(self, reg, shift),
            2 => u16::get(self, reg, 0),
            4 => u32::get(self, reg, 0),
            _ => u64::get(self, reg, 0),
        }
    }

    /// Writes a general register of `size` bytes; `shift` as in [`Op::dst_shift`].
    pub fn set_reg(&mut self, reg: u8, shift: u8, size: u8, value: u64) {
        match size {
            1 => u8::set(self, reg, shift, value),
            2 => u16::set(self, reg, 0, value),
            4 => u32::set(self, reg, 0, value),
            _ => u64::set(self, reg, 0, value),
        }
    }
}

impl Place {
    fn plus(self, bytes: usize) -> Self {
        match self {
            Self::Ram(offset) => Self::Ram(offset + bytes),
            Self::Rom(offset, gpa) => Self::Rom(offset + bytes, gpa.wrapping_add(bytes as u64)),
            Self::Device(gpa) => Self::Device(gpa + bytes as u64),
        }
    }
}

/// The bits of an address of `size` bytes.
#[must_use]
pub fn address_mask(size: u8) -> u64 {
    crate::cpu::mask_of(u32::from(size) * 8)
}

/// A value that general functions load and store, in parts where they must.
pub trait Scalar: Word {
    /// From its little-endian bytes; the rest is ignored.
    fn from_bytes(bytes: [u8; 16]) -> Self;
    /// Its little-endian bytes; the rest is zero.
    fn to_bytes(self) -> [u8; 16];
}

macro_rules! scalar {
    ($($t:ty),*) => {$(
        impl Scalar for $t {
            fn from_bytes(bytes: [u8; 16]) -> Self {
                u128::from_le_bytes(bytes) as $t
            }
            fn to_bytes(self) -> [u8; 16] {
                u128::from(self).to_le_bytes()
            }
        }
    )*};
}
scalar!(u8, u16, u32, u64);

impl Scalar for [u64; 2] {
    fn from_bytes(bytes: [u8; 16]) -> Self {
        let value = u128::from_le_bytes(bytes);
        [value as u64, (value >> 64) as u64]
    }
    fn to_bytes(self) -> [u8; 16] {
        (u128::from(self[1]) << 64 | u128::from(self[0])).to_le_bytes()
    }
}
