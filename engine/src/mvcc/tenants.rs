//! Which tenants there are. Creating one makes a keyspace with a root of its own; deleting one takes the keyspace out of
//! the state at once and its rows out of the store step by step, over restarts too.

use super::effects::{Change, Effects, Erased};
use super::key::Key;
use super::keyspace::Keyspace;
use super::meta;
use super::revision::RowKey;
use super::state::State;
use super::value::StoredValue;
use keygate_core::{
    Answer, Compile, KeyspaceId, MAX_TENANT_HOSTS, Operation, Refusal, Sealed, Tenant, TenantChange,
    TenantCreate, TenantInfo, TenantName, TenantState, host_name,
};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Clone, Debug)]
pub(super) struct Tenants {
    by_name: imbl::OrdMap<TenantName, Arc<Tenant>>,
    by_keyspace: imbl::OrdMap<KeyspaceId, Arc<Tenant>>,
    by_host: imbl::OrdMap<String, Arc<Tenant>>,
    /// Numbers are never given twice.
    next_keyspace: u32,
    /// Deleted ones of which rows are left. How far each has come says nothing about the state.
    erasing: BTreeMap<KeyspaceId, Erasing>,
}

#[derive(Clone)]
struct Erasing {
    keyspace: Arc<Keyspace>,
    after: Option<Key>,
}

impl std::fmt::Debug for Erasing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Erasing").field("after", &self.after).finish_non_exhaustive()
    }
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            by_name: imbl::OrdMap::new(),
            by_keyspace: imbl::OrdMap::new(),
            by_host: imbl::OrdMap::new(),
            next_keyspace: KeyspaceId::DEFAULT.0 + 1,
            erasing: BTreeMap::new(),
        }
    }
}

impl Tenants {
    /// From what the store held. An error says what does not fit together.
    pub(super) fn loaded(tenants: Vec<Tenant>, next_keyspace: Option<u32>) -> Result<Self, &'static str> {
        let mut all = Self::default();
        all.next_keyspace = next_keyspace.unwrap_or(all.next_keyspace);
        for tenant in tenants {
            if tenant.keyspace.0 >= all.next_keyspace || tenant.keyspace == KeyspaceId::DEFAULT {
                return Err("a tenant has a keyspace that was never given out");
            }
            if all.by_name.contains_key(&tenant.name) {
                return Err("two tenants have one name");
            }
            if tenant.hosts.iter().any(|host| all.by_host.contains_key(host)) {
                return Err("a host leads to two tenants");
            }
            all.put(Arc::new(tenant));
        }
        Ok(all)
    }

    fn put(&mut self, tenant: Arc<Tenant>) {
        if let Some(old) = self.by_name.insert(tenant.name.clone(), tenant.clone()) {
            for host in &old.hosts {
                self.by_host.remove(host);
            }
        }
        self.by_keyspace.insert(tenant.keyspace, tenant.clone());
        for host in &tenant.hosts {
            self.by_host.insert(host.clone(), tenant.clone());
        }
    }

    fn remove(&mut self, tenant: &Tenant) {
        self.by_name.remove(&tenant.name);
        self.by_keyspace.remove(&tenant.keyspace);
        for host in &tenant.hosts {
            self.by_host.remove(host);
        }
    }

    fn get(&self, name: &TenantName) -> Result<&Arc<Tenant>, Refusal> {
        self.by_name.get(name).ok_or_else(|| Refusal::TenantNotFound(name.clone()))
    }

    /// The hosts in the form that they are looked up in.
    fn check_hosts(&self, hosts: &[String], of: &TenantName) -> Result<Vec<String>, Refusal> {
        if hosts.len() > MAX_TENANT_HOSTS {
            return Err(Refusal::TooManyHosts { limit: MAX_TENANT_HOSTS });
        }
        let mut checked = Vec::with_capacity(hosts.len());
        for host in hosts {
            let host = host_name(host).ok_or_else(|| Refusal::HostName { host: host.clone() })?;
            match self.by_host.get(&host) {
                Some(other) if other.name != *of => {
                    return Err(Refusal::HostTaken { host, tenant: other.name.clone() });
                }
                Some(_) | None => checked.push(host),
            }
        }
        checked.sort_unstable();
        checked.dedup();
        Ok(checked)
    }
}

