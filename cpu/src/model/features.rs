//! The CPU features that CPUID tells of: names, places in CPUID, and what each needs.
//!
//! Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E. Names are Linux's, aliases QEMU's.

/// A register of CPUID's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The registers' own names.
pub enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A feature in the table.
#[derive(Debug, Clone, Copy)]
pub struct FeatureInfo {
    /// The feature.
    pub feature: Feature,
    /// Its name as in Linux's /proc/cpuinfo, or QEMU's where Linux has none.
    pub name: &'static str,
    /// Other names it goes by, with `_` for `-` and `.`.
    pub aliases: &'static [&'static str],
    /// CPUID leaf.
    pub leaf: u32,
    /// CPUID subleaf.
    pub subleaf: u32,
    /// Register of the answer.
    pub register: Register,
    /// Bit of the register.
    pub bit: u8,
    /// Features without which it makes no sense.
    pub needs: &'static [Feature],
}

macro_rules! features {
    ($($leaf:literal : $sub:literal $reg:ident {
        $($bit:literal $variant:ident $name:literal $([$($alias:literal),*])? $(: $($need:ident),*)?;)*
    })*) => {
        /// A CPU feature; the table of features says where CPUID tells of it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)] // The table says what each is.
        pub enum Feature {
            $($($variant,)*)*
        }

        /// All features, in the order of [`Feature`].
        pub const FEATURES: &[FeatureInfo] = &[$($(FeatureInfo {
            feature: Feature::$variant,
            name: $name,
            aliases: &[$($($alias),*)?],
            leaf: $leaf,
            subleaf: $sub,
            register: Register::$reg,
            bit: $bit,
            needs: &[$($(Feature::$need),*)?],
        },)*)*];
    };
}

