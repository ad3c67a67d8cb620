//! The engine's figures under the names that etcd's dashboards and alerts know.

use keygate_engine::{DURATION_BUCKETS, DurationHistogram};

use super::Moment;
use super::exposition::{Exposition, Kind};

pub(super) fn write(page: &mut Exposition, moment: &Moment) {
    let stats = &moment.engine;
    let flag = u8::from;
    let gauges: [(&str, &str, u64); 14] = [
        ("etcd_server_has_leader", "Whether there is a leader.", flag(stats.has_leader).into()),
        ("etcd_server_is_leader", "Whether this member is the leader.", flag(stats.is_leader).into()),
        // One member: it never learns from another.
        ("etcd_server_is_learner", "Whether this member is a learner.", 0),
        (
            "etcd_server_proposals_committed_total",
            "Index of the last committed proposal.",
            stats.proposals_committed,
        ),
        (
            "etcd_server_proposals_applied_total",
            "Index of the last applied proposal.",
            stats.proposals_applied,
        ),
        ("etcd_server_proposals_pending", "Proposals that wait to be committed.", stats.proposals_pending),
        ("etcd_mvcc_db_total_size_in_bytes", "Bytes of the store's file.", stats.size.total),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "Bytes of the store's file in use.", stats.size.in_use),
        (
            "etcd_server_quota_backend_bytes",
            "Size of the store at which writes stop; 0 for none.",
            moment.quota_bytes.unwrap_or(0),
        ),
        ("etcd_debugging_mvcc_keys_total", "Keys.", stats.keys),
        ("etcd_debugging_mvcc_watcher_total", "Watchers.", stats.watchers),
        ("etcd_debugging_mvcc_slow_watcher_total", "Watchers that are behind.", stats.slow_watchers),
        ("etcd_debugging_auth_revision", "Revision of users and roles.", stats.auth_revision),
        ("etcd_network_known_peers", "Members known.", 1),
    ];
    for (name, help, value) in gauges {
        page.single(name, Kind::Gauge, help, value);
    }
    let revisions = [
        ("etcd_debugging_mvcc_current_revision", "Current revision.", stats.current_revision),
        ("etcd_debugging_mvcc_compact_revision", "Revision of the last compaction.", stats.compact_revision),
    ];
    for (name, help, value) in revisions {
        page.single(name, Kind::Gauge, help, value);
    }
    let counters: [(&str, &str, u64); 7] = [
        ("etcd_server_proposals_failed_total", "Proposals that failed.", stats.proposals_failed),
        // The one member becomes leader once, at its start.
        ("etcd_server_leader_changes_seen_total", "Changes of leader.", flag(stats.has_leader).into()),
        ("etcd_debugging_mvcc_events_total", "Events sent to watchers.", stats.events),
        ("etcd_debugging_lease_granted_total", "Leases granted.", stats.leases_granted),
        ("etcd_debugging_lease_revoked_total", "Leases revoked.", stats.leases_revoked),
        ("etcd_debugging_lease_renewed_total", "Leases renewed.", stats.leases_renewed),
        ("etcd_debugging_server_lease_expired_total", "Leases expired.", stats.leases_expired),
    ];
    for (name, help, value) in counters {
        page.single(name, Kind::Counter, help, value);
    }
    durations(page, "etcd_disk_wal_fsync_duration_seconds", "Seconds to sync the log.", &stats.fsync);
    durations(
        page,
        "etcd_disk_backend_commit_duration_seconds",
        "Seconds to commit to the store.",
        &stats.store_commit,
    );
    alarms(page, moment);
}

fn durations(page: &mut Exposition, name: &str, help: &str, histogram: &DurationHistogram) {
    let bounds: [f64; DURATION_BUCKETS] = std::array::from_fn(|at| f64::from(1_u32 << at.min(31)) / 1000.0);
    page.family(name, Kind::Histogram, help);
    page.histogram(name, &[], &bounds, &histogram.buckets, histogram.sum_seconds);
}

fn alarms(page: &mut Exposition, moment: &Moment) {
    if moment.alarms.is_empty() {
        return;
    }
    page.family("etcd_debugging_server_alarms", Kind::Gauge, "Alarms that are raised.");
    for (member, alarm) in &moment.alarms {
        let member = format!("{member:x}");
        page.labelled("etcd_debugging_server_alarms", &[("alarm_type", alarm), ("server_id", &member)], 1);
    }
}
