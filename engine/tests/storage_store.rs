//! The store: what it keeps and what it notices.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;
use keygate_engine::storage::{Applied, Change, DataDir, OpenReport, RowKey, StorageError, Store};

const CACHE: usize = 4 << 20;
const KV: redb::TableDefinition<'_, &[u8; 16], &[u8]> = redb::TableDefinition::new("kv");

fn open(path: &Path) -> Store {
    let mut report = OpenReport::default();
    let store = Store::open(path, CACHE, &mut report).expect("the store opens");
    assert!(report.findings.is_empty(), "{report:?}");
    store
}

fn key(keyspace: u32, main: i64, sub: u32) -> RowKey {
    RowKey { keyspace, main, sub }
}

fn put(key: RowKey, value: impl Into<Bytes>) -> Change {
    Change::PutRow { key, value: value.into() }
}

fn put_meta(key: &'static str, value: &'static str) -> Change {
    Change::PutMeta { key: key.into(), value: value.into() }
}

type KvTable<'a> = redb::Table<'a, &'static [u8; 16], &'static [u8]>;
type Rows = BTreeMap<RowKey, Vec<u8>>;
type Metas = BTreeMap<Vec<u8>, Vec<u8>>;

fn load(store: &Store) -> Result<(Rows, Metas, Applied), StorageError> {
    let (mut rows, mut metas) = (Rows::new(), Metas::new());
    let applied = store.load(
        |key, value| assert!(rows.insert(key, value.to_vec()).is_none()),
        |key, value| assert!(metas.insert(key.to_vec(), value.to_vec()).is_none()),
    )?;
    Ok((rows, metas, applied))
}

fn at(index: u64) -> Applied {
    Applied { index, term: 1 }
}

#[test]
fn commits_survive_a_reopen_with_their_applied_index() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    assert_eq!(store.applied(), Applied::default());
    let long = vec![7; 100_000];
    let stats = store
        .commit(&[put(key(1, 5, 0), "five"), put(key(1, 6, 2), long.clone()), put_meta("lease", "a")], at(9))
        .unwrap();
    assert_eq!((stats.changes, stats.rows, stats.metas), (3, 2, 1));
    store
        .commit(
            &[
                put(key(1, 5, 0), "five again"),
                Change::DeleteRow { key: key(1, 99, 0) },
                put_meta("lease", "b"),
                put_meta("gone", "soon"),
                Change::DeleteMeta { key: "gone".into() },
                Change::DeleteMeta { key: "never there".into() },
            ],
            Applied { index: 12, term: 4 },
        )
        .unwrap();
    drop(store);
    let store = open(&path);
    assert_eq!(store.applied(), Applied { index: 12, term: 4 });
    let (rows, metas, applied) = load(&store).unwrap();
    assert_eq!(applied, store.applied());
    assert_eq!(rows, Rows::from([(key(1, 5, 0), b"five again".to_vec()), (key(1, 6, 2), long.clone())]));
    assert_eq!(metas, Metas::from([(b"lease".to_vec(), b"b".to_vec())]));
    assert_eq!(store.get_row(key(1, 6, 2)).unwrap().unwrap(), long);
    assert_eq!(store.get_row(key(2, 6, 2)).unwrap(), None);
    assert_eq!(store.get_meta(b"lease").unwrap().unwrap(), "b");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn scans_are_ascending_bounded_and_of_one_keyspace() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("store.redb"));
    let mut changes = Vec::new();
    for keyspace in [0, 1, 2] {
        for main in [1, 2, 255, 256, 70_000] {
            for sub in [0, 1] {
                changes.push(put(key(keyspace, main, sub), format!("{keyspace}/{main}/{sub}")));
            }
        }
    }
    store.commit(&changes, at(1)).unwrap();
    let scan = |from, to, most: usize| {
        let mut found = Vec::new();
        store
            .scan_rows(1, from, to, |key, value| {
                assert_eq!(value, format!("{}/{}/{}", key.keyspace, key.main, key.sub).as_bytes());
                found.push((key.main, key.sub));
                if found.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        found
    };
    assert_eq!(scan((2, 1), (256, 1), 100), [(2, 1), (255, 0), (255, 1), (256, 0)]);
    assert_eq!(scan((i64::MIN, 0), (i64::MAX, u32::MAX), 100).len(), 10);
    assert_eq!(scan((0, 0), (i64::MAX, 0), 3).len(), 3);
    assert_eq!(scan((5, 0), (5, 0), 100), []);
    assert_eq!(scan((6, 0), (5, 0), 100), []);
}

/// redb's pages are all valid here: only the store's own sums can tell.
#[test]
fn a_row_that_vanished_or_came_back_is_noticed_when_loading() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    let changes: Vec<Change> = (0..50).map(|main| put(key(1, main, 0), format!("value {main}"))).collect();
    store.commit(&changes, at(1)).unwrap();
    drop(store);
    let raw_key = |database: &redb::Database| {
        use redb::{ReadableDatabase, ReadableTable};
        let table = database.begin_read().unwrap().open_table(KV).unwrap();
        let (key, value) = table.iter().unwrap().nth(20).unwrap().unwrap();
        (*key.value(), value.value().to_vec())
    };
    let raw = |change: &dyn Fn(&mut KvTable<'_>)| {
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        change(&mut transaction.open_table(KV).unwrap());
        transaction.commit().unwrap();
    };
    let (victim, row) = raw_key(&redb::Database::create(&path).unwrap());

    raw(&|table| drop(table.remove(&victim).unwrap()));
    let error = load(&open(&path)).unwrap_err();
    assert!(error.is_corrupt() && error.to_string().contains("table kv"), "{error}");

    // The same row elsewhere: its own checksum covers the key.
    let mut other = victim;
    other[15] ^= 1;
    raw(&|table| drop(table.insert(&other, &row[..]).unwrap()));
    let store = open(&path);
    let hex: String = other.iter().map(|byte| format!("{byte:02x}")).collect();
    for error in [load(&store).unwrap_err(), store.get_row(key(1, 20, 1)).unwrap_err()] {
        assert!(error.to_string().contains(&format!("table kv, key {hex}")), "{error}");
    }
    drop(store);

    raw(&|table| drop(table.remove(&other).unwrap()));
    raw(&|table| drop(table.insert(&victim, &row[..]).unwrap()));
    assert_eq!(load(&open(&path)).unwrap().0.len(), 50, "put back as it was, it is right again");
}

