//! Bundles in force: applied, rolled back, exported and overtaken by a real process, over TLS, by the command line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use keygate_policies::{bundle::Files, digest_of_tar};
use keygate_proto::{admin, etcdserverpb as pb};
use pb::watch_request::RequestUnion;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Caller, Server};
use tempfile::TempDir;
use tonic::Code;

const MODEL: &str = include_str!("../../policies/model/bundle.conf");

/// `keygate policy …` as the operator of the machine types it.
fn keygate(server: &Server, arguments: &[&str]) -> Output {
    server.operator(&[&["policy"], arguments].concat())
}

/// What it says on stdout when it exits with `code`.
fn says(server: &Server, arguments: &[&str], code: i32) -> String {
    let output = keygate(server, arguments);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}{errors}");
    format!("{said}{errors}")
}

/// A folder with a bundle of these rows and links.
fn bundle(revision: u64, rows: &str, links: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.conf"), MODEL).unwrap();
    fs::write(folder.path().join("policy.csv"), rows).unwrap();
    fs::write(folder.path().join("roles.csv"), links).unwrap();
    digest(folder.path(), revision);
    folder
}

fn digest(folder: &Path, revision: u64) {
    let made = Command::new(env!("CARGO_BIN_EXE_keygate"))
        .args(["policy", "digest"])
        .arg(folder)
        .args(["--revision", &revision.to_string()])
        .output()
        .unwrap();
    assert!(made.status.success());
}

