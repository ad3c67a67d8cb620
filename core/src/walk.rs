//! The one walker over a request: what it touches, which values it carries, what it costs, how it is told.
//!
//! Every stage (authorize, transform, quota, audit) asks here, so that none can forget a nested
//! operation which another one sees. Each match is exhaustive on purpose: a new operation does not
//! compile until all questions are answered.

use crate::access::{Access, AdminVerb, KeyAction};
use crate::bundle::{PolicyChange, PolicyQuestion};
use crate::escalation::{self, Grant};
use crate::observation::Observation;
use crate::operation::{
    AlarmAction, Compare, CompareTarget, DeleteRange, LeaseId, Operation, Put, PutLease, PutValue, Range,
    RoleGrant, Txn, TxnOp, UserAdd,
};
use crate::quota::QuotaOf;
use crate::range::KeyRange;
use bytes::Bytes;

/// What a request asks of the engine, known before it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Leaf operations, compares included.
    pub operations: u64,
    /// Bytes of keys and values that a write carries.
    pub bytes: u64,
    /// etcd's estimate of how much the backend may grow: what its space quota is charged.
    pub growth: u64,
}

/// A request told in one line: the method, the first keys it names and sizes; never a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    pub method: &'static str,
    /// The range the request names first, where it names one.
    pub range: Option<KeyRange>,
    pub cost: Cost,
}

/// etcd charges a put this much over its key and value, and a lease grant this much in all.
const PUT_OVERHEAD: u64 = 256;
const LEASE_COST: u64 = 64;

