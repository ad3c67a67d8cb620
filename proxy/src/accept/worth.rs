//! What an HTTP/2 connection makes the server do, against what the server does for it in earnest.
//!
//! Each frame costs, a header's bytes cost more than others (they may say much in little), a new request costs most.
//! Calls that are served (not streams, which begin before anything is done) pay for themselves many times over, bytes that are sent pay for the frames that take them; what
//! is refused pays nothing. Who is in debt belongs to the slow lane ([`super::slow_lane`]) until time or honest requests have
//! paid: his work gives way to that of others, and nothing else happens to him. So the estimates may be rough. A clock is
//! asked only of those in debt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// About a microsecond.
const FRAME: i64 = 32;
const HEADER_BYTE: i64 = 2;
const REQUEST: i64 = 10 * FRAME;
/// Half a millisecond: more than the longest header of an honest request.
const SERVED: i64 = 625 * FRAME;
const SENT_BYTE: i64 = 1;
/// What nobody has to pay for at once: five hundred frames, or some thirty requests that were refused.
const ALLOWANCE: i64 = 500 * FRAME;
/// One in a hundred of a processor's time.
const A_SECOND: i64 = 10_000 * FRAME;
/// Then more does not count: the debt is paid after three quiet seconds.
const MOST_DEBT: i64 = 3 * A_SECOND;

/// Of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Of one connection, shared with its requests.
#[derive(Clone, Default)]
pub(super) struct Standing(Arc<Shared>);

#[derive(Default)]
struct Shared {
    slow: AtomicBool,
    in_debt: AtomicBool,
    /// Which of both runs it at the moment.
    runs_slow: AtomicBool,
    served: AtomicU64,
    /// Begun since the slow lane asked last.
    requests: AtomicU32,
    asked: AtomicBool,
}

impl Standing {
    /// Whether it belongs to the slow lane.
    pub(super) fn is_slow(&self) -> bool {
        self.0.slow.load(Ordering::Relaxed)
    }

    /// When it was last looked at, and by more than the beginning of a connection costs. Who only has a bad name is slow
    /// without it.
    pub(super) fn is_in_debt(&self) -> bool {
        self.0.in_debt.load(Ordering::Relaxed)
    }

    /// Whether the slow lane runs it. What belongs to a thread's reactor moves when this changes.
    pub(super) fn runs_slow(&self) -> bool {
        self.0.runs_slow.load(Ordering::Relaxed)
    }

    pub(super) fn set_runs_slow(&self, slow: bool) {
        self.0.runs_slow.store(slow, Ordering::Relaxed);
    }

    /// A request was not refused.
    pub(super) fn served(&self) {
        self.0.served.fetch_add(1, Ordering::Relaxed);
    }

