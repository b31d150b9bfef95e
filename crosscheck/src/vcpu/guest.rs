//! The supervisor of the small machine, which is tables only: descriptors, gates, page tables.

use trivium_cpu::bits::{cr0, cr4, efer, rflags};
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{
    CS, Control, CpuState, FS, GS, SS, Segment, SegmentAttributes, TableRegister, Vector,
};

use super::ram::Ram;
use crate::case::Case;
use crate::layout::{LDT_ENTRIES, PAGE, REGIONS, selector};
use crate::state::UserState;

/// Where the supervisor's memory is mapped; user code may not reach it.
const SUPERVISOR: u64 = 0xffff_8000_0000_0000;

const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
/// A HLT for each vector, 16 bytes apart.
const HANDLERS: u64 = 0x4000;
/// A HLT where SYSCALL and SYSENTER go.
const SYSCALL: u64 = 0x5000;
/// The top of the stack of privilege level 0.
const STACK0: u64 = 0x7000;
/// The local descriptor table.
pub(super) const LDT: u64 = 0x8000;
/// The page tables, from the top one on.
const TABLES: u64 = 0x1_0000;
/// All of it.
pub(super) const SYSTEM_SIZE: u64 = 0x4_0000;

/// Selectors that only the supervisor uses.
const KERNEL_CODE: u16 = 0x10;
const KERNEL_DATA: u16 = 0x18;
const TSS_SELECTOR: u16 = 0x40;
const LDT_SELECTOR: u16 = 0x50;
/// Where Linux tells the vDSO the processor's number.
const CPU_NUMBER: u16 = 0x78;

/// The global descriptor table as Linux has it, as far as user code can tell.
const DESCRIPTORS: [(u16, u64); 7] = [
    (0x08, 0x00cf_9b00_0000_ffff),
    (KERNEL_CODE, 0x00af_9b00_0000_ffff),
    (KERNEL_DATA, 0x00cf_9300_0000_ffff),
    (selector::CODE32, 0x00cf_fb00_0000_ffff),
    (selector::DATA, 0x00cf_f300_0000_ffff),
    (selector::CODE64, 0x00af_fb00_0000_ffff),
    // Expand-down data with the processor's number as limit: that of the first.
    (CPU_NUMBER, 0x0040_f500_0000_0000),
];

/// What a CPU that has halted has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// An exception or software interrupt of this vector.
    Exception(u8),
    /// SYSCALL or SYSENTER.
    Syscall,
}

/// The memory of the supervisor that is the same for all cases: guest-physical addresses and bytes.
pub(super) fn system_memory() -> Vec<(u64, Vec<u8>)> {
    let mut found = vec![(SYSCALL, vec![0xf4])];
    let mut gdt = DESCRIPTORS.to_vec();
    gdt.push((TSS_SELECTOR, system_descriptor(TSS, 0x67, 11)));
    gdt.push((LDT_SELECTOR, system_descriptor(LDT, LDT_ENTRIES as u64 * 8 - 1, 2)));
    for (selector, descriptor) in gdt {
        found.push((GDT + u64::from(selector & !7), descriptor.to_le_bytes().to_vec()));
    }
    for high in [TSS_SELECTOR, LDT_SELECTOR] {
        let upper = (SUPERVISOR >> 32).to_le_bytes().to_vec();
        found.push((GDT + u64::from(high) + 8, upper));
    }
    found.push((TSS + 4, (SUPERVISOR + STACK0).to_le_bytes().to_vec()));
    // The I/O permission bitmap begins behind the limit: no port is permitted.
    found.push((TSS + 0x66, 0x68_u16.to_le_bytes().to_vec()));
    for vector in 0..256 {
        let handler = HANDLERS + 16 * vector;
        found.push((handler, vec![0xf4]));
        // Linux lets everyone raise #BP, #OF and its system calls.
        let dpl = if matches!(vector, 3 | 4 | 0x80) { 3 } else { 0 };
        found.push((IDT + 16 * vector, gate(SUPERVISOR + handler, dpl).to_vec()));
    }
    found.extend(page_tables());
    found
}

/// The lower half of the descriptor of a TSS or LDT of the supervisor's.
fn system_descriptor(at: u64, limit: u64, kind: u64) -> u64 {
    let base = SUPERVISOR + at;
    limit | (base & 0xff_ffff) << 16 | (kind | 0x80) << 40 | (base >> 24 & 0xff) << 56
}

