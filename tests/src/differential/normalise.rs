//! Takes out of calls and answers what differs between two servers by nature.
//!
//! Calls are drawn with the oracle's ids: [`request`] puts in the ids of the side that it goes
//! to, and [`answer`] puts the oracle's back. On the oracle both change no lease id.

use keygate_proto::{etcdserverpb::*, mvccpb::KeyValue};
use request_op::Request;
use response_op::Response;

use super::{
    call::{Answer, Call, Reply},
    side::{Other, Side},
};

/// Stands for "the member itself" in a drawn call and in a normalised answer.
pub(super) const SELF: u64 = 1;

/// Leases that live long enough must not differ by the seconds that a test took.
const TTL_SLACK: i64 = 600;

pub(super) fn request(call: &mut Call, side: &Side) {
    let lease = |id: &mut i64| *id = side.leases.get(id).copied().unwrap_or(*id);
    match call {
        Call::Put(put) => lease(&mut put.lease),
        Call::Txn(txn) => txn_request(txn, &lease),
        Call::Revoke(revoke) => lease(&mut revoke.id),
        Call::TimeToLive(ask) => lease(&mut ask.id),
        Call::KeepAlive(renew) => lease(&mut renew.id),
        Call::Alarm(alarm) if alarm.member_id == SELF => alarm.member_id = side.member,
        _ => {}
    }
}

fn txn_request(txn: &mut TxnRequest, lease: &impl Fn(&mut i64)) {
    for compare in &mut txn.compare {
        if let Some(compare::TargetUnion::Lease(id)) = &mut compare.target_union {
            lease(id);
        }
    }
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestPut(put)) => lease(&mut put.lease),
            Some(Request::RequestTxn(nested)) => txn_request(nested, lease),
            _ => {}
        }
    }
}

/// A refusal that names the size of the request as it was sent names the drawn one's instead: this
/// side's lease ids may be longer or shorter numbers.
pub(super) fn size(answer: &mut Answer, drawn: usize, sent: usize) {
    if let Answer::Refused { message, .. } = answer
        && drawn != sent
    {
        *message = message.replace(&format!("({sent} vs. "), &format!("({drawn} vs. "));
    }
}

pub(super) fn answer(answer: &mut Answer, side: &Side) {
    let Answer::Ok(reply) = answer else { return };
    let back = Back::of(side);
    let loose = side.other == Other::AnotherProgram;
    if let Some(header) = reply.header() {
        back.header(header);
    }
    match &mut **reply {
        Reply::Range(range) | Reply::RangeStream(range) => back.pairs(&mut range.kvs),
        Reply::Put(put) => back.pairs(&mut put.prev_kv),
        Reply::Delete(delete) => back.pairs(&mut delete.prev_kvs),
        Reply::Txn(txn) => back.txn(txn),
        Reply::Grant(grant) => back.lease(&mut grant.id),
        Reply::TimeToLive(left) => {
            back.lease(&mut left.id);
            if left.ttl > 0 && (left.granted_ttl - TTL_SLACK..=left.granted_ttl).contains(&left.ttl) {
                left.ttl = left.granted_ttl;
            }
            // etcd lists them in no order.
            if loose {
                left.keys.sort();
            }
        }
        Reply::KeepAlive(renewed) => back.lease(&mut renewed.id),
        Reply::Leases(list) => list.leases.iter_mut().for_each(|lease| back.lease(&mut lease.id)),
        Reply::MemberList(list) => list.members.iter_mut().for_each(|member| {
            back.member(&mut member.id);
            member.peer_urls.iter_mut().chain(&mut member.client_urls).for_each(strip_port);
        }),
        Reply::Alarm(alarm) => alarm.alarms.iter_mut().for_each(|alarm| back.member(&mut alarm.member_id)),
        Reply::Status(status) => {
            back.member(&mut status.leader);
            // Sizes depend on the format; that they are there does not.
            if loose {
                status.db_size = status.db_size.signum();
                status.db_size_in_use = status.db_size_in_use.signum();
            }
            status.raft_index = status.raft_index.min(1);
            status.raft_applied_index = status.raft_applied_index.min(1);
            status.raft_term = status.raft_term.min(1);
        }
        // Over rows, lease ids included.
        Reply::HashKv(hash) if !side.leases.is_empty() => hash.hash = 0,
        // Over a server's own file format.
        Reply::Hash(hash) => hash.hash = 0,
        // etcd sorts by key alone, and not stably.
        Reply::RoleGet(role) if loose => {
            role.perm.sort_by(|a, b| (&a.key, &a.range_end).cmp(&(&b.key, &b.range_end)))
        }
        Reply::Authenticate(login) => login.token = "a token".to_owned(),
        _ => {}
    }
}

