//! Watches: every serving thread keeps its own registry of watchers and is handed each batch of
//! events once.
//!
//! A watcher is *live* when it has seen everything that its thread was handed, and *behind* when it
//! starts in the past or its client reads too slowly. A watcher that is behind costs no queue: it
//! reads history at its own pace and becomes live again when it has caught up. So a slow reader
//! never delays a write, another watcher, or grows memory beyond the budgets of its session and of its
//! keyspace. One that is owed more than it may be is ended, and told from which revision it can go on.

mod budget;
mod interest;
mod registry;

mod history;
mod outbox;
mod session;

pub(crate) use budget::Budgets;
pub use outbox::WatchUpdate;
pub use registry::{Decide, Standing};
pub(crate) use registry::{EventBatch, Registry};
pub use session::{WatchCreateError, WatchCreated, WatchSession};
