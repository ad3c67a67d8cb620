//! What a log entry says: an operation, for which keyspace, and what its permit depended on.
//!
//! Format: `docs/formats/command.md`. Txns are written flat, so that no bytes can make the decoder recurse deeper than
//! [`MAX_TXN_DEPTH`].

use super::value::StoredValue;
use keygate_core::{Compare, DeleteRange, Fence, KeyspaceId, LeaseFence, Operation, Put, Range, Txn, TxnOp};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use thiserror::Error;

#[derive(Clone, PartialEq, Debug)]
pub struct Command {
    pub keyspace: KeyspaceId,
    /// None for internal work: no change of policy makes it stale.
    pub fence: Option<Fence>,
    pub leases: SmallVec<[LeaseFence; 1]>,
    /// In whose name, for the audit; apply does not look at it.
    pub attribution: Option<String>,
    pub operation: Operation<StoredValue>,
}

#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CommandError {
    #[error("command of version `{0}`, which this program does not know")]
    Version(u8),
    #[error("command is malformed: {0}")]
    Malformed(&'static str),
    #[error("command cannot be encoded: {0}")]
    Encoding(String),
}

const VERSION: u8 = 1;

/// The wire decoder in front of us stops at 100 levels.
const MAX_TXN_DEPTH: usize = 100;

/// [`Operation::Txn`]'s position, by which it is serialised.
const TXN_VARIANT: u32 = 4;

#[derive(Serialize)]
struct HeadRef<'a> {
    keyspace: KeyspaceId,
    fence: Option<Fence>,
    leases: &'a [LeaseFence],
    attribution: Option<&'a str>,
}

#[derive(Deserialize)]
struct Head {
    keyspace: KeyspaceId,
    fence: Option<Fence>,
    leases: Vec<LeaseFence>,
    attribution: Option<String>,
}

/// A txn whose nested txns stand behind it in the list, in the order in which they are met.
#[derive(Serialize)]
struct FlatRef<'a> {
    compare: &'a [Compare<StoredValue>],
    success: Vec<FlatOpRef<'a>>,
    failure: Vec<FlatOpRef<'a>>,
}

#[derive(Serialize)]
enum FlatOpRef<'a> {
    Range(&'a Range),
    Put(&'a Put<StoredValue>),
    DeleteRange(&'a DeleteRange),
    Txn,
}

#[derive(Deserialize)]
struct Flat {
    compare: Vec<Compare<StoredValue>>,
    success: Vec<FlatOp>,
    failure: Vec<FlatOp>,
}

#[derive(Deserialize)]
enum FlatOp {
    Range(Range),
    Put(Put<StoredValue>),
    DeleteRange(DeleteRange),
    Txn,
}

impl Command {
    pub fn encode(&self) -> Result<Vec<u8>, CommandError> {
        let failed = |error: postcard::Error| CommandError::Encoding(error.to_string());
        let head = HeadRef {
            keyspace: self.keyspace,
            fence: self.fence,
            leases: &self.leases,
            attribution: self.attribution.as_deref(),
        };
        let out = postcard::to_extend(&head, vec![VERSION]).map_err(failed)?;
        match &self.operation {
            Operation::Txn(txn) => {
                let mut flat = Vec::new();
                flatten(txn, MAX_TXN_DEPTH, &mut flat)?;
                postcard::to_extend(&(TXN_VARIANT, flat), out).map_err(failed)
            }
            operation => postcard::to_extend(operation, out).map_err(failed),
        }
    }

    /// Contract: answers an error for whatever is not a command; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let malformed = |_| CommandError::Malformed("a field cannot be read");
        let (version, rest) = bytes.split_first().ok_or(CommandError::Malformed("empty"))?;
        if *version != VERSION {
            return Err(CommandError::Version(*version));
        }
        let (head, rest) = postcard::take_from_bytes::<Head>(rest).map_err(malformed)?;
        let (variant, body) = postcard::take_from_bytes::<u32>(rest).map_err(malformed)?;
        let (operation, rest) = if variant == TXN_VARIANT {
            let (flat, rest) = postcard::take_from_bytes::<Vec<Flat>>(body).map_err(malformed)?;
            let mut flat = flat.into_iter();
            let txn = unflatten(&mut flat, MAX_TXN_DEPTH)?;
            if flat.next().is_some() {
                return Err(CommandError::Malformed("a nested txn that no operation names"));
            }
            (Operation::Txn(txn), rest)
        } else {
            postcard::take_from_bytes::<Operation<StoredValue>>(rest).map_err(malformed)?
        };
        if !rest.is_empty() {
            return Err(CommandError::Malformed("bytes behind the end"));
        }
        Ok(Self {
            keyspace: head.keyspace,
            fence: head.fence,
            leases: head.leases.into(),
            attribution: head.attribution,
            operation,
        })
    }
}

const TOO_DEEP: CommandError = CommandError::Malformed("txns are nested too deep");

fn flatten<'a>(
    txn: &'a Txn<StoredValue>,
    depth: usize,
    flat: &mut Vec<FlatRef<'a>>,
) -> Result<(), CommandError> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let branch = |ops: &'a [TxnOp<StoredValue>]| {
        ops.iter()
            .map(|op| match op {
                TxnOp::Range(range) => FlatOpRef::Range(range),
                TxnOp::Put(put) => FlatOpRef::Put(put),
                TxnOp::DeleteRange(delete) => FlatOpRef::DeleteRange(delete),
                TxnOp::Txn(_) => FlatOpRef::Txn,
            })
            .collect()
    };
    flat.push(FlatRef {
        compare: &txn.compare,
        success: branch(&txn.success),
        failure: branch(&txn.failure),
    });
    for op in txn.success.iter().chain(&txn.failure) {
        if let TxnOp::Txn(nested) = op {
            flatten(nested, depth, flat)?;
        }
    }
    Ok(())
}

