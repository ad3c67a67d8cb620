//! Random stories: the state machine against a naive model, and against itself under another schedule of flushes,
//! evictions, prunings and restarts. A failure prints its seed; `MVCC_SEED` runs that one, `MVCC_SEEDS` sets how many.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mvcc_model_of_etcd;
mod mvcc_store;

use keygate_core::*;
use keygate_engine::mvcc::*;
use mvcc_model_of_etcd::Model;
use mvcc_store::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const STEPS: usize = 250;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    if let Some(seed) = number("MVCC_SEED") {
        return vec![seed];
    }
    (0..number("MVCC_SEEDS").unwrap_or(150)).collect()
}

fn key(rng: &mut StdRng) -> String {
    ["a", "b", "ba", "c", "d", "e\0", "f"][rng.random_range(0..7)].to_owned()
}

fn key_range(rng: &mut StdRng) -> KeyRange {
    match rng.random_range(0..10) {
        0..=4 => single(&key(rng)),
        5..=7 => span(&key(rng), &key(rng)),
        8 => KeyRange::From(bytes(&key(rng))),
        _ => KeyRange::everything(),
    }
}

fn number(rng: &mut StdRng, model: &Model) -> i64 {
    rng.random_range(-1..=model.revision() + 1)
}

fn random_range(rng: &mut StdRng, model: &Model) -> Range {
    let mut range = Range::of(key_range(rng));
    range.limit = if rng.random_bool(0.4) { rng.random_range(-1..4) } else { 0 };
    range.revision = if rng.random_bool(0.5) { number(rng, model) } else { 0 };
    range.sort_order = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend][rng.random_range(0..3)];
    range.sort_target =
        [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value]
            [rng.random_range(0..5)];
    range.keys_only = rng.random_bool(0.2);
    range.count_only = rng.random_bool(0.1);
    if rng.random_bool(0.2) {
        range.min_mod_revision = number(rng, model);
        range.max_create_revision = number(rng, model);
    }
    if rng.random_bool(0.2) {
        range.max_mod_revision = number(rng, model);
        range.min_create_revision = number(rng, model);
    }
    range
}

/// Stretches that overlap, touch, hold no key, hold all.
fn random_hidden(rng: &mut StdRng) -> Vec<KeyRange> {
    (0..rng.random_range(1..5)).map(|_| key_range(rng)).collect()
}

fn random_put(rng: &mut StdRng) -> Put<Sealed> {
    let mut put = put_of(&key(rng), &"v".repeat(rng.random_range(0..4)));
    if rng.random_bool(0.1) {
        put.value = PutValue::Keep;
    }
    put.lease = match rng.random_range(0..10) {
        0 => PutLease::Keep,
        1..=3 => PutLease::Set(LeaseId(rng.random_range(1..4))),
        _ => PutLease::Set(LeaseId::NONE),
    };
    put.prev_kv = rng.random_bool(0.3);
    put
}

fn random_txn(rng: &mut StdRng, model: &Model, depth: usize) -> Txn<Sealed> {
    let compare = (0..rng.random_range(0..3))
        .map(|_| {
            let n = number(rng, model);
            let target = match rng.random_range(0..5) {
                0 => CompareTarget::Version(rng.random_range(0..4)),
                1 => CompareTarget::Create(n),
                2 => CompareTarget::Mod(n),
                3 => CompareTarget::Lease(rng.random_range(0..3)),
                _ => CompareTarget::Value(value(&"v".repeat(rng.random_range(0..4)))),
            };
            let op = [CompareOp::Equal, CompareOp::NotEqual, CompareOp::Less, CompareOp::Greater]
                [rng.random_range(0..4)];
            mvcc_store::compare(key_range(rng), op, target)
        })
        .collect();
    let mut branch = || {
        (0..rng.random_range(0..4))
            .map(|_| match rng.random_range(0..10) {
                0..=2 => TxnOp::Range(random_range(rng, model)),
                3..=6 => TxnOp::Put(random_put(rng)),
                7 | 8 => {
                    TxnOp::DeleteRange(DeleteRange { range: key_range(rng), prev_kv: rng.random_bool(0.5) })
                }
                _ if depth > 0 => TxnOp::Txn(random_txn(rng, model, depth - 1)),
                _ => TxnOp::Range(Range::of(key_range(rng))),
            })
            .collect()
    };
    let success = branch();
    Txn { compare, success, failure: branch() }
}

