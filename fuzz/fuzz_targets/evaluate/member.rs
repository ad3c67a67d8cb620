//! A member without disk, network and policy: the state machine and a store in memory that is written behind.

use bytes::Bytes;
use keygate_core::{
    Access, Answer, AuthTables, Caller, Compile, Decision, Fence, KeyAction, KeyRange, KeyspaceId, Operation,
    Policy, Refusal, Sealed,
};
use keygate_engine::mvcc::{
    Change, Command, Effects, Keyspace, Loader, Revision, Row, RowError, RowKey, RowSource, State,
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::story::Disturbance;

/// Of a lease, in seconds.
pub const MIN_TTL: i64 = 1;

pub struct Member {
    state: State,
    pub store: Rows,
    effects: Effects,
    /// Sealed, and not in the store.
    waiting: Vec<(u64, Vec<Change>)>,
}

/// Rows as bytes, so that their format is always in between.
#[derive(Default)]
pub struct Rows {
    rows: BTreeMap<RowKey, Bytes>,
    meta: BTreeMap<Bytes, Bytes>,
}

impl Member {
    pub fn new() -> Self {
        Self {
            state: State::new(&NoPolicy),
            store: Rows::default(),
            effects: Effects::default(),
            waiting: Vec::new(),
        }
    }

    pub fn space(&self) -> &Keyspace {
        self.state.keyspace(KeyspaceId::DEFAULT).expect("the default keyspace always exists")
    }

    pub fn run(&mut self, operation: Operation<Sealed>) -> Result<Answer<Sealed>, Refusal> {
        let Ok(operation) = operation.try_map_values(&mut |_, value| Ok::<_, Infallible>(value.into()));
        let command = Command {
            keyspace: KeyspaceId::DEFAULT,
            fence: None,
            leases: Default::default(),
            attribution: None,
            operation,
        };
        let bytes = command.encode().expect("a write can be written");
        let command = Command::decode(&bytes).expect("what was written can be read");
        let before = (self.effects.changes.len(), self.effects.events.len());
        let applied = self.state.apply(command, &self.store, &NoPolicy, &mut self.effects);
        let outcome = applied.expect("no command damages its member").outcome;
        if outcome.is_err() {
            assert_eq!(before, (self.effects.changes.len(), self.effects.events.len()), "a refusal changed");
        }
        outcome
    }

    pub fn disturb(&mut self, disturbance: &Disturbance) {
        match disturbance {
            Disturbance::Seal => self.seal(),
            Disturbance::Flush(keep) => self.flush(usize::from(keep % 3)),
            Disturbance::Prune(keys) => {
                self.state.prune_step(usize::from(*keys % 5), &mut self.effects);
            }
            Disturbance::Evict(target, keys) => {
                self.state.evict(u64::from(*target), usize::from(*keys));
            }
            Disturbance::Reload(budget) => self.reload(u64::from(*budget)),
        }
    }

    fn seal(&mut self) {
        let changes = std::mem::take(&mut self.effects).changes;
        self.waiting.push((self.state.seal_batch(), changes));
    }

    fn flush(&mut self, keep: usize) {
        self.seal();
        let count = self.waiting.len().saturating_sub(keep);
        for (batch, changes) in self.waiting.drain(..count) {
            self.store.commit(changes);
            self.state.flushed(batch);
        }
    }

    /// A clean restart.
    fn reload(&mut self, budget: u64) {
        self.flush(0);
        let mut loader = Loader::new(budget);
        for (key, value) in &self.store.meta {
            loader.meta(key, value).expect("metadata that was written can be read");
        }
        for (key, row) in &self.store.rows {
            let row = Row::decode(row.clone()).expect("a row that was written can be read");
            loader.row(*key, row).expect("rows that were written fit together");
        }
        let (state, left_over) = loader.finish(&NoPolicy).expect("what was stored can be loaded");
        self.store.commit(left_over);
        self.state = state;
    }
}

impl Rows {
    fn commit(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::PutRow(key, row) => drop(self.rows.insert(key, row.encode())),
                Change::DeleteRow(key) => drop(self.rows.remove(&key)),
                Change::PutMeta(key, value) => drop(self.meta.insert(key, value)),
                Change::DeleteMeta(key) => drop(self.meta.remove(&key)),
            }
        }
    }
}

impl RowSource for Rows {
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
        let keys = RowKey { keyspace, revision: from }..RowKey { keyspace, revision: to_exclusive };
        for (key, row) in self.rows.range(keys) {
            if visit(key.revision, Row::decode(row.clone())?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

struct NoPolicy;

impl Compile for NoPolicy {
    fn compile(&self, _: KeyspaceId, _: &AuthTables, _: Option<&Arc<dyn Policy>>) -> Arc<dyn Policy> {
        Arc::new(NoPolicy)
    }
}

impl Policy for NoPolicy {
    fn fence(&self) -> Fence {
        Fence::default()
    }

    fn is_enabled(&self) -> bool {
        false
    }

    fn knows(&self, _: &Caller) -> bool {
        false
    }

    fn decide_keys(&self, _: &Caller, _: KeyAction, _: &KeyRange) -> Decision {
        Decision::Deny
    }

    fn decide_other(&self, _: &Caller, _: &Access) -> Decision {
        Decision::Deny
    }
}
