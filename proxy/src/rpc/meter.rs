//! Counts of what each RPC did: what `/metrics` shows as `grpc_server_*`.
//!
//! Each serving thread has counters of its own, so that counting costs no traffic between cores;
//! who shows them adds them up.

mod clients;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::HeaderValue;
use keygate_core::{Answer, Operation};
use tonic::Code;

pub(crate) use clients::CallKind;
pub(crate) use work::{LEASE_TTL_BOUNDS, WorkTotals};

use super::deadline::Deadline;
use super::methods::{self, MethodId};
use crate::metrics::{Latency, LatencyTotals};
use clients::Clients;
use work::Work;

/// gRPC's codes are 0 to 16.
const CODES: usize = 17;

/// The counters of one serving thread.
#[derive(Debug)]
pub struct RpcCounters {
    methods: Vec<MethodCounters>,
    /// Those of the Txn RPC that only read are counted here once more: etcd tells them apart.
    read_only_txns: Latencies,
    work: Work,
    clients: Clients,
    proposals_failed: AtomicU64,
}

#[derive(Debug, Default)]
struct MethodCounters {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES],
    latency: Latencies,
}

/// Of unary RPCs the time to the answer, of streams how long they lasted.
#[derive(Debug, Default)]
struct Latencies {
    succeeded: Latency,
    failed: Latency,
}

/// One RPC's counts over all threads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MethodTotals {
    /// E.g. `etcdserverpb.KV`.
    pub(crate) service: &'static str,
    pub(crate) method: &'static str,
    /// `unary`, `client_stream`, `server_stream` or `bidi_stream`.
    pub(crate) kind: &'static str,
    pub(crate) started: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// By the name of the code as etcd's metrics spell it. All codes are listed.
    pub(crate) handled: Vec<(&'static str, u64)>,
    pub(crate) succeeded: LatencyTotals,
    pub(crate) failed: LatencyTotals,
}

/// What all threads counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RpcTotals {
    /// In the order of the services.
    pub(crate) methods: Vec<MethodTotals>,
    /// Succeeded and failed Txn RPCs that only read. They are among those of the method, too.
    pub(crate) read_only_txns: [LatencyTotals; 2],
    pub(crate) work: WorkTotals,
    /// RPCs by the version that the client says it is of.
    pub(crate) clients: BTreeMap<(String, CallKind), u64>,
    /// Writes whose client was not told what became of them.
    pub(crate) proposals_failed: u64,
}

impl Default for RpcCounters {
    fn default() -> Self {
        Self {
            methods: methods::METHODS.iter().map(|_| MethodCounters::default()).collect(),
            read_only_txns: Latencies::default(),
            work: Work::default(),
            clients: Clients::default(),
            proposals_failed: AtomicU64::new(0),
        }
    }
}

impl RpcCounters {
    /// Adds up what the threads counted.
    pub(crate) fn totals(threads: &[Arc<Self>]) -> RpcTotals {
        let methods = methods::METHODS.iter().enumerate().map(|(index, method)| {
            let add = |of: &dyn Fn(&MethodCounters) -> &AtomicU64| {
                threads.iter().map(|thread| of(&thread.methods[index]).load(Ordering::Relaxed)).sum::<u64>()
            };
            let [succeeded, failed] = sum(threads, |thread| &thread.methods[index].latency);
            let (service, name) = method.path.trim_start_matches('/').split_once('/').unwrap_or_default();
            MethodTotals {
                service,
                method: name,
                kind: method.metric_kind(),
                started: add(&|counters| &counters.started),
                received: add(&|counters| &counters.received),
                sent: add(&|counters| &counters.sent),
                handled: (0..CODES)
                    .map(|code| (CODE_NAMES[code], add(&|counters| &counters.handled[code])))
                    .collect(),
                succeeded,
                failed,
            }
        });
        let mut totals = RpcTotals {
            methods: methods.collect(),
            read_only_txns: sum(threads, |thread| &thread.read_only_txns),
            work: WorkTotals::default(),
            clients: BTreeMap::new(),
            proposals_failed: 0,
        };
        for thread in threads {
            thread.work.add_to(&mut totals.work);
            thread.clients.add_to(&mut totals.clients);
            totals.proposals_failed += thread.proposals_failed.load(Ordering::Relaxed);
        }
        totals
    }

