//! A block as it was and what it became, side by side.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, Register};
use trivium_interp::block::Block;
use trivium_interp::cpu::{Mode, SEG_BASE, TLB_ADDRESS, TLB_MASK};

use super::why::{Why, features};
use crate::regs::{Home, home, near, slot};

/// An instruction of a block, and where its code begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) instruction: Instruction,
    /// The interpreter's operation.
    pub(crate) op: u8,
    /// From the block's code on.
    pub(crate) offset: usize,
    /// Why it is the interpreter's, if it is.
    pub(crate) why: Option<Why>,
}

/// A block with its code.
pub(crate) struct Listing<'a> {
    pub(crate) block: &'a Block,
    /// What it is called.
    pub(crate) what: &'a str,
    pub(crate) steps: &'a [Step],
    /// The code that is often run, and where it is.
    pub(crate) hot: (u64, &'a [u8]),
    /// The rest.
    pub(crate) cold: (u64, &'a [u8]),
}

/// Columns of the guest's instruction and of what became of it.
const GUEST: usize = 58;
const BECAME: usize = 28;

impl Listing<'_> {
    /// All of it.
    pub(crate) fn text(&self) -> String {
        let mut text = self.header();
        let first = self.steps.first().map_or(self.hot.1.len(), |step| step.offset);
        row(&mut text, "", "quantum", &self.lines(0, first));
        for (number, step) in self.steps.iter().enumerate() {
            let end = self.steps.get(number + 1).map_or(self.hot.1.len(), |next| next.offset);
            let i = &step.instruction;
            let lines = self.lines(step.offset, end);
            let code = self.hot.1.get(step.offset..end).unwrap_or_default();
            row(&mut text, &guest(i), &became(step, code, self.hot.0), &lines);
        }
        let lines = host(self.cold.1, self.cold.0);
        row(&mut text, "", "seldom run", &lines);
        text.push('\n');
        text
    }

    fn header(&self) -> String {
        let Block { rip, mode, key, .. } = self.block;
        let bits = mode.bitness();
        let who = if mode.has(Mode::USER) { "user" } else { "kernel" };
        let bytes: usize = self.steps.iter().map(|step| step.instruction.len()).sum();
        format!(
            "{} {rip:x}: {bits}-bit {who} code at {:x} in memory, {} instructions in {bytes} bytes; \
             {} bytes of the host's at {:x}, {} seldom run at {:x}\n",
            self.what,
            key.offset,
            self.steps.len(),
            self.hot.1.len(),
            self.hot.0,
            self.cold.1.len(),
            self.cold.0
        )
    }

    fn lines(&self, from: usize, to: usize) -> Vec<String> {
        host(self.hot.1.get(from..to).unwrap_or_default(), self.hot.0 + from as u64)
    }
}

/// Writes a row: what is on the left, and lines on the right.
fn row(text: &mut String, guest: &str, became: &str, lines: &[String]) {
    let mut first = (guest, became);
    for line in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:GUEST$} {:BECAME$} {line}", first.0, first.1);
        first = ("", "");
    }
    if lines.is_empty() {
        let _ = writeln!(text, "{guest:GUEST$} {became}");
    }
}

/// A guest instruction: where it is, and in words.
pub(crate) fn guest(i: &Instruction) -> String {
    let mut text = format!("{:16x}  ", i.ip());
    formatter().format(i, &mut text);
    text
}

/// What became of an instruction whose code this is.
fn became(step: &Step, code: &[u8], at: u64) -> String {
    if let Some(why) = step.why {
        let of = if why == Why::HostLacks { features(&step.instruction) } else { String::new() };
        return format!("interpreter: {}{of}", why.text());
    }
    let list: Vec<_> = Decoder::with_ip(64, code, at, DecoderOptions::NONE).into_iter().collect();
    let is_same = |i: &Instruction| i.mnemonic() == step.instruction.mnemonic();
    match (list.len(), list.iter().any(is_same)) {
        (0, _) => "nothing to do".into(),
        (1, true) => "copied".into(),
        (n, true) => format!("copied, {} of glue", n - 1),
        (_, false) => "replaced".into(),
    }
}

/// Code of the host, a line for each instruction.
fn host(code: &[u8], at: u64) -> Vec<String> {
    let mut formatter = formatter();
    Decoder::with_ip(64, code, at, DecoderOptions::NONE)
        .into_iter()
        .map(|i| {
            let mut text = format!("{:x}  ", i.ip());
            formatter.format(&i, &mut text);
            if let Some(name) = field(&i) {
                let _ = write!(text, "  ; {name}");
            }
            text
        })
        .collect()
}

/// The field of the CPU's state that an instruction of the host has for its operand.
fn field(i: &Instruction) -> Option<String> {
    if i.memory_base() != Register::R14 || i.memory_index() != Register::None {
        return None;
    }
    let at = i.memory_displacement64() as i32;
    let is_register = |number: &u8| home(*number) == Home::Memory && slot(*number) == at;
    if let Some(number) = (0..16).find(is_register) {
        return Some(format!("guest's r{number}"));
    }
    let named = [
        (TLB_ADDRESS, "TLB"),
        (TLB_MASK, "TLB's index"),
        (SEG_BASE + 4, "FS base"),
        (SEG_BASE + 5, "GS base"),
    ];
    let found = named.iter().find(|(number, _)| i32::from(near(*number)) == at);
    found.map(|(_, name)| (*name).into())
}

fn formatter() -> IntelFormatter {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_space_after_operand_separator(true);
    options.set_uppercase_hex(false);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    formatter
}
