//! Users whom a bundle gives something for the first time.
//!
//! Who may add users could have taken such a name beforehand, when it gave nothing yet: whoever applies the bundle should look.

use super::parties::Parties;
use crate::bundle::{Bundle, Effect};
use std::collections::BTreeMap;

/// Users to whom the new bundle allows something and the old one nothing, ascending.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Newcomers {
    /// In each tenant that either bundle names, also if there are none.
    pub named: BTreeMap<String, Vec<String>>,
    /// In every other tenant.
    pub elsewhere: Vec<String>,
}

impl Newcomers {
    pub fn is_empty(&self) -> bool {
        self.elsewhere.is_empty() && self.named.values().all(Vec::is_empty)
    }
}

/// What everybody may do counts for nobody: it was theirs before.
pub fn newcomers(old: &Bundle, new: &Bundle) -> Newcomers {
    let mut found = Newcomers::default();
    let parties = Parties::new(old, new);
    for tenant in parties.tenants() {
        let within = parties.in_tenant(tenant);
        let allows = |numbers: &[u32]| {
            let sayings = numbers.iter().filter_map(|number| within.sayings.get(*number as usize));
            sayings.into_iter().any(|saying| saying.effect == Effect::Allow)
        };
        let users = within.members.iter().filter(|party| !allows(&party.before) && allows(&party.after));
        let users = users.filter(|party| party.is_user).filter_map(|party| party.name.strip_prefix("user:"));
        let users: Vec<String> = users.map(str::to_owned).collect();
        match tenant {
            Some(tenant) => drop(found.named.insert(tenant.to_owned(), users)),
            None => found.elsewhere = users,
        }
    }
    found
}
