//! What a request is to limits: its class, its size, the prefixes that it touches. Pure.

use keygate_core::{
    Access, Answer, KeyRange, Operation, Plaintext, Put, PutValue, Txn, TxnOp, ValueSize as _,
};

use super::rules::RateRule;

/// How a request counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    Read,
    Write,
    /// A read of more than one key.
    Range,
    Admin,
    Login,
    KeepAlive,
    /// What load balancers ask.
    Health,
}

impl Class {
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Write, Self::Range, Self::Admin, Self::Login, Self::KeepAlive, Self::Health];

    pub fn of<V>(operation: &Operation<V>) -> Self {
        let of_range = |range: &KeyRange| match range {
            KeyRange::Single(_) => Self::Read,
            KeyRange::Span { .. } | KeyRange::From(_) => Self::Range,
        };
        match operation {
            Operation::Range(range) | Operation::RangeStream(range) => of_range(&range.range),
            Operation::Txn(txn) if !txn.is_read_only() => Self::Write,
            Operation::Txn(txn) if reads_ranges(txn) => Self::Range,
            Operation::Txn(_) => Self::Read,
            Operation::Put(_)
            | Operation::DeleteRange(_)
            | Operation::LeaseGrant(_)
            | Operation::LeaseRevoke(_)
            | Operation::LeaseExpire(_)
            | Operation::LeaseCheckpoint(_) => Self::Write,
            Operation::Watch(_)
            | Operation::LeaseTimeToLive(_)
            | Operation::LeaseLeases
            | Operation::MemberList { .. }
            | Operation::Status
            | Operation::Snapshot
            | Operation::QuotaShow(_)
            | Operation::AuthStatus => Self::Read,
            Operation::LeaseKeepAlive(_) => Self::KeepAlive,
            Operation::Authenticate { .. } => Self::Login,
            Operation::Health => Self::Health,
            Operation::Compact(_)
            | Operation::Alarm(_)
            | Operation::Defragment
            | Operation::Hash
            | Operation::HashKv { .. }
            | Operation::AuthEnable
            | Operation::AuthDisable
            | Operation::UserAdd(_)
            | Operation::UserGet { .. }
            | Operation::UserList
            | Operation::UserDelete { .. }
            | Operation::UserChangePassword { .. }
            | Operation::UserGrantRole { .. }
            | Operation::UserRevokeRole { .. }
            | Operation::RoleAdd { .. }
            | Operation::RoleGet { .. }
            | Operation::RoleList
            | Operation::RoleDelete { .. }
            | Operation::RoleGrantPermission(_)
            | Operation::RoleRevokePermission(_)
            | Operation::TenantCreate(_)
            | Operation::TenantChange { .. }
            | Operation::TenantDelete { .. }
            | Operation::TenantGet { .. }
            | Operation::TenantList
            | Operation::QuotaSet(_)
            | Operation::QuotaRecount(_)
            | Operation::Observe(_)
            | Operation::PolicyChange(_)
            | Operation::PolicyAsk(_) => Self::Admin,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Range => "range",
            Self::Admin => "admin",
            Self::Login => "login",
            Self::KeepAlive => "keepalive",
            Self::Health => "health",
        }
    }

    /// The rule that counts requests of this class alone. None: no rule does.
    pub(super) fn rule(self) -> Option<RateRule> {
        match self {
            Self::Read => Some(RateRule::Reads),
            Self::Write => Some(RateRule::Writes),
            Self::Range => Some(RateRule::Ranges),
            Self::Admin => Some(RateRule::Admin),
            Self::Login => Some(RateRule::Logins),
            Self::KeepAlive => Some(RateRule::KeepAlives),
            Self::Health => None,
        }
    }
}

/// Does a txn hold, at any depth, a read of more than one key?
pub(super) fn reads_ranges<V>(txn: &Txn<V>) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        TxnOp::Range(range) => !matches!(range.range, KeyRange::Single(_)),
        TxnOp::Txn(nested) => reads_ranges(nested),
        TxnOp::Put(_) | TxnOp::DeleteRange(_) => false,
    })
}

/// Does a request touch a key that begins with `prefix`?
pub(super) fn touches(operation: &Operation<Plaintext>, prefix: &[u8]) -> bool {
    if let Operation::Put(put) = operation {
        return put.key.starts_with(prefix);
    }
    let mut found = false;
    operation.accesses(&mut |access| {
        if let Access::Keys { range, .. } = &access {
            found |= meets(range, prefix);
        }
    });
    found
}

