//! Runs any bytes as code, in any mode: whatever they are, the CPU comes back.
//!
//! For fuzzing. The first eight bytes choose the mode, the flags and a seed of the registers; the
//! others are code, at the beginning and in every handler of an exception.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use trivium_cpu::bits::{cr0, cr4, efer, rflags};
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{CS, Segment, SegmentAttributes, TableRegister};
use trivium_cpu::{Budget, CpuBus, CpuState, Kick, MsrFault, ResetKind, Vcpu};
use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, Region, RegionKind};

/// RAM; a device lies behind it.
pub const RAM: u64 = 0x10_0000;
pub(crate) const CODE: u64 = 0x1000;
pub(crate) const CODE_SIZE: u64 = 0x1000;
const GDT: u64 = 0x2000;
const IDT: u64 = 0x3000;
const TSS: u64 = 0x4000;
pub(crate) const LONG_TABLES: u64 = 0x8000;
pub(crate) const PAE_TABLES: u64 = 0xb000;
pub(crate) const LEGACY_TABLES: u64 = 0xe000;
const STACK: u64 = 0x7000;

/// Instructions in a go; there are two of them, with the state saved and loaded between.
const BUDGET: Budget = Budget { instructions: 1000 };

/// A mode to begin in.
struct Mode {
    cr0: u64,
    cr4: u64,
    efer: u64,
    cr3: u64,
    rflags: u64,
    cpl: u8,
    /// Attributes of CS and of the other segments.
    code: u16,
    data: u16,
}

const PAGED: u64 = cr0::PE | cr0::PG | cr0::WP | cr0::AM;
const LONG: u64 = efer::LME | efer::LMA | efer::SCE | efer::NXE;
const SSE: u64 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE | cr4::DE;

const fn mode(cr0: u64, cr3: u64, cpl: u8, code: u16, data: u16) -> Mode {
    Mode { cr0, cr4: SSE, efer: 0, cr3, rflags: 0, cpl, code, data }
}

const fn long(cpl: u8, code: u16, data: u16) -> Mode {
    let cr4 = SSE | cr4::PAE | cr4::FSGSBASE;
    Mode { cr4, efer: LONG, ..mode(PAGED, LONG_TABLES, cpl, code, data) }
}

const MODES: [Mode; 12] = [
    mode(0, 0, 0, 0x9b, 0x93),
    mode(cr0::PE, 0, 0, 0x9b, 0x93),
    mode(cr0::PE, 0, 0, 0xc09b, 0xc093),
    mode(cr0::PE, 0, 3, 0xc0fb, 0xc0f3),
    Mode { cr4: SSE | cr4::PSE | cr4::VME, ..mode(PAGED, LEGACY_TABLES, 3, 0xc0fb, 0xc0f3) },
    Mode { cr4: SSE | cr4::PAE, ..mode(PAGED, PAE_TABLES, 0, 0xc09b, 0xc093) },
    Mode { rflags: rflags::VM, ..mode(cr0::PE, 0, 3, 0xf3, 0xf3) },
    long(0, 0xa09b, 0xc093),
    long(3, 0xa0fb, 0xc0f3),
    long(3, 0xc0fb, 0xc0f3),
    long(3, 0x00fb, 0x00f3),
    Mode {
        rflags: rflags::VM,
        cr4: SSE | cr4::PSE | cr4::VME,
        ..mode(PAGED, LEGACY_TABLES, 3, 0xf3, 0xf3)
    },
];

/// Runs bytes on the CPU that `make` makes for a memory and a scratch page in it.
///
/// # Panics
/// The CPU fails, which it must not.
pub fn run(bytes: &[u8], make: impl FnOnce(Arc<GuestMemory>, usize) -> Box<dyn Vcpu>) {
    let Some((head, code)) = bytes.split_first_chunk::<8>() else { return };
    let Ok(memory) = GuestMemory::new(RAM, 1) else { return };
    let memory = Arc::new(memory);
    memory.set_map(FlatMap::new(&[
        Region::new(0, RAM, RegionKind::Ram { offset: 0 }),
        Region::new(RAM, 0x1000, RegionKind::Mmio { id: 0 }),
    ]));
    let mode = &MODES[mode_number(head[0])];
    furnish(&memory, mode, code);
    let scratch = memory.scratch(0, 1).unwrap_or_default();
    let mut vcpu = make(memory, scratch);
    let bus = Platform::new(u64::from_le_bytes(*head));
    let _ = bus.kicker.set(vcpu.kicker());
    let mut state = initial(mode, head, &bus);
    for _ in 0..2 {
        let loaded = vcpu.load(&state);
        loaded.expect("a state that a CPU has saved, or a valid one, can be loaded");
        vcpu.run(&bus, BUDGET).expect("no guest can make a CPU fail");
        state = vcpu.save().expect("its state can be saved");
    }
    state.validate().expect("and is one that a CPU can be in");
}

