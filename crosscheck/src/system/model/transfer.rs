//! Control transfers: far JMP, CALL and RET, IRET, INT n, and gates.
//!
//! Intel SDM vol. 2, the pages of the instructions; vol. 3A, 5.8 and 6.12. Task switches are not
//! foretold, but what keeps them from happening is.

use super::descriptor::{Cached, Descriptor, Kind, system};
use super::protection::{
    CS, DS, ES, FS, GP, GS, Mode, NP, Processor, SS, SS_FAULT, Stop, TS, Vendor, fault, fault0,
    is_null, require, rpl,
};

const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;
const IOPL: u64 = 3 << 12;
const NT: u64 = 1 << 14;
const RF: u64 = 1 << 16;
const VM: u64 = 1 << 17;
const VIF: u64 = 1 << 19;
const VIP: u64 = 1 << 20;
/// CF, PF, AF, ZF, SF, DF, OF, which any IRET loads, and TF and NT.
const FREE_FLAGS: u64 = 0xcd5 | TF | NT;
/// AC and ID, and RF, which are above bit 15.
const UPPER_FLAGS: u64 = 1 << 18 | 1 << 21 | RF;

/// A far pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FarPointer {
    /// The selector.
    pub selector: u16,
    /// The offset.
    pub offset: u64,
    /// The operand size in bytes: 2, 4 or 8.
    pub size: u64,
}

/// A stack that is being pushed to.
#[derive(Debug, Clone, Copy)]
struct Stack {
    segment: Cached,
    pointer: u64,
    /// Of 64-bit code.
    wide: bool,
    /// What a push past the limit raises.
    full: Stop,
}

impl Stack {
    /// The bits of the stack pointer that count.
    fn mask(&self) -> u64 {
        match (self.wide, self.segment.descriptor().big()) {
            (true, _) => !0,
            (false, true) => 0xffff_ffff,
            (false, false) => 0xffff,
        }
    }
}

impl Processor {
    fn stack(&self) -> Stack {
        let wide = self.mode() == Mode::Bits64;
        let full = fault0(SS_FAULT);
        Stack { segment: self.segments[SS], pointer: self.regs[4], wide, full }
    }

    fn push(&mut self, stack: &mut Stack, value: u64, size: u64) -> Result<(), Stop> {
        let mask = stack.mask();
        let offset = stack.pointer.wrapping_sub(size) & mask;
        if stack.wide {
            return self.store_on(stack, offset, offset, value, size);
        }
        require(stack.segment.within(offset, size), stack.full)?;
        let linear = stack.segment.base.wrapping_add(offset) & 0xffff_ffff;
        self.store_on(stack, offset, linear, value, size)
    }

    fn store_on(
        &mut self,
        stack: &mut Stack,
        offset: u64,
        linear: u64,
        value: u64,
        size: u64,
    ) -> Result<(), Stop> {
        self.store(linear, value, size)?;
        stack.pointer = stack.pointer & !stack.mask() | offset;
        Ok(())
    }

    /// Pushes a selector: of the upper bytes, some processors write none.
    fn push_selector(&mut self, stack: &mut Stack, value: u16, size: u64) -> Result<(), Stop> {
        self.push(stack, value.into(), size)?;
        let base = if stack.wide { 0 } else { stack.segment.base };
        let at = base + (stack.pointer & stack.mask());
        self.vague.extend((2..size).map(|n| at + n));
        Ok(())
    }

    /// Whether code at this offset can be run: it is within the limit, or canonical.
    fn check_ip(&self, code: Descriptor, ip: u64) -> Result<(), Stop> {
        let good = if self.lma && code.long() {
            let upper = ip >> 47;
            upper == 0 || upper == 0x1_ffff
        } else {
            ip <= u64::from(code.limit())
        };
        require(good, fault0(GP))
    }

    /// L and D are not both set, in IA-32e mode.
    fn check_size(&self, code: Descriptor, stop: Stop) -> Result<(), Stop> {
        require(!(self.lma && code.long() && code.big()), stop)
    }

    fn enter(&mut self, selector: u16, at: u64, code: Descriptor, level: u8, ip: u64) {
        let selector = selector & !3 | u16::from(level);
        self.segments[CS] = self.load(selector, at, code);
        self.cpl = level;
        self.rip = ip;
    }

