//! The store: rows and metadata in one redb file, written behind the log in large durable commits.
//!
//! Promises: a commit and its applied index are durable together when `commit` returns; every value read was verified;
//! `load` proves that the set of rows is the one that was committed. The format is `docs/formats/store.md`.
//!
//! Locking: readers and the committer share the database; `defragment` takes it exclusively, so both wait meanwhile.

use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::disk::{Disk, RealDisk};
use super::row::{self, RowKey, TableTag};
use super::{OpenReport, StorageError, guarded};

mod backend;
mod fence;
mod file;
mod head;
mod write;

use backend::StoreDisk;
use fence::Fences;
use file::{Verify, check_super_header, classify, open_database, place, restrict};
use head::{Head, Sum, read_head};
use write::{initialise, write};

const KV: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("kv");
const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");
const HEAD: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("head");
const HEAD_KEY: &[u8] = b"head";

/// One change of a commit. Payloads are opaque here. Contract: no row has both the greatest main and the greatest sub revision.
#[derive(Debug, Clone)]
pub enum Change {
    PutRow { key: RowKey, value: Bytes },
    DeleteRow { key: RowKey },
    PutMeta { key: Bytes, value: Bytes },
    DeleteMeta { key: Bytes },
}

/// Position in the Raft log up to which the store holds everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    pub index: u64,
    pub term: u64,
}

/// What one commit did.
#[derive(Debug, Clone, Copy, Default)]
pub struct CommitStats {
    pub changes: u64,
    /// Bytes of payloads written.
    pub bytes: u64,
    pub rows: u64,
    pub metas: u64,
}

/// See the module's promises. Shared by reference between threads; commits are serialised.
pub struct Store {
    disk: Arc<StoreDisk>,
    path: PathBuf,
    cache_bytes: usize,
    /// None: closed, or closed by a failure and not yet opened again.
    database: RwLock<Option<Database>>,
    /// How often the file was opened again.
    reopened: AtomicU64,
    closed: AtomicBool,
    /// Held through a commit, so that it also serialises committers.
    head: Mutex<Head>,
    /// Only those of commits that have returned. The committer's.
    fences: Mutex<Fences>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the store; redb verifies all its pages first. `cache_bytes` is all that redb may keep in memory.
    pub fn open(path: &Path, cache_bytes: usize, report: &mut OpenReport) -> Result<Store, StorageError> {
        Store::open_on(Arc::new(RealDisk), path, cache_bytes, report)
    }

