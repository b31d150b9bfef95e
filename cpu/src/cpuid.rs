//! What CPUID answers, from a model and what the running machine adds to it.
//!
//! Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E. Leaves from 4000_0000h on are the
//! hypervisor's, with frequencies in 4000_0010h as several hypervisors have them.

#[cfg(test)]
mod tests;

use crate::model::{Cache, CacheKind, CpuModel, Feature, FeatureSet, Quirk, Register, Vendor};

/// The answer: EAX, EBX, ECX, EDX.
pub type Answer = [u32; 4];

/// The highest leaf of the hypervisor.
const MAX_HYPERVISOR_LEAF: u32 = 0x4000_0010;
/// Who the hypervisor is.
const HYPERVISOR_SIGNATURE: &[u8; 12] = b"TriviumTrivi";
/// Bytes of a cache line.
const LINE: u32 = 64;

/// What CPUID tells that is not the model's but the machine's or the present state's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidContext {
    /// The (x2)APIC ID of this processor. Processors are numbered from zero without gaps.
    pub apic_id: u32,
    /// How many processors the machine has. They are cores of one package.
    pub cpus: u32,
    /// IA32_APIC_BASE enables the local APIC.
    pub apic_enabled: bool,
    /// The code that asks is 64-bit code.
    pub code64: bool,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// CR4.PKE.
    pub pke: bool,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// Frequency of the time-stamp counter.
    pub tsc_hz: u64,
    /// Frequency of the local APIC's timer before its divider; also said to be the crystal's.
    pub apic_hz: u64,
}

impl CpuidContext {
    /// Bits of an APIC ID that number the processors of the package.
    fn id_bits(&self) -> u32 {
        self.cpus.max(1).next_power_of_two().trailing_zeros()
    }
}

/// A function that answers one leaf.
type Leaf = fn(&CpuModel, u32, &CpuidContext) -> Answer;

/// All leaves that say something; others within the range are zero.
const LEAVES: &[(u32, Leaf)] = &[
    (0x0, vendor_and_max),
    (0x1, version_and_features),
    (0x2, cache_descriptors),
    (0x4, caches_intel),
    (0x5, monitor),
    (0x6, power),
    (0x7, structured_features),
    (0xb, topology),
    (0xd, extended_state),
    (0x15, tsc_and_crystal),
    (0x16, frequencies),
    (0x1f, topology),
    (0x4000_0000, hypervisor_and_max),
    (0x4000_0010, hypervisor_frequencies),
    (0x8000_0000, extended_max),
    (0x8000_0001, extended_features),
    (0x8000_0002, brand_0),
    (0x8000_0003, brand_1),
    (0x8000_0004, brand_2),
    (0x8000_0005, l1_amd),
    (0x8000_0006, l2_l3_amd),
    (0x8000_0007, power_extended),
    (0x8000_0008, sizes),
    (0x8000_001d, caches_amd),
    (0x8000_001e, topology_amd),
    (0x8000_0021, extended_features_2),
];

impl CpuModel {
    /// What CPUID answers to `leaf` (EAX) and `subleaf` (ECX).
    #[must_use]
    pub fn cpuid(&self, leaf: u32, subleaf: u32, context: &CpuidContext) -> Answer {
        let last = match leaf >> 28 {
            0 => self.max_leaf,
            4 if self.has(Feature::Hypervisor) => MAX_HYPERVISOR_LEAF,
            8 => self.max_extended_leaf,
            _ => 0,
        };
        let leaf = match leaf <= last {
            true => leaf,
            false if self.does(Quirk::CpuidZeroBeyondEnd) => return [0; 4],
            false => self.max_leaf,
        };
        if let Some((_, own)) = self.leaves.iter().find(|own| own.0 == leaf) {
            return *own;
        }
        match LEAVES.binary_search_by_key(&leaf, |l| l.0).ok().and_then(|i| LEAVES.get(i)) {
            Some((_, answer)) => answer(self, subleaf, context),
            None => [0; 4],
        }
    }

    /// The features' bits in all four registers of a leaf.
    fn feature_bits(&self, leaf: u32, subleaf: u32) -> Answer {
        [Register::Eax, Register::Ebx, Register::Ecx, Register::Edx]
            .map(|register| self.features.bits(leaf, subleaf, register))
    }
}

/// Four characters of a string as a register; zeros after its end.
fn characters(text: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    for (to, from) in bytes.iter_mut().zip(text.get(at..).unwrap_or_default()) {
        *to = *from;
    }
    u32::from_le_bytes(bytes)
}

