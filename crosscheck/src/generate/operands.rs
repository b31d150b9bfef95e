//! Chooses the operands of an encoding and puts it together.

use iced_x86::OpCodeOperandKind as Kind;

use super::address::{self, Access, Addressing, Manner, Place};
use super::draft::Draft;
use super::form::{self, Form, Introduction};
use super::parts::{Bytes, Late, Parts, Vex};
use super::segments;
use super::values;
use crate::case::Width;

/// Registers and memory that an instruction was given.
#[derive(Debug, Clone, Default)]
pub(super) struct Chosen {
    /// Numbers of registers by where the encoding has them.
    pub reg: Option<u8>,
    pub rm: Option<u8>,
    pub vvvv: Option<u8>,
    pub low: Option<u8>,
    /// Where the explicit operand in memory is.
    pub place: Option<Place>,
    /// Bits of addresses, and the segment of a prefix.
    pub manner: Option<Manner>,
}

/// How registers and memory are chosen for an instruction among others: the state at the start of
/// the case cannot be made to fit each of them.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    /// Registers that point to memory, with the linear addresses.
    pub pointers: Vec<(u8, u64)>,
}

/// Extension bits on their way into REX or VEX.
#[derive(Debug, Clone, Copy, Default)]
struct Extension {
    r: u8,
    x: u8,
    b: u8,
}

/// Puts an instruction together, operands as they come.
pub(super) struct Builder<'a> {
    form: &'a Form,
    stream: Option<&'a Stream>,
    parts: Parts,
    extension: Extension,
    chosen: Chosen,
    /// The number that all registers have, if they are to be the same.
    same: Option<u8>,
    vvvv: u8,
    /// A register of 8 bits that is another one with REX.
    low_byte: bool,
    mode: u8,
    rm: u8,
}

/// An instruction with operands of any kind; what the state must be for them is in the draft.
pub(super) fn build(draft: &mut Draft, form: &Form, stream: Option<&Stream>) -> (Parts, Chosen) {
    let same = (!form.unique && draft.rng.percent(15)).then(|| draft.rng.below(16) as u8);
    let mut builder = Builder {
        form,
        stream,
        parts: Parts::new(),
        extension: Extension::default(),
        chosen: Chosen::default(),
        same,
        vvvv: 0,
        low_byte: false,
        mode: 3,
        rm: draft.rng.below(8) as u8,
    };
    builder.sizes(draft);
    for &kind in &form.operands {
        builder.operand(draft, kind);
    }
    builder.finish(draft)
}

