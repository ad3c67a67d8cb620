//! How far a request goes through the index, found out without going any further than is allowed.
//!
//! Entries are what costs: those of deleted keys, which stay until a compaction, and those that a filter or a limit
//! leaves out are walked over like others. What is decided here therefore depends on how far a compaction has come,
//! and may only be asked before a command is in the log.

use super::keyspace::Keyspace;
use super::read::{ReadError, check_wanted, covers_everything};
use super::row::RowSource;
use keygate_core::{KeyRange, Range, Sight, Txn, TxnOp};

/// Entries that may still be walked over.
struct Allowance<'a> {
    left: usize,
    /// Asked whether anybody waits.
    rows: &'a dyn RowSource,
}

impl Keyspace {
    /// Entries of the index, those of deleted keys included.
    pub fn entry_count(&self) -> usize {
        self.index.len()
    }

    /// Does an answer to `range` look at `entries` at most? What is hidden is jumped over, and a jump counts as one.
    pub fn range_walks_within(
        &self,
        range: &Range,
        sight: &Sight,
        entries: usize,
        rows: &dyn RowSource,
    ) -> Result<bool, ReadError> {
        let mut allowance = Allowance { left: entries, rows };
        Ok(self.walk_range(range, sight, &mut allowance)?.is_some())
    }

    /// The same of everything that a txn might do, in both of its branches and in nested ones, as if its operations
    /// did not see each other.
    pub fn txn_walks_within<V>(
        &self,
        txn: &Txn<V>,
        entries: usize,
        rows: &dyn RowSource,
    ) -> Result<bool, ReadError> {
        let mut allowance = Allowance { left: entries, rows };
        Ok(self.walk_txn(txn, &mut allowance)?.is_some())
    }

    // None: the allowance is used up.

    fn walk_txn<V>(&self, txn: &Txn<V>, allowance: &mut Allowance<'_>) -> Result<Option<()>, ReadError> {
        for compare in &txn.compare {
            if self.walk(&compare.range, &Sight::WHOLE, allowance)?.is_none() {
                return Ok(None);
            }
        }
        for op in txn.success.iter().chain(&txn.failure) {
            let walked = match op {
                TxnOp::Range(range) => self.walk_range(range, &Sight::WHOLE, allowance)?,
                TxnOp::Put(_) => allowance.take(1),
                TxnOp::DeleteRange(delete) => self.walk(&delete.range, &Sight::WHOLE, allowance)?,
                TxnOp::Txn(nested) => self.walk_txn(nested, allowance)?,
            };
            if walked.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    fn walk_range(
        &self,
        range: &Range,
        sight: &Sight,
        allowance: &mut Allowance<'_>,
    ) -> Result<Option<()>, ReadError> {
        // How many keys there are now is known.
        if sight.is_whole() && range.count_only && range.revision <= 0 && covers_everything(&range.range) {
            return Ok(allowance.take(1));
        }
        self.walk(&range.range, sight, allowance)
    }

    fn walk(
        &self,
        range: &KeyRange,
        sight: &Sight,
        allowance: &mut Allowance<'_>,
    ) -> Result<Option<()>, ReadError> {
        if matches!(range, KeyRange::Single(_)) {
            return Ok(allowance.take(1));
        }
        for (step, _) in self.seen(range, sight).enumerate() {
            check_wanted(step, allowance.rows)?;
            if allowance.take(1).is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }
}

impl Allowance<'_> {
    fn take(&mut self, entries: usize) -> Option<()> {
        self.left = self.left.checked_sub(entries)?;
        Some(())
    }
}
