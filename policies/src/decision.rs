//! Bundles compiled for deciding: immutable, without casbin, without memory of earlier questions.
//!
//! A decision looks up whose rows apply (the tenant's and those of every tenant) and asks their sets of
//! keys in turn: deny rows first, then allow rows, which may cover a range together. No decision is cached and
//! nothing is locked, so the thousandth question costs what the first one did; only long lists of hidden keys are
//! shared ([`crate::sights`]).

pub(crate) mod beyond;

use crate::bundle::{Action, Bundle, Conditions, Context, Effect, Instant, OnPartial, Row, Subject, Tenant};
use crate::membership::{Applying, Membership};
use crate::segments::{End, RowId, Segments, range_of};
use crate::sights::{Hiding, SHARED_FROM, Sights};
use ahash::AHashMap;
use keygate_core::{KeyRange, Ruling, Sight, SightRuling};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who asks: somebody who has logged in, because rows for `user:*` apply to every asker.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The tenant's name; `default` for whoever has none.
    pub tenant: &'a str,
    pub user: &'a str,
    pub groups: &'a [&'a str],
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    Allow,
    /// Allowed for who can leave out keys: some are hidden, some are not. Everybody else must deny.
    Filter,
    Deny,
}

/// An outcome, and the row that made it so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    pub outcome: Outcome,
    /// The allow row that holds the first key; the deny row that is in the way; `None`: no row is about it. It is denied
    /// then, but for what every user may.
    pub row: Option<RowId>,
}

/// What a bundle decides.
pub struct BundlePolicy {
    bundle: Arc<Bundle>,
    membership: Membership,
    /// Each is one subject's rows in one tenant; `membership` says which apply.
    grants: Vec<Grants>,
    sights: Sights,
}

/// The rows of one subject in one tenant, by action.
#[derive(Default)]
struct Grants(Vec<(Action, Sides)>);

#[derive(Default)]
struct Sides {
    allow: Vec<Conditional>,
    reject: Vec<Conditional>,
    filter: Vec<Conditional>,
}

/// Keys of rows with the same conditions. Those without any come first.
struct Conditional {
    conditions: Option<Arc<Conditions>>,
    keys: Segments,
}

impl Conditional {
    fn holds(&self, context: &Context, untold: bool) -> bool {
        self.conditions.as_ref().is_none_or(|conditions| conditions.hold(context, untold))
    }
}

impl BundlePolicy {
    pub fn compile(bundle: Arc<Bundle>) -> Self {
        let mut owners: AHashMap<(&Subject, &Tenant), Vec<RowId>> = AHashMap::new();
        for (row, id) in bundle.rows().iter().zip(0..) {
            owners.entry((&row.subject, &row.tenant)).or_default().push(id);
        }
        // By their first rows: equal bundles must name equal rows, on every machine.
        let mut owners: Vec<_> = owners.into_iter().collect();
        owners.sort_unstable_by_key(|(_, ids)| ids.first().copied());
        let mut grants = Vec::with_capacity(owners.len());
        let mut numbered: AHashMap<(&Subject, &Tenant), u32> = AHashMap::with_capacity(owners.len());
        for (owner, ids) in owners {
            numbered.insert(owner, u32::try_from(grants.len()).unwrap_or(u32::MAX));
            grants.push(Grants::new(bundle.rows(), &ids));
        }
        let membership = Membership::new(&numbered, bundle.links());
        Self { bundle, membership, grants, sights: Sights::default() }
    }

    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    pub fn row(&self, id: RowId) -> Option<&Row> {
        self.bundle.rows().get(id as usize)
    }

    /// Decides one request. For an administrative action `keys` is everything.
    ///
    /// A range that can hold no key is decided as the key that it starts with.
    pub fn decide(&self, asker: &Asker<'_>, context: &Context, action: Action, keys: &KeyRange) -> Decision {
        if action.is_idle_in(asker.tenant) {
            return Decision { outcome: Outcome::Deny, row: None };
        }
        let (start, end) = (keys.start(), End::of(keys));
        let applying = self.membership.applying(asker);
        let sides = || self.sides(&applying, action);
        for set in sides().flat_map(|sides| &sides.reject) {
            if set.holds(context, true)
                && let Some(row) = set.keys.first_in(start, &end)
            {
                return Decision { outcome: Outcome::Deny, row: Some(row) };
            }
        }
        let allowed_by = match covered_by(sides, context, start, &end) {
            Ok(row) => row,
            Err(()) if action.is_everybodys() => return Decision { outcome: Outcome::Allow, row: None },
            Err(()) => return Decision { outcome: Outcome::Deny, row: None },
        };
        let filter = sides()
            .flat_map(|sides| &sides.filter)
            .filter(|set| set.holds(context, true))
            .find_map(|set| set.keys.first_in(start, &end));
        match filter {
            None => Decision { outcome: Outcome::Allow, row: Some(allowed_by) },
            Some(row) => {
                let visible = !self.is_all_hidden(&applying, context, action, start, &end);
                let outcome = if visible { Outcome::Filter } else { Outcome::Deny };
                Decision { outcome, row: Some(row) }
            }
        }
    }

