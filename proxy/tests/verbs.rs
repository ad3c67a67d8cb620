//! `keygate policy can-i` without a bundle says of each administrative verb what the server then does.
//!
//! It said no to `member-list` and `status`, which every user may ask for, and yes to a tenant's root for rights that are the
//! platform's own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use keygate_policies::bundle::{Files, Manifest, Verb};
use keygate_policies::{BUNDLE_MODEL, digest_of_tar};
use keygate_proto::{admin, etcdserverpb as pb};
use prost::Message as _;
use support::{Caller, Server};
use tonic::Code;

/// A request that needs the verb and changes nothing, where there is one.
fn request(verb: Verb) -> Option<(&'static str, Vec<u8>)> {
    let name = || "nobody".to_owned();
    Some(match verb {
        Verb::Compact => ("etcdserverpb.KV/Compact", pb::CompactionRequest::default().encode_to_vec()),
        Verb::Snapshot => ("etcdserverpb.Maintenance/Snapshot", Vec::new()),
        Verb::Defrag => ("etcdserverpb.Maintenance/Defragment", Vec::new()),
        Verb::Alarm => {
            let (action, alarm) = (pb::alarm_request::AlarmAction::Deactivate, pb::AlarmType::Nospace);
            let request =
                pb::AlarmRequest { action: action.into(), alarm: alarm.into(), ..Default::default() };
            ("etcdserverpb.Maintenance/Alarm", request.encode_to_vec())
        }
        Verb::Hash => ("etcdserverpb.Maintenance/HashKV", Vec::new()),
        Verb::MemberList => ("etcdserverpb.Cluster/MemberList", Vec::new()),
        Verb::Status => ("etcdserverpb.Maintenance/Status", Vec::new()),
        Verb::Auth => {
            ("etcdserverpb.Auth/RoleDelete", pb::AuthRoleDeleteRequest { role: name() }.encode_to_vec())
        }
        // Comes on top of others.
        Verb::Escalate => return None,
        Verb::UserList => ("etcdserverpb.Auth/UserList", Vec::new()),
        Verb::RoleList => ("etcdserverpb.Auth/RoleList", Vec::new()),
        Verb::Tenants => {
            ("keygate.admin.v1.Tenants/Delete", admin::TenantDeleteRequest { name: name() }.encode_to_vec())
        }
        Verb::TenantList => ("keygate.admin.v1.Tenants/List", Vec::new()),
        Verb::Quota => ("keygate.admin.v1.Quotas/Show", Vec::new()),
        Verb::Limits => ("keygate.admin.v1.Limits/Get", Vec::new()),
        Verb::Policy => ("keygate.admin.v1.Policies/Log", Vec::new()),
    })
}

async fn apply(caller: &Caller, policy: &str) {
    let mut files = Files::default();
    files.insert("model.conf", BUNDLE_MODEL.into());
    files.insert("policy.csv", policy.into());
    files.insert("roles.csv", Vec::new());
    files.insert("manifest.json", Manifest::of(&files, 1).to_bytes());
    let content: bytes::Bytes = files.to_tar().unwrap().into();
    let digest = bytes::Bytes::from(digest_of_tar(std::slice::from_ref(&content)).0.to_vec());
    let mut client = admin::policies_client::PoliciesClient::new(caller.signed());
    client.stage(admin::PolicyStageRequest { digest: digest.clone(), index: 0, content }).await.unwrap();
    client.apply(admin::PolicyApplyRequest { digest, parts: 1, expected: None }).await.unwrap();
}

async fn add(by: &Caller, name: &str) {
    let (name, password) = (name.to_owned(), "p".to_owned());
    let request = pb::AuthUserAddRequest { name, password, ..Default::default() };
    pb::auth_client::AuthClient::new(by.signed()).user_add(request).await.unwrap();
}

/// `even` and `odd` have every other verb, `bound` is denied what every user may, `plain` has a user record alone, and the
/// certificate of `nobody` names nobody.
#[tokio::test]
async fn can_i_says_of_every_verb_what_the_server_does() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let made = server.keygate(&["tenant", "create", "pay"]);
    let of_pay = server.logged_in("root@pay", made["root_password"].as_str().unwrap()).await;
    for user in ["even", "odd", "bound", "plain"] {
        add(&of_pay, user).await;
    }
    add(&root, "plain").await;
    let mut rows = String::new();
    for tenant in ["default", "pay"] {
        for (at, verb) in Verb::ALL.into_iter().enumerate() {
            let who = if at % 2 == 0 { "even" } else { "odd" };
            rows.push_str(&format!("p, user:{who}, {tenant}, -, {}, allow\n", verb.name()));
        }
        rows.push_str(&format!("p, user:bound, {tenant}, -, member-list, deny\n"));
        rows.push_str(&format!("p, user:bound, {tenant}, -, status, deny\n"));
    }
    apply(&root, &rows).await;

    let mut callers = vec![("default", "root", root), ("pay", "root", of_pay)];
    for user in ["even", "odd", "bound", "plain", "nobody"] {
        callers.push(("default", user, server.named(user).await));
    }
    for user in ["even", "odd", "bound", "plain"] {
        callers.push(("pay", user, server.logged_in(&format!("{user}@pay"), "p").await));
    }
    let (mut yes, mut no) = (0, 0);
    for (tenant, user, caller) in &callers {
        let ask = |verb: &Verb| {
            let question = ["policy", "can-i", "--tenant", tenant, "--user", user, verb.name()];
            let output = server.operator(&question);
            let told = String::from_utf8(output.stdout).unwrap();
            let is_yes = (output.status.code(), &*told) == (Some(0), "yes\n");
            assert!(is_yes || (output.status.code() == Some(1) && told == "no\n"), "{question:?}: {told}");
            is_yes
        };
        // Two at a time: each is a process.
        let (first, second) = Verb::ALL.split_at(Verb::ALL.len() / 2);
        let answers: Vec<bool> = std::thread::scope(|scope| {
            let first = scope.spawn(|| first.iter().map(ask).collect::<Vec<bool>>());
            let second: Vec<bool> = second.iter().map(ask).collect();
            first.join().unwrap().into_iter().chain(second).collect()
        });
        for (verb, told) in Verb::ALL.into_iter().zip(answers) {
            if told {
                yes += 1
            } else {
                no += 1
            }
            let Some((path, message)) = request(verb) else { continue };
            let done = caller.raw(&format!("/{path}"), message).await;
            let is_allowed = done.as_ref().err().is_none_or(|status| status.code() != Code::PermissionDenied);
            assert_eq!(is_allowed, told, "{} by {user} of {tenant}: {done:?}", verb.name());
        }
    }
    println!("{yes} times yes, {no} times no");
    assert!(yes >= 50 && no >= 80);
    for (question, reason) in [
        (["--user", "plain", "member-list"], "every user may, unless a row denies it"),
        (["--user", "nobody", "member-list"], "no user of this name is there"),
        (["--user", "plain", "defrag"], "no row: what no row allows is denied"),
    ] {
        let output = server.operator(&[&["policy", "explain"], &question[..]].concat());
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains(reason), "{question:?}: {told}");
    }
    let told = server.operator(&["policy", "explain", "--tenant", "pay", "--user", "odd", "snapshot"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("decided by  no row of a tenant gives what is the platform's\n"), "{told}");
}
