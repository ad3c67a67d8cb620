//! The current TLS configuration, and when to make it anew.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::{ClientCertificates, Dated, Loaded, TlsError, TlsSources, What, load};
use crate::identify::rules::Rules;

/// Shared by all threads. Connections that are open keep the keys they began with, and are told to
/// look whether their certificate still holds.
pub struct ReloadingTls {
    sources: TlsSources,
    current: RwLock<Arc<Loaded>>,
    /// Counts what was loaded.
    changes: watch::Sender<u64>,
    /// The same, for those who look at each request.
    generation: AtomicU64,
    /// What the files were when they were last looked at, usable or not.
    seen: Mutex<Seen>,
    /// Lists that ran out, as far as that was said.
    run_out: Mutex<Vec<Dated>>,
    /// The last files could not be used.
    is_behind: AtomicBool,
}

/// What was looked at last, and what came of it.
#[derive(Default)]
struct Seen {
    /// From before they were read, those that the newest rules name among them, be they usable or not.
    files: Vec<(PathBuf, Stamp)>,
    failure: Option<Failure>,
}

/// The files could not be used: not for good, perhaps.
struct Failure {
    told: String,
    pause: Duration,
    again: Instant,
}

/// Why files are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Somebody asked for it, or they changed.
    Asked,
    Retry,
}

/// Between tries, doubled with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// Enough of a file's metadata to notice a new one, be it written in place, renamed over, or
/// swapped by a symbolic link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stamp {
    Missing,
    File { device: u64, inode: u64, size: u64, changed: i64, changed_nanoseconds: i64 },
}

impl Stamp {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) => Self::File {
                device: metadata.dev(),
                inode: metadata.ino(),
                size: metadata.len(),
                changed: metadata.ctime(),
                changed_nanoseconds: metadata.ctime_nsec(),
            },
            Err(_) => Self::Missing,
        }
    }
}

impl ReloadingTls {
    pub fn open(sources: TlsSources) -> Result<Self, TlsError> {
        // Stamps before contents: a change in between is seen at the next look.
        let files = look(&sources);
        let current = RwLock::new(Arc::new(load(&sources)?));
        let seen = Mutex::new(Seen { files, failure: None });
        let tls = Self {
            sources,
            current,
            changes: watch::Sender::new(0),
            seen,
            run_out: Mutex::default(),
            is_behind: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        };
        tls.tell_of_lists(SystemTime::now());
        Ok(tls)
    }

    /// For a connection that begins now.
    pub fn current(&self) -> Arc<Loaded> {
        self.current.read().clone()
    }

    /// The files on disk cannot be used, and what was read before is in force.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Grows with each reload.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Changes whenever a certificate may have ceased to hold.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// To be called about once a second. Looks at the files' metadata; reads them when one changed, and
    /// now and then while they cannot be used.
    pub fn reload_if_changed(&self) {
        self.tell_of_lists(SystemTime::now());
        let why = {
            let seen = self.seen.lock();
            if seen.files.iter().any(|(path, stamp)| Stamp::of(path) != *stamp) {
                Why::Asked
            } else if seen.failure.as_ref().is_some_and(|failure| failure.again <= Instant::now()) {
                Why::Retry
            } else {
                return;
            }
        };
        self.read(why);
    }

    /// Reads the files whether they changed or not. Says in the log what came of it.
    pub fn reload(&self) {
        self.read(Why::Asked);
    }

    fn read(&self, why: Why) {
        let files = look(&self.sources);
        match load(&self.sources) {
            Ok(loaded) => {
                *self.seen.lock() = Seen { files, failure: None };
                self.is_behind.store(false, Ordering::Relaxed);
                *self.current.write() = Arc::new(loaded);
                self.generation.fetch_add(1, Ordering::Release);
                self.changes.send_modify(|count| *count += 1);
                tracing::info!(cert = %self.sources.cert.display(), "TLS files were read again");
                self.tell_of_lists(SystemTime::now());
            }
            // An operator writes certificate and key one after the other: between the two they do
            // not fit, and the next look finds them whole.
            Err(error) => {
                self.is_behind.store(true, Ordering::Relaxed);
                let mut seen = self.seen.lock();
                let told = error.to_string();
                let before = seen.failure.take().filter(|before| why == Why::Retry && before.told == told);
                if before.is_none() {
                    tracing::error!(%error, "changed TLS files cannot be used; the previous ones stay in use");
                }
                let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
                let again = Instant::now() + pause;
                *seen = Seen { files, failure: Some(Failure { told, pause, again }) };
            }
        }
    }

    /// Once for each list.
    fn tell_of_lists(&self, now: SystemTime) {
        let current = self.current();
        let late = current
            .dates()
            .filter(|dated| dated.what == What::RevocationList && dated.ends.is_some_and(|ends| ends <= now));
        let late: Vec<_> = late.cloned().collect();
        let mut told = self.run_out.lock();
        for list in late.iter().filter(|list| !told.contains(list)) {
            tracing::error!(
                issuer = list.name,
                file = %list.path.display(),
                "a revocation list has expired: certificates of its authority are refused until a new list is in the file; open connections stay"
            );
        }
        *told = late;
    }
}

/// What the configuration names.
fn named_files(sources: &TlsSources) -> Vec<PathBuf> {
    let ca = match &sources.client_certificates {
        ClientCertificates::Ignored => None,
        ClientCertificates::Optional { ca } | ClientCertificates::Required { ca } => Some(ca),
    };
    let lists = sources.revocation.as_ref().map(|revocation| &revocation.path);
    let rules = sources.identity_rules.as_ref();
    [Some(&sources.cert), Some(&sources.key), ca, lists, rules].into_iter().flatten().cloned().collect()
}

/// Every file, those that the rules on disk name among them, before any is read for use.
fn look(sources: &TlsSources) -> Vec<(PathBuf, Stamp)> {
    let stamped = |path: PathBuf| {
        let stamp = Stamp::of(&path);
        (path, stamp)
    };
    let mut files: Vec<_> = named_files(sources).into_iter().map(stamped).collect();
    // What is wrong with rules is said when they are loaded.
    if let Some(Ok(rules)) = sources.identity_rules.as_deref().map(Rules::read) {
        files.extend(rules.files().cloned().map(stamped));
    }
    files
}
