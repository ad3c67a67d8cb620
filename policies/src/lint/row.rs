//! Rules about one row.

use super::{POLICY, ROLES};
use crate::bundle::is_prefix;
use crate::bundle::{
    Action, Draft, Effect, Finding, Instant, RangeText, Row, RowAction, Rule, Subject, Tenant, Verb, escape,
};
use crate::explain::is_over;
use crate::segments::{End, RowId, Segments};
use keygate_core::{DEFAULT_TENANT, KeyRange, ROOT, TenantName};

pub(super) fn check(draft: &Draft, now: Option<Instant>, findings: &mut Vec<Finding>) {
    let tenants = keys_of_tenants(&draft.rows);
    for row in &draft.rows {
        let mut report = |rule, column, message: String| {
            findings.push(Finding::new(rule, POLICY, row.line, message).column(column));
        };
        keys(row, &mut report);
        subject(row, &mut report);
        verb(row, &mut report);
        tenant(row, &tenants, draft, &mut report);
        if let Some(now) = now
            && is_over(&row.conditions, now)
        {
            let message = format!("the row ended at {} and does nothing any more", row.conditions.until);
            report(Rule::RowExpired, "CONDITIONS", message);
        }
    }
    for link in &draft.links {
        let mut report = |rule, message: String, accepted: &str| {
            let found = Finding::new(rule, ROLES, link.line, message).column("TENANT");
            findings.push(found.accepted(accepted));
        };
        if link.tenant == Tenant::Every {
            let message = "the role is given in every tenant".to_owned();
            report(Rule::TenantWildcard, message, "a tenant's name; `*` is for the platform's own roles");
        }
        if let Some(message) = impossible(&link.tenant) {
            report(Rule::TenantImpossible, message, TENANT_NAMES);
        }
    }
}

const TENANT_NAMES: &str = "at most 63 of `a`-`z`, `0`-`9` and, within, `-`";

/// The names that bundles may use are more than tenants can have: an older bundle must stay readable.
fn impossible(tenant: &Tenant) -> Option<String> {
    match tenant {
        Tenant::Named(name) if name.as_ref() != DEFAULT_TENANT && TenantName::parse(name).is_none() => {
            Some(format!("there can be no tenant `{name}`: a name has {TENANT_NAMES}"))
        }
        Tenant::Named(_) | Tenant::Every => None,
    }
}

