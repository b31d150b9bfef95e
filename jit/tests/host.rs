//! Hosts that refuse what the JIT wants of them, and faults of the host's.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;

use trivium_cpu::bits::cr0;
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{CS, Segment, SegmentAttributes};
use trivium_cpu::{Budget, CpuState, NullBus, Vcpu};
use trivium_interp::block::{Block, Dropped, Reach};
use trivium_interp::op::Op;
use trivium_interp::run::{Translated, Translator};
use trivium_interp::{Cpu, Interpreter, Topology};
use trivium_jit::{CodeError, Jit};
use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, Region, RegionKind};

/// BPF's instructions, as seccomp(2) takes them: code, jumps if true and if false, and a number.
type Filter = [(u16, u8, u8, u32)];

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const HAS: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// Of `seccomp_data`: the number of the call, and the lower half of its third argument.
const NUMBER: u32 = 0;
const THIRD: u32 = 16 + 2 * 8;

/// Nothing may be executed that was not when the thread began.
const NO_CODE: &Filter = &[
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 1, 0, libc::SYS_mmap as u32),
    (EQUAL, 0, 2, libc::SYS_mprotect as u32),
    (LOAD, 0, 0, THIRD),
    (HAS, 1, 0, libc::PROT_EXEC as u32),
    (RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    (RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EACCES as u32),
];

/// There is no memfd_create.
const NO_MEMFD: &Filter = &[
    (LOAD, 0, 0, NUMBER),
    (EQUAL, 1, 0, libc::SYS_memfd_create as u32),
    (RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    (RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
];

/// What a function gives in a thread that lives under a filter.
fn under<T: Send>(filter: &Filter, run: impl FnOnce() -> T + Send) -> T {
    let mut list: Vec<_> =
        filter.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let limited = move || {
        let program = libc::sock_fprog { len: list.len() as u16, filter: list.as_mut_ptr() };
        // SAFETY: the program is there during the call; it holds for this thread alone.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let mode = libc::SECCOMP_MODE_FILTER;
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
        }
        run()
    };
    std::thread::scope(|scope| scope.spawn(limited).join().unwrap())
}

#[test]
fn a_host_that_lets_nothing_be_executed_is_an_error_that_says_so() {
    let error = under(NO_CODE, || Jit::new().err().unwrap());
    assert!(matches!(error, CodeError::Host(_)));
    let text = error.to_string();
    assert!(text.starts_with("The host gives no memory for translated code: Permission"), "{text}");
}

#[test]
fn a_host_without_memfd_does() {
    assert!(under(NO_MEMFD, || Jit::new().is_ok()));
}

/// A translator that spoils the TLB when it has translated the block at an address: its entries
/// then lead to memory that the host has not.
struct Spoiling(Jit);

impl Translator for Spoiling {
    fn extend(&mut self, _: &mut Cpu, _: &trivium_interp::block::BlockCache, _: u32) {}

    fn translate(&mut self, cpu: &mut Cpu, block: &Block, ops: &[Op]) -> Translated {
        let translated = self.0.translate(cpu, block, ops);
        if block.rip == LOOP && matches!(translated, Translated::Ops(_)) {
            println!("spoilt");
            cpu.tlb.read.iter_mut().for_each(|entry| entry.addend = 1);
        }
        translated
    }
    fn chain(&mut self, cpu: &Cpu, link: (u32, u8), to: u32, reach: Reach) {
        self.0.chain(cpu, link, to, reach);
    }
    fn reached(&mut self, cpu: &mut Cpu, rip: u64, block: u32, reach: Reach) {
        self.0.reached(cpu, rip, block, reach);
    }
    fn take_cooled(&mut self) -> Vec<u32> {
        self.0.take_cooled()
    }
    fn take_evicted(&mut self) -> Vec<u32> {
        self.0.take_evicted()
    }
    fn forget(&mut self, cpu: &mut Cpu, dropped: Dropped) {
        self.0.forget(cpu, dropped);
    }
}

const START: u64 = 0x1000;
/// Of 32-bit code: loads in a loop.
const PROGRAM: &[u8] = &[
    0xb9, 0xe8, 0x03, 0x00, 0x00, // mov ecx, 1000
    0x8b, 0x1d, 0x00, 0x30, 0x00, 0x00, // loop: mov ebx, [3000h]
    0xff, 0xc9, // dec ecx
    0x75, 0xf6, // jnz loop
    0xf4, // hlt
];
const LOOP: u64 = START + 5;

fn run_with_a_spoilt_tlb() {
    let memory = Arc::new(GuestMemory::new(0x1_0000, 1).unwrap());
    memory.set_map(FlatMap::new(&[Region::new(0, 0x1_0000, RegionKind::Ram { offset: 0 })]));
    memory.write(GuestPhysAddr(START), PROGRAM).unwrap();
    let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: 1 << 30, apic_hz: 1 << 30 };
    let scratch = memory.scratch(0, 1).unwrap();
    let model = Arc::new(CpuModel::by_name("max").unwrap());
    let jit = Box::new(Spoiling(Jit::new().unwrap()));
    let cpu = Interpreter::new(memory, model, topology, scratch);
    let mut cpu = cpu.with_translator(jit).with_warm(10);
    let segment = |attributes| {
        let attributes = SegmentAttributes(attributes);
        Segment { selector: 8, base: 0, limit: u32::MAX, attributes }
    };
    let mut state = CpuState::default();
    state.control.cr0 = cr0::PE | cr0::ET | cr0::NE;
    state.segments.regs = [segment(0xc093); 6];
    state.segments.regs[CS] = segment(0xc09b);
    (state.general.rip, state.general.rflags) = (START, 2);
    cpu.load(&state).unwrap();
    let _ = cpu.run(&NullBus::new(), Budget { instructions: 10_000 });
}

/// Set in the process that is to have the fault.
const FAULTING: &str = "TRIVIUM_TEST_FAULT";

#[test]
fn a_fault_of_the_hosts_in_translated_code_ends_the_process() {
    if std::env::var_os(FAULTING).is_some() {
        return run_with_a_spoilt_tlb();
    }
    let this = "a_fault_of_the_hosts_in_translated_code_ends_the_process";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture"])
        .env(FAULTING, "1")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("spoilt"));
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV));
}
