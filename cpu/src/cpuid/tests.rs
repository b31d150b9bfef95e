//! Tests of what CPUID answers.

use super::*;

fn context() -> CpuidContext {
    CpuidContext {
        apic_id: 0,
        cpus: 1,
        apic_enabled: true,
        code64: true,
        osxsave: false,
        pke: false,
        xcr0: 1,
        xss: 0,
        tsc_hz: 2_000_000_000,
        apic_hz: 1_000_000_000,
    }
}

fn model(name: &str) -> CpuModel {
    CpuModel::by_name(name).unwrap()
}

/// Dumped in a guest of QEMU 7.2.22 with `-accel tcg -cpu qemu64,-svm`.
#[test]
fn qemu64_answers_as_qemus() {
    let table = [
        (0x0, 0, [0x0000_000d, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (0x1, 0, [0x0006_0fb1, 0x0000_0800, 0x8000_2001, 0x078b_fbfd]),
        (0x6, 0, [0; 4]),
        (0x7, 0, [0; 4]),
        (0xb, 0, [0, 1, 0x100, 0]),
        (0xb, 1, [0, 1, 0x201, 0]),
        (0xd, 0, [0; 4]),
        (0x20, 0, [0; 4]),
        (0x8000_0000, 0, [0x8000_000a, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (0x8000_0001, 0, [0x0006_0fb1, 0, 0x0000_0001, 0x2193_fbfd]),
        (0x8000_0002, 0, [0x554d_4551, 0x7269_5620, 0x6c61_7574, 0x5550_4320]),
        (0x8000_0003, 0, [0x7265_7620, 0x6e6f_6973, 0x352e_3220, 0x0000_002b]),
        (0x8000_0004, 0, [0; 4]),
        (0x8000_0005, 0, [0x01ff_01ff, 0x01ff_01ff, 0x4002_0140, 0x4002_0140]),
        (0x8000_0006, 0, [0, 0x4200_4200, 0x0200_8140, 0x0080_8140]),
        (0x8000_0008, 0, [0x3028, 0, 0, 0]),
        (0x8000_001d, 0, [0; 4]),
        (0x8000_0030, 0, [0; 4]),
    ];
    for (leaf, subleaf, expected) in table {
        let answer = model("qemu64").cpuid(leaf, subleaf, &context());
        assert_eq!(answer, expected, "{leaf:#x}.{subleaf}");
    }
}

#[test]
fn bits_that_follow_the_state_do() {
    let max = model("max");
    let with = CpuidContext { osxsave: true, apic_enabled: false, ..context() };
    let (off, on) = (max.cpuid(1, 0, &context()), max.cpuid(1, 0, &with));
    assert_eq!(off[2] ^ on[2], 1 << 27, "OSXSAVE");
    assert_eq!(off[3] ^ on[3], 1 << 9, "APIC");
    let with = CpuidContext { pke: true, ..context() };
    assert_eq!(max.cpuid(7, 0, &context())[2] ^ max.cpuid(7, 0, &with)[2], 1 << 4);
}

#[test]
fn leaves_beyond_the_end_are_zero_on_amd_and_the_last_on_intel() {
    let max = model("max");
    for leaf in [0x20, 0xd_0000, 0x1000_0000, 0x4000_0011, 0x8000_0022, u32::MAX] {
        assert_eq!(max.cpuid(leaf, 0, &context()), [0; 4], "{leaf:#x}");
    }
    let intel = CpuModel { vendor: Vendor::Intel, max_leaf: 0x16, ..max };
    let last = intel.cpuid(0x16, 0, &context());
    assert_eq!(last, [2000, 2000, 1000, 0]);
    for leaf in [0x17, 0x1000_0000, 0x8000_0022] {
        assert_eq!(intel.cpuid(leaf, 0, &context()), last, "{leaf:#x}");
    }
}

#[test]
fn frequencies_are_told_as_ratio_and_in_kilohertz() {
    let max = model("max");
    assert_eq!(max.cpuid(0x15, 0, &context()), [1, 2, 1_000_000_000, 0]);
    assert_eq!(max.cpuid(0x4000_0010, 0, &context()), [2_000_000, 1_000_000, 0, 0]);
    let stopped = CpuidContext { tsc_hz: 0, apic_hz: 0, ..context() };
    assert_eq!(max.cpuid(0x15, 0, &stopped), [0; 4]);
    let huge = CpuidContext { tsc_hz: u64::MAX, apic_hz: u64::MAX - 1, ..context() };
    assert_eq!(max.cpuid(0x15, 0, &huge), [0; 4]);
}

#[test]
fn the_hypervisors_leaves_need_its_bit() {
    let max = model("max");
    assert_eq!(max.cpuid(0x4000_0000, 0, &context())[0], 0x4000_0010);
    let bare = CpuModel::parse("max,-hypervisor").unwrap();
    assert_eq!(bare.cpuid(0x4000_0000, 0, &context()), [0; 4]);
}

#[test]
fn topology_counts_processors_and_the_bits_that_number_them() {
    let six = CpuidContext { cpus: 6, apic_id: 5, ..context() };
    let max = model("max");
    assert_eq!(max.cpuid(0xb, 0, &six), [0, 1, 0x100, 5]);
    assert_eq!(max.cpuid(0xb, 1, &six), [3, 6, 0x201, 5]);
    assert_eq!(max.cpuid(0xb, 2, &six), [0, 0, 2, 5]);
    assert_eq!(max.cpuid(0x1f, 1, &six), max.cpuid(0xb, 1, &six));
    assert_eq!(max.cpuid(0x8000_0008, 0, &six)[2], 3 << 12 | 5);
    assert_eq!(max.cpuid(1, 0, &six)[1], 0x0506_0800);
    assert_eq!(max.cpuid(0x8000_001d, 3, &six)[0] >> 14, 5, "L3 is common to all six");
    assert_eq!(max.cpuid(0x8000_001d, 4, &six), [0; 4]);
    // 64 KiB in two ways of 64-byte lines: 512 sets.
    assert_eq!(max.cpuid(0x8000_001d, 0, &six), [0x121, 0x0040_003f, 511, 0]);
}

#[test]
fn the_extended_state_area_has_the_sizes_of_sdm_vol_1_13_5() {
    let mut features = model("qemu64").features;
    for f in [Feature::Avx, Feature::Pku, Feature::Xsavec] {
        features.enable(f);
    }
    let avx = CpuModel { features, ..model("qemu64") };
    let with = CpuidContext { xcr0: 7, ..context() };
    assert_eq!(avx.cpuid(0xd, 0, &with), [0x207, 832, 2696, 0]);
    assert_eq!(avx.cpuid(0xd, 0, &context())[1], 576);
    assert_eq!(avx.cpuid(0xd, 1, &with), [2, 832, 0, 0]);
    assert_eq!(avx.cpuid(0xd, 2, &with), [256, 576, 0, 0]);
    assert_eq!(model("qemu64").cpuid(0xd, 0, &context()), [0; 4]);
}

#[test]
fn features_read_back_from_the_answers_are_the_models() {
    for model in crate::model::MODELS {
        let read = features_of(|leaf, subleaf| model.cpuid(leaf, subleaf, &context()));
        assert_eq!(read, model.features, "{}", model.name);
    }
}

/// The answers of real CPUs, as dumps of each (InstLatx64, libcpuid) have them: leaf and answer.
const REAL: &[(&str, &[(u32, Answer)])] = &[
    ("486", &[(0x1, [0x0480, 0, 0, 0x0000_0003])]),
    ("pentium", &[(0x1, [0x0543, 0, 0, 0x0080_03bf])]),
    (
        // Of a stepping later.
        "pentium2",
        &[
            (0x0, [2, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
            (0x1, [0x0652, 0, 0, 0x0183_fbff]),
            (0x2, [0x0302_0101, 0, 0, 0x0c04_0843]),
        ],
    ),
    (
        "pentium3",
        &[
            (0x0, [3, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
            (0x1, [0x0673, 0, 0, 0x0387_fbff]),
            (0x2, [0x0302_0101, 0, 0, 0x0c04_0843]),
        ],
    ),
    (
        "athlon",
        &[
            (0x0, [1, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            (0x1, [0x0622, 0, 0, 0x0183_fbff]),
            (0x8000_0000, [0x8000_0006, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            (0x8000_0001, [0x0722, 0, 0, 0xc1c3_fbff]),
            (0x8000_0002, [0x2044_4d41, 0x6c68_7441, 0x7428_6e6f, 0x5020_296d]),
            (0x8000_0003, [0x6563_6f72, 0x726f_7373, 0, 0]),
            (0x8000_0004, [0; 4]),
            (0x8000_0005, [0x0408_ff08, 0xff18_ff10, 0x4002_0140, 0x4002_0140]),
            (0x8000_0006, [0, 0x4100_4100, 0x0200_2140, 0]),
        ],
    ),
    (
        "coreduo",
        &[
            (0x0, [0xa, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
            (0x1, [0x06e8, 0x0800, 0x0000_c1a9, 0xbfe9_fbff]),
            (0x2, [0x02b3_b001, 0x0000_00f0, 0, 0x2c04_307d]),
            (0x8000_0000, [0x8000_0008, 0, 0, 0]),
            (0x8000_0001, [0, 0, 0, 0x0010_0000]),
            (0x8000_0002, [0x756e_6547, 0x2065_6e69, 0x6574_6e49, 0x2952_286c]),
            (0x8000_0003, [0x5550_4320, 0x2020_2020, 0x2020_2020, 0x5420_2020]),
            (0x8000_0005, [0; 4]),
            (0x8000_0006, [0, 0, 0x0800_6040, 0]),
            (0x8000_0008, [0x2020, 0, 0, 0]),
        ],
    ),
    (
        "core2duo",
        &[
            (0x0, [0xa, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
            (0x1, [0x06fb, 0x0800, 0x0000_e3bd, 0xbfeb_fbff]),
            (0x2, [0x05b0_b101, 0x0056_57f0, 0, 0x2cb4_3049]),
            (0x8000_0000, [0x8000_0008, 0, 0, 0]),
            (0x8000_0001, [0, 0, 1, 0x2010_0800]),
            (0x8000_0002, [0x6574_6e49, 0x2952_286c, 0x726f_4320, 0x4d54_2865]),
            (0x8000_0003, [0x4420_3229, 0x4320_6f75, 0x2020_5550, 0x5420_2020]),
            (0x8000_0006, [0, 0, 0x1000_8040, 0]),
            (0x8000_0008, [0x3024, 0, 0, 0]),
        ],
    ),
    (
        "phenom",
        &[
            (0x0, [5, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            (0x1, [0x0010_0f23, 0x0800, 0x0080_2009, 0x178b_fbff]),
            (0x8000_0000, [0x8000_001a, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            (0x8000_0001, [0x0010_0f23, 0, 0x0000_07ff, 0xefd3_fbff]),
            (0x8000_0005, [0xff30_ff10, 0xff30_ff20, 0x4002_0140, 0x4002_0140]),
            (0x8000_0006, [0x2080_0000, 0x4200_4200, 0x0200_8140, 0x0010_a140]),
            (0x8000_0019, [0xf030_0000, 0, 0, 0]),
            (0x8000_001a, [3, 0, 0, 0]),
        ],
    ),
    (
        // An Atom 330, which has 64-bit mode.
        "n270",
        &[
            (0x0, [0xa, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
            (0x1, [0x0001_06c2, 0x0800, 0x0040_c31d, 0xbfe9_fbff]),
            (0x2, [0x4fba_5901, 0x0e30_80c0, 0, 0]),
            (0x8000_0001, [0, 0, 1, 0x0010_0000]),
            (0x8000_0006, [0, 0, 0x0200_8040, 0]),
        ],
    ),
];

/// What real ones have in leaf 1 and no model offers: DTES64, DS_CPL, VMX, EST, TM2, xTPR, PDCM; PSN,
/// DS, ACPI, HTT, TM, PBE. In leaf 8000_0001h: CmpLegacy, SVM, ExtApicSpace, IBS.
const NEVER: &[(u32, Answer)] =
    &[(0x1, [0, 0, 0x0000_c1b4, 0xb064_0000]), (0x8000_0001, [0, 0, 0x0000_040e, 0])];

#[test]
fn models_of_real_cpus_answer_as_those_do() {
    const HYPERVISOR: u32 = 1 << 31;
    for (name, answers) in REAL {
        for &(leaf, real) in *answers {
            let mut ours = model(name).cpuid(leaf, 0, &context());
            if leaf == 1 {
                ours[2] &= !HYPERVISOR;
            }
            let never = NEVER.iter().find(|n| n.0 == leaf).map_or([0; 4], |n| n.1);
            let expected: Vec<u32> = real.iter().zip(never).map(|(r, n)| r & !n).collect();
            assert_eq!(ours.to_vec(), expected, "{name} {leaf:#x}: {ours:x?} {expected:x?}");
        }
    }
}

/// Merom and Yonah, of two processors that share their L2; an Atom 330, of two threads.
#[test]
fn models_of_real_cpus_have_their_caches() {
    let two = CpuidContext { cpus: 2, ..context() };
    let parameters = |name| [0, 1, 2, 3].map(|n| model(name).cpuid(4, n, &two));
    // Which processors share a cache is the machine's matter.
    let table = [
        (
            "core2duo",
            [
                [0x121, 0x01c0_003f, 0x3f, 1],
                [0x122, 0x01c0_003f, 0x3f, 1],
                [0x143, 0x03c0_003f, 0xfff, 1],
            ],
        ),
        (
            "coreduo",
            [
                [0x121, 0x01c0_003f, 0x3f, 1],
                [0x122, 0x01c0_003f, 0x3f, 1],
                [0x143, 0x01c0_003f, 0xfff, 1],
            ],
        ),
        (
            "n270",
            [
                [0x121, 0x0140_003f, 0x3f, 1],
                [0x122, 0x01c0_003f, 0x3f, 1],
                [0x143, 0x01c0_003f, 0x3ff, 1],
            ],
        ),
    ];
    for (name, expected) in table {
        let mut ours = parameters(name);
        for answer in &mut ours {
            answer[0] &= 0x3fff;
        }
        assert_eq!(ours[..3], expected, "{name}");
        assert_eq!(ours[3], [0; 4], "{name}");
    }
}

/// Dumped in a guest of QEMU 7.2.22 with `-accel tcg -cpu qemu32`; but leaf 8000_0000h, where no CPU
/// of Intel's gives its name.
#[test]
fn qemu32_answers_as_qemus() {
    let table = [
        (0x0, [4, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
        (0x2, [1, 0, 0x4d, 0x002c_307d]),
        (0x4, [0x121, 0x01c0_003f, 0x3f, 1]),
        (0x5, [0x121, 0x01c0_003f, 0x3f, 1]),
        (0x8000_0000, [0x8000_0004, 0, 0, 0]),
        (0x8000_0002, [0x554d_4551, 0x7269_5620, 0x6c61_7574, 0x5550_4320]),
        (0x8000_0003, [0x7265_7620, 0x6e6f_6973, 0x352e_3220, 0x0000_002b]),
        (0x8000_0008, [0x121, 0x01c0_003f, 0x3f, 1]),
    ];
    for (leaf, expected) in table {
        assert_eq!(model("qemu32").cpuid(leaf, 0, &context()), expected, "{leaf:#x}");
    }
    let [eax, _, ecx, edx] = model("qemu32").cpuid(1, 0, &context());
    assert_eq!([eax, ecx, edx], [0x663, 0x8000_0001, 0x0781_abfd]);
}

#[test]
fn intels_cpus_show_syscall_to_64_bit_code_alone() {
    let legacy = CpuidContext { code64: false, ..context() };
    let edx = |name, context: &_| model(name).cpuid(0x8000_0001, 0, context)[3] >> 11 & 1;
    assert_eq!((edx("core2duo", &context()), edx("core2duo", &legacy)), (1, 0));
    assert_eq!((edx("qemu64", &context()), edx("qemu64", &legacy)), (1, 1));
    assert_eq!(edx("athlon", &legacy), 1);
}

#[test]
fn a_feature_that_is_added_raises_the_highest_leaf() {
    let model = CpuModel::parse("pentium3,+smep,+rdtscp").unwrap();
    assert_eq!(model.cpuid(0, 0, &context())[0], 7);
    assert_eq!(model.cpuid(7, 0, &context())[1], 1 << 7);
    assert_eq!(model.cpuid(0x8000_0000, 0, &context())[0], 0x8000_0001);
    assert_eq!(model.cpuid(0x8000_0001, 0, &context())[3], 1 << 27);
}
