//! The dashboard and the alerts in `deploy` ask for series, and for labels of them, that a real server has.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use keygate_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use serde_json::Value;
use support::{Caller, Server};

/// Not on the page of the server: whoever scrapes it adds them.
const SCRAPED: [&str; 2] = ["job", "instance"];

/// What stands in an expression for a name and is none.
const WORDS: [&str; 12] = [
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "e",
];

fn deployed(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names that an expression selects, each with the labels that it is asked for.
#[derive(Default, Debug, PartialEq, Eq)]
struct Selected {
    series: BTreeMap<String, BTreeSet<String>>,
    grouped_by: BTreeSet<String>,
}

/// Reads what these files need of the language: names, matchers, groups; functions are what a parenthesis follows.
fn selected(expression: &str) -> Selected {
    let mut found = Selected::default();
    let mut rest = expression;
    let mut last = String::new();
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = &rest[1 + closing(&rest[1..], '"') + 1..];
        } else if first == '[' {
            rest = &rest[closing(rest, ']') + 1..];
        } else if first == '{' {
            let end = closing(rest, '}');
            let labels =
                rest[1..end].split("\",").filter_map(|matcher| matcher.split(['=', '!', '~']).next());
            let labels = labels.map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
            found.series.get_mut(&last).expect("a matcher follows a name").extend(labels);
            rest = &rest[end + 1..];
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
            let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
            rest = behind;
            let follows = behind.trim_start().chars().next();
            if ["by", "without", "on", "ignoring"].contains(&name) {
                let (open, end) = (behind.find('(').unwrap(), behind.find(')').unwrap());
                found
                    .grouped_by
                    .extend(behind[open + 1..end].split(',').map(|label| label.trim().to_owned()));
                rest = &behind[end + 1..];
            } else if !WORDS.contains(&name)
                && follows != Some('(')
                && !["by", "without"].iter().any(|word| behind.trim_start().starts_with(word))
            {
                found.series.entry(name.to_owned()).or_default();
                last = name.to_owned();
            }
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

fn closing(text: &str, with: char) -> usize {
    text.find(with).unwrap_or_else(|| panic!("no `{with}` in {text}"))
}

/// The labels of each series on these pages.
fn shown(pages: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in pages.iter().flat_map(|page| page.lines()) {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            // Those that nothing has been counted in yet are promised by this line.
            let (name, kind) = family.rsplit_once(' ').unwrap();
            if kind != "histogram" {
                shown.entry(name.to_owned()).or_default();
            }
        } else if !line.starts_with('#') {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels =
                labels.trim_end_matches('}').split("\",").filter_map(|label| label.split('=').next());
            let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
            shown.entry(name.to_owned()).or_default().extend(labels);
        }
    }
    shown
}

/// What is wrong with an expression, in words.
fn check(expression: &str, shown: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let Selected { series, grouped_by } = selected(expression);
    let mut wrong = Vec::new();
    if series.is_empty() {
        wrong.push(format!("no series: {expression}"));
    }
    for (name, labels) in &series {
        let Some(has) = shown.get(name) else {
            wrong.push(format!("no such series as `{name}`: {expression}"));
            continue;
        };
        let asked = labels.union(&grouped_by).filter(|label| !SCRAPED.contains(&label.as_str()));
        let missing: Vec<_> = asked.filter(|label| !has.contains(*label)).collect();
        // Groups are of one series at least; matchers are of their own.
        if missing.iter().any(|label| labels.contains(*label) || series.len() == 1) {
            wrong.push(format!("`{name}` has no labels {missing:?}: {expression}"));
        }
    }
    wrong
}

async fn put(caller: &Caller, value: &str) -> Result<(), tonic::Status> {
    let put = pb::PutRequest { key: "k".into(), value: value.to_owned().into(), ..Default::default() };
    KvClient::new(caller.signed()).put(put).await.map(drop)
}

/// Something is refused, and something only counted.
const LIMITS: &str =
    "limits: {tenants: {pay: {value-size: 100, reads: {rate: 1/h, burst: 1, shadow: true}}}}\n";

/// Of one issuer keys are fetched, in vain: nobody listens on port 1.
const ISSUERS: &str = "platform: common-names
issuers: [{name: corp, issuer: corp, audiences: [k], algorithms: [ES256], keys-url: 'https://127.0.0.1:1/jwks'}]
rules: [{issuer: corp, claims: {sub: '{name}'}, tenant: default, user: '{name}'}]
";

/// The pages of a server with a tenant that has a quota and met a limit.
async fn pages() -> Vec<String> {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let limits = directory.path().join("limits.yaml");
    std::fs::write(&limits, LIMITS).unwrap();
    let url = format!("https://{free}");
    let issuers = directory.path().join("rules.yaml");
    std::fs::write(&issuers, ISSUERS).unwrap();
    let server = Server::start(&[
        "--listen-metrics-urls",
        &url,
        "--limits-file",
        limits.to_str().unwrap(),
        "--identity-rules-file",
        issuers.to_str().unwrap(),
    ]);
    let made = server.keygate(&["tenant", "create", "pay"]);
    server.keygate(&["quota", "set", "pay", "--keys", "20"]);
    let pay = server.logged_in("root@pay", made["root_password"].as_str().unwrap()).await;
    put(&pay, "v").await.unwrap();
    put(&pay, &"v".repeat(101)).await.unwrap_err();
    for _ in 0..2 {
        let range = pb::RangeRequest { key: "k".into(), ..Default::default() };
        KvClient::new(pay.signed()).range(range).await.unwrap();
    }
    // An alarm that is not raised has no series.
    let alarm = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate.into(),
        alarm: pb::AlarmType::Nospace.into(),
        ..Default::default()
    };
    MaintenanceClient::new(server.named("root").await.signed()).alarm(alarm).await.unwrap();
    let page = server.page_at(free, "/metrics").await;
    // Their labels are of use only if they are there.
    for series in [
        "keygate_limit_refusals_total{",
        "keygate_limit_shadow_total{",
        "keygate_tenant_quota_used_ratio{",
        "keygate_tenant_keys{",
    ] {
        assert!(page.contains(series), "{series} in\n{page}");
    }
    vec![page, server.page("/metrics").await]
}

