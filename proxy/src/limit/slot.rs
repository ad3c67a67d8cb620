//! What limits know of one connection: whose it is, and what it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use keygate_core::KeyspaceId;
use parking_lot::Mutex;

use super::account::{Account, Seat};
use crate::rpc::Answers;

/// A connection nearly always has the same caller; looking the account up once is enough.
#[derive(Default)]
pub struct Slot {
    settled: Mutex<Option<Arc<Settled>>>,
    watchers: Arc<AtomicU64>,
    streams: Arc<AtomicU64>,
    answers: Arc<Answers>,
}

/// Whose connection it is. Requests share this and not the account itself: how often that is shared would be counted on
/// all threads that somebody's requests come on.
pub(super) struct Settled {
    pub(super) account: Arc<Account>,
    /// As the caller is called: the account may be one that several share.
    user: Option<Box<str>>,
    /// Counts the connection among the caller's. None: it has only kept leases alive.
    seat: Option<Seat>,
}

impl Settled {
    pub(super) fn new(account: Arc<Account>, user: Option<&str>, seat: Option<Seat>) -> Arc<Self> {
        Arc::new(Self { account, user: user.map(Into::into), seat })
    }
}

impl Slot {
    /// Whose it is, if it is this one's, and counted as a connection of theirs where that is `needed`.
    pub(super) fn settled(
        &self,
        keyspace: KeyspaceId,
        user: Option<&str>,
        needed: bool,
    ) -> Option<Arc<Settled>> {
        let settled = self.settled.lock();
        let own = |settled: &&Arc<Settled>| {
            settled.account.keyspace == keyspace
                && settled.user.as_deref() == user
                && (settled.seat.is_some() || !needed)
        };
        settled.as_ref().filter(own).cloned()
    }

    pub(super) fn settle(&self, settled: Arc<Settled>) {
        let before = self.settled.lock().replace(settled);
        // Gives a seat back, if nobody else holds it.
        drop(before);
    }

    /// For who only keeps leases alive. Whoever has a seat keeps it.
    pub(super) fn remember(&self, settled: &Arc<Settled>) {
        self.settled.lock().get_or_insert_with(|| settled.clone());
    }

    /// Bytes of answers that wait to be sent.
    pub fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    pub(super) fn watcher(&self) -> Counted {
        Counted::one_more(&self.watchers)
    }

    pub(super) fn stream(&self) -> Counted {
        Counted::one_more(&self.streams)
    }
}

/// Counts one more until dropped.
pub struct Counted(Arc<AtomicU64>);

impl Counted {
    fn one_more(counter: &Arc<AtomicU64>) -> Self {
        counter.fetch_add(1, Relaxed);
        Self(counter.clone())
    }

    /// How many there are, this one included.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
