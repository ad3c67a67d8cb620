//! Leases.

use keygate_core::{LeaseGrant, LeaseId, LeaseRevoke, LeaseTimeToLive, Operation, Plaintext, Refusal};
use keygate_proto::etcdserverpb as pb;

pub(super) fn grant(request: pb::LeaseGrantRequest) -> Result<LeaseGrant, Refusal> {
    let pb::LeaseGrantRequest { ttl, id } = request;
    let id = if id == 0 { random_id()? } else { LeaseId(id) };
    Ok(LeaseGrant { id, ttl })
}

/// Positive, so that every client language can print it, and unguessable, so that no caller can
/// aim at another's lease.
fn random_id() -> Result<LeaseId, Refusal> {
    loop {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Refusal::Internal { cause: "no random numbers" })?;
        let id = i64::from_be_bytes(bytes) & i64::MAX;
        if id != 0 {
            return Ok(LeaseId(id));
        }
    }
}

pub(super) fn revoke(request: pb::LeaseRevokeRequest) -> LeaseRevoke {
    let pb::LeaseRevokeRequest { id } = request;
    LeaseRevoke { id: LeaseId(id) }
}

pub(super) fn time_to_live(request: pb::LeaseTimeToLiveRequest) -> LeaseTimeToLive {
    let pb::LeaseTimeToLiveRequest { id, keys } = request;
    LeaseTimeToLive { id: LeaseId(id), keys }
}

pub(in crate::rpc) fn keep_alive(request: pb::LeaseKeepAliveRequest) -> Operation<Plaintext> {
    let pb::LeaseKeepAliveRequest { id } = request;
    Operation::LeaseKeepAlive(LeaseId(id))
}
