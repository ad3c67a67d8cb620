//! What one member of a tenant is to one key, and what callers are who are several members at once.

use crate::decision::Outcome;

/// Which kinds of rows hold the key for somebody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Standing {
    pub(super) allow: bool,
    pub(super) hide: bool,
    pub(super) reject: bool,
}

impl Standing {
    /// That of somebody who is both.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            allow: self.allow || other.allow,
            hide: self.hide || other.hide,
            reject: self.reject || other.reject,
        }
    }

    /// Standings that no company can tell apart are one.
    pub(super) fn essence(self) -> Self {
        if self.reject { Self { reject: true, ..Self::default() } } else { self }
    }

    pub(super) fn outcome(self) -> Outcome {
        match (self.reject, self.allow, self.hide) {
            (true, ..) | (_, false, _) => Outcome::Deny,
            (false, true, true) => Outcome::Filter,
            (false, true, false) => Outcome::Allow,
        }
    }
}

/// Before and after.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Pair {
    pub(super) before: Standing,
    pub(super) after: Standing,
}

impl Pair {
    pub(super) fn with(self, other: Self) -> Self {
        Self { before: self.before.with(other.before), after: self.after.with(other.after) }
    }

    pub(super) fn essence(self) -> Self {
        Self { before: self.before.essence(), after: self.after.essence() }
    }

    /// May somebody do more behind the change, if they could do it as far as rows let them, by tables for instance?
    pub(super) fn is_gain(self) -> bool {
        let (before, after) = (self.before, self.after);
        let is_lifted = before.hide && !after.hide;
        (before.reject && !after.reject) || (!after.reject && (is_lifted || (after.allow && !before.allow)))
    }

    /// The change, if there is one.
    pub(super) fn change(self) -> Option<(Outcome, Outcome)> {
        let (before, after) = (self.before.outcome(), self.after.outcome());
        (before != after).then_some((before, after))
    }
}
