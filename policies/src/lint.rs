//! What looks wrong in a bundle although it can be used. `Rule` names each thing that is looked for.
//!
//! A row is shown its rules by itself ([`row`]), beside the other rows of its subject ([`shadow`]), and
//! within the graph of roles ([`holders`]).

mod holders;
mod row;
mod shadow;

use crate::bundle::{Draft, Finding, Instant, Severity};
use std::collections::HashMap;

pub(crate) const POLICY: &str = "policy.csv";
pub(crate) const ROLES: &str = "roles.csv";

/// Every finding about the draft: its errors, and warnings but those that a comment above a row allows.
/// Without a time nothing has expired.
pub fn lint(draft: &Draft, now: Option<Instant>) -> Vec<Finding> {
    let mut warnings = Vec::new();
    row::check(draft, now, &mut warnings);
    shadow::check(&draft.rows, &mut warnings);
    holders::check(draft, &mut warnings);
    let rows = draft.rows.iter().map(|row| ((POLICY, row.line), &row.lint_allowed));
    let links = draft.links.iter().map(|link| ((ROLES, link.line), &link.lint_allowed));
    let allowed: HashMap<_, _> = rows.chain(links).filter(|(_, allowed)| !allowed.is_empty()).collect();
    warnings.retain(|found| {
        debug_assert_eq!(found.severity(), Severity::Warning);
        let names = allowed.get(&(found.file.as_str(), found.line));
        !names.is_some_and(|names| names.iter().any(|name| name.as_ref() == found.rule.name()))
    });
    let mut findings = draft.findings.clone();
    findings.append(&mut warnings);
    findings.sort();
    findings
}
