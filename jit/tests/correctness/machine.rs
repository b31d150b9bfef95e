//! A small machine: RAM mapped to itself in pages of 4 KiB, code at privilege level 0, a handler
//! that halts for each vector. It runs a program on the interpreter, and on the JIT with blocks
//! translated at once or after they ran once or a few times; all must end alike.

use std::sync::Arc;

use trivium_cpu::bits::{cr0, cr4, efer};
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{Activity, CS, Segment, SegmentAttributes, TableRegister};
use trivium_cpu::{Budget, CpuState, Exit, NullBus, Vcpu};
use trivium_interp::{Interpreter, Topology};
use trivium_jit::{Jit, JitOptions};
use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, Region, RegionKind};

/// RAM, whose pages are mapped to themselves.
const RAM: u64 = 0x10_0000;
/// Free for code: from here on, and the pages behind.
pub const CODE: u64 = 0x4_0000;
/// Free for data: 16 pages.
pub const DATA: u64 = 0x6_0000;
/// A linear page that is not mapped.
pub const NOWHERE: u64 = 0x18_0000;
/// The top of the stack.
pub const STACK: u64 = 0x9_fff0;
/// The page table, for the first 2 MiB.
const TABLE: u64 = 0x1_3000;
/// The global descriptor table: selector 8 is code, 16 is data.
pub const GDT: u64 = 0x2000;
const IDT: u64 = 0x3000;
pub const HANDLERS: u64 = 0x6000;
pub const HLT: u8 = 0xf4;

pub const PRESENT: u64 = 1;
pub const WRITE: u64 = 2;
const DIRTY: u64 = 0x60;

/// A host of before 2013.
const OLD: &str = "no-bmi2,no-bmi1,no-lzcnt,no-movbe,no-adx,no-avx,no-sse4.2,no-popcnt";

/// Registers by their numbers.
pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RBX: usize = 3;
pub const RSP: usize = 4;
pub const RBP: usize = 5;
pub const RSI: usize = 6;
pub const RDI: usize = 7;
pub const R8: usize = 8;

/// The machine.
pub struct Machine {
    cpu: Interpreter,
    memory: Arc<GuestMemory>,
    bus: NullBus,
}

fn flat(attributes: u16) -> Segment {
    let attributes = SegmentAttributes(attributes);
    Segment { selector: 8, base: 0, limit: u32::MAX, attributes }
}

fn initial() -> CpuState {
    let mut state = CpuState::default();
    state.control.cr0 = cr0::PE | cr0::PG | cr0::ET | cr0::NE | cr0::WP;
    state.control.cr3 = TABLE - 0x3000;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::FSGSBASE | cr4::DE;
    state.control.efer = efer::LME | efer::LMA | efer::NXE;
    state.segments.regs = [flat(0xc093); 6];
    state.segments.regs[CS] = flat(0xa09b);
    state.segments.gdtr = TableRegister { base: GDT, limit: 0xff };
    state.segments.idtr = TableRegister { base: IDT, limit: 0xfff };
    state.general.rip = CODE;
    state.general.regs[RSP] = STACK;
    state.general.rflags = 2;
    (state.x87.control, state.x87.tags) = (0x37f, 0xffff);
    state.vector.mxcsr = 0x1f80;
    state
}

