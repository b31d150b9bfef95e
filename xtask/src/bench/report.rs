//! Tables in markdown, a column for each contender, and samples in JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::contender::{BASELINE, CONTENDERS, Contender, Kind};
use super::host::Host;
use super::sample::Row;
use super::scenario::Scenario;

#[derive(Serialize)]
struct Record<'a> {
    scenario: &'a str,
    about: &'a str,
    host: &'a Host,
    rows: &'a [Row],
}

/// A column with a ratio of medians.
struct Ratio {
    who: &'static Contender,
    to: &'static Contender,
}

/// The table of one scenario: a line for each metric, medians by contender, then ratios of speeds.
pub fn markdown(scenario: &Scenario, rows: &[Row]) -> String {
    let columns: Vec<_> = CONTENDERS.iter().filter(|who| has_values(rows, who)).collect();
    let ratios = ratios(&columns);
    let mut text = format!("### {}: {}\n\n", scenario.name, scenario.about);
    let names = columns.iter().map(|who| who.name.to_owned());
    let titles: Vec<String> = names.chain(ratios.iter().map(Ratio::title)).collect();
    let _ = writeln!(text, "| what | {} |", titles.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(titles.len()));
    for metric in metrics(rows) {
        let medians = columns.iter().map(|who| cell(rows, metric, who));
        let quotients = ratios.iter().map(|ratio| ratio.cell(rows, metric));
        let cells: Vec<String> = medians.chain(quotients).collect();
        let _ = writeln!(text, "| {metric} | {} |", cells.join(" | "));
    }
    for row in rows {
        if let Some(error) = &row.error {
            let _ = writeln!(text, "\n{} failed: {error}", row.who);
        }
    }
    text
}

/// Keeps the samples in `dir`.
pub fn save(dir: &Path, scenario: &Scenario, host: &Host, rows: &[Row]) -> Result<()> {
    let path = dir.join(format!("{}.json", scenario.name));
    let record = Record { scenario: scenario.name, about: scenario.about, host, rows };
    fs::write(&path, serde_json::to_vec_pretty(&record)?)
        .with_context(|| format!("Cannot write {}", path.display()))
}

/// How fast `who` is as a multiple of `to`, by the medians of `metric`.
pub fn speed(rows: &[Row], metric: &str, who: &str, to: &str) -> Option<f64> {
    let (ours, theirs) = (find(rows, metric, who)?, find(rows, metric, to)?);
    let quotient = ours.median()? / theirs.median()?;
    Some(if ours.unit?.is_speed() { quotient } else { quotient.recip() })
}

/// Ours against the baseline, then against no emulator at all.
fn ratios(columns: &[&'static Contender]) -> Vec<Ratio> {
    let bases = columns.iter().filter(|to| to.name == BASELINE || to.kind == Kind::Native);
    let pairs = bases.flat_map(|to| columns.iter().map(move |who| Ratio { who, to }));
    pairs.filter(|ratio| ratio.who.is_ours()).collect()
}

impl Ratio {
    fn title(&self) -> String {
        let ours = self.who.name.trim_start_matches("trivium-");
        match self.to.kind {
            Kind::Native => format!("{ours} time / native"),
            _ => format!("{ours} speed / TCG"),
        }
    }

    fn cell(&self, rows: &[Row], metric: &str) -> String {
        let faster = speed(rows, metric, self.who.name, self.to.name);
        let value = if self.to.kind == Kind::Native { faster.map(f64::recip) } else { faster };
        value.map_or_else(|| "-".into(), |value| format!("{value:.2}"))
    }
}

fn has_values(rows: &[Row], who: &Contender) -> bool {
    rows.iter().any(|row| row.who == who.name && !row.values.is_empty())
}

fn find<'a>(rows: &'a [Row], metric: &str, who: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.who == who && row.metric == metric)
}

/// The names of what was measured, in order.
pub fn metrics(rows: &[Row]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.error.is_none()) {
        if !names.contains(&row.metric.as_str()) {
            names.push(&row.metric);
        }
    }
    names
}

fn cell(rows: &[Row], metric: &str, who: &Contender) -> String {
    let row = find(rows, metric, who.name);
    let value = row.and_then(|row| Some((row.median()?, row.unit?)));
    value.map_or_else(|| "-".into(), |(median, unit)| format!("{} {}", digits(median), unit.sign()))
}

/// Three significant digits or so.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size < 1.0 => 3,
        size if size < 100.0 => 2,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample::Unit;

    fn row(who: &'static str, unit: Unit, values: &[f64]) -> Row {
        let metric = "boot".to_owned();
        Row { metric, who, unit: Some(unit), values: values.to_vec(), error: None }
    }

    #[test]
    fn a_ratio_is_of_speeds_whatever_the_unit() {
        let times = [
            row("trivium-jit", Unit::Seconds, &[4.0, 6.0, 5.0]),
            row(BASELINE, Unit::Seconds, &[2.0, 2.0, 9.0]),
        ];
        assert_eq!(speed(&times, "boot", "trivium-jit", BASELINE), Some(0.4));
        assert_eq!(speed(&times[..1], "boot", "trivium-jit", BASELINE), None);
        let speeds = times.map(|row| Row { unit: Some(Unit::MillionsPerSecond), ..row });
        assert_eq!(speed(&speeds, "boot", "trivium-jit", BASELINE), Some(2.5));
    }

    #[test]
    fn a_line_has_the_medians_and_then_the_ratios() {
        let rows = [
            row("trivium-jit", Unit::MillionsPerSecond, &[600.0]),
            row(BASELINE, Unit::MillionsPerSecond, &[200.0]),
            row("native", Unit::MillionsPerSecond, &[1200.0]),
        ];
        let scenario = Scenario { name: "s", about: "a", run: |_| Ok(Vec::new()) };
        let text = markdown(&scenario, &rows);
        let title =
            "| what | trivium-jit | qemu-tcg | native | jit speed / TCG | jit time / native |";
        assert!(text.contains(title), "{text}");
        assert!(text.contains("| boot | 600 M/s | 200 M/s | 1200 M/s | 3.00 | 2.00 |"), "{text}");
    }
}
