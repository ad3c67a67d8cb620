//! What a process holds for those who send without end: measured, in a real one.
//!
//! One connection without a certificate or a token, with 20,000 streams of 60 KB each that belong to
//! a message which never becomes whole, once took 1.7 GB in six seconds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use keygate_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use prost::Message as _;
use support::{Caller, Server, Shown};
use tokio::task::JoinSet;
use tonic::body::Body;
use tower::{Service as _, ServiceExt as _};

const MIB: f64 = 1024.0 * 1024.0;

/// Enough for a debug build to read a gigabyte, were it to.
const ATTACK: Duration = Duration::from_secs(8);

/// Of a message of 64,000 bytes.
const PART: usize = 60_000;

async fn sample(server: &Server, series: &str) -> f64 {
    let page = server.page("/metrics").await;
    let lines = page.lines().filter(|line| line.starts_with(series));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

async fn resident(server: &Server) -> f64 {
    sample(server, "process_resident_memory_bytes").await / MIB
}

/// What became of the requests of an attack.
#[derive(Default)]
struct Told {
    refused: AtomicUsize,
}

/// Opens `streams` on one connection, as fast as the server lets it.
fn attack(on: &Caller, streams: usize, tasks: &mut JoinSet<()>, told: &Arc<Told>) {
    let (channel, told) = (on.channel.clone(), told.clone());
    let mut begun = vec![0; 5 + PART];
    begun[1..5].copy_from_slice(&64_000_u32.to_be_bytes());
    let begun = Bytes::from(begun);
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        for _ in 0..streams {
            let body =
                stream::iter([Ok::<_, Infallible>(Frame::data(begun.clone()))]).chain(stream::pending());
            let request = http::Request::post("https://localhost/etcdserverpb.KV/Put")
                .header("content-type", "application/grpc")
                .body(Body::new(StreamBody::new(body)));
            let mut channel = channel.clone();
            let Ok(ready) = channel.ready().await else { break };
            let answer = ready.call(request.unwrap());
            let told = told.clone();
            open.spawn(async move {
                let Ok(answer) = answer.await else { return };
                if answer.headers().get("grpc-status").is_some_and(|status| status == "8") {
                    told.refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        open.join_all().await;
    });
}

/// The most that the process held while attacked, in MiB.
async fn most_held(server: &Server) -> f64 {
    let (start, mut most) = (Instant::now(), 0_f64);
    while start.elapsed() < ATTACK {
        most = most.max(resident(server).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    most
}

async fn anonymous(server: &Server) -> Caller {
    server.caller(Shown::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_send_without_end_are_not_read_without_end() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let user = pb::AuthUserAddRequest { name: "mallory".into(), password: "pw".into(), ..Default::default() };
    AuthClient::new(root.channel.clone()).user_add(user).await.unwrap();
    let before = resident(&server).await;

    let (mut tasks, told) = (JoinSet::new(), Arc::default());
    attack(&anonymous(&server).await, 20_000, &mut tasks, &told);
    let one = most_held(&server).await;
    let started = sample(&server, "grpc_server_started_total{").await;

    let crowd = stream::iter(0..200).then(|_| anonymous(&server)).collect::<Vec<_>>().await;
    let idle = resident(&server).await;
    for stranger in &crowd {
        attack(stranger, 100, &mut tasks, &told);
    }
    let many = most_held(&server).await;
    println!(
        "resident: {before:.0} MiB, one attacker {one:.0}, 200 idle ones {idle:.0}, attacking {many:.0}"
    );
    println!(
        "{started} requests of the one were begun, {} refused in all",
        told.refused.load(Ordering::Relaxed)
    );
    assert!(started >= 16.0, "the attack did not arrive: {started} requests");
    assert!(told.refused.load(Ordering::Relaxed) > 1000, "nobody was refused");
    assert!(one - before < 16.0, "one connection takes {:.0} MiB", one - before);
    // Resident memory is the allocator's too: unbounded, it would be six times this and more.
    assert!(many - before < 201.0, "201 connections take {:.0} MiB", many - before);

    // Meanwhile somebody logs in, on a connection like those, and then has a thousand streams.
    let honest = anonymous(&server).await;
    let login = pb::AuthenticateRequest { name: "mallory".into(), password: "pw".into() };
    let token = AuthClient::new(honest.channel.clone()).authenticate(login).await.unwrap();
    let token = token.into_inner().token;
    let mut requests = JoinSet::new();
    for _ in 0..1000 {
        let mut client = KvClient::new(honest.channel.clone());
        let mut request = tonic::Request::new(pb::RangeRequest { key: "k".into(), ..Default::default() });
        request.metadata_mut().insert("token", token.parse().unwrap());
        requests.spawn(async move { client.range(request).await.unwrap_err().code() });
    }
    let codes = tokio::time::timeout(Duration::from_secs(60), requests.join_all()).await.unwrap();
    assert!(codes.iter().all(|code| *code == tonic::Code::PermissionDenied), "{codes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_callers_who_finish_no_message_are_refused() {
    let server = Server::start(&["--memory-budget", "64MiB"]);
    let before = resident(&server).await;
    let (mut tasks, told) = (JoinSet::new(), Arc::<Told>::default());
    let known = server.named("alice").await;
    attack(&known, 1500, &mut tasks, &told);
    let held = most_held(&server).await;
    let refused = told.refused.load(Ordering::Relaxed);
    println!("resident: {before:.0} MiB, one attacker {held:.0} MiB, {refused} refused");
    // Half of the budget is room for 559 of these messages.
    assert!(refused >= 1500 - 559, "{refused} refused");
    assert!(held - before < 120.0, "{:.0} MiB", held - before);
}

/// Heads first, data later, as a client with many streams may send them: what is open must not keep
/// out the data that it waits for, neither of those who show a token nor of those who log in.
#[tokio::test]
async fn heads_of_many_requests_do_not_keep_out_their_data() {
    let server = Server::start(&[]);
    let root = server.named("root").await;
    let user = pb::AuthUserAddRequest { name: "alice".into(), password: "pw".into(), ..Default::default() };
    AuthClient::new(root.channel.clone()).user_add(user).await.unwrap();
    let login = pb::AuthenticateRequest { name: "alice".into(), password: "pw".into() };
    let stranger = anonymous(&server).await;
    let token =
        AuthClient::new(stranger.channel).authenticate(login.clone()).await.unwrap().into_inner().token;
    let range = pb::RangeRequest { key: "k".into(), ..Default::default() }.encode_to_vec();
    let cases = [
        ("/etcdserverpb.Auth/Authenticate", login.encode_to_vec(), "", 8, ["0"].as_slice()),
        ("/etcdserverpb.Auth/Authenticate", login.encode_to_vec(), "", 100, &["0", "2", "8"]),
        ("/etcdserverpb.KV/Range", range, token.as_str(), 100, &["7"]),
    ];
    for (path, message, token, count, expected) in cases {
        let caller = anonymous(&server).await;
        let mut framed = vec![0];
        framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&message);
        let framed = Bytes::from(framed);
        let (go, gone) = tokio::sync::watch::channel(false);
        let mut requests = JoinSet::new();
        for _ in 0..count {
            let (mut gone, framed) = (gone.clone(), framed.clone());
            let data = stream::once(async move {
                gone.wait_for(|go| *go).await.unwrap();
                Ok::<_, Infallible>(Frame::data(framed))
            });
            let mut request = http::Request::post(format!("https://localhost{path}"))
                .header("content-type", "application/grpc");
            if !token.is_empty() {
                request = request.header("token", token);
            }
            let request = request.body(Body::new(StreamBody::new(data))).unwrap();
            let mut channel = caller.channel.clone();
            let answer = channel.ready().await.unwrap().call(request);
            requests.spawn(async move {
                let (head, body) = answer.await.unwrap().into_parts();
                let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
                let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status"));
                status.unwrap().to_str().unwrap().to_owned()
            });
        }
        // A handshake and a round trip on another connection: time for the heads to arrive.
        let page = server.page("/health").await;
        assert!(page.contains("true"), "{page}");
        go.send_replace(true);
        let codes = tokio::time::timeout(Duration::from_secs(30), requests.join_all()).await.expect(path);
        assert!(codes.iter().all(|code| expected.contains(&code.as_str())), "{path}: {codes:?}");
        assert!(codes.iter().any(|code| code == expected[0]), "{path}: {codes:?}");
    }
}
