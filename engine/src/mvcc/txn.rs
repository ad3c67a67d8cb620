//! Txns: compares choose the path through all levels first, on the state before; then everything that can be refused is
//! checked; only then the first operation runs.

use super::effects::Effects;
use super::keyspace::Keyspace;
use super::read::{ReadError, check_wanted};
use super::row::RowSource;
use super::state::Stop;
use super::value::{AsSealed, StoredValue};
use super::write::Writing;
use keygate_core::{
    Answer, Compare, CompareOp, CompareTarget, Range, Refusal, Sealed, Sight, Txn, TxnAnswer, TxnOp,
};
use std::cmp::Ordering;

/// A txn with its decisions taken.
pub(super) struct Path<'a, V> {
    pub(super) succeeded: bool,
    pub(super) ops: &'a [TxnOp<V>],
    /// Of the txns among `ops`, in order.
    pub(super) nested: Vec<Path<'a, V>>,
}

impl<'a, V: AsSealed> Path<'a, V> {
    pub(super) fn of(keyspace: &Keyspace, txn: &'a Txn<V>, rows: &dyn RowSource) -> Result<Self, ReadError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            if !keyspace.holds(compare, rows)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let mut nested = Vec::new();
        for op in ops {
            if let TxnOp::Txn(txn) = op {
                nested.push(Self::of(keyspace, txn, rows)?);
            }
        }
        Ok(Self { succeeded, ops, nested })
    }
}

impl Keyspace {
    fn holds<V: AsSealed>(&self, compare: &Compare<V>, rows: &dyn RowSource) -> Result<bool, ReadError> {
        let mut found = false;
        for (step, (key, entry)) in self.entries(&compare.range).enumerate() {
            check_wanted(step, rows)?;
            if !entry.is_live() {
                continue;
            }
            found = true;
            let version = entry.current();
            let ordering = match &compare.target {
                CompareTarget::Version(number) => version.version.cmp(number),
                CompareTarget::Create(number) => version.create.cmp(number),
                CompareTarget::Mod(number) => version.main.cmp(number),
                CompareTarget::Lease(number) => entry.lease().0.cmp(number),
                CompareTarget::Value(value) => {
                    let kv = self
                        .load(key, entry, &version, rows)
                        .map_err(|error| self.explain(error, self.revision, false))?;
                    match &kv.value {
                        Some(stored) => stored.compare(value.as_sealed()),
                        None => return Err(ReadError::Corrupt("a row has no value".to_owned())),
                    }
                }
            };
            if !satisfies(compare.op, ordering) {
                return Ok(false);
            }
        }
        if found {
            return Ok(true);
        }
        // What is not there compares as zero, but has no value that could be compared.
        Ok(match &compare.target {
            CompareTarget::Version(number)
            | CompareTarget::Create(number)
            | CompareTarget::Mod(number)
            | CompareTarget::Lease(number) => satisfies(compare.op, 0.cmp(number)),
            CompareTarget::Value(_) => false,
        })
    }

    pub(super) fn txn(
        &mut self,
        txn: &Txn<StoredValue>,
        rows: &dyn RowSource,
        effects: &mut Effects,
    ) -> Result<TxnAnswer<Sealed>, Stop> {
        let path = Path::of(self, txn, rows)?;
        self.check_path(&path)?;
        self.check_quota_of_txn(&path)?;
        let mut writing = Writing::begin(self);
        let answer = self.run(&path, &mut writing, rows, effects)?;
        self.commit(&writing);
        Ok(answer)
    }

    fn check_path(&self, path: &Path<'_, StoredValue>) -> Result<(), Refusal> {
        let mut nested = path.nested.iter();
        for op in path.ops {
            match op {
                TxnOp::Range(range) => self.check_range(range)?,
                TxnOp::Put(put) => self.check_put(put)?,
                TxnOp::DeleteRange(_) => {}
                TxnOp::Txn(_) => {
                    if let Some(path) = nested.next() {
                        self.check_path(path)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Negative revisions are looked at as numbers here, unlike outside a txn.
    pub(super) fn check_range(&self, range: &Range) -> Result<(), Refusal> {
        match range.revision {
            0 => Ok(()),
            revision if revision > self.revision => Err(Refusal::FutureRevision),
            revision if revision < self.compact_revision => Err(Refusal::Compacted),
            _ => Ok(()),
        }
    }

    fn run(
        &mut self,
        path: &Path<'_, StoredValue>,
        writing: &mut Writing,
        rows: &dyn RowSource,
        effects: &mut Effects,
    ) -> Result<TxnAnswer<Sealed>, Stop> {
        let mut responses = Vec::with_capacity(path.ops.len());
        let mut nested = path.nested.iter();
        for op in path.ops {
            responses.push(match op {
                TxnOp::Range(range) => {
                    Answer::Range(self.range_at(range, &Sight::WHOLE, writing.visible(), rows)?)
                }
                TxnOp::Put(put) => self.put(put, writing, rows, effects)?,
                TxnOp::DeleteRange(delete) => self.delete_range(delete, writing, rows, effects)?,
                TxnOp::Txn(_) => match nested.next() {
                    Some(path) => Answer::Txn(self.run(path, writing, rows, effects)?),
                    None => return Err(Refusal::Internal { cause: "a nested txn has no path" }.into()),
                },
            });
        }
        Ok(TxnAnswer { succeeded: path.succeeded, responses })
    }
}

fn satisfies(op: CompareOp, ordering: Ordering) -> bool {
    match op {
        CompareOp::Equal => ordering.is_eq(),
        CompareOp::NotEqual => ordering.is_ne(),
        CompareOp::Greater => ordering.is_gt(),
        CompareOp::Less => ordering.is_lt(),
    }
}
