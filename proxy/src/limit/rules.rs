//! What an operator can limit, and whom: the words of the section `limits:` as types.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gcra::Gcra;

/// So much of it in a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum RateRule {
    /// Of every class.
    Requests,
    Reads,
    Writes,
    /// Reads of more than one key.
    Ranges,
    Admin,
    Logins,
    BytesIn,
    BytesOut,
    /// A unit for each key that a range finds, and for each KiB of its answer.
    RangeCost,
    /// Delayed, never refused: a lease that is lost costs more than the request.
    KeepAlives,
}

/// So much of it at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum CapRule {
    InFlight,
    Watches,
    ConnectionWatches,
    Leases,
    Connections,
    Streams,
    KeySize,
    ValueSize,
    TxnOperations,
    TxnDepth,
    RangeRows,
    RangeBytes,
    /// Seconds. Shorter ones are raised to it, as etcd raises them to its own.
    LeaseTtlMin,
    LeaseTtlMax,
}

/// Whom a rule is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All tenants together.
    Server,
    Tenant,
    User,
    /// Keys of a tenant that begin alike.
    Prefix,
}

/// How a rule's number is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    Number,
    Bytes,
    Seconds,
}

pub(super) const RATES: usize = 10;
pub(super) const CAPS: usize = 14;

impl RateRule {
    pub const ALL: [Self; RATES] = [
        Self::Requests,
        Self::Reads,
        Self::Writes,
        Self::Ranges,
        Self::Admin,
        Self::Logins,
        Self::BytesIn,
        Self::BytesOut,
        Self::RangeCost,
        Self::KeepAlives,
    ];

    /// As it is written, shown and counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Ranges => "ranges",
            Self::Admin => "admin",
            Self::Logins => "logins",
            Self::BytesIn => "bytes-in",
            Self::BytesOut => "bytes-out",
            Self::RangeCost => "range-cost",
            Self::KeepAlives => "keepalives",
        }
    }

    pub fn unit(self) -> Unit {
        match self {
            Self::BytesIn | Self::BytesOut => Unit::Bytes,
            _ => Unit::Number,
        }
    }

    pub fn is_for(self, scope: Scope) -> bool {
        match self {
            Self::Requests | Self::Reads | Self::Writes | Self::Ranges | Self::BytesIn => true,
            // Who logs in is no user of the server yet; what is at a prefix is keys.
            Self::Admin | Self::Logins | Self::BytesOut | Self::RangeCost | Self::KeepAlives => {
                scope != Scope::Prefix
            }
        }
    }
}

impl CapRule {
    pub const ALL: [Self; CAPS] = [
        Self::InFlight,
        Self::Watches,
        Self::ConnectionWatches,
        Self::Leases,
        Self::Connections,
        Self::Streams,
        Self::KeySize,
        Self::ValueSize,
        Self::TxnOperations,
        Self::TxnDepth,
        Self::RangeRows,
        Self::RangeBytes,
        Self::LeaseTtlMin,
        Self::LeaseTtlMax,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Watches => "watches",
            Self::ConnectionWatches => "connection-watches",
            Self::Leases => "leases",
            Self::Connections => "connections",
            Self::Streams => "streams",
            Self::KeySize => "key-size",
            Self::ValueSize => "value-size",
            Self::TxnOperations => "txn-operations",
            Self::TxnDepth => "txn-depth",
            Self::RangeRows => "range-rows",
            Self::RangeBytes => "range-bytes",
            Self::LeaseTtlMin => "lease-ttl-min",
            Self::LeaseTtlMax => "lease-ttl-max",
        }
    }

    pub fn unit(self) -> Unit {
        match self {
            Self::KeySize | Self::ValueSize | Self::RangeBytes => Unit::Bytes,
            Self::LeaseTtlMin | Self::LeaseTtlMax => Unit::Seconds,
            _ => Unit::Number,
        }
    }

    pub fn is_for(self, scope: Scope) -> bool {
        match self {
            Self::KeySize | Self::ValueSize => scope != Scope::Server,
            Self::InFlight | Self::Watches => scope != Scope::Prefix,
            // The state counts leases by tenant; a connection is counted where its caller belongs.
            Self::Leases => scope == Scope::Tenant,
            Self::Connections
            | Self::Streams
            | Self::ConnectionWatches
            | Self::TxnOperations
            | Self::TxnDepth
            | Self::RangeRows
            | Self::RangeBytes
            | Self::LeaseTtlMin
            | Self::LeaseTtlMax => matches!(scope, Scope::Tenant | Scope::User),
        }
    }
}

/// A rule that is only counted refuses nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    pub gcra: Gcra,
    pub shadow: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cap {
    pub max: u64,
    pub shadow: bool,
}

/// What is in force for one of those who are counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    pub rates: [Option<Rate>; RATES],
    pub caps: [Option<Cap>; CAPS],
}

impl Rules {
    pub fn rate(&self, rule: RateRule) -> Option<&Rate> {
        self.rates[rule as usize].as_ref()
    }

    pub fn cap(&self, rule: CapRule) -> Option<Cap> {
        self.caps[rule as usize]
    }

    pub fn is_empty(&self) -> bool {
        self.rates.iter().all(Option::is_none) && self.caps.iter().all(Option::is_none)
    }
}

/// Of one tenant and those in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TenantRules {
    pub tenant: Arc<Rules>,
    /// Of each user who is not named.
    pub user: Arc<Rules>,
    pub users: BTreeMap<String, Arc<Rules>>,
    pub prefixes: BTreeMap<Vec<u8>, Arc<Rules>>,
}

/// The whole section: what is inherited has been filled in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LimitRules {
    pub server: Arc<Rules>,
    /// Of each tenant that is not named.
    pub any_tenant: TenantRules,
    pub tenants: BTreeMap<String, TenantRules>,
    /// Connections that may be open from one address (of IPv6 from one /64).
    pub connections_per_source: Option<Cap>,
    /// Each rule as it is in force: its path, its value.
    pub told: Vec<(String, String)>,
}

impl LimitRules {
    pub fn of_tenant(&self, name: &str) -> &TenantRules {
        self.tenants.get(name).unwrap_or(&self.any_tenant)
    }
}

impl TenantRules {
    pub fn of_user(&self, name: &str) -> &Arc<Rules> {
        self.users.get(name).unwrap_or(&self.user)
    }
}
