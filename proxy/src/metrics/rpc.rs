//! RPCs: started, handled by code, messages, durations. Every method and every code is there from
//! the start with zero, as in etcd.

use std::sync::Arc;

use super::exposition::{Exposition, Kind};
use crate::rpc::meter::{LATENCY_BUCKETS, MethodTotals, RpcCounters};

type Label = (&'static str, &'static str);

fn labels(method: &MethodTotals) -> [Label; 3] {
    [("grpc_method", method.method), ("grpc_service", method.service), ("grpc_type", method.kind)]
}

pub(super) fn write(page: &mut Exposition, threads: &[Arc<RpcCounters>]) {
    let methods = RpcCounters::totals(threads);
    page.family("grpc_server_started_total", Kind::Counter, "RPCs started on the server.");
    for method in &methods {
        page.labelled("grpc_server_started_total", &labels(method), method.started);
    }
    page.family("grpc_server_handled_total", Kind::Counter, "RPCs completed, whatever their outcome.");
    for method in &methods {
        let [name, service, kind] = labels(method);
        for (code, handled) in &method.handled {
            let labels = [("grpc_code", *code), name, service, kind];
            page.labelled("grpc_server_handled_total", &labels, handled);
        }
    }
    page.family("grpc_server_msg_received_total", Kind::Counter, "Messages received from clients.");
    for method in &methods {
        page.labelled("grpc_server_msg_received_total", &labels(method), method.received);
    }
    page.family("grpc_server_msg_sent_total", Kind::Counter, "Messages sent to clients.");
    for method in &methods {
        page.labelled("grpc_server_msg_sent_total", &labels(method), method.sent);
    }
    let bounds = LATENCY_BUCKETS.map(|bound| bound.as_secs_f64());
    let name = "grpc_server_handling_seconds";
    page.family(name, Kind::Histogram, "Seconds from the start of an RPC to its end.");
    for method in &methods {
        page.histogram(name, &labels(method), &bounds, &method.latency, method.latency_sum.as_secs_f64());
    }
    requests(page, &methods);
}

/// etcd's counters that count RPCs under other names.
fn requests(page: &mut Exposition, methods: &[MethodTotals]) {
    let of = |service: &str, name: &str| {
        methods.iter().find(|method| method.service == service && method.method == name)
    };
    let done =
        |method: &MethodTotals| method.handled.iter().find(|(code, _)| *code == "OK").map_or(0, |it| it.1);
    for (name, method, help) in [
        ("etcd_mvcc_range_total", "Range", "Ranges served."),
        ("etcd_mvcc_put_total", "Put", "Puts done."),
        ("etcd_mvcc_delete_total", "DeleteRange", "Deletions done."),
        ("etcd_mvcc_txn_total", "Txn", "Transactions done."),
    ] {
        page.single(name, Kind::Counter, help, of("etcdserverpb.KV", method).map_or(0, done));
    }
    let streams = of("etcdserverpb.Watch", "Watch").map_or(0, |watch| {
        let ended: u64 = watch.handled.iter().map(|(_, count)| count).sum();
        watch.started.saturating_sub(ended)
    });
    page.single(
        "etcd_debugging_mvcc_watch_stream_total",
        Kind::Gauge,
        "Watch streams that are open.",
        streams,
    );
}
