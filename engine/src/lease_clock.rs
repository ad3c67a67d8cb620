//! When leases end. Deadlines live here, in the leader's memory, and not in the log.
//!
//! A keepalive moves a deadline and is answered at once. Expiry takes two steps under the same
//! lock: a lease whose time is up is first marked as ending, then its removal is proposed. So a
//! keepalive that was acknowledged always beats an expiry that was not yet marked, and one that
//! comes later is told that the lease is gone.
//!
//! A checkpoint on record shortens a lease after a restart. The first keepalive behind one therefore
//! has it cleared in the log before it is answered; all others stay out of the log.

use crate::clock::Clock;
use ahash::RandomState;
use keygate_core::{KeyspaceId, LeaseId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Enough that two cores seldom meet on one lock.
const SHARDS: usize = 16;

/// Has cache lines of its own, or threads would wait for each other on different ones too.
#[derive(Default)]
#[repr(align(64))]
struct Shard {
    timers: Mutex<HashMap<(KeyspaceId, LeaseId), Timer, RandomState>>,
    renewed: AtomicU64,
}

pub(crate) struct LeaseClock {
    shards: Box<[Shard]>,
    clock: Arc<dyn Clock>,
    /// Rounds of checkpoints since start.
    checkpoints: AtomicU64,
}

#[derive(Clone, Copy)]
struct Timer {
    /// Seconds, as granted.
    ttl: i64,
    deadline: Instant,
    ending: bool,
    checkpoint: Option<Checkpoint>,
}

/// A lease's remaining time is on record since this round of checkpoints, or on its way there; 0: since a
/// round before the last start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checkpoint(u64);

/// What a keepalive has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    /// Seconds, as granted.
    pub(crate) ttl: i64,
    /// Must be cleared in the log, and with [`LeaseClock::cleared`] here, before the keepalive is answered.
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// A lease's time as a client may ask for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Remaining {
    pub(crate) seconds: i64,
}

