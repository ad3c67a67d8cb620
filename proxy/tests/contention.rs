//! Requests that are allowed are done, however many of them share a lease and however busy the
//! administrators are beside them.
//!
//! Each change of a lease's keys, and each change of policy, overtakes the permits of the requests
//! that were decided before it. When such requests were refused and decided again four times, most of
//! forty writers on one lease were told `request timed out` within milliseconds. With a bundle in force the gateway alone
//! can decide again: what holds without one must hold with one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use keygate_policies::bundle::{Files, Manifest};
use keygate_proto::{authpb, etcdserverpb as pb};
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use support::{Caller, Server};

const WRITERS: usize = 40;
const PUTS: usize = 25;
const LEASE: i64 = 77;

/// `alice` may have the keys that begin with `/a/`.
async fn alice(server: &Server, root: &Caller) -> Caller {
    let mut auth = AuthClient::new(root.channel.clone());
    let name = || "alice".to_owned();
    let options = Some(authpb::UserAddOptions { no_password: true });
    auth.user_add(pb::AuthUserAddRequest { name: name(), options, ..Default::default() }).await.unwrap();
    auth.role_add(pb::AuthRoleAddRequest { name: name() }).await.unwrap();
    let perm = Some(authpb::Permission { perm_type: 2, key: "/a/".into(), range_end: "/a0".into() });
    auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest { name: name(), perm }).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: name(), role: name() }).await.unwrap();
    server.named("alice").await
}

/// Puts new keys from many tasks at once; answers how many were refused, and the first refusal.
async fn write(caller: &Caller, round: &str, lease: i64) -> (usize, Option<tonic::Status>) {
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (mut kv, round) = (KvClient::new(caller.channel.clone()), round.to_owned());
            tokio::spawn(async move {
                let mut refused = Vec::new();
                for n in 0..PUTS {
                    let key = format!("/a/{round}/{writer}/{n}").into();
                    let put = pb::PutRequest { key, value: "v".into(), lease, ..Default::default() };
                    refused.extend(kv.put(put).await.err());
                }
                refused
            })
        })
        .collect();
    let mut refused = Vec::new();
    for task in tasks {
        refused.extend(task.await.unwrap());
    }
    (refused.len(), refused.into_iter().next())
}

/// A bundle that says nothing of those who write here.
fn of_others() -> tempfile::TempDir {
    let mut files = Files::default();
    files.insert("model.conf", keygate_policies::BUNDLE_MODEL.as_bytes().to_vec());
    files.insert("policy.csv", b"p, user:bob, default, /b/*, readwrite, allow\n".to_vec());
    files.insert("roles.csv", Vec::new());
    files.insert("manifest.json", Manifest::of(&files, 1).to_bytes());
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.conf", "policy.csv", "roles.csv", "manifest.json"] {
        std::fs::write(folder.path().join(name), files.get(name).unwrap()).unwrap();
    }
    folder
}

#[tokio::test]
async fn writers_that_share_a_lease_are_not_in_each_others_way() {
    share_a_lease(&[]).await;
}

#[tokio::test]
async fn writers_that_share_a_lease_are_not_in_each_others_way_beside_a_bundle() {
    let folder = of_others();
    share_a_lease(&["--policy-dir", folder.path().to_str().unwrap()]).await;
}

async fn share_a_lease(flags: &[&str]) {
    let server = Server::start(flags);
    let root = server.named("root").await;
    let alice = alice(&server, &root).await;
    let grant = pb::LeaseGrantRequest { id: LEASE, ttl: 600 };
    LeaseClient::new(root.channel.clone()).lease_grant(grant).await.unwrap();
    for (caller, round) in [(&root, "root"), (&alice, "alice")] {
        let (refused, first) = write(caller, round, LEASE).await;
        assert_eq!(refused, 0, "of {} puts by {round} were refused: {first:?}", WRITERS * PUTS);
    }
    let request = pb::LeaseTimeToLiveRequest { id: LEASE, keys: true };
    let lease = LeaseClient::new(root.channel.clone()).lease_time_to_live(request).await.unwrap();
    assert_eq!(lease.into_inner().keys.len(), 2 * WRITERS * PUTS);
}

#[tokio::test]
async fn busy_administrators_refuse_nobody() {
    administer(&[]).await;
}

#[tokio::test]
async fn busy_administrators_refuse_nobody_beside_a_bundle() {
    let folder = of_others();
    administer(&["--policy-dir", folder.path().to_str().unwrap()]).await;
}

async fn administer(flags: &[&str]) {
    let server = Server::start(flags);
    let root = server.named("root").await;
    let alice = alice(&server, &root).await;
    let (stop, stopped) = tokio::sync::watch::channel(());
    let administrators: Vec<_> = (0..8)
        .map(|admin| {
            let (mut auth, stopped) = (AuthClient::new(root.channel.clone()), stopped.clone());
            tokio::spawn(async move {
                let mut changes = 0;
                while !stopped.has_changed().unwrap_or(true) {
                    let name = format!("r{admin}-{changes}");
                    auth.role_add(pb::AuthRoleAddRequest { name }).await.expect("root may add roles");
                    changes += 1;
                }
                changes
            })
        })
        .collect();
    let (refused, first) = write(&alice, "busy", 0).await;
    drop(stop);
    let mut changes = 0;
    for administrator in administrators {
        changes += administrator.await.expect("an administrator was refused");
    }
    println!("{} puts beside {changes} changes of policy, {refused} refused", WRITERS * PUTS);
    assert_eq!(refused, 0, "{first:?}");
    assert!(changes >= 10, "only {changes} changes: nothing was shown");
}