    /// Far JMP. Vol. 2A, JMP.
    ///
    /// # Errors
    /// The exception.
    pub fn jump(&mut self, to: FarPointer) -> Result<(), Stop> {
        let FarPointer { selector, offset, .. } = to;
        require(!is_null(selector), fault0(GP))?;
        let gp = fault(GP, selector);
        let (at, descriptor) = self.descriptor(selector).ok_or(gp)?;
        match descriptor.kind() {
            Kind::Code { conforming, .. } => {
                self.check_direct(selector, descriptor, conforming)?;
                self.check_ip(descriptor, offset)?;
                self.enter(selector, at, descriptor, self.cpl, offset);
                Ok(())
            }
            Kind::Data { .. } => Err(gp),
            Kind::System(kind) => {
                let gate = self.check_gate(selector, descriptor, kind)?;
                let (at, code) = self.gate_code(gate.gate_selector())?;
                let stop = fault(GP, gate.gate_selector());
                let allowed = match code.kind() {
                    Kind::Code { conforming: true, .. } => code.dpl() <= self.cpl,
                    _ => code.dpl() == self.cpl,
                };
                require(allowed, stop)?;
                require(code.present(), fault(NP, gate.gate_selector()))?;
                let offset = self.gate_target(descriptor, kind, selector);
                self.check_ip(code, offset)?;
                self.enter(gate.gate_selector(), at, code, self.cpl, offset);
                Ok(())
            }
        }
    }

    /// The checks of a far JMP or CALL to a code segment.
    fn check_direct(&self, selector: u16, code: Descriptor, conforming: bool) -> Result<(), Stop> {
        let gp = fault(GP, selector);
        self.check_size(code, gp)?;
        let allowed = if conforming {
            code.dpl() <= self.cpl
        } else {
            rpl(selector) <= self.cpl && code.dpl() == self.cpl
        };
        require(allowed, gp)?;
        require(code.present(), fault(NP, selector))
    }

    /// The checks of a call gate, or of what leads to a task switch.
    fn check_gate(&self, selector: u16, gate: Descriptor, kind: u8) -> Result<Descriptor, Stop> {
        use system::{BUSY_TSS, BUSY_TSS16, CALL_GATE, CALL_GATE16, TASK_GATE, TSS, TSS16};
        let gp = fault(GP, selector);
        let ranked = gate.dpl() >= self.cpl && gate.dpl() >= rpl(selector);
        let np = fault(NP, selector);
        match kind {
            CALL_GATE => {}
            CALL_GATE16 if !self.lma => {}
            TASK_GATE | TSS | TSS16 if !self.lma => {
                require(ranked, gp)?;
                // A TSS must be in the global descriptor table (table 7-1); the page of JMP has
                // that after the check of presence.
                if kind != TASK_GATE && selector & 4 != 0 {
                    return Err(if gate.present() { gp } else { Stop::Unforeseeable });
                }
                require(gate.present(), np)?;
                return Err(Stop::Unforeseeable);
            }
            BUSY_TSS | BUSY_TSS16 if !self.lma => return Err(gp),
            _ => return Err(gp),
        }
        require(ranked, gp)?;
        require(gate.present(), np)?;
        Ok(gate)
    }

    /// The code segment that a gate leads to.
    fn gate_code(&mut self, selector: u16) -> Result<(u64, Descriptor), Stop> {
        require(!is_null(selector), fault0(GP))?;
        let gp = fault(GP, selector);
        let (at, code) = self.descriptor(selector).ok_or(gp)?;
        require(matches!(code.kind(), Kind::Code { .. }), gp)?;
        require(!self.lma || code.long() && !code.big(), gp)?;
        Ok((at, code))
    }

    /// A gate's offset: of 16, 32 or 64 bits.
    fn gate_target(&mut self, gate: Descriptor, kind: u8, selector: u16) -> u64 {
        let offset = gate.gate_offset();
        if self.lma {
            let found = self.descriptor(selector);
            let upper = found.map_or(0, |(at, _)| self.image.get(at + 8, 4));
            return offset | upper << 32;
        }
        if kind == system::CALL_GATE16 { offset & 0xffff } else { offset }
    }

