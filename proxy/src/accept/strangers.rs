//! Connections that have not yet proved who they are: a limited number, so that idle ones cannot
//! use up memory and file descriptors, and no source can shut the others out.
//!
//! When the number is reached, newcomers wait in the listen backlog until a place is free, or until
//! the oldest stranger of the source that has most of them has had a second to prove itself; that
//! one is then closed. So somebody who opens connections and says nothing delays others by a second
//! at most, while a burst of honest clients is served in order.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::identify::{Proof, Source};

/// A TLS handshake takes milliseconds of work and a few round trips.
const PATIENCE: Duration = Duration::from_secs(1);

pub struct Strangers {
    limit: usize,
    table: Mutex<Table>,
    freed: Notify,
}

#[derive(Default)]
struct Table {
    next: u64,
    count: usize,
    /// In each source by age.
    by_source: HashMap<Source, BTreeMap<u64, Stranger>, ahash::RandomState>,
}

struct Stranger {
    since: Instant,
    evict: Arc<Notify>,
}

/// A place among the strangers. Becomes free when the connection proves itself or ends.
pub(super) struct Place {
    strangers: Arc<Strangers>,
    source: Source,
    number: u64,
    taken: AtomicBool,
    evict: Arc<Notify>,
}

enum Offer {
    Place(Place),
    /// Nobody has been here for long enough to be sent away; look again after this.
    Wait(Duration),
}

impl Strangers {
    /// At least one is allowed.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), table: Mutex::default(), freed: Notify::new() })
    }

    pub fn count(&self) -> usize {
        self.table.lock().count
    }

    /// Waits for a place. `evicted` is called when somebody had to go for it.
    pub(super) async fn admit(self: &Arc<Self>, ip: IpAddr, evicted: &dyn Fn()) -> Place {
        let source = Source::of(ip);
        loop {
            // Made before the look, so that a place freed in between is not missed.
            let freed = self.freed.notified();
            match self.offer(source, Instant::now(), evicted) {
                Offer::Place(place) => return place,
                Offer::Wait(wait) => {
                    // Both outcomes lead to another look.
                    let _elapsed = tokio::time::timeout(wait, freed).await;
                }
            }
        }
    }

    fn offer(self: &Arc<Self>, source: Source, now: Instant, evicted: &dyn Fn()) -> Offer {
        let mut table = self.table.lock();
        if table.count >= self.limit
            && let Some((crowd, number)) = table.next_to_go()
        {
            let since = table.by_source.get(&crowd).and_then(|own| own.get(&number)).map(|it| it.since);
            let age = since.map_or(PATIENCE, |since| now.saturating_duration_since(since));
            if let Some(wait) = PATIENCE.checked_sub(age).filter(|wait| !wait.is_zero()) {
                return Offer::Wait(wait);
            }
            if let Some(stranger) = table.remove(crowd, number) {
                stranger.evict.notify_one();
                evicted();
            }
        }
        table.next += 1;
        let number = table.next;
        let evict = Arc::new(Notify::new());
        table.count += 1;
        let stranger = Stranger { since: now, evict: evict.clone() };
        table.by_source.entry(source).or_default().insert(number, stranger);
        Offer::Place(Place { strangers: self.clone(), source, number, taken: AtomicBool::new(true), evict })
    }
}

impl Table {
    /// The oldest of the source that has most, and among equals the oldest of all.
    fn next_to_go(&self) -> Option<(Source, u64)> {
        self.by_source
            .iter()
            .filter_map(|(source, own)| Some((own.len(), *own.first_key_value()?.0, *source)))
            .max_by_key(|(crowd, oldest, _)| (*crowd, std::cmp::Reverse(*oldest)))
            .map(|(_, oldest, source)| (source, oldest))
    }

    fn remove(&mut self, source: Source, number: u64) -> Option<Stranger> {
        let own = self.by_source.get_mut(&source)?;
        let stranger = own.remove(&number)?;
        if own.is_empty() {
            self.by_source.remove(&source);
        }
        self.count -= 1;
        Some(stranger)
    }
}

impl Place {
    /// Completes when the connection must go. Never, once it has proved itself.
    pub(super) async fn evicted(&self) {
        self.evict.notified().await;
    }

    fn free(&self) {
        if self.taken.swap(false, Ordering::Relaxed) {
            self.strangers.table.lock().remove(self.source, self.number);
            self.strangers.freed.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.free();
    }
}

/// What the identity of the connection holds of its place.
pub(super) struct PlaceProof(pub(super) Arc<Place>);

impl Proof for PlaceProof {
    fn given(&self) {
        // Asked at each request: a load is enough for all but the first.
        if self.0.taken.load(Ordering::Relaxed) {
            self.0.free();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn source(last: u8) -> Source {
        Source::V4([10, 0, 0, last])
    }

    fn take(strangers: &Arc<Strangers>, from: Source, now: Instant) -> Result<Place, Duration> {
        match strangers.offer(from, now, &|| {}) {
            Offer::Place(place) => Ok(place),
            Offer::Wait(wait) => Err(wait),
        }
    }

    async fn is_evicted(place: &Place) -> bool {
        tokio::time::timeout(Duration::ZERO, place.evicted()).await.is_ok()
    }

    #[tokio::test]
    async fn who_proves_itself_leaves_its_place_to_others_and_stays() {
        let strangers = Strangers::new(2);
        let now = Instant::now();
        let first = Arc::new(take(&strangers, source(1), now).unwrap());
        let _second = take(&strangers, source(2), now).unwrap();
        assert_eq!(take(&strangers, source(3), now).err(), Some(PATIENCE));
        PlaceProof(first.clone()).given();
        PlaceProof(first.clone()).given();
        assert_eq!(strangers.count(), 1);
        let _third = take(&strangers, source(3), now).unwrap();
        assert!(!is_evicted(&first).await);
        drop(first);
        assert_eq!(strangers.count(), 2);
    }

    #[tokio::test]
    async fn the_oldest_of_the_largest_crowd_goes_after_a_second() {
        let strangers = Strangers::new(4);
        let start = Instant::now();
        let honest = take(&strangers, source(1), start).unwrap();
        let crowd: Vec<_> = (0..3).map(|_| take(&strangers, source(9), start).unwrap()).collect();
        let later = start + PATIENCE;
        assert!(take(&strangers, source(2), later - Duration::from_millis(1)).is_err());
        let newcomer = take(&strangers, source(2), later).unwrap();
        assert!(is_evicted(&crowd[0]).await);
        assert!(!is_evicted(&crowd[1]).await && !is_evicted(&honest).await && !is_evicted(&newcomer).await);
        assert_eq!(strangers.count(), 4);
        // Its own end does not count twice.
        drop(crowd);
        assert_eq!(strangers.count(), 2);
    }

    #[tokio::test]
    async fn a_newcomer_waits_for_a_free_place() {
        let strangers = Strangers::new(1);
        let evictions = AtomicUsize::new(0);
        let count = || {
            evictions.fetch_add(1, Ordering::Relaxed);
        };
        let first = strangers.admit("::1".parse().unwrap(), &count).await;
        let waiting = strangers.admit("::1".parse().unwrap(), &count);
        let (_second, ()) = tokio::join!(waiting, async { drop(first) });
        assert_eq!(evictions.load(Ordering::Relaxed), 0);
    }
}
