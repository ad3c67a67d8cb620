//! Runs the tests that a bundle brings, and tells which rows no test needed.

use crate::bundle::{RangeText, Request, TestCase};
use crate::decision::{Asker, BundlePolicy, Outcome};
use crate::explain::Explanation;
use crate::segments::RowId;
use keygate_core::KeyRange;
use std::collections::BTreeSet;

/// A request that was decided otherwise than its test says.
#[derive(Clone, Debug)]
pub struct Failure {
    pub file: String,
    pub line: u32,
    /// `USER@TENANT`.
    pub who: String,
    pub request: String,
    pub expected: Outcome,
    pub explanation: Explanation,
    /// For a filtered answer that hides other keys: those that the test lists.
    pub expected_hidden: Option<Vec<KeyRange>>,
}

/// What the tests came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub passed: usize,
    pub failures: Vec<Failure>,
    /// Rows that decided, or were part of deciding, no request of any test.
    pub unexercised: Vec<RowId>,
}

/// Asks all requests of all tests.
pub fn run_tests(policy: &BundlePolicy) -> Report {
    let mut report = Report::default();
    let mut exercised = BTreeSet::new();
    for case in policy.bundle().tests() {
        let allow = case.allow.iter().map(|request| (request, Outcome::Allow, None));
        let deny = case.deny.iter().map(|request| (request, Outcome::Deny, None));
        let filtered = case.filtered.iter().map(|one| (&one.request, Outcome::Filter, Some(&one.hidden)));
        for (request, expected, hidden) in allow.chain(deny).chain(filtered) {
            let explanation = ask(policy, case, request);
            exercised.extend(explanation.matched.iter().copied());
            let same_hidden = hidden.is_none_or(|hidden| normal(hidden) == normal(&explanation.hidden));
            if explanation.decision.outcome == expected && same_hidden {
                report.passed += 1;
                continue;
            }
            report.failures.push(Failure {
                file: case.file.clone(),
                line: case.line,
                who: format!("{}@{}", case.user, case.tenant),
                request: request.to_string(),
                expected,
                explanation,
                expected_hidden: hidden.cloned(),
            });
        }
    }
    let rows = (0..policy.bundle().rows().len()).filter_map(|id| RowId::try_from(id).ok());
    report.unexercised = rows.filter(|id| !exercised.contains(id)).collect();
    report
}

fn ask(policy: &BundlePolicy, case: &TestCase, request: &Request) -> Explanation {
    let groups: Vec<&str> = case.groups.iter().map(String::as_str).collect();
    let asker = Asker { tenant: &case.tenant, user: &case.user, groups: &groups };
    policy.explain(&asker, &case.context, request.action, &request.keys)
}

/// Lists of patterns that hold the same keys in the same pieces are the same list.
fn normal(ranges: &[KeyRange]) -> BTreeSet<String> {
    ranges.iter().map(|range| RangeText(range).to_string()).collect()
}
