//! The Keygate server as a library. Modules stand in the order in which a request meets them; a
//! blank line keeps rustfmt from sorting each two.

// Connection permit, handshake deadline, HTTP.
pub mod accept;

// Certificates of both sides, read again when they change.
pub mod tls;

// Certificate, token or password: who asks.
pub mod identify;

// Messages to operations, answers to messages.
pub mod rpc;

// The order of the stages that follow.
pub mod stack;

// How much of it the caller may have.
pub mod limit;

pub mod authorize;
pub mod denials;
pub mod policies;
pub mod policy_change;

pub mod transform;

pub mod dispatch;
pub mod operator_log;

// Refusals to codes and etcd's texts.
pub mod status;

// Beside the way of a request: pages without a login.
pub mod http;
pub mod metrics;
pub mod quota_watch;
pub mod quota_webhook;

// Before and around it.
pub mod config;

pub mod cli;
pub mod logging;
pub mod notify;
pub(crate) mod outbound;
pub mod pki;
pub mod policy_files;

// Starts everything, and ends it.
pub mod app;
