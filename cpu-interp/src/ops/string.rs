//! MOVS, STOS, LODS, SCAS, CMPS, with and without REP.
//!
//! Elements go one at a time, each complete before the next, so that a fault leaves the registers
//! showing how far it got (Intel SDM vol. 2, REP). Forward ones in plain RAM go page by page. After
//! so many elements the instruction is begun again, and interrupts are looked at.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::rflags::{self, RF};
use trivium_cpu::model::Quirk;
use trivium_cpu::state::SegmentAttributes;

use crate::cpu::{Cpu, Mode, SEG_BASE};
use crate::decode::{Context, Selection};
use crate::flags::Kind;
use crate::mem::address_mask;
use crate::op::{Op, Stop, StopReason};
use crate::tlb::Tlb;

const RAX: u8 = 0;
const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;
const ES: u8 = trivium_cpu::state::ES as u8;

/// Elements between two looks at interrupts.
const ELEMENTS: u64 = 4096;

/// For [`Op::aux`]: what one element does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum What {
    Movs,
    Stos,
    Lods,
    Scas,
    Cmps,
}

impl What {
    fn of(op: &Op) -> Self {
        match op.aux {
            0 => Self::Movs,
            1 => Self::Stos,
            2 => Self::Lods,
            3 => Self::Scas,
            _ => Self::Cmps,
        }
    }

    fn reads_source(self) -> bool {
        matches!(self, Self::Movs | Self::Lods | Self::Cmps)
    }

    fn has_destination(self) -> bool {
        self != Self::Lods
    }

    fn compares(self) -> bool {
        matches!(self, Self::Scas | Self::Cmps)
    }
}

impl Cpu {
    /// How far an index register moves an element on: the size, or less than nothing if DF is set.
    pub(crate) fn string_step(&self, size: u8) -> u64 {
        let size = u64::from(size);
        if self.system_flags & rflags::DF != 0 { size.wrapping_neg() } else { size }
    }
}

/// One element: everything that can fault comes first.
fn element(cpu: &mut Cpu, op: &Op, what: What) -> Result<(), Stop> {
    let mask = address_mask(op.asize);
    let (si, di) = (cpu.regs[usize::from(RSI)] & mask, cpu.regs[usize::from(RDI)] & mask);
    match what {
        What::Movs => {
            let value = cpu.load_sized(op.seg, si, op.size)?;
            cpu.store_sized(ES, di, op.size, value)?;
        }
        What::Stos => {
            let value = cpu.reg(RAX, 0, op.size);
            cpu.store_sized(ES, di, op.size, value)?;
        }
        What::Lods => {
            let value = cpu.load_sized(op.seg, si, op.size)?;
            cpu.set_reg(RAX, 0, op.size, value);
        }
        What::Scas => {
            let b = cpu.load_sized(ES, di, op.size)?;
            let a = cpu.reg(RAX, 0, op.size);
            compare(cpu, a, b, op.size);
        }
        What::Cmps => {
            // The manuals leave open which of two faults comes first. Real processors read the
            // destination first, but the source with REPE.
            let first = if op.prefixes & Op::REP != 0 {
                Some(cpu.load_sized(op.seg, si, op.size)?)
            } else {
                None
            };
            let b = cpu.load_sized(ES, di, op.size)?;
            let a = match first {
                Some(a) => a,
                None => cpu.load_sized(op.seg, si, op.size)?,
            };
            compare(cpu, a, b, op.size);
        }
    }
    advance(cpu, op, what, 1);
    Ok(())
}

fn compare(cpu: &mut Cpu, a: u64, b: u64, size: u8) {
    let result = a.wrapping_sub(b) & address_mask(size);
    cpu.flags.set(Kind::Sub, size * 8 - 1, a, b, result);
}

/// Moves the index registers on by `count` elements.
fn advance(cpu: &mut Cpu, op: &Op, what: What, count: u64) {
    let step = cpu.string_step(op.size).wrapping_mul(count);
    for (used, reg) in [(what.reads_source(), RSI), (what.has_destination(), RDI)] {
        if used {
            let index = cpu.reg(reg, 0, op.asize).wrapping_add(step) & address_mask(op.asize);
            cpu.set_reg(reg, 0, op.asize, index);
        }
    }
}

fn once(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    element(cpu, op, What::of(op))
}

fn repeated(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let what = What::of(op);
    let flags = cpu.flags;
    let result = repeat(cpu, op, what);
    let faulted = result.is_err() && cpu.stop != StopReason::Done;
    if faulted && what.compares() && cpu.model.does(Quirk::FaultedRepeatKeepsFlags) {
        // It may come after the instruction was begun again.
        cpu.flags = flags;
    }
    result
}

