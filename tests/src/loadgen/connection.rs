//! One HTTP/2 connection that carries gRPC calls, driven by readiness events.
//!
//! Calls are named by the `slot` of whoever started them. `receive` hands every arrival to a closure, borrowed from
//! the connection's buffer, so a fan-out of events is not copied once more.

use crate::call::{
    Arrival, CallKind, GRPC_UNAVAILABLE, GRPC_UNKNOWN, MESSAGE_PREFIX, Status, next_message, only_message,
};
use crate::frame::{self, FrameHeader, write_frame};
use crate::hpack::{Encoder, GrpcTrailer, ResponseDecoder};
use crate::transport::{Received, TlsSettings, Transport};
use anyhow::{Context, Result, bail};
use mio::{Interest, Registry, Token};
use std::collections::{HashMap, VecDeque};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTING_TABLE_SIZE: u16 = 1;
const SETTING_ENABLE_PUSH: u16 = 2;
const SETTING_INITIAL_WINDOW: u16 = 4;
/// Window each side starts with until told otherwise (RFC 9113, 6.9.2).
const DEFAULT_WINDOW: i64 = 65_535;
/// What we let the server send before it must wait: large enough that it never does.
const OUR_WINDOW: u32 = 16 << 20;
/// Credit is returned in steps of this, so that window updates do not become a load of their own.
const CREDIT_STEP: u32 = 1 << 20;

struct Call {
    slot: usize,
    kind: CallKind,
    /// Bytes received and not yet handed on, message prefixes included.
    body: Vec<u8>,
    send_window: i64,
    /// Received bytes not yet given back as stream credit.
    unacknowledged: u32,
    trailer: GrpcTrailer,
    headers_end_stream: bool,
}

struct Queued {
    stream: u32,
    message: Vec<u8>,
    last: bool,
}

/// See the module's text.
pub(crate) struct Connection {
    transport: Transport,
    authority: String,
    token: Option<String>,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    encoder: Encoder,
    decoder: ResponseDecoder,
    send_window: i64,
    peer_initial_window: i64,
    unacknowledged: u32,
    next_stream: u32,
    calls: HashMap<u32, Call>,
    stream_of_slot: HashMap<usize, u32>,
    /// Messages that wait for the server's flow control, in order.
    queue: VecDeque<Queued>,
    /// A header block that spans frames.
    header_block: Vec<u8>,
    scratch: Vec<u8>,
    spare_bodies: Vec<Vec<u8>>,
}

