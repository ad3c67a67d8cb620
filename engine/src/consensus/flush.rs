//! The thread behind the consensus thread: writes what was applied to the store, in large batches.
//!
//! The log has made everything durable before; this only moves it to where history is read from
//! and lets the log be shortened.

use super::Request;
use super::full_disk::{RETRY, Reminder, Room};
use crate::counters::Counters;
use crate::fatal::Fatal;
use crate::mvcc;
use crate::rows::stored_key;
use crate::storage::{self, Applied, StorageError, Store};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long changes gather before a commit: one commit costs two syncs, which the log's own syncs
/// would feel.
const GATHER: Duration = Duration::from_millis(100);
/// Bytes of rows at which a commit does not wait any longer.
const GATHER_BYTES: u64 = 8 << 20;
/// How long the consensus thread waits at once: the store may find its disk full meanwhile.
const PROGRESS: Duration = Duration::from_millis(100);

/// What the state machine changed in one batch.
pub(crate) struct FlushBatch {
    pub(crate) changes: Vec<mvcc::Change>,
    /// Counts the batches handed over.
    pub(crate) number: u64,
    /// Under which the state knows these rows.
    pub(crate) sequence: u64,
    pub(crate) applied: Applied,
}

/// A commit that the store has made durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flushed {
    pub(crate) number: u64,
    pub(crate) sequence: u64,
    pub(crate) applied: Applied,
}

/// Figures that other threads read.
#[derive(Default)]
pub(crate) struct FlushStats {
    unflushed_bytes: AtomicU64,
    pub(crate) store_bytes: AtomicU64,
    hurry: AtomicBool,
}

impl FlushStats {
    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.unflushed_bytes.load(Ordering::Relaxed)
    }
}

/// The consensus thread's end.
pub(crate) struct Flusher {
    batches: Option<Sender<FlushBatch>>,
    progress: Receiver<Flushed>,
    stats: Arc<FlushStats>,
    thread: Option<JoinHandle<Result<(), StorageError>>>,
}

impl Flusher {
    pub(crate) fn start(
        store: Arc<Store>,
        requests: Sender<Request>,
        counters: Arc<Counters>,
        stats: Arc<FlushStats>,
        room: Arc<Room>,
        fatal: &Fatal,
    ) -> std::io::Result<Self> {
        let (batches, inbox) = crossbeam_channel::unbounded();
        let (done, progress) = crossbeam_channel::unbounded();
        let worker = Worker { store, inbox, requests, done, counters, stats: stats.clone(), room };
        let guard = fatal.guard("store");
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let result = worker.run();
            guard.ended();
            result
        })?;
        Ok(Self { batches: Some(batches), progress, stats, thread: Some(thread) })
    }

    pub(crate) fn send(&self, batch: FlushBatch) {
        let bytes = batch.changes.iter().map(change_bytes).sum();
        self.stats.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(batches) = &self.batches {
            // The thread ends before us only after it has reported its failure.
            drop(batches.send(batch));
        }
    }

    /// Commit what there is without gathering more.
    pub(crate) fn hurry(&self) {
        self.stats.hurry.store(true, Ordering::Relaxed);
        // An empty batch would do nothing but wake it; the gathering loop looks every few milliseconds.
    }

    pub(crate) fn unflushed_bytes(&self) -> u64 {
        self.stats.unflushed_bytes()
    }

    /// Blocks until the next commit, but not for long. Disconnected: there will be none.
    pub(crate) fn wait_for_progress(&self) -> Result<Flushed, RecvTimeoutError> {
        self.progress.recv_timeout(PROGRESS)
    }

    /// Drops the news that nobody waited for.
    pub(crate) fn forget_progress(&self) {
        while self.progress.try_recv().is_ok() {}
    }

    /// Commits all that is left, if the disk has room for it, and ends the thread.
    pub(crate) fn finish(&mut self) -> Result<(), StorageError> {
        self.batches = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            // A panic there was reported by the panic hook.
            Some(Err(_)) | None => Ok(()),
        }
    }
}

fn change_bytes(change: &mvcc::Change) -> u64 {
    const OVERHEAD: usize = 96;
    let bytes = match change {
        mvcc::Change::PutRow(_, row) => {
            row.kv.key.len() + row.kv.value.as_ref().map_or(0, |value| value.len())
        }
        mvcc::Change::DeleteRow(_) => 0,
        mvcc::Change::PutMeta(key, value) => key.len() + value.len(),
        mvcc::Change::DeleteMeta(key) => key.len(),
    };
    (OVERHEAD + bytes) as u64
}

struct Worker {
    store: Arc<Store>,
    inbox: Receiver<FlushBatch>,
    requests: Sender<Request>,
    done: Sender<Flushed>,
    counters: Arc<Counters>,
    stats: Arc<FlushStats>,
    room: Arc<Room>,
}

