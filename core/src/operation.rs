//! Every request as one typed thing.
//!
//! `V` is the kind of value carried: [`crate::Plaintext`] as decoded, [`crate::Sealed`] behind the
//! transform stage, and the engine's own stored form in its log. What is serialised here is part of
//! the log's format; the list of operations is not, the log has its own.

use crate::auth::{Credential, Permission};
use crate::bundle::{PolicyChange, PolicyQuestion};
use crate::observation::Observation;
use crate::quota::{QuotaOf, QuotaSet};
use crate::range::KeyRange;
use crate::tenant::{TenantChange, TenantCreate, TenantName};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A lease's id as etcd has it: a positive 63-bit number; 0 means none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseId(pub i64);

impl LeaseId {
    pub const NONE: Self = Self(0);
}

#[derive(Clone, PartialEq, Debug)]
pub enum Operation<V> {
    Range(Range),
    RangeStream(Range),
    Put(Put<V>),
    DeleteRange(DeleteRange),
    Txn(Txn<V>),
    Compact(Compact),
    Watch(WatchCreate),

    LeaseGrant(LeaseGrant),
    LeaseRevoke(LeaseRevoke),
    LeaseKeepAlive(LeaseId),
    LeaseTimeToLive(LeaseTimeToLive),
    LeaseLeases,
    /// Internal: leases whose time is up. Missing ones are skipped.
    LeaseExpire(Vec<LeaseId>),
    /// Internal: (lease, remaining seconds), so that a restart does not renew leases.
    LeaseCheckpoint(Vec<(LeaseId, i64)>),

    MemberList {
        linearizable: bool,
    },
    Alarm(AlarmRequest),
    Status,
    /// Not served yet; decided all the same.
    Snapshot,
    Defragment,
    Hash,
    HashKv {
        revision: i64,
    },

    AuthEnable,
    AuthDisable,
    AuthStatus,
    /// Never proposed: the gateway verifies the password itself.
    Authenticate {
        name: String,
        password: crate::auth::Secret,
    },
    UserAdd(UserAdd),
    UserGet {
        name: String,
    },
    UserList,
    UserDelete {
        name: String,
    },
    UserChangePassword {
        name: String,
        credential: Credential,
    },
    UserGrantRole {
        user: String,
        role: String,
    },
    UserRevokeRole {
        user: String,
        role: String,
    },
    RoleAdd {
        name: String,
    },
    RoleGet {
        name: String,
    },
    RoleList,
    RoleDelete {
        name: String,
    },
    RoleGrantPermission(RoleGrant),
    RoleRevokePermission(RoleRevoke),

    TenantCreate(TenantCreate),
    TenantChange {
        name: TenantName,
        change: TenantChange,
    },
    TenantDelete {
        name: TenantName,
    },
    TenantGet {
        name: TenantName,
    },
    TenantList,

    QuotaSet(QuotaSet),
    QuotaShow(QuotaOf),
    /// Counts everything, and shows that beside the counters.
    QuotaRecount(QuotaOf),
    PolicyChange(PolicyChange),
    /// Answered by the gateway, from its view.
    PolicyAsk(PolicyQuestion),

    /// Answered by the gateway alone.
    Observe(Observation),

