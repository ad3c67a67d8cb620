//! What other servers of this API once let through, each with the harm it did there and, beside
//! each refusal, the same request within the caller's rights: so the refusal is the decision's, not
//! the request's.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use bytes::Bytes;
use keygate_proto::{authpb, etcdserverpb as pb};
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::watch_client::WatchClient;
use support::{Caller, Server};
use tonic::{Code, Status, Streaming};

const READ: i32 = 0;
const WRITE: i32 = 1;
const READWRITE: i32 = 2;

/// A user who logs in by certificate and holds one role of the same name with these permissions.
async fn user(root: &Caller, name: &str, permissions: &[(i32, &str, &str)]) {
    let mut auth = AuthClient::new(root.channel.clone());
    let options = Some(authpb::UserAddOptions { no_password: true });
    let add = pb::AuthUserAddRequest { name: name.to_owned(), options, ..Default::default() };
    auth.user_add(add).await.unwrap();
    auth.role_add(pb::AuthRoleAddRequest { name: name.to_owned() }).await.unwrap();
    for permission in permissions {
        grant(root, name, *permission).await.unwrap();
    }
    let grant = pb::AuthUserGrantRoleRequest { user: name.to_owned(), role: name.to_owned() };
    auth.user_grant_role(grant).await.unwrap();
}

async fn grant(root: &Caller, role: &str, (kind, key, range_end): (i32, &str, &str)) -> Result<(), Status> {
    let perm = authpb::Permission {
        perm_type: kind,
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
    };
    let request = pb::AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(perm) };
    AuthClient::new(root.channel.clone()).role_grant_permission(request).await.map(drop)
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: Bytes::copy_from_slice(key.as_bytes()), value: "v".into(), ..Default::default() }
}

fn delete(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

fn kv(caller: &Caller) -> KvClient<tonic::transport::Channel> {
    KvClient::new(caller.channel.clone())
}

async fn put_as(caller: &Caller, request: pb::PutRequest) {
    kv(caller).put(request).await.unwrap();
}

fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn only(op: pb::RequestOp) -> pb::TxnRequest {
    pb::TxnRequest { success: vec![op], ..Default::default() }
}

async fn txn(caller: &Caller, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
    kv(caller).txn(request).await.map(tonic::Response::into_inner)
}

fn assert_denied<T: std::fmt::Debug>(outcome: Result<T, Status>, what: &str) {
    let status = outcome.expect_err(what);
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "etcdserver: permission denied"),
        "{what}"
    );
}

/// CVE-2026-33343: the rights to what is inside a nested txn were not asked for, so one txn around
/// the request opened every key.
#[tokio::test]
async fn a_nested_txn_needs_every_right_of_what_is_in_it() {
    use pb::request_op::Request;
    type Make = fn(&str) -> Request;
    let server = Server::start(&[]);
    let root = server.named("root").await;
    user(&root, "limited", &[(READWRITE, "own/", "own0")]).await;
    put_as(&root, put("secret")).await;
    let limited = server.named("limited").await;
    let kinds: [(&str, Make); 4] = [
        ("range", |key| Request::RequestRange(get(key))),
        ("put", |key| Request::RequestPut(put(key))),
        ("delete", |key| Request::RequestDeleteRange(delete(key))),
        ("compare", |key| {
            let key = Bytes::copy_from_slice(key.as_bytes());
            let compare = vec![pb::Compare { key, ..Default::default() }];
            Request::RequestTxn(pb::TxnRequest { compare, ..Default::default() })
        }),
    ];
    let mut asked = 0;
    for (name, kind) in kinds {
        for depth in 1..=8 {
            for branch in ["success", "failure"] {
                let nest = |key: &str| {
                    let mut inner = op(kind(key));
                    let mut whole = pb::TxnRequest::default();
                    for _ in 0..depth {
                        let branch =
                            if branch == "success" { &mut whole.success } else { &mut whole.failure };
                        branch.push(inner);
                        inner = op(Request::RequestTxn(std::mem::take(&mut whole)));
                    }
                    match inner.request {
                        Some(Request::RequestTxn(txn)) => txn,
                        _ => unreachable!("wrapped at least once"),
                    }
                };
                let what = format!("{name} at depth {depth} in {branch}");
                assert_denied(txn(&limited, nest("secret")).await, &what);
                // Contrast: the same shape over the caller's own key.
                txn(&limited, nest("own/key")).await.expect(&what);
                asked += 1;
            }
        }
    }
    println!("{asked} shapes");
    assert_eq!(asked, 4 * 8 * 2);
    let still = kv(&root).range(get("secret")).await.unwrap().into_inner();
    assert_eq!(still.kvs[0].version, 1, "nobody wrote it");
}

