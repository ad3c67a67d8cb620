//! Reads that leave out keys cost what they show: hidden keys are jumped over, and the jumps are counted.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mvcc_store;

use keygate_core::*;
use keygate_engine::mvcc::*;
use mvcc_store::*;

const HIDDEN: usize = 3_000;

/// `a/…` and `z/…` are few, `h/…` are many.
fn machine() -> Machine {
    let mut m = Machine::new();
    for number in 0..5 {
        m.put(&format!("a/{number}"), "v");
        m.put(&format!("z/{number}"), "v");
    }
    for number in 0..HIDDEN {
        m.put(&format!("h/{number:05}"), "v");
    }
    m
}

fn walks_within(m: &Machine, sight: &Sight, entries: usize) -> bool {
    m.space().range_walks_within(&Range::of(KeyRange::everything()), sight, entries, &m.store).unwrap()
}

#[test]
fn a_hidden_stretch_costs_one_step_however_many_keys_it_holds() {
    let m = machine();
    let sight = Sight::without([span("h/", "h0")]);
    assert!(walks_within(&m, &sight, 11) && !walks_within(&m, &sight, 10), "ten keys and a jump");
    assert!(!walks_within(&m, &Sight::WHOLE, HIDDEN), "without it they are all walked over");
    let all = Range::of(KeyRange::everything());
    let seen = m.space().range(&all, &sight, &Gone(&m.store)).unwrap();
    assert_eq!((seen.count, seen.kvs.len()), (10, 10));
    assert_eq!(m.space().range(&all, &Sight::WHOLE, &Gone(&m.store)), Err(ReadError::Abandoned));
}

#[test]
fn stretches_without_keys_cost_nothing_and_others_a_step_each() {
    let m = machine();
    let none = (0..1_000).map(|number| single(&format!("m/{number}")));
    assert!(walks_within(&m, &Sight::without(none), HIDDEN + 10));
    let each = || (0..HIDDEN).map(|number| single(&format!("h/{number:05}")));
    let sight = Sight::without(each());
    assert!(walks_within(&m, &sight, HIDDEN + 10) && !walks_within(&m, &sight, HIDDEN + 9));
    let all = Range { count_only: true, ..Range::of(KeyRange::everything()) };
    assert_eq!(m.space().range(&all, &sight, &m.store).unwrap().count, 10);
    // Whoever does not wait any more is noticed between two jumps too.
    let read = m.space().range(&all, &sight, &Gone(&m.store));
    assert_eq!(read, Err(ReadError::Abandoned));
}

/// History is bounded by the rows on the way, not by the events that are shown.
#[test]
fn history_of_hidden_keys_is_looked_at_in_steps() {
    let m = machine();
    let sight = Sight::without([span("h/", "h0")]);
    let limits = HistoryLimits { scanned: 100 * HistoryLimits::ROW, ..HistoryLimits::NONE };
    let (mut next, mut steps, mut events) = (1, 0, 0);
    while next <= m.revision() {
        let found = m
            .space()
            .changes(next, m.revision(), &KeyRange::everything(), &sight, &m.store, &limits)
            .unwrap();
        assert!(found.next_revision > next);
        (next, steps, events) = (found.next_revision, steps + 1, events + found.events.len());
    }
    assert_eq!(events, 10);
    assert!(steps >= HIDDEN / 100, "{steps} steps");
}
