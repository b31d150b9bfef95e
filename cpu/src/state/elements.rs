//! The elements of a CPU's state: for each a name, what makes it valid, and its values one by one.

use super::{
    Activity, Control, CpuState, Debug, Events, General, Injected, Latent, Monitored, Msrs,
    Segment, Segments, TableRegister, Vector, X87,
};
use crate::bits::{cr0, cr4, debug, efer, rflags};
use crate::walk::is_canonical;

/// Takes a value of the state: its name, its index if it is one of an array, the value.
type Visit<'a> = &'a mut dyn FnMut(&'static str, usize, u64);

/// An element of the state.
pub struct Element {
    /// Its name.
    pub name: &'static str,
    /// Whether two CPUs that have run the same program must agree on it. What tells of host time
    /// may differ.
    pub comparable: bool,
    /// Whether a CPU can be in this state; if not, what is wrong.
    pub validate: fn(&CpuState) -> Result<(), &'static str>,
    /// Shows all its values.
    visit: fn(&CpuState, Visit<'_>),
}

/// All elements.
pub const ELEMENTS: &[Element] = &[
    Element {
        name: "general",
        comparable: true,
        validate: |s| validate_general(&s.general),
        visit: |s, visit| visit_general(&s.general, visit),
    },
    Element {
        name: "segments",
        comparable: true,
        validate: |s| validate_segments(&s.segments),
        visit: |s, visit| visit_segments(&s.segments, visit),
    },
    Element {
        name: "control",
        comparable: true,
        validate: |s| validate_control(&s.control),
        visit: |s, visit| visit_control(&s.control, visit),
    },
    Element {
        name: "debug",
        comparable: true,
        validate: |s| validate_debug(&s.debug),
        visit: |s, visit| visit_debug(&s.debug, visit),
    },
    Element {
        name: "msrs",
        comparable: true,
        validate: |s| validate_msrs(&s.msrs),
        visit: |s, visit| visit_msrs(&s.msrs, visit),
    },
    Element {
        name: "time",
        comparable: false,
        validate: |_| Ok(()),
        visit: |s, visit| {
            visit("tsc_offset", 0, s.msrs.tsc_offset);
            visit("tsc_adjust", 0, s.msrs.tsc_adjust);
        },
    },
    Element {
        name: "x87",
        comparable: true,
        validate: |s| validate_x87(&s.x87),
        visit: |s, visit| visit_x87(&s.x87, visit),
    },
    Element {
        name: "vector",
        comparable: true,
        validate: |s| validate_vector(&s.vector),
        visit: |s, visit| visit_vector(&s.vector, visit),
    },
    Element {
        name: "events",
        comparable: true,
        validate: |s| validate_events(&s.events),
        visit: |s, visit| visit_events(&s.events, visit),
    },
    Element {
        name: "latent",
        comparable: false,
        validate: |s| validate_latent(s),
        visit: |s, visit| visit_latent(&s.latent, visit),
    },
];

/// A value in which two states differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The element's name.
    pub element: &'static str,
    /// The value's name.
    pub name: &'static str,
    /// Which one of an array; zero for a value that stands alone.
    pub index: usize,
    /// The value in the one state.
    pub this: u64,
    /// The value in the other.
    pub other: u64,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { element, name, index, this, other } = self;
        write!(f, "{element}.{name}[{index}]: {this:#x} and {other:#x}")
    }
}

impl CpuState {
    /// Whether a CPU can be in this state.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn validate(&self) -> Result<(), &'static str> {
        ELEMENTS.iter().try_for_each(|element| (element.validate)(self))
    }

    /// The values of comparable elements in which this state and another differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        for element in ELEMENTS.iter().filter(|e| e.comparable) {
            let mut values = Vec::new();
            (element.visit)(self, &mut |name, index, value| values.push((name, index, value)));
            let mut ours = values.into_iter();
            // Both show the same values in the same order: the order is the code's.
            (element.visit)(other, &mut |_, _, other| {
                if let Some((name, index, this)) = ours.next()
                    && this != other
                {
                    found.push(Difference { element: element.name, name, index, this, other });
                }
            });
        }
        found
    }
}

/// `Err(what)` unless `good`.
fn require(good: bool, what: &'static str) -> Result<(), &'static str> {
    if good { Ok(()) } else { Err(what) }
}

fn visit_all(name: &'static str, values: &[u64], visit: Visit<'_>) {
    for (index, value) in values.iter().enumerate() {
        visit(name, index, *value);
    }
}

fn validate_general(general: &General) -> Result<(), &'static str> {
    let good = general.rflags & !rflags::ALL == 0 && general.rflags & rflags::FIXED != 0;
    require(good, "RFLAGS has bits set that do not exist, or bit 1 clear")
}

