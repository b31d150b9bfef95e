//! Divergences that were found and mended stay mended: what a real processor made of them is in
//! their files.

use std::fs;
use std::path::Path;

use trivium_cpu::model::{CpuModel, Vendor};
use trivium_crosscheck::duel::{Duel, Verdict};
use trivium_crosscheck::repro::Repro;
use trivium_crosscheck::vcpu::VcpuEngine;
use trivium_crosscheck::{Case, Engine, EngineError, Outcome};

/// An engine that knows what came of the cases that it is asked for.
struct Recorded(Vec<(Case, Outcome)>);

impl Recorded {
    fn outcome(&self, case: &Case) -> Option<&Outcome> {
        self.0.iter().find(|(known, _)| known == case).map(|(_, outcome)| outcome)
    }
}

impl Engine for Recorded {
    fn name(&self) -> &'static str {
        "recorded"
    }

    fn refuses(&self, case: &Case) -> Option<&'static str> {
        self.outcome(case).is_none().then_some("nothing is recorded of it")
    }

    fn has_avx512(&self) -> bool {
        false
    }

    fn run(&mut self, cases: &[Case]) -> Result<Vec<Outcome>, EngineError> {
        Ok(cases.iter().filter_map(|case| self.outcome(case).cloned()).collect())
    }
}

fn corpus() -> Vec<(String, Repro)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = fs::read_dir(folder).expect("there is a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.sort();
    let read = |path: &Path| {
        let text = fs::read_to_string(path).expect("it can be read");
        Repro::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.iter().map(|path| (path.display().to_string(), read(path))).collect()
}

#[test]
fn what_was_mended_agrees_with_what_was_recorded() {
    let corpus = corpus();
    let outcome = |repro: &Repro| {
        let [_, host] = repro.outcomes.clone().expect("both outcomes are in the file");
        (repro.case.clone(), host)
    };
    let recorded = Recorded(corpus.iter().map(|(_, repro)| outcome(repro)).collect());
    let max = CpuModel::by_name("max").expect("there is such a model");
    let model = CpuModel { vendor: Vendor::Amd, ..max };
    let interpreter = VcpuEngine::interpreter(model).expect("memory");
    let mut duel = Duel::new([Box::new(interpreter), Box::new(recorded)], &model, false);
    assert!(corpus.len() >= 50, "{} files", corpus.len());
    for (name, repro) in &corpus {
        match duel.run_one(&repro.case).expect("the engines run") {
            Verdict::Run(round) => assert!(round.fields.is_empty(), "{name}: {:?}", round.fields),
            Verdict::Refused(reason) => panic!("{name}: {reason}"),
        }
    }
}
