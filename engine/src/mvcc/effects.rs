//! What applying commands asks of the world around the state machine.

use super::keyspace::Keyspace;
use super::revision::RowKey;
use super::row::Row;
use bytes::Bytes;
use keygate_core::{KeyValue, KeyspaceId, LeaseId, Rules, Sealed};
use std::fmt;
use std::sync::Arc;

/// Collected over the commands of a batch; the driver takes it when the batch is sealed.
#[derive(Default, Debug)]
pub struct Effects {
    /// For the store, to be done in this order. Later changes of a key replace earlier ones.
    pub changes: Vec<Change>,
    /// For watchers, in the order of revisions.
    pub events: Vec<StoredEvent>,
    /// For the leader's deadline clock.
    pub leases: Vec<LeaseEffect>,
    /// Compactions that [`super::State::prune_step`] has to carry out.
    pub compactions: Vec<Compaction>,
    /// Keyspaces that are gone with all that was in them.
    pub ended: Vec<KeyspaceId>,
    /// What was in them, when the store has none of it any more, and rules that others have replaced. To free it may
    /// take long.
    pub erased: Vec<Erased>,
    /// Some keyspace has a new policy: watches are decided again.
    pub policy_changed: bool,
}

/// Memory that nobody can reach any more but by an older snapshot.
pub enum Erased {
    Keyspace(Arc<Keyspace>),
    /// Of a bundle that is no longer in force.
    Rules(Arc<dyn Rules>),
}

impl Erased {
    /// While a snapshot shares it, dropping this frees nothing.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Keyspace(keyspace) => Arc::strong_count(keyspace) > 1,
            Self::Rules(rules) => Arc::strong_count(rules) > 1,
        }
    }
}

impl fmt::Debug for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyspace(keyspace) => write!(f, "erased {:?}", keyspace.id()),
            Self::Rules(_) => f.write_str("erased rules"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    PutRow(RowKey, Row),
    DeleteRow(RowKey),
    PutMeta(Bytes, Bytes),
    DeleteMeta(Bytes),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEvent {
    pub keyspace: KeyspaceId,
    pub deleted: bool,
    /// A deletion has only key and mod_revision.
    pub kv: KeyValue<Sealed>,
    /// The version before, if there was one and it is not compacted.
    pub prev: Option<KeyValue<Sealed>>,
    /// `prev` is there but its value (and, in [`super::Keyspace::changes`], its lease) is not in memory:
    /// [`super::Keyspace::previous`] reads it.
    pub prev_in_store: bool,
    pub sub: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseEffect {
    Granted {
        keyspace: KeyspaceId,
        id: LeaseId,
        ttl: i64,
    },
    Revoked {
        keyspace: KeyspaceId,
        id: LeaseId,
    },
    /// `remaining` seconds; 0: the full ttl.
    Checkpointed {
        keyspace: KeyspaceId,
        id: LeaseId,
        remaining: i64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compaction {
    pub keyspace: KeyspaceId,
    pub revision: i64,
}
