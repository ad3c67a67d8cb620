//! What a tenant is answered must not depend on who else is on the server: keys, lease ids, users,
//! revisions, sizes, error texts and watch events, while neighbours work on the same names.
//!
//! `KEYGATE_TENANT_OPS` raises the number of operations (CI: 100,000), `KEYGATE_TENANT_SEED` picks
//! another seed. A failure names seed and operation.

use keygate_tests::{
    differential::{Neighbourhood, NeighboursReport, Tamper, run_beside_neighbours},
    harness::peers::count_from_env,
};

/// Every call of the watched tenant that the contest promises to make, also in a short run.
const CALLS: [&str; 22] = [
    "Range",
    "RangeStream",
    "Put",
    "Delete",
    "Txn",
    "Compact",
    "Grant",
    "Revoke",
    "TimeToLive",
    "KeepAlive",
    "Leases",
    "MemberList",
    "Status",
    "HashKv",
    "Alarm",
    "Authenticate",
    "UserAdd",
    "UserList",
    "RoleList",
    "RoleGrant",
    "CreateWatch",
    "TryWatch",
];

fn neighbourhood(operations: usize) -> Neighbourhood {
    Neighbourhood {
        seed: count_from_env("KEYGATE_TENANT_SEED", 1) as u64,
        operations,
        segment: operations.div_ceil(2).min(10_000),
        tamper: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_answered_as_if_it_were_alone() {
    let operations = count_from_env("KEYGATE_TENANT_OPS", 3_000);
    let report = run_beside_neighbours(neighbourhood(operations)).await.unwrap();
    let NeighboursReport { watched, busy, platform } = &report;
    println!(
        "{watched}beside {busy} operations of a busy tenant and {platform} in the platform's own keyspace"
    );
    assert!(watched.operations >= operations, "only {} of {operations} operations ran", watched.operations);
    assert!(watched.events >= operations / 10, "only {} watch events were compared", watched.events);
    let texts = if operations >= 50_000 { 30 } else { 20 };
    assert!(
        watched.refusals.len() >= texts,
        "only {} texts of refusals were compared",
        watched.refusals.len()
    );
    for call in CALLS {
        assert!(watched.calls.contains_key(call), "the watched tenant made no {call}");
    }
    assert!(*busy >= operations, "the busy tenant made only {busy} operations");
    assert!(*platform >= operations, "the platform's own keyspace saw only {platform} operations");
    assert!(watched.differences.is_empty(), "{} differences, see above", watched.differences.len());
}

/// The comparison can fail: one later revision in a hundred headers and one byte more in a status are
/// seen. That lost events and other texts are, the contest with etcd shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_of_a_revision_or_a_size_is_seen() {
    for tamper in [Tamper::Revision, Tamper::Size] {
        // Of this seed, which asks for a status.
        let leaking = Neighbourhood { seed: 1, tamper: Some(tamper), segment: 1_000, operations: 1_000 };
        let report = run_beside_neighbours(leaking).await.unwrap();
        println!("{tamper:?}: {}", report.watched);
        assert!(!report.watched.differences.is_empty(), "nobody noticed {tamper:?}");
    }
}
