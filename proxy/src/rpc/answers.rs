//! Answers of one connection that its client has not taken.
//!
//! A client whose HTTP/2 window is shut makes each of its answers stay in memory. One that lets many bytes lie is not
//! served further until it takes some; nothing is refused for it. What all connections hold is bounded by
//! [`super::answer_room`].

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Ten of the largest values of the default size.
const MOST: usize = 16 << 20;

#[derive(Default)]
pub struct Answers {
    held: AtomicUsize,
    taken: Notify,
}

impl Answers {
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the next request waits.
    pub(super) fn lie(&self) -> bool {
        self.held() >= MOST
    }

    /// Completes when the client has taken enough. Cancel-safe.
    pub(super) async fn taken(&self) {
        while self.lie() {
            // One that is told before it waits finds it remembered, so nothing is missed.
            self.taken.notified().await;
        }
        // There may be room for more than one.
        self.taken.notify_one();
    }

    pub(super) fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn all_that_waited_go_on_when_there_is_room_for_all() {
        let answers = Arc::new(Answers::default());
        answers.add(MOST - 1);
        assert!(!answers.lie());
        answers.add(1);
        let mut waiting: tokio::task::JoinSet<()> = (0..3)
            .map(|_| {
                let answers = answers.clone();
                async move { answers.taken().await }
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.try_join_next().is_none());
        answers.remove(1);
        let all = tokio::time::timeout(std::time::Duration::from_secs(10), waiting.join_all());
        assert!(all.await.is_ok(), "somebody waits for ever");
    }
}
