//! A stream's answer that ends before the client ends it: when the server stops, so that an open
//! watch does not hold up a stop, and when the certificate or token that the client showed does not hold
//! any more.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use tokio::sync::watch;
use tonic::Status;

use super::rarely::Rarely;
use super::worker::Drain;
use crate::identify::{ConnectionIdentity, Lapse};

pub(super) struct UntilEnd {
    inner: tonic::body::Body,
    end: Rarely<Pin<Box<dyn Future<Output = End> + Send>>>,
    ended: bool,
    frames: u32,
}

/// A stream that always has something to send is asked whether it should end after so many frames.
const FRAMES: u32 = 64;

/// Why a stream is ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The client goes on elsewhere, or here when we are back.
    Drain,
    Lapse(Lapse),
}

impl End {
    fn trailers(self) -> HeaderMap {
        let (code, message) = match self {
            Self::Drain => ("14", "etcdserver: server stopped"),
            // Nothing that the client could show again would be better.
            Self::Lapse(Lapse::Revoked | Lapse::Untrusted) => ("16", "etcdserver: invalid auth token"),
            // Go's clients take UNAUTHENTICATED for the end of a watch, and UNAVAILABLE as a reason to
            // log in and come again, or to show the new certificate that is there by then.
            Self::Lapse(Lapse::Expired | Lapse::Changed) => ("14", "etcdserver: invalid auth token"),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        trailers.insert("grpc-message", HeaderValue::from_static(message));
        trailers
    }
}

impl UntilEnd {
    pub(super) fn new(
        inner: tonic::body::Body,
        mut draining: watch::Receiver<Drain>,
        connection: Arc<ConnectionIdentity>,
        end_of_token: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let end: Pin<Box<dyn Future<Output = End> + Send>> = Box::pin(async move {
            tokio::select! {
                // Nobody left to tell us is as good as being told.
                _ = draining.wait_for(|drain| *drain != Drain::Serving) => End::Drain,
                lapse = connection.lapse() => End::Lapse(lapse),
                () = end_of_token => End::Lapse(Lapse::Expired),
            }
        });
        Self { inner, end: Rarely::new(end), ended: false, frames: 0 }
    }
}

impl Body for UntilEnd {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.frames = self.frames.wrapping_add(1);
        // What is ready to be sent goes first, but not for ever.
        if !self.frames.is_multiple_of(FRAMES)
            && let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx)
        {
            return Poll::Ready(frame);
        }
        let Poll::Ready(end) = Pin::new(&mut self.end).poll(cx) else {
            return Pin::new(&mut self.inner).poll_frame(cx);
        };
        self.ended = true;
        Poll::Ready(Some(Ok(Frame::trailers(end.trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}
