//! Quotas in the state machine: what they count, what they refuse, and that neither depends on anything but the log.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mvcc_store;

use keygate_core::*;
use keygate_engine::mvcc::*;
use mvcc_store::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

fn limits(prefix: &str, keys: LimitChange, bytes: LimitChange, history: LimitChange) -> QuotaSet {
    QuotaSet { tenant: None, prefix: mvcc_store::bytes(prefix), keys, bytes, history, force: false }
}

fn keys(prefix: &str, most: u64) -> QuotaSet {
    limits(prefix, LimitChange::Set(most), LimitChange::Keep, LimitChange::Keep)
}

fn at_most(prefix: &str, most: u64) -> QuotaSet {
    limits(prefix, LimitChange::Keep, LimitChange::Set(most), LimitChange::Keep)
}

fn history(prefix: &str, most: u64) -> QuotaSet {
    limits(prefix, LimitChange::Keep, LimitChange::Keep, LimitChange::Set(most))
}

fn forced(set: QuotaSet) -> QuotaSet {
    QuotaSet { force: true, ..set }
}

fn set(m: &mut Machine, set: QuotaSet) -> Result<QuotaInfo, Refusal> {
    match m.apply(internal(KeyspaceId::DEFAULT, Operation::QuotaSet(set))).outcome? {
        Answer::Quotas(quotas) if quotas.len() <= 1 => {
            Ok(quotas.into_iter().next().unwrap_or_else(|| m.space().quotas().remove(0)))
        }
        other => panic!("{other:?}"),
    }
}

fn used(m: &Machine, prefix: &str) -> (u64, u64, u64) {
    let info = m.space().quotas().into_iter().find(|info| info.prefix == prefix).unwrap();
    (info.used.keys, info.used.bytes, info.used.history)
}

fn reached(kind: QuotaKind, prefix: &str, limit: u64, used: u64) -> Refusal {
    Refusal::QuotaReached(Box::new(QuotaBound { kind, prefix: mvcc_store::bytes(prefix), limit, used }))
}

/// Counters and a fresh count agree, and the count is made of what the store holds.
fn check_recount(m: &Machine) {
    for info in m.space().recount(&m.store).unwrap() {
        assert_eq!(info.counted, Some(info.used), "under `{}`", info.prefix.escape_ascii());
    }
}

#[test]
fn a_quota_of_keys_stops_the_next_key_and_nothing_else() {
    let mut m = Machine::new();
    set(&mut m, keys("", 3)).unwrap();
    for key in ["a", "b", "c"] {
        m.put(key, "1");
    }
    let full = reached(QuotaKind::Keys, "", 3, 3);
    assert_eq!(m.run(put("d", "1")), Err(full.clone()));
    let before = m.revision();
    assert_eq!(m.run(Operation::Txn(txn(vec![TxnOp::Put(put_of("d", "1"))]))), Err(full.clone()));
    assert_eq!((m.revision(), m.get("d")), (before, None));
    // An overwrite adds no key, a lease and a compaction none either.
    m.put("a", "a much longer value");
    m.run(grant(1, 60)).unwrap();
    m.run(put_leased("a", "2", 1)).unwrap();
    m.run(compact(m.revision())).unwrap();
    assert_eq!(m.delete("b"), 1);
    m.put("d", "1");
    assert_eq!(m.run(put("e", "1")), Err(full));
    // A lease that ends takes its key along.
    m.run(revoke(1)).unwrap();
    m.put("e", "1");
    check_recount(&m);
}

#[test]
fn a_quota_of_bytes_lets_pass_what_is_not_larger() {
    let mut m = Machine::new();
    m.put("key", "1234567");
    set(&mut m, at_most("", 10)).unwrap();
    assert_eq!(used(&m, ""), (1, 10, 0));
    let full = || reached(QuotaKind::Bytes, "", 10, 10);
    assert_eq!(m.run(put("key", "12345678")), Err(full()));
    assert_eq!(m.run(put("k", "")), Err(full()));
    m.put("key", "7654321");
    m.put("key", "1");
    m.put("k", "12345");
    assert_eq!(used(&m, ""), (2, 10, 20));
    assert_eq!(m.delete("key"), 1);
    assert_eq!(used(&m, ""), (1, 6, 20 + 4 + 3));
    check_recount(&m);
}

