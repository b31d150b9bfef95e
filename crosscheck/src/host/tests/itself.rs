//! The engine against itself: what cases do is determined by the case alone.

use iced_x86::{Decoder, DecoderOptions, Mnemonic};

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
    if random.next().is_multiple_of(3) {
        case.width = Width::Bits32;
        case.state.selectors[1] = selector::CODE32;
    }
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
    case.state.rflags = 0x202 | random.next() & 0xcd5;
    case.state.mxcsr = 0x1f80 | random.next() as u32 & 0xe07f;
    case
}

/// Whether an instruction's outcome does not depend on the case alone.
fn depends(case: &Case) -> bool {
    use Mnemonic as M;
    let mut decoder = Decoder::new(case.width.bits(), &case.code, DecoderOptions::NONE);
    decoder.iter().any(|i| {
        matches!(
            i.mnemonic(),
            M::Rdtsc | M::Rdtscp | M::Rdrand | M::Rdseed | M::Rdpid | M::Cpuid | M::Rdpru
        )
    })
}

#[test]
fn the_engine_agrees_with_itself() {
    let cases: Vec<Case> = (0..50_000).map(random_case).filter(|c| !depends(c)).collect();
    let [mut first, mut second] = [engine(), engine()];
    let wide = first.has_avx512();
    let allowed: Vec<&Case> = cases.iter().filter(|c| first.refuses(c).is_none()).collect();
    let cases: Vec<Case> = allowed.into_iter().cloned().collect();
    assert!(cases.len() > 45_000);
    let mut differing = Vec::new();
    for chunk in cases.chunks(1000) {
        let outcomes = first.run(chunk).unwrap().into_iter().zip(second.run(chunk).unwrap());
        for (case, (one, other)) in chunk.iter().zip(outcomes) {
            let fields = compare(&one, &other, &Default::default(), wide);
            if !fields.is_empty() {
                differing.push((case.code.clone(), fields));
            }
        }
    }
    assert!(differing.is_empty(), "{} differ, the first: {:02x?}", differing.len(), differing[0]);
}
