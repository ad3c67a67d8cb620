//! Reads that leave the serving thread: those that need the store, and those that walk far.
//!
//! Each port has a few slots for them, given in the order of asking. A slot belongs to the work, not to who waits for
//! it: when that one goes away, the slot is free once the work has really ended. The work is told, and soon ends. So
//! however many reads are begun and abandoned, no more run than there are slots, and none of them waits in a queue
//! that has no end: who has no slot yet has begun nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

/// As many as a serving thread has threads that may wait for a disk.
const SLOTS: usize = 4;
/// Watchers that catch up must not keep those who wait for an answer from all of them.
const HISTORY_SLOTS: usize = 2;

/// What a read is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    Answer,
    /// A watcher that is behind.
    History,
}

/// Does anybody still wait for the answer?
#[derive(Clone, Debug)]
pub(crate) struct Wanted(Arc<AtomicBool>);

/// Held by who waits.
struct Waiting(Wanted);

#[derive(Clone)]
pub(crate) struct Readers {
    slots: Arc<Semaphore>,
    history: Arc<Semaphore>,
}

impl Wanted {
    pub(crate) fn now(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl Readers {
    pub(crate) fn new() -> Self {
        Self { slots: Arc::new(Semaphore::new(SLOTS)), history: Arc::new(Semaphore::new(HISTORY_SLOTS)) }
    }

    /// Runs `work` on a thread that may block. None: the server stops.
    ///
    /// Contract: `work` looks at [`Wanted`] now and then, and ends early when it is not.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        purpose: Purpose,
        work: impl FnOnce(Wanted) -> T + Send + 'static,
    ) -> Option<T> {
        let slots = match purpose {
            Purpose::Answer => [None, Some(slot(&self.slots).await?)],
            Purpose::History => {
                let history = slot(&self.history).await?;
                [Some(history), Some(slot(&self.slots).await?)]
            }
        };
        let wanted = Wanted(Arc::new(AtomicBool::new(true)));
        let waiting = Waiting(wanted.clone());
        let done = spawn_blocking(move || {
            let done = work(wanted);
            drop(slots);
            done
        })
        .await;
        drop(waiting);
        done.ok()
    }
}

/// None never happens: nobody closes them.
async fn slot(of: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    of.clone().acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;
    use tokio::time::timeout;

    /// Longer than any of it may take.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Begins a read and abandons it as soon as it runs.
    async fn abandon<T: Send + 'static>(
        readers: &Readers,
        purpose: Purpose,
        work: impl FnOnce(Wanted) -> T + Send + 'static,
    ) {
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let read = readers.run(purpose, move |wanted| {
            begun.send(()).unwrap();
            work(wanted)
        });
        tokio::select! {
            biased;
            _ = begins.recv() => {}
            _ = read => panic!("it ended before it was abandoned"),
        }
    }

    fn until_unwanted(wanted: Wanted) {
        while wanted.now() {
            std::thread::yield_now();
        }
    }

    /// Reads whose clients had gone kept all threads busy for minutes.
    #[tokio::test]
    async fn an_abandoned_read_is_told_and_its_slot_comes_back() {
        let readers = Readers::new();
        for purpose in [Purpose::Answer, Purpose::History] {
            for _ in 0..SLOTS * 5 {
                timeout(PATIENCE, abandon(&readers, purpose, until_unwanted))
                    .await
                    .expect("a slot comes back");
            }
        }
        assert_eq!(timeout(PATIENCE, readers.run(Purpose::Answer, |_| 7)).await.unwrap(), Some(7));
    }

    #[tokio::test]
    async fn a_read_keeps_its_slot_until_it_has_really_ended() {
        let readers = Readers::new();
        let mut held = Vec::new();
        for _ in 0..SLOTS {
            let (release, released) = mpsc::channel::<()>();
            held.push(release);
            abandon(&readers, Purpose::Answer, move |_| released.recv().ok()).await;
        }
        let mut next = Box::pin(readers.run(Purpose::Answer, |_| 7));
        let early = timeout(Duration::from_millis(50), &mut next).await;
        assert!(early.is_err(), "all slots are taken by reads that nobody waits for any more");
        held.pop();
        assert_eq!(timeout(PATIENCE, next).await.unwrap(), Some(7));
    }

    #[tokio::test]
    async fn watchers_that_catch_up_leave_slots_to_those_who_wait_for_an_answer() {
        let readers = Readers::new();
        let mut held = Vec::new();
        let mut stuck = Vec::new();
        for _ in 0..SLOTS * 2 {
            let (release, released) = mpsc::channel::<()>();
            held.push(release);
            let readers = readers.clone();
            stuck.push(tokio::spawn(async move {
                readers.run(Purpose::History, move |_| released.recv().ok()).await;
            }));
        }
        tokio::task::yield_now().await;
        assert_eq!(timeout(PATIENCE, readers.run(Purpose::Answer, |_| 7)).await.unwrap(), Some(7));
        drop(held);
        for read in stuck {
            timeout(PATIENCE, read).await.unwrap().unwrap();
        }
    }
}
