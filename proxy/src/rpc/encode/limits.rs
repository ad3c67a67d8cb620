//! Limits in force, and who asks for how much.

use keygate_core::{Answer, LimitInfo, LoadInfo, Plaintext, Reply};
use keygate_engine::Identity;
use keygate_proto::admin as pb;

use super::{ANOTHER_ANSWER, Encoded};

pub(in crate::rpc) fn limits(_: Identity, reply: Reply<Plaintext>) -> Encoded<pb::LimitsResponse> {
    let Answer::Limits(limits) = reply.answer else { return Err(ANOTHER_ANSWER) };
    let told = |LimitInfo { path, value }| pb::Limit { path, limit: value };
    Ok(pb::LimitsResponse { limits: limits.into_iter().map(told).collect() })
}

pub(in crate::rpc) fn load(_: Identity, reply: Reply<Plaintext>) -> Encoded<pb::LoadResponse> {
    let Answer::Load(users) = reply.answer else { return Err(ANOTHER_ANSWER) };
    let told = |info: LoadInfo| {
        let LoadInfo { tenant, user, requests, bytes_in, bytes_out, refusals, watches, connections } = info;
        pb::UserLoad { tenant, user, requests, bytes_in, bytes_out, refusals, watches, connections }
    };
    Ok(pb::LoadResponse { users: users.into_iter().map(told).collect() })
}
