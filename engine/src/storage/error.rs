//! What can go wrong on disk, in the classes that callers treat differently.

use std::io;
use std::path::{Path, PathBuf};

/// The way out that every refused start names.
pub(super) const WAY_OUT: &str = "nothing was changed on disk; copy the data directory, then restore a snapshot into a new one \
     (or, in a cluster, remove this member and add it again with an empty data directory)";

/// Contract: `Corrupt` and `Fatal` end the process or its start; `NoSpace` ends the one write, `Io` the one read or write of a
/// running store; the others end the start.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("data directory `{}` is in use by another process", path.display())]
    InUse { path: PathBuf },

    #[error("cannot write to `{}`: {source}", path.display())]
    NotWritable { path: PathBuf, source: io::Error },

    #[error("no space left on the device of `{}`", path.display())]
    NoSpace { path: PathBuf },

    #[error("`{}` can be accessed by other users (mode {mode:04o}); run `chmod 700 {}`", path.display(), path.display())]
    OpenToOthers { path: PathBuf, mode: u32 },

    #[error("`{}` has format version {found}; this program reads version {supported}", path.display())]
    WrongVersion { path: PathBuf, found: u64, supported: u64 },

    #[error("{0}")]
    Corrupt(Box<Damage>),

    /// A caller asked for an append that would leave a hole or touch what was compacted.
    #[error("cannot append log index {first}: the log holds {truncated_next}..={last}")]
    Gap { first: u64, truncated_next: u64, last: u64 },

    /// The state of the disk is unknown (a failed fsync, for one). Stop the process; never retry.
    #[error("storage at `{}` failed and must not be used any more: {what}", path.display())]
    Fatal { path: PathBuf, what: String },

    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
}

/// Where damage is and what it means.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is damaged at {place}: {what}; {way_out}", file.display())]
pub struct Damage {
    pub file: PathBuf,
    /// `offset 4096`, `entry 17`, or `table kv, key 0000…`.
    pub place: String,
    pub what: String,
    pub way_out: &'static str,
}

impl StorageError {
    pub(super) fn corrupt(file: &Path, place: impl Into<String>, what: impl Into<String>) -> StorageError {
        StorageError::Corrupt(Box::new(Damage {
            file: file.to_owned(),
            place: place.into(),
            what: what.into(),
            way_out: WAY_OUT,
        }))
    }

    /// Sorts an I/O error into the class that callers act on.
    pub(super) fn io(path: &Path, doing: &'static str, source: io::Error) -> StorageError {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let path = path.to_owned();
        match source.kind() {
            StorageFull | QuotaExceeded => StorageError::NoSpace { path },
            PermissionDenied | ReadOnlyFilesystem => StorageError::NotWritable { path, source },
            _ => StorageError::Io { path, doing, source },
        }
    }

    pub fn is_corrupt(&self) -> bool {
        matches!(self, StorageError::Corrupt(_))
    }
}