features! {
    0x1 : 0 Edx {
        0 Fpu "fpu";
        1 Vme "vme";
        2 De "de";
        3 Pse "pse";
        4 Tsc "tsc";
        5 Msr "msr";
        6 Pae "pae";
        7 Mce "mce";
        8 Cx8 "cx8";
        9 Apic "apic";
        11 Sep "sep";
        12 Mtrr "mtrr": Msr;
        13 Pge "pge";
        14 Mca "mca": Mce, Msr;
        15 Cmov "cmov";
        16 Pat "pat": Msr;
        17 Pse36 "pse36": Pse;
        19 Clflush "clflush" ["clfsh"];
        23 Mmx "mmx": Fpu;
        24 Fxsr "fxsr": Fpu;
        25 Sse "sse": Fxsr;
        26 Sse2 "sse2": Sse;
        27 Ss "ss";
    }
    0x1 : 0 Ecx {
        0 Sse3 "sse3" ["pni"]: Sse2;
        1 Pclmulqdq "pclmulqdq": Sse2;
        3 Monitor "monitor";
        9 Ssse3 "ssse3": Sse3;
        12 Fma "fma": Avx;
        13 Cx16 "cx16": Cx8, Lm;
        17 Pcid "pcid": Lm;
        19 Sse41 "sse4_1": Ssse3;
        20 Sse42 "sse4_2": Sse41;
        21 X2apic "x2apic": Apic, Msr;
        22 Movbe "movbe";
        23 Popcnt "popcnt";
        24 TscDeadline "tsc_deadline_timer" ["tsc_deadline"]: Apic, Tsc, Msr;
        25 Aes "aes": Sse2;
        26 Xsave "xsave": Fxsr;
        28 Avx "avx": Xsave, Sse42;
        29 F16c "f16c": Avx;
        30 Rdrand "rdrand";
        31 Hypervisor "hypervisor";
    }
    0x6 : 0 Eax {
        2 Arat "arat": Apic;
    }
    0x7 : 0 Ebx {
        0 Fsgsbase "fsgsbase": Lm;
        1 TscAdjust "tsc_adjust": Tsc, Msr;
        3 Bmi1 "bmi1";
        5 Avx2 "avx2": Avx;
        7 Smep "smep";
        8 Bmi2 "bmi2";
        9 Erms "erms";
        10 Invpcid "invpcid": Pcid;
        18 Rdseed "rdseed";
        19 Adx "adx";
        20 Smap "smap";
        23 Clflushopt "clflushopt": Clflush;
        24 Clwb "clwb": Clflush;
        29 Sha "sha_ni" ["sha"]: Sse2;
    }
    0x7 : 0 Ecx {
        2 Umip "umip";
        3 Pku "pku": Xsave, Lm;
        8 Gfni "gfni": Sse2;
        9 Vaes "vaes": Avx, Aes;
        10 Vpclmulqdq "vpclmulqdq": Avx, Pclmulqdq;
        16 La57 "la57": Lm;
        22 Rdpid "rdpid": Msr;
        27 Movdiri "movdiri";
        28 Movdir64b "movdir64b";
    }
    0x7 : 0 Edx {
        4 Fsrm "fsrm": Erms;
        26 SpecCtrl "spec_ctrl": Msr;
        27 IntelStibp "intel_stibp": SpecCtrl;
        29 ArchCapabilities "arch_capabilities": Msr;
        31 IntelSsbd "intel_ssbd" ["ssbd"]: SpecCtrl;
    }
    0xd : 1 Eax {
        0 Xsaveopt "xsaveopt": Xsave;
        1 Xsavec "xsavec": Xsave;
        2 Xgetbv1 "xgetbv1": Xsave;
        3 Xsaves "xsaves": Xsavec;
    }
    0x8000_0001 : 0 Edx {
        11 Syscall "syscall": Msr;
        20 Nx "nx": Pae, Msr;
        22 Mmxext "mmxext": Mmx;
        25 FxsrOpt "fxsr_opt" ["ffxsr"]: Fxsr;
        26 Pdpe1gb "pdpe1gb": Lm;
        27 Rdtscp "rdtscp": Tsc, Msr;
        29 Lm "lm" ["i64"]: Pae, Msr, Fxsr, Syscall;
        30 ThreeDNowExt "3dnowext": ThreeDNow;
        31 ThreeDNow "3dnow": Mmx;
    }
    0x8000_0001 : 0 Ecx {
        0 LahfLm "lahf_lm" ["lahf"];
        2 Svm "svm": Lm;
        4 Cr8Legacy "cr8_legacy" ["cr8legacy"]: Apic;
        5 Abm "abm" ["lzcnt"];
        6 Sse4a "sse4a": Sse3;
        7 Misalignsse "misalignsse": Sse;
        8 Prefetchw "3dnowprefetch" ["prefetchw"];
        9 Osvw "osvw": Msr;
        22 Topoext "topoext";
    }
    0x8000_0007 : 0 Edx {
        8 Invtsc "invtsc" ["constant_tsc", "nonstop_tsc"]: Tsc;
    }
    0x8000_0008 : 0 Ebx {
        0 Clzero "clzero": Clflush;
        2 Xsaveerptr "xsaveerptr" ["rstr_fp_err_ptrs"]: Fxsr;
        9 Wbnoinvd "wbnoinvd";
        12 Ibpb "ibpb" ["amd_ibpb"]: Msr;
        14 AmdIbrs "amd_ibrs" ["ibrs"]: Msr;
        15 AmdStibp "amd_stibp" ["stibp"]: AmdIbrs;
        24 AmdSsbd "amd_ssbd": AmdIbrs;
        26 AmdSsbNo "amd_ssb_no";
        29 BtcNo "btc_no";
    }
    0x8000_0021 : 0 Eax {
        0 NoNestedDataBp "no_nested_data_bp";
        2 LfenceRdtsc "lfence_always_serializing" ["lfence_rdtsc"]: Sse2;
        6 NullSelClrBase "null_sel_clr_base" ["nscb"];
        8 Autoibrs "autoibrs" ["auto_ibrs"]: Msr;
    }
}

