//! Is a request well formed? Asked before anything else looks at it; etcd's own rules and order.

use crate::operation::{Operation, Put, PutLease, PutValue, Range, SortOrder, SortTarget, Txn, TxnOp};
use crate::range::KeyRange;
use crate::refusal::Refusal;
use crate::walk::ValueSize;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What the operator allows of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// etcd's `--max-txn-ops`: operations on any level of a txn, counted down through nesting.
    pub txn_operations: usize,
    /// Nesting of txns. The wire decoder's own recursion limit lies above it.
    pub txn_depth: usize,
}

/// Seconds; etcd's own bound.
pub(crate) const MAX_LEASE_TTL: i64 = 9_000_000_000;

impl<V: ValueSize> Operation<V> {
    /// Contract: pure; says the first thing that is wrong, in etcd's order.
    pub fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        match self {
            Self::Range(range) => check_range(range),
            Self::RangeStream(range) => check_range_stream(range),
            Self::Put(put) => check_put(put),
            Self::DeleteRange(delete) => some_key(delete.range.start()),
            Self::Txn(txn) => {
                check_txn(txn, Nesting::of(limits))?;
                check_duplicates(txn)
            }
            Self::LeaseGrant(grant) if grant.ttl > MAX_LEASE_TTL => Err(Refusal::LeaseTtlTooLarge),
            Self::Compact(_)
            | Self::Watch(_)
            | Self::LeaseGrant(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseKeepAlive(_)
            | Self::LeaseTimeToLive(_)
            | Self::LeaseLeases
            | Self::LeaseExpire(_)
            | Self::LeaseCheckpoint(_)
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
            | Self::PolicyChange(_)
            | Self::PolicyAsk(_)
            | Self::Health => Ok(()),
        }
    }
}

/// A request that names a key names one.
pub fn some_key(key: &Bytes) -> Result<(), Refusal> {
    if key.is_empty() { Err(Refusal::KeyNotProvided) } else { Ok(()) }
}

fn check_range(range: &Range) -> Result<(), Refusal> {
    some_key(range.range.start())
}

fn check_range_stream(range: &Range) -> Result<(), Refusal> {
    check_range(range)?;
    // Key order, however it is said: without an order the target means nothing.
    let by_key = range.sort_order == SortOrder::None
        || (range.sort_order == SortOrder::Ascend && range.sort_target == SortTarget::Key);
    if !by_key {
        return Err(Refusal::StreamSortUnsupported);
    }
    let filters = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    if filters.iter().any(|filter| *filter != 0) {
        return Err(Refusal::StreamFilterUnsupported);
    }
    Ok(())
}

fn check_put<V>(put: &Put<V>) -> Result<(), Refusal> {
    some_key(&put.key)
}

/// What a txn inside others may still have.
#[derive(Clone, Copy, Debug)]
pub struct Nesting {
    operations: usize,
    levels: usize,
    limits: Limits,
}

impl Nesting {
    /// For a txn that is in none.
    pub fn of(limits: &Limits) -> Self {
        Self { operations: limits.txn_operations, levels: limits.txn_depth, limits: *limits }
    }

    /// Looks at a txn's own length; returns what the txns in it may have. The longest of its three
    /// lists counts.
    pub fn enter(self, compares: usize, success: usize, failure: usize) -> Result<Self, Refusal> {
        let used = compares.max(success).max(failure);
        let operations = self.operations.checked_sub(used).ok_or(Refusal::TooManyOperations)?;
        let too_deep = Refusal::TxnTooDeep { limit: self.limits.txn_depth };
        let levels = self.levels.checked_sub(1).ok_or(too_deep)?;
        Ok(Self { operations, levels, ..self })
    }
}

fn check_txn<V>(txn: &Txn<V>, nesting: Nesting) -> Result<(), Refusal> {
    let nesting = nesting.enter(txn.compare.len(), txn.success.len(), txn.failure.len())?;
    for compare in &txn.compare {
        some_key(compare.range.start())?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            TxnOp::Range(range) => check_range(range)?,
            TxnOp::Put(put) => check_put(put)?,
            TxnOp::DeleteRange(delete) => some_key(delete.range.start())?,
            TxnOp::Txn(nested) => check_txn(nested, nesting)?,
        }
    }
    Ok(())
}

