//! How speed grows from a cold start: a ROM of code that nobody has run, again and again.
//!
//! Its functions differ, and hold some 18,000 instructions together. Each round runs all of them once.
//! After some rounds the guest sends a line; so many instructions have been run between two.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::child::{self, Clock, Finished, Until};
use super::contender::{self, Guest};
use super::sample::{Metric, Row, Unit, interleave};

/// Ends of the windows of time in which instructions are counted, in milliseconds.
pub const WINDOWS: [u32; 19] =
    [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000];

/// Functions, rounds between two lines, and lines.
const FUNCTIONS: u32 = 360;
const ROUNDS: u32 = 5;
const LINES: u32 = 12_000;
/// Instructions of a function, CALL and RET included; and what a round and a line have besides.
const OF_FUNCTION: u32 = 50;
const OF_ROUND: u32 = 2;
const OF_LINE: u32 = 6;
const INSTRUCTIONS: u32 = (FUNCTIONS * OF_FUNCTION + OF_ROUND) * ROUNDS + OF_LINE;

const LIMIT: Duration = Duration::from_secs(600);

/// What comes behind the last line.
const END: &str = "done";

/// Millions of instructions a second, by windows of time.
pub fn warmup(context: &Context) -> Result<Vec<Row>> {
    let rom = context.dir.join("warmup.rom");
    contender::write(&rom, &image())?;
    interleave(context, &context.machines(), |who| {
        let mut command = who.command(&Guest::Rom(&rom), &context.dir)?;
        let run = child::run(&mut command, Until::Text(END), LIMIT, |_| ())?;
        ensure!(run.status.is_none(), "it ended before the guest did: {}", run.last_words());
        speeds(&run, context.clock)
    })
}

/// The name of the window that ends so many milliseconds after the beginning.
pub fn name(end: u32) -> String {
    format!("to {end} ms")
}

/// The speeds in the windows that the guest has worked through.
fn speeds(run: &Finished, clock: Clock) -> Result<Vec<Metric>> {
    let first = run.lines.first().context("The guest sent nothing")?.at;
    let times: Vec<f64> = run.lines.iter().map(|line| line.at.since(first, clock)).collect();
    let mut metrics = Vec::new();
    let mut begin = 0;
    for end in WINDOWS {
        let [from, to] = [begin, end].map(|ms| f64::from(ms) / 1e3);
        let (Some(before), Some(after)) = (done(&times, from), done(&times, to)) else { break };
        let value = (after - before) / 1e6 / (to - from);
        metrics.push(Metric { name: name(end), unit: Unit::MillionsPerSecond, value });
        begin = end;
    }
    ensure!(!metrics.is_empty(), "the guest was done within {} ms", WINDOWS[0]);
    Ok(metrics)
}

/// Instructions that are done at a time, by the lines before and after it.
#[expect(clippy::cast_precision_loss, reason = "some thousand lines")]
fn done(times: &[f64], at: f64) -> Option<f64> {
    let next = times.iter().position(|&time| time > at)?;
    let before = next.checked_sub(1)?;
    let part = (at - times[before]) / (times[next] - times[before]);
    Some((before as f64 + part) * f64::from(INSTRUCTIONS))
}

/// Bytes of the ROM, and where it begins.
const SIZE: usize = 0x2_0000;
const BASE: u32 = 0xFFFE_0000;
/// Where the code that starts is, which is F000:0000 too; the GDT, and what LGDT takes; the rounds.
const START: usize = 0x1_0000;
const GDT: usize = START + 0x80;
const GDT_POINTER: u16 = 0xA0;
const MAIN: usize = START + 0x100;

/// The ROM. Functions come first.
fn image() -> Vec<u8> {
    let mut rom = vec![0xF4; SIZE];
    let mut random = Random(1);
    let (mut functions, mut code) = (Vec::new(), Vec::new());
    for _ in 0..FUNCTIONS {
        functions.push(code.len());
        function(&mut code, &mut random);
    }
    put(&mut rom, 0, &code);
    put(&mut rom, START, &start());
    let gdt: [u64; 3] = [0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];
    put(&mut rom, GDT, &gdt.map(u64::to_le_bytes).concat());
    let limit = [0x17, 0];
    put(&mut rom, START + usize::from(GDT_POINTER), &[&limit[..], &address(GDT)].concat());
    put(&mut rom, MAIN, &rounds(&functions));
    put(&mut rom, SIZE - 16, &[0xEA, 0x00, 0x00, 0x00, 0xF0]); // jmp F000:0000
    rom
}

