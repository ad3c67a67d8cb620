//! A disk that is full, and one whose syncs fail.
//!
//! Full: nothing is acknowledged that is not durable, nothing acknowledged is lost, reads go on, writes go on by
//! themselves when there is room. A failed sync is the end: it is never tried again. A failed read is neither damage nor
//! an end: it is waited for.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use keygate_core::{
    Answer, Compact, DeleteRange, KeyRange, LeaseId, Operation, Plaintext, Put, PutLease, PutValue, Range,
    Refusal,
};
use keygate_engine::storage::{Disk, DiskFile};
use keygate_engine::{Engine, EngineOptions, Port, Surroundings};
use parking_lot::Mutex;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::*;
use tokio::time::timeout;

/// Longer than any of it may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default, Debug)]
struct Faults {
    full: Option<DiskFile>,
    broken: Option<(DiskFile, ErrorKind)>,
    /// Writes and syncs of a file after one of its syncs failed.
    touched_after: u64,
    failed: bool,
    /// How each read of the store fails.
    unreadable: Option<ErrorKind>,
}

#[derive(Default, Debug)]
struct Sick(Mutex<Faults>);

impl Disk for Sick {
    fn before_write(&self, file: DiskFile, offset: u64) -> Result<()> {
        let mut faults = self.0.lock();
        if faults.failed && faults.broken.is_some_and(|(broken, _)| broken == file) {
            faults.touched_after += 1;
        }
        // The store's first page has its place and is written over: only new ones find no room.
        if faults.full == Some(file) && (file == DiskFile::Log || offset >= 4096) {
            // raft-engine looks for the word.
            return Err(Error::new(ErrorKind::StorageFull, "nospace"));
        }
        Ok(())
    }

    fn before_sync(&self, file: DiskFile) -> Result<()> {
        let mut faults = self.0.lock();
        match faults.broken {
            Some((broken, kind)) if broken == file => {
                faults.touched_after += u64::from(faults.failed);
                faults.failed = true;
                Err(Error::new(kind, "as the test wants it"))
            }
            _ => Ok(()),
        }
    }

    fn before_read(&self, file: DiskFile, _: u64) -> Result<()> {
        assert_eq!(file, DiskFile::Store);
        self.0.lock().unreadable.map_or(Ok(()), |kind| Err(Error::new(kind, "as the test wants it")))
    }
}

impl Sick {
    fn fill(&self, file: DiskFile) {
        self.0.lock().full = Some(file);
    }

    fn make_room(&self) {
        self.0.lock().full = None;
    }

    fn break_reads(&self, kind: ErrorKind) {
        self.0.lock().unreadable = Some(kind);
    }

    fn mend_reads(&self) {
        self.0.lock().unreadable = None;
    }

    fn break_syncs(&self, file: DiskFile, kind: ErrorKind) {
        self.0.lock().broken = Some((file, kind));
    }
}

fn open_on(disk: &Arc<Sick>, directory: &Path) -> Engine {
    let surroundings = Surroundings { disk: disk.clone(), ..Surroundings::default() };
    Engine::open_with(options(directory), Arc::new(RootOnly), surroundings).unwrap()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what} took too long"));
}

fn delete() -> Operation<Plaintext> {
    Operation::DeleteRange(DeleteRange { range: KeyRange::everything(), prev_kv: false })
}

#[tokio::test]
async fn a_full_log_refuses_writes_serves_reads_and_goes_on_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Sick::default());
    let engine = open_on(&disk, directory.path());
    let port = engine.port();
    write(&port, put("before", "kept")).await.unwrap();
    disk.fill(DiskFile::Log);
    let under_way = tokio::spawn({
        let port = port.clone();
        async move { write(&port, put("under way", "later")).await }
    });
    until("noticing the full log", || engine.stats().log_disk_full).await;
    assert_eq!(write(&port, put("during", "x")).await.unwrap_err(), Refusal::NoSpace);
    assert_eq!(write(&port, delete()).await.unwrap_err(), Refusal::NoSpace, "a delete needs the log too");
    assert_eq!(value_at(&port, "before", 0).await.unwrap().as_deref(), Some("kept"));
    assert_eq!(value_at(&port, "under way", 0).await.unwrap(), None, "what is not durable cannot be seen");
    assert!(!under_way.is_finished(), "and is not answered");
    disk.make_room();
    let answer = timeout(PATIENCE, under_way).await.unwrap().unwrap();
    assert_eq!(answer.unwrap().revision, 3);
    write(&port, put("after", "x")).await.unwrap();
    assert!(!engine.stats().log_disk_full);
    engine.shutdown();

    let engine = open(directory.path());
    let port = engine.port();
    assert_eq!(value_at(&port, "before", 0).await.unwrap().as_deref(), Some("kept"));
    assert_eq!(value_at(&port, "under way", 0).await.unwrap().as_deref(), Some("later"));
    assert_eq!(value_at(&port, "during", 0).await.unwrap(), None);
    engine.shutdown();
}

