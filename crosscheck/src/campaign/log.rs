//! The log of a campaign, in JSON lines: the plan first, then each chunk as it is done.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Chunk, Plan};

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// It cannot be read at all.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A line is none of ours.
    #[error("line {line} is not one of a campaign's log: {source}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It is that of another campaign.
    #[error("it is the log of another campaign; give it the same options or another name")]
    Other,
}

/// The first line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    plan: Plan,
    /// Engines, CPU model and kinds of cases: what else makes the campaign what it is.
    options: String,
}

/// Writes the first line.
///
/// # Errors
/// The file cannot be written.
pub fn write_header(to: &mut dyn Write, plan: &Plan, options: &str) -> std::io::Result<()> {
    let header = Header { plan: plan.clone(), options: options.to_owned() };
    write_line(to, &header)
}

/// Writes a line.
///
/// # Errors
/// The file cannot be written.
pub fn write_line(to: &mut dyn Write, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    to.write_all(line.as_bytes())
}

/// Reads the log of this campaign. A last line that was not written to its end does not count;
/// the second value is how many bytes the lines before it have.
///
/// # Errors
/// It cannot be read, or is another's.
pub fn read_log(
    from: impl BufRead,
    plan: &Plan,
    options: &str,
) -> Result<(Vec<Chunk>, u64), LogError> {
    let mut from = from;
    let (mut chunks, mut size, mut number) = (Vec::new(), 0, 0);
    let mut line = String::new();
    while from.read_line(&mut line)? > 0 && line.ends_with('\n') {
        number += 1;
        let bad = |source| LogError::Line { line: number, source };
        if number == 1 {
            let header: Header = serde_json::from_str(&line).map_err(bad)?;
            if header.plan != *plan || header.options != options {
                return Err(LogError::Other);
            }
        } else {
            chunks.push(serde_json::from_str(&line).map_err(bad)?);
        }
        size += line.len() as u64;
        line.clear();
    }
    Ok((chunks, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_back_but_for_a_torn_last_line() {
        let plan = Plan { seed: 1, cases: 5000, shard: (2, 3) };
        let chunk = Chunk { chunk: 1, cases: 990, ..Chunk::default() };
        let mut log = Vec::new();
        write_header(&mut log, &plan, "interp,host").unwrap();
        write_line(&mut log, &chunk).unwrap();
        let whole = log.len() as u64;
        log.extend(b"{\"chunk\":4,\"ca");
        let (chunks, size) = read_log(log.as_slice(), &plan, "interp,host").unwrap();
        assert_eq!((chunks, size), (vec![chunk], whole));
        let other = Plan { seed: 2, ..plan.clone() };
        assert!(matches!(read_log(log.as_slice(), &other, "interp,host"), Err(LogError::Other)));
        let garbage = b"what?\n";
        let error = read_log(garbage.as_slice(), &plan, "interp,host").unwrap_err();
        assert!(error.to_string().starts_with("line 1 is not"));
    }

    #[test]
    fn shards_have_all_chunks_between_them() {
        let plan = |shard| Plan { seed: 1, cases: 10_500, shard: (shard, 4) };
        let mut all: Vec<u64> = (1..=4).flat_map(|s| plan(s).chunks()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..11).collect::<Vec<_>>());
        assert_eq!(plan(1).cases_of(10), 10_000..10_500);
        assert_eq!((1..=4).map(|s| plan(s).shard_cases()).sum::<u64>(), 10_500);
    }
}
