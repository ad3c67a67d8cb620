//! Watches that are behind: how much they read at once, and who waits for it.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use bytes::Bytes;
use keygate_core::{Event, KeyRange, KeyspaceId, Operation, Sealed, WatchCreate};
use keygate_engine::{Engine, Port, WatchSession, WatchUpdate};
use std::time::Duration;
use support::*;

/// Longer than any of it may take.
const PATIENCE: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

fn watch(port: &Port, session: &mut WatchSession, key: &str, prev_kv: bool) {
    let request = WatchCreate {
        range: KeyRange::Single(Bytes::copy_from_slice(key.as_bytes())),
        start_revision: 2,
        progress_notify: false,
        no_put: false,
        no_delete: false,
        prev_kv,
        fragment: false,
        watch_id: 0,
    };
    let permit = permit(port, Operation::Watch(request)).unwrap();
    session.create(permit, Box::new(|_| Ok(()))).unwrap();
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
        watch(&port, &mut session, "key", prev_kv);
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
