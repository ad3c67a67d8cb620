//! Memory for answers: what reads take from the store, and what waits in the gateway to be sent.
//!
//! Values that memory holds anyway are shared and cost nothing; a copy that was read from the store, and an answer that
//! was put into a message, cost what they are long. When there is no more room, a read is refused, and what it held is
//! free at once. Writes, and answers too small to be counted, never ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use keygate_core::{Limited, Refusal, Retry};

pub struct AnswerRoom {
    limit: usize,
    held: AtomicUsize,
}

/// What one read, or one answer, holds. Gives it back when dropped.
pub struct AnswerShare {
    room: Arc<AnswerRoom>,
    held: AtomicUsize,
}

/// An answer of a full room is sent within this, if its client reads it at all.
const SOON: Duration = Duration::from_millis(100);

impl AnswerRoom {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicUsize::new(0) })
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Nothing yet.
    pub fn share(self: &Arc<Self>) -> AnswerShare {
        AnswerShare { room: self.clone(), held: AtomicUsize::new(0) }
    }

    fn refusal(&self, wanted: usize) -> Refusal {
        let retry = if wanted > self.limit {
            Retry::Never
        } else {
            Retry::After { wait: SOON, remaining: 0, reset: SOON }
        };
        Refusal::Limited(Box::new(Limited {
            rule: "answer-memory",
            subject: "this server".into(),
            limit: self.limit as u64,
            retry,
        }))
    }
}

impl AnswerShare {
    /// So much more. When refused, what was held stays held.
    pub fn grow(&self, bytes: usize) -> Result<(), Refusal> {
        let before = self.room.held.fetch_add(bytes, Relaxed);
        if before.saturating_add(bytes) > self.room.limit {
            self.room.held.fetch_sub(bytes, Relaxed);
            return Err(self.room.refusal(self.held.load(Relaxed).saturating_add(bytes)));
        }
        self.held.fetch_add(bytes, Relaxed);
        Ok(())
    }
}

impl Drop for AnswerShare {
    fn drop(&mut self) {
        self.room.held.fetch_sub(self.held.load(Relaxed), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_takes_nothing() {
        let room = AnswerRoom::new(100);
        let (one, other) = (room.share(), room.share());
        one.grow(60).unwrap();
        other.grow(40).unwrap();
        let Err(Refusal::Limited(limited)) = other.grow(1) else { panic!("the room is full") };
        assert!(matches!(limited.retry, Retry::After { .. }), "there may be room soon");
        assert_eq!(room.held(), 100);
        drop(one);
        other.grow(60).unwrap();
        let Err(Refusal::Limited(limited)) = other.grow(1) else { panic!("larger than all there is") };
        assert_eq!(limited.retry, Retry::Never);
        drop(other);
        assert_eq!(room.held(), 0);
    }
}
