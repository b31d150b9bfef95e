//! Encodings of copied instructions. iced's encoder is asked once for each of them, and where its
//! operands are in what it gives is kept: it looks at much that is the same each time.

use std::sync::atomic::{AtomicU64, Ordering};

use iced_x86::{Encoder, EncodingKind, Instruction, OpKind, Register};

use crate::regs::is_high;

/// Bytes of the longest instruction.
const MOST: usize = 15;
/// How many encodings there are, twice: with a memory operand and without.
const PLACES: usize = 2 * 8192;

/// What is known of encodings: nothing, that it is iced's to encode, or a [`Shape`].
static SHAPES: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
const IS_KNOWN: u64 = 1 << 63;
const IS_ASKED: u64 = 1 << 62;

/// No operand.
const NONE: u8 = 7;

/// Where an encoding has its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// It begins with 66h, and with F2h or F3h.
    operand_size: bool,
    repeat: u8,
    wide: bool,
    /// How many of 0Fh and 38h, or 0Fh and 3Ah there are.
    map: u8,
    opcode: u8,
    /// The operands that are in ModRM.reg, in ModRM.rm, and in the opcode.
    reg: u8,
    rm: u8,
    added: u8,
    /// There is a ModRM byte, and what it has of the opcode.
    modrm: bool,
    extension: u8,
    /// Bytes of the immediate operand, and which that is.
    size: u8,
    immediate: u8,
}

const MAPS: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];

impl Shape {
    fn pack(self) -> u64 {
        let fields = [
            (self.operand_size.into(), 1),
            (self.repeat, 8),
            (self.wide.into(), 1),
            (self.map, 2),
            (self.opcode, 8),
            (self.reg, 3),
            (self.rm, 3),
            (self.added, 3),
            (self.modrm.into(), 1),
            (self.extension, 3),
            (self.size, 4),
            (self.immediate, 3),
        ];
        let pack = |bits: u64, (field, width): (u8, u32)| bits << width | u64::from(field);
        fields.into_iter().fold(0, pack) | IS_KNOWN
    }

    fn unpack(mut bits: u64) -> Self {
        let mut take = |width: u32| {
            let field = (bits & ((1 << width) - 1)) as u8;
            bits >>= width;
            field
        };
        let (immediate, size, extension, modrm) = (take(3), take(4), take(3), take(1) != 0);
        let (added, rm, reg) = (take(3), take(3), take(3));
        let (opcode, map, wide) = (take(8), take(2), take(1) != 0);
        let (repeat, operand_size) = (take(8), take(1) != 0);
        Self {
            operand_size,
            repeat,
            wide,
            map,
            opcode,
            reg,
            rm,
            added,
            modrm,
            extension,
            size,
            immediate,
        }
    }

