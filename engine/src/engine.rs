//! The handle that everybody holds: opening, closing, and what is not on the path of a request.

use crate::AnswerRoom;
use crate::clock::{Clock, SystemClock};
use crate::consensus::{Driver, FlushStats, Flusher, Proposal, Reminder, Request, Room, Seams};
use crate::counters::{Counters, DurationHistogram};
use crate::fatal::Fatal;
use crate::identity::Identity;
use crate::lease_clock::LeaseClock;
use crate::mvcc::{ReadError, State};
use crate::options::EngineOptions;
use crate::port::{Mailbox, Port, PortId};
use crate::recovery;
use crate::rows::read_error;
use crate::storage::{DataDir, Disk, RealDisk, StorageError, Store};
use crate::view::{Board, View};
use crate::watch::{Budgets, Registry};
use crossbeam_channel::Sender;
use keygate_core::{
    AlarmAction, AlarmKind, AlarmRequest, Compile, InternalReason, KeyspaceId, Operation, Permit, Refusal,
    Sealed,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, oneshot};

/// Proposals that may wait to be taken into a batch. etcd lets as many wait to be applied.
const MAX_PENDING: u64 = 5_000;
/// The same by the bytes of their log entries. Each is in memory twice: as a command and as the log will have it.
const MAX_PENDING_BYTES: u64 = 128 << 20;

/// Why an engine could not be opened. The text is what an operator reads.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("data directory belongs to another cluster or member: {0}")]
    Foreign(String),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    #[error("data does not fit together: {0}")]
    Inconsistent(String),
}

/// A running engine. Clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    options: EngineOptions,
    identity: Identity,
    board: Arc<Board>,
    store: Arc<Store>,
    leases: Arc<LeaseClock>,
    counters: Arc<Counters>,
    flush_stats: Arc<FlushStats>,
    fatal: Fatal,
    room: Arc<Room>,
    answers: Arc<AnswerRoom>,
    requests: Sender<Request>,
    next_port: AtomicUsize,
    ports: Mutex<Vec<Arc<Mutex<Registry>>>>,
    watch_budgets: Budgets,
    /// Held until shutdown; the lock on the directory goes with it.
    threads: Mutex<Option<(JoinHandle<()>, DataDir)>>,
    space_alarm: AtomicU64,
    /// One digest of the store at a time: whoever asks for another one waits.
    hashing: Arc<Semaphore>,
    /// A store that cannot be read is not told of for each reader.
    unavailable: Mutex<Reminder>,
}

/// How large the store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreSize {
    pub total: u64,
    pub in_use: u64,
}

/// Figures for metrics.
#[derive(Clone, Debug, Default)]
pub struct EngineStats {
    pub proposals_committed: u64,
    pub proposals_applied: u64,
    pub proposals_pending: u64,
    pub proposals_failed: u64,
    pub fsync: DurationHistogram,
    pub store_commit: DurationHistogram,
    pub apply: Vec<crate::ApplyHistogram>,
    pub slow_applies: u64,
    pub size: StoreSize,
    pub keys: u64,
    pub current_revision: i64,
    pub compact_revision: i64,
    pub auth_revision: u64,
    pub watchers: u64,
    pub slow_watchers: u64,
    /// Bytes of events that wait in memory for watch streams.
    pub watch_waiting_bytes: u64,
    /// Watches that were ended for being too slow.
    pub watches_too_slow: u64,
    pub events: u64,
    pub leases_granted: u64,
    pub leases_revoked: u64,
    pub leases_renewed: u64,
    pub leases_expired: u64,
    pub has_leader: bool,
    pub is_leader: bool,
    /// The log cannot be written for want of room: all writes are refused.
    pub log_disk_full: bool,
    /// The store cannot be written for want of room: writes that grow it are refused.
    pub store_disk_full: bool,
}

/// What an engine takes from the world around it: the real things, but in tests.
#[derive(Clone)]
pub struct Surroundings {
    pub clock: Arc<dyn Clock>,
    pub disk: Arc<dyn Disk>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), disk: Arc::new(RealDisk) }
    }
}

impl Engine {
    /// Recovers what the data directory holds, becomes leader and starts serving. Blocks for it.
    pub fn open(options: EngineOptions, compile: Arc<dyn Compile>) -> Result<Self, OpenError> {
        Self::open_with(options, compile, Surroundings::default())
    }

