//! A serving thread's door to the engine.
//!
//! Proposals leave through a shared queue; everything that comes back for one thread (answers and
//! events) arrives in one message for each batch of the log, so that a batch wakes a thread once.

use crate::Engine;
use crate::answering::Answering;
use crate::consensus::{Proposal, Request};
use crate::mvcc::ReadError;
use crate::readers::{Purpose, Readers, Wanted};
use crate::rows::StoreRows;
use crate::stream::RangeChunks;
use crate::view::View;
use crate::watch::{EventBatch, Registry, WatchSession};
use crate::weigh;
use keygate_core::{KeyspaceId, Operation, Permit, Refusal, Reply, Sealed};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Which port an answer goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PortId(pub(crate) usize);

/// What came of a request.
pub type Answered = Result<Reply<Sealed>, Refusal>;

/// What the applying thread sends to one port after one batch.
pub(crate) struct Delivery {
    pub(crate) answers: Vec<(oneshot::Sender<Answered>, Answered)>,
    pub(crate) events: Option<Arc<EventBatch>>,
}

/// The applying thread's end of a port.
pub(crate) struct Mailbox {
    pub(crate) deliveries: mpsc::UnboundedSender<Delivery>,
    pub(crate) watchers: Arc<AtomicUsize>,
    pub(crate) registry: Arc<Mutex<Registry>>,
}

#[derive(Clone)]
pub struct Port {
    engine: Engine,
    id: PortId,
    watchers: Arc<AtomicUsize>,
    registry: Arc<Mutex<Registry>>,
    readers: Readers,
}

impl Port {
    /// Must be called within the serving thread's runtime: its mailbox is read by a task there.
    pub(crate) fn open(engine: Engine) -> Self {
        let (deliveries, mut inbox) = mpsc::unbounded_channel::<Delivery>();
        let registry = Arc::new(Mutex::new(Registry::new(engine.options().watch_backlog)));
        let watchers = Arc::new(AtomicUsize::new(0));
        let id = engine.add_mailbox(Mailbox {
            deliveries,
            watchers: watchers.clone(),
            registry: registry.clone(),
        });
        let handed = registry.clone();
        tokio::spawn(async move {
            while let Some(delivery) = inbox.recv().await {
                for (asker, answer) in delivery.answers {
                    // An asker that went away is not interested.
                    drop(asker.send(answer));
                }
                if let Some(batch) = delivery.events {
                    handed.lock().hand_out(&batch);
                }
            }
        });
        Self { engine, id, watchers, registry, readers: Readers::new() }
    }

    pub fn view(&self) -> View {
        self.engine.view()
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Reads where a disk may be waited for. Boxed: the future of each request that may have to would be as large.
    pub(crate) fn read_store<T: Send + 'static>(
        &self,
        purpose: Purpose,
        work: impl FnOnce(&StoreRows) -> Result<T, ReadError> + Send + 'static,
    ) -> Pin<Box<impl Future<Output = Result<T, ReadError>>>> {
        let store = self.engine.store().clone();
        let share = self.engine.answers().share();
        // Counted until whoever waits has it: then it is theirs to count.
        let read = move |wanted: Wanted| {
            let rows = StoreRows::while_wanted(store, wanted, share);
            let done = work(&rows);
            (done, rows.into_share())
        };
        Box::pin(async move {
            match self.readers.run(purpose, read).await {
                Some((done, _share)) => done,
                None => Err(ReadError::Refused(Refusal::Stopping)),
            }
        })
    }

    pub(crate) fn progress_interval(&self) -> Duration {
        self.engine.options().progress_interval
    }

    /// For operations that change state. Answers when the change is durable, applied and visible
    /// to every reader. [`Refusal::StalePermit`]: decide again on a fresh view.
    ///
    /// It is sent in the call, but for a txn that must be weighed first.
    pub fn propose(&self, permit: Permit<Sealed>) -> Answering<'_> {
        let is_short = self.engine.check_space(&permit).and_then(|()| weigh::is_short(self, &permit));
        match is_short {
            Ok(true) => self.carry_out(permit),
            Ok(false) => Answering::later(async {
                let permit = weigh::admit(self, permit).await?;
                self.carry_out(permit).await
            }),
            Err(refusal) => Answering::now(Err(refusal)),
        }
    }

    fn carry_out(&self, permit: Permit<Sealed>) -> Answering<'_> {
        let physical = matches!(permit.operation(), Operation::Compact(compact) if compact.physical);
        let id = permit.keyspace();
        match self.send(permit) {
            Ok(answer) if physical => Answering::later(async move {
                let answer = Answering::Proposed(answer).await?;
                self.engine.wait_pruned_of(id).await?;
                Ok(answer)
            }),
            Ok(answer) => Answering::Proposed(answer),
            Err(refusal) => Answering::now(Err(refusal)),
        }
    }

    /// Through the log, whether or not there is space below the quota.
    pub(crate) async fn submit(&self, permit: Permit<Sealed>) -> Answered {
        Answering::Proposed(self.send(permit)?).await
    }

    fn send(&self, permit: Permit<Sealed>) -> Result<oneshot::Receiver<Answered>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let min_lease_ttl = self.engine.options().min_lease_ttl;
        let proposal = Proposal::asked(permit, (self.id, reply), min_lease_ttl)?;
        self.engine.send(Request::Propose(proposal))?;
        Ok(answer)
    }

    /// For every operation with one answer that changes no data. [`Refusal::StalePermit`]: the view
    /// is too old to be read; decide again on a fresh one. Done in the call where it need not wait.
    pub fn read<'a>(&'a self, view: &'a View, permit: Permit<Sealed>) -> Answering<'a> {
        crate::read::read(self, view, permit)
    }

    /// A large range in pieces, all of one revision.
    pub fn range_stream(&self, view: View, permit: Permit<Sealed>, max_chunk_bytes: usize) -> RangeChunks {
        RangeChunks::new(self.clone(), view, permit, max_chunk_bytes)
    }

    pub fn watch_session(&self, keyspace: KeyspaceId) -> WatchSession {
        WatchSession::new(self.clone(), keyspace, self.registry.clone())
    }

    pub(crate) fn count_watcher(&self) {
        self.watchers.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn uncount_watcher(&self) {
        self.watchers.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn explain(&self, error: ReadError) -> Refusal {
        self.engine.explain(error)
    }
}
