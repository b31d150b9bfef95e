//! System-management mode: entry by SMI, and RSM.
//!
//! The state goes to the save area at the end of SMRAM and comes back from there, by one of the
//! layouts of `smm_layout`. In SMM the processor sees the memory map that
//! [`trivium_memory::Maps`] has for it: SMRAM may be hidden from all others.
//!
//! Intel SDM vol. 3C, chapter 32; vol. 2, RSM. AMD APM vol. 2, chapter 10.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::bits::{cr0, cr4, debug, efer, rflags};
use trivium_cpu::state::{
    Activity, CS, CpuState, Segment, SegmentAttributes, Segments, TableRegister,
};
use trivium_cpu::{CpuBus, Exception, walk};
use trivium_memory::Backing;

use super::smm_layout::{self, Entry, Field, Layout};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};

/// RIP of the handler in its segment, whose base is SMBASE.
const HANDLER: u64 = 0x8000;
/// Writable data of 4 GiB: what all segments, CS too, are on entry.
const SEGMENT: SegmentAttributes = SegmentAttributes(0x8093);
/// What SMBASE must be aligned to on processors before the P6 family.
const OLD_ALIGNMENT: u64 = 0x8000;

impl Cpu {
    /// Whether an SMI may be taken: they are blocked in SMM itself.
    pub(crate) fn takes_smi(&self) -> bool {
        let asleep = matches!(self.activity, Activity::WaitForSipi | Activity::Shutdown);
        self.smi_pending && !self.smm && self.shadow == 0 && !asleep
    }

    fn physical_byte(&mut self, gpa: u64, bus: &dyn CpuBus) -> u8 {
        match self.view.lookup(gpa) {
            Backing::Ram(offset) | Backing::Rom(offset) => self.ram.load(offset),
            _ => {
                let mut byte = [0];
                bus.mmio_read(gpa, &mut byte);
                byte[0]
            }
        }
    }

    fn put_physical_byte(&mut self, gpa: u64, value: u8, bus: &dyn CpuBus) {
        match self.view.lookup(gpa) {
            Backing::Ram(offset) => self.store_place(crate::mem::Place::Ram(offset), value),
            _ => bus.mmio_write(gpa, &[value]),
        }
    }

    fn saved(&mut self, entry: &Entry, bus: &dyn CpuBus) -> u64 {
        let at = self.msrs.smbase.wrapping_add(entry.at.into());
        (0..u64::from(entry.size)).fold(0, |value, n| {
            value | u64::from(self.physical_byte(at.wrapping_add(n), bus)) << (8 * n)
        })
    }

    fn save(&mut self, entry: &Entry, value: u64, bus: &dyn CpuBus) {
        let at = self.msrs.smbase.wrapping_add(entry.at.into());
        for (n, byte) in (0..u64::from(entry.size)).zip(value.to_le_bytes()) {
            self.put_physical_byte(at.wrapping_add(n), byte, bus);
        }
    }
}

/// Takes an SMI: saves the state and goes to the handler. Intel SDM vol. 3C, 32.5.1.
pub(crate) fn enter(cpu: &mut Cpu, bus: &dyn CpuBus) {
    let mut state = cpu.state();
    if cpu.in_mwait() {
        // It has ended: the handler returns to the next instruction.
        state.events.activity = Activity::Running;
    }
    state.latent.monitor = None;
    cpu.smi_pending = false;
    bus.set_smm(true);
    cpu.view.refresh(&cpu.memory);
    cpu.view.set_smm(&cpu.memory, true);
    let layout = smm_layout::of(&cpu.model);
    for entry in layout.entries() {
        cpu.save(entry, value(&state, layout, entry.field), bus);
    }
    let mut state = CpuState { segments: segments(&state, cpu.msrs.smbase), ..state };
    state.general.rip = HANDLER;
    state.general.rflags = rflags::FIXED;
    state.control.cr0 &= !(cr0::PE | cr0::EM | cr0::TS | cr0::PG);
    state.control.cr4 = 0;
    state.control.efer = 0;
    state.debug.dr7 = debug::DR7_FIXED;
    state.events.activity = Activity::Running;
    state.events.pending_debug = 0;
    state.events.nmi_masked = true;
    state.events.smm = true;
    state.events.smi_pending = false;
    cpu.put_state(&state);
}

fn segments(state: &CpuState, smbase: u64) -> Segments {
    let plain = Segment { selector: 0, base: 0, limit: u32::MAX, attributes: SEGMENT };
    let mut segments = state.segments;
    segments.regs = [plain; 6];
    segments.regs[CS] = Segment { selector: (smbase >> 4) as u16, base: smbase, ..plain };
    segments.cpl = 0;
    segments
}

fn value(state: &CpuState, layout: &Layout, field: Field) -> u64 {
    let segments = &state.segments;
    let segment = |n| match n {
        0..6 => segments.regs[n],
        6 => segments.ldtr,
        _ => segments.tr,
    };
    let table = |n| if n == 0 { segments.gdtr } else { segments.idtr };
    match field {
        Field::Reg(n) => state.general.regs[usize::from(n % 16)],
        Field::Rip => state.general.rip,
        Field::Rflags => state.general.rflags,
        Field::Cr0 => state.control.cr0,
        Field::Cr3 => state.control.cr3,
        Field::Cr4 => state.control.cr4,
        Field::Efer => state.control.efer,
        Field::Dr6 => state.debug.dr6,
        Field::Dr7 => state.debug.dr7,
        Field::Selector(n) => segment(n).selector.into(),
        Field::Base(n) => segment(n).base,
        Field::Limit(n) => segment(n).limit.into(),
        Field::Attributes(n) => segment(n).attributes.0.into(),
        Field::AttributesInPlace(n) => u64::from(segment(n).attributes.0) << 8,
        Field::TableBase(n) => table(n).base,
        Field::TableBaseUpper(n) => table(n).base >> 32,
        Field::TableLimit(n) => table(n).limit.into(),
        Field::Cpl => segments.cpl.into(),
        Field::NmiMasked => state.events.nmi_masked.into(),
        Field::AutoHalt => u64::from(state.events.activity == Activity::Halted),
        Field::IoRestart => 0,
        Field::Revision => layout.revision.into(),
        Field::Smbase => state.msrs.smbase,
    }
}

