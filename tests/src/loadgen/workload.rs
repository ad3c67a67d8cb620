//! What is asked, and what an answer must say to count as right.
//!
//! Every request comes with an [`Expectation`]; an answer that does not meet it is counted as an error, whatever its
//! status says.

use crate::call::CallKind;
use crate::keyspace::{Keyspace, Random};
use crate::messages::{self, Consistency, KeyValue, path};
use crate::wire::find_int;
use anyhow::{Result, ensure};

/// Long enough that no lease expires during a run.
pub(crate) const LEASE_TTL_SECONDS: i64 = 3600;
/// Of the answers to scans, one in so many is checked key by key; the others at both ends and in their count.
const DEEP_CHECK_EVERY: u64 = 16;
/// Watch runs write this key only.
pub(crate) const WATCHED_KEY: u64 = 0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operation {
    Put,
    Range,
    SerializableRange,
    Prefix,
    Txn,
    Watch,
    LeaseGrant,
    LeaseKeepAlive,
    Mix,
    Load,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Range => "range",
            Operation::SerializableRange => "srange",
            Operation::Prefix => "prefix",
            Operation::Txn => "txn",
            Operation::Watch => "watch",
            Operation::LeaseGrant => "lease-grant",
            Operation::LeaseKeepAlive => "lease-keepalive",
            Operation::Mix => "mix",
            Operation::Load => "load",
        }
    }
}

/// What the answer to a request must say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Expectation {
    /// A revision above all that this client has seen.
    Written,
    /// As `Written`, and the transaction took its first branch.
    Succeeded,
    /// This key, and no older a revision than this client has seen.
    Key(u64),
    /// This key, however old.
    KeyMaybeOld(u64),
    /// `count` keys from number `first`.
    Keys { first: u64, count: u64, deep: bool },
    /// A lease with an id and a time to live.
    Granted,
    /// This lease, with a time to live.
    KeptAlive(u64),
}

impl Expectation {
    /// `seen` is the newest revision this client has been told; it moves on.
    pub(crate) fn check(self, keys: &Keyspace, seen: &mut u64, answer: &[u8]) -> Result<()> {
        match self {
            Expectation::Written => newer(seen, answer),
            Expectation::Succeeded => {
                ensure!(find_int(answer, 2)? == 1, "the transaction took the wrong branch");
                newer(seen, answer)
            }
            Expectation::Key(number) => {
                not_older(seen, answer)?;
                check_keys(keys, answer, number, 1, true)
            }
            Expectation::KeyMaybeOld(number) => check_keys(keys, answer, number, 1, true),
            Expectation::Keys { first, count, deep } => {
                not_older(seen, answer)?;
                check_keys(keys, answer, first, count, deep)
            }
            Expectation::Granted => {
                ensure!(find_int(answer, 2)? != 0, "a lease without an id");
                check_ttl(answer)
            }
            Expectation::KeptAlive(lease) => {
                ensure!(find_int(answer, 2)? == lease, "the answer is about another lease");
                check_ttl(answer)
            }
        }
    }
}

fn newer(seen: &mut u64, answer: &[u8]) -> Result<()> {
    let revision = messages::revision(answer)?;
    ensure!(revision > *seen, "a write at revision {revision}, after {seen} was seen");
    *seen = revision;
    Ok(())
}

fn not_older(seen: &mut u64, answer: &[u8]) -> Result<()> {
    let revision = messages::revision(answer)?;
    ensure!(revision >= *seen, "a linearizable read at revision {revision}, after {seen} was seen");
    *seen = revision;
    Ok(())
}

fn check_ttl(answer: &[u8]) -> Result<()> {
    let ttl = find_int(answer, 3)? as i64;
    ensure!(ttl > 0 && ttl <= LEASE_TTL_SECONDS, "a lease with {ttl} s to live");
    Ok(())
}

