//! How long decisions and compilations take, in nanoseconds.
//!
//! Percentiles are by the wall clock and include its cost; means are processor time of this thread,
//! which a busy machine does not change as much.
//!
//! `cargo run --release -p keygate-policies --example decide_bench`

use bytes::Bytes;
use keygate_core::{
    AuthTables, Compile, KeyAction, KeyRange, KeyspaceId, Permission, PermissionKind, Role, User,
};
use keygate_policies::Compiler;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const USERS: usize = 10_000;
const SAMPLES: usize = 200_000;

fn main() {
    let compiler = Compiler::new().expect("the built-in model is supported");
    println!("one role holds all rules; 10,000 users");
    for rules in [10, 1_000, 10_000] {
        decide(&compiler, &format!("rules={rules}"), &tables(1, rules));
    }
    println!("1,000 roles of 10 rules, 3 for each of 10,000 users");
    let many = tables(1_000, 10);
    decide(&compiler, "rules=10000", &many);
    compile(&compiler, many);
}

fn decide(compiler: &Compiler, name: &str, tables: &AuthTables) {
    let policy = compiler.compile_policy(KeyspaceId::DEFAULT, tables);
    // Users of a serving process have been asked about before: all are, once.
    let mut first: Vec<u64> = (0..USERS)
        .map(|user| {
            let started = Instant::now();
            black_box(policy.user_decide_keys(&user_name(user), KeyAction::Read, &single(user, 0)));
            started.elapsed().as_nanos() as u64
        })
        .collect();
    report(name, "first decision", &mut first);
    let users: Vec<String> = (0..USERS).map(user_name).collect();
    let ranges: Vec<[KeyRange; 2]> =
        (0..USERS).map(|n| [single(n % 1_000, n % 10), span(n % 1_000, n % 10)]).collect();
    for (kind, index) in [("single", 0), ("range", 1)] {
        let mut times: Vec<u64> = (0..SAMPLES)
            .map(|sample| {
                let pick = sample.wrapping_mul(7_919) % USERS;
                let started = Instant::now();
                black_box(policy.user_decide_keys(&users[pick], KeyAction::Read, &ranges[pick][index]));
                started.elapsed().as_nanos() as u64
            })
            .collect();
        report(name, kind, &mut times);
        let started = processor_time();
        for sample in 0..SAMPLES {
            let pick = sample.wrapping_mul(7_919) % USERS;
            black_box(policy.user_decide_keys(&users[pick], KeyAction::Read, &ranges[pick][index]));
        }
        println!(
            "{name:14} {kind:16} mean={} (without the clock)",
            (processor_time() - started) / SAMPLES as u64
        );
        let started = processor_time();
        for _ in 0..SAMPLES {
            black_box(policy.user_decide_keys(&users[7], KeyAction::Read, &ranges[7][index]));
        }
        println!(
            "{name:14} {kind:16} mean={} (one user again and again)",
            (processor_time() - started) / SAMPLES as u64
        );
    }
}

fn compile(compiler: &Compiler, mut tables: AuthTables) {
    let started = Instant::now();
    let mut policy = Compiler::compile(compiler, KeyspaceId(2), &tables, None);
    println!("from nothing: {} µs", started.elapsed().as_micros());
    for kind in ["one role", "one user"] {
        let mut times: Vec<u64> = (0..5_000)
            .map(|change| {
                if kind == "one role" {
                    let role = role(change % 1_000, 10);
                    tables.roles.insert(role.name.clone(), Arc::new(role));
                } else {
                    let user = user(change % USERS, 1_000);
                    tables.users.insert(
                        user.name.clone(),
                        Arc::new(User { credential_revision: change as u64, ..user }),
                    );
                }
                tables.policy_version += 1;
                let started = Instant::now();
                policy = Compiler::compile(compiler, KeyspaceId(2), &tables, Some(&policy));
                started.elapsed().as_nanos() as u64
            })
            .collect();
        report("compile", kind, &mut times);
    }
}

/// Nanoseconds this thread has run, as Linux counts them; 0 elsewhere.
fn processor_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

fn report(name: &str, kind: &str, times: &mut [u64]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{name:14} {kind:16} p50={} p99={} p99.9={}", at(0.5), at(0.99), at(0.999));
}

fn tables(roles: usize, rules: usize) -> AuthTables {
    let mut tables = AuthTables { enabled: true, ..AuthTables::default() };
    for number in 0..roles {
        let role = role(number, rules);
        tables.roles.insert(role.name.clone(), Arc::new(role));
    }
    for number in 0..USERS {
        let user = user(number, roles);
        tables.users.insert(user.name.clone(), Arc::new(user));
    }
    tables
}

fn role(number: usize, rules: usize) -> Role {
    let rule = |rule| Permission { kind: PermissionKind::ReadWrite, range: span(number, rule) };
    Role { name: format!("role-{number:05}"), permissions: (0..rules).map(rule).collect() }
}

fn user(number: usize, roles: usize) -> User {
    let mut held: Vec<String> =
        [0, 333, 666].iter().map(|offset| format!("role-{:05}", (number + offset) % roles)).collect();
    held.sort();
    held.dedup();
    User { name: user_name(number), password: None, roles: held, credential_revision: 1 }
}

fn user_name(number: usize) -> String {
    format!("user-{number:05}")
}

fn span(role: usize, rule: usize) -> KeyRange {
    let key = |last| Bytes::from(format!("/apps/{role:05}/{rule:05}/{last}"));
    KeyRange::Span { start: key('a'), end: key('n') }
}

fn single(role: usize, rule: usize) -> KeyRange {
    KeyRange::Single(Bytes::from(format!("/apps/{role:05}/{rule:05}/key")))
}
