//! etcd's semantics in the most naive way: a whole copy of all keys for each revision.
//!
//! The one model of random tests: those beside it, and the fuzz target `evaluate`, which names this file.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub, reason = "tests, of which each uses a part")]

use keygate_core::*;
use keygate_engine::mvcc::StoredEvent;
use std::collections::BTreeMap;

type Keys = BTreeMap<Vec<u8>, KeyValue<Sealed>>;

pub struct Model {
    /// Revision 1 on.
    pub history: Vec<Keys>,
    pub compacted: i64,
    min_ttl: i64,
    pub leases: BTreeMap<i64, i64>,
    /// (deleted, kv, prev), of every revision.
    pub events: Vec<(bool, KeyValue<Sealed>, Option<KeyValue<Sealed>>)>,
}

type Outcome = Result<Answer<Sealed>, Refusal>;

/// A request under way.
struct Draft {
    keys: Keys,
    main: i64,
    events: Vec<(bool, KeyValue<Sealed>, Option<KeyValue<Sealed>>)>,
}

impl Model {
    pub fn new(min_ttl: i64) -> Self {
        Self {
            history: vec![Keys::new()],
            compacted: -1,
            min_ttl,
            leases: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    pub fn revision(&self) -> i64 {
        self.history.len() as i64
    }

    pub fn now(&self) -> &Keys {
        self.history.last().unwrap()
    }

    fn begin(&self) -> Draft {
        Draft { keys: self.now().clone(), main: self.revision() + 1, events: Vec::new() }
    }

    fn end(&mut self, draft: Draft) {
        if !draft.events.is_empty() {
            self.history.push(draft.keys);
            self.events.extend(draft.events);
        }
    }

    pub fn run(&mut self, operation: &Operation<Sealed>) -> Outcome {
        match operation {
            Operation::Put(put) => {
                self.check_put(put)?;
                let mut draft = self.begin();
                let answer = draft.put(put);
                self.end(draft);
                Ok(answer)
            }
            Operation::DeleteRange(delete) => {
                let mut draft = self.begin();
                let answer = draft.delete(delete);
                self.end(draft);
                Ok(answer)
            }
            Operation::Txn(txn) => {
                self.check_txn(txn)?;
                let mut draft = self.begin();
                let answer = self.txn(txn, &mut draft);
                self.end(draft);
                Ok(Answer::Txn(answer))
            }
            Operation::Compact(compact) if compact.revision <= self.compacted => Err(Refusal::Compacted),
            Operation::Compact(compact) if compact.revision > self.revision() => Err(Refusal::FutureRevision),
            Operation::Compact(compact) => {
                self.compacted = compact.revision;
                Ok(Answer::Done)
            }
            Operation::LeaseGrant(grant) if grant.id == LeaseId::NONE => Err(Refusal::LeaseNotFound),
            Operation::LeaseGrant(grant) if self.leases.contains_key(&grant.id.0) => {
                Err(Refusal::LeaseExists)
            }
            Operation::LeaseGrant(grant) => {
                let ttl = grant.ttl.max(self.min_ttl);
                self.leases.insert(grant.id.0, ttl);
                Ok(Answer::LeaseGranted { id: grant.id, ttl })
            }
            Operation::LeaseRevoke(revoke) => self.revoke(revoke.id),
            Operation::LeaseExpire(leases) => {
                for id in leases {
                    let _ = self.revoke(*id);
                }
                Ok(Answer::Done)
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn attached(&self, id: LeaseId) -> Vec<Vec<u8>> {
        self.now().iter().filter(|(_, kv)| kv.lease == id).map(|(key, _)| key.clone()).collect()
    }

    fn revoke(&mut self, id: LeaseId) -> Outcome {
        self.leases.remove(&id.0).ok_or(Refusal::LeaseNotFound)?;
        let mut draft = self.begin();
        for key in self.attached(id) {
            draft.delete(&DeleteRange { range: KeyRange::Single(key.into()), prev_kv: false });
        }
        self.end(draft);
        Ok(Answer::Done)
    }

    fn check_put(&self, put: &Put<Sealed>) -> Result<(), Refusal> {
        if let PutLease::Set(id) = put.lease
            && id.0 != 0
            && !self.leases.contains_key(&id.0)
        {
            return Err(Refusal::LeaseNotFound);
        }
        let keeps = put.value == PutValue::Keep || put.lease == PutLease::Keep;
        if keeps && !self.now().contains_key(&put.key[..]) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn branch<'a>(&self, txn: &'a Txn<Sealed>) -> (bool, &'a [TxnOp<Sealed>]) {
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        (holds, if holds { &txn.success } else { &txn.failure })
    }

    fn check_txn(&self, txn: &Txn<Sealed>) -> Result<(), Refusal> {
        for op in self.branch(txn).1 {
            match op {
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

    fn txn(&self, txn: &Txn<Sealed>, draft: &mut Draft) -> TxnAnswer<Sealed> {
        let (succeeded, ops) = self.branch(txn);
        let mut responses = Vec::new();
        for op in ops {
            responses.push(match op {
                TxnOp::Range(range) if range.revision > 0 && range.revision < draft.main => {
                    Answer::Range(read(&self.history[range.revision as usize - 1], range))
                }
                TxnOp::Range(range) => Answer::Range(read(&draft.keys, range)),
                TxnOp::Put(put) => draft.put(put),
                TxnOp::DeleteRange(delete) => draft.delete(delete),
                TxnOp::Txn(nested) => Answer::Txn(self.txn(nested, draft)),
            });
        }
        TxnAnswer { succeeded, responses }
    }

    fn holds(&self, compare: &Compare<Sealed>) -> bool {
        let found: Vec<_> = self.now().iter().filter(|(key, _)| compare.range.contains(key)).collect();
        let ordering = |kv: Option<&KeyValue<Sealed>>| {
            let number = |read: fn(&KeyValue<Sealed>) -> i64| kv.map_or(0, read);
            Some(match &compare.target {
                CompareTarget::Version(n) => number(|kv| kv.version).cmp(n),
                CompareTarget::Create(n) => number(|kv| kv.create_revision).cmp(n),
                CompareTarget::Mod(n) => number(|kv| kv.mod_revision).cmp(n),
                CompareTarget::Lease(n) => number(|kv| kv.lease.0).cmp(n),
                CompareTarget::Value(value) => kv?.value.as_ref().unwrap().compare(value),
            })
        };
        let holds = |kv| {
            ordering(kv).is_some_and(|ordering| match compare.op {
                CompareOp::Equal => ordering.is_eq(),
                CompareOp::NotEqual => ordering.is_ne(),
                CompareOp::Greater => ordering.is_gt(),
                CompareOp::Less => ordering.is_lt(),
            })
        };
        if found.is_empty() { holds(None) } else { found.iter().all(|(_, kv)| holds(Some(*kv))) }
    }

    pub fn range(&self, range: &Range) -> Result<RangeAnswer<Sealed>, Refusal> {
        self.range_without(range, &[])
    }

    /// Of a store that never held the keys of `hidden`.
    pub fn range_without(&self, range: &Range, hidden: &[KeyRange]) -> Result<RangeAnswer<Sealed>, Refusal> {
        let at = if range.revision <= 0 { self.revision() } else { range.revision };
        if at > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        if at < self.compacted {
            return Err(Refusal::Compacted);
        }
        let mut keys = self.history[at as usize - 1].clone();
        keys.retain(|key, _| !hidden.iter().any(|hidden| hidden.contains(key)));
        Ok(read(&keys, range))
    }

    /// Does `event` tell what happened? Where the value of `prev` is in the store only its revision is compared.
    pub fn check_event(&self, event: &StoredEvent, expected: usize, compacted: i64) {
        let (deleted, kv, prev) = &self.events[expected];
        assert_eq!((event.deleted, &event.kv), (*deleted, kv));
        let seen = |prev: &KeyValue<Sealed>| (prev.mod_revision, prev.version, prev.create_revision);
        let visible = prev.as_ref().filter(|_| kv.mod_revision > compacted);
        assert_eq!(event.prev.as_ref().map(seen), visible.map(seen), "{event:?}");
        if !event.prev_in_store {
            assert_eq!(event.prev.as_ref(), visible);
        }
    }
}

impl Draft {
    fn put(&mut self, put: &Put<Sealed>) -> Answer<Sealed> {
        let prev = self.keys.get(&put.key[..]).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: prev.as_ref().map_or(self.main, |kv| kv.create_revision),
            mod_revision: self.main,
            version: prev.as_ref().map_or(0, |kv| kv.version) + 1,
            lease: match put.lease {
                PutLease::Set(lease) => lease,
                PutLease::Keep => prev.as_ref().unwrap().lease,
            },
            value: match &put.value {
                PutValue::Set(value) => Some(value.clone()),
                PutValue::Keep => prev.as_ref().unwrap().value.clone(),
            },
        };
        self.keys.insert(put.key.to_vec(), kv.clone());
        self.events.push((false, kv, prev.clone()));
        Answer::Put { prev: prev.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRange) -> Answer<Sealed> {
        let keys: Vec<_> = self.keys.keys().filter(|key| delete.range.contains(key)).cloned().collect();
        let mut prev = Vec::new();
        for key in &keys {
            let old = self.keys.remove(key).unwrap();
            let kv = KeyValue {
                key: old.key.clone(),
                create_revision: 0,
                mod_revision: self.main,
                version: 0,
                lease: LeaseId::NONE,
                value: None,
            };
            self.events.push((true, kv, Some(old.clone())));
            prev.push(old);
        }
        if !delete.prev_kv {
            prev.clear();
        }
        Answer::Delete { deleted: keys.len() as i64, prev }
    }
}

fn read(keys: &Keys, range: &Range) -> RangeAnswer<Sealed> {
    let mut kvs: Vec<_> =
        keys.iter().filter(|(key, _)| range.range.contains(key)).map(|(_, kv)| kv.clone()).collect();
    let count = kvs.len() as i64;
    if range.count_only {
        return RangeAnswer { kvs: vec![], more: false, count };
    }
    let within = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
    kvs.retain(|kv| within(kv.mod_revision, range.min_mod_revision, range.max_mod_revision));
    kvs.retain(|kv| within(kv.create_revision, range.min_create_revision, range.max_create_revision));
    let filtered = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    if range.limit > 0 && range.sort_order == SortOrder::None && filtered == [0; 4] {
        // etcd fetches one more than the limit in key order, and only then looks at the target.
        kvs.truncate(range.limit as usize + 1);
    }
    let descend = range.sort_order == SortOrder::Descend;
    kvs.sort_by(|a, b| {
        let ordering = match range.sort_target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.as_ref().unwrap().compare(b.value.as_ref().unwrap()),
        };
        if descend { ordering.reverse() } else { ordering }
    });
    let more = range.limit > 0 && kvs.len() > range.limit as usize;
    if more {
        kvs.truncate(range.limit as usize);
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
