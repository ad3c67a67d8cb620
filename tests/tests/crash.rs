//! SIGKILL at random instants under load, on one data directory.
//!
//! `KEYGATE_CRASH_KILLS` is the number of kills (CI: 200), `KEYGATE_CRASH_SEED` draws the
//! instants. After each restart the whole new history is read back and checked, see
//! [`keygate_tests::crash`].

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use keygate_proto::{
    authpb::{Permission, permission::Type},
    etcdserverpb::{watch_request::RequestUnion, *},
    mvccpb::event::EventType,
};
use keygate_tests::{
    crash::{Change, History, write_until_it_fails},
    harness::{Client, Plan, Program, Protection, Server, peers::count_from_env},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

const WRITERS: usize = 8;
/// Killed early, a server is in recovery or in its first group commit; late, in full flow.
const KILL_AFTER_MILLIS: std::ops::Range<u64> = 1..400;
const KEPT_LEASE: i64 = 4711;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_appears_when_the_server_is_killed() {
    let kills = count_from_env("KEYGATE_CRASH_KILLS", 10);
    let program =
        if std::env::var_os("KEYGATE_CRASH_ORACLE").is_some() { Program::Etcd } else { Program::Keygate };
    let plan = Plan::new(program, Protection::Password).flags(&["--bcrypt-cost", "4"]);
    let mut server = Server::start(plan).await.unwrap();
    let mut random = StdRng::seed_from_u64(count_from_env("KEYGATE_CRASH_SEED", 1) as u64);
    let root = server.root().await.unwrap();
    let start = prepare(&root).await.unwrap();
    let users = users(&root).await.unwrap();
    let mut history = History::after(start);
    let mut leases = vec![KEPT_LEASE];
    let mut replayed: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for round in 0..kills {
        let client = server.root().await.unwrap();
        let writers: Vec<_> = (0..WRITERS)
            .map(|name| tokio::spawn(write_until_it_fails(client.clone(), name, round)))
            .collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(KILL_AFTER_MILLIS))).await;
        server.kill();
        let mut records = Vec::new();
        for writer in writers {
            let notes = writer.await.unwrap().unwrap();
            records.extend(notes.writes);
            leases.extend(notes.leases);
        }
        server.launch().unwrap_or_else(|error| panic!("kill {round}: {error:#}"));
        let client = server.root().await.unwrap();
        let revision = revision(&client).await.unwrap();
        let log = changes(&client, history.checked() + 1, revision).await.unwrap();
        for change in log.values().flatten() {
            match &change.value {
                Some(value) => replayed.insert(change.key.clone(), value.clone()),
                None => replayed.remove(&change.key),
            };
        }
        let faults = history.check(records, log, revision);
        assert!(
            faults.is_empty(),
            "kill {round}: {} faults, the first: {:?}",
            faults.len(),
            &faults[..faults.len().min(5)]
        );
        assert_eq!(
            present(&client).await.unwrap(),
            replayed,
            "kill {round}: the keys are not what their history says"
        );
        assert_kept(&client, &server, &leases, &users).await;
    }
    let (acknowledged, found, missing) = (history.acknowledged(), history.found(), history.missing());
    println!(
        "{kills} kills, {acknowledged} acknowledged writes, 0 lost; of {} without an answer {found} had happened; {} leases",
        found + missing,
        leases.len()
    );
    assert!(acknowledged >= kills * 20, "too little load to mean anything");
    assert!(found + missing >= kills, "no kill came in the middle of a write");
}

/// A user, a role, a permission, and a lease with a key: they must never change again. The
/// revision behind it all.
async fn prepare(root: &Client) -> Result<i64> {
    let (name, role) = ("keeper".to_owned(), "keepers".to_owned());
    let mut auth = root.auth();
    let user = AuthUserAddRequest { name: name.clone(), password: "kept".to_owned(), ..Default::default() };
    auth.user_add(user).await?;
    auth.role_add(AuthRoleAddRequest { name: role.clone() }).await?;
    let (key, range_end) = (Bytes::from_static(b"kept/"), Bytes::from_static(b"kept0"));
    let perm = Some(Permission { perm_type: Type::Read as i32, key: key.clone(), range_end });
    auth.role_grant_permission(AuthRoleGrantPermissionRequest { name: role.clone(), perm }).await?;
    auth.user_grant_role(AuthUserGrantRoleRequest { user: name, role }).await?;
    root.lease().lease_grant(LeaseGrantRequest { ttl: 86_400, id: KEPT_LEASE }).await?;
    let put = PutRequest { key, value: Bytes::from_static(b"kept"), lease: KEPT_LEASE, ..Default::default() };
    let put = root.kv().put(put).await?.into_inner();
    Ok(put.header.context("a header")?.revision)
}

