//! Delivery of exceptions and interrupts in real, protected, virtual-8086 and long mode; INIT and
//! start-up IPI.
//!
//! Intel SDM vol. 3A, chapter 6; vol. 2, INT n; vol. 3A, table 9-1.

use trivium_cpu::bits::{debug, rflags};
use trivium_cpu::state::{Activity, CS, SS, Segment, SegmentAttributes};
use trivium_cpu::state::{Injected, SegmentAttributes as A};
use trivium_cpu::{Exception, Vector};

use super::descriptor::{Descriptor, Selector, fault, kind};
use super::segments::real_segment;
use super::stack::{Stack, null_segment};
use super::task;
use crate::cpu::{Cpu, RSP};
use crate::mem::Rights;
use crate::op::Stop;

/// What raised an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The processor found an exception: a fault or trap. RIP is what is to be pushed.
    Exception,
    /// INT n, INT3, INTO: gates' privilege is checked.
    Software,
    /// INT1: as an exception, but what is pushed is the RIP of the next instruction.
    Int1,
    /// An external interrupt.
    External,
    /// A non-maskable interrupt.
    Nmi,
}

/// An exception or interrupt to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its vector.
    pub vector: u8,
    /// Its error code, if it pushes one.
    pub error_code: Option<u32>,
    /// What raised it.
    pub source: Source,
    /// Length of the software interrupt instruction at RIP, if it is that: the return address is
    /// behind it.
    pub length: u8,
    /// RFLAGS is pushed with RF set: the instruction is to be begun again after a fault.
    rf: bool,
    first: Option<Vector>,
}

impl Event {
    /// An event.
    #[must_use]
    pub fn new(vector: u8, error_code: Option<u32>, source: Source) -> Self {
        Self { vector, error_code, source, length: 0, rf: false, first: None }
    }

    /// #DB that the instruction at RIP does not raise itself: a trap after the one before it, or
    /// an instruction breakpoint.
    #[must_use]
    pub fn debug() -> Self {
        Self { rf: false, ..Self::from(Exception::plain(Vector::DB)) }
    }

    /// The exception that it is, for the double-fault rules.
    #[must_use]
    pub fn exception(&self) -> Option<Vector> {
        self.first
    }

    /// Bit 0 of the error code of what goes wrong in its delivery: something other than an
    /// instruction for it is to blame. Intel SDM vol. 3A, 6.13.
    fn ext(&self) -> u32 {
        u32::from(self.source != Source::Software)
    }

    /// The error code that names its entry in the IDT.
    fn idt_code(&self) -> u32 {
        u32::from(self.vector) << 3 | IDT | self.ext()
    }

    /// What is pushed of RFLAGS. Intel SDM vol. 3B, 18.3.1.1.
    fn flags(&self, cpu: &Cpu) -> u64 {
        let flags = cpu.rflags();
        match self.source {
            Source::Exception if self.rf => flags | rflags::RF,
            Source::Software | Source::Int1 => flags & !rflags::RF,
            _ => flags,
        }
    }
}

/// Whether an exception that an instruction raises is a fault: #DB for general detection is.
/// Aborts have RF as it is.
fn is_fault(vector: Vector) -> bool {
    use Vector as V;
    !matches!(vector, V::BP | V::OF | V::DF | V::MC | V::NMI)
}

/// Bit of an error code: it names an entry of the IDT.
const IDT: u32 = 2;

impl From<Exception> for Event {
    fn from(exception: Exception) -> Self {
        Self {
            vector: exception.vector as u8,
            error_code: exception.error_code,
            source: Source::Exception,
            length: 0,
            rf: is_fault(exception.vector),
            first: Some(exception.vector),
        }
    }
}

/// An event whose delivery another CPU had begun.
#[must_use]
pub fn reinjected(injected: &Injected) -> Event {
    let source = match (injected.software_length, injected.vector) {
        (Some(_), _) => Source::Software,
        (None, 2) => Source::Nmi,
        (None, 0..=31) => Source::Exception,
        (None, _) => Source::External,
    };
    let length = injected.software_length.unwrap_or(0);
    let first = (source == Source::Exception).then(|| exception_of(injected.vector)).flatten();
    let rf = first.is_some_and(|v| v != Vector::DB && is_fault(v));
    Event { length, first, rf, ..Event::new(injected.vector, injected.error_code, source) }
}