impl Machine {
    /// One that interprets; or one that translates blocks that ran so often, and together with what
    /// follows when so many instructions were run, for a host without some features.
    fn new(kind: Option<(u32, u32, &str)>) -> Self {
        let memory = Arc::new(GuestMemory::new(RAM, 1).expect("memory"));
        let ram = Region::new(0, RAM, RegionKind::Ram { offset: 0 });
        memory.set_map(FlatMap::new(&[ram]));
        let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: 1 << 30, apic_hz: 1 << 30 };
        let scratch = memory.scratch(0, 1).expect("a page");
        let model = Arc::new(CpuModel::by_name("max").expect("a model"));
        let mut cpu = Interpreter::new(memory.clone(), model, topology, scratch);
        if let Some((warm, quantum, host)) = kind {
            let host = host.parse().unwrap_or_default();
            let options = JitOptions { host, ..JitOptions::default() };
            let jit = Jit::with_options(&options).expect("code memory");
            cpu = cpu.with_translator(Box::new(jit)).with_warm(warm).with_hot(quantum, 1);
        }
        cpu.load(&initial()).expect("a state");
        let mut machine = Self { cpu, memory, bus: NullBus::new() };
        machine.put_tables();
        machine
    }

    fn put_tables(&mut self) {
        self.put(GDT + 8, &0x00af_9b00_0000_ffff_u64.to_le_bytes());
        self.put(GDT + 16, &0x00cf_9300_0000_ffff_u64.to_le_bytes());
        for vector in 0..256_u64 {
            let handler = HANDLERS + 16 * vector;
            self.put(handler, &[HLT]);
            // An interrupt gate, present, to selector 8.
            let gate = handler & 0xffff | 8 << 16 | 0x8e << 40;
            self.put(IDT + 16 * vector, &gate.to_le_bytes());
        }
        for level in 0..3 {
            let at = TABLE - 0x3000 + 0x1000 * level;
            self.put(at, &((at + 0x1000) | 7).to_le_bytes());
        }
        for page in (0..RAM).step_by(0x1000) {
            self.map(page, page | PRESENT | WRITE);
        }
    }

    /// Maps a linear page below 2 MiB; the TLB is not told.
    pub fn map(&mut self, linear: u64, entry: u64) {
        let entry = if entry & PRESENT != 0 { entry | DIRTY } else { entry };
        self.put(Self::entry(linear), &entry.to_le_bytes());
    }

    /// Where the page-table entry of a linear page is.
    pub fn entry(linear: u64) -> u64 {
        TABLE + 8 * (linear >> 12)
    }

    /// Writes to memory, as a device does.
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        self.memory.write(GuestPhysAddr(at), bytes).expect("it is RAM");
    }

    /// Reads memory.
    pub fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read(GuestPhysAddr(at), &mut bytes).expect("it is RAM");
        bytes
    }

    /// Reads a number from memory.
    pub fn number(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.get(at))
    }

    /// An interrupt of this vector waits.
    pub fn interrupt(&mut self, vector: u8) {
        self.bus.interrupt(vector);
    }

    pub fn state(&mut self) -> CpuState {
        self.cpu.save().expect("a state")
    }

    /// Changes the state; the TLB is flushed.
    pub fn set(&mut self, change: impl FnOnce(&mut CpuState)) {
        let mut state = self.state();
        change(&mut state);
        self.cpu.load(&state).expect("a state");
    }

    pub fn reg(&mut self, number: usize) -> u64 {
        self.state().general.regs[number]
    }

    /// Runs so many instructions, or up to HLT.
    pub fn run(&mut self, instructions: u64) -> Exit {
        self.cpu.run(&self.bus, Budget { instructions }).expect("it runs")
    }

    /// Goes on behind HLT, at an address.
    pub fn go_on_at(&mut self, rip: u64) {
        self.set(|state| {
            state.general.rip = rip;
            state.events.activity = Activity::Running;
        });
    }

    /// Runs up to HLT.
    pub fn run_to_halt(&mut self) {
        assert_eq!(self.run(1_000_000), Exit::Halted);
    }

    /// Runs up to the handler of an exception; gives its vector.
    pub fn run_to_exception(&mut self) -> u8 {
        self.run_to_halt();
        let at = self.state().general.rip.wrapping_sub(HANDLERS);
        assert!(at < 0x1000 && at % 16 == 1, "it halted elsewhere");
        (at / 16) as u8
    }

    /// What the frame of an exception says: RIP, CS, RFLAGS, RSP, behind the error code if there is
    /// one.
    pub fn frame(&mut self, has_code: bool) -> [u64; 4] {
        let at = self.reg(RSP) + if has_code { 8 } else { 0 };
        [0, 8, 16, 24].map(|n| self.number(at + n))
    }
}

/// Runs a test on the interpreter and on JITs, and compares what they are in the end.
pub fn everywhere(test: impl Fn(&mut Machine)) {
    let mut first: Option<(CpuState, Vec<u8>)> = None;
    // Those with few instructions make superblocks of whatever loops a few times.
    let kinds = [
        (0, 4000, "all"),
        (1, 4000, "all"),
        (3, 4000, "all"),
        (0, 150, "all"),
        (1, 600, "all"),
        (0, 4000, OLD),
        (0, 150, OLD),
        (1, 600, "no-avx2,no-bmi1,no-movbe"),
    ];
    for warm in std::iter::once(None).chain(kinds.map(Some)) {
        let mut machine = Machine::new(warm);
        test(&mut machine);
        let mut memory = vec![0; RAM as usize];
        machine.memory.read(GuestPhysAddr(0), &mut memory).expect("it is RAM");
        let state = machine.state();
        match &first {
            None => first = Some((state, memory)),
            Some((expected, expected_memory)) => {
                let differences = expected.differences(&state);
                assert!(differences.is_empty(), "warm {warm:?}: {differences:?}");
                let differs = memory.iter().zip(expected_memory).position(|(a, b)| a != b);
                assert_eq!(differs, None, "warm {warm:?}: memory");
            }
        }
    }
}

/// Assembles code for an address.
#[macro_export]
macro_rules! code {
    ($at:expr ; $($code:tt)*) => {{
        use dynasmrt::{DynasmApi, DynasmLabelApi, VecAssembler, dynasm, x64::X64Relocation};
        let mut asm = VecAssembler::<X64Relocation>::new($at as usize);
        dynasm!(asm ; .arch x64 ; $($code)*);
        asm.finalize().expect("it can be assembled")
    }};
}