fn put(rom: &mut [u8], at: usize, bytes: &[u8]) {
    rom[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The linear address of an offset in the ROM.
#[expect(clippy::cast_possible_truncation, reason = "the ROM is small")]
fn address(offset: usize) -> [u8; 4] {
    (BASE + offset as u32).to_le_bytes()
}

/// From real mode to flat 32-bit code.
fn start() -> Vec<u8> {
    [
        &[0xFA][..],                     // cli
        &[0x2E, 0x66, 0x0F, 0x01, 0x16], // o32 lgdt [cs:...]
        &GDT_POINTER.to_le_bytes(),
        &[0x0F, 0x20, 0xC0], // mov eax, cr0
        &[0x0C, 0x01],       // or al, 1
        &[0x0F, 0x22, 0xC0], // mov cr0, eax
        &[0x66, 0xEA],       // jmp 8:...
        &address(MAIN),
        &[0x08, 0x00],
    ]
    .concat()
}

/// Runs all functions, round after round.
#[expect(clippy::cast_possible_truncation, reason = "the ROM is small")]
fn rounds(functions: &[usize]) -> Vec<u8> {
    let mut code = vec![
        0xB8, 0x10, 0, 0, 0, // mov eax, 10h
        0x8E, 0xD8, 0x8E, 0xC0, 0x8E, 0xD0, // mov ds, eax; mov es, eax; mov ss, eax
        0x8E, 0xE0, 0x8E, 0xE8, // mov fs, eax; mov gs, eax
        0xBC, 0x00, 0x00, 0x09, 0x00, // mov esp, 90000h
        0xBD, 0x00, 0x00, 0x02, 0x00, // mov ebp, 20000h
    ];
    code.push(0xBE); // mov esi, ...
    code.extend(LINES.to_le_bytes());
    code.extend(LINE);
    let line = code.len();
    code.push(0xBB); // mov ebx, ...
    code.extend(ROUNDS.to_le_bytes());
    let round = code.len();
    for function in functions {
        code.push(0xE8); // call
        let behind = MAIN + code.len() + 4;
        code.extend((*function as u32).wrapping_sub(behind as u32).to_le_bytes());
    }
    let back = |code: &mut Vec<u8>, counter: u8, to: usize| {
        code.extend([0xFF, counter, 0x0F, 0x85]); // dec; jnz
        let behind = code.len() + 4;
        code.extend((to as u32).wrapping_sub(behind as u32).to_le_bytes());
    };
    back(&mut code, 0xCB, round); // ebx
    code.extend(LINE);
    back(&mut code, 0xCE, line); // esi
    for letter in END.bytes() {
        code.extend([0xB0, letter, 0xEE]); // mov al, ...; out dx, al
    }
    code.extend([0xEB, 0xFE]);
    code
}

/// `mov edx, 3F8h`; `mov al, 10`; `out dx, al`.
const LINE: [u8; 8] = [0xBA, 0xF8, 0x03, 0x00, 0x00, 0xB0, 0x0A, 0xEE];

/// What functions are made of.
const REGISTERS: [&[u8]; 10] = [
    &[0x01, 0xC8],             // add eax, ecx
    &[0x31, 0xD1],             // xor ecx, edx
    &[0x29, 0xC2],             // sub edx, eax
    &[0x0F, 0xAF, 0xC2],       // imul eax, edx
    &[0x8D, 0x7C, 0x88, 0x05], // lea edi, [eax + ecx*4 + 5]
    &[0xC1, 0xC0, 0x05],       // rol eax, 5
    &[0x0F, 0xB6, 0xD0],       // movzx edx, al
    &[0x11, 0xF9],             // adc ecx, edi
    &[0xC1, 0xEF, 0x03],       // shr edi, 3
    &[0x89, 0xCA],             // mov edx, ecx
];
/// The same, with EBP and a displacement of four bytes.
const MEMORY: [[u8; 2]; 4] = [
    [0x8B, 0x85], // mov eax, [...]
    [0x89, 0x95], // mov [...], edx
    [0x03, 0x8D], // add ecx, [...]
    [0x01, 0xBD], // add [...], edi
];

/// One function. It runs the same number of instructions whichever way it takes.
fn function(code: &mut Vec<u8>, random: &mut Random) {
    for part in 0..8 {
        for _ in 0..3 {
            code.extend(REGISTERS[random.below(REGISTERS.len())]);
        }
        code.extend(MEMORY[random.below(MEMORY.len())]);
        code.extend([random.byte() & 0xFC, random.byte() & 0x3F, 0, 0]);
        if part % 2 == 1 {
            code.extend([0xA8, 1 << random.below(8), 0x74, 5]); // test al, ...; jz
            code.extend([0x83, 0xC0, 1, 0xEB, 4]); // add eax, 1; jmp
            code.extend([0x83, 0xC1, 2, 0x90]); // add ecx, 2; nop
        }
    }
    code.push(0xC3);
}

/// A linear congruential generator: the ROM is always the same.
struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        const FACTOR: u64 = 0x5851_F42D_4C95_7F2D;
        const SUMMAND: u64 = 0x1405_7B7E_F767_814F;
        self.0 = self.0.wrapping_mul(FACTOR).wrapping_add(SUMMAND);
        self.0.to_le_bytes()[6]
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::child::{Line, Stamp};

    #[test]
    fn the_rom_has_its_jump_at_the_reset_vector_and_room_for_all() {
        let rom = image();
        assert_eq!((rom.len(), rom[SIZE - 16]), (SIZE, 0xEA));
        let mut code = Vec::new();
        function(&mut code, &mut Random(1));
        assert_eq!(rom[..code.len()], code);
    }

    #[test]
    fn between_two_lines_instructions_are_done_evenly() {
        let times = [0.0, 0.1, 0.3];
        let each = f64::from(INSTRUCTIONS);
        assert_eq!(done(&times, 0.0), Some(0.0));
        assert!((done(&times, 0.2).unwrap() - 1.5 * each).abs() < 1.0);
        assert_eq!(done(&times, 0.3), None);
        let line = || Line { at: Stamp::default(), text: String::new() };
        let run = Finished::new(Stamp::default(), vec![line(), line()], None);
        assert!(speeds(&run, Clock::Wall).is_err());
    }
}
