//! Ids of watches on one stream, which clients choose and may use again.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use bytes::Bytes;
use keygate_core::{Compact, KeyRange, KeyspaceId, Operation, Permit, Refusal, Sealed, WatchCreate};
use keygate_engine::{Port, View, WatchCreateError, WatchSession, WatchUpdate};
use std::time::Duration;
use support::*;

const ID: i64 = 7;

fn watch(port: &Port, key: &str, start_revision: i64) -> Permit<Sealed> {
    let request = WatchCreate {
        range: KeyRange::Single(Bytes::copy_from_slice(key.as_bytes())),
        start_revision,
        progress_notify: false,
        no_put: false,
        no_delete: false,
        prev_kv: false,
        fragment: false,
        watch_id: ID,
    };
    permit(port, Operation::Watch(request)).unwrap()
}

async fn next(session: &mut WatchSession) -> WatchUpdate {
    tokio::time::timeout(Duration::from_secs(10), session.next()).await.expect("an update comes")
}

/// Queues an update of the watch without anybody reading it.
async fn queue(port: &Port, key: &str) {
    write(port, put(key, "x")).await.unwrap();
    // Events of a batch are handed out by the task that also answers the write.
    tokio::task::yield_now().await;
}

/// Events that the cancelled watch had been given, but not its client, were told to the next watch of this id.
#[tokio::test]
async fn a_watch_under_a_used_id_is_told_nothing_of_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    let mut session = port.watch_session(KeyspaceId::DEFAULT);
    session.create(watch(&port, "before", 0), Box::new(always)).unwrap();
    queue(&port, "before").await;
    assert!(session.cancel(ID).is_some());
    assert!(session.cancel(ID).is_none(), "it is answered once");
    session.create(watch(&port, "after", 0), Box::new(always)).unwrap();
    queue(&port, "after").await;
    let WatchUpdate::Events { events, .. } = next(&mut session).await else { panic!("events") };
    assert_eq!((events.len(), &events[0].kv.key[..]), (1, &b"after"[..]));
    engine.shutdown();
}

/// The refusal of the cancelled watch ended the next one of this id instead.
#[tokio::test]
async fn a_watch_under_a_used_id_is_not_ended_by_a_refusal_of_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    let mut session = port.watch_session(KeyspaceId::DEFAULT);
    let refused = Box::new(|_: &View| Err(Refusal::PermissionDenied));
    session.create(watch(&port, "key", 0), refused).unwrap();
    // The policy changes, so that the watch is decided again, and is refused.
    write(&port, Operation::RoleAdd { name: "root".to_owned() }).await.unwrap();
    queue(&port, "key").await;
    assert!(session.cancel(ID).is_some());
    session.create(watch(&port, "key", 0), Box::new(always)).unwrap();
    queue(&port, "key").await;
    let update = next(&mut session).await;
    assert!(matches!(update, WatchUpdate::Events { watch_id: ID, .. }), "{update:?}");
    assert_eq!(session.len(), 1);
    engine.shutdown();
}

#[tokio::test]
async fn an_id_is_free_again_when_its_watch_was_told_that_its_start_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    for _ in 0..5 {
        write(&port, put("key", "x")).await.unwrap();
    }
    write(&port, Operation::Compact(Compact { revision: 5, physical: false })).await.unwrap();
    let mut session = port.watch_session(KeyspaceId::DEFAULT);
    session.create(watch(&port, "key", 2), Box::new(always)).unwrap();
    let again = session.create(watch(&port, "key", 0), Box::new(always));
    assert_eq!(again.unwrap_err(), WatchCreateError::DuplicateId);
    assert!(matches!(next(&mut session).await, WatchUpdate::Compacted { watch_id: ID, .. }));
    session.create(watch(&port, "key", 0), Box::new(always)).unwrap();
    engine.shutdown();
}
