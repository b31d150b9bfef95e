//! What CPUID offers is there, and what it does not offer is not: each feature's instructions, bits
//! of control registers and MSRs, with the feature and without.
//!
//! Intel SDM vol. 2, CPUID and the exceptions of each instruction; AMD APM vol. 3, appendix D.

use trivium_cpu::bits::{cr4, efer};
use trivium_cpu::model::Feature::*;
use trivium_cpu::model::{CpuModel, FEATURES, Feature, FeatureSet, IMPLEMENTED};
use trivium_cpu::{Exit, Vector};

use crate::testing::{CODE, DATA, HANDLERS, TestMachine};

/// Something that a feature brings.
enum Sign {
    /// An instruction: #UD without the feature. Registers hold the address of data.
    Runs(&'static [u8]),
    /// One of 64-bit code.
    Runs64(&'static [u8]),
    /// A bit of CR4: #GP without.
    Cr4(u64),
    /// One that can be set in long mode.
    Cr4Long(u64),
    /// A bit of EFER: #GP without.
    Efer(u64),
    /// Bits of XCR0: #GP without.
    Xcr0(u64),
    /// What XGETBV gives for this ECX: #GP without.
    Xgetbv(u64),
    /// A bit of MXCSR: #GP without.
    Mxcsr(u32),
    /// An MSR: #GP without.
    Msr(u32),
    /// No instruction and no bit of a register; what else it is.
    Other(&'static str),
}
use Sign::{Cr4, Cr4Long, Efer, Mxcsr, Other, Runs, Runs64, Xcr0, Xgetbv};

/// Features; those that must be away too, since they bring the same; the sign.
type Row = (Feature, &'static [Feature], Sign);

const ROWS: &[Row] = &[
    (Fpu, &[], Runs(&[0xd9, 0xe8])),
    (Vme, &[], Cr4(cr4::VME)),
    (Vme, &[], Cr4(cr4::PVI)),
    (De, &[], Cr4(cr4::DE)),
    (Pse, &[], Cr4(cr4::PSE)),
    (Tsc, &[], Runs(&[0x0f, 0x31])),
    (Tsc, &[], Cr4(cr4::TSD)),
    (Feature::Msr, &[], Runs(&[0x0f, 0x32])),
    (Feature::Msr, &[], Runs(&[0x0f, 0x30])),
    (Pae, &[], Cr4(cr4::PAE)),
    (Mce, &[], Cr4(cr4::MCE)),
    (Cx8, &[], Runs(&[0x0f, 0xc7, 0x08])),
    (Apic, &[], Other("the machine has it")),
    (Sep, &[], Runs(&[0x0f, 0x34])),
    (Sep, &[], Runs(&[0x0f, 0x35])),
    (Sep, &[], Sign::Msr(0x174)),
    (Mtrr, &[], Sign::Msr(0x2ff)),
    (Pge, &[], Cr4(cr4::PGE)),
    (Mca, &[], Sign::Msr(0x179)),
    (Cmov, &[], Runs(&[0x0f, 0x44, 0xc1])),
    (Cmov, &[], Runs(&[0xdb, 0xf1])),
    (Pat, &[], Sign::Msr(0x277)),
    (Pse36, &[], Other("bits of page-directory entries")),
    (Clflush, &[], Runs(&[0x0f, 0xae, 0x38])),
    (Mmx, &[], Runs(&[0x0f, 0xfc, 0xc1])),
    (Mmx, &[], Runs(&[0x0f, 0x77])),
    (Fxsr, &[], Runs(&[0x0f, 0xae, 0x00])),
    (Fxsr, &[], Cr4(cr4::OSFXSR)),
    (Sse, &[], Runs(&[0x0f, 0x58, 0xc1])),
    (Sse, &[], Runs(&[0x0f, 0xae, 0x18])),
    (Sse, &[], Cr4(cr4::OSXMMEXCPT)),
    (Sse2, &[], Runs(&[0x66, 0x0f, 0x58, 0xc1])),
    (Sse2, &[], Runs(&[0x0f, 0xc3, 0x00])),
    (Sse2, &[], Mxcsr(1 << 6)),
    (Ss, &[], Other("a property of caches")),
    (Sse3, &[], Runs(&[0xf2, 0x0f, 0x7c, 0xc1])),
    (Sse3, &[], Runs(&[0xdb, 0x08])),
    (Pclmulqdq, &[], Runs(&[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0])),
    (Monitor, &[], Runs(&[0x0f, 0x01, 0xc8])),
    (Monitor, &[], Runs(&[0x0f, 0x01, 0xc9])),
    (Ssse3, &[], Runs(&[0x0f, 0x38, 0x00, 0xc1])),
    (Fma, &[], Runs(&[0xc4, 0xe2, 0x71, 0x98, 0xc2])),
    (Cx16, &[], Runs64(&[0x48, 0x0f, 0xc7, 0x08])),
    (Pcid, &[], Cr4Long(cr4::PCIDE)),
    (Sse41, &[], Runs(&[0x66, 0x0f, 0x38, 0x17, 0xc1])),
    (Sse42, &[], Runs(&[0x66, 0x0f, 0x38, 0x37, 0xc1])),
    (Sse42, &[], Runs(&[0xf2, 0x0f, 0x38, 0xf1, 0xc1])),
    (X2apic, &[], Other("the machine has it")),
    (Movbe, &[], Runs(&[0x0f, 0x38, 0xf0, 0x00])),
    (Popcnt, &[], Runs(&[0xf3, 0x0f, 0xb8, 0xc1])),
    (TscDeadline, &[], Other("the machine has it")),
    (Aes, &[], Runs(&[0x66, 0x0f, 0x38, 0xdc, 0xc1])),
    (Xsave, &[], Runs(&[0x0f, 0x01, 0xd0])),
    (Xsave, &[], Runs(&[0x0f, 0xae, 0x20])),
    (Xsave, &[], Cr4(cr4::OSXSAVE)),
    (Avx, &[], Runs(&[0xc5, 0xf8, 0x58, 0xc1])),
    (Avx, &[], Xcr0(7)),
    (F16c, &[], Runs(&[0xc4, 0xe2, 0x79, 0x13, 0xc1])),
    (Rdrand, &[], Runs(&[0x0f, 0xc7, 0xf0])),
    (Hypervisor, &[], Other("CPUID has leaves of the hypervisor")),
    (Arat, &[], Other("a property of the APIC's timer")),
    (Fsgsbase, &[], Runs64(&[0xf3, 0x0f, 0xae, 0xc0])),
    (Fsgsbase, &[], Cr4Long(cr4::FSGSBASE)),
    (TscAdjust, &[], Sign::Msr(0x3b)),
    (Bmi1, &[], Runs(&[0xc4, 0xe2, 0x70, 0xf2, 0xc2])),
    (Avx2, &[], Runs(&[0xc5, 0xfd, 0xfc, 0xc1])),
    (Smep, &[], Cr4(cr4::SMEP)),
    (Bmi2, &[], Runs(&[0xc4, 0xe2, 0x71, 0xf7, 0xc2])),
    (Erms, &[], Other("a promise of speed")),
    (Invpcid, &[], Runs(&[0x66, 0x0f, 0x38, 0x82, 0x00])),
    (Rdseed, &[], Runs(&[0x0f, 0xc7, 0xf8])),
    (Adx, &[], Runs(&[0x66, 0x0f, 0x38, 0xf6, 0xc1])),
    (Smap, &[], Runs(&[0x0f, 0x01, 0xca])),
    (Smap, &[], Cr4(cr4::SMAP)),
    (Clflushopt, &[], Runs(&[0x66, 0x0f, 0xae, 0x38])),
    (Clwb, &[], Runs(&[0x66, 0x0f, 0xae, 0x30])),
    (Sha, &[], Runs(&[0x0f, 0x38, 0xc8, 0xc1])),
    (Umip, &[], Cr4(cr4::UMIP)),
    (Pku, &[], Runs64(&[0x0f, 0x01, 0xee])),
    (Pku, &[], Cr4Long(cr4::PKE)),
    (Gfni, &[], Runs(&[0x66, 0x0f, 0x38, 0xcf, 0xc1])),
    (Vaes, &[], Runs(&[0xc4, 0xe2, 0x75, 0xdc, 0xc2])),
    (Vpclmulqdq, &[], Runs(&[0xc4, 0xe3, 0x75, 0x44, 0xc2, 0])),
    (La57, &[], Cr4(cr4::LA57)),
    (Rdpid, &[], Runs(&[0xf3, 0x0f, 0xc7, 0xf8])),
    (Movdiri, &[], Runs(&[0x0f, 0x38, 0xf9, 0x00])),
    (Movdir64b, &[], Runs(&[0x66, 0x0f, 0x38, 0xf8, 0x00])),
    (Fsrm, &[], Other("a promise of speed")),
    (Xsaveopt, &[], Runs(&[0x0f, 0xae, 0x30])),
    (Xsavec, &[], Runs(&[0x0f, 0xc7, 0x20])),
    (Xgetbv1, &[], Xgetbv(1)),
    (Xsaves, &[], Runs(&[0x0f, 0xc7, 0x28])),
    (Xsaves, &[], Sign::Msr(0xda0)),
    (Syscall, &[], Efer(efer::SCE)),
    (Syscall, &[], Sign::Msr(0xc000_0081)),
    (Nx, &[], Efer(efer::NXE)),
    (Mmxext, &[Sse], Runs(&[0x0f, 0x70, 0xc1, 0])),
    (FxsrOpt, &[], Efer(efer::FFXSR)),
    (Pdpe1gb, &[], Other("a bit of entries of the page-directory-pointer table")),
    (Rdtscp, &[], Runs(&[0x0f, 0x01, 0xf9])),
    (Rdtscp, &[Rdpid], Sign::Msr(0xc000_0103)),
    (Lm, &[], Efer(efer::LME)),
    (ThreeDNowExt, &[], Runs(&[0x0f, 0x0f, 0xc1, 0xbb])),
    (ThreeDNow, &[], Runs(&[0x0f, 0x0f, 0xc1, 0x9e])),
    (ThreeDNow, &[], Runs(&[0x0f, 0x0e])),
    (LahfLm, &[], Runs64(&[0x9f])),
    (LahfLm, &[], Runs64(&[0x9e])),
    (Cr8Legacy, &[], Runs(&[0xf0, 0x0f, 0x20, 0xc0])),
    (Abm, &[], Other("LZCNT is BSR without it")),
    (Sse4a, &[], Runs(&[0x66, 0x0f, 0x79, 0xc1])),
    (Sse4a, &[], Runs(&[0xf2, 0x0f, 0x78, 0xc1, 0, 0])),
    (Sse4a, &[], Runs(&[0xf3, 0x0f, 0x2b, 0x00])),
    (Misalignsse, &[], Mxcsr(1 << 17)),
    (Prefetchw, &[ThreeDNow, Cmov], Runs(&[0x0f, 0x0d, 0x08])),
    (Osvw, &[], Sign::Msr(0xc001_0140)),
    (Topoext, &[], Other("CPUID has leaves of its own")),
    (Invtsc, &[], Other("a property of the TSC")),
    (Clzero, &[], Runs(&[0x0f, 0x01, 0xfc])),
    (Xsaveerptr, &[], Other("FXSAVE and XSAVE have the x87 pointers always")),
    (Wbnoinvd, &[], Other("WBINVD without it")),
    (AmdSsbNo, &[], Other("does not speculate")),
    (BtcNo, &[], Other("does not speculate")),
    (NoNestedDataBp, &[], Other("does not speculate")),
    (LfenceRdtsc, &[], Other("does not speculate")),
    (NullSelClrBase, &[], Other("loads of null selectors")),
    (Autoibrs, &[], Efer(efer::AUTOIBRS)),
];

/// What the operating system allows wherever the model can.
const ALLOWED: u64 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE | cr4::FSGSBASE | cr4::PKE;

fn machine(model: &CpuModel, long: bool, code: &[u8]) -> TestMachine {
    let mut m = match long {
        true => TestMachine::long_with(*model, code),
        false => TestMachine::protected_with(*model, code),
    };
    m.set(|s| {
        let longs = if long { 0 } else { cr4::FSGSBASE | cr4::PKE };
        s.control.cr4 |= ALLOWED & !longs & model.cr4_mask();
        s.control.xcr0 = model.xcr0_mask().max(1);
        for n in (0..8).filter(|&n| n != 4) {
            s.general.regs[n] = DATA;
        }
    });
    m
}

/// The exception that the first instruction raises.
fn exception(mut m: TestMachine, prepare: impl FnOnce(&mut TestMachine)) -> Option<u8> {
    prepare(&mut m);
    assert!(matches!(m.run(1), Exit::Budget | Exit::Halted));
    let rip = m.state().general.rip;
    (rip.wrapping_sub(HANDLERS) < 0x1000).then(|| (rip.wrapping_sub(HANDLERS) >> 4) as u8)
}

/// Sets EAX, ECX and EDX.
fn registers(eax: u64, ecx: u64) -> impl FnOnce(&mut TestMachine) {
    move |m| {
        m.set(|s| {
            s.general.regs[0] = eax;
            s.general.regs[1] = ecx;
            s.general.regs[2] = 0;
        });
    }
}

/// Sets a bit of CR4.
fn with_cr4(m: TestMachine, bit: u64) -> Option<u8> {
    exception(m, |m| {
        let cr4 = m.state().control.cr4;
        m.set(|s| s.general.regs[0] = cr4 | bit);
    })
}

/// Whether the sign is there.
fn is_there(model: &CpuModel, sign: &Sign) -> bool {
    const WRMSR: [u8; 2] = [0x0f, 0x30];
    const RDMSR: [u8; 2] = [0x0f, 0x32];
    const MOV_CR4: [u8; 3] = [0x0f, 0x22, 0xe0];
    const LDMXCSR: [u8; 3] = [0x0f, 0xae, 0x10];
    let protected = |code: &[u8]| machine(model, false, code);
    let faults = match *sign {
        Runs(code) => exception(protected(code), |_| ()).filter(|&v| v == Vector::UD as u8),
        Runs64(code) => {
            exception(machine(model, true, code), |_| ()).filter(|&v| v == Vector::UD as u8)
        }
        Cr4(bit) => with_cr4(protected(&MOV_CR4), bit),
        Cr4Long(bit) => with_cr4(machine(model, true, &MOV_CR4), bit),
        Efer(bit) => exception(protected(&WRMSR), registers(bit, 0xc000_0080)),
        Sign::Msr(number) => exception(protected(&RDMSR), registers(0, number.into())),
        Xcr0(bits) => exception(protected(&[0x0f, 0x01, 0xd1]), registers(bits, 0)),
        Xgetbv(number) => exception(protected(&[0x0f, 0x01, 0xd0]), registers(0, number)),
        Mxcsr(bit) => exception(protected(&LDMXCSR), |m| m.put_u64(DATA, (0x1f80 | bit).into())),
        Other(what) => {
            assert!(!what.is_empty());
            return true;
        }
    };
    faults.is_none()
}

fn model(set: FeatureSet) -> CpuModel {
    CpuModel { features: set, ..TestMachine::model() }
}

#[test]
fn what_cpuid_offers_is_there_and_nothing_else() {
    for (feature, others, sign) in ROWS {
        if !IMPLEMENTED.has(*feature) {
            continue;
        }
        let mut with = TestMachine::model().features;
        with.enable(*feature);
        let mut without = with;
        for gone in others.iter().chain([feature]) {
            without.disable(*gone);
        }
        let name = feature.info().name;
        assert!(is_there(&model(with), sign), "{name} is offered and not there");
        if !matches!(sign, Other(_)) {
            assert!(!is_there(&model(without), sign), "{name} is there without being offered");
        }
    }
}

#[test]
fn every_implemented_feature_is_in_the_table() {
    for info in FEATURES.iter().filter(|info| IMPLEMENTED.has(info.feature)) {
        assert!(ROWS.iter().any(|row| row.0 == info.feature), "{}", info.name);
    }
}

#[test]
fn the_bits_of_cpuid_are_those_of_the_features() {
    // cpuid
    let offered = |set: FeatureSet, leaf: u32, subleaf: u32| {
        let mut m = TestMachine::protected_with(model(set), &[0x0f, 0xa2]);
        m.set(|s| {
            s.general.regs[0] = leaf.into();
            s.general.regs[1] = subleaf.into();
        });
        m.run(1);
        assert_eq!(m.state().general.rip, CODE + 2);
        [0, 3, 1, 2].map(|n| m.reg(n) as u32)
    };
    for info in FEATURES.iter().filter(|info| IMPLEMENTED.has(info.feature)) {
        let mut with = TestMachine::model().features;
        with.enable(info.feature);
        let mut without = with;
        without.disable(info.feature);
        let bit =
            |set| offered(set, info.leaf, info.subleaf)[info.register as usize] >> info.bit & 1;
        assert_eq!((bit(with), bit(without)), (1, 0), "{}", info.name);
    }
}