impl<V> Operation<V> {
    /// Calls `visit` with everything the request touches: both branches of every txn, compares,
    /// previous values, keys that ride on a lease.
    pub fn accesses(&self, visit: &mut dyn FnMut(Access)) {
        match self {
            Self::Range(range) | Self::RangeStream(range) => range_accesses(range, visit),
            Self::Put(put) => put_accesses(put, visit),
            Self::DeleteRange(delete) => delete_accesses(delete, visit),
            Self::Txn(txn) => txn_accesses(txn, visit),
            Self::Compact(_) => visit(Access::Admin(AdminVerb::Compact)),
            Self::Watch(watch) => visit(Access::read(watch.range.clone())),
            Self::LeaseGrant(_) => visit(Access::Authenticated),
            Self::LeaseRevoke(revoke) => {
                visit(Access::Authenticated);
                visit(Access::KeysOfLease { action: KeyAction::Write, lease: revoke.id });
            }
            Self::LeaseKeepAlive(lease) => {
                visit(Access::Authenticated);
                visit(Access::KeysOfLease { action: KeyAction::Write, lease: *lease });
            }
            Self::LeaseTimeToLive(request) => {
                visit(Access::Authenticated);
                if request.keys {
                    visit(Access::KeysOfLease { action: KeyAction::Read, lease: request.id });
                }
            }
            Self::LeaseLeases => {
                visit(Access::Authenticated);
                visit(Access::KeysOfAllLeases { action: KeyAction::Read });
            }
            // Only `Permit::internal` proposes these; a caller who somehow did would need to be root.
            Self::LeaseExpire(_) | Self::LeaseCheckpoint(_) => visit(Access::Admin(AdminVerb::AuthChange)),
            Self::MemberList { .. } => visit(Access::Admin(AdminVerb::MemberList)),
            Self::Status => visit(Access::Admin(AdminVerb::Status)),
            Self::Snapshot => visit(Access::Admin(AdminVerb::Snapshot)),
            Self::Alarm(alarm) => match alarm.action {
                AlarmAction::Get => visit(Access::Authenticated),
                AlarmAction::Activate | AlarmAction::Deactivate => {
                    visit(Access::Admin(AdminVerb::AlarmChange));
                }
            },
            Self::Defragment => visit(Access::Admin(AdminVerb::Defragment)),
            Self::Hash => visit(Access::Admin(AdminVerb::StoreHash)),
            Self::HashKv { .. } => visit(Access::Admin(AdminVerb::Hash)),
            Self::AuthStatus | Self::Authenticate { .. } | Self::Health => visit(Access::Open),
            Self::AuthEnable => escalation::change(&[], None, visit),
            Self::AuthDisable => escalation::switching_off(visit),
            Self::UserAdd(UserAdd { name, .. }) | Self::UserChangePassword { name, .. } => {
                escalation::change(&[name], Some(Grant::User(name.clone())), visit);
            }
            Self::UserDelete { name } => {
                escalation::change(&[name], Some(Grant::RootOf(name.clone())), visit);
            }
            Self::UserGrantRole { user, role } => {
                escalation::change(&[user, role], Some(Grant::Role(role.clone())), visit);
            }
            Self::UserRevokeRole { user, role } => escalation::change(&[user, role], None, visit),
            Self::RoleAdd { name } | Self::RoleDelete { name } => escalation::change(&[name], None, visit),
            Self::RoleGrantPermission(RoleGrant { role, permission }) => {
                escalation::change(&[role], Some(Grant::Keys(permission.clone())), visit);
            }
            Self::RoleRevokePermission(revoke) => escalation::change(&[&revoke.role], None, visit),
            Self::UserGet { name } => visit(Access::UserRecord(name.clone())),
            Self::RoleGet { name } => visit(Access::RoleRecord(name.clone())),
            Self::UserList => visit(Access::Admin(AdminVerb::UserList)),
            Self::RoleList => visit(Access::Admin(AdminVerb::RoleList)),
            Self::TenantCreate(_) | Self::TenantChange { .. } | Self::TenantDelete { .. } => {
                visit(Access::Admin(AdminVerb::TenantChange));
            }
            Self::TenantGet { .. } | Self::TenantList => visit(Access::Admin(AdminVerb::TenantList)),
            Self::Observe(Observation::Limits | Observation::Load { .. }) => {
                visit(Access::Admin(AdminVerb::Limits));
            }
            // A tenant's root may know why its writes are refused.
            Self::QuotaShow(QuotaOf::Own) => visit(Access::Admin(AdminVerb::OwnQuotas)),
            Self::QuotaShow(QuotaOf::Default | QuotaOf::Tenant(_) | QuotaOf::All)
            | Self::QuotaSet(_)
            | Self::QuotaRecount(_) => {
                visit(Access::Admin(AdminVerb::Quotas));
            }
            Self::PolicyChange(_) | Self::PolicyAsk(_) => visit(Access::Admin(AdminVerb::Policy)),
        }
    }

