//! The same calls on etcd and on Keygate, one after the other, answers compared.
//!
//! A [`run`] is a number of segments. Each starts two fresh servers, draws calls from a seed (and
//! from what the oracle answered so far) and makes each call on both before the next. Answers,
//! watch events, error codes and error texts must be equal after [`normalise`] took out what may
//! differ by nature: ids of clusters, members and leases that a server picked, Raft terms, ports,
//! tokens, seconds that passed. What else differs must be a documented difference, see
//! [`allowance`].

mod allowance;
mod call;
mod driver;
mod generate;
mod neighbours;
mod normalise;
mod report;
mod scenario;
mod side;
mod watch;

pub use allowance::documented;
pub use driver::{Contest, run};
pub use neighbours::{Neighbourhood, NeighboursReport, run_beside_neighbours};
pub use report::Report;
pub use side::Tamper;
