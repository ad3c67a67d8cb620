//! What a run has seen so far: who waits for which answer, how long answers took, what was wrong.

use crate::call::Arrival;
use crate::keyspace::Keyspace;
use crate::messages;
use crate::workload::{Expectation, WATCHED_KEY};
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Latencies above two minutes are recorded as two minutes.
const LONGEST: Duration = Duration::from_secs(120);

/// One closed-loop client: at most one request in flight.
pub(crate) struct Client {
    pub(crate) connection: usize,
    pub(crate) sent: Instant,
    pub(crate) expects: Expectation,
    /// The newest revision this client has been told.
    pub(crate) revision: u64,
    /// Its keepalive stream has been opened.
    pub(crate) streaming: bool,
}

/// What one watcher has received since it was created.
#[derive(Clone, Copy, Default)]
struct Watcher {
    created: bool,
    events: u64,
    revision: u64,
}

/// See the module's text. Streams of watchers use the slots behind those of the clients.
pub(crate) struct Tally {
    keys: Keyspace,
    pub(crate) clients: Vec<Client>,
    pub(crate) idle: VecDeque<usize>,
    watchers: Vec<Watcher>,
    watches_created: usize,
    pub(crate) epoch: Instant,
    /// Only what arrives while this is set counts as measured.
    pub(crate) measuring: bool,
    pub(crate) latencies: Histogram<u64>,
    pub(crate) measured: u64,
    pub(crate) finished: u64,
    /// Writes that were acknowledged, each of which every watcher must be told of.
    pub(crate) writes: u64,
    pub(crate) bytes_in: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: String,
}

impl Tally {
    pub(crate) fn new(keys: Keyspace, clients: Vec<Client>, watchers: usize) -> Result<Self> {
        let longest = LONGEST.as_nanos() as u64;
        Ok(Tally {
            keys,
            idle: (0..clients.len()).collect(),
            clients,
            watchers: vec![Watcher::default(); watchers],
            watches_created: 0,
            epoch: Instant::now(),
            measuring: false,
            latencies: Histogram::new_with_bounds(1, longest, 3).context("make a histogram")?,
            measured: 0,
            finished: 0,
            writes: 0,
            bytes_in: 0,
            errors: 0,
            first_error: String::new(),
        })
    }

    pub(crate) fn watches_are_open(&self) -> bool {
        self.watches_created == self.watchers.len()
    }

    /// Every watcher has been told of every acknowledged write.
    pub(crate) fn watchers_are_even(&self) -> bool {
        self.watchers.iter().all(|watcher| watcher.events >= self.writes)
    }

    /// Counts watchers that were told of more or fewer writes than there were.
    pub(crate) fn check_watchers(&mut self) {
        for number in 0..self.watchers.len() {
            let (events, writes) = (self.watchers[number].events, self.writes);
            if events != writes {
                self.error(format!("watcher {number} received {events} events of {writes} writes"));
            }
        }
    }

    pub(crate) fn error(&mut self, message: String) {
        self.errors += 1;
        if self.first_error.is_empty() {
            self.first_error = message;
        }
    }

    /// Nanoseconds since the run began: what watch runs write into their values.
    pub(crate) fn stamp(&self, now: Instant) -> u64 {
        now.duration_since(self.epoch).as_nanos() as u64
    }

    /// Fails when the run cannot go on; a wrong answer alone is counted and the run goes on.
    pub(crate) fn on_arrival(&mut self, arrival: Arrival<'_>, now: Instant) -> Result<()> {
        match arrival {
            Arrival::Message { slot, body } if slot >= self.clients.len() => {
                self.on_watch(slot - self.clients.len(), body, now)
            }
            Arrival::Message { slot, body } => {
                self.on_answer(slot, body, now);
                Ok(())
            }
            Arrival::Answer { slot, status, body } if status.is_ok() => {
                self.on_answer(slot, body, now);
                Ok(())
            }
            Arrival::Answer { slot, status, .. } => {
                self.error(status.to_string());
                self.free(slot);
                Ok(())
            }
            Arrival::Ended { status } => bail!("the server ended a stream: {status}"),
        }
    }

    fn on_answer(&mut self, slot: usize, body: &[u8], now: Instant) {
        let client = &mut self.clients[slot];
        let (expects, sent) = (client.expects, client.sent);
        self.bytes_in += body.len() as u64;
        if let Err(wrong) = expects.check(&self.keys, &mut client.revision, body) {
            self.error(format!("wrong answer: {wrong:#}"));
        }
        if matches!(expects, Expectation::Written | Expectation::Succeeded) {
            self.writes += 1;
        }
        // In watch runs the events are measured, not the writes that cause them.
        if self.measuring && self.watchers.is_empty() {
            self.record(now.duration_since(sent));
        }
        self.free(slot);
    }

    fn on_watch(&mut self, number: usize, body: &[u8], now: Instant) -> Result<()> {
        self.bytes_in += body.len() as u64;
        let mut watcher = self.watchers[number];
        let (mut received, mut wrong) = (0, None);
        let (now_stamp, measuring) = (self.stamp(now), self.measuring);
        let (keys, latencies) = (&self.keys, &mut self.latencies);
        let notice = messages::watch_response(body, |kv| {
            received += 1;
            if kv.mod_revision <= watcher.revision {
                wrong = Some(format!("event of revision {} after {}", kv.mod_revision, watcher.revision));
            }
            watcher.revision = kv.mod_revision;
            match keys.check_value(kv.value, WATCHED_KEY) {
                Ok(stamp) if measuring => latencies.saturating_record(now_stamp.saturating_sub(stamp).max(1)),
                Ok(_) => {}
                Err(error) => wrong = Some(format!("{error:#}")),
            }
            Ok(())
        })?;
        if let Some(reason) = notice.canceled {
            bail!("the server canceled watch {number}: {reason}");
        }
        if notice.created && !watcher.created {
            watcher.created = true;
            self.watches_created += 1;
        }
        if self.measuring {
            self.measured += received;
        }
        watcher.events += received;
        self.watchers[number] = watcher;
        if let Some(wrong) = wrong {
            self.error(format!("wrong event: {wrong}"));
        }
        Ok(())
    }

    fn record(&mut self, latency: Duration) {
        self.latencies.saturating_record((latency.as_nanos() as u64).max(1));
        self.measured += 1;
    }

    fn free(&mut self, slot: usize) {
        self.finished += 1;
        self.idle.push_back(slot);
    }
}
