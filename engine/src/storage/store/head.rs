//! The store's head: applied index, and count and sum of every row, by which lost rows are noticed.

use std::path::Path;

use redb::{Database, ReadableDatabase};

use super::file::{classify, place};
use super::{Applied, HEAD, HEAD_KEY};
use crate::storage::StorageError;
use crate::storage::record::{be32, be64};
use crate::storage::row::{self, TableTag};

const HEAD_LEN: usize = 84;
const FORMAT_VERSION: u32 = 1;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) count: u64,
    pub(super) sum: u64,
    /// Bytes of keys and framed values.
    pub(super) bytes: u64,
}

impl Sum {
    pub(super) fn add(&mut self, hash_key: u64, tag: TableTag, key: &[u8], row: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(row::row_hash(hash_key, tag, key, row));
        self.bytes = self.bytes.wrapping_add((key.len() + row.len()) as u64);
    }

    pub(super) fn remove(&mut self, hash_key: u64, tag: TableTag, key: &[u8], row: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(row::row_hash(hash_key, tag, key, row));
        self.bytes = self.bytes.wrapping_sub((key.len() + row.len()) as u64);
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head {
    pub(super) applied: Applied,
    pub(super) commit: u64,
    pub(super) hash_key: u64,
    pub(super) kv: Sum,
    pub(super) meta: Sum,
}

pub(super) fn encode_head(head: &Head) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_LEN);
    bytes.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
    for number in [
        head.applied.index,
        head.applied.term,
        head.commit,
        head.hash_key,
        head.kv.count,
        head.kv.sum,
        head.kv.bytes,
        head.meta.count,
        head.meta.sum,
        head.meta.bytes,
    ] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes
}

pub(super) fn read_head(path: &Path, database: &Database) -> Result<Head, StorageError> {
    let read = || -> Result<Option<Vec<u8>>, redb::Error> {
        let table = database.begin_read()?.open_table(HEAD)?;
        Ok(table.get(HEAD_KEY)?.map(|row| row.value().to_vec()))
    };
    let damaged = |what: &str| StorageError::corrupt(path, place(TableTag::Head, HEAD_KEY), what);
    let row = read()
        .map_err(|error| classify(path, "read", error))?
        .ok_or_else(|| damaged("the row is missing"))?;
    let bytes = row::unframe(TableTag::Head, HEAD_KEY, &row).map_err(damaged)?;
    let version = be32(bytes, 0);
    if version != FORMAT_VERSION {
        return Err(StorageError::WrongVersion {
            path: path.to_owned(),
            found: version.into(),
            supported: FORMAT_VERSION.into(),
        });
    }
    if bytes.len() != HEAD_LEN {
        return Err(damaged("the row has an impossible length"));
    }
    Ok(Head {
        applied: Applied { index: be64(bytes, 4), term: be64(bytes, 12) },
        commit: be64(bytes, 20),
        hash_key: be64(bytes, 28),
        kv: Sum { count: be64(bytes, 36), sum: be64(bytes, 44), bytes: be64(bytes, 52) },
        meta: Sum { count: be64(bytes, 60), sum: be64(bytes, 68), bytes: be64(bytes, 76) },
    })
}
