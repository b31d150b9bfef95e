//! What the host's processor can do, as far as translated code makes use of it; and what is emitted
//! where it lacks BMI2.
//!
//! Glue may not change flags. With BMI2 there are shifts and extractions that do not; without, glue puts
//! the flags into RAX meanwhile, which costs ten instructions each time.

use std::mem::offset_of;
use std::sync::LazyLock;

use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction};
use trivium_interp::Cpu;
use trivium_interp::cpu::{TLB_ADDRESS, TLB_MASK};
use trivium_interp::native::{JUMP_SHIFT, Native};

use crate::emit::Assembler;
use crate::regs::{at, near};

/// Where the guest's RAX is kept while its flags are in the host's.
const KEPT: i32 = at(offset_of!(Cpu, native) + offset_of!(Native, kept));

macro_rules! features {
    ($($name:tt $feature:ident,)*) => {
        /// What the host may have or lack, beside SSE2.
        const FEATURES: &[(&str, CpuidFeature)] = &[$(($name, CpuidFeature::$feature)),*];

        /// A bit for each that it has.
        fn detected() -> u32 {
            [$(is_x86_feature_detected!($name)),*]
                .iter()
                .enumerate()
                .map(|(number, has)| u32::from(*has) << number)
                .sum()
        }
    };
}
features! {
    "cmpxchg16b" CMPXCHG16B, "bmi1" BMI1, "bmi2" BMI2, "adx" ADX, "lzcnt" LZCNT,
    "popcnt" POPCNT, "movbe" MOVBE, "sse3" SSE3, "ssse3" SSSE3, "sse4.1" SSE4_1,
    "sse4.2" SSE4_2, "sse4a" SSE4A, "avx" AVX, "avx2" AVX2, "fma" FMA, "f16c" F16C, "aes" AES,
    "pclmulqdq" PCLMULQDQ, "sha" SHA, "gfni" GFNI, "vaes" VAES, "vpclmulqdq" VPCLMULQDQ,
}

/// What is not there without AVX.
const OF_AVX: [CpuidFeature; 5] = [
    CpuidFeature::AVX2,
    CpuidFeature::FMA,
    CpuidFeature::F16C,
    CpuidFeature::VAES,
    CpuidFeature::VPCLMULQDQ,
];

fn bit(feature: CpuidFeature) -> Option<u32> {
    FEATURES.iter().position(|(_, known)| *known == feature).map(|number| 1 << number)
}

/// What translated code may take from the host's processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host(u32);

/// All that the host has.
static ALL: LazyLock<Host> = LazyLock::new(|| Host(detected()));

impl Default for Host {
    /// All that it has.
    fn default() -> Self {
        *ALL
    }
}

impl std::str::FromStr for Host {
    type Err = String;

    /// What the host has without some of it: `no-bmi2,no-avx2`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut host = Self::default();
        for part in text.split(',') {
            let name = part.strip_prefix("no-");
            let feature = FEATURES.iter().find(|(known, _)| Some(*known) == name);
            let Some((_, feature)) = feature else {
                let names: Vec<_> = FEATURES.iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                return Err(format!("`{part}` is not `no-` and one of: {names}"));
            };
            host = host.without(*feature);
        }
        Ok(host)
    }
}

impl Host {
    /// As if it had not this.
    fn without(self, feature: CpuidFeature) -> Self {
        let beside = OF_AVX.iter().filter(|_| feature == CpuidFeature::AVX);
        let gone = beside.copied().chain([feature]).filter_map(bit);
        Self(gone.fold(self.0, |bits, gone| bits & !gone))
    }

