//! A small machine for tests: RAM, a processor in a chosen mode, descriptor tables whose handlers
//! halt, and a bus that remembers.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use trivium_cpu::bits::{cr0, cr4, efer, rflags};
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{CS, Control, SS, Segment, SegmentAttributes, TableRegister};
use trivium_cpu::{Budget, CpuBus, CpuState, Exit, Kick, MsrFault, ResetKind, Vcpu, Vector};
use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, Region, RegionKind};

use crate::{Interpreter, Topology};

/// RAM: 2 MiB from 0.
pub const RAM: u64 = 0x20_0000;
/// Where code is put and begins.
pub const CODE: u64 = 0x1000;
/// The global descriptor table.
pub const GDT: u64 = 0x2000;
/// The interrupt descriptor table; in real mode, it is at 0.
pub const IDT: u64 = 0x3000;
/// The TSS of [`sel::TSS`]; its stack for CPL 0 is [`STACK0`].
pub const TSS: u64 = 0x5000;
/// Handlers: HLT, 16 bytes for each vector.
pub const HANDLERS: u64 = 0x6000;
/// The stack pointer at the start.
pub const STACK: u64 = 0x9000;
/// The stack pointer of CPL 0 in the TSS.
pub const STACK0: u64 = 0xa000;
/// Free for data.
pub const DATA: u64 = 0xb000;
/// The page tables, which map everything to itself for CPL 3 too.
pub const TABLES: u64 = 0x1_0000;
/// A device register: 4 KiB of MMIO.
pub const DEVICE: u64 = 0x30_0000;

/// Selectors of the GDT. CODE is 32-bit in protected mode, and 64-bit in long mode.
pub mod sel {
    #![allow(missing_docs)]
    pub const CODE: u16 = 0x08;
    pub const DATA: u16 = 0x10;
    pub const USER_CODE32: u16 = 0x1b;
    pub const USER_DATA: u16 = 0x23;
    pub const USER_CODE: u16 = 0x2b;
    /// 16 bytes in long mode.
    pub const TSS: u16 = 0x30;
    /// Free entries from here on.
    pub const FREE: u16 = 0x40;
}

/// A port or device register, the vector that a write there brings, and the processor.
pub type Trigger = (u64, u8, Arc<dyn Kick>);

/// What the bus has seen, and what it will answer.
#[derive(Default)]
pub struct TestBus {
    /// Writes to ports: port, width, value.
    pub written: Mutex<Vec<(u16, u8, u32)>>,
    /// Answers to reads of ports; zero when there is none.
    pub answers: Mutex<VecDeque<u32>>,
    /// Writes to devices.
    pub mmio: Mutex<Vec<(u64, Vec<u8>)>>,
    /// A write to this port or device register makes this interrupt wait, and tells the processor.
    pub interrupts_at: Mutex<Option<Trigger>>,
    /// A waiting interrupt.
    pub interrupt: Mutex<Option<u8>>,
    /// A waiting NMI.
    pub nmi: Mutex<bool>,
    /// A waiting SMI.
    pub smi: Mutex<bool>,
    /// Entries to and exits from system-management mode.
    pub smm: Mutex<Vec<bool>>,
    /// A waiting INIT or SIPI.
    pub reset: Mutex<Option<ResetKind>>,
    /// CR8.
    pub cr8: Mutex<u8>,
    /// The time-stamp counter.
    pub tsc: Mutex<u64>,
    /// How far the guest has moved it.
    pub tsc_offset: Mutex<u64>,
    /// Instructions retired.
    pub retired: Mutex<u64>,
    /// Changes of FERR#; its assertion brings interrupt 75h, as on a PC.
    pub ferr: Mutex<Vec<bool>>,
}

impl TestBus {
    fn interrupt_if(&self, written: u64) {
        let place = self.interrupts_at.lock().unwrap();
        if let Some((at, vector, processor)) = &*place
            && *at == written
        {
            *self.interrupt.lock().unwrap() = Some(*vector);
            processor.attend();
        }
    }
}

impl CpuBus for TestBus {
    fn delivering(&self, _: u8, _: Option<u32>, _: u64) {}
    fn set_tsc_offset(&self, offset: u64) {
        *self.tsc_offset.lock().unwrap() = offset;
    }
    fn random(&self) -> u64 {
        0x0123_4567_89ab_cdef
    }

