//! What quotas there are, how far they are used, and whether the counters are right.

use crate::mvcc::ReadError;
use crate::port::{Answered, Port};
use crate::readers::Purpose;
use crate::view::View;
use keygate_core::{Answer, KeyspaceId, QuotaInfo, QuotaOf, Refusal, Reply, TenantName};

/// Keyspaces with their tenants' names, None for the default one.
fn meant(
    view: &View,
    own: KeyspaceId,
    of: QuotaOf,
) -> Result<Vec<(Option<TenantName>, KeyspaceId)>, Refusal> {
    let default = (None, KeyspaceId::DEFAULT);
    Ok(match of {
        QuotaOf::Own => vec![(view.tenant_of(own).map(|tenant| tenant.name.clone()), own)],
        QuotaOf::Default => vec![default],
        QuotaOf::Tenant(name) => {
            let tenant = view.tenant(name.as_str()).ok_or_else(|| Refusal::TenantNotFound(name.clone()))?;
            vec![(Some(name), tenant.keyspace)]
        }
        QuotaOf::All => {
            let tenants = view.tenants().map(|tenant| (Some(tenant.name.clone()), tenant.keyspace));
            std::iter::once(default).chain(tenants).collect()
        }
    })
}

fn named(tenant: Option<TenantName>, quotas: Vec<QuotaInfo>) -> impl Iterator<Item = QuotaInfo> {
    quotas.into_iter().map(move |info| QuotaInfo { tenant: tenant.clone(), ..info })
}

pub(super) fn show(view: &View, own: KeyspaceId, of: QuotaOf) -> Result<Vec<QuotaInfo>, Refusal> {
    let mut all = Vec::new();
    for (tenant, id) in meant(view, own, of)? {
        if let Some(keyspace) = view.keyspace(id) {
            all.extend(named(tenant, keyspace.quotas()));
        }
    }
    Ok(all)
}

/// Off-thread: it walks over every key and reads all of history.
pub(super) async fn recount(port: &Port, view: &View, own: KeyspaceId, of: QuotaOf) -> Answered {
    let meant = meant(view, own, of)?;
    let pinned = view.clone();
    let counted = port.read_store(Purpose::Answer, move |rows| {
        let mut all = Vec::new();
        for (tenant, id) in meant {
            let keyspace = pinned.keyspace(id).ok_or(ReadError::Outdated)?;
            all.extend(named(tenant, keyspace.recount(rows)?));
        }
        Ok(all)
    });
    let counted = counted.await.map_err(|error| port.explain(error))?;
    let revision = view.keyspace(own).map_or(0, |keyspace| keyspace.revision());
    Ok(Reply { revision, term: view.term(), answer: Answer::Quotas(counted) })
}
