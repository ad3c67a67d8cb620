//! Quota webhooks against real receivers, over TLS and without: what arrives, and what happens when nothing does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keygate::quota_watch::Crossing;
use keygate::quota_webhook::{Counts, Receiver, Timing, Webhook, usable_url};
use keygate_core::{QuotaKind, TenantName};
use keygate_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use support::{Caller, Server};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const PATIENCE: Duration = Duration::from_secs(60);

/// Short pauses, as nobody wants to wait for a test; but an answer may be slow on a busy machine.
const QUICK: Timing = Timing {
    patience: Duration::from_secs(10),
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(100),
    lifetime: Duration::from_secs(600),
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Answers(&'static str),
    /// Reads and says nothing.
    Hangs,
}

/// What was posted: its headers and its body.
#[derive(Clone, Debug)]
struct Posted {
    headers: BTreeMap<String, String>,
    body: String,
}

/// A server for webhooks; dropping it takes it down.
struct Hook {
    port: u16,
    posted: Arc<Mutex<Vec<Posted>>>,
    manner: Arc<Mutex<Manner>>,
    task: JoinHandle<()>,
}

/// A certificate for `localhost`, and its file.
struct Tls {
    acceptor: TlsAcceptor,
    ca: PathBuf,
}

impl Tls {
    fn new(directory: &Path, name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        let ca = directory.join(name);
        std::fs::write(&ca, certificate.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), ca }
    }
}