    /// The same in a world of the caller's.
    pub fn open_with(
        options: EngineOptions,
        compile: Arc<dyn Compile>,
        surroundings: Surroundings,
    ) -> Result<Self, OpenError> {
        let Surroundings { clock, disk } = surroundings;
        let recovered = recovery::recover(&options, compile.as_ref(), disk)?;
        let room = Arc::new(Room::default());
        let (requests, inbox) = crossbeam_channel::unbounded();
        let counters = Arc::new(Counters::default());
        let flush_stats = Arc::new(FlushStats::default());
        if let Ok(size) = recovered.store.file_size() {
            flush_stats.store_bytes.store(size, Ordering::Relaxed);
        }
        let leases = Arc::new(LeaseClock::new(clock.clone()));
        let fatal = Fatal::new();
        let board =
            Arc::new(Board::new(View::new(recovered.state.clone(), crate::view::Position::default())));
        let flusher = Flusher::start(
            recovered.store.clone(),
            requests.clone(),
            counters.clone(),
            flush_stats.clone(),
            room.clone(),
            &fatal,
        )
        .map_err(OpenError::Thread)?;
        let seams = Seams {
            options: options.clone(),
            compile,
            clock,
            leases: leases.clone(),
            store: recovered.store.clone(),
            board: board.clone(),
            counters: counters.clone(),
            fatal: fatal.clone(),
            room: room.clone(),
        };
        let mut driver =
            Driver::new(seams, recovered.node, inbox, flusher, recovered.state, recovered.applied);
        driver.recover()?;
        // Without it, readers would be answered for ever from the last view, by a server that looks healthy.
        let guard = fatal.guard("consensus");
        let consensus = std::thread::Builder::new()
            .name("consensus".to_owned())
            .spawn(move || {
                let guard = guard;
                driver.run();
                guard.ended();
            })
            .map_err(OpenError::Thread)?;
        let watch_budgets = Budgets::new(options.watch_memory);
        let answers = AnswerRoom::new(options.answer_bytes);
        Ok(Self(Arc::new(Inner {
            options,
            identity: recovered.identity,
            board,
            store: recovered.store,
            leases,
            counters,
            flush_stats,
            fatal,
            room,
            answers,
            requests,
            next_port: AtomicUsize::new(0),
            ports: Mutex::new(Vec::new()),
            watch_budgets,
            threads: Mutex::new(Some((consensus, recovered.directory))),
            space_alarm: AtomicU64::new(0),
            hashing: Arc::new(Semaphore::new(1)),
            unavailable: Mutex::default(),
        })))
    }

    /// A serving thread's door. Call it within that thread's runtime.
    pub fn port(&self) -> Port {
        Port::open(self.clone())
    }

    pub fn view(&self) -> View {
        self.0.board.load()
    }

    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    pub fn options(&self) -> &EngineOptions {
        &self.0.options
    }

    /// What reads and answers share.
    pub fn answers(&self) -> &Arc<AnswerRoom> {
        &self.0.answers
    }

    /// Resolves with the cause when the engine cannot go on: the process must end.
    pub async fn fatal(&self) -> String {
        self.0.fatal.raised().await
    }

    /// Stops taking proposals, writes everything to the store and lets go of the data directory.
    pub fn shutdown(&self) {
        self.0.room.stop();
        // It may have ended by itself.
        drop(self.0.requests.send(Request::Stop));
        if let Some((consensus, directory)) = self.0.threads.lock().take() {
            // A panic there was reported by the panic hook.
            drop(consensus.join());
            self.0.store.close();
            drop(directory);
        }
    }

    pub fn size(&self) -> StoreSize {
        let total =
            self.0.flush_stats.store_bytes.load(Ordering::Relaxed) + self.0.flush_stats.unflushed_bytes();
        let view = self.view();
        let in_use: u64 = view.keyspaces().map(|keyspace| keyspace.current_bytes()).sum();
        StoreSize { total, in_use: in_use.min(total) }
    }

