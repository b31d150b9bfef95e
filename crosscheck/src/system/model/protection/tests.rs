//! The model of privilege, held against sentences of Intel SDM vol. 2 and vol. 3A, chapters 5 to 7.

use super::*;
use crate::system::image::LOW;
use crate::system::instruction::Instruction;
use crate::system::model::transfer::FarPointer;

const FREE: u16 = 0x80;
const CODE: u64 = 0x00cf_9b00_0000_ffff;
const CODE64: u64 = 0x00af_9b00_0000_ffff;
const CONFORMING: u64 = 0x00cf_9f00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const PRESENT: u64 = 1 << 47;

fn dpl(level: u64) -> u64 {
    level << 45
}

/// A gate of this type to offset 1234h of a selector.
fn gate(kind: u64, selector: u16, level: u64) -> u64 {
    0x1234 | u64::from(selector) << 16 | kind << 40 | PRESENT | dpl(level)
}

/// A processor at a privilege level, with this at [`FREE`] in the global descriptor table.
fn processor(lma: bool, cpl: u8, descriptors: &[u64]) -> Processor {
    let mut image = Image::default();
    layout::write(&mut image, lma);
    for (at, entry) in (layout::GDT + u64::from(FREE)..).step_by(8).zip(descriptors) {
        image.put_number(at, *entry, 8);
    }
    for level in 0..3 {
        let at = layout::TSS + 4 + 8 * level;
        image.put_number(at, 0x4000 + 0x100 * level, 4);
        image.put_number(at + 4, if lma { 0 } else { layout::data(level as u8).into() }, 2);
    }
    let segment = |selector: u16| {
        let at = layout::GDT + u64::from(selector & !7);
        Cached::new(selector, Descriptor(image.get(at, 8)))
    };
    let data = segment(layout::data(cpl));
    let mut segments = [data; 6];
    segments[CS] = segment(if lma { layout::code64(cpl) } else { layout::code32(cpl) });
    let mut regs = [0; 16];
    regs[4] = 0x3000;
    assert!(LOW.contains(regs[4]));
    Processor {
        vendor: Vendor::Intel,
        lma,
        cpl,
        regs,
        rip: 0x5000,
        length: 2,
        rflags: 0x202,
        segments,
        gdt: Table { base: layout::GDT, limit: 0xff },
        idt: Table { base: layout::IDT, limit: 0xfff },
        ldt: None,
        tr: Cached {
            selector: layout::TSS_SELECTOR,
            base: layout::TSS,
            limit: 0x67,
            attributes: 0x8b,
        },
        image,
        read: Vec::new(),
        vague: Vec::new(),
        vague_rsp: false,
    }
}

fn protected(cpl: u8, descriptors: &[u64]) -> Processor {
    processor(false, cpl, descriptors)
}

fn load(mut processor: Processor, register: usize, selector: u16) -> Result<Cached, Stop> {
    processor.load_segment(register, selector).map(|()| processor.segments[register])
}

fn to(selector: u16) -> FarPointer {
    FarPointer { selector, offset: 0x10, size: 4 }
}

#[test]
fn a_loaded_segment_has_the_descriptors_base_limit_and_attributes() {
    let entry = 0x1240_9234_5678_9abc;
    let found = load(protected(0, &[entry]), DS, FREE).unwrap();
    // The limit counts bytes, and the descriptor is marked accessed.
    let expected = Cached { selector: FREE, base: 0x1234_5678, limit: 0x9abc, attributes: 0x4093 };
    assert_eq!(found, expected);
    let pages = load(protected(0, &[DATA]), DS, FREE).unwrap();
    assert_eq!(pages.limit, u32::MAX);
}

#[test]
fn null_selectors_may_be_loaded_but_into_ss() {
    assert_eq!(load(protected(0, &[]), ES, 3), Ok(Cached::null(3)));
    assert_eq!(load(protected(0, &[]), SS, 0), Err(fault0(GP)));
    // In 64-bit mode they may at CPL 0 to 2, if the RPL is the CPL.
    assert!(load(processor(true, 2, &[]), SS, 2).is_ok());
    assert_eq!(load(processor(true, 2, &[]), SS, 0), Err(fault0(GP)));
    assert_eq!(load(processor(true, 3, &[]), SS, 3), Err(fault0(GP)));
}

