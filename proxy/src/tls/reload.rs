//! The current TLS configuration, and when to make it anew.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;

use super::{ClientCertificates, TlsError, TlsSources, load};

/// Shared by all threads. Connections that are open keep the configuration they began with.
pub struct ReloadingTls {
    sources: TlsSources,
    current: RwLock<Arc<ServerConfig>>,
    /// What the files were when they were last looked at, usable or not.
    seen: Mutex<Vec<Stamp>>,
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
        let seen = stamps(&sources);
        let current = load(&sources)?;
        Ok(Self { sources, current: RwLock::new(current), seen: Mutex::new(seen) })
    }

    /// For a connection that begins now.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.read().clone()
    }

    /// To be called about once a second. Looks at four files' metadata; reads them when one changed.
    pub fn reload_if_changed(&self) {
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
            Ok(config) => {
                *self.current.write() = config;
                tracing::info!(cert = %self.sources.cert.display(), "TLS files were read again");
            }
            // An operator writes certificate and key one after the other: between the two they do
            // not fit, and the next look finds them whole.
            Err(error) => {
                tracing::error!(%error, "changed TLS files cannot be used; the previous ones stay in use");
            }
        }
    }
}

fn stamps(sources: &TlsSources) -> Vec<Stamp> {
    let ca = match &sources.client_certificates {
        ClientCertificates::Ignored => None,
        ClientCertificates::Optional { ca } | ClientCertificates::Required { ca } => Some(ca),
    };
    [Some(&sources.cert), Some(&sources.key), ca].into_iter().flatten().map(|path| Stamp::of(path)).collect()
}
