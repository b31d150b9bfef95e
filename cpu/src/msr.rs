//! Model-specific registers: reading and writing those that belong to the CPU.
//!
//! [`find`] tells where an MSR lives. [`read()`] and [`write()`] serve plain ones; those of [`MsrKind`]
//! that mean more than a stored value are the caller's, with helpers here.

mod table;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::bits::{cr0, efer};
use crate::model::{CpuModel, Feature, Vendor};
use crate::state::{Control, Msrs};
use crate::vcpu::MsrFault;
use crate::walk::is_canonical;

pub use table::{Check, Field, MSRS, MsrInfo, MsrKind, Requires};

/// HWCR.McStatusWrEn: machine-check status may be written with anything.
const HWCR_MC_STATUS_WRITE_ENABLE: u64 = 1 << 18;

/// The table's line for an MSR, if the model has it; else the fault, which is logged once.
///
/// # Errors
/// The model has no such MSR.
pub fn find(model: &CpuModel, msr: u32) -> Result<&'static MsrInfo, MsrFault> {
    let after = MSRS.partition_point(|info| info.first <= msr);
    let found = after.checked_sub(1).and_then(|i| MSRS.get(i));
    match found.filter(|info| msr - info.first < info.count && model_has(model, info)) {
        Some(info) => Ok(info),
        None => {
            log_once(msr, found.filter(|info| msr - info.first < info.count));
            Err(MsrFault)
        }
    }
}

fn model_has(model: &CpuModel, info: &MsrInfo) -> bool {
    match info.requires {
        Requires::Nothing => true,
        Requires::AnyOf(features) => features.iter().any(|&f| model.has(f)),
        Requires::Vendor(vendor) => model.vendor == vendor,
    }
}

/// Says once for each MSR that there is none. A guest that tries all numbers is cut short.
#[cold]
fn log_once(msr: u32, known: Option<&MsrInfo>) {
    const MOST: usize = 100;
    static SEEN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.len() < MOST && seen.insert(msr) {
        match known {
            Some(info) => log::debug!("The guest wants MSR {msr:#x} ({}): not there", info.name),
            None => log::debug!("The guest wants MSR {msr:#x}: unknown"),
        }
    }
}

/// Reads an MSR that is plain storage, a constant, or write-only.
///
/// # Errors
/// The model has no such MSR, it cannot be read, or its [`MsrKind`] is for the caller to handle.
pub fn read(msrs: &Msrs, model: &CpuModel, msr: u32) -> Result<u64, MsrFault> {
    let info = find(model, msr)?;
    match info.kind {
        MsrKind::Storage(field) => field.get(msrs, index(info, msr)).ok_or(MsrFault),
        MsrKind::Constant(value) | MsrKind::Fixed(value) => Ok(value),
        _ => Err(MsrFault),
    }
}

/// Writes an MSR that is plain storage, a constant, or write-only.
///
/// # Errors
/// The model has no such MSR, it cannot take the value, or its [`MsrKind`] is for the caller to
/// handle.
pub fn write(msrs: &mut Msrs, model: &CpuModel, msr: u32, value: u64) -> Result<(), MsrFault> {
    let info = find(model, msr)?;
    let value = checked(info, msrs, model, msr, value)?;
    match (info.kind, info.check) {
        (MsrKind::Storage(_), Check::Dropped) | (MsrKind::Fixed(_) | MsrKind::Command, _) => Ok(()),
        (MsrKind::Storage(field), _) => {
            *field.get_mut(msrs, index(info, msr)).ok_or(MsrFault)? = value;
            Ok(())
        }
        _ => Err(MsrFault),
    }
}

/// Where in its array an MSR lives.
fn index(info: &MsrInfo, msr: u32) -> usize {
    info.index + msr.wrapping_sub(info.first) as usize
}

