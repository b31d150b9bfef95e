//! Instructions on vector registers: which are copied, and what they need before.

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{CpuidFeature, EncodingKind, Instruction, Mnemonic, OpKind, Register};
use trivium_interp::cpu::Mode;

use crate::emit::{CALL, Emitter};
use crate::enter::Exit;
use crate::simd_state::{AVX_IDLE, SSE_IDLE};

/// What an instruction needs of the vector registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// They are not among its operands.
    Nothing,
    /// What SSE needs.
    Sse,
    /// What AVX needs.
    Avx,
}

/// What of the vector registers is at hand, as far as is known at a place in a block.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AtHand {
    sse: bool,
    avx: bool,
}

/// A way to load the registers, emitted after the code.
pub(crate) struct Load {
    from: DynamicLabel,
    back: DynamicLabel,
    refused: DynamicLabel,
    routine: u64,
}

/// Whether an instruction is copied, and what it needs; nothing if it is not one of those here, or
/// the interpreter's.
pub(crate) fn needs(i: &Instruction, mode: Mode) -> Option<Needs> {
    use Mnemonic as M;
    let needs = match i.code().encoding() {
        EncodingKind::Legacy => Needs::Sse,
        EncodingKind::VEX => Needs::Avx,
        _ => return None,
    };
    match i.mnemonic() {
        // Operands that are chosen by another operand, or that are not where it says.
        M::Maskmovdqu
        | M::Vmaskmovdqu
        | M::Vmaskmovps
        | M::Vmaskmovpd
        | M::Vpmaskmovd
        | M::Vpmaskmovq => return None,
        // With VEX.W they have no meaning there.
        M::Vpinsrd | M::Vpextrd if !mode.has(Mode::LONG) => return None,
        M::Crc32 | M::Movnti => return general(i).then_some(Needs::Nothing),
        // Outside of 64-bit code they see 8 registers.
        M::Vzeroupper | M::Vzeroall => return mode.has(Mode::LONG).then_some(needs),
        _ => {}
    }
    (has_vector(i) && operands(i)).then_some(needs)
}

fn kinds(i: &Instruction) -> impl Iterator<Item = (OpKind, Register)> {
    (0..i.op_count()).map(|n| (i.op_kind(n), i.op_register(n)))
}

fn is_vector(register: Register) -> bool {
    register.is_xmm() || register.is_ymm()
}

fn has_vector(i: &Instruction) -> bool {
    kinds(i).any(|(_, register)| is_vector(register))
}

fn general(i: &Instruction) -> bool {
    operands(i) && !has_vector(i)
}

/// Whether all operands are vector and general registers, plain memory and immediates.
fn operands(i: &Instruction) -> bool {
    kinds(i).all(|(kind, register)| match kind {
        OpKind::Register => is_vector(register) || register.is_gpr(),
        OpKind::Memory => !i.is_vsib() && i.memory_base() != Register::EIP,
        OpKind::Immediate8 | OpKind::Immediate8_2nd => true,
        _ => false,
    })
}

/// Whether the host has what an instruction needs.
pub(crate) fn host_has(i: &Instruction) -> bool {
    use CpuidFeature as F;
    i.cpuid_features().iter().all(|feature| match feature {
        F::SSE | F::SSE2 | F::X64 => true,
        F::SSE3 => is_x86_feature_detected!("sse3"),
        F::SSSE3 => is_x86_feature_detected!("ssse3"),
        F::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        F::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        F::SSE4A => is_x86_feature_detected!("sse4a"),
        F::AVX => is_x86_feature_detected!("avx"),
        F::AVX2 => is_x86_feature_detected!("avx2"),
        F::FMA => is_x86_feature_detected!("fma"),
        F::F16C => is_x86_feature_detected!("f16c"),
        F::AES => is_x86_feature_detected!("aes"),
        F::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        F::SHA => is_x86_feature_detected!("sha"),
        F::GFNI => is_x86_feature_detected!("gfni"),
        F::VAES => is_x86_feature_detected!("vaes"),
        F::VPCLMULQDQ => is_x86_feature_detected!("vpclmulqdq"),
        _ => false,
    })
}

/// What a memory operand's address must be a multiple of, lest #GP be raised. Intel SDM vol. 2A,
/// 2.4, and vol. 1, 14.9: all 16 bytes of legacy SSE, but for the moves that say so and the
/// strings; of AVX only the moves that say so.
pub(crate) fn alignment(i: &Instruction) -> usize {
    use Mnemonic as M;
    let size = i.memory_size().size();
    match i.mnemonic() {
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => 1,
        M::Pcmpestri | M::Pcmpestrm | M::Pcmpistri | M::Pcmpistrm => 1,
        M::Vmovaps | M::Vmovapd | M::Vmovdqa => size,
        M::Vmovntps | M::Vmovntpd | M::Vmovntdq | M::Vmovntdqa => size,
        _ if i.code().encoding() == EncodingKind::Legacy && size == 16 => 16,
        _ => 1,
    }
}

impl Emitter<'_> {
    /// Whether an instruction is one that [`Emitter::copy`] can do after this, for operation `op`:
    /// loads the vector registers if it needs them and they may not be at hand.
    pub(crate) fn begin_simd(&mut self, i: &Instruction, op: u8) -> bool {
        let Some(needs) = needs(i, self.mode).filter(|_| host_has(i)) else { return false };
        let (known, idle, routine) = match needs {
            Needs::Nothing => return true,
            Needs::Sse => (self.simd.sse, SSE_IDLE, self.routines.load_sse),
            Needs::Avx => (self.simd.avx, AVX_IDLE, self.routines.load_avx),
        };
        if known {
            return true;
        }
        match needs {
            Needs::Avx => self.simd.avx = true,
            _ => self.simd.sse = true,
        }
        let [from, back] = [0; 2].map(|_| self.asm.new_dynamic_label());
        let refused = self.stub(Exit::Resume { block: self.block, op }, true, None);
        self.loads.push(Load { from, back, refused, routine });
        dynasm!(self.asm
            ; .arch x64
            ; mov r10, rcx
            ; movzx ecx, BYTE [r14 + idle]
            ; jrcxz =>back
            ; jmp =>from
            ; =>back
            ; mov rcx, r10
        );
        true
    }

    /// Emits the ways to load the registers.
    pub(crate) fn emit_loads(&mut self) {
        for load in std::mem::take(&mut self.loads) {
            dynasm!(self.asm ; .arch x64 ; =>load.from);
            self.go_to(CALL, load.routine);
            dynasm!(self.asm
                ; .arch x64
                ; jrcxz >loaded
                ; jmp =>load.refused
                ; loaded:
                ; jmp =>load.back
            );
        }
    }
}
