//! The whole architectural state of a CPU, in named elements.
//!
//! [`ELEMENTS`] lists them with whether two CPUs may be compared by them; `Default` is the state
//! after RESET# (Intel SDM vol. 3A, table 9-1).

mod elements;

use serde::{Deserialize, Serialize};

use crate::bits::{cr0, debug, rflags};
use crate::model::{CpuModel, Vendor};

pub use elements::{Difference, ELEMENTS, Element};

/// The general registers, by their number in instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct General {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub regs: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
}

impl Default for General {
    fn default() -> Self {
        let mut regs = [0; 16];
        regs[2] = 0x600; // EDX: family 6, model and stepping 0; a CPU model puts its own here.
        Self { regs, rip: 0xfff0, rflags: rflags::FIXED }
    }
}

/// Attributes of a segment as in bits 8 to 23 of a descriptor's second double word: type (0-3),
/// S (4), DPL (5-6), P (7), AVL (12), L (13), D/B (14), G (15). Intel SDM vol. 3A, 3.4.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SegmentAttributes(pub u16);

impl SegmentAttributes {
    /// Accessed (code and data segments).
    pub const ACCESSED: u16 = 1 << 0;
    /// Writable (data) or readable (code).
    pub const WRITABLE: u16 = 1 << 1;
    /// Expand-down (data) or conforming (code).
    pub const EXPAND_DOWN: u16 = 1 << 2;
    /// A code segment.
    pub const CODE: u16 = 1 << 3;
    /// A code or data segment, not a system one.
    pub const S: u16 = 1 << 4;
    /// Present.
    pub const P: u16 = 1 << 7;
    /// 64-bit code.
    pub const L: u16 = 1 << 13;
    /// 32-bit code or stack.
    pub const DB: u16 = 1 << 14;
    /// The limit counts pages.
    pub const G: u16 = 1 << 15;
    /// All bits that exist.
    pub const ALL: u16 = 0xf0ff;

    /// The type field, 0 to 15.
    #[must_use]
    pub fn kind(self) -> u8 {
        (self.0 & 15) as u8
    }
    /// The descriptor privilege level.
    #[must_use]
    pub fn dpl(self) -> u8 {
        ((self.0 >> 5) & 3) as u8
    }
    /// Whether `bits` are all set.
    #[inline(always)]
    #[must_use]
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }
}

/// A segment register with its cached descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The visible part.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity already applied.
    pub limit: u32,
    /// Attributes; not present (P = 0) for a null selector.
    pub attributes: SegmentAttributes,
}

impl Segment {
    /// A real-mode data segment at `selector * 16`.
    #[must_use]
    pub const fn real_mode(selector: u16) -> Self {
        Self {
            selector,
            base: (selector as u64) << 4,
            limit: 0xffff,
            attributes: SegmentAttributes(0x93),
        }
    }
}

/// The segment registers by their number in instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segments {
    /// ES, CS, SS, DS, FS, GS.
    pub regs: [Segment; 6],
    /// The local descriptor table.
    pub ldtr: Segment,
    /// The task register.
    pub tr: Segment,
    /// The global descriptor table.
    pub gdtr: TableRegister,
    /// The interrupt descriptor table.
    pub idtr: TableRegister,
    /// The current privilege level.
    pub cpl: u8,
}

/// Number of ES in [`Segments::regs`].
pub const ES: usize = 0;
/// Number of CS.
pub const CS: usize = 1;
/// Number of SS.
pub const SS: usize = 2;
/// Number of DS.
pub const DS: usize = 3;
/// Number of FS.
pub const FS: usize = 4;
/// Number of GS.
pub const GS: usize = 5;

impl Default for Segments {
    fn default() -> Self {
        let mut regs = [Segment::real_mode(0); 6];
        regs[CS] = Segment {
            selector: 0xf000,
            base: 0xffff_0000,
            limit: 0xffff,
            attributes: SegmentAttributes(0x9b),
        };
        let system = |kind| Segment {
            selector: 0,
            base: 0,
            limit: 0xffff,
            attributes: SegmentAttributes(SegmentAttributes::P | kind),
        };
        let table = TableRegister { base: 0, limit: 0xffff };
        Self { regs, ldtr: system(2), tr: system(11), gdtr: table, idtr: table, cpl: 0 }
    }
}

