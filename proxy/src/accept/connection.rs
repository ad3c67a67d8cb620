//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tonic::body::Body;

use super::bad_names::Fault;
use super::flood::Flood;
use super::handler::{Handler, Served, is_grpc};
use super::lapse::Presented;
use super::listener::Endpoint;
use super::log_budget::Line;
use super::probation::Probation;
use super::rarely::Rarely;
use super::slow_lane::{self, Entrance};
use super::socket::Socket;
use super::strangers::{Place, PlaceProof};
use super::stream::{ClientStream, Spoken, Transport, Turns};
use super::worker::{self, Accepted, Drain, Shared};
use super::worth::Standing;
use crate::http::Pages;
use crate::identify::{ConnectionIdentity, Proof, Shown, Source};
use crate::metrics::{ConnectionMetrics, Traffic};
use crate::rpc::methods;
use crate::tls::{Certified, Loaded, PLATFORM_ONLY, RefusedCertificate, ReloadingTls, refused_certificate};

/// A request's headers in all. A JWT may take 8 KiB of it.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// One message of the default size fits without waiting for the window.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of answers that wait for one slow client's stream.
const SEND_BUFFER: usize = 1 << 20;
/// Frames of requests that were refused before they were whole and came when that was forgotten, in a connection's life. A
/// client may have thousands under way; floods of them are bounded otherwise ([`super::flood`]).
const LATE_FRAMES: usize = 10_000;
/// A connection that ends sooner and brought no request was one for nothing.
const TO_ASK: Duration = Duration::from_secs(1);
/// For streams to tell their clients that the certificate lapsed.
const LAPSE_GRACE: Duration = Duration::from_millis(500);

/// What the operator allows of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpLimits {
    /// For TLS, and for the first bytes of HTTP after it.
    pub handshake_timeout: Duration,
    /// In which a client must show who it is, or it is told to go and come again.
    pub proof_timeout: Duration,
    /// Of messages that are not whole yet, of all connections together.
    pub unfinished_bytes: usize,
    pub concurrent_streams: u32,
    /// None: the server never pings.
    pub ping_interval: Option<Duration>,
    /// None: a ping may stay unanswered.
    pub ping_timeout: Option<Duration>,
}

/// What belongs to the serving thread.
#[derive(Clone)]
pub(super) struct Thread {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) traffic: Arc<Traffic>,
    /// Belongs to all.
    pub(super) slow_lane: Entrance,
}

/// Never fails: what goes wrong is logged here or is the client's business.
pub(super) async fn serve(
    shared: Arc<Shared>,
    thread: Thread,
    accepted: Accepted,
    drain: watch::Receiver<Drain>,
) {
    let (source, standing) = (Source::of(accepted.peer.ip()), Standing::default());
    // Probes of the machine come from addresses that may be many clients'.
    let is_known = accepted.endpoint.pages != Pages::Monitoring;
    let pause = is_known.then(|| shared.bad_names.pause(source, std::time::Instant::now())).flatten();
    if let Some(pause) = pause {
        standing.set(true);
        tokio::time::sleep(pause).await;
    }
    let slow_lane = thread.slow_lane.clone();
    let home = Home(Handle::current());
    let serving = Box::pin(serve_anywhere(shared.clone(), thread, home, accepted, drain, standing.clone()));
    let end = slow_lane::serve(serving, &standing, &slow_lane, &shared.metrics).await;
    if end.is_none() {
        worker::report_panic();
    }
    let fault = match end {
        _ if standing.is_in_debt() => Some(Fault::Debt),
        Some(End::Breach) => Some(Fault::Nothing),
        // Who had to wait may have given up because of that.
        Some(End::Nothing) if pause.is_none() => Some(Fault::Nothing),
        Some(End::Nothing | End::Ordinary) | None => None,
    };
    if let Some(fault) = fault.filter(|_| is_known) {
        shared.bad_names.remember(source, fault, std::time::Instant::now());
    }
}

