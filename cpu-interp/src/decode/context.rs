//! What an instruction group is given to choose handlers with.

use iced_x86::{Instruction, OpKind, Register};
use trivium_cpu::model::Vendor;

use crate::cpu::{Mode, ZERO};
use crate::op::{self, GeneralFn, Handler, Op, SystemFn};

/// The code around the instruction.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The mode it is decoded for.
    pub mode: Mode,
    /// Whose processor it is for: they differ in what some bytes mean.
    pub vendor: Vendor,
    /// The low 11 bits of an x87 instruction's opcode and ModR/M byte, which the unit keeps; zero
    /// for others. Intel SDM vol. 1, 8.1.9.
    pub fop: u16,
    /// Its REX prefix, or zero.
    pub rex: u8,
    /// The last address that code may have: the code segment's limit, or none in 64-bit code.
    pub limit: u64,
}

/// Number of CS.
const CS: u8 = trivium_cpu::state::CS as u8;

/// Which [`crate::mem::Addressing`] a handler is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// [`crate::mem::Simple64`].
    Simple64,
    /// [`crate::mem::Flat64`].
    Flat64,
    /// [`crate::mem::Flat32`].
    Flat32,
    /// [`crate::mem::Segmented`].
    Segmented,
}

/// A chosen operation and what the decoder must know of it.
#[derive(Clone, Copy)]
pub struct Selection {
    /// The operation.
    pub op: Op,
    /// The handler to take when nobody will see the arithmetic flags.
    pub without_flags: Option<Handler>,
    /// The operation may stop before it is complete, by a fault or because it wants the outer
    /// loop: the flags before it must be right.
    pub may_stop: bool,
    /// It does not always write the flags that it may write.
    pub conditional_flags: bool,
    /// It leaves the block.
    pub ends: bool,
    /// Its part in fusing.
    pub fuse: Fuse,
    /// What the outer loop is to call, for an operation that leaves its work to it.
    pub system: Option<SystemFn>,
}

/// An operation's part in fusing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fuse {
    /// None.
    #[default]
    None,
    /// A compare of registers or an immediate.
    Compare(Compare),
    /// A branch on the condition of this number, with its target in `imm`.
    Branch(u8),
}

/// The forms of compares that can be fused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum Compare {
    CmpReg,
    CmpImm,
    TestReg,
    TestImm,
}

impl Selection {
    /// A handler of its own that cannot stop.
    #[must_use]
    pub fn register(mut op: Op, run: Handler) -> Self {
        op.run = run;
        Self {
            op,
            without_flags: None,
            may_stop: false,
            conditional_flags: false,
            ends: false,
            fuse: Fuse::None,
            system: None,
        }
    }

    /// A handler of its own that may stop: it accesses memory or can fault.
    #[must_use]
    pub fn memory(op: Op, run: Handler) -> Self {
        Self { may_stop: true, ..Self::register(op, run) }
    }

    /// A general function, after which the block goes on.
    #[must_use]
    pub fn general(mut op: Op, function: GeneralFn) -> Self {
        op.general = function;
        Self { conditional_flags: true, ..Self::memory(op, op::general) }
    }

    /// A general function that may branch, or change the mode or what the CPU attends to.
    #[must_use]
    pub fn general_end(op: Op, function: GeneralFn) -> Self {
        let mut selection = Self::general(op, function);
        selection.op.run = op::general_end;
        Self { ends: true, ..selection }
    }

    /// A system function; the block ends with it.
    #[must_use]
    pub fn system(op: Op, function: SystemFn) -> Self {
        let plain = Self::memory(op, op::system);
        Self { conditional_flags: true, ends: true, system: Some(function), ..plain }
    }

    /// The same with a handler for when nobody will see the arithmetic flags.
    #[must_use]
    pub fn or_without_flags(self, handler: Handler) -> Self {
        Self { without_flags: Some(handler), ..self }
    }

    /// The same with a part in fusing.
    #[must_use]
    pub fn with_fuse(self, fuse: Fuse) -> Self {
        Self { fuse, ..self }
    }

    /// The same, leaving the block.
    #[must_use]
    pub fn ending(self) -> Self {
        Self { ends: true, ..self }
    }

    /// The same, not always writing flags.
    #[must_use]
    pub fn with_conditional_flags(self) -> Self {
        Self { conditional_flags: true, ..self }
    }
}

