//! One commit's transaction: changes, fences and head go into the file together or not at all.

use std::path::Path;

use redb::{Database, WriteTransaction};

use super::fence::Fences;
use super::file::classify;
use super::head::{Head, encode_head};
use super::{Change, CommitStats, HEAD, HEAD_KEY, KV, META};
use crate::storage::record::be64;
use crate::storage::row::{self, TableTag};
use crate::storage::{StorageError, random_16};

/// Makes tables and head of a new store.
pub(super) fn initialise(path: &Path, database: &Database) -> Result<Head, StorageError> {
    let random = random_16().map_err(|e| StorageError::io(Path::new("/dev/urandom"), "read", e))?;
    let mut head = Head { hash_key: be64(&random, 0), ..Head::default() };
    write(database, [], &mut head, &mut Fences::default()).map_err(|error| classify(path, "write", error))?;
    if let Some(directory) = path.parent() {
        std::fs::File::open(directory)
            .and_then(|d| d.sync_all())
            .map_err(|e| StorageError::io(directory, "sync directory", e))?;
    }
    Ok(head)
}

pub(super) fn write<'a>(
    database: &Database,
    changes: impl IntoIterator<Item = &'a Change>,
    head: &mut Head,
    fences: &mut Fences,
) -> Result<CommitStats, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let mut stats = apply(&transaction, changes, head, fences)?;
    let mut framed = Vec::new();
    row::frame_into(&mut framed, TableTag::Head, HEAD_KEY, &encode_head(head));
    transaction.open_table(HEAD)?.insert(HEAD_KEY, framed.as_slice())?;
    transaction.commit()?;
    (stats.rows, stats.metas) = (head.kv.count, head.meta.count);
    Ok(stats)
}

fn apply<'a>(
    transaction: &WriteTransaction,
    changes: impl IntoIterator<Item = &'a Change>,
    head: &mut Head,
    fences: &mut Fences,
) -> Result<CommitStats, redb::Error> {
    let mut kv = transaction.open_table(KV)?;
    let mut meta = transaction.open_table(META)?;
    let mut stats = CommitStats::default();
    let mut framed = Vec::new();
    let hash_key = head.hash_key;
    fences.begin(&kv)?;
    for change in changes {
        stats.changes += 1;
        match change {
            Change::PutRow { key, value } => {
                debug_assert!(!key.is_fence(), "nobody has so many revisions");
                fences.before_row(&mut kv, key.keyspace)?;
                let key = key.encode();
                row::frame_into(&mut framed, TableTag::Kv, &key, value);
                if let Some(old) = kv.insert(&key, framed.as_slice())? {
                    head.kv.remove(hash_key, TableTag::Kv, &key, old.value());
                }
                head.kv.add(hash_key, TableTag::Kv, &key, &framed);
                stats.bytes += value.len() as u64;
            }
            Change::DeleteRow { key } => {
                debug_assert!(!key.is_fence(), "nobody has so many revisions");
                fences.without_row(key.keyspace);
                let key = key.encode();
                if let Some(old) = kv.remove(&key)? {
                    head.kv.remove(hash_key, TableTag::Kv, &key, old.value());
                }
            }
            Change::PutMeta { key, value } => {
                row::frame_into(&mut framed, TableTag::Meta, key, value);
                if let Some(old) = meta.insert(&key[..], framed.as_slice())? {
                    head.meta.remove(hash_key, TableTag::Meta, key, old.value());
                }
                head.meta.add(hash_key, TableTag::Meta, key, &framed);
                stats.bytes += value.len() as u64;
            }
            Change::DeleteMeta { key } => {
                if let Some(old) = meta.remove(&key[..])? {
                    head.meta.remove(hash_key, TableTag::Meta, key, old.value());
                }
            }
        }
    }
    fences.settle(&mut kv)?;
    Ok(stats)
}