/// What a connection came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// A handshake, and no request after it.
    Nothing,
    /// Frames that nobody sends who means it.
    Breach,
    Ordinary,
}

/// On a serving thread or on the slow lane.
async fn serve_anywhere(
    shared: Arc<Shared>,
    thread: Thread,
    home: Home,
    accepted: Accepted,
    drain: watch::Receiver<Drain>,
    standing: Standing,
) -> End {
    let Accepted { stream, peer, place, endpoint, counted: _counted } = accepted;
    let Thread { handler, traffic, .. } = thread;
    let probation = Arc::new(Probation::default());
    let place = Arc::new(place);
    let evicted = place.clone();
    let began = Instant::now();
    let deadline = began + shared.limits.handshake_timeout;
    let begun = tokio::select! {
        begun = begin(stream, traffic, &probation, &standing, &endpoint, &*handler, deadline) => begun,
        () = evicted.evicted() => return End::Ordinary,
    };
    let begun = match begun {
        Ok(Some(begun)) => begun,
        Ok(None) => return End::Ordinary,
        Err(Rejection::Gone) => return End::Nothing,
        Err(error) => {
            reject(&shared, peer, &error);
            return End::Nothing;
        }
    };
    let Begun { stream, spoken, client } = begun;
    let is_tls = endpoint.tls.is_some();
    let proof = Box::new(EndOfProbation { place: PlaceProof(place), probation: probation.clone() });
    let room = shared.room.connection();
    let identity = ConnectionIdentity::new(peer, is_tls, client.server_name.as_deref(), client.shown, proof);
    let identity = identity.with_room(room);
    if *identity.shown() == Shown::Rejected {
        tell_of_rejection(&shared, peer, client.presented.as_ref());
    }
    // A certificate that an authority signed is proof enough not to be a stranger, unless rules reject it.
    if client.presented.is_some() && *identity.shown() != Shown::Rejected {
        identity.proof().given();
    }
    let identity = Arc::new(identity);
    let lapse = lapse(client.presented, endpoint.tls.clone(), identity.clone());
    let stay = Stay { place: &evicted, probation: &probation, limits: &shared.limits, drain, lapse };
    let (flooded, turns) = (stream.flooded(), stream.turns());
    let served = standing.clone();
    let service = ConnectionService { handler, endpoint, identity, probation: probation.clone(), standing };
    let io = TokioIo::new(stream);
    let outcome = match spoken {
        Spoken::Http2 => {
            let connection = http2_builder(&shared.limits, home).serve_connection(io, service);
            in_turns(&turns, stay.finish(Box::pin(connection))).await
        }
        Spoken::Http1 => {
            let connection = http1_builder(&shared.limits).serve_connection(io, service);
            in_turns(&turns, stay.finish(Box::pin(connection))).await
        }
    };
    let breaks_rules = outcome.as_ref().is_err_and(is_breach);
    if let Err(error) = outcome {
        tracing::debug!(remote_addr = %peer, %error, "connection ended");
    }
    if flooded.load(Ordering::Relaxed)
        && let Line::Write { left_out } = shared.refusals.ask(std::time::Instant::now())
    {
        tracing::warn!(remote_addr = %peer, left_out, error = %Flood, "a connection is closed");
    }
    if breaks_rules {
        End::Breach
    } else if is_tls && !served.has_asked() && began.elapsed() < TO_ASK {
        End::Nothing
    } else {
        End::Ordinary
    }
}

/// Of a connection that the other side has not just left, with or without a word.
fn is_breach(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error);
    !error.is_timeout() && cause.is_some_and(|cause| !cause.is::<std::io::Error>())
}

/// Counts each time that the task runs.
async fn in_turns<F: Future>(turns: &Turns, serving: F) -> F::Output {
    let mut serving = pin!(serving);
    std::future::poll_fn(|cx| {
        turns.begin();
        serving.as_mut().poll(cx)
    })
    .await
}

/// A connection that has begun to speak HTTP.
struct Begun {
    stream: ClientStream,
    spoken: Spoken,
    client: Client,
}

