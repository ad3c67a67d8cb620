//! What etcd promises about keys, txns, compaction, leases and alarms, rule by rule. Where a rule is surprising it was
//! seen at etcd 3.7.1.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mvcc_store;

use keygate_core::*;
use keygate_engine::mvcc::*;
use mvcc_store::*;
use std::sync::Arc;

fn seeded() -> Machine {
    // a@2, b@3, b@4, c@5 with lease 55, d@6, d@7, d@8
    let mut m = Machine::new();
    m.run(grant(55, 100)).unwrap();
    m.put("a", "3");
    m.put("b", "1");
    m.put("b", "1");
    m.run(put_leased("c", "2", 55)).unwrap();
    for _ in 0..3 {
        m.put("d", "0");
    }
    m
}

fn keys(answer: &RangeAnswer<Sealed>) -> String {
    answer.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}

#[test]
fn a_new_keyspace_is_at_revision_1_and_never_compacted() {
    let m = Machine::new();
    assert_eq!((m.revision(), m.space().compact_revision(), m.space().key_count()), (1, -1, 0));
}

#[test]
fn versions_count_from_creation_and_start_again_after_a_deletion() {
    let mut m = seeded();
    let kv = m.get("d").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (6, 8, 3));
    assert_eq!((m.delete("d"), m.delete("d"), m.revision()), (1, 0, 9));
    assert_eq!(m.get("d"), None);
    m.put("d", "x");
    let kv = m.get("d").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (10, 10, 1));
}

#[test]
fn ranges_by_key_end_limit_and_count() {
    let m = seeded();
    let ask = |range: KeyRange, limit: i64| {
        let answer = m.range(&Range { limit, ..Range::of(range) }).unwrap();
        (keys(&answer), answer.more, answer.count)
    };
    let all = KeyRange::everything;
    assert_eq!(ask(all(), 0), ("abcd".into(), false, 4));
    assert_eq!(ask(all(), -5), ("abcd".into(), false, 4));
    assert_eq!(ask(all(), 2), ("ab".into(), true, 4));
    assert_eq!(ask(all(), 4), ("abcd".into(), false, 4));
    assert_eq!(ask(span("b", "d"), 1), ("b".into(), true, 2));
    assert_eq!(ask(span("d", "b"), 0), (String::new(), false, 0));
    assert_eq!(ask(span("b", "b"), 0), (String::new(), false, 0));
    assert_eq!(ask(KeyRange::From(bytes("c")), 0), ("cd".into(), false, 2));
    assert_eq!(ask(single("b"), 0), ("b".into(), false, 1));
    assert_eq!(ask(single("x"), 0), (String::new(), false, 0));
}

#[test]
fn an_order_comes_before_the_limit_and_is_stable_over_key_order() {
    let m = seeded();
    let ask = |sort_target, sort_order, limit| {
        let range = Range { sort_target, sort_order, limit, ..Range::of(KeyRange::everything()) };
        let answer = m.range(&range).unwrap();
        (keys(&answer), answer.more)
    };
    use SortOrder::*;
    assert_eq!(ask(SortTarget::Version, None, 2), ("ac".into(), true));
    assert_eq!(ask(SortTarget::Version, Ascend, 0), ("acbd".into(), false));
    assert_eq!(ask(SortTarget::Version, Descend, 0), ("dbac".into(), false));
    // A target without an order sorts what the limit, and one more, has left of the key order.
    assert_eq!(ask(SortTarget::Value, None, 2), ("bc".into(), true));
    assert_eq!(ask(SortTarget::Value, Ascend, 2), ("db".into(), true));
    assert_eq!(ask(SortTarget::Value, Descend, 0), ("acbd".into(), false));
    assert_eq!(ask(SortTarget::Create, Descend, 3), ("dcb".into(), true));
    assert_eq!(ask(SortTarget::Mod, Ascend, 0), ("abcd".into(), false));
    assert_eq!(ask(SortTarget::Key, Descend, 1), ("d".into(), true));
    assert_eq!(ask(SortTarget::Key, Ascend, 2), ("ab".into(), true));
}

