//! What a request touches, in the words that a policy decides about.

use crate::escalation::Grant;
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
    /// A copy of the whole store.
    Snapshot,
    /// Who the members are. etcd tells every user.
    MemberList,
    /// How the member does. etcd tells every user.
    Status,
    /// Users, roles and their grants, and switching auth on or off.
    AuthChange,
    /// Giving more than one holds, and touching `root`.
    Escalate,
    UserList,
    RoleList,
    TenantChange,
    TenantList,
    /// Quotas of all tenants, to see and to set.
    Quotas,
    /// To see the quotas of one's own keyspace.
    OwnQuotas,
    /// Limits in force, and who asks for how much.
    Limits,
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
            | Self::Snapshot
            | Self::TenantChange
            | Self::TenantList
            | Self::Quotas
            | Self::Limits
            | Self::Policy => true,
            Self::Compact
            | Self::Hash
            | Self::MemberList
            | Self::Status
            | Self::AuthChange
            | Self::Escalate
            | Self::UserList
            | Self::RoleList
            | Self::OwnQuotas => false,
        }
    }

    /// What etcd asks a login for and no right: a row can only take it away.
    pub fn is_of_every_user(self) -> bool {
        matches!(self, Self::MemberList | Self::Status)
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
    /// As much as a change of users and roles would let somebody do, or the right to give more.
    Grant(Grant),
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
