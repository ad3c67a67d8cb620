//! RPCs under the names that etcd itself gives to their counts and times.
//!
//! A duration here is that of the RPC: from its first byte to the answer. etcd's begins a little
//! later, behind its own checks.

use super::exposition::{Exposition, Kind};
use super::latency::{self, LatencyTotals};
use crate::rpc::meter::{CallKind, LEASE_TTL_BOUNDS, MethodTotals, RpcTotals, WorkTotals};

pub(super) fn write(page: &mut Exposition, totals: &RpcTotals) {
    work(page, totals);
    leases(page, &totals.work);
    streams(page, totals);
    durations(page, totals);
    clients(page, totals);
}

fn find<'a>(totals: &'a RpcTotals, service: &str, name: &str) -> Option<&'a MethodTotals> {
    totals.methods.iter().find(|method| method.service == service && method.method == name)
}

/// RPCs that were begun and have not ended.
fn open(method: &MethodTotals) -> u64 {
    let ended: u64 = method.handled.iter().map(|(_, count)| count).sum();
    method.started.saturating_sub(ended)
}

fn work(page: &mut Exposition, totals: &RpcTotals) {
    let WorkTotals { ranges, puts, deletes, txns, .. } = totals.work;
    let streamed = find(totals, "etcdserverpb.KV", "RangeStream").map_or(0, |it| it.succeeded.count());
    for (name, count, help) in [
        ("etcd_mvcc_range_total", ranges + streamed, "Ranges served, those in transactions too."),
        ("etcd_mvcc_put_total", puts, "Puts done, those in transactions too."),
        ("etcd_mvcc_delete_total", deletes, "Deletions done, those in transactions too."),
        ("etcd_mvcc_txn_total", txns, "Transactions of more than one operation done."),
    ] {
        page.single(name, Kind::Counter, help, count);
    }
}

fn leases(page: &mut Exposition, work: &WorkTotals) {
    let name = "etcd_debugging_lease_ttl_total";
    let bounds: [f64; LEASE_TTL_BOUNDS] = std::array::from_fn(|at| (1_u64 << at) as f64);
    page.family(name, Kind::Histogram, "Seconds that leases were granted for.");
    page.histogram(name, &[], &bounds, &work.lease_ttls, work.lease_seconds as f64);
}

fn streams(page: &mut Exposition, totals: &RpcTotals) {
    for (name, service, method, help) in [
        (
            "etcd_debugging_mvcc_watch_stream_total",
            "etcdserverpb.Watch",
            "Watch",
            "Watch streams that are open.",
        ),
        (
            "etcd_disk_defrag_inflight",
            "etcdserverpb.Maintenance",
            "Defragment",
            "Defragmentations under way.",
        ),
    ] {
        page.single(name, Kind::Gauge, help, find(totals, service, method).map_or(0, open));
    }
}

fn durations(page: &mut Exposition, totals: &RpcTotals) {
    let none = LatencyTotals::default();
    for (name, rpc, bounds, help) in [
        (
            "etcd_disk_backend_defrag_duration_seconds",
            "Defragment",
            &latency::DEFRAGMENTATION[..],
            "Seconds to rewrite the store without its holes.",
        ),
        ("etcd_mvcc_hash_duration_seconds", "Hash", &latency::HASH, "Seconds to hash the store."),
        ("etcd_mvcc_hash_rev_duration_seconds", "HashKV", &latency::HASH, "Seconds to hash a revision."),
    ] {
        page.family(name, Kind::Histogram, help);
        let latency = find(totals, "etcdserverpb.Maintenance", rpc).map_or(&none, |it| &it.succeeded);
        page.latency(name, &[], bounds, latency);
    }

    let name = "etcd_server_range_duration_seconds";
    page.family(name, Kind::Histogram, "Seconds to answer a range.");
    if let Some(range) = find(totals, "etcdserverpb.KV", "Range") {
        for (success, latency) in [("false", &range.failed), ("true", &range.succeeded)] {
            page.latency(name, &[("success", success)], &latency::RANGE, latency);
        }
    }

    let name = "etcd_server_request_duration_seconds";
    page.family(name, Kind::Histogram, "Seconds to answer a request that reads keys or changes anything.");
    let mut show = |request: &str, succeeded: &LatencyTotals, failed: &LatencyTotals| {
        for (success, latency) in [("false", failed), ("true", succeeded)] {
            // As in etcd, what never came is not there.
            if latency.count() > 0 {
                page.latency(name, &[("success", success), ("type", request)], &latency::REQUEST, latency);
            }
        }
    };
    let [read_only, read_only_failed] = &totals.read_only_txns;
    show("ReadonlyTxn", read_only, read_only_failed);
    for method in &totals.methods {
        if method.method == "Txn" {
            show("Txn", &method.succeeded.minus(read_only), &method.failed.minus(read_only_failed));
        } else if let Some(request) = request_type(method.service, method.method) {
            show(&request, &method.succeeded, &method.failed);
        }
    }
}

/// etcd's word for what an RPC proposes. None: it proposes nothing.
fn request_type(service: &str, method: &str) -> Option<String> {
    let name = match (service, method) {
        ("etcdserverpb.KV", "Compact") => "Compaction",
        ("etcdserverpb.KV", "Range" | "Put" | "DeleteRange")
        | ("etcdserverpb.Lease", "LeaseGrant" | "LeaseRevoke")
        | ("etcdserverpb.Maintenance", "Alarm")
        | ("etcdserverpb.Auth", "Authenticate" | "AuthEnable" | "AuthDisable" | "AuthStatus") => method,
        ("etcdserverpb.Auth", _) => return Some(format!("Auth{method}")),
        _ => return None,
    };
    Some(name.to_owned())
}

fn clients(page: &mut Exposition, totals: &RpcTotals) {
    let name = "etcd_server_client_requests_total";
    page.family(name, Kind::Counter, "Requests by the version that their client says it is of.");
    for ((version, kind), count) in &totals.clients {
        let kind = match kind {
            CallKind::Unary => "unary",
            CallKind::Stream => "stream",
        };
        page.labelled(name, &[("client_api_version", version), ("type", kind)], count);
    }
}
