//! Users, roles and permissions as rows: what etcd's Auth API edits and what a policy is compiled from.

use crate::range::KeyRange;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A keyspace is a whole private etcd: revisions, keys, leases, users and alarms of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyspaceId(pub u32);

impl KeyspaceId {
    /// What a client gets that names no tenant. Always exists.
    pub const DEFAULT: Self = Self(1);
}

/// The user and the role that etcd reserves: the role passes every check.
pub const ROOT: &str = "root";

/// Text that must not be printed, cleared from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("secret")
    }
}

/// A bcrypt hash. It may be stored; it is still not printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hash")
    }
}

/// How a user will log in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credential {
    /// As the client sent it. The gateway replaces it by its hash; the log's encoder refuses it.
    Password(Secret),
    Hashed(PasswordHash),
    /// Only by client certificate.
    NoPassword,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    /// None: this user logs in by certificate only.
    pub password: Option<PasswordHash>,
    /// Sorted, without duplicates.
    pub roles: Vec<String>,
    /// The auth revision at which the credential last changed: simple tokens made before are dead.
    pub credential_revision: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PermissionKind {
    Read,
    Write,
    ReadWrite,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Permission {
    pub kind: PermissionKind,
    pub range: KeyRange,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Role {
    pub name: String,
    /// Sorted by (key, range end); one row for each such pair.
    pub permissions: Vec<Permission>,
}

/// The security state of one keyspace. Cloning is cheap: maps are persistent.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthTables {
    pub enabled: bool,
    /// etcd's auth revision: starts at 1, grows with each change.
    pub revision: u64,
    /// Counts every change that can alter a decision, enabling and disabling included. Not visible
    /// to clients: see [`crate::Fence`].
    pub policy_version: u64,
    pub users: imbl::OrdMap<String, Arc<User>>,
    pub roles: imbl::OrdMap<String, Arc<Role>>,
}

impl Default for AuthTables {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: 1,
            policy_version: 1,
            users: imbl::OrdMap::new(),
            roles: imbl::OrdMap::new(),
        }
    }
}
