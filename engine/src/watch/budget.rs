//! How much memory the waiting events of one keyspace's watch streams may take, together.

use ahash::RandomState;
use keygate_core::KeyspaceId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Shared by all streams of a keyspace, on whichever thread.
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    /// False: there is no room. Nothing was taken then.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Whether or not there is room.
    pub(super) fn take_anyway(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// The budgets of the keyspaces that have streams.
pub(crate) struct Budgets {
    limit: usize,
    by_keyspace: Mutex<HashMap<KeyspaceId, Weak<Budget>, RandomState>>,
}

impl Budgets {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, by_keyspace: Mutex::default() }
    }

    pub(crate) fn of(&self, keyspace: KeyspaceId) -> Arc<Budget> {
        let mut by_keyspace = self.by_keyspace.lock();
        if let Some(budget) = by_keyspace.get(&keyspace).and_then(Weak::upgrade) {
            return budget;
        }
        // Only here do keyspaces come, so only here need those without streams go.
        if by_keyspace.len() == by_keyspace.capacity() {
            by_keyspace.retain(|_, budget| budget.strong_count() > 0);
        }
        let budget = Arc::new(Budget::new(self.limit));
        by_keyspace.insert(keyspace, Arc::downgrade(&budget));
        budget
    }

    /// Bytes that wait, of all keyspaces.
    pub(crate) fn used(&self) -> u64 {
        let by_keyspace = self.by_keyspace.lock();
        by_keyspace.values().filter_map(Weak::upgrade).map(|budget| budget.used() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_keyspace_share_what_others_do_not_touch() {
        let budgets = Budgets::new(10);
        let (one, same, other) =
            (budgets.of(KeyspaceId(1)), budgets.of(KeyspaceId(1)), budgets.of(KeyspaceId(2)));
        assert!(one.take(6) && !same.take(5) && same.take(4) && other.take(10));
        same.take_anyway(3);
        assert_eq!((one.used(), budgets.used()), (13, 23));
        one.give_back(13);
        assert_eq!(budgets.used(), 10);
        drop(other);
        assert_eq!((budgets.used(), budgets.of(KeyspaceId(2)).used()), (0, 0));
    }
}
