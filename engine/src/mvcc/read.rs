//! Range, and txns that only read: pure questions to a snapshot.

use super::entry::{EntryRef, Version};
use super::key::Key;
use super::keyspace::{Keyspace, key_value};
use super::row::RowSource;
use super::seen::Step;
use super::txn::Path;
use keygate_core::{
    Answer, KeyRange, KeyValue, LeaseId, Range, RangeAnswer, Refusal, Sealed, Sight, SortOrder, SortTarget,
    Txn, TxnAnswer, TxnOp,
};
use std::cmp::Ordering;
use thiserror::Error;

#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ReadError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Memory does not hold all of it: ask again with a source that may read the store.
    #[error("the store is needed")]
    NeedsStore,
    /// A compaction has overtaken this snapshot: ask a newer one.
    #[error("the snapshot is outdated")]
    Outdated,
    #[error("damaged data: {0}")]
    Corrupt(String),
    /// Ask again later.
    #[error("the store cannot be read: {0}")]
    Unavailable(String),
    /// Who asked does not wait any more.
    #[error("nobody waits for the answer any more")]
    Abandoned,
}

/// Index entries that a walk goes over without asking whether it is still wanted: some 50 µs.
const STRIDE: usize = 1_024;

/// Asked at each step of a walk.
pub(super) fn check_wanted(step: usize, rows: &dyn RowSource) -> Result<(), ReadError> {
    if step % STRIDE == STRIDE - 1 && !rows.wanted() { Err(ReadError::Abandoned) } else { Ok(()) }
}

struct Hit<'a> {
    key: &'a Key,
    entry: &'a EntryRef,
    version: Version,
}

impl Keyspace {
    /// As if the keys that `sight` hides had never been there.
    pub fn range(
        &self,
        range: &Range,
        sight: &Sight,
        rows: &dyn RowSource,
    ) -> Result<RangeAnswer<Sealed>, ReadError> {
        self.range_at(range, sight, self.revision, rows)
    }

    /// A txn for which [`Txn::is_read_only`] holds.
    pub fn txn_read(&self, txn: &Txn<Sealed>, rows: &dyn RowSource) -> Result<TxnAnswer<Sealed>, ReadError> {
        let path = Path::of(self, txn, rows)?;
        let mut responses = Vec::with_capacity(path.ops.len());
        for op in path.ops {
            match op {
                TxnOp::Range(range) => {
                    self.check_range(range)?;
                    responses.push(Answer::Range(self.range(range, &Sight::WHOLE, rows)?));
                }
                TxnOp::Put(_) | TxnOp::DeleteRange(_) | TxnOp::Txn(_) => {
                    return Err(Refusal::Internal { cause: "a txn that writes was read" }.into());
                }
            }
        }
        Ok(TxnAnswer { succeeded: path.succeeded, responses })
    }

