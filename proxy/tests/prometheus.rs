//! The alerts, the dashboard and the page of metrics as a real Prometheus and its promtool read them.
//!
//! Grafana itself is not run here: what it would ask Prometheus is asked, with its variables filled in. How it draws that, and
//! whether it imports the file, this test does not tell; `dashboards.rs` looks at the file's shape.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keygate_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use serde_json::Value;
use support::{Caller, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Start, scrapes and rates on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names that promtool would not choose: they are etcd's, and its dashboards ask for them.
const ETCDS_NAMES: [&str; 11] = [
    "etcd_debugging_lease_ttl_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_slow_watcher_total",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_mvcc_watcher_total",
    "etcd_server_health_failures",
    "etcd_server_health_success",
    "etcd_server_learner_promote_successes",
    "etcd_server_proposals_applied_total",
    "etcd_server_proposals_committed_total",
    "etcd_server_snapshot_apply_in_progress_total",
];

/// One of Prometheus's programs; None, said loudly, where it is not installed.
fn peer(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("KEYGATE_PEERS_BIN").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/keygate-peers/bin"));
    // Only where .ci/peers puts them: a system's own may be of any version.
    let places = [named, Some("/opt/peers/bin".into()), home];
    let found = places.into_iter().flatten().map(|place| place.join(name)).find(|path| path.exists());
    if found.is_none() {
        let required = std::env::var("KEYGATE_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "{name} is missing (.ci/peers installs it), and KEYGATE_REQUIRE_PEERS=1 forbids skipping"
        );
        // It may be a socket, which cannot be opened.
        if let Ok(mut terminal) = std::fs::OpenOptions::new().append(true).open("/dev/stderr") {
            writeln!(terminal, "SKIPPED: alerts and dashboard need {name} (.ci/peers installs it)").ok();
        }
    }
    found
}

fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// The alerts of the file that is deployed.
fn alerts() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(deployed("prometheus/keygate.rules.yml")).unwrap();
    let rules: Value = serde_norway::from_str(&text).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules.map(|rule| (text(&rule["alert"]), text(&rule["expr"]))).collect()
}

/// What it says, and whether it is content.
fn promtool(program: &Path, arguments: &[&str], file: &Path) -> (bool, String) {
    let output = Command::new(program).args(arguments).arg(file).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), said)
}

