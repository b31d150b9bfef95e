//! x87 floating point: one marker type per instruction, behind traits by operand kinds.
//!
//! The guest's control word is loaded with all masks set, the operands are loaded, the instruction
//! runs, and the status word and the result are stored. Clearing old exception flags (FNCLEX)
//! costs more than the whole rest, so the host's flags are left to accumulate: the result counts
//! if it shows only flags that are already set in the guest's status word, where they are sticky.
//! Otherwise, and whenever the guest has unmasked an exception, the instruction is run again from
//! a clean state and under the guest's own masks. An unmasked exception then is only pending when
//! FNCLEX discards it, so it is never delivered on the host, but its response is the hardware's.

mod arith;
mod functions;
#[cfg(test)]
mod tests;
mod transfer;

pub use arith::*;
pub use functions::*;
pub use transfer::*;

use crate::F80;

/// Bits of the status word (Intel SDM vol. 1, 8.1.3).
pub mod status {
    /// Invalid operation.
    pub const IE: u16 = 1 << 0;
    /// Denormal operand.
    pub const DE: u16 = 1 << 1;
    /// Divide by zero.
    pub const ZE: u16 = 1 << 2;
    /// Overflow.
    pub const OE: u16 = 1 << 3;
    /// Underflow.
    pub const UE: u16 = 1 << 4;
    /// Precision.
    pub const PE: u16 = 1 << 5;
    /// All six exceptions.
    pub const EXCEPTIONS: u16 = 0x3f;
    /// Stack fault; the operations here never set it.
    pub const SF: u16 = 1 << 6;
    /// Exception summary: an unmasked exception is pending.
    pub const ES: u16 = 1 << 7;
    /// Condition code 0.
    pub const C0: u16 = 1 << 8;
    /// Condition code 1.
    pub const C1: u16 = 1 << 9;
    /// Condition code 2.
    pub const C2: u16 = 1 << 10;
    /// Condition code 3.
    pub const C3: u16 = 1 << 14;
    /// All four condition codes.
    pub const CONDITIONS: u16 = C0 | C1 | C2 | C3;
}

/// Bits of the control word (Intel SDM vol. 1, 8.1.5).
pub mod control {
    /// The six exception masks, at the places of the flags in the status word.
    pub const MASKS: u16 = 0x3f;
    /// Precision control: 0 single, 2 double, 3 double extended.
    pub const PC: u16 = 3 << 8;
    /// Rounding control: 0 nearest, 1 down, 2 up, 3 towards zero.
    pub const RC: u16 = 3 << 10;
    /// The value after FNINIT: everything masked, extended precision, round to nearest.
    pub const INIT: u16 = 0x037f;
    /// What the control word can hold besides INIT's reserved bit 6.
    pub(super) const WRITABLE: u16 = MASKS | PC | RC;
}

/// The guest's x87 control and status words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87Env {
    /// FCW.
    pub control: u16,
    /// FSW, of which the exception flags matter.
    pub status: u16,
}

/// What an instruction with one result gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87Result<T = F80> {
    /// The result. With [`is_vetoed`] it is not to be written.
    pub value: T,
    /// Exception flags to add to the guest's, [`status::ES`] if one of them is unmasked, and the
    /// condition codes after the instruction. Flags already set in [`X87Env::status`] may be
    /// among them when all exceptions are masked.
    pub status: u16,
}

/// Whether an unmasked invalid-operation, denormal or divide-by-zero exception keeps an
/// instruction from writing its result and popping or pushing the stack (SDM vol. 1, 8.4).
#[inline(always)]
pub const fn is_vetoed(control: u16, status: u16) -> bool {
    status & !control & (status::IE | status::DE | status::ZE) != 0
}

/// [`is_vetoed`] for instructions that store to memory, which unmasked overflow and underflow
/// keep from it, too (SDM vol. 1, 8.5.4 and 8.5.5).
#[inline(always)]
pub const fn is_store_vetoed(control: u16, status: u16) -> bool {
    status & !control & (status::EXCEPTIONS & !status::PE) != 0
}

/// ZF, PF and CF in their places in EFLAGS for a comparison's C3, C2 and C0, as FCOMI gives them.
#[inline(always)]
pub const fn eflags(status: u16) -> u64 {
    ((status & status::C3) >> 8 | (status & (status::C2 | status::C0)) >> 8) as u64
}