    /// `grpc.health.v1.Health`.
    Health,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SortOrder {
    None,
    Ascend,
    Descend,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SortTarget {
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// A read. Revisions of 0 mean "unset"; `revision <= 0` reads the current state outside a txn.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Range {
    pub range: KeyRange,
    /// 0: no limit. Negative is taken as 0, as etcd does.
    pub limit: i64,
    pub revision: i64,
    pub sort_order: SortOrder,
    pub sort_target: SortTarget,
    pub serializable: bool,
    pub keys_only: bool,
    pub count_only: bool,
    pub min_mod_revision: i64,
    pub max_mod_revision: i64,
    pub min_create_revision: i64,
    pub max_create_revision: i64,
}

impl Range {
    /// A plain linearizable read of the current state.
    pub fn of(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: 0,
            sort_order: SortOrder::None,
            sort_target: SortTarget::Key,
            serializable: false,
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PutValue<V> {
    Set(V),
    /// etcd's `ignore_value`: keep the value that is there.
    Keep,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PutLease {
    /// [`LeaseId::NONE`] detaches.
    Set(LeaseId),
    /// etcd's `ignore_lease`: keep the lease that is there.
    Keep,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Put<V> {
    pub key: Bytes,
    pub value: PutValue<V>,
    pub lease: PutLease,
    pub prev_kv: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeleteRange {
    pub range: KeyRange,
    pub prev_kv: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CompareOp {
    Equal,
    Greater,
    Less,
    NotEqual,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CompareTarget<V> {
    Version(i64),
    Create(i64),
    Mod(i64),
    Value(V),
    Lease(i64),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compare<V> {
    pub range: KeyRange,
    pub op: CompareOp,
    pub target: CompareTarget<V>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TxnOp<V> {
    Range(Range),
    Put(Put<V>),
    DeleteRange(DeleteRange),
    Txn(Txn<V>),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Txn<V> {
    pub compare: Vec<Compare<V>>,
    pub success: Vec<TxnOp<V>>,
    pub failure: Vec<TxnOp<V>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compact {
    pub revision: i64,
    /// Answer only when the superseded rows are gone from the store.
    pub physical: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WatchCreate {
    pub range: KeyRange,
    /// 0: from now on.
    pub start_revision: i64,
    pub progress_notify: bool,
    pub no_put: bool,
    pub no_delete: bool,
    pub prev_kv: bool,
    pub fragment: bool,
    /// 0: the server picks one.
    pub watch_id: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// The gateway fills in an id when the client asked with 0.
    pub id: LeaseId,
    /// Seconds. Raised to the minimum that the election timeout allows.
    pub ttl: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseRevoke {
    pub id: LeaseId,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseTimeToLive {
    pub id: LeaseId,
    pub keys: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AlarmKind {
    None,
    NoSpace,
    Corrupt,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum AlarmAction {
    Get,
    Activate,
    Deactivate,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AlarmRequest {
    pub action: AlarmAction,
    /// 0: every member.
    pub member: u64,
    pub alarm: AlarmKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserAdd {
    pub name: String,
    pub credential: Credential,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoleGrant {
    pub role: String,
    pub permission: Permission,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoleRevoke {
    pub role: String,
    pub range: KeyRange,
}

impl<V> Operation<V> {
    /// About the tenants that there are, not about what is in one.
    pub fn is_about_tenants(&self) -> bool {
        matches!(
            self,
            Self::TenantCreate(_)
                | Self::TenantChange { .. }
                | Self::TenantDelete { .. }
                | Self::TenantGet { .. }
                | Self::TenantList
                | Self::QuotaSet(_)
                | Self::QuotaShow(QuotaOf::Default | QuotaOf::Tenant(_) | QuotaOf::All)
                | Self::QuotaRecount(_)
                | Self::Observe(_)
        )
    }

    /// A change of users and roles that could let somebody do more.
    pub fn hands_rights_on(&self) -> bool {
        matches!(
            self,
            Self::AuthDisable
                | Self::UserAdd(_)
                | Self::UserDelete { .. }
                | Self::UserChangePassword { .. }
                | Self::UserGrantRole { .. }
                | Self::RoleGrantPermission(_)
        )
    }

    /// About the platform's policy.
    pub fn is_about_policy(&self) -> bool {
        matches!(self, Self::PolicyChange(_) | Self::PolicyAsk(_))
    }

    /// A read of many keys that can be answered as if some of them did not exist. Within a txn none can: what it
    /// writes may hang on what it read.
    pub fn can_leave_out_keys(&self) -> bool {
        let range = match self {
            Self::Range(range) | Self::RangeStream(range) => &range.range,
            Self::Watch(watch) => &watch.range,
            _ => return false,
        };
        !matches!(range, KeyRange::Single(_))
    }

    /// True when it changes state and therefore goes through the log. A txn of only reads does not.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Compact(_)
            | Self::LeaseGrant(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseExpire(_)
            | Self::LeaseCheckpoint(_)
            | Self::AuthEnable
            | Self::AuthDisable
            | Self::UserAdd(_)
            | Self::UserDelete { .. }
            | Self::UserChangePassword { .. }
            | Self::UserGrantRole { .. }
            | Self::UserRevokeRole { .. }
            | Self::RoleAdd { .. }
            | Self::RoleDelete { .. }
            | Self::RoleGrantPermission(_)
            | Self::RoleRevokePermission(_)
            | Self::TenantCreate(_)
            | Self::TenantChange { .. }
            | Self::TenantDelete { .. }
            | Self::QuotaSet(_)
            | Self::PolicyChange(_) => true,
            Self::Txn(txn) => !txn.is_read_only(),
            Self::Alarm(alarm) => alarm.action != AlarmAction::Get,
            Self::Range(_)
            | Self::RangeStream(_)
            | Self::Watch(_)
            | Self::LeaseKeepAlive(_)
            | Self::LeaseTimeToLive(_)
            | Self::LeaseLeases
            | Self::MemberList { .. }
            | Self::Status
            | Self::Snapshot
            | Self::Defragment
            | Self::Hash
            | Self::HashKv { .. }
            | Self::AuthStatus
            | Self::Authenticate { .. }
            | Self::UserGet { .. }
            | Self::UserList
            | Self::RoleGet { .. }
            | Self::RoleList
            | Self::TenantGet { .. }
            | Self::TenantList
            | Self::QuotaShow(_)
            | Self::QuotaRecount(_)
            | Self::Observe(_)
            | Self::PolicyAsk(_)
            | Self::Health => false,
        }
    }
}

impl<V> Txn<V> {
    /// As etcd has it: only reads in both branches. A nested txn counts as a write.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, TxnOp::Range(_)))
    }

    /// True when every read of a read-only txn may be served without asking the leader.
    pub fn is_serializable(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, TxnOp::Range(r) if r.serializable))
    }
}
