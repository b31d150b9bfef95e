//! Draws the kept samples of `warmup`: instructions a second over time, as a PNG.

use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::chart::{self, Area};
use super::sample::Row;
use super::warmup::{self, WINDOWS};

/// Who is drawn, and in which colour.
const CURVES: &[(&str, RGBColor)] = &[
    ("trivium-interp", RGBColor(0x9E, 0xB9, 0xD4)),
    ("trivium-jit", RGBColor(0x1F, 0x5F, 0xA8)),
    ("qemu-tcg", RGBColor(0xC4, 0x4E, 0x52)),
    ("bochs", RGBColor(0xD9, 0xB3, 0x82)),
];

/// Pixels.
const SIZE: (u32, u32) = (1070, 460);
const LEFT: i32 = 80;
const RIGHT: i32 = 1030;
const TOP: i32 = 70;
const BOTTOM: i32 = 410;

/// Ends of the logarithmic axes: milliseconds, and millions of instructions a second.
const TIME: (f64, f64) = (5.0, 1000.0);
const SPEED: (f64, f64) = (1.0, 4096.0);
const TIMES: [u32; 7] = [10, 20, 50, 100, 200, 500, 1000];
const SPEEDS: [u32; 7] = [1, 4, 16, 64, 256, 1024, 4096];

/// Draws `warmup` of what is kept in `dir` to `file`; nothing if it is not there.
pub fn draw(dir: &Path, file: &Path) -> Result<bool> {
    let Some(rows) = chart::rows(&dir.join("warmup.json")) else { return Ok(false) };
    let area = BitMapBackend::new(file, SIZE).into_drawing_area();
    paint(&area, &rows).with_context(|| format!("Cannot draw {}", file.display()))?;
    area.present().with_context(|| format!("Cannot write {}", file.display()))?;
    Ok(true)
}

/// Where a value is on a logarithmic axis of so many pixels.
#[expect(clippy::cast_possible_truncation, reason = "a place within the picture")]
fn place(value: f64, (from, to): (f64, f64), pixels: i32) -> i32 {
    let part = (value / from).ln() / (to / from).ln();
    (part.clamp(0.0, 1.0) * f64::from(pixels)) as i32
}

fn x(time: f64) -> i32 {
    LEFT + place(time, TIME, RIGHT - LEFT)
}

fn y(speed: f64) -> i32 {
    BOTTOM - place(speed, SPEED, BOTTOM - TOP)
}

fn paint(area: &Area<'_>, rows: &[Row]) -> Result<()> {
    const GREY: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);
    area.fill(&WHITE)?;
    let title = "Millions of guest instructions a second, by milliseconds from a cold start";
    chart::text(area, title, (LEFT, 18), 18, HPos::Left)?;
    for time in TIMES {
        let at = x(f64::from(time));
        area.draw(&PathElement::new([(at, TOP), (at, BOTTOM)], GREY))?;
        chart::text(area, &time.to_string(), (at, BOTTOM + 14), 12, HPos::Center)?;
    }
    for speed in SPEEDS {
        let at = y(f64::from(speed));
        area.draw(&PathElement::new([(LEFT, at), (RIGHT, at)], GREY))?;
        chart::text(area, &speed.to_string(), (LEFT - 8, at), 12, HPos::Right)?;
    }
    let curves = CURVES.iter().map(|(who, colour)| (who, colour, points(rows, who)));
    let drawn = curves.filter(|(_, _, points)| !points.is_empty());
    for ((who, colour, points), left) in drawn.zip((LEFT..).step_by(150)) {
        area.draw(&Rectangle::new([(left, 38), (left + 12, 48)], colour.filled()))?;
        chart::text(area, who, (left + 18, 43), 13, HPos::Left)?;
        area.draw(&PathElement::new(points, colour.stroke_width(2)))?;
    }
    Ok(())
}

/// A step for each window.
fn points(rows: &[Row], who: &str) -> Vec<(i32, i32)> {
    let mut begin = TIME.0;
    let mut points = Vec::new();
    for end in WINDOWS {
        let row = rows.iter().find(|row| row.who == who && row.metric == warmup::name(end));
        let Some(speed) = row.and_then(Row::median) else { break };
        points.extend([begin, f64::from(end)].map(|time| (x(time), y(speed))));
        begin = f64::from(end);
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_a_step_for_each_window_that_was_measured() {
        let row = |end, value| Row {
            metric: warmup::name(end),
            who: "trivium-jit",
            unit: None,
            values: vec![value],
            error: None,
        };
        let points = points(&[row(10, 4.0), row(20, 64.0)], "trivium-jit");
        assert_eq!(points.len(), 4);
        assert_eq!((points[0].0, points[3].0), (LEFT, x(20.0)));
        assert_eq!(points[1].0, points[2].0);
        assert!(points[2].1 < points[1].1);
    }
}
