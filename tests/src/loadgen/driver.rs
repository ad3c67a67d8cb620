//! The run itself: one thread, one poll, closed-loop clients spread over the connections.
//!
//! A run opens its watches, warms up, measures for a time (or a number of requests), and then waits for what is still
//! in flight. Only what arrives inside the measured window is counted, so both its edges lie in steady load.

use crate::call::CallKind;
use crate::connection::Connection;
use crate::messages::{self, path};
use crate::process::CpuClock;
use crate::setup::Target;
use crate::tally::{Client, Tally};
use crate::workload::{Expectation, WATCHED_KEY, Workload};
use anyhow::{Context, Result, bail};
use mio::{Events, Poll, Token};
use std::time::{Duration, Instant};

/// Nothing arriving for so long ends the run: a lost answer would otherwise hang it.
const STALL: Duration = Duration::from_secs(30);
const LONGEST_POLL: Duration = Duration::from_millis(500);

/// When the measured window closes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Window {
    For(Duration),
    /// All requests of the run are measured, without warm-up.
    Requests(u64),
}

/// The shape of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) clients: usize,
    pub(crate) watchers: usize,
    pub(crate) warmup: Duration,
    pub(crate) window: Window,
    /// Processes whose CPU time is the server's.
    pub(crate) server: Vec<u32>,
}

/// What the measured window saw.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) elapsed: Duration,
    pub(crate) server_cpu: Duration,
    pub(crate) own_cpu: Duration,
    pub(crate) connecting: Duration,
}

enum Phase {
    Opening,
    Warming { until: Instant },
    Measuring { since: Instant, server: Duration, own: Duration },
    Draining,
}

struct Run<'a> {
    plan: &'a Plan,
    workload: Workload,
    connections: Vec<Connection>,
    tally: Tally,
    phase: Phase,
    started: u64,
    message: Vec<u8>,
    server_clock: CpuClock,
    own_clock: CpuClock,
    elapsed: Duration,
    server_cpu: Duration,
    own_cpu: Duration,
}

/// Runs `workload` against `target` as `plan` says.
pub(crate) fn run(plan: &Plan, workload: Workload, target: &Target, token: Option<&str>) -> Result<Outcome> {
    let mut poll = Poll::new().context("make a poll")?;
    let began = Instant::now();
    let mut connections = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections {
        let mut connection = Connection::open(target.endpoint(number), target.tls.as_ref(), token)?;
        connection.register(poll.registry(), Token(number))?;
        connections.push(connection);
    }
    let connecting = began.elapsed();
    let clients = (0..plan.clients).map(|number| Client {
        connection: number % plan.connections,
        sent: began,
        expects: Expectation::Written,
        revision: 0,
        streaming: false,
    });
    let tally = Tally::new(workload.keys.clone(), clients.collect(), plan.watchers)?;
    let mut run = Run {
        plan,
        workload,
        connections,
        tally,
        phase: Phase::Opening,
        started: 0,
        message: Vec::new(),
        server_clock: CpuClock::of(plan.server.clone()),
        own_clock: CpuClock::of(vec![std::process::id()]),
        elapsed: Duration::ZERO,
        server_cpu: Duration::ZERO,
        own_cpu: Duration::ZERO,
    };
    run.open_watches();
    run.drive(&mut poll)?;
    run.tally.check_watchers();
    let Run { tally, elapsed, server_cpu, own_cpu, .. } = run;
    Ok(Outcome { tally, elapsed, server_cpu, own_cpu, connecting })
}