/// What a client's certificate said.
struct Client {
    /// A certificate that was verified.
    presented: Option<Presented>,
    shown: Shown,
    /// Which host it said it wants to reach.
    server_name: Option<String>,
}

/// Why a connection was rejected before its first request.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error("tls handshake was not finished in time")]
    HandshakeTimeout,
    #[error("no request was begun in time")]
    Silence,
    #[error("the client went away after its handshake")]
    Gone,
    #[error("{}", cause(error))]
    Tls { server_name: String, certificate: Option<Box<RefusedCertificate>>, error: std::io::Error },
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// None: the client went away before it cost anything, as load balancers' probes do.
async fn begin(
    stream: std::net::TcpStream,
    traffic: Arc<Traffic>,
    probation: &Arc<Probation>,
    standing: &Standing,
    endpoint: &Endpoint,
    handler: &dyn Handler,
    deadline: Instant,
) -> Result<Option<Begun>, Rejection> {
    let socket = Socket::adopt(stream, standing.clone())?;
    let mut client = Client { presented: None, shown: Shown::Nothing, server_name: None };
    let transport = match endpoint.tls.as_deref() {
        None => Transport::Plain(socket),
        Some(tls) => {
            // Before the configuration is taken, so that no change after it is missed.
            let changes = tls.changes();
            let handshake = timeout_at(deadline, handshake(socket, tls, endpoint.pages, handler)).await;
            let Some(Secured { stream, loaded, tenant }) =
                handshake.map_err(|_| Rejection::HandshakeTimeout)??
            else {
                return Ok(None);
            };
            let session = stream.get_ref().1;
            client.server_name = session.server_name().map(str::to_owned);
            if let Some(chain @ [_, ..]) = session.peer_certificates() {
                let certified = loaded.trust.certify(chain, tenant.as_deref(), SystemTime::now());
                client.shown = shown(&certified);
                client.presented = Some(Presented::new(chain, tenant, certified, changes));
            }
            Transport::Tls(Box::new(stream))
        }
    };
    let mut stream = ClientStream::new(transport, traffic, probation.clone(), standing.clone());
    let spoken = timeout_at(deadline, stream.spoken()).await.map_err(|_| Rejection::Silence)??;
    match spoken {
        Some(spoken) => Ok(Some(Begun { stream, spoken, client })),
        None if endpoint.tls.is_some() => Err(Rejection::Gone),
        None => Ok(None),
    }
}

/// A handshake that succeeded.
struct Secured {
    stream: tokio_rustls::server::TlsStream<Socket>,
    /// What it was checked against.
    loaded: Arc<Loaded>,
    /// Whose host the client asked for.
    tenant: Option<Arc<str>>,
}

fn shown(certified: &Certified) -> Shown {
    match &certified.whom {
        Ok(found) => Shown::Name(found.named.clone()),
        Err(_) if certified.is_rejected() => Shown::Rejected,
        Err(_) => Shown::Nameless,
    }
}

async fn handshake(
    socket: Socket,
    tls: &ReloadingTls,
    pages: Pages,
    handler: &dyn Handler,
) -> Result<Option<Secured>, Rejection> {
    let start = match LazyConfigAcceptor::new(Acceptor::default(), socket).await {
        Ok(start) => start,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => {
            return Err(Rejection::Tls { server_name: String::new(), certificate: None, error });
        }
    };
    let server_name = start.client_hello().server_name().unwrap_or_default().to_owned();
    let tenant = match pages {
        // Whatever host is asked for: these pages name tenants.
        Pages::Monitoring => Some(PLATFORM_ONLY.into()),
        Pages::All | Pages::Guarded | Pages::None => {
            handler.tenant_of_host(&server_name.to_ascii_lowercase())
        }
    };
    let loaded = tls.current();
    match start.into_stream(loaded.config(tenant.as_deref())).await {
        Ok(stream) => Ok(Some(Secured { stream, loaded, tenant })),
        Err(error) => {
            let certificate = refused_certificate(&error).map(Box::new);
            Err(Rejection::Tls { server_name, certificate, error })
        }
    }
}