impl Context {
    /// The operation with all operands resolved: the register at operand 0 is `dst`, at operand 1
    /// `src`, at operand 2 `aux2`; immediates go to `imm` (a second one to `aux`); `size` is the
    /// size of operand 0, or of the memory operand where that is what operand 0 is. Registers of
    /// any kind go by their number.
    #[must_use]
    pub fn op(&self, i: &Instruction) -> Op {
        let mut op = Op::new(op::general);
        op.len = i.len() as u8;
        op.prefixes = prefixes(i);
        let mut immediates = 0;
        for n in 0..i.op_count() {
            match i.op_kind(n) {
                OpKind::Register => put_register(&mut op, n, i.op_register(n)),
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                    op.imm = i.near_branch_target();
                }
                kind if is_immediate(kind) => {
                    if immediates == 0 {
                        op.imm = i.immediate(n);
                    } else {
                        op.aux = i.immediate(n) as u8;
                    }
                    immediates += 1;
                }
                OpKind::FarBranch16 | OpKind::FarBranch32 => {}
                _ => self.put_memory(&mut op, i),
            }
        }
        op.size = operand_size(i);
        op
    }

    fn put_memory(&self, op: &mut Op, i: &Instruction) {
        op.prefixes |= Op::MEM;
        op.seg = self.segment(i);
        let (base, index) = (i.memory_base(), i.memory_index());
        if i.is_ip_rel_memory_operand() {
            op.disp = i.ip_rel_memory_address();
            op.asize = if base == Register::EIP { 4 } else { 8 };
            return;
        }
        op.disp = i.memory_displacement64();
        if base != Register::None {
            op.base = base.number() as u8;
        }
        if index != Register::None {
            op.index = index.number() as u8;
            op.scale = i.memory_index_scale().trailing_zeros() as u8;
        }
        op.asize = self.address_size(i);
    }

    /// The number of a memory operand's segment. In 64-bit code only FS and GS can be chosen; others
    /// change nothing, not even which exception an address raises. Intel SDM vol. 2A, 2.1.1.
    fn segment(&self, i: &Instruction) -> u8 {
        let chosen = i.memory_segment();
        if !self.mode.has(Mode::LONG) || matches!(chosen, Register::FS | Register::GS) {
            return segment_number(chosen);
        }
        let stack = matches!(
            i.memory_base(),
            Register::RSP | Register::RBP | Register::ESP | Register::EBP
        );
        segment_number(if stack { Register::SS } else { Register::DS })
    }

    /// The address size of a memory operand, in bytes.
    fn address_size(&self, i: &Instruction) -> u8 {
        for register in [i.memory_base(), i.memory_index()] {
            if register != Register::None {
                return register.size() as u8;
            }
        }
        match i.memory_displ_size() {
            // String operands have no register in the encoding; the groups look at the kind.
            0 | 1 => (self.mode.bitness() / 8) as u8,
            2 => 2,
            4 => 4,
            _ => 8,
        }
    }

    /// Which addressing suits the memory operand of an operation.
    #[must_use]
    pub fn address_kind(&self, op: &Op) -> AddressKind {
        // Nothing can be written through CS, which only the segmented form looks at.
        let extra_base = op.seg >= 4 || op.seg == CS;
        if self.mode.has(Mode::LONG) && op.asize == 8 {
            if op.index == ZERO && !extra_base {
                AddressKind::Simple64
            } else {
                AddressKind::Flat64
            }
        } else if !self.mode.has(Mode::LONG)
            && self.mode.has(Mode::FLAT)
            && op.asize == 4
            && !extra_base
        {
            AddressKind::Flat32
        } else {
            AddressKind::Segmented
        }
    }
}

fn put_register(op: &mut Op, operand: u32, register: Register) {
    let (number, shift) = register_number(register);
    match operand {
        0 => (op.dst, op.dst_shift) = (number, shift),
        1 => (op.src, op.src_shift) = (number, shift),
        _ => op.aux2 = number,
    }
}

/// The number of a register of any kind, and 8 for AH, CH, DH and BH.
#[must_use]
pub fn register_number(register: Register) -> (u8, u8) {
    match register {
        Register::AH | Register::CH | Register::DH | Register::BH => {
            (register as u8 - Register::AH as u8, 8)
        }
        Register::None => (ZERO, 0),
        _ if register.is_segment_register() => (segment_number(register), 0),
        _ if register.is_gpr8() => (register.full_register().number() as u8, 0),
        _ => (register.number() as u8, 0),
    }
}

