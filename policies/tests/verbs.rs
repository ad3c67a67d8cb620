//! Administrative verbs, all of them: what questions, tests and differences say of each is what a server decides.
//!
//! Two do not follow from rows alone: what every user may do needs none, and what is the platform's is given by none in a tenant.
//! Questions said no to the one and yes to the other.

mod bundles;

use keygate_core::{
    Access, AdminVerb, AuthTables, Caller, Compile as _, DEFAULT_TENANT, Decision, Evidence, Groups, InForce,
    KeyRange, KeyspaceId, Origin, PlatformPolicy, Policy as _,
};
use keygate_policies::bundle::{Action, Context, Request, Verb};
use keygate_policies::{Asker, BundlePolicy, Compiler, Outcome, diff, run_tests, who_can};
use std::sync::Arc;

const TENANTS: [&str; 2] = [DEFAULT_TENANT, "pay"];
/// `even` and `odd` have every other verb, `bound` is denied all, nobody says anything of `named` but one key.
const USERS: [&str; 4] = ["even", "odd", "bound", "named"];

fn policy() -> BundlePolicy {
    let mut rows = String::new();
    for tenant in TENANTS {
        for (at, verb) in Verb::ALL.into_iter().enumerate() {
            let who = if at % 2 == 0 { "even" } else { "odd" };
            rows.push_str(&format!("p, user:{who}, {tenant}, -, {}, allow\n", verb.name()));
            rows.push_str(&format!("p, user:bound, {tenant}, -, {}, deny\n", verb.name()));
        }
        rows.push_str(&format!("p, user:named, {tenant}, =/k, read, allow\n"));
    }
    BundlePolicy::compile(Arc::new(bundles::bundle(&rows, "")))
}

/// As a server does where its bundle alone says something: a right of the platform is never asked about in a tenant.
fn decides(platform: &PlatformPolicy, tenant: &str, user: &str, verb: AdminVerb) -> bool {
    if tenant != DEFAULT_TENANT && verb.is_of_the_platform() {
        return false;
    }
    let keyspace = if tenant == DEFAULT_TENANT { KeyspaceId::DEFAULT } else { KeyspaceId(7) };
    let tables = AuthTables { enabled: true, ..AuthTables::default() };
    let tables = Compiler::new().expect("the model").compile(keyspace, &tables, None);
    let caller = Caller::User {
        keyspace,
        name: user.into(),
        evidence: Evidence::Certificate,
        groups: Groups::NONE,
        origin: Origin::default(),
    };
    let policy = InForce::new(tables.as_ref(), platform, tenant, 0);
    assert!(policy.knows(&caller), "{user}");
    policy.decide_other(&caller, &Access::Admin(verb)) == Decision::Allow
}

#[test]
fn what_is_said_of_a_verb_is_what_a_server_decides() {
    let (policy, mut allowed, mut denied) = (policy(), 0, 0);
    let platform = PlatformPolicy { revision: 1, rules: Some(Arc::new(self::policy())) };
    for tenant in TENANTS {
        for user in USERS {
            for verb in Verb::ALL {
                let asker = Asker { tenant, user, groups: &[] };
                let (action, keys) = (Action::Verb(verb), KeyRange::everything());
                let told = policy.explain(&asker, &Context::default(), action, &keys);
                let expected = match decides(&platform, tenant, user, verb.right()) {
                    true => Outcome::Allow,
                    false => Outcome::Deny,
                };
                assert_eq!(told.decision.outcome, expected, "{} by {user} of {tenant}", verb.name());
                let holders = who_can(&policy, tenant, &Request { action, keys });
                let holds = holders.iter().any(|holder| holder.who.to_string() == format!("user:{user}"));
                assert_eq!(holds, expected == Outcome::Allow, "who can {} in {tenant}", verb.name());
                if expected == Outcome::Allow { allowed += 1 } else { denied += 1 }
            }
        }
    }
    println!("{allowed} allowed, {denied} denied");
    assert!(allowed >= 30 && denied >= 60);
}

#[test]
fn tests_of_a_bundle_see_verbs_as_a_server_decides_them() {
    let tests = "- as: {tenant: pay, user: u}\n  allow: [member-list, status]\n  deny: [defrag, compact]\n\
                 - as: {tenant: default, user: u}\n  allow: [member-list, defrag]\n  deny: [status, compact]\n";
    let rows = "p, user:u, *, -, defrag, allow\np, user:u, default, -, status, deny\n";
    let files = bundles::files(rows, "", tests);
    let bundle = keygate_policies::bundle::Bundle::read(&files).expect("a bundle");
    let report = run_tests(&BundlePolicy::compile(Arc::new(bundle)));
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(report.passed, 8);
}

#[test]
fn a_row_that_gives_nothing_is_no_difference() {
    let told = |new: &str| -> Vec<String> {
        diff(&bundles::bundle("", ""), &bundles::bundle(new, "")).iter().map(ToString::to_string).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(told("p, user:u, pay, -, member-list, allow\n"), none, "every user may");
    assert_eq!(told("p, user:u, pay, -, defrag, allow\n"), none, "no tenant's row gives it");
    assert_eq!(told("p, user:u, default, -, defrag, allow\n"), ["default: user:u gains defrag"]);
    assert_eq!(told("p, user:u, pay, -, status, deny\n"), ["pay: user:u loses status"]);
    assert_eq!(
        told("p, user:u, *, -, defrag, allow\np, user:u, *, -, compact, allow\n"),
        ["every other tenant: user:u gains compact", "default: user:u gains defrag"]
    );
}
