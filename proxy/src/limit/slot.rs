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
    settled: Mutex<Option<Settled>>,
    watchers: Arc<AtomicU64>,
    streams: Arc<AtomicU64>,
    answers: Arc<Answers>,
}

struct Settled {
    account: Arc<Account>,
    /// As the caller is called: the account may be one that several share.
    user: Option<Box<str>>,
    /// Counts the connection among the caller's.
    _seat: Seat,
}

impl Slot {
    pub(super) fn account(&self, keyspace: KeyspaceId, user: Option<&str>) -> Option<Arc<Account>> {
        let settled = self.settled.lock();
        let own =
            |settled: &&Settled| settled.account.keyspace == keyspace && settled.user.as_deref() == user;
        settled.as_ref().filter(own).map(|settled| settled.account.clone())
    }

    pub(super) fn settle(&self, account: Arc<Account>, user: Option<&str>, seat: Seat) {
        *self.settled.lock() = Some(Settled { account, user: user.map(Into::into), _seat: seat });
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
