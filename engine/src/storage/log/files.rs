//! The log's files as raft-engine sees them: its own way of using them, with a [`Disk`] that is asked before, and cut where
//! the check at start found their end.

use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

use crate::storage::audit::End;
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::framing;

type PlainHandle = <DefaultFileSystem as FileSystem>::Handle;
type PlainWriter = <DefaultFileSystem as FileSystem>::Writer;

/// Why a sync failed. raft-engine panics then, and its words are not for operators.
pub(super) type SyncFailure = Arc<OnceLock<String>>;

pub(super) struct LogFiles {
    plain: DefaultFileSystem,
    disk: Arc<dyn Disk>,
    failure: SyncFailure,
    /// Of files that were not opened yet.
    ends: Mutex<Vec<End>>,
}

pub(super) struct LogFile {
    plain: Arc<PlainHandle>,
    disk: Arc<dyn Disk>,
    failure: SyncFailure,
}

pub(super) struct LogWriter {
    plain: PlainWriter,
    disk: Arc<dyn Disk>,
}

pub(super) struct LogReader(<DefaultFileSystem as FileSystem>::Reader);

impl LogFiles {
    /// Files are cut at `ends` when they are opened. raft-engine would do that by itself, but believes the alignment in a
    /// damaged header, and asks for as much memory; and a file without header it goes on with in an older format.
    pub(super) fn new(disk: Arc<dyn Disk>, failure: SyncFailure, ends: Vec<End>) -> LogFiles {
        LogFiles { plain: DefaultFileSystem, disk, failure, ends: Mutex::new(ends) }
    }

    fn cut(&self, file: &LogFile, offset: usize) -> Result<()> {
        file.truncate(offset)?;
        if offset < framing::FILE_HEADER {
            file.truncate(0)?;
            self.disk.before_write(DiskFile::Log, 0)?;
            self.plain.new_writer(file.plain.clone())?.write_all(&framing::file_header())?;
        }
        file.sync()
    }

    fn take_end(&self, path: &Path) -> Option<End> {
        let mut ends = self.ends.lock();
        let at = ends.iter().position(|end| end.file.file_name() == path.file_name())?;
        Some(ends.swap_remove(at))
    }

    fn file(&self, plain: PlainHandle) -> LogFile {
        LogFile { plain: Arc::new(plain), disk: self.disk.clone(), failure: self.failure.clone() }
    }
}

impl FileSystem for LogFiles {
    type Handle = LogFile;
    type Reader = LogReader;
    type Writer = LogWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> Result<LogFile> {
        self.disk.before_write(DiskFile::Log, 0)?;
        self.plain.create(path).map(|plain| self.file(plain))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> Result<LogFile> {
        let file = self.file(self.plain.open(&path, permission)?);
        if let Some(end) = self.take_end(path.as_ref()) {
            self.cut(&file, end.offset)?;
        }
        Ok(file)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> Result<()> {
        self.plain.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> Result<()> {
        self.plain.rename(from, to)
    }

    fn new_reader(&self, file: Arc<LogFile>) -> Result<LogReader> {
        self.plain.new_reader(file.plain.clone()).map(LogReader)
    }

    fn new_writer(&self, file: Arc<LogFile>) -> Result<LogWriter> {
        let plain = self.plain.new_writer(file.plain.clone())?;
        Ok(LogWriter { plain, disk: file.disk.clone() })
    }
}

impl Handle for LogFile {
    fn truncate(&self, offset: usize) -> Result<()> {
        self.plain.truncate(offset)
    }

    fn file_size(&self) -> Result<usize> {
        self.plain.file_size()
    }

    fn sync(&self) -> Result<()> {
        let synced = self.disk.before_sync(DiskFile::Log).and_then(|()| self.plain.sync());
        if let Err(error) = &synced {
            // The first cause stays.
            self.failure.set(format!("sync failed: {error} ({})", error.kind())).ok();
        }
        synced
    }
}

impl Read for LogReader {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.0.read(buffer)
    }
}

impl Seek for LogReader {
    fn seek(&mut self, position: SeekFrom) -> Result<u64> {
        self.0.seek(position)
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.disk.before_write(DiskFile::Log, self.plain.stream_position()?)?;
        self.plain.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.plain.flush()
    }
}

impl Seek for LogWriter {
    fn seek(&mut self, position: SeekFrom) -> Result<u64> {
        self.plain.seek(position)
    }
}

impl WriteExt for LogWriter {
    fn truncate(&mut self, offset: usize) -> Result<()> {
        self.plain.truncate(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> Result<()> {
        self.plain.allocate(offset, size)
    }
}
