//! The durable log: what it keeps, what it cuts, what it refuses.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use keygate_engine::storage::{Applied, LogOptions, OpenReport, RaftLog, StorageError};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState};
use raft::{GetEntriesContext, Storage};
use tempfile::TempDir;

fn options() -> LogOptions {
    LogOptions { file_bytes: 64 << 10, purge_bytes: 256 << 10, prefill_bytes: 0, ..LogOptions::default() }
}

fn open(directory: &Path) -> RaftLog {
    let mut report = OpenReport::default();
    let log = RaftLog::open(directory, options(), &mut report).expect("the log opens");
    assert!(report.findings.is_empty(), "{report:?}");
    log
}

fn entry(index: u64, term: u64, data: impl Into<Vec<u8>>) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term, entry.data) = (index, term, data.into().into());
    entry
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    let mut state = HardState::default();
    (state.term, state.vote, state.commit) = (term, vote, commit);
    state
}

fn read(log: &RaftLog, low: u64, high: u64) -> Vec<Entry> {
    log.entries(low, high, None, GetEntriesContext::empty(false)).expect("entries are readable")
}

fn all(log: &RaftLog) -> Vec<Entry> {
    read(log, log.first_index().unwrap(), log.last_index().unwrap() + 1)
}

/// The directory as a SIGKILL at this moment would leave it.
fn killed(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

/// File and offset of the only place of `bytes` in the append queue.
fn locate(directory: &Path, bytes: &[u8]) -> (PathBuf, usize) {
    let mut places = Vec::new();
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "raftlog") {
            let content = fs::read(&path).unwrap();
            places.extend(
                content
                    .windows(bytes.len())
                    .enumerate()
                    .filter(|(_, w)| *w == bytes)
                    .map(|(at, _)| (path.clone(), at)),
            );
        }
    }
    assert_eq!(places.len(), 1);
    places.remove(0)
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).unwrap();
    change(&mut content);
    fs::write(path, content).unwrap();
}

#[test]
fn what_was_appended_is_there_after_close_and_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (1, 0));
    let conf_state = ConfState { voters: vec![7], ..ConfState::default() };
    log.put_conf_state(&conf_state).unwrap();
    log.put_meta(b"cluster", b"identity").unwrap();
    log.put_meta(b"cluster", b"new identity").unwrap();
    let mut change = entry(2, 1, "membership");
    change.set_entry_type(EntryType::EntryConfChangeV2);
    change.context = b"context".to_vec().into();
    let entries = vec![entry(1, 1, ""), change, entry(3, 1, vec![0; 5000])];
    log.append(&entries, Some(&hard_state(1, 7, 2)), true).unwrap();
    log.append(&[], Some(&hard_state(2, 7, 3)), false).unwrap();
    let copy = killed(directory.path());
    log.close().unwrap();
    for directory in [directory.path(), copy.path()] {
        for _ in 0..3 {
            let log = open(directory);
            assert_eq!(all(&log), entries);
            let state = log.initial_state().unwrap();
            assert_eq!(state.hard_state, hard_state(2, 7, 3));
            assert_eq!(state.conf_state, conf_state);
            assert_eq!(log.get_meta(b"cluster"), Some(&b"new identity"[..]));
            assert_eq!(log.get_meta(b"other"), None);
            assert_eq!(log.term(0).unwrap(), 0);
            assert_eq!(log.term(3).unwrap(), 1);
        }
    }
}

#[test]
fn a_torn_last_write_is_cut_and_reported() {
    for entries_in_batch in [1, 50] {
        let directory = tempfile::tempdir().unwrap();
        let mut log = open(directory.path());
        log.append(&[entry(1, 1, "first")], None, true).unwrap();
        let mut batch: Vec<Entry> =
            (2..2 + entries_in_batch).map(|index| entry(index, 1, vec![b'x'; 100])).collect();
        batch.last_mut().unwrap().data = b"the end of the batch".to_vec().into();
        log.append(&batch, None, true).unwrap();
        let copy = killed(directory.path());
        let (file, offset) = locate(copy.path(), b"the end of the batch");
        edit(&file, |content| content[offset + 4..].fill(0));
        let mut report = OpenReport::default();
        let mut log = RaftLog::open(copy.path(), options(), &mut report).unwrap();
        assert_eq!(report.findings.len(), 1, "{report:?}");
        assert_eq!(report.findings[0].file, file);
        assert!(report.findings[0].offset < offset as u64 && report.findings[0].offset > 0);
        assert_eq!(all(&log), [entry(1, 1, "first")]);
        // The log goes on from there, and the next start has nothing to report.
        log.append(&[entry(2, 2, "second")], None, true).unwrap();
        let copy = killed(copy.path());
        assert_eq!(all(&open(copy.path())), [entry(1, 1, "first"), entry(2, 2, "second")]);
    }
}

