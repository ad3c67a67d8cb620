//! HTTP/2 as somebody writes it who keeps to no rule: frames by hand, over TLS, to a real server.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Server;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

#[derive(Clone, Copy)]
pub(crate) enum Frame {
    Data = 0,
    Headers = 1,
    Priority = 2,
    ResetStream = 3,
    Settings = 4,
    Ping = 6,
    WindowUpdate = 8,
    Continuation = 9,
    /// Of a type that nobody knows and all must ignore.
    Unknown = 0xbe,
}

pub(crate) fn frame(into: &mut Vec<u8>, kind: Frame, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap();
    into.extend_from_slice(&length.to_be_bytes()[1..]);
    into.extend_from_slice(&[kind as u8, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

/// A setting's number and value.
pub(crate) fn settings(into: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let mut payload = Vec::new();
    for (number, value) in settings {
        payload.extend_from_slice(&number.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(into, Frame::Settings, 0, 0, &payload);
}

/// A header that no table remembers.
pub(crate) fn header(into: &mut Vec<u8>, name: &str, value: &str) {
    literal(into, 0x00, name, value);
}

/// A header that the receiver's table remembers as its newest, number 62.
pub(crate) fn remembered(into: &mut Vec<u8>, name: &str, value: &str) {
    literal(into, 0x40, name, value);
}

fn literal(into: &mut Vec<u8>, how: u8, name: &str, value: &str) {
    into.push(how);
    for text in [name, value] {
        integer(into, text.len());
        into.extend_from_slice(text.as_bytes());
    }
}

/// With a prefix of seven bits, as lengths have it.
fn integer(into: &mut Vec<u8>, value: usize) {
    let Some(mut rest) = value.checked_sub(127) else { return into.push(value as u8) };
    into.push(127);
    while rest >= 128 {
        into.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    into.push(rest as u8);
}

/// The headers of a gRPC call.
pub(crate) fn call(path: &str, token: Option<&str>) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        header(&mut headers, name, value);
    }
    if let Some(token) = token {
        header(&mut headers, "token", token);
    }
    headers
}

/// A message as gRPC frames it.
pub(crate) fn message(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], length.to_be_bytes().as_slice(), message].concat()
}

/// What the kernel says of the server's process.
pub(crate) struct Memory {
    status: String,
}

impl Memory {
    pub(crate) fn resident_mib(&self) -> f64 {
        self.field("VmRSS:")
    }

    /// The most since [`Server::forget_peak`].
    pub(crate) fn peak_mib(&self) -> f64 {
        self.field("VmHWM:")
    }

    fn field(&self, name: &str) -> f64 {
        let line = self.status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Server {
    /// TLS without a certificate of its own, and not a byte of HTTP yet.
    pub(crate) async fn bytes(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = self.client(None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    pub(crate) fn memory(&self) -> Memory {
        let path = format!("/proc/{}/status", self.child.id());
        Memory { status: std::fs::read_to_string(path).unwrap() }
    }

    pub(crate) fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// Processor time of all its threads.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks = rest.split_whitespace().skip(11).take(2);
        // A hundred a second on every Linux that there is.
        Duration::from_millis(ticks.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
    }
}
