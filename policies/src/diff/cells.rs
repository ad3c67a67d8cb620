//! Keys × circumstances of one tenant and action, cell by cell, where something changed.

use super::parties::{Party, Saying, Within};
use super::standing::{Pair, Standing};
use crate::bundle::{Action, Conditions, Context, Effect, Instant, OnPartial};
use crate::circumstances::{boxes, few_boxes};
use crate::decision::{Outcome, beyond::access};
use crate::segments::End;
use ahash::{AHashMap, AHashSet};
use bytes::Bytes;
use keygate_core::Access;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Told: who, from which key, up to which, under which circumstances, and what changes there.
pub(super) type Visit<'a> = dyn FnMut(String, &Bytes, &End, &Conditions, Outcome, Outcome) + 'a;

pub(super) fn visit(within: &Within<'_>, action: Action, visit: &mut Visit<'_>) {
    let people = People::new(within, action);
    if !people.changed.is_empty() {
        let is_changed = |active: &[u32]| active.iter().any(|number| people.changed.contains(number));
        people.each_stretch(&mut |active, start, end| {
            if is_changed(active) {
                people.visit_keys(active, start, end, visit);
            }
        });
    }
}

/// How many looks at a row for a member are left.
pub(super) struct Effort(u64);

impl Effort {
    /// Some seconds' worth.
    pub(super) fn of_a_server() -> Self {
        Self(200_000_000)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.0 == 0
    }

    fn spend(&mut self, looks: u64) {
        self.0 = self.0.saturating_sub(looks);
    }
}

/// Told: who, from which key, up to which, and under which circumstances.
pub(super) type VisitGain<'a> = dyn FnMut(String, &Bytes, &End, &Conditions) + 'a;

/// Who hands rights on, and what the tables of its tenant let it do.
pub(super) struct Giver<'a> {
    /// As members are called here.
    pub(super) names: Vec<String>,
    pub(super) own: &'a dyn Fn(&Access) -> bool,
}

/// What somebody gains that `giver`, who may hold nothing here, does not hold.
pub(super) fn visit_gains(
    within: &Within<'_>,
    action: Action,
    now: Instant,
    giver: Option<&Giver<'_>>,
    effort: &mut Effort,
    visit: &mut VisitGain<'_>,
) {
    let people = People::new(within, action);
    let newcomers: Vec<usize> =
        within.members.iter().enumerate().filter(|(_, party)| party.is_new).map(|(index, _)| index).collect();
    people.each_stretch(&mut |active, start, end| {
        if !newcomers.is_empty() || active.iter().any(|number| people.changed.contains(number)) {
            people.visit_gains(active, (start, end), now, (giver, &newcomers), effort, visit);
        }
    });
}

