//! A set of keys as etcd's requests name it: one key, a half-open interval, or everything from a key on.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What `key` and `range_end` of a request mean together. Keys are arbitrary bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyRange {
    /// Exactly this key.
    Single(Bytes),
    /// `[start, end)`. May be empty: etcd answers `end <= start` with nothing, not with an error.
    Span { start: Bytes, end: Bytes },
    /// Every key that is not less than this one.
    From(Bytes),
}

impl KeyRange {
    /// Reads etcd's wire form: an empty `range_end` means one key, a single zero byte means "to the end".
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        if range_end.is_empty() {
            Self::Single(key)
        } else if range_end.as_ref() == b"\0" {
            Self::From(key)
        } else {
            Self::Span { start: key, end: range_end }
        }
    }

    /// Every key that there is.
    pub fn everything() -> Self {
        Self::From(Bytes::new())
    }

    pub fn start(&self) -> &Bytes {
        match self {
            Self::Single(key) | Self::From(key) => key,
            Self::Span { start, .. } => start,
        }
    }

    /// The wire form's `range_end`.
    pub fn wire_end(&self) -> Bytes {
        match self {
            Self::Single(_) => Bytes::new(),
            Self::Span { end, .. } => end.clone(),
            Self::From(_) => Bytes::from_static(b"\0"),
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Single(k) => k.as_ref() == key,
            Self::Span { start, end } => start.as_ref() <= key && key < end.as_ref(),
            Self::From(start) => start.as_ref() <= key,
        }
    }

    /// True for an interval that no key can be in.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Span { start, end } if end <= start)
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(key) => write!(f, "`{}`", key.escape_ascii()),
            Self::Span { start, end } => write!(f, "[`{}`, `{}`)", start.escape_ascii(), end.escape_ascii()),
            Self::From(start) => write!(f, "[`{}`, end)", start.escape_ascii()),
        }
    }
}