#[test]
fn a_quota_of_history_is_made_room_in_by_compacting() {
    let mut m = Machine::new();
    set(&mut m, history("", 10)).unwrap();
    m.put("key", "1234");
    m.put("key", "12");
    assert_eq!(used(&m, ""), (1, 5, 7));
    let full = reached(QuotaKind::History, "", 10, 7);
    assert_eq!(m.run(put("key", "12")), Err(full.clone()));
    assert_eq!(m.run(Operation::Put(Put { value: PutValue::Keep, ..put_of("key", "") })), Err(full));
    // A new key leaves nothing behind, and deleting always goes.
    m.put("other", "1");
    assert_eq!(m.delete("key"), 1);
    assert_eq!(used(&m, ""), (1, 6, 7 + 5 + 3));
    m.run(compact(m.revision())).unwrap();
    assert_eq!(used(&m, ""), (1, 6, 0));
    m.put("other", "2");
    check_recount(&m);
    m.prune_all();
    check_recount(&m);
}

#[test]
fn prefixes_have_quotas_of_their_own_and_those_within_others_count_for_both() {
    let mut m = Machine::new();
    for key in ["app/a", "app/b", "app/x/1", "other"] {
        m.put(key, "1");
        m.put(key, "2");
    }
    m.delete("app/b");
    // What is there already is counted, its history too.
    set(&mut m, keys("app/", 4)).unwrap();
    set(&mut m, keys("app/x/", 2)).unwrap();
    assert_eq!(used(&m, "app/"), (2, 14, 6 + 6 + 6 + 5 + 8));
    assert_eq!(used(&m, "app/x/"), (1, 8, 8));
    check_recount(&m);
    m.put("app/x/2", "1");
    assert_eq!(m.run(put("app/x/3", "1")), Err(reached(QuotaKind::Keys, "app/x/", 2, 2)));
    m.put("app/c", "1");
    assert_eq!(m.run(put("app/d", "1")), Err(reached(QuotaKind::Keys, "app/", 4, 4)));
    m.put("other/one", "1");
    m.reload(u64::MAX);
    assert_eq!(m.run(put("app/d", "1")), Err(reached(QuotaKind::Keys, "app/", 4, 4)));
    set(&mut m, limits("app/", LimitChange::Lift, LimitChange::Lift, LimitChange::Lift)).unwrap();
    m.put("app/d", "1");
    assert_eq!(m.run(put("app/x/3", "1")), Err(reached(QuotaKind::Keys, "app/x/", 2, 2)));
    check_recount(&m);
}

#[test]
fn a_quota_below_what_is_used_is_refused_unless_forced() {
    let mut m = Machine::new();
    for key in ["p/a", "p/b", "p/c"] {
        m.put(key, "1");
    }
    let below = |prefix: &str, limit| {
        let prefix = mvcc_store::bytes(prefix);
        Err(Refusal::QuotaBelowUse(Box::new(QuotaBound { kind: QuotaKind::Keys, prefix, limit, used: 3 })))
    };
    assert_eq!(set(&mut m, keys("", 2)), below("", 2));
    assert_eq!(set(&mut m, keys("p/", 2)), below("p/", 2));
    assert_eq!(m.space().quotas().len(), 1, "what was refused left nothing behind");
    m.put("p/d", "1");
    set(&mut m, forced(keys("p/", 2))).unwrap();
    assert!(m.run(put("p/e", "1")).is_err());
    m.put("p/a", "2");
    // Another limit of the same prefix is not about the keys, and raising one that is too low is a way out of it.
    set(&mut m, at_most("p/", 100)).unwrap();
    set(&mut m, keys("p/", 3)).unwrap();
    for key in ["p/a", "p/b"] {
        m.delete(key);
    }
    m.put("p/f", "1");
    assert!(m.run(put("p/g", "1")).is_err());
}

