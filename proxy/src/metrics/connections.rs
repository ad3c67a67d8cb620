//! Connections: how many there are, and why some were not let in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::exposition::{Exposition, Kind};

#[derive(Default)]
pub struct ConnectionMetrics {
    pub(crate) accepted: AtomicU64,
    pub(crate) closed: AtomicU64,
    /// TLS or its deadline.
    pub(crate) failed_handshakes: AtomicU64,
    /// Closed to make room for others before they proved who they are.
    pub(crate) evicted: AtomicU64,
    /// Put on the slow lane, each time.
    pub(crate) slowed: AtomicU64,
    /// The listener could not take a connection: mostly, no file descriptors were left.
    pub(crate) accept_errors: AtomicU64,
}

impl ConnectionMetrics {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn write(&self, page: &mut Exposition) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let closed = read(&self.closed);
        let open = read(&self.accepted).saturating_sub(closed);
        page.single("keygate_connections_open", Kind::Gauge, "Connections of clients.", open);
        for (name, help, counter) in [
            ("keygate_connections_accepted_total", "Connections accepted.", &self.accepted),
            (
                "keygate_handshakes_failed_total",
                "Connections that failed to finish TLS in time.",
                &self.failed_handshakes,
            ),
            (
                "keygate_connections_evicted_total",
                "Connections closed to make room, without having proved who they are.",
                &self.evicted,
            ),
            (
                "keygate_connections_slowed_total",
                "Times that a connection was put on the slow lane: it made more work than it was worth.",
                &self.slowed,
            ),
            ("keygate_accept_errors_total", "Failures to accept a connection.", &self.accept_errors),
        ] {
            page.single(name, Kind::Counter, help, read(counter));
        }
    }
}

/// Bytes of one serving thread's connections, as HTTP frames them, without TLS.
#[derive(Default)]
pub struct Traffic {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    /// Connections that were closed for it.
    pub(crate) floods: AtomicU64,
}

pub(super) fn write_traffic(page: &mut Exposition, threads: &[Arc<Traffic>]) {
    let sum = |of: fn(&Traffic) -> &AtomicU64| {
        threads.iter().map(|thread| of(thread).load(Ordering::Relaxed)).sum::<u64>()
    };
    for (name, help, bytes) in [
        (
            "etcd_network_client_grpc_received_bytes_total",
            "Bytes received from clients.",
            sum(|it| &it.received),
        ),
        ("etcd_network_client_grpc_sent_bytes_total", "Bytes sent to clients.", sum(|it| &it.sent)),
        (
            "keygate_connections_flooding_total",
            "Connections closed because they sent HTTP/2 frames that carry nothing without end.",
            sum(|it| &it.floods),
        ),
    ] {
        page.single(name, Kind::Counter, help, bytes);
    }
}
