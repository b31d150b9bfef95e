//! Names of addresses in the guest.

use std::collections::BTreeMap;

/// Names by address.
#[derive(Debug, Default)]
pub struct Symbols(BTreeMap<u64, String>);

/// How far behind its symbol an address may be, in bytes: functions are not longer.
const REACH: u64 = 1 << 16;

impl Symbols {
    /// From lines of `ADDRESS TYPE NAME`; others are passed over.
    pub fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            // Only code.
            words.next().filter(|kind| matches!(*kind, "t" | "T" | "w" | "W"))?;
            Some((address, words.next()?.to_owned()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An address, with its name if it has one.
    pub fn name(&self, address: u64) -> String {
        let before = self.0.range(..=address).next_back();
        match before.filter(|(start, _)| address - *start < REACH) {
            Some((start, name)) => format!("{name}+{:#x}", address - start),
            None => format!("{address:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_by_the_symbol_before_it() {
        let text = "0000000000001000 T main\nnonsense\n1100 d data\n1200 t inner [module]\n";
        let symbols = Symbols::parse(text);
        let names = [0xfff, 0x1000, 0x1130, 0x1203, 0x2_1200].map(|at| symbols.name(at));
        assert_eq!(names, ["0xfff", "main+0x0", "main+0x130", "inner+0x3", "0x21200"]);
    }
}
