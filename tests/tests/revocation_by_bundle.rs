//! A bundle that was acknowledged is in force for everybody: puts race it, watches are open across it, and a
//! restart finds it.
//!
//! The answer to an apply carries the revision R of the keys at which the bundle took its place in the log. Nothing
//! that it forbids may have a revision above R, and no watch that it forbids may show one.
//!
//! `KEYGATE_BUNDLE_WATCHES=1000 KEYGATE_BUNDLE_WRITERS=64 KEYGATE_BUNDLE_EVENTS=1000000` is the slow form.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use keygate_proto::admin::{PolicyLogRequest, PolicyRevisionResponse};
use keygate_proto::etcdserverpb::AuthUserAddRequest;
use keygate_tests::bereft::{Watch, put, put_until_told, range};
use keygate_tests::bundles::Bundle;
use keygate_tests::harness::{Client, Plan, Program, Protection, Server, peers::count_from_env};
use rand::Rng as _;
use tonic::Code;

const GRANT: &str = "p, user:alice, default, /w/*, readwrite, allow\n";
/// Three ways to take it away: no row, a row that denies, and one that leaves only writing.
const REVOKES: [&str; 3] = [
    "p, user:bob, default, /w/*, read, allow\n",
    "p, user:alice, default, /w/*, readwrite, allow\np, user:*, default, /w/*, readwrite, deny\n",
    "p, user:alice, default, /w/*, readwrite, allow\np, user:alice, default, [/w/, /w/y), readwrite, deny\n",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_or_seen_above_the_revision_of_an_acknowledged_bundle() {
    let floor = count_from_env("KEYGATE_BUNDLE_EVENTS", 3_000);
    let rounds = count_from_env("KEYGATE_BUNDLE_ROUNDS", 6);
    let watches = count_from_env("KEYGATE_BUNDLE_WATCHES", 30);
    let writers = count_from_env("KEYGATE_BUNDLE_WRITERS", 16);
    let plan = Plan::new(Program::Keygate, Protection::Password).flags(&["--bcrypt-cost", "4"]);
    let mut server = Server::start(plan).await.unwrap();
    let root = server.root().await.unwrap();
    let (name, password) = ("alice".to_owned(), "secret".to_owned());
    root.auth().user_add(AuthUserAddRequest { name, password, ..Default::default() }).await.unwrap();
    let alice = Client::connect(&server.endpoint).await.unwrap().login("alice", "secret").await.unwrap();

    let attempts = Arc::new(AtomicU64::new(0));
    let (mut events, mut round) = (0_u64, 0);
    while round < rounds || events < floor as u64 {
        round += 1;
        apply(&root, GRANT, round * 2).await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut open = Vec::new();
        for _ in 0..watches {
            open.push(Watch::open(&alice).await.unwrap());
        }
        let watching: Vec<_> = open.into_iter().map(|watch| tokio::spawn(watch.follow())).collect();
        let writing: Vec<_> = (0..writers)
            .map(|name| tokio::spawn(put_until_told(alice.clone(), name, attempts.clone(), stop.clone())))
            .collect();
        let pause = rand::rng().random_range(20..120);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let revoke = REVOKES[round % REVOKES.len()];
        let horizon = apply(&root, revoke, round * 2 + 1).await.at_revision;

        // The answer is here: from now on nothing is read.
        let denied = alice.kv().range(range()).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
        // Newer events, which the watches must not show.
        for _ in 0..3 {
            put(&root, "after").await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writing {
            let newest = writer.await.unwrap().unwrap();
            assert!(newest <= horizon, "a put at {newest}, above the bundle at {horizon}");
        }
        for watch in watching {
            let seen = tokio::time::timeout(Duration::from_secs(60), watch)
                .await
                .expect("it ends")
                .unwrap()
                .unwrap();
            assert!(seen.newest <= horizon, "an event of {}, above the bundle at {horizon}", seen.newest);
            assert_eq!(seen.reason, "etcdserver: permission denied");
            events += seen.events;
        }
    }
    let attempts = attempts.load(Ordering::Relaxed);
    println!("bundles: {round} revokes, {attempts} puts tried, {events} events checked");
    assert!(attempts > 300, "too little was tried to mean anything");

    // What was answered is in force after a crash, for the grant as for the revoke.
    for (rows, allowed) in [(GRANT, true), (REVOKES[1], false)] {
        let root = server.root().await.unwrap();
        let applied = apply(&root, rows, 1_000_000).await.revision.unwrap().revision;
        server.kill();
        server.launch().unwrap();
        let root = server.root().await.unwrap();
        let log = root.policies().log(PolicyLogRequest {}).await.unwrap().into_inner();
        assert_eq!(log.in_force, applied);
        let alice = Client::connect(&server.endpoint).await.unwrap().login("alice", "secret").await.unwrap();
        assert_eq!(put(&alice, "a").await.is_ok(), allowed);
    }
}

const HIDE: &str = "p, user:alice, default, /w/*, readwrite, allow\np, user:*, default, /w/h*, read, deny, on_partial=filter\n";
/// No bundle hides anything.
const NOTHING: i64 = i64::MAX;

/// Watches that stay open while keys are hidden and shown again, and hidden keys are written all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_shows_nothing_of_a_key_above_the_revision_of_the_bundle_that_hides_it() {
    let rounds = count_from_env("KEYGATE_BUNDLE_ROUNDS", 6);
    let watches = count_from_env("KEYGATE_BUNDLE_WATCHES", 30);
    let plan = Plan::new(Program::Keygate, Protection::Password).flags(&["--bcrypt-cost", "4"]);
    let server = Server::start(plan).await.unwrap();
    let root = server.root().await.unwrap();
    let (name, password) = ("alice".to_owned(), "secret".to_owned());
    root.auth().user_add(AuthUserAddRequest { name, password, ..Default::default() }).await.unwrap();
    let alice = Client::connect(&server.endpoint).await.unwrap().login("alice", "secret").await.unwrap();
    apply(&root, GRANT, 1).await;

    let (horizon, stop) = (Arc::new(AtomicI64::new(NOTHING)), Arc::new(AtomicBool::new(false)));
    let mut watching = Vec::new();
    for _ in 0..watches {
        let (marked, watch) = (Arc::new(AtomicI64::new(0)), Watch::open(&alice).await.unwrap());
        watching.push((marked.clone(), tokio::spawn(follow_visible(watch, horizon.clone(), marked))));
    }
    let writing: Vec<_> =
        (0..4).map(|name| tokio::spawn(put_both(root.clone(), name, stop.clone()))).collect();
    let (mut hidden, mut newest) = (0, 0);
    for round in 1..=rounds {
        let from = apply(&root, HIDE, round * 2).await.at_revision;
        // From here on whatever arrives was sent under it, or has a revision up to it.
        horizon.store(from, Ordering::SeqCst);
        let pause = rand::rng().random_range(20..120);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let found = alice.kv().range(range()).await.unwrap().into_inner();
        assert!(found.kvs.iter().all(|kv| !kv.key.starts_with(b"/w/h")), "{found:?}");
        assert_eq!(found.count, found.kvs.len() as i64);
        for _ in 0..10 {
            newest = put(&root, "h/mark").await.unwrap();
        }
        hidden += newest - from;
        horizon.store(NOTHING, Ordering::SeqCst);
        apply(&root, GRANT, round * 2 + 1).await;
        // They are all still open, and see what was hidden.
        let mark = put(&root, "h/mark").await.unwrap();
        for (marked, _) in &watching {
            until_seen(marked, mark).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut visible = Vec::new();
    for writer in writing {
        visible.extend(writer.await.unwrap());
    }
    visible.sort_unstable();
    // A bundle that takes the right away ends watches at once, also those that are behind.
    let mark = put(&root, "h/mark").await.unwrap();
    for (marked, _) in &watching {
        until_seen(marked, mark).await;
    }
    apply(&root, REVOKES[0], rounds * 2 + 2).await;
    put(&root, "v/after").await.unwrap();
    let mut events = 0;
    for (_, watch) in watching {
        let seen = tokio::time::timeout(Duration::from_secs(60), watch).await.expect("it ends").unwrap();
        assert_eq!(seen, visible, "each visible event once, in order");
        events += seen.len();
    }
    println!("hidden: {rounds} bundles, {hidden} revisions while hidden, {events} visible events checked");
    assert!(hidden > 50 && events > 1_000, "too little was tried to mean anything");
}

async fn until_seen(marked: &AtomicI64, mark: i64) {
    let seen = async {
        while marked.load(Ordering::SeqCst) < mark {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("it is shown again");
}

/// Puts a hidden and a visible key in turn. Answers the revisions of the visible ones.
async fn put_both(root: Client, name: usize, stop: Arc<AtomicBool>) -> Vec<i64> {
    let mut visible = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        put(&root, &format!("h/{name}")).await.unwrap();
        visible.push(put(&root, &format!("v/{name}")).await.unwrap());
    }
    visible
}

/// Until the watch is cancelled. Answers the revisions of what is never hidden.
async fn follow_visible(mut watch: Watch, horizon: Arc<AtomicI64>, marked: Arc<AtomicI64>) -> Vec<i64> {
    let mut visible = Vec::new();
    while let Some(answer) = watch.next().await.unwrap() {
        // Looked at after the answer is here: it was sent earlier.
        let horizon = horizon.load(Ordering::SeqCst);
        for event in &answer.events {
            let kv = event.kv.as_ref().unwrap();
            if kv.key.starts_with(b"/w/v") {
                visible.push(kv.mod_revision);
                continue;
            }
            assert!(kv.mod_revision <= horizon, "{} above the bundle at {horizon}", kv.mod_revision);
            if kv.key == "/w/h/mark" {
                marked.store(kv.mod_revision, Ordering::SeqCst);
            }
        }
        if answer.canceled {
            assert_eq!(answer.cancel_reason, "etcdserver: permission denied");
            break;
        }
    }
    visible
}

/// Puts a bundle of these rows in force.
async fn apply(root: &Client, rows: &str, revision: usize) -> PolicyRevisionResponse {
    Bundle::of(rows, revision as u64).unwrap().apply(root).await.unwrap()
}
