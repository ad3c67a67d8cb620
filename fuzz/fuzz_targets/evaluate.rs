//! Random stories, told to the state machine and to a naive model: every answer, every refusal, every revision that is
//! kept and every event is the same, whatever was flushed, evicted, pruned or reloaded in between.
#![no_main]

#[path = "evaluate/member.rs"]
mod member;
#[path = "../../engine/tests/mvcc_model_of_etcd/mod.rs"]
mod model;
#[path = "evaluate/story.rs"]
mod story;
#[path = "evaluate/told.rs"]
mod told;

use arbitrary::{Arbitrary, Unstructured};
use keygate_core::{Answer, KeyRange, Limits, Operation, Range, Refusal, Sight};
use keygate_engine::mvcc::{HistoryLimits, MemoryOnly, ReadError};
use libfuzzer_sys::fuzz_target;
use member::Member;
use model::Model;
use story::{Act, Step};
use told::{Told, told};

const LIMITS: Limits = Limits { txn_operations: 128, txn_depth: 32 };
/// The model's work grows with the square of it.
const STEPS: usize = 64;
/// So that history comes in pieces.
const FEW: HistoryLimits = HistoryLimits { events: 3, ..HistoryLimits::NONE };

fuzz_target!(|data: &[u8]| {
    // Not a `Vec`, which ends with every second element.
    let mut data = Unstructured::new(data);
    let mut story = Vec::new();
    while story.len() < STEPS
        && !data.is_empty()
        && let Ok(step) = Step::arbitrary(&mut data)
    {
        story.push(step);
    }
    let (mut member, mut model) = (Member::new(), Model::new(member::MIN_TTL));
    for step in &story {
        if let Act::Disturb(disturbance) = &step.act {
            member.disturb(disturbance);
        }
        if let Some(operation) = step.act.operation(model.revision()) {
            run(operation, &mut member, &mut model);
        }
        let query = step.look.core(model.revision());
        if Operation::<keygate_core::Sealed>::Range(query.clone()).check(&LIMITS).is_ok() {
            look(&query, &member, &model);
        }
    }
    look_back(&member, &model);
    changes(&member, &model);
});

fn run(operation: Operation<keygate_core::Sealed>, member: &mut Member, model: &mut Model) {
    if operation.check(&LIMITS).is_err() {
        return;
    }
    // Read as the server reads such a txn: without the log.
    if let Operation::Txn(txn) = &operation
        && !operation.is_write()
    {
        let read = member.space().txn_read(txn, &member.store).map(Answer::Txn);
        assert_eq!(read, model.run(&operation).map_err(ReadError::from), "read-only {operation:?}");
    }
    let expected = model.run(&operation);
    let text = format!("{operation:?}");
    assert_eq!(member.run(operation), expected, "{text}");
    let space = member.space();
    assert_eq!((space.revision(), space.compact_revision()), (model.revision(), model.compacted), "{text}");
    assert_eq!(space.key_count(), model.now().len() as u64, "{text}");
    assert!(space.leases().map(|(id, _)| id.0).eq(model.leases.keys().copied()), "{text}");
    for (id, lease) in space.leases() {
        let keys: Vec<_> = lease.keys.iter().map(|key| key.to_vec()).collect();
        assert_eq!(keys, model.attached(id), "keys of {id:?} behind {text}");
    }
}

fn look(query: &Range, member: &Member, model: &Model) {
    let expected = model.range(query).map_err(ReadError::from);
    assert_eq!(member.space().range(query, &Sight::WHOLE, &member.store), expected, "{query:?}");
    // Memory alone answers the same, or says that it cannot.
    match member.space().range(query, &Sight::WHOLE, &MemoryOnly) {
        Err(ReadError::NeedsStore) => {}
        answer => assert_eq!(answer, expected, "{query:?}, from memory"),
    }
}

fn look_back(member: &Member, model: &Model) {
    for revision in 1..=model.revision() {
        look(&Range { revision, ..Range::of(KeyRange::everything()) }, member, model);
    }
}

/// What a watcher is told that starts behind the horizon and takes a few events at a time.
fn changes(member: &Member, model: &Model) {
    let space = member.space();
    let everything = KeyRange::everything();
    let first = (model.compacted + 1).max(1);
    let (mut next, mut seen) = (first, Vec::new());
    while next <= model.revision() {
        let changes = space
            .changes(next, model.revision(), &everything, &Sight::WHOLE, &member.store, &FEW)
            .expect("the horizon has not moved");
        assert!(changes.next_revision > next, "no progress at {next}");
        next = changes.next_revision;
        seen.extend(changes.events.into_iter().map(|event| Told {
            revision: event.kv.mod_revision,
            key: event.kv.key.clone(),
            now: (!event.deleted).then_some(event.kv),
            before: event.prev.map(|kv| kv.mod_revision),
        }));
    }
    assert!(seen.is_sorted_by_key(|told| told.revision), "events of a later revision came first");
    seen.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
    assert_eq!(seen, told(model, first), "events from {first} on");
    if model.compacted > 1 {
        let refused = space.changes(
            model.compacted - 1,
            model.revision(),
            &everything,
            &Sight::WHOLE,
            &member.store,
            &FEW,
        );
        assert_eq!(refused, Err(ReadError::Refused(Refusal::Compacted)));
    }
}