fn visit_general(general: &General, visit: Visit<'_>) {
    let General { regs, rip, rflags } = general;
    visit_all("reg", regs, visit);
    visit("rip", 0, *rip);
    visit("rflags", 0, *rflags);
}

fn validate_segments(segments: &Segments) -> Result<(), &'static str> {
    let all = segments.regs.iter().chain([&segments.ldtr, &segments.tr]);
    for segment in all {
        let exist = segment.attributes.0 & !super::SegmentAttributes::ALL == 0;
        require(exist, "A segment has attributes that do not exist")?;
        require(is_canonical(segment.base, true), "A segment's base is not canonical")?;
    }
    for table in [&segments.gdtr, &segments.idtr] {
        require(is_canonical(table.base, true), "A descriptor table's base is not canonical")?;
    }
    require(segments.cpl <= 3, "The privilege level is above 3")
}

fn visit_segments(segments: &Segments, visit: Visit<'_>) {
    let Segments { regs, ldtr, tr, gdtr, idtr, cpl } = segments;
    for (index, segment) in regs.iter().chain([ldtr, tr]).enumerate() {
        let Segment { selector, base, limit, attributes } = segment;
        visit("selector", index, u64::from(*selector));
        visit("base", index, *base);
        visit("limit", index, u64::from(*limit));
        visit("attributes", index, u64::from(attributes.0));
    }
    for (index, table) in [gdtr, idtr].into_iter().enumerate() {
        let TableRegister { base, limit } = table;
        visit("table_base", index, *base);
        visit("table_limit", index, u64::from(*limit));
    }
    visit("cpl", 0, u64::from(*cpl));
}

/// The checks of MOV to CR0, CR3, CR4 and EFER. Intel SDM vol. 3A, 2.5 and 4.1.2.
fn validate_control(control: &Control) -> Result<(), &'static str> {
    let (cr0, cr4) = (control.cr0, control.cr4);
    let (paging, lma) = (cr0 & cr0::PG != 0, control.efer & efer::LMA != 0);
    require(cr0 & !cr0::ALL == 0, "CR0 has bits set that do not exist")?;
    require(cr4 & !cr4::ALL == 0, "CR4 has bits set that do not exist")?;
    require(!paging || cr0 & cr0::PE != 0, "CR0.PG is set without CR0.PE")?;
    require(cr0 & cr0::NW == 0 || cr0 & cr0::CD != 0, "CR0.NW is set without CR0.CD")?;
    let long = paging && control.efer & efer::LME != 0;
    require(lma == long, "EFER.LMA is not CR0.PG and EFER.LME")?;
    require(!lma || cr4 & cr4::PAE != 0, "EFER.LMA is set without CR4.PAE")?;
    require(lma || cr4 & cr4::PCIDE == 0, "CR4.PCIDE is set outside of long mode")?;
    require(control.cr3 >> 52 == 0, "CR3 has bits above 51 set")?;
    require(control.xcr0 & 1 != 0, "XCR0 bit 0 is clear")?;
    require(control.xcr0 & 6 != 4, "XCR0 has AVX set without SSE")
}

fn visit_control(control: &Control, visit: Visit<'_>) {
    let Control { cr0, cr2, cr3, cr4, efer, xcr0, pkru, pdptr } = control;
    visit("cr0", 0, *cr0);
    visit("cr2", 0, *cr2);
    visit("cr3", 0, *cr3);
    visit("cr4", 0, *cr4);
    visit("efer", 0, *efer);
    visit("xcr0", 0, *xcr0);
    visit("pkru", 0, u64::from(*pkru));
    visit_all("pdptr", pdptr, visit);
}

fn validate_debug(debug: &Debug) -> Result<(), &'static str> {
    let good = debug.dr6 >> 32 == 0 && debug.dr7 >> 32 == 0;
    require(good, "DR6 or DR7 has bits set in its upper half")
}

fn visit_debug(debug: &Debug, visit: Visit<'_>) {
    let Debug { address, dr6, dr7 } = debug;
    visit_all("address", address, visit);
    visit("dr6", 0, *dr6);
    visit("dr7", 0, *dr7);
}

