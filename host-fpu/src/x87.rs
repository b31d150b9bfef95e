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
use core::hint::cold_path;

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
}

/// The guest's x87 control and status words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87Env {
    /// FCW.
    pub control: u16,
    /// FSW, of which the exception flags matter, and to remainders C0 and C3.
    pub status: u16,
}

/// What an instruction with one result gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87Result<T = F80> {
    /// The result. With [`is_vetoed`] it is not to be written.
    pub value: T,
    /// Exception flags to add to the guest's, [`status::ES`] if one of them is unmasked, and
    /// condition codes to replace. Flags that are masked and already set in [`X87Env::status`] may
    /// be among them whether raised again or not.
    pub status: u16,
    /// The condition codes that the instruction changes.
    pub conditions: u16,
}

impl<T> X87Result<T> {
    /// The guest's status word after the instruction. It lacks bit 15 (B), which mirrors ES.
    #[inline(always)]
    pub const fn merge(&self, fsw: u16) -> u16 {
        fsw & !self.conditions | self.status
    }
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

/// What of the host's status word is a result besides condition codes.
const REPORTED: u16 = status::EXCEPTIONS | status::ES;

/// What an instruction's code gives.
struct Raw {
    /// First result.
    r: F80,
    /// Second result, if there is one.
    q: F80,
    /// The status word right after the instruction.
    status: u16,
}

/// An instruction's code between loading and restoring the control word.
trait Code {
    /// Whether [`Code::quick`] may be used: it needs code that, with all exceptions masked, always
    /// leaves the same number of registers on the stack.
    const HAS_QUICK: bool = true;

    /// The condition codes that the instruction changes; the others keep the guest's values.
    const CONDITIONS: u16 = status::C1;

    /// Runs with all exceptions masked; gives a status word whose flags have accumulated.
    fn quick(control: u16, a: F80, b: F80) -> Raw;

