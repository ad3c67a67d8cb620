//! A whole private etcd: keys, history, leases, alarms and security state of one tenant.
//!
//! Readers hold it as part of a snapshot and use the methods of `read.rs`, `changes.rs` and `hash.rs`; only
//! [`super::State`] changes it.

use super::entry::{Entry, EntryRef, Version};
use super::key::Key;
use super::lease::Lease;
use super::pending::Pending;
use super::quota::Quotas;
use super::read::ReadError;
use super::revision::{Revision, RowKey};
use super::row::{Row, RowError, RowSource};
use bytes::Bytes;
use keygate_core::{
    AlarmKind, AlarmMember, AuthTables, Compile, KeyRange, KeyValue, KeyspaceId, LeaseId, LeaseKeys, Policy,
    Sealed,
};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

#[derive(Clone)]
pub struct Keyspace {
    pub(super) id: KeyspaceId,
    pub(super) revision: i64,
    /// -1: never compacted, as etcd has it.
    pub(super) compact_revision: i64,
    pub(super) index: imbl::OrdMap<Key, EntryRef>,
    pub(super) pending: Pending,
    /// The store holds every row up to this main revision.
    pub(super) flushed: i64,
    pub(super) count: Count,
    pub(super) quota: Quotas,
    pub(super) leases: imbl::OrdMap<LeaseId, Arc<Lease>>,
    pub(super) alarms: imbl::OrdSet<AlarmMember>,
    pub(super) auth: AuthTables,
    pub(super) policy: Arc<dyn Policy>,
    /// Its tenant's state: callers change nothing.
    pub(super) suspended: bool,
    /// The compact revision of the newest state, which all snapshots share: an old snapshot learns from it why a row
    /// that it needs is gone from the store. Says nothing that state depends on.
    pub(super) horizon: Arc<AtomicI64>,
}

/// Sums over the index, kept with each change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Count {
    /// Keys that are not deleted.
    pub(super) live: u64,
    /// Bytes of those keys.
    pub(super) live_key_bytes: u64,
    /// Bytes of their values.
    pub(super) value_bytes: u64,
    /// The part of `value_bytes` that memory holds.
    pub(super) held_bytes: u64,
    /// Bytes of all keys of the index.
    pub(super) key_bytes: u64,
    /// Superseded versions of all keys.
    pub(super) past: u64,
}

/// What an index entry costs beside the bytes of key and value: tree slot, entry, allocations' own overhead. Measured by
/// the bench.
const ENTRY_OVERHEAD: u64 = 230;
const PAST_OVERHEAD: u64 = 40;

impl Keyspace {
    pub(super) fn new(id: KeyspaceId, policy: Arc<dyn Policy>) -> Self {
        Self {
            id,
            revision: 1,
            compact_revision: -1,
            index: imbl::OrdMap::new(),
            pending: Pending::default(),
            flushed: 0,
            count: Count::default(),
            quota: Quotas::default(),
            leases: imbl::OrdMap::new(),
            alarms: imbl::OrdSet::new(),
            auth: AuthTables::default(),
            policy,
            suspended: false,
            horizon: Arc::new(AtomicI64::new(-1)),
        }
    }

    pub(super) fn compiled(id: KeyspaceId, compile: &dyn Compile) -> Self {
        Self::new(id, compile.compile(id, &AuthTables::default(), None))
    }