fn random_operation(rng: &mut StdRng, model: &Model) -> Operation<Sealed> {
    let lease = rng.random_range(1..4);
    match rng.random_range(0..100) {
        0..=39 => Operation::Put(random_put(rng)),
        40..=54 => {
            Operation::DeleteRange(DeleteRange { range: key_range(rng), prev_kv: rng.random_bool(0.3) })
        }
        55..=79 => Operation::Txn(random_txn(rng, model, 2)),
        80..=84 => compact(number(rng, model)),
        85..=91 => grant(lease, rng.random_range(0..9)),
        92..=95 => revoke(lease),
        _ => Operation::LeaseExpire(vec![LeaseId(lease), LeaseId(rng.random_range(1..4))]),
    }
}

/// What the world around does to the machine between commands.
fn disturb(rng: &mut StdRng, m: &mut Machine) {
    match rng.random_range(0..12) {
        0..=2 => m.seal(),
        3 | 4 => m.flush(rng.random_range(0..3)),
        5 | 6 => {
            m.prune(rng.random_range(1..5));
        }
        7 | 8 => {
            m.state.evict(rng.random_range(0..2000), rng.random_range(1..20));
        }
        9 if rng.random_bool(0.3) => m.reload(rng.random_range(0..12)),
        _ => {}
    }
}

/// Reads that left out keys.
#[derive(Default)]
struct Told {
    asked: u64,
    /// Answered otherwise than to whoever may see everything.
    differed: u64,
}

impl Told {
    fn count(
        &mut self,
        seen: &Result<RangeAnswer<Sealed>, ReadError>,
        all: Result<RangeAnswer<Sealed>, Refusal>,
    ) {
        self.asked += 1;
        self.differed += u64::from(*seen != all.map_err(ReadError::from));
    }
}

fn check(m: &Machine, model: &Model, rng: &mut StdRng, told: &mut Told) {
    let space = m.space();
    assert_eq!((space.revision(), space.compact_revision()), (model.revision(), model.compacted));
    assert_eq!(space.key_count(), model.now().len() as u64);
    let size = |kv: &KeyValue<Sealed>| (kv.key.len() + kv.value.as_ref().unwrap().len()) as u64;
    assert_eq!(space.current_bytes(), model.now().values().map(size).sum::<u64>());
    for _ in 0..3 {
        let range = random_range(rng, model);
        assert_eq!(m.range(&range), model.range(&range).map_err(ReadError::from), "{range:?}");
    }
    for _ in 0..3 {
        let (range, hidden) = (random_range(rng, model), random_hidden(rng));
        let seen = space.range(&range, &Sight::without(hidden.clone()), &m.store);
        let expected = model.range_without(&range, &hidden).map_err(ReadError::from);
        assert_eq!(seen, expected, "{range:?} without {hidden:?}");
        told.count(&seen, model.range(&range));
    }
    let leases: Vec<_> = space.leases().map(|(id, lease)| (id.0, lease.ttl)).collect();
    assert_eq!(leases, model.leases.iter().map(|(id, ttl)| (*id, *ttl)).collect::<Vec<_>>());
    for (id, lease) in space.leases() {
        let keys: Vec<_> = lease.keys.iter().map(|key| key.to_vec()).collect();
        assert_eq!(keys, model.attached(id));
    }
}

/// Watchers with hidden keys are told what others are told of the other keys.
fn check_changes(m: &Machine, model: &Model, rng: &mut StdRng) {
    let (space, from) = (m.space(), model.compacted.max(1));
    let (range, hidden) = (key_range(rng), random_hidden(rng));
    let sight = Sight::without(hidden.clone());
    let look = |sight: &Sight| {
        space.changes(from, model.revision(), &range, sight, &m.store, &HistoryLimits::NONE).unwrap()
    };
    let mut expected = look(&Sight::WHOLE);
    expected.events.retain(|event| !hidden.iter().any(|hidden| hidden.contains(&event.kv.key)));
    assert_eq!(look(&sight), expected, "{range:?} without {hidden:?}");
}

fn check_everything(m: &Machine, model: &Model) {
    for revision in 1..=model.revision() {
        let range = Range { revision, ..Range::of(KeyRange::everything()) };
        assert_eq!(m.range(&range), model.range(&range).map_err(ReadError::from), "revision {revision}");
    }
    // Watchers that catch up from each revision, some events at a time.
    let space = m.space();
    for from in [1, model.compacted.max(1), model.compacted + 1, model.revision()] {
        let mut next = from;
        let mut seen = Vec::new();
        while next <= model.revision() {
            let limits = HistoryLimits { events: 3, ..HistoryLimits::NONE };
            match space.changes(
                next,
                model.revision(),
                &KeyRange::everything(),
                &Sight::WHOLE,
                &m.store,
                &limits,
            ) {
                Err(error) => {
                    assert_eq!((error, next < model.compacted), (Refusal::Compacted.into(), true));
                    break;
                }
                Ok(changes) => {
                    assert!(changes.next_revision > next);
                    next = changes.next_revision;
                    seen.extend(changes.events);
                }
            }
        }
        let behind = |revision: i64| revision >= from && revision > model.compacted;
        if from >= model.compacted {
            let expected: Vec<usize> =
                (0..model.events.len()).filter(|at| behind(model.events[*at].1.mod_revision)).collect();
            seen.retain(|event| behind(event.kv.mod_revision));
            assert_eq!(seen.len(), expected.len());
            for (event, expected) in seen.iter().zip(expected) {
                model.check_event(event, expected, model.compacted);
                if event.prev_in_store {
                    let prev = space.previous(&event.kv.key, event.kv.mod_revision, &m.store).unwrap();
                    assert_eq!(prev, model.events[expected].2);
                }
            }
        }
    }
}

