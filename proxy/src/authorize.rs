//! The one place where a request of a caller becomes a permit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keygate_core::{
    Access, AdminVerb, Caller, DEFAULT_TENANT, Decision, InForce, KeyAction, Operation, Permit, Plaintext,
    Policy as _, Refusal,
};
use keygate_engine::{Keyspace, View};
use tokio::time::Instant;

/// What this endpoint lets nobody do, whatever their rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Only etcd's own mode can switch auth off by a request.
    pub auth_can_be_disabled: bool,
}

/// Decides every access of `operation` under the policy and the lease attachments of `view`.
///
/// The permit holds for this view; what is executed later is fenced by the engine.
pub fn obtain(
    endpoint: Endpoint,
    view: &View,
    caller: &Caller,
    operation: Operation<Plaintext>,
) -> Result<Permit<Plaintext>, Refusal> {
    let keyspace = keyspace(view, caller)?;
    let policy = in_force(view, keyspace);
    let permit = Permit::obtain(&policy, keyspace, keyspace.auth().revision, caller, operation)?;
    // Asked after the policy, so that it tells nothing to those who could not do it anyway.
    if matches!(permit.operation(), Operation::AuthDisable) && !endpoint.auth_can_be_disabled {
        return Err(Refusal::AuthDisableRefused);
    }
    Ok(permit)
}

/// May the caller give more than they hold?
pub fn escalates(view: &View, caller: &Caller) -> Result<bool, Refusal> {
    let policy = in_force(view, keyspace(view, caller)?);
    Ok(policy.decide_other(caller, &Access::Admin(AdminVerb::Escalate)) == Decision::Allow)
}

/// What a change of users and roles would hand on that the caller, who may change them, does not hold: in words.
pub fn lacking(view: &View, caller: &Caller, operation: &Operation<Plaintext>) -> Vec<String> {
    let Ok(keyspace) = keyspace(view, caller) else { return Vec::new() };
    let policy = in_force(view, keyspace);
    // Whoever may not change them at all lacks that, and is not worth the work.
    if policy.decide_other(caller, &Access::Admin(AdminVerb::AuthChange)) == Decision::Deny {
        return Vec::new();
    }
    let mut lacking = Vec::new();
    operation.accesses(&mut |access| {
        if let Access::Grant(grant) = access {
            lacking.extend(policy.lacking(caller, &grant));
        }
    });
    lacking
}

/// Until when what was decided about reading keys holds, if time alone can change it.
pub fn decided_until(view: &View, caller: &Caller) -> Result<Option<Instant>, Refusal> {
    let until = in_force(view, keyspace(view, caller)?).decided_until(caller, KeyAction::Read);
    let Some(until) = until else { return Ok(None) };
    let until = UNIX_EPOCH + Duration::from_secs(until.try_into().unwrap_or(0));
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    // Not much longer at once: somebody may set the clock.
    Ok(Some(Instant::now() + left.min(CLOCK_CHECK)))
}

const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// The tables of the keyspace and the platform's bundle, both of this view.
fn in_force<'a>(view: &'a View, keyspace: &'a Keyspace) -> InForce<'a> {
    let (tables, platform) = (keyspace.policy().as_ref(), view.platform_policy());
    if platform.rules.is_none() {
        return InForce::new(tables, platform, DEFAULT_TENANT, 0);
    }
    let tenant = view.tenant_of(keyspace.id()).map_or(DEFAULT_TENANT, |tenant| tenant.name.as_str());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    InForce::new(tables, platform, tenant, i64::try_from(now).unwrap_or(i64::MAX))
}

/// The keyspace that the caller works in.
pub fn keyspace<'a>(view: &'a View, caller: &Caller) -> Result<&'a Keyspace, Refusal> {
    // A caller of a keyspace that is gone learns no more than one without rights.
    view.keyspace(caller.keyspace()).ok_or(Refusal::PermissionDenied)
}