#[tokio::test]
async fn an_engine_can_be_stopped_while_its_disk_is_full() {
    for file in [DiskFile::Log, DiskFile::Store] {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(Sick::default());
        let engine = open_on(&disk, directory.path());
        let port = engine.port();
        write(&port, put("key", "first")).await.unwrap();
        disk.fill(file);
        let last = tokio::spawn({
            let port = port.clone();
            async move { write(&port, put("key", "last")).await }
        });
        let stats = || engine.stats();
        until("noticing", || stats().log_disk_full || stats().store_disk_full).await;
        let stopping = engine.clone();
        let stopped = tokio::task::spawn_blocking(move || stopping.shutdown());
        timeout(PATIENCE, stopped).await.expect("it stops").unwrap();
        let acknowledged = timeout(PATIENCE, last).await.unwrap().unwrap().is_ok();
        assert_eq!(acknowledged, file == DiskFile::Store, "the log makes it durable, not the store");
        drop(engine);

        let engine = open(directory.path());
        let expected = if acknowledged { "last" } else { "first" };
        assert_eq!(value_at(&engine.port(), "key", 0).await.unwrap().as_deref(), Some(expected));
        engine.shutdown();
    }
}

#[tokio::test]
async fn a_full_store_refuses_what_needs_room_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Sick::default());
    let engine = open_on(&disk, directory.path());
    let port = engine.port();
    for n in 0..5 {
        write(&port, put("key", &n.to_string())).await.unwrap();
    }
    engine.wait_pruned().await.unwrap();
    disk.fill(DiskFile::Store);
    write(&port, put("other", "acknowledged")).await.unwrap();
    until("noticing the full store", || engine.stats().store_disk_full).await;
    assert_eq!(write(&port, put("key", "x")).await.unwrap_err(), Refusal::NoSpace);
    for n in 0..5 {
        // History is in the store: its file is readable, though it cannot be written.
        assert_eq!(value_at(&port, "key", n + 2).await.unwrap(), Some(n.to_string()));
    }
    write(&port, delete()).await.unwrap();
    write(&port, Operation::Compact(Compact { revision: 8, physical: false })).await.unwrap();
    assert_eq!(value_at(&port, "key", 0).await.unwrap(), None);
    disk.make_room();
    until("noticing the room", || !engine.stats().store_disk_full).await;
    write(&port, put("key", "again")).await.unwrap();
    engine.wait_pruned().await.unwrap();
    engine.shutdown();

    let engine = open(directory.path());
    let port = engine.port();
    assert_eq!(value_at(&port, "key", 0).await.unwrap().as_deref(), Some("again"));
    assert_eq!(value_at(&port, "other", 0).await.unwrap(), None);
    engine.shutdown();
}

/// A kernel reports a failed write back once, to one sync; the next one succeeds without the data.
#[tokio::test]
async fn a_failed_sync_ends_the_engine_and_is_never_tried_again() {
    for file in [DiskFile::Log, DiskFile::Store] {
        // A disk that is found full only when it is synced has lost data all the same.
        for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
            let directory = tempfile::tempdir().unwrap();
            let disk = Arc::new(Sick::default());
            let engine = open_on(&disk, directory.path());
            let port = engine.port();
            write(&port, put("key", "kept")).await.unwrap();
            engine.wait_pruned().await.unwrap();
            disk.break_syncs(file, kind);
            let last = timeout(PATIENCE, write(&port, put("key", "last"))).await.unwrap();
            assert_eq!(last.is_ok(), file == DiskFile::Store, "{file:?}: acknowledged without a sync");
            let cause = timeout(PATIENCE, engine.fatal()).await.expect("the process is told to end");
            assert!(cause.contains("must not be used any more: sync failed: as the test"), "{cause}");
            timeout(PATIENCE, write(&port, put("key", "x"))).await.unwrap().unwrap_err();
            tokio::task::spawn_blocking(move || engine.shutdown()).await.unwrap();
            assert_eq!(disk.0.lock().touched_after, 0, "{file:?} was used after its sync had failed");
        }
    }
}

/// More than redb keeps in memory.
const LARGE: usize = 1 << 20;
const LARGE_KEYS: usize = 40;

/// An engine whose values are in its store only, on a disk that cannot be read any more: all were tried.
async fn with_unreadable_store(disk: &Arc<Sick>, directory: &Path, kind: ErrorKind) -> (Engine, Refusal) {
    let surroundings = Surroundings { disk: disk.clone(), ..Surroundings::default() };
    let options = EngineOptions { memory_budget: 0, ..options(directory) };
    let engine = Engine::open_with(options, Arc::new(RootOnly), surroundings).unwrap();
    let port = engine.port();
    for n in 0..LARGE_KEYS {
        write(&port, put(&format!("large/{n}"), &n.to_string().repeat(LARGE))).await.unwrap();
    }
    engine.wait_pruned().await.unwrap();
    // Only a newer view does without what was evicted.
    write(&port, put("small", "x")).await.unwrap();
    disk.break_reads(kind);
    for n in 0..LARGE_KEYS {
        if let Err(refusal) = value_at(&port, &format!("large/{n}"), 0).await {
            return (engine, refusal);
        }
    }
    panic!("everything was read from memory");
}