    /// One more request, of a client that says it is of `version`.
    pub(super) fn asked(&self, version: Option<&HeaderValue>, method: MethodId) {
        let kind = if method.method().metric_kind() == "unary" { CallKind::Unary } else { CallKind::Stream };
        self.clients.count(version, kind);
    }
}

fn sum(threads: &[Arc<RpcCounters>], of: impl Fn(&RpcCounters) -> &Latencies) -> [LatencyTotals; 2] {
    let mut totals = [LatencyTotals::default(), LatencyTotals::default()];
    for thread in threads {
        totals[0].add(&of(thread).succeeded);
        totals[1].add(&of(thread).failed);
    }
    totals
}

const CODE_NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Counts one RPC from its start to its end. One that is dropped before its end was cancelled, or too
/// late.
pub(super) struct Meter {
    counters: Arc<RpcCounters>,
    index: usize,
    start: Instant,
    nature: Nature,
    deadline: Option<Deadline>,
    open: bool,
}

/// What there is to say of an RPC beyond its method.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nature {
    Plain,
    ReadOnlyTxn,
    Write,
}

/// Counts the messages that a stream receives.
pub(super) struct Received {
    counters: Arc<RpcCounters>,
    index: usize,
}

impl Meter {
    pub(super) fn start(counters: &Arc<RpcCounters>, method: MethodId, deadline: Option<Deadline>) -> Self {
        let meter = Self {
            counters: counters.clone(),
            index: method.index(),
            start: Instant::now(),
            nature: Nature::Plain,
            deadline,
            open: true,
        };
        meter.counts().started.fetch_add(1, Ordering::Relaxed);
        meter
    }

