//! The durable Raft log of one group: raft-engine underneath, our own records and checks on top.
//!
//! Promises: one batch is one write and at most one `fdatasync`, and is kept whole or not at all; entries read from disk
//! were verified; a failed `fdatasync` ends the use of the log (`StorageError::Fatal`), it is never retried. The format,
//! and what is refused at start, is `docs/formats/log.md`.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protobuf::Message;
use raft::eraftpb::{ConfState, Entry, HardState};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

use super::audit::{self, GROUP, SEAL_KEY};
use super::disk::{Disk, RealDisk};
use super::record::{self, LogId, Seal};
use super::store::Applied;
use super::{OpenReport, StorageError, guarded, random_16};

mod files;
mod reading;

use files::{LogFiles, SyncFailure};

const CONF_STATE_KEY: &[u8] = b"c";
const META_PREFIX: u8 = b'm';
const ID_FILE: &str = "LOGID";

/// Sizes of the log. The defaults are for one member on an ordinary disk.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A file is closed and the next one begun at this size. Small enough that the disk taken at first start stays small.
    pub file_bytes: u64,
    /// `purge` does nothing below this size of the append queue.
    pub purge_bytes: u64,
    /// Whether purged files are reused. Overwriting allocated blocks makes `fdatasync` cheaper than growing a file.
    pub recycle: bool,
    /// Bytes of zeroed files prepared at first start; 0 prepares none. raft-engine takes one and a half times as many
    /// files, rounded down: the default of one file stays one, two would be three.
    pub prefill_bytes: u64,
    /// Newest entries kept in memory, by the size of their payloads, so that Raft's reads do not reach the disk.
    pub cache_bytes: usize,
    /// Identity of a new log; `None` asks the operating system for a random one. Tests fix it.
    pub id: Option<[u8; 16]>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            file_bytes: 32 << 20,
            purge_bytes: 128 << 20,
            recycle: true,
            prefill_bytes: 32 << 20,
            cache_bytes: 4 << 20,
            id: None,
        }
    }
}

/// Tells raft-engine how to find the index of an entry.
struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// See the module's promises. Not `Sync` by design of Raft: one thread owns it.
pub struct RaftLog {
    /// `None` only while dropping.
    engine: Option<Engine<LogFiles>>,
    directory: PathBuf,
    purge_bytes: u64,
    id: LogId,
    /// State after the last batch that was written.
    seal: Seal,
    highest_batch: u64,
    /// Every batch up to this number is on stable storage.
    durable: u64,
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
    cache: VecDeque<Entry>,
    cached: usize,
    cache_bytes: usize,
    failed: Option<String>,
    sync_failure: SyncFailure,
}

impl std::fmt::Debug for RaftLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftLog")
            .field("directory", &self.directory)
            .field("seal", &self.seal)
            .finish_non_exhaustive()
    }
}

impl RaftLog {
    /// Opens or creates the log. All live bytes are verified first; what is cut is in `report`.
    ///
    /// Contract: nobody else has it open. The caller's lock on the data directory sees to that: raft-engine's is taken only
    /// after the check.
    pub fn open(
        directory: &Path,
        options: LogOptions,
        report: &mut OpenReport,
    ) -> Result<RaftLog, StorageError> {
        RaftLog::open_on(Arc::new(RealDisk), directory, options, report)
    }

