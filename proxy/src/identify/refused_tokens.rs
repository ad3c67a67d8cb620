//! Counts tokens that did not hold, and tells the operator why, so that a client that is locked out at night is not a
//! riddle. A flood of them does not fill the log, and no line has a token in it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::invalid::{Invalid, Reason};
use crate::accept::{LogBudget, LogLine};

#[derive(Default)]
pub struct RefusedTokens {
    counts: [AtomicU64; Reason::ALL.len()],
    lines: LogBudget,
}

impl RefusedTokens {
    /// `issuer` is what the operator calls it, None: it is our own. It costs something, and is asked when a line is written.
    pub(super) fn note(&self, peer: SocketAddr, issuer: impl FnOnce() -> Option<Arc<str>>, why: &Invalid) {
        let reason = why.reason();
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        let LogLine::Write { left_out } = self.lines.ask(Instant::now()) else { return };
        let issuer = issuer();
        let (reason, issuer) = (reason.name(), issuer.as_deref().unwrap_or("own"));
        match why {
            // Clients meet this every few minutes, log in again and go on.
            Invalid::Unknown | Invalid::Expired { .. } => {
                tracing::info!(remote_addr = %peer, issuer, reason, %why, left_out, "a token does not hold");
            }
            _ => tracing::warn!(remote_addr = %peer, issuer, reason, %why, left_out, "a token does not hold"),
        }
    }

    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |reason: Reason| self.counts[reason as usize].load(Ordering::Relaxed);
        Reason::ALL.into_iter().map(move |(reason, name)| (name, count(reason)))
    }
}