/// etcd 21681, 21685: inside a txn, a put could read the previous value without the right to read,
/// and join a foreign lease, whose end then took the key with it or the other way round.
#[tokio::test]
async fn puts_in_txns_need_the_rights_to_previous_values_and_leases() {
    use pb::request_op::Request;
    let server = Server::start(&[]);
    let root = server.named("root").await;
    user(&root, "writer", &[(WRITE, "w", "")]).await;
    put_as(&root, put("w")).await;
    let mut leases = LeaseClient::new(root.channel.clone());
    for id in [100, 200] {
        leases.lease_grant(pb::LeaseGrantRequest { ttl: 600, id }).await.unwrap();
    }
    put_as(&root, pb::PutRequest { lease: 100, ..put("foreign") }).await;
    let writer = server.named("writer").await;
    let in_txn = |put: pb::PutRequest| only(op(Request::RequestPut(put)));
    let nested = |put: pb::PutRequest| only(op(Request::RequestTxn(in_txn(put))));
    for wrap in [&in_txn as &dyn Fn(pb::PutRequest) -> pb::TxnRequest, &nested] {
        let prev_kv = pb::PutRequest { prev_kv: true, ..put("w") };
        assert_denied(txn(&writer, wrap(prev_kv)).await, "the previous value");
        let foreign = pb::PutRequest { lease: 100, ..put("w") };
        assert_denied(txn(&writer, wrap(foreign)).await, "a lease with a foreign key");
        // Contrast: without the previous value, and with a lease that holds nothing of others.
        txn(&writer, wrap(put("w"))).await.unwrap();
        txn(&writer, wrap(pb::PutRequest { lease: 200, ..put("w") })).await.unwrap();
    }
    let delete = pb::DeleteRangeRequest { prev_kv: true, ..delete("w") };
    let delete = only(op(Request::RequestDeleteRange(delete)));
    assert_denied(txn(&writer, delete).await, "the deleted value");
    // Outside of txns it is the same.
    let bare = kv(&writer).put(pb::PutRequest { prev_kv: true, ..put("w") }).await;
    assert_denied(bare, "the previous value of a plain put");
    // A lease is as good as a write on its keys.
    let mut leases = LeaseClient::new(writer.channel.clone());
    assert_denied(leases.lease_revoke(pb::LeaseRevokeRequest { id: 100 }).await, "revoking a foreign lease");
    leases.lease_revoke(pb::LeaseRevokeRequest { id: 200 }).await.unwrap();
}

/// etcd 15814, 15815: anybody could list the keys of any lease.
#[tokio::test]
async fn the_keys_of_a_lease_are_told_only_to_those_who_may_read_them() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    user(&root, "reader", &[(READ, "r", "")]).await;
    let mut leases = LeaseClient::new(root.channel.clone());
    for (id, key) in [(100, "foreign"), (200, "r")] {
        leases.lease_grant(pb::LeaseGrantRequest { ttl: 600, id }).await.unwrap();
        put_as(&root, pb::PutRequest { lease: id, ..put(key) }).await;
    }
    let reader = server.named("reader").await;
    let mut leases = LeaseClient::new(reader.channel.clone());
    let foreign = pb::LeaseTimeToLiveRequest { id: 100, keys: true };
    assert_denied(leases.lease_time_to_live(foreign).await, "the keys of a foreign lease");
    assert_denied(leases.lease_leases(pb::LeaseLeasesRequest {}).await, "all leases");
    let without = leases.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 100, keys: false }).await;
    assert!(without.unwrap().into_inner().keys.is_empty());
    let own = leases.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 200, keys: true }).await;
    assert_eq!(own.unwrap().into_inner().keys, ["r"]);
}

