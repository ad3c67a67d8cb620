//! Limits as operators write them and clients meet them: a real process, over TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::time::{Duration, Instant};

use keygate_proto::rpc::{QuotaFailure, RetryInfo};
use keygate_proto::{admin, etcdserverpb as pb};
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::watch_client::WatchClient;
use prost::Message as _;
use support::{Caller, Server, Shown};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status};

const PATIENCE: Duration = Duration::from_secs(30);

struct Limited {
    server: Server,
    directory: TempDir,
    root: Caller,
}

impl Limited {
    /// A server with these limits, and users of these names that may do all in their tenant.
    async fn start(limits: &str, users: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("limits.yaml");
        std::fs::write(&path, limits).unwrap();
        let server = Server::start(&["--limits-file", path.to_str().unwrap()]);
        let root = server.named("root").await;
        let mut auth = AuthClient::new(root.signed());
        for user in users {
            let (name, password) = ((*user).to_owned(), format!("of {user}"));
            let add = pb::AuthUserAddRequest { name: name.clone(), password, ..Default::default() };
            auth.user_add(add).await.unwrap();
            let grant = pb::AuthUserGrantRoleRequest { user: name, role: "root".to_owned() };
            auth.user_grant_role(grant).await.unwrap();
        }
        Self { server, directory, root }
    }

    fn rewrite(&self, limits: &str) {
        let (path, new) = (self.directory.path().join("limits.yaml"), self.directory.path().join("new"));
        std::fs::write(&new, limits).unwrap();
        std::fs::rename(new, path).unwrap();
    }
}

async fn put(caller: &Caller, key: &str, value: &str) -> Result<(), Status> {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let request = pb::PutRequest { key, value, ..Default::default() };
    KvClient::new(caller.signed()).put(request).await.map(drop)
}

async fn range(caller: &Caller, limit: i64) -> Result<pb::RangeResponse, Status> {
    let everything = bytes::Bytes::from_static(b"\0");
    let request =
        pb::RangeRequest { key: everything.clone(), range_end: everything, limit, ..Default::default() };
    Ok(KvClient::new(caller.signed()).range(request).await?.into_inner())
}

async fn grant(caller: &Caller, ttl: i64) -> Result<pb::LeaseGrantResponse, Status> {
    let request = pb::LeaseGrantRequest { ttl, id: 0 };
    Ok(LeaseClient::new(caller.signed()).lease_grant(request).await?.into_inner())
}

