//! A TCP connection whose events reach the thread that runs it, also after it went to another one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::worth::Standing;

pub(super) struct Socket {
    /// None: it was on its way to another thread's reactor, which would not have it.
    stream: Option<TcpStream>,
    standing: Standing,
    /// Whose reactor tells of it.
    slow: bool,
}

impl Socket {
    /// To the thread that calls. Accepted streams come from the accepting thread.
    pub(super) fn adopt(stream: std::net::TcpStream, standing: Standing) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let slow = standing.runs_slow();
        Ok(Self { stream: Some(TcpStream::from_std(stream)?), standing, slow })
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let slow = self.standing.runs_slow();
        if self.slow != slow {
            self.slow = slow;
            if let Some(stream) = self.stream.take() {
                self.stream = Some(TcpStream::from_std(stream.into_std()?)?);
            }
        }
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().stream()?.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_shutdown(cx)
    }
}
