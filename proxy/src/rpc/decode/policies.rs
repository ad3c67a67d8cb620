//! The platform's policy.

use std::time::{SystemTime, UNIX_EPOCH};

use keygate_core::{BundleDigest, Operation, PolicyChange, PolicyQuestion, Refusal, TenantName};
use keygate_proto::admin as pb;

use super::{Decoded, Rejection};

pub(super) fn stage(request: pb::PolicyStageRequest) -> Decoded {
    let pb::PolicyStageRequest { digest, index, content } = request;
    Ok(Operation::PolicyChange(PolicyChange::Stage { digest: read(&digest)?, index, content }))
}

pub(super) fn apply(request: pb::PolicyApplyRequest) -> Decoded {
    let pb::PolicyApplyRequest { digest, parts, expected } = request;
    let digest = read(&digest)?;
    Ok(Operation::PolicyChange(PolicyChange::Apply { digest, parts, expected, at: now() }))
}

pub(super) fn rollback(request: pb::PolicyRollbackRequest) -> Decoded {
    let pb::PolicyRollbackRequest { to, expected } = request;
    Ok(Operation::PolicyChange(PolicyChange::Rollback { to, expected, at: now() }))
}

pub(super) fn part(request: pb::PolicyPartRequest) -> Decoded {
    let pb::PolicyPartRequest { revision, index } = request;
    Ok(Operation::PolicyAsk(PolicyQuestion::Part { revision, index }))
}

pub(super) fn tables(request: pb::PolicyTablesRequest) -> Decoded {
    let pb::PolicyTablesRequest { tenant } = request;
    Ok(Operation::PolicyAsk(PolicyQuestion::Tables { tenant: tenant_of(&tenant)? }))
}

/// So many are looked up at once.
pub(super) const NAMES: usize = 1000;

pub(super) fn users(request: pb::PolicyUsersRequest) -> Decoded {
    let pb::PolicyUsersRequest { tenant, users: names } = request;
    if names.len() > NAMES {
        return Err(Rejection::Names);
    }
    Ok(Operation::PolicyAsk(PolicyQuestion::Users { tenant: tenant_of(&tenant)?, names }))
}

fn tenant_of(name: &str) -> Result<Option<TenantName>, Rejection> {
    match name {
        "" | keygate_core::DEFAULT_TENANT => Ok(None),
        name => Ok(Some(TenantName::parse(name).ok_or(Refusal::TenantName { name: name.to_owned() })?)),
    }
}

fn read(digest: &[u8]) -> Result<BundleDigest, Rejection> {
    Ok(BundleDigest(digest.try_into().map_err(|_| Rejection::Digest)?))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}
