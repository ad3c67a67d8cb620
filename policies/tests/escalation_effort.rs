//! What a change of users and roles would hand on is found out while the request waits, on a thread that serves others: it costs
//! a millisecond at most, whatever the bundle, and what cannot be found out by then is refused.
//!
//! Stretches of keys times boxes of circumstances, ten thousand of these a stretch, took seconds.

mod bundles;

use keygate_core::{Access, Asking, Gift, Groups, KeyRange, Origin, Permission, PermissionKind, Rules as _};
use keygate_policies::BundlePolicy;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is found, and how many questions the tables were asked.
struct Found {
    beyond: Vec<String>,
    asked: u32,
    took: Duration,
}

fn beyond(policy: &BundlePolicy, user: Option<&str>, ranges: impl Iterator<Item = String>) -> Found {
    let permissions: Vec<Permission> = ranges
        .map(|start| {
            let end = format!("{}0", &start[..start.len() - 1]).into();
            Permission { kind: PermissionKind::Read, range: KeyRange::Span { start: start.into(), end } }
        })
        .collect();
    let asking = Asking {
        tenant: "default",
        name: "ops",
        groups: &Groups::NONE,
        origin: Origin::default(),
        now: 1_800_000_000,
    };
    let asked = Cell::new(0);
    let own = |_: &Access| {
        asked.set(asked.get() + 1);
        false
    };
    let started = Instant::now();
    let beyond = policy.beyond(&asking, &own, &Gift { permissions: &permissions, user });
    Found { beyond, asked: asked.get(), took: started.elapsed() }
}

fn compiled(rows: impl Iterator<Item = String>) -> BundlePolicy {
    BundlePolicy::compile(Arc::new(bundles::bundle(&rows.collect::<String>(), "")))
}

#[test]
fn a_comparison_that_would_keep_others_waiting_is_given_up_and_refused() {
    // Twenty ranges of addresses, of the week and of time: more than eight thousand boxes in each of five hundred stretches.
    let conditional = (0..20).map(|at| {
        format!(
            "p, user:ops, default, /a/*, read, allow, source=10.0.{at}.0/24;time=Mon@08:{at:02}-09:00;\
             from=2026-03-{:02}T00:00:00Z\n",
            at + 1
        )
    });
    let stretches = (0..500).map(|at| format!("p, user:ops, default, /a/{at:03}/*, read, allow\n"));
    let all = "p, user:ops, default, /a/*, read, allow, connection=mtls\n".to_owned();
    let policy = compiled(conditional.chain(stretches).chain([all]));
    let found = beyond(&policy, None, ["/a/".to_owned()].into_iter());
    println!("{} questions in {:?}: {:?}", found.asked, found.took, found.beyond);
    assert_eq!(found.beyond.len(), 1);
    assert!(found.beyond[0].contains("too many rows or conditions to compare"), "{:?}", found.beyond);
    assert!(found.asked <= 20, "{} stretches were looked at", found.asked);
    // What is next to it costs nothing.
    assert!(beyond(&policy, None, ["/a/007/".to_owned()].into_iter()).beyond.len() == 1);
    let elsewhere = beyond(&policy, None, ["/b/".to_owned()].into_iter());
    assert_eq!((elsewhere.beyond, elsewhere.asked), (vec!["read /b/*".to_owned()], 1));
}

#[test]
fn many_rows_are_given_up_too() {
    let rows = || (0..20_000).map(|at| format!("p, user:ops, default, /a/{at:05}/*, read, allow\n"));
    let found = beyond(&compiled(rows()), None, (0..20_000).map(|at| format!("/a/{at:05}/")));
    println!("{} questions in {:?}: {:?}", found.asked, found.took, found.beyond);
    assert!(
        found.beyond.iter().any(|text| text.contains("too many rows or conditions")),
        "{:?}",
        found.beyond
    );
    // Also where they are the receiver's.
    let theirs = (0..20_000).map(|at| format!("p, user:new, default, /b/{at:05}/*, read, allow\n"));
    let found = beyond(&compiled(rows().chain(theirs)), Some("new"), std::iter::empty());
    assert!(!found.beyond.is_empty());
    assert!(found.asked <= 100, "{} stretches were looked at", found.asked);
}

/// The rows of others, and one's own elsewhere, are not looked at: large bundles do not stand in the way of delegated work.
#[test]
fn what_is_usual_is_found_out_in_large_bundles() {
    let others = (0..20_000).map(|at| format!("p, user:u{}, default, /x/{at:05}/*, read, allow\n", at % 500));
    let own = (0..5_000).map(|at| format!("p, user:ops, default, /a/{at:05}/*, read, allow\n"));
    let night = "p, user:ops, default, /night/*, read, allow, connection=mtls\n".to_owned();
    let policy = compiled(others.chain(own).chain([night]));
    // A role of a thousand permissions.
    let found = beyond(&policy, None, (0..1_000).map(|at| format!("/a/{at:05}/")));
    println!("{} questions in {:?}: {:?}", found.asked, found.took, found.beyond);
    assert!(found.beyond.is_empty(), "{:?}", found.beyond);
    let found = beyond(&policy, None, ["/a/04711/deep/".to_owned()].into_iter());
    assert_eq!((found.beyond.len(), found.asked), (0, 1));
    let found = beyond(&policy, None, ["/night/".to_owned()].into_iter());
    assert_eq!(found.beyond, ["read /night/* when connection=plain|tls"]);
    let found = beyond(&policy, Some("u7"), std::iter::empty());
    assert_eq!(found.beyond.len(), 3, "{:?}", found.beyond);
}

/// What is given overlaps what the receiver's rows allow under conditions: it ends where neither a row nor both together end.
#[test]
fn what_is_given_in_the_middle_of_what_rows_allow_is_compared_by_itself() {
    let row =
        |user: &str, keys: &str, when: &str| format!("p, user:{user}, default, {keys}, read, allow{when}\n");
    let rows = [row("ops", "[/a/, /z/)", ", connection=mtls"), row("new", "[/a/, /m/)", ", connection=mtls")];
    let found = beyond(&compiled(rows.into_iter()), Some("new"), ["/c/".to_owned()].into_iter());
    assert_eq!(found.beyond, ["read /c/* when connection=plain|tls"]);
}
