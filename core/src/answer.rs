//! What came of a request, before it is put into etcd's messages.

use crate::auth::{Permission, Secret};
use crate::bundle::PolicyAnswer;
use crate::observation::{LimitInfo, LoadInfo};
use crate::operation::{AlarmKind, LeaseId};
use crate::quota::QuotaInfo;
use crate::tenant::TenantInfo;
use bytes::Bytes;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyValue<V> {
    pub key: Bytes,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub lease: LeaseId,
    /// None where only keys were asked for.
    pub value: Option<V>,
}

/// An answer with what etcd's response header needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply<V> {
    pub revision: i64,
    pub term: u64,
    pub answer: Answer<V>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangeAnswer<V> {
    pub kvs: Vec<KeyValue<V>>,
    pub more: bool,
    pub count: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnAnswer<V> {
    pub succeeded: bool,
    pub responses: Vec<Answer<V>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseDetail {
    pub id: LeaseId,
    /// Remaining seconds; -1 when there is no such lease.
    pub ttl: i64,
    pub granted_ttl: i64,
    pub keys: Vec<Bytes>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct AlarmMember {
    pub member: u64,
    pub alarm: AlarmKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberInfo {
    pub id: u64,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub is_learner: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthStatus {
    pub enabled: bool,
    pub revision: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer<V> {
    Range(RangeAnswer<V>),
    Put {
        prev: Option<KeyValue<V>>,
    },
    Delete {
        deleted: i64,
        prev: Vec<KeyValue<V>>,
    },
    Txn(TxnAnswer<V>),
    /// Nothing to say but that it was done.
    Done,
    LeaseGranted {
        id: LeaseId,
        ttl: i64,
    },
    /// A `ttl` of 0: there is no such lease (any more).
    LeaseKept {
        id: LeaseId,
        ttl: i64,
    },
    Lease(LeaseDetail),
    Leases(Vec<LeaseId>),
    Members(Vec<MemberInfo>),
    Alarms(Vec<AlarmMember>),
    Status(Box<StatusAnswer>),
    Hash {
        hash: u32,
    },
    HashKv {
        hash: u32,
        compact_revision: i64,
        hash_revision: i64,
    },
    AuthStatus(AuthStatus),
    Token(Secret),
    UserRoles(Vec<String>),
    Names(Vec<String>),
    Permissions(Vec<Permission>),
    Tenants(Vec<TenantInfo>),
    Limits(Vec<LimitInfo>),
    Load(Vec<LoadInfo>),
    Quotas(Vec<QuotaInfo>),
    Policy(PolicyAnswer),
    Serving,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StatusAnswer {
    pub db_size: i64,
    pub db_size_in_use: i64,
    pub db_size_quota: i64,
    pub leader: u64,
    pub raft_index: u64,
    pub raft_term: u64,
    pub raft_applied_index: u64,
    pub alarms: Vec<AlarmMember>,
}

/// One change of one key, as a watcher sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event<V> {
    /// A deletion has only key and mod_revision.
    pub deleted: bool,
    pub kv: KeyValue<V>,
    pub prev: Option<KeyValue<V>>,
}

impl<V> KeyValue<V> {
    pub fn try_map<W, E>(self, map: &mut dyn FnMut(&Bytes, V) -> Result<W, E>) -> Result<KeyValue<W>, E> {
        let value = match self.value {
            Some(value) => Some(map(&self.key, value)?),
            None => None,
        };
        Ok(KeyValue {
            key: self.key,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
            value,
        })
    }
}

impl<V> Answer<V> {
    /// Replaces every value in the answer: the transform stage's way out.
    pub fn try_map<W, E>(self, map: &mut dyn FnMut(&Bytes, V) -> Result<W, E>) -> Result<Answer<W>, E> {
        Ok(match self {
            Self::Range(range) => Answer::Range(RangeAnswer {
                kvs: range.kvs.into_iter().map(|kv| kv.try_map(map)).collect::<Result<_, E>>()?,
                more: range.more,
                count: range.count,
            }),
            Self::Put { prev } => Answer::Put { prev: prev.map(|kv| kv.try_map(map)).transpose()? },
            Self::Delete { deleted, prev } => Answer::Delete {
                deleted,
                prev: prev.into_iter().map(|kv| kv.try_map(map)).collect::<Result<_, E>>()?,
            },
            Self::Txn(txn) => Answer::Txn(TxnAnswer {
                succeeded: txn.succeeded,
                responses: txn.responses.into_iter().map(|r| r.try_map(map)).collect::<Result<_, E>>()?,
            }),
            Self::Done => Answer::Done,
            Self::LeaseGranted { id, ttl } => Answer::LeaseGranted { id, ttl },
            Self::LeaseKept { id, ttl } => Answer::LeaseKept { id, ttl },
            Self::Lease(v) => Answer::Lease(v),
            Self::Leases(v) => Answer::Leases(v),
            Self::Members(v) => Answer::Members(v),
            Self::Alarms(v) => Answer::Alarms(v),
            Self::Status(v) => Answer::Status(v),
            Self::Hash { hash } => Answer::Hash { hash },
            Self::HashKv { hash, compact_revision, hash_revision } => {
                Answer::HashKv { hash, compact_revision, hash_revision }
            }
            Self::AuthStatus(v) => Answer::AuthStatus(v),
            Self::Token(v) => Answer::Token(v),
            Self::UserRoles(v) => Answer::UserRoles(v),
            Self::Names(v) => Answer::Names(v),
            Self::Permissions(v) => Answer::Permissions(v),
            Self::Tenants(tenants) => Answer::Tenants(tenants),
            Self::Quotas(quotas) => Answer::Quotas(quotas),
            Self::Limits(v) => Answer::Limits(v),
            Self::Load(v) => Answer::Load(v),
            Self::Policy(v) => Answer::Policy(v),
            Self::Serving => Answer::Serving,
        })
    }
}
