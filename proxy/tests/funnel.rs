//! The wire as clients see it: sizes, unknown methods, headers, logins and the life of streams, by
//! a real process over TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use bytes::Bytes;
use keygate_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::request_op::Request as Op;
use pb::response_op::Response as Out;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use prost::Message;
use support::{Caller, Server, Shown};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Code, Streaming};

fn put(key: &str, value: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: vec![b'v'; value].into(), ..Default::default() }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

fn kv(caller: &Caller) -> KvClient<tonic::transport::Channel> {
    KvClient::new(caller.channel.clone()).max_decoding_message_size(64 << 20)
}

#[tokio::test]
async fn sizes_are_refused_as_etcd_refuses_them() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let fits = put("k", 1_500_000);
    kv(&root).put(fits).await.unwrap();
    // Above `--max-request-bytes`, below the limit of a message.
    let large = kv(&root).put(put("k", 1_600_000)).await.unwrap_err();
    assert_eq!((large.code(), large.message()), (Code::InvalidArgument, "etcdserver: request is too large"));
    let request = put("k", 2_200_000);
    let size = request.encoded_len();
    let refused = kv(&root).put(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        refused.message(),
        format!("grpc: received message larger than max ({size} vs. {})", 1_572_864 + (512 << 10))
    );
    // Of strangers nothing large is read at all: the answer comes while the message is under way.
    let nobody = server.caller(Shown::default()).await;
    let unread = kv(&nobody).put(put("k", 1_000_000)).await.unwrap_err();
    assert_eq!((unread.code(), unread.message()), (Code::InvalidArgument, "etcdserver: user name is empty"));
    // What is only read may be large, and an answer may be larger than any request.
    for n in 0..3 {
        kv(&root).put(put(&format!("big/{n}"), 1_400_000)).await.unwrap();
    }
    let all = pb::RangeRequest { range_end: "big0".into(), ..get("big/") };
    assert_eq!(kv(&root).range(all).await.unwrap().into_inner().kvs.len(), 3);
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented_and_what_is_no_message_refused() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let nobody = server.caller(Shown::default()).await;
    for caller in [&root, &nobody] {
        for (path, text) in [
            ("/etcdserverpb.KV/Rang", "unknown method Rang for service etcdserverpb.KV"),
            ("/etcdserverpb.Nothing/Range", "unknown service etcdserverpb.Nothing"),
            (
                "/etcdserverpb.Maintenance/MoveLeader",
                "unknown method MoveLeader for service etcdserverpb.Maintenance",
            ),
        ] {
            let status = caller.raw(path, Vec::new()).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::Unimplemented, text));
        }
        let status = caller.raw("/etcdserverpb.KV/Range", vec![0xff; 40]).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
    }
    // The connection has outlived all that.
    kv(&root).range(get("k")).await.unwrap();
}

#[tokio::test]
async fn headers_say_what_etcds_say() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let first = kv(&root).put(put("k", 1)).await.unwrap().into_inner().header.unwrap();
    assert!(first.cluster_id != 0 && first.member_id != 0 && first.raft_term != 0);
    assert_eq!(first.revision, 2);

    let members = ClusterClient::new(root.channel.clone())
        .member_list(pb::MemberListRequest { linearizable: true })
        .await
        .unwrap()
        .into_inner();
    let header = members.header.unwrap();
    assert_eq!((header.revision, header.member_id), (0, first.member_id));
    let mut maintenance = MaintenanceClient::new(root.channel.clone());
    assert!(maintenance.defragment(pb::DefragmentRequest {}).await.unwrap().into_inner().header.is_none());
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leader, status.header.unwrap().revision), (first.member_id, 2));

    // Inside a txn: the revision that each operation saw or made, and nothing else.
    let op = |request| pb::RequestOp { request: Some(request) };
    let nested = pb::TxnRequest { success: vec![op(Op::RequestPut(put("n", 1)))], ..Default::default() };
    let txn = pb::TxnRequest {
        success: vec![
            op(Op::RequestRange(get("k"))),
            op(Op::RequestTxn(nested)),
            op(Op::RequestPut(put("m", 1))),
            op(Op::RequestRange(get("m"))),
        ],
        ..Default::default()
    };
    let answer = kv(&root).txn(txn).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().revision, 3);
    let outs: Vec<_> = answer.responses.into_iter().map(|out| out.response.unwrap()).collect();
    let only = |revision| Some(pb::ResponseHeader { revision, ..Default::default() });
    let [
        Out::ResponseRange(before),
        Out::ResponseTxn(nested),
        Out::ResponsePut(put),
        Out::ResponseRange(after),
    ] = outs.as_slice()
    else {
        panic!("other answers than questions: {outs:?}");
    };
    assert_eq!(before.header, only(2));
    assert_eq!(nested.header, only(0));
    let Some(Out::ResponsePut(inner)) = &nested.responses[0].response else { panic!("no put in {nested:?}") };
    assert_eq!([&inner.header, &put.header, &after.header], [&only(3), &only(3), &only(3)]);
}

