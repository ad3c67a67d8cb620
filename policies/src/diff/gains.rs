//! What a bundle gives that whoever applies it does not hold: nobody hands on more than they have.
//!
//! Stricter than the difference: a deny row that is lifted is a gain, whatever the bundle allows there, because the
//! tables of a keyspace may allow it; and whoever a bundle names for the first time gains what is everybody's.

use super::cells::{self, Effort, Giver};
use super::{Change, Delta, Stretch, gather, parties};
use crate::bundle::{Action, Bundle, Instant, Subject};
use crate::decision::{Asker, Outcome};
use keygate_core::{Access, DEFAULT_TENANT};
use std::collections::BTreeMap;

/// `giver` holds by `old` and, where `own` says so, by the tables of its keyspace; in another tenant than its own it
/// holds nothing. Circumstances that are over do not count. Empty: nobody gains what the giver does not hold. None: a server
/// should not take the time to find out.
pub fn gains(
    old: &Bundle,
    new: &Bundle,
    giver: &Asker<'_>,
    now: Instant,
    own: &dyn Fn(&Access) -> bool,
) -> Option<Vec<Delta>> {
    let groups = giver.groups.iter().map(|name| Subject::Group((*name).into()));
    let user = Subject::User(giver.user.into());
    let giver_is = Giver { names: groups.chain([user]).map(|subject| subject.to_string()).collect(), own };
    let mut found: BTreeMap<(Change, String), Vec<Stretch>> = BTreeMap::new();
    let mut effort = Effort::of_a_server();
    let parties = parties::Parties::new(old, new);
    let is_named = parties.tenants().any(|tenant| tenant == Some(DEFAULT_TENANT));
    // Rows for every tenant are for the default one too, where they give more than elsewhere.
    let default = (!is_named).then_some(Some(DEFAULT_TENANT));
    for tenant in parties.tenants().chain(default) {
        let within = parties.in_tenant(tenant);
        if !within.is_changed() {
            continue;
        }
        let holds = (tenant == Some(giver.tenant)).then_some(&giver_is);
        for action in Action::all() {
            if action.is_idle_in(tenant.unwrap_or_default()) {
                continue;
            }
            cells::visit_gains(
                &within,
                action,
                now,
                holds,
                &mut effort,
                &mut |who, start, end, circumstance| {
                    let tenant = tenant.map(str::to_owned);
                    let change = Change { tenant, action, before: Outcome::Deny, after: Outcome::Allow };
                    Stretch::add(found.entry((change, who)).or_default(), start, end, circumstance);
                },
            );
        }
    }
    (!effort.is_spent()).then(|| gather(found))
}