#[test]
fn data_segments_need_a_dpl_of_at_least_cpl_and_rpl() {
    for (cpl, rpl, level, good) in
        [(3, 3, 3, true), (3, 3, 2, false), (0, 3, 2, false), (2, 1, 2, true), (0, 0, 0, true)]
    {
        let found = load(protected(cpl, &[DATA | dpl(level)]), DS, FREE | rpl);
        assert_eq!(found.is_ok(), good, "CPL {cpl}, RPL {rpl}, DPL {level}");
        assert!(good || found == Err(Stop::Fault(GP, FREE.into())));
    }
    // Readable conforming code, at any.
    assert!(load(protected(3, &[CONFORMING]), DS, FREE | 3).is_ok());
    let unreadable = CONFORMING & !(1 << 41);
    assert_eq!(load(protected(0, &[unreadable]), DS, FREE), Err(fault(GP, FREE)));
}

#[test]
fn ss_needs_writable_data_with_rpl_and_dpl_equal_to_cpl() {
    let ss = |cpl, rpl, entry| load(protected(cpl, &[entry]), SS, FREE | rpl);
    assert!(ss(1, 1, DATA | dpl(1)).is_ok());
    let gp = Err(fault(GP, FREE));
    assert_eq!(ss(1, 0, DATA | dpl(1)), gp);
    assert_eq!(ss(1, 1, DATA | dpl(2)), gp);
    assert_eq!(ss(0, 0, DATA & !(1 << 41)), gp);
    assert_eq!(ss(0, 0, CODE), gp);
}

#[test]
fn absent_segments_raise_np_and_absent_stacks_ss() {
    let absent = DATA & !PRESENT;
    assert_eq!(load(protected(0, &[absent]), DS, FREE), Err(fault(NP, FREE)));
    assert_eq!(load(protected(0, &[absent]), SS, FREE), Err(fault(SS_FAULT, FREE)));
}

#[test]
fn selectors_beyond_the_table_raise_gp() {
    assert_eq!(load(protected(0, &[]), DS, 0x100), Err(fault(GP, 0x100)));
    assert_eq!(load(protected(0, &[]), DS, 0x0c), Err(fault(GP, 0x0c)));
    let mut short = protected(0, &[DATA]);
    short.gdt.limit = u64::from(FREE) + 6;
    assert_eq!(load(short, DS, FREE), Err(fault(GP, FREE)));
}

#[test]
fn lar_and_lsl_know_the_types_of_their_tables() {
    let zf = |lma, check, kind: u64| {
        let mut processor = processor(lma, 0, &[PRESENT | kind << 40 | 0x1234, 0]);
        processor.check(check, FREE, 1).unwrap();
        processor.rflags & ZF != 0
    };
    let valid = |lma, check| (0..16).filter(|&kind| zf(lma, check, kind)).collect::<Vec<_>>();
    assert_eq!(valid(false, Check::Lar), [1, 2, 3, 4, 5, 9, 11, 12]);
    assert_eq!(valid(true, Check::Lar), [2, 9, 11, 12]);
    assert_eq!(valid(false, Check::Lsl), [1, 2, 3, 9, 11]);
    assert_eq!(valid(true, Check::Lsl), [2, 9, 11]);
}

#[test]
fn verr_and_verw_need_a_segment_that_can_be_read_or_written_from_here() {
    let zf = |cpl, check, entry| {
        let mut processor = protected(cpl, &[entry]);
        processor.check(check, FREE | 3, 1).unwrap();
        processor.rflags & ZF != 0
    };
    assert!(zf(3, Check::Verr, DATA | dpl(3)) && zf(3, Check::Verw, DATA | dpl(3)));
    assert!(!zf(3, Check::Verr, DATA) && !zf(0, Check::Verw, DATA), "RPL 3");
    assert!(zf(3, Check::Verr, CONFORMING) && !zf(3, Check::Verw, CONFORMING));
    assert!(!zf(0, Check::Verr, CODE & !(1 << 41) | dpl(3)));
}

