//! Draws the kept samples: each contender's speed as a multiple of the baseline's, as a PNG.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use serde::Deserialize;

use super::contender::{BASELINE, CONTENDERS};
use super::curve;
use super::report;
use super::sample::{Row, Unit};
use super::scenario::SCENARIOS;

/// Of Debian's package fonts-dejavu-core.
pub const FONT: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";

/// Who is drawn beside the baseline, and in which colour.
const BARS: &[(&str, RGBColor)] = &[
    ("trivium-interp", RGBColor(0x9E, 0xB9, 0xD4)),
    ("trivium-jit", RGBColor(0x1F, 0x5F, 0xA8)),
    ("bochs", RGBColor(0xD9, 0xB3, 0x82)),
    ("native", RGBColor(0xBD, 0xBD, 0xBD)),
];

/// Pixels.
const WIDTH: u32 = 1070;
const LEFT: i32 = 240;
const RIGHT: i32 = 1020;
const TOP: i32 = 70;
const BAR: i32 = 9;
const GAP: i32 = 7;
const HEADER: i32 = 30;

/// Ends of the logarithmic axis, and where it has lines.
const RANGE: (f64, f64) = (1.0 / 32.0, 128.0);
const LINES: &[(f64, &str)] = &[
    (1.0 / 16.0, "1/16"),
    (0.25, "1/4"),
    (0.5, "1/2"),
    (1.0, "TCG"),
    (2.0, "2"),
    (4.0, "4"),
    (16.0, "16"),
    (64.0, "64"),
];

#[derive(Deserialize)]
struct Kept {
    scenario: String,
    rows: Vec<KeptRow>,
}

#[derive(Deserialize)]
struct KeptRow {
    metric: String,
    who: String,
    unit: Option<Unit>,
    values: Vec<f64>,
}

/// What is drawn for one scenario.
struct Panel {
    title: String,
    /// A metric, and the contenders' speeds with it.
    lines: Vec<(String, Vec<(RGBColor, f64)>)>,
}

pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// Draws what is kept in `dir` to `file`.
pub fn draw(dir: &Path, file: &Path) -> Result<()> {
    let font = fs::read(FONT).with_context(|| format!("Cannot read {FONT}"))?;
    register_font("sans-serif", FontStyle::Normal, Box::leak(font.into_boxed_slice()))
        .map_err(|_| anyhow!("{FONT} is no font"))?;
    let is_drawn = curve::draw(dir, &file.with_file_name("warmup.png"))?;
    let panels: Vec<Panel> = SCENARIOS
        .iter()
        .filter(|scenario| scenario.name != "warmup")
        .filter_map(|scenario| panel(&dir.join(format!("{}.json", scenario.name))))
        .collect();
    if panels.is_empty() && is_drawn {
        return Ok(());
    }
    ensure!(!panels.is_empty(), "No samples in {} to draw", dir.display());
    let height = TOP + panels.iter().map(Panel::height).sum::<i32>() + GAP;
    let area = BitMapBackend::new(file, (WIDTH, u32::try_from(height)?)).into_drawing_area();
    paint(&area, &panels, height).with_context(|| format!("Cannot draw {}", file.display()))?;
    area.present().with_context(|| format!("Cannot write {}", file.display()))
}

/// The panel of a file of samples, if it is there and the baseline is in it.
fn panel(path: &Path) -> Option<Panel> {
    let kept: Kept = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let title = kept.scenario.clone();
    let rows = kept.rows();
    let speeds = |metric: &str| -> Vec<(RGBColor, f64)> {
        let speed = |who| report::speed(&rows, metric, who, BASELINE);
        BARS.iter().filter_map(|(who, colour)| Some((*colour, speed(who)?))).collect()
    };
    let lines = report::metrics(&rows).into_iter().map(|name| (name.to_owned(), speeds(name)));
    let lines: Vec<_> = lines.filter(|(_, speeds)| !speeds.is_empty()).collect();
    (!lines.is_empty()).then_some(Panel { title, lines })
}

/// The rows of a file of samples, if it is there.
pub(super) fn rows(path: &Path) -> Option<Vec<Row>> {
    let kept: Kept = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    Some(kept.rows())
}

impl Kept {
    fn rows(self) -> Vec<Row> {
        self.rows.into_iter().filter_map(row).collect()
    }
}