fn check_keys(keys: &Keyspace, answer: &[u8], first: u64, count: u64, deep: bool) -> Result<()> {
    let mut expected = Vec::new();
    let received = messages::each_kv(answer, |position, kv| {
        if deep || position == 0 || position + 1 == count {
            let kv = KeyValue::parse(kv)?;
            keys.key(&mut expected, first + position);
            ensure!(kv.key == expected, "key number {} is not the one asked for", first + position);
            keys.check_value(kv.value, first + position)?;
        }
        Ok(())
    })?;
    ensure!(received == count, "{received} keys instead of {count}");
    Ok(())
}

/// One request to send: where to, how, and what must come back. Its message is in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) path: &'static str,
    pub(crate) kind: CallKind,
    pub(crate) expects: Expectation,
}

/// How the keys of single-key requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum KeyOrder {
    Random,
    Sequential,
}

/// Makes the requests of one run.
pub(crate) struct Workload {
    pub(crate) operation: Operation,
    pub(crate) keys: Keyspace,
    pub(crate) order: KeyOrder,
    /// Keys in one scan.
    pub(crate) scan: u64,
    /// Reads of 100 requests of a mix.
    pub(crate) read_percent: u64,
    /// One lease for each client, for keepalive.
    pub(crate) leases: Vec<u64>,
    pub(crate) random: Random,
    pub(crate) made: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) other: Vec<u8>,
}

impl Workload {
    pub(crate) fn new(operation: Operation, keys: Keyspace, order: KeyOrder) -> Self {
        let seed = u64::from(std::process::id()).wrapping_mul(0x2545_f491_4f6c_dd1d);
        Workload {
            operation,
            keys,
            order,
            scan: 1000,
            read_percent: 80,
            leases: Vec::new(),
            random: Random::new(seed),
            made: 0,
            key: Vec::new(),
            other: Vec::new(),
        }
    }

    /// Replaces `message` by the next request of `client`. `stamp` goes into the value of a write.
    pub(crate) fn next(&mut self, client: usize, stamp: u64, message: &mut Vec<u8>) -> Request {
        message.clear();
        self.made += 1;
        let unary = |path, expects| Request { path, kind: CallKind::Unary, expects };
        match self.operation {
            Operation::Put | Operation::Load => {
                let number = self.next_key();
                self.put(number, stamp, message);
                unary(path::PUT, Expectation::Written)
            }
            Operation::Watch => {
                self.put(WATCHED_KEY, stamp, message);
                unary(path::PUT, Expectation::Written)
            }
            Operation::Mix if self.random.next() % 100 >= self.read_percent => {
                let number = self.next_key();
                self.put(number, stamp, message);
                unary(path::PUT, Expectation::Written)
            }
            Operation::Range | Operation::Mix => {
                let number = self.next_key();
                self.keys.key(&mut self.key, number);
                messages::range(message, &self.key, &[], Consistency::Linearizable);
                unary(path::RANGE, Expectation::Key(number))
            }
            Operation::SerializableRange => {
                let number = self.next_key();
                self.keys.key(&mut self.key, number);
                messages::range(message, &self.key, &[], Consistency::Serializable);
                unary(path::RANGE, Expectation::KeyMaybeOld(number))
            }
            Operation::Prefix => {
                let count = self.scan.min(self.keys.count());
                let first = self.random.next() % (self.keys.count() - count + 1);
                self.keys.key(&mut self.key, first);
                self.keys.key(&mut self.other, first + count);
                messages::range(message, &self.key, &self.other, Consistency::Linearizable);
                let deep = self.made.is_multiple_of(DEEP_CHECK_EVERY);
                unary(path::RANGE, Expectation::Keys { first, count, deep })
            }
            Operation::Txn => {
                let number = self.next_key();
                self.keys.key(&mut self.key, number);
                self.keys.value(&mut self.other, number, stamp);
                messages::compare_and_put(message, &self.key, &self.other);
                unary(path::TXN, Expectation::Succeeded)
            }
            Operation::LeaseGrant => {
                messages::lease_grant(message, LEASE_TTL_SECONDS);
                unary(path::LEASE_GRANT, Expectation::Granted)
            }
            Operation::LeaseKeepAlive => {
                let lease = self.leases[client];
                messages::lease_keep_alive(message, lease);
                let expects = Expectation::KeptAlive(lease);
                Request { path: path::LEASE_KEEP_ALIVE, kind: CallKind::Stream, expects }
            }
        }
    }

