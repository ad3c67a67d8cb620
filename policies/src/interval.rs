//! Sets of keys as sorted, disjoint, non-touching half-open intervals of byte strings.
//!
//! Adding intervals merges whatever overlaps or touches, so a stretch of keys is covered by the set
//! exactly when one interval of it covers the stretch: one binary search answers.

use bytes::Bytes;
use keygate_core::KeyRange;
use std::cmp::Ordering;

/// Where an interval stops. `Open` lies behind every key.
#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    Before(Bytes),
    Open,
}

impl End {
    fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Open => true,
        }
    }

    fn reaches(&self, end: &[u8]) -> bool {
        match self {
            Self::Before(own) => end <= own.as_ref(),
            Self::Open => true,
        }
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for End {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Before(a), Self::Before(b)) => a.cmp(b),
            (Self::Before(_), Self::Open) => Ordering::Less,
            (Self::Open, Self::Before(_)) => Ordering::Greater,
            (Self::Open, Self::Open) => Ordering::Equal,
        }
    }
}

#[derive(Clone, Debug)]
struct Interval {
    start: Bytes,
    end: End,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct IntervalSet {
    /// Ascending; between two neighbours there is at least one byte string that neither holds.
    intervals: Box<[Interval]>,
}

impl IntervalSet {
    /// The union of `ranges`. Empty ones add nothing.
    pub(crate) fn union<'a>(ranges: impl Iterator<Item = &'a KeyRange>) -> Self {
        let mut all: Vec<Interval> = ranges.filter(|range| !range.is_empty()).map(interval).collect();
        // Stable on purpose: the rows of a role come sorted, and this sort merges sorted runs.
        all.sort_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<Interval> = Vec::with_capacity(all.len());
        for next in all {
            match merged.last_mut() {
                Some(last) if last.end.reaches(&next.start) => {
                    if next.end > last.end {
                        last.end = next.end;
                    }
                }
                _ => merged.push(next),
            }
        }
        Self { intervals: merged.into_boxed_slice() }
    }

    /// Does the set hold every key of `range`? `range` must not be empty: an empty one has no first key.
    pub(crate) fn covers(&self, range: &KeyRange) -> bool {
        let behind = self.intervals.partition_point(|own| own.start.as_ref() <= range.start().as_ref());
        let Some(own) = behind.checked_sub(1).and_then(|index| self.intervals.get(index)) else {
            return false;
        };
        match range {
            // The next byte string after a key is the key and a zero, so nothing fits between a key
            // and an end behind it.
            KeyRange::Single(key) => own.end.is_behind(key),
            KeyRange::Span { start, end } => own.end.is_behind(start) && own.end.reaches(end),
            KeyRange::From(_) => own.end == End::Open,
        }
    }
}

fn interval(range: &KeyRange) -> Interval {
    let end = match range {
        KeyRange::Single(key) => {
            let mut next = Vec::with_capacity(key.len() + 1);
            next.extend_from_slice(key);
            next.push(0);
            End::Before(next.into())
        }
        KeyRange::Span { end, .. } => End::Before(end.clone()),
        KeyRange::From(_) => End::Open,
    };
    Interval { start: range.start().clone(), end }
}

/// Does `row` hold both ends of the empty range `[start, end)` (`end <= start`) in its inside?
///
/// This is etcd's answer for such a request: it looks for one row that begins before `end` and stops
/// behind `start`. No key can be read through it, whatever the answer.
pub(crate) fn encloses_empty(row: &KeyRange, start: &[u8], end: &[u8]) -> bool {
    if row.is_empty() || row.start().as_ref() >= end {
        return false;
    }
    match row {
        KeyRange::Single(key) => start <= key.as_ref(),
        KeyRange::Span { end, .. } => start < end.as_ref(),
        KeyRange::From(_) => true,
    }
}
