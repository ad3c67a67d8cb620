//! The loop of the consensus thread.

use super::flush::Flusher;
use super::full_disk::Room;
use super::housekeeping::Housekeeping;
use super::{Proposal, Request};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::fatal::Fatal;
use crate::lease_clock::LeaseClock;
use crate::mvcc::{Command, Effects, State};
use crate::options::EngineOptions;
use crate::port::{Answered, Mailbox, PortId};
use crate::storage::{Applied, RaftLog, StorageError, Store};
use crate::view::Board;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use keygate_core::{Compile, KeyspaceId, Operation, Refusal};
use raft::{RawNode, StateRole};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;

mod applying;
mod publishing;

/// Requests taken into one batch: enough to share a sync among a thousand clients, few enough that
/// the first of them does not wait long.
const BATCH: usize = 2_048;
/// Bytes of log entries with which a batch is full. The log takes one batch in one write, which has to fit its own
/// bound of 2 GiB, and answers nobody before it is synced.
const BATCH_BYTES: usize = 32 << 20;
/// Bytes written to the log but not yet to the store at which proposals wait. They are in memory.
const UNFLUSHED_BYTES: u64 = 256 << 20;
/// Keys that compaction visits between two batches.
const PRUNE_KEYS: usize = 2_000;

/// What a driver is built from: all that a test may want to replace.
pub(crate) struct Seams {
    pub(crate) options: EngineOptions,
    pub(crate) compile: Arc<dyn Compile>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leases: Arc<LeaseClock>,
    pub(crate) store: Arc<Store>,
    pub(crate) board: Arc<Board>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) fatal: Fatal,
    pub(crate) room: Arc<Room>,
}

pub(crate) struct Driver {
    pub(super) seams: Seams,
    node: RawNode<RaftLog>,
    pub(super) requests: Receiver<Request>,
    flusher: Flusher,
    state: State,
    applied: Applied,
    /// Proposed here and not yet applied, in order of their index.
    pending: VecDeque<Pending>,
    ports: Vec<Option<Mailbox>>,
    outgoing: Vec<Vec<(oneshot::Sender<Answered>, Answered)>>,
    effects: Effects,
    /// How many batches the flusher was handed, and how many of them it has committed.
    handed: u64,
    flushed: u64,
    /// The policy of the last view that was published.
    published_policy: u64,
    /// Up to where the log was shortened since start.
    log_cut: u64,
    waiting_for_flush: Vec<(u64, oneshot::Sender<()>)>,
    waiting_for_prune: Vec<(KeyspaceId, oneshot::Sender<()>)>,
    /// Set while compaction has work left.
    pruning: bool,
    pub(super) housekeeping: Housekeeping,
    last_tick: Instant,
    /// Recovery is over.
    pub(super) serving: bool,
    /// The loop ends because somebody wants it to, even where it says that it failed.
    pub(super) asked_to_stop: bool,
    /// The state and the effects may hold half a command: neither may be shown or written.
    half_applied: bool,
}

struct Pending {
    index: u64,
    term: u64,
    command: Command,
    from: Option<(PortId, oneshot::Sender<Answered>)>,
}

/// Why the loop ended.
pub(crate) enum End {
    Asked,
    Failed,
}

impl Driver {
    pub(crate) fn new(
        seams: Seams,
        node: RawNode<RaftLog>,
        requests: Receiver<Request>,
        flusher: Flusher,
        state: State,
        applied: Applied,
    ) -> Self {
        let last_tick = seams.clock.now();
        let published_policy = state.platform_policy().revision;
        let housekeeping = Housekeeping::new(&seams.options, last_tick);
        Self {
            seams,
            node,
            requests,
            flusher,
            state,
            applied,
            pending: VecDeque::new(),
            ports: Vec::new(),
            outgoing: Vec::new(),
            effects: Effects::default(),
            handed: 0,
            flushed: 0,
            published_policy,
            log_cut: 0,
            waiting_for_flush: Vec::new(),
            waiting_for_prune: Vec::new(),
            // A compaction may have been interrupted by the last stop.
            pruning: true,
            housekeeping,
            last_tick,
            serving: false,
            asked_to_stop: false,
            half_applied: false,
        }
    }

    /// Becomes leader and applies what the log holds beyond the store. Afterwards the newest view is
    /// current and writes can be served.
    pub(crate) fn recover(&mut self) -> Result<(), StorageError> {
        // A single voter waits for nobody's vote; without this it would wait for an election timeout.
        if let Err(error) = self.node.campaign() {
            tracing::warn!(%error, "campaign at start was refused; waiting for the election timeout");
        }
        loop {
            self.process_ready()?;
            if self.is_ready_to_serve() {
                self.restart_leases();
                self.publish(Vec::new());
                self.serving = true;
                return Ok(());
            }
            self.node.tick();
        }
    }

