//! What a request touches, told twice: by `Operation::accesses` and by a walker that shares nothing
//! with it. Requests are random, txns nested to a depth of eight.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod generated;

use bytes::Bytes;
use generated::Generator;
use keygate_core::{
    Access, Compare, CompareOp, CompareTarget, DeleteRange, KeyRange, LeaseGrant, LeaseId, LeaseRevoke,
    LeaseTimeToLive, Operation, Plaintext, Put, PutLease, PutValue, Range, Txn, TxnOp, WatchCreate,
};
use rand::Rng;
use std::collections::BTreeSet;

const REQUESTS: usize = 50_000;
const DEPTH: usize = 8;

#[test]
fn every_access_of_a_nested_request_is_found() {
    let mut generator = Generator::new(3);
    let (mut deepest, mut accesses) = (0, 0);
    for round in 0..REQUESTS {
        if round % 50 == 0 {
            generator.renew_keys();
        }
        let operation = operation(&mut generator);
        let mut found = BTreeSet::new();
        operation.accesses(&mut |access| {
            found.insert(tell(&access));
        });
        let expected = walk(&operation);
        assert_eq!(found, expected, "{operation:?}");
        accesses += found.len();
        deepest = deepest.max(depth(&operation));
    }
    println!("requests={REQUESTS} accesses={accesses} deepest={deepest}");
    assert_eq!(deepest, DEPTH);
    assert!(accesses >= REQUESTS * 2);
}

fn tell(access: &Access) -> String {
    match access {
        Access::Keys { action, range } => fact(&format!("{action:?}"), range),
        other => format!("{other:?}"),
    }
}

fn fact(action: &str, range: &KeyRange) -> String {
    format!("{action} {:?} {:?}", range.start(), range.wire_end())
}

/// Iterative, over a pile of txns; writes down what etcd's rules ask for each thing it meets.
fn walk(operation: &Operation<Plaintext>) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    let mut pile: Vec<&Txn<Plaintext>> = Vec::new();
    let mut leaves: Vec<TxnOp<Plaintext>> = Vec::new();
    match operation {
        Operation::Txn(txn) => pile.push(txn),
        Operation::Put(put) => leaves.push(TxnOp::Put(put.clone())),
        Operation::DeleteRange(delete) => leaves.push(TxnOp::DeleteRange(delete.clone())),
        Operation::Range(range) | Operation::RangeStream(range) => leaves.push(TxnOp::Range(range.clone())),
        Operation::Watch(watch) => leaves.push(TxnOp::Range(Range::of(watch.range.clone()))),
        Operation::LeaseGrant(_) => drop(facts.insert("Authenticated".to_owned())),
        Operation::LeaseRevoke(LeaseRevoke { id }) | Operation::LeaseKeepAlive(id) => {
            facts.insert("Authenticated".to_owned());
            facts.insert(format!("KeysOfLease {{ action: Write, lease: LeaseId({}) }}", id.0));
        }
        Operation::LeaseTimeToLive(asked) => {
            facts.insert("Authenticated".to_owned());
            if asked.keys {
                facts.insert(format!("KeysOfLease {{ action: Read, lease: LeaseId({}) }}", asked.id.0));
            }
        }
        other => panic!("not generated: {other:?}"),
    }
    while let Some(txn) = pile.pop() {
        facts.insert("Authenticated".to_owned());
        for compare in &txn.compare {
            facts.insert(fact("Read", &compare.range));
        }
        for branch in [&txn.failure, &txn.success] {
            for op in branch {
                if let TxnOp::Txn(inner) = op { pile.push(inner) } else { leaves.push(op.clone()) }
            }
        }
    }
    for leaf in leaves {
        let (reads, writes, lease) = match &leaf {
            TxnOp::Range(range) => (Some(range.range.clone()), None, None),
            TxnOp::DeleteRange(delete) => {
                (delete.prev_kv.then(|| delete.range.clone()), Some(delete.range.clone()), None)
            }
            TxnOp::Put(put) => {
                let key = KeyRange::from_wire(put.key.clone(), Bytes::new());
                let lease = if let PutLease::Set(LeaseId(id @ 1..)) = put.lease { Some(id) } else { None };
                (put.prev_kv.then(|| key.clone()), Some(key), lease)
            }
            TxnOp::Txn(_) => unreachable!("txns went to the pile"),
        };
        facts.extend(reads.map(|range| fact("Read", &range)));
        facts.extend(writes.map(|range| fact("Write", &range)));
        facts.extend(lease.map(|id| format!("KeysOfLease {{ action: Write, lease: LeaseId({id}) }}")));
    }
    facts
}

