//! What somebody could do who is given rights, and the giver could not: nobody gives what they do not hold.
//!
//! Exact, cell by cell as in [`crate::diff()`]: keys are cut where a right of either begins or ends, circumstances
//! where a condition changes its answer. So whoever holds a right until Friday cannot give it for good.

use super::{Asker, BundlePolicy, Conditional, Sides};
use crate::bundle::{Action, Conditions, Context, Instant, RangeText};
use crate::circumstances::{boxes, boxes_if, joined};
use crate::segments::{End, range_of};
use bytes::Bytes;
use keygate_core::{Access, Gift, KeyAction, KeyRange, Permission, PermissionKind};
use std::collections::BTreeSet;

/// Findings that are told.
const TOLD: usize = 3;
/// Circumstances of one finding that are told.
const TOLD_CIRCUMSTANCES: usize = 50;

/// What is left to be spent, so that nobody keeps a serving thread busy. A look at a row's conditions or for a key among
/// the rows of a member is about one: some tens of nanoseconds.
struct Effort(usize);

impl Effort {
    /// A millisecond.
    const WHILE_A_REQUEST_WAITS: Self = Self(50_000);
    /// To make a box of circumstances.
    const BOX: usize = 4;
    /// To keep an edge.
    const EDGE: usize = 2;

    /// Nothing, once more was asked for than is left.
    fn spend(&mut self, looks: usize) -> Option<()> {
        let left = self.0.checked_sub(looks);
        self.0 = left.unwrap_or(0);
        left.map(drop)
    }
}

/// Keys that one may have and the other not.
struct Stretch {
    start: Bytes,
    end: End,
    when: Vec<Conditions>,
}

impl BundlePolicy {
    /// In words, the first few. Where finding out would take too long it is said that nobody knows, so that it is refused.
    pub(crate) fn beyond_giver(
        &self,
        giver: &Asker<'_>,
        now: Instant,
        own: &dyn Fn(&Access) -> bool,
        gift: &Gift<'_>,
    ) -> Vec<String> {
        let mut found = Vec::new();
        let mut effort = Effort::WHILE_A_REQUEST_WAITS;
        for action in Action::all() {
            if action.is_idle_in(giver.tenant) || found.len() >= TOLD {
                continue;
            }
            let Some(stretches) = self.beyond_in(giver, now, own, gift, action, &mut effort) else {
                found.push(format!(
                    "{}, perhaps: there are too many rows or conditions to compare while a request waits",
                    action.name()
                ));
                break;
            };
            found.extend(stretches.iter().map(|stretch| told(action, stretch)));
        }
        found.truncate(TOLD);
        found
    }

    /// None: it would take too long.
    fn beyond_in(
        &self,
        giver: &Asker<'_>,
        now: Instant,
        own: &dyn Fn(&Access) -> bool,
        gift: &Gift<'_>,
        action: Action,
        effort: &mut Effort,
    ) -> Option<Vec<Stretch>> {
        let receiver = gift.user.map(|user| Asker { tenant: giver.tenant, user, groups: &[] });
        let theirs = receiver.map(|receiver| self.membership.applying(&receiver));
        let ours = self.membership.applying(giver);
        let theirs: Vec<&Sides> = theirs.iter().flat_map(|applying| self.sides(applying, action)).collect();
        let ours: Vec<&Sides> = self.sides(&ours, action).collect();
        let given = gift.permissions.iter().filter(|own| includes(own, action)).map(|own| &own.range);
        let everybodys = gift.user.is_some() && action.is_everybodys();
        let given = Union::of(
            everybodys.then_some((Bytes::new(), End::Open)).into_iter().chain(given.map(span_of)),
            effort,
        )?;
        let allowed = theirs.iter().flat_map(|sides| &sides.allow).flat_map(|set| set.keys.all());
        let wanted = Union::of(allowed.chain(given.0.iter().cloned()), effort)?;
        let sets = || theirs.iter().chain(&ours).flat_map(|sides| sides.all());
        let edges = edges(&wanted, &given, sets, effort)?;
        let number = sets().count();
        let mut found: Vec<Stretch> = Vec::new();
        // Neighbours nearly always have the same conditions.
        let mut circumstances = (Vec::new(), boxes(std::iter::empty()));
        for (index, start) in edges.iter().enumerate() {
            effort.spend(1)?;
            if !wanted.holds(start) {
                continue;
            }
            effort.spend(2 + number)?;
            let is_given = given.holds(start);
            let end = edges.get(index + 1).map_or(End::Open, |next| End::Before(next.clone()));
            let is_own = everybodys || own(&access(action, start, &end));
            let (theirs, ours) = (Held::at(start, &theirs), Held::at(start, &ours));
            let conditions: Vec<&Conditions> = theirs.conditions().chain(ours.conditions()).collect();
            if circumstances.0 != conditions {
                let affords = |looks: usize, boxes: usize| {
                    effort.spend(boxes.saturating_mul(Effort::BOX).saturating_add(looks))
                };
                circumstances.1 = boxes_if(conditions.iter().copied(), affords)?;
                circumstances.0 = conditions;
            }
            let looks = 1 + theirs.len() + ours.len();
            effort.spend(circumstances.1.len().saturating_mul(looks))?;
            let mut when = Vec::new();
            for circumstance in &circumstances.1 {
                let is_over =
                    circumstance.within.until <= now && circumstance.within.until != Instant::LATEST;
                let example = &circumstance.example;
                if !is_over && theirs.may(is_given, example) && !ours.may(is_own, example) {
                    when.push(circumstance.within.clone());
                }
            }
            if when.is_empty() {
                continue;
            }
            // More than anybody reads.
            when.truncate(TOLD_CIRCUMSTANCES);
            let when = joined(when);
            let is_full = found.len() == TOLD;
            match found.last_mut() {
                Some(last) if last.end == End::Before(start.clone()) && last.when == when => last.end = end,
                _ if is_full => break,
                _ => found.push(Stretch { start: start.clone(), end, when }),
            }
        }
        Some(found)
    }
}

