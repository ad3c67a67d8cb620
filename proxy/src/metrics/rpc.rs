//! RPCs: started, handled by code, messages, durations. Every method and every code is there from
//! the start with zero, as in etcd.

use super::exposition::{Exposition, Kind};
use super::latency;
use crate::rpc::meter::{MethodTotals, RpcTotals};

type Label = (&'static str, &'static str);

fn labels(method: &MethodTotals) -> [Label; 3] {
    [("grpc_method", method.method), ("grpc_service", method.service), ("grpc_type", method.kind)]
}

pub(super) fn write(page: &mut Exposition, totals: &RpcTotals) {
    page.family("grpc_server_started_total", Kind::Counter, "RPCs started on the server.");
    for method in &totals.methods {
        page.labelled("grpc_server_started_total", &labels(method), method.started);
    }
    page.family("grpc_server_handled_total", Kind::Counter, "RPCs completed, whatever their outcome.");
    for method in &totals.methods {
        let [name, service, kind] = labels(method);
        for (code, handled) in &method.handled {
            let labels = [("grpc_code", *code), name, service, kind];
            page.labelled("grpc_server_handled_total", &labels, handled);
        }
    }
    page.family("grpc_server_msg_received_total", Kind::Counter, "Messages received from clients.");
    for method in &totals.methods {
        page.labelled("grpc_server_msg_received_total", &labels(method), method.received);
    }
    page.family("grpc_server_msg_sent_total", Kind::Counter, "Messages sent to clients.");
    for method in &totals.methods {
        page.labelled("grpc_server_msg_sent_total", &labels(method), method.sent);
    }
    let name = "grpc_server_handling_seconds";
    page.family(name, Kind::Histogram, "Seconds from the start of an RPC to its end.");
    for method in &totals.methods {
        let all = method.succeeded.plus(&method.failed);
        page.latency(name, &labels(method), &latency::HANDLING, &all);
    }
}
