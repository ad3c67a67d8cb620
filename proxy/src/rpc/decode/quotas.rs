//! Quotas.

use bytes::Bytes;
use keygate_core::{DEFAULT_TENANT, LimitChange, Operation, QuotaOf, QuotaSet, Refusal, TenantName};
use keygate_proto::admin as pb;

use super::{Decoded, Rejection, message};

pub(super) fn show(bytes: Bytes) -> Decoded {
    let pb::QuotaShowRequest { tenant, all } = message(bytes)?;
    Ok(Operation::QuotaShow(if all { QuotaOf::All } else { of(tenant)? }))
}

pub(super) fn recount(bytes: Bytes) -> Decoded {
    let pb::QuotaRecountRequest { tenant, all } = message(bytes)?;
    Ok(Operation::QuotaRecount(if all { QuotaOf::All } else { of(tenant)? }))
}

pub(super) fn set(bytes: Bytes) -> Decoded {
    let pb::QuotaSetRequest { tenant, prefix, limits, lift, force } = message(bytes)?;
    let tenant = match of(tenant)? {
        QuotaOf::Default => None,
        QuotaOf::Tenant(name) => Some(name),
        // It is too easy to forget whose quota is meant.
        QuotaOf::Own | QuotaOf::All => return Err(Refusal::TenantName { name: String::new() }.into()),
    };
    let pb::QuotaLimits { keys, bytes, history_bytes } = limits.unwrap_or_default();
    let change = |limit: Option<u64>| limit.map_or(LimitChange::Keep, LimitChange::Set);
    let (mut keys, mut bytes, mut history) = (change(keys), change(bytes), change(history_bytes));
    for kind in lift {
        let limit = match pb::QuotaKind::try_from(kind) {
            Ok(pb::QuotaKind::Keys) => &mut keys,
            Ok(pb::QuotaKind::Bytes) => &mut bytes,
            Ok(pb::QuotaKind::HistoryBytes) => &mut history,
            Ok(pb::QuotaKind::Unspecified) | Err(_) => {
                return Err(Rejection::UnknownNumber("QuotaSetRequest.lift"));
            }
        };
        *limit = LimitChange::Lift;
    }
    Ok(Operation::QuotaSet(QuotaSet { tenant, prefix, keys, bytes, history, force }))
}

fn of(tenant: String) -> Result<QuotaOf, Refusal> {
    Ok(match tenant.as_str() {
        "" => QuotaOf::Own,
        DEFAULT_TENANT => QuotaOf::Default,
        _ => QuotaOf::Tenant(TenantName::parse(&tenant).ok_or(Refusal::TenantName { name: tenant })?),
    })
}
