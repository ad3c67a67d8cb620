//! The differences from etcd that docs/differences.md owns up to.
//!
//! An entry there that this contest can meet starts with "- `tag` (differential)". Each rule here
//! names its tag: a rule without an entry allows nothing, an entry without a rule fails the
//! contest, and so does an entry that a long contest never meets.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use keygate_proto::etcdserverpb::{DeleteRangeRequest, RequestOp, TxnRequest, request_op::Request};
use prost::Message;

use super::{
    call::{Answer, Call, Reply},
    watch::Item,
};

/// A pair of answers that may differ.
struct Rule {
    tag: &'static str,
    allows: fn(&Call, &Answer, &Answer) -> bool,
}

const RULES: &[Rule] = &[
    Rule {
        tag: "alarm-comes-last",
        allows: |_, oracle, subject| {
            let alarm = says(oracle, "database space exceeded") || says(oracle, "corrupt cluster");
            let size = says(oracle, "request is too large") && is_about_caller(subject);
            size || alarm && (is_about_caller(subject) || is_about_request(subject))
        },
    },
    Rule {
        tag: "shape-comes-first",
        allows: |_, oracle, subject| {
            let shape = says(subject, "permission not given") || says(subject, "too large lease TTL");
            shape && (is_about_caller(oracle) || says(oracle, "invalid auth management"))
        },
    },
    Rule {
        tag: "empty-txn",
        allows: |call, oracle, subject| {
            let empty = matches!(call, Call::Txn(txn) if *txn == TxnRequest::default());
            empty && oracle.ok().is_some() && is_about_caller(subject)
        },
    },
    Rule {
        tag: "txn-siblings",
        allows: |call, oracle, subject| {
            let pair = matches!(call, Call::Txn(txn) if deletes_what_a_sibling_put(txn));
            pair && says(subject, "duplicate key given") && !says(oracle, "duplicate key given")
        },
    },
    Rule {
        tag: "password-comes-last",
        allows: |_, oracle, subject| says(oracle, "password length exceeds") && is_about_caller(subject),
    },
    Rule {
        tag: "strangers-message",
        allows: |call, oracle, subject| {
            let size = match call {
                Call::Txn(txn) => txn.encoded_len(),
                Call::Put(put) => put.encoded_len(),
                _ => 0,
            };
            size > 64 << 10 && oracle.ok().is_none() && is_about_caller(subject)
        },
    },
    Rule { tag: "hashkv-cache", allows: is_from_cache },
];

/// etcd keeps the hashes of compactions, and of revisions that never were.
fn is_from_cache(_: &Call, oracle: &Answer, subject: &Answer) -> bool {
    match (oracle.ok(), subject.ok()) {
        (Some(Reply::HashKv(_)), None) => says(subject, "has been compacted"),
        (Some(Reply::HashKv(theirs)), Some(Reply::HashKv(ours))) => {
            theirs.hash_revision <= 0
                || theirs.compact_revision == -1 && ours.compact_revision >= theirs.hash_revision
                // At a compaction's own revision etcd answers with the hash from before it.
                || theirs.hash_revision == ours.compact_revision
                    && theirs.compact_revision < ours.compact_revision
        }
        _ => false,
    }
}

fn says(answer: &Answer, words: &str) -> bool {
    matches!(answer, Answer::Refused { message, .. } if message.contains(words))
}

fn is_about_caller(answer: &Answer) -> bool {
    ["permission denied", "user name is empty", "invalid auth token"].iter().any(|words| says(answer, words))
}

/// Texts about what stands in a request, whatever the server holds.
fn is_about_request(answer: &Answer) -> bool {
    const TEXTS: &[&str] = &[
        "key is not provided",
        "value is provided",
        "lease is provided",
        "invalid sort option",
        "too many operations in txn request",
        "duplicate key given in txn request",
        "too large lease TTL",
        "RangeStream does not support",
    ];
    TEXTS.iter().any(|words| says(answer, words))
}

/// Whether somewhere, in one branch, a nested txn deletes a key that one before it puts.
fn deletes_what_a_sibling_put(txn: &TxnRequest) -> bool {
    [&txn.success, &txn.failure].into_iter().any(|branch| {
        let mut before = Writes::default();
        branch.iter().filter_map(nested).any(|txn| {
            let mut here = Writes::default();
            here.add(&txn.success);
            here.add(&txn.failure);
            let hit = before.puts.iter().any(|key| here.deletes.iter().any(|delete| covers_key(delete, key)));
            before.puts.append(&mut here.puts);
            hit || deletes_what_a_sibling_put(txn)
        })
    })
}

fn nested(op: &RequestOp) -> Option<&TxnRequest> {
    match &op.request {
        Some(Request::RequestTxn(txn)) => Some(txn),
        _ => None,
    }
}

fn covers_key(delete: &DeleteRangeRequest, key: &[u8]) -> bool {
    match &delete.range_end[..] {
        b"" => delete.key == key,
        b"\0" => key >= &delete.key[..],
        end => key >= &delete.key[..] && key < end,
    }
}