fn apply(server: &Server, folder: &TempDir) -> u64 {
    let output = keygate(server, &["apply", folder.path().to_str().unwrap(), "--output", "json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["ok"], true, "{told:#} {}", String::from_utf8_lossy(&output.stderr));
    told["revision"]["revision"].as_u64().unwrap()
}

async fn put(caller: &Caller, key: &str) -> Result<i64, Code> {
    let request = pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() };
    let answer = pb::kv_client::KvClient::new(caller.signed()).put(request).await;
    answer.map(|answer| answer.into_inner().header.unwrap().revision).map_err(|status| status.code())
}

async fn get(caller: &Caller, key: &str, end: &str) -> Result<usize, Code> {
    let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
    let request = pb::RangeRequest { key, range_end, ..Default::default() };
    let answer = pb::kv_client::KvClient::new(caller.signed()).range(request).await;
    answer.map(|answer| answer.into_inner().kvs.len()).map_err(|status| status.code())
}

#[tokio::test]
async fn a_bundle_gives_and_takes_rights_beside_users_and_roles() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    // Known to the bundle alone, and to the Auth API as well.
    let (service, alice) = (server.named("svc-pay").await, server.named("alice").await);
    let mut auth = pb::auth_client::AuthClient::new(root.signed());
    let add = pb::AuthUserAddRequest { name: "alice".to_owned(), ..Default::default() };
    auth.user_add(pb::AuthUserAddRequest {
        options: Some(keygate_proto::authpb::UserAddOptions { no_password: true }),
        ..add
    })
    .await
    .unwrap();
    auth.role_add(pb::AuthRoleAddRequest { name: "all".to_owned() }).await.unwrap();
    let perm = keygate_proto::authpb::Permission { perm_type: 2, key: "/".into(), range_end: "0".into() };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "all".to_owned(), perm: Some(perm) };
    auth.role_grant_permission(grant).await.unwrap();
    let grant = pb::AuthUserGrantRoleRequest { user: "alice".to_owned(), role: "all".to_owned() };
    auth.user_grant_role(grant).await.unwrap();
    assert_eq!(put(&service, "/pay/a").await, Err(Code::PermissionDenied));
    assert!(put(&alice, "/pay/secret/a").await.is_ok());

    let first = bundle(
        7,
        "p, role:pay, default, /pay/*, readwrite, allow\np, user:*, default, /pay/secret/*, write, deny\np, role:pay, default, -, compact, allow\n",
        "g, user:svc-pay, role:pay, default\n",
    );
    assert_eq!(apply(&server, &first), 1);
    assert!(put(&service, "/pay/a").await.is_ok());
    assert_eq!(put(&service, "/shop/a").await, Err(Code::PermissionDenied));
    assert_eq!(get(&service, "/pay/", "/pay0").await, Ok(2));
    assert_eq!(put(&service, "/pay/secret/a").await, Err(Code::PermissionDenied), "denied by the bundle");
    assert_eq!(put(&alice, "/pay/secret/a").await, Err(Code::PermissionDenied), "deny beats the Auth API");
    assert!(put(&alice, "/shop/a").await.is_ok(), "what the Auth API allows is still allowed");
    assert!(put(&root, "/pay/secret/a").await.is_ok(), "no bundle binds the platform's root");
    let compact = pb::CompactionRequest { revision: 2, physical: false };
    let mut kv = pb::kv_client::KvClient::new(service.signed());
    kv.compact(compact).await.expect("an administrative right without root");
    assert_eq!(put(&server.named("nobody").await, "/pay/a").await, Err(Code::PermissionDenied));

    // A denial has a number that the operator can ask about.
    let range = pb::RangeRequest { key: "/shop/a".into(), ..Default::default() };
    let denied = pb::kv_client::KvClient::new(service.signed()).range(range).await.unwrap_err();
    assert_eq!(denied.message(), "etcdserver: permission denied");
    let id = denied.metadata().get("x-keygate-decision-id").unwrap().to_str().unwrap().to_owned();
    let why = says(&server, &["explain", &id], 1);
    assert!(
        why.starts_with("etcdserverpb.KV/Range at ")
            && why.contains("by svc-pay@default from 127.0.0.1 (mtls)"),
        "{why}"
    );
    assert!(why.contains("no row: what no row allows is denied"), "{why}");
    assert!(says(&server, &["explain", "0123456789abcdef"], 2).contains("is not remembered"));

    // Questions about what is in force.
    assert!(says(&server, &["log"], 0).starts_with("* 1 "));
    assert!(says(&server, &["show"], 0).contains("p, role:pay, default, /pay/*, readwrite, allow"));
    assert_eq!(says(&server, &["can-i", "--user", "svc-pay", "put", "/pay/a"], 0), "yes\n");
    assert_eq!(says(&server, &["can-i", "--user", "alice", "put", "/shop/a"], 0), "yes\n");
    assert_eq!(says(&server, &["can-i", "--user", "alice", "put", "/pay/secret/a"], 1), "no\n");
    assert_eq!(says(&server, &["can-i", "--user", "root", "put", "/pay/secret/a"], 0), "yes\n");
    assert!(
        says(&server, &["explain", "--user", "alice", "put", "/pay/secret/a"], 1).contains("policy.csv:2")
    );
    let drift = says(&server, &["drift"], 1);
    assert!(drift.contains("alice") && drift.contains("gains write"), "{drift}");
    assert!(!drift.contains("root"), "root's own rights are no drift: {drift}");
    let exported = first.path().join("exported");
    says(&server, &["export", exported.to_str().unwrap()], 0);
    let rows = fs::read_to_string(exported.join("policy.csv")).unwrap();
    assert!(rows.contains("p, role:auth/all, default, /*, readwrite, allow"), "{rows}");
    assert_eq!(says(&server, &["drift", exported.to_str().unwrap()], 0), "", "what was exported is what is");

    // Back, by name and without one.
    assert_eq!(
        says(&server, &["rollback", "--if-revision", "9"], 1),
        "keygate: not applied, and nothing has changed: policy revision `1` is in force, not `9`: look at what changed and say that revision\n"
    );
    assert!(
        says(&server, &["rollback", "--to", "0"], 0).contains("policy revision 2 is in force: no bundle")
    );
    assert_eq!(put(&service, "/pay/a").await, Err(Code::PermissionDenied));
    assert!(put(&alice, "/pay/secret/a").await.is_ok());
    assert!(says(&server, &["rollback"], 0).contains("policy revision 3 is in force: bundle 7"));
    assert!(put(&service, "/pay/a").await.is_ok());
    assert!(server.page("/metrics").await.contains("\nkeygate_policy_revision 3\n"));
}

