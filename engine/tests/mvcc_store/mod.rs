//! A member without disk and network: the state machine, a store in memory that is written behind, an open policy.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::new_without_default,
    unreachable_pub,
    reason = "tests, of which each file uses a part"
)]

use bytes::Bytes;
use keygate_core::*;
use keygate_engine::mvcc::*;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What the state machine makes of less.
pub const MIN_TTL: i64 = 1;

/// Allows everything; its fence tells the tables' policy version.
pub struct Open(u64, bool);

impl Policy for Open {
    fn fence(&self) -> Fence {
        Fence { platform: 0, keyspace: self.0 }
    }
    fn is_enabled(&self) -> bool {
        self.1
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

pub struct OpenCompile;

impl Compile for OpenCompile {
    fn compile(&self, _: KeyspaceId, tables: &AuthTables, _: Option<&Arc<dyn Policy>>) -> Arc<dyn Policy> {
        Arc::new(Open(tables.policy_version, tables.enabled))
    }
}

/// Rows as bytes, so that every test goes through their format.
#[derive(Default, Clone, PartialEq)]
pub struct MemoryStore {
    pub rows: BTreeMap<RowKey, Bytes>,
    pub meta: BTreeMap<Bytes, Bytes>,
}

impl MemoryStore {
    pub fn commit(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::PutRow(key, row) => {
                    self.rows.insert(*key, row.encode());
                }
                Change::DeleteRow(key) => {
                    self.rows.remove(key);
                }
                Change::PutMeta(key, value) => {
                    self.meta.insert(key.clone(), value.clone());
                }
                Change::DeleteMeta(key) => {
                    self.meta.remove(key);
                }
            }
        }
    }
}

impl RowSource for MemoryStore {
    fn row(&self, key: RowKey) -> Result<Row, RowError> {
        Row::decode(self.rows.get(&key).ok_or(RowError::Missing(key))?.clone())
    }