#[test]
fn a_damaged_write_with_acknowledged_ones_behind_it_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    for (index, data) in [(1, "number one"), (2, "number two"), (3, "number three"), (4, "number four")] {
        log.append(&[entry(index, 1, data)], Some(&hard_state(1, 1, index - 1)), true).unwrap();
    }
    let copy = killed(directory.path());
    let (file, offset) = locate(copy.path(), b"number two");
    edit(&file, |content| content[offset] ^= 1);
    let before = fs::read(&file).unwrap();
    let error = RaftLog::open(copy.path(), options(), &mut OpenReport::default()).unwrap_err();
    let StorageError::Corrupt(damage) = &error else { panic!("{error:?}") };
    assert_eq!(damage.file, file);
    let place: usize = damage.place.strip_prefix("offset ").unwrap().parse().unwrap();
    assert!(place < offset && place + 200 > offset, "{error}");
    assert!(error.to_string().contains("snapshot"), "the way out is named: {error}");
    assert_eq!(fs::read(&file).unwrap(), before, "a refused start changes nothing");
}

#[test]
fn after_a_clean_shutdown_even_the_last_write_cannot_be_lost_quietly() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    log.append(&[entry(1, 1, "first")], None, true).unwrap();
    log.append(&[entry(2, 1, "the last one")], None, true).unwrap();
    log.close().unwrap();
    let (file, offset) = locate(directory.path(), b"the last one");
    edit(&file, |content| content[offset] ^= 0x80);
    let error = RaftLog::open(directory.path(), options(), &mut OpenReport::default()).unwrap_err();
    assert!(error.is_corrupt(), "{error}");
}

#[test]
fn a_damaged_file_header_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    log.append(&[entry(1, 1, "only")], None, true).unwrap();
    log.close().unwrap();
    let (file, _) = locate(directory.path(), b"only");
    for offset in [0, 30, 60, 68] {
        let copy = killed(directory.path());
        edit(&copy.path().join(file.file_name().unwrap()), |content| content[offset] ^= 4);
        let error = RaftLog::open(copy.path(), options(), &mut OpenReport::default()).unwrap_err();
        assert!(error.to_string().contains("offset 0"), "{error}");
    }
}

/// raft-engine believes the alignment in a header, and would ask for as much memory. A file without header it would go on
/// with in a format that no start accepts.
#[test]
fn a_last_file_whose_header_is_damaged_or_missing_is_cut_and_begun_again() {
    const ALIGNMENT: usize = 61;
    const HEADER: usize = 69;
    let flips = (ALIGNMENT..ALIGNMENT + 8).map(|at| (at, 0x40)).chain([(0, 0x40), (ALIGNMENT - 1, 3)]);
    let cuts = [0, 1, 60, 68, HEADER];
    type Damage = Box<dyn Fn(&mut Vec<u8>)>;
    let flips = flips.map(|(at, xor)| -> Damage {
        Box::new(move |file| {
            file[at] ^= xor;
            // The write behind it is torn too.
            file[HEADER + 40..].fill(0);
        })
    });
    let cuts = cuts.map(|length| -> Damage { Box::new(move |file| file.truncate(length)) });
    for (number, damage) in flips.chain(cuts).enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = open(directory.path());
        log.append(&[entry(1, 1, "only")], None, true).unwrap();
        let copy = killed(directory.path());
        let (file, _) = locate(copy.path(), b"only");
        edit(&file, |content| damage(content));
        let is_empty = fs::metadata(&file).unwrap().len() <= HEADER as u64;
        let mut report = OpenReport::default();
        let mut log = RaftLog::open(copy.path(), options(), &mut report).unwrap();
        let found: Vec<_> = report.findings.iter().map(|finding| (&finding.file, finding.offset)).collect();
        assert_eq!(found, if is_empty { vec![] } else { vec![(&file, 0)] }, "{number}");
        assert_eq!(all(&log), []);
        // Of a length of its own: raft-engine remembers the last block that a thread has read, of whichever log it was.
        let again = entry(1, 1, vec![b'x'; 10 + number]);
        log.append(std::slice::from_ref(&again), None, true).unwrap();
        let copy = killed(copy.path());
        assert_eq!(all(&open(copy.path())), [again], "{number}");
    }
}

