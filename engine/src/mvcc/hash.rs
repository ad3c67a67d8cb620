//! `HashKV`: the checksum over history by which members, and etcd's own tools, compare what they hold.

use super::keyspace::Keyspace;
use super::read::ReadError;
use super::revision::Revision;
use super::row::{Row, RowSource};
use keygate_core::Refusal;
use std::ops::ControlFlow;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashAnswer {
    pub hash: u32,
    /// -1: never compacted.
    pub compact_revision: i64,
    pub hash_revision: i64,
}

/// `requested` 0 or less: the current revision. Reads every row; takes time.
pub fn hash_kv(keyspace: &Keyspace, requested: i64, rows: &dyn RowSource) -> Result<HashAnswer, ReadError> {
    let compacted = keyspace.compact_revision;
    if requested > 0 && requested < compacted {
        return Err(Refusal::Compacted.into());
    }
    if requested > keyspace.revision {
        return Err(Refusal::FutureRevision.into());
    }
    let at = if requested > 0 { requested } else { keyspace.revision };
    let mut hasher = RowHasher::new(compacted);
    let end = Revision::start_of(at + 1);
    let mut add = |revision: Revision, row: &Row| {
        // What readers at `at` see is what a compaction keeps of the rows behind its horizon.
        let keep = revision.main > compacted
            || keyspace
                .index
                .get::<[u8]>(&row.kv.key)
                .and_then(|entry| entry.at(at))
                .is_some_and(|version| version.revision() == revision);
        if keep {
            hasher.add(revision, row);
        }
    };
    let first_pending = keyspace.pending.first().unwrap_or(end).min(end);
    if keyspace.flushed > 0 {
        rows.scan(keyspace.id, Revision { main: 0, sub: 0 }, first_pending, &mut |revision, row| {
            add(revision, &row);
            ControlFlow::Continue(())
        })
        .map_err(|error| keyspace.explain(error, at, requested > 0))?;
        if keyspace.overtaken(compacted) {
            return Err(ReadError::Outdated);
        }
    }
    keyspace
        .pending
        .rows_from(first_pending)
        .take_while(|(revision, _)| *revision < end)
        .for_each(|(revision, row)| add(revision, row));
    Ok(HashAnswer { hash: hasher.finish(), compact_revision: compacted, hash_revision: at })
}

/// CRC-32C over the rows' keys and values as they would stand in etcd's bucket `key`.
pub struct RowHasher {
    crc: u32,
    compact_revision: i64,
    bytes: Vec<u8>,
}

impl RowHasher {
    pub fn new(compact_revision: i64) -> Self {
        Self { crc: crc32c::crc32c(b"key"), compact_revision, bytes: Vec::new() }
    }

    /// Rows come in ascending order, superseded ones behind the compact revision left out.
    pub fn add(&mut self, revision: Revision, row: &Row) {
        // A compaction at a deletion's own revision drops it, sooner or later.
        if row.tombstone && revision.main == self.compact_revision {
            return;
        }
        let bytes = &mut self.bytes;
        bytes.clear();
        bytes.extend_from_slice(&revision.main.to_be_bytes());
        bytes.push(b'_');
        bytes.extend_from_slice(&u64::from(revision.sub).to_be_bytes());
        if row.tombstone {
            bytes.push(b't');
        }
        row.encode_proto(bytes);
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }

    pub fn finish(&self) -> u32 {
        self.crc
    }
}
