//! The store's file as redb sees it: redb's own way of using it, with a [`Disk`] that is asked before.
//!
//! Promise: a failed sync is told apart from a write without room, whatever its cause. What the kernel did with the
//! pages is unknown then, and a sync that succeeded later would say nothing about them; redb itself uses the file no
//! more.

use std::fs::File;
use std::io::{Error, Result};
use std::ops::Bound;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::storage::disk::{Disk, DiskFile};

#[derive(Debug)]
pub(super) struct StoreFile {
    plain: FileBackend,
    disk: Arc<dyn Disk>,
}

impl StoreFile {
    pub(super) fn new(file: File, disk: Arc<dyn Disk>) -> std::result::Result<Self, redb::DatabaseError> {
        Ok(Self { plain: FileBackend::new(file)?, disk })
    }
}

impl StorageBackend for StoreFile {
    fn len(&self) -> Result<u64> {
        self.plain.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.plain.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.disk.before_write(DiskFile::Store, len)?;
        self.plain.set_len(len)
    }

    fn sync_data(&self) -> Result<()> {
        self.disk.before_sync(DiskFile::Store).and_then(|()| self.plain.sync_data()).map_err(|error| {
            // Not its kind: a disk that is found full only by a sync is no disk to try again.
            Error::other(format!("sync failed: {error}"))
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.disk.before_write(DiskFile::Store, offset)?;
        self.plain.write(offset, data)
    }

    fn close(&self) -> Result<()> {
        self.plain.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<bool, BackendError> {
        self.plain.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.plain.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<(), BackendError> {
        self.plain.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<(), BackendError> {
        self.plain.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<(), BackendError> {
        self.plain.unlock_range(start, end)
    }

    fn query_lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, BackendError> {
        self.plain.query_lock_range(start, end)
    }
}
