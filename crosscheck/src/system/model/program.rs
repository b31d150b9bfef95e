//! What a program of memory accesses does: each access in turn, until one faults.

use super::paging::{Access, Flag, Kind, PageFault, Processor};
use crate::system::image::{Image, SYSTEM};
use crate::system::steps::{DESCRIPTOR, INT3, MOV, Modify, Program, Step};

/// What a program begins with.
#[derive(Debug, Clone)]
pub struct Start {
    /// The processor.
    pub processor: Processor,
    /// 64-bit code.
    pub long: bool,
    /// CR4.PCIDE.
    pub pcide: bool,
    /// The base of the local descriptor table.
    pub ldt: u64,
    /// Where the program lies.
    pub code: u64,
    /// The general registers; bits above 31 are zero for other than 64-bit code.
    pub regs: [u64; 16],
    /// The low halves of XMM registers, with the data registers' numbers.
    pub xmm: [[u64; 2]; 4],
    /// ES.
    pub es: u16,
    /// Memory.
    pub image: Image,
}

/// An exception, as the manual foretells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    /// The vector.
    pub vector: u8,
    /// The error code, or zero.
    pub error: u32,
    /// CR2, for a page fault, or zero.
    pub cr2: u64,
}

/// How a program ends.
#[derive(Debug, Clone)]
pub struct End {
    /// The exception; where the manual does not say which of several comes first, all of them.
    pub exceptions: Vec<Exception>,
    /// The saved RIP.
    pub rip: u64,
    /// The general registers.
    pub regs: [u64; 16],
    /// XMM registers.
    pub xmm: [[u64; 2]; 4],
    /// ES.
    pub es: u16,
    /// The PDPTE registers.
    pub pdpte: [u64; 4],
    /// Memory.
    pub image: Image,
    /// Flags of paging-structure entries that may be set besides.
    pub may_set: Vec<Flag>,
}

/// Why the model gives no answer: the program overwrites what it or its supervisor stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unforeseeable;

/// Ends a program.
enum Halt {
    Faults {
        exceptions: Vec<Exception>,
        may_set: Vec<Flag>,
        /// The instruction's address, where it is not that of the step's.
        rip: Option<u64>,
    },
    Unforeseeable,
}

const SS_FAULT: u8 = 12;
const GP_FAULT: u8 = 13;
const PAGE_FAULT: u8 = 14;
const BREAKPOINT: u8 = 3;

fn general_protection(vector: u8) -> Halt {
    let exception = Exception { vector, error: 0, cr2: 0 };
    Halt::Faults { exceptions: vec![exception], may_set: Vec::new(), rip: None }
}

fn page_fault(fault: &PageFault, linear: u64) -> Exception {
    Exception { vector: PAGE_FAULT, error: fault.code, cr2: linear }
}

/// The bits of a data segment's descriptor that LAR gives. Vol. 2A, LAR.
const LAR_MASK: u64 = 0x00f0_ff00;

/// The accessed bit of a descriptor, and its byte.
const ACCESSED: u64 = 1 << 40;
const ACCESSED_BYTE: u64 = 5;

/// The manual does not say how much of a descriptor is written to mark it accessed: its double
/// word or its byte, or all of it.
fn anywhere_in_descriptor(mut halt: Halt) -> Halt {
    if let Halt::Faults { exceptions, .. } = &mut halt {
        for exception in exceptions.clone() {
            for part in [4, ACCESSED_BYTE] {
                exceptions.push(Exception { cr2: exception.cr2 + part, ..exception });
            }
        }
    }
    halt
}

/// The manual does not say whether the error code of a #GP for a descriptor whose address is not
/// canonical is the selector.
fn or_with_code(mut halt: Halt, selector: u16) -> Halt {
    if let Halt::Faults { exceptions, .. } = &mut halt {
        let first = exceptions.iter().find(|e| e.vector == GP_FAULT).copied();
        let error = u32::from(selector & !3);
        exceptions.extend(first.map(|exception| Exception { error, ..exception }));
    }
    halt
}

