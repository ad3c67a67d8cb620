//! Tenants as their users, their roots and the platform's operators meet them: by a real process, over TLS, and by the
//! command line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use keygate_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use std::process::{Command, Output};
use std::time::Duration;
use support::{Caller, Server, Shown};
use tonic::Code;

/// `keygate tenant …` as the operator of the machine types it.
fn keygate(server: &Server, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keygate"))
        .arg("tenant")
        .args(arguments)
        .args(["--endpoints", &server.endpoint(), "--data-dir"])
        .arg(server.data_dir())
        .env_clear()
        .output()
        .unwrap()
}

fn json(server: &Server, arguments: &[&str]) -> serde_json::Value {
    let output = keygate(server, &[arguments, &["--output", "json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Exit status and what was said about it.
fn refused(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = keygate(server, arguments);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

async fn create(server: &Server, name: &str) -> Caller {
    let made = json(server, &["create", name]);
    server.logged_in(&format!("root@{name}"), made["root_password"].as_str().unwrap()).await
}

async fn put(caller: &Caller, key: &str) -> Result<i64, tonic::Status> {
    let request = pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() };
    let answer = KvClient::new(caller.signed()).put(request).await?;
    Ok(answer.into_inner().header.unwrap().revision)
}

/// All keys there are.
async fn keys(caller: &Caller) -> Vec<String> {
    let request = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let kvs = KvClient::new(caller.signed()).range(request).await.unwrap().into_inner().kvs;
    kvs.into_iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn each_tenant_has_an_etcd_of_its_own() {
    let server = Server::start(&[]);
    let platform = server.named("root").await;
    let (pay, shop) = (create(&server, "pay").await, create(&server, "shop").await);
    put(&platform, "of the platform").await.unwrap();
    for n in 0..5 {
        put(&shop, &format!("shop{n}")).await.unwrap();
    }
    // A revision counter of its own, from the beginning.
    assert_eq!(put(&pay, "pay").await.unwrap(), 2);
    assert_eq!(keys(&pay).await, ["pay"]);
    assert_eq!(keys(&shop).await.len(), 5);
    assert_eq!(keys(&platform).await, ["of the platform"]);

    // The same lease id in both, and neither hears of the other's.
    for (tenant, ttl) in [(&pay, 100), (&shop, 200)] {
        let mut leases = LeaseClient::new(tenant.signed());
        leases.lease_grant(pb::LeaseGrantRequest { id: 7, ttl }).await.unwrap();
        assert_eq!(
            leases.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner().leases.len(),
            1
        );
        let request = pb::LeaseTimeToLiveRequest { id: 7, keys: true };
        assert_eq!(leases.lease_time_to_live(request).await.unwrap().into_inner().granted_ttl, ttl);
    }
    // Users, and the right to make them.
    let mut auth = AuthClient::new(pay.signed());
    let add = pb::AuthUserAddRequest { name: "u".into(), password: "p".into(), ..Default::default() };
    auth.user_add(add).await.unwrap();
    let users = auth.user_list(pb::AuthUserListRequest {}).await.unwrap().into_inner().users;
    assert_eq!(users, ["root", "u"]);
    server.login("u@pay", "p").await.unwrap();
    for wrong in ["u", "u@shop", "u@nowhere"] {
        let status = server.login(wrong, "p").await.unwrap_err();
        assert_eq!(status.message(), "etcdserver: authentication failed, invalid user ID or password");
    }

    // One compacts; only its own history is gone.
    let mut kv = KvClient::new(shop.signed());
    kv.compact(pb::CompactionRequest { revision: 5, physical: true }).await.unwrap();
    let old = pb::RangeRequest { key: "shop0".into(), revision: 3, ..Default::default() };
    assert_eq!(kv.range(old).await.unwrap_err().code(), Code::OutOfRange);
    let old = pb::RangeRequest { key: "pay".into(), revision: 2, ..Default::default() };
    assert_eq!(KvClient::new(pay.signed()).range(old).await.unwrap().into_inner().count, 1);

    // Sizes tell of nobody else.
    let size = |caller: &Caller| {
        let mut maintenance = MaintenanceClient::new(caller.signed());
        async move { maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner().db_size }
    };
    assert_eq!(size(&pay).await, "pay".len() as i64 + 1);
    assert!(size(&platform).await > 1_000);
}

#[tokio::test]
async fn the_host_name_of_the_handshake_leads_to_a_tenant() {
    let server = Server::start(&[]);
    let made = json(&server, &["create", "pay", "--host", "LOCALHOST"]);
    assert_eq!(made["hosts"], serde_json::json!(["localhost"]));
    let password = made["root_password"].as_str().unwrap();
    let pay = server.logged_in("root", password).await;
    assert_eq!(put(&pay, "pay").await.unwrap(), 2);
    assert_eq!(keys(&pay).await, ["pay"]);
    // The platform's authority says nothing about who is who there.
    let by_certificate = server.named("root").await;
    assert_eq!(put(&by_certificate, "k").await.unwrap_err().message(), "etcdserver: user name is empty");
    // The command line reaches the server by its address, so it is still the platform's.
    assert_eq!(refused(&server, &["set-hosts", "pay"]).0, Some(2));
    json(&server, &["set-hosts", "pay", "--none"]);
    put(&by_certificate, "k").await.unwrap();
    assert_eq!(keys(&by_certificate).await, ["k"]);
}

#[tokio::test]
async fn a_suspended_tenant_can_be_read_only_and_a_deleted_one_ends() {
    let server = Server::start(&[]);
    let pay = create(&server, "pay").await;
    put(&pay, "k").await.unwrap();
    json(&server, &["suspend", "pay"]);
    let status = put(&pay, "k").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "keygate: tenant is suspended: it can be read, not changed");
    assert_eq!(keys(&pay).await, ["k"]);
    json(&server, &["resume", "pay"]);
    put(&pay, "l").await.unwrap();

    let create_request = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
    let request = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create_request)),
    };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let mut events = WatchClient::new(pay.signed()).watch(requests).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().unwrap().created);

    json(&server, &["delete", "pay", "--yes"]);
    let last =
        tokio::time::timeout(Duration::from_secs(20), events.message()).await.expect("nobody was told");
    let last = last.unwrap().unwrap();
    assert!(last.canceled);
    assert_eq!(last.cancel_reason, "etcdserver: permission denied");
    assert_eq!(put(&pay, "k").await.unwrap_err().message(), "etcdserver: invalid auth token");
    assert!(server.login("root@pay", "whatever").await.is_err());
    assert_eq!(json(&server, &["list"]), serde_json::json!({ "tenants": [] }));
    // A new one of the same name is another one: the old one's tokens do not open it.
    let again = create(&server, "pay").await;
    assert_eq!(put(&pay, "k").await.unwrap_err().message(), "etcdserver: invalid auth token");
    assert_eq!(keys(&again).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_command_line_says_what_it_did_and_why_not() {
    let server = Server::start(&[]);
    let made = json(&server, &["create", "pay", "--host", "pay.kv.corp"]);
    assert_eq!((made["name"].as_str(), made["state"].as_str()), (Some("pay"), Some("active")));
    assert_eq!(made["root_password"].as_str().unwrap().len(), 26);
    for (arguments, code, text) in [
        (&["create", "pay"][..], 1, "keygate: tenant `pay` exists already"),
        (&["create", "Pay"], 1, "keygate: `Pay` is not a tenant's name"),
        (&["create", "default"], 1, "keygate: `default` is not a tenant's name"),
        (&["create", "shop", "--host", "pay.kv.corp"], 1, "host `pay.kv.corp` leads to tenant `pay` already"),
        (&["create", "shop", "--host", "*.corp"], 1, "`*.corp` is not a host name"),
        (&["show", "nobody"], 1, "keygate: there is no tenant `nobody`"),
        // In no handshake an address can be asked for.
        (&["create", "shop", "--host", "10.0.0.1"], 1, "`10.0.0.1` is not a host name"),
        (&["set-hosts", "pay", "pay.kv.corp", "10.0.0.1"], 1, "`10.0.0.1` is not a host name"),
        (&["set-hosts", "pay"], 2, "--none"),
        (&["show", "a\u{1b}[31mb"], 1, "`a\\u{1b}[31mb`"),
        (&["delete", "pay"], 2, "deleting `pay` cannot be undone: say `--yes`"),
        (&["list", "--user", "root:wrong"], 2, "authentication failed, invalid user ID or password"),
    ] {
        let (status, said) = refused(&server, arguments);
        assert_eq!(status, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(text), "{arguments:?}: {said}");
        assert!(!said.contains("keygate: keygate:") && !said.contains('\u{1b}'), "{said}");
    }
    let output = keygate(&server, &["show", "nobody", "--output", "json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, serde_json::json!({ "ok": false, "error": "there is no tenant `nobody`" }));
    assert_eq!((output.status.code(), output.stderr.len()), (Some(1), 0));
    let list = String::from_utf8(keygate(&server, &["list"]).stdout).unwrap();
    assert_eq!(
        list,
        "NAME  STATE   KEYS  BYTES  LEASES  USERS  REVISION  HOSTS\n\
         pay   active  0     0      0       1      1         pay.kv.corp\n"
    );
    let shown = String::from_utf8(keygate(&server, &["show", "pay"]).stdout).unwrap();
    assert!(shown.contains("hosts:     pay.kv.corp\n") && shown.contains("compacted: never\n"), "{shown}");

    // Who did what is in the log.
    for (arguments, change) in [
        (&["suspend", "pay"][..], "tenant `pay` suspended"),
        (&["resume", "pay"], "tenant `pay` resumed"),
        (&["set-hosts", "pay", "b.kv.corp", "a.kv.corp"], "tenant `pay` has hosts b.kv.corp, a.kv.corp"),
        (&["create", "gone"], "tenant `gone` created, no hosts"),
        (&["delete", "gone", "--yes"], "tenant `gone` deleted"),
    ] {
        json(&server, arguments);
        let line = server.logs(&["an operator has changed something", change]).await;
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["user"], &line["tenant"]), (&"root".into(), &"default".into()), "{line}");
        assert!(line["revision"].is_number() && line["remote_addr"].is_string(), "{line}");
    }
    assert!(!server.lines().join("").contains(made["root_password"].as_str().unwrap()));

    // Nobody but the platform's root, and nobody at all without a server.
    let tenant = ["list", "--user", "root@pay", "--password", made["root_password"].as_str().unwrap()];
    let (status, said) = refused(&server, &tenant);
    assert_eq!((status, said.contains("permission denied")), (Some(1), true), "{said}");
    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_keygate"));
    nowhere
        .args(["tenant", "list", "--endpoints", "https://127.0.0.1:1", "--data-dir"])
        .arg(server.data_dir());
    let output = nowhere.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("no server could be reached: `https://127.0.0.1:1`"), "{said}");
    let plain = server.endpoint().replace("https://", "http://");
    let output =
        Command::new(env!("CARGO_BIN_EXE_keygate")).args(["tenant", "list", "--endpoints", &plain]).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains(&format!("the server speaks TLS: say `{}`", server.endpoint())), "{said}");
}

#[tokio::test]
async fn nobody_reaches_a_tenant_without_a_login_there() {
    let server = Server::start(&[]);
    let pay = create(&server, "pay").await;
    put(&pay, "k").await.unwrap();
    let strangers = [server.caller(Shown::default()).await, server.named("nobody in particular").await];
    for stranger in &strangers {
        assert!(put(stranger, "k").await.is_err());
    }
    // The platform's root makes tenants, and is not in them.
    assert_eq!(keys(&server.named("root").await).await, Vec::<String>::new());
    assert_eq!(keys(&pay).await, ["k"]);
}
