//! Why a decision is what it is, for people: slow, and never asked on the way of a request.

use crate::bundle::{Action, Conditions, Context, Effect, Instant, Row, RowAction, Subject, Tenant};
use crate::decision::{Asker, BundlePolicy, Decision, Outcome};
use crate::segments::{End, RowId, range_of};
use bytes::Bytes;
use keygate_core::KeyRange;

/// What stands between a row and the request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Missing {
    /// The row's conditions do not hold.
    Conditions,
    /// The row is about another action.
    Action,
    /// The row does not hold all the keys.
    Keys,
    /// The caller does not hold the row's role or group, or is somebody else.
    Subject,
}

impl Missing {
    pub fn name(self) -> &'static str {
        match self {
            Self::Conditions => "conditions",
            Self::Action => "action",
            Self::Keys => "keys",
            Self::Subject => "subject",
        }
    }

    /// How far away a row is that lacks this. A row of the caller's own is nearer than another's.
    fn distance(self) -> u32 {
        match self {
            Self::Conditions => 1,
            Self::Action => 2,
            Self::Keys => 3,
            Self::Subject => 5,
        }
    }
}

/// An allow row that does not apply, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nearest {
    pub row: RowId,
    pub missing: Vec<Missing>,
}

/// A decision and its reasons.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    pub decision: Decision,
    /// Rows that apply and touch the request, in the bundle's order.
    pub matched: Vec<RowId>,
    /// The first keys of the request that no row allows.
    pub uncovered: Option<KeyRange>,
    /// Of a denial: the row that would come nearest to allowing it.
    pub nearest: Option<Nearest>,
    /// Of a filtered answer: what must be left out.
    pub hidden: Vec<KeyRange>,
}

impl BundlePolicy {
    pub fn explain(
        &self,
        asker: &Asker<'_>,
        context: &Context,
        action: Action,
        keys: &KeyRange,
    ) -> Explanation {
        let decision = self.decide(asker, context, action, keys);
        let (start, end) = (keys.start(), End::of(keys));
        let touches = |row: &Row| {
            let stop = End::of(&row.keys);
            stop.is_behind(start) && end.is_behind(row.keys.start())
        };
        let mine = self.subjects_of(asker);
        let applies = |row: &Row| {
            let untold = row.effect != Effect::Allow;
            self.is_within(row, asker, action)
                && mine.contains(&row.subject)
                && row.action.includes(action)
                && row.conditions.hold(context, untold)
        };
        let rows = || self.bundle().rows().iter().zip(0..);
        let matched: Vec<RowId> =
            rows().filter(|(row, _)| applies(row) && touches(row)).map(|(_, id)| id).collect();
        let uncovered = match decision.outcome {
            Outcome::Allow => None,
            Outcome::Filter | Outcome::Deny => self.uncovered(&matched, start, &end),
        };
        let nearest = (decision.outcome == Outcome::Deny)
            .then(|| {
                // Rows about keys and administrative actions are never near each other.
                let alike = |row: &Row| match action {
                    Action::Verb(_) => row.action.includes(action),
                    Action::Read | Action::Write => !matches!(row.action, RowAction::Verb(_)),
                };
                let allows = |row: &Row| {
                    row.effect == Effect::Allow && self.is_within(row, asker, action) && alike(row)
                };
                let candidates = rows().filter(|(row, _)| allows(row));
                let ranked = candidates.map(|(row, id)| {
                    let mut missing = Vec::new();
                    if !row.conditions.hold(context, false) {
                        missing.push(Missing::Conditions);
                    }
                    if !row.action.includes(action) {
                        missing.push(Missing::Action);
                    }
                    if End::of(&row.keys) < end || row.keys.start() > start {
                        missing.push(Missing::Keys);
                    }
                    if !mine.contains(&row.subject) {
                        missing.push(Missing::Subject);
                    }
                    let distance: u32 = missing.iter().map(|missing| missing.distance()).sum();
                    let common =
                        row.keys.start().iter().zip(start.iter()).take_while(|(a, b)| a == b).count();
                    (distance, std::cmp::Reverse(common), id, missing)
                });
                // One that lacks nothing is overruled, not missing.
                ranked.filter(|(distance, ..)| *distance > 0).min()
            })
            .flatten()
            .map(|(_, _, row, missing)| Nearest { row, missing });
        let hidden = if decision.outcome == Outcome::Filter {
            self.hidden(asker, context, action, keys)
        } else {
            Vec::new()
        };
        Explanation { decision, matched, uncovered, nearest, hidden }
    }

    fn is_within(&self, row: &Row, asker: &Asker<'_>, action: Action) -> bool {
        let is_there = match &row.tenant {
            Tenant::Every => true,
            Tenant::Named(name) => name.as_ref() == asker.tenant,
        };
        is_there && !action.is_idle_in(asker.tenant)
    }

    fn uncovered(&self, matched: &[RowId], start: &Bytes, end: &End) -> Option<KeyRange> {
        let rows = matched.iter().filter_map(|id| self.row(*id)).filter(|row| row.effect == Effect::Allow);
        let mut allowed: Vec<&KeyRange> = rows.map(|row| &row.keys).collect();
        allowed.sort_by(|a, b| a.start().cmp(b.start()));
        let mut at = start.clone();
        for keys in allowed {
            if keys.start() > &at {
                return Some(range_of(at, &End::Before(keys.start().clone()).min(end.clone())));
            }
            match End::of(keys) {
                reach if reach >= *end => return None,
                End::Before(reach) => at = at.max(reach),
                End::Open => return None,
            }
        }
        Some(range_of(at, end))
    }

    /// The subjects whose rows apply: the user, everybody, groups, and the roles that these hold.
    pub(crate) fn subjects_of(&self, asker: &Asker<'_>) -> Vec<Subject> {
        let mut subjects = vec![Subject::Everybody, Subject::User(asker.user.into())];
        subjects.extend(asker.groups.iter().map(|group| Subject::Group((*group).into())));
        let mut next = 0;
        while let Some(member) = subjects.get(next).cloned() {
            for link in self.bundle().links() {
                let within = match &link.tenant {
                    Tenant::Every => true,
                    Tenant::Named(name) => name.as_ref() == asker.tenant,
                };
                let role = Subject::Role(link.role.clone());
                if within && link.member == member && !subjects.contains(&role) {
                    subjects.push(role);
                }
            }
            next += 1;
        }
        subjects
    }
}

/// Is the row's time over for good?
pub(crate) fn is_over(conditions: &Conditions, now: Instant) -> bool {
    conditions.until != Instant::LATEST && conditions.until <= now
}