    fn next_key(&mut self) -> u64 {
        match self.order {
            KeyOrder::Random => self.random.next() % self.keys.count(),
            KeyOrder::Sequential => (self.made - 1) % self.keys.count(),
        }
    }

    fn put(&mut self, number: u64, stamp: u64, message: &mut Vec<u8>) {
        self.keys.key(&mut self.key, number);
        self.keys.value(&mut self.other, number, stamp);
        messages::put(message, &self.key, &self.other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{write_bytes, write_int};

    fn header(revision: i64) -> Vec<u8> {
        let (mut inner, mut out) = (Vec::new(), Vec::new());
        write_int(&mut inner, 3, revision);
        write_bytes(&mut out, 1, &inner);
        out
    }

    fn range_answer(keys: &Keyspace, numbers: &[u64]) -> Vec<u8> {
        let mut out = header(10);
        let (mut key, mut value, mut kv) = (Vec::new(), Vec::new(), Vec::new());
        for number in numbers {
            keys.key(&mut key, *number);
            keys.value(&mut value, *number, 1);
            kv.clear();
            write_bytes(&mut kv, 1, &key);
            write_bytes(&mut kv, 5, &value);
            write_bytes(&mut out, 2, &kv);
        }
        out
    }

    #[test]
    fn wrong_answers_are_noticed() {
        let keys = Keyspace::new("k", 16, 100, 64).unwrap();
        let check =
            |expects: Expectation, seen: u64, answer: &[u8]| expects.check(&keys, &mut seen.clone(), answer);
        let right = range_answer(&keys, &[7]);
        check(Expectation::Key(7), 10, &right).unwrap();
        check(Expectation::Key(8), 0, &right).unwrap_err();
        check(Expectation::Key(7), 11, &right).unwrap_err();
        check(Expectation::KeyMaybeOld(7), 11, &right).unwrap();
        check(Expectation::Key(7), 0, &header(10)).unwrap_err();
        check(Expectation::Key(7), 0, &range_answer(&keys, &[7, 8])).unwrap_err();

        let scan = |deep| Expectation::Keys { first: 3, count: 4, deep };
        check(scan(true), 0, &range_answer(&keys, &[3, 4, 5, 6])).unwrap();
        check(scan(true), 0, &range_answer(&keys, &[3, 5, 4, 6])).unwrap_err();
        check(scan(false), 0, &range_answer(&keys, &[3, 4, 5])).unwrap_err();
        check(scan(false), 0, &range_answer(&keys, &[4, 5, 6, 7])).unwrap_err();

        check(Expectation::Written, 9, &header(10)).unwrap();
        check(Expectation::Written, 10, &header(10)).unwrap_err();
        check(Expectation::Succeeded, 0, &header(10)).unwrap_err();
    }

    #[test]
    fn a_kept_lease_must_be_the_one_asked_for_and_alive() {
        let keys = Keyspace::new("k", 16, 100, 64).unwrap();
        let mut answer = header(1);
        write_int(&mut answer, 2, 5);
        Expectation::KeptAlive(5).check(&keys, &mut 0, &answer).unwrap_err();
        write_int(&mut answer, 3, LEASE_TTL_SECONDS);
        Expectation::KeptAlive(5).check(&keys, &mut 0, &answer).unwrap();
        Expectation::KeptAlive(6).check(&keys, &mut 0, &answer).unwrap_err();
        Expectation::Granted.check(&keys, &mut 0, &answer).unwrap();
    }
}
