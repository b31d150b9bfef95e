//! Segment registers, descriptor tables and control registers: `kvm_sregs`.

use kvm_bindings::{kvm_dtable, kvm_segment, kvm_sregs};
use trivium_cpu::bits::{cr0, rflags};
use trivium_cpu::state::{CpuState, Segment, SegmentAttributes, TableRegister};

fn to_segment(segment: &Segment) -> kvm_segment {
    let Segment { selector, base, limit, attributes } = *segment;
    let bit = |mask| u8::from(attributes.has(mask));
    kvm_segment {
        base,
        limit,
        selector,
        type_: attributes.kind(),
        present: bit(SegmentAttributes::P),
        dpl: attributes.dpl(),
        db: bit(SegmentAttributes::DB),
        s: bit(SegmentAttributes::S),
        l: bit(SegmentAttributes::L),
        g: bit(SegmentAttributes::G),
        avl: bit(1 << 12),
        unusable: 1 - bit(SegmentAttributes::P),
        padding: 0,
    }
}

fn from_segment(segment: &kvm_segment) -> Segment {
    let kvm_segment {
        base,
        limit,
        selector,
        type_,
        present,
        dpl,
        db,
        s,
        l,
        g,
        avl,
        unusable,
        padding: _,
    } = *segment;
    let bits = [
        (s, 4),
        (u8::from(present != 0 && unusable == 0), 7),
        (avl, 12),
        (l, 13),
        (db, 14),
        (g, 15),
    ];
    let attributes =
        bits.iter().fold(u16::from(type_ & 15) | u16::from(dpl & 3) << 5, |all, &(value, bit)| {
            all | u16::from(value != 0) << bit
        });
    Segment { selector, base, limit, attributes: SegmentAttributes(attributes) }
}

fn to_table(table: &TableRegister) -> kvm_dtable {
    kvm_dtable { base: table.base, limit: table.limit, padding: [0; 3] }
}

fn from_table(table: &kvm_dtable) -> TableRegister {
    TableRegister { base: table.base, limit: table.limit }
}

pub(crate) fn to_sregs(state: &CpuState, apic_base: u64, cr8: u8) -> kvm_sregs {
    let segments = &state.segments;
    let [es, cs, ss, ds, fs, gs] = segments.regs.each_ref().map(to_segment);
    // KVM takes the privilege level from SS.
    let ss = kvm_segment { dpl: segments.cpl & 3, ..ss };
    let mut tr = to_segment(&segments.tr);
    // A task register that is loaded is busy; processors refuse another.
    tr.type_ |= 2;
    kvm_sregs {
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        tr,
        ldt: to_segment(&segments.ldtr),
        gdt: to_table(&segments.gdtr),
        idt: to_table(&segments.idtr),
        cr0: state.control.cr0,
        cr2: state.control.cr2,
        cr3: state.control.cr3,
        cr4: state.control.cr4,
        cr8: cr8.into(),
        efer: state.control.efer,
        apic_base,
        interrupt_bitmap: [0; 4],
    }
}

/// Puts what `kvm_sregs` says into a state whose RFLAGS are there already.
pub(crate) fn from_sregs(state: &mut CpuState, sregs: &kvm_sregs) {
    let kvm_sregs { cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, cr0, cr2, cr3, cr4, efer, .. } =
        sregs;
    let segments = &mut state.segments;
    segments.regs = [es, cs, ss, ds, fs, gs].map(from_segment);
    segments.ldtr = from_segment(ldt);
    segments.tr = from_segment(tr);
    segments.gdtr = from_table(gdt);
    segments.idtr = from_table(idt);
    let control = &mut state.control;
    (control.cr0, control.cr2, control.cr3) = (*cr0 | cr0::ET, *cr2, *cr3);
    (control.cr4, control.efer) = (*cr4, *efer);
    segments.cpl = match (cr0 & cr0::PE != 0, state.general.rflags & rflags::VM != 0) {
        (false, _) => 0,
        (true, true) => 3,
        (true, false) => ss.dpl & 3,
    };
}