    pub(super) fn received(&self) {
        self.counts().received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received_counter(&self) -> Received {
        Received { counters: self.counters.clone(), index: self.index }
    }

    /// What the RPC asks for, before it is done.
    pub(super) fn begins<V>(&mut self, operation: &Operation<V>) {
        self.nature = match operation {
            Operation::Txn(txn) if txn.is_read_only() => Nature::ReadOnlyTxn,
            operation if operation.is_write() => Nature::Write,
            _ => Nature::Plain,
        };
    }

    /// What came of it.
    pub(super) fn done<V>(&self, answer: &Answer<V>) {
        self.counters.work.done(answer);
    }

    /// A write whose fate is not known: it was waited for too long.
    pub(super) fn lost(&self) {
        if self.nature == Nature::Write {
            self.counters.proposals_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn sent(&self) {
        self.counts().sent.fetch_add(1, Ordering::Relaxed);
    }

    /// The RPC's end. What comes after it is not counted.
    pub(super) fn handled(&mut self, code: Code) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let took = self.start.elapsed();
        let counts = self.counts();
        counts.handled[code as usize].fetch_add(1, Ordering::Relaxed);
        counts.latency.of(code).record(took);
        if self.nature == Nature::ReadOnlyTxn {
            self.counters.read_only_txns.of(code).record(took);
        }
    }

    fn counts(&self) -> &MethodCounters {
        &self.counters.methods[self.index]
    }
}

impl Latencies {
    fn of(&self, code: Code) -> &Latency {
        if code == Code::Ok { &self.succeeded } else { &self.failed }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        self.lost();
        let late = self.deadline.is_some_and(Deadline::has_passed);
        self.handled(if late { Code::DeadlineExceeded } else { Code::Cancelled });
    }
}

impl Received {
    pub(super) fn count(&self) {
        self.counters.methods[self.index].received.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One put that succeeds and one that does not.
    pub(crate) fn some_traffic(counters: &Arc<RpcCounters>) {
        for code in [Code::Ok, Code::PermissionDenied] {
            Meter::start(counters, methods::find("/etcdserverpb.KV/Put").unwrap(), None).handled(code);
        }
    }

    fn put_totals(counters: &Arc<RpcCounters>) -> MethodTotals {
        let totals = RpcCounters::totals(std::slice::from_ref(counters));
        totals.methods.into_iter().find(|total| total.method == "Put").unwrap()
    }

    fn handled(totals: &MethodTotals, code: &str) -> u64 {
        totals.handled.iter().find(|(name, _)| *name == code).unwrap().1
    }

    #[test]
    fn an_rpc_is_counted_once_by_its_code() {
        let counters = Arc::new(RpcCounters::default());
        let method = methods::find("/etcdserverpb.KV/Put").unwrap();
        let mut meter = Meter::start(&counters, method, None);
        meter.received();
        meter.handled(Code::PermissionDenied);
        drop(meter);
        let totals = put_totals(&counters);
        assert_eq!((totals.service, totals.kind), ("etcdserverpb.KV", "unary"));
        assert_eq!((totals.started, totals.received, totals.sent), (1, 1, 0));
        assert_eq!(handled(&totals, "PermissionDenied"), 1);
        assert_eq!(totals.handled.iter().map(|(_, count)| count).sum::<u64>(), 1);
        assert_eq!((totals.succeeded.count(), totals.failed.count()), (0, 1));
    }

    #[test]
    fn an_rpc_whose_client_left_counts_as_cancelled() {
        let counters = Arc::new(RpcCounters::default());
        drop(Meter::start(&counters, methods::find("/etcdserverpb.KV/Put").unwrap(), None));
        assert_eq!(handled(&put_totals(&counters), "Canceled"), 1);
    }

    #[test]
    fn a_write_that_nobody_waits_for_any_more_is_a_failed_proposal_and_a_read_is_not() {
        let counters = Arc::new(RpcCounters::default());
        let failed = || RpcCounters::totals(std::slice::from_ref(&counters)).proposals_failed;
        let method = methods::find("/etcdserverpb.KV/DeleteRange").unwrap();
        let delete = keygate_core::DeleteRange {
            range: keygate_core::KeyRange::Single(bytes::Bytes::from_static(b"k")),
            prev_kv: false,
        };
        let mut meter = Meter::start(&counters, method, None);
        meter.begins(&Operation::<keygate_core::Plaintext>::DeleteRange(delete.clone()));
        drop(meter);
        assert_eq!(failed(), 1);
        let mut meter = Meter::start(&counters, method, None);
        meter.begins(&Operation::<keygate_core::Plaintext>::DeleteRange(delete));
        meter.handled(Code::Ok);
        drop(meter);
        let mut meter = Meter::start(&counters, methods::find("/etcdserverpb.Auth/UserList").unwrap(), None);
        meter.begins(&Operation::<keygate_core::Plaintext>::UserList);
        drop(meter);
        assert_eq!(failed(), 1);
    }

    #[test]
    fn a_txn_that_only_reads_is_counted_apart() {
        let counters = Arc::new(RpcCounters::default());
        let mut meter = Meter::start(&counters, methods::find("/etcdserverpb.KV/Txn").unwrap(), None);
        let txn = keygate_core::Txn { compare: Vec::new(), success: Vec::new(), failure: Vec::new() };
        meter.begins(&Operation::<keygate_core::Plaintext>::Txn(txn));
        meter.handled(Code::Ok);
        let totals = RpcCounters::totals(std::slice::from_ref(&counters));
        assert_eq!(totals.read_only_txns[0].count(), 1);
        let txn = totals.methods.iter().find(|total| total.method == "Txn").unwrap();
        assert_eq!(txn.succeeded.minus(&totals.read_only_txns[0]).count(), 0);
    }

    #[test]
    fn an_rpc_that_outlived_its_deadline_is_counted_as_that() {
        let counters = Arc::new(RpcCounters::default());
        let method = methods::find("/etcdserverpb.KV/Put").unwrap();
        for timeout in ["1n", "1n", "1H"] {
            let deadline = Deadline::read(&HeaderValue::from_static(timeout)).unwrap();
            drop(Meter::start(&counters, method, deadline));
        }
        let totals = put_totals(&counters);
        assert_eq!((handled(&totals, "DeadlineExceeded"), handled(&totals, "Canceled")), (2, 1));
    }
}
