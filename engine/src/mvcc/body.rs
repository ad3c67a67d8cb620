//! The operations that a log entry can hold, as they are serialised. Positions of variants are part of the format: new
//! ones go to the end.
//!
//! The list is its own, apart from [`Operation`]: reads and passwords have no form here, and a txn is written flat, so
//! that no type here is recursive and no bytes can make the decoder recurse deeper than [`MAX_TXN_DEPTH`].

use super::command::CommandError;
use super::value::StoredValue;
use keygate_core::{
    AlarmRequest, Compact, Compare, Credential, DeleteRange, LeaseGrant, LeaseId, LeaseRevoke, Operation,
    PasswordHash, PolicyChange, Put, QuotaSet, Range, RoleGrant, RoleRevoke, TenantChange, TenantCreate,
    TenantName, Txn, TxnOp, UserAdd,
};
use serde::{Deserialize, Serialize};

/// The wire decoder in front of us stops at 100 levels.
pub(super) const MAX_TXN_DEPTH: usize = 100;
pub(super) const TOO_DEEP: CommandError = CommandError::Malformed("txns are nested too deep");

#[derive(Serialize)]
pub(super) enum BodyRef<'a> {
    Put(&'a Put<StoredValue>),
    DeleteRange(&'a DeleteRange),
    Txn(Vec<FlatRef<'a>>),
    Compact(Compact),
    LeaseGrant(LeaseGrant),
    LeaseRevoke(LeaseRevoke),
    LeaseExpire(&'a [LeaseId]),
    LeaseCheckpoint(&'a [(LeaseId, i64)]),
    Alarm(AlarmRequest),
    AuthEnable,
    AuthDisable,
    UserAdd(&'a str, Option<&'a PasswordHash>),
    UserDelete(&'a str),
    UserChangePassword(&'a str, Option<&'a PasswordHash>),
    UserGrantRole(&'a str, &'a str),
    UserRevokeRole(&'a str, &'a str),
    RoleAdd(&'a str),
    RoleDelete(&'a str),
    RoleGrantPermission(&'a RoleGrant),
    RoleRevokePermission(&'a RoleRevoke),
    TenantCreate(&'a TenantName, &'a [String], Option<&'a PasswordHash>),
    TenantChange(&'a TenantName, &'a TenantChange),
    TenantDelete(&'a TenantName),
    QuotaSet(&'a QuotaSet),
    PolicyChange(&'a PolicyChange),
}

/// [`BodyRef`], read back: the same variants with the same fields.
#[derive(Deserialize)]
pub(super) enum Body {
    Put(Put<StoredValue>),
    DeleteRange(DeleteRange),
    Txn(Vec<Flat>),
    Compact(Compact),
    LeaseGrant(LeaseGrant),
    LeaseRevoke(LeaseRevoke),
    LeaseExpire(Vec<LeaseId>),
    LeaseCheckpoint(Vec<(LeaseId, i64)>),
    Alarm(AlarmRequest),
    AuthEnable,
    AuthDisable,
    UserAdd(String, Option<PasswordHash>),
    UserDelete(String),
    UserChangePassword(String, Option<PasswordHash>),
    UserGrantRole(String, String),
    UserRevokeRole(String, String),
    RoleAdd(String),
    RoleDelete(String),
    RoleGrantPermission(RoleGrant),
    RoleRevokePermission(RoleRevoke),
    TenantCreate(TenantName, Vec<String>, Option<PasswordHash>),
    TenantChange(TenantName, TenantChange),
    TenantDelete(TenantName),
    QuotaSet(QuotaSet),
    PolicyChange(PolicyChange),
}

/// A txn whose nested txns stand behind it in the list, in the order in which they are met.
#[derive(Serialize)]
pub(super) struct FlatRef<'a> {
    pub(super) compare: &'a [Compare<StoredValue>],
    pub(super) success: Vec<FlatOpRef<'a>>,
    pub(super) failure: Vec<FlatOpRef<'a>>,
}

#[derive(Serialize)]
pub(super) enum FlatOpRef<'a> {
    Range(&'a Range),
    Put(&'a Put<StoredValue>),
    DeleteRange(&'a DeleteRange),
    Txn,
}

#[derive(Deserialize)]
pub(super) struct Flat {
    compare: Vec<Compare<StoredValue>>,
    success: Vec<FlatOp>,
    failure: Vec<FlatOp>,
}

#[derive(Deserialize)]
enum FlatOp {
    Range(Range),
    Put(Put<StoredValue>),
    DeleteRange(DeleteRange),
    Txn,
}

impl<'a> BodyRef<'a> {
    pub(super) fn of(operation: &'a Operation<StoredValue>) -> Result<Self, CommandError> {
        Ok(match operation {
            Operation::Put(put) => Self::Put(put),
            Operation::DeleteRange(delete) => Self::DeleteRange(delete),
            Operation::Txn(txn) => {
                let mut flat = Vec::new();
                flatten(txn, MAX_TXN_DEPTH, &mut flat)?;
                Self::Txn(flat)
            }
            Operation::Compact(compact) => Self::Compact(*compact),
            Operation::LeaseGrant(grant) => Self::LeaseGrant(*grant),
            Operation::LeaseRevoke(revoke) => Self::LeaseRevoke(*revoke),
            Operation::LeaseExpire(leases) => Self::LeaseExpire(leases),
            Operation::LeaseCheckpoint(leases) => Self::LeaseCheckpoint(leases),
            Operation::Alarm(alarm) => Self::Alarm(*alarm),
            Operation::AuthEnable => Self::AuthEnable,
            Operation::AuthDisable => Self::AuthDisable,
            Operation::UserAdd(add) => Self::UserAdd(&add.name, hash(&add.credential)?),
            Operation::UserDelete { name } => Self::UserDelete(name),
            Operation::UserChangePassword { name, credential } => {
                Self::UserChangePassword(name, hash(credential)?)
            }
            Operation::UserGrantRole { user, role } => Self::UserGrantRole(user, role),
            Operation::UserRevokeRole { user, role } => Self::UserRevokeRole(user, role),
            Operation::RoleAdd { name } => Self::RoleAdd(name),
            Operation::RoleDelete { name } => Self::RoleDelete(name),
            Operation::RoleGrantPermission(grant) => Self::RoleGrantPermission(grant),
            Operation::RoleRevokePermission(revoke) => Self::RoleRevokePermission(revoke),
            Operation::TenantCreate(create) => {
                Self::TenantCreate(&create.name, &create.hosts, hash(&create.root)?)
            }
            Operation::TenantChange { name, change } => Self::TenantChange(name, change),
            Operation::TenantDelete { name } => Self::TenantDelete(name),
            Operation::QuotaSet(set) => Self::QuotaSet(set),
            Operation::PolicyChange(change) => Self::PolicyChange(change),
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
            | Operation::TenantGet { .. }
            | Operation::TenantList
            | Operation::QuotaShow(_)
            | Operation::QuotaRecount(_)
            | Operation::Observe(_)
            | Operation::PolicyAsk(_)
            | Operation::Health => return Err(CommandError::NotForTheLog(operation.method())),
        })
    }
}

impl Body {
    pub(super) fn into_operation(self) -> Result<Operation<StoredValue>, CommandError> {
        Ok(match self {
            Self::Put(put) => Operation::Put(put),
            Self::DeleteRange(delete) => Operation::DeleteRange(delete),
            Self::Txn(flat) => {
                let mut flat = flat.into_iter();
                let txn = unflatten(&mut flat, MAX_TXN_DEPTH)?;
                if flat.next().is_some() {
                    return Err(CommandError::Malformed("a nested txn that no operation names"));
                }
                Operation::Txn(txn)
            }
            Self::Compact(compact) => Operation::Compact(compact),
            Self::LeaseGrant(grant) => Operation::LeaseGrant(grant),
            Self::LeaseRevoke(revoke) => Operation::LeaseRevoke(revoke),
            Self::LeaseExpire(leases) => Operation::LeaseExpire(leases),
            Self::LeaseCheckpoint(leases) => Operation::LeaseCheckpoint(leases),
            Self::Alarm(alarm) => Operation::Alarm(alarm),
            Self::AuthEnable => Operation::AuthEnable,
            Self::AuthDisable => Operation::AuthDisable,
            Self::UserAdd(name, hash) => Operation::UserAdd(UserAdd { name, credential: credential(hash) }),
            Self::UserDelete(name) => Operation::UserDelete { name },
            Self::UserChangePassword(name, hash) => {
                Operation::UserChangePassword { name, credential: credential(hash) }
            }
            Self::UserGrantRole(user, role) => Operation::UserGrantRole { user, role },
            Self::UserRevokeRole(user, role) => Operation::UserRevokeRole { user, role },
            Self::RoleAdd(name) => Operation::RoleAdd { name },
            Self::RoleDelete(name) => Operation::RoleDelete { name },
            Self::RoleGrantPermission(grant) => Operation::RoleGrantPermission(grant),
            Self::RoleRevokePermission(revoke) => Operation::RoleRevokePermission(revoke),
            Self::TenantCreate(name, hosts, hash) => {
                Operation::TenantCreate(TenantCreate { name, hosts, root: credential(hash) })
            }
            Self::TenantChange(name, change) => Operation::TenantChange { name, change },
            Self::TenantDelete(name) => Operation::TenantDelete { name },
            Self::QuotaSet(set) => Operation::QuotaSet(set),
            Self::PolicyChange(change) => Operation::PolicyChange(change),
        })
    }
}

fn hash(credential: &Credential) -> Result<Option<&PasswordHash>, CommandError> {
    match credential {
        Credential::Hashed(hash) => Ok(Some(hash)),
        Credential::NoPassword => Ok(None),
        Credential::Password(_) => Err(CommandError::NotForTheLog("a password that is not hashed")),
    }
}

fn credential(hash: Option<PasswordHash>) -> Credential {
    hash.map_or(Credential::NoPassword, Credential::Hashed)
}

fn flatten<'a>(
    txn: &'a Txn<StoredValue>,
    depth: usize,
    flat: &mut Vec<FlatRef<'a>>,
) -> Result<(), CommandError> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let branch = |ops: &'a [TxnOp<StoredValue>]| {
        ops.iter()
            .map(|op| match op {
                TxnOp::Range(range) => FlatOpRef::Range(range),
                TxnOp::Put(put) => FlatOpRef::Put(put),
                TxnOp::DeleteRange(delete) => FlatOpRef::DeleteRange(delete),
                TxnOp::Txn(_) => FlatOpRef::Txn,
            })
            .collect()
    };
    flat.push(FlatRef {
        compare: &txn.compare,
        success: branch(&txn.success),
        failure: branch(&txn.failure),
    });
    for op in txn.success.iter().chain(&txn.failure) {
        if let TxnOp::Txn(nested) = op {
            flatten(nested, depth, flat)?;
        }
    }
    Ok(())
}

fn unflatten(flat: &mut std::vec::IntoIter<Flat>, depth: usize) -> Result<Txn<StoredValue>, CommandError> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let txn = flat.next().ok_or(CommandError::Malformed("a nested txn is missing"))?;
    let mut branch = |ops: Vec<FlatOp>| {
        ops.into_iter()
            .map(|op| {
                Ok(match op {
                    FlatOp::Range(range) => TxnOp::Range(range),
                    FlatOp::Put(put) => TxnOp::Put(put),
                    FlatOp::DeleteRange(delete) => TxnOp::DeleteRange(delete),
                    FlatOp::Txn => TxnOp::Txn(unflatten(flat, depth)?),
                })
            })
            .collect::<Result<Vec<_>, CommandError>>()
    };
    let success = branch(txn.success)?;
    let failure = branch(txn.failure)?;
    Ok(Txn { compare: txn.compare, success, failure })
}
