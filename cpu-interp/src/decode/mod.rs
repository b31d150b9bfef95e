//! From bytes to blocks: decodes with iced-x86, lets the instruction groups choose handlers, drops
//! dead flags and fuses compares with the branches after them.

pub mod context;
mod fuse;
mod length;
pub mod offered;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use iced_x86::{Code, Decoder, FlowControl, Instruction, Mnemonic, Register};
use trivium_cpu::bits::rflags;
use trivium_cpu::model::{Feature, FeatureSet, Quirk, Vendor};

use crate::block::{Block, Key, Link, Target};
use crate::cpu::Mode;
use crate::op::{Op, SystemFn, no_general};
use crate::ops;

pub use context::{AddressKind, Compare, Context, Fuse, Selection};

/// Instructions in a block at most.
pub(crate) const MAX_COUNT: usize = 64;

/// The longest instruction, in bytes. Intel SDM vol. 2A, 2.3.11.
pub const MAX_LEN: usize = 15;

/// The bytes from which a block is decoded.
pub struct Source<'a> {
    /// The bytes of one page; for an instruction that crosses into another, those around it.
    pub bytes: &'a [u8],
    /// Where in `bytes` the block begins.
    pub start: usize,
    /// RIP there.
    pub rip: u64,
    /// The highest RIP that the code segment allows.
    pub limit: u64,
    /// Whose processor decodes.
    pub vendor: Vendor,
    /// What it can do.
    pub features: FeatureSet,
}

/// Why nothing could be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// The first instruction goes on after the end of the bytes.
    Truncated,
}

/// What was decoded.
pub struct Decoded {
    /// The operations.
    pub ops: Vec<Op>,
    /// For each, how many instructions come before it.
    pub before: Vec<u8>,
    /// What the outer loop is to call for the last, if that leaves its work to it.
    pub system: Option<SystemFn>,
    /// Instructions.
    pub count: u8,
    /// The parts of the source that were used: (start, length), as jumps were followed.
    pub spans: Vec<(usize, usize)>,
    /// [`Block::has_entry`].
    pub has_entry: bool,
}

/// One instruction on its way to an operation.
struct Pending {
    selection: Selection,
    /// Instructions before it.
    before: u8,
    /// Arithmetic flags it reads, and those it always writes.
    reads: u64,
    writes: u64,
}

/// Decodes a block for `mode`.
///
/// # Errors
/// The bytes end in the middle of the first instruction.
pub fn decode(source: &Source<'_>, mode: Mode) -> Result<Decoded, DecodeError> {
    decode_some(source, mode, MAX_COUNT)
}

