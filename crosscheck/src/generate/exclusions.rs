//! Which encodings are left out, and why; everything else that iced knows is generated.

use iced_x86::{Code, EncodingKind, Mnemonic};

/// Instructions whose results a case does not decide.
const NOT_DETERMINED: &[(&[Mnemonic], &str)] = &[
    (&[Mnemonic::Rdtsc, Mnemonic::Rdtscp], "reads a clock"),
    (&[Mnemonic::Rdrand, Mnemonic::Rdseed], "is random"),
    (&[Mnemonic::Rdpmc, Mnemonic::Rdpru], "reads a performance counter"),
    (&[Mnemonic::Cpuid, Mnemonic::Xgetbv], "tells what CPU it is"),
    (&[Mnemonic::Rdpid], "tells which processor it runs on"),
    (
        &[Mnemonic::Sgdt, Mnemonic::Sidt, Mnemonic::Sldt, Mnemonic::Str, Mnemonic::Smsw],
        "reads what the operating system has set up",
    ),
    (&[Mnemonic::Sysenter, Mnemonic::Sysexit], "ends outside of the case"),
    (
        &[Mnemonic::Vmcall, Mnemonic::Vmmcall, Mnemonic::Vmgexit, Mnemonic::Tdcall],
        "calls a hypervisor",
    ),
    (&[Mnemonic::Int1], "is reported differently under hypervisors"),
    (
        &[Mnemonic::Monitorx, Mnemonic::Mwaitx, Mnemonic::Umwait, Mnemonic::Tpause],
        "waits for what no case brings",
    ),
];

/// Why an encoding is left out whatever the CPU has.
pub(crate) fn reason(code: Code) -> Option<&'static str> {
    let info = code.op_code();
    if !info.is_instruction() {
        return Some("is no instruction");
    }
    if info.fwait() {
        return Some("is WAIT and another instruction");
    }
    match info.encoding() {
        EncodingKind::EVEX => return Some("is AVX-512, which no CPU model has"),
        EncodingKind::MVEX => return Some("is of Knights Corner alone"),
        EncodingKind::XOP => return Some("is XOP, which no CPU model has"),
        _ => {}
    }
    let mnemonic = info.mnemonic();
    let found = NOT_DETERMINED.iter().find(|(mnemonics, _)| mnemonics.contains(&mnemonic));
    found.map(|(_, reason)| *reason)
}
