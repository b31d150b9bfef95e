//! Segment descriptors and gates, and the tables that hold them. Intel SDM vol. 3A, 3.4 and 3.5.

use crate::system::image::Image;

/// A segment descriptor or a gate; of 16 bytes, the lower half. Figures 3-8 and 5-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor(pub u64);

/// Types of system descriptors. Table 3-2.
pub mod system {
    /// Available 16-bit TSS; not in IA-32e mode.
    pub const TSS16: u8 = 1;
    /// LDT.
    pub const LDT: u8 = 2;
    /// Busy 16-bit TSS; not in IA-32e mode.
    pub const BUSY_TSS16: u8 = 3;
    /// 16-bit call gate; not in IA-32e mode.
    pub const CALL_GATE16: u8 = 4;
    /// Task gate; not in IA-32e mode.
    pub const TASK_GATE: u8 = 5;
    /// 16-bit interrupt gate; not in IA-32e mode.
    pub const INTERRUPT_GATE16: u8 = 6;
    /// 16-bit trap gate; not in IA-32e mode.
    pub const TRAP_GATE16: u8 = 7;
    /// Available TSS.
    pub const TSS: u8 = 9;
    /// Busy TSS.
    pub const BUSY_TSS: u8 = 11;
    /// Call gate.
    pub const CALL_GATE: u8 = 12;
    /// Interrupt gate.
    pub const INTERRUPT_GATE: u8 = 14;
    /// Trap gate.
    pub const TRAP_GATE: u8 = 15;
}

/// What a code or data segment is. Table 3-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A system descriptor of this type.
    System(u8),
    /// Data.
    Data {
        /// Writes are allowed.
        writable: bool,
    },
    /// Code.
    Code {
        /// Reads are allowed.
        readable: bool,
        /// It runs at its caller's privilege level.
        conforming: bool,
    },
}

impl Descriptor {
    fn bit(self, number: u32) -> bool {
        self.0 >> number & 1 != 0
    }

    fn field(self, low: u32, width: u32) -> u64 {
        self.0 >> low & ((1 << width) - 1)
    }

    /// What it describes.
    #[must_use]
    pub fn kind(self) -> Kind {
        match (self.bit(44), self.bit(43)) {
            (false, _) => Kind::System(self.field(40, 4) as u8),
            (true, false) => Kind::Data { writable: self.bit(41) },
            (true, true) => Kind::Code { readable: self.bit(41), conforming: self.bit(42) },
        }
    }

    /// DPL.
    #[must_use]
    pub fn dpl(self) -> u8 {
        self.field(45, 2) as u8
    }

    /// P.
    #[must_use]
    pub fn present(self) -> bool {
        self.bit(47)
    }

    /// The accessed bit of code and data.
    #[must_use]
    pub fn accessed(self) -> bool {
        self.bit(40)
    }

    /// L.
    #[must_use]
    pub fn long(self) -> bool {
        self.bit(53)
    }

    /// D/B.
    #[must_use]
    pub fn big(self) -> bool {
        self.bit(54)
    }

    /// The base, but for bits 32 to 63 of system descriptors in IA-32e mode.
    #[must_use]
    pub fn base(self) -> u64 {
        self.field(16, 24) | self.field(56, 8) << 24
    }

    /// The limit in bytes.
    #[must_use]
    pub fn limit(self) -> u32 {
        let limit = (self.field(0, 16) | self.field(48, 4) << 16) as u32;
        if self.bit(55) { limit << 12 | 0xfff } else { limit }
    }

    /// Bits 8 to 23 of the upper double word, without the limit's.
    #[must_use]
    pub fn attributes(self) -> u16 {
        self.field(40, 16) as u16 & 0xf0ff
    }

    /// A gate's selector.
    #[must_use]
    pub fn gate_selector(self) -> u16 {
        self.field(16, 16) as u16
    }

    /// A gate's offset, bits 0 to 31.
    #[must_use]
    pub fn gate_offset(self) -> u64 {
        self.field(0, 16) | self.field(48, 16) << 16
    }

    /// How many parameters a call gate copies.
    #[must_use]
    pub fn gate_parameters(self) -> u64 {
        self.field(32, 5)
    }

    /// The number of the interrupt stack that a gate of IA-32e mode wants; zero is none.
    #[must_use]
    pub fn gate_stack(self) -> u64 {
        self.field(32, 3)
    }
}

/// A segment register: selector and cached descriptor. A null selector has no attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cached {
    /// The selector.
    pub selector: u16,
    /// The base.
    pub base: u64,
    /// The limit in bytes.
    pub limit: u32,
    /// As [`Descriptor::attributes`].
    pub attributes: u16,
}

impl Cached {
    /// From a descriptor.
    #[must_use]
    pub fn new(selector: u16, descriptor: Descriptor) -> Self {
        let (base, limit) = (descriptor.base(), descriptor.limit());
        Self { selector, base, limit, attributes: descriptor.attributes() }
    }

    /// A null selector.
    #[must_use]
    pub fn null(selector: u16) -> Self {
        Self { selector, ..Self::default() }
    }

    /// The cached descriptor, for its fields; the limit's are not in it.
    #[must_use]
    pub fn descriptor(self) -> Descriptor {
        Descriptor(u64::from(self.attributes) << 40)
    }

    /// Whether `size` bytes at an offset are within the limit. Vol. 3A, 5.3.
    #[must_use]
    pub fn within(self, offset: u64, size: u64) -> bool {
        let last = offset + size - 1;
        let limit = u64::from(self.limit);
        let descriptor = self.descriptor();
        let expand_down = matches!(descriptor.kind(), Kind::Data { .. }) && descriptor.bit(42);
        if expand_down {
            let top = if descriptor.big() { 0xffff_ffff } else { 0xffff };
            offset > limit && last <= top
        } else {
            last <= limit
        }
    }
}

/// GDTR, IDTR, or what LDTR and TR cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its linear address.
    pub base: u64,
    /// The offset of its last byte.
    pub limit: u64,
}

impl Table {
    /// The entry of so many bytes at an offset: its address, and its lower half. `None` if it is
    /// outside of the limit.
    #[must_use]
    pub fn entry(&self, offset: u64, size: u64, image: &Image) -> Option<(u64, Descriptor)> {
        let at = self.base + offset;
        (offset + size - 1 <= self.limit).then(|| (at, Descriptor(image.get(at, 8))))
    }
}