/// [`decode`], but `most` instructions at most.
pub(crate) fn decode_some(
    source: &Source<'_>,
    mode: Mode,
    most: usize,
) -> Result<Decoded, DecodeError> {
    let bitness = mode.bitness();
    let mut decoder = Decoder::with_ip(
        bitness,
        source.bytes,
        source.rip,
        offered::options(source.vendor, source.features),
    );
    decoder.set_position(source.start).map_err(|_| DecodeError::Truncated)?;
    decoder.set_ip(source.rip);
    let mut context = Context { mode, vendor: source.vendor, fop: 0, rex: 0, limit: source.limit };
    let ip_mask = mode.ip_mask();
    let max = if mode.has(Mode::SINGLE) { 1 } else { most };

    let mut pending: Vec<Pending> = Vec::with_capacity(16);
    let mut spans = Vec::with_capacity(2);
    let mut span_start = source.start;
    let mut count = 0_u8;
    let mut rip = source.rip;
    let mut instruction = Instruction::default();
    loop {
        let position = decoder.position();
        if usize::from(count) == max || position >= source.bytes.len() && count > 0 {
            break;
        }
        decoder.set_ip(rip);
        decoder.decode_out(&mut instruction);
        let truncated = decoder.last_error() == iced_x86::DecoderError::NoMoreBytes
            && source.bytes.len() - position < MAX_LEN;
        if truncated {
            if count == 0 {
                return Err(DecodeError::Truncated);
            }
            decoder.set_position(position).map_err(|_| DecodeError::Truncated)?;
            break;
        }
        let next = rip.wrapping_add(instruction.len() as u64) & ip_mask;
        let place = Place { off: rip.wrapping_sub(source.rip) as i16, before: count };
        let last = rip.saturating_add(instruction.len().max(1) as u64 - 1);
        if last > source.limit {
            pending.push(plain(ops::control::beyond_limit(), place, &instruction));
            count += 1;
            break;
        }
        count += 1;
        if let Some(target) = jump_within(&instruction, mode, rip, source) {
            spans.push((span_start, decoder.position() - span_start));
            let position = target.wrapping_sub(source.rip) as i64 + source.start as i64;
            if decoder.set_position(position as usize).is_err() {
                rip = next;
                break;
            }
            span_start = position as usize;
            rip = target;
            continue;
        }
        let bytes = source.bytes.get(position..).unwrap_or_default();
        let prefixes = Prefixes::of(bytes, mode);
        if instruction.code() == Code::Pause && prefixes.rex & REX_B != 0 {
            instruction = pause_of_r8(&instruction, bytes, prefixes.rex);
        }
        if does_nothing(&instruction) && offered::has(source.features, instruction.code()) {
            rip = next;
            if next == 0 {
                break;
            }
            continue;
        }
        context.fop = prefixes.x87_opcode();
        context.rex = prefixes.rex;
        let selection = match refused(&instruction, bytes, prefixes.rest, source, mode) {
            Some(selection) => selection,
            None => select(&instruction, &context),
        };
        let ends = selection.ends;
        pending.push(pend(selection, place, &instruction));
        rip = next;
        // Code that wraps around at the end of its address space goes on in another block.
        if ends || next == 0 {
            break;
        }
    }
    spans.push((span_start, decoder.position().max(span_start + 1) - span_start));
    let ended = pending.last().is_some_and(|p| p.selection.ends);
    let system = pending.last().and_then(|p| p.selection.system);
    let (mut ops, mut before) = lower(pending);
    if !ended {
        ops.push(go_on(rip, source.rip));
        before.push(count);
    }
    Ok(Decoded { ops, before, system, count, spans, has_entry: false })
}

/// Where an instruction stands in its block.
#[derive(Clone, Copy)]
struct Place {
    off: i16,
    before: u8,
}

/// The target of an unconditional direct jump that stays in the source, to be followed while
/// decoding.
fn jump_within(i: &Instruction, mode: Mode, rip: u64, source: &Source<'_>) -> Option<u64> {
    if i.flow_control() != FlowControl::UnconditionalBranch || mode.has(Mode::SINGLE) {
        return None;
    }
    let near = matches!(
        i.code(),
        Code::Jmp_rel8_16
            | Code::Jmp_rel8_32
            | Code::Jmp_rel8_64
            | Code::Jmp_rel16
            | Code::Jmp_rel32_32
            | Code::Jmp_rel32_64
    );
    let target = i.near_branch_target();
    let start = source.rip.wrapping_sub(source.start as u64);
    let within = target.wrapping_sub(start) < source.bytes.len() as u64 && target >= start;
    (near && within && target <= source.limit && target != rip).then_some(target)
}

/// Instructions that count but need no operation.
fn does_nothing(i: &Instruction) -> bool {
    matches!(i.mnemonic(), Mnemonic::Nop | Mnemonic::Pause | Mnemonic::Endbr32 | Mnemonic::Endbr64)
}

/// REX.B and REX.W.
const REX_B: u8 = 1;
const REX_W: u8 = 8;

