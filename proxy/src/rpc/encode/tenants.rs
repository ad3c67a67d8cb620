//! Tenants.

use keygate_core::{Answer, Plaintext, Reply, TenantInfo, TenantState};
use keygate_engine::Identity;
use keygate_proto::admin as pb;

use super::{ANOTHER_ANSWER, Encoded};

pub(in crate::rpc) fn tenant(_: Identity, reply: Reply<Plaintext>) -> Encoded<pb::TenantResponse> {
    let Answer::Tenants(tenants) = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::TenantResponse { tenant: tenants.into_iter().next().map(told) })
}

pub(in crate::rpc) fn tenant_list(_: Identity, reply: Reply<Plaintext>) -> Encoded<pb::TenantListResponse> {
    let Answer::Tenants(tenants) = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::TenantListResponse { tenants: tenants.into_iter().map(told).collect() })
}

pub(in crate::rpc) fn tenant_delete(
    _: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::TenantDeleteResponse> {
    let Answer::Done = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::TenantDeleteResponse {})
}

fn told(info: TenantInfo) -> pb::Tenant {
    let TenantInfo { tenant, revision, compact_revision, keys, bytes, leases, users, roles } = info;
    let state = match tenant.state {
        TenantState::Active => pb::TenantState::Active,
        TenantState::Suspended => pb::TenantState::Suspended,
    };
    pb::Tenant {
        name: tenant.name.into(),
        state: state.into(),
        hosts: tenant.hosts,
        keyspace: tenant.keyspace.0,
        revision,
        compact_revision,
        keys,
        bytes,
        leases,
        users,
        roles,
    }
}