fn validate_msrs(msrs: &Msrs) -> Result<(), &'static str> {
    let addresses =
        [msrs.lstar, msrs.cstar, msrs.kernel_gs_base, msrs.sysenter_esp, msrs.sysenter_eip];
    let canonical = addresses.iter().all(|&a| is_canonical(a, true));
    require(canonical, "An MSR that holds an address has one that is not canonical")?;
    let types = msrs.pat.to_le_bytes();
    require(types.iter().all(|t| !matches!(t, 2 | 3 | 8..)), "The PAT has a reserved memory type")
}

fn visit_msrs(msrs: &Msrs, visit: Visit<'_>) {
    // The offsets of time are an element of their own.
    let Msrs {
        star,
        lstar,
        cstar,
        sfmask,
        kernel_gs_base,
        tsc_aux,
        sysenter_cs,
        sysenter_esp,
        sysenter_eip,
        pat,
        mtrr_def_type,
        mtrr_fixed,
        mtrr_var,
        misc_enable,
        spec_ctrl,
        xss,
        tsc_offset: _,
        tsc_adjust: _,
        mcg_status,
        mcg_ctl,
        mc_banks,
        ucode_rev,
        debugctl,
        syscfg,
        hwcr,
        smbase,
        top_mem,
    } = msrs;
    let single = [
        ("star", star),
        ("lstar", lstar),
        ("cstar", cstar),
        ("sfmask", sfmask),
        ("kernel_gs_base", kernel_gs_base),
        ("tsc_aux", tsc_aux),
        ("sysenter_cs", sysenter_cs),
        ("sysenter_esp", sysenter_esp),
        ("sysenter_eip", sysenter_eip),
        ("pat", pat),
        ("mtrr_def_type", mtrr_def_type),
        ("misc_enable", misc_enable),
        ("spec_ctrl", spec_ctrl),
        ("xss", xss),
        ("mcg_status", mcg_status),
        ("mcg_ctl", mcg_ctl),
        ("ucode_rev", ucode_rev),
        ("debugctl", debugctl),
        ("syscfg", syscfg),
        ("hwcr", hwcr),
        ("smbase", smbase),
    ];
    for (name, value) in single {
        visit(name, 0, *value);
    }
    visit_all("mtrr_fixed", mtrr_fixed, visit);
    visit_all("mtrr_var", mtrr_var, visit);
    visit_all("mc_banks", mc_banks.as_flattened(), visit);
    visit_all("top_mem", top_mem, visit);
}

fn validate_x87(x87: &X87) -> Result<(), &'static str> {
    require(x87.last_opcode < 1 << 11, "The last x87 opcode has more than 11 bits")
}

fn visit_x87(x87: &X87, visit: Visit<'_>) {
    let X87 { regs, control, status, tags, last_opcode, last_ip, last_cs, last_dp, last_ds } = x87;
    for (index, register) in regs.iter().enumerate() {
        visit("mantissa", index, register.mantissa);
        visit("sign_exponent", index, u64::from(register.sign_exponent));
    }
    visit("control", 0, u64::from(*control));
    visit("status", 0, u64::from(*status));
    visit("tags", 0, u64::from(*tags));
    visit("last_opcode", 0, u64::from(*last_opcode));
    visit("last_ip", 0, *last_ip);
    visit("last_cs", 0, u64::from(*last_cs));
    visit("last_dp", 0, *last_dp);
    visit("last_ds", 0, u64::from(*last_ds));
}

/// The bits of MXCSR that any processor has; AMD APM vol. 2, 11.5.10.
const MXCSR: u32 = 0x2_ffff;

fn validate_vector(vector: &Vector) -> Result<(), &'static str> {
    require(vector.mxcsr & !MXCSR == 0, "MXCSR has bits above 15 set other than MM")
}

fn visit_vector(vector: &Vector, visit: Visit<'_>) {
    let Vector { regs, mxcsr } = vector;
    visit_all("reg", regs.as_flattened(), visit);
    visit("mxcsr", 0, u64::from(*mxcsr));
}

fn validate_events(events: &Events) -> Result<(), &'static str> {
    let length = events.injected.and_then(|i| i.software_length);
    require(
        length.is_none_or(|l| matches!(l, 1..=15)),
        "An event's instruction has no such length",
    )?;
    require(events.interrupt_shadow || !events.debug_shadow, "MOV SS holds off interrupts too")?;
    let traps = debug::DR6_B | debug::DR6_BS | debug::DR6_BT;
    require(events.pending_debug & !traps == 0, "A debug trap that does not exist is pending")
}