    fn retire(&self, instructions: u64) {
        *self.retired.lock().unwrap() += instructions;
    }
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(gpa..) {
            *byte = at as u8;
        }
    }
    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.mmio.lock().unwrap().push((gpa, data.to_vec()));
        self.interrupt_if(gpa);
    }
    fn pio_read(&self, _: u16, _: u8) -> u32 {
        self.answers.lock().unwrap().pop_front().unwrap_or(0)
    }
    fn pio_write(&self, port: u16, width: u8, value: u32) {
        self.written.lock().unwrap().push((port, width, value));
        self.interrupt_if(port.into());
    }
    fn msr_read(&self, msr: u32) -> Option<Result<u64, MsrFault>> {
        (msr == 0x1b).then_some(Ok(0xfee0_0900))
    }
    fn msr_write(&self, msr: u32, _: u64) -> Option<Result<(), MsrFault>> {
        (msr == 0x1b).then_some(Ok(()))
    }
    fn cr8(&self) -> u8 {
        *self.cr8.lock().unwrap()
    }
    fn set_cr8(&self, priority: u8) {
        *self.cr8.lock().unwrap() = priority;
    }
    fn tsc(&self) -> u64 {
        *self.tsc.lock().unwrap()
    }
    fn interrupt_pending(&self) -> bool {
        self.interrupt.lock().unwrap().is_some()
    }
    fn acknowledge_interrupt(&self) -> Option<u8> {
        self.interrupt.lock().unwrap().take()
    }
    fn take_nmi(&self) -> bool {
        std::mem::take(&mut self.nmi.lock().unwrap())
    }
    fn take_smi(&self) -> bool {
        std::mem::take(&mut self.smi.lock().unwrap())
    }
    fn set_smm(&self, smm: bool) {
        self.smm.lock().unwrap().push(smm);
    }
    fn take_reset(&self) -> Option<ResetKind> {
        self.reset.lock().unwrap().take()
    }
    fn set_ferr(&self, high: bool) {
        self.ferr.lock().unwrap().push(high);
        if high {
            *self.interrupt.lock().unwrap() = Some(0x75);
        }
    }
}

/// A flat segment.
#[must_use]
pub fn flat(selector: u16, attributes: u16) -> Segment {
    let attributes = SegmentAttributes(attributes);
    Segment { selector, base: 0, limit: u32::MAX, attributes }
}

/// A descriptor of code, data, LDT or TSS; the limit is in pages if the attributes have G.
#[must_use]
pub fn descriptor(base: u64, limit: u64, attributes: u64) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | attributes << 40
        | (limit >> 16 & 0xf) << 48
        | (base >> 24 & 0xff) << 56
}

/// The first 8 bytes of a gate: type and DPL as in the sixth byte.
#[must_use]
pub fn gate(selector: u16, offset: u64, attributes: u64) -> u64 {
    offset & 0xffff | u64::from(selector) << 16 | attributes << 40 | (offset >> 16 & 0xffff) << 48
}

/// The machine.
pub struct TestMachine {
    /// The processor.
    pub cpu: Interpreter,
    /// Everything else.
    pub bus: TestBus,
    /// Its memory.
    pub memory: Arc<GuestMemory>,
}

impl TestMachine {
    fn new(model: CpuModel) -> Self {
        let memory = Arc::new(GuestMemory::new(RAM, 1).unwrap());
        memory.set_map(FlatMap::new(&[
            Region::new(0, RAM, RegionKind::Ram { offset: 0 }),
            Region::new(DEVICE, 0x1000, RegionKind::Mmio { id: 0 }),
        ]));
        let topology =
            Topology { apic_id: 0, cpus: 1, tsc_hz: 1_000_000_000, apic_hz: 1_000_000_000 };
        let scratch = memory.scratch(0, 1).unwrap();
        let cpu = Interpreter::new(memory.clone(), Arc::new(model), topology, scratch);
        let mut machine = Self { cpu, bus: TestBus::default(), memory };
        for vector in 0..256 {
            machine.put(HANDLERS + 16 * vector, &[0xf4]);
        }
        machine
    }

    /// The model with everything.
    #[must_use]
    pub fn model() -> CpuModel {
        CpuModel::by_name("max").unwrap()
    }

    /// Real mode: CS, SS and the rest at 0.
    #[must_use]
    pub fn real(code: &[u8]) -> Self {
        Self::real_with(Self::model(), code)
    }

