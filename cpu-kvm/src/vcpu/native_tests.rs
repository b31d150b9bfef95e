//! How fast user-level code runs under KVM, beside the same machine code on the host: a measurement,
//! for a quiet host.

#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use crate::Behaviour;
use crate::testing::{Listener, kvm, long_mode, memory};

/// What a loop may read and write: its guest address, and its size.
const BUFFER: u64 = 0x20_0000;
const BUFFER_SIZE: usize = 64 << 10;
const ROUNDS: usize = 15;

/// Loops with their count in RCX and a buffer of 64 KiB at RDI; they leave RBX and others alone. Their
/// names, counts, and code.
const LOOPS: [(&str, u32, &[u8]); 3] = [
    // SUB RCX, 1; JNZ
    ("counting", 150_000_000, &[0x48, 0x83, 0xe9, 0x01, 0x75, 0xfa]),
    // IMUL RAX, RAX, 41C64E6Dh; ADD RAX, 3039h; ROL RAX, 7; SUB RCX, 1; JNZ
    (
        "multiply",
        40_000_000,
        &[
            0x48, 0x69, 0xc0, 0x6d, 0x4e, 0xc6, 0x41, 0x48, 0x05, 0x39, 0x30, 0, 0, 0x48, 0xc1,
            0xc0, 0x07, 0x48, 0x83, 0xe9, 0x01, 0x75, 0xe9,
        ],
    ),
    // MOVZX EDX, CX; AND EDX, FFF8h; ADD [RDI + RDX], RCX; MOV RAX, [RDI + RDX]; SUB RCX, 1; JNZ
    (
        "memory",
        80_000_000,
        &[
            0x0f, 0xb7, 0xd1, 0x81, 0xe2, 0xf8, 0xff, 0, 0, 0x48, 0x01, 0x0c, 0x17, 0x48, 0x8b,
            0x04, 0x17, 0x48, 0x83, 0xe9, 0x01, 0x75, 0xe9,
        ],
    ),
];

/// MOV ECX, count; XOR EAX, EAX; the loop; then what ends it.
fn program(count: u32, code: &[u8], end: &[u8]) -> Vec<u8> {
    [&[0xb9][..], &count.to_le_bytes(), &[0x31, 0xc0], code, end].concat()
}

/// Machine code of the host's.
struct Native {
    start: *mut libc::c_void,
}

impl Native {
    fn new(code: &[u8]) -> Self {
        // SAFETY: a new mapping at no address in particular; the code fits the page, which nobody
        // else has, and is made executable only once it is written.
        unsafe {
            let (private, anonymous) = (libc::MAP_PRIVATE, libc::MAP_ANONYMOUS);
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let start =
                libc::mmap(std::ptr::null_mut(), 4096, protection, private | anonymous, -1, 0);
            assert!(start != libc::MAP_FAILED && code.len() <= 4096);
            std::ptr::copy_nonoverlapping(code.as_ptr(), start.cast(), code.len());
            let done = libc::mprotect(start, 4096, libc::PROT_READ | libc::PROT_EXEC);
            assert_eq!(done, 0, "this host lets programs make code");
            Self { start }
        }
    }

    fn run(&self, buffer: &mut [u8]) -> Duration {
        assert_eq!(buffer.len(), BUFFER_SIZE);
        // SAFETY: the code is one of `LOOPS` and RET: it changes RAX, RCX, RDX and the buffer alone,
        // all of which the calling convention lets it.
        unsafe {
            let run: extern "sysv64" fn(*mut u8) = std::mem::transmute(self.start);
            let begin = Instant::now();
            run(buffer.as_mut_ptr());
            begin.elapsed()
        }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: the mapping is this struct's own.
        unsafe { libc::munmap(self.start, 4096) };
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// 64-bit code at CPL 3 is to be within 10 % of native speed: medians of runs in turns.
#[test]
#[ignore = "a measurement, for a quiet host"]
fn user_level_code_runs_at_the_hosts_speed() {
    let memory = memory(64);
    let Some(mut vcpu) = kvm(&memory, &[Behaviour::UserFast]) else { return };
    let bus = Listener::default();
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut slowest: f64 = 0.0;
    for (name, count, code) in LOOPS {
        let native = Native::new(&program(count, code, &[0xc3]));
        let (mut hosts, mut guests) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            hosts.push(native.run(&mut buffer));
            let mut state = long_mode(&memory, 3, &program(count, code, &[0x0f, 0x0b]));
            state.general.regs[7] = BUFFER;
            vcpu.forget_attention();
            let exit = vcpu.run_user(&state, &bus).unwrap().unwrap();
            assert_eq!(exit.state.general.regs[1], 0, "the loop came to its end");
            guests.push(exit.inside);
        }
        let (host, guest) = (median(hosts), median(guests));
        let ratio = guest.as_secs_f64() / host.as_secs_f64();
        slowest = slowest.max(ratio);
        println!("{name}: host {host:?}, guest {guest:?}: {ratio:.3} times its time");
    }
    assert!(slowest < 1.1, "{slowest:.3} times native time");
}

/// What a change of the CPU costs on KVM's side: a state put in, with the slots made anew, and taken
/// out, with the pages that were written.
#[test]
#[ignore = "a measurement, for a quiet host"]
fn a_state_goes_into_kvm_and_out_of_it_in_so_long() {
    let memory = memory(512);
    let Some(mut vcpu) = kvm(&memory, &[Behaviour::RealMode]) else { return };
    let state = long_mode(&memory, 3, &[0xf4]);
    let (mut loads, mut saves) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let begin = Instant::now();
        vcpu.take_over(&state).unwrap();
        loads.push(begin.elapsed());
        let begin = Instant::now();
        vcpu.take_state().unwrap();
        vcpu.collect_dirty().unwrap();
        saves.push(begin.elapsed());
    }
    println!("in {:?}, out {:?} (medians)", median(loads), median(saves));
}
