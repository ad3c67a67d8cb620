//! One serving thread's watchers, and how a batch of events reaches them.

use super::interest::{Interest, Slot};
use super::outbox::{Outbox, WatchUpdate, event_size, key_value_size};
use crate::mvcc::StoredEvent;
use crate::view::View;
use ahash::RandomState;
use keygate_core::{Event, Fence, KeyspaceId, Refusal, Sealed, Sight, WatchCreate};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::time::Instant;

/// What one batch of the log did, in order of revision, with the view that it led to.
pub(crate) struct EventBatch {
    pub(crate) events: Vec<StoredEvent>,
    /// Keyspaces that are gone: their watches end.
    pub(crate) ended: Vec<KeyspaceId>,
    /// Another bundle is in force: watches are decided again without waiting for an event, as it may end them with time.
    pub(crate) has_new_policy: bool,
    pub(crate) view: View,
}

/// Is the watch still allowed, in this view?
pub type Decide = Box<dyn Fn(&View) -> Result<Standing, Refusal> + Send>;

/// What an open watch may show.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Of the permit that was given for it.
    pub sight: Sight,
    /// Until when that holds, if time alone can change it.
    pub until: Option<Instant>,
}

/// What a watcher was allowed on, and how that is asked again.
pub(crate) struct Decided {
    pub(crate) fence: Fence,
    pub(crate) standing: Standing,
    pub(crate) decide: Decide,
}

pub(crate) struct Watcher {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) id: i64,
    pub(crate) request: WatchCreate,
    pub(crate) outbox: Arc<Outbox>,
    /// Every event below was sent or did not concern this watcher.
    pub(crate) next_revision: i64,
    pub(crate) pace: Pace,
    pub(crate) fence: Fence,
    /// Whose events it may show, as of its last decision.
    pub(crate) sight: Sight,
    /// Until when the last decision holds, whatever else happens.
    pub(crate) until: Option<Instant>,
    pub(crate) decide: Decide,
    /// Sent since the last periodic progress note, which is then not needed.
    pub(crate) spoke: bool,
    /// Bytes of events that it is owed since it fell behind, and the revision of the first of them.
    backlog: u64,
    backlog_from: i64,
    /// The batch for which it was decided last.
    decided_for: u64,
    /// Events of the batch that is being handed out.
    gathered: Vec<Event<Sealed>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pace {
    Live,
    /// Reads history from `next_revision` on.
    Behind,
    /// It was turned away, by policy or for being too slow; its session has yet to say so and to remove it.
    Ended,
}

#[derive(Default)]
pub(crate) struct Registry {
    /// Bytes that a watcher may be owed before it is ended. None: any number.
    max_backlog: Option<u64>,
    watchers: Vec<Option<Watcher>>,
    free: Vec<usize>,
    interest: Interest,
    /// The newest revision of each keyspace that was handed out here.
    seen: HashMap<KeyspaceId, i64, RandomState>,
    live: usize,
    /// Batches that were handed out.
    batches: u64,
    touched: Vec<Slot>,
    /// Events handed to watchers since start.
    pub(crate) delivered: u64,
    /// Watchers that were ended for being too slow.
    pub(crate) too_slow: u64,
}