fn put(state: &mut CpuState, field: Field, value: u64) {
    let segments = &mut state.segments;
    match field {
        Field::Reg(n) => state.general.regs[usize::from(n % 16)] = value,
        Field::Rip => state.general.rip = value,
        Field::Rflags => state.general.rflags = value & rflags::ALL | rflags::FIXED,
        Field::Cr0 => state.control.cr0 = value,
        Field::Cr3 => state.control.cr3 = value,
        Field::Cr4 => state.control.cr4 = value,
        Field::Efer => state.control.efer = value,
        Field::Dr6 => state.debug.dr6 = value & 0xffff_ffff,
        Field::Dr7 => state.debug.dr7 = value & 0xffff_ffff,
        Field::Selector(n) => segment(segments, n).selector = value as u16,
        Field::Base(n) => segment(segments, n).base = value,
        Field::Limit(n) => segment(segments, n).limit = value as u32,
        Field::Attributes(n) => segment(segments, n).attributes = attributes(value),
        Field::AttributesInPlace(n) => segment(segments, n).attributes = attributes(value >> 8),
        Field::TableBase(n) => table(segments, n).base = value,
        Field::TableBaseUpper(n) => table(segments, n).base |= value << 32,
        Field::TableLimit(n) => table(segments, n).limit = value as u16,
        Field::Cpl => segments.cpl = (value & 3) as u8,
        Field::NmiMasked => state.events.nmi_masked = value & 1 != 0,
        // HLT is begun again.
        Field::AutoHalt if value & 1 != 0 => state.events.activity = Activity::Halted,
        Field::Smbase => state.msrs.smbase = value,
        Field::AutoHalt | Field::IoRestart | Field::Revision => {}
    }
}

fn segment(segments: &mut Segments, n: usize) -> &mut Segment {
    match n {
        0..6 => &mut segments.regs[n],
        6 => &mut segments.ldtr,
        _ => &mut segments.tr,
    }
}

fn table(segments: &mut Segments, n: usize) -> &mut TableRegister {
    if n == 0 { &mut segments.gdtr } else { &mut segments.idtr }
}

fn attributes(value: u64) -> SegmentAttributes {
    SegmentAttributes(value as u16 & SegmentAttributes::ALL)
}

fn rsm(cpu: &mut Cpu, _: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    if !cpu.smm {
        return Err(cpu.raise(Exception::ud()));
    }
    let mut state = cpu.state();
    state.events.smm = false;
    state.events.interrupt_shadow = false;
    state.events.debug_shadow = false;
    for entry in smm_layout::of(&cpu.model).entries() {
        let value = cpu.saved(entry, bus);
        put(&mut state, entry.field, value);
    }
    state.control.cr0 = state.control.cr0 & (cr0::ALL | !0 << 32) | cr0::ET;
    let bad = !can_be(cpu, &state) || !load_pdptrs(cpu, &mut state);
    if bad {
        // What it would go on with is of no importance; it does not go on.
        cpu.activity = Activity::Shutdown;
    } else {
        cpu.put_state(&state);
        cpu.next_rip = state.general.rip & cpu.ip_mask;
    }
    cpu.smm = false;
    cpu.look = true;
    bus.set_smm(false);
    cpu.view.set_smm(&cpu.memory, false);
    cpu.flush_tlb(false);
    Ok(())
}

/// Whether the processor can be in a state that RSM has read; else it shuts down. Intel SDM vol.
/// 3C, 32.9; AMD APM vol. 2, 10.4.
fn can_be(cpu: &Cpu, state: &CpuState) -> bool {
    let (model, control) = (&cpu.model, &state.control);
    let aligned = model.family > 5 || state.msrs.smbase.is_multiple_of(OLD_ALIGNMENT);
    let long = control.efer & efer::LMA != 0;
    let cs = state.segments.regs[CS].attributes;
    let both = long && cs.has(SegmentAttributes::L | SegmentAttributes::DB);
    state.validate().is_ok()
        && control.cr4 & !model.cr4_mask() == 0
        && control.efer & !model.efer_mask() == 0
        && control.cr3 >> model.phys_bits.min(63) == 0
        && !(long && state.general.rflags & rflags::VM != 0)
        && aligned
        && !both
}

/// PAE paging has its four page-directory-pointer registers read anew.
fn load_pdptrs(cpu: &Cpu, state: &mut CpuState) -> bool {
    let control = &mut state.control;
    let pae = control.cr0 & cr0::PG != 0 && control.cr4 & cr4::PAE != 0;
    if !pae || control.efer & efer::LMA != 0 {
        return true;
    }
    match walk::load_pdptrs(&cpu.memory, control.cr3, cpu.model.phys_bits) {
        Ok(pdptr) => control.pdptr = pdptr,
        Err(_) => return false,
    }
    true
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    (i.mnemonic() == Mnemonic::Rsm).then(|| Selection::system(context.op(i), rsm))
}

#[cfg(test)]
#[path = "smm_tests.rs"]
mod tests;