#[tokio::test]
async fn a_bad_bundle_changes_nothing_and_says_why() {
    let server = Server::start(&[]);
    let service = server.named("svc-pay").await;
    let good = bundle(1, "p, user:svc-pay, default, /pay/*, readwrite, allow\n", "");
    assert_eq!(apply(&server, &good), 1);
    let bad = bundle(
        2,
        "p, user:svc-pay, default, /pay/*, readwrite, allow\np, user:x, default, /y/*, look, allow\n",
        "",
    );
    let said = says(&server, &["apply", bad.path().to_str().unwrap()], 2);
    assert!(said.contains("policy.csv:2: error"), "{said}");

    // Whoever does not use the command line is told the same by the server.
    let root = server.named("root").await;
    let mut client = keygate_proto::admin::policies_client::PoliciesClient::new(root.signed());
    let mut tried = 0;
    // A row about writing alone has nothing to leave out.
    let filtering = bundle(
        3,
        "p, user:svc-pay, default, /pay/*, readwrite, allow\np, user:svc-pay, default, /pay/x/*, write, deny, on_partial=filter\n",
        "",
    );
    let failing = bundle(4, "p, user:svc-pay, default, /pay/*, readwrite, allow\n", "");
    fs::create_dir(failing.path().join("tests")).unwrap();
    fs::write(
        failing.path().join("tests/t.yaml"),
        "- user: svc-pay\n  tenant: default\n  deny:\n    - put /pay/a\n",
    )
    .unwrap();
    digest(failing.path(), 4);
    for (folder, why) in [
        (&bad, "policy.csv:2: error"),
        (&filtering, "policy.csv:2: error"),
        (&failing, "tests/t.yaml:1: error"),
    ] {
        let files = keygate_policies::bundle::Files::from_folder(folder.path()).unwrap();
        let content: bytes::Bytes = files.to_tar().unwrap().into();
        let digest: bytes::Bytes =
            keygate_policies::digest_of_tar(std::slice::from_ref(&content)).0.to_vec().into();
        let stage = keygate_proto::admin::PolicyStageRequest { digest: digest.clone(), index: 0, content };
        client.stage(stage).await.unwrap();
        let apply = keygate_proto::admin::PolicyApplyRequest { digest, parts: 1, expected: None };
        let status = client.apply(apply).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(why), "{status:?}");
        tried += 1;
    }
    let wrong = keygate_proto::admin::PolicyStageRequest {
        digest: vec![9; 32].into(),
        index: 0,
        content: "not what was announced".into(),
    };
    client.stage(wrong).await.unwrap();
    let apply =
        keygate_proto::admin::PolicyApplyRequest { digest: vec![9; 32].into(), parts: 1, expected: None };
    let status = client.apply(apply).await.unwrap_err();
    assert!(status.message().contains("as announced"), "{status:?}");
    tried += 1;
    assert!(put(&service, "/pay/a").await.is_ok(), "what was in force stays");
    let page = server.page("/metrics").await;
    assert!(page.contains("\nkeygate_policy_revision 1\n"));
    assert!(page.contains(&format!("\nkeygate_policy_apply_failures_total {tried}\n")), "{page}");
}

#[tokio::test]
async fn a_tenants_root_is_bound_and_only_the_platform_may_apply() {
    let server = Server::start(&[]);
    let made = Command::new(env!("CARGO_BIN_EXE_keygate"))
        .args([
            "tenant",
            "create",
            "pay",
            "--output",
            "json",
            "--endpoints",
            &server.endpoint(),
            "--data-dir",
        ])
        .arg(server.data_dir())
        .output()
        .unwrap();
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let tenant = server.logged_in("root@pay", made["root_password"].as_str().unwrap()).await;
    let officer = server.named("officer").await;
    let rows = "p, user:*, pay, /sealed/*, readwrite, deny\np, user:officer, default, -, policy, allow\np, user:officer, default, -, escalate, allow\n";
    assert_eq!(apply(&server, &bundle(1, rows, "")), 1);
    assert!(put(&tenant, "/open/a").await.is_ok());
    assert_eq!(put(&tenant, "/sealed/a").await, Err(Code::PermissionDenied));
    assert_eq!(get(&tenant, "\0", "\0").await, Err(Code::PermissionDenied), "a range that touches it");

    let rollback = keygate_proto::admin::PolicyRollbackRequest { to: Some(0), expected: None };
    let policies =
        |caller: &Caller| keygate_proto::admin::policies_client::PoliciesClient::new(caller.signed());
    let refused = policies(&tenant).rollback(rollback).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    policies(&officer).rollback(rollback).await.expect("the right can be given without root");
    assert!(put(&tenant, "/sealed/a").await.is_ok());
    let refused = policies(&officer).rollback(rollback).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "the bundle that gave it is gone");
}

/// An open watch of this caller on everything below `/pay/`.
async fn watch(caller: &Caller) -> tonic::Streaming<pb::WatchResponse> {
    let create =
        pb::WatchCreateRequest { key: "/pay/".into(), range_end: "/pay0".into(), ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([request]), tokio_stream::pending());
    let mut client = pb::watch_client::WatchClient::new(caller.signed());
    let mut answers = client.watch(requests).await.unwrap().into_inner();
    let created = answers.message().await.unwrap().unwrap();
    assert!(created.created && !created.canceled, "{created:?}");
    answers
}