/// An interrupt gate of 64-bit mode. Intel SDM vol. 3A, figure 6-8.
fn gate(handler: u64, dpl: u64) -> [u8; 16] {
    let low = handler & 0xffff
        | u64::from(KERNEL_CODE) << 16
        | (0x8e | dpl << 5) << 40
        | (handler >> 16 & 0xffff) << 48;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&(handler >> 32).to_le_bytes());
    bytes
}

/// Four levels of page tables, made page by page. Intel SDM vol. 3A, 4.5.
struct Tables {
    /// The tables so far: 512 entries each, the first is the top one.
    tables: Vec<[u64; 512]>,
}

const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const NO_EXECUTE: u64 = 1 << 63;

impl Tables {
    fn map(&mut self, linear: u64, gpa: u64, flags: u64) {
        let mut table = 0;
        for shift in [39, 30, 21] {
            let index = (linear >> shift & 511) as usize;
            let entry = self.tables[table][index];
            table = if entry == 0 {
                let next = self.tables.len();
                self.tables.push([0; 512]);
                let at = TABLES + PAGE * next as u64;
                self.tables[table][index] = at | PRESENT | WRITE | USER;
                next
            } else {
                ((entry & !0xfff) - TABLES) as usize / PAGE as usize
            };
        }
        // Accessed and dirty already, so that walks write nothing.
        self.tables[table][(linear >> 12 & 511) as usize] = gpa | flags | PRESENT | 0x60;
    }
}

fn page_tables() -> Vec<(u64, Vec<u8>)> {
    let mut tables = Tables { tables: vec![[0; 512]] };
    for page in (0..SYSTEM_SIZE).step_by(PAGE as usize) {
        tables.map(SUPERVISOR + page, page, WRITE);
    }
    let mut gpa = SYSTEM_SIZE;
    for region in &REGIONS {
        let write = if region.write { WRITE } else { 0 };
        let execute = if region.execute { 0 } else { NO_EXECUTE };
        for page in (0..region.len).step_by(PAGE as usize) {
            tables.map(region.start + page, gpa, USER | write | execute);
            gpa += PAGE;
        }
    }
    let bytes = |table: &[u64; 512]| table.iter().flat_map(|e| e.to_le_bytes()).collect();
    let at = (TABLES..).step_by(PAGE as usize);
    at.zip(&tables.tables).map(|(at, table)| (at, bytes(table))).collect()
}

/// The CPU's state when a case begins.
pub(super) fn initial_state(case: &Case, model: &CpuModel) -> CpuState {
    let user = &case.state;
    let mut state = CpuState::reset(model);
    state.general.regs = user.regs;
    state.general.rip = user.rip;
    state.general.rflags = user.rflags;
    state.control = Control {
        cr0: cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::PG,
        cr3: TABLES,
        cr4: CR4 & model.cr4_mask() | cr4::PAE,
        efer: efer::SCE | efer::LME | efer::LMA | efer::NXE,
        xcr0: model.xcr0_mask() & 7 | 1,
        ..state.control
    };
    segments(case, &mut state);
    let syscall = SUPERVISOR + SYSCALL;
    state.msrs.star = 0x0023_0010 << 32;
    (state.msrs.lstar, state.msrs.cstar, state.msrs.sysenter_eip) = (syscall, syscall, syscall);
    state.msrs.sysenter_cs = u64::from(KERNEL_CODE);
    state.msrs.sysenter_esp = SUPERVISOR + STACK0;
    state.msrs.sfmask = rflags::TF | rflags::DF | rflags::IF | rflags::AC | rflags::NT;
    state.x87 = user.x87;
    state.vector = Vector { regs: ymm(user), mxcsr: user.mxcsr };
    state
}

/// What Linux sets in CR4, as far as the model has it. User code may then read its segments' bases
/// and the counters of time; UMIP is left clear.
const CR4: u64 = cr4::DE
    | cr4::PAE
    | cr4::PGE
    | cr4::OSFXSR
    | cr4::OSXMMEXCPT
    | cr4::FSGSBASE
    | cr4::OSXSAVE
    | cr4::SMEP
    | cr4::SMAP;

fn ymm(user: &UserState) -> [[u64; 4]; 16] {
    let mut regs = [[0; 4]; 16];
    for (to, from) in regs.iter_mut().zip(user.zmm.iter()) {
        to.copy_from_slice(&from[..4]);
    }
    regs
}

