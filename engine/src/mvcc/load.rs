//! Makes the state again from what the store holds.
//!
//! Metadata rows come first, in any order, then rows in ascending order; the index, the attachments of leases and all sums are rebuilt.
//! What an interrupted compaction left is dropped at once and handed back for deletion.

use super::effects::Change;
use super::entry::{Entry, EntryRef, Held, Version};
use super::key::Key;
use super::keyspace::Keyspace;
use super::lease::Lease;
use super::meta::{self, Record};
use super::platform::Platform;
use super::quota::Delta;
use super::revision::RowKey;
use super::row::Row;
use super::state::State;
use super::tenants::Tenants;
use super::value::Kept;
use bytes::Bytes;
use keygate_core::{
    AuthTables, BundleDigest, Caller, Compile, Decision, Fence, KeyRange, KeyspaceId, LeaseId, Policy,
    PolicyRevision, Sealed, Tenant, TenantState,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use thiserror::Error;

#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LoadError {
    #[error("metadata row `{key}`: {what}")]
    Meta { key: String, what: &'static str },
    #[error("row `{}.{}` of keyspace `{}`: {what}", .at.revision.main, .at.revision.sub, .at.keyspace.0)]
    Row { at: RowKey, what: &'static str },
    #[error("{0}")]
    Tenants(&'static str),
    /// Serving without the bundle would be serving whoever it denies.
    #[error("{0}")]
    Policy(String),
    #[error("keyspace `{}` has rows but no head", .0.0)]
    NoHead(KeyspaceId),
    #[error("key `{key}` of keyspace `{}` is attached to lease `{lease:x}`, which does not exist", .keyspace.0)]
    NoLease { keyspace: KeyspaceId, key: String, lease: i64 },
}

pub struct Loader {
    keyspaces: BTreeMap<KeyspaceId, Loading>,
    tenants: Vec<Tenant>,
    policy_revisions: Vec<PolicyRevision>,
    bundle_parts: Vec<((BundleDigest, u32), Bytes)>,
    next_keyspace: Option<u32>,
    /// Bytes of values that may still be taken into memory.
    room: u64,
}

struct Loading {
    keyspace: Keyspace,
    has_head: bool,
    /// Its tenant was deleted.
    erasing: bool,
    last: Option<RowKey>,
}

impl Loader {
    /// `memory_budget` bounds the bytes of current values that are taken into memory.
    pub fn new(memory_budget: u64) -> Self {
        let mut loader = Self {
            keyspaces: BTreeMap::new(),
            tenants: Vec::new(),
            policy_revisions: Vec::new(),
            bundle_parts: Vec::new(),
            next_keyspace: None,
            room: memory_budget,
        };
        loader.loading(KeyspaceId::DEFAULT).has_head = true;
        loader
    }

    fn loading(&mut self, id: KeyspaceId) -> &mut Loading {
        self.keyspaces.entry(id).or_insert_with(|| Loading {
            keyspace: Keyspace::new(id, Arc::new(Nobody)),
            has_head: false,
            erasing: false,
            last: None,
        })
    }

    pub fn meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let (id, record) = meta::read(key, value)
            .map_err(|what| LoadError::Meta { key: key.escape_ascii().to_string(), what })?;
        if matches!(record, Record::Foreign) {
            return Ok(());
        }
        let loading = self.loading(id);
        let keyspace = &mut loading.keyspace;
        match record {
            Record::Head(head) => {
                loading.has_head = true;
                keyspace.revision = keyspace.revision.max(head.revision);
                keyspace.compact_revision = head.compact_revision;
            }
            Record::Lease(id, record) => {
                let lease = Lease {
                    ttl: record.ttl,
                    remaining: record.remaining,
                    generation: record.generation,
                    keys: imbl::OrdSet::new(),
                };
                keyspace.leases.insert(id, Arc::new(lease));
            }
            Record::Alarm(alarm) => {
                keyspace.alarms.insert(alarm);
            }
            Record::Auth(record) => {
                keyspace.auth = AuthTables {
                    enabled: record.enabled,
                    revision: record.revision,
                    policy_version: record.policy_version,
                    ..keyspace.auth.clone()
                };
            }
            Record::User(user) => {
                keyspace.auth.users.insert(user.name.clone(), Arc::new(user));
            }
            Record::Role(role) => {
                keyspace.auth.roles.insert(role.name.clone(), Arc::new(role));
            }
            Record::PolicyRevision(own) => self.policy_revisions.push(own),
            Record::BundlePart(id, content) => self.bundle_parts.push((id, content)),
            Record::Tenant(tenant) => self.tenants.push(tenant),
            Record::NextKeyspace(next) => self.next_keyspace = Some(next),
            Record::Erasing => loading.erasing = true,
            Record::Quota(prefix, limits) => {
                keyspace.quota.limit(&prefix, limits);
            }
            Record::Foreign => {}
        }
        Ok(())
    }

    /// Contract: rows of one keyspace come in ascending order.
    pub fn row(&mut self, at: RowKey, row: Row) -> Result<(), LoadError> {
        let wrong = |what| LoadError::Row { at, what };
        let mut room = self.room;
        let loading = self.loading(at.keyspace);
        if loading.last.is_some_and(|last| last >= at) {
            return Err(wrong("not in ascending order"));
        }
        loading.last = Some(at);
        if row.kv.key.is_empty() {
            return Err(wrong("has no key"));
        }
        if !row.tombstone && (row.kv.mod_revision != at.revision.main || row.kv.version < 1) {
            return Err(wrong("stands under another revision"));
        }
        loading.keyspace.load_row(at, row, &mut room);
        self.room = room;
        Ok(())
    }

    /// The state, and the deletions that complete an interrupted compaction or the erasing of a tenant.
    pub fn finish(self, compile: &dyn Compile) -> Result<(State, Vec<Change>), LoadError> {
        let mut left_over = Vec::new();
        let mut keyspaces = Vec::with_capacity(self.keyspaces.len());
        let suspended: BTreeSet<KeyspaceId> = self
            .tenants
            .iter()
            .filter(|tenant| tenant.state == TenantState::Suspended)
            .map(|tenant| tenant.keyspace)
            .collect();
        for tenant in &self.tenants {
            if !self.keyspaces.contains_key(&tenant.keyspace) {
                return Err(LoadError::NoHead(tenant.keyspace));
            }
        }
        for (id, loading) in self.keyspaces {
            if loading.erasing {
                loading.keyspace.erase_all(&mut left_over);
                continue;
            }
            if !loading.has_head {
                return Err(LoadError::NoHead(id));
            }
            let mut keyspace = loading.keyspace;
            keyspace.suspended = suspended.contains(&id);
            keyspace.flushed = keyspace.revision;
            keyspace.horizon.store(keyspace.compact_revision, Ordering::Release);
            keyspace.quota.compacted(keyspace.compact_revision);
            keyspace.prune_all(&mut left_over);
            keyspace.attach_all()?;
            keyspace.policy = compile.compile(id, &keyspace.auth, None);
            keyspaces.push(keyspace);
        }
        let mut state = State::from_keyspaces(keyspaces);
        state.tenants = Tenants::loaded(self.tenants, self.next_keyspace).map_err(LoadError::Tenants)?;
        state.platform =
            Platform::loaded(self.policy_revisions, self.bundle_parts, compile).map_err(LoadError::Policy)?;
        Ok((state, left_over))
    }
}

impl Keyspace {
    fn load_row(&mut self, at: RowKey, row: Row, room: &mut u64) {
        let kv = row.kv;
        let version = Version {
            create: kv.create_revision,
            main: at.revision.main,
            version: kv.version,
            sub: at.revision.sub,
            length: kv.value.as_ref().map_or(0, |value| u32::try_from(value.len()).unwrap_or(u32::MAX)),
        };
        let held = held(kv.value, room);
        self.revision = self.revision.max(version.main);
        let mut old_length = None;
        let (length, in_memory) = match self.index.get_mut::<[u8]>(&kv.key) {
            Some(slot) => {
                let was_live = slot.is_live();
                let old = Entry::supersede(slot, version, kv.lease, held);
                old_length = was_live.then_some(old.value_len);
                self.count.past += 1;
                self.count.value_bytes -= old.value_len;
                self.count.held_bytes -= old.held_bytes();
                *room += old.held_bytes();
                (slot.value_len(), slot.bytes_in_memory())
            }
            None => {
                let entry = Entry::new(version, kv.lease, held);
                let lengths = (entry.value_len(), entry.bytes_in_memory());
                self.count.key_bytes += kv.key.len() as u64;
                self.index.insert(Key::from(kv.key.as_ref()), EntryRef::new(entry));
                lengths
            }
        };
        self.count.value_bytes += length;
        self.count.held_bytes += in_memory;
        let new_length = (!row.tombstone).then_some(length);
        self.quota.changed(&kv.key, version.main, Delta::of(&kv.key, old_length, new_length));
        match (old_length.is_some(), row.tombstone) {
            (false, false) => {
                self.count.live += 1;
                self.count.live_key_bytes += kv.key.len() as u64;
            }
            (true, true) => {
                self.count.live -= 1;
                self.count.live_key_bytes -= kv.key.len() as u64;
            }
            (true, false) | (false, true) => {}
        }
    }

    fn prune_all(&mut self, changes: &mut Vec<Change>) {
        let (keys, _) = self.prunable(None, usize::MAX);
        for key in keys {
            self.prune_key(&key, changes);
        }
    }

    fn attach_all(&mut self) -> Result<(), LoadError> {
        for (key, entry) in &self.index {
            let lease = entry.lease();
            if lease == LeaseId::NONE || !entry.is_live() {
                continue;
            }
            let slot = self.leases.get_mut(&lease).ok_or_else(|| LoadError::NoLease {
                keyspace: self.id,
                key: key.escape_ascii().to_string(),
                lease: lease.0,
            })?;
            Arc::make_mut(slot).keys.insert(Bytes::copy_from_slice(key));
        }
        Ok(())
    }
}

fn held(value: Option<Sealed>, room: &mut u64) -> Held {
    let Some(value) = value else { return Held::Nothing };
    let length = value.len() as u64;
    match u32::try_from(length) {
        Ok(stored) if length > *room => Held::Stored(stored),
        _ => {
            *room = room.saturating_sub(length);
            // Out of the store's page.
            Held::Here(Kept::from(&value))
        }
    }
}

/// Stands in until the real policy is compiled. Allows nothing.
struct Nobody;

impl Policy for Nobody {
    fn fence(&self) -> Fence {
        Fence::default()
    }

    fn is_enabled(&self) -> bool {
        true
    }

    fn knows(&self, _: &Caller) -> bool {
        false
    }

    fn decide_keys(&self, _: &Caller, _: keygate_core::KeyAction, _: &KeyRange) -> Decision {
        Decision::Deny
    }

    fn decide_other(&self, _: &Caller, _: &keygate_core::Access) -> Decision {
        Decision::Deny
    }
}
