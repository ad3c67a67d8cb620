//! What a session's client is to be told next, and the queue in which it waits.

use super::budget::Budget;
use keygate_core::{Event, KeyValue, Refusal, Sealed};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// Bytes of undelivered events at which a session's watchers fall behind instead of queueing more.
pub(super) const OUTBOX_BYTES: usize = 4 << 20;

/// The next thing that a stream's client should be told.
#[derive(Debug)]
pub enum WatchUpdate {
    Events {
        watch_id: i64,
        revision: i64,
        events: Vec<Event<Sealed>>,
        fragment_ok: bool,
    },
    /// `watch_id` -1 answers a request for progress; else it is periodic.
    Progress {
        watch_id: i64,
        revision: i64,
    },
    /// The watch wanted history that is gone. It has ended.
    Compacted {
        watch_id: i64,
        compact_revision: i64,
    },
    /// Too much waited for the watch. It has ended; another one from `resume_revision` on misses nothing.
    TooSlow {
        watch_id: i64,
        resume_revision: i64,
        /// Bytes that waited.
        backlog: u64,
    },
    /// Policy no longer allows the watch. It has ended.
    Denied {
        watch_id: i64,
        refusal: Refusal,
        revision: i64,
    },
}

/// Updates on their way from the registry to a session.
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    budget: Arc<Budget>,
    pub(super) news: Notify,
    /// Decisions about the session's watches may have changed, or end sooner than it knows.
    undecided: AtomicBool,
}

#[derive(Default)]
struct Queue {
    updates: VecDeque<WatchUpdate>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { queue: Mutex::default(), budget, news: Notify::new(), undecided: AtomicBool::new(false) }
    }

    /// An error is the size of the update, which was not taken: the reader is too slow.
    pub(crate) fn push(&self, update: WatchUpdate) -> Result<(), usize> {
        let bytes = update.size();
        let mut queue = self.queue.lock();
        // One update is always taken, however large: one revision cannot be split.
        if queue.bytes == 0 {
            self.budget.take_anyway(bytes);
        } else if queue.bytes + bytes > OUTBOX_BYTES || !self.budget.take(bytes) {
            return Err(bytes);
        }
        queue.bytes += bytes;
        queue.updates.push_back(update);
        drop(queue);
        self.news.notify_one();
        Ok(())
    }

    /// For a watch's last word, which does not count against the budget.
    pub(crate) fn push_final(&self, update: WatchUpdate) {
        self.queue.lock().updates.push_back(update);
        self.news.notify_one();
    }

    pub(crate) fn wake(&self) {
        self.news.notify_one();
    }

    /// Lets the session ask again about all of its watches.
    pub(crate) fn let_decide(&self) {
        if !self.undecided.swap(true, Ordering::AcqRel) {
            self.news.notify_one();
        }
    }

    /// True once for each time that it was to ask again.
    pub(super) fn is_to_decide(&self) -> bool {
        // Nearly always there is nothing to take back.
        self.undecided.load(Ordering::Relaxed) && self.undecided.swap(false, Ordering::AcqRel)
    }

    pub(super) fn pop(&self) -> Option<WatchUpdate> {
        let mut queue = self.queue.lock();
        let update = queue.updates.pop_front()?;
        let bytes = update.size();
        queue.bytes -= bytes;
        self.budget.give_back(bytes);
        Some(update)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().updates.is_empty()
    }

    /// Is there still something to be said under this id?
    pub(super) fn mentions(&self, watch_id: i64) -> bool {
        self.queue.lock().updates.iter().any(|update| update.watch_id() == watch_id)
    }

    /// Drops whatever was to be said under this id. Answers the revision of the first event of it.
    pub(super) fn forget(&self, watch_id: i64) -> Option<i64> {
        let mut queue = self.queue.lock();
        let (mut dropped, mut first) = (0, None);
        queue.updates.retain(|update| {
            let stays = update.watch_id() != watch_id;
            if !stays {
                dropped += update.size();
                first = first.or(update.first_revision());
            }
            stays
        });
        queue.bytes -= dropped;
        self.budget.give_back(dropped);
        first
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.budget.give_back(self.queue.get_mut().bytes);
    }
}

impl WatchUpdate {
    fn watch_id(&self) -> i64 {
        match self {
            Self::Events { watch_id, .. }
            | Self::Progress { watch_id, .. }
            | Self::Compacted { watch_id, .. }
            | Self::TooSlow { watch_id, .. }
            | Self::Denied { watch_id, .. } => *watch_id,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Events { events, .. } => events.iter().map(event_size).sum(),
            Self::Progress { .. } | Self::Compacted { .. } | Self::TooSlow { .. } | Self::Denied { .. } => 0,
        }
    }

    fn first_revision(&self) -> Option<i64> {
        match self {
            Self::Events { events, .. } => events.first().map(|event| event.kv.mod_revision),
            Self::Progress { .. } | Self::Compacted { .. } | Self::TooSlow { .. } | Self::Denied { .. } => {
                None
            }
        }
    }
}

/// Keys and values, and what the event itself takes.
pub(super) fn event_size(event: &Event<Sealed>) -> usize {
    size_of::<Event<Sealed>>() + key_value_size(&event.kv) + event.prev.as_ref().map_or(0, key_value_size)
}

pub(super) fn key_value_size(kv: &KeyValue<Sealed>) -> usize {
    kv.key.len() + kv.value.as_ref().map_or(0, Sealed::len)
}
