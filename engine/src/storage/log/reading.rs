//! Reading the log: the newest entries from memory, older ones from disk, as Raft's `Storage` asks for them.

use protobuf::Message;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState};

use super::{CONF_STATE_KEY, Entries, GROUP, RaftLog};
use crate::storage::{StorageError, guarded, record};

impl RaftLog {
    pub(super) fn remember(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self.cache.back().is_some_and(|entry| entry.index >= first.index) {
            if let Some(gone) = self.cache.pop_back() {
                self.cached -= cost(&gone);
            }
        }
        for entry in entries {
            self.cached += cost(entry);
            self.cache.push_back(entry.clone());
        }
        while self.cached > self.cache_bytes && self.cache.len() > 1 {
            self.forget_front();
        }
    }

    pub(super) fn forget_front(&mut self) {
        if let Some(gone) = self.cache.pop_front() {
            self.cached -= cost(&gone);
        }
    }

    fn cache_first(&self) -> u64 {
        self.cache.front().map_or(u64::MAX, |entry| entry.index)
    }

    pub(super) fn term_at(&self, index: u64) -> Result<u64, StorageError> {
        if index == self.seal.truncated_index {
            return Ok(self.seal.truncated_term);
        }
        if index == self.seal.last_index {
            return Ok(self.seal.last_term);
        }
        if let Some(entry) = index.checked_sub(self.cache_first()).and_then(|at| self.cache.get(at as usize))
        {
            return Ok(entry.term);
        }
        let mut found = Vec::new();
        self.read_disk(index, index + 1, None, &mut found)?;
        found.first().map(|entry| entry.term).ok_or_else(|| {
            StorageError::corrupt(&self.directory, format!("entry {index}"), "the entry is missing")
        })
    }

    /// Entries `low..high` in order; with `limit` as many as fit into it, but at least one.
    fn read(&self, low: u64, high: u64, limit: Option<u64>) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        let from_disk = high.min(self.cache_first());
        if low < from_disk {
            self.read_disk(low, from_disk, limit, &mut entries)?;
        }
        let mut next = low + entries.len() as u64;
        let mut bytes: u64 = entries.iter().map(|entry| cost(entry) as u64).sum();
        while next < high && next >= self.cache_first() {
            let Some(entry) = self.cache.get((next - self.cache_first()) as usize) else { break };
            bytes += cost(entry) as u64;
            if limit.is_some_and(|limit| bytes > limit) && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
            next += 1;
        }
        Ok(entries)
    }

    fn read_disk(
        &self,
        low: u64,
        high: u64,
        limit: Option<u64>,
        out: &mut Vec<Entry>,
    ) -> Result<(), StorageError> {
        let damaged =
            |index: u64, what: String| StorageError::corrupt(&self.directory, format!("entry {index}"), what);
        let mut stored = Vec::new();
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        match guarded(|| self.engine().fetch_entries_to::<Entries>(GROUP, low, high, limit, &mut stored)) {
            Ok(Ok(_)) => {}
            Ok(Err(raft_engine::Error::Io(source))) => {
                return Err(StorageError::io(&self.directory, "read", source));
            }
            Ok(Err(e)) => return Err(damaged(low, e.to_string())),
            Err(panic) => return Err(damaged(low, panic)),
        }
        for (index, stored) in (low..).zip(stored) {
            let (entry, _) =
                record::unwrap(&self.id, stored).map_err(|what| damaged(index, what.to_owned()))?;
            if entry.index != index {
                return Err(damaged(index, format!("entry {} is in its place", entry.index)));
            }
            out.push(entry);
        }
        Ok(())
    }
}

impl raft::Storage for RaftLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard_state = HardState::default();
        (hard_state.term, hard_state.vote, hard_state.commit) =
            (self.seal.term, self.seal.vote, self.seal.commit);
        let mut conf_state = ConfState::default();
        if let Some(bytes) = self.pairs.get(CONF_STATE_KEY) {
            conf_state.merge_from_bytes(bytes)?;
        }
        Ok(RaftState::new(hard_state, conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.seal.truncated_index {
            return Err(raft::StorageError::Compacted.into());
        }
        if high > self.seal.last_index + 1 || low > high {
            return Err(raft::StorageError::Unavailable.into());
        }
        self.read(low, high, max_size.into()).map_err(to_raft)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.seal.truncated_index {
            return Err(raft::StorageError::Compacted.into());
        }
        if index > self.seal.last_index {
            return Err(raft::StorageError::Unavailable.into());
        }
        self.term_at(index).map_err(to_raft)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.seal.truncated_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.seal.last_index)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(raft::StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

fn to_raft(error: StorageError) -> raft::Error {
    raft::StorageError::Other(Box::new(error)).into()
}

/// Bytes that an entry counts for, in the cache and against a reader's limit.
fn cost(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + 24
}
