//! Task switches by hardware.
//!
//! Intel SDM vol. 3A, chapter 7. What goes wrong before the new task is entered is raised by the
//! instruction; what goes wrong after that is raised in the new task, before its first instruction.

use trivium_cpu::bits::{cr0, cr4, debug, rflags};
use trivium_cpu::state::{CS, Injected, SS, Segment, SegmentAttributes};
use trivium_cpu::{Exception, Vector, walk};

use super::descriptor::{Descriptor, Selector, fault, kind};
use super::segments::v86_segment;
use super::stack::{Stack, null_segment};
use super::tables::{BUSY, checked_ldt};
use crate::cpu::Cpu;
use crate::mem::Rights;
use crate::op::{Stop, StopReason};

/// What leads to another task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    Jump,
    Call,
    /// An exception or interrupt; `ext` is the EXT bit of error codes.
    Interrupt {
        ext: u32,
    },
    Return,
}

impl Switch {
    /// The old task waits for the new one to return.
    fn nests(self) -> bool {
        matches!(self, Self::Call | Self::Interrupt { .. })
    }

    fn ext(self) -> u32 {
        if let Self::Interrupt { ext } = self { ext } else { 0 }
    }
}

/// Where a TSS has what. Intel SDM vol. 3A, figures 7-2 and 7-10.
struct Layout {
    /// Size of registers and distance of the segment selectors.
    size: u8,
    cr3: Option<u64>,
    ip: u64,
    flags: u64,
    regs: u64,
    segments: u64,
    /// How many segment selectors there are, ES first.
    segment_count: usize,
    ldt: u64,
    /// The T bit.
    trap: Option<u64>,
    /// The least limit.
    limit: u32,
}

const TSS32: Layout = Layout {
    size: 4,
    cr3: Some(28),
    ip: 32,
    flags: 36,
    regs: 40,
    segments: 72,
    segment_count: 6,
    ldt: 96,
    trap: Some(100),
    limit: 103,
};

const TSS16: Layout = Layout {
    size: 2,
    cr3: None,
    ip: 14,
    flags: 16,
    regs: 18,
    segments: 34,
    segment_count: 4,
    ldt: 42,
    trap: None,
    limit: 43,
};

fn layout(attributes: SegmentAttributes) -> &'static Layout {
    if attributes.kind() & 8 != 0 { &TSS32 } else { &TSS16 }
}

/// What the TSS says of a task.
#[derive(Default)]
struct Image {
    cr3: Option<u32>,
    ip: u64,
    flags: u64,
    regs: [u64; 8],
    segments: [u16; 6],
    ldt: u16,
    trap: bool,
}

fn load_field(cpu: &mut Cpu, tss: &Segment, at: u64, size: u8) -> Result<u64, Stop> {
    let address = cpu.table_address(tss.base, at);
    Ok(match size {
        2 => cpu.load_linear::<u16>(address, Rights::Processor)?.into(),
        _ => cpu.load_linear::<u32>(address, Rights::Processor)?.into(),
    })
}

fn store_field(cpu: &mut Cpu, tss: &Segment, at: u64, size: u8, value: u64) -> Result<(), Stop> {
    let address = cpu.table_address(tss.base, at);
    match size {
        2 => cpu.store_linear(address, value as u16, Rights::Processor),
        _ => cpu.store_linear(address, value as u32, Rights::Processor),
    }
}

fn load_image(cpu: &mut Cpu, tss: &Segment) -> Result<Image, Stop> {
    let l = layout(tss.attributes);
    let step = u64::from(l.size);
    let mut image = Image::default();
    if let Some(at) = l.cr3 {
        image.cr3 = Some(load_field(cpu, tss, at, 4)? as u32);
    }
    image.ip = load_field(cpu, tss, l.ip, l.size)?;
    image.flags = load_field(cpu, tss, l.flags, l.size)?;
    for (value, n) in image.regs.iter_mut().zip(0..) {
        *value = load_field(cpu, tss, l.regs + n * step, l.size)?;
    }
    for (value, n) in image.segments.iter_mut().take(l.segment_count).zip(0..) {
        *value = load_field(cpu, tss, l.segments + n * step, 2)? as u16;
    }
    image.ldt = load_field(cpu, tss, l.ldt, 2)? as u16;
    if let Some(at) = l.trap {
        image.trap = load_field(cpu, tss, at, 2)? & 1 != 0;
    }
    Ok(image)
}

