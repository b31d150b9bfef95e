//! Our own guest programs on whole machines: each checks its result against a known one.

use trivium_machine::RunEnd;
use trivium_machine::testing;

use crate::{ACCELS, LIMIT, machine};

fn run(name: &str, image: &[u8]) {
    for accel in ACCELS {
        let mut config = machine(*accel, 64, crate::PC);
        config.firmware = Some(image.to_vec());
        let outcome = testing::run(config, [], LIMIT).expect("the machine runs");
        let output = &outcome.output;
        assert_eq!(outcome.end, RunEnd::PowerOff, "{name}: {output}");
        assert!(output.contains(" done "), "{name}: {output}");
        assert!(!output.contains("wrong") && !output.contains("unexpected"), "{name}: {output}");
    }
}

#[test]
fn compiled_loops_give_the_right_checksums() {
    for body in trivium_test_roms::LOOPS {
        run(body.name, body.rom);
    }
}

#[test]
fn each_class_of_instructions_gives_the_right_checksum() {
    for (name, image, _) in trivium_test_roms::MICRO {
        run(name, image);
    }
}

#[test]
fn a_million_accesses_and_interrupts_come_to_their_end() {
    for (name, image, _) in trivium_test_roms::ACCESSES {
        run(name, image);
    }
}

/// Random bytes as code, from the reset vector on: whatever becomes of the guest, the machine ends
/// in good order when it is told to.
#[test]
fn random_code_brings_down_nothing_but_the_guest() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut image = vec![0; 0x1_0000];
    for round in 0..40 {
        for byte in &mut image {
            // Marsaglia's xorshift64.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            *byte = (seed >> 24) as u8;
        }
        for accel in ACCELS {
            let mut config = machine(*accel, 16, crate::PC);
            config.firmware = Some(image.clone());
            let limit = std::time::Duration::from_millis(100);
            let end = testing::run(config, [], limit);
            assert!(end.is_ok(), "round {round}: {end:?}");
        }
    }
}
