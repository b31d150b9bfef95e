//! The CPU models. A model is data: to add one, add it to [`MODELS`].
//!
//! Family, model, stepping, brand and the leaves that are a model's own are those of a real CPU of
//! that kind, as dumps of its CPUID show; so are the features, without those that are not the
//! instruction set's (power, temperature, performance counters, debug store) and virtualization.
//! `qemu32` and `qemu64` are what QEMU 7.2 shows by these names.

use super::data::{BASE, MAX};
use super::features::Feature::{self, *};
use super::features::FeatureSet;
use super::{Cache, CacheKind, CpuModel, Vendor};

/// Intel486 with CPUID (AP-485). Real ones set no other bit.
const I486: &[Feature] = &[Fpu, Vme, Hypervisor];

/// Pentium processor with MMX technology.
const P5: FeatureSet =
    FeatureSet::of(I486).union(FeatureSet::of(&[De, Pse, Tsc, Msr, Mce, Cx8, Apic, Mmx]));

/// What the P6 family had from its Pentium II on, but for 36-bit pages.
const P6: FeatureSet = P5.union(FeatureSet::of(&[Pae, Sep, Mtrr, Pge, Mca, Cmov, Pat, Fxsr]));

/// Core Duo; and Atom, which has more.
const CORE: FeatureSet = P6.union(FeatureSet::of(&[Clflush, Sse, Sse2, Ss, Sse3, Monitor, Nx]));

/// First generation of AMD's K7: like P6, with 3DNow! and SYSCALL, before SSE.
const K7: FeatureSet = P6.union(FeatureSet::of(&[Pse36, Syscall, Mmxext, ThreeDNow, ThreeDNowExt]));

/// AMD's family 10h.
const K10: FeatureSet = K7.union(FeatureSet::of(BASE)).union(FeatureSet::of(&[
    Sse3,
    Monitor,
    Cx16,
    Popcnt,
    FxsrOpt,
    Pdpe1gb,
    Rdtscp,
    LahfLm,
    Cr8Legacy,
    Abm,
    Sse4a,
    Misalignsse,
    Prefetchw,
    Osvw,
    Invtsc,
]));

/// x86-64 psABI, 3.1.1, table 3.1: the levels of the micro-architecture. The first is what all
/// x86-64 CPUs have.
const V1: FeatureSet = FeatureSet::of(BASE).union(FeatureSet::of(&[Hypervisor]));
const V2: FeatureSet = V1.union(FeatureSet::of(&[Cx16, LahfLm, Popcnt, Sse3, Ssse3, Sse41, Sse42]));
const V3: FeatureSet =
    V2.union(FeatureSet::of(&[Xsave, Avx, Avx2, Bmi1, Bmi2, F16c, Fma, Abm, Movbe]));

const fn data(level: u8, size_kib: u32, ways: u32) -> Cache {
    Cache { level, kind: CacheKind::Data, size_kib, ways }
}

const fn code(level: u8, size_kib: u32, ways: u32) -> Cache {
    Cache { level, kind: CacheKind::Instruction, size_kib, ways }
}

const fn unified(level: u8, size_kib: u32, ways: u32) -> Cache {
    Cache { level, kind: CacheKind::Unified, size_kib, ways }
}

/// Caches as QEMU's models of the AMD line tell of them (and an Athlon 64 X2 had, but for L3).
const CACHES: &[Cache] =
    &[data(1, 64, 2), code(1, 64, 2), unified(2, 512, 16), unified(3, 16384, 16)];

/// What models of no particular CPU have in common. Family 15 of AMD is out of reach of Meltdown,
/// L1TF, MDS and store bypass, and kernels know it: the vulnerabilities that newer families are
/// suspected of would have them work around a speculation that does not happen. Model 107 stepping
/// 1 is an Athlon 64 X2 (Brisbane).
const GENERIC: CpuModel = CpuModel {
    name: "",
    description: "",
    vendor: Vendor::Amd,
    year: 2003,
    family: 15,
    model: 107,
    stepping: 1,
    features: V1,
    phys_bits: 40,
    max_leaf: 0xd,
    max_extended_leaf: 0x8000_000a,
    caches: CACHES,
    leaves: &[],
    brand: "",
};

