//! What somebody could do who is given rights, and the giver could not: nobody gives what they do not hold.
//!
//! Exact, cell by cell as in [`crate::diff()`]: keys are cut where a right of either begins or ends, circumstances
//! where a condition changes its answer. So whoever holds a right until Friday cannot give it for good.

use super::{Asker, BundlePolicy, Conditional, Sides};
use crate::bundle::{Action, Conditions, Context, Instant, RangeText};
use crate::circumstances::{few_boxes, joined};
use crate::segments::{End, range_of};
use bytes::Bytes;
use keygate_core::{Access, Gift, KeyAction, KeyRange, Permission, PermissionKind};
use std::collections::BTreeSet;

/// Findings that are told.
const TOLD: usize = 3;

/// Keys that one may have and the other not.
struct Stretch {
    start: Bytes,
    end: End,
    when: Vec<Conditions>,
}

impl BundlePolicy {
    pub(crate) fn beyond_giver(
        &self,
        giver: &Asker<'_>,
        now: Instant,
        own: &dyn Fn(&Access) -> bool,
        gift: &Gift<'_>,
    ) -> Vec<String> {
        let mut found = Vec::new();
        for action in Action::all() {
            if !action.is_idle_in(giver.tenant) && found.len() < TOLD {
                let stretches = self.beyond_in(giver, now, own, gift, action);
                found.extend(stretches.iter().map(|stretch| told(action, stretch)));
            }
        }
        found.truncate(TOLD);
        found
    }

    fn beyond_in(
        &self,
        giver: &Asker<'_>,
        now: Instant,
        own: &dyn Fn(&Access) -> bool,
        gift: &Gift<'_>,
        action: Action,
    ) -> Vec<Stretch> {
        let receiver = gift.user.map(|user| Asker { tenant: giver.tenant, user, groups: &[] });
        let theirs = receiver.map(|receiver| self.membership.applying(&receiver));
        let ours = self.membership.applying(giver);
        let theirs: Vec<&Sides> = theirs.iter().flat_map(|applying| self.sides(applying, action)).collect();
        let ours: Vec<&Sides> = self.sides(&ours, action).collect();
        let given: Vec<&KeyRange> =
            gift.permissions.iter().filter(|own| includes(own, action)).map(|own| &own.range).collect();
        let everybodys = gift.user.is_some() && action.is_everybodys();
        if given.is_empty() && !everybodys && theirs.iter().all(|sides| sides.allow.is_empty()) {
            return Vec::new();
        }
        let edges = edges(theirs.iter().chain(&ours), &given, everybodys);
        let mut found: Vec<Stretch> = Vec::new();
        for (index, start) in edges.iter().enumerate() {
            let holds = |set: &&Conditional| set.keys.holding(start).is_some();
            let is_given = everybodys || given.iter().any(|range| is_in(range, start));
            if !is_given && !theirs.iter().flat_map(|sides| &sides.allow).any(|set| holds(&set)) {
                continue;
            }
            let end = edges.get(index + 1).map_or(End::Open, |next| End::Before(next.clone()));
            let is_own = everybodys || own(&access(action, start, &end));
            let sets = theirs.iter().chain(&ours).flat_map(|sides| sides.all()).filter(holds);
            let conditions: Vec<&Conditions> = sets.filter_map(|set| set.conditions.as_deref()).collect();
            let mut when = Vec::new();
            let Some(circumstances) = few_boxes(conditions.into_iter()) else {
                // Nobody can say that it is held.
                found.push(Stretch { start: start.clone(), end, when: vec![Conditions::default()] });
                break;
            };
            for circumstance in circumstances {
                let is_over =
                    circumstance.within.until <= now && circumstance.within.until != Instant::LATEST;
                let example = &circumstance.example;
                if !is_over && may(&theirs, is_given, start, example) && !may(&ours, is_own, start, example) {
                    when.push(circumstance.within);
                }
            }
            if when.is_empty() {
                continue;
            }
            let when = joined(when);
            let is_full = found.len() == TOLD;
            match found.last_mut() {
                Some(last) if last.end == End::Before(start.clone()) && last.when == when => last.end = end,
                _ if is_full => break,
                _ => found.push(Stretch { start: start.clone(), end, when }),
            }
        }
        found
    }
}

impl Sides {
    fn all(&self) -> impl Iterator<Item = &Conditional> {
        self.allow.iter().chain(&self.reject).chain(&self.filter)
    }
}

/// May somebody to whom these apply see or change the key, who has a right to it `besides` or not?
fn may(sides: &[&Sides], besides: bool, key: &[u8], context: &Context) -> bool {
    let holds = |set: &Conditional| set.holds(context, false) && set.keys.holding(key).is_some();
    let denied = sides.iter().any(|sides| sides.reject.iter().chain(&sides.filter).any(holds));
    !denied && (besides || sides.iter().any(|sides| sides.allow.iter().any(holds)))
}

/// Where anything begins or ends, ascending.
fn edges<'a>(
    sides: impl Iterator<Item = &'a &'a Sides>,
    given: &[&KeyRange],
    everywhere: bool,
) -> Vec<Bytes> {
    let mut edges: BTreeSet<Bytes> = BTreeSet::new();
    let mut add = |start: &[u8], end: &End| {
        edges.insert(Bytes::copy_from_slice(start));
        if let End::Before(end) = end {
            edges.insert(end.clone());
        }
    };
    for set in sides.flat_map(|sides| sides.all()) {
        set.keys.within(b"", &End::Open).for_each(|(start, end, _)| add(start, end));
    }
    given.iter().for_each(|range| add(range.start(), &End::of(range)));
    if everywhere {
        add(b"", &End::Open);
    }
    edges.into_iter().collect()
}

fn is_in(range: &KeyRange, key: &[u8]) -> bool {
    range.start().as_ref() <= key && End::of(range).is_behind(key)
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