/// Runs a program.
///
/// # Errors
/// The manual does not say what happens, or the case would spoil its own supervisor.
pub fn run(start: &Start, steps: &[Step], program: &Program) -> Result<End, Unforeseeable> {
    let mut machine = Machine { now: start.clone(), stored_to_tables: false };
    for ((register, step), offset) in (0..).zip(steps).zip(&program.offsets) {
        machine.set_addresses(step, register);
        let rip = start.code + offset;
        match machine.step(step, register) {
            Ok(()) => {}
            Err(Halt::Faults { exceptions, may_set, rip: other }) => {
                return Ok(machine.end(exceptions, may_set, other.unwrap_or(rip)));
            }
            Err(Halt::Unforeseeable) => return Err(Unforeseeable),
        }
    }
    let rip = match steps.last() {
        Some(&Step::Execute { at }) => at + 6,
        _ => start.code + program.bytes.len() as u64,
    };
    let breakpoint = Exception { vector: BREAKPOINT, error: 0, cr2: 0 };
    Ok(machine.end(vec![breakpoint], Vec::new(), rip))
}

struct Machine {
    now: Start,
    /// An access has written to where page tables are, so that TLBs may be stale.
    stored_to_tables: bool,
}

/// One access of a step: where, how much, what for.
#[derive(Clone, Copy)]
struct Wanted {
    at: u64,
    size: u64,
    kind: Kind,
    implicit: bool,
}

impl Machine {
    fn end(self, exceptions: Vec<Exception>, may_set: Vec<Flag>, rip: u64) -> End {
        let Start { processor, regs, xmm, es, image, .. } = self.now;
        let pdpte = processor.registers.pdpte;
        End { exceptions, rip, regs, xmm, es, pdpte, image, may_set }
    }

    fn set_addresses(&mut self, step: &Step, register: usize) {
        let regs = &mut self.now.regs;
        match *step {
            Step::Load { at, .. } => regs[6] = at,
            Step::Store { at, .. }
            | Step::Modify { at, .. }
            | Step::Flush { at }
            | Step::Execute { at } => regs[7] = at,
            Step::Push { at } | Step::Pop { at } => regs[4] = at,
            Step::Copy { from, to, .. } => (regs[6], regs[7]) = (from, to),
            Step::LoadSegment { selector } | Step::AccessRights { selector } => {
                regs[7] = u64::from(selector);
            }
            Step::LoadCr3 { value } => regs[register] = value,
        }
    }

    fn step(&mut self, step: &Step, register: usize) -> Result<(), Halt> {
        let data = Wanted { at: 0, size: 0, kind: Kind::Read, implicit: false };
        let stack = if self.now.long { 8 } else { 4 };
        match *step {
            Step::Load { size, at } => {
                let [physical] = self.access([Wanted { at, size, ..data }], GP_FAULT)?;
                self.load(register, size, &physical);
            }
            Step::Store { size, at } => {
                let wanted = Wanted { at, size, kind: Kind::Write, ..data };
                let [physical] = self.access([wanted], GP_FAULT)?;
                let value = self.register(register, size);
                self.store(&physical, value)?;
            }
            Step::Modify { how, size, at, .. } => {
                let wanted = Wanted { at, size, kind: Kind::Write, ..data };
                let [physical] = self.access([wanted], GP_FAULT)?;
                self.modify(how, register, size, &physical)?;
            }
            Step::Push { at } => {
                let at = at.wrapping_sub(stack);
                let wanted = Wanted { at, size: stack, kind: Kind::Write, ..data };
                let [physical] = self.access([wanted], SS_FAULT)?;
                let value = self.register(register, stack);
                self.store(&physical, value)?;
                self.now.regs[4] = at;
            }
            Step::Pop { at } => {
                let [physical] = self.access([Wanted { at, size: stack, ..data }], SS_FAULT)?;
                self.now.regs[4] = at.wrapping_add(stack);
                self.load(register, stack, &physical);
            }
            Step::Copy { size, from, to } => {
                let read = Wanted { at: from, size, ..data };
                let write = Wanted { at: to, size, kind: Kind::Write, ..data };
                let [from, to] = self.access([read, write], GP_FAULT)?;
                let value = self.read(&from);
                self.store(&to, value)?;
                self.now.regs[6] += size;
                self.now.regs[7] += size;
            }
            Step::Flush { at } => {
                self.access([Wanted { at, size: 1, ..data }], GP_FAULT)?;
            }
            Step::LoadSegment { selector } => self.load_segment(selector)?,
            Step::AccessRights { selector } => {
                let descriptor = self.descriptor(selector)?;
                let low = descriptor >> 32 & LAR_MASK;
                self.now.regs[register] = low;
            }
            Step::LoadCr3 { value } => self.load_cr3(value)?,
            Step::Execute { at } => self.execute(at)?,
        }
        Ok(())
    }

