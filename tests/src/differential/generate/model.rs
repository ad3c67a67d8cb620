//! The little that the generator has to remember of the oracle's state.

use super::{
    super::call::{Answer, Call, Reply},
    auth::{PASSWORDS, USERS},
};

#[derive(Debug)]
pub(in super::super) struct Model {
    pub(in super::super) revision: i64,
    pub(in super::super) compacted: i64,
    pub(in super::super) auth_on: bool,
    /// In the oracle's ids.
    pub(in super::super) leases: Vec<i64>,
    pub(in super::super) streams: Vec<OpenStream>,
    /// By number of the user.
    pub(super) passwords: Vec<String>,
}

#[derive(Debug)]
pub(in super::super) struct OpenStream {
    pub(in super::super) number: usize,
    pub(in super::super) watchers: Vec<i64>,
}

impl Default for Model {
    fn default() -> Model {
        let passwords = vec![PASSWORDS[0].to_owned(); USERS.len()];
        Model {
            revision: 1,
            compacted: 0,
            auth_on: false,
            leases: Vec::new(),
            streams: Vec::new(),
            passwords,
        }
    }
}

impl Model {
    pub(super) fn learn(&mut self, call: &Call, answer: &Answer) {
        let Some(reply) = answer.ok() else { return };
        if let Some(header) = reply.clone().header() {
            self.revision = self.revision.max(header.revision);
        }
        match (call, reply) {
            (Call::Compact(request), _) => self.compacted = request.revision,
            (_, Reply::Grant(granted)) => self.leases.push(granted.id),
            (Call::Revoke(request), _) => self.leases.retain(|id| *id != request.id),
            (Call::AuthEnable(_), _) => self.auth_on = true,
            (Call::AuthDisable(_), _) => self.auth_on = false,
            (Call::UserAdd(request), _) => self.password(&request.name, &request.password),
            (Call::UserChangePassword(request), _) => self.password(&request.name, &request.password),
            _ => {}
        }
    }

    fn password(&mut self, name: &str, password: &str) {
        if let Some(user) = USERS.iter().position(|user| *user == name) {
            password.clone_into(&mut self.passwords[user]);
        }
    }
}
