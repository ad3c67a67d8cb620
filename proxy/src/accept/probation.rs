//! How much a connection may have under way until it has shown who it is.
//!
//! Nothing is refused: beyond the bounds the connection is not read, until something of it has ended
//! or it has proved itself. What a stranger can make the server hold is therefore some multiple of
//! [`BYTES`] and [`STREAMS`], whatever it sends; a client that shows its token with its first request
//! is held up for one pass of its thread's loop.
//!
//! - What it sent since it last had no request open, because each of these bytes may still be held:
//!   a message's beginning, a header, data that no stream has asked for yet.
//! - Its open requests, because each costs more than the bytes it took to open it.
//! - While it does not read its answers nothing more is read of it, or they would pile up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};

/// Twice what is read of a stranger's message. A login takes a thousandth of it.
const BYTES: usize = 128 << 10;

/// Requests at a time. A client that logs in has one open; monitoring has a few.
const STREAMS: usize = 16;

/// Read at once. The smallest request takes 14 bytes: this many more may open before they are counted.
pub(super) const AT_ONCE: usize = 512;

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
        let too_many = self.open.load(Ordering::Relaxed) >= STREAMS;
        if left == 0 || too_many || self.answers_wait.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Poll::Ready(Allowance::AtMost(left.min(AT_ONCE)))
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
        let mut open: Vec<_> = (0..STREAMS - 1).map(|_| probation.request()).collect();
        assert_eq!(allowance(&probation), Poll::Ready(Allowance::AtMost(AT_ONCE)));
        open.push(probation.request());
        assert!(allowance(&probation).is_pending());
        open.pop();
        assert!(allowance(&probation).is_ready());
        open.push(probation.request());
        probation.end();
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
