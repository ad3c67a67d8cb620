//! Who asks, and from where.

use crate::auth::KeyspaceId;
use core::net::IpAddr;
use std::sync::Arc;

/// How a caller proved who they are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// A client certificate's common name.
    Certificate,
    /// A token that `Authenticate` gave.
    SimpleToken,
    /// A signed token. `auth_revision` is etcd's `revision` claim, where the token has one.
    Jwt { auth_revision: Option<u64> },
}

/// The groups that a caller's evidence names. A copy costs a count; having none costs nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Groups(Option<Arc<[Arc<str>]>>);

impl Groups {
    pub const NONE: Self = Self(None);

    pub fn names(&self) -> &[Arc<str>] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl FromIterator<Arc<str>> for Groups {
    fn from_iter<I: IntoIterator<Item = Arc<str>>>(names: I) -> Self {
        let names: Arc<[Arc<str>]> = names.into_iter().collect();
        Self((!names.is_empty()).then_some(names))
    }
}

/// How a client is connected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConnectionKind {
    Plain,
    /// The server has shown a certificate, the client none.
    Tls,
    /// Both have.
    Mtls,
}

impl ConnectionKind {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Tls, Self::Mtls];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Tls => "tls",
            Self::Mtls => "mtls",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Where a request came from, as far as a policy can ask about it. What is `None` is not known: rows that ask for it
/// allow nothing then, and deny all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    pub source: Option<IpAddr>,
    pub connection: Option<ConnectionKind>,
}

/// Who asks, and for which keyspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caller {
    /// Has shown nothing. May log in and ask whether it must; nothing else while auth is on.
    Anonymous {
        keyspace: KeyspaceId,
    },
    User {
        keyspace: KeyspaceId,
        name: Arc<str>,
        evidence: Evidence,
        groups: Groups,
        origin: Origin,
    },
}

impl Caller {
    pub fn keyspace(&self) -> KeyspaceId {
        match self {
            Self::Anonymous { keyspace } | Self::User { keyspace, .. } => *keyspace,
        }
    }

    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Anonymous { .. } => None,
            Self::User { name, .. } => Some(name),
        }
    }

    /// The same for what lasts: how old a token is, is asked where a stream or a watch begins, and not when a change of policy
    /// has it decided again.
    pub fn begun(mut self) -> Self {
        if let Self::User { evidence: Evidence::Jwt { auth_revision }, .. } = &mut self {
            *auth_revision = None;
        }
        self
    }

    /// What a log entry keeps of a caller: keyspace and name.
    pub(crate) fn by_name(keyspace: KeyspaceId, name: Option<&str>) -> Self {
        match name {
            None => Self::Anonymous { keyspace },
            Some(name) => Self::User {
                keyspace,
                name: name.into(),
                evidence: Evidence::Certificate,
                groups: Groups::NONE,
                origin: Origin::default(),
            },
        }
    }
}
