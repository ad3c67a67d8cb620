//! Everything the engine keeps on disk: the data directory, the Raft log and the store.
//!
//! Promises: what was acknowledged is on stable storage; what is read was verified by our own checksums; damage is
//! detected and named before anything that depends on it is served; nothing read from disk can panic the process.
//! The formats are written down in `docs/formats/log.md` and `docs/formats/store.md`.

mod audit;
mod checksum;
pub mod data_dir;
pub mod disk;
pub mod error;
mod framing;
pub mod log;
mod record;
mod row;
pub mod store;

use std::path::PathBuf;

pub use data_dir::DataDir;
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{Damage, StorageError};
pub use log::{LogOptions, RaftLog};
pub use row::RowKey;
pub use store::{Applied, Change, CommitStats, Store};

/// What was found and repaired while opening. The caller logs each finding as a warning.
#[derive(Debug, Default)]
pub struct OpenReport {
    pub findings: Vec<Finding>,
}

/// One thing that was not as a clean shutdown would have left it, and was safe to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub file: PathBuf,
    /// Byte offset in `file`.
    pub offset: u64,
    pub what: String,
}

impl OpenReport {
    pub(crate) fn add(&mut self, file: impl Into<PathBuf>, offset: u64, what: impl Into<String>) {
        self.findings.push(Finding { file: file.into(), offset, what: what.into() });
    }
}

/// Runs code of a foreign library over bytes from disk; a panic in it becomes its message.
///
/// Contract: `work` leaves nothing of ours half-changed when it unwinds (callers drop or poison what it touched).
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "panic without a message".to_owned())
    })
}

/// Sixteen unpredictable bytes from the operating system.
fn random_16() -> std::io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}