#[test]
fn promtool_is_content_with_the_alerts_and_each_fires_when_it_should() {
    let Some(program) = peer("promtool") else { return };
    let rules = deployed("prometheus/keygate.rules.yml");
    let (good, said) = promtool(&program, &["check", "rules"], &rules);
    assert!(good && said.contains(&format!("SUCCESS: {} rules found", alerts().len())), "{said}");
    let tests = deployed("prometheus/keygate.rules.test.yml");
    let (good, said) = promtool(&program, &["test", "rules"], &tests);
    assert!(good && said.contains("SUCCESS"), "{said}");
    // One that nobody wrote a test for would never be missed.
    let tests: Value = serde_norway::from_str(&std::fs::read_to_string(tests).unwrap()).unwrap();
    let (mut fire, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for case in
        tests["tests"].as_array().unwrap().iter().flat_map(|test| test["alert_rule_test"].as_array().unwrap())
    {
        let name = case["alertname"].as_str().unwrap().to_owned();
        let fires = case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
        if fires {
            fire.insert(name)
        } else {
            silent.insert(name)
        };
    }
    let all: BTreeSet<_> = alerts().into_keys().collect();
    assert_eq!((&fire, &silent), (&all, &all));
}

/// Ends with its value.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Prometheus {
    async fn start(program: &Path, server: &Server, page: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = free();
        let ca = server.data_dir().join("pki/ca.pem");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n  - job_name: keygate\n    scheme: https\n    \
             tls_config: {{ca_file: '{}', server_name: localhost}}\n    static_configs: [{{targets: ['{page}']}}]\n",
            deployed("prometheus/keygate.rules.yml").canonicalize().unwrap().display(),
            ca.display(),
        );
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { child, address, _directory: directory };
        let start = Instant::now();
        while prometheus.get("/-/ready").await.is_none_or(|answer| !answer.starts_with("HTTP/1.0 200")) {
            assert!(start.elapsed() < PATIENCE, "Prometheus does not start");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        prometheus
    }

    /// In HTTP/1.0, so that nothing is chunked.
    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        String::from_utf8(answer).ok()
    }

    /// What its API answers; an error is one of the test.
    async fn ask(&self, path: &str) -> Value {
        let answer = self.get(path).await.unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let answer: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {answer}"));
        assert_eq!(answer["status"], "success", "{path}: {answer:#}");
        answer["data"].clone()
    }

    /// How many series an expression comes to.
    async fn series(&self, expression: &str) -> usize {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.ask(&format!("/api/v1/query?query={escaped}")).await;
        data["result"].as_array().unwrap().len()
    }
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Something of everything: writes, reads, refusals of all kinds.
async fn traffic(pay: &Caller) {
    let put = |value: &str| pb::PutRequest {
        key: "k".into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    let mut kv = KvClient::new(pay.signed());
    kv.put(put("v")).await.unwrap();
    kv.put(put(&"v".repeat(101))).await.unwrap_err();
    kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
}

/// The queries of the dashboard with their panels, its variables as somebody would choose them.
fn queries() -> Vec<(String, String)> {
    let dashboard = std::fs::read_to_string(deployed("grafana/keygate.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let mut query = target["expr"].as_str().unwrap().to_owned();
            for (variable, value) in
                [("$__rate_interval", "10s"), ("$job", "keygate"), ("$instance", ".+"), ("$tenant", ".+")]
            {
                query = query.replace(variable, value);
            }
            assert!(!query.contains('$'), "{query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

#[tokio::test]
async fn a_real_prometheus_reads_the_page_and_answers_every_question() {
    let (Some(program), Some(promtool)) = (peer("prometheus"), peer("promtool")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let limits = directory.path().join("limits.yaml");
    let rules = "limits: {tenants: {pay: {value-size: 100, reads: {rate: 1/h, burst: 1, shadow: true}}}}\n";
    std::fs::write(&limits, rules).unwrap();
    // Nobody listens on port 1.
    let issuers = directory.path().join("rules.yaml");
    let rules = "platform: common-names
issuers: [{name: corp, issuer: corp, audiences: [k], algorithms: [ES256], keys-url: 'https://127.0.0.1:1/jwks'}]
rules: [{issuer: corp, claims: {sub: '{name}'}, tenant: default, user: '{name}'}]
";
    std::fs::write(&issuers, rules).unwrap();
    let page = free();
    let server = Server::start(&[
        "--listen-metrics-urls",
        &format!("https://{page}"),
        "--limits-file",
        limits.to_str().unwrap(),
        "--identity-rules-file",
        issuers.to_str().unwrap(),
    ]);
    let made = server.keygate(&["tenant", "create", "pay"]);
    server.keygate(&["quota", "set", "pay", "--keys", "20"]);
    let pay = server.logged_in("root@pay", made["root_password"].as_str().unwrap()).await;
    traffic(&pay).await;

    let mut lint = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = server.page_at(page, "/metrics").await;
    lint.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = lint.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    // Lines that are none of these names, such as one that the page cannot be read, are problems, too.
    let mut ours =
        said.lines().filter(|line| !ETCDS_NAMES.contains(&line.split(' ').next().unwrap_or_default()));
    assert_eq!(ours.next(), None, "{said}");

    let prometheus = Prometheus::start(&program, &server, page).await;
    let start = Instant::now();
    let queries = queries();
    assert!(queries.len() >= 50, "{}", queries.len());
    loop {
        traffic(&pay).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        // Every one is asked, and an error in any of them ends the test.
        let mut empty = BTreeSet::new();
        for (panel, query) in &queries {
            if prometheus.series(query).await == 0 {
                empty.insert(format!("{panel}: {query}"));
            }
        }
        if empty.is_empty() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "these come to nothing: {empty:#?}");
    }
    for expression in alerts().into_values() {
        // Most come to nothing, as nothing is wrong; what counts is that they can be asked.
        let _series = prometheus.series(&expression).await;
    }
    // All rules were evaluated by Prometheus itself.
    let start = Instant::now();
    let (rules, bad) = loop {
        let groups = prometheus.ask("/api/v1/rules").await;
        let rules: Vec<Value> = groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap().clone())
            .collect();
        let bad: Vec<_> = rules.iter().filter(|rule| rule["health"] != "ok").cloned().collect();
        if bad.is_empty() || start.elapsed() > PATIENCE {
            break (rules.len(), bad);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!((rules, bad), (alerts().len(), Vec::new()));
    // One scrape may have been too slow; what was answered above came by others.
    assert_eq!(prometheus.series("max_over_time(up{job=\"keygate\"}[10m]) == 1").await, 1);
    println!("{} queries, {rules} rules", queries.len());
}