    fn is_ready_to_serve(&self) -> bool {
        // The leader's first entry of its own term must be applied: everything before it then is.
        self.node.raft.state == StateRole::Leader
            && self.node.raft.raft_log.applied >= self.node.raft.raft_log.committed
            && self.node.raft.raft_log.committed >= self.node.raft.raft_log.last_index()
    }

    /// Every lease that exists gets the time it was last known to have.
    fn restart_leases(&mut self) {
        for keyspace in self.state.keyspaces() {
            for (lease, held) in keyspace.leases() {
                let remaining = if held.remaining > 0 { held.remaining } else { held.ttl };
                self.seams.leases.start(keyspace.id(), lease, held.ttl, remaining);
            }
        }
    }

    /// Runs until asked to stop or until the disk fails.
    pub(crate) fn run(mut self) -> End {
        let end = match self.serve() {
            Ok(()) => End::Asked,
            Err(error) if self.asked_to_stop => {
                tracing::warn!(%error, "stopping without the last writes, which nobody was told to have succeeded");
                End::Asked
            }
            Err(error) => {
                tracing::error!(%error, "the engine cannot go on");
                self.seams.fatal.raise(error.to_string());
                End::Failed
            }
        };
        if matches!(end, End::Asked) {
            self.stop_cleanly();
        }
        end
    }

    fn serve(&mut self) -> Result<(), StorageError> {
        loop {
            if !self.take_requests()? {
                return Ok(());
            }
            self.process_ready()?;
            self.tick_if_due();
            self.tidy();
        }
    }