#[test]
fn an_older_version_of_a_row_is_noticed_when_loading() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    store.commit(&[put(key(1, 1, 0), "old")], at(1)).unwrap();
    drop(store);
    // Replaces the only row when `new` is given; returns what was there.
    let raw = |new: Option<&[u8]>| {
        use redb::ReadableTable;
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut table = transaction.open_table(KV).unwrap();
        let (encoded, old) = {
            let (key, row) = table.first().unwrap().unwrap();
            (*key.value(), row.value().to_vec())
        };
        if let Some(new) = new {
            table.insert(&encoded, new).unwrap();
        }
        drop(table);
        transaction.commit().unwrap();
        old
    };
    let old = raw(None);
    let store = open(&path);
    store.commit(&[put(key(1, 1, 0), "new")], at(2)).unwrap();
    drop(store);
    raw(Some(&old));
    assert!(load(&open(&path)).unwrap_err().is_corrupt());
}

#[test]
fn defragmentation_gives_space_back_and_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    for round in 0..20_i64 {
        let changes: Vec<Change> =
            (0..50).map(|n| put(key(1, round * 50 + n, 0), vec![n as u8; 4000])).collect();
        store.commit(&changes, at(round as u64)).unwrap();
    }
    let changes: Vec<Change> = (0..990).map(|main| Change::DeleteRow { key: key(1, main, 0) }).collect();
    store.commit(&changes, at(30)).unwrap();
    let before = store.file_size().unwrap();
    store.defragment().unwrap();
    let after = store.file_size().unwrap();
    assert!(after < before / 2, "{before} -> {after}");
    store.commit(&[put(key(1, 2000, 0), "x")], at(31)).unwrap();
    assert_eq!(load(&store).unwrap().0.len(), 11);
    drop(store);
    assert_eq!(load(&open(&path)).unwrap().2, at(31));
}

#[test]
fn a_store_in_use_cut_short_or_of_something_else_is_refused_clearly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = open(&path);
    let second = Store::open(&path, CACHE, &mut OpenReport::default());
    assert!(matches!(second, Err(StorageError::InUse { .. })), "{second:?}");
    store.commit(&[put(key(1, 1, 0), vec![1; 50_000])], at(1)).unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    for length in [0, 100, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Store::open(&path, CACHE, &mut OpenReport::default()).unwrap_err();
        assert!(error.is_corrupt() && error.to_string().contains("store.redb"), "{length}: {error}");
    }
    fs::write(&path, vec![b'x'; 10_000]).unwrap();
    assert!(Store::open(&path, CACHE, &mut OpenReport::default()).unwrap_err().is_corrupt());
    let inside_a_file = path.join("store.redb");
    let error = Store::open(&inside_a_file, CACHE, &mut OpenReport::default()).unwrap_err();
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
}

#[test]
fn a_data_directory_is_private_and_has_one_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep").join("keygate.data");
    let data = DataDir::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(data.log(), path.join("member/log"));
    assert_eq!(data.store(), path.join("member/store.redb"));
    assert!(path.join("member").is_dir());
    let second = DataDir::open(&path).unwrap_err();
    assert!(second.to_string().contains("in use"), "{second}");
    drop(data);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let error = DataDir::open(&path).unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    DataDir::open(&path).unwrap();
}