/// Saves the old task; all of its TSS has been probed.
fn save(cpu: &mut Cpu, rip: u64, flags: u64) -> Result<(), Stop> {
    let tss = cpu.segments.tr;
    let l = layout(tss.attributes);
    let step = u64::from(l.size);
    store_field(cpu, &tss, l.ip, l.size, rip)?;
    store_field(cpu, &tss, l.flags, l.size, flags)?;
    for n in 0..8_u8 {
        let value = cpu.regs[usize::from(n)];
        store_field(cpu, &tss, l.regs + u64::from(n) * step, l.size, value)?;
    }
    let selectors = cpu.segments.regs.map(|segment| segment.selector);
    for (selector, n) in selectors.into_iter().take(l.segment_count).zip(0..) {
        store_field(cpu, &tss, l.segments + n * step, 2, selector.into())?;
    }
    Ok(())
}

/// The TSS that a selector chooses, if it is one that this kind of switch may go to.
fn checked_tss(cpu: &mut Cpu, selector: Selector, switch: Switch) -> Result<Descriptor, Stop> {
    let ext = switch.ext();
    let invalid = if switch == Switch::Return { Vector::TS } else { Vector::GP };
    if selector.0 & 4 != 0 {
        return Err(fault(cpu, invalid, selector, ext));
    }
    let descriptor = cpu.descriptor_or(selector, invalid, ext)?;
    let wanted = match switch {
        Switch::Return => [kind::TSS16_BUSY, kind::TSS32_BUSY],
        _ => [kind::TSS16, kind::TSS32],
    };
    if !descriptor.system_kind().is_some_and(|k| wanted.contains(&k)) {
        return Err(fault(cpu, invalid, selector, ext));
    }
    if !descriptor.present() {
        return Err(fault(cpu, Vector::NP, selector, ext));
    }
    if descriptor.limit() < layout(descriptor.attributes()).limit {
        return Err(fault(cpu, Vector::TS, selector, ext));
    }
    Ok(descriptor)
}

/// Switches to a task from JMP, CALL or IRET; the general function's `Cpu::next_rip` is set.
///
/// # Errors
/// #GP, #TS, #NP, #PF, all in the old task.
pub(super) fn switch_to(cpu: &mut Cpu, selector: Selector, switch: Switch) -> Result<(), Stop> {
    cpu.next_rip = change(cpu, selector, switch, cpu.next_rip, None)?;
    Ok(())
}

/// IRET with RFLAGS.NT set: back to the task that the TSS is linked to.
///
/// # Errors
/// As [`switch_to`].
pub(super) fn return_from_task(cpu: &mut Cpu) -> Result<(), Stop> {
    let tr = cpu.segments.tr;
    let link = load_field(cpu, &tr, 0, 2)?;
    switch_to(cpu, Selector(link as u16), Switch::Return)
}

/// Through a task gate of the IDT: gives the new RIP.
///
/// # Errors
/// As [`switch_to`].
pub(super) fn interrupt(
    cpu: &mut Cpu,
    error_code: Option<u32>,
    selector: Selector,
    ext: u32,
    return_rip: u64,
) -> Result<u64, Stop> {
    change(cpu, selector, Switch::Interrupt { ext }, return_rip, error_code)
}

/// Gives the new RIP.
fn change(
    cpu: &mut Cpu,
    selector: Selector,
    switch: Switch,
    return_rip: u64,
    error_code: Option<u32>,
) -> Result<u64, Stop> {
    let mut descriptor = checked_tss(cpu, selector, switch)?;
    let new = descriptor.segment(selector);
    let old = cpu.segments.tr;
    let image = load_image(cpu, &new)?;
    probe_tss(cpu, &old)?;
    probe_tss(cpu, &new)?;
    let old_descriptor = cpu.descriptor_or(Selector(old.selector), Vector::TS, switch.ext())?;
    let old_type = cpu.table_address(old_descriptor.address, 5);
    cpu.probe(old_type, 1, true, Rights::Processor)?;
    let new_type = cpu.table_address(descriptor.address, 5);
    cpu.probe(new_type, 1, true, Rights::Processor)?;

    // From here on nothing fails in the old task.
    if !switch.nests() {
        cpu.change_byte(old_type, |byte| byte & !(BUSY as u8))?;
    }
    let dropped = if switch == Switch::Return { rflags::NT } else { 0 };
    save(cpu, return_rip, cpu.rflags() & !dropped)?;
    if switch.nests() {
        store_field(cpu, &new, 0, 2, old.selector.into())?;
    }
    cpu.set_type_bit(&mut descriptor, BUSY)?;
    cpu.segments.tr = descriptor.segment(selector);
    put_image(cpu, &image, switch.nests(), layout(new.attributes).size);
    let entered = enter(cpu, &image, switch.ext(), error_code);
    cpu.update_mode();
    finish(cpu, entered, image.trap);
    Ok(image.ip)
}

