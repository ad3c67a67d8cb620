//! Fences: where they stand, so that the rows of one keyspace do not spread over pages because of the next one's.
//!
//! Promises: behind each keyspace that rows were put into, a fence stands before rows of a higher one follow; none stands behind
//! a keyspace without rows or at the end of the table. Why, and what a fence is: `docs/formats/store.md`.

use std::collections::{BTreeSet, HashSet};

use redb::{ReadableTable, StorageError, Table};

use crate::storage::row::RowKey;

type Kv<'a> = Table<'a, &'static [u8; 16], &'static [u8]>;

/// What is known of fences, so that not every row costs a look-up. To be forgotten when a commit fails.
#[derive(Debug, Default)]
pub(super) struct Fences {
    /// Keyspaces whose fence stands. Others may have one that was not met yet.
    standing: HashSet<u32>,
    /// The keyspace of the table's last row, or a higher one that had rows when this commit began.
    last: Option<u32>,
    /// Keyspaces that this commit deleted rows of.
    thinned: BTreeSet<u32>,
}

impl Fences {
    pub(super) fn begin(&mut self, kv: &Kv<'_>) -> Result<(), StorageError> {
        self.thinned.clear();
        self.last = last_key(kv)?.map(|key| key.keyspace);
        Ok(())
    }

    /// A row of `keyspace` is about to be put.
    pub(super) fn before_row(&mut self, kv: &mut Kv<'_>, keyspace: u32) -> Result<(), StorageError> {
        if self.last.is_none_or(|last| last <= keyspace) {
            self.last = Some(keyspace);
        } else if self.standing.insert(keyspace) {
            kv.insert(&RowKey::fence(keyspace).encode(), &[][..])?;
        }
        Ok(())
    }

    /// A row of `keyspace` is deleted.
    pub(super) fn without_row(&mut self, keyspace: u32) {
        self.thinned.insert(keyspace);
    }

    /// All changes of the commit are made.
    pub(super) fn settle(&mut self, kv: &mut Kv<'_>) -> Result<(), StorageError> {
        let thinned = std::mem::take(&mut self.thinned);
        for keyspace in &thinned {
            let first = RowKey { keyspace: *keyspace, main: i64::MIN, sub: 0 }.encode();
            let fence = RowKey::fence(*keyspace);
            if kv.range::<&[u8; 16]>(&first..&fence.encode())?.next().is_none() {
                self.remove(kv, fence)?;
            }
        }
        if !thinned.is_empty() {
            while let Some(fence) = last_key(kv)?.filter(RowKey::is_fence) {
                self.remove(kv, fence)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, kv: &mut Kv<'_>, fence: RowKey) -> Result<(), StorageError> {
        kv.remove(&fence.encode())?;
        self.standing.remove(&fence.keyspace);
        Ok(())
    }
}

fn last_key(kv: &Kv<'_>) -> Result<Option<RowKey>, StorageError> {
    Ok(kv.last()?.map(|(key, _)| RowKey::decode(key.value())))
}
