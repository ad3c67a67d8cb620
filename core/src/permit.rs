//! Proof that a request was allowed. The engine takes nothing else.
//!
//! A [`Permit`] owns its operation: what was decided is what runs. It is minted by
//! [`Permit::obtain`] after every access was decided, or by [`Permit::internal`] for work that no
//! caller asked for, from a list of reasons.

use crate::access::{Access, KeyAction};
use crate::auth::KeyspaceId;
use crate::caller::{Caller, Evidence};
use crate::operation::{LeaseId, Operation};
use crate::policy::{Decision, Fence, LeaseKeys, Policy};
use crate::range::KeyRange;
use crate::refusal::Refusal;
use crate::sight::Sight;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

/// A decision looked at the keys of this lease; it holds only while they are the same keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseFence {
    pub lease: LeaseId,
    /// None: there was no such lease.
    pub generation: Option<u64>,
}

/// Work that no caller asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum InternalReason {
    /// First start: root user, root role, auth on.
    Bootstrap,
    LeaseExpiry,
    LeaseCheckpoint,
    AutoCompaction,
    /// The space quota was hit.
    SpaceAlarm,
    HealthProbe,
    /// The bundle in the folder that the operator named.
    PolicyFiles,
}

#[derive(Clone, Debug)]
pub struct Permit<V> {
    keyspace: KeyspaceId,
    subject: Subject,
    /// None for internal work: no change of policy makes it stale.
    fence: Option<Fence>,
    leases: SmallVec<[LeaseFence; 1]>,
    /// Which of the keys that it reads may be told.
    sight: Sight,
    operation: Operation<V>,
}

/// In whose name a permit was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    Caller(Option<Arc<str>>),
    Internal(InternalReason),
}

/// The parts of a permit that its operation leaves behind when the engine takes it.
#[derive(Clone, Debug)]
pub struct PermitParts<V> {
    pub keyspace: KeyspaceId,
    pub subject: Subject,
    pub fence: Option<Fence>,
    pub leases: SmallVec<[LeaseFence; 1]>,
    pub sight: Sight,
    pub operation: Operation<V>,
}

impl<V> Permit<V> {
    /// Decides every access of `operation`.
    ///
    /// `policy` and `leases` must come from one snapshot of the keyspace; its fence is what apply
    /// compares with. The first access that is denied refuses the whole.
    pub fn obtain(
        policy: &dyn Policy,
        leases: &dyn LeaseKeys,
        store_auth_revision: u64,
        caller: &Caller,
        operation: Operation<V>,
    ) -> Result<Self, Refusal> {
        let mut fences = SmallVec::new();
        let age = || check_age(caller, store_auth_revision);
        let can_leave_out = operation.can_leave_out_keys();
        let asked = Asked { policy, leases, caller, age: &age, can_leave_out };
        let sight = decide_all(&asked, &operation, &mut fences)?;
        let name = match caller {
            Caller::Anonymous { .. } => None,
            Caller::User { name, .. } => Some(name.clone()),
        };
        Ok(Self {
            keyspace: caller.keyspace(),
            subject: Subject::Caller(name),
            fence: Some(policy.fence()),
            leases: fences,
            sight,
            operation,
        })
    }

    /// For work without a caller. The reason is logged with it.
    pub fn internal(reason: InternalReason, keyspace: KeyspaceId, operation: Operation<V>) -> Self {
        Self {
            keyspace,
            subject: Subject::Internal(reason),
            fence: None,
            leases: SmallVec::new(),
            sight: Sight::WHOLE,
            operation,
        }
    }

    pub fn operation(&self) -> &Operation<V> {
        &self.operation
    }

    pub fn keyspace(&self) -> KeyspaceId {
        self.keyspace
    }

    /// Which keys of the operation's range may be told. All, for every operation but reads and watches of many keys.
    pub fn sight(&self) -> &Sight {
        &self.sight
    }

    pub fn into_parts(self) -> PermitParts<V> {
        PermitParts {
            keyspace: self.keyspace,
            subject: self.subject,
            fence: self.fence,
            leases: self.leases,
            sight: self.sight,
            operation: self.operation,
        }
    }

    /// The transform stage: the permit stays, its values change form.
    pub fn try_map_values<W, E>(
        self,
        map: &mut dyn FnMut(&Bytes, V) -> Result<W, E>,
    ) -> Result<Permit<W>, E> {
        Ok(Permit {
            keyspace: self.keyspace,
            subject: self.subject,
            fence: self.fence,
            leases: self.leases,
            sight: self.sight,
            operation: self.operation.try_map_values(map)?,
        })
    }
}

/// Decides every access of a proposal whose permit was overtaken, on the state that it is applied to.
///
/// `name`: in whose name the permit was given. How old a token was is not asked again: the permit was
/// given while it held.
pub fn decide_at_apply<V>(
    policy: &dyn Policy,
    leases: &dyn LeaseKeys,
    keyspace: KeyspaceId,
    name: Option<&str>,
    operation: &Operation<V>,
) -> Result<(), Refusal> {
    let caller = Caller::by_name(keyspace, name);
    // Whatever is proposed needs all of its keys.
    let asked = Asked { policy, leases, caller: &caller, age: &|| Ok(()), can_leave_out: false };
    decide_all(&asked, operation, &mut SmallVec::new()).map(drop)
}