/// 90 with REX.B exchanges with R8, behind F3 too: then it is not PAUSE. As AMD's processors do it;
/// Intel SDM vol. 2, NOP, says the same of REX.B alone.
fn pause_of_r8(i: &Instruction, bytes: &[u8], rex: u8) -> Instruction {
    let is_short = bytes.iter().take(i.len()).any(|&byte| byte == OPERAND_SIZE);
    let (code, one, other) = match (rex & REX_W != 0, is_short) {
        (true, _) => (Code::Xchg_r64_RAX, Register::R8, Register::RAX),
        (false, false) => (Code::Xchg_r32_EAX, Register::R8D, Register::EAX),
        (false, true) => (Code::Xchg_r16_AX, Register::R8W, Register::AX),
    };
    let mut exchange = *i;
    exchange.set_code(code);
    exchange.set_op0_register(one);
    exchange.set_op1_register(other);
    exchange
}

/// What of an instruction's bytes iced does not tell.
struct Prefixes<'a> {
    /// The REX prefix, or zero.
    rex: u8,
    /// What comes after the prefixes.
    rest: &'a [u8],
}

impl<'a> Prefixes<'a> {
    fn of(bytes: &'a [u8], mode: Mode) -> Self {
        let mut prefixes = Prefixes { rex: 0, rest: bytes };
        while let Some((&byte, rest)) = prefixes.rest.split_first() {
            prefixes.rex = match byte {
                0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3 => 0,
                0x40..=0x4f if mode.has(Mode::LONG) => byte,
                _ => break,
            };
            prefixes.rest = rest;
        }
        prefixes
    }

    /// [`Context::fop`].
    fn x87_opcode(&self) -> u16 {
        match *self.rest {
            [opcode @ 0xd8..=0xdf, modrm, ..] => u16::from(opcode & 7) << 8 | u16::from(modrm),
            _ => 0,
        }
    }
}

/// Instructions that iced takes for others: those that are too long, which raise #GP and not #UD,
/// those of features that the CPU lacks, LOCK MOV CR0, which is MOV CR8 only where CPUID says so, and
/// VPINSRQ and VPEXTRQ outside of 64-bit code. `rest` is what comes after the legacy prefixes.
fn refused(
    i: &Instruction,
    bytes: &[u8],
    rest: &[u8],
    source: &Source<'_>,
    mode: Mode,
) -> Option<Selection> {
    if i.is_invalid() {
        return (i.len() >= MAX_LEN && length::is_too_long(bytes, mode))
            .then(ops::control::beyond_limit);
    }
    if !offered::has(source.features, i.code()) {
        return Some(ops::control::not_implemented(i));
    }
    let is_cr8 = [i.op0_register(), i.op1_register()].contains(&Register::CR8);
    let refused = is_cr8
        && !source.features.has(Feature::Cr8Legacy)
        && bytes.iter().take(i.len()).any(|&byte| byte == LOCK);
    (refused || is_wide_element(i, rest, source, mode)).then(ops::control::undefined)
}

/// Whether VEX.W asks for an element of 64 bits where there are no such general registers.
fn is_wide_element(i: &Instruction, rest: &[u8], source: &Source<'_>, mode: Mode) -> bool {
    const W: u8 = 0x80;
    let codes = [Code::VEX_Vpinsrd_xmm_xmm_rm32_imm8, Code::VEX_Vpextrd_rm32_xmm_imm8];
    !mode.has(Mode::LONG)
        && codes.contains(&i.code())
        && source.vendor.has(Quirk::WideElementsUndefined)
        && matches!(rest, [0xc4, _, last, ..] if last & W != 0)
}

/// The LOCK prefix.
const LOCK: u8 = 0xf0;
/// The operand-size prefix.
const OPERAND_SIZE: u8 = 0x66;

fn select(i: &Instruction, context: &Context) -> Selection {
    if i.is_invalid() {
        return ops::control::undefined();
    }
    #[cfg(feature = "planted-bugs")]
    let i = &crate::planted::instead(i);
    ops::select(i, context).unwrap_or_else(|| ops::control::not_implemented(i))
}

