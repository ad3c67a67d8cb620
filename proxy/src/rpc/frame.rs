//! gRPC's framing on HTTP/2 bodies: messages in, messages out.
//!
//! Written here rather than taken from tonic's server because it is most of what a small request
//! costs, and because sizes must be refused with etcd's code and text, which only this place knows.
//!
//! Memory: an inbound message grows with the bytes that arrive, not with the length it claims, and
//! only as long as its connection has room for what is not whole; an
//! outbound stream is asked for its next message only when HTTP/2's window has room.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use prost::Message;
use tonic::{Code, Status};

use super::meter::Meter;
use super::room::{ConnectionRoom, Full, Held};
use crate::status;

/// A flag and a length before each message.
const PREFIX: usize = 5;

/// Several small messages that are ready at once leave in one frame of up to this size.
const COALESCE: usize = 16 << 10;

/// gRPC's own bound on what a server sends, as etcd sets it.
const MAX_ANSWER: usize = i32::MAX as usize;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The messages of a request body.
pub(super) struct Messages<B> {
    body: B,
    /// The first frame, as long as nothing had to be joined.
    first: Option<Bytes>,
    buffer: BytesMut,
    /// What `buffer` takes.
    held: Held,
    limit: usize,
    ended: bool,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Messages longer than `limit` are refused by their length alone.
    pub(super) fn new(body: B, limit: usize, room: Arc<ConnectionRoom>) -> Self {
        let held = Held::none(room);
        Self { body, first: None, buffer: BytesMut::new(), held, limit, ended: false }
    }

    /// The length that the first message claims, before it is read.
    pub(super) async fn announced(&mut self) -> Result<usize, Status> {
        loop {
            let bytes = self.first.as_deref().unwrap_or(&self.buffer);
            if let Some(length) = self.length_of(bytes)? {
                return Ok(length);
            }
            self.join_first()?;
            match self.data().await? {
                Some(data) if self.buffer.is_empty() => self.first = Some(data),
                Some(data) => self.join(&data)?,
                None => return Err(status::broken_framing("grpc: the request has no whole message")),
            }
        }
    }

    /// The one message of a unary request, after its length was [`Self::announced`].
    pub(super) async fn only(mut self) -> Result<Bytes, Status> {
        self.next().await?.ok_or_else(|| status::broken_framing("grpc: the request has no message"))
    }

