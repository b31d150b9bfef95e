//! Tests of CPU models.

use super::*;

#[test]
fn a_specification_adds_and_takes_features() {
    let model = CpuModel::parse("qemu64,+pcid,-sse3").unwrap();
    assert!(model.has(Feature::Pcid) && !model.has(Feature::Sse3));
    assert!(CpuModel::parse("max,smap=off").is_ok_and(|m| !m.has(Feature::Smap)));
    assert!(CpuModel::parse("max,+la57").is_ok_and(|m| m.linear_bits() == 57));
}

#[test]
fn errors_name_what_is_wrong_and_what_would_be_right() {
    let error = |spec| CpuModel::parse(spec).unwrap_err().to_string();
    assert_eq!(
        error("nehalem"),
        "Unknown CPU model 'nehalem'; there are 486, pentium, pentium2, pentium3, athlon, coreduo, \
         core2duo, phenom, n270, qemu32, qemu64, x86-64-v1, x86-64-v2, x86-64-v3, max"
    );
    assert_eq!(error("max,+smepp"), "Unknown CPU feature 'smepp'; did you mean smep?");
    assert_eq!(
        error("max,+zzzzzzzz"),
        "Unknown CPU feature 'zzzzzzzz'; 'trivium models' lists them"
    );
    assert_eq!(error("qemu64,+svm"), "CPU feature 'svm' is not implemented; leave out +svm");
    assert_eq!(
        error("qemu64,+pcid,-lm"),
        "CPU feature 'pcid' is both asked for and taken away; drop one of the two"
    );
    assert_eq!(error("max,smep"), "'smep' in a CPU model is neither +FEATURE nor -FEATURE");
    assert!(CpuModel::parse("").is_err());
    assert!(CpuModel::parse(&format!("max,+{}", "x".repeat(1 << 20))).is_err());
}

#[test]
fn every_model_has_what_its_features_need() {
    for model in MODELS {
        assert!(model.brand.len() <= 47);
        for info in model.features.iter() {
            let missing = info.needs.iter().find(|n| !model.has(**n));
            assert_eq!(missing, None, "{} of {}", info.name, model.name);
        }
    }
}

#[test]
fn every_model_can_be_had_whole() {
    for model in MODELS {
        assert_eq!(model.lacking(), FeatureSet::EMPTY, "{}", model.name);
    }
}

#[test]
fn a_cpu_that_lacks_something_has_models_without_it() {
    let mut available = IMPLEMENTED;
    for gone in [Feature::ThreeDNow, Feature::Sse4a] {
        available.disable(gone);
    }
    for name in ["athlon", "phenom"] {
        let error = CpuModel::parse_for(name, available).unwrap_err().to_string();
        assert!(error.starts_with(&format!("CPU model '{name}' has what is not")), "{error}");
        let (_, instead) = error.split_once("; use ").unwrap();
        let with_less = CpuModel::parse_for(instead, available).unwrap();
        assert_eq!(with_less.features.without(available), FeatureSet::EMPTY, "{error}");
    }
}

#[test]
fn qemu64_is_family_15_model_107_stepping_1() {
    // CPUID of QEMU's qemu64: EAX of leaf 1.
    assert_eq!(CpuModel::by_name("qemu64").unwrap().signature(), 0x0006_0fb1);
}

#[test]
fn settable_bits_of_control_registers_follow_the_features() {
    let max = CpuModel::by_name("max").unwrap();
    let efer = efer::SCE | efer::LME | efer::LMA | efer::NXE | efer::FFXSR | efer::AUTOIBRS;
    assert_eq!(max.efer_mask(), efer);
    assert_ne!(max.cr4_mask() & cr4::SMAP, 0);
    assert_eq!(max.cr4_mask() & (cr4::LA57 | cr4::PKE), 0);
    let less = CpuModel::parse("max,-smap").unwrap();
    assert_eq!(less.cr4_mask() ^ max.cr4_mask(), cr4::SMAP);
}

/// Intel SDM vol. 3A, 2.5: bits that a CPU does not have are reserved.
#[test]
fn old_cpus_have_few_bits_in_cr4_and_none_in_efer() {
    let model = |name| CpuModel::by_name(name).unwrap();
    assert_eq!(model("486").cr4_mask(), cr4::VME | cr4::PVI);
    let pentium = cr4::VME | cr4::PVI | cr4::TSD | cr4::DE | cr4::PSE | cr4::MCE | cr4::PCE;
    assert_eq!(model("pentium").cr4_mask(), pentium);
    let pentium2 = pentium | cr4::PAE | cr4::PGE | cr4::OSFXSR;
    assert_eq!(model("pentium2").cr4_mask(), pentium2);
    assert_eq!(model("pentium3").cr4_mask(), pentium2 | cr4::OSXMMEXCPT);
    assert_eq!(model("core2duo").cr4_mask(), pentium2 | cr4::OSXMMEXCPT);
    let efer = ["486", "pentium", "pentium3", "athlon", "coreduo"].map(|n| model(n).efer_mask());
    assert_eq!(efer, [0, 0, 0, efer::SCE, efer::NXE]);
    assert_eq!(model("core2duo").efer_mask(), efer::SCE | efer::NXE | efer::LME | efer::LMA);
    assert_eq!(model("x86-64-v3").xcr0_mask(), 7);
    assert_eq!(model("phenom").xcr0_mask(), 0);
}

#[test]
fn mxcsr_and_rflags_have_the_bits_of_the_cpus_features() {
    let model = |name| CpuModel::by_name(name).unwrap();
    let mxcsr = ["pentium2", "pentium3", "coreduo", "phenom"].map(|n| model(n).mxcsr_mask());
    assert_eq!(mxcsr, [0, 0xffbf, 0xffff, 0x2_ffff]);
    assert_eq!(model("486").rflags_mask(), rflags::ALL);
    assert_eq!(model("qemu64").rflags_mask(), rflags::ALL & !(rflags::VIF | rflags::VIP));
}

/// What EDX holds after RESET#, as CPUID says (Intel SDM vol. 3A, 9.1.2; AMD APM vol. 2, 14.1.3).
#[test]
fn edx_holds_family_model_and_stepping_after_reset() {
    let edx = |name| crate::CpuState::reset(&CpuModel::by_name(name).unwrap()).general.regs[2];
    let names = ["486", "pentium", "pentium2", "pentium3", "athlon", "phenom", "n270"];
    assert_eq!(names.map(edx), [0x480, 0x543, 0x652, 0x673, 0x622, 0x10_0f23, 0x1_06c2]);
}
