//! Nobody hands on what they do not hold: over TLS, against a real process, by the Auth API and by bundles.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use keygate_policies::bundle::{Files, Manifest};
use keygate_policies::{BUNDLE_MODEL, digest_of_tar};
use keygate_proto::{admin, authpb, etcdserverpb as pb};
use pb::auth_client::AuthClient;
use support::{Caller, Server};
use tonic::{Code, Status};

const POLICY: &str = "\
p, user:ops, default, -, auth, allow
p, user:ops, default, -, policy, allow
p, user:ops, default, /pay/*, readwrite, allow
p, user:lead, default, -, auth, allow
p, user:lead, default, -, escalate, allow
p, user:svc, default, /shop/*, read, allow
p, user:*, default, /pay/secret/*, write, deny
p, user:looker, default, -, limits, allow
p, user:counter, default, -, quota, allow
p, user:blind, default, -, member-list, deny
";

async fn apply(caller: &Caller, revision: u64, policy: &str) -> Result<u64, Status> {
    let mut files = Files::default();
    files.insert("model.conf", BUNDLE_MODEL.into());
    files.insert("policy.csv", policy.into());
    files.insert("roles.csv", Vec::new());
    files.insert("manifest.json", Manifest::of(&files, revision).to_bytes());
    let content: bytes::Bytes = files.to_tar().unwrap().into();
    let digest = bytes::Bytes::from(digest_of_tar(std::slice::from_ref(&content)).0.to_vec());
    let mut client = admin::policies_client::PoliciesClient::new(caller.signed());
    client.stage(admin::PolicyStageRequest { digest: digest.clone(), index: 0, content }).await?;
    let answer = client.apply(admin::PolicyApplyRequest { digest, parts: 1, expected: None }).await?;
    Ok(answer.into_inner().revision.unwrap().revision)
}

/// `keygate policy …` as the operator of the machine types it.
fn operator(server: &Server, arguments: &[&str]) -> String {
    let output = server.operator(&[&["policy"], arguments].concat());
    String::from_utf8_lossy(&output.stdout).into_owned() + &*String::from_utf8_lossy(&output.stderr)
}

async fn role(caller: &Caller, name: &str) -> Result<(), Status> {
    let request = pb::AuthRoleAddRequest { name: name.to_owned() };
    AuthClient::new(caller.signed()).role_add(request).await.map(drop)
}

async fn grant(caller: &Caller, name: &str, key: &'static str, end: &'static str) -> Result<(), Status> {
    let perm = Some(authpb::Permission { perm_type: 1, key: key.into(), range_end: end.into() });
    let request = pb::AuthRoleGrantPermissionRequest { name: name.to_owned(), perm };
    AuthClient::new(caller.signed()).role_grant_permission(request).await.map(drop)
}

async fn give(caller: &Caller, user: &str, role: &str) -> Result<(), Status> {
    let request = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
    AuthClient::new(caller.signed()).user_grant_role(request).await.map(drop)
}

async fn add(caller: &Caller, name: &str) -> Result<(), Status> {
    let (name, password) = (name.to_owned(), "p".to_owned());
    let request = pb::AuthUserAddRequest { name, password, ..Default::default() };
    AuthClient::new(caller.signed()).user_add(request).await.map(drop)
}

#[tokio::test]
async fn a_change_of_users_needs_what_it_hands_on_and_the_operator_is_told_what_was_missing() {
    let server = Server::start(&[]);
    let (root, ops, lead) =
        (server.named("root").await, server.named("ops").await, server.named("lead").await);
    assert_eq!(apply(&root, 1, POLICY).await.unwrap(), 1);

    role(&ops, "r").await.unwrap();
    grant(&ops, "r", "/pay/", "/pay0").await.expect_err("not what it may not write");
    grant(&ops, "r", "/pay/a/", "/pay/a0").await.unwrap();
    let denied = grant(&ops, "r", "/shop/", "/shop0").await.unwrap_err();
    assert_eq!((denied.code(), denied.message()), (Code::PermissionDenied, "etcdserver: permission denied"));
    let id = denied.metadata().get("x-keygate-decision-id").unwrap().to_str().unwrap().to_owned();
    let why = operator(&server, &["explain", &id]);
    assert!(
        why.starts_with("etcdserverpb.Auth/RoleGrantPermission at ") && why.contains("by ops@default"),
        "{why}"
    );
    assert!(why.contains("auth: allow"), "the verb itself is there: {why}");
    assert!(
        why.contains("not held    write /shop/*\n") && why.contains("`escalate` would allow it"),
        "{why}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&operator(&server, &["explain", &id, "--output", "json"])).unwrap();
    assert_eq!(json["not_held"], serde_json::json!(["write /shop/*"]));

    add(&ops, "new").await.unwrap();
    give(&ops, "new", "r").await.unwrap();
    for denied in [
        add(&ops, "svc").await,
        give(&ops, "ops", "root").await,
        give(&ops, "new", "root").await,
        add(&server.named("nobody").await, "other").await,
    ] {
        let denied = denied.unwrap_err();
        assert_eq!(
            (denied.code(), denied.message()),
            (Code::PermissionDenied, "etcdserver: permission denied")
        );
        assert!(denied.metadata().get("x-keygate-decision-id").is_some());
    }
    grant(&lead, "r", "/shop/", "/shop0").await.unwrap();
    add(&lead, "svc").await.unwrap();
    // It gives more now than whoever gave it before holds.
    give(&ops, "new", "r").await.unwrap_err();
    give(&root, "new", "r").await.unwrap();
}

#[tokio::test]
async fn a_bundle_gives_only_what_whoever_applies_it_holds() {
    let server = Server::start(&[]);
    let (root, ops) = (server.named("root").await, server.named("ops").await);
    assert_eq!(apply(&root, 1, POLICY).await.unwrap(), 1);
    let mut client = admin::policies_client::PoliciesClient::new(ops.signed());

    for (more, gain) in [
        ("p, user:ops, default, /shop/*, write, allow\n", "default: user:ops gains write /shop/*"),
        ("p, user:friend, default, -, escalate, allow\n", "default: user:friend gains escalate"),
        ("p, user:friend, tenant, /x/*, read, allow\n", "tenant: user:friend gains read /x/*"),
    ] {
        let refused = apply(&ops, 2, &format!("{POLICY}{more}")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains(gain), "{}", refused.message());
        assert!(refused.message().contains("`escalate`"), "{}", refused.message());
    }
    let lifted = apply(&ops, 2, &POLICY.replace("p, user:*,", "p, user:svc,")).await.unwrap_err();
    assert!(lifted.message().contains("default: user:* gains write /pay/secret/*"), "{}", lifted.message());
    let rolled =
        client.rollback(admin::PolicyRollbackRequest { to: Some(0), expected: None }).await.unwrap_err();
    assert!(rolled.message().contains("gains write /pay/secret/*"), "{}", rolled.message());
    assert!(operator(&server, &["log"]).starts_with("* 1 "), "nothing has changed");

    let same = format!("{POLICY}p, user:friend, default, /pay/a/*, readwrite, allow\n");
    assert_eq!(apply(&ops, 2, &same).await.unwrap(), 2);
    assert_eq!(apply(&root, 3, "p, user:ops, default, *, readwrite, allow\n").await.unwrap(), 3);
}

#[tokio::test]
async fn verbs_let_others_than_root_look_and_who_can_is_told_of_what_is_in_force() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    assert_eq!(apply(&root, 1, POLICY).await.unwrap(), 1);
    let (looker, counter) = (server.named("looker").await, server.named("counter").await);
    let denied = Code::PermissionDenied;
    let limits = |caller: &Caller| admin::limits_client::LimitsClient::new(caller.signed());
    let quotas = |caller: &Caller| admin::quotas_client::QuotasClient::new(caller.signed());
    let all = || admin::QuotaShowRequest { all: true, ..Default::default() };
    limits(&looker).get(admin::LimitsRequest {}).await.unwrap();
    assert_eq!(limits(&counter).get(admin::LimitsRequest {}).await.unwrap_err().code(), denied);
    quotas(&counter).show(all()).await.unwrap();
    assert_eq!(quotas(&looker).show(all()).await.unwrap_err().code(), denied);
    let list = |caller: &Caller| pb::cluster_client::ClusterClient::new(caller.signed());
    let members = pb::MemberListRequest { linearizable: true };
    list(&looker).member_list(members).await.unwrap();
    assert_eq!(list(&server.named("blind").await).member_list(members).await.unwrap_err().code(), denied);

    let who = operator(&server, &["who-can", "put", "/pay/a"]);
    assert!(who.contains("user:ops") && !who.contains("svc"), "{who}");
    let who = operator(&server, &["who-can", "get", "/shop/a"]);
    assert!(who.contains("user:svc") && who.contains("root") && !who.contains("user:ops"), "{who}");
}