    /// Vol. 2A, MOV to a segment register: reads the descriptor, and marks it accessed.
    fn load_segment(&mut self, selector: u16) -> Result<(), Halt> {
        let descriptor = self.descriptor(selector)?;
        if descriptor & ACCESSED == 0 {
            let at = self.now.ldt + u64::from(selector & !7);
            let wanted = Wanted { at, size: 8, kind: Kind::Write, implicit: true };
            let [physical] = self.access([wanted], GP_FAULT).map_err(anywhere_in_descriptor)?;
            let byte = physical[ACCESSED_BYTE as usize];
            let old = u128::from(self.now.image.byte(byte));
            self.store(&[byte], old | 1)?;
        }
        self.now.es = selector;
        Ok(())
    }

    fn descriptor(&mut self, selector: u16) -> Result<u64, Halt> {
        let at = self.now.ldt + u64::from(selector & !7);
        let wanted = Wanted { at, size: 8, kind: Kind::Read, implicit: true };
        let found = self.access([wanted], GP_FAULT);
        let [physical] = found.map_err(|halt| or_with_code(halt, selector))?;
        match self.read(&physical) as u64 {
            good if good | ACCESSED == DESCRIPTOR => Ok(good),
            _ => Err(Halt::Unforeseeable),
        }
    }

    /// Vol. 2B, MOV to control registers, and vol. 3A, 4.4.1.
    fn load_cr3(&mut self, value: u64) -> Result<(), Halt> {
        use super::paging::Mode;
        let processor = self.now.processor;
        if processor.registers.cpl != 0 {
            return Err(general_protection(GP_FAULT));
        }
        let registers = &mut self.now.processor.registers;
        match processor.mode() {
            Mode::Pae => {
                let loaded = processor.load_pdptes(value, |at, size| self.now.image.get(at, size));
                registers.pdpte = loaded.ok_or_else(|| general_protection(GP_FAULT))?;
                registers.cr3 = value;
            }
            Mode::Level4 | Mode::Level5 if !processor.cr3_is_good(value, self.now.pcide) => {
                return Err(general_protection(GP_FAULT));
            }
            // Other tables would be without the supervisor's.
            _ if (value ^ registers.cr3) & 0x000f_ffff_ffff_f000 != 0 => {
                return Err(Halt::Unforeseeable);
            }
            _ => registers.cr3 = value & !(1 << 63),
        }
        Ok(())
    }

    /// Fetches the two instructions of [`crate::system::steps::program_to_jump_to`].
    fn execute(&mut self, at: u64) -> Result<(), Halt> {
        let fetch = Wanted { at, size: 5, kind: Kind::Fetch, implicit: false };
        if !self.now.processor.is_canonical(at) {
            return Err(general_protection(GP_FAULT));
        }
        // Other bytes may be there than those that were put there.
        let image = &self.now.image;
        let first = self.now.processor.locate(at, |at, size| image.get(at, size));
        if first.is_some_and(|physical| image.byte(physical) != MOV) {
            return Err(Halt::Unforeseeable);
        }
        let [physical] = self.fetch(fetch)?;
        let value = self.read(&physical);
        self.now.regs[5] = (value >> 8) as u64;
        let [physical] = self.fetch(Wanted { at: at + 5, size: 1, ..fetch })?;
        if self.read(&physical) as u8 != INT3 {
            return Err(Halt::Unforeseeable);
        }
        Ok(())
    }

    /// Fetches an instruction; faults are its own.
    fn fetch(&mut self, wanted: Wanted) -> Result<[Vec<u64>; 1], Halt> {
        self.access([wanted], GP_FAULT).map_err(|halt| match halt {
            Halt::Faults { exceptions, may_set, .. } => {
                Halt::Faults { exceptions, may_set, rip: Some(wanted.at) }
            }
            other => other,
        })
    }