    /// Replaces every value that the request carries, with the key it is for. The transform stage
    /// seals through this, the engine's log takes its stored form through it.
    pub fn try_map_values<W, E>(
        self,
        map: &mut dyn FnMut(&Bytes, V) -> Result<W, E>,
    ) -> Result<Operation<W>, E> {
        Ok(match self {
            Self::Put(put) => Operation::Put(map_put(put, map)?),
            Self::Txn(txn) => Operation::Txn(map_txn(txn, map)?),
            Self::Range(v) => Operation::Range(v),
            Self::RangeStream(v) => Operation::RangeStream(v),
            Self::DeleteRange(v) => Operation::DeleteRange(v),
            Self::Compact(v) => Operation::Compact(v),
            Self::Watch(v) => Operation::Watch(v),
            Self::LeaseGrant(v) => Operation::LeaseGrant(v),
            Self::LeaseRevoke(v) => Operation::LeaseRevoke(v),
            Self::LeaseKeepAlive(v) => Operation::LeaseKeepAlive(v),
            Self::LeaseTimeToLive(v) => Operation::LeaseTimeToLive(v),
            Self::LeaseLeases => Operation::LeaseLeases,
            Self::LeaseExpire(v) => Operation::LeaseExpire(v),
            Self::LeaseCheckpoint(v) => Operation::LeaseCheckpoint(v),
            Self::MemberList { linearizable } => Operation::MemberList { linearizable },
            Self::Alarm(v) => Operation::Alarm(v),
            Self::Status => Operation::Status,
            Self::Snapshot => Operation::Snapshot,
            Self::Defragment => Operation::Defragment,
            Self::Hash => Operation::Hash,
            Self::HashKv { revision } => Operation::HashKv { revision },
            Self::AuthEnable => Operation::AuthEnable,
            Self::AuthDisable => Operation::AuthDisable,
            Self::AuthStatus => Operation::AuthStatus,
            Self::Authenticate { name, password } => Operation::Authenticate { name, password },
            Self::UserAdd(v) => Operation::UserAdd(v),
            Self::UserGet { name } => Operation::UserGet { name },
            Self::UserList => Operation::UserList,
            Self::UserDelete { name } => Operation::UserDelete { name },
            Self::UserChangePassword { name, credential } => {
                Operation::UserChangePassword { name, credential }
            }
            Self::UserGrantRole { user, role } => Operation::UserGrantRole { user, role },
            Self::UserRevokeRole { user, role } => Operation::UserRevokeRole { user, role },
            Self::RoleAdd { name } => Operation::RoleAdd { name },
            Self::RoleGet { name } => Operation::RoleGet { name },
            Self::RoleList => Operation::RoleList,
            Self::RoleDelete { name } => Operation::RoleDelete { name },
            Self::RoleGrantPermission(v) => Operation::RoleGrantPermission(v),
            Self::RoleRevokePermission(v) => Operation::RoleRevokePermission(v),
            Self::TenantCreate(v) => Operation::TenantCreate(v),
            Self::TenantChange { name, change } => Operation::TenantChange { name, change },
            Self::TenantDelete { name } => Operation::TenantDelete { name },
            Self::TenantGet { name } => Operation::TenantGet { name },
            Self::TenantList => Operation::TenantList,
            Self::QuotaSet(v) => Operation::QuotaSet(v),
            Self::QuotaShow(v) => Operation::QuotaShow(v),
            Self::QuotaRecount(v) => Operation::QuotaRecount(v),
            Self::Observe(v) => Operation::Observe(v),
            Self::PolicyChange(v) => Operation::PolicyChange(v),
            Self::PolicyAsk(v) => Operation::PolicyAsk(v),
            Self::Health => Operation::Health,
        })
    }

