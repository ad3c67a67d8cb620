//! Bytes of a request → [`Operation`], with the checks that only the wire form allows.
//!
//! Each message is taken apart in full: a new field does not compile until somebody says what it
//! means. Fields that the message does not know are ignored, as etcd does.

mod auth;
mod kv;
mod lease;
mod maintenance;
mod policies;
mod quotas;
mod tenants;
mod watch;

pub(super) use lease::keep_alive;
pub(super) use watch::create as watch_create;

use bytes::Bytes;
use keygate_core::{Limits, Observation, Operation, Plaintext, Refusal};
use keygate_proto::{admin, etcdserverpb as pb, health};
use prost::Message;
use tonic::Status;

use crate::status;

/// Reads the message of one RPC.
pub(super) type Decode = fn(Bytes, &Limits) -> Result<Operation<Plaintext>, Rejection>;

/// Why bytes do not become an operation.
#[derive(Clone, PartialEq, Debug)]
pub enum Rejection {
    Refused(Refusal),
    Malformed(prost::DecodeError),
    /// The named field holds a number that its enum does not have.
    UnknownNumber(&'static str),
    /// No SHA-256.
    Digest,
    /// More names than one request may have.
    Names,
    /// No bcrypt hash, or one that is too dear to check.
    Hash,
}

impl Rejection {
    pub fn status(&self) -> Status {
        match self {
            Self::Refused(refusal) => status::of(refusal),
            Self::Malformed(cause) => status::malformed(cause),
            Self::UnknownNumber(field) => status::unknown_number(field),
            Self::Digest => status::unusable_digest(),
            Self::Names => status::too_many_names(policies::NAMES),
            Self::Hash => status::unusable_hash(),
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

type Decoded = Result<Operation<Plaintext>, Rejection>;

pub(super) fn message<M: Message + Default>(bytes: Bytes) -> Result<M, Rejection> {
    M::decode(bytes).map_err(Rejection::Malformed)
}

pub(super) fn range(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::Range(kv::range(message(bytes)?)?))
}

pub(super) fn range_stream(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::RangeStream(kv::range(message(bytes)?)?))
}

pub(super) fn put(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::Put(kv::put(message(bytes)?)?))
}

pub(super) fn delete_range(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::DeleteRange(kv::delete_range(message(bytes)?)?))
}

pub(super) fn txn(bytes: Bytes, limits: &Limits) -> Decoded {
    Ok(Operation::Txn(kv::txn(message(bytes)?, limits)?))
}

pub(super) fn compact(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::Compact(kv::compact(message(bytes)?)))
}

pub(super) fn lease_grant(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::LeaseGrant(lease::grant(message(bytes)?)?))
}

pub(super) fn lease_revoke(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::LeaseRevoke(lease::revoke(message(bytes)?)))
}

pub(super) fn lease_time_to_live(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::LeaseTimeToLive(lease::time_to_live(message(bytes)?)))
}

pub(super) fn lease_leases(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::LeaseLeasesRequest {} = message(bytes)?;
    Ok(Operation::LeaseLeases)
}

pub(super) fn member_list(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::MemberListRequest { linearizable } = message(bytes)?;
    Ok(Operation::MemberList { linearizable })
}

pub(super) fn alarm(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::Alarm(maintenance::alarm(message(bytes)?)?))
}

pub(super) fn status(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::StatusRequest {} = message(bytes)?;
    Ok(Operation::Status)
}

pub(super) fn snapshot(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::SnapshotRequest {} = message(bytes)?;
    Ok(Operation::Snapshot)
}

pub(super) fn defragment(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::DefragmentRequest {} = message(bytes)?;
    Ok(Operation::Defragment)
}

pub(super) fn hash(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::HashRequest {} = message(bytes)?;
    Ok(Operation::Hash)
}

pub(super) fn hash_kv(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::HashKvRequest { revision } = message(bytes)?;
    Ok(Operation::HashKv { revision })
}

pub(super) fn auth_enable(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthEnableRequest {} = message(bytes)?;
    Ok(Operation::AuthEnable)
}

pub(super) fn auth_disable(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthDisableRequest {} = message(bytes)?;
    Ok(Operation::AuthDisable)
}

pub(super) fn auth_status(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthStatusRequest {} = message(bytes)?;
    Ok(Operation::AuthStatus)
}

pub(super) fn tenant_create(bytes: Bytes, _: &Limits) -> Decoded {
    tenants::create(message(bytes)?)
}

pub(super) fn tenant_get(bytes: Bytes, _: &Limits) -> Decoded {
    tenants::get(message(bytes)?)
}

pub(super) fn tenant_list(bytes: Bytes, _: &Limits) -> Decoded {
    let admin::TenantListRequest {} = message(bytes)?;
    Ok(Operation::TenantList)
}

pub(super) fn tenant_change(bytes: Bytes, _: &Limits) -> Decoded {
    tenants::change(message(bytes)?)
}

pub(super) fn tenant_delete(bytes: Bytes, _: &Limits) -> Decoded {
    tenants::delete(message(bytes)?)
}

pub(super) fn limits(bytes: Bytes, _: &Limits) -> Decoded {
    let admin::LimitsRequest {} = message(bytes)?;
    Ok(Operation::Observe(Observation::Limits))
}

