//! Every RPC of every service, and what becomes of it. A test holds this table equal to the
//! descriptors.

use std::sync::LazyLock;

use ahash::AHashMap;

use super::decode::{self, Decode};
use super::encode::{self, Encode, framed};

pub(super) struct Method {
    pub(super) path: &'static str,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    /// One request, one answer.
    Unary {
        decode: Decode,
        encode: Encode,
    },
    /// A read whose answer comes in chunks.
    RangeStream {
        decode: Decode,
    },
    Watch,
    LeaseKeepAlive,
    HealthCheck,
    HealthWatch,
    /// Answers UNIMPLEMENTED until its issue is done. The list only shrinks.
    Later,
}

impl Kind {
    /// An answer of many messages, which may last.
    pub(super) fn is_stream(&self) -> bool {
        match self {
            Self::RangeStream { .. } | Self::Watch | Self::LeaseKeepAlive | Self::HealthWatch => true,
            Self::Unary { .. } | Self::HealthCheck | Self::Later => false,
        }
    }

    /// A stream that lasts until somebody ends it.
    fn is_endless(&self) -> bool {
        match self {
            Self::Watch | Self::LeaseKeepAlive | Self::HealthWatch => true,
            Self::Unary { .. } | Self::RangeStream { .. } | Self::HealthCheck | Self::Later => false,
        }
    }
}

/// A method's place in [`METHODS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MethodId(usize);

impl MethodId {
    pub(super) fn index(self) -> usize {
        self.0
    }

    pub(super) fn method(self) -> &'static Method {
        &METHODS[self.0]
    }
}

impl Method {
    /// What Prometheus interceptors of Go call its kind.
    pub(super) fn metric_kind(&self) -> &'static str {
        match self.path {
            "/etcdserverpb.Watch/Watch" | "/etcdserverpb.Lease/LeaseKeepAlive" => "bidi_stream",
            "/etcdserverpb.KV/RangeStream"
            | "/etcdserverpb.Maintenance/Snapshot"
            | "/v3electionpb.Election/Observe"
            | "/grpc.health.v1.Health/Watch" => "server_stream",
            _ => "unary",
        }
    }
}

macro_rules! unary {
    ($path:literal, $name:ident) => {
        unary!($path, $name, $name)
    };
    ($path:literal, $decode:ident, $encode:ident) => {
        Method {
            path: $path,
            kind: Kind::Unary {
                decode: decode::$decode,
                encode: |identity, reply| framed(encode::$encode(identity, reply)),
            },
        }
    };
}

const fn other(path: &'static str, kind: Kind) -> Method {
    Method { path, kind }
}