/// etcd 15619: a permission over `[k, k)` was taken for more than nothing.
#[tokio::test]
async fn an_empty_permission_permits_nothing() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    user(&root, "hopeful", &[]).await;
    for key in ["j", "k", "l"] {
        put_as(&root, put(key)).await;
    }
    for (key, range_end) in [("k", "k"), ("k", "j"), ("", "")] {
        let refused = grant(&root, "hopeful", (READWRITE, key, range_end)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "[{key}, {range_end})");
    }
    let hopeful = server.named("hopeful").await;
    for key in ["j", "k", "l"] {
        assert_denied(kv(&hopeful).range(get(key)).await, key);
        assert_denied(kv(&hopeful).put(put(key)).await, key);
    }
    grant(&root, "hopeful", (READWRITE, "k", "")).await.unwrap();
    kv(&hopeful).range(get("k")).await.unwrap();
}

/// One watch on a stream of its own, with the answer to its request.
async fn watch(
    caller: &Caller,
    key: &str,
    range_end: &str,
) -> (pb::WatchResponse, Streaming<pb::WatchResponse>) {
    let create = pb::WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        ..Default::default()
    };
    let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
    // The client asks for nothing more; the watch goes on.
    let requests = tokio_stream::iter([pb::WatchRequest { request_union }]);
    let mut client = WatchClient::new(caller.channel.clone());
    let mut responses = client.watch(requests).await.unwrap().into_inner();
    let created = responses.message().await.unwrap().unwrap();
    assert!(created.created);
    (created, responses)
}

/// GHSA-xg4h-6gfc-h4m8: the right to one key let its holder watch everything from that key on.
#[tokio::test]
async fn a_watch_shows_no_key_beyond_the_right_to_read() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    user(&root, "reader", &[(READ, "k", "")]).await;
    let reader = server.named("reader").await;
    for range_end in ["\0", "l", "k\0\0", "\u{10ffff}"] {
        let (refused, mut rest) = watch(&reader, "k", range_end).await;
        assert_eq!((refused.watch_id, refused.canceled), (-1, true), "{range_end:?}");
        assert_eq!(
            refused.cancel_reason,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
        assert!(rest.message().await.unwrap().is_none());
    }
    let (empty, _) = watch(&reader, "k", "k").await;
    assert!(empty.canceled, "[k, k) is nothing to watch");
    let (all, _) = watch(&reader, "", "\0").await;
    assert!(all.canceled, "everything is more than k");
    // Contrast: the key itself, and only the key itself.
    for range_end in ["", "k\0"] {
        let (created, mut responses) = watch(&reader, "k", range_end).await;
        assert!(!created.canceled);
        for key in ["j", "k\0", "ka", "l", "k"] {
            put_as(&root, put(key)).await;
        }
        let response = responses.message().await.unwrap().unwrap();
        let keys: Vec<_> =
            response.events.iter().map(|event| event.kv.as_ref().unwrap().key.clone()).collect();
        assert_eq!(keys, ["k"]);
    }
}

/// etcd decides a watch once; whoever has lost the right keeps it as long as the stream lives.
#[tokio::test]
async fn a_right_that_was_taken_away_ends_open_watches_before_the_next_event() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    user(&root, "reader", &[(READ, "k", "")]).await;
    let reader = server.named("reader").await;
    let (created, mut responses) = watch(&reader, "k", "").await;
    put_as(&root, put("k")).await;
    assert_eq!(responses.message().await.unwrap().unwrap().events.len(), 1);
    let revoke = pb::AuthUserRevokeRoleRequest { name: "reader".to_owned(), role: "reader".to_owned() };
    AuthClient::new(root.channel.clone()).user_revoke_role(revoke).await.unwrap();
    assert_denied(kv(&reader).range(get("k")).await, "a read after the revoke was acknowledged");
    put_as(&root, put("k")).await;
    let last = responses.message().await.unwrap().unwrap();
    assert_eq!((last.watch_id, last.canceled, last.events.len()), (created.watch_id, true, 0));
    assert_eq!(last.cancel_reason, "etcdserver: permission denied");
    assert!(responses.message().await.unwrap().is_none());
}
