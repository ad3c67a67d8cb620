//! How much a keyspace holds, and how much it may.
//!
//! Promises: usage and limits depend on the log alone, not on when superseded versions leave memory, on restarts or on
//! what memory holds; the counters equal what [`tally`] counts. A write that the limits refuse changes nothing.
//!
//! A version becomes history with the revision that supersedes it, a tombstone with its own; a compaction takes away
//! what became history up to its revision. So the history of each revision is remembered ([`timeline::Timeline`]) and
//! a compaction need not look at a single key.

mod change;
mod check;
mod tally;
mod timeline;

use bytes::Bytes;
use keygate_core::{QuotaLimits, QuotaUse};
use std::sync::Arc;
use timeline::Timeline;

/// The limits of one keyspace, and those counters that [`super::keyspace::Count`] does not have.
#[derive(Clone, Default)]
pub(super) struct Quotas {
    /// Of the whole keyspace.
    limits: QuotaLimits,
    /// Of the whole keyspace.
    history: Timeline,
    /// Ascending by prefix.
    scopes: Vec<Arc<Scope>>,
}

/// A prefix with limits of its own.
#[derive(Clone)]
struct Scope {
    prefix: Bytes,
    /// The place of the next shorter prefix of this one that has limits too.
    parent: Option<usize>,
    limits: QuotaLimits,
    keys: u64,
    bytes: u64,
    history: Timeline,
}

impl Scope {
    fn used(&self) -> QuotaUse {
        QuotaUse { keys: self.keys, bytes: self.bytes, history: self.history.bytes() }
    }
}

/// What the change of one key does to the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Delta {
    pub(super) keys: i64,
    pub(super) bytes: i64,
    /// Never negative but by compaction.
    pub(super) history: u64,
}

impl Delta {
    /// `old`, `new`: the length of the value before and after, None where the key does not exist.
    pub(super) fn of(key: &[u8], old: Option<u64>, new: Option<u64>) -> Self {
        let key = key.len() as u64;
        let size = |value: Option<u64>| value.map_or(0, |value| key + value);
        let tombstone = if new.is_none() { key } else { 0 };
        Self {
            keys: i64::from(new.is_some()) - i64::from(old.is_some()),
            bytes: size(new) as i64 - size(old) as i64,
            history: size(old) + tombstone,
        }
    }

    fn add(&mut self, other: Self) {
        self.keys += other.keys;
        self.bytes += other.bytes;
        self.history += other.history;
    }
}

impl Quotas {
    /// Nothing is limited.
    pub(super) fn is_free(&self) -> bool {
        self.limits.is_empty() && self.scopes.is_empty()
    }

    /// Bytes of the whole keyspace's history.
    pub(super) fn history_bytes(&self) -> u64 {
        self.history.bytes()
    }

    /// Bytes that the counters take, estimated.
    pub(super) fn memory_used(&self) -> u64 {
        self.scopes.iter().map(|scope| scope.history.memory_used()).sum::<u64>() + self.history.memory_used()
    }

    /// A key has changed at revision `main`.
    pub(super) fn changed(&mut self, key: &[u8], main: i64, delta: Delta) {
        self.history.add(main, delta.history);
        let mut next = self.innermost(key);
        while let Some(at) = next {
            let scope = Arc::make_mut(&mut self.scopes[at]);
            scope.keys = scope.keys.saturating_add_signed(delta.keys);
            scope.bytes = scope.bytes.saturating_add_signed(delta.bytes);
            scope.history.add(main, delta.history);
            next = scope.parent;
        }
    }

    /// The keyspace was compacted at `revision`.
    pub(super) fn compacted(&mut self, revision: i64) {
        self.history.compacted(revision);
        for scope in &mut self.scopes {
            Arc::make_mut(scope).history.compacted(revision);
        }
    }

    /// The place of the longest prefix of `key` that has limits.
    fn innermost(&self, key: &[u8]) -> Option<usize> {
        // Whatever is a prefix of the key stands at or before the last one that is not greater, and is a prefix of that
        // one too.
        let mut next = self.scopes.partition_point(|scope| scope.prefix.as_ref() <= key).checked_sub(1);
        while let Some(at) = next {
            let scope = &self.scopes[at];
            if key.starts_with(&scope.prefix) {
                break;
            }
            next = scope.parent;
        }
        next
    }

