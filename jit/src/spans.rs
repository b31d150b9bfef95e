//! Accesses of a block that are near each other: one look into the TLB does for all of them.
//!
//! Two addresses are near if they are made of the same values of registers, and differ by a constant
//! that is small. They are then mostly on the same page; where they are not, the interpreter takes
//! over at the first of them.

use iced_x86::{Code, Instruction, Mnemonic, OpAccess, OpKind, Register};

use crate::crossing;
use crate::known::{Beside, Known};
use crate::regs::number_of;
use crate::select::is_bit_string;

/// Bytes that accesses of a span may reach over: the more, the oftener they are on two pages.
pub(crate) const LIMIT: i64 = 256;
/// The same in superblocks, which have single blocks' code to go on in then.
pub(crate) const WIDE_LIMIT: i64 = 1024;
/// How many spans a block may have.
pub(crate) const SPANS: usize = 16;
/// The number of RSP.
const RSP: usize = 4;
/// The number of RBP.
const RBP: usize = 5;

/// What is known of an instruction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// What it does with its operands.
    pub(crate) accesses: [OpAccess; 4],
    /// The guest's processor has it.
    pub(crate) offered: bool,
    /// It is copied as it is, with other registers and another memory operand.
    pub(crate) copied: bool,
    /// What it does with general registers beside its operands.
    pub(crate) beside: Beside,
    /// The span of its access, by number.
    pub(crate) span: Option<Member>,
}

/// An access as a part of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// The span's number.
    pub(crate) number: u8,
    /// How far into the span it is, in bytes.
    pub(crate) offset: i32,
    /// The span has no more after this.
    pub(crate) is_last: bool,
}

/// A span: bytes, and whether any of them is stored to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) len: usize,
    pub(crate) write: bool,
}

/// The value that a register has: one that was unknown, and what was added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Value {
    id: u32,
    plus: i64,
}

/// What an address is made of but for constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    base: Option<u32>,
    index: Option<(u32, u32)>,
    segment: Option<Register>,
}

#[derive(Debug, Clone, Copy)]
struct Access {
    instruction: usize,
    key: Key,
    at: i64,
    size: i64,
    write: bool,
}

struct Growing {
    key: Key,
    start: i64,
    end: i64,
    write: bool,
    members: u32,
    last: usize,
    /// The number that it has as a span.
    number: Option<u8>,
}

/// The values of registers on the way through a block.
struct Values {
    of: [Value; 16],
    next: u32,
    /// Bytes of an address of the mode.
    word: usize,
}

/// Looks at the instructions of a block, whose addresses have `word` bytes, for spans of up to `limit`
/// bytes.
pub(crate) fn find<'a>(
    instructions: impl Iterator<Item = &'a Instruction> + Clone,
    word: usize,
    limit: i64,
    known: &mut Known,
    (facts, room): (&mut Vec<Facts>, &mut Room),
) -> Vec<Span> {
    facts.clear();
    facts.extend(instructions.clone().map(|i| known.facts(i)));
    // What registers have is of interest only where accesses may have something in common.
    let mut may_access = instructions.clone().enumerate().filter(|(_, i)| may_access(i));
    let (Some(_), Some(_)) = (may_access.next(), may_access.next()) else { return Vec::new() };
    let last = may_access.last().map_or(usize::MAX, |(last, _)| last);
    let mut values = Values::new(word);
    room.accesses.clear();
    for (number, i) in instructions.enumerate() {
        let Some(facts) = facts.get(number) else { break };
        room.accesses.extend(values.access(number, i, &facts.accesses));
        if number >= last {
            break;
        }
        values.pass(i, known.written(i, facts));
    }
    match room.accesses.len() {
        0 | 1 => Vec::new(),
        _ => group(room, limit, facts),
    }
}

/// Whether an instruction may have an access that [`Values::access`] gives.
fn may_access(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(i.mnemonic(), M::Push | M::Pop | M::Call | M::Ret | M::Leave)
        || (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory)
            && !matches!(i.mnemonic(), M::Lea | M::Jmp | M::Nop)
}

pub(crate) fn is_write(access: OpAccess) -> bool {
    use OpAccess as A;
    matches!(access, A::Write | A::CondWrite | A::ReadWrite | A::ReadCondWrite)
}

/// Lists of the present block: room that need not be asked for again.
#[derive(Default)]
pub(crate) struct Room {
    accesses: Vec<Access>,
    growing: Vec<Growing>,
    /// For each access, which of those it is in.
    chosen: Vec<usize>,
}

