//! What a client waits for while something else goes on, against what it waits for without that: in turns, in one run,
//! so that the machine's own moods fall on both.
//!
//! Whatever disturbs runs on threads that get what nobody else wants: it stands for machines of others, and must not take
//! the processors from the server that it disturbs. The lowest priority is not enough for that: on a processor that such a
//! thread keeps busy, a request finds its turn after milliseconds (measured).
//!
//! Even so the machine has more to do. What of it is the server's doing is seen beside a control: the same is done to a
//! second server on the same machine, and what is asked of the first waits for that machine too.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use keygate_proto::etcdserverpb::{
    PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, watch_request::RequestUnion,
};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::harness::Client;

/// Of one measurement.
const SPAN: Duration = Duration::from_millis(800);
/// After the disturbance began or ended.
const SETTLE: Duration = Duration::from_millis(300);
/// When the bars hold; else fewer.
const ROUNDS: usize = 7;
const FEW_ROUNDS: usize = 3;

/// What others do, when they are let.
pub struct Disturbance {
    runtime: Option<Runtime>,
    gate: watch::Sender<bool>,
    done: Arc<AtomicU64>,
}

/// One of those who disturb.
#[derive(Clone)]
pub struct Disturber {
    gate: watch::Receiver<bool>,
    done: Arc<AtomicU64>,
}

impl Disturber {
    /// Returns when it is time to disturb; never again once the test is over.
    pub async fn wait(&mut self) {
        if self.gate.wait_for(|open| *open).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Counts what was done.
    pub fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Disturbance {
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .thread_name("disturber")
            .on_thread_start(give_way)
            .build()?;
        Ok(Self { runtime: Some(runtime), gate: watch::Sender::new(false), done: Arc::default() })
    }

    /// Starts one more. It must stop by itself while it is not time, see [`Disturber::wait`].
    pub fn add<F: Future<Output = Result<()>> + Send + 'static>(&self, disturb: impl FnOnce(Disturber) -> F) {
        let disturber = Disturber { gate: self.gate.subscribe(), done: self.done.clone() };
        let disturb = disturb(disturber);
        if let Some(runtime) = &self.runtime {
            runtime.spawn(async move {
                if let Err(error) = disturb.await {
                    println!("a disturber gave up: {error:#}");
                }
            });
        }
    }

    /// Measures alone, beside `control` if there is one, and beside this, in turns.
    pub async fn compare(
        &self,
        control: Option<&Self>,
        measure: impl AsyncFn() -> Result<Vec<Duration>>,
    ) -> Result<Compared> {
        measure().await.context("warm up")?;
        let (mut alone, mut controlled, mut beside) = (Vec::new(), Vec::new(), Vec::new());
        let mut done = 0;
        for _ in 0..if is_strict() { ROUNDS } else { FEW_ROUNDS } {
            tokio::time::sleep(SETTLE).await;
            alone.push(p99(measure().await?));
            if let Some(control) = control {
                let (waited, _) = control.during(&measure).await?;
                controlled.push(p99(waited));
            }
            let (waited, meanwhile) = self.during(&measure).await?;
            beside.push(p99(waited));
            done += meanwhile;
        }
        let control = control.map(|_| middle(controlled));
        Ok(Compared { alone: middle(alone), control, beside: middle(beside), done })
    }

    /// How much was done meanwhile stands beside it.
    async fn during(
        &self,
        measure: &impl AsyncFn() -> Result<Vec<Duration>>,
    ) -> Result<(Vec<Duration>, u64)> {
        self.gate.send_replace(true);
        tokio::time::sleep(SETTLE).await;
        let before = self.done.load(Ordering::Relaxed);
        let waited = measure().await;
        let done = self.done.load(Ordering::Relaxed) - before;
        self.gate.send_replace(false);
        Ok((waited?, done))
    }
}

/// Elsewhere than on Linux the figures are worse than they should be.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::unix::{
            NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
        };
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let this = thread_priority::unix::thread_native_id();
        if let Err(error) = set_thread_priority_and_policy(this, thread_priority::ThreadPriority::Min, idle) {
            println!("those who disturb take the server's time: {error:?}");
        }
    }
}

impl Drop for Disturbance {
    fn drop(&mut self) {
        // Its end is not waited for: a test may drop it inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The 99th percentiles in the middle of all rounds.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    pub alone: Duration,
    /// While the same was done to another server.
    pub control: Option<Duration>,
    pub beside: Duration,
    /// By those who disturbed, while it was measured.
    pub done: u64,
}

impl Compared {
    /// To what it takes on this machine without the disturbance of this server.
    fn ratio(&self) -> f64 {
        of(self.beside, self.control.map_or(self.alone, |control| control.max(self.alone)))
    }

    /// Whether the ratio keeps to `bar`, which is for a release build on a machine of its own: `KEYGATE_STRICT=1` says
    /// that this is one. Else ten times as much is let pass, and a tenth of a second.
    pub fn keeps_to(&self, bar: f64) -> bool {
        // A control of the same make cannot show what it shares with the server: at most twice as much beside alone.
        self.ratio() <= bar && of(self.beside, self.alone) <= bar * 2.0
            || !is_strict() && (self.ratio() <= bar * 10.0 || self.beside < Duration::from_millis(100))
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { alone, control, beside, done } = self;
        write!(
            f,
            "p99 {alone:.2?} alone, {beside:.2?} beside {done} of the others: {:.2}x",
            of(*beside, *alone)
        )?;
        if let Some(control) = control {
            write!(
                f,
                "; {control:.2?} beside the same against another server: {:.2}x",
                of(*control, *alone)
            )?;
        }
        Ok(())
    }
}

fn is_strict() -> bool {
    std::env::var("KEYGATE_STRICT").is_ok_and(|strict| strict == "1")
}

fn of(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn p99(mut waited: Vec<Duration>) -> Duration {
    waited.sort_unstable();
    waited.get(waited.len() * 99 / 100).copied().unwrap_or(Duration::MAX)
}

fn middle(mut figures: Vec<Duration>) -> Duration {
    figures.sort_unstable();
    figures[figures.len() / 2]
}

/// One after the other.
pub async fn puts(client: &Client) -> Result<Vec<Duration>> {
    let (mut waited, until) = (Vec::new(), Instant::now() + SPAN);
    while Instant::now() < until {
        let began = Instant::now();
        client.kv().put(put(waited.len())).await?;
        waited.push(began.elapsed());
    }
    Ok(waited)
}

/// One after the other, of one key.
pub async fn ranges(client: &Client) -> Result<Vec<Duration>> {
    client.kv().put(put(0)).await?;
    let (mut waited, until) = (Vec::new(), Instant::now() + SPAN);
    while Instant::now() < until {
        let began = Instant::now();
        client.kv().range(RangeRequest { key: put(0).key, ..Default::default() }).await?;
        waited.push(began.elapsed());
    }
    Ok(waited)
}

/// From a put's beginning to its event.
pub async fn deliveries(client: &Client) -> Result<Vec<Duration>> {
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let create = WatchCreateRequest { key: put(0).key, ..Default::default() };
    requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?;
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = client.watch().watch(stream).await?.into_inner();
    answers.message().await?.context("the watch's creation")?;
    let (mut waited, until) = (Vec::new(), Instant::now() + SPAN);
    while Instant::now() < until {
        let began = Instant::now();
        client.kv().put(put(0)).await?;
        answers.message().await?.context("an event")?;
        waited.push(began.elapsed());
    }
    Ok(waited)
}

fn put(number: usize) -> PutRequest {
    PutRequest { key: format!("k{}", number % 1_000).into(), value: "v".into(), ..Default::default() }
}