/// The exception of a vector.
fn exception_of(vector: u8) -> Option<Vector> {
    use Vector as V;
    let all = [
        V::DE,
        V::DB,
        V::NMI,
        V::BP,
        V::OF,
        V::BR,
        V::UD,
        V::NM,
        V::DF,
        V::TS,
        V::NP,
        V::SS,
        V::GP,
        V::PF,
        V::MF,
        V::AC,
        V::MC,
        V::XM,
    ];
    all.into_iter().find(|&v| v as u8 == vector)
}

/// INIT: most of the state is as after RESET#. A processor other than the first waits for a
/// start-up IPI. Intel SDM vol. 3A, 8.4.2 and table 9-1.
pub fn init(cpu: &mut Cpu) {
    let state = cpu.state().after_init(&cpu.model, cpu.topology.apic_id == 0);
    cpu.put_state(&state);
}

/// A start-up IPI: real mode at `vector << 12`.
pub fn start(cpu: &mut Cpu, vector: u8) {
    let selector = u16::from(vector) << 8;
    let cs = &mut cpu.segments.regs[CS];
    *cs = Segment { selector, base: u64::from(selector) << 4, ..*cs };
    cpu.rip = 0;
    cpu.activity = Activity::Running;
    cpu.update_mode();
}

/// Delivers an event through the interrupt table of the present mode.
///
/// # Errors
/// An exception on the way (`Cpu::exception`), with nothing changed that matters; or the value of
/// a device is to be fetched first.
pub fn deliver(cpu: &mut Cpu, event: &Event) -> Result<(), Stop> {
    let return_rip = cpu.rip.wrapping_add(event.length.into()) & cpu.ip_mask;
    cpu.rip = enter(cpu, event, return_rip)?;
    cpu.activity = Activity::Running;
    cpu.shadow = 0;
    Ok(())
}

/// Delivers an event of the present instruction, a software interrupt, from a general function.
///
/// # Errors
/// As [`deliver`].
pub(super) fn software(cpu: &mut Cpu, vector: u8, source: Source) -> Result<(), Stop> {
    let event = Event::new(vector, None, source);
    cpu.next_rip = enter(cpu, &event, cpu.next_rip)?;
    // TF is clear in the handler; the trap comes when it returns.
    cpu.single_step = false;
    Ok(())
}

/// Gives the RIP of the handler; everything else is done.
fn enter(cpu: &mut Cpu, event: &Event, return_rip: u64) -> Result<u64, Stop> {
    let rip = if cpu.long_mode() {
        enter_long(cpu, event, return_rip)
    } else if cpu.protected() {
        enter_protected(cpu, event, return_rip)
    } else {
        enter_real(cpu, event, return_rip)
    }?;
    if event.vector == Vector::DB as u8 {
        cpu.debug.dr7 &= !debug::DR7_GD;
    }
    Ok(rip)
}

/// Through the table of far pointers. Intel SDM vol. 3A, 20.1.4.
fn enter_real(cpu: &mut Cpu, event: &Event, return_rip: u64) -> Result<u64, Stop> {
    let offset = 4 * u64::from(event.vector);
    if offset + 3 > cpu.segments.idtr.limit.into() {
        return Err(cpu.raise(Exception::gp(event.idt_code())));
    }
    let address = cpu.table_address(cpu.segments.idtr.base, offset);
    let pointer = cpu.load_linear::<u32>(address, Rights::Processor)?;
    enter_real_at(cpu, pointer, return_rip, event.flags(cpu))
}

/// Pushes FLAGS, CS and IP and goes to a far pointer, as in real mode.
pub(super) fn enter_real_at(
    cpu: &mut Cpu,
    pointer: u32,
    return_rip: u64,
    flags: u64,
) -> Result<u64, Stop> {
    let (rip, selector) = (u64::from(pointer & 0xffff), (pointer >> 16) as u16);
    let stack = Stack::present(cpu, 0);
    let cs = cpu.segments.regs[CS];
    let frame = [flags, cs.selector.into(), return_rip];
    let sp = cpu.push_all(&stack, 2, &frame)?;
    cpu.set_stack_pointer(sp);
    cpu.segments.regs[CS] = match cpu.v86() {
        true => super::segments::v86_segment(selector),
        false => real_segment(&cs, CS, selector),
    };
    let cleared = rflags::IF | rflags::TF | rflags::RF | rflags::AC;
    cpu.system_flags &= !if cpu.v86() { rflags::TF | rflags::RF } else { cleared };
    cpu.update_mode();
    Ok(rip)
}

