//! Vector registers on their way between the CPU's state and the host.
//!
//! They are loaded when a block first uses one, and stay until translated code is left. Neither way
//! changes flags.

use std::mem::offset_of;

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::CpuidFeature;
use trivium_cpu::state;
use trivium_interp::Cpu;
use trivium_interp::native::{Native, NativeSimd};

use crate::emit::Assembler;
use crate::host::Host;
use crate::regs::at;
use crate::simd::Needs;
use crate::{crossing, x87_state};

const NATIVE: usize = offset_of!(Cpu, native) + offset_of!(Native, simd);
const HOST_MXCSR: i32 = at(NATIVE + offset_of!(NativeSimd, host_mxcsr));
const SSE_REFUSED: i32 = at(NATIVE + offset_of!(NativeSimd, sse_refused));
const AVX_REFUSED: i32 = at(NATIVE + offset_of!(NativeSimd, avx_refused));
const GUEST_MXCSR: i32 = at(offset_of!(Cpu, vector) + offset_of!(state::Vector, mxcsr));
/// Where the byte is that says whether the registers are live.
pub(crate) const LIVE: i32 = at(NATIVE + offset_of!(NativeSimd, live));
pub(crate) const SSE_IDLE: i32 = at(NATIVE + offset_of!(NativeSimd, sse_idle));
pub(crate) const AVX_IDLE: i32 = at(NATIVE + offset_of!(NativeSimd, avx_idle));
/// Where the masks are with which addresses are tested for alignment.
pub(crate) const ALIGNED: i32 = at(NATIVE + offset_of!(NativeSimd, aligned));

/// MXCSR's masks of exceptions.
const MASKS: i32 = 0x1f80;
/// What MXCSR has beyond 16 bits, which not every host knows.
const HIGH: i32 = 0xffff_0000_u32 as i32;

/// The place of a vector register in the state.
fn vector(number: u8) -> i32 {
    at(offset_of!(Cpu, vector) + offset_of!(state::Vector, regs)) + 32 * i32::from(number)
}

/// Where the routines are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routines {
    /// What they, and all that is emitted, may use.
    pub(crate) host: Host,
    /// Loads the registers for SSE. R8 is overwritten; afterwards RCX is 0, or they have
    /// not been loaded and the instruction is the interpreter's.
    pub(crate) load_sse: u64,
    /// The same for AVX.
    pub(crate) load_avx: u64,
    /// The same for the x87 unit.
    pub(crate) load_x87: u64,
    /// Those for vectors across pages.
    pub(crate) crossing: crossing::Routines,
}

impl Routines {
    /// Emits them by a function that gives a routine's address.
    pub(crate) fn emit(
        host: Host,
        mut routine: impl FnMut(&dyn Fn(&mut Assembler)) -> u64,
    ) -> Self {
        Self {
            host,
            load_sse: routine(&|asm| emit_load(asm, host, SSE_REFUSED)),
            load_avx: routine(&|asm| emit_load(asm, host, AVX_REFUSED)),
            load_x87: routine(&|asm| x87_state::emit_load(asm, host)),
            crossing: crossing::Routines::emit(routine),
        }
    }
}

/// Emits code that calls the routines for what the bits in EDX say is needed, as of [`Needs::bits`].
/// R8 is kept; flags, RCX and R9 are overwritten.
pub(crate) fn emit_load_needed(asm: &mut Assembler, routines: Routines) {
    dynasm!(asm
        ; .arch x64
        ; cmp edx, 0
        ; je >loaded
        ; mov r9, r8
        ; test edx, Needs::AVX.into()
        ; jz >no_avx
        // That loads all that SSE needs too.
        ; mov rcx, QWORD routines.load_avx as i64
        ; call rcx
        ; jmp >no_sse
        ; no_avx:
        ; test edx, Needs::SSE.into()
        ; jz >no_sse
        ; mov rcx, QWORD routines.load_sse as i64
        ; call rcx
        ; no_sse:
        ; test edx, Needs::X87.into()
        ; jz >no_x87
        ; mov rcx, QWORD routines.load_x87 as i64
        ; call rcx
        ; no_x87:
        ; mov r8, r9
        ; loaded:
    );
}

/// Whether the routines would load what is needed.
pub(crate) fn can_load(cpu: &Cpu, needs: Needs) -> bool {
    let mxcsr = cpu.vector.mxcsr as i32;
    let simd = &cpu.native.simd;
    let vectors = mxcsr & MASKS == MASKS && mxcsr & HIGH == 0;
    (!needs.sse || vectors && simd.sse_refused == 0)
        && (!needs.avx || vectors && simd.avx_refused == 0)
        && (!needs.x87 || x87_state::can_load(cpu))
}

/// Emits a routine that loads the registers unless the byte at `refused` is set, or MXCSR has what
/// the interpreter is to see to: exceptions that are not masked.
fn emit_load(asm: &mut Assembler, host: Host, refused: i32) {
    dynasm!(asm
        ; .arch x64
        ; movzx ecx, BYTE [r14 + refused]
        ; jrcxz >allowed
        ; ret
        ; allowed:
        ; mov ecx, [r14 + GUEST_MXCSR]
        ; not ecx
        ; mov r8d, MASKS
    );
    host.any_of_r8(asm);
    dynasm!(asm
        ; .arch x64
        ; jrcxz >masked
        ; ret
        ; masked:
        ; mov ecx, [r14 + GUEST_MXCSR]
        ; mov r8d, HIGH
    );
    host.any_of_r8(asm);
    dynasm!(asm
        ; .arch x64
        ; jrcxz >known
        ; ret
        ; known:
        ; ldmxcsr [r14 + GUEST_MXCSR]
    );
    for number in 0..16 {
        match host.has(CpuidFeature::AVX) {
            true => dynasm!(asm ; .arch x64 ; vmovdqu Ry(number), [r14 + vector(number)]),
            false => dynasm!(asm ; .arch x64 ; movups Rx(number), [r14 + vector(number)]),
        }
    }
    dynasm!(asm
        ; .arch x64
        ; movzx ecx, BYTE [r14 + SSE_REFUSED]
        ; mov [r14 + SSE_IDLE], cl
        ; movzx ecx, BYTE [r14 + AVX_REFUSED]
        ; mov [r14 + AVX_IDLE], cl
        ; mov BYTE [r14 + LIVE], 1
        ; mov ecx, 0
        ; ret
    );
}

/// Emits code that gives the registers back to the state if they are live, and the host its MXCSR.
/// Flags are overwritten, but no general register.
pub(crate) fn emit_save(asm: &mut Assembler, host: Host) {
    dynasm!(asm
        ; .arch x64
        ; cmp BYTE [r14 + LIVE], 0
        ; je >saved
        ; stmxcsr [r14 + GUEST_MXCSR]
        ; ldmxcsr [r14 + HOST_MXCSR]
    );
    let avx = host.has(CpuidFeature::AVX);
    for number in 0..16 {
        match avx {
            true => dynasm!(asm ; .arch x64 ; vmovdqu [r14 + vector(number)], Ry(number)),
            false => dynasm!(asm ; .arch x64 ; movups [r14 + vector(number)], Rx(number)),
        }
    }
    if avx {
        dynasm!(asm ; .arch x64 ; vzeroupper);
    }
    dynasm!(asm
        ; .arch x64
        ; mov BYTE [r14 + LIVE], 0
        ; mov BYTE [r14 + SSE_IDLE], 1
        ; mov BYTE [r14 + AVX_IDLE], 1
        ; saved:
    );
}