#[test]
fn filters_come_before_the_limit_and_do_not_lessen_the_count() {
    let m = seeded();
    let all = Range::of(KeyRange::everything());
    let ask = |range: Range| {
        let answer = m.range(&range).unwrap();
        (keys(&answer), answer.more, answer.count)
    };
    assert_eq!(ask(Range { min_mod_revision: 4, limit: 1, ..all.clone() }), ("b".into(), true, 4));
    assert_eq!(ask(Range { max_mod_revision: 4, ..all.clone() }), ("ab".into(), false, 4));
    assert_eq!(ask(Range { min_create_revision: 5, ..all.clone() }), ("cd".into(), false, 4));
    assert_eq!(ask(Range { max_create_revision: 3, ..all.clone() }), ("ab".into(), false, 4));
    assert_eq!(
        ask(Range { count_only: true, limit: 1, min_mod_revision: 4, ..all }),
        (String::new(), false, 4)
    );
}

#[test]
fn keys_only_tells_no_lease_unless_sorted_by_value() {
    let m = seeded();
    let only = Range { keys_only: true, ..Range::of(single("c")) };
    let kv = m.range(&only).unwrap().kvs.remove(0);
    assert_eq!((kv.lease, kv.value.is_none(), kv.mod_revision), (LeaseId::NONE, true, 5));
    let sorted = Range { sort_target: SortTarget::Value, ..only };
    let kv = m.range(&sorted).unwrap().kvs.remove(0);
    assert_eq!((kv.lease, kv.value.is_none()), (LeaseId(55), true));
    assert_eq!(m.get("c").unwrap().lease, LeaseId(55));
}

#[test]
fn revisions_that_can_be_read() {
    let mut m = seeded();
    m.delete("a");
    m.run(compact(5)).unwrap();
    let ask = |m: &Machine, revision| m.range(&Range { revision, ..Range::of(KeyRange::everything()) });
    for pruned in [false, true] {
        assert_eq!(ask(&m, 4), Err(Refusal::Compacted.into()));
        assert_eq!(keys(&ask(&m, 5).unwrap()), "abc");
        assert_eq!(keys(&ask(&m, 8).unwrap()), "abcd");
        assert_eq!(keys(&ask(&m, 9).unwrap()), "bcd");
        assert_eq!(keys(&ask(&m, 0).unwrap()), "bcd");
        assert_eq!(keys(&ask(&m, -1).unwrap()), "bcd");
        assert_eq!(ask(&m, 10), Err(Refusal::FutureRevision.into()));
        if !pruned {
            m.prune_all();
            m.flush(0);
        }
    }
}

#[test]
fn compaction_goes_forward_and_not_beyond_the_present() {
    let mut m = seeded();
    let cases = [(-1, Err(Refusal::Compacted)), (9, Err(Refusal::FutureRevision)), (4, Ok(Answer::Done))];
    for (revision, outcome) in cases {
        assert_eq!(m.run(compact(revision)), outcome, "{revision}");
    }
    assert_eq!(m.run(compact(4)), Err(Refusal::Compacted));
    assert_eq!(m.run(compact(8)), Ok(Answer::Done));
    assert_eq!(m.effects.compactions.len(), 2);
    assert!(m.state.is_pruning(KeyspaceId::DEFAULT));
    m.prune_all();
    m.flush(0);
    assert!(!m.state.is_pruning(KeyspaceId::DEFAULT));
    let left: Vec<i64> = m.store.rows.keys().map(|key| key.revision.main).collect();
    assert_eq!(left, [2, 4, 5, 8], "one row for each key");
}

#[test]
fn a_compaction_during_a_walk_reaches_the_keys_behind_the_walk_too() {
    let mut m = seeded();
    m.run(compact(3)).unwrap();
    assert!(m.prune(3));
    m.run(compact(8)).unwrap();
    m.prune_all();
    m.flush(0);
    assert_eq!(m.store.rows.len(), 4);
}