fn told(result: Result<impl std::fmt::Debug, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again_and_nobody_else_is_refused() {
    let limits = "limits: {tenant: {user: {writes: {rate: 5/m, burst: 3}}, users: {bob: {writes: none}}}}";
    let limited = Limited::start(limits, &["alice", "bob"]).await;
    let alice = limited.server.logged_in("alice", "of alice").await;
    let bob = limited.server.logged_in("bob", "of bob").await;
    for _ in 0..3 {
        put(&alice, "k", "v").await.unwrap();
    }
    let status = put(&alice, "k", "v").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "etcdserver: too many requests"));
    let said = |name| status.metadata().get(name).unwrap().to_str().unwrap().parse::<u64>().unwrap();
    assert!((1..=12_000).contains(&said("grpc-retry-pushback-ms")), "{status:?}");
    assert_eq!((said("x-ratelimit-remaining"), said("x-ratelimit-reset") > 12), (0, true));
    let details = keygate_proto::rpc::Status::decode(status.details()).unwrap().details;
    let retry = RetryInfo::decode(details[0].value.as_slice()).unwrap().retry_delay.unwrap();
    assert!((1..=12).contains(&(retry.seconds + 1)));
    let failure = QuotaFailure::decode(details[1].value.as_slice()).unwrap();
    assert_eq!(failure.violations[0].subject, "user `alice` of tenant `default`");
    // Reads are of another class, and bob another user.
    range(&alice, 0).await.unwrap();
    for _ in 0..20 {
        put(&bob, "k", "v").await.unwrap();
    }
    // On another connection alice is still alice.
    let again = limited.server.logged_in("alice", "of alice").await;
    assert_eq!(told(put(&again, "k", "v").await).0, Code::ResourceExhausted);
    let page = limited.server.page("/metrics").await;
    let line = "keygate_limit_refusals_total{class=\"write\",rule=\"writes\",tenant=\"\"} 2";
    assert!(page.contains(line), "the client port's page counts and names nobody: {page}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_in_etcds_words() {
    let limits = "limits:
  tenant:
    key-size: 10
    value-size: 1KiB
    txn-operations: 3
    range-rows: 2
    leases: 3
    lease-ttl-min: 30s
    lease-ttl-max: 1h
    prefixes: {/small/: {value-size: 4}}
    users: {root: {key-size: none}}
";
    let limited = Limited::start(limits, &["alice"]).await;
    let alice = limited.server.logged_in("alice", "of alice").await;
    let too_large = (Code::InvalidArgument, "etcdserver: request is too large".to_owned());
    assert_eq!(told(put(&alice, "longer than ten", "v").await), too_large);
    assert_eq!(told(put(&alice, "k", &"v".repeat(1025)).await), too_large);
    assert_eq!(told(put(&alice, "/small/k", "five!").await), too_large);
    for key in ["a", "b", "/small/k"] {
        put(&alice, key, "four").await.unwrap();
    }
    let put_op = |key: &str| {
        let put = pb::PutRequest { key: key.to_owned().into(), ..Default::default() };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
    };
    let txn = pb::TxnRequest { success: ["1", "2", "3", "4"].map(put_op).into(), ..Default::default() };
    assert_eq!(
        told(KvClient::new(alice.signed()).txn(txn).await),
        (Code::InvalidArgument, "etcdserver: too many operations in txn request".to_owned())
    );
    // Three keys are there: all are too many, pages of two are not, and are told there is more.
    assert_eq!(told(range(&alice, 0).await).0, Code::ResourceExhausted);
    let page = range(&alice, 2).await.unwrap();
    assert_eq!((page.kvs.len(), page.more, page.count), (2, true, 3));
    assert_eq!(
        told(grant(&alice, 3601).await),
        (Code::OutOfRange, "etcdserver: too large lease TTL".to_owned())
    );
    assert_eq!(grant(&alice, 1).await.unwrap().ttl, 30, "raised, as etcd raises it");
    let several = (0..6).map(|_| grant(&alice, 60));
    let granted = futures_util::future::join_all(several).await;
    assert_eq!(granted.iter().filter(|grant| grant.is_ok()).count(), 2, "three leases in all");
    assert!(
        granted.into_iter().filter_map(Result::err).all(|status| status.code() == Code::ResourceExhausted)
    );
}

#[tokio::test]
async fn a_watcher_too_many_is_cancelled_within_its_stream_and_the_others_go_on() {
    let limited = Limited::start("limits: {tenant: {watches: 2}}", &["alice"]).await;
    let alice = limited.server.logged_in("alice", "of alice").await;
    let (requests, outgoing) = mpsc::unbounded_channel();
    let create = |key: &str| pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: key.to_owned().into(),
            ..Default::default()
        })),
    };
    ["a", "b", "c"].into_iter().for_each(|key| requests.send(create(key)).unwrap());
    let mut watch = WatchClient::new(alice.signed());
    let mut answers = watch.watch(UnboundedReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let mut created = Vec::new();
    for _ in 0..3 {
        let answer = answers.message().await.unwrap().unwrap();
        created.push((answer.created, answer.canceled, answer.cancel_reason.contains("`watches`")));
    }
    assert_eq!(created, [(true, false, false), (true, false, false), (true, true, true)]);
    put(&limited.root, "b", "v").await.unwrap();
    let event = answers.message().await.unwrap().unwrap();
    assert_eq!((event.watch_id, event.events.len()), (1, 1));
    // Who ends one may begin another.
    let cancel = pb::WatchCancelRequest { watch_id: 0 };
    let request_union = Some(pb::watch_request::RequestUnion::CancelRequest(cancel));
    requests.send(pb::WatchRequest { request_union }).unwrap();
    assert!(answers.message().await.unwrap().unwrap().canceled);
    requests.send(create("c")).unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!((answer.created, answer.canceled), (true, false));
}

