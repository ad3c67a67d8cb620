//! Real sockets and real TLS in front of a handler that says who it was asked by.

use super::*;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::body::Body;

use crate::http::Pages;
use crate::identify::{ConnectionIdentity, Source};
use crate::metrics::Metrics;
use crate::tls::{ClientCertificates, ReloadingTls, TlsSources, Versions};

/// Far more than anything here takes, far less than a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

struct WhoAsks;

impl Handler for WhoAsks {
    fn serve(
        &self,
        _: &Arc<Endpoint>,
        connection: &Arc<ConnectionIdentity>,
        request: Request<Incoming>,
    ) -> Served {
        let name = connection.certificate().map_or("nobody", |named| &named.user).to_owned();
        if request.uri().path() == "/prove" {
            connection.proof().given();
        }
        Box::pin(async move { Response::new(Body::new(http_body_util::Full::new(bytes::Bytes::from(name)))) })
    }
}

struct Server {
    address: SocketAddr,
    drain: watch::Sender<Drain>,
    acceptor: Acceptor,
    workers: Arc<Workers>,
    strangers: Arc<Strangers>,
    tls: Option<Arc<ReloadingTls>>,
}

#[derive(Clone, Copy)]
struct Options {
    handshake_timeout: Duration,
    proof_timeout: Duration,
    strangers: usize,
    /// Pause before a ping, and how long its answer may take.
    ping: Option<Duration>,
}

const USUAL: Options = Options {
    handshake_timeout: Duration::from_secs(10),
    proof_timeout: Duration::from_secs(60),
    strangers: 1024,
    ping: None,
};

impl Server {
    fn start(tls: Option<TlsSources>, options: Options) -> Self {
        let tls = tls.map(|sources| Arc::new(ReloadingTls::open(sources).unwrap()));
        let limits = HttpLimits {
            handshake_timeout: options.handshake_timeout,
            proof_timeout: options.proof_timeout,
            unfinished_bytes: 64 << 20,
            concurrent_streams: 777,
            ping_interval: options.ping,
            ping_timeout: options.ping,
        };
        let shared = Shared::new(limits, Arc::new(Metrics::default()));
        let (drain, draining) = watch::channel(Drain::Serving);
        let make: Arc<MakeHandler> = Arc::new(|| Arc::new(WhoAsks));
        let threads = NonZeroUsize::new(2).unwrap();
        let workers = Arc::new(Workers::start(threads, &shared, &make, &draining).unwrap());
        let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let endpoint = Arc::new(Endpoint { tls: tls.clone(), grpc: true, pages: Pages::All });
        let strangers = Strangers::new(options.strangers);
        let listening = vec![Listening { socket, endpoint }];
        let limiter = crate::limit::Limiter::new(crate::limit::LimitRules::default());
        let acceptor =
            Acceptor::start(listening, strangers.clone(), workers.clone(), limiter, draining).unwrap();
        Self { address, drain, acceptor, workers, strangers, tls }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn stop(self, grace: Duration) {
        self.drain.send_replace(Drain::Until(Instant::now() + grace));
        self.acceptor.join();
        Arc::into_inner(self.workers).unwrap().join();
    }
}

/// A CA and what it signed, in a directory.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, mut parameters: CertificateParams) -> Signed {
        let key = KeyPair::generate().unwrap();
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        Signed { cert: certificate.pem(), key: key.serialize_pem() }
    }

    fn server(&self) -> Signed {
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(parameters)
    }

    fn client(&self, name: &str, year: i32) -> Signed {
        let mut parameters = CertificateParams::default();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        self.sign(parameters)
    }

    fn install(&self, directory: &Path, demand: fn(std::path::PathBuf) -> ClientCertificates) -> TlsSources {
        let server = self.server();
        let at = |name: &str| directory.join(name);
        fs::write(at("cert.pem"), server.cert).unwrap();
        fs::write(at("key.pem"), server.key).unwrap();
        fs::set_permissions(at("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(at("ca.pem"), self.0.pem()).unwrap();
        TlsSources {
            cert: at("cert.pem"),
            key: at("key.pem"),
            client_certificates: demand(at("ca.pem")),
            revocation: None,
            identity_rules: None,
            versions: Versions::Both,
            cipher_suites: Vec::new(),
            private_key_only: true,
        }
    }
}

struct Signed {
    cert: String,
    key: String,
}

const OPTIONAL: fn(std::path::PathBuf) -> ClientCertificates = |ca| ClientCertificates::Optional { ca };
const REQUIRED: fn(std::path::PathBuf) -> ClientCertificates = |ca| ClientCertificates::Required { ca };

/// A client that trusts `authority` and shows `certificate`.
fn client(
    authority: &Authority,
    certificate: Option<&Signed>,
    version: &'static rustls::SupportedProtocolVersion,
) -> tokio_rustls::TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some(signed) => {
            let chain = vec![CertificateDer::from_pem_slice(signed.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    Arc::new(config).into()
}

async fn secured(
    server: &Server,
    connector: &tokio_rustls::TlsConnector,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, server.connect().await).await
}

/// The body of the answer to a GET, or why there is none.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, path: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return Ok(body.to_owned());
            }
        }
        let mut buffer = [0; 1024];
        match timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap()? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Waits until the server has closed the connection.
