//! A client that does not read its watch: what it is told when it reads again, over the wire.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use futures_util::{StreamExt as _, stream};
use keygate_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::watch_client::WatchClient;
use std::time::Duration;
use support::{Caller, Server};
use tonic::Streaming;

const PATIENCE: Duration = Duration::from_secs(30);

async fn watch(caller: &Caller, start_revision: i64) -> Streaming<pb::WatchResponse> {
    let watch = pb::WatchCreateRequest { key: "k".into(), start_revision, ..Default::default() };
    let create =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(watch)) };
    let requests = stream::iter([create]).chain(stream::pending());
    // As in Go, whose clients take messages of any size.
    let mut client = WatchClient::new(caller.signed()).max_decoding_message_size(usize::MAX);
    let mut events = client.watch(requests).await.unwrap().into_inner();
    assert!(next(&mut events).await.created);
    events
}

async fn next(events: &mut Streaming<pb::WatchResponse>) -> pb::WatchResponse {
    tokio::time::timeout(PATIENCE, events.message()).await.expect("an answer").unwrap().unwrap()
}

#[tokio::test]
async fn a_watch_that_is_not_read_is_cancelled_and_told_where_to_go_on() {
    let server = Server::start(&["--watch-backlog-bytes", "2MiB"]);
    let (root, other) = (server.named("root").await, server.named("root").await);
    let mut events = watch(&root, 0).await;
    let mut last = 0;
    for number in 0..600 {
        let value = format!("{number}").repeat(8_000);
        let request = pb::PutRequest { key: "k".into(), value: value.into(), ..Default::default() };
        last =
            KvClient::new(other.signed()).put(request).await.unwrap().into_inner().header.unwrap().revision;
    }
    let mut seen = Vec::new();
    let ended = loop {
        let response = next(&mut events).await;
        if response.canceled {
            break response;
        }
        seen.extend(response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
    };
    let sent = ended.header.unwrap().revision;
    assert_eq!((seen.last(), ended.compact_revision), (Some(&sent), 0));
    let reason = ended.cancel_reason;
    let ending = format!("bytes wait for it: go on from revision {}", sent + 1);
    assert!(reason.starts_with("keygate: watch is too slow, ") && reason.ends_with(&ending), "{reason}");
    println!("{} of 600 events before `{reason}`", seen.len());
    assert!(seen.len() < 500, "the client was not slow enough");
    let page = server.page("/metrics").await;
    assert!(page.lines().any(|line| line == "keygate_watches_too_slow_total 1"), "{page}");

    let mut again = watch(&root, sent + 1).await;
    while seen.last() != Some(&last) {
        let response = next(&mut again).await;
        seen.extend(response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
    }
    assert_eq!(seen, (last - 599..=last).collect::<Vec<_>>());
}
