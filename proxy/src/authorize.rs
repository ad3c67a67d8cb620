//! The one place where a request of a caller becomes a permit.

use keygate_core::{Caller, Operation, Permit, Plaintext, Refusal};
use keygate_engine::{Keyspace, View};

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
    let permit =
        Permit::obtain(keyspace.policy().as_ref(), keyspace, keyspace.auth().revision, caller, operation)?;
    // Asked after the policy, so that it tells nothing to those who could not do it anyway.
    if matches!(permit.operation(), Operation::AuthDisable) && !endpoint.auth_can_be_disabled {
        return Err(Refusal::AuthDisableRefused);
    }
    Ok(permit)
}

/// The keyspace that the caller works in.
pub fn keyspace<'a>(view: &'a View, caller: &Caller) -> Result<&'a Keyspace, Refusal> {
    // A caller of a keyspace that is gone learns no more than one without rights.
    view.keyspace(caller.keyspace()).ok_or(Refusal::PermissionDenied)
}
