//! Our own records inside the log: the log's identity, the envelope around an entry, the seal of a batch.
//!
//! Field by field in `docs/formats/log.md`. Decoders take any bytes and never panic.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use protobuf::ProtobufEnum;
use raft::eraftpb::{Entry, EntryType};

use super::{OpenReport, StorageError};

const ID_MAGIC: &[u8; 8] = b"KEYGLOG1";
const ID_COPY: usize = 32;
const VERSION: u8 = 1;
pub(super) const ENVELOPE_HEADER: usize = 56;
pub(super) const SEAL_LEN: usize = 120;
const SEAL_CRC_AT: usize = 108;
pub(super) const SEAL_END_AT: usize = 112;
const FLAG_CLEAN: u8 = 1;

/// Random identity of one log; its magics mark our records on disk, so stored values cannot imitate them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogId([u8; 16]);

impl LogId {
    pub(super) fn new(bytes: [u8; 16]) -> LogId {
        LogId(bytes)
    }

    pub(super) fn envelope_magic(&self) -> [u8; 8] {
        array(&self.0, 0)
    }

    pub(super) fn seal_magic(&self) -> [u8; 8] {
        array(&self.0, 8)
    }

    pub(super) fn seal_end_magic(&self) -> [u8; 8] {
        self.seal_magic().map(|byte| !byte)
    }

    /// Writes the identity of a new log durably.
    pub(super) fn create(&self, path: &Path) -> Result<(), StorageError> {
        let mut copy = Vec::with_capacity(2 * ID_COPY);
        copy.extend_from_slice(ID_MAGIC);
        copy.extend_from_slice(&u32::from(VERSION).to_be_bytes());
        copy.extend_from_slice(&self.0);
        copy.extend_from_slice(&crc32c::crc32c(&copy).to_be_bytes());
        copy.extend_from_within(..);
        let staged = path.with_extension("new");
        let write = || {
            let mut file = File::create(&staged)?;
            file.write_all(&copy)?;
            file.sync_all()?;
            fs::rename(&staged, path)?;
            path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
        };
        write().map_err(|e| StorageError::io(path, "write", e))
    }

    /// Reads the identity; one of its two copies is enough, and a bad one is reported.
    pub(super) fn read(path: &Path, report: &mut OpenReport) -> Result<LogId, StorageError> {
        let bytes = fs::read(path).map_err(|e| StorageError::io(path, "read", e))?;
        if bytes.len() != 2 * ID_COPY {
            return Err(StorageError::corrupt(
                path,
                "offset 0",
                format!("{} bytes instead of 64", bytes.len()),
            ));
        }
        let (first, second) = bytes.split_at(ID_COPY);
        let decode = |copy: &[u8]| {
            (copy.starts_with(ID_MAGIC) && crc32c::crc32c(&copy[..28]) == be32(copy, 28))
                .then(|| (be32(copy, 8), LogId(array(copy, 12))))
        };
        let (version, id) = match (decode(first), decode(second)) {
            (None, None) => {
                return Err(StorageError::corrupt(
                    path,
                    "offset 0",
                    "both copies of the log's identity are damaged",
                ));
            }
            (Some(found), Some(_)) => found,
            (Some(found), None) => {
                report.add(
                    path,
                    ID_COPY as u64,
                    "the second copy of the log's identity is damaged; the first is used",
                );
                found
            }
            (None, Some(found)) => {
                report.add(path, 0, "the first copy of the log's identity is damaged; the second is used");
                found
            }
        };
        if version != u32::from(VERSION) {
            return Err(StorageError::WrongVersion {
                path: path.to_owned(),
                found: version.into(),
                supported: VERSION.into(),
            });
        }
        Ok(id)
    }
}

/// What an envelope says besides the entry itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EnvelopeInfo {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) prev_term: u64,
    pub(super) batch: u64,
    /// Bytes of the whole envelope.
    pub(super) len: usize,
}

/// The stored form of `entry`.
pub(super) fn wrap(id: &LogId, entry: &Entry, prev_term: u64, batch: u64) -> Entry {
    let mut data = Vec::with_capacity(ENVELOPE_HEADER + entry.context.len() + entry.data.len());
    data.extend_from_slice(&id.envelope_magic());
    data.extend_from_slice(&[VERSION, entry.entry_type.value() as u8, 0, 0]);
    for number in [entry.index, entry.term, prev_term, batch] {
        data.extend_from_slice(&number.to_be_bytes());
    }
    // raft-engine refuses batches of 2 GiB, far below u32::MAX.
    data.extend_from_slice(&(entry.context.len() as u32).to_be_bytes());
    data.extend_from_slice(&(entry.data.len() as u32).to_be_bytes());
    let crc =
        crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&data), &entry.context), &entry.data);
    data.extend_from_slice(&crc.to_be_bytes());
    data.extend_from_slice(&entry.context);
    data.extend_from_slice(&entry.data);
    let mut stored = Entry::default();
    stored.set_entry_type(entry.entry_type);
    stored.index = entry.index;
    stored.term = entry.term;
    stored.data = data.into();
    stored
}

