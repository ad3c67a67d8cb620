//! Ranges, puts, deletions and txns. A missing key is refused before anything else about the request is, as etcd does.

use keygate_core::{
    Compact, Compare, CompareOp, CompareTarget, DeleteRange, KeyRange, Limits, Nesting, Plaintext, Put,
    Range, Refusal, SortOrder, SortTarget, Txn, TxnOp, some_key,
};
use keygate_proto::etcdserverpb as pb;
use pb::{compare, range_request, request_op};

use super::Rejection;

pub(super) fn range(request: pb::RangeRequest) -> Result<Range, Rejection> {
    let pb::RangeRequest {
        key,
        range_end,
        limit,
        revision,
        sort_order,
        sort_target,
        serializable,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    } = request;
    some_key(&key)?;
    Ok(Range {
        range: KeyRange::from_wire(key, range_end),
        limit,
        revision,
        sort_order: self::sort_order(sort_order)?,
        sort_target: self::sort_target(sort_target)?,
        serializable,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

fn sort_order(number: i32) -> Result<SortOrder, Refusal> {
    use range_request::SortOrder as Wire;
    match Wire::try_from(number) {
        Ok(Wire::None) => Ok(SortOrder::None),
        Ok(Wire::Ascend) => Ok(SortOrder::Ascend),
        Ok(Wire::Descend) => Ok(SortOrder::Descend),
        Err(_) => Err(Refusal::InvalidSortOption),
    }
}

fn sort_target(number: i32) -> Result<SortTarget, Refusal> {
    use range_request::SortTarget as Wire;
    match Wire::try_from(number) {
        Ok(Wire::Key) => Ok(SortTarget::Key),
        Ok(Wire::Version) => Ok(SortTarget::Version),
        Ok(Wire::Create) => Ok(SortTarget::Create),
        Ok(Wire::Mod) => Ok(SortTarget::Mod),
        Ok(Wire::Value) => Ok(SortTarget::Value),
        Err(_) => Err(Refusal::InvalidSortOption),
    }
}

pub(super) fn put(request: pb::PutRequest) -> Result<Put<Plaintext>, Rejection> {
    let pb::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease } = request;
    some_key(&key)?;
    Ok(Put {
        key,
        value: Put::value_from_wire(Plaintext::new(value), ignore_value)?,
        lease: Put::<Plaintext>::lease_from_wire(lease, ignore_lease)?,
        prev_kv,
    })
}

pub(super) fn delete_range(request: pb::DeleteRangeRequest) -> Result<DeleteRange, Rejection> {
    let pb::DeleteRangeRequest { key, range_end, prev_kv } = request;
    some_key(&key)?;
    Ok(DeleteRange { range: KeyRange::from_wire(key, range_end), prev_kv })
}

pub(super) fn compact(request: pb::CompactionRequest) -> Compact {
    let pb::CompactionRequest { revision, physical } = request;
    Compact { revision, physical }
}

/// Counts and keys are looked at on the way down, in etcd's order, so that of two things that are
/// wrong with a txn the same one is reported.
pub(super) fn txn(request: pb::TxnRequest, limits: &Limits) -> Result<Txn<Plaintext>, Rejection> {
    nested_txn(request, Nesting::of(limits))
}

fn nested_txn(request: pb::TxnRequest, nesting: Nesting) -> Result<Txn<Plaintext>, Rejection> {
    let pb::TxnRequest { compare, success, failure } = request;
    let nesting = nesting.enter(compare.len(), success.len(), failure.len())?;
    let compare = compare.into_iter().map(self::compare).collect::<Result<_, _>>()?;
    let branch = |ops: Vec<pb::RequestOp>| {
        ops.into_iter()
            .map(|pb::RequestOp { request }| {
                // An operation of a kind that does not exist is to etcd a key that does not exist.
                Ok(match request.ok_or(Refusal::KeyNotFound)? {
                    request_op::Request::RequestRange(request) => TxnOp::Range(range(request)?),
                    request_op::Request::RequestPut(request) => TxnOp::Put(put(request)?),
                    request_op::Request::RequestDeleteRange(request) => {
                        TxnOp::DeleteRange(delete_range(request)?)
                    }
                    request_op::Request::RequestTxn(request) => TxnOp::Txn(nested_txn(request, nesting)?),
                })
            })
            .collect::<Result<Vec<_>, Rejection>>()
    };
    let success = branch(success)?;
    let failure = branch(failure)?;
    Ok(Txn { compare, success, failure })
}

fn compare(request: pb::Compare) -> Result<Compare<Plaintext>, Rejection> {
    let pb::Compare { result, target, key, range_end, target_union } = request;
    some_key(&key)?;
    let range = KeyRange::from_wire(key, range_end);
    let target = self::compare_target(target, target_union);
    let op = self::compare_op(result);
    let (op, target) = match (op, target) {
        (Some(op), Some(target)) => (op, target),
        // What etcd makes of numbers that it does not know, in terms that mean something. Versions
        // are never negative, and above 0 where the key exists.
        (None, Some(CompareTarget::Value(_))) => (CompareOp::Greater, CompareTarget::Version(0)),
        (None, _) => ALWAYS,
        // An unknown target is compared as equal.
        (Some(CompareOp::Equal), None) => ALWAYS,
        (Some(CompareOp::NotEqual | CompareOp::Greater | CompareOp::Less), None) => NEVER,
    };
    Ok(Compare { range, op, target })
}

const ALWAYS: (CompareOp, CompareTarget<Plaintext>) = (CompareOp::Greater, CompareTarget::Version(-1));
const NEVER: (CompareOp, CompareTarget<Plaintext>) = (CompareOp::Less, CompareTarget::Version(-1));

fn compare_op(number: i32) -> Option<CompareOp> {
    use compare::CompareResult as Wire;
    Some(match Wire::try_from(number).ok()? {
        Wire::Equal => CompareOp::Equal,
        Wire::Greater => CompareOp::Greater,
        Wire::Less => CompareOp::Less,
        Wire::NotEqual => CompareOp::NotEqual,
    })
}

/// The operand counts only where it is of the target's kind; else the kind's zero stands in.
fn compare_target(number: i32, operand: Option<compare::TargetUnion>) -> Option<CompareTarget<Plaintext>> {
    use compare::{CompareTarget as Wire, TargetUnion as Operand};
    Some(match (Wire::try_from(number).ok()?, operand) {
        (Wire::Version, Some(Operand::Version(version))) => CompareTarget::Version(version),
        (Wire::Version, _) => CompareTarget::Version(0),
        (Wire::Create, Some(Operand::CreateRevision(revision))) => CompareTarget::Create(revision),
        (Wire::Create, _) => CompareTarget::Create(0),
        (Wire::Mod, Some(Operand::ModRevision(revision))) => CompareTarget::Mod(revision),
        (Wire::Mod, _) => CompareTarget::Mod(0),
        (Wire::Value, Some(Operand::Value(value))) => CompareTarget::Value(Plaintext::new(value)),
        (Wire::Value, _) => CompareTarget::Value(Plaintext::default()),
        (Wire::Lease, Some(Operand::Lease(lease))) => CompareTarget::Lease(lease),
        (Wire::Lease, _) => CompareTarget::Lease(0),
    })
}
