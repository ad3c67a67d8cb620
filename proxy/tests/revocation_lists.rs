//! Certificates that were good and are not any more: revoked, or expired. By a real process, over TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use keygate_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use support::authority::{Authority, Leaf};
use support::{Caller, Server};
use tonic::{Code, Status, Streaming};

const DAY: Duration = Duration::from_secs(86_400);
/// What is promised of connections that are open.
const SOON: Duration = Duration::from_secs(5);

fn leaf(serial: u64) -> Leaf<'static> {
    Leaf { common_name: "root", serial, ..Leaf::default() }
}

/// A server that trusts `authorities` and reads the lists in `crl.pem`.
fn server(directory: &Path, authorities: &[&Authority]) -> Server {
    let bundle: String = authorities.iter().map(|authority| authority.pem()).collect();
    std::fs::write(directory.join("ca.pem"), bundle).unwrap();
    let at = |name: &str| directory.join(name).display().to_string();
    Server::start(&["--trusted-ca-file", &at("ca.pem"), "--client-crl-file", &at("crl.pem")])
}

async fn get(caller: &Caller) -> Result<(), Status> {
    let request = pb::RangeRequest { key: "k".into(), ..Default::default() };
    KvClient::new(caller.signed()).range(request).await.map(drop)
}

/// A watch that has begun.
async fn watch(caller: &Caller) -> Streaming<pb::WatchResponse> {
    let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([request]), tokio_stream::pending());
    let mut events = WatchClient::new(caller.signed()).watch(requests).await.unwrap().into_inner();
    assert!(events.message().await.unwrap().unwrap().created);
    events
}

/// Fails below gRPC, at the handshake, and goes on failing: the channel dials again for each call.
async fn is_kept_out(caller: &Caller) -> bool {
    match get(caller).await {
        Ok(()) => false,
        Err(status) => std::error::Error::source(&status).is_some(),
    }
}

async fn write_and_wait(server: &Server, path: &Path, text: &[u8]) {
    // Whole or not at all, as an operator's tools do it.
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
    server.logs(&["TLS files were read again"]).await;
}

#[tokio::test]
async fn a_revoked_certificate_ends_the_connections_that_it_opened() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let crl = directory.path().join("crl.pem");
    let lists = |revoked: &[u64], elsewhere: &[u64]| {
        let (ours, other) = (ours.revoke(revoked, DAY), other.revoke(elsewhere, DAY));
        ours.pem().unwrap() + &other.pem().unwrap()
    };
    // The other authority's list has both serials: it says nothing about ours.
    std::fs::write(&crl, lists(&[], &[7, 8])).unwrap();
    let server = server(directory.path(), &[&ours, &other]);
    let (seven, eight) = (ours.sign(&leaf(7)), ours.sign(&leaf(8)));
    let (bad, good) = (server.with_certificate(&seven).await, server.with_certificate(&eight).await);
    get(&bad).await.unwrap();
    let (mut ending, mut going_on) = (watch(&bad).await, watch(&good).await);

    write_and_wait(&server, &crl, lists(&[7], &[7, 8]).as_bytes()).await;
    let start = Instant::now();
    let end = tokio::time::timeout(SOON, ending.message()).await.expect("the watch goes on").unwrap_err();
    println!("the watch of a revoked certificate ended {:?} after the list was read", start.elapsed());
    assert_eq!((end.code(), end.message()), (Code::Unauthenticated, "etcdserver: invalid auth token"));
    // The client dials again, and its handshake fails.
    assert!(is_kept_out(&bad).await);
    server.logs(&["rejected connection", "certificate was revoked"]).await;

    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    KvClient::new(good.signed()).put(put).await.unwrap();
    assert_eq!(going_on.message().await.unwrap().unwrap().events.len(), 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_the_last_one_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, impostor) = (Authority::new("ours"), Authority::new("ours"));
    let crl = directory.path().join("crl.pem");
    // DER, this time.
    std::fs::write(&crl, ours.revoke(&[7], DAY).der()).unwrap();
    let server = server(directory.path(), &[&ours]);
    let good = ours.sign(&leaf(8));
    let open = server.with_certificate(&good).await;
    get(&open).await.unwrap();
    let mut events = watch(&open).await;
    let whole = ours.revoke(&[], DAY).pem().unwrap();
    let forged = impostor.revoke(&[8], DAY).pem().unwrap();
    let cases = [
        ("not a list".to_owned(), "neither PEM (`X509 CRL`) nor DER"),
        (whole.replace("-----END", "*\n-----END"), "damaged PEM"),
        (format!("{whole}{forged}"), "list 2: it is not signed by the authority `CN=ours`"),
    ];
    for (text, why) in cases {
        std::fs::write(&crl, text).unwrap();
        let line = server.logs(&["the previous ones stay in use", why]).await;
        assert!(line.contains("crl.pem"), "{line}");
    }
    let revoked = server.with_certificate(&ours.sign(&leaf(7))).await;
    assert!(is_kept_out(&revoked).await, "a list that was good is forgotten");
    get(&server.with_certificate(&good).await).await.unwrap();
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    KvClient::new(open.signed()).put(put).await.unwrap();
    assert_eq!(events.message().await.unwrap().unwrap().events.len(), 1);
}

