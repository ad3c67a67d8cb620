//! History in pieces: whole revisions, none of them much larger than asked for.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mvcc_store;

use keygate_core::*;
use keygate_engine::mvcc::*;
use mvcc_store::*;

const VALUE: usize = 1_000;
const NEWEST: i64 = 51;

/// A key of 50 large values, one for each revision. The last ones are not in the store yet.
fn machine() -> Machine {
    let mut m = Machine::new();
    for _ in 2..=NEWEST {
        m.put("large", &"v".repeat(VALUE));
        m.seal();
    }
    m.flush(7);
    m
}

/// (first revision, events) of each piece.
fn pieces(m: &Machine, range: &KeyRange, limits: HistoryLimits) -> Vec<(i64, Vec<StoredEvent>)> {
    let mut pieces = Vec::new();
    let mut next = 2;
    while next <= m.revision() {
        let piece = m.space().changes(next, m.revision(), range, &Sight::WHOLE, &m.store, &limits).unwrap();
        assert!(piece.next_revision > next, "there is progress");
        pieces.push((next, piece.events));
        next = piece.next_revision;
    }
    pieces
}

/// A thousand events of a megabyte each were one piece, and a gigabyte of memory.
#[test]
fn a_piece_ends_at_the_revision_that_reaches_the_limit_of_bytes() {
    let m = machine();
    let limits = HistoryLimits { bytes: 4 * VALUE, ..HistoryLimits::NONE };
    let pieces = pieces(&m, &single("large"), limits);
    let lengths: Vec<_> = pieces.iter().map(|(_, events)| events.len()).collect();
    assert_eq!(lengths, [vec![4; 12], vec![2]].concat());
    let seen: Vec<i64> =
        pieces.iter().flat_map(|(_, events)| events).map(|event| event.kv.mod_revision).collect();
    assert_eq!(seen, (2..=NEWEST).collect::<Vec<_>>(), "each once, in order");
}

#[test]
fn a_revision_is_never_cut_however_large_it_is() {
    let mut m = machine();
    let ops = (0..10).map(|n| match put(&format!("key{n}"), &"v".repeat(VALUE)) {
        Operation::Put(put) => TxnOp::Put(put),
        other => panic!("{other:?}"),
    });
    m.run(Operation::Txn(Txn { compare: Vec::new(), success: ops.collect(), failure: Vec::new() })).unwrap();
    m.flush(0);
    for limits in [
        HistoryLimits { bytes: 0, ..HistoryLimits::NONE },
        HistoryLimits { events: 0, ..HistoryLimits::NONE },
        HistoryLimits { scanned: 0, ..HistoryLimits::NONE },
    ] {
        let pieces = pieces(&m, &KeyRange::everything(), limits);
        assert_eq!(pieces.len() as i64, NEWEST, "a piece for each revision: {limits:?}");
        assert_eq!(pieces.last().unwrap().1.len(), 10);
    }
}

/// One step of a watch of a key that nobody had written for long went through all of the history.
#[test]
fn a_look_that_finds_nothing_ends_too() {
    let m = machine();
    let limits = HistoryLimits { scanned: 10 * (VALUE + HistoryLimits::ROW), ..HistoryLimits::NONE };
    let pieces = pieces(&m, &single("nobody"), limits);
    assert!(pieces.iter().all(|(_, events)| events.is_empty()));
    assert!((4..=6).contains(&pieces.len()), "{} pieces of about ten revisions", pieces.len());
}
