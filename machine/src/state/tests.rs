//! Saved states as bytes: what was written is read, and nothing else is.

use trivium_cpu::CpuModel;
use trivium_memory::GuestPhysAddr;

use super::*;
use crate::config::{ClockMode, MachineConfig};

fn machine() -> Machine {
    let mut config = MachineConfig::new(CpuModel::by_name("qemu64").unwrap(), 4 << 20);
    config.firmware = Some(vec![0xf4; 4096]);
    config.clock = ClockMode::Icount { sleep: false };
    let machine = Machine::new(config).unwrap();
    for (address, byte) in [(0x1000, 1), (0x5_0000, 2), (0x3f_ffff, 3)] {
        machine.memory().write(GuestPhysAddr(address), &[byte]).unwrap();
    }
    machine
}

fn bytes() -> Vec<u8> {
    machine().save().unwrap().to_bytes()
}

#[test]
fn what_was_written_is_read_and_has_the_same_hash() {
    let mut machine = machine();
    let state = machine.save().unwrap();
    assert_eq!(state.hash(), machine.state_hash().unwrap());
    let again = MachineState::from_bytes(&state.to_bytes()).unwrap();
    assert_eq!(again, state);
    assert_eq!(again.hash(), state.hash());
    let mut other = self::machine();
    other.memory().write(GuestPhysAddr(0x7000), &[9]).unwrap();
    assert_ne!(other.state_hash().unwrap(), state.hash());
    other.restore(&again).unwrap();
    assert_eq!(other.state_hash().unwrap(), state.hash());
}

#[test]
fn every_beginning_of_a_state_is_incomplete() {
    let bytes = bytes();
    let steps = (0..bytes.len()).filter(|length| *length < 9000 || length % 97 == 0);
    for length in steps {
        let error = MachineState::from_bytes(&bytes[..length]).unwrap_err();
        assert!(matches!(error, FormatError::Truncated { .. }), "{length}: {error}");
    }
}

#[test]
fn every_changed_byte_is_found() {
    let good = bytes();
    let places = (0..good.len()).filter(|place| *place < 9000 || place % 97 == 0);
    let mut bytes = good.clone();
    for place in places {
        bytes[place] ^= 0x21;
        let error = MachineState::from_bytes(&bytes).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        bytes[place] = good[place];
    }
    bytes.push(0);
    let error = MachineState::from_bytes(&bytes).unwrap_err().to_string();
    assert!(error.contains("after the end"), "{error}");
}

#[test]
fn later_versions_are_refused_by_name() {
    let mut bytes = bytes();
    bytes[8] = 2;
    let error = MachineState::from_bytes(&bytes).unwrap_err().to_string();
    assert!(error.contains("format 2, this program knows up to 1"), "{error}");
    let mut machine = machine();
    let mut state = machine.save().unwrap();
    let rtc = state.devices.iter_mut().find(|(name, _)| name == "rtc").unwrap();
    rtc.1.version = 900;
    let state = MachineState::from_bytes(&state.to_bytes()).unwrap();
    let error = machine.restore(&state).unwrap_err().to_string();
    assert!(error.contains("'rtc'") && error.contains("version 900"), "{error}");
    let error = MachineState::from_bytes(b"#!/bin/sh\necho no").unwrap_err().to_string();
    assert!(error.contains("not the saved state"), "{error}");
}

#[test]
fn a_section_twice_is_refused() {
    let mut state = machine().save().unwrap();
    state.devices.push(state.devices[0].clone());
    let error = MachineState::from_bytes(&state.to_bytes()).unwrap_err().to_string();
    assert!(error.contains("'device/pic'"), "{error}");
}

#[test]
fn an_impossible_processor_is_refused() {
    let mut machine = machine();
    let mut state = machine.save().unwrap();
    state.cpus[0].events.pending_debug = 1 << 40;
    assert!(machine.restore(&state).unwrap_err().to_string().contains("debug trap"));
}
