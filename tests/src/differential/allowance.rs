//! The differences from etcd that docs/differences.md owns up to.
//!
//! An entry there that this contest can meet starts with "- `tag` (differential)". Each rule here
//! names its tag: a rule without an entry allows nothing, an entry without a rule fails the
//! contest, and so does an entry that a long contest never meets.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use keygate_proto::etcdserverpb::{RequestOp, TxnRequest, request_op};
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
            size || alarm && subject.ok().is_none()
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
            let nests = |op: &RequestOp| matches!(op.request, Some(request_op::Request::RequestTxn(_)));
            let nested = matches!(call, Call::Txn(txn) if txn.success.iter().chain(&txn.failure).any(nests));
            nested && says(subject, "duplicate key given") && !says(oracle, "duplicate key given")
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
