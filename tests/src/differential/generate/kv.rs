//! Keys, values, and the requests of the KV service.

use bytes::Bytes;
use compare::TargetUnion;
use keygate_proto::etcdserverpb::*;
use rand::{Rng, RngCore};
use request_op::Request;

use super::Generator;

/// Small, so that steps meet; with neighbours, prefixes, zero bytes and bytes that are not UTF-8.
const KEYS: &[&[u8]] = &[
    b"a",
    b"aa",
    b"a\0",
    b"ab",
    b"a/b",
    b"a/b/c",
    b"b",
    b"c",
    b"d",
    b"e",
    b"k1",
    b"k2",
    b"k3",
    b"k4",
    b"k5",
    b"k6",
    b"\0",
    b"\0\0",
    b"\xff",
    b"\xff\xff",
    b"\xc3\x28",
    b"z\xff",
    b"\xf0\x9f\x94\x91",
    b"health",
];

/// Levels of transactions in a transaction.
const OUTERMOST: usize = 2;

/// Just above etcd's limit of 1.5 MiB.
const TOO_LARGE: usize = 1_600_000;
/// Above what gRPC lets through at all.
const FAR_TOO_LARGE: usize = 3_000_000;

impl Generator {
    pub(super) fn key(&mut self) -> Bytes {
        match self.rng.random_range(0..200) {
            0..3 => Bytes::new(),
            3 => Bytes::from(vec![b'l'; 300]),
            _ => Bytes::from_static(self.pick(KEYS)),
        }
    }

    /// With auth on an end is seldom below its key: what permission such a range needs is one of
    /// the documented differences.
    pub(super) fn range_end(&mut self, key: &Bytes) -> Bytes {
        let end = self.any_range_end(key);
        let empty = !end.is_empty() && &end[..] != b"\0" && end <= *key;
        if empty && self.model.auth_on { after_prefix(key) } else { end }
    }

    fn any_range_end(&mut self, key: &Bytes) -> Bytes {
        match self.rng.random_range(0..100) {
            0..40 => Bytes::new(),
            40..60 => after_prefix(key),
            60..70 => Bytes::from_static(b"\0"),
            70..90 => Bytes::from_static(self.pick(KEYS)),
            90..93 => key.clone(),
            93..96 => [key, &b"\0"[..]].concat().into(),
            _ => {
                let mut noise = vec![0; self.rng.random_range(1..4)];
                self.rng.fill_bytes(&mut noise);
                noise.into()
            }
        }
    }

    fn value(&mut self) -> Bytes {
        match self.rng.random_range(0..10_000) {
            0 => vec![7; TOO_LARGE].into(),
            1 => vec![7; FAR_TOO_LARGE].into(),
            2..100 => vec![b'v'; 4096].into(),
            100..1000 => Bytes::new(),
            1000..6000 => Bytes::from(self.rng.random_range(0..20).to_string()),
            _ => {
                let mut noise = vec![0; self.rng.random_range(1..64)];
                self.rng.fill_bytes(&mut noise);
                noise.into()
            }
        }
    }

    /// Mostly now; else kept history, and what lies before or beyond it.
    fn read_revision(&mut self) -> i64 {
        let (now, compacted) = (self.model.revision, self.model.compacted);
        match self.rng.random_range(0..100) {
            0..70 => 0,
            70..85 => self.rng.random_range(compacted.max(1).min(now)..=now),
            85..90 => now,
            90..94 => now + self.rng.random_range(1..5),
            94..97 => self.pick(&[compacted, compacted - 1, compacted / 2, 1]),
            _ => self.pick(&[-1, -7, i64::MIN, i64::MAX]),
        }
    }

    fn bound(&mut self) -> i64 {
        let now = self.model.revision;
        match self.rng.random_range(0..100) {
            0..85 => 0,
            85..97 => self.rng.random_range(1..now + 2),
            _ => self.pick(&[-1, i64::MAX, i64::MIN]),
        }
    }

