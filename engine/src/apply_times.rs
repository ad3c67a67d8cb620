//! How long the state machine takes for each kind of command: read by metrics, recorded by the
//! applying thread alone, so that nothing here is contended.

use keygate_core::Operation;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets: 0.1 ms doubled 19 times, and everything above, as etcd's.
pub const APPLY_BUCKETS: usize = 20;

/// What etcd calls slow.
const SLOW: Duration = Duration::from_millis(100);

/// etcd's names, in the order of [`kind_of`].
const KINDS: [&str; 19] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "AuthEnable",
    "AuthDisable",
    "AuthUserAdd",
    "AuthUserDelete",
    "AuthUserChangePassword",
    "AuthUserGrantRole",
    "AuthUserRevokeRole",
    "AuthRoleAdd",
    "AuthRoleDelete",
    "AuthRoleGrantPermission",
    "AuthRoleRevokePermission",
];

#[derive(Default)]
pub(crate) struct ApplyTimes {
    succeeded: [Times; KINDS.len()],
    failed: [Times; KINDS.len()],
    slow: AtomicU64,
}

#[derive(Default)]
struct Times {
    buckets: [AtomicU64; APPLY_BUCKETS + 1],
    nanoseconds: AtomicU64,
}

/// The times of one kind of command. `buckets[i]` counts those of at most 0.1 × 2^i ms that are in no
/// lower bucket, the last one all longer ones.
#[derive(Clone, PartialEq, Debug)]
pub struct ApplyHistogram {
    /// E.g. `Put`, in etcd's words.
    pub op: &'static str,
    pub success: bool,
    pub buckets: [u64; APPLY_BUCKETS + 1],
    pub sum_seconds: f64,
}

impl ApplyTimes {
    /// None: a command that is never proposed.
    pub(crate) fn record(&self, kind: Option<usize>, success: bool, took: Duration) {
        let Some(kind) = kind else { return };
        let times = if success { &self.succeeded[kind] } else { &self.failed[kind] };
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = (0..APPLY_BUCKETS).find(|at| nanoseconds <= 100_000 << at).unwrap_or(APPLY_BUCKETS);
        times.buckets[at].fetch_add(1, Ordering::Relaxed);
        times.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        if took > SLOW {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    /// Those that have happened.
    pub(crate) fn read(&self) -> Vec<ApplyHistogram> {
        let each = KINDS.iter().enumerate().flat_map(|(kind, op)| {
            [(false, &self.failed[kind]), (true, &self.succeeded[kind])].map(|(success, times)| {
                ApplyHistogram {
                    op,
                    success,
                    buckets: times.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)),
                    sum_seconds: times.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
                }
            })
        });
        each.filter(|times| times.buckets.iter().any(|count| *count > 0)).collect()
    }
}

/// The place in [`KINDS`]. An expired lease is revoked, in etcd's words.
pub(crate) fn kind_of<V>(operation: &Operation<V>) -> Option<usize> {
    Some(match operation {
        Operation::Put(_) => 0,
        Operation::DeleteRange(_) => 1,
        Operation::Txn(_) => 2,
        Operation::Compact(_) => 3,
        Operation::LeaseGrant(_) => 4,
        Operation::LeaseRevoke(_) | Operation::LeaseExpire(_) => 5,
        Operation::LeaseCheckpoint(_) => 6,
        Operation::Alarm(_) => 7,
        Operation::AuthEnable => 8,
        Operation::AuthDisable => 9,
        Operation::UserAdd(_) => 10,
        Operation::UserDelete { .. } => 11,
        Operation::UserChangePassword { .. } => 12,
        Operation::UserGrantRole { .. } => 13,
        Operation::UserRevokeRole { .. } => 14,
        Operation::RoleAdd { .. } => 15,
        Operation::RoleDelete { .. } => 16,
        Operation::RoleGrantPermission(_) => 17,
        Operation::RoleRevokePermission(_) => 18,
        Operation::Range(_)
        | Operation::RangeStream(_)
        | Operation::Watch(_)
        | Operation::LeaseKeepAlive(_)
        | Operation::LeaseTimeToLive(_)
        | Operation::LeaseLeases
        | Operation::MemberList { .. }
        | Operation::Status
        | Operation::Snapshot
        | Operation::Defragment
        | Operation::Hash
        | Operation::HashKv { .. }
        | Operation::AuthStatus
        | Operation::Authenticate { .. }
        | Operation::UserGet { .. }
        | Operation::UserList
        | Operation::RoleGet { .. }
        | Operation::RoleList
        // etcd has no word for them.
        | Operation::TenantCreate(_)
        | Operation::TenantChange { .. }
        | Operation::TenantDelete { .. }
        | Operation::TenantGet { .. }
        | Operation::TenantList
        | Operation::QuotaSet(_)
        | Operation::QuotaShow(_)
        | Operation::QuotaRecount(_)
        | Operation::Observe(_)
        | Operation::PolicyChange(_)
        | Operation::PolicyAsk(_)
        | Operation::Health => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keygate_core::Sealed;

    #[test]
    fn commands_are_told_apart_by_kind_and_outcome() {
        let times = ApplyTimes::default();
        let enable = kind_of::<Sealed>(&Operation::AuthEnable);
        times.record(enable, true, Duration::from_micros(100));
        times.record(enable, true, Duration::from_micros(101));
        times.record(enable, false, Duration::from_secs(100));
        times.record(kind_of::<Sealed>(&Operation::RoleDelete { name: String::new() }), true, Duration::ZERO);
        times.record(kind_of::<Sealed>(&Operation::Status), true, Duration::ZERO);
        let read = times.read();
        let seen: Vec<_> = read.iter().map(|times| (times.op, times.success)).collect();
        assert_eq!(seen, [("AuthEnable", false), ("AuthEnable", true), ("AuthRoleDelete", true)]);
        assert_eq!((read[0].buckets[APPLY_BUCKETS], read[1].buckets[0], read[1].buckets[1]), (1, 1, 1));
        assert_eq!(times.slow(), 1);
    }
}