#[tokio::test]
async fn an_open_watch_shows_nothing_newer_than_the_bundle_that_ends_it() {
    let server = Server::start(&[]);
    let (root, service) = (server.named("root").await, server.named("svc-pay").await);
    let rows = "p, user:svc-pay, default, /pay/*, readwrite, allow\n";
    apply(&server, &bundle(1, rows, ""));
    let mut answers = watch(&service).await;
    put(&root, "/pay/a").await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().events.len(), 1);
    apply(&server, &bundle(2, "p, user:svc-pay, default, /pay/*, write, allow\n", ""));
    put(&root, "/pay/a").await.unwrap();
    let last = answers.message().await.unwrap().unwrap();
    assert!(last.canceled && last.events.is_empty(), "{last:?}");
    assert_eq!(last.cancel_reason, "etcdserver: permission denied");
}

#[tokio::test]
async fn a_right_that_ends_with_time_ends_an_idle_watch() {
    let server = Server::start(&[]);
    let service = server.named("svc-pay").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let until = keygate_policies::bundle::Instant(i64::try_from(now + 4).unwrap());
    let rows = format!("p, user:svc-pay, default, /pay/*, readwrite, allow, until={until};connection=mtls\n");
    apply(&server, &bundle(1, &rows, ""));
    let mut answers = watch(&service).await;
    let last = tokio::time::timeout(Duration::from_secs(60), answers.message()).await.unwrap();
    let last = last.unwrap().unwrap();
    assert!(last.canceled, "{last:?}");
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(ended >= now + 4, "it ended {} seconds too early", now + 4 - ended);
    assert_eq!(put(&service, "/pay/a").await, Err(Code::PermissionDenied));
}

/// It began under a bundle without a time, and nothing happened in it since.
#[tokio::test]
async fn an_idle_watch_ends_with_the_time_of_a_later_bundle_and_with_its_right() {
    let server = Server::start(&[]);
    let service = server.named("svc-pay").await;
    let row = "p, user:svc-pay, default, /pay/*, readwrite, allow";
    apply(&server, &bundle(1, &format!("{row}\n"), ""));
    let mut answers = watch(&service).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let ends = now + 3;
    let until = keygate_policies::bundle::Instant(i64::try_from(ends).unwrap());
    apply(&server, &bundle(2, &format!("{row}, until={until}\n"), ""));
    let last = tokio::time::timeout(Duration::from_secs(60), answers.message()).await.expect("it ends");
    assert!(last.unwrap().unwrap().canceled);
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    println!("it ended {:?} after its time", ended.saturating_sub(Duration::from_secs(ends)));
    assert!(ended.as_secs() >= ends, "it ended {} seconds too early", ends - ended.as_secs());

    apply(&server, &bundle(3, &format!("{row}\n"), ""));
    let mut answers = watch(&service).await;
    apply(&server, &bundle(4, "p, user:svc-pay, default, /pay/*, write, allow\n", ""));
    let last = tokio::time::timeout(Duration::from_secs(60), answers.message()).await.expect("it ends");
    let last = last.unwrap().unwrap();
    assert!(last.canceled && last.cancel_reason == "etcdserver: permission denied", "{last:?}");
}

