//! The local APIC's registers and their bits. Intel SDM vol. 3A, tables 11-1 and 11-6.

use bitflags::bitflags;

use super::LapicConfig;

/// Indices of registers: in xAPIC mode at 16 times the index in the page, in x2APIC mode MSR
/// 800h plus the index.
pub mod index {
    pub const ID: u8 = 0x02;
    pub const VERSION: u8 = 0x03;
    pub const TPR: u8 = 0x08;
    pub const APR: u8 = 0x09;
    pub const PPR: u8 = 0x0a;
    pub const EOI: u8 = 0x0b;
    pub const RRD: u8 = 0x0c;
    pub const LDR: u8 = 0x0d;
    pub const DFR: u8 = 0x0e;
    pub const SVR: u8 = 0x0f;
    pub const ISR: u8 = 0x10;
    pub const ISR_END: u8 = 0x17;
    pub const TMR: u8 = 0x18;
    pub const TMR_END: u8 = 0x1f;
    pub const IRR: u8 = 0x20;
    pub const IRR_END: u8 = 0x27;
    pub const ESR: u8 = 0x28;
    pub const ICR_LOW: u8 = 0x30;
    pub const ICR_HIGH: u8 = 0x31;
    pub const LVT_TIMER: u8 = 0x32;
    pub const LVT_THERMAL: u8 = 0x33;
    pub const LVT_PERFORMANCE: u8 = 0x34;
    pub const LVT_LINT0: u8 = 0x35;
    pub const LVT_LINT1: u8 = 0x36;
    pub const LVT_ERROR: u8 = 0x37;
    pub const INITIAL_COUNT: u8 = 0x38;
    pub const CURRENT_COUNT: u8 = 0x39;
    pub const DIVIDE_CONFIGURATION: u8 = 0x3e;
    pub const SELF_IPI: u8 = 0x3f;
}

/// IA32_APIC_BASE.
pub const MSR_APIC_BASE: u32 = 0x1b;
/// IA32_TSC_DEADLINE.
pub const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// The MSRs of x2APIC mode.
pub const MSR_X2APIC: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// Where the page of registers is after reset.
pub const DEFAULT_BASE: u64 = 0xfee0_0000;

/// Number of entries of the local vector table.
pub const LVT_ENTRIES: usize = 6;

/// Version register: EOI broadcasts can be suppressed.
const VERSION_SUPPRESSES_EOI: u32 = 1 << 24;

/// Which processors' local APIC it is. Intel SDM vol. 3A, 11.4.8, 11.5.1 and 11.6.2.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApicGeneration {
    /// The Pentium's: no performance counters and no thermal sensor interrupt by it.
    Pentium,
    /// The P6 family's: no thermal sensor.
    P6,
    /// The xAPIC, since the Pentium 4.
    #[default]
    Xapic,
}

impl ApicGeneration {
    /// The generation of a processor of a family and model, as CPUID has them.
    #[must_use]
    pub fn of(family: u16, model: u8) -> Self {
        match (family, model) {
            (..=5, _) => Self::Pentium,
            // The Pentium M is the first of this family with an xAPIC.
            (6, ..0x0d) if model != 0x09 => Self::P6,
            _ => Self::Xapic,
        }
    }

    /// The version register: the version, and the number of the last LVT entry.
    pub fn version(self) -> u32 {
        match self {
            Self::Pentium => 0x10 | 3 << 16,
            Self::P6 => 0x11 | 4 << 16,
            Self::Xapic => 0x14 | (LVT_ENTRIES as u32 - 1) << 16 | VERSION_SUPPRESSES_EOI,
        }
    }

    /// Whether there is an LVT entry.
    pub fn has(self, entry: Lvt) -> bool {
        match entry {
            Lvt::Thermal => self == Self::Xapic,
            Lvt::Performance => self != Self::Pentium,
            _ => true,
        }
    }
}

bitflags! {
    /// IA32_APIC_BASE without the address.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ApicBase: u64 {
        /// The processor is the bootstrap processor.
        const BSP = 1 << 8;
        /// x2APIC mode.
        const EXTD = 1 << 10;
        /// The APIC is there.
        const EN = 1 << 11;
    }
}

