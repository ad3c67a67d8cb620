//! The consensus thread: takes proposals, makes them durable, applies them, tells everybody.
//!
//! One thread owns the Raft node, the log and the state, so none of them needs a lock. It batches
//! whatever has arrived: one log write and one sync, one published view, one message for each port.

mod driver;
mod flush;
mod full_disk;
mod housekeeping;
mod patient_rows;

pub(crate) use driver::{Driver, Seams};
pub(crate) use flush::{FlushStats, Flusher, stored};
pub(crate) use full_disk::{Reminder, Room};

use crate::mvcc::{Command, StoredValue};
use crate::port::{Answered, Mailbox, PortId};
use keygate_core::{KeyspaceId, Operation, Permit, PermitParts, Refusal, Sealed, Subject};
use std::convert::Infallible;

use tokio::sync::oneshot;

/// A command on its way into the log.
pub(crate) struct Proposal {
    pub(crate) command: Command,
    /// The command as the log will have it; encoded by whoever proposes.
    pub(crate) data: Vec<u8>,
    /// None: nobody waits.
    pub(crate) from: Option<(PortId, oneshot::Sender<Answered>)>,
}

impl Proposal {
    /// For somebody who waits. What this member's configuration has to say is put into the command here, so that a
    /// replay under another configuration gives what was answered: `min_lease_ttl`, in seconds.
    ///
    /// Contract: runs on the proposer's thread, so that the consensus thread does not encode.
    pub(crate) fn asked(
        permit: Permit<Sealed>,
        asker: (PortId, oneshot::Sender<Answered>),
        min_lease_ttl: i64,
    ) -> Result<Self, Refusal> {
        let mut parts = permit.into_parts();
        if let Operation::LeaseGrant(grant) = &mut parts.operation {
            grant.ttl = grant.ttl.max(min_lease_ttl);
        }
        Self::encoded(parts, Some(asker))
    }

    /// For nobody who waits.
    pub(crate) fn unasked(permit: Permit<Sealed>) -> Result<Self, Refusal> {
        Self::encoded(permit.into_parts(), None)
    }

    fn encoded(
        parts: PermitParts<Sealed>,
        from: Option<(PortId, oneshot::Sender<Answered>)>,
    ) -> Result<Self, Refusal> {
        let attribution = match parts.subject {
            Subject::Caller(name) => name.map(|name| name.to_string()),
            Subject::Internal(reason) => Some(format!("internal/{reason:?}")),
        };
        let stored =
            parts.operation.try_map_values(&mut |_, value| Ok::<_, Infallible>(StoredValue::from(value)));
        let Ok(operation) = stored;
        let command = Command {
            keyspace: parts.keyspace,
            fence: parts.fence,
            leases: parts.leases,
            attribution,
            operation,
        };
        let data = command.encode().map_err(|error| {
            tracing::error!(%error, "a command could not be encoded");
            Refusal::Internal { cause: "a command could not be encoded" }
        })?;
        Ok(Self { command, data, from })
    }
}

/// What other threads ask of the consensus thread.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are proposals; a box would be one allocation for each write"
)]
pub(crate) enum Request {
    Propose(Proposal),
    AddMailbox(PortId, Mailbox),
    /// The store holds everything up to here.
    Flushed(flush::Flushed),
    /// Answer when every row up to the newest applied entry is in the store.
    WaitFlushed(oneshot::Sender<()>),
    /// Answer when no superseded row of this keyspace is left in the store.
    WaitPruned(KeyspaceId, oneshot::Sender<()>),
    /// The store failed; the text says how.
    StoreFailed(String),
    Stop,
}
