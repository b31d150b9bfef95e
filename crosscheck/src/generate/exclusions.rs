//! Which encodings are left out, and why; everything else that iced knows is generated.

use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic};
use trivium_cpu::model::{Feature, FeatureSet};

/// Instructions whose results a case does not decide.
const NOT_DETERMINED: &[(&[Mnemonic], &str)] = &[
    (&[Mnemonic::Rdtsc, Mnemonic::Rdtscp], "reads a clock"),
    (&[Mnemonic::Rdrand, Mnemonic::Rdseed], "is random"),
    (&[Mnemonic::Rdpmc, Mnemonic::Rdpru], "reads a performance counter"),
    (&[Mnemonic::Cpuid, Mnemonic::Xgetbv], "tells what CPU it is"),
    (&[Mnemonic::Rdpid], "tells which processor it runs on"),
    (
        &[Mnemonic::Sgdt, Mnemonic::Sidt, Mnemonic::Sldt, Mnemonic::Str, Mnemonic::Smsw],
        "reads what the operating system has set up",
    ),
    (&[Mnemonic::Sysenter, Mnemonic::Sysexit], "ends outside of the case"),
    (
        &[Mnemonic::Vmcall, Mnemonic::Vmmcall, Mnemonic::Vmgexit, Mnemonic::Tdcall],
        "calls a hypervisor",
    ),
    (&[Mnemonic::Int1], "is reported differently under hypervisors"),
    (
        &[Mnemonic::Monitorx, Mnemonic::Mwaitx, Mnemonic::Umwait, Mnemonic::Tpause],
        "waits for what no case brings",
    ),
];

/// Why an encoding is left out whatever the CPU has.
pub(super) fn reason(code: Code) -> Option<&'static str> {
    let info = code.op_code();
    if !info.is_instruction() {
        return Some("is no instruction");
    }
    if info.fwait() {
        return Some("is WAIT and another instruction");
    }
    match info.encoding() {
        EncodingKind::EVEX => return Some("is AVX-512, which no CPU model has"),
        EncodingKind::MVEX => return Some("is of Knights Corner alone"),
        EncodingKind::XOP => return Some("is XOP, which no CPU model has"),
        _ => {}
    }
    let mnemonic = info.mnemonic();
    let found = NOT_DETERMINED.iter().find(|(mnemonics, _)| mnemonics.contains(&mnemonic));
    found.map(|(_, reason)| *reason)
}

/// What the CPU must have for instructions of a group of iced's, by the names of
/// [`Feature::from_name`]; a name that nothing bears is of a feature that no CPU model has.
const NEEDS: &[(CpuidFeature, &str)] = &[
    (CpuidFeature::ADX, "adx"),
    (CpuidFeature::AES, "aes"),
    (CpuidFeature::AVX, "avx"),
    (CpuidFeature::AVX2, "avx2"),
    (CpuidFeature::BMI1, "bmi1"),
    (CpuidFeature::BMI2, "bmi2"),
    (CpuidFeature::CLFLUSHOPT, "clflushopt"),
    (CpuidFeature::CLFSH, "clflush"),
    (CpuidFeature::CLWB, "clwb"),
    (CpuidFeature::CLZERO, "clzero"),
    (CpuidFeature::CMOV, "cmov"),
    (CpuidFeature::CMPXCHG16B, "cx16"),
    (CpuidFeature::CX8, "cx8"),
    (CpuidFeature::D3NOW, "3dnow"),
    (CpuidFeature::D3NOWEXT, "3dnowext"),
    (CpuidFeature::F16C, "f16c"),
    (CpuidFeature::FMA, "fma"),
    (CpuidFeature::FPU, "fpu"),
    (CpuidFeature::FPU387, "fpu"),
    (CpuidFeature::FPU287, "fpu"),
    (CpuidFeature::FSGSBASE, "fsgsbase"),
    (CpuidFeature::FXSR, "fxsr"),
    (CpuidFeature::GFNI, "gfni"),
    (CpuidFeature::INVPCID, "invpcid"),
    (CpuidFeature::LZCNT, "abm"),
    (CpuidFeature::MMX, "mmx"),
    (CpuidFeature::MONITOR, "monitor"),
    (CpuidFeature::MOVBE, "movbe"),
    (CpuidFeature::MSR, "msr"),
    (CpuidFeature::PCLMULQDQ, "pclmulqdq"),
    (CpuidFeature::PKU, "pku"),
    (CpuidFeature::POPCNT, "popcnt"),
    (CpuidFeature::PREFETCHW, "3dnowprefetch"),
    (CpuidFeature::SEP, "sep"),
    (CpuidFeature::SHA, "sha_ni"),
    (CpuidFeature::SMAP, "smap"),
    (CpuidFeature::SSE, "sse"),
    (CpuidFeature::SSE2, "sse2"),
    (CpuidFeature::SSE3, "sse3"),
    (CpuidFeature::SSE4_1, "sse4_1"),
    (CpuidFeature::SSE4_2, "sse4_2"),
    (CpuidFeature::SSE4A, "sse4a"),
    (CpuidFeature::SSSE3, "ssse3"),
    (CpuidFeature::SVM, "svm"),
    (CpuidFeature::SKINIT_or_SVM, "svm"),
    (CpuidFeature::SYSCALL, "syscall"),
    (CpuidFeature::VAES, "vaes"),
    (CpuidFeature::VPCLMULQDQ, "vpclmulqdq"),
    (CpuidFeature::WBNOINVD, "wbnoinvd"),
    (CpuidFeature::X64, "lm"),
    (CpuidFeature::XSAVE, "xsave"),
    (CpuidFeature::XSAVEC, "xsavec"),
    (CpuidFeature::XSAVEOPT, "xsaveopt"),
    (CpuidFeature::XSAVES, "xsaves"),
];

/// What every CPU that runs 64-bit code can do, or takes for NOP.
const EVERY: &[CpuidFeature] = &[
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::CET_IBT,
    CpuidFeature::CLDEMOTE,
    CpuidFeature::PREFETCHWT1,
    CpuidFeature::PREFETCHITI,
    CpuidFeature::SMM,
];

/// Whether a CPU with these features has the instruction.
pub(super) fn has(features: FeatureSet, code: Code) -> bool {
    code.cpuid_features().iter().all(|&group| {
        EVERY.contains(&group)
            || NEEDS
                .iter()
                .find(|(needing, _)| *needing == group)
                .and_then(|(_, name)| Feature::from_name(name))
                .is_some_and(|feature| features.has(feature))
    })
}
