//! Requests that go far through the index: who waits for them, and which are refused.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use bytes::Bytes;
use keygate_core::{
    Answer, Compare, CompareOp, CompareTarget, DeleteRange, KeyRange, Operation, Plaintext, Put, PutLease,
    PutValue, Range, Refusal, Reply, Sealed, Txn, TxnOp,
};
use keygate_engine::Port;
use std::sync::mpsc;
use support::*;

const KEYS: usize = 8_000;

/// All keys, but not in a way whose count is known.
fn all() -> KeyRange {
    KeyRange::Span { start: Bytes::from_static(b"a"), end: Bytes::from_static(b"z") }
}

fn count() -> TxnOp<Plaintext> {
    TxnOp::Range(Range { count_only: true, ..Range::of(all()) })
}

fn put_op(key: &str) -> TxnOp<Plaintext> {
    TxnOp::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: PutValue::Set(Plaintext::new(Bytes::from_static(b"x"))),
        lease: PutLease::Set(keygate_core::LeaseId::NONE),
        prev_kv: false,
    })
}

fn txn(success: Vec<TxnOp<Plaintext>>) -> Txn<Plaintext> {
    Txn { compare: Vec::new(), success, failure: Vec::new() }
}

fn compare() -> Compare<Plaintext> {
    Compare { range: all(), op: CompareOp::Greater, target: CompareTarget::Version(0) }
}

fn delete() -> TxnOp<Plaintext> {
    TxnOp::DeleteRange(DeleteRange { range: all(), prev_kv: false })
}

async fn write_keys(port: &Port) {
    for first in (0..KEYS).step_by(500) {
        let puts = (first..first + 500).map(|n| put_op(&format!("key{n:05}"))).collect();
        write(port, Operation::Txn(txn(puts))).await.unwrap();
    }
}

fn with_one_blocking_thread(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(1).build().unwrap().block_on(test);
}

async fn read_at_once(port: &Port, txn: Txn<Plaintext>) -> Option<Reply<Sealed>> {
    tokio::select! {
        biased;
        reply = read(port, Operation::Txn(txn)) => Some(reply.unwrap()),
        () = std::future::ready(()) => None,
    }
}

/// A txn that only read was always run on the serving thread: 128 counts, and every neighbour there waited.
#[test]
fn a_long_txn_of_reads_does_not_run_on_the_serving_thread() {
    with_one_blocking_thread(async {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path());
        let port = engine.port();
        write_keys(&port).await;
        let (free, freed) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || freed.recv());
        let compares = Txn { compare: vec![compare(), compare()], ..txn(Vec::new()) };
        for long in [txn(vec![count(); 2]), Txn { failure: vec![count()], ..txn(vec![count()]) }, compares] {
            assert!(read_at_once(&port, long).await.is_none(), "it waits for the other thread");
        }
        let everything = Range { count_only: true, ..Range::of(KeyRange::everything()) };
        for short in [txn(vec![count()]), txn(vec![TxnOp::Range(everything); 128])] {
            let reply = read_at_once(&port, short).await.expect("memory answers at once");
            let Answer::Txn(answer) = reply.answer else { panic!("a txn is answered by a txn") };
            assert!(matches!(&answer.responses[0], Answer::Range(found) if found.count == KEYS as i64));
        }
        drop(free);
        let reply = read(&port, Operation::Txn(txn(vec![count(); 128]))).await.unwrap();
        let Answer::Txn(answer) = reply.answer else { panic!("a txn is answered by a txn") };
        assert_eq!(answer.responses.len(), 128);
        engine.shutdown();
    });
}

/// Forty txns of 128 counts beside a put stopped all writes for a minute.
#[tokio::test]
async fn a_txn_that_writes_may_not_walk_absurdly_far() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    let port = engine.port();
    write_keys(&port).await;
    let with_put = |mut ops: Vec<_>| {
        ops.push(put_op("other"));
        txn(ops)
    };
    // 8,000 keys: a million entries are 125 walks over all of them.
    let nested = (0..127).map(|_| TxnOp::Txn(txn(vec![count()]))).collect();
    let absurd = [
        with_put(vec![count(); 127]),
        with_put(nested),
        Txn { failure: vec![count(); 64], ..with_put(vec![count(); 63]) },
        Txn { compare: vec![compare(); 126], ..with_put(Vec::new()) },
        txn(vec![delete(); 127]),
    ];
    for txn in absurd {
        let revision = port.view().keyspace(keygate_core::KeyspaceId::DEFAULT).unwrap().revision();
        assert_eq!(write(&port, Operation::Txn(txn)).await.unwrap_err(), Refusal::TooManyOperations);
        assert_eq!(port.view().keyspace(keygate_core::KeyspaceId::DEFAULT).unwrap().revision(), revision);
    }
    let long = Txn { compare: vec![compare(); 3], ..with_put(vec![count(); 100]) };
    let reply = write(&port, Operation::Txn(long)).await.unwrap();
    assert!(matches!(reply.answer, Answer::Txn(answer) if answer.succeeded), "what is only long is done");
    let reply = write(&port, Operation::Txn(txn(vec![delete(), put_op("new")]))).await;
    assert!(reply.is_ok(), "and so is what concerns everything");
    engine.shutdown();
}
