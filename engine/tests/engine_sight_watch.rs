//! Watches of which policy hides a part: what happens there does not show by their end, their memory or their progress.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use bytes::Bytes;
use keygate_core::{KeyRange, KeyspaceId, Operation, Refusal, Sight, WatchCreate};
use keygate_engine::{Engine, EngineOptions, Port, Standing, View, WatchSession, WatchUpdate};
use std::sync::Arc;
use std::time::Duration;
use support::*;
use tokio::time::Instant;

const KIB: usize = 1 << 10;

fn hides_h() -> Sight {
    Sight::without([KeyRange::Span { start: "h".into(), end: "i".into() }])
}

/// A watch of everything, under a permit that is to be decided again at its first event.
fn watch_all(port: &Port, start_revision: i64, prev_kv: bool, sight: Sight) -> WatchSession {
    let request = WatchCreate {
        range: KeyRange::From(Bytes::from_static(b"a")),
        start_revision,
        progress_notify: false,
        no_put: false,
        no_delete: false,
        prev_kv,
        fragment: false,
        watch_id: 0,
    };
    let decide = move |_: &View| Ok(Standing { sight: sight.clone(), until: None });
    let mut session = port.watch_session(KeyspaceId::DEFAULT);
    let permit = permit(port, Operation::Watch(request)).unwrap();
    session.create_until(permit, Some(Instant::now()), Box::new(decide)).unwrap();
    session
}

async fn next(session: &mut WatchSession) -> WatchUpdate {
    tokio::time::timeout(Duration::from_secs(60), session.next()).await.expect("something is said")
}

/// `KEY@REVISION` until so many were told.
async fn told(session: &mut WatchSession, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        match next(session).await {
            WatchUpdate::Events { events, .. } => told.extend(events.iter().map(|event| {
                assert!(event.prev.as_ref().is_none_or(|prev| prev.key == event.kv.key));
                format!("{}@{}", event.kv.key.escape_ascii(), event.kv.mod_revision)
            })),
            other => panic!("{other:?}"),
        }
    }
    told
}

/// A watch that is not read was ended for what it was owed, hidden keys included: who saw that knew of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_is_not_read_is_not_ended_for_what_it_will_never_see() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        EngineOptions { watch_backlog: Some(1 << 20), watch_memory: 64 * KIB, ..options(directory.path()) };
    let engine = Engine::open(options, Arc::new(RootOnly)).unwrap();
    let port = engine.port();
    let mut partly = watch_all(&port, 0, false, hides_h());
    let mut whole = watch_all(&port, 0, false, Sight::WHOLE);
    let value = "v".repeat(40 * KIB);
    for number in 0..4 {
        write(&port, put(&format!("k{number}"), &value)).await.unwrap();
    }
    assert_eq!(engine.stats().watches_too_slow, 0, "both are behind");
    for number in 0..50 {
        write(&port, put(&format!("h{number}"), &value)).await.unwrap();
    }
    assert_eq!(engine.stats().watches_too_slow, 1, "of 2 MiB, one was owed 160 KiB");
    write(&port, put("k4", "v")).await.unwrap();
    assert_eq!(told(&mut partly, 5).await, ["k0@2", "k1@3", "k2@4", "k3@5", "k4@56"]);
    let ended = loop {
        match next(&mut whole).await {
            WatchUpdate::Events { .. } => {}
            other => break other,
        }
    };
    assert!(matches!(ended, WatchUpdate::TooSlow { .. }), "{ended:?}");
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_the_past_reads_what_is_visible_and_is_told_that_it_has_all() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    for number in 0..300 {
        write(&port, put(["h", "k"][number % 2], &number.to_string())).await.unwrap();
    }
    let mut session = watch_all(&port, 2, true, hides_h());
    let expected: Vec<String> = (0..150).map(|number| format!("k@{}", 3 + 2 * number)).collect();
    assert_eq!(told(&mut session, 150).await, expected);
    // The newest revision is that of a hidden key, and counts as seen.
    write(&port, put("h", "newest")).await.unwrap();
    let seen = async {
        loop {
            session.request_progress();
            match session.next().await {
                WatchUpdate::Progress { watch_id: -1, revision: 302 } => break,
                // Answered before this thread was handed the write.
                WatchUpdate::Progress { watch_id: -1, revision: 301 } => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("the newest revision is seen");
    write(&port, put("k", "newest")).await.unwrap();
    assert_eq!(told(&mut session, 1).await, ["k@303"]);
    engine.shutdown();
}

/// A watch that is denied whenever it is asked about after `ends`.
fn watch_until(session: &mut WatchSession, port: &Port, until: Option<Instant>, ends: Instant) {
    let request = WatchCreate {
        range: KeyRange::From(Bytes::from_static(b"a")),
        start_revision: 0,
        progress_notify: false,
        no_put: false,
        no_delete: false,
        prev_kv: false,
        fragment: false,
        watch_id: 0,
    };
    let decide = move |_: &View| {
        if Instant::now() >= ends {
            return Err(Refusal::PermissionDenied);
        }
        Ok(Standing { sight: Sight::WHOLE, until: Some(ends) })
    };
    let permit = permit(port, Operation::Watch(request)).unwrap();
    session.create_until(permit, until, Box::new(decide)).unwrap();
}

/// The session had looked at the times that its watches began with, and the watch went on until its next event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_came_with_a_later_decision_ends_an_idle_watch() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    let ends = Instant::now() + Duration::from_secs(3);
    let mut session = port.watch_session(KeyspaceId::DEFAULT);
    watch_until(&mut session, &port, None, ends);
    // Policy changes, and the event after it is decided under the new one.
    write(&port, Operation::RoleAdd { name: "root".to_owned() }).await.unwrap();
    write(&port, put("k", "v")).await.unwrap();
    assert_eq!(told(&mut session, 1).await, ["k@2"]);
    assert!(matches!(next(&mut session).await, WatchUpdate::Denied { .. }));
    assert!(Instant::now() >= ends, "too early");
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_watches_of_a_stream_end_when_their_time_has_come() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    let ends = Instant::now() + Duration::from_millis(300);
    let mut session = port.watch_session(KeyspaceId::DEFAULT);
    for _ in 0..500 {
        watch_until(&mut session, &port, Some(ends), ends);
    }
    let mut lasting = port.watch_session(KeyspaceId::DEFAULT);
    watch_until(&mut lasting, &port, None, Instant::now() + Duration::from_secs(600));
    for _ in 0..500 {
        assert!(matches!(next(&mut session).await, WatchUpdate::Denied { .. }));
    }
    assert!(Instant::now() >= ends && session.is_empty() && lasting.len() == 1);
    engine.shutdown();
}
