//! Memory operands: where they lie, and how ModR/M, SIB and registers say so.

use super::draft::{Draft, RSP};
use super::form;
use super::parts::{Bytes, Late};
use super::random::Rng;
use super::segments::{self, DS, FS, GS, SS};
use super::values::{self, Element};
use crate::case::{LdtEntry, Width};
use crate::layout::{CODE, DATA, HIGH, READ_ONLY, STACK};
use iced_x86::{MemorySize, OpCodeOperandKind};

/// Bytes of a cache line.
const LINE: u64 = 64;

/// What an operand in memory is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access {
    /// Bytes; at least one.
    pub size: u64,
    /// What to put there.
    pub element: Element,
}

impl Access {
    /// What iced says of it. Where it does not say, as of images of the x87 unit's state, there may
    /// be much.
    pub fn of(memory: MemorySize) -> Self {
        let size = match memory.size() as u64 {
            0 => 64,
            size => size,
        };
        Self { size, element: Element::of(memory) }
    }

    /// An integer of so many bytes.
    pub const fn int(size: u8) -> Self {
        Self { size: size as u64, element: Element::Int(size) }
    }
}

/// Kinds of places of an operand in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Aligned,
    Misaligned,
    /// Across a cache line.
    Line,
    /// Across a page.
    Page,
    /// From what may be written into what may not.
    IntoReadOnly,
    ReadOnly,
    /// From what may be read into what is not mapped.
    IntoNothing,
    /// From what may be written into what is not mapped.
    OutOfStack,
    Nothing,
    Null,
    Stack,
    Code,
    High,
    OutOfHigh,
    NonCanonical,
    /// Across the end of the lower half of addresses.
    IntoNonCanonical,
    /// Across the end of all addresses.
    Around,
}

/// How often each is chosen.
const TARGETS: [(u32, Target); 12] = [
    (46, Target::Aligned),
    (15, Target::Misaligned),
    (6, Target::Line),
    (6, Target::Page),
    (4, Target::IntoReadOnly),
    (4, Target::ReadOnly),
    (3, Target::IntoNothing),
    (3, Target::OutOfStack),
    (3, Target::Nothing),
    (1, Target::Null),
    (5, Target::Stack),
    (2, Target::Code),
];

/// The same for those that 64-bit code alone can reach.
const TARGETS64: [(u32, Target); 5] = [
    (6, Target::High),
    (1, Target::OutOfHigh),
    (3, Target::NonCanonical),
    (1, Target::IntoNonCanonical),
    (1, Target::Around),
];

impl Target {
    /// Any.
    pub fn any(rng: &mut Rng, width: Width) -> Self {
        if width == Width::Bits64 && rng.percent(10) {
            return rng.weighted(&TARGETS64);
        }
        rng.weighted(&TARGETS)
    }

    /// An address of this kind for so many bytes.
    pub fn address(self, rng: &mut Rng, size: u64) -> u64 {
        let align = size.next_power_of_two().min(LINE);
        // Any part of the operand but not all may be behind the boundary.
        let before = 1 + rng.below(size.saturating_sub(1).max(1));
        let slot = |rng: &mut Rng| rng.below(0x800 / align) * align;
        match self {
            Self::Aligned => DATA.start + 0x400 * rng.below(12) + slot(rng),
            Self::Misaligned => DATA.start + 0x1000 * rng.below(3) + rng.below(0xf00),
            Self::Line => DATA.start + LINE * (1 + rng.below(200)) - before,
            Self::Page => DATA.start + 0x1000 * (1 + rng.below(3)) - before,
            Self::IntoReadOnly => READ_ONLY.start - before,
            Self::ReadOnly => READ_ONLY.start + slot(rng),
            Self::IntoNothing => READ_ONLY.end() - before,
            Self::OutOfStack => STACK.end() - before,
            Self::Nothing => {
                rng.pick(&[READ_ONLY.end(), 0x7fff_0000, DATA.start - size, 0x1_0000])
                    + rng.below(0x800) * rng.below(2)
            }
            Self::Null => rng.below(0x100),
            Self::Stack => STACK.start + 0x800 + slot(rng),
            Self::Code => CODE.start + 0x1000 + rng.below(0xf00),
            Self::High => HIGH.start + rng.pick(&[1, 8, 16, 64]) * rng.below(0x40),
            Self::OutOfHigh => HIGH.end() - before,
            Self::NonCanonical => {
                let high = rng.pick(&[0x8000_0000_0000, 0xffff_7fff_ffff_f000, 1 << 62, 1 << 56]);
                high + rng.below(0x1000) * rng.below(2)
            }
            Self::IntoNonCanonical => 0x8000_0000_0000 - before,
            Self::Around => before.wrapping_neg(),
        }
    }
}