#[tokio::test]
async fn keepalives_are_delayed_and_never_refused() {
    let limited = Limited::start("limits: {tenant: {keepalives: {rate: 10, burst: 1}}}", &["alice"]).await;
    let alice = limited.server.logged_in("alice", "of alice").await;
    let id = grant(&alice, 600).await.unwrap().id;
    let requests = tokio_stream::iter((0..8).map(move |_| pb::LeaseKeepAliveRequest { id }));
    let begin = Instant::now();
    let mut answers = LeaseClient::new(alice.signed()).lease_keep_alive(requests).await.unwrap().into_inner();
    let mut kept = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        assert_eq!(answer.ttl, 600);
        kept += 1;
    }
    assert_eq!(kept, 8);
    assert!(begin.elapsed() >= Duration::from_millis(600), "{:?} for eight at ten a second", begin.elapsed());
}

#[tokio::test]
async fn limits_change_while_the_server_runs_and_a_bad_file_changes_nothing() {
    let limited = Limited::start("limits: {tenant: {value-size: 1}}", &["alice"]).await;
    let alice = limited.server.logged_in("alice", "of alice").await;
    let until = async |fits: bool| {
        let begin = Instant::now();
        while put(&alice, "k", "two").await.is_ok() != fits {
            assert!(begin.elapsed() < PATIENCE, "the file was not read again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    until(false).await;
    limited.rewrite("limits: {tenant: {value-size: 3}}");
    until(true).await;
    for bad in ["limits: {tenant: {value-sise: 1}}", "limits: {tenant: {value-size: -1}}", ""] {
        limited.rewrite(bad);
        // Another change shows that the bad one was looked at.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        put(&alice, "k", "two").await.unwrap();
        assert_eq!(told(put(&alice, "k", "four").await).0, Code::InvalidArgument, "{bad}");
    }
    limited.server.logs(&["limits.yaml:1: limits.tenant.value-sise: unknown key", "stay in force"]).await;
    let page = limited.server.page("/metrics").await;
    for line in ["\nkeygate_limits_reload_failures_total 3\n", "\nkeygate_limits_file_unusable 1\n"] {
        assert!(page.contains(line), "{line} in {page}");
    }
    limited.rewrite("limits: {tenant: {value-size: 2}}");
    until(false).await;
    assert!(limited.server.page("/metrics").await.contains("\nkeygate_limits_file_unusable 0\n"));
}

#[test]
fn limits_that_cannot_be_used_at_the_start_are_named_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad-limits.yaml");
    std::fs::write(&path, "limits:\n  tenant:\n    reads: 5\n    writes: many\n").unwrap();
    let start = |flags: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_keygate"));
        let ended =
            command.arg("serve").args(flags).current_dir(directory.path()).env_clear().output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let file = path.display().to_string();
    // In a file of their own, and in the section of the configuration.
    for flags in [["--limits-file", &file], ["--config-file", &file]] {
        let (code, told) = start(&flags);
        assert_eq!(code, Some(2), "{told}");
        assert!(told.contains(&format!("{file}:4: limits.tenant.writes: `many` is not a rate")), "{told}");
    }
}

#[tokio::test]
async fn connections_and_logins_are_counted_where_they_belong() {
    let limits = "limits: {tenant: {users: {alice: {connections: 2}, bob: {logins: {rate: 3/h, burst: 3}}}}}";
    let limited = Limited::start(limits, &["alice", "bob"]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let alice = limited.server.logged_in("alice", "of alice").await;
        put(&alice, "k", "v").await.unwrap();
        held.push(alice);
    }
    let third = limited.server.logged_in("alice", "of alice").await;
    assert_eq!(told(put(&third, "k", "v").await).0, Code::ResourceExhausted);
    held.pop();
    let begin = Instant::now();
    // The server has yet to notice that the connection has gone.
    while put(&third, "k", "v").await.is_err() {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..3 {
        assert_eq!(told(limited.server.login("bob", "wrong").await).0, Code::InvalidArgument);
    }
    assert_eq!(told(limited.server.login("bob", "of bob").await).0, Code::ResourceExhausted);
    limited.server.login("alice", "of alice").await.unwrap();
}

#[tokio::test]
async fn operators_see_what_is_in_force_and_who_asks_for_how_much() {
    let limits = "limits: {tenant: {user: {writes: {rate: 1/h, burst: 2}}, users: {root: {writes: none}}}}";
    let limited = Limited::start(limits, &["alice"]).await;
    let alice = limited.server.logged_in("alice", "of alice").await;
    let refused = futures_util::future::join_all((0..5).map(|_| put(&alice, "k", "v"))).await;
    assert_eq!(refused.iter().filter(|outcome| outcome.is_err()).count(), 3);
    let mut load = admin::load_client::LoadClient::new(limited.root.signed());
    let users = load.get(admin::LoadRequest { most: 50 }).await.unwrap().into_inner().users;
    let of_alice = users.iter().find(|load| load.user == "alice").unwrap();
    assert_eq!((of_alice.tenant.as_str(), of_alice.refusals, of_alice.connections), ("default", 3, 1));
    assert!(of_alice.requests >= 5 && of_alice.bytes_in > 0 && of_alice.bytes_out > 0, "{of_alice:?}");
    let one = load.get(admin::LoadRequest { most: 1 }).await.unwrap().into_inner().users;
    assert_eq!(one.len(), 1, "those that asked most come first");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_keygate"))
        .args(["limits", "show", "--output", "json", "--endpoints", &limited.server.endpoint(), "--data-dir"])
        .arg(limited.server.data_dir())
        .env_clear()
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = serde_json::json!({"path": "limits.tenant.user.writes", "limit": "1/h, burst 2"});
    assert_eq!(told["limits"][0], first, "{}", String::from_utf8_lossy(&output.stderr));
}

/// Which headers a refusal has besides `grpc-retry-pushback-ms` and its QuotaFailure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// How long to wait, and all of `x-ratelimit-`.
    Wait,
    /// That nothing is left.
    UsedUp,
    /// Only what the limit is.
    TooLarge,
    /// Nothing: etcd has words of its own.
    EtcdsWords,
}

/// One of each kind, in the way in which clients meet it. Watches are told within their stream, keepalives wait, and
/// answers that find no memory are in memory.rs.
#[tokio::test]
async fn every_kind_of_refusal_says_what_its_client_needs() {
    use Told::{EtcdsWords, TooLarge, UsedUp, Wait};
    let once = "{rate: 1/h, burst: 1}";
    let kinds = [
        ("requests", once, Wait),
        ("reads", once, Wait),
        ("ranges", once, Wait),
        ("writes", once, Wait),
        ("admin", once, Wait),
        ("logins", once, Wait),
        ("bytes-in", "{rate: 1/h, burst: 1}", Wait),
        ("bytes-out", "{rate: 1/h, burst: 1}", Wait),
        ("range-cost", "{rate: 1/h, burst: 1}", Wait),
        ("in-flight", "0", UsedUp),
        ("connections", "1", UsedUp),
        ("streams", "1", UsedUp),
        ("range-rows", "1", TooLarge),
        ("range-bytes", "1", TooLarge),
        ("key-size", "1", EtcdsWords),
        ("value-size", "1", EtcdsWords),
        ("txn-operations", "1", EtcdsWords),
        ("txn-depth", "1", EtcdsWords),
        ("lease-ttl-max", "10", EtcdsWords),
    ];
    let users: String =
        kinds.iter().map(|(rule, limit, _)| format!("      {rule}: {{{rule}: {limit}}}\n")).collect();
    // A tenant's alone: of leases there are none, so that one is too many.
    let limits = format!("limits:\n  tenant:\n    leases: 0\n    users:\n{users}");
    let names: Vec<_> = kinds.iter().map(|(rule, ..)| *rule).chain(["leases"]).collect();
    let limited = Limited::start(&limits, &names).await;
    for key in ["a", "b", "c"] {
        put(&limited.root, key, "v").await.unwrap();
    }
    for (rule, _, told) in kinds.into_iter().chain([("leases", "0", UsedUp)]) {
        let status = provoke(&limited, rule).await;
        let has: Vec<_> = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
            .map(|name| {
                status.metadata().get(name).map(|value| value.to_str().unwrap().parse::<u64>().unwrap())
            })
            .into();
        let pushback = status
            .metadata()
            .get("grpc-retry-pushback-ms")
            .map(|value| value.to_str().unwrap().parse::<i64>());
        let details = keygate_proto::rpc::Status::decode(status.details()).unwrap().details;
        let kinds: Vec<_> = details.iter().map(|any| any.type_url.rsplit_once('.').unwrap().1).collect();
        let as_told = match (told, has.as_slice(), &pushback, kinds.as_slice()) {
            (Wait, [Some(_), Some(_), Some(1..)], Some(Ok(1..)), ["RetryInfo", "QuotaFailure"])
            | (UsedUp, [Some(_), Some(0), None], Some(Ok(-1)), ["QuotaFailure"])
            | (TooLarge, [Some(1), None, None], Some(Ok(-1)), ["QuotaFailure"]) => {
                let failure = QuotaFailure::decode(details.last().unwrap().value.as_slice()).unwrap();
                let description = &failure.violations[0].description;
                status.code() == Code::ResourceExhausted && description.contains(&format!("`{rule}`"))
            }
            (EtcdsWords, [None, None, None], None, []) => status.code() != Code::ResourceExhausted,
            _ => false,
        };
        assert!(as_told, "{rule}: {told:?}, and it is {has:?} {pushback:?} {kinds:?}: {status:?}");
    }
}

/// Does as the user of this name what meets the rule of this name, until it is refused.
async fn provoke(limited: &Limited, rule: &str) -> Status {
    let password = format!("of {rule}");
    // A login is a request, too, and is the first that meets a limit of none at work.
    if rule == "logins" || rule == "in-flight" {
        return until_refused(async || limited.server.login(rule, &password).await.map(drop)).await;
    }
    let caller = limited.server.logged_in(rule, &password).await;
    let put_op = || pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(pb::PutRequest {
            key: "k".into(),
            ..Default::default()
        })),
    };
    let txn = |success: Vec<pb::RequestOp>| pb::TxnRequest { success, ..Default::default() };
    match rule {
        "reads" => {
            let get = || pb::RangeRequest { key: "a".into(), ..Default::default() };
            until_refused(async || KvClient::new(caller.signed()).range(get()).await.map(drop)).await
        }
        "admin" => {
            let mut auth = AuthClient::new(caller.signed());
            until_refused(async || auth.user_list(pb::AuthUserListRequest {}).await.map(drop)).await
        }
        "connections" => {
            let other = limited.server.logged_in(rule, &password).await;
            put(&caller, "k", "v").await.unwrap();
            put(&other, "k", "v").await.unwrap_err()
        }
        "streams" => {
            // Held until this one ends.
            let (_requests, outgoing) = mpsc::unbounded_channel();
            let mut watch = WatchClient::new(caller.signed());
            let first = pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: "k".into(),
                ..Default::default()
            });
            _requests.send(pb::WatchRequest { request_union: Some(first) }).unwrap();
            let mut held = watch.watch(UnboundedReceiverStream::new(outgoing)).await.unwrap().into_inner();
            assert!(held.message().await.unwrap().unwrap().created);
            until_refused(async || {
                let (requests, outgoing) = mpsc::unbounded_channel::<pb::WatchRequest>();
                let mut watch = WatchClient::new(caller.signed());
                let create = pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
                    key: "k".into(),
                    ..Default::default()
                });
                requests.send(pb::WatchRequest { request_union: Some(create) }).unwrap();
                let mut answers = watch.watch(UnboundedReceiverStream::new(outgoing)).await?.into_inner();
                answers.message().await.map(drop)
            })
            .await
        }
        "leases" | "lease-ttl-max" => until_refused(async || grant(&caller, 60).await.map(drop)).await,
        "txn-operations" => {
            KvClient::new(caller.signed()).txn(txn(vec![put_op(), put_op()])).await.unwrap_err()
        }
        "txn-depth" => {
            let nested = |inner| pb::RequestOp { request: Some(pb::request_op::Request::RequestTxn(inner)) };
            let deep = txn(vec![nested(txn(vec![nested(txn(vec![put_op()]))]))]);
            KvClient::new(caller.signed()).txn(deep).await.unwrap_err()
        }
        "key-size" | "value-size" => put(&caller, "longer", "longer").await.unwrap_err(),
        "writes" | "bytes-in" => until_refused(async || put(&caller, "k", "v").await).await,
        _ => until_refused(async || range(&caller, 0).await.map(drop)).await,
    }
}