impl Builder<'_> {
    /// The prefixes for the sizes of operands and of addresses.
    fn sizes(&mut self, draft: &mut Draft) {
        let prefixes = &mut self.parts.prefixes;
        // Addresses of a size of their own are those of a chosen stream.
        let manner = match self.stream {
            Some(_) => {
                let bits = match self.form.address_size {
                    0 => draft.width.bits(),
                    bits => bits,
                };
                if bits != draft.width.bits() {
                    prefixes.push(0x67);
                }
                Manner { bits, segment: None }
            }
            None if self.form.uses_memory() || self.form.address_size != 0 => {
                // There are no 16-bit addresses with a vector of indices.
                let vector = self.form.operands.iter().any(|&k| form::is_vsib(k));
                let fixed = match self.form.address_size {
                    0 if vector && draft.width != Width::Bits64 => 32,
                    fixed => fixed,
                };
                address::manner(draft, fixed, prefixes)
            }
            None => Manner { bits: draft.width.bits(), segment: None },
        };
        self.chosen.manner = Some(manner);
        let other = match (draft.width, self.form.operand_size) {
            (_, 0) | (Width::Bits64, 64) => false,
            (Width::Bits16, size) => size != 16,
            (_, size) => size == 16,
        };
        if other && self.form.introduction != Introduction::Vex {
            prefixes.push(0x66);
        }
        if self.form.introduction != Introduction::Vex {
            // One 66 does for both.
            let mandatory = self.form.mandatory.filter(|p| !prefixes.contains(p));
            prefixes.extend(mandatory);
        }
    }

    fn manner(&self, draft: &Draft) -> Manner {
        self.chosen.manner.unwrap_or(Manner { bits: draft.width.bits(), segment: None })
    }

    fn operand(&mut self, draft: &mut Draft, kind: Kind) {
        use Kind as K;
        if form::is_vsib(kind) {
            let index = self.distinct_vector(draft);
            let manner = self.manner(draft);
            let addressing = address::gather(draft, manner, kind, index);
            self.memory(addressing);
        } else if form::is_memory_field(kind) {
            self.choose_memory(draft);
        } else if form::is_either(kind) {
            if draft.rng.percent(55) {
                self.choose_memory(draft);
            } else {
                self.rm_register(draft, kind);
            }
        } else if form::is_rm_register(kind) {
            self.rm_register(draft, kind);
        } else if form::is_reg_field(kind) {
            let register = self.register(draft, kind);
            self.extension.r = register >> 3;
            self.chosen.reg = Some(register);
        } else {
            match kind {
                K::r32_vvvv | K::r64_vvvv | K::xmm_vvvv | K::ymm_vvvv => {
                    self.vvvv = self.register(draft, kind);
                    self.chosen.vvvv = Some(self.vvvv);
                }
                K::r8_opcode | K::r16_opcode | K::r32_opcode | K::r64_opcode | K::sti_opcode => {
                    let register = self.register(draft, kind);
                    self.extension.b = register >> 3;
                    self.chosen.low = Some(register);
                }
                _ => self.immediate(draft, kind),
            }
        }
    }

    /// A vector register for indices, unlike those that are chosen already.
    fn distinct_vector(&mut self, draft: &mut Draft) -> u8 {
        let count = draft.registers();
        let taken = [self.chosen.reg, self.chosen.vvvv];
        let free = |&r: &u8| !taken.contains(&Some(r));
        // The operand behind it is the mask, whose register is not chosen yet.
        (0..8).map(|_| draft.rng.below(count) as u8).find(free).unwrap_or(7)
    }

    /// The number of a register that an operand of this kind can be.
    fn register(&mut self, draft: &mut Draft, kind: Kind) -> u8 {
        use Kind as K;
        let count = match kind {
            K::mm_reg | K::mm_rm | K::mm_or_mem | K::sti_opcode => 8,
            K::seg_reg => return self.segment_register(draft),
            K::cr_reg => return draft.rng.pick(&[0, 2, 3, 4]),
            K::dr_reg => 8,
            _ => draft.registers(),
        };
        if let (Some(stream), true) = (self.stream, is_general(kind)) {
            return free_of(draft, stream, kind);
        }
        let register = match self.same {
            Some(same) => same & (count - 1) as u8,
            None => draft.rng.below(count) as u8,
        };
        // A gather wants three different ones.
        let taken = [self.chosen.reg, self.chosen.vvvv, self.vsib_index()];
        if self.form.unique && taken.contains(&Some(register)) {
            let free = |r: &u8| !taken.contains(&Some(*r));
            return (0..count as u8).find(free).unwrap_or(register);
        }
        if matches!(kind, K::r8_reg | K::r8_or_mem | K::r8_opcode) && (4..8).contains(&register) {
            self.low_byte = true;
        }
        register
    }

    /// The register of indices that SIB has.
    fn vsib_index(&self) -> Option<u8> {
        self.parts.sib.map(|sib| sib >> 3 & 7 | self.extension.x << 3)
    }

    /// Of a MOV from one any; CS cannot be moved to.
    fn segment_register(&mut self, draft: &mut Draft) -> u8 {
        let to = self.form.operands.first() == Some(&Kind::seg_reg);
        if to { draft.rng.pick(&[0, 2, 3, 4, 5]) } else { draft.rng.below(6) as u8 }
    }

    fn rm_register(&mut self, draft: &mut Draft, kind: Kind) {
        let register = self.register(draft, kind);
        self.extension.b = register >> 3;
        self.rm = register & 7;
        self.chosen.rm = Some(register);
    }

    fn choose_memory(&mut self, draft: &mut Draft) {
        let manner = self.manner(draft);
        let access = Access::of(self.form.memory);
        let addressing = match self.stream {
            Some(stream) => address::by_pointer(draft, manner, stream, access),
            None => address::choose(draft, manner, access),
        };
        self.memory(addressing);
    }

    fn memory(&mut self, addressing: Addressing) {
        self.mode = addressing.mode;
        self.rm = addressing.rm;
        self.parts.sib = addressing.sib;
        self.parts.displacement = addressing.displacement;
        self.parts.late = addressing.late;
        (self.extension.x, self.extension.b) = (addressing.x, addressing.b);
        self.chosen.place = Some(addressing.place);
    }

    fn immediate(&mut self, draft: &mut Draft, kind: Kind) {
        use Kind as K;
        let rng = &mut draft.rng;
        let immediate = &mut self.parts.immediate;
        match kind {
            K::imm8 => immediate.push(values::integer(rng, 8), 1),
            K::imm8sex16 | K::imm8sex32 | K::imm8sex64 => {
                immediate.push(values::integer(rng, 8), 1);
            }
            K::imm16 => immediate.push(values::integer(rng, 16), 2),
            K::imm32 | K::imm32sex64 => immediate.push(values::integer(rng, 32), 4),
            K::imm64 => immediate.push(values::integer(rng, 64), 8),
            K::xmm_is4 | K::ymm_is4 => {
                let count = draft.registers();
                let register = draft.rng.below(count) << 4;
                let low = draft.rng.below(16) * draft.rng.below(2);
                self.parts.immediate.push(register | low, 1);
            }
            K::br16_1 | K::br32_1 | K::br64_1 => self.branch(1),
            K::br16_2 => self.branch(2),
            K::br32_4 | K::br64_4 => self.branch(4),
            K::farbr2_2 => self.far_pointer(draft, 2),
            K::farbr4_2 => self.far_pointer(draft, 4),
            K::mem_offs => {
                let manner = self.manner(draft);
                let segment = manner.segment.unwrap_or(segments::DS);
                let access = Access::of(self.form.memory);
                let (offset, place) = address::offset(draft, segment, manner.bits, access);
                address::fill(draft, place, access);
                self.parts.immediate.push(offset, (manner.bits / 8) as u8);
                self.chosen.place = Some(place);
            }
            // Implied: no bytes.
            _ => {}
        }
    }

    fn branch(&mut self, size: u8) {
        self.parts.immediate = Bytes::new(0, size);
        self.parts.late = Late::Branch(size);
    }

    fn far_pointer(&mut self, draft: &mut Draft, size: u8) {
        let selector = match draft.rng.percent(40) {
            true => draft.any_selector(),
            false => super::settle::fitting(draft, self.form),
        };
        let offset = super::settle::code_offset(draft, selector);
        self.parts.immediate.push(offset, size);
        self.parts.immediate.push(u64::from(selector), 2);
    }

    fn finish(mut self, draft: &mut Draft) -> (Parts, Chosen) {
        let reg = self.form.reg.or(self.chosen.reg).unwrap_or_else(|| draft.rng.below(8) as u8);
        let rm = self.form.rm.unwrap_or(self.rm);
        if self.form.modrm {
            self.parts.modrm = Some(self.mode << 6 | (reg & 7) << 3 | rm & 7);
        }
        let low = self.chosen.low.unwrap_or(0) & 7;
        self.opcode(low);
        match self.form.introduction {
            Introduction::Vex => self.vex(draft),
            _ => self.rex(draft),
        }
        self.repeat_or_lock(draft);
        (self.parts, self.chosen)
    }

    fn opcode(&mut self, low: u8) {
        let out = &mut self.parts.opcode;
        match (self.form.introduction, self.form.map) {
            (Introduction::Vex, _) | (_, 0) => {}
            (Introduction::Amd3dNow, _) => {
                // The opcode lies where an immediate would.
                out.extend([0x0f, 0x0f]);
                let opcode = self.form.opcode.first().copied().unwrap_or(0);
                self.parts.immediate.push(u64::from(opcode), 1);
                return;
            }
            (_, 1) => out.push(0x0f),
            (_, 2) => out.extend([0x0f, 0x38]),
            _ => out.extend([0x0f, 0x3a]),
        }
        out.extend(&self.form.opcode);
        if let Some(last) = out.last_mut() {
            *last += low;
        }
    }

    fn rex(&mut self, draft: &mut Draft) {
        if draft.width != Width::Bits64 {
            return;
        }
        let w = u8::from(self.form.operand_size == 64 && !self.form.default64);
        let Extension { r, x, b } = self.extension;
        let bits = w << 3 | r << 2 | x << 1 | b;
        // An idle one makes SPL of AH.
        let idle = draft.rng.percent(if self.low_byte { 40 } else { 10 });
        if bits != 0 || idle {
            self.parts.rex = Some(0x40 | bits);
        }
    }

    fn vex(&mut self, draft: &mut Draft) {
        let Extension { r, x, b } = self.extension;
        let any = |draft: &mut Draft| draft.rng.below(2) as u8;
        let long = draft.width == Width::Bits64;
        // Outside of 64-bit code W is ignored where it would choose 64-bit registers.
        let w = self.form.w.unwrap_or_else(|| any(draft));
        let l = self.form.l.unwrap_or_else(|| any(draft));
        let pp = match self.form.mandatory {
            Some(0x66) => 1,
            Some(0xf3) => 2,
            Some(0xf2) => 3,
            _ => 0,
        };
        // Inverted, three of the bits tell the prefix from LES and LDS.
        let (r, x, b) = if long { (r, x, b) } else { (0, 0, 0) };
        let (vvvv, map) = (self.vvvv, self.form.map);
        // The short form has no W; it does where W is ignored, or zero.
        let short = draft.rng.percent(50) && (w == 0 || self.form.w.is_none());
        let w = if short { 0 } else { w };
        self.parts.vex = Some(Vex { r, x, b, w, l, vvvv, pp, map, short });
    }

    fn repeat_or_lock(&mut self, draft: &mut Draft) {
        let prefixes = &mut self.parts.prefixes;
        if self.form.lock && self.mode != 3 && draft.rng.percent(20) {
            prefixes.push(0xf0);
        }
        if self.form.is_string() && self.form.rep && draft.rng.percent(60) {
            let prefix = if draft.rng.percent(60) { 0xf3 } else { 0xf2 };
            let prefix = if self.form.repne { prefix } else { 0xf3 };
            prefixes.push(prefix);
        }
        if draft.rng.percent(30) {
            shuffle(draft, &mut self.parts.prefixes);
        }
    }
}