/// Low half of a 64-bit value.
fn low(value: u64) -> u32 {
    value as u32
}

/// A value that is cut off at the register's end rather than wrapped.
fn saturate(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn vendor_and_max(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    let vendor = model.vendor.signature();
    [model.max_leaf, characters(vendor, 0), characters(vendor, 8), characters(vendor, 4)]
}

fn version_and_features(model: &CpuModel, _: u32, context: &CpuidContext) -> Answer {
    const OSXSAVE: u32 = 1 << 27;
    const APIC: u32 = 1 << 9;
    const HTT: u32 = 1 << 28;
    let [_, _, mut ecx, mut edx] = model.feature_bits(1, 0);
    if context.osxsave {
        ecx |= OSXSAVE;
    }
    if !context.apic_enabled {
        edx &= !APIC;
    }
    let mut ebx = context.apic_id << 24;
    if model.has(Feature::Clflush) {
        ebx |= (LINE / 8) << 8;
    }
    if context.cpus > 1 {
        edx |= HTT;
        ebx |= context.cpus.min(255) << 16;
    }
    [model.signature(), ebx, ecx, edx]
}

fn cache_descriptors(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    match model.vendor {
        // Descriptor FFh: leaf 4 has the caches. The low byte of EAX is always 1.
        Vendor::Intel => [0xff01, 0, 0, 0],
        Vendor::Amd => [0; 4],
    }
}

/// Deterministic cache parameters, as leaf 4 and leaf 8000_001Dh have them.
fn cache_parameters(model: &CpuModel, subleaf: u32, shared_by: u32) -> Answer {
    let Some(cache) = model.caches.get(subleaf as usize) else { return [0; 4] };
    const SELF_INITIALIZING: u32 = 1 << 8;
    let sharing = if is_last_level(model, cache) { shared_by.clamp(1, 1 << 12) - 1 } else { 0 };
    let eax = cache.kind as u32 | u32::from(cache.level) << 5 | SELF_INITIALIZING | sharing << 14;
    let ways = cache.ways.max(1);
    let sets = cache.size_kib * 1024 / (LINE * ways);
    // WBINVD of one processor does not reach the caches of others.
    let edx = u32::from(model.vendor == Vendor::Intel);
    [eax, (LINE - 1) | (ways - 1) << 22, sets.saturating_sub(1), edx]
}

/// Whether all processors share the cache.
fn is_last_level(model: &CpuModel, cache: &Cache) -> bool {
    cache.level > 2 && model.caches.iter().all(|c| c.level <= cache.level)
}

fn caches_intel(model: &CpuModel, subleaf: u32, context: &CpuidContext) -> Answer {
    if model.vendor != Vendor::Intel {
        return [0; 4];
    }
    let ids = 1 << context.id_bits().min(12);
    let mut answer = cache_parameters(model, subleaf, ids);
    if answer[0] != 0 {
        answer[0] |= (ids - 1).min(63) << 26;
    }
    answer
}

fn caches_amd(model: &CpuModel, subleaf: u32, context: &CpuidContext) -> Answer {
    match model.has(Feature::Topoext) {
        true => cache_parameters(model, subleaf, context.cpus),
        false => [0; 4],
    }
}

fn monitor(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    // Smallest and largest line watched; interrupts break MWAIT even when masked (ECX).
    match model.has(Feature::Monitor) {
        true => [LINE, LINE, 3, 0],
        false => [0; 4],
    }
}

fn power(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    model.feature_bits(6, 0)
}

fn structured_features(model: &CpuModel, subleaf: u32, context: &CpuidContext) -> Answer {
    const OSPKE: u32 = 1 << 4;
    let mut answer = model.feature_bits(7, subleaf);
    if subleaf == 0 && context.pke {
        answer[2] |= OSPKE;
    }
    answer
}

fn topology(model: &CpuModel, subleaf: u32, context: &CpuidContext) -> Answer {
    const THREADS: u32 = 1;
    const CORES: u32 = 2;
    if !model.has(Feature::Apic) {
        return [0; 4];
    }
    let number = subleaf & 0xff;
    match subleaf {
        0 => [0, 1, THREADS << 8, context.apic_id],
        1 => [context.id_bits(), context.cpus.max(1), CORES << 8 | number, context.apic_id],
        _ => [0, 0, number, context.apic_id],
    }
}

/// A component of the XSAVE area: bit of XCR0, size, offset in the standard format.
/// Intel SDM vol. 1, 13.5; leaf 0Dh of the CPUs that have them.
const COMPONENTS: &[(u32, u32, u32)] = &[(2, 256, 576), (9, 8, 2688)];
/// Legacy region and header.
const XSAVE_BASE: u32 = 512 + 64;

/// Bytes that the standard format needs for the components of `mask`.
fn standard_size(mask: u64) -> u32 {
    let ends = COMPONENTS.iter().filter(|c| mask >> c.0 & 1 != 0).map(|c| c.1 + c.2);
    ends.max().unwrap_or(XSAVE_BASE)
}

/// Bytes that the compacted format needs for the components of `mask`.
fn compacted_size(mask: u64) -> u32 {
    XSAVE_BASE + COMPONENTS.iter().filter(|c| mask >> c.0 & 1 != 0).map(|c| c.1).sum::<u32>()
}

fn extended_state(model: &CpuModel, subleaf: u32, context: &CpuidContext) -> Answer {
    let supported = model.xcr0_mask();
    if supported == 0 {
        return [0; 4];
    }
    match subleaf {
        0 => [
            low(supported),
            standard_size(context.xcr0),
            standard_size(supported),
            low(supported >> 32),
        ],
        1 => {
            let [eax, ..] = model.feature_bits(0xd, 1);
            let compacts = model.has(Feature::Xsavec);
            let size = if compacts { compacted_size(context.xcr0 | context.xss) } else { 0 };
            [eax, size, 0, 0]
        }
        _ => match COMPONENTS.iter().find(|c| c.0 == subleaf && supported >> c.0 & 1 != 0) {
            Some(&(_, size, offset)) => [size, offset, 0, 0],
            None => [0; 4],
        },
    }
}

fn tsc_and_crystal(_: &CpuModel, _: u32, context: &CpuidContext) -> Answer {
    let (tsc, crystal) = (context.tsc_hz, context.apic_hz);
    let divisor = gcd(tsc, crystal).max(1);
    let (numerator, denominator) = (tsc / divisor, crystal / divisor);
    match (u32::try_from(numerator), u32::try_from(denominator), u32::try_from(crystal)) {
        (Ok(n), Ok(d), Ok(hz)) if n != 0 && d != 0 => [d, n, hz, 0],
        // Not to be had exactly: zeros say that it is not enumerated.
        _ => [0; 4],
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn frequencies(_: &CpuModel, _: u32, context: &CpuidContext) -> Answer {
    let mhz = |hz: u64| saturate(hz / 1_000_000).min(0xffff);
    let (base, bus) = (mhz(context.tsc_hz), mhz(context.apic_hz));
    [base, base, bus, 0]
}

fn hypervisor_and_max(_: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    let name = HYPERVISOR_SIGNATURE;
    [MAX_HYPERVISOR_LEAF, characters(name, 0), characters(name, 4), characters(name, 8)]
}

fn hypervisor_frequencies(_: &CpuModel, _: u32, context: &CpuidContext) -> Answer {
    [saturate(context.tsc_hz / 1000), saturate(context.apic_hz / 1000), 0, 0]
}

fn extended_max(model: &CpuModel, _: u32, context: &CpuidContext) -> Answer {
    let [_, ebx, ecx, edx] = match model.vendor {
        Vendor::Amd => vendor_and_max(model, 0, context),
        Vendor::Intel => [0; 4],
    };
    [model.max_extended_leaf, ebx, ecx, edx]
}

fn extended_features(model: &CpuModel, _: u32, context: &CpuidContext) -> Answer {
    /// The bits of leaf 1's EDX that AMD's CPUs repeat here.
    const REPEATED: u32 = 0x0183_f3ff;
    const CMP_LEGACY: u32 = 1 << 1;
    const SYSCALL: u32 = 1 << 11;
    let [_, _, mut ecx, mut edx] = model.feature_bits(0x8000_0001, 0);
    if model.does(Quirk::SyscallBitIn64BitCode) && !context.code64 {
        edx &= !SYSCALL;
    }
    if model.vendor == Vendor::Intel {
        return [0, 0, ecx, edx];
    }
    edx |= version_and_features(model, 0, context)[3] & REPEATED;
    if context.cpus > 1 {
        ecx |= CMP_LEGACY;
    }
    // AMD counted its generations one ahead of Intel's families, until both said 15.
    let generation = if model.family < 15 { 1 << 8 } else { 0 };
    [model.signature() + generation, 0, ecx, edx]
}

fn brand(model: &CpuModel, at: usize) -> Answer {
    [0, 4, 8, 12].map(|offset| characters(model.brand.as_bytes(), at + offset))
}

fn brand_0(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    brand(model, 0)
}

fn brand_1(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    brand(model, 16)
}

fn brand_2(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    brand(model, 32)
}

/// The cache of this level and kind.
fn find_cache(model: &CpuModel, level: u8, kind: CacheKind) -> Option<&Cache> {
    model.caches.iter().find(|c| c.level == level && c.kind == kind)
}

fn l1_amd(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    if model.vendor == Vendor::Intel {
        return [0; 4];
    }
    let cache = |kind| {
        let cache = find_cache(model, 1, kind);
        cache.map_or(0, |c| c.size_kib << 24 | c.ways << 16 | 1 << 8 | LINE)
    };
    // TLBs of 255 direct-mapped entries each, for large and small pages, code and data.
    const TLBS: u32 = 0x01ff_01ff;
    [TLBS, TLBS, cache(CacheKind::Data), cache(CacheKind::Instruction)]
}

/// How AMD writes associativity in leaf 8000_0006h. APM vol. 3, table E-4.
fn associativity_code(ways: u32) -> u32 {
    const CODES: &[(u32, u32)] =
        &[(128, 14), (96, 13), (64, 12), (48, 11), (32, 10), (16, 8), (8, 6)];
    CODES.iter().find(|c| ways >= c.0).map_or(ways.min(4), |c| c.1)
}

fn l2_l3_amd(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    /// Lines to a tag, which Intel's do not tell.
    const LINES: u32 = 0xf << 8;
    let l2 = find_cache(model, 2, CacheKind::Unified)
        .map_or(0, |c| c.size_kib << 16 | associativity_code(c.ways) << 12 | 1 << 8 | LINE);
    if model.vendor == Vendor::Intel {
        return [0, 0, l2 & !LINES, 0];
    }
    let l3 = find_cache(model, 3, CacheKind::Unified)
        .map_or(0, |c| (c.size_kib / 512) << 18 | associativity_code(c.ways) << 12 | 1 << 8 | LINE);
    // 512 entries in four ways for 4 KiB pages, code and data.
    const TLBS: u32 = 0x4200_4200;
    [0, TLBS, l2, l3]
}

fn power_extended(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    model.feature_bits(0x8000_0007, 0)
}

fn sizes(model: &CpuModel, _: u32, context: &CpuidContext) -> Answer {
    let [_, ebx, _, _] = model.feature_bits(0x8000_0008, 0);
    let linear = model.linear_bits();
    let eax = u32::from(model.phys_bits) | u32::from(linear) << 8;
    let ecx = match model.vendor {
        Vendor::Amd => context.id_bits().min(15) << 12 | (context.cpus.max(1) - 1).min(255),
        Vendor::Intel => 0,
    };
    [eax, ebx, ecx, 0]
}

fn topology_amd(model: &CpuModel, _: u32, context: &CpuidContext) -> Answer {
    // Each processor is a compute unit of one thread, all are in node 0 of 1.
    match model.has(Feature::Topoext) {
        true => [context.apic_id, context.apic_id & 0xff, 0, 0],
        false => [0; 4],
    }
}

fn extended_features_2(model: &CpuModel, _: u32, _: &CpuidContext) -> Answer {
    model.feature_bits(0x8000_0021, 0)
}

/// The features that a CPU has, by what its CPUID answers to each leaf and subleaf.
#[must_use]
pub fn features_of(answers: impl Fn(u32, u32) -> Answer) -> FeatureSet {
    let mut set = FeatureSet::EMPTY;
    for info in crate::model::FEATURES {
        // What lies beyond the end may be the answer to another leaf.
        let [last, ..] = answers(info.leaf & 0x8000_0000, 0);
        if last < info.leaf {
            continue;
        }
        let [eax, ebx, ecx, edx] = answers(info.leaf, info.subleaf);
        let register = match info.register {
            Register::Eax => eax,
            Register::Ebx => ebx,
            Register::Ecx => ecx,
            Register::Edx => edx,
        };
        if register >> info.bit & 1 != 0 {
            set.insert(info.feature);
        }
    }
    set
}