/// GDTR or IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// Control registers. CR8 is the local APIC's task priority, which the platform keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// XCR0.
    pub xcr0: u64,
    /// PKRU.
    pub pkru: u32,
    /// The four page-directory-pointer registers of PAE paging.
    pub pdptr: [u64; 4],
}

impl Default for Control {
    fn default() -> Self {
        Self {
            cr0: cr0::CD | cr0::NW | cr0::ET,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            xcr0: 1,
            pkru: 0,
            pdptr: [0; 4],
        }
    }
}

/// Debug registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debug {
    /// DR0 to DR3.
    pub address: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
}

impl Default for Debug {
    fn default() -> Self {
        Self { address: [0; 4], dr6: debug::DR6_FIXED, dr7: debug::DR7_FIXED }
    }
}

/// Model-specific registers that belong to the CPU. Those of the local APIC and of time belong to
/// the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The names are the manuals'.
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub tsc_aux: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub mtrr_def_type: u64,
    pub mtrr_fixed: [u64; 11],
    pub mtrr_var: [u64; 16],
    pub misc_enable: u64,
    pub spec_ctrl: u64,
    pub xss: u64,
    /// Added to virtual time's TSC by guest writes to IA32_TIME_STAMP_COUNTER, and its mirror
    /// IA32_TSC_ADJUST.
    pub tsc_offset: u64,
    pub tsc_adjust: u64,
    pub mcg_status: u64,
    pub mcg_ctl: u64,
    /// CTL, STATUS, ADDR and MISC of each machine-check bank.
    pub mc_banks: [[u64; 4]; 10],
    pub ucode_rev: u64,
    pub debugctl: u64,
    pub syscfg: u64,
    pub hwcr: u64,
    /// Where SMRAM begins, in which an SMI saves the state. Intel SDM vol. 3C, 32.11.
    pub smbase: u64,
    /// TOP_MEM and TOP_MEM2.
    pub top_mem: [u64; 2],
}

impl Default for Msrs {
    fn default() -> Self {
        Self {
            star: 0,
            lstar: 0,
            cstar: 0,
            sfmask: 0,
            kernel_gs_base: 0,
            tsc_aux: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            pat: 0x0007_0406_0007_0406,
            mtrr_def_type: 0,
            mtrr_fixed: [0; 11],
            mtrr_var: [0; 16],
            misc_enable: 1,
            spec_ctrl: 0,
            xss: 0,
            tsc_offset: 0,
            tsc_adjust: 0,
            mcg_status: 0,
            mcg_ctl: 0,
            mc_banks: [[0; 4]; 10],
            ucode_rev: 0,
            debugctl: 0,
            syscfg: 0,
            hwcr: 0,
            smbase: 0x3_0000,
            top_mem: [0; 2],
        }
    }
}

/// An 80-bit register of the x87 unit, also an MMX register by its mantissa.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct X87Register {
    /// Bits 0 to 63.
    pub mantissa: u64,
    /// Bits 64 to 79.
    pub sign_exponent: u16,
}

/// The x87 unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct X87 {
    /// The eight physical registers (not relative to TOP).
    pub regs: [X87Register; 8],
    /// Control word.
    pub control: u16,
    /// Status word, TOP included.
    pub status: u16,
    /// Tag word in full form: two bits a physical register.
    pub tags: u16,
    /// Last instruction's opcode, 11 bits.
    pub last_opcode: u16,
    /// Last instruction's address.
    pub last_ip: u64,
    /// Last instruction's code selector.
    pub last_cs: u16,
    /// Last operand's address.
    pub last_dp: u64,
    /// Last operand's selector.
    pub last_ds: u16,
}

impl Default for X87 {
    fn default() -> Self {
        Self {
            regs: [X87Register::default(); 8],
            control: 0x40,
            status: 0,
            tags: 0x5555,
            last_opcode: 0,
            last_ip: 0,
            last_cs: 0,
            last_dp: 0,
            last_ds: 0,
        }
    }
}

/// Vector registers and MXCSR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vector {
    /// YMM0 to YMM15, as four 64-bit parts, lowest first.
    pub regs: [[u64; 4]; 16],
    /// MXCSR.
    pub mxcsr: u32,
}

impl Default for Vector {
    fn default() -> Self {
        Self { regs: [[0; 4]; 16], mxcsr: 0x1f80 }
    }
}

