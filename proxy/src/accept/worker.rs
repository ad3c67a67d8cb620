//! Serving threads: one runtime each, the connections they were given, and their end.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::bad_names::BadNames;
use super::connection::{self, HttpLimits, Thread};
use super::handler::Handler;
use super::listener::Endpoint;
use super::log_budget::LogBudget;
use super::slow_lane::{Entrance, SlowLane};
use super::strangers::Place;
use crate::limit::SourceSeat;
use crate::metrics::Metrics;
use crate::rpc::MessageRoom;

/// Reads that memory cannot answer wait for the disk here; more threads would only queue there.
const BLOCKING_THREADS: usize = 4;

/// What all connections share.
pub struct Shared {
    pub limits: HttpLimits,
    pub metrics: Arc<Metrics>,
    pub(super) refusals: LogBudget,
    pub(super) bad_names: BadNames,
    pub(super) room: Arc<MessageRoom>,
}

impl Shared {
    pub fn new(limits: HttpLimits, metrics: Arc<Metrics>) -> Arc<Self> {
        let room = MessageRoom::new(limits.unfinished_bytes);
        Arc::new(Self {
            limits,
            metrics,
            refusals: LogBudget::default(),
            bad_names: BadNames::default(),
            room,
        })
    }
}

/// Whether requests are still taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drain {
    Serving,
    /// Connections are told to go; what is open by then is cut.
    Until(Instant),
}

/// A connection on its way to a serving thread.
pub(super) struct Accepted {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: std::net::SocketAddr,
    pub(super) place: Place,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) counted: Counted,
}

/// Counts a connection among its thread's and its address's for as long as it lasts.
pub(super) struct Counted {
    load: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    _source: SourceSeat,
}

impl Counted {
    fn new(load: &Arc<AtomicUsize>, metrics: &Arc<Metrics>, source: SourceSeat) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        crate::metrics::ConnectionMetrics::count(&metrics.connections.accepted);
        Self { load: load.clone(), metrics: metrics.clone(), _source: source }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        crate::metrics::ConnectionMetrics::count(&self.metrics.connections.closed);
    }
}

/// Makes a thread's handler, inside the thread's runtime.
pub type MakeHandler = dyn Fn() -> Arc<dyn Handler> + Send + Sync;

pub struct Workers {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    slow_lane: SlowLane,
}

struct Worker {
    inbox: mpsc::UnboundedSender<Accepted>,
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Workers {
    pub fn start(
        threads: NonZeroUsize,
        shared: &Arc<Shared>,
        make: &Arc<MakeHandler>,
        drain: &watch::Receiver<Drain>,
    ) -> io::Result<Self> {
        let slow_lane = SlowLane::start()?;
        let mut workers = Vec::with_capacity(threads.get());
        for index in 0..threads.get() {
            let (inbox, arrivals) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name(format!("serve-{index}-io"))
                .build()?;
            let (shared, make, drain) = (shared.clone(), make.clone(), drain.clone());
            let lane = slow_lane.entrance().clone();
            let thread = thread::Builder::new().name(format!("serve-{index}")).spawn(move || {
                runtime.block_on(serve(&shared, make.as_ref(), lane, arrivals, drain));
                // A read from disk that nobody waits for any more is not waited for.
                runtime.shutdown_background();
            })?;
            workers.push(Worker { inbox, load: Arc::default(), thread });
        }
        Ok(Self { shared: shared.clone(), workers, slow_lane })
    }

    /// Gives a connection to the thread that has fewest.
    pub(super) fn give(
        &self,
        stream: std::net::TcpStream,
        peer: std::net::SocketAddr,
        place: Place,
        endpoint: Arc<Endpoint>,
        source: SourceSeat,
    ) {
        let least = self.workers.iter().min_by_key(|worker| worker.load.load(Ordering::Relaxed));
        if let Some(worker) = least {
            let counted = Counted::new(&worker.load, &self.shared.metrics, source);
            // A thread that is gone is draining: the connection closes with its place.
            drop(worker.inbox.send(Accepted { stream, peer, place, endpoint, counted }));
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Blocks until every thread has ended. Tell them to drain first.
    pub fn join(self) {
        for worker in self.workers {
            drop(worker.inbox);
            // The panic hook has reported it.
            drop(worker.thread.join());
        }
        self.slow_lane.join();
    }
}

async fn serve(
    shared: &Arc<Shared>,
    make: &MakeHandler,
    slow_lane: Entrance,
    mut arrivals: mpsc::UnboundedReceiver<Accepted>,
    drain: watch::Receiver<Drain>,
) {
    let mut told = drain.clone();
    let thread = Thread { handler: make(), traffic: shared.metrics.add_traffic(), slow_lane };
    let mut connections = JoinSet::new();
    let deadline = loop {
        tokio::select! {
            Some(accepted) = arrivals.recv() => {
                let serving = connection::serve(shared.clone(), thread.clone(), accepted, drain.clone());
                connections.spawn(serving);
            }
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            state = told.wait_for(|drain| *drain != Drain::Serving) => match state.as_deref() {
                Ok(Drain::Until(deadline)) => break *deadline,
                // Whoever could tell us to drain is gone.
                Ok(Drain::Serving) | Err(_) => break Instant::now(),
            },
        }
    };
    drop(arrivals);
    let finish = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout_at(deadline, finish).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections were cut: their requests did not end in time"
        );
        connections.abort_all();
        // Lets aborted tasks drop what they hold.
        let _elapsed = tokio::time::timeout(Duration::from_secs(1), async {
            while connections.join_next().await.is_some() {}
        })
        .await;
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        report_panic();
    }
}

pub(super) fn report_panic() {
    tracing::error!("a connection ended in a panic; the others go on");
}