fn depth(operation: &Operation<Plaintext>) -> usize {
    fn of(txn: &Txn<Plaintext>) -> usize {
        let ops = txn.success.iter().chain(&txn.failure);
        1 + ops.map(|op| if let TxnOp::Txn(inner) = op { of(inner) } else { 0 }).max().unwrap_or(0)
    }
    if let Operation::Txn(txn) = operation { of(txn) } else { 0 }
}

fn operation(generator: &mut Generator) -> Operation<Plaintext> {
    let id = lease(generator);
    match generator.rng.random_range(0..12) {
        0 => Operation::Range(Range::of(generator.range())),
        1 => Operation::RangeStream(Range::of(generator.range())),
        2 => Operation::Put(put(generator)),
        3 => Operation::DeleteRange(delete(generator)),
        4 => Operation::Watch(WatchCreate {
            range: generator.range(),
            start_revision: 0,
            progress_notify: false,
            no_put: false,
            no_delete: false,
            prev_kv: generator.rng.random(),
            fragment: false,
            watch_id: 0,
        }),
        5 => Operation::LeaseGrant(LeaseGrant { id, ttl: 1 }),
        6 => Operation::LeaseRevoke(LeaseRevoke { id }),
        7 => Operation::LeaseTimeToLive(LeaseTimeToLive { id, keys: generator.rng.random() }),
        8 => Operation::LeaseKeepAlive(id),
        _ => {
            let depth = generator.rng.random_range(1..=DEPTH);
            Operation::Txn(txn(generator, depth))
        }
    }
}

/// `depth` levels along one path; side branches are shallow.
fn txn(generator: &mut Generator, depth: usize) -> Txn<Plaintext> {
    let compare = (0..generator.rng.random_range(0..3)).map(|_| compare(generator)).collect();
    let mut branches = [ops(generator), ops(generator)];
    if depth > 1 {
        let side = generator.rng.random_range(0..2);
        let inner = TxnOp::Txn(txn(generator, depth - 1));
        let place = generator.rng.random_range(0..=branches[side].len());
        branches[side].insert(place, inner);
    }
    let [success, failure] = branches;
    Txn { compare, success, failure }
}

fn ops(generator: &mut Generator) -> Vec<TxnOp<Plaintext>> {
    (0..generator.rng.random_range(0..3))
        .map(|_| match generator.rng.random_range(0..3) {
            0 => TxnOp::Range(Range::of(generator.range())),
            1 => TxnOp::Put(put(generator)),
            _ => TxnOp::DeleteRange(delete(generator)),
        })
        .collect()
}

fn put(generator: &mut Generator) -> Put<Plaintext> {
    let leases = [PutLease::Keep, PutLease::Set(LeaseId::NONE), PutLease::Set(lease(generator))];
    Put {
        key: generator.key(),
        value: PutValue::Keep,
        lease: leases[generator.rng.random_range(0..3)],
        prev_kv: generator.rng.random(),
    }
}

fn delete(generator: &mut Generator) -> DeleteRange {
    DeleteRange { range: generator.range(), prev_kv: generator.rng.random() }
}

fn compare(generator: &mut Generator) -> Compare<Plaintext> {
    Compare { range: generator.range(), op: CompareOp::Equal, target: CompareTarget::Version(1) }
}

fn lease(generator: &mut Generator) -> LeaseId {
    LeaseId(generator.rng.random_range(1..5))
}
