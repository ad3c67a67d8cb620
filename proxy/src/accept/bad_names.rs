//! Where connections came from that ended in debt ([`super::worth`]): for a while the next ones from there begin on the
//! slow lane after a pause, handshake and all. Else whoever is cut comes back at once, and each handshake costs what a
//! thousand frames do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::identify::Source;

const REMEMBERED: Duration = Duration::from_secs(10);
/// Beyond this many nobody else is remembered until some are forgotten.
const SOURCES: usize = 4096;

#[derive(Default)]
pub(super) struct BadNames(Mutex<HashMap<Source, Instant, ahash::RandomState>>);

impl BadNames {
    pub(super) fn remember(&self, source: Source, now: Instant) {
        let mut since = self.0.lock();
        if since.len() >= SOURCES && !since.contains_key(&source) {
            since.retain(|_, since| now.saturating_duration_since(*since) < REMEMBERED);
        }
        if since.len() < SOURCES || since.contains_key(&source) {
            since.insert(source, now);
        }
    }

    pub(super) fn has(&self, source: Source, now: Instant) -> bool {
        let mut since = self.0.lock();
        let Some(bad) = since.get(&source) else { return false };
        let has = now.saturating_duration_since(*bad) < REMEMBERED;
        if !has {
            since.remove(&source);
        }
        has
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
        assert!(!names.has(source(1), start));
        names.remember(source(1), start);
        assert!(names.has(source(1), start + REMEMBERED / 2));
        assert!(!names.has(source(2), start));
        names.remember(source(1), start + REMEMBERED / 2);
        assert!(names.has(source(1), start + REMEMBERED));
        assert!(!names.has(source(1), start + 2 * REMEMBERED));
        assert!(names.0.lock().is_empty());
    }

    #[test]
    fn there_are_so_many_at_most() {
        let (names, start) = (BadNames::default(), Instant::now());
        for number in 0..2 * SOURCES as u32 {
            names.remember(source(number), start);
        }
        assert_eq!(names.0.lock().len(), SOURCES);
        assert!(names.has(source(0), start));
        names.remember(source(9_000_000), start + REMEMBERED);
        assert_eq!(names.0.lock().len(), 1);
    }
}
