//! Tells the service manager what the process is doing, by systemd's protocol: one datagram of `NAME=value` lines to the
//! socket named in `$NOTIFY_SOCKET`. Without that variable nothing happens.

use std::{ffi::OsStr, io, os::unix::net::UnixDatagram};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Clients can be served. A unit of `Type=notify` counts as started only now.
    Ready,
    /// A signal was received and open requests are being finished.
    Stopping,
}

/// Sends `state`. `Ok(false)` means that nobody asked to be told.
pub fn send(state: State) -> io::Result<bool> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(socket) if !socket.is_empty() => send_to(&socket, state).map(|()| true),
        _ => Ok(false),
    }
}

/// A name that starts with `@` is one in Linux's abstract namespace; any other is a path.
fn send_to(socket: &OsStr, state: State) -> io::Result<()> {
    let text: &[u8] = match state {
        State::Ready => b"READY=1\n",
        State::Stopping => b"STOPPING=1\n",
    };
    let datagram = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::unix::ffi::OsStrExt::as_bytes(socket).strip_prefix(b"@") {
        use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
        return datagram.send_to_addr(text, &SocketAddr::from_abstract_name(name)?).map(drop);
    }
    datagram.send_to(text, socket).map(drop)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, time::Duration};

    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_in_the_file_system_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send_to(path.as_os_str(), State::Ready).unwrap();
        assert_eq!(received(&socket), "READY=1\n");
        send_to(path.as_os_str(), State::Stopping).unwrap();
        assert_eq!(received(&socket), "STOPPING=1\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_told() {
        use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
        let name = format!("keygate-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send_to(&OsString::from(format!("@{name}")), State::Ready).unwrap();
        assert_eq!(received(&socket), "READY=1\n");
    }

    #[test]
    fn a_socket_that_is_gone_is_an_error_and_no_panic() {
        assert!(send_to(OsStr::new("/nonexistent/notify"), State::Ready).is_err());
        assert!(send_to(OsStr::new(&"x".repeat(300)), State::Ready).is_err());
    }
}
