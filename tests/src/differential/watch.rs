//! Watch streams of one side: what was asked, and everything that came, in order.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result};
use keygate_proto::{
    etcdserverpb::{
        WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
        watch_request::RequestUnion,
    },
    mvccpb::Event,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::harness::Client;

/// A server that has not answered by then never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// Streams by number; a closed one leaves a hole.
pub(super) struct Streams {
    open: Vec<Option<Stream>>,
    swallow_events: bool,
}

pub(super) struct Stream {
    requests: mpsc::UnboundedSender<WatchRequest>,
    shared: Arc<Shared>,
    reader: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    log: Mutex<Log>,
    changed: Notify,
}

/// What arrived on one stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Log {
    /// Answers to creates and cancels, in order.
    pub(super) control: Vec<Control>,
    /// By watch id. How a server batches revisions is its own affair; order is not.
    pub(super) watchers: BTreeMap<i64, Vec<Item>>,
    /// Of the newest answer to a progress request.
    pub(super) progress: i64,
    /// Code and text of the status that ended the stream.
    pub(super) ended: Option<String>,
    /// Broken promises that one side can break alone, such as a revision split over responses.
    pub(super) broken: Vec<String>,
    /// A piece of a revision arrived and the rest is still to come.
    in_fragment: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Control {
    Created { watch_id: i64, revision: i64 },
    Refused { watch_id: i64, reason: String, compact_revision: i64, created: bool },
    Canceled { watch_id: i64, revision: i64 },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Event(Box<Event>),
    /// The watcher asked for what is compacted, or lost its permission.
    Canceled {
        compact_revision: i64,
        revision: i64,
        reason: String,
    },
}

impl Streams {
    pub(super) fn new(swallow_events: bool) -> Streams {
        Streams { open: Vec::new(), swallow_events }
    }

    pub(super) async fn open(&mut self, client: &Client, first: WatchRequest) -> Result<usize> {
        self.open.push(Some(Stream::open(client, first, self.swallow_events).await?));
        Ok(self.open.len() - 1)
    }

    pub(super) fn get(&self, stream: usize) -> Option<&Stream> {
        self.open.get(stream)?.as_ref()
    }

    pub(super) fn close(&mut self, stream: usize) {
        if let Some(slot) = self.open.get_mut(stream) {
            *slot = None;
        }
    }
}

impl Stream {
    /// Some servers answer the call's headers only with the first message, so one is sent along.
    async fn open(client: &Client, first: WatchRequest, swallow_events: bool) -> Result<Stream> {
        let (requests, receiver) = mpsc::unbounded_channel();
        requests.send(first)?;
        let shared = Arc::new(Shared::default());
        let (client, state) = (client.clone(), Arc::clone(&shared));
        let reader = tokio::spawn(async move {
            let mut events_seen = 0_usize;
            let ended = match client.watch().watch(UnboundedReceiverStream::new(receiver)).await {
                Err(status) => format!("{:?}: {}", status.code(), status.message()),
                Ok(answer) => {
                    let mut answers = answer.into_inner();
                    loop {
                        match answers.message().await {
                            Ok(Some(mut response)) => {
                                let swallow = |_: &Event| {
                                    events_seen += 1;
                                    !(swallow_events && events_seen.is_multiple_of(100))
                                };
                                response.events.retain(swallow);
                                state.log.lock().expect("no reader panics").record(response);
                                state.changed.notify_waiters();
                            }
                            Ok(None) => break "ended by the server".to_owned(),
                            Err(status) => break format!("{:?}: {}", status.code(), status.message()),
                        }
                    }
                }
            };
            state.log.lock().expect("no reader panics").ended = Some(ended);
            state.changed.notify_waiters();
        });
        Ok(Stream { requests, shared, reader })
    }

    pub(super) fn send(&self, request: WatchRequest) {
        // A stream that has ended says so in its log.
        self.requests.send(request).ok();
    }

    pub(super) fn log(&self) -> Log {
        self.shared.log.lock().expect("no reader panics").clone()
    }

    /// What arrived since the last take.
    pub(super) fn take(&self) -> Log {
        let mut log = self.shared.log.lock().expect("no reader panics");
        let taken = log.clone();
        log.watchers.values_mut().for_each(Vec::clear);
        log.control.clear();
        log.broken.clear();
        taken
    }

    /// Waits until `done` or the stream has ended.
    pub(super) async fn until(&self, done: impl Fn(&Log) -> bool + Send + Sync) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.wait(deadline, &done).await.context("a watch stream stays silent")
    }

    /// Asks for progress until every watcher has caught up with `revision`.
    pub(super) async fn caught_up(&self, revision: i64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.send(progress());
            // A server drops the request while a watcher lags behind: ask again.
            let again = Instant::now() + Duration::from_millis(20);
            if self.wait(again, &|log| log.progress >= revision).await.is_ok() {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "no progress to revision {revision}: {:?}",
                self.log().progress
            );
        }
    }

    async fn wait(&self, deadline: Instant, done: &(impl Fn(&Log) -> bool + Sync)) -> Result<()> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let log = self.shared.log.lock().expect("no reader panics");
                if log.ended.is_some() || done(&log) {
                    return Ok(());
                }
            }
            timeout_at(deadline, changed).await?;
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Log {
    fn record(&mut self, response: WatchResponse) {
        let watch_id = response.watch_id;
        let revision = response.header.map_or(0, |header| header.revision);
        if response.created && !response.canceled {
            self.control.push(Control::Created { watch_id, revision });
            self.watchers.entry(watch_id).or_default();
        } else if response.canceled && (response.created || watch_id == -1) {
            let WatchResponse { cancel_reason: reason, compact_revision, created, .. } = response;
            self.control.push(Control::Refused { watch_id, reason, compact_revision, created });
        } else if response.canceled && (response.compact_revision != 0 || !response.cancel_reason.is_empty())
        {
            let WatchResponse { cancel_reason: reason, compact_revision, .. } = response;
            self.watchers.entry(watch_id).or_default().push(Item::Canceled {
                compact_revision,
                revision,
                reason,
            });
        } else if response.canceled {
            self.control.push(Control::Canceled { watch_id, revision });
        } else if response.events.is_empty() {
            if watch_id == -1 {
                self.progress = revision;
            }
        } else {
            self.events(watch_id, revision, response.fragment, response.events);
        }
    }

    fn events(&mut self, watch_id: i64, header: i64, fragment: bool, events: Vec<Event>) {
        let seen = self.watchers.entry(watch_id).or_default();
        let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let (first, last) = (events.first().map_or(0, revision), events.last().map_or(0, revision));
        let before = seen.iter().rev().find_map(|item| match item {
            Item::Event(event) => Some(revision(event)),
            Item::Canceled { .. } => None,
        });
        if before == Some(first) && !self.in_fragment {
            self.broken.push(format!("watch {watch_id}: revision {first} came in two responses"));
        }
        if header < last {
            self.broken.push(format!("watch {watch_id}: header {header} is below its event at {last}"));
        }
        self.in_fragment = fragment;
        seen.extend(events.into_iter().map(|event| Item::Event(Box::new(event))));
    }
}

pub(super) fn create(request: WatchCreateRequest) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
}

pub(super) fn cancel(watch_id: i64) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })) }
}

fn progress() -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) }
}
