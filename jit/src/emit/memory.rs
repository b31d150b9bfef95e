//! Addresses and accesses to guest memory.

use std::mem::offset_of;

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, MemoryOperand, Register};
use trivium_interp::Cpu;
use trivium_interp::cpu::{Mode, SEG_BASE};
use trivium_interp::native::{NATIVE_SITES, Native, NativeSites};
use trivium_interp::tlb::{Entry, Tlb};

use super::encode::{self, Address};
use super::{Emitter, Way};
use crate::crossing;
use crate::enter::Exit;
use crate::planted::{self, Bug};
use crate::regs::{Home, RCX_HOME, at, near, number_of, wide};
use crate::simd_state::ALIGNED;
use crate::spans::Member;

/// Of [`Native::spans`].
const SPANS: i32 = at(offset_of!(Cpu, native)) + offset_of!(Native, spans) as i32;
pub(crate) const READ: i32 = offset_of!(Tlb, read) as i32;
pub(crate) const WRITE: i32 = offset_of!(Tlb, write) as i32;
pub(crate) const ADDEND: i32 = offset_of!(Entry, addend) as i32;
const _: () = assert!(size_of::<Entry>() == 16 && offset_of!(Entry, tag) == 0);

/// The translation that an access has found last, in the state.
const fn site_tag(site: u16) -> i32 {
    at(SITES + offset_of!(NativeSites, entries)) + 16 * site as i32
}

const fn site_addend(site: u16) -> i32 {
    site_tag(site) + ADDEND
}

/// How often it has found another.
const fn site_misses(site: u16) -> i32 {
    at(SITES + offset_of!(NativeSites, misses)) + 4 * site as i32
}

const SITES: usize = offset_of!(Cpu, native) + offset_of!(Native, sites);
const WINDOW: i32 = at(SITES + offset_of!(NativeSites, window));
const SITES_FILLED: i32 = at(SITES + offset_of!(NativeSites, filled));

/// A way to a translation that is not remembered, emitted after the code.
pub(crate) struct Fill {
    from: DynamicLabel,
    back: DynamicLabel,
    out: DynamicLabel,
    site: u16,
    at: At,
    access: Wanted,
    /// What a sum of 64 bits is to the one of 32 that an address of 32-bit code is.
    sum: Sum,
}

/// How a sum of 64 bits may differ from one of 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sum {
    /// Not at all: it is an address.
    Same,
    /// It must not, or the access is the interpreter's.
    MustBeSame,
    /// The same, for all accesses of a span.
    MustBeFar,
    /// It may: what is remembered belongs to the sum of 64 bits.
    Any,
}

/// An address: a register of the host, so many times, and a displacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) base: u8,
    pub(crate) scale: u8,
    pub(crate) plus: i32,
}

impl At {
    /// A register and a displacement.
    pub(crate) const fn sum(base: u8, plus: i32) -> Self {
        Self { base, scale: 1, plus }
    }
}

/// Displacements of 32-bit code that accesses of a span may have, both signs: as far from both ends of
/// all addresses no sum has more than 32 bits.
const NEAR: i32 = 0x8000;

/// One that has been computed.
const IN_R8: At = At::sum(8, 0);

/// What an access wants of memory.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    size: usize,
    alignment: usize,
    write: bool,
}

impl Wanted {
    /// Whether it is on the page that it begins on, if it is where it may be at all.
    fn by_page(self) -> bool {
        // With that bug no window would be the right one.
        if planted::has(Bug::NoLastByte) {
            return true;
        }
        self.size == 1 || self.alignment > 1 || planted::has(Bug::PageForWindow)
    }
}

/// An access that remembers its translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    /// Address of its instruction.
    pub(crate) ip: u64,
    write: bool,
    /// It is a span's: copies of the instruction have others.
    span: bool,
    pub(crate) number: u16,
}

/// The numbers for accesses that remember their translations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sites {
    /// Those that are left.
    pub(crate) free: Vec<u16>,
    pub(crate) used: Vec<Site>,
    /// Addresses of instructions that mostly find another translation than last time.
    pub(crate) scattered: Vec<u64>,
}