/// rustls's own words, but for the mistakes whose remedy it cannot know.
fn cause(error: &std::io::Error) -> String {
    use rustls::{CertificateError, Error, InvalidMessage};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "the client does not speak TLS; is its endpoint `http://`?".to_owned()
        }
        Some(Error::InvalidCertificate(
            CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. },
        )) => format!(
            "{error}: the list of the client's authority in --client-crl-file, or the `crl-file` of the identity rules, must be renewed"
        ),
        Some(Error::InvalidCertificate(CertificateError::Revoked)) => {
            "the client's certificate was revoked".to_owned()
        }
        Some(Error::InvalidCertificate(CertificateError::UnknownRevocationStatus)) => {
            format!(
                "{error}: --client-crl-file, or the `crl-file` of the identity rules, has no list of the authority that issued the certificate"
            )
        }
        Some(_) | None => error.to_string(),
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset)
}

fn reject(shared: &Shared, peer: SocketAddr, rejection: &Rejection) {
    ConnectionMetrics::count(&shared.metrics.connections.failed_handshakes);
    let Line::Write { left_out } = shared.refusals.ask(std::time::Instant::now()) else { return };
    let (server_name, certificate) = match rejection {
        Rejection::Tls { server_name, certificate, .. } => (server_name.as_str(), certificate.as_ref()),
        Rejection::HandshakeTimeout | Rejection::Silence | Rejection::Gone | Rejection::Io(_) => ("", None),
    };
    // etcd's words: others look for them.
    tracing::warn!(
        remote_addr = %peer,
        server_name,
        error = %rejection,
        certificate = certificate.map(tracing::field::display),
        left_out,
        "rejected connection on client endpoint"
    );
}

fn tell_of_rejection(shared: &Shared, peer: SocketAddr, presented: Option<&Presented>) {
    let Some(Certified { authority, whom: Err(why) }) = presented.map(Presented::certified) else { return };
    let Line::Write { left_out } = shared.refusals.ask(std::time::Instant::now()) else { return };
    tracing::warn!(
        remote_addr = %peer,
        authority = authority.as_ref(),
        error = %why,
        left_out,
        "a client certificate names nobody; `keygate identity explain` tells more"
    );
}

struct ConnectionService {
    handler: Arc<dyn Handler>,
    endpoint: Arc<Endpoint>,
    identity: Arc<ConnectionIdentity>,
    probation: Arc<Probation>,
    standing: Standing,
}

/// What ends when the other side has shown who it is.
struct EndOfProbation {
    place: PlaceProof,
    probation: Arc<Probation>,
}

impl Proof for EndOfProbation {
    fn given(&self) {
        // Asked at each request: a load is enough for all but the first.
        if !self.probation.is_over() {
            self.place.given();
            self.probation.end();
        }
    }

    fn is_crowded(&self) -> bool {
        self.probation.is_crowded()
    }
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Infallibly;

    fn call(&self, request: Request<Incoming>) -> Infallibly {
        self.standing.begun();
        let open = (!self.probation.is_over()).then(|| self.probation.request());
        let pays = is_grpc(&request) && !methods::is_endless(request.uri().path());
        let served = self.handler.serve(&self.endpoint, &self.identity, request);
        let served = match open {
            None => served,
            Some(open) => Box::pin(async move { served.await.map(|answer| open.around(answer)) }),
        };
        Infallibly { served, pays: pays.then(|| self.standing.clone()) }
    }
}

/// What hyper wants to see as a result.
struct Infallibly {
    served: Served,
    /// Of a call that has been done when its answer begins. A stream begins before anything is done, also a stranger's, and
    /// a page is nothing that somebody works for.
    pays: Option<Standing>,
}

impl Future for Infallibly {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        self.served.as_mut().poll(cx).map(|response| {
            if let Some(standing) = self.pays.take_if(|_| !is_refusal(&response)) {
                standing.served();
            }
            Ok(response)
        })
    }
}