/// Makes spans of accesses, and tells the instructions of them. Those that are alone are in none.
fn group(room: &mut Room, limit: i64, facts: &mut [Facts]) -> Vec<Span> {
    let Room { accesses, growing, chosen } = room;
    growing.clear();
    chosen.clear();
    for access in accesses.iter() {
        let end = access.at.wrapping_add(access.size);
        let fits = |span: &Growing| {
            let (start, end) = (span.start.min(access.at), span.end.max(end));
            span.key == access.key && end.checked_sub(start).is_some_and(|len| len <= limit)
        };
        let number = growing.iter().position(fits);
        let number = number.unwrap_or_else(|| {
            let Access { key, at: start, write, .. } = *access;
            let (members, last, number) = (0, 0, None);
            growing.push(Growing { key, start, end, write, members, last, number });
            growing.len() - 1
        });
        let span = &mut growing[number];
        span.start = span.start.min(access.at);
        span.end = span.end.max(end);
        span.write |= access.write;
        span.members += 1;
        span.last = access.instruction;
        chosen.push(number);
    }
    let mut spans = Vec::new();
    for span in growing.iter_mut().filter(|span| span.members > 1).take(SPANS) {
        span.number = Some(spans.len() as u8);
        spans.push(Span { len: (span.end - span.start) as usize, write: span.write });
    }
    if spans.is_empty() {
        return spans;
    }
    for (access, &number) in accesses.iter().zip(chosen.iter()) {
        let Growing { start, last, number, .. } = growing[number];
        let (Some(number), Some(fact)) = (number, facts.get_mut(access.instruction)) else {
            continue;
        };
        let is_last = last == access.instruction;
        fact.span = Some(Member { number, offset: (access.at - start) as i32, is_last });
    }
    spans
}

/// Whether an access is one of those with which code goes through arrays that need not be aligned:
/// they often lie across pages, which is looked after only if they are by themselves.
fn streams(base: Register, size: usize) -> bool {
    crossing::SIZES.contains(&size) && ![RSP, RBP].contains(&usize::from(number_of(base)))
}

impl Values {
    fn new(word: usize) -> Self {
        let of = std::array::from_fn(|id| Value { id: id as u32, plus: 0 });
        Self { of, next: 16, word }
    }

    fn get(&self, register: Register) -> Value {
        self.of[usize::from(number_of(register) & 15)]
    }

    fn is_word(&self, register: Register) -> bool {
        register.is_gpr() && register.size() == self.word
    }

    /// The access of an instruction that is to have a part in a span: its memory operand, or that to
    /// the stack.
    fn access(&self, number: usize, i: &Instruction, operands: &[OpAccess; 4]) -> Option<Access> {
        let word = self.word as i64;
        let stack = |register: usize, plus: i64, write: bool| {
            let value = self.of[register];
            let key = Key { base: Some(value.id), index: None, segment: None };
            let at = value.plus.wrapping_add(plus);
            Some(Access { instruction: number, key, at, size: word, write })
        };
        match i.mnemonic() {
            Mnemonic::Push | Mnemonic::Call => return stack(RSP, -word, true),
            Mnemonic::Pop | Mnemonic::Ret => return stack(RSP, 0, false),
            Mnemonic::Leave => return stack(RBP, 0, false),
            Mnemonic::Lea | Mnemonic::Jmp | Mnemonic::Nop => return None,
            // Where the access is, does not depend on the address alone.
            _ if is_bit_string(i) => return None,
            _ => {}
        }
        let operand = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory)?;
        let write = is_write(*operands.get(operand as usize)?);
        let size = i.memory_size().size() as i64;
        let (base, index) = (i.memory_base(), i.memory_index());
        if streams(base, size as usize) {
            return None;
        }
        let segment = i.memory_segment();
        let segment = matches!(segment, Register::FS | Register::GS).then_some(segment);
        let is_absolute =
            i.is_ip_rel_memory_operand() || base == Register::None && index == Register::None;
        if is_absolute {
            let at = match i.is_ip_rel_memory_operand() {
                true => i.ip_rel_memory_address(),
                false => i.memory_displacement64(),
            };
            let key = Key { base: None, index: None, segment };
            return Some(Access { instruction: number, key, at: at as i64, size, write });
        }
        let is_plain = [base, index].iter().all(|&r| r == Register::None || self.is_word(r));
        if !is_plain {
            return None;
        }
        let scale = i.memory_index_scale();
        let base = (base != Register::None).then(|| self.get(base));
        let index = (index != Register::None).then(|| self.get(index));
        let at = i64::from(i.memory_displacement64() as i32)
            .wrapping_add(base.map_or(0, |base| base.plus))
            .wrapping_add(index.map_or(0, |index| index.plus.wrapping_mul(scale.into())));
        let key = Key {
            base: base.map(|base| base.id),
            index: index.map(|index| (index.id, scale)),
            segment,
        };
        Some(Access { instruction: number, key, at, size, write })
    }

    /// What registers have after an instruction that writes those of a mask.
    fn pass(&mut self, i: &Instruction, written: u16) {
        let word = self.word as i64;
        let kept = self.known(i);
        let rsp = self.of[RSP];
        for number in (0..16).filter(|number| written >> number & 1 != 0) {
            self.of[number] = Value { id: self.next, plus: 0 };
            self.next += 1;
        }
        let mut moved = |from: Value, plus: i64| {
            self.of[RSP] = Value { id: from.id, plus: from.plus.wrapping_add(plus) };
        };
        match i.code() {
            Code::Push_r64 | Code::Pushq_imm32 | Code::Pushq_imm8 if word == 8 => moved(rsp, -word),
            Code::Push_r32 | Code::Pushd_imm32 | Code::Pushd_imm8 if word == 4 => moved(rsp, -word),
            // They lead on to what comes next here, where there is anything.
            Code::Call_rel32_64 if word == 8 => moved(rsp, -word),
            Code::Call_rel32_32 if word == 4 => moved(rsp, -word),
            Code::Retnq if word == 8 => moved(rsp, word),
            Code::Retnd if word == 4 => moved(rsp, word),
            Code::Pop_r64 if word == 8 && i.op0_register() != Register::RSP => moved(rsp, word),
            Code::Pop_r32 if word == 4 && i.op0_register() != Register::ESP => moved(rsp, word),
            _ => {}
        }
        if let Some((register, value)) = kept {
            self.of[register] = value;
        }
    }

    /// What the destination of an instruction has afterwards, if that is known.
    fn known(&self, i: &Instruction) -> Option<(usize, Value)> {
        if i.op_count() == 0 || i.op0_kind() != OpKind::Register || !self.is_word(i.op0_register())
        {
            return None;
        }
        let to = usize::from(number_of(i.op0_register()) & 15);
        let plus = |value: Value, plus: i64| {
            Some((to, Value { id: value.id, plus: value.plus.wrapping_add(plus) }))
        };
        let own = self.of[to];
        match i.mnemonic() {
            Mnemonic::Inc => plus(own, 1),
            Mnemonic::Dec => plus(own, -1),
            Mnemonic::Add if is_immediate(i) => plus(own, i.immediate(1) as i64),
            Mnemonic::Sub if is_immediate(i) => plus(own, (i.immediate(1) as i64).wrapping_neg()),
            Mnemonic::Mov if i.op1_kind() == OpKind::Register && self.is_word(i.op1_register()) => {
                plus(self.get(i.op1_register()), 0)
            }
            Mnemonic::Lea
                if self.is_word(i.memory_base()) && i.memory_index() == Register::None =>
            {
                plus(self.get(i.memory_base()), i64::from(i.memory_displacement64() as i32))
            }
            _ => None,
        }
    }
}

