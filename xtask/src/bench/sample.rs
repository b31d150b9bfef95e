//! Samples of measurements, their medians, and the order in which they are taken.

use std::collections::BTreeSet;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::Context;
use super::contender::Contender;
use crate::interrupt;

/// What a value is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Seconds of wall time; less is better.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds of wall time; less is better.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Mebibytes; less is better.
    #[serde(rename = "MiB")]
    Mebibytes,
    /// Millions of guest instructions a second; more is better.
    #[serde(rename = "M/s")]
    MillionsPerSecond,
}

/// One value of one run.
pub struct Metric {
    /// What was measured.
    pub name: String,
    /// In what unit.
    pub unit: Unit,
    /// The value.
    pub value: f64,
}

/// All values of one metric and one contender.
#[derive(Serialize)]
pub struct Row {
    /// What was measured.
    pub metric: String,
    /// Who was measured.
    pub who: &'static str,
    /// In what unit.
    pub unit: Option<Unit>,
    /// The values in the order of the runs.
    pub values: Vec<f64>,
    /// Why there are no more values.
    pub error: Option<String>,
}

impl Unit {
    /// Whether more is better.
    pub fn is_speed(self) -> bool {
        self == Unit::MillionsPerSecond
    }

    /// Its sign.
    pub fn sign(self) -> &'static str {
        match self {
            Unit::Seconds => "s",
            Unit::Milliseconds => "ms",
            Unit::Mebibytes => "MiB",
            Unit::MillionsPerSecond => "M/s",
        }
    }
}

impl Metric {
    /// Seconds of wall time.
    pub fn seconds(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), unit: Unit::Seconds, value }
    }
}

impl Row {
    /// The middle value, or the mean of the two in the middle.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(sorted[middle]),
            _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        }
    }
}

/// The geometric mean of the medians, of each contender that has all of them.
pub fn geometric_means(context: &Context, rows: &[Row]) -> Vec<Row> {
    let all = rows.iter().filter(|row| row.error.is_none());
    let count = all.map(|row| row.metric.as_str()).collect::<BTreeSet<_>>().len();
    context.contenders.iter().filter_map(|who| geometric_mean(rows, who, count)).collect()
}

/// The geometric mean of the medians of `who`, if there are `count` of them.
fn geometric_mean(rows: &[Row], who: &Contender, count: usize) -> Option<Row> {
    let own: Vec<&Row> = rows.iter().filter(|row| row.who == who.name).collect();
    let medians: Vec<f64> = own.iter().map(|row| row.median()).collect::<Option<_>>()?;
    if medians.len() != count || count == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a handful of loops")]
    let mean = (medians.iter().map(|median| median.ln()).sum::<f64>() / count as f64).exp();
    let unit = own.first().and_then(|row| row.unit);
    let metric = "geometric mean".into();
    Some(Row { metric, who: who.name, unit, values: vec![mean], error: None })
}

/// Lets the contenders take turns at `measure`. One that fails is told of and takes no more turns.
pub fn interleave(
    context: &Context,
    contenders: &[&'static Contender],
    mut measure: impl FnMut(&'static Contender) -> Result<Vec<Metric>>,
) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let all = contenders.iter().map(|who| u64::from(turns(context, who))).sum();
    let bar = progress(all);
    for round in 0..context.runs {
        for who in contenders.iter().filter(|who| round < turns(context, who)) {
            if rows.iter().any(|row| row.who == who.name && row.error.is_some()) {
                continue;
            }
            bar.set_message(who.name);
            match measure(who) {
                Ok(metrics) => metrics.into_iter().for_each(|metric| add(&mut rows, who, metric)),
                Err(error) => {
                    interrupt::check()?;
                    rows.push(failed(who, format!("{error:#}")));
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(rows)
}

fn turns(context: &Context, who: &Contender) -> u32 {
    if who.is_slow { 1 } else { context.runs }
}

fn add(rows: &mut Vec<Row>, who: &Contender, metric: Metric) {
    let known = rows.iter_mut().find(|row| row.who == who.name && row.metric == metric.name);
    match known {
        Some(row) => row.values.push(metric.value),
        None => rows.push(Row {
            metric: metric.name,
            who: who.name,
            unit: Some(metric.unit),
            values: vec![metric.value],
            error: None,
        }),
    }
}

fn failed(who: &Contender, error: String) -> Row {
    let metric = "failed".to_owned();
    Row { metric, who: who.name, unit: None, values: Vec::new(), error: Some(error) }
}

fn progress(turns: u64) -> ProgressBar {
    let template = "  {bar:24} {pos}/{len} {msg} {elapsed}";
    let style = ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar());
    let bar = ProgressBar::new(turns).with_style(style);
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contender::CONTENDERS;

    fn row(values: &[f64]) -> Row {
        let metric = "m".to_owned();
        Row { metric, who: "w", unit: None, values: values.to_vec(), error: None }
    }

    #[test]
    fn the_geometric_mean_is_the_root_of_the_product() {
        let who = &CONTENDERS[0];
        let own = |values| Row { who: who.name, ..row(values) };
        let mean = geometric_mean(&[own(&[2.0]), own(&[8.0])], who, 2).unwrap();
        assert!((mean.values[0] - 4.0).abs() < 1e-9);
        assert!(geometric_mean(&[own(&[2.0])], who, 2).is_none(), "one has failed");
        let failed = Row { error: Some("no".into()), ..own(&[]) };
        assert!(geometric_mean(&[own(&[2.0]), failed], who, 2).is_none());
    }

    #[test]
    fn the_median_is_the_middle_value_or_between_the_two() {
        assert_eq!(row(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(row(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(row(&[]).median(), None);
    }
}
