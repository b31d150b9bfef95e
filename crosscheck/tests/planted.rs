//! Bugs planted in the interpreter are found by the host's processor, and made small.

use trivium_cpu::model::CpuModel;
use trivium_crosscheck::duel::{Duel, Verdict};
use trivium_crosscheck::engine::Engine;
use trivium_crosscheck::generate::{Generator, Plan};
use trivium_crosscheck::host::{self, HostEngine};
use trivium_crosscheck::minimise::minimise;
use trivium_crosscheck::vcpu::VcpuEngine;
use trivium_interp::planted::{BUGS, Bug, plant};

/// Each is found within so many cases.
const CASES: u64 = 100_000;
const CHUNK: u64 = 1000;

fn model() -> CpuModel {
    let max = CpuModel::by_name("max").expect("there is such a model");
    let features = max.features.intersection(host::host_features());
    CpuModel { features, vendor: host::host_vendor(), ..max }
}

/// The number of the case that finds a bug, and whether one instruction was enough. A case finds it
/// if the engines differ with the bug and agree without it.
fn find(bug: &'static Bug, duel: &mut Duel, generator: &Generator) -> Option<(u64, bool)> {
    for chunk in 0..CASES / CHUNK {
        let cases: Vec<_> =
            (chunk * CHUNK..(chunk + 1) * CHUNK).map(|n| generator.case(n)).collect();
        plant(Some(bug));
        let verdicts = duel.run(&cases).expect("the engines run");
        for (case, verdict) in cases.iter().zip(verdicts) {
            if !matches!(verdict, Verdict::Run(round) if !round.fields.is_empty()) {
                continue;
            }
            plant(None);
            let agreed = duel.differences(case).expect("the engines run").is_empty();
            plant(Some(bug));
            if !agreed {
                continue;
            }
            if let Some(small) = minimise(duel, case).expect("the engines run") {
                return Some((case.id.index, small.single));
            }
        }
    }
    None
}

#[test]
fn every_planted_bug_is_found_and_made_one_instruction() {
    let host = match HostEngine::new() {
        Ok(host) => host,
        Err(error) => {
            assert!(std::env::var_os("TRIVIUM_REQUIRE_HOST").is_none(), "{error}");
            println!("SKIP: {error}");
            return;
        }
    };
    let model = model();
    let interpreter = VcpuEngine::interpreter(model).expect("memory");
    let engines: [Box<dyn Engine>; 2] = [Box::new(interpreter), Box::new(host)];
    let mut duel = Duel::new(engines, &model, false);
    let generator = Generator::new(1, model.features, Plan::default()).expect("a plan");
    assert!(BUGS.len() >= 40);
    let mut missed = Vec::new();
    for bug in BUGS {
        let found = find(bug, &mut duel, &generator);
        plant(None);
        match found {
            Some((case, true)) => println!("{}: case {case}", bug.name),
            Some((case, false)) => {
                missed.push(format!("{}: case {case}, but not made one instruction", bug.name));
            }
            None => missed.push(format!("{}: not found", bug.name)),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