#[test]
fn a_txn_is_weighed_as_a_whole() {
    let mut m = Machine::new();
    for key in ["a", "b", "c"] {
        m.put(key, "1");
    }
    set(&mut m, keys("", 3)).unwrap();
    let put = |key: &str| TxnOp::Put(put_of(key, "1"));
    let delete = |range| TxnOp::DeleteRange(DeleteRange { range, prev_kv: false });
    let nested = |ops| TxnOp::Txn(txn(ops));
    let run = |m: &mut Machine, ops| m.run(Operation::Txn(txn(ops))).map(drop);
    let full = Err(reached(QuotaKind::Keys, "", 3, 3));
    // Ranges that overlap delete a key once.
    let overlapping = || vec![delete(span("a", "c")), nested(vec![delete(single("b"))])];
    let with = |more: Vec<TxnOp<Sealed>>| overlapping().into_iter().chain(more).collect::<Vec<_>>();
    assert_eq!(run(&mut m, with(vec![put("x"), put("y"), nested(vec![put("z")])])), full);
    assert_eq!(run(&mut m, vec![put("x"), nested(vec![put("y")]), delete(single("a"))]), full);
    run(&mut m, with(vec![nested(vec![put("x")]), put("y")])).unwrap();
    assert_eq!(used(&m, "").0, 3);
    // The branch that is not taken counts nothing.
    let mut choice = txn(vec![put("x")]);
    choice.failure = vec![put("new")];
    m.run(Operation::Txn(choice)).unwrap();
    check_recount(&m);
}

#[test]
fn a_tenants_quota_goes_with_the_tenant_and_concerns_no_other() {
    let mut m = Machine::new();
    let name = TenantName::parse("pay").unwrap();
    let create = || {
        let root = Credential::NoPassword;
        Operation::TenantCreate(TenantCreate { name: name.clone(), hosts: vec![], root })
    };
    let of_pay = |set: QuotaSet| QuotaSet { tenant: Some(name.clone()), ..set };
    let missing = Err(Refusal::TenantNotFound(name.clone()));
    assert_eq!(set(&mut m, of_pay(keys("", 1))).map(drop), missing);
    m.run(create()).unwrap();
    let id = m.state.tenant("pay").unwrap().keyspace;
    assert_eq!(set(&mut m, of_pay(keys("", 1))).unwrap().tenant, Some(name.clone()));
    set(&mut m, of_pay(keys("p", 1))).unwrap();
    m.put("a", "1");
    m.put("b", "1");
    m.keyspace = id;
    // Not even its root: it is applied for the platform's own keyspace only.
    assert_eq!(m.run(Operation::QuotaSet(of_pay(keys("", 9)))), Err(Refusal::PermissionDenied));
    m.put("p", "1");
    m.reload(u64::MAX);
    assert!(m.run(put("b", "1")).is_err());
    check_recount(&m);
    m.keyspace = KeyspaceId::DEFAULT;
    m.run(Operation::TenantDelete { name: name.clone() }).unwrap();
    m.prune_all();
    m.flush(0);
    let left = m.store.meta.keys().filter(|key| key.starts_with(&id.0.to_be_bytes())).count();
    assert_eq!(left, 0, "records of the deleted tenant");
    m.run(create()).unwrap();
    m.keyspace = m.state.tenant("pay").unwrap().keyspace;
    m.put("a", "1");
    m.put("b", "1");
}

#[test]
fn there_is_an_end_to_prefixes() {
    let mut m = Machine::new();
    for number in 0..MAX_QUOTA_PREFIXES {
        set(&mut m, keys(&format!("{number}/"), 5)).unwrap();
    }
    assert_eq!(set(&mut m, keys("more", 5)), Err(Refusal::TooManyQuotas { limit: MAX_QUOTA_PREFIXES }));
    set(&mut m, keys("7/", 6)).unwrap();
    set(&mut m, keys("", 6)).unwrap();
}

const KEYS: [&str; 9] = ["a", "a/", "a/1", "a/b/1", "a/b/2", "b", "b/1", "c", "\u{ff}"];
const PREFIXES: [&str; 6] = ["", "a", "a/b", "a/b/", "b", "c"];

