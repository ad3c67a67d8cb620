//! Quotas of a running engine: exact among many writers, and the same after a restart, from the store or from the log.

#![expect(clippy::unwrap_used, reason = "in a test, to panic is to fail")]

mod support;

use keygate_core::{
    Answer, Compact, DeleteRange, KeyRange, KeyspaceId, LimitChange, Operation, Permit, Put, PutLease,
    PutValue, QuotaInfo, QuotaOf, QuotaSet, Refusal, Sealed, Txn, TxnOp,
};
use keygate_engine::Port;
use support::*;

const WRITERS: usize = 64;
const LIMIT: u64 = 500;

/// Auth is off here, and quotas ask for it; who may set them is the gateway's to test.
fn trusted(operation: Operation<Sealed>) -> Permit<Sealed> {
    Permit::internal(keygate_core::InternalReason::Bootstrap, KeyspaceId::DEFAULT, operation)
}

async fn quotas(port: &Port, counted: bool) -> Vec<QuotaInfo> {
    let of = QuotaOf::Default;
    let operation = if counted { Operation::QuotaRecount(of) } else { Operation::QuotaShow(of) };
    match port.read(&port.view(), trusted(operation)).await.unwrap().answer {
        Answer::Quotas(quotas) => quotas,
        other => panic!("{other:?}"),
    }
}

async fn limit_keys(port: &Port, prefix: &'static str, keys: u64) {
    let set = QuotaSet {
        tenant: None,
        prefix: prefix.into(),
        keys: LimitChange::Set(keys),
        bytes: LimitChange::Keep,
        history: LimitChange::Keep,
        force: false,
    };
    port.propose(trusted(Operation::QuotaSet(set))).await.unwrap();
}

fn put_op(key: String) -> TxnOp<keygate_core::Plaintext> {
    let value = keygate_core::Plaintext::new(bytes::Bytes::from_static(b"value"));
    let lease = PutLease::Set(keygate_core::LeaseId::NONE);
    TxnOp::Put(Put { key: key.into(), value: PutValue::Set(value), lease, prev_kv: false })
}

/// One of many who write as much as they can: puts and nested txns of new keys, some of them deleted again.
async fn writer(port: Port, number: usize) -> (u64, u64) {
    let (mut written, mut refused) = (0, 0);
    for round in 0..60 {
        let key = format!("{}/{number}/{round}", if round % 2 == 0 { "even" } else { "odd" });
        let operation = match round % 5 {
            0 => {
                let inner = Txn { compare: vec![], success: vec![put_op(key)], failure: vec![] };
                Operation::Txn(Txn { compare: vec![], success: vec![TxnOp::Txn(inner)], failure: vec![] })
            }
            4 => {
                let gone = format!("even/{number}/{}", round - 2);
                let range = KeyRange::Single(gone.into());
                Operation::DeleteRange(DeleteRange { range, prev_kv: false })
            }
            _ => put(&key, "value"),
        };
        match write(&port, operation).await {
            Ok(_) => written += 1,
            Err(Refusal::QuotaReached(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    (written, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_get_exactly_as_many_keys_as_there_may_be() {
    for from_log in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path());
        let port = engine.port();
        limit_keys(&port, "", LIMIT).await;
        limit_keys(&port, "odd/", 100).await;
        let writers: Vec<_> =
            (0..WRITERS).map(|number| tokio::spawn(writer(engine.port(), number))).collect();
        let (mut written, mut refused) = (0, 0);
        for writer in writers {
            let (more, no) = writer.await.unwrap();
            (written, refused) = (written + more, refused + no);
        }
        println!("{WRITERS} writers: {written} written, {refused} refused");
        assert!(refused > 1_000 && written > LIMIT);
        // Whatever was deleted in between: fill up, and it is exact.
        for number in 0..=LIMIT {
            let outcome = write(&port, put(&format!("fill/{number}"), "v")).await;
            if matches!(outcome, Err(Refusal::QuotaReached(_))) {
                break;
            }
            outcome.unwrap();
        }
        let before = quotas(&port, true).await;
        assert_eq!((before[0].used.keys, before[1].used.keys), (LIMIT, 100));
        assert!(before[0].used.history > 0);
        for info in &before {
            assert_eq!(info.counted, Some(info.used));
        }
        engine.shutdown();

        if from_log {
            // As if it had never been written: everything is applied again.
            std::fs::remove_file(options(directory.path()).data_dir.join("member/store.redb")).unwrap();
        }
        let engine = open(directory.path());
        let port = engine.port();
        assert_eq!(quotas(&port, true).await, before, "after a restart, from the log: {from_log}");
        assert!(matches!(write(&port, put("one more", "")).await, Err(Refusal::QuotaReached(_))));
        let everything = DeleteRange { range: KeyRange::everything(), prev_kv: false };
        let reply = write(&port, Operation::DeleteRange(everything)).await.unwrap();
        let compact = Compact { revision: reply.revision, physical: true };
        write(&port, Operation::Compact(compact)).await.unwrap();
        for info in quotas(&port, true).await {
            assert_eq!((info.used, info.counted), (Default::default(), Some(Default::default())));
        }
        write(&port, put("one more", "")).await.unwrap();
        engine.shutdown();
    }
}