/// What Intel's models have in common.
const INTEL: CpuModel = CpuModel {
    vendor: Vendor::Intel,
    family: 6,
    phys_bits: 32,
    max_extended_leaf: 0,
    caches: &[],
    ..GENERIC
};

/// All models.
pub const MODELS: &[CpuModel] = &[
    CpuModel {
        name: "486",
        description: "Intel486 DX4 with CPUID",
        year: 1994,
        family: 4,
        model: 8,
        stepping: 0,
        features: FeatureSet::of(I486),
        max_leaf: 1,
        ..INTEL
    },
    CpuModel {
        name: "pentium",
        description: "Intel Pentium with MMX (P55C)",
        year: 1996,
        family: 5,
        model: 4,
        stepping: 3,
        features: P5,
        max_leaf: 1,
        ..INTEL
    },
    CpuModel {
        name: "pentium2",
        description: "Intel Pentium II (Deschutes)",
        year: 1998,
        model: 5,
        stepping: 2,
        features: P6.union(FeatureSet::of(&[Pse36])),
        phys_bits: 36,
        max_leaf: 2,
        leaves: &[(0x2, [0x0302_0101, 0, 0, 0x0c04_0843])],
        ..INTEL
    },
    CpuModel {
        name: "pentium3",
        description: "Intel Pentium III (Katmai), its serial number disabled",
        year: 1999,
        model: 7,
        stepping: 3,
        features: P6.union(FeatureSet::of(&[Pse36, Sse])),
        phys_bits: 36,
        max_leaf: 3,
        leaves: &[(0x2, [0x0302_0101, 0, 0, 0x0c04_0843])],
        ..INTEL
    },
    CpuModel {
        name: "athlon",
        description: "AMD Athlon (K75), with 3DNow! and without SSE",
        year: 1999,
        family: 6,
        model: 2,
        stepping: 2,
        features: K7,
        phys_bits: 36,
        max_leaf: 1,
        max_extended_leaf: 0x8000_0006,
        caches: &[data(1, 64, 2), code(1, 64, 2), unified(2, 512, 2)],
        leaves: &[
            (0x8000_0005, [0x0408_ff08, 0xff18_ff10, 0x4002_0140, 0x4002_0140]),
            (0x8000_0006, [0, 0x4100_4100, 0x0200_2140, 0]),
        ],
        brand: "AMD Athlon(tm) Processor",
        ..GENERIC
    },
    CpuModel {
        name: "coreduo",
        description: "Intel Core Duo T2600 (Yonah)",
        year: 2006,
        model: 14,
        stepping: 8,
        features: CORE,
        max_leaf: 0xa,
        max_extended_leaf: 0x8000_0008,
        caches: &[data(1, 32, 8), code(1, 32, 8), unified(2, 2048, 8)],
        leaves: &[(0x2, [0x02b3_b001, 0x0000_00f0, 0, 0x2c04_307d])],
        brand: "Genuine Intel(R) CPU           T2600  @ 2.16GHz",
        ..INTEL
    },
    CpuModel {
        name: "core2duo",
        description: "Intel Core 2 Duo T7700 (Merom)",
        year: 2007,
        model: 15,
        stepping: 11,
        features: CORE.union(FeatureSet::of(&[Pse36, Ssse3, Cx16, Syscall, Lm, LahfLm])),
        phys_bits: 36,
        max_leaf: 0xa,
        max_extended_leaf: 0x8000_0008,
        caches: &[data(1, 32, 8), code(1, 32, 8), unified(2, 4096, 16)],
        leaves: &[(0x2, [0x05b0_b101, 0x0056_57f0, 0, 0x2cb4_3049])],
        brand: "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz",
        ..INTEL
    },
    CpuModel {
        name: "phenom",
        description: "AMD Phenom 9550 (Agena)",
        year: 2008,
        family: 16,
        model: 2,
        stepping: 3,
        features: K10,
        phys_bits: 48,
        max_leaf: 5,
        max_extended_leaf: 0x8000_001a,
        caches: &[data(1, 64, 2), code(1, 64, 2), unified(2, 512, 16), unified(3, 2048, 32)],
        leaves: &[
            (0x8000_0005, [0xff30_ff10, 0xff30_ff20, 0x4002_0140, 0x4002_0140]),
            (0x8000_0006, [0x2080_0000, 0x4200_4200, 0x0200_8140, 0x0010_a140]),
            (0x8000_0019, [0xf030_0000, 0, 0, 0]),
            (0x8000_001a, [3, 0, 0, 0]),
        ],
        brand: "AMD Phenom(tm) 9550 Quad-Core Processor",
        ..GENERIC
    },
    CpuModel {
        name: "n270",
        description: "Intel Atom N270 (Diamondville)",
        year: 2008,
        model: 28,
        stepping: 2,
        features: CORE.union(FeatureSet::of(&[Ssse3, Movbe, LahfLm])),
        max_leaf: 0xa,
        max_extended_leaf: 0x8000_0008,
        caches: &[data(1, 24, 6), code(1, 32, 8), unified(2, 512, 8)],
        leaves: &[
            (0x2, [0x4fba_5901, 0x0e30_80c0, 0, 0]),
            // As for sixteen ways, whatever leaf 4 says.
            (0x8000_0006, [0, 0, 0x0200_8040, 0]),
        ],
        brand: "Intel(R) Atom(TM) CPU N270   @ 1.60GHz",
        ..INTEL
    },
    CpuModel {
        name: "qemu32",
        description: "what QEMU's qemu32 offers: a 32-bit CPU with SSE3",
        year: 2004,
        model: 6,
        stepping: 3,
        features: P5
            .union(FeatureSet::of(&[Pae, Sep, Pge, Cmov, Pat, Fxsr, Sse, Sse2, Sse3]))
            .without(FeatureSet::of(&[Vme])),
        max_leaf: 4,
        max_extended_leaf: 0x8000_0004,
        caches: &[data(1, 32, 8), code(1, 32, 8), unified(2, 4096, 16), unified(3, 16384, 16)],
        leaves: &[(0x2, [0x0000_0001, 0, 0x0000_004d, 0x002c_307d])],
        brand: "QEMU Virtual CPU version 2.5+",
        ..INTEL
    },
    CpuModel {
        name: "qemu64",
        description: "what QEMU's qemu64 offers: the least that x86-64 guests expect",
        year: 2006,
        features: V1.union(FeatureSet::of(&[Sse3, Cx16, LahfLm])),
        brand: "QEMU Virtual CPU version 2.5+",
        ..GENERIC
    },
    CpuModel {
        name: "x86-64-v1",
        description: "the first level of x86-64: what all such CPUs have",
        features: V1,
        brand: "Trivium x86-64-v1",
        ..GENERIC
    },
    CpuModel {
        name: "x86-64-v2",
        description: "the second level of x86-64, to SSE4.2",
        year: 2008,
        features: V2,
        brand: "Trivium x86-64-v2",
        ..GENERIC
    },
    CpuModel {
        name: "x86-64-v3",
        description: "the third level of x86-64, to AVX2",
        year: 2013,
        features: V3,
        brand: "Trivium x86-64-v3",
        ..GENERIC
    },
    CpuModel {
        name: "max",
        description: "the most that the interpreter offers",
        year: 2022,
        features: FeatureSet::of(BASE).union(FeatureSet::of(MAX)),
        max_leaf: 0x1f,
        max_extended_leaf: 0x8000_0021,
        brand: "Trivium Virtual CPU",
        ..GENERIC
    },
];