#[test]
fn a_deleted_key_leaves_index_and_store_with_the_compaction() {
    let mut m = seeded();
    m.delete("d");
    m.run(compact(9)).unwrap();
    m.prune_all();
    m.flush(0);
    assert_eq!(m.store.rows.len(), 3);
    m.reload(u64::MAX);
    assert_eq!((m.revision(), m.space().compact_revision(), m.space().key_count()), (9, 9, 3));
}

#[test]
fn put_keeps_what_it_is_told_to_keep() {
    let mut m = seeded();
    let keep_value = |key: &str, lease| {
        Operation::Put(Put { value: PutValue::Keep, lease: PutLease::Set(LeaseId(lease)), ..put_of(key, "") })
    };
    let keep_lease = |key: &str| Operation::Put(Put { lease: PutLease::Keep, ..put_of(key, "new") });
    assert_eq!(m.run(keep_value("x", 0)), Err(Refusal::KeyNotFound));
    assert_eq!(m.run(keep_lease("x")), Err(Refusal::KeyNotFound));
    assert_eq!(m.run(keep_value("x", 77)), Err(Refusal::LeaseNotFound), "the lease is looked at first");
    let nested = txn(vec![TxnOp::Txn(txn(vec![TxnOp::Put(Put {
        value: PutValue::Keep,
        lease: PutLease::Set(LeaseId(77)),
        ..put_of("x", "")
    })]))]);
    assert_eq!(m.run(Operation::Txn(nested)), Err(Refusal::LeaseNotFound));

    m.run(keep_lease("c")).unwrap();
    let kv = m.get("c").unwrap();
    assert_eq!((text(&kv), kv.lease, kv.version), ("new".into(), LeaseId(55), 2));
    m.run(keep_value("c", 0)).unwrap();
    let kv = m.get("c").unwrap();
    assert_eq!((text(&kv), kv.lease, kv.version), ("new".into(), LeaseId::NONE, 3));
    assert!(m.space().lease(LeaseId(55)).unwrap().keys.is_empty());
}

#[test]
fn previous_versions_are_answered_when_asked_for() {
    let mut m = seeded();
    let again = Operation::Put(Put { prev_kv: true, ..put_of("b", "9") });
    let Ok(Answer::Put { prev: Some(prev) }) = m.run(again) else { panic!() };
    assert_eq!((text(&prev), prev.mod_revision, prev.version), ("1".into(), 4, 2));
    let new = Operation::Put(Put { prev_kv: true, ..put_of("n", "9") });
    assert_eq!(m.run(new), Ok(Answer::Put { prev: None }));
    let gone = Operation::DeleteRange(DeleteRange { range: KeyRange::From(bytes("c")), prev_kv: true });
    let Ok(Answer::Delete { deleted: 3, prev }) = m.run(gone) else { panic!() };
    assert_eq!(prev.iter().map(text).collect::<String>(), "209");
}

#[test]
fn deletions_of_one_request_share_a_revision_in_key_order() {
    let mut m = seeded();
    m.events.clear();
    m.run(delete(KeyRange::everything())).unwrap();
    let told: Vec<_> = m
        .events
        .iter()
        .map(|e| (e.kv.key.as_ref(), e.kv.mod_revision, e.sub, e.deleted, e.prev.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            (&b"a"[..], 9, 0, true, true),
            (b"b", 9, 1, true, true),
            (b"c", 9, 2, true, true),
            (b"d", 9, 3, true, true)
        ]
    );
    assert!(m.events.iter().all(|e| e.kv.value.is_none() && e.kv.create_revision == 0));
}

