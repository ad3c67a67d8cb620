//! The compiled form answers as casbin does. Every pair is a random policy and a random request over
//! keys of arbitrary bytes; casbin is asked about each piece of a range by itself.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod generated;

use generated::{Generator, KEYSPACE};
use keygate_core::{Access, AdminVerb, Decision, KeyAction, KeyRange};
use keygate_policies::{Compiler, Oracle};
use rand::Rng;
use std::collections::HashMap;

const PAIRS: u64 = 1_000_000;
const REQUESTS_PER_POLICY: u64 = 500;
/// Fewer questions than this would mean that answers came from too small a variety.
const FLOOR_CASBIN: u64 = 200_000;
/// Of each answer there must be many, or the generator tests nothing.
const FLOOR_EACH_ANSWER: u64 = PAIRS / 10;

#[test]
fn compiled_policies_decide_as_casbin_does() {
    let workers = 2;
    let counts: Vec<Counts> = std::thread::scope(|scope| {
        let started: Vec<_> =
            (0..workers).map(|seed| scope.spawn(move || compare(seed, PAIRS / workers))).collect();
        started.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let sum = |field: fn(&Counts) -> u64| counts.iter().map(field).sum::<u64>();
    let (allowed, denied) = (sum(|c| c.allowed), sum(|c| c.denied));
    println!(
        "pairs={} policies={} casbin={} allowed={allowed} denied={denied} empty_ranges={} others={}",
        allowed + denied,
        sum(|c| c.policies),
        sum(|c| c.casbin),
        sum(|c| c.empty),
        sum(|c| c.others),
    );
    assert!(allowed + denied >= PAIRS);
    assert!(allowed >= FLOOR_EACH_ANSWER && denied >= FLOOR_EACH_ANSWER);
    assert!(sum(|c| c.casbin) >= FLOOR_CASBIN);
    assert!(sum(|c| c.empty) >= PAIRS / 100);
}

#[derive(Default)]
struct Counts {
    policies: u64,
    casbin: u64,
    allowed: u64,
    denied: u64,
    empty: u64,
    others: u64,
}

fn compare(seed: u64, pairs: u64) -> Counts {
    let mut generator = Generator::new(seed);
    let compiler = Compiler::new().unwrap();
    let mut counts = Counts::default();
    while counts.allowed + counts.denied < pairs {
        generator.renew_keys();
        let tables = generator.tables();
        // One compiler for all: each policy is made from the one before, as in the product.
        let policy = compiler.compile_policy(KEYSPACE, &tables);
        let oracle = Oracle::new(KEYSPACE, &tables).unwrap();
        let mut known: HashMap<(String, KeyAction, KeyRange), bool> = HashMap::new();
        counts.policies += 1;
        for name in tables.users.keys() {
            for access in other_accesses(&mut generator) {
                let decided = policy.user_decide_other(name, &access) == Decision::Allow;
                let expected = oracle.allows_other(name, &access).unwrap();
                assert_eq!(decided, expected, "`{name}` {access:?} under {tables:#?}");
                counts.others += 1;
            }
        }
        for _ in 0..REQUESTS_PER_POLICY {
            let user = match generator.rng.random_range(0..8) {
                0 => generator.name(),
                pick => tables.users.keys().nth(pick % tables.users.len()).unwrap().clone(),
            };
            let (action, range) = (generator.action(), generator.range());
            let decided = policy.user_decide_keys(&user, action, &range) == Decision::Allow;
            // The same question has the same answer: only new ones are put to casbin.
            let expected = *known.entry((user.clone(), action, range.clone())).or_insert_with(|| {
                counts.casbin += 1;
                oracle.allows_keys(&user, action, &range).unwrap()
            });
            assert_eq!(decided, expected, "`{user}` {action:?} {range:?} under {tables:#?}");
            counts.empty += u64::from(range.is_empty());
            if decided { counts.allowed += 1 } else { counts.denied += 1 }
        }
    }
    counts
}

fn other_accesses(generator: &mut Generator) -> Vec<Access> {
    vec![
        Access::Authenticated,
        Access::Admin(AdminVerb::Compact),
        Access::Admin(AdminVerb::AuthChange),
        Access::UserRecord(generator.name()),
        Access::RoleRecord(generator.name()),
    ]
}