/// One path through a txn may change each key once. The two branches of one txn exclude each other
/// and may write the same keys; a nested txn's writes, of either branch, join its parent's.
fn check_duplicates<V>(txn: &Txn<V>) -> Result<(), Refusal> {
    branch_writes(&txn.success)?;
    branch_writes(&txn.failure)?;
    Ok(())
}

#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Deletes,
}

impl Writes {
    fn puts_hit(&self, deletes: &Deletes) -> bool {
        deletes.spans.iter().any(|range| {
            self.puts.range::<Bytes, _>(range.start()..).next().is_some_and(|key| range.contains(key))
        })
    }
}

#[derive(Default)]
struct Deletes {
    spans: Vec<KeyRange>,
}

fn branch_writes<V>(ops: &[TxnOp<V>]) -> Result<Writes, Refusal> {
    let mut writes = Writes::default();
    for op in ops {
        if let TxnOp::DeleteRange(delete) = op {
            writes.deletes.spans.push(delete.range.clone());
        }
    }
    for op in ops {
        let TxnOp::Txn(nested) = op else { continue };
        let success = branch_writes(&nested.success)?;
        let failure = branch_writes(&nested.failure)?;
        // Nested branches may share keys with each other, but with nothing outside.
        let inner: BTreeMap<Bytes, ()> =
            success.puts.iter().chain(&failure.puts).map(|key| (key.clone(), ())).collect();
        if inner.keys().any(|key| writes.puts.contains(key))
            || success.puts_hit(&writes.deletes)
            || failure.puts_hit(&writes.deletes)
            || writes.puts_hit(&success.deletes)
            || writes.puts_hit(&failure.deletes)
        {
            return Err(Refusal::DuplicateKey);
        }
        writes.puts.extend(inner.into_keys());
        writes.deletes.spans.extend(success.deletes.spans);
        writes.deletes.spans.extend(failure.deletes.spans);
    }
    for op in ops {
        let TxnOp::Put(put) = op else { continue };
        if !writes.puts.insert(put.key.clone())
            || writes.deletes.spans.iter().any(|range| range.contains(&put.key))
        {
            return Err(Refusal::DuplicateKey);
        }
    }
    Ok(writes)
}

/// `ignore_value` with a value and `ignore_lease` with a lease cannot be expressed in [`Put`]; the
/// decoder refuses them with these. Kept beside the other rules so that they are read together.
impl<V: ValueSize> Put<V> {
    pub fn value_from_wire(value: V, ignore: bool) -> Result<PutValue<V>, Refusal> {
        match (ignore, value.value_size()) {
            (false, _) => Ok(PutValue::Set(value)),
            (true, 0) => Ok(PutValue::Keep),
            (true, _) => Err(Refusal::ValueProvided),
        }
    }

    pub fn lease_from_wire(lease: i64, ignore: bool) -> Result<PutLease, Refusal> {
        match (ignore, lease) {
            (false, id) => Ok(PutLease::Set(crate::operation::LeaseId(id))),
            (true, 0) => Ok(PutLease::Keep),
            (true, _) => Err(Refusal::LeaseProvided),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Txn<crate::value::Plaintext> {
        let inner = if depth == 1 { vec![] } else { vec![TxnOp::Txn(nested(depth - 1))] };
        Txn { compare: Vec::new(), success: inner, failure: Vec::new() }
    }

    /// It said "deeper than `0`" whatever the limit was.
    #[test]
    fn a_txn_that_is_too_deep_is_told_the_limit() {
        let limits = Limits { txn_operations: 128, txn_depth: 3 };
        assert_eq!(Operation::Txn(nested(3)).check(&limits), Ok(()));
        assert_eq!(Operation::Txn(nested(4)).check(&limits), Err(Refusal::TxnTooDeep { limit: 3 }));
        let few = Limits { txn_operations: 2, txn_depth: 9 };
        assert_eq!(Operation::Txn(nested(4)).check(&few), Err(Refusal::TooManyOperations));
    }
}
