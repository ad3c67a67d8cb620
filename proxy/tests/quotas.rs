//! Quotas as operators set them and tenants meet them: by a real process, over TLS, and by the command line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use keygate_proto::etcdserverpb as pb;
use keygate_proto::rpc::{QuotaFailure, Status as Details};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use prost::Message as _;
use serde_json::{Value, json};
use std::process::{Command, Output};
use std::time::Duration;
use support::{Caller, Server};
use tonic::Code;

fn keygate(server: &Server, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keygate"))
        .args(arguments)
        .args(["--endpoints", &server.endpoint(), "--data-dir"])
        .arg(server.data_dir())
        .env_clear()
        .output()
        .unwrap()
}

fn answer(server: &Server, arguments: &[&str]) -> Value {
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

async fn tenant(server: &Server, name: &str) -> (Caller, String) {
    let made = answer(server, &["tenant", "create", name]);
    let password = made["root_password"].as_str().unwrap().to_owned();
    (server.logged_in(&format!("root@{name}"), &password).await, password)
}

async fn put(caller: &Caller, key: &str, value: &str, lease: i64) -> Result<i64, tonic::Status> {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let request = pb::PutRequest { key, value, lease, ..Default::default() };
    let answer = KvClient::new(caller.signed()).put(request).await?;
    Ok(answer.into_inner().header.unwrap().revision)
}

async fn delete(caller: &Caller, key: &str) -> i64 {
    let request = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    KvClient::new(caller.signed()).delete_range(request).await.unwrap().into_inner().deleted
}

fn told(status: tonic::Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn a_tenant_lives_within_its_quotas_and_always_finds_a_way_out() {
    let server = Server::start(&[]);
    let (pay, _) = tenant(&server, "pay").await;
    let (shop, _) = tenant(&server, "shop").await;
    answer(&server, &["quota", "set", "pay", "--keys", "2"]);
    answer(&server, &["quota", "set", "pay", "--prefix", "big/", "--bytes", "1KiB"]);
    put(&pay, "a", "1", 0).await.unwrap();
    put(&pay, "b", "1", 0).await.unwrap();
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(pay.signed());
    answer(&server, &["quota", "set", "pay", "--bytes", "1MiB"]);
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.db_size, status.db_size_quota), (4, 1 << 20));
    let no = put(&pay, "c", "1", 0).await.unwrap_err();
    let keys = (Code::ResourceExhausted, "keygate: quota of 2 keys is reached".to_owned());
    assert_eq!(told(no), keys);
    put(&pay, "b", "overwritten", 0).await.unwrap();
    assert_eq!(delete(&pay, "b").await, 1);
    let no = put(&pay, "big/one", &"x".repeat(1018), 0).await.unwrap_err();
    let space = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    assert_eq!(told(no), space);
    put(&pay, "big/one", &"x".repeat(1017), 0).await.unwrap();
    // Nobody else feels it.
    for key in ["a", "b", "c", "big/d"] {
        put(&shop, key, &"y".repeat(2_000), 0).await.unwrap();
        put(&server.named("root").await, key, "z", 0).await.unwrap();
    }

    // A key goes with its lease, and the room is there again.
    delete(&pay, "big/one").await;
    let mut leases = LeaseClient::new(pay.signed());
    leases.lease_grant(pb::LeaseGrantRequest { id: 7, ttl: 2 }).await.unwrap();
    put(&pay, "leased", "1", 7).await.unwrap();
    assert_eq!(told(put(&pay, "d", "1", 0).await.unwrap_err()), keys);
    let expired = async {
        while put(&pay, "d", "1", 0).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), expired).await.unwrap();

    // History is what compaction gives back.
    answer(&server, &["quota", "set", "pay", "--history-bytes", "1MB"]);
    let used = |shown: &Value| shown["quotas"][0]["history_bytes"]["used"].as_u64().unwrap();
    let history = used(&answer(&server, &["quota", "show", "pay"]));
    assert!(history > 1_000, "{history}");
    answer(&server, &["quota", "set", "pay", "--history-bytes", &history.to_string()]);
    assert_eq!(told(put(&pay, "a", "2", 0).await.unwrap_err()), space);
    let revision = put(&shop, "of another tenant", "", 0).await.unwrap();
    assert!(revision > 1);
    let revision = KvClient::new(pay.signed())
        .range(pb::RangeRequest { key: "a".into(), ..Default::default() })
        .await
        .unwrap()
        .into_inner()
        .header
        .unwrap()
        .revision;
    let compact = pb::CompactionRequest { revision, physical: true };
    KvClient::new(pay.signed()).compact(compact).await.unwrap();
    assert_eq!(used(&answer(&server, &["quota", "show", "pay"])), 0);
    put(&pay, "a", "2", 0).await.unwrap();

    let counted = answer(&server, &["quota", "recount", "--all"]);
    let quotas = counted["quotas"].as_array().unwrap();
    assert_eq!(quotas.len(), 4, "{counted:#}");
    for quota in quotas {
        for kind in ["keys", "bytes", "history_bytes"] {
            assert_eq!(quota[kind]["used"], quota[kind]["counted"], "{quota:#}");
        }
    }
}

