//! One flipped bit anywhere in log or store: noticed and named, or without any effect on what is served.
//!
//! Two data directories, one as a clean shutdown leaves it and one as SIGKILL does. Each flip works on a fresh copy, which is
//! opened and read whole, as a start does. Prints the counts; one wrong answer fails the test.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use keygate_engine::storage::{
    Applied, Change, DataDir, Finding, LogOptions, OpenReport, RaftLog, RowKey, StorageError, Store,
};
use raft::eraftpb::{ConfState, Entry, HardState};
use raft::{GetEntriesContext, Storage};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

const FLIPS: usize = 300;
const SEED: u64 = 20;

fn options() -> LogOptions {
    LogOptions {
        file_bytes: 24 << 10,
        purge_bytes: 48 << 10,
        prefill_bytes: 0,
        cache_bytes: 0,
        ..LogOptions::default()
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone, PartialEq)]
struct LogContent {
    first: u64,
    first_term: u64,
    entries: Vec<Entry>,
    hard_state: HardState,
    voters: Vec<u64>,
    meta: Option<Vec<u8>>,
}

struct Opened {
    log: LogContent,
    rows: Rows,
    applied: Applied,
    findings: Vec<Finding>,
}

struct Base {
    directory: TempDir,
    log: LogContent,
    /// Rows after each commit, by applied index.
    commits: BTreeMap<u64, Rows>,
    applied: Applied,
    findings: Vec<String>,
    /// Entries that may be cut as a torn last write; none after a clean shutdown.
    last_batch: usize,
}

/// A start: everything is opened, verified and read.
fn start(path: &Path) -> Result<Opened, StorageError> {
    let data = DataDir::open(path)?;
    let mut report = OpenReport::default();
    let log = RaftLog::open(&data.log(), options(), &mut report)?;
    let store = Store::open(&data.store(), 1 << 20, &mut report)?;
    let rows = std::cell::RefCell::new(Rows::new());
    let applied = store.load(
        |key, value| drop(rows.borrow_mut().insert(format!("{key:?}").into(), value.to_vec())),
        |key, value| drop(rows.borrow_mut().insert(key.to_vec(), value.to_vec())),
    )?;
    log.covers(applied)?;
    Ok(Opened { log: content(&log)?, rows: rows.into_inner(), applied, findings: report.findings })
}

fn content(log: &RaftLog) -> Result<LogContent, StorageError> {
    let fail = |e: raft::Error| match e {
        raft::Error::Store(raft::StorageError::Other(inner)) => *inner.downcast::<StorageError>().unwrap(),
        other => panic!("{other}"),
    };
    let (first, last) = (log.first_index().map_err(fail)?, log.last_index().map_err(fail)?);
    let state = log.initial_state().map_err(fail)?;
    Ok(LogContent {
        first,
        first_term: log.term(first - 1).map_err(fail)?,
        entries: log.entries(first, last + 1, None, GetEntriesContext::empty(false)).map_err(fail)?,
        hard_state: state.hard_state,
        voters: state.conf_state.voters,
        meta: log.get_meta(b"identity").map(<[u8]>::to_vec),
    })
}

fn private_directory() -> TempDir {
    // In memory where that is possible: the test starts a member some thousand times, and each start syncs.
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(parent).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    directory
}

