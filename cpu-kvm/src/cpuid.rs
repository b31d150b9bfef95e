//! What a guest's CPUID tells under KVM: the model's answers, held against what the kernel offers
//! and what it makes of them.

use std::arch::x86_64::__cpuid_count;

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use trivium_cpu::model::{CpuModel, FEATURES, Feature, FeatureInfo, Register};
use trivium_cpu::{CpuidContext, FeatureSet};

use crate::error::KvmError;

/// What of the platform CPUID tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Local APIC ID.
    pub apic_id: u32,
    /// Number of processors.
    pub cpus: u32,
    /// Frequency of the TSC in hertz.
    pub tsc_hz: u64,
    /// Frequency of the local APIC's timer in hertz.
    pub apic_hz: u64,
}

/// Leaves whose answer depends on ECX, with the number of their subleaves that are told.
const SUBLEAVES: &[(u32, u32)] =
    &[(0x4, 8), (0x7, 3), (0xb, 3), (0xd, 64), (0x1f, 4), (0x8000_001d, 8)];

/// Features that are the platform's: ours under KVM too.
const PLATFORM: &[Feature] = &[
    Feature::Apic,
    Feature::X2apic,
    Feature::TscDeadline,
    Feature::TscAdjust,
    Feature::Hypervisor,
    Feature::Mtrr,
    Feature::Mca,
    Feature::ArchCapabilities,
];

/// What of the machine's state the model's answers tell.
fn context(place: &Place) -> CpuidContext {
    CpuidContext {
        apic_id: place.apic_id,
        cpus: place.cpus,
        apic_enabled: true,
        code64: true,
        // The kernel puts in what follows from control registers.
        osxsave: false,
        pke: false,
        xcr0: 7,
        xss: 0,
        tsc_hz: place.tsc_hz,
        apic_hz: place.apic_hz,
    }
}

/// What CPUID is told to answer to a leaf.
pub(crate) fn answer(model: &CpuModel, place: &Place, leaf: u32, subleaf: u32) -> [u32; 4] {
    model.cpuid(leaf, subleaf, &context(place))
}

/// The model's answers in the kernel's form.
///
/// # Errors
/// There are more than the kernel's structure takes.
pub(crate) fn table(model: &CpuModel, place: &Place) -> Result<CpuId, KvmError> {
    let context = context(place);
    let last_hypervisor = if model.has(Feature::Hypervisor) { 0x4000_0010 } else { 0 };
    let ranges = [
        (0, model.max_leaf),
        (0x4000_0000, last_hypervisor),
        (0x8000_0000, model.max_extended_leaf),
    ];
    let mut entries = Vec::new();
    for (first, last) in ranges {
        // A model's last leaf lies close to the first one of its range.
        for function in (first..=last).take(0x40) {
            let count = SUBLEAVES.iter().find(|leaf| leaf.0 == function).map_or(1, |leaf| leaf.1);
            for index in 0..count {
                let [eax, ebx, ecx, edx] = model.cpuid(function, index, &context);
                let told = [eax, ebx, ecx, edx] != [0; 4];
                if index > 0 && !told {
                    continue;
                }
                let flags = if count > 1 { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
                entries.push(kvm_cpuid_entry2 {
                    function,
                    index,
                    flags,
                    eax,
                    ebx,
                    ecx,
                    edx,
                    ..Default::default()
                });
            }
        }
    }
    CpuId::from_entries(&entries).map_err(|_| KvmError::Lacks("room for so many CPUID leaves"))
}

/// The register of an answer.
fn register(entry: &kvm_cpuid_entry2, which: Register) -> u32 {
    match which {
        Register::Eax => entry.eax,
        Register::Ebx => entry.ebx,
        Register::Ecx => entry.ecx,
        Register::Edx => entry.edx,
    }
}

/// Whether a list of answers has a feature.
fn lists(cpuid: &CpuId, info: &FeatureInfo) -> bool {
    let entry =
        cpuid.as_slice().iter().find(|e| e.function == info.leaf && e.index == info.subleaf);
    entry.is_some_and(|entry| register(entry, info.register) >> info.bit & 1 != 0)
}

/// The features that the kernel says it can give a guest, or that the platform has without it.
pub fn offered(supported: &CpuId) -> FeatureSet {
    let mut set = FeatureSet::EMPTY;
    for info in FEATURES {
        if PLATFORM.contains(&info.feature) || lists(supported, info) {
            set.insert(info.feature);
        }
    }
    set
}

/// The features, by name or bit, that an answer of a leaf has and the one that was set has not.
/// OSXSAVE and OSPKE follow control registers.
pub(crate) fn added(leaf: u32, set: [u32; 4], found: [u32; 4]) -> Vec<String> {
    let registers = [
        (Register::Eax, "eax"),
        (Register::Ebx, "ebx"),
        (Register::Ecx, "ecx"),
        (Register::Edx, "edx"),
    ];
    let mut names = Vec::new();
    for (n, (register, name)) in registers.into_iter().enumerate() {
        // EAX has no features in these leaves, nor has EBX in the first of either range.
        if n == 0 || (n == 1 && leaf & 0xff == 1) {
            continue;
        }
        for bit in (0..32).filter(|bit| found[n] & !set[n] & 1 << bit != 0) {
            let follows = matches!((leaf, n, bit), (1, 2, 27) | (7, 2, 4));
            let info = FEATURES.iter().find(|f| {
                (f.leaf, f.subleaf, f.register, u32::from(f.bit)) == (leaf, 0, register, bit)
            });
            match info {
                _ if follows => {}
                Some(info) => names.push(info.name.into()),
                None => names.push(format!("{leaf:x}.{name}[{bit}]")),
            }
        }
    }
    names
}

/// The features of this host's processor, as its own programs find them, and those of the platform.
#[must_use]
pub fn of_host() -> FeatureSet {
    let mut set = FeatureSet::EMPTY;
    for info in FEATURES {
        let highest = __cpuid_count(info.leaf & 0x8000_0000, 0).eax;
        let answer = __cpuid_count(info.leaf, info.subleaf);
        let register = match info.register {
            Register::Eax => answer.eax,
            Register::Ebx => answer.ebx,
            Register::Ecx => answer.ecx,
            Register::Edx => answer.edx,
        };
        if PLATFORM.contains(&info.feature)
            || (info.leaf <= highest && register >> info.bit & 1 != 0)
        {
            set.insert(info.feature);
        }
    }
    set
}

/// The model without what the kernel cannot give, and the names of what that is.
#[must_use]
pub fn reduce(model: &CpuModel, offered: FeatureSet) -> (CpuModel, Vec<&'static str>) {
    let mut reduced = *model;
    let missing = model.features.without(offered);
    for info in missing.iter() {
        reduced.features.disable(info.feature);
    }
    (reduced, missing.iter().map(|info| info.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place =
        Place { apic_id: 0, cpus: 1, tsc_hz: 1_000_000_000, apic_hz: 1_000_000_000 };

    #[test]
    fn the_table_tells_the_models_features() {
        let model = CpuModel::by_name("max").unwrap();
        let table = table(&model, &PLACE).unwrap();
        for info in model.features.iter() {
            assert!(lists(&table, info), "{}", info.name);
        }
    }

    #[test]
    fn a_model_is_cut_to_what_is_offered() {
        let model = CpuModel::by_name("max").unwrap();
        let mut offered = model.features;
        offered.remove(Feature::Avx2);
        let (reduced, missing) = reduce(&model, offered);
        assert!(missing.contains(&"avx2"));
        assert!(!reduced.has(Feature::Avx2));
    }
}