impl Sides {
    fn all(&self) -> impl Iterator<Item = &Conditional> {
        self.allow.iter().chain(&self.reject).chain(&self.filter)
    }
}

/// The conditions of a caller's rows that hold one key. None: the row always applies.
struct Held<'a> {
    allow: Vec<Option<&'a Conditions>>,
    deny: Vec<Option<&'a Conditions>>,
}

impl<'a> Held<'a> {
    fn at(key: &[u8], sides: &[&'a Sides]) -> Self {
        let holding = |set: &&Conditional| set.keys.holding(key).is_some();
        let conditions = |set: &'a Conditional| set.conditions.as_deref();
        let allow = sides.iter().flat_map(|sides| &sides.allow).filter(holding).map(conditions).collect();
        let deny = sides.iter().flat_map(|sides| sides.reject.iter().chain(&sides.filter));
        Self { allow, deny: deny.filter(holding).map(conditions).collect() }
    }

    fn len(&self) -> usize {
        self.allow.len() + self.deny.len()
    }

    fn conditions(&self) -> impl Iterator<Item = &'a Conditions> {
        self.allow.iter().chain(&self.deny).filter_map(|own| *own)
    }

    /// May they see or change the key, who have a right to it `besides` or not?
    fn may(&self, besides: bool, context: &Context) -> bool {
        let holds = |own: &Option<&Conditions>| own.is_none_or(|own| own.hold(context, false));
        !self.deny.iter().any(holds) && (besides || self.allow.iter().any(holds))
    }
}

/// Keys, as disjoint spans that do not touch, ascending.
struct Union(Vec<(Bytes, End)>);

impl Union {
    /// None: there are too many.
    fn of(spans: impl Iterator<Item = (Bytes, End)>, effort: &mut Effort) -> Option<Self> {
        let mut all = Vec::new();
        for span in spans {
            effort.spend(Effort::EDGE)?;
            all.push(span);
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut merged: Vec<(Bytes, End)> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match merged.last_mut() {
                Some(last) if last.1 >= End::Before(start.clone()) => last.1 = last.1.clone().max(end),
                _ => merged.push((start, end)),
            }
        }
        Some(Self(merged))
    }

    fn holds(&self, key: &[u8]) -> bool {
        let behind = self.0.partition_point(|(start, _)| start.as_ref() <= key);
        behind.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, end)| end.is_behind(key))
    }
}

fn span_of(range: &KeyRange) -> (Bytes, End) {
    (range.start().clone(), End::of(range))
}

/// Where anything begins or ends within these keys, ascending. None: in too many places.
fn edges<'a, I: Iterator<Item = &'a Conditional>>(
    wanted: &Union,
    given: &Union,
    sets: impl Fn() -> I,
    effort: &mut Effort,
) -> Option<Vec<Bytes>> {
    let mut edges: BTreeSet<Bytes> = BTreeSet::new();
    let number = sets().count();
    let mut add = |start: &[u8], end: &End, looks: usize| {
        effort.spend(Effort::EDGE + looks)?;
        edges.insert(Bytes::copy_from_slice(start));
        if let End::Before(end) = end {
            edges.insert(end.clone());
        }
        Some(())
    };
    // Beside what the receiver's rows allow, what is given may begin in the middle of a span.
    given.0.iter().try_for_each(|(start, end)| add(start, end, 0))?;
    for (start, end) in &wanted.0 {
        add(start, end, number)?;
        for set in sets() {
            set.keys.within(start, end).try_for_each(|(start, end, _)| add(start, end, 0))?;
        }
    }
    Some(edges.into_iter().collect())
}

fn includes(permission: &Permission, action: Action) -> bool {
    match (permission.kind, action) {
        (PermissionKind::ReadWrite, Action::Read | Action::Write)
        | (PermissionKind::Read, Action::Read)
        | (PermissionKind::Write, Action::Write) => true,
        (PermissionKind::Read | PermissionKind::Write | PermissionKind::ReadWrite, _) => false,
    }
}

/// What a request asks that does this to these keys.
pub(crate) fn access(action: Action, start: &Bytes, end: &End) -> Access {
    let keys = |action| Access::Keys { action, range: range_of(start.clone(), end) };
    match action {
        Action::Read => keys(KeyAction::Read),
        Action::Write => keys(KeyAction::Write),
        Action::Verb(verb) => Access::Admin(verb.right()),
    }
}

fn told(action: Action, stretch: &Stretch) -> String {
    let mut text = action.name().to_owned();
    if !matches!(action, Action::Verb(_)) {
        let range = range_of(stretch.start.clone(), &stretch.end);
        text.push_str(&format!(" {}", RangeText(&range)));
    }
    let when: Vec<String> = stretch.when.iter().map(ToString::to_string).collect();
    if when.iter().all(|text| !text.is_empty()) && !when.is_empty() {
        text.push_str(&format!(" when {}", when.join(" or ")));
    }
    text
}
