//! `trivium cpus`: what each kind of CPU can do on this host.

use std::io::Write;

use trivium_machine::kvm::{BEHAVIOURS, Level, Report};
use trivium_machine::{Accel, best_accel, jit_works};

/// Says what each kind of CPU can do on this host.
///
/// # Errors
/// Standard output cannot be written.
pub fn cpus() -> anyhow::Result<u8> {
    let mut text = String::from("interp  works: it needs nothing of the host\n");
    text.push_str(&match jit_works() {
        Ok(()) => "jit     works: this host lets programs make code\n".to_owned(),
        Err(error) => format!("jit     does not work: {error}\n"),
    });
    text.push_str(&kvm());
    let (accel, why) = best_accel();
    text.push_str(&format!("\n--accel auto is {}: {why}\n", name(accel)));
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(0)
}

/// What options call a kind of CPU.
pub fn name(accel: Accel) -> &'static str {
    match accel {
        Accel::Interp => "interp",
        Accel::Jit => "jit",
        Accel::Kvm => "kvm",
        Accel::KvmJit => "kvm:jit",
        Accel::KvmInterp => "kvm:interp",
    }
}

fn kvm() -> String {
    let report = match Report::of_host() {
        Ok(report) => report,
        Err(error) => return format!("kvm     does not work: {error}\n"),
    };
    let verdict = match (report.is_whole(), report.is_good_for_programs()) {
        (true, _) => "runs whole systems",
        (false, true) => {
            "runs 64-bit programs at the processor's speed; their kernel is another CPU's"
        }
        (false, false) => "runs neither whole systems nor programs well",
    };
    let mut text = format!("kvm     {verdict}\n\n");
    for info in BEHAVIOURS {
        let Some(finding) = report.finding(info.behaviour) else { continue };
        let answer = if finding.works { "yes" } else { "no" };
        text.push_str(&format!("  {:<11} {answer:<4} {}", info.name, info.what));
        if finding.seen != "works" {
            text.push_str(&format!(": {}", finding.seen));
        }
        text.push('\n');
        if !finding.works {
            text.push_str(&format!("  {:<16} so {}\n", "", info.without));
        }
    }
    let share = match report.level() {
        Level::All => "all that it can run (level=all)",
        Level::User => "64-bit programs (level=user)",
    };
    text.push_str(&format!("\n--accel kvm:jit gives KVM {share}\n"));
    text
}
