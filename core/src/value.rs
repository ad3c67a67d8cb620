//! A key's value on its way in ([`Plaintext`]) and as everything behind the transform stage knows it ([`Sealed`]).
//!
//! The engine accepts only a [`Sealed`], and only this module makes one. Until sealing plugins
//! exist there is one way, and its name says what it does: [`Sealed::stored_in_clear`].

use bytes::Bytes;
use std::cmp::Ordering;
use std::fmt;

/// A value as the client sent it, or will read it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Plaintext(Bytes);

impl Plaintext {
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// How a value's bytes were made. Stored beside them; numbers are part of the disk format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum SealedForm {
    /// The client's bytes, unencrypted.
    Clear = 0,
}

impl SealedForm {
    pub fn from_u8(form: u8) -> Option<Self> {
        match form {
            0 => Some(Self::Clear),
            _ => None,
        }
    }
}

/// A value that has passed the transform stage. Its bytes mean nothing without their form: compare
/// and order through the methods, never through the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    form: SealedForm,
    bytes: Bytes,
}

impl Sealed {
    /// No sealing: log, store and memory will hold the client's bytes as they are.
    pub fn stored_in_clear(value: Plaintext) -> Self {
        Self { form: SealedForm::Clear, bytes: value.0 }
    }

    /// Reads back what was once sealed, from the engine's memory or from storage whose checksum was
    /// verified. The state machine calls it, a test holds that nothing else does.
    pub fn recovered(form: SealedForm, bytes: Bytes) -> Self {
        Self { form, bytes }
    }

    pub fn form(&self) -> SealedForm {
        self.form
    }

    /// The stored bytes, for a format's encoder.
    pub fn stored_bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The order of the two plaintexts.
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self.form, other.form) {
            (SealedForm::Clear, SealedForm::Clear) => self.bytes.cmp(&other.bytes),
        }
    }

    /// Undoes [`Self::stored_in_clear`].
    pub fn open_clear(self) -> Plaintext {
        match self.form {
            SealedForm::Clear => Plaintext(self.bytes),
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes sealed as {:?}", self.bytes.len(), self.form)
    }
}