impl Sites {
    /// The number for an access.
    fn of(&mut self, ip: u64, write: bool, span: bool) -> Option<u16> {
        if self.scattered.contains(&ip) {
            return None;
        }
        let shared = |site: &&Site| !span && !site.span && (site.ip, site.write) == (ip, write);
        if let Some(site) = self.used.iter().find(shared) {
            return Some(site.number);
        }
        let number = self.free.pop()?;
        self.used.push(Site { ip, write, span, number });
        Some(number)
    }
}

impl Emitter {
    /// Whether a memory operand is one that is reached by its linear address alone.
    pub(crate) fn is_plain(&self, i: &Instruction, write: bool) -> bool {
        let wide_enough = |register: Register, none: bool| match register {
            Register::None => none,
            register => (4..=8).contains(&register.size()),
        };
        let long = self.mode.has(Mode::LONG);
        let segment = match i.memory_segment() {
            Register::CS => long || !write,
            Register::FS => long || self.mode.has(Mode::OPEN_FS),
            Register::GS => long || self.mode.has(Mode::OPEN_GS),
            _ => true,
        };
        let sized = i.memory_base() != Register::None || i.memory_index() != Register::None;
        // An address that is a number alone does not say its size.
        let absolute = sized || i.memory_displ_size() != 2;
        self.is_flat()
            && wide_enough(i.memory_base(), true)
            && wide_enough(i.memory_index(), true)
            && segment
            && absolute
    }

    /// The effective address as an operand of LEA, and whether it has 64 bits; nothing if it is a
    /// number alone. R8 and R9 may be loaded for it.
    pub(super) fn address_operand(
        &mut self,
        i: &Instruction,
        plus: i32,
    ) -> Option<(MemoryOperand, bool)> {
        let (base, index) = (i.memory_base(), i.memory_index());
        if base == Register::None && index == Register::None || i.is_ip_rel_memory_operand() {
            return None;
        }
        let is_wide = base.size().max(index.size()) == 8;
        let none = Register::None;
        let base = (base != none).then(|| self.in_register(base, 8));
        let index = (index != none).then(|| self.in_register(index, 9));
        let displacement = i64::from((i.memory_displacement64() as i32).wrapping_add(plus));
        let memory = MemoryOperand::new(
            base.map_or(none, wide),
            index.map_or(none, wide),
            i.memory_index_scale(),
            displacement,
            u32::from(displacement != 0),
            false,
            none,
        );
        Some((memory, is_wide))
    }

    /// An effective address that is a number alone.
    fn absolute(i: &Instruction) -> u64 {
        if i.is_ip_rel_memory_operand() {
            i.ip_rel_memory_address()
        } else {
            i.memory_displacement64()
        }
    }

    /// Computes the effective address, and something more, into the host's register `to`, as wide as
    /// the address is.
    pub(super) fn effective_address(&mut self, i: &Instruction, plus: i32, to: u8) {
        self.part_of_address(i, plus, to, false);
    }

    /// The same; if it is to be narrow, its low 32 bits.
    pub(super) fn part_of_address(&mut self, i: &Instruction, plus: i32, to: u8, narrow: bool) {
        let Some((memory, is_wide)) = self.address_operand(i, plus) else {
            let address = Self::absolute(i).wrapping_add(i64::from(plus) as u64);
            let mask = if self.mode.has(Mode::LONG) && !narrow { !0 } else { 0xffff_ffff };
            return self.constant(to, address & mask);
        };
        let number = |r: Register| (r != Register::None).then(|| number_of(r));
        let address = Address {
            base: number(memory.base),
            index: number(memory.index),
            scale: memory.scale,
            plus: memory.displacement as i32,
            long: false,
        };
        self.asm.extend(encode::lea(to, is_wide && !narrow, address).bytes());
    }

    /// The linear address of the memory operand, and something more, in R8.
    pub(crate) fn linear_address(&mut self, i: &Instruction, plus: i32) {
        self.effective_address(i, plus, 8);
        let number = match i.memory_segment() {
            Register::FS => 4,
            Register::GS => 5,
            _ => return,
        };
        self.held = None;
        dynasm!(self.asm ; .arch x64 ; mov r9, [BYTE r14 + near(SEG_BASE + number)]);
        match self.mode.has(Mode::LONG) {
            true => dynasm!(self.asm ; .arch x64 ; lea r8, [r8 + r9]),
            false => dynasm!(self.asm ; .arch x64 ; lea r8d, [r8 + r9]),
        }
    }

