//! Quotas: how much a keyspace, or a prefix of it, may hold.
//!
//! Three things are counted, each with a limit of its own. All of them are part of the replicated state, so that what
//! a limit refuses is refused on every member and again after a restart.

use crate::tenant::TenantName;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Prefixes of one keyspace that may have quotas: each write looks for those that hold its key.
pub const MAX_QUOTA_PREFIXES: usize = 64;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum QuotaKind {
    /// Keys that exist now.
    Keys,
    /// Bytes of those keys and their values, as stored.
    Bytes,
    /// Bytes of keys and values that were superseded or deleted, and of the tombstones, as far as no compaction has
    /// passed them.
    History,
}

impl QuotaKind {
    pub const ALL: [Self; 3] = [Self::Keys, Self::Bytes, Self::History];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Bytes => "bytes",
            Self::History => "history-bytes",
        }
    }
}

impl fmt::Display for QuotaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// None: not limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct QuotaLimits {
    pub keys: Option<u64>,
    pub bytes: Option<u64>,
    pub history: Option<u64>,
}

impl QuotaLimits {
    pub fn of(&self, kind: QuotaKind) -> Option<u64> {
        match kind {
            QuotaKind::Keys => self.keys,
            QuotaKind::Bytes => self.bytes,
            QuotaKind::History => self.history,
        }
    }

    /// Limits nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QuotaUse {
    pub keys: u64,
    pub bytes: u64,
    pub history: u64,
}

impl QuotaUse {
    pub fn of(&self, kind: QuotaKind) -> u64 {
        match kind {
            QuotaKind::Keys => self.keys,
            QuotaKind::Bytes => self.bytes,
            QuotaKind::History => self.history,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum LimitChange {
    /// As it was.
    #[default]
    Keep,
    Set(u64),
    /// No limit any more.
    Lift,
}

impl LimitChange {
    pub fn applied_to(self, limit: Option<u64>) -> Option<u64> {
        match self {
            Self::Keep => limit,
            Self::Set(limit) => Some(limit),
            Self::Lift => None,
        }
    }
}

/// Changes the limits of a keyspace or of a prefix in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuotaSet {
    /// None: the default keyspace.
    pub tenant: Option<TenantName>,
    /// Empty: the whole keyspace.
    pub prefix: Bytes,
    pub keys: LimitChange,
    pub bytes: LimitChange,
    pub history: LimitChange,
    /// Also to less than there is already: nothing is taken away, but nothing may grow.
    pub force: bool,
}

/// Whose quotas are asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QuotaOf {
    /// Those of the keyspace of whoever asks.
    Own,
    Default,
    Tenant(TenantName),
    /// Of the default keyspace and of every tenant.
    All,
}

/// The limits of a keyspace or of a prefix in it, and how much there is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuotaInfo {
    /// None: the default keyspace.
    pub tenant: Option<TenantName>,
    /// Empty: the whole keyspace.
    pub prefix: Bytes,
    pub limits: QuotaLimits,
    pub used: QuotaUse,
    /// What a count of everything comes to, where one was asked for.
    pub counted: Option<QuotaUse>,
}

impl QuotaInfo {
    /// How much of a limit is used, in parts of one. None: there is no such limit, or one of nothing.
    pub fn share(&self, kind: QuotaKind) -> Option<f64> {
        let limit = self.limits.of(kind).filter(|limit| *limit > 0)?;
        Some(self.used.of(kind) as f64 / limit as f64)
    }
}

/// The quota that stands against a write, or against a smaller quota.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuotaBound {
    pub kind: QuotaKind,
    /// Empty: the whole keyspace.
    pub prefix: Bytes,
    pub limit: u64,
    pub used: u64,
}

impl QuotaBound {
    /// "under `prefix`", or nothing.
    pub fn place(&self) -> String {
        if self.prefix.is_empty() {
            String::new()
        } else {
            format!(" under `{}`", self.prefix.escape_ascii())
        }
    }
}