    /// The same where other rules stand beside the bundle's: what it says nothing about is not denied.
    ///
    /// Rows that would leave out keys deny here: [`Self::rule_sight`] is for who can.
    pub(crate) fn rule(
        &self,
        asker: &Asker<'_>,
        context: &Context,
        action: Action,
        keys: &KeyRange,
    ) -> Ruling {
        let (start, end) = (keys.start(), End::of(keys));
        let applying = self.membership.applying(asker);
        let sides = || self.sides(&applying, action);
        let denies = |set: &Conditional| set.holds(context, true) && set.keys.first_in(start, &end).is_some();
        if sides().any(|sides| sides.reject.iter().chain(&sides.filter).any(denies)) {
            return Ruling::Deny;
        }
        match covered_by(sides, context, start, &end) {
            Ok(_) => Ruling::Allow,
            Err(()) => Ruling::Silent,
        }
    }

    /// The same for a read whose answer can leave out keys.
    pub(crate) fn rule_sight(&self, asker: &Asker<'_>, context: &Context, keys: &KeyRange) -> SightRuling {
        let (start, end) = (keys.start(), End::of(keys));
        let applying = self.membership.applying(asker);
        let sides = || self.sides(&applying, Action::Read);
        let touches =
            |set: &Conditional| set.holds(context, true) && set.keys.first_in(start, &end).is_some();
        let denied = SightRuling { ruling: Ruling::Deny, sight: Sight::WHOLE };
        if sides().any(|sides| sides.reject.iter().any(touches)) {
            return denied;
        }
        let sight = if sides().any(|sides| sides.filter.iter().any(touches)) {
            if self.is_all_hidden(&applying, context, Action::Read, start, &end) {
                return denied;
            }
            self.sight_from(&applying, context, start, &end)
        } else {
            Sight::WHOLE
        };
        let ruling =
            covered_by(sides, context, start, &end).map_or(Ruling::Silent, |_first_row| Ruling::Allow);
        SightRuling { ruling, sight }
    }

    /// What a read of this range must leave out: of that, or, where it is much, of all keys.
    fn sight_from<'p>(
        &'p self,
        applying: &Applying<'p>,
        context: &Context,
        start: &[u8],
        end: &End,
    ) -> Sight {
        let hiding = || self.hiding(applying, context);
        let within = |(_, set): (_, &'p Conditional)| set.keys.within(start, end).take(SHARED_FROM).count();
        if hiding().map(within).sum::<usize>() < SHARED_FROM {
            return Sight::without(self.hidden_from(applying, context, Action::Read, start, end));
        }
        let names: Hiding = hiding().map(|(name, _)| name).collect();
        self.sights.shared(names, || {
            Sight::without(self.hidden_from(applying, context, Action::Read, &[], &End::Open))
        })
    }

    /// The sets that hide keys from readers, each with a name.
    fn hiding<'p>(
        &'p self,
        applying: &Applying<'p>,
        context: &Context,
    ) -> impl Iterator<Item = ((u32, u32), &'p Conditional)> {
        applying
            .iter()
            .flat_map(move |number| {
                let sides = self.grants.get(number as usize).and_then(|grants| grants.of(Action::Read));
                let sets = sides.map_or([].as_slice(), |sides| sides.filter.as_slice());
                (0..).zip(sets).map(move |(index, set)| ((number, index), set))
            })
            .filter(|(_, set)| set.holds(context, true))
    }

    /// Is the user, or one of the groups, a subject of rows or roles in the tenant?
    pub fn names(&self, asker: &Asker<'_>) -> bool {
        self.membership.names(asker)
    }

    /// The keys that a request with the outcome [`Outcome::Filter`] must not see, ascending.
    pub fn hidden(
        &self,
        asker: &Asker<'_>,
        context: &Context,
        action: Action,
        keys: &KeyRange,
    ) -> Vec<KeyRange> {
        let applying = self.membership.applying(asker);
        self.hidden_from(&applying, context, action, keys.start(), &End::of(keys))
    }

    fn hidden_from<'p>(
        &'p self,
        applying: &Applying<'p>,
        context: &Context,
        action: Action,
        start: &[u8],
        end: &End,
    ) -> Vec<KeyRange> {
        let mut found: Vec<(Vec<u8>, End)> = Vec::new();
        for set in self.sides(applying, action).flat_map(|sides| &sides.filter) {
            if set.holds(context, true) {
                let stretches = set.keys.within(start, end);
                found.extend(stretches.map(|(start, end, _)| (start.to_vec(), end.clone())));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let mut merged: Vec<(Vec<u8>, End)> = Vec::new();
        for (start, end) in found {
            match merged.last_mut() {
                Some(last) if last.1 >= End::Before(start.clone().into()) => last.1 = last.1.clone().max(end),
                _ => merged.push((start, end)),
            }
        }
        merged.into_iter().map(|(start, end)| range_of(start.into(), &end)).collect()
    }

    /// When, after the context's time, decisions for this caller and action may change because time passes.
    /// Whoever keeps something open on a decision must ask again then. `None`: never, or no time was told.
    pub fn decided_until(&self, asker: &Asker<'_>, context: &Context, action: Action) -> Option<Instant> {
        let now = context.now?;
        let applying = self.membership.applying(asker);
        let sets = self
            .sides(&applying, action)
            .flat_map(|sides| sides.allow.iter().chain(&sides.reject).chain(&sides.filter));
        sets.filter_map(|set| set.conditions.as_ref()?.next_edge(now)).min()
    }

    fn is_all_hidden<'p>(
        &'p self,
        applying: &Applying<'p>,
        context: &Context,
        action: Action,
        start: &[u8],
        end: &End,
    ) -> bool {
        let sets = || {
            let filters = self.sides(applying, action).flat_map(|sides| &sides.filter);
            filters.filter(|set| set.holds(context, true))
        };
        cover(sets, start, end).is_ok()
    }

    fn sides<'p>(&'p self, applying: &Applying<'p>, action: Action) -> impl Iterator<Item = &'p Sides> {
        applying.iter().filter_map(move |number| self.grants.get(number as usize)?.of(action))
    }
}

