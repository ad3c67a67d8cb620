//! Which watchers want a key: a hash map for single keys, an interval index for ranges.

use ahash::RandomState;
use bytes::Bytes;
use keygate_core::{KeyRange, KeyspaceId};
use smallvec::SmallVec;
use std::collections::HashMap;

/// A watcher's place in its registry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) usize);

#[derive(Default)]
pub(crate) struct Interest {
    single: HashMap<(KeyspaceId, Bytes), SmallVec<[Slot; 2]>, RandomState>,
    spans: HashMap<KeyspaceId, Spans, RandomState>,
}

/// Ranges sorted by start, each knowing the furthest end in the part of the array that it heads
/// (an implicit balanced tree). Rebuilt at the first lookup after a change: watches come and go far
/// more rarely than events.
#[derive(Default)]
struct Spans {
    ranges: Vec<Span>,
    sorted: bool,
}

struct Span {
    start: Bytes,
    /// None: no end.
    end: Option<Bytes>,
    /// Index of the span with the furthest end within this node's subtree.
    furthest: usize,
    slot: Slot,
}

impl Interest {
    pub(crate) fn insert(&mut self, keyspace: KeyspaceId, range: &KeyRange, slot: Slot) {
        let (start, end) = match range {
            KeyRange::Single(key) => {
                self.single.entry((keyspace, key.clone())).or_default().push(slot);
                return;
            }
            KeyRange::Span { start, end } => (start.clone(), Some(end.clone())),
            KeyRange::From(start) => (start.clone(), None),
        };
        let spans = self.spans.entry(keyspace).or_default();
        spans.ranges.push(Span { start, end, furthest: 0, slot });
        spans.sorted = false;
    }

    pub(crate) fn remove(&mut self, keyspace: KeyspaceId, range: &KeyRange, slot: Slot) {
        match range {
            KeyRange::Single(key) => {
                let entry = (keyspace, key.clone());
                if let Some(slots) = self.single.get_mut(&entry) {
                    slots.retain(|s| *s != slot);
                    if slots.is_empty() {
                        self.single.remove(&entry);
                    }
                }
            }
            KeyRange::Span { .. } | KeyRange::From(_) => {
                if let Some(spans) = self.spans.get_mut(&keyspace) {
                    spans.ranges.retain(|span| span.slot != slot);
                    spans.sorted = false;
                }
            }
        }
    }

    /// Calls `visit` with every watcher whose range holds `key`.
    pub(crate) fn of(&mut self, keyspace: KeyspaceId, key: &Bytes, visit: &mut impl FnMut(Slot)) {
        if !self.single.is_empty()
            && let Some(slots) = self.single.get(&(keyspace, key.clone()))
        {
            slots.iter().copied().for_each(&mut *visit);
        }
        if let Some(spans) = self.spans.get_mut(&keyspace) {
            spans.sort();
            spans.stab(key, 0, spans.ranges.len(), visit);
        }
    }
}

impl Spans {
    fn sort(&mut self) {
        if !self.sorted {
            self.ranges.sort_by(|a, b| a.start.cmp(&b.start).then(a.slot.cmp(&b.slot)));
            let len = self.ranges.len();
            self.find_furthest(0, len);
            self.sorted = true;
        }
    }

    /// The middle element of `[low, high)` is the node, the halves are its children.
    fn find_furthest(&mut self, low: usize, high: usize) -> Option<usize> {
        if low >= high {
            return None;
        }
        let middle = low + (high - low) / 2;
        let children = [self.find_furthest(low, middle), self.find_furthest(middle + 1, high)];
        let furthest = children
            .into_iter()
            .flatten()
            .fold(middle, |best, other| if self.ends_after(other, best) { other } else { best });
        self.ranges[middle].furthest = furthest;
        Some(furthest)
    }

    fn ends_after(&self, a: usize, b: usize) -> bool {
        match (&self.ranges[a].end, &self.ranges[b].end) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(a), Some(b)) => a > b,
        }
    }

    fn stab(&self, key: &[u8], low: usize, high: usize, visit: &mut impl FnMut(Slot)) {
        if low >= high {
            return;
        }
        let middle = low + (high - low) / 2;
        let node = &self.ranges[middle];
        if !Self::reaches(&self.ranges[node.furthest], key) {
            return;
        }
        self.stab(key, low, middle, visit);
        if node.start.as_ref() <= key {
            if Self::reaches(node, key) {
                visit(node.slot);
            }
            self.stab(key, middle + 1, high, visit);
        }
    }

    fn reaches(span: &Span, key: &[u8]) -> bool {
        span.end.as_ref().is_none_or(|end| key < end.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(0u8..4, 0..3).prop_map(Bytes::from)
    }

    proptest! {
        /// The index finds exactly the watchers whose range contains the key.
        #[test]
        fn index_equals_asking_every_range(
            ranges in proptest::collection::vec((key(), key()), 0..40),
            removed in proptest::collection::vec(0usize..40, 0..10),
            asked in key(),
        ) {
            let mut interest = Interest::default();
            let mut model = Vec::new();
            for (slot, (start, end)) in ranges.into_iter().enumerate() {
                let range = KeyRange::from_wire(start, end);
                interest.insert(KeyspaceId::DEFAULT, &range, Slot(slot));
                model.push((Slot(slot), range));
            }
            for at in removed {
                if at < model.len() {
                    let (slot, range) = model.remove(at);
                    interest.remove(KeyspaceId::DEFAULT, &range, slot);
                }
            }
            let mut found = Vec::new();
            interest.of(KeyspaceId::DEFAULT, &asked, &mut |slot| found.push(slot));
            found.sort();
            let expected: Vec<Slot> =
                model.iter().filter(|(_, range)| range.contains(&asked)).map(|(slot, _)| *slot).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
