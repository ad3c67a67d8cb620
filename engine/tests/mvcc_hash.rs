//! `HashKV` gives what etcd 3.7.1 gave for the same story; the numbers were read from a running one.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mvcc_store;

use keygate_core::*;
use keygate_engine::mvcc::*;
use mvcc_store::*;

fn hash(m: &Machine, revision: i64) -> (u32, i64, i64) {
    let answer = hash_kv(m.space(), revision, &m.store).unwrap();
    (answer.hash, answer.compact_revision, answer.hash_revision)
}

/// Runs the story with everything pending, with everything in the store, and with prunings at different times.
#[test]
fn hashes_equal_etcds_whether_rows_are_pending_stored_or_pruned() {
    for (flush, prune) in [(false, false), (true, false), (true, true), (false, true)] {
        let mut m = Machine::new();
        let settle = |m: &mut Machine| {
            if prune {
                m.prune_all();
            }
            m.seal();
            if flush {
                m.flush(0);
            }
        };
        assert_eq!(hash(&m, 0), (1_084_519_789, -1, 1));
        m.put("zz", "1");
        m.run(grant(55, 100)).unwrap();
        m.put("a", "3");
        m.put("b", "1");
        m.put("b", "1");
        m.run(put_leased("c", "2", 55)).unwrap();
        for _ in 0..3 {
            m.put("d", "0");
        }
        m.run(Operation::Txn(txn(vec![TxnOp::Put(put_of("e", "1"))]))).unwrap();
        settle(&mut m);
        assert_eq!(hash(&m, 0), (2_688_421_000, -1, 10));
        m.delete("b");
        settle(&mut m);
        assert_eq!(hash(&m, 0), (3_402_467_017, -1, 11));
        assert_eq!(hash(&m, 5), (990_700_691, -1, 5));
        m.run(compact(6)).unwrap();
        settle(&mut m);
        assert_eq!(hash(&m, 0), (948_522_360, 6, 11));
        assert_eq!(hash(&m, 8), (2_750_401_825, 6, 8));
        assert_eq!(hash(&m, 7), (828_003_515, 6, 7));
        assert_eq!(hash_kv(m.space(), 5, &m.store), Err(Refusal::Compacted.into()));
        assert_eq!(hash_kv(m.space(), 12, &m.store), Err(Refusal::FutureRevision.into()));
        m.run(revoke(55)).unwrap();
        settle(&mut m);
        assert_eq!(hash(&m, 0), (119_739_408, 6, 12));
        m.run(compact(12)).unwrap();
        settle(&mut m);
        assert_eq!(hash(&m, 0), (2_484_703_898, 12, 12));
    }
}
