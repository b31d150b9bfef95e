//! The engine against itself: what cases do is determined by the case alone.

use iced_x86::{Decoder, DecoderOptions, Mnemonic};

use trivium_cpu::state::X87Register;

use super::*;
use crate::case::Width;
use crate::compare::compare;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// Random bytes on a random state, whose registers point into regions more often than not.
fn random_case(seed: u64) -> Case {
    let mut random = Random(seed);
    let len = 1 + random.next() % 24;
    let code: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
    let mut case = case(&code);
    match random.next() % 4 {
        0 => {
            case.width = Width::Bits32;
            case.state.selectors[1] = selector::CODE32;
        }
        1 => sixteen_bits(&mut case, &mut random),
        _ => {}
    }
    registers(&mut case, &mut random);
    case.state.mxcsr = 0x1f80 | random.next() as u32 & 0xe07f;
    case.state.rflags = 0x202 | random.next() & 0xcd5;
    // Now and then TF, AC, NT, ID.
    for bit in [8, 18, 14, 21] {
        case.state.rflags |= u64::from(random.next().is_multiple_of(12)) << bit;
    }
    case
}

fn sixteen_bits(case: &mut Case, random: &mut Random) {
    case.width = Width::Bits16;
    case.state.rip = 0;
    let mut entry = |base: u64, code| LdtEntry {
        base: base as u32,
        limit: 0xfff | random.next() as u32 & 0x1000,
        pages: false,
        code,
        open: true,
        expand_down: !code && random.next().is_multiple_of(8),
        big: false,
        present: true,
    };
    let entries = [entry(CODE.start, true), entry(DATA.start, false), entry(STACK.start, false)];
    case.ldt = entries.map(Some).to_vec();
    let [code, data, stack] = [0, 1, 2].map(selector::local);
    case.state.selectors = [data, code, stack, data, 0, data];
}

fn registers(case: &mut Case, random: &mut Random) {
    let wide = case.width == Width::Bits64;
    for n in 0..if wide { 16 } else { 8 } {
        let value = random.next();
        let near = [DATA.start, STACK.start, OPEN_CODE.start, 0][value as usize >> 3 & 3];
        let value = if value & 4 != 0 { near + (value >> 32 & 0xfff) } else { value };
        case.state.regs[n] = if wide { value } else { value & 0xffff_ffff };
    }
    for n in 0..16 {
        case.state.zmm[n][..2].copy_from_slice(&[random.next(), random.next()]);
    }
    for register in &mut case.state.x87.regs {
        let sign_exponent = random.next() as u16;
        *register = X87Register { mantissa: random.next(), sign_exponent };
    }
    case.state.x87.tags = random.next() as u16;
    case.state.x87.control = 0x37f & !(random.next() as u16 & 0xf00);
    case.state.x87.status = random.next() as u16 & 0x7f3f & !0x40;
    if random.next().is_multiple_of(2) {
        case.state.x87.status &= !0x3f;
        case.state.x87.control &= !(random.next() as u16 & 0x3f);
    }
}

/// Whether an instruction's outcome does not depend on the case alone.
fn depends(case: &Case) -> bool {
    use Mnemonic as M;
    let mut decoder = Decoder::new(case.width.bits(), &case.code, DecoderOptions::NONE);
    decoder.iter().any(|i| {
        matches!(
            i.mnemonic(),
            M::Rdtsc
                | M::Rdtscp
                | M::Rdpmc
                | M::Rdrand
                | M::Rdseed
                | M::Rdpid
                | M::Cpuid
                | M::Rdpru
        )
    })
}

#[test]
fn the_engine_agrees_with_itself() {
    let [mut first, mut second] = [engine(), engine()];
    let wide = first.has_avx512();
    let (mut run, mut differing) = (0, Vec::new());
    for chunk in 0..100 {
        let cases: Vec<Case> = (1000 * chunk..1000 * (chunk + 1))
            .map(random_case)
            .filter(|case| !depends(case) && first.refuses(case).is_none())
            .collect();
        run += cases.len();
        let outcomes = first.run(&cases).unwrap().into_iter().zip(second.run(&cases).unwrap());
        for (case, (one, other)) in cases.iter().zip(outcomes) {
            let fields = compare(&one, &other, &Default::default(), wide);
            if !fields.is_empty() {
                differing.push((case.code.clone(), fields));
            }
        }
    }
    assert!(run > 90_000, "{run} cases");
    assert!(differing.is_empty(), "{} differ, the first: {:02x?}", differing.len(), differing[0]);
}