#[test]
fn compares() {
    use CompareOp::*;
    use CompareTarget::*;
    let mut m = seeded();
    let cases = [
        (single("d"), Equal, Version(3), true),
        (single("d"), Less, Version(3), false),
        (single("d"), Greater, Create(5), true),
        (single("d"), NotEqual, Mod(8), false),
        (single("c"), Equal, Lease(55), true),
        (single("d"), Equal, Value(value("0")), true),
        (single("d"), Less, Value(value("00")), true),
        (single("d"), Greater, Value(value("")), true),
        // What is missing compares as zeros, but its value compares with nothing.
        (single("x"), Equal, Version(0), true),
        (single("x"), Less, Create(1), true),
        (single("x"), Equal, Value(value("")), false),
        (single("x"), NotEqual, Value(value("y")), false),
        // A range must hold for each key; an empty one is like a missing key.
        (KeyRange::everything(), Greater, Mod(1), true),
        (KeyRange::everything(), Greater, Mod(2), false),
        (span("x", "y"), Equal, Mod(0), true),
        (span("y", "x"), NotEqual, Value(value("y")), false),
    ];
    for (range, op, target, holds) in cases {
        let name = format!("{range:?} {op:?} {target:?}");
        let asked = Txn { compare: vec![compare(range, op, target)], success: vec![], failure: vec![] };
        assert_eq!(m.space().txn_read(&asked, &MemoryOnly).unwrap().succeeded, holds, "{name}");
        let Ok(Answer::Txn(answer)) = m.run(Operation::Txn(asked)) else { panic!() };
        assert_eq!(answer.succeeded, holds, "{name}");
    }
    assert_eq!(m.revision(), 8, "a txn without changes has no revision");
}

#[test]
fn a_txn_compares_the_state_before_and_reads_its_own_writes() {
    let mut m = seeded();
    let inner = Txn {
        // Still 3 here, though it is written before in the same txn.
        compare: vec![compare(single("d"), CompareOp::Equal, CompareTarget::Version(3))],
        success: vec![TxnOp::Range(Range::of(single("d")))],
        failure: vec![TxnOp::Put(put_of("wrong", ""))],
    };
    let ops = vec![
        TxnOp::Range(Range::of(single("d"))),
        TxnOp::Put(put_of("d", "new")),
        TxnOp::Range(Range::of(single("d"))),
        TxnOp::Range(Range { revision: 8, ..Range::of(single("d")) }),
        TxnOp::DeleteRange(DeleteRange { range: single("a"), prev_kv: false }),
        TxnOp::Txn(inner),
    ];
    let Ok(Answer::Txn(answer)) = m.run(Operation::Txn(txn(ops))) else { panic!() };
    let read = |answer: &Answer<Sealed>| match answer {
        Answer::Range(range) => text(&range.kvs[0]),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(&answer.responses[0]), "0");
    assert_eq!(read(&answer.responses[2]), "new");
    assert_eq!(read(&answer.responses[3]), "0");
    let Answer::Txn(inner) = &answer.responses[5] else { panic!() };
    assert_eq!((inner.succeeded, read(&inner.responses[0])), (true, "new".into()));
    assert_eq!(m.revision(), 9);
    let subs: Vec<_> = m.events.iter().rev().take(2).map(|e| (e.kv.mod_revision, e.sub)).collect();
    assert_eq!(subs, [(9, 1), (9, 0)]);
}

#[test]
fn a_txn_that_cannot_run_whole_does_not_run_at_all() {
    let mut m = seeded();
    m.run(compact(4)).unwrap();
    let range = |revision| TxnOp::Range(Range { revision, ..Range::of(single("a")) });
    let keep = Put { value: PutValue::Keep, ..put_of("x", "") };
    let leased = Put { lease: PutLease::Set(LeaseId(7)), ..put_of("x", "") };
    let cases = [
        (range(3), Refusal::Compacted),
        (range(-1), Refusal::Compacted),
        (range(9), Refusal::FutureRevision),
        (TxnOp::Put(keep), Refusal::KeyNotFound),
        (TxnOp::Put(leased), Refusal::LeaseNotFound),
    ];
    for (bad, refusal) in cases {
        let ops = vec![TxnOp::Put(put_of("new", "")), TxnOp::Txn(txn(vec![bad]))];
        assert_eq!(m.run(Operation::Txn(txn(ops))), Err(refusal));
    }
    assert_eq!((m.revision(), m.get("new")), (8, None));
    // Negative revisions are numbers in a txn that only reads, too.
    let read = |m: &Machine, revision| m.space().txn_read(&txn(vec![range(revision)]), &MemoryOnly);
    assert_eq!(read(&m, -1), Err(Refusal::Compacted.into()));
    let fresh = Machine::new();
    assert!(read(&fresh, -1).is_ok());
    assert_eq!(read(&fresh, -2), Err(Refusal::Compacted.into()));
}

