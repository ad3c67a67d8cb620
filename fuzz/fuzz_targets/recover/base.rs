//! The undamaged data directory of a small member with a past, and everything that was ever true of it.

use bytes::Bytes;
use keygate_engine::storage::{
    Applied, Change, DataDir, Finding, LogOptions, OpenReport, RaftLog, RowKey, StorageError, Store,
};
use raft::eraftpb::{ConfState, Entry, HardState};
use raft::{GetEntriesContext, Storage};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{panic, thread};
use tempfile::TempDir;

pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone, PartialEq)]
pub struct LogContent {
    first: u64,
    first_term: u64,
    pub entries: Vec<Entry>,
    hard_state: HardState,
    voters: Vec<u64>,
    meta: Option<Vec<u8>>,
}

/// What a start finds.
pub struct Opened {
    pub log: LogContent,
    pub rows: Rows,
    pub applied: Applied,
    pub findings: Vec<Finding>,
}

pub struct Base {
    /// Relative path and content, in the order of paths; empty files left out of [`Self::damageable`].
    pub files: Vec<(PathBuf, Vec<u8>)>,
    pub damageable: Vec<usize>,
    /// The log after each write, the newest last.
    pub logs: Vec<LogContent>,
    /// The rows after each commit, by applied index.
    pub commits: BTreeMap<u64, Rows>,
    /// What is reported of the undamaged directory.
    pub findings: Vec<String>,
}

fn options() -> LogOptions {
    LogOptions {
        file_bytes: 6 << 10,
        purge_bytes: 12 << 10,
        prefill_bytes: 0,
        cache_bytes: 0,
        id: Some(*b"a log to damage!"),
        ..LogOptions::default()
    }
}

/// A start: everything is opened, verified and read.
pub fn start(path: &Path) -> Result<Opened, StorageError> {
    // raft-engine remembers the last block that a thread has read, of whichever log it was.
    let opened = thread::scope(|scope| scope.spawn(|| open(path)).join());
    opened.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

fn open(path: &Path) -> Result<Opened, StorageError> {
    let data = DataDir::open(path)?;
    let mut report = OpenReport::default();
    let log = RaftLog::open(&data.log(), options(), &mut report)?;
    let store = Store::open(&data.store(), 1 << 20, &mut report)?;
    let rows = RefCell::new(Rows::new());
    let applied = store.load(
        |key, value| drop(rows.borrow_mut().insert(format!("{key:?}").into(), value.to_vec())),
        |key, value| drop(rows.borrow_mut().insert(key.to_vec(), value.to_vec())),
    )?;
    log.covers(applied)?;
    Ok(Opened { log: content(&log)?, rows: rows.into_inner(), applied, findings: report.findings })
}

/// What a member holds that has gone on from `log`: one more entry, and a SIGKILL while the log is open.
pub fn go_on(path: &Path, log: &LogContent) -> Result<(TempDir, Vec<Entry>), StorageError> {
    let data = DataDir::open(path)?;
    let mut opened = RaftLog::open(&data.log(), options(), &mut OpenReport::default())?;
    assert_eq!(content(&opened)?, *log, "what one start found is not what the next finds");
    let mut entry = Entry::default();
    (entry.index, entry.term) = (log.first + log.entries.len() as u64, log.hard_state.term.max(1));
    entry.data = payload(entry.index).into();
    opened.append(std::slice::from_ref(&entry), None, true)?;
    let killed = private_directory();
    let files: Vec<_> = read_files(path).into_iter().map(|(path, content)| (path, Some(content))).collect();
    write(&files, killed.path());
    Ok((killed, log.entries.iter().cloned().chain([entry]).collect()))
}

fn content(log: &RaftLog) -> Result<LogContent, StorageError> {
    let cause = |error: raft::Error| match error {
        raft::Error::Store(raft::StorageError::Other(inner)) => {
            *inner.downcast::<StorageError>().expect("the log's only errors are its own")
        }
        other => panic!("the log answers with an error of Raft: {other}"),
    };
    let (first, last) = (log.first_index().map_err(cause)?, log.last_index().map_err(cause)?);
    let state = log.initial_state().map_err(cause)?;
    Ok(LogContent {
        first,
        first_term: log.term(first - 1).map_err(cause)?,
        entries: if last < first {
            Vec::new()
        } else {
            log.entries(first, last + 1, None, GetEntriesContext::empty(false)).map_err(cause)?
        },
        hard_state: state.hard_state,
        voters: state.conf_state.voters,
        meta: log.get_meta(b"identity").map(<[u8]>::to_vec),
    })
}

/// In memory where that is possible: every input starts a member, and each start syncs.
pub fn private_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(parent).expect("a temporary directory can be made");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).expect("it is ours");
    directory
}