/// What is whole was not torn, whatever is wrong with it or in front of it: of a later version, perhaps.
#[test]
fn a_whole_write_is_never_cut() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    log.append(&[entry(1, 1, "only")], None, true).unwrap();
    let copy = killed(directory.path());
    let (file, _) = locate(copy.path(), b"only");
    let whole = fs::read(&file).unwrap();
    let of_another_log = tempfile::tempdir().unwrap();
    drop(open(of_another_log.path()));
    let other_id = fs::read(of_another_log.path().join("LOGID")).unwrap();
    for case in ["a header with another alignment", "records of another log"] {
        match case {
            "records of another log" => {
                fs::write(&file, &whole).unwrap();
                fs::write(copy.path().join("LOGID"), &other_id).unwrap();
            }
            _ => edit(&file, |content| content[61] ^= 0x40),
        }
        let before = fs::read(&file).unwrap();
        let error = RaftLog::open(copy.path(), options(), &mut OpenReport::default()).unwrap_err();
        let StorageError::Corrupt(damage) = &error else { panic!("{case}: {error:?}") };
        assert_eq!(damage.file, file, "{case}");
        assert!(damage.what.contains("whole"), "{case}: {error}");
        assert_eq!(fs::read(&file).unwrap(), before, "{case}");
    }
}

#[test]
fn compaction_keeps_the_term_of_the_last_compacted_entry() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    let entries: Vec<Entry> = (1..=10).map(|index| entry(index, 1 + index / 5, "data")).collect();
    log.append(&entries, None, true).unwrap();
    log.compact_to(6).unwrap();
    log.compact_to(3).unwrap();
    let check = |log: &RaftLog| {
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (7, 10));
        assert_eq!(log.term(6).unwrap(), 2);
        assert!(matches!(log.term(5), Err(raft::Error::Store(raft::StorageError::Compacted))));
        let compacted = log.entries(6, 8, None, GetEntriesContext::empty(false));
        assert!(matches!(compacted, Err(raft::Error::Store(raft::StorageError::Compacted))));
        assert_eq!(all(log), entries[6..]);
    };
    check(&log);
    let copy = killed(directory.path());
    check(&open(copy.path()));
    log.compact_to(10).unwrap();
    assert!(matches!(log.compact_to(11), Err(StorageError::Gap { .. })));
    log.close().unwrap();
    let mut log = open(directory.path());
    assert_eq!((log.first_index().unwrap(), log.last_index().unwrap(), log.term(10).unwrap()), (11, 10, 3));
    log.append(&[entry(11, 3, "next")], None, true).unwrap();
    log.close().unwrap();
    assert_eq!(all(&open(directory.path())), [entry(11, 3, "next")]);
}

#[test]
fn entries_of_a_new_term_replace_those_of_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    for index in 1..=10 {
        log.append(&[entry(index, 1, format!("old {index}"))], None, true).unwrap();
    }
    log.append(&[entry(6, 2, "new 6"), entry(7, 2, "new 7")], None, true).unwrap();
    let mut expected: Vec<Entry> = (1..=5).map(|index| entry(index, 1, format!("old {index}"))).collect();
    expected.extend([entry(6, 2, "new 6"), entry(7, 2, "new 7")]);
    assert_eq!(all(&log), expected);
    let copy = killed(directory.path());
    assert_eq!(all(&open(copy.path())), expected);
}

#[test]
fn appends_that_leave_a_hole_or_touch_compacted_entries_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    log.append(&[entry(1, 1, "a"), entry(2, 1, "b")], None, true).unwrap();
    log.compact_to(1).unwrap();
    for bad in [vec![entry(4, 1, "")], vec![entry(1, 1, "")], vec![entry(3, 1, ""), entry(5, 1, "")]] {
        assert!(matches!(log.append(&bad, None, true), Err(StorageError::Gap { .. })));
    }
    log.append(&[entry(3, 1, "c")], None, true).unwrap();
}

#[test]
fn reads_cross_from_disk_to_memory_and_respect_the_size_limit() {
    let directory = tempfile::tempdir().unwrap();
    let small_cache = LogOptions { cache_bytes: 1000, ..options() };
    let mut log = RaftLog::open(directory.path(), small_cache, &mut OpenReport::default()).unwrap();
    let entries: Vec<Entry> = (1..=100).map(|index| entry(index, 1, vec![index as u8; 76])).collect();
    for batch in entries.chunks(9) {
        log.append(batch, None, false).unwrap();
    }
    for (low, high) in [(1, 101), (1, 50), (95, 101), (80, 99), (50, 50)] {
        assert_eq!(read(&log, low, high), entries[low as usize - 1..high as usize - 1]);
    }
    let limited =
        |low, high, limit: u64| log.entries(low, high, limit, GetEntriesContext::empty(false)).unwrap().len();
    assert_eq!(limited(1, 101, 0), 1);
    assert_eq!(limited(99, 101, 0), 1);
    assert_eq!(limited(97, 101, 250), 2);
    assert!(limited(1, 101, 1000) <= 10);
    assert!(log.entries(1, 102, None, GetEntriesContext::empty(false)).is_err());
    assert_eq!(log.term(3).unwrap(), 1);
}