/// Where an operand in memory lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub linear: u64,
}

/// How an instruction says where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addressing {
    pub mode: u8,
    pub rm: u8,
    pub sib: Option<u8>,
    /// The bits that REX or VEX add to index and base.
    pub x: u8,
    pub b: u8,
    pub displacement: Bytes,
    pub late: Late,
    pub place: Place,
}

/// What is common to all memory operands of an instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Bits of addresses.
    pub bits: u32,
    /// The segment that a prefix selects.
    pub segment: Option<usize>,
}

/// An offset in a segment, and its linear address.
pub(super) fn offset(draft: &mut Draft, segment: usize, bits: u32, access: Access) -> (u64, Place) {
    let mask = u64::MAX >> (64 - bits);
    let local = if draft.width == Width::Bits64 { None } else { draft.local(segment) };
    let offset = match local {
        Some(entry) if draft.rng.percent(35) => near_limit(&mut draft.rng, entry, access.size),
        _ => {
            let target = Target::any(&mut draft.rng, draft.width);
            let linear = target.address(&mut draft.rng, access.size);
            linear.wrapping_sub(draft.base(segment))
        }
    };
    let offset = offset & mask;
    (offset, Place { linear: draft.linear(segment, offset) })
}

/// An offset that is near the limit of a segment.
fn near_limit(rng: &mut Rng, entry: LdtEntry, size: u64) -> u64 {
    let limit = u64::from(entry.limit);
    let limit = if entry.pages { limit << 12 | 0xfff } else { limit };
    let top = if entry.expand_down && !entry.big { 0xffff } else { limit };
    let edge = if entry.expand_down && rng.percent(70) {
        limit + 1
    } else {
        top.wrapping_add(1).wrapping_sub(size)
    };
    edge.wrapping_add(rng.below(5)).wrapping_sub(2)
}

/// Puts values worth trying where an operand is.
pub(super) fn fill(draft: &mut Draft, place: Place, access: Access) {
    if draft.rng.percent(15) {
        return;
    }
    let mut bytes = [0; 64];
    let bytes = &mut bytes[..access.size.min(64) as usize];
    values::fill(&mut draft.rng, access.element, bytes);
    draft.put(place.linear, bytes);
}

/// Points a register to where an implied operand is.
pub(super) fn point(
    draft: &mut Draft,
    register: u8,
    segment: usize,
    bits: u32,
    access: Access,
) -> Place {
    let (offset, place) = offset(draft, segment, bits, access);
    draft.pin_low(register, bits, offset);
    fill(draft, place, access);
    place
}

/// A general register that may still get a value.
fn free_register(draft: &mut Draft) -> Option<u8> {
    let count = draft.registers();
    let pinned = draft.pinned;
    (0..6).map(|_| draft.rng.below(count) as u8).find(|&r| pinned >> r & 1 == 0)
}

/// The segment that is used if no prefix selects one.
const fn default_segment(base: Option<u8>) -> usize {
    match base {
        Some(4 | 5) => SS,
        _ => DS,
    }
}

/// A displacement that does not take the base out of sight.
fn small(rng: &mut Rng, size: u8) -> i64 {
    match (size, rng.below(4)) {
        (0, _) => 0,
        (1, 0) => rng.pick(&[-128, 127, -1, 0]),
        (1, _) => rng.between(-128, 127),
        (_, 0) => rng.pick(&[i64::from(i32::MIN), i64::from(i32::MAX), -1, 0]),
        (_, _) => rng.between(-0x8000, 0x7fff),
    }
}

/// An operand in memory, addressed in any way.
pub(super) fn choose(draft: &mut Draft, manner: Manner, access: Access) -> Addressing {
    let addressing =
        if manner.bits == 16 { narrow(draft, manner, access) } else { wide(draft, manner, access) };
    fill(draft, addressing.place, access);
    addressing
}

