//! CPU models: which features a CPU has, who it says it is, and what follows from it.

mod data;
mod features;
mod models;
mod quirks;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::bits::{cr4, efer, rflags};

pub use data::IMPLEMENTED;
pub use features::{FEATURES, Feature, FeatureInfo, FeatureSet, Register};
pub use models::MODELS;
pub use quirks::{QUIRKS, Quirk, QuirkInfo};

/// Who made the CPU: decides what its vendor's manual leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// GenuineIntel.
    Intel,
    /// AuthenticAMD.
    Amd,
}

impl Vendor {
    /// The twelve characters of CPUID leaf 0.
    #[must_use]
    pub const fn signature(self) -> &'static [u8; 12] {
        match self {
            Self::Intel => b"GenuineIntel",
            Self::Amd => b"AuthenticAMD",
        }
    }
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it.
pub enum CacheKind {
    Data = 1,
    Instruction = 2,
    Unified = 3,
}

/// A cache that CPUID tells of. Its lines are of 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// 1 to 3. The last level is common to all processors.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// Size in KiB.
    pub size_kib: u32,
    /// Associativity.
    pub ways: u32,
}

/// A CPU model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuModel {
    /// What `--cpu` calls it.
    pub name: &'static str,
    /// What it is, in a line.
    pub description: &'static str,
    /// Whose CPU it says it is.
    pub vendor: Vendor,
    /// When such CPUs appeared.
    pub year: u16,
    /// Family, the extended one added.
    pub family: u16,
    /// Model, the extended one included: 0 to 255.
    pub model: u8,
    /// Stepping, 0 to 15.
    pub stepping: u8,
    /// What it can do.
    pub features: FeatureSet,
    /// MAXPHYADDR.
    pub phys_bits: u8,
    /// The highest basic leaf of CPUID.
    pub max_leaf: u32,
    /// The highest extended leaf of CPUID.
    pub max_extended_leaf: u32,
    /// Its caches.
    pub caches: &'static [Cache],
    /// Leaves of CPUID whose answers (EAX, EBX, ECX, EDX) are the model's own.
    pub leaves: &'static [(u32, [u32; 4])],
    /// The brand string, at most 47 characters.
    pub brand: &'static str,
}

/// What is wrong with a `--cpu`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModelError {
    /// There is no such model.
    #[error("Unknown CPU model '{name}'; {hint}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// What would be right.
        hint: String,
    },
    /// There is no such feature.
    #[error("Unknown CPU feature '{name}'; {hint}")]
    UnknownFeature {
        /// What was asked for.
        name: String,
        /// What would be right.
        hint: String,
    },
    /// A feature was asked for that exists but that the CPU at hand cannot do.
    #[error("CPU feature '{feature}' is not implemented; leave out +{feature}")]
    Unavailable {
        /// What was asked for, or needed by it.
        feature: &'static str,
    },
    /// The model has features that the CPU at hand cannot do.
    #[error("CPU model '{model}' has what is not implemented; use {model}{instead}")]
    Lacking {
        /// What was asked for.
        model: &'static str,
        /// What to write after it.
        instead: String,
    },
    /// A feature was asked for, and taken away with something that it needs.
    #[error("CPU feature '{feature}' is both asked for and taken away; drop one of the two")]
    Contradiction {
        /// What was asked for.
        feature: &'static str,
    },
    /// Something else than `+feature` or `-feature` follows the model.
    #[error("'{part}' in a CPU model is neither +FEATURE nor -FEATURE")]
    Syntax {
        /// What follows.
        part: String,
    },
}

