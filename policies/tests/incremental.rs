//! A policy that was made from the one before decides as one made from nothing, and the ones before
//! go on deciding as they did.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod generated;

use generated::{Generator, KEYSPACE};
use keygate_core::{Access, AuthTables, Decision, Fence, KeyAction, KeyRange, KeyspaceId, Policy};
use keygate_policies::{CompiledPolicy, Compiler};
use rand::Rng;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

const CHANGES: usize = 20_000;

type Question = (String, KeyAction, KeyRange);
type Answered = (Arc<CompiledPolicy>, Vec<(Question, Decision)>);

#[test]
fn policies_made_step_by_step_decide_as_policies_made_at_once() {
    let mut generator = Generator::new(7);
    let stepwise = Compiler::new().unwrap();
    let mut tables = generator.tables();
    let mut older: Vec<(Arc<CompiledPolicy>, Question, Decision)> = Vec::new();
    let (mut compared, mut remembered) = (0, 0);
    for step in 0..CHANGES {
        if step % 100 == 0 {
            generator.renew_keys();
        }
        change(&mut generator, &mut tables);
        let policy = stepwise.compile_policy(KEYSPACE, &tables);
        let fresh = from_nothing(&tables);
        for _ in 0..10 {
            let question = (generator.name(), generator.action(), generator.range());
            let decision = ask(&policy, &question);
            assert_eq!(decision, ask(&fresh, &question), "{question:?} under {tables:#?}");
            let record = Access::RoleRecord(generator.name());
            assert_eq!(
                policy.user_decide_other(&question.0, &record),
                fresh.user_decide_other(&question.0, &record)
            );
            assert_eq!(policy.knows_user(&question.0), tables.users.contains_key(&question.0));
            compared += 1;
            if generator.rng.random_ratio(1, 10) {
                older.push((policy.clone(), question, decision));
            }
        }
        assert_eq!(policy.fence(), Fence { platform: 0, keyspace: tables.policy_version });
        // Old policies share slots with the new one: asking them again must not mix the two up.
        if older.len() > 50 {
            let pick = generator.rng.random_range(0..older.len());
            let (policy, question, decision) = older.swap_remove(pick);
            assert_eq!(ask(&policy, &question), decision, "an old policy changed its mind: {question:?}");
            remembered += 1;
        }
    }
    println!("changes={CHANGES} compared={compared} remembered={remembered}");
    assert!(compared >= 200_000 && remembered >= 10_000);
}

/// Another keyspace number has no earlier policy, so each call starts from nothing.
fn from_nothing(tables: &AuthTables) -> Arc<CompiledPolicy> {
    static COMPILER: LazyLock<Compiler> = LazyLock::new(|| Compiler::new().unwrap());
    static NEXT: AtomicU32 = AtomicU32::new(2);
    COMPILER.compile_policy(KeyspaceId(NEXT.fetch_add(1, Ordering::Relaxed)), tables)
}

fn ask(policy: &CompiledPolicy, (user, action, range): &Question) -> Decision {
    policy.user_decide_keys(user, *action, range)
}

fn change(generator: &mut Generator, tables: &mut AuthTables) {
    let name = generator.name();
    let existing: Vec<String> = tables.roles.keys().cloned().collect();
    match generator.rng.random_range(0..8) {
        0 => drop(tables.users.remove(&name)),
        1 => drop(tables.roles.remove(&name)),
        2..5 => {
            let user = generator.user(&name, &existing);
            tables.users.insert(name, user);
        }
        _ => {
            let role = generator.role(&name);
            tables.roles.insert(name, role);
        }
    }
    tables.policy_version += 1;
}

#[test]
fn many_threads_ask_while_policies_follow_each_other() {
    let mut generator = Generator::new(11);
    let compiler = Compiler::new().unwrap();
    let mut tables = generator.tables();
    let policies: Vec<Answered> = (0..200)
        .map(|_| {
            change(&mut generator, &mut tables);
            let policy = compiler.compile_policy(KEYSPACE, &tables);
            let fresh = from_nothing(&tables);
            let questions = (0..20).map(|_| (generator.name(), generator.action(), generator.range()));
            let answered = questions.map(|question| {
                let decision = ask(&fresh, &question);
                (question, decision)
            });
            (policy, answered.collect())
        })
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let policies = &policies;
            scope.spawn(move || {
                for round in 0..20 {
                    for (policy, answered) in policies.iter().skip((thread * 50 + round) % 200) {
                        for (question, decision) in answered {
                            assert_eq!(ask(policy, question), *decision, "{question:?}");
                        }
                    }
                }
            });
        }
    });
}