    pub(super) fn range(&mut self) -> RangeRequest {
        let key = self.key();
        let range_end = self.range_end(&key);
        let limit = match self.rng.random_range(0..100) {
            0..60 => 0,
            60..92 => self.rng.random_range(1..6),
            _ => self.pick(&[-1, i64::MIN, i64::MAX, 1000]),
        };
        RangeRequest {
            key,
            range_end,
            limit,
            revision: self.read_revision(),
            sort_order: if self.chance(2) { self.pick(&[3, -1]) } else { self.pick(&[0, 0, 0, 1, 2]) },
            sort_target: if self.chance(2) { self.pick(&[5, -1]) } else { self.pick(&[0, 0, 0, 1, 2, 3, 4]) },
            serializable: self.chance(30),
            keys_only: self.chance(12),
            count_only: self.chance(10),
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    /// A stream refuses sorting and bounds; ask for them seldom.
    pub(super) fn range_for_stream(&mut self) -> RangeRequest {
        let mut full = self.range();
        if self.chance(20) {
            if full.sort_order == 0 {
                // `stream-target` in docs/differences.md.
                full.sort_target = 0;
            }
            return full;
        }
        let RangeRequest { key, range_end, limit, revision, serializable, keys_only, count_only, .. } = full;
        RangeRequest {
            key,
            range_end,
            limit,
            revision,
            serializable,
            keys_only,
            count_only,
            ..Default::default()
        }
    }

    pub(super) fn put(&mut self) -> PutRequest {
        let lease = match self.rng.random_range(0..100) {
            0..65 => 0,
            _ => self.some_lease(),
        };
        PutRequest {
            key: self.key(),
            value: self.value(),
            lease,
            prev_kv: self.chance(40),
            ignore_value: self.chance(8),
            ignore_lease: self.chance(8),
        }
        .mostly_valid(self.chance(70))
    }

    pub(super) fn delete(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        // Single keys mostly, or nothing would ever live long.
        let range_end = if self.chance(70) { Bytes::new() } else { self.range_end(&key) };
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(50) }
    }

    pub(super) fn txn(&mut self) -> TxnRequest {
        if self.rng.random_ratio(1, 200) {
            return self.crowded_txn();
        }
        self.txn_of_depth(OUTERMOST)
    }

    fn txn_of_depth(&mut self, depth: usize) -> TxnRequest {
        let compares = self.rng.random_range(0..4);
        let (then, otherwise) = (self.rng.random_range(0..4), self.rng.random_range(0..4));
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: (0..then).map(|_| self.op(depth)).collect(),
            failure: (0..otherwise).map(|_| self.op(depth)).collect(),
        }
    }

    /// At and beyond the limit of 128 operations, flat and nested.
    fn crowded_txn(&mut self) -> TxnRequest {
        let many = self.pick(&[127, 128, 129]);
        let ops = |count: usize| -> Vec<RequestOp> {
            let range = RangeRequest { key: Bytes::from_static(b"a"), ..Default::default() };
            vec![RequestOp { request: Some(Request::RequestRange(range)) }; count]
        };
        match self.chance(50) {
            true => TxnRequest { success: ops(many), ..Default::default() },
            false => {
                let nested = TxnRequest { failure: ops(many - 1), ..Default::default() };
                let request = Some(Request::RequestTxn(nested));
                TxnRequest { success: vec![RequestOp { request }], ..Default::default() }
            }
        }
    }

    fn op(&mut self, depth: usize) -> RequestOp {
        let request = match self.rng.random_range(0..200) {
            0 => None,
            1..70 => Some(Request::RequestRange(self.range())),
            70..140 => Some(Request::RequestPut(self.put_in_txn(depth))),
            140..175 => Some(Request::RequestDeleteRange(self.delete_in_txn())),
            _ if depth > 0 => Some(Request::RequestTxn(self.txn_of_depth(depth - 1))),
            _ => Some(Request::RequestPut(self.put_in_txn(depth))),
        };
        RequestOp { request }
    }

    /// etcd 3.7.1 crashes (index out of range in `put`) on a nested put that keeps the value or the
    /// lease of a key which the same transaction deleted before.
    fn put_in_txn(&mut self, depth: usize) -> PutRequest {
        let put = self.put();
        if depth == OUTERMOST { put } else { PutRequest { ignore_value: false, ignore_lease: false, ..put } }
    }

    /// etcd's check for duplicate keys does not see that a range end of one zero byte is open, and
    /// then changes a key twice in one revision.
    fn delete_in_txn(&mut self) -> DeleteRangeRequest {
        let delete = self.delete();
        let open = &delete.range_end[..] == b"\0";
        if open {
            DeleteRangeRequest { range_end: Bytes::from_static(b"\xff\xff\xff"), ..delete }
        } else {
            delete
        }
    }

    fn compare(&mut self) -> Compare {
        let now = self.model.revision;
        let target = self.rng.random_range(0..5);
        // A client that sets the wrong member of the union, or none.
        let union = if self.chance(4) { self.rng.random_range(0..6) } else { target };
        let target_union = match union {
            0 => Some(TargetUnion::Version(self.rng.random_range(0..4))),
            1 => Some(TargetUnion::CreateRevision(self.rng.random_range(0..=now))),
            2 => Some(TargetUnion::ModRevision(self.rng.random_range(0..=now))),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(self.some_lease())),
            _ => None,
        };
        let key = self.key();
        let range_end = if self.chance(75) { Bytes::new() } else { self.range_end(&key) };
        let wild = self.chance(1);
        let mut result = self.rng.random_range(0..4);
        if matches!(target_union, Some(TargetUnion::Lease(_))) {
            // Ids are drawn by each server, so which is the greater says nothing.
            result = if result % 2 == 0 { 0 } else { 3 };
        }
        Compare {
            result: if wild { 9 } else { result },
            target: if wild { self.pick(&[target, 7]) } else { target },
            key,
            range_end,
            target_union,
        }
    }
}

trait MostlyValid {
    fn mostly_valid(self, valid: bool) -> Self;
}

impl MostlyValid for PutRequest {
    /// Repairs contradicting fields when `valid`.
    fn mostly_valid(mut self, valid: bool) -> PutRequest {
        if valid && self.ignore_value {
            self.value = Bytes::new();
        }
        if valid && self.ignore_lease {
            self.lease = 0;
        }
        self
    }
}

/// The first key behind all that start with `prefix`.
pub(super) fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}