/// Verifies the envelope at the start of `bytes` (which may go on behind it).
pub(super) fn check_envelope(id: &LogId, bytes: &[u8]) -> Result<EnvelopeInfo, &'static str> {
    if bytes.len() < ENVELOPE_HEADER || !bytes.starts_with(&id.envelope_magic()) {
        return Err("the entry's envelope is missing");
    }
    let content = (be32(bytes, 44) as usize).saturating_add(be32(bytes, 48) as usize);
    let len = ENVELOPE_HEADER.saturating_add(content);
    if bytes.len() < len {
        return Err("the entry's envelope is longer than the place it is in");
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..52]), &bytes[ENVELOPE_HEADER..len]);
    if crc != be32(bytes, 52) {
        return Err("the checksum of the entry is wrong");
    }
    if bytes[8] != VERSION {
        return Err("the entry has a version that this program does not know");
    }
    Ok(EnvelopeInfo {
        index: be64(bytes, 12),
        term: be64(bytes, 20),
        prev_term: be64(bytes, 28),
        batch: be64(bytes, 36),
        len,
    })
}

/// Verifies a stored entry and takes the envelope off.
pub(super) fn unwrap(id: &LogId, mut stored: Entry) -> Result<(Entry, EnvelopeInfo), &'static str> {
    let data = std::mem::take(&mut stored.data);
    let info = check_envelope(id, &data)?;
    if info.len != data.len() {
        return Err("bytes follow the entry's envelope");
    }
    if (info.index, info.term) != (stored.index, stored.term)
        || EntryType::from_i32(i32::from(data[9])) != Some(stored.entry_type)
        || !stored.context.is_empty()
    {
        return Err("the entry and its envelope contradict each other");
    }
    let payload_at = ENVELOPE_HEADER + be32(&data, 44) as usize;
    let data: Bytes = data;
    stored.context = data.slice(ENVELOPE_HEADER..payload_at);
    stored.data = data.slice(payload_at..);
    Ok((stored, info))
}

/// The log's state after one batch; see the format page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) clean: bool,
    pub(super) batch: u64,
    pub(super) previous: u64,
    pub(super) durable: u64,
    pub(super) truncated_index: u64,
    pub(super) truncated_term: u64,
    pub(super) last_index: u64,
    pub(super) last_term: u64,
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) commit: u64,
    pub(super) meta_count: u32,
    pub(super) meta_sum: u64,
    pub(super) entries: u32,
}

impl Seal {
    pub(super) fn encode(&self, id: &LogId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEAL_LEN);
        bytes.extend_from_slice(&id.seal_magic());
        bytes.extend_from_slice(&[VERSION, if self.clean { FLAG_CLEAN } else { 0 }, 0, 0]);
        for number in [
            self.batch,
            self.previous,
            self.durable,
            self.truncated_index,
            self.truncated_term,
            self.last_index,
            self.last_term,
            self.term,
            self.vote,
            self.commit,
        ] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.meta_count.to_be_bytes());
        bytes.extend_from_slice(&self.meta_sum.to_be_bytes());
        bytes.extend_from_slice(&self.entries.to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        bytes.extend_from_slice(&id.seal_end_magic());
        bytes
    }

    /// Verifies and reads the seal at the start of `bytes`.
    pub(super) fn decode(id: &LogId, bytes: &[u8]) -> Result<Seal, &'static str> {
        if bytes.len() < SEAL_LEN || !bytes.starts_with(&id.seal_magic()) {
            return Err("the batch's seal is missing");
        }
        if crc32c::crc32c(&bytes[..SEAL_CRC_AT]) != be32(bytes, SEAL_CRC_AT)
            || bytes[SEAL_END_AT..SEAL_LEN] != id.seal_end_magic()
        {
            return Err("the checksum of the batch's seal is wrong");
        }
        if bytes[8] != VERSION {
            return Err("the batch's seal has a version that this program does not know");
        }
        Ok(Seal {
            clean: bytes[9] & FLAG_CLEAN != 0,
            batch: be64(bytes, 12),
            previous: be64(bytes, 20),
            durable: be64(bytes, 28),
            truncated_index: be64(bytes, 36),
            truncated_term: be64(bytes, 44),
            last_index: be64(bytes, 52),
            last_term: be64(bytes, 60),
            term: be64(bytes, 68),
            vote: be64(bytes, 76),
            commit: be64(bytes, 84),
            meta_count: be32(bytes, 92),
            meta_sum: be64(bytes, 96),
            entries: be32(bytes, 104),
        })
    }
}

/// Metadata pair as stored: version, CRC-32C over key and payload, payload.
pub(super) fn encode_pair(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + payload.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(key), payload).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

pub(super) fn decode_pair(key: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
    let payload = bytes.get(5..)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), payload);
    (bytes[0] == VERSION && crc == be32(bytes, 1)).then(|| payload.to_vec())
}

/// What a metadata pair adds to the seal's sum.
pub(super) fn pair_hash(key: &[u8], payload: &[u8]) -> u64 {
    let key_crc = crc32c::crc32c(key);
    super::row::mix(u64::from(key_crc) << 32 | u64::from(crc32c::crc32c_append(key_crc, payload)))
}

pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}

/// Callers have checked that the bytes are there; missing ones read as zero rather than panicking.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = bytes.get(at..at + N) {
        out.copy_from_slice(found);
    }
    out
}