    /// The same on a disk of the caller's.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: LogOptions,
        report: &mut OpenReport,
    ) -> Result<RaftLog, StorageError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|e| StorageError::io(directory, "create directory", e))?;
        let id = identity(directory, &options, report)?;
        let audit = audit::audit(directory, &id)?;
        let config = Config {
            dir: directory.to_str().ok_or_else(|| not_unicode(directory))?.to_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            // Zero switches compression off: our envelopes must be found by scanning.
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(options.file_bytes),
            purge_threshold: ReadableSize(options.purge_bytes.max(options.file_bytes)),
            enable_log_recycle: options.recycle,
            prefill_for_recycle: options.recycle && options.prefill_bytes > 0,
            prefill_limit: (options.recycle && options.prefill_bytes > 0)
                .then_some(ReadableSize(options.prefill_bytes)),
            recovery_threads: 2,
            ..Config::default()
        };
        let sync_failure = SyncFailure::default();
        let files = Arc::new(LogFiles::new(disk, sync_failure.clone(), audit.ends));
        let engine = match guarded(|| Engine::open_with_file_system(config, files)) {
            Ok(Ok(engine)) => engine,
            Ok(Err(e)) => return Err(open_error(directory, e)),
            Err(panic) => return Err(StorageError::corrupt(directory, "the whole log", panic)),
        };
        report.findings.extend(audit.findings);
        let mut log = RaftLog {
            engine: Some(engine),
            directory: directory.to_owned(),
            purge_bytes: options.purge_bytes,
            id,
            seal: audit.seal.unwrap_or_default(),
            highest_batch: audit.highest_batch,
            durable: audit.seal.map_or(0, |seal| seal.durable),
            pairs: BTreeMap::new(),
            cache: VecDeque::new(),
            cached: 0,
            cache_bytes: options.cache_bytes,
            failed: None,
            sync_failure,
        };
        log.compare_with_engine(audit.seal)?;
        for file in audit.forgotten {
            // Only space is lost when this fails, until the next start.
            if let Err(error) = fs::remove_file(&file) {
                tracing::warn!(file = %file.display(), %error, "a purged log file could not be removed");
            }
        }
        if audit.seal.is_some() {
            // After SIGKILL the last batches may be in the page cache only. Raft takes them for persisted, so they must be.
            log.write_state(false)?;
        }
        Ok(log)
    }

    /// Appends `entries` and the hard state as one batch; with `sync` it is on stable storage when this returns.
    ///
    /// `entries` are consecutive and start at most one behind the last; they replace what is at and behind their first index.
    pub fn append(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        sync: bool,
    ) -> Result<(), StorageError> {
        if entries.is_empty() && hard_state.is_none() {
            return Ok(());
        }
        let mut seal = self.seal;
        let batch_number = self.highest_batch + 1;
        let mut batch = LogBatch::with_capacity(2);
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            let consecutive = entries.windows(2).all(|pair| pair[1].index == pair[0].index + 1);
            if first.index <= seal.truncated_index || first.index > seal.last_index + 1 || !consecutive {
                return Err(StorageError::Gap {
                    first: first.index,
                    truncated_next: seal.truncated_index + 1,
                    last: seal.last_index,
                });
            }
            let mut prev_term = self.term_at(first.index - 1)?;
            let mut stored = Vec::with_capacity(entries.len());
            for entry in entries {
                stored.push(record::wrap(&self.id, entry, prev_term, batch_number));
                prev_term = entry.term;
            }
            batch.add_entries::<Entries>(GROUP, &stored).map_err(|e| self.write_error(e))?;
            (seal.last_index, seal.last_term) = (last.index, last.term);
        }
        if let Some(hard_state) = hard_state {
            (seal.term, seal.vote, seal.commit) = (hard_state.term, hard_state.vote, hard_state.commit);
        }
        seal.entries = entries.len() as u32;
        self.write(batch, seal, sync)?;
        self.remember(entries);
        Ok(())
    }

    /// Stores the configuration state durably.
    pub fn put_conf_state(&mut self, conf_state: &ConfState) -> Result<(), StorageError> {
        let payload = conf_state.write_to_bytes().map_err(|e| self.write_error(e.into()))?;
        self.put_pair(CONF_STATE_KEY.to_vec(), payload)
    }

    /// Stores a small piece of cluster metadata durably, replacing what `key` held.
    pub fn put_meta(&mut self, key: &[u8], payload: &[u8]) -> Result<(), StorageError> {
        self.put_pair(meta_key(key), payload.to_vec())
    }

    pub fn get_meta(&self, key: &[u8]) -> Option<&[u8]> {
        self.pairs.get(&meta_key(key)).map(Vec::as_slice)
    }

    /// Forgets entries up to and including `index`; the term of `index` stays known. Nothing happens for an index already forgotten.
    ///
    /// Not synced by itself: losing it in a crash only means that the entries are still there.
    pub fn compact_to(&mut self, index: u64) -> Result<(), StorageError> {
        if index <= self.seal.truncated_index {
            return Ok(());
        }
        if index > self.seal.last_index {
            return Err(StorageError::Gap {
                first: index + 1,
                truncated_next: self.seal.truncated_index + 1,
                last: self.seal.last_index,
            });
        }
        let mut seal = self.seal;
        seal.truncated_term = self.term_at(index)?;
        seal.truncated_index = index;
        seal.entries = 0;
        let mut batch = LogBatch::with_capacity(2);
        batch.add_command(GROUP, Command::Compact { index: index + 1 });
        self.write(batch, seal, false)?;
        while self.cache.front().is_some_and(|entry| entry.index <= index) {
            self.forget_front();
        }
        Ok(())
    }

    /// Gives back (or recycles) files that hold nothing but forgotten entries. Cheap while the log is small.
    pub fn purge(&mut self) -> Result<(), StorageError> {
        if self.size() <= self.purge_bytes {
            return Ok(());
        }
        // Seal and pairs move to the newest file first, so that they never depend on the rewrite queue.
        let mut batch = LogBatch::with_capacity(2 + self.pairs.len());
        for (key, payload) in &self.pairs {
            batch
                .put(GROUP, key.clone(), record::encode_pair(key, payload))
                .map_err(|e| self.write_error(e))?;
        }
        let seal = Seal { entries: 0, ..self.seal };
        self.write(batch, seal, true)?;
        match guarded(|| self.engine().purge_expired_files()) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(self.write_error(e)),
            Err(panic) => Err(self.fail(panic)),
        }
    }

    /// Index of the first entry that is kept, or will be appended next.
    pub fn first_kept(&self) -> u64 {
        self.seal.truncated_index + 1
    }

    /// Bytes of disk that the log's live files take, at most.
    pub fn size(&self) -> u64 {
        self.engine().get_used_size() as u64
    }

    /// Checks that store and log belong together: what the store applied is in the log, and what it lacks can be replayed.
    pub fn covers(&self, applied: Applied) -> Result<(), StorageError> {
        let seal = &self.seal;
        if applied.index > seal.last_index {
            let what = format!(
                "the store has applied entry {}, but the log ends at {}",
                applied.index, seal.last_index
            );
            return Err(StorageError::corrupt(&self.directory, format!("entry {}", applied.index), what));
        }
        if applied.index < seal.truncated_index {
            let what = format!(
                "the store has applied entry {}, but the log begins at {}",
                applied.index,
                seal.truncated_index + 1
            );
            return Err(StorageError::corrupt(&self.directory, format!("entry {}", applied.index + 1), what));
        }
        let term = self.term_at(applied.index)?;
        if term != applied.term {
            let what =
                format!("the store has applied it in term {}, the log has it in term {term}", applied.term);
            return Err(StorageError::corrupt(&self.directory, format!("entry {}", applied.index), what));
        }
        Ok(())
    }

    /// Ends the use of the log with a seal that says everything is durable. Without it, the next start only knows less.
    pub fn close(mut self) -> Result<(), StorageError> {
        if self.durable < self.seal.batch {
            self.write_state(false)?;
        }
        self.write_state(true)
    }

    /// A synced batch that changes nothing; behind it, what came before is known to be durable.
    fn write_state(&mut self, clean: bool) -> Result<(), StorageError> {
        let seal = Seal { clean, entries: 0, ..self.seal };
        self.write(LogBatch::with_capacity(1), seal, true)
    }

    fn engine(&self) -> &Engine<LogFiles> {
        self.engine.as_ref().expect("the engine is taken only by drop")
    }

    fn write(&mut self, mut batch: LogBatch, mut seal: Seal, sync: bool) -> Result<(), StorageError> {
        if let Some(what) = &self.failed {
            return Err(StorageError::Fatal { path: self.directory.clone(), what: what.clone() });
        }
        seal.previous = self.seal.batch;
        seal.durable = self.durable;
        self.highest_batch += 1;
        seal.batch = self.highest_batch;
        batch.put(GROUP, SEAL_KEY.to_vec(), seal.encode(&self.id)).map_err(|e| self.write_error(e))?;
        match guarded(|| self.engine().write(&mut batch, sync)) {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => return Err(self.write_error(e)),
            // raft-engine panics when fdatasync fails.
            Err(panic) => return Err(self.fail(panic)),
        }
        // A clean flag is true of its own batch only.
        self.seal = Seal { clean: false, ..seal };
        if sync {
            self.durable = seal.batch;
        }
        Ok(())
    }

    fn fail(&mut self, panic: String) -> StorageError {
        let what = self.sync_failure.get().cloned().unwrap_or(panic);
        self.failed = Some(what.clone());
        StorageError::Fatal { path: self.directory.clone(), what }
    }

    fn write_error(&self, error: raft_engine::Error) -> StorageError {
        // raft-engine keeps only the kind and a word of the cause.
        let text = error.to_string();
        match error {
            raft_engine::Error::Io(source) => StorageError::io(&self.directory, "write", source),
            raft_engine::Error::TryAgain(_) if text.contains("nospace") => {
                StorageError::NoSpace { path: self.directory.clone() }
            }
            _ => StorageError::Io {
                path: self.directory.clone(),
                doing: "write",
                source: std::io::Error::other(text),
            },
        }
    }

    fn put_pair(&mut self, key: Vec<u8>, payload: Vec<u8>) -> Result<(), StorageError> {
        let mut seal = Seal { entries: 0, ..self.seal };
        match self.pairs.get(&key) {
            Some(old) => seal.meta_sum = seal.meta_sum.wrapping_sub(record::pair_hash(&key, old)),
            None => seal.meta_count += 1,
        }
        seal.meta_sum = seal.meta_sum.wrapping_add(record::pair_hash(&key, &payload));
        let mut batch = LogBatch::with_capacity(2);
        batch
            .put(GROUP, key.clone(), record::encode_pair(&key, &payload))
            .map_err(|e| self.write_error(e))?;
        self.write(batch, seal, true)?;
        self.pairs.insert(key, payload);
        Ok(())
    }

    /// What raft-engine recovered must be what the audit saw.
    fn compare_with_engine(&mut self, seal: Option<Seal>) -> Result<(), StorageError> {
        let whole = |what: &str| StorageError::corrupt(&self.directory, "the whole log", what);
        let engine = self.engine();
        let Some(seal) = seal else {
            return if engine.is_empty() {
                Ok(())
            } else {
                Err(whole("records exist that no batch accounts for"))
            };
        };
        if engine.get(GROUP, SEAL_KEY).as_deref() != Some(&*seal.encode(&self.id)) {
            return Err(whole("raft-engine recovered another last batch than the check found"));
        }
        let expected =
            (seal.last_index > seal.truncated_index).then_some((seal.truncated_index + 1, seal.last_index));
        if engine.first_index(GROUP).zip(engine.last_index(GROUP)) != expected {
            return Err(whole("raft-engine recovered another range of entries than the last seal names"));
        }
        let mut pairs = BTreeMap::new();
        let mut bad = None;
        let mut sum = 0_u64;
        let scan = guarded(|| {
            engine.scan_raw_messages(GROUP, None, None, false, |key, value| {
                if key == SEAL_KEY {
                    return true;
                }
                match record::decode_pair(key, value) {
                    Some(payload) => {
                        sum = sum.wrapping_add(record::pair_hash(key, &payload));
                        pairs.insert(key.to_vec(), payload);
                    }
                    None => bad = Some(String::from_utf8_lossy(key).into_owned()),
                }
                true
            })
        });
        match scan {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(whole(&e.to_string())),
            Err(panic) => return Err(whole(&panic)),
        }
        if let Some(key) = bad {
            return Err(StorageError::corrupt(
                &self.directory,
                format!("metadata `{key}`"),
                "the checksum is wrong",
            ));
        }
        if (pairs.len() as u32, sum) != (seal.meta_count, seal.meta_sum) {
            return Err(StorageError::corrupt(
                &self.directory,
                "the metadata",
                "a pair is missing or of another time",
            ));
        }
        self.pairs = pairs;
        Ok(())
    }
}

