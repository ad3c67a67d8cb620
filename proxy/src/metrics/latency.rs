//! How long RPCs took: recorded once, in buckets fine enough to be shown under each of etcd's names
//! with the bounds that etcd has there. Every set of bounds is a part of the recorded one, so what is
//! shown is exact.
//!
//! Recording is one search among constants and two additions without a lock; who shows a page adds
//! up the threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MILLISECOND: u64 = 1_000_000;

/// Upper bounds in nanoseconds: what Prometheus's clients use when nobody says otherwise.
pub(crate) const HANDLING: [u64; 11] = {
    let mut bounds = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] *= MILLISECOND;
        at += 1;
    }
    bounds
};
/// etcd's, of the durations that bear these names there.
pub(crate) const REQUEST: [u64; 14] = doubled(MILLISECOND);
pub(crate) const RANGE: [u64; 20] = doubled(MILLISECOND / 10);
pub(crate) const HASH: [u64; 15] = doubled(10 * MILLISECOND);
pub(crate) const DEFRAGMENTATION: [u64; 13] = doubled(100 * MILLISECOND);

/// All of the above, sorted, each once.
const BOUNDS: [u64; 71] = union([&HANDLING, &REQUEST, &RANGE, &HASH, &DEFRAGMENTATION]);

/// Durations that one thread counts and any thread reads.
#[derive(Debug)]
pub(crate) struct Latency {
    /// Not cumulative; the last one holds what is above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// What several of them counted together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LatencyTotals {
    buckets: [u64; BOUNDS.len() + 1],
    nanoseconds: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BOUNDS.len() + 1], nanoseconds: AtomicU64::new(0) }
    }
}

impl Latency {
    pub(crate) fn record(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl Default for LatencyTotals {
    fn default() -> Self {
        Self { buckets: [0; BOUNDS.len() + 1], nanoseconds: 0 }
    }
}

impl LatencyTotals {
    pub(crate) fn add(&mut self, latency: &Latency) {
        for (to, from) in self.buckets.iter_mut().zip(&latency.buckets) {
            *to += from.load(Ordering::Relaxed);
        }
        self.nanoseconds += latency.nanoseconds.load(Ordering::Relaxed);
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        for (to, from) in sum.buckets.iter_mut().zip(&other.buckets) {
            *to += from;
        }
        sum.nanoseconds += other.nanoseconds;
        sum
    }

    /// Of what is a part of this one and may have been read a moment later.
    pub(crate) fn minus(&self, part: &Self) -> Self {
        let mut rest = self.clone();
        for (to, from) in rest.buckets.iter_mut().zip(&part.buckets) {
            *to = to.saturating_sub(*from);
        }
        rest.nanoseconds = rest.nanoseconds.saturating_sub(part.nanoseconds);
        rest
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.nanoseconds as f64 / 1e9
    }

    /// Counts by other bounds, which must be among the recorded ones; not cumulative, and one more
    /// for what is above.
    pub(crate) fn within(&self, bounds: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; bounds.len() + 1];
        for (at, count) in self.buckets.iter().enumerate() {
            let upper = BOUNDS.get(at).copied().unwrap_or(u64::MAX);
            counts[bounds.partition_point(|bound| *bound < upper)] += count;
        }
        counts
    }
}

const fn doubled<const N: usize>(first: u64) -> [u64; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        bounds[at] = 2 * bounds[at - 1];
        at += 1;
    }
    bounds
}

/// `N` must be the number of different bounds, or this does not compile.
const fn union<const SETS: usize, const N: usize>(sets: [&[u64]; SETS]) -> [u64; N] {
    let mut all = [u64::MAX; N];
    let mut filled = 0;
    let mut set = 0;
    while set < SETS {
        let mut at = 0;
        while at < sets[set].len() {
            let bound = sets[set][at];
            // Where it belongs among those that are there.
            let mut place = 0;
            while place < filled && all[place] < bound {
                place += 1;
            }
            if place == filled || all[place] != bound {
                let mut moved = filled;
                while moved > place {
                    all[moved] = all[moved - 1];
                    moved -= 1;
                }
                all[place] = bound;
                filled += 1;
            }
            at += 1;
        }
        set += 1;
    }
    assert!(filled == N, "N is not the number of bounds");
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_bounds_is_among_the_recorded_ones() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
        for set in [&HANDLING[..], &REQUEST, &RANGE, &HASH, &DEFRAGMENTATION] {
            assert!(set.iter().all(|bound| BOUNDS.binary_search(bound).is_ok()));
        }
        assert_eq!((REQUEST[13], RANGE[19]), (8_192 * MILLISECOND, 52_428_800_000));
    }

    #[test]
    fn what_was_recorded_once_is_exact_by_every_set_of_bounds() {
        let latency = Latency::default();
        let durations = [0, 99_999, 100_000, 100_001, 5_000_000, 5_000_001, 12_800_000, 8_192_000_000]
            .into_iter()
            .chain([8_192_000_001, 60_000_000_000, 900_000_000_000]);
        for nanoseconds in durations.clone() {
            latency.record(Duration::from_nanos(nanoseconds));
        }
        let mut totals = LatencyTotals::default();
        totals.add(&latency);
        assert_eq!(totals.count(), 11);
        for bounds in [&HANDLING[..], &REQUEST, &RANGE, &HASH, &DEFRAGMENTATION] {
            let mut below = 0;
            for (bound, count) in bounds.iter().zip(totals.within(bounds)) {
                below += count;
                let expected = durations.clone().filter(|nanoseconds| nanoseconds <= bound).count();
                assert_eq!(below, expected as u64, "{bound}");
            }
        }
        let sum: u64 = durations.sum();
        assert!((totals.seconds() - sum as f64 / 1e9).abs() < 1e-6);
    }
}