impl Feature {
    /// The feature's line in the table.
    #[must_use]
    pub fn info(self) -> &'static FeatureInfo {
        // The table is in the order of the enumeration: both come out of one macro.
        &FEATURES[self as usize]
    }

    /// The feature of this name, however it writes `-`, `.` and `_`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase().replace(['-', '.'], "_");
        let found = FEATURES.iter().find(|f| f.name == name || f.aliases.contains(&name.as_str()));
        found.map(|f| f.feature)
    }
}

/// A set of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureSet(u128);

const _: () = assert!(FEATURES.len() <= 128);

impl FeatureSet {
    /// No feature.
    pub const EMPTY: Self = Self(0);

    /// These features.
    #[must_use]
    pub const fn of(features: &[Feature]) -> Self {
        let (mut set, mut i) = (0, 0);
        while i < features.len() {
            set |= 1 << features[i] as u32;
            i += 1;
        }
        Self(set)
    }

    /// Whether it has the feature.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, feature: Feature) -> bool {
        self.0 >> feature as u32 & 1 != 0
    }

    /// This and that.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What this and that have in common.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// This without that.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Adds a feature alone.
    pub fn insert(&mut self, feature: Feature) {
        self.0 |= 1 << feature as u32;
    }

    /// Takes a feature alone away.
    pub fn remove(&mut self, feature: Feature) {
        self.0 &= !(1 << feature as u32);
    }

    /// Adds a feature and all it needs.
    pub fn enable(&mut self, feature: Feature) {
        if !self.has(feature) {
            self.insert(feature);
            for &need in feature.info().needs {
                self.enable(need);
            }
        }
    }

    /// Takes a feature and all that need it away.
    pub fn disable(&mut self, feature: Feature) {
        self.remove(feature);
        for info in FEATURES {
            if self.has(info.feature) && info.needs.contains(&feature) {
                self.disable(info.feature);
            }
        }
    }

    /// The features, in the table's order.
    pub fn iter(self) -> impl Iterator<Item = &'static FeatureInfo> {
        FEATURES.iter().filter(move |f| self.has(f.feature))
    }

    /// The bits that CPUID shows for this set in one register of one leaf.
    #[must_use]
    pub fn bits(self, leaf: u32, subleaf: u32, register: Register) -> u32 {
        self.iter()
            .filter(|f| f.leaf == leaf && f.subleaf == subleaf && f.register == register)
            .fold(0, |bits, f| bits | 1 << f.bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_feature_has_its_own_names_and_its_own_bit() {
        let (mut names, mut places) = (HashSet::new(), HashSet::new());
        for (index, f) in FEATURES.iter().enumerate() {
            assert_eq!(f.feature as usize, index);
            assert!(places.insert((f.leaf, f.subleaf, f.register as u8, f.bit)), "{}", f.name);
            for name in f.aliases.iter().chain([&f.name]) {
                assert!(names.insert(*name), "{name}");
                assert_eq!(Feature::from_name(name), Some(f.feature));
            }
        }
        assert_eq!(Feature::from_name("SSE4.1"), Some(Feature::Sse41));
        assert_eq!(Feature::from_name("tsc-deadline"), Some(Feature::TscDeadline));
    }

    #[test]
    fn enabling_brings_what_is_needed_and_disabling_takes_what_needs_it() {
        let mut set = FeatureSet::EMPTY;
        set.enable(Feature::Avx2);
        for needed in [Feature::Avx, Feature::Xsave, Feature::Sse42, Feature::Fpu] {
            assert!(set.has(needed), "{needed:?}");
        }
        set.disable(Feature::Sse3);
        assert!(!set.has(Feature::Avx2) && !set.has(Feature::Sse41));
        assert!(set.has(Feature::Sse2) && set.has(Feature::Xsave));
    }
}
