//! The tests that a bundle brings: what fails, by which row, and which rows no test needs.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod bundles;

use keygate_policies::bundle::Bundle;
use keygate_policies::{BundlePolicy, Outcome, Report, run_tests};
use std::sync::Arc;

const POLICY: &str = "\
p, role:w, pay, /pay/*, readwrite, allow
p, user:*, pay, /pay/secret/*, read, deny, on_partial=filter
p, user:*, pay, /pay/secret/*, write, deny
p, role:w, pay, /old/*, read, allow
";

fn run(tests: &str) -> Report {
    let files = bundles::files(POLICY, "g, user:svc, role:w, pay\n", tests);
    run_tests(&BundlePolicy::compile(Arc::new(Bundle::read(&files).unwrap())))
}

#[test]
fn tests_that_hold_pass_and_rows_without_a_test_are_named() {
    let report = run(
        "- as: {tenant: pay, user: svc}\n  allow: [\"put /pay/a\", \"range [/pay/, /pay/b)\"]\n  deny: [\"range [/pay/, /pay1)\", \"put /pay/secret/x\", \"put /paypal/x\", compact]\n- as: {tenant: pay, user: svc}\n  filtered: {request: \"range [/pay/, /pay0)\", hidden: [\"/pay/secret/*\"]}\n",
    );
    assert_eq!((report.passed, report.failures.len()), (7, 0));
    assert_eq!(report.unexercised, [3]);
}

#[test]
fn rows_that_cover_a_range_together_are_all_needed() {
    let policy = "p, user:u, t, [a, c), read, allow\np, user:u, t, [c, e), read, allow\np, user:u, t, [d, f), read, allow\n";
    let files = bundles::files(policy, "", "- as: {tenant: t, user: u}\n  allow: [\"range [b, d)\"]\n");
    let report = run_tests(&BundlePolicy::compile(Arc::new(Bundle::read(&files).unwrap())));
    assert_eq!((report.passed, report.unexercised), (1, vec![2]));
}

#[test]
fn failures_name_the_case_and_the_row() {
    let report = run(
        "- as: {user: x}\n  deny: [compact]\n- as: {tenant: pay, user: svc}\n  allow: [\"put /pay/secret/x\", \"get /else\"]\n  deny: [\"put /pay/a\", \"range /pay/*\"]\n  filtered: [{request: \"range /pay/*\", hidden: [\"/pay/other/*\"]}]\n",
    );
    let told: Vec<_> = report
        .failures
        .iter()
        .map(|failure| {
            let decided = failure.explanation.decision;
            assert_eq!((failure.line, failure.who.as_str()), (3, "svc@pay"));
            (failure.request.as_str(), failure.expected, decided.outcome, decided.row)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("write =/pay/secret/x", Outcome::Allow, Outcome::Deny, Some(2)),
            ("read =/else", Outcome::Allow, Outcome::Deny, None),
            ("write =/pay/a", Outcome::Deny, Outcome::Allow, Some(0)),
            ("read /pay/*", Outcome::Deny, Outcome::Filter, Some(1)),
            ("read /pay/*", Outcome::Filter, Outcome::Filter, Some(1)),
        ]
    );
    assert_eq!(report.passed, 1);
}

#[test]
fn the_example_is_without_findings_and_its_tests_need_every_row() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/cases/example");
    let files = keygate_policies::bundle::Files::open(std::path::Path::new(folder)).unwrap();
    assert_eq!(keygate_policies::lint(&keygate_policies::bundle::Draft::read(&files), None), []);
    let report = run_tests(&BundlePolicy::compile(Arc::new(Bundle::read(&files).unwrap())));
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    assert_eq!(report.unexercised, [0; 0]);
    assert_eq!(report.passed, 30);
}
