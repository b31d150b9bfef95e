//! Cases of privilege: descriptor tables, a processor, and one instruction.

use trivium_cpu::bits::rflags;
use trivium_cpu::model::CpuModel;

use super::descriptors::{COUNT, FREE, LOCAL, Setting, descriptor, gate, level, selector};
use crate::generate::random::Rng;
use crate::system::image::Image;
use crate::system::instruction::{Instruction, encode, far_bytes};
use crate::system::layout;
use crate::system::model::descriptor::{Cached, Descriptor, Table, system};
use crate::system::model::protection::{CS, Check, DS, ES, FS, GS, Mode, Processor, SS, Vendor};
use crate::system::model::transfer::FarPointer;
use crate::system::privilege::Case;

/// The stack pointer when a case begins, and those in the TSS, of each level.
const STACK: u64 = layout::TEST_STACKS.start + 0x800;
const INNER_STACKS: u64 = layout::TEST_STACKS.start + 0x1800;
const OUTER_STACK: u64 = layout::TEST_STACKS.start + 0x4800;
/// Where memory operands are.
const OPERAND: u64 = layout::TEST_STACKS.end - 0x100;

/// Interrupt vectors that have gates of the case's.
const FIRST_VECTOR: u64 = 0x20;
const VECTORS: u64 = 0x10;

/// Makes the case of this number for a CPU model. `blank` holds data and nothing else.
pub(in crate::system) fn case(seed: u64, index: u64, model: &CpuModel, blank: &Image) -> Case {
    let mut rng = Rng::new(seed, index);
    let mode = rng.pick(&[Mode::Protected, Mode::Protected, Mode::Compatibility, Mode::Bits64]);
    let cpl = rng.pick(&[0, 0, 1, 2, 3, 3, 3]);
    let setting = Setting { lma: mode != Mode::Protected, cpl };
    let mut maker = Maker { rng: &mut rng, setting, bits64: mode == Mode::Bits64 };
    let mut processor = maker.processor(model.vendor, blank);
    maker.tables(&mut processor);
    let instruction = maker.instruction(model.vendor);
    maker.operands(&mut processor, &instruction);
    processor.length = encode(&instruction).len() as u64;
    Case { processor, instruction }
}

struct Maker<'a> {
    rng: &'a mut Rng,
    setting: Setting,
    bits64: bool,
}