impl CpuModel {
    /// The model of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn by_name(name: &str) -> Result<Self, ModelError> {
        MODELS.iter().find(|m| m.name == name).copied().ok_or_else(|| {
            let names: Vec<_> = MODELS.iter().map(|m| m.name).collect();
            let hint = format!("there are {}", names.join(", "));
            ModelError::UnknownModel { name: name.to_owned(), hint }
        })
    }

    /// Reads `MODEL[,+FEATURE][,-FEATURE]...` (also `FEATURE=on` and `FEATURE=off`) for the
    /// project's own CPUs.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn parse(spec: &str) -> Result<Self, ModelError> {
        Self::parse_for(spec, IMPLEMENTED)
    }

    /// [`Self::parse`] for a CPU that can do what `available` says.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub fn parse_for(spec: &str, available: FeatureSet) -> Result<Self, ModelError> {
        let mut parts = spec.split(',').map(str::trim);
        let mut model = Self::by_name(parts.next().unwrap_or_default())?;
        let mut asked_for = Vec::new();
        for part in parts {
            let (feature, on) = parse_part(part)?;
            if on {
                model.features.enable(feature);
                asked_for.push(feature);
            } else {
                model.features.disable(feature);
            }
        }
        model.reach(Self::by_name(model.name)?.features);
        // By the name that the user wrote, if it is that and not only something that it needs.
        let asked_in_vain = asked_for.iter().find(|&&f| !available.has(f));
        let missing = model.features.without(available);
        if let Some(feature) = asked_in_vain {
            return Err(ModelError::Unavailable { feature: feature.info().name });
        }
        let lacking = Self::by_name(model.name)?.features.without(available);
        if let Some(info) = missing.without(lacking).iter().next() {
            return Err(ModelError::Unavailable { feature: info.name });
        }
        if missing != FeatureSet::EMPTY {
            let instead = missing.iter().map(|info| format!(",-{}", info.name)).collect();
            return Err(ModelError::Lacking { model: model.name, instead });
        }
        match asked_for.into_iter().find(|&f| !model.has(f)) {
            Some(gone) => Err(ModelError::Contradiction { feature: gone.info().name }),
            None => Ok(model),
        }
    }

    /// Raises the highest leaves of CPUID to where they tell of what the model has beside `known`.
    fn reach(&mut self, known: FeatureSet) {
        for info in self.features.without(known).iter() {
            let last = match info.leaf {
                0..0x8000_0000 => &mut self.max_leaf,
                _ => &mut self.max_extended_leaf,
            };
            *last = info.leaf.max(*last);
        }
    }

    /// What the model has and the project's own CPUs do not implement. A model that lacks
    /// something can be had only without it.
    #[must_use]
    pub const fn lacking(&self) -> FeatureSet {
        self.features.without(IMPLEMENTED)
    }

    /// Whether the CPU has a quirk.
    #[inline]
    #[must_use]
    pub const fn does(&self, quirk: Quirk) -> bool {
        self.vendor.has(quirk)
    }

    /// Whether the CPU has a feature.
    #[inline]
    #[must_use]
    pub const fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// Bits of a linear address: 57 for a CPU that can have five levels of page tables, 48 for
    /// another in 64-bit mode, else 32.
    #[must_use]
    pub const fn linear_bits(&self) -> u8 {
        match (self.has(Feature::Lm), self.has(Feature::La57)) {
            (true, true) => 57,
            (true, false) => 48,
            _ => 32,
        }
    }

    /// The bits of CR4 that may be set. Intel SDM vol. 3A, 2.5.
    #[must_use]
    pub fn cr4_mask(&self) -> u64 {
        self.granted(CR4_BITS)
    }

    /// The bits of EFER that may be set, LMA included. Intel SDM vol. 3A, 2.2.1; AMD APM vol. 2,
    /// 3.1.7.
    #[must_use]
    pub fn efer_mask(&self) -> u64 {
        self.granted(EFER_BITS)
    }

    /// The bits of XCR0 that may be set; zero without XSAVE. Intel SDM vol. 3A, 2.6.
    #[must_use]
    pub fn xcr0_mask(&self) -> u64 {
        self.granted(XCR0_BITS)
    }

    /// The bits of MXCSR that may be set; zero without SSE. Intel SDM vol. 1, 10.2.3 and 11.6.6; AMD
    /// APM vol. 2, 11.5.10.
    #[must_use]
    pub fn mxcsr_mask(&self) -> u32 {
        low_half(self.granted(MXCSR_BITS))
    }

    /// The bits of RFLAGS that exist. Intel SDM vol. 1, 3.4.3.
    #[must_use]
    pub fn rflags_mask(&self) -> u64 {
        let virtual_interrupts = if self.has(Feature::Vme) { 0 } else { rflags::VIF | rflags::VIP };
        rflags::ALL & !virtual_interrupts
    }

    fn granted(&self, table: &[(Feature, u64)]) -> u64 {
        table.iter().filter(|(f, _)| self.has(*f)).fold(0, |mask, (_, bits)| mask | bits)
    }

    /// What CPUID leaf 1 says in EAX, and EDX holds after reset.
    #[must_use]
    pub const fn signature(&self) -> u32 {
        let (family, model) = (self.family as u32, self.model as u32);
        let (base, extended) = if family > 15 { (15, family - 15) } else { (family, 0) };
        extended << 20 | model >> 4 << 16 | base << 8 | (model & 15) << 4 | self.stepping as u32
    }
}

