//! Every device takes thousands of random programs: what the fuzz targets do for minutes, the same
//! on every run.

use super::program::steps;
use super::{Space, Step, TARGETS};

/// Programs for each device.
const PROGRAMS: u64 = 1500;
/// Bytes of the longest.
const LONGEST: u64 = 400;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn program(&mut self) -> Vec<u8> {
        let length = self.next() % LONGEST;
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Tells which program it was that a device did not take.
struct Context(&'static str, Vec<u8>);

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} does not take the program {:02x?}", self.0, self.1);
        }
    }
}

#[test]
fn random_programs_do_no_harm_to_any_device() {
    for target in TARGETS {
        let mut random = Random(0x7472_6976_6975_6d00);
        for _ in 0..PROGRAMS {
            let context = Context(target.name, random.program());
            (target.run)(&context.1);
        }
    }
}

#[test]
fn every_target_has_a_name_of_its_own() {
    for (n, target) in TARGETS.iter().enumerate() {
        assert!(TARGETS[..n].iter().all(|other| other.name != target.name), "{}", target.name);
    }
}

#[test]
fn a_program_reads_as_its_bytes_say() {
    let space = Space { ports: &[0x60, 0x64], mmio: &[0xf0], pci: true };
    let bytes =
        [0x00, 0, 1, 0, 0x40, 1, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0xa0, 3, 5, 0xf0, 0xfc, 0x00];
    let expected = [
        Step::PortRead(0x64, trivium_chipset::AccessWidth::Byte),
        Step::MmioWrite(0xf0, vec![1, 2, 3, 4, 5, 6, 7, 8]),
        Step::Advance(40),
        Step::SaveRestore,
        Step::Reset,
    ];
    assert_eq!(steps(&space, &bytes), expected);
}

#[test]
fn what_the_fuzzer_has_found_is_taken() {
    // DMA of fw_cfg at the last addresses that there are.
    let fw_cfg = [
        0x8c, 0x8c, 0xf8, 0x8c, 0xf8, 0xff, 0xff, 0x8c, 0x8c, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xf8,
        0xff, 0xff, 0xff, 0x8c, 0x8d, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xf8, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0x7a,
    ];
    let target = TARGETS.iter().find(|target| target.name == "fw-cfg");
    (target.expect("it is there").run)(&fw_cfg);
}