fn random_range(rng: &mut StdRng) -> KeyRange {
    let mut key = || KEYS[rng.random_range(0..KEYS.len())];
    let (one, other) = (key(), key());
    match rng.random_range(0..6) {
        0..=2 => single(one),
        3..=4 => span(one, other),
        _ => KeyRange::everything(),
    }
}

fn random_put(rng: &mut StdRng) -> Put<Sealed> {
    let text = "v".repeat(rng.random_range(0..12));
    let mut put = put_of(KEYS[rng.random_range(0..KEYS.len())], &text);
    if rng.random_bool(0.1) {
        put.value = PutValue::Keep;
    }
    if rng.random_bool(0.3) {
        put.lease = PutLease::Set(LeaseId(rng.random_range(1..4)));
    }
    put
}

fn random_txn(rng: &mut StdRng, depth: usize) -> Txn<Sealed> {
    let mut ops = Vec::new();
    for _ in 0..rng.random_range(1..5) {
        ops.push(match rng.random_range(0..6) {
            0..=2 => TxnOp::Put(random_put(rng)),
            3..=4 => TxnOp::DeleteRange(DeleteRange { range: random_range(rng), prev_kv: false }),
            _ if depth > 0 => TxnOp::Txn(random_txn(rng, depth - 1)),
            _ => TxnOp::Range(Range::of(random_range(rng))),
        });
    }
    let compare = vec![compare(single(KEYS[0]), CompareOp::Greater, CompareTarget::Version(1))];
    let failure = ops.split_off(ops.len() / 2);
    Txn { compare, success: ops, failure }
}

fn random_operation(rng: &mut StdRng, revision: i64) -> Operation<Sealed> {
    match rng.random_range(0..20) {
        0..=8 => Operation::Put(random_put(rng)),
        9..=10 => delete(random_range(rng)),
        11..=14 => Operation::Txn(random_txn(rng, 2)),
        15 => compact(rng.random_range(0..=revision + 1)),
        16 => grant(rng.random_range(1..4), 60),
        17 => revoke(rng.random_range(1..4)),
        18 => Operation::LeaseExpire(vec![LeaseId(rng.random_range(1..4))]),
        _ => {
            let mut change = |most| match rng.random_range(0..5) {
                0 => LimitChange::Lift,
                1 | 2 => LimitChange::Set(rng.random_range(0..most)),
                _ => LimitChange::Keep,
            };
            let (keys, bytes, history) = (change(10), change(80), change(160));
            let prefix = PREFIXES[rng.random_range(0..PREFIXES.len())];
            let set = limits(prefix, keys, bytes, history);
            Operation::QuotaSet(if rng.random_bool(0.5) { forced(set) } else { set })
        }
    }
}

/// What was done, told by events alone: each key's current size, and what became history when.
#[derive(Default)]
struct Ledger {
    seen: usize,
    live: BTreeMap<Vec<u8>, u64>,
    history: Vec<(i64, Vec<u8>, u64)>,
}

impl Ledger {
    fn follow(&mut self, events: &[StoredEvent]) {
        for event in &events[self.seen..] {
            let key = event.kv.key.to_vec();
            let size = key.len() as u64 + event.kv.value.as_ref().map_or(0, |value| value.len() as u64);
            let old = if event.deleted {
                self.live.remove(&key).unwrap_or(0) + key.len() as u64
            } else {
                self.live.insert(key.clone(), size).unwrap_or(0)
            };
            self.history.push((event.kv.mod_revision, key, old));
        }
        self.seen = events.len();
    }

    fn used(&self, prefix: &[u8], compacted: i64) -> QuotaUse {
        let live = self.live.iter().filter(|(key, _)| key.starts_with(prefix));
        let (keys, bytes) = live.fold((0, 0), |(keys, bytes), (_, size)| (keys + 1, bytes + size));
        let history = self.history.iter().filter(|(at, key, _)| *at > compacted && key.starts_with(prefix));
        QuotaUse { keys, bytes, history: history.map(|(_, _, bytes)| bytes).sum() }
    }
}

