//! After too many wrong passwords a login is refused without comparing, for a while.
//!
//! Counted is a user as seen from one source: a stranger locks out nobody who logs in from elsewhere. A source that fails
//! for many names is refused altogether, but for those who have logged in from there before. A ceiling for a user from
//! everywhere exists where it is asked for. Names that no user has count like those of users, so that
//! nothing can be learnt from being refused; nor does a right password help while it is refused. A new password begins
//! a new count: that is how an operator lets somebody in again.
//!
//! No clock here: time is what callers say it is.

mod counts;
mod proven;
mod sources;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use keygate_core::KeyspaceId;
use parking_lot::Mutex;

use super::Source;
use crate::accept::{LogBudget, LogLine};
use counts::Counts;
use sources::Sources;

/// When logins are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LockoutRules {
    /// Wrong passwords for one user from one source; 0 is any number.
    pub threshold: u32,
    /// Wrong passwords for one user from everywhere; 0 is any number.
    pub user_threshold: u32,
    pub duration: Duration,
    /// After so long without a wrong password, those before do not count.
    pub counter_reset: Duration,
}

/// Who has failed how often. One for the process.
pub struct Lockout {
    rules: LockoutRules,
    /// None: not counted.
    sources: Option<Mutex<Sources>>,
    users: Option<Mutex<Counts>>,
    /// Nobody outside can tell what shares a place.
    hashes: ahash::RandomState,
    began: Instant,
    tally: Tally,
    log: LogBudget,
}

#[derive(Default)]
struct Tally {
    of_sources: AtomicU64,
    of_users: AtomicU64,
    refused: AtomicU64,
}

/// One login, for those who count it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attempt {
    source: u64,
    /// The user as seen from that source.
    seen: u64,
    user: u64,
    is_known: bool,
}

/// Who logs in.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    pub keyspace: KeyspaceId,
    pub user: &'a str,
    /// Of the user's password; None: there is no such user.
    pub credential_revision: Option<u64>,
}

/// What has just been locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Locked {
    /// The user, for this source.
    Source,
    /// The user, for everybody.
    User,
}

/// What has happened since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lockouts {
    pub of_sources: u64,
    pub of_users: u64,
    /// Logins that were refused without comparing.
    pub refused: u64,
}

/// Groups that users share, where they are counted from everywhere.
const USER_GROUPS: u64 = 4096;

impl Lockout {
    pub fn new(rules: LockoutRules, now: Instant) -> Self {
        let of_users = || Mutex::new(Counts::new(rules.user_threshold, &rules));
        Self {
            sources: (rules.threshold > 0).then(|| Mutex::new(Sources::new(&rules))),
            users: (rules.user_threshold > 0).then(of_users),
            rules,
            hashes: ahash::RandomState::new(),
            began: now,
            tally: Tally::default(),
            log: LogBudget::default(),
        }
    }

    pub fn rules(&self) -> LockoutRules {
        self.rules
    }

    pub fn attempt(&self, name: Name<'_>, source: Source) -> Attempt {
        let Name { keyspace, user, credential_revision } = name;
        let user = self.hashes.hash_one((keyspace, user, credential_revision));
        // What is made up in one tenant refuses nobody in another.
        let source = self.hashes.hash_one((keyspace, source));
        Attempt {
            source,
            seen: self.hashes.hash_one((user, source)),
            user,
            is_known: credential_revision.is_some(),
        }
    }

    /// Whether this login is to be refused as a wrong password is, and nothing compared.
    pub fn refuses(&self, attempt: Attempt, now: Instant) -> bool {
        let now = self.millis(now);
        let by_source = || {
            let sources = self.sources.as_ref();
            sources.is_some_and(|sources| sources.lock().is_locked(attempt.source, attempt.seen, now))
        };
        let by_user = || {
            let (group, account) = attempt.by_user();
            self.users.as_ref().is_some_and(|users| users.lock().is_locked(group, account, now))
        };
        let refused = by_source() || by_user();
        if refused {
            self.tally.refused.fetch_add(1, Relaxed);
        }
        refused
    }

    /// The password was wrong. Tells what this locks, once.
    pub fn failed(&self, attempt: Attempt, now: Instant) -> Option<Locked> {
        let now = self.millis(now);
        // Both count, whichever locks.
        let sources = self.sources.as_ref();
        let source = sources.is_some_and(|sources| sources.lock().fail(attempt.source, attempt.seen, now));
        let (group, account) = attempt.by_user();
        let user = self.users.as_ref().is_some_and(|users| users.lock().fail(group, account, now));
        let (locked, tally) = match (source, user) {
            (_, true) => (Locked::User, &self.tally.of_users),
            (true, false) => (Locked::Source, &self.tally.of_sources),
            (false, false) => return None,
        };
        tally.fetch_add(1, Relaxed);
        Some(locked)
    }

    /// The password was right. What others have tried stays counted.
    pub fn succeeded(&self, attempt: Attempt, now: Instant) {
        if let Some(sources) = &self.sources {
            sources.lock().succeed(attempt.source, attempt.seen, self.millis(now));
        }
    }

    /// How many lines were left out since the last one; None: this is another of them.
    pub(super) fn may_log(&self, now: Instant) -> Option<u64> {
        match self.log.ask(now) {
            LogLine::Write { left_out } => Some(left_out),
            LogLine::LeaveOut => None,
        }
    }

    pub fn tally(&self) -> Lockouts {
        Lockouts {
            of_sources: self.tally.of_sources.load(Relaxed),
            of_users: self.tally.of_users.load(Relaxed),
            refused: self.tally.refused.load(Relaxed),
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.began))
    }
}

impl Attempt {
    /// Made-up names do not share a group with users, and so take no place from them.
    fn by_user(self) -> (u64, u64) {
        (self.user % USER_GROUPS * 2 + u64::from(self.is_known), self.user)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