    /// `current` is the newest revision that the reader may see: within a writing txn it is one ahead.
    pub(super) fn range_at(
        &self,
        range: &Range,
        sight: &Sight,
        current: i64,
        rows: &dyn RowSource,
    ) -> Result<RangeAnswer<Sealed>, ReadError> {
        let at = match range.revision {
            revision if revision > current => return Err(Refusal::FutureRevision.into()),
            ..=0 => current,
            revision => revision,
        };
        if at < self.compact_revision {
            return Err(Refusal::Compacted.into());
        }
        if range.count_only {
            return Ok(RangeAnswer {
                kvs: Vec::new(),
                more: false,
                count: self.count(&range.range, sight, at, rows)?,
            });
        }
        let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0);
        let order = Order::of(range);
        // An order that was asked for, and filters, come before the limit and need every key. A target
        // without an order does not: etcd cuts first and sorts what is left.
        let cut_first = (!order.sorts || range.sort_order == SortOrder::None) && !has_filters(range);
        let wanted = limit.filter(|_| cut_first).map(|limit| limit + 1);
        let (mut hits, count) = self.hits(range, sight, at, wanted, rows)?;
        order.sort_by_index(&mut hits);
        let mut more = false;
        if !order.by_value {
            more = truncate(&mut hits, limit);
        }
        let explain = |error| self.explain(error, at, range.revision > 0);
        let mut kvs = Vec::with_capacity(hits.len());
        for (step, hit) in hits.iter().enumerate() {
            check_wanted(step, rows)?;
            kvs.push(if range.keys_only && !order.by_value {
                // From the index alone, which since etcd 3.7 does not tell the lease.
                key_value(hit.key, &hit.version, LeaseId::NONE, None)
            } else {
                self.load(hit.key, hit.entry, &hit.version, rows).map_err(explain)?
            });
        }
        if order.by_value {
            order.sort_by_value(&mut kvs);
            more = truncate(&mut kvs, limit);
            if range.keys_only {
                kvs.iter_mut().for_each(|kv| kv.value = None);
            }
        }
        Ok(RangeAnswer { kvs, more, count })
    }

    /// The visible versions that pass the filters, at most `wanted`, and how many are visible in all.
    fn hits(
        &self,
        range: &Range,
        sight: &Sight,
        at: i64,
        wanted: Option<usize>,
        rows: &dyn RowSource,
    ) -> Result<(Vec<Hit<'_>>, i64), ReadError> {
        let filters = has_filters(range);
        let mut hits = Vec::with_capacity(wanted.unwrap_or(0).min(1024));
        let mut count = 0;
        let everything = sight.is_whole() && covers_everything(&range.range) && at >= self.revision;
        for (number, step) in self.seen(&range.range, sight).enumerate() {
            check_wanted(number, rows)?;
            let Step::Seen(key, entry) = step else { continue };
            let Some(version) = entry.at(at) else { continue };
            count += 1;
            if filters && !passes(range, &version) {
                continue;
            }
            if wanted.is_none_or(|wanted| hits.len() < wanted) {
                hits.push(Hit { key, entry, version });
            } else if everything {
                return Ok((hits, self.count.live as i64));
            }
        }
        Ok((hits, count))
    }

    fn count(
        &self,
        range: &KeyRange,
        sight: &Sight,
        at: i64,
        rows: &dyn RowSource,
    ) -> Result<i64, ReadError> {
        if sight.is_whole() && covers_everything(range) && at >= self.revision {
            return Ok(self.count.live as i64);
        }
        let mut count = 0;
        for (number, step) in self.seen(range, sight).enumerate() {
            check_wanted(number, rows)?;
            let Step::Seen(_, entry) = step else { continue };
            count += i64::from(entry.at(at).is_some());
        }
        Ok(count)
    }
}

/// Keys are never empty.
pub(super) fn covers_everything(range: &KeyRange) -> bool {
    matches!(range, KeyRange::From(start) if start.as_ref() <= b"\0".as_slice())
}

fn has_filters(range: &Range) -> bool {
    range.min_mod_revision != 0
        || range.max_mod_revision != 0
        || range.min_create_revision != 0
        || range.max_create_revision != 0
}

fn passes(range: &Range, version: &Version) -> bool {
    let within = |number: i64, min: i64, max: i64| (min == 0 || number >= min) && (max == 0 || number <= max);
    within(version.main, range.min_mod_revision, range.max_mod_revision)
        && within(version.create, range.min_create_revision, range.max_create_revision)
}

fn truncate<T>(all: &mut Vec<T>, limit: Option<usize>) -> bool {
    match limit {
        Some(limit) if all.len() > limit => {
            all.truncate(limit);
            true
        }
        _ => false,
    }
}

/// How hits, which come in key order, are to be sorted.
struct Order {
    target: SortTarget,
    descend: bool,
    sorts: bool,
    by_value: bool,
}

impl Order {
    fn of(range: &Range) -> Self {
        let (target, order) = (range.sort_target, range.sort_order);
        // Another target than the key without an order is ascending.
        let sorts = target != SortTarget::Key || order == SortOrder::Descend;
        Self {
            target,
            descend: order == SortOrder::Descend,
            sorts,
            by_value: sorts && target == SortTarget::Value,
        }
    }

    /// Stable, also when descending: equal ones stay in key order.
    fn sort_by_index(&self, hits: &mut [Hit<'_>]) {
        if !self.sorts {
            return;
        }
        match self.target {
            SortTarget::Key if self.descend => hits.reverse(),
            SortTarget::Key | SortTarget::Value => {}
            SortTarget::Version => hits.sort_by(|a, b| self.turn(a.version.version.cmp(&b.version.version))),
            SortTarget::Create => hits.sort_by(|a, b| self.turn(a.version.create.cmp(&b.version.create))),
            SortTarget::Mod => hits.sort_by(|a, b| self.turn(a.version.main.cmp(&b.version.main))),
        }
    }

    fn sort_by_value(&self, kvs: &mut [KeyValue<Sealed>]) {
        kvs.sort_by(|a, b| match (&a.value, &b.value) {
            (Some(a), Some(b)) => self.turn(a.compare(b)),
            (a, b) => self.turn(a.is_some().cmp(&b.is_some())),
        });
    }

    fn turn(&self, ordering: Ordering) -> Ordering {
        if self.descend { ordering.reverse() } else { ordering }
    }
}
