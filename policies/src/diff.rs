//! What a new bundle lets whom do that the old one did not, and the other way round.
//!
//! Exact, and without a solver: per tenant and action, the keys that a changed row touches are cut wherever
//! a row begins or ends, the circumstances wherever a condition changes its answer ([`crate::circumstances`]);
//! in each such cell every member has one standing ([`standing`]), before and after. A change that shows only
//! in callers who are several things at once (a user in two groups, say) is found by joining standings.
//! The result is empty exactly if no caller is decided differently anywhere.

mod cells;
mod gains;
mod newcomers;
mod parties;
mod standing;

use crate::bundle::{Action, Bundle, Conditions, RangeText};
use crate::decision::Outcome;
use crate::segments::{End, range_of};
use bytes::Bytes;
use keygate_core::{DEFAULT_TENANT, KeyRange};
use std::collections::BTreeMap;
use std::fmt;

pub use gains::gains;
pub use newcomers::{Newcomers, newcomers};

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delta {
    /// `None`: every tenant that neither bundle names.
    pub tenant: Option<String>,
    /// For each of these. Several names joined by ` with ` are one caller who is all of them; `user:*` is
    /// whoever has no rights but those for everybody.
    pub who: Vec<String>,
    pub action: Action,
    /// Everything for an administrative action.
    pub keys: KeyRange,
    /// Under any of these; unconditional ones mean always.
    pub when: Vec<Conditions>,
    /// [`Outcome::Filter`]: the keys are hidden.
    pub before: Outcome,
    pub after: Outcome,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Change {
    tenant: Option<String>,
    action: Action,
    before: Outcome,
    after: Outcome,
}

/// All differences, in an order that does not depend on that of rows.
pub fn diff(old: &Bundle, new: &Bundle) -> Vec<Delta> {
    let mut found: BTreeMap<(Change, String), Vec<Stretch>> = BTreeMap::new();
    let parties = parties::Parties::new(old, new);
    let is_named = parties.tenants().any(|tenant| tenant == Some(DEFAULT_TENANT));
    // Rows for every tenant give more in the default one than elsewhere.
    let default = (!is_named).then_some(Some(DEFAULT_TENANT));
    for tenant in parties.tenants().chain(default) {
        let within = parties.in_tenant(tenant);
        if !within.is_changed() {
            continue;
        }
        let is_told_elsewhere =
            |action: Action| !is_named && tenant == Some(DEFAULT_TENANT) && !action.is_idle_in("");
        let told =
            |action: &Action| !action.is_idle_in(tenant.unwrap_or_default()) && !is_told_elsewhere(*action);
        for action in Action::all().filter(told) {
            cells::visit(&within, action, &mut |who, start, end, circumstance, before, after| {
                let change = Change { tenant: tenant.map(str::to_owned), action, before, after };
                Stretch::add(found.entry((change, who)).or_default(), start, end, circumstance);
            });
        }
    }
    gather(found)
}

struct Stretch {
    start: Bytes,
    end: End,
    when: Vec<Conditions>,
}

impl Stretch {
    /// The circumstances of one stretch come one after the other.
    fn add(stretches: &mut Vec<Self>, start: &Bytes, end: &End, circumstance: &Conditions) {
        match stretches.last_mut().filter(|last| last.start == *start) {
            Some(last) => last.when.push(circumstance.clone()),
            None => stretches.push(Self {
                start: start.clone(),
                end: end.clone(),
                when: vec![circumstance.clone()],
            }),
        }
    }
}

/// Joins what lies beside each other, and whom the same happens to.
fn gather(found: BTreeMap<(Change, String), Vec<Stretch>>) -> Vec<Delta> {
    type Same = (Change, Bytes, Option<Bytes>, Vec<Conditions>);
    let mut same: BTreeMap<Same, Vec<String>> = BTreeMap::new();
    for ((change, who), stretches) in found {
        let mut joined: Vec<Stretch> = Vec::new();
        for mut next in stretches {
            next.when = crate::circumstances::joined(next.when);
            match joined.last_mut() {
                Some(last) if last.end == End::Before(next.start.clone()) && last.when == next.when => {
                    last.end = next.end
                }
                _ => joined.push(next),
            }
        }
        for stretch in joined {
            let end = match stretch.end {
                End::Before(end) => Some(end),
                End::Open => None,
            };
            same.entry((change.clone(), stretch.start, end, stretch.when)).or_default().push(who.clone());
        }
    }
    let deltas = same.into_iter().map(|((change, start, end, when), who)| Delta {
        tenant: change.tenant,
        who,
        action: change.action,
        keys: range_of(start, &end.map_or(End::Open, End::Before)),
        when,
        before: change.before,
        after: change.after,
    });
    deltas.collect()
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match (self.before, self.after) {
            (_, Outcome::Allow) => "gains",
            (Outcome::Allow, Outcome::Filter) => "no longer sees, but may ask around,",
            (_, Outcome::Filter) => "may ask around, without seeing,",
            (Outcome::Allow, Outcome::Deny) => "loses",
            (_, Outcome::Deny) => "may no longer ask around",
        };
        let tenant = self.tenant.as_deref().unwrap_or("every other tenant");
        write!(f, "{tenant}: {} {verb} {}", self.who.join(", "), self.action.name())?;
        if !matches!(self.action, Action::Verb(_)) {
            write!(f, " {}", RangeText(&self.keys))?;
        }
        let when: Vec<String> = self.when.iter().map(ToString::to_string).collect();
        if when.iter().any(|text| !text.is_empty()) {
            write!(f, " when {}", when.join(" or "))?;
        }
        Ok(())
    }
}