/// Which mode a byte chooses.
pub(crate) fn mode_number(byte: u8) -> usize {
    usize::from(byte) % MODES.len()
}

/// Puts code into memory, and tables for the mode that a byte chooses.
pub(crate) fn furnish_mode(memory: &GuestMemory, byte: u8, code: &[u8]) {
    furnish(memory, &MODES[mode_number(byte)], code);
}

/// The state that the first bytes choose.
pub(crate) fn initial_state(head: &[u8; 8], bus: &dyn CpuBus) -> CpuState {
    initial(&MODES[mode_number(head[0])], head, bus)
}

/// Puts code and tables into memory.
fn furnish(memory: &GuestMemory, mode: &Mode, code: &[u8]) {
    let put = |at: u64, bytes: &[u8]| {
        // All of it lies in RAM.
        let _ = memory.write(GuestPhysAddr(at), bytes);
    };
    let put_u64 = |at: u64, value: u64| put(at, &value.to_le_bytes());
    if !code.is_empty() {
        let endless: Vec<u8> = code.iter().copied().cycle().take(CODE_SIZE as usize).collect();
        put(CODE, &endless);
    }
    // Each kind of segment at both levels; then the TSS.
    let kinds =
        [0x9b, 0x93, 0xfb, 0xf3, 0xc09b, 0xc093, 0xc0fb, 0xc0f3, 0xa09b, 0xa0fb, 0x9f, 0x97];
    for (entry, kind) in (1..).zip(kinds) {
        put_u64(GDT + 8 * entry, 0xf_0000_0000_ffff | kind << 40);
    }
    put_u64(GDT + 0x70, 0x67 | TSS << 16 | 0x89 << 40);
    put(TSS + 4, &[0, 0x70, 0, 0, 0x10, 0]);
    let selector = if mode.efer & efer::LMA != 0 { 9 * 8 } else { 5 * 8 };
    for vector in 0..256 {
        let handler = CODE + 7 * vector;
        let gate = handler | selector << 16 | 0xee << 40;
        let size = if mode.efer & efer::LMA != 0 { 16 } else { 8 };
        put_u64(IDT + size * vector, gate);
        if mode.cr0 & cr0::PE == 0 {
            put(4 * vector, &(handler as u32).to_le_bytes());
        }
    }
    put_u64(LONG_TABLES, (LONG_TABLES + 0x1000) | 7);
    put_u64(LONG_TABLES + 0x1000, (LONG_TABLES + 0x2000) | 7);
    put_u64(LONG_TABLES + 0x2000, 0x87);
    put_u64(PAE_TABLES, (PAE_TABLES + 0x1000) | 1);
    put_u64(PAE_TABLES + 0x1000, 0x87);
    put(LEGACY_TABLES, &0x87_u32.to_le_bytes());
}

fn initial(mode: &Mode, head: &[u8; 8], bus: &dyn CpuBus) -> CpuState {
    let mut state = CpuState::default();
    state.control.cr0 = mode.cr0 | cr0::ET | cr0::NE;
    state.control.cr3 = mode.cr3;
    state.control.cr4 = mode.cr4;
    state.control.efer = mode.efer;
    state.control.xcr0 = 7;
    state.control.pdptr[0] = (PAE_TABLES + 0x1000) | 1;
    let random = rflags::STATUS
        | rflags::TF
        | rflags::IF
        | rflags::DF
        | rflags::NT
        | rflags::RF
        | rflags::AC;
    let flags = u64::from(head[1]) | u64::from(head[2]) << 8 | u64::from(head[3]) << 16;
    state.general.rflags = flags & random | rflags::FIXED | mode.rflags;
    for register in &mut state.general.regs {
        // Small ones reach memory, others do not.
        let value = bus.random();
        *register = if value & 3 == 0 { value >> 2 } else { value >> 2 & (2 * RAM - 1) };
    }
    state.general.regs[4] = STACK;
    state.general.rip = CODE;
    if head[4] & 3 == 0 {
        // Breakpoints of all kinds, near the code and the stack.
        state.debug.address = [(); 4].map(|()| bus.random() & (2 * STACK - 1));
        state.debug.dr7 |= bus.random() & 0xffff_03ff;
        state.msrs.debugctl = bus.random() & 2;
    }
    let real = mode.cr0 & cr0::PE == 0 || mode.rflags & rflags::VM != 0;
    let wide = mode.data & SegmentAttributes::G != 0;
    let flat = |selector, attributes| Segment {
        selector,
        base: 0,
        limit: if wide { !0 } else { 0xffff },
        attributes: SegmentAttributes(attributes),
    };
    let selector = |entry: u16| if real { 0 } else { entry * 8 | u16::from(mode.cpl) };
    state.segments.regs = [flat(selector(8), mode.data); 6];
    state.segments.regs[CS] = flat(selector(7), mode.code);
    state.segments.cpl = mode.cpl;
    state.segments.gdtr = TableRegister { base: GDT, limit: 0x7f };
    let idt = if mode.cr0 & cr0::PE == 0 { 0 } else { IDT };
    state.segments.idtr = TableRegister { base: idt, limit: 0xfff };
    state.segments.tr = Segment { limit: 0x67, ..flat(0x70, 0x8b) };
    state.segments.tr.base = TSS;
    state
}

