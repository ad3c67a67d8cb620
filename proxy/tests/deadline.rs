//! gRPC's deadline as a server has to keep it, for clients that set one and do not watch it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::time::{Duration, Instant};

use keygate_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::watch_client::WatchClient;
use support::Server;
use tokio::sync::mpsc;
use tonic::{Code, Request};

/// With a deadline that the client's library does not see: it looks at the first of these headers,
/// the server at the last.
fn with<T>(timeout: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().append("grpc-timeout", "99999999H".parse().unwrap());
    request.metadata_mut().append("grpc-timeout", timeout.parse().unwrap());
    request
}

fn put(key: String) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() }
}

async fn metric(server: &Server, series: &str) -> f64 {
    let page = server.page("/metrics").await;
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("missing: {series}")).parse().unwrap()
}

fn late(method: &str, service: &str, kind: &str) -> String {
    format!(
        "grpc_server_handled_total{{grpc_code=\"DeadlineExceeded\",grpc_method=\"{method}\",grpc_service=\"etcdserverpb.{service}\",grpc_type=\"{kind}\"}}"
    )
}

#[tokio::test]
async fn a_deadline_is_read_before_anything_is_done() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let mut kv = KvClient::new(root.channel.clone());
    for (timeout, code, text) in [
        ("soon", Code::Internal, "malformed grpc-timeout: transport: timeout string is not a number"),
        ("5s", Code::Internal, "malformed grpc-timeout: transport: timeout string is of an unknown unit"),
        ("1", Code::Internal, "malformed grpc-timeout: transport: timeout string is too short"),
        ("1234567890S", Code::Internal, "malformed grpc-timeout: transport: timeout string is too long"),
        ("0S", Code::DeadlineExceeded, "context deadline exceeded"),
    ] {
        let refused = kv.put(with(timeout, put("k".to_owned()))).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (code, text), "{timeout}");
    }
    kv.put(with("30S", put("k".to_owned()))).await.unwrap();
    let get = pb::RangeRequest { key: "k".into(), ..Default::default() };
    let found = kv.range(with("30S", get)).await.unwrap().into_inner();
    assert_eq!(found.kvs[0].version, 1, "none of the refused ones was done");
}

#[tokio::test]
async fn who_waits_too_long_is_told_so_and_counted() {
    // A login at this cost takes seconds.
    let server = Server::start(&["--bcrypt-cost", "14"]);
    let root = server.named("root").await;
    let mut auth = AuthClient::new(root.channel.clone());
    let login = pb::AuthenticateRequest { name: "root".into(), password: "wrong".into() };
    let refused = auth.authenticate(with("20m", login)).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::DeadlineExceeded, "context deadline exceeded"));
    assert_eq!(metric(&server, &late("Authenticate", "Auth", "unary")).await, 1.0);

    let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
    let request =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let (asking, requests) = mpsc::channel(1);
    asking.send(request).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let start = Instant::now();
    let mut watch =
        WatchClient::new(root.channel.clone()).watch(with("300m", requests)).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    let ended = watch.message().await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::DeadlineExceeded, "context deadline exceeded"));
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(metric(&server, &late("Watch", "Watch", "bidi_stream")).await, 1.0);
    assert_eq!(metric(&server, "etcd_debugging_mvcc_watcher_total").await, 0.0);
}

/// The log has taken the write when its client's time is up. It must not be half done: it is there
/// like any other, and it counts as one whose client was not told.
#[tokio::test]
async fn a_write_that_was_proposed_is_done_whether_its_client_waits_or_not() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let mut kv = KvClient::new(root.channel.clone());
    let failed = "etcd_server_proposals_failed_total";
    let failed_before = metric(&server, failed).await;
    let (mut told, mut late_keys) = (0, Vec::new());
    for n in 0..100 {
        let key = format!("k{n:03}");
        match kv.put(with("100u", put(key.clone()))).await {
            Ok(_) => told += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::DeadlineExceeded);
                late_keys.push(key);
            }
        }
    }
    // Ordered behind all of them.
    kv.put(put("z".to_owned())).await.unwrap();
    let all = pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let kvs = kv.range(all).await.unwrap().into_inner().kvs;
    let done = late_keys.iter().filter(|key| kvs.iter().any(|kv| kv.key == key.as_bytes())).count();
    println!("told {told}, late {}, of these done {done}", late_keys.len());
    assert!(done > 0);
    assert_eq!(kvs.len(), told + done);
    assert!(kvs.iter().all(|kv| kv.version == 1 && kv.value == "v"));
    assert_eq!(metric(&server, failed).await - failed_before, done as f64);
    assert_eq!(metric(&server, &late("Put", "KV", "unary")).await, late_keys.len() as f64);
}
