//! Which instructions a CPU has, by its features: those of a feature that it lacks raise #UD.
//!
//! Intel SDM vol. 2, CPUID columns; AMD APM vol. 3, appendix D. iced-x86 says to which group each
//! encoding belongs.

use iced_x86::{Code, CpuidFeature, DecoderOptions};
use trivium_cpu::model::{Feature, FeatureSet, Quirk, Vendor};

/// What makes the instructions of a group be there: any of these features; with none named they
/// always are.
type AnyOf = &'static [Feature];

/// Groups of instructions, and what they need. Instructions of other groups never are.
const GROUPS: &[(CpuidFeature, AnyOf)] = &[
    (CpuidFeature::INTEL8086, &[]),
    (CpuidFeature::INTEL186, &[]),
    (CpuidFeature::INTEL286, &[]),
    (CpuidFeature::INTEL386, &[]),
    (CpuidFeature::INTEL486, &[]),
    (CpuidFeature::SMM, &[]),
    (CpuidFeature::CPUID, &[]),
    // To processors that do not know it, it is a NOP with a prefix.
    (CpuidFeature::PAUSE, &[]),
    (CpuidFeature::FPU, &[Feature::Fpu]),
    (CpuidFeature::FPU287, &[Feature::Fpu]),
    (CpuidFeature::FPU387, &[Feature::Fpu]),
    (CpuidFeature::TSC, &[Feature::Tsc]),
    (CpuidFeature::MSR, &[Feature::Msr]),
    (CpuidFeature::CX8, &[Feature::Cx8]),
    (CpuidFeature::MMX, &[Feature::Mmx]),
    // It came with MMX, and has no bit of its own.
    (CpuidFeature::RDPMC, &[Feature::Mmx]),
    (CpuidFeature::CMOV, &[Feature::Cmov]),
    // These came with CMOV, in the P6 and the K7: 0F 0D and 0F 18 to 0F 1F do nothing where they
    // are not given a meaning.
    (CpuidFeature::MULTIBYTENOP, &[Feature::Cmov]),
    (CpuidFeature::CET_IBT, &[Feature::Cmov]),
    (CpuidFeature::CLDEMOTE, &[Feature::Cmov]),
    (CpuidFeature::PREFETCHWT1, &[Feature::Cmov]),
    (CpuidFeature::PREFETCHITI, &[Feature::Cmov]),
    (CpuidFeature::PREFETCHW, &[Feature::Prefetchw, Feature::ThreeDNow, Feature::Cmov]),
    (CpuidFeature::SEP, &[Feature::Sep]),
    (CpuidFeature::FXSR, &[Feature::Fxsr]),
    (CpuidFeature::D3NOW, &[Feature::ThreeDNow]),
    (CpuidFeature::D3NOWEXT, &[Feature::ThreeDNowExt]),
    (CpuidFeature::SYSCALL, &[Feature::Syscall]),
    (CpuidFeature::X64, &[Feature::Lm]),
    (CpuidFeature::SSE, &[Feature::Sse]),
    (CpuidFeature::SSE2, &[Feature::Sse2]),
    (CpuidFeature::SSE3, &[Feature::Sse3]),
    (CpuidFeature::SSSE3, &[Feature::Ssse3]),
    (CpuidFeature::SSE4_1, &[Feature::Sse41]),
    (CpuidFeature::SSE4_2, &[Feature::Sse42]),
    (CpuidFeature::SSE4A, &[Feature::Sse4a]),
    (CpuidFeature::CLFSH, &[Feature::Clflush]),
    (CpuidFeature::CLFLUSHOPT, &[Feature::Clflushopt]),
    (CpuidFeature::CLWB, &[Feature::Clwb]),
    (CpuidFeature::CLZERO, &[Feature::Clzero]),
    (CpuidFeature::WBNOINVD, &[Feature::Wbnoinvd]),
    (CpuidFeature::MONITOR, &[Feature::Monitor]),
    (CpuidFeature::CMPXCHG16B, &[Feature::Cx16]),
    (CpuidFeature::MOVBE, &[Feature::Movbe]),
    (CpuidFeature::POPCNT, &[Feature::Popcnt]),
    (CpuidFeature::LZCNT, &[Feature::Abm]),
    (CpuidFeature::BMI1, &[Feature::Bmi1]),
    (CpuidFeature::BMI2, &[Feature::Bmi2]),
    (CpuidFeature::ADX, &[Feature::Adx]),
    (CpuidFeature::AES, &[Feature::Aes]),
    (CpuidFeature::PCLMULQDQ, &[Feature::Pclmulqdq]),
    (CpuidFeature::SHA, &[Feature::Sha]),
    (CpuidFeature::GFNI, &[Feature::Gfni]),
    (CpuidFeature::VAES, &[Feature::Vaes]),
    (CpuidFeature::VPCLMULQDQ, &[Feature::Vpclmulqdq]),
    (CpuidFeature::AVX, &[Feature::Avx]),
    (CpuidFeature::AVX2, &[Feature::Avx2]),
    (CpuidFeature::FMA, &[Feature::Fma]),
    (CpuidFeature::F16C, &[Feature::F16c]),
    (CpuidFeature::XSAVE, &[Feature::Xsave]),
    (CpuidFeature::XSAVEOPT, &[Feature::Xsaveopt]),
    (CpuidFeature::XSAVEC, &[Feature::Xsavec]),
    (CpuidFeature::XSAVES, &[Feature::Xsaves]),
    (CpuidFeature::PKU, &[Feature::Pku]),
    (CpuidFeature::RDTSCP, &[Feature::Rdtscp]),
    (CpuidFeature::RDPID, &[Feature::Rdpid]),
    (CpuidFeature::MOVDIRI, &[Feature::Movdiri]),
    (CpuidFeature::MOVDIR64B, &[Feature::Movdir64b]),
    (CpuidFeature::RDRAND, &[Feature::Rdrand]),
    (CpuidFeature::RDSEED, &[Feature::Rdseed]),
    (CpuidFeature::FSGSBASE, &[Feature::Fsgsbase]),
    (CpuidFeature::INVPCID, &[Feature::Invpcid]),
    (CpuidFeature::SMAP, &[Feature::Smap]),
    (CpuidFeature::SVM, &[Feature::Svm]),
    (CpuidFeature::SKINIT_or_SVM, &[Feature::Svm]),
];

