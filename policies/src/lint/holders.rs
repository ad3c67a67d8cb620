//! Roles that nobody holds, and users who hold none.

use super::POLICY;
use crate::bundle::{Draft, Effect, Finding, Link, Rule, Subject, Tenant};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(super) fn check(draft: &Draft, findings: &mut Vec<Finding>) {
    let mut links: HashMap<&Tenant, Vec<&Link>> = HashMap::new();
    for link in &draft.links {
        links.entry(&link.tenant).or_default().push(link);
    }
    let tenants = draft.rows.iter().map(|row| &row.tenant).chain(links.keys().copied());
    let mut held: HashMap<&Tenant, HashSet<&Arc<str>>> = HashMap::new();
    for tenant in tenants {
        held.entry(tenant).or_insert_with(|| held_in(tenant, &links));
    }
    let anywhere: HashSet<&Arc<str>> = held.values().flatten().copied().collect();
    let members: HashSet<(&Subject, &Tenant)> =
        draft.links.iter().map(|link| (&link.member, &link.tenant)).collect();
    let mut told = HashSet::new();
    for row in draft.rows.iter() {
        match &row.subject {
            Subject::Role(role) => {
                let is_held = match &row.tenant {
                    Tenant::Every => anywhere.contains(role),
                    tenant => held.get(tenant).is_some_and(|roles| roles.contains(role)),
                };
                if !is_held && told.insert((&row.subject, &row.tenant)) {
                    let message = format!("nobody holds `{}` there", row.subject);
                    findings.push(
                        Finding::new(Rule::RoleWithoutUser, POLICY, row.line, message).column("SUBJECT"),
                    );
                }
            }
            Subject::User(_) if row.effect == Effect::Allow => {
                let holds = members.contains(&(&row.subject, &row.tenant))
                    || members.contains(&(&row.subject, &Tenant::Every));
                if !holds && told.insert((&row.subject, &row.tenant)) {
                    let message = format!("`{}` has rights of its own and holds no role there", row.subject);
                    findings.push(
                        Finding::new(Rule::UserWithoutRole, POLICY, row.line, message).column("SUBJECT"),
                    );
                }
            }
            Subject::User(_) | Subject::Group(_) | Subject::Everybody => {}
        }
    }
}

/// Roles that some user or group holds in a tenant, through other roles too.
fn held_in<'a>(tenant: &Tenant, links: &HashMap<&Tenant, Vec<&'a Link>>) -> HashSet<&'a Arc<str>> {
    let own = links.get(tenant).into_iter().flatten();
    let everywhere = links.get(&Tenant::Every).into_iter().flatten();
    let mut within: Vec<&Link> = own.copied().collect();
    if *tenant != Tenant::Every {
        within.extend(everywhere.copied());
    }
    let mut brings: HashMap<&str, Vec<&Arc<str>>> = HashMap::new();
    let mut held = HashSet::new();
    let mut waiting = Vec::new();
    for link in within {
        match &link.member {
            Subject::Role(member) => brings.entry(member).or_default().push(&link.role),
            _ => waiting.push(&link.role),
        }
    }
    while let Some(role) = waiting.pop() {
        if held.insert(role) {
            waiting.extend(brings.get(role.as_ref()).into_iter().flatten());
        }
    }
    held
}
