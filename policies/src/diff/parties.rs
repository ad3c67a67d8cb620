//! Who is named in either bundle, and which rows are theirs, tenant by tenant.
//!
//! Rows are told apart by what they say, not by where they stand: equal rows of both bundles are one
//! [`Saying`], so that members whose rows only moved have not changed.

use crate::bundle::{Bundle, Conditions, Effect, Row, RowAction, Subject, Tenant};
use ahash::{AHashMap, AHashSet};
use keygate_core::KeyRange;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a row says, without to whom and where.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Saying<'a> {
    pub(super) action: RowAction,
    pub(super) effect: Effect,
    pub(super) conditions: &'a Conditions,
    pub(super) keys: &'a KeyRange,
}

/// A member, with the numbers of what is said about it, ascending.
#[derive(Clone, Debug)]
pub(super) struct Party {
    pub(super) name: String,
    pub(super) is_user: bool,
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
    /// Named only now, by a row or by a link, be it to a role of which nothing is said here.
    pub(super) is_new: bool,
}

impl Party {
    pub(super) fn is_changed(&self) -> bool {
        self.is_new || self.before != self.after
    }
}

/// Both bundles.
pub(super) struct Parties<'a> {
    sayings: Vec<Saying<'a>>,
    old: Side<'a>,
    new: Side<'a>,
    tenants: BTreeSet<&'a str>,
}

/// One tenant of both bundles.
pub(super) struct Within<'a> {
    pub(super) sayings: &'a [Saying<'a>],
    /// Whoever has logged in.
    pub(super) everybody: Party,
    pub(super) members: Vec<Party>,
}

impl Within<'_> {
    pub(super) fn is_changed(&self) -> bool {
        self.everybody.is_changed() || self.members.iter().any(Party::is_changed)
    }
}

#[derive(Default)]
struct Side<'a> {
    said: AHashMap<&'a Tenant, AHashMap<&'a Subject, Vec<u32>>>,
    held: AHashMap<&'a Tenant, AHashMap<&'a Subject, Vec<&'a Arc<str>>>>,
}

impl<'a> Parties<'a> {
    pub(super) fn new(old: &'a Bundle, new: &'a Bundle) -> Self {
        let mut numbers: AHashMap<Saying<'a>, u32> = AHashMap::new();
        let mut sayings = Vec::new();
        let mut number = |row: &'a Row| {
            let saying = Saying {
                action: row.action,
                effect: row.effect,
                conditions: &row.conditions,
                keys: &row.keys,
            };
            *numbers.entry(saying).or_insert_with(|| {
                sayings.push(saying);
                u32::try_from(sayings.len() - 1).unwrap_or(u32::MAX)
            })
        };
        let (old_side, new_side) = (Side::new(old, &mut number), Side::new(new, &mut number));
        let mut tenants = BTreeSet::new();
        for bundle in [old, new] {
            let named = bundle
                .rows()
                .iter()
                .map(|row| &row.tenant)
                .chain(bundle.links().iter().map(|link| &link.tenant));
            tenants.extend(named.filter_map(|tenant| match tenant {
                Tenant::Named(name) => Some(name.as_ref()),
                Tenant::Every => None,
            }));
        }
        Self { sayings, old: old_side, new: new_side, tenants }
    }

    /// Every tenant that is named, and `None` for all others.
    pub(super) fn tenants(&self) -> impl Iterator<Item = Option<&'a str>> {
        self.tenants.iter().copied().map(Some).chain([None])
    }

    pub(super) fn in_tenant(&self, tenant: Option<&str>) -> Within<'_> {
        let own = tenant.map(|name| Tenant::Named(name.into()));
        let layers: Vec<&Tenant> = own.iter().chain([&Tenant::Every]).collect();
        let mut members: BTreeSet<&Subject> = BTreeSet::new();
        for side in [&self.old, &self.new] {
            for layer in &layers {
                members.extend(side.said.get(layer).into_iter().flat_map(|said| said.keys().copied()));
                members.extend(side.held.get(layer).into_iter().flat_map(|held| held.keys().copied()));
            }
        }
        let party = |subject: &Subject| Party {
            name: subject.to_string(),
            is_user: matches!(subject, Subject::User(_)),
            before: self.old.about(&layers, subject),
            after: self.new.about(&layers, subject),
            is_new: self.new.names(&layers, subject) && !self.old.names(&layers, subject),
        };
        let is_member = |subject: &&&Subject| matches!(subject, Subject::User(_) | Subject::Group(_));
        Within {
            sayings: &self.sayings,
            everybody: party(&Subject::Everybody),
            members: members.iter().filter(is_member).map(|subject| party(subject)).collect(),
        }
    }
}

impl<'a> Side<'a> {
    fn new(bundle: &'a Bundle, number: &mut impl FnMut(&'a Row) -> u32) -> Self {
        let mut side = Self::default();
        for row in bundle.rows() {
            side.said.entry(&row.tenant).or_default().entry(&row.subject).or_default().push(number(row));
        }
        for link in bundle.links() {
            side.held.entry(&link.tenant).or_default().entry(&link.member).or_default().push(&link.role);
        }
        side
    }

    fn names(&self, layers: &[&Tenant], subject: &Subject) -> bool {
        layers.iter().any(|layer| {
            self.said.get(*layer).is_some_and(|said| said.contains_key(subject))
                || self.held.get(*layer).is_some_and(|held| held.contains_key(subject))
        })
    }

    /// Everything that is said about a subject, through the roles that it holds too.
    fn about(&self, layers: &[&Tenant], subject: &Subject) -> Vec<u32> {
        let mut numbers: Vec<u32> = Vec::new();
        let mut seen: AHashSet<&str> = AHashSet::new();
        let mut waiting = vec![subject.clone()];
        while let Some(subject) = waiting.pop() {
            for layer in layers {
                let said = self.said.get(*layer).and_then(|said| said.get(&subject));
                numbers.extend(said.into_iter().flatten());
                let held = self.held.get(*layer).and_then(|held| held.get(&subject));
                let new = held.into_iter().flatten().filter(|role| seen.insert(role));
                waiting.extend(new.map(|role| Subject::Role((*role).clone())));
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}
