//! Counts everything again, from the index: what a prefix begins with when it gets its first limit, and what an operator
//! may compare the counters with.

use super::super::keyspace::Keyspace;
use super::super::read::{ReadError, check_wanted};
use super::super::row::RowSource;
use super::timeline::Timeline;
use super::{Delta, Scope};
use bytes::Bytes;
use keygate_core::{KeyRange, QuotaInfo, QuotaUse};

/// What a count came to.
pub(super) struct Tally {
    pub(super) keys: u64,
    pub(super) bytes: u64,
    pub(super) history: Timeline,
}

impl Tally {
    fn used(&self) -> QuotaUse {
        QuotaUse { keys: self.keys, bytes: self.bytes, history: self.history.bytes() }
    }
}

/// All keys that begin with `prefix`.
fn under(prefix: &Bytes) -> KeyRange {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX);
    match last {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            KeyRange::Span { start: prefix.clone(), end: end.into() }
        }
        None => KeyRange::From(prefix.clone()),
    }
}

impl Keyspace {
    /// Ends early when nobody wants the count any more.
    pub(super) fn tally(&self, prefix: &Bytes, rows: &dyn RowSource) -> Result<Tally, ReadError> {
        let (mut keys, mut bytes, mut history) = (0, 0, Vec::new());
        for (step, (key, entry)) in self.entries(&under(prefix)).enumerate() {
            check_wanted(step, rows)?;
            if entry.is_live() {
                keys += 1;
                bytes += key.len() as u64 + entry.value_len();
            }
            let mut before = None;
            entry.each_version(&mut |version| {
                let old = before.replace(version).filter(|old| !old.is_tombstone());
                if version.main <= self.compact_revision {
                    return;
                }
                let old = old.map(|old| u64::from(old.length));
                // How long the new value is does not matter to history.
                let new = (!version.is_tombstone()).then_some(0);
                history.push((version.main, Delta::of(key, old, new).history));
            });
        }
        Ok(Tally { keys, bytes, history: Timeline::of(history) })
    }

    /// The limits of the whole keyspace and of prefixes in it, ascending by prefix, and how much there is.
    pub fn quotas(&self) -> Vec<QuotaInfo> {
        let info = |prefix, limits, used| QuotaInfo { tenant: None, prefix, limits, used, counted: None };
        let whole = info(Bytes::new(), self.quota.limits, self.used());
        let scopes = self.quota.scopes.iter().map(|scope| {
            let Scope { prefix, limits, .. } = scope.as_ref();
            info(prefix.clone(), *limits, scope.used())
        });
        std::iter::once(whole).chain(scopes).collect()
    }

    /// The same with everything counted again.
    pub fn recount(&self, rows: &dyn RowSource) -> Result<Vec<QuotaInfo>, ReadError> {
        let mut quotas = self.quotas();
        for info in &mut quotas {
            let tally = self.tally(&info.prefix, rows)?;
            info.counted = Some(tally.used());
        }
        Ok(quotas)
    }
}
