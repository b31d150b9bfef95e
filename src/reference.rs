//! What the program tells of itself: CPU models, completions, manual pages.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use trivium_cpu::model::{CpuModel, FEATURES, MODELS};

use crate::options::Options;

/// Lists CPU models and features.
pub fn models() -> anyhow::Result<u8> {
    let mut out = std::io::stdout().lock();
    let list = |out: &mut dyn Write| -> std::io::Result<()> {
        for model in MODELS {
            describe(out, model)?;
        }
        Ok(())
    };
    // A reader who has seen enough is no error.
    match list(&mut out) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("Cannot write to standard output")
        }
        _ => Ok(0),
    }
}

fn describe(out: &mut dyn Write, model: &CpuModel) -> std::io::Result<()> {
    writeln!(out, "{:<10} {} ({})", model.name, model.description, model.year)?;
    let mut line = String::new();
    for info in FEATURES.iter().filter(|info| model.has(info.feature)) {
        if line.len() + info.name.len() > 80 {
            writeln!(out, "          {line}")?;
            line.clear();
        }
        line.push(' ');
        line.push_str(info.name);
    }
    writeln!(out, "          {line}\n")
}

/// Prints a completion script.
pub fn completions(shell: clap_complete::Shell) -> anyhow::Result<u8> {
    clap_complete::generate(shell, &mut Options::command(), "trivium", &mut std::io::stdout());
    Ok(0)
}

/// Writes the manual pages.
pub fn man(directory: &Path) -> anyhow::Result<u8> {
    clap_mangen::generate_to(Options::command(), directory)
        .with_context(|| format!("Cannot write manual pages to {}", directory.display()))?;
    Ok(0)
}
