//! History for watchers that are behind: what happened to which key, revision by revision.

use super::effects::StoredEvent;
use super::keyspace::Keyspace;
use super::read::ReadError;
use super::revision::Revision;
use super::row::{Row, RowSource};
use bytes::Bytes;
use keygate_core::{KeyRange, KeyValue, LeaseId, Refusal, Sealed, Sight};
use std::ops::ControlFlow;

/// Where one look into history ends: at the first revision behind one that has reached any of these. So it is never
/// without progress, and larger than asked for by one revision at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryLimits {
    pub events: usize,
    /// Keys and values of the events; previous values are not counted, they are read later.
    pub bytes: usize,
    /// Keys and values of all rows on the way, also of keys that nobody asked for or that are hidden, and [`Self::ROW`] for each row.
    pub scanned: usize,
}

impl HistoryLimits {
    pub const NONE: Self = Self { events: usize::MAX, bytes: usize::MAX, scanned: usize::MAX };
    /// What to find a row costs beside its bytes, in bytes.
    pub const ROW: usize = 256;
}

/// Whole revisions only.
#[derive(Clone, PartialEq, Debug)]
pub struct Changes {
    pub events: Vec<StoredEvent>,
    /// The first revision that was not looked at.
    pub next_revision: i64,
}

impl Keyspace {
    /// The events that `sight` shows of `range` in `from..=to_inclusive`; fewer revisions when these reach one of the `limits`.
    ///
    /// `prev` holds the version before; where memory does not hold its value `prev_in_store` is set, and
    /// [`Self::previous`] reads it for who needs it.
    pub fn changes(
        &self,
        from: i64,
        to_inclusive: i64,
        range: &KeyRange,
        sight: &Sight,
        rows: &dyn RowSource,
        limits: &HistoryLimits,
    ) -> Result<Changes, ReadError> {
        if from < self.compact_revision {
            return Err(Refusal::Compacted.into());
        }
        let to = to_inclusive.min(self.revision);
        let mut collect = Collect {
            keyspace: self,
            range,
            sight,
            to,
            limits,
            used: Used::default(),
            events: Vec::new(),
            full_at: None,
        };
        // From here on memory has everything; below, the store has.
        let first_pending = self.pending.first().map_or(to + 1, |revision| revision.main);
        if from < first_pending && from <= to {
            let end = Revision::start_of(first_pending.min(to + 1));
            rows.scan(self.id, Revision::start_of(from), end, &mut |revision, row| {
                collect.visit(revision, &row)
            })
            .map_err(|error| self.explain(error, from, true))?;
            // A row that a newer compaction has taken does not show as an error: it is just not there.
            if self.overtaken(from) {
                return Err(Refusal::Compacted.into());
            }
        }
        if collect.full_at.is_none() {
            for (revision, row) in self.pending.rows_from(Revision::start_of(from)) {
                if revision.main > to || collect.visit(revision, row).is_break() {
                    break;
                }
            }
        }
        let next_revision = collect.full_at.unwrap_or(to + 1).max(from);
        Ok(Changes { events: collect.events, next_revision })
    }

    /// The version of `key` that an event of revision `before` replaced. None when there was none, or it is compacted.
    pub fn previous(
        &self,
        key: &[u8],
        before: i64,
        rows: &dyn RowSource,
    ) -> Result<Option<KeyValue<Sealed>>, ReadError> {
        let at = before - 1;
        if at < self.compact_revision {
            return Ok(None);
        }
        let Some(entry) = self.index.get(key) else { return Ok(None) };
        let Some(version) = entry.at(at) else { return Ok(None) };
        match self.load(key, entry, &version, rows).map_err(|error| self.explain(error, at, false)) {
            Ok(kv) => Ok(Some(kv)),
            Err(ReadError::Outdated) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

struct Collect<'a> {
    keyspace: &'a Keyspace,
    range: &'a KeyRange,
    sight: &'a Sight,
    to: i64,
    limits: &'a HistoryLimits,
    used: Used,
    events: Vec<StoredEvent>,
    /// The revision before which a limit was reached.
    full_at: Option<i64>,
}

/// What a look has used up of its limits.
#[derive(Default)]
struct Used {
    /// The revision of the newest row.
    main: Option<i64>,
    bytes: usize,
    scanned: usize,
}

impl Collect<'_> {
    fn visit(&mut self, revision: Revision, row: &Row) -> ControlFlow<()> {
        if revision.main > self.to {
            return ControlFlow::Continue(());
        }
        if self.used.main.is_some_and(|newest| newest < revision.main) && self.is_full() {
            self.full_at = Some(revision.main);
            return ControlFlow::Break(());
        }
        let bytes = row.kv.key.len() + row.kv.value.as_ref().map_or(0, Sealed::len);
        self.used.main = Some(revision.main);
        self.used.scanned += bytes + HistoryLimits::ROW;
        if !self.range.contains(&row.kv.key) || self.sight.hides(&row.kv.key) {
            return ControlFlow::Continue(());
        }
        self.used.bytes += bytes;
        let (prev, prev_in_store) = self.prev(revision, &row.kv.key);
        let mut kv = row.kv.clone();
        kv.mod_revision = revision.main;
        self.events.push(StoredEvent {
            keyspace: self.keyspace.id,
            deleted: row.tombstone,
            kv,
            prev,
            prev_in_store,
            sub: revision.sub,
        });
        ControlFlow::Continue(())
    }

    fn is_full(&self) -> bool {
        let (limits, used) = (self.limits, &self.used);
        self.events.len() >= limits.events || used.bytes >= limits.bytes || used.scanned >= limits.scanned
    }

    fn prev(&self, revision: Revision, key: &Bytes) -> (Option<KeyValue<Sealed>>, bool) {
        if revision.main - 1 < self.keyspace.compact_revision {
            return (None, false);
        }
        let Some(entry) = self.keyspace.index.get::<[u8]>(key) else { return (None, false) };
        let Some(version) = entry.before(revision).filter(|version| !version.is_tombstone()) else {
            return (None, false);
        };
        if let Some(row) = self.keyspace.pending.get(version.revision()) {
            return (Some(row.kv.clone()), false);
        }
        let kv = KeyValue {
            key: key.clone(),
            create_revision: version.create,
            mod_revision: version.main,
            version: version.version,
            lease: LeaseId::NONE,
            value: None,
        };
        (Some(kv), true)
    }
}
