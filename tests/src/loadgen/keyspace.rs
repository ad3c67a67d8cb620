//! The keys and values of a run, all computable from a number, so that every answer can be checked.
//!
//! A key is the prefix and a decimal number padded with zeros. A value starts with eight bytes of stamp (the writer's
//! clock in watch runs) and eight bytes of the key's number; the rest is one pattern that all runs share.

use anyhow::{Result, ensure};

const STAMP_BYTES: usize = 8;
const NUMBER_BYTES: usize = 8;
/// Room for the stamp and the number.
pub(crate) const MIN_VALUE_BYTES: usize = STAMP_BYTES + NUMBER_BYTES;
const PATTERN_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// See the module's text.
#[derive(Clone, Debug)]
pub(crate) struct Keyspace {
    prefix: Vec<u8>,
    key_bytes: usize,
    count: u64,
    pattern: Vec<u8>,
}

impl Keyspace {
    /// `count` keys of exactly `key_bytes` bytes, with values of exactly `value_bytes`.
    pub(crate) fn new(prefix: &str, key_bytes: usize, count: u64, value_bytes: usize) -> Result<Self> {
        ensure!(count > 0, "`--keys` must be at least 1");
        ensure!(value_bytes >= MIN_VALUE_BYTES, "`--value-size` must be at least {MIN_VALUE_BYTES}");
        // A larger message could wait forever for the 64 KiB window that servers start with.
        ensure!(value_bytes <= 32 << 10, "`--value-size` must be at most 32768");
        let digits = count.to_string().len();
        let needed = prefix.len() + digits;
        ensure!(
            key_bytes >= needed,
            "`--key-size` must be at least {needed} for `{count}` keys under `{prefix}`"
        );
        let mut random = Random::new(PATTERN_SEED);
        let pattern = (0..value_bytes).map(|_| (random.next() >> 33) as u8).collect();
        Ok(Keyspace { prefix: prefix.as_bytes().to_vec(), key_bytes, count, pattern })
    }

    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Replaces `out` by key `number`.
    pub(crate) fn key(&self, out: &mut Vec<u8>, number: u64) {
        out.clear();
        out.extend_from_slice(&self.prefix);
        out.resize(self.key_bytes, b'0');
        let mut rest = number;
        for digit in out[self.prefix.len()..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }

    /// Replaces `out` by a value of key `number`.
    pub(crate) fn value(&self, out: &mut Vec<u8>, number: u64, stamp: u64) {
        out.clear();
        out.extend_from_slice(&stamp.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&self.pattern[MIN_VALUE_BYTES..]);
    }

    /// The stamp of a value, provided that it is a whole and undamaged value of key `number`.
    pub(crate) fn check_value(&self, value: &[u8], number: u64) -> Result<u64> {
        let expected = self.pattern.len();
        ensure!(value.len() == expected, "value of {} bytes instead of {expected}", value.len());
        let right_number = value[STAMP_BYTES..MIN_VALUE_BYTES] == number.to_le_bytes();
        ensure!(right_number, "the value belongs to another key than number {number}");
        ensure!(
            value[MIN_VALUE_BYTES..] == self.pattern[MIN_VALUE_BYTES..],
            "damaged value of key number {number}"
        );
        let mut stamp = [0u8; STAMP_BYTES];
        stamp.copy_from_slice(&value[..STAMP_BYTES]);
        Ok(u64::from_le_bytes(stamp))
    }
}

/// Xorshift: a nanosecond for each number, good enough to spread keys.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Random(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_padded_to_their_size() {
        let keys = Keyspace::new("k", 8, 1000, 32).unwrap();
        let mut key = Vec::new();
        keys.key(&mut key, 987);
        assert_eq!(key, b"k0000987");
        keys.key(&mut key, 0);
        assert_eq!(key, b"k0000000");
    }

    #[test]
    fn only_an_undamaged_value_of_the_right_key_passes() {
        let keys = Keyspace::new("k", 16, 1000, 64).unwrap();
        let mut value = Vec::new();
        keys.value(&mut value, 5, 77);
        assert_eq!(keys.check_value(&value, 5).unwrap(), 77);
        assert!(keys.check_value(&value, 6).is_err());
        assert!(keys.check_value(&value[..63], 5).is_err());
        value[40] ^= 1;
        assert!(keys.check_value(&value, 5).is_err());
    }

    #[test]
    fn sizes_that_cannot_work_are_refused() {
        assert!(Keyspace::new("k", 16, 0, 64).is_err());
        assert!(Keyspace::new("k", 4, 100_000, 64).is_err());
        assert!(Keyspace::new("k", 16, 10, 8).is_err());
    }
}
