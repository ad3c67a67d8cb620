//! What somebody asked for since they are counted.
//!
//! Nearly every request counts here, and a user's requests come on all serving threads. So each thread has counters of its
//! own: one that all write to would be fetched from another core each time, which costs more than the limits themselves.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Threads beyond so many share.
const SHARES: usize = 4;

#[derive(Default)]
pub(super) struct Load([Share; SHARES]);

/// Has a cache line for itself.
#[derive(Default)]
#[repr(align(64))]
struct Share {
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    refusals: AtomicU64,
}

/// All of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct LoadTotals {
    pub(super) requests: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) refusals: u64,
}

impl Load {
    pub(super) fn asked(&self, bytes: u64) {
        let share = self.share();
        share.requests.fetch_add(1, Relaxed);
        share.bytes_in.fetch_add(bytes, Relaxed);
    }

    pub(super) fn answered(&self, bytes: u64) {
        self.share().bytes_out.fetch_add(bytes, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.share().refusals.fetch_add(1, Relaxed);
    }

    pub(super) fn totals(&self) -> LoadTotals {
        let sum = |of: fn(&Share) -> &AtomicU64| self.0.iter().map(|share| of(share).load(Relaxed)).sum();
        LoadTotals {
            requests: sum(|share| &share.requests),
            bytes_in: sum(|share| &share.bytes_in),
            bytes_out: sum(|share| &share.bytes_out),
            refusals: sum(|share| &share.refusals),
        }
    }

    fn share(&self) -> &Share {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static OWN: usize = THREADS.fetch_add(1, Relaxed) % SHARES;
        }
        &self.0[OWN.with(|own| *own)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_is_added_up() {
        let load = Load::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARES {
                scope.spawn(|| {
                    load.asked(10);
                    load.asked(1);
                    load.answered(100);
                    load.refused();
                });
            }
        });
        let threads = 2 * SHARES as u64;
        let expected = LoadTotals {
            requests: 2 * threads,
            bytes_in: 11 * threads,
            bytes_out: 100 * threads,
            refusals: threads,
        };
        assert_eq!(load.totals(), expected);
    }
}
