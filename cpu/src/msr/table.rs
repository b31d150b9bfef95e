//! The table of model-specific registers: number, name, where it lives, what may be written.
//!
//! Intel SDM vol. 4; AMD APM vol. 2, appendix A; BIOS and Kernel Developer's Guide for AMD NPT
//! Family 0Fh Processors (32559), chapter 14. A register that is not here raises #GP.

use crate::model::{Feature, Vendor};
use crate::state::Msrs;

macro_rules! fields {
    (one { $($one:ident $one_name:ident,)* } many { $($many:ident $many_name:ident,)* }) => {
        /// A register, or an array of them, in [`Msrs`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)] // The names are those of `Msrs`.
        pub enum Field {
            $($one,)* $($many,)* McBanks,
        }

        impl Field {
            /// The value; of an array, its element `index`.
            #[must_use]
            pub fn get(self, msrs: &Msrs, index: usize) -> Option<u64> {
                match self {
                    $(Self::$one => Some(msrs.$one_name),)*
                    $(Self::$many => msrs.$many_name.get(index).copied(),)*
                    Self::McBanks => msrs.mc_banks.as_flattened().get(index).copied(),
                }
            }

            /// The place of the value.
            #[must_use]
            pub fn get_mut(self, msrs: &mut Msrs, index: usize) -> Option<&mut u64> {
                match self {
                    $(Self::$one => Some(&mut msrs.$one_name),)*
                    $(Self::$many => msrs.$many_name.get_mut(index),)*
                    Self::McBanks => msrs.mc_banks.as_flattened_mut().get_mut(index),
                }
            }
        }
    };
}

fields! {
    one {
        Star star,
        Lstar lstar,
        Cstar cstar,
        Sfmask sfmask,
        KernelGsBase kernel_gs_base,
        TscAux tsc_aux,
        SysenterCs sysenter_cs,
        SysenterEsp sysenter_esp,
        SysenterEip sysenter_eip,
        Pat pat,
        MtrrDefType mtrr_def_type,
        MiscEnable misc_enable,
        SpecCtrl spec_ctrl,
        Xss xss,
        McgStatus mcg_status,
        McgCtl mcg_ctl,
        UcodeRev ucode_rev,
        DebugCtl debugctl,
        Syscfg syscfg,
        Hwcr hwcr,
        Smbase smbase,
    }
    many {
        MtrrFixed mtrr_fixed,
        MtrrVar mtrr_var,
        TopMem top_mem,
    }
}

/// Where an MSR lives, and so who handles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MsrKind {
    /// In [`Msrs`]: [`super::read`] and [`super::write`] do all there is to do.
    Storage(Field),
    /// Read-only: a write raises #GP.
    Constant(u64),
    /// Always reads so; writes are dropped.
    Fixed(u64),
    /// Write-only, without effect on a CPU that does not speculate: a read raises #GP.
    Command,
    /// IA32_EFER: [`super::write_efer`], and then paging and code mode change.
    Efer,
    /// The base of FS.
    FsBase,
    /// The base of GS.
    GsBase,
    /// The time-stamp counter: [`super::tsc`] and [`super::write_tsc`].
    Tsc,
    /// IA32_TSC_ADJUST: [`super::write_tsc_adjust`].
    TscAdjust,
    /// Of the local APIC: the platform's.
    Platform,
}

/// What a value must be to be written; else #GP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Anything.
    Any,
    /// Nothing is written: the register keeps its value.
    Dropped,
    /// No other bits than these.
    Mask(u64),
    /// A canonical address.
    Canonical,
    /// The upper half is dropped (AMD), or must be zero (Intel).
    Low32,
    /// Eight memory types of the PAT.
    Pat,
    /// IA32_MTRR_DEF_TYPE.
    MtrrDefType,
    /// Eight memory types of a fixed MTRR.
    MtrrFixed,
    /// IA32_MTRR_PHYSBASEn for even numbers, IA32_MTRR_PHYSMASKn for odd ones.
    MtrrVar,
    /// Registers of machine-check banks: a status may be written with zero only, unless
    /// HWCR.McStatusWrEn is set.
    McBank,
}

/// Which CPUs have an MSR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requires {
    /// All.
    Nothing,
    /// Those with one of these features.
    AnyOf(&'static [Feature]),
    /// Those of this vendor.
    Vendor(Vendor),
}

/// A line of the table: an MSR, or several with consecutive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsrInfo {
    /// The first one's number.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The manual's name.
    pub name: &'static str,
    /// Where it lives.
    pub kind: MsrKind,
    /// Index of the first one in the array that it lives in.
    pub index: usize,
    /// What may be written.
    pub check: Check,
    /// Which CPUs have it.
    pub requires: Requires,
}

