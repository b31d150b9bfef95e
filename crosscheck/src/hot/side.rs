//! One of the two CPUs that are compared, with its memory and platform.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use iced_x86::{Decoder, DecoderOptions, Instruction};
use trivium_cpu::bits::rflags;
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{CS, SegmentAttributes};
use trivium_cpu::{Budget, CpuState, Exit, Vcpu};
use trivium_interp::{Interpreter, Topology};
use trivium_jit::{Host, Jit, JitOptions};
use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, RamView, Region, RegionKind};

use super::Event;
use super::platform::Platform;
use crate::anything;

/// RAM.
pub(super) const RAM_SIZE: u64 = anything::RAM;
/// The pages that are mapped elsewhere at times: four of them, with the same code.
pub(super) const DATA: u64 = 0x2_0000;
/// The lowest page tables: of 64-bit and PAE entries, and of 32-bit ones.
pub(super) const WIDE_TABLE: u64 = 0x1_0000;
pub(super) const NARROW_TABLE: u64 = 0x1_1000;

/// All pages that hold page tables.
const TABLES: [u64; 8] = [
    anything::LONG_TABLES,
    anything::LONG_TABLES + 0x1000,
    anything::LONG_TABLES + 0x2000,
    anything::PAE_TABLES,
    anything::PAE_TABLES + 0x1000,
    anything::LEGACY_TABLES,
    WIDE_TABLE,
    NARROW_TABLE,
];

/// A CPU with all that it needs.
pub(super) struct Side {
    vcpu: Box<dyn Vcpu>,
    memory: Arc<GuestMemory>,
    platform: Platform,
}

/// Puts the lowest page tables into memory, which map all of it to itself.
pub(super) fn furnish_tables(memory: &GuestMemory) {
    let put = |at: u64, bytes: &[u8]| {
        // All of it lies in RAM.
        let _ = memory.write(GuestPhysAddr(at), bytes);
    };
    let entries = (0..=RAM_SIZE >> 12).map(|page| page << 12 | 7);
    let wide: Vec<u8> = entries.clone().flat_map(u64::to_le_bytes).collect();
    let narrow: Vec<u8> = entries.flat_map(|entry| (entry as u32).to_le_bytes()).collect();
    put(WIDE_TABLE, &wide);
    put(NARROW_TABLE, &narrow);
    for (at, size) in [(anything::LONG_TABLES + 0x2000, 8), (anything::PAE_TABLES + 0x1000, 8)] {
        put(at, &(WIDE_TABLE | 7).to_le_bytes()[..size]);
    }
    put(anything::LEGACY_TABLES, &(NARROW_TABLE as u32 | 7).to_le_bytes());
}

/// How a JIT is to translate, and who counts its superblocks.
pub(super) struct Hot {
    /// How often a block is interpreted before it is translated.
    pub(super) warm: u32,
    /// After how many instructions at most what is run may be translated with what follows it.
    pub(super) quantum: u32,
    pub(super) superblocks: Arc<AtomicU64>,
    /// Bytes of memory for translated code.
    pub(super) memory: usize,
    /// What of the host's processor may be used.
    pub(super) host: Host,
}

