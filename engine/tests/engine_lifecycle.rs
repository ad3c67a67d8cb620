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
    watch.create(watch_permit(&port, "mortal", 0), Box::new(always)).unwrap();
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
    watch.create(watch_permit(&port, "key", 5), Box::new(always)).unwrap();
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
    let created = watch.create(watch_permit(&port, "key", 3), Box::new(always)).unwrap();
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

/// A panic there once left a server that answered reads from a frozen view for ever and called itself healthy.
#[tokio::test]
async fn a_panic_of_the_applying_thread_is_the_end_of_the_engine() {
    struct Trap;
    impl keygate_core::Compile for Trap {
        fn compile(
            &self,
            keyspace: keygate_core::KeyspaceId,
            tables: &keygate_core::AuthTables,
            previous: Option<&Arc<dyn keygate_core::Policy>>,
        ) -> Arc<dyn keygate_core::Policy> {
            assert!(!tables.roles.contains_key("trap"), "the trap of the test");
            RootOnly.compile(keyspace, tables, previous)
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let engine = keygate_engine::Engine::open(options(directory.path()), Arc::new(Trap)).unwrap();
    let port = engine.port();
    write(&port, put("key", "v")).await.unwrap();
    let trapped = write(&port, Operation::RoleAdd { name: "trap".to_owned() }).await;
    assert_eq!(trapped.unwrap_err(), Refusal::Stopping);
    let cause = tokio::time::timeout(Duration::from_secs(10), engine.fatal()).await.expect("nobody was told");
    assert!(cause.contains("consensus thread has panicked"), "{cause}");
}

/// Makes the applying thread wait in a change of policy until it is told to go on.
struct Gate(Arc<(std::sync::Mutex<bool>, std::sync::Condvar)>);

impl keygate_core::Compile for Gate {
    fn compile(
        &self,
        keyspace: keygate_core::KeyspaceId,
        tables: &keygate_core::AuthTables,
        previous: Option<&Arc<dyn keygate_core::Policy>>,
    ) -> Arc<dyn keygate_core::Policy> {
        if tables.roles.contains_key("gate") {
            let (open, opened) = &*self.0;
            drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
        }
        RootOnly.compile(keyspace, tables, previous)
    }
}

/// One user with 1,450 puts of 1.5 MB behind slow writes once took 13 GB, and then the batch that held them all did not
/// fit into the log's own bound, which ended the server.
#[tokio::test]
async fn waiting_writes_are_bounded_by_their_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let gate = Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
    let compile = Arc::new(Gate(gate.clone()));
    let engine = keygate_engine::Engine::open(options(directory.path()), compile).unwrap();
    let port = engine.port();
    let held = tokio::spawn({
        let port = port.clone();
        async move { write(&port, Operation::RoleAdd { name: "gate".to_owned() }).await }
    });
    let value = "v".repeat(1_500_000);
    let waiting: Vec<_> = (0..150)
        .map(|n| {
            let (port, operation) = (port.clone(), put(&format!("key{n}"), &value));
            tokio::spawn(async move { write(&port, operation).await.map(drop) })
        })
        .collect();
    while engine.stats().proposals_pending < 80 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    held.await.unwrap().unwrap();
    let (mut written, mut refused) = (0, 0);
    for task in waiting {
        match task.await.unwrap() {
            Ok(()) => written += 1,
            Err(Refusal::TooManyRequests) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    // 128 MiB of them may wait; some were taken before the gate closed behind them.
    println!("{written} written, {refused} refused");
    assert!((85..=115).contains(&written) && refused == 150 - written, "{written} of 150 were written");
    engine.shutdown();
}

/// Refused under the alarm, it was never proposed again: its keys stayed, and its client was told that it is gone.
#[tokio::test]
async fn a_lease_that_ends_under_an_alarm_ends_when_the_alarm_is_over() {
    use keygate_core::{AlarmAction, AlarmKind, AlarmRequest, LeaseGrant};
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    let lease = LeaseId(5);
    write(&port, Operation::LeaseGrant(LeaseGrant { id: lease, ttl: 2 })).await.unwrap();
    write(&port, put_with_lease("key", "v", lease)).await.unwrap();
    let alarm = |action| Operation::Alarm(AlarmRequest { action, member: 1, alarm: AlarmKind::Corrupt });
    write(&port, alarm(AlarmAction::Activate)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(value_at(&port, "key", 0).await.unwrap().as_deref(), Some("v"));
    write(&port, alarm(AlarmAction::Deactivate)).await.unwrap();
    let gone = async {
        while value_at(&port, "key", 0).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the lease never ended");
    engine.shutdown();
}
