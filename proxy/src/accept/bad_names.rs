//! Where connections came from that cost more than they were worth: for a while the next ones from there begin on the
//! slow lane after a pause, handshake and all. Else whoever is cut comes back at once, and each handshake costs what a
//! thousand frames do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::identify::Source;

/// A bad name, after the fault that made it bad or found it so.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Beyond this many nobody else is remembered until some are forgotten.
const SOURCES: usize = 4096;
/// So many connections for nothing at once are no flood, and five in a second forever: probes, and clients with the wrong
/// certificate, who come from where others come from too.
const NOTHING: u64 = 50;
const NOTHING_A_SECOND: u64 = 5;
/// For the first connection from there. Twice as long for each fault since, up to the longest: less than most clients
/// wait for a connection.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// Of a connection, at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Its frames were a flood ([`super::worth`]).
    Debt,
    /// It cost a handshake and came to nothing, or it broke HTTP/2's rules.
    Nothing,
}

#[derive(Default)]
pub(super) struct BadNames(Mutex<HashMap<Source, Name, ahash::RandomState>>);

/// Of one source.
struct Name {
    /// In thousandths of a fault, at the last one.
    faults: u64,
    last: Instant,
    bad_until: Instant,
    /// Faults since it is bad.
    again: u32,
}

impl Name {
    fn add(&mut self, fault: Fault, now: Instant) {
        const MANY: u64 = 1000 * NOTHING;
        let passed = now.saturating_duration_since(self.last).as_millis();
        let paid = u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(NOTHING_A_SECOND);
        let left = self.faults.saturating_sub(paid);
        let before = match fault {
            Fault::Debt => MANY,
            Fault::Nothing => left.min(MANY),
        };
        (self.faults, self.last) = (before + 1000, now);
        if self.faults > MANY {
            self.again = if now < self.bad_until { self.again.saturating_add(1) } else { 0 };
            self.bad_until = now + REMEMBERED;
        }
    }

    /// All faults are paid for by then, too.
    fn is_forgotten(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > REMEMBERED
    }
}

impl BadNames {
    pub(super) fn remember(&self, source: Source, fault: Fault, now: Instant) {
        let mut names = self.0.lock();
        if names.len() >= SOURCES && !names.contains_key(&source) {
            // Who is not bad yet does not crowd out who is.
            names.retain(|_, name| match fault {
                Fault::Debt => now < name.bad_until,
                Fault::Nothing => !name.is_forgotten(now),
            });
            if names.len() >= SOURCES {
                return;
            }
        }
        let new = Name { faults: 0, last: now, bad_until: now, again: 0 };
        names.entry(source).or_insert(new).add(fault, now);
    }

    /// How long a connection from there has to wait before its handshake. None: its name is good.
    pub(super) fn pause(&self, source: Source, now: Instant) -> Option<Duration> {
        let mut names = self.0.lock();
        let name = names.get(&source)?;
        if name.is_forgotten(now) {
            names.remove(&source);
            return None;
        }
        let pause = 2_u32.checked_pow(name.again).and_then(|times| PAUSE.checked_mul(times));
        (now < name.bad_until).then(|| pause.map_or(LONGEST_PAUSE, |pause| pause.min(LONGEST_PAUSE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from(number).into())
    }

    #[test]
    fn a_bad_name_is_forgotten() {
        let (names, start) = (BadNames::default(), Instant::now());
        assert_eq!(names.pause(source(1), start), None);
        names.remember(source(1), Fault::Debt, start);
        assert_eq!(names.pause(source(1), start + REMEMBERED / 2), Some(PAUSE));
        assert_eq!(names.pause(source(2), start), None);
        names.remember(source(1), Fault::Debt, start + REMEMBERED / 2);
        assert_eq!(names.pause(source(1), start + REMEMBERED), Some(2 * PAUSE));
        assert_eq!(names.pause(source(1), start + 2 * REMEMBERED), None);
        assert!(names.0.lock().is_empty());
    }

    #[test]
    fn who_goes_on_waits_longer_up_to_a_bound() {
        let (names, start) = (BadNames::default(), Instant::now());
        for _ in 0..100 {
            names.remember(source(1), Fault::Debt, start);
        }
        assert_eq!(names.pause(source(1), start), Some(LONGEST_PAUSE));
        names.remember(source(1), Fault::Debt, start + REMEMBERED);
        assert_eq!(names.pause(source(1), start + REMEMBERED), Some(PAUSE));
    }

    #[test]
    fn some_connections_for_nothing_are_no_flood() {
        let (names, start) = (BadNames::default(), Instant::now());
        for _ in 0..NOTHING {
            names.remember(source(1), Fault::Nothing, start);
            assert_eq!(names.pause(source(1), start), None);
        }
        names.remember(source(1), Fault::Nothing, start);
        assert_eq!(names.pause(source(1), start), Some(PAUSE));
    }

    #[test]
    fn probes_give_no_bad_name_and_keep_none() {
        let (names, start) = (BadNames::default(), Instant::now());
        let probes = |from: Instant| {
            (0..1_000).map(move |probe| from + probe * Duration::from_millis(250)).inspect(|now| {
                names.remember(source(1), Fault::Nothing, *now);
            })
        };
        assert!(probes(start).all(|now| names.pause(source(1), now).is_none()));
        let later = start + Duration::from_secs(600);
        names.remember(source(1), Fault::Debt, later);
        let paused = probes(later).filter(|now| names.pause(source(1), *now).is_some()).last();
        assert!(paused.is_some_and(|last| last < later + 2 * REMEMBERED), "{paused:?}");
    }

    #[test]
    fn there_are_so_many_at_most() {
        let (names, start) = (BadNames::default(), Instant::now());
        for number in 0..2 * SOURCES as u32 {
            names.remember(source(number), Fault::Debt, start);
        }
        assert_eq!(names.0.lock().len(), SOURCES);
        assert_eq!(names.pause(source(0), start), Some(PAUSE));
        names.remember(source(9_000_000), Fault::Debt, start + 2 * REMEMBERED);
        assert_eq!(names.0.lock().len(), 1);
        for number in 0..2 * SOURCES as u32 {
            names.remember(source(number), Fault::Nothing, start + 2 * REMEMBERED);
        }
        assert_eq!(names.0.lock().len(), SOURCES);
        names.remember(source(9_000_001), Fault::Debt, start + 2 * REMEMBERED);
        assert_eq!(names.pause(source(9_000_001), start + 2 * REMEMBERED), Some(PAUSE));
        assert_eq!(names.0.lock().len(), 2);
    }
}