/// The value as it will be stored, if the MSR may take it.
fn checked(
    info: &MsrInfo,
    msrs: &Msrs,
    model: &CpuModel,
    msr: u32,
    value: u64,
) -> Result<u64, MsrFault> {
    let amd = model.vendor == Vendor::Amd;
    let beyond_memory = !0 << model.phys_bits.min(63);
    let good = match info.check {
        Check::Any | Check::Dropped => true,
        Check::Mask(mask) => value & !mask == 0,
        Check::Canonical => is_canonical(value, model.has(Feature::La57)),
        Check::Low32 if amd => return Ok(value & 0xffff_ffff),
        Check::Low32 => value >> 32 == 0,
        Check::Pat => value.to_le_bytes().iter().all(|&t| is_pat_type(t)),
        Check::MtrrDefType => value & !0xcff == 0 && is_mtrr_type(value as u8),
        // AMD's bits 3 and 4 direct the range to memory or elsewhere. APM vol. 2, 7.9.1.
        Check::MtrrFixed => {
            let types = if amd { value & !0x1818_1818_1818_1818 } else { value };
            types.to_le_bytes().iter().all(|&t| is_mtrr_type(t))
        }
        Check::MtrrVar if (msr - info.first).is_multiple_of(2) => {
            value & (0xf00 | beyond_memory) == 0 && is_mtrr_type(value as u8)
        }
        Check::MtrrVar => value & (0x7ff | beyond_memory) == 0,
        Check::McBank => {
            let is_status = (msr - info.first) % 4 == 1;
            let free = amd && msrs.hwcr & HWCR_MC_STATUS_WRITE_ENABLE != 0;
            !is_status || value == 0 || free
        }
    };
    if good { Ok(value) } else { Err(MsrFault) }
}

/// Intel SDM vol. 3A, table 11-8.
fn is_mtrr_type(memory_type: u8) -> bool {
    matches!(memory_type, 0 | 1 | 4 | 5 | 6)
}

/// Intel SDM vol. 3A, table 11-10.
fn is_pat_type(memory_type: u8) -> bool {
    matches!(memory_type, 0 | 1 | 4 | 5 | 6 | 7)
}

/// Whether the bases of FS and GS, and other MSRs that hold addresses, may take this one.
#[must_use]
pub fn takes_address(model: &CpuModel, value: u64) -> bool {
    is_canonical(value, model.has(Feature::La57))
}

/// Writes EFER. LMA is kept as it is, whatever is written (Intel SDM vol. 3A, 2.2.1).
///
/// # Errors
/// A bit is set that the model does not have, or LME is changed while paging is on.
pub fn write_efer(control: &mut Control, model: &CpuModel, value: u64) -> Result<(), MsrFault> {
    let changes_lme = (value ^ control.efer) & efer::LME != 0;
    if value & !model.efer_mask() != 0 || (changes_lme && control.cr0 & cr0::PG != 0) {
        return Err(MsrFault);
    }
    control.efer = value & !efer::LMA | control.efer & efer::LMA;
    Ok(())
}

/// The time-stamp counter that the guest sees, from virtual time's.
#[inline]
#[must_use]
pub fn tsc(msrs: &Msrs, virtual_tsc: u64) -> u64 {
    virtual_tsc.wrapping_add(msrs.tsc_offset)
}

/// Writes the time-stamp counter; IA32_TSC_ADJUST moves by as much (Intel SDM vol. 3B, 18.17.3).
pub fn write_tsc(msrs: &mut Msrs, virtual_tsc: u64, value: u64) {
    let moved = value.wrapping_sub(tsc(msrs, virtual_tsc));
    write_tsc_adjust(msrs, msrs.tsc_adjust.wrapping_add(moved));
}