    fn scan(
        &self,
        keyspace: KeyspaceId,
        from: Revision,
        to_exclusive: Revision,
        visit: &mut dyn FnMut(Revision, Row) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        let bounds = RowKey { keyspace, revision: from }..RowKey { keyspace, revision: to_exclusive };
        for (key, row) in self.rows.range(bounds) {
            if visit(key.revision, Row::decode(row.clone())?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

pub struct Machine {
    pub state: State,
    pub store: MemoryStore,
    /// Since the last seal.
    pub effects: Effects,
    /// Sealed, not in the store.
    pub waiting: Vec<(u64, Vec<Change>)>,
    /// Every event so far.
    pub events: Vec<StoredEvent>,
    /// Every change that the log made, prunings left out.
    pub changes: Vec<Change>,
    pub keyspace: KeyspaceId,
}

impl Machine {
    pub fn new() -> Self {
        Self {
            state: State::new(&OpenCompile),
            store: MemoryStore::default(),
            effects: Effects::default(),
            waiting: Vec::new(),
            events: Vec::new(),
            changes: Vec::new(),
            keyspace: KeyspaceId::DEFAULT,
        }
    }

    pub fn space(&self) -> &Keyspace {
        self.state.keyspace(self.keyspace).unwrap()
    }

    pub fn apply(&mut self, command: Command) -> Applied {
        let bytes = command.encode().unwrap();
        let command = Command::decode(&bytes).unwrap();
        let (before, seen) = (self.effects.changes.len(), self.effects.events.len());
        let applied = self.state.apply(command, &self.store, &OpenCompile, &mut self.effects).unwrap();
        self.changes.extend_from_slice(&self.effects.changes[before..]);
        self.events.extend_from_slice(&self.effects.events[seen..]);
        if applied.outcome.is_err() {
            assert_eq!(before, self.effects.changes.len(), "a refusal has no effect");
        }
        applied
    }

    pub fn run(&mut self, operation: Operation<Sealed>) -> Result<Answer<Sealed>, Refusal> {
        let keyspace = self.keyspace;
        self.apply(internal(keyspace, operation)).outcome
    }

    pub fn seal(&mut self) {
        let changes = std::mem::take(&mut self.effects).changes;
        let batch = self.state.seal_batch();
        self.waiting.push((batch, changes));
    }

    /// Seals, and brings all but the last `keep` batches into the store.
    pub fn flush(&mut self, keep: usize) {
        self.seal();
        let count = self.waiting.len().saturating_sub(keep);
        for (batch, changes) in self.waiting.drain(..count) {
            self.store.commit(&changes);
            self.state.flushed(batch);
        }
    }

    pub fn prune(&mut self, max_keys: usize) -> bool {
        self.state.prune_step(max_keys, &mut self.effects)
    }

    pub fn prune_all(&mut self) {
        while self.prune(3) {}
    }

    /// A clean restart.
    pub fn reload(&mut self, memory_budget: u64) {
        self.flush(0);
        let mut loader = Loader::new(memory_budget);
        for (key, value) in self.store.meta.iter().rev() {
            loader.meta(key, value).unwrap();
        }
        for (key, row) in &self.store.rows {
            loader.row(*key, Row::decode(row.clone()).unwrap()).unwrap();
        }
        let (state, left_over) = loader.finish(&OpenCompile).unwrap();
        self.store.commit(&left_over);
        self.state = state;
    }

    pub fn range(&self, range: &Range) -> Result<RangeAnswer<Sealed>, ReadError> {
        self.space().range(range, &Sight::WHOLE, &self.store)
    }

    pub fn get(&self, key: &str) -> Option<KeyValue<Sealed>> {
        self.range(&Range::of(single(key))).unwrap().kvs.pop()
    }

    pub fn put(&mut self, key: &str, text: &str) {
        self.run(put(key, text)).unwrap();
    }

    pub fn delete(&mut self, key: &str) -> i64 {
        match self.run(delete(single(key))).unwrap() {
            Answer::Delete { deleted, .. } => deleted,
            other => panic!("{other:?}"),
        }
    }

    pub fn revision(&self) -> i64 {
        self.space().revision()
    }
}

pub fn internal(keyspace: KeyspaceId, operation: Operation<Sealed>) -> Command {
    Command {
        keyspace,
        fence: None,
        leases: Default::default(),
        attribution: None,
        operation: stored(operation),
    }
}

pub fn stored(operation: Operation<Sealed>) -> Operation<StoredValue> {
    operation
        .try_map_values(&mut |_, value| Ok::<_, std::convert::Infallible>(value.into()))
        .unwrap_or_else(|never| match never {})
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn value(text: &str) -> Sealed {
    Sealed::stored_in_clear(Plaintext::new(bytes(text)))
}

pub fn text(kv: &KeyValue<Sealed>) -> String {
    String::from_utf8(kv.value.as_ref().expect("a value").stored_bytes().to_vec()).unwrap()
}

pub fn single(key: &str) -> KeyRange {
    KeyRange::Single(bytes(key))
}

pub fn span(start: &str, end: &str) -> KeyRange {
    KeyRange::Span { start: bytes(start), end: bytes(end) }
}

pub fn put_of(key: &str, text: &str) -> Put<Sealed> {
    Put {
        key: bytes(key),
        value: PutValue::Set(value(text)),
        lease: PutLease::Set(LeaseId::NONE),
        prev_kv: false,
    }
}

pub fn put(key: &str, text: &str) -> Operation<Sealed> {
    Operation::Put(put_of(key, text))
}

pub fn put_leased(key: &str, text: &str, lease: i64) -> Operation<Sealed> {
    Operation::Put(Put { lease: PutLease::Set(LeaseId(lease)), ..put_of(key, text) })
}

pub fn delete(range: KeyRange) -> Operation<Sealed> {
    Operation::DeleteRange(DeleteRange { range, prev_kv: false })
}

pub fn compact(revision: i64) -> Operation<Sealed> {
    Operation::Compact(Compact { revision, physical: false })
}

pub fn grant(id: i64, ttl: i64) -> Operation<Sealed> {
    Operation::LeaseGrant(LeaseGrant { id: LeaseId(id), ttl })
}

pub fn revoke(id: i64) -> Operation<Sealed> {
    Operation::LeaseRevoke(LeaseRevoke { id: LeaseId(id) })
}

pub fn txn(success: Vec<TxnOp<Sealed>>) -> Txn<Sealed> {
    Txn { compare: Vec::new(), success, failure: Vec::new() }
}

pub fn compare(range: KeyRange, op: CompareOp, target: CompareTarget<Sealed>) -> Compare<Sealed> {
    Compare { range, op, target }
}

/// Who asked has gone.
pub struct Gone<'a>(pub &'a MemoryStore);

impl RowSource for Gone<'_> {
    fn row(&self, key: RowKey) -> Result<Row, RowError> {
        self.0.row(key)
    }

    fn scan(
        &self,
        keyspace: KeyspaceId,
        from: Revision,
        to_exclusive: Revision,
        visit: &mut dyn FnMut(Revision, Row) -> ControlFlow<()>,
    ) -> Result<(), RowError> {
        self.0.scan(keyspace, from, to_exclusive, visit)
    }

    fn wanted(&self) -> bool {
        false
    }
}
