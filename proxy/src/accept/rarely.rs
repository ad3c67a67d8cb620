//! A future beside one that is busy. It is polled when it was woken itself, not each time that its task is: what ends a
//! connection or a stream hardly ever does, and asking each of its causes after each message costs.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// Pending for ever after it was ready.
pub(super) struct Rarely<F>(FuturesUnordered<F>);

impl<F: Future> Rarely<F> {
    pub(super) fn new(future: F) -> Self {
        Self(std::iter::once(future).collect())
    }
}

impl<F: Future> Future for Rarely<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.0.poll_next_unpin(cx) {
            Poll::Ready(Some(output)) => Poll::Ready(output),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::rc::Rc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_not_when_its_neighbours_were() {
        let (polls, change) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let (counted, changed) = (polls.clone(), change.clone());
        let mut changes = Box::pin(async move { changed.notified().await });
        let mut rarely = pin!(Rarely::new(std::future::poll_fn(move |cx| {
            counted.set(counted.get() + 1);
            changes.as_mut().poll(cx)
        })));
        for _ in 0..10 {
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => {}
                () = rarely.as_mut() => panic!("nothing has changed"),
            }
        }
        assert_eq!(polls.get(), 1);
        change.notify_one();
        rarely.await;
        assert_eq!(polls.get(), 2);
    }
}
