//! The small ports against their descriptions.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use trivium_chipset::{AccessWidth, BusError, PortIo};

use super::*;
use crate::power::{PowerSink, ResetKind};
use crate::sys::{A20Sink, A20Source, ExitSink};
use crate::test_support::{Fixture, check, port_steps};

/// Writes down what comes out of the ports.
#[derive(Default, Clone)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn push(&self, entry: String) {
        self.0.lock().unwrap().push(entry);
    }
    fn entries(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl A20Sink for Log {
    fn set_a20(&self, source: A20Source, open: bool) {
        self.push(format!("{source:?} {open}"));
    }
}

impl PowerSink for Log {
    fn power_off(&self) {
        self.push("off".into());
    }
    fn reset(&self, kind: ResetKind) {
        self.push(format!("{kind:?}"));
    }
}

impl ExitSink for Log {
    fn request_exit(&self, status: u32) {
        self.push(format!("{status:#x}"));
    }
}

impl DebugConsoleBackend for Log {
    fn write(&mut self, byte: u8) {
        self.push(char::from(byte).to_string());
    }
}

fn sink() -> Arc<Log> {
    Arc::default()
}

#[test]
fn port_92h_drives_a20_and_resets_on_a_rise() {
    let log = sink();
    let mut port = Port92::new(log.clone(), log.clone());
    for value in [0x02, 0x02, 0x03, 0x03, 0x00] {
        port.write(0x92, AccessWidth::Byte, value).unwrap();
    }
    assert_eq!(log.entries(), ["Port92 true", "Soft", "Port92 false"]);
    port.write(0x92, AccessWidth::Byte, 0xfe).unwrap();
    assert_eq!(port.read(0x92, AccessWidth::Byte), Ok(0x02));
}

#[test]
fn port_80h_reads_back() {
    let mut port = PostPort::new();
    port.write(0x80, AccessWidth::Byte, 0xa5).unwrap();
    assert_eq!((port.read(0x80, AccessWidth::Byte), port.code()), (Ok(0xa5), 0xa5));
    assert_eq!(port.read(0x80, AccessWidth::Word), Err(BusError::Width));
}

#[test]
fn the_debug_console_is_detected_by_e9h() {
    let log = Log::default();
    let mut port = DebugConsole::new(Box::new(log.clone()));
    assert_eq!(port.read(0xe9, AccessWidth::Byte), Ok(0xe9));
    for byte in *b"ok" {
        PortIo::write(&mut port, 0xe9, AccessWidth::Byte, byte.into()).unwrap();
    }
    assert_eq!(log.entries(), ["o", "k"]);
}

#[test]
fn the_debug_exit_makes_every_status_odd() {
    let log = sink();
    let mut port = DebugExit::new(DebugExit::DEFAULT_BASE, log.clone());
    for (at, width, value) in [
        (0x501, AccessWidth::Byte, 0x10),
        (0x501, AccessWidth::Dword, 0),
        (0x504, AccessWidth::Dword, 0xffff_ffff),
    ] {
        port.write(at, width, value).unwrap();
    }
    assert_eq!(log.entries(), ["0x21", "0x1", "0xffffffff"]);
    for outside in [0x500, 0x505] {
        assert_eq!(port.write(outside, AccessWidth::Byte, 0), Err(BusError::NoRegister));
    }
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(
        port92 in port_steps(&[0x91, 0x92]),
        post in port_steps(&[0x80, 0x81]),
        console in port_steps(&[0xe9, 0xea]),
        exit in port_steps(&[0x500, 0x501, 0x502, 0x504, 0x505]),
    ) {
        check(|| Fixture::new(|_, _| Port92::new(sink(), sink())), &port92);
        check(|| Fixture::new(|_, _| PostPort::new()), &post);
        check(|| Fixture::new(|_, _| DebugConsole::new(Box::new(Log::default()))), &console);
        check(|| Fixture::new(|_, _| DebugExit::new(0x501, sink())), &exit);
    }
}