impl Worker {
    fn run(self) -> Result<(), StorageError> {
        let result = self.work();
        if let Err(error) = &result {
            // The consensus thread may have ended before.
            drop(self.requests.send(Request::StoreFailed(error.to_string())));
            self.room.give_up();
        }
        result
    }

    fn work(&self) -> Result<(), StorageError> {
        while let Ok(first) = self.inbox.recv() {
            let gathered = self.gather(first);
            self.commit(gathered)?;
        }
        Ok(())
    }

    /// Waits a little for more, so that rows are committed by the thousand.
    fn gather(&self, first: FlushBatch) -> Gathered {
        let deadline = Instant::now() + GATHER;
        let mut gathered = Gathered::default();
        gathered.add(first);
        while gathered.bytes < GATHER_BYTES && !self.stats.hurry.load(Ordering::Relaxed) {
            let left = deadline.saturating_duration_since(Instant::now()).min(Duration::from_millis(5));
            match self.inbox.recv_timeout(left) {
                Ok(batch) => gathered.add(batch),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        while let Ok(batch) = self.inbox.try_recv() {
            gathered.add(batch);
            if gathered.bytes >= GATHER_BYTES {
                break;
            }
        }
        if self.inbox.is_empty() {
            self.stats.hurry.store(false, Ordering::Relaxed);
        }
        gathered
    }

    fn commit(&self, mut gathered: Gathered) -> Result<(), StorageError> {
        let started = Instant::now();
        let mut reminder = Reminder::default();
        while let Err(error) = self.store.commit(&gathered.changes, gathered.applied) {
            let full = matches!(error, StorageError::NoSpace { .. });
            if !full && !matches!(error, StorageError::Io { .. }) {
                return Err(error);
            }
            self.room.set_store_full(full);
            self.room.set_store_away(!full);
            if !full && reminder.is_due() {
                tracing::error!(%error, "the store cannot be read or opened, and so not written: the log keeps what was acknowledged, and what only the store holds cannot be read; look after the disk, and all goes on by itself");
            }
            if full && reminder.is_due() {
                tracing::error!(%error, "the disk is full and the store cannot be written: writes that need room are refused, reads, deletes and compactions go on, and the log keeps what was acknowledged; make room on this device, or make it larger, and writes go on by themselves");
            }
            if !self.gather_while_full(&mut gathered) {
                return Err(error);
            }
        }
        if self.room.store_is_full() || self.room.store_is_away() {
            self.room.set_store_full(false);
            self.room.set_store_away(false);
            tracing::info!("the store can be written again; writes are served");
        }
        self.counters.commit.record(started.elapsed());
        self.stats.unflushed_bytes.fetch_sub(gathered.bytes, Ordering::Relaxed);
        if let Ok(size) = self.store.file_size() {
            self.stats.store_bytes.store(size, Ordering::Relaxed);
        }
        let Gathered { number, sequence, applied, .. } = gathered;
        let flushed = Flushed { number, sequence, applied };
        // Two ways to hear of it: the queue of requests, and directly while that queue is not read.
        // The consensus thread may have ended before.
        drop(self.requests.send(Request::Flushed(flushed)));
        self.done.send(flushed).ok();
        Ok(())
    }
}

impl Worker {
    /// Takes what comes until the next try. False: the engine stops, and will find in its log what the store lacks.
    fn gather_while_full(&self, gathered: &mut Gathered) -> bool {
        let deadline = Instant::now() + RETRY;
        loop {
            match self.inbox.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(batch) => gathered.add(batch),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }
}

#[derive(Default)]
struct Gathered {
    changes: Vec<storage::Change>,
    bytes: u64,
    number: u64,
    sequence: u64,
    applied: Applied,
}

impl Gathered {
    fn add(&mut self, batch: FlushBatch) {
        self.bytes += batch.changes.iter().map(change_bytes).sum::<u64>();
        self.number = batch.number;
        self.sequence = batch.sequence;
        self.applied = batch.applied;
        self.changes.extend(batch.changes.into_iter().map(stored));
    }
}

pub(crate) fn stored(change: mvcc::Change) -> storage::Change {
    match change {
        mvcc::Change::PutRow(key, row) => {
            storage::Change::PutRow { key: stored_key(key), value: row.encode() }
        }
        mvcc::Change::DeleteRow(key) => storage::Change::DeleteRow { key: stored_key(key) },
        mvcc::Change::PutMeta(key, value) => storage::Change::PutMeta { key, value },
        mvcc::Change::DeleteMeta(key) => storage::Change::DeleteMeta { key },
    }
}
