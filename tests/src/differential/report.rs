//! What a contest found.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

/// Enough to see the pattern; behind the first few, states have diverged anyway.
const TOLD: usize = 40;

/// Counts, and the differences in words.
#[derive(Debug, Default)]
pub struct Report {
    /// Calls made on both sides, watch creates and cancels included.
    pub operations: usize,
    /// Watch events compared.
    pub events: usize,
    /// Calls that the oracle refused, by the text.
    pub refusals: BTreeMap<String, usize>,
    /// By name of the call.
    pub calls: BTreeMap<&'static str, usize>,
    /// Differences that docs/differences.md lists, by tag.
    pub documented: BTreeMap<&'static str, usize>,
    /// Differences that it does not list: none in a good run.
    pub differences: Vec<String>,
}

impl Report {
    pub(super) fn differ(&mut self, text: String) {
        self.differences.push(text);
    }

    /// Whether going on would only repeat what is known.
    pub(super) fn is_hopeless(&self) -> bool {
        self.differences.len() >= TOLD
    }

    pub(super) fn merge(&mut self, other: Report) {
        self.operations += other.operations;
        self.events += other.events;
        for (text, count) in other.refusals {
            *self.refusals.entry(text).or_default() += count;
        }
        for (name, count) in other.calls {
            *self.calls.entry(name).or_default() += count;
        }
        for (tag, count) in other.documented {
            *self.documented.entry(tag).or_default() += count;
        }
        self.differences.extend(other.differences);
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} operations, {} watch events, {} refusals with {} texts, {} differences, documented {:?}",
            self.operations,
            self.events,
            self.refusals.values().sum::<usize>(),
            self.refusals.len(),
            self.differences.len(),
            self.documented
        )?;
        writeln!(f, "{:?}", self.calls)?;
        writeln!(f, "{:?}", self.refusals)?;
        for difference in self.differences.iter().take(TOLD) {
            writeln!(f, "- {difference}")?;
        }
        Ok(())
    }
}
