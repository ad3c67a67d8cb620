//! A stream's answer that ends when the server does, so that an open watch does not hold up a stop.
//! The client reads etcd's `server stopped` and goes on elsewhere, or here when we are back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use tokio::sync::watch;
use tonic::Status;

use super::worker::Drain;

pub(super) struct UntilDrain {
    inner: tonic::body::Body,
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

impl UntilDrain {
    pub(super) fn new(inner: tonic::body::Body, mut draining: watch::Receiver<Drain>) -> Self {
        let draining = Box::pin(async move {
            // Nobody left to tell us is as good as being told.
            let _told = draining.wait_for(|drain| *drain != Drain::Serving).await;
        });
        Self { inner, draining, ended: false }
    }
}

impl Body for UntilDrain {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // What is ready to be sent goes first.
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        if self.draining.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.ended = true;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("14"));
        trailers.insert("grpc-message", HeaderValue::from_static("etcdserver: server stopped"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}
