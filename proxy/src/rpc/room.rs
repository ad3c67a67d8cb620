//! Room for messages that have begun to arrive and are not whole yet: so much for one connection,
//! so much for all of them.
//!
//! A message that arrives in one piece needs none. Beyond the bounds a message is refused, and what
//! it held is free at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// For one connection: 40 of the largest requests of the default size at a time.
const CONNECTION: usize = 64 << 20;

/// For all connections.
pub struct MessageRoom {
    limit: usize,
    held: AtomicUsize,
}

impl MessageRoom {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }

    /// A new connection's share.
    pub fn connection(self: &Arc<Self>) -> Arc<ConnectionRoom> {
        let limit = CONNECTION.min(self.limit);
        Arc::new(ConnectionRoom { all: self.clone(), limit, held: AtomicUsize::new(0) })
    }
}

/// There is no room for more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// For one connection.
pub struct ConnectionRoom {
    all: Arc<MessageRoom>,
    limit: usize,
    held: AtomicUsize,
}

impl ConnectionRoom {
    fn take(&self, bytes: usize) -> Result<(), Full> {
        take(&self.held, bytes, self.limit)?;
        take(&self.all.held, bytes, self.all.limit).inspect_err(|_| {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        })
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.all.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn take(held: &AtomicUsize, bytes: usize, limit: usize) -> Result<(), Full> {
    let before = held.fetch_add(bytes, Ordering::Relaxed);
    if before.saturating_add(bytes) > limit {
        held.fetch_sub(bytes, Ordering::Relaxed);
        return Err(Full);
    }
    Ok(())
}

/// What the messages of one request hold. Gives it back when dropped.
pub(super) struct Held {
    room: Arc<ConnectionRoom>,
    bytes: usize,
}

impl Held {
    pub(super) fn none(room: Arc<ConnectionRoom>) -> Self {
        Self { room, bytes: 0 }
    }

    /// From now on `bytes`, no more and no less. When refused, what was held stays held.
    pub(super) fn resize(&mut self, bytes: usize) -> Result<(), Full> {
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => self.room.take(more)?,
            None => self.room.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_for_one_and_for_all() {
        let all = MessageRoom::new(CONNECTION + 100);
        let (one, other) = (all.connection(), all.connection());
        let (mut first, mut second) = (Held::none(one.clone()), Held::none(one));
        first.resize(CONNECTION - 10).unwrap();
        assert_eq!(second.resize(11), Err(Full));
        second.resize(10).unwrap();
        let mut third = Held::none(other.clone());
        third.resize(100).unwrap();
        assert_eq!(third.resize(101), Err(Full));
        // A refusal takes nothing, neither of the connection nor of all.
        assert_eq!(other.held.load(Ordering::Relaxed), 100);
        first.resize(0).unwrap();
        third.resize(101).unwrap();
        drop((first, second, third));
        assert_eq!(all.held.load(Ordering::Relaxed), 0);
    }
}
