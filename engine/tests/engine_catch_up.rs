//! Watches that are behind: how much they read at once, and who waits for it.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use bytes::Bytes;
use keygate_core::{Event, KeyRange, KeyspaceId, Operation, Sealed, WatchCreate};
use keygate_engine::{Engine, Port, WatchSession, WatchUpdate};
use std::sync::mpsc;
use std::time::Duration;
use support::*;

/// Longer than any of it may take.
const PATIENCE: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

fn watch(port: &Port, session: &mut WatchSession, key: &str, prev_kv: bool, watch_id: i64) {
    create(port, session, WatchCreate { prev_kv, start_revision: 2, ..of(key, watch_id) });
}

fn create(port: &Port, session: &mut WatchSession, request: WatchCreate) {
    let permit = permit(port, Operation::Watch(request)).unwrap();
    session.create(permit, Box::new(always)).unwrap();
}

/// From now on.
fn of(key: &str, watch_id: i64) -> WatchCreate {
    WatchCreate {
        range: KeyRange::Single(Bytes::copy_from_slice(key.as_bytes())),
        start_revision: 0,
        progress_notify: false,
        no_put: false,
        no_delete: false,
        prev_kv: false,
        fragment: false,
        watch_id,
    }
}

async fn events(session: &mut WatchSession) -> Vec<Event<Sealed>> {
    let update = tokio::time::timeout(PATIENCE, session.next()).await.expect("events come");
    let WatchUpdate::Events { events, .. } = update else { panic!("{update:?}") };
    events
}

/// Values that are in the store only, one revision each.
async fn write_history(engine: &Engine, port: &Port, sizes: &[usize]) {
    for size in sizes {
        write(port, put("key", &"v".repeat(*size))).await.unwrap();
    }
    engine.wait_pruned().await.unwrap();
    // The view of now was made before the store had it all; the next one knows that.
    write(port, put("another", "x")).await.unwrap();
}

fn size(event: &Event<Sealed>) -> usize {
    let value = |value: &Option<Sealed>| value.as_ref().map_or(0, Sealed::len);
    value(&event.kv.value) + event.prev.as_ref().map_or(0, |prev| value(&prev.value))
}

/// Six small requests had history of gigabytes read at once. Small values over large ones are as expensive.
#[tokio::test]
async fn a_step_through_history_reads_no_more_bytes_than_an_outbox_holds() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    let alternating: Vec<usize> = (0..20).map(|n| if n % 2 == 0 { MIB } else { 1 }).collect();
    write_history(&engine, &port, &alternating).await;
    for prev_kv in [false, true] {
        let mut session = port.watch_session(KeyspaceId::DEFAULT);
        watch(&port, &mut session, "key", prev_kv, 0);
        let mut seen = 0;
        while seen < alternating.len() {
            let events = events(&mut session).await;
            let bytes: usize = events.iter().map(size).sum();
            assert!(bytes <= 5 * MIB + 16, "{bytes} bytes at once, previous values: {prev_kv}");
            for event in &events {
                assert_eq!(size(event) > MIB, prev_kv && seen > 0, "the previous value comes along");
                seen += 1;
            }
        }
    }
    engine.shutdown();
}

/// Runs a test with one thread for blocking work, which [`occupied`] takes away.
fn with_one_blocking_thread(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(1).build().unwrap().block_on(test);
}

/// The thread does nothing else until the answer is dropped.
fn occupied() -> mpsc::Sender<()> {
    let (free, freed) = mpsc::channel();
    tokio::task::spawn_blocking(move || freed.recv());
    free
}

/// All that was begun on that thread is done.
async fn idle() {
    tokio::task::spawn_blocking(|| {}).await.unwrap();
}

/// What is ready now. A future that is dropped early, as when the client says something.
async fn at_once(session: &mut WatchSession) -> Option<WatchUpdate> {
    tokio::select! {
        biased;
        update = session.next() => Some(update),
        () = std::future::ready(()) => None,
    }
}

/// Each message of the client dropped the read that was under way and began another: nobody ever caught up, and the
/// reads that nobody waited for kept all threads busy for minutes after the client had gone.
#[test]
fn a_client_that_goes_on_talking_does_not_begin_the_read_again() {
    with_one_blocking_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path());
        let port = engine.port();
        write_history(&engine, &port, &[10; 3]).await;
        let mut session = port.watch_session(KeyspaceId::DEFAULT);
        watch(&port, &mut session, "key", false, 0);
        let busy = occupied();
        for _ in 0..100 {
            assert!(at_once(&mut session).await.is_none(), "the store is read on the other thread");
            assert!(session.cancel(1_000).is_none(), "there is no such watch");
        }
        drop(busy);
        idle().await;
        // Only what was read already can come now.
        let _busy = occupied();
        let update = at_once(&mut session).await;
        let Some(WatchUpdate::Events { events, .. }) = update else {
            panic!("it was begun again: {update:?}")
        };
        assert_eq!(events.len(), 3);
        engine.shutdown();
    });
}

/// What is read for a watch that was cancelled says nothing to the one that has its id, and its place, now.
#[test]
fn what_is_read_for_a_cancelled_watch_is_not_told_to_its_successor() {
    with_one_blocking_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path());
        let port = engine.port();
        write(&port, put("other", "x")).await.unwrap();
        write_history(&engine, &port, &[10; 3]).await;
        let mut session = port.watch_session(KeyspaceId::DEFAULT);
        watch(&port, &mut session, "key", false, 7);
        let busy = occupied();
        assert!(at_once(&mut session).await.is_none());
        assert!(session.cancel(7).is_some());
        watch(&port, &mut session, "other", false, 7);
        drop(busy);
        let events = events(&mut session).await;
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].kv.key.as_ref(), b"other");
        engine.shutdown();
    });
}

/// A live watch had to wait while another one's history was read.
#[test]
fn a_live_watch_is_told_its_events_while_another_one_catches_up() {
    with_one_blocking_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path());
        let port = engine.port();
        write_history(&engine, &port, &[10; 3]).await;
        let mut session = port.watch_session(KeyspaceId::DEFAULT);
        let busy = occupied();
        watch(&port, &mut session, "key", false, 7);
        assert!(at_once(&mut session).await.is_none());
        create(&port, &mut session, of("other", 8));
        write(&port, put("other", "x")).await.unwrap();
        let events = events(&mut session).await;
        assert_eq!(events[0].kv.key.as_ref(), b"other");
        drop(busy);
        engine.shutdown();
    });
}

/// One watch with much history kept another from ever having its turn.
#[tokio::test]
async fn watches_that_are_behind_take_turns() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    write_history(&engine, &port, &[MIB; 20]).await;
    let mut session = port.watch_session(KeyspaceId::DEFAULT);
    for _ in 0..3 {
        watch(&port, &mut session, "key", false, 0);
    }
    let mut told = Vec::new();
    for _ in 0..3 {
        let update = tokio::time::timeout(PATIENCE, session.next()).await.expect("events come");
        let WatchUpdate::Events { watch_id, .. } = update else { panic!("{update:?}") };
        told.push(watch_id);
    }
    told.sort_unstable();
    assert_eq!(told, [0, 1, 2], "each has had a step");
    engine.shutdown();
}