/// A gate of the IDT outside long mode. Intel SDM vol. 3A, 6.11.
fn gate(cpu: &mut Cpu, event: &Event) -> Result<Descriptor, Stop> {
    let offset = 8 * u64::from(event.vector);
    if offset + 7 > cpu.segments.idtr.limit.into() {
        return Err(cpu.raise(Exception::gp(event.idt_code())));
    }
    let address = cpu.table_address(cpu.segments.idtr.base, offset);
    let raw = cpu.load_linear::<u64>(address, Rights::Processor)?;
    Ok(Descriptor { raw, address, selector: Selector(0) })
}

/// The checks that are the same for all gates: type, DPL for software, present.
fn check_gate(
    cpu: &mut Cpu,
    event: &Event,
    gate: &Descriptor,
    is_good: impl Fn(u8) -> bool,
) -> Result<(), Stop> {
    let forbidden = event.source == Source::Software && gate.dpl() < cpu.cpl();
    if !gate.system_kind().is_some_and(is_good) || forbidden {
        return Err(cpu.raise(Exception::gp(event.idt_code())));
    }
    if !gate.present() {
        return Err(cpu.raise(Exception::with_code(Vector::NP, event.idt_code())));
    }
    Ok(())
}

/// Through a gate of protected mode. Intel SDM vol. 3A, 6.12.
fn enter_protected(cpu: &mut Cpu, event: &Event, return_rip: u64) -> Result<u64, Stop> {
    use kind::{INTERRUPT_GATE16, INTERRUPT_GATE32, TASK_GATE, TRAP_GATE16, TRAP_GATE32};
    let gate = gate(cpu, event)?;
    check_gate(cpu, event, &gate, |k| {
        matches!(k, INTERRUPT_GATE16 | TRAP_GATE16 | INTERRUPT_GATE32 | TRAP_GATE32 | TASK_GATE)
    })?;
    if gate.system_kind() == Some(TASK_GATE) {
        // The old task's image has RF as a frame would have it.
        let flags = event.flags(cpu) & rflags::RF;
        cpu.system_flags = cpu.system_flags & !rflags::RF | flags;
        return task::interrupt(
            cpu,
            event.error_code,
            gate.gate_selector(),
            event.ext(),
            return_rip,
        );
    }
    let wide = gate.attributes().kind() & 8 != 0;
    let entry = handler(cpu, event, gate.gate_selector())?;
    let rip = gate.gate_offset() & if wide { 0xffff_ffff } else { 0xffff };
    let ext = event.ext();
    let v86 = cpu.v86();
    let (cpl, old) = (entry.cpl, cpu.segments);
    let stack = match cpl < cpu.cpl() {
        true => cpu.stack_of_tss(cpl, ext)?,
        false => Stack::present(cpu, ext),
    };
    let mut frame = Frame::default();
    if cpl < cpu.cpl() {
        if v86 {
            for index in [5, 4, 3, 0] {
                frame.push(old.regs[index].selector.into());
            }
        }
        frame.push(old.regs[SS].selector.into());
        frame.push(cpu.regs[usize::from(RSP)]);
    }
    frame.push(event.flags(cpu));
    frame.push(old.regs[CS].selector.into());
    frame.push(return_rip);
    if let Some(code) = event.error_code {
        frame.push(code.into());
    }
    let sp = cpu.push_all(&stack, if wide { 4 } else { 2 }, frame.values())?;
    // The checks of the stack come first. Intel SDM vol. 2, INT.
    if rip > entry.cs.limit.into() {
        return Err(cpu.raise(Exception::gp(ext)));
    }
    cpu.enter_stack(stack.segment, sp, stack.mask);
    if v86 {
        for index in [0, 3, 4, 5] {
            cpu.segments.regs[index] = null_segment(Selector(0), 0);
        }
    }
    finish(cpu, &entry, gate.attributes().kind());
    Ok(rip)
}

/// Values to be pushed, in the order in which they are.
#[derive(Default)]
struct Frame {
    values: [u64; 10],
    len: usize,
}

