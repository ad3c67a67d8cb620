//! The engine's figures under the names that etcd's dashboards and alerts know.

use keygate_engine::{APPLY_BUCKETS, ApplyHistogram, DURATION_BUCKETS, DurationHistogram};

use super::Moment;
use super::exposition::{Exposition, Kind};

/// `unanswered`: proposals that the engine took and nobody waited for until their end.
pub(super) fn write(page: &mut Exposition, moment: &Moment, unanswered: u64) {
    let stats = &moment.engine;
    let flag = u8::from;
    let gauges: [(&str, &str, u64); 15] = [
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
        (
            "keygate_watch_waiting_bytes",
            "Bytes of events that wait in memory for watch streams.",
            stats.watch_waiting_bytes,
        ),
        ("etcd_debugging_auth_revision", "Revision of users and roles.", stats.auth_revision),
        // None ever comes from another member.
        ("etcd_server_snapshot_apply_in_progress_total", "Snapshots of others being taken in.", 0),
    ];
    for (name, help, value) in gauges {
        page.single(name, Kind::Gauge, help, value);
    }
    let full = [
        (
            "keygate_log_disk_full",
            "Whether the log finds no room on its disk: all writes are refused. Make room on that device, or make it larger; writes then go on by themselves.",
            stats.log_disk_full,
        ),
        (
            "keygate_store_disk_full",
            "Whether the store finds no room on its disk: writes that need room are refused, deletes and compactions are not. Make room on that device, or make it larger; writes then go on by themselves.",
            stats.store_disk_full,
        ),
    ];
    for (name, help, full) in full {
        page.single(name, Kind::Gauge, help, flag(full));
    }
    let revisions = [
        ("etcd_debugging_mvcc_current_revision", "Current revision.", stats.current_revision),
        ("etcd_debugging_mvcc_compact_revision", "Revision of the last compaction.", stats.compact_revision),
    ];
    for (name, help, value) in revisions {
        page.single(name, Kind::Gauge, help, value);
    }
    let counters: [(&str, &str, u64); 12] = [
        ("etcd_server_proposals_failed_total", "Proposals that failed.", stats.proposals_failed + unanswered),
        // With one member there is nobody to send these to, and reads ask nobody.
        ("etcd_server_heartbeat_send_failures_total", "Heartbeats that could not be sent.", 0),
        ("etcd_server_learner_promote_successes", "Learners promoted.", 0),
        ("etcd_server_slow_read_indexes_total", "Reads that waited long for the leader.", 0),
        ("etcd_server_read_indexes_failed_total", "Reads that the leader did not confirm.", 0),
        // The one member becomes leader once, at its start.
        ("etcd_server_leader_changes_seen_total", "Changes of leader.", flag(stats.has_leader).into()),
        ("etcd_debugging_mvcc_events_total", "Events sent to watchers.", stats.events),
        (
            "keygate_watches_too_slow_total",
            "Watches that were cancelled because more events waited for them than --watch-backlog-bytes.",
            stats.watches_too_slow,
        ),
        ("etcd_debugging_lease_granted_total", "Leases granted.", stats.leases_granted),
        ("etcd_debugging_lease_revoked_total", "Leases revoked.", stats.leases_revoked),
        ("etcd_debugging_lease_renewed_total", "Leases renewed.", stats.leases_renewed),
        ("etcd_debugging_server_lease_expired_total", "Leases expired.", stats.leases_expired),
    ];
    for (name, help, value) in counters {
        page.single(name, Kind::Counter, help, value);
    }
    let member = format!("{:x}", moment.identity.member_id);
    page.family("etcd_network_known_peers", Kind::Gauge, "Members known.");
    page.labelled("etcd_network_known_peers", &[("Local", &member), ("Remote", &member)], 1);
    durations(page, "etcd_disk_wal_fsync_duration_seconds", "Seconds to sync the log.", &stats.fsync);
    durations(
        page,
        "etcd_disk_backend_commit_duration_seconds",
        "Seconds to commit to the store.",
        &stats.store_commit,
    );
    applies(page, &stats.apply);
    page.single(
        "etcd_server_slow_apply_total",
        Kind::Counter,
        "Changes that took longer than 100 ms to apply.",
        stats.slow_applies,
    );
    alarms(page, moment);
}

fn applies(page: &mut Exposition, applies: &[ApplyHistogram]) {
    let name = "etcd_server_apply_duration_seconds";
    page.family(name, Kind::Histogram, "Seconds to apply a change to the state in memory.");
    let bounds: [f64; APPLY_BUCKETS] = std::array::from_fn(|at| (1_u64 << at) as f64 / 10_000.0);
    for times in applies {
        let success = if times.success { "true" } else { "false" };
        let labels = [("op", times.op), ("success", success), ("version", "v3")];
        page.histogram(name, &labels, &bounds, &times.buckets, times.sum_seconds);
    }
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
