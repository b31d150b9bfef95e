//! Holds two outcomes of one case against each other.

use serde::{Deserialize, Serialize};
use trivium_cpu::state::{X87, X87Register};

use crate::allow::Allowance;
use crate::outcome::{Change, Outcome, Stop};
use crate::state::UserState;

/// Something in which two outcomes differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it is in the first outcome.
    pub first: String,
    /// What it is in the second.
    pub second: String,
}

impl Field {
    /// The name without the number of the register or the address: what kind of field it is.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.name.split([' ', '[']).next().unwrap_or_default()
    }
}

/// The general registers, by their number in instructions.
pub const REGISTERS: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// Segment registers, by their number in instructions.
pub const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];

/// All in which the outcomes differ and may not. `wide` says whether both engines have AVX-512.
#[must_use]
pub fn compare(first: &Outcome, second: &Outcome, allow: &Allowance, wide: bool) -> Vec<Field> {
    let mut found = Found::default();
    if !(allow.which_fault && first.stop.is_fault() && second.stop.is_fault()) {
        found.text("stop", describe(&first.stop), describe(&second.stop));
    }
    let endless = |o: &Outcome| matches!(o.stop, Stop::Endless | Stop::Shutdown | Stop::Lost(_));
    if endless(first) || endless(second) {
        // How far a loop got before it was given up is no result, nor is what a triple fault leaves.
        return found.fields;
    }
    states(&first.state, &second.state, allow, wide, &mut found);
    if first.changes != second.changes && !allow.memory {
        found.text("memory", changes(&first.changes), changes(&second.changes));
    }
    found.fields
}

fn states(a: &UserState, b: &UserState, allow: &Allowance, wide: bool, found: &mut Found) {
    for (n, name) in REGISTERS.iter().enumerate().filter(|(n, _)| allow.registers & 1 << n == 0) {
        found.number(name, a.regs[n], b.regs[n], 16);
    }
    found.number("rip", a.rip, b.rip, 16);
    found.number("rflags", a.rflags & !allow.flags, b.rflags & !allow.flags, 6);
    for (n, name) in SEGMENTS.iter().enumerate() {
        let (one, other) = (visible(a.selectors[n]), visible(b.selectors[n]));
        found.number(name, u64::from(one), u64::from(other), 4);
    }
    found.number("fs_base", a.fs_base, b.fs_base, 16);
    found.number("gs_base", a.gs_base, b.gs_base, 16);
    x87(&a.x87, &b.x87, allow, found);
    let mxcsr = !allow.mxcsr;
    found.number("mxcsr", u64::from(a.mxcsr & mxcsr), u64::from(b.mxcsr & mxcsr), 8);
    vectors(a, b, allow, wide, found);
}

/// A selector as a program sees it. The kernel's way back to user code is an IRET to an outer level,
/// which makes 0 of null selectors with another RPL; Intel SDM vol. 2, IRET.
fn visible(selector: u16) -> u16 {
    if selector < 4 { 0 } else { selector }
}

/// The selectors of the last instruction and operand are not in the image that 64-bit code saves,
/// so they are left out. Of the tags the hardware keeps whether a register is empty; the rest
/// follows from its value.
fn x87(a: &X87, b: &X87, allow: &Allowance, found: &mut Found) {
    let top = usize::from(a.status >> 11 & 7);
    let allowed = |n: usize| allow.x87_registers & 1 << (n.wrapping_sub(top) & 7) != 0;
    for n in (0..8).filter(|&n| !allowed(n)) {
        found.text(&format!("x87 r{n}"), extended(a.regs[n]), extended(b.regs[n]));
    }
    let status = !allow.x87_status;
    found.number("fcw", u64::from(a.control), u64::from(b.control), 4);
    found.number("fsw", u64::from(a.status & status), u64::from(b.status & status), 4);
    found.number("ftw", u64::from(empty(a.tags)), u64::from(empty(b.tags)), 2);
    if !allow.x87_pointers {
        found.number("fop", u64::from(a.last_opcode), u64::from(b.last_opcode), 4);
        found.number("fip", a.last_ip, b.last_ip, 16);
        found.number("fdp", a.last_dp, b.last_dp, 16);
    }
}

/// A bit for each register that is empty.
fn empty(tags: u16) -> u8 {
    (0..8).filter(|n| tags >> (2 * n) & 3 == 3).fold(0, |bits, n| bits | 1 << n)
}

fn extended(value: X87Register) -> String {
    format!("{:04x}:{:016x}", value.sign_exponent, value.mantissa)
}

fn vectors(a: &UserState, b: &UserState, allow: &Allowance, wide: bool, found: &mut Found) {
    let (registers, lanes) = if wide { (32, 8) } else { (16, 4) };
    for n in 0..registers {
        let (one, other) = (&a.zmm[n][..lanes], &b.zmm[n][..lanes]);
        if one != other && !allow.approximately(n, one, other) {
            let name = if wide { format!("zmm[{n}]") } else { format!("ymm[{n}]") };
            found.text(&name, hex(one), hex(other));
        }
    }
    for n in (0..8).filter(|_| wide) {
        found.number(&format!("k[{n}]"), a.opmask[n], b.opmask[n], 16);
    }
}

