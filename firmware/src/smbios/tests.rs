//! The SMBIOS tables in memory, found as a guest finds them.

use super::{SmbiosConfig, SmbiosCpu, SmbiosSettings, build};
use crate::LoadError;
use crate::tests::Machine;

const CPU: SmbiosCpu<'_> = SmbiosCpu {
    vendor: "AuthenticAMD",
    name: "Some CPU",
    id: 0x0f8b_fbff_0000_0f61,
    long_mode: true,
};

fn config(settings: &SmbiosSettings) -> SmbiosConfig<'_> {
    SmbiosConfig {
        product: "PC",
        version: "1.2.3",
        processors: 2,
        cpu: CPU,
        pci: true,
        acpi: true,
        settings,
    }
}

/// A structure: type, formatted area, strings.
struct Found {
    kind: u8,
    formatted: Vec<u8>,
    strings: Vec<String>,
}

impl Found {
    fn string(&self, offset: usize) -> &str {
        match usize::from(self.formatted[offset]) {
            0 => "",
            number => &self.strings[number - 1],
        }
    }
}

/// The address of an anchor on a multiple of 16 bytes in the BIOS's segment (5.2).
fn find(machine: &Machine, anchor: &[u8]) -> u64 {
    (0xf_0000..0x10_0000_u64)
        .step_by(16)
        .find(|&at| machine.read::<8>(at).starts_with(anchor))
        .expect("it is there")
}

fn sum(machine: &Machine, at: u64, len: u64) -> u8 {
    (at..at + len).fold(0, |sum, at| sum.wrapping_add(machine.read::<1>(at)[0]))
}

/// Reads structures until the end-of-table one; checks that they fill the table.
fn walk(machine: &Machine, mut at: u64, len: u64) -> Vec<Found> {
    let end = at + len;
    let mut all = Vec::new();
    while at < end {
        let [kind, length] = machine.read(at);
        let formatted = (at..at + u64::from(length)).map(|at| machine.read::<1>(at)[0]).collect();
        at += u64::from(length);
        let mut strings = Vec::new();
        while machine.read::<1>(at) != [0] {
            strings.push(machine.string(at));
            at += strings.last().map_or(0, String::len) as u64 + 1;
        }
        at += if strings.is_empty() { 2 } else { 1 };
        all.push(Found { kind, formatted, strings });
        if kind == 127 {
            break;
        }
    }
    assert_eq!(at, end);
    all
}

fn structures(mib: u64, settings: &str) -> Vec<Found> {
    let machine = Machine::new(mib);
    let settings =
        if settings.is_empty() { SmbiosSettings::default() } else { settings.parse().unwrap() };
    build(&machine.memory, &machine.layout, &config(&settings)).unwrap();
    let entry = find(&machine, b"_SM3_");
    walk(&machine, machine.u64(entry + 0x10), machine.u32(entry + 0x0c).into())
}

fn only(all: &[Found], kind: u8) -> &Found {
    let mut found = all.iter().filter(|structure| structure.kind == kind);
    let first = found.next().expect("it is there");
    assert!(found.next().is_none(), "type {kind} is there twice");
    first
}

#[test]
fn both_entry_points_lead_to_the_same_table() {
    let machine = Machine::new(64);
    build(&machine.memory, &machine.layout, &config(&SmbiosSettings::default())).unwrap();
    let old = find(&machine, b"_SM_");
    let [length, major, minor] = machine.read(old + 5);
    assert_eq!([length, major, minor], [0x1f, 2, 8]);
    assert_eq!(sum(&machine, old, 0x1f), 0);
    assert_eq!(machine.read(old + 0x10), *b"_DMI_");
    assert_eq!(sum(&machine, old + 0x10, 15), 0);
    let size = u16::from_le_bytes(machine.read(old + 0x16));
    let count = u16::from_le_bytes(machine.read(old + 0x1c));
    let largest = u16::from_le_bytes(machine.read(old + 8));

    let new = find(&machine, b"_SM3_");
    assert_eq!(machine.read(new + 6), [0x18, 3, 0]);
    assert_eq!(sum(&machine, new, 0x18), 0);
    assert_eq!(machine.u32(new + 0x0c), u32::from(size));
    let table = machine.u64(new + 0x10);
    assert_eq!(machine.u32(old + 0x18), table as u32);

    let all = walk(&machine, table, size.into());
    assert_eq!(all.len(), usize::from(count));
    let size = |s: &Found| {
        let strings: usize = s.strings.iter().map(|text| text.len() + 1).sum();
        s.formatted.len() + strings + if strings == 0 { 2 } else { 1 }
    };
    assert_eq!(all.iter().map(size).max(), Some(usize::from(largest)));
}

