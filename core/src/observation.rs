//! What an operator can look at that is in no keyspace: limits in force, and who asks for how much.

/// What is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observation {
    Limits,
    /// At most so many users, those that asked most first.
    Load {
        most: usize,
    },
}

/// One limit that is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitInfo {
    /// Where the configuration has it.
    pub path: String,
    pub value: String,
}

/// What a user asked for since it is counted: while it is idle it may be forgotten, and is then counted anew.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoadInfo {
    pub tenant: String,
    /// Empty: those who have not said who they are, where nobody is asked.
    pub user: String,
    pub requests: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub refusals: u64,
    /// Held at the moment.
    pub watches: u64,
    pub connections: u64,
}