fn meets(range: &KeyRange, prefix: &[u8]) -> bool {
    // A range that begins before the prefix meets it when it ends behind its first key.
    match range {
        KeyRange::Single(key) => key.starts_with(prefix),
        KeyRange::From(start) => start.as_ref() <= prefix || start.starts_with(prefix),
        KeyRange::Span { start, end } if start.as_ref() <= prefix => end.as_ref() > prefix,
        KeyRange::Span { start, end } => start.starts_with(prefix) && start < end,
    }
}

/// The longest key and value that a request writes below `prefix`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Longest {
    pub(super) key: usize,
    pub(super) value: usize,
}

impl Longest {
    pub(super) fn of(operation: &Operation<Plaintext>, prefix: &[u8]) -> Self {
        let mut longest = Self::default();
        match operation {
            Operation::Put(put) => longest.put(put, prefix),
            Operation::Txn(txn) => longest.txn(txn, prefix),
            _ => {}
        }
        longest
    }

    fn put(&mut self, put: &Put<Plaintext>, prefix: &[u8]) {
        if put.key.starts_with(prefix) {
            self.key = self.key.max(put.key.len());
            if let PutValue::Set(value) = &put.value {
                self.value = self.value.max(value.value_size());
            }
        }
    }

    fn txn(&mut self, txn: &Txn<Plaintext>, prefix: &[u8]) {
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                TxnOp::Put(put) => self.put(put, prefix),
                TxnOp::Txn(nested) => self.txn(nested, prefix),
                TxnOp::Range(_) | TxnOp::DeleteRange(_) => {}
            }
        }
    }
}

/// The keys that an answer tells, and their bytes with those of their values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    pub rows: u64,
    pub bytes: u64,
}

/// What a key takes in a message beside its bytes and its value's: tags, lengths, revisions.
const ROW_OVERHEAD: u64 = 32;

impl Found {
    pub fn in_answer(answer: &Answer<Plaintext>) -> Self {
        let mut found = Self::default();
        found.add(answer);
        found
    }

    fn add(&mut self, answer: &Answer<Plaintext>) {
        let kvs = match answer {
            Answer::Range(range) => &range.kvs,
            Answer::Delete { prev, .. } => prev,
            Answer::Txn(txn) => return txn.responses.iter().for_each(|answer| self.add(answer)),
            _ => return,
        };
        self.rows += kvs.len() as u64;
        for kv in kvs {
            let value = kv.value.as_ref().map_or(0, |value| value.value_size());
            self.bytes += (kv.key.len() + value) as u64 + ROW_OVERHEAD;
        }
    }

    /// Units of [`RateRule::RangeCost`].
    pub(super) fn cost(self) -> u64 {
        self.rows + self.bytes.div_ceil(1024)
    }
}

/// Operations of a txn as etcd counts them, and how deep it nests.
pub(super) fn txn_size<V>(txn: &Txn<V>) -> (usize, usize) {
    let own = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let nested = txn.success.iter().chain(&txn.failure).filter_map(|op| match op {
        TxnOp::Txn(nested) => Some(txn_size(nested)),
        TxnOp::Range(_) | TxnOp::Put(_) | TxnOp::DeleteRange(_) => None,
    });
    let (operations, depth) = nested
        .fold((0, 0), |(most, deepest), (operations, depth)| (most.max(operations), deepest.max(depth)));
    (own + operations, depth + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn span(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::Span { start: Bytes::from(start), end: Bytes::from(end) }
    }

    #[test]
    fn a_range_meets_a_prefix_when_it_could_hold_a_key_of_it() {
        for (range, expected) in [
            (KeyRange::Single("/a/x".into()), true),
            (KeyRange::Single("/b".into()), false),
            (KeyRange::From(Bytes::new()), true),
            (KeyRange::From("/a/x".into()), true),
            (KeyRange::From("/b".into()), false),
            (span("/", "/b"), true),
            (span("/", "/a/"), false),
            (span("/a/k", "/a/l"), true),
            (span("/a0", "/z"), false),
            (span("/a/z", "/a/b"), false),
        ] {
            assert_eq!(meets(&range, b"/a/"), expected, "{range:?}");
        }
    }
}