    pub fn stats(&self) -> EngineStats {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let view = self.view();
        let default = view.keyspace(KeyspaceId::DEFAULT);
        let (mut watchers, mut slow, mut too_slow) = (0, 0, 0);
        for registry in self.0.ports.lock().iter() {
            let registry = registry.lock();
            watchers += registry.len() as u64;
            slow += registry.behind() as u64;
            too_slow += registry.too_slow;
        }
        let committed = read(&counters.committed);
        let applied = read(&counters.applied);
        EngineStats {
            proposals_committed: committed,
            proposals_applied: applied,
            proposals_pending: read(&counters.pending),
            proposals_failed: read(&counters.proposals_failed),
            fsync: counters.fsync.read(),
            store_commit: counters.commit.read(),
            apply: counters.apply.read(),
            slow_applies: counters.apply.slow(),
            size: self.size(),
            keys: default.map_or(0, |keyspace| keyspace.key_count()),
            current_revision: default.map_or(0, |keyspace| keyspace.revision()),
            compact_revision: default.map_or(0, |keyspace| keyspace.compact_revision()),
            auth_revision: default.map_or(0, |keyspace| keyspace.auth().revision),
            watchers,
            slow_watchers: slow,
            watch_waiting_bytes: self.0.watch_budgets.used(),
            watches_too_slow: too_slow,
            events: read(&counters.events),
            leases_granted: read(&counters.leases_granted),
            leases_revoked: read(&counters.leases_revoked),
            leases_renewed: self.0.leases.renewed(),
            leases_expired: read(&counters.leases_expired),
            has_leader: view.leader() != 0,
            is_leader: view.leader() == self.0.identity.member_id,
            log_disk_full: self.0.room.log_is_full(),
            store_disk_full: self.0.room.store_is_full(),
        }
    }

    pub(crate) fn add_mailbox(&self, mailbox: Mailbox) -> PortId {
        let id = PortId(self.0.next_port.fetch_add(1, Ordering::Relaxed));
        self.0.ports.lock().push(mailbox.registry.clone());
        // After a stop nobody delivers to it, and its proposals are refused.
        drop(self.0.requests.send(Request::AddMailbox(id, mailbox)));
        id
    }

    pub(crate) fn watch_budgets(&self) -> &Budgets {
        &self.0.watch_budgets
    }

