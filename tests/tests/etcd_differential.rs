//! Keygate against etcd 3.7.1, call by call.
//!
//! `KEYGATE_DIFF_OPS` raises the number of operations (CI: 200,000), `KEYGATE_DIFF_SEED` picks
//! another seed. A failure names seed and operation.

use std::collections::BTreeSet;

use keygate_tests::{
    differential::{Contest, Report, Tamper, documented, run},
    harness::{
        Program,
        peers::{Peer, count_from_env},
    },
};

/// Below this many operations a tagged difference may by chance not be met.
const LONG: usize = 50_000;

fn contest(subject: Program, operations: usize) -> Contest {
    Contest {
        oracle: Program::Etcd,
        subject,
        seed: count_from_env("KEYGATE_DIFF_SEED", 1) as u64,
        operations,
        segment: operations.min(10_000),
        tamper: None,
        documented: BTreeSet::new(),
    }
}

/// Differences that need a rare coincidence (a message of a certain size from a caller whose login
/// was lost), which even a long contest may not meet.
const RARE: &[&str] = &["strangers-message", "password-comes-last"];

fn assert_floor(report: &Report, operations: usize) {
    println!("{report}");
    assert!(report.operations >= operations, "only {} of {operations} operations ran", report.operations);
    assert!(report.events >= operations / 10, "only {} watch events were compared", report.events);
    // A short contest meets fewer of the rare ones.
    let texts = if operations >= 10_000 { 30 } else { 25 };
    assert!(report.refusals.len() >= texts, "only {} texts of refusals were compared", report.refusals.len());
}

/// The comparison itself is sound: two etcds never differ, for all that they pick ids, terms and
/// batches of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_does_not_differ_from_etcd() {
    if Peer::Etcd.or_skip("etcd_does_not_differ_from_etcd").is_none() {
        return;
    }
    let operations = count_from_env("KEYGATE_DIFF_SELF_OPS", 3_000);
    let report = run(contest(Program::Etcd, operations)).await.unwrap();
    assert_floor(&report, operations);
    assert!(report.differences.is_empty(), "{} differences, see above", report.differences.len());
}

/// The comparison can fail: one wrong count, one wrong text, one lost event in a hundred are seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lie_in_one_answer_of_a_hundred_is_seen() {
    if Peer::Etcd.or_skip("a_lie_in_one_answer_of_a_hundred_is_seen").is_none() {
        return;
    }
    for tamper in [Tamper::Count, Tamper::Text, Tamper::Event] {
        let lying = Contest { tamper: Some(tamper), segment: 1_500, ..contest(Program::Etcd, 1_500) };
        let report = run(lying).await.unwrap();
        println!("{tamper:?}: {report}");
        assert!(!report.differences.is_empty(), "nobody noticed {tamper:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keygate_answers_as_etcd_does() {
    if Peer::Etcd.or_skip("keygate_answers_as_etcd_does").is_none() {
        return;
    }
    let operations = count_from_env("KEYGATE_DIFF_OPS", 5_000);
    let listed = documented().unwrap();
    let report =
        run(Contest { documented: listed.clone(), ..contest(Program::Keygate, operations) }).await.unwrap();
    assert_floor(&report, operations);
    assert!(
        report.differences.is_empty(),
        "{} undocumented differences, see above",
        report.differences.len()
    );
    let never_met: Vec<&String> = listed
        .iter()
        .filter(|tag| !report.documented.contains_key(tag.as_str()) && !RARE.contains(&tag.as_str()))
        .collect();
    assert!(
        operations < LONG || never_met.is_empty(),
        "docs/differences.md lists what no longer differs: {never_met:?}"
    );
}