impl State {
    pub fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.tenants.by_name.get(name)
    }

    /// None for the default keyspace too.
    pub fn tenant_of(&self, keyspace: KeyspaceId) -> Option<&Arc<Tenant>> {
        self.tenants.by_keyspace.get(&keyspace)
    }

    /// Contract: `host` in lowercase.
    pub fn tenant_for_host(&self, host: &str) -> Option<&Arc<Tenant>> {
        self.tenants.by_host.get(host)
    }

    /// Ascending by name.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.by_name.values()
    }

    pub fn tenant_info(&self, tenant: &Tenant) -> Option<TenantInfo> {
        let keyspace = self.keyspace(tenant.keyspace)?;
        Some(TenantInfo {
            tenant: tenant.clone(),
            revision: keyspace.revision,
            compact_revision: keyspace.compact_revision,
            keys: keyspace.key_count(),
            bytes: keyspace.current_bytes(),
            leases: keyspace.leases.len() as u64,
            users: keyspace.auth.users.len() as u64,
            roles: keyspace.auth.roles.len() as u64,
        })
    }

    /// `from` must be the keyspace of whoever asks: only the platform's own can change tenants.
    pub(super) fn tenant_change(
        &mut self,
        from: KeyspaceId,
        operation: &Operation<StoredValue>,
        compile: &dyn Compile,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Refusal> {
        if from != KeyspaceId::DEFAULT {
            return Err(Refusal::PermissionDenied);
        }
        match operation {
            Operation::TenantCreate(create) => self.tenant_create(create, compile, effects),
            Operation::TenantChange { name, change } => self.tenant_alter(name, change, effects),
            Operation::TenantDelete { name } => self.tenant_delete(name, effects),
            _ => Err(Refusal::Internal { cause: "a change of tenants was expected" }),
        }
    }

    fn tenant_create(
        &mut self,
        create: &TenantCreate,
        compile: &dyn Compile,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Refusal> {
        if self.tenants.by_name.contains_key(&create.name) {
            return Err(Refusal::TenantExists(create.name.clone()));
        }
        let hosts = self.tenants.check_hosts(&create.hosts, &create.name)?;
        let id = KeyspaceId(self.tenants.next_keyspace);
        let next = id.0.checked_add(1).ok_or(Refusal::Internal { cause: "no keyspace number is left" })?;
        let mut keyspace = Keyspace::compiled(id, compile);
        // What is refused leaves no change behind: a keyspace that is dropped has only itself.
        let mut founding = Effects::default();
        keyspace.found(&create.root, compile, &mut founding)?;

        let tenant = Tenant { name: create.name.clone(), keyspace: id, state: TenantState::Active, hosts };
        self.tenants.next_keyspace = next;
        effects.changes.push(meta::put_next_keyspace(next));
        effects.changes.push(meta::put_tenant(&tenant));
        effects.changes.push(meta::put_head(id, &keyspace.head()));
        effects.changes.append(&mut founding.changes);
        self.keyspaces.insert(id, Arc::new(keyspace));
        let tenant = Arc::new(tenant);
        self.tenants.put(tenant.clone());
        Ok(Answer::Tenants(self.tenant_info(&tenant).into_iter().collect()))
    }

    fn tenant_alter(
        &mut self,
        name: &TenantName,
        change: &TenantChange,
        effects: &mut Effects,
    ) -> Result<Answer<Sealed>, Refusal> {
        let mut tenant = self.tenants.get(name)?.as_ref().clone();
        match change {
            TenantChange::State(state) => tenant.state = *state,
            TenantChange::Hosts(hosts) => tenant.hosts = self.tenants.check_hosts(hosts, name)?,
        }
        if let Some(slot) = self.keyspaces.get_mut(&tenant.keyspace) {
            Arc::make_mut(slot).suspended = tenant.state == TenantState::Suspended;
        }
        effects.changes.push(meta::put_tenant(&tenant));
        let tenant = Arc::new(tenant);
        self.tenants.put(tenant.clone());
        Ok(Answer::Tenants(self.tenant_info(&tenant).into_iter().collect()))
    }

    fn tenant_delete(&mut self, name: &TenantName, effects: &mut Effects) -> Result<Answer<Sealed>, Refusal> {
        let tenant = self.tenants.get(name)?.clone();
        let id = tenant.keyspace;
        self.tenants.remove(&tenant);
        let Some(keyspace) = self.keyspaces.remove(&id) else {
            return Err(Refusal::Internal { cause: "a tenant has no keyspace" });
        };
        // Readers of older snapshots learn that their rows may be gone.
        keyspace.horizon.store(i64::MAX, Ordering::Release);
        self.pruning.forget(id);
        keyspace.forget_records(effects);
        effects.changes.push(Change::DeleteMeta(meta::tenant_key(id)));
        effects.changes.push(meta::put_erasing(id));
        effects.ended.push(id);
        self.tenants.erasing.insert(id, Erasing { keyspace, after: None });
        Ok(Answer::Done)
    }

    /// Takes the rows of up to `max_keys` keys of deleted tenants out of the store. True while there are more.
    pub(super) fn erase_step(&mut self, max_keys: usize, effects: &mut Effects) -> bool {
        let Some(mut slot) = self.tenants.erasing.first_entry() else { return false };
        let id = *slot.key();
        let erasing = slot.get_mut();
        let start = erasing.after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_ref()));
        let entries = erasing.keyspace.index.range::<_, [u8]>((start, Bound::<&[u8]>::Unbounded));
        let mut last = None;
        for (key, entry) in entries.take(max_keys.max(1)) {
            entry.each_revision(&mut |revision| {
                effects.changes.push(Change::DeleteRow(RowKey { keyspace: id, revision }));
            });
            last = Some(key.clone());
        }
        if last.is_some() {
            erasing.after = last;
        } else {
            effects.erased.push(Erased::Keyspace(slot.remove().keyspace));
            effects.changes.push(Change::DeleteMeta(meta::erasing_key(id)));
        }
        !self.tenants.erasing.is_empty()
    }

    /// Whether rows of deleted tenants are left.
    pub fn is_erasing(&self) -> bool {
        !self.tenants.erasing.is_empty()
    }
}

impl Keyspace {
    /// Everything but rows of keys goes with the deletion itself.
    fn forget_records(&self, effects: &mut Effects) {
        let id = self.id;
        let leases = self.leases.keys().map(|lease| meta::lease_key(id, *lease));
        let users = self.auth.users.keys().map(|name| meta::user_key(id, name));
        let roles = self.auth.roles.keys().map(|name| meta::role_key(id, name));
        let alarms = self.alarms.iter().map(|alarm| meta::alarm_key(id, alarm));
        let own = [meta::head_key(id), meta::auth_key(id), meta::quota_key(id, b"")];
        let quotas = self.quota.prefixes().map(|prefix| meta::quota_key(id, prefix));
        let all = leases.chain(users).chain(roles).chain(alarms).chain(own).chain(quotas);
        effects.changes.extend(all.map(Change::DeleteMeta));
    }

    /// Deletions of all rows that this keyspace knows.
    pub(super) fn erase_all(&self, changes: &mut Vec<Change>) {
        for entry in self.index.values() {
            entry.each_revision(&mut |revision| {
                changes.push(Change::DeleteRow(RowKey { keyspace: self.id, revision }));
            });
        }
        changes.push(Change::DeleteMeta(meta::erasing_key(self.id)));
    }
}