/// Writes IA32_TSC_ADJUST; the time-stamp counter moves by as much.
pub fn write_tsc_adjust(msrs: &mut Msrs, value: u64) {
    let moved = value.wrapping_sub(msrs.tsc_adjust);
    msrs.tsc_offset = msrs.tsc_offset.wrapping_add(moved);
    msrs.tsc_adjust = value;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn max() -> CpuModel {
        CpuModel::by_name("max").unwrap()
    }

    fn intel() -> CpuModel {
        CpuModel { vendor: Vendor::Intel, ..max() }
    }

    #[test]
    fn the_table_is_in_order_and_no_number_is_there_twice() {
        for pair in MSRS.windows(2) {
            assert!(pair[0].first + pair[0].count <= pair[1].first, "{}", pair[1].name);
        }
        for info in MSRS {
            if let MsrKind::Storage(field) = info.kind {
                let last = info.index + info.count as usize - 1;
                assert!(field.get(&Msrs::default(), last).is_some(), "{}", info.name);
            }
        }
    }

    #[test]
    fn values_that_the_manuals_forbid_raise_gp() {
        let bad = [
            (0x277, 0x0007_0406_0007_0402), // PAT: types 2 and 3 are reserved.
            (0x2ff, 0x1000),
            (0x2ff, 2),
            (0x250, 0x0606_0606_0606_0607),
            (0x200, 0x100),
            (0x200, 1 << 40),
            (0x201, 0x400),
            (0x401, 1), // MC0_STATUS takes zero only.
            (0xc000_0082, 1 << 47),
            (0xc000_0102, 0x8000_0000_0000_0000),
            (0xfe, 0x508),
            (0x179, 0),
            (0xc001_0140, 0),
            (0xdead_beef, 0),
            (0x1a0, 1), // Intel's alone.
        ];
        for (msr, value) in bad {
            let mut msrs = Msrs::default();
            assert_eq!(write(&mut msrs, &max(), msr, value), Err(MsrFault), "{msr:#x}");
            assert_eq!(msrs, Msrs::default(), "{msr:#x}");
        }
    }

    #[test]
    fn values_that_are_good_are_kept() {
        let good = [
            (0x277, 0x0706_0504_0100_0706),
            (0x2ff, 0xc06),
            (0x250, 0x1e1e_1e1e_0606_0606),
            (0x259, 0),
            (0x268, 0x0606_0606_0606_0606),
            (0x26f, 0x0505_0505_0505_0505),
            (0x20e, 0xff_c000_0006),
            (0x20f, 0xff_ffff_f800),
            (0x400, !0),
            (0x427, 5),
            (0x401, 0),
            (0x174, 0x10),
            (0xc000_0081, 0x0023_0010_0000_0000),
            (0xc000_0082, 0xffff_8000_0000_1000),
            (0xc001_0015, 1 << 6),
            (0xc001_001d, 0x1_4000_0000),
        ];
        let mut msrs = Msrs::default();
        for (msr, value) in good {
            assert_eq!(write(&mut msrs, &max(), msr, value), Ok(()), "{msr:#x}");
        }
        for (msr, value) in good {
            assert_eq!(read(&msrs, &max(), msr), Ok(value), "{msr:#x}");
        }
    }

    #[test]
    fn machine_check_status_may_be_written_while_hwcr_says_so() {
        let mut msrs = Msrs { hwcr: 1 << 18, ..Msrs::default() };
        assert_eq!(write(&mut msrs, &max(), 0x401, 1 << 63), Ok(()));
        assert_eq!(write(&mut msrs, &intel(), 0x401, 1 << 63), Err(MsrFault));
    }

    #[test]
    fn an_msr_needs_its_feature() {
        let msrs = Msrs::default();
        let model = CpuModel::by_name("qemu64").unwrap();
        for msr in [0x3b, 0x48, 0x6e0, 0x808, 0xc000_0103, 0xc001_0140, 0xc001_1029] {
            assert_eq!(find(&model, msr), Err(MsrFault), "{msr:#x}");
        }
        assert_eq!(find(&max(), 0x8ff).unwrap().kind, MsrKind::Platform);
        assert_eq!(find(&max(), 0x900), Err(MsrFault));
        assert_eq!(read(&msrs, &intel(), 0x1a0), Ok(1));
        assert_eq!(read(&msrs, &intel(), 0xc001_0010), Err(MsrFault));
    }

    #[test]
    fn the_upper_half_of_tsc_aux_is_dropped_by_amd_and_refused_by_intel() {
        let mut msrs = Msrs::default();
        assert_eq!(write(&mut msrs, &max(), 0xc000_0103, 0x1_0000_0002), Ok(()));
        assert_eq!(msrs.tsc_aux, 2);
        assert_eq!(write(&mut msrs, &intel(), 0xc000_0103, 0x1_0000_0002), Err(MsrFault));
    }

    #[test]
    fn efer_keeps_lma_and_refuses_a_change_of_lme_under_paging() {
        let mut control = Control { efer: efer::LME | efer::LMA, ..Control::default() };
        control.cr0 |= cr0::PG;
        assert_eq!(write_efer(&mut control, &max(), efer::LME | efer::SCE | efer::NXE), Ok(()));
        assert_eq!(control.efer, efer::LME | efer::LMA | efer::SCE | efer::NXE);
        assert_eq!(write_efer(&mut control, &max(), efer::SCE), Err(MsrFault));
        assert_eq!(write_efer(&mut control, &max(), efer::LME | efer::SVME), Err(MsrFault));
        let auto = efer::LME | efer::AUTOIBRS;
        assert_eq!(write_efer(&mut control, &max(), auto), Ok(()));
        let qemu64 = CpuModel::by_name("qemu64").unwrap();
        assert_eq!(write_efer(&mut control, &qemu64, auto), Err(MsrFault));
    }

    #[test]
    fn the_counter_and_its_adjustment_move_together() {
        let mut msrs = Msrs::default();
        write_tsc(&mut msrs, 1000, 400);
        assert_eq!(tsc(&msrs, 1000), 400);
        assert_eq!(msrs.tsc_adjust, 600_u64.wrapping_neg());
        write_tsc_adjust(&mut msrs, 0);
        assert_eq!(tsc(&msrs, 1500), 1500);
    }
}
