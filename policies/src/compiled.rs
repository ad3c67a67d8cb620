//! The form that requests are decided on: no casbin, no strings but names, nothing that can fail.
//!
//! A user's rights are looked up in two steps: the user's slot, then the group of the roles that the
//! user holds. The second is remembered in the slot with the edition of the role table it was made
//! from, so a decision is one hash lookup and one binary search. A change of any role makes a new
//! edition; each user is resolved again when next asked about, so that a change itself costs little.

use crate::group::{Group, Groups, Roles};
use ahash::RandomState;
use arc_swap::ArcSwapOption;
use keygate_core::{
    Access, AuthTables, Caller, Decision, Fence, KeyAction, KeyRange, Permission, Policy, ROOT, Reach,
    RightsOf, Role, User,
};
use std::sync::Arc;

pub(crate) type Users =
    imbl::GenericHashMap<String, Arc<Slot>, RandomState, imbl::shared_ptr::DefaultSharedPtr>;

/// Which role table: no two different ones have the same number in a compiler's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Edition(pub(crate) u64);

/// The policy of one keyspace at one version.
pub struct CompiledPolicy {
    pub(crate) tables: AuthTables,
    pub(crate) users: Users,
    pub(crate) edition: Edition,
    pub(crate) groups: Arc<Groups>,
}

/// One user, shared by all policies in which the user's record is the same.
pub(crate) struct Slot {
    user: Arc<User>,
    has_root_role: bool,
    /// A memory, not state: it says which edition it is for and is ignored by others.
    resolved: ArcSwapOption<Resolved>,
}

struct Resolved {
    edition: Edition,
    group: Arc<Group>,
}

impl Slot {
    pub(crate) fn new(user: Arc<User>) -> Arc<Self> {
        // etcd asks for the role's name in the user's record, not for the role.
        let has_root_role = user.roles.iter().any(|role| role == ROOT);
        Arc::new(Self { user, has_root_role, resolved: ArcSwapOption::empty() })
    }
}

impl CompiledPolicy {
    fn allows_keys(&self, slot: &Slot, action: KeyAction, range: &KeyRange) -> bool {
        let resolved = slot.resolved.load();
        match resolved.as_ref() {
            Some(resolved) if resolved.edition == self.edition => resolved.group.allows(action, range),
            stale => self.resolve(slot, stale).allows(action, range),
        }
    }

    fn resolve(&self, slot: &Slot, stale: Option<&Arc<Resolved>>) -> Arc<Group> {
        let roles: Roles =
            slot.user.roles.iter().filter_map(|name| self.tables.roles.get(name)).cloned().collect();
        let group = match stale {
            Some(stale) if stale.group.is_made_of(&roles) => stale.group.clone(),
            _ => self.groups.get(roles),
        };
        slot.resolved.store(Some(Arc::new(Resolved { edition: self.edition, group: group.clone() })));
        group
    }

    /// The role as it is in this policy.
    pub fn role(&self, name: &str) -> Option<&Arc<Role>> {
        self.tables.roles.get(name)
    }

    pub fn knows_user(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// [`Policy::decide_keys`] of the user called so.
    pub fn user_decide_keys(&self, user: &str, action: KeyAction, range: &KeyRange) -> Decision {
        let Some(slot) = self.users.get(user) else {
            return Decision::Deny;
        };
        decision(slot.has_root_role || self.allows_keys(slot, action, range))
    }

    /// [`Policy::decide_other`] of the user called so.
    pub fn user_decide_other(&self, user: &str, access: &Access) -> Decision {
        let Some(slot) = self.users.get(user) else {
            return Decision::Deny;
        };
        decision(match access {
            Access::Open | Access::Authenticated => true,
            Access::Keys { action, range } => slot.has_root_role || self.allows_keys(slot, *action, range),
            // Which keys a lease has is not known here; whoever does asks about them one by one.
            Access::KeysOfLease { .. } | Access::KeysOfAllLeases { .. } | Access::Grant(_) => {
                slot.has_root_role
            }
            Access::Admin(verb) => slot.has_root_role || verb.is_of_every_user(),
            Access::UserRecord(name) => slot.has_root_role || name == user,
            Access::RoleRecord(name) => slot.has_root_role || slot.user.roles.contains(name),
        })
    }
}

impl Policy for CompiledPolicy {
    fn fence(&self) -> Fence {
        // There is no platform policy yet: its half of the fence never moves.
        Fence { platform: 0, keyspace: self.tables.policy_version }
    }

    fn is_enabled(&self) -> bool {
        self.tables.enabled
    }

    fn knows(&self, caller: &Caller) -> bool {
        caller.name().is_some_and(|name| self.knows_user(name))
    }

    fn decide_keys(&self, caller: &Caller, action: KeyAction, range: &KeyRange) -> Decision {
        caller.name().map_or(Decision::Deny, |name| self.user_decide_keys(name, action, range))
    }

    fn decide_other(&self, caller: &Caller, access: &Access) -> Decision {
        caller.name().map_or(Decision::Deny, |name| self.user_decide_other(name, access))
    }

    fn rights(&self, of: RightsOf<'_>, visit: &mut dyn FnMut(&Permission)) -> Reach {
        let mut tell = |role: &str| {
            self.tables.roles.get(role).into_iter().flat_map(|role| &role.permissions).for_each(&mut *visit);
        };
        match of {
            RightsOf::Role(role) => tell(role),
            RightsOf::User(user) => {
                let Some(slot) = self.users.get(user) else { return Reach::Listed };
                if slot.has_root_role {
                    return Reach::Everything;
                }
                slot.user.roles.iter().for_each(|role| tell(role));
            }
        }
        Reach::Listed
    }
}

fn decision(allowed: bool) -> Decision {
    if allowed { Decision::Allow } else { Decision::Deny }
}
