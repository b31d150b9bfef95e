//! A processor with segmentation, and what loading and checking selectors does.
//!
//! Intel SDM vol. 3A, chapter 5; vol. 2, MOV, POP, LDS, LAR, LSL, VERR, LLDT, LTR.

use super::descriptor::{Cached, Descriptor, Kind, Table, system};
use crate::system::image::{Image, LOW};
use crate::system::layout;
pub use trivium_cpu::model::Vendor;

/// What code runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Protected mode, EFER.LMA = 0; the code is 32-bit.
    Protected,
    /// Compatibility mode; the code is 32-bit.
    Compatibility,
    /// 64-bit mode.
    Bits64,
}

/// Numbers of segment registers.
pub const ES: usize = 0;
/// CS.
pub const CS: usize = 1;
/// SS.
pub const SS: usize = 2;
/// DS.
pub const DS: usize = 3;
/// FS.
pub const FS: usize = 4;
/// GS.
pub const GS: usize = 5;

/// A processor.
#[derive(Debug, Clone)]
pub struct Processor {
    /// Whose it is.
    pub vendor: Vendor,
    /// IA32_EFER.LMA.
    pub lma: bool,
    /// The current privilege level.
    pub cpl: u8,
    /// The general registers.
    pub regs: [u64; 16],
    /// RIP; of the instruction to be executed.
    pub rip: u64,
    /// Bytes of that instruction.
    pub length: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Cached; 6],
    /// GDTR.
    pub gdt: Table,
    /// IDTR.
    pub idt: Table,
    /// LDTR; `None` if its selector is null.
    pub ldt: Option<Cached>,
    /// TR.
    pub tr: Cached,
    /// Memory.
    pub image: Image,
    /// The addresses of descriptors that were read: they may be marked accessed.
    pub read: Vec<u64>,
    /// Addresses of bytes in memory that may hold anything.
    pub vague: Vec<u64>,
    /// Only the lower half of RSP's lower half is foretold.
    pub vague_rsp: bool,
}

/// What keeps an instruction from being executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// An exception with this vector and error code.
    Fault(u8, u32),
    /// The model does not say.
    Unforeseeable,
}

/// Vectors. Table 6-1.
pub const TS: u8 = 10;
/// Segment not present.
pub const NP: u8 = 11;
/// Stack fault.
pub const SS_FAULT: u8 = 12;
/// General protection.
pub const GP: u8 = 13;
/// Invalid opcode.
pub const UD: u8 = 6;

/// ZF.
pub const ZF: u64 = 1 << 6;

/// An exception whose error code is a selector. Figure 6-7.
#[must_use]
pub fn fault(vector: u8, selector: u16) -> Stop {
    Stop::Fault(vector, u32::from(selector & !3))
}

/// An exception whose error code is 0.
#[must_use]
pub fn fault0(vector: u8) -> Stop {
    Stop::Fault(vector, 0)
}

/// `Err(stop)` unless `good`.
pub fn require(good: bool, stop: Stop) -> Result<(), Stop> {
    if good { Ok(()) } else { Err(stop) }
}

/// The requested privilege level.
#[must_use]
pub fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

/// Selectors 0 to 3.
#[must_use]
pub fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// LAR, LSL, VERR and VERW.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the manual's.
pub enum Check {
    Lar,
    Lsl,
    Verr,
    Verw,
}