const fn line(first: u32, name: &'static str, kind: MsrKind, check: Check) -> MsrInfo {
    MsrInfo { first, count: 1, name, kind, index: 0, check, requires: Requires::Nothing }
}

impl MsrInfo {
    const fn times(self, count: u32) -> Self {
        Self { count, ..self }
    }
    const fn at_index(self, index: usize) -> Self {
        Self { index, ..self }
    }
    const fn with(self, features: &'static [Feature]) -> Self {
        Self { requires: Requires::AnyOf(features), ..self }
    }
    const fn of(self, vendor: Vendor) -> Self {
        Self { requires: Requires::Vendor(vendor), ..self }
    }
}

/// Ten machine-check banks, and MCG_CTL.
const MCG_CAP: u64 = 1 << 8 | 10;
/// Eight variable ranges, fixed ranges, write-combining.
const MTRR_CAP: u64 = 1 << 10 | 1 << 8 | 8;
/// RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO,
/// FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO: there is no speculation to go wrong.
const ARCH_CAPABILITIES: u64 = 0b1_0111_1011 | 0b111 << 13 | 1 << 20 | 1 << 24 | 1 << 26 | 1 << 27;
/// LFENCE serialises.
const DE_CFG: u64 = 1 << 1;
/// Errata 0 to 63 of the OS-visible workarounds are told of, and none is present.
const OSVW_LENGTH: u64 = 64;

use self::Field as F;
use self::MsrKind::{Command, Constant, Efer, Fixed, FsBase, GsBase, Platform, Storage, Tsc};
use Check::{Any, Canonical, Dropped, Low32, Mask, McBank};
use Feature as Cpu;
use Vendor::{Amd, Intel};

