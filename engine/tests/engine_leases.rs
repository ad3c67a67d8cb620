//! Leases across restarts: what a checkpoint writes down, and what a keepalive takes back. And their list.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use keygate_core::{Answer, KeyspaceId, LeaseId, LeaseTimeToLive, Operation};
use keygate_engine::{Clock, Engine, Port, Surroundings};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::*;

const LEASE: LeaseId = LeaseId(7);
const TTL: i64 = 75;

/// Stands still until it is told to go on.
struct Manual(Mutex<Instant>);

impl Manual {
    fn pass(&self, time: Duration) {
        *self.0.lock() += time;
    }
}

impl Clock for Manual {
    fn now(&self) -> Instant {
        *self.0.lock()
    }
}

fn open_at(directory: &Path, clock: &Arc<Manual>) -> Engine {
    let surroundings = Surroundings { clock: clock.clone(), ..Surroundings::default() };
    Engine::open_with(options(directory), Arc::new(RootOnly), surroundings).unwrap()
}

/// Seconds left of what the log has of the lease; 0: all of its ttl.
fn on_record(port: &Port) -> i64 {
    port.view().keyspace(KeyspaceId::DEFAULT).unwrap().lease(LEASE).unwrap().remaining
}

async fn seconds_left(port: &Port) -> i64 {
    let request = LeaseTimeToLive { id: LEASE, keys: false };
    match read(port, Operation::LeaseTimeToLive(request)).await.unwrap().answer {
        Answer::Lease(lease) => lease.ttl,
        other => panic!("{other:?}"),
    }
}

async fn keep_alive(port: &Port) -> Answer<keygate_core::Sealed> {
    read(port, Operation::LeaseKeepAlive(LEASE)).await.unwrap().answer
}

/// A lease of 75 s of which 60 have passed: a checkpoint of the 15 that are left is on record.
async fn behind_a_checkpoint(directory: &Path, clock: &Arc<Manual>) -> (Engine, Port) {
    let engine = open_at(directory, clock);
    let port = engine.port();
    write(&port, grant(LEASE.0, TTL)).await.unwrap();
    clock.pass(Duration::from_secs(60));
    let written = async {
        while on_record(&port) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.expect("a checkpoint is written");
    assert_eq!(on_record(&port), 15);
    (engine, port)
}

/// A keepalive was answered with 75 s, and after a restart the lease had the 15 s of the checkpoint before it.
#[tokio::test]
async fn an_acknowledged_keepalive_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Manual(Mutex::new(Instant::now())));
    let (engine, port) = behind_a_checkpoint(directory.path(), &clock).await;
    assert_eq!(keep_alive(&port).await, Answer::LeaseKept { id: LEASE, ttl: TTL });
    assert_eq!(on_record(&port), 0, "cleared in the log when it is answered, whatever comes next");
    engine.shutdown();

    let engine = open_at(directory.path(), &clock);
    let port = engine.port();
    assert_eq!(seconds_left(&port).await, TTL);
    clock.pass(Duration::from_secs(16));
    assert_eq!(keep_alive(&port).await, Answer::LeaseKept { id: LEASE, ttl: TTL });
    engine.shutdown();
}

#[tokio::test]
async fn without_a_keepalive_a_restart_keeps_the_checkpoint_and_the_first_keepalive_behind_it_clears_it() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Manual(Mutex::new(Instant::now())));
    let (engine, _) = behind_a_checkpoint(directory.path(), &clock).await;
    engine.shutdown();
    let engine = open_at(directory.path(), &clock);
    let port = engine.port();
    assert_eq!((seconds_left(&port).await, on_record(&port)), (15, 15));
    assert_eq!(keep_alive(&port).await, Answer::LeaseKept { id: LEASE, ttl: TTL });
    assert_eq!((seconds_left(&port).await, on_record(&port)), (TTL, 0));
    engine.shutdown();
}

#[tokio::test]
async fn only_the_first_keepalive_behind_a_checkpoint_is_an_entry_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Manual(Mutex::new(Instant::now())));
    let (engine, port) = behind_a_checkpoint(directory.path(), &clock).await;
    let before = port.view().applied_index();
    keep_alive(&port).await;
    assert_eq!(port.view().applied_index(), before + 1);
    for _ in 0..20 {
        assert_eq!(keep_alive(&port).await, Answer::LeaseKept { id: LEASE, ttl: TTL });
    }
    assert_eq!(port.view().applied_index(), before + 1);
    engine.shutdown();
}

/// More than a serving thread lists by itself.
#[tokio::test]
async fn leases_are_listed_by_their_ends_however_many_there_are() {
    const MANY: i64 = 10_100;
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(Manual(Mutex::new(Instant::now())));
    let engine = open_at(directory.path(), &clock);
    let port = engine.port();
    let listed = async || match read(&port, Operation::LeaseLeases).await.unwrap().answer {
        Answer::Leases(leases) => leases,
        other => panic!("{other:?}"),
    };
    let ids = |from: i64, to: i64| (from..=to).rev().map(LeaseId).collect::<Vec<_>>();
    for (first, last) in [(1, 100), (101, MANY)] {
        // The higher the id, the sooner it ends.
        let ids_of_all: Vec<i64> = (first..=last).collect();
        // Fewer at a time than may wait.
        for some in ids_of_all.chunks(1_000) {
            let mut grants = tokio::task::JoinSet::new();
            for id in some.iter().copied() {
                let port = port.clone();
                grants.spawn(async move { write(&port, grant(id, 1000 + MANY - id)).await.unwrap() });
            }
            grants.join_all().await;
        }
        assert_eq!(listed().await, ids(1, last));
    }
    engine.shutdown();
}
