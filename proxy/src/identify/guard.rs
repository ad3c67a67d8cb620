//! Stands before one comparison of a password: asks the lockout, tells it what came of it, and tells the operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::lockout::{Attempt, Locked, Lockout};

/// One login. Without a lockout it lets everything pass.
pub(super) struct Guard(Option<Watched>);

struct Watched {
    lockout: Arc<Lockout>,
    attempt: Attempt,
    who: Who,
}

/// For the operator.
pub(super) struct Who {
    pub(super) tenant: Arc<str>,
    /// None: there is no such user. The name is not told then: it may be a password in the wrong place.
    pub(super) user: Option<Arc<str>>,
    pub(super) peer: SocketAddr,
}

impl Guard {
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new(lockout: Arc<Lockout>, attempt: Attempt, who: Who) -> Self {
        Self(Some(Watched { lockout, attempt, who }))
    }

    /// Whether nothing is to be compared.
    pub(super) fn refuses(&self) -> bool {
        self.0.as_ref().is_some_and(|it| it.lockout.refuses(it.attempt, Instant::now()))
    }

    pub(super) fn told(&self, right: bool) {
        let Some(Watched { lockout, attempt, who }) = &self.0 else { return };
        let now = Instant::now();
        if right {
            return lockout.succeeded(*attempt, now);
        }
        let Some(locked) = lockout.failed(*attempt, now) else { return };
        let Some(left_out) = lockout.may_log(now) else { return };
        let rules = lockout.rules();
        let (whence, after) = match locked {
            Locked::Source => ("this address", rules.threshold),
            Locked::User => ("everywhere", rules.user_threshold),
        };
        tracing::warn!(
            tenant = %who.tenant,
            user = who.user.as_deref().unwrap_or("(no such user)"),
            remote_addr = %who.peer,
            from = whence,
            after,
            lasts = ?rules.duration,
            left_out,
            "too many wrong passwords: logins are refused for a while; a new password lets the user in at once"
        );
    }
}
