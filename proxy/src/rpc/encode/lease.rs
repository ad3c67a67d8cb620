//! Leases.

use keygate_core::{Answer, LeaseDetail, LeaseId, Plaintext, Reply};
use keygate_engine::Identity;
use keygate_proto::etcdserverpb as pb;

use super::{ANOTHER_ANSWER, Encoded, header_of};

pub(in crate::rpc) fn lease_grant(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::LeaseGrantResponse> {
    let header = header_of(identity, &reply);
    let Answer::LeaseGranted { id, ttl } = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::LeaseGrantResponse { header, id: id.0, ttl, error: String::new() })
}

pub(in crate::rpc) fn lease_revoke(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::LeaseRevokeResponse> {
    let header = header_of(identity, &reply);
    let Answer::Done = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::LeaseRevokeResponse { header })
}

pub(in crate::rpc) fn lease_keep_alive(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::LeaseKeepAliveResponse> {
    let header = header_of(identity, &reply);
    let Answer::LeaseKept { id, ttl } = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::LeaseKeepAliveResponse { header, id: id.0, ttl })
}

pub(in crate::rpc) fn lease_time_to_live(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::LeaseTimeToLiveResponse> {
    let header = header_of(identity, &reply);
    let Answer::Lease(LeaseDetail { id, ttl, granted_ttl, keys }) = reply.answer else {
        return Err(ANOTHER_ANSWER);
    };
    Ok(pb::LeaseTimeToLiveResponse { header, id: id.0, ttl, granted_ttl, keys })
}

pub(in crate::rpc) fn lease_leases(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::LeaseLeasesResponse> {
    let header = header_of(identity, &reply);
    let Answer::Leases(leases) = reply.answer else { return Err(ANOTHER_ANSWER) };
    let leases = leases.into_iter().map(|LeaseId(id)| pb::LeaseStatus { id }).collect();
    Ok(pb::LeaseLeasesResponse { header, leases })
}
