//! The check: every acknowledged write at its revision, nothing nobody asked for, no revision
//! missing.

use std::collections::{BTreeMap, HashMap};

/// One key and what became of it; `None` is a delete.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// A write that somebody asked for. Its changes make up exactly one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub changes: Vec<Change>,
    /// Where the server said it is; `None` when the answer never came.
    pub revision: Option<i64>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An acknowledged write is not at its revision, or not as it was asked for.
    Lost(Record),
    /// Changes that nobody asked for, or that came a second time.
    Phantom { revision: i64, changes: Vec<Change> },
    /// No change has this revision.
    Gap(i64),
}

/// Everything that was written from the first revision that is checked.
#[derive(Debug, Default)]
pub struct History {
    /// The last revision that was checked before.
    checked: i64,
    /// Writes without an answer so far: each may turn up once, at any time.
    unknown: HashMap<Vec<Change>, usize>,
    acknowledged: usize,
    found: usize,
}

impl History {
    /// A history that starts behind `revision`.
    pub fn after(revision: i64) -> History {
        History { checked: revision, ..History::default() }
    }

    /// Holds what happened since the last check, `log`, against what was asked since, `records`.
    ///
    /// `log` must reach from just behind [`History::checked`] to `revision`, which was read from
    /// the server after its restart.
    pub fn check(
        &mut self,
        records: Vec<Record>,
        log: BTreeMap<i64, Vec<Change>>,
        revision: i64,
    ) -> Vec<Fault> {
        let mut faults: Vec<Fault> = (self.checked + 1..=revision)
            .filter(|revision| !log.contains_key(revision))
            .map(Fault::Gap)
            .collect();
        let mut acknowledged = BTreeMap::new();
        for mut record in records {
            record.changes.sort();
            match record.revision {
                None => *self.unknown.entry(record.changes).or_default() += 1,
                Some(at) => {
                    self.acknowledged += 1;
                    if log.get(&at).map(|changes| sorted(changes)) == Some(record.changes.clone()) {
                        acknowledged.insert(at, record);
                    } else {
                        faults.push(Fault::Lost(record));
                    }
                }
            }
        }
        for (at, changes) in log {
            if acknowledged.contains_key(&at) {
                continue;
            }
            match self.unknown.get_mut(&sorted(&changes)) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    self.found += 1;
                }
                _ => faults.push(Fault::Phantom { revision: at, changes }),
            }
        }
        self.checked = revision;
        faults
    }

    pub fn checked(&self) -> i64 {
        self.checked
    }

    /// Writes that the server acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Writes without an answer that turned out to have happened.
    pub fn found(&self) -> usize {
        self.found
    }

    /// Writes without an answer that did not happen, so far.
    pub fn missing(&self) -> usize {
        self.unknown.values().sum()
    }
}

fn sorted(changes: &[Change]) -> Vec<Change> {
    let mut changes = changes.to_vec();
    changes.sort();
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, value: &str) -> Change {
        Change { key: key.into(), value: Some(value.into()) }
    }

    fn put(key: &str, value: &str, revision: Option<i64>) -> Record {
        Record { changes: vec![change(key, value)], revision }
    }

    fn records() -> Vec<Record> {
        vec![put("a", "1", Some(2)), put("b", "2", Some(3)), put("c", "3", None), put("d", "4", Some(5))]
    }

    fn log() -> BTreeMap<i64, Vec<Change>> {
        let changes = [change("a", "1"), change("b", "2"), change("c", "3"), change("d", "4")];
        (2..).zip(changes).map(|(revision, change)| (revision, vec![change])).collect()
    }

    fn check(records: Vec<Record>, log: BTreeMap<i64, Vec<Change>>) -> Vec<Fault> {
        let last = log.keys().copied().max().unwrap_or(1);
        History::after(1).check(records, log, last)
    }

    #[test]
    fn a_sound_history_passes() {
        assert_eq!(check(records(), log()), []);
        let mut unanswered = log();
        let last = unanswered.remove(&5).unwrap();
        unanswered.insert(4, last);
        let mut records = records();
        records[3].revision = Some(4);
        assert_eq!(check(records, unanswered), [], "a write without an answer need not have happened");
    }

    #[test]
    fn each_fault_is_named() {
        let mut lost = log();
        lost.remove(&5);
        assert!(matches!(check(records(), lost)[..], [Fault::Lost(_)]));

        let mut gap = log();
        gap.remove(&4);
        assert_eq!(check(records(), gap), [Fault::Gap(4)]);

        let mut other_value = log();
        other_value.insert(3, vec![change("b", "other")]);
        assert!(matches!(
            check(records(), other_value)[..],
            [Fault::Lost(_), Fault::Phantom { revision: 3, .. }]
        ));

        let mut twice = log();
        twice.insert(6, vec![change("c", "3")]);
        assert!(matches!(check(records(), twice)[..], [Fault::Phantom { revision: 6, .. }]));

        let mut swapped = log();
        let (two, three) = (swapped[&2].clone(), swapped[&3].clone());
        swapped.insert(2, three);
        swapped.insert(3, two);
        assert_eq!(check(records(), swapped).len(), 4);

        let mut half = records();
        half[0].changes.push(change("a2", "1"));
        assert!(matches!(check(half, log())[..], [Fault::Lost(_), Fault::Phantom { revision: 2, .. }]));
    }

    #[test]
    fn a_write_without_an_answer_may_turn_up_in_a_later_check_but_once() {
        let mut history = History::after(1);
        assert_eq!(history.check(vec![put("c", "3", None)], BTreeMap::new(), 1), []);
        let late = |revision| BTreeMap::from([(revision, vec![change("c", "3")])]);
        assert_eq!(history.check(Vec::new(), late(2), 2), []);
        assert!(matches!(history.check(Vec::new(), late(3), 3)[..], [Fault::Phantom { .. }]));
    }
}