/// Encodings that are there for other reasons too than their groups.
const CODES: &[(AnyOf, &[Code])] = &[
    // What AMD took over from SSE before it had that. APM vol. 3, appendix D.
    (
        &[Feature::Mmxext],
        &[
            Code::Pshufw_mm_mmm64_imm8,
            Code::Pinsrw_mm_r32m16_imm8,
            Code::Pinsrw_mm_r64m16_imm8,
            Code::Pextrw_r32_mm_imm8,
            Code::Pextrw_r64_mm_imm8,
            Code::Pmovmskb_r32_mm,
            Code::Pmovmskb_r64_mm,
            Code::Pminub_mm_mmm64,
            Code::Pmaxub_mm_mmm64,
            Code::Pminsw_mm_mmm64,
            Code::Pmaxsw_mm_mmm64,
            Code::Pavgb_mm_mmm64,
            Code::Pavgw_mm_mmm64,
            Code::Pmulhuw_mm_mmm64,
            Code::Psadbw_mm_mmm64,
            Code::Movntq_m64_mm,
            Code::Maskmovq_rDI_mm_mm,
            Code::Sfence,
            Code::Sfence_F9,
            Code::Sfence_FA,
            Code::Sfence_FB,
            Code::Sfence_FC,
            Code::Sfence_FD,
            Code::Sfence_FE,
            Code::Sfence_FF,
        ],
    ),
    // Among the long NOPs.
    (
        &[Feature::Cmov],
        &[
            Code::Prefetchnta_m8,
            Code::Prefetcht0_m8,
            Code::Prefetcht1_m8,
            Code::Prefetcht2_m8,
            Code::Rdsspd_r32,
            Code::Rdsspq_r64,
        ],
    ),
];

