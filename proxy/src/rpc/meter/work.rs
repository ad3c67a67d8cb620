//! What answered requests did to the keys: operations, those inside transactions too, and the times
//! that leases were granted for.

use std::sync::atomic::{AtomicU64, Ordering};

use keygate_core::Answer;

/// Upper bounds in seconds: 1 doubled 23 times, as etcd's.
pub(crate) const LEASE_TTL_BOUNDS: usize = 24;

/// One thread's counts.
#[derive(Debug, Default)]
pub(super) struct Work {
    ranges: AtomicU64,
    puts: AtomicU64,
    deletes: AtomicU64,
    txns: AtomicU64,
    lease_ttls: [AtomicU64; LEASE_TTL_BOUNDS + 1],
    lease_seconds: AtomicU64,
}

/// What all threads did.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct WorkTotals {
    pub(crate) ranges: u64,
    pub(crate) puts: u64,
    pub(crate) deletes: u64,
    /// Transactions of more than one operation.
    pub(crate) txns: u64,
    /// Not cumulative; the last one holds what is above all bounds.
    pub(crate) lease_ttls: [u64; LEASE_TTL_BOUNDS + 1],
    pub(crate) lease_seconds: u64,
}

impl Work {
    pub(super) fn done<V>(&self, answer: &Answer<V>) {
        match answer {
            Answer::Range(_) => add(&self.ranges, 1),
            Answer::Put { .. } => add(&self.puts, 1),
            Answer::Delete { .. } => add(&self.deletes, 1),
            Answer::Txn(txn) => {
                let mut within = WorkTotals::default();
                txn.responses.iter().for_each(|answer| within.count(answer));
                let WorkTotals { ranges, puts, deletes, .. } = within;
                add(&self.ranges, ranges);
                add(&self.puts, puts);
                add(&self.deletes, deletes);
                add(&self.txns, u64::from(ranges + puts + deletes > 1));
            }
            Answer::LeaseGranted { ttl, .. } => {
                let seconds = u64::try_from(*ttl).unwrap_or_default();
                let bucket = (0..LEASE_TTL_BOUNDS).find(|at| seconds <= 1 << at).unwrap_or(LEASE_TTL_BOUNDS);
                add(&self.lease_ttls[bucket], 1);
                add(&self.lease_seconds, seconds);
            }
            _ => {}
        }
    }

    pub(super) fn add_to(&self, totals: &mut WorkTotals) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        totals.ranges += read(&self.ranges);
        totals.puts += read(&self.puts);
        totals.deletes += read(&self.deletes);
        totals.txns += read(&self.txns);
        for (to, from) in totals.lease_ttls.iter_mut().zip(&self.lease_ttls) {
            *to += read(from);
        }
        totals.lease_seconds += read(&self.lease_seconds);
    }
}

impl WorkTotals {
    fn count<V>(&mut self, answer: &Answer<V>) {
        match answer {
            Answer::Range(_) => self.ranges += 1,
            Answer::Put { .. } => self.puts += 1,
            Answer::Delete { .. } => self.deletes += 1,
            Answer::Txn(txn) => txn.responses.iter().for_each(|answer| self.count(answer)),
            _ => {}
        }
    }
}

fn add(counter: &AtomicU64, number: u64) {
    if number > 0 {
        counter.fetch_add(number, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keygate_core::{Plaintext, RangeAnswer, TxnAnswer};

    fn totals(work: &Work) -> WorkTotals {
        let mut totals = WorkTotals::default();
        work.add_to(&mut totals);
        totals
    }

    #[test]
    fn operations_inside_transactions_count_and_a_txn_of_one_is_none() {
        let put = || Answer::<Plaintext>::Put { prev: None };
        let range = || Answer::Range(RangeAnswer { kvs: Vec::new(), more: false, count: 0 });
        let txn = |responses| Answer::Txn(TxnAnswer { succeeded: true, responses });
        let work = Work::default();
        work.done(&put());
        work.done(&txn(vec![put()]));
        work.done(&txn(vec![range(), txn(vec![put(), Answer::Delete { deleted: 9, prev: Vec::new() }])]));
        let totals = totals(&work);
        assert_eq!((totals.ranges, totals.puts, totals.deletes, totals.txns), (1, 3, 1, 1));
    }

    #[test]
    fn leases_are_counted_by_their_time() {
        let work = Work::default();
        for ttl in [1, 2, 60, i64::MAX] {
            work.done(&Answer::<Plaintext>::LeaseGranted { id: keygate_core::LeaseId(7), ttl });
        }
        let totals = totals(&work);
        let buckets: Vec<_> = (0..=LEASE_TTL_BOUNDS).filter(|at| totals.lease_ttls[*at] == 1).collect();
        assert_eq!(buckets, [0, 1, 6, LEASE_TTL_BOUNDS]);
    }
}
