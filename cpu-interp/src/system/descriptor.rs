//! Segment selectors and descriptors: what their fields say, and reading them from their tables.
//!
//! Intel SDM vol. 3A, 3.4.2 (selectors), 3.4.5 (descriptors), 3.5 (system descriptors).

use trivium_cpu::state::{Segment, SegmentAttributes};
use trivium_cpu::{Exception, Vector};

use crate::cpu::Cpu;
use crate::mem::{Int, Place, Rights};
use crate::op::Stop;

/// Types of system descriptors. Intel SDM vol. 3A, table 3-2.
pub mod kind {
    #![allow(missing_docs)] // The names are the manual's.
    pub const TSS16: u8 = 1;
    pub const LDT: u8 = 2;
    pub const TSS16_BUSY: u8 = 3;
    pub const CALL_GATE16: u8 = 4;
    pub const TASK_GATE: u8 = 5;
    pub const INTERRUPT_GATE16: u8 = 6;
    pub const TRAP_GATE16: u8 = 7;
    pub const TSS32: u8 = 9;
    pub const TSS32_BUSY: u8 = 11;
    pub const CALL_GATE32: u8 = 12;
    pub const INTERRUPT_GATE32: u8 = 14;
    pub const TRAP_GATE32: u8 = 15;
}

/// A segment selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selector(pub u16);

impl Selector {
    /// The requestor's privilege level.
    #[must_use]
    pub fn rpl(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// The same selector with another requestor's privilege level.
    #[must_use]
    pub fn with_rpl(self, rpl: u8) -> Self {
        Self(self.0 & !3 | u16::from(rpl & 3))
    }

    /// The null selector, whatever its RPL.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 & !3 == 0
    }

    /// As an error code.
    #[must_use]
    pub fn code(self) -> u32 {
        u32::from(self.0 & !3)
    }

    fn is_local(self) -> bool {
        self.0 & 4 != 0
    }
}

/// The first 8 bytes of a descriptor, and where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// The bytes.
    pub raw: u64,
    /// Their linear address.
    pub address: u64,
    /// The selector that chose it.
    pub selector: Selector,
}

impl Descriptor {
    /// Type, S, DPL, P, AVL, L, D/B and G.
    #[must_use]
    pub fn attributes(&self) -> SegmentAttributes {
        SegmentAttributes((self.raw >> 40) as u16 & SegmentAttributes::ALL)
    }

    /// Whether all of these attributes are set.
    #[must_use]
    pub fn has(&self, attributes: u16) -> bool {
        self.attributes().has(attributes)
    }

    /// Base address, bits 0 to 31.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.raw >> 16 & 0xff_ffff | self.raw >> 32 & 0xff00_0000
    }

    /// The limit in bytes.
    #[must_use]
    pub fn limit(&self) -> u32 {
        let limit = (self.raw & 0xffff | self.raw >> 32 & 0xf_0000) as u32;
        if self.has(SegmentAttributes::G) { limit << 12 | 0xfff } else { limit }
    }

    /// The descriptor privilege level.
    #[must_use]
    pub fn dpl(&self) -> u8 {
        self.attributes().dpl()
    }

    /// Present.
    #[must_use]
    pub fn present(&self) -> bool {
        self.has(SegmentAttributes::P)
    }

    /// A code segment.
    #[must_use]
    pub fn is_code(&self) -> bool {
        self.has(SegmentAttributes::S | SegmentAttributes::CODE)
    }

    /// A conforming code segment.
    #[must_use]
    pub fn is_conforming(&self) -> bool {
        self.is_code() && self.has(SegmentAttributes::EXPAND_DOWN)
    }

    /// A data segment that can be written.
    #[must_use]
    pub fn is_writable_data(&self) -> bool {
        self.has(SegmentAttributes::S | SegmentAttributes::WRITABLE) && !self.is_code()
    }

    /// A data segment, or a code segment that can be read.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.has(SegmentAttributes::S) && (!self.is_code() || self.has(SegmentAttributes::WRITABLE))
    }

    /// The type of a system descriptor; `None` for code and data.
    #[must_use]
    pub fn system_kind(&self) -> Option<u8> {
        let attributes = self.attributes();
        (!attributes.has(SegmentAttributes::S)).then(|| attributes.kind())
    }

    /// The offset in a gate, bits 0 to 31.
    #[must_use]
    pub fn gate_offset(&self) -> u64 {
        self.raw & 0xffff | self.raw >> 32 & 0xffff_0000
    }

    /// The selector in a gate.
    #[must_use]
    pub fn gate_selector(&self) -> Selector {
        Selector((self.raw >> 16) as u16)
    }

    /// The segment register's content after a load of this descriptor.
    #[must_use]
    pub fn segment(&self, selector: Selector) -> Segment {
        Segment {
            selector: selector.0,
            base: self.base(),
            limit: self.limit(),
            attributes: self.attributes(),
        }
    }
}

