//! Binding an address, exclusively.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::http::Pages;
use crate::tls::ReloadingTls;

/// Connections that the system completes before they are accepted. While the number of strangers
/// is at its limit, newcomers wait here.
const BACKLOG: i32 = 1024;

/// Each has one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on `{address}`: another process does already")]
    InUse { address: SocketAddr },
    #[error(
        "cannot listen on `{address}`: this user may not; take a port from 1024 up, or grant CAP_NET_BIND_SERVICE"
    )]
    NotAllowed { address: SocketAddr },
    #[error("cannot listen on `{address}`: this machine has no such address")]
    NotOurs { address: SocketAddr },
    #[error("cannot listen on `{address}`: {source}")]
    Other { address: SocketAddr, source: io::Error },
}

/// How connections to one address are served.
pub struct Endpoint {
    /// None: plain HTTP.
    pub tls: Option<Arc<ReloadingTls>>,
    pub grpc: bool,
    pub pages: Pages,
}

/// Port 0 takes a free one.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        io::ErrorKind::PermissionDenied => BindError::NotAllowed { address },
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs { address },
        _ => BindError::Other { address, source },
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Only lets a restart bind while old connections linger; two listeners still exclude each other.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // `[::]` means every address of the machine, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_said_in_one_line() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let message = bind(address).unwrap_err().to_string();
        assert_eq!(message, format!("cannot listen on `{address}`: another process does already"));
        drop(first);
        bind(address).unwrap();
        let message = bind("192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
        assert!(message.contains("no such address"), "{message}");
    }
}
