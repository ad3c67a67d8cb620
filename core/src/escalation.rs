//! Nobody gives what they do not hold: which rights a change of users and roles would hand on.
//!
//! Whoever may change users and roles could otherwise give themselves everything, by a role, by the password of
//! another user or by adding a user whom a bundle names. What is asked here comes on top of the right to change
//! them at all; `root` and whoever has the verb `escalate` are asked nothing more.
//!
//! Taking away is free, but for what is `root`'s: tables have no deny rows, and a bundle's rows bind users, groups
//! and its own roles, none of which a change of tables can take from a user. So nothing that is revoked can lift one.

use crate::access::{Access, AdminVerb};
use crate::auth::{Permission, ROOT};

/// What a change of users and roles lets somebody do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Grant {
    /// These keys, whatever the circumstances.
    Keys(Permission),
    /// What the role gives.
    Role(String),
    /// What somebody may do who logs in as this user, through rows that name it too.
    User(String),
    /// Nothing, unless the user holds the role `root`, which `root` alone gives and takes.
    RootOf(String),
}

/// Whose rights the tables are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RightsOf<'a> {
    User(&'a str),
    Role(&'a str),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// The permissions that were told.
    Listed,
    /// That of the role `root`.
    Everything,
}

/// What a change of users and roles needs, that is about those named in `touched` and lets somebody do `grant`.
pub(crate) fn change(touched: &[&str], grant: Option<Grant>, visit: &mut dyn FnMut(Access)) {
    visit(Access::Admin(AdminVerb::AuthChange));
    if touched.contains(&ROOT) {
        visit(Access::Admin(AdminVerb::Escalate));
    }
    if let Some(grant) = grant {
        visit(Access::Grant(grant));
    }
}

/// Without auth nobody is asked for anything.
pub(crate) fn switching_off(visit: &mut dyn FnMut(Access)) {
    change(&[ROOT], None, visit);
}
