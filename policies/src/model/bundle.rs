//! The model of policy bundles: is a text of it the supported one, and what does casbin decide by it?

use super::{ModelError, at_once, text};
use crate::bundle::{Action, Bundle, Connection, Context, Effect, OnPartial, Row, RowAction, Tenant};
use crate::rows::hex;
use casbin::rhai::Dynamic;
use casbin::{CoreApi, DefaultModel, DefaultRoleManager, Enforcer, Model as _};
use keygate_core::KeyRange;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use thiserror::Error;

/// The model that bundles carry.
pub const BUNDLE_MODEL: &str = include_str!("../../model/bundle.conf");

/// Roles below the caller and below the user or group that it is a member of.
const HIERARCHY: usize = 2 + 10;

#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BundleModelError {
    #[error("model allows whatever no row denies; it must deny what no row allows")]
    DefaultAllow,
    #[error("model's effect `{found}` is not supported: it must be `{expected}`")]
    Effect { found: String, expected: String },
    #[error(transparent)]
    Other(#[from] ModelError),
}

/// Sections that a model has, by the names of their only definitions.
const SECTIONS: [(&str, &str); 5] = [
    ("request_definition", "r"),
    ("policy_definition", "p"),
    ("role_definition", "g"),
    ("policy_effect", "e"),
    ("matchers", "m"),
];

/// Holds a text against the supported model.
///
/// casbin is handed a text only when our own reading has found it equal to a known one: its reader is
/// not made for strangers' files.
pub(crate) fn check_bundle_model(text: &str) -> Result<(), BundleModelError> {
    let (found, known) = (definitions(text)?, definitions(BUNDLE_MODEL)?);
    for (_, section) in SECTIONS {
        let found = found.get(section).ok_or(ModelError::Missing { section })?;
        let expected = known.get(section).ok_or(ModelError::Missing { section })?;
        if found == expected {
            continue;
        }
        if section != "e" {
            let expected = "what the format page shows";
            return Err(ModelError::Unsupported { section, found: found.clone(), expected }.into());
        }
        if found.starts_with('!') {
            return Err(BundleModelError::DefaultAllow);
        }
        return Err(BundleModelError::Effect { found: found.clone(), expected: expected.clone() });
    }
    match found.keys().find(|name| !known.contains_key(*name)) {
        Some(section) => Err(ModelError::Surplus { section: section.clone() }.into()),
        None => Ok(()),
    }
}

/// Name → value with blanks squeezed.
fn definitions(text: &str) -> Result<BTreeMap<String, String>, ModelError> {
    let unreadable =
        |line: &str| ModelError::Unreadable { cause: format!("`{}` is not understood", line.escape_debug()) };
    let mut found = BTreeMap::new();
    let mut section = None;
    let mut joined = String::new();
    for line in text.lines() {
        let line = line.trim();
        if joined.is_empty() && (line.is_empty() || line.starts_with(['#', ';'])) {
            continue;
        }
        if let Some(part) = line.strip_suffix('\\') {
            joined.push_str(part);
            continue;
        }
        joined.push_str(line);
        let whole = std::mem::take(&mut joined);
        if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = SECTIONS.iter().find(|(own, _)| *own == name).map(|(_, key)| *key);
            if section.is_none() {
                return Err(ModelError::Surplus { section: name.to_owned() });
            }
            continue;
        }
        let (name, value) = whole.split_once('=').ok_or_else(|| unreadable(&whole))?;
        let name = name.trim();
        if section.is_none() {
            return Err(unreadable(&whole));
        }
        if section != Some(name) || found.contains_key(name) {
            return Err(ModelError::Surplus { section: name.to_owned() });
        }
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        found.insert(name.to_owned(), value);
    }
    if joined.is_empty() { Ok(found) } else { Err(unreadable(&joined)) }
}

/// One caller whom a [`BundleOracle`] can be asked about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OracleCaller {
    pub tenant: String,
    pub user: String,
    pub groups: Vec<String>,
}

/// What casbin decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OracleAnswer {
    Allow,
    Filter,
    Deny,
}

/// Asks casbin what a decision about a bundle must be. Slow; for tests.
pub struct BundleOracle {
    /// All rows, and all without the deny rows that filter.
    strict: Enforcer,
    lenient: Enforcer,
    boundaries: BTreeSet<Vec<u8>>,
}

