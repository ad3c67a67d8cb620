//! Keys that issuers publish: fetched beside the way of requests, by a thread of their own.
//!
//! They are fetched every few minutes, and sooner when a token names a key that is not there, but
//! never twice within [`Timing::pause`]. While an issuer does not answer, its last good keys go on
//! for as long as the operator said.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Uri;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::fetch;
use super::key_set::KeySet;

/// When keys are fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Between two tries, whatever happens.
    pause: Duration,
    /// Between two that succeed.
    refresh: Duration,
}

/// An issuer may want to be asked twice a minute at most; rotations are announced for longer than
/// five.
pub(super) const USUAL: Timing = Timing { pause: Duration::from_secs(30), refresh: Duration::from_secs(300) };

/// Where keys are.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Location {
    pub url: Uri,
    /// Who must have signed the issuer's certificate; None: an authority that the system trusts.
    pub ca: Option<PathBuf>,
    /// While they cannot be fetched again.
    pub usable_for: Duration,
}

/// The keys of all locations.
#[derive(Default)]
pub(super) struct Remotes {
    of: RwLock<HashMap<Location, Arc<Remote>, ahash::RandomState>>,
    wanted: Notify,
}

/// Those of one.
#[derive(Default)]
struct Remote {
    good: RwLock<Option<Good>>,
    /// A token named a key that is not there.
    is_wanted: AtomicBool,
    tried: Mutex<Option<Instant>>,
    /// Failures in a row are told once.
    is_failing: AtomicBool,
    failures: AtomicU64,
    /// That there are no keys was told.
    is_without: AtomicBool,
}

/// How it stands with keys that are fetched.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Standing {
    /// Since they were last fetched; None: they never were.
    pub age: Option<Duration>,
    /// Whether tokens are checked with them.
    pub usable: bool,
    /// Tries that failed, since the start.
    pub failures: u64,
}

struct Good {
    set: Arc<KeySet>,
    text: Vec<u8>,
    at: Instant,
}

impl Remotes {
    /// None: there are none, or they are too old.
    pub(super) fn keys(&self, location: &Location) -> Option<Arc<KeySet>> {
        let remote = self.of.read().get(location).cloned()?;
        let good = remote.good.read();
        good.as_ref().filter(|good| good.at.elapsed() <= location.usable_for).map(|good| good.set.clone())
    }

    pub(super) fn standing(&self, location: &Location) -> Standing {
        let Some(remote) = self.of.read().get(location).cloned() else { return Standing::default() };
        let age = remote.good.read().as_ref().map(|good| good.at.elapsed());
        let usable = age.is_some_and(|age| age <= location.usable_for);
        Standing { age, usable, failures: remote.failures.load(Ordering::Relaxed) }
    }

    /// Returns at once.
    pub(super) fn want(&self, location: &Location) {
        if let Some(remote) = self.of.read().get(location)
            && !remote.is_wanted.swap(true, Ordering::Relaxed)
        {
            self.wanted.notify_one();
        }
    }

    /// Fetches what is due of `locations`, forgets others, and waits until it is time to call again.
    pub(super) async fn round(&self, locations: &[Location], timing: Timing) {
        {
            let mut of = self.of.write();
            of.retain(|location, _| locations.contains(location));
            for location in locations {
                of.entry(location.clone()).or_default();
            }
        }
        let all: Vec<_> =
            self.of.read().iter().map(|(location, remote)| (location.clone(), remote.clone())).collect();
        let due = all.iter().filter(|(location, remote)| {
            // Keys must not run out between two tries that succeed.
            let refresh = timing.refresh.min(location.usable_for / 2);
            remote.is_due(Instant::now(), Timing { refresh, ..timing })
        });
        futures_util::future::join_all(due.map(|(location, remote)| remote.fetch(location))).await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = self.wanted.notified() => {}
        }
    }
}

impl Remote {
    fn is_due(&self, now: Instant, timing: Timing) -> bool {
        let Some(tried) = *self.tried.lock() else { return true };
        let since = now.saturating_duration_since(tried);
        let is_wanted = self.is_wanted.load(Ordering::Relaxed) || self.is_failing.load(Ordering::Relaxed);
        since >= if is_wanted { timing.pause } else { timing.refresh }
    }