fn repeat(cpu: &mut Cpu, op: &Op, what: What) -> Result<(), Stop> {
    let stepping = cpu.system_flags & rflags::TF != 0;
    let mut done = 0;
    loop {
        let left = cpu.reg(RCX, 0, op.asize);
        if left == 0 {
            return Ok(());
        }
        if stepping && done > 0 {
            return stepped(cpu);
        }
        if done >= ELEMENTS || cpu.leave {
            return again(cpu);
        }
        let count = match iterations(cpu, op, what, if stepping { 1 } else { left }) {
            // What devices gave is counted from where the instruction was begun.
            Err(Stop) if done > 0 && cpu.stop == StopReason::MmioRead => return again(cpu),
            result => result?,
        };
        done += count;
        cpu.set_reg(RCX, 0, op.asize, left - count);
        if what.compares() && cpu.flags.zf() != (op.prefixes & Op::REP != 0) {
            return Ok(());
        }
    }
}

/// The instruction is to be begun again, after a look at what others want.
fn again(cpu: &mut Cpu) -> Result<(), Stop> {
    cpu.stop = StopReason::Again;
    Err(Stop)
}

/// #DB is due in the middle of an instruction: with RFLAGS.TF, each iteration is followed by it, like
/// an instruction of its own.
///
/// # Errors
/// Always: the instruction ends here.
pub fn stepped(cpu: &mut Cpu) -> Result<(), Stop> {
    cpu.next_rip = cpu.rip;
    cpu.system_flags |= RF;
    cpu.stop = StopReason::Done;
    Err(Stop)
}

/// Does at least one and at most `left` iterations; gives how many.
fn iterations(cpu: &mut Cpu, op: &Op, what: What, left: u64) -> Result<u64, Stop> {
    let forward = cpu.system_flags & rflags::DF == 0;
    let count = if forward { in_pages(cpu, op, what, left).unwrap_or(0) } else { 0 };
    if count > 0 {
        advance(cpu, op, what, count);
        return Ok(count);
    }
    element(cpu, op, what)?;
    Ok(1)
}

/// Does as many elements at once as lie in plain RAM within a page, forward, and gives how many;
/// the registers are still to follow.
fn in_pages(cpu: &mut Cpu, op: &Op, what: What, left: u64) -> Option<u64> {
    let size = u64::from(op.size);
    Some(match what {
        What::Stos => {
            let (to, room) = plain(cpu, ES, RDI, op, true)?;
            let count = left.min(room / size);
            fill(cpu, to, count, op.size);
            count
        }
        What::Movs => {
            let (to, to_room) = plain(cpu, ES, RDI, op, true)?;
            let (from, from_room) = plain(cpu, op.seg, RSI, op, false)?;
            let mut count = left.min(to_room.min(from_room) / size);
            if to > from && ((to - from) as u64) < count * size {
                // Elements to come are read after they were written: no more at once than lie
                // between the two, which then repeat.
                count = (to - from) as u64 / size;
            }
            cpu.ram.copy_within(from, to, (count * size) as usize);
            count
        }
        What::Scas => {
            let (at, room) = plain(cpu, ES, RDI, op, false)?;
            let a = cpu.reg(RAX, 0, op.size);
            scan(cpu, op, left.min(room / size), |cpu, by| (a, ram_sized(cpu, at + by, op.size)))
        }
        What::Cmps => {
            let (from, from_room) = plain(cpu, op.seg, RSI, op, false)?;
            let (to, to_room) = plain(cpu, ES, RDI, op, false)?;
            scan(cpu, op, left.min(to_room.min(from_room) / size), |cpu, by| {
                (ram_sized(cpu, from + by, op.size), ram_sized(cpu, to + by, op.size))
            })
        }
        What::Lods => return None,
    })
}

/// Compares the pairs that `pair` gives for offsets, at most `count`, up to the one that ends the
/// instruction; gives how many that was. The flags are of the last one.
fn scan(cpu: &mut Cpu, op: &Op, count: u64, pair: impl Fn(&Cpu, usize) -> (u64, u64)) -> u64 {
    let until_equal = op.prefixes & Op::REP == 0;
    for n in 0..count {
        let (a, b) = pair(cpu, n as usize * usize::from(op.size));
        if (a == b) == until_equal || n + 1 == count {
            compare(cpu, a, b, op.size);
            return n + 1;
        }
    }
    0
}