/// Puts prefixes in any order.
pub(super) fn shuffle(draft: &mut Draft, prefixes: &mut [u8]) {
    for n in (1..prefixes.len()).rev() {
        let other = draft.rng.below(n as u64 + 1) as usize;
        prefixes.swap(n, other);
    }
}

/// Whether an operand is, or may be, a general register.
const fn is_general(kind: Kind) -> bool {
    use Kind as K;
    matches!(
        kind,
        K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::r8_reg
            | K::r8_opcode
            | K::r16_reg
            | K::r16_rm
            | K::r16_opcode
            | K::r32_reg
            | K::r32_rm
            | K::r32_opcode
            | K::r32_vvvv
            | K::r64_reg
            | K::r64_rm
            | K::r64_opcode
            | K::r64_vvvv
    )
}

/// A register that is not needed as a pointer; seldom one that is.
fn free_of(draft: &mut Draft, stream: &Stream, kind: Kind) -> u8 {
    use Kind as K;
    let count = draft.registers();
    let byte = matches!(kind, K::r8_or_mem | K::r8_reg | K::r8_opcode);
    // Four and up are AH to BH, or SPL to DIL.
    let count = if byte { 4 } else { count };
    let register = draft.rng.below(count) as u8;
    let pointer = matches!(register, 1 | 4) || stream.pointers.iter().any(|(p, _)| *p == register);
    if pointer && draft.rng.percent(97) { draft.rng.pick(&[0, 2]) } else { register }
}
