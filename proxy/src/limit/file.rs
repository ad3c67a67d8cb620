//! The file that holds the limits, read again when it changes. One that cannot be used changes nothing.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Limiter;
use crate::config::LimitsSource;

pub struct LimitsFile {
    source: LimitsSource,
    limiter: Arc<Limiter>,
    /// What the file was when it was last looked at, usable or not.
    seen: Mutex<Option<Stamp>>,
    failures: AtomicU64,
    is_behind: AtomicBool,
}

/// Enough of a file's metadata to notice a new one. None: it cannot be looked at.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(path: &PathBuf) -> Option<Stamp> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
}

impl LimitsFile {
    /// `limiter` has what the file said when the server started.
    pub fn new(source: LimitsSource, limiter: Arc<Limiter>) -> Self {
        let seen = Mutex::new(stamp(source.path()));
        Self { source, limiter, seen, failures: AtomicU64::new(0), is_behind: AtomicBool::new(false) }
    }

    /// How often it could not be used since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// What is in the file cannot be used, and what it said before is in force.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// To be called about once a second.
    pub fn reload_if_changed(&self) {
        let now = stamp(self.source.path());
        if std::mem::replace(&mut *self.seen.lock(), now) != now {
            self.reload();
        }
    }

    /// Reads the file whether it changed or not. Says in the log what came of it.
    pub fn reload(&self) {
        let file = self.source.path().display();
        let read = self.source.read();
        self.is_behind.store(read.is_err(), Ordering::Relaxed);
        match read {
            Ok(rules) if rules == *self.limiter.rules() => {
                tracing::info!(%file, "limits were read again, and are the same")
            }
            Ok(rules) => {
                let count = rules.told.len();
                self.limiter.adopt(rules);
                tracing::info!(%file, rules = count, "limits were read again, and are in force");
            }
            Err(problems) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                tracing::error!(
                    %file,
                    problems = problems.join("; "),
                    "changed limits cannot be used; the previous ones stay in force, but a restart would not start with these"
                );
            }
        }
    }
}
