//! What a server that is killed at any instant must still be able to prove.
//!
//! Writers note what they asked for and what they were told; after each restart the server's own
//! history, read through a watch, is held against those notes by [`History::check`].

mod history;
mod writer;

pub use history::{Change, Fault, History, Record};
pub use writer::{Notes, write_until_it_fails};
