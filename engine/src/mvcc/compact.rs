//! Compaction: the horizon moves at once, superseded versions go step by step.
//!
//! When a version leaves the index differs from member to member and says nothing: whatever is behind the horizon is
//! refused, whether it is there still or not.

use super::effects::{Change, Compaction, Effects};
use super::entry::Entry;
use super::key::Key;
use super::keyspace::Keyspace;
use super::meta;
use super::revision::RowKey;
use super::state::State;
use keygate_core::{Answer, Compact, KeyspaceId, Refusal, Sealed};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Which keyspaces are being pruned, and how far.
#[derive(Clone, Default, Debug)]
pub(super) struct Pruning {
    running: BTreeMap<KeyspaceId, Walk>,
    /// Who had the last step: the next one is another's, if others wait.
    last: Option<KeyspaceId>,
    erased_last: bool,
}

#[derive(Clone, Default, Debug)]
struct Walk {
    /// The last key that was pruned.
    after: Option<Key>,
    /// The horizon moved during the walk: the keys before that need another one.
    again: bool,
}

impl Pruning {
    fn next(&self) -> Option<KeyspaceId> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut others = self.running.range((after, Bound::Unbounded));
        others.next().or_else(|| self.running.iter().next()).map(|(id, _)| *id)
    }

    pub(super) fn forget(&mut self, keyspace: KeyspaceId) {
        self.running.remove(&keyspace);
    }

    pub(super) fn start(&mut self, keyspace: KeyspaceId) {
        self.running.entry(keyspace).and_modify(|walk| walk.again = true).or_default();
    }
}

impl Keyspace {
    pub(super) fn compact(
        &mut self,
        compact: &Compact,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Refusal> {
        if compact.revision <= self.compact_revision {
            return Err(Refusal::Compacted);
        }
        if compact.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        self.compact_revision = compact.revision;
        self.quota.compacted(compact.revision);
        self.horizon.store(compact.revision, Ordering::Release);
        effects.changes.push(meta::put_head(self.id, &self.head()));
        effects.compactions.push(Compaction { keyspace: self.id, revision: compact.revision });
        Ok(Answer::Done)
    }

    pub(super) fn head(&self) -> meta::HeadRecord {
        meta::HeadRecord { revision: self.revision, compact_revision: self.compact_revision }
    }

    /// Drops what no reader at the horizon or later can see of `key`.
    pub(super) fn prune_key(&mut self, key: &Key, changes: &mut Vec<Change>) {
        let Some(slot) = self.index.get_mut::<[u8]>(key) else { return };
        let past = slot.past_len() as u64;
        let keyspace = self.id;
        let gone = Entry::compact(slot, self.compact_revision, &mut |revision| {
            changes.push(Change::DeleteRow(RowKey { keyspace, revision }));
        });
        if gone {
            self.index.remove::<[u8]>(key);
            self.count.key_bytes -= key.len() as u64;
            self.count.past -= past;
        } else {
            self.count.past -= past - slot.past_len() as u64;
        }
    }

    /// The next keys after `after` that have something to prune, looking at no more than `max_keys`, and the last key
    /// that was looked at; None at the end.
    pub(super) fn prunable(&self, after: Option<&Key>, max_keys: usize) -> (Vec<Key>, Option<Key>) {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_ref()));
        let mut found = Vec::new();
        let mut last = None;
        let entries = self.index.range::<_, [u8]>((start, Bound::<&[u8]>::Unbounded));
        for (looked, (key, entry)) in entries.enumerate() {
            if looked == max_keys {
                return (found, last);
            }
            last = Some(key.clone());
            if entry.has_superseded(self.compact_revision) {
                found.push(key.clone());
            }
        }
        (found, None)
    }
}

impl State {
    /// Takes one compaction, or the erasing of one deleted tenant, a step further, looking at up to `max_keys` keys.
    /// They take turns, so that nobody who compacts all the time keeps the others waiting.
    /// True while there is more to do.
    pub fn prune_step(&mut self, max_keys: usize, effects: &mut Effects) -> bool {
        let next = self.pruning.next();
        let erases = self.is_erasing() && (next.is_none() || !self.pruning.erased_last);
        self.pruning.erased_last = erases;
        if erases {
            return self.erase_step(max_keys, effects) || !self.pruning.running.is_empty();
        }
        let Some(id) = next else { return false };
        self.pruning.last = Some(id);
        let (Some(walk), Some(slot)) = (self.pruning.running.get_mut(&id), self.keyspaces.get_mut(&id))
        else {
            self.pruning.running.remove(&id);
            return !self.pruning.running.is_empty() || self.is_erasing();
        };
        let (keys, last) = slot.prunable(walk.after.as_ref(), max_keys.max(1));
        if !keys.is_empty() {
            let keyspace = Arc::make_mut(slot);
            for key in &keys {
                keyspace.prune_key(key, &mut effects.changes);
            }
        }
        if last.is_some() {
            walk.after = last;
        } else if walk.again {
            *walk = Walk::default();
        } else {
            self.pruning.running.remove(&id);
        }
        !self.pruning.running.is_empty() || self.is_erasing()
    }

    /// Whether superseded versions of a compaction are still to be dropped: a physical compaction waits for this to end
    /// and for the store to hold the changes.
    pub fn is_pruning(&self, keyspace: KeyspaceId) -> bool {
        self.pruning.running.contains_key(&keyspace)
    }
}
