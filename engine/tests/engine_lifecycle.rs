//! The engine as a whole: what is answered is durable and visible, also after a restart.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use keygate_core::{Answer, Compact, KeyRange, LeaseId, Operation, Permit, Refusal, Sealed, WatchCreate};
use keygate_engine::{EngineOptions, WatchUpdate};
use std::sync::Arc;
use std::time::Duration;
use support::*;

#[tokio::test]
async fn a_write_is_visible_when_it_is_answered_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    for n in 0..50 {
        let reply = write(&port, put("key", &n.to_string())).await.unwrap();
        assert_eq!(reply.revision, n + 2);
        assert_eq!(value_at(&port, "key", 0).await.unwrap(), Some(n.to_string()));
    }
    engine.shutdown();

    let engine = open(directory.path());
    let port = engine.port();
    assert_eq!(value_at(&port, "key", 0).await.unwrap().as_deref(), Some("49"));
    // History comes from the store now.
    assert_eq!(value_at(&port, "key", 12).await.unwrap().as_deref(), Some("10"));
    assert_eq!(write(&port, put("key", "again")).await.unwrap().revision, 52);
    engine.shutdown();
}

#[tokio::test]
async fn a_directory_in_use_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let error = match keygate_engine::Engine::open(options(directory.path()), Arc::new(RootOnly)) {
        Ok(_) => panic!("two engines in one directory"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("in use"), "{error}");
    engine.shutdown();
    open(directory.path()).shutdown();
}

#[tokio::test]
async fn values_beyond_the_memory_budget_are_read_from_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let small = EngineOptions { memory_budget: 10_000, ..options(directory.path()) };
    let engine = keygate_engine::Engine::open(small, Arc::new(RootOnly)).unwrap();
    let port = engine.port();
    let value = "v".repeat(1_000);
    for n in 0..100 {
        write(&port, put(&format!("key{n}"), &format!("{n}{value}"))).await.unwrap();
    }
    engine.wait_pruned().await.unwrap();
    for n in 0..100 {
        let read = value_at(&port, &format!("key{n}"), 0).await.unwrap();
        assert_eq!(read, Some(format!("{n}{value}")));
    }
    engine.shutdown();
}

#[tokio::test]
async fn compaction_removes_history_and_keeps_the_horizon_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    for n in 0..20 {
        write(&port, put("key", &n.to_string())).await.unwrap();
    }
    let compact = Operation::Compact(Compact { revision: 10, physical: true });
    write(&port, compact.clone()).await.unwrap();
    engine.wait_pruned().await.unwrap();
    assert_eq!(value_at(&port, "key", 9).await, Err(Refusal::Compacted));
    assert_eq!(value_at(&port, "key", 10).await.unwrap().as_deref(), Some("8"));
    assert_eq!(value_at(&port, "key", 22).await, Err(Refusal::FutureRevision));
    assert_eq!(write(&port, compact).await.unwrap_err(), Refusal::Compacted);
    engine.shutdown();
    let engine = open(directory.path());
    let port = engine.port();
    assert_eq!(value_at(&port, "key", 9).await, Err(Refusal::Compacted));
    assert_eq!(value_at(&port, "key", 10).await.unwrap().as_deref(), Some("8"));
    engine.shutdown();
}

#[tokio::test]
async fn an_expired_lease_takes_its_keys_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    let granted = write(&port, grant(7, 1)).await.unwrap();
    assert_eq!(granted.answer, Answer::LeaseGranted { id: LeaseId(7), ttl: 2 }, "raised to the minimum");
    write(&port, put_with_lease("mortal", "x", LeaseId(7))).await.unwrap();
    let kept = read(&port, Operation::LeaseKeepAlive(LeaseId(7))).await.unwrap();
    assert_eq!(kept.answer, Answer::LeaseKept { id: LeaseId(7), ttl: 2 });

    let mut watch = port.watch_session(keygate_core::KeyspaceId::DEFAULT);
    watch.create(watch_permit(&port, "mortal", 0), Box::new(|_| Ok(()))).unwrap();
    let update = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("it expires");
    let WatchUpdate::Events { events, .. } = update else { panic!("{update:?}") };
    assert!(events[0].deleted);
    assert_eq!(value_at(&port, "mortal", 0).await.unwrap(), None);
    let gone = read(&port, Operation::LeaseKeepAlive(LeaseId(7))).await.unwrap();
    assert_eq!(gone.answer, Answer::LeaseKept { id: LeaseId(7), ttl: 0 });
    engine.shutdown();
}

