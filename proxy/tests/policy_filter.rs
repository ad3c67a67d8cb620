//! Bundles that hide keys (`on_partial=filter`), over the wire: what is told, counted and watched is what is visible.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

#[path = "policy_filter/asking.rs"]
mod asking;

use asking::{ask, kv, watch};
use keygate_proto::etcdserverpb as pb;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Caller, Server};

const MODEL: &str = include_str!("../../policies/model/bundle.conf");

/// Folders below `/` with the same keys under other rows. What `svc` may do is said here.
const ROWS: &str = "\
p, user:svc, default, /f/*, readwrite, allow
p, user:svc, default, /f/b/*, read, deny, on_partial=filter
p, user:svc, default, =/f/d, read, deny, on_partial=filter
p, user:svc, default, /r/*, readwrite, allow
p, user:svc, default, /r/b/*, read, deny
p, user:svc, default, /m/*, readwrite, allow
p, user:svc, default, /m/b/*, read, deny, on_partial=filter
p, user:svc, default, /m/c/*, read, deny, on_partial=reject
p, user:svc, default, /h/*, readwrite, allow
p, user:svc, default, /h/*, read, deny, on_partial=filter
p, user:svc, default, /g/a*, read, allow
p, user:svc, default, /g/c*, read, allow
p, user:svc, default, =/g/a2, read, deny, on_partial=filter
p, user:svc, default, /w/*, readwrite, allow
p, user:svc, default, /w/b/*, readwrite, deny, on_partial=filter
p, user:svc, default, /x/*, readwrite, allow
p, user:svc, default, =/x/b, read, deny, on_partial=filter
";

/// In this order, from revision 2 on.
const PUTS: [(&str, &str); 26] = [
    ("/f/a", "5"),
    ("/f/b/1", "0"),
    ("/f/b/2", "9"),
    ("/f/c", "3"),
    ("/f/d", "8"),
    ("/f/e", "4"),
    ("/f/e", "1"),
    ("/r/a", "v"),
    ("/r/b/1", "v"),
    ("/r/c", "v"),
    ("/m/a", "v"),
    ("/m/b/1", "v"),
    ("/m/c/1", "v"),
    ("/m/d", "v"),
    ("/h/x", "v"),
    ("/h/y", "v"),
    ("/g/a1", "v"),
    ("/g/a2", "v"),
    ("/g/b", "v"),
    ("/g/c", "v"),
    ("/w/a", "v"),
    ("/w/b/1", "v"),
    ("/w/b/2", "v"),
    ("/w/c", "v"),
    ("/x/a", "v"),
    ("/x/b", "v"),
];

/// `KEY[=VALUE]…` without the folder, `#` and the count, `more`.
const CASES: &[(&str, &str)] = &[
    // What is computed comes after the filter.
    ("range /f/ /f0", "a=5 c=3 e=1 #3"),
    ("range /f/ /f0 serializable", "a=5 c=3 e=1 #3"),
    ("range /f/ /f0 limit=2", "a=5 c=3 #3 more"),
    ("range /f/ /f0 limit=3", "a=5 c=3 e=1 #3"),
    ("range /f/ /f0 limit=1 descend", "e=1 #3 more"),
    ("range /f/ /f0 target=value ascend", "e=1 c=3 a=5 #3"),
    ("range /f/ /f0 target=value descend limit=1", "a=5 #3 more"),
    ("range /f/ /f0 target=value ascend limit=2 keys", "e c #3 more"),
    ("range /f/ /f0 target=mod descend", "e=1 c=3 a=5 #3"),
    ("range /f/ /f0 target=version descend", "e=1 a=5 c=3 #3"),
    ("range /f/ /f0 target=create descend limit=2", "e=1 c=3 #3 more"),
    ("range /f/ /f0 keys", "a c e #3"),
    ("range /f/ /f0 keys limit=1", "a #3 more"),
    ("range /f/ /f0 count", "#3"),
    ("range /f/ /f0 count rev=4", "#1"),
    ("range /f/ /f0 rev=4", "a=5 #1"),
    ("range /f/ /f0 rev=7", "a=5 c=3 e=4 #3"),
    ("range /f/ /f0 rev=1000", "OutOfRange"),
    ("range /f/ /f0 minmod=5", "c=3 e=1 #3"),
    ("range /f/ /f0 maxmod=4", "a=5 #3"),
    ("range /f/ /f0 mincreate=4 limit=1", "c=3 #3 more"),
    ("range /f/ /f0 maxcreate=4", "a=5 #3"),
    // Shapes of overlap.
    ("range /f/a /f/c", "a=5 #1"),
    ("range /f/b /f/d", "c=3 #1"),
    ("range /f/b/1 /f/e", "c=3 #1"),
    ("range /f/c /f/d\0", "c=3 #1"),
    ("range /f/c /f/d", "c=3 #1"),
    ("range /f/b/ /f/b0", "PermissionDenied"),
    ("range /f/b/1 /f/b/2", "PermissionDenied"),
    ("range /f/d /f/d\0", "PermissionDenied"),
    ("range /f/a", "a=5 #1"),
    ("range /f/zz", "#0"),
    ("range /f/d", "PermissionDenied"),
    ("range /f/b/1", "PermissionDenied"),
    // Whether it exists makes no difference.
    ("range /f/b/zz", "PermissionDenied"),
    ("range /f/ \0", "PermissionDenied"),
    ("range /f/z /f/a", "#0"),
    ("range /f/d /f/a", "PermissionDenied"),
    // In many messages.
    ("stream /f/ /f0", "a=5 c=3 e=1 #3"),
    ("stream /f/ /f0 limit=2", "a=5 c=3 #3 more"),
    ("stream /f/ /f0 keys", "a c e #3"),
    ("stream /f/ /f0 count", "#3"),
    ("stream /f/ /f0 rev=4", "a=5 #1"),
    ("stream /f/b/1 /f/e", "c=3 #1"),
    ("stream /f/b/ /f/b0", "PermissionDenied"),
    ("stream /m/ /m0", "PermissionDenied"),
    // Rows that reject, alone and beside others; what no row allows.
    ("range /r/ /r0", "PermissionDenied"),
    ("range /r/c /r0", "c=v #1"),
    ("range /m/ /m0", "PermissionDenied"),
    ("range /m/ /m0 count", "PermissionDenied"),
    ("range /m/a /m/c", "a=v #1"),
    ("range /h/ /h0", "PermissionDenied"),
    ("range /h/ /h0 count", "PermissionDenied"),
    ("range /g/ /g0", "PermissionDenied"),
    ("range /g/a /g/b", "a1=v #1"),
    ("range /w/ /w0", "a=v c=v #2"),
    // Everything but reads and watches needs all of its keys.
    ("txn-range /f/ /f0", "PermissionDenied"),
    ("txn-range /f/ /f0 count", "PermissionDenied"),
    ("txn-range /f/e /f0", "e=1 #1"),
    ("txn-put-range /f/ /f0", "PermissionDenied"),
    ("compare /f/ /f0", "PermissionDenied"),
    ("compare /f/d", "PermissionDenied"),
    ("compare /f/e /f0", "succeeded"),
    ("put-prev /f/d", "PermissionDenied"),
    ("delete /w/ /w0", "PermissionDenied"),
    ("delete /w/b/1", "PermissionDenied"),
    ("delete-prev /x/ /x0", "PermissionDenied"),
    ("ttl-keys 77", "PermissionDenied"),
    // Watches, from the past.
    ("watch /f/ /f0 rev=2", "a@2=5 c@5=3 e@7=4 e@8=1"),
    ("watch /f/ /f0 rev=6", "e@7=4 e@8=1"),
    ("watch /f/ /f0 rev=2 prev", "a@2=5 c@5=3 e@7=4 e@8=1(4)"),
    ("watch /f/ /f0 rev=2 noput", ""),
    ("watch /f/b/1 /f/e rev=2", "c@5=3"),
    ("watch /f/b/ /f/b0 rev=2", "PermissionDenied"),
    ("watch /f/d rev=2", "PermissionDenied"),
    ("watch /m/ /m0 rev=2", "PermissionDenied"),
    ("watch /h/ /h0 rev=2", "PermissionDenied"),
    ("watch /g/ /g0 rev=2", "PermissionDenied"),
    // A row about reading binds reading alone. Whoever may delete a key unseen learns how many there were.
    ("delete /x/ /x0", "deleted 2"),
];

#[tokio::test]
async fn answers_are_those_of_a_store_without_the_hidden_keys() {
    let server = Server::start(&[]);
    let (root, service) = (server.named("root").await, server.named("svc").await);
    for ((key, value), revision) in PUTS.into_iter().zip(2..) {
        assert_eq!(put(&root, key, value).await, revision);
    }
    let mut leases = pb::lease_client::LeaseClient::new(root.signed());
    leases.lease_grant(pb::LeaseGrantRequest { ttl: 1_000, id: 77 }).await.unwrap();
    let attached = pb::PutRequest { key: "/h/x".into(), lease: 77, ..Default::default() };
    kv(&root).put(attached).await.unwrap();
    apply(&server, 1, ROWS);
    let mut wrong = Vec::new();
    for (question, expected) in CASES {
        let found = ask(&service, question).await;
        if found != *expected {
            wrong.push(format!("{question:?}: expected `{expected}`, found `{found}`"));
        }
    }
    println!("{} cases", CASES.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Nothing is hidden from root, whom no bundle binds.
    assert_eq!(ask(&root, "range /f/ /f0 count").await, "#6");
}

#[tokio::test]
async fn an_open_watch_shows_what_is_visible_at_the_moment_and_goes_on() {
    let server = Server::start(&[]);
    let (root, service) = (server.named("root").await, server.named("svc").await);
    let allow = "p, user:svc, default, /f/*, read, allow\n";
    let hide = |keys: &str| format!("{allow}p, user:svc, default, {keys}, read, deny, on_partial=filter\n");
    apply(&server, 1, &hide("/f/b/*"));
    let mut watch = watch(&service, "/f/", "/f0", &BTreeMap::from([("prev", "")])).await.unwrap();
    put(&root, "/f/b/1", "hidden").await;
    put(&root, "/f/a", "1").await;
    assert_eq!(watch.told(1).await, ["/f/a=1"]);

    // Fewer keys: what is hidden now is not told any more.
    let applied = apply(&server, 2, &hide("[/f/b/, /f/d)"));
    assert_eq!(applied, 2);
    put(&root, "/f/c", "hidden now").await;
    put(&root, "/f/b/1", "hidden still").await;
    let newest = put(&root, "/f/a", "2").await;
    assert_eq!(watch.told(1).await, ["/f/a=2(1)"]);
    assert_eq!(watch.revision, newest, "the header's revision is an ordinary one");

    // More keys: from now on they are told, and with what they held before.
    apply(&server, 3, &hide("=/f/b/2"));
    put(&root, "/f/b/1", "visible").await;
    put(&root, "/f/b/2", "hidden").await;
    let delete = pb::DeleteRangeRequest { key: "/f/".into(), range_end: "/f0".into(), ..Default::default() };
    assert_eq!(kv(&root).delete_range(delete).await.unwrap().into_inner().deleted, 4);
    let told = watch.told(4).await;
    assert_eq!(told, ["/f/b/1=visible(hidden still)", "-/f/a(2)", "-/f/b/1(visible)", "-/f/c(hidden now)"]);

    // Nothing hidden, then all of it.
    apply(&server, 4, allow);
    put(&root, "/f/b/2", "1").await;
    assert_eq!(watch.told(1).await, ["/f/b/2=1"]);
    apply(&server, 5, &hide("/f/*"));
    put(&root, "/f/a", "3").await;
    let last = watch.next().await;
    assert!(last.canceled && last.events.is_empty(), "{last:?}");
    assert_eq!(last.cancel_reason, "etcdserver: permission denied");
    assert_eq!(ask(&service, "range /f/ /f0").await, "PermissionDenied");
}

#[tokio::test]
async fn a_row_that_hides_from_some_time_on_does_so_for_an_open_watch() {
    let server = Server::start(&[]);
    let (root, service) = (server.named("root").await, server.named("svc").await);
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let from = now() + 6;
    let rows = format!(
        "p, user:svc, default, /f/*, read, allow\n\
         p, user:svc, default, /f/b/*, read, deny, on_partial=filter;from={}\n",
        keygate_policies::bundle::Instant(from)
    );
    apply(&server, 1, &rows);
    let mut watch = watch(&service, "/f/", "/f0", &BTreeMap::new()).await.unwrap();
    put(&root, "/f/b/1", "shown").await;
    // With room for a machine that does other work.
    let in_time = now() + 2 < from;
    while now() <= from {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    put(&root, "/f/b/1", "hidden").await;
    put(&root, "/f/a", "shown").await;
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "/f/a=shown") {
        told.extend(watch.told(1).await);
    }
    assert!(!told.contains(&"/f/b/1=hidden".to_owned()), "{told:?}");
    assert!(!in_time || told.contains(&"/f/b/1=shown".to_owned()), "{told:?}");
    assert_eq!(ask(&service, "range /f/ /f0").await, "a=shown #1");
}

/// An answer that is too large says how much there is, so it must be about what is visible.
#[tokio::test]
async fn limits_of_an_answer_count_what_is_visible() {
    let folder = tempfile::tempdir().unwrap();
    let limits = folder.path().join("limits.yaml");
    fs::write(&limits, "limits: {tenant: {users: {svc: {range-rows: 2}}}}\n").unwrap();
    let server = Server::start(&["--limits-file", limits.to_str().unwrap()]);
    let (root, service) = (server.named("root").await, server.named("svc").await);
    for key in ["/f/a", "/f/b/1", "/f/b/2", "/f/b/3", "/f/c"] {
        put(&root, key, "v").await;
    }
    let allow = "p, user:svc, default, /f/*, read, allow\n";
    apply(&server, 1, allow);
    assert_eq!(ask(&service, "range /f/ /f0").await, "ResourceExhausted");
    apply(&server, 2, &format!("{allow}p, user:svc, default, /f/b/*, read, deny, on_partial=filter\n"));
    assert_eq!(ask(&service, "range /f/ /f0").await, "a=v c=v #2");
    assert_eq!(ask(&service, "stream /f/ /f0").await, "a=v c=v #2");
    put(&root, "/f/d", "v").await;
    assert_eq!(ask(&service, "range /f/ /f0").await, "ResourceExhausted");
    assert_eq!(ask(&service, "range /f/ /f0 limit=2").await, "a=v c=v #3 more");
}

/// What users and roles allow is hidden by the bundle's rows too, from a tenant's root as from anybody.
#[tokio::test]
async fn what_the_auth_api_allows_is_hidden_too_and_the_tools_say_so() {
    let server = Server::start(&[]);
    let made = said(&server, &["tenant", "create", "pay", "--output", "json"], 0);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let tenant = server.logged_in("root@pay", made["root_password"].as_str().unwrap()).await;
    for (key, value) in [("/f/a", "1"), ("/f/b", "2"), ("/f/c", "3")] {
        put(&tenant, key, value).await;
    }
    assert_eq!(ask(&tenant, "range /f/ /f0").await, "a=1 b=2 c=3 #3");
    apply(&server, 1, "p, user:*, pay, =/f/b, read, deny, on_partial=filter\n");
    assert_eq!(ask(&tenant, "range /f/ /f0").await, "a=1 c=3 #2");
    assert_eq!(ask(&tenant, "range \0 \0 count").await, "#2");
    assert_eq!(ask(&tenant, "range /f/b").await, "PermissionDenied");

    let asked = ["--tenant", "pay", "--user", "root", "range", "/f/*"];
    let tool = |verb: &str| said(&server, &[&["policy", verb][..], &asked[..]].concat(), 1);
    assert_eq!(tool("can-i"), "partial\n");
    let why = tool("explain");
    assert!(why.contains("filtered by row policy.csv:1: p, user:*, pay, =/f/b, read, deny"), "{why}");
    assert!(why.contains("hidden      =/f/b\n"), "{why}");
    let who = said(&server, &["policy", "who-can", "--tenant", "pay", "range", "/f/*"], 0);
    assert!(who.contains("user:root partial  ("), "{who}");
}

/// What the operator's command says when it exits with `code`.
fn said(server: &Server, arguments: &[&str], code: i32) -> String {
    let output = server.operator(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Puts a bundle of these rows in force by the command line.
fn apply(server: &Server, revision: u64, rows: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.conf"), MODEL).unwrap();
    fs::write(folder.path().join("policy.csv"), rows).unwrap();
    fs::write(folder.path().join("roles.csv"), "").unwrap();
    let keygate = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keygate"));
        command.arg("policy").env_clear();
        command
    };
    let path = folder.path().to_str().unwrap();
    let sealed = keygate().args(["digest", path, "--revision", &revision.to_string()]).output().unwrap();
    assert!(sealed.status.success());
    let applied = keygate()
        .args(["apply", path, "--output", "json", "--endpoints", &server.endpoint(), "--data-dir"])
        .arg(server.data_dir())
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&applied.stdout).unwrap();
    assert_eq!(told["ok"], true, "{told:#} {}", String::from_utf8_lossy(&applied.stderr));
    told["revision"]["revision"].as_u64().unwrap()
}

async fn put(caller: &Caller, key: &str, value: &str) -> i64 {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let put = pb::PutRequest { key, value, ..Default::default() };
    kv(caller).put(put).await.unwrap().into_inner().header.unwrap().revision
}
