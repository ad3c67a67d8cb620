//! The store's file as redb sees it: redb's own way of using it, with a [`Disk`] that is asked before.
//!
//! Promise: a failed sync is told apart from a write without room, whatever its cause. What the kernel did with the
//! pages is unknown then, and a sync that succeeded later would say nothing about them; redb itself uses the file no
//! more. So is a write that failed for another cause than room. A failed read says nothing of the kind.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::storage::disk::{Disk, DiskFile};

/// The disk below one store, however often its file is opened.
#[derive(Debug)]
pub(super) struct StoreDisk {
    disk: Arc<dyn Disk>,
    failed: AtomicBool,
}

impl StoreDisk {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, failed: AtomicBool::new(false) }
    }

    /// A sync or a write has failed, so that nobody knows what is on the disk: the file must not be used any more.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    fn writing<T>(&self, done: Result<T>) -> Result<T> {
        if let Err(error) = &done
            && !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        {
            self.fail();
        }
        done
    }
}

#[derive(Debug)]
pub(super) struct StoreFile {
    plain: FileBackend,
    disk: Arc<StoreDisk>,
}

impl StoreFile {
    pub(super) fn new(file: File, disk: Arc<StoreDisk>) -> std::result::Result<Self, redb::DatabaseError> {
        Ok(Self { plain: FileBackend::new(file)?, disk })
    }
}

impl StorageBackend for StoreFile {
    fn len(&self) -> Result<u64> {
        self.plain.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.disk.disk.before_read(DiskFile::Store, offset)?;
        self.plain.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let asked = self.disk.disk.before_write(DiskFile::Store, len);
        self.disk.writing(asked.and_then(|()| self.plain.set_len(len)))
    }

    fn sync_data(&self) -> Result<()> {
        self.disk.disk.before_sync(DiskFile::Store).and_then(|()| self.plain.sync_data()).map_err(|error| {
            self.disk.fail();
            // Not its kind: a disk that is found full only by a sync is no disk to try again.
            Error::other(format!("sync failed: {error}"))
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let asked = self.disk.disk.before_write(DiskFile::Store, offset);
        self.disk.writing(asked.and_then(|()| self.plain.write(offset, data)))
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