async fn closed<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut rest = Vec::new();
    // An error is an end, too.
    drop(timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("still open"));
}

/// GHSA-6vch-q96h-7gc3: without a deadline each idle connection is held for ever.
#[tokio::test]
async fn a_thousand_idle_connections_neither_stay_nor_keep_others_out() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    // Ten seconds for a handshake: it must do for the honest one on a busy machine.
    let options = Options { strangers: 2000, ..USUAL };
    let server = Server::start(Some(authority.install(directory.path(), OPTIONAL)), options);
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(server.connect().await);
    }
    let connector = client(&authority, None, &rustls::version::TLS13);
    let mut honest = secured(&server, &connector).await.unwrap();
    assert_eq!(ask(&mut honest, "/").await.unwrap(), "nobody");
    // At once: between two requests a connection has as long as for its handshake, and the idle ones have no more.
    assert_eq!(ask(&mut honest, "/prove").await.unwrap(), "nobody");
    for stream in &mut idle {
        closed(stream).await;
    }
    // The last places become free a moment after their sockets are closed.
    let start = std::time::Instant::now();
    while server.strangers.count() > 0 {
        assert!(start.elapsed() < PATIENCE, "places are lost");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_finishes_tls_and_then_says_nothing_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    let options = Options { handshake_timeout: Duration::from_secs(1), ..USUAL };
    let server = Server::start(Some(authority.install(directory.path(), OPTIONAL)), options);
    let connector = client(&authority, None, &rustls::version::TLS13);
    let mut silent = secured(&server, &connector).await.unwrap();
    closed(&mut silent).await;

    let plain = Server::start(None, options);
    for words in ["", "P", "PRI", "GET / HTTP/1.1\r\nhost: x"] {
        let mut stream = plain.connect().await;
        stream.write_all(words.as_bytes()).await.unwrap();
        closed(&mut stream).await;
    }
}

/// Is the next connection from here to wait?
fn has_bad_name(server: &Server) -> bool {
    let here = Source::of(server.address.ip());
    server.workers.shared().bad_names.pause(here, std::time::Instant::now()).is_some()
}

/// Each costs the server a thousand times what it costs to send a byte.
#[tokio::test]
async fn who_handshakes_again_and_again_for_nothing_gets_a_bad_name() {
    // Far more than it takes, for slow machines: five in a second are let pass.
    const MOST: usize = 1000;
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    let sources = authority.install(directory.path(), OPTIONAL);
    let connector = client(&authority, None, &rustls::version::TLS13);
    for words in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "nonsense\r\n\r\n"] {
        let server = Server::start(Some(sources.clone()), USUAL);
        for _ in 0..MOST {
            // Once it has a bad name, each handshake takes longer.
            if has_bad_name(&server) {
                break;
            }
            let mut stream = secured(&server, &connector).await.unwrap();
            stream.write_all(words.as_bytes()).await.unwrap();
            stream.shutdown().await.ok();
        }
        let start = std::time::Instant::now();
        while !has_bad_name(&server) {
            assert!(start.elapsed() < PATIENCE, "`{words}` costs nothing");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // It is served all the same, and what it is served for is none of that.
        let mut honest = secured(&server, &connector).await.unwrap();
        assert_eq!(ask(&mut honest, "/").await.unwrap(), "nobody");
    }
    // Contrast: who asks for something, and probes that only see whether the port is open.
    let server = Server::start(Some(sources), USUAL);
    for _ in 0..100 {
        let mut honest = secured(&server, &connector).await.unwrap();
        assert_eq!(ask(&mut honest, "/").await.unwrap(), "nobody");
        drop(server.connect().await);
    }
    assert!(!has_bad_name(&server));
}

#[tokio::test]
async fn who_speaks_and_never_proves_itself_is_told_to_go() {
    let proof_timeout = Duration::from_secs(1);
    let server = Server::start(None, Options { proof_timeout, ..USUAL });
    let (mut stranger, mut proven) = (server.connect().await, server.connect().await);
    ask(&mut proven, "/prove").await.unwrap();
    ask(&mut stranger, "/").await.unwrap();
    closed(&mut stranger).await;
    assert_eq!(ask(&mut proven, "/").await.unwrap(), "nobody");
}

#[tokio::test]
async fn a_full_house_makes_room_for_newcomers() {
    let server = Server::start(None, Options { strangers: 4, ..USUAL });
    let mut proven = server.connect().await;
    ask(&mut proven, "/prove").await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(server.connect().await);
    }
    for _ in 0..2 {
        let mut newcomer = server.connect().await;
        assert_eq!(ask(&mut newcomer, "/prove").await.unwrap(), "nobody");
    }
    closed(&mut idle[0]).await;
    // Contrast to the idle ones: who has proved itself stays.
    assert_eq!(ask(&mut proven, "/").await.unwrap(), "nobody");
    assert!(server.strangers.count() <= 4);
}

