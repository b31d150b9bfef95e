//! A guest that does nothing but what is wrong does not fill the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use trivium_cpu::CpuModel;
use trivium_machine::{ClockMode, Machine, MachineConfig, RunEnd, testing};

/// Keeps all lines.
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(format!("{}", record.args()));
    }

    fn flush(&self) {}
}

static LINES: Lines = Lines(Mutex::new(Vec::new()));

/// A million times: ports and memory where nobody is, POST codes, commands that the keyboard
/// controller and power management do not know. Then the end.
#[rustfmt::skip]
const FLOOD: &[u8] = &[
    0xb8, 0x00, 0xa0,                   // mov ax, a000h
    0x8e, 0xc0,                         // mov es, ax
    0x66, 0xb9, 0x40, 0x42, 0x0f, 0x00, // mov ecx, 1000000
    0x89, 0xca,                         // mov dx, cx
    0x81, 0xca, 0x00, 0x80,             // or dx, 8000h
    0x88, 0xc8,                         // mov al, cl
    0xee,                               // out dx, al
    0xec,                               // in al, dx
    0x26, 0xa2, 0x00, 0x00,             // mov es:[0], al
    0x26, 0xa0, 0x00, 0x00,             // mov al, es:[0]
    0x88, 0xc8,                         // mov al, cl
    0xe6, 0x80,                         // out 80h, al
    0xb0, 0xb7,                         // mov al, b7h
    0xe6, 0x64,                         // out 64h, al
    0xe6, 0xb2,                         // out b2h, al
    0x66, 0x49,                         // dec ecx
    0x75, 0xe0,                         // jnz to mov dx, cx
    0xba, 0x01, 0x05,                   // mov dx, 501h
    0xee,                               // out dx, al
    0xf4,                               // hlt
];

/// A guest that resets the machine as often as it can: CF9h.
const RESETS: &[u8] = &[0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4];

fn machine(code: &[u8]) -> Machine {
    let mut rom = vec![0xf4; 4096];
    rom[..code.len()].copy_from_slice(code);
    // At the reset vector: jmp f000:f000.
    rom[0xff0..0xff5].copy_from_slice(&[0xea, 0x00, 0xf0, 0x00, 0xf0]);
    let mut config = MachineConfig::new(CpuModel::by_name("qemu64").unwrap(), 2 << 20);
    config.firmware = Some(rom);
    config.clock = ClockMode::Icount { sleep: false };
    config.debug_exit_port = Some(0x501);
    Machine::new(config).unwrap()
}

#[test]
fn a_million_bad_accesses_make_a_bounded_number_of_lines() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let begun = Instant::now();
    let limit = Duration::from_secs(300);
    let (end, late) = testing::run_limited(&mut machine(FLOOD), limit).unwrap();
    assert!(matches!(end, RunEnd::DebugExit(_)) && !late, "{end:?}");
    let (end, _) = testing::run_limited(&mut machine(RESETS), Duration::from_secs(1)).unwrap();
    assert_eq!(end, RunEnd::Stopped);
    let lines = LINES.0.lock().unwrap();
    // Ten at once for each place that logs, and then one a second.
    let most = 20 * (10 + begun.elapsed().as_secs() as usize + 1);
    assert!(lines.len() <= most, "{} lines", lines.len());
    for named in ["Nobody answers a write of port", "of address 0xa0000", "resets the machine"] {
        assert!(lines.iter().any(|line| line.contains(named)), "{named}: {lines:#?}");
    }
}