/// A refusal says in its details which quota it met, and in no word when to come again.
#[tokio::test]
async fn a_refusal_names_its_quota_over_the_wire() {
    let server = Server::start(&[]);
    let (pay, _) = tenant(&server, "pay").await;
    answer(&server, &["quota", "set", "pay", "--keys", "3", "--bytes", "100"]);
    answer(&server, &["quota", "set", "pay", "--prefix", "one/", "--keys", "1"]);
    answer(&server, &["quota", "set", "pay", "--prefix", "past/", "--history-bytes", "10"]);
    for key in ["one/a", "past/a", "past/a", "c"] {
        put(&pay, key, "1", 0).await.unwrap();
    }
    let long = "v".repeat(100);
    for (key, value, text, subject, description) in [
        ("d", "1", "keygate: quota of 3 keys is reached", "keys", "delete keys: 3 of 3 keys are used"),
        (
            "c",
            long.as_str(),
            "etcdserver: mvcc: database space exceeded",
            "bytes",
            "delete keys, or write less: 15 of 100 bytes are used",
        ),
        (
            "past/a",
            "1",
            "etcdserver: mvcc: database space exceeded",
            "history-bytes under `past/`",
            "compact: 7 of 10 history-bytes are used under `past/`",
        ),
        (
            "one/b",
            "1",
            "keygate: quota of 1 keys under `one/` is reached",
            "keys under `one/`",
            "delete keys: 1 of 1 keys are used under `one/`",
        ),
    ] {
        if key == "one/b" {
            // Else the quota of the whole keyspace stands before it.
            assert_eq!(delete(&pay, "c").await, 1);
        }
        let status = put(&pay, key, value, 0).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, text), "{key}");
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1", "{key}");
        let told = Details::decode(status.details()).unwrap();
        assert_eq!((told.code, told.message.as_str()), (Code::ResourceExhausted as i32, text), "{key}");
        let urls: Vec<_> = told.details.iter().map(|any| any.type_url.as_str()).collect();
        assert_eq!(urls, ["type.googleapis.com/google.rpc.QuotaFailure"], "{key}");
        let failure = QuotaFailure::decode(told.details[0].value.as_slice()).unwrap();
        let told: Vec<_> = failure.violations.iter().map(|it| (&*it.subject, &*it.description)).collect();
        assert_eq!(told, [(subject, description)], "{key}");
    }
}