fn pend(mut selection: Selection, place: Place, i: &Instruction) -> Pending {
    selection.op.off = place.off;
    selection.op.len = i.len() as u8;
    if i.op_count() > 0 && i.op0_kind() == iced_x86::OpKind::Memory {
        // It may modify the block that it is in; then those that would overwrite its flags are not
        // what comes next.
        selection.without_flags = None;
    }
    let writes = if selection.conditional_flags { 0 } else { status(i.rflags_modified()) };
    Pending { selection, before: place.before, reads: status(i.rflags_read()), writes }
}

fn plain(selection: Selection, place: Place, i: &Instruction) -> Pending {
    let mut pending = pend(selection, place, i);
    pending.reads = rflags::STATUS;
    pending.writes = 0;
    pending
}

/// iced's flag bits as those of RFLAGS.
fn status(bits: u32) -> u64 {
    use iced_x86::RflagsBits as R;
    let table = [
        (R::CF, rflags::CF),
        (R::PF, rflags::PF),
        (R::AF, rflags::AF),
        (R::ZF, rflags::ZF),
        (R::SF, rflags::SF),
        (R::OF, rflags::OF),
    ];
    table.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, flag)| flag).sum()
}

/// Chooses between handlers with and without flags, from the last instruction to the first, and
/// fuses.
fn lower(mut pending: Vec<Pending>) -> (Vec<Op>, Vec<u8>) {
    let mut live = rflags::STATUS;
    for p in pending.iter_mut().rev() {
        let selection = &mut p.selection;
        if live & p.writes == 0
            && p.writes != 0
            && let Some(without) = selection.without_flags
        {
            selection.op.run = without;
        }
        live = live & !p.writes | p.reads;
        if selection.may_stop {
            live = rflags::STATUS;
        }
    }
    let mut ops: Vec<Op> = Vec::with_capacity(pending.len() + 1);
    let mut before: Vec<u8> = Vec::with_capacity(pending.len() + 1);
    for (index, p) in pending.iter().enumerate() {
        let earlier = index.checked_sub(1).and_then(|i| pending.get(i));
        let fused = earlier.and_then(|e| fuse::fuse(&e.selection, &p.selection));
        match (fused, ops.last_mut()) {
            (Some(fused), Some(last)) => *last = fused,
            _ => {
                ops.push(p.selection.op);
                before.push(p.before);
            }
        }
    }
    (ops, before)
}

/// The operation that goes on after the last instruction of a block that does not end itself.
fn go_on(rip: u64, start: u64) -> Op {
    let mut op = Op::new(ops::control::go_on);
    op.imm = rip;
    op.off = rip.wrapping_sub(start) as i16;
    op
}

impl Op {
    /// An operation without operands.
    #[must_use]
    pub fn new(run: crate::op::Handler) -> Self {
        use crate::cpu::ZERO;
        Self {
            run,
            general: no_general,
            imm: 0,
            disp: 0,
            dst: ZERO,
            src: ZERO,
            base: ZERO,
            index: ZERO,
            scale: 0,
            seg: 3,
            dst_shift: 0,
            src_shift: 0,
            off: 0,
            len: 0,
            size: 0,
            asize: 8,
            prefixes: 0,
            aux: 0,
            aux2: 0,
        }
    }
}

impl Decoded {
    /// Lets it begin with an operation that counts how often the block is entered.
    pub fn add_entry(&mut self) {
        self.ops.insert(0, Op::new(crate::op::count));
        self.before.insert(0, 0);
        self.has_entry = true;
    }

    /// The block, without its operations; the cache gives it its place.
    #[must_use]
    pub fn to_block(&self, key: Key, second_page: Option<(usize, u64)>) -> Block {
        Block {
            rip: key.rip,
            links: [Cell::new(Link::default()), Cell::new(Link::default())],
            mode: key.mode,
            target: Target { count: self.count, ..Target::default() },
            decoded: 0,
            before: self.before.as_slice().into(),
            system: self.system,
            key,
            has_entry: self.has_entry,
            cold: Cell::new(0),
            heat: Cell::new(0),
            second_page,
        }
    }
}
