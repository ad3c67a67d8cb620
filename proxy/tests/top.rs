//! `keygate top` beside a real server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use keygate_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use serde_json::Value;
use support::{Caller, Server};

fn keygate(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keygate"));
    command.args(arguments).args(["--endpoints", &server.endpoint(), "--data-dir"]).arg(server.data_dir());
    command.env_clear();
    command
}

fn answer(server: &Server, arguments: &[&str]) -> Value {
    let output = keygate(server, &[arguments, &["--output", "json"]].concat()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn put(caller: &Caller, key: usize, value: &str) -> Result<(), tonic::Status> {
    let put =
        pb::PutRequest { key: key.to_string().into(), value: value.to_owned().into(), ..Default::default() };
    KvClient::new(caller.signed()).put(put).await.map(drop)
}

/// The row of a tenant.
fn row<'a>(snapshot: &'a Value, tenant: &str) -> &'a Value {
    let rows = snapshot["tenants"].as_array().unwrap();
    rows.iter().find(|row| row["tenant"] == tenant).unwrap_or_else(|| panic!("{tenant} in {snapshot:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_are_shown_by_load_refusals_and_use_of_quotas() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let limits = directory.path().join("limits.yaml");
    std::fs::write(&limits, "limits: {tenants: {pay: {value-size: 100}}}\n").unwrap();
    let url = format!("https://{free}");
    let server = Server::start(&["--listen-metrics-urls", &url, "--limits-file", limits.to_str().unwrap()]);
    let made = answer(&server, &["tenant", "create", "pay"]);
    answer(&server, &["tenant", "create", "quiet"]);
    answer(&server, &["quota", "set", "pay", "--keys", "20"]);
    let password = made["root_password"].as_str().unwrap().to_owned();
    let pay = server.logged_in("root@pay", &password).await;

    // While somebody writes, and is refused now and then.
    let mut shown = keygate(&server, &["top", "--watch", "--interval", "0.5", "--output", "json"])
        .args(["--metrics-url", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(shown.stdout.take().unwrap()).lines();
    let busy = tokio::spawn(async move {
        for round in 0.. {
            put(&pay, round % 10, "v").await.unwrap();
            put(&pay, round % 10, &"v".repeat(101)).await.unwrap_err();
        }
    });
    let (first, second) = tokio::task::spawn_blocking(move || {
        let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
        (next(), (next(), next()).1)
    })
    .await
    .unwrap();
    shown.kill().unwrap();
    shown.wait().unwrap();
    busy.abort();
    assert!(first["seconds"].as_f64().unwrap() >= 0.5, "{first}");
    let pay = row(&second, "pay");
    assert_eq!(second["tenants"][0]["tenant"], "pay", "the busiest stands first: {second:#}");
    assert!(pay["changes_per_second"].as_f64().unwrap() > 0.0, "{pay:#}");
    assert!(pay["limit_refusals_per_second"].as_f64().unwrap() > 0.0, "{pay:#}");
    assert_eq!((&pay["keys"], &pay["quota_used"]["keys"]), (&10.into(), &0.5.into()), "{pay:#}");
    assert!(pay["quota_used"]["bytes"].is_null(), "{pay:#}");
    let quiet = row(&second, "quiet");
    assert_eq!(quiet["changes_per_second"], 0.0, "{quiet:#}");
    let whole = &second["server"];
    assert!(whole["requests_per_second"].as_f64().unwrap() > 0.0, "{whole:#}");
    assert!(whole["refused_per_second"].is_number(), "{whole:#}");
    assert_eq!(row(&second, "default")["state"], "platform");
    // The user behind it.
    let busiest = &second["users"][0];
    assert_eq!((&busiest["tenant"], &busiest["user"]), (&"pay".into(), &"root".into()), "{second:#}");
    for counted in
        ["requests_per_second", "refusals_per_second", "bytes_in_per_second", "bytes_out_per_second"]
    {
        assert!(busiest[counted].as_f64().unwrap() > 0.0, "{counted}: {busiest:#}");
    }
    assert!(busiest["requests"].as_u64() > busiest["refusals"].as_u64(), "{busiest:#}");
    assert_eq!(busiest["connections"], 1, "{busiest:#}");

    // Without the operators' page nobody tells refusals by tenant.
    let once = answer(&server, &["top", "--interval", "0.1"]);
    assert!(row(&once, "pay")["limit_refusals_per_second"].is_null(), "{once:#}");
    assert!(once["server"]["requests_per_second"].is_number(), "{once:#}");
    let text = keygate(&server, &["top", "--once", "--interval", "0.1", "--sort", "name"]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let names: Vec<_> = text.lines().skip(2).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["TENANT", "default", "pay", "quiet"], "{text}");

    let shown =
        keygate(&server, &["top", "--once", "--interval", "0.1", "--view", "users", "--limit", "1"]).output();
    let text = String::from_utf8(shown.unwrap().stdout).unwrap();
    let (head, user) = (text.lines().nth(2).unwrap(), text.lines().nth(3).unwrap());
    assert!(head.starts_with("USER  TENANT") && user.starts_with("root"), "{text}");
    assert_eq!(text.lines().count(), 4, "{text}");
    let one = answer(&server, &["top", "--interval", "0.1", "--limit", "1", "--sort", "name"]);
    assert_eq!((one["users"].as_array().unwrap().len(), one["tenants"].as_array().unwrap().len()), (1, 1));
    let wrong = keygate(&server, &["top", "--view", "users", "--sort", "quota"]).output().unwrap();
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{said}");
    assert!(said.contains("sorted by requests, refused, bytes, watches, name"), "{said}");

    // It is the platform's.
    let user = format!("root@pay:{password}");
    let refused = keygate(&server, &["top", "--once", "--user", &user]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("permission denied"), "{said}");
}
