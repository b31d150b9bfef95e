//! Stacks other than the present one: those that privilege changes go to, and frames of several
//! values of which either all are pushed or none.

use trivium_cpu::bits::cr4;
use trivium_cpu::state::{SS, Segment, SegmentAttributes};
use trivium_cpu::walk::is_canonical;
use trivium_cpu::{Exception, Vector};

use super::descriptor::{Descriptor, Selector, fault};
use crate::cpu::{Cpu, mask_of};
use crate::mem::Rights;
use crate::op::Stop;

/// A stack to push on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stack {
    /// The segment; of no importance if `long`.
    pub segment: Segment,
    /// The stack pointer.
    pub sp: u64,
    /// Its bits.
    pub mask: u64,
    /// Under whose rights the stack is written.
    pub rights: Rights,
    /// The stack of 64-bit code: no segment.
    pub long: bool,
    /// The error code of #SS if there is no room.
    pub code: u32,
}

impl Stack {
    /// The stack in use.
    pub fn present(cpu: &Cpu, ext: u32) -> Self {
        Self {
            segment: cpu.segments.regs[SS],
            sp: cpu.stack_pointer(),
            mask: cpu.stack_mask,
            rights: Rights::Program,
            long: cpu.code64(),
            code: ext,
        }
    }

    /// A stack of a more privileged level.
    pub fn inner(segment: Segment, sp: u64, ext: u32) -> Self {
        let wide = segment.attributes.has(SegmentAttributes::DB);
        let mask = if wide { 0xffff_ffff } else { 0xffff };
        let code = u32::from(segment.selector & !3) | ext;
        Self { segment, sp: sp & mask, mask, rights: Rights::Processor, long: false, code }
    }

    /// A stack of 64-bit code.
    pub fn long(sp: u64, rights: Rights, ext: u32) -> Self {
        Self { segment: NO_SEGMENT, sp, mask: !0, rights, long: true, code: ext }
    }
}

const NO_SEGMENT: Segment =
    Segment { selector: 0, base: 0, limit: 0, attributes: SegmentAttributes(0) };

/// What a null selector makes of a segment register. DPL is kept: that of SS is CPL.
#[must_use]
pub(super) fn null_segment(selector: Selector, dpl: u8) -> Segment {
    let attributes = SegmentAttributes(u16::from(dpl & 3) << 5);
    Segment { selector: selector.0, attributes, ..NO_SEGMENT }
}

/// Whether a data segment has `size` bytes at `offset`. Intel SDM vol. 3A, 5.3.
#[must_use]
pub(super) fn has_room(segment: &Segment, offset: u64, size: u64) -> bool {
    let last = offset + size - 1;
    let limit = u64::from(segment.limit);
    if segment.attributes.has(SegmentAttributes::EXPAND_DOWN)
        && !segment.attributes.has(SegmentAttributes::CODE)
    {
        let wide = segment.attributes.has(SegmentAttributes::DB);
        offset > limit && last <= if wide { 0xffff_ffff } else { 0xffff }
    } else {
        last <= limit
    }
}

impl Cpu {
    /// Whether an address is canonical for the present depth of page tables.
    pub(super) fn canonical(&self, address: u64) -> bool {
        is_canonical(address, self.control.cr4 & cr4::LA57 != 0)
    }

    fn stack_linear(&mut self, stack: &Stack, sp: u64, size: u8) -> Result<u64, Stop> {
        if has_room(&stack.segment, sp, u64::from(size)) {
            return Ok(stack.segment.base.wrapping_add(sp) & 0xffff_ffff);
        }
        Err(self.raise(Exception::with_code(Vector::SS, stack.code)))
    }

    /// Pushes values of `size` bytes each, the first one first; gives the stack pointer after it.
    /// Registers are not changed, and memory only if there is room for all values.
    ///
    /// # Errors
    /// #SS, #PF.
    pub(super) fn push_all(
        &mut self,
        stack: &Stack,
        size: u8,
        values: &[u64],
    ) -> Result<u64, Stop> {
        if stack.long {
            return self.push_all_long(stack, size, values);
        }
        let mut sp = stack.sp;
        for _ in values {
            sp = sp.wrapping_sub(u64::from(size)) & stack.mask;
            let linear = self.stack_linear(stack, sp, size)?;
            self.probe(linear, u64::from(size), true, stack.rights)?;
        }
        let mut sp = stack.sp;
        for value in values {
            sp = sp.wrapping_sub(u64::from(size)) & stack.mask;
            let linear = self.stack_linear(stack, sp, size)?;
            self.push_one(linear, size, *value, stack.rights)?;
        }
        Ok(sp)
    }

