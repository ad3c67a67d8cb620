//! The bytes of a connection, plain or TLS, with what was read to find out the protocol put back in
//! front.
//!
//! Never vectored: on a vectored stream h2 flushes after each response, which halves the rate of
//! small reads (measured).

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::flood::FrameBudget;
use super::probation::{AT_ONCE, Allowance, Probation};
use super::socket::Socket;
use super::worth::Standing;
use crate::metrics::Traffic;

/// How an HTTP/2 client begins; `PRI` is a method of no other protocol.
const PREFACE: &[u8; 4] = b"PRI ";

/// Of a client that does not take what it is sent. Each request of it leaves an answer waiting, be it only a refusal; some
/// four thousand of the smallest are so much. More than a client writes that reads between its writes.
const READ_WHILE_BLOCKED: usize = 256 << 10;

/// In one turn of the task. Then what was asked is answered, and other connections of the thread have their turn. Else
/// one that sends without end is read, as hyper asks for more after each request, until tokio grants its task nothing
/// more, and nothing is written.
const IN_A_ROW: usize = 64 << 10;
/// The same in time: small frames are more work than their bytes. What an honest client sends in one go takes less.
const TURN: Duration = Duration::from_micros(200);
/// On the slow lane, whose work comes in small pieces: a hundred of the smallest frames.
const SLOW_TURN: Duration = Duration::from_micros(50);
const SLOWLY_AT_ONCE: usize = 1 << 10;

/// How often the task that reads and writes has run.
#[derive(Default)]
pub(super) struct Turns(AtomicUsize);

impl Turns {
    pub(super) fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

pub(super) enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

pub(super) struct ClientStream {
    transport: Transport,
    traffic: Arc<Traffic>,
    /// Until it is over.
    probation: Option<Arc<Probation>>,
    /// Of HTTP/2 only.
    frames: Option<FrameBudget>,
    standing: Standing,
    /// None: all that was written has found room on its way to the client.
    blocked: Option<Blocked>,
    turns: Arc<Turns>,
    /// The one that something was read in last.
    turn: usize,
    /// When something was read in it first.
    turn_began: Option<Instant>,
    /// Bytes that were read in it.
    in_a_row: usize,
    /// Why reading failed.
    flooded: Arc<AtomicBool>,
    /// On probation: something was read, and has not been looked at yet.
    unseen: bool,
    /// Read ahead and not yet given on.
    ahead: [u8; PREFACE.len()],
    from: usize,
    to: usize,
}

/// The client does not take what it is sent.
struct Blocked {
    /// Since then.
    read: usize,
    /// The last write found room again. HTTP/2 writes until nothing is left, so it is over unless one more waits.
    has_room: bool,
    reader: Option<Waker>,
}

impl ClientStream {
    pub(super) fn new(
        transport: Transport,
        traffic: Arc<Traffic>,
        probation: Arc<Probation>,
        standing: Standing,
    ) -> Self {
        let probation = Some(probation);
        let ahead = [0; PREFACE.len()];
        Self {
            transport,
            traffic,
            probation,
            frames: None,
            standing,
            blocked: None,
            turns: Arc::default(),
            turn: 0,
            turn_began: None,
            in_a_row: 0,
            unseen: false,
            ahead,
            from: 0,
            to: 0,
            flooded: Arc::default(),
        }
    }

    /// To be told of each turn of the connection's task.
    pub(super) fn turns(&self) -> Arc<Turns> {
        self.turns.clone()
    }

    /// Is true once the connection ends because of a flood.
    pub(super) fn flooded(&self) -> Arc<AtomicBool> {
        self.flooded.clone()
    }