impl ApicBase {
    /// What power-up and RESET# leave.
    pub fn at_reset(config: &LapicConfig) -> Self {
        let mut flags = Self::empty();
        flags.set(Self::EN, config.present);
        flags.set(Self::BSP, config.bootstrap);
        flags
    }
}

bitflags! {
    /// SVR, the spurious-interrupt vector register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Svr: u32 {
        const VECTOR = 0xff;
        /// The APIC is enabled by software.
        const ENABLE = 1 << 8;
        /// Focus processor checking is off. It never is on: priority alone chooses.
        const FOCUS_CHECKING = 1 << 9;
        /// EOI does not tell the I/O APICs.
        const SUPPRESS_EOI_BROADCAST = 1 << 12;
    }
}

impl Svr {
    pub const RESET: Self = Self::VECTOR;
}

bitflags! {
    /// ESR, the error status register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Esr: u32 {
        /// An interprocessor interrupt with a vector below 16 was to be sent.
        const SEND_ILLEGAL_VECTOR = 1 << 5;
        /// An interrupt with a vector below 16 came in, or from the local vector table.
        const RECEIVE_ILLEGAL_VECTOR = 1 << 6;
        /// A register that does not exist was accessed (xAPIC mode only).
        const ILLEGAL_REGISTER_ADDRESS = 1 << 7;
    }
}

bitflags! {
    /// An entry of the local vector table.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct LvtEntry: u32 {
        const VECTOR = 0xff;
        const DELIVERY_MODE = 7 << 8;
        /// LINT inputs: active low. Without effect: lines carry assertion, not voltage.
        const ACTIVE_LOW = 1 << 13;
        /// LINT0: a level-triggered interrupt is being served. Read only.
        const REMOTE_IRR = 1 << 14;
        /// LINT0: level-triggered.
        const LEVEL = 1 << 15;
        const MASKED = 1 << 16;
        /// Timer: mode.
        const TIMER_MODE = 3 << 17;
    }
}

impl LvtEntry {
    pub const RESET: Self = Self::MASKED;
    /// Timer and error entries.
    const PLAIN: Self = Self::VECTOR.union(Self::MASKED);
    const WITH_MODE: Self = Self::PLAIN.union(Self::DELIVERY_MODE);
    const WITH_TRIGGER: Self = Self::WITH_MODE.union(Self::ACTIVE_LOW).union(Self::LEVEL);

    pub fn vector(self) -> u8 {
        (self & Self::VECTOR).bits() as u8
    }
}

/// The entries of the local vector table, in the order of their registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lvt {
    Timer,
    Thermal,
    Performance,
    Lint0,
    Lint1,
    Error,
}

impl Lvt {
    /// The entry of a register.
    pub fn from_index(register: u8) -> Option<Self> {
        Some(match register {
            index::LVT_TIMER => Self::Timer,
            index::LVT_THERMAL => Self::Thermal,
            index::LVT_PERFORMANCE => Self::Performance,
            index::LVT_LINT0 => Self::Lint0,
            index::LVT_LINT1 => Self::Lint1,
            index::LVT_ERROR => Self::Error,
            _ => return None,
        })
    }

    /// The bits that software may write.
    pub fn writable(self) -> LvtEntry {
        match self {
            Self::Timer => LvtEntry::PLAIN | LvtEntry::TIMER_MODE,
            Self::Thermal | Self::Performance => LvtEntry::WITH_MODE,
            Self::Lint0 | Self::Lint1 => LvtEntry::WITH_TRIGGER,
            Self::Error => LvtEntry::PLAIN,
        }
    }
}

bitflags! {
    /// The low half of ICR, the interrupt command register. Delivery status always reads zero:
    /// messages leave at once.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Icr: u32 {
        const VECTOR = 0xff;
        const DELIVERY_MODE = 7 << 8;
        const LOGICAL = 1 << 11;
        const ASSERT = 1 << 14;
        const LEVEL = 1 << 15;
        const SHORTHAND = 3 << 18;
    }
}

bitflags! {
    /// What a local APIC asks of its processor besides the interrupts of IRR.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Requests: u8 {
        /// A non-maskable interrupt.
        const NMI = 1 << 0;
        /// A system management interrupt.
        const SMI = 1 << 1;
        /// INIT.
        const INIT = 1 << 2;
        /// A start-up message.
        const STARTUP = 1 << 3;
        /// The interrupt of the 8259A.
        const EXTINT = 1 << 4;
    }
}
