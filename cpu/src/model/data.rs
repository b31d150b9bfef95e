//! The CPU models. A model is data: to add one, add a line to [`MODELS`].

use super::features::Feature::{self, *};
use super::features::FeatureSet;
use super::{Cache, CacheKind, CpuModel, Vendor};

/// What every x86-64 CPU has (QEMU's `PPRO_FEATURES` and long mode).
const BASE: &[Feature] = &[
    Fpu, De, Pse, Tsc, Msr, Pae, Mce, Cx8, Apic, Sep, Mtrr, Pge, Mca, Cmov, Pat, Pse36, Clflush,
    Mmx, Fxsr, Sse, Sse2, Syscall, Nx, Lm,
];

/// What `max` has besides: all that the project's own CPUs implement. One feature a line, so that
/// it is one line to add what the interpreter learns.
#[rustfmt::skip]
const MAX: &[Feature] = &[
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
    Fsrm,
    Pdpe1gb,
    Rdtscp,
    LahfLm,
    Cr8Legacy,
    Abm,
    Prefetchw,
    Osvw,
    Topoext,
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
];

/// All that the project's own CPUs implement.
pub const IMPLEMENTED: FeatureSet =
    FeatureSet::of(BASE).union(FeatureSet::of(MAX)).union(FeatureSet::of(ON_REQUEST));

/// Caches as QEMU's models of the AMD line tell of them (and an Athlon 64 X2 had, but for L3).
const CACHES: &[Cache] = &[
    Cache { level: 1, kind: CacheKind::Data, size_kib: 64, ways: 2 },
    Cache { level: 1, kind: CacheKind::Instruction, size_kib: 64, ways: 2 },
    Cache { level: 2, kind: CacheKind::Unified, size_kib: 512, ways: 16 },
    Cache { level: 3, kind: CacheKind::Unified, size_kib: 16384, ways: 16 },
];

/// All models.
pub const MODELS: &[CpuModel] = &[
    CpuModel {
        name: "qemu64",
        description: "what QEMU's qemu64 offers: the least that x86-64 guests expect",
        vendor: Vendor::Amd,
        year: 2006,
        // Family 15 of AMD is out of reach of Meltdown, L1TF, MDS and store bypass, and kernels
        // know it. Model 107 stepping 1 is an Athlon 64 X2 (Brisbane).
        family: 15,
        model: 107,
        stepping: 1,
        features: FeatureSet::of(BASE).union(FeatureSet::of(&[Sse3, Cx16, LahfLm, Hypervisor])),
        phys_bits: 40,
        max_leaf: 0xd,
        max_extended_leaf: 0x8000_000a,
        caches: CACHES,
        brand: "QEMU Virtual CPU version 2.5+",
    },
    CpuModel {
        name: "max",
        description: "the most that the interpreter offers",
        vendor: Vendor::Amd,
        year: 2006,
        // As qemu64, for the same reason: the vulnerabilities that newer families are suspected of
        // would have kernels work around a speculation that does not happen.
        family: 15,
        model: 107,
        stepping: 1,
        features: FeatureSet::of(BASE).union(FeatureSet::of(MAX)),
        phys_bits: 40,
        max_leaf: 0x1f,
        max_extended_leaf: 0x8000_0021,
        caches: CACHES,
        brand: "Trivium Virtual CPU",
    },
];
