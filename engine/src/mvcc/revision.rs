//! A point in a keyspace's history, and the name of the row that was written there.

use keygate_core::KeyspaceId;

/// `main` counts the changing requests of a keyspace; `sub` the single changes within one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Revision {
    pub main: i64,
    pub sub: u32,
}

impl Revision {
    /// The first that `main` can have.
    pub fn start_of(main: i64) -> Self {
        Self { main, sub: 0 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RowKey {
    pub keyspace: KeyspaceId,
    pub revision: Revision,
}
