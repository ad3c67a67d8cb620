//! The frame around every value of the store, and the hash by which a row counts in the store's sums.

use super::record::be32;

/// Key of one revision of one key; rows ascend by keyspace, then revision, then sub revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    pub keyspace: u32,
    pub main: i64,
    pub sub: u32,
}

impl RowKey {
    /// Greater than the key of any row of `keyspace`. See `docs/formats/store.md`.
    pub(super) fn fence(keyspace: u32) -> RowKey {
        RowKey { keyspace, main: i64::MAX, sub: u32::MAX }
    }

    pub(super) fn is_fence(&self) -> bool {
        *self == RowKey::fence(self.keyspace)
    }

    pub(super) fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.keyspace.to_be_bytes());
        // With its sign bit flipped an i64 sorts as bytes like it sorts as a number.
        bytes[4..12].copy_from_slice(&(self.main ^ i64::MIN).to_be_bytes());
        bytes[12..].copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; 16]) -> RowKey {
        RowKey {
            keyspace: be32(bytes, 0),
            main: super::record::be64(bytes, 4) as i64 ^ i64::MIN,
            sub: be32(bytes, 12),
        }
    }
}

/// A redb table of ours: its tag goes into every checksum, so that a row cannot pass for one of another table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableTag {
    Kv = 1,
    Meta = 2,
    Head = 3,
}

impl TableTag {
    pub(super) fn name(self) -> &'static str {
        match self {
            TableTag::Kv => "kv",
            TableTag::Meta => "meta",
            TableTag::Head => "head",
        }
    }
}

const FRAME_VERSION: u8 = 1;
pub(super) const FRAME_HEADER: usize = 5;

/// Puts the framed form of `payload` into `out`, replacing what was there.
pub(super) fn frame_into(out: &mut Vec<u8>, tag: TableTag, key: &[u8], payload: &[u8]) {
    out.clear();
    out.reserve(FRAME_HEADER + payload.len());
    out.push(FRAME_VERSION);
    out.extend_from_slice(&checksum(tag, key, FRAME_VERSION, payload).to_be_bytes());
    out.extend_from_slice(payload);
}

/// The payload of a framed row, or what is wrong with it.
pub(super) fn unframe<'a>(tag: TableTag, key: &[u8], row: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let payload = row.get(FRAME_HEADER..).ok_or("the row is cut short")?;
    if checksum(tag, key, row[0], payload) != be32(row, 1) {
        return Err("the checksum of the row is wrong");
    }
    if row[0] != FRAME_VERSION {
        return Err("the row has a version that this program does not know");
    }
    Ok(payload)
}

fn checksum(tag: TableTag, key: &[u8], version: u8, payload: &[u8]) -> u32 {
    let mut head = [0; 5];
    head[0] = tag as u8;
    head[1..].copy_from_slice(&(key.len() as u32).to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), key);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &[version]), payload)
}

/// What a framed row adds to its table's sum. Uses the row's own checksum field, so it need not read the payload.
pub(super) fn row_hash(hash_key: u64, tag: TableTag, key: &[u8], row: &[u8]) -> u64 {
    let mut hash = mix(hash_key ^ (tag as u64) << 32 ^ key.len() as u64);
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_be_bytes(word));
    }
    mix(hash ^ u64::from(be32(row, 1)) << 16 ^ (row.len() as u64) << 48)
}

/// A 64-bit finaliser (the one of SplitMix64).
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_keys_sort_as_bytes_as_they_sort_as_numbers() {
        let mut keys = Vec::new();
        for keyspace in [0, 1, u32::MAX] {
            for main in [i64::MIN, -1, 0, 1, 255, 256, i64::MAX] {
                for sub in [0, 1, u32::MAX] {
                    keys.push(RowKey { keyspace, main, sub });
                }
            }
        }
        assert!(keys.is_sorted());
        assert!(keys.iter().map(RowKey::encode).is_sorted());
        assert!(keys.iter().all(|key| RowKey::decode(&key.encode()) == *key));
    }

    #[test]
    fn a_row_is_not_valid_under_another_key_table_or_version() {
        let mut row = Vec::new();
        frame_into(&mut row, TableTag::Kv, b"key", b"payload");
        assert_eq!(unframe(TableTag::Kv, b"key", &row), Ok(&b"payload"[..]));
        assert!(unframe(TableTag::Meta, b"key", &row).is_err());
        assert!(unframe(TableTag::Kv, b"kez", &row).is_err());
        for bit in 0..row.len() * 8 {
            row[bit / 8] ^= 1 << (bit % 8);
            assert!(unframe(TableTag::Kv, b"key", &row).is_err(), "bit {bit}");
            row[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(unframe(TableTag::Kv, b"key", b"").is_err());
    }
}