    /// Far CALL. Vol. 2A, CALL.
    ///
    /// # Errors
    /// The exception.
    pub fn call(&mut self, to: FarPointer) -> Result<(), Stop> {
        let FarPointer { selector, offset, size } = to;
        require(!is_null(selector), fault0(GP))?;
        let gp = fault(GP, selector);
        let (at, descriptor) = self.descriptor(selector).ok_or(gp)?;
        match descriptor.kind() {
            Kind::Code { conforming, .. } => {
                self.check_direct(selector, descriptor, conforming)?;
                let mut stack = self.stack();
                self.push_return(&mut stack, size)?;
                self.check_ip(descriptor, offset)?;
                self.regs[4] = stack.pointer;
                self.enter(selector, at, descriptor, self.cpl, offset);
                Ok(())
            }
            Kind::Data { .. } => Err(gp),
            Kind::System(kind) => self.call_gate(selector, descriptor, kind),
        }
    }

    fn push_return(&mut self, stack: &mut Stack, size: u64) -> Result<(), Stop> {
        self.push_selector(stack, self.segments[CS].selector, size)?;
        self.push(stack, self.rip + self.length, size)
    }

    fn call_gate(&mut self, selector: u16, gate: Descriptor, kind: u8) -> Result<(), Stop> {
        self.check_gate(selector, gate, kind)?;
        let code_selector = gate.gate_selector();
        let (at, code) = self.gate_code(code_selector)?;
        require(code.dpl() <= self.cpl, fault(GP, code_selector))?;
        require(code.present(), fault(NP, code_selector))?;
        let offset = self.gate_target(gate, kind, selector);
        let size = match kind {
            system::CALL_GATE16 => 2,
            _ if self.lma => 8,
            _ => 4,
        };
        let conforming = matches!(code.kind(), Kind::Code { conforming: true, .. });
        if conforming || code.dpl() == self.cpl {
            let mut stack = Stack { wide: self.lma, ..self.stack() };
            self.push_return(&mut stack, size)?;
            self.check_ip(code, offset)?;
            self.regs[4] = stack.pointer;
            self.enter(code_selector, at, code, self.cpl, offset);
            return Ok(());
        }
        let level = code.dpl();
        let mut stack = self.stack_for(level, 0, code, offset)?;
        let old = (self.segments[SS].selector, self.regs[4]);
        self.push_selector(&mut stack, old.0, size)?;
        self.push(&mut stack, old.1, size)?;
        if !self.lma {
            for n in (0..gate.gate_parameters()).rev() {
                let value = self.stacked(n * size, size);
                self.push(&mut stack, value, size)?;
            }
        }
        self.push_return(&mut stack, size)?;
        self.check_ip(code, offset)?;
        self.segments[SS] = stack.segment;
        self.regs[4] = stack.pointer;
        self.enter(code_selector, at, code, level, offset);
        Ok(())
    }

    /// The new stack for a handler or procedure at `ip` of `code`. That its checks come before that
    /// of the instruction pointer, Intel's manual says; AMD's leaves it open.
    fn stack_for(
        &mut self,
        level: u8,
        number: u64,
        code: Descriptor,
        ip: u64,
    ) -> Result<Stack, Stop> {
        let open = self.vendor == Vendor::Amd && self.check_ip(code, ip).is_err();
        let found = self.inner_stack(level, number);
        found.map_err(|stop| if open { Stop::Unforeseeable } else { stop })
    }

    /// The stack that the TSS has for a privilege level, or in IA-32e mode for an interrupt stack
    /// number. Vol. 3A, 5.8.5 and 6.14.4; 7.2.1 and 7.7.
    fn inner_stack(&mut self, level: u8, number: u64) -> Result<Stack, Stop> {
        let tss = self.tr;
        let full = fault(TS, tss.selector);
        if self.lma {
            let offset = if number == 0 { 4 + 8 * u64::from(level) } else { 0x1c + 8 * number };
            require(offset + 7 <= u64::from(tss.limit), full)?;
            let pointer = self.image.get(tss.base + offset, 8);
            let segment = Cached::null(u16::from(level));
            return Ok(Stack { segment, pointer, wide: true, full: fault0(SS_FAULT) });
        }
        let offset = 4 + 8 * u64::from(level);
        require(offset + 5 <= u64::from(tss.limit), full)?;
        let pointer = self.image.get(tss.base + offset, 4);
        let selector = self.image.get(tss.base + offset + 4, 2) as u16;
        require(!is_null(selector), fault(TS, selector))?;
        let segment = self.stack_segment(selector, level, TS)?;
        Ok(Stack { segment, pointer, wide: false, full: fault(SS_FAULT, selector) })
    }

