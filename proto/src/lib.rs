//! etcd's v3 API as Rust types, clients and servers.
//!
//! The text in `proto/` is our own; its packages, names and numbers are etcd's as of 3.7, so any
//! etcd client speaks to a server made from it. One module per protobuf package:
//!
//! | module | package | services |
//! |---|---|---|
//! | [`etcdserverpb`] | `etcdserverpb` | KV, Watch, Lease, Cluster, Maintenance, Auth |
//! | [`mvccpb`] | `mvccpb` | |
//! | [`authpb`] | `authpb` | |
//! | [`v3lockpb`] | `v3lockpb` | Lock |
//! | [`v3electionpb`] | `v3electionpb` | Election |
//! | [`admin`] | `keygate.admin.v1` | Tenants, Quotas, Policies, Limits, Load |
//! | [`health`] | `grpc.health.v1` | Health |
//!
//! For a service `KV`, tonic makes the trait `etcdserverpb::kv_server::Kv`, the server
//! `etcdserverpb::kv_server::KvServer` and the client `etcdserverpb::kv_client::KvClient`.
//!
//! # Promises
//!
//! - `Debug` of any message prints the length of a value, password, digest, token or snapshot
//!   chunk, never its content. Keys and names are printed. The content is still in the message:
//!   `Clone` and encoding copy it.
//! - A `bytes` field is a [`bytes::Bytes`]: decoding from a shared buffer copies no value. The
//!   price: such a field keeps the whole buffer alive, so copy what outlives the request.
//! - Decoding refuses messages nested deeper than prost's limit of 100; no input makes it
//!   overflow the stack. A transaction in a transaction costs two levels.
//! - Rust field names are snake case (`id`, `ttl`, `target_id`, `peer_urls`). The names on the
//!   wire, which JSON shows, are in [`FILE_DESCRIPTOR_SET`].

mod methods;
mod redact;
pub mod rpc;

pub use methods::{Method, descriptors, methods};

/// The encoded `google.protobuf.FileDescriptorSet` of every package here, without comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Package `etcdserverpb`: six services and their messages.
#[allow(clippy::all, rustdoc::broken_intra_doc_links, reason = "generated")]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Package `mvccpb`: a key-value pair and its changes.
#[allow(clippy::all, rustdoc::broken_intra_doc_links, reason = "generated")]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Package `authpb`: users, roles, permissions.
#[allow(clippy::all, rustdoc::broken_intra_doc_links, reason = "generated")]
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// Package `v3lockpb`: the lock service.
#[allow(clippy::all, rustdoc::broken_intra_doc_links, reason = "generated")]
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// Package `v3electionpb`: the election service.
#[allow(clippy::all, rustdoc::broken_intra_doc_links, reason = "generated")]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// Package `keygate.admin.v1`: tenants, quotas and the policy of all. Our own, not etcd's.
#[allow(clippy::all, rustdoc::broken_intra_doc_links, reason = "generated")]
pub mod admin {
    tonic::include_proto!("keygate.admin.v1");
}

/// Package `grpc.health.v1`: the health service.
#[allow(clippy::all, rustdoc::broken_intra_doc_links, reason = "generated")]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}