impl LeaseClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            clock,
            checkpoints: AtomicU64::new(0),
        }
    }

    fn shard(&self, lease: LeaseId) -> &Shard {
        &self.shards[lease.0 as u64 as usize % SHARDS]
    }

    /// Starts or restarts a lease's time. `remaining` is shorter than `ttl` after a restart.
    pub(crate) fn start(&self, keyspace: KeyspaceId, lease: LeaseId, ttl: i64, remaining: i64) {
        let deadline = self.deadline(remaining);
        let checkpoint = (remaining < ttl).then_some(Checkpoint(0));
        let timer = Timer { ttl, deadline, ending: false, checkpoint };
        self.shard(lease).timers.lock().insert((keyspace, lease), timer);
    }

    pub(crate) fn forget(&self, keyspace: KeyspaceId, lease: LeaseId) {
        self.shard(lease).timers.lock().remove(&(keyspace, lease));
    }

    /// The keyspace is gone.
    pub(crate) fn forget_all(&self, keyspace: KeyspaceId) {
        for shard in &self.shards {
            shard.timers.lock().retain(|(of, _), _| *of != keyspace);
        }
    }

    /// Gives the lease its full time again. None: it is unknown or already ending.
    pub(crate) fn keep_alive(&self, keyspace: KeyspaceId, lease: LeaseId) -> Option<Kept> {
        let now = self.clock.now();
        let shard = self.shard(lease);
        let mut timers = shard.timers.lock();
        let timer = timers.get_mut(&(keyspace, lease))?;
        // The deadline may have passed before anybody marked it: too late all the same.
        if timer.ending || timer.deadline <= now {
            return None;
        }
        timer.deadline = now + seconds(timer.ttl);
        shard.renewed.fetch_add(1, Ordering::Relaxed);
        Some(Kept { ttl: timer.ttl, checkpoint: timer.checkpoint })
    }

    /// The log has it that this lease has its full time. Another checkpoint that was begun since stays to be
    /// cleared. False: the lease is gone, or ending.
    pub(crate) fn cleared(&self, keyspace: KeyspaceId, lease: LeaseId, checkpoint: Checkpoint) -> bool {
        let mut timers = self.shard(lease).timers.lock();
        let Some(timer) = timers.get_mut(&(keyspace, lease)) else { return false };
        if timer.checkpoint == Some(checkpoint) {
            timer.checkpoint = None;
        }
        !timer.ending
    }

    pub(crate) fn remaining(&self, keyspace: KeyspaceId, lease: LeaseId) -> Option<Remaining> {
        let now = self.clock.now();
        let timers = self.shard(lease).timers.lock();
        let timer = timers.get(&(keyspace, lease))?;
        Some(Remaining { seconds: timer.deadline.saturating_duration_since(now).as_secs() as i64 })
    }

    /// Marks up to `limit` leases whose time is up, of those keyspaces that `may_end`, and returns them by their ids.
    /// Keyspaces take turns, so that one with many does not make the others wait; within one those come first that
    /// are longest overdue. Each must be proposed for removal, or released again with [`Self::release`].
    pub(crate) fn take_expired(
        &self,
        limit: usize,
        may_end: &dyn Fn(KeyspaceId) -> bool,
    ) -> Vec<(KeyspaceId, LeaseId)> {
        let now = self.clock.now();
        let is_due = |timer: &Timer| !timer.ending && timer.deadline <= now;
        let mut due = Vec::new();
        for shard in &self.shards {
            let timers = shard.timers.lock();
            due.extend(
                timers
                    .iter()
                    .filter(|((keyspace, _), timer)| is_due(timer) && may_end(*keyspace))
                    .map(|(id, timer)| (timer.deadline, *id)),
            );
        }
        due.sort_unstable();
        let mut turns: HashMap<KeyspaceId, usize, RandomState> = HashMap::default();
        let mut due: Vec<_> = due
            .into_iter()
            .map(|(deadline, id)| {
                let turn = turns.entry(id.0).or_default();
                *turn += 1;
                (*turn, deadline, id)
            })
            .collect();
        due.sort_unstable();
        let mut expired = Vec::with_capacity(due.len().min(limit));
        for (_, _, id) in due.into_iter().take(limit) {
            if let Some(timer) = self.shard(id.1).timers.lock().get_mut(&id).filter(|timer| is_due(timer)) {
                timer.ending = true;
                expired.push(id);
            }
        }
        expired.sort_unstable();
        expired
    }

    /// The proposal to remove these was not made: they will be taken again.
    pub(crate) fn release(&self, keyspace: KeyspaceId, leases: &[LeaseId]) {
        for lease in leases {
            if let Some(timer) = self.shard(*lease).timers.lock().get_mut(&(keyspace, *lease)) {
                timer.ending = false;
            }
        }
    }

    /// Remaining seconds of each lease that lives longer than `at_least`: what a checkpoint writes.
    ///
    /// Contract: it is proposed before anything that is sent to the log later, so that a keepalive which finds
    /// its mark here clears it there.
    pub(crate) fn checkpoint(&self, at_least: Duration) -> Vec<(KeyspaceId, LeaseId, i64)> {
        let now = self.clock.now();
        let round = Checkpoint(self.checkpoints.fetch_add(1, Ordering::Relaxed) + 1);
        let mut all = Vec::new();
        for shard in &self.shards {
            for ((keyspace, lease), timer) in shard.timers.lock().iter_mut() {
                if seconds(timer.ttl) > at_least && !timer.ending {
                    let left = timer.deadline.saturating_duration_since(now).as_secs() as i64;
                    all.push((*keyspace, *lease, left.max(1)));
                    timer.checkpoint = Some(round);
                }
            }
        }
        all.sort_unstable();
        all
    }

    /// Those of `leases` whose time runs, the one that ends first in front. What other keyspaces have costs nothing.
    pub(crate) fn by_expiry(
        &self,
        keyspace: KeyspaceId,
        leases: impl Iterator<Item = LeaseId>,
    ) -> Vec<LeaseId> {
        let deadline = |lease| {
            self.shard(lease).timers.lock().get(&(keyspace, lease)).map(|timer| (timer.deadline, lease))
        };
        let mut all: Vec<_> = leases.filter_map(deadline).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, lease)| lease).collect()
    }

    pub(crate) fn renewed(&self) -> u64 {
        self.shards.iter().map(|shard| shard.renewed.load(Ordering::Relaxed)).sum()
    }

    fn deadline(&self, remaining: i64) -> Instant {
        self.clock.now() + seconds(remaining)
    }
}