    /// Waits for work, then takes all that is there. False: asked to stop.
    fn take_requests(&mut self) -> Result<bool, StorageError> {
        let wait = if self.pruning && !self.lags() {
            std::time::Duration::ZERO
        } else {
            (self.last_tick + self.seams.options.heartbeat).saturating_duration_since(self.seams.clock.now())
        };
        let mut next = match self.requests.recv_timeout(wait) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        };
        let (mut taken, mut bytes) = (0, 0);
        while let Some(request) = next {
            if let Request::Propose(proposal) = &request {
                bytes += proposal.data.len();
            }
            if !self.handle(request)? {
                return Ok(false);
            }
            taken += 1;
            if taken == BATCH || bytes >= BATCH_BYTES {
                break;
            }
            next = self.requests.try_recv().ok();
        }
        // Memory is bounded: when the store lags too far behind, only its own progress is heard.
        // A store whose disk is full or does not answer makes none; proposals are refused then.
        while self.lags() && !self.seams.room.store_is_full() && !self.seams.room.store_is_away() {
            match self.flusher.wait_for_progress() {
                Ok(flushed) => self.heard_of_flush(flushed)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let what = "the store's thread has ended".to_owned();
                    return Err(StorageError::Fatal { path: self.seams.options.data_dir.clone(), what });
                }
            }
        }
        Ok(true)
    }

    fn lags(&self) -> bool {
        self.flusher.unflushed_bytes() > UNFLUSHED_BYTES
    }

    pub(super) fn handle(&mut self, request: Request) -> Result<bool, StorageError> {
        match request {
            Request::Propose(proposal) => self.propose(proposal),
            Request::AddMailbox(id, mailbox) => {
                if self.ports.len() <= id.0 {
                    self.ports.resize_with(id.0 + 1, || None);
                    self.outgoing.resize_with(id.0 + 1, Vec::new);
                }
                self.ports[id.0] = Some(mailbox);
            }
            Request::Flushed(flushed) => {
                // The same was told where a lagging thread listens; nobody listens there now.
                self.flusher.forget_progress();
                self.heard_of_flush(flushed)?;
            }
            Request::WaitFlushed(waiter) => {
                self.flusher.hurry();
                self.waiting_for_flush.push((self.handed, waiter));
                self.answer_flush_waiters();
            }
            Request::WaitPruned(keyspace, waiter) => {
                self.waiting_for_prune.push((keyspace, waiter));
                self.answer_prune_waiters();
            }
            Request::StoreFailed(text) => {
                return Err(StorageError::Fatal { path: self.seams.options.data_dir.clone(), what: text });
            }
            Request::Stop => return Ok(false),
        }
        Ok(true)
    }

    fn propose(&mut self, proposal: Proposal) {
        let Proposal { command, data, from } = proposal;
        if from.is_some() {
            self.seams.counters.pending.fetch_sub(1, Ordering::Relaxed);
            self.seams.counters.pending_bytes.fetch_sub(data.len() as u64, Ordering::Relaxed);
            if self.seams.room.log_is_full() || (self.seams.room.store_is_full() && self.lags()) {
                return self.refuse(&command, from, Refusal::NoSpace);
            }
            if self.seams.room.store_is_away() && self.lags() {
                return self.refuse(&command, from, Refusal::StoreUnavailable);
            }
        }
        match self.node.propose(Vec::new(), data) {
            Ok(()) => {
                let raft = &self.node.raft;
                self.pending.push_back(Pending {
                    index: raft.raft_log.last_index(),
                    term: raft.term,
                    command,
                    from,
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a proposal was dropped");
                self.refuse(&command, from, Refusal::NoLeader);
            }
        }
    }

    /// Answers a proposal that does not become a log entry.
    fn refuse(
        &mut self,
        command: &Command,
        from: Option<(PortId, oneshot::Sender<Answered>)>,
        refusal: Refusal,
    ) {
        self.seams.counters.proposals_failed.fetch_add(1, Ordering::Relaxed);
        if let Operation::LeaseExpire(leases) = &command.operation {
            self.seams.leases.release(command.keyspace, leases);
        }
        if let Some((port, asker)) = from {
            self.outgoing[port.0].push((asker, Err(refusal)));
        }
    }

    /// Persist, then apply: nothing is applied, published or answered that is not on disk.
    fn process_ready(&mut self) -> Result<(), StorageError> {
        let mut events = Vec::new();
        let mut worked = false;
        while self.node.has_ready() {
            worked = true;
            let mut ready = self.node.ready();
            self.apply(ready.take_committed_entries(), &mut events)?;
            let entries = ready.take_entries();
            let must_sync = ready.must_sync();
            let started = self.seams.clock.now();
            if !self.effects.changes.is_empty() {
                // It need not wait for what comes after it, least of all when that waits for room on the disk.
                self.finish_batch(std::mem::take(&mut events));
            }
            self.append_to_log(&entries, ready.hs(), must_sync)?;
            if must_sync {
                let took = self.seams.clock.now().saturating_duration_since(started);
                self.seams.counters.fsync.record(took);
            }
            let mut light = self.node.advance(ready);
            if let Some(commit) = light.commit_index() {
                self.seams.counters.committed.store(commit, Ordering::Relaxed);
            }
            self.apply(light.take_committed_entries(), &mut events)?;
            self.node.advance_apply();
        }
        if worked {
            self.finish_batch(events);
        }
        Ok(())
    }

    pub(super) fn log(&mut self) -> &mut RaftLog {
        self.node.mut_store()
    }

    fn tick_if_due(&mut self) {
        let now = self.seams.clock.now();
        if now.saturating_duration_since(self.last_tick) < self.seams.options.heartbeat {
            return;
        }
        self.last_tick = now;
        self.node.tick();
        for proposal in self.due_work(now) {
            self.propose(proposal);
        }
    }

    /// One bounded step of compaction, when there is some left.
    fn tidy(&mut self) {
        // What a store that lags has not taken yet is in memory.
        if !self.pruning || self.lags() {
            return;
        }
        self.pruning = self.state.prune_step(PRUNE_KEYS, &mut self.effects);
        if !self.effects.changes.is_empty() {
            self.hand_to_flusher();
        }
        if !self.pruning {
            self.publish(Vec::new());
        }
        self.answer_prune_waiters();
    }

    fn answer_prune_waiters(&mut self) {
        let state = &self.state;
        let (waiting, done) = std::mem::take(&mut self.waiting_for_prune)
            .into_iter()
            .partition(|(keyspace, _)| state.is_pruning(*keyspace));
        self.waiting_for_prune = waiting;
        for (_, waiter) in done {
            // Nobody waits for an answer any more if this fails.
            waiter.send(()).ok();
        }
    }

    /// Everything applied reaches the store, the log says that it was closed.
    fn stop_cleanly(mut self) {
        if !self.half_applied {
            self.hand_to_flusher();
        }
        if let Err(error) = self.flusher.finish() {
            tracing::error!(%error, "the store was not written at stop; the log will be replayed at start");
        }
        if let Err(error) = self.node.raft.r.raft_log.store.close() {
            tracing::error!(%error, "the log was not closed; the next start verifies it as after a crash");
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }
}
