//! Counts of requests that met a limit, by tenant, class and rule. Bounded: when there are too many of these, tenants
//! that come later are counted together.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Series on the page of metrics, at most this many and one for each class and rule.
const MAX_KEYS: usize = 1_024;

/// A tenant's name can be neither this nor empty.
const OTHERS: &str = "(others)";

#[derive(Default)]
pub(super) struct Tallies(Mutex<BTreeMap<Key, Counts>>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    /// Empty: nobody's in particular.
    tenant: Arc<str>,
    class: &'static str,
    rule: &'static str,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    refused: u64,
    shadow: u64,
}

/// What was counted of one tenant, class and rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tally {
    pub tenant: Arc<str>,
    pub class: &'static str,
    pub rule: &'static str,
    pub refused: u64,
    /// Would have been refused.
    pub shadow: u64,
}

impl Tallies {
    /// `refuses` is false for a limit that is only tried out.
    pub(super) fn count(&self, tenant: &str, class: &'static str, rule: &'static str, refuses: bool) {
        let mut counts = self.0.lock();
        let mut key = Key { tenant: tenant.into(), class, rule };
        if counts.len() >= MAX_KEYS && !counts.contains_key(&key) {
            key.tenant = OTHERS.into();
        }
        let count = counts.entry(key).or_default();
        if refuses {
            count.refused += 1;
        } else {
            count.shadow += 1;
        }
    }

    pub(super) fn all(&self) -> Vec<Tally> {
        let tally = |(key, counts): (&Key, &Counts)| Tally {
            tenant: key.tenant.clone(),
            class: key.class,
            rule: key.rule,
            refused: counts.refused,
            shadow: counts.shadow,
        };
        self.0.lock().iter().map(tally).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_tenants_there_are_the_page_stays_short() {
        let tallies = Tallies::default();
        for tenant in 0..MAX_KEYS + 500 {
            tallies.count(&format!("t{tenant}"), "write", "requests", tenant % 2 == 0);
        }
        let all = tallies.all();
        assert_eq!(all.len(), MAX_KEYS + 1);
        let others = all.iter().find(|tally| tally.tenant.as_ref() == OTHERS).unwrap();
        assert_eq!((others.refused, others.shadow), (250, 250));
    }
}