fn unflatten(flat: &mut std::vec::IntoIter<Flat>, depth: usize) -> Result<Txn<StoredValue>, CommandError> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let txn = flat.next().ok_or(CommandError::Malformed("a nested txn is missing"))?;
    let mut branch = |ops: Vec<FlatOp>| {
        ops.into_iter()
            .map(|op| {
                Ok(match op {
                    FlatOp::Range(range) => TxnOp::Range(range),
                    FlatOp::Put(put) => TxnOp::Put(put),
                    FlatOp::DeleteRange(delete) => TxnOp::DeleteRange(delete),
                    FlatOp::Txn => TxnOp::Txn(unflatten(flat, depth)?),
                })
            })
            .collect::<Result<Vec<_>, CommandError>>()
    };
    let success = branch(txn.success)?;
    let failure = branch(txn.failure)?;
    Ok(Txn { compare: txn.compare, success, failure })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use keygate_core::{
        CompareOp, CompareTarget, Credential, KeyRange, LeaseId, Plaintext, PutLease, PutValue, Sealed,
        Secret, UserAdd,
    };

    fn command(operation: Operation<StoredValue>) -> Command {
        Command {
            keyspace: KeyspaceId(7),
            fence: Some(Fence { platform: 1, keyspace: 900 }),
            leases: [LeaseFence { lease: LeaseId(-3), generation: Some(4) }].into_iter().collect(),
            attribution: Some("alice".to_owned()),
            operation,
        }
    }

    fn value(text: &'static str) -> StoredValue {
        Sealed::stored_in_clear(Plaintext::new(Bytes::from_static(text.as_bytes()))).into()
    }

    fn put(key: &'static str) -> TxnOp<StoredValue> {
        TxnOp::Put(Put {
            key: Bytes::from_static(key.as_bytes()),
            value: PutValue::Set(value("v")),
            lease: PutLease::Set(LeaseId(9)),
            prev_kv: true,
        })
    }

    fn nested(depth: usize) -> Txn<StoredValue> {
        let inner = if depth > 1 { TxnOp::Txn(nested(depth - 1)) } else { put("leaf") };
        let compare = Compare {
            range: KeyRange::everything(),
            op: CompareOp::Less,
            target: CompareTarget::Value(value("c")),
        };
        Txn { compare: vec![compare], success: vec![put("s"), inner.clone()], failure: vec![inner] }
    }

    #[test]
    fn commands_read_back_as_written() {
        for operation in [
            Operation::AuthEnable,
            Operation::LeaseExpire(vec![LeaseId(1), LeaseId(2)]),
            Operation::Txn(nested(5)),
            Operation::Txn(Txn { compare: vec![], success: vec![], failure: vec![] }),
        ] {
            let command = command(operation);
            assert_eq!(Command::decode(&command.encode().unwrap()), Ok(command));
        }
    }

    #[test]
    fn a_password_cannot_be_written() {
        let add =
            UserAdd { name: "u".to_owned(), credential: Credential::Password(Secret::new("p".to_owned())) };
        assert!(matches!(command(Operation::UserAdd(add)).encode(), Err(CommandError::Encoding(_))));
    }

    #[test]
    fn nesting_is_bounded_in_both_directions() {
        let deep = |depth| {
            (1..depth).fold(Txn { compare: vec![], success: vec![], failure: vec![] }, |txn, _| Txn {
                compare: vec![],
                success: vec![TxnOp::Txn(txn)],
                failure: vec![],
            })
        };
        let fits = command(Operation::Txn(deep(MAX_TXN_DEPTH)));
        assert_eq!(Command::decode(&fits.encode().unwrap()), Ok(fits));
        assert_eq!(command(Operation::Txn(deep(MAX_TXN_DEPTH + 1))).encode(), Err(TOO_DEEP));

        // A million levels, as nobody but an attacker writes them.
        let head = postcard::to_extend(
            &HeadRef { keyspace: KeyspaceId(1), fence: None, leases: &[], attribution: None },
            vec![VERSION],
        );
        let flat: Vec<FlatRef<'_>> = (0..1_000_000)
            .map(|_| FlatRef { compare: &[], success: vec![FlatOpRef::Txn], failure: vec![] })
            .collect();
        let bytes = postcard::to_extend(&(TXN_VARIANT, flat), head.unwrap()).unwrap();
        assert_eq!(Command::decode(&bytes), Err(TOO_DEEP));
    }

    #[test]
    fn a_txn_stands_where_the_format_says() {
        let plain = postcard::to_allocvec(&Operation::<StoredValue>::Txn(nested(1))).unwrap();
        assert_eq!(u32::from(plain[0]), TXN_VARIANT);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic() {
        let whole = command(Operation::Txn(nested(3))).encode().unwrap();
        for length in 0..whole.len() {
            assert!(Command::decode(&whole[..length]).is_err());
        }
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                let _ = Command::decode(&bytes);
            }
        }
        let mut longer = whole;
        longer.push(0);
        assert!(Command::decode(&longer).is_err());
    }
}