    /// Far RET that releases so many bytes of parameters. Vol. 2B, RET.
    ///
    /// # Errors
    /// The exception.
    pub fn far_return(&mut self, size: u64, release: u64) -> Result<(), Stop> {
        let ip = self.stacked(0, size);
        let selector = self.stacked(size, 2) as u16;
        let (at, code) = self.return_code(selector)?;
        let level = rpl(selector);
        if level == self.cpl {
            self.check_ip(code, ip)?;
            self.regs[4] = self.advanced(2 * size + release);
            self.enter(selector, at, code, level, ip);
            return Ok(());
        }
        let sp = self.stacked(2 * size + release, size);
        let ss = self.stacked(3 * size + release, 2) as u16;
        let segment = self.return_stack(ss, level, code, ip)?;
        self.enter(selector, at, code, level, ip);
        self.outer(segment, sp.wrapping_add(release), size);
        Ok(())
    }

    /// The stack pointer so many bytes on.
    fn advanced(&self, bytes: u64) -> u64 {
        let mask = if self.mode() == Mode::Bits64 { !0 } else { 0xffff_ffff };
        self.regs[4].wrapping_add(bytes) & mask
    }

    /// The code segment that RET or IRET goes to.
    fn return_code(&mut self, selector: u16) -> Result<(u64, Descriptor), Stop> {
        require(!is_null(selector), fault0(GP))?;
        let gp = fault(GP, selector);
        let (at, code) = self.descriptor(selector).ok_or(gp)?;
        let Kind::Code { conforming, .. } = code.kind() else { return Err(gp) };
        let level = rpl(selector);
        require(level >= self.cpl, gp)?;
        let ranked = if conforming { code.dpl() <= level } else { code.dpl() == level };
        require(ranked, gp)?;
        self.check_size(code, gp)?;
        require(code.present(), fault(NP, selector))?;
        Ok((at, code))
    }

    /// The stack segment that RET or IRET goes to, and the check of the instruction pointer: on
    /// Intel's processors it follows, on AMD's (APM vol. 3, RETF and IRET) it comes first.
    fn return_stack(
        &mut self,
        selector: u16,
        level: u8,
        code: Descriptor,
        ip: u64,
    ) -> Result<Cached, Stop> {
        if self.vendor == Vendor::Amd {
            self.check_ip(code, ip)?;
        }
        let segment = self.return_segment(selector, level, code)?;
        self.check_ip(code, ip)?;
        Ok(segment)
    }

    fn return_segment(
        &mut self,
        selector: u16,
        level: u8,
        code: Descriptor,
    ) -> Result<Cached, Stop> {
        if is_null(selector) {
            let allowed = self.lma && code.long() && level != 3;
            require(allowed, fault0(GP))?;
            // The manual names the RPL of 3 alone.
            require(rpl(selector) == level, Stop::Unforeseeable)?;
            return Ok(Cached::null(selector));
        }
        self.stack_segment(selector, level, GP)
    }

    /// What is done after a return to an outer level, or in 64-bit mode to any. Segments that the
    /// outer level may not use become null.
    fn outer(&mut self, stack: Cached, sp: u64, size: u64) {
        self.segments[SS] = stack;
        let wide = self.mode() == Mode::Bits64;
        let mask = match size {
            2 => 0xffff,
            4 => 0xffff_ffff,
            _ => !0,
        };
        self.vague_rsp = !wide && !stack.descriptor().big() || size == 2;
        self.regs[4] = sp & mask;
        for number in [ES, DS, FS, GS] {
            let descriptor = self.segments[number].descriptor();
            let conforming = matches!(descriptor.kind(), Kind::Code { conforming: true, .. });
            if !conforming && descriptor.dpl() < self.cpl {
                self.segments[number] = Cached::null(0);
            }
        }
    }

