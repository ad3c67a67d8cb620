//! Long walks through memory end when nobody waits for them any more.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mvcc_store;

use keygate_core::*;
use keygate_engine::mvcc::*;
use mvcc_store::*;

fn machine(keys: usize) -> Machine {
    let mut m = Machine::new();
    for n in 0..keys {
        m.put(&format!("key{n:05}"), "x");
    }
    m
}

fn compare_all() -> Txn<Sealed> {
    let compare =
        Compare { range: span("a", "z"), op: CompareOp::Greater, target: CompareTarget::Version(0) };
    Txn { compare: vec![compare], success: Vec::new(), failure: Vec::new() }
}

/// They went on to their end for each client that had sent a request and hung up.
#[test]
fn a_walk_that_nobody_waits_for_ends_early() {
    let m = machine(3_000);
    let all = Range::of(span("a", "z"));
    let counted = Range { count_only: true, ..all.clone() };
    let sorted =
        Range { sort_target: SortTarget::Mod, sort_order: SortOrder::Descend, limit: 1, ..all.clone() };
    for range in [all, counted, sorted] {
        assert_eq!(m.space().range(&range, &Sight::WHOLE, &m.store).unwrap().count, 3_000);
        assert_eq!(
            m.space().range(&range, &Sight::WHOLE, &Gone(&m.store)),
            Err(ReadError::Abandoned),
            "{range:?}"
        );
    }
    assert!(m.space().txn_read(&compare_all(), &m.store).unwrap().succeeded);
    assert_eq!(m.space().txn_read(&compare_all(), &Gone(&m.store)), Err(ReadError::Abandoned));
}

#[test]
fn a_short_walk_does_not_ask() {
    let m = machine(100);
    assert_eq!(
        m.space().range(&Range::of(span("a", "z")), &Sight::WHOLE, &Gone(&m.store)).unwrap().count,
        100
    );
}
