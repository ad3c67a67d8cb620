//! Answers → etcd's messages, each with the header that etcd gives it.
//!
//! Most headers say who answered and as of which revision. Those of the Cluster service have
//! revision 0, Defragment has none at all, and what is inside a txn tells only revisions.

mod auth;
mod kv;
mod lease;
mod limits;
mod maintenance;
mod policies;
mod quotas;
mod tenants;

pub(super) use auth::*;
pub(super) use kv::*;
pub(super) use lease::*;
pub(super) use limits::*;
pub(super) use maintenance::*;
pub(super) use policies::*;
pub(super) use quotas::*;
pub(super) use tenants::*;

use bytes::Bytes;
use keygate_core::{Plaintext, Refusal, Reply};
use keygate_engine::Identity;
use keygate_proto::etcdserverpb as pb;
use prost::Message;
use tonic::Status;

use super::frame;
use crate::status;

/// Writes the answer of one RPC as a framed message.
pub(super) type Encode = fn(Identity, Reply<Plaintext>) -> Result<Bytes, Status>;

type Encoded<M> = Result<M, Refusal>;

/// The engine answered another question than was asked: a defect of ours.
const ANOTHER_ANSWER: Refusal = Refusal::Internal { cause: "the answer is not of the request's kind" };

pub(super) fn framed<M: Message>(encoded: Encoded<M>) -> Result<Bytes, Status> {
    frame::framed(&encoded.map_err(|refusal| status::of(&refusal))?)
}

/// The common header.
pub(super) fn header(identity: Identity, revision: i64, term: u64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        revision,
        raft_term: term,
    })
}

fn header_of(identity: Identity, reply: &Reply<Plaintext>) -> Option<pb::ResponseHeader> {
    header(identity, reply.revision, reply.term)
}