fn hex(lanes: &[u64]) -> String {
    let words: Vec<_> = lanes.iter().rev().map(|w| format!("{w:016x}")).collect();
    words.join("_")
}

/// In words, how a case ended.
#[must_use]
pub fn describe(stop: &Stop) -> String {
    match stop {
        Stop::Exception { vector, error, cr2 } => match (vector, mnemonic(*vector)) {
            (14, _) => format!("#PF({error:#x}) at {cr2:#x}"),
            (8 | 10..=13 | 17, Some(name)) => format!("{name}({error:#x})"),
            (_, Some(name)) => name.to_owned(),
            (vector, None) => format!("vector {vector:#x}"),
        },
        Stop::Syscall => "system call".to_owned(),
        Stop::Endless => "does not end".to_owned(),
        Stop::Shutdown => "triple fault".to_owned(),
        Stop::Lost(why) => format!("lost: {why}"),
    }
}

/// Intel SDM vol. 3A, table 6-1.
fn mnemonic(vector: u8) -> Option<&'static str> {
    const NAMES: [&str; 20] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "", "#TS", "#NP", "#SS",
        "#GP", "#PF", "", "#MF", "#AC", "#MC", "#XM",
    ];
    NAMES.get(usize::from(vector)).copied().filter(|name| !name.is_empty())
}

/// Changes of memory in a line.
#[must_use]
pub fn changes(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "as it was".to_owned();
    }
    let one = |change: &Change| {
        let bytes: Vec<_> = change.bytes.iter().take(16).map(|b| format!("{b:02x}")).collect();
        let more = if change.bytes.len() > 16 { ".." } else { "" };
        format!("{:x}: {}{more}", change.address, bytes.join(" "))
    };
    let mut shown: Vec<_> = changes.iter().take(6).map(one).collect();
    if changes.len() > 6 {
        shown.push(format!("and {} more", changes.len() - 6));
    }
    shown.join(", ")
}

#[derive(Default)]
struct Found {
    fields: Vec<Field>,
}

impl Found {
    fn text(&mut self, name: &str, first: String, second: String) {
        if first != second {
            self.fields.push(Field { name: name.to_owned(), first, second });
        }
    }

    fn number(&mut self, name: &str, first: u64, second: u64, digits: usize) {
        if first != second {
            self.text(name, format!("{first:0digits$x}"), format!("{second:0digits$x}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Outcome {
        let stop = Stop::Exception { vector: 3, error: 0, cr2: 0 };
        Outcome { stop, state: UserState::default(), changes: Vec::new() }
    }

    /// The names of what differs after a change, with this allowed.
    fn differing(change: impl FnOnce(&mut Outcome), allow: &Allowance) -> Vec<String> {
        let (first, mut second) = (outcome(), outcome());
        change(&mut second);
        compare(&first, &second, allow, false).into_iter().map(|f| f.name).collect()
    }

    #[test]
    fn every_part_of_the_outcome_counts() {
        let none = Allowance::default();
        type Alter = fn(&mut Outcome);
        let table: &[(&str, Alter)] = &[
            ("stop", |o| o.stop = Stop::Syscall),
            ("rax", |o| o.state.regs[0] = 1),
            ("r15", |o| o.state.regs[15] = 1),
            ("rip", |o| o.state.rip += 1),
            ("rflags", |o| o.state.rflags ^= 1),
            ("es", |o| o.state.selectors[0] = 0),
            ("gs_base", |o| o.state.gs_base = 1),
            ("x87 r3", |o| o.state.x87.regs[3].mantissa = 1),
            ("fcw", |o| o.state.x87.control = 0),
            ("fsw", |o| o.state.x87.status = 1),
            ("ftw", |o| o.state.x87.tags = 0),
            ("fop", |o| o.state.x87.last_opcode = 1),
            ("mxcsr", |o| o.state.mxcsr = 0),
            ("ymm[7]", |o| o.state.zmm[7][3] = 1),
            ("memory", |o| o.changes.push(Change { address: 1, bytes: vec![2] })),
        ];
        for (name, change) in table {
            assert_eq!(differing(*change, &none), [*name]);
        }
        assert!(differing(|o| o.state.zmm[7][4] = 1, &none).is_empty(), "not in both engines");
    }

    #[test]
    fn what_is_allowed_does_not_count_and_no_more() {
        let af = Allowance { flags: 1 << 4, ..Allowance::default() };
        assert!(differing(|o| o.state.rflags ^= 1 << 4, &af).is_empty());
        assert_eq!(differing(|o| o.state.rflags ^= 1, &af), ["rflags"]);
    }
}
