//! The redb file: opening it, what its super-header must say, and redb's errors in our classes.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use redb::Database;

use super::backend::{StoreDisk, StoreFile};
use crate::storage::record::array;
use crate::storage::row::TableTag;
use crate::storage::{OpenReport, StorageError, guarded};

/// Whether redb checks every page when it opens the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    AtOpen,
    /// Only for a file that this process has had open: needs no room on the disk. Rows carry their own checksums.
    OnRead,
}

pub(super) fn open_database(
    disk: &Arc<StoreDisk>,
    path: &Path,
    cache_bytes: usize,
    verify: Verify,
) -> Result<Database, StorageError> {
    let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = open.map_err(|e| StorageError::io(path, "open", e))?;
    let file = StoreFile::new(file, disk.clone()).map_err(|e| classify(path, "open", e.into()))?;
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes).set_check_integrity_on_open(verify == Verify::AtOpen);
    match guarded(|| builder.create_with_backend(file)) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(classify(path, "open", error.into())),
        Err(panic) => Err(StorageError::corrupt(path, "the whole file", panic)),
    }
}

/// redb creates its file with the process's umask; ours is for the owner only.
pub(super) fn restrict(path: &Path) -> Result<(), StorageError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|e| StorageError::io(path, "restrict", e))
}

/// Catches what redb's own check cannot: a flipped "current commit" bit, which would quietly serve the commit before.
///
/// redb's super-header: byte 9 holds flags (1 = second slot is current, 2 = not shut down cleanly), the slots start at
/// 64 and 192, each with its transaction number 104 bytes in.
pub(super) fn check_super_header(path: &Path, report: &mut OpenReport) -> Result<(), StorageError> {
    let mut header = [0; 320];
    let read =
        std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut header));
    match read {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(StorageError::corrupt(path, "offset 0", "the file is cut short"));
        }
        Err(e) => return Err(StorageError::io(path, "read", e)),
    }
    let flags = header[9];
    let number = |slot: usize| u64::from_le_bytes(array(&header, 64 + 128 * slot + 104));
    let current = usize::from(flags & 1);
    if flags & 2 != 0 {
        report.add(path, 9, "the store was not shut down cleanly; its last durable commit is used");
    } else if number(1 - current) > number(current) {
        let what = "the commit that is marked current is not the newest, after a clean shutdown";
        return Err(StorageError::corrupt(path, "offset 9", what));
    }
    Ok(())
}

/// Sorts redb's errors into the classes that callers act on.
pub(super) fn classify(path: &Path, doing: &'static str, error: redb::Error) -> StorageError {
    let whole = |what: String| StorageError::corrupt(path, "the whole file", what);
    match error {
        redb::Error::DatabaseAlreadyOpen => StorageError::InUse { path: path.to_owned() },
        redb::Error::UpgradeRequired(found) => {
            StorageError::WrongVersion { path: path.to_owned(), found: found.into(), supported: 3 }
        }
        // Bytes that make no sense, or an end where pages should be.
        redb::Error::Io(source)
            if matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            whole(source.to_string())
        }
        redb::Error::Io(source) => StorageError::io(path, doing, source),
        error @ (redb::Error::PreviousIo | redb::Error::LockPoisoned(_) | redb::Error::DatabaseClosed) => {
            StorageError::Fatal { path: path.to_owned(), what: error.to_string() }
        }
        other => whole(other.to_string()),
    }
}

pub(super) fn place(tag: TableTag, key: &[u8]) -> String {
    use std::fmt::Write;
    let mut place = format!("table {}, key ", tag.name());
    for byte in key {
        let _ = write!(place, "{byte:02x}");
    }
    place
}