impl People<'_> {
    /// Stretches of keys in which the same rows apply, ascending, with the rows.
    fn each_stretch(&self, visit: &mut dyn FnMut(&[u32], &Bytes, &End)) {
        let people = self;
        let mut rows: Vec<u32> = people.all.iter().copied().collect();
        rows.sort_by(|a, b| people.start(*a).cmp(people.start(*b)));
        let mut edges: BTreeSet<Bytes> = BTreeSet::new();
        for number in &rows {
            edges.insert(people.start(*number).clone());
            if let End::Before(end) = people.end(*number) {
                edges.insert(end);
            }
        }
        let edges: Vec<Bytes> = edges.into_iter().collect();
        let mut upcoming = rows.into_iter().peekable();
        let mut active: Vec<u32> = Vec::new();
        for (index, start) in edges.iter().enumerate() {
            active.retain(|number| people.end(*number).is_behind(start));
            while let Some(number) = upcoming.next_if(|number| people.start(*number) == start) {
                active.push(number);
            }
            let end = edges.get(index + 1).map_or(End::Open, |end| End::Before(end.clone()));
            visit(&active, start, &end);
        }
    }

    fn visit_gains(
        &self,
        active: &[u32],
        (start, end): (&Bytes, &End),
        now: Instant,
        (giver, newcomers): (Option<&Giver<'_>>, &[usize]),
        effort: &mut Effort,
        visit: &mut VisitGain<'_>,
    ) {
        if effort.is_spent() {
            return;
        }
        let present: BTreeSet<usize> = active
            .iter()
            .filter_map(|number| self.whose.get(number))
            .flatten()
            .chain(newcomers)
            .copied()
            .collect();
        let is_everybodys = self.action.is_everybodys();
        let is_own =
            giver.is_some_and(|giver| is_everybodys || (giver.own)(&access(self.action, start, end)));
        let conditions = active.iter().map(|number| self.saying(*number).conditions);
        let Some(circumstances) = few_boxes(conditions) else { return effort.spend(u64::MAX) };
        for circumstance in circumstances {
            effort.spend((present.len() as u64 + 1).saturating_mul(active.len() as u64 + 1));
            if effort.is_spent() {
                return;
            }
            let until = circumstance.within.until;
            if until <= now && until != Instant::LATEST {
                continue;
            }
            let pair = |party: &Party| self.pair(party, active, &circumstance.example);
            let base = pair(&self.within.everybody);
            if let Some(giver) = giver {
                let own = self.within.members.iter().filter(|party| giver.names.contains(&party.name));
                let held = own.fold(base, |all, party| all.with(pair(party))).before;
                if !held.reject && !held.hide && (held.allow || is_own) {
                    continue;
                }
            }
            if base.is_gain() {
                visit(self.within.everybody.name.clone(), start, end, &circumstance.within);
            }
            for index in &present {
                let Some(party) = self.within.members.get(*index) else { continue };
                let mut both = base.with(pair(party));
                if party.is_new {
                    // Who could not log in had nothing of what is everybody's.
                    both.before = Standing::default();
                }
                if both.is_gain() && (!base.is_gain() || party.is_new) {
                    visit(party.name.clone(), start, end, &circumstance.within);
                }
            }
        }
    }
}

/// The members of a tenant, found by what is said about them for one action.
struct People<'a> {
    within: &'a Within<'a>,
    action: Action,
    /// What is said about anybody.
    all: AHashSet<u32>,
    /// What is said about somebody in one of the bundles only.
    changed: AHashSet<u32>,
    /// Whom it is said about.
    whose: AHashMap<u32, Vec<usize>>,
}

impl<'a> People<'a> {
    fn new(within: &'a Within<'a>, action: Action) -> Self {
        let mut people =
            Self { within, action, all: AHashSet::new(), changed: AHashSet::new(), whose: AHashMap::new() };
        let of_action = |number: &&u32| {
            within.sayings.get(**number as usize).is_some_and(|saying| saying.action.includes(action))
        };
        let members = within.members.iter().enumerate().map(|(index, party)| (Some(index), party));
        for (index, party) in members.chain([(None, &within.everybody)]) {
            for number in party.before.iter().chain(&party.after).filter(of_action) {
                people.all.insert(*number);
                let whose = index.map(|index| (people.whose.entry(*number).or_default(), index));
                if let Some((whose, index)) = whose
                    && whose.last() != Some(&index)
                {
                    whose.push(index);
                }
                if party.before.binary_search(number).is_ok() != party.after.binary_search(number).is_ok() {
                    people.changed.insert(*number);
                }
            }
        }
        people
    }