/// Until the page says so.
async fn page_says(server: &Server, line: &str) {
    let waited = async {
        while !server.page("/metrics").await.contains(line) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap_or_else(|_| panic!("never `{line}`"));
}

#[tokio::test]
async fn a_bundle_in_a_folder_is_in_force_from_the_start_and_when_it_changes() {
    let folder = bundle(1, "p, user:svc-pay, default, /pay/*, readwrite, allow\n", "");
    let server = Server::start(&["--policy-dir", folder.path().to_str().unwrap()]);
    let service = server.named("svc-pay").await;
    assert!(put(&service, "/pay/a").await.is_ok());
    assert_eq!(put(&service, "/shop/a").await, Err(Code::PermissionDenied));

    // Half of a change: the digest is not that of the file any more.
    fs::write(folder.path().join("policy.csv"), "p, user:svc-pay, default, /shop/*, readwrite, allow\n")
        .unwrap();
    page_says(&server, "\nkeygate_policy_apply_failures_total 1\n").await;
    assert!(put(&service, "/pay/a").await.is_ok(), "what was in force stays");
    digest(folder.path(), 2);
    page_says(&server, "\nkeygate_policy_revision 2\n").await;
    assert!(put(&service, "/shop/a").await.is_ok());
    assert_eq!(put(&service, "/pay/a").await, Err(Code::PermissionDenied));

    // An operator takes it back: it stays so, until the folder changes or somebody asks for it.
    says(&server, &["rollback"], 0);
    assert!(put(&service, "/pay/a").await.is_ok());
    server.signal("HUP");
    page_says(&server, "\nkeygate_policy_revision 4\n").await;
    assert!(put(&service, "/shop/a").await.is_ok());
    let log = says(&server, &["log"], 0);
    assert!(log.contains("by the server: bundle 2") && log.contains("by root: bundle 1"), "{log}");
}

/// Ed25519 keys in files of a folder.
struct Signer {
    folder: TempDir,
}

impl Signer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        fs::write(folder.path().join("pub.pem"), key.public_key_pem()).unwrap();
        Self { folder }
    }

    fn public(&self) -> String {
        self.folder.path().join("pub.pem").to_str().unwrap().to_owned()
    }

    fn sign(&self, bundle: &TempDir) {
        let signed = Command::new(env!("CARGO_BIN_EXE_keygate"))
            .args(["policy", "sign"])
            .arg(bundle.path())
            .arg("--key")
            .arg(self.folder.path().join("key.pem"))
            .output()
            .unwrap();
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    }
}

#[tokio::test]
async fn with_keys_only_what_they_have_signed_is_applied() {
    let signer = Signer::new();
    let server = Server::start(&["--policy-keys", &signer.public()]);
    let service = server.named("svc-pay").await;
    let folder = bundle(1, "p, user:svc-pay, default, /pay/*, readwrite, allow\n", "");
    let said = says(&server, &["apply", folder.path().to_str().unwrap()], 1);
    assert!(said.contains("signed by 0 of the keys and 1 are needed"), "{said}");
    assert_eq!(put(&service, "/pay/a").await, Err(Code::PermissionDenied));
    signer.sign(&folder);
    assert_eq!(apply(&server, &folder), 1);
    assert!(put(&service, "/pay/a").await.is_ok());
}

async fn apply_by(caller: &Caller, folder: &TempDir) -> Result<u64, tonic::Status> {
    let content = bytes::Bytes::from(Files::open(folder.path()).unwrap().to_tar().unwrap());
    let digest = bytes::Bytes::from(digest_of_tar(std::slice::from_ref(&content)).0.to_vec());
    let mut client = admin::policies_client::PoliciesClient::new(caller.signed());
    client.stage(admin::PolicyStageRequest { digest: digest.clone(), index: 0, content }).await?;
    let answer = client.apply(admin::PolicyApplyRequest { digest, parts: 1, expected: None }).await?;
    Ok(answer.into_inner().revision.unwrap().revision)
}

/// Whoever signs says that a bundle is right, and whoever rolls it out must still hold what it gives: else a signed bundle
/// for another server, or an older one, would be a way to rights that nobody gave here.
#[tokio::test]
async fn a_signature_does_not_stand_for_what_whoever_applies_it_does_not_hold() {
    const ROLLS_OUT: &str =
        "p, user:ops, default, -, policy, allow\np, user:ops, default, /pay/*, readwrite, allow\n";
    let signer = Signer::new();
    let server = Server::start(&["--policy-keys", &signer.public()]);
    let (ops, service) = (server.named("ops").await, server.named("svc-pay").await);
    let signed = |revision, more: &str| {
        let folder = bundle(revision, &format!("{ROLLS_OUT}{more}"), "");
        signer.sign(&folder);
        folder
    };
    assert_eq!(apply(&server, &signed(1, "")), 1);
    let more = "p, user:svc-pay, default, /shop/*, readwrite, allow\n";
    let refused = apply_by(&ops, &signed(2, more)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("default: user:svc-pay gains read /shop/*"), "{}", refused.message());
    assert!(refused.message().contains("`escalate`"), "{}", refused.message());
    assert_eq!(put(&service, "/shop/a").await, Err(Code::PermissionDenied));
    assert!(says(&server, &["log"], 0).starts_with("* 1 "), "nothing has changed");
    // Nor does what they hold stand for a signature.
    let less = "p, user:svc-pay, default, /pay/a/*, readwrite, allow\n";
    let unsigned = bundle(2, &format!("{ROLLS_OUT}{less}"), "");
    let refused = apply_by(&ops, &unsigned).await.unwrap_err();
    assert!(refused.message().contains("signed by 0 of the keys"), "{}", refused.message());
    assert_eq!(apply_by(&ops, &signed(2, less)).await.unwrap(), 2);
    assert!(put(&service, "/pay/a/b").await.is_ok());
    let escalates = format!("{more}p, user:ops, default, -, escalate, allow\n");
    assert_eq!(apply(&server, &signed(3, &escalates)), 3);
    assert_eq!(apply_by(&ops, &signed(4, &format!("{escalates}{less}"))).await.unwrap(), 4);
}

