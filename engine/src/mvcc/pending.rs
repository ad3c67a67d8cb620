//! Rows that the store does not hold yet.
//!
//! The store is written behind. A value that was superseded before it was flushed is in neither the index nor the store,
//! so the rows of each applied batch stay here, immutable, until [`super::State::flushed`] names their batch.

use super::revision::Revision;
use super::row::Row;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct PendingBatch {
    pub(super) sequence: u64,
    /// Ascending, never empty.
    pub(super) rows: Vec<(Revision, Row)>,
    pub(super) bytes: u64,
}

/// Batches in ascending order, and the one that is being written.
#[derive(Clone, Default, Debug)]
pub(super) struct Pending {
    sealed: imbl::Vector<Arc<PendingBatch>>,
    open: Vec<(Revision, Row)>,
    bytes: u64,
}

/// What a pending row costs beside its key and value.
const ROW_OVERHEAD: u64 = 200;

impl Pending {
    pub(super) fn push(&mut self, revision: Revision, row: Row) {
        self.open.push((revision, row));
    }

    /// Ends the open batch.
    pub(super) fn seal(&mut self, sequence: u64) {
        if self.open.is_empty() {
            return;
        }
        let rows = std::mem::take(&mut self.open);
        let bytes = rows.iter().map(|(_, row)| row.size() as u64 + ROW_OVERHEAD).sum();
        self.bytes += bytes;
        self.sealed.push_back(Arc::new(PendingBatch { sequence, rows, bytes }));
    }

    /// Forgets batches up to `through`; answers the last revision that they held.
    pub(super) fn flushed(&mut self, through: u64) -> Option<i64> {
        let mut last = None;
        while let Some(batch) = self.sealed.front().filter(|batch| batch.sequence <= through) {
            last = batch.rows.last().map(|(revision, _)| revision.main);
            self.bytes -= batch.bytes;
            self.sealed.pop_front();
        }
        last
    }

    /// Was anything written since the last seal?
    pub(super) fn has_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Number of the oldest batch.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.sealed.front().map(|batch| batch.sequence)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn get(&self, revision: Revision) -> Option<&Row> {
        let find = |rows: &'_ [(Revision, Row)]| rows.binary_search_by_key(&revision, |(at, _)| *at).ok();
        if let Some(at) = find(&self.open) {
            return Some(&self.open[at].1);
        }
        let after = self.batches_from(revision);
        let batch = self.sealed.get(after.checked_sub(1)?)?;
        find(&batch.rows).map(|at| &batch.rows[at].1)
    }

    /// The first revision that is here.
    pub(super) fn first(&self) -> Option<Revision> {
        self.sealed
            .front()
            .map(|batch| &batch.rows)
            .unwrap_or(&self.open)
            .first()
            .map(|(revision, _)| *revision)
    }

    /// Rows from `from` on, ascending.
    pub(super) fn rows_from(&self, from: Revision) -> impl Iterator<Item = (Revision, &Row)> {
        let first = self.batches_from(from).saturating_sub(1);
        self.sealed
            .iter()
            .skip(first)
            .flat_map(|batch| &batch.rows)
            .chain(&self.open)
            .map(|(revision, row)| (*revision, row))
            .skip_while(move |(revision, _)| *revision < from)
    }

    /// How many batches begin at or before `revision`.
    fn batches_from(&self, revision: Revision) -> usize {
        let begins_after =
            |batch: &Arc<PendingBatch>| batch.rows.first().is_some_and(|(at, _)| *at > revision);
        let (mut low, mut high) = (0, self.sealed.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.sealed.get(middle) {
                Some(batch) if !begins_after(batch) => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}
