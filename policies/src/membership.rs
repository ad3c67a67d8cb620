//! Whose rows apply to a caller: the closure of "holds the role", per tenant, made once.

use crate::bundle::{Link, Subject, Tenant};
use crate::decision::Asker;
use ahash::{AHashMap, AHashSet};
use smallvec::SmallVec;
use std::sync::Arc;

/// Numbers of the sets of rows that apply. A number may come twice.
pub(crate) struct Applying<'a>(SmallVec<[Part<'a>; 8]>);

enum Part<'a> {
    Many(&'a [u32]),
    One(u32),
}

impl Applying<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|part| match part {
            Part::Many(many) => many.iter().copied(),
            Part::One(one) => std::slice::from_ref(one).iter().copied(),
        })
    }
}

type Numbers = Box<[u32]>;

#[derive(Default)]
struct Table {
    users: AHashMap<Arc<str>, Numbers>,
    groups: AHashMap<Arc<str>, Numbers>,
    /// Everything that a role brings, itself and every tenant's rows included.
    roles: AHashMap<Arc<str>, Numbers>,
    everybody: Option<u32>,
}

/// A member who is named for every tenant, with what it holds directly.
struct Everywhere {
    own: Option<u32>,
    roles: Vec<Arc<str>>,
}

/// Who holds what.
pub(crate) struct Membership {
    tenants: AHashMap<Arc<str>, Table>,
    /// For tenants that no row and no link names.
    others: Table,
    users: AHashMap<Arc<str>, Everywhere>,
    groups: AHashMap<Arc<str>, Everywhere>,
}

type Numbered<'a> = AHashMap<(&'a Subject, &'a Tenant), u32>;

/// The links of one tenant, or of every tenant, by member.
type Held<'a> = AHashMap<&'a Subject, Vec<&'a Arc<str>>>;

impl Membership {
    pub(crate) fn new(numbered: &Numbered<'_>, links: &[Link]) -> Self {
        let mut held: AHashMap<&Tenant, Held<'_>> = AHashMap::new();
        for link in links {
            held.entry(&link.tenant).or_default().entry(&link.member).or_default().push(&link.role);
        }
        let mut owned: AHashMap<&Tenant, AHashMap<&Subject, u32>> = AHashMap::new();
        for ((subject, tenant), number) in numbered {
            owned.entry(tenant).or_default().insert(subject, *number);
        }
        let nothing = (Held::default(), AHashMap::default());
        let everywhere = Layer {
            held: held.get(&Tenant::Every).unwrap_or(&nothing.0),
            owned: owned.get(&Tenant::Every).unwrap_or(&nothing.1),
        };
        let mut tenants = AHashMap::new();
        for tenant in held.keys().chain(owned.keys()) {
            let Tenant::Named(name) = tenant else { continue };
            if tenants.contains_key(name) {
                continue;
            }
            let own = Layer {
                held: held.get(tenant).unwrap_or(&nothing.0),
                owned: owned.get(tenant).unwrap_or(&nothing.1),
            };
            tenants.insert(name.clone(), Table::new(&[own, everywhere]));
        }
        let (mut users, mut groups) = (AHashMap::new(), AHashMap::new());
        for member in everywhere.members() {
            let entry = || Everywhere {
                own: everywhere.owned.get(member).copied(),
                roles: everywhere
                    .held
                    .get(member)
                    .into_iter()
                    .flatten()
                    .map(|role| (*role).clone())
                    .collect(),
            };
            match member {
                Subject::User(name) => drop(users.insert(name.clone(), entry())),
                Subject::Group(name) => drop(groups.insert(name.clone(), entry())),
                Subject::Role(_) | Subject::Everybody => {}
            }
        }
        Self { tenants, others: Table::new(&[everywhere]), users, groups }
    }

    pub(crate) fn applying(&self, asker: &Asker<'_>) -> Applying<'_> {
        let table = self.tenants.get(asker.tenant).unwrap_or(&self.others);
        let mut parts = SmallVec::new();
        parts.extend(table.everybody.map(Part::One));
        self.add(table, table.users.get(asker.user), self.users.get(asker.user), &mut parts);
        for group in asker.groups {
            self.add(table, table.groups.get(*group), self.groups.get(*group), &mut parts);
        }
        // Every tenant's rows for everybody stand beside a tenant's own.
        if self.others.everybody != table.everybody {
            parts.extend(self.others.everybody.map(Part::One));
        }
        Applying(parts)
    }

    pub(crate) fn names(&self, asker: &Asker<'_>) -> bool {
        let table = self.tenants.get(asker.tenant).unwrap_or(&self.others);
        let named = |group: &&&str| table.groups.contains_key(**group) || self.groups.contains_key(**group);
        table.users.contains_key(asker.user)
            || self.users.contains_key(asker.user)
            || asker.groups.iter().find(named).is_some()
    }

    /// A member that the tenant names has its whole closure there; one that only every tenant's rows
    /// name is put together from its roles, so that those need not be repeated in each tenant.
    fn add<'a>(
        &'a self,
        table: &'a Table,
        own: Option<&'a Numbers>,
        everywhere: Option<&'a Everywhere>,
        parts: &mut SmallVec<[Part<'a>; 8]>,
    ) {
        match (own, everywhere) {
            (Some(numbers), _) => parts.push(Part::Many(numbers)),
            (None, Some(member)) => {
                parts.extend(member.own.map(Part::One));
                let brings = |role: &Arc<str>| table.roles.get(role).or_else(|| self.others.roles.get(role));
                parts.extend(member.roles.iter().filter_map(brings).map(|numbers| Part::Many(numbers)));
            }
            (None, None) => {}
        }
    }
}

/// Links and rows of one tenant, or of every tenant.
#[derive(Clone, Copy)]
struct Layer<'a> {
    held: &'a Held<'a>,
    owned: &'a AHashMap<&'a Subject, u32>,
}

impl<'a> Layer<'a> {
    fn members(self) -> impl Iterator<Item = &'a Subject> {
        self.held.keys().chain(self.owned.keys()).copied()
    }
}

impl Table {
    /// The first layer names the members; all layers together say what they bring.
    fn new(layers: &[Layer<'_>]) -> Self {
        let mut table = Self::default();
        let Some(first) = layers.first() else { return table };
        // Roles of the other layers may bring more here than elsewhere.
        let others = layers.iter().skip(1).flat_map(|layer| layer.members());
        let roles = others.filter(|member| matches!(member, Subject::Role(_)));
        for member in first.members().chain(roles) {
            let closure = || closure(layers, member);
            match member {
                Subject::User(name) => drop(table.users.entry(name.clone()).or_insert_with(closure)),
                Subject::Group(name) => drop(table.groups.entry(name.clone()).or_insert_with(closure)),
                Subject::Role(name) => drop(table.roles.entry(name.clone()).or_insert_with(closure)),
                Subject::Everybody => table.everybody = first.owned.get(member).copied(),
            }
        }
        table
    }
}

fn closure(layers: &[Layer<'_>], member: &Subject) -> Numbers {
    let mut numbers = Vec::new();
    let mut seen: AHashSet<&str> = AHashSet::new();
    let mut waiting: Vec<Subject> = vec![member.clone()];
    while let Some(subject) = waiting.pop() {
        for layer in layers {
            numbers.extend(layer.owned.get(&subject).copied());
            for role in layer.held.get(&subject).into_iter().flatten() {
                if seen.insert(role) {
                    waiting.push(Subject::Role((*role).clone()));
                }
            }
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers.into_boxed_slice()
}