/// What the CPU is about to do apart from the next instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Events {
    /// What the CPU is doing.
    pub activity: Activity,
    /// STI or MOV SS was just executed: interrupts wait for one instruction.
    pub interrupt_shadow: bool,
    /// It was MOV SS or POP SS: debug exceptions wait too. Intel SDM vol. 3A, 6.8.3.
    pub debug_shadow: bool,
    /// Debug traps that are still to be delivered, as bits of DR6.
    pub pending_debug: u64,
    /// An SMI waits.
    pub smi_pending: bool,
    /// NMIs are blocked until IRET.
    pub nmi_masked: bool,
    /// An NMI waits.
    pub nmi_pending: bool,
    /// In system-management mode.
    pub smm: bool,
    /// A vector whose delivery was begun and must be done before the next instruction.
    pub injected: Option<Injected>,
}

/// An event whose delivery was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// Its vector.
    pub vector: u8,
    /// Its error code, if it pushes one.
    pub error_code: Option<u32>,
    /// Whether a software interrupt instruction raised it, of this length in bytes.
    pub software_length: Option<u8>,
}

/// What a CPU is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Activity {
    /// Executing.
    #[default]
    Running,
    /// HLT was executed: waits for an interrupt.
    Halted,
    /// After INIT: waits for a start-up IPI.
    WaitForSipi,
    /// After a triple fault.
    Shutdown,
}

/// What a CPU keeps from one instruction to another that no program can read. Kinds of CPU may differ
/// in it, and one that does not know of it may start without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Latent {
    /// FERR# is asserted: an instruction has met an unmasked x87 error while CR0.NE was clear.
    pub ferr: bool,
    /// What MONITOR has set up. If [`Activity::Halted`] is an MWAIT, this says for what it waits.
    pub monitor: Option<Monitored>,
}

/// A line of memory that MONITOR watches. Intel SDM vol. 3A, 9.10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitored {
    /// Where it is in RAM: offset in the arena, in bytes.
    pub offset: u64,
    /// What it held when it was first watched.
    pub content: [u64; 8],
    /// MWAIT waits. A CPU that cannot wait so may go on as if there had been a store.
    pub waits: bool,
    /// Masked interrupts end the wait too.
    pub masked_too: bool,
}

/// The whole architectural state of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CpuState {
    /// General registers, RIP, RFLAGS.
    pub general: General,
    /// Segment registers, descriptor tables, privilege level.
    pub segments: Segments,
    /// Control registers.
    pub control: Control,
    /// Debug registers.
    pub debug: Debug,
    /// Model-specific registers.
    pub msrs: Msrs,
    /// x87 and MMX.
    pub x87: X87,
    /// SSE and AVX.
    pub vector: Vector,
    /// Pending events.
    pub events: Events,
    /// What no program can read.
    pub latent: Latent,
}

impl CpuState {
    /// The state of a CPU of this model after RESET#: as `Default`, and who it is.
    #[must_use]
    pub fn reset(model: &CpuModel) -> Self {
        let mut state = Self::default();
        state.general.regs[2] = u64::from(model.signature());
        state.msrs.ucode_rev = match model.vendor {
            // Nothing to update: revisions that both vendors' tools take for loaded.
            Vendor::Intel => 1 << 32,
            Vendor::Amd => 0x0100_0065,
        };
        state
    }

    /// The state after INIT# of a CPU of this model; `first` says whether it is the bootstrap
    /// processor, which runs on. Intel SDM vol. 3A, table 10-1.
    #[must_use]
    pub fn after_init(&self, model: &CpuModel, first: bool) -> Self {
        let latent = Latent { monitor: None, ..self.latent };
        let Self { msrs, x87, vector, .. } = *self;
        let mut state = Self { msrs, x87, vector, latent, ..Self::reset(model) };
        state.control.cr0 = cr0::ET | self.control.cr0 & (cr0::CD | cr0::NW);
        state.control.xcr0 = self.control.xcr0;
        state.control.pkru = self.control.pkru;
        state.events.activity = if first { Activity::Running } else { Activity::WaitForSipi };
        state
    }

    /// A start-up IPI: real mode at `vector << 12`. Intel SDM vol. 3A, 9.4.4.
    pub fn start_up(&mut self, vector: u8) {
        let selector = u16::from(vector) << 8;
        let cs = &mut self.segments.regs[CS];
        *cs = Segment { selector, base: u64::from(selector) << 4, ..*cs };
        self.general.rip = 0;
        self.events.activity = Activity::Running;
    }
}
