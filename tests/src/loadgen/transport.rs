//! A non-blocking byte pipe to the server: TCP, or TLS over it.
//!
//! The handshake is done while the socket still blocks (it is never measured); afterwards nothing here waits.

use anyhow::{Context, Result, ensure};
use mio::net::TcpStream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A server that accepts but never answers must not hang the run.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// One `read` takes at most this much; large watch fan-outs fill it.
const READ_CHUNK: usize = 64 << 10;

/// A client certificate and its key, both PEM files.
pub(crate) struct ClientIdentity<'a> {
    pub(crate) certificate: &'a Path,
    pub(crate) key: &'a Path,
}

/// How to speak TLS to every endpoint of a run.
#[derive(Clone)]
pub(crate) struct TlsSettings {
    config: Arc<ClientConfig>,
    /// Overrides the endpoint's host as the name to verify.
    server_name: Option<String>,
}

impl TlsSettings {
    pub(crate) fn load(
        authority: &Path,
        identity: Option<ClientIdentity<'_>>,
        server_name: Option<String>,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(authority)? {
            roots
                .add(certificate)
                .with_context(|| format!("use `{}` as trust anchor", authority.display()))?;
        }
        let builder =
            ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .context("select TLS versions")?
                .with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_file(identity.key)
                    .with_context(|| format!("read private key `{}`", identity.key.display()))?;
                builder
                    .with_client_auth_cert(read_certificates(identity.certificate)?, key)
                    .context("use the client certificate")?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsSettings { config: Arc::new(config), server_name })
    }

    fn handshake(&self, endpoint: &str, socket: &mut std::net::TcpStream) -> Result<ClientConnection> {
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _port)| host);
        let name = self.server_name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name.clone()).with_context(|| format!("server name `{name}`"))?;
        let mut session = ClientConnection::new(Arc::clone(&self.config), name).context("start TLS")?;
        // Without this the session takes 64 KiB and then refuses more; our write buffer is bounded by the clients.
        session.set_buffer_limit(None);
        while session.is_handshaking() {
            session.complete_io(socket).with_context(|| format!("TLS handshake with `{endpoint}`"))?;
        }
        ensure!(session.alpn_protocol() == Some(b"h2".as_slice()), "`{endpoint}` did not agree on `h2`");
        Ok(session)
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let attempt = || format!("read certificates from `{}`", path.display());
    let certificates = CertificateDer::pem_file_iter(path).with_context(attempt)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().with_context(attempt)?;
    ensure!(!certificates.is_empty(), "no certificate in `{}`", path.display());
    Ok(certificates)
}

/// What one attempt to read brought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Received {
    Bytes,
    Nothing,
    Closed,
}

/// An open connection's bytes, both directions.
pub(crate) struct Transport {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    chunk: Vec<u8>,
}

impl Transport {
    pub(crate) fn connect(endpoint: &str, tls: Option<&TlsSettings>) -> Result<Self> {
        let mut socket =
            std::net::TcpStream::connect(endpoint).with_context(|| format!("connect to `{endpoint}`"))?;
        socket.set_nodelay(true)?;
        let session = match tls {
            Some(settings) => {
                socket.set_read_timeout(Some(HANDSHAKE_DEADLINE))?;
                Some(Box::new(settings.handshake(endpoint, &mut socket)?))
            }
            None => None,
        };
        socket.set_nonblocking(true)?;
        Ok(Transport { socket: TcpStream::from_std(socket), tls: session, chunk: vec![0; READ_CHUNK] })
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Bytes that arrived during the handshake, behind it: they raise no readiness event.
    pub(crate) fn take_early(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.tls {
            Some(session) => take_plaintext(session, out),
            None => Ok(()),
        }
    }

    /// Appends at most one chunk to `out`. Call until `Nothing`: readiness is edge-triggered.
    pub(crate) fn receive(&mut self, out: &mut Vec<u8>) -> io::Result<Received> {
        let count = match self.socket.read(&mut self.chunk) {
            Ok(0) => return Ok(Received::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Nothing),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Received::Bytes),
            Err(error) => return Err(error),
        };
        let Some(session) = &mut self.tls else {
            out.extend_from_slice(&self.chunk[..count]);
            return Ok(Received::Bytes);
        };
        // rustls takes 4 KiB at a time; feeding it from memory spares a system call for each.
        let mut rest = &self.chunk[..count];
        while !rest.is_empty() {
            session.read_tls(&mut rest)?;
            take_plaintext(session, out)?;
        }
        Ok(Received::Bytes)
    }

    /// Sends what it can and removes it from `pending`; the rest stays for the next call.
    pub(crate) fn send(&mut self, pending: &mut Vec<u8>) -> io::Result<()> {
        let Some(session) = &mut self.tls else {
            let mut sent = 0;
            while sent < pending.len() {
                match self.socket.write(&pending[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            pending.drain(..sent);
            return Ok(());
        };
        if !pending.is_empty() {
            session.writer().write_all(pending)?;
            pending.clear();
        }
        while session.wants_write() {
            match session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn take_plaintext(session: &mut ClientConnection, out: &mut Vec<u8>) -> io::Result<()> {
    let ready = session.process_new_packets().map_err(io::Error::other)?.plaintext_bytes_to_read();
    if ready > 0 {
        let start = out.len();
        out.resize(start + ready, 0);
        session.reader().read_exact(&mut out[start..])?;
    }
    Ok(())
}