    /// Puts a number into a register.
    pub(super) fn constant(&mut self, register: u8, value: u64) {
        if value >> 32 == 0 {
            dynasm!(self.asm ; .arch x64 ; mov Rd(register), value as i32);
        } else if value as i32 as u64 == value {
            dynasm!(self.asm ; .arch x64 ; mov Rq(register), value as i32);
        } else {
            dynasm!(self.asm ; .arch x64 ; mov Rq(register), QWORD value as i64);
        }
    }

    /// The number of the host's register that holds a guest's; `scratch` if it had to be loaded.
    pub(super) fn in_register(&mut self, guest: Register, scratch: u8) -> u8 {
        let number = number_of(guest);
        match self.homes.of(number) {
            Home::Host(host) => host,
            Home::Memory => {
                let number = number ^ u8::from(planted::has(Bug::WrongPlace));
                dynasm!(self.asm ; .arch x64 ; mov Rq(scratch), [BYTE r14 + near(number)]);
                if scratch == 9 {
                    self.held = None;
                }
                scratch
            }
        }
    }

    /// How the access of the present instruction is to find its memory.
    pub(crate) fn way(&mut self, alignment: usize) -> Way {
        let Some(Member { number, offset, is_last }) = self.member.take() else {
            return Way::Alone;
        };
        let bit = 1 << number;
        let is_known = self.known_spans & bit != 0;
        if is_last {
            self.known_spans &= !bit;
        }
        match self.spans.get(usize::from(number)) {
            Some(_) if is_known && alignment == 1 => Way::Again(number),
            Some(&span) if !is_last && alignment == 1 => Way::First { number, span, offset },
            _ => Way::Alone,
        }
    }

    /// Finds the memory of an access whose linear address, moved by [`Way::back`], is in R8: it is
    /// then at [R8 + R9], and the displacement that this gives. RCX is overwritten. If it is not in
    /// the TLB, the interpreter does the operation.
    pub(crate) fn reach(&mut self, way: Way, size: usize, write: bool, op: u8) -> i32 {
        let resume = Exit::Resume { block: self.block, op };
        match way {
            Way::Alone if crossing::SIZES.contains(&size) => {
                let out = self.stub(resume, None);
                let (label, number) = self.crossing(size, out);
                self.find(size, 1, write, label);
                match write {
                    true => self.crossing_store = Some(number),
                    false => self.crossed(number, None),
                }
            }
            Way::Alone => {
                let out = self.stub(resume, None);
                self.find(size, 1, write, out);
            }
            Way::First { number, span, offset } => {
                let out = self.span_stub(op);
                let site = self.site(span.write, true);
                let place = match site {
                    Some(site) => {
                        let access = Wanted { size: span.len, alignment: 1, write: span.write };
                        self.probe_site(site, IN_R8, access, out, Sum::Same);
                        site_addend(site)
                    }
                    None => {
                        let place = SPANS + 8 * i32::from(number);
                        self.probe(span.len, 1, span.write, out);
                        dynasm!(self.asm ; .arch x64 ; mov [r14 + place], r9);
                        place
                    }
                };
                self.known_spans |= 1 << number;
                self.far_spans &= !(1 << number);
                self.span_places[usize::from(number)] = place;
                self.held = Some(number);
                return offset;
            }
            Way::Again(number) => self.again(number),
        }
        0
    }

    /// Makes R9 what the first access of a span has found.
    fn again(&mut self, number: u8) {
        let is_held = match self.held {
            Some(held) => held == number || planted::has(Bug::HeldMixedUp),
            None => false,
        };
        if !is_held {
            let place = self.span_places[usize::from(number)];
            dynasm!(self.asm ; .arch x64 ; mov r9, [r14 + place]);
        }
        self.held = Some(number);
    }