/// What all accesses of one request are decided on.
struct Asked<'a> {
    policy: &'a dyn Policy,
    leases: &'a dyn LeaseKeys,
    caller: &'a Caller,
    /// Is the token recent enough for a request about keys?
    age: &'a dyn Fn() -> Result<(), Refusal>,
    /// May the answer be given as if some of the keys did not exist?
    can_leave_out: bool,
}

/// etcd asks this of whatever is about keys, reads and watches included, and of nothing else: an
/// administrator's token outlives the changes that they make.
fn check_age(caller: &Caller, store: u64) -> Result<(), Refusal> {
    match caller {
        Caller::User { evidence: Evidence::Jwt { auth_revision: Some(token) }, .. } if *token < store => {
            Err(Refusal::OldAuthRevision { token: *token, store })
        }
        Caller::User { .. } | Caller::Anonymous { .. } => Ok(()),
    }
}

/// The first access that is denied refuses the whole.
fn decide_all<V>(
    asked: &Asked<'_>,
    operation: &Operation<V>,
    fences: &mut SmallVec<[LeaseFence; 1]>,
) -> Result<Sight, Refusal> {
    let is_tenant = asked.caller.keyspace() != KeyspaceId::DEFAULT;
    let is_enabled = asked.policy.is_enabled();
    if !is_tenant && !is_enabled {
        // Tenants have logins from the start; who has none must not rule over them, nor over the policy of all.
        return if operation.is_about_tenants() || operation.is_about_policy() {
            Err(Refusal::AuthNotEnabled)
        } else {
            Ok(Sight::WHOLE)
        };
    }
    let mut sight = Sight::WHOLE;
    let mut outcome = Ok(());
    operation.accesses(&mut |access| {
        if outcome.is_err() {
            return;
        }
        outcome = match &access {
            // Whether auth is on or off there: no policy of a tenant can answer for the platform.
            Access::Admin(verb) if is_tenant && verb.is_of_the_platform() => Err(Refusal::PermissionDenied),
            _ if !is_enabled => Ok(()),
            access => decide(asked, access, fences, &mut sight),
        };
    });
    outcome.map(|()| sight)
}

fn decide(
    asked: &Asked<'_>,
    access: &Access,
    fences: &mut SmallVec<[LeaseFence; 1]>,
    sight: &mut Sight,
) -> Result<(), Refusal> {
    if matches!(access, Access::Open) {
        return Ok(());
    }
    let Asked { policy, leases, caller, age, can_leave_out } = *asked;
    match caller {
        // etcd's word for a request without a credential.
        Caller::Anonymous { .. } => return Err(Refusal::Anonymous),
        // A certificate or token that names nobody (any more).
        Caller::User { .. } if !policy.knows(caller) => return Err(Refusal::PermissionDenied),
        Caller::User { .. } => {}
    }
    let keys = |action: KeyAction, range: &KeyRange| policy.decide_keys(caller, action, range);
    let decision = match access {
        Access::Open | Access::Authenticated => Decision::Allow,
        // Such an operation has this one access.
        Access::Keys { action: KeyAction::Read, range } if can_leave_out => {
            age()?;
            match policy.sight(caller, range) {
                Some(found) => {
                    *sight = found;
                    Decision::Allow
                }
                None => Decision::Deny,
            }
        }
        Access::Keys { action, range } => {
            age()?;
            keys(*action, range)
        }
        // Whoever may have every key may have those of any lease, whichever they are by the time of
        // the change: many writers then share a lease without being in each other's way.
        Access::KeysOfLease { action, .. } | Access::KeysOfAllLeases { action }
            if age().is_ok() && keys(*action, &KeyRange::everything()) == Decision::Allow =>
        {
            Decision::Allow
        }
        Access::KeysOfLease { action, lease } => {
            let mut decision = Decision::Allow;
            let mut aged = Ok(());
            let generation = leases.attached(*lease, &mut |key| {
                aged = age();
                decision = keys(*action, &KeyRange::Single(key.clone()));
                decision == Decision::Allow && aged.is_ok()
            });
            aged?;
            fences.push(LeaseFence { lease: *lease, generation });
            decision
        }
        Access::KeysOfAllLeases { action } => {
            let mut decision = Decision::Allow;
            let mut aged = Ok(());
            leases.attached_to_any(&mut |key| {
                aged = age();
                decision = keys(*action, &KeyRange::Single(key.clone()));
                decision == Decision::Allow && aged.is_ok()
            });
            aged?;
            decision
        }
        Access::Admin(_) | Access::Grant(_) | Access::UserRecord(_) | Access::RoleRecord(_) => {
            policy.decide_other(caller, access)
        }
    };
    match decision {
        Decision::Allow => Ok(()),
        Decision::Deny => Err(Refusal::PermissionDenied),
    }
}
