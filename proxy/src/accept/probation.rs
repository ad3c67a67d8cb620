//! How much a connection may have under way until it has shown who it is, whatever it sends: some
//! multiple of [`BYTES`] and [`REQUESTS`].
//!
//! - What it sent since it last had no request open, because each of these bytes may still be held: a
//!   message's beginning, a header, data that no request has asked for yet. Beyond the bound it is
//!   not read until a request ends, or until it has proved itself.
//! - Its open requests, because each costs more than the bytes it took to open it. Beyond the bound a
//!   request that does not show who asks is refused. Not reading would not do: what the open ones
//!   wait for may come behind it.
//! - While it does not read its answers nothing more is read of it, or they would pile up.
//!
//! It is read little at once, so that the bounds are looked at before much has happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};

/// Twice what is read of a stranger's message. A login takes a thousandth of it.
const BYTES: usize = 128 << 10;

/// At a time. A client that logs in has one open; monitoring has a few.
const REQUESTS: usize = 16;

/// A login, or some 25 of the smallest requests.
pub(super) const AT_ONCE: usize = 256;

/// Of one connection. Everything is of its one thread; the atomics are for the types' sake.
#[derive(Default)]
pub(super) struct Probation {
    over: AtomicBool,
    open: AtomicUsize,
    sent: AtomicUsize,
    /// The client lets its answers lie.
    answers_wait: AtomicBool,
    reader: AtomicWaker,
}

/// What may be read of a connection now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Allowance {
    Everything,
    AtMost(usize),
}

impl Probation {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// It has shown who it is.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.reader.wake();
    }

    /// Pending: nothing for now; `cx` is woken when that changes.
    pub(super) fn poll_allowance(&self, cx: &Context<'_>) -> Poll<Allowance> {
        if self.is_over() {
            return Poll::Ready(Allowance::Everything);
        }
        // Before the look, so that no change is missed.
        self.reader.register(cx.waker());
        let left = BYTES.saturating_sub(self.sent.load(Ordering::Relaxed));
        if left == 0 || self.answers_wait.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Poll::Ready(Allowance::AtMost(left.min(AT_ONCE)))
    }

    /// More requests are open than a stranger may have.
    pub(super) fn is_crowded(&self) -> bool {
        !self.is_over() && self.open.load(Ordering::Relaxed) > REQUESTS
    }

    pub(super) fn has_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether the last answer found no room on its way to the client.
    pub(super) fn answers_wait(&self, wait: bool) {
        if self.answers_wait.swap(wait, Ordering::Relaxed) && !wait {
            self.reader.wake();
        }
    }

    /// Counts a request for as long as the result, or the body around it, lasts.
    pub(super) fn request(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }
}

/// An open request.
pub(super) struct Open(Arc<Probation>);

impl Open {
    /// The request lasts until its answer is sent.
    pub(super) fn around(self, answer: tonic::body::Body) -> tonic::body::Body {
        if answer.is_end_stream() {
            return answer;
        }
        tonic::body::Body::new(Answer { inner: answer, _open: self })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.sent.store(0, Ordering::Relaxed);
        }
        self.0.reader.wake();
    }
}

struct Answer {
    inner: tonic::body::Body,
    _open: Open,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        std::pin::Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker;

    fn allowance(probation: &Probation) -> Poll<Allowance> {
        probation.poll_allowance(&Context::from_waker(&noop_waker()))
    }

    #[test]
    fn open_requests_are_bounded_until_proof() {
        let probation = Arc::new(Probation::default());
        let mut open: Vec<_> = (0..REQUESTS).map(|_| probation.request()).collect();
        assert!(!probation.is_crowded());
        open.push(probation.request());
        assert!(probation.is_crowded());
        // What those wait for is read all the same.
        assert_eq!(allowance(&probation), Poll::Ready(Allowance::AtMost(AT_ONCE)));
        open.pop();
        assert!(!probation.is_crowded());
        open.push(probation.request());
        probation.end();
        assert!(!probation.is_crowded());
        assert_eq!(allowance(&probation), Poll::Ready(Allowance::Everything));
    }

    #[test]
    fn bytes_count_until_nothing_is_open() {
        let probation = Arc::new(Probation::default());
        let (first, second) = (probation.request(), probation.request());
        probation.has_sent(BYTES - 1);
        assert_eq!(allowance(&probation), Poll::Ready(Allowance::AtMost(1)));
        probation.has_sent(1);
        drop(first);
        assert!(allowance(&probation).is_pending());
        drop(second);
        assert_eq!(allowance(&probation), Poll::Ready(Allowance::AtMost(AT_ONCE)));
    }

    #[test]
    fn who_lets_answers_lie_is_not_read() {
        let probation = Probation::default();
        probation.answers_wait(true);
        assert!(allowance(&probation).is_pending());
        probation.answers_wait(false);
        assert!(allowance(&probation).is_ready());
    }
}
