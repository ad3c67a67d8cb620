//! All watches of one client stream.
//!
//! History that memory does not hold is read for one of them at a time. That read belongs to the session: however
//! often its future is dropped because the client has something to say, it goes on and is not begun again.

use super::history::{Found, INLINE_STEP, Step, look, read_history};
use super::interest::Slot;
use super::outbox::{Outbox, WatchUpdate};
use super::registry::{Decide, Decided, Pace, Registry, Standing, Watcher};
use crate::mvcc::{Changes, Keyspace, MemoryOnly, ReadError};
use crate::port::Port;
use keygate_core::{KeyspaceId, Operation, Permit, Refusal, Sealed, WatchCreate};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchCreated {
    pub watch_id: i64,
    /// The current revision: a watch from "now" sees what comes after it.
    pub revision: i64,
}

/// Answered in the stream, which goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WatchCreateError {
    #[error("watch id is in use on this stream")]
    DuplicateId,
    #[error("watched range is empty")]
    EmptyRange,
    #[error("start revision is negative")]
    NegativeStart,
}

/// A look into the store on behalf of one watcher. Dropped with it, it ends early.
struct Reading {
    slot: Slot,
    step: Step,
    found: Pin<Box<dyn Future<Output = Found> + Send>>,
}

/// The watches of one client stream. Dropping it ends them.
pub struct WatchSession {
    port: Port,
    keyspace: KeyspaceId,
    registry: Arc<Mutex<Registry>>,
    outbox: Arc<Outbox>,
    watches: BTreeMap<i64, Slot>,
    reading: Option<Reading>,
    /// The watch for which history was last looked at; the next one in turn is the next behind it.
    last_read: i64,
    next_id: i64,
    progress_asked: bool,
    next_tick: Instant,
    /// When the first decision about one of the watches runs out. May be too early, never too late.
    next_due: Option<Instant>,
    deciding: Option<Deciding>,
}

/// A round in which all watches are asked about, a few at a time.
#[derive(Clone, Copy, Default)]
struct Deciding {
    /// The last one that was.
    behind: Option<i64>,
    /// Of those so far.
    next_due: Option<Instant>,
}

/// A decision can take as long as serving a request does, and others are served on this thread.
const DECIDED_AT_ONCE: usize = 64;

impl WatchSession {
    pub(crate) fn new(port: Port, keyspace: KeyspaceId, registry: Arc<Mutex<Registry>>) -> Self {
        let next_tick = Instant::now() + port.progress_interval();
        let budget = port.engine().watch_budgets().of(keyspace);
        Self {
            port,
            keyspace,
            registry,
            outbox: Arc::new(Outbox::new(budget)),
            watches: BTreeMap::new(),
            reading: None,
            last_read: 0,
            next_id: 0,
            progress_asked: false,
            next_tick,
            next_due: None,
            deciding: None,
        }
    }

    /// Registers a watch. `decide` is asked again, with a newer view, before any event that comes
    /// after a change of policy.
    pub fn create(
        &mut self,
        permit: Permit<Sealed>,
        decide: Decide,
    ) -> Result<WatchCreated, WatchCreateError> {
        self.create_until(permit, None, decide)
    }