/// Is `operation` one that the limits must refuse? Found out by doing it where there are none.
fn must_be_refused(m: &Machine, operation: &Operation<Sealed>) -> Option<bool> {
    if !matches!(operation, Operation::Put(_) | Operation::Txn(_)) {
        return Some(false);
    }
    let before = m.space().quotas();
    let mut free = Machine::new();
    (free.state, free.store) = (m.state.clone(), m.store.clone());
    for info in &before {
        let (lift, prefix) = (LimitChange::Lift, info.prefix.clone());
        // Not the scope itself: it goes with its last limit.
        let most = LimitChange::Set(u64::MAX);
        let lifted = QuotaSet { tenant: None, prefix, keys: most, bytes: lift, history: lift, force: true };
        set(&mut free, lifted).unwrap();
    }
    free.events.clear();
    // Refused for another reason, which comes first.
    free.run(operation.clone()).ok()?;
    let after = free.space().quotas();
    let overwritten = |prefix: &[u8]| {
        let mut events = free.events.iter();
        events.any(|event| !event.deleted && event.prev.is_some() && event.kv.key.starts_with(prefix))
    };
    Some(before.iter().zip(&after).any(|(before, after)| {
        QuotaKind::ALL.into_iter().any(|kind| {
            let grown = match kind {
                QuotaKind::Keys | QuotaKind::Bytes => after.used.of(kind) > before.used.of(kind),
                QuotaKind::History => overwritten(&before.prefix),
            };
            grown && before.limits.of(kind).is_some_and(|limit| after.used.of(kind) > limit)
        })
    }))
}

/// Two members with one log, flushed, pruned, evicted and restarted each in its own way: the same counters as the
/// events tell, the same refusals, and those are exactly the ones that limits ask for.
#[test]
fn random_stories_are_counted_and_refused_alike_whatever_else_happens() {
    let (mut steps, mut refused, mut reloads) = (0, 0, 0);
    let seeds = std::env::var("MVCC_SEEDS").map_or(150, |text| text.parse().expect("a number"));
    for seed in 0..seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut one, mut other) = (Machine::new(), Machine::new());
        let mut ledger = Ledger::default();
        for step in 0..120 {
            let operation = random_operation(&mut rng, one.revision());
            // As the gateway asks first: no path through a txn changes a key twice.
            if operation.check(&Limits { txn_operations: 128, txn_depth: 9 }).is_err() {
                continue;
            }
            let expected = must_be_refused(&one, &operation);
            let outcome = one.run(operation.clone());
            assert_eq!(outcome, other.run(operation.clone()), "seed {seed} step {step}");
            let was_refused = matches!(outcome, Err(Refusal::QuotaReached(_)));
            if let Some(expected) = expected {
                assert_eq!(was_refused, expected, "seed {seed} step {step}: {operation:?}");
            }
            refused += usize::from(was_refused);
            steps += 1;
            if rng.random_bool(0.2) {
                other.flush(rng.random_range(0..3));
            }
            if rng.random_bool(0.2) {
                other.prune(rng.random_range(1..5));
            }
            if rng.random_bool(0.05) {
                other.reload(if rng.random_bool(0.5) { 10 } else { u64::MAX });
                reloads += 1;
            }
            if rng.random_bool(0.1) {
                other.state.evict(0, 100);
            }
            ledger.follow(&one.events);
            let compacted = one.space().compact_revision();
            for (info, same) in one.space().quotas().iter().zip(&other.space().quotas()) {
                assert_eq!(info, same, "seed {seed} step {step}");
                assert_eq!(info.used, ledger.used(&info.prefix, compacted), "seed {seed} step {step}");
            }
            if step % 10 == 0 {
                check_recount(&one);
                check_recount(&other);
            }
        }
    }
    println!("{steps} steps, {refused} refused by quotas, {reloads} restarts");
    assert!(seeds != 150 || (refused > 1_000 && reloads > 500), "{steps} {refused} {reloads}");
}
