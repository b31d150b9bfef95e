//! Guests of a few instructions, for probes and tests: a platform that only listens, and states to
//! start from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use trivium_cpu::bits::{cr0, cr4, efer};
use trivium_cpu::state::{CS, CpuState, SS, Segment, SegmentAttributes};
use trivium_cpu::{CpuBus, Kick, MsrFault, ResetKind};
use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, MemoryError, Region, RegionKind};

use crate::cpuid::Place;

/// Where a guest begins.
pub(crate) const CODE: u64 = 0x10_0000;
/// Where its stack ends.
pub(crate) const STACK: u64 = 0x18_0000;
/// A store here tells that the guest has come to its end; there is no RAM.
pub(crate) const REPORT: u64 = 0xa_0000;
/// Global descriptors, and the interrupt table, of which each entry is `HANDLER`'s.
pub(crate) const GDT: u64 = 0x3000;
pub(crate) const IDT: u64 = 0x8000;
/// What exceptions come to.
pub(crate) const HANDLER: u64 = 0x11_0000;
const PML4: u64 = 0x1000;

pub(crate) const PLACE: Place =
    Place { apic_id: 0, cpus: 1, tsc_hz: 1_000_000_000, apic_hz: 1_000_000_000 };

/// A platform that listens to [`REPORT`].
#[derive(Default)]
pub(crate) struct Listener {
    reported: Mutex<Option<u32>>,
    kick: OnceLock<Arc<dyn Kick>>,
    tsc: AtomicU64,
}

impl Listener {
    /// Ends the run when the guest reports.
    pub(crate) fn kicks(&self, kick: Arc<dyn Kick>) {
        let _ = self.kick.set(kick);
    }

    /// What the guest has reported: the low half of what it stored.
    pub(crate) fn reported(&self) -> Option<u32> {
        *self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CpuBus for Listener {
    fn retire(&self, _: u64) {}
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        if gpa != REPORT {
            return;
        }
        let mut value = [0; 4];
        for (to, from) in value.iter_mut().zip(data) {
            *to = *from;
        }
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.get_or_insert(u32::from_le_bytes(value));
        if let Some(kick) = self.kick.get() {
            kick.kick();
        }
    }
    fn pio_read(&self, _: u16, _: u8) -> u32 {
        !0
    }
    fn pio_write(&self, _: u16, _: u8, _: u32) {}
    fn msr_read(&self, _: u32) -> Option<Result<u64, MsrFault>> {
        None
    }
    fn msr_write(&self, _: u32, _: u64) -> Option<Result<(), MsrFault>> {
        None
    }
    fn cr8(&self) -> u8 {
        0
    }
    fn set_cr8(&self, _: u8) {}
    fn tsc(&self) -> u64 {
        self.tsc.fetch_add(1, Ordering::Relaxed)
    }
    fn set_tsc_offset(&self, _: u64) {}
    fn random(&self) -> u64 {
        4
    }
    fn interrupt_pending(&self) -> bool {
        false
    }
    fn acknowledge_interrupt(&self) -> Option<u8> {
        None
    }
    fn take_nmi(&self) -> bool {
        false
    }
    fn take_reset(&self) -> Option<ResetKind> {
        None
    }
    fn delivering(&self, _: u8, _: Option<u32>, _: u64) {}
    fn set_ferr(&self, _: bool) {}
}

/// So many MiB of RAM with the hole of [`REPORT`].
pub(crate) fn memory(mib: u64) -> Result<Arc<GuestMemory>, MemoryError> {
    let size = mib << 20;
    let memory = GuestMemory::new(size, 1)?;
    let ram = |start: u64, end: u64| {
        Region::new(start, end - start, RegionKind::Ram { offset: start as usize })
    };
    memory.set_map(FlatMap::new(&[ram(0, REPORT), ram(CODE, size)]));
    Ok(Arc::new(memory))
}

fn put(memory: &GuestMemory, at: u64, value: u64) {
    // All these places are RAM of every guest here.
    let _ = memory.write(GuestPhysAddr(at), &value.to_le_bytes());
}

fn flat(selector: u16, attributes: u16, cpl: u8) -> Segment {
    let attributes = SegmentAttributes(attributes | u16::from(cpl) << 5);
    Segment { selector, base: 0, limit: 0xffff_ffff, attributes }
}

fn put_code(memory: &GuestMemory, code: &[u8], handler: &[u8]) {
    let _ = memory.write(GuestPhysAddr(CODE), code);
    let _ = memory.write(GuestPhysAddr(HANDLER), handler);
    let descriptors = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x00cf_9b00_0000_ffff,
    ];
    for (n, descriptor) in descriptors.into_iter().enumerate() {
        put(memory, GDT + 8 * n as u64, descriptor);
    }
}

