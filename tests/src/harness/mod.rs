//! Servers under test and clients for them.
//!
//! A [`Server`] is a real process, etcd or Keygate, on a free loopback port with a directory of
//! its own; dropping it kills that process and no other. A [`Client`] speaks to it through the
//! generated tonic clients. [`peers`] finds the programs and decides what a missing one means.
//! [`disks`] mounts small disks, and ones that lie about their size.

mod certificates;
mod client;
pub mod disks;
pub mod peers;
mod server;

pub use client::{Bearer, Client, Wire};
pub use server::{Endpoint, Plan, Program, Protection, ROOT_PASSWORD_FOR_ETCD, Server, TlsFiles};
