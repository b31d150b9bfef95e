//! The shape of an encoding: what iced's table says of it, ready for putting bytes together.

use iced_x86::{
    Code, EncodingKind, FlowControl, MandatoryPrefix, MemorySize, Mnemonic, OpCodeInfo,
};
use iced_x86::{OpCodeOperandKind as Kind, OpCodeTableKind};

use crate::allow::RULES;
use crate::case::Width;

/// How the opcode is introduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Introduction {
    /// By nothing, 0F, 0F 38 or 0F 3A.
    Legacy,
    /// By C4 or C5.
    Vex,
    /// By 0F 0F, and it comes last.
    Amd3dNow,
}

/// An encoding.
#[derive(Debug, Clone)]
pub(super) struct Form {
    pub code: Code,
    pub mnemonic: Mnemonic,
    pub introduction: Introduction,
    /// 0 for one-byte opcodes, then 1 to 3 as VEX counts: 0F, 0F 38, 0F 3A.
    pub map: u8,
    /// The prefix that is part of the opcode.
    pub mandatory: Option<u8>,
    /// One or two bytes, the second of which is a ModR/M byte as a rule.
    pub opcode: Vec<u8>,
    /// The ModR/M fields that are part of the opcode.
    pub reg: Option<u8>,
    pub rm: Option<u8>,
    pub modrm: bool,
    pub operands: Vec<Kind>,
    /// Bits of the operands; zero if prefixes do not decide it.
    pub operand_size: u32,
    /// Bits of addresses; zero if prefixes may choose.
    pub address_size: u32,
    /// 64-bit code needs no REX.W for 64 bits.
    pub default64: bool,
    /// VEX.L and VEX.W; `None` if ignored. Bit 0.
    pub l: Option<u8>,
    pub w: Option<u8>,
    pub memory: MemorySize,
    pub lock: bool,
    pub rep: bool,
    pub repne: bool,
    pub stack: bool,
    /// The next instruction follows as a rule, whatever the operands.
    pub calm: bool,
    /// The manuals leave some of its results undefined.
    pub vague: bool,
    /// Registers must not be the same.
    pub unique: bool,
    modes: [bool; 3],
}

/// Whether an operand is in the ModR/M byte.
const fn uses_modrm(kind: Kind) -> bool {
    is_reg_field(kind) || is_rm_register(kind) || is_memory_field(kind) || is_either(kind)
}

/// A register that the reg field of ModR/M selects.
pub(super) const fn is_reg_field(kind: Kind) -> bool {
    use Kind as K;
    matches!(
        kind,
        K::r8_reg
            | K::r16_reg
            | K::r32_reg
            | K::r64_reg
            | K::r16_reg_mem
            | K::r32_reg_mem
            | K::r64_reg_mem
            | K::mm_reg
            | K::xmm_reg
            | K::ymm_reg
            | K::seg_reg
            | K::cr_reg
            | K::dr_reg
    )
}

/// A register that the r/m field of ModR/M selects.
pub(super) const fn is_rm_register(kind: Kind) -> bool {
    use Kind as K;
    matches!(kind, K::r16_rm | K::r32_rm | K::r64_rm | K::mm_rm | K::xmm_rm | K::ymm_rm)
}

/// Memory that the r/m field of ModR/M selects.
pub(super) const fn is_memory_field(kind: Kind) -> bool {
    matches!(kind, Kind::mem) || is_vsib(kind)
}

/// Memory with a vector of indices.
pub(super) const fn is_vsib(kind: Kind) -> bool {
    matches!(kind, Kind::mem_vsib32x | Kind::mem_vsib64x | Kind::mem_vsib32y | Kind::mem_vsib64y)
}

/// Memory that registers imply.
pub(super) const fn is_implied(kind: Kind) -> bool {
    matches!(kind, Kind::seg_rSI | Kind::es_rDI | Kind::seg_rDI | Kind::seg_rBX_al)
}

/// A register or memory that the r/m field of ModR/M selects.
pub(super) const fn is_either(kind: Kind) -> bool {
    use Kind as K;
    matches!(
        kind,
        K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::mm_or_mem
            | K::xmm_or_mem
            | K::ymm_or_mem
    )
}

