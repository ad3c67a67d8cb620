//! Users, roles and their grants: etcd's Auth API with its own checks in its own order.
//!
//! etcd's auth revision grows with every change but enabling. The policy version, which clients do not see, grows with
//! every change that can alter a decision; then the policy is compiled anew, before the change is published.

use super::effects::{Change, Effects};
use super::keyspace::Keyspace;
use super::meta;
use super::value::StoredValue;
use keygate_core::{
    Answer, Compile, Credential, KeyRange, Operation, PasswordHash, Permission, ROOT, Refusal, Role,
    RoleGrant, RoleRevoke, Sealed, User, UserAdd,
};
use std::sync::Arc;

/// What one operation does to the tables' counters.
enum Bump {
    Nothing,
    /// Only what clients see: no decision depends on it.
    Revision,
    Both,
    /// Enabling.
    Policy,
}

impl Keyspace {
    /// Answers None when `operation` is not about users and roles.
    pub(super) fn auth_change(
        &mut self,
        operation: &Operation<StoredValue>,
        compile: &dyn Compile,
        effects: &mut Effects,
    ) -> Option<Result<Answer<Sealed>, Refusal>> {
        let changed = match operation {
            Operation::AuthEnable => self.auth_enable(),
            Operation::AuthDisable => Ok(self.auth_disable()),
            Operation::UserAdd(add) => self.user_add(add, effects),
            Operation::UserDelete { name } => self.user_delete(name, effects),
            Operation::UserChangePassword { name, credential } => {
                self.user_change_password(name, credential, effects)
            }
            Operation::UserGrantRole { user, role } => self.user_grant_role(user, role, effects),
            Operation::UserRevokeRole { user, role } => self.user_revoke_role(user, role, effects),
            Operation::RoleAdd { name } => self.role_add(name, effects),
            Operation::RoleDelete { name } => self.role_delete(name, effects),
            Operation::RoleGrantPermission(grant) => self.role_grant(grant, effects),
            Operation::RoleRevokePermission(revoke) => self.role_revoke(revoke, effects),
            _ => return None,
        };
        Some(changed.map(|bump| {
            self.bump(bump, compile, effects);
            Answer::Done
        }))
    }

    /// What a new tenant begins with: a root of its own, and auth on. Counted as in an etcd whose operator
    /// has just done the same by hand, since clients see the auth revision.
    pub(super) fn found(
        &mut self,
        root: &Credential,
        compile: &dyn Compile,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let added = self.role_add(ROOT, effects)?;
        self.bump(added, compile, effects);
        let added = self.user_add(&UserAdd { name: ROOT.to_owned(), credential: root.clone() }, effects)?;
        self.bump(added, compile, effects);
        let granted = self.user_grant_role(ROOT, ROOT, effects)?;
        self.bump(granted, compile, effects);
        let enabled = self.auth_enable()?;
        self.bump(enabled, compile, effects);
        Ok(())
    }

    fn bump(&mut self, bump: Bump, compile: &dyn Compile, effects: &mut Effects) {
        let (revision, policy) = match bump {
            Bump::Nothing => return,
            Bump::Revision => (1, 0),
            Bump::Both => (1, 1),
            Bump::Policy => (0, 1),
        };
        self.auth.revision += revision;
        self.auth.policy_version += policy;
        effects.changes.push(meta::put_auth(self.id, &self.auth));
        if policy > 0 {
            self.policy = compile.compile(self.id, &self.auth, Some(&self.policy));
            effects.policy_changed = true;
        }
    }

    fn auth_enable(&mut self) -> Result<Bump, Refusal> {
        if self.auth.enabled {
            return Ok(Bump::Nothing);
        }
        let root = self.auth.users.get(ROOT).ok_or(Refusal::RootUserMissing)?;
        if !has_role(root, ROOT) {
            return Err(Refusal::RootRoleMissing);
        }
        self.auth.enabled = true;
        Ok(Bump::Policy)
    }

    fn auth_disable(&mut self) -> Bump {
        if !self.auth.enabled {
            return Bump::Nothing;
        }
        self.auth.enabled = false;
        Bump::Both
    }

    fn user_add(&mut self, add: &UserAdd, effects: &mut Effects) -> Result<Bump, Refusal> {
        if add.name.is_empty() {
            return Err(Refusal::UserEmpty);
        }
        if self.auth.users.contains_key(&add.name) {
            return Err(Refusal::UserExists);
        }
        let user = User {
            name: add.name.clone(),
            password: password(&add.credential)?,
            roles: Vec::new(),
            credential_revision: self.auth.revision + 1,
        };
        self.put_user(user, effects);
        Ok(Bump::Both)
    }

    fn user_delete(&mut self, name: &str, effects: &mut Effects) -> Result<Bump, Refusal> {
        if self.auth.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.auth.users.remove(name).ok_or(Refusal::UserNotFound)?;
        effects.changes.push(Change::DeleteMeta(meta::user_key(self.id, name)));
        Ok(Bump::Both)
    }

    fn user_change_password(
        &mut self,
        name: &str,
        credential: &Credential,
        effects: &mut Effects,
    ) -> Result<Bump, Refusal> {
        let mut user = self.user(name)?;
        // A user who was made without a password stays without one.
        if user.password.is_some() {
            user.password = password(credential)?;
        }
        user.credential_revision = self.auth.revision + 1;
        self.put_user(user, effects);
        Ok(Bump::Revision)
    }