    /// Makes all accesses of an instruction: the physical addresses of their bytes.
    ///
    /// All of them must be allowed before any is made; which of several faults comes first, the
    /// manual does not say.
    fn access<const N: usize>(
        &mut self,
        all: [Wanted; N],
        not_canonical: u8,
    ) -> Result<[Vec<u64>; N], Halt> {
        if self.stored_to_tables {
            return Err(Halt::Unforeseeable);
        }
        let bytes = |w: &Wanted| (0..w.size).map(move |n| w.at.wrapping_add(n)).collect::<Vec<_>>();
        let processor = self.now.processor;
        let (mut set, mut may_set, mut exceptions) = (Vec::new(), Vec::new(), Vec::new());
        let physical = all.each_ref().map(|wanted| {
            let mut physical = Vec::new();
            if !bytes(wanted).into_iter().all(|at| processor.is_canonical(at)) {
                exceptions.push(Exception { vector: not_canonical, error: 0, cr2: 0 });
                // Those bytes whose addresses are may have been reached before: data is checked as
                // a whole, code and descriptors may not be.
                let data = wanted.kind != Kind::Fetch && !wanted.implicit;
                if processor.is_canonical(wanted.at) {
                    match self.translate(wanted.at, wanted) {
                        Ok(found) => may_set.extend(found.flags),
                        Err(fault) => {
                            may_set.extend(fault.flags.iter().filter(|_| !data));
                            exceptions.extend((!data).then(|| page_fault(&fault, wanted.at)));
                        }
                    }
                }
                return physical;
            }
            let mut page = None;
            for linear in bytes(wanted) {
                if page.is_some_and(|(page, _)| page == linear >> 12) {
                    let base = page.map_or(0, |(_, base)| base);
                    physical.push(base | linear & 0xfff);
                    continue;
                }
                match self.translate(linear, wanted) {
                    Ok(found) => {
                        physical.push(found.physical);
                        page = Some((linear >> 12, found.physical & !0xfff));
                        set.extend(found.flags);
                    }
                    Err(fault) => {
                        exceptions.push(page_fault(&fault, linear));
                        may_set.extend(fault.flags);
                        page = Some((linear >> 12, 0));
                    }
                }
            }
            physical
        });
        if !exceptions.is_empty() {
            may_set.extend(set);
            return Err(Halt::Faults { exceptions, may_set, rip: None });
        }
        for Flag { entry, bit } in set {
            let byte = entry + u64::from(bit / 8);
            let old = self.now.image.byte(byte);
            self.now.image.put(byte, &[old | 1 << (bit % 8)]);
        }
        Ok(physical)
    }

    fn translate(
        &self,
        linear: u64,
        wanted: &Wanted,
    ) -> Result<super::paging::Translation, PageFault> {
        let access = Access { linear, kind: wanted.kind, implicit: wanted.implicit };
        let image = &self.now.image;
        self.now.processor.translate(access, |at, size| image.get(at, size))
    }

    fn read(&self, physical: &[u64]) -> u128 {
        let bytes = physical.iter().map(|&at| u128::from(self.now.image.byte(at)));
        bytes.rev().fold(0, |value, byte| value << 8 | byte)
    }

    fn store(&mut self, physical: &[u64], value: u128) -> Result<(), Halt> {
        for (&at, byte) in physical.iter().zip(value.to_le_bytes()) {
            if SYSTEM.contains(at) {
                if at < crate::system::layout::MORE_TABLES {
                    return Err(Halt::Unforeseeable);
                }
                self.stored_to_tables = true;
            }
            self.now.image.put(at, &[byte]);
        }
        Ok(())
    }

    /// The low bytes of a data register.
    fn register(&self, register: usize, size: u64) -> u128 {
        if size == 16 {
            let [low, high] = self.now.xmm[register];
            return u128::from(low) | u128::from(high) << 64;
        }
        u128::from(self.now.regs[register]) & ((1 << (8 * size)) - 1)
    }

    fn load(&mut self, register: usize, size: u64, physical: &[u64]) {
        let value = self.read(physical);
        self.set_register(register, size, value);
    }

    /// Writes a data register: four bytes clear the upper half. Vol. 1, 3.4.1.1.
    fn set_register(&mut self, register: usize, size: u64, value: u128) {
        let place = &mut self.now.regs[register];
        let low = value as u64;
        match size {
            1 => *place = *place & !0xff | low,
            2 => *place = *place & !0xffff | low,
            4 | 8 => *place = low,
            _ => self.now.xmm[register] = [low, (value >> 64) as u64],
        }
    }

    fn modify(
        &mut self,
        how: Modify,
        register: usize,
        size: u64,
        physical: &[u64],
    ) -> Result<(), Halt> {
        let (old, operand) = (self.read(physical), self.register(register, size));
        let accumulator = self.register(0, size);
        let new = match how {
            Modify::Add => old + operand & ((1 << (8 * size)) - 1),
            Modify::Exchange => operand,
            Modify::CompareExchange if accumulator == old => operand,
            Modify::CompareExchange => old,
        };
        self.store(physical, new)?;
        match how {
            Modify::Add => {}
            Modify::Exchange => self.set_register(register, size, old),
            // Vol. 2A, CMPXCHG: the accumulator is written only if the two differ.
            Modify::CompareExchange if accumulator == old => {}
            Modify::CompareExchange => self.set_register(0, size, old),
        }
        Ok(())
    }
}