#[test]
fn leases_are_granted_once_and_never_shorter_than_the_minimum() {
    let mut m = Machine::new();
    let granted = |id, ttl| Ok(Answer::LeaseGranted { id: LeaseId(id), ttl });
    assert_eq!(m.run(grant(1, 100)), granted(1, 100));
    assert_eq!(m.run(grant(1, 100)), Err(Refusal::LeaseExists));
    assert_eq!(m.run(grant(1, 9_000_000_001)), Err(Refusal::LeaseTtlTooLarge));
    assert_eq!(m.run(grant(2, -7)), granted(2, MIN_TTL));
    assert_eq!(m.run(grant(3, 9_000_000_000)), granted(3, 9_000_000_000));
    assert_eq!(m.run(grant(0, 5)), Err(Refusal::LeaseNotFound));
    assert_eq!(m.revision(), 1);
    assert_eq!(m.effects.leases.len(), 3);
}

#[test]
fn revoking_a_lease_deletes_its_keys_in_one_revision() {
    let mut m = seeded();
    m.run(put_leased("b", "x", 55)).unwrap();
    m.run(put_leased("z", "x", 55)).unwrap();
    m.put("z", "moved away");
    assert_eq!(m.run(revoke(55)), Ok(Answer::Done));
    assert_eq!(m.revision(), 12);
    assert_eq!(keys(&m.range(&Range::of(KeyRange::everything())).unwrap()), "adz");
    assert_eq!(m.run(revoke(55)), Err(Refusal::LeaseNotFound));
    m.run(grant(56, 9)).unwrap();
    m.run(revoke(56)).unwrap();
    assert_eq!(m.revision(), 12, "nothing was attached");
}

#[test]
fn expiry_skips_what_is_gone_and_takes_a_revision_for_each_lease() {
    let mut m = seeded();
    m.run(grant(56, 9)).unwrap();
    m.run(put_leased("e", "x", 56)).unwrap();
    m.run(Operation::LeaseExpire(vec![LeaseId(56), LeaseId(1), LeaseId(55), LeaseId(56)])).unwrap();
    assert_eq!((m.revision(), m.space().leases().count()), (11, 0));
    let gone: Vec<_> = m.events.iter().filter(|e| e.deleted).map(|e| e.kv.mod_revision).collect();
    assert_eq!(gone, [10, 11]);
}

#[test]
fn a_checkpoint_is_remembered_across_a_restart() {
    let mut m = seeded();
    m.run(Operation::LeaseCheckpoint(vec![(LeaseId(55), 42), (LeaseId(1), 9)])).unwrap();
    m.reload(u64::MAX);
    let lease = m.space().lease(LeaseId(55)).unwrap();
    assert_eq!((lease.ttl, lease.remaining, lease.keys.len()), (100, 42, 1));
}

#[test]
fn a_lease_generation_moves_with_the_set_of_keys_and_survives_a_restart() {
    let mut m = seeded();
    let generation = |m: &Machine| m.space().attached(LeaseId(55), &mut |_| true);
    let first = generation(&m);
    m.run(put_leased("c", "again", 55)).unwrap();
    assert_eq!(generation(&m), first, "the same key again is the same set");
    m.run(put_leased("e", "more", 55)).unwrap();
    let second = generation(&m);
    assert_ne!(second, first);
    m.reload(u64::MAX);
    assert_eq!(generation(&m), second);
    m.put("e", "detached");
    assert_ne!(generation(&m), second);
    m.run(revoke(55)).unwrap();
    assert_eq!(generation(&m), None);
}