fn copy(from: &Path) -> TempDir {
    fn tree(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                fs::create_dir(&target).unwrap();
                tree(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let copy = private_directory();
    tree(from, copy.path());
    copy
}

/// A small member with a past: compactions, purged, recycled and rewritten log files, replaced and deleted rows, a
/// fence between two keyspaces.
fn build(clean: bool) -> Base {
    let mut random = StdRng::seed_from_u64(SEED);
    let directory = private_directory();
    let data = DataDir::open(directory.path()).unwrap();
    let mut report = OpenReport::default();
    let mut log = RaftLog::open(&data.log(), options(), &mut report).unwrap();
    let store = Store::open(&data.store(), 1 << 20, &mut report).unwrap();
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    log.put_conf_state(&conf_state).unwrap();
    log.put_meta(b"identity", b"a member of a cluster").unwrap();
    let mut commits = BTreeMap::new();
    let mut rows = Rows::new();
    let mut index = 0;
    let mut last_batch = 0;
    for round in 0..60_u64 {
        let batch: Vec<Entry> = (0..random.random_range(1..8))
            .map(|_| {
                index += 1;
                let mut entry = Entry::default();
                (entry.index, entry.term) = (index, 1 + round / 20);
                entry.data =
                    (0..random.random_range(0..600)).map(|_| random.random()).collect::<Vec<u8>>().into();
                entry
            })
            .collect();
        last_batch = batch.len();
        let mut state = HardState::default();
        (state.term, state.vote, state.commit) = (1 + round / 20, 1, index - 1);
        log.append(&batch, Some(&state), true).unwrap();
        if round % 6 == 5 {
            let mut changes = Vec::new();
            for _ in 0..30 {
                let key =
                    RowKey { keyspace: random.random_range(1..3), main: random.random_range(0..100), sub: 0 };
                let value: Bytes =
                    (0..random.random_range(0..500)).map(|_| random.random()).collect::<Vec<u8>>().into();
                rows.insert(format!("{key:?}").into(), value.to_vec());
                changes.push(Change::PutRow { key, value });
                let key =
                    RowKey { keyspace: random.random_range(1..3), main: random.random_range(0..100), sub: 0 };
                rows.remove(format!("{key:?}").as_bytes());
                changes.push(Change::DeleteRow { key });
                let key: Bytes = format!("meta {}", random.random_range(0..40)).into();
                rows.insert(key.to_vec(), b"payload".to_vec());
                changes.push(Change::PutMeta { key, value: "payload".into() });
            }
            let applied = Applied { index: index - 1, term: log.term(index - 1).unwrap() };
            let previous = store.applied();
            store.commit(&changes, applied).unwrap();
            commits.insert(applied.index, rows.clone());
            if previous.index > 40 {
                log.compact_to(previous.index - 40).unwrap();
            }
            log.purge().unwrap();
        }
    }
    let (content, applied) = (content(&log).unwrap(), store.applied());
    let base = |directory, findings, last_batch| {
        let (log, commits) = (content.clone(), commits.clone());
        Base { directory, log, commits, applied, findings, last_batch }
    };
    if clean {
        log.close().unwrap();
        drop(store);
        drop(data);
        base(directory, Vec::new(), 0)
    } else {
        let killed = copy(directory.path());
        base(
            killed,
            vec!["the store was not shut down cleanly; its last durable commit is used".to_owned()],
            last_batch,
        )
    }
}

#[derive(Debug, Default)]
struct Counts {
    refused: usize,
    reported: usize,
    rolled_back: usize,
    harmless: usize,
}

fn judge(base: &Base, path: &Path, flip: &str, counts: &mut Counts) {
    match start(path) {
        Err(error) => {
            assert!(
                error.is_corrupt() || matches!(error, StorageError::WrongVersion { .. }),
                "{flip}: {error:?}"
            );
            assert!(error.to_string().contains(path.to_str().unwrap()), "{flip}: no file is named: {error}");
            counts.refused += 1;
        }
        Ok(opened) => {
            let rows = base.commits.get(&opened.applied.index);
            assert_eq!(Some(&opened.rows), rows, "{flip}: WRONG rows were served");
            let rolled_back = opened.applied != base.applied;
            let news =
                opened.findings.iter().filter(|finding| !base.findings.contains(&finding.what)).count();
            if news > 0 {
                let (kept, written) = (opened.log.entries.len(), base.log.entries.len());
                assert_eq!(
                    opened.log.entries,
                    base.log.entries[..kept],
                    "{flip}: WRONG entries behind a cut"
                );
                assert!(kept + base.last_batch >= written, "{flip}: more than the last write was cut");
                counts.reported += 1;
            } else {
                assert_eq!(opened.log, base.log, "{flip}: WRONG log was served");
                // An older commit is no harm: the log still has what it lacks (`covers` saw to it).
                if rolled_back { counts.rolled_back += 1 } else { counts.harmless += 1 }
            }
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let member = directory.join("member");
    let mut files: Vec<PathBuf> =
        fs::read_dir(member.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.push(member.join("store.redb"));
    files.retain(|file| fs::metadata(file).unwrap().len() > 0);
    files.sort();
    files
}

fn flips(base: &Base, count: usize, random: &mut StdRng) -> Counts {
    let mut counts = Counts::default();
    judge(base, copy(base.directory.path()).path(), "no flip", &mut counts);
    assert_eq!((counts.harmless, counts.reported), (1, 0), "the undamaged directory must start");
    counts.harmless = 0;
    let files = files(base.directory.path());
    for number in 0..count {
        // Half of the flips hit the store, and most hit bytes that mean something.
        let file = if number % 2 == 0 {
            &files[random.random_range(0..files.len() - 1)]
        } else {
            &files[files.len() - 1]
        };
        let length = fs::metadata(file).unwrap().len() as usize;
        let content = fs::read(file).unwrap();
        let mut offset = random.random_range(0..length);
        if number % 16 == 1 {
            offset = random.random_range(0..320);
        } else {
            for _ in 0..if number % 5 == 0 { 0 } else { 50 } {
                if content[offset] != 0 {
                    break;
                }
                offset = random.random_range(0..length);
            }
        }
        let bit = random.random_range(0..8);
        let copy = copy(base.directory.path());
        let target = copy.path().join(file.strip_prefix(base.directory.path()).unwrap());
        let mut content = content;
        content[offset] ^= 1 << bit;
        fs::write(&target, content).unwrap();
        let flip = format!("bit {bit} at {offset} of {}", file.display());
        judge(base, copy.path(), &flip, &mut counts);
    }
    counts
}

#[test]
fn no_flipped_bit_changes_what_is_served_unnoticed() {
    std::panic::set_hook(Box::new(|panic| {
        // Panics of libraries over damaged bytes are caught and expected; those of this test are not.
        if panic.location().is_none_or(|location| location.file().contains("storage_flips")) {
            eprintln!("{panic}");
        }
    }));
    let mut random = StdRng::seed_from_u64(SEED);
    for clean in [true, false] {
        let base = build(clean);
        let counts = flips(&base, FLIPS / 2, &mut random);
        println!(
            "{} flips after a {}: {counts:?}, served wrong: 0",
            FLIPS / 2,
            if clean { "clean shutdown" } else { "kill" }
        );
        assert_eq!(counts.refused + counts.reported + counts.rolled_back + counts.harmless, FLIPS / 2);
        assert!(counts.refused > FLIPS / 8, "the flips must hit something");
    }
}

/// Every byte of the newest log file and of the store's super-header, one bit each.
#[test]
fn no_byte_of_the_newest_log_file_or_of_the_super_header_is_blind() {
    std::panic::set_hook(Box::new(|panic| {
        if panic.location().is_none_or(|location| location.file().contains("storage_flips")) {
            eprintln!("{panic}");
        }
    }));
    for clean in [true, false] {
        let base = build(clean);
        let mut counts = Counts::default();
        let files = files(base.directory.path());
        let newest = files
            .iter()
            .rfind(|file| file.extension().is_some_and(|extension| extension == "raftlog"))
            .unwrap();
        let store = files.last().unwrap();
        let length = fs::read(newest).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let from = length.saturating_sub(400);
        for (file, range) in [(newest, 0..75), (newest, from..length), (store, 0..320)] {
            for offset in range {
                let copy = copy(base.directory.path());
                let target = copy.path().join(file.strip_prefix(base.directory.path()).unwrap());
                let mut content = fs::read(&target).unwrap();
                content[offset] ^= 1 << (offset % 8);
                fs::write(&target, content).unwrap();
                judge(&base, copy.path(), &format!("offset {offset} of {}", file.display()), &mut counts);
            }
        }
        println!("every byte ({}): {counts:?}", if clean { "clean shutdown" } else { "kill" });
        assert!(counts.refused + counts.reported > 300);
    }
}
