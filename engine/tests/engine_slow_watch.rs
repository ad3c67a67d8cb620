//! Watches whose clients do not read: what they cost, that nobody else notices, and that they can go on without a loss.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use bytes::Bytes;
use keygate_core::{KeyRange, KeyspaceId, Operation, WatchCreate};
use keygate_engine::{Engine, EngineOptions, Port, WatchSession, WatchUpdate};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::*;

const PATIENCE: Duration = Duration::from_secs(60);
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn open_with(directory: &Path, watch_backlog: Option<u64>, watch_memory: usize) -> Engine {
    let options = EngineOptions { watch_backlog, watch_memory, ..options(directory) };
    Engine::open(options, Arc::new(RootOnly)).unwrap()
}

fn watch_all(port: &Port, start_revision: i64) -> WatchSession {
    let request = WatchCreate {
        range: KeyRange::From(Bytes::from_static(b"k")),
        start_revision,
        progress_notify: false,
        no_put: false,
        no_delete: false,
        prev_kv: false,
        fragment: false,
        watch_id: 0,
    };
    let mut session = port.watch_session(KeyspaceId::DEFAULT);
    session.create(permit(port, Operation::Watch(request)).unwrap(), Box::new(always)).unwrap();
    session
}

async fn next(session: &mut WatchSession) -> WatchUpdate {
    tokio::time::timeout(PATIENCE, session.next()).await.expect("something is said")
}

/// Reads until `last` was seen, and answers the revisions of all events.
async fn read_upto(session: &mut WatchSession, last: i64) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|seen| *seen < last) {
        match next(session).await {
            WatchUpdate::Events { events, .. } => {
                seen.extend(events.iter().map(|event| event.kv.mod_revision));
            }
            other => panic!("{other:?}"),
        }
    }
    seen
}

