//! What a request touches, in the words that a policy decides about.

use crate::operation::LeaseId;
use crate::range::KeyRange;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum KeyAction {
    Read,
    Write,
}

/// Rights that are not about keys. Each can be granted by itself; etcd gives them to `root` alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum AdminVerb {
    Compact,
    Defragment,
    /// Of one keyspace.
    Hash,
    /// Of the whole store.
    StoreHash,
    AlarmChange,
    /// Users, roles and their grants, and switching auth on or off.
    AuthChange,
    UserList,
    RoleList,
    TenantChange,
    TenantList,
    /// Applying, rolling back and reading the bundle that is in force.
    Policy,
}

impl AdminVerb {
    /// Rights over what all tenants share. Nobody has them within a tenant, its root included.
    pub fn is_of_the_platform(self) -> bool {
        match self {
            Self::Defragment
            | Self::StoreHash
            | Self::AlarmChange
            | Self::TenantChange
            | Self::TenantList
            | Self::Policy => true,
            Self::Compact | Self::Hash | Self::AuthChange | Self::UserList | Self::RoleList => false,
        }
    }
}

/// One thing that a request wants to do. A request is allowed when all of its accesses are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// Anybody, without a login.
    Open,
    /// Anybody who has logged in.
    Authenticated,
    Keys {
        action: KeyAction,
        range: KeyRange,
    },
    /// The keys that are attached to this lease when the request is decided.
    KeysOfLease {
        action: KeyAction,
        lease: LeaseId,
    },
    /// The keys that are attached to any lease.
    KeysOfAllLeases {
        action: KeyAction,
    },
    Admin(AdminVerb),
    /// A user's own record, or the right to see others'.
    UserRecord(String),
    /// A role that the caller holds, or the right to see others.
    RoleRecord(String),
}

impl Access {
    pub fn read(range: KeyRange) -> Self {
        Self::Keys { action: KeyAction::Read, range }
    }

    pub fn write(range: KeyRange) -> Self {
        Self::Keys { action: KeyAction::Write, range }
    }
}
