//! The thread that accepts: takes connections off the listeners one by one and gives them away.
//! It never ends because of an error; when the system has no descriptors left, it waits.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use socket2::{SockRef, TcpKeepalive};
use tokio::sync::watch;

use super::listener::Endpoint;
use super::log_budget::Line;
use super::strangers::Strangers;
use super::worker::{Drain, Workers};
use crate::identify::Source;
use crate::limit::Limiter;
use crate::metrics::ConnectionMetrics;

/// As Go's servers have it: a peer that vanished is noticed in minutes.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// An address that is bound, and how it is served.
pub struct Listening {
    pub socket: TcpListener,
    pub endpoint: Arc<Endpoint>,
}

pub struct Acceptor {
    thread: JoinHandle<()>,
}

impl Acceptor {
    /// Accepts until told to drain; then the listeners close at once.
    pub fn start(
        listeners: Vec<Listening>,
        strangers: Arc<Strangers>,
        workers: Arc<Workers>,
        limiter: Arc<Limiter>,
        drain: watch::Receiver<Drain>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("accept".to_owned()).spawn(move || {
            runtime.block_on(accept_all(listeners, &strangers, &workers, &limiter, drain));
        })?;
        Ok(Self { thread })
    }

    /// Blocks until the listeners are closed.
    pub fn join(self) {
        // The panic hook has reported it.
        drop(self.thread.join());
    }
}

async fn accept_all(
    listeners: Vec<Listening>,
    strangers: &Arc<Strangers>,
    workers: &Arc<Workers>,
    limiter: &Limiter,
    mut drain: watch::Receiver<Drain>,
) {
    let loops = listeners.into_iter().map(|listening| accept(listening, strangers, workers, limiter));
    tokio::select! {
        _ = futures_util::future::join_all(loops) => {}
        _ = drain.wait_for(|drain| *drain != Drain::Serving) => {}
    }
}

async fn accept(listening: Listening, strangers: &Arc<Strangers>, workers: &Arc<Workers>, limiter: &Limiter) {
    let Listening { socket, endpoint } = listening;
    let shared = workers.shared();
    let metrics = &shared.metrics.connections;
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener cannot be used");
            return;
        }
    };
    let mut pause = Pause::default();
    loop {
        let (stream, peer) = match listener.accept().await.and_then(handed_over) {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_peer(&error) => continue,
            Err(error) => {
                ConnectionMetrics::count(&metrics.accept_errors);
                if let Line::Write { left_out } = shared.refusals.ask(std::time::Instant::now()) {
                    tracing::error!(%error, left_out, "cannot accept connections for the moment");
                }
                tokio::time::sleep(pause.next()).await;
                continue;
            }
        };
        pause = Pause::default();
        // Closed at once, before it costs a handshake.
        let Some(source) = limiter.connect(Source::of(peer.ip())) else { continue };
        let place = strangers.admit(peer.ip(), &|| ConnectionMetrics::count(&metrics.evicted)).await;
        workers.give(stream, peer, place, endpoint.clone(), source);
    }
}

/// Off this thread's reactor.
fn handed_over(
    (stream, peer): (tokio::net::TcpStream, SocketAddr),
) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok((stream.into_std()?, peer))
}

/// The connection was gone before it was taken: nothing is wrong here.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
    )
}

/// 5 ms, doubled with each failure in a row up to 1 s.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(Duration::from_millis(5))
    }
}

impl Pause {
    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (now * 2).min(Duration::from_secs(1));
        now
    }
}