impl Frame {
    fn push(&mut self, value: u64) {
        if let Some(place) = self.values.get_mut(self.len) {
            *place = value;
            self.len += 1;
        }
    }

    fn values(&self) -> &[u64] {
        self.values.get(..self.len).unwrap_or_default()
    }
}

/// Where a gate leads.
struct Entry {
    cs: Segment,
    cpl: u8,
}

/// The handler's code segment and its privilege.
fn handler(cpu: &mut Cpu, event: &Event, selector: Selector) -> Result<Entry, Stop> {
    let ext = event.ext();
    let mut descriptor = cpu.descriptor_or(selector, Vector::GP, ext)?;
    let bad_mode = cpu.long_mode() && descriptor.attributes().0 & (A::L | A::DB) != A::L;
    if !descriptor.is_code() || descriptor.dpl() > cpu.cpl() || bad_mode {
        return Err(fault(cpu, Vector::GP, selector, ext));
    }
    let conforming = descriptor.is_conforming();
    if cpu.v86() && (conforming || descriptor.dpl() != 0) {
        return Err(fault(cpu, Vector::GP, selector, ext));
    }
    if !descriptor.present() {
        return Err(fault(cpu, Vector::NP, selector, ext));
    }
    cpu.mark_accessed(&mut descriptor)?;
    let cpl = if conforming { cpu.cpl() } else { descriptor.dpl() };
    Ok(Entry { cs: descriptor.segment(selector.with_rpl(cpl)), cpl })
}

/// Changes privilege, code segment and flags. Interrupt gates have even types.
fn finish(cpu: &mut Cpu, entry: &Entry, kind: u8) {
    cpu.segments.regs[CS] = entry.cs;
    cpu.segments.cpl = entry.cpl;
    let interrupts = if kind & 1 == 0 { rflags::IF } else { 0 };
    cpu.system_flags &= !(rflags::TF | rflags::NT | rflags::RF | rflags::VM | interrupts);
    cpu.update_mode();
}

/// Through a gate of 16 bytes. Intel SDM vol. 3A, 6.14.
fn enter_long(cpu: &mut Cpu, event: &Event, return_rip: u64) -> Result<u64, Stop> {
    let offset = 16 * u64::from(event.vector);
    if offset + 15 > cpu.segments.idtr.limit.into() {
        return Err(cpu.raise(Exception::gp(event.idt_code())));
    }
    let address = cpu.segments.idtr.base.wrapping_add(offset);
    let raw = cpu.load_linear::<u64>(address, Rights::Processor)?;
    let upper = cpu.load_linear::<u64>(address.wrapping_add(8), Rights::Processor)?;
    let gate = Descriptor { raw, address, selector: Selector(0) };
    check_gate(cpu, event, &gate, |k| matches!(k, kind::INTERRUPT_GATE32 | kind::TRAP_GATE32))?;
    let entry = handler(cpu, event, gate.gate_selector())?;
    let rip = gate.gate_offset() | upper << 32;
    let ext = event.ext();
    let inner = entry.cpl < cpu.cpl();
    let old = cpu.regs[usize::from(RSP)];
    let rsp = match raw >> 32 & 7 {
        0 if !inner => old,
        0 => cpu.rsp_of_tss(RSP0 + 8 * u64::from(entry.cpl), ext)?,
        ist => cpu.rsp_of_tss(IST1 + 8 * (ist - 1), ext)?,
    };
    let rights = if inner { Rights::Processor } else { Rights::Program };
    let stack = Stack::long(rsp & !15, rights, ext);
    let frame = [
        cpu.segments.regs[SS].selector.into(),
        old,
        event.flags(cpu),
        cpu.segments.regs[CS].selector.into(),
        return_rip,
        event.error_code.unwrap_or(0).into(),
    ];
    let len = if event.error_code.is_some() { 6 } else { 5 };
    let sp = cpu.push_all(&stack, 8, frame.get(..len).unwrap_or_default())?;
    if !cpu.canonical(rip) {
        return Err(cpu.raise(Exception::gp(ext)));
    }
    if inner {
        cpu.segments.regs[SS] = null_segment(Selector(entry.cpl.into()), entry.cpl);
    }
    cpu.regs[usize::from(RSP)] = sp;
    finish(cpu, &entry, gate.attributes().kind());
    Ok(rip)
}