    /// The same on a disk of the caller's.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        path: &Path,
        cache_bytes: usize,
        report: &mut OpenReport,
    ) -> Result<Store, StorageError> {
        let fresh = !path.exists();
        if !fresh {
            check_super_header(path, report)?;
        }
        let disk = Arc::new(StoreDisk::new(disk));
        let database = open_database(&disk, path, cache_bytes, Verify::AtOpen)?;
        restrict(path)?;
        let head = if fresh { Some(initialise(path, &database)?) } else { None };
        let head = match head {
            Some(head) => head,
            None => match guarded(|| read_head(path, &database)) {
                Ok(head) => head?,
                Err(panic) => return Err(StorageError::corrupt(path, "the whole file", panic)),
            },
        };
        Ok(Store {
            disk,
            path: path.to_owned(),
            cache_bytes,
            database: RwLock::new(Some(database)),
            reopened: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            head: Mutex::new(head),
            fences: Mutex::default(),
        })
    }

    /// Position up to which everything is durable in the store.
    pub fn applied(&self) -> Applied {
        self.head.lock().applied
    }

    /// Makes `changes` and `applied` durable in one transaction. Changes to one key take effect in their order.
    ///
    /// `NoSpace`, `Io`: nothing of the commit was kept, and it can be tried again, when there is room or the disk can be
    /// read again. `Fatal`: stop the process.
    pub fn commit<'a>(
        &self,
        changes: impl IntoIterator<Item = &'a Change>,
        applied: Applied,
    ) -> Result<CommitStats, StorageError> {
        let mut current = self.head.lock();
        self.open_if_closed(&mut current)?;
        let mut head = *current;
        head.applied = applied;
        head.commit += 1;
        // What a commit that fails did about fences is unknown; the next ones find out.
        let mut fences = std::mem::take(&mut *self.fences.lock());
        let done = {
            let guard = self.database.read();
            let database = self.open_in(&guard)?;
            guarded(|| write(database, changes, &mut head, &mut fences))
        };
        match done {
            Ok(Ok(stats)) => {
                *current = head;
                *self.fences.lock() = fences;
                Ok(stats)
            }
            Ok(Err(error)) => Err(self.commit_error(&mut current, error)),
            Err(panic) => Err(StorageError::corrupt(&self.path, "an unknown page", panic)),
        }
    }

    /// The value of one row, verified.
    pub fn get_row(&self, key: RowKey) -> Result<Option<Bytes>, StorageError> {
        if key.is_fence() {
            return Ok(None);
        }
        let bytes = key.encode();
        let found = self.reading(|database| {
            let table = database.begin_read()?.open_table(KV)?;
            Ok(table.get(&bytes)?.map(|row| Bytes::copy_from_slice(row.value())))
        })?;
        let Some(row) = found else { return Ok(None) };
        match row::unframe(TableTag::Kv, &bytes, &row) {
            Ok(_) => Ok(Some(row.slice(row::FRAME_HEADER..))),
            Err(what) => Err(self.bad_row(TableTag::Kv, &bytes, what)),
        }
    }

    /// The value of one piece of metadata, verified.
    pub fn get_meta(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        let found = self.reading(|database| {
            let table = database.begin_read()?.open_table(META)?;
            Ok(table.get(key)?.map(|row| Bytes::copy_from_slice(row.value())))
        })?;
        let Some(row) = found else { return Ok(None) };
        match row::unframe(TableTag::Meta, key, &row) {
            Ok(_) => Ok(Some(row.slice(row::FRAME_HEADER..))),
            Err(what) => Err(self.bad_row(TableTag::Meta, key, what)),
        }
    }

    /// Visits the rows of `keyspace` with (main, sub) from `from` inclusive to `to` exclusive, ascending, until `visit` breaks.
    ///
    /// No `to` is above the keyspace's fence, so none is visited. The rows are of one commit. `visit` must not call the store: `defragment` may be waiting in between.
    pub fn scan_rows(
        &self,
        keyspace: u32,
        from: (i64, u32),
        to: (i64, u32),
        mut visit: impl FnMut(RowKey, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let bound = |(main, sub)| RowKey { keyspace, main, sub }.encode();
        let (from, to) = (bound(from), bound(to));
        if from >= to {
            return Ok(());
        }
        let mut bad = None;
        let mut begin = Bound::Included(from);
        self.reading(|database| {
            let table = database.begin_read()?.open_table(KV)?;
            for row in table.range::<&[u8; 16]>((begin.as_ref(), Bound::Excluded(&to)))? {
                let (key, row) = row?;
                // Should this have to begin again, then behind what was visited.
                begin = Bound::Excluded(*key.value());
                match row::unframe(TableTag::Kv, key.value(), row.value()) {
                    Ok(payload) => {
                        if visit(RowKey::decode(key.value()), payload).is_break() {
                            break;
                        }
                    }
                    Err(what) => {
                        bad = Some((*key.value(), what));
                        break;
                    }
                }
            }
            Ok(())
        })?;
        bad.map_or(Ok(()), |(key, what)| Err(self.bad_row(TableTag::Kv, &key, what)))
    }

    /// Visits all metadata in key order.
    pub fn for_each_meta(&self, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), StorageError> {
        self.metas(&mut visit).map(drop)
    }

    /// Visits every row (ascending), then all metadata, and then proves that nothing was lost, added or changed since the
    /// last commit. What the visitors saw counts only when this returns `Ok`. Nobody commits meanwhile.
    pub fn load(
        &self,
        mut row: impl FnMut(RowKey, &[u8]),
        mut meta: impl FnMut(&[u8], &[u8]),
    ) -> Result<Applied, StorageError> {
        let head = self.head.lock();
        let rows = self.rows(head.hash_key, &mut row)?;
        let metas = self.metas_with(head.hash_key, &mut meta)?;
        for (tag, found, expected) in [(TableTag::Kv, rows, head.kv), (TableTag::Meta, metas, head.meta)] {
            if found != expected {
                let what = format!(
                    "it holds {} rows where {} were committed, or rows of another time",
                    found.count, expected.count
                );
                return Err(StorageError::corrupt(&self.path, format!("table {}", tag.name()), what));
            }
        }
        Ok(head.applied)
    }

    /// Closes the file, so that another may open it. Whoever still reads is told that the store is closed.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.database.write().take();
    }

    /// A sync or a write has failed: nothing that is read or written from now on can be believed.
    pub fn has_failed(&self) -> bool {
        self.disk.has_failed()
    }

    /// Bytes of the file.
    pub fn file_size(&self) -> Result<u64, StorageError> {
        Ok(self.path.metadata().map_err(|e| StorageError::io(&self.path, "examine", e))?.len())
    }

    /// Bytes of keys and values as stored: what the file would shrink towards, without redb's own overhead.
    pub fn bytes_in_use(&self) -> u64 {
        let head = self.head.lock();
        head.kv.bytes.saturating_add(head.meta.bytes)
    }

    /// Gives unused space back to the file system. Commits and reads from the store wait meanwhile.
    pub fn defragment(&self) -> Result<(), StorageError> {
        let mut head = self.head.lock();
        self.open_if_closed(&mut head)?;
        let done = {
            let mut guard = self.database.write();
            let database = guard.as_mut().ok_or_else(|| self.closed())?;
            guarded(|| database.compact())
        };
        match done {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.commit_error(&mut head, error.into())),
            Err(panic) => Err(StorageError::corrupt(&self.path, "an unknown page", panic)),
        }
    }

    /// Runs `work` on the database and sorts its errors. A read that fails, and a commit that fails for want of room,
    /// make redb refuse everything until the file is opened again; `work` is then run once more.
    ///
    /// Contract: not while holding `head`, and `work` can be run again after an error.
    fn reading<T>(
        &self,
        mut work: impl FnMut(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        let before = self.reopened.load(Ordering::Acquire);
        match self.reading_once(&mut work) {
            Err(StorageError::Fatal { .. } | StorageError::NoSpace { .. } | StorageError::Io { .. })
                if !self.has_failed() =>
            {
                self.reopen(&mut self.head.lock(), before)?;
                self.reading_once(work)
            }
            done => done,
        }
    }

    fn reading_once<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        let guard = self.database.read();
        let database = self.open_in(&guard)?;
        match guarded(|| work(database)) {
            Ok(done) => done.map_err(|error| classify(&self.path, "read", error)),
            Err(panic) => Err(StorageError::corrupt(&self.path, "an unknown page", panic)),
        }
    }

    fn rows(&self, hash_key: u64, visit: &mut impl FnMut(RowKey, &[u8])) -> Result<Sum, StorageError> {
        let mut bad = None;
        let sum = self.reading_once(|database| {
            let table = database.begin_read()?.open_table(KV)?;
            let mut sum = Sum::default();
            for row in table.iter()? {
                let (key, row) = row?;
                let (key, row) = (key.value(), row.value());
                let decoded = RowKey::decode(key);
                if decoded.is_fence() {
                    continue;
                }
                match row::unframe(TableTag::Kv, key, row) {
                    Ok(payload) => visit(decoded, payload),
                    Err(what) => {
                        bad = Some((*key, what));
                        break;
                    }
                }
                sum.add(hash_key, TableTag::Kv, key, row);
            }
            Ok(sum)
        })?;
        bad.map_or(Ok(sum), |(key, what)| Err(self.bad_row(TableTag::Kv, &key, what)))
    }

    fn metas(&self, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<Sum, StorageError> {
        let hash_key = self.head.lock().hash_key;
        self.metas_with(hash_key, visit)
    }

    fn metas_with(&self, hash_key: u64, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<Sum, StorageError> {
        let mut bad = None;
        let sum = self.reading_once(|database| {
            let table = database.begin_read()?.open_table(META)?;
            let mut sum = Sum::default();
            for row in table.iter()? {
                let (key, row) = row?;
                let (key, row) = (key.value(), row.value());
                match row::unframe(TableTag::Meta, key, row) {
                    Ok(payload) => visit(key, payload),
                    Err(what) => {
                        bad = Some((key.to_vec(), what));
                        break;
                    }
                }
                sum.add(hash_key, TableTag::Meta, key, row);
            }
            Ok(sum)
        })?;
        bad.map_or(Ok(sum), |(key, what)| Err(self.bad_row(TableTag::Meta, &key, what)))
    }

    fn open_in<'a>(
        &self,
        guard: &'a RwLockReadGuard<'_, Option<Database>>,
    ) -> Result<&'a Database, StorageError> {
        guard.as_ref().ok_or_else(|| self.closed())
    }

    /// Tries again to open what a failure closed and could not open.
    fn open_if_closed(&self, head: &mut Head) -> Result<(), StorageError> {
        if self.database.read().is_some() {
            return Ok(());
        }
        self.reopen(head, self.reopened.load(Ordering::Acquire))
    }

    /// Opens the file again, unless somebody else has done so since there were `before` times. What redb was asked to
    /// commit is in the file or was never acknowledged.
    fn reopen(&self, head: &mut Head, before: u64) -> Result<(), StorageError> {
        let mut guard = self.database.write();
        if self.closed.load(Ordering::Acquire) {
            return Err(self.closed());
        }
        if guard.is_some() && self.reopened.load(Ordering::Acquire) != before {
            return Ok(());
        }
        if let Some(database) = guard.take() {
            let _ = guarded(|| drop(database));
        }
        let database = open_database(&self.disk, &self.path, self.cache_bytes, Verify::OnRead)?;
        *head = read_head(&self.path, &database)?;
        *guard = Some(database);
        self.reopened.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Sorts a commit's error. redb refuses everything after one failed write or read. The commit before is intact in the
    /// file, so, if its syncs can be believed, the file is opened again: reads go on, and a later commit can succeed.
    fn commit_error(&self, head: &mut Head, error: redb::Error) -> StorageError {
        // The failure was another thread's, which reads.
        let of_another = matches!(error, redb::Error::PreviousIo);
        let error = match classify(&self.path, "write", error) {
            StorageError::Io { path, source, .. } if self.has_failed() => {
                return StorageError::Fatal { path, what: source.to_string() };
            }
            StorageError::Fatal { path, what } if of_another && !self.has_failed() => {
                StorageError::Io { path, doing: "write", source: std::io::Error::other(what) }
            }
            error => error,
        };
        if matches!(error, StorageError::NoSpace { .. } | StorageError::Io { .. }) {
            // If it cannot be opened now, whoever needs it next tries again.
            drop(self.reopen(head, self.reopened.load(Ordering::Acquire)));
        }
        error
    }

    fn closed(&self) -> StorageError {
        StorageError::NoSpace { path: self.path.clone() }
    }

    fn bad_row(&self, tag: TableTag, key: &[u8], what: &str) -> StorageError {
        StorageError::corrupt(&self.path, place(tag, key), what)
    }
}