    /// The same with another model.
    #[must_use]
    pub fn real_with(model: CpuModel, code: &[u8]) -> Self {
        let mut machine = Self::new(model);
        for vector in 0..256 {
            machine.put(4 * vector, &((HANDLERS + 16 * vector) as u32).to_le_bytes());
        }
        machine.put(CODE, code);
        machine.set(|state| {
            let attributes = SegmentAttributes(0x9b);
            state.segments.regs[CS] = Segment { attributes, ..Segment::real_mode(0) };
            state.segments.idtr = TableRegister { base: 0, limit: 0x3ff };
            state.general.rip = CODE;
            state.general.regs[4] = STACK;
        });
        machine
    }

    fn tables(&mut self, code: u64, user_code: u64) {
        let entries = [
            (sel::CODE, descriptor(0, 0xf_ffff, code)),
            (sel::DATA, descriptor(0, 0xf_ffff, 0xc093)),
            (sel::USER_CODE32, descriptor(0, 0xf_ffff, 0xc0fb)),
            (sel::USER_DATA, descriptor(0, 0xf_ffff, 0xc0f3)),
            (sel::USER_CODE, descriptor(0, 0xf_ffff, user_code)),
            (sel::TSS, descriptor(TSS, 0x67, 0x8b)),
        ];
        for (selector, entry) in entries {
            self.put_entry(selector, entry);
        }
        self.set(|state| {
            state.segments.gdtr = TableRegister { base: GDT, limit: 0xfff };
            state.segments.tr = Segment {
                selector: sel::TSS,
                base: TSS,
                limit: 0x67,
                attributes: SegmentAttributes(0x8b),
            };
            state.segments.regs = [flat(sel::DATA, 0xc093); 6];
            state.general.rip = CODE;
            state.general.regs[4] = STACK;
        });
    }

    /// 32-bit protected mode, CPL 0, flat segments, no paging.
    #[must_use]
    pub fn protected(code: &[u8]) -> Self {
        Self::protected_with(Self::model(), code)
    }

    /// The same with another model.
    #[must_use]
    pub fn protected_with(model: CpuModel, code: &[u8]) -> Self {
        let mut machine = Self::new(model);
        machine.tables(0xc09b, 0xc0fb);
        for vector in 0..256 {
            // Everybody may call all.
            let gate = gate(sel::CODE, HANDLERS + 16 * vector, 0xee);
            machine.put_u64(IDT + 8 * vector, gate);
        }
        machine.put(TSS + 4, &(STACK0 as u32).to_le_bytes());
        machine.put(TSS + 8, &sel::DATA.to_le_bytes());
        machine.put(CODE, code);
        machine.set(|state| {
            state.control.cr0 = cr0::PE | cr0::ET;
            state.segments.regs[CS] = flat(sel::CODE, 0xc09b);
            state.segments.idtr = TableRegister { base: IDT, limit: 0x7ff };
        });
        machine
    }

    /// 64-bit mode, CPL 0; everything is mapped to itself, for CPL 3 too.
    #[must_use]
    pub fn long(code: &[u8]) -> Self {
        Self::long_with(Self::model(), code)
    }

    /// The same with another model.
    #[must_use]
    pub fn long_with(model: CpuModel, code: &[u8]) -> Self {
        let mut machine = Self::new(model);
        machine.tables(0xa09b, 0xa0fb);
        for vector in 0..256 {
            let gate = gate(sel::CODE, HANDLERS + 16 * vector, 0xee);
            machine.put_u64(IDT + 16 * vector, gate);
        }
        machine.put_u64(TSS + 4, STACK0);
        machine.put_u64(TABLES, (TABLES + 0x1000) | 7);
        machine.put_u64(TABLES + 0x1000, (TABLES + 0x2000) | 7);
        for page in 0..4 {
            machine.put_u64(TABLES + 0x2000 + 8 * page, page << 21 | 0x87);
        }
        machine.put(CODE, code);
        machine.set(|state| {
            state.control.cr0 = cr0::PE | cr0::ET | cr0::PG | cr0::NE | cr0::WP;
            state.control.cr3 = TABLES;
            state.control.cr4 = cr4::PAE | cr4::OSFXSR;
            state.control.efer = efer::LME | efer::LMA | efer::SCE | efer::NXE;
            state.segments.regs[CS] = flat(sel::CODE, 0xa09b);
            state.segments.idtr = TableRegister { base: IDT, limit: 0xfff };
        });
        machine
    }