/// Lets `alice` have the keys that begin with `a`.
struct AliceOnly(u64);

impl Policy for AliceOnly {
    fn fence(&self) -> Fence {
        Fence { platform: 0, keyspace: self.0 }
    }
    fn is_enabled(&self) -> bool {
        true
    }
    fn knows(&self, caller: &Caller) -> bool {
        caller.name() == Some("alice")
    }
    fn decide_keys(&self, _: &Caller, _: KeyAction, range: &KeyRange) -> Decision {
        match range {
            KeyRange::Single(key) if key.starts_with(b"a") => Decision::Allow,
            _ => Decision::Deny,
        }
    }
    fn decide_other(&self, _: &Caller, _: &Access) -> Decision {
        Decision::Deny
    }
}

struct CompileAliceOnly;

impl Compile for CompileAliceOnly {
    fn compile(&self, _: KeyspaceId, tables: &AuthTables, _: Option<&Arc<dyn Policy>>) -> Arc<dyn Policy> {
        Arc::new(AliceOnly(tables.policy_version))
    }
}

#[test]
fn an_overtaken_permit_is_decided_again_on_the_state_it_is_applied_to() {
    let mut m = Machine::new();
    m.run(grant(55, 100)).unwrap();
    m.run(put_leased("a1", "v", 55)).unwrap();
    let generation = |m: &Machine| m.space().attached(LeaseId(55), &mut |_| true);
    let old_policy = m.space().policy().fence();
    let old_lease = LeaseFence { lease: LeaseId(55), generation: generation(&m) };
    // From here on alice has a policy, and the lease one key more.
    let add = internal(KeyspaceId::DEFAULT, Operation::RoleAdd { name: "r".into() });
    m.state.apply(add, &m.store, &CompileAliceOnly, &mut m.effects).unwrap();
    m.run(put_leased("a2", "v", 55)).unwrap();
    assert_ne!((m.space().policy().fence(), generation(&m)), (old_policy, old_lease.generation));

    let by = |name: Option<&str>, operation: Operation<Sealed>| Command {
        fence: Some(old_policy),
        leases: [old_lease].into_iter().collect(),
        attribution: name.map(str::to_owned),
        ..internal(KeyspaceId::DEFAULT, operation)
    };
    let revision = m.revision();
    for (command, refusal) in [
        (by(None, put("a3", "v")), Refusal::Anonymous),
        (by(Some("bob"), put("a3", "v")), Refusal::PermissionDenied),
        (by(Some("alice"), put("b", "v")), Refusal::PermissionDenied),
        (by(Some("alice"), compact(2)), Refusal::PermissionDenied),
        // Nobody could decide for work without a caller.
        (Command { fence: None, ..by(Some("alice"), put("a3", "v")) }, Refusal::StalePermit),
    ] {
        assert_eq!(m.apply(command), Applied { outcome: Err(refusal), revision });
    }
    assert!(m.apply(by(Some("alice"), put_leased("a3", "v", 55))).outcome.is_ok());
    // A key that alice may not have joins the lease: the lease is no longer hers to use.
    m.run(put_leased("b", "v", 55)).unwrap();
    let refused = m.apply(by(Some("alice"), put_leased("a3", "w", 55))).outcome;
    assert_eq!(refused, Err(Refusal::PermissionDenied));
    assert_eq!(m.apply(by(Some("alice"), revoke(55))).outcome, Err(Refusal::PermissionDenied));
    assert!(m.apply(by(Some("alice"), put("a3", "w"))).outcome.is_ok());
}