    /// That of an encoding, by what iced makes of it.
    fn learn(encoder: &mut Encoder, i: &Instruction) -> Option<Self> {
        let mut model = *i;
        let plain = |n: u32| match i.op_kind(n) {
            OpKind::Register => {
                let register = i.op_register(n);
                register.is_gpr() || register.is_xmm() || register.is_mm()
            }
            OpKind::Memory | OpKind::Immediate8 | OpKind::Immediate16 | OpKind::Immediate32 => true,
            OpKind::Immediate64 | OpKind::Immediate32to64 => true,
            OpKind::Immediate8to16 | OpKind::Immediate8to32 | OpKind::Immediate8to64 => true,
            _ => false,
        };
        if i.code().encoding() != EncodingKind::Legacy || !(0..i.op_count()).all(plain) {
            return None;
        }
        let immediates = || (0..i.op_count()).filter(|&n| is_immediate(i.op_kind(n)));
        if immediates().count() > 1 {
            return None;
        }
        for n in 0..i.op_count() {
            if i.op_kind(n) == OpKind::Memory {
                model.set_memory_base(Register::RAX);
                model.set_memory_index(Register::None);
                model.set_memory_displ_size(0);
                model.set_memory_displacement64(0);
                model.set_segment_prefix(Register::None);
            }
        }
        let registers = || (0..i.op_count()).filter(|&n| i.op_kind(n) == OpKind::Register);
        let named = |encoder: &mut Encoder, n: u32, number: u32| {
            let mut other = model;
            other.set_op_register(n, first_like(i.op_register(n)) + number);
            encode(encoder, &other)
        };
        // Those that can be others.
        let chosen: Vec<u32> = registers()
            .filter(|&n| named(encoder, n, 1).is_some() && named(encoder, n, 2).is_some())
            .collect();
        for &n in &chosen {
            model.set_op_register(n, first_like(i.op_register(n)));
        }
        let bytes = encode(encoder, &model)?;
        let (mut shape, opcode) = Self::parse(&bytes)?;
        let mut roles = [NONE; 3];
        for &n in &chosen {
            let mut other = model;
            other.set_op_register(n, first_like(i.op_register(n)) + 3_u32);
            let with = encode(encoder, &other)?;
            let changed = |at: usize| bytes.get(at).zip(with.get(at)).map_or(0, |(a, b)| a ^ b);
            let role = match (changed(opcode), changed(opcode + 1)) {
                (0, 0x18) => 0,
                (0, 0x03) => 1,
                (0x03, _) => 2,
                _ => return None,
            };
            if with.len() != bytes.len() || roles[role] != NONE {
                return None;
            }
            roles[role] = n as u8;
        }
        let memory = (0..i.op_count()).find(|&n| i.op_kind(n) == OpKind::Memory);
        if let Some(n) = memory {
            roles[1] = n as u8;
        }
        [shape.reg, shape.rm, shape.added] = roles;
        let immediate = immediates().next();
        shape.modrm = roles[0] != NONE || roles[1] != NONE;
        let rest = bytes.get(opcode + 1 + usize::from(shape.modrm)..)?;
        shape.size = rest.len() as u8;
        match immediate {
            Some(n) => shape.immediate = n as u8,
            None if rest.is_empty() => {}
            None => return None,
        }
        if shape.modrm {
            let modrm = *bytes.get(opcode + 1)?;
            shape.extension = modrm >> 3 & 7;
            // What is there is of the operands that are chosen, which are all the first.
            let expected = if memory.is_some() { 0 } else { 0xc0 };
            if modrm & 0xc7 != expected || shape.reg != NONE && shape.extension != 0 {
                return None;
            }
        }
        // It has to be what iced gives for the instruction itself.
        let own = shape.encode(i)?;
        (encode(encoder, i)? == own.bytes()).then_some(shape)
    }

    /// The parts before the operands, and where the opcode's last byte is.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut at = 0;
        let mut next = |is: &dyn Fn(u8) -> bool| {
            let byte = *bytes.get(at)?;
            let found = is(byte);
            at += usize::from(found);
            found.then_some(byte)
        };
        let operand_size = next(&|byte| byte == 0x66).is_some();
        let repeat = next(&|byte| byte == 0xf2 || byte == 0xf3).unwrap_or(0);
        let rex = next(&|byte| byte & 0xf0 == 0x40).unwrap_or(0x40);
        let map = match next(&|byte| byte == 0x0f) {
            None => 0,
            Some(_) => match next(&|byte| byte == 0x38 || byte == 0x3a) {
                None => 1,
                Some(0x38) => 2,
                Some(_) => 3,
            },
        };
        let opcode = *bytes.get(at)?;
        let is_prefix = map == 0 && matches!(opcode, 0x66 | 0xf2 | 0xf3 | 0x40..=0x4f);
        let shape = Self {
            operand_size,
            repeat,
            wide: rex & 8 != 0,
            map,
            opcode,
            reg: NONE,
            rm: NONE,
            added: NONE,
            modrm: false,
            extension: 0,
            size: 0,
            immediate: NONE,
        };
        (rex & !8 == 0x40 && !is_prefix).then_some((shape, at))
    }

    /// Encodes an instruction of this shape; nothing if it has something that others have not.
    fn encode(self, i: &Instruction) -> Option<Out> {
        let mut out = Out::new();
        if self.operand_size {
            out.push(0x66);
        }
        if self.repeat != 0 {
            out.push(self.repeat);
        }
        let mut rex = u8::from(self.wide) << 3;
        let mut named = |n: u8, bit: u8| {
            if n == NONE {
                return Some(0);
            }
            let number = NUMBERS[i.op_register(n.into()) as usize & 0xff];
            rex |= number & NEEDS_REX | (number >> 3 & 1) << bit;
            (number & !NEEDS_REX < 16).then_some(number & 7)
        };
        let (reg, added) = (named(self.reg, 2)?, named(self.added, 0)?);
        let memory = self.rm != NONE && i.op_kind(self.rm.into()) == OpKind::Memory;
        let rm = if memory { 0 } else { named(self.rm, 0)? };
        let address = match memory {
            true => Some(Address::of(i)?),
            false => None,
        };
        rex |= address.map_or(0, Address::rex);
        if rex != 0 {
            out.push(0x40 | rex);
        }
        MAPS[usize::from(self.map & 3)].iter().for_each(|&byte| out.push(byte));
        out.push(self.opcode | added);
        let reg = (if self.reg == NONE { self.extension } else { reg }) << 3;
        match address {
            Some(address) => out.memory(reg, address),
            None if self.modrm => out.push(0xc0 | reg | rm),
            None => {}
        }
        if self.size != 0 {
            out.number(i.immediate(self.immediate.into()), self.size.into());
        }
        Some(out)
    }
}

