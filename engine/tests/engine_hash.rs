//! Digests of the store: what asking for many of them costs.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use keygate_core::{Operation, Reply};
use std::time::Duration;
use support::*;

/// Threads of this process that make a digest.
fn hashing() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "hash").count()
}

/// Each asked for one, left, and asked again: every time a thread went on that read the whole store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_and_asks_again_makes_one_digest_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    for number in 0..200 {
        write(&port, put(&format!("k{number}"), &"v".repeat(64 << 10))).await.unwrap();
    }
    let (mut most, mut seen) = (0, 0);
    for _ in 0..40 {
        let asked = (0..8).map(|_| {
            let port = port.clone();
            tokio::spawn(async move { read(&port, Operation::Hash).await })
        });
        let asked: Vec<_> = asked.collect();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let now = hashing();
            most = most.max(now);
            seen += usize::from(now > 0);
        }
        asked.iter().for_each(tokio::task::JoinHandle::abort);
    }
    assert!(seen > 0, "nothing was hashed");
    // One that is done may not have ended yet. There were 241.
    assert!(most <= 2, "{most} digests at once");
    // Those who stay are answered, one after the other and alike.
    let (first, second) = tokio::join!(read(&port, Operation::Hash), read(&port, Operation::Hash));
    let hash = |reply| match reply {
        Ok(Reply { answer: keygate_core::Answer::Hash { hash }, .. }) => hash,
        other => panic!("{other:?}"),
    };
    assert_eq!(hash(first), hash(second));
    engine.shutdown();
}
