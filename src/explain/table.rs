//! Summaries as tables, traces side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::summary::{Column, Cost, Summary};

/// What a table is of: costs by name.
type Of = fn(&Column) -> &BTreeMap<String, Cost>;

/// The tables, as Markdown has them; each with no more than `top` lines.
pub fn render(summary: &Summary, top: usize) -> String {
    let mut text = String::new();
    for column in &summary.columns {
        let _ = writeln!(text, "{}", sentence(column));
    }
    let tables: [(&str, Of); 3] = [
        ("Why", |column| &column.reasons),
        ("What for", |column| &column.whats),
        ("Where in the guest", |column| &column.places),
    ];
    for (title, of) in tables {
        let _ = write!(text, "\n{}", table(summary, title, of, top));
    }
    text
}

fn sentence(column: &Column) -> String {
    let Column { name, all, span_ns, overhead_ns, between_ns, .. } = column;
    let seconds = *span_ns as f64 / 1e9;
    let rate = all.count as f64 / seconds.max(1e-9);
    let share = 100.0 * all.total_ns as f64 / (*span_ns as f64).max(1.0);
    format!(
        "{name}: {} exits in {seconds:.2} s, {rate:.0} a second, {share:.1} % of the time; {} from one \
         to the next (median); the clock itself takes {overhead_ns} ns of each",
        all.count,
        span(*between_ns)
    )
}

fn table(summary: &Summary, title: &str, of: Of, top: usize) -> String {
    let names: BTreeSet<&String> = summary.columns.iter().flat_map(|c| of(c).keys()).collect();
    let most = |name: &String| {
        summary.columns.iter().filter_map(|c| of(c).get(name)).map(|cost| cost.total_ns).max()
    };
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by_key(|name| std::cmp::Reverse(most(name)));
    let mut rows = vec![heading(summary, title)];
    for name in names.iter().take(top) {
        let costs = summary.columns.iter().flat_map(|column| cells(of(column).get(*name)));
        rows.push(std::iter::once((*name).clone()).chain(costs).collect());
    }
    let mut text = aligned(&rows);
    if let Some(rest) = names.len().checked_sub(top).filter(|rest| *rest > 0) {
        let _ = writeln!(text, "and {rest} more");
    }
    text
}

fn heading(summary: &Summary, title: &str) -> Vec<String> {
    let columns = summary.columns.iter().flat_map(|column| {
        ["exits", "median", "in devices", "total"].map(|what| format!("{}: {what}", column.name))
    });
    std::iter::once(title.to_owned()).chain(columns).collect()
}

fn cells(cost: Option<&Cost>) -> [String; 4] {
    let Some(cost) = cost else { return ["", "", "", ""].map(String::from) };
    let device = cost.device_ns.checked_div(cost.count).unwrap_or(0);
    let device = if cost.accesses == 0 { String::new() } else { span(device) };
    [cost.count.to_string(), span(cost.median_ns), device, span(cost.total_ns)]
}

/// A span of time with three digits or so.
fn span(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// Rows as a table, the first of which is its heading.
fn aligned(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| {
        rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(|n| width(n).max(3)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match n {
                0 => write!(text, "| {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
        if number == 0 {
            for (n, width) in widths.iter().enumerate() {
                let line = "-".repeat(width - 1);
                let _ = match n {
                    0 => write!(text, "|{line}---|"),
                    _ => write!(text, "{line}--:|"),
                };
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units_that_fit() {
        let texts = [999, 12_300, 12_300_000, 12_300_000_000].map(span);
        assert_eq!(texts, ["999 ns", "12.3 µs", "12.3 ms", "12.3 s"]);
    }

    #[test]
    fn traces_stand_side_by_side() {
        let cost = |count, total_ns| Cost { count, total_ns, ..Cost::default() };
        let column = |name: &str, reasons: &[(&str, Cost)]| Column {
            name: name.into(),
            overhead_ns: 20,
            span_ns: 1_000_000,
            between_ns: 0,
            all: cost(3, 300),
            reasons: reasons.iter().map(|(name, cost)| ((*name).into(), cost.clone())).collect(),
            whats: BTreeMap::new(),
            places: BTreeMap::new(),
        };
        let columns = vec![
            column("interp", &[("port read", cost(3, 300))]),
            column("jit", &[("port read", cost(2, 100)), ("halted", cost(1, 9000))]),
        ];
        let text = render(&Summary { columns }, 2);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("interp: 3 exits in 0.00 s, 3000 a second"), "{text}");
        let cells = |n: usize| lines[n].split('|').map(str::trim).collect::<Vec<_>>();
        assert_eq!(cells(3)[1..4], ["Why", "interp: exits", "interp: median"]);
        assert_eq!(cells(5)[1..3], ["halted", ""]);
        assert_eq!(cells(6)[1..3], ["port read", "3"]);
        assert_eq!(cells(6)[6], "2");
    }
}