    /// Sets the limits of a prefix; its counters stay, or begin with nothing. Answers whether it is a new one.
    pub(super) fn limit(&mut self, prefix: &Bytes, limits: QuotaLimits) -> bool {
        if prefix.is_empty() {
            self.limits = limits;
            return false;
        }
        let is_new = match self.scopes.binary_search_by(|scope| scope.prefix.cmp(prefix)) {
            Ok(at) if limits.is_empty() => {
                self.scopes.remove(at);
                false
            }
            Ok(at) => {
                Arc::make_mut(&mut self.scopes[at]).limits = limits;
                return false;
            }
            Err(_) if limits.is_empty() => return false,
            Err(at) => {
                let prefix = prefix.clone();
                let history = Timeline::default();
                let scope = Scope { prefix, parent: None, limits, keys: 0, bytes: 0, history };
                self.scopes.insert(at, Arc::new(scope));
                true
            }
        };
        self.find_parents();
        is_new
    }

    fn find_parents(&mut self) {
        let mut open: Vec<usize> = Vec::new();
        for at in 0..self.scopes.len() {
            let is_open = |outer: &usize| self.scopes[at].prefix.starts_with(&self.scopes[*outer].prefix);
            while open.last().is_some_and(|outer| !is_open(outer)) {
                open.pop();
            }
            let parent = open.last().copied();
            if self.scopes[at].parent != parent {
                Arc::make_mut(&mut self.scopes[at]).parent = parent;
            }
            open.push(at);
        }
    }

    /// Prefixes with limits, ascending.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &Bytes> {
        self.scopes.iter().map(|scope| &scope.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(keys: u64) -> QuotaLimits {
        QuotaLimits { keys: Some(keys), ..QuotaLimits::default() }
    }

    fn prefixes_of(quotas: &Quotas, key: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut next = quotas.innermost(key.as_bytes());
        while let Some(at) = next {
            found.push(quotas.scopes[at].prefix.escape_ascii().to_string());
            next = quotas.scopes[at].parent;
        }
        found
    }

    /// Against asking every prefix, while prefixes come and go.
    #[test]
    fn a_key_is_counted_under_each_of_its_prefixes() {
        let mut quotas = Quotas::default();
        let all = ["a", "a/", "a/b", "a/b/c", "a/c", "aa", "b", "b/b/b", "c/"];
        let keys =
            ["a", "a/", "a/a", "a/b", "a/b/cd", "a/b/d", "a/c/x", "aaa", "ab", "b/b/a", "c", "c/x", "d", ""];
        let mut set: Vec<&str> = Vec::new();
        for step in 0..200_usize {
            let prefix = all[step * 7 % all.len()];
            let bytes = Bytes::from_static(prefix.as_bytes());
            if step % 3 == 2 {
                quotas.limit(&bytes, QuotaLimits::default());
                set.retain(|other| *other != prefix);
            } else {
                assert_eq!(quotas.limit(&bytes, limits(step as u64)), !set.contains(&prefix));
                set.retain(|other| *other != prefix);
                set.push(prefix);
            }
            for key in keys {
                let mut expected: Vec<String> =
                    set.iter().filter(|prefix| key.starts_with(**prefix)).map(|p| (*p).to_owned()).collect();
                expected.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
                assert_eq!(prefixes_of(&quotas, key), expected, "{key} in {set:?}");
            }
        }
    }

    #[test]
    fn what_a_change_of_a_key_counts() {
        let delta = |old, new| {
            let Delta { keys, bytes, history } = Delta::of(b"key", old, new);
            (keys, bytes, history)
        };
        assert_eq!(delta(None, Some(10)), (1, 13, 0));
        assert_eq!(delta(Some(10), Some(4)), (0, -6, 13));
        assert_eq!(delta(Some(4), None), (-1, -7, 10));
        assert_eq!(delta(Some(0), Some(0)), (0, 0, 3));
    }
}