impl BundleOracle {
    /// `callers` are known by their position.
    ///
    /// # Errors
    /// casbin does not take the model or the rows.
    pub fn new(bundle: &Bundle, callers: &[OracleCaller]) -> Result<Self, ModelError> {
        let filters = |row: &&Row| row.effect == Effect::Deny(OnPartial::Filter);
        let lenient: Vec<&Row> = bundle.rows().iter().filter(|row| !filters(row)).collect();
        let strict: Vec<&Row> = bundle.rows().iter().collect();
        let links = links(bundle, callers);
        let mut boundaries = BTreeSet::new();
        for row in bundle.rows() {
            boundaries.extend(super::boundaries(&row.keys));
        }
        Ok(Self { strict: enforcer(&strict, &links)?, lenient: enforcer(&lenient, &links)?, boundaries })
    }

    /// # Errors
    /// casbin failed.
    pub fn ask(
        &self,
        caller: usize,
        tenant: &str,
        context: &Context,
        action: Action,
        keys: &KeyRange,
    ) -> Result<OracleAnswer, ModelError> {
        let first: &[u8] = keys.start();
        let inside = |key: &&[u8]| first < *key && keys.contains(key);
        let pieces = self.boundaries.iter().map(Vec::as_slice).filter(inside);
        let (mut allowed, mut hidden) = (0, 0);
        for key in std::iter::once(first).chain(pieces) {
            let object = if matches!(action, Action::Verb(_)) { String::new() } else { hex(key) };
            let request = vec![
                format!("caller:{caller}"),
                tenant.to_owned(),
                object,
                action.name().to_owned(),
                context_text(context),
            ];
            let failed = |cause: casbin::Error| ModelError::Rows { cause: cause.to_string() };
            if self.strict.enforce(request.clone()).map_err(failed)? {
                allowed += 1;
            } else if action == Action::Read && self.lenient.enforce(request).map_err(failed)? {
                hidden += 1;
            } else {
                return Ok(OracleAnswer::Deny);
            }
        }
        Ok(match (allowed, hidden) {
            (_, 0) => OracleAnswer::Allow,
            (0, _) => OracleAnswer::Deny,
            _ => OracleAnswer::Filter,
        })
    }
}

fn links(bundle: &Bundle, callers: &[OracleCaller]) -> Vec<[String; 3]> {
    let mut tenants: BTreeSet<&str> = callers.iter().map(|caller| caller.tenant.as_str()).collect();
    for link in bundle.links() {
        if let Tenant::Named(name) = &link.tenant {
            tenants.insert(name);
        }
    }
    let mut links = Vec::new();
    for link in bundle.links() {
        let role = format!("role:{}", link.role);
        match &link.tenant {
            Tenant::Named(name) => links.push([link.member.to_string(), role, name.to_string()]),
            Tenant::Every => {
                links.extend(
                    tenants.iter().map(|name| [link.member.to_string(), role.clone(), (*name).to_owned()]),
                );
            }
        }
    }
    for (number, caller) in callers.iter().enumerate() {
        let groups = caller.groups.iter().map(|group| format!("group:{group}"));
        let members = ["user:*".to_owned(), format!("user:{}", caller.user)].into_iter().chain(groups);
        links.extend(members.map(|member| [format!("caller:{number}"), member, caller.tenant.clone()]));
    }
    links
}

fn enforcer(rows: &[&Row], links: &[[String; 3]]) -> Result<Enforcer, ModelError> {
    let broken = |cause: casbin::Error| ModelError::Rows { cause: cause.to_string() };
    let mut model = at_once(DefaultModel::from_str(BUNDLE_MODEL)).map_err(broken)?;
    for row in rows {
        model.add_policy("p", "p", columns(row));
    }
    for link in links {
        model.add_policy("g", "g", link.to_vec());
    }
    let mut enforcer = at_once(Enforcer::new_raw(model, ())).map_err(broken)?;
    enforcer.add_function("covers", casbin::function_map::OperatorFunction::Arg2(covers));
    enforcer.add_function("includes", casbin::function_map::OperatorFunction::Arg2(super::includes_verbs));
    enforcer.add_function("holds", casbin::function_map::OperatorFunction::Arg2(holds));
    enforcer.set_role_manager(Arc::new(RwLock::new(DefaultRoleManager::new(HIERARCHY)))).map_err(broken)?;
    enforcer.build_role_links().map_err(broken)?;
    Ok(enforcer)
}

