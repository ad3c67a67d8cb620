//! What was denied lately, for the operator: a denied client is told no more than etcd tells, and a number in the
//! trailer `x-keygate-decision-id`, under which `keygate policy explain` finds who asked for what.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::authorize;
use keygate_core::{Access, Caller, DEFAULT_TENANT, Denial, KeyRange, Operation, Origin, Plaintext, Refusal};
use keygate_engine::View;
use keygate_policies::bundle::{Action, Request, Verb};
use parking_lot::Mutex;

/// Some minutes of an ordinary day; a flood pushes the older ones out.
const KEPT: usize = 1_000;
/// Of one request. A txn may touch thousands of ranges.
const REQUESTS: usize = 8;
/// Of the keys of one request, in bytes, and of a name. A client chooses how long they are; all that is kept takes a
/// few MiB at most.
const LONGEST: usize = 256;
/// Of one caller.
const GROUPS: usize = 16;

#[derive(Default)]
pub struct Denials {
    kept: Mutex<VecDeque<Denial>>,
    /// Numbers that say nothing about how many others were denied.
    numbers: ahash::RandomState,
    count: std::sync::atomic::AtomicU64,
}

impl Denials {
    /// Remembers a denial; the answer carries its number.
    pub fn note(&self, view: &View, caller: &Caller, operation: &Operation<Plaintext>) -> Refusal {
        let count = self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let decision = self.numbers.hash_one(count);
        let (groups, origin) = match caller {
            Caller::Anonymous { .. } => (Vec::new(), Origin::default()),
            Caller::User { groups, origin, .. } => {
                (groups.names().iter().take(GROUPS).map(|name| shortened(name)).collect(), *origin)
            }
        };
        let tenant = view.tenant_of(caller.keyspace()).map_or(DEFAULT_TENANT, |tenant| tenant.name.as_str());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut requests = Vec::new();
        operation.accesses(&mut |access| {
            if requests.len() < REQUESTS {
                requests.extend(told(access));
            }
        });
        let lacking = authorize::lacking(view, caller, operation);
        let denial = Denial {
            decision,
            at: i64::try_from(now).unwrap_or(i64::MAX),
            policy_revision: view.platform_policy().revision,
            tenant: tenant.to_owned(),
            user: shortened(caller.name().unwrap_or_default()),
            groups,
            origin,
            method: operation.method().to_owned(),
            requests,
            lacking: lacking.into_iter().filter(|text| text.len() <= 8 * LONGEST).collect(),
        };
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(denial);
        Refusal::Denied { decision }
    }

    pub fn find(&self, decision: u64) -> Option<Denial> {
        self.kept.lock().iter().rev().find(|denial| denial.decision == decision).cloned()
    }
}

fn shortened(name: &str) -> String {
    name.get(..name.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned()
}

/// In the words of `keygate policy explain`; None of what is too long to be kept.
fn told(access: Access) -> Option<String> {
    let (action, keys) = match access {
        Access::Keys { action, range } => (action.into(), range),
        Access::Admin(verb) => (Action::Verb(verb.into()), KeyRange::everything()),
        Access::UserRecord(_) => (Action::Verb(Verb::UserList), KeyRange::everything()),
        Access::RoleRecord(_) => (Action::Verb(Verb::RoleList), KeyRange::everything()),
        // Which keys these were is not known any more: whoever may have every key may have those.
        Access::KeysOfLease { action, .. } | Access::KeysOfAllLeases { action } => {
            (action.into(), KeyRange::everything())
        }
        // What is lacking is told apart.
        Access::Open | Access::Authenticated | Access::Grant(_) => return None,
    };
    let length = match &keys {
        KeyRange::Single(key) | KeyRange::From(key) => key.len(),
        KeyRange::Span { start, end } => start.len() + end.len(),
    };
    (length <= LONGEST).then(|| Request { action, keys }.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use keygate_core::KeyAction;

    #[test]
    fn what_clients_choose_is_kept_shortened_or_not_at_all() {
        let keys = |length: usize| Access::Keys {
            action: KeyAction::Read,
            range: KeyRange::Single(Bytes::from(vec![0xff; length])),
        };
        assert!(told(keys(LONGEST)).is_some_and(|text| text.len() < 5 * LONGEST));
        assert_eq!(told(keys(LONGEST + 1)), None);
        assert_eq!(shortened("alice"), "alice");
        assert_eq!(shortened(&"ä".repeat(LONGEST)).len(), LONGEST);
    }
}