fn exchange(key: &str, value: &str) -> Operation<Plaintext> {
    Operation::Put(Put {
        key: bytes::Bytes::copy_from_slice(key.as_bytes()),
        value: PutValue::Set(Plaintext::new(bytes::Bytes::copy_from_slice(value.as_bytes()))),
        lease: PutLease::Set(LeaseId::NONE),
        prev_kv: true,
    })
}

/// Until the thread that applies waits: from then on writes are refused at the door.
async fn until_writes_are_refused(port: &Port) {
    let wait = async {
        loop {
            let door = write(port, put("door", "x"));
            if let Ok(Err(refusal)) = timeout(Duration::from_millis(200), door).await {
                return assert_eq!(refusal, Refusal::StoreUnavailable);
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("writes are refused");
}

/// Every error of the store used to be called damage: readers were told of a corrupt cluster, and a write that needed
/// a row ended the process.
#[tokio::test]
async fn a_store_that_cannot_be_read_is_waited_for_and_not_called_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Sick::default());
    let (engine, refusal) = with_unreadable_store(&disk, directory.path(), ErrorKind::Other).await;
    let port = engine.port();
    assert_eq!(refusal, Refusal::StoreUnavailable);
    let under_way = tokio::spawn({
        let port = port.clone();
        async move { write(&port, exchange("large/0", "new")).await }
    });
    until_writes_are_refused(&port).await;
    assert!(!under_way.is_finished(), "it is waited for");
    let count = Range { count_only: true, ..Range::of(KeyRange::everything()) };
    let answer = read(&port, Operation::Range(count)).await.unwrap().answer;
    assert!(matches!(answer, Answer::Range(found) if found.count >= 41), "memory is read");
    disk.mend_reads();
    let answer = timeout(PATIENCE, under_way).await.unwrap().unwrap().unwrap().answer;
    let Answer::Put { prev: Some(prev) } = answer else { panic!("{answer:?}") };
    assert_eq!(prev.value.unwrap().len(), LARGE);
    write(&port, put("after", "x")).await.unwrap();
    assert_eq!(value_at(&port, "large/39", 0).await.unwrap().unwrap().len(), 2 * LARGE);
    engine.wait_pruned().await.unwrap();
    assert!(timeout(Duration::from_millis(10), engine.fatal()).await.is_err(), "nothing was fatal");
    engine.shutdown();

    let engine = open(directory.path());
    assert_eq!(value_at(&engine.port(), "large/0", 0).await.unwrap().as_deref(), Some("new"));
    engine.shutdown();
}

#[tokio::test]
async fn an_engine_can_be_stopped_while_it_waits_for_its_store() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(Sick::default());
    let (engine, _) = with_unreadable_store(&disk, directory.path(), ErrorKind::Other).await;
    let port = engine.port();
    let under_way = tokio::spawn({
        let port = port.clone();
        async move { write(&port, exchange("large/0", "new")).await }
    });
    until_writes_are_refused(&port).await;
    let stopping = engine.clone();
    timeout(PATIENCE, tokio::task::spawn_blocking(move || stopping.shutdown()))
        .await
        .expect("it stops")
        .unwrap();
    assert_eq!(timeout(PATIENCE, under_way).await.unwrap().unwrap().unwrap_err(), Refusal::Stopping);
    drop(port);
    drop(engine);

    // The log has what was waiting, and half of it is nowhere.
    let engine = open(directory.path());
    let port = engine.port();
    assert_eq!(value_at(&port, "large/0", 0).await.unwrap().as_deref(), Some("new"));
    assert_eq!(value_at(&port, "large/1", 0).await.unwrap().unwrap().len(), LARGE);
    engine.shutdown();
}

#[tokio::test]
async fn damage_is_called_damage_and_ends_the_engine_that_needs_the_row() {
    for kind in [ErrorKind::InvalidData, ErrorKind::UnexpectedEof] {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(Sick::default());
        let (engine, refusal) = with_unreadable_store(&disk, directory.path(), kind).await;
        assert_eq!(refusal, Refusal::Corrupt, "{kind}");
        let port = engine.port();
        timeout(PATIENCE, write(&port, exchange("large/0", "new"))).await.unwrap().unwrap_err();
        let cause = timeout(PATIENCE, engine.fatal()).await.expect("the process is told to end");
        assert!(cause.contains("damaged"), "{cause}");
        tokio::task::spawn_blocking(move || engine.shutdown()).await.unwrap();
    }
}