    /// Runs from a clean state and under the guest's masks.
    fn full(control: u16, a: F80, b: F80) -> Raw;
}

/// Runs an instruction's code, the quick way if that gives a usable status word.
#[inline(always)]
fn run<C: Code>(env: X87Env, a: F80, b: F80) -> Raw {
    let reported = REPORTED | C::CONDITIONS;
    if is_quick::<C>(env) {
        let raw = C::quick(env.control, a, b);
        if is_clean(env, &raw) {
            return Raw { status: raw.status & reported, ..raw };
        }
    }
    // This, too, is in line: a call would cost every handler the saving of registers.
    cold_path();
    let raw = C::full(env.control, a, b);
    Raw { status: raw.status & reported, ..raw }
}

/// [`run`] for an instruction with one result.
#[inline(always)]
fn run_one<C: Code>(env: X87Env, a: F80, b: F80) -> X87Result {
    let raw = run::<C>(env, a, b);
    X87Result { value: raw.r, status: raw.status, conditions: C::CONDITIONS }
}

/// Whether a run with everything masked can show what the guest would see. Unmasked, underflow is
/// reported for exact tiny results too, which such a run does not tell (SDM vol. 1, 8.5.5).
#[inline(always)]
fn is_quick<C: Code>(env: X87Env) -> bool {
    C::HAS_QUICK && env.control & status::UE != 0
}

/// Whether a quick run raised nothing but what is both masked and already set for the guest.
#[inline(always)]
fn is_clean(env: X87Env, raw: &Raw) -> bool {
    raw.status & status::EXCEPTIONS & !(env.status & env.control) == 0
}

/// Executes `$code` on an empty stack, reads the status word and runs `$out`, which stores results
/// and pops what is left. The macros below it are what code is made of; the first operand is put in memory
/// beforehand.
///
/// Memory is the red zone rather than a local, whose address would escape: a function with an
/// escaped local cannot end in a tail call, which the interpreter's handlers need to. Registers
/// are few, so the first result's sign and exponent come in the one that held the control word.
macro_rules! x87_asm {
    ($control:expr, $a:ident, [$($before:literal),*] [$($code:expr),*] [$($between:literal),*]
     [$($out:expr),*] [$($after:literal),*] $($operands:tt)*) => {{
        let mantissa: u64;
        let mut control_sign = u32::from($control);
        let status: u16;
        // SAFETY: the x87 stack is empty on entry, as all its registers are declared clobbered,
        // and on exit, and the control word is saved and restored. No waiting instruction runs
        // while an unmasked exception is pending, so none is delivered. Without `nostack` the
        // red zone may be written, and nothing else is.
        unsafe {
            core::arch::asm!(
                "# {bm} {bs:e}",
                "fnstcw word ptr [rsp - 16]",
                "mov word ptr [rsp - 14], {cs:x}",
                $($before,)*
                "fldcw word ptr [rsp - 14]",
                "mov qword ptr [rsp - 64], {am}",
                "mov word ptr [rsp - 56], {as:x}",
                $($code,)*
                "fnstsw ax",
                $($between,)*
                $($out,)*
                $($after,)*
                "fldcw word ptr [rsp - 16]",
                cs = inout(reg) control_sign,
                am = in(reg) $a.mantissa,
                as = in(reg) u32::from($a.sign_exponent),
                rm = out(reg) mantissa,
                out("ax") status,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                $($operands)*
            );
        }
        (F80::from_bits(control_sign as u16, mantissa), status)
    }};
    (quick $control:ident, $a:ident, $code:tt, $out:tt, $($operands:tt)*) => {
        $crate::x87::x87_asm!(
            $control | $crate::x87::control::MASKS, $a, [] $code [] $out [] $($operands)*)
    };
    (full $control:ident, $a:ident, $code:tt, $out:tt, $($operands:tt)*) => {
        $crate::x87::x87_asm!(
            $control, $a, ["fninit"] $code
            ["fnclex", "or word ptr [rsp - 14], 0x3f", "fldcw word ptr [rsp - 14]"]
            $out ["fninit"] $($operands)*)
    };
}
use x87_asm;

/// Implements [`Code`] for a type: what leads to the status word, what stores and pops after it,
/// and the condition codes that change, if others than C1.
macro_rules! x87_code {
    ($name:ty, $code:tt, $out:tt $(, $conditions:expr)?) => {
        impl $crate::x87::Code for $name {
            $(const CONDITIONS: u16 = $conditions;)?
            $crate::x87::x87_code!(@one quick $code, $out);
            $crate::x87::x87_code!(@one full $code, $out);
        }
    };
    (@one $form:ident $code:tt, $out:tt) => {
        #[inline(always)]
        fn $form(control: u16, a: F80, b: F80) -> $crate::x87::Raw {
            let (r, status) = $crate::x87::x87_asm!($form control, a, $code, $out,
                bm = in(reg) b.mantissa, bs = in(reg) u32::from(b.sign_exponent),);
            $crate::x87::Raw { r, q: F80::ZERO, status }
        }
    };
}
/// Implements [`Code`] with two results and without a second operand.
macro_rules! x87_pair_code {
    ($name:ty, $has_quick:literal, $conditions:expr, $code:tt, $out:tt) => {
        impl $crate::x87::Code for $name {
            const HAS_QUICK: bool = $has_quick;
            const CONDITIONS: u16 = $conditions;
            $crate::x87::x87_pair_code!(@one quick $code, $out);
            $crate::x87::x87_pair_code!(@one full $code, $out);
        }
    };
    (@one $form:ident $code:tt, $out:tt) => {
        #[inline(always)]
        fn $form(control: u16, a: F80, _b: F80) -> $crate::x87::Raw {
            let (q_mantissa, q_sign): (u64, u32);
            let (r, status) = $crate::x87::x87_asm!($form control, a, $code, $out,
                bm = out(reg) q_mantissa, bs = out(reg) q_sign,);
            let q = F80::from_bits(q_sign as u16, q_mantissa);
            $crate::x87::Raw { r, q, status }
        }
    };
}
use {x87_code, x87_pair_code};

/// Loads the first operand.
macro_rules! load_a {
    () => {
        "fld tbyte ptr [rsp - 64]"
    };
}
/// Puts a second operand of up to eight bytes at `rsp - 48`.
macro_rules! put_b {
    () => {
        "mov qword ptr [rsp - 48], {bm}"
    };
}
/// Loads a second operand.
macro_rules! load_b {
    () => {
        "mov qword ptr [rsp - 48], {bm}
         mov word ptr [rsp - 40], {bs:x}
         fld tbyte ptr [rsp - 48]"
    };
}
/// Pops the first result.
macro_rules! pop_r {
    () => {
        "fstp tbyte ptr [rsp - 64]
         mov {rm}, qword ptr [rsp - 64]
         movzx {cs:e}, word ptr [rsp - 56]"
    };
}
/// Pops the second result.
macro_rules! pop_q {
    () => {
        "fstp tbyte ptr [rsp - 48]
         mov {bm}, qword ptr [rsp - 48]
         movzx {bs:e}, word ptr [rsp - 40]"
    };
}
/// Leaves no result.
macro_rules! no_r {
    () => {
        "xor {rm:e}, {rm:e}"
    };
}
use {load_a, load_b, no_r, pop_q, pop_r, put_b};