    /// The same for a permit that time alone may change: `decide` is asked again then too, and answers what holds from
    /// then on.
    pub fn create_until(
        &mut self,
        permit: Permit<Sealed>,
        until: Option<Instant>,
        decide: Decide,
    ) -> Result<WatchCreated, WatchCreateError> {
        let parts = permit.into_parts();
        let Operation::Watch(request) = parts.operation else {
            // A permit for something else proves nothing about this range.
            return Err(WatchCreateError::EmptyRange);
        };
        if request.range.is_empty() {
            return Err(WatchCreateError::EmptyRange);
        }
        if request.start_revision < 0 {
            return Err(WatchCreateError::NegativeStart);
        }
        // Last, because a refused watch uses up no id.
        let watch_id = self.pick_id(&request)?;
        // Counted first, looked at the state second: no batch can fall between the two.
        self.port.count_watcher();
        let view = self.port.view();
        let own = view.keyspace(self.keyspace).filter(|_| parts.keyspace == self.keyspace);
        let Some(keyspace) = own else {
            // Deleted since the permit was given, or the caller has become another one since the stream began.
            self.port.uncount_watcher();
            let refusal = Refusal::PermissionDenied;
            self.outbox.push_final(WatchUpdate::Denied { watch_id, refusal, revision: 0 });
            return Ok(WatchCreated { watch_id, revision: 0 });
        };
        let (revision, compacted) = (keyspace.revision(), keyspace.compact_revision());
        let start = request.start_revision;
        if start > 0 && start < compacted {
            self.port.uncount_watcher();
            self.outbox.push_final(WatchUpdate::Compacted { watch_id, compact_revision: compacted });
            return Ok(WatchCreated { watch_id, revision });
        }
        // Decided on an older view than this: what has come since was told before this watch was there.
        let is_outdated = view.fence(self.keyspace) != parts.fence;
        let next = if start == 0 { revision + 1 } else { start };
        let mut watcher = Watcher::new(
            self.keyspace,
            watch_id,
            request,
            self.outbox.clone(),
            next,
            Decided {
                fence: parts.fence.unwrap_or_default(),
                standing: Standing { sight: parts.sight, until },
                decide,
            },
        );
        if next <= revision {
            watcher.pace = Pace::Behind;
            self.outbox.wake();
        }
        let slot = self.registry.lock().insert(watcher, &view);
        self.watches.insert(watch_id, slot);
        self.is_due_at(if is_outdated { Some(Instant::now()) } else { until });
        Ok(WatchCreated { watch_id, revision })
    }