    /// The next message; None when the client has sent its last. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.whole_frame()? {
                return Ok(Some(message));
            }
            self.join_first()?;
            if let Some(length) = self.length_of(&self.buffer)?
                && self.buffer.len() >= PREFIX + length
            {
                self.buffer.advance(PREFIX);
                let message = self.buffer.split_to(length).freeze();
                self.hold(self.buffer.len())?;
                return Ok(Some(message));
            }
            match self.data().await? {
                Some(data) if self.buffer.is_empty() => self.first = Some(data),
                Some(data) => self.join(&data)?,
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(status::broken_framing("grpc: the request ends within a message")),
            }
        }
    }

    /// Nearly always a message is one frame of data: then nothing is copied.
    fn whole_frame(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(mut data) = self.first.take_if(|data| data.len() >= PREFIX) else { return Ok(None) };
        if self.length_of(&data)? == Some(data.len() - PREFIX) {
            data.advance(PREFIX);
            return Ok(Some(data));
        }
        self.first = Some(data);
        Ok(None)
    }

    fn join_first(&mut self) -> Result<(), Status> {
        match self.first.take() {
            Some(first) => self.join(&first),
            None => Ok(()),
        }
    }

    fn join(&mut self, data: &[u8]) -> Result<(), Status> {
        self.hold(self.buffer.len() + data.len())?;
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    fn hold(&mut self, bytes: usize) -> Result<(), Status> {
        self.held.resize(bytes).map_err(|Full| status::no_room())
    }

    /// The length of the message that `bytes` begins with, once that much is there.
    fn length_of(&self, bytes: &[u8]) -> Result<Option<usize>, Status> {
        let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let [flag, length @ ..] = *prefix;
        match flag {
            0 => {}
            1 => return Err(status::compressed()),
            _ => return Err(status::broken_framing("grpc: unknown flag before a message")),
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(status::message_too_large(length, self.limit));
        }
        Ok(Some(length))
    }

    async fn data(&mut self) -> Result<Option<Bytes>, Status> {
        while !self.ended {
            match self.body.frame().await {
                None => self.ended = true,
                Some(Err(_)) => return Err(status::client_gone()),
                // Trailers of a request mean nothing.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
        Ok(None)
    }
}

/// A message with its prefix.
pub(super) fn framed<M: Message>(message: &M) -> Result<Bytes, Status> {
    let mut buffer = BytesMut::new();
    append(&mut buffer, message)?;
    Ok(buffer.freeze())
}

fn append<M: Message>(buffer: &mut BytesMut, message: &M) -> Result<(), Status> {
    let length = message.encoded_len();
    let prefix = match u32::try_from(length) {
        Ok(prefix) if length <= MAX_ANSWER => prefix,
        _ => return Err(status::answer_too_large(length, MAX_ANSWER)),
    };
    buffer.reserve(PREFIX + length);
    buffer.put_u8(0);
    buffer.put_u32(prefix);
    message.encode_raw(buffer);
    Ok(())
}

/// The answer to a unary request.
pub(super) fn unary_response(message: Bytes) -> Response<tonic::body::Body> {
    respond(tonic::body::Body::new(Once { message: Some(message), trailers: true }))
}

/// A refusal, as headers alone.
pub(super) fn refused(status: &Status) -> Response<tonic::body::Body> {
    let mut response = respond(tonic::body::Body::empty());
    fill(response.headers_mut(), status);
    response
}

/// An answer of many messages. `meter` learns how it ended.
pub(super) fn stream_response<M, S>(messages: S, meter: Meter) -> Response<tonic::body::Body>
where
    M: Message + 'static,
    S: Stream<Item = Result<M, Status>> + Send + 'static,
{
    let body = Many { messages: Box::pin(messages), buffer: BytesMut::new(), end: End::Open, meter };
    respond(tonic::body::Body::new(body))
}

fn respond(body: tonic::body::Body) -> Response<tonic::body::Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

fn fill(headers: &mut HeaderMap, status: &Status) {
    // Only a text that no header can carry fails, and percent-encoding leaves none.
    if status.add_header(headers).is_err() {
        headers.insert(Status::GRPC_STATUS, HeaderValue::from_static("13"));
    }
}

pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    fill(&mut trailers, status);
    trailers
}

fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

struct Once {
    message: Option<Bytes>,
    trailers: bool,
}

impl Body for Once {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::take(&mut self.trailers) {
            return Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))));
        }
        Poll::Ready(None)
    }
}

struct Many<M> {
    messages: Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>,
    buffer: BytesMut,
    end: End,
    meter: Meter,
}

enum End {
    Open,
    /// All messages are out, the trailers not yet.
    Reached(Option<Status>),
    Sent,
}

impl<M: Message> Many<M> {
    /// Collects what is ready. Ready: there is data to send, or the end was reached.
    fn poll_collect(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while matches!(self.end, End::Open) && self.buffer.len() < COALESCE {
            let outcome = match self.messages.as_mut().poll_next(cx) {
                Poll::Pending if self.buffer.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(()),
                Poll::Ready(Some(Ok(message))) => append(&mut self.buffer, &message).map(|()| {
                    self.meter.sent();
                }),
                Poll::Ready(Some(Err(status))) => Err(status),
                Poll::Ready(None) => {
                    self.end = End::Reached(None);
                    continue;
                }
            };
            if let Err(status) = outcome {
                self.end = End::Reached(Some(status));
            }
        }
        Poll::Ready(())
    }
}

impl<M: Message> Body for Many<M> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if matches!(self.end, End::Sent) {
            return Poll::Ready(None);
        }
        if self.poll_collect(cx).is_pending() {
            return Poll::Pending;
        }
        if !self.buffer.is_empty() {
            let data = self.buffer.split().freeze();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let End::Reached(status) = std::mem::replace(&mut self.end, End::Sent) else {
            return Poll::Ready(None);
        };
        let trailers = match &status {
            None => ok_trailers(),
            Some(status) => trailers(status),
        };
        self.meter.handled(status.as_ref().map_or(Code::Ok, Status::code));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

#[cfg(test)]
mod tests;