fn visit_events(events: &Events, visit: Visit<'_>) {
    let Events {
        activity,
        interrupt_shadow,
        debug_shadow,
        pending_debug,
        smi_pending,
        nmi_masked,
        nmi_pending,
        smm,
        injected,
    } = events;
    let activity = match activity {
        Activity::Running => 0,
        Activity::Halted => 1,
        Activity::WaitForSipi => 2,
        Activity::Shutdown => 3,
    };
    visit("activity", 0, activity);
    visit("interrupt_shadow", 0, u64::from(*interrupt_shadow));
    visit("debug_shadow", 0, u64::from(*debug_shadow));
    visit("pending_debug", 0, *pending_debug);
    visit("smi_pending", 0, u64::from(*smi_pending));
    visit("nmi_masked", 0, u64::from(*nmi_masked));
    visit("nmi_pending", 0, u64::from(*nmi_pending));
    visit("smm", 0, u64::from(*smm));
    // What is absent shows as all ones, which no present value is.
    let absent = |value: Option<u64>| value.unwrap_or(u64::MAX);
    let Injected { vector, error_code, software_length } =
        injected.unwrap_or(Injected { vector: 0, error_code: None, software_length: None });
    visit("injected", 0, absent(injected.map(|_| u64::from(vector))));
    visit("error_code", 0, absent(error_code.map(u64::from)));
    visit("software_length", 0, absent(software_length.map(u64::from)));
}

fn validate_latent(state: &CpuState) -> Result<(), &'static str> {
    let waits = state.latent.monitor.is_some_and(|line| line.waits);
    require(!waits || state.events.activity == Activity::Halted, "MWAIT waits, but is not halted")
}

fn visit_latent(latent: &Latent, visit: Visit<'_>) {
    let Latent { ferr, monitor } = latent;
    visit("ferr", 0, u64::from(*ferr));
    visit("monitor", 0, monitor.map_or(u64::MAX, |line| line.offset));
    if let Some(Monitored { offset: _, content, waits, masked_too }) = monitor {
        visit_all("monitor_content", content, visit);
        visit("monitor_waits", 0, u64::from(*waits));
        visit("monitor_masked_too", 0, u64::from(*masked_too));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MODELS;

    #[test]
    fn states_after_reset_are_valid_and_like_themselves() {
        for model in MODELS {
            let state = CpuState::reset(model);
            assert_eq!(state.validate(), Ok(()), "{}", model.name);
            assert!(state.differences(&state).is_empty());
            // SDM vol. 3A, table 9-1: EDX has the signature.
            assert_eq!(state.general.regs[2], u64::from(model.signature()));
        }
    }

    #[test]
    fn differences_are_named_but_for_those_of_time() {
        let (a, mut b) = (CpuState::default(), CpuState::default());
        b.msrs.tsc_offset = 5;
        assert!(a.differences(&b).is_empty());
        b.segments.regs[super::super::CS].limit = 0;
        b.vector.regs[15][3] = 7;
        b.events.injected = Some(Injected { vector: 0, error_code: None, software_length: None });
        let names: Vec<_> = a.differences(&b).iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "segments.limit[1]: 0xffff and 0x0",
                "vector.reg[63]: 0x0 and 0x7",
                "events.injected[0]: 0xffffffffffffffff and 0x0",
            ]
        );
    }

    #[test]
    fn states_that_no_cpu_can_be_in_are_refused() {
        let spoilt: &[fn(&mut CpuState)] = &[
            |s| s.general.rflags = 0,
            |s| s.general.rflags |= 1 << 15,
            |s| s.segments.cpl = 4,
            |s| s.segments.regs[0].base = 1 << 60,
            |s| s.segments.tr.attributes.0 |= 0x100,
            |s| s.control.cr0 |= cr0::PG,
            |s| s.control.cr0 &= !cr0::CD,
            |s| s.control.cr4 |= 1 << 15,
            |s| s.control.cr4 |= cr4::PCIDE,
            |s| s.control.efer |= efer::LMA,
            |s| s.control.xcr0 = 5,
            |s| s.debug.dr7 |= 1 << 32,
            |s| s.msrs.pat = 2,
            |s| s.msrs.lstar = 1 << 63,
            |s| s.x87.last_opcode = 1 << 11,
            |s| s.vector.mxcsr |= 1 << 16,
        ];
        for (index, spoil) in spoilt.iter().enumerate() {
            let mut state = CpuState::default();
            spoil(&mut state);
            assert!(state.validate().is_err(), "{index}");
        }
    }
}
