//! Which versions of etcd's client library ask here, as they say themselves.
//!
//! Anybody may say anything, and the page that shows it needs no login: only what looks like a
//! version is kept, and only the first few of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

/// A fleet in the middle of an upgrade has two or three.
const KEPT: usize = 16;

/// For those that do not say, in etcd's word.
const UNKNOWN: &str = "unknown";
/// For whatever is no version, or one too many.
const OTHER: &str = "other";

/// What the protocol of a request is like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum CallKind {
    Unary,
    Stream,
}

/// One thread's counts.
#[derive(Debug, Default)]
pub(super) struct Clients {
    kept: [Kept; KEPT],
    unknown: Counts,
    other: Counts,
}

#[derive(Debug, Default)]
struct Kept {
    /// Up to eight letters; 0 while the place is free.
    version: AtomicU64,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    unary: AtomicU64,
    stream: AtomicU64,
}

impl Clients {
    pub(super) fn count(&self, version: Option<&HeaderValue>, kind: CallKind) {
        let counts = match version.map(|version| packed(version.as_bytes())) {
            None => &self.unknown,
            Some(Some(version)) => self.of(version),
            Some(None) => &self.other,
        };
        counts.of(kind).fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, version: u64) -> &Counts {
        for kept in &self.kept {
            let found = match kept.version.load(Ordering::Relaxed) {
                0 => kept
                    .version
                    .compare_exchange(0, version, Ordering::Relaxed, Ordering::Relaxed)
                    .map_or_else(|other| other, |_| version),
                found => found,
            };
            if found == version {
                return &kept.counts;
            }
        }
        &self.other
    }

    /// By version and kind, without those that never came.
    pub(super) fn add_to(&self, totals: &mut BTreeMap<(String, CallKind), u64>) {
        let kept = self.kept.iter().filter_map(|kept| {
            let version = kept.version.load(Ordering::Relaxed);
            (version != 0).then(|| (unpacked(version), &kept.counts))
        });
        let rest = [(UNKNOWN.to_owned(), &self.unknown), (OTHER.to_owned(), &self.other)];
        for (version, counts) in kept.chain(rest) {
            for kind in [CallKind::Unary, CallKind::Stream] {
                let count = counts.of(kind).load(Ordering::Relaxed);
                if count > 0 {
                    *totals.entry((version.clone(), kind)).or_default() += count;
                }
            }
        }
    }
}

impl Counts {
    fn of(&self, kind: CallKind) -> &AtomicU64 {
        match kind {
            CallKind::Unary => &self.unary,
            CallKind::Stream => &self.stream,
        }
    }
}

/// Digits and dots, at most eight of them.
fn packed(version: &[u8]) -> Option<u64> {
    let looks_so = version.first().is_some_and(u8::is_ascii_digit)
        && version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    if !looks_so || version.len() > 8 {
        return None;
    }
    Some(version.iter().fold(0, |packed, byte| packed << 8 | u64::from(*byte)))
}

fn unpacked(version: u64) -> String {
    version.to_be_bytes().into_iter().filter(|byte| *byte != 0).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(clients: &Clients) -> Vec<(String, CallKind, u64)> {
        let mut totals = BTreeMap::new();
        clients.add_to(&mut totals);
        totals.into_iter().map(|((version, kind), count)| (version, kind, count)).collect()
    }

    #[test]
    fn versions_are_counted_and_nothing_else_gets_on_the_page() {
        let clients = Clients::default();
        let say = |text: &'static str, kind| clients.count(Some(&HeaderValue::from_static(text)), kind);
        say("3.7", CallKind::Unary);
        say("3.7", CallKind::Unary);
        say("3.7", CallKind::Stream);
        say("3.5.21", CallKind::Unary);
        for strange in ["secret", "3.5.21-rc1", "123456789", ""] {
            say(strange, CallKind::Unary);
        }
        clients.count(None, CallKind::Unary);
        let expected = [
            ("3.5.21", CallKind::Unary, 1),
            ("3.7", CallKind::Unary, 2),
            ("3.7", CallKind::Stream, 1),
            ("other", CallKind::Unary, 4),
            ("unknown", CallKind::Unary, 1),
        ];
        assert_eq!(
            totals(&clients),
            expected.map(|(version, kind, count)| (version.to_owned(), kind, count))
        );
    }

    #[test]
    fn a_client_cannot_make_the_page_grow() {
        let clients = Clients::default();
        for version in 0..10_000 {
            let version = HeaderValue::from_str(&format!("3.{version}")).unwrap();
            clients.count(Some(&version), CallKind::Stream);
        }
        let totals = totals(&clients);
        assert_eq!(totals.len(), KEPT + 1);
        assert_eq!(totals.iter().map(|(_, _, count)| count).sum::<u64>(), 10_000);
    }
}
