//! `trivium explain`: what is in files that runs have left, for people.

mod block;
mod chart;
mod summary;
mod symbols;
mod table;
mod what;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use trivium_machine::exits::format;

use crate::options::ExplainOptions;
use summary::{Column, Summary};
use symbols::Symbols;

/// Runs the command.
///
/// # Errors
/// A file cannot be used.
pub fn explain(options: &ExplainOptions) -> Result<u8> {
    if options.block.block.is_some() || options.block.bytes.is_some() {
        return block::show(&options.block, &options.files);
    }
    let symbols = options.symbols.as_deref().map(symbols).transpose()?.unwrap_or_default();
    let mut columns = Vec::new();
    for file in &options.files {
        columns.push(column(file, &symbols)?);
    }
    name_apart(&mut columns, &options.files);
    let summary = Summary { columns };
    if let Some(path) = &options.chart {
        chart::draw(&summary, path, options.font.as_deref())?;
    }
    let to_output = options.json.as_deref() == Some(Path::new("-"));
    let text = match to_output {
        true => serde_json::to_string_pretty(&summary)? + "\n",
        false => table::render(&summary, options.top),
    };
    if let Some(path) = options.json.as_ref().filter(|_| !to_output) {
        let json = serde_json::to_string_pretty(&summary)?;
        fs::write(path, json + "\n").with_context(|| named("--json", path))?;
    }
    // A reader that has seen enough is no mistake.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

fn named(option: &str, path: &Path) -> String {
    format!("{option} {}", path.display())
}

fn symbols(path: &Path) -> Result<Symbols> {
    let text = fs::read_to_string(path).with_context(|| named("--symbols", path))?;
    let symbols = Symbols::parse(&text);
    let some = !symbols.is_empty();
    some.then_some(symbols)
        .ok_or_else(|| anyhow!("{}: no line is 'ADDRESS TYPE NAME'", named("--symbols", path)))
}

fn column(path: &Path, symbols: &Symbols) -> Result<Column> {
    let name = || path.display().to_string();
    let file = File::open(path).with_context(name)?;
    let (header, records) = format::read(file).with_context(name)?;
    Ok(Column::new(&header, &records, symbols))
}

/// Columns of the same kind of CPU get their files' names too.
fn name_apart(columns: &mut [Column], files: &[std::path::PathBuf]) {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for column in columns.iter() {
        *count.entry(column.name.clone()).or_default() += 1;
    }
    for (column, file) in columns.iter_mut().zip(files) {
        if count.get(&column.name).is_some_and(|&n| n > 1) {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            column.name = format!("{} ({stem})", column.name);
        }
    }
}
