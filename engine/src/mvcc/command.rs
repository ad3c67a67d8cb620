//! What a log entry says: an operation, for which keyspace, and what its permit depended on.
//!
//! Format: `docs/formats/command.md`.

use super::body::{Body, BodyRef};
use super::value::StoredValue;
use keygate_core::{Fence, KeyspaceId, LeaseFence, Operation};
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
    /// A defect in front of us.
    #[error("`{0}` cannot be written to the log")]
    NotForTheLog(&'static str),
    #[error("command cannot be encoded: {0}")]
    Encoding(String),
}

const VERSION: u8 = 1;

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

impl Command {
    pub fn encode(&self) -> Result<Vec<u8>, CommandError> {
        let head = HeadRef {
            keyspace: self.keyspace,
            fence: self.fence,
            leases: &self.leases,
            attribution: self.attribution.as_deref(),
        };
        postcard::to_extend(&(head, BodyRef::of(&self.operation)?), vec![VERSION])
            .map_err(|error| CommandError::Encoding(error.to_string()))
    }

    /// Contract: answers an error for whatever is not a command; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let (version, rest) = bytes.split_first().ok_or(CommandError::Malformed("empty"))?;
        if *version != VERSION {
            return Err(CommandError::Version(*version));
        }
        let ((head, body), rest) = postcard::take_from_bytes::<(Head, Body)>(rest)
            .map_err(|_| CommandError::Malformed("a field cannot be read"))?;
        if !rest.is_empty() {
            return Err(CommandError::Malformed("bytes behind the end"));
        }
        Ok(Self {
            keyspace: head.keyspace,
            fence: head.fence,
            leases: head.leases.into(),
            attribution: head.attribution,
            operation: body.into_operation()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::body::{FlatOpRef, FlatRef, MAX_TXN_DEPTH, TOO_DEEP};
    use super::*;
    use bytes::Bytes;
    use keygate_core::{
        AlarmAction, AlarmKind, AlarmRequest, BundleDigest, Compact, Compare, CompareOp, CompareTarget,
        Credential, DeleteRange, KeyRange, LeaseGrant, LeaseId, LeaseRevoke, LimitChange, PasswordHash,
        Permission, PermissionKind, Plaintext, PolicyChange, Put, PutLease, PutValue, QuotaSet, Range,
        RoleGrant, RoleRevoke, Sealed, Secret, TenantChange, TenantCreate, TenantName, TenantState, Txn,
        TxnOp, UserAdd,
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
        let credentials = [Credential::Hashed(PasswordHash("h".into())), Credential::NoPassword];
        let [hashed, none] = credentials;
        let range = KeyRange::Span { start: Bytes::from_static(b"a"), end: Bytes::from_static(b"b") };
        let TxnOp::Put(plain) = put("k") else { unreachable!() };
        let (user, role) = (|| "u".to_owned(), || "r".to_owned());
        let tenant = || TenantName::parse("pay").unwrap();
        for operation in [
            Operation::Put(plain.clone()),
            Operation::Put(Put { value: PutValue::Keep, lease: PutLease::Keep, ..plain }),
            Operation::DeleteRange(DeleteRange { range: range.clone(), prev_kv: true }),
            Operation::Txn(nested(5)),
            Operation::Txn(Txn { compare: vec![], success: vec![], failure: vec![] }),
            Operation::Txn(Txn {
                compare: vec![],
                success: vec![TxnOp::Range(Range::of(KeyRange::everything()))],
                failure: vec![TxnOp::DeleteRange(DeleteRange { range: range.clone(), prev_kv: false })],
            }),
            Operation::Compact(Compact { revision: -1, physical: true }),
            Operation::LeaseGrant(LeaseGrant { id: LeaseId(1), ttl: 2 }),
            Operation::LeaseRevoke(LeaseRevoke { id: LeaseId(1) }),
            Operation::LeaseExpire(vec![LeaseId(1), LeaseId(2)]),
            Operation::LeaseCheckpoint(vec![(LeaseId(1), 2)]),
            Operation::Alarm(AlarmRequest {
                action: AlarmAction::Activate,
                member: 1,
                alarm: AlarmKind::NoSpace,
            }),
            Operation::AuthEnable,
            Operation::AuthDisable,
            Operation::UserAdd(UserAdd { name: user(), credential: hashed.clone() }),
            Operation::UserAdd(UserAdd { name: user(), credential: none.clone() }),
            Operation::UserDelete { name: user() },
            Operation::UserChangePassword { name: user(), credential: hashed },
            Operation::UserChangePassword { name: user(), credential: none.clone() },
            Operation::UserGrantRole { user: user(), role: role() },
            Operation::UserRevokeRole { user: user(), role: role() },
            Operation::RoleAdd { name: role() },
            Operation::RoleDelete { name: role() },
            Operation::RoleGrantPermission(RoleGrant {
                role: role(),
                permission: Permission { kind: PermissionKind::ReadWrite, range: range.clone() },
            }),
            Operation::RoleRevokePermission(RoleRevoke { role: role(), range }),
            Operation::TenantCreate(TenantCreate {
                name: tenant(),
                hosts: vec!["pay.corp".to_owned()],
                root: none,
            }),
            Operation::TenantChange { name: tenant(), change: TenantChange::State(TenantState::Suspended) },
            Operation::TenantChange { name: tenant(), change: TenantChange::Hosts(vec![]) },
            Operation::TenantDelete { name: tenant() },
            Operation::QuotaSet(QuotaSet {
                tenant: Some(tenant()),
                prefix: Bytes::from_static(b"\xff/"),
                keys: LimitChange::Set(9),
                bytes: LimitChange::Lift,
                history: LimitChange::Keep,
                force: true,
            }),
            Operation::PolicyChange(PolicyChange::Stage {
                digest: BundleDigest([7; 32]),
                index: 2,
                content: Bytes::from_static(b"tar"),
            }),
            Operation::PolicyChange(PolicyChange::Apply {
                digest: BundleDigest([7; 32]),
                parts: 3,
                expected: Some(1),
                at: 5,
            }),
            Operation::PolicyChange(PolicyChange::Rollback { to: None, expected: None, at: 5 }),
        ] {
            let command = command(operation);
            assert_eq!(Command::decode(&command.encode().unwrap()), Ok(command));
        }
    }

    #[test]
    fn reads_and_passwords_cannot_be_written() {
        let read = command(Operation::LeaseLeases);
        assert_eq!(read.encode(), Err(CommandError::NotForTheLog("etcdserverpb.Lease/LeaseLeases")));
        let add =
            UserAdd { name: "u".to_owned(), credential: Credential::Password(Secret::new("p".to_owned())) };
        assert!(matches!(command(Operation::UserAdd(add)).encode(), Err(CommandError::NotForTheLog(_))));
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
        let head = HeadRef { keyspace: KeyspaceId(1), fence: None, leases: &[], attribution: None };
        let flat = (0..1_000_000)
            .map(|_| FlatRef { compare: &[], success: vec![FlatOpRef::Txn], failure: vec![] })
            .collect();
        let bytes = postcard::to_extend(&(head, BodyRef::Txn(flat)), vec![VERSION]).unwrap();
        assert_eq!(Command::decode(&bytes), Err(TOO_DEEP));
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