impl Side {
    /// A JIT, or an interpreter, in memory that is furnished by a function.
    pub(super) fn new(
        furnish: impl FnOnce(&GuestMemory),
        platform: Platform,
        state: &CpuState,
        hot: Option<Hot>,
    ) -> Self {
        let memory = Arc::new(GuestMemory::new(RAM_SIZE, 1).expect("the host has a MiB"));
        memory.set_map(FlatMap::new(&[
            Region::new(0, RAM_SIZE, RegionKind::Ram { offset: 0 }),
            Region::new(RAM_SIZE, 0x1000, RegionKind::Mmio { id: 0 }),
        ]));
        furnish(&memory);
        let scratch = memory.scratch(0, 1).unwrap_or_default();
        let hz = 1_000_000_000;
        let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: hz, apic_hz: hz };
        let model = Arc::new(CpuModel::by_name("max").expect("there is such a model"));
        let mut cpu = Interpreter::new(memory.clone(), model, topology, scratch);
        if let Some(Hot { warm, quantum, superblocks, memory, host }) = hot {
            let superblocks = Some(superblocks);
            let options = JitOptions { superblocks, memory, host, ..JitOptions::default() };
            let jit = Jit::with_options(&options);
            let jit = jit.expect("the host lets translated code be executed");
            cpu = cpu.with_translator(Box::new(jit)).with_warm(warm).with_hot(quantum, 1);
        }
        let mut vcpu: Box<dyn Vcpu> = Box::new(cpu);
        let _ = platform.kicker.set(vcpu.kicker());
        vcpu.load(state).expect("it is a state that a CPU can be in");
        Self { vcpu, memory, platform }
    }

    /// Runs some instructions after an event.
    pub(super) fn slice(&mut self, event: &Event, count: u64) -> Exit {
        self.happen(event);
        let budget = Budget { instructions: count };
        self.vcpu.run(&self.platform, budget).expect("no guest can make a CPU fail")
    }

    pub(super) fn happen(&mut self, event: &Event) {
        match event {
            Event::None => {}
            Event::All(events) => events.iter().for_each(|event| self.happen(event)),
            Event::Interrupt(vector) => self.platform.interrupt(*vector),
            Event::Write(at, bytes) => {
                // It lies in RAM.
                let _ = self.memory.write(GuestPhysAddr(*at), bytes);
            }
            Event::Map(linear, to, rights) => {
                let (page, entry) = (linear >> 12, to | rights);
                let entries = [(WIDE_TABLE, 8), (NARROW_TABLE, 4)];
                for (table, size) in entries {
                    let bytes = &entry.to_le_bytes()[..size];
                    let _ = self.memory.write(GuestPhysAddr(table + size as u64 * page), bytes);
                }
                // To load a state flushes the TLB.
                self.change(|_| ());
            }
            Event::Breakpoint(address, dr7) => self.change(|state| {
                state.debug.address[0] = *address;
                state.debug.dr7 = *dr7;
            }),
            Event::SingleStep(_) => self.change(|state| state.general.rflags |= rflags::TF),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut CpuState)) {
        let mut state = self.state();
        change(&mut state);
        self.vcpu.load(&state).expect("it is a state that a CPU can be in");
    }

    pub(super) fn state(&mut self) -> CpuState {
        self.vcpu.save().expect("its state can be saved")
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.platform.is_exhausted()
    }

    /// All of RAM.
    pub(super) fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; RAM_SIZE as usize];
        self.ram().read_slice(0, &mut bytes);
        bytes
    }

    /// RAM, in which guest-physical addresses are offsets.
    pub(super) fn ram(&self) -> &RamView {
        self.memory.ram()
    }

    /// The page tables, without what a processor notes there by itself: accessed and dirty.
    pub(super) fn tables(&self) -> Vec<u32> {
        const NOTED: u32 = 0x60;
        let mut bytes = vec![0; TABLES.len() * 0x1000];
        for (&at, page) in TABLES.iter().zip(bytes.chunks_mut(0x1000)) {
            let _ = self.memory.read(GuestPhysAddr(at), page);
        }
        bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word) & !NOTED).collect()
    }

    /// The vector of the last exception or interrupt since the last call.
    pub(super) fn delivered(&self) -> Option<u8> {
        self.platform.delivered()
    }

    /// The instruction that the present mode finds at an address, if its page is where the tables had it
    /// at first or an event has put it.
    pub(super) fn instruction(&mut self, rip: u64) -> Option<Instruction> {
        let state = self.state();
        let code = &state.segments.regs[CS];
        let long = state.control.efer & trivium_cpu::bits::efer::LMA != 0
            && code.attributes.has(SegmentAttributes::L);
        let wide = code.attributes.has(SegmentAttributes::DB);
        let bitness = if long {
            64
        } else if wide {
            32
        } else {
            16
        };
        let base = if long { 0 } else { code.base };
        let linear = base.wrapping_add(rip);
        let mut bytes = [0; 15];
        for (place, at) in bytes.iter_mut().zip(linear..) {
            *place = self.byte(at, state.control.cr0 & trivium_cpu::bits::cr0::PG != 0)?;
        }
        Some(Decoder::with_ip(bitness, &bytes, rip, DecoderOptions::NONE).decode())
    }

    fn byte(&self, linear: u64, paged: bool) -> Option<u8> {
        let read = |at: u64, into: &mut [u8]| self.memory.read(GuestPhysAddr(at), into).ok();
        let mut entry = [0; 8];
        let page = linear >> 12;
        read(WIDE_TABLE + 8 * page.min(RAM_SIZE >> 12), &mut entry)?;
        let mapped = u64::from_le_bytes(entry) & 0xff_f000;
        // Of the other pages only a guest that writes to its tables changes the meaning.
        let is_data = (DATA..DATA + 0x4000).contains(&linear);
        if paged && (entry[0] & 1 == 0 || !is_data && mapped != linear & !0xfff) {
            return None;
        }
        let at = if paged { mapped | linear & 0xfff } else { linear };
        let mut byte = [0];
        read(at, &mut byte)?;
        Some(byte[0])
    }
}