/// Offset of RSP0 in the 64-bit TSS. Intel SDM vol. 3A, 7.7.
const RSP0: u64 = 4;
/// Offset of IST1.
const IST1: u64 = 36;

/// A TSS whose I/O map and stacks have 32-bit form.
pub(super) fn is_wide_tss(tr: &Segment) -> bool {
    tr.attributes.has(SegmentAttributes::P) && matches!(tr.attributes.kind(), 9 | 11)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        CODE, HANDLERS, IDT, STACK, STACK0, TABLES, TSS, TestMachine, descriptor, gate, sel,
    };
    use trivium_cpu::bits::cr0;
    use trivium_cpu::bits::cr4;
    use trivium_cpu::{Exit, ResetKind};

    const UD2: [u8; 2] = [0x0f, 0x0b];

    #[test]
    fn real_mode_pushes_three_words_and_clears_if_and_tf() {
        // sti; nop; int 40h
        let mut m = TestMachine::real(&[0xfb, 0x90, 0xcd, 0x40]);
        assert_eq!(m.run_to_handler(), 0x40);
        let state = m.state();
        assert_eq!(state.general.regs[4], STACK - 6);
        assert_eq!(m.get_u16(STACK - 6), CODE as u16 + 4);
        assert_eq!(m.get_u16(STACK - 4), 0);
        assert_eq!(m.get_u16(STACK - 2), 0x202);
        assert_eq!(state.general.rflags & rflags::IF, 0);
    }

    #[test]
    fn real_mode_faults_push_the_instruction_and_no_error_code() {
        let mut m = TestMachine::real(&UD2);
        assert_eq!(m.run_to_handler(), Vector::UD as u8);
        assert_eq!((m.reg(4), m.get_u16(STACK - 6)), (STACK - 6, CODE as u16));
    }

    #[test]
    fn an_idt_without_room_for_anything_shuts_down() {
        for mut m in [TestMachine::real(&[0xcc]), TestMachine::long(&[0xcc])] {
            m.set(|s| s.segments.idtr.limit = 0);
            assert_eq!(m.run(10), Exit::Shutdown);
        }
    }

    #[test]
    fn protected_mode_pushes_an_error_code_where_there_is_one() {
        // mov ds, ax
        let mut m = TestMachine::protected(&[0x8e, 0xd8]);
        m.set(|s| s.general.regs[0] = 0x1000);
        assert_eq!(m.run_to_exception(), (Vector::GP as u8, 0x1000));
        assert_eq!(m.reg(4), STACK - 16);
        assert_eq!(m.get_u32(STACK - 12), CODE as u32);
        assert_eq!(m.get_u32(STACK - 8), sel::CODE.into());
        // RF is set in the image that a fault pushes.
        assert_eq!(m.get_u32(STACK - 4), 0x1_0002);
    }

    #[test]
    fn interrupt_gates_clear_if_and_trap_gates_do_not() {
        for (kind, expected) in [(0x8e, 0), (0x8f, rflags::IF)] {
            let mut m = TestMachine::protected(&UD2);
            m.put_u64(IDT + 8 * 6, gate(sel::CODE, HANDLERS + 16 * 6, kind));
            m.set(|s| s.general.rflags |= rflags::IF | rflags::NT);
            m.run_to_handler();
            assert_eq!(m.state().general.rflags & (rflags::IF | rflags::NT), expected);
        }
    }

    #[test]
    fn more_privilege_takes_its_stack_from_the_tss() {
        let mut m = TestMachine::protected(&UD2).at_cpl3();
        assert_eq!(m.run_to_handler(), Vector::UD as u8);
        let state = m.state();
        assert_eq!(state.segments.cpl, 0);
        assert_eq!(state.segments.regs[SS].selector, sel::DATA);
        assert_eq!(state.general.regs[4], STACK0 - 20);
        assert_eq!(m.get_u32(STACK0 - 4), sel::USER_DATA.into());
        assert_eq!(m.get_u32(STACK0 - 8), STACK as u32);
        assert_eq!(m.get_u32(STACK0 - 16), sel::USER_CODE.into());
        assert_eq!(m.get_u32(STACK0 - 20), CODE as u32);
    }

    #[test]
    fn sixteen_bit_gates_push_words() {
        let mut m = TestMachine::protected(&UD2);
        m.put_u64(IDT + 8 * 6, gate(sel::CODE, HANDLERS + 16 * 6, 0x86));
        m.run_to_handler();
        assert_eq!((m.reg(4), m.get_u16(STACK - 6)), (STACK - 6, CODE as u16));
    }

    #[test]
    fn a_bad_stack_in_the_tss_raises_ts_with_ext() {
        // The handler of #TS must not need the stack: a conforming one runs at CPL 3.
        for (ss, code) in [(0_u16, 1), (sel::USER_DATA, 0x21), (sel::CODE, 9), (0x1000, 0x1001)] {
            let mut m = TestMachine::protected(&UD2).at_cpl3();
            m.put(TSS + 8, &ss.to_le_bytes());
            m.put_entry(sel::FREE, descriptor(0, 0xf_ffff, 0xc09f));
            m.put_u64(IDT + 8 * 10, gate(sel::FREE, 0xc000, 0x8e));
            m.put(0xc000, &[0xeb, 0xfe]);
            m.run(1);
            assert_eq!(m.state().general.rip, 0xc000);
            let sp = m.reg(4);
            assert_eq!(m.get_u32(sp), code);
        }
    }

    #[test]
    fn gates_are_checked_in_order_with_the_idt_bit() {
        let cases = [
            // Of a type that is none; with EXT as an exception leads there.
            (gate(sel::CODE, HANDLERS, 0x8c), Vector::GP, 6 * 8 + 3),
            (gate(sel::CODE, HANDLERS, 0x0e), Vector::NP, 6 * 8 + 3),
            (gate(0, HANDLERS, 0x8e), Vector::GP, 1),
            (gate(0x1000, HANDLERS, 0x8e), Vector::GP, 0x1001),
            (gate(sel::DATA, HANDLERS, 0x8e), Vector::GP, 0x11),
            (gate(sel::USER_CODE, HANDLERS, 0x8e), Vector::GP, 0x29),
        ];
        for (entry, vector, code) in cases {
            let mut m = TestMachine::protected(&UD2);
            m.put_u64(IDT + 8 * 6, entry);
            assert_eq!(m.run_to_exception(), (vector as u8, code));
            assert_eq!(m.reg(4), STACK - 16);
        }
    }

    #[test]
    fn software_interrupts_need_the_gates_permission_and_have_no_ext() {
        let mut m = TestMachine::protected(&[0xcd, 0x40]).at_cpl3();
        m.put_u64(IDT + 8 * 0x40, gate(sel::CODE, HANDLERS, 0x8e));
        assert_eq!(m.run_to_exception(), (Vector::GP as u8, 0x40 * 8 + 2));
        assert_eq!(m.get_u32(STACK0 - 20), CODE as u32);
        // An external interrupt does not.
        let mut m = TestMachine::protected(&[0x90]).at_cpl3();
        m.put_u64(IDT + 8 * 0x40, gate(sel::CODE, HANDLERS, 0x8e));
        m.set(|s| s.general.rflags |= rflags::IF);
        *m.bus.interrupt.lock().unwrap() = Some(0x40);
        assert_eq!(m.run(100), Exit::Halted);
        assert_eq!(m.get_u32(STACK0 - 20), CODE as u32);
    }

    #[test]
    fn virtual_8086_mode_saves_and_clears_the_data_segments() {
        let mut m = TestMachine::protected(&UD2).in_v86(0);
        m.set(|s| {
            for (n, segment) in s.segments.regs.iter_mut().enumerate().filter(|(n, _)| *n != CS) {
                *segment = super::super::segments::v86_segment(0x100 + n as u16);
            }
        });
        assert_eq!(m.run_to_handler(), Vector::UD as u8);
        let state = m.state();
        assert_eq!(state.general.regs[4], STACK0 - 36);
        let saved: Vec<u32> = (1..=4).map(|n| m.get_u32(STACK0 - 4 * n)).collect();
        assert_eq!(saved, [0x105, 0x104, 0x103, 0x100]);
        assert_eq!(m.get_u32(STACK0 - 20), 0x102);
        assert_eq!(m.get_u32(STACK0 - 28) & 0x2_0000, 0x2_0000);
        assert_eq!((state.segments.cpl, state.general.rflags & rflags::VM), (0, 0));
        assert!([0, 3, 4, 5].iter().all(|&n| state.segments.regs[n].selector == 0));
    }

    #[test]
    fn long_mode_aligns_the_stack_and_always_saves_it() {
        let mut m = TestMachine::long(&UD2);
        m.set(|s| s.general.regs[4] = STACK - 3);
        m.run_to_handler();
        let top = (STACK - 3) & !15;
        let frame: Vec<u64> = (1..=5).map(|n| m.get_u64(top - 8 * n)).collect();
        assert_eq!(frame, [sel::DATA.into(), STACK - 3, 0x1_0002, sel::CODE.into(), CODE]);
        assert_eq!(m.reg(4), top - 40);
        assert_eq!(m.state().segments.regs[SS].selector, sel::DATA);
    }

    #[test]
    fn more_privilege_in_long_mode_nulls_ss() {
        let mut m = TestMachine::long(&UD2).at_cpl3();
        m.run_to_handler();
        let state = m.state();
        assert_eq!((state.segments.cpl, state.segments.regs[SS].selector), (0, 0));
        assert_eq!(state.general.regs[4], STACK0 - 40);
        assert_eq!(m.get_u64(STACK0 - 8), sel::USER_DATA.into());
    }

    #[test]
    fn an_interrupt_stack_is_used_whatever_the_privilege() {
        let mut m = TestMachine::long(&UD2);
        let ist2 = gate(sel::CODE, HANDLERS + 16 * 6, 0x8e) | 2 << 32;
        m.put_u64(IDT + 16 * 6, ist2);
        m.put_u64(TSS + 44, 0xd000);
        m.run_to_handler();
        assert_eq!((m.reg(4), m.get_u64(0xd000 - 16)), (0xd000 - 40, STACK));
    }

    #[test]
    fn long_mode_refuses_handlers_that_are_not_64_bit_code() {
        let mut m = TestMachine::long(&UD2);
        m.put_entry(sel::FREE, descriptor(0, 0xf_ffff, 0xc09b));
        m.put_u64(IDT + 16 * 6, gate(sel::FREE, HANDLERS, 0x8e));
        assert_eq!(m.run_to_exception(), (Vector::GP as u8, u32::from(sel::FREE) | 1));
        let mut m = TestMachine::long(&UD2);
        m.put_u64(IDT + 16 * 6 + 8, 0x8000);
        assert_eq!(m.run_to_exception(), (Vector::GP as u8, 1));
        // Task gates and 16-bit gates are none in long mode.
        for kind in [0x85, 0x86, 0x8c] {
            let mut m = TestMachine::long(&UD2);
            m.put_u64(IDT + 16 * 6, gate(sel::CODE, HANDLERS, kind));
            assert_eq!(m.run_to_exception(), (Vector::GP as u8, 6 * 8 + 3));
        }
    }

    #[test]
    fn a_page_fault_while_pushing_makes_a_double_fault_of_a_page_fault() {
        // mov rax, [0x400000]
        let mut m = TestMachine::long(&[0x48, 0x8b, 0x04, 0x25, 0, 0, 0x40, 0]);
        m.put_u64(TABLES + 0x2010, 0);
        m.set(|s| s.general.regs[4] = 0x40_1000);
        let double = gate(sel::CODE, HANDLERS + 16 * 8, 0x8e) | 1 << 32;
        m.put_u64(IDT + 16 * 8, double);
        m.put_u64(TSS + 36, STACK0);
        assert_eq!(m.run_to_exception(), (Vector::DF as u8, 0));
        let state = m.state();
        assert_eq!((state.general.regs[4], state.control.cr2), (STACK0 - 48, 0x40_1000 - 48));
        assert_eq!(m.get_u64(STACK0 - 40), CODE);
    }

    #[test]
    fn a_page_fault_tells_its_address_and_code() {
        let mut m = TestMachine::long(&[0x48, 0x89, 0x04, 0x25, 0, 0, 0x40, 0]).at_cpl3();
        m.put_u64(TABLES + 0x2010, 0);
        assert_eq!(m.run_to_exception(), (Vector::PF as u8, 6));
        assert_eq!(m.state().control.cr2, 0x40_0000);
    }

    #[test]
    fn nmi_masks_itself_until_iret() {
        let mut m = TestMachine::long(&[0x90, 0x90]);
        m.put(HANDLERS + 32, &[0x48, 0xcf]); // iretq
        *m.bus.nmi.lock().unwrap() = true;
        m.run(1);
        assert!(!m.state().events.nmi_masked, "IRET was run");
        assert_eq!(m.state().general.rip, CODE);
        let mut m = TestMachine::long(&[0x90, 0x90]);
        *m.bus.nmi.lock().unwrap() = true;
        assert_eq!(m.run_to_handler(), 2);
        assert!(m.state().events.nmi_masked);
    }

    #[test]
    fn an_interrupt_wakes_from_hlt() {
        let mut m = TestMachine::long(&[0xfb, 0xf4, 0x90]); // sti; hlt; nop
        assert_eq!(m.run(10), Exit::Halted);
        assert_eq!(m.state().general.rip, CODE + 2);
        *m.bus.interrupt.lock().unwrap() = Some(0x31);
        assert_eq!(m.run_to_handler(), 0x31);
        assert_eq!(m.get_u64(STACK - 40), CODE + 2);
    }

    #[test]
    fn init_keeps_what_table_9_1_says_and_a_sipi_starts_in_real_mode() {
        let mut m = TestMachine::long(&[0x90]);
        m.set(|s| {
            s.msrs.pat = 0x0606_0606_0606_0606;
            s.vector.regs[3] = [1, 2, 3, 4];
            s.control.cr4 |= cr4::PGE;
        });
        *m.bus.reset.lock().unwrap() = Some(ResetKind::Init);
        m.run(0);
        let state = m.state();
        // The first processor begins at the reset vector at once.
        assert_eq!((state.general.rip, state.segments.regs[CS].base), (0xfff0, 0xffff_0000));
        assert_eq!((state.control.cr0, state.control.cr4), (cr0::ET, 0));
        assert_eq!((state.msrs.pat, state.vector.regs[3]), (0x0606_0606_0606_0606, [1, 2, 3, 4]));
        m.set(|s| s.events.activity = Activity::WaitForSipi);
        assert_eq!(m.run(1), Exit::WaitForSipi);
        m.put(0x1_2000, &[0xf4]);
        *m.bus.reset.lock().unwrap() = Some(ResetKind::Sipi(0x12));
        assert_eq!(m.run(10), Exit::Halted);
        let state = m.state();
        let cs = state.segments.regs[CS];
        assert_eq!((cs.selector, cs.base, state.general.rip), (0x1200, 0x1_2000, 1));
    }

    #[test]
    fn single_step_traps_after_each_instruction() {
        let mut m = TestMachine::long(&[0x90, 0x90]);
        m.set(|s| s.general.rflags |= rflags::TF);
        assert_eq!(m.run_to_handler(), 1);
        assert_eq!(m.get_u64(STACK - 40), CODE + 1);
        let image = m.get_u64(STACK - 24);
        assert_eq!(image & (rflags::TF | rflags::RF), rflags::TF, "a trap leaves RF clear");
        assert_eq!(m.state().debug.dr6 & debug::DR6_BS, debug::DR6_BS);
    }

    #[test]
    fn instructions_that_mask_or_hold_off_the_trap() {
        // int 40h: the trap is not for the handler.
        let mut m = TestMachine::long(&[0xcd, 0x40]);
        m.set(|s| s.general.rflags |= rflags::TF);
        assert_eq!(m.run_to_handler(), 0x40);
        // mov ss, ax; nop; nop: one trap, after the first NOP.
        let mut m = TestMachine::long(&[0x8e, 0xd0, 0x90, 0x90]);
        m.set(|s| {
            s.general.rflags |= rflags::TF;
            s.general.regs[0] = sel::DATA.into();
        });
        assert_eq!(m.run_to_handler(), 1);
        assert_eq!(m.get_u64(STACK - 40), CODE + 3);
        // popfq that clears TF still traps.
        let mut m = TestMachine::long(&[0x9d, 0x90]);
        m.put_u64(STACK, 2);
        m.set(|s| s.general.rflags |= rflags::TF);
        assert_eq!(m.run_to_handler(), 1);
        assert_eq!(m.get_u64(STACK + 8 - 40 - 8), CODE + 1);
    }
}