fn base(cpl: u8, data: u16) -> CpuState {
    let mut state = CpuState::default();
    state.general.rip = CODE;
    state.general.regs[4] = STACK;
    state.control.cr0 = cr0::PE | cr0::NE | cr0::ET | cr0::WP | cr0::MP;
    state.segments.cpl = cpl;
    state.segments.regs = [flat(data, 0xc093, cpl); 6];
    state.segments.gdtr.base = GDT;
    state.segments.gdtr.limit = 6 * 8 - 1;
    state.segments.idtr.base = IDT;
    state
}

/// 64-bit code at a privilege level, with the first GiB of linear addresses mapped one to one for
/// all levels; exceptions come to `handler`.
pub(crate) fn long_mode(memory: &GuestMemory, cpl: u8, code: &[u8], handler: &[u8]) -> CpuState {
    put(memory, PML4, 0x2000 | 7);
    // Pages of 2 MiB.
    put(memory, 0x2000, 0x4000 | 7);
    for n in 0..512 {
        put(memory, 0x4000 + 8 * n, n << 21 | 0x87);
    }
    put_code(memory, code, handler);
    // Interrupt gates that programs may call. Intel SDM vol. 3A, figure 6-8.
    for vector in 0..256 {
        let low = HANDLER & 0xffff | 0x8 << 16 | 0xee00 << 32 | (HANDLER >> 16) << 48;
        put(memory, IDT + 16 * vector, low);
        put(memory, IDT + 16 * vector + 8, 0);
    }
    let (code, data) = if cpl == 3 { (0x23, 0x1b) } else { (0x8, 0x10) };
    let mut state = base(cpl, data);
    state.control.cr0 |= cr0::PG;
    state.control.cr3 = PML4;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    state.control.xcr0 = 7;
    state.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
    state.segments.regs[CS] = flat(code, 0xa09b, cpl);
    state.segments.regs[SS] = flat(data, 0xc093, cpl);
    state.segments.idtr.limit = 0xfff;
    state.msrs.star = 0x0013_0008 << 32;
    state.msrs.lstar = HANDLER;
    state
}

/// 32-bit code at CPL 0 without paging; exceptions come to `handler`.
pub(crate) fn protected_mode(memory: &GuestMemory, code: &[u8], handler: &[u8]) -> CpuState {
    put_code(memory, code, handler);
    for vector in 0..256 {
        let gate = HANDLER & 0xffff | 0x28 << 16 | 0x8e00 << 32 | (HANDLER >> 16) << 48;
        put(memory, IDT + 8 * vector, gate);
    }
    let mut state = base(0, 0x10);
    state.segments.regs[CS] = flat(0x28, 0xc09b, 0);
    state.segments.idtr.limit = 0x7ff;
    state
}

/// The same with 32-bit paging, one to one in pages of 4 MiB.
pub(crate) fn paging32(memory: &GuestMemory, code: &[u8], handler: &[u8]) -> CpuState {
    let mut state = protected_mode(memory, code, handler);
    for n in 0..1024_u64 {
        let entry = (n << 22 | 0x87) as u32;
        let _ = memory.write(GuestPhysAddr(PML4 + 4 * n), &entry.to_le_bytes());
    }
    state.control.cr0 |= cr0::PG;
    state.control.cr3 = PML4;
    state.control.cr4 = cr4::PSE;
    state
}

/// 16-bit code at 0000:7000.
pub(crate) fn real_mode(memory: &GuestMemory, code: &[u8]) -> CpuState {
    let _ = memory.write(GuestPhysAddr(0x7000), code);
    let mut state = CpuState::default();
    state.general.rip = 0x7000;
    state.general.regs[4] = 0x6ff0;
    state.segments.regs = [Segment::real_mode(0); 6];
    state.segments.regs[CS].attributes = SegmentAttributes(0x9b);
    state
}
