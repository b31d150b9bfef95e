//! A small machine for tests, with the interpreter alone or with a translator: RAM that is mapped
//! to itself, code at privilege level 0, and for each vector a handler that halts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trivium_cpu::bits::{cr0, cr4, efer};
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{CS, Segment, SegmentAttributes, TableRegister};
use trivium_cpu::{Budget, CpuState, Exit, NullBus, Vcpu};
use trivium_interp::block::{Block, Dropped, Reach};
use trivium_interp::op::Op;
use trivium_interp::run::{Translated, Translator};
use trivium_interp::{Cpu, Interpreter, Topology};
use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, Region, RegionKind};

use crate::{Jit, JitOptions};

/// RAM.
pub const RAM: u64 = 0x40_0000;
/// Free for data: two pages.
pub const DATA: u64 = 0xa000;
/// Bytes of it.
pub const DATA_SIZE: usize = 0x2000;
/// Free for code.
pub const CODE: u64 = 0x10_0000;
const GDT: u64 = 0x2000;
const IDT: u64 = 0x3000;
const HANDLERS: u64 = 0x6000;
const STACK: u64 = 0x9ff0;
const TABLES: u64 = 0x1_0000;
/// HLT.
pub const HLT: u8 = 0xf4;

/// A translator that counts the blocks that it has translated.
struct Counting {
    jit: Jit,
    count: Arc<AtomicUsize>,
}

impl Translator for Counting {
    fn extend(&mut self, _: &mut Cpu, _: &trivium_interp::block::BlockCache, _: u32) {}

    fn translate(&mut self, cpu: &mut Cpu, block: &Block, ops: &[Op]) -> Translated {
        let translated = self.jit.translate(cpu, block, ops);
        if matches!(translated, Translated::Ops(_)) {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        translated
    }
    fn chain(&mut self, cpu: &Cpu, link: (u32, u8), to: u32, reach: Reach) {
        self.jit.chain(cpu, link, to, reach);
    }
    fn reached(&mut self, cpu: &mut Cpu, rip: u64, block: u32, reach: Reach) {
        self.jit.reached(cpu, rip, block, reach);
    }
    fn take_cooled(&mut self) -> Vec<u32> {
        self.jit.take_cooled()
    }
    fn take_evicted(&mut self) -> Vec<u32> {
        self.jit.take_evicted()
    }
    fn forget(&mut self, cpu: &mut Cpu, dropped: Dropped) {
        self.jit.forget(cpu, dropped);
    }
}

/// The machine.
pub struct TestMachine {
    cpu: Interpreter,
    memory: Arc<GuestMemory>,
    translated: Arc<AtomicUsize>,
}

fn flat(attributes: u16) -> Segment {
    let attributes = SegmentAttributes(attributes);
    Segment { selector: 8, base: 0, limit: u32::MAX, attributes }
}

/// The model with everything.
pub fn model() -> CpuModel {
    CpuModel::by_name("max").unwrap()
}

impl TestMachine {
    /// One that interprets.
    pub fn interpreter() -> Self {
        Self::new(None)
    }

    /// One that translates.
    pub fn jit() -> Self {
        Self::jit_with(&JitOptions::default())
    }

    /// The same with choices.
    pub fn jit_with(options: &JitOptions) -> Self {
        Self::new(Some(options))
    }

    fn new(options: Option<&JitOptions>) -> Self {
        let memory = Arc::new(GuestMemory::new(RAM, 1).unwrap());
        let ram = Region::new(0, RAM, RegionKind::Ram { offset: 0 });
        memory.set_map(FlatMap::new(&[ram]));
        let hz = 1_000_000_000;
        let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: hz, apic_hz: hz };
        let scratch = memory.scratch(0, 1).unwrap();
        let mut cpu = Interpreter::new(memory.clone(), Arc::new(model()), topology, scratch);
        let translated = Arc::<AtomicUsize>::default();
        if let Some(options) = options {
            let jit = Jit::with_options(options).unwrap();
            let translator = Counting { jit, count: translated.clone() };
            cpu = cpu.with_translator(Box::new(translator)).with_warm(0);
            if let Some(statistics) = &options.statistics {
                cpu = cpu.with_counts(statistics.counts());
            }
        }
        let mut machine = Self { cpu, memory, translated };
        machine.put_tables();
        machine
    }

    fn put_tables(&mut self) {
        // Flat code, of 64 bits and of 32.
        self.put(GDT + 8, &0x00af_9b00_0000_ffff_u64.to_le_bytes());
        self.put(GDT + 0x108, &0x00cf_9b00_0000_ffff_u64.to_le_bytes());
        for vector in 0..256_u64 {
            let handler = HANDLERS + 16 * vector;
            self.put(handler, &[HLT]);
            // An interrupt gate, present, to selector 8; in 32-bit mode half as long.
            let gate = handler & 0xffff | 8 << 16 | 0x8e << 40;
            self.put(IDT + 16 * vector, &gate.to_le_bytes());
            self.put(IDT + 0x1000 + 8 * vector, &gate.to_le_bytes());
        }
        self.put(TABLES, &((TABLES + 0x1000) | 7).to_le_bytes());
        self.put(TABLES + 0x1000, &((TABLES + 0x2000) | 7).to_le_bytes());
        for page in 0..RAM >> 21 {
            self.put(TABLES + 0x2000 + 8 * page, &(page << 21 | 0x87).to_le_bytes());
        }
    }

    /// Writes to memory.
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        self.memory.write(GuestPhysAddr(at), bytes).unwrap();
    }

    /// Reads memory.
    pub fn get(&self, at: u64, bytes: &mut [u8]) {
        self.memory.read(GuestPhysAddr(at), bytes).unwrap();
    }

    /// Runs from a state until the processor halts; gives the state then.
    pub fn run(&mut self, state: &CpuState) -> CpuState {
        self.cpu.load(state).unwrap();
        let exit = self.cpu.run(&NullBus::new(), Budget { instructions: 10_000 }).unwrap();
        assert_eq!(exit, Exit::Halted);
        self.cpu.save().unwrap()
    }

    /// How many blocks have been translated.
    pub fn translated(&self) -> usize {
        self.translated.load(Ordering::Relaxed)
    }
}

/// The state in 64-bit mode, or in 32-bit protected mode without paging; SSE and AVX may be used.
pub fn state(long: bool) -> CpuState {
    let mut state = CpuState::default();
    state.control.cr0 = cr0::PE | cr0::ET | cr0::NE | cr0::WP;
    state.control.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    state.control.xcr0 = 7;
    state.segments.regs = [flat(0xc093); 6];
    state.segments.regs[CS] = flat(0xc09b);
    state.segments.gdtr = TableRegister { base: GDT + 0x100, limit: 0xff };
    state.segments.idtr = TableRegister { base: IDT + 0x1000, limit: 0x7ff };
    state.general.regs[4] = STACK;
    if long {
        state.control.cr0 |= cr0::PG;
        state.control.cr3 = TABLES;
        state.control.cr4 |= cr4::PAE;
        state.control.efer = efer::LME | efer::LMA | efer::NXE;
        state.segments.regs[CS] = flat(0xa09b);
        state.segments.gdtr = TableRegister { base: GDT, limit: 0xff };
        state.segments.idtr = TableRegister { base: IDT, limit: 0xfff };
    }
    state
}