pub(super) static METHODS: &[Method] = &[
    unary!("/etcdserverpb.KV/Range", range),
    other("/etcdserverpb.KV/RangeStream", Kind::RangeStream { decode: decode::range_stream }),
    unary!("/etcdserverpb.KV/Put", put),
    unary!("/etcdserverpb.KV/DeleteRange", delete_range),
    unary!("/etcdserverpb.KV/Txn", txn),
    unary!("/etcdserverpb.KV/Compact", compact),
    other("/etcdserverpb.Watch/Watch", Kind::Watch),
    unary!("/etcdserverpb.Lease/LeaseGrant", lease_grant),
    unary!("/etcdserverpb.Lease/LeaseRevoke", lease_revoke),
    other("/etcdserverpb.Lease/LeaseKeepAlive", Kind::LeaseKeepAlive),
    unary!("/etcdserverpb.Lease/LeaseTimeToLive", lease_time_to_live),
    unary!("/etcdserverpb.Lease/LeaseLeases", lease_leases),
    other("/etcdserverpb.Cluster/MemberAdd", Kind::Later),
    other("/etcdserverpb.Cluster/MemberRemove", Kind::Later),
    other("/etcdserverpb.Cluster/MemberUpdate", Kind::Later),
    unary!("/etcdserverpb.Cluster/MemberList", member_list),
    other("/etcdserverpb.Cluster/MemberPromote", Kind::Later),
    unary!("/etcdserverpb.Maintenance/Alarm", alarm),
    unary!("/etcdserverpb.Maintenance/Status", status),
    unary!("/etcdserverpb.Maintenance/Defragment", defragment),
    unary!("/etcdserverpb.Maintenance/Hash", hash),
    unary!("/etcdserverpb.Maintenance/HashKV", hash_kv),
    // Decided like any other, and then refused: whoever may not is told so first, as by etcd.
    unary!("/etcdserverpb.Maintenance/Snapshot", snapshot, nothing),
    other("/etcdserverpb.Maintenance/MoveLeader", Kind::Later),
    other("/etcdserverpb.Maintenance/Downgrade", Kind::Later),
    unary!("/etcdserverpb.Auth/AuthEnable", auth_enable),
    unary!("/etcdserverpb.Auth/AuthDisable", auth_disable),
    unary!("/etcdserverpb.Auth/AuthStatus", auth_status),
    unary!("/etcdserverpb.Auth/Authenticate", authenticate),
    unary!("/etcdserverpb.Auth/UserAdd", user_add),
    unary!("/etcdserverpb.Auth/UserGet", user_get),
    unary!("/etcdserverpb.Auth/UserList", user_list),
    unary!("/etcdserverpb.Auth/UserDelete", user_delete),
    unary!("/etcdserverpb.Auth/UserChangePassword", user_change_password),
    unary!("/etcdserverpb.Auth/UserGrantRole", user_grant_role),
    unary!("/etcdserverpb.Auth/UserRevokeRole", user_revoke_role),
    unary!("/etcdserverpb.Auth/RoleAdd", role_add),
    unary!("/etcdserverpb.Auth/RoleGet", role_get),
    unary!("/etcdserverpb.Auth/RoleList", role_list),
    unary!("/etcdserverpb.Auth/RoleDelete", role_delete),
    unary!("/etcdserverpb.Auth/RoleGrantPermission", role_grant_permission),
    unary!("/etcdserverpb.Auth/RoleRevokePermission", role_revoke_permission),
    other("/v3lockpb.Lock/Lock", Kind::Later),
    other("/v3lockpb.Lock/Unlock", Kind::Later),
    other("/v3electionpb.Election/Campaign", Kind::Later),
    other("/v3electionpb.Election/Proclaim", Kind::Later),
    other("/v3electionpb.Election/Leader", Kind::Later),
    other("/v3electionpb.Election/Observe", Kind::Later),
    other("/v3electionpb.Election/Resign", Kind::Later),
    unary!("/keygate.admin.v1.Tenants/Create", tenant_create, tenant),
    unary!("/keygate.admin.v1.Tenants/Get", tenant_get, tenant),
    unary!("/keygate.admin.v1.Tenants/List", tenant_list),
    unary!("/keygate.admin.v1.Tenants/Change", tenant_change, tenant),
    unary!("/keygate.admin.v1.Tenants/Delete", tenant_delete),
    unary!("/keygate.admin.v1.Limits/Get", limits),
    unary!("/keygate.admin.v1.Load/Get", load),
    unary!("/keygate.admin.v1.Quotas/Show", quota_show, quotas),
    unary!("/keygate.admin.v1.Quotas/Set", quota_set, quotas),
    unary!("/keygate.admin.v1.Quotas/Recount", quota_recount, quotas),
    unary!("/keygate.admin.v1.Policies/Stage", policy_stage),
    unary!("/keygate.admin.v1.Policies/Apply", policy_apply, policy_revision),
    unary!("/keygate.admin.v1.Policies/Rollback", policy_rollback, policy_revision),
    unary!("/keygate.admin.v1.Policies/Log", policy_log),
    unary!("/keygate.admin.v1.Policies/Part", policy_part),
    unary!("/keygate.admin.v1.Policies/Tables", policy_tables),
    unary!("/keygate.admin.v1.Policies/Users", policy_users),
    unary!("/keygate.admin.v1.Policies/Denial", policy_denial),
    other("/grpc.health.v1.Health/Check", Kind::HealthCheck),
    other("/grpc.health.v1.Health/Watch", Kind::HealthWatch),
];

static BY_PATH: LazyLock<AHashMap<&str, MethodId>> = LazyLock::new(|| {
    METHODS.iter().enumerate().map(|(index, method)| (method.path, MethodId(index))).collect()
});

pub(super) fn find(path: &str) -> Option<MethodId> {
    BY_PATH.get(path).copied()
}

/// Answers until somebody ends it.
pub fn is_endless(path: &str) -> bool {
    find(path).is_some_and(|id| id.method().kind.is_endless())
}

/// The paths of all RPCs that are known here.
pub fn paths() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|method| method.path)
}

/// The paths of those that answer UNIMPLEMENTED.
pub fn later() -> impl Iterator<Item = &'static str> {
    METHODS.iter().filter(|method| matches!(method.kind, Kind::Later)).map(|method| method.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_descriptors() {
        let kind = |method: &keygate_proto::Method| match (method.client_streaming, method.server_streaming) {
            (false, false) => "unary",
            (true, false) => "client_stream",
            (false, true) => "server_stream",
            (true, true) => "bidi_stream",
        };
        let mut described: Vec<_> =
            keygate_proto::methods().iter().map(|method| (method.path.as_str(), kind(method))).collect();
        let mut known: Vec<_> = METHODS.iter().map(|method| (method.path, method.metric_kind())).collect();
        described.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, described);
    }

    /// The list can only shrink: take a line out when its RPC works, and never put one in.
    #[test]
    fn what_is_not_there_yet_is_listed() {
        let later: Vec<_> = later().collect();
        println!("UNIMPLEMENTED so far ({}):\n{}", later.len(), later.join("\n"));
        assert_eq!(later.join("\n"), include_str!("later.txt").trim_end());
    }
}
