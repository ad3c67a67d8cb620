//! The calls by which log and store change what is on disk and by which the store reads, as an argument: so that a test
//! can make them fail.

use std::fmt::Debug;
use std::io;

/// Which of the two kinds of files a call is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskFile {
    Log,
    Store,
}

/// Asked before each write and each sync of log and store, and before each read of the store.
///
/// # Contract
/// An error stands for the call, which is then not made. Answers at once: the hot path asks.
pub trait Disk: Send + Sync + Debug {
    /// `offset` is where in its file the write begins.
    fn before_write(&self, file: DiskFile, offset: u64) -> io::Result<()>;
    fn before_sync(&self, file: DiskFile) -> io::Result<()>;
    fn before_read(&self, _: DiskFile, _offset: u64) -> io::Result<()> {
        Ok(())
    }
}

/// The disk as it is.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn before_write(&self, _: DiskFile, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn before_sync(&self, _: DiskFile) -> io::Result<()> {
        Ok(())
    }
}
