//! Rows of the past from the store, for those who may wait for a disk.

use crate::AnswerShare;
use crate::mvcc::{ReadError, Revision, Row, RowError, RowKey, RowSource};
use crate::readers::Wanted;
use crate::storage::{self, StorageError};
use bytes::Bytes;
use keygate_core::KeyspaceId;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Reads the store on the calling thread. Not for serving threads.
pub(crate) struct StoreRows {
    store: Arc<storage::Store>,
    /// None: for whoever never goes away.
    wanted: Option<Wanted>,
    /// None: what is read is not kept.
    share: Option<AnswerShare>,
}

impl StoreRows {
    pub(crate) fn new(store: Arc<storage::Store>) -> Self {
        Self { store, wanted: None, share: None }
    }

    /// Only while somebody waits for what is read.
    pub(crate) fn while_wanted(store: Arc<storage::Store>, wanted: Wanted, share: AnswerShare) -> Self {
        Self { store, wanted: Some(wanted), share: Some(share) }
    }

    /// What was read stays counted for as long as this lives.
    pub(crate) fn into_share(self) -> Option<AnswerShare> {
        self.share
    }

    fn check_wanted(&self) -> Result<(), RowError> {
        if self.wanted() { Ok(()) } else { Err(RowError::Abandoned) }
    }
}

pub(crate) fn stored_key(key: RowKey) -> storage::RowKey {
    storage::RowKey { keyspace: key.keyspace.0, main: key.revision.main, sub: key.revision.sub }
}

pub(crate) fn row_key(key: storage::RowKey) -> RowKey {
    RowKey { keyspace: KeyspaceId(key.keyspace), revision: Revision { main: key.main, sub: key.sub } }
}

/// Damage is what is known to be damage; whatever else keeps a row from us may pass.
pub(crate) fn row_error(error: StorageError) -> RowError {
    match error {
        StorageError::Corrupt(_) | StorageError::WrongVersion { .. } => RowError::Corrupt(error.to_string()),
        StorageError::InUse { .. }
        | StorageError::NotWritable { .. }
        | StorageError::NoSpace { .. }
        | StorageError::OpenToOthers { .. }
        | StorageError::Gap { .. }
        | StorageError::Fatal { .. }
        | StorageError::Io { .. } => RowError::Unavailable(error.to_string()),
    }
}

/// The same for readers.
pub(crate) fn read_error(error: StorageError) -> ReadError {
    match row_error(error) {
        RowError::Unavailable(what) => ReadError::Unavailable(what),
        other => ReadError::Corrupt(other.to_string()),
    }
}

impl RowSource for StoreRows {
    fn row(&self, key: RowKey) -> Result<Row, RowError> {
        self.check_wanted()?;
        let found = self.store.get_row(stored_key(key)).map_err(row_error)?;
        let bytes = found.ok_or(RowError::Missing(key))?;
        if let Some(share) = &self.share {
            share.grow(bytes.len()).map_err(|refusal| RowError::NoRoom(Box::new(refusal)))?;
        }
        Row::decode(bytes).map_err(|error| RowError::Corrupt(error.to_string()))
    }

    fn scan(
        &self,
        keyspace: KeyspaceId,
        from: Revision,
        to: Revision,
        visit: &mut dyn FnMut(Revision, Row) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        let mut failed = None;
        self.store
            .scan_rows(keyspace.0, (from.main, from.sub), (to.main, to.sub), |key, bytes| {
                match self.check_wanted().and_then(|()| {
                    Row::decode(Bytes::copy_from_slice(bytes))
                        .map_err(|error| RowError::Corrupt(error.to_string()))
                }) {
                    Ok(row) => visit(row_key(key).revision, row),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })
            .map_err(row_error)?;
        failed.map_or(Ok(()), Err)
    }

    fn wanted(&self) -> bool {
        self.wanted.as_ref().is_none_or(Wanted::now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AnswerRoom;
    use crate::readers::{Purpose, Readers};
    use crate::storage::{Applied, Change, OpenReport, Store};

    const ROWS: i64 = 10;

    fn store(directory: &std::path::Path) -> Arc<Store> {
        let store = Store::open(&directory.join("store"), 1 << 20, &mut OpenReport::default()).unwrap();
        let row = Row {
            kv: keygate_core::KeyValue {
                key: Bytes::from_static(b"k"),
                create_revision: 1,
                mod_revision: 1,
                version: 1,
                lease: keygate_core::LeaseId::NONE,
                value: None,
            },
            tombstone: false,
        };
        let changes: Vec<_> = (0..ROWS)
            .map(|main| Change::PutRow {
                key: storage::RowKey { keyspace: 0, main, sub: 0 },
                value: row.encode(),
            })
            .collect();
        store.commit(&changes, Applied { index: 1, term: 1 }).unwrap();
        Arc::new(store)
    }

    fn count(rows: &StoreRows) -> Result<i64, RowError> {
        let mut count = 0;
        let (from, to) = (Revision::start_of(0), Revision::start_of(ROWS));
        rows.scan(KeyspaceId(0), from, to, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Scans went on for minutes after their clients had gone.
    #[tokio::test]
    async fn nothing_is_read_that_nobody_waits_for() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let key = RowKey { keyspace: KeyspaceId(0), revision: Revision { main: 3, sub: 0 } };
        assert_eq!(count(&StoreRows::new(store.clone())), Ok(ROWS));
        let shared = store.clone();
        let read = move |wanted: Wanted| {
            let rows = StoreRows::while_wanted(shared, wanted, AnswerRoom::new(1 << 20).share());
            (count(&rows), rows.row(key).is_ok(), rows)
        };
        let (counted, found, rows) = Readers::new().run(Purpose::Answer, read).await.unwrap();
        assert_eq!((counted, found), (Ok(ROWS), true), "while it is waited for");
        assert_eq!((count(&rows), rows.row(key)), (Err(RowError::Abandoned), Err(RowError::Abandoned)));
    }
}