/// Bytes that an instruction never needs all of.
const ROOM: usize = 40;

/// The numbers of registers, by iced's; [`NOT_NAMED`] of those that are not named here.
static NUMBERS: [u8; 256] = {
    let mut numbers = [NOT_NAMED; 256];
    let kinds = [Register::RAX, Register::EAX, Register::AX, Register::XMM0];
    let mut n = 0;
    while n < 16 {
        let mut kind = 0;
        while kind < kinds.len() {
            numbers[kinds[kind] as usize + n] = n as u8;
            kind += 1;
        }
        // AH and its like are behind the fourth, and have no place beside a REX prefix.
        match n {
            0..4 => numbers[Register::AL as usize + n] = n as u8,
            4..8 => numbers[Register::SPL as usize + n - 4] = n as u8 | NEEDS_REX,
            _ => numbers[Register::SPL as usize + n - 4] = n as u8,
        }
        if n < 8 {
            numbers[Register::MM0 as usize + n] = n as u8;
        }
        n += 1;
    }
    numbers
};
const NEEDS_REX: u8 = 0x40;
const NOT_NAMED: u8 = 0x80;

/// The address of a memory operand, of registers of 64 bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    pub(super) base: Option<u8>,
    pub(super) index: Option<u8>,
    pub(super) scale: u32,
    pub(super) plus: i32,
    /// It has a displacement of 32 bits, though fewer would do.
    pub(super) long: bool,
}

impl Address {
    fn of(i: &Instruction) -> Option<Self> {
        let number = |register: Register| match register {
            Register::None => Some(None),
            register if register.is_gpr64() => Some(Some(NUMBERS[register as usize & 0xff])),
            _ => None,
        };
        let plus = i.memory_displacement64() as i32;
        if i.memory_displacement64() != i64::from(plus) as u64 {
            return None;
        }
        let (base, index) = (number(i.memory_base())?, number(i.memory_index())?);
        let size = i.memory_displ_size();
        let is_usual = base.is_some() && index != Some(4) && (size != 0 || plus == 0);
        let (scale, long) = (i.memory_index_scale(), size > 1);
        is_usual.then_some(Self { base, index, scale, plus, long })
    }

    fn rex(self) -> u8 {
        self.base.map_or(0, |base| base >> 3) | self.index.map_or(0, |index| index >> 3 << 1)
    }
}

/// LEA of an address, to the register of a number with 64 or 32 bits.
pub(super) fn lea(to: u8, is_wide: bool, address: Address) -> Out {
    let mut out = Out::new();
    let rex = u8::from(is_wide) << 3 | to >> 3 << 2 | address.rex();
    if rex != 0 {
        out.push(0x40 | rex);
    }
    out.push(0x8d);
    out.memory((to & 7) << 3, address);
    out
}

/// Bytes that are put together.
pub(super) struct Out {
    bytes: [u8; ROOM],
    len: usize,
}

impl Out {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; ROOM], len: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len.min(ROOM)]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len % ROOM] = byte;
        self.len += 1;
    }

    /// The lower bytes of a number, so many.
    pub(super) fn number(&mut self, value: u64, bytes: usize) {
        if let Some(place) = self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            *place = value.to_le_bytes();
            self.len += bytes;
        }
    }

    /// ModRM, SIB and displacement of a memory operand. Intel SDM vol. 2A, 2.1.5.
    fn memory(&mut self, reg: u8, address: Address) {
        let Address { base, index, scale, plus, long } = address;
        let bytes = match base {
            Some(_) if long => 4,
            Some(base) if plus == 0 && base & 7 != 5 => 0,
            Some(_) if i8::try_from(plus).is_ok() => 1,
            _ => 4,
        };
        let mode = match (base, bytes) {
            (None, _) | (_, 0) => 0,
            (_, 1) => 0x40,
            _ => 0x80,
        };
        let low = base.map_or(5, |base| base & 7);
        match index {
            None if base.is_some() && low != 4 => self.push(mode | reg | low),
            _ => {
                self.push(mode | reg | 4);
                let index = index.map_or(4, |index| index & 7);
                self.push((scale.trailing_zeros() as u8 & 3) << 6 | index << 3 | low);
            }
        }
        self.number(plus as u32 as u64, bytes);
    }
}

