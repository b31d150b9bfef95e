//! A divergence as people read it: the code, the state before, and both states after side by side.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

use crate::case::Case;
use crate::compare::{Field, changes, compare, describe};
use crate::outcome::{Outcome, Stop};
use crate::repro::Repro;
use crate::state::UserState;

/// Bits of RFLAGS by name, from bit 0 on.
const FLAGS: [&str; 22] = [
    "cf", "", "pf", "", "af", "", "zf", "sf", "tf", "", "df", "of", "", "", "nt", "", "rf", "vm",
    "ac", "vif", "vip", "id",
];

/// Escape sequences, or nothing.
struct Paint {
    bold: &'static str,
    differs: &'static str,
    plain: &'static str,
}

impl Paint {
    const fn new(colour: bool) -> Self {
        match colour {
            true => Self { bold: "\x1b[1m", differs: "\x1b[1;31m", plain: "\x1b[0m" },
            false => Self { bold: "", differs: "", plain: "" },
        }
    }
}

/// A divergence in full. `fields` is in what the outcomes differ.
#[must_use]
pub fn render(repro: &Repro, outcomes: &[Outcome; 2], fields: &[Field], colour: bool) -> String {
    let paint = Paint::new(colour);
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_case(&mut out, &repro.case, &paint);
    let _ = write_outcomes(&mut out, repro, outcomes, fields, &paint);
    out
}

fn write_case(out: &mut String, case: &Case, paint: &Paint) -> std::fmt::Result {
    let mut formatter = IntelFormatter::new();
    let decoder =
        Decoder::with_ip(case.width.bits(), &case.code, case.state.rip, DecoderOptions::NONE);
    for instruction in decoder {
        let from = instruction.ip().wrapping_sub(case.state.rip) as usize;
        let bytes = case.code.get(from..from + instruction.len()).unwrap_or_default();
        let bytes: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        let ip = instruction.ip();
        let Paint { bold, plain, .. } = paint;
        writeln!(out, "  {ip:8x}  {:<32} {bold}{text}{plain}", bytes.join(" "))?;
    }
    for entry in case.ldt.iter().enumerate().filter_map(|(n, e)| e.map(|e| (n, e))) {
        writeln!(out, "  LDT entry {}: {:x?}", entry.0, entry.1)?;
    }
    for patch in &case.memory {
        let bytes: Vec<_> = patch.bytes.iter().map(|b| format!("{b:02x}")).collect();
        writeln!(out, "  at {:x}: {}", patch.address, bytes.join(" "))?;
    }
    let plain = Outcome { state: UserState::default(), ..before(case) };
    let set = compare(&plain, &before(case), &Default::default(), true);
    let set: Vec<_> = set.iter().map(|f| format!("{} {}", f.name, f.second)).collect();
    writeln!(out, "  {}-bit code; before: {}", case.width.bits(), join_or(&set, "all as usual"))
}

fn join_or(parts: &[String], none: &str) -> String {
    if parts.is_empty() { none.to_owned() } else { parts.join(", ") }
}

/// The state before, as an outcome to compare with.
fn before(case: &Case) -> Outcome {
    Outcome { stop: Stop::Syscall, state: case.state.clone(), changes: Vec::new() }
}

fn write_outcomes(
    out: &mut String,
    repro: &Repro,
    outcomes: &[Outcome; 2],
    fields: &[Field],
    paint: &Paint,
) -> std::fmt::Result {
    let [first, second] = &repro.engines;
    let Paint { bold, differs, plain } = paint;
    writeln!(out, "  {bold}{:<9} {:<36} {second}{plain}", "after", first)?;
    let differing = |name: &str| fields.iter().any(|f| f.name == name);
    let mut row = |name: &str, one: &str, other: &str| {
        let (on, off) = if differing(name) { (differs, plain) } else { (&"", &"") };
        writeln!(out, "  {on}{name:<9} {one:<36} {other}{off}")
    };
    let [one, other] = outcomes;
    row("stop", &describe(&one.stop), &describe(&other.stop))?;
    let base = before(&repro.case);
    let changed = outcomes.each_ref().map(|outcome| {
        let same_stop = Outcome { stop: base.stop.clone(), ..outcome.clone() };
        compare(&base, &same_stop, &Default::default(), true)
    });
    let mut names: Vec<&str> = Vec::new();
    for field in changed.iter().flatten().chain(fields) {
        if !names.contains(&field.name.as_str()) && !matches!(&*field.name, "stop" | "memory") {
            names.push(&field.name);
        }
    }
    for name in names {
        let value = |n: usize| {
            let after = changed[n].iter().find(|f| f.name == name).map(|f| f.second.clone());
            let raw = after.unwrap_or_else(|| "as before".to_owned());
            if name == "rflags" { with_flags(&raw) } else { raw }
        };
        row(name, &value(0), &value(1))?;
    }
    if outcomes.iter().any(|o| !o.changes.is_empty()) {
        row("memory", &changes(&one.changes), &changes(&other.changes))?;
    }
    Ok(())
}

/// RFLAGS with the names of those that are set.
fn with_flags(hex: &str) -> String {
    let Ok(value) = u64::from_str_radix(hex, 16) else { return hex.to_owned() };
    let set = FLAGS.iter().enumerate().filter(|(n, name)| value >> n & 1 != 0 && !name.is_empty());
    let names: Vec<_> = set.map(|(_, name)| *name).collect();
    format!("{hex} {}", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{CaseId, Kind, Width};
    use crate::layout::CODE;
    use crate::minimise::Minimised;

    #[test]
    fn a_report_shows_code_and_both_states() {
        let case = Case {
            id: CaseId::default(),
            kind: Kind::Manual,
            width: Width::Bits64,
            code_at: CODE.start,
            code: vec![0x01, 0xd8],
            state: UserState::default(),
            memory: Vec::new(),
            ldt: Vec::new(),
            limit: 1,
        };
        let stop = Stop::Exception { vector: 3, error: 0, cr2: 0 };
        let good = Outcome { stop, state: case.state.clone(), changes: Vec::new() };
        let mut bad = good.clone();
        bad.state.rflags |= 0x41;
        let fields = compare(&good, &bad, &Default::default(), false);
        let outcomes = [good, bad];
        let round = crate::duel::Round { outcomes: outcomes.clone(), fields: fields.clone() };
        let small = Minimised { case, round, single: true };
        let repro = Repro::new(["interp", "host"], CaseId::default(), small);
        let text = render(&repro, &outcomes, &fields, false);
        assert!(text.contains("01 d8") && text.contains("add eax,ebx"), "{text}");
        assert!(text.contains("as before") && text.contains("cf zf"), "{text}");
        let coloured = render(&repro, &outcomes, &fields, true);
        assert!(coloured.contains("\x1b[1;31mrflags"), "{coloured}");
    }
}