/// Names with their roles.
async fn users(root: &Client) -> Result<Vec<(String, Vec<String>)>> {
    let names = root.auth().user_list(AuthUserListRequest {}).await?.into_inner().users;
    let mut users = Vec::new();
    for name in names {
        let roles = root.auth().user_get(AuthUserGetRequest { name: name.clone() }).await?.into_inner().roles;
        users.push((name, roles));
    }
    Ok(users)
}

async fn assert_kept(root: &Client, server: &Server, leases: &[i64], users_before: &[(String, Vec<String>)]) {
    assert_eq!(users(root).await.unwrap(), users_before, "users are as they were");
    let keeper = Client::connect(&server.endpoint).await.unwrap().login("keeper", "kept").await.unwrap();
    let range =
        |key: &'static str| RangeRequest { key: Bytes::from_static(key.as_bytes()), ..Default::default() };
    let kept = keeper.kv().range(range("kept/")).await.unwrap().into_inner();
    assert_eq!((kept.count, kept.kvs[0].lease), (1, KEPT_LEASE), "the leased key is there");
    keeper.kv().range(range("load/")).await.expect_err("the role still ends at its range");
    let listed = root.lease().lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner().leases;
    let listed: std::collections::HashSet<i64> = listed.iter().map(|lease| lease.id).collect();
    let lost: Vec<&i64> = leases.iter().filter(|id| !listed.contains(id)).collect();
    assert!(lost.is_empty(), "granted leases are gone: {lost:?}");
    let left = LeaseTimeToLiveRequest { id: KEPT_LEASE, keys: true };
    let left = root.lease().lease_time_to_live(left).await.unwrap().into_inner();
    assert_eq!((left.granted_ttl, left.keys.len()), (86_400, 1), "the lease is as it was");
}

async fn revision(client: &Client) -> Result<i64> {
    let status = client.maintenance().status(StatusRequest {}).await?.into_inner();
    Ok(status.header.context("a header")?.revision)
}

/// Keys of the load and their values.
async fn present(client: &Client) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let range = RangeRequest {
        key: Bytes::from_static(b"load/"),
        range_end: Bytes::from_static(b"load0"),
        ..Default::default()
    };
    let range = client.kv().range(range).await?.into_inner();
    Ok(range.kvs.into_iter().map(|pair| (pair.key.to_vec(), pair.value.to_vec())).collect())
}

/// Every change from revision `from` to revision `to`, as a watcher is told.
async fn changes(client: &Client, from: i64, to: i64) -> Result<BTreeMap<i64, Vec<Change>>> {
    let mut log: BTreeMap<i64, Vec<Change>> = BTreeMap::new();
    if from > to {
        return Ok(log);
    }
    let everything = Bytes::from_static(b"\0");
    let create = WatchCreateRequest {
        key: everything.clone(),
        range_end: everything,
        start_revision: from,
        ..Default::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The stream ends with its requests, so they go on without end.
    let requests = tokio_stream::StreamExt::chain(tokio_stream::once(create), tokio_stream::pending());
    let mut answers = client.watch().watch(requests).await?.into_inner();
    while log.last_key_value().is_none_or(|(last, _)| *last < to) {
        let answer = tokio::time::timeout(Duration::from_secs(30), answers.message())
            .await
            .context("the watch is silent")??;
        for event in answer.context("the watch ended")?.events {
            let is_put = event.r#type() == EventType::Put;
            let pair = event.kv.context("an event without a pair")?;
            let change = Change { key: pair.key.to_vec(), value: is_put.then(|| pair.value.to_vec()) };
            log.entry(pair.mod_revision).or_default().push(change);
        }
    }
    Ok(log)
}