/// What of the host's status word is a result.
const REPORTED: u16 = status::EXCEPTIONS | status::ES | status::CONDITIONS;

/// The memory that an instruction's code works on. Memory operands smaller than [`F80`] are the
/// low part of `mantissa`.
#[repr(C, align(16))]
struct Frame {
    /// First operand, at offset 0.
    a: F80,
    /// Second operand, at offset 16.
    b: F80,
    /// Result, at offset 32.
    r: F80,
    /// Second result, at offset 48.
    q: F80,
    /// The host's control word, the guest's, and the guest's with all exceptions masked, at
    /// offsets 64, 66 and 68.
    control: [u16; 3],
}

impl Frame {
    #[inline(always)]
    fn new(env: X87Env, a: F80, b: F80) -> Self {
        let guest = env.control & control::WRITABLE | control::INIT & !control::WRITABLE;
        let masked = guest | control::MASKS;
        Frame { a, b, r: F80::ZERO, q: F80::ZERO, control: [0, guest, masked] }
    }
}

/// An instruction's code between loading and restoring the control word.
trait Code {
    /// Whether [`Code::quick`] may be used: it needs code that, with all exceptions masked, always
    /// leaves the same number of registers on the stack.
    const HAS_QUICK: bool = true;

    /// Runs with all exceptions masked; gives a status word whose flags have accumulated.
    fn quick(frame: &mut Frame) -> u16;

    /// Runs from a clean state and under the guest's masks; gives the status word.
    fn full(frame: &mut Frame) -> u16;
}

/// Runs an instruction's code, the quick way if that gives a usable status word.
#[inline(always)]
fn run<C: Code>(env: X87Env, frame: &mut Frame) -> u16 {
    if C::HAS_QUICK && env.control & control::MASKS == control::MASKS {
        let host_status = C::quick(frame);
        if host_status & status::EXCEPTIONS & !env.status == 0 {
            return host_status & REPORTED;
        }
    }
    run_full::<C>(frame)
}

#[cold]
#[inline(never)]
fn run_full<C: Code>(frame: &mut Frame) -> u16 {
    C::full(frame) & REPORTED
}

/// Executes `$code` on an empty stack, reads the status word and runs `$out`, which stores results
/// and pops what is left.
macro_rules! x87_asm {
    ($frame:expr, [$($before:literal),*] [$($code:expr),*] [$($between:literal),*]
     [$($out:literal),*] [$($after:literal),*]) => {{
        let frame: &mut $crate::x87::Frame = $frame;
        let host_status: u16;
        // SAFETY: the x87 stack is empty on entry, as all its registers are declared clobbered,
        // and on exit, and the control word is saved and restored. No waiting instruction runs
        // while an unmasked exception is pending, so none is delivered. Only the frame's
        // memory is read and written.
        unsafe {
            core::arch::asm!(
                "fnstcw [{f} + 64]",
                $($before,)*
                $($code,)*
                "fnstsw ax",
                $($between,)*
                $($out,)*
                $($after,)*
                "fldcw [{f} + 64]",
                f = in(reg) &raw mut *frame,
                out("ax") host_status,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
        host_status
    }};
}
use x87_asm;

/// Implements [`Code`] for a type: what leads to the status word, and what stores and pops after
/// it. `full` at the end says that there is no quick form.
macro_rules! x87_code {
    (@has_quick full) => { const HAS_QUICK: bool = false; };
    (@has_quick) => {};
    ($name:ty, $code:tt, $out:tt $(, $full:ident)?) => {
        impl $crate::x87::Code for $name {
            $crate::x87::x87_code!(@has_quick $($full)?);

            #[inline(always)]
            fn quick(frame: &mut $crate::x87::Frame) -> u16 {
                $crate::x87::x87_asm!(frame, ["fldcw [{f} + 68]"] $code [] $out [])
            }

            #[inline]
            fn full(frame: &mut $crate::x87::Frame) -> u16 {
                $crate::x87::x87_asm!(
                    frame, ["fninit", "fldcw [{f} + 66]"] $code
                    ["fnclex", "fldcw [{f} + 68]"] $out ["fninit"])
            }
        }
    };
}
use x87_code;

/// The code that loads a first operand from the frame.
macro_rules! load_a {
    () => {
        "fld tbyte ptr [{f}]"
    };
}
/// The code that loads a second operand from the frame.
macro_rules! load_b {
    () => {
        "fld tbyte ptr [{f} + 16]"
    };
}
use {load_a, load_b};
