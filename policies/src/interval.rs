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
    /// How many first bytes all starts have in common.
    shared: usize,
    /// The eight bytes of each start behind the shared ones, as [`head`] makes them. Ascending, not
    /// strictly. The search walks these, because each look at a start is a cache miss or two.
    heads: Box<[u64]>,
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
        let shared = match (merged.first(), merged.last()) {
            // What the least and the greatest share, all between them share.
            (Some(first), Some(last)) => {
                first.start.iter().zip(&last.start).take_while(|(a, b)| a == b).count()
            }
            _ => 0,
        };
        let heads = merged.iter().map(|own| head(&own.start[shared..])).collect();
        Self { intervals: merged.into_boxed_slice(), shared, heads }
    }

    /// Does the set hold every key of `range`?
    ///
    /// An empty range is decided as the key that it starts with. etcd does the same, but for the rare
    /// case in which its search passes by the row that holds this key.
    pub(crate) fn covers(&self, range: &KeyRange) -> bool {
        let Some(own) = self.last_start_up_to(range.start()) else {
            return false;
        };
        match range {
            // The next byte string after a key is the key and a zero, so nothing fits between a key
            // and an end behind it.
            KeyRange::Single(key) => own.end.is_behind(key),
            // For an empty span the first half is the stronger one.
            KeyRange::Span { start, end } => own.end.is_behind(start) && own.end.reaches(end),
            KeyRange::From(_) => own.end == End::Open,
        }
    }

    /// The last interval that starts at `key` or before it.
    fn last_start_up_to(&self, key: &[u8]) -> Option<&Interval> {
        let (first, last) = (self.intervals.first()?, self.intervals.last()?);
        let shared = &first.start[..self.shared];
        match key[..key.len().min(self.shared)].cmp(shared) {
            Ordering::Less => return None,
            Ordering::Greater => return Some(last),
            Ordering::Equal => {}
        }
        let sought = head(&key[self.shared..]);
        let low = self.heads.partition_point(|head| *head < sought);
        let ties = self.heads[low..].partition_point(|head| *head == sought);
        let before = self.intervals[low..low + ties].partition_point(|own| own.start.as_ref() <= key);
        self.intervals.get((low + before).checked_sub(1)?)
    }
}

/// The first eight bytes as a number, missing ones as zeros: a greater text never has a lesser head.
fn head(bytes: &[u8]) -> u64 {
    let mut head = [0; 8];
    let length = bytes.len().min(8);
    head[..length].copy_from_slice(&bytes[..length]);
    u64::from_be_bytes(head)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    /// Long common beginnings and ties in the first eight bytes behind them, against a search that
    /// looks at every interval.
    #[test]
    fn large_sets_cover_what_their_ranges_cover() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut covered, mut not) = (0, 0);
        for round in 0..200 {
            let beginning = vec![b'p'; round % 30];
            let key = |rng: &mut StdRng| {
                let tail: Vec<u8> = (0..rng.random_range(0..12)).map(|_| rng.random_range(0..3)).collect();
                let kept = if rng.random_ratio(1, 20) {
                    rng.random_range(0..=beginning.len())
                } else {
                    beginning.len()
                };
                Bytes::from([&beginning[..kept], &tail].concat())
            };
            let rows: Vec<KeyRange> = (0..rng.random_range(0..200))
                .map(|_| {
                    let (start, end) = (key(&mut rng), key(&mut rng));
                    if rng.random() {
                        KeyRange::Single(start)
                    } else {
                        KeyRange::Span { end: [&start[..], &end[..1.min(end.len())]].concat().into(), start }
                    }
                })
                .collect();
            let set = IntervalSet::union(rows.iter());
            for _ in 0..500 {
                let key = key(&mut rng);
                let expected = rows.iter().any(|row| row.contains(&key));
                assert_eq!(set.covers(&KeyRange::Single(key.clone())), expected, "{key:?} in {rows:?}");
                if expected { covered += 1 } else { not += 1 }
            }
        }
        println!("covered={covered} not={not}");
        assert!(covered > 10_000 && not > 10_000);
    }
}
