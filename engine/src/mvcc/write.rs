//! Put and DeleteRange: how a change of a key reaches index, pending rows, leases and watchers.
//!
//! Whatever can be refused is refused by the checks, before [`Writing::begin`]; afterwards only damage stops a change.

use super::effects::{Change, Effects, StoredEvent};
use super::entry::{Entry, EntryRef, Held, Replaced, Version};
use super::key::Key;
use super::keyspace::{Keyspace, key_value};
use super::quota::Delta;
use super::revision::{Revision, RowKey};
use super::row::{Row, RowSource};
use super::state::Stop;
use super::value::{Kept, StoredValue};
use bytes::Bytes;
use keygate_core::{
    Answer, DeleteRange, KeyRange, KeyValue, LeaseId, Put, PutLease, PutValue, Refusal, Sealed,
};

/// The revision that one request's changes will have.
pub(super) struct Writing {
    main: i64,
    sub: u32,
}

impl Writing {
    pub(super) fn begin(keyspace: &Keyspace) -> Self {
        Self { main: keyspace.revision + 1, sub: 0 }
    }

    /// The newest revision that a read within the request sees.
    pub(super) fn visible(&self) -> i64 {
        if self.sub > 0 { self.main } else { self.main - 1 }
    }

    fn next(&mut self) -> Revision {
        let revision = Revision { main: self.main, sub: self.sub };
        self.sub += 1;
        revision
    }
}

impl Replaced {
    fn into_key_value(self, key: &Bytes) -> (KeyValue<Sealed>, bool) {
        let in_store = self.value.is_none();
        let kv = KeyValue {
            key: key.clone(),
            create_revision: self.version.create,
            mod_revision: self.version.main,
            version: self.version.version,
            lease: self.lease,
            value: self.value,
        };
        (kv, in_store)
    }
}