fn is_immediate(kind: OpKind) -> bool {
    !matches!(kind, OpKind::Register | OpKind::Memory)
}

/// The first register of one's kind.
fn first_like(register: Register) -> Register {
    match register {
        r if r.is_gpr64() => Register::RAX,
        r if r.is_gpr32() => Register::EAX,
        r if r.is_gpr16() => Register::AX,
        r if r.is_gpr8() => Register::AL,
        r if r.is_mm() => Register::MM0,
        _ => Register::XMM0,
    }
}

/// What iced makes of an instruction.
fn encode(encoder: &mut Encoder, i: &Instruction) -> Option<Vec<u8>> {
    encoder.set_buffer(Vec::with_capacity(MOST));
    encoder.encode(i, 0).ok()?;
    Some(encoder.take_buffer())
}

/// Encodes an instruction by what is known of such; nothing if it is iced's.
pub(super) fn by_shape(encoder: &mut Encoder, i: &Instruction) -> Option<Out> {
    let odd = i.has_lock_prefix() || i.has_rep_prefix() || i.has_repne_prefix();
    if odd || i.segment_prefix() != Register::None {
        return None;
    }
    let memory = [i.op0_kind(), i.op1_kind(), i.op2_kind()].contains(&OpKind::Memory);
    let place = SHAPES.get(i.code() as usize * 2 + usize::from(memory))?;
    let mut bits = place.load(Ordering::Relaxed);
    if bits == 0 {
        bits = learn(encoder, i)?;
        place.store(bits, Ordering::Relaxed);
    }
    if bits & IS_ASKED != 0 {
        return None;
    }
    Shape::unpack(bits).encode(i)
}

#[cold]
fn learn(encoder: &mut Encoder, i: &Instruction) -> Option<u64> {
    // Of these nothing is to be learnt for others.
    if (0..i.op_count()).any(|n| is_high(i.op_register(n))) {
        return None;
    }
    Some(Shape::learn(encoder, i).map_or(IS_ASKED, Shape::pack))
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Decoder;

    /// All encodings of one and two bytes, and of three.
    #[test]
    fn addresses_are_what_iced_encodes() {
        use iced_x86::{Code, MemoryOperand};
        let mut encoder = Encoder::new(64);
        let registers = || (0..16).map(Some).chain([None]);
        let name = |number: Option<u8>| {
            number.map_or(Register::None, |number| Register::RAX + u32::from(number))
        };
        for (base, index) in registers().flat_map(|base| registers().map(move |i| (base, i))) {
            for plus in [0, 1, -128, 127, 128, 0x12345, i32::MIN] {
                if index == Some(4) || base.is_none() && index.is_none() {
                    continue;
                }
                let scale = if index.is_some() { 1 << (plus as u32 & 3) } else { 1 };
                let memory = MemoryOperand::new(
                    name(base),
                    name(index),
                    scale,
                    plus.into(),
                    u32::from(plus != 0),
                    false,
                    Register::None,
                );
                let i = Instruction::with2(Code::Lea_r64_m, Register::R8, memory).unwrap();
                let address = Address { base, index, scale, plus, long: false };
                let own = lea(8, true, address);
                assert_eq!(Some(own.bytes()), encode(&mut encoder, &i).as_deref(), "{i}");
            }
        }
    }

    #[test]
    fn what_is_encoded_by_shapes_is_what_iced_encodes() {
        let mut encoder = Encoder::new(64);
        let prefixes: [&[u8]; 7] =
            [&[], &[0x66], &[0xf2], &[0xf3], &[0x48], &[0x66, 0x4d], &[0x45]];
        let (mut done, mut asked) = (0, 0);
        for prefix in prefixes {
            for (map, modrm) in (0..4).flat_map(|map| (0..=255).map(move |modrm| (map, modrm))) {
                for opcode in 0..=255_u8 {
                    let rest = [0x4d, opcode.wrapping_mul(0x4f), 0x81, 0xff, 0xf3, 0, 1, 0x80];
                    let bytes = [prefix, MAPS[map], &[opcode, modrm], &rest, &[1; 8]].concat();
                    let i = Decoder::new(64, &bytes, 0).decode();
                    if i.is_invalid() || i.is_ip_rel_memory_operand() {
                        continue;
                    }
                    let Some(own) = by_shape(&mut encoder, &i) else {
                        asked += 1;
                        continue;
                    };
                    done += 1;
                    assert_eq!(Some(own.bytes()), encode(&mut encoder, &i).as_deref(), "{i}");
                }
            }
        }
        assert!(done > asked, "{done} {asked}");
    }
}