impl Run<'_> {
    fn open_watches(&mut self) {
        let mut key = Vec::new();
        self.workload.keys.key(&mut key, WATCHED_KEY);
        self.message.clear();
        messages::watch_create(&mut self.message, &key);
        for number in 0..self.plan.watchers {
            let connection = &mut self.connections[number % self.plan.connections];
            connection.start(self.plan.clients + number, CallKind::Stream, path::WATCH, &self.message);
        }
    }

    fn drive(&mut self, poll: &mut Poll) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut last_arrival = Instant::now();
        // Bytes that came with a TLS handshake raise no event.
        for number in 0..self.connections.len() {
            self.receive(number)?;
        }
        loop {
            let now = Instant::now();
            self.advance(now)?;
            if self.is_complete() {
                return Ok(());
            }
            self.start_requests(now)?;
            for connection in &mut self.connections {
                connection.flush()?;
            }
            poll_through_signals(poll, &mut events, self.patience(now))?;
            for event in events.iter().filter(|event| event.is_readable()) {
                if self.receive(event.token().0)? {
                    last_arrival = Instant::now();
                }
            }
            if last_arrival.elapsed() > STALL {
                return self.give_up();
            }
        }
    }

    /// Whether anything came.
    fn receive(&mut self, number: usize) -> Result<bool> {
        let now = Instant::now();
        let tally = &mut self.tally;
        let (mut arrived, mut broken) = (false, None);
        self.connections[number].receive(&mut |arrival| {
            arrived = true;
            if let Err(error) = tally.on_arrival(arrival, now) {
                broken.get_or_insert(error);
            }
        })?;
        broken.map_or(Ok(arrived), Err)
    }

    /// Moves to the next phase when it is time, taking the CPU clocks at both edges of the window.
    fn advance(&mut self, now: Instant) -> Result<()> {
        if matches!(self.phase, Phase::Opening) && self.tally.watches_are_open() {
            self.phase = Phase::Warming { until: now + self.plan.warmup };
        }
        match self.phase {
            Phase::Warming { until } if now >= until => {
                let (server, own) = (self.server_clock.total()?, self.own_clock.total()?);
                self.tally.measuring = true;
                self.phase = Phase::Measuring { since: now, server, own };
            }
            Phase::Measuring { since, server, own } if self.window_is_over(since, now) => {
                self.tally.measuring = false;
                self.elapsed = now - since;
                self.server_cpu = self.server_clock.total()?.saturating_sub(server);
                self.own_cpu = self.own_clock.total()?.saturating_sub(own);
                self.phase = Phase::Draining;
            }
            _ => {}
        }
        Ok(())
    }

    fn window_is_over(&self, since: Instant, now: Instant) -> bool {
        match self.plan.window {
            Window::For(length) => now - since >= length,
            Window::Requests(count) => self.tally.finished >= count,
        }
    }

    fn is_complete(&self) -> bool {
        matches!(self.phase, Phase::Draining)
            && self.tally.finished == self.started
            && self.tally.watchers_are_even()
    }

    fn start_requests(&mut self, now: Instant) -> Result<()> {
        let limit = match (&self.phase, self.plan.window) {
            (Phase::Opening | Phase::Draining, _) => return Ok(()),
            (_, Window::Requests(count)) => count,
            (_, Window::For(_)) => u64::MAX,
        };
        while self.started < limit
            && let Some(slot) = self.tally.idle.pop_front()
        {
            let stamp = self.tally.stamp(now);
            let request = self.workload.next(slot, stamp, &mut self.message);
            let client = &mut self.tally.clients[slot];
            client.sent = now;
            client.expects = request.expects;
            let connection = &mut self.connections[client.connection];
            if client.streaming {
                connection.send_more(slot, &self.message)?;
            } else {
                connection.start(slot, request.kind, request.path, &self.message);
                client.streaming = request.kind == CallKind::Stream;
            }
            self.started += 1;
        }
        Ok(())
    }

    /// How long the poll may sleep without missing the end of a phase.
    fn patience(&self, now: Instant) -> Duration {
        let until = match (&self.phase, self.plan.window) {
            (Phase::Warming { until }, _) => *until,
            (Phase::Measuring { since, .. }, Window::For(length)) => *since + length,
            _ => return LONGEST_POLL,
        };
        until.saturating_duration_since(now).min(LONGEST_POLL)
    }

    fn give_up(&mut self) -> Result<()> {
        let waiting = self.started - self.tally.finished;
        if matches!(self.phase, Phase::Draining) {
            // The window is measured; what is missing is counted.
            self.tally.error(format!("{waiting} answers never came"));
            return Ok(());
        }
        bail!(
            "nothing arrived for {STALL:?}; {waiting} requests of `{}` wait",
            self.workload.operation.name()
        )
    }
}

/// A signal (a stopped and continued process, a debugger) only ends the sleep.
pub(crate) fn poll_through_signals(poll: &mut Poll, events: &mut Events, patience: Duration) -> Result<()> {
    match poll.poll(events, Some(patience)) {
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
        other => other.context("poll"),
    }
}
