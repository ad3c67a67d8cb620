//! `lint` and `test`.

use std::{path::Path, sync::Arc};

use keygate_policies::{
    BundlePolicy, Failure, Outcome,
    bundle::{Draft, RangeText, Row},
    lint as lint_draft, run_tests,
};
use serde_json::{Value, json};

use super::{Output, Unusable, Verdict, finding_json, now, open, read, row_json, say};

pub(super) fn lint(path: &Path, output: Output) -> Result<Verdict, Unusable> {
    let findings = lint_draft(&Draft::read(&open(path, output)?), Some(now()));
    match output {
        Output::Text => {
            let lines: String = findings.iter().map(|found| format!("{found}\n")).collect();
            say(&if findings.is_empty() { "ok\n".to_owned() } else { lines });
        }
        Output::Json => {
            let all: Vec<Value> = findings.iter().map(finding_json).collect();
            say(&format!("{:#}\n", json!({ "ok": findings.is_empty(), "findings": all })));
        }
    }
    Ok(if findings.is_empty() { Verdict::Fine } else { Verdict::Found })
}

pub(super) fn test(path: &Path, output: Output) -> Result<Verdict, Unusable> {
    let policy = BundlePolicy::compile(Arc::new(read(path, output)?));
    let report = run_tests(&policy);
    let unexercised: Vec<&Row> = report.unexercised.iter().filter_map(|id| policy.row(*id)).collect();
    let rows = policy.bundle().rows().len();
    match output {
        Output::Text => {
            let mut text = String::new();
            for failure in &report.failures {
                text.push_str(&failure_text(failure, &policy));
            }
            for row in &unexercised {
                text.push_str(&format!("policy.csv:{}: no test needs `{row}`\n", row.line));
            }
            text.push_str(&format!(
                "{} passed, {} failed; {} of {rows} rows are needed by a test\n",
                report.passed,
                report.failures.len(),
                rows - unexercised.len()
            ));
            say(&text);
        }
        Output::Json => {
            let failures: Vec<Value> =
                report.failures.iter().map(|failure| failure_json(failure, &policy)).collect();
            let unexercised: Vec<Value> = unexercised.iter().map(|row| row_json(row)).collect();
            say(&format!(
                "{:#}\n",
                json!({
                    "ok": report.failures.is_empty(),
                    "passed": report.passed,
                    "failures": failures,
                    "rows": rows,
                    "unexercised": unexercised,
                })
            ));
        }
    }
    Ok(if report.failures.is_empty() { Verdict::Fine } else { Verdict::Found })
}

pub(super) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allow => "allowed",
        Outcome::Filter => "filtered",
        Outcome::Deny => "denied",
    }
}

fn failure_text(failure: &Failure, policy: &BundlePolicy) -> String {
    let decision = failure.explanation.decision;
    let by = match decision.row.and_then(|row| policy.row(row)) {
        Some(row) => format!("by policy.csv:{} `{row}`", row.line),
        None => "by no row".to_owned(),
    };
    let hidden = match &failure.expected_hidden {
        None => String::new(),
        Some(expected) => {
            let texts = |ranges: &[keygate_core::KeyRange]| {
                ranges.iter().map(|range| RangeText(range).to_string()).collect::<Vec<_>>().join(" ")
            };
            format!(", hiding `{}` and not `{}`", texts(&failure.explanation.hidden), texts(expected))
        }
    };
    format!(
        "{}:{}: {}: `{}` must be {} and is {} {by}{hidden}\n",
        failure.file,
        failure.line,
        failure.who,
        failure.request,
        outcome_name(failure.expected),
        outcome_name(decision.outcome)
    )
}

fn failure_json(failure: &Failure, policy: &BundlePolicy) -> Value {
    let decision = failure.explanation.decision;
    let hidden: Vec<String> =
        failure.explanation.hidden.iter().map(|range| RangeText(range).to_string()).collect();
    json!({
        "file": failure.file,
        "line": failure.line,
        "who": failure.who,
        "request": failure.request,
        "expected": outcome_name(failure.expected),
        "found": outcome_name(decision.outcome),
        "by": decision.row.and_then(|row| policy.row(row)).map(row_json),
        "hidden": hidden,
    })
}
