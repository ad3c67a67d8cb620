//! The page of metrics under traffic: what etcd's alerts and dashboards ask for is there, and moves.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use keygate_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use support::{Caller, Server, Shown};
use tokio::sync::mpsc;
use tonic::Streaming;

/// What the expressions of etcd's published alerts and dashboard select, of a cluster of one member:
/// one that has no other member to talk to has no series about that, there and here.
const ASKED_FOR: [&str; 27] = [
    "etcd_server_has_leader",
    "etcd_server_is_leader",
    "etcd_server_leader_changes_seen_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_pending",
    "etcd_server_proposals_failed_total",
    "etcd_server_quota_backend_bytes",
    "etcd_server_slow_apply_total",
    "etcd_server_slow_read_indexes_total",
    "etcd_server_heartbeat_send_failures_total",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "etcd_disk_wal_fsync_duration_seconds_bucket",
    "etcd_disk_backend_commit_duration_seconds_bucket",
    "etcd_network_client_grpc_received_bytes_total",
    "etcd_network_client_grpc_sent_bytes_total",
    "grpc_server_started_total",
    "grpc_server_handled_total",
    "grpc_server_handling_seconds_bucket",
    "etcd_server_request_duration_seconds_bucket",
    "etcd_server_apply_duration_seconds_bucket",
    "etcd_server_range_duration_seconds_bucket",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
];

type Samples = HashMap<String, f64>;

async fn samples(server: &Server) -> Samples {
    let page = server.page("/metrics").await;
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// The sum of all series of this name.
fn all(samples: &Samples, name: &str) -> f64 {
    let of = samples.iter().filter(|(series, _)| series.split('{').next() == Some(name));
    of.map(|(_, value)| value).sum()
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), ..Default::default() }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// Two puts, two ranges, one of each in a txn; a txn that only reads; a deletion, a lease, a hash, a
/// defragmentation; a watch that stays open; a range that nobody may do.
async fn traffic(
    root: &Caller,
    nobody: &Caller,
) -> (mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>) {
    let op = |request| pb::RequestOp { request: Some(request) };
    let range_op = || op(pb::request_op::Request::RequestRange(get("k")));
    let put_op = op(pb::request_op::Request::RequestPut(put("n")));
    let mut kv = KvClient::new(root.channel.clone());
    let mut versioned = tonic::Request::new(put("k"));
    versioned.metadata_mut().insert("client-api-version", "3.7".parse().unwrap());
    kv.put(versioned).await.unwrap();
    kv.range(get("k")).await.unwrap();
    kv.txn(pb::TxnRequest { success: vec![put_op, range_op()], ..Default::default() }).await.unwrap();
    kv.txn(pb::TxnRequest { success: vec![range_op()], ..Default::default() }).await.unwrap();
    kv.delete_range(pb::DeleteRangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
    let mut lease = LeaseClient::new(root.channel.clone());
    lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.unwrap();
    let mut maintenance = MaintenanceClient::new(root.channel.clone());
    maintenance.hash_kv(pb::HashKvRequest::default()).await.unwrap();
    maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    AuthClient::new(root.channel.clone())
        .role_add(pb::AuthRoleAddRequest { name: "r".into() })
        .await
        .unwrap();
    KvClient::new(nobody.channel.clone()).range(get("k")).await.unwrap_err();
    let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
    let request =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let (asking, requests) = mpsc::channel(1);
    asking.send(request).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut watch = WatchClient::new(root.channel.clone()).watch(requests).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    (asking, watch)
}

#[tokio::test]
async fn what_etcds_alerts_and_dashboards_ask_for_is_there_and_moves_with_traffic() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let nobody = server.caller(Shown::default()).await;
    let before = samples(&server).await;
    let watch = traffic(&root, &nobody).await;
    // The store is written behind: what the traffic changed gathers there for a moment.
    let commits = "etcd_disk_backend_commit_duration_seconds_count";
    let mut after = samples(&server).await;
    for _ in 0..100 {
        if after.get(commits) > before.get(commits) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        after = samples(&server).await;
    }
    for name in ASKED_FOR {
        assert!(after.keys().any(|series| series.split('{').next() == Some(name)), "missing: {name}");
    }
    let grew = |series: &str| {
        after.get(series).unwrap_or_else(|| panic!("missing: {series}")) - before.get(series).unwrap_or(&0.0)
    };
    for (series, by) in [
        ("etcd_mvcc_put_total", 2.0),
        ("etcd_mvcc_range_total", 3.0),
        ("etcd_mvcc_delete_total", 1.0),
        ("etcd_mvcc_txn_total", 1.0),
        ("etcd_debugging_mvcc_watch_stream_total", 1.0),
        ("etcd_debugging_mvcc_watcher_total", 1.0),
        ("etcd_debugging_lease_granted_total", 1.0),
        ("etcd_debugging_lease_ttl_total_count", 1.0),
        ("etcd_debugging_lease_ttl_total_sum", 60.0),
        ("etcd_mvcc_hash_rev_duration_seconds_count", 1.0),
        ("etcd_disk_backend_defrag_duration_seconds_count", 1.0),
        ("etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"unary\"}", 1.0),
        ("etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"stream\"}", 1.0),
        ("etcd_server_range_duration_seconds_count{success=\"true\"}", 1.0),
        ("etcd_server_range_duration_seconds_count{success=\"false\"}", 1.0),
        ("etcd_server_request_duration_seconds_count{success=\"true\",type=\"Put\"}", 1.0),
        ("etcd_server_request_duration_seconds_count{success=\"true\",type=\"Txn\"}", 1.0),
        ("etcd_server_request_duration_seconds_count{success=\"true\",type=\"ReadonlyTxn\"}", 1.0),
        ("etcd_server_request_duration_seconds_count{success=\"true\",type=\"AuthRoleAdd\"}", 1.0),
        ("etcd_server_request_duration_seconds_count{success=\"false\",type=\"Range\"}", 1.0),
        ("etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"}", 1.0),
        ("etcd_server_apply_duration_seconds_count{op=\"LeaseGrant\",success=\"true\",version=\"v3\"}", 1.0),
        (
            "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}",
            1.0,
        ),
    ] {
        assert_eq!(grew(series), by, "{series}");
    }
    for series in [
        "etcd_server_proposals_committed_total",
        "etcd_server_proposals_applied_total",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_wal_fsync_duration_seconds_sum",
        "etcd_disk_backend_commit_duration_seconds_count",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
    ] {
        assert!(grew(series) > 0.0, "{series}");
    }
    assert!(all(&after, "etcd_server_apply_duration_seconds_sum") > 0.0);
    // Nothing on the page was invented for a runtime that is not here.
    assert!(after.keys().all(|series| !series.starts_with("go_")));
    // A watch that its client ends was cancelled, and is open no more.
    drop(watch);
    let canceled = "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"Watch\",grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"}";
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < Duration::from_secs(60), "the watch is still open");
        let last = samples(&server).await;
        if last["etcd_debugging_mvcc_watch_stream_total"] == 0.0 {
            assert_eq!(last[canceled], 1.0);
            break;
        }
        tokio::task::yield_now().await;
    }
}