/// Writes, and lets a hundred watches read along. Answers the times from the answer of each write to each receipt, ascending.
async fn traffic(engine: &Engine, writes: usize) -> Vec<Duration> {
    let port = engine.port();
    let first = port.view().keyspace(KeyspaceId::DEFAULT).unwrap().revision() + 1;
    let last = first + writes as i64 - 1;
    let begun = Instant::now();
    let readers: Vec<_> = (0..100)
        .map(|_| {
            let mut session = watch_all(&port, 0);
            tokio::spawn(async move {
                let mut received = Vec::new();
                while received.len() < writes {
                    match next(&mut session).await {
                        WatchUpdate::Events { events, .. } => {
                            let now = begun.elapsed();
                            received.extend(events.iter().map(|event| (event.kv.mod_revision, now)));
                        }
                        other => panic!("{other:?}"),
                    }
                }
                let revisions: Vec<i64> = received.iter().map(|(revision, _)| *revision).collect();
                assert_eq!(revisions, (first..=last).collect::<Vec<_>>());
                received
            })
        })
        .collect();
    let value = "v".repeat(16 * KIB);
    let mut answered = Vec::new();
    for number in 0..writes {
        let reply = write(&port, put(&format!("key{}", number % 50), &value)).await.unwrap();
        assert_eq!(reply.revision, first + number as i64);
        answered.push(begun.elapsed());
    }
    let mut took = Vec::new();
    for reader in readers {
        for (revision, at) in reader.await.unwrap() {
            took.push(at.saturating_sub(answered[(revision - first) as usize]));
        }
    }
    took.sort_unstable();
    took
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_not_read_costs_its_own_budget_and_goes_on_without_a_loss() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open_with(directory.path(), Some(4 << 20), 64 << 20);
    let port = engine.port();
    let alone = traffic(&engine, 700).await;

    let mut stalled = watch_all(&port, 0);
    write(&port, put("key", "the first that it sees")).await.unwrap();
    let first = port.view().keyspace(KeyspaceId::DEFAULT).unwrap().revision();
    let mut seen = read_upto(&mut stalled, first).await;
    let beside = traffic(&engine, 700).await;
    let (alone, beside) = (p99(&alone), p99(&beside));
    println!("p99 of 70,000 receipts: {alone:?} alone, {beside:?} beside one that does not read");
    // A wide bound, for machines that do other work: what it guards against is somebody waiting for the stalled one.
    assert!(beside <= alone * 5 + Duration::from_millis(50), "{alone:?} and {beside:?}");

    // 11 MiB were written. It was ended, and what waited for it is gone.
    let stats = engine.stats();
    assert_eq!((stats.watches_too_slow, stats.watch_waiting_bytes), (1, 0));
    let update = next(&mut stalled).await;
    let WatchUpdate::TooSlow { resume_revision, backlog, .. } = update else { panic!("{update:?}") };
    assert!(backlog > 4 << 20 && backlog < 5 << 20, "{backlog}");
    assert_eq!(resume_revision, first + 1, "all up to there was read");
    assert!(stalled.is_empty());
    let last = port.view().keyspace(KeyspaceId::DEFAULT).unwrap().revision();
    seen.extend(read_upto(&mut watch_all(&port, resume_revision), last).await);
    assert_eq!(seen, (first..=last).collect::<Vec<_>>());
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_of_a_keyspace_share_one_memory_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (memory, size) = (2 * MIB, 64 * KIB);
    let engine = open_with(directory.path(), None, memory);
    let port = engine.port();
    let mut stalled: Vec<_> = (0..20).map(|_| watch_all(&port, 0)).collect();
    let mut healthy = watch_all(&port, 0);
    let first = port.view().keyspace(KeyspaceId::DEFAULT).unwrap().revision() + 1;
    let mut most = 0;
    for number in 0..200 {
        let reply = write(&port, put("key", &number.to_string().repeat(size / 3))).await.unwrap();
        assert_eq!(read_upto(&mut healthy, reply.revision).await, [reply.revision]);
        most = most.max(engine.stats().watch_waiting_bytes);
    }
    println!("{most} bytes waited for 20 streams, of 200 MiB that were written for them");
    // Each may have one batch, however little room there is.
    assert!(most > 1 << 20 && most <= (memory + 21 * (size + KIB)) as u64, "{most}");
    assert_eq!(engine.stats().watches_too_slow, 0);
    for session in &mut stalled {
        let last = first + 199;
        assert_eq!(read_upto(session, last).await, (first..=last).collect::<Vec<_>>());
    }
    assert_eq!(engine.stats().watch_waiting_bytes, 0);
    // What a stream leaves behind is given back with it.
    stalled.extend((0..3).map(|_| watch_all(&port, 0)));
    write(&port, put("key", &"v".repeat(size))).await.unwrap();
    read_upto(&mut healthy, first + 200).await;
    assert!(engine.stats().watch_waiting_bytes > 0);
    drop(stalled);
    assert_eq!(engine.stats().watch_waiting_bytes, 0);
    engine.shutdown();
}

/// It is not owed what it asked for itself.
#[tokio::test]
async fn a_watch_that_begins_far_in_the_past_is_not_too_slow() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open_with(directory.path(), Some(1 << 20), 64 << 20);
    let port = engine.port();
    for number in 0..100 {
        write(&port, put("key", &number.to_string().repeat(20 * KIB))).await.unwrap();
    }
    let mut session = watch_all(&port, 2);
    for _ in 0..2 {
        write(&port, put("key", &"new".repeat(100 * KIB))).await.unwrap();
    }
    assert_eq!(read_upto(&mut session, 103).await, (2..=103).collect::<Vec<_>>());
    // What it has read is not owed any more.
    for _ in 0..6 {
        write(&port, put("key", &"new".repeat(100 * KIB))).await.unwrap();
        let last = port.view().keyspace(KeyspaceId::DEFAULT).unwrap().revision();
        assert_eq!(read_upto(&mut session, last).await, [last]);
    }
    assert_eq!(engine.stats().watches_too_slow, 0);
    engine.shutdown();
}