    /// The same of an operand whose address must be a multiple of `alignment`, and that is in no span.
    pub(crate) fn reach_aligned(&mut self, size: usize, alignment: usize, write: bool, op: u8) {
        let out = self.stub(Exit::Resume { block: self.block, op }, None);
        self.find(size, alignment, write, out);
    }

    /// Finds the linear address in R8 in the TLB, of as many elements as the count says, which is
    /// less than 4096 and not 0.
    pub(super) fn probe_string(&mut self, scale: u8, write: bool, op: u8) {
        let out = self.stub(Exit::Resume { block: self.block, op }, None);
        self.load_entry(write);
        dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + r8 - 1]);
        match scale {
            0 => dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + Rq(RCX_HOME)]),
            1 => dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + Rq(RCX_HOME) * 2]),
            2 => dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + Rq(RCX_HOME) * 4]),
            _ => dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + Rq(RCX_HOME) * 8]),
        }
        self.routines.host.above_page(&mut self.asm, 1, 1);
        self.unless_zero(out);
        dynasm!(self.asm ; .arch x64 ; mov r9, [BYTE r9 + ADDEND as i8]);
    }

    /// Makes R9 lead to the entry for the linear address in R8, and RCX its tag.
    fn load_entry(&mut self, write: bool) {
        self.held = None;
        let write = write && !planted::has(Bug::StoresByLoads);
        self.routines.host.tlb_entry(&mut self.asm, if write { WRITE } else { READ });
        dynasm!(self.asm ; .arch x64 ; mov rcx, [r9]);
    }

    /// The number for an access of the present instruction that remembers its translation; nothing if
    /// it is not to, or there is none left.
    fn site(&mut self, write: bool, span: bool) -> Option<u16> {
        let ip = self.ip;
        // What it finds may not be used without them.
        if self.user_pages {
            return None;
        }
        self.sites.as_mut()?.of(ip, write, span)
    }

    /// The register and the displacement that the address of a memory operand is the sum of, if it is
    /// no more than that.
    pub(crate) fn direct(&self, i: &Instruction) -> Option<At> {
        let (base, index) = (i.memory_base(), i.memory_index());
        let (register, scale) = match (base, index) {
            (_, Register::None) => (base, 1),
            (Register::None, _) => (index, i.memory_index_scale() as u8),
            _ => return None,
        };
        let sized = match self.mode.has(Mode::LONG) {
            true => register.is_gpr64(),
            false => register.is_gpr32(),
        };
        let plain =
            sized && self.is_flat() && !matches!(i.memory_segment(), Register::FS | Register::GS);
        match plain.then(|| self.homes.of(number_of(register)))? {
            Home::Host(base) => Some(At { base, scale, plus: i.memory_displacement64() as i32 }),
            Home::Memory => None,
        }
    }

    /// Whether an access of a span may be at the sum of 64 bits of what its address is the sum of. In
    /// 32-bit code another of the span may have been on the other side of address 0.
    fn may_be_direct(&self, at: At, way: Way) -> bool {
        let near = at.scale == 1 && (-NEAR..NEAR).contains(&at.plus);
        match way {
            _ if self.mode.has(Mode::LONG) || matches!(way, Way::Alone) => true,
            Way::Again(number) => near && self.far_spans >> number & 1 != 0,
            _ => near,
        }
    }

    /// Finds the memory of an access at an address that is not computed for it: it is then at the sum
    /// of that and R9. Not if it has to be looked for in the TLB.
    pub(crate) fn reach_directly(
        &mut self,
        at: At,
        way: Way,
        (size, alignment): (usize, usize),
        write: bool,
        op: u8,
    ) -> bool {
        if !self.may_be_direct(at, way) {
            return false;
        }
        if let Way::Again(number) = way {
            self.again(number);
            return true;
        }
        let is_wide = alignment == 1 && crossing::SIZES.contains(&size);
        let (of_span, of_one) = match self.mode.has(Mode::LONG) {
            true => (Sum::Same, Sum::Same),
            false if is_wide => (Sum::MustBeFar, Sum::MustBeSame),
            false => (Sum::MustBeFar, Sum::Any),
        };
        let span = matches!(way, Way::First { .. });
        let store = if let Way::First { span, .. } = way { span.write } else { write };
        let Some(site) = self.site(store, span) else { return false };
        if let Way::First { number, span, offset } = way {
            let out = self.span_stub(op);
            let access = Wanted { size: span.len, alignment: 1, write: span.write };
            let first = At { plus: at.plus.wrapping_sub(offset), ..at };
            self.probe_site(site, first, access, out, of_span);
            self.known_spans |= 1 << number;
            self.far_spans |= 1 << number;
            self.held = Some(number);
            self.span_places[usize::from(number)] = site_addend(site);
            return true;
        }
        let out = self.stub(Exit::Resume { block: self.block, op }, None);
        let access = Wanted { size, alignment, write };
        if is_wide {
            let (label, number) = self.crossing(size, out);
            self.probe_site(site, at, access, label, of_one);
            match write {
                true => self.crossing_store = Some(number),
                false => self.crossed(number, None),
            }
        } else {
            self.probe_site(site, at, access, out, of_one);
        }
        true
    }

    /// Finds a linear address in the translation that the access has found last, or in the TLB, or
    /// goes elsewhere.
    fn probe_site(&mut self, site: u16, at: At, access: Wanted, out: DynamicLabel, sum: Sum) {
        self.held = None;
        let [from, back] = [0; 2].map(|_| self.asm.new_dynamic_label());
        dynasm!(self.asm ; .arch x64 ; =>back ; mov rcx, [r14 + site_tag(site)]);
        match access.by_page() {
            true => self.compare(at, access.size, access.alignment),
            false => {
                self.add_address(at);
                self.routines.host.any_of(&mut self.asm, WINDOW);
            }
        }
        self.unless_zero(from);
        dynasm!(self.asm ; .arch x64 ; mov r9, [r14 + site_addend(site)]);
        self.fills.push(Fill { from, back, out, site, at, access, sum });
    }

    /// Adds an address to RCX.
    fn add_address(&mut self, At { base, scale, plus }: At) {
        match (scale, i8::try_from(plus)) {
            (1, Ok(0)) => dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + Rq(base)]),
            (1, Ok(plus)) => dynasm!(self.asm ; .arch x64 ; lea rcx, [BYTE rcx + Rq(base) + plus]),
            (1, Err(_)) => dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + Rq(base) + plus]),
            (2, _) => dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + Rq(base) * 2 + plus]),
            (4, _) => dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + Rq(base) * 4 + plus]),
            _ => dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + Rq(base) * 8 + plus]),
        }
    }

    /// Puts an address into a register, with 64 bits.
    fn sum(&mut self, to: u8, At { base, scale, plus }: At) {
        match scale {
            1 => dynasm!(self.asm ; .arch x64 ; lea Rq(to), [Rq(base) + plus]),
            2 => dynasm!(self.asm ; .arch x64 ; lea Rq(to), [Rq(base) * 2 + plus]),
            4 => dynasm!(self.asm ; .arch x64 ; lea Rq(to), [Rq(base) * 4 + plus]),
            _ => dynasm!(self.asm ; .arch x64 ; lea Rq(to), [Rq(base) * 8 + plus]),
        }
    }

    /// Emits the ways to translations that are not remembered.
    pub(crate) fn emit_fills(&mut self) {
        for fill in std::mem::take(&mut self.fills) {
            let Fill { from, back, out, site, at, access, sum } = fill;
            let half = i32::from(usize::from(site) >= NATIVE_SITES / 2);
            dynasm!(self.asm ; .arch x64 ; =>from);
            if at != IN_R8 {
                self.sum(8, at);
            }
            match sum {
                Sum::Same => {}
                Sum::Any => dynasm!(self.asm ; .arch x64 ; mov r8d, r8d),
                Sum::MustBeSame | Sum::MustBeFar => dynasm!(self.asm
                    ; .arch x64
                    ; mov rcx, r8
                    ; bswap rcx
                    ; mov ecx, ecx
                    ; jrcxz >same
                    ; jmp =>out
                    ; same:
                ),
            }
            if sum == Sum::MustBeFar {
                // Its highest 16 bits with something added are 0 only near the ends.
                dynasm!(self.asm
                    ; .arch x64
                    ; lea ecx, [r8 + NEAR]
                    ; bswap ecx
                    ; movzx ecx, cx
                    ; jrcxz >near
                    ; jmp >far
                    ; near:
                    ; jmp =>out
                    ; far:
                );
            }
            self.load_entry(access.write);
            self.compare(IN_R8, access.size, access.alignment);
            dynasm!(self.asm ; .arch x64 ; jrcxz >hit ; jmp =>out ; hit: ; mov rcx, [r9]);
            if !access.by_page() {
                let size = if planted::has(Bug::WindowToTheEnd) { 1 } else { access.size };
                // The window at the page's beginning, or the one before its end.
                dynasm!(self.asm
                    ; .arch x64
                    ; lea rcx, [rcx + r8]
                );
                self.routines.host.any_of(&mut self.asm, WINDOW);
                dynasm!(self.asm
                    ; .arch x64
                    ; jrcxz >first
                    ; mov rcx, [r9]
                    ; lea rcx, [rcx - (2049 - size as i32)]
                    ; jmp >chosen
                    ; first:
                    ; mov rcx, [r9]
                    ; chosen:
                );
            }
            dynasm!(self.asm ; .arch x64 ; mov [r14 + site_tag(site)], rcx);
            if sum == Sum::Any {
                // Less what the sum of 64 bits is greater than that of 32: R8 is that and one,
                // negated.
                self.sum(1, at);
                dynasm!(self.asm
                    ; .arch x64
                    ; not r8
                    ; lea r8, [rcx + r8 + 1]
                    ; not r8
                    ; mov rcx, [r14 + site_tag(site)]
                    ; lea rcx, [rcx + r8 + 1]
                    ; mov [r14 + site_tag(site)], rcx
                    ; mov rcx, [BYTE r9 + ADDEND as i8]
                    ; lea rcx, [rcx + r8 + 1]
                );
            } else {
                dynasm!(self.asm ; .arch x64 ; mov rcx, [BYTE r9 + ADDEND as i8]);
            }
            dynasm!(self.asm
                ; .arch x64
                ; mov [r14 + site_addend(site)], rcx
                ; mov ecx, [r14 + site_misses(site)]
                ; lea ecx, [rcx + 1]
                ; mov [r14 + site_misses(site)], ecx
                ; mov BYTE [r14 + SITES_FILLED + half], 1
                ; jmp =>back
            );
            self.note_parted();
        }
    }

    /// Makes RCX zero if its tag is of the page that the access at an address is in.
    fn compare(&mut self, at: At, size: usize, alignment: usize) {
        let last = if planted::has(Bug::NoLastByte) { 0 } else { size as i32 - 1 };
        if alignment > 1 {
            self.add_address(at);
            let mask = ALIGNED + 8 * (alignment as i32 / 16 - 1);
            self.routines.host.any_of(&mut self.asm, mask);
        } else {
            self.add_address(At { plus: at.plus.wrapping_add(last), ..at });
            self.routines.host.above_page(&mut self.asm, 1, 1);
        }
    }

    /// Finds the linear address in R8, of an access that is in no span, or goes elsewhere.
    fn find(&mut self, size: usize, alignment: usize, write: bool, out: DynamicLabel) {
        match self.site(write, false) {
            Some(site) => {
                let access = Wanted { size, alignment, write };
                self.probe_site(site, IN_R8, access, out, Sum::Same);
            }
            None => self.probe(size, alignment, write, out),
        }
    }

    /// Finds the linear address in R8 in the TLB, or goes elsewhere.
    pub(super) fn probe(&mut self, size: usize, alignment: usize, write: bool, out: DynamicLabel) {
        self.load_entry(write);
        self.compare(IN_R8, size, alignment);
        self.unless_zero(out);
        dynasm!(self.asm ; .arch x64 ; mov r9, [BYTE r9 + ADDEND as i8]);
        if planted::has(Bug::FlagsClobbered) {
            dynasm!(self.asm ; .arch x64 ; test r9, r9);
        }
    }
}