/// Files are reused in place: behind the newest batch lie intact records of older ones, which must not be taken for lost ones.
#[test]
fn the_log_stays_small_under_compaction_and_recycled_files_start_cleanly() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    log.put_meta(b"identity", b"kept").unwrap();
    let mut copies = Vec::new();
    for index in 1..=6000_u64 {
        log.append(
            &[entry(index, 1 + index / 1000, vec![index as u8; 500])],
            Some(&hard_state(1, 1, index)),
            false,
        )
        .unwrap();
        if index % 100 == 0 {
            log.compact_to(index - 20).unwrap();
            log.purge().unwrap();
            assert!(log.size() < 1 << 20, "{} bytes at entry {index}", log.size());
        }
        if index % 617 == 0 {
            copies.push((index, killed(directory.path())));
        }
    }
    assert!(copies.len() >= 9);
    for (last, copy) in copies {
        let log = open(copy.path());
        assert_eq!(log.last_index().unwrap(), last);
        assert_eq!(log.get_meta(b"identity"), Some(&b"kept"[..]));
        for found in all(&log) {
            assert_eq!(found, entry(found.index, 1 + found.index / 1000, vec![found.index as u8; 500]));
        }
    }
    log.close().unwrap();
    assert_eq!(open(directory.path()).last_index().unwrap(), 6000);
}

/// A kill while purged files wait for reuse can leave files in front of a hole in the numbers; and a hole in live files is damage.
#[test]
fn files_in_front_of_a_hole_are_purged_ones_or_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    for index in 1..=400 {
        log.append(&[entry(index, 1, vec![1; 1000])], None, false).unwrap();
    }
    let file = |number: u64| format!("{number:016}.raftlog");
    let missing = killed(directory.path());
    fs::remove_file(missing.path().join(file(3))).unwrap();
    let error = RaftLog::open(missing.path(), options(), &mut OpenReport::default()).unwrap_err();
    assert!(error.to_string().contains("entry 1: the entry is missing"), "{error}");
    log.compact_to(390).unwrap();
    let purged = killed(directory.path());
    fs::remove_file(purged.path().join(file(2))).unwrap();
    assert_eq!(all(&open(purged.path())).len(), 10);
    assert!(!purged.path().join(file(1)).exists(), "nothing reads it any more");
}

#[test]
fn a_store_that_is_ahead_of_the_log_or_too_far_behind_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    let entries: Vec<Entry> = (1..=10).map(|index| entry(index, 3, "x")).collect();
    log.append(&entries, None, true).unwrap();
    log.compact_to(4).unwrap();
    for index in 4..=10 {
        log.covers(Applied { index, term: 3 }).unwrap();
    }
    for bad in [Applied { index: 11, term: 3 }, Applied { index: 3, term: 3 }, Applied { index: 7, term: 2 }]
    {
        assert!(log.covers(bad).unwrap_err().is_corrupt());
    }
}

#[test]
fn one_copy_of_the_identity_is_enough_and_the_other_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path());
    log.append(&[entry(1, 1, "x")], None, true).unwrap();
    log.close().unwrap();
    for offset in [3, 40] {
        let copy = killed(directory.path());
        edit(&copy.path().join("LOGID"), |content| content[offset] ^= 1);
        let mut report = OpenReport::default();
        let log = RaftLog::open(copy.path(), options(), &mut report).unwrap();
        assert_eq!((report.findings.len(), log.last_index().unwrap()), (1, 1));
    }
    edit(&directory.path().join("LOGID"), |content| {
        content[3] ^= 1;
        content[40] ^= 1;
    });
    assert!(RaftLog::open(directory.path(), options(), &mut OpenReport::default()).unwrap_err().is_corrupt());
    fs::remove_file(directory.path().join("LOGID")).unwrap();
    assert!(RaftLog::open(directory.path(), options(), &mut OpenReport::default()).unwrap_err().is_corrupt());
}

#[test]
fn a_log_that_is_open_cannot_be_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let _log = open(directory.path());
    let second = RaftLog::open(directory.path(), options(), &mut OpenReport::default());
    assert!(matches!(second, Err(StorageError::InUse { .. })), "{second:?}");
}