async fn add_user(by: &Caller, name: &str) {
    let request =
        pb::AuthUserAddRequest { name: name.to_owned(), password: "p".to_owned(), ..Default::default() };
    pb::auth_client::AuthClient::new(by.signed()).user_add(request).await.unwrap();
}

/// Whoever may add users in a tenant could take a name before a bundle gave it anything, and nobody was told.
#[tokio::test]
async fn users_whose_names_somebody_took_before_a_bundle_gave_them_rights_are_told() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    for tenant in ["pay", "shop"] {
        let made = server.keygate(&["tenant", "create", tenant]);
        let password = made["root_password"].as_str().unwrap();
        let own = server.logged_in(&format!("root@{tenant}"), password).await;
        add_user(&own, "deploy").await;
    }
    add_user(&root, "alice").await;
    let rows = "\
p, role:pay, pay, /pay/*, readwrite, allow\n\
p, user:ghost, pay, /pay/*, read, allow\n\
p, user:kept, pay, /pay/*, read, deny\n\
p, user:early, wanted, /pay/*, read, allow\n\
p, user:deploy, *, /all/*, read, allow\n";
    let first = bundle(1, rows, "g, user:deploy, role:pay, pay\ng, user:alice, role:pay, pay\n");
    let path = first.path().to_str().unwrap().to_owned();
    let expected = serde_json::json!([
        { "user": "alice", "tenant": "pay", "exists": false },
        { "user": "deploy", "tenant": "pay", "exists": true },
        { "user": "ghost", "tenant": "pay", "exists": false },
        { "user": "deploy", "tenant": "wanted", "exists": false },
        { "user": "early", "tenant": "wanted", "exists": false },
        { "user": "deploy", "tenant": "shop", "exists": true },
        { "user": "deploy", "tenant": null, "exists": false },
    ]);
    let told = keygate(&server, &["diff", &path, "--output", "json"]);
    assert_eq!(told.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["first_rights"], expected);
    assert!(told["deltas"].as_array().is_some_and(|deltas| deltas.len() >= 4), "{told:#}");
    let text = says(&server, &["diff", &path], 1);
    assert!(text.contains("already: `deploy` of `pay`, `deploy` of `shop`."), "{text}");
    assert!(
        text.contains("before the bundle is in force") && text.contains("a group of an identity rule"),
        "{text}"
    );

    let applied = keygate(&server, &["apply", &path, "--output", "json"]);
    let applied: serde_json::Value = serde_json::from_slice(&applied.stdout).unwrap();
    assert_eq!((&applied["ok"], &applied["first_rights"]), (&true.into(), &expected));
    // They were told.
    let more = format!(
        "{rows}p, user:deploy, pay, /more/*, read, allow\np, user:alice, default, /a/*, read, allow\n"
    );
    let second = bundle(2, &more, "g, user:deploy, role:pay, pay\ng, user:alice, role:pay, pay\n");
    let text = says(&server, &["apply", second.path().to_str().unwrap()], 0);
    assert!(
        text.starts_with("policy revision 2 is in force") && text.contains("already: `alice` of `default`."),
        "{text}"
    );
    assert!(!text.contains("of `pay`"), "{text}");
    says(&server, &["rollback", "--to", "0"], 0);
    let text = says(&server, &["rollback", "--to", "1"], 0);
    assert!(text.contains("already: `deploy` of `pay`, `deploy` of `shop`."), "{text}");
    let equal = says(&server, &["diff", &path], 0);
    assert_eq!(equal, "", "what is in force is the bundle");

    let users = vec!["u".to_owned(); 1001];
    let request = admin::PolicyUsersRequest { tenant: String::new(), users };
    let mut client = admin::policies_client::PoliciesClient::new(root.signed());
    let refused = client.users(request).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "keygate: a request names up to 1000 users")
    );
}
