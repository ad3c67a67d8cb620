//! Keygate's store: an etcd in a library.
//!
//! One deterministic state machine ([`mvcc`]) holds every keyspace: keys, leases, alarms, users and
//! roles. A Raft log orders what happens to it and makes it durable ([`storage`]), one thread
//! applies it and publishes an immutable [`View`] after each batch. Serving threads read views
//! without waiting and get answers and events through a [`Port`].
//!
//! The engine takes a [`keygate_core::Permit`] and nothing else; it knows no caller, no policy's
//! rules and no plaintext.

pub mod background;

mod answer_room;
mod answering;
mod apply_times;
mod clock;
mod counters;
mod fatal;
mod identity;
mod options;

mod port;
mod read;
mod readers;
mod stream;
mod watch;
mod weigh;

mod consensus;
mod engine;
mod figures;
mod lease_clock;
mod recovery;
mod rows;
mod view;

pub mod mvcc;
pub mod storage;

pub use answer_room::{AnswerRoom, AnswerShare};
pub use answering::Answering;
pub use apply_times::{APPLY_BUCKETS, ApplyHistogram};
pub use clock::{Clock, SystemClock};
pub use counters::{DURATION_BUCKETS, DurationHistogram};
pub use engine::{Engine, EngineStats, OpenError, StoreSize, Surroundings};
pub use figures::{OTHER_TENANTS, TenantFigures};
pub use identity::Identity;
pub use mvcc::Keyspace;
pub use options::{AutoCompaction, EngineOptions};
pub use port::{Answered, Port};
pub use stream::{RangeChunk, RangeChunks};
pub use view::View;
pub use watch::{Decide, Standing, WatchCreateError, WatchCreated, WatchSession, WatchUpdate};