#[test]
fn ltr_marks_the_tss_busy_and_refuses_busy_ones() {
    let tss = |kind: u64| 0x67 | PRESENT | kind << 40;
    let mut good = protected(0, &[tss(9)]);
    assert_eq!(good.load_task(FREE), Ok(()));
    assert_eq!(good.image.byte(layout::GDT + u64::from(FREE) + 5), 0x8b);
    assert_eq!(protected(0, &[tss(11)]).load_task(FREE), Err(fault(GP, FREE)));
    assert_eq!(protected(3, &[tss(9)]).load_task(FREE), Err(fault0(GP)));
    assert_eq!(processor(true, 0, &[tss(1), 0]).load_task(FREE), Err(fault(GP, FREE)));
}

#[test]
fn a_far_jump_needs_cpl_for_nonconforming_code_and_at_most_cpl_for_conforming() {
    let jump = |cpl, rpl, entry| protected(cpl, &[entry]).jump(to(FREE | rpl));
    assert!(jump(3, 3, CODE | dpl(3)).is_ok());
    assert_eq!(jump(3, 3, CODE), Err(fault(GP, FREE)));
    assert_eq!(jump(0, 3, CODE), Err(fault(GP, FREE)), "RPL above CPL");
    assert!(jump(3, 0, CONFORMING).is_ok());
    assert_eq!(jump(0, 0, CONFORMING | dpl(3)), Err(fault(GP, FREE)));
    assert_eq!(jump(0, 0, CODE & !PRESENT), Err(fault(NP, FREE)));
    assert_eq!(jump(0, 0, DATA), Err(fault(GP, FREE)));
    assert_eq!(protected(0, &[]).jump(to(0)), Err(fault0(GP)));
}

#[test]
fn code_with_l_and_d_is_refused_in_ia32e_mode_alone() {
    let both = CODE64 | 1 << 54;
    assert!(protected(0, &[both]).jump(to(FREE)).is_ok());
    assert_eq!(processor(true, 0, &[both]).jump(to(FREE)), Err(fault(GP, FREE)));
}

#[test]
fn a_call_gate_to_a_lower_dpl_changes_the_stack_and_copies_parameters() {
    let entries = [gate(12, layout::code32(1), 3) | 2 << 32];
    let mut cpu = protected(3, &entries);
    cpu.image.put_number(0x3000, 0x1111, 4);
    cpu.image.put_number(0x3004, 0x2222, 4);
    assert_eq!(cpu.call(to(FREE | 3)), Ok(()));
    assert_eq!((cpu.cpl, cpu.rip), (1, 0x1234));
    assert_eq!(cpu.segments[CS].selector, layout::code32(1));
    assert_eq!(cpu.segments[SS].selector, layout::data(1));
    assert_eq!(cpu.regs[4], 0x4100 - 24);
    let stack: Vec<_> = (0..6).map(|n| cpu.stacked(4 * n, 4)).collect();
    let (cs, ss) = (layout::code32(3).into(), layout::data(3).into());
    assert_eq!(stack, [0x5002, cs, 0x1111, 0x2222, 0x3000, ss]);
}

#[test]
fn a_jump_through_a_call_gate_does_not_change_the_privilege() {
    let jump = |selector| protected(3, &[gate(12, selector, 3)]).jump(to(FREE | 3));
    assert_eq!(jump(layout::code32(1)), Err(fault(GP, layout::code32(1))));
    assert!(jump(layout::code32(3)).is_ok());
}

#[test]
fn a_gates_dpl_must_be_at_least_cpl_and_rpl() {
    let call = |cpl, rpl, level| {
        protected(cpl, &[gate(12, layout::code32(cpl), level)]).call(to(FREE | rpl))
    };
    assert!(call(2, 2, 2).is_ok());
    assert_eq!(call(2, 2, 1), Err(fault(GP, FREE)));
    assert_eq!(call(0, 3, 2), Err(fault(GP, FREE)));
}

#[test]
fn what_is_wrong_with_a_stack_in_the_tss_raises_ts_with_its_selector() {
    let call = |ss: u16| {
        let mut cpu = protected(3, &[gate(12, layout::code32(1), 3), DATA & !PRESENT | dpl(1)]);
        cpu.image.put_number(layout::TSS + 16, ss.into(), 2);
        cpu.call(to(FREE | 3))
    };
    assert_eq!(call(0), Err(fault0(TS)));
    assert_eq!(call(layout::data(0)), Err(fault(TS, layout::data(0))));
    assert_eq!(call(layout::code32(1)), Err(fault(TS, layout::code32(1))));
    assert_eq!(call(0x301), Err(fault(TS, 0x300)));
    assert_eq!(call(FREE + 8 | 1), Err(fault(SS_FAULT, FREE + 8)));
}