#[test]
fn alarms_forbid_what_they_must() {
    let mut m = seeded();
    let alarm = |action, member, alarm| Operation::Alarm(AlarmRequest { action, member, alarm });
    use AlarmAction::*;
    let member = |member, alarm| Ok(Answer::Alarms(vec![AlarmMember { member, alarm }]));
    let none = || Ok(Answer::Alarms(vec![]));
    assert_eq!(m.run(alarm(Activate, 7, AlarmKind::None)), none());
    assert_eq!(m.run(alarm(Activate, 7, AlarmKind::NoSpace)), member(7, AlarmKind::NoSpace));
    assert_eq!(m.run(alarm(Activate, 7, AlarmKind::NoSpace)), member(7, AlarmKind::NoSpace));
    m.reload(u64::MAX);
    let with_put = Txn {
        compare: vec![],
        success: vec![],
        failure: vec![TxnOp::Txn(txn(vec![TxnOp::Put(put_of("x", ""))]))],
    };
    let full = Err(Refusal::NoSpace);
    assert_eq!(m.run(put("x", "")), full);
    assert_eq!(m.run(Operation::Txn(with_put)), full);
    assert_eq!(m.run(grant(1, 1)), full);
    assert!(m.run(delete(single("a"))).is_ok());
    assert!(m.run(Operation::Txn(txn(vec![]))).is_ok());
    assert!(m.run(compact(3)).is_ok());

    m.run(alarm(Activate, 8, AlarmKind::Corrupt)).unwrap();
    let corrupt = Err(Refusal::Corrupt);
    for operation in
        [put("x", ""), delete(single("a")), Operation::Txn(txn(vec![])), compact(4), grant(1, 1), revoke(55)]
    {
        assert_eq!(m.run(operation), corrupt);
    }
    assert!(m.run(Operation::RoleAdd { name: "r".into() }).is_ok());

    assert_eq!(m.run(alarm(Deactivate, 9, AlarmKind::NoSpace)), none());
    assert_eq!(m.run(alarm(Deactivate, 8, AlarmKind::Corrupt)), member(8, AlarmKind::Corrupt));
    assert_eq!(m.run(alarm(Deactivate, 7, AlarmKind::NoSpace)), member(7, AlarmKind::NoSpace));
    assert!(m.space().alarms().is_empty());
    m.put("x", "");
}

#[test]
fn reads_and_unknown_keyspaces_are_refused_in_the_log_without_harm() {
    let mut m = seeded();
    let read = internal(KeyspaceId::DEFAULT, Operation::Range(Range::of(single("a"))));
    let applied = m.state.apply(read, &m.store, &OpenCompile, &mut m.effects).unwrap();
    assert!(matches!(applied.outcome, Err(Refusal::Internal { .. })));
    m.keyspace = KeyspaceId(99);
    assert_eq!(m.run(put("a", "")), Err(Refusal::PermissionDenied));
}

#[test]
fn keyspaces_do_not_see_each_other() {
    let (mut both, mut alone) = (Machine::new(), [seeded(), seeded()]);
    let other = KeyspaceId(9);
    both.state.create_keyspace(other, &OpenCompile, &mut both.effects);
    alone[1] = Machine::new();
    for step in 0..40 {
        for (at, id) in [KeyspaceId::DEFAULT, other].into_iter().enumerate() {
            if step == 0 && at == 0 {
                alone[0] = Machine::new();
            }
            let operation = match (step + at) % 5 {
                0 => put("a", &step.to_string()),
                1 => put("b", &format!("{id:?}")),
                2 => delete(single(["a", "b"][at])),
                3 => grant(step as i64 + 1, 5),
                _ => compact(step as i64 / 4),
            };
            both.keyspace = id;
            assert_eq!(both.run(operation.clone()), alone[at].run(operation));
        }
    }
    both.reload(u64::MAX);
    for (at, id) in [KeyspaceId::DEFAULT, other].into_iter().enumerate() {
        both.keyspace = id;
        let all = Range::of(KeyRange::everything());
        assert_eq!(both.range(&all), alone[at].range(&all));
        assert_eq!(both.revision(), alone[at].revision());
    }
}
