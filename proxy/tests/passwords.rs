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

/// What a wrong password is answered with.
async fn login(caller: &Caller) -> String {
    let login = pb::AuthenticateRequest { name: "root".into(), password: "wrong".into() };
    let refused = AuthClient::new(caller.channel.clone()).authenticate(login).await.unwrap_err();
    refused.message().to_owned()
}
