//! gRPC's deadline: how long the client waits, which it says in the header `grpc-timeout`.
//!
//! What is under way when it passes is let go, the answer is DEADLINE_EXCEEDED. A write that the log
//! has taken by then is done all the same: as in etcd, its client does not learn what became of it.
//! The answer comes before the clock: a request that is answered at once never sets a timer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

use super::frame;
use crate::status;

/// No request lives as long as this, and no clock need be asked about more.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// gRPC allows eight digits and a unit.
const MAX_LENGTH: usize = 9;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// None: so far away that it is none. An error is the answer, and nothing is done.
    pub(super) fn read(timeout: &HeaderValue) -> Result<Option<Self>, Status> {
        let timeout = parse(timeout.as_bytes()).map_err(status::malformed_timeout)?;
        if timeout.is_zero() {
            return Err(status::deadline_exceeded());
        }
        Ok((timeout < FOREVER).then(|| Self(Instant::now() + timeout)))
    }

    pub(super) fn has_passed(self) -> bool {
        Instant::now() >= self.0
    }

    /// Waits for the answer to a unary request, or for the head of a stream. Pinned, as it is too large to be moved in.
    pub(super) async fn bound<F>(self, answer: Pin<&mut F>) -> Response<Body>
    where
        F: Future<Output = Response<Body>>,
    {
        match tokio::time::timeout_at(self.0, answer).await {
            Ok(answer) => answer,
            Err(_) => frame::refused(&status::deadline_exceeded()),
        }
    }

    /// Ends a stream that lasts too long.
    pub(super) fn bound_stream(self, answer: Response<Body>) -> Response<Body> {
        answer.map(|inner| Body::new(UntilDeadline { inner, deadline: self, timer: None, ended: false }))
    }
}

/// Strictly as gRPC writes it: digits, then one of the units.
fn parse(text: &[u8]) -> Result<Duration, &'static str> {
    if text.len() < 2 {
        return Err("too short");
    }
    if text.len() > MAX_LENGTH {
        return Err("too long");
    }
    let Some((unit, digits)) = text.split_last() else { return Err("too short") };
    let unit: fn(u64) -> Duration = match unit {
        b'H' => |hours| Duration::from_secs(hours * 3600),
        b'M' => |minutes| Duration::from_secs(minutes * 60),
        b'S' => Duration::from_secs,
        b'm' => Duration::from_millis,
        b'u' => Duration::from_micros,
        b'n' => Duration::from_nanos,
        _ => return Err("of an unknown unit"),
    };
    let mut number = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err("not a number");
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    Ok(unit(number))
}

struct UntilDeadline {
    /// Empty once the deadline has passed: whatever it held is let go, and counted.
    inner: Body,
    deadline: Deadline,
    /// Set when there was something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl UntilDeadline {
    /// A stream that always has something to send ends in time, too.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline.has_passed() {
            return Poll::Ready(());
        }
        let deadline = self.deadline.0;
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline))).as_mut().poll(cx)
    }
}

impl http_body::Body for UntilDeadline {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.deadline.has_passed()
            && let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx)
        {
            return Poll::Ready(frame);
        }
        if self.poll_deadline(cx).is_pending() {
            return Poll::Pending;
        }
        self.ended = true;
        self.inner = Body::empty();
        Poll::Ready(Some(Ok(Frame::trailers(frame::trailers(&status::deadline_exceeded())))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};
    use std::pin::pin;
    use std::sync::Arc;

    #[test]
    fn deadlines_are_read_strictly() {
        for (text, expected) in [
            ("1n", Ok(Duration::from_nanos(1))),
            ("20u", Ok(Duration::from_micros(20))),
            ("300m", Ok(Duration::from_millis(300))),
            ("5S", Ok(Duration::from_secs(5))),
            ("2M", Ok(Duration::from_secs(120))),
            ("99999999H", Ok(Duration::from_secs(99_999_999 * 3600))),
            ("00000001S", Ok(Duration::from_secs(1))),
            ("", Err("too short")),
            ("1", Err("too short")),
            ("S", Err("too short")),
            ("123456789S", Err("too long")),
            ("1s", Err("of an unknown unit")),
            ("10", Err("of an unknown unit")),
            ("-1S", Err("not a number")),
            ("+1S", Err("not a number")),
            ("1.5S", Err("not a number")),
            (" 1S", Err("not a number")),
            ("1 S", Err("not a number")),
            ("mS", Err("not a number")),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
        assert!(Deadline::read(&HeaderValue::from_static("99999999H")).unwrap().is_none());
        let none_left = Deadline::read(&HeaderValue::from_static("0S")).unwrap_err();
        assert_eq!(none_left.code(), tonic::Code::DeadlineExceeded);
        let broken = Deadline::read(&HeaderValue::from_static("soon")).unwrap_err();
        assert_eq!(broken.code(), tonic::Code::Internal);
    }

    fn after(timeout: Duration) -> Deadline {
        Deadline(Instant::now() + timeout)
    }

    fn grpc_status(headers: &http::HeaderMap) -> &str {
        headers["grpc-status"].to_str().unwrap()
    }

    #[tokio::test]
    async fn an_answer_that_is_ready_is_never_late() {
        let late = Deadline(Instant::now());
        let answer = late.bound(pin!(std::future::ready(Response::new(Body::empty())))).await;
        assert!(answer.headers().is_empty());
    }

    #[tokio::test]
    async fn what_waits_too_long_is_let_go() {
        let held = Arc::new(());
        let (start, holding) = (Instant::now(), held.clone());
        let never = async move {
            let _held = holding;
            std::future::pending().await
        };
        let answer = after(Duration::from_millis(50)).bound(pin!(never)).await;
        assert_eq!(grpc_status(answer.headers()), "4");
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn a_silent_stream_and_a_busy_one_end_in_time() {
        let held = Arc::new(());
        let silent = Body::new(StreamBody::new(futures_util::stream::unfold(held.clone(), |held| async {
            std::future::pending::<()>().await;
            Some((Ok::<_, Status>(Frame::data(Bytes::new())), held))
        })));
        let busy = Body::new(StreamBody::new(futures_util::stream::unfold(held.clone(), |held| async {
            Some((Ok::<_, Status>(Frame::data(Bytes::from_static(b"x"))), held))
        })));
        for (body, is_busy) in [(silent, false), (busy, true)] {
            let start = Instant::now();
            let mut body = after(Duration::from_millis(50)).bound_stream(Response::new(body)).into_body();
            let mut frames = 0;
            let trailers = loop {
                match body.frame().await.unwrap().unwrap().into_trailers() {
                    Ok(trailers) => break trailers,
                    Err(_) => frames += 1,
                }
            };
            assert_eq!((frames > 0, grpc_status(&trailers)), (is_busy, "4"));
            assert!(start.elapsed() >= Duration::from_millis(50));
            assert!(body.frame().await.is_none());
        }
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