async fn until_refused(mut ask: impl AsyncFnMut() -> Result<(), Status>) -> Status {
    for _ in 0..5 {
        if let Err(status) = ask().await {
            return status;
        }
    }
    panic!("nothing is refused")
}

/// A stranger who names a tenant must not use up what its users may ask for.
#[tokio::test]
async fn strangers_take_nothing_from_anybody() {
    let limits = "limits: {tenant: {requests: {rate: 20/h, burst: 20}, users: {root: {requests: none}}}}";
    let limited = Limited::start(limits, &[]).await;
    let nobody = limited.server.caller(Shown::default()).await;
    for _ in 0..40 {
        assert_eq!(told(put(&nobody, "k", "v").await).0, Code::InvalidArgument);
    }
    put(&limited.root, "k", "v").await.unwrap();
}

/// Watchers last, and leases die: neither may be at the mercy of what else is at work.
#[tokio::test]
async fn watchers_are_not_in_flight_and_keepalives_need_no_seat() {
    let limits = "limits: {tenant: {users: {alice: {in-flight: 1, connections: 1}}}}";
    let limited = Limited::start(limits, &["alice"]).await;
    let alice = limited.server.logged_in("alice", "of alice").await;
    let id = grant(&alice, 600).await.unwrap().id;
    let (requests, outgoing) = mpsc::unbounded_channel();
    let mut watch = WatchClient::new(alice.signed());
    let mut answers = watch.watch(UnboundedReceiverStream::new(outgoing)).await.unwrap().into_inner();
    for _ in 0..3 {
        let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
        let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
        requests.send(pb::WatchRequest { request_union }).unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!((answer.created, answer.canceled), (true, false), "{}", answer.cancel_reason);
    }
    put(&alice, "k", "v").await.unwrap();
    let other = limited.server.logged_in("alice", "of alice").await;
    assert_eq!(told(put(&other, "k", "v").await).0, Code::ResourceExhausted, "a connection too many");
    let requests = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
    let mut kept = LeaseClient::new(other.signed()).lease_keep_alive(requests).await.unwrap().into_inner();
    assert_eq!(kept.message().await.unwrap().unwrap().ttl, 600);
}

#[tokio::test]
async fn who_reads_too_much_is_refused_and_let_in_again() {
    let limits = "limits: {tenant: {users: {alice: {bytes-out: {rate: 10000, burst: 1000}}}}}";
    let limited = Limited::start(limits, &["alice"]).await;
    put(&limited.root, "k", &"v".repeat(20_000)).await.unwrap();
    let alice = limited.server.logged_in("alice", "of alice").await;
    assert_eq!(range(&alice, 0).await.unwrap().kvs.len(), 1);
    assert_eq!(told(range(&alice, 0).await).0, Code::ResourceExhausted);
    let begin = Instant::now();
    while range(&alice, 0).await.is_err() {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
