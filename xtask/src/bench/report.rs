//! Tables in markdown and samples in JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::contender::BASELINE;
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

/// The table of one scenario; rows of one metric stand together.
pub fn markdown(scenario: &Scenario, rows: &[Row]) -> String {
    let mut text = format!("### {}: {}\n\n", scenario.name, scenario.about);
    let _ = writeln!(text, "| what | who | median | min | max | runs | / {BASELINE} |");
    text.push_str("|---|---|---:|---:|---:|---:|---:|\n");
    for metric in metrics(rows) {
        for row in rows.iter().filter(|row| row.metric == metric) {
            text.push_str(&line(row, ratio(rows, row)));
        }
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

fn metrics(rows: &[Row]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.error.is_none()) {
        if !names.contains(&row.metric.as_str()) {
            names.push(&row.metric);
        }
    }
    names
}

/// The median of `row` over that of the baseline.
fn ratio(rows: &[Row], row: &Row) -> Option<f64> {
    let is_base = |other: &&Row| other.who == BASELINE && other.metric == row.metric;
    Some(row.median()? / rows.iter().find(is_base)?.median()?)
}

fn line(row: &Row, ratio: Option<f64>) -> String {
    let unit = row.unit.map_or("", |unit| unit.sign());
    let cell = |value: Option<f64>| value.map_or_else(|| "-".into(), digits);
    let ratio = ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
    format!(
        "| {} | {} | {} {unit} | {} | {} | {} | {ratio} |\n",
        row.metric,
        row.who,
        cell(row.median()),
        cell(row.min()),
        cell(row.max()),
        row.values.len(),
    )
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

    fn row(who: &'static str, values: &[f64]) -> Row {
        let (metric, unit) = ("boot".to_owned(), Some(Unit::Seconds));
        Row { metric, who, unit, values: values.to_vec(), error: None }
    }

    #[test]
    fn ratios_are_of_medians_to_the_baseline() {
        let rows = [row("ours", &[4.0, 6.0, 5.0]), row(BASELINE, &[2.0, 2.0, 9.0])];
        assert_eq!(ratio(&rows, &rows[0]), Some(2.5));
        assert_eq!(ratio(&rows[..1], &rows[0]), None);
        assert_eq!(
            line(&rows[0], Some(2.5)),
            "| boot | ours | 5.00 s | 4.00 | 6.00 | 3 | 2.50 |\n"
        );
    }
}
