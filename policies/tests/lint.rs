//! Each rule has a fixture under `cases/lint` that breaks it and no other.
//!
//! A fixture says where the finding is expected and what differs from a bundle without findings: whole
//! files, `unsealed` ones that the manifest was not made for, or files to be left `without`.
//! `MODEL a => b` and `MANIFEST a => b` are the files with one text replaced.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod bundles;

use keygate_policies::bundle::{Draft, Files, Rule, Severity};
use keygate_policies::{BUNDLE_MODEL, lint};
use std::collections::BTreeSet;
use std::path::Path;

const POLICY: &str = "p, role:app, pay, /pay/*, readwrite, allow\n";
const ROLES: &str = "g, user:svc, role:app, pay\n";

fn fixture(text: &str) -> Files {
    let mut files = bundles::files(POLICY, ROLES, "");
    let mut unsealed = Vec::new();
    for part in text.split("\n== ").skip(1) {
        let (name, content) = part.split_once('\n').unwrap_or((part, ""));
        let content = if content.ends_with('\n') { content.to_owned() } else { format!("{content}\n") };
        match name.split_once(' ') {
            Some(("without", name)) => files.remove(name),
            Some(("unsealed", name)) => unsealed.push((name, content)),
            _ => files.insert(name, replaced("MODEL ", BUNDLE_MODEL, &content).into_bytes()),
        }
    }
    let mut files = bundles::sealed(files);
    for (name, content) in unsealed {
        let manifest = String::from_utf8(files.get("manifest.json").unwrap().to_vec()).unwrap();
        let content = content.replace("VERSION", env!("CARGO_PKG_VERSION"));
        files.insert(name, replaced("MANIFEST ", &manifest, &content).into_bytes());
    }
    files
}

fn replaced(word: &str, original: &str, content: &str) -> String {
    let Some(change) = content.strip_prefix(word) else { return content.to_owned() };
    let (from, to) = change.trim_end().split_once(" => ").expect("`a => b`");
    assert!(original.contains(from), "{from}");
    original.replace(from, to)
}

fn now() -> Option<keygate_policies::bundle::Instant> {
    "2026-11-01T00:00:00Z".parse().ok()
}

#[test]
fn every_rule_has_a_fixture_that_breaks_it_alone() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/lint");
    let mut met = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let rule = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected =
            text.lines().next().and_then(|line| line.strip_prefix("expect ")).expect("`expect FILE:LINE`");
        let findings = lint(&Draft::read(&fixture(&text)), now());
        let found: Vec<String> = findings
            .iter()
            .map(|found| format!("{} {}:{}", found.rule.name(), found.file, found.line))
            .collect();
        assert_eq!(found, [format!("{rule} {expected}")], "{findings:#?}");
        met.insert(rule);
    }
    let all: BTreeSet<String> = Rule::ALL.iter().map(|rule| rule.name().to_owned()).collect();
    assert_eq!(met, all);
}

#[test]
fn a_good_bundle_has_no_findings() {
    assert_eq!(lint(&Draft::read(&fixture("")), now()), []);
}

#[test]
fn a_comment_above_a_row_allows_a_warning_and_never_an_error() {
    let rule = |policy: &str| {
        let findings = lint(&Draft::read(&bundles::files(policy, ROLES, "")), now());
        findings.iter().map(|found| found.rule.name()).collect::<Vec<_>>()
    };
    let row = "p, user:*, pay, /public/*, read, allow\n";
    assert_eq!(rule(&format!("{POLICY}{row}")), ["subject-wildcard"]);
    assert!(rule(&format!("{POLICY}# lint:allow subject-wildcard for the front page\n{row}")).is_empty());
    assert_eq!(rule(&format!("{POLICY}# lint:allow subject-wildcard\n# more\n{row}")), ["subject-wildcard"]);
    assert_eq!(rule(&format!("{POLICY}# lint:allow row-shadowed\n{row}")), ["subject-wildcard"]);
    assert_eq!(
        rule(&format!("{POLICY}# lint:allow pattern-invalid\np, role:app, pay, /x, read, allow\n")),
        ["pattern-invalid"]
    );
}

#[test]
fn shadows_are_seen_through_actions_conditions_and_effects() {
    let shadowed = |rows: &[&str]| {
        let policy: String = rows.iter().map(|row| format!("p, role:app, {row}\n")).collect();
        let findings = lint(&Draft::read(&bundles::files(&policy, ROLES, "")), None);
        assert!(findings.iter().all(|found| found.severity() == Severity::Warning), "{findings:#?}");
        let shadows = findings.iter().filter(|found| found.rule == Rule::RowShadowed);
        shadows.map(|found| found.line).collect::<Vec<_>>()
    };
    let none: [u32; 0] = [];
    assert_eq!(shadowed(&["pay, /a/*, read, allow", "pay, /a/b/*, readwrite, allow"]), none);
    assert_eq!(
        shadowed(&["pay, /a/*, read, allow", "pay, /a/*, write, allow", "pay, /a/b/*, readwrite, allow"]),
        [3]
    );
    assert_eq!(shadowed(&["pay, =/a, read, allow", "pay, *, readwrite, allow"]), [1]);
    assert_eq!(
        shadowed(&["pay, /a/*, read, allow, connection=mtls", "pay, /a/*, read, allow, connection=tls|mtls"]),
        [1]
    );
    assert_eq!(
        shadowed(&["pay, /a/*, read, allow, connection=mtls", "pay, /a/*, read, allow, source=10.0.0.0/8"]),
        none
    );
    assert_eq!(shadowed(&["pay, /a/*, read, allow", "pay, /*, readwrite, deny"]), [1]);
    assert_eq!(shadowed(&["pay, /a/*, read, allow", "pay, /*, read, deny, on_partial=filter"]), none);
    assert_eq!(shadowed(&["pay, /a/*, read, deny", "pay, /*, read, allow"]), none);
    assert_eq!(shadowed(&["pay, /a/*, read, allow", "other, /a/*, read, allow"]), none);
}

#[test]
fn the_guide_lists_every_rule() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md")).unwrap();
    let listed: Vec<&str> = guide.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = Rule::ALL
        .iter()
        .map(|rule| {
            let severity = if rule.severity() == Severity::Error { "error" } else { "warning" };
            format!("| `{}` | {severity} | {} |", rule.name(), rule.about())
        })
        .collect();
    assert_eq!(listed, expected);
}