/// All MSRs, by number.
pub const MSRS: &[MsrInfo] = &[
    line(0x10, "IA32_TIME_STAMP_COUNTER", Tsc, Any).with(&[Cpu::Tsc]),
    line(0x17, "IA32_PLATFORM_ID", Constant(0), Any).of(Intel),
    line(0x1b, "IA32_APIC_BASE", Platform, Any).with(&[Cpu::Apic]),
    line(0x3b, "IA32_TSC_ADJUST", MsrKind::TscAdjust, Any).with(&[Cpu::TscAdjust]),
    line(0x48, "IA32_SPEC_CTRL", Storage(F::SpecCtrl), Mask(7))
        .with(&[Cpu::SpecCtrl, Cpu::AmdIbrs]),
    line(0x49, "IA32_PRED_CMD", Command, Mask(1)).with(&[Cpu::SpecCtrl, Cpu::Ibpb]),
    // An update of the microcode is neither refused nor done.
    line(0x79, "IA32_BIOS_UPDT_TRIG", Fixed(0), Any).of(Intel),
    line(0x8b, "IA32_BIOS_SIGN_ID", Storage(F::UcodeRev), Dropped),
    line(0xfe, "IA32_MTRRCAP", Constant(MTRR_CAP), Any).with(&[Cpu::Mtrr]),
    line(0x10a, "IA32_ARCH_CAPABILITIES", Constant(ARCH_CAPABILITIES), Any)
        .with(&[Cpu::ArchCapabilities]),
    line(0x174, "IA32_SYSENTER_CS", Storage(F::SysenterCs), Low32).with(&[Cpu::Sep]),
    line(0x175, "IA32_SYSENTER_ESP", Storage(F::SysenterEsp), Canonical).with(&[Cpu::Sep]),
    line(0x176, "IA32_SYSENTER_EIP", Storage(F::SysenterEip), Canonical).with(&[Cpu::Sep]),
    line(0x179, "IA32_MCG_CAP", Constant(MCG_CAP), Any).with(&[Cpu::Mca]),
    line(0x17a, "IA32_MCG_STATUS", Storage(F::McgStatus), Mask(7)).with(&[Cpu::Mca]),
    line(0x17b, "IA32_MCG_CTL", Storage(F::McgCtl), Any).with(&[Cpu::Mca]),
    // Fast strings, performance monitoring, PEBS and BTS unavailable, MONITOR, limit of CPUID, NX.
    line(0x1a0, "IA32_MISC_ENABLE", Storage(F::MiscEnable), Mask(0x4_0045_1889)).of(Intel),
    line(0x1d9, "IA32_DEBUGCTL", Storage(F::DebugCtl), Mask(0x3f)),
    line(0x1db, "LAST_BRANCH_AND_EXCEPTION", Constant(0), Any).times(4).of(Amd),
    line(0x200, "IA32_MTRR_PHYS", Storage(F::MtrrVar), Check::MtrrVar).times(16).with(&[Cpu::Mtrr]),
    line(0x250, "IA32_MTRR_FIX64K", Storage(F::MtrrFixed), Check::MtrrFixed).with(&[Cpu::Mtrr]),
    line(0x258, "IA32_MTRR_FIX16K", Storage(F::MtrrFixed), Check::MtrrFixed)
        .times(2)
        .at_index(1)
        .with(&[Cpu::Mtrr]),
    line(0x268, "IA32_MTRR_FIX4K", Storage(F::MtrrFixed), Check::MtrrFixed)
        .times(8)
        .at_index(3)
        .with(&[Cpu::Mtrr]),
    line(0x277, "IA32_PAT", Storage(F::Pat), Check::Pat).with(&[Cpu::Pat]),
    line(0x2ff, "IA32_MTRR_DEF_TYPE", Storage(F::MtrrDefType), Check::MtrrDefType)
        .with(&[Cpu::Mtrr]),
    line(0x400, "IA32_MC", Storage(F::McBanks), McBank).times(40).with(&[Cpu::Mca]),
    line(0x6e0, "IA32_TSC_DEADLINE", Platform, Any).with(&[Cpu::TscDeadline]),
    line(0x800, "X2APIC", Platform, Any).times(0x100).with(&[Cpu::X2apic]),
    line(0xda0, "IA32_XSS", Storage(F::Xss), Mask(0)).with(&[Cpu::Xsaves]),
    line(0xc000_0080, "IA32_EFER", Efer, Any).with(&[Cpu::Syscall, Cpu::Nx, Cpu::Lm, Cpu::Svm]),
    line(0xc000_0081, "IA32_STAR", Storage(F::Star), Any).with(&[Cpu::Syscall]),
    line(0xc000_0082, "IA32_LSTAR", Storage(F::Lstar), Canonical).with(&[Cpu::Lm]),
    line(0xc000_0083, "IA32_CSTAR", Storage(F::Cstar), Canonical).with(&[Cpu::Lm]),
    line(0xc000_0084, "IA32_FMASK", Storage(F::Sfmask), Low32).with(&[Cpu::Lm]),
    line(0xc000_0100, "IA32_FS_BASE", FsBase, Canonical).with(&[Cpu::Lm]),
    line(0xc000_0101, "IA32_GS_BASE", GsBase, Canonical).with(&[Cpu::Lm]),
    line(0xc000_0102, "IA32_KERNEL_GS_BASE", Storage(F::KernelGsBase), Canonical).with(&[Cpu::Lm]),
    line(0xc000_0103, "IA32_TSC_AUX", Storage(F::TscAux), Low32).with(&[Cpu::Rdtscp, Cpu::Rdpid]),
    // Performance events and their counters: none is ever counted, and no event stays selected.
    line(0xc001_0000, "PERF_CTL", Fixed(0), Any).times(4).of(Amd),
    line(0xc001_0004, "PERF_CTR", Fixed(0), Any).times(4).of(Amd),
    line(0xc001_0010, "SYSCFG", Storage(F::Syscfg), Mask(0xffff_ffff)).of(Amd),
    line(0xc001_0015, "HWCR", Storage(F::Hwcr), Mask(0xffff_ffff)).of(Amd),
    line(0xc001_001a, "TOP_MEM", Storage(F::TopMem), Any).of(Amd),
    line(0xc001_001d, "TOP_MEM2", Storage(F::TopMem), Any).at_index(1).of(Amd),
    // The north bridge is not AMD's, so its configuration says nothing.
    line(0xc001_001f, "NB_CFG", Fixed(0), Any).of(Amd),
    line(0xc001_0020, "PATCH_LOADER", Command, Any).of(Amd),
    line(0xc001_0044, "MC_CTL_MASK", Fixed(0), Any).times(10).of(Amd),
    // No C1E: HLT never stops the timer of the local APIC.
    line(0xc001_0055, "INTERRUPT_PENDING", Fixed(0), Any).of(Amd),
    line(0xc001_0111, "SMM_BASE", Storage(F::Smbase), Mask(0xffff_fff0)).of(Amd),
    line(0xc001_0140, "OSVW_ID_LENGTH", Constant(OSVW_LENGTH), Any).with(&[Cpu::Osvw]),
    line(0xc001_0141, "OSVW_STATUS", Constant(0), Any).with(&[Cpu::Osvw]),
    // Later families' registers; kernels set a bit in each before they ask which family it is.
    line(0xc001_1029, "DE_CFG", Fixed(DE_CFG), Any).with(&[Cpu::LfenceRdtsc]),
];