#[test]
fn all_structures_that_6_2_requires_are_there() {
    let all = structures(64, "");
    let kinds: Vec<u8> = all.iter().map(|structure| structure.kind).collect();
    assert_eq!(kinds, [0, 1, 2, 3, 4, 16, 17, 19, 32, 127]);
    let lengths: Vec<usize> = all.iter().map(|structure| structure.formatted.len()).collect();
    assert_eq!(lengths, [0x18, 0x1b, 0x0f, 0x16, 0x30, 0x17, 0x28, 0x1f, 0x0b, 4]);
    for structure in &all {
        assert_eq!(usize::from(structure.formatted[1]), structure.formatted.len());
    }
}

#[test]
fn handles_are_unique() {
    let all = structures(20 << 10, "type=11,value=x");
    let mut handles: Vec<_> = all.iter().map(|s| [s.formatted[2], s.formatted[3]]).collect();
    handles.sort_unstable();
    handles.dedup();
    assert_eq!(handles.len(), all.len());
}

#[test]
fn the_users_fields_are_in_their_structures() {
    let all =
        structures(64, "manufacturer=ACME,serial=7,uuid=00112233-4455-6677-8899-AABBCCDDEEFF");
    let system = only(&all, 1);
    assert_eq!([system.string(4), system.string(5), system.string(7)], ["ACME", "PC", "7"]);
    assert_eq!(system.formatted[8..12], [0x33, 0x22, 0x11, 0x00]);
    let all = structures(64, "type=0,vendor=V,date=01/02/2003,release=4.5");
    let bios = only(&all, 0);
    assert_eq!([bios.string(4), bios.string(8)], ["V", "01/02/2003"]);
    assert_eq!(bios.formatted[0x14..0x16], [4, 5]);
    let all = structures(64, "type=11,value=one,value=two");
    let oem = only(&all, 11);
    assert_eq!((oem.formatted[4], &oem.strings[..]), (2, &["one".into(), "two".into()][..]));
}

#[test]
fn the_processor_is_what_cpuid_says() {
    let all = structures(64, "");
    let processor = only(&all, 4);
    assert_eq!(processor.formatted[8..16], CPU.id.to_le_bytes());
    assert_eq!([processor.string(7), processor.string(0x10)], ["AuthenticAMD", "Some CPU"]);
    assert_eq!(processor.formatted[0x23..0x26], [2, 2, 2], "cores, enabled cores, threads");
}

#[test]
fn memory_devices_sum_up_to_all_ram_and_the_ranges_are_where_it_lies() {
    for mib in [2_u64, 512, 5 << 10, 20 << 10] {
        let all = structures(mib, "");
        let of = |kind| all.iter().filter(move |structure| structure.kind == kind);
        let sizes =
            of(17).map(|s| u64::from(u16::from_le_bytes([s.formatted[12], s.formatted[13]])));
        assert_eq!(sizes.sum::<u64>(), mib);
        let field = |s: &Found, at: usize| {
            u64::from(u32::from_le_bytes(s.formatted[at..at + 4].try_into().unwrap()))
        };
        assert_eq!(field(only(&all, 16), 7), mib << 10, "capacity in KiB");
        let ranges: Vec<_> = of(19).map(|s| (field(s, 4), field(s, 8))).collect();
        let low = mib.min(3 << 10) << 10;
        let mut expected = vec![(0, low - 1)];
        if mib > 3 << 10 {
            expected.push((4 << 20, (4 << 20) + (mib << 10) - low - 1));
        }
        assert_eq!(ranges, expected);
    }
}

#[test]
fn too_long_strings_are_refused() {
    let machine = Machine::new(64);
    let settings = format!("serial={}", "x".repeat(0x1_0000)).parse().unwrap();
    let error = build(&machine.memory, &machine.layout, &config(&settings)).unwrap_err();
    assert!(matches!(error, LoadError::SmbiosTooLarge { .. }), "{error}");
}
