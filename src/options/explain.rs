//! The command line of `trivium explain`, and of what it explains.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::BlockOptions;

/// What `explain` takes.
#[derive(Debug, Args)]
pub struct ExplainOptions {
    /// Traces of `run --trace-exits`, one for each column; or the file that has the code of --block.
    #[arg(required_unless_present_any = ["block", "bytes"], value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How many lines each table has at most.
    #[arg(long, default_value_t = 15, value_name = "N")]
    pub top: usize,
    /// Names of addresses in the guest: lines of `ADDRESS TYPE NAME`, as nm and /proc/kallsyms have
    /// them.
    #[arg(long, value_name = "FILE")]
    pub symbols: Option<PathBuf>,
    /// Write all of it to a file as JSON, too; - is standard output, without the tables.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw a chart, a PNG.
    #[arg(long, value_name = "FILE")]
    pub chart: Option<PathBuf>,
    /// The font of the chart's text, TrueType; DejaVu Sans of the system unless given.
    #[arg(long, value_name = "FILE")]
    pub font: Option<PathBuf>,
    /// Which block is to be shown, if one is.
    #[command(flatten)]
    pub block: BlockOptions,
}

/// What `--trace-exits` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceExitsOption {
    /// Where to.
    pub file: PathBuf,
    /// What a CPU in software does by itself too.
    pub inner: bool,
}

impl FromStr for TraceExitsOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, inner) = match text.strip_suffix(",inner") {
            Some(file) => (file, true),
            None => (text, false),
        };
        let named = !file.is_empty();
        named.then(|| Self { file: file.into(), inner }).ok_or_else(|| "name a file".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_exits_are_asked_for_behind_the_file() {
        let parse = |text: &str| text.parse::<TraceExitsOption>().map(|o| (o.file, o.inner));
        assert_eq!(parse("a,b"), Ok(("a,b".into(), false)));
        assert_eq!(parse("a,inner"), Ok(("a".into(), true)));
        assert!(parse("").is_err() && parse(",inner").is_err());
    }
}
