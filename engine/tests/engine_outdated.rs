//! Reads through a view that a compaction has overtaken while the store was needed for them.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use keygate_core::{Answer, Compact, KeyRange, Operation, Permit, Plaintext, Range, Refusal, Sealed};
use keygate_engine::{Engine, EngineOptions, Port, View};
use std::sync::Arc;
use support::*;

/// A view of the first values, which are in neither memory nor store any more.
struct Overtaken {
    engine: Engine,
    port: Port,
    view: View,
    _directory: tempfile::TempDir,
}

const KEYS: usize = 25;

async fn overtaken() -> Overtaken {
    let directory = tempfile::tempdir().unwrap();
    let no_memory = EngineOptions { memory_budget: 0, ..options(directory.path()) };
    let engine = Engine::open(no_memory, Arc::new(RootOnly)).unwrap();
    let port = engine.port();
    write_all(&port, "old").await;
    engine.wait_pruned().await.unwrap();
    // Memory has let go of the values when a flush after them was heard of.
    write(&port, put("another", "x")).await.unwrap();
    engine.wait_pruned().await.unwrap();
    let view = port.view();
    write_all(&port, "new").await;
    let revision = port.view().keyspace(keygate_core::KeyspaceId::DEFAULT).unwrap().revision();
    write(&port, Operation::Compact(Compact { revision, physical: true })).await.unwrap();
    Overtaken { engine, port, view, _directory: directory }
}

async fn write_all(port: &Port, text: &str) {
    for n in 0..KEYS {
        write(port, put(&format!("key{n:02}"), text)).await.unwrap();
    }
}

fn range(port: &Port, revision: i64) -> Permit<Sealed> {
    let range = Range { revision, ..Range::of(KeyRange::everything()) };
    permit(port, Operation::<Plaintext>::Range(range)).unwrap()
}

fn stream(port: &Port) -> Permit<Sealed> {
    permit(port, Operation::<Plaintext>::RangeStream(Range::of(KeyRange::everything()))).unwrap()
}

/// It was answered `required revision has been compacted`, to a client that had named no revision.
#[tokio::test]
async fn a_read_of_now_is_sent_to_a_newer_view_and_only_a_pinned_one_is_told_of_the_compaction() {
    let Overtaken { engine, port, view, .. } = overtaken().await;
    assert_eq!(port.read(&view, range(&port, 0)).await.unwrap_err(), Refusal::StalePermit);
    let pinned = view.keyspace(keygate_core::KeyspaceId::DEFAULT).unwrap().revision();
    assert_eq!(port.read(&view, range(&port, pinned)).await.unwrap_err(), Refusal::Compacted);
    let reply = port.read(&port.view(), range(&port, 0)).await.unwrap();
    let Answer::Range(found) = reply.answer else { panic!("a range is answered by a range") };
    assert_eq!(found.kvs.len(), KEYS + 1, "and the newer view answers");
    engine.shutdown();
}

#[tokio::test]
async fn a_stream_that_has_not_begun_moves_to_a_newer_view() {
    let Overtaken { engine, port, view, .. } = overtaken().await;
    let mut chunks = port.range_stream(view, stream(&port), 1 << 20);
    let mut values = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let Answer::Range(found) = chunk.unwrap().reply.answer else { panic!("pieces are ranges") };
        values.extend(found.kvs.into_iter().map(|kv| kv.value.unwrap().open_clear().into_bytes()));
    }
    assert_eq!(values.len(), KEYS + 1);
    assert_eq!(values.iter().filter(|value| value.as_ref() == b"new").count(), KEYS);
    engine.shutdown();
}

#[tokio::test]
async fn a_stream_does_not_move_to_a_view_of_another_policy() {
    let Overtaken { engine, port, view, .. } = overtaken().await;
    let permit = stream(&port);
    write(&port, Operation::RoleAdd { name: "root".to_owned() }).await.unwrap();
    let mut chunks = port.range_stream(view, permit, 1 << 20);
    assert!(matches!(chunks.next().await, Some(Err(Refusal::StalePermit))));
    assert!(chunks.next().await.is_none());
    engine.shutdown();
}