impl Form {
    /// The shape of an encoding, if it has one that we can put together.
    pub fn new(code: Code) -> Option<Self> {
        let info = code.op_code();
        let introduction = match info.encoding() {
            EncodingKind::Legacy => Introduction::Legacy,
            EncodingKind::VEX => Introduction::Vex,
            EncodingKind::D3NOW => Introduction::Amd3dNow,
            _ => return None,
        };
        let map = match info.table() {
            OpCodeTableKind::Normal => 0,
            OpCodeTableKind::T0F => 1,
            OpCodeTableKind::T0F38 => 2,
            OpCodeTableKind::T0F3A => 3,
            _ => return None,
        };
        let field = |index: i32| u8::try_from(index).ok();
        let operands = info.op_kinds().to_vec();
        let (reg, rm) = (field(info.group_index()), field(info.rm_group_index()));
        let modrm = reg.is_some() || rm.is_some() || operands.iter().any(|&k| uses_modrm(k));
        let opcode = info.op_code() as u16;
        let opcode = match info.op_code_len() {
            1 => vec![opcode as u8],
            _ => opcode.to_be_bytes().to_vec(),
        };
        Some(Self {
            code,
            mnemonic: info.mnemonic(),
            introduction,
            map,
            mandatory: mandatory(info),
            opcode,
            reg,
            rm,
            modrm,
            operands,
            operand_size: info.operand_size(),
            address_size: info.address_size(),
            default64: info.default_op_size64() || info.force_op_size64(),
            l: (!info.is_lig()).then_some(u8::from(info.l() == 1)),
            w: (!info.is_wig()).then_some(info.w() as u8),
            memory: info.memory_size(),
            lock: info.can_use_lock_prefix(),
            rep: info.can_use_rep_prefix(),
            repne: info.can_use_repne_prefix(),
            stack: info.is_stack_instruction(),
            calm: is_calm(info),
            vague: RULES.iter().any(|rule| rule.mnemonics.contains(&info.mnemonic())),
            unique: info.requires_unique_reg_nums(),
            modes: [info.mode16(), info.mode32(), info.mode64()],
        })
    }

    /// Whether code of this width may have it.
    pub const fn in_width(&self, width: Width) -> bool {
        match width {
            Width::Bits16 => self.modes[0],
            Width::Bits32 => self.modes[1],
            Width::Bits64 => self.modes[2],
        }
    }

    /// Keeps the widths for which `keep` is true.
    pub fn retain_widths(&mut self, keep: impl Fn(&Self, Width) -> bool) {
        let kept = super::table::WIDTHS.map(|width| self.in_width(width) && keep(self, width));
        self.modes = kept;
    }

    /// Whether it has, or may have, an operand in memory that a segment prefix concerns.
    pub fn uses_memory(&self) -> bool {
        let implied = |k| matches!(k, Kind::mem_offs) || is_implied(k);
        self.operands.iter().any(|&k| is_memory_field(k) || is_either(k) || implied(k))
    }

    /// Whether its operand in memory is a far pointer.
    pub fn memory_is_far(&self) -> bool {
        use MemorySize as M;
        matches!(self.memory, M::SegPtr16 | M::SegPtr32 | M::SegPtr64)
    }

    /// Whether it is a string instruction.
    pub fn is_string(&self) -> bool {
        self.operands.iter().any(|&k| matches!(k, Kind::seg_rSI | Kind::es_rDI))
    }
}

/// Whether the next instruction follows as a rule, whatever the operands.
fn is_calm(info: &OpCodeInfo) -> bool {
    let moody = |&kind: &Kind| {
        let segment = matches!(kind, Kind::seg_reg | Kind::mem_offs);
        segment || is_vsib(kind)
    };
    let far = [MemorySize::SegPtr16, MemorySize::SegPtr32, MemorySize::SegPtr64];
    info.code().flow_control() == FlowControl::Next
        && !info.is_privileged()
        && !info.is_stack_instruction()
        && !info.is_input_output()
        && !info.may_require_cpl0()
        && info.cpl3()
        && !info.op_kinds().iter().any(moody)
        && !far.contains(&info.memory_size())
}

/// Whether an operand is, or may be, a vector register or one of MMX.
pub(super) const fn is_vector(kind: Kind) -> bool {
    use Kind as K;
    matches!(
        kind,
        K::mm_reg
            | K::mm_rm
            | K::mm_or_mem
            | K::xmm_reg
            | K::xmm_rm
            | K::xmm_or_mem
            | K::ymm_reg
            | K::ymm_rm
            | K::ymm_or_mem
    )
}

fn mandatory(info: &OpCodeInfo) -> Option<u8> {
    match info.mandatory_prefix() {
        MandatoryPrefix::None | MandatoryPrefix::PNP => None,
        MandatoryPrefix::P66 => Some(0x66),
        MandatoryPrefix::PF3 => Some(0xf3),
        MandatoryPrefix::PF2 => Some(0xf2),
    }
}
