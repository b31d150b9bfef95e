//! Which instructions are too long: more than 15 bytes raise #GP(0), whatever they would be.
//!
//! Intel SDM vol. 2A, 2.3.11; AMD APM vol. 3, 1.1.

use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::MAX_LEN;
use crate::cpu::Mode;

/// Whether the instruction that begins with these bytes has more than 15. It is measured with each
/// prefix but once, which is never too much for the decoder.
pub(super) fn is_too_long(bytes: &[u8], mode: Mode) -> bool {
    let long = mode.has(Mode::LONG);
    let is_prefix = |byte: u8| is_legacy(byte) || long && is_rex(byte);
    let prefixes = bytes.iter().take_while(|&&byte| is_prefix(byte)).count();
    if prefixes >= MAX_LEN {
        return true;
    }
    // A REX prefix counts only in the last place.
    let has_rex = prefixes > 0 && long && bytes.get(prefixes - 1).is_some_and(|&b| is_rex(b));
    let body = prefixes - usize::from(has_rex);
    let mut short = Vec::with_capacity(MAX_LEN);
    let prefixes = bytes.get(..body).unwrap_or_default();
    short.extend([0x66, 0x67].into_iter().filter(|prefix| prefixes.contains(prefix)));
    short.extend(prefixes.iter().rfind(|&&byte| matches!(byte, 0xf2 | 0xf3)));
    let dropped = body - short.len();
    short.extend(bytes.iter().skip(body).take(MAX_LEN - short.len()));
    let options = DecoderOptions::NO_INVALID_CHECK;
    let mut instruction = Instruction::default();
    Decoder::new(mode.bitness(), &short, options).decode_out(&mut instruction);
    let length = match instruction.is_invalid() {
        // The decoder takes a byte after each opcode that does not exist for its ModR/M byte.
        true => instruction.len().saturating_sub(1),
        false => instruction.len(),
    };
    dropped + length > MAX_LEN
}

fn is_legacy(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}

fn is_rex(byte: u8) -> bool {
    matches!(byte, 0x40..=0x4f)
}

#[cfg(test)]
mod tests {
    use crate::testing::{CODE, RAM, TABLES, TestMachine};
    use trivium_cpu::Vector;

    /// `count` operand-size prefixes, and an instruction.
    fn prefixed(count: usize, instruction: &[u8]) -> Vec<u8> {
        let mut code = vec![0x66; count];
        code.extend(instruction);
        code
    }

    #[test]
    fn instructions_of_more_than_15_bytes_raise_gp() {
        // As on a Zen 5: NOP, UD2, LOCK NOP, and a MOV with REX, SIB, displacement and immediate.
        let cases: [(usize, &[u8]); 5] = [
            (15, &[0x90]),
            (14, &[0x0f, 0x0b]),
            (14, &[0xf0, 0x90]),
            (20, &[0x90]),
            (4, &[0x48, 0xc7, 0x84, 0x24, 1, 2, 3, 4, 1, 2, 3, 4]),
        ];
        for (count, instruction) in cases {
            TestMachine::long(&prefixed(count, instruction)).raises(Vector::GP, Some(0));
        }
    }

    #[test]
    fn instructions_of_15_bytes_are_what_they_are() {
        let mut m = TestMachine::long(&prefixed(14, &[0x90]));
        m.run(1);
        assert_eq!(m.state().general.rip, CODE + 15);
        TestMachine::long(&prefixed(13, &[0x0f, 0x0b])).raises(Vector::UD, None);
        // PUSH ES does not exist in 64-bit code.
        TestMachine::long(&prefixed(14, &[0x06])).raises(Vector::UD, None);
    }

    #[test]
    fn the_fetch_faults_before_the_length_is_known() {
        // Twelve prefixes at the end of what is mapped, then four more.
        let mut m = TestMachine::long(&[]);
        let end = RAM;
        m.put(end - 12, &[0x66; 12]);
        m.put_u64(TABLES + 0x2008, 0);
        m.set(|s| s.general.rip = end - 12);
        m.raises(Vector::PF, Some(0x10));
        assert_eq!(m.state().control.cr2, end);
        // Fifteen of them are too long already.
        let mut m = TestMachine::long(&[]);
        m.put(end - 15, &[0x66; 15]);
        m.put_u64(TABLES + 0x2008, 0);
        m.set(|s| s.general.rip = end - 15);
        m.raises(Vector::GP, Some(0));
    }
}
