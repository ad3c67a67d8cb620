//! Ranges, puts, deletions, txns and events.

use keygate_core::{Answer, Event, KeyValue, Plaintext, RangeAnswer, Reply, TxnAnswer};
use keygate_engine::Identity;
use keygate_proto::{etcdserverpb as pb, mvccpb};
use pb::response_op::Response;

use super::{ANOTHER_ANSWER, Encoded, header_of};

pub(in crate::rpc) fn range(identity: Identity, reply: Reply<Plaintext>) -> Encoded<pb::RangeResponse> {
    let header = header_of(identity, &reply);
    let Answer::Range(answer) = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(range_response(header, answer))
}

/// One piece of a streamed range. Only the last says what is true of the whole.
pub(in crate::rpc) fn range_chunk(
    identity: Identity,
    reply: Reply<Plaintext>,
    last: bool,
) -> Encoded<pb::RangeStreamResponse> {
    let header = header_of(identity, &reply);
    let Answer::Range(answer) = reply.answer else { return Err(ANOTHER_ANSWER) };
    let mut response = range_response(header, answer);
    if !last {
        response = pb::RangeResponse { kvs: response.kvs, ..pb::RangeResponse::default() };
    }
    Ok(pb::RangeStreamResponse { range_response: Some(response) })
}

pub(in crate::rpc) fn put(identity: Identity, reply: Reply<Plaintext>) -> Encoded<pb::PutResponse> {
    let header = header_of(identity, &reply);
    let Answer::Put { prev } = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::PutResponse { header, prev_kv: prev.map(key_value) })
}

pub(in crate::rpc) fn delete_range(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::DeleteRangeResponse> {
    let header = header_of(identity, &reply);
    let Answer::Delete { deleted, prev } = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(delete_response(header, deleted, prev))
}

pub(in crate::rpc) fn txn(identity: Identity, reply: Reply<Plaintext>) -> Encoded<pb::TxnResponse> {
    let header = header_of(identity, &reply);
    let revision = reply.revision;
    let Answer::Txn(answer) = reply.answer else { return Err(ANOTHER_ANSWER) };
    // The txn's revision is one more than that of the state it began on, if it changed anything.
    let mut at = revision - i64::from(answer.responses.iter().any(changes));
    txn_response(header, answer, &mut at, revision)
}

pub(in crate::rpc) fn compact(
    identity: Identity,
    reply: Reply<Plaintext>,
) -> Encoded<pb::CompactionResponse> {
    let header = header_of(identity, &reply);
    let Answer::Done = reply.answer else { return Err(ANOTHER_ANSWER) };
    Ok(pb::CompactionResponse { header })
}

pub(in crate::rpc) fn event(event: Event<Plaintext>) -> mvccpb::Event {
    let Event { deleted, kv, prev } = event;
    let r#type = if deleted { mvccpb::event::EventType::Delete } else { mvccpb::event::EventType::Put };
    mvccpb::Event { r#type: r#type.into(), kv: Some(key_value(kv)), prev_kv: prev.map(key_value) }
}

fn changes(answer: &Answer<Plaintext>) -> bool {
    match answer {
        Answer::Put { .. } => true,
        Answer::Delete { deleted, .. } => *deleted > 0,
        Answer::Txn(txn) => txn.responses.iter().any(changes),
        _ => false,
    }
}

/// `at` is the revision that the operations of a txn see: the state it began on, and from its
/// first change on its own.
fn txn_response(
    header: Option<pb::ResponseHeader>,
    answer: TxnAnswer<Plaintext>,
    at: &mut i64,
    revision: i64,
) -> Encoded<pb::TxnResponse> {
    let responses = answer.responses.into_iter();
    let responses = responses
        .map(|answer| {
            if !matches!(answer, Answer::Txn(_)) && changes(&answer) {
                *at = revision;
            }
            let header = Some(pb::ResponseHeader { revision: *at, ..pb::ResponseHeader::default() });
            let response = match answer {
                Answer::Range(range) => Response::ResponseRange(range_response(header, range)),
                Answer::Put { prev } => {
                    Response::ResponsePut(pb::PutResponse { header, prev_kv: prev.map(key_value) })
                }
                Answer::Delete { deleted, prev } => {
                    Response::ResponseDeleteRange(delete_response(header, deleted, prev))
                }
                Answer::Txn(nested) => {
                    let header = Some(pb::ResponseHeader::default());
                    Response::ResponseTxn(txn_response(header, nested, at, revision)?)
                }
                _ => return Err(ANOTHER_ANSWER),
            };
            Ok(pb::ResponseOp { response: Some(response) })
        })
        .collect::<Encoded<_>>()?;
    Ok(pb::TxnResponse { header, succeeded: answer.succeeded, responses })
}

fn range_response(header: Option<pb::ResponseHeader>, answer: RangeAnswer<Plaintext>) -> pb::RangeResponse {
    let RangeAnswer { kvs, more, count } = answer;
    pb::RangeResponse { header, kvs: key_values(kvs), more, count }
}

fn delete_response(
    header: Option<pb::ResponseHeader>,
    deleted: i64,
    prev: Vec<KeyValue<Plaintext>>,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse { header, deleted, prev_kvs: key_values(prev) }
}

fn key_values(kvs: Vec<KeyValue<Plaintext>>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

fn key_value(kv: KeyValue<Plaintext>) -> mvccpb::KeyValue {
    let KeyValue { key, create_revision, mod_revision, version, lease, value } = kv;
    mvccpb::KeyValue {
        key,
        create_revision,
        mod_revision,
        version,
        lease: lease.0,
        value: value.map(Plaintext::into_bytes).unwrap_or_default(),
    }
}
