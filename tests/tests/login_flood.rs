//! A thousand wrong logins at a time, and somebody who has logged in already writes on.
//!
//! What a write waits for beside the flood is compared with what it waited for before it, in one run. A busy machine
//! makes that uneven, so that the bar of 1.5 is held where `KEYGATE_STRICT=1` says that the machine is ours alone;
//! without it only a flood that holds writes up for good fails. The figures are printed either way.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use keygate_proto::etcdserverpb::{AuthenticateRequest, PutRequest};
use keygate_tests::harness::{Client, Plan, Program, Protection, Server};
use tokio::task::JoinSet;

const CONNECTIONS: usize = 100;
const LOGINS_OF_EACH: usize = 10;
const PUTS: usize = 1_000;
const STRICT: f64 = 1.5;
/// A write that waits for the password threads would take seconds.
const LOOSE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_wrong_logins_at_a_time_do_not_hold_up_writes() {
    let server = Server::start(Plan::new(Program::Keygate, Protection::Password)).await.unwrap();
    let root = server.root().await.unwrap();
    for _ in 0..2 {
        slow_end_of_puts(&root).await;
    }
    let alone = slow_end_of_puts(&root).await;

    let stop = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicU64::new(0));
    let mut flood = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let client = Client::connect(&server.endpoint).await.unwrap();
        for login in 0..LOGINS_OF_EACH {
            // Half of them for a user who exists.
            let name = if login % 2 == 0 { "root".to_owned() } else { format!("nobody-{connection}") };
            flood.spawn(guess(client.clone(), name, stop.clone(), refused.clone()));
        }
    }
    while refused.load(Ordering::Relaxed) < 2_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = refused.load(Ordering::Relaxed);
    let beside = slow_end_of_puts(&root).await;
    let meanwhile = refused.load(Ordering::Relaxed) - before;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = flood.join_next().await {
        ended.unwrap();
    }
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    println!(
        "login flood: p99 of puts {alone:?} alone, {beside:?} beside {meanwhile} refused logins: {ratio:.2}x"
    );
    assert!(meanwhile > 0, "nobody tried to log in meanwhile");
    if std::env::var("KEYGATE_STRICT").is_ok_and(|strict| strict == "1") {
        assert!(ratio <= STRICT, "puts wait {ratio:.2} times as long");
    } else {
        assert!(beside <= LOOSE, "puts wait {beside:?}");
    }
}

/// Asks again at once, whatever the answer: it is never a token. A client waits a little when it is told to.
async fn guess(client: Client, name: String, stop: Arc<AtomicBool>, refused: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let login = AuthenticateRequest { name: name.clone(), password: "wrong".to_owned() };
        let status = client.auth().authenticate(login).await.unwrap_err();
        let known = [
            "etcdserver: authentication failed, invalid user ID or password",
            "etcdserver: too many requests",
        ];
        assert!(known.contains(&status.message()), "{status:?}");
        refused.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn slow_end_of_puts(client: &Client) -> Duration {
    let mut waited = Vec::with_capacity(PUTS);
    for n in 0..PUTS {
        let put = PutRequest { key: format!("k{n}").into(), value: "v".into(), ..PutRequest::default() };
        let began = Instant::now();
        client.kv().put(put).await.unwrap();
        waited.push(began.elapsed());
    }
    waited.sort_unstable();
    waited[PUTS * 99 / 100]
}