    #[inline]
    fn push_one(&mut self, linear: u64, size: u8, value: u64, rights: Rights) -> Result<(), Stop> {
        match size {
            2 => self.store_linear(linear, value as u16, rights),
            4 => self.store_linear(linear, value as u32, rights),
            _ => self.store_linear(linear, value, rights),
        }
    }

    /// The same for 64-bit code, where the frame is in one piece.
    fn push_all_long(&mut self, stack: &Stack, size: u8, values: &[u64]) -> Result<u64, Stop> {
        let len = u64::from(size) * values.len() as u64;
        let bottom = stack.sp.wrapping_sub(len);
        if !self.canonical(bottom) || !self.canonical(stack.sp.wrapping_sub(1)) {
            return Err(self.raise(Exception::with_code(Vector::SS, stack.code)));
        }
        // Each value is aligned for itself.
        let rights = match stack.rights {
            Rights::Program => {
                self.check_alignment(bottom, size.into())?;
                Rights::Unaligned
            }
            rights => rights,
        };
        self.probe(bottom, len, true, rights)?;
        let mut sp = stack.sp;
        for value in values {
            sp = sp.wrapping_sub(u64::from(size));
            self.push_one(sp, size, *value, stack.rights)?;
        }
        Ok(sp)
    }

    /// The 16-bit or 32-bit TSS's stack for a privilege level: its segment, loaded and checked, and
    /// the stack pointer. Intel SDM vol. 3A, 5.8.5 and 6.12.1.
    ///
    /// # Errors
    /// #TS, #SS, #PF.
    pub(super) fn stack_of_tss(&mut self, cpl: u8, ext: u32) -> Result<Stack, Stop> {
        let tr = self.segments.tr;
        let wide = tr.attributes.kind() & 8 != 0;
        let (offset, last) = match wide {
            true => (4 + 8 * u64::from(cpl), 5),
            false => (2 + 4 * u64::from(cpl), 3),
        };
        if offset + last > u64::from(tr.limit) {
            return Err(fault(self, Vector::TS, Selector(tr.selector), ext));
        }
        let address = self.table_address(tr.base, offset);
        let (sp, selector) = if wide {
            let sp = self.load_linear::<u32>(address, Rights::Processor)?;
            (u64::from(sp), self.load_linear::<u16>(address.wrapping_add(4), Rights::Processor)?)
        } else {
            let sp = self.load_linear::<u16>(address, Rights::Processor)?;
            (u64::from(sp), self.load_linear::<u16>(address.wrapping_add(2), Rights::Processor)?)
        };
        let selector = Selector(selector);
        let segment = self.checked_stack(selector, cpl, Vector::TS, ext)?;
        Ok(Stack::inner(segment, sp, ext))
    }

    /// A stack segment for privilege level `cpl`. What is wrong with it raises `invalid`, but #SS
    /// if it is not present.
    ///
    /// # Errors
    /// `invalid`, #SS, #PF.
    pub(super) fn checked_stack(
        &mut self,
        selector: Selector,
        cpl: u8,
        invalid: Vector,
        ext: u32,
    ) -> Result<Segment, Stop> {
        let mut descriptor = self.descriptor_or(selector, invalid, ext)?;
        if !fits_stack(&descriptor, selector, cpl) {
            return Err(fault(self, invalid, selector, ext));
        }
        if !descriptor.present() {
            return Err(fault(self, Vector::SS, selector, ext));
        }
        self.mark_accessed(&mut descriptor)?;
        Ok(descriptor.segment(selector))
    }

    /// A stack pointer of the 64-bit TSS, by its offset there.
    ///
    /// # Errors
    /// #TS, #SS, #PF.
    pub(super) fn rsp_of_tss(&mut self, offset: u64, ext: u32) -> Result<u64, Stop> {
        let tr = self.segments.tr;
        if offset + 7 > u64::from(tr.limit) {
            return Err(fault(self, Vector::TS, Selector(tr.selector), ext));
        }
        let rsp = self.load_linear::<u64>(tr.base.wrapping_add(offset), Rights::Processor)?;
        if !self.canonical(rsp) {
            return Err(self.raise(Exception::with_code(Vector::SS, ext)));
        }
        Ok(rsp)
    }

    /// Sets the stack segment and pointer of a level that is entered. To be called before CPL and
    /// CS change the mode.
    pub(super) fn enter_stack(&mut self, segment: Segment, sp: u64, mask: u64) {
        self.segments.regs[SS] = segment;
        let rsp = &mut self.regs[usize::from(crate::cpu::RSP)];
        *rsp = if mask == mask_of(16) { *rsp & !mask | sp & mask } else { sp & mask };
    }
}

/// Whether a descriptor is one of a stack at privilege level `cpl`, present or not.
fn fits_stack(descriptor: &Descriptor, selector: Selector, cpl: u8) -> bool {
    selector.rpl() == cpl && descriptor.is_writable_data() && descriptor.dpl() == cpl
}