impl Drop for RaftLog {
    fn drop(&mut self) {
        // Closing raft-engine syncs, and panics if that fails: after a failed sync it must not be tried again.
        if let Some(engine) = self.engine.take() {
            if self.failed.is_some() {
                std::mem::forget(engine);
            } else if let Err(panic) = guarded(|| drop(engine)) {
                tracing::error!(log = %self.directory.display(), panic, "closing the log failed");
            }
        }
    }
}

fn meta_key(key: &[u8]) -> Vec<u8> {
    [&[META_PREFIX], key].concat()
}

/// The identity of the log in `directory`, made when the directory is empty.
fn identity(directory: &Path, options: &LogOptions, report: &mut OpenReport) -> Result<LogId, StorageError> {
    let path = directory.join(ID_FILE);
    if path.exists() {
        return LogId::read(&path, report);
    }
    let list = fs::read_dir(directory).map_err(|e| StorageError::io(directory, "list", e))?;
    for entry in list {
        let name = entry.map_err(|e| StorageError::io(directory, "list", e))?.file_name();
        if name.to_string_lossy().contains(".raftlog") {
            return Err(StorageError::corrupt(&path, "offset 0", "the log's identity is missing"));
        }
    }
    let bytes = match options.id {
        Some(bytes) => bytes,
        None => random_16().map_err(|e| StorageError::io(Path::new("/dev/urandom"), "read", e))?,
    };
    let id = LogId::new(bytes);
    id.create(&path)?;
    Ok(id)
}

fn not_unicode(directory: &Path) -> StorageError {
    let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path is not UTF-8");
    StorageError::Io { path: directory.to_owned(), doing: "open", source }
}

fn open_error(directory: &Path, error: raft_engine::Error) -> StorageError {
    match error {
        raft_engine::Error::Io(source) => StorageError::io(directory, "open", source),
        raft_engine::Error::Other(text) if text.to_string().contains("lock file") => {
            StorageError::InUse { path: directory.to_owned() }
        }
        other => StorageError::corrupt(directory, "the whole log", other.to_string()),
    }
}