/// What maps this side's ids to the oracle's.
pub(super) struct Back<'a> {
    side: &'a Side,
}

impl Back<'_> {
    pub(super) fn of(side: &Side) -> Back<'_> {
        Back { side }
    }

    fn lease(&self, id: &mut i64) {
        // Few leases are picked by servers, so the search is short.
        if let Some((theirs, _)) = self.side.leases.iter().find(|(_, ours)| *ours == id) {
            *id = *theirs;
        }
    }

    fn member(&self, id: &mut u64) {
        if *id == self.side.member {
            *id = SELF;
        }
    }

    pub(super) fn pairs<'k>(&self, pairs: impl IntoIterator<Item = &'k mut KeyValue>) {
        pairs.into_iter().for_each(|pair| self.lease(&mut pair.lease));
    }

    fn header(&self, header: &mut ResponseHeader) {
        header.cluster_id = header.cluster_id.min(1);
        self.member(&mut header.member_id);
        header.raft_term = header.raft_term.min(1);
    }

    fn txn(&self, txn: &mut TxnResponse) {
        if let Some(header) = &mut txn.header {
            self.header(header);
        }
        for response in &mut txn.responses {
            match &mut response.response {
                Some(Response::ResponseRange(range)) => self.pairs(&mut range.kvs),
                Some(Response::ResponsePut(put)) => self.pairs(&mut put.prev_kv),
                Some(Response::ResponseDeleteRange(delete)) => self.pairs(&mut delete.prev_kvs),
                Some(Response::ResponseTxn(nested)) => self.txn(nested),
                None => {}
            }
        }
    }
}

/// etcd's sort is not stable, so the order of pairs that compare equal is its own secret. Puts
/// such pairs in key order, and blanks those among which a limit cut.
pub(super) fn settle_ties(call: &Call, answer: &mut Answer) {
    let Answer::Ok(reply) = answer else { return };
    match (call, &mut **reply) {
        (Call::Range(request), Reply::Range(range)) => settle_range(request, range),
        (Call::Txn(request), Reply::Txn(txn)) => settle_txn(request, txn),
        _ => {}
    }
}

fn settle_txn(request: &TxnRequest, txn: &mut TxnResponse) {
    let ops = if txn.succeeded { &request.success } else { &request.failure };
    for (op, response) in ops.iter().zip(&mut txn.responses) {
        match (&op.request, &mut response.response) {
            (Some(Request::RequestRange(request)), Some(Response::ResponseRange(range))) => {
                settle_range(request, range)
            }
            (Some(Request::RequestTxn(request)), Some(Response::ResponseTxn(txn))) => {
                settle_txn(request, txn)
            }
            _ => {}
        }
    }
}

fn settle_range(request: &RangeRequest, range: &mut RangeResponse) {
    use range_request::SortTarget;
    let target = request.sort_target();
    if target == SortTarget::Key {
        return;
    }
    let same = |a: &KeyValue, b: &KeyValue| match target {
        SortTarget::Key => a.key == b.key,
        SortTarget::Version => a.version == b.version,
        SortTarget::Create => a.create_revision == b.create_revision,
        SortTarget::Mod => a.mod_revision == b.mod_revision,
        SortTarget::Value => a.value == b.value,
    };
    let last = range.kvs.chunk_by(same).count();
    for (number, ties) in range.kvs.chunk_by_mut(same).enumerate() {
        ties.sort_by(|a, b| a.key.cmp(&b.key));
        if range.more && number + 1 == last {
            ties.iter_mut().for_each(|pair| *pair = KeyValue::default());
        }
    }
}

fn strip_port(url: &mut String) {
    if let Some(colon) = url.rfind(':') {
        url.truncate(colon);
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn only_the_size_of_ones_own_message_is_translated() {
        let refused =
            |text: &str| Answer::Refused { code: Code::ResourceExhausted, message: text.to_owned() };
        let told = |text: &str| {
            let mut answer = refused(text);
            size(&mut answer, 3_004_404, 3_004_405);
            answer
        };
        let text = "grpc: received message larger than max (3004404 vs. 2097152)";
        assert_eq!(told("grpc: received message larger than max (3004405 vs. 2097152)"), refused(text));
        let wrong = "grpc: received message larger than max (3004406 vs. 2097152)";
        assert_eq!(told(wrong), refused(wrong));
    }
}