    pub(crate) fn registries(&self) -> Vec<Arc<Mutex<Registry>>> {
        self.0.ports.lock().clone()
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    pub(crate) fn leases(&self) -> &LeaseClock {
        &self.0.leases
    }

    pub(crate) fn committed_index(&self) -> u64 {
        self.0.counters.committed.load(Ordering::Relaxed)
    }

    pub(crate) fn send(&self, request: Request) -> Result<(), Refusal> {
        if let Request::Propose(proposal) = &request
            && proposal.from.is_some()
        {
            let counters = &self.0.counters;
            let size = proposal.data.len() as u64;
            let pending = counters.pending.fetch_add(1, Ordering::Relaxed);
            let bytes = counters.pending_bytes.fetch_add(size, Ordering::Relaxed);
            if pending >= MAX_PENDING || (pending > 0 && bytes + size > MAX_PENDING_BYTES) {
                counters.pending.fetch_sub(1, Ordering::Relaxed);
                counters.pending_bytes.fetch_sub(size, Ordering::Relaxed);
                return Err(Refusal::TooManyRequests);
            }
        }
        self.0.requests.send(request).map_err(|_| Refusal::Stopping)
    }

    /// Is there room for this write, on the disk and below etcd's space quota? One that would grow the store beyond
    /// its quota raises the alarm instead.
    pub(crate) fn check_space(&self, permit: &Permit<Sealed>) -> Result<(), Refusal> {
        let growth = permit.operation().cost().growth;
        if self.0.room.log_is_full() || (growth > 0 && self.0.room.store_is_full()) {
            return Err(Refusal::NoSpace);
        }
        if self.0.room.apply_waits() {
            return Err(Refusal::StoreUnavailable);
        }
        let Some(quota) = self.0.options.quota_bytes else { return Ok(()) };
        if growth == 0 || self.size().total.saturating_add(growth) < quota {
            return Ok(());
        }
        self.raise_space_alarm();
        Err(Refusal::NoSpace)
    }

    /// The store is everybody's, so its alarm is the platform's, and lies on all keyspaces.
    fn raise_space_alarm(&self) {
        let keyspace = KeyspaceId::DEFAULT;
        let view = self.view();
        // Once for each view in which it is not yet raised: a storm of refused writes is no storm of proposals.
        let at = view.applied_index();
        if self.0.space_alarm.swap(at, Ordering::Relaxed) == at {
            return;
        }
        let raised = view
            .keyspace(keyspace)
            .is_some_and(|keyspace| keyspace.alarms().iter().any(|alarm| alarm.alarm == AlarmKind::NoSpace));
        if raised {
            return;
        }
        tracing::error!(
            size = self.size().total,
            quota = self.0.options.quota_bytes,
            "space quota exceeded; raising alarm NOSPACE"
        );
        let alarm = AlarmRequest {
            action: AlarmAction::Activate,
            member: self.0.identity.member_id,
            alarm: AlarmKind::NoSpace,
        };
        let permit = Permit::internal(InternalReason::SpaceAlarm, keyspace, Operation::Alarm(alarm));
        // While stopping there is nobody left to warn.
        drop(Proposal::unasked(permit).and_then(|proposal| self.send(Request::Propose(proposal))));
    }

    /// Turns a failed read into what the caller may know, and tells the operator the rest.
    pub(crate) fn explain(&self, error: ReadError) -> Refusal {
        match error {
            ReadError::Refused(refusal) => refusal,
            ReadError::NeedsStore => Refusal::Internal { cause: "a read of memory asked for the store" },
            // A compaction was faster than a reader that asked for no revision: it gets a newer view,
            // and its caller is decided on that one.
            ReadError::Outdated => Refusal::StalePermit,
            ReadError::Unavailable(what) => {
                if self.0.unavailable.lock().is_due() {
                    tracing::error!(%what, "the store cannot be read, and reads of what only it holds are refused; look after the disk, and they go on by themselves");
                }
                Refusal::StoreUnavailable
            }
            ReadError::Corrupt(what) => {
                tracing::error!(%what, "a row of the store cannot be served");
                Refusal::Corrupt
            }
            ReadError::Abandoned => Refusal::Internal { cause: "a read that was waited for was abandoned" },
        }
    }

    /// Rewrites the store without its holes. Reads from it wait, memory and log go on.
    pub(crate) async fn defragment(&self) -> Result<(), Refusal> {
        let store = self.0.store.clone();
        let stats = self.0.flush_stats.clone();
        let done = tokio::task::spawn_blocking(move || {
            store.defragment()?;
            stats.store_bytes.store(store.file_size()?, Ordering::Relaxed);
            Ok::<(), StorageError>(())
        })
        .await;
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "defragmentation failed");
                Err(Refusal::Internal { cause: "defragmentation failed" })
            }
            Err(_) => Err(Refusal::Stopping),
        }
    }

    /// Returns when everything that is applied now is in the store.
    pub(crate) async fn wait_flushed(&self) -> Result<(), Refusal> {
        let (waiter, done) = oneshot::channel();
        self.send(Request::WaitFlushed(waiter))?;
        done.await.map_err(|_| Refusal::Stopping)
    }

    /// Returns when the last compaction of the default keyspace has removed what it superseded.
    pub async fn wait_pruned(&self) -> Result<(), Refusal> {
        self.wait_pruned_of(KeyspaceId::DEFAULT).await
    }

    pub(crate) async fn wait_pruned_of(&self, keyspace: KeyspaceId) -> Result<(), Refusal> {
        let (waiter, done) = oneshot::channel();
        self.send(Request::WaitPruned(keyspace, waiter))?;
        done.await.map_err(|_| Refusal::Stopping)?;
        self.wait_flushed().await
    }

    /// A digest of everything in the store.
    pub(crate) async fn hash(&self) -> Result<u32, Refusal> {
        // Held by the work, which goes on when whoever asked has left.
        let turn = self.0.hashing.clone().acquire_owned().await.map_err(|_| Refusal::Stopping)?;
        self.wait_flushed().await?;
        let store = self.0.store.clone();
        let hashed = crate::background::run("hash", move || {
            let _turn = turn;
            let mut crc = 0;
            let mut add = |key: &[u8], value: &[u8]| {
                crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
            };
            let mut row_bytes = Vec::new();
            store.for_each_meta(&mut add)?;
            store.load(
                |key, row| {
                    row_bytes.clear();
                    row_bytes.extend_from_slice(&key.keyspace.to_be_bytes());
                    row_bytes.extend_from_slice(&key.main.to_be_bytes());
                    row_bytes.extend_from_slice(&key.sub.to_be_bytes());
                    add(&row_bytes, row);
                },
                |_, _| {},
            )?;
            Ok::<u32, StorageError>(crc)
        })
        .await;
        match hashed {
            Ok(Ok(hash)) => Ok(hash),
            Ok(Err(error)) => Err(self.explain(read_error(error))),
            Err(_) => Err(Refusal::Stopping),
        }
    }
}

/// Built by recovery, taken apart by [`Engine::open_with`].
pub(crate) struct Recovered {
    pub(crate) directory: DataDir,
    pub(crate) store: Arc<Store>,
    pub(crate) node: raft::RawNode<crate::storage::RaftLog>,
    pub(crate) state: State,
    pub(crate) applied: crate::storage::Applied,
    pub(crate) identity: Identity,
}
