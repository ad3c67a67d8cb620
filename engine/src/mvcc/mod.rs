//! The state machine: `(state, command) → (state', effects)`.
//!
//! Promises: no I/O, no clock, no randomness, no hash-map order; equal commands in equal order give equal states and
//! equal changes on every member, also when a member was reloaded from its store in between. What is not in memory is
//! asked from a [`RowSource`], which the caller brings. A [`State`] is a persistent value: a clone is a snapshot that
//! readers keep while the writer goes on.
//!
//! The formats of commands, rows and metadata are in `docs/formats/command.md` and `docs/formats/state.md`.

mod body;
mod command;
mod revision;
mod row;
mod value;

mod effects;
mod state;

mod entry;
mod key;
mod keyspace;
mod pending;

mod changes;
mod hash;
mod read;
mod seen;

mod alarm;
mod auth;
mod lease;
mod txn;
mod walk;
mod write;

mod platform;
mod quota;
mod tenants;

mod compact;
mod evict;

mod load;
mod meta;

pub use changes::{Changes, HistoryLimits};
pub use command::{Command, CommandError};
pub use effects::{Change, Compaction, Effects, Erased, LeaseEffect, StoredEvent};
pub use hash::{HashAnswer, RowHasher, hash_kv};
pub use keyspace::Keyspace;
pub use lease::Lease;
pub use load::{LoadError, Loader};
pub use read::ReadError;
pub use revision::{Revision, RowKey};
pub use row::{MemoryOnly, Row, RowError, RowSource};
pub use state::{Applied, ApplyError, State};
pub use value::StoredValue;