#[tokio::test]
async fn a_request_may_arrive_in_pieces() {
    let server = Server::start(None, USUAL);
    for text in [
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        for byte in text.bytes() {
            stream.write_all(&[byte]).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("nobody"), "{answer}");
    }
}

#[tokio::test]
async fn http2_is_told_by_its_preface_and_offers_the_streams_that_are_configured() {
    let server = Server::start(None, USUAL);
    let mut stream = server.connect().await;
    // The preface and empty settings.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]).unwrap();
    assert_eq!(streams[2..], 777_u32.to_be_bytes());
}

#[tokio::test]
async fn a_client_certificate_is_its_owners_name() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("ca");
    let (alice, expired) = (authority.client("alice", 2099), authority.client("alice", 2021));
    let foreign = Authority::new("ca").client("alice", 2099);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (demand, certificate, expected) in [
            (OPTIONAL, None, Some("nobody")),
            (OPTIONAL, Some(&alice), Some("alice")),
            (OPTIONAL, Some(&foreign), None),
            (OPTIONAL, Some(&expired), None),
            (REQUIRED, None, None),
            (REQUIRED, Some(&alice), Some("alice")),
            (REQUIRED, Some(&foreign), None),
            (REQUIRED, Some(&expired), None),
        ] {
            let server = Server::start(Some(authority.install(directory.path(), demand)), USUAL);
            let connector = client(&authority, certificate, version);
            // TLS 1.3 clients learn of a rejection with their first read.
            let answer = match secured(&server, &connector).await {
                Ok(mut stream) => ask(&mut stream, "/").await.ok(),
                Err(_) => None,
            };
            assert_eq!(answer.as_deref(), expected);
            if certificate.is_some() && expected.is_some() {
                assert_eq!(server.strangers.count(), 0, "a verified certificate is proof");
            }
            server.stop(Duration::ZERO);
        }
    }
}

#[tokio::test]
async fn new_files_serve_new_connections_and_open_ones_stay_while_they_are_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = Server::start(Some(old.install(directory.path(), OPTIONAL)), USUAL);
    let old_client = client(&old, Some(&old.client("alice", 2099)), &rustls::version::TLS13);
    let mut open = secured(&server, &old_client).await.unwrap();
    assert_eq!(ask(&mut open, "/").await.unwrap(), "alice");

    let tls = server.tls.as_ref().unwrap();
    new.install(directory.path(), OPTIONAL);
    fs::write(directory.path().join("ca.pem"), old.0.pem() + new.0.pem().as_str()).unwrap();
    tls.reload_if_changed();
    let asked = std::time::Instant::now();
    // Longer than a connection that is not trusted any more is left.
    while asked.elapsed() < Duration::from_millis(800) {
        assert_eq!(ask(&mut open, "/").await.unwrap(), "alice");
    }
    fs::write(directory.path().join("ca.pem"), new.0.pem()).unwrap();
    tls.reload_if_changed();
    closed(&mut open).await;
    assert!(secured(&server, &old_client).await.is_err(), "the old server certificate is still served");
    // The client CA changed with it: the old CA's clients are strangers now.
    for (certificate, expected) in [(new.client("bob", 2099), Some("bob")), (old.client("alice", 2099), None)]
    {
        let connector = client(&new, Some(&certificate), &rustls::version::TLS13);
        let mut stream = secured(&server, &connector).await.unwrap();
        assert_eq!(ask(&mut stream, "/").await.ok().as_deref(), expected);
    }
}

#[tokio::test]
async fn draining_closes_idle_connections_and_the_port() {
    let server = Server::start(None, USUAL);
    let address = server.address;
    let mut idle = server.connect().await;
    ask(&mut idle, "/").await.unwrap();
    let start = std::time::Instant::now();
    server.stop(Duration::from_secs(20));
    assert!(start.elapsed() < Duration::from_secs(10), "an idle connection held up the stop");
    closed(&mut idle).await;
    assert!(TcpStream::connect(address).await.is_err());
    bind(address).unwrap();
}

/// Reads frames of HTTP/2 and answers pings if `answering`, until the server hangs up or has pinged
/// three times. How often it pinged.
async fn pings(server: &Server, answering: bool) -> usize {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: u8 = 6;
    const ACK: u8 = 1;
    let mut stream = server.connect().await;
    stream.write_all(&[PREFACE, &EMPTY_SETTINGS].concat()).await.unwrap();
    let mut seen = 0;
    let mut head = [0; 9];
    while seen < 3 && stream.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == PING && head[4] & ACK == 0 {
            seen += 1;
            if answering {
                let answer = [&[0, 0, 8, PING, ACK, 0, 0, 0, 0], &payload[..]].concat();
                stream.write_all(&answer).await.unwrap();
            }
        }
    }
    seen
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_hung_up_on() {
    let server = Server::start(None, Options { ping: Some(Duration::from_millis(200)), ..USUAL });
    assert_eq!(timeout(PATIENCE, pings(&server, false)).await.unwrap(), 1);
    assert_eq!(timeout(PATIENCE, pings(&server, true)).await.unwrap(), 3);
    server.stop(Duration::ZERO);
}
