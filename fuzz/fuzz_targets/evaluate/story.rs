//! What the fuzzer's bytes can say: small keys, few leases, and numbers near those that mean something.

use arbitrary::Arbitrary;
use bytes::Bytes;
use keygate_core::{self as core, KeyRange, LeaseId, Operation, Plaintext, Sealed};

#[derive(Arbitrary, Debug)]
pub struct Step {
    pub act: Act,
    /// Asked behind the act.
    pub look: Query,
}

#[derive(Arbitrary, Debug)]
pub enum Act {
    Put(Put),
    Delete(Delete),
    Txn(Txn),
    Compact(Number),
    Grant(Lease),
    Revoke(Lease),
    /// What happens around the state machine; no answer may show it.
    Disturb(Disturbance),
}

#[derive(Arbitrary, Debug)]
pub enum Disturbance {
    Seal,
    /// All but this many batches reach the store.
    Flush(u8),
    Prune(u8),
    Evict(u16, u8),
    /// Restart with a budget of memory.
    Reload(u8),
}

#[derive(Arbitrary, Debug)]
pub struct Put {
    key: Key,
    value: Value,
    /// Most puts set both; one that keeps is refused unless the key is there.
    keep_value: Seldom,
    lease: Seldom,
    keep_lease: Seldom,
    prev_kv: bool,
}

/// The number of the lease, or yes, where it is not 0.
#[derive(Arbitrary, Debug)]
struct Seldom(u8);

#[derive(Arbitrary, Debug)]
pub struct Delete {
    range: Keys,
    prev_kv: bool,
}

#[derive(Arbitrary, Debug)]
pub struct Txn {
    compare: Vec<Compare>,
    success: Vec<TxnOp>,
    failure: Vec<TxnOp>,
}

#[derive(Arbitrary, Debug)]
enum TxnOp {
    Range(Query),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
}

#[derive(Arbitrary, Debug)]
struct Compare {
    range: Keys,
    op: u8,
    target: Target,
}

#[derive(Arbitrary, Debug)]
enum Target {
    Version(i8),
    Create(Number),
    Mod(Number),
    Lease(Lease),
    Value(Value),
}

#[derive(Arbitrary, Debug)]
pub struct Query {
    range: Keys,
    limit: Number,
    revision: Number,
    order: u8,
    target: u8,
    keys_only: bool,
    count_only: bool,
    filtered: Seldom,
    filters: [Number; 4],
}

#[derive(Arbitrary, Debug)]
struct Key(u8);

#[derive(Arbitrary, Debug)]
struct Value(u8);

#[derive(Arbitrary, Debug)]
pub struct Lease(u8);

#[derive(Arbitrary, Debug)]
enum Keys {
    One(Key),
    Between(Key, Key),
    From(Key),
    All,
}

/// A revision, or a limit.
#[derive(Arbitrary, Debug)]
pub enum Number {
    Zero,
    Small(i8),
    /// This much before the revision after the current one.
    Back(u8),
    Least,
    Greatest,
}

impl Number {
    fn at(&self, revision: i64) -> i64 {
        match self {
            Self::Zero => 0,
            Self::Small(number) => i64::from(*number),
            Self::Back(back) => revision + 1 - i64::from(back % 16),
            Self::Least => i64::MIN,
            Self::Greatest => i64::MAX,
        }
    }
}

impl Seldom {
    fn get(&self) -> i64 {
        i64::from(self.0 % 16).saturating_sub(12).max(0)
    }
}

impl Key {
    fn bytes(&self) -> Bytes {
        let keys: [&[u8]; 8] = [b"a", b"b", b"ba", b"b\0", b"c", b"\xff", b"\xff\xff", b"\0"];
        Bytes::from_static(keys[usize::from(self.0 % 8)])
    }
}

impl Value {
    fn sealed(&self) -> Sealed {
        Sealed::stored_in_clear(Plaintext::new(vec![self.0; usize::from(self.0 % 5)].into()))
    }
}

impl Lease {
    pub fn id(&self) -> LeaseId {
        LeaseId(i64::from(self.0 % 4))
    }
}

