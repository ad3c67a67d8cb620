//! Leases: which exist, what is attached to them. When they expire is the leader's business: time enters as commands.

use super::effects::{Change, Effects, LeaseEffect};
use super::keyspace::Keyspace;
use super::meta;
use super::write::Writing;
use bytes::Bytes;
use keygate_core::{Answer, LeaseGrant, LeaseId, Refusal, Sealed};
use std::sync::Arc;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Seconds, as granted.
    pub ttl: i64,
    /// Seconds left at the last checkpoint; 0: none since the last renewal, so the full ttl.
    pub remaining: i64,
    /// The main revision at which the set of keys last changed: equal generations mean equal sets, also when the lease
    /// was revoked and granted again in between, and on a member that was reloaded.
    pub generation: u64,
    pub keys: imbl::OrdSet<Bytes>,
}

/// Seconds; etcd's own bound.
const MAX_TTL: i64 = 9_000_000_000;
/// Seconds. Who proposes a lease asks for more, see [`crate::EngineOptions::min_lease_ttl`].
const MIN_TTL: i64 = 1;

impl Keyspace {
    pub(super) fn lease_grant(
        &mut self,
        grant: &LeaseGrant,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Refusal> {
        let id = grant.id;
        if id == LeaseId::NONE {
            return Err(Refusal::LeaseNotFound);
        }
        if grant.ttl > MAX_TTL {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        let ttl = grant.ttl.max(MIN_TTL);
        let lease = Lease { ttl, remaining: 0, generation: self.revision as u64, keys: imbl::OrdSet::new() };
        effects.changes.push(meta::put_lease(self.id, id, &lease));
        effects.leases.push(LeaseEffect::Granted { keyspace: self.id, id, ttl });
        self.leases.insert(id, Arc::new(lease));
        Ok(Answer::LeaseGranted { id, ttl })
    }

    pub(super) fn lease_revoke(
        &mut self,
        id: LeaseId,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Refusal> {
        let lease = self.leases.get(&id).ok_or(Refusal::LeaseNotFound)?;
        let keys = lease.keys.clone();
        let mut writing = Writing::begin(self);
        for key in &keys {
            self.remove(key, &mut writing, effects);
        }
        self.commit(&writing);
        self.leases.remove(&id);
        effects.changes.push(Change::DeleteMeta(meta::lease_key(self.id, id)));
        effects.leases.push(LeaseEffect::Revoked { keyspace: self.id, id });
        Ok(Answer::Done)
    }

    /// Each lease's keys go in a revision of their own. Leases that are gone already are skipped.
    pub(super) fn lease_expire(&mut self, leases: &[LeaseId], effects: &mut Effects) -> Answer<Sealed> {
        for id in leases {
            // Its one refusal says that there is no such lease.
            let _ = self.lease_revoke(*id, effects);
        }
        Answer::Done
    }

    pub(super) fn lease_checkpoint(
        &mut self,
        checkpoints: &[(LeaseId, i64)],
        effects: &mut Effects,
    ) -> Answer<Sealed> {
        for (id, remaining) in checkpoints {
            let Some(slot) = self.leases.get_mut(id) else { continue };
            let lease = Arc::make_mut(slot);
            lease.remaining = *remaining;
            effects.changes.push(meta::put_lease(self.id, *id, lease));
            effects.leases.push(LeaseEffect::Checkpointed {
                keyspace: self.id,
                id: *id,
                remaining: *remaining,
            });
        }
        Answer::Done
    }

    pub(super) fn attach(&mut self, id: LeaseId, key: &Bytes, revision: i64, effects: &mut Effects) {
        self.change_keys(id, revision, effects, |lease| lease.keys.insert(key.clone()).is_none());
    }

    pub(super) fn detach(&mut self, id: LeaseId, key: &Bytes, revision: i64, effects: &mut Effects) {
        self.change_keys(id, revision, effects, |lease| lease.keys.remove(key).is_some());
    }

    fn change_keys(
        &mut self,
        id: LeaseId,
        revision: i64,
        effects: &mut Effects,
        change: impl FnOnce(&mut Lease) -> bool,
    ) {
        if id == LeaseId::NONE {
            return;
        }
        let Some(slot) = self.leases.get_mut(&id) else { return };
        let lease = Arc::make_mut(slot);
        if change(lease) && lease.generation != revision as u64 {
            lease.generation = revision as u64;
            effects.changes.push(meta::put_lease(self.id, id, lease));
        }
    }
}