impl Connection {
    /// Connects and queues the preface. `token` goes with every call as etcd's `token` metadata.
    pub(crate) fn open(endpoint: &str, tls: Option<&TlsSettings>, token: Option<&str>) -> Result<Self> {
        let mut transport = Transport::connect(endpoint, tls)?;
        let mut inbound = Vec::new();
        transport.take_early(&mut inbound)?;
        let mut outbound = PREFACE.to_vec();
        let mut settings = Vec::new();
        for (setting, value) in [(SETTING_ENABLE_PUSH, 0), (SETTING_INITIAL_WINDOW, OUR_WINDOW)] {
            settings.extend_from_slice(&setting.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        write_frame(&mut outbound, frame::SETTINGS, 0, 0, &settings);
        let extra = OUR_WINDOW - DEFAULT_WINDOW as u32;
        write_frame(&mut outbound, frame::WINDOW_UPDATE, 0, 0, &extra.to_be_bytes());
        Ok(Connection {
            transport,
            authority: endpoint.to_owned(),
            token: token.map(str::to_owned),
            inbound,
            outbound,
            encoder: Encoder::default(),
            decoder: ResponseDecoder::new(),
            send_window: DEFAULT_WINDOW,
            peer_initial_window: DEFAULT_WINDOW,
            unacknowledged: 0,
            next_stream: 1,
            calls: HashMap::new(),
            stream_of_slot: HashMap::new(),
            queue: VecDeque::new(),
            header_block: Vec::new(),
            scratch: Vec::new(),
            spare_bodies: Vec::new(),
        })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(self.transport.socket(), token, interest).context("watch a socket")
    }

    /// Starts a call and queues its first message. Nothing is sent before `flush`.
    pub(crate) fn start(&mut self, slot: usize, kind: CallKind, path: &str, message: &[u8]) {
        let stream = self.next_stream;
        self.next_stream += 2;
        self.scratch.clear();
        self.encoder.start_post(&mut self.scratch, self.transport.is_encrypted());
        let headers = [
            (":path", path),
            (":authority", self.authority.as_str()),
            ("content-type", "application/grpc"),
            ("user-agent", "keygate-loadgen"),
            ("te", "trailers"),
        ];
        for (name, value) in headers {
            self.encoder.header(&mut self.scratch, name, value);
        }
        if let Some(token) = &self.token {
            self.encoder.header(&mut self.scratch, "token", token);
        }
        write_frame(&mut self.outbound, frame::HEADERS, frame::END_HEADERS, stream, &self.scratch);
        let call = Call {
            slot,
            kind,
            body: self.spare_bodies.pop().unwrap_or_default(),
            send_window: self.peer_initial_window,
            unacknowledged: 0,
            trailer: GrpcTrailer::default(),
            headers_end_stream: false,
        };
        self.calls.insert(stream, call);
        if kind == CallKind::Stream {
            self.stream_of_slot.insert(slot, stream);
        }
        self.send_message(stream, message, kind == CallKind::Unary);
    }

    /// One more message on the stream that `slot` keeps open.
    pub(crate) fn send_more(&mut self, slot: usize, message: &[u8]) -> Result<()> {
        let stream = *self.stream_of_slot.get(&slot).context("the stream has ended")?;
        self.send_message(stream, message, false);
        Ok(())
    }

    /// Sends what the socket takes. What it does not take goes with the next call.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.transport.send(&mut self.outbound).context("send")
    }

    /// Reads until nothing is left and hands every arrival to `sink`.
    pub(crate) fn receive(&mut self, sink: &mut dyn FnMut(Arrival<'_>)) -> Result<()> {
        loop {
            let received = self.transport.receive(&mut self.inbound).context("receive")?;
            self.parse(sink)?;
            match received {
                Received::Bytes => {}
                Received::Nothing => return Ok(()),
                Received::Closed => bail!("server closed the connection"),
            }
        }
    }

    fn send_message(&mut self, stream: u32, message: &[u8], last: bool) {
        let size = (message.len() + MESSAGE_PREFIX) as i64;
        if !self.queue.is_empty() || !self.window_allows(stream, size) {
            self.queue.push_back(Queued { stream, message: message.to_vec(), last });
            return;
        }
        self.emit(stream, message, last);
    }

    fn window_allows(&self, stream: u32, size: i64) -> bool {
        // A call that is gone needs no window: its message is dropped by the server.
        self.send_window >= size && self.calls.get(&stream).is_none_or(|call| call.send_window >= size)
    }

    fn emit(&mut self, stream: u32, message: &[u8], last: bool) {
        let size = message.len() + MESSAGE_PREFIX;
        self.send_window -= size as i64;
        if let Some(call) = self.calls.get_mut(&stream) {
            call.send_window -= size as i64;
        }
        let mut prefix = [0u8; MESSAGE_PREFIX];
        prefix[1..].copy_from_slice(&(message.len() as u32).to_be_bytes());
        let first_part = message.len().min(frame::MAX_PAYLOAD - MESSAGE_PREFIX);
        let (first, rest) = message.split_at(first_part);
        let flags = |done: bool| if last && done { frame::END_STREAM } else { 0 };
        let length = first.len() + MESSAGE_PREFIX;
        FrameHeader { length, kind: frame::DATA, flags: flags(rest.is_empty()), stream }
            .write(&mut self.outbound);
        self.outbound.extend_from_slice(&prefix);
        self.outbound.extend_from_slice(first);
        let mut chunks = rest.chunks(frame::MAX_PAYLOAD).peekable();
        while let Some(chunk) = chunks.next() {
            write_frame(&mut self.outbound, frame::DATA, flags(chunks.peek().is_none()), stream, chunk);
        }
    }

    fn drain_queue(&mut self) {
        while let Some(next) = self.queue.pop_front() {
            if !self.window_allows(next.stream, (next.message.len() + MESSAGE_PREFIX) as i64) {
                self.queue.push_front(next);
                return;
            }
            self.emit(next.stream, &next.message, next.last);
        }
    }

    fn parse(&mut self, sink: &mut dyn FnMut(Arrival<'_>)) -> Result<()> {
        // Taken out so that payloads can be borrowed while the rest of the connection changes.
        let mut inbound = std::mem::take(&mut self.inbound);
        let mut parsed = 0;
        while let Some(header) = FrameHeader::parse(&inbound[parsed..]) {
            let start = parsed + frame::HEADER_BYTES;
            let Some(payload) = inbound.get(start..start + header.length) else { break };
            self.on_frame(header, payload, sink)?;
            parsed = start + header.length;
        }
        inbound.drain(..parsed);
        self.inbound = inbound;
        Ok(())
    }

    fn on_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        sink: &mut dyn FnMut(Arrival<'_>),
    ) -> Result<()> {
        match header.kind {
            frame::DATA => self.on_data(header, payload, sink),
            frame::HEADERS | frame::CONTINUATION => self.on_headers(header, payload, sink),
            frame::RST_STREAM => {
                let code = frame::payload_u32(payload)?;
                if let Some(call) = self.calls.get_mut(&header.stream) {
                    let message = format!("stream reset with HTTP/2 error {code}");
                    call.trailer = GrpcTrailer { status: Some(GRPC_UNAVAILABLE), message };
                }
                self.finish(header.stream, sink);
                Ok(())
            }
            frame::SETTINGS if !header.has(frame::ACK) => self.on_settings(payload),
            frame::PING if !header.has(frame::ACK) => {
                write_frame(&mut self.outbound, frame::PING, frame::ACK, 0, payload);
                Ok(())
            }
            frame::GOAWAY => {
                bail!("server sent GOAWAY: {}", String::from_utf8_lossy(payload.get(8..).unwrap_or_default()))
            }
            frame::WINDOW_UPDATE => {
                let credit = i64::from(frame::payload_u32(payload)?);
                match self.calls.get_mut(&header.stream) {
                    Some(call) => call.send_window += credit,
                    None if header.stream == 0 => self.send_window += credit,
                    None => {}
                }
                self.drain_queue();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_data(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        sink: &mut dyn FnMut(Arrival<'_>),
    ) -> Result<()> {
        let content = header.content(payload)?;
        self.unacknowledged += header.length as u32;
        if self.unacknowledged >= CREDIT_STEP {
            let credit = std::mem::take(&mut self.unacknowledged).to_be_bytes();
            write_frame(&mut self.outbound, frame::WINDOW_UPDATE, 0, 0, &credit);
        }
        let Some(call) = self.calls.get_mut(&header.stream) else { return Ok(()) };
        call.unacknowledged += header.length as u32;
        if call.unacknowledged >= CREDIT_STEP {
            let credit = std::mem::take(&mut call.unacknowledged).to_be_bytes();
            write_frame(&mut self.outbound, frame::WINDOW_UPDATE, 0, header.stream, &credit);
        }
        call.body.extend_from_slice(content);
        if call.kind == CallKind::Stream {
            let mut used = 0;
            while let Some(message) = next_message(&call.body[used..])? {
                used += MESSAGE_PREFIX + message.len();
                sink(Arrival::Message { slot: call.slot, body: message });
            }
            call.body.drain(..used);
        }
        if header.has(frame::END_STREAM) {
            self.finish(header.stream, sink);
        }
        Ok(())
    }

    fn on_headers(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        sink: &mut dyn FnMut(Arrival<'_>),
    ) -> Result<()> {
        let mut content = payload;
        if header.kind == frame::HEADERS {
            content = header.content(payload)?;
            if let Some(call) = self.calls.get_mut(&header.stream) {
                call.headers_end_stream = header.has(frame::END_STREAM);
            }
        }
        if !header.has(frame::END_HEADERS) {
            self.header_block.extend_from_slice(content);
            return Ok(());
        }
        let trailer = if self.header_block.is_empty() {
            self.decoder.decode(content)?
        } else {
            let mut block = std::mem::take(&mut self.header_block);
            block.extend_from_slice(content);
            self.decoder.decode(&block)?
        };
        let Some(call) = self.calls.get_mut(&header.stream) else { return Ok(()) };
        if trailer.status.is_some() {
            call.trailer = trailer;
        }
        if call.headers_end_stream {
            self.finish(header.stream, sink);
        }
        Ok(())
    }

    fn on_settings(&mut self, payload: &[u8]) -> Result<()> {
        for entry in payload.chunks_exact(6) {
            let setting = u16::from_be_bytes([entry[0], entry[1]]);
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            match setting {
                SETTING_TABLE_SIZE => self.encoder.peer_table_size(value)?,
                SETTING_INITIAL_WINDOW => {
                    let change = i64::from(value) - self.peer_initial_window;
                    self.peer_initial_window = i64::from(value);
                    for call in self.calls.values_mut() {
                        call.send_window += change;
                    }
                }
                _ => {}
            }
        }
        write_frame(&mut self.outbound, frame::SETTINGS, frame::ACK, 0, &[]);
        self.drain_queue();
        Ok(())
    }

    fn finish(&mut self, stream: u32, sink: &mut dyn FnMut(Arrival<'_>)) {
        let Some(mut call) = self.calls.remove(&stream) else { return };
        let code = call.trailer.status.unwrap_or(GRPC_UNKNOWN);
        let mut status = Status { code, message: std::mem::take(&mut call.trailer.message) };
        if call.trailer.status.is_none() {
            status.message = "the answer carries no grpc-status".to_owned();
        }
        match call.kind {
            CallKind::Stream => {
                self.stream_of_slot.remove(&call.slot);
                sink(Arrival::Ended { status });
            }
            CallKind::Unary => match only_message(&call.body) {
                Ok(body) => sink(Arrival::Answer { slot: call.slot, status, body }),
                Err(_) if !status.is_ok() => sink(Arrival::Answer { slot: call.slot, status, body: &[] }),
                Err(error) => {
                    let status = Status { code: GRPC_UNKNOWN, message: format!("{error:#}") };
                    sink(Arrival::Answer { slot: call.slot, status, body: &[] });
                }
            },
        }
        call.body.clear();
        self.spare_bodies.push(call.body);
    }
}
