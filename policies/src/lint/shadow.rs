//! Rows that change nothing because another row of the same subject says as much.

use super::POLICY;
use crate::bundle::{Action, Conditions, Effect, Finding, Row, Rule, Subject, Tenant};
use crate::segments::{End, RowId};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

type Owner<'a> = (&'a Subject, &'a Tenant);
/// Rows of one effect, action and conditions.
type Class<'a> = (Effect, Action, &'a Conditions);

pub(super) fn check(rows: &[Row], findings: &mut Vec<Finding>) {
    let mut owners: HashMap<Owner<'_>, Vec<RowId>> = HashMap::new();
    for (row, id) in rows.iter().zip(0..) {
        owners.entry((&row.subject, &row.tenant)).or_default().push(id);
    }
    for ids in owners.values().filter(|ids| ids.len() > 1) {
        check_owner(rows, ids, findings);
    }
}

fn check_owner(rows: &[Row], ids: &[RowId], findings: &mut Vec<Finding>) {
    let row = |id: RowId| &rows[id as usize];
    let mut duplicates = vec![];
    let mut seen = HashMap::new();
    for id in ids {
        let own = row(*id);
        match seen.entry((&own.keys, own.action, own.effect, &own.conditions)) {
            std::collections::hash_map::Entry::Occupied(first) => {
                let message = format!("line {} says the same", row(*first.get()).line);
                findings.push(Finding::new(Rule::RowDuplicate, POLICY, own.line, message));
                duplicates.push(*id);
            }
            std::collections::hash_map::Entry::Vacant(slot) => drop(slot.insert(*id)),
        }
    }
    let mut classes: BTreeMap<Class<'_>, Vec<RowId>> = BTreeMap::new();
    for id in ids.iter().filter(|id| duplicates.binary_search(id).is_err()) {
        for action in row(*id).action.actions() {
            classes.entry((row(*id).effect, action, &row(*id).conditions)).or_default().push(*id);
        }
    }
    let classes: Vec<(Class<'_>, Reach)> =
        classes.into_iter().map(|(class, ids)| (class, Reach::new(rows, ids))).collect();
    for id in ids.iter().filter(|id| duplicates.binary_search(id).is_err()) {
        if let Some(by) = shadowing(rows, *id, &classes) {
            let verb = if row(by).effect == row(*id).effect { "says as much" } else { "denies all of it" };
            let message = format!("the row changes nothing: line {} {verb}", row(by).line);
            findings.push(Finding::new(Rule::RowShadowed, POLICY, row(*id).line, message));
        }
    }
}

/// A row that says all that row `id` says, for each of its actions; the last of them if they differ.
fn shadowing(rows: &[Row], id: RowId, classes: &[(Class<'_>, Reach)]) -> Option<RowId> {
    let own = &rows[id as usize];
    let mut by = None;
    for action in own.action.actions() {
        let wider = classes.iter().filter(|((effect, of, conditions), _)| {
            let stronger = *effect == own.effect
                || (own.effect == Effect::Allow && *effect == Effect::Deny(crate::bundle::OnPartial::Reject));
            stronger && *of == action && conditions.include(&own.conditions)
        });
        by = Some(wider.filter_map(|(_, reach)| reach.over(own, id)).min()?);
    }
    by
}

/// Rows by their starts, and for each beginning of that order the two that reach furthest: one may be the
/// row that is asked about.
struct Reach {
    starts: Vec<Bytes>,
    furthest: Vec<[Option<(End, RowId)>; 2]>,
}

impl Reach {
    fn new(rows: &[Row], mut ids: Vec<RowId>) -> Self {
        let keys = |id: &RowId| &rows[*id as usize].keys;
        ids.sort_by(|a, b| keys(a).start().cmp(keys(b).start()));
        let mut furthest: Vec<[Option<(End, RowId)>; 2]> = Vec::with_capacity(ids.len());
        let mut best: [Option<(End, RowId)>; 2] = [None, None];
        for id in &ids {
            let end = End::of(keys(id));
            let beats = |held: &Option<(End, RowId)>| held.as_ref().is_none_or(|(held, _)| end > *held);
            if beats(&best[0]) {
                best = [Some((end, *id)), best[0].take()];
            } else if beats(&best[1]) {
                best[1] = Some((end, *id));
            }
            furthest.push(best.clone());
        }
        Self { starts: ids.iter().map(|id| keys(id).start().clone()).collect(), furthest }
    }

    /// Another row that holds all keys of `row`.
    fn over(&self, row: &Row, id: RowId) -> Option<RowId> {
        let up_to = self.starts.partition_point(|start| start <= row.keys.start());
        let end = End::of(&row.keys);
        let held = self.furthest.get(up_to.checked_sub(1)?)?.iter().flatten();
        held.filter(|(reach, other)| *other != id && *reach >= end).map(|(_, other)| *other).next()
    }
}