fn watch_permit(port: &keygate_engine::Port, key: &str, start_revision: i64) -> Permit<Sealed> {
    let request = WatchCreate {
        range: KeyRange::Single(bytes::Bytes::copy_from_slice(key.as_bytes())),
        start_revision,
        progress_notify: false,
        no_put: false,
        no_delete: false,
        prev_kv: true,
        fragment: false,
        watch_id: 0,
    };
    permit(port, Operation::Watch(request)).unwrap()
}

#[tokio::test]
async fn a_watch_sees_each_revision_once_from_any_kept_start_through_to_now() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    for n in 0..30 {
        write(&port, put("key", &n.to_string())).await.unwrap();
    }
    // Superseded values leave memory, so that history is read from the store.
    engine.wait_pruned().await.unwrap();
    let mut watch = port.watch_session(keygate_core::KeyspaceId::DEFAULT);
    watch.create(watch_permit(&port, "key", 5), Box::new(|_| Ok(()))).unwrap();
    let writer = {
        let port = port.clone();
        tokio::spawn(async move {
            for n in 30..60 {
                write(&port, put("key", &n.to_string())).await.unwrap();
            }
        })
    };
    let mut next = 5;
    while next < 62 {
        let update = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("events come");
        let WatchUpdate::Events { events, .. } = update else { panic!("{update:?}") };
        for event in events {
            assert_eq!(event.kv.mod_revision, next, "in order, none twice, none missing");
            let value = event.kv.value.clone().unwrap().open_clear().into_bytes();
            assert_eq!(value, (next - 2).to_string());
            let prev = event.prev.clone().unwrap().value.unwrap().open_clear().into_bytes();
            assert_eq!(prev, (next - 3).to_string());
            next += 1;
        }
    }
    writer.await.unwrap();
    engine.shutdown();
}

#[tokio::test]
async fn a_watch_of_compacted_history_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    for n in 0..10 {
        write(&port, put("key", &n.to_string())).await.unwrap();
    }
    write(&port, Operation::Compact(Compact { revision: 8, physical: false })).await.unwrap();
    let mut watch = port.watch_session(keygate_core::KeyspaceId::DEFAULT);
    let created = watch.create(watch_permit(&port, "key", 3), Box::new(|_| Ok(()))).unwrap();
    let update = watch.next().await;
    assert!(
        matches!(update, WatchUpdate::Compacted { watch_id, compact_revision: 8 } if watch_id == created.watch_id),
        "{update:?}"
    );
    engine.shutdown();
}

#[tokio::test]
async fn a_permit_that_policy_overtook_is_decided_again_where_it_is_applied() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    let root = || "root".to_owned();
    let [first, second] = ["first", "second"].map(|value| permit(&port, put("key", value)).unwrap());
    write(&port, Operation::RoleAdd { name: root() }).await.unwrap();
    // What changed says nothing about this one: auth is still off.
    port.propose(first).await.unwrap();
    let add = keygate_core::UserAdd { name: root(), credential: keygate_core::Credential::NoPassword };
    write(&port, Operation::UserAdd(add)).await.unwrap();
    write(&port, Operation::UserGrantRole { user: root(), role: root() }).await.unwrap();
    write(&port, Operation::AuthEnable).await.unwrap();
    assert_eq!(port.propose(second).await.unwrap_err(), Refusal::Anonymous);
    let view = port.view();
    let keyspace = view.keyspace(keygate_core::KeyspaceId::DEFAULT).unwrap();
    assert_eq!(keyspace.revision(), 2);
    engine.shutdown();
}

#[tokio::test]
async fn writes_beyond_the_space_quota_raise_the_alarm_and_deletes_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let tight = EngineOptions { quota_bytes: Some(1), ..options(directory.path()) };
    let engine = keygate_engine::Engine::open(tight, Arc::new(RootOnly)).unwrap();
    let port = engine.port();
    assert_eq!(write(&port, put("key", "x")).await.unwrap_err(), Refusal::NoSpace);
    let delete =
        Operation::DeleteRange(keygate_core::DeleteRange { range: KeyRange::everything(), prev_kv: false });
    write(&port, delete).await.unwrap();
    let status = read(&port, Operation::Status).await.unwrap();
    let Answer::Status(status) = status.answer else { panic!("status") };
    assert_eq!(status.alarms.len(), 1, "alarm NOSPACE is raised");
    engine.shutdown();
}
