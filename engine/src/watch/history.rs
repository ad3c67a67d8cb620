//! One step of a watcher that is behind: a piece of history, from memory or from the store.

use super::outbox::{OUTBOX_BYTES, key_value_size};
use crate::mvcc::{Changes, HistoryLimits, Keyspace, ReadError, RowSource};
use crate::port::Port;
use crate::readers::Purpose;
use crate::rows::StoreRows;
use crate::view::View;
use keygate_core::{KeyRange, KeyspaceId, Refusal, Sight};

/// As many events as etcd takes, as many bytes as may wait in an outbox, and a bound on how long a step takes that
/// finds nothing.
const STEP: HistoryLimits = HistoryLimits { events: 1_000, bytes: OUTBOX_BYTES, scanned: 32 << 20 };
/// A step on the serving thread goes less far: some 10,000 rows.
pub(super) const INLINE_STEP: HistoryLimits = HistoryLimits { scanned: 10_000 * HistoryLimits::ROW, ..STEP };

pub(super) type Found = Result<Changes, ReadError>;

#[derive(Clone)]
pub(super) struct Step {
    pub(super) watch_id: i64,
    pub(super) from: i64,
    /// The newest revision that policy was asked about.
    pub(super) upto: i64,
    pub(super) range: KeyRange,
    /// As policy said then.
    pub(super) sight: Sight,
    pub(super) prev_kv: bool,
}

/// From the store. Dropped, it ends early.
pub(super) async fn read_history(port: Port, id: KeyspaceId, step: Step) -> Found {
    let engine = port.engine().clone();
    // The newest view when it begins, so that none grows old in the queue for a slot.
    let read = move |rows: &StoreRows| look(&engine.view(), id, &step, rows, &STEP);
    port.read_store(Purpose::History, read).await
}

pub(super) fn look(
    view: &View,
    id: KeyspaceId,
    step: &Step,
    rows: &dyn RowSource,
    limits: &HistoryLimits,
) -> Found {
    let keyspace = view.keyspace(id).ok_or(ReadError::Refused(Refusal::Compacted))?;
    history(keyspace, step, rows, limits)
}

/// A piece of history as a watcher wants it: with previous values where it asked for them. These count too, so that
/// they may make the piece shorter.
fn history(keyspace: &Keyspace, step: &Step, rows: &dyn RowSource, limits: &HistoryLimits) -> Found {
    let mut found = keyspace.changes(step.from, step.upto, &step.range, &step.sight, rows, limits)?;
    if !step.prev_kv {
        return Ok(found);
    }
    let (mut bytes, mut newest) = (0, None);
    for (at, event) in found.events.iter_mut().enumerate() {
        let revision = event.kv.mod_revision;
        if bytes >= limits.bytes && newest.is_some_and(|newest| newest < revision) {
            found.next_revision = revision;
            found.events.truncate(at);
            break;
        }
        if event.prev_in_store {
            event.prev = keyspace.previous(&event.kv.key, revision, rows)?;
        }
        bytes +=
            [Some(&event.kv), event.prev.as_ref()].into_iter().flatten().map(key_value_size).sum::<usize>();
        newest = Some(revision);
    }
    Ok(found)
}