#[test]
fn random_stories_end_as_in_the_naive_model() {
    let (mut commands, mut refused, seeds) = (0, 0, seeds());
    let mut told = Told::default();
    for seed in &seeds {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(*seed);
        let (mut m, mut model) = (Machine::new(), Model::new(MIN_TTL));
        for step in 0..STEPS {
            let operation = random_operation(&mut rng, &model);
            if operation.check(&Limits { txn_operations: 128, txn_depth: 8 }).is_err() {
                continue;
            }
            let expected = model.run(&operation);
            refused += usize::from(expected.is_err());
            commands += 1;
            let text = format!("seed {seed} step {step}: {operation:?}");
            assert_eq!(m.run(operation), expected, "{text}");
            check(&m, &model, &mut rng, &mut told);
            disturb(&mut rng, &mut m);
            check_changes(&m, &model, &mut rng);
            if step % 50 == 0 {
                check_everything(&m, &model);
            }
        }
        assert_eq!(m.events.len(), model.events.len());
        for (at, event) in m.events.iter().enumerate() {
            model.check_event(event, at, -1);
        }
        check_everything(&m, &model);
    }
    println!("{} seeds, {commands} commands, {refused} of them refused", seeds.len());
    println!("{} reads with hidden keys, {} of them noticed", told.asked, told.differed);
    assert!(seeds.len() < 150 || told.asked > 50_000, "too little was asked to mean anything");
    assert!(told.differed * 5 > told.asked, "the hidden keys were not where it was read");
    assert!(refused * 50 > commands && refused * 2 < commands, "the stories say little");
}

/// Everything that can be asked of a keyspace, as text.
fn portrait(m: &Machine) -> String {
    let space = m.space();
    let mut text = format!("{} {} {}\n", space.revision(), space.compact_revision(), space.key_count());
    for revision in space.compact_revision().max(1)..=space.revision() {
        let range = Range { revision, ..Range::of(KeyRange::everything()) };
        for kv in m.range(&range).unwrap().kvs {
            text += &format!("{revision} {kv:?} {:?}\n", kv.value.as_ref().map(|value| value.stored_bytes()));
        }
    }
    text += &format!("{:?}\n{:?}\n", space.leases().collect::<Vec<_>>(), space.alarms());
    text + &format!("{:?}\n{:?}", space.auth(), hash_kv(space, 0, &m.store))
}

#[test]
fn members_that_flush_evict_prune_and_restart_differently_stay_equal() {
    for seed in seeds() {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut model = Model::new(MIN_TTL);
        let (mut quiet, mut restless) = (Machine::new(), Machine::new());
        for _ in 0..STEPS {
            let operation = random_operation(&mut rng, &model);
            if operation.check(&Limits { txn_operations: 128, txn_depth: 8 }).is_err() {
                continue;
            }
            let _ = model.run(&operation);
            // Fences are part of a command's meaning, generations of leases too.
            let lease = LeaseId(rng.random_range(1..4));
            let generation = quiet.space().attached(lease, &mut |_| true);
            let command = Command {
                leases: [LeaseFence { lease, generation }].into_iter().collect(),
                ..internal(KeyspaceId::DEFAULT, operation)
            };
            assert_eq!(quiet.apply(command.clone()), restless.apply(command));
            disturb(&mut rng, &mut restless);
        }
        assert!(quiet.changes == restless.changes, "seed {seed}: equal commands make equal changes");
        assert_eq!(portrait(&quiet), portrait(&restless), "seed {seed}");
        restless.reload(rng.random_range(0..40));
        assert_eq!(portrait(&quiet), portrait(&restless), "seed {seed}, reloaded");
        quiet.prune_all();
        quiet.flush(0);
        restless.prune_all();
        restless.flush(0);
        assert!(quiet.store.rows == restless.store.rows, "seed {seed}: pruned stores hold the same rows");
        assert!(quiet.store.meta == restless.store.meta, "seed {seed}");
    }
}