    /// The connection brought a request.
    pub(super) fn begun(&self) {
        self.0.asked.store(true, Ordering::Relaxed);
        if self.runs_slow() {
            self.0.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it ever brought one.
    pub(super) fn has_asked(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// How many it has brought since this was asked last.
    pub(super) fn take_requests(&self) -> u32 {
        self.0.requests.swap(0, Ordering::Relaxed)
    }

    pub(super) fn set(&self, slow: bool) {
        self.0.slow.store(slow, Ordering::Relaxed);
    }
}

/// The account.
pub(super) struct Worth {
    standing: Standing,
    left: i64,
    /// Of those in the standing.
    paid_for: u64,
    /// When time was last counted.
    since: Instant,
}

impl Worth {
    /// With nothing on it when the standing is bad from the start: an honest request pays for that.
    pub(super) fn new(standing: Standing, now: Instant) -> Self {
        let left = if standing.is_slow() { 0 } else { ALLOWANCE };
        Self { standing, left, paid_for: 0, since: now }
    }

    /// A frame has begun.
    pub(super) fn frame(&mut self, kind: u8, length: u32) {
        let bytes = match kind {
            DATA => 0,
            // Settings say as much in little as headers do.
            _ => HEADER_BYTE * i64::from(length),
        };
        let request = if kind == HEADERS { REQUEST } else { 0 };
        self.left = (self.left - FRAME - bytes - request).max(-MOST_DEBT);
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.earn(SENT_BYTE.saturating_mul(i64::try_from(bytes).unwrap_or(i64::MAX)));
    }

    /// After frames were counted.
    pub(super) fn decide(&mut self, now: impl Fn() -> Instant) {
        let slow = self.standing.is_slow();
        if !slow && self.left >= 0 {
            return;
        }
        let enough = if slow { ALLOWANCE } else { 0 };
        let served = self.standing.0.served.load(Ordering::Relaxed);
        let requests = i64::try_from(served - self.paid_for).unwrap_or(i64::MAX);
        self.paid_for = served;
        self.earn(requests.saturating_mul(SERVED));
        if self.left < enough {
            let now = now();
            let passed = now.saturating_duration_since(self.since).as_micros();
            self.since = now;
            self.earn(i64::try_from(passed).unwrap_or(i64::MAX).saturating_mul(A_SECOND) / 1_000_000);
        }
        self.standing.set(self.left < enough);
        self.standing.0.in_debt.store(self.left < -ALLOWANCE, Ordering::Relaxed);
    }

    fn earn(&mut self, worth: i64) {
        self.left = self.left.saturating_add(worth).min(ALLOWANCE);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn begun() -> (Worth, Standing, Instant) {
        let (standing, now) = (Standing::default(), Instant::now());
        (Worth::new(standing.clone(), now), standing, now)
    }

    /// How many frames before it is slow.
    fn until_slow(mut frame: impl FnMut(&mut Worth, &Standing)) -> Option<usize> {
        let (mut worth, standing, start) = begun();
        (0..20_000).find(|_| {
            frame(&mut worth, &standing);
            worth.decide(|| start);
            standing.is_slow()
        })
    }

    #[test]
    fn who_floods_is_slow_soon() {
        const PING: u8 = 6;
        const RESET: u8 = 3;
        let pings = until_slow(|worth, _| {
            worth.frame(PING, 8);
            worth.sent(17);
        });
        assert!(pings.is_some_and(|sent| (400..1000).contains(&sent)), "{pings:?}");
        let resets = until_slow(|worth, _| {
            worth.frame(HEADERS, 60);
            worth.frame(RESET, 4);
        });
        assert!(resets.is_some_and(|sent| (20..100).contains(&sent)), "{resets:?}");
        let refused = until_slow(|worth, _| {
            worth.frame(HEADERS, 60);
            worth.frame(DATA, 20);
            worth.sent(120);
        });
        assert!(refused.is_some_and(|sent| (20..100).contains(&sent)), "{refused:?}");
        let bombs = until_slow(|worth, _| worth.frame(HEADERS, 4000));
        assert!(bombs.is_some_and(|sent| sent < 5), "{bombs:?}");
    }

    #[test]
    fn who_is_served_is_never_slow() {
        // With a token of 8 KiB in each header, and whatever windows and pings come with it.
        let served = until_slow(|worth, standing| {
            worth.frame(HEADERS, 8500);
            worth.frame(DATA, 40);
            (0..8).for_each(|_| worth.frame(8, 4));
            worth.sent(60);
            standing.served();
        });
        assert_eq!(served, None);
        // Events, each with a window and a ping.
        let watched = until_slow(|worth, _| {
            worth.sent(100);
            worth.frame(8, 4);
            worth.frame(6, 8);
        });
        assert_eq!(watched, None);
    }

    #[test]
    fn debts_are_paid_by_time_and_by_honest_requests() {
        let (mut worth, standing, start) = begun();
        (0..1_000_000).for_each(|_| worth.frame(6, 8));
        worth.decide(|| start);
        assert!(standing.is_slow() && standing.is_in_debt());
        worth.decide(|| start + Duration::from_secs(3));
        assert!(standing.is_slow(), "it has no more than paid");
        worth.decide(|| start + Duration::from_millis(3_100));
        assert!(!standing.is_slow());

        (0..2000).for_each(|_| worth.frame(6, 8));
        worth.decide(|| start + Duration::from_millis(3_100));
        assert!(standing.is_slow());
        (0..10).for_each(|_| standing.served());
        worth.decide(|| start + Duration::from_millis(3_100));
        assert!(!standing.is_slow());
    }

    #[test]
    fn who_begins_with_a_bad_name_needs_one_honest_request() {
        let (standing, now) = (Standing::default(), Instant::now());
        standing.set(true);
        let mut worth = Worth::new(standing.clone(), now);
        worth.decide(|| now);
        assert!(standing.is_slow() && !standing.is_in_debt());
        worth.frame(HEADERS, 100);
        worth.decide(|| now);
        assert!(standing.is_slow() && !standing.is_in_debt(), "it has only begun");
        standing.served();
        worth.frame(HEADERS, 100);
        worth.decide(|| now);
        assert!(!standing.is_slow() && !standing.is_in_debt());
    }
}
