//! The ports through which a decision is asked for. `policies` implements them over casbin's model.

use crate::access::{Access, KeyAction};
use crate::auth::Permission;
use crate::auth::{AuthTables, KeyspaceId};
use crate::bundle::{BundleDigest, Rules};
use crate::caller::Caller;
use crate::escalation::{Reach, RightsOf};
use crate::operation::LeaseId;
use crate::range::KeyRange;
use crate::sight::Sight;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Which policy a decision was made under: the platform's version and the keyspace's. Counted apart
/// from etcd's auth revision. A proposal carries it; apply refuses a stale one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Fence {
    pub platform: u64,
    pub keyspace: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    Allow,
    Deny,
}

/// A compiled policy of one keyspace.
///
/// # Contract
/// - Immutable: the same question has the same answer for the whole life of the value.
/// - Never panics, whatever bytes a key holds; unknown subjects, and callers without a name, are denied.
/// - Where a decision is made again while a command is applied, the caller is known by keyspace and name only.
/// - While auth is off (`is_enabled() == false`) nobody asks it.
pub trait Policy: Send + Sync {
    fn fence(&self) -> Fence;
    fn is_enabled(&self) -> bool;
    /// Does this user exist? Names come from certificates and tokens, so they may not.
    fn knows(&self, caller: &Caller) -> bool;
    /// May `caller` do `action` on **every** key of `range`?
    fn decide_keys(&self, caller: &Caller, action: KeyAction, range: &KeyRange) -> Decision;
    /// Which keys of `range` may `caller` read, when the answer may leave out the others? None: it must be refused.
    fn sight(&self, caller: &Caller, range: &KeyRange) -> Option<Sight> {
        match self.decide_keys(caller, KeyAction::Read, range) {
            Decision::Allow => Some(Sight::WHOLE),
            Decision::Deny => None,
        }
    }
    /// Any access but `Open`, `Authenticated` and those about keys.
    fn decide_other(&self, caller: &Caller, access: &Access) -> Decision;
    /// Calls `visit` with each permission that the tables give. Whoever cannot tell answers that it is everything.
    fn rights(&self, of: RightsOf<'_>, visit: &mut dyn FnMut(&Permission)) -> Reach {
        let _untold = (of, visit);
        Reach::Everything
    }
}

/// Makes the policy of a keyspace from its rows.
///
/// # Contract
/// `compile` is called by the engine's applying thread right after a change and before the change
/// is published, so its cost must grow with the change, not with the tables: `previous` is the
/// policy before the change. Pure: equal tables give policies that decide equally.
pub trait Compile: Send + Sync {
    fn compile(
        &self,
        keyspace: KeyspaceId,
        tables: &AuthTables,
        previous: Option<&Arc<dyn Policy>>,
    ) -> Arc<dyn Policy>;

    /// Are these the parts of the bundle's tar?
    fn is_content_of(&self, digest: &BundleDigest, parts: &[Bytes]) -> bool {
        let _unread = (digest, parts);
        false
    }

    /// The compiled form of a bundle, whose tar these parts are.
    ///
    /// While a server serves, whoever proposes a bundle has compiled it before, so that this only finds it. The
    /// error is for the operator.
    fn bundle(&self, digest: &BundleDigest, parts: &[Bytes]) -> Result<Arc<dyn Rules>, String> {
        let _unread = parts;
        Err(format!("this program cannot compile bundle `{digest}`"))
    }
}

/// What a decision may need to know of the data: which keys are attached to a lease.
pub trait LeaseKeys {
    /// Calls `visit` with each attached key until it answers `false`. Returns the lease's attachment
    /// generation, or None when there is no such lease.
    fn attached(&self, lease: LeaseId, visit: &mut dyn FnMut(&Bytes) -> bool) -> Option<u64>;
    /// The same over all leases of the keyspace.
    fn attached_to_any(&self, visit: &mut dyn FnMut(&Bytes) -> bool);
}