/// What came later than its group. SDM vol. 1, 11.4.2, and APM vol. 3, appendix D, for PADDQ.
const LATER: &[(Feature, &[Code])] = &[(Feature::Sse2, &[Code::Paddq_mm_mmm64])];

/// More than iced has groups.
const PLACES: usize = 256;

/// [`GROUPS`] by number.
const BY_NUMBER: [Option<AnyOf>; PLACES] = {
    let mut table = [None; PLACES];
    let mut n = 0;
    while n < GROUPS.len() {
        table[GROUPS[n].0 as usize] = Some(GROUPS[n].1);
        n += 1;
    }
    table
};

/// Whether a CPU with these features has the instruction.
#[must_use]
pub fn has(features: FeatureSet, code: Code) -> bool {
    let any = |of: AnyOf| of.is_empty() || of.iter().any(|&feature| features.has(feature));
    let group =
        |group: &CpuidFeature| BY_NUMBER.get(*group as usize).copied().flatten().is_some_and(any);
    let late = LATER.iter().any(|(of, codes)| !features.has(*of) && codes.contains(&code));
    !late && code.cpuid_features().iter().all(group)
        || CODES.iter().any(|(of, codes)| any(of) && codes.contains(&code))
}

/// How decoders differ: by vendor in what [`Quirk::OperandSizeOfNearBranches`] says, by feature in
/// instructions that are others with a prefix to processors that do not know them.
#[must_use]
pub fn options(vendor: Vendor, features: FeatureSet) -> u32 {
    const WITHOUT: &[(Feature, u32)] = &[
        (Feature::Bmi1, DecoderOptions::NO_MPFX_0FBC),
        (Feature::Abm, DecoderOptions::NO_MPFX_0FBD),
        (Feature::Wbnoinvd, DecoderOptions::NO_WBNOINVD),
    ];
    let amd = vendor.has(Quirk::OperandSizeOfNearBranches);
    let by_vendor = if amd { DecoderOptions::AMD } else { DecoderOptions::NONE };
    let lacking = WITHOUT.iter().filter(|(feature, _)| !features.has(*feature));
    lacking.fold(by_vendor, |options, (_, option)| options | option)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, Mnemonic};
    use trivium_cpu::model::{CpuModel, MODELS};

    /// An instruction: bytes for 64-bit or, if there are none, 32-bit code; the models without it.
    struct Row {
        bits: u32,
        bytes: &'static [u8],
        name: &'static str,
        absent: &'static [&'static str],
    }

    const fn row(
        bits: u32,
        bytes: &'static [u8],
        name: &'static str,
        absent: &'static [&'static str],
    ) -> Row {
        Row { bits, bytes, name, absent }
    }

    const BEFORE_P6: &[&str] = &["486", "pentium"];
    const BEFORE_SSE: &[&str] = &["486", "pentium", "pentium2", "athlon"];
    const BEFORE_SSE2: &[&str] = &["486", "pentium", "pentium2", "pentium3", "athlon"];
    const BEFORE_SSE3: &[&str] = &["486", "pentium", "pentium2", "pentium3", "athlon", "x86-64-v1"];
    const BEFORE_SSSE3: &[&str] = &[
        "486",
        "pentium",
        "pentium2",
        "pentium3",
        "athlon",
        "coreduo",
        "phenom",
        "qemu32",
        "qemu64",
        "x86-64-v1",
    ];
    const BEFORE_SSE4: &[&str] = &[
        "486",
        "pentium",
        "pentium2",
        "pentium3",
        "athlon",
        "coreduo",
        "core2duo",
        "phenom",
        "n270",
        "qemu32",
        "qemu64",
        "x86-64-v1",
    ];
    const BEFORE_AVX: &[&str] = &[
        "486",
        "pentium",
        "pentium2",
        "pentium3",
        "athlon",
        "coreduo",
        "core2duo",
        "phenom",
        "n270",
        "qemu32",
        "qemu64",
        "x86-64-v1",
        "x86-64-v2",
    ];
    const WITHOUT_LONG_MODE: &[&str] =
        &["486", "pentium", "pentium2", "pentium3", "athlon", "coreduo", "n270", "qemu32"];

    /// The years in which instructions came, by the vendors' manuals.
    const ROWS: &[Row] = &[
        row(32, &[0x0f, 0xa2], "cpuid", &[]),
        row(32, &[0x0f, 0xc8], "bswap", &[]),
        row(32, &[0xd9, 0xfe], "fsin", &[]),
        row(32, &[0xf3, 0x90], "pause", &[]),
        row(32, &[0x0f, 0xaa], "rsm", &[]),
        row(32, &[0x0f, 0x31], "rdtsc", &["486"]),
        row(32, &[0x0f, 0x32], "rdmsr", &["486"]),
        row(32, &[0x0f, 0xc7, 0x08], "cmpxchg8b", &["486"]),
        row(32, &[0x0f, 0xfc, 0xc1], "paddb mm", &["486"]),
        row(32, &[0x0f, 0x33], "rdpmc", &["486"]),
        row(32, &[0x0f, 0x44, 0xc1], "cmove", BEFORE_P6),
        row(32, &[0xdb, 0xf1], "fcomi", BEFORE_P6),
        row(32, &[0x0f, 0x1f, 0x00], "nop m32", BEFORE_P6),
        row(32, &[0x0f, 0x18, 0x08], "prefetcht0", BEFORE_P6),
        row(32, &[0xf3, 0x0f, 0x1e, 0xfb], "endbr32", BEFORE_P6),
        row(32, &[0x0f, 0x34], "sysenter", BEFORE_P6),
        row(32, &[0x0f, 0xae, 0x00], "fxsave", BEFORE_P6),
        row(32, &[0x0f, 0xda, 0xc1], "pminub mm", &["486", "pentium", "pentium2"]),
        row(32, &[0x0f, 0xae, 0xf8], "sfence", &["486", "pentium", "pentium2"]),
        row(32, &[0x0f, 0x58, 0xc1], "addps", BEFORE_SSE),
        row(32, &[0x0f, 0xae, 0x10], "ldmxcsr", BEFORE_SSE),
        row(32, &[0x66, 0x0f, 0x58, 0xc1], "addpd", BEFORE_SSE2),
        row(32, &[0x66, 0x0f, 0xfc, 0xc1], "paddb xmm", BEFORE_SSE2),
        row(32, &[0x0f, 0xd4, 0xc1], "paddq mm", BEFORE_SSE2),
        row(32, &[0x0f, 0xae, 0xf0], "mfence", BEFORE_SSE2),
        row(32, &[0x0f, 0xc3, 0x00], "movnti", BEFORE_SSE2),
        row(32, &[0xf2, 0x0f, 0x7c, 0xc1], "haddps", BEFORE_SSE3),
        row(32, &[0xdb, 0x08], "fisttp", BEFORE_SSE3),
        row(32, &[0x0f, 0x38, 0x00, 0xc1], "pshufb mm", BEFORE_SSSE3),
        row(32, &[0x66, 0x0f, 0x38, 0x17, 0xc1], "ptest", BEFORE_SSE4),
        row(32, &[0xf2, 0x0f, 0x38, 0xf0, 0xc1], "crc32", BEFORE_SSE4),
        row(32, &[0xc5, 0xf8, 0x58, 0xc1], "vaddps", BEFORE_AVX),
        row(32, &[0xc5, 0xfd, 0xfc, 0xc1], "vpaddb ymm", BEFORE_AVX),
        row(32, &[0x0f, 0x01, 0xd0], "xgetbv", BEFORE_AVX),
        row(64, &[0x48, 0x01, 0xc8], "add r64", WITHOUT_LONG_MODE),
        row(64, &[0x0f, 0x01, 0xf8], "swapgs", WITHOUT_LONG_MODE),
    ];

    fn code(bits: u32, bytes: &[u8], model: &CpuModel) -> Code {
        let options = options(model.vendor, model.features);
        Decoder::new(bits, bytes, options).decode().code()
    }

    #[test]
    fn each_model_has_the_instructions_of_its_time() {
        for row in ROWS {
            for model in MODELS {
                let has = has(model.features, code(row.bits, row.bytes, model));
                let absent = row.absent.contains(&model.name);
                assert_eq!(has, !absent, "{} of {}", row.name, model.name);
            }
        }
    }

    #[test]
    fn some_models_have_what_others_of_their_time_have_not() {
        let rows: &[(&[u8], &[&str])] = &[
            (&[0x0f, 0x0e], &["athlon", "phenom"]),             // FEMMS.
            (&[0x0f, 0x0f, 0xc1, 0x9e], &["athlon", "phenom"]), // PFADD.
            (&[0x0f, 0x0f, 0xc1, 0xbb], &["athlon", "phenom"]), // PSWAPD.
            (&[0xf2, 0x0f, 0x79, 0xc1], &["phenom"]),           // INSERTQ.
            (&[0xf3, 0x0f, 0xb8, 0xc1], &["phenom", "x86-64-v2", "x86-64-v3", "max"]), // POPCNT.
            (&[0x0f, 0x38, 0xf0, 0x00], &["n270", "x86-64-v3", "max"]), // MOVBE.
            (
                &[0x0f, 0x01, 0xc8], // MONITOR.
                &["coreduo", "core2duo", "phenom", "n270", "max"],
            ),
            (&[0x0f, 0x01, 0xf9], &["phenom", "max"]), // RDTSCP.
            (&[0x0f, 0x01, 0xca], &["max"]),           // CLAC.
        ];
        // What `max` has grows with the interpreter.
        let models = MODELS.iter().filter(|model| model.name != "max");
        for model in models {
            for (bytes, present) in rows {
                let has = has(model.features, code(32, bytes, model));
                assert_eq!(has, present.contains(&model.name), "{bytes:x?} of {}", model.name);
            }
        }
    }

    /// Intel SDM vol. 2, LZCNT and TZCNT: processors that do not have them execute BSR and BSF.
    #[test]
    fn lzcnt_and_tzcnt_are_bsr_and_bsf_to_those_that_do_not_have_them() {
        let lzcnt = |name| {
            let model = CpuModel::by_name(name).unwrap();
            code(32, &[0xf3, 0x0f, 0xbd, 0xc1], &model).mnemonic()
        };
        assert_eq!(["core2duo", "phenom"].map(lzcnt), [Mnemonic::Bsr, Mnemonic::Lzcnt]);
        let tzcnt = |name| {
            let model = CpuModel::by_name(name).unwrap();
            code(32, &[0xf3, 0x0f, 0xbc, 0xc1], &model).mnemonic()
        };
        assert_eq!(["phenom", "x86-64-v3"].map(tzcnt), [Mnemonic::Bsf, Mnemonic::Tzcnt]);
        let wbnoinvd = CpuModel::by_name("486").unwrap();
        assert_eq!(code(32, &[0xf3, 0x0f, 0x09], &wbnoinvd).mnemonic(), Mnemonic::Wbinvd);
    }

    #[test]
    fn every_group_is_listed_once() {
        for (n, (group, _)) in GROUPS.iter().enumerate() {
            assert!(GROUPS[n + 1..].iter().all(|(other, _)| other != group), "{group:?}");
        }
    }
}