/// An exception that names a selector; `ext` is 1 if an event external to the program led to it.
pub fn fault(cpu: &mut Cpu, vector: Vector, selector: Selector, ext: u32) -> Stop {
    cpu.raise(Exception::with_code(vector, selector.code() | ext))
}

impl Cpu {
    /// A linear address in a table: 32 bits of it outside long mode.
    pub(super) fn table_address(&self, base: u64, offset: u64) -> u64 {
        let address = base.wrapping_add(offset);
        if self.long_mode() { address } else { address & 0xffff_ffff }
    }

    /// The descriptor that a selector chooses; `None` beyond the end of the table.
    ///
    /// # Errors
    /// #PF.
    pub fn descriptor(&mut self, selector: Selector) -> Result<Option<Descriptor>, Stop> {
        let (base, limit) = if selector.is_local() {
            let ldtr = &self.segments.ldtr;
            if !ldtr.attributes.has(SegmentAttributes::P) {
                return Ok(None);
            }
            (ldtr.base, ldtr.limit)
        } else {
            (self.segments.gdtr.base, u32::from(self.segments.gdtr.limit))
        };
        let offset = u32::from(selector.0 & !7);
        if offset + 7 > limit {
            return Ok(None);
        }
        let address = self.table_address(base, u64::from(offset));
        let raw = self.load_linear::<u64>(address, Rights::Processor)?;
        Ok(Some(Descriptor { raw, address, selector }))
    }

    /// The same; beyond the end of the table, and for a null selector, `vector` is raised.
    ///
    /// # Errors
    /// `vector`, #PF.
    pub(super) fn descriptor_or(
        &mut self,
        selector: Selector,
        vector: Vector,
        ext: u32,
    ) -> Result<Descriptor, Stop> {
        if !selector.is_null()
            && let Some(descriptor) = self.descriptor(selector)?
        {
            return Ok(descriptor);
        }
        Err(fault(self, vector, selector, ext))
    }

    /// The upper 8 bytes of a system descriptor in long mode: bits 32 to 63 of base or offset.
    /// They must be inside the table and of type 0.
    ///
    /// # Errors
    /// `vector`, #PF.
    pub(super) fn upper_half(
        &mut self,
        descriptor: &Descriptor,
        vector: Vector,
    ) -> Result<u64, Stop> {
        let selector = descriptor.selector;
        let next = Selector((selector.0 & !3).wrapping_add(8));
        let upper = match self.descriptor(Selector(next.0 | selector.0 & 4))? {
            Some(upper) if next.0 >= 8 && upper.raw >> 40 & 0x1f == 0 => upper,
            _ => return Err(fault(self, vector, selector, 0)),
        };
        Ok(upper.raw << 32)
    }

    /// Sets the accessed bit of a code or data descriptor in its table.
    ///
    /// # Errors
    /// #PF.
    pub(super) fn mark_accessed(&mut self, descriptor: &mut Descriptor) -> Result<(), Stop> {
        self.set_type_bit(descriptor, SegmentAttributes::ACCESSED)
    }

    /// Sets a bit of a descriptor's type field, with a locked access, if it is not set.
    ///
    /// # Errors
    /// #PF.
    pub(super) fn set_type_bit(
        &mut self,
        descriptor: &mut Descriptor,
        bit: u16,
    ) -> Result<(), Stop> {
        if descriptor.has(bit) {
            return Ok(());
        }
        let address = self.table_address(descriptor.address, 5);
        self.change_byte(address, |byte| byte | bit as u8)?;
        descriptor.raw |= u64::from(bit) << 40;
        Ok(())
    }

    /// Changes a byte of a table with a locked access.
    ///
    /// # Errors
    /// #PF.
    pub(super) fn change_byte(
        &mut self,
        address: u64,
        change: impl Fn(u8) -> u8,
    ) -> Result<(), Stop> {
        let place = self.translate(address, true, Rights::Processor)?;
        let Place::Ram(offset) = place else {
            let seen = self.load_linear::<u8>(address, Rights::Processor)?;
            self.store_place(place, change(seen));
            return Ok(());
        };
        let mut seen = self.ram.load::<u8>(offset);
        loop {
            let found = u8::compare_exchange(self, offset, seen, change(seen));
            if found == seen {
                break;
            }
            seen = found;
        }
        self.memory.dirty().mark(offset, 1);
        self.note_code_write(offset, 1);
        Ok(())
    }
}
