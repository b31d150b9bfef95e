//! Traces of exits, counted up.

use std::collections::BTreeMap;

use serde::Serialize;
use trivium_machine::exits::format::{Header, Record};

use super::symbols::Symbols;
use super::what::{reason, what};

/// Traces side by side.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// One for each file.
    pub columns: Vec<Column>,
}

/// What is in one trace.
#[derive(Debug, Serialize)]
pub struct Column {
    /// The kind of CPU, or more if there are several of it.
    pub name: String,
    /// What an exit seems to cost in which nothing is done, in nanoseconds; it is in all figures.
    pub overhead_ns: u32,
    /// From the first exit to the end of the last, in nanoseconds.
    pub span_ns: u64,
    /// From the end of an exit to the beginning of the next, in nanoseconds: the median. It is the
    /// guest's own time, and what it takes to get there and back.
    pub between_ns: u64,
    /// All exits but those in which the CPU waited.
    pub all: Cost,
    /// Exits by their reason.
    pub reasons: BTreeMap<String, Cost>,
    /// Exits by what they were for.
    pub whats: BTreeMap<String, Cost>,
    /// Exits by the place in the guest.
    pub places: BTreeMap<String, Cost>,
}

/// What some exits have cost.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cost {
    /// How many there were.
    pub count: u64,
    /// What they cost together, in nanoseconds.
    pub total_ns: u64,
    /// How much of that was spent in the board and its devices.
    pub device_ns: u64,
    /// Half of them cost no more, in nanoseconds.
    pub median_ns: u64,
    /// A hundredth of them cost more, in nanoseconds.
    pub p99_ns: u64,
    /// Accesses to devices.
    pub accesses: u64,
}

/// Exits that are not summed up yet.
#[derive(Default)]
struct Group {
    costs: Vec<u64>,
    cost: Cost,
}

impl Group {
    fn add(&mut self, record: &Record) {
        self.costs.push(record.cost_ns);
        self.cost.count += 1;
        self.cost.total_ns = self.cost.total_ns.saturating_add(record.cost_ns);
        self.cost.device_ns = self.cost.device_ns.saturating_add(record.device_ns);
        self.cost.accesses += u64::from(record.accesses);
    }

    fn finish(mut self) -> Cost {
        self.costs.sort_unstable();
        let at = |share: usize| {
            let last = self.costs.len().saturating_sub(1);
            self.costs.get(last * share / 100).copied().unwrap_or(0)
        };
        Cost { median_ns: at(50), p99_ns: at(99), ..self.cost }
    }
}

fn grouped(records: &[Record], name: impl Fn(&Record) -> String) -> BTreeMap<String, Cost> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for record in records {
        groups.entry(name(record)).or_default().add(record);
    }
    groups.into_iter().map(|(name, group)| (name, group.finish())).collect()
}

impl Column {
    /// Sums a trace up.
    pub fn new(header: &Header, records: &[Record], symbols: &Symbols) -> Self {
        let mut all = Group::default();
        for record in records.iter().filter(|record| !is_wait(record)) {
            all.add(record);
        }
        let begin = records.iter().map(|r| r.time_ns).min().unwrap_or(0);
        let end = records.iter().map(|r| r.time_ns.saturating_add(r.cost_ns)).max();
        Self {
            name: header.cpu.clone(),
            overhead_ns: header.overhead_ns,
            span_ns: end.unwrap_or(0).saturating_sub(begin),
            between_ns: between_ns(records),
            all: all.finish(),
            reasons: grouped(records, |record| reason(record.reason).to_owned()),
            whats: grouped(records, what),
            places: grouped(records, |record| symbols.name(record.linear)),
        }
    }
}

fn between_ns(records: &[Record]) -> u64 {
    let mut ends = BTreeMap::new();
    let mut gaps = Vec::new();
    for record in records {
        let end = record.time_ns.saturating_add(record.cost_ns);
        if let Some(before) = ends.insert(record.cpu, end) {
            gaps.push(record.time_ns.saturating_sub(before));
        }
    }
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).copied().unwrap_or(0)
}

/// Whether the time of an exit is that of waiting for something to happen.
fn is_wait(record: &Record) -> bool {
    use trivium_cpu::ExitReason::{Halted, WaitForSipi};
    matches!(record.reason, Halted | WaitForSipi)
}

#[cfg(test)]
mod tests {
    use trivium_cpu::ExitReason;

    use super::*;

    #[test]
    fn exits_are_counted_by_reason_and_place() {
        let exit = |time_ns, linear, reason, cost_ns| Record {
            time_ns,
            linear,
            reason,
            cost_ns,
            device_ns: 5,
            ..Record::default()
        };
        let records = [
            exit(100, 0x10, ExitReason::PortRead, 10),
            exit(200, 0x10, ExitReason::PortRead, 30),
            exit(300, 0x20, ExitReason::PortWrite, 50),
            exit(400, 0x30, ExitReason::Halted, 1000),
        ];
        let header = Header { cpu: "jit".into(), overhead_ns: 20 };
        let column = Column::new(&header, &records, &Symbols::default());
        assert_eq!((column.span_ns, column.all.count, column.all.total_ns), (1300, 3, 90));
        assert_eq!(column.between_ns, 70, "of 90, 70 and 50");
        let read = &column.reasons["port read"];
        assert_eq!((read.count, read.total_ns, read.device_ns, read.median_ns), (2, 40, 10, 10));
        assert_eq!(column.places["0x10"].count, 2);
        assert_eq!(column.reasons["halted"].total_ns, 1000);
    }
}
