//! An answer that is there at once, or one that is waited for.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use keygate_core::Refusal;
use tokio::sync::oneshot;

use crate::port::Answered;

/// Nearly all reads are answered from memory, in the call. Only what has to wait is given a future, and one of its own: the
/// future of each request would be as large as that of the largest, and would be moved and walked over each time.
#[must_use = "nothing waits for it otherwise"]
pub enum Answering<'a> {
    Now(Ready<Answered>),
    /// In the log's queue. The sender is dropped without an answer only when the engine stops.
    Proposed(oneshot::Receiver<Answered>),
    Later(Pin<Box<dyn Future<Output = Answered> + Send + 'a>>),
}

impl<'a> Answering<'a> {
    pub fn now(answered: Answered) -> Self {
        Self::Now(ready(answered))
    }

    pub fn later(answer: impl Future<Output = Answered> + Send + 'a) -> Self {
        Self::Later(Box::pin(answer))
    }
}

impl Future for Answering<'_> {
    type Output = Answered;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        match self.get_mut() {
            Self::Now(ready) => Pin::new(ready).poll(cx),
            Self::Proposed(answer) => {
                Pin::new(answer).poll(cx).map(|answered| answered.unwrap_or(Err(Refusal::Stopping)))
            }
            Self::Later(answer) => answer.as_mut().poll(cx),
        }
    }
}