    /// Reads as many bytes as it takes to tell. None: the client went away without a word.
    pub(super) async fn spoken(&mut self) -> io::Result<Option<Spoken>> {
        loop {
            let seen = &self.ahead[..self.to];
            if !PREFACE.starts_with(seen) {
                // One request at a time: no account is kept.
                self.standing.set(false);
                return Ok(Some(Spoken::Http1));
            }
            if seen.len() == PREFACE.len() {
                self.frames = Some(FrameBudget::new(self.standing.clone(), Instant::now()));
                return Ok(Some(Spoken::Http2));
            }
            let room = &mut self.ahead[self.to..];
            let read = match &mut self.transport {
                Transport::Plain(stream) => stream.read(room).await?,
                Transport::Tls(stream) => stream.read(room).await?,
            };
            if read == 0 {
                return Ok(None);
            }
            self.to += read;
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.from < this.to && buf.remaining() > 0 {
            let length = (this.to - this.from).min(buf.remaining());
            buf.put_slice(&this.ahead[this.from..this.from + length]);
            this.from += length;
            return Poll::Ready(this.look_at(&buf.filled()[buf.filled().len() - length..]));
        }
        ready!(this.poll_turn(cx));
        let before = buf.filled().len();
        let read = if this.probation.is_some() {
            this.poll_read_on_probation(cx, buf)
        } else if this.standing.runs_slow() {
            this.transport.poll_read_part::<SLOWLY_AT_ONCE>(cx, buf, SLOWLY_AT_ONCE)
        } else {
            this.transport.poll_read(cx, buf)
        };
        this.traffic.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        ready!(read)?;
        let bytes = buf.filled().len() - before;
        this.in_a_row += bytes;
        if let Some(blocked) = &mut this.blocked {
            blocked.read += bytes;
        }
        Poll::Ready(this.look_at(&buf.filled()[before..]))
    }
}

impl ClientStream {
    /// Ready when more may be read now.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(blocked) = &mut self.blocked {
            if blocked.has_room {
                self.blocked = None;
            } else if blocked.read >= READ_WHILE_BLOCKED {
                blocked.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let turn = self.turns.0.load(Ordering::Relaxed);
        if self.turn != turn {
            (self.turn, self.turn_began, self.in_a_row) = (turn, None, 0);
        }
        let began = *self.turn_began.get_or_insert_with(Instant::now);
        let long = if self.standing.runs_slow() { SLOW_TURN } else { TURN };
        if self.in_a_row >= IN_A_ROW || (self.in_a_row > 0 && began.elapsed() >= long) {
            return yield_turn(cx);
        }
        Poll::Ready(())
    }

    fn has_written(&mut self, waits: bool) {
        if let Some(blocked) = &mut self.blocked {
            blocked.has_room = !waits;
            if let Some(reader) = blocked.reader.take_if(|_| !waits) {
                reader.wake();
            }
        } else if waits {
            self.blocked = Some(Blocked { read: 0, has_room: false, reader: None });
        }
    }

    fn look_at(&mut self, read: &[u8]) -> io::Result<()> {
        let Some(frames) = &mut self.frames else { return Ok(()) };
        frames.received(read, Instant::now).map_err(|flood| {
            self.traffic.floods.fetch_add(1, Ordering::Relaxed);
            self.flooded.store(true, Ordering::Relaxed);
            io::Error::new(io::ErrorKind::ConnectionAborted, flood)
        })
    }

    /// Little at once, and what was read is looked at before more is.
    fn poll_read_on_probation(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(probation) = &self.probation else { return self.transport.poll_read(cx, buf) };
        let most = match ready!(probation.poll_allowance(cx)) {
            Allowance::Everything => {
                self.probation = None;
                return self.transport.poll_read(cx, buf);
            }
            Allowance::AtMost(most) => most.min(buf.remaining()),
        };
        if std::mem::take(&mut self.unseen) {
            return yield_turn(cx).map(Ok);
        }
        let before = buf.filled().len();
        ready!(self.transport.poll_read_part::<AT_ONCE>(cx, buf, most))?;
        let read = buf.filled().len() - before;
        probation.has_sent(read);
        self.unseen = read > 0;
        Poll::Ready(Ok(()))
    }
}

/// Not before the thread has looked for what arrived on other connections: a task that only wakes itself is run sixty
/// times before that.
fn yield_turn(cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::yield_now()).poll(cx)
}

impl Transport {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    /// Not more than `most` bytes, nor than `N`.
    fn poll_read_part<const N: usize>(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<()>> {
        let mut part = [0; N];
        let mut part = ReadBuf::new(&mut part[..most.min(N).min(buf.remaining())]);
        ready!(self.poll_read(cx, &mut part))?;
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        if let Poll::Ready(Ok(bytes)) = &written {
            this.traffic.sent.fetch_add(*bytes as u64, Ordering::Relaxed);
            if let Some(frames) = &mut this.frames {
                frames.sent(*bytes);
            }
        }
        this.has_written(written.is_pending());
        if let Some(probation) = &this.probation {
            probation.answers_wait(written.is_pending());
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}