impl Maker<'_> {
    fn processor(&mut self, vendor: Vendor, blank: &Image) -> Processor {
        let Setting { lma, cpl } = self.setting;
        let mut image = blank.clone();
        layout::write(&mut image, lma);
        let code = if self.bits64 { layout::code64(cpl) } else { layout::code32(cpl) };
        let segment = |selector: u16| {
            let at = layout::GDT + u64::from(selector & !7);
            Cached::new(selector, Descriptor(image.get(at, 8)))
        };
        let rng = &mut *self.rng;
        let segments = std::array::from_fn(|register| match register {
            CS => segment(code),
            SS => segment(layout::data(cpl)),
            _ if rng.percent(10) => Cached::null(0),
            _ => {
                let dpl = cpl + rng.below(u64::from(4 - cpl)) as u8;
                segment(layout::data(dpl))
            }
        });
        let mask = if self.bits64 { !0 } else { 0xffff_ffff };
        let mut regs = std::array::from_fn(|n| match n {
            8.. if !self.bits64 => 0,
            _ => rng.any() & mask,
        });
        (regs[4], regs[7]) = (STACK, OPERAND);
        let free = rflags::STATUS | rflags::DF | rflags::IF | rflags::IOPL | rflags::ID;
        let flags = rflags::FIXED | rng.bits(free, 50) | rng.bits(rflags::NT, 4);
        Processor {
            vendor,
            lma,
            cpl,
            regs,
            rip: if cpl == 3 { layout::USER_CODE } else { layout::CODE },
            length: 0,
            rflags: flags,
            segments,
            gdt: Table { base: layout::GDT, limit: 8 * u64::from(FREE + COUNT) - 1 },
            idt: Table { base: layout::IDT, limit: 0xfff },
            ldt: Some(Cached {
                selector: 0x58,
                base: layout::LDT,
                limit: 8 * u32::from(LOCAL) - 1,
                attributes: 0x82,
            }),
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

    /// Fills the tables, and cuts some of them short.
    fn tables(&mut self, processor: &mut Processor) {
        let tables = [(layout::GDT + 8 * u64::from(FREE), COUNT), (layout::LDT, LOCAL)];
        for (at, count) in tables {
            for index in (0..u64::from(count)).step_by(2) {
                let first = descriptor(self.rng, self.setting);
                let second = descriptor(self.rng, self.setting);
                let second = if self.setting.lma { first.1 } else { second.0 };
                processor.image.put_number(at + 8 * index, first.0, 8);
                processor.image.put_number(at + 8 * index + 8, second, 8);
            }
        }
        self.gates(processor);
        self.stacks(processor);
        if self.rng.percent(10) {
            let first = 8 * u64::from(FREE) - 1;
            processor.gdt.limit = first + self.rng.below(8 * u64::from(COUNT));
        }
        if self.rng.percent(10) {
            processor.ldt = None;
        } else if let Some(ldt) = processor.ldt.as_mut().filter(|_| self.rng.percent(10)) {
            ldt.limit = self.rng.below(8 * u64::from(LOCAL)) as u32;
        }
        if self.rng.percent(10) {
            let entry = if self.setting.lma { 16 } else { 8 };
            processor.idt.limit = FIRST_VECTOR * entry - 1 + self.rng.below(VECTORS * entry);
        }
    }

    fn gates(&mut self, processor: &mut Processor) {
        let lma = self.setting.lma;
        let entry = if lma { 16 } else { 8 };
        for vector in FIRST_VECTOR..FIRST_VECTOR + VECTORS {
            let old = [system::INTERRUPT_GATE16, system::TRAP_GATE16, system::TASK_GATE];
            let new = [system::INTERRUPT_GATE, system::TRAP_GATE];
            let kind = match self.rng.below(10) {
                0 => self.rng.below(32) as u8,
                1 | 2 => self.rng.pick(&old),
                _ => self.rng.pick(&new),
            };
            let present = if self.rng.percent(92) { 0x80 } else { 0 };
            let dpl = if self.rng.percent(60) { 3 } else { level(self.rng, self.setting) };
            // Type 16 and up: a segment and no gate.
            let flags = present | u16::from(dpl) << 5;
            let (low, upper) = gate(self.rng, kind, flags, self.setting);
            let stack = if lma && self.rng.percent(20) { self.rng.below(8) } else { 0 };
            let at = layout::IDT + entry * vector;
            processor.image.put_number(at, low | stack << 32, 8);
            if lma {
                processor.image.put_number(at + 8, upper, 8);
            }
        }
    }

    /// The stacks in the TSS. That of level 0 is good, for exceptions need it.
    fn stacks(&mut self, processor: &mut Processor) {
        let image = &mut processor.image;
        let stack = |level: u64| INNER_STACKS + 0x800 * level;
        for level in 0..3 {
            let unaligned = self.rng.below(16);
            if self.setting.lma {
                image.put_number(layout::TSS + 4 + 8 * level, stack(level) + unaligned, 8);
                continue;
            }
            image.put_number(layout::TSS + 4 + 8 * level, stack(level), 4);
            let good = layout::data(level as u8);
            let any = selector(self.rng, Setting { cpl: level as u8, ..self.setting });
            let chosen = if level == 0 || self.rng.percent(60) { good } else { any };
            image.put_number(layout::TSS + 8 + 8 * level, chosen.into(), 2);
        }
        for number in 2..8 {
            image.put_number(layout::TSS + 0x1c + 8 * number, stack(3) + 8 * number, 8);
        }
        if self.rng.percent(10) {
            let least = if self.setting.lma { 0x2b } else { 0x0b };
            processor.tr.limit = least + self.rng.below(0x20) as u32;
        }
    }

    fn register(&mut self, pops: bool) -> usize {
        let registers: &[usize] =
            if pops && self.bits64 { &[FS, GS] } else { &[ES, DS, SS, SS, FS, GS] };
        self.rng.pick(registers)
    }

    fn size(&mut self) -> u64 {
        self.rng.pick(if self.bits64 { &[2, 4, 8, 8, 8] } else { &[2, 4, 4, 4] })
    }

    fn selector(&mut self) -> u16 {
        selector(self.rng, self.setting)
    }

    /// An offset in code: mostly one that is within limits.
    fn offset(&mut self, size: u64) -> u64 {
        let any = self.rng.any();
        let offset = if self.rng.percent(85) { any & 0xfff } else { any };
        if size == 8 { offset } else { offset & ((1 << (8 * size)) - 1) }
    }

    fn instruction(&mut self, vendor: Vendor) -> Instruction {
        let selector = self.selector();
        match self.rng.below(20) {
            0..3 => Instruction::MoveToSegment { register: self.register(false), selector },
            3 => Instruction::PopSegment { register: self.register(true), selector },
            4 => {
                let pointer = FarPointer { selector, offset: self.rng.any() >> 32, size: 4 };
                let registers: &[usize] =
                    if self.bits64 { &[SS, FS, GS] } else { &[ES, DS, SS, FS, GS] };
                Instruction::LoadPointer { register: self.rng.pick(registers), pointer }
            }
            5..8 => {
                let check = self.rng.pick(&[Check::Lar, Check::Lsl, Check::Verr, Check::Verw]);
                Instruction::Check { check, selector }
            }
            8 => Instruction::LoadLdt { selector },
            9 => Instruction::LoadTask { selector },
            10..15 => {
                let mut size = self.size();
                // AMD's processors have no pointers with 64 bits of offset.
                if vendor == Vendor::Amd && size == 8 {
                    size = 4;
                }
                let to = FarPointer { selector, offset: self.offset(size), size };
                let memory = self.bits64 || self.rng.percent(50);
                if self.rng.percent(40) {
                    Instruction::Jump { to, memory }
                } else {
                    Instruction::Call { to, memory }
                }
            }
            15 | 16 => {
                let release = if self.rng.percent(60) { 0 } else { self.rng.below(0x40) as u16 };
                Instruction::FarReturn { size: self.size(), release }
            }
            17 | 18 => Instruction::InterruptReturn { size: self.size() },
            _ => {
                let vector = FIRST_VECTOR + self.rng.below(VECTORS);
                Instruction::Interrupt { vector: vector as u8 }
            }
        }
    }

    /// Puts into registers and memory what an instruction reads there.
    fn operands(&mut self, processor: &mut Processor, instruction: &Instruction) {
        let image = &mut processor.image;
        match *instruction {
            Instruction::MoveToSegment { selector, .. }
            | Instruction::Check { selector, .. }
            | Instruction::LoadLdt { selector }
            | Instruction::LoadTask { selector } => {
                processor.regs[0] = processor.regs[0] & !0xffff | u64::from(selector);
            }
            Instruction::PopSegment { selector, .. } => {
                image.put_number(STACK, selector.into(), 8);
            }
            Instruction::LoadPointer { pointer: to, .. }
            | Instruction::Jump { to, memory: true }
            | Instruction::Call { to, memory: true } => image.put(OPERAND, &far_bytes(&to)),
            Instruction::Jump { .. } | Instruction::Call { .. } | Instruction::Interrupt { .. } => {
            }
            Instruction::FarReturn { size, release } => {
                let outer = 2 * size + u64::from(release);
                self.return_frame(image, size, outer, None);
            }
            Instruction::InterruptReturn { size } => {
                let flags = self.rng.any() & 0x3f_7fd5 & !rflags::VM | rflags::FIXED;
                self.return_frame(image, size, 3 * size, Some(flags));
            }
        }
    }

    /// A frame for RET or IRET to return to.
    fn return_frame(&mut self, image: &mut Image, size: u64, outer: u64, flags: Option<u64>) {
        let mut code = self.selector();
        // Mostly to where one may return to: the RPL is at least the CPL.
        if self.rng.percent(70) {
            code |= u16::from(self.setting.cpl);
        }
        let level = (code & 3) as u8;
        let ip = self.offset(size);
        let stack = self.rng.percent(65).then(|| layout::data(level));
        let ss =
            stack.unwrap_or_else(|| selector(self.rng, Setting { cpl: level, ..self.setting }));
        let bytes = size as usize;
        image.put_number(STACK, ip, bytes);
        image.put_number(STACK + size, code.into(), bytes);
        if let Some(flags) = flags {
            image.put_number(STACK + 2 * size, flags, bytes);
        }
        image.put_number(STACK + outer, OUTER_STACK, bytes);
        image.put_number(STACK + outer + size, ss.into(), bytes);
    }
}