/// The registers of 16-bit addresses by r/m. Intel SDM vol. 2A, table 2-1.
const NARROW: [(u8, Option<u8>); 8] = [
    (3, Some(6)),
    (3, Some(7)),
    (5, Some(6)),
    (5, Some(7)),
    (6, None),
    (7, None),
    (5, None),
    (3, None),
];

fn narrow(draft: &mut Draft, manner: Manner, access: Access) -> Addressing {
    let rm = draft.rng.below(8) as u8;
    let mut mode = draft.rng.below(3) as u8;
    let (base, index) = NARROW[usize::from(rm)];
    let direct = mode == 0 && rm == 6;
    let segment = match manner.segment {
        Some(segment) => segment,
        None if direct => DS,
        None => default_segment(Some(base)),
    };
    let (offset, place) = offset(draft, segment, 16, access);
    let index = index.map_or(0, |r| draft.state.regs[usize::from(r)]);
    let displacement = if direct {
        offset
    } else if draft.is_pinned(base) {
        mode = 2;
        offset.wrapping_sub(index).wrapping_sub(draft.state.regs[usize::from(base)])
    } else {
        let displacement = small(&mut draft.rng, mode) as u64;
        draft.pin_low(base, 16, offset.wrapping_sub(index).wrapping_sub(displacement));
        displacement
    };
    if let (_, Some(index)) = NARROW[usize::from(rm)] {
        draft.pinned |= 1 << index;
    }
    let size = if direct { 2 } else { mode };
    let displacement = Bytes::new(displacement, size);
    Addressing { mode, rm, sib: None, x: 0, b: 0, displacement, late: Late::No, place }
}

/// Ways to say a 32- or 64-bit address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Base,
    Both,
    Index,
    Displacement,
    Rip,
}

const SHAPES: [(u32, Shape); 5] = [
    (5, Shape::Base),
    (3, Shape::Both),
    (1, Shape::Index),
    (1, Shape::Displacement),
    (1, Shape::Rip),
];

fn wide(draft: &mut Draft, manner: Manner, access: Access) -> Addressing {
    let shape = draft.rng.weighted(&SHAPES);
    let base = match shape {
        Shape::Base | Shape::Both => free_register(draft),
        _ => None,
    };
    let segment = manner.segment.unwrap_or(default_segment(base));
    let (offset, place) = offset(draft, segment, manner.bits, access);
    let index = match shape {
        Shape::Both | Shape::Index => Some(index_register(draft)),
        _ => None,
    };
    match (shape, base, index) {
        (Shape::Base, Some(base), _) => with_base(draft, manner, base, offset, place),
        (Shape::Both, Some(base), Some(index)) => {
            with_both(draft, manner, base, index, offset, place)
        }
        (Shape::Both | Shape::Index, None, Some(index)) => {
            with_index(draft, manner, index, offset, place)
        }
        (Shape::Rip, ..) if reaches_by_rip(draft, manner, place) => {
            let displacement = Bytes::new(0, 4);
            let late = Late::Displacement(place.linear);
            Addressing { mode: 0, rm: 5, sib: None, x: 0, b: 0, displacement, late, place }
        }
        _ => direct(draft, manner, offset, place),
    }
}

/// Whether the operand is near enough to the code, and RIP-relative addresses exist.
fn reaches_by_rip(draft: &Draft, manner: Manner, place: Place) -> bool {
    let based = matches!(manner.segment, Some(FS | GS));
    draft.width == Width::Bits64 && !based && place.linear < 0x8000_0000
}

/// Any register that can be an index: RSP cannot.
fn index_register(draft: &mut Draft) -> u8 {
    let count = draft.registers() - 1;
    match draft.rng.below(count) as u8 {
        RSP => count as u8,
        register => register,
    }
}

/// The value of a register as addresses of so many bits use it.
fn value(draft: &Draft, register: u8, bits: u32) -> u64 {
    draft.state.regs[usize::from(register)] & u64::MAX >> (64 - bits)
}