fn probe_tss(cpu: &mut Cpu, tss: &Segment) -> Result<(), Stop> {
    let len = u64::from(layout(tss.attributes).limit) + 1;
    cpu.probe(tss.base, len, true, Rights::Processor)
}

/// Loads the registers that cannot be wrong. Segment registers get their selectors but no segments
/// yet.
fn put_image(cpu: &mut Cpu, image: &Image, nested: bool, size: u8) {
    cpu.control.cr0 |= cr0::TS;
    for (n, value) in (0_u8..).zip(image.regs) {
        cpu.set_reg(n, 0, size, value);
    }
    for (place, selector) in cpu.segments.regs.iter_mut().zip(image.segments) {
        *place = null_segment(Selector(selector), 0);
    }
    cpu.segments.ldtr = null_segment(Selector(image.ldt), 0);
    cpu.debug.dr7 &= !debug::DR7_LOCAL;
    cpu.update_watch();
    let nt = if nested { rflags::NT } else { 0 };
    cpu.set_rflags(image.flags | nt);
}

/// The part of a switch that happens in the new task.
fn enter(cpu: &mut Cpu, image: &Image, ext: u32, error_code: Option<u32>) -> Result<(), Stop> {
    if let Some(cr3) = image.cr3.filter(|_| cpu.control.cr0 & cr0::PG != 0) {
        load_cr3(cpu, cr3)?;
    }
    let ldt = Selector(image.ldt);
    if !ldt.is_null() {
        cpu.segments.ldtr = checked_ldt(cpu, ldt, Vector::TS)?;
    }
    if cpu.v86() {
        for (place, selector) in cpu.segments.regs.iter_mut().zip(image.segments) {
            *place = v86_segment(selector);
        }
        cpu.segments.cpl = 3;
    } else {
        enter_segments(cpu, image, ext)?;
    }
    cpu.update_mode();
    if image.ip > cpu.segments.regs[CS].limit.into() {
        return Err(cpu.raise(Exception::gp(ext)));
    }
    if let Some(code) = error_code {
        let size = layout(cpu.segments.tr.attributes).size;
        let stack = Stack::present(cpu, ext);
        let sp = cpu.push_all(&stack, size, &[code.into()])?;
        cpu.set_stack_pointer(sp);
    }
    Ok(())
}

fn load_cr3(cpu: &mut Cpu, cr3: u32) -> Result<(), Stop> {
    cpu.control.cr3 = cr3.into();
    if cpu.control.cr4 & cr4::PAE != 0 {
        match walk::load_pdptrs(&cpu.memory, cr3.into(), cpu.model.phys_bits) {
            Ok(pdptr) => cpu.control.pdptr = pdptr,
            Err(exception) => return Err(cpu.raise(exception)),
        }
    }
    cpu.update_paging();
    cpu.flush_tlb(true);
    Ok(())
}

fn enter_segments(cpu: &mut Cpu, image: &Image, ext: u32) -> Result<(), Stop> {
    let selector = Selector(image.segments[CS]);
    let cpl = selector.rpl();
    cpu.segments.cpl = cpl;
    let mut code = cpu.descriptor_or(selector, Vector::TS, ext)?;
    let reachable = match code.is_conforming() {
        true => code.dpl() <= cpl,
        false => code.dpl() == cpl,
    };
    if !code.is_code() || !reachable {
        return Err(fault(cpu, Vector::TS, selector, ext));
    }
    if !code.present() {
        return Err(fault(cpu, Vector::NP, selector, ext));
    }
    cpu.mark_accessed(&mut code)?;
    cpu.segments.regs[CS] = code.segment(selector);
    let stack = Selector(image.segments[SS]);
    cpu.segments.regs[SS] = cpu.checked_stack(stack, cpl, Vector::TS, ext)?;
    for index in [0, 3, 4, 5] {
        let selector = Selector(image.segments[index]);
        if !selector.is_null() {
            cpu.segments.regs[index] = cpu.checked_data(selector, Vector::TS, ext)?;
        }
    }
    Ok(())
}

