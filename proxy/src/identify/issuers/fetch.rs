//! One document over HTTPS: no redirects, no plain HTTP, bounded in size and time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A set of a hundred keys is a tenth of it.
const MAX_BYTES: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The document at `url`. The error is for the log.
pub(super) async fn fetch(url: &Uri, ca: Option<&Path>) -> Result<Bytes, String> {
    match tokio::time::timeout(PATIENCE, get(url, ca)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

async fn get(url: &Uri, ca: Option<&Path>) -> Result<Bytes, String> {
    let host = url.host().ok_or("the address has no host")?;
    let port = url.port_u16().unwrap_or(443);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream =
        TcpStream::connect((bare, port)).await.map_err(|error| format!("cannot connect: {error}"))?;
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| format!("`{host}` is no host name"))?;
    let connector = TlsConnector::from(Arc::new(client(ca)?));
    let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS fails: {error}"))?;
    let said = |error: &dyn std::fmt::Display| format!("HTTP fails: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| said(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| said(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("the answer is {}, not 200 OK", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| said(&error))
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
        None => system_roots().ok_or("the system has no list of authorities; give `keys-ca-file`")?,
    };
    let pem = std::fs::read(&file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    let mut roots = RootCertStore::empty();
    // A system's list may hold some that are of no use here.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(format!("`{}` holds no certificate in PEM form", file.display()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config =
        builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn system_roots() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.into_iter().chain(SYSTEM.map(PathBuf::from)).find(|path| path.is_file())
}