/// ES, CS, SS, DS, FS, GS as 0 to 5.
#[must_use]
pub fn segment_number(register: Register) -> u8 {
    match register {
        Register::ES => 0,
        Register::CS => 1,
        Register::SS => 2,
        Register::FS => 4,
        Register::GS => 5,
        _ => 3,
    }
}

fn prefixes(i: &Instruction) -> u8 {
    let mut bits = 0;
    bits |= if i.has_lock_prefix() { Op::LOCK } else { 0 };
    bits |= if i.has_rep_prefix() { Op::REP } else { 0 };
    bits |= if i.has_repne_prefix() { Op::REPNE } else { 0 };
    bits
}

fn is_immediate(kind: OpKind) -> bool {
    use OpKind::*;
    matches!(
        kind,
        Immediate8
            | Immediate8_2nd
            | Immediate16
            | Immediate32
            | Immediate64
            | Immediate8to16
            | Immediate8to32
            | Immediate8to64
            | Immediate32to64
    )
}

/// Size of operand 0 in bytes, of the memory operand if it is that; 0 if there is none.
fn operand_size(i: &Instruction) -> u8 {
    let register = i.op_register(0);
    if i.op_count() > 0 && i.op_kind(0) == OpKind::Register && register != Register::None {
        register.size() as u8
    } else {
        i.memory_size().size() as u8
    }
}

/// Picks the instance of a handler that is generic over addressing and operand size.
#[macro_export]
#[doc(hidden)]
macro_rules! pick {
    ($kind:expr, $size:expr, $f:ident $(, $g:tt)*) => {{
        use $crate::decode::AddressKind as K;
        use $crate::mem::{Flat32, Flat64, Segmented, Simple64};
        let handler: $crate::op::Handler = match ($kind, $size) {
            (K::Simple64, 1) => $f::<Simple64, u8 $(, $g)*>,
            (K::Simple64, 2) => $f::<Simple64, u16 $(, $g)*>,
            (K::Simple64, 4) => $f::<Simple64, u32 $(, $g)*>,
            (K::Simple64, _) => $f::<Simple64, u64 $(, $g)*>,
            (K::Flat64, 1) => $f::<Flat64, u8 $(, $g)*>,
            (K::Flat64, 2) => $f::<Flat64, u16 $(, $g)*>,
            (K::Flat64, 4) => $f::<Flat64, u32 $(, $g)*>,
            (K::Flat64, _) => $f::<Flat64, u64 $(, $g)*>,
            (K::Flat32, 1) => $f::<Flat32, u8 $(, $g)*>,
            (K::Flat32, 2) => $f::<Flat32, u16 $(, $g)*>,
            (K::Flat32, _) => $f::<Flat32, u32 $(, $g)*>,
            (K::Segmented, 1) => $f::<Segmented, u8 $(, $g)*>,
            (K::Segmented, 2) => $f::<Segmented, u16 $(, $g)*>,
            (K::Segmented, 4) => $f::<Segmented, u32 $(, $g)*>,
            (K::Segmented, _) => $f::<Segmented, u64 $(, $g)*>,
        };
        handler
    }};
}

/// Picks the instance of a handler that is generic over the operand size.
#[macro_export]
#[doc(hidden)]
macro_rules! pick_size {
    ($size:expr, $f:ident $(, $g:tt)*) => {{
        let handler: $crate::op::Handler = match $size {
            1 => $f::<u8 $(, $g)*>,
            2 => $f::<u16 $(, $g)*>,
            4 => $f::<u32 $(, $g)*>,
            _ => $f::<u64 $(, $g)*>,
        };
        handler
    }};
}

/// Picks the instance of a handler that is generic over addressing alone.
#[macro_export]
#[doc(hidden)]
macro_rules! pick_address {
    ($kind:expr, $f:ident $(, $g:tt)*) => {{
        use $crate::decode::AddressKind as K;
        use $crate::mem::{Flat32, Flat64, Segmented, Simple64};
        let handler: $crate::op::Handler = match $kind {
            K::Simple64 => $f::<Simple64 $(, $g)*>,
            K::Flat64 => $f::<Flat64 $(, $g)*>,
            K::Flat32 => $f::<Flat32 $(, $g)*>,
            K::Segmented => $f::<Segmented $(, $g)*>,
        };
        handler
    }};
}