    fn pick_id(&mut self, request: &WatchCreate) -> Result<i64, WatchCreateError> {
        if request.watch_id != 0 {
            // A watch that was refused for its start is still to be told so, under this id.
            let taken =
                self.watches.contains_key(&request.watch_id) || self.outbox.mentions(request.watch_id);
            return if taken { Err(WatchCreateError::DuplicateId) } else { Ok(request.watch_id) };
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    /// Ends a watch. None: there is none of this id, and nothing is answered.
    ///
    /// Nothing is said under its id any more, so that it may be given to another watch at once.
    pub fn cancel(&mut self, watch_id: i64) -> Option<i64> {
        let slot = self.watches.remove(&watch_id)?;
        // First out of the registry: nothing can be queued behind our back then.
        self.forget(slot);
        self.outbox.forget(watch_id);
        Some(self.current_revision())
    }

    /// How many watches are open.
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    pub fn request_progress(&mut self) {
        self.progress_asked = true;
        self.outbox.wake();
    }

    /// Waits for the next update. Dropping the future loses nothing.
    pub async fn next(&mut self) -> WatchUpdate {
        loop {
            if let Some(update) = self.outbox.pop() {
                if let WatchUpdate::Denied { watch_id, .. } | WatchUpdate::TooSlow { watch_id, .. } = &update
                    && let Some(slot) = self.watches.remove(watch_id)
                {
                    self.forget(slot);
                }
                return update;
            }
            if let Some(update) = self.decide_due() {
                return update;
            }
            if self.deciding.is_some() {
                tokio::task::yield_now().await;
                continue;
            }
            if self.reading.is_none()
                && let Some(slot) = self.behind()
            {
                if let Some(update) = self.catch_up(slot) {
                    return update;
                }
                if self.reading.is_none() {
                    // Memory had it. Whoever else is served here has a turn between two steps.
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            if self.reading.is_none()
                && std::mem::take(&mut self.progress_asked)
                && let Some(update) = self.progress()
            {
                return update;
            }
            if let Some(update) = self.periodic_progress() {
                return update;
            }
            let news = self.outbox.news.notified();
            // Something may have come between looking and listening.
            if !self.outbox.is_empty() {
                continue;
            }
            let found = async {
                match &mut self.reading {
                    Some(reading) => reading.found.as_mut().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = news => {}
                () = sleep_until(self.next_due.map_or(self.next_tick, |due| due.min(self.next_tick))) => {}
                found = found => {
                    if let Some(update) = self.read(found) {
                        return update;
                    }
                }
            }
        }
    }

    fn is_due_at(&mut self, due: Option<Instant>) {
        self.next_due = earlier(self.next_due, due);
        if let Some(deciding) = &mut self.deciding {
            deciding.next_due = earlier(deciding.next_due, due);
        }
    }

    /// Asks again about the watches whose decision has run out or is of another policy. An idle watch ends then, not at
    /// its next event.
    fn decide_due(&mut self) -> Option<WatchUpdate> {
        let is_due = self.deciding.is_none() && self.next_due.is_some_and(|due| due <= Instant::now());
        if self.outbox.is_to_decide() || is_due {
            self.deciding = Some(Deciding::default());
        }
        let Deciding { behind, mut next_due } = self.deciding?;
        let view = self.port.view();
        let (mut last, mut denied) = (None, None);
        let mut registry = self.registry.lock();
        let others = (behind.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        for (watch_id, slot) in self.watches.range(others).take(DECIDED_AT_ONCE) {
            last = Some(*watch_id);
            let Some(watcher) = registry.get_mut(*slot).filter(|watcher| watcher.pace != Pace::Ended) else {
                continue;
            };
            match watcher.decide_again(&view) {
                Ok(()) => next_due = earlier(next_due, watcher.until),
                Err(refusal) => {
                    denied = Some((*watch_id, *slot, refusal));
                    break;
                }
            }
        }
        drop(registry);
        if last.is_none() {
            // That was all of them.
            self.next_due = next_due;
            self.deciding = None;
            return None;
        }
        self.deciding = Some(Deciding { behind: last, next_due });
        let (watch_id, slot, refusal) = denied?;
        self.end(watch_id, slot);
        self.outbox.forget(watch_id);
        Some(WatchUpdate::Denied { watch_id, refusal, revision: self.current_revision() })
    }

    /// The watcher whose turn it is to look at history.
    fn behind(&mut self) -> Option<Slot> {
        let mut registry = self.registry.lock();
        let mut is_behind =
            |slot: &Slot| registry.get_mut(*slot).is_some_and(|watcher| watcher.pace == Pace::Behind);
        let later = self.watches.range((Bound::Excluded(self.last_read), Bound::Unbounded));
        let earlier = self.watches.range(..=self.last_read);
        let (id, slot) = later.chain(earlier).find(|(_, slot)| is_behind(slot))?;
        self.last_read = *id;
        Some(*slot)
    }

    /// One step through history for one watcher. None: it is live again, memory had nothing for it in this step, or
    /// the store is being read.
    fn catch_up(&mut self, slot: Slot) -> Option<WatchUpdate> {
        let view = self.port.view();
        let until;
        let step = {
            let mut registry = self.registry.lock();
            let watcher = registry.get_mut(slot)?;
            if let Err(refusal) = watcher.decide_again(&view) {
                let watch_id = watcher.id;
                drop(registry);
                self.end(watch_id, slot);
                let revision = self.current_revision();
                return Some(WatchUpdate::Denied { watch_id, refusal, revision });
            }
            until = watcher.until;
            Step {
                watch_id: watcher.id,
                from: watcher.next_revision,
                upto: view.keyspace(self.keyspace).map_or(0, |keyspace| keyspace.revision()),
                range: watcher.request.range.clone(),
                sight: watcher.sight.clone(),
                prev_kv: watcher.request.prev_kv,
            }
        };
        self.is_due_at(until);
        if step.from > step.upto {
            self.go_live(slot, step.from);
            return None;
        }
        match look(&view, self.keyspace, &step, &MemoryOnly, &INLINE_STEP) {
            Err(ReadError::NeedsStore) => {
                let found = read_history(self.port.clone(), self.keyspace, step.clone());
                self.reading = Some(Reading { slot, step, found: Box::pin(found) });
                None
            }
            found => self.looked(slot, &step, found),
        }
    }

    /// The store was read.
    fn read(&mut self, found: Found) -> Option<WatchUpdate> {
        let Reading { slot, step, .. } = self.reading.take()?;
        self.looked(slot, &step, found)
    }

    fn looked(&mut self, slot: Slot, step: &Step, found: Found) -> Option<WatchUpdate> {
        match found {
            Ok(found) => self.found(slot, step, found),
            // The view was overtaken by a compaction; a newer one knows whether that concerns this watcher.
            Err(ReadError::Outdated) => None,
            Err(ReadError::Refused(Refusal::Compacted)) => {
                self.end(step.watch_id, slot);
                let compact_revision =
                    self.port.view().keyspace(self.keyspace).map_or(0, Keyspace::compact_revision);
                Some(WatchUpdate::Compacted { watch_id: step.watch_id, compact_revision })
            }
            Err(error) => {
                self.end(step.watch_id, slot);
                let refusal = self.port.explain(error);
                Some(WatchUpdate::Denied {
                    watch_id: step.watch_id,
                    refusal,
                    revision: self.current_revision(),
                })
            }
        }
    }

    fn found(&mut self, slot: Slot, step: &Step, found: Changes) -> Option<WatchUpdate> {
        let mut registry = self.registry.lock();
        // One that was turned away meanwhile is told so, and nothing else.
        let watcher = registry.get_mut(slot).filter(|watcher| watcher.pace != Pace::Ended)?;
        watcher.next_revision = found.next_revision;
        let events: Vec<_> = found
            .events
            .iter()
            // Time alone may have hidden more since it was decided what to look for.
            .filter(|event| !watcher.filters_out(event.deleted) && !watcher.sight.hides(&event.kv.key))
            .map(|event| watcher.shown(event))
            .collect();
        if events.is_empty() {
            return None;
        }
        watcher.caught_up(&events);
        watcher.spoke = true;
        let fragment_ok = watcher.request.fragment;
        registry.delivered += events.len() as u64;
        drop(registry);
        let revision = self.current_revision();
        Some(WatchUpdate::Events { watch_id: step.watch_id, revision, events, fragment_ok })
    }

    /// Live from `next` on, unless this thread was handed newer events while it was reading.
    fn go_live(&mut self, slot: Slot, next: i64) {
        let mut registry = self.registry.lock();
        if next > registry.seen(self.keyspace)
            && let Some(watcher) = registry.get_mut(slot)
        {
            watcher.go_live();
        }
    }

    /// etcd's answer to a progress request: only if every watch of the stream has seen everything,
    /// and none waits for a revision that is yet to come.
    fn progress(&mut self) -> Option<WatchUpdate> {
        let revision = self.synced_revision()?;
        Some(WatchUpdate::Progress { watch_id: -1, revision })
    }

    fn synced_revision(&self) -> Option<i64> {
        let mut registry = self.registry.lock();
        let seen = registry.seen(self.keyspace);
        let revision = if self.watches.is_empty() { self.current_revision() } else { seen };
        let all_synced = self.watches.values().all(|slot| {
            registry.get_mut(*slot).is_none_or(|watcher| {
                watcher.pace == Pace::Live && watcher.request.start_revision <= revision
            })
        });
        all_synced.then_some(revision)
    }

    fn periodic_progress(&mut self) -> Option<WatchUpdate> {
        if Instant::now() < self.next_tick {
            return None;
        }
        self.next_tick = Instant::now() + self.port.progress_interval();
        let mut registry = self.registry.lock();
        let revision = registry.seen(self.keyspace);
        for slot in self.watches.values() {
            if let Some(watcher) = registry.get_mut(*slot) {
                let quiet = !std::mem::take(&mut watcher.spoke);
                if watcher.request.progress_notify
                    && quiet
                    && watcher.pace == Pace::Live
                    && watcher.next_revision <= revision + 1
                {
                    let watch_id = watcher.id;
                    self.outbox.push_final(WatchUpdate::Progress { watch_id, revision });
                }
            }
        }
        drop(registry);
        self.outbox.pop()
    }

    fn end(&mut self, watch_id: i64, slot: Slot) {
        self.watches.remove(&watch_id);
        self.forget(slot);
    }

    fn forget(&mut self, slot: Slot) {
        // What is read for it is not wanted any more, and its slot may soon be another's.
        self.reading.take_if(|reading| reading.slot == slot);
        self.registry.lock().remove(slot);
        self.port.uncount_watcher();
    }

    fn current_revision(&self) -> i64 {
        self.port.view().keyspace(self.keyspace).map_or(0, |keyspace| keyspace.revision())
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl Drop for WatchSession {
    fn drop(&mut self) {
        for slot in std::mem::take(&mut self.watches).into_values() {
            self.forget(slot);
        }
    }
}