#[tokio::test]
async fn a_list_that_ran_out_lets_nobody_in_and_throws_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let crl = directory.path().join("crl.pem");
    std::fs::write(&crl, ours.revoke(&[], Duration::from_secs(6)).pem().unwrap()).unwrap();
    let server = server(directory.path(), &[&ours]);
    let certificate = ours.sign(&leaf(8));
    let early = server.with_certificate(&certificate).await;
    let mut events = watch(&early).await;
    let line = server.logs(&["a revocation list has expired", "CN=ours"]).await;
    assert!(line.contains("crl.pem"), "{line}");
    assert!(is_kept_out(&server.with_certificate(&certificate).await).await);
    server.logs(&["rejected connection", "must be renewed"]).await;
    // The next list, with which an open connection is looked at again.
    get(&early).await.unwrap();
    write_and_wait(&server, &crl, ours.revoke(&[], DAY).pem().unwrap().as_bytes()).await;
    get(&server.with_certificate(&certificate).await).await.unwrap();
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    KvClient::new(early.signed()).put(put).await.unwrap();
    assert_eq!(events.message().await.unwrap().unwrap().events.len(), 1);
}

#[tokio::test]
async fn an_authority_without_a_list_is_not_trusted_beside_one_with_a_list() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    std::fs::write(directory.path().join("crl.pem"), ours.revoke(&[], DAY).pem().unwrap()).unwrap();
    let server = server(directory.path(), &[&ours, &other]);
    get(&server.with_certificate(&ours.sign(&leaf(1))).await).await.unwrap();
    assert!(is_kept_out(&server.with_certificate(&other.sign(&leaf(1))).await).await);
    server.logs(&["rejected connection", "has no list of the authority"]).await;
}

#[tokio::test]
async fn a_certificate_that_expires_ends_its_connection() {
    let directory = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    std::fs::write(directory.path().join("crl.pem"), ours.revoke(&[], DAY).pem().unwrap()).unwrap();
    let server = server(directory.path(), &[&ours]);
    let long = server.with_certificate(&ours.sign(&leaf(2))).await;
    let life = Some(Duration::from_secs(4));
    let short = server.with_certificate(&ours.sign(&Leaf { life, ..leaf(1) })).await;
    let (mut ending, mut going_on) = (watch(&short).await, watch(&long).await);
    let end = tokio::time::timeout(Duration::from_secs(10), ending.message()).await.unwrap().unwrap_err();
    // Go's clients come again after this code; after UNAUTHENTICATED they give up the watch.
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: invalid auth token"));
    assert!(is_kept_out(&short).await);
    let user = pb::AuthStatusRequest {};
    AuthClient::new(long.signed()).auth_status(user).await.unwrap();
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    KvClient::new(long.signed()).put(put).await.unwrap();
    assert_eq!(going_on.message().await.unwrap().unwrap().events.len(), 1);
}

#[tokio::test]
async fn a_token_that_ends_ends_the_streams_that_it_began() {
    let server = Server::start(&["--auth-token-ttl", "3"]);
    let root = server.named("root").await;
    let mut auth = AuthClient::new(root.signed());
    for name in ["idle", "busy", "changed"] {
        let user = pb::AuthUserAddRequest { name: name.into(), password: "pw".into(), ..Default::default() };
        auth.user_add(user).await.unwrap();
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: name.into(), role: "root".into() })
            .await
            .unwrap();
    }
    let idle = server.logged_in("idle", "pw").await;
    let busy = server.logged_in("busy", "pw").await;
    let changed = server.logged_in("changed", "pw").await;
    let (mut ending, mut going_on, mut cut) = (watch(&idle).await, watch(&busy).await, watch(&changed).await);
    let start = Instant::now();
    let user = pb::AuthUserChangePasswordRequest {
        name: "changed".into(),
        password: "new".into(),
        ..Default::default()
    };
    auth.user_change_password(user).await.unwrap();
    let using = async {
        loop {
            get(&busy).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let ends = async {
        for stream in [&mut ending, &mut cut] {
            let end = stream.message().await.unwrap_err();
            assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: invalid auth token"));
        }
    };
    tokio::select! {
        () = using => {}
        ended = tokio::time::timeout(Duration::from_secs(15), ends) => ended.expect("the watches go on"),
    }
    println!("streams of dead tokens ended after {:?}", start.elapsed());
    // A token that is used goes on, and its streams with it.
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    KvClient::new(root.signed()).put(put).await.unwrap();
    assert_eq!(going_on.message().await.unwrap().unwrap().events.len(), 1);
}
