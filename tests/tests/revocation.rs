//! A revoke that was acknowledged serves nobody: puts race it, reads follow it, watches are open
//! across it.
//!
//! The answer to the revoke carries the revision R at which it took its place in the log. Nothing
//! that the revoked user did may have a revision above R, and no watch of theirs may show one.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use keygate_proto::authpb::{Permission, permission::Type};
use keygate_proto::etcdserverpb::*;
use keygate_tests::bereft::{Watch, put, put_until_told, range};
use keygate_tests::harness::{Client, Plan, Program, Protection, Server, peers::count_from_env};
use tonic::Code;

const WRITERS: usize = 16;
const WATCHES: usize = 16;
/// Attempts to put that the whole run must make.
const FLOOR: u64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_or_seen_above_the_revision_of_an_acknowledged_revoke() {
    let rounds = count_from_env("KEYGATE_REVOKE_ROUNDS", 12);
    let plan = Plan::new(Program::Keygate, Protection::Password).flags(&["--bcrypt-cost", "4"]);
    let server = Server::start(plan).await.unwrap();
    let root = server.root().await.unwrap();
    prepare(&root).await;
    let alice = Client::connect(&server.endpoint).await.unwrap().login("alice", "secret").await.unwrap();

    let attempts = Arc::new(AtomicU64::new(0));
    let mut events = 0;
    let mut round = 0;
    while round < rounds || attempts.load(Ordering::Relaxed) < FLOOR {
        round += 1;
        let grant = AuthUserGrantRoleRequest { user: "alice".to_owned(), role: "writers".to_owned() };
        root.auth().user_grant_role(grant).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|name| tokio::spawn(put_until_told(alice.clone(), name, attempts.clone(), stop.clone())))
            .collect();
        let watches: Vec<_> = {
            let mut open = Vec::new();
            for _ in 0..WATCHES {
                open.push(Watch::open(&alice).await.unwrap());
            }
            open.into_iter().map(|watch| tokio::spawn(watch.follow())).collect()
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        let revoke = AuthUserRevokeRoleRequest { name: "alice".to_owned(), role: "writers".to_owned() };
        let revoked = root.auth().user_revoke_role(revoke).await.unwrap().into_inner();
        let horizon = revoked.header.unwrap().revision;

        // The answer is here: from now on nothing is read.
        let denied = alice.kv().range(range()).await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
        // Newer events, which the watches must not show.
        for _ in 0..3 {
            put(&root, "after").await.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let newest = writer.await.unwrap().unwrap();
            assert!(newest <= horizon, "a put at {newest}, above the revoke at {horizon}");
        }
        for watch in watches {
            let seen = tokio::time::timeout(Duration::from_secs(20), watch)
                .await
                .expect("it ends")
                .unwrap()
                .unwrap();
            assert!(seen.newest <= horizon, "an event of {}, above the revoke at {horizon}", seen.newest);
            assert_eq!(seen.reason, "etcdserver: permission denied");
            events += seen.events;
        }
    }
    let attempts = attempts.load(Ordering::Relaxed);
    println!("revocation: {round} revokes, {attempts} puts tried, {events} events checked");
    assert!(attempts >= FLOOR && events > 0, "too little was tried to mean anything");
}

async fn prepare(root: &Client) {
    let mut auth = root.auth();
    let (name, password) = ("alice".to_owned(), "secret".to_owned());
    auth.user_add(AuthUserAddRequest { name, password, ..Default::default() }).await.unwrap();
    auth.role_add(AuthRoleAddRequest { name: "writers".to_owned() }).await.unwrap();
    let RangeRequest { key, range_end, .. } = range();
    let perm = Some(Permission { perm_type: Type::Readwrite as i32, key, range_end });
    let grant = AuthRoleGrantPermissionRequest { name: "writers".to_owned(), perm };
    auth.role_grant_permission(grant).await.unwrap();
}
