//! What the leader does without being asked: ends leases, writes their remaining time down, compacts.

use super::{Proposal, driver::Driver};
use crate::options::{AutoCompaction, EngineOptions};
use keygate_core::{Compact, InternalReason, KeyspaceId, LeaseId, Operation, Permit};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// etcd's pace: at most this many leases end in each turn of half a second.
const EXPIRIES: usize = 500;
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often `--auto-compaction-mode=revision` looks.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3_600);

pub(super) struct Housekeeping {
    next_expiry: Instant,
    next_checkpoint: Instant,
    next_sample: Instant,
    next_compaction: Instant,
    /// When which revision was current, for periodic compaction.
    samples: VecDeque<(Instant, BTreeMap<KeyspaceId, i64>)>,
}

impl Housekeeping {
    pub(super) fn new(options: &EngineOptions, now: Instant) -> Self {
        let compaction = match options.auto_compaction {
            AutoCompaction::Off => HOUR,
            AutoCompaction::Periodic(period) => period.min(HOUR),
            AutoCompaction::Revision(_) => REVISION_INTERVAL,
        };
        Self {
            next_expiry: now,
            next_checkpoint: now + options.lease_checkpoint,
            next_sample: now,
            next_compaction: now + compaction,
            samples: VecDeque::new(),
        }
    }
}

impl Driver {
    /// The proposals that are due now.
    pub(super) fn due_work(&mut self, now: Instant) -> Vec<Proposal> {
        let mut due = Vec::new();
        self.end_leases(now, &mut due);
        self.checkpoint_leases(now, &mut due);
        match self.seams.options.auto_compaction {
            AutoCompaction::Off => {}
            AutoCompaction::Periodic(period) => self.compact_by_age(now, period, &mut due),
            AutoCompaction::Revision(keep) => self.compact_by_count(now, keep, &mut due),
        }
        due
    }

    fn end_leases(&mut self, now: Instant, due: &mut Vec<Proposal>) {
        if now < self.housekeeping.next_expiry {
            return;
        }
        self.housekeeping.next_expiry = now + EXPIRY_INTERVAL;
        let mut by_keyspace: BTreeMap<KeyspaceId, Vec<LeaseId>> = BTreeMap::new();
        // Refused, they would only be taken again.
        let may_end = |keyspace| !self.state().is_corrupt(keyspace);
        for (keyspace, lease) in self.seams.leases.take_expired(EXPIRIES, &may_end) {
            by_keyspace.entry(keyspace).or_default().push(lease);
        }
        for (keyspace, leases) in by_keyspace {
            self.seams
                .counters
                .leases_expired
                .fetch_add(leases.len() as u64, std::sync::atomic::Ordering::Relaxed);
            let operation = Operation::LeaseExpire(leases);
            propose(InternalReason::LeaseExpiry, keyspace, operation, due);
        }
    }

    fn checkpoint_leases(&mut self, now: Instant, due: &mut Vec<Proposal>) {
        if now < self.housekeeping.next_checkpoint {
            return;
        }
        let interval = self.seams.options.lease_checkpoint;
        self.housekeeping.next_checkpoint = now + interval;
        let mut by_keyspace: BTreeMap<KeyspaceId, Vec<(LeaseId, i64)>> = BTreeMap::new();
        for (keyspace, lease, left) in self.seams.leases.checkpoint(interval) {
            by_keyspace.entry(keyspace).or_default().push((lease, left));
        }
        for (keyspace, leases) in by_keyspace {
            let operation = Operation::LeaseCheckpoint(leases);
            propose(InternalReason::LeaseCheckpoint, keyspace, operation, due);
        }
    }

    fn compact_by_age(&mut self, now: Instant, period: Duration, due: &mut Vec<Proposal>) {
        if now >= self.housekeeping.next_sample {
            // etcd's pace: ten samples a period, one each six minutes for periods over an hour.
            self.housekeeping.next_sample =
                now + (period / 10).min(HOUR / 10).max(Duration::from_millis(100));
            let revisions = self.revisions();
            self.housekeeping.samples.push_back((now, revisions));
        }
        if now < self.housekeeping.next_compaction {
            return;
        }
        let mut target = None;
        while let Some((at, _)) = self.housekeeping.samples.front()
            && now.saturating_duration_since(*at) >= period
        {
            target = self.housekeeping.samples.pop_front();
        }
        let Some((_, revisions)) = target else { return };
        self.housekeeping.next_compaction = now + period.min(HOUR);
        for (keyspace, revision) in revisions {
            self.compact(keyspace, revision, due);
        }
    }

    fn compact_by_count(&mut self, now: Instant, keep: i64, due: &mut Vec<Proposal>) {
        if now < self.housekeeping.next_compaction {
            return;
        }
        self.housekeeping.next_compaction = now + REVISION_INTERVAL;
        for (keyspace, revision) in self.revisions() {
            self.compact(keyspace, revision.saturating_sub(keep), due);
        }
    }

    fn revisions(&self) -> BTreeMap<KeyspaceId, i64> {
        self.state().keyspaces().map(|keyspace| (keyspace.id(), keyspace.revision())).collect()
    }

    fn compact(&self, id: KeyspaceId, revision: i64, due: &mut Vec<Proposal>) {
        let compacted = self.state().keyspace(id).map_or(0, |keyspace| keyspace.compact_revision());
        if revision > compacted.max(1) {
            tracing::info!(keyspace = id.0, revision, "compacting by schedule");
            let operation = Operation::Compact(Compact { revision, physical: false });
            propose(InternalReason::AutoCompaction, id, operation, due);
        }
    }
}

fn propose(
    reason: InternalReason,
    keyspace: KeyspaceId,
    operation: Operation<keygate_core::Sealed>,
    due: &mut Vec<Proposal>,
) {
    // Lists of numbers always encode; had it failed, the cause is in the log and the next turn tries again.
    due.extend(Proposal::unasked(Permit::internal(reason, keyspace, operation)));
}
