//! Passwords cost the server much more than their senders: what bounds that, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, in its helpers too")]

#[allow(dead_code, reason = "each test uses its part")]
mod support;

use std::time::{Duration, Instant};

use keygate_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use support::{Caller, Server, Shown};
use tokio::task::JoinSet;
use tonic::Code;

fn add(name: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest { name: name.to_owned(), password: "p".to_owned(), ..Default::default() }
}

fn change(name: &str) -> pb::AuthUserChangePasswordRequest {
    pb::AuthUserChangePasswordRequest {
        name: name.to_owned(),
        password: "q".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn nothing_is_hashed_for_a_user_who_cannot_get_it() {
    let server = Server::start(&["--bcrypt-cost", "13", "--password-threads", "1"]);
    let root = server.named("root").await;
    let mut auth = AuthClient::new(root.channel.clone());
    let start = Instant::now();
    auth.user_add(add("a")).await.unwrap();
    let hashing = start.elapsed();
    let start = Instant::now();
    let exists = auth.user_add(add("a")).await.unwrap_err();
    let nameless = auth.user_add(add("")).await.unwrap_err();
    let missing = auth.user_change_password(change("b")).await.unwrap_err();
    let long = pb::AuthUserAddRequest { password: "x".repeat(73), ..add("c") };
    let too_long = auth.user_add(long).await.unwrap_err();
    let refusing = start.elapsed();
    for (status, code, text) in [
        (exists, Code::FailedPrecondition, "etcdserver: user name already exists"),
        (nameless, Code::InvalidArgument, "etcdserver: user name is empty"),
        (missing, Code::FailedPrecondition, "etcdserver: user name not found"),
        (too_long, Code::Unknown, "bcrypt: password length exceeds 72 bytes"),
    ] {
        assert_eq!((status.code(), status.message()), (code, text));
    }
    assert!(refusing * 2 < hashing, "four refusals took {refusing:?}, one hash {hashing:?}");
}

/// Strangers log in with wrong passwords, faster than one thread can say no. Most are refused at
/// once, and whoever has logged in already does not notice.
#[tokio::test]
async fn a_flood_of_logins_is_refused_and_holds_up_nobody_else() {
    let server = Server::start(&["--bcrypt-cost", "10", "--password-threads", "1"]);
    let root = server.named("root").await;
    let nobody = server.caller(Shown::default()).await;
    let start = Instant::now();
    assert_eq!(login(&nobody).await, "etcdserver: authentication failed, invalid user ID or password");
    let alone = start.elapsed();
    let mut flood = JoinSet::new();
    for n in 0..400 {
        let mut auth = AuthClient::new(nobody.channel.clone());
        let login = pb::AuthenticateRequest { name: "root".into(), password: format!("{n}") };
        flood.spawn(async move { auth.authenticate(login).await.unwrap_err() });
    }
    let refused = loop {
        let status = flood.join_next().await.unwrap().unwrap();
        // Some are answered before the queue is full.
        if status.message() == "etcdserver: too many requests" {
            break status;
        }
    };
    assert_eq!(refused.code(), Code::Unknown);
    let mut kv = KvClient::new(root.channel.clone());
    let start = Instant::now();
    let put = |n: usize| pb::PutRequest { key: format!("k{n}").into(), ..Default::default() };
    for n in 0..20 {
        kv.put(put(n)).await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(10), "20 puts took {:?}", start.elapsed());
    // The flood's clients go away, and what they asked for is not done: the next login is soon heard.
    drop(flood);
    let start = Instant::now();
    while login(&nobody).await == "etcdserver: too many requests" {
        tokio::task::yield_now().await;
    }
    let after = start.elapsed();
    assert!(after < 40 * alone, "a login alone took {alone:?}, one after the flood {after:?}");
}

/// After too many wrong passwords neither the right one helps, nor is anything compared; who comes from elsewhere does not
/// notice, and a new password lets in again. To whoever tries, it looks like a wrong password.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn wrong_passwords_lock_out_who_sends_them_and_nobody_else() {
    let server = Server::start(&["--bcrypt-cost", "12", "--login-lockout-threshold", "3"]);
    let root = server.named("root").await;
    AuthClient::new(root.channel.clone()).user_add(add("a")).await.unwrap();
    let nobody = server.caller(Shown::default()).await;
    let mut answers = Vec::new();
    // The fastest: others may have waited for a processor.
    let mut compared = Duration::MAX;
    for name in ["a", "never-made"] {
        for password in ["w-1", "w-2", "w-3"] {
            let start = Instant::now();
            answers.push(login_as(&nobody, name, password).await.unwrap_err());
            compared = compared.min(start.elapsed());
        }
    }
    let start = Instant::now();
    for (name, password) in [("a", "p"), ("a", "w-4"), ("never-made", "p")] {
        answers.push(login_as(&nobody, name, password).await.unwrap_err());
    }
    let refused = start.elapsed() / 3;
    // They cannot be told apart by what they say; nor, as far as a machine keeps time, by how long they take.
    for status in &answers {
        assert_eq!(status.code(), answers[0].code());
        assert_eq!(status.message(), "etcdserver: authentication failed, invalid user ID or password");
        assert_eq!(status.metadata().clone().into_headers().get("x-ratelimit-limit"), None);
    }
    assert!(refused * 3 > compared, "a comparison took {compared:?}, a refusal {refused:?}");
    let log = server.logs(&["too many wrong passwords", "\"user\":\"a\""]).await;
    assert!(!log.contains("w-3"), "{log}");
    server.logs(&["too many wrong passwords", "(no such user)"]).await;
    let page = server.page("/metrics").await;
    assert!(page.contains("keygate_login_lockouts_total{for=\"address\"} 2"), "{page}");
    assert!(page.contains("keygate_login_lockout_refusals_total 3"), "{page}");
    // Other users of that address, and the same user of another one.
    assert!(login_as(&nobody, "b", "w").await.is_err());
    let elsewhere = server.stranger_from([127, 0, 0, 2].into()).await;
    login_as(&elsewhere, "a", "p").await.unwrap();
    assert!(login_as(&nobody, "a", "p").await.is_err(), "a success elsewhere lets in nobody here");
    AuthClient::new(root.channel.clone()).user_change_password(change("a")).await.unwrap();
    login_as(&nobody, "a", "q").await.unwrap();
}

async fn login_as(caller: &Caller, name: &str, password: &str) -> Result<String, tonic::Status> {
    let login = pb::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
    let answer = AuthClient::new(caller.channel.clone()).authenticate(login).await?;
    Ok(answer.into_inner().token)
}

/// What a wrong password is answered with.
async fn login(caller: &Caller) -> String {
    let login = pb::AuthenticateRequest { name: "root".into(), password: "wrong".into() };
    let refused = AuthClient::new(caller.channel.clone()).authenticate(login).await.unwrap_err();
    refused.message().to_owned()
}
