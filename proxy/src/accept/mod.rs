//! From a port to requests: listeners, the hand-over to serving threads, TLS, and HTTP.
//!
//! - One exclusive listener for each address. `SO_REUSEPORT` is never set: with it a second server
//!   would bind silently and take clients away.
//! - One thread accepts and hands each connection to the least loaded serving thread, where it
//!   stays. Serving threads have a runtime of one thread each; nothing of a connection crosses them, but that one
//!   which costs more than it is worth goes to the [`slow_lane`] until it has behaved.
//! - Until a connection has proved who it is, it is one of a limited number of [`Strangers`], and may
//!   have little under way; one that never does is told to go.
//! - A connection that floods HTTP/2 with frames that carry nothing is closed ([`flood`]).
//! - A connection that does not finish its handshake and begin to speak HTTP in time is closed.

mod acceptor;
mod bad_names;
mod connection;
mod flood;
mod handler;
mod lapse;
mod listener;
mod log_budget;
mod probation;
mod rarely;
mod slow_lane;
mod socket;
mod strangers;
mod stream;
mod until_end;
mod worker;
mod worth;

pub use acceptor::{Acceptor, Listening};
pub use connection::HttpLimits;
pub use handler::{Handler, Served, Stages};
pub use listener::{BindError, Endpoint, bind};
pub(crate) use log_budget::{Line as LogLine, LogBudget};
pub use strangers::Strangers;
pub use worker::{Drain, MakeHandler, Shared, Workers};

#[cfg(test)]
mod tests;