impl Registry {
    pub(crate) fn new(max_backlog: Option<u64>) -> Self {
        Self { max_backlog, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Adds this thread's watchers of each keyspace to `counts`.
    pub(crate) fn count(&self, counts: &mut HashMap<KeyspaceId, u64>) {
        for watcher in self.watchers.iter().flatten() {
            *counts.entry(watcher.keyspace).or_default() += 1;
        }
    }

    pub(crate) fn behind(&self) -> usize {
        self.watchers.iter().flatten().filter(|watcher| watcher.pace == Pace::Behind).count()
    }

    /// `view` must have been loaded after this thread was counted as having watchers.
    pub(crate) fn insert(&mut self, mut watcher: Watcher, view: &View) -> Slot {
        watcher.gathered = Vec::new();
        let slot = Slot(self.free.pop().unwrap_or_else(|| {
            self.watchers.push(None);
            self.watchers.len() - 1
        }));
        self.interest.insert(watcher.keyspace, &watcher.request.range, slot);
        if self.live == 0 {
            // Batches were not handed to this thread while nobody here listened.
            self.seen.clear();
        }
        let revision = view.keyspace(watcher.keyspace).map_or(0, |keyspace| keyspace.revision());
        self.seen.entry(watcher.keyspace).or_insert(revision);
        self.watchers[slot.0] = Some(watcher);
        self.live += 1;
        slot
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Watcher> {
        let watcher = self.watchers.get_mut(slot.0)?.take()?;
        self.interest.remove(watcher.keyspace, &watcher.request.range, slot);
        self.free.push(slot.0);
        self.live -= 1;
        Some(watcher)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Watcher> {
        self.watchers.get_mut(slot.0)?.as_mut()
    }

    /// The newest revision whose events were all handed out here.
    pub(crate) fn seen(&self, keyspace: KeyspaceId) -> i64 {
        self.seen.get(&keyspace).copied().unwrap_or(0)
    }

    /// Hands a batch to every live watcher that wants a part of it. A watcher that policy has
    /// turned away since its last decision gets no event of it, and nobody gets one of a key that is hidden by then.
    pub(crate) fn hand_out(&mut self, batch: &EventBatch) {
        self.batches += 1;
        for event in &batch.events {
            let Self { interest, watchers, batches, touched, max_backlog, too_slow, .. } = self;
            interest.of(event.keyspace, &event.kv.key, &mut |slot| {
                let Some(watcher) = watchers.get_mut(slot.0).and_then(Option::as_mut) else { return };
                if watcher.wants(event) {
                    if !watcher.is_decided_for(*batches, &batch.view) || watcher.sight.hides(&event.kv.key) {
                        return;
                    }
                    if watcher.gathered.is_empty() {
                        touched.push(slot);
                    }
                    watcher.gather(event);
                } else if watcher.is_owed(event) {
                    watcher.owe(event.kv.mod_revision, stored_size(event));
                    if max_backlog.is_some_and(|most| watcher.backlog > most) {
                        watcher.end_as_too_slow();
                        *too_slow += 1;
                    }
                }
            });
        }
        for event in &batch.events {
            // Ascending within a keyspace, so the last one wins.
            self.seen.insert(event.keyspace, event.kv.mod_revision);
        }
        for slot in std::mem::take(&mut self.touched) {
            self.send_gathered(slot);
        }
        if !batch.ended.is_empty() {
            self.end_all_of(&batch.ended);
        }
        if batch.has_new_policy {
            self.watchers.iter().flatten().for_each(|watcher| watcher.outbox.let_decide());
        }
    }

    fn end_all_of(&mut self, keyspaces: &[KeyspaceId]) {
        for watcher in self.watchers.iter_mut().flatten() {
            if keyspaces.contains(&watcher.keyspace) && watcher.pace != Pace::Ended {
                let refusal = Refusal::PermissionDenied;
                watcher.outbox.push_final(WatchUpdate::Denied { watch_id: watcher.id, refusal, revision: 0 });
                watcher.pace = Pace::Ended;
            }
        }
        self.seen.retain(|keyspace, _| !keyspaces.contains(keyspace));
    }

    fn send_gathered(&mut self, slot: Slot) {
        let Some(watcher) = self.get_mut(slot) else { return };
        let events = std::mem::take(&mut watcher.gathered);
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return };
        let (first, last) = (first.kv.mod_revision, last.kv.mod_revision);
        if watcher.pace == Pace::Behind {
            // It fell behind at an event of this very batch.
            watcher.outbox.wake();
            return;
        }
        let count = events.len() as u64;
        let update = WatchUpdate::Events {
            watch_id: watcher.id,
            revision: last,
            events,
            fragment_ok: watcher.request.fragment,
        };
        match watcher.outbox.push(update) {
            Ok(()) => {
                watcher.next_revision = last + 1;
                watcher.spoke = true;
                self.delivered += count;
            }
            Err(bytes) => {
                watcher.next_revision = watcher.next_revision.max(first);
                watcher.pace = Pace::Behind;
                watcher.owe(first, bytes as u64);
                watcher.outbox.wake();
            }
        }
    }
}

fn stored_size(event: &StoredEvent) -> u64 {
    (size_of::<Event<Sealed>>() + key_value_size(&event.kv)) as u64
}

impl Watcher {
    pub(crate) fn new(
        keyspace: KeyspaceId,
        id: i64,
        request: WatchCreate,
        outbox: Arc<Outbox>,
        next_revision: i64,
        decided: Decided,
    ) -> Self {
        Self {
            keyspace,
            id,
            request,
            outbox,
            next_revision,
            pace: Pace::Live,
            fence: decided.fence,
            sight: decided.standing.sight,
            until: decided.standing.until,
            decide: decided.decide,
            spoke: false,
            backlog: 0,
            backlog_from: 0,
            decided_for: 0,
            gathered: Vec::new(),
        }
    }

    fn wants(&self, event: &StoredEvent) -> bool {
        self.pace == Pace::Live
            && event.kv.mod_revision >= self.next_revision
            && !self.filters_out(event.deleted)
    }

    /// Is this an event that it will have to read from history? What is hidden it is not owed: that much happens
    /// there must not show by its end.
    fn is_owed(&self, event: &StoredEvent) -> bool {
        self.pace == Pace::Behind
            && event.kv.mod_revision >= self.next_revision
            && !self.filters_out(event.deleted)
            && !self.sight.hides(&event.kv.key)
    }

    fn owe(&mut self, revision: i64, bytes: u64) {
        if self.backlog == 0 {
            self.backlog_from = revision;
        }
        self.backlog += bytes;
    }

    /// These were read from history for it.
    pub(crate) fn caught_up(&mut self, events: &[Event<Sealed>]) {
        let owed = events.iter().filter(|event| event.kv.mod_revision >= self.backlog_from);
        let bytes = owed.map(|event| event_size(event) as u64).sum();
        self.backlog = self.backlog.saturating_sub(bytes);
    }

    pub(crate) fn go_live(&mut self) {
        self.pace = Pace::Live;
        self.backlog = 0;
    }

    /// What waits for it in memory goes too: it will be read from history by the watch that goes on.
    fn end_as_too_slow(&mut self) {
        let waiting = self.outbox.forget(self.id);
        let resume_revision = waiting.map_or(self.next_revision, |first| first.min(self.next_revision));
        let (watch_id, backlog) = (self.id, self.backlog);
        self.outbox.push_final(WatchUpdate::TooSlow { watch_id, resume_revision, backlog });
        self.pace = Pace::Ended;
    }

    pub(crate) fn filters_out(&self, deleted: bool) -> bool {
        if deleted { self.request.no_delete } else { self.request.no_put }
    }

    fn gather(&mut self, event: &StoredEvent) {
        if self.request.prev_kv && event.prev_in_store {
            // Its previous value must be read from the store, which live watchers never do. What was
            // gathered of this batch is dropped and read again with it.
            self.next_revision =
                self.gathered.first().map_or(event.kv.mod_revision, |first| first.kv.mod_revision);
            self.pace = Pace::Behind;
            if self.gathered.is_empty() {
                self.gathered.push(self.shown(event));
            }
            return;
        }
        self.gathered.push(self.shown(event));
    }

    /// The event as this watcher asked to see it.
    pub(crate) fn shown(&self, event: &StoredEvent) -> Event<Sealed> {
        Event {
            deleted: event.deleted,
            kv: event.kv.clone(),
            prev: if self.request.prev_kv { event.prev.clone() } else { None },
        }
    }

    /// Once for each batch that has something for it: may it see what is in there? If not, it has ended.
    fn is_decided_for(&mut self, batch: u64, view: &View) -> bool {
        if self.decided_for == batch {
            return true;
        }
        self.decided_for = batch;
        let known = self.until;
        let Err(refusal) = self.decide_again(view) else {
            if self.until.is_some_and(|until| known.is_none_or(|known| until < known)) {
                self.outbox.let_decide();
            }
            return true;
        };
        let revision = view.keyspace(self.keyspace).map_or(0, |keyspace| keyspace.revision());
        self.outbox.push_final(WatchUpdate::Denied { watch_id: self.id, refusal, revision });
        self.pace = Pace::Ended;
        false
    }

    /// Asks policy again if it changed since this watcher was last decided.
    pub(crate) fn decide_again(&mut self, view: &View) -> Result<(), Refusal> {
        let fence = view.fence(self.keyspace).ok_or(Refusal::PermissionDenied)?;
        if fence != self.fence || self.is_due() {
            let Standing { sight, until } = (self.decide)(view)?;
            if sight != self.sight {
                // What it was owed of keys that are hidden now will never be read.
                self.backlog = 0;
                self.sight = sight;
            }
            self.until = until;
            self.fence = fence;
        }
        Ok(())
    }

    /// Time alone may have changed what was decided.
    pub(crate) fn is_due(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }
}
