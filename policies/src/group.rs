//! What the holders of one set of roles may touch, made once and shared by all of them.

use crate::interval::IntervalSet;
use ahash::AHashMap;
use keygate_core::{KeyAction, KeyRange, Permission, PermissionKind, Role};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::{Arc, OnceLock, Weak};

pub(crate) type Roles = SmallVec<[Arc<Role>; 4]>;

/// The union of some roles' permissions. Merged when it is first asked, by the asking thread.
pub(crate) struct Group {
    roles: Roles,
    grants: OnceLock<Grants>,
}

struct Grants {
    read: IntervalSet,
    write: IntervalSet,
}

impl Group {
    pub(crate) fn is_made_of(&self, roles: &Roles) -> bool {
        self.roles.len() == roles.len() && self.roles.iter().zip(roles).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    pub(crate) fn allows(&self, action: KeyAction, range: &KeyRange) -> bool {
        let grants = self.grants.get_or_init(|| Grants {
            read: IntervalSet::union(self.rows(KeyAction::Read)),
            write: IntervalSet::union(self.rows(KeyAction::Write)),
        });
        match action {
            KeyAction::Read => grants.read.covers(range),
            KeyAction::Write => grants.write.covers(range),
        }
    }

    fn rows(&self, action: KeyAction) -> impl Iterator<Item = &KeyRange> {
        self.roles
            .iter()
            .flat_map(|role| &role.permissions)
            .filter(move |permission| includes(permission, action))
            .map(|permission| &permission.range)
    }
}

fn includes(permission: &Permission, action: KeyAction) -> bool {
    match permission.kind {
        PermissionKind::Read => action == KeyAction::Read,
        PermissionKind::Write => action == KeyAction::Write,
        PermissionKind::ReadWrite => true,
    }
}

/// The groups that are in use, found by the identity of their roles.
///
/// A group owns its roles, so an address in a key cannot mean another role while the group lives;
/// dead groups are swept whenever their number could have doubled.
#[derive(Default)]
pub(crate) struct Groups {
    state: Mutex<GroupsState>,
}

#[derive(Default)]
struct GroupsState {
    groups: AHashMap<SmallVec<[usize; 4]>, Weak<Group>>,
    live_at_sweep: usize,
}

impl Groups {
    pub(crate) fn get(&self, roles: Roles) -> Arc<Group> {
        let key: SmallVec<[usize; 4]> = roles.iter().map(|role| Arc::as_ptr(role) as usize).collect();
        let mut state = self.state.lock();
        if let Some(group) = state.groups.get(&key).and_then(Weak::upgrade) {
            return group;
        }
        if state.groups.len() > 64 + 2 * state.live_at_sweep {
            state.groups.retain(|_, group| group.strong_count() > 0);
            state.live_at_sweep = state.groups.len();
        }
        let group = Arc::new(Group { roles, grants: OnceLock::new() });
        state.groups.insert(key, Arc::downgrade(&group));
        group
    }
}