fn covered_by<'a, I: Iterator<Item = &'a Sides>>(
    sides: impl Fn() -> I,
    context: &Context,
    start: &[u8],
    end: &End,
) -> Result<RowId, ()> {
    cover(|| sides().flat_map(|sides| &sides.allow).filter(|set| set.holds(context, false)), start, end)
}

/// Walks from `start` to `end`, each time as far as one set reaches. Answers with the row at the start.
fn cover<'a, I: Iterator<Item = &'a Conditional>>(
    sets: impl Fn() -> I,
    start: &[u8],
    end: &End,
) -> Result<RowId, ()> {
    let mut first = None;
    let mut at = start;
    loop {
        let mut furthest: Option<(RowId, &End)> = None;
        for set in sets() {
            if let Some((row, reach)) = set.keys.holding(at)
                && furthest.is_none_or(|(_, seen)| reach > seen)
            {
                let done = reach >= end;
                furthest = Some((row, reach));
                if done {
                    break;
                }
            }
        }
        let (row, reach) = furthest.ok_or(())?;
        let first = *first.get_or_insert(row);
        match reach {
            reach if reach >= end => return Ok(first),
            End::Open => return Ok(first),
            End::Before(next) => at = next,
        }
    }
}

impl Grants {
    fn new(rows: &[Row], ids: &[RowId]) -> Self {
        type Key<'a> = (Action, Effect, &'a Conditions);
        let mut sets: BTreeMap<Key<'_>, Vec<(RowId, &KeyRange)>> = BTreeMap::new();
        let mut shared: AHashMap<&Conditions, &Arc<Conditions>> = AHashMap::new();
        for id in ids {
            let Some(row) = rows.get(*id as usize) else { continue };
            shared.entry(&row.conditions).or_insert(&row.conditions);
            for action in row.action.actions() {
                // Only reads can leave out keys.
                let effect = match row.effect {
                    Effect::Deny(_) if action != Action::Read => Effect::Deny(OnPartial::Reject),
                    effect => effect,
                };
                sets.entry((action, effect, &row.conditions)).or_default().push((*id, &row.keys));
            }
        }
        let mut grants: Vec<(Action, Sides)> = Vec::new();
        for ((action, effect, conditions), mut rows) in sets {
            if grants.last().is_none_or(|(last, _)| *last != action) {
                grants.push((action, Sides::default()));
            }
            let Some((_, sides)) = grants.last_mut() else { continue };
            let side = match effect {
                Effect::Allow => &mut sides.allow,
                Effect::Deny(OnPartial::Reject) => &mut sides.reject,
                Effect::Deny(OnPartial::Filter) => &mut sides.filter,
            };
            let keys = Segments::new(&mut rows);
            if conditions.is_unconditional() {
                side.insert(0, Conditional { conditions: None, keys });
            } else {
                side.push(Conditional {
                    conditions: shared.get(conditions).map(|shared| (*shared).clone()),
                    keys,
                });
            }
        }
        Self(grants)
    }

    fn of(&self, action: Action) -> Option<&Sides> {
        self.0.iter().find(|(own, _)| *own == action).map(|(_, sides)| sides)
    }
}