fn ram_sized(cpu: &Cpu, offset: usize, size: u8) -> u64 {
    match size {
        1 => cpu.ram.load::<u8>(offset).into(),
        2 => cpu.ram.load::<u16>(offset).into(),
        4 => cpu.ram.load::<u32>(offset).into(),
        _ => cpu.ram.load(offset),
    }
}

/// Where an index register points in the arena, and how many bytes from there the access may go:
/// to the end of the page, the segment and the address size. Only what the TLB has, and nothing if
/// it has no room for an element.
fn plain(cpu: &mut Cpu, seg: u8, reg: u8, op: &Op, write: bool) -> Option<(usize, u64)> {
    let offset = cpu.reg(reg, 0, op.asize);
    let size = u64::from(op.size);
    let (linear, in_segment) = in_segment(cpu, seg, offset, size, write)?;
    let in_page = 4096 - (linear & 0xfff);
    let in_size = (address_mask(op.asize) - offset).saturating_add(1);
    let room = in_page.min(in_size).min(in_segment);
    let entries = if write { &cpu.tlb.write } else { &cpu.tlb.read };
    let entry = entries[Tlb::index(linear)];
    let found = entry.has(linear) && room >= size;
    found.then(|| (cpu.ram.offset_of(linear.wrapping_add(entry.addend)), room))
}

/// The linear address of an offset, and how many bytes its segment has from there. Canonical form
/// is left to the TLB, which has no other addresses.
fn in_segment(cpu: &mut Cpu, seg: u8, offset: u64, size: u64, write: bool) -> Option<(u64, u64)> {
    if cpu.mode.has(Mode::LONG) {
        return Some((offset.wrapping_add(cpu.regs[usize::from(SEG_BASE + seg)]), u64::MAX));
    }
    if cpu.mode.has(Mode::FLAT) && seg < 4 {
        return Some((offset, u64::MAX));
    }
    let segment = cpu.segments.regs[usize::from(seg % 6)];
    if segment.attributes.has(SegmentAttributes::EXPAND_DOWN) {
        return None;
    }
    // An exception here is met again when the element is done alone.
    let linear = cpu.linear(seg, offset, size, write).ok()?;
    Some((linear, u64::from(segment.limit).saturating_sub(offset) + 1))
}

/// Stores `count` elements of RAX at an arena offset.
fn fill(cpu: &mut Cpu, to: usize, count: u64, size: u8) {
    let value = cpu.reg(RAX, 0, size);
    let pattern = match size {
        1 => value.wrapping_mul(0x0101_0101_0101_0101),
        2 => value.wrapping_mul(0x0001_0001_0001_0001),
        4 => value | value << 32,
        _ => value,
    };
    let bytes = (count * u64::from(size)) as usize;
    let low = pattern as u8;
    if pattern == u64::from(low).wrapping_mul(0x0101_0101_0101_0101) {
        cpu.ram.fill(to, bytes, low);
        return;
    }
    for at in (0..bytes / 8).map(|n| to + 8 * n) {
        cpu.ram.store(at, pattern);
    }
    for at in (bytes & !7..bytes).step_by(usize::from(size)) {
        cpu.ram.write_slice(to + at, &pattern.to_le_bytes()[..usize::from(size)]);
    }
}

/// The address size that a string operand says, in bytes.
fn address_size(i: &Instruction) -> u8 {
    use OpKind::*;
    for n in 0..i.op_count() {
        match i.op_kind(n) {
            MemorySegSI | MemorySegDI | MemoryESDI => return 2,
            MemorySegESI | MemorySegEDI | MemoryESEDI => return 4,
            MemorySegRSI | MemorySegRDI | MemoryESRDI => return 8,
            _ => {}
        }
    }
    0
}

fn what(i: &Instruction) -> Option<What> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => What::Movs,
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => What::Stos,
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => What::Lods,
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => What::Scas,
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => What::Cmps,
        _ => return None,
    })
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    let what = what(i)?;
    // MOVSD and CMPSD are also the names of SSE2 instructions.
    if !i.is_string_instruction() {
        return None;
    }
    let mut op = context.op(i);
    op.aux = what as u8;
    op.asize = address_size(i);
    op.size = i.memory_size().size() as u8;
    let repeats = op.prefixes & (Op::REP | Op::REPNE) != 0;
    Some(Selection::general(op, if repeats { repeated } else { once }))
}

#[cfg(test)]
#[path = "string_tests.rs"]
mod tests;
