//! Rows as they mean, and their one spelling.

use super::condition::Conditions;
use super::escape::escape;
use super::pattern::RangeText;
use keygate_core::{AdminVerb, DEFAULT_TENANT, KeyAction, KeyRange};
use std::fmt;
use std::sync::Arc;

/// Who a row is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// `user:*`: whoever has logged in.
    Everybody,
    User(Arc<str>),
    Group(Arc<str>),
    Role(Arc<str>),
}

/// Where a row applies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tenant {
    /// `*`
    Every,
    Named(Arc<str>),
}

/// Rights that are not about keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Verb {
    Compact,
    Snapshot,
    Defrag,
    Alarm,
    Hash,
    MemberList,
    Status,
    /// Changing users, roles and what they may do.
    Auth,
    /// Giving more than one holds.
    Escalate,
    UserList,
    RoleList,
    /// Making, changing and deleting tenants.
    Tenants,
    TenantList,
    /// Seeing and setting quotas.
    Quota,
    /// Seeing limits, and who asks for how much.
    Limits,
    /// Applying, rolling back and reading bundles.
    Policy,
}

impl Verb {
    pub const ALL: [Self; 16] = [
        Self::Compact,
        Self::Snapshot,
        Self::Defrag,
        Self::Alarm,
        Self::Hash,
        Self::MemberList,
        Self::Status,
        Self::Auth,
        Self::Escalate,
        Self::UserList,
        Self::RoleList,
        Self::Tenants,
        Self::TenantList,
        Self::Quota,
        Self::Limits,
        Self::Policy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Snapshot => "snapshot",
            Self::Defrag => "defrag",
            Self::Alarm => "alarm",
            Self::Hash => "hash",
            Self::MemberList => "member-list",
            Self::Status => "status",
            Self::Auth => "auth",
            Self::Escalate => "escalate",
            Self::UserList => "user-list",
            Self::RoleList => "role-list",
            Self::Tenants => "tenants",
            Self::TenantList => "tenant-list",
            Self::Quota => "quota",
            Self::Limits => "limits",
            Self::Policy => "policy",
        }
    }

    /// The right within a keyspace, where a verb stands for two.
    pub fn right(self) -> AdminVerb {
        match self {
            Self::Compact => AdminVerb::Compact,
            Self::Snapshot => AdminVerb::Snapshot,
            Self::Defrag => AdminVerb::Defragment,
            Self::Alarm => AdminVerb::AlarmChange,
            Self::Hash => AdminVerb::Hash,
            Self::MemberList => AdminVerb::MemberList,
            Self::Status => AdminVerb::Status,
            Self::Auth => AdminVerb::AuthChange,
            Self::Escalate => AdminVerb::Escalate,
            Self::UserList => AdminVerb::UserList,
            Self::RoleList => AdminVerb::RoleList,
            Self::Tenants => AdminVerb::TenantChange,
            Self::TenantList => AdminVerb::TenantList,
            Self::Quota => AdminVerb::OwnQuotas,
            Self::Limits => AdminVerb::Limits,
            Self::Policy => AdminVerb::Policy,
        }
    }
}

impl From<AdminVerb> for Verb {
    fn from(verb: AdminVerb) -> Self {
        match verb {
            AdminVerb::Compact => Self::Compact,
            AdminVerb::Defragment => Self::Defrag,
            AdminVerb::Hash | AdminVerb::StoreHash => Self::Hash,
            AdminVerb::AlarmChange => Self::Alarm,
            AdminVerb::Snapshot => Self::Snapshot,
            AdminVerb::MemberList => Self::MemberList,
            AdminVerb::Status => Self::Status,
            AdminVerb::AuthChange => Self::Auth,
            AdminVerb::Escalate => Self::Escalate,
            AdminVerb::Quotas | AdminVerb::OwnQuotas => Self::Quota,
            AdminVerb::Limits => Self::Limits,
            AdminVerb::UserList => Self::UserList,
            AdminVerb::RoleList => Self::RoleList,
            AdminVerb::TenantChange => Self::Tenants,
            AdminVerb::TenantList => Self::TenantList,
            AdminVerb::Policy => Self::Policy,
        }
    }
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    Read,
    Write,
    Verb(Verb),
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Verb(verb) => verb.name(),
        }
    }

    /// A right over what all tenants share: no row of a tenant gives it, nor one for every tenant within one.
    pub fn is_idle_in(self, tenant: &str) -> bool {
        matches!(self, Self::Verb(verb) if verb.right().is_of_the_platform()) && tenant != DEFAULT_TENANT
    }

    /// Every user may, as far as no row is in the way.
    pub fn is_everybodys(self) -> bool {
        matches!(self, Self::Verb(verb) if verb.right().is_of_every_user())
    }

    /// Every action that there is.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Read, Self::Write].into_iter().chain(Verb::ALL.into_iter().map(Self::Verb))
    }
}