fn verb(row: &Row, report: &mut dyn FnMut(Rule, &'static str, String)) {
    let (RowAction::Verb(verb), Tenant::Named(tenant)) = (row.action, &row.tenant) else { return };
    if Action::Verb(verb).is_idle_in(tenant) {
        let message = format!(
            "the row does nothing: `{}` is the platform's, and only users of `{DEFAULT_TENANT}` can have it",
            verb.name()
        );
        report(Rule::VerbOfPlatform, "ACTION", message);
    }
}

fn keys(row: &Row, report: &mut dyn FnMut(Rule, &'static str, String)) {
    if matches!(row.action, RowAction::Verb(_)) {
        return;
    }
    let (text, start) = (RangeText(&row.keys), row.keys.start());
    match &row.keys {
        KeyRange::Single(key) if key.is_empty() || key.ends_with(b"/") => {
            let shown = escape(key);
            let message = format!(
                "`{text}` is one key of this name and nothing below it: for everything below write `{shown}*`"
            );
            report(Rule::DirectoryAsKey, "PATTERN", message);
        }
        KeyRange::Span { .. } if is_prefix(&row.keys) && ends_in_a_name(start) => {
            let shown = escape(start);
            let message = format!(
                "`{text}` holds `{shown}2` too, and every other name that begins so: write `{shown}/*` for what is below"
            );
            report(Rule::PrefixWithoutSeparator, "PATTERN", message);
        }
        _ => {}
    }
    if let Some(sign) = regex_sign(start) {
        let message =
            format!("`{text}` has `{sign}`, which stands for itself: patterns are no regular expressions");
        report(Rule::RegexMetacharacters, "PATTERN", message);
    }
}

/// Could another letter follow and make another name?
fn ends_in_a_name(text: &[u8]) -> bool {
    text.last().is_some_and(|last| last.is_ascii_alphanumeric() || !last.is_ascii())
}

/// What looks like a regular expression, or a path pattern with names in it.
fn regex_sign(key: &[u8]) -> Option<&'static str> {
    let has = |sign: &[u8]| key.windows(sign.len()).any(|window| window == sign);
    let pair = |open: u8, close: u8| {
        key.iter().position(|byte| *byte == open).is_some_and(|at| key[at..].contains(&close))
    };
    match key {
        [b'^', ..] => Some("^"),
        [.., b'$'] => Some("$"),
        _ if has(b".*") => Some(".*"),
        _ if has(b".+") => Some(".+"),
        _ if has(b"\\d") || has(b"\\w") || has(b"\\.") => Some("\\"),
        _ if has(b"/:") => Some("/:"),
        _ if pair(b'[', b']') => Some("[]"),
        _ if pair(b'(', b')') => Some("()"),
        _ if pair(b'{', b'}') => Some("{}"),
        _ => None,
    }
}

fn subject(row: &Row, report: &mut dyn FnMut(Rule, &'static str, String)) {
    if row.effect != Effect::Allow {
        let is_root = matches!(&row.subject, Subject::User(name) if name.as_ref() == ROOT);
        if is_root && matches!(&row.tenant, Tenant::Named(name) if name.as_ref() == DEFAULT_TENANT) {
            let message = "the row does nothing: no bundle binds the platform's root".to_owned();
            report(Rule::DenyOfRoot, "SUBJECT", message);
        }
        if let Subject::Group(name) = &row.subject {
            let message = format!(
                "only certificates and tokens put somebody into `{name}`: the row does not bind its people when they log in with a password"
            );
            report(Rule::DenyOfGroup, "SUBJECT", message);
        }
        return;
    }
    if row.subject == Subject::Everybody {
        let message = "the row is for everybody who has logged in, whoever that will be".to_owned();
        report(Rule::SubjectWildcard, "SUBJECT", message);
    }
    let writes = match row.action {
        RowAction::Verb(Verb::Auth) => Some("change users, roles and what they may do"),
        RowAction::Verb(Verb::Policy) => Some("put another bundle in force"),
        RowAction::Verb(Verb::Escalate) => Some("give what it does not hold"),
        _ => None,
    };
    if let Some(writes) = writes {
        let message = format!("`{}` may {writes}", row.subject);
        report(Rule::PolicyWritable, "ACTION", message);
    }
}

fn tenant(row: &Row, tenants: &Segments, draft: &Draft, report: &mut dyn FnMut(Rule, &'static str, String)) {
    if let Some(message) = impossible(&row.tenant) {
        report(Rule::TenantImpossible, "TENANT", message);
    }
    if row.tenant != Tenant::Every {
        return;
    }
    let about_keys = !matches!(row.action, RowAction::Verb(_)) && row.effect == Effect::Allow;
    let reached = about_keys.then(|| tenants.first_in(row.keys.start(), &End::of(&row.keys))).flatten();
    match reached.and_then(|id| draft.rows.get(id as usize)) {
        Some(other) => {
            let message = format!(
                "the row is for every tenant and reaches into keys of `{}` (line {})",
                other.tenant, other.line
            );
            report(Rule::TenantOverlap, "TENANT", message);
        }
        None => {
            let message = "the row is for every tenant; `*` is for the platform's own rows".to_owned();
            report(Rule::TenantWildcard, "TENANT", message);
        }
    }
}

/// Keys that rows of named tenants allow.
fn keys_of_tenants(rows: &[Row]) -> Segments {
    let named = |row: &&Row| {
        row.tenant != Tenant::Every
            && row.effect == Effect::Allow
            && !matches!(row.action, RowAction::Verb(_))
    };
    let numbered = rows.iter().zip(0..).filter(|(row, _)| named(row));
    let mut keys: Vec<(RowId, &KeyRange)> = numbered.map(|(row, id)| (id, &row.keys)).collect();
    Segments::new(&mut keys)
}