/// Of gRPC, only refusals tell their status before the end.
fn is_refusal(response: &Response<Body>) -> bool {
    !response.status().is_success() || response.headers().contains_key(tonic::Status::GRPC_STATUS)
}

/// The serving thread that the connection was given to. Its requests run there wherever the connection's frames are read: what
/// they use of the engine is that thread's, and a watch outlasts a bad minute.
#[derive(Clone)]
struct Home(Handle);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Home {
    fn execute(&self, request: F) {
        drop(self.0.spawn(request));
    }
}

fn http2_builder(limits: &HttpLimits, home: Home) -> http2::Builder<Home> {
    /// Further away than any process lives, near enough for clocks to add.
    const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);
    let mut builder = http2::Builder::new(home);
    builder
        .timer(TokioTimer::new())
        // hyper's default of 200 makes Go clients hang that open one stream for each watch.
        .max_concurrent_streams(limits.concurrent_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_local_error_reset_streams(LATE_FRAMES)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout.unwrap_or(NEVER))
        .auto_date_header(false);
    builder
}

fn http1_builder(limits: &HttpLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.handshake_timeout)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    builder
}

/// Lets open requests end and takes no more. hyper has it on two types without a trait.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn begin_shutdown(self: Pin<&mut Self>);
}

impl Graceful for http2::Connection<TokioIo<ClientStream>, ConnectionService, Home> {
    fn begin_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl Graceful for http1::Connection<TokioIo<ClientStream>, ConnectionService> {
    fn begin_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// How long a connection may stay.
struct Stay<'a> {
    place: &'a Place,
    probation: &'a Probation,
    limits: &'a HttpLimits,
    drain: watch::Receiver<Drain>,
    lapse: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Completes when the certificate does not hold any more, after requests were told so.
fn lapse(
    presented: Option<Presented>,
    tls: Option<Arc<ReloadingTls>>,
    identity: Arc<ConnectionIdentity>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let (Some(presented), Some(tls)) = (presented, tls) else { return Box::pin(std::future::pending()) };
    Box::pin(async move {
        let why = presented.lapse(&tls).await;
        tracing::info!(remote_addr = %identity.peer(), ?why, "a connection is closed: its certificate does not hold any more");
        identity.end(why);
    })
}

/// Why a connection does not stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leave {
    Evicted,
    Overdue,
    Lapsed,
    ToldToGo,
}

impl Stay<'_> {
    async fn finish<C: Graceful>(mut self, mut connection: Pin<Box<C>>) -> hyper::Result<()> {
        let leave = Rarely::new(async {
            tokio::select! {
                biased;
                () = self.place.evicted() => Leave::Evicted,
                () = overdue(self.probation, self.limits.proof_timeout) => Leave::Overdue,
                () = self.lapse.as_mut() => Leave::Lapsed,
                _ = self.drain.wait_for(|drain| *drain != Drain::Serving) => Leave::ToldToGo,
            }
        });
        let leave = tokio::select! {
            biased;
            outcome = connection.as_mut() => return outcome,
            leave = leave => leave,
        };
        if leave == Leave::Evicted {
            return Ok(());
        }
        connection.as_mut().begin_shutdown();
        let cut = async {
            if leave != Leave::Lapsed {
                self.lapse.as_mut().await;
            }
            tokio::time::sleep(LAPSE_GRACE).await;
        };
        // Requests that are open may end, but a stranger's do not last.
        let grace = self.limits.handshake_timeout;
        tokio::select! {
            biased;
            outcome = connection.as_mut() => outcome,
            () = self.place.evicted() => Ok(()),
            () = overdue(self.probation, grace) => Ok(()),
            () = cut => Ok(()),
        }
    }
}

/// Completes when the time is over and nothing was shown.
async fn overdue(probation: &Probation, timeout: Duration) {
    if !probation.is_over() {
        tokio::time::sleep(timeout).await;
    }
    if probation.is_over() {
        std::future::pending().await
    }
}
