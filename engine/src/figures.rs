//! How much there is of each keyspace, for metrics: of so many keyspaces, and the sum of the others.

use crate::Engine;
use crate::mvcc::Keyspace;
use crate::view::View;
use keygate_core::{DEFAULT_TENANT, KeyspaceId, QuotaInfo, QuotaKind};
use std::collections::HashMap;

/// The name under which the keyspaces that have no figures of their own are added up. No tenant can have it.
pub const OTHER_TENANTS: &str = "_other";

/// What one keyspace holds now, or several together.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TenantFigures {
    pub name: String,
    pub keys: u64,
    /// Of keys that exist, with their values.
    pub bytes: u64,
    pub history_bytes: u64,
    pub leases: u64,
    pub watchers: u64,
    pub revision: i64,
    /// How much of its quotas is used, in parts of one: the highest of the keyspace and its prefixes. Empty without
    /// quotas.
    pub shares: Vec<(QuotaKind, f64)>,
}

impl TenantFigures {
    fn of(name: String, keyspace: &Keyspace, watchers: u64) -> Self {
        let quotas = keyspace.quotas();
        let share = |kind| quotas.iter().filter_map(|info| info.share(kind)).reduce(f64::max);
        Self {
            name,
            keys: keyspace.key_count(),
            bytes: keyspace.current_bytes(),
            history_bytes: keyspace.history_bytes(),
            leases: keyspace.lease_count() as u64,
            watchers,
            revision: keyspace.revision(),
            shares: QuotaKind::ALL.into_iter().filter_map(|kind| Some((kind, share(kind)?))).collect(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.keys += other.keys;
        self.bytes += other.bytes;
        self.history_bytes += other.history_bytes;
        self.leases += other.leases;
        self.watchers += other.watchers;
        self.revision += other.revision;
    }
}

impl View {
    /// Quotas that limit something, of all keyspaces.
    pub fn limited(&self) -> impl Iterator<Item = QuotaInfo> {
        self.keyspaces().filter(|keyspace| keyspace.has_quotas()).flat_map(|keyspace| {
            let tenant = self.tenant_of(keyspace.id()).map(|tenant| tenant.name.clone());
            let limited = keyspace.quotas().into_iter().filter(|info| !info.limits.is_empty());
            limited.map(move |info| QuotaInfo { tenant: tenant.clone(), ..info })
        })
    }
}

impl Engine {
    /// Of the default keyspace, the `most` oldest tenants, and [`OTHER_TENANTS`] if there are more. The oldest, so that
    /// who has figures keeps them when others come.
    pub fn figures(&self, most: usize) -> Vec<TenantFigures> {
        let view = self.view();
        let mut watchers = HashMap::new();
        self.count_watchers(&mut watchers);
        let mut figures = Vec::new();
        let mut other = None;
        for (place, keyspace) in view.keyspaces().enumerate() {
            let name = match view.tenant_of(keyspace.id()) {
                Some(tenant) => tenant.name.as_str(),
                None => DEFAULT_TENANT,
            };
            let watchers = watchers.get(&keyspace.id()).copied().unwrap_or(0);
            // Ascending by number, the default one first.
            if place <= most {
                figures.push(TenantFigures::of(name.to_owned(), keyspace, watchers));
            } else {
                let none = || TenantFigures { name: OTHER_TENANTS.to_owned(), ..TenantFigures::default() };
                let own = TenantFigures::of(String::new(), keyspace, watchers);
                other.get_or_insert_with(none).add(&own);
            }
        }
        figures.extend(other);
        figures
    }

    fn count_watchers(&self, counts: &mut HashMap<KeyspaceId, u64>) {
        for registry in self.registries() {
            registry.lock().count(counts);
        }
    }
}
