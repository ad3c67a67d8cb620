//! Requests that are allowed are done, however many of them share a lease and however busy the
//! administrators are beside them.
//!
//! Each change of a lease's keys, and each change of policy, overtakes the permits of the requests
//! that were decided before it. When such requests were refused and decided again four times, most of
//! forty writers on one lease were told `request timed out` within milliseconds. With a bundle in force the gateway alone
//! can decide again: what holds without one must hold with one. A bundle was compiled after its permit had been given:
//! whoever changed roles in a loop kept a large one out for good.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use keygate_policies::bundle::{Files, Manifest};
use keygate_policies::digest_of_tar;
use keygate_proto::{admin, authpb, etcdserverpb as pb};
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

fn bundle(policy: &str) -> Files {
    let mut files = Files::default();
    files.insert("model.conf", keygate_policies::BUNDLE_MODEL.as_bytes().to_vec());
    files.insert("policy.csv", policy.as_bytes().to_vec());
    files.insert("roles.csv", Vec::new());
    files.insert("manifest.json", Manifest::of(&files, 1).to_bytes());
    files
}

/// A bundle that says nothing of those who write here.
fn of_others() -> tempfile::TempDir {
    let files = bundle("p, user:bob, default, /b/*, readwrite, allow\n");
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

async fn apply(caller: &Caller, policy: &str) -> Result<u64, tonic::Status> {
    let content = bytes::Bytes::from(bundle(policy).to_tar().unwrap());
    let digest = bytes::Bytes::from(digest_of_tar(std::slice::from_ref(&content)).0.to_vec());
    let mut client = admin::policies_client::PoliciesClient::new(caller.channel.clone());
    let mut parts = 0;
    for start in (0..content.len()).step_by(keygate_core::BUNDLE_STEP) {
        let content = content.slice(start..content.len().min(start + keygate_core::BUNDLE_STEP));
        client.stage(admin::PolicyStageRequest { digest: digest.clone(), index: parts, content }).await?;
        parts += 1;
    }
    let answer = client.apply(admin::PolicyApplyRequest { digest, parts, expected: None }).await?;
    Ok(answer.into_inner().revision.unwrap().revision)
}

/// By root, and by somebody to whom it must be shown that the bundle gives nobody what they do not hold.
#[tokio::test]
async fn changes_of_roles_do_not_keep_a_large_bundle_out() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let mut auth = AuthClient::new(root.channel.clone());
    auth.role_add(pb::AuthRoleAddRequest { name: "busy".to_owned() }).await.unwrap();
    let mine = "p, user:ops, default, /a/*, readwrite, allow\np, user:ops, default, -, policy, allow\n";
    assert_eq!(apply(&root, mine).await.unwrap(), 1);
    let (stop, stopped) = tokio::sync::watch::channel(());
    let changes = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let busy: Vec<_> = (0..4_u8)
        .map(|admin| {
            let (mut auth, stopped) = (AuthClient::new(root.channel.clone()), stopped.clone());
            let changes = changes.clone();
            tokio::spawn(async move {
                for at in 0_u64.. {
                    if stopped.has_changed().unwrap_or(true) {
                        break;
                    }
                    let key = bytes::Bytes::from(format!("/busy/{admin}/{}", at % 50));
                    let perm =
                        Some(authpb::Permission { perm_type: (at % 3) as i32, key, ..Default::default() });
                    let name = "busy".to_owned();
                    let grant = pb::AuthRoleGrantPermissionRequest { name, perm };
                    auth.role_grant_permission(grant).await.expect("root may grant");
                    changes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            })
        })
        .collect();
    let ops = server.named("ops").await;
    for (caller, revision) in [(&root, 2), (&ops, 3)] {
        let rows = (0..10_000).map(|n| format!("p, user:svc{revision}, default, /a/{n}/*, read, allow\n"));
        let policy: String = rows.chain([mine.to_owned()]).collect();
        let before = changes.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(apply(caller, &policy).await.unwrap(), revision);
        let during = changes.load(std::sync::atomic::Ordering::Relaxed) - before;
        println!("policy revision {revision} beside {during} changes of a role");
        assert!(during >= 10, "only {during} changes: nothing was shown");
    }
    drop(stop);
    for busy in busy {
        busy.await.unwrap();
    }
}