impl Processor {
    /// What code runs in.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (self.lma, self.segments[CS].descriptor().long()) {
            (false, _) => Mode::Protected,
            (true, false) => Mode::Compatibility,
            (true, true) => Mode::Bits64,
        }
    }

    /// The table that a selector that is not null refers to.
    fn table(&self, selector: u16) -> Option<Table> {
        if selector & 4 == 0 {
            return Some(self.gdt);
        }
        self.ldt.map(|ldt| Table { base: ldt.base, limit: u64::from(ldt.limit) })
    }

    /// The descriptor of a selector that is not null, and its address; `None` if it is outside of
    /// its table's limit. In IA-32e mode system descriptors are of 16 bytes.
    pub fn descriptor(&mut self, selector: u16) -> Option<(u64, Descriptor)> {
        let table = self.table(selector)?;
        let offset = u64::from(selector & !7);
        let (at, descriptor) = table.entry(offset, 8, &self.image)?;
        if self.lma && matches!(descriptor.kind(), Kind::System(kind) if kind != 0) {
            table.entry(offset, 16, &self.image)?;
        }
        self.read.push(at);
        Some((at, descriptor))
    }

    /// Marks a descriptor accessed, and caches it.
    pub fn load(&mut self, selector: u16, at: u64, descriptor: Descriptor) -> Cached {
        let byte = self.image.byte(at + 5);
        self.image.put(at + 5, &[byte | 1]);
        Cached::new(selector, Descriptor(descriptor.0 | 1 << 40))
    }

    /// A segment for DS, ES, FS or GS. Vol. 2B, MOV.
    fn load_data(&mut self, selector: u16) -> Result<Cached, Stop> {
        if is_null(selector) {
            return Ok(Cached::null(selector));
        }
        let gp = fault(GP, selector);
        let (at, descriptor) = self.descriptor(selector).ok_or(gp)?;
        let outranked = rpl(selector) > descriptor.dpl() || self.cpl > descriptor.dpl();
        match descriptor.kind() {
            Kind::Data { .. } => require(!outranked, gp)?,
            Kind::Code { readable: true, conforming: false } => require(!outranked, gp)?,
            Kind::Code { readable: true, conforming: true } => {}
            Kind::Code { readable: false, .. } | Kind::System(_) => return Err(gp),
        }
        require(descriptor.present(), fault(NP, selector))?;
        Ok(self.load(selector, at, descriptor))
    }

    /// Loads SS. Vol. 2B, MOV.
    fn load_stack(&mut self, selector: u16) -> Result<Cached, Stop> {
        if is_null(selector) {
            let allowed = self.mode() == Mode::Bits64 && self.cpl != 3;
            require(allowed, fault0(GP))?;
            // AMD's manual says nothing of the RPL of a null selector.
            let same = rpl(selector) == self.cpl;
            let otherwise = match self.vendor {
                Vendor::Intel => fault0(GP),
                Vendor::Amd => Stop::Unforeseeable,
            };
            require(same, otherwise)?;
            return Ok(Cached::null(selector));
        }
        let cpl = self.cpl;
        self.stack_segment(selector, cpl, GP)
    }

    /// A stack segment for a privilege level; `vector` says that it cannot be one.
    pub fn stack_segment(&mut self, selector: u16, level: u8, vector: u8) -> Result<Cached, Stop> {
        let bad = fault(vector, selector);
        let (at, descriptor) = self.descriptor(selector).ok_or(bad)?;
        require(rpl(selector) == level, bad)?;
        require(descriptor.kind() == Kind::Data { writable: true }, bad)?;
        require(descriptor.dpl() == level, bad)?;
        require(descriptor.present(), fault(SS_FAULT, selector))?;
        Ok(self.load(selector, at, descriptor))
    }

    /// Loads a segment register other than CS.
    ///
    /// # Errors
    /// The exception.
    pub fn load_segment(&mut self, register: usize, selector: u16) -> Result<(), Stop> {
        let loaded =
            if register == SS { self.load_stack(selector) } else { self.load_data(selector) };
        self.segments[register] = loaded?;
        Ok(())
    }

    /// The descriptor that LAR, LSL, VERR and VERW see, if they see it.
    fn visible(&mut self, selector: u16) -> Option<Descriptor> {
        if is_null(selector) {
            return None;
        }
        let (_, descriptor) = self.descriptor(selector)?;
        let conforming = matches!(descriptor.kind(), Kind::Code { conforming: true, .. });
        let ranked = self.cpl <= descriptor.dpl() && rpl(selector) <= descriptor.dpl();
        (conforming || ranked).then_some(descriptor)
    }

    /// LAR, LSL, VERR and VERW: what goes to the register, if ZF is set.
    fn checked(&mut self, check: Check, selector: u16) -> Option<u32> {
        use system::{BUSY_TSS, BUSY_TSS16, CALL_GATE, CALL_GATE16, LDT, TASK_GATE, TSS, TSS16};
        let lma = self.lma;
        let descriptor = self.visible(selector)?;
        let kind = descriptor.kind();
        // Vol. 2A, tables 3-52 (LAR) and 3-55 (LSL): which system types are valid.
        let has_limit = match kind {
            Kind::System(LDT | TSS | BUSY_TSS) => true,
            Kind::System(TSS16 | BUSY_TSS16) => !lma,
            Kind::System(_) => false,
            Kind::Data { .. } | Kind::Code { .. } => true,
        };
        let has_rights = match kind {
            Kind::System(CALL_GATE) => true,
            Kind::System(CALL_GATE16 | TASK_GATE) => !lma,
            _ => has_limit,
        };
        match check {
            Check::Lar => has_rights.then_some((descriptor.0 >> 32) as u32 & 0x00f0_ff00),
            Check::Lsl => has_limit.then_some(descriptor.limit()),
            Check::Verr => {
                let reads = matches!(kind, Kind::Data { .. } | Kind::Code { readable: true, .. });
                reads.then_some(0)
            }
            Check::Verw => (kind == Kind::Data { writable: true }).then_some(0),
        }
    }

    /// LAR, LSL, VERR or VERW with a register of four bytes.
    ///
    /// # Errors
    /// Whether they look for the upper half of a descriptor, the manual does not say.
    pub fn check(&mut self, check: Check, selector: u16, register: usize) -> Result<(), Stop> {
        let found = self.checked(check, selector);
        if !is_null(selector) && self.descriptor(selector).is_none() {
            let offset = u64::from(selector & !7);
            let half = self.table(selector).and_then(|t| t.entry(offset, 8, &self.image));
            require(half.is_none(), Stop::Unforeseeable)?;
        }
        self.rflags = self.rflags & !ZF | if found.is_some() { ZF } else { 0 };
        if let (Some(value), Check::Lar | Check::Lsl) = (found, check) {
            self.regs[register] = u64::from(value);
        }
        Ok(())
    }

    /// Vol. 2A, LLDT.
    ///
    /// # Errors
    /// The exception.
    pub fn load_ldt(&mut self, selector: u16) -> Result<(), Stop> {
        require(self.cpl == 0, fault0(GP))?;
        if is_null(selector) {
            self.ldt = None;
            return Ok(());
        }
        let (_, found) = self.system_segment(selector, &[system::LDT])?;
        self.ldt = Some(found);
        Ok(())
    }

    /// Vol. 2A, LTR.
    ///
    /// # Errors
    /// The exception.
    pub fn load_task(&mut self, selector: u16) -> Result<(), Stop> {
        require(self.cpl == 0, fault0(GP))?;
        require(!is_null(selector), fault0(GP))?;
        let types: &[u8] = if self.lma { &[system::TSS] } else { &[system::TSS16, system::TSS] };
        let (at, mut found) = self.system_segment(selector, types)?;
        // It is marked busy.
        let byte = self.image.byte(at + 5);
        self.image.put(at + 5, &[byte | 2]);
        found.attributes |= 2;
        self.tr = found;
        Ok(())
    }

    fn system_segment(&mut self, selector: u16, types: &[u8]) -> Result<(u64, Cached), Stop> {
        let gp = fault(GP, selector);
        require(selector & 4 == 0, gp)?;
        let (at, descriptor) = self.descriptor(selector).ok_or(gp)?;
        let good = matches!(descriptor.kind(), Kind::System(kind) if types.contains(&kind));
        require(good, gp)?;
        require(descriptor.present(), fault(NP, selector))?;
        let mut found = Cached::new(selector, descriptor);
        if self.lma {
            found.base |= self.image.get(at + 8, 4) << 32;
        }
        Ok((at, found))
    }

    /// A number from a stack, which all cases have where it can be read.
    #[must_use]
    pub fn stacked(&self, offset: u64, size: u64) -> u64 {
        let mask = if self.mode() == Mode::Bits64 { !0 } else { 0xffff_ffff };
        self.image.get(self.regs[4].wrapping_add(offset) & mask, size)
    }

    /// Writes to memory, but not to what the case stands on.
    ///
    /// # Errors
    /// It would.
    pub fn store(&mut self, linear: u64, value: u64, size: u64) -> Result<(), Stop> {
        let good = |at: u64| layout::TEST_STACKS.contains(&at) || LOW.contains(at);
        if !(0..size).all(|n| good(linear.wrapping_add(n))) {
            return Err(Stop::Unforeseeable);
        }
        self.image.put_number(linear, value, size as usize);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
