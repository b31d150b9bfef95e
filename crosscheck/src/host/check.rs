//! Which cases this host cannot run.

use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use trivium_cpu::model::Vendor;

use super::xsave::Xsave;
use crate::case::{Case, LdtEntry, Width};
use crate::layout::{self, LDT_ENTRIES, selector};

/// What the host grants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grants {
    /// Entries of a local descriptor table.
    pub ldt: bool,
    /// 16-bit ones too.
    pub ldt16: bool,
    /// 32-bit code at all.
    pub bits32: bool,
}

/// RFLAGS that a case may choose: all of user code's.
const FLAGS: u64 = 0x25_4dd5;

type Reason = Option<&'static str>;

/// Why a case cannot be run.
pub(super) fn refuses(case: &Case, grants: Grants, xsave: &Xsave, vendor: Vendor) -> Reason {
    granted(case, grants)
        .or_else(|| bytes(case))
        .or_else(|| code_segment(case))
        .or_else(|| data_segments(case))
        .or_else(|| registers(case, xsave))
        .or_else(|| system_call(case, vendor))
}

fn granted(case: &Case, grants: Grants) -> Reason {
    let entries = || case.ldt.iter().flatten();
    if case.width != Width::Bits64 && !grants.bits32 {
        return Some("this kernel runs no 32-bit code");
    }
    if !grants.ldt && entries().next().is_some() {
        return Some("this kernel grants no local descriptor table");
    }
    if !grants.ldt16 && entries().any(|e| !e.big) {
        return Some("this kernel grants no 16-bit segments");
    }
    if case.ldt.len() > LDT_ENTRIES || entries().any(|e| e.limit >> 20 != 0) {
        return Some("its local descriptor table is too large");
    }
    let conforming = |e: &LdtEntry| e.code && e.expand_down && e.present;
    entries().any(conforming).then_some("Linux grants no conforming segments")
}

fn bytes(case: &Case) -> Reason {
    let inside = |(address, bytes): (u64, &[u8])| {
        bytes.is_empty()
            || layout::region_of(address)
                .is_some_and(|r| bytes.len() as u64 <= r.end().saturating_sub(address))
    };
    (!case.patches().all(inside)).then_some("its memory lies outside of the regions")
}

/// The entry of the case's table that a selector selects.
fn local(case: &Case, selector: u16) -> Option<LdtEntry> {
    let entry = case.ldt.get(usize::from(selector >> 3)).copied().flatten();
    entry.filter(|e| selector & 4 != 0 && e.present)
}

/// The base of the code segment that a selector selects.
pub(super) fn code_base(case: &Case, selector: u16) -> u64 {
    local(case, selector).map_or(0, |e| u64::from(e.base))
}

fn code_segment(case: &Case) -> Reason {
    let s = &case.state;
    let cs = s.selectors[1];
    let good = match case.width {
        Width::Bits64 => cs == selector::CODE64,
        width => {
            let flat = cs == selector::CODE32 && width == Width::Bits32;
            let big = width == Width::Bits32;
            flat || cs & 3 == 3 && local(case, cs).is_some_and(|e| e.code && e.big == big)
        }
    };
    if !good {
        return Some("its CS does not select code of its width");
    }
    let reachable = match (case.width, local(case, cs)) {
        (Width::Bits64, _) => is_canonical(s.rip),
        (_, Some(entry)) => s.rip <= last_offset(&entry),
        (_, None) => s.rip >> 32 == 0,
    };
    (!reachable).then_some("its RIP cannot be entered")
}

/// The last offset of a segment that does not expand down.
fn last_offset(entry: &LdtEntry) -> u64 {
    let limit = u64::from(entry.limit);
    if entry.pages { limit << 12 | 0xfff } else { limit }
}

fn data_segments(case: &Case) -> Reason {
    let [es, _, ss, ds, fs, gs] = case.state.selectors;
    let stack =
        ss == selector::DATA || ss & 3 == 3 && local(case, ss).is_some_and(|e| !e.code && e.open);
    if !stack {
        return Some("its SS does not select writable data");
    }
    let loadable = |s: u16| {
        let flat = [selector::CODE32, selector::DATA, selector::CODE64];
        s == 0 || flat.contains(&s) || local(case, s).is_some_and(|e| !e.code || e.open)
    };
    if (1..4).any(|null| [es, ds, fs, gs].contains(&null)) {
        return Some("an interrupt clears the privilege level of null selectors");
    }
    let all = [es, ds, fs, gs].into_iter().all(loadable);
    (!all).then_some("a segment register cannot be loaded with its selector")
}

fn registers(case: &Case, xsave: &Xsave) -> Reason {
    let s = &case.state;
    if s.rflags & !FLAGS != 0x202 {
        return Some("its RFLAGS are not those of user code");
    }
    if s.mxcsr & !xsave.mxcsr_mask != 0 {
        return Some("its MXCSR has bits that do not exist");
    }
    if !is_canonical(s.fs_base) || !is_canonical(s.gs_base) {
        return Some("its FS or GS base is not canonical");
    }
    let beyond = |from: usize| s.zmm.iter().any(|z| z[from..].iter().any(|&w| w != 0));
    if !xsave.has_avx() && beyond(2) {
        return Some("this processor has no AVX");
    }
    if !xsave.has_avx512() {
        let high = s.zmm[16..].iter().flatten().any(|&w| w != 0);
        if high || beyond(4) || s.opmask.iter().any(|&k| k != 0) {
            return Some("this processor has no AVX-512");
        }
    }
    None
}

/// SYSCALL and SYSENTER end somewhere else, but for SYSCALL of 64-bit code; where SYSENTER does
/// not exist it is just #UD.
fn system_call(case: &Case, vendor: Vendor) -> Reason {
    let suspect = case.code.windows(2).any(|w| w == [0x0f, 0x05] || w == [0x0f, 0x34]);
    if !suspect {
        return None;
    }
    let mut decoder = Decoder::new(case.width.bits(), &case.code, DecoderOptions::NONE);
    let leaves = decoder.iter().any(|i| match i.mnemonic() {
        Mnemonic::Syscall => case.width != Width::Bits64,
        Mnemonic::Sysenter => vendor == Vendor::Intel,
        _ => false,
    });
    leaves.then_some("its system call ends outside of the case")
}

fn is_canonical(address: u64) -> bool {
    let high = address as i64 >> 47;
    high == 0 || high == -1
}
