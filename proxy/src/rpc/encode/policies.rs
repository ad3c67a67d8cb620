//! The platform's policy.

use keygate_core::{Answer, Denial, Plaintext, PolicyAnswer, PolicyRevision, Reply, StoredBundle};
use keygate_engine::Identity;
use keygate_proto::admin as pb;

use super::{ANOTHER_ANSWER, Encoded};

fn of(reply: Reply<Plaintext>) -> Encoded<PolicyAnswer> {
    match reply.answer {
        Answer::Policy(answer) => Ok(answer),
        _ => Err(ANOTHER_ANSWER),
    }
}

pub(in crate::rpc) fn policy_stage(_: Identity, reply: Reply<Plaintext>) -> Encoded<pb::PolicyStageResponse> {
    let PolicyAnswer::Staged = of(reply)? else { return Err(ANOTHER_ANSWER) };
    Ok(pb::PolicyStageResponse {})
}

pub(in crate::rpc) fn policy_revision(
    _: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::PolicyRevisionResponse> {
    let at_revision = reply.revision;
    let PolicyAnswer::InForce(revision) = of(reply)? else { return Err(ANOTHER_ANSWER) };
    Ok(pb::PolicyRevisionResponse { revision: Some(told(revision, true)), at_revision })
}

pub(in crate::rpc) fn policy_log(_: Identity, reply: Reply<Plaintext>) -> Encoded<pb::PolicyLogResponse> {
    let PolicyAnswer::Log { in_force, revisions, kept } = of(reply)? else { return Err(ANOTHER_ANSWER) };
    let told = |own: PolicyRevision| {
        let is_kept = own.bundle.is_none() || kept.contains(&own.revision);
        told(own, is_kept)
    };
    Ok(pb::PolicyLogResponse { in_force, revisions: revisions.into_iter().map(told).collect() })
}

pub(in crate::rpc) fn policy_part(_: Identity, reply: Reply<Plaintext>) -> Encoded<pb::PolicyPartResponse> {
    let PolicyAnswer::Part { content, parts } = of(reply)? else { return Err(ANOTHER_ANSWER) };
    Ok(pb::PolicyPartResponse { content, parts })
}

pub(in crate::rpc) fn policy_tables(
    _: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::PolicyTablesResponse> {
    let PolicyAnswer::Tables { policy, roles, tenants } = of(reply)? else { return Err(ANOTHER_ANSWER) };
    Ok(pb::PolicyTablesResponse { policy, roles, tenants })
}

pub(in crate::rpc) fn policy_users(_: Identity, reply: Reply<Plaintext>) -> Encoded<pb::PolicyUsersResponse> {
    let PolicyAnswer::Users { names, tenants } = of(reply)? else { return Err(ANOTHER_ANSWER) };
    Ok(pb::PolicyUsersResponse { users: names, tenants })
}

pub(in crate::rpc) fn policy_denial(
    _: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::PolicyDenialResponse> {
    let PolicyAnswer::Denial(denial) = of(reply)? else { return Err(ANOTHER_ANSWER) };
    let Denial { decision: _, at, policy_revision, tenant, user, groups, origin, method, requests, lacking } =
        denial;
    Ok(pb::PolicyDenialResponse {
        at,
        policy_revision,
        tenant,
        user,
        groups,
        source: origin.source.map(|source| source.to_string()).unwrap_or_default(),
        connection: origin.connection.map_or(String::new(), |kind| kind.name().to_owned()),
        method,
        requests,
        lacking,
    })
}

fn told(own: PolicyRevision, kept: bool) -> pb::PolicyRevision {
    let PolicyRevision { revision, bundle, at, by, restores } = own;
    let bundle = bundle.map(|StoredBundle { digest, parts: _, bytes, about }| pb::PolicyBundle {
        digest: digest.0.to_vec().into(),
        bytes,
        revision: about.revision,
        manifest: about.manifest,
        rows: about.rows,
        links: about.links,
    });
    pb::PolicyRevision { revision, bundle, at, by: by.unwrap_or_default(), restores, kept }
}