#[test]
fn a_return_to_an_outer_level_nulls_segments_that_it_may_not_use() {
    let mut cpu = protected(0, &[]);
    cpu.segments[DS] = Cached::new(layout::data(3), Descriptor(DATA | dpl(3)));
    let frame = [0x10, layout::code32(3).into(), 0x2000, layout::data(3).into()];
    for (at, value) in (0x3000..).step_by(4).zip(frame) {
        cpu.image.put_number(at, value, 4);
    }
    assert_eq!(cpu.far_return(4, 0), Ok(()));
    assert_eq!((cpu.cpl, cpu.rip, cpu.regs[4]), (3, 0x10, 0x2000));
    assert_eq!(cpu.segments[ES], Cached::null(0));
    assert_eq!(cpu.segments[DS].selector, layout::data(3));
}

#[test]
fn a_return_to_an_inner_level_raises_gp() {
    let mut cpu = protected(3, &[]);
    cpu.image.put_number(0x3004, layout::code32(0).into(), 4);
    assert_eq!(cpu.far_return(4, 0), Err(fault(GP, layout::code32(0))));
}

#[test]
fn iret_changes_iopl_at_cpl_0_alone_and_if_up_to_iopl() {
    let iret = |cpl, flags: u64| {
        let mut cpu = protected(cpl, &[]);
        cpu.rflags = flags;
        let frame = [0x10, layout::code32(cpl).into(), (flags ^ 0x3200) | 2];
        for (at, value) in (0x3000..).step_by(4).zip(frame) {
            cpu.image.put_number(at, value, 4);
        }
        cpu.execute(&Instruction::InterruptReturn { size: 4 }).map(|()| cpu.rflags & 0x3200)
    };
    assert_eq!(iret(0, 2), Ok(0x3200));
    assert_eq!(iret(3, 2), Ok(0));
    assert_eq!(iret(3, 0x3002), Ok(0x3200));
}

#[test]
fn iret_with_nt_raises_gp_in_ia32e_mode() {
    let mut cpu = processor(true, 0, &[]);
    cpu.rflags |= 1 << 14;
    assert_eq!(cpu.interrupt_return(8), Err(fault0(GP)));
}

#[test]
fn interrupt_gates_clear_if_and_trap_gates_do_not() {
    let int = |kind| {
        let mut cpu = protected(0, &[]);
        cpu.image.put_number(layout::IDT + 8 * 0x20, gate(kind, layout::code32(0), 0), 8);
        cpu.interrupt(0x20).map(|()| cpu.rflags)
    };
    assert_eq!(int(14), Ok(2));
    assert_eq!(int(15), Ok(0x202));
}

#[test]
fn int_n_needs_the_gates_dpl_and_its_error_code_is_the_vector_with_the_idt_bit() {
    let int = |level, present: u64| {
        let mut cpu = protected(3, &[]);
        let entry = gate(14, layout::code32(3), level) & !(PRESENT - present);
        cpu.image.put_number(layout::IDT + 8 * 0x20, entry, 8);
        cpu.interrupt(0x20)
    };
    assert_eq!(int(3, PRESENT), Ok(()));
    assert_eq!(int(2, PRESENT), Err(Stop::Fault(GP, 0x102)));
    assert_eq!(int(3, 0), Err(Stop::Fault(NP, 0x102)));
}

#[test]
fn in_64_bit_mode_interrupts_align_the_stack_and_push_ss_and_rsp() {
    let mut cpu = processor(true, 0, &[]);
    cpu.regs[4] = 0x300c;
    cpu.image.put_number(layout::IDT + 16 * 0x20, gate(14, layout::code64(0), 0), 8);
    cpu.image.put_number(layout::IDT + 16 * 0x20 + 8, 0, 8);
    assert_eq!(cpu.interrupt(0x20), Ok(()));
    assert_eq!(cpu.regs[4], 0x3000 - 40);
    let stack: Vec<_> = (0..5).map(|n| cpu.stacked(8 * n, 8)).collect();
    let (cs, ss) = (layout::code64(0).into(), layout::data(0).into());
    assert_eq!(stack, [0x5002, cs, 0x202, 0x300c, ss]);
}
