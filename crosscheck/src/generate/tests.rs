//! Tests of the generator as a whole.

use std::collections::{HashMap, HashSet};

use iced_x86::{Code, Decoder, DecoderOptions};
use trivium_cpu::model::FeatureSet;

use super::*;
use crate::layout::{LDT_ENTRIES, region_of};

fn features() -> FeatureSet {
    FeatureSet::of(&trivium_cpu::model::FEATURES.iter().map(|f| f.feature).collect::<Vec<_>>())
}

fn generator(plan: Plan) -> Generator {
    Generator::new(1, features(), plan).expect("a good plan")
}

#[test]
fn a_case_comes_from_its_seed_and_index_alone() {
    let (a, b) = (generator(Plan::default()), generator(Plan::default()));
    let other = Generator::new(2, features(), Plan::default()).expect("a good plan");
    for index in (0..300).rev() {
        let case = a.case(index);
        assert_eq!(case, b.case(index));
        assert_ne!(case.state, other.case(index).state);
    }
}

#[test]
fn one_round_covers_all_encodings() {
    let plan = Plan { kinds: vec![(Kind::Encoding, 1)], ..Plan::default() };
    let generator = generator(plan);
    let count = generator.encodings().len() as u64;
    assert!(count > 1700, "{count}");
    for round in 0..2 {
        let places =
            (round * count..(round + 1) * count).map(|i| generator.place(i, Kind::Encoding));
        assert_eq!(places.collect::<HashSet<_>>().len() as u64, count);
    }
}

/// Whether some bytes of an encoding have another name.
fn has_other_name(form: &Form) -> bool {
    let nop = matches!(form.code, Code::Xchg_r16_AX | Code::Xchg_r32_EAX);
    nop || form.mnemonic == iced_x86::Mnemonic::Reservednop
}

#[test]
fn instructions_without_noise_are_what_they_should_be() {
    let table = Table::new(features(), false);
    let mut wrong: HashMap<(Code, Width), (Vec<u8>, Code)> = HashMap::new();
    for form in &table.forms {
        for width in table::WIDTHS.into_iter().filter(|&w| table::testable(form, w)) {
            for n in 0..20 {
                let mut draft = Draft::new(Rng::new(n, 7), width, features(), true);
                let (mut parts, _) = operands::build(&mut draft, form, None);
                encoding::resolve(&mut draft, &mut parts);
                let bytes = parts.bytes();
                let found = encoding::decode(width, &bytes);
                if (found.code() != form.code && !has_other_name(form))
                    || found.len() != bytes.len()
                {
                    wrong.insert((form.code, width), (bytes, found.code()));
                }
            }
        }
    }
    for ((code, width), (bytes, found)) in &wrong {
        println!("{code:?} {width:?}: {bytes:02x?} is {found:?}");
    }
    assert!(wrong.is_empty());
}

#[test]
fn what_is_left_out_has_a_reason_that_is_true() {
    let table = Table::new(features(), false);
    let lost: Vec<Code> = table
        .excluded
        .iter()
        .filter(|(_, reason)| {
            reason.starts_with("is decoded") || reason.starts_with("has operands")
        })
        .map(|(code, _)| *code)
        .collect();
    // The first four exist on AMD's CPUs alone, the last has no ModR/M byte there.
    let other = [
        Code::Loopne_rel8_16_RCX,
        Code::Loope_rel8_16_RCX,
        Code::Loop_rel8_16_RCX,
        Code::Jrcxz_rel8_16,
        Code::Ud0,
    ];
    assert_eq!(lost, other);
    assert_eq!(table.forms.len() + table.excluded.len(), Code::values().count());
}

#[test]
fn states_are_those_that_user_code_can_have() {
    let generator = generator(Plan::default());
    for index in 0..20_000 {
        let case = generator.case(index);
        let s = &case.state;
        assert_eq!(s.rflags & !0x24_4dd5, 0x202, "{index}");
        assert!(case.ldt.len() <= LDT_ENTRIES && !case.code.is_empty());
        for (address, bytes) in case.patches() {
            let region = region_of(address).expect("a patch is in a region");
            assert!(address + bytes.len() as u64 <= region.end(), "{index} {address:#x}");
        }
        if case.width != Width::Bits64 {
            assert!(s.regs.iter().all(|r| r >> 32 == 0) && s.rip >> 32 == 0, "{index}");
            assert!(s.regs[8..].iter().all(|&r| r == 0), "{index}");
        }
        for base in [s.fs_base, s.gs_base] {
            let high = base as i64 >> 47;
            assert!(high == 0 || high == -1, "{index} {base:#x}");
        }
        let pending = s.x87.status & !s.x87.control & 0x3f != 0;
        assert_eq!(s.x87.status & 0x8080 == 0x8080, pending, "{index}");
        assert!(s.zmm[16..].iter().flatten().all(|&w| w == 0));
    }
}

#[test]
fn no_code_holds_what_a_case_does_not_decide() {
    let generator = generator(Plan::default());
    for index in 0..20_000 {
        let case = generator.case(index);
        let mut bytes = case.code.clone();
        bytes.extend([0xcc; 16]);
        let decoder = Decoder::new(case.width.bits(), &bytes, DecoderOptions::NONE);
        let first = { decoder }.decode();
        let code = first.code();
        let known = code == Code::INVALID || generator.encodings().contains(&code);
        let cut = region_of(case.code_at).is_none_or(|r| case.code_at + 16 >= r.end());
        assert!(known || cut, "{index} {code:?}");
    }
}