    /// The RPC's name as etcd's descriptors have it.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Range(_) => "etcdserverpb.KV/Range",
            Self::RangeStream(_) => "etcdserverpb.KV/RangeStream",
            Self::Put(_) => "etcdserverpb.KV/Put",
            Self::DeleteRange(_) => "etcdserverpb.KV/DeleteRange",
            Self::Txn(_) => "etcdserverpb.KV/Txn",
            Self::Compact(_) => "etcdserverpb.KV/Compact",
            Self::Watch(_) => "etcdserverpb.Watch/Watch",
            Self::LeaseGrant(_) => "etcdserverpb.Lease/LeaseGrant",
            Self::LeaseRevoke(_) => "etcdserverpb.Lease/LeaseRevoke",
            Self::LeaseKeepAlive(_) => "etcdserverpb.Lease/LeaseKeepAlive",
            Self::LeaseTimeToLive(_) => "etcdserverpb.Lease/LeaseTimeToLive",
            Self::LeaseLeases => "etcdserverpb.Lease/LeaseLeases",
            Self::LeaseExpire(_) => "internal/LeaseExpire",
            Self::LeaseCheckpoint(_) => "internal/LeaseCheckpoint",
            Self::MemberList { .. } => "etcdserverpb.Cluster/MemberList",
            Self::Alarm(_) => "etcdserverpb.Maintenance/Alarm",
            Self::Snapshot => "etcdserverpb.Maintenance/Snapshot",
            Self::Status => "etcdserverpb.Maintenance/Status",
            Self::Defragment => "etcdserverpb.Maintenance/Defragment",
            Self::Hash => "etcdserverpb.Maintenance/Hash",
            Self::HashKv { .. } => "etcdserverpb.Maintenance/HashKV",
            Self::AuthEnable => "etcdserverpb.Auth/AuthEnable",
            Self::AuthDisable => "etcdserverpb.Auth/AuthDisable",
            Self::AuthStatus => "etcdserverpb.Auth/AuthStatus",
            Self::Authenticate { .. } => "etcdserverpb.Auth/Authenticate",
            Self::UserAdd(_) => "etcdserverpb.Auth/UserAdd",
            Self::UserGet { .. } => "etcdserverpb.Auth/UserGet",
            Self::UserList => "etcdserverpb.Auth/UserList",
            Self::UserDelete { .. } => "etcdserverpb.Auth/UserDelete",
            Self::UserChangePassword { .. } => "etcdserverpb.Auth/UserChangePassword",
            Self::UserGrantRole { .. } => "etcdserverpb.Auth/UserGrantRole",
            Self::UserRevokeRole { .. } => "etcdserverpb.Auth/UserRevokeRole",
            Self::RoleAdd { .. } => "etcdserverpb.Auth/RoleAdd",
            Self::RoleGet { .. } => "etcdserverpb.Auth/RoleGet",
            Self::RoleList => "etcdserverpb.Auth/RoleList",
            Self::RoleDelete { .. } => "etcdserverpb.Auth/RoleDelete",
            Self::RoleGrantPermission(_) => "etcdserverpb.Auth/RoleGrantPermission",
            Self::RoleRevokePermission(_) => "etcdserverpb.Auth/RoleRevokePermission",
            Self::TenantCreate(_) => "keygate.admin.v1.Tenants/Create",
            Self::TenantChange { .. } => "keygate.admin.v1.Tenants/Change",
            Self::TenantDelete { .. } => "keygate.admin.v1.Tenants/Delete",
            Self::TenantGet { .. } => "keygate.admin.v1.Tenants/Get",
            Self::TenantList => "keygate.admin.v1.Tenants/List",
            Self::QuotaSet(_) => "keygate.admin.v1.Quotas/Set",
            Self::QuotaShow(_) => "keygate.admin.v1.Quotas/Show",
            Self::QuotaRecount(_) => "keygate.admin.v1.Quotas/Recount",
            Self::Observe(Observation::Limits) => "keygate.admin.v1.Limits/Get",
            Self::Observe(Observation::Load { .. }) => "keygate.admin.v1.Load/Get",
            Self::PolicyChange(PolicyChange::Stage { .. }) => "keygate.admin.v1.Policies/Stage",
            Self::PolicyChange(PolicyChange::Apply { .. }) => "keygate.admin.v1.Policies/Apply",
            Self::PolicyChange(PolicyChange::Rollback { .. }) => "keygate.admin.v1.Policies/Rollback",
            Self::PolicyAsk(PolicyQuestion::Log) => "keygate.admin.v1.Policies/Log",
            Self::PolicyAsk(PolicyQuestion::Part { .. }) => "keygate.admin.v1.Policies/Part",
            Self::PolicyAsk(PolicyQuestion::Tables { .. }) => "keygate.admin.v1.Policies/Tables",
            Self::PolicyAsk(PolicyQuestion::Users { .. }) => "keygate.admin.v1.Policies/Users",
            Self::PolicyAsk(PolicyQuestion::Denial { .. }) => "keygate.admin.v1.Policies/Denial",
            Self::Health => "grpc.health.v1.Health/Check",
        }
    }
}

