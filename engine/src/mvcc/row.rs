//! One version of one key as the store holds it, and where such rows come from.
//!
//! A row's bytes are a flag byte and the canonical proto3 form of etcd's `mvccpb.KeyValue`: ascending fields, zeros left
//! out. `HashKV` hashes exactly these bytes, so they must be the ones that etcd would have written.

use super::revision::{Revision, RowKey};
use bytes::{Buf, Bytes};
use keygate_core::{KeyValue, KeyspaceId, LeaseId, Sealed, SealedForm};
use std::ops::ControlFlow;
use thiserror::Error;

/// A tombstone has only a key; its revision is in its [`RowKey`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub kv: KeyValue<Sealed>,
    pub tombstone: bool,
}

/// Where the rows are that memory does not hold.
///
/// # Contract
/// Holds every row up to the batch last given to [`super::State::flushed`], except those that a compaction has deleted.
/// May hold more. A row read back equals the row written.
pub trait RowSource {
    fn row(&self, key: RowKey) -> Result<Row, RowError>;

    /// Visits rows of `from <= revision < to_exclusive` in ascending order until `visit` breaks.
    fn scan(
        &self,
        keyspace: KeyspaceId,
        from: Revision,
        to_exclusive: Revision,
        visit: &mut dyn FnMut(Revision, Row) -> ControlFlow<()>,
    ) -> Result<(), RowError>;

    /// False: nobody waits for the answer any more. Long walks ask now and then, and end with
    /// [`RowError::Abandoned`]. The appliers of commands are always waited for.
    fn wanted(&self) -> bool {
        true
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum RowError {
    /// Only memory was allowed and it does not have the row.
    #[error("the row is in the store, which this read may not touch")]
    NeedsStore,
    #[error("row `{}.{}` of keyspace `{}` is missing", .0.revision.main, .0.revision.sub, .0.keyspace.0)]
    Missing(RowKey),
    #[error("damaged row: {0}")]
    Corrupt(String),
    /// The store cannot be read for the moment. Says nothing about what is in it: ask again later.
    #[error("the store cannot be read: {0}")]
    Unavailable(String),
    /// Too much is read at the same time.
    #[error(transparent)]
    NoRoom(Box<keygate_core::Refusal>),
    #[error("nobody waits for the rows any more")]
    Abandoned,
}

/// A source for readers that must not block: it has nothing.
#[derive(Clone, Copy, Debug)]
pub struct MemoryOnly;

impl RowSource for MemoryOnly {
    fn row(&self, _: RowKey) -> Result<Row, RowError> {
        Err(RowError::NeedsStore)
    }

    fn scan(
        &self,
        _: KeyspaceId,
        _: Revision,
        _: Revision,
        _: &mut dyn FnMut(Revision, Row) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        Err(RowError::NeedsStore)
    }
}

/// Set in the flag byte of a tombstone; the other bits are the value's [`SealedForm`].
const TOMBSTONE: u8 = 0x80;

// `field number << 3 | wire type` of mvccpb.KeyValue.
const KEY: u8 = 1 << 3 | 2;
const CREATE: u8 = 2 << 3;
const MOD: u8 = 3 << 3;
const VERSION: u8 = 4 << 3;
const VALUE: u8 = 5 << 3 | 2;
const LEASE: u8 = 6 << 3;

impl Row {
    pub(super) fn tombstone(key: Bytes) -> Self {
        let kv = KeyValue {
            key,
            create_revision: 0,
            mod_revision: 0,
            version: 0,
            lease: LeaseId::NONE,
            value: None,
        };
        Self { kv, tombstone: true }
    }

    /// Bytes of key and value.
    pub(super) fn size(&self) -> usize {
        self.kv.key.len() + self.kv.value.as_ref().map_or(0, Sealed::len)
    }

    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.size() + 48);
        self.encode_into(&mut out);
        out.into()
    }