fn with_base(draft: &mut Draft, manner: Manner, base: u8, offset: u64, place: Place) -> Addressing {
    let mode = if base & 7 == 5 { 1 + draft.rng.below(2) } else { draft.rng.below(3) } as u8;
    let size = [0, 1, 4][usize::from(mode)];
    let displacement = small(&mut draft.rng, size) as u64;
    draft.pin_low(base, manner.bits, offset.wrapping_sub(displacement));
    let needs_sib = base & 7 == RSP;
    let scale = (draft.rng.below(4) as u8) << 6;
    // No index is index 4; the scale means nothing then.
    let sib = (needs_sib || draft.rng.percent(10)).then_some(scale | RSP << 3 | base & 7);
    Addressing {
        mode,
        rm: if sib.is_some() { RSP } else { base & 7 },
        sib,
        x: 0,
        b: base >> 3,
        displacement: Bytes::new(displacement, size),
        late: Late::No,
        place,
    }
}

/// Gives an index a value, if it has none that it must keep, and gives what it adds.
fn scaled(draft: &mut Draft, index: u8, bits: u32, scale: u8) -> u64 {
    if !draft.is_pinned(index) {
        let any = match draft.rng.below(4) {
            0 => values::integer(&mut draft.rng, 64),
            1 => draft.rng.between(-64, -1) as u64,
            _ => draft.rng.below(256),
        };
        draft.pin_low(index, bits, any);
    }
    value(draft, index, bits) << scale
}

fn with_both(
    draft: &mut Draft,
    manner: Manner,
    base: u8,
    index: u8,
    offset: u64,
    place: Place,
) -> Addressing {
    let scale = draft.rng.below(4) as u8;
    let mut mode = if base & 7 == 5 { 1 + draft.rng.below(2) } else { draft.rng.below(3) } as u8;
    let mut displacement = small(&mut draft.rng, [0, 1, 4][usize::from(mode)]) as u64;
    if base == index {
        // The register counts once for itself and once scaled; a displacement makes up the rest.
        let times = 1 + (1 << scale);
        let (each, rest) = (offset / times, offset % times);
        draft.pin_low(base, manner.bits, each);
        (mode, displacement) = (mode.max(1), rest);
    } else {
        let added = scaled(draft, index, manner.bits, scale);
        let rest = offset.wrapping_sub(added).wrapping_sub(displacement);
        draft.pin_low(base, manner.bits, rest);
    }
    Addressing {
        mode,
        rm: RSP,
        sib: Some(scale << 6 | (index & 7) << 3 | base & 7),
        x: index >> 3,
        b: base >> 3,
        displacement: Bytes::new(displacement, [0, 1, 4][usize::from(mode)]),
        late: Late::No,
        place,
    }
}

fn with_index(
    draft: &mut Draft,
    manner: Manner,
    index: u8,
    offset: u64,
    place: Place,
) -> Addressing {
    let scale = draft.rng.below(4) as u8;
    let near = draft.rng.below(0x1000);
    if !draft.is_pinned(index) {
        draft.pin_low(index, manner.bits, offset.wrapping_sub(near) >> scale);
    }
    let rest = offset.wrapping_sub(value(draft, index, manner.bits) << scale);
    let place = truncated(draft, manner, rest, offset, place);
    Addressing {
        mode: 0,
        rm: RSP,
        sib: Some(scale << 6 | (index & 7) << 3 | 5),
        x: index >> 3,
        b: 0,
        displacement: Bytes::new(rest, 4),
        late: Late::No,
        place,
    }
}

/// Where an operand really lies, when its displacement of 64 bits is cut to 32 and sign-extended.
fn truncated(draft: &Draft, manner: Manner, displacement: u64, offset: u64, place: Place) -> Place {
    let extended = i64::from(displacement as i32) as u64;
    if manner.bits == 32 || extended == displacement {
        return place;
    }
    let segment_base = place.linear.wrapping_sub(offset);
    let real = offset.wrapping_sub(displacement).wrapping_add(extended);
    let linear = segment_base.wrapping_add(real);
    Place { linear: if draft.width == Width::Bits64 { linear } else { linear & 0xffff_ffff } }
}

/// By a displacement alone: in 64-bit code that takes an SIB byte, for without it is RIP-relative.
fn direct(draft: &mut Draft, manner: Manner, offset: u64, place: Place) -> Addressing {
    let long = draft.width == Width::Bits64;
    let sib = long || draft.rng.percent(20);
    let scale = (draft.rng.below(4) as u8) << 6;
    Addressing {
        mode: 0,
        rm: if sib { RSP } else { 5 },
        sib: sib.then_some(scale | RSP << 3 | 5),
        x: 0,
        b: 0,
        displacement: Bytes::new(offset, 4),
        late: Late::No,
        place: truncated(draft, manner, offset, offset, place),
    }
}

