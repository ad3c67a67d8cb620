//! What follows a batch of applied commands: the store gets its changes, everybody the new view, the askers their
//! answers, the watchers their events.

use super::Driver;
use crate::background::{self, Niceness};
use crate::consensus::flush::{FlushBatch, Flushed};
use crate::mvcc::{Erased, StoredEvent};
use crate::port::Delivery;
use crate::storage::StorageError;
use crate::view::{Position, View};
use crate::watch::EventBatch;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Index entries that eviction visits between two batches.
const EVICT_STEPS: usize = 20_000;
/// How long a view may keep a deleted tenant's memory before that is freed by whoever holds it last.
const PATIENCE: Duration = Duration::from_secs(60);

impl Driver {
    pub(super) fn finish_batch(&mut self, events: Vec<StoredEvent>) {
        self.hand_to_flusher();
        self.publish(events);
    }

    pub(super) fn hand_to_flusher(&mut self) {
        let changes = std::mem::take(&mut self.effects.changes);
        let sequence = self.state.seal_batch();
        self.handed += 1;
        self.flusher.send(FlushBatch { changes, number: self.handed, sequence, applied: self.applied });
    }

    /// First the view, then the answers and events: whoever is answered can read what was written.
    pub(in crate::consensus) fn publish(&mut self, events: Vec<StoredEvent>) {
        let raft = &self.node.raft;
        let position =
            Position { term: raft.term, applied_index: self.applied.index, leader: raft.leader_id };
        let view = View::new(self.state.clone(), position);
        let before = self.seams.board.replace(view.clone());
        self.seams.counters.applied.store(self.applied.index, Ordering::Relaxed);
        self.seams.counters.events.fetch_add(events.len() as u64, Ordering::Relaxed);
        for erased in self.effects.erased.drain(..) {
            free_elsewhere(erased);
        }
        // Pairs with a watcher that is counted first and looks at the view second.
        std::sync::atomic::fence(Ordering::SeqCst);
        let ended = std::mem::take(&mut self.effects.ended);
        let policy = view.platform_policy().revision;
        let has_new_policy = std::mem::replace(&mut self.published_policy, policy) != policy;
        let tells = !events.is_empty() || !ended.is_empty() || has_new_policy;
        let batch = tells.then(|| Arc::new(EventBatch { events, ended, has_new_policy, view }));
        for (port, answers) in self.ports.iter_mut().zip(&mut self.outgoing) {
            let Some(mailbox) = port else { continue };
            let listens = mailbox.watchers.load(Ordering::SeqCst) > 0;
            let events = batch.as_ref().filter(|_| listens).cloned();
            if answers.is_empty() && events.is_none() {
                continue;
            }
            let delivery = Delivery { answers: std::mem::take(answers), events };
            if mailbox.deliveries.send(delivery).is_err() {
                // Its thread has ended.
                *port = None;
            }
        }
        // Nearly always the last who holds it: nobody has to wait until its memory is free.
        drop(before);
    }

    pub(super) fn heard_of_flush(&mut self, flushed: Flushed) -> Result<(), StorageError> {
        self.state.flushed(flushed.sequence);
        // A memory that must not hold everything lets go of what the store has now.
        self.state.evict(self.seams.options.memory_budget, EVICT_STEPS);
        let keep = self.seams.options.log_keep_entries;
        let upto = flushed.applied.index.saturating_sub(keep);
        // A compaction for each commit would be a write for each commit.
        if upto > self.log_cut + keep / 2 {
            self.cut_log(upto)?;
        }
        self.flushed = self.flushed.max(flushed.number);
        self.answer_flush_waiters();
        Ok(())
    }

    fn cut_log(&mut self, upto: u64) -> Result<(), StorageError> {
        let log = self.node.mut_store();
        match log.compact_to(upto).and_then(|()| log.purge()) {
            // Even this writes. The next commit of the store tries again.
            Err(StorageError::NoSpace { .. }) => {}
            done => {
                done?;
                self.log_cut = upto;
            }
        }
        Ok(())
    }

    pub(super) fn answer_flush_waiters(&mut self) {
        let flushed = self.flushed;
        let (ready, waiting) = std::mem::take(&mut self.waiting_for_flush)
            .into_iter()
            .partition(|(number, _)| *number <= flushed);
        self.waiting_for_flush = waiting;
        for (_, waiter) in ready {
            // Nobody waits for an answer any more if this fails.
            waiter.send(()).ok();
        }
    }
}

/// A million keys take a second, a hundred thousand policy rows some milliseconds, in which nobody's writes would go on. Not before the last reader of an older view has
/// let go: it would be a serving thread that pays.
fn free_elsewhere(erased: Erased) {
    let free = move || {
        let until = Instant::now() + PATIENCE;
        while erased.is_shared() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(erased);
    };
    if let Err(error) = background::spawn("free", Niceness::Lowest, free) {
        tracing::warn!(%error, "no thread to free what is not needed any more: writes wait for it");
    }
}