    /// The same program at CPL 3 (not in real mode): flat segments, and the code of
    /// [`sel::USER_CODE`].
    #[must_use]
    pub fn at_cpl3(mut self) -> Self {
        self.set(|state| {
            let regs = &mut state.segments.regs;
            let code = regs[CS].attributes.0 | 0x60;
            *regs = [flat(sel::USER_DATA, 0xc0f3); 6];
            regs[CS] = flat(sel::USER_CODE, code);
            state.segments.cpl = 3;
        });
        self
    }

    /// The same program in virtual-8086 mode with this IOPL.
    #[must_use]
    pub fn in_v86(mut self, iopl: u64) -> Self {
        self.set(|state| {
            let v86 = Segment { attributes: SegmentAttributes(0xf3), ..Segment::real_mode(0) };
            state.segments.regs = [v86; 6];
            state.segments.cpl = 3;
            state.general.rflags |= 1 << 17 | iopl << 12;
        });
        self
    }

    /// Writes to memory.
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        self.memory.write(GuestPhysAddr(at), bytes).unwrap();
    }

    /// Writes 8 bytes to memory.
    pub fn put_u64(&mut self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    /// Writes an entry of the GDT.
    pub fn put_entry(&mut self, selector: u16, entry: u64) {
        self.put_u64(GDT + u64::from(selector & !7), entry);
    }

    /// Reads an entry of the GDT.
    #[must_use]
    pub fn entry(&self, selector: u16) -> u64 {
        self.get_u64(GDT + u64::from(selector & !7))
    }

    /// Reads memory.
    #[must_use]
    pub fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read(GuestPhysAddr(at), &mut bytes).unwrap();
        bytes
    }

    /// Reads 8 bytes of memory.
    #[must_use]
    pub fn get_u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.get(at))
    }

    /// Reads 4 bytes of memory.
    #[must_use]
    pub fn get_u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.get(at))
    }

    /// Reads 2 bytes of memory.
    #[must_use]
    pub fn get_u16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.get(at))
    }

    /// The processor's state.
    pub fn state(&mut self) -> CpuState {
        self.cpu.save().unwrap()
    }

    /// Changes the processor's state.
    pub fn set(&mut self, change: impl FnOnce(&mut CpuState)) {
        let mut state = self.state();
        change(&mut state);
        self.cpu.load(&state).unwrap();
    }

    /// A general register.
    pub fn reg(&mut self, number: usize) -> u64 {
        self.state().general.regs[number]
    }

    /// Runs at most so many instructions.
    pub fn run(&mut self, instructions: u64) -> Exit {
        self.cpu.run(&self.bus, Budget { instructions }).unwrap()
    }

    /// Runs until a handler halts: gives its vector.
    pub fn run_to_handler(&mut self) -> u8 {
        assert_eq!(self.run(10_000), Exit::Halted);
        let at = self.state().general.rip.wrapping_sub(HANDLERS);
        assert!(at < 0x1000 && at & 15 == 1, "not halted in a handler: {at:#x}");
        (at >> 4) as u8
    }

    /// Runs until a handler for an exception halts: gives the exception and its error code, which
    /// is taken from the top of the stack.
    pub fn run_to_exception(&mut self) -> (u8, u32) {
        let vector = self.run_to_handler();
        let rsp = self.reg(4);
        (vector, self.get_u32(rsp))
    }

    /// Runs one instruction, which must raise `vector` with this error code and change nothing: no
    /// general register but the stack pointer, no segment register but CS and SS, no control
    /// register. The saved RIP must be the instruction's.
    #[track_caller]
    pub fn raises(&mut self, vector: Vector, code: Option<u32>) {
        let before = self.state();
        let (found, top) = self.run_to_exception();
        assert_eq!(found, vector as u8, "vector; top of stack {top:#x}");
        if let Some(code) = code {
            assert_eq!(top, code, "error code: {top:#x} for {code:#x}");
        }
        let after = self.state();
        for n in (0..16).filter(|&n| n != 4) {
            assert_eq!(before.general.regs[n], after.general.regs[n], "register {n}");
        }
        let v86 = before.general.rflags & rflags::VM != 0;
        for n in (0..6).filter(|&n| n != CS && n != SS && !v86) {
            assert_eq!(before.segments.regs[n], after.segments.regs[n], "segment {n}");
        }
        let control = Control { cr2: after.control.cr2, ..before.control };
        assert_eq!(control, after.control);
        let width = if before.control.efer & efer::LMA != 0 { 8 } else { 4 };
        let skipped = if code.is_some() { width } else { 0 };
        let rip = self.get_u32(after.general.regs[4] + skipped);
        assert_eq!(u64::from(rip), before.general.rip, "saved RIP");
    }
}
