//! What the engine counts about itself, for metrics. Written by few, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) committed: AtomicU64,
    pub(crate) applied: AtomicU64,
    pub(crate) proposals_failed: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) leases_granted: AtomicU64,
    pub(crate) leases_revoked: AtomicU64,
    pub(crate) leases_expired: AtomicU64,
    pub(crate) pending: AtomicU64,
    /// Bytes of their log entries.
    pub(crate) pending_bytes: AtomicU64,
    /// The log's syncs.
    pub(crate) fsync: Durations,
    /// The store's commits.
    pub(crate) commit: Durations,
    pub(crate) apply: crate::apply_times::ApplyTimes,
}

/// Buckets of a duration histogram: 1 ms doubled 13 times, and everything above, as etcd's.
pub const DURATION_BUCKETS: usize = 14;

#[derive(Default)]
pub(crate) struct Durations {
    buckets: [AtomicU64; DURATION_BUCKETS + 1],
    nanoseconds: AtomicU64,
}

/// A histogram as it is now. `buckets[i]` counts durations of at most 2^i ms and more than 2^(i-1) ms,
/// the last one all longer ones.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct DurationHistogram {
    pub buckets: [u64; DURATION_BUCKETS + 1],
    pub sum_seconds: f64,
}

impl Durations {
    pub(crate) fn record(&self, took: Duration) {
        let nanoseconds = took.as_nanos().min(u128::from(u64::MAX)) as u64;
        let at = (0..DURATION_BUCKETS).find(|at| nanoseconds <= 1_000_000 << at).unwrap_or(DURATION_BUCKETS);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> DurationHistogram {
        let mut buckets = [0; DURATION_BUCKETS + 1];
        for (to, from) in buckets.iter_mut().zip(&self.buckets) {
            *to = from.load(Ordering::Relaxed);
        }
        DurationHistogram { buckets, sum_seconds: self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_pass() {
        let durations = Durations::default();
        durations.record(Duration::from_micros(10));
        durations.record(Duration::from_millis(1));
        durations.record(Duration::from_millis(3));
        durations.record(Duration::from_secs(100));
        let read = durations.read();
        assert_eq!((read.buckets[0], read.buckets[2], read.buckets[DURATION_BUCKETS]), (2, 1, 1));
    }
}