fn is_immediate(i: &Instruction) -> bool {
    i.op_count() == 2 && !matches!(i.op1_kind(), OpKind::Register | OpKind::Memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Decoder;

    fn spans(code: &[u8]) -> (Vec<Option<(u8, i32)>>, Vec<Span>) {
        let list: Vec<_> = Decoder::new(64, code, 0).into_iter().collect();
        let mut facts = Vec::new();
        let spans =
            find(list.iter(), 8, LIMIT, &mut Known::default(), (&mut facts, &mut Room::default()));
        (facts.iter().map(|f| f.span.map(|m| (m.number, m.offset))).collect(), spans)
    }

    #[test]
    fn pushes_share_a_span_that_is_stored_to() {
        // push rbp; mov rbp, rsp; push rbx; mov rax, [rbp+16]; pop rbx
        let (members, spans) = spans(&[0x55, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x8b, 0x45, 0x10, 0x5b]);
        assert_eq!(members, [Some((0, 8)), None, Some((0, 0)), Some((0, 24)), Some((0, 0))]);
        assert_eq!(spans, [Span { len: 32, write: true }]);
    }

    #[test]
    fn a_base_that_is_computed_anew_begins_another_span() {
        // mov rax, [rdx]; imul rdx, rdx; mov rcx, [rdx]; add rdx, 8; mov rbx, [rdx]
        let code = [
            0x48, 0x8b, 0x02, 0x48, 0x0f, 0xaf, 0xd2, 0x48, 0x8b, 0x0a, 0x48, 0x83, 0xc2, 0x08,
            0x48, 0x8b, 0x1a,
        ];
        let (members, spans) = spans(&code);
        assert_eq!(members, [None, None, Some((0, 0)), None, Some((0, 8))]);
        assert_eq!(spans, [Span { len: 16, write: false }]);
    }

    #[test]
    fn what_is_far_apart_or_alone_is_in_none() {
        // mov rax, [rdx]; mov rcx, [rdx+1000]; mov eax, edx; mov ebx, [rax]
        let code = [0x48, 0x8b, 0x02, 0x48, 0x8b, 0x8a, 0xe8, 0x03, 0, 0, 0x89, 0xd0, 0x8b, 0x18];
        assert_eq!(spans(&code), (vec![None; 4], vec![]));
    }
}
