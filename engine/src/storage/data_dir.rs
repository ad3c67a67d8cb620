//! The data directory: one process at a time, nobody else's eyes.
//!
//! ```text
//! <data>/LOCK               held with flock while a process uses the directory
//! <data>/member/log/        the Raft log
//! <data>/member/store.redb  the store
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::StorageError;

/// An open, locked data directory. The lock ends with this value or with the process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory (mode 0700) when it is missing, refuses one that others can access, and locks it.
    pub fn open(path: &Path) -> Result<DataDir, StorageError> {
        let member = path.join("member");
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(|e| StorageError::io(path, "create directory", e))?;
        let mode =
            path.metadata().map_err(|e| StorageError::io(path, "examine", e))?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(StorageError::OpenToOthers { path: path.to_owned(), mode });
        }
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| StorageError::io(&lock_path, "open", e))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            rustix::io::Errno::WOULDBLOCK => StorageError::InUse { path: path.to_owned() },
            other => StorageError::io(&lock_path, "lock", other.into()),
        })?;
        builder.create(&member).map_err(|e| StorageError::io(&member, "create directory", e))?;
        for directory in [path, &member] {
            File::open(directory)
                .and_then(|d| d.sync_all())
                .map_err(|e| StorageError::io(directory, "sync directory", e))?;
        }
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("member").join("log")
    }

    pub fn store(&self) -> PathBuf {
        self.path.join("member").join("store.redb")
    }
}
