//! Users, roles, grants, and turning auth on and off.

use bytes::Bytes;
use keygate_proto::{
    authpb::{Permission, UserAddOptions},
    etcdserverpb::*,
};
use rand::Rng;

use super::{Generator, Step, kv::after_prefix};
use crate::differential::call::{Call, Caller};

/// Number 0 is the superuser.
pub(in super::super) const USERS: &[&str] = &["root", "alice", "bob", "carol", "dave"];
pub(super) const PASSWORDS: &[&str] = &["first", "second", "third"];
const ROLES: &[&str] = &["reader", "writer", "both", "root"];
/// bcrypt of "first" with cost 4, in base64, as `etcdctl` never sends it but other clients do.
const DIGEST: &str = "JDJhJDA0JFFTYVRBdXJ0M2FEOVFoYnZwRUg0ZWVVZkEwaUJLMnp0dC5CUEhvZHBrbC5WMUZKbWZvQWR5";

impl Generator {
    /// The users and roles that every segment starts with, and auth turned on in half of them.
    pub(super) fn populate(&mut self) {
        for user in 0..USERS.len() - 1 {
            let call = Call::UserAdd(self.user_add(user, Some(PASSWORDS[0])));
            self.queue.push_back(Generator::by(Caller::Nobody, call));
        }
        for role in ROLES {
            let name = (*role).to_owned();
            self.queue.push_back(Generator::by(Caller::Nobody, Call::RoleAdd(AuthRoleAddRequest { name })));
        }
        for (user, role) in [("alice", "reader"), ("alice", "writer"), ("bob", "both"), ("carol", "reader")] {
            let (user, role) = (user.to_owned(), role.to_owned());
            let call = Call::UserGrantRole(AuthUserGrantRoleRequest { user, role });
            self.queue.push_back(Generator::by(Caller::Nobody, call));
        }
        for _ in 0..8 {
            let call = Call::RoleGrant(self.grant());
            self.queue.push_back(Generator::by(Caller::Nobody, call));
        }
        if self.chance(50) {
            self.enable();
        }
    }

    /// After auth was turned on: everybody logs in.
    pub(super) fn log_everyone_in(&mut self) {
        for (name, password) in USERS.iter().zip(self.model.passwords.clone()) {
            let name = (*name).to_owned();
            let call = Call::Authenticate(AuthenticateRequest { name, password });
            self.queue.push_back(Generator::by(Caller::Nobody, call));
        }
    }

    pub(super) fn auth_step(&mut self) -> Step {
        let switch = if self.model.auth_on { 1 } else { 2 };
        if self.rng.random_ratio(switch, 120) {
            match self.model.auth_on {
                true => self.disable(),
                false => self.enable(),
            }
            return self.next();
        }
        let caller = match self.chance(70) {
            true => self.superuser(),
            false => self.caller(),
        };
        let call = self.auth_call();
        Generator::by(caller, call)
    }

    fn auth_call(&mut self) -> Call {
        // Root stays: without it a segment would be over.
        let user = self.rng.random_range(1..USERS.len());
        let name = match self.chance(6) {
            true => self.pick(&["", "nobody", "root", "r\u{0}\u{1}"]).to_owned(),
            false => USERS[user].to_owned(),
        };
        let role = match self.chance(6) {
            true => self.pick(&["", "norole", "root"]).to_owned(),
            false => self.pick(&ROLES[..3]).to_owned(),
        };
        match self.rng.random_range(0..100) {
            0..8 => Call::UserAdd(self.user_add(user, None)),
            8..16 => Call::UserGet(AuthUserGetRequest { name }),
            16..20 => Call::UserList(AuthUserListRequest {}),
            20..23 => Call::UserDelete(AuthUserDeleteRequest { name: self.not_root_while_on(name) }),
            23..27 => self.change_password(user),
            27..37 => Call::UserGrantRole(AuthUserGrantRoleRequest { user: name, role }),
            37..42 => {
                Call::UserRevokeRole(AuthUserRevokeRoleRequest { name: self.not_root_while_on(name), role })
            }
            42..47 => Call::RoleAdd(AuthRoleAddRequest { name: role }),
            47..53 => Call::RoleGet(AuthRoleGetRequest { role }),
            53..56 => Call::RoleList(AuthRoleListRequest {}),
            56..58 => Call::RoleDelete(AuthRoleDeleteRequest { role }),
            58..74 => Call::RoleGrant(self.grant()),
            74..80 => self.revoke(role),
            80..84 => Call::AuthStatus(AuthStatusRequest {}),
            84..85 if !self.model.auth_on => Call::AuthDisable(AuthDisableRequest {}),
            85..86 if self.model.auth_on => Call::AuthEnable(AuthEnableRequest {}),
            _ => self.login(user),
        }
    }

