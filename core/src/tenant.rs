//! Tenants: whole private etcds with a name, beside the default keyspace, which is the platform's own.

use crate::auth::{Credential, KeyspaceId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A tenant's name: what people type behind `user@`. A DNS label in lowercase, so that it can stand in host names, in
/// paths and in metrics as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(Arc<str>);

/// The name by which people call the keyspace of those without a tenant. No tenant can take it.
pub const DEFAULT_TENANT: &str = "default";

/// A DNS label's own bound.
const MAX_NAME: usize = 63;
/// A DNS name's own bound.
const MAX_HOST: usize = 253;
/// Host names of one tenant.
pub const MAX_TENANT_HOSTS: usize = 32;

impl TenantName {
    /// None: no tenant can have this name.
    pub fn parse(name: &str) -> Option<Self> {
        (is_label(name) && name != DEFAULT_TENANT).then(|| Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TenantName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(&name).ok_or("not a tenant's name")
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl std::borrow::Borrow<str> for TenantName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host name as clients send it in a TLS handshake, in lowercase. None: it is not one.
pub fn host_name(text: &str) -> Option<String> {
    let host = text.to_ascii_lowercase();
    (host.len() <= MAX_HOST && host.split('.').all(is_label)).then_some(host)
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            bytes.len() <= MAX_NAME
                && inner(*first)
                && inner(*last)
                && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
        }
        _ => false,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TenantState {
    Active,
    /// Can be read; callers change nothing.
    Suspended,
}

/// What is known of a tenant besides its keyspace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tenant {
    pub name: TenantName,
    /// Never used again once the tenant is deleted.
    pub keyspace: KeyspaceId,
    pub state: TenantState,
    /// Who names one of these in the TLS handshake is in this tenant. Lowercase, of one tenant each.
    pub hosts: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantCreate {
    pub name: TenantName,
    pub hosts: Vec<String>,
    /// How the tenant's own `root` logs in.
    pub root: Credential,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TenantChange {
    State(TenantState),
    Hosts(Vec<String>),
}

/// A tenant and how much there is of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantInfo {
    pub tenant: Tenant,
    pub revision: i64,
    pub compact_revision: i64,
    pub keys: u64,
    /// Of the keys and values that exist now.
    pub bytes: u64,
    pub leases: u64,
    pub users: u64,
    pub roles: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_in_lowercase() {
        for good in ["a", "pay", "team-7", "0x", &"a".repeat(63)] {
            assert_eq!(TenantName::parse(good).map(String::from).as_deref(), Some(good));
        }
        for bad in
            ["", "-a", "a-", "Pay", "a.b", "a_b", "a b", "a@b", "a/b", "ä", "a\0", "default", &"a".repeat(64)]
        {
            assert_eq!(TenantName::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn hosts_are_dns_names_whatever_their_case() {
        assert_eq!(host_name("Pay.KV.Corp").as_deref(), Some("pay.kv.corp"));
        for bad in ["", ".", "a.", ".a", "a..b", "*.corp", "a:1", "[::1]", "a b", &"a.".repeat(150)] {
            assert_eq!(host_name(bad), None, "{bad:?}");
        }
    }
}
