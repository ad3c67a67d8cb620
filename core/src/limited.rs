//! A limit that an operator set, and a request that met it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a client is told, so that it knows what to do, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limited {
    /// As the operator's configuration names it.
    pub rule: &'static str,
    /// Whose limit it is, told to those whom it concerns: "user `alice` of tenant `pay`".
    pub subject: Arc<str>,
    pub limit: u64,
    pub retry: Retry,
}

/// Whether asking again helps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    After {
        wait: Duration,
        /// What would pass now.
        remaining: u64,
        /// Until as much passes as ever does.
        reset: Duration,
    },
    /// When something that is held was given back.
    WhenFreed,
    /// Only asking for less helps.
    Never,
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, subject, limit, retry } = self;
        write!(f, "limit `{rule}` of {subject} is `{limit}`")?;
        match retry {
            Retry::After { wait, .. } => write!(f, "; ask again in {} ms", wait.as_millis().max(1)),
            Retry::WhenFreed => write!(f, " and is used up"),
            Retry::Never => write!(f, "; ask for less"),
        }
    }
}
