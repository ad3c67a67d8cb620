//! Rows of the past from the store, for those who may wait for a disk.

use crate::mvcc::{ReadError, Revision, Row, RowError, RowKey, RowSource};
use crate::storage::{self, StorageError};
use bytes::Bytes;
use keygate_core::KeyspaceId;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Reads the store on the calling thread. Not for serving threads.
pub(crate) struct StoreRows {
    store: Arc<storage::Store>,
}

impl StoreRows {
    pub(crate) fn new(store: Arc<storage::Store>) -> Self {
        Self { store }
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
        let found = self.store.get_row(stored_key(key)).map_err(row_error)?;
        let bytes = found.ok_or(RowError::Missing(key))?;
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
                match Row::decode(Bytes::copy_from_slice(bytes)) {
                    Ok(row) => visit(row_key(key).revision, row),
                    Err(error) => {
                        failed = Some(RowError::Corrupt(error.to_string()));
                        ControlFlow::Break(())
                    }
                }
            })
            .map_err(row_error)?;
        failed.map_or(Ok(()), Err)
    }
}