/// What each feature adds to the settable bits of CR4.
const CR4_BITS: &[(Feature, u64)] = &[
    (Feature::Vme, cr4::VME | cr4::PVI),
    (Feature::Tsc, cr4::TSD),
    (Feature::De, cr4::DE),
    (Feature::Pse, cr4::PSE),
    (Feature::Pae, cr4::PAE),
    (Feature::Mce, cr4::MCE),
    (Feature::Pge, cr4::PGE),
    (Feature::Mmx, cr4::PCE), // RDPMC came with MMX, and has no bit of its own.
    (Feature::Fxsr, cr4::OSFXSR),
    (Feature::Sse, cr4::OSXMMEXCPT),
    (Feature::Umip, cr4::UMIP),
    (Feature::La57, cr4::LA57),
    (Feature::Fsgsbase, cr4::FSGSBASE),
    (Feature::Pcid, cr4::PCIDE),
    (Feature::Xsave, cr4::OSXSAVE),
    (Feature::Smep, cr4::SMEP),
    (Feature::Smap, cr4::SMAP),
    (Feature::Pku, cr4::PKE),
];

/// What each feature adds to the settable bits of EFER.
const EFER_BITS: &[(Feature, u64)] = &[
    (Feature::Syscall, efer::SCE),
    (Feature::Lm, efer::LME | efer::LMA),
    (Feature::Nx, efer::NXE),
    (Feature::Svm, efer::SVME),
    (Feature::FxsrOpt, efer::FFXSR),
    (Feature::Autoibrs, efer::AUTOIBRS),
];

/// What each feature adds to the settable bits of XCR0.
const XCR0_BITS: &[(Feature, u64)] =
    &[(Feature::Xsave, 3), (Feature::Avx, 1 << 2), (Feature::Pku, 1 << 9)];

/// What each feature adds to the settable bits of MXCSR. Denormals are zeros came with the second
/// generation of SSE.
const MXCSR_BITS: &[(Feature, u64)] =
    &[(Feature::Sse, 0xffbf), (Feature::Sse2, 1 << 6), (Feature::Misalignsse, 1 << 17)];

const fn low_half(value: u64) -> u32 {
    value as u32
}

/// Reads `+FEATURE`, `-FEATURE`, `FEATURE=on` or `FEATURE=off`.
fn parse_part(part: &str) -> Result<(Feature, bool), ModelError> {
    let (name, on) = if let Some(name) = part.strip_prefix('+') {
        (name, true)
    } else if let Some(name) = part.strip_prefix('-') {
        (name, false)
    } else if let Some(name) = part.strip_suffix("=on") {
        (name, true)
    } else if let Some(name) = part.strip_suffix("=off") {
        (name, false)
    } else {
        return Err(ModelError::Syntax { part: part.to_owned() });
    };
    match Feature::from_name(name) {
        Some(feature) => Ok((feature, on)),
        None => {
            let near = nearest(name);
            let hint = if near.is_empty() {
                "'trivium models' lists them".to_owned()
            } else {
                format!("did you mean {}?", near.join(" or "))
            };
            Err(ModelError::UnknownFeature { name: name.to_owned(), hint })
        }
    }
}

/// Names of features that differ little from `name`, nearest first.
fn nearest(name: &str) -> Vec<&'static str> {
    let name = name.to_ascii_lowercase().replace(['-', '.'], "_");
    // A name of untyped length must not cost the square of it.
    let name: String = name.chars().take(32).collect();
    let mut near: Vec<_> = FEATURES
        .iter()
        .map(|f| (distance(&name, f.name), f.name))
        .filter(|&(d, n)| d <= 1.max(n.len() / 3) && d < n.len())
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, n)| n).collect()
}

/// How many characters must be put in, taken out or replaced to make `b` of `a` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