#[tokio::test]
async fn operators_set_quotas_and_a_tenants_root_sees_its_own() {
    let server = Server::start(&[]);
    let (pay, password) = tenant(&server, "pay").await;
    for key in ["app/a", "app/b", "c"] {
        put(&pay, key, "12", 0).await.unwrap();
    }
    let made = answer(&server, &["quota", "set", "pay", "--keys", "10", "--bytes", "1GiB"]);
    let expected = json!({ "quotas": [{
        "tenant": "pay",
        "prefix": "",
        "keys": { "used": 3, "limit": 10 },
        "bytes": { "used": 17, "limit": 1 << 30 },
        "history_bytes": { "used": 0, "limit": null },
    }]});
    assert_eq!(made, expected);

    let (status, said) = refused(&server, &["quota", "set", "pay", "--prefix", "app/", "--keys", "1"]);
    assert_eq!(status, Some(1));
    let why = "2 keys are used already under `app/`, more than the new quota of 1: make room first, or set it with `--force`";
    assert!(said.contains(why), "{said}");
    assert_eq!(answer(&server, &["quota", "show", "pay"]), expected, "what was refused changed nothing");
    answer(&server, &["quota", "set", "pay", "--prefix", "app/", "--keys", "1", "--force"]);
    assert!(put(&pay, "app/c", "", 0).await.is_err());
    put(&pay, "app/a", "3", 0).await.unwrap();

    // In the tenant's own name.
    let as_root = |more: &[&str]| {
        let login = ["--user", "root@pay", "--password", &password].map(str::to_owned);
        more.iter().map(|word| (*word).to_owned()).chain(login).collect::<Vec<_>>()
    };
    let own = as_root(&["quota", "show"]);
    let own = keygate(&server, &own.iter().map(String::as_str).collect::<Vec<_>>());
    let own = String::from_utf8(own.stdout).unwrap();
    let (of_app, words) = ("app/", own.split_whitespace().collect::<Vec<_>>());
    assert!(words.contains(&of_app) && words.contains(&"200%") && words.contains(&"30%"), "{own}");
    for forbidden in [
        &["quota", "set", "pay", "--keys", "99"][..],
        &["quota", "unset", "pay"],
        &["quota", "show", "pay"],
        &["quota", "show", "--all"],
        &["quota", "recount", "pay"],
    ] {
        let words = as_root(forbidden);
        let (status, said) = refused(&server, &words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((status, said.contains("permission denied")), (Some(1), true), "{forbidden:?}: {said}");
    }

    // What is wrong with a command line is said before a server is asked.
    for (words, why) in [
        (&["quota", "set", "pay"][..], "nothing to set"),
        (&["quota", "set", "pay", "--keys=-1"], "a whole number from 0"),
        (&["quota", "set", "pay", "--bytes", "many"], "a size such as 512MiB"),
        (&["quota", "recount"], "required"),
    ] {
        let (status, said) = refused(&server, words);
        assert_eq!((status, said.contains(why)), (Some(2), true), "{words:?}: {said}");
    }
    let (status, said) = refused(&server, &["quota", "unset", "pay", "--prefix", "not/there/"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("nothing was taken away"), "{said}");
    let (status, said) = refused(&server, &["quota", "set", "nobody", "--keys", "1"]);
    assert_eq!((status, said.contains("there is no tenant `nobody`")), (Some(1), true), "{said}");

    answer(&server, &["quota", "set", "pay", "--keys", "none"]);
    answer(&server, &["quota", "unset", "pay", "--prefix", "app/"]);
    let left = answer(&server, &["quota", "show", "--all"]);
    let left = left["quotas"].as_array().unwrap();
    assert_eq!(left.len(), 2);
    assert_eq!((&left[0]["tenant"], &left[1]["tenant"]), (&json!("default"), &json!("pay")));
    assert_eq!((&left[1]["keys"]["limit"], &left[1]["bytes"]["limit"]), (&Value::Null, &json!(1 << 30)));
    put(&pay, "app/c", "", 0).await.unwrap();
}

#[tokio::test]
async fn operators_see_how_far_quotas_are_used_and_tenants_see_nothing_of_each_other() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("https://{free}");
    let server = Server::start(&["--listen-metrics-urls", &url, "--metrics-tenants", "2"]);
    let mut roots = Vec::new();
    for name in ["pay", "shop", "third", "fourth"] {
        roots.push(tenant(&server, name).await.0);
    }
    answer(&server, &["quota", "set", "pay", "--keys", "20"]);
    answer(&server, &["quota", "set", "pay", "--prefix", "jobs/", "--keys", "10"]);
    for number in 0..8 {
        put(&roots[0], &format!("jobs/{number}"), "1", 0).await.unwrap();
    }
    let line = server.logs(&["a quota is nearly used up", "pay", "jobs/", "\"percent\":80"]).await;
    assert!(line.contains("\"used\":8") && line.contains("\"limit\":10"), "{line}");
    put(&roots[0], "jobs/8", "1", 0).await.unwrap();
    put(&roots[0], "jobs/9", "1", 0).await.unwrap();
    assert!(put(&roots[0], "jobs/10", "1", 0).await.is_err());
    server.logs(&["a quota is used up", "pay", "jobs/", "\"percent\":100"]).await;
    for root in &roots[2..] {
        put(root, "one", "1", 0).await.unwrap();
        put(root, "one", "2", 0).await.unwrap();
    }
    let watch = pb::WatchCreateRequest { key: "one".into(), ..Default::default() };
    let create =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(watch)) };
    let requests =
        futures_util::StreamExt::chain(futures_util::stream::iter([create]), futures_util::stream::pending());
    let mut watches = pb::watch_client::WatchClient::new(roots[1].signed());
    let mut events = watches.watch(requests).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().unwrap().created);

    let shown = server.page_at(free, "/metrics").await;
    for series in [
        "keygate_tenant_keys{tenant=\"default\"} 0",
        "keygate_tenant_keys{tenant=\"pay\"} 10",
        "keygate_tenant_bytes{tenant=\"pay\"} 70",
        "keygate_tenant_revision{tenant=\"pay\"} 11",
        "keygate_tenant_watchers{tenant=\"shop\"} 1",
        // The third and the fourth together.
        "keygate_tenant_keys{tenant=\"_other\"} 2",
        "keygate_tenant_history_bytes{tenant=\"_other\"} 8",
        // That of the prefix; the keyspace's own is at a half.
        "keygate_tenant_quota_used_ratio{quota=\"keys\",tenant=\"pay\"} 1",
        "keygate_quotas_reached{percent=\"80\"} 1",
        "keygate_quotas_reached{percent=\"100\"} 1",
    ] {
        assert!(shown.lines().any(|line| line == series), "{series} in\n{shown}");
    }
    assert!(!shown.contains("third") && !shown.contains("jobs/"), "{shown}");
    let public = server.page("/metrics").await;
    assert!(public.contains("keygate_quotas_reached{percent=\"80\"} 1"), "{public}");
    assert!(!public.contains("keygate_tenant_") && !public.contains("pay"), "{public}");
    // What all tenants do together is not for each of them.
    let refused = server.page_for_anybody("/metrics").await;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("--listen-metrics-urls"), "{refused}");
    assert!(!refused.contains("keygate_"), "{refused}");
    assert!(server.page_for_anybody("/health").await.starts_with("HTTP/1.1 200 "));
}
