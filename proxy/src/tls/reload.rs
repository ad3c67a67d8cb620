//! The current TLS configuration, and when to make it anew.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::authority::Lapse;
use super::{ClientCertificates, Loaded, TlsError, TlsSources, load};

/// Shared by all threads. Connections that are open keep the keys they began with, and are told to
/// look whether their certificate still holds.
pub struct ReloadingTls {
    sources: TlsSources,
    current: RwLock<Arc<Loaded>>,
    /// Counts what was loaded.
    changes: watch::Sender<u64>,
    /// What the files were when they were last looked at, usable or not.
    seen: Mutex<Vec<Stamp>>,
    /// Issuers of lists that ran out, as far as that was said.
    run_out: Mutex<Vec<String>>,
}

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
        let seen = Mutex::new(stamps(&sources));
        let current = RwLock::new(Arc::new(load(&sources)?));
        let tls = Self { sources, current, changes: watch::Sender::new(0), seen, run_out: Mutex::default() };
        tls.tell_of_lists(SystemTime::now());
        Ok(tls)
    }

    /// For a connection that begins now.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.read().config.clone()
    }

    /// Changes whenever a certificate may have ceased to hold.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether a chain that was accepted once still holds.
    pub fn still_holds(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), Lapse> {
        let current = self.current.read().clone();
        current.authority.as_ref().map_or(Ok(()), |authority| authority.still_holds(chain, now))
    }

    /// To be called about once a second. Looks at the files' metadata; reads them when one changed.
    pub fn reload_if_changed(&self) {
        self.tell_of_lists(SystemTime::now());
        let now = stamps(&self.sources);
        {
            let mut seen = self.seen.lock();
            if *seen == now {
                return;
            }
            *seen = now;
        }
        self.reload();
    }

    /// Reads the files whether they changed or not. Says in the log what came of it.
    pub fn reload(&self) {
        match load(&self.sources) {
            Ok(loaded) => {
                *self.current.write() = Arc::new(loaded);
                self.changes.send_modify(|count| *count += 1);
                tracing::info!(cert = %self.sources.cert.display(), "TLS files were read again");
                self.tell_of_lists(SystemTime::now());
            }
            // An operator writes certificate and key one after the other: between the two they do
            // not fit, and the next look finds them whole.
            Err(error) => {
                tracing::error!(%error, "changed TLS files cannot be used; the previous ones stay in use");
            }
        }
    }

    /// Once for each list.
    fn tell_of_lists(&self, now: SystemTime) {
        let Some(revocation) = &self.sources.revocation else { return };
        let current = self.current.read().clone();
        let lists = current.authority.iter().flat_map(|authority| &authority.lists);
        let late = lists.filter(|list| list.next_update.is_some_and(|next| next <= now));
        let late: Vec<String> = late.map(|list| list.issuer.clone()).collect();
        let mut told = self.run_out.lock();
        for issuer in late.iter().filter(|issuer| !told.contains(issuer)) {
            tracing::error!(
                issuer,
                file = %revocation.path.display(),
                "a revocation list has expired: certificates of its authority are refused until a new list is in the file; open connections stay"
            );
        }
        *told = late;
    }
}

fn stamps(sources: &TlsSources) -> Vec<Stamp> {
    let ca = match &sources.client_certificates {
        ClientCertificates::Ignored => None,
        ClientCertificates::Optional { ca } | ClientCertificates::Required { ca } => Some(ca),
    };
    let lists: Option<&PathBuf> = sources.revocation.as_ref().map(|revocation| &revocation.path);
    let files = [Some(&sources.cert), Some(&sources.key), ca, lists];
    files.into_iter().flatten().map(|path| Stamp::of(path)).collect()
}