/// A platform that answers everything with something.
struct Platform {
    next: AtomicU64,
    /// Accesses and questions so far.
    calls: AtomicU64,
    kicker: OnceLock<Arc<dyn Kick>>,
}

/// A repeated string instruction counts as one, and can make billions of accesses.
const CALLS: u64 = 5000;

impl Platform {
    fn new(seed: u64) -> Self {
        Self { next: AtomicU64::new(seed), calls: AtomicU64::new(0), kicker: OnceLock::new() }
    }

    fn count(&self) {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CALLS
            && let Some(kicker) = self.kicker.get()
        {
            kicker.kick();
        }
    }
}

impl CpuBus for Platform {
    fn random(&self) -> u64 {
        self.count();
        let next = self.next.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.next.store(next, Ordering::Relaxed);
        let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 27
    }
    fn retire(&self, _: u64) {}
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(self.random() as u8);
    }
    fn mmio_write(&self, _: u64, _: &[u8]) {
        self.count();
    }
    fn pio_read(&self, _: u16, _: u8) -> u32 {
        self.random() as u32
    }
    fn pio_write(&self, _: u16, _: u8, _: u32) {
        self.count();
    }
    fn msr_read(&self, msr: u32) -> Option<Result<u64, MsrFault>> {
        (msr == 0x1b).then_some(Ok(0xfee0_0900))
    }
    fn msr_write(&self, _: u32, _: u64) -> Option<Result<(), MsrFault>> {
        None
    }
    fn cr8(&self) -> u8 {
        0
    }
    fn set_cr8(&self, _: u8) {}
    fn tsc(&self) -> u64 {
        self.random()
    }
    fn set_tsc_offset(&self, _: u64) {}
    fn interrupt_pending(&self) -> bool {
        self.random() & 7 == 0
    }
    fn acknowledge_interrupt(&self) -> Option<u8> {
        Some(self.random() as u8)
    }
    fn take_nmi(&self) -> bool {
        self.random() & 31 == 0
    }
    fn take_smi(&self) -> bool {
        self.random() & 63 == 0
    }
    fn take_reset(&self) -> Option<ResetKind> {
        None
    }
    fn delivering(&self, _: u8, _: Option<u32>, _: u64) {
        self.count();
    }
    fn set_ferr(&self, _: bool) {}
}

/// Runs bytes on the interpreter.
pub fn interpreter(bytes: &[u8]) {
    let topology = trivium_interp::Topology {
        apic_id: 0,
        cpus: 1,
        tsc_hz: 1_000_000_000,
        apic_hz: 1_000_000_000,
    };
    let Ok(model) = CpuModel::by_name("max") else { return };
    run(bytes, |memory, scratch| {
        Box::new(trivium_interp::Interpreter::new(memory, Arc::new(model), topology, scratch))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random bytes that depend on a seed alone.
    fn bytes(seed: u64) -> Vec<u8> {
        let random = Platform::new(seed);
        let length = random.random() % 300;
        (0..length).map(|_| random.random() as u8).collect()
    }

    #[test]
    fn the_interpreter_comes_back_from_anything() {
        let cases = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
        for seed in 0..cases {
            interpreter(&bytes(seed));
        }
    }

    #[test]
    fn every_mode_is_a_valid_state_and_runs() {
        for (number, _) in MODES.iter().enumerate() {
            // inc eax (or a REX prefix, then NOP); jmp to itself.
            interpreter(&[number as u8, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x90, 0xeb, 0xfc]);
        }
        interpreter(&[]);
        interpreter(&[0; 8]);
    }
}
