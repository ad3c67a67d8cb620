//! Bundles that hide keys (`on_partial=filter`), over the wire: what is told, counted and watched is what is visible.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use keygate_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Caller, Server};
use tonic::Code;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

const MODEL: &str = include_str!("../../policies/model/bundle.conf");
const PATIENCE: Duration = Duration::from_secs(60);

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
async fn a_row_that_hides_for_some_time_is_looked_at_again_when_it_is_over() {
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
    let shown = now() < from;
    while now() <= from {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    put(&root, "/f/b/1", "hidden").await;
    put(&root, "/f/a", "shown").await;
    let told = watch.told(if shown { 2 } else { 1 }).await;
    assert_eq!(told.last().unwrap(), "/f/a=shown");
    assert!(!told.contains(&"/f/b/1=hidden".to_owned()), "{told:?}");
    assert_eq!(ask(&service, "range /f/ /f0").await, "a=shown #1");
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

fn kv(caller: &Caller) -> pb::kv_client::KvClient<InterceptedService<Channel, support::Sign>> {
    pb::kv_client::KvClient::new(caller.signed())
}

async fn put(caller: &Caller, key: &str, value: &str) -> i64 {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let put = pb::PutRequest { key, value, ..Default::default() };
    kv(caller).put(put).await.unwrap().into_inner().header.unwrap().revision
}

/// `OPERATION KEY [END] OPTION…`
async fn ask(caller: &Caller, question: &str) -> String {
    let mut words = question.split(' ');
    let (operation, key) = (words.next().unwrap(), words.next().unwrap());
    let mut words = words.peekable();
    let end = words.next_if(|word| word.starts_with(['/', '\0'])).unwrap_or_default();
    let options: BTreeMap<&str, &str> =
        words.map(|word| word.split_once('=').unwrap_or((word, ""))).collect();
    answer(caller, operation, key, end, &options).await.unwrap_or_else(|code| format!("{code:?}"))
}

async fn answer(
    caller: &Caller,
    operation: &str,
    key: &str,
    end: &str,
    options: &BTreeMap<&str, &str>,
) -> Result<String, Code> {
    let code = |status: tonic::Status| status.code();
    let range = range_of(key, end, options);
    let (key, range_end) = (range.key.clone(), range.range_end.clone());
    let txn =
        |op| pb::TxnRequest { success: vec![pb::RequestOp { request: Some(op) }], ..Default::default() };
    match operation {
        "range" => kv(caller).range(range).await.map(|found| told(found.into_inner())).map_err(code),
        "stream" => {
            let mut pieces = kv(caller).range_stream(range).await.map_err(code)?.into_inner();
            let mut whole = pb::RangeResponse::default();
            while let Some(piece) = pieces.message().await.map_err(code)? {
                let piece = piece.range_response.unwrap();
                whole.kvs.extend(piece.kvs);
                (whole.more, whole.count) = (piece.more, piece.count);
            }
            Ok(told(whole))
        }
        "txn-range" | "txn-put-range" => {
            let mut txn = txn(pb::request_op::Request::RequestRange(range));
            if operation == "txn-put-range" {
                let put = pb::PutRequest { key: "/f/e".into(), ..Default::default() };
                let put = pb::request_op::Request::RequestPut(put);
                txn.failure.push(pb::RequestOp { request: Some(put) });
            }
            let answer = kv(caller).txn(txn).await.map_err(code)?.into_inner();
            let Some(pb::response_op::Response::ResponseRange(found)) =
                answer.responses.into_iter().next().unwrap().response
            else {
                panic!("a range is answered by a range")
            };
            Ok(told(found))
        }
        "compare" => {
            let target = Some(pb::compare::TargetUnion::Version(0));
            let result = pb::compare::CompareResult::Greater.into();
            let compare = pb::Compare { result, key, range_end, target_union: target, ..Default::default() };
            let txn = pb::TxnRequest { compare: vec![compare], ..Default::default() };
            let answer = kv(caller).txn(txn).await.map_err(code)?.into_inner();
            Ok(if answer.succeeded { "succeeded" } else { "failed" }.to_owned())
        }
        "put-prev" => {
            let put = pb::PutRequest { key, prev_kv: true, ..Default::default() };
            kv(caller).put(put).await.map(|_| "put".to_owned()).map_err(code)
        }
        "delete" | "delete-prev" => {
            let prev_kv = operation == "delete-prev";
            let delete = pb::DeleteRangeRequest { key, range_end, prev_kv };
            let done = kv(caller).delete_range(delete).await.map_err(code)?.into_inner();
            Ok(format!("deleted {}", done.deleted))
        }
        "ttl-keys" => {
            let id = std::str::from_utf8(&key).unwrap().parse().unwrap();
            let ask = pb::LeaseTimeToLiveRequest { id, keys: true };
            let mut leases = pb::lease_client::LeaseClient::new(caller.signed());
            leases.lease_time_to_live(ask).await.map(|_| "told".to_owned()).map_err(code)
        }
        "watch" => {
            let (key, end) = (std::str::from_utf8(&key).unwrap(), std::str::from_utf8(&range_end).unwrap());
            let mut watch = watch(caller, key, end, options).await?;
            Ok(watch.told_until_progress().await.join(" "))
        }
        other => panic!("{other}"),
    }
}

fn range_of(key: &str, end: &str, options: &BTreeMap<&str, &str>) -> pb::RangeRequest {
    use pb::range_request::{SortOrder, SortTarget};
    let number = |name: &str| options.get(name).map_or(0, |text| text.parse().unwrap());
    let order = if options.contains_key("descend") {
        SortOrder::Descend
    } else if options.contains_key("ascend") {
        SortOrder::Ascend
    } else {
        SortOrder::None
    };
    let target = match options.get("target").copied() {
        None => SortTarget::Key,
        Some("value") => SortTarget::Value,
        Some("mod") => SortTarget::Mod,
        Some("version") => SortTarget::Version,
        Some("create") => SortTarget::Create,
        Some(other) => panic!("{other}"),
    };
    pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        limit: number("limit"),
        revision: number("rev"),
        sort_order: order.into(),
        sort_target: target.into(),
        serializable: options.contains_key("serializable"),
        keys_only: options.contains_key("keys"),
        count_only: options.contains_key("count"),
        min_mod_revision: number("minmod"),
        max_mod_revision: number("maxmod"),
        min_create_revision: number("mincreate"),
        max_create_revision: number("maxcreate"),
    }
}

/// Keys without their folder.
fn told(found: pb::RangeResponse) -> String {
    let mut words: Vec<String> = Vec::new();
    for kv in found.kvs {
        let (key, value) = (text(&kv.key[3..]), text(&kv.value));
        words.push(if value.is_empty() { key } else { format!("{key}={value}") });
    }
    words.push(format!("#{}", found.count));
    words.extend(found.more.then(|| "more".to_owned()));
    words.join(" ")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

struct Watch {
    answers: tonic::Streaming<pb::WatchResponse>,
    requests: tokio::sync::mpsc::Sender<pb::WatchRequest>,
    /// Of the newest header.
    revision: i64,
}

async fn watch(caller: &Caller, key: &str, end: &str, options: &BTreeMap<&str, &str>) -> Result<Watch, Code> {
    let create = pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        start_revision: options.get("rev").map_or(0, |text| text.parse().unwrap()),
        prev_kv: options.contains_key("prev"),
        filters: options.contains_key("noput").then_some(0).into_iter().collect(),
        ..Default::default()
    };
    let (requests, receiver) = tokio::sync::mpsc::channel(4);
    let request = |union| pb::WatchRequest { request_union: Some(union) };
    requests.send(request(RequestUnion::CreateRequest(create))).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut client = pb::watch_client::WatchClient::new(caller.signed());
    let answers = client.watch(stream).await.map_err(|status| status.code())?.into_inner();
    let mut watch = Watch { answers, requests, revision: 0 };
    let created = watch.next().await;
    assert!(created.created, "{created:?}");
    if created.canceled {
        assert_eq!(
            created.cancel_reason,
            "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
        );
        return Err(Code::PermissionDenied);
    }
    Ok(watch)
}

impl Watch {
    async fn next(&mut self) -> pb::WatchResponse {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("it says something");
        let answer = answer.unwrap().unwrap();
        self.revision = answer.header.as_ref().unwrap().revision;
        answer
    }

    /// Exactly so many events: `[-]KEY[=VALUE][(PREVIOUS VALUE)]`.
    async fn told(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        while events.len() < count {
            let answer = self.next().await;
            assert!(!answer.canceled, "{answer:?}");
            events.extend(answer.events.iter().map(|event| event_text(event, text, false)));
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }

    /// All there is, keys without their folder and with their revision.
    async fn told_until_progress(&mut self) -> Vec<String> {
        let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
        self.requests.send(pb::WatchRequest { request_union: Some(progress) }).await.unwrap();
        let mut events = Vec::new();
        loop {
            let answer = self.next().await;
            assert!(!answer.canceled, "{answer:?}");
            if answer.events.is_empty() {
                return events;
            }
            events.extend(answer.events.iter().map(|event| event_text(event, |key| text(&key[3..]), true)));
        }
    }
}

fn event_text(
    event: &keygate_proto::mvccpb::Event,
    name: impl Fn(&[u8]) -> String,
    revision: bool,
) -> String {
    let kv = event.kv.as_ref().unwrap();
    let mut said = if event.r#type == 1 { "-".to_owned() } else { String::new() };
    said.push_str(&name(&kv.key));
    if revision {
        said.push_str(&format!("@{}", kv.mod_revision));
    }
    if !kv.value.is_empty() {
        said.push_str(&format!("={}", text(&kv.value)));
    }
    if let Some(prev) = &event.prev_kv {
        said.push_str(&format!("({})", text(&prev.value)));
    }
    said
}