impl From<KeyAction> for Action {
    fn from(action: KeyAction) -> Self {
        match action {
            KeyAction::Read => Self::Read,
            KeyAction::Write => Self::Write,
        }
    }
}

/// What a row is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RowAction {
    Read,
    Write,
    ReadWrite,
    Verb(Verb),
}

impl RowAction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadWrite => "readwrite",
            Self::Verb(verb) => verb.name(),
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "read" => Some(Self::Read),
            "write" => Some(Self::Write),
            "readwrite" => Some(Self::ReadWrite),
            _ => Verb::ALL.into_iter().find(|verb| verb.name() == name).map(Self::Verb),
        }
    }

    /// The one or two actions of requests that the row is about.
    pub fn actions(self) -> impl Iterator<Item = Action> {
        let (first, second) = match self {
            Self::Read => (Action::Read, None),
            Self::Write => (Action::Write, None),
            Self::ReadWrite => (Action::Read, Some(Action::Write)),
            Self::Verb(verb) => (Action::Verb(verb), None),
        };
        std::iter::once(first).chain(second)
    }

    pub fn includes(self, action: Action) -> bool {
        self.actions().any(|own| own == action)
    }
}

/// What becomes of a read that touches denied keys and others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OnPartial {
    Reject,
    Filter,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Effect {
    Allow,
    Deny(OnPartial),
}

/// A `p` row.
#[derive(Clone, Debug)]
pub struct Row {
    /// In `policy.csv`, from 1.
    pub line: u32,
    pub subject: Subject,
    pub tenant: Tenant,
    /// Everything for an administrative action.
    pub keys: KeyRange,
    pub action: RowAction,
    pub effect: Effect,
    pub conditions: Arc<Conditions>,
    /// Rules that a comment above the row switches off.
    pub lint_allowed: Box<[Box<str>]>,
}

/// A `g` row: `member` holds `role`.
#[derive(Clone, Debug)]
pub struct Link {
    /// In `roles.csv`, from 1.
    pub line: u32,
    pub member: Subject,
    pub role: Arc<str>,
    pub tenant: Tenant,
    pub lint_allowed: Box<[Box<str>]>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("user:*"),
            Self::User(name) => write!(f, "user:{}", escape(name.as_bytes())),
            Self::Group(name) => write!(f, "group:{}", escape(name.as_bytes())),
            Self::Role(name) => write!(f, "role:{}", escape(name.as_bytes())),
        }
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => f.write_str("*"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p, {}, {}, ", self.subject, self.tenant)?;
        match self.action {
            RowAction::Verb(_) => f.write_str("-")?,
            _ => write!(f, "{}", RangeText(&self.keys))?,
        }
        let (effect, filter) = match self.effect {
            Effect::Allow => ("allow", false),
            Effect::Deny(on_partial) => ("deny", on_partial == OnPartial::Filter),
        };
        write!(f, ", {}, {effect}", self.action.name())?;
        let mut conditions = self.conditions.to_string();
        if filter {
            let joint = if conditions.is_empty() { "" } else { ";" };
            conditions = format!("{conditions}{joint}on_partial=filter");
        }
        if conditions.is_empty() { Ok(()) } else { write!(f, ", {conditions}") }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g, {}, role:{}, {}", self.member, escape(self.role.as_bytes()), self.tenant)
    }
}