fn row(kept: KeptRow) -> Option<Row> {
    let who = CONTENDERS.iter().find(|who| who.name == kept.who)?.name;
    let KeptRow { metric, unit, values, .. } = kept;
    Some(Row { metric, who, unit, values, error: None })
}

impl Panel {
    fn height(&self) -> i32 {
        HEADER + self.lines.iter().map(|(_, speeds)| line_height(speeds)).sum::<i32>()
    }
}

fn line_height(speeds: &[(RGBColor, f64)]) -> i32 {
    BAR * i32::try_from(speeds.len()).unwrap_or(i32::MAX) + GAP
}

/// Where a speed is on the axis.
#[expect(clippy::cast_possible_truncation, reason = "a place within the picture")]
fn place(speed: f64) -> i32 {
    let part = (speed / RANGE.0).ln() / (RANGE.1 / RANGE.0).ln();
    LEFT + (part.clamp(0.0, 1.0) * f64::from(RIGHT - LEFT)) as i32
}

fn paint(area: &Area<'_>, panels: &[Panel], height: i32) -> Result<()> {
    area.fill(&WHITE)?;
    let title = format!("Speed as a multiple of {BASELINE}'s, logarithmic");
    text(area, &title, (LEFT, 18), 18, HPos::Left)?;
    legend(area)?;
    for (speed, name) in LINES {
        let (x, shade) = (place(*speed), if *speed == 1.0 { 0x60 } else { 0xDD });
        let line = PathElement::new([(x, TOP), (x, height - GAP)], RGBColor(shade, shade, shade));
        area.draw(&line)?;
        text(area, name, (x, TOP - 8), 12, HPos::Center)?;
    }
    let mut y = TOP;
    for panel in panels {
        text(area, &panel.title, (LEFT - 8, y + HEADER / 2), 16, HPos::Right)?;
        y += HEADER;
        for (name, speeds) in &panel.lines {
            bars(area, name, speeds, y)?;
            y += line_height(speeds);
        }
    }
    Ok(())
}

fn legend(area: &Area<'_>) -> Result<()> {
    for ((who, colour), x) in BARS.iter().zip((LEFT..).step_by(150)) {
        area.draw(&Rectangle::new([(x, 38), (x + 12, 48)], colour.filled()))?;
        text(area, who, (x + 18, 43), 13, HPos::Left)?;
    }
    Ok(())
}

/// One metric: its name, and a bar from the baseline for each contender.
fn bars(area: &Area<'_>, name: &str, speeds: &[(RGBColor, f64)], top: i32) -> Result<()> {
    text(area, name, (LEFT - 8, top + (line_height(speeds) - GAP) / 2), 13, HPos::Right)?;
    for ((colour, speed), y) in speeds.iter().zip((top..).step_by(BAR as usize)) {
        let (from, to) = (place(speed.min(1.0)), place(speed.max(1.0)));
        area.draw(&Rectangle::new([(from, y), (to, y + BAR - 1)], colour.filled()))?;
        let (x, side) = if *speed < 1.0 { (from - 3, HPos::Right) } else { (to + 3, HPos::Left) };
        text(area, &format!("{speed:.2}"), (x, y + BAR / 2), 10, side)?;
    }
    Ok(())
}

pub(super) fn text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    side: HPos,
) -> Result<()> {
    let style = ("sans-serif", size).into_text_style(area).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text, at, style))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_is_logarithmic_and_ends_at_its_ends() {
        assert_eq!((place(RANGE.0), place(RANGE.1)), (LEFT, RIGHT));
        assert_eq!((place(1e-9), place(1e9)), (LEFT, RIGHT));
        assert!((place(4.0) - place(2.0) - (place(2.0) - place(1.0))).abs() <= 1);
    }

    #[test]
    fn a_panel_is_of_speeds_and_leaves_out_what_has_no_baseline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot.json");
        let row = |metric: &str, who: &str, value: f64| {
            format!(r#"{{"metric":"{metric}","who":"{who}","unit":"s","values":[{value}]}}"#)
        };
        let rows = [
            row("boot", "trivium-jit", 2.0),
            row("boot", BASELINE, 5.0),
            row("other", "trivium-jit", 1.0),
        ];
        let text = format!(r#"{{"scenario":"boot","rows":[{}]}}"#, rows.join(","));
        fs::write(&path, text).unwrap();
        let panel = panel(&path).unwrap();
        assert_eq!(panel.lines.len(), 1);
        assert_eq!(panel.lines[0].1[0].1, 2.5);
    }
}