impl Keys {
    fn range(&self) -> KeyRange {
        match self {
            Self::One(key) => KeyRange::Single(key.bytes()),
            Self::Between(start, end) => KeyRange::Span { start: start.bytes(), end: end.bytes() },
            Self::From(key) => KeyRange::From(key.bytes()),
            Self::All => KeyRange::From(Bytes::from_static(b"\0")),
        }
    }
}

impl Act {
    /// None for a disturbance.
    pub fn operation(&self, revision: i64) -> Option<Operation<Sealed>> {
        Some(match self {
            Self::Put(put) => Operation::Put(put.core()),
            Self::Delete(delete) => Operation::DeleteRange(delete.core()),
            Self::Txn(txn) => Operation::Txn(txn.core(revision)),
            Self::Compact(number) => {
                Operation::Compact(core::Compact { revision: number.at(revision), physical: false })
            }
            Self::Grant(lease) => Operation::LeaseGrant(core::LeaseGrant { id: lease.id(), ttl: 60 }),
            Self::Revoke(lease) => Operation::LeaseRevoke(core::LeaseRevoke { id: lease.id() }),
            Self::Disturb(_) => return None,
        })
    }
}

impl Put {
    fn core(&self) -> core::Put<Sealed> {
        core::Put {
            key: self.key.bytes(),
            value: match self.keep_value.get() {
                0 => core::PutValue::Set(self.value.sealed()),
                _ => core::PutValue::Keep,
            },
            lease: match self.keep_lease.get() {
                0 => core::PutLease::Set(LeaseId(self.lease.get())),
                _ => core::PutLease::Keep,
            },
            prev_kv: self.prev_kv,
        }
    }
}

impl Delete {
    fn core(&self) -> core::DeleteRange {
        core::DeleteRange { range: self.range.range(), prev_kv: self.prev_kv }
    }
}

impl Txn {
    fn core(&self, revision: i64) -> core::Txn<Sealed> {
        let branch = |ops: &[TxnOp]| ops.iter().map(|op| op.core(revision)).collect();
        core::Txn {
            compare: self.compare.iter().map(|compare| compare.core(revision)).collect(),
            success: branch(&self.success),
            failure: branch(&self.failure),
        }
    }
}

impl TxnOp {
    fn core(&self, revision: i64) -> core::TxnOp<Sealed> {
        match self {
            Self::Range(query) => core::TxnOp::Range(query.core(revision)),
            Self::Put(put) => core::TxnOp::Put(put.core()),
            Self::Delete(delete) => core::TxnOp::DeleteRange(delete.core()),
            Self::Txn(txn) => core::TxnOp::Txn(txn.core(revision)),
        }
    }
}

impl Compare {
    fn core(&self, revision: i64) -> core::Compare<Sealed> {
        use core::CompareOp::{Equal, Greater, Less, NotEqual};
        core::Compare {
            range: self.range.range(),
            op: [Equal, NotEqual, Less, Greater][usize::from(self.op % 4)],
            target: match &self.target {
                Target::Version(number) => core::CompareTarget::Version((*number).into()),
                Target::Create(number) => core::CompareTarget::Create(number.at(revision)),
                Target::Mod(number) => core::CompareTarget::Mod(number.at(revision)),
                Target::Lease(lease) => core::CompareTarget::Lease(lease.id().0),
                Target::Value(value) => core::CompareTarget::Value(value.sealed()),
            },
        }
    }
}

impl Query {
    pub fn core(&self, revision: i64) -> core::Range {
        use core::SortOrder::{Ascend, Descend, None};
        use core::SortTarget::{Create, Key, Mod, Value, Version};
        let mut range = core::Range::of(self.range.range());
        range.limit = self.limit.at(revision);
        range.revision = self.revision.at(revision);
        range.sort_order = [None, Ascend, Descend][usize::from(self.order % 3)];
        range.sort_target = [Key, Version, Create, Mod, Value][usize::from(self.target % 5)];
        range.keys_only = self.keys_only;
        range.count_only = self.count_only;
        if self.filtered.get() != 0 {
            let filters = &self.filters;
            range.min_mod_revision = filters[0].at(revision);
            range.max_mod_revision = filters[1].at(revision);
            range.min_create_revision = filters[2].at(revision);
            range.max_create_revision = filters[3].at(revision);
        }
        range
    }
}