/// Memory with a vector of indices: most of them lead into the data.
pub(super) fn gather(
    draft: &mut Draft,
    manner: Manner,
    kind: OpCodeOperandKind,
    index: u8,
) -> Addressing {
    debug_assert!(form::is_vsib(kind));
    let narrow = matches!(kind, OpCodeOperandKind::mem_vsib32x | OpCodeOperandKind::mem_vsib32y);
    let scale = draft.rng.below(4) as u8;
    let wild = draft.rng.percent(20);
    let lane = |draft: &mut Draft| match (wild && draft.rng.percent(25), draft.rng.below(8)) {
        (true, _) => draft.rng.any(),
        (false, 0) => 0,
        _ => draft.rng.between(-0x400, 0x3f0) as u64,
    };
    for part in 0..4 {
        let low = lane(draft);
        let quad = if narrow { low & 0xffff_ffff | lane(draft) << 32 } else { low };
        let has_it = draft.state.zmm[usize::from(index)].get_mut(part);
        if let Some(to) = has_it {
            *to = quad;
        }
    }
    draft.pinned_vectors |= 1 << index;
    let base = free_register(draft).unwrap_or(3);
    let segment = manner.segment.unwrap_or(default_segment(Some(base)));
    let linear = DATA.start + 0x2000 + draft.rng.below(16);
    let offset = linear.wrapping_sub(draft.base(segment));
    let mode = 1 + draft.rng.below(2) as u8;
    let size = [0, 1, 4][usize::from(mode)];
    let displacement = small(&mut draft.rng, size) as u64;
    draft.pin_low(base, manner.bits, offset.wrapping_sub(displacement));
    Addressing {
        mode,
        rm: RSP,
        sib: Some(scale << 6 | (index & 7) << 3 | base & 7),
        x: index >> 3,
        b: base >> 3,
        displacement: Bytes::new(displacement, size),
        late: Late::No,
        place: Place { linear },
    }
}

/// How an instruction addresses memory, and the prefixes that say so.
pub(super) fn manner(draft: &mut Draft, fixed: u32, prefixes: &mut Vec<u8>) -> Manner {
    let default = draft.width.bits();
    let other = match draft.width {
        Width::Bits64 | Width::Bits16 => 32,
        Width::Bits32 => 16,
    };
    let share = if draft.width == Width::Bits64 { 10 } else { 6 };
    let bits = match fixed {
        0 if draft.rng.percent(share) => other,
        0 => default,
        fixed => fixed,
    };
    if bits != default {
        prefixes.push(0x67);
    }
    let mut segment = None;
    if draft.rng.percent(12) {
        let chosen = draft.rng.below(6) as usize;
        prefixes.push(segments::OVERRIDES[chosen]);
        // 64-bit code knows no other.
        segment = (draft.width != Width::Bits64 || chosen >= FS).then_some(chosen);
    }
    Manner { bits, segment }
}

/// An operand near where a register of a stream points.
pub(super) fn by_pointer(
    draft: &mut Draft,
    manner: Manner,
    stream: &super::operands::Stream,
    access: Access,
) -> Addressing {
    let (base, at) = draft.rng.pick(&stream.pointers);
    let displacement = match (access.size, draft.rng.below(4)) {
        (8.., 0..=2) => 16 * draft.rng.between(-7, 7),
        _ => draft.rng.between(-128, 127),
    };
    let place = Place { linear: at.wrapping_add(displacement as u64) };
    let displacement = Bytes::new(displacement as u64, 1);
    if manner.bits == 16 {
        let rm = NARROW.iter().position(|&(b, i)| b == base && i.is_none()).unwrap_or(7) as u8;
        return Addressing {
            mode: 1,
            rm,
            sib: None,
            x: 0,
            b: 0,
            displacement,
            late: Late::No,
            place,
        };
    }
    let sib = (base & 7 == RSP).then_some(RSP << 3 | RSP);
    let rm = base & 7;
    Addressing { mode: 1, rm, sib, x: 0, b: base >> 3, displacement, late: Late::No, place }
}
