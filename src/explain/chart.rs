//! Summaries as a picture: for each reason how many exits there were, and what they cost.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::named;
use super::summary::{Cost, Summary};

/// Where systems have DejaVu Sans.
const FONTS: &[&str] = &[
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu/DejaVuSans.ttf",
];

/// One for each trace, over and over.
const COLOURS: &[RGBColor] = &[
    RGBColor(0x9E, 0xB9, 0xD4),
    RGBColor(0x1F, 0x5F, 0xA8),
    RGBColor(0xC9, 0x6F, 0x1B),
    RGBColor(0x4F, 0x8F, 0x4F),
    RGBColor(0x8A, 0x5F, 0xA0),
];

/// Pixels.
const WIDTH: i32 = 1100;
const LABELS: i32 = 190;
const PANEL: i32 = 400;
const BETWEEN: i32 = 50;
const TOP: i32 = 96;
const BAR: i32 = 12;
const GAP: i32 = 10;

/// How a figure of a cost is shown.
struct Panel {
    title: &'static str,
    of: fn(&Cost) -> f64,
    text: fn(f64) -> String,
}

const PANELS: [Panel; 2] = [
    Panel { title: "exits", of: |cost| cost.count as f64, text: |value| format!("{value:.0}") },
    Panel {
        title: "median cost of one, ns",
        of: |cost| cost.median_ns as f64,
        text: |value| format!("{value:.0}"),
    },
];

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// Draws a summary to `path`.
///
/// # Errors
/// There is no font, or the file cannot be written.
pub fn draw(summary: &Summary, path: &Path, font: Option<&Path>) -> Result<()> {
    let font = font_file(font)?;
    // It lives as long as the process does, which ends soon.
    register_font("sans-serif", FontStyle::Normal, Box::leak(font.into_boxed_slice()))
        .map_err(|_| anyhow!("--font: it is no font"))?;
    let mut reasons: Vec<&String> = summary.columns.iter().flat_map(|c| c.reasons.keys()).collect();
    reasons.sort();
    reasons.dedup();
    let row = summary.columns.len() as i32 * BAR + GAP;
    let height = TOP + row * reasons.len() as i32 + 20;
    let area = BitMapBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    picture(summary, &reasons, &area).map_err(|error| anyhow!("{error}"))?;
    area.present().map_err(|error| anyhow!("{}: {error}", named("--chart", path)))
}

fn font_file(font: Option<&Path>) -> Result<Vec<u8>> {
    if let Some(path) = font {
        return fs::read(path).with_context(|| named("--font", path));
    }
    FONTS.iter().find_map(|path| fs::read(path).ok()).ok_or_else(|| {
        anyhow!(
            "--chart needs a font: install DejaVu Sans (fonts-dejavu-core), or name one by --font"
        )
    })
}

fn picture(
    summary: &Summary,
    reasons: &[&String],
    area: &Area<'_>,
) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    write(area, "Exits by reason", (10, 12), 20, HPos::Left)?;
    for (n, column) in summary.columns.iter().enumerate() {
        let x = 200 + 170 * n as i32;
        bar(area, (x, 18), 14, colour(n))?;
        write(area, &column.name, (x + 20, 16), 15, HPos::Left)?;
    }
    let row = summary.columns.len() as i32 * BAR + GAP;
    for (n, reason) in reasons.iter().enumerate() {
        let middle = TOP + row * n as i32 + (row - GAP) / 2 - 7;
        write(area, reason, (LABELS - 10, middle), 14, HPos::Right)?;
    }
    for (n, panel) in PANELS.iter().enumerate() {
        let left = LABELS + n as i32 * (PANEL + BETWEEN);
        panel.draw(summary, reasons, area, left)?;
    }
    Ok(())
}

impl Panel {
    /// Bars on a logarithmic scale from 1 on.
    fn draw(
        &self,
        summary: &Summary,
        reasons: &[&String],
        area: &Area<'_>,
        left: i32,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let costs = summary.columns.iter().flat_map(|column| column.reasons.values());
        let most = costs.map(self.of).fold(10.0, f64::max);
        let decades = most.log10().ceil();
        let room = f64::from(PANEL - 70);
        let length = |value: f64| (room * value.max(1.0).log10() / decades) as i32;
        let bottom = TOP + (summary.columns.len() as i32 * BAR + GAP) * reasons.len() as i32;
        write(area, &format!("{} (logarithmic)", self.title), (left, TOP - 42), 14, HPos::Left)?;
        for decade in 0..=decades as i32 {
            let x = left + length(10f64.powi(decade));
            let line = PathElement::new(vec![(x, TOP - 8), (x, bottom)], RGBColor(220, 220, 220));
            area.draw(&line)?;
            let text = if decade < 4 {
                10i64.pow(decade as u32).to_string()
            } else {
                format!("1e{decade}")
            };
            write(area, &text, (x, TOP - 24), 11, HPos::Center)?;
        }
        for (n, reason) in reasons.iter().enumerate() {
            for (c, column) in summary.columns.iter().enumerate() {
                let Some(cost) = column.reasons.get(*reason) else { continue };
                let value = (self.of)(cost);
                let y =
                    TOP + (summary.columns.len() as i32 * BAR + GAP) * n as i32 + BAR * c as i32;
                bar(area, (left, y), length(value), colour(c))?;
                write(area, &(self.text)(value), (left + length(value) + 4, y), 11, HPos::Left)?;
            }
        }
        Ok(())
    }
}

fn colour(column: usize) -> RGBColor {
    COLOURS[column % COLOURS.len()]
}

fn bar(
    area: &Area<'_>,
    (x, y): (i32, i32),
    length: i32,
    colour: RGBColor,
) -> Result<(), Box<dyn std::error::Error>> {
    area.draw(&Rectangle::new([(x, y), (x + length.max(1), y + BAR - 2)], colour.filled()))?;
    Ok(())
}

fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: u32,
    side: HPos,
) -> Result<(), Box<dyn std::error::Error>> {
    let style = ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(side, VPos::Top));
    area.draw_text(text, &style, at)?;
    Ok(())
}
