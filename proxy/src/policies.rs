//! The platform's policy at the gateway: bundles are compiled here, off the serving threads and before they are
//! proposed, so that neither requests nor the applying thread wait for one; and questions about them are answered.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::authorize;
use crate::denials::Denials;
use bytes::Bytes;
use keygate_core::{
    Access, AuthTables, BUNDLE_BYTES, BundleDigest, Caller, DEFAULT_TENANT, Decision, KeyspaceId,
    PolicyAnswer, PolicyChange, PolicyQuestion, Refusal, TenantName,
};
use keygate_engine::{View, background};
use keygate_policies::bundle::{Bundle, Instant, VerifyingKey};
use keygate_policies::{Asker, BundlePolicy, Compiler, Trust, gains, rows_of_tables};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use thiserror::Error;

/// A key of `--policy-keys` that cannot be used.
#[derive(Debug, Error)]
#[error(
    "policy key `{file}` cannot be used: {cause}; it takes an Ed25519 public key in PEM, as `openssl pkey -pubout` writes it"
)]
pub struct PolicyKeyError {
    file: String,
    cause: String,
}

/// The keys of the files. `needed` of them must have signed a bundle; 0 is all. None: no key was named.
pub fn trust(files: &[PathBuf], needed: u32) -> Result<Option<Trust>, PolicyKeyError> {
    let mut keys = Vec::new();
    for file in files {
        let failed = |cause: String| PolicyKeyError { file: file.display().to_string(), cause };
        let der = SubjectPublicKeyInfoDer::from_pem_file(file).map_err(|error| failed(error.to_string()))?;
        keys.push(VerifyingKey::from_spki(&der).map_err(|error| failed(error.to_string()))?);
    }
    let needed = if needed == 0 { keys.len() } else { needed as usize };
    Ok((!keys.is_empty()).then_some(Trust { keys, needed }))
}

/// One for the process.
pub struct Policies {
    compiler: Arc<Compiler>,
    /// None: a bundle needs no signature.
    trust: Option<Arc<Trust>>,
    /// One bundle at a time: a large one takes memory and a core.
    compiling: Arc<tokio::sync::Mutex<()>>,
    failures: AtomicU64,
    pub denials: Denials,
}

/// A compiled bundle that somebody is about to propose. It is found again while this is kept. `None`: no bundle.
pub struct Prepared(Option<Arc<BundlePolicy>>);

impl Prepared {
    /// The digest of the bundle's manifest, and so of all that decides.
    pub fn manifest(&self) -> Option<&str> {
        self.0.as_deref().map(|policy| policy.bundle().digest())
    }
}

/// Gains that are told.
const TOLD: usize = 5;