fn segments(case: &Case, state: &mut CpuState) {
    let user = &case.state;
    for (segment, &selector) in state.segments.regs.iter_mut().zip(&user.selectors) {
        *segment = loaded(case, selector);
    }
    state.segments.regs[FS].base = user.fs_base;
    state.segments.regs[GS].base = user.gs_base;
    let system = |selector, at, limit, kind: u16| Segment {
        selector,
        base: SUPERVISOR + at,
        limit,
        attributes: SegmentAttributes(SegmentAttributes::P | kind),
    };
    state.segments.tr = system(TSS_SELECTOR, TSS, 0x67, 11);
    state.segments.ldtr = system(LDT_SELECTOR, LDT, LDT_ENTRIES as u32 * 8 - 1, 2);
    state.segments.gdtr = TableRegister { base: SUPERVISOR + GDT, limit: 0x7f };
    state.segments.idtr = TableRegister { base: SUPERVISOR + IDT, limit: 0xfff };
    state.segments.cpl = 3;
}

/// A segment register as it is after the selector was loaded.
fn loaded(case: &Case, selector: u16) -> Segment {
    let entry = usize::from(selector >> 3);
    let descriptor = if selector & 4 != 0 {
        case.ldt.get(entry).copied().flatten().map_or(0, |e| e.descriptor())
    } else {
        let same = |(s, _): &&(u16, u64)| s >> 3 == selector >> 3;
        DESCRIPTORS.iter().find(same).map_or(0, |(_, d)| *d)
    };
    let attributes = SegmentAttributes((descriptor >> 40) as u16 & SegmentAttributes::ALL);
    let limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
    let pages = attributes.has(SegmentAttributes::G);
    Segment {
        selector,
        base: descriptor >> 16 & 0xff_ffff | descriptor >> 56 << 24,
        limit: if pages { limit << 12 | 0xfff } else { limit },
        attributes,
    }
}

/// What a CPU that halted in the supervisor has met.
pub(super) fn event(state: &CpuState) -> Option<Event> {
    let at = state.general.rip.wrapping_sub(SUPERVISOR);
    if at == SYSCALL + 1 {
        return Some(Event::Syscall);
    }
    let handler = at.checked_sub(HANDLERS).filter(|&h| h < 0x1000 && h % 16 == 1)?;
    u8::try_from(handler / 16).ok().map(Event::Exception)
}

/// The state of user code, if it is running.
pub(super) fn user_state(state: &CpuState) -> UserState {
    let mut selectors = [0; 6];
    for (to, from) in selectors.iter_mut().zip(&state.segments.regs) {
        *to = from.selector;
    }
    let mut user = UserState {
        regs: state.general.regs,
        rip: state.general.rip,
        rflags: state.general.rflags,
        selectors,
        fs_base: state.segments.regs[FS].base,
        gs_base: state.segments.regs[GS].base,
        x87: state.x87,
        mxcsr: state.vector.mxcsr,
        ..UserState::default()
    };
    for (to, from) in user.zmm.iter_mut().zip(&state.vector.regs) {
        to[..4].copy_from_slice(from);
    }
    user
}

/// The state that an exception has interrupted, and the error code: from the frame on the stack.
/// Intel SDM vol. 3A, 6.14.2.
pub(super) fn interrupted(state: &CpuState, vector: u8, ram: &Ram) -> (UserState, u32) {
    let mut user = user_state(state);
    let at = state.general.regs[4].wrapping_sub(SUPERVISOR);
    let mut bytes = [0; 48];
    ram.read(at, &mut bytes);
    let mut words = bytes.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w));
    let mut next = || words.next().unwrap_or_default();
    let error = if has_error_code(vector) { next() as u32 } else { 0 };
    user.rip = next();
    user.selectors[CS] = next() as u16;
    user.rflags = next();
    user.regs[4] = next();
    user.selectors[SS] = next() as u16;
    (user, error)
}

/// Intel SDM vol. 3A, table 6-1.
fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}

/// The state of the user code that made a system call.
pub(super) fn after_syscall(state: &CpuState) -> UserState {
    let mut user = user_state(state);
    user.rip = state.general.regs[1];
    user.rflags = state.general.regs[11];
    user.selectors[CS] = selector::CODE64;
    user.selectors[SS] = selector::DATA;
    user
}
