//! One thread with a quarter of a processor, for connections that cost more than they are worth ([`super::worth`]).
//!
//! A flood on a serving thread makes each request on that thread wait for its turn, and floods on all of them leave no
//! processor free. So the task of such a connection, which does its TLS and its frames, runs on a thread that
//! all of its kind share, until it has behaved for a while. Its requests stay with their serving thread.
//!
//! That thread gives way, and it rests after each piece of work. A low priority alone would not do: a thread that is woken
//! on a processor where another one is busy is let in after milliseconds, whatever their priorities (measured: p99 of puts
//! beside it 3 ms, 0.7 ms without). The policy for idle time would do, but then a lock that the thread holds could be held
//! for seconds on a busy machine.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keygate_engine::background::{self, Niceness};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::worth::Standing;
use crate::metrics::{ConnectionMetrics, Metrics};

/// After so much work it rests. A turn of a connection is about as long; a handshake is ten times as long.
const WORK: Duration = Duration::from_micros(100);
/// So many times as long as it worked.
const REST: u32 = 3;
const LONGEST_REST: Duration = Duration::from_millis(20);
/// What a serving thread does to begin a request, and to refuse it. It counts as work of the connection that brought it.
const REQUEST: Duration = Duration::from_micros(25);

/// The thread. It must outlast the tasks that wait for what runs on it.
pub(super) struct SlowLane {
    entrance: Entrance,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// What brings a connection there.
#[derive(Clone)]
pub(super) struct Entrance {
    runtime: Handle,
    pace: Arc<Pace>,
}

/// How long the thread has worked since it rested, in microseconds.
#[derive(Default)]
struct Pace(AtomicU32);

impl SlowLane {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .thread_name("slow-lane-io")
            .build()?;
        let entrance = Entrance { runtime: runtime.handle().clone(), pace: Arc::default() };
        let (end, ended) = oneshot::channel();
        let thread = background::spawn("slow-lane", Niceness::Lowest, move || {
            // However it ends.
            let _told = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Self { entrance, end, thread })
    }

    pub(super) fn entrance(&self) -> &Entrance {
        &self.entrance
    }

    /// Blocks until the thread has ended. What still runs on it is dropped.
    pub(super) fn join(self) {
        drop(self.end);
        // The panic hook has reported it.
        drop(self.thread.join());
    }
}

impl Pace {
    /// After a piece of work, on the slow lane's thread. All that it has to do waits while it rests.
    fn worked(&self, piece: Duration) {
        let worked = Duration::from_micros(self.0.load(Ordering::Relaxed).into()) + piece;
        let rest = if worked >= WORK { (worked * REST).min(LONGEST_REST) } else { Duration::ZERO };
        let since = if rest.is_zero() { worked.as_micros() } else { 0 };
        self.0.store(u32::try_from(since).unwrap_or(u32::MAX), Ordering::Relaxed);
        std::thread::sleep(rest);
    }
}

/// Runs `serving` on the caller's thread or on the slow lane, wherever it belongs at the moment. None: it panicked there.
pub(super) async fn serve<F>(
    mut serving: Pin<Box<F>>,
    standing: &Standing,
    lane: &Entrance,
    metrics: &Metrics,
) -> Option<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    loop {
        serving = match stay(serving, standing, None).await {
            Left::Ended(outcome) => return Some(outcome),
            Left::Goes(serving) => serving,
        };
        ConnectionMetrics::count(&metrics.connections.slowed);
        let (there, pace) = (standing.clone(), lane.pace.clone());
        let task = lane.runtime.spawn(async move { stay(serving, &there, Some(&pace)).await });
        let _ends_with_us = Cut(task.abort_handle());
        serving = match task.await.ok()? {
            Left::Ended(outcome) => return Some(outcome),
            Left::Goes(serving) => serving,
        };
    }
}

enum Left<F: Future> {
    Ended(F::Output),
    Goes(Pin<Box<F>>),
}

/// For as long as it belongs to the slow lane, whose pace it gets, or for as long as it does not.
async fn stay<F: Future>(serving: Pin<Box<F>>, standing: &Standing, pace: Option<&Pace>) -> Left<F> {
    let slow = pace.is_some();
    standing.set_runs_slow(slow);
    let mut here = Some(serving);
    std::future::poll_fn(move |cx| {
        if let Some(serving) = &mut here
            && standing.is_slow() == slow
        {
            let began = pace.map(|_| Instant::now());
            let polled = serving.as_mut().poll(cx);
            if let (Some(pace), Some(began)) = (pace, began) {
                pace.worked(began.elapsed() + REQUEST * standing.take_requests());
            }
            if let Poll::Ready(outcome) = polled {
                return Poll::Ready(Left::Ended(outcome));
            }
        }
        // Where it goes it is polled again, so that no wake-up is lost.
        match here.take_if(|_| standing.is_slow() != slow) {
            Some(serving) => Poll::Ready(Left::Goes(serving)),
            None => Poll::Pending,
        }
    })
    .await
}

/// A connection that is cut is cut on the slow lane too.
struct Cut(AbortHandle);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::thread::ThreadId;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn threads(standing: &Standing) -> Pin<Box<impl Future<Output = Vec<ThreadId>> + Send + 'static>> {
        let standing = standing.clone();
        Box::pin(async move {
            let mut seen = Vec::new();
            for slow in [false, true, false, true] {
                standing.set(slow);
                tokio::task::yield_now().await;
                seen.push(std::thread::current().id());
            }
            seen
        })
    }

    #[tokio::test]
    async fn a_connection_goes_where_it_belongs_and_back() {
        let lane = SlowLane::start().unwrap();
        let standing = Standing::default();
        let metrics = Metrics::default();
        let serving = serve(threads(&standing), &standing, lane.entrance(), &metrics);
        let seen = tokio::time::timeout(PATIENCE, serving).await.expect("it goes on wherever it is").unwrap();
        let (here, there) = (std::thread::current().id(), lane.thread.thread().id());
        assert_eq!(seen, [here, there, here, there]);
        lane.join();
    }

    #[tokio::test]
    async fn what_panics_or_is_cut_on_the_slow_lane_ends() {
        let lane = SlowLane::start().unwrap();
        let standing = Standing::default();
        standing.set(true);
        let broken =
            serve(Box::pin(async { panic!("on purpose") }), &standing, lane.entrance(), &Metrics::default())
                .await;
        assert_eq!(broken, None::<()>);
        let (held, dropped) = oneshot::channel::<()>();
        let endless = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        let metrics = Metrics::default();
        let cut = serve(Box::pin(endless), &standing, lane.entrance(), &metrics);
        tokio::time::timeout(Duration::from_millis(50), cut).await.unwrap_err();
        tokio::time::timeout(PATIENCE, dropped).await.expect("it was cut there too").unwrap_err();
        lane.join();
    }
}