#[tokio::test]
async fn the_dashboard_asks_for_what_a_server_has() {
    let dashboard: Value = serde_json::from_str(&deployed("grafana/keygate.json")).unwrap();
    for (field, kind) in [("title", "string"), ("uid", "string"), ("schemaVersion", "number")] {
        let value = &dashboard[field];
        assert!(if kind == "string" { value.is_string() } else { value.is_u64() }, "{field}: {value}");
    }
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: BTreeSet<_> = variables.iter().map(|it| it["name"].as_str().unwrap()).collect();
    let shown = shown(&pages().await);
    let (mut ids, mut wrong, mut expressions) = (BTreeSet::new(), Vec::new(), 0);
    let mut taken: Vec<(u64, [u64; 4])> = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let id = panel["id"].as_u64().unwrap();
        assert!(ids.insert(id), "two panels are number {id}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "panel {id}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24 && w > 0 && h > 0, "panel {id} is not on the grid");
        for (other, [ox, oy, ow, oh]) in &taken {
            let apart = x >= ox + ow || *ox >= x + w || y >= oy + oh || *oy >= y + h;
            assert!(apart, "panels {id} and {other} overlap");
        }
        taken.push((id, [x, y, w, h]));
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "panel {id}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "panel {id} asks for nothing");
        let references: BTreeSet<_> = targets.iter().map(|it| it["refId"].as_str().unwrap()).collect();
        assert_eq!(references.len(), targets.len(), "panel {id}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            expressions += 1;
            wrong.extend(check(expression, &shown));
            for variable in expression.split('$').skip(1) {
                let end = variable.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let name = &variable[..end.unwrap_or(variable.len())];
                assert!(name.starts_with("__") || variables.contains(name), "panel {id}: ${name}");
            }
        }
    }
    assert!(expressions >= 40, "{expressions}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn alerts_ask_for_what_a_server_has_and_say_what_to_do() {
    let rules: Value = serde_norway::from_str(&deployed("prometheus/keygate.rules.yml")).unwrap();
    let shown = shown(&pages().await);
    let (mut names, mut wrong) = (BTreeSet::new(), Vec::new());
    for group in rules["groups"].as_array().unwrap() {
        assert!(group["name"].is_string());
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["alert"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "two alerts are called {name}");
            wrong.extend(check(rule["expr"].as_str().unwrap(), &shown));
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(["info", "warning", "critical"].contains(&severity), "{name}: {severity}");
            for text in ["summary", "description"] {
                let text =
                    rule["annotations"][text].as_str().unwrap_or_else(|| panic!("{name} has no {text}"));
                assert_eq!(text.matches("{{").count(), text.matches("}}").count(), "{name}: {text}");
            }
        }
    }
    assert!(names.len() >= 15, "{names:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn expressions_are_read_as_far_as_these_files_need() {
    let read =
        selected(r#"sum by (le, type) (rate(a_bucket{job=~"$job",code!="O,K"}[5m])) / on (x) b > 1.5e3"#);
    let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let series = [("a_bucket".to_owned(), labels(&["job", "code"])), ("b".to_owned(), labels(&[]))];
    assert_eq!(read, Selected { series: series.into(), grouped_by: labels(&["le", "type", "x"]) });
    let shown: BTreeMap<_, _> = [("b".to_owned(), labels(&["kind"]))].into();
    assert_eq!(check("max by (kind) (b{job=\"x\"})", &shown), Vec::<String>::new());
    for wrong in ["max by (sort) (b)", "b{sort=\"x\"}", "c", "vector(0)", "time() - c"] {
        assert_eq!(check(wrong, &shown).len(), 1, "{wrong}");
    }
}