    /// Appends the row to `out`, which a caller with many rows can use again.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let form = self.kv.value.as_ref().map_or(SealedForm::Clear, Sealed::form) as u8;
        out.push(if self.tombstone { form | TOMBSTONE } else { form });
        self.encode_proto(out);
    }

    /// Appends the canonical `mvccpb.KeyValue`.
    pub fn encode_proto(&self, out: &mut Vec<u8>) {
        let kv = &self.kv;
        put_bytes(out, KEY, &kv.key);
        put_number(out, CREATE, kv.create_revision);
        put_number(out, MOD, kv.mod_revision);
        put_number(out, VERSION, kv.version);
        if let Some(value) = &kv.value {
            put_bytes(out, VALUE, value.stored_bytes());
        }
        put_number(out, LEASE, kv.lease.0);
    }

    /// The inverse of [`Self::encode`]. Key and value are slices of `bytes`.
    pub fn decode(mut bytes: Bytes) -> Result<Self, RowError> {
        if bytes.is_empty() {
            return Err(corrupt("empty"));
        }
        let flags = bytes.get_u8();
        let tombstone = flags & TOMBSTONE != 0;
        let form = SealedForm::from_u8(flags & !TOMBSTONE)
            .ok_or_else(|| corrupt("unknown form of a sealed value"))?;
        let mut row = Self::tombstone(Bytes::new());
        row.tombstone = tombstone;
        let mut value = Bytes::new();
        let mut last = 0;
        while bytes.has_remaining() {
            let tag = bytes.get_u8();
            if tag <= last {
                return Err(corrupt("fields out of order"));
            }
            last = tag;
            match tag {
                KEY => row.kv.key = take_bytes(&mut bytes)?,
                CREATE => row.kv.create_revision = take_varint(&mut bytes)? as i64,
                MOD => row.kv.mod_revision = take_varint(&mut bytes)? as i64,
                VERSION => row.kv.version = take_varint(&mut bytes)? as i64,
                VALUE => value = take_bytes(&mut bytes)?,
                LEASE => row.kv.lease = LeaseId(take_varint(&mut bytes)? as i64),
                _ => return Err(corrupt("unknown field")),
            }
        }
        if tombstone {
            return if last > KEY { Err(corrupt("tombstone with more than a key")) } else { Ok(row) };
        }
        row.kv.value = Some(Sealed::recovered(form, value));
        Ok(row)
    }
}

fn corrupt(what: &str) -> RowError {
    RowError::Corrupt(what.to_owned())
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_number(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number != 0 {
        out.push(tag);
        put_varint(out, number as u64);
    }
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(tag);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn take_varint(bytes: &mut Bytes) -> Result<u64, RowError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        if !bytes.has_remaining() {
            return Err(corrupt("cut short"));
        }
        let byte = bytes.get_u8();
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(corrupt("number too long"))
}

fn take_bytes(bytes: &mut Bytes) -> Result<Bytes, RowError> {
    let length = take_varint(bytes)?;
    match usize::try_from(length) {
        Ok(length) if length <= bytes.len() => Ok(bytes.split_to(length)),
        _ => Err(corrupt("cut short")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keygate_core::Plaintext;

    fn row(lease: i64, value: &'static [u8]) -> Row {
        let kv = KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: 2,
            mod_revision: 300,
            version: 3,
            lease: LeaseId(lease),
            value: Some(Sealed::stored_in_clear(Plaintext::new(Bytes::from_static(value)))),
        };
        Row { kv, tombstone: false }
    }

    #[test]
    fn rows_are_canonical_protobuf_behind_a_flag_byte() {
        assert_eq!(
            row(5, b"v").encode().as_ref(),
            b"\0\x0a\x01k\x10\x02\x18\xac\x02\x20\x03\x2a\x01v\x30\x05"
        );
        assert_eq!(row(0, b"").encode().as_ref(), b"\0\x0a\x01k\x10\x02\x18\xac\x02\x20\x03");
        assert_eq!(Row::tombstone(Bytes::from_static(b"k")).encode().as_ref(), b"\x80\x0a\x01k");
    }

    #[test]
    fn rows_read_back_as_written_and_share_the_buffer() {
        for row in [row(-1, b"v"), row(i64::MAX, b""), Row::tombstone(Bytes::from_static(b"k"))] {
            let bytes = row.encode();
            let back = Row::decode(bytes.clone()).unwrap();
            assert_eq!(back, row);
            assert!(bytes.as_ptr_range().contains(&back.kv.key.as_ptr()));
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        let whole = row(5, b"value").encode();
        for length in 0..whole.len() {
            let _ = Row::decode(whole.slice(..length));
        }
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut bytes = whole.to_vec();
                bytes[at] = byte;
                let _ = Row::decode(bytes.into());
            }
        }
        for bad in [
            &b""[..],
            b"\x01\x0a\x01k",
            b"\0\x10\x02\x0a\x01k",
            b"\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x80\x0a\x01k\x10\x02",
        ] {
            assert!(Row::decode(Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }
}