/// Of either branch, at any depth.
#[derive(Default)]
struct Writes<'a> {
    puts: Vec<&'a [u8]>,
    deletes: Vec<&'a DeleteRangeRequest>,
}

impl<'a> Writes<'a> {
    fn add(&mut self, ops: &'a [RequestOp]) {
        for op in ops {
            match &op.request {
                Some(Request::RequestPut(put)) => self.puts.push(&put.key),
                Some(Request::RequestDeleteRange(delete)) => self.deletes.push(delete),
                Some(Request::RequestTxn(txn)) => {
                    self.add(&txn.success);
                    self.add(&txn.failure);
                }
                Some(Request::RequestRange(_)) | None => {}
            }
        }
    }
}

/// Of pairs that sort alike, see `normalise::settle_ties`.
pub(super) const SORT_TIES: &str = "sort-ties";
/// Of the scenario in which a user loses a permission while watching.
pub(super) const WATCH_IS_DECIDED_AGAIN: &str = "watch-revoked";

/// Tags of docs/differences.md.
pub fn documented() -> Result<BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md");
    let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    let entries = text.lines().filter_map(|line| line.strip_prefix("- `")?.split_once("` (differential)"));
    let tags: BTreeSet<String> = entries.map(|(tag, _)| tag.to_owned()).collect();
    let others = [SORT_TIES, WATCH_IS_DECIDED_AGAIN];
    for tag in &tags {
        let known = RULES.iter().any(|rule| rule.tag == tag) || others.contains(&tag.as_str());
        ensure!(known, "docs/differences.md tags `{tag}`, of which the contest knows no rule");
    }
    Ok(tags)
}

/// The tag that covers this difference between the oracle's answer and the subject's.
pub(super) fn covers(
    listed: &BTreeSet<String>,
    call: &Call,
    oracle: &Answer,
    subject: &Answer,
) -> Option<&'static str> {
    let rule = RULES.iter().find(|rule| listed.contains(rule.tag) && (rule.allows)(call, oracle, subject))?;
    Some(rule.tag)
}

/// Whether the subject closed a watch that the oracle went on serving.
pub(super) fn closed_after_revoke(oracle: &[Item], subject: &[Item]) -> bool {
    let refused =
        |item: &Item| matches!(item, Item::Canceled { reason, .. } if reason.contains("permission denied"));
    !oracle.iter().any(refused) && subject.last().is_some_and(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keygate_proto::etcdserverpb::PutRequest;
    use tonic::Code;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() }))
    }

    fn delete(key: &'static str, end: &'static str) -> RequestOp {
        let range = DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false };
        op(Request::RequestDeleteRange(range))
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest { compare: Vec::new(), success, failure }
    }

    fn within(success: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(txn(success, Vec::new())))
    }

    fn refused(message: &str) -> Answer {
        Answer::Refused { code: Code::InvalidArgument, message: message.to_owned() }
    }

    fn tag(call: &Call, oracle: &str, subject: &str) -> Option<&'static str> {
        let listed = RULES.iter().map(|rule| rule.tag.to_owned()).collect();
        covers(&listed, call, &refused(oracle), &refused(subject))
    }

    const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";

    #[test]
    fn only_a_put_before_a_siblings_delete_may_be_a_duplicate_to_us_alone() {
        let other = "etcdserver: requested lease not found";
        let siblings = |first, second| txn(vec![within(vec![first]), within(vec![second])], vec![]);
        for (expected, found) in [
            (true, siblings(put("b"), delete("b", ""))),
            (true, siblings(put("b"), delete("a", "c"))),
            (true, siblings(put("b"), delete("a", "\0"))),
            (true, siblings(within(vec![put("b")]), within(vec![delete("b", "")]))),
            (true, txn(vec![], vec![within(vec![within(vec![put("b")]), within(vec![delete("b", "")])])])),
            (false, siblings(delete("b", ""), put("b"))),
            (false, siblings(put("b"), delete("a", "b"))),
            (false, siblings(put("b"), put("b"))),
            (false, txn(vec![within(vec![put("b")]), put("b")], vec![])),
            (false, txn(vec![within(vec![put("b")])], vec![within(vec![delete("b", "")])])),
            (false, txn(vec![within(vec![put("b"), delete("b", "")])], vec![])),
        ] {
            let shown = format!("{found:?}");
            let tag = tag(&Call::Txn(found), other, DUPLICATE);
            assert_eq!(tag, expected.then_some("txn-siblings"), "{shown}");
        }
    }

    #[test]
    fn under_an_alarm_only_the_caller_and_the_request_come_first() {
        let call = Call::Put(PutRequest::default());
        for alarm in ["etcdserver: mvcc: database space exceeded", "etcdserver: corrupt cluster"] {
            for words in ["etcdserver: permission denied", "etcdserver: key is not provided", DUPLICATE] {
                assert_eq!(tag(&call, alarm, words), Some("alarm-comes-last"), "{words}");
            }
            for words in ["keygate: internal failure", "etcdserver: server stopped", "etcdserver: no leader"]
            {
                assert_eq!(tag(&call, alarm, words), None, "{words}");
            }
        }
    }
}
