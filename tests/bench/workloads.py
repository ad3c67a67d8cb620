"""What is measured, and the bar that each row has to pass.

A bar compares Keygate with everything on (TLS and authorization) against the better of the plain etcds of the same
run. For throughput the ratio has to reach the bar; for memory and restart time it must not exceed it.
"""

from dataclasses import dataclass
from typing import Optional

# Sizes of the throughput rows: 16-byte keys and 256-byte values are what etcd's own benchmark uses.
KEYS = 100_000
KEY_BYTES = 16
VALUE_BYTES = 256
SCAN_KEYS = 1_000
WATCHERS = 100


@dataclass(frozen=True)
class Workload:
    """One row of throughput. `operation` is the load generator's word for it."""

    id: str
    title: str
    operation: str
    connections: int
    clients: int
    bar: Optional[float]

    def arguments(self):
        return [
            self.operation,
            "--connections", str(self.connections),
            "--clients", str(self.clients),
            "--watchers", str(WATCHERS),
            "--scan", str(SCAN_KEYS),
        ]


@dataclass(frozen=True)
class Footprint:
    """One row that is read off the process: lower is better. `field` names it in the results."""

    id: str
    title: str
    field: str
    unit: str
    bar: float


# Reads come before the writes that grow the history, and the leases that stay behind come last.
WORKLOADS = [
    Workload("range-1", "range, 1 key", "range", 1, 1, 1.3),
    Workload("range-100", "range, 1 key", "range", 10, 100, 1.8),
    Workload("range-1000", "range, 1 key", "range", 100, 1000, 1.8),
    Workload("prefix", f"range, {SCAN_KEYS:,} keys", "prefix", 10, 20, 2.0),
    Workload("put-1", "put", "put", 1, 1, 0.8),
    Workload("put-100", "put", "put", 10, 100, 1.3),
    Workload("put-1000", "put", "put", 100, 1000, 1.3),
    Workload("txn", "txn, compare and put", "txn", 10, 100, 1.3),
    Workload("mix", "mix, 80 range / 20 put", "mix", 10, 100, 2.0),
    Workload("watch-1", f"watch, {WATCHERS} watchers, 1 writer", "watch", 10, 1, 1.0),
    Workload("watch-20", f"watch, {WATCHERS} watchers, 20 writers", "watch", 10, 20, 1.3),
    Workload("keepalive", "lease keepalive", "lease-keepalive", 10, 100, 1.5),
    Workload("lease-grant", "lease grant", "lease-grant", 10, 100, None),
]

FOOTPRINTS = [
    Footprint("rss", "memory after loading", "rss_mib", "MiB", 1.2),
    Footprint("restart", "restart to ready", "restart_seconds", "s", 1.0),
]

IDS = [row.id for row in WORKLOADS] + [row.id for row in FOOTPRINTS]
