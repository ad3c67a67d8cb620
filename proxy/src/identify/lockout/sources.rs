//! Users as seen from one source: those who have logged in from there, and strangers.
//!
//! Strangers of a source share its places, and are refused together once all of these are locked: that ends the trying
//! of one password on many names. Behind one address there may be a whole office, so whoever has shown from there who
//! they are is not refused for what others do.

use super::LockoutRules;
use super::counts::Counts;
use super::proven::Proven;

pub(super) struct Sources {
    strangers: Counts,
    proven: Proven,
}

impl Sources {
    pub(super) fn new(rules: &LockoutRules) -> Self {
        Self { strangers: Counts::new(rules.threshold, rules), proven: Proven::new(rules) }
    }

    pub(super) fn is_locked(&self, source: u64, seen: u64, now: u64) -> bool {
        let proven = self.proven.is_locked(seen, now);
        proven.unwrap_or_else(|| self.strangers.is_locked(source, seen, now))
    }

    /// True: it is locked by this.
    pub(super) fn fail(&mut self, source: u64, seen: u64, now: u64) -> bool {
        let proven = self.proven.fail(seen, now);
        proven.unwrap_or_else(|| self.strangers.fail(source, seen, now))
    }

    pub(super) fn succeed(&mut self, source: u64, seen: u64, now: u64) {
        // One that was compared while others locked it does not become free by this.
        if self.proven.is_locked(seen, now).is_some() || !self.strangers.is_locked(source, seen, now) {
            self.proven.succeed(seen, now);
        }
        self.strangers.forgive(source, seen);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.strangers.len() + self.proven.len()
    }
}
