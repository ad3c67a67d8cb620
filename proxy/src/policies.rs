//! The platform's policy at the gateway: bundles are compiled here, off the serving threads and before they are
//! proposed, so that neither requests nor the applying thread wait for one; and questions about them are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use keygate_core::{
    BUNDLE_BYTES, BundleDigest, KeyspaceId, PolicyAnswer, PolicyChange, PolicyQuestion, Refusal, Rules,
};
use keygate_engine::View;
use keygate_policies::{Compiler, rows_of_tables};

/// One for the process.
pub struct Policies {
    compiler: Arc<Compiler>,
    /// One bundle at a time: a large one takes memory and a core.
    compiling: tokio::sync::Mutex<()>,
    failures: AtomicU64,
}

/// A compiled bundle that somebody is about to propose. It is found again while this is kept.
pub struct Prepared(#[expect(dead_code, reason = "kept alive, not looked at")] Option<Arc<dyn Rules>>);

impl Policies {
    pub fn new(compiler: Arc<Compiler>) -> Self {
        Self { compiler, compiling: tokio::sync::Mutex::new(()), failures: AtomicU64::new(0) }
    }

    /// Bundles that were not put in force since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// To be counted whenever somebody wanted a bundle in force and it is not.
    pub fn failed(&self, why: &Refusal) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%why, "a policy bundle was not applied; what was in force stays");
    }

    /// Makes ready what the change puts in force.
    pub async fn prepare(&self, view: &View, change: &PolicyChange) -> Result<Prepared, Refusal> {
        let wanted = match change {
            PolicyChange::Stage { .. } => None,
            PolicyChange::Apply { digest, parts, .. } => {
                let content = whole(view, digest, *parts).ok_or(Refusal::BundleIncomplete)?;
                Some((*digest, content))
            }
            PolicyChange::Rollback { to, .. } => {
                let to = to.unwrap_or_else(|| view.previous_policy());
                view.bundle_of(to)?
                    .map(|bundle| {
                        let content = whole(view, &bundle.digest, bundle.parts);
                        content.map(|content| (bundle.digest, content)).ok_or(Refusal::BundleIncomplete)
                    })
                    .transpose()?
            }
        };
        let Some((digest, content)) = wanted else { return Ok(Prepared(None)) };
        let size: u64 = content.iter().map(|part| part.len() as u64).sum();
        if size > BUNDLE_BYTES {
            return Err(Refusal::BundleTooLarge { limit: BUNDLE_BYTES });
        }
        let _one_at_a_time = self.compiling.lock().await;
        let compiler = self.compiler.clone();
        let compiled = tokio::task::spawn_blocking(move || compiler.prepare(&digest, &content)).await;
        let compiled =
            compiled.map_err(|_| Refusal::Internal { cause: "a bundle's compilation broke off" })?;
        Ok(Prepared(Some(compiled.map_err(Refusal::BundleUnusable)?)))
    }

    pub fn answer(view: &View, question: &PolicyQuestion) -> Result<PolicyAnswer, Refusal> {
        match question {
            PolicyQuestion::Log => Ok(view.policy_log()),
            PolicyQuestion::Part { revision, index } => {
                let revision = if *revision == 0 { view.platform_policy().revision } else { *revision };
                let Some(bundle) = view.bundle_of(revision)? else {
                    return Ok(PolicyAnswer::Part { content: Bytes::new(), parts: 0 });
                };
                let content = whole(view, &bundle.digest, bundle.parts).ok_or(Refusal::BundleIncomplete)?;
                let content = content.get(*index as usize).cloned().unwrap_or_default();
                Ok(PolicyAnswer::Part { content, parts: bundle.parts })
            }
            PolicyQuestion::Tables { tenant } => {
                let (name, keyspace) = match tenant {
                    None => (keygate_core::DEFAULT_TENANT, KeyspaceId::DEFAULT),
                    Some(name) => {
                        let tenant = view.tenant(name.as_str());
                        let tenant = tenant.ok_or_else(|| Refusal::TenantNotFound(name.clone()))?;
                        (name.as_str(), tenant.keyspace)
                    }
                };
                let auth = view.keyspace(keyspace).ok_or(Refusal::PermissionDenied)?.auth();
                let (rows, links) = rows_of_tables(name, auth);
                let policy = rows.iter().map(|row| format!("{row}\n")).collect();
                let roles = links.iter().map(|link| format!("{link}\n")).collect();
                let tenants = view.tenants().map(|tenant| tenant.name.as_str().to_owned()).collect();
                Ok(PolicyAnswer::Tables { policy, roles, tenants })
            }
        }
    }
}

fn whole(view: &View, digest: &BundleDigest, parts: u32) -> Option<Vec<Bytes>> {
    view.bundle_parts(digest, parts).filter(|parts| !parts.is_empty())
}
