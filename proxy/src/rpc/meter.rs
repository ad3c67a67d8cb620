//! Counts of what each RPC did: what `/metrics` shows as `grpc_server_*`.
//!
//! Each serving thread has counters of its own, so that counting costs no traffic between cores;
//! who shows them adds them up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tonic::Code;

use super::methods::{self, MethodId};

/// gRPC's codes are 0 to 16.
const CODES: usize = 17;

/// Upper bounds of the latency histogram: what Prometheus clients use when nobody says otherwise.
pub const LATENCY_BUCKETS: [Duration; 11] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// The counters of one serving thread.
#[derive(Debug)]
pub struct RpcCounters {
    methods: Vec<MethodCounters>,
}

#[derive(Debug, Default)]
struct MethodCounters {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES],
    /// Not cumulative; the last one holds what is above all bounds.
    latency: [AtomicU64; LATENCY_BUCKETS.len() + 1],
    latency_nanos: AtomicU64,
}

/// One RPC's counts over all threads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MethodTotals {
    /// E.g. `etcdserverpb.KV`.
    pub service: &'static str,
    pub method: &'static str,
    /// `unary`, `client_stream`, `server_stream` or `bidi_stream`.
    pub kind: &'static str,
    pub started: u64,
    pub received: u64,
    pub sent: u64,
    /// By the name of the code as etcd's metrics spell it. All codes are listed.
    pub handled: Vec<(&'static str, u64)>,
    /// Counts by [`LATENCY_BUCKETS`], not cumulative, and one more for what is above. Of unary RPCs
    /// the time to the answer, of streams how long they lasted.
    pub latency: Vec<u64>,
    pub latency_sum: Duration,
}

impl Default for RpcCounters {
    fn default() -> Self {
        Self { methods: methods::METHODS.iter().map(|_| MethodCounters::default()).collect() }
    }
}

impl RpcCounters {
    /// Adds up what the threads counted, in the order of the services.
    pub fn totals(threads: &[Arc<Self>]) -> Vec<MethodTotals> {
        let add = |of: &dyn Fn(&MethodCounters) -> &AtomicU64, index: usize| {
            threads.iter().map(|thread| of(&thread.methods[index]).load(Ordering::Relaxed)).sum::<u64>()
        };
        let totals = methods::METHODS.iter().enumerate().map(|(index, method)| {
            let (service, name) = method.path.trim_start_matches('/').split_once('/').unwrap_or_default();
            MethodTotals {
                service,
                method: name,
                kind: method.metric_kind(),
                started: add(&|counters| &counters.started, index),
                received: add(&|counters| &counters.received, index),
                sent: add(&|counters| &counters.sent, index),
                handled: (0..CODES)
                    .map(|code| (CODE_NAMES[code], add(&|counters| &counters.handled[code], index)))
                    .collect(),
                latency: (0..=LATENCY_BUCKETS.len())
                    .map(|bucket| add(&|counters| &counters.latency[bucket], index))
                    .collect(),
                latency_sum: Duration::from_nanos(add(&|counters| &counters.latency_nanos, index)),
            }
        });
        totals.collect()
    }
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

/// Counts one RPC from its start to its end. One that is dropped before its end was cancelled.
pub(super) struct Meter {
    counters: Arc<RpcCounters>,
    index: usize,
    start: Instant,
    open: bool,
}

/// Counts the messages that a stream receives.
pub(super) struct Received {
    counters: Arc<RpcCounters>,
    index: usize,
}

impl Meter {
    pub(super) fn start(counters: &Arc<RpcCounters>, method: MethodId) -> Self {
        let meter =
            Self { counters: counters.clone(), index: method.index(), start: Instant::now(), open: true };
        meter.counts().started.fetch_add(1, Ordering::Relaxed);
        meter
    }

    pub(super) fn received(&self) {
        self.counts().received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn received_counter(&self) -> Received {
        Received { counters: self.counters.clone(), index: self.index }
    }

    pub(super) fn sent(&self) {
        self.counts().sent.fetch_add(1, Ordering::Relaxed);
    }

    /// The RPC's end. What comes after it is not counted.
    pub(super) fn handled(&mut self, code: Code) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let counts = self.counts();
        counts.handled[code as usize].fetch_add(1, Ordering::Relaxed);
        let took = self.start.elapsed();
        let bucket = LATENCY_BUCKETS.partition_point(|bound| *bound < took);
        counts.latency[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        counts.latency_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn counts(&self) -> &MethodCounters {
        &self.counters.methods[self.index]
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.handled(Code::Cancelled);
    }
}

impl Received {
    pub(super) fn count(&self) {
        self.counters.methods[self.index].received.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_totals(counters: &Arc<RpcCounters>) -> MethodTotals {
        let totals = RpcCounters::totals(std::slice::from_ref(counters));
        totals.into_iter().find(|total| total.method == "Put").unwrap()
    }

    fn handled(totals: &MethodTotals, code: &str) -> u64 {
        totals.handled.iter().find(|(name, _)| *name == code).unwrap().1
    }

    #[test]
    fn an_rpc_is_counted_once_by_its_code() {
        let counters = Arc::new(RpcCounters::default());
        let method = methods::find("/etcdserverpb.KV/Put").unwrap();
        let mut meter = Meter::start(&counters, method);
        meter.received();
        meter.handled(Code::PermissionDenied);
        drop(meter);
        let totals = put_totals(&counters);
        assert_eq!((totals.service, totals.kind), ("etcdserverpb.KV", "unary"));
        assert_eq!((totals.started, totals.received, totals.sent), (1, 1, 0));
        assert_eq!(handled(&totals, "PermissionDenied"), 1);
        assert_eq!(totals.handled.iter().map(|(_, count)| count).sum::<u64>(), 1);
        assert_eq!(totals.latency.iter().sum::<u64>(), 1);
    }

    #[test]
    fn an_rpc_whose_client_left_counts_as_cancelled() {
        let counters = Arc::new(RpcCounters::default());
        drop(Meter::start(&counters, methods::find("/etcdserverpb.KV/Put").unwrap()));
        assert_eq!(handled(&put_totals(&counters), "Canceled"), 1);
    }
}
