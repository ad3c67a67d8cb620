//! May a write be done? Asked after everything else that can refuse it, before it changes anything.
//!
//! A limit stands against what grows: puts that add a key, bytes or history beyond it. Deletes, revocations, expiry and
//! compactions always pass, and so does a put, or a txn on balance, that adds none of what is used up.

use super::super::keyspace::Keyspace;
use super::super::txn::Path;
use super::super::value::StoredValue;
use super::{Delta, Scope};
use keygate_core::{KeyRange, Put, PutValue, QuotaBound, QuotaKind, QuotaLimits, QuotaUse, Refusal, TxnOp};
use smallvec::SmallVec;
use std::collections::BTreeSet;

/// What a request adds to each counter that a limit may stand against.
#[derive(Default)]
struct Growth {
    whole: Delta,
    /// By place, of those prefixes that hold a key of the request.
    scopes: SmallVec<[(usize, Delta); 4]>,
}

impl Growth {
    fn add(&mut self, keyspace: &Keyspace, key: &[u8], delta: Delta) {
        self.whole.add(delta);
        let quotas = &keyspace.quota;
        let mut next = quotas.innermost(key);
        while let Some(at) = next {
            match self.scopes.iter_mut().find(|(other, _)| *other == at) {
                Some((_, sum)) => sum.add(delta),
                None => self.scopes.push((at, delta)),
            }
            next = quotas.scopes[at].parent;
        }
    }

    fn of_scope(&self, at: usize) -> Delta {
        self.scopes.iter().find(|(other, _)| *other == at).map(|(_, delta)| *delta).unwrap_or_default()
    }
}

impl Keyspace {
    pub(in super::super) fn check_quota_of_put(&self, put: &Put<StoredValue>) -> Result<(), Refusal> {
        if self.quota.is_free() {
            return Ok(());
        }
        let mut puts = Growth::default();
        puts.add(self, &put.key, self.delta_of_put(put));
        self.check_growth(&puts, &Growth::default())
    }

    pub(in super::super) fn check_quota_of_txn(&self, path: &Path<'_, StoredValue>) -> Result<(), Refusal> {
        if self.quota.is_free() {
            return Ok(());
        }
        let (mut puts, mut deletes) = (Growth::default(), Vec::new());
        self.add_path(path, &mut puts, &mut deletes);
        if puts.whole == Delta::default() && puts.scopes.is_empty() {
            return Ok(());
        }
        // Deletes make room for keys and bytes, so what fits without them fits; they add to history.
        let limits_history = self.quota.limits.history.is_some()
            || self.quota.scopes.iter().any(|s| s.limits.history.is_some());
        let without = self.check_growth(&puts, &Growth::default());
        if deletes.is_empty() || (without.is_ok() && !limits_history) {
            return without;
        }
        // No key is put and deleted by one path, so the two can be added up in any order.
        self.check_growth(&puts, &self.deleted(&deletes))
    }

    fn add_path<'a>(&self, path: &Path<'a, StoredValue>, puts: &mut Growth, deletes: &mut Vec<&'a KeyRange>) {
        let mut nested = path.nested.iter();
        for op in path.ops {
            match op {
                TxnOp::Range(_) => {}
                TxnOp::Put(put) => puts.add(self, &put.key, self.delta_of_put(put)),
                TxnOp::DeleteRange(delete) => deletes.push(&delete.range),
                TxnOp::Txn(_) => {
                    if let Some(path) = nested.next() {
                        self.add_path(path, puts, deletes);
                    }
                }
            }
        }
    }

    fn delta_of_put(&self, put: &Put<StoredValue>) -> Delta {
        let entry = self.index.get::<[u8]>(&put.key).filter(|entry| entry.is_live());
        let old = entry.map(|entry| entry.value_len());
        let new = match &put.value {
            PutValue::Set(value) => Some(value.sealed().len() as u64),
            PutValue::Keep => old,
        };
        Delta::of(&put.key, old, new)
    }

    /// Ranges may overlap; each key goes once.
    fn deleted(&self, ranges: &[&KeyRange]) -> Growth {
        let mut growth = Growth::default();
        let mut seen = BTreeSet::new();
        for range in ranges {
            for (key, entry) in self.entries(range).filter(|(_, entry)| entry.is_live()) {
                if ranges.len() == 1 || seen.insert(key.as_ref()) {
                    growth.add(self, key, Delta::of(key, Some(entry.value_len()), None));
                }
            }
        }
        growth
    }

    fn check_growth(&self, puts: &Growth, deletes: &Growth) -> Result<(), Refusal> {
        within(&self.quota.limits, self.used(), puts.whole, deletes.whole, &[])?;
        for (at, delta) in &puts.scopes {
            let Scope { prefix, limits, .. } = self.quota.scopes[*at].as_ref();
            within(limits, self.quota.scopes[*at].used(), *delta, deletes.of_scope(*at), prefix)?;
        }
        Ok(())
    }

    /// Whether it, or a prefix of it, is limited.
    pub fn has_quotas(&self) -> bool {
        !self.quota.is_free()
    }

    pub fn history_bytes(&self) -> u64 {
        self.quota.history_bytes()
    }

    /// The limit of bytes of the whole keyspace.
    pub fn byte_quota(&self) -> Option<u64> {
        self.quota.limits.bytes
    }

    /// How much the whole keyspace holds.
    pub(in super::super) fn used(&self) -> QuotaUse {
        QuotaUse { keys: self.key_count(), bytes: self.current_bytes(), history: self.quota.history_bytes() }
    }
}

fn within(
    limits: &QuotaLimits,
    used: QuotaUse,
    puts: Delta,
    deletes: Delta,
    prefix: &[u8],
) -> Result<(), Refusal> {
    let added = |kind| match kind {
        QuotaKind::Keys => puts.keys + deletes.keys,
        QuotaKind::Bytes => puts.bytes + deletes.bytes,
        // What deletes leave behind counts, but does not make a request one that grows.
        QuotaKind::History if puts.history == 0 => 0,
        QuotaKind::History => puts.history.saturating_add(deletes.history) as i64,
    };
    for kind in QuotaKind::ALL {
        let (Some(limit), used, added) = (limits.of(kind), used.of(kind), added(kind)) else { continue };
        if added > 0 && used.saturating_add(added.unsigned_abs()) > limit {
            let prefix = bytes::Bytes::copy_from_slice(prefix);
            return Err(Refusal::QuotaReached(Box::new(QuotaBound { kind, prefix, limit, used })));
        }
    }
    Ok(())
}
