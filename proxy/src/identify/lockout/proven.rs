//! Users who have logged in from a source before: each has a count of its own there, that nobody else touches.
//!
//! Only a right password makes an entry. There is room for [`BUCKETS`] times [`ENTRIES`] of them; where a bucket is
//! full, whoever has failed least and logged in longest ago is forgotten, and is one of its source's strangers again.

use super::{LockoutRules, millis};

const BUCKETS: u64 = 4096;
/// Of a bucket.
pub(super) const ENTRIES: usize = 16;

pub(super) struct Proven {
    threshold: u32,
    /// In milliseconds, as are all times here.
    duration: u64,
    counter_reset: u64,
    buckets: Vec<Vec<Entry>>,
}

struct Entry {
    key: u64,
    failures: u32,
    failed: u64,
    locked_until: Option<u64>,
    logged_in: u64,
}

impl Proven {
    pub(super) fn new(rules: &LockoutRules) -> Self {
        Self {
            threshold: rules.threshold,
            duration: millis(rules.duration),
            counter_reset: millis(rules.counter_reset),
            buckets: (0..BUCKETS).map(|_| Vec::new()).collect(),
        }
    }

    /// None: it is nobody who has logged in.
    pub(super) fn is_locked(&self, key: u64, now: u64) -> Option<bool> {
        let entry = self.buckets[bucket_of(key)].iter().find(|it| it.key == key)?;
        Some(entry.is_locked(now))
    }

    /// None: it is nobody who has logged in. True: it is locked by this.
    pub(super) fn fail(&mut self, key: u64, now: u64) -> Option<bool> {
        let (threshold, duration, counter_reset) = (self.threshold, self.duration, self.counter_reset);
        let entry = self.buckets[bucket_of(key)].iter_mut().find(|it| it.key == key)?;
        if entry.is_locked(now) {
            // Another login was compared at the same time.
            return Some(false);
        }
        if entry.locked_until.take().is_some() || now.saturating_sub(entry.failed) >= counter_reset {
            entry.failures = 0;
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.failed = now;
        let locks = entry.failures >= threshold;
        entry.locked_until = locks.then(|| now.saturating_add(duration));
        Some(locks)
    }

    /// A right password. It does not open what is locked.
    pub(super) fn succeed(&mut self, key: u64, now: u64) {
        let bucket = &mut self.buckets[bucket_of(key)];
        if let Some(entry) = bucket.iter_mut().find(|it| it.key == key) {
            entry.logged_in = now;
            if !entry.is_locked(now) {
                entry.failures = 0;
            }
            return;
        }
        if bucket.len() >= ENTRIES {
            let least = |index: &usize| {
                let entry = &bucket[*index];
                (entry.is_locked(now), entry.failures, entry.logged_in)
            };
            if let Some(least) = (0..bucket.len()).min_by_key(least) {
                bucket.swap_remove(least);
            }
        }
        bucket.push(Entry { key, failures: 0, failed: 0, locked_until: None, logged_in: now });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }
}

impl Entry {
    fn is_locked(&self, now: u64) -> bool {
        self.locked_until.is_some_and(|until| now < until)
    }
}

fn bucket_of(key: u64) -> usize {
    usize::try_from(key % BUCKETS).unwrap_or(0)
}