/// The same bytes each time, so that an input that fails does so again.
fn payload(number: u64) -> Vec<u8> {
    (0..number * 37 % 300).map(|at| (at * 31 + number * 17) as u8).collect()
}

/// As a clean shutdown leaves it, or as SIGKILL does.
pub fn build(clean: bool) -> Base {
    let directory = private_directory();
    let data = DataDir::open(directory.path()).expect("an empty directory opens");
    let mut report = OpenReport::default();
    let mut log = RaftLog::open(&data.log(), options(), &mut report).expect("a new log opens");
    let store = Store::open(&data.store(), 1 << 20, &mut report).expect("a new store opens");
    let read = |log: &RaftLog| content(log).expect("an undamaged log can be read");
    let mut logs = vec![read(&log)];
    let voters = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    log.put_conf_state(&voters).expect("written");
    logs.push(read(&log));
    log.put_meta(b"identity", b"a member of a cluster").expect("written");
    logs.push(read(&log));
    let mut commits = BTreeMap::from([(0, Rows::new())]);
    let mut rows = Rows::new();
    let mut index = 0;
    for round in 0..24_u64 {
        let batch: Vec<Entry> = (0..1 + round * 5 % 7)
            .map(|_| {
                index += 1;
                let mut entry = Entry::default();
                (entry.index, entry.term) = (index, 1 + round / 10);
                entry.data = payload(index).into();
                entry
            })
            .collect();
        let mut state = HardState::default();
        (state.term, state.vote, state.commit) = (1 + round / 10, 1, index - 1);
        log.append(&batch, Some(&state), true).expect("written");
        logs.push(read(&log));
        if round % 6 == 5 {
            let mut changes = Vec::new();
            for number in 0..12_u64 {
                // Of two keyspaces, so that there is a fence.
                let keyspace = 1 + (number % 2) as u32;
                let key = RowKey { keyspace, main: (round * 7 + number * 5 % 40) as i64, sub: 0 };
                rows.insert(format!("{key:?}").into(), payload(round + number));
                changes.push(Change::PutRow { key, value: payload(round + number).into() });
                let key = RowKey { keyspace, main: (round * 5 + number * 3 % 40) as i64, sub: 0 };
                rows.remove(format!("{key:?}").as_bytes());
                changes.push(Change::DeleteRow { key });
                let key = Bytes::from(format!("meta {}", number % 5));
                rows.insert(key.to_vec(), round.to_be_bytes().to_vec());
                changes.push(Change::PutMeta { key, value: round.to_be_bytes().to_vec().into() });
            }
            let term = log.term(index - 1).expect("a term that was just written");
            let previous = store.applied();
            store.commit(&changes, Applied { index: index - 1, term }).expect("written");
            commits.insert(index - 1, rows.clone());
            log.compact_to(previous.index.saturating_sub(5)).expect("written");
            log.purge().expect("purged");
            logs.push(read(&log));
        }
    }
    let files = if clean {
        log.close().expect("closed");
        drop((store, data));
        read_files(directory.path())
    } else {
        read_files(directory.path())
    };
    let damageable = (0..files.len()).filter(|at| !files[*at].1.is_empty()).collect();
    let mut base = Base { files, damageable, logs, commits, findings: Vec::new() };
    let again = private_directory();
    let whole: Vec<_> = base.files.iter().cloned().map(|(path, content)| (path, Some(content))).collect();
    write(&whole, again.path());
    let opened = start(again.path()).expect("the undamaged directory starts");
    assert_eq!(Some(&opened.log), base.logs.last());
    assert_eq!(Some(&opened.rows), base.commits.get(&opened.applied.index));
    base.findings = opened.findings.into_iter().map(|finding| finding.what).collect();
    base
}

/// Makes a data directory of these files.
pub fn write(files: &[(PathBuf, Option<Vec<u8>>)], to: &Path) {
    fs::create_dir_all(to.join("member/log")).expect("a directory can be made");
    for (path, content) in files {
        if let Some(content) = content {
            fs::write(to.join(path), content).expect("a file can be written");
        }
    }
}

fn read_files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for directory in ["member", "member/log"] {
        for entry in fs::read_dir(root.join(directory)).expect("our own directory") {
            let path = entry.expect("our own directory").path();
            if path.is_file() {
                let content = fs::read(&path).expect("our own file");
                files.push((path.strip_prefix(root).expect("below the root").to_owned(), content));
            }
        }
    }
    files.sort();
    files
}
