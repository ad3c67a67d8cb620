//! One request of ours to somebody else's server: no redirects, bounded in size and time, over TLS with the authorities
//! that were named or that the system trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom to ask, and how far to trust who answers.
pub(crate) struct Server<'a> {
    pub(crate) url: &'a Uri,
    /// Who must have signed its certificate; None: an authority that the system trusts.
    pub(crate) ca: Option<&'a Path>,
    pub(crate) plain: Plain,
}

/// What a URL of plain HTTP leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    /// TLS, whatever the URL says.
    Never,
    /// This machine, and no other one.
    ToThisMachine,
}

/// What an exchange may take.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) time: Duration,
    /// Of the answer.
    pub(crate) bytes: usize,
}

/// What is sent.
pub(crate) struct Message {
    pub(crate) method: Method,
    pub(crate) headers: Vec<(&'static str, HeaderValue)>,
    pub(crate) body: Bytes,
}

/// The error is for the log; it names neither path nor query of the URL.
pub(crate) async fn exchange(
    server: Server<'_>,
    message: Message,
    bounds: Bounds,
) -> Result<(StatusCode, Bytes), String> {
    match tokio::time::timeout(bounds.time, ask(server, message, bounds.bytes)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {:?}", bounds.time)),
    }
}

async fn ask(server: Server<'_>, message: Message, most: usize) -> Result<(StatusCode, Bytes), String> {
    let Server { url, ca, plain } = server;
    let host = url.host().ok_or("the address has no host")?;
    let is_plain = plain == Plain::ToThisMachine && url.scheme() == Some(&http::uri::Scheme::HTTP);
    let port = url.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream =
        TcpStream::connect((bare, port)).await.map_err(|error| format!("cannot connect: {error}"))?;
    let request = request(url, host, message)?;
    if is_plain {
        // A name may lead anywhere.
        let address = stream.peer_addr().map_err(|error| format!("cannot connect: {error}"))?;
        if !address.ip().is_loopback() {
            return Err(format!("`{host}` is not this machine, and elsewhere only https will do"));
        }
        return over(stream, request, most).await;
    }
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| format!("`{host}` is no host name"))?;
    let connector = TlsConnector::from(Arc::new(client(ca)?));
    let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS fails: {error}"))?;
    over(stream, request, most).await
}

fn request(url: &Uri, host: &str, message: Message) -> Result<Request<Full<Bytes>>, String> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    let mut request = Request::builder()
        .method(message.method)
        .uri(path)
        .header(header::HOST, authority)
        .header(header::CONNECTION, "close");
    for (name, value) in message.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(message.body)).map_err(|error| said(&error))
}

fn said(error: &dyn std::fmt::Display) -> String {
    format!("HTTP fails: {error}")
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| said(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), most).collect().await;
        body.map(|body| (status, body.to_bytes())).map_err(|error| said(&error))
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        outcome = exchange.as_mut() => outcome,
        // The connection may end before its last answer is read.
        ended = connection.as_mut() => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(said(&error)),
        },
    }
}

fn client(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let file = match ca {
        Some(file) => file.to_owned(),
        None => system_roots().ok_or("the system has no list of authorities; name a file with them")?,
    };
    let roots = authorities(&file)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Those in a file, at least one.
pub(crate) fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let pem = std::fs::read(file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    let mut roots = RootCertStore::empty();
    // A system's list may hold some that are of no use here.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(format!("`{}` holds no certificate in PEM form", file.display()));
    }
    Ok(roots)
}

fn system_roots() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.into_iter().chain(SYSTEM.map(PathBuf::from)).find(|path| path.is_file())
}