#[tokio::test]
async fn a_password_opens_what_a_dead_token_closes() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let mut auth = AuthClient::new(root.channel.clone());
    let name = || "alice".to_owned();
    let add = pb::AuthUserAddRequest { name: name(), password: "first".to_owned(), ..Default::default() };
    auth.user_add(add).await.unwrap();
    let nobody = server.caller(Shown::default()).await;
    let login = |password: &str| pb::AuthenticateRequest { name: name(), password: password.to_owned() };
    let mut logins = AuthClient::new(nobody.channel.clone());
    let wrong = logins.authenticate(login("second")).await.unwrap_err();
    assert_eq!(
        (wrong.code(), wrong.message()),
        (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password")
    );
    let token = logins.authenticate(login("first")).await.unwrap().into_inner().token;
    let alice = server.caller(Shown { token: Some(token), certificate: None }).await;
    let member_list = "/etcdserverpb.Cluster/MemberList";
    alice.raw(member_list, Vec::new()).await.unwrap();
    let change = pb::AuthUserChangePasswordRequest {
        name: name(),
        password: "second".to_owned(),
        ..Default::default()
    };
    auth.user_change_password(change).await.unwrap();
    assert_eq!(alice.raw(member_list, Vec::new()).await.unwrap_err().code(), Code::Unauthenticated);
    // With the dead token still attached, as etcd's clients do.
    alice.raw("/etcdserverpb.Auth/Authenticate", login("second").encode_to_vec()).await.unwrap();
    // A hash that the client made itself, in base64.
    let hash = bcrypt::hash("third", 4).unwrap();
    let change = pb::AuthUserChangePasswordRequest {
        name: name(),
        hashed_password: base64(hash.as_bytes()),
        ..Default::default()
    };
    auth.user_change_password(change).await.unwrap();
    logins.authenticate(login("third")).await.unwrap();
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    assert!(bytes.len().is_multiple_of(3), "a bcrypt hash needs no padding");
    let letters = bytes.chunks(3).flat_map(|three| {
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(LETTERS[bits >> shift & 63]))
    });
    letters.collect()
}

#[tokio::test]
async fn keep_alives_are_answered_one_by_one_in_order() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let mut leases = LeaseClient::new(root.channel.clone());
    for id in [7, 8] {
        leases.lease_grant(pb::LeaseGrantRequest { ttl: 100, id }).await.unwrap();
    }
    let ids: Vec<i64> = (0..1000).map(|n| 7 + n % 3).collect();
    let requests = tokio_stream::iter(ids.clone()).map(|id| pb::LeaseKeepAliveRequest { id });
    let answers = leases.lease_keep_alive(requests).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap()).collect().await;
    // 9 is no lease: a TTL of 0, no error. The client's end ends the stream.
    assert_eq!(answers.iter().map(|answer| answer.id).collect::<Vec<_>>(), ids);
    assert!(answers.iter().all(|answer| answer.ttl == if answer.id == 9 { 0 } else { 100 }));
}

#[tokio::test]
async fn range_streams_add_up_to_the_range() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    for n in 0..50 {
        kv(&root).put(put(&format!("s/{n:03}"), 100_000)).await.unwrap();
    }
    let request = pb::RangeRequest { range_end: "s0".into(), ..get("s/") };
    let whole = kv(&root).range(request.clone()).await.unwrap().into_inner();
    let mut chunks = kv(&root).range_stream(request.clone()).await.unwrap().into_inner();
    let (mut merged, mut count) = (pb::RangeResponse::default(), 0);
    while let Some(chunk) = chunks.message().await.unwrap() {
        let chunk = chunk.range_response.unwrap();
        assert!(merged.header.is_none(), "only the last chunk has a header");
        merged.kvs.extend(chunk.kvs);
        (merged.header, merged.more, merged.count) = (chunk.header, chunk.more, chunk.count);
        count += 1;
    }
    assert!(count > 2, "{count} chunks");
    assert_eq!(merged, whole);
    let sorted = pb::RangeRequest { sort_order: 2, ..request };
    let refused = kv(&root).range_stream(sorted).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unimplemented, "RangeStream does not support custom sort orders")
    );
}

/// A watch stream under the test's hand.
struct Watching {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watching {
    async fn open(caller: &Caller) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let client = WatchClient::new(caller.channel.clone());
        let mut client = client.max_decoding_message_size(64 << 20);
        let responses = client.watch(stream).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn ask(&self, request: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.ask(RequestUnion::CreateRequest(request)).await;
        self.next().await
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.responses.message().await.unwrap().expect("the stream is open")
    }
}

fn watch(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.to_owned().into(), ..Default::default() }
}