fn columns(row: &Row) -> Vec<String> {
    let keys = match (&row.action, &row.keys) {
        (RowAction::Verb(_), _) => "-".to_owned(),
        (_, KeyRange::Single(key)) => format!("={}", hex(key)),
        (_, KeyRange::Span { start, end }) => format!("{}..{}", hex(start), hex(end)),
        (_, KeyRange::From(start)) => format!("{}..", hex(start)),
    };
    let effect = if row.effect == Effect::Allow { "allow" } else { "deny" };
    vec![
        row.subject.to_string(),
        row.tenant.to_string(),
        keys,
        row.action.name().to_owned(),
        effect.to_owned(),
        row.conditions.to_string(),
    ]
}

/// The model's `covers(p.obj, r.obj)`, on texts of lowercase hex.
fn covers(pattern: Dynamic, key: Dynamic) -> Dynamic {
    let (pattern, key) = (text(&pattern), text(&key));
    match (pattern.strip_prefix('='), pattern.split_once("..")) {
        (Some(own), _) => own == key,
        (None, Some((start, end))) => start <= key.as_ref() && (end.is_empty() || key.as_ref() < end),
        (None, None) => key.is_empty(),
    }
    .into()
}

fn context_text(context: &Context) -> String {
    let source = context.source.map(|source| source.to_string()).unwrap_or_default();
    let now = context.now.map(|now| now.0.to_string()).unwrap_or_default();
    format!("{source} {now} {}", context.connection.map_or("", Connection::name))
}

/// The model's `holds(p.cond, r.ctx)`: reads both texts by itself. Circumstances are all told.
fn holds(conditions: Dynamic, context: Dynamic) -> Dynamic {
    let (conditions, context) = (text(&conditions), text(&context));
    let told: Vec<&str> = context.split(' ').collect();
    let [source, now, connection] = told.as_slice() else { return false.into() };
    let parts = conditions.split(';').filter(|part| !part.is_empty());
    let mut all = true;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let now_seconds: i64 = now.parse().unwrap_or(i64::MIN);
        let moment =
            |value: &str| value.parse::<crate::bundle::Instant>().map_or(i64::MIN, |instant| instant.0);
        all &= match name {
            "source" => value.split('|').any(|network| in_network(network, source)),
            "time" => value.split('|').any(|window| in_window(window, now_seconds)),
            "from" => moment(value) <= now_seconds,
            "until" => now_seconds < moment(value),
            "connection" => value.split('|').any(|kind| kind == *connection),
            _ => false,
        };
    }
    all.into()
}

fn in_network(network: &str, source: &str) -> bool {
    let Some((address, length)) = network.split_once('/') else { return false };
    let length: usize = length.parse().unwrap_or(usize::MAX);
    let bits = |text: &str| -> Vec<bool> {
        let octets: Vec<u8> = match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(v4)) => v4.octets().to_vec(),
            Ok(IpAddr::V6(v6)) => v6.octets().to_vec(),
            Err(_) => Vec::new(),
        };
        octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
    };
    let (network, source) = (bits(address), bits(source));
    network.len() == source.len() && length <= network.len() && network[..length] == source[..length]
}

/// `Mon@08:00-18:00`, as conditions print themselves.
fn in_window(window: &str, now: i64) -> bool {
    let days = now.div_euclid(86_400);
    let minute = now.rem_euclid(86_400) / 60;
    let today = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
        .get(usize::try_from(days.rem_euclid(7)).unwrap_or(0))
        .copied()
        .unwrap_or_default();
    let Some((day, hours)) = window.split_once('@') else { return false };
    let Some((from, to)) = hours.split_once('-') else { return false };
    let minutes = |text: &str| {
        let (hours, minutes) = text.split_once(':').unwrap_or(("", ""));
        hours.parse::<i64>().unwrap_or(-1) * 60 + minutes.parse::<i64>().unwrap_or(-1)
    };
    day == today && minutes(from) <= minute && minute < minutes(to)
}
