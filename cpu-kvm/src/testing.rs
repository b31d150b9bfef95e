//! What tests need: a platform without devices, small guests, and whether there is a KVM.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trivium_cpu::bits::{cr0, cr4, efer};
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{CS, CpuState, SS, Segment, SegmentAttributes};
use trivium_cpu::{CpuBus, MsrFault, ResetKind};
use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, Region, RegionKind};

use crate::{KvmVcpu, Place};

/// A platform without devices: it keeps what is written to ports.
#[derive(Default)]
pub(crate) struct QuietBus {
    pub(crate) written: std::sync::Mutex<Vec<(u16, u32)>>,
    pub(crate) tsc: AtomicU64,
}

impl CpuBus for QuietBus {
    fn retire(&self, _: u64) {}
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _: u64, _: &[u8]) {}
    fn pio_read(&self, _: u16, _: u8) -> u32 {
        !0
    }
    fn pio_write(&self, port: u16, _: u8, value: u32) {
        self.written.lock().unwrap().push((port, value));
    }
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

pub(crate) const PLACE: Place =
    Place { apic_id: 0, cpus: 1, tsc_hz: 1_000_000_000, apic_hz: 1_000_000_000 };

pub(crate) fn max() -> Arc<CpuModel> {
    Arc::new(CpuModel::by_name("max").unwrap())
}

/// So many MiB of RAM.
pub(crate) fn memory(mib: u64) -> Arc<GuestMemory> {
    let size = mib << 20;
    let memory = GuestMemory::new(size, 1).unwrap();
    memory.set_map(FlatMap::new(&[Region::new(0, size, RegionKind::Ram { offset: 0 })]));
    Arc::new(memory)
}

/// A processor of this host's KVM; none, with a line that says so, where there is no KVM.
pub(crate) fn kvm(memory: &Arc<GuestMemory>) -> Option<KvmVcpu> {
    match KvmVcpu::new(memory.clone(), max(), PLACE) {
        Ok(vcpu) => Some(vcpu),
        Err(error) if std::env::var_os("KVM_REQUIRE").is_some() => panic!("{error}"),
        Err(error) => {
            println!("SKIP: {error}");
            None
        }
    }
}

/// Where the code of a guest begins.
pub(crate) const CODE: u64 = 0x10_0000;
/// Where the stack of its user-level code ends.
pub(crate) const STACK: u64 = 0x18_0000;

/// 64-bit code at a privilege level, with the first GiB of linear addresses mapped one to one for
/// all levels.
pub(crate) fn long_mode(memory: &GuestMemory, cpl: u8, code: &[u8]) -> CpuState {
    const PML4: u64 = 0x1000;
    const PDPT: u64 = 0x2000;
    const GDT: u64 = 0x3000;
    let put = |at: u64, value: u64| memory.write(GuestPhysAddr(at), &value.to_le_bytes()).unwrap();
    put(PML4, PDPT | 7);
    put(PML4 + 8 * 256, PDPT | 7);
    // Pages of 2 MiB.
    put(PDPT, 0x4000 | 7);
    for n in 0..512 {
        put(0x4000 + 8 * n, n << 21 | 0x87);
    }
    let gdt = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
    ];
    for (n, descriptor) in gdt.into_iter().enumerate() {
        put(GDT + 8 * n as u64, descriptor);
    }
    memory.write(GuestPhysAddr(CODE), code).unwrap();
    let mut state = CpuState::default();
    state.general.rip = CODE;
    state.general.regs[4] = STACK;
    state.control.cr0 = cr0::PE | cr0::PG | cr0::NE | cr0::ET | cr0::WP | cr0::MP;
    state.control.cr3 = PML4;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
    state.control.xcr0 = 7;
    state.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
    state.segments.cpl = cpl;
    let (code, data) = if cpl == 3 { (0x23, 0x1b) } else { (0x8, 0x10) };
    let dpl = u16::from(cpl) << 5;
    let flat = |selector, attributes: u16| Segment {
        selector,
        base: 0,
        limit: 0xffff_ffff,
        attributes: SegmentAttributes(attributes | dpl),
    };
    state.segments.regs = [flat(data, 0xc093); 6];
    state.segments.regs[CS] = flat(code, 0xa09b);
    state.segments.regs[SS] = flat(data, 0xc093);
    state.segments.gdtr.base = GDT;
    state.segments.gdtr.limit = 5 * 8 - 1;
    state.segments.idtr.limit = 0;
    state.msrs.star = 0x0013_0008 << 32;
    state
}

/// A user-level loop of `count` times two instructions (`sub rcx, 1; jnz`), then SYSCALL.
pub(crate) fn loop_then_syscall(count: u32) -> Vec<u8> {
    let mut code = vec![0xb9];
    code.extend(count.to_le_bytes());
    code.extend([0x48, 0x83, 0xe9, 0x01, 0x75, 0xfa, 0x0f, 0x05]);
    code
}
