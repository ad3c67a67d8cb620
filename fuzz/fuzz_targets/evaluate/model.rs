//! etcd's semantics as naively as they can be told: one map of all keys for each revision.

use bytes::Bytes;
use keygate_core::{
    Answer, Compare, CompareOp, CompareTarget, DeleteRange, KeyValue, LeaseId, Operation, Put, PutLease,
    PutValue, Range, RangeAnswer, Refusal, Sealed, SortOrder, SortTarget, Txn, TxnAnswer, TxnOp,
};
use std::collections::{BTreeMap, BTreeSet};

pub type Keys = BTreeMap<Bytes, KeyValue<Sealed>>;

pub struct Model {
    /// By revision, which starts at 1.
    snapshots: Vec<Keys>,
    pub compacted: i64,
    pub leases: BTreeSet<LeaseId>,
}

/// What a watcher must be told of a change.
#[derive(PartialEq, Debug)]
pub struct Told {
    pub revision: i64,
    pub key: Bytes,
    /// None: deleted.
    pub now: Option<KeyValue<Sealed>>,
    /// The revision of the version before.
    pub before: Option<i64>,
}

impl Model {
    pub fn new() -> Self {
        Self { snapshots: vec![Keys::new()], compacted: -1, leases: BTreeSet::new() }
    }

    pub fn revision(&self) -> i64 {
        self.snapshots.len() as i64
    }

    pub fn at(&self, revision: i64) -> &Keys {
        &self.snapshots[revision as usize - 1]
    }

    pub fn now(&self) -> &Keys {
        self.at(self.revision())
    }

    pub fn run(&mut self, operation: &Operation<Sealed>) -> Result<Answer<Sealed>, Refusal> {
        let mut draft = self.now().clone();
        let answer = match operation {
            Operation::Put(put) => {
                self.check_put(put)?;
                self.put(put, &mut draft)
            }
            Operation::DeleteRange(delete) => remove(delete, &mut draft),
            Operation::Txn(txn) => {
                self.check_txn(txn)?;
                Answer::Txn(self.txn(txn, &mut draft))
            }
            Operation::Compact(compact) => {
                if compact.revision <= self.compacted {
                    return Err(Refusal::Compacted);
                }
                if compact.revision > self.revision() {
                    return Err(Refusal::FutureRevision);
                }
                self.compacted = compact.revision;
                Answer::Done
            }
            Operation::LeaseGrant(grant) => {
                if grant.id == LeaseId::NONE {
                    return Err(Refusal::LeaseNotFound);
                }
                if !self.leases.insert(grant.id) {
                    return Err(Refusal::LeaseExists);
                }
                Answer::LeaseGranted { id: grant.id, ttl: grant.ttl }
            }
            Operation::LeaseRevoke(revoke) => {
                if !self.leases.remove(&revoke.id) {
                    return Err(Refusal::LeaseNotFound);
                }
                draft.retain(|_, kv| kv.lease != revoke.id);
                Answer::Done
            }
            other => panic!("no story tells {other:?}"),
        };
        // A put always makes a new version, so equal maps mean that nothing was changed.
        if draft != *self.now() {
            self.snapshots.push(draft);
        }
        Ok(answer)
    }

    pub fn range(&self, range: &Range) -> Result<RangeAnswer<Sealed>, Refusal> {
        let at = if range.revision > 0 { range.revision } else { self.revision() };
        if at > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        if at < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(read(self.at(at), range))
    }

    /// Every change from `from` on, by revision and key: what differs from each map to the next.
    pub fn told(&self, from: i64) -> Vec<Told> {
        let mut told = Vec::new();
        for revision in from.max(2)..=self.revision() {
            let (before, now) = (self.at(revision - 1), self.at(revision));
            let keys: BTreeSet<&Bytes> = before.keys().chain(now.keys()).collect();
            for key in keys {
                if before.get(key) != now.get(key) {
                    told.push(Told {
                        revision,
                        key: key.clone(),
                        now: now.get(key).cloned(),
                        before: before.get(key).map(|kv| kv.mod_revision),
                    });
                }
            }
        }
        told
    }

    fn check_put(&self, put: &Put<Sealed>) -> Result<(), Refusal> {
        if let PutLease::Set(lease) = put.lease
            && lease != LeaseId::NONE
            && !self.leases.contains(&lease)
        {
            return Err(Refusal::LeaseNotFound);
        }
        let keeps = put.value == PutValue::Keep || put.lease == PutLease::Keep;
        if keeps && !self.now().contains_key(&put.key) { Err(Refusal::KeyNotFound) } else { Ok(()) }
    }

    /// Compares look at what was before the txn, on every level.
    fn holds(&self, compare: &Compare<Sealed>) -> bool {
        let nothing = |_: &Compare<Sealed>| match &compare.target {
            CompareTarget::Version(n)
            | CompareTarget::Create(n)
            | CompareTarget::Mod(n)
            | CompareTarget::Lease(n) => satisfied(compare.op, &0, n),
            CompareTarget::Value(_) => false,
        };
        let mut found = self.now().values().filter(|kv| compare.range.contains(&kv.key)).peekable();
        if found.peek().is_none() {
            return nothing(compare);
        }
        found.all(|kv| match &compare.target {
            CompareTarget::Version(n) => satisfied(compare.op, &kv.version, n),
            CompareTarget::Create(n) => satisfied(compare.op, &kv.create_revision, n),
            CompareTarget::Mod(n) => satisfied(compare.op, &kv.mod_revision, n),
            CompareTarget::Lease(n) => satisfied(compare.op, &kv.lease.0, n),
            CompareTarget::Value(value) => satisfied(compare.op, clear(kv), value.stored_bytes()),
        })
    }