    async fn fetch(&self, location: &Location) {
        *self.tried.lock() = Some(Instant::now());
        let fetched = fetch::fetch(&location.url, location.ca.as_deref()).await;
        let parsed = fetched.and_then(|text| KeySet::parse(&text).map(|set| (text, set)));
        match parsed {
            Ok((text, set)) => {
                self.is_wanted.store(false, Ordering::Relaxed);
                let mut good = self.good.write();
                let at = Instant::now();
                match good.as_mut() {
                    // The same keys: what was verified with them stays verified.
                    Some(good) if good.text == text => good.at = at,
                    _ => {
                        let ids: Vec<_> = set.ids().collect();
                        tracing::info!(url = %location.url, keys = ids.join(", "), "an issuer's keys were fetched");
                        *good = Some(Good { set: Arc::new(set), text: text.to_vec(), at });
                    }
                }
                self.is_without.store(false, Ordering::Relaxed);
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(url = %location.url, "an issuer's keys can be fetched again");
                }
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let age = self.good.read().as_ref().map(|good| good.at.elapsed());
                self.tell(location, &error, age.and_then(|age| location.usable_for.checked_sub(age)));
            }
        }
    }

    /// That they cannot be fetched, once, and once more when there are none. `left`: how long the last ones may be used.
    fn tell(&self, location: &Location, error: &str, left: Option<Duration>) {
        let was_failing = self.is_failing.swap(true, Ordering::Relaxed);
        match left {
            Some(left) if !was_failing => {
                let minutes = left.as_secs() / 60;
                tracing::error!(
                    url = %location.url,
                    error,
                    minutes,
                    "an issuer's keys cannot be fetched: the last good ones are used for so many minutes more; trying again"
                );
            }
            None if !self.is_without.swap(true, Ordering::Relaxed) => {
                tracing::error!(
                    url = %location.url,
                    error,
                    "an issuer's keys cannot be fetched, and there are none that may be used: its tokens are refused; trying again"
                );
            }
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_issuer_that_is_down_is_counted_and_its_last_keys_age() {
        // Nobody listens on port 1.
        let url = Uri::from_static("https://127.0.0.1:1/jwks");
        let location = Location { url, ca: None, usable_for: Duration::from_secs(60) };
        let remotes = Remotes::default();
        assert_eq!(remotes.standing(&location), Standing::default());
        let timing = Timing { pause: Duration::ZERO, refresh: Duration::ZERO };
        for failures in 1..=2 {
            remotes.round(std::slice::from_ref(&location), timing).await;
            assert_eq!(remotes.standing(&location), Standing { age: None, usable: false, failures });
        }
        let remote = remotes.of.read()[&location].clone();
        assert!(remote.is_without.load(Ordering::Relaxed), "that there are none was told");
        let set = crate::identify::issuers::tests::any_keys();
        for (age, usable) in [(0, true), (59, true), (61, false)] {
            let at = Instant::now().checked_sub(Duration::from_secs(age)).unwrap();
            *remote.good.write() = Some(Good { set: set.clone(), text: Vec::new(), at });
            let standing = remotes.standing(&location);
            assert_eq!((standing.age.unwrap().as_secs(), standing.usable), (age, usable));
            assert_eq!(remotes.keys(&location).is_some(), usable);
        }
    }

    #[test]
    fn nobody_is_asked_more_often_than_the_pause_allows() {
        let remote = Remote::default();
        let now = Instant::now();
        assert!(remote.is_due(now, USUAL), "the first try");
        *remote.tried.lock() = Some(now);
        for (seconds, wanted, failing, due) in [
            (299, false, false, false),
            (300, false, false, true),
            (29, true, false, false),
            (30, true, false, true),
            (29, false, true, false),
            (30, false, true, true),
        ] {
            remote.is_wanted.store(wanted, Ordering::Relaxed);
            remote.is_failing.store(failing, Ordering::Relaxed);
            let then = now + Duration::from_secs(seconds);
            assert_eq!(remote.is_due(then, USUAL), due, "{seconds} {wanted} {failing}");
        }
    }
}
