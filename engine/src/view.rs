//! The newest state that everybody may read: an immutable snapshot behind one atomic pointer.
//!
//! The applying thread publishes a new one after each batch; readers load it without waiting for
//! anybody. Data and policy of a view are of one moment.

use crate::mvcc::{Keyspace, State};
use arc_swap::ArcSwap;
use bytes::Bytes;
use keygate_core::{
    BundleDigest, Fence, KeyspaceId, PlatformPolicy, PolicyAnswer, Refusal, StoredBundle, Tenant, TenantInfo,
};
use std::sync::Arc;

#[derive(Clone)]
pub struct View(Arc<Snapshot>);

/// Begins a cache line: all threads count in the one before who holds it, and read this one at each request.
#[repr(align(64))]
struct Snapshot {
    state: State,
    position: Position,
}

/// Where in the log a view stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Position {
    pub(crate) term: u64,
    pub(crate) applied_index: u64,
    /// 0: nobody leads.
    pub(crate) leader: u64,
}

impl View {
    pub(crate) fn new(state: State, position: Position) -> Self {
        Self(Arc::new(Snapshot { state, position }))
    }

    pub fn keyspace(&self, id: KeyspaceId) -> Option<&Keyspace> {
        self.0.state.keyspace(id)
    }

    pub(crate) fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        self.0.state.keyspaces()
    }

    pub fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.0.state.tenant(name)
    }

    /// None for the default keyspace too.
    pub fn tenant_of(&self, keyspace: KeyspaceId) -> Option<&Arc<Tenant>> {
        self.0.state.tenant_of(keyspace)
    }

    /// Contract: `host` in lowercase.
    pub fn tenant_for_host(&self, host: &str) -> Option<&Arc<Tenant>> {
        self.0.state.tenant_for_host(host)
    }

    /// Ascending by name.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.0.state.tenants()
    }

    pub(crate) fn tenant_info(&self, tenant: &Tenant) -> Option<TenantInfo> {
        self.0.state.tenant_info(tenant)
    }

    /// What is in force beside the tables of the keyspaces.
    pub fn platform_policy(&self) -> &PlatformPolicy {
        self.0.state.platform_policy()
    }

    /// Under which policy this view decides about a keyspace.
    pub fn fence(&self, keyspace: KeyspaceId) -> Option<Fence> {
        let tables = self.keyspace(keyspace)?.policy().fence();
        Some(Fence { platform: self.platform_policy().revision, ..tables })
    }

    pub fn policy_log(&self) -> PolicyAnswer {
        self.0.state.policy_log()
    }

    /// The parts of the bundle that has this many, if all have been sent.
    pub fn bundle_parts(&self, digest: &BundleDigest, parts: u32) -> Option<Vec<Bytes>> {
        self.0.state.bundle_parts(digest, parts)
    }

    /// The bundle of a revision, if it is kept. `None` inside: the revision has none.
    pub fn bundle_of(&self, revision: u64) -> Result<Option<StoredBundle>, Refusal> {
        self.0.state.bundle_of(revision)
    }

    /// The revision that a rollback without a name restores.
    pub fn previous_policy(&self) -> u64 {
        self.0.state.previous_policy()
    }

    pub fn term(&self) -> u64 {
        self.0.position.term
    }

    pub fn applied_index(&self) -> u64 {
        self.0.position.applied_index
    }

    pub fn leader(&self) -> u64 {
        self.0.position.leader
    }
}

/// The place where views are published.
pub(crate) struct Board(ArcSwap<Snapshot>);

impl Board {
    pub(crate) fn new(view: View) -> Self {
        Self(ArcSwap::new(view.0))
    }

    pub(crate) fn load(&self) -> View {
        View(self.0.load_full())
    }

    /// Answers the view before. Whoever lets go of a view last frees what no newer one shares.
    pub(crate) fn replace(&self, view: View) -> View {
        View(self.0.swap(view.0))
    }
}
