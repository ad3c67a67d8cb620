//! A bundle on its way into force: made once, and decided as often as it takes.
//!
//! Compiling takes long, and each change of the platform's users and roles overtakes the permits that were obtained before
//! it. So a permit is obtained when the bundle is there, and a change beside it costs another decision and nothing more. What
//! is kept between decisions ends with what it was made from: the bundle in force, and the rights of whoever asks.

use keygate_core::{Access, AdminVerb, Caller, Decision, Permission, PolicyChange, Reach, Refusal, RightsOf};
use keygate_engine::View;

use crate::authorize;
use crate::policies::{Policies, Prepared};

pub struct Ready {
    prepared: Prepared,
    /// The policy revision that it follows.
    since: u64,
    /// To whom it was found to give nothing that they do not hold.
    cleared: Option<Cleared>,
}

#[derive(PartialEq)]
struct Cleared {
    caller: Caller,
    rights: Rights,
}

/// What the tables of its keyspace let a caller do.
#[derive(PartialEq)]
struct Rights {
    permissions: Vec<Permission>,
    reach: Reach,
    is_user: bool,
}

impl Ready {
    /// For a caller who may change the policy.
    pub async fn make(policies: &Policies, view: &View, change: &PolicyChange) -> Result<Self, Refusal> {
        let prepared = policies.prepare(view, change).await?;
        Ok(Self { prepared, since: view.platform_policy().revision, cleared: None })
    }

    /// Does it give nobody what the caller does not hold? For a permit of this view.
    pub async fn check(
        &mut self,
        policies: &Policies,
        view: &View,
        caller: &Caller,
        change: &PolicyChange,
    ) -> Result<(), Refusal> {
        if self.since != view.platform_policy().revision {
            // A rollback may mean another bundle now.
            *self = Self::make(policies, view, change).await?;
        }
        // Not remembered: a row for it may end with time.
        if authorize::escalates(view, caller)? {
            return Ok(());
        }
        let now = Cleared { caller: caller.clone(), rights: Rights::of(view, caller)? };
        if self.cleared.as_ref() != Some(&now) {
            policies.check_gains(view, caller, change, &self.prepared).await?;
            self.cleared = Some(now);
        }
        Ok(())
    }
}

impl Rights {
    fn of(view: &View, caller: &Caller) -> Result<Self, Refusal> {
        let tables = authorize::keyspace(view, caller)?.policy();
        let mut permissions = Vec::new();
        let reach = match caller.name() {
            None => Reach::Listed,
            Some(name) => tables.rights(RightsOf::User(name), &mut |own| permissions.push(own.clone())),
        };
        let is_user = tables.decide_other(caller, &Access::Admin(AdminVerb::Status)) == Decision::Allow;
        Ok(Self { permissions, reach, is_user })
    }
}
