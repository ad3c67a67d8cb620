//! Nanoseconds for each operation of the state machine and bytes for each key, without log and store.
//! `cargo run --release -p keygate-engine --example mvcc_bench`

use bytes::Bytes;
use keygate_core::*;
use keygate_engine::mvcc::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Counts what is allocated; malloc's own overhead is not in it.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator is the only way to see what the index really takes")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Open;

impl Policy for Open {
    fn fence(&self) -> Fence {
        Fence { platform: 0, keyspace: 1 }
    }
    fn is_enabled(&self) -> bool {
        false
    }
    fn knows(&self, _: &Caller) -> bool {
        true
    }
    fn decide_keys(&self, _: &Caller, _: KeyAction, _: &KeyRange) -> Decision {
        Decision::Allow
    }
    fn decide_other(&self, _: &Caller, _: &Access) -> Decision {
        Decision::Allow
    }
}

struct OpenCompile;

impl Compile for OpenCompile {
    fn compile(&self, _: KeyspaceId, _: &AuthTables, _: Option<&Arc<dyn Policy>>) -> Arc<dyn Policy> {
        Arc::new(Open)
    }
}

const KEYS: usize = 1_000_000;
/// Commands between two snapshots, as under load.
const BATCH: usize = 100;

/// Not in key order.
fn key(at: usize) -> Bytes {
    let scattered = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    Bytes::from(format!("/registry/pods/{scattered:013x}"))
}

fn put(key: Bytes, value: &Bytes) -> Command {
    Command {
        keyspace: KeyspaceId::DEFAULT,
        fence: Some(Fence { platform: 0, keyspace: 1 }),
        leases: Default::default(),
        attribution: None,
        operation: Operation::Put(Put {
            key,
            value: PutValue::Set(Sealed::stored_in_clear(Plaintext::new(value.clone())).into()),
            lease: PutLease::Set(LeaseId::NONE),
            prev_kv: false,
        }),
    }
}

/// Applies in batches, publishing a snapshot behind each, and flushes every hundredth batch.
fn run(state: &mut State, name: &str, count: usize, batch: usize, mut next: impl FnMut(usize) -> Command) {
    let mut snapshot = state.clone();
    let mut effects = Effects::default();
    let commands: Vec<Command> = (0..count).map(&mut next).collect();
    let begin = Instant::now();
    for (at, command) in commands.into_iter().enumerate() {
        let applied = state.apply(command, &MemoryOnly, &OpenCompile, &mut effects);
        assert!(applied.is_ok_and(|applied| applied.outcome.is_ok()));
        if (at + 1) % batch == 0 {
            let sealed = state.seal_batch();
            snapshot = state.clone();
            effects = Effects::default();
            if (at + 1) % (100 * batch) == 0 {
                state.flushed(sealed);
            }
        }
    }
    println!("{name:32} {:8.0} ns", begin.elapsed().as_nanos() as f64 / count as f64);
    drop(snapshot);
    let sealed = state.seal_batch();
    state.flushed(sealed);
}

fn main() {
    let value = Bytes::from(vec![7u8; 256]);
    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut state = State::new(&OpenCompile);
    run(&mut state, "put, new keys", KEYS, BATCH, |at| put(key(at), &value));
    let bytes = (ALLOCATED.load(Ordering::Relaxed) - before) / KEYS;
    println!(
        "{:32} {bytes:8} bytes a key with a value of 256; memory_used says {}",
        "memory",
        state.memory_used() as usize / KEYS
    );
    run(&mut state, "put, existing keys", KEYS, BATCH, |at| put(key(at), &value));
    run(&mut state, "put, a snapshot after each", KEYS / 10, 1, |at| put(key(at), &value));
    run(&mut state, "put, one hot key", KEYS / 10, BATCH, |_| put(key(0), &value));
    println!(
        "{:32} {:8} bytes a key with one or two old versions",
        "memory",
        (ALLOCATED.load(Ordering::Relaxed) - before) / KEYS
    );

    let keyspace = state.keyspace(KeyspaceId::DEFAULT).expect("the default keyspace always exists");
    let gets: Vec<Range> = (0..KEYS).map(|at| Range::of(KeyRange::Single(key(at * 7 % KEYS)))).collect();
    let begin = Instant::now();
    for get in &gets {
        assert!(keyspace.range(get, &Sight::WHOLE, &MemoryOnly).is_ok_and(|answer| answer.count == 1));
    }
    println!("{:32} {:8.0} ns", "get", begin.elapsed().as_nanos() as f64 / KEYS as f64);

    let mut starts: Vec<Bytes> = (0..KEYS).map(key).collect();
    starts.sort();
    let pages: Vec<Range> = (0..500)
        .map(|page| {
            Range::of(KeyRange::Span {
                start: starts[page * 1000].clone(),
                end: starts[page * 1000 + 1000].clone(),
            })
        })
        .collect();
    let begin = Instant::now();
    for page in &pages {
        assert!(
            keyspace.range(page, &Sight::WHOLE, &MemoryOnly).is_ok_and(|answer| answer.kvs.len() == 1000)
        );
    }
    println!("{:32} {:8.0} ns", "range of 1000", begin.elapsed().as_nanos() as f64 / pages.len() as f64);
    let limited = Range { limit: 500, ..Range::of(KeyRange::everything()) };
    let begin = Instant::now();
    assert!(keyspace.range(&limited, &Sight::WHOLE, &MemoryOnly).is_ok_and(|answer| answer.more));
    println!("{:32} {:8} ns", "limit 500 of everything", begin.elapsed().as_nanos());
    let begin = Instant::now();
    let span = KeyRange::Span { start: Bytes::from_static(b"/"), end: Bytes::from_static(b"0") };
    assert!(
        keyspace
            .range(&Range { limit: 500, ..Range::of(span) }, &Sight::WHOLE, &MemoryOnly)
            .is_ok_and(|answer| answer.more)
    );
    println!("{:32} {:8} ns", "limit 500 of a prefix of 1 M", begin.elapsed().as_nanos());

    let mut effects = Effects::default();
    let revision = keyspace.revision();
    let compact = Command {
        operation: Operation::Compact(Compact { revision, physical: false }),
        ..put(key(0), &value)
    };
    let begin = Instant::now();
    assert!(state.apply(compact, &MemoryOnly, &OpenCompile, &mut effects).is_ok_and(|a| a.outcome.is_ok()));
    while state.prune_step(1000, &mut effects) {}
    println!(
        "{:32} {:8.0} ns for each of {} rows",
        "prune",
        begin.elapsed().as_nanos() as f64 / effects.changes.len() as f64,
        effects.changes.len()
    );
    let half = state.memory_used() - 128 * KEYS as u64;
    let begin = Instant::now();
    let evicted = state.evict(half, 10 * KEYS);
    println!(
        "{:32} {:8.0} ns for each of {evicted} values",
        "evict",
        begin.elapsed().as_nanos() as f64 / evicted.max(1) as f64
    );
    println!("{:32} {:8} bytes a key", "memory", (ALLOCATED.load(Ordering::Relaxed) - before) / KEYS);
}