    fn branch<'a>(&self, txn: &'a Txn<Sealed>) -> (bool, &'a [TxnOp<Sealed>]) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn check_txn(&self, txn: &Txn<Sealed>) -> Result<(), Refusal> {
        for op in self.branch(txn).1 {
            match op {
                // Other than outside a txn, a negative revision is a revision.
                TxnOp::Range(range) if range.revision > self.revision() => {
                    return Err(Refusal::FutureRevision);
                }
                TxnOp::Range(range) if range.revision != 0 && range.revision < self.compacted => {
                    return Err(Refusal::Compacted);
                }
                TxnOp::Range(_) | TxnOp::DeleteRange(_) => {}
                TxnOp::Put(put) => self.check_put(put)?,
                TxnOp::Txn(nested) => self.check_txn(nested)?,
            }
        }
        Ok(())
    }

    fn txn(&self, txn: &Txn<Sealed>, draft: &mut Keys) -> TxnAnswer<Sealed> {
        let (succeeded, ops) = self.branch(txn);
        let responses = ops.iter().map(|op| match op {
            TxnOp::Range(range) if range.revision > 0 => Answer::Range(read(self.at(range.revision), range)),
            TxnOp::Range(range) => Answer::Range(read(draft, range)),
            TxnOp::Put(put) => self.put(put, draft),
            TxnOp::DeleteRange(delete) => remove(delete, draft),
            TxnOp::Txn(nested) => Answer::Txn(self.txn(nested, draft)),
        });
        TxnAnswer { succeeded, responses: responses.collect() }
    }

    fn put(&self, put: &Put<Sealed>, draft: &mut Keys) -> Answer<Sealed> {
        let revision = self.revision() + 1;
        let mut kv = draft.get(&put.key).cloned().unwrap_or(KeyValue {
            key: put.key.clone(),
            create_revision: revision,
            mod_revision: 0,
            version: 0,
            lease: LeaseId::NONE,
            value: None,
        });
        kv.mod_revision = revision;
        kv.version += 1;
        if let PutLease::Set(lease) = put.lease {
            kv.lease = lease;
        }
        if let PutValue::Set(value) = &put.value {
            kv.value = Some(value.clone());
        }
        let prev = draft.insert(put.key.clone(), kv);
        Answer::Put { prev: prev.filter(|_| put.prev_kv) }
    }
}

fn remove(delete: &DeleteRange, draft: &mut Keys) -> Answer<Sealed> {
    let mut prev: Vec<_> = draft.values().filter(|kv| delete.range.contains(&kv.key)).cloned().collect();
    draft.retain(|key, _| !delete.range.contains(key));
    let deleted = prev.len() as i64;
    if !delete.prev_kv {
        prev.clear();
    }
    Answer::Delete { deleted, prev }
}

fn clear(kv: &KeyValue<Sealed>) -> &Bytes {
    kv.value.as_ref().expect("the model keeps every value").stored_bytes()
}

fn satisfied<T: Ord>(op: CompareOp, found: &T, operand: &T) -> bool {
    match op {
        CompareOp::Equal => found == operand,
        CompareOp::NotEqual => found != operand,
        CompareOp::Less => found < operand,
        CompareOp::Greater => found > operand,
    }
}

fn read(keys: &Keys, range: &Range) -> RangeAnswer<Sealed> {
    let mut kvs: Vec<_> = keys.values().filter(|kv| range.range.contains(&kv.key)).cloned().collect();
    let count = kvs.len() as i64;
    if range.count_only {
        return RangeAnswer { kvs: Vec::new(), more: false, count };
    }
    kvs.retain(|kv| {
        (range.min_mod_revision == 0 || kv.mod_revision >= range.min_mod_revision)
            && (range.max_mod_revision == 0 || kv.mod_revision <= range.max_mod_revision)
            && (range.min_create_revision == 0 || kv.create_revision >= range.min_create_revision)
            && (range.max_create_revision == 0 || kv.create_revision <= range.max_create_revision)
    });
    let filtered = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    if range.limit > 0 && range.sort_order == SortOrder::None && filtered == [0; 4] {
        // As etcd does: without an order the limit, and one more, is taken in key order first.
        kvs.truncate(usize::try_from(range.limit).unwrap_or(usize::MAX).saturating_add(1));
    }
    // Equal ones stay in the order of their keys, in both directions.
    kvs.sort_by(|a, b| {
        let (a, b) = if range.sort_order == SortOrder::Descend { (b, a) } else { (a, b) };
        match range.sort_target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => clear(a).cmp(clear(b)),
        }
    });
    let limit = usize::try_from(range.limit).unwrap_or(0);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if range.keys_only {
        for kv in &mut kvs {
            kv.value = None;
            if range.sort_target != SortTarget::Value {
                kv.lease = LeaseId::NONE;
            }
        }
    }
    RangeAnswer { kvs, more, count }
}