    /// Looks whether code has only what the host has, if that is less than it really has.
    ///
    /// # Panics
    /// It has something else: what this host has not shown, another would.
    pub(crate) fn check(self, code: &[u8]) {
        if self == *ALL {
            return;
        }
        for i in Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
            assert!(self.has_all_of(&i) || is_always_there(&i), "{i} is translated code");
        }
    }

    /// The names of what it lacks of all that translated code may use.
    pub fn missing(self) -> impl Iterator<Item = &'static str> {
        let missing = FEATURES.iter().filter(move |(_, feature)| !self.has(*feature));
        missing.map(|(name, _)| *name)
    }

    /// Whether it has a feature that may be lacking.
    pub(crate) fn has(self, feature: CpuidFeature) -> bool {
        bit(feature).is_some_and(|bit| self.0 & bit != 0)
    }

    /// Whether glue may use BMI2.
    pub(crate) fn bmi2(self) -> bool {
        self.has(CpuidFeature::BMI2)
    }

    /// Whether it has what an instruction needs.
    pub(crate) fn has_all_of(self, i: &Instruction) -> bool {
        use CpuidFeature as F;
        i.cpuid_features().iter().all(|feature| match feature {
            F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::CMOV
            | F::CPUID
            | F::INTEL8086_ONLY
            | F::INTEL386_ONLY
            | F::CX8
            | F::MMX
            | F::SSE
            | F::SSE2 => true,
            other => self.has(*other),
        })
    }

    /// Emits something that changes flags and not RAX, so that flags stay.
    fn keeping_flags(asm: &mut Assembler, emit: impl FnOnce(&mut Assembler)) {
        dynasm!(asm ; .arch x64 ; mov [r14 + KEPT], rax ; lahf ; seto al);
        emit(asm);
        dynasm!(asm ; .arch x64 ; add al, 127 ; sahf ; mov rax, [r14 + KEPT]);
    }

    /// Makes a register 0 if another is less than 4096, and something else if it is not. Not of RAX.
    pub(crate) fn above_page(self, asm: &mut Assembler, to: u8, from: u8) {
        match self.bmi2() {
            true => dynasm!(asm ; .arch x64 ; shrx Rq(to), Rq(from), r14),
            false => Self::keeping_flags(asm, |asm| {
                dynasm!(asm ; .arch x64 ; mov Rq(to), Rq(from) ; shr Rq(to), 12);
            }),
        }
    }

    /// Makes RCX 0 if the quantum, in R11, is not negative, and something else if it is.
    pub(crate) fn is_exhausted(self, asm: &mut Assembler) {
        match self.bmi2() {
            // It is less than 4096, so nothing is left of it unless it is negative.
            true => dynasm!(asm ; .arch x64 ; shrx rcx, r11, r14),
            false => dynasm!(asm ; .arch x64 ; mov rcx, r11 ; bswap rcx ; movzx ecx, cl),
        }
    }

    /// Bytes of a block's check of the quantum.
    pub(crate) fn check_size(self) -> usize {
        if self.bmi2() { 20 } else { 24 }
    }

    /// Leaves of RCX something only if it has any of the bits of a mask in the state.
    pub(crate) fn any_of(self, asm: &mut Assembler, mask: i32) {
        match self.bmi2() {
            true => dynasm!(asm ; .arch x64 ; pext rcx, rcx, [r14 + mask]),
            false => Self::keeping_flags(asm, |asm| {
                dynasm!(asm ; .arch x64 ; and rcx, [r14 + mask]);
            }),
        }
    }

    /// Leaves of ECX something only if it has any of the bits of R8D.
    pub(crate) fn any_of_r8(self, asm: &mut Assembler) {
        match self.bmi2() {
            true => dynasm!(asm ; .arch x64 ; pext ecx, ecx, r8d),
            false => Self::keeping_flags(asm, |asm| dynasm!(asm ; .arch x64 ; and ecx, r8d)),
        }
    }

    /// Makes R9 lead to an entry of the TLB's array at an offset, for the linear address in R8. RCX is
    /// overwritten.
    pub(crate) fn tlb_entry(self, asm: &mut Assembler, array: i32) {
        if !self.bmi2() {
            return Self::keeping_flags(asm, |asm| {
                dynasm!(asm
                    ; .arch x64
                    ; mov r9, r8
                    ; shr r9, 8
                    ; and r9d, 0xfff0
                    ; add r9, [BYTE r14 + near(TLB_ADDRESS)]
                    ; add r9, array
                );
            });
        }
        dynasm!(asm
            ; .arch x64
            ; pext r9, r8, [BYTE r14 + near(TLB_MASK)]
            ; mov rcx, [BYTE r14 + near(TLB_ADDRESS)]
            ; lea r9, [r9 + r9]
        );
        match array {
            0 => dynasm!(asm ; .arch x64 ; lea r9, [rcx + r9 * 8]),
            _ => dynasm!(asm ; .arch x64 ; lea r9, [rcx + r9 * 8 + array]),
        }
    }

    /// Makes R9 the place of the RIP in R8 among as many as a mask in the state says.
    pub(crate) fn jump_slot(self, asm: &mut Assembler, mask: i32) {
        match self.bmi2() {
            true => dynasm!(asm ; .arch x64 ; pext r9, r8, [r14 + mask]),
            false => Self::keeping_flags(asm, |asm| {
                dynasm!(asm
                    ; .arch x64
                    ; mov r9, r8
                    ; and r9, [r14 + mask]
                    ; shr r9, JUMP_SHIFT as i8
                );
            }),
        }
    }
}

/// What is emitted where something else has asked for it: XSAVE of the x87 unit, which is not used
/// where the host lacks it.
fn is_always_there(i: &Instruction) -> bool {
    use iced_x86::Mnemonic as M;
    let x87 = i.cpuid_features().iter().all(|f| {
        use CpuidFeature as F;
        matches!(f, F::FPU | F::FPU287 | F::FPU387 | F::CMOV | F::SSE3 | F::FXSR | F::X64)
    });
    x87 || matches!(i.mnemonic(), M::Xsave64 | M::Xrstor64 | M::Prefetchw | M::INVALID)
}

// The sequence for entries takes it that there are so many.
const _: () = assert!(trivium_interp::tlb::TLB_SIZE == 4096);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_can_be_taken_away_by_their_names() {
        let host: Host = "no-bmi2,no-avx".parse().unwrap();
        for gone in OF_AVX.iter().chain(&[CpuidFeature::BMI2, CpuidFeature::AVX]) {
            assert!(!host.has(*gone), "{gone:?}");
        }
        assert_eq!(host.has(CpuidFeature::SSE3), Host::default().has(CpuidFeature::SSE3));
        for wrong in ["bmi2", "no-", "no-x87", ""] {
            assert!(wrong.parse::<Host>().is_err_and(|error| error.contains("bmi2")), "{wrong}");
        }
    }

    /// Every processor with 64-bit mode has CMOV and the x87 unit, so all of FCMOVcc too.
    #[test]
    fn conditional_moves_of_the_x87_are_always_there() {
        let host: Host = "no-bmi2,no-avx".parse().unwrap();
        for (opcode, operands) in
            [0xda, 0xdb].into_iter().flat_map(|o| (0xc0..=0xdf).map(move |m| (o, m)))
        {
            host.check(&[opcode, operands]);
        }
    }
}
