//! How much there is of each tenant. Only on pages that tenants cannot ask for: their names are on it.

use keygate_engine::TenantFigures;

use super::exposition::{Exposition, Kind};

pub(super) fn write(page: &mut Exposition, tenants: &[TenantFigures]) {
    if tenants.is_empty() {
        return;
    }
    type Of = fn(&TenantFigures) -> i64;
    let families: [(&str, &str, Of); 6] = [
        ("keygate_tenant_keys", "Keys of a tenant.", |of| of.keys as i64),
        ("keygate_tenant_bytes", "Bytes of a tenant's keys and values that exist.", |of| of.bytes as i64),
        (
            "keygate_tenant_history_bytes",
            "Bytes of what a tenant overwrote or deleted and no compaction has passed.",
            |of| of.history_bytes as i64,
        ),
        ("keygate_tenant_leases", "Leases of a tenant.", |of| of.leases as i64),
        ("keygate_tenant_watchers", "Watchers of a tenant.", |of| of.watchers as i64),
        ("keygate_tenant_revision", "Revision of a tenant's keyspace.", |of| of.revision),
    ];
    for (name, help, of) in families {
        page.family(name, Kind::Gauge, help);
        for tenant in tenants {
            page.labelled(name, &[("tenant", &tenant.name)], of(tenant));
        }
    }
    let name = "keygate_tenant_quota_used_ratio";
    let help = "How much of a tenant's quota is used, the highest of its keyspace's and of its prefixes'.";
    page.family(name, Kind::Gauge, help);
    for tenant in tenants {
        for (kind, share) in &tenant.shares {
            page.labelled(name, &[("quota", kind.as_str()), ("tenant", &tenant.name)], share);
        }
    }
}

/// Without names, so that it is on every page.
pub(super) fn write_reached(page: &mut Exposition, reached: &[(u64, u64)]) {
    let name = "keygate_quotas_reached";
    page.family(name, Kind::Gauge, "Quotas that are used up to this many parts of a hundred, or further.");
    for (percent, quotas) in reached {
        page.labelled(name, &[("percent", &percent.to_string())], quotas);
    }
}
