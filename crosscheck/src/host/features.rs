//! What this processor is and has.

#![allow(unsafe_code)]

use std::arch::x86_64::{__cpuid, __cpuid_count, _fxsave, _xgetbv};

use trivium_cpu::cpuid::features_of;
use trivium_cpu::model::{Feature, FeatureSet, Vendor};

/// The features of this processor, as its CPUID tells them to programs.
#[must_use]
pub fn host_features() -> FeatureSet {
    let mut features = features_of(|leaf, subleaf| {
        if leaf & 0x7fff_ffff > __cpuid(leaf & 0x8000_0000).eax & 0x7fff_ffff {
            return [0; 4];
        }
        let answer = __cpuid_count(leaf, subleaf);
        [answer.eax, answer.ebx, answer.ecx, answer.edx]
    });
    if host_vendor() == Vendor::Amd && family() >= ZEN_3 {
        // Hypervisors do not hand the bit on, but all of these processors do it.
        features.insert(Feature::NullSelClrBase);
    }
    features
}

/// Zen 3 and Zen 4.
const ZEN_3: u32 = 0x19;

fn family() -> u32 {
    let eax = __cpuid(1).eax;
    (eax >> 8 & 15) + (eax >> 20 & 0xff)
}

/// Who made this processor. One of another vendor's is held to be of the kind it descends from:
/// Hygon's is AMD's, any other is Intel's.
#[must_use]
pub fn host_vendor() -> Vendor {
    let answer = __cpuid(0);
    let signature = [answer.ebx, answer.edx, answer.ecx].map(u32::to_le_bytes).concat();
    match signature.as_slice() {
        b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
        _ => Vendor::Intel,
    }
}

/// XCR0, if the system has switched XSAVE on.
pub(super) fn xcr0() -> Option<u64> {
    const OSXSAVE: u32 = 1 << 27;
    #[target_feature(enable = "xsave")]
    fn read() -> u64 {
        // SAFETY: there is an XCR0 wherever there is XSAVE.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: the system has switched XSAVE on, so the instruction exists.
    (__cpuid(1).ecx & OSXSAVE != 0).then(|| unsafe { read() })
}

/// The bits of MXCSR that may be set; Intel SDM vol. 1, 11.6.6.
pub(super) fn mxcsr_mask() -> u32 {
    #[repr(align(16))]
    struct Image([u8; 512]);
    #[target_feature(enable = "fxsr")]
    fn save(image: &mut Image) {
        // SAFETY: the image has the size and the alignment that the instruction wants.
        unsafe { _fxsave(image.0.as_mut_ptr()) }
    }
    let mut image = Image([0; 512]);
    // SAFETY: all x86-64 processors have the instruction.
    unsafe { save(&mut image) };
    let [.., a, b, c, d] = image.0.first_chunk::<32>().copied().unwrap_or([0; 32]);
    u32::from_le_bytes([a, b, c, d])
}

/// Whether the system lets programs use RDFSBASE and its relatives: Linux says so in the
/// auxiliary vector, AT_HWCAP2 bit 1.
pub(super) fn has_fsgsbase() -> std::io::Result<bool> {
    const AT_HWCAP2: u64 = 26;
    let auxv = std::fs::read("/proc/self/auxv")?;
    let words: Vec<u64> = auxv.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)).collect();
    let found = words.as_chunks::<2>().0.iter().find(|[key, _]| *key == AT_HWCAP2);
    Ok(found.is_some_and(|[_, value]| value & 2 != 0))
}
