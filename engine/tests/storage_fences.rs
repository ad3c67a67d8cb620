//! Fences between the keyspaces of the store: what they are for, where they stand, and that nobody takes one for a row.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

use std::io::{Error, ErrorKind, Result};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use keygate_engine::storage::{Applied, Change, Disk, DiskFile, OpenReport, RowKey, StorageError, Store};
use redb::{ReadableDatabase, ReadableTable};
use tempfile::TempDir;

const CACHE: usize = 4 << 20;
const KV: redb::TableDefinition<'_, &[u8; 16], &[u8]> = redb::TableDefinition::new("kv");
/// Small rows of the tests about pages: value, and with key and frame.
const SMALL: usize = 64;
const SMALL_ROW: u64 = 16 + 5 + SMALL as u64;

fn open(path: &Path) -> Store {
    Store::open(path, CACHE, &mut OpenReport::default()).expect("the store opens")
}

fn key(keyspace: u32, main: i64) -> RowKey {
    RowKey { keyspace, main, sub: 0 }
}

fn put(keyspace: u32, main: i64, value: impl Into<Bytes>) -> Change {
    Change::PutRow { key: key(keyspace, main), value: value.into() }
}

fn delete(keyspace: u32, main: i64) -> Change {
    Change::DeleteRow { key: key(keyspace, main) }
}

/// Commits as the next index.
fn commit(store: &Store, changes: &[Change]) -> std::result::Result<u64, StorageError> {
    let applied = Applied { index: store.applied().index + 1, term: 1 };
    store.commit(changes, applied).map(|stats| stats.rows)
}

/// Rows as (keyspace, main), after the check of counts and sums.
fn load(store: &Store) -> Vec<(u32, i64)> {
    let mut rows = Vec::new();
    store.load(|key, _| rows.push((key.keyspace, key.main)), |_, _| {}).unwrap();
    rows
}

fn fence(keyspace: u32) -> [u8; 16] {
    let mut key = [0xff; 16];
    key[..4].copy_from_slice(&keyspace.to_be_bytes());
    key
}

/// What is in the table of a store that is closed: keyspaces of the rows, ascending, and keyspaces with a fence.
fn table(path: &Path) -> (Vec<u32>, Vec<u32>) {
    let database = redb::Database::open(path).unwrap();
    let table = database.begin_read().unwrap().open_table(KV).unwrap();
    let (mut rows, mut fences) = (Vec::new(), Vec::new());
    for row in table.iter().unwrap() {
        let key = *row.unwrap().0.value();
        let keyspace = u32::from_be_bytes(key[..4].try_into().unwrap());
        if key == fence(keyspace) { fences.push(keyspace) } else { rows.push(keyspace) }
    }
    (rows, fences)
}

type KvTable<'a> = redb::Table<'a, &'static [u8; 16], &'static [u8]>;

fn change_table(path: &Path, change: impl FnOnce(&mut KvTable<'_>)) {
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&mut transaction.open_table(KV).unwrap());
    transaction.commit().unwrap();
}

/// In memory where that is possible: there are thousands of commits, each with syncs.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Puts `count` small rows into `keyspace`, one a commit.
fn put_one_by_one(store: &Store, keyspace: u32, from: i64, count: i64) {
    for main in from..from + count {
        commit(store, &[put(keyspace, main, vec![1; SMALL])]).unwrap();
    }
}

/// Leaf pages of the table of a store that is closed, and the part of their bytes that is rows.
fn pages(path: &Path) -> (u64, f64) {
    use redb::ReadableTableMetadata;
    let database = redb::Database::open(path).unwrap();
    let stats = database.begin_read().unwrap().open_table(KV).unwrap().stats().unwrap();
    let all = stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes();
    (stats.leaf_pages(), stats.stored_bytes() as f64 / all as f64)
}

const ROWS: i64 = 3000;
/// With the four bytes that redb needs for each row.
const FULL_PAGES: u64 = (ROWS as u64 * (SMALL_ROW + 4)).div_ceil(4096);