    fn saying(&self, number: u32) -> &Saying<'a> {
        &self.within.sayings[number as usize]
    }

    fn start(&self, number: u32) -> &'a Bytes {
        self.saying(number).keys.start()
    }

    fn end(&self, number: u32) -> End {
        End::of(self.saying(number).keys)
    }

    /// One stretch of keys, under all circumstances.
    fn visit_keys(&self, active: &[u32], start: &Bytes, end: &End, visit: &mut Visit<'_>) {
        // Whoever has a row here; all others are like everybody.
        let present: BTreeSet<usize> =
            active.iter().filter_map(|number| self.whose.get(number)).flatten().copied().collect();
        let conditions = active.iter().map(|number| self.saying(*number).conditions);
        for circumstance in boxes(conditions) {
            let pair = |party: &Party| self.pair(party, active, &circumstance.example);
            let base = pair(&self.within.everybody);
            let pairs: BTreeMap<usize, Pair> = present
                .iter()
                .filter_map(|index| Some((*index, pair(self.within.members.get(*index)?))))
                .collect();
            for (who, (before, after)) in self.changes(base, &pairs) {
                visit(who, start, end, &circumstance.within, before, after);
            }
        }
    }

    fn pair(&self, party: &Party, active: &[u32], context: &Context) -> Pair {
        let mut pair = Pair::default();
        (pair.before.allow, pair.after.allow) = (self.action.is_everybodys(), self.action.is_everybodys());
        for number in active {
            let (before, after) =
                (party.before.binary_search(number).is_ok(), party.after.binary_search(number).is_ok());
            let saying = self.saying(*number);
            if !(before || after) || !saying.conditions.hold(context, false) {
                continue;
            }
            let mut standing = Standing::default();
            match saying.effect {
                Effect::Allow => standing.allow = true,
                Effect::Deny(OnPartial::Filter) if self.action == Action::Read => standing.hide = true,
                Effect::Deny(_) => standing.reject = true,
            }
            if before {
                pair.before = pair.before.with(standing);
            }
            if after {
                pair.after = pair.after.with(standing);
            }
        }
        pair
    }

    /// Everybody's change, then each member's that is another, then those of members in company.
    fn changes(&self, base: Pair, pairs: &BTreeMap<usize, Pair>) -> Vec<(String, (Outcome, Outcome))> {
        let mut changes = Vec::new();
        let everybodys = base.change();
        changes.extend(everybodys.map(|change| (self.within.everybody.name.clone(), change)));
        let mut alone = AHashSet::new();
        for (index, pair) in pairs {
            if let Some(change) = base.with(*pair).change() {
                alone.insert(*index);
                if everybodys != Some(change) {
                    changes.push((self.name(*index), change));
                }
            }
        }
        if everybodys.is_some() {
            // Whoever is changed in company only is told of with everybody.
            return changes;
        }
        // Everybody's own standing may show only in company too.
        let hidden = (base.essence().before != base.essence().after).then_some(None);
        let members = pairs.iter().filter(|(index, pair)| {
            let together = base.with(**pair).essence();
            !alone.contains(*index) && together.before != together.after
        });
        for changed in members.map(|(index, _)| Some(*index)).chain(hidden) {
            if let Some((company, change)) = self.in_company(changed, base, pairs, &alone) {
                let mut names: Vec<String> =
                    changed.into_iter().chain(company).map(|index| self.name(index)).collect();
                names.sort();
                let found = (names.join(" with "), change);
                if !changes.contains(&found) {
                    changes.push(found);
                }
            }
        }
        changes
    }

    fn name(&self, index: usize) -> String {
        self.within.members.get(index).map(|party| party.name.clone()).unwrap_or_default()
    }

    /// The fewest others with whom together a change shows: at most one user in all, any groups.
    fn in_company(
        &self,
        changed: Option<usize>,
        base: Pair,
        pairs: &BTreeMap<usize, Pair>,
        alone: &AHashSet<usize>,
    ) -> Option<(Vec<usize>, (Outcome, Outcome))> {
        let is_user = |index: usize| self.within.members.get(index).is_some_and(|party| party.is_user);
        // Members with equal standings are as good as each other.
        let mut classes: BTreeMap<(bool, Pair), usize> = BTreeMap::new();
        for (index, pair) in
            pairs.iter().filter(|(index, _)| !alone.contains(*index) && Some(**index) != changed)
        {
            classes.entry((is_user(*index), *pair)).or_insert(*index);
        }
        let first = changed.and_then(|index| pairs.get(&index)).map_or(base, |pair| base.with(*pair));
        let begin = (first, changed.is_some_and(is_user));
        let mut seen = AHashSet::from([begin]);
        let mut waiting = VecDeque::from([(begin, Vec::new())]);
        while let Some(((pair, has_user), company)) = waiting.pop_front() {
            if let Some(change) = pair.change() {
                return Some((company, change));
            }
            for ((is_user, own), index) in &classes {
                let next = (pair.with(*own), has_user || *is_user);
                if !(has_user && *is_user) && seen.insert(next) {
                    let company = company.iter().copied().chain([*index]).collect();
                    waiting.push_back((next, company));
                }
            }
        }
        None
    }
}