/// etcd allows TTLs up to 9e9 s; `Instant` can hold that on every platform we run on.
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Manual(Mutex<Instant>);

    impl Clock for Manual {
        fn now(&self) -> Instant {
            *self.0.lock()
        }
    }

    const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;
    const LEASE: LeaseId = LeaseId(7);

    fn at_start() -> (Arc<Manual>, LeaseClock) {
        let time = Arc::new(Manual(Mutex::new(Instant::now())));
        let clock = LeaseClock::new(time.clone());
        clock.start(KEYSPACE, LEASE, 10, 10);
        (time, clock)
    }

    fn pass(time: &Manual, seconds: u64) {
        *time.0.lock() += Duration::from_secs(seconds);
    }

    #[test]
    fn an_acknowledged_keepalive_beats_the_expiry() {
        let (time, clock) = at_start();
        pass(&time, 9);
        assert_eq!(clock.keep_alive(KEYSPACE, LEASE), Some(Kept { ttl: 10, checkpoint: None }));
        pass(&time, 9);
        assert!(clock.take_expired(10, &|_| true).is_empty());
        pass(&time, 1);
        assert_eq!(clock.take_expired(10, &|_| true), vec![(KEYSPACE, LEASE)]);
    }

    #[test]
    fn a_keepalive_after_the_deadline_is_told_that_the_lease_is_gone() {
        let (time, clock) = at_start();
        pass(&time, 10);
        assert_eq!(clock.keep_alive(KEYSPACE, LEASE), None, "before anybody marked it");
        assert_eq!(clock.take_expired(10, &|_| true).len(), 1);
        assert_eq!(clock.keep_alive(KEYSPACE, LEASE), None, "and after");
        assert!(clock.take_expired(10, &|_| true).is_empty(), "marked once only");
        clock.release(KEYSPACE, &[LEASE]);
        assert_eq!(clock.take_expired(10, &|_| true).len(), 1, "released, it is taken again");
    }

    /// More leases are due than one turn ends: which of them it took, and in which order, was that of a random map.
    #[test]
    fn at_the_limit_the_longest_overdue_are_taken_in_the_order_of_their_ids() {
        let time = Arc::new(Manual(Mutex::new(Instant::now())));
        let clock = LeaseClock::new(time.clone());
        // Every seventh id is due a second earlier than the others.
        for id in (0..200).rev() {
            clock.start(KEYSPACE, LeaseId(id), 10, if id % 7 == 0 { 1 } else { 2 });
        }
        pass(&time, 2);
        let early: Vec<_> = (0..200).step_by(7).map(|id| (KEYSPACE, LeaseId(id))).collect();
        assert_eq!(clock.take_expired(early.len(), &|_| true), early);
        let next = clock.take_expired(50, &|_| true);
        assert_eq!(next.len(), 50);
        assert!(next.is_sorted(), "{next:?}");
    }

    /// A tenant with very many leases made those of all others, their locks too, end minutes late; and those of a
    /// keyspace that may not change were taken first again in every turn.
    #[test]
    fn keyspaces_take_turns() {
        let time = Arc::new(Manual(Mutex::new(Instant::now())));
        let clock = LeaseClock::new(time.clone());
        let [many, few, corrupt] = [KeyspaceId(2), KeyspaceId(3), KeyspaceId(4)];
        for id in 0..1_000 {
            clock.start(many, LeaseId(id), 10, 1);
            clock.start(corrupt, LeaseId(id), 10, 1);
        }
        (0..3).for_each(|id| clock.start(few, LeaseId(id), 10, 2));
        pass(&time, 2);
        let taken = clock.take_expired(100, &|keyspace| keyspace != corrupt);
        let of = |keyspace| taken.iter().filter(|(of, _)| *of == keyspace).count();
        assert_eq!((of(many), of(few), of(corrupt)), (97, 3, 0));
    }

    #[test]
    fn only_the_first_keepalive_behind_a_checkpoint_has_one_to_clear() {
        let (_, clock) = at_start();
        let kept = || clock.keep_alive(KEYSPACE, LEASE).unwrap().checkpoint;
        assert_eq!(kept(), None);
        assert_eq!(clock.checkpoint(Duration::ZERO).len(), 1);
        let first = kept().expect("it is on record");
        assert_eq!(kept(), Some(first), "until the log has cleared it");
        assert!(clock.cleared(KEYSPACE, LEASE, first));
        assert_eq!(kept(), None);
        // A restart has shortened it.
        clock.start(KEYSPACE, LEASE, 10, 3);
        assert!(kept().is_some());
        assert!(!clock.cleared(KEYSPACE, LeaseId(8), first), "there is no such lease");
    }

    #[test]
    fn a_checkpoint_that_was_begun_while_another_was_cleared_stays_to_be_cleared() {
        let (_, clock) = at_start();
        clock.checkpoint(Duration::ZERO);
        let first = clock.keep_alive(KEYSPACE, LEASE).unwrap().checkpoint.unwrap();
        clock.checkpoint(Duration::ZERO);
        assert!(clock.cleared(KEYSPACE, LEASE, first));
        let second = clock.keep_alive(KEYSPACE, LEASE).unwrap().checkpoint;
        assert!(second.is_some_and(|second| second != first));
    }
}