#[tokio::test]
async fn watches_are_made_told_and_cancelled_as_in_etcd() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    kv(&root).put(put("k", 1)).await.unwrap();
    let mut stream = Watching::open(&root).await;

    // The server picks ids from 0; the client may pick its own, once.
    let first = stream.create(watch("k")).await;
    assert_eq!((first.watch_id, first.created, first.canceled), (0, true, false));
    assert_eq!(first.header.unwrap().revision, 2);
    let own = stream.create(pb::WatchCreateRequest { watch_id: 7, ..watch("other") }).await;
    assert_eq!((own.watch_id, own.created), (7, true));
    for (request, reason) in [
        (
            pb::WatchCreateRequest { watch_id: 7, ..watch("k") },
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (pb::WatchCreateRequest { range_end: "a".into(), ..watch("k") }, "mvcc: watcher range is empty"),
        (
            pb::WatchCreateRequest { start_revision: -1, ..watch("k") },
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ] {
        let refused = stream.create(request).await;
        assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true));
        assert_eq!((refused.cancel_reason.as_str(), refused.compact_revision), (reason, 0));
    }

    // One answer for a request for progress, on behalf of all.
    stream.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = stream.next().await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert_eq!(progress.header.unwrap().revision, 2);

    kv(&root).put(put("k", 1)).await.unwrap();
    let event = stream.next().await;
    assert_eq!((event.watch_id, event.events.len()), (0, 1));
    assert_eq!(event.header.unwrap().revision, 3);

    // An unknown id is met with silence; the next answer is that to the known one.
    stream.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 99 })).await;
    stream.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 })).await;
    let cancelled = stream.next().await;
    assert_eq!((cancelled.watch_id, cancelled.canceled), (0, true));
    assert_eq!(cancelled.cancel_reason, "");

    // History that is gone: first created, then cancelled with the revision from which there is some.
    kv(&root).compact(pb::CompactionRequest { revision: 3, physical: true }).await.unwrap();
    let created = stream.create(pb::WatchCreateRequest { start_revision: 2, ..watch("k") }).await;
    assert!(created.created && !created.canceled);
    let gone = stream.next().await;
    assert_eq!((gone.watch_id, gone.canceled, gone.compact_revision), (created.watch_id, true, 3));
    assert_eq!((gone.header.unwrap().revision, gone.cancel_reason.as_str()), (0, ""));
    let kept = stream.create(pb::WatchCreateRequest { start_revision: 3, ..watch("k") }).await;
    assert!(kept.created && !kept.canceled);
    assert_eq!(stream.next().await.events[0].kv.as_ref().unwrap().mod_revision, 3);
}

#[tokio::test]
async fn a_large_revision_comes_in_pieces_to_those_who_can_join_them() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let mut whole = Watching::open(&root).await;
    let mut pieces = Watching::open(&root).await;
    let all = pb::WatchCreateRequest { range_end: "f0".into(), prev_kv: true, ..watch("f/") };
    whole.create(all.clone()).await;
    pieces.create(pb::WatchCreateRequest { fragment: true, ..all }).await;
    // Each txn fits a request; with previous values its events do not fit a fragment.
    let txn = || pb::TxnRequest {
        success: (0..14)
            .map(|n| pb::RequestOp { request: Some(Op::RequestPut(put(&format!("f/{n}"), 100_000))) })
            .collect(),
        ..Default::default()
    };
    kv(&root).txn(txn()).await.unwrap();
    assert_eq!(whole.next().await.events.len(), 14);
    assert_eq!(pieces.next().await.events.len(), 14);
    kv(&root).txn(txn()).await.unwrap();
    let joined = whole.next().await;
    assert!(!joined.fragment && joined.events.len() == 14);
    let mut events = Vec::new();
    let mut count = 0;
    loop {
        let piece = pieces.next().await;
        assert!(piece.encoded_len() < 1_572_864 + (512 << 10));
        count += 1;
        events.extend(piece.events);
        if !piece.fragment {
            break;
        }
    }
    assert!(count > 1, "{count} pieces");
    assert_eq!(events, joined.events);
}

#[tokio::test]
async fn a_client_that_asks_no_more_still_gets_its_events_and_one_without_watches_the_end() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let mut stream = Watching::open(&root).await;
    stream.create(watch("k")).await;
    let Watching { requests, mut responses } = stream;
    drop(requests);
    kv(&root).put(put("k", 1)).await.unwrap();
    assert_eq!(responses.message().await.unwrap().unwrap().events.len(), 1);

    let idle = Watching::open(&root).await;
    let Watching { requests, mut responses } = idle;
    drop(requests);
    assert!(responses.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let mut lazy = Watching::open(&root).await;
    lazy.create(watch("k")).await;
    // Far more than windows and buffers hold.
    let other = server.named("root").await;
    let value = Bytes::from(vec![b'v'; 100_000]);
    for _ in 0..400 {
        let request = pb::PutRequest { key: "k".into(), value: value.clone(), ..Default::default() };
        kv(&other).put(request).await.unwrap();
    }
    // When it reads at last, nothing is missing and nothing is double.
    let mut revisions = Vec::new();
    while revisions.len() < 400 {
        let response = lazy.next().await;
        revisions.extend(response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
    }
    assert_eq!(revisions, (2..402).collect::<Vec<_>>());
}