    /// With auth on etcd protects root itself, in ways that steps elsewhere try; here it must not
    /// vanish between two draws.
    fn not_root_while_on(&self, name: String) -> String {
        if self.model.auth_on || name != "root" { name } else { "nobody".to_owned() }
    }

    fn user_add(&mut self, user: usize, password: Option<&str>) -> AuthUserAddRequest {
        let name = if password.is_none() && self.chance(4) { String::new() } else { USERS[user].to_owned() };
        let mut request = AuthUserAddRequest { name, ..Default::default() };
        let drawn = self.pick(PASSWORDS);
        password.unwrap_or(drawn).clone_into(&mut request.password);
        if password.is_some() {
            return request;
        }
        match self.rng.random_range(0..100) {
            0..6 => request.options = Some(UserAddOptions { no_password: true }),
            6..10 => request.options = Some(UserAddOptions { no_password: false }),
            // Beside a password: without one etcd sets the empty password, see `hashed-password`.
            10..14 => DIGEST.clone_into(&mut request.hashed_password),
            14..16 => "no base64!".clone_into(&mut request.hashed_password),
            16..18 => request.password.clear(),
            18..20 => request.password = "x".repeat(73),
            20..22 => request.password = "x".repeat(72),
            _ => {}
        }
        request
    }

    fn change_password(&mut self, user: usize) -> Call {
        let (name, password) = (USERS[user].to_owned(), self.pick(PASSWORDS).to_owned());
        Call::UserChangePassword(AuthUserChangePasswordRequest { name, password, ..Default::default() })
    }

    fn login(&mut self, user: usize) -> Call {
        let right = self.model.passwords[user].clone();
        let (name, password) = match self.rng.random_range(0..20) {
            0 => ("nobody".to_owned(), right),
            1 => (String::new(), right),
            2 => (USERS[user].to_owned(), String::new()),
            3 | 4 => (USERS[user].to_owned(), "wrong".to_owned()),
            5 => (USERS[user].to_owned(), "x".repeat(100)),
            _ => (USERS[user].to_owned(), right),
        };
        Call::Authenticate(AuthenticateRequest { name, password })
    }

    fn grant(&mut self) -> AuthRoleGrantPermissionRequest {
        let name = match self.chance(6) {
            true => self.pick(&["", "norole", "root"]),
            false => self.pick(&ROLES[..3]),
        };
        let key = self.key();
        let range_end = grant_end(&key);
        let perm = Permission { perm_type: self.rng.random_range(0..3), key, range_end };
        let perm = if self.chance(2) { None } else { Some(perm) };
        AuthRoleGrantPermissionRequest { name: name.to_owned(), perm }
    }

    fn revoke(&mut self, role: String) -> Call {
        let key = self.key();
        let range_end = grant_end(&key);
        Call::RoleRevoke(AuthRoleRevokePermissionRequest { role, key, range_end })
    }

    /// Makes root whole again and turns auth on. Watch streams start anew, since who opened them
    /// means something else from now on.
    pub(in super::super) fn enable(&mut self) {
        let (root, nobody) = ("root".to_owned(), Caller::Nobody);
        let password = PASSWORDS[0].to_owned();
        let change = AuthUserChangePasswordRequest { name: root.clone(), password, ..Default::default() };
        let steps = [
            Step::Barrier,
            Step::CloseStreams,
            Generator::by(nobody, Call::AuthEnable(AuthEnableRequest {})),
            Generator::by(nobody, Call::UserAdd(self.user_add(0, Some(PASSWORDS[0])))),
            Generator::by(nobody, Call::UserChangePassword(change)),
            Generator::by(nobody, Call::AuthEnable(AuthEnableRequest {})),
            Generator::by(nobody, Call::RoleAdd(AuthRoleAddRequest { name: root.clone() })),
            Generator::by(
                nobody,
                Call::UserGrantRole(AuthUserGrantRoleRequest { user: root.clone(), role: root }),
            ),
            Generator::by(nobody, Call::AuthEnable(AuthEnableRequest {})),
        ];
        self.queue.extend(steps);
    }

    fn disable(&mut self) {
        let caller = self.superuser();
        self.queue.push_back(Step::Barrier);
        self.queue.push_back(Step::CloseStreams);
        self.queue.push_back(Generator::by(Caller::User(1), Call::AuthDisable(AuthDisableRequest {})));
        self.queue.push_back(Generator::by(caller, Call::AuthDisable(AuthDisableRequest {})));
    }
}

/// One range for each key that it starts at. etcd finds a permission by its key alone, so where a
/// role has two that start there it updates neither and adds a third: see `permission-rows` in
/// docs/differences.md.
fn grant_end(key: &Bytes) -> Bytes {
    match key.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 4 {
        0 => Bytes::new(),
        1 => after_prefix(key),
        2 => Bytes::from_static(b"\0"),
        _ => [key, &b"\xff"[..]].concat().into(),
    }
}