    pub fn id(&self) -> KeyspaceId {
        self.id
    }

    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// -1: never compacted.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    pub fn policy(&self) -> &Arc<dyn Policy> {
        &self.policy
    }

    pub fn auth(&self) -> &AuthTables {
        &self.auth
    }

    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.alarms.iter().copied().collect()
    }

    pub fn has_alarm(&self, kind: AlarmKind) -> bool {
        self.alarms.iter().any(|alarm| alarm.alarm == kind)
    }

    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id).map(AsRef::as_ref)
    }

    /// Ascending by id.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.as_ref()))
    }

    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// Keys that exist now.
    pub fn key_count(&self) -> u64 {
        self.count.live
    }

    /// Bytes of the keys and values that exist now, wherever they are held.
    pub fn current_bytes(&self) -> u64 {
        self.count.live_key_bytes + self.count.value_bytes
    }

    pub(super) fn memory_used(&self) -> u64 {
        self.count.held_bytes
            + self.count.key_bytes
            + self.index.len() as u64 * ENTRY_OVERHEAD
            + self.count.past * PAST_OVERHEAD
            + self.pending.bytes()
            + self.quota.memory_used()
    }

    /// Index entries of `range`, ascending; deleted ones too.
    pub(super) fn entries(&self, range: &KeyRange) -> impl Iterator<Item = (&Key, &EntryRef)> {
        let start: &[u8] = range.start();
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = match range {
            // Where the interval is empty the tree's own bounds would be the wrong way round.
            KeyRange::Span { end, .. } if end.as_ref() <= start => {
                (Bound::Included(start), Bound::Included(start))
            }
            KeyRange::Single(_) => (Bound::Included(start), Bound::Included(start)),
            KeyRange::Span { end, .. } => (Bound::Included(start), Bound::Excluded(end.as_ref())),
            KeyRange::From(_) => (Bound::Included(start), Bound::Unbounded),
        };
        let empty = range.is_empty();
        self.index.range::<_, [u8]>(bounds).take_while(move |_| !empty)
    }

    /// Version `version` of `key` with its value.
    pub(super) fn load(
        &self,
        key: &[u8],
        entry: &EntryRef,
        version: &Version,
        rows: &dyn RowSource,
    ) -> Result<KeyValue<Sealed>, RowError> {
        if version.revision() == entry.current().revision()
            && let Some(value) = Entry::value(entry)
        {
            entry.touch();
            return Ok(key_value(key, version, entry.lease(), Some(value)));
        }
        let row = self.row(version.revision(), rows)?;
        if row.tombstone || row.kv.key != key || row.kv.mod_revision != version.main {
            return Err(RowError::Corrupt(format!(
                "row `{}.{}` of keyspace `{}` is not the one that the index names",
                version.main, version.sub, self.id.0
            )));
        }
        Ok(row.kv)
    }

    pub(super) fn row(&self, revision: Revision, rows: &dyn RowSource) -> Result<Row, RowError> {
        match self.pending.get(revision) {
            Some(row) => Ok(row.clone()),
            None => rows.row(RowKey { keyspace: self.id, revision }),
        }
    }

    /// What a failed look into the store means for a reader of `revision`. `pinned`: the caller named it.
    pub(super) fn explain(&self, error: RowError, revision: i64, pinned: bool) -> ReadError {
        match error {
            RowError::NeedsStore => ReadError::NeedsStore,
            RowError::Corrupt(text) => ReadError::Corrupt(text),
            RowError::Unavailable(text) => ReadError::Unavailable(text),
            RowError::Abandoned => ReadError::Abandoned,
            RowError::NoRoom(refusal) => ReadError::Refused(*refusal),
            RowError::Missing(_) if self.overtaken(revision) => {
                if pinned {
                    ReadError::Refused(keygate_core::Refusal::Compacted)
                } else {
                    ReadError::Outdated
                }
            }
            RowError::Missing(_) => ReadError::Corrupt(error.to_string()),
        }
    }

    /// True when a newer state than this one was compacted beyond `revision`, so that its rows may be gone.
    pub(super) fn overtaken(&self, revision: i64) -> bool {
        self.horizon.load(Ordering::Acquire) > revision
    }
}

pub(super) fn key_value(
    key: &[u8],
    version: &Version,
    lease: LeaseId,
    value: Option<Sealed>,
) -> KeyValue<Sealed> {
    KeyValue {
        key: Bytes::copy_from_slice(key),
        create_revision: version.create,
        mod_revision: version.main,
        version: version.version,
        lease,
        value,
    }
}

impl LeaseKeys for Keyspace {
    fn attached(&self, lease: LeaseId, visit: &mut dyn FnMut(&Bytes) -> bool) -> Option<u64> {
        let lease = self.leases.get(&lease)?;
        lease.keys.iter().all(visit);
        Some(lease.generation)
    }

    fn attached_to_any(&self, visit: &mut dyn FnMut(&Bytes) -> bool) {
        self.leases.values().flat_map(|lease| &lease.keys).all(visit);
    }
}