impl<V: ValueSize> Operation<V> {
    pub fn cost(&self) -> Cost {
        match self {
            Self::Put(put) => put_cost(put),
            Self::Txn(txn) => txn_cost(txn),
            Self::LeaseGrant(_) => Cost { operations: 1, bytes: 0, growth: LEASE_COST },
            // Bounded anyway, and what takes a right away must go through when a tenant has filled the store.
            Self::PolicyChange(PolicyChange::Stage { content, .. }) => {
                Cost { operations: 1, bytes: content.len() as u64, growth: 0 }
            }
            Self::PolicyChange(PolicyChange::Apply { .. } | PolicyChange::Rollback { .. }) => {
                Cost { operations: 1, ..Cost::default() }
            }
            Self::LeaseExpire(leases) => Cost { operations: leases.len() as u64, ..Cost::default() },
            Self::LeaseCheckpoint(leases) => Cost { operations: leases.len() as u64, ..Cost::default() },
            Self::Range(_)
            | Self::RangeStream(_)
            | Self::DeleteRange(_)
            | Self::Compact(_)
            | Self::Watch(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseKeepAlive(_)
            | Self::LeaseTimeToLive(_)
            | Self::LeaseLeases
            | Self::MemberList { .. }
            | Self::Alarm(_)
            | Self::Status
            | Self::Snapshot
            | Self::Defragment
            | Self::Hash
            | Self::HashKv { .. }
            | Self::AuthEnable
            | Self::AuthDisable
            | Self::AuthStatus
            | Self::Authenticate { .. }
            | Self::UserAdd(_)
            | Self::UserGet { .. }
            | Self::UserList
            | Self::UserDelete { .. }
            | Self::UserChangePassword { .. }
            | Self::UserGrantRole { .. }
            | Self::UserRevokeRole { .. }
            | Self::RoleAdd { .. }
            | Self::RoleGet { .. }
            | Self::RoleList
            | Self::RoleDelete { .. }
            | Self::RoleGrantPermission(_)
            | Self::RoleRevokePermission(_)
            | Self::TenantCreate(_)
            | Self::TenantChange { .. }
            | Self::TenantDelete { .. }
            | Self::TenantGet { .. }
            | Self::TenantList
            | Self::QuotaSet(_)
            | Self::QuotaShow(_)
            | Self::QuotaRecount(_)
            | Self::Observe(_)
            | Self::PolicyAsk(_)
            | Self::Health => Cost { operations: 1, ..Cost::default() },
        }
    }

    pub fn summary(&self) -> Summary {
        let mut range = None;
        self.accesses(&mut |access| {
            if let (None, Access::Keys { range: named, .. }) = (&range, access) {
                range = Some(named);
            }
        });
        Summary { method: self.method(), range, cost: self.cost() }
    }
}

/// How many bytes a value takes, whatever its form.
pub trait ValueSize {
    fn value_size(&self) -> usize;
}

impl ValueSize for crate::Plaintext {
    fn value_size(&self) -> usize {
        self.len()
    }
}

impl ValueSize for crate::Sealed {
    fn value_size(&self) -> usize {
        self.len()
    }
}

fn range_accesses(range: &Range, visit: &mut dyn FnMut(Access)) {
    visit(Access::read(range.range.clone()));
}

fn put_accesses<V>(put: &Put<V>, visit: &mut dyn FnMut(Access)) {
    let key = KeyRange::Single(put.key.clone());
    if put.prev_kv {
        visit(Access::read(key.clone()));
    }
    visit(Access::write(key));
    // Keys that share a lease live and die together, so joining one needs a right on its keys.
    if let PutLease::Set(lease) = put.lease
        && lease != LeaseId::NONE
    {
        visit(Access::KeysOfLease { action: KeyAction::Write, lease });
    }
}

fn delete_accesses(delete: &DeleteRange, visit: &mut dyn FnMut(Access)) {
    if delete.prev_kv {
        visit(Access::read(delete.range.clone()));
    }
    visit(Access::write(delete.range.clone()));
}

fn txn_accesses<V>(txn: &Txn<V>, visit: &mut dyn FnMut(Access)) {
    // A txn without any operation still needs a login.
    visit(Access::Authenticated);
    for compare in &txn.compare {
        visit(Access::read(compare.range.clone()));
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            TxnOp::Range(range) => range_accesses(range, visit),
            TxnOp::Put(put) => put_accesses(put, visit),
            TxnOp::DeleteRange(delete) => delete_accesses(delete, visit),
            TxnOp::Txn(nested) => txn_accesses(nested, visit),
        }
    }
}

