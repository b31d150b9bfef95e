//! Tests of the generator as a whole.

use std::collections::{HashMap, HashSet};

use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic};
use trivium_cpu::model::FeatureSet;

use super::*;
use crate::layout::{DATA, LDT_ENTRIES, PAGE, region_of};

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

/// Cases of one kind alone.
fn of_kind(kind: Kind) -> Generator {
    generator(Plan { kinds: vec![(kind, 1)], ..Plan::default() })
}

#[test]
fn operands_lie_wherever_they_can() {
    use address::Target;
    let mut rng = Rng::new(0, 0);
    let mut seen = HashMap::new();
    for _ in 0..20_000 {
        *seen.entry(Target::any(&mut rng, Width::Bits64) as u8).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), Target::Around as usize + 1);
    assert!(seen.values().all(|&n| n > 50), "{seen:?}");
    // A place is what its name says.
    for size in [1, 2, 8, 16, 32, 512] {
        let mut at = |target: Target| target.address(&mut rng, size);
        let aligned = at(Target::Aligned);
        assert!(aligned % size.min(64) == 0 && DATA.contains(aligned));
        let (page, line) = (at(Target::Page), at(Target::Line));
        if size > 1 {
            assert_ne!(page / PAGE, (page + size - 1) / PAGE);
            assert_ne!(line / 64, (line + size - 1) / 64);
            assert!(region_of(at(Target::IntoNothing)).is_some());
            assert!(region_of(at(Target::IntoNothing) + size - 1).is_none());
        }
        assert!(region_of(at(Target::Nothing)).is_none());
    }
}

#[test]
fn sequences_have_several_instructions_and_some_branch() {
    let generator = of_kind(Kind::Sequence);
    let mut branches = 0;
    for index in 0..2000 {
        let case = generator.case(index);
        let decoder = Decoder::new(case.width.bits(), &case.code, DecoderOptions::NONE);
        let all: Vec<_> = { decoder }.into_iter().collect();
        assert!(all.len() >= 2 && all.len() <= 80, "{index}: {}", all.len());
        branches += usize::from(all.iter().any(|i| i.near_branch_target() != 0));
    }
    assert!(branches > 500, "{branches}");
}

#[test]
fn loops_go_back_to_their_beginning() {
    let generator = of_kind(Kind::Loop);
    for index in 0..500 {
        let case = generator.case(index);
        let decoder = Decoder::new(case.width.bits(), &case.code, DecoderOptions::NONE);
        let all: Vec<_> = { decoder }.into_iter().collect();
        assert_eq!(all[0].mnemonic(), Mnemonic::Mov, "{index}");
        let back = all
            .iter()
            .find(|i| i.mnemonic() == Mnemonic::Jne && i.near_branch_target() == all[0].next_ip());
        let cut = region_of(case.code_at + case.code.len() as u64).is_none();
        let far = case.code.len() > 120;
        assert!(back.is_some() || cut || far, "{index}");
    }
}

#[test]
fn code_that_modifies_itself_may_be_written() {
    let generator = of_kind(Kind::Modifying);
    for index in 0..500 {
        let case = generator.case(index);
        assert!(crate::layout::OPEN_CODE.contains(case.code_at), "{index}");
        assert_ne!(case.width, Width::Bits16);
    }
}

#[test]
fn repeats_have_their_prefix() {
    let generator = of_kind(Kind::Repeat);
    for index in 0..500 {
        let case = generator.case(index);
        let cut = region_of(case.code_at + 15).is_none();
        assert!(cut || case.code.iter().any(|b| [0xf2, 0xf3].contains(b)), "{index}");
    }
}

#[test]
fn kinds_come_as_often_as_the_plan_says() {
    let generator = generator(Plan::default());
    let mut counts = HashMap::new();
    for index in 0..2000 {
        *counts.entry(generator.case(index).kind).or_insert(0) += 1;
    }
    for (kind, weight) in Plan::default().kinds {
        assert_eq!(counts[&kind], weight * 100, "{kind:?}");
    }
}

#[test]
fn a_plan_that_leaves_nothing_is_refused() {
    let refused = |plan| Generator::new(1, features(), plan).err();
    let nothing = Plan { only: Some("xyzzy".into()), ..Plan::default() };
    assert_eq!(refused(nothing), Some(PlanError::Nothing("xyzzy".into())));
    let only = |widths| Plan { widths, ldt: false, ..Plan::default() };
    assert_eq!(refused(only(vec![(Width::Bits16, 1)])), Some(PlanError::Empty));
    assert_eq!(refused(Plan { kinds: Vec::new(), ..Plan::default() }), Some(PlanError::Empty));
    // Code that modifies itself is never 16-bit.
    let plan = Plan {
        kinds: vec![(Kind::Modifying, 1)],
        widths: vec![(Width::Bits16, 1)],
        ..Plan::default()
    };
    assert_eq!(refused(plan), Some(PlanError::Empty));
}

#[test]
fn only_what_is_asked_for() {
    let plan = Plan { only: Some("imul_R16".into()), ..Plan::default() };
    let generator = generator(plan);
    assert_eq!(generator.encodings().len(), 3);
    let of_names = |kind| matches!(kind, Kind::Encoding | Kind::Sequence);
    assert!((0..100).all(|index| of_names(generator.case(index).kind)));
}

#[test]
fn a_cpu_without_long_mode_gets_no_64_bit_code() {
    use trivium_cpu::model::CpuModel;
    let mut set = CpuModel::by_name("max").expect("a model").features;
    set.disable(Feature::Lm);
    set.disable(Feature::Sse);
    let generator = Generator::new(1, set, Plan::default()).expect("a good plan");
    for index in 0..2000 {
        let case = generator.case(index);
        assert_ne!(case.width, Width::Bits64);
        assert!(case.state.zmm.iter().flatten().all(|&w| w == 0) && case.state.mxcsr == 0x1f80);
    }
}

#[test]
fn fetches_reach_the_end_of_the_code() {
    let generator = of_kind(Kind::Encoding);
    let (mut cut, mut flush, mut crossing) = (0, 0, 0);
    for index in 0..5000 {
        let case = generator.case(index);
        let end = case.code_at + case.code.len() as u64;
        let region = encoding::region(case.code_at);
        flush += usize::from(end == region.end());
        crossing += usize::from(case.code_at / PAGE != (end - 1) / PAGE);
        let decoder = Decoder::new(case.width.bits(), &case.code, DecoderOptions::NONE);
        cut += usize::from({ decoder }.decode().is_invalid() && end == region.end());
    }
    assert!(flush > 200 && cut > 50 && crossing > 100, "{flush} {cut} {crossing}");
}