impl Keyspace {
    pub(super) fn check_put(&self, put: &Put<StoredValue>) -> Result<(), Refusal> {
        if let PutLease::Set(id) = put.lease
            && id != LeaseId::NONE
            && !self.leases.contains_key(&id)
        {
            return Err(Refusal::LeaseNotFound);
        }
        let keeps = put.lease == PutLease::Keep || matches!(put.value, PutValue::Keep);
        if keeps && !self.index.get::<[u8]>(&put.key).is_some_and(|entry| entry.is_live()) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    pub(super) fn put(
        &mut self,
        put: &Put<StoredValue>,
        writing: &mut Writing,
        rows: &dyn RowSource,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Stop> {
        let mut prev = None;
        if put.prev_kv || matches!(put.value, PutValue::Keep) {
            prev = self.current(&put.key, rows)?;
        }
        let value = match (&put.value, &prev) {
            (PutValue::Set(value), _) => value.sealed().clone(),
            (PutValue::Keep, Some(KeyValue { value: Some(value), .. })) => value.clone(),
            (PutValue::Keep, _) => return Err(Refusal::KeyNotFound.into()),
        };
        let lease = match put.lease {
            PutLease::Set(lease) => lease,
            PutLease::Keep => self.index.get::<[u8]>(&put.key).map_or(LeaseId::NONE, |entry| entry.lease()),
        };
        self.set(&put.key, value, lease, writing, effects);
        Ok(Answer::Put { prev: prev.filter(|_| put.prev_kv) })
    }

    pub(super) fn delete_range(
        &mut self,
        delete: &DeleteRange,
        writing: &mut Writing,
        rows: &dyn RowSource,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Stop> {
        let keys = self.live_keys(&delete.range);
        let mut prev = Vec::new();
        if delete.prev_kv {
            for key in &keys {
                prev.extend(self.current(key, rows)?);
            }
        }
        for key in &keys {
            self.remove(key, writing, effects);
        }
        Ok(Answer::Delete { deleted: keys.len() as i64, prev })
    }

    /// Moves the keyspace to the request's revision, if anything was changed.
    pub(super) fn commit(&mut self, writing: &Writing) {
        if writing.sub > 0 {
            self.revision = writing.main;
        }
    }

    fn live_keys(&self, range: &KeyRange) -> Vec<Key> {
        if let KeyRange::Single(key) = range {
            let entry = self.index.get_key_value::<[u8]>(key).filter(|(_, entry)| entry.is_live());
            return entry.map(|(key, _)| key.clone()).into_iter().collect();
        }
        self.entries(range).filter(|(_, entry)| entry.is_live()).map(|(key, _)| key.clone()).collect()
    }

    fn current(&self, key: &[u8], rows: &dyn RowSource) -> Result<Option<KeyValue<Sealed>>, Stop> {
        let Some(entry) = self.index.get(key).filter(|entry| entry.is_live()) else { return Ok(None) };
        Ok(Some(self.load(key, entry, &entry.current(), rows)?))
    }

    fn set(
        &mut self,
        key: &[u8],
        value: Sealed,
        lease: LeaseId,
        writing: &mut Writing,
        effects: &mut Effects,
    ) {
        let revision = writing.next();
        let length = value.len() as u64;
        let mut version = Version {
            create: revision.main,
            main: revision.main,
            version: 1,
            sub: revision.sub,
            length: u32::try_from(length).unwrap_or(u32::MAX),
        };
        // Out of the request's buffer; from here on everybody shares what the entry holds.
        let held = Held::Here(Kept::from(&value));
        let mut replaced = None;
        let stored;
        match self.index.get_mut(key) {
            Some(slot) => {
                let old = slot.current();
                if slot.is_live() {
                    version.create = old.create;
                    version.version = old.version + 1;
                }
                let old = Entry::supersede(slot, version, lease, held);
                stored = Entry::value(slot);
                self.count.past += 1;
                if !old.version.is_tombstone() {
                    self.count.value_bytes -= old.value_len;
                    self.count.held_bytes -= old.held_bytes();
                    replaced = Some(old);
                }
            }
            None => {
                let entry = EntryRef::new(Entry::new(version, lease, held));
                stored = Entry::value(&entry);
                self.index.insert(Key::from(key), entry);
                self.count.key_bytes += key.len() as u64;
            }
        }
        if replaced.is_none() {
            self.count.live += 1;
            self.count.live_key_bytes += key.len() as u64;
        }
        self.count.value_bytes += length;
        self.count.held_bytes += length;
        let old = replaced.as_ref().map(|old| old.value_len);
        self.quota.changed(key, revision.main, Delta::of(key, old, Some(length)));

        let kv = key_value(key, &version, lease, stored);
        let old_lease = replaced.as_ref().map_or(LeaseId::NONE, |old| old.lease);
        if old_lease != lease {
            self.detach(old_lease, &kv.key, revision.main, effects);
            self.attach(lease, &kv.key, revision.main, effects);
        }
        self.record(revision, Row { kv, tombstone: false }, replaced, effects);
    }

    /// `key` must be live.
    pub(super) fn remove(&mut self, key: &[u8], writing: &mut Writing, effects: &mut Effects) {
        let Some(slot) = self.index.get_mut(key) else { return };
        if !slot.is_live() {
            return;
        }
        let revision = writing.next();
        let version = Version { create: 0, main: revision.main, version: 0, sub: revision.sub, length: 0 };
        let replaced = Entry::supersede(slot, version, LeaseId::NONE, Held::Nothing);
        self.count.past += 1;
        self.count.live -= 1;
        self.count.live_key_bytes -= key.len() as u64;
        self.count.value_bytes -= replaced.value_len;
        self.count.held_bytes -= replaced.held_bytes();
        self.quota.changed(key, revision.main, Delta::of(key, Some(replaced.value_len), None));

        let key = Bytes::copy_from_slice(key);
        self.detach(replaced.lease, &key, revision.main, effects);
        self.record(revision, Row::tombstone(key), Some(replaced), effects);
    }

    fn record(&mut self, revision: Revision, row: Row, replaced: Option<Replaced>, effects: &mut Effects) {
        let mut prev_in_store = false;
        let prev = replaced.map(|replaced| {
            let (kv, in_store) = replaced.into_key_value(&row.kv.key);
            prev_in_store = in_store;
            kv
        });
        let mut kv = row.kv.clone();
        kv.mod_revision = revision.main;
        effects.events.push(StoredEvent {
            keyspace: self.id,
            deleted: row.tombstone,
            kv,
            prev,
            prev_in_store,
            sub: revision.sub,
        });
        effects.changes.push(Change::PutRow(RowKey { keyspace: self.id, revision }, row.clone()));
        self.pending.push(revision, row);
    }
}
