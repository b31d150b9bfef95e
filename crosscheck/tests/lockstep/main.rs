//! Machines in lockstep: those that agree, and those of which one is broken, which are brought down
//! to the instruction.

mod duels;
mod kvm;
mod planted;

use trivium_chipset::VmTime;
use trivium_cpu::CpuModel;
use trivium_crosscheck::lockstep::{self, Pair, Side, Sync, Verdict, Wish};
use trivium_machine::testing::guest_file;
use trivium_machine::{Accel, ClockMode, KernelConfig, Machine, MachineConfig};

use duels::{BOTH, Guest, WHOLE, duel, on_large_stack};

/// Programs with code of all kinds, 64-bit code first.
fn guests() -> Vec<(&'static str, &'static [u8])> {
    let loops = trivium_test_roms::LOOPS.iter().step_by(6).map(|body| (body.name, body.rom));
    let suite = ["segmentation", "protection", "v86"];
    let suite = trivium_test_roms::SUITE.iter().filter(|(name, _)| suite.contains(name));
    let first = [
        ("variety", trivium_test_roms::VARIETY),
        ("segments", trivium_test_roms::SEGMENTS),
        ("demo", trivium_test_roms::DEMO),
    ];
    first.into_iter().chain(loops).chain(suite.copied()).collect()
}

fn agree(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Stopped(_) | Verdict::Agreed(..))
}

#[test]
fn machines_that_are_not_broken_agree_at_every_kind_of_point() {
    on_large_stack(|| {
        for (name, image) in guests() {
            let guest = Guest::Rom(image);
            let (verdict, _) = duel(&guest, BOTH, WHOLE, Sync::Every(200_000), 2_000_000);
            assert!(agree(&verdict), "{name}: {verdict:?}");
        }
        for sync in [Sync::Block, Sync::Exit, Sync::Every(1), Sync::Every(97)] {
            let guest = Guest::Rom(trivium_test_roms::DEMO);
            let (verdict, _) = duel(&guest, BOTH, WHOLE, sync, 5_000);
            assert!(agree(&verdict), "{sync:?}: {verdict:?}");
        }
    });
}

/// The beginning of the reference guest's boot.
#[test]
fn linux_boots_in_lockstep() {
    on_large_stack(|| {
        let side = |accel: Accel| -> Option<Side> {
            let mut config = MachineConfig::new(CpuModel::by_name("max").unwrap(), 512 << 20);
            config.kernel = Some(KernelConfig {
                image: guest_file("cloud", "vmlinuz")?,
                initrd: Some(guest_file("initrd", "initrd")?),
                command_line: "console=ttyS0 panic=-1 quickexit".to_owned(),
                ..KernelConfig::default()
            });
            config.clock = ClockMode::Icount { sleep: false };
            config.accel = accel;
            let blocks = config.blocks.clone();
            let machine = Machine::new(config).unwrap();
            Some(Side { name: format!("{accel:?}"), machine, blocks, around: None })
        };
        let (Some(first), Some(second)) = (side(Accel::Interp), side(Accel::Jit)) else { return };
        let mut pair = Pair::new([first, second]).unwrap();
        let far = VmTime::from_nanos(300_000_000);
        let verdict = lockstep::run(&mut pair, Sync::default(), |progress| {
            if progress.now >= far { Wish::Stop } else { Wish::GoOn(Vec::new()) }
        });
        let verdict = verdict.unwrap();
        assert!(matches!(verdict, Verdict::Stopped(_)), "{verdict:?}");
    });
}
