//! What the project's own CPUs implement. To offer what the interpreter learns, add a line.

use super::features::Feature::{self, *};
use super::features::FeatureSet;

/// What every x86-64 CPU has (QEMU's `PPRO_FEATURES` and long mode).
pub(super) const BASE: &[Feature] = &[
    Fpu, De, Pse, Tsc, Msr, Pae, Mce, Cx8, Apic, Sep, Mtrr, Pge, Mca, Cmov, Pat, Pse36, Clflush,
    Mmx, Fxsr, Sse, Sse2, Syscall, Nx, Lm,
];

/// What `max` has besides: all that the project's own CPUs implement. One feature a line, so that
/// it is one line to add what the interpreter learns.
#[rustfmt::skip]
pub(super) const MAX: &[Feature] = &[
    Vme,
    Sse3,
    Ssse3,
    Sse41,
    Sse42,
    Xsave,
    Xsaveopt,
    Xsavec,
    Xgetbv1,
    Xsaves,
    Avx,
    Avx2,
    Fma,
    F16c,
    Bmi1,
    Bmi2,
    Aes,
    Pclmulqdq,
    Sha,
    Vaes,
    Vpclmulqdq,
    Monitor,
    Cx16,
    Pcid,
    X2apic,
    Movbe,
    Popcnt,
    TscDeadline,
    Rdrand,
    Hypervisor,
    Arat,
    Fsgsbase,
    TscAdjust,
    Smep,
    Erms,
    Invpcid,
    Rdseed,
    Adx,
    Smap,
    Umip,
    Rdpid,
    Movdiri,
    Movdir64b,
    Clflushopt,
    Clwb,
    Clzero,
    Wbnoinvd,
    Fsrm,
    Pdpe1gb,
    Rdtscp,
    LahfLm,
    Cr8Legacy,
    Abm,
    Sse4a,
    Mmxext,
    FxsrOpt,
    Misalignsse,
    Prefetchw,
    Osvw,
    Topoext,
    Xsaveerptr,
    Invtsc,
    // The CPU does not speculate; these say so to kernels that look no further than CPUID.
    AmdSsbNo,
    BtcNo,
    NoNestedDataBp,
    LfenceRdtsc,
    NullSelClrBase,
    Autoibrs,
];

/// What is implemented but in no model: it must be asked for with `+`.
#[rustfmt::skip]
const ON_REQUEST: &[Feature] = &[
    // Five levels of page tables cost every guest that uses them time and gain small ones nothing.
    La57,
    // Self-snoop: there are no caches that could disagree. No processor of AMD's says so.
    Ss,
    // AMD took it out of its processors in 2011.
    ThreeDNow,
    ThreeDNowExt,
];

/// All that the project's own CPUs implement.
pub const IMPLEMENTED: FeatureSet =
    FeatureSet::of(BASE).union(FeatureSet::of(MAX)).union(FeatureSet::of(ON_REQUEST));