type Map<'a, V, W, E> = &'a mut dyn FnMut(&Bytes, V) -> Result<W, E>;

fn map_put<V, W, E>(put: Put<V>, map: Map<'_, V, W, E>) -> Result<Put<W>, E> {
    let value = match put.value {
        PutValue::Set(value) => PutValue::Set(map(&put.key, value)?),
        PutValue::Keep => PutValue::Keep,
    };
    Ok(Put { key: put.key, value, lease: put.lease, prev_kv: put.prev_kv })
}

fn map_txn<V, W, E>(txn: Txn<V>, map: Map<'_, V, W, E>) -> Result<Txn<W>, E> {
    let compare =
        txn.compare.into_iter().map(|compare| map_compare(compare, map)).collect::<Result<_, E>>()?;
    let mut branch = |ops: Vec<TxnOp<V>>| {
        ops.into_iter()
            .map(|op| {
                Ok(match op {
                    TxnOp::Range(range) => TxnOp::Range(range),
                    TxnOp::Put(put) => TxnOp::Put(map_put(put, map)?),
                    TxnOp::DeleteRange(delete) => TxnOp::DeleteRange(delete),
                    TxnOp::Txn(nested) => TxnOp::Txn(map_txn(nested, map)?),
                })
            })
            .collect::<Result<Vec<_>, E>>()
    };
    let success = branch(txn.success)?;
    let failure = branch(txn.failure)?;
    Ok(Txn { compare, success, failure })
}

fn map_compare<V, W, E>(compare: Compare<V>, map: Map<'_, V, W, E>) -> Result<Compare<W>, E> {
    let target = match compare.target {
        CompareTarget::Value(value) => CompareTarget::Value(map(compare.range.start(), value)?),
        CompareTarget::Version(v) => CompareTarget::Version(v),
        CompareTarget::Create(v) => CompareTarget::Create(v),
        CompareTarget::Mod(v) => CompareTarget::Mod(v),
        CompareTarget::Lease(v) => CompareTarget::Lease(v),
    };
    Ok(Compare { range: compare.range, op: compare.op, target })
}

fn put_cost<V: ValueSize>(put: &Put<V>) -> Cost {
    let value = match &put.value {
        PutValue::Set(value) => value.value_size(),
        PutValue::Keep => 0,
    };
    let bytes = (put.key.len() + value) as u64;
    Cost { operations: 1, bytes, growth: PUT_OVERHEAD + bytes }
}

fn txn_cost<V: ValueSize>(txn: &Txn<V>) -> Cost {
    let branch = |ops: &[TxnOp<V>]| {
        ops.iter().fold(Cost::default(), |sum, op| {
            let cost = match op {
                TxnOp::Put(put) => put_cost(put),
                TxnOp::Txn(nested) => txn_cost(nested),
                TxnOp::Range(_) | TxnOp::DeleteRange(_) => Cost { operations: 1, ..Cost::default() },
            };
            Cost {
                operations: sum.operations + cost.operations,
                bytes: sum.bytes + cost.bytes,
                growth: sum.growth + cost.growth,
            }
        })
    };
    let (success, failure) = (branch(&txn.success), branch(&txn.failure));
    Cost {
        operations: txn.compare.len() as u64 + success.operations.max(failure.operations),
        bytes: success.bytes.max(failure.bytes),
        growth: success.growth.max(failure.growth),
    }
}