/// What the new task meets before its first instruction.
fn finish(cpu: &mut Cpu, entered: Result<(), Stop>, trap: bool) {
    let exception = match entered {
        Err(Stop) if cpu.stop == StopReason::Exception => cpu.exception,
        _ => {
            cpu.pending_debug |= if trap { debug::DR6_BT } else { 0 };
            return;
        }
    };
    if let Some(linear) = exception.cr2 {
        cpu.control.cr2 = linear;
    }
    cpu.stop = StopReason::Cut;
    cpu.injected = Some(Injected {
        vector: exception.vector as u8,
        error_code: exception.error_code,
        software_length: None,
    });
    cpu.look = true;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, HANDLERS, IDT, STACK, TSS, TestMachine, descriptor, gate, sel};

    const NEW: u64 = 0xc000;
    /// jmp far 0x40:0
    const JMP: [u8; 7] = [0xea, 0, 0, 0, 0, 0x40, 0];
    /// call far 0x40:0
    const CALL: [u8; 7] = [0x9a, 0, 0, 0, 0, 0x40, 0];

    /// A task at [`NEW`] whose registers are 1 to 8, and whose code is at 4000h.
    fn with_task(code: &[u8], cs: u16, ss: u16) -> TestMachine {
        let mut m = TestMachine::protected(code);
        m.put_entry(sel::FREE, descriptor(NEW, 0x67, 0x89));
        m.put(NEW + 32, &0x4000_u32.to_le_bytes());
        m.put(NEW + 36, &0x202_u32.to_le_bytes());
        for n in 0..8 {
            m.put(NEW + 40 + 4 * n, &(n as u32 + 1).to_le_bytes());
        }
        m.put(NEW + 56, &0x8000_u32.to_le_bytes());
        for (n, selector) in [sel::DATA, cs, ss, sel::DATA, 0, 0].into_iter().enumerate() {
            m.put(NEW + 72 + 4 * n as u64, &selector.to_le_bytes());
        }
        m
    }

    fn tss_type(m: &TestMachine, selector: u16) -> u64 {
        m.entry(selector) >> 40 & 0xff
    }

    #[test]
    fn a_jump_saves_the_old_task_and_loads_the_new_one() {
        let mut m = with_task(&JMP, sel::CODE, sel::DATA);
        m.set(|s| s.general.regs[3] = 0x1234_5678);
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.rip, state.general.rflags), (0x4000, 0x202));
        assert_eq!(state.general.regs[..8], [1, 2, 3, 4, 0x8000, 6, 7, 8]);
        assert_eq!(state.segments.tr.selector, sel::FREE);
        assert_ne!(state.control.cr0 & cr0::TS, 0);
        assert_eq!((m.get_u32(TSS + 32), m.get_u32(TSS + 52)), (CODE as u32 + 7, 0x1234_5678));
        assert_eq!((m.get_u32(TSS + 56), m.get_u16(TSS + 76)), (STACK as u32, sel::CODE));
        assert_eq!((tss_type(&m, sel::TSS), tss_type(&m, sel::FREE)), (0x89, 0x8b));
    }

    #[test]
    fn a_call_nests_and_iret_returns() {
        let mut m = with_task(&CALL, sel::CODE, sel::DATA);
        m.put(0x4000, &[0xcf]);
        m.run(1);
        assert_eq!(m.get_u16(NEW), sel::TSS);
        assert_ne!(m.state().general.rflags & rflags::NT, 0);
        assert_eq!((tss_type(&m, sel::TSS), tss_type(&m, sel::FREE)), (0x8b, 0x8b));
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.rip, state.general.regs[4]), (CODE + 7, STACK));
        assert_eq!((tss_type(&m, sel::TSS), tss_type(&m, sel::FREE)), (0x8b, 0x89));
        assert_eq!(state.general.rflags & rflags::NT, 0);
        assert_eq!(m.get_u32(NEW + 36) & rflags::NT as u32, 0, "cleared in the image");
    }

    #[test]
    fn a_task_gate_takes_interrupts_and_error_codes() {
        // mov ds, ax
        let mut m = with_task(&[0x8e, 0xd8], sel::CODE, sel::DATA);
        m.put_u64(IDT + 8 * 13, gate(sel::FREE, 0, 0x85));
        m.put(0x4000, &[0xf4]);
        m.set(|s| s.general.regs[0] = 0x1000);
        m.run(10);
        let state = m.state();
        assert_eq!((state.general.rip, state.general.regs[4]), (0x4001, 0x7ffc));
        assert_eq!((m.get_u32(0x7ffc), m.get_u32(TSS + 32)), (0x1000, CODE as u32));
    }

    #[test]
    fn a_busy_task_cannot_be_entered() {
        for (kind, vector) in [(0x8b, Vector::GP), (0x09, Vector::NP)] {
            let mut m = with_task(&JMP, sel::CODE, sel::DATA);
            m.put_entry(sel::FREE, descriptor(NEW, 0x67, kind));
            m.raises(vector, Some(sel::FREE.into()));
        }
        let mut m = with_task(&JMP, sel::CODE, sel::DATA);
        m.put_entry(sel::FREE, descriptor(NEW, 0x66, 0x89));
        m.raises(Vector::TS, Some(sel::FREE.into()));
    }

    #[test]
    fn what_is_wrong_with_a_segment_is_raised_in_the_new_task() {
        let mut m = with_task(&JMP, sel::CODE, 0);
        // The handler needs no stack but the one that is missing: another task.
        m.put_entry(sel::FREE + 8, descriptor(0xd000, 0x67, 0x89));
        m.put_u64(IDT + 8 * 10, gate(sel::FREE + 8, 0, 0x85));
        m.put(0xd000 + 32, &(HANDLERS as u32).to_le_bytes());
        m.put(0xd000 + 56, &0x8000_u32.to_le_bytes());
        m.put(0xd000 + 76, &sel::CODE.to_le_bytes());
        m.put(0xd000 + 80, &sel::DATA.to_le_bytes());
        assert_eq!(m.run_to_handler(), 0);
        assert_eq!(m.state().segments.tr.selector, sel::FREE + 8);
        assert_eq!((m.get_u32(0x7ffc), m.get_u32(NEW + 32)), (0, 0x4000));
        assert_eq!(m.get_u16(0xd000), sel::FREE);
    }

    #[test]
    fn the_t_bit_traps_before_the_first_instruction() {
        let mut m = with_task(&JMP, sel::CODE, sel::DATA);
        m.put(NEW + 100, &[1]);
        assert_eq!(m.run_to_handler(), 1);
        assert_ne!(m.state().debug.dr6 & debug::DR6_BT, 0);
        assert_eq!(m.get_u32(0x8000 - 12), 0x4000);
    }

    #[test]
    fn a_task_may_run_in_virtual_8086_mode() {
        let mut m = with_task(&JMP, 0x100, 0x200);
        m.put(NEW + 36, &0x2_0202_u32.to_le_bytes());
        m.run(1);
        let state = m.state();
        assert_eq!((state.segments.cpl, state.segments.regs[CS].base), (3, 0x1000));
        assert_eq!(state.segments.regs[SS].attributes.0, 0xf3);
    }

    #[test]
    fn sixteen_bit_tasks() {
        let mut m = TestMachine::protected(&JMP);
        m.put_entry(sel::FREE, descriptor(NEW, 0x2b, 0x81));
        m.put(NEW + 14, &0x4000_u16.to_le_bytes());
        m.put(NEW + 18, &0x1111_u16.to_le_bytes());
        m.put(NEW + 26, &0x8000_u16.to_le_bytes());
        for (n, selector) in [sel::DATA, sel::CODE, sel::DATA, 0].into_iter().enumerate() {
            m.put(NEW + 34 + 2 * n as u64, &selector.to_le_bytes());
        }
        m.set(|s| s.general.regs[0] = 0x2222_2222);
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.rip, state.general.regs[0] & 0xffff), (0x4000, 0x1111));
        assert_eq!(state.segments.tr.attributes.kind(), kind::TSS16_BUSY);
    }
}
