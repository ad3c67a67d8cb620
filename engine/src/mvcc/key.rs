//! A key as the index holds it: detached from the request that brought it, short ones without an allocation.
//!
//! The index is a persistent tree whose nodes are copied when a snapshot shares them. Keys that stand in the node itself
//! are copied and compared without touching other memory; a counted reference would cost a cache miss for each.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

/// With this many bytes a [`Key`] takes 24.
const INLINE: usize = 22;

#[derive(Clone)]
pub(super) struct Key(Form);

#[derive(Clone)]
enum Form {
    Inline { length: u8, bytes: [u8; INLINE] },
    Shared(Arc<[u8]>),
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(key);
                Self(Form::Inline { length, bytes })
            }
            _ => Self(Form::Shared(key.into())),
        }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Form::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self[..].cmp(&other[..])
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Key {}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_length_are_their_bytes_and_order_like_them() {
        assert_eq!(size_of::<Key>(), 24);
        let mut keys: Vec<Vec<u8>> = (0..100).map(|length| vec![b'k'; length]).collect();
        keys.extend((0..100).map(|length| vec![0; length]));
        for a in &keys {
            assert_eq!(&Key::from(&a[..])[..], &a[..]);
            for b in &keys {
                assert_eq!(Key::from(&a[..]).cmp(&Key::from(&b[..])), a.cmp(b));
            }
        }
    }
}