pub(super) fn load(bytes: Bytes, _: &Limits) -> Decoded {
    let admin::LoadRequest { most } = message(bytes)?;
    let most = if most == 0 { 100 } else { most as usize };
    Ok(Operation::Observe(Observation::Load { most }))
}

pub(super) fn quota_show(bytes: Bytes, _: &Limits) -> Decoded {
    quotas::show(bytes)
}

pub(super) fn quota_set(bytes: Bytes, _: &Limits) -> Decoded {
    quotas::set(bytes)
}

pub(super) fn quota_recount(bytes: Bytes, _: &Limits) -> Decoded {
    quotas::recount(bytes)
}

pub(super) fn policy_stage(bytes: Bytes, _: &Limits) -> Decoded {
    policies::stage(message(bytes)?)
}

pub(super) fn policy_apply(bytes: Bytes, _: &Limits) -> Decoded {
    policies::apply(message(bytes)?)
}

pub(super) fn policy_rollback(bytes: Bytes, _: &Limits) -> Decoded {
    policies::rollback(message(bytes)?)
}

pub(super) fn policy_log(bytes: Bytes, _: &Limits) -> Decoded {
    let admin::PolicyLogRequest {} = message(bytes)?;
    Ok(Operation::PolicyAsk(keygate_core::PolicyQuestion::Log))
}

pub(super) fn policy_part(bytes: Bytes, _: &Limits) -> Decoded {
    policies::part(message(bytes)?)
}

pub(super) fn policy_denial(bytes: Bytes, _: &Limits) -> Decoded {
    let admin::PolicyDenialRequest { decision } = message(bytes)?;
    Ok(Operation::PolicyAsk(keygate_core::PolicyQuestion::Denial { decision }))
}

pub(super) fn policy_tables(bytes: Bytes, _: &Limits) -> Decoded {
    policies::tables(message(bytes)?)
}

pub(super) fn policy_users(bytes: Bytes, _: &Limits) -> Decoded {
    policies::users(message(bytes)?)
}

pub(super) fn authenticate(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(auth::authenticate(message(bytes)?))
}

pub(super) fn user_add(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::UserAdd(auth::user_add(message(bytes)?)?))
}

pub(super) fn user_get(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthUserGetRequest { name } = message(bytes)?;
    Ok(Operation::UserGet { name })
}

pub(super) fn user_list(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthUserListRequest {} = message(bytes)?;
    Ok(Operation::UserList)
}

pub(super) fn user_delete(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthUserDeleteRequest { name } = message(bytes)?;
    Ok(Operation::UserDelete { name })
}

pub(super) fn user_change_password(bytes: Bytes, _: &Limits) -> Decoded {
    auth::user_change_password(message(bytes)?)
}

pub(super) fn user_grant_role(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthUserGrantRoleRequest { user, role } = message(bytes)?;
    Ok(Operation::UserGrantRole { user, role })
}

pub(super) fn user_revoke_role(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthUserRevokeRoleRequest { name, role } = message(bytes)?;
    Ok(Operation::UserRevokeRole { user: name, role })
}

pub(super) fn role_add(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthRoleAddRequest { name } = message(bytes)?;
    Ok(Operation::RoleAdd { name })
}

pub(super) fn role_get(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthRoleGetRequest { role } = message(bytes)?;
    Ok(Operation::RoleGet { name: role })
}

pub(super) fn role_list(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthRoleListRequest {} = message(bytes)?;
    Ok(Operation::RoleList)
}

pub(super) fn role_delete(bytes: Bytes, _: &Limits) -> Decoded {
    let pb::AuthRoleDeleteRequest { role } = message(bytes)?;
    Ok(Operation::RoleDelete { name: role })
}

pub(super) fn role_grant_permission(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::RoleGrantPermission(auth::role_grant(message(bytes)?)?))
}

pub(super) fn role_revoke_permission(bytes: Bytes, _: &Limits) -> Decoded {
    Ok(Operation::RoleRevokePermission(auth::role_revoke(message(bytes)?)))
}

/// `None`: a service that is not here. There is one, the server as a whole, named by nothing.
pub(super) fn health(bytes: Bytes) -> Result<Option<Operation<Plaintext>>, Rejection> {
    let health::HealthCheckRequest { service } = message(bytes)?;
    Ok(service.is_empty().then_some(Operation::Health))
}

/// The first request of the named stream, or the request of the named unary RPC, as an operation.
/// None for an RPC that has none. For tests of the mapping.
pub fn decode(path: &str, bytes: Bytes, limits: &Limits) -> Option<Decoded> {
    use super::methods::{Kind, find};
    Some(match find(path)?.method().kind {
        Kind::Unary { decode, .. } | Kind::RangeStream { decode } => decode(bytes, limits),
        Kind::Watch => match watch::first(bytes) {
            Ok(Some(operation)) => Ok(operation),
            Ok(None) => return None,
            Err(rejection) => Err(rejection),
        },
        Kind::LeaseKeepAlive => message(bytes).map(keep_alive),
        Kind::HealthCheck | Kind::HealthWatch => match health(bytes) {
            Ok(Some(operation)) => Ok(operation),
            Ok(None) => return None,
            Err(rejection) => Err(rejection),
        },
        Kind::Later => return None,
    })
}
