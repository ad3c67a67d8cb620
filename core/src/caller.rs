//! Who asks.

use crate::auth::KeyspaceId;
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
}