impl Policies {
    pub fn new(compiler: Arc<Compiler>, trust: Option<Trust>) -> Self {
        let trust = trust.map(Arc::new);
        Self {
            compiler,
            trust,
            compiling: Arc::default(),
            failures: AtomicU64::new(0),
            denials: Denials::default(),
        }
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

    /// Once more for the same reason: counted, and not told again.
    pub fn failed_again(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
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
        self.check(&digest, content).await
    }

    /// The same for a bundle that nobody has sent yet.
    pub async fn check(&self, digest: &BundleDigest, content: Vec<Bytes>) -> Result<Prepared, Refusal> {
        let turn = self.compiling.clone().lock_owned().await;
        let (compiler, trust, digest) = (self.compiler.clone(), self.trust.clone(), *digest);
        let prepare = move || {
            // Also when whoever asked has left.
            let _one_at_a_time = turn;
            compiler.prepare(&digest, &content, trust.as_deref())
        };
        let compiled = background::run("policies", prepare).await;
        let compiled =
            compiled.map_err(|_| Refusal::Internal { cause: "a bundle's compilation broke off" })?;
        Ok(Prepared(Some(compiled.map_err(Refusal::BundleUnusable)?)))
    }

    /// Does what the change puts in force give nobody what the caller does not hold?
    ///
    /// Decided on the view of the caller's permit, so that the permit is stale when any of it changes. Root, and
    /// whoever may escalate, is not asked.
    pub async fn check_gains(
        &self,
        view: &View,
        caller: &Caller,
        change: &PolicyChange,
        next: &Prepared,
    ) -> Result<(), Refusal> {
        if matches!(change, PolicyChange::Stage { .. }) || authorize::escalates(view, caller)? {
            return Ok(());
        }
        let in_force = self.in_force(view)?;
        let turn = self.compiling.clone().lock_owned().await;
        let (view, caller, next) = (view.clone(), caller.clone(), next.0.clone());
        let compare = move || {
            // Also when whoever asked has left.
            let _one_at_a_time = turn;
            found(&view, &caller, in_force.as_deref(), next.as_deref())
        };
        let found = background::run("policies", compare).await;
        let found = found.map_err(|_| Refusal::Internal { cause: "comparing two bundles broke off" })??;
        if found.is_empty() { Ok(()) } else { Err(Refusal::BundleGives(told(&found))) }
    }

    fn in_force(&self, view: &View) -> Result<Option<Arc<BundlePolicy>>, Refusal> {
        let stored = view.bundle_of(view.platform_policy().revision)?;
        // The view holds it.
        let missing = Refusal::Internal { cause: "the bundle in force is not compiled" };
        stored.map(|stored| self.compiler.prepared(&stored.digest).ok_or(missing)).transpose()
    }

    pub fn answer(&self, view: &View, question: &PolicyQuestion) -> Result<PolicyAnswer, Refusal> {
        match question {
            PolicyQuestion::Log => Ok(view.policy_log()),
            PolicyQuestion::Denial { decision } => {
                let denial = self.denials.find(*decision).ok_or(Refusal::DecisionUnknown(*decision))?;
                Ok(PolicyAnswer::Denial(denial))
            }
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
                let name = tenant.as_ref().map_or(DEFAULT_TENANT, TenantName::as_str);
                let auth = tables(view, tenant.as_ref())?;
                let (rows, links) = rows_of_tables(name, auth);
                let policy = rows.iter().map(|row| format!("{row}\n")).collect();
                let roles = links.iter().map(|link| format!("{link}\n")).collect();
                Ok(PolicyAnswer::Tables { policy, roles, tenants: tenants(view) })
            }
            PolicyQuestion::Users { tenant, names } => {
                let users = &tables(view, tenant.as_ref())?.users;
                let names = names.iter().filter(|name| users.contains_key(*name)).cloned().collect();
                Ok(PolicyAnswer::Users { names, tenants: tenants(view) })
            }
        }
    }
}

/// `None`: of the default keyspace.
fn tables<'a>(view: &'a View, tenant: Option<&TenantName>) -> Result<&'a AuthTables, Refusal> {
    let keyspace = match tenant {
        None => KeyspaceId::DEFAULT,
        Some(name) => {
            let tenant = view.tenant(name.as_str());
            tenant.ok_or_else(|| Refusal::TenantNotFound(name.clone()))?.keyspace
        }
    };
    Ok(view.keyspace(keyspace).ok_or(Refusal::PermissionDenied)?.auth())
}

fn tenants(view: &View) -> Vec<String> {
    view.tenants().map(|tenant| tenant.name.as_str().to_owned()).collect()
}

fn found(
    view: &View,
    caller: &Caller,
    old: Option<&BundlePolicy>,
    new: Option<&BundlePolicy>,
) -> Result<Vec<String>, Refusal> {
    let Caller::User { name, groups, .. } = caller else { return Err(Refusal::PermissionDenied) };
    let keyspace = authorize::keyspace(view, caller)?;
    let groups: Vec<&str> = groups.names().iter().map(AsRef::as_ref).collect();
    let giver = Asker { tenant: DEFAULT_TENANT, user: name, groups: &groups };
    let own = |access: &Access| match access {
        Access::Keys { action, range } => {
            keyspace.policy().decide_keys(caller, *action, range) == Decision::Allow
        }
        other => keyspace.policy().decide_other(caller, other) == Decision::Allow,
    };
    let empty = Bundle::empty();
    let (old, new) = (old.map_or(&empty, |old| old.bundle()), new.map_or(&empty, |new| new.bundle()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = Instant(i64::try_from(now).unwrap_or(i64::MAX));
    let found = gains(old, new, &giver, now, &own);
    let too_many = || vec!["more than can be compared here: too many members or conditions".to_owned()];
    Ok(found.map_or_else(too_many, |found| found.iter().map(ToString::to_string).collect()))
}

fn told(gains: &[String]) -> String {
    let mut text = gains.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("; ");
    if gains.len() > TOLD {
        text.push_str(&format!("; and {} more", gains.len() - TOLD));
    }
    text
}

fn whole(view: &View, digest: &BundleDigest, parts: u32) -> Option<Vec<Bytes>> {
    view.bundle_parts(digest, parts).filter(|parts| !parts.is_empty())
}
