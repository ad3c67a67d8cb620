//! Members, alarms, status, hashes, health.

use keygate_core::{AlarmKind, AlarmMember, Answer, MemberInfo, Plaintext, Reply, StatusAnswer};
use keygate_engine::Identity;
use keygate_proto::{etcdserverpb as pb, health};

use super::{ANOTHER_ANSWER, Encoded, header, header_of};
use crate::cli::{ETCD_CLUSTER_VERSION, ETCD_VERSION};

pub(in crate::rpc) fn member_list(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::MemberListResponse> {
    // Members are of no revision.
    let header = header(identity, 0, reply.term);
    let Answer::Members(members) = reply.answer else { return Err(ANOTHER_ANSWER) };
    let members = members.into_iter();
    let members = members
        .map(|MemberInfo { id, name, peer_urls, client_urls, is_learner }| pb::Member {
            id,
            name,
            peer_urls,
            client_urls,
            is_learner,
        })
        .collect();
    Ok(pb::MemberListResponse { header, members })
}

/// Of what is refused to everybody.
pub(in crate::rpc) fn nothing(_: Identity, _: Reply<Plaintext>) -> Encoded<pb::SnapshotResponse> {
    Err(ANOTHER_ANSWER)
}

pub(in crate::rpc) fn alarm(identity: Identity, reply: Reply<Plaintext>) -> Encoded<pb::AlarmResponse> {
    let header = header_of(identity, &reply);
    let Answer::Alarms(alarms) = reply.answer else { return Err(ANOTHER_ANSWER) };
    let alarms = alarms.into_iter();
    let alarms = alarms
        .map(|AlarmMember { member, alarm }| pb::AlarmMember {
            member_id: member,
            alarm: alarm_type(alarm).into(),
        })
        .collect();
    Ok(pb::AlarmResponse { header, alarms })
}

pub(in crate::rpc) fn status(identity: Identity, reply: Reply<Plaintext>) -> Encoded<pb::StatusResponse> {
    let header = header_of(identity, &reply);
    let Answer::Status(status) = reply.answer else { return Err(ANOTHER_ANSWER) };
    let StatusAnswer {
        db_size,
        db_size_in_use,
        db_size_quota,
        leader,
        raft_index,
        raft_term,
        raft_applied_index,
        alarms,
    } = *status;
    let mut errors = Vec::new();
    if leader == 0 {
        errors.push("etcdserver: no leader".to_owned());
    }
    errors.extend(alarms.into_iter().map(|AlarmMember { member, alarm }| {
        format!("memberID:{member} alarm:{}", alarm_type(alarm).as_str_name())
    }));
    Ok(pb::StatusResponse {
        header,
        version: ETCD_VERSION.to_owned(),
        // etcdctl divides by it.
        db_size: db_size.max(1),
        leader,
        raft_index,
        raft_term,
        raft_applied_index,
        errors,
        db_size_in_use,
        is_learner: false,
        // The schema of etcd's storage has the same number.
        storage_version: ETCD_CLUSTER_VERSION.to_owned(),
        db_size_quota,
        downgrade_info: Some(pb::DowngradeInfo::default()),
    })
}

pub(in crate::rpc) fn defragment(_: Identity, reply: Reply<Plaintext>) -> Encoded<pb::DefragmentResponse> {
    let Answer::Done = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::DefragmentResponse { header: None })
}

pub(in crate::rpc) fn hash(identity: Identity, reply: Reply<Plaintext>) -> Encoded<pb::HashResponse> {
    let header = header_of(identity, &reply);
    let Answer::Hash { hash } = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::HashResponse { header, hash })
}

pub(in crate::rpc) fn hash_kv(identity: Identity, reply: Reply<Plaintext>) -> Encoded<pb::HashKvResponse> {
    let header = header_of(identity, &reply);
    let Answer::HashKv { hash, compact_revision, hash_revision } = reply.answer else {
        return Err(ANOTHER_ANSWER);
    };
    Ok(pb::HashKvResponse { header, hash, compact_revision, hash_revision })
}

pub(in crate::rpc) fn health(reply: Reply<Plaintext>) -> Encoded<health::HealthCheckResponse> {
    let Answer::Serving = reply.answer else { return Err(ANOTHER_ANSWER) };
    let status = health::health_check_response::ServingStatus::Serving;
    Ok(health::HealthCheckResponse { status: status.into() })
}

fn alarm_type(alarm: AlarmKind) -> pb::AlarmType {
    match alarm {
        AlarmKind::None => pb::AlarmType::None,
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    }
}
