//! A real server process, and callers who show it what they like.

pub(crate) mod authority;
#[cfg(target_os = "linux")]
pub(crate) mod frames;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authority::Signed;
use bytes::{Buf as _, BufMut as _, Bytes};
use hyper_util::rt::TokioIo;
use keygate_proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Long enough for a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process with data, certificates and a port of its own; dropping it kills that process.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
    /// Since it was ready.
    log: Arc<Mutex<Vec<String>>>,
}

/// A certificate with those above it, and its key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What a caller shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// The common name in a certificate that the server's CA signed.
    pub(crate) certificate: Option<&'static str>,
    pub(crate) token: Option<String>,
}

/// A connection that adds its token to each call.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) channel: Channel,
    token: Option<String>,
}

impl Server {
    /// `keygate …` as the operator of the machine types it.
    pub(crate) fn operator(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_keygate"))
            .args(arguments)
            .args(["--endpoints", &self.endpoint(), "--data-dir"])
            .arg(self.data_dir())
            .env_clear()
            .output()
            .unwrap()
    }

    /// What it prints, once it has succeeded.
    pub(crate) fn keygate(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.operator(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_keygate"))
            .arg("serve")
            .args(["--listen-client-urls", "https://127.0.0.1:0"])
            .args(["--advertise-client-urls", "https://127.0.0.1:2379", "--bcrypt-cost", "4"])
            .args(flags)
            .current_dir(directory.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        // Reads to the end, so that the server never waits for somebody to read its log.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Err(unread) = sender.send(line) {
                    keep.lock().unwrap().push(unread.0);
                }
            }
        });
        let (start, mut address, mut log) = (Instant::now(), None, Vec::new());
        loop {
            let left = PATIENCE.checked_sub(start.elapsed()).expect("not ready in time");
            let Ok(line) = lines.recv_timeout(left) else { panic!("ended before it was ready: {log:#?}") };
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            match parsed["msg"].as_str().unwrap_or_default() {
                // Clients' addresses come first, those of pages after them.
                "serving client traffic securely" if address.is_none() => {
                    address = parsed["address"].as_str().unwrap().parse().ok()
                }
                "ready to serve client requests" => break,
                _ => {}
            }
            log.push(line);
        }
        Self { child, address: address.expect("the log names the address"), directory, log: kept }
    }

    /// Of the log, since it was ready.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the process is gone, however it goes, and its last line is here.
    pub(crate) async fn ended(&self) {
        let start = Instant::now();
        // Who reads the log is the other holder, to the end.
        while Arc::strong_count(&self.log) > 1 {
            assert!(start.elapsed() < PATIENCE, "it goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a line of the log that has all of `words`.
    pub(crate) async fn logs(&self, words: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let found = {
                let log = self.log.lock().unwrap();
                log.iter().find(|line| words.iter().all(|word| line.contains(word))).cloned()
            };
            if let Some(line) = found {
                return line;
            }
            assert!(start.elapsed() < PATIENCE / 2, "{words:?} is not in the log: {:#?}", self.log.lock());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A page of the client port, as the platform's own monitoring sees it.
    pub(crate) async fn page(&self, path: &str) -> String {
        let (certificate, key) = self.issue("monitoring");
        let answer = self.answer_to(self.address, path, Some((vec![certificate], key))).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The whole answer of the client port to who shows nothing.
    pub(crate) async fn page_for_anybody(&self, path: &str) -> String {
        self.answer_to(self.address, path, None).await.unwrap()
    }

    /// The same of another listener.
    pub(crate) async fn page_at(&self, address: SocketAddr, path: &str) -> String {
        self.answer_of(address, path, None).await.unwrap().split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The whole answer, to somebody with this certificate.
    pub(crate) async fn answer_of(
        &self,
        address: SocketAddr,
        path: &str,
        signed: Option<&Signed>,
    ) -> std::io::Result<String> {
        self.answer_to(address, path, signed.map(|signed| (signed.chain.clone(), signed.key()))).await
    }

    async fn answer_to(
        &self,
        address: SocketAddr,
        path: &str,
        identity: Option<Identity>,
    ) -> std::io::Result<String> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut config = self.client_who_shows(identity);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8(answer).unwrap())
    }

    fn pki(&self, file: &str) -> PathBuf {
        self.directory.path().join("keygate.data/pki").join(file)
    }

    /// TLS as a client speaks it who has a certificate of this name, or none.
    fn client(&self, certificate: Option<&'static str>) -> rustls::ClientConfig {
        let identity = certificate.map(|name| {
            let (certificate, key) = self.issue(name);
            (vec![certificate], key)
        });
        self.client_who_shows(identity)
    }

    fn client_who_shows(&self, identity: Option<Identity>) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.pki("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        }
    }

    /// With a certificate of a test's own authority, on one connection.
    pub(crate) async fn with_certificate(&self, signed: &Signed) -> Caller {
        self.at_host("localhost", Some(signed)).await
    }

    /// At a host that the server's own certificate need not name.
    pub(crate) async fn at_host(&self, host: &'static str, signed: Option<&Signed>) -> Caller {
        let mut config = self.client_who_shows(signed.map(|signed| (signed.chain.clone(), signed.key())));
        if host != "localhost" {
            config.dangerous().set_certificate_verifier(Arc::new(AnyHost));
        }
        self.dial(config, host, None).await
    }

    pub(crate) async fn caller(&self, shown: Shown) -> Caller {
        self.dial(self.client(shown.certificate), "localhost", shown.token).await
    }

    /// Somebody who has shown nothing and comes from this address of the loopback.
    #[cfg(target_os = "linux")]
    pub(crate) async fn stranger_from(&self, ip: std::net::Ipv4Addr) -> Caller {
        self.dial_from(Some(ip), self.address, self.client(None), "localhost", None).await
    }

    /// At another listener.
    pub(crate) async fn caller_at(&self, address: SocketAddr, signed: Option<&Signed>) -> Caller {
        let config = self.client_who_shows(signed.map(|signed| (signed.chain.clone(), signed.key())));
        self.dial_from(None, address, config, "localhost", None).await
    }

    async fn dial(&self, config: rustls::ClientConfig, host: &'static str, token: Option<String>) -> Caller {
        self.dial_from(None, self.address, config, host, token).await
    }

    async fn dial_from(
        &self,
        source: Option<std::net::Ipv4Addr>,
        address: SocketAddr,
        mut config: rustls::ClientConfig,
        host: &'static str,
        token: Option<String>,
    ) -> Caller {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let connect = tower::service_fn(move |_: http::Uri| {
            let connector = connector.clone();
            async move {
                let socket = TcpSocket::new_v4()?;
                if let Some(source) = source {
                    socket.bind((source, 0).into())?;
                }
                let stream = socket.connect(address).await?;
                // As gRPC's own clients: else a value that fills no packet waits 40 ms for the one before it.
                stream.set_nodelay(true)?;
                let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(PATIENCE);
        let channel = endpoint.connect_with_connector(connect).await.unwrap();
        Caller { channel, token }
    }

    /// With a certificate of this name.
    pub(crate) async fn named(&self, certificate: &'static str) -> Caller {
        self.caller(Shown { certificate: Some(certificate), token: None }).await
    }

    /// With a token of this user, given as for a login.
    pub(crate) async fn logged_in(&self, name: &str, password: &str) -> Caller {
        let mut caller = self.caller(Shown::default()).await;
        caller.token = Some(self.login(name, password).await.expect("the login is right"));
        caller
    }

    pub(crate) async fn login(&self, name: &str, password: &str) -> Result<String, Status> {
        let caller = self.caller(Shown::default()).await;
        let request = AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
        Ok(AuthClient::new(caller.channel).authenticate(request).await?.into_inner().token)
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("keygate.data")
    }

    fn issue(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let ca = std::fs::read(self.pki("ca.pem")).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&ca).unwrap();
        let x509 = pem.parse_x509().unwrap();
        let subject = x509.subject().iter_common_name().next().unwrap().as_str().unwrap();
        let ca_key = KeyPair::from_pem(&std::fs::read_to_string(self.pki("ca-key.pem")).unwrap()).unwrap();
        let issuer = Issuer::new(params(subject), ca_key);
        let mut leaf = params(name);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (certificate.der().clone(), key)
    }
}

/// A client that does not care whose certificate it is shown.
#[derive(Debug)]
struct AnyHost;

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Adds a caller's token to each call.
#[derive(Clone)]
pub(crate) struct Sign(Option<String>);

impl tonic::service::Interceptor for Sign {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.parse().unwrap());
        }
        Ok(request)
    }
}

impl Caller {
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// For clients of a service.
    pub(crate) fn signed(&self) -> InterceptedService<Channel, Sign> {
        InterceptedService::new(self.channel.clone(), Sign(self.token.clone()))
    }

    /// Any RPC with one request message; the first message of its answer. The request stream ends
    /// behind the message.
    pub(crate) async fn raw(&self, path: &str, message: Vec<u8>) -> Result<Bytes, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let mut request = Request::new(tokio_stream::iter([Bytes::from(message)]));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().unwrap());
        }
        let path = path.parse().unwrap();
        let answer = tokio::time::timeout(PATIENCE, async {
            let mut messages = client.streaming(request, path, Raw).await?.into_inner();
            messages.message().await
        });
        Ok(answer.await.expect("no answer")?.unwrap_or_default())
    }
}

/// Messages as bytes.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