/// A tenant with one large value made its neighbour fill the disk with pages of one row each.
#[test]
fn rows_share_pages_whatever_the_next_keyspace_begins_with() {
    for large in [64, 3_000, 5_000, 1_000_000] {
        let directory = directory();
        let path = directory.path().join("store.redb");
        let store = open(&path);
        // As they come about: the first has rows when the second begins.
        commit(&store, &[put(2, 1, "row")]).unwrap();
        commit(&store, &[put(3, 1, vec![7; large])]).unwrap();
        put_one_by_one(&store, 2, 2, ROWS);
        assert_eq!(load(&store).len() as i64, ROWS + 2);
        let in_use = store.bytes_in_use();
        drop(store);
        let (pages, fill) = pages(&path);
        let size = path.metadata().unwrap().len();
        println!("beside {large} bytes: {pages} pages, fill {fill:.2}, file {size} for {in_use}");
        assert!(pages < 3 * FULL_PAGES, "{pages} pages beside a row of {large} bytes");
        assert!(size < 4 * in_use + (2 << 20), "{size} for {in_use} beside a row of {large} bytes");
    }
}

/// One commit can hold all of it.
#[test]
fn rows_share_pages_within_one_commit() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    let mut changes = vec![put(3, 1, vec![7; 1_000_000])];
    changes.extend((1..=ROWS).map(|main| put(2, main, vec![1; SMALL])));
    commit(&store, &changes).unwrap();
    drop(store);
    let (pages, fill) = pages(&path);
    println!("in one commit: {pages} pages, fill {fill:.2}");
    assert!(pages < 3 * FULL_PAGES, "{pages}");
}

/// Nobody is to pay for neighbours who are not there.
#[test]
fn the_last_keyspace_fills_its_pages_whole_and_has_no_fence() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    put_one_by_one(&store, 2, 1, ROWS);
    drop(store);
    let (pages, fill) = pages(&path);
    println!("alone: {pages} pages, fill {fill:.2}");
    assert!(pages <= FULL_PAGES + FULL_PAGES / 8, "{pages}");
    assert_eq!(table(&path).1, []);
}

#[test]
fn a_fence_stands_between_rows_and_goes_with_them() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    let rows = [1, 2, 3].map(|keyspace| put(keyspace, 5, "row"));
    // The third is the last; the others were so when their rows came.
    assert_eq!(commit(&store, &rows).unwrap(), 3);
    let rows = [1, 2, 3].map(|keyspace| put(keyspace, 6, "row"));
    assert_eq!(commit(&store, &rows).unwrap(), 6, "fences are not counted");
    assert_eq!(store.bytes_in_use(), 6 * (16 + 5 + 3));
    let all = [1, 2, 3].iter().flat_map(|keyspace| [(*keyspace, 5), (*keyspace, 6)]).collect::<Vec<_>>();
    assert_eq!(load(&store), all);
    drop(store);
    assert_eq!(table(&path), (vec![1, 1, 2, 2, 3, 3], vec![1, 2]));

    // Compaction leaves the fence where it stands as long as there is a row.
    let store = open(&path);
    commit(&store, &[delete(1, 5), delete(2, 5), delete(3, 5)]).unwrap();
    drop(store);
    assert_eq!(table(&path), (vec![1, 2, 3], vec![1, 2]));

    // Deletion of a keyspace leaves nothing, also where this process has not met its fence.
    let store = open(&path);
    assert_eq!(commit(&store, &[delete(1, 6)]).unwrap(), 2);
    store.defragment().unwrap();
    assert_eq!(load(&store), [(2, 6), (3, 6)]);
    drop(store);
    assert_eq!(table(&path), (vec![2, 3], vec![2]));

    // What was the last but one is the last.
    let store = open(&path);
    commit(&store, &[put(2, 7, "row")]).unwrap();
    commit(&store, &[delete(3, 6)]).unwrap();
    commit(&store, &[put(2, 8, "row")]).unwrap();
    drop(store);
    assert_eq!(table(&path), (vec![2, 2, 2], vec![]));

    // And has a fence again when there is one behind it again, though it had one before.
    let store = open(&path);
    commit(&store, &[put(4, 1, "row")]).unwrap();
    commit(&store, &[put(2, 9, "row")]).unwrap();
    commit(&store, &[delete(4, 1), delete(2, 6), delete(2, 7), delete(2, 8), delete(2, 9)]).unwrap();
    assert_eq!(load(&store), []);
    assert_eq!(store.bytes_in_use(), 0);
    drop(store);
    assert_eq!(table(&path), (vec![], vec![]));
}

