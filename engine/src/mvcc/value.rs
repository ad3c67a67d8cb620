//! A value in the form that log and store hold: the only serialisable one, and it is made from a [`Sealed`] only.

use bytes::Bytes;
use keygate_core::{Sealed, SealedForm, ValueSize};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredValue(Sealed);

impl StoredValue {
    pub fn sealed(&self) -> &Sealed {
        &self.0
    }

    pub fn into_sealed(self) -> Sealed {
        self.0
    }
}

impl From<Sealed> for StoredValue {
    fn from(sealed: Sealed) -> Self {
        Self(sealed)
    }
}

impl From<StoredValue> for Sealed {
    fn from(stored: StoredValue) -> Self {
        stored.0
    }
}

impl ValueSize for StoredValue {
    fn value_size(&self) -> usize {
        self.0.len()
    }
}

impl Serialize for StoredValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.0.form() as u8, self.0.stored_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoredValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (form, bytes) = <(u8, Bytes)>::deserialize(deserializer)?;
        let form =
            SealedForm::from_u8(form).ok_or_else(|| D::Error::custom("unknown form of a sealed value"))?;
        Ok(Self(Sealed::recovered(form, bytes)))
    }
}

/// A value at rest in memory: in an allocation of its own that is exactly as long as it is, owned by its entry. A
/// counted buffer would cost each of a million keys another allocation.
pub(super) struct Kept {
    form: SealedForm,
    bytes: Box<[u8]>,
}

impl Kept {
    pub(super) fn into_parts(self) -> (SealedForm, Box<[u8]>) {
        (self.form, self.bytes)
    }
}

impl From<&Sealed> for Kept {
    fn from(sealed: &Sealed) -> Self {
        Self { form: sealed.form(), bytes: sealed.stored_bytes().as_ref().into() }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes kept as {:?}", self.bytes.len(), self.form)
    }
}

/// Lets one evaluator run requests as they arrive ([`Sealed`]) and as the log has them ([`StoredValue`]).
pub(super) trait AsSealed {
    fn as_sealed(&self) -> &Sealed;
}

impl AsSealed for Sealed {
    fn as_sealed(&self) -> &Sealed {
        self
    }
}

impl AsSealed for StoredValue {
    fn as_sealed(&self) -> &Sealed {
        &self.0
    }
}
