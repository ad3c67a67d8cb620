//! The passage of time as an argument, so that tests can bend it.

use std::time::Instant;

/// # Contract
/// Monotonic. Only differences mean anything.
pub trait Clock: Send + Sync {
    fn now(&self) -> Instant;
}

pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}
