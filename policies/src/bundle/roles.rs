//! The graph of roles: who inherits what, without cycles and not too deep.

use super::finding::{Finding, Rule};
use super::row::{Link, Row, Subject, Tenant};
use super::row_text::ROLES;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// So many roles may follow each other from the one that is held to the last that it brings.
pub(crate) const DEPTH_LIMIT: usize = 10;

/// Reports cycles, chains that are too long, and roles that are held but for which no row is.
pub(crate) fn check(rows: &[Row], links: &[Link], findings: &mut Vec<Finding>) {
    let mut inherits: BTreeMap<Option<&str>, Vec<&Link>> = BTreeMap::new();
    for link in links.iter().filter(|link| matches!(link.member, Subject::Role(_))) {
        inherits.entry(name(&link.tenant)).or_default().push(link);
    }
    let everywhere = inherits.remove(&None).unwrap_or_default();
    let mut reported = HashSet::new();
    for own in inherits.values().chain([&Vec::new()]) {
        check_tenant(own.iter().chain(&everywhere), &mut reported, findings);
    }
    unknown(rows, links, findings);
}

fn name(tenant: &Tenant) -> Option<&str> {
    match tenant {
        Tenant::Every => None,
        Tenant::Named(name) => Some(name),
    }
}

/// A tenant's own links and those of every tenant are one graph.
fn check_tenant<'a>(
    links: impl Iterator<Item = &'a &'a Link>,
    reported: &mut HashSet<(Rule, u32)>,
    findings: &mut Vec<Finding>,
) {
    let mut edges: BTreeMap<&str, Vec<(&str, u32)>> = BTreeMap::new();
    for link in links {
        if let Subject::Role(member) = &link.member {
            edges.entry(member).or_default().push((&link.role, link.line));
        }
    }
    // How many roles follow each other from a role on; 0 while it is being looked at.
    let mut depth: HashMap<&str, usize> = HashMap::new();
    for start in edges.keys().copied() {
        if depth.contains_key(start) {
            continue;
        }
        // An explicit stack: a chain may be as long as the file.
        let mut stack: Vec<(&str, usize, usize)> = vec![(start, 0, 1)];
        depth.insert(start, 0);
        while let Some((role, next, longest)) = stack.pop() {
            let Some((child, line)) = edges.get(role).and_then(|targets| targets.get(next)).copied() else {
                depth.insert(role, longest);
                if let Some((parent, at, seen)) = stack.last_mut() {
                    let line =
                        edges.get(*parent).and_then(|targets| targets.get(*at - 1)).map_or(0, |edge| edge.1);
                    // Reported where the chain first gets too long, not for everything above.
                    if longest == DEPTH_LIMIT && reported.insert((Rule::RoleDepth, line)) {
                        let message =
                            format!("chain of roles from `role:{parent}` is longer than {DEPTH_LIMIT}");
                        findings.push(Finding::new(Rule::RoleDepth, ROLES, line, message).column("ROLE"));
                    }
                    *seen = (*seen).max(longest + 1);
                }
                continue;
            };
            stack.push((role, next + 1, longest));
            match depth.get(child) {
                Some(0) => {
                    if reported.insert((Rule::RoleCycle, line)) {
                        let message = format!("`role:{role}` and `role:{child}` hold each other in a circle");
                        findings.push(Finding::new(Rule::RoleCycle, ROLES, line, message).column("ROLE"));
                    }
                }
                Some(below) => {
                    let below = *below;
                    if below == DEPTH_LIMIT && reported.insert((Rule::RoleDepth, line)) {
                        let message =
                            format!("chain of roles from `role:{role}` is longer than {DEPTH_LIMIT}");
                        findings.push(Finding::new(Rule::RoleDepth, ROLES, line, message).column("ROLE"));
                    }
                    if let Some((_, _, seen)) = stack.last_mut() {
                        *seen = (*seen).max(below + 1);
                    }
                }
                None => {
                    depth.insert(child, 0);
                    stack.push((child, 0, 1));
                }
            }
        }
    }
}

/// A role exists where it has a row or holds another role.
fn unknown(rows: &[Row], links: &[Link], findings: &mut Vec<Finding>) {
    let mut known: HashSet<(&Arc<str>, Option<&str>)> = HashSet::new();
    let mut anywhere: HashSet<&Arc<str>> = HashSet::new();
    let roles = rows.iter().map(|row| (&row.subject, &row.tenant));
    for (subject, tenant) in roles.chain(links.iter().map(|link| (&link.member, &link.tenant))) {
        if let Subject::Role(role) = subject {
            known.insert((role, name(tenant)));
            anywhere.insert(role);
        }
    }
    for link in links {
        let tenant = name(&link.tenant);
        let there = known.contains(&(&link.role, None))
            || known.contains(&(&link.role, tenant))
            || (tenant.is_none() && anywhere.contains(&link.role));
        if !there {
            let elsewhere = if anywhere.contains(&link.role) { " in this tenant" } else { "" };
            let message = format!("`role:{}` has no row{elsewhere}", link.role);
            let found = Finding::new(Rule::RoleUnknown, ROLES, link.line, message).column("ROLE");
            findings
                .push(found.accepted("a role that is the SUBJECT of a `p` row, or the MEMBER of a `g` row"));
        }
    }
}