    /// IRET. Vol. 2A, IRET.
    ///
    /// # Errors
    /// The exception.
    pub fn interrupt_return(&mut self, size: u64) -> Result<(), Stop> {
        if self.rflags & NT != 0 {
            let task_return = if self.lma { fault0(GP) } else { Stop::Unforeseeable };
            return Err(task_return);
        }
        let ip = self.stacked(0, size);
        let selector = self.stacked(size, 2) as u16;
        let flags = self.stacked(2 * size, size);
        if !self.lma && flags & VM != 0 && self.cpl == 0 && size != 2 {
            return Err(Stop::Unforeseeable);
        }
        let (at, code) = self.return_code(selector)?;
        let level = rpl(selector);
        let mut loaded = FREE_FLAGS;
        if size != 2 {
            loaded |= UPPER_FLAGS;
        }
        if self.cpl <= (self.rflags >> 12 & 3) as u8 {
            loaded |= IF;
        }
        if self.cpl == 0 {
            loaded |= IOPL | if size == 2 { 0 } else { VIF | VIP };
        }
        let flags = self.rflags & !loaded | flags & loaded;
        if level == self.cpl && self.mode() != Mode::Bits64 {
            self.check_ip(code, ip)?;
            self.regs[4] = self.advanced(3 * size);
            self.enter(selector, at, code, level, ip);
        } else {
            let sp = self.stacked(3 * size, size);
            let ss = self.stacked(4 * size, 2) as u16;
            let segment = self.return_stack(ss, level, code, ip)?;
            self.enter(selector, at, code, level, ip);
            self.outer(segment, sp, size);
        }
        self.rflags = flags;
        Ok(())
    }

    /// INT n. Vol. 2A, INT n.
    ///
    /// # Errors
    /// The exception.
    pub fn interrupt(&mut self, vector: u8) -> Result<(), Stop> {
        use system::{INTERRUPT_GATE, INTERRUPT_GATE16, TASK_GATE, TRAP_GATE, TRAP_GATE16};
        let code_of_vector = u32::from(vector) << 3 | 2;
        let gp = Stop::Fault(GP, code_of_vector);
        let entry = if self.lma { 16 } else { 8 };
        let offset = u64::from(vector) * entry;
        let (at, gate) = self.idt.entry(offset, entry, &self.image).ok_or(gp)?;
        let Kind::System(kind) = gate.kind() else { return Err(gp) };
        let size = match kind {
            INTERRUPT_GATE | TRAP_GATE if self.lma => 8,
            INTERRUPT_GATE | TRAP_GATE => 4,
            INTERRUPT_GATE16 | TRAP_GATE16 if !self.lma => 2,
            TASK_GATE if !self.lma => 0,
            _ => return Err(gp),
        };
        require(gate.dpl() >= self.cpl, gp)?;
        require(gate.present(), Stop::Fault(NP, code_of_vector))?;
        require(kind != TASK_GATE, Stop::Unforeseeable)?;
        let mut target = gate.gate_offset();
        if self.lma {
            target |= self.image.get(at + 8, 4) << 32;
        } else if size == 2 {
            target &= 0xffff;
        }
        let selector = gate.gate_selector();
        let (code_at, code) = self.gate_code(selector)?;
        require(code.dpl() <= self.cpl, fault(GP, selector))?;
        require(code.present(), fault(NP, selector))?;
        let conforming = matches!(code.kind(), Kind::Code { conforming: true, .. });
        let inner = !conforming && code.dpl() < self.cpl;
        let level = if inner { code.dpl() } else { self.cpl };
        let number = if self.lma { gate.gate_stack() } else { 0 };
        let stack = if inner || number != 0 {
            self.stack_for(level, number, code, target)?
        } else {
            Stack { wide: self.lma, ..self.stack() }
        };
        self.frame(stack, inner, size)?;
        self.check_ip(code, target)?;
        self.enter(selector, code_at, code, level, target);
        let cleared = if matches!(kind, INTERRUPT_GATE | INTERRUPT_GATE16) { IF } else { 0 };
        self.rflags &= !(TF | NT | RF | VM | cleared);
        Ok(())
    }

    /// Pushes what an interrupt saves.
    fn frame(&mut self, mut stack: Stack, inner: bool, size: u64) -> Result<(), Stop> {
        let old = (self.segments[SS].selector, self.regs[4]);
        if self.lma {
            stack.pointer &= !15;
        }
        if inner || self.lma {
            self.push_selector(&mut stack, old.0, size)?;
            self.push(&mut stack, old.1, size)?;
        }
        let flags = self.rflags;
        self.push(&mut stack, flags, size)?;
        self.push_return(&mut stack, size)?;
        if inner {
            self.segments[SS] = stack.segment;
        }
        self.regs[4] = stack.pointer;
        Ok(())
    }
}