    fn user_grant_role(&mut self, name: &str, role: &str, effects: &mut Effects) -> Result<Bump, Refusal> {
        let mut user = self.user(name)?;
        // The role `root` can be held without having been made.
        if role != ROOT && !self.auth.roles.contains_key(role) {
            return Err(Refusal::RoleNotFound);
        }
        let Err(at) = user.roles.binary_search_by(|held| held.as_str().cmp(role)) else {
            return Ok(Bump::Nothing);
        };
        user.roles.insert(at, role.to_owned());
        self.put_user(user, effects);
        Ok(Bump::Both)
    }

    fn user_revoke_role(&mut self, name: &str, role: &str, effects: &mut Effects) -> Result<Bump, Refusal> {
        if self.auth.enabled && name == ROOT && role == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        let mut user = self.user(name)?;
        if !has_role(&user, role) {
            return Err(Refusal::RoleNotGranted);
        }
        user.roles.retain(|held| held != role);
        self.put_user(user, effects);
        Ok(Bump::Both)
    }

    fn role_add(&mut self, name: &str, effects: &mut Effects) -> Result<Bump, Refusal> {
        if name.is_empty() {
            return Err(Refusal::RoleEmpty);
        }
        if self.auth.roles.contains_key(name) {
            return Err(Refusal::RoleExists);
        }
        self.put_role(Role { name: name.to_owned(), permissions: Vec::new() }, effects);
        Ok(Bump::Both)
    }

    fn role_delete(&mut self, name: &str, effects: &mut Effects) -> Result<Bump, Refusal> {
        if self.auth.enabled && name == ROOT {
            return Err(Refusal::InvalidAuthManagement);
        }
        self.auth.roles.remove(name).ok_or(Refusal::RoleNotFound)?;
        effects.changes.push(Change::DeleteMeta(meta::role_key(self.id, name)));
        let holders: Vec<Arc<User>> =
            self.auth.users.values().filter(|user| has_role(user, name)).cloned().collect();
        for holder in holders {
            let mut user = User::clone(&holder);
            user.roles.retain(|held| held != name);
            self.put_user(user, effects);
        }
        Ok(Bump::Both)
    }

    fn role_grant(&mut self, grant: &RoleGrant, effects: &mut Effects) -> Result<Bump, Refusal> {
        let range = &grant.permission.range;
        if !can_be_granted(range) {
            return Err(Refusal::InvalidAuthManagement);
        }
        let mut role = self.role(&grant.role)?;
        match find(&role, range) {
            Ok(at) => role.permissions[at].kind = grant.permission.kind,
            Err(at) => role.permissions.insert(at, detached(&grant.permission)),
        }
        self.put_role(role, effects);
        Ok(Bump::Both)
    }

    fn role_revoke(&mut self, revoke: &RoleRevoke, effects: &mut Effects) -> Result<Bump, Refusal> {
        let mut role = self.role(&revoke.role)?;
        let at = find(&role, &revoke.range).map_err(|_| Refusal::PermissionNotGranted)?;
        role.permissions.remove(at);
        self.put_role(role, effects);
        Ok(Bump::Both)
    }

    fn user(&self, name: &str) -> Result<User, Refusal> {
        self.auth.users.get(name).map(|user| User::clone(user)).ok_or(Refusal::UserNotFound)
    }

    fn role(&self, name: &str) -> Result<Role, Refusal> {
        self.auth.roles.get(name).map(|role| Role::clone(role)).ok_or(Refusal::RoleNotFound)
    }

    fn put_user(&mut self, user: User, effects: &mut Effects) {
        effects.changes.push(meta::put_user(self.id, &user));
        self.auth.users.insert(user.name.clone(), Arc::new(user));
    }

    fn put_role(&mut self, role: Role, effects: &mut Effects) {
        effects.changes.push(meta::put_role(self.id, &role));
        self.auth.roles.insert(role.name.clone(), Arc::new(role));
    }
}

fn has_role(user: &User, role: &str) -> bool {
    user.roles.iter().any(|held| held == role)
}

fn password(credential: &Credential) -> Result<Option<PasswordHash>, Refusal> {
    match credential {
        Credential::Hashed(hash) => Ok(Some(hash.clone())),
        Credential::NoPassword => Ok(None),
        // It cannot be written to a log, so only a defect in front of us brings it here.
        Credential::Password(_) => Err(Refusal::Internal { cause: "a password reached the engine unhashed" }),
    }
}

/// etcd takes no grant on an empty key, nor one whose end does not come after its key.
fn can_be_granted(range: &KeyRange) -> bool {
    !range.start().is_empty() && !range.is_empty()
}

fn find(role: &Role, range: &KeyRange) -> Result<usize, usize> {
    let order = |range: &KeyRange| (range.start().clone(), range.wire_end());
    let wanted = order(range);
    role.permissions.binary_search_by(|held| order(&held.range).cmp(&wanted))
}

/// Out of the request's buffer.
fn detached(permission: &Permission) -> Permission {
    let own = |bytes: &bytes::Bytes| bytes::Bytes::copy_from_slice(bytes);
    let range = match &permission.range {
        KeyRange::Single(key) => KeyRange::Single(own(key)),
        KeyRange::Span { start, end } => KeyRange::Span { start: own(start), end: own(end) },
        KeyRange::From(start) => KeyRange::From(own(start)),
    };
    Permission { kind: permission.kind, range }
}
