//! Who may do something, and under which circumstances.

use crate::bundle::{Conditions, Request, Subject, Tenant};
use crate::circumstances::{boxes, joined};
use crate::decision::{Asker, BundlePolicy, Outcome};
use crate::segments::{End, RowId};
use std::collections::BTreeSet;

/// Stands for a user whom no row names: no name in a bundle is empty.
const NOBODY: &str = "";

/// Somebody who may.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    pub who: Subject,
    /// Under any of these; unconditional ones mean always.
    pub when: Vec<Conditions>,
    /// The same for a read whose answer leaves out keys.
    pub partly: Vec<Conditions>,
    /// Rows that make it so: allow rows, and for a part those that hide the rest.
    pub rows: Vec<RowId>,
}

/// Everybody, users and groups of a tenant who may do the request, each by itself: the whole, or a read of a part.
pub fn who_can(policy: &BundlePolicy, tenant: &str, request: &Request) -> Vec<Holder> {
    let bundle = policy.bundle();
    let applies = |named: &Tenant| match named {
        Tenant::Every => true,
        Tenant::Named(name) => name.as_ref() == tenant,
    };
    let rows = bundle.rows().iter().filter(|row| applies(&row.tenant)).map(|row| &row.subject);
    let links = bundle.links().iter().filter(|link| applies(&link.tenant)).map(|link| &link.member);
    let is_asker = |subject: &&Subject| !matches!(subject, Subject::Role(_));
    let everybody = [Subject::Everybody];
    let subjects: BTreeSet<&Subject> = rows.chain(links).filter(is_asker).chain(&everybody).collect();
    let (start, end) = (request.keys.start(), End::of(&request.keys));
    let touching = bundle.rows().iter().filter(|row| {
        applies(&row.tenant)
            && row.action.includes(request.action)
            && End::of(&row.keys).is_behind(start)
            && end.is_behind(row.keys.start())
    });
    let conditions: BTreeSet<&Conditions> = touching.map(|row| row.conditions.as_ref()).collect();
    let circumstances = boxes(conditions.iter().copied());
    let mut holders = Vec::new();
    for subject in subjects {
        let (user, group): (&str, Option<&str>) = match subject {
            Subject::User(name) => (name, None),
            Subject::Group(name) => (NOBODY, Some(name)),
            Subject::Everybody | Subject::Role(_) => (NOBODY, None),
        };
        let groups: Vec<&str> = group.into_iter().collect();
        let asker = Asker { tenant, user, groups: &groups };
        let mut found: BTreeSet<RowId> = BTreeSet::new();
        let (mut when, mut partly) = (Vec::new(), Vec::new());
        for circumstance in &circumstances {
            let decided = policy.decide(&asker, &circumstance.example, request.action, &request.keys);
            let circumstances = match decided.outcome {
                Outcome::Allow => &mut when,
                Outcome::Filter => &mut partly,
                Outcome::Deny => continue,
            };
            circumstances.push(circumstance.within.clone());
            found.extend(decided.row);
        }
        if !when.is_empty() || !partly.is_empty() {
            holders.push(Holder {
                who: subject.clone(),
                when: joined(when),
                partly: joined(partly),
                rows: found.into_iter().collect(),
            });
        }
    }
    holders
}