impl Hook {
    async fn start(port: u16, tls: Option<&Tls>, manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (posted, manner) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(manner)));
        let (to, how, acceptor) = (posted.clone(), manner.clone(), tls.map(|tls| tls.acceptor.clone()));
        let task = tokio::spawn(async move {
            // Ends with this task.
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (to, how, acceptor) = (to.clone(), how.clone(), acceptor.clone());
                open.spawn(async move {
                    match acceptor {
                        None => answer(stream, &to, &how).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                answer(stream, &to, &how).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, posted, manner, task }
    }

    fn manner(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// In the order of their first arrival: one whose answer was too late comes again, word by word.
    fn bodies(&self) -> Vec<Value> {
        let posted = self.posted.lock().unwrap();
        let mut bodies: Vec<Value> = Vec::new();
        for posted in posted.iter() {
            let body = serde_json::from_str(&posted.body).unwrap();
            if !bodies.contains(&body) {
                bodies.push(body);
            }
        }
        bodies
    }

    /// Until there are so many.
    async fn has(&self, count: usize) -> Vec<Value> {
        until("documents", || self.bodies().len() >= count).await;
        self.bodies()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    posted: &Mutex<Vec<Posted>>,
    manner: &Mutex<Manner>,
) {
    let (mut read, mut head) = (Vec::new(), None);
    let mut buffer = [0; 4096];
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer).await else { return };
        read.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&read);
        if let (None, Some((first, _))) = (&head, text.split_once("\r\n\r\n")) {
            head = Some(first.to_owned());
        }
        let Some(head) = &head else { continue };
        let mut lines = head.lines();
        assert!(lines.next().unwrap().starts_with("POST /hook?of=quotas HTTP/1.1"), "{head}");
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers["content-length"].parse().unwrap();
        let body = &read[head.len() + 4..];
        if body.len() < length {
            continue;
        }
        let body = String::from_utf8(body.to_vec()).unwrap();
        let manner = *manner.lock().unwrap();
        match manner {
            Manner::Hangs => std::future::pending().await,
            Manner::Answers(status) => {
                if status.starts_with('2') {
                    posted.lock().unwrap().push(Posted { headers, body });
                }
                // Who follows it comes back, and is seen.
                let answer =
                    format!("HTTP/1.1 {status}\r\nlocation: /hook?of=quotas\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
                return;
            }
        }
    }
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const TAKES: Manner = Manner::Answers("204 No Content");

fn receiver(scheme: &str, port: u16, ca: Option<&Path>) -> Receiver {
    let url = usable_url(&format!("{scheme}://localhost:{port}/hook?of=quotas")).unwrap();
    Receiver { url, ca: ca.map(Path::to_owned), secret: None }
}

/// Each of another quota: of one quota only the newest waits.
fn crossing(used: u64) -> Crossing {
    Crossing {
        tenant: TenantName::parse("pay"),
        prefix: format!("jobs-{used}/").into(),
        kind: QuotaKind::Keys,
        used,
        limit: 100,
        threshold: Some(80),
    }
}

fn counted(counts: &Counts) -> [u64; 3] {
    [&counts.delivered, &counts.failures, &counts.dropped].map(|count| count.load(Relaxed))
}

#[tokio::test]
async fn a_receiver_that_was_away_gets_what_it_missed_in_order() {
    let gone = Hook::start(0, None, TAKES).await;
    let port = gone.port;
    gone.task.abort();
    until("gone", || gone.task.is_finished()).await;
    let counts = Arc::new(Counts::default());
    let webhook = Webhook::start(receiver("http", port, None), 0xabc, QUICK, counts.clone());
    webhook.tell(&[crossing(80), crossing(81)]);
    until("failures", || counts.failures.load(Relaxed) >= 3).await;
    let hook = Hook::start(port, None, TAKES).await;
    webhook.tell(&[crossing(82)]);
    let used: Vec<_> = hook.has(3).await.iter().map(|body| body["used"].clone()).collect();
    assert_eq!(used, [80, 81, 82]);
    until("counted", || counted(&counts)[0] == 3).await;
    assert_eq!(counted(&counts)[2], 0);
    // One that is busy is asked again, too.
    hook.manner(Manner::Answers("503 Service Unavailable"));
    let before = counted(&counts)[1];
    webhook.tell(&[crossing(83)]);
    until("failures", || counts.failures.load(Relaxed) >= before + 2).await;
    hook.manner(TAKES);
    assert_eq!(hook.has(4).await[3]["used"], 83);
}

#[tokio::test]
async fn what_cannot_be_delivered_is_dropped_and_the_queue_is_bounded() {
    let hook = Hook::start(0, None, Manner::Answers("302 Found")).await;
    let counts = Arc::new(Counts::default());
    let webhook = Webhook::start(receiver("http", hook.port, None), 1, QUICK, counts.clone());
    // A redirect leads nowhere, and a refusal is final.
    webhook.tell(&[crossing(1)]);
    until("dropped", || counted(&counts) == [0, 1, 1]).await;
    hook.manner(Manner::Answers("401 Unauthorized"));
    webhook.tell(&[crossing(2)]);
    until("dropped", || counted(&counts) == [0, 2, 2]).await;
    // Slow beyond patience, until it is too late.
    hook.manner(Manner::Hangs);
    let timing = Timing { patience: Duration::from_secs(1), lifetime: Duration::from_secs(5), ..QUICK };
    let counts = Arc::new(Counts::default());
    let webhook = Webhook::start(receiver("http", hook.port, None), 1, timing, counts.clone());
    let start = Instant::now();
    webhook.tell(&(0..3000).map(crossing).collect::<Vec<_>>());
    assert!(start.elapsed() < Duration::from_secs(5), "telling does not wait: {:?}", start.elapsed());
    // Nothing else runs on this thread before the next await.
    assert_eq!(counted(&counts)[2], 3000 - 1024, "the oldest leave at once");
    until("dropped", || counted(&counts)[2] == 3000).await;
    let [delivered, failures, _] = counted(&counts);
    // Each takes its second, and a busy machine makes them fewer only.
    assert!(delivered == 0 && (1..=5).contains(&failures), "{failures} attempts");
    hook.manner(TAKES);
    // Told until it is there: its time may be over before a busy machine has sent it.
    until("it goes on", || {
        webhook.tell(&[crossing(7)]);
        !hook.bodies().is_empty()
    })
    .await;
    assert_eq!(hook.bodies()[0]["used"], 7);
}

/// While one is on its way, the tenant crosses back and forth; and another tenant, once.
#[tokio::test]
async fn of_one_quota_only_the_newest_waits() {
    let hook = Hook::start(0, None, Manner::Answers("503 Service Unavailable")).await;
    let counts = Arc::new(Counts::default());
    let webhook = Webhook::start(receiver("http", hook.port, None), 1, QUICK, counts.clone());
    webhook.tell(&[crossing(0)]);
    until("failures", || counts.failures.load(Relaxed) >= 1).await;
    webhook.tell(&[crossing(1)]);
    for used in 2..3000 {
        webhook.tell(&[Crossing { prefix: "busy/".into(), ..crossing(used) }]);
    }
    hook.manner(TAKES);
    let used: Vec<_> = hook.has(3).await.iter().map(|body| body["used"].clone()).collect();
    assert_eq!(used, [0, 1, 2999]);
    until("counted", || counted(&counts)[0] == 3).await;
    assert_eq!(counted(&counts)[2], 0, "what something newer stands for is not lost");
}

#[tokio::test]
async fn a_receiver_must_have_the_right_authority_and_documents_their_signature() {
    let directory = tempfile::tempdir().unwrap();
    let (right, other) = (Tls::new(directory.path(), "right.pem"), Tls::new(directory.path(), "other.pem"));
    let hook = Hook::start(0, Some(&right), TAKES).await;
    for ca in [Some(other.ca.as_path()), None] {
        let counts = Arc::new(Counts::default());
        let webhook = Webhook::start(receiver("https", hook.port, ca), 1, QUICK, counts.clone());
        webhook.tell(&[crossing(80)]);
        until("failures", || counts.failures.load(Relaxed) >= 2).await;
        assert_eq!((counted(&counts)[0], hook.bodies().len()), (0, 0), "{ca:?}");
    }
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "of the operators\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let counts = Arc::new(Counts::default());
    let signed = Receiver { secret: Some(secret.clone()), ..receiver("https", hook.port, Some(&right.ca)) };
    let webhook = Webhook::start(signed, 1, QUICK, counts.clone());
    webhook.tell(&[crossing(80)]);
    // Others can read it: nothing goes out unsigned.
    until("failures", || counts.failures.load(Relaxed) >= 2).await;
    assert!(hook.bodies().is_empty());
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    hook.has(1).await;
    let posted = hook.posted.lock().unwrap()[0].clone();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"of the operators");
    let tag = aws_lc_rs::hmac::sign(&key, posted.body.as_bytes());
    let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(posted.headers["x-keygate-signature"], format!("sha256={tag}"));
    assert_eq!(posted.headers["content-type"], "application/json");
}

async fn put(caller: &Caller, key: usize) {
    let put = pb::PutRequest { key: format!("jobs/{key}").into(), ..Default::default() };
    KvClient::new(caller.signed()).put(put).await.unwrap();
}

/// By a real server, over TLS: down at first, which costs two lines of its log and delays nobody.
#[tokio::test]
async fn a_server_tells_of_quotas_that_are_used_and_have_room_again() {
    let directory: TempDir = tempfile::tempdir().unwrap();
    let tls = Tls::new(directory.path(), "hook.pem");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("https://localhost:{port}/hook?of=quotas");
    let server =
        Server::start(&["--quota-webhook-url", &url, "--quota-webhook-ca-file", tls.ca.to_str().unwrap()]);
    let made = server.keygate(&["tenant", "create", "pay"]);
    server.keygate(&["quota", "set", "pay", "--prefix", "jobs/", "--keys", "10"]);
    let pay = server.logged_in("root@pay", made["root_password"].as_str().unwrap()).await;
    for key in 0..8 {
        put(&pay, key).await;
    }
    let line = server.logs(&["a quota webhook is not taken", "cannot connect"]).await;
    assert!(line.contains(&format!("localhost:{port}")) && !line.contains("of=quotas"), "{line}");
    // Hangs: writes go on.
    let hook = Hook::start(port, Some(&tls), Manner::Hangs).await;
    for key in 8..10 {
        put(&pay, key).await;
    }
    hook.manner(TAKES);
    let mut bodies = hook.has(2).await;
    server.logs(&["takes them again"]).await;
    let delete =
        pb::DeleteRangeRequest { key: "jobs/".into(), range_end: "jobs0".into(), ..Default::default() };
    KvClient::new(pay.signed()).delete_range(delete).await.unwrap();
    until("cleared", || hook.bodies().iter().any(|body| body["state"] == "cleared")).await;
    let all = hook.bodies();
    let mut last = all.last().unwrap().clone();
    let expected = |state: &str, threshold: Value, used: u64, of: &Value| {
        json!({
            "tenant": "pay", "prefix": "jobs/", "kind": "keys", "limit": 10, "used": used, "threshold": threshold,
            "state": state, "member": of["member"], "time": of["time"],
        })
    };
    let first = bodies.remove(0);
    assert_eq!(first, expected("crossed", 80.into(), 8, &first));
    assert_eq!(last.take(), expected("cleared", Value::Null, 0, all.last().unwrap()));
    let time = first["time"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && time.len() >= 20, "{time}");
    assert!(u64::from_str_radix(first["member"].as_str().unwrap(), 16).unwrap() > 0);
    let value = |page: &str, name: &str| {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    // The receiver has a document before the server knows so.
    let start = Instant::now();
    let page = loop {
        let page = server.page("/metrics").await;
        if value(&page, "keygate_quota_webhook_deliveries_total") == all.len() as u64 {
            break page;
        }
        assert!(start.elapsed() < PATIENCE, "{} documents: {page}", all.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(value(&page, "keygate_quota_webhook_failures_total") >= 1);
    assert_eq!(value(&page, "keygate_quota_webhook_dropped_total"), 0);
}

#[test]
fn check_config_looks_at_the_files_of_webhooks() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "s").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
    let check = |file: &str| {
        let path = directory.path().join("keygate.yml");
        std::fs::write(&path, file).unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_keygate")).arg("check-config").arg(&path).env_clear().output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (secret, ca) = (secret.display(), directory.path().join("none.pem"));
    let url = "quota-webhook-url: 'https://hooks.example.com/x'";
    for (keys, why) in [
        ("quota-webhook-url: 'http://hooks.example.com/x'".to_owned(), "is not this machine"),
        (format!("quota-webhook-secret-file: {secret}"), "without --quota-webhook-url"),
        (format!("{url}, quota-webhook-secret-file: {secret}"), "0640"),
        (format!("{url}, quota-webhook-ca-file: {}", ca.display()), "cannot read"),
        (
            format!("quota-webhook-url: 'http://localhost/', quota-webhook-ca-file: {}", ca.display()),
            "plain http",
        ),
    ] {
        let (status, said) = check(&format!("keygate: {{{keys}}}\n"));
        assert_eq!((status, said.contains(why)), (Some(2), true), "{keys}: {said}");
    }
    std::fs::set_permissions(directory.path().join("secret"), std::fs::Permissions::from_mode(0o600))
        .unwrap();
    let (status, said) = check(&format!("keygate: {{{url}, quota-webhook-secret-file: {secret}}}\n"));
    assert_eq!(status, Some(0), "{said}");
}