#[test]
fn a_keyspace_that_is_emptied_and_filled_in_turn_has_its_fence() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    commit(&store, &[put(9, 1, "row")]).unwrap();
    for main in 1..4 {
        commit(&store, &[put(1, main, "row"), put(2, main, "row")]).unwrap();
        commit(&store, &[delete(1, main), delete(2, main), put(2, main, "again")]).unwrap();
        commit(&store, &[delete(2, main)]).unwrap();
    }
    commit(&store, &[put(1, 9, "row")]).unwrap();
    drop(store);
    assert_eq!(table(&path), (vec![1, 9], vec![1]));
}

#[test]
fn nobody_reads_a_fence() {
    let directory = directory();
    let store = open(&directory.path().join("store.redb"));
    commit(&store, &[put(2, 1, "row")]).unwrap();
    commit(&store, &[put(1, 1, "row")]).unwrap();
    for keyspace in [1, 2] {
        let mut found = Vec::new();
        let visit = |key: RowKey, _: &[u8]| {
            found.push((key.keyspace, key.main));
            ControlFlow::Continue(())
        };
        store.scan_rows(keyspace, (i64::MIN, 0), (i64::MAX, u32::MAX), visit).unwrap();
        assert_eq!(found, [(keyspace, 1)]);
        let greatest = RowKey { keyspace, main: i64::MAX, sub: u32::MAX };
        assert_eq!(store.get_row(greatest).unwrap(), None);
    }
}

/// Earlier versions wrote none; and a fence that is lost is no loss.
#[test]
fn a_store_without_fences_is_read_and_gets_them() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    for main in 1..10 {
        commit(&store, &[put(3, main, "row"), put(2, main, "row"), put(1, main, "row")]).unwrap();
    }
    let (rows, bytes) = (load(&store), store.bytes_in_use());
    drop(store);
    change_table(&path, |table| {
        for keyspace in [1, 2] {
            assert!(table.remove(&fence(keyspace)).unwrap().is_some());
        }
    });
    let store = open(&path);
    assert_eq!((load(&store), store.bytes_in_use()), (rows, bytes));
    commit(&store, &[put(2, 10, "row"), put(3, 10, "row")]).unwrap();
    assert_eq!(load(&store).len(), 29);
    drop(store);
    assert_eq!(table(&path).1, [2], "where rows are put");
}

#[test]
fn a_fence_that_is_damaged_or_out_of_place_is_no_damage() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    commit(&store, &[put(3, 1, "row"), put(2, 1, "row")]).unwrap();
    let bytes = store.bytes_in_use();
    drop(store);
    change_table(&path, |table| {
        for (keyspace, value) in [(1, &b""[..]), (2, &b"not empty"[..]), (3, &[1; 100][..]), (4, &b"x"[..])] {
            table.insert(&fence(keyspace), value).unwrap();
        }
    });
    let store = open(&path);
    assert_eq!(load(&store), [(2, 1), (3, 1)]);
    assert_eq!(store.bytes_in_use(), bytes);
    commit(&store, &[put(1, 1, "row"), put(2, 2, "row"), put(3, 2, "row")]).unwrap();
    assert_eq!(load(&store), [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2)]);
    commit(&store, &[delete(1, 1), delete(2, 1), delete(2, 2)]).unwrap();
    drop(store);
    assert_eq!(table(&path), (vec![3, 3], vec![]));
}

#[derive(Debug, Default)]
struct Disturbed {
    full: AtomicBool,
}

impl Disk for Disturbed {
    fn before_write(&self, _: DiskFile, offset: u64) -> Result<()> {
        // The first page has its place and is written over: only new ones find no room.
        if offset >= 4096 && self.full.load(Ordering::Relaxed) {
            return Err(Error::from(ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn before_sync(&self, _: DiskFile) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_fence_whose_commit_failed_is_written_by_the_next() {
    let directory = directory();
    let path = directory.path().join("store.redb");
    let disk = Arc::new(Disturbed::default());
    let store = Store::open_on(disk.clone(), &path, CACHE, &mut OpenReport::default()).unwrap();
    commit(&store, &[put(3, 1, "row")]).unwrap();
    disk.full.store(true, Ordering::Relaxed);
    let error = commit(&store, &[put(2, 1, "row")]).unwrap_err();
    assert!(matches!(error, StorageError::NoSpace { .. }), "{error:?}");
    disk.full.store(false, Ordering::Relaxed);
    commit(&store, &[put(2, 2, "row")]).unwrap();
    assert_eq!(load(&store), [(2, 2), (3, 1)]);
    drop(store);
    assert_eq!(table(&path), (vec![2, 3], vec![2]));
}
