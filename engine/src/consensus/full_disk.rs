//! A full disk is no end: nothing is acknowledged that is not durable, reads go on, and so do writes when there is
//! room again.
//!
//! - The *store* cannot be written: what needs room is refused, so that the room which the log has left is there for
//!   deletes and compactions. They free pages in the store's file, not on the disk: the way out is room on the disk.
//! - The *log* cannot be written: every write is refused. What was on its way is neither acknowledged nor lost; it is
//!   appended when there is room.
//!
//! A sync that fails is another matter, see [`crate::storage::StorageError::Fatal`].

use super::driver::Driver;
use crate::storage::StorageError;
use crossbeam_channel::RecvTimeoutError;
use parking_lot::{Condvar, Mutex};
use raft::eraftpb::{Entry, HardState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A full disk is tried again this often.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// How often an operator is told again.
const REMIND: Duration = Duration::from_secs(60);

/// What is known about room on the disk, and about a disk that does not answer. Written by those who use it, read at the
/// door.
#[derive(Default)]
pub(crate) struct Room {
    log_full: AtomicBool,
    store_full: AtomicBool,
    /// The store can be neither opened nor read, so that it cannot be written.
    store_away: AtomicBool,
    /// The thread that applies waits for a row of the store.
    apply_waits: AtomicBool,
    stopping: AtomicBool,
    /// Nobody is to wait for the disk any more.
    given_up: Mutex<bool>,
    giving_up: Condvar,
}

impl Room {
    pub(crate) fn log_is_full(&self) -> bool {
        self.log_full.load(Ordering::Relaxed)
    }

    pub(crate) fn store_is_full(&self) -> bool {
        self.store_full.load(Ordering::Relaxed)
    }

    pub(super) fn set_store_full(&self, full: bool) {
        self.store_full.store(full, Ordering::Relaxed);
    }

    pub(super) fn store_is_away(&self) -> bool {
        self.store_away.load(Ordering::Relaxed)
    }

    pub(super) fn set_store_away(&self, away: bool) {
        self.store_away.store(away, Ordering::Relaxed);
    }

    pub(crate) fn apply_waits(&self) -> bool {
        self.apply_waits.load(Ordering::Relaxed)
    }

    pub(super) fn set_apply_waits(&self, waits: bool) {
        self.apply_waits.store(waits, Ordering::Relaxed);
    }

    /// The engine is asked to stop, which it must hear wherever it waits.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.give_up();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn give_up(&self) {
        *self.given_up.lock() = true;
        self.giving_up.notify_all();
    }

    pub(super) fn is_given_up(&self) -> bool {
        *self.given_up.lock()
    }

    /// Until the next try.
    pub(super) fn wait_for_better(&self) {
        let mut given_up = self.given_up.lock();
        if !*given_up {
            self.giving_up.wait_for(&mut given_up, RETRY);
        }
    }
}

/// Says something at once, and again from time to time while it stays true.
#[derive(Default)]
pub(crate) struct Reminder {
    last: Option<Instant>,
}

impl Reminder {
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= REMIND);
        if due {
            self.last = Some(now);
        }
        due
    }
}

impl Driver {
    /// Appends to the log, however long it takes until there is room. [`StorageError::NoSpace`] only when asked to stop
    /// meanwhile, or while starting: then nobody is served yet, and the start is what fails.
    pub(super) fn append_to_log(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        sync: bool,
    ) -> Result<(), StorageError> {
        let mut reminder = Reminder::default();
        loop {
            let full = match self.log().append(entries, hard_state, sync) {
                Err(error @ StorageError::NoSpace { .. }) if self.serving => error,
                result => {
                    if self.seams.room.log_full.swap(false, Ordering::Relaxed) && result.is_ok() {
                        tracing::info!("the log can be written again; writes are served");
                    }
                    return result;
                }
            };
            self.seams.room.log_full.store(true, Ordering::Relaxed);
            if reminder.is_due() {
                tracing::error!(error = %full, "the disk is full and the log cannot be written: all writes are refused, reads go on; make room on this device, or make it larger, and writes go on by themselves");
            }
            self.wait_for_room(full)?;
        }
    }

    /// Until the next try: whoever wants to write is refused, everything else goes on.
    fn wait_for_room(&mut self, full: StorageError) -> Result<(), StorageError> {
        let deadline = Instant::now() + RETRY;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.requests.recv_timeout(left) {
                Ok(request) => {
                    if !self.handle(request)? {
                        return self.stop_without_room(full);
                    }
                    // A refusal, if it was a proposal.
                    self.publish(Vec::new());
                }
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return self.stop_without_room(full),
            }
        }
    }

    fn stop_without_room(&mut self, full: StorageError) -> Result<(), StorageError> {
        self.asked_to_stop = true;
        Err(full)
    }
}
